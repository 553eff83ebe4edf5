"""Samples of windows as columns, of their sum, and of elements between those of a grid."""

from __future__ import annotations

import numpy
from scipy import ndimage

import gpunet
from tests.samples.inputs import ROWS, normal, uniform
from tests.samples.row import row

F = gpunet.nn.functional


def _columns(x: numpy.ndarray) -> numpy.ndarray:
    """The windows of 2 x 3 of images, as columns."""
    windows = numpy.lib.stride_tricks.sliding_window_view(x, (2, 3), (2, 3))
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(len(x), x.shape[1] * 6, (x.shape[2] - 1) * (x.shape[3] - 2))


def _summed(columns: numpy.ndarray) -> numpy.ndarray:
    """The sum of columns at the places of windows of 2 x 3 of images of 4 x 4."""
    taps = columns.reshape(len(columns), columns.shape[1] // 6, 2, 3, 3, 2)
    out = numpy.zeros((*taps.shape[:2], 4, 4))
    for i, j in numpy.ndindex(2, 3):
        out[:, :, i : i + 3, j : j + 2] += taps[:, :, i, j]
    return out


row("_unfold", lambda x: F.unfold(x, (2, 3)), _columns, normal(ROWS, 2, 4, 5), name="unfold",
    torch=lambda torch, x: torch.nn.functional.unfold(x, (2, 3)))  # fmt: skip
row("_fold", lambda x: F.fold(x, (4, 4), (2, 3)), _summed, normal(ROWS, 12, 6), name="fold",
    torch=lambda torch, x: torch.nn.functional.fold(x, (4, 4), (2, 3)))  # fmt: skip


def _positions(theta: numpy.ndarray) -> numpy.ndarray:
    """The positions of images of 2 x 3, which ``theta`` moves."""
    return numpy.stack([*numpy.meshgrid([-1.0, 0.0, 1.0], [-1.0, 1.0]), numpy.ones((2, 3))], -1) @ theta.swapaxes(1, 2)[:, None]


def _sampled(x: numpy.ndarray, grid: numpy.ndarray) -> numpy.ndarray:
    """Linear interpolation between the nearest elements, at positions from -1 to 1 between the first and the last."""
    sizes = numpy.array(x.shape[2:])
    places = numpy.moveaxis((grid[..., ::-1] + 1) / 2 * (sizes - 1), -1, 1)
    return numpy.stack([[ndimage.map_coordinates(plane, at, order=1) for plane in image] for image, at in zip(x, places)])


for _dims, _extents in ((2, (3, 4)), (3, (2, 3, 4))):
    row("_index", lambda x, g: F.grid_sample(x, g, align_corners=True), _sampled, normal(2, 2, *_extents),
        uniform(-0.95, 0.95, 2, *(2,) * _dims, _dims), name=f"grid_sample {_dims}d",
        torch=lambda torch, x, g: torch.nn.functional.grid_sample(x, g, align_corners=True))  # fmt: skip
row("_mul", lambda theta: F.affine_grid(theta, (2, 1, 2, 3), align_corners=True), _positions, normal(2, 2, 3), name="affine_grid",
    torch=lambda torch, theta: torch.nn.functional.affine_grid(theta, (2, 1, 2, 3), True))  # fmt: skip
