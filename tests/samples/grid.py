"""Samples of grids."""

from __future__ import annotations

import itertools

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal, positive
from tests.samples.row import row

for _indexing in ("ij", "xy"):
    row(
        "_mul", lambda x, y, i=_indexing: gpunet.mul(*gpunet.meshgrid(x, y, indexing=i)),
        lambda x, y, i=_indexing: numpy.multiply(*numpy.meshgrid(x, y, indexing=i)), normal(ROWS), normal(3),
        torch=lambda torch, x, y, i=_indexing: torch.mul(*torch.meshgrid(x, y, indexing=i)), name=f"meshgrid {_indexing}",
    )  # fmt: skip
row(
    "_cat", gpunet.cartesian_prod, lambda x, y: numpy.array([*itertools.product(x, y)]).reshape(-1, 2), normal(ROWS), normal(2),
    torch="cartesian_prod", name="cartesian_prod",
)  # fmt: skip
row(
    "_index", lambda x: gpunet.combinations(x, 3), lambda x: numpy.array([*itertools.combinations(x, 3)]).reshape(-1, 3),
    normal(ROWS), torch=lambda torch, x: torch.combinations(x, 3), name="combinations",
)  # fmt: skip
row("_pow", lambda x: gpunet.vander(x, 4), lambda x: numpy.vander(x, 4), positive(ROWS), name="vander")
