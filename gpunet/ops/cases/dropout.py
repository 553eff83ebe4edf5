"""Cases of dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import COUNTS, Samples, unaligned
from gpunet.ops.dropout import dropout_apply


@dropout_apply.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        mask = s.random.random(count) < 0.5
        yield f"({count},)", [s.blank(count), s.normal(count), mask], {"scale": 1.25}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300), s.random.random(300) < 0.5], {"scale": 1.25})


@dropout_apply.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    count = s.width**2
    yield f"({count},)", [s.blank(count), s.normal(count), s.random.random(count) < 0.5], {"scale": 2.0}


@dropout_apply.cost
def _(y, x, mask, *, scale):
    return Cost(y.size, num_bytes(y, x, mask))


@dropout_apply.equivalent
def _(torch, y, x, mask, *, scale):
    return lambda: torch.ops.aten.native_dropout_backward(x, mask, scale)
