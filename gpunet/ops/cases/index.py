"""Cases of the kernels of indexing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.backend.dtypes import is_floating
from gpunet.launch.facts import Cost, num_bytes
from gpunet.launch.faults import RECORD_SIZE
from gpunet.ops.cases.case import Samples
from gpunet.ops.index_launches import add_rows, gather_rows, index_positions, scatter_rows


def _sorted_positions(s: Samples, places: int, count: int, skipped: int = 0) -> list[numpy.ndarray]:
    """Sorted positions below ``places``, the first ``skipped`` of them -1, and their order."""
    unsorted = s.random.integers(0, places, count) if places else numpy.full(count, -1)
    unsorted[s.random.permutation(count)[:skipped]] = -1
    order = numpy.argsort(unsorted, kind="stable")
    return [unsorted[order].astype("int64"), order.astype("int64")]


add_rows.describe(
    waste={"reads writes": "the indices scatter the destinations; one thread adds all terms of a destination"},
)


@add_rows.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for places, count in ((1, 1), (7, 300), (300, 129), (5003, 65), (1, 300), (63, 5003), (5, 0)):
        yield f"{count} into {places}", [s.normal(places), s.normal(count), *_sorted_positions(s, places, count)], {}
    for outer, places, count, inner in ((2, 7, 65, 3), (1, 5, 129, 64), (3, 4, 9, 1), (2, 3, 0, 5)):
        arrays = [s.normal(outer, places, inner), s.normal(outer, count, inner), *_sorted_positions(s, places, count, count // 4)]
        yield f"({outer}, {count}, {inner}) into ({outer}, {places}, {inner})", arrays, {}


@add_rows.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    places, count = 8 * s.width, s.width**2 // 4
    yield f"{count} into {places}", [s.normal(places), s.normal(count), *_sorted_positions(s, places, count)], {}


@add_rows.cost
def _(out, values, positions, order):
    summed = min(num_bytes(out), num_bytes(values))
    return Cost(values.size, num_bytes(values, positions, order) + 2 * summed)


#: (elements, size, repeat, length, span, inner): a vector, one of two index arrays, gather along a middle dimension.
_INDICES = ((1, 3, 1, 1, 1, 1), (300, 7, 1, 300, 300, 1), (600, 5, 30, 20, 600, 1), (600, 4, 1, 600, 30, 5))


@index_positions.cases("edge")
def _(s: Samples) -> Iterator[Any]:
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


def _whole_index(s: Samples, continues: bool) -> Any:
    count, size = s.width**2 // 4, 8 * s.width
    options = {"count": count, "size": size, "repeat": 1, "length": count, "span": count, "inner": 1, "wraps": True}
    arrays = [s.blank(count, dtype="int64"), s.blank(RECORD_SIZE, dtype="int64"), s.random.integers(-size, size, count)]
    return f"{count} of {size}", arrays, {**options, "continues": continues, "code": 1, "detail": 0}


@index_positions.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for continues in (False, True):
        yield _whole_index(s, continues)


@index_positions.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_index(s, False)


@index_positions.cost
def _(positions, fault, index, *, continues, **sizes):
    return Cost(0.0, num_bytes(positions, index) + continues * num_bytes(positions))


def _copied(s: Samples, dtype: str, *shapes: tuple[int, ...]) -> list[numpy.ndarray]:
    """The bytes of arrays of ``dtype``; floating values include NaN and -0.0, whose bits are copied."""
    result = []
    for shape in shapes:
        array = s.random.integers(-100, 100, shape).astype(dtype)
        if is_floating(array.dtype):
            array.reshape(-1)[1::5], array.reshape(-1)[2::5] = numpy.nan, -0.0
        result.append(array.reshape(-1).view("uint8"))
    return result


#: (outer, size, count, inner)
_ROWS = ((1, 1, 1, 1), (1, 300, 129, 1), (2, 7, 65, 3), (1, 5, 40, 64), (3, 1, 9, 2), (2, 0, 3, 2), (2, 4, 0, 3), (1, 9, 70000, 1))


#: (elements of a row, dtype): elements and whole rows of every size of element.
_REPRESENTATIVES = tuple(itertools.product((1, 64), ("uint8", "uint16", "uint32", "uint64")))

gather_rows.describe(waste={"reads": "the indices choose the elements; rows of elements are read whole"})


@gather_rows.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (outer, size, count, inner), dtype in itertools.product(_ROWS, ("int8", "uint16", "float32", "float64")):
        out, x = _copied(s, dtype, (outer, count, inner), (outer, size, inner))
        positions = s.random.integers(-1, size, count)
        itemsize = numpy.dtype(dtype).itemsize
        fill = 0 if dtype == "int8" else 2 ** (8 * itemsize) - 1
        options = {"size": size, "inner": inner, "itemsize": itemsize, "fill": fill}
        yield f"({outer}, {count}, {inner}) of {size} {dtype}", [out, x, positions], options


@gather_rows.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for inner, dtype in _REPRESENTATIVES:
        yield _whole_gather(s, s.width**2 // 4 // inner, 8 * s.width, inner, dtype)


@gather_rows.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_gather(s, s.width, s.width, s.width, "float32")


def _whole_gather(s: Samples, count: int, size: int, inner: int, dtype: str) -> Any:
    itemsize = numpy.dtype(dtype).itemsize
    arrays = [*_copied(s, dtype, (count, inner), (size, inner)), s.random.integers(0, size, count)]
    return f"{count} of ({size}, {inner})", arrays, {"size": size, "inner": inner, "itemsize": itemsize, "fill": 0}


@gather_rows.cost
def _(out, x, positions, *, size, inner, itemsize, fill):
    return Cost(0.0, num_bytes(out, positions) + min(num_bytes(out), num_bytes(x)))


scatter_rows.describe(
    waste={"reads writes": "the indices choose the destinations; rows of elements are written whole"},
)


@scatter_rows.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (outer, size, count, inner), dtype in itertools.product(_ROWS, ("int8", "uint16", "float32", "float64")):
        x, values = _copied(s, dtype, (outer, size, inner), (outer, count, inner))
        options = {"size": size, "inner": inner, "itemsize": numpy.dtype(dtype).itemsize}
        arrays = [x, values, *_sorted_positions(s, size, count, count // 4)]
        yield f"({outer}, {count}, {inner}) into {size} {dtype}", arrays, options


@scatter_rows.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for inner, dtype in _REPRESENTATIVES:
        yield _whole_scatter(s, s.width**2 // 4 // inner, 8 * s.width, inner, dtype)


@scatter_rows.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_scatter(s, s.width, s.width, s.width, "float32")


def _whole_scatter(s: Samples, count: int, size: int, inner: int, dtype: str) -> Any:
    arrays = [*_copied(s, dtype, (size, inner), (count, inner)), *_sorted_positions(s, size, count)]
    options = {"size": size, "inner": inner, "itemsize": numpy.dtype(dtype).itemsize}
    return f"{count} into ({size}, {inner})", arrays, options


@scatter_rows.cost
def _(x, values, positions, order, *, size, inner, itemsize):
    return Cost(0.0, 2 * min(num_bytes(x), num_bytes(values)) + num_bytes(positions, order))
