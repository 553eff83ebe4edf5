"""A variational autoencoder draws new digits.

    python examples/generate_digits.py

It learns from 1500 digits of scikit-learn to describe an image by six numbers that are distributed normally (Kingma and Welling
2014), so that six random numbers describe a new digit.  The picture has 64 of them.
"""

import sys

from sklearn.datasets import load_digits

import gpunet
from gpunet.models import VAE, negative_elbo
from gpunet.vision.utils import save_image

EPOCHS, BATCH = 40, 64


def main(path: str = "generate_digits.png") -> float:
    gpunet.manual_seed(0)
    images = gpunet.tensor(load_digits().images.astype("float32") / 16.0).unsqueeze(1)
    held_out, images = images.split([297, 1500])
    model = VAE(image_size=8, latent=6, width=32, depth=1)
    optimizer = gpunet.optim.Adam(model.parameters(), lr=3e-3)
    schedule = gpunet.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        logits, mean, log_variance = model(x)
        loss = negative_elbo(logits, x, mean, log_variance)
        loss.backward()
        optimizer.step()
        return loss

    epoch = step.epoch(images, batch_size=BATCH)
    for number in range(1, EPOCHS + 1):
        loss = epoch()
        schedule.step()
        if number % 10 == 0:
            print(f"epoch {number:3d}  negative evidence lower bound {loss.item():.2f} nats an image")

    model.eval()
    with gpunet.no_grad():
        logits = model(held_out)[0]
        error = ((logits.sigmoid() - held_out) ** 2).mean().sqrt().item()
        save_image(gpunet.nn.functional.interpolate(model.sample(64), scale_factor=4), path, nrow=16, pad_value=1.0)
    print(f"held-out digits are reconstructed with an error of {error:.3f} a pixel; new digits: {path}")
    return error


if __name__ == "__main__":
    main(*sys.argv[1:])
