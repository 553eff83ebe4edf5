"""Samples of indexing."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from gpunet.autograd import OPS
from gpunet.ops.index import normalize_index, split_index
from tests.samples.inputs import (
    ROWS,
    distinct,
    labels,
    normal,
)
from tests.samples.row import SAME, row, same


def _unindexed(g: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with g added at the index."""
    arrays, pattern = split_index(normalize_index(index, g))
    return OPS["_unindex"].call(g, *arrays, pattern=pattern, shape=shape)


def _assigned(x: Any, value: Any, index: Any) -> Any:
    """A copy of x with x[index] = value, for gpunet, NumPy and PyTorch."""
    y = x.clone() if hasattr(x, "clone") else x.copy()
    y[index] = value
    return y


_rows, _columns = numpy.array([2, 0, 2, -1]), numpy.array([1, 1, 0, 3])
for _name, _index in {
    "number": 1,
    "slices": (slice(1, None), slice(None, None, 2)),
    "ellipsis and new axis": (Ellipsis, None, 1),
    "integers": _rows.tolist(),
    "integers in both": (_rows.tolist(), _columns.tolist()),
    "integers behind a slice": (slice(0, 2), _columns.tolist()),
    "mask": numpy.arange(12).reshape(3, 4) % 3 == 0,
    "mask of rows": numpy.array([True, False, True]),
}.items():
    same("_index", lambda x, i=_index: x[i], normal(3, 4), name=_name)
    row("_unindex", lambda g, i=_index: _unindexed(g, i, (3, 4)),
        lambda g, i=_index: _scatter(i, g), normal(*numpy.zeros((3, 4))[_index].shape), name=_name)  # fmt: skip
same("_index", lambda x: x[2] + 2 * x[-1], normal(4), name="numbers of a vector")
same("_index", lambda x: x[1, 2], normal(3, 4), name="one element")
same("_with_index", lambda x, v: _assigned(x, v, (1, 2)), normal(3, 4), normal(), name="one element")
row("_unindex", lambda g: _unindexed(g, 2, (4,)), lambda g: g * numpy.eye(4)[2], normal(), name="one")
row("_index", lambda x: x.unbind()[2], lambda x: x[2], normal(4), torch=SAME, name="unbind of a vector")
row("_index", lambda x: x[::-1, ::2], lambda x: x[::-1, ::2], normal(ROWS, 3), name="step back")
row("_index", lambda x: gpunet.cat(x.split([1, 3], 1)[::-1], 1), lambda x: x[:, [1, 2, 3, 0]], normal(ROWS, 4), name="split")
row("_index", lambda x: x.chunk(2, 1)[1], lambda x: x[:, 2:], normal(ROWS, 4), torch=SAME, name="chunk")
row("_index", lambda x: x.unbind(1)[2], lambda x: x[:, 2], normal(ROWS, 4), torch=SAME, name="unbind")
row(
    "_index", lambda x, i: x.gather(1, i), lambda x, i: numpy.take_along_axis(x, i, 1), normal(ROWS, 4), labels(4, ROWS, 6),
    torch=SAME, name="gather",
)  # fmt: skip
row(
    "_index", lambda x, i: x.index_select(1, i), lambda x, i: x[:, i], normal(ROWS, 4), labels(4, 6),
    torch=SAME, name="index_select",
)  # fmt: skip
for _name in ("max", "min"):
    row(
        "_index", lambda x, f=_name: getattr(x, f)(1).values, lambda x, f=_name: getattr(x, f)(1), distinct(ROWS, 4),
        torch=SAME, name=_name,
    )  # fmt: skip
row("_index", lambda x: x.sort(0).values, lambda x: numpy.sort(x, 0), distinct(5, 3), torch=SAME, name="sort")
row(
    "_index", lambda x: x.sort(1, descending=True).values, lambda x: -numpy.sort(-x, 1), distinct(ROWS, 4),
    torch=SAME, name="sort down",
)  # fmt: skip
row(
    "_index", lambda x: x.topk(2, 1).values, lambda x: -numpy.sort(-x, 1)[:, :2], distinct(ROWS, 4),
    torch=SAME, name="topk",
)  # fmt: skip


def _scatter(index: Any, g: Any) -> Any:
    out = numpy.zeros((3, 4))
    numpy.add.at(out, index, g)
    return out


for _name, _index, _shape in (
    ("number", 1, (4,)),
    ("broadcast", slice(0, 2), (4,)),
    ("columns", (slice(None), slice(1, 3)), (3, 2)),
    ("integers", [2, 0], (2, 4)),
    ("mask", numpy.array([True, False, True]), (1, 4)),
):
    same("_with_index", lambda x, v, i=_index: _assigned(x, v, i), normal(3, 4), normal(*_shape), name=_name)
same("_with_index", lambda x: _assigned(x, 2.0, (slice(None), 0)), normal(ROWS, 4), name="plain number")
