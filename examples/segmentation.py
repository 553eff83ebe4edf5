"""A U-Net finds disks and squares in noise, pixel by pixel.

    python examples/segmentation.py

Each image has a disk and a square of random size, place and brightness, which may overlap; the square lies above.  The score of a
class is the intersection of the pixels found and the true ones, divided by their union (IoU).
"""

import sys

from matplotlib.figure import Figure

import gpunet
from gpunet import nn
from gpunet.models import UNet

SIZE, BATCH, STEPS = 32, 16, 180
CLASSES = ("background", "disk", "square")


def shapes(count: int) -> tuple[gpunet.Tensor, gpunet.Tensor]:
    """Images (count, 1, SIZE, SIZE) and the class of each pixel (count, SIZE, SIZE)."""
    y, x = gpunet.meshgrid(gpunet.arange(SIZE).float(), gpunet.arange(SIZE).float(), indexing="ij")
    center_y, center_x = 4 + (SIZE - 8) * gpunet.rand(2, 2, count, 1, 1)
    radius = 4 + 5 * gpunet.rand(2, count, 1, 1)
    brightness = 0.4 + 0.6 * gpunet.rand(2, count, 1, 1)
    is_disk = (y - center_y[0]) ** 2 + (x - center_x[0]) ** 2 < radius[0] ** 2
    is_square = gpunet.maximum((y - center_y[1]).abs(), (x - center_x[1]).abs()) < radius[1]
    classes = gpunet.where(is_square, 2, is_disk.long())
    images = gpunet.where(is_square, brightness[1], is_disk.float() * brightness[0])
    return (images + 0.2 * gpunet.randn(count, SIZE, SIZE)).unsqueeze(1), classes


def intersections_over_unions(found: gpunet.Tensor, classes: gpunet.Tensor) -> list[float]:
    """The IoU of each class."""
    both = [((found == c) & (classes == c)).sum().item() for c in range(len(CLASSES))]
    either = [((found == c) | (classes == c)).sum().item() for c in range(len(CLASSES))]
    return [b / e for b, e in zip(both, either)]


def main(path: str = "segmentation.png") -> list[float]:
    gpunet.manual_seed(0)
    model = UNet(in_channels=1, num_classes=len(CLASSES), width=8, depth=3)
    optimizer = gpunet.optim.Adam(model.parameters(), lr=5e-3)
    schedule = gpunet.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    @gpunet.capture(backend="numpy")
    def step(images: gpunet.Tensor, classes: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), classes)
        loss.backward()
        optimizer.step()
        return loss

    for number in range(1, STEPS + 1):
        loss = step(*shapes(BATCH))
        schedule.step()
        if number % 60 == 0:
            print(f"step {number:4d}  loss {loss.item():.4f}")

    images, classes = shapes(64)
    model.eval()
    with gpunet.no_grad():
        found = model(images).argmax(1)
    scores = intersections_over_unions(found, classes)
    print("IoU on new images: " + ", ".join(f"{name} {score:.3f}" for name, score in zip(CLASSES, scores)))

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for row, (title, pictures) in zip(figure.subplots(3, 8), (("image", images[:, 0]), ("true", classes), ("found", found))):
        row[0].set_ylabel(title)
        for axes, picture in zip(row, pictures):
            axes.imshow(picture.numpy(), cmap="gray" if title == "image" else "viridis")
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
