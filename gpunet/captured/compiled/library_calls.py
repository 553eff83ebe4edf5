"""Calls that are not loop nests: matrix products, indexing, and the launches of kernels that have a loop body.

The table at the end maps a NumPy function to a rule.  A rule takes a call and returns the units that replace it, or None
if it does not support the call; then the step calls NumPy or the twin between two compiled parts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import NATIVE, is_half
from gpunet.captured.compiled.entries import Entry
from gpunet.captured.compiled.expressions import TYPE_NAMES
from gpunet.captured.compiled.nests import Unit, nest_of, sum_of_products
from gpunet.captured.ir import Call, View, overlap
from gpunet.launch.loops import LoopBody, load, loop_body, store

SCRATCH = "scratch"  # as an argument: the address of the step's scratch memory


class LibraryCall(NamedTuple):
    """A call of a loop body, or of the one in ``jit.matmul`` with this name.

    Attributes:
        dtype: of the scratch memory.
        arguments: views and SCRATCH, which mean their addresses, then numbers.
        work: of ``Loops``.
    """

    function: LoopBody | str
    dtype: numpy.dtype[Any]
    arguments: tuple[View | int | float | str, ...]
    work: int = 0

    @property
    def num_arrays(self) -> int:
        """How many of the arguments are addresses."""
        return sum(isinstance(a, (View, str)) for a in self.arguments)

    @property
    def entry(self) -> Entry:
        """The compiled function that it calls."""
        arrays = [a.dtype if isinstance(a, View) else self.dtype for a in self.arguments[: self.num_arrays]]
        numbers = [type(a).__name__ for a in self.arguments[self.num_arrays :]]
        return Entry(self.function, tuple(TYPE_NAMES[dtype] for dtype in arrays), tuple(numbers))


class LibraryUnit(Unit):
    """Library calls that replace a call.

    Attributes:
        scratch_bytes: scratch memory that they use.
        checks_input: the body returns 1 for invalid input; then ``call`` raises the error.
    """

    def __init__(
        self, call: Call, library_calls: list[LibraryCall], scratch_bytes: int = 0, checks_input: bool = False
    ) -> None:
        super().__init__(call.reads, call.writes)
        self.call = call
        self.library_calls, self.scratch_bytes = library_calls, scratch_bytes
        self.barrier = self.checks_input = checks_input


class NumpyUnit(Unit):
    """A call that stays a call of NumPy or of a twin, made from Python."""

    barrier = True

    def __init__(self, call: Call) -> None:
        super().__init__(call.reads, call.writes)
        self.call = call


#: Multiplications up to which our loops compute a product; NumPy's BLAS packs its operands and is faster above.  The
#: second limit holds if the rows of the second operand compete for the same cache sets.
MAX_PRODUCT, MAX_STRIDED_PRODUCT = 1 << 27, 1 << 26


def _element_strides(view: View) -> tuple[int, ...] | None:
    """Strides in elements, 0 for dimensions of length 1; None if a stride is not a whole number of elements."""
    if any(s % view.dtype.itemsize for s in view.strides):
        return None
    return tuple(s // view.dtype.itemsize if n != 1 else 0 for n, s in zip(view.shape, view.strides))


def _products(call: Call) -> list[Unit] | None:
    """numpy.dot and numpy.matmul of vectors and matrices, and matmul of stacks of matrices."""
    options = dict(call.options)
    out = options.pop("out", call.arguments[2] if len(call.arguments) > 2 else None)
    if options or out is None or len(call.arguments) < 2:
        return None
    a, b = call.arguments[:2]
    dtype = out.dtype
    if dtype not in NATIVE or not all(isinstance(v, View) and v.dtype == dtype and v.size for v in (a, b, out)):
        return None
    ranks = len(a.shape), len(b.shape)
    if overlap(out, a) or overlap(out, b) or 0 in ranks:
        return None
    if max(ranks) > 2 and (call.function is numpy.dot or 1 in ranks):
        return None
    if ranks[0] == 1:  # a row
        a = a._replace(shape=(1, *a.shape), strides=(0, *a.strides))
        out = out._replace(shape=(1, *out.shape), strides=(0, *out.strides))
    if ranks[1] == 1:  # a column
        b = b._replace(shape=(*b.shape, 1), strides=(*b.strides, 0))
        out = out._replace(shape=(*out.shape, 1), strides=(*out.strides, 0))
    batch = out.shape[:-2]
    library_calls: list[LibraryCall] = []
    scratch_bytes = 0
    if math.prod(batch) > 64:
        return None
    for position in itertools.product(*map(range, batch)):
        product = _product(*(_stack_item(v, position) for v in (out, a, b)))
        if product is None:
            return None
        library_calls += product[0]
        scratch_bytes = max(scratch_bytes, product[1])
    return [LibraryUnit(call, library_calls, scratch_bytes)]


def _stack_item(view: View, position: tuple[int, ...]) -> View:
    """The matrix at ``position`` of the broadcast stack."""
    own = position[len(position) - (len(view.shape) - 2) :] if len(view.shape) > 2 else ()
    offset = sum(p * s for p, s, n in zip(own, view.strides, view.shape) if n != 1)
    return view._replace(offset=view.offset + offset, shape=view.shape[-2:], strides=view.strides[-2:])


def _product(out: View, a: View, b: View) -> tuple[list[LibraryCall], int] | None:
    """The library calls of one matrix product and the scratch bytes that they use; None if they do not support it."""
    (m, k), n = a.shape, b.shape[1]
    strides = [_element_strides(v) for v in (out, a, b)]
    if m * n * k > MAX_PRODUCT or any(s is None for s in strides):
        return None
    (out_row, out_column), (a_row, a_depth), (b_depth, b_column) = strides  # type: ignore[misc]
    if n != 1 and out_column != 1:  # compute out^T = b^T a^T
        out, a, b, m, n = out, b, a, n, m
        out_row, out_column, a_row, a_depth, b_depth, b_column = out_column, out_row, b_column, b_depth, a_depth, a_row
    if n != 1 and out_column != 1:
        return None
    dtype = out.dtype
    row_bytes = (b_depth if b_column == 1 else n) * dtype.itemsize
    if m * n * k > MAX_STRIDED_PRODUCT and (row_bytes % 4096 == 0 or row_bytes > 8192):
        return None
    if n == 1 or b_column == 1:
        if n == 1 and k >= 32 and a_depth == 1 and b_depth == 1:
            return [LibraryCall("dots", dtype, (out, a, b, m, n, k, out_row, a_row, 0))], 0
        return [LibraryCall("product", dtype, (out, a, b, m, n, k, out_row, a_row, a_depth, b_depth))], 0
    if b_depth != 1 and k != 1:
        return None
    if min(m, n) <= 4 and k >= 32 and a_depth == 1:
        return [LibraryCall("dots", dtype, (out, a, b, m, n, k, out_row, a_row, b_column))], 0
    transpose = LibraryCall("transpose", dtype, (SCRATCH, b, n, k, b_column))
    product = LibraryCall("product", dtype, (out, a, SCRATCH, m, n, k, out_row, a_row, a_depth, n))
    return [transpose, product], n * k * dtype.itemsize


def _concatenate(call: Call) -> list[Unit] | None:
    """numpy.concatenate as one copy per part."""
    out, axis = call.options.get("out"), call.options.get("axis", 0)
    parts = call.arguments[0]
    if out is None or set(call.options) - {"out", "axis"} or not isinstance(axis, int) or len(call.arguments) != 1:
        return None
    units: list[Unit] = []
    axis %= len(out.shape)
    start = 0
    for part in parts:
        target = out._replace(offset=out.offset + start * out.strides[axis], shape=part.shape)
        start += part.shape[axis]
        if 0 in part.shape:
            continue
        copy = Call("copy", numpy.copyto, (target, part), {}, [part], [target], False, call.launch)
        unit = nest_of(copy)
        if unit is None or overlap(out, part):
            return None
        units.append(unit)
    return units


def _assign(call: Call) -> list[Unit] | None:
    """``out[...] = a.astype(...)`` and ``out[...] = a.copy()``."""
    out, source = call.arguments[:2]
    copy = Call("copy", numpy.copyto, (out, source), {}, [source], [out], False, call.launch)
    unit = nest_of(copy) if isinstance(source, View) and len(call.reads) == 1 else None
    return None if unit is None else [unit]


def _clip(call: Call) -> list[Unit] | None:
    """numpy.clip as maximum(x, low), then minimum with high."""
    x, low, high = call.arguments
    out = call.options["out"]
    if set(call.options) != {"out"} or low is None or high is None or isinstance(high, View):
        return None
    lower = Call("elementwise", numpy.maximum, (x, low), {"out": out}, [v for v in (x, low) if isinstance(v, View)], [out])
    upper = Call("elementwise", numpy.minimum, (out, high), {"out": out}, [out], [out])
    units = [nest_of(lower), nest_of(upper)]
    return None if None in units else units  # type: ignore[return-value]


def _einsum(call: Call) -> list[Unit] | None:
    nest = sum_of_products(call)
    return None if nest is None else [nest]


def _loops(call: Call) -> list[Unit] | None:
    """The launch of a kernel that has a loop body."""
    loops = call.loops and call.loops(*call.arguments, **call.options)
    if not loops or not all(v.contiguous and v.size and v.dtype in TYPE_NAMES and not is_half(v.dtype) for v in loops.arrays):
        return None
    dtype = loops.arrays[0].dtype
    arrays = (*loops.arrays, SCRATCH) if loops.scratch else loops.arrays
    # of two types alone, on which the bits of a word depend
    numbers = [int(n) if isinstance(n, (int, numpy.integer, numpy.bool_)) else float(n) for n in loops.numbers]
    library_call = LibraryCall(loops.body, dtype, (*arrays, *numbers), loops.work)
    return [LibraryUnit(call, [library_call], loops.scratch * dtype.itemsize, loops.checks_input)]


@loop_body
def _take_rows(out, x, index, count, rows, columns):
    """out (count, columns) = x (rows, columns)[index]."""
    for i in range(count):
        row = load(index, i, 2)
        if row < -rows or row >= rows:
            return 1
    for i in range(count):
        row = load(index, i, 2)
        row = row + rows if row < 0 else row
        for j in range(columns):
            store(out, i * columns + j, load(x, row * columns + j, 1), 0)
    return 0


def _take_items(call: Call) -> list[Unit] | None:
    """``out[...] = x[index]`` with one int64 array that indexes the first dimension."""
    if len(call.arguments) != 3 or call.options:
        return None
    out, x, index = call.arguments
    return _rows_at(call, out, x, index[0] if isinstance(index, tuple) and len(index) == 1 else index)


def _take(call: Call) -> list[Unit] | None:
    """``numpy.take(x, index, axis=0, out=out, mode="clip")``, whose index is in range."""
    if call.options.get("axis") != 0 or call.options.get("mode") != "clip":
        return None
    return _rows_at(call, call.options["out"], *call.arguments)


def _rows_at(call: Call, out: View, x: View, index: Any) -> list[Unit] | None:
    """``out[...] = x[index]`` in place of a call, if the arrays allow it."""
    if not isinstance(index, View) or index.dtype != numpy.int64 or x.dtype not in NATIVE or not x.shape:
        return None
    if not all(v.contiguous for v in (out, x, index)) or out.dtype != x.dtype or 0 in (*out.shape, *x.shape) or overlap(out, x):
        return None
    row = math.prod(x.shape[1:])
    library_call = LibraryCall(_take_rows, x.dtype, (out, x, index, index.size, x.shape[0], row))
    return [LibraryUnit(call, [library_call], checks_input=True)]


#: The function of the call, or its name -> its rule.
_RULES: dict[Any, Callable[[Call], list[Unit] | None]] = {
    numpy.dot: _products,
    numpy.matmul: _products,
    numpy.concatenate: _concatenate,
    numpy.clip: _clip,
    numpy.einsum: _einsum,
    numpy.take: _take,
    "astype": _assign,
    "copy": _assign,
    "take_items": _take_items,
}


def units_of(call: Call) -> list[Unit]:
    """The units that replace a call in a compiled step."""
    nest = nest_of(call)
    if nest is not None:
        return [nest]
    if call.writes and all(0 in v.shape for v in call.writes) and call.kind in ("elementwise", "copy"):
        return []
    rule = _loops if call.loops else _RULES.get(call.function) or _RULES.get(getattr(call.function, "__name__", ""))
    units = rule(call) if rule is not None else None
    return [NumpyUnit(call)] if units is None else units
