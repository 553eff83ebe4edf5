"""Samples of convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from tests.samples.activations import ACTIVATIONS, torch_activation
from tests.samples.inputs import ROWS, away, normal, uniform
from tests.samples.row import row

F = gpunet.nn.functional


def convolved(
    x: numpy.ndarray, w: numpy.ndarray, b: numpy.ndarray | None = None, stride: int = 1, padding: int = 0, dilation: int = 1,
    groups: int = 1,
) -> numpy.ndarray:  # fmt: skip
    """The sum over taps, tap by tap."""
    x = numpy.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    o, c, down, across = w.shape
    rows, columns = ((n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[2:], (down, across)))
    y = numpy.zeros((len(x), groups, o // groups, rows, columns))
    images = x.reshape(len(x), groups, c, *x.shape[2:])
    for r, s in itertools.product(range(down), range(across)):
        top, left = r * dilation, s * dilation
        taps = images[..., top : top + (rows - 1) * stride + 1 : stride, left : left + (columns - 1) * stride + 1 : stride]
        y += numpy.einsum("ngcij,goc->ngoij", taps, w[..., r, s].reshape(groups, o // groups, c))
    y = y.reshape(len(x), o, rows, columns)
    return y if b is None else y + b.reshape(-1, 1, 1)


def _activated(key: tuple[str, float]) -> Callable[..., Any]:
    return lambda x, w, b: gpunet.ops.convolution.convolve(x, w, b, 1, 1, 1, 1, *key)


for _name, _x, _w, _options in (
    ("3 x 3", (ROWS, 2, 5, 6), (3, 2, 3, 3), {"padding": 1}),
    ("stride", (ROWS, 2, 7, 6), (4, 2, 3, 2), {"stride": 2, "padding": 1}),
    ("dilation", (ROWS, 1, 7, 8), (2, 1, 2, 3), {"dilation": 2, "padding": 2}),
    ("groups", (ROWS, 4, 5, 5), (6, 2, 2, 2), {"groups": 2, "stride": 3}),
    ("depthwise", (ROWS, 3, 6, 5), (3, 1, 3, 3), {"groups": 3}),
    ("1 x 1", (ROWS, 3, 8, 9), (4, 3, 1, 1), {}),
    ("one pixel", (ROWS, 2, 3, 2), (3, 2, 3, 2), {}),
):
    row(
        "convolution", lambda x, w, b, k=_options: F.conv2d(x, w, b, **k), lambda x, w, b, k=_options: convolved(x, w, b, **k),
        normal(*_x), normal(*_w), normal(_w[0]), name=_name,
        torch=lambda torch, x, w, b, k=_options: torch.nn.functional.conv2d(x, w, b, **k),
    )  # fmt: skip
row("convolution", lambda x, w: F.conv2d(x, w, padding="same"), lambda x, w: convolved(x, w, None, 1, 1),
    normal(ROWS, 2, 4, 4), normal(2, 2, 3, 3), name="no bias")  # fmt: skip
for _key, (_formula, _, _) in ACTIVATIONS.items():
    # |x * w| <= 0.36 and |b| >= 0.4 keep the pre-activation away from the kink at 0
    row(
        "convolution", _activated(_key), lambda x, w, b, f=_formula: f(convolved(x, w, b, 1, 1)),
        uniform(-1, 1, ROWS, 2, 4, 3), uniform(-0.02, 0.02, 3, 2, 3, 3), away(3, margin=0.4), name=f"{_key[0]} {_key[1]}",
        torch=lambda torch, x, w, b, k=_key: torch_activation(torch, torch.nn.functional.conv2d(x, w, b, 1, 1), k),
    )  # fmt: skip


def spread(x: numpy.ndarray, w: numpy.ndarray, stride: int, padding: int) -> numpy.ndarray:
    """The transpose of a convolution: each pixel adds its filters to the result."""
    (n, _, height, width), (_, o, down, across) = x.shape, w.shape
    y = numpy.zeros((n, o, (height - 1) * stride + down, (width - 1) * stride + across))
    for i, j in itertools.product(range(height), range(width)):
        top, left = i * stride, j * stride
        y[..., top : top + down, left : left + across] += numpy.einsum("nc,cors->nors", x[..., i, j], w)
    return y[..., padding : y.shape[2] - padding, padding : y.shape[3] - padding]


for _stride, _padding in ((1, 0), (2, 1)):
    row(
        "transposed_convolution", lambda x, w, k=(_stride, _padding): F.conv_transpose2d(x, w, None, *k),
        lambda x, w, k=(_stride, _padding): spread(x, w, *k), normal(ROWS, 2, 3, 4), normal(2, 3, 3, 2), name=f"stride {_stride}",
        torch=lambda torch, x, w, k=(_stride, _padding): torch.nn.functional.conv_transpose2d(x, w, None, *k),
    )  # fmt: skip
row(
    "convolution", lambda x, w: F.conv1d(x, w, padding=1),
    lambda x, w: convolved(x[:, :, None], w[:, :, None], padding=1)[:, :, 1], normal(ROWS, 2, 6), normal(3, 2, 3), name="signals",
    torch=lambda torch, x, w: torch.nn.functional.conv1d(x, w, padding=1),
)  # fmt: skip


def _signals_in_steps(x: numpy.ndarray, w: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    y = convolved(x.transpose(1, 2, 0)[:, :, None], w.transpose(2, 1, 0)[:, :, None], b, padding=1)
    return y[:, :, 1].transpose(2, 0, 1)


def _volumes(x: numpy.ndarray, w: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    windows = numpy.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3, 4))
    return numpy.einsum("ncxyzijk,ocijk->noxyz", windows, w) + b[:, None, None, None]


def _spread_volumes(x: numpy.ndarray, w: numpy.ndarray) -> numpy.ndarray:
    y = numpy.zeros((len(x), w.shape[1], *(n + k - 1 for n, k in zip(x.shape[2:], w.shape[2:]))))
    for at in numpy.ndindex(w.shape[2:]):
        y[(..., *(slice(i, i + n) for i, n in zip(at, x.shape[2:])))] += numpy.einsum("ncxyz,co->noxyz", x, w[(..., *at)])
    return y


row("convolution", F.conv3d, _volumes, normal(ROWS, 2, 3, 4, 3), normal(3, 2, 2, 2, 1), normal(3), name="volumes",
    torch=lambda torch, *x: torch.nn.functional.conv3d(*x))  # fmt: skip
row("transposed_convolution", F.conv_transpose3d, _spread_volumes, normal(ROWS, 2, 2, 3, 2), normal(2, 3, 2, 1, 2),
    name="transposed volumes", torch=lambda torch, *x: torch.nn.functional.conv_transpose3d(*x))  # fmt: skip
row(
    "transposed_convolution", lambda x, w: F.conv_transpose1d(x, w, stride=2),
    lambda x, w: spread(x[..., None], w[..., None], 2, 0)[..., 0], normal(ROWS, 2, 4), normal(2, 3, 3), name="transposed signals",
    torch=lambda torch, x, w: torch.nn.functional.conv_transpose1d(x, w, stride=2),
)  # fmt: skip
row(
    "convolution", lambda x, w, b: gpunet.conv_tbc(x, w, b, 1), _signals_in_steps,
    normal(5, 2, 3), normal(3, 3, 2), normal(2), name="conv_tbc", torch=lambda torch, *x: torch.conv_tbc(*x, 1),
)  # fmt: skip
