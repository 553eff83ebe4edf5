"""A convolutional network finds digits on a canvas: a box and a class for each.

    python examples/digit_detector.py

Digits of scikit-learn lie on a canvas in random sizes and places, at most one in each cell of a grid.  Each time that the network
sees a canvas it is turned, shifted and scaled at random, and its boxes follow.  As that of Redmon et al. (2016), the network tells
for each cell whether a digit has its center there, where, how large its box is, and which digit it is.  The figure is the mean
average precision of COCO: over digits, and over how much a box has to overlap the true one to be right.
"""

import sys
from collections.abc import Iterator

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits

import gpunet
from gpunet import nn
from gpunet.data import DataLoader, TensorDataset
from gpunet.metrics import MeanAveragePrecision
from gpunet.nn import functional as F
from gpunet.vision import transforms
from gpunet.vision.ops import box_convert
from gpunet.vision.tv_tensors import BoundingBoxes, Image

GRID, CELL, BATCH, EPOCHS, CANVASES = 3, 16, 32, 25, 1000
SIDE = GRID * CELL


def canvases(count: int, digits: gpunet.Tensor, labels: gpunet.Tensor) -> tuple[gpunet.Tensor, gpunet.Tensor, gpunet.Tensor]:
    """Images (count, 1, SIDE, SIDE); boxes x1, y1, x2, y2 (count, cells, 4); classes (count, cells), -1 of empty cells."""
    cells = count * GRID**2
    which = gpunet.randint(0, len(digits), (cells,))
    size = 0.5 + 0.4 * gpunet.rand(cells)
    y, x = size / 2 + (1 - size) * gpunet.rand(2, cells)
    zero = gpunet.zeros(cells)
    theta = gpunet.stack([1 / size, zero, (1 - 2 * x) / size, zero, 1 / size, (1 - 2 * y) / size], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, (cells, 1, CELL, CELL), align_corners=False)
    is_full = gpunet.rand(cells) < 0.6
    patches = F.grid_sample(digits[which], grid, align_corners=False) * is_full.float().reshape(-1, 1, 1, 1)
    images = patches.reshape(count, GRID, GRID, CELL, CELL).transpose(2, 3).reshape(count, 1, SIDE, SIDE)
    place = gpunet.arange(GRID**2).repeat(count)
    boxes = CELL * gpunet.stack([x + place % GRID, y + place // GRID, size, size], 1).reshape(count, GRID**2, 4)
    return images, box_convert(boxes, "cxcywh", "xyxy"), gpunet.where(is_full, labels[which], -1).reshape(count, GRID**2)


def with_noise(images: gpunet.Tensor) -> gpunet.Tensor:
    return images + 0.1 * gpunet.randn(images.shape)


class Augmented:
    """Batches of canvases, each turned, shifted and scaled by numbers of its own, which depend on its number and the epoch."""

    change = transforms.Compose([
        transforms.RandomAffine(4, (0.08, 0.08), (0.92, 1.08), interpolation=transforms.InterpolationMode.BILINEAR),
        transforms.SanitizeBoundingBoxes(min_size=5, ignore_index=-1),
    ])

    def __init__(self, images: gpunet.Tensor, boxes: gpunet.Tensor, classes: gpunet.Tensor) -> None:
        rows = TensorDataset(images, boxes, classes, gpunet.arange(len(images)))
        self.loader, self.epoch = DataLoader(rows, batch_size=BATCH, shuffle=True), 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[gpunet.Tensor, gpunet.Tensor]]:
        for images, boxes, classes, number in self.loader:
            with transforms.keyed(number, epoch=self.epoch):
                boxes = BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE))
                sample = self.change({"image": Image(images), "boxes": boxes, "labels": classes})
            yield with_noise(sample["image"]), target_of(sample["boxes"], sample["labels"])
        self.epoch += 1


def target_of(boxes: gpunet.Tensor, classes: gpunet.Tensor) -> gpunet.Tensor:
    """Boxes and classes in one tensor (count, boxes, 5)."""
    return gpunet.cat([boxes, classes.unsqueeze(-1).float()], -1)


def network() -> nn.Sequential:
    layers, channels = [], 1
    for out, stride in ((16, 2), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [nn.Conv2d(channels, out, 3, stride=stride, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, 15, 3, padding=1))  # full?, center, width and height, ten classes


def of_cells(target: gpunet.Tensor) -> tuple[gpunet.Tensor, gpunet.Tensor]:
    """The first box whose center lies in each cell: center, width and height in cells (count, 4, GRID, GRID), and its class."""
    boxes, classes = box_convert(target[..., :4] / CELL, "xyxy", "cxcywh"), target[..., 4].long()
    column, row = boxes[..., 0].floor().clamp(0, GRID - 1), boxes[..., 1].floor().clamp(0, GRID - 1)
    cell = (row * GRID + column).long()
    is_there = (cell.unsqueeze(-1) == gpunet.arange(GRID**2)) & (classes >= 0).unsqueeze(-1)
    first = is_there.long().argmax(1)
    chosen = boxes.gather(1, first.unsqueeze(-1).expand(-1, -1, 4))
    corner = gpunet.stack([gpunet.arange(GRID**2) % GRID, gpunet.arange(GRID**2) // GRID], -1)
    chosen = gpunet.cat([chosen[..., :2] - corner, chosen[..., 2:]], -1).transpose(1, 2)
    kinds = gpunet.where(is_there.any(1), classes.gather(1, first), -1)
    return chosen.reshape(-1, 4, GRID, GRID), kinds.reshape(-1, GRID, GRID)


def loss_of(found: gpunet.Tensor, target: gpunet.Tensor) -> gpunet.Tensor:
    boxes, classes = of_cells(target)
    is_full = (classes >= 0).float()
    distances = ((found[:, 1:5] - boxes) ** 2).sum(1) * is_full
    kinds = F.cross_entropy(found[:, 5:], classes, ignore_index=-1)
    return F.binary_cross_entropy_with_logits(found[:, 0], is_full) + 5 * distances.mean() + kinds


def corners(boxes: gpunet.Tensor) -> gpunet.Tensor:
    """Boxes (count, 4, GRID, GRID) of the cells as (count, cells, 4): x1, y1, x2, y2 in pixels."""
    place = gpunet.arange(GRID)
    centers = gpunet.stack([boxes[:, 0] + place, boxes[:, 1] + place[:, None], boxes[:, 2].abs(), boxes[:, 3].abs()], -1)
    return CELL * box_convert(centers, "cxcywh", "xyxy").flatten(1, 2)


def measure(found: gpunet.Tensor, boxes: gpunet.Tensor, classes: gpunet.Tensor) -> MeanAveragePrecision:
    """Compare the boxes of all cells, full or not, with the true ones."""
    scores, kinds = (found[:, 5:].softmax(1) * found[:, :1].sigmoid()).flatten(2).max(1)
    metric = MeanAveragePrecision()
    metric.update(
        [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(corners(found[:, 1:5]), scores, kinds)],
        [{"boxes": b[k >= 0], "labels": k[k >= 0]} for b, k in zip(boxes, classes)],
    )
    return metric


def main(path: str = "digit_detector.png") -> tuple[float, float]:
    gpunet.manual_seed(0)
    data = load_digits()
    digits = gpunet.tensor(data.images.astype("float32") / 16.0).unsqueeze(1)
    labels = gpunet.tensor(data.target.astype("int64"))
    train = Augmented(*canvases(CANVASES, digits[:1400], labels[:1400]))
    images, boxes, classes = canvases(100, digits[1400:], labels[1400:])  # digits that it has not seen
    images = with_noise(images)
    validation = DataLoader(TensorDataset(images, target_of(boxes, classes)), batch_size=100)

    model = network()
    optimizer = gpunet.optim.Adam(model.parameters())
    schedule = gpunet.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, EPOCHS * len(train))
    gpunet.fit(
        model, loss_of, optimizer, train, validation, epochs=EPOCHS, schedule=schedule, schedule_per="step", capture="numpy",
    )  # fmt: skip

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
        kinds = found[n, 5:].argmax(0).flatten()
        for (x1, y1, x2, y2), kind in zip(corners(found[n : n + 1, 1:5])[0, is_full].tolist(), kinds[is_full].tolist()):
            axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color="orange"))
            axes.text(x1 - 0.5, y1 - 0.5, kind, color="orange", va="bottom")
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return mean, at_half


if __name__ == "__main__":
    main(*sys.argv[1:])
