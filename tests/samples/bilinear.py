"""Samples of the bilinear form."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal
from tests.samples.row import row

F = gpunet.nn.functional

row("_matmul", lambda x, y, w, b: F.bilinear(x, y, w, b), lambda x, y, w, b: numpy.einsum("ni,oij,nj->no", x, w, y) + b,
    normal(ROWS, 3), normal(ROWS, 4), normal(2, 3, 4), normal(2), name="bilinear",
    torch=lambda torch, x, y, w, b: torch.nn.functional.bilinear(x, y, w, b))  # fmt: skip
