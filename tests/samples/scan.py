"""Samples of products, differences and integrals along a dimension, and of repeated elements."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, fixed, normal, positive
from tests.samples.row import SAME, row

for _axis in (0, 1):
    row("_cumprod", lambda x, a=_axis: x.cumprod(a), lambda x, a=_axis: x.cumprod(a), positive(ROWS, 4), torch=SAME,
        name=f"over {_axis}")  # fmt: skip
row(
    "_cumprod", lambda x, m: (x * m).cumprod(1), lambda x, m: (x * m).cumprod(1), positive(2, 5),
    fixed(numpy.array([[1, 0, 1, 1, 1], [1, 1, 0, 1, 0]])), torch=SAME, name="with zeros",
)  # fmt: skip
row("_sub", lambda x: x.diff(2, 0), lambda x: numpy.diff(x, 2, 0), normal(5, 3), torch=SAME, name="diff")
row(
    "_sub", lambda x, y: gpunet.diff(x, prepend=y), lambda x, y: numpy.diff(x, prepend=y), normal(ROWS, 3), normal(ROWS, 1),
    torch=lambda torch, x, y: torch.diff(x, prepend=y), name="diff behind others",
)  # fmt: skip
row(
    "_sum", lambda y: gpunet.trapezoid(y, dx=0.5), lambda y: numpy.trapezoid(y, dx=0.5), normal(ROWS, 4),
    torch=lambda torch, y: torch.trapezoid(y, dx=0.5), name="trapezoid",
)  # fmt: skip
row(
    "_sum", lambda y, x: gpunet.trapezoid(y, x, dim=0), lambda y, x: numpy.trapezoid(y, x, axis=0), normal(5, 3), normal(5),
    torch=lambda torch, y, x: torch.trapezoid(y, x, dim=0), name="trapezoid at places",
)  # fmt: skip
row(
    "_cumsum", lambda y: gpunet.cumulative_trapezoid(y), lambda y: numpy.cumsum((y[:, 1:] + y[:, :-1]) / 2, 1), normal(ROWS, 4),
    torch="cumulative_trapezoid", name="cumulative_trapezoid",
)  # fmt: skip
row(
    "_index", lambda x: x.repeat_interleave(2, 1), lambda x: x.repeat(2, 1), normal(ROWS, 3), torch=SAME, name="repeat_interleave",
)  # fmt: skip
