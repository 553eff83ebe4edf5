"""Samples of embeddings."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, fixed, labels, normal, uniform
from tests.samples.row import row

F = gpunet.nn.functional

row("embedding_rows", lambda w, i: F.embedding(i, w), lambda w, i: w[i], normal(7, 3), labels(7, ROWS), name="rows",
    torch=lambda torch, w, i: torch.nn.functional.embedding(i, w))  # fmt: skip
row("embedding_rows", lambda w, i: F.embedding(i.reshape(-1, 1), w), lambda w, i: w[i.reshape(-1, 1)], normal(7, 3),
    labels(7, ROWS, dtype="int32"), name="columns")  # fmt: skip

_OFFSETS = numpy.array([0, 3, 3, 7])


def _bags(w: numpy.ndarray, i: numpy.ndarray, reduce: Any) -> numpy.ndarray:
    bags = [w[part] for part in numpy.split(i, _OFFSETS[1:])]
    return numpy.stack([reduce(bag) if len(bag) else numpy.zeros(w.shape[1]) for bag in bags])


for _mode, _reduce in (
    ("sum", lambda bag: bag.sum(0)), ("mean", lambda bag: bag.mean(0)), ("max", lambda bag: bag.max(0)),
):  # fmt: skip
    _i = numpy.array([1, 4, 0, 5, 2, 6, 3, 1, 5])
    row(
        "embedding_rows", lambda w, i, o, m=_mode: F.embedding_bag(i, w, o, mode=m), lambda w, i, o, r=_reduce: _bags(w, i, r),
        normal(7, 3), fixed(_i), fixed(_OFFSETS), name=f"{_mode} of bags",
        torch=lambda torch, w, i, o, m=_mode: torch.nn.functional.embedding_bag(i, w, o, mode=m),
    )  # fmt: skip
row(
    "embedding_rows", lambda w, f, i: F.embedding_bag(i, w, mode="sum", per_sample_weights=f),
    lambda w, f, i: (w[i] * f[..., None]).sum(1), normal(7, 3), uniform(-1.0, 1.0, ROWS, 4), labels(7, ROWS, 4), name="factors",
    torch=lambda torch, w, f, i: torch.nn.functional.embedding_bag(i, w, mode="sum", per_sample_weights=f),
)  # fmt: skip
