"""Cases of erf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import COUNTS, Samples, unaligned
from gpunet.ops.special import erf_forward


@erf_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        yield f"({count},)", [s.blank(count), 2 * s.normal(count)], {}
    yield "-100 .. 100", [s.blank(129), numpy.linspace(-100, 100, 129).astype(s.dtype)], {}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300)], {})


@erf_forward.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    count = s.width**2
    yield f"({count},)", [s.blank(count), s.normal(count)], {}


@erf_forward.cost
def _(y, x):
    return Cost(y.size, num_bytes(y, x))


@erf_forward.equivalent
def _(torch, y, x):
    return lambda: torch.erf(x, out=y)
