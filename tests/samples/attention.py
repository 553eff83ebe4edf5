"""Samples of attention."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.inputs import ROWS, fixed, normal
from tests.samples.row import row


def formula(q: Any, k: Any, v: Any, shown: Any = None, is_causal: bool = False, scale: float | None = None) -> numpy.ndarray:
    """Softmax attention of (..., n, d); shown is boolean or added, and queries without a key give 0."""
    scores = q @ numpy.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if shown is not None:
        scores = numpy.where(shown, scores, -numpy.inf) if shown.dtype == bool else scores + shown
    if is_causal:
        scores = numpy.where(numpy.tri(*scores.shape[-2:], dtype=bool), scores, -numpy.inf)
    top = scores.max(-1, keepdims=True)
    weights = numpy.exp(scores - numpy.where(numpy.isfinite(top), top, 0.0))
    total = weights.sum(-1, keepdims=True)
    return weights / numpy.where(total == 0, 1.0, total) @ v


def _row(name: str, *inputs: Any, **options: Any) -> None:
    """A row of the public function; a third input beyond q, k and v is the mask."""
    groups = options.pop("groups", 1)
    keywords = {**options, "enable_gqa": True} if groups > 1 else options

    def expected(q: Any, k: Any, v: Any, *masks: Any) -> numpy.ndarray:
        k, v = (numpy.repeat(x, groups, -3) if groups > 1 else x for x in (k, v))
        return formula(q, k, v, *masks, **options)

    row(
        "attention", lambda *x: gpunet.nn.functional.scaled_dot_product_attention(*x, **keywords), expected, *inputs, name=name,
        torch=lambda torch, *x: torch.nn.functional.scaled_dot_product_attention(*x, **keywords),
    )  # fmt: skip


_QKV = normal(ROWS, 2, 4, 3), normal(ROWS, 2, 6, 3), normal(ROWS, 2, 6, 5)
_hidden_keys = numpy.where(numpy.arange(6) < 4, 0.0, -numpy.inf).reshape(1, 1, 1, 6)
_row("heads", *_QKV)
_row("matrices", normal(ROWS, 3), normal(6, 3), normal(6, 2))
_row("packs", normal(ROWS, 8, 4), normal(ROWS, 8, 4), normal(ROWS, 8, 8), is_causal=True)
_row("causal", *_QKV, is_causal=True)
_row("scale", *_QKV, scale=0.7)
_row("mask", *_QKV, fixed(numpy.arange(24).reshape(4, 6) % 5 > 1))
_row("hidden rows", *_QKV, fixed(numpy.arange(4).reshape(1, 1, 4, 1) % 2 == 0))
_row("bias", *_QKV, fixed(numpy.sin(numpy.arange(48.0)).reshape(1, 2, 4, 6)))
_row("padding", *_QKV, fixed(_hidden_keys))
_row("groups", normal(ROWS, 4, 5, 2), normal(ROWS, 2, 7, 2), normal(ROWS, 2, 7, 3), groups=2)
_row("groups, causal", normal(ROWS, 6, 5, 2), normal(ROWS, 2, 7, 2), normal(ROWS, 2, 7, 3), groups=3, is_causal=True)
