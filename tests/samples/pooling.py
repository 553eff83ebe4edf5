"""Samples of pooling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, distinct, normal
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
