"""Samples of diagonals."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal
from tests.samples.row import SAME, row


def embedded(x: numpy.ndarray, offset: int) -> numpy.ndarray:
    size = x.shape[-1] + abs(offset)
    out = numpy.zeros((*x.shape[:-1], size, size))
    rows = numpy.arange(x.shape[-1])
    out[..., rows + max(-offset, 0), rows + max(offset, 0)] = x
    return out


for _offset in (0, 1, -2, 5):
    row(
        "_diagonal", lambda x, k=_offset: x.diagonal(k, 1, 2), lambda x, k=_offset: x.diagonal(k, 1, 2), normal(ROWS, 3, 4),
        torch=SAME, name=f"offset {_offset}",
    )  # fmt: skip
    row(
        "_undiagonal", lambda x, k=_offset: x.diag_embed(k), lambda x, k=_offset: embedded(x, k), normal(ROWS, 3), torch=SAME,
        name=f"offset {_offset}",
    )  # fmt: skip
row(
    "_undiagonal", lambda x: x.diag_embed(1, 2, 0), lambda x: embedded(x, 1).transpose(2, 0, 1), normal(ROWS, 3), torch=SAME,
    name="rows behind columns",
)  # fmt: skip
row("_diagonal", lambda x: x.T.diag(), lambda x: x.T.diagonal(), normal(3, 4), torch=SAME, name="diag of a transpose")
row("_undiagonal", lambda x: x.diag(-1), lambda x: numpy.diag(x, -1), normal(ROWS), torch=SAME, name="diag of a vector")
row("_undiagonal", gpunet.diagflat, numpy.diagflat, normal(2, 3), torch="diagflat", name="diagflat")
row("_diagonal", gpunet.trace, numpy.trace, normal(ROWS, 4), torch="trace", name="trace")


def blocks(a: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    out = numpy.zeros((len(a) + 1, a.shape[1] + len(b)))
    out[: len(a), : a.shape[1]], out[-1, a.shape[1] :] = a, b
    return out


row("_cat", gpunet.block_diag, blocks, normal(ROWS, 3), normal(2), torch="block_diag", name="block_diag")
