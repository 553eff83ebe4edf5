"""Cases of the kernel of sparse linear maps along a dimension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.resample import resample_rows

resample_rows.describe(waste={"repeats": "an element is read for each result that it is part of, from the L1 cache"})

#: (outer, columns, inner, rows, taps); the second one has more columns than the dense product of the twin takes.
_SIZES = ((3, 7, 5, 4, 2), (2, 300, 1, 150, 4), (1, 5, 129, 9, 1), (4, 6, 2, 12, 3), (0, 4, 2, 3, 2), (3, 4, 1, 8, 2))


def _arrays(s: Samples, outer: int, columns: int, inner: int, rows: int, taps: int) -> list[Any]:
    """Indices in ascending order; about a fifth of the weights are 0."""
    start = numpy.arange(rows) * columns // rows
    index = numpy.minimum(start[:, None] + numpy.arange(taps), columns - 1).astype(numpy.int32)
    weight = s.accumulators.normal(rows, taps)
    weight[s.random.random(weight.shape) < 0.2] = 0
    return [s.blank(outer, rows, inner), s.normal(outer, columns, inner), index, weight]


@resample_rows.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for sizes in _SIZES:
        yield str(sizes), _arrays(s, *sizes), {}
    arrays = _arrays(s, *_SIZES[0])
    arrays[1][:, 3:] = numpy.inf
    yield f"{_SIZES[0]}, infinite", arrays, {}
    yield f"{_SIZES[2]} by one block", _arrays(s, *_SIZES[2]), {}, 1
    yield from unaligned(str(_SIZES[0]), _arrays(s, *_SIZES[0]), {})


@resample_rows.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    sizes = (max(1, s.width**2 // 4096), 64, 64, 128, 2)
    yield str(sizes), _arrays(s, *sizes), {}


@resample_rows.cost
def _(y, x, index, weight):
    return Cost(2.0 * y.size * index.shape[1], num_bytes(y, x, index, weight))
