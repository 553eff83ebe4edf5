"""A residual network reads digits that are rotated, scaled and moved at random in training.

    python examples/image_classifier.py

The data are the 1797 digits of scikit-learn, a fifth of them held out.  The network is that of He et al. (2016) for small images,
with 8 layers: batch norm and shortcuts keep the gradients of deep networks from vanishing (examples/residual_gradients.py).  A
picture shows the held-out digits that the network gets wrong.
"""

import math
import sys

from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import gpunet
from gpunet.nn import functional as F
from gpunet.vision.models import CifarResNet

EPOCHS, BATCH = 20, 64


def augmented(images: gpunet.Tensor) -> gpunet.Tensor:
    """Each image (1, 8, 8), rotated by up to 0.15, scaled by up to 10 % and moved by up to a pixel."""
    angle, scale = 0.3 * gpunet.rand(len(images)) - 0.15, 0.9 + 0.2 * gpunet.rand(len(images))
    x, y = (gpunet.rand(2, len(images)) - 0.5) * 0.5  # an image reaches from -1 to 1
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = gpunet.stack([cos, -sin, x, sin, cos, y], 1).reshape(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)


def show_errors(images: gpunet.Tensor, labels: gpunet.Tensor, found: gpunet.Tensor, path: str) -> None:
    wrong = [n for n in range(len(labels)) if found[n] != labels[n]]
    figure = Figure(figsize=(1.2 * max(len(wrong), 3), 1.7))
    for axes, n in zip(figure.subplots(1, max(len(wrong), 2)), wrong):
        axes.imshow(images[n, 0].numpy(), cmap="gray_r")
        axes.set_title(f"{labels[n].item()} read as {found[n].item()}", fontsize=8)
        axes.axis("off")
    figure.savefig(path)


def main(path: str = "image_classifier.png") -> float:
    gpunet.manual_seed(0)
    data = load_digits()
    images = gpunet.tensor(data.images.astype("float32") / 16.0).unsqueeze(1)
    labels = gpunet.tensor(data.target.astype("int64"))
    test, train = gpunet.randperm(len(images)).split([360, 1437])

    model = CifarResNet(8, in_channels=1, width=16)
    optimizer = gpunet.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = gpunet.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, EPOCHS * math.ceil(len(train) / BATCH))

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    for number in range(EPOCHS):
        model.train()
        moved = augmented(images[train])
        for rows in gpunet.randperm(len(train)).split(BATCH):
            loss = step(moved[rows], labels[train][rows])
            schedule.step()
        if number % 4 == 3:
            model.eval()
            with gpunet.no_grad():
                found = model(images[test]).argmax(1)
            accuracy = (found == labels[test]).float().mean().item()
            print(f"epoch {number + 1:3d}  loss {loss.item():.4f}  held-out accuracy {accuracy:.4f}")
    show_errors(images[test], labels[test], found, path)
    print(f"the held-out digits that it gets wrong: {path}")
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
