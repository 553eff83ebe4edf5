"""Samples of interpolation."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal
from tests.samples.row import row

F = gpunet.nn.functional


def _doubled(x: numpy.ndarray) -> numpy.ndarray:
    """Twice as many columns, linearly: a quarter of the neighbour on the one side or the other."""
    near = numpy.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)], "edge")
    parts = 0.75 * x + 0.25 * near[..., :-2], 0.75 * x + 0.25 * near[..., 2:]
    return numpy.stack(parts, -1).reshape(*x.shape[:-1], 2 * x.shape[-1])


def _bilinear(x: numpy.ndarray) -> numpy.ndarray:
    return _doubled(_doubled(x).swapaxes(-1, -2)).swapaxes(-1, -2)


for _mode, _formula, _shape in (
    ("nearest", lambda x: x.repeat(2, -1).repeat(2, -2), (ROWS, 2, 3, 4)), ("linear", _doubled, (ROWS, 2, 5)),
    ("bilinear", _bilinear, (ROWS, 2, 3, 4)),
):  # fmt: skip
    row(
        "_resample", lambda x, m=_mode: F.interpolate(x, scale_factor=2, mode=m), _formula, normal(*_shape), name=_mode,
        torch=lambda torch, x, m=_mode: torch.nn.functional.interpolate(x, scale_factor=2, mode=m),
    )  # fmt: skip


def _shuffled(x: numpy.ndarray) -> numpy.ndarray:
    return x.reshape(-1, 1, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(-1, 1, 4, 6)


row("_permute", lambda x: F.pixel_shuffle(x, 2), _shuffled, normal(ROWS, 4, 2, 3), name="pixel shuffle",
    torch=lambda torch, x: torch.nn.functional.pixel_shuffle(x, 2))  # fmt: skip
