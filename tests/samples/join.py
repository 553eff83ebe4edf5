"""Samples of joining and padding."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import (
    ROWS,
    normal,
)
from tests.samples.row import SAME, row

F = gpunet.nn.functional

for _dim in (0, 1, -1):
    row(
        "_cat", lambda *x, d=_dim: gpunet.cat(x, d), lambda *x, d=_dim: numpy.concatenate(x, d), normal(2, 3), normal(2, 3),
        normal(2, 3), torch=lambda torch, *x, d=_dim: torch.cat(x, d), name=f"cat {_dim}",
    )  # fmt: skip
    row(
        "_cat", lambda *x, d=_dim: gpunet.stack(x, d), lambda *x, d=_dim: numpy.stack(x, d), normal(2, 3), normal(2, 3),
        torch=lambda torch, *x, d=_dim: torch.stack(x, d), name=f"stack {_dim}",
    )  # fmt: skip
row("_cat", lambda a, b: gpunet.cat([a, b]), lambda a, b: numpy.concatenate([a, b]), normal(ROWS, 3), normal(2, 3), name="rows")
row(
    "_pad_constant", lambda x: F.pad(x, (-1, 1)), lambda x: numpy.pad(x[:, 1:], ((0, 0), (0, 1))), normal(ROWS, 3),
    torch=lambda torch, x: torch.nn.functional.pad(x, (-1, 1)), name="cropped",
)  # fmt: skip
for _mode, _numpy_mode in {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.items():
    row(
        "_resample", lambda x, m=_mode: F.pad(x, (2, 1), m), lambda x, m=_numpy_mode: numpy.pad(x, ((0, 0), (2, 1)), m),
        normal(ROWS, 3), torch=lambda torch, x, m=_mode: torch.nn.functional.pad(x, (2, 1), m), name=f"pad {_mode}",
    )  # fmt: skip
row(
    "_pad_constant", lambda x: F.pad(x, (1, 2, 0, 1), value=3.0), lambda x: numpy.pad(x, ((0, 1), (1, 2)), constant_values=3.0),
    normal(ROWS, 3), torch=lambda torch, x: torch.nn.functional.pad(x, (1, 2, 0, 1), value=3.0), name="pad",
)  # fmt: skip
for _name in ("hstack", "vstack", "dstack", "column_stack"):
    row(
        "_cat", lambda a, b, f=_name: getattr(gpunet, f)([a, b]), lambda a, b, f=_name: getattr(numpy, f)([a, b]), normal(ROWS, 3),
        normal(ROWS, 3), torch=lambda torch, a, b, f=_name: getattr(torch, f)([a, b]), name=_name,
    )  # fmt: skip
row("_index", lambda x: x.narrow(1, -3, 2), lambda x: x[:, 1:3], normal(ROWS, 4), torch=SAME, name="narrow")
row("_index", lambda x: x.select(1, -1), lambda x: x[:, -1], normal(ROWS, 4), torch=SAME, name="select")
row(
    "_index", lambda x: x.tensor_split(3, 1)[1], lambda x: numpy.array_split(x, 3, 1)[1], normal(ROWS, 5), torch=SAME,
    name="tensor_split",
)  # fmt: skip
row("_index", lambda x: x.hsplit((1, 3))[1], lambda x: x[:, 1:3], normal(ROWS, 4), torch=SAME, name="hsplit")
