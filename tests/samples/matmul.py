"""Samples of matrix products."""

from __future__ import annotations

from tests.samples.inputs import (
    ROWS,
    normal,
)
from tests.samples.row import same

for _name, _a, _b in (
    ("matrices", normal(ROWS, 4), normal(4, 3)),
    ("vector by matrix", normal(4), normal(4, 3)),
    ("matrix by vector", normal(ROWS, 4), normal(4)),
    ("vectors", normal(4), normal(4)),
    ("batches", normal(2, 3, 4), normal(2, 4, 5)),
    ("batch by matrix", normal(ROWS, 3, 4), normal(4, 2)),
    ("matrix by batch", normal(3, 4), normal(2, 4, 5)),
    ("broadcast batches", normal(2, 1, 3, 4), normal(3, 4, 2)),
):
    same("_matmul", lambda a, b: a @ b, _a, _b, name=_name)
same("_matmul", lambda a, b: a.T @ b.T, normal(4, 3), normal(2, 4), name="of transposes")
