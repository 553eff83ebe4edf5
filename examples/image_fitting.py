"""A perceptron learns a photograph: the color of each pixel from its position.

    python examples/image_fitting.py

From plain positions it learns a blurred image alone.  From their Fourier features, sines and cosines of random frequencies, it
learns the details, too (Tancik et al. 2020).  The photograph is one that scikit-learn ships.
"""

import math
import sys

from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import gpunet
from gpunet import nn

FEATURES, SCALE, STEPS = 64, 6.0, 200


def photograph() -> gpunet.Tensor:
    """The colors (60, 90, 3) in 0 .. 1 of a photograph, made small."""
    image = gpunet.tensor(load_sample_image("flower.jpg").astype("float32") / 255.0).permute(2, 0, 1)
    return nn.functional.interpolate(image[None, :, 13:413, 20:620], (60, 90), mode="area")[0].permute(1, 2, 0)


def fit(inputs: gpunet.Tensor, colors: gpunet.Tensor) -> gpunet.Tensor:
    """What a network that is trained on all pixels says of each: (pixels, features), (pixels, 3) -> (pixels, 3)."""
    model = nn.Sequential(
        nn.Linear(inputs.shape[1], 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 3), nn.Sigmoid()
    )
    optimizer = gpunet.optim.Adam(model.parameters(), lr=5e-3)

    @gpunet.capture(backend="numpy")
    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), colors).backward()
        optimizer.step()

    for _ in range(STEPS):
        step()
    with gpunet.no_grad():
        return model(inputs)


def main(path: str = "image_fitting.png") -> dict[str, float]:
    gpunet.manual_seed(0)
    image = photograph()
    height, width, _ = image.shape
    rows, columns = gpunet.meshgrid(gpunet.linspace(-1, 1, height), gpunet.linspace(-1, 1, width), indexing="ij")
    positions = gpunet.stack([rows, columns], -1).reshape(-1, 2)
    angles = positions @ (SCALE * gpunet.randn(2, FEATURES))
    inputs = {"positions": positions, "Fourier features": gpunet.cat([angles.sin(), angles.cos()], 1)}

    pictures, ratios = {"photograph": image}, {}
    for name, values in inputs.items():
        found = fit(values, image.reshape(-1, 3)).reshape(image.shape)
        ratios[name] = -10 * math.log10(((found - image) ** 2).mean().item())
        pictures[f"{name}: {ratios[name]:.1f} dB"] = found
        print(f"{name:17} signal to noise {ratios[name]:.1f} dB")

    figure = Figure(figsize=(9, 2.3), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, 3), pictures.items()):
        axes.imshow(picture.numpy())
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return ratios


if __name__ == "__main__":
    main(*sys.argv[1:])
