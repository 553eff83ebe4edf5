"""Cases of the kernels of indexing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.faults import RECORD_SIZE
from gpunet.ops.cases.case import Samples, maker


def _sorted_positions(s: Samples, places: int, count: int, skipped: int = 0) -> list[numpy.ndarray]:
    """Sorted positions below ``places``, the first ``skipped`` of them -1, and their order."""
    unsorted = s.random.integers(0, places, count) if places else numpy.full(count, -1)
    unsorted[s.random.permutation(count)[:skipped]] = -1
    order = numpy.argsort(unsorted, kind="stable")
    return [unsorted[order].astype("int64"), order.astype("int64")]


@maker(updates="out")
def scatter_add(s: Samples) -> Iterator[Any]:
    for places, count in ((1, 1), (7, 300), (300, 129), (5003, 65), (1, 300), (63, 5003), (5, 0)):
        yield f"{count} into {places}", [s.normal(places), s.normal(count), *_sorted_positions(s, places, count)], {}
    for outer, places, count, inner in ((2, 7, 65, 3), (1, 5, 129, 64), (3, 4, 9, 1), (2, 3, 0, 5)):
        arrays = [s.normal(outer, places, inner), s.normal(outer, count, inner), *_sorted_positions(s, places, count, count // 4)]
        yield f"({outer}, {count}, {inner}) into ({outer}, {places}, {inner})", arrays, {}


#: (elements, size, repeat, length, span, inner): a vector, one of two index arrays, gather along a middle dimension.
_INDICES = ((1, 3, 1, 1, 1, 1), (300, 7, 1, 300, 300, 1), (600, 5, 30, 20, 600, 1), (600, 4, 1, 600, 30, 5))


@maker(updates="fault positions")
def index_positions(s: Samples) -> Iterator[Any]:
    for (count, size, repeat, length, span, inner), continues, wraps in itertools.product(_INDICES, (False, True), (True, False)):
        options = {
            "count": count, "size": size, "repeat": repeat, "length": length, "span": span, "inner": inner,
            "continues": continues, "wraps": wraps, "code": 3, "detail": 1,
        }  # fmt: skip
        for label, lowest, highest in (("in range", -size if wraps else 0, size), ("out of range", -2 * size, 2 * size)):
            record = s.blank(RECORD_SIZE, dtype="int64")
            positions = s.random.integers(-1, 5, count)
            yield f"{count} of {size} {label}", [positions, record, s.random.integers(lowest, highest, length)], options
    options = {"count": 5003, "size": 7, "repeat": 1, "length": 5003, "span": 5003, "inner": 1, "continues": False, "wraps": True}
    options |= {"code": 2**31 - 1, "detail": -100}
    for first, reported in ((0, 0), (3, 0), (4999, 0), (3, 9)):
        index = numpy.where(numpy.arange(5003) < first, 6, 2**62 + numpy.arange(5003))
        record = numpy.array([reported, 1, 2, 3, 4], "int64")
        label = f"out of range from {first}{' after another error' * bool(reported)}"
        yield label, [s.blank(5003, dtype="int64"), record, index], options
        yield f"{label}, check only", [None, record.copy(), index], options
    arrays = [s.blank(5003, dtype="int64"), s.blank(RECORD_SIZE, dtype="int64"), index]
    yield "of an empty dimension", arrays, {**options, "size": 0}


def _copied(s: Samples, dtype: str, *shapes: tuple[int, ...]) -> list[numpy.ndarray]:
    """The bytes of arrays of ``dtype``; floating values include NaN and -0.0, whose bits are copied."""
    result = []
    for shape in shapes:
        array = s.random.integers(-100, 100, shape).astype(dtype)
        if array.dtype.kind == "f":
            array.reshape(-1)[1::5], array.reshape(-1)[2::5] = numpy.nan, -0.0
        result.append(array.reshape(-1).view("uint8"))
    return result


#: (outer, size, count, inner)
_ROWS = ((1, 1, 1, 1), (1, 300, 129, 1), (2, 7, 65, 3), (1, 5, 40, 64), (3, 1, 9, 2), (2, 0, 3, 2), (2, 4, 0, 3), (1, 9, 70000, 1))


@maker()
def gather_rows(s: Samples) -> Iterator[Any]:
    for (outer, size, count, inner), dtype in itertools.product(_ROWS, ("int8", "uint16", "float32", "float64")):
        out, x = _copied(s, dtype, (outer, count, inner), (outer, size, inner))
        positions = s.random.integers(-1, size, count)
        itemsize = numpy.dtype(dtype).itemsize
        fill = 0 if dtype == "int8" else 2 ** (8 * itemsize) - 1
        options = {"size": size, "inner": inner, "itemsize": itemsize, "fill": fill}
        yield f"({outer}, {count}, {inner}) of {size} {dtype}", [out, x, positions], options


@maker(updates="x")
def scatter_rows(s: Samples) -> Iterator[Any]:
    for (outer, size, count, inner), dtype in itertools.product(_ROWS, ("int8", "uint16", "float32", "float64")):
        x, values = _copied(s, dtype, (outer, size, inner), (outer, count, inner))
        options = {"size": size, "inner": inner, "itemsize": numpy.dtype(dtype).itemsize}
        arrays = [x, values, *_sorted_positions(s, size, count, count // 4)]
        yield f"({outer}, {count}, {inner}) into {size} {dtype}", arrays, options
