"""Cases of erf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.ops.cases.case import COUNTS, Samples, maker, unaligned


@maker()
def erf_forward(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        yield f"({count},)", [s.blank(count), 2 * s.normal(count)], {}
    yield "-100 .. 100", [s.blank(129), numpy.linspace(-100, 100, 129).astype(s.dtype)], {}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300)], {})
