"""Time augmentation of a batch beside torchvision's v2, in turns.

    python bench/transforms.py [--torchvision FOLDER] [--threads 2]

A batch of 256 images of 32 x 32 in float32.  torchvision draws its numbers once for the batch (with RandAugment also the
operations), gpunet for each sample.  Printed is gpunet's time divided by torchvision's, eager, and captured as a step of its own:
the median over the rounds, and in brackets that of the quietest rounds of each, since other processes disturb threads that wait
for each other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpunet
from bench.interleaved import times
from gpunet.vision import transforms

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def pipelines(t: Any) -> dict[str, Any]:
    """The same pipelines of gpunet's or torchvision's transforms."""
    bilinear = t.InterpolationMode.BILINEAR
    return {
        "crop, flip, jitter with hue, normalise": t.Compose([
            t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.ColorJitter(0.4, 0.4, 0.4, 0.1), t.Normalize(MEAN, STD),
        ]),
        "crop, flip, jitter without hue, normalise": t.Compose([
            t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.ColorJitter(0.4, 0.4, 0.4), t.Normalize(MEAN, STD),
        ]),
        "crop, flip, normalise": t.Compose([t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.Normalize(MEAN, STD)]),
        "affine, nearest": t.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5),
        "affine, bilinear": t.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5, interpolation=bilinear),
        "resized crop": t.RandomResizedCrop(32),
        "RandAugment": t.RandAugment(),
    }  # fmt: skip


def torchvision_v2(folder: str | None) -> tuple[Any, Any]:
    """torch and torchvision.transforms.v2, which need no compiled functions of torchvision."""
    if folder:
        sys.path.insert(0, folder)
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # a wheel for CUDA does not load its own beside a torch for the CPU
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    original = torch.library.register_fake
    torch.library.register_fake = lambda *args, **options: lambda function: function
    try:
        from torchvision.transforms import v2
    finally:
        torch.library.register_fake = original
    torchvision_v2.library = library  # type: ignore[attr-defined]  # which defines them as long as it lives
    return torch, v2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torchvision", metavar="FOLDER", help="where torchvision is installed, if not in the environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="a part of the name of a pipeline")
    options = parser.parse_args()
    torch, v2 = torchvision_v2(options.torchvision)
    torch.set_num_threads(options.threads)
    gpunet.set_num_threads(options.threads)
    pixels = numpy.random.default_rng(0).random((256, 3, 32, 32), dtype=numpy.float32)
    ours, theirs = gpunet.tensor(pixels), torch.tensor(pixels)
    print(f"256 images of 32 x 32, {options.threads} threads: time divided by torchvision's; in brackets of the quietest rounds")
    for name, augment in pipelines(transforms).items():
        if options.only not in name:
            continue
        their_augment = pipelines(v2)[name]
        step = gpunet.capture(augment.forward)
        steps: list[Callable[[], Any]] = [lambda a=augment: a(ours), lambda s=step: s(ours), lambda t=their_augment: t(theirs)]
        eager, captured, other = times(*steps, seconds=0.05)
        ratios = [(statistics.median(a / b for a, b in zip(found, other)), min(found) / min(other)) for found in (eager, captured)]
        shown = "  ".join(f"{kind} {a:5.2f} ({b:5.2f})" for kind, (a, b) in zip(("eager", "captured"), ratios))
        print(f"{name:43s} {shown}   torchvision {1e3 * statistics.median(other):6.2f} ms ({1e3 * min(other):.2f})", flush=True)


if __name__ == "__main__":
    main()
