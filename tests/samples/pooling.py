"""Samples of pooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, distinct, fixed, normal, positive, uniform
from tests.samples.row import row

F = gpunet.nn.functional


def _reduced(x: numpy.ndarray, windows: list[list[list[int]]], reduce: Callable[..., Any]) -> numpy.ndarray:
    """``reduce`` of each window; ``windows`` has for each of the last dimensions a list of the places of each window."""
    axes = tuple(range(-len(windows), 0))
    y = numpy.empty((*x.shape[: x.ndim - len(windows)], *map(len, windows)))
    for at in itertools.product(*(range(len(axis)) for axis in windows)):
        part = x[(..., *numpy.ix_(*(axis[i] for axis, i in zip(windows, at))))]
        y[(..., *at)] = reduce(part, axis=axes)
    return y


def _places(n: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[list[int]]:
    starts = range(-padding, n + padding - dilation * (kernel - 1), stride)
    return [[p for p in range(start, start + dilation * (kernel - 1) + 1, dilation) if 0 <= p < n] for start in starts]


def _maximum(x: numpy.ndarray, dims: int, **options: int) -> numpy.ndarray:
    return _reduced(x, [_places(n, **options) for n in x.shape[-dims:]], numpy.max)


def _mean(x: numpy.ndarray, dims: int, kernel: int, stride: int, padding: int) -> numpy.ndarray:
    """With the padding counted."""
    return _reduced(x, [_places(n, kernel, stride, padding) for n in x.shape[-dims:]], numpy.sum) / kernel**dims


def _parts(n: int, m: int) -> list[list[int]]:
    return [[*range(i * n // m, -(-(i + 1) * n // m))] for i in range(m)]


def _unpooled(x: numpy.ndarray, places: numpy.ndarray) -> numpy.ndarray:
    """The elements at their places of planes twice as large, beside zeros."""
    out = numpy.zeros((*x.shape[:2], math.prod(2 * n for n in x.shape[2:])))
    numpy.put_along_axis(out, places.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1), -1)
    return out.reshape(*x.shape[:2], *(2 * n for n in x.shape[2:]))


def _starts(sample: float, extent: int, taps: int, size: int) -> list[list[int]]:
    """Graham 2014: a window ends the plane, the others begin at distances that are drawn."""
    step = (extent - taps) / max(size - 1, 1)
    starts = [int((i + sample) * step) - int(sample * step) for i in range(size - 1)]
    return [[*range(start, start + taps)] for start in (*starts, extent - taps)]


def _fractional(x: numpy.ndarray, samples: numpy.ndarray, taps: tuple[int, ...], sizes: tuple[int, ...]) -> numpy.ndarray:
    out = numpy.empty((*x.shape[:2], *sizes))
    for at in numpy.ndindex(x.shape[:2]):
        drawn = samples[at][::-1] if len(taps) == 2 else samples[at]  # of images the first number is that of the columns
        windows = [_starts(*numbers) for numbers in zip(drawn, x.shape[2:], taps, sizes)]
        out[at] = _reduced(x[at], windows, numpy.max)
    return out


for _shape, _options in (
    ((ROWS, 2, 9), {"kernel": 2, "stride": 2, "padding": 0}),
    ((ROWS, 2, 4, 6), {"kernel": 2, "stride": 2, "padding": 0}),
    ((ROWS, 1, 7, 5), {"kernel": 3, "stride": 2, "padding": 1}),
    ((ROWS, 1, 4, 3, 4), {"kernel": 2, "stride": 1, "padding": 1}),
    ((ROWS, 2, 8, 9), {"kernel": 8, "stride": 1, "padding": 0}),
):
    _dims, _numbers = len(_shape) - 2, tuple(_options.values())
    row(
        "max_pool", lambda x, n=f"max_pool{_dims}d", k=_numbers: getattr(F, n)(x, *k),
        lambda x, d=_dims, k=_options: _maximum(x, d, **k), distinct(*_shape), name=f"{_dims}d {_numbers}",
        torch=lambda torch, x, n=f"max_pool{_dims}d", k=_numbers: getattr(torch.nn.functional, n)(x, *k),
    )  # fmt: skip
    row(
        "avg_pool", lambda x, n=f"avg_pool{_dims}d", k=_numbers: getattr(F, n)(x, *k),
        lambda x, d=_dims, k=_options: _mean(x, d, **k), normal(*_shape), name=f"{_dims}d {_numbers}",
        torch=lambda torch, x, n=f"avg_pool{_dims}d", k=_numbers: getattr(torch.nn.functional, n)(x, *k),
    )  # fmt: skip
row("max_pool", lambda x: F.max_pool2d(x, 2, 1, 0, 2), lambda x: _maximum(x, 2, kernel=2, stride=1, padding=0, dilation=2),
    distinct(ROWS, 2, 5, 6), name="dilation")  # fmt: skip
row("max_pool", lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    lambda x: _reduced(x, [_parts(5, 2), _parts(7, 3)], numpy.max), distinct(ROWS, 2, 5, 7), name="adaptive",
    torch=lambda torch, x: torch.nn.functional.adaptive_max_pool2d(x, (2, 3)))  # fmt: skip
row("avg_pool", lambda x: F.adaptive_avg_pool2d(x, (1, 2)),
    lambda x: _reduced(x, [_parts(5, 1), _parts(6, 2)], numpy.mean), normal(ROWS, 2, 5, 6), name="adaptive",
    torch=lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)))  # fmt: skip
row("_resample", lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    lambda x: _reduced(x, [_parts(5, 2), _parts(7, 3)], numpy.mean), normal(ROWS, 2, 5, 7), name="adaptive mean",
    torch=lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, (2, 3)))  # fmt: skip
row("_resample", lambda x: F.adaptive_avg_pool1d(x, 3), lambda x: _reduced(x, [_parts(7, 3)], numpy.mean), normal(ROWS, 2, 7),
    name="adaptive mean of signals", torch=lambda torch, x: torch.nn.functional.adaptive_avg_pool1d(x, 3))  # fmt: skip
row(
    "max_pool", lambda x: F.adaptive_max_pool3d(x, (1, 2, 3)),
    lambda x: _reduced(x, [_parts(2, 1), _parts(5, 2), _parts(4, 3)], numpy.max), distinct(ROWS, 1, 2, 5, 4),
    name="adaptive of volumes", torch=lambda torch, x: torch.nn.functional.adaptive_max_pool3d(x, (1, 2, 3)),
)  # fmt: skip
for _dims in (1, 2, 3):
    row(
        "avg_pool", lambda x, n=f"lp_pool{_dims}d": getattr(F, n)(x, 3.0, 2),
        lambda x, d=_dims: _reduced(x**3, [_places(n, 2, 2, 0) for n in x.shape[-d:]], numpy.sum) ** (1 / 3),
        positive(ROWS, 2, *(4, 5, 6)[:_dims]), name=f"lp {_dims}d",
        torch=lambda torch, x, n=f"lp_pool{_dims}d": getattr(torch.nn.functional, n)(x, 3.0, 2),
    )  # fmt: skip
    row(
        "_with_index", lambda x, i, n=f"max_unpool{_dims}d": getattr(F, n)(x, i, 2), _unpooled, normal(3, 1, *(2,) * _dims),
        fixed(numpy.arange(1, 2 * 2**_dims, 2).reshape(1, 1, *(2,) * _dims).repeat(3, 0)), name=f"unpooling {_dims}d",
        torch=lambda torch, x, i, n=f"max_unpool{_dims}d": getattr(torch.nn.functional, n)(x, i, 2),
    )  # fmt: skip
for _sizes, _taps, _extents in (((2, 3), (2, 2), (5, 6)), ((2, 1, 2), (1, 2, 2), (3, 4, 4))):
    _dims = len(_sizes)
    row(
        "_index",
        lambda x, s, o=(_taps, _sizes), n=f"fractional_max_pool{_dims}d": getattr(F, n)(x, *o, _random_samples=s.to(x.dtype)),
        lambda x, s, k=_taps, m=_sizes: _fractional(x, s, k, m), distinct(2, 3, *_extents),
        uniform(0.0, 1.0, 2, 3, _dims, gradient=False), name=f"fractional {_dims}d",
        torch=lambda torch, x, s, o=(_taps, _sizes), n=f"fractional_max_pool{_dims}d": getattr(torch.nn.functional, n)(
            x, *o, _random_samples=s
        ),
    )  # fmt: skip
