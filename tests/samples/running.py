"""Samples of running extremes, of reductions at indices, of differences at places, and of limited norms."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, distinct, fixed, normal, positive
from tests.samples.row import row

for _name, _formula in (("cummax", numpy.maximum), ("cummin", numpy.minimum)):
    row(
        "_index", lambda x, n=_name: getattr(gpunet, n)(x, 1).values, lambda x, f=_formula: f.accumulate(x, 1), distinct(ROWS, 4),
        name=_name, torch=lambda torch, x, n=_name: getattr(torch, n)(x, 1).values,
    )  # fmt: skip


def _reduced_at(x: Any, index: Any, source: Any, reduce: str, include_self: bool = True) -> Any:
    function = {"prod": numpy.prod, "mean": numpy.mean, "amax": numpy.max, "amin": numpy.min}[reduce]
    out = x.copy()
    for i in set(index.tolist()):
        rows = source[index == i]
        out[i] = function(numpy.concatenate([x[i : i + 1], rows]) if include_self else rows, 0)
    return out


for _reduce, _options in (("prod", {}), ("mean", {}), ("mean", {"include_self": False}), ("amax", {}), ("amin", {})):
    row(
        "_reshape", lambda x, i, y, r=_reduce, o=_options: x.index_reduce(0, i, y, r, **o),
        lambda x, i, y, r=_reduce, o=_options: _reduced_at(x, i, y, r, **o), distinct(4, 3), fixed(numpy.array([2, 0, 2])),
        distinct(3, 3, offset=0.125), name=f"index_reduce {_reduce}{' of others' if _options else ''}",
    )  # fmt: skip

for _order in (1, 2):
    row(
        "_sub", lambda x, e=_order: gpunet.gradient(x, spacing=0.5, dim=1, edge_order=e)[0],
        lambda x, e=_order: numpy.gradient(x, 0.5, axis=1, edge_order=e), normal(ROWS, 5),
        name=f"gradient {_order}", takes_halves=_order == 1,
        torch=lambda torch, x, e=_order: torch.gradient(x, spacing=0.5, dim=1, edge_order=e)[0],
    )  # fmt: skip
_AT = [0.0, 0.5, 2.0, 3.0]
row("_sub", lambda x: gpunet.gradient(x, spacing=(x.new_tensor(_AT),), dim=0)[0], lambda x: numpy.gradient(x, _AT, axis=0),
    normal(4, 3), name="gradient at places",
    torch=lambda torch, x: torch.gradient(x, spacing=(torch.tensor(_AT),), dim=0)[0])  # fmt: skip


def _renormed(x: numpy.ndarray, p: float, most: float) -> numpy.ndarray:
    norms = (abs(x) ** p).sum((0, 2), keepdims=True) ** (1 / p)
    return x * numpy.where(norms > most, most / (norms + 1e-7), 1.0)


for _p, _most in ((2.0, 1.0), (3.0, 9.0)):
    row("_mul", lambda x, o=(_p, 1, _most): gpunet.renorm(x, *o), lambda x, o=(_p, _most): _renormed(x, *o), positive(2, 3, 4),
        name=f"renorm to {_most}", torch=lambda torch, x, o=(_p, 1, _most): torch.renorm(x, *o))  # fmt: skip
