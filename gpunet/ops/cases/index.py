"""Cases of scatter_add."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.ops.cases.case import Samples, maker


@maker(updates="out")
def scatter_add(s: Samples) -> Iterator[Any]:
    for places, count in ((1, 1), (7, 300), (300, 129), (5003, 65), (1, 300), (63, 5003), (5, 0)):
        unsorted = s.random.integers(0, places, count)
        order = numpy.argsort(unsorted, kind="stable")
        arrays = [s.normal(places), s.normal(count), unsorted[order].astype("int64"), order.astype("int64")]
        yield f"{count} into {places}", arrays, {}
