"""Cases of dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunet.ops.cases.case import COUNTS, Samples, maker, unaligned


@maker()
def dropout_apply(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        mask = s.random.random(count) < 0.5
        yield f"({count},)", [s.blank(count), s.normal(count), mask], {"scale": 1.25}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300), s.random.random(300) < 0.5], {"scale": 1.25})
