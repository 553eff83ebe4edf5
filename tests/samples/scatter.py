"""Samples of functions that write, add or reduce elements at indices."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, fixed, labels, mask, normal
from tests.samples.row import SAME, row


def scattered(x: numpy.ndarray, index: numpy.ndarray, values: Any, function: Any = None) -> numpy.ndarray:
    """A copy of x (rows, columns) with values written, or applied by a ufunc, at an index along dimension 1."""
    out = x.copy()
    rows = numpy.arange(len(index))[:, None]
    if function is None:
        out[rows, index] = values
    else:
        function.at(out, (rows, index), values)
    return out


_index, _rows = fixed(numpy.array([[2, 0], [1, 3], [3, 1]])), fixed(numpy.array([2, 0, 2]))
row(
    "_with_index", lambda x, i, v: x.scatter(1, i, v), lambda x, i, v: scattered(x, i, v), normal(3, 4), _index, normal(3, 2),
    torch=SAME, name="scatter",
)  # fmt: skip
row(
    "_with_index", lambda x, i, v: x.scatter(1, i, v), lambda x, i, v: scattered(x, i, v[:, :2]), normal(3, 4), _index,
    normal(3, 3), name="scatter of a larger src",
)  # fmt: skip
row(
    "_with_index", lambda x, i: (x * 1).scatter_(1, i, 2.0), lambda x, i: scattered(x, i, 2.0), normal(ROWS, 4), labels(4, ROWS, 2),
    torch=SAME, name="scatter_ of a number",
)  # fmt: skip
row(
    "_add", lambda x, i, v: x.scatter_add(1, i, v), lambda x, i, v: scattered(x, i, v, numpy.add), normal(ROWS, 4),
    labels(4, ROWS, 6), normal(ROWS, 6), torch=SAME, name="scatter_add",
)  # fmt: skip
row(
    "_div", lambda x, i, v: x.scatter_reduce(1, i, v, "mean"),
    lambda x, i, v: scattered(x, i, (numpy.take_along_axis(x, i, 1) + v) / 2), normal(3, 4), _index, normal(3, 2), torch=SAME,
    name="scatter_reduce mean",
)  # fmt: skip

for _reduce, _ufunc, _op in (
    ("amax", numpy.maximum, "_extreme_at"), ("amin", numpy.minimum, "_extreme_at"), ("prod", numpy.multiply, "_where"),
):  # fmt: skip
    row(
        _op, lambda x, i, v, r=_reduce: x.scatter_reduce(1, i, v, r), lambda x, i, v, u=_ufunc: scattered(x, i, v, u),
        normal(ROWS, 4), labels(4, ROWS, 6), normal(ROWS, 6), name=f"scatter_reduce {_reduce}",
        torch=lambda torch, x, i, v, r=_reduce: x.scatter_reduce(1, i, v, r), second=_reduce != "prod",
    )  # fmt: skip


def _added_rows(x: numpy.ndarray, index: numpy.ndarray, v: numpy.ndarray) -> numpy.ndarray:
    out = x.copy()
    numpy.add.at(out, index, -0.5 * v)
    return out


def _copied_rows(x: numpy.ndarray, index: numpy.ndarray, v: numpy.ndarray) -> numpy.ndarray:
    out = x.copy()
    out[index[1:]] = v
    return out


row(
    "_add", lambda x, i, v: x.index_add(0, i, v, alpha=-0.5), _added_rows, normal(4, 3), _rows, normal(3, 3), torch=SAME,
    name="index_add",
)  # fmt: skip
row(
    "_with_index", lambda x, i, v: x.index_copy(0, i[1:], v), _copied_rows, normal(4, 3), _rows, normal(2, 3), torch=SAME,
    name="index_copy",
)  # fmt: skip
row(
    "_where", lambda x, i, v: x.index_fill(0, i, v), lambda x, i, v: numpy.where(numpy.isin(numpy.arange(4), i)[:, None], v, x),
    normal(4, 3), _rows, normal(), torch=SAME, name="index_fill",
)  # fmt: skip
row("_index", lambda x, i: x.take(i - 1), lambda x, i: x.ravel()[i - 1], normal(3, 2), _rows, torch=SAME, name="take")
row(
    "_add", lambda x, i, v: x.put(i, v, accumulate=True), lambda x, i, v: x + numpy.array([[v[1], 0], [v[0] + v[2], 0]]),
    normal(2, 2), _rows, normal(3), torch=SAME, name="put",
)  # fmt: skip
row(
    "_with_index", lambda x, i, v: x.index_put((i[1:],), v), _copied_rows, normal(4, 3), _rows, normal(2, 3), torch=SAME,
    name="index_put",
)  # fmt: skip


def _masked(x: numpy.ndarray, m: numpy.ndarray, v: numpy.ndarray) -> numpy.ndarray:
    out = x.copy()
    out[m] = v.ravel()[: m.sum()]
    return out


row(
    "_where", lambda x, m, v: x.masked_scatter(m, v), _masked, normal(ROWS, 4), mask(ROWS, 4), normal(ROWS, 4), torch=SAME,
    name="masked_scatter",
)  # fmt: skip
row(
    "_with_index", lambda x, v: gpunet.select_scatter(x, v, 1, -1), lambda x, v: numpy.hstack([x[:, :-1], v[:, None]]),
    normal(ROWS, 3), normal(ROWS), torch=lambda torch, x, v: torch.select_scatter(x, v, 1, -1), name="select_scatter",
)  # fmt: skip
row(
    "_with_index", lambda x, v: gpunet.slice_scatter(x, v, 1, 1, 4, 2),
    lambda x, v: numpy.stack([x[:, 0], v[:, 0], x[:, 2], v[:, 1]], 1), normal(ROWS, 4), normal(ROWS, 2),
    torch=lambda torch, x, v: torch.slice_scatter(x, v, 1, 1, 4, 2), name="slice_scatter",
)  # fmt: skip
row(
    "_index", lambda x, i: x.take_along_dim(i, 1), lambda x, i: numpy.take_along_axis(x, i, 1), normal(3, 4), _index, torch=SAME,
    name="take_along_dim",
)  # fmt: skip
row(
    "_index", lambda x, i: x.take_along_dim(i), lambda x, i: x.ravel()[i.ravel()], normal(2, 3), _index, torch=SAME,
    name="take_along_dim flat",
)  # fmt: skip
