"""A convolutional network finds digits on a canvas: a box and a class for each.

    python examples/digit_detector.py

Digits of scikit-learn lie on a canvas in random sizes and places, at most one in each cell of a grid.  As that of Redmon et al.
(2016), the network tells for each cell whether it has a digit, where its center is, how large its box is, and which digit it is.
The figure is the mean average precision of COCO: over digits, and over how much a box has to overlap the true one to be right.
"""

import sys

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits

import gpunet
from gpunet import nn
from gpunet.metrics import MeanAveragePrecision
from gpunet.nn import functional as F

GRID, CELL, BATCH, STEPS = 3, 16, 32, 500


def canvases(count: int, digits: gpunet.Tensor, labels: gpunet.Tensor) -> tuple[gpunet.Tensor, gpunet.Tensor, gpunet.Tensor]:
    """Images (count, 1, 48, 48); boxes (count, 3, GRID, GRID): center y, x and size in cells; classes, -1 of empty cells."""
    cells = count * GRID**2
    which = gpunet.randint(0, len(digits), (cells,))
    size = 0.5 + 0.4 * gpunet.rand(cells)
    y, x = size / 2 + (1 - size) * gpunet.rand(2, cells)
    zero = gpunet.zeros(cells)
    theta = gpunet.stack([1 / size, zero, (1 - 2 * x) / size, zero, 1 / size, (1 - 2 * y) / size], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, (cells, 1, CELL, CELL), align_corners=False)
    is_full = gpunet.rand(cells) < 0.6
    patches = F.grid_sample(digits[which], grid, align_corners=False) * is_full.float().reshape(-1, 1, 1, 1)
    images = patches.reshape(count, GRID, GRID, CELL, CELL).transpose(2, 3).reshape(count, 1, GRID * CELL, GRID * CELL)
    boxes = gpunet.stack([y, x, size], 1).reshape(count, GRID, GRID, 3).permute(0, 3, 1, 2)
    classes = gpunet.where(is_full, labels[which], -1).reshape(count, GRID, GRID)
    return images + 0.1 * gpunet.randn(images.shape), boxes, classes


def network() -> nn.Sequential:
    layers, channels = [], 1
    for out in (16, 32, 64, 64):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, 14, 3, padding=1))  # full?, center and size, ten classes


def loss_of(found: gpunet.Tensor, boxes: gpunet.Tensor, classes: gpunet.Tensor) -> gpunet.Tensor:
    is_full = (classes >= 0).float()
    distances = ((found[:, 1:4] - boxes) ** 2).sum(1) * is_full
    kinds = F.cross_entropy(found[:, 4:], classes, ignore_index=-1)
    return F.binary_cross_entropy_with_logits(found[:, 0], is_full) + 10 * distances.mean() + kinds


def corners(boxes: gpunet.Tensor) -> gpunet.Tensor:
    """Boxes (count, 3, GRID, GRID) of the cells as (count, cells, 4): x1, y1, x2, y2 in pixels."""
    place = gpunet.arange(GRID)
    y, x, half = boxes[:, 0] + place[:, None], boxes[:, 1] + place, boxes[:, 2].abs() / 2
    return CELL * gpunet.stack([x - half, y - half, x + half, y + half], -1).flatten(1, 2)


def measure(found: gpunet.Tensor, boxes: gpunet.Tensor, classes: gpunet.Tensor) -> MeanAveragePrecision:
    """Compare the boxes of all cells, full or not, with the true ones."""
    scores, kinds = (found[:, 4:].softmax(1) * found[:, :1].sigmoid()).flatten(2).max(1)
    metric = MeanAveragePrecision()
    metric.update(
        [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(corners(found[:, 1:4]), scores, kinds)],
        [{"boxes": b[k >= 0], "labels": k[k >= 0]} for b, k in zip(corners(boxes), classes.flatten(1))],
    )
    return metric


def main(path: str = "digit_detector.png") -> tuple[float, float]:
    gpunet.manual_seed(0)
    data = load_digits()
    digits = gpunet.tensor(data.images.astype("float32") / 16.0).unsqueeze(1)
    labels = gpunet.tensor(data.target.astype("int64"))
    model = network()
    optimizer = gpunet.optim.Adam(model.parameters())
    schedule = gpunet.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, STEPS)

    @gpunet.capture(backend="numpy")
    def step(images: gpunet.Tensor, boxes: gpunet.Tensor, classes: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(images), boxes, classes)
        loss.backward()
        optimizer.step()
        return loss

    for number in range(1, STEPS + 1):
        loss = step(*canvases(BATCH, digits[:1400], labels[:1400]))
        schedule.step()
        if number % 100 == 0:
            print(f"step {number:4d}  loss {loss.item():.4f}")

    images, boxes, classes = canvases(100, digits[1400:], labels[1400:])  # digits that it has not seen
    model.eval()
    with gpunet.no_grad():
        found = model(images)
    figures = measure(found, boxes, classes).compute()
    mean, at_half = figures["map"].item(), figures["map_50"].item()
    print(f"new canvases: mean average precision {mean:.3f}, at an IoU of 0.5 {at_half:.3f}")

    figure = Figure(figsize=(9, 3), layout="constrained")
    for n, axes in enumerate(figure.subplots(1, 3)):
        axes.imshow(images[n, 0].numpy(), cmap="gray")
        axes.axis("off")
        is_full = found[n, 0].flatten() > 0
        kinds = found[n, 4:].argmax(0).flatten()
        for (x1, y1, x2, y2), kind in zip(corners(found[n : n + 1, 1:4])[0, is_full].tolist(), kinds[is_full].tolist()):
            axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color="orange"))
            axes.text(x1 - 0.5, y1 - 0.5, kind, color="orange", va="bottom")
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return mean, at_half


if __name__ == "__main__":
    main(*sys.argv[1:])
