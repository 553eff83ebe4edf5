"""Loop forms of calls that are no loop nest: what NumPy function or kernel it is -> the function in ``loops`` and its arguments.

A row takes a call and returns the units that do it, or None where its arrays are not such as the loop takes; then NumPy,
or the twin, is called between two compiled parts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import FLOATING
from gpunet.captured.compiled.nests import Unit, nest_of
from gpunet.captured.ir import Call, View
from gpunet.captured.merge import overlap

_REDUCTIONS = ("none", "sum", "mean")


class Library(NamedTuple):
    """A call of a function in ``loops``, for one floating type.  A view among the arguments stands for its address."""

    function: str
    dtype: numpy.dtype[Any]
    arguments: tuple[View | int | float | str, ...]


WORK = "work"  # as an argument: the address of the step's work space


class Form(Unit):
    """Calls of library functions; those that check their input return the number of what is wrong."""

    def __init__(self, call: Call, lines: list[Library], work: int = 0, checks: bool = False) -> None:
        super().__init__(call.reads, call.writes)
        self.call = call
        self.lines, self.work = lines, work  # bytes
        self.barrier = self.checks = checks


class Opaque(Unit):
    """A call of NumPy or of a twin."""

    barrier = True

    def __init__(self, call: Call) -> None:
        super().__init__(call.reads, call.writes)
        self.call = call


#: Multiplications in a product from which on NumPy's BLAS is called instead, which moves blocks of the operands together;
#: and from which on it is where rows of the second operand lie so that they meet in the cache.
LARGEST_PRODUCT, LARGEST_STRIDED = 1 << 27, 1 << 26


def _steps(view: View) -> tuple[int, ...] | None:
    """Strides in elements; those of single elements are 0."""
    if any(s % view.dtype.itemsize for s in view.strides):
        return None
    return tuple(s // view.dtype.itemsize if n != 1 else 0 for n, s in zip(view.shape, view.strides))


def _matrix(view: View, vector: tuple[int, ...]) -> View:
    """A vector as a matrix of one row or column."""
    if len(view.shape) != 1:
        return view
    strides = [0, 0]
    strides[vector.index(-1)] = view.strides[0]
    return view._replace(shape=tuple(view.shape[0] if n == -1 else 1 for n in vector), strides=tuple(strides))


def _products(call: Call) -> list[Unit] | None:
    """numpy.dot and numpy.matmul of matrices, and matmul of stacks of them."""
    options = dict(call.options)
    out = options.pop("out", call.arguments[2] if len(call.arguments) > 2 else None)
    if options or out is None or len(call.arguments) < 2:
        return None
    a, b = call.arguments[:2]
    dtype = out.dtype
    if dtype not in FLOATING or not all(isinstance(v, View) and v.dtype == dtype and v.size for v in (a, b, out)):
        return None
    if overlap(out, a) or overlap(out, b) or not a.shape or not b.shape:
        return None
    if call.function is numpy.dot and max(len(a.shape), len(b.shape)) > 2:
        return None
    if (len(a.shape) == 1 or len(b.shape) == 1) and max(len(a.shape), len(b.shape)) > 2:
        return None
    if len(a.shape) == 1 or len(b.shape) == 1:
        row, column = len(a.shape) == 1, len(b.shape) == 1
        a, b = _matrix(a, (1, -1)), _matrix(b, (-1, 1))
        shape = (a.shape[0], b.shape[1])
        out = out._replace(shape=shape, strides=(0 if row else out.strides[0], 0 if column else out.strides[-1]))
    batch = out.shape[:-2]
    lines: list[Library] = []
    work = 0
    if math.prod(batch) > 64:
        return None
    for position in itertools.product(*map(range, batch)):
        found = _product(*(_part(v, position) for v in (out, a, b)))
        if found is None:
            return None
        lines += found[0]
        work = max(work, found[1])
    return [Form(call, lines, work)]


def _part(view: View, position: tuple[int, ...]) -> View:
    """A matrix of a stack, which is repeated along dimensions of one."""
    own = position[len(position) - (len(view.shape) - 2) :] if len(view.shape) > 2 else ()
    offset = sum(p * s for p, s, n in zip(own, view.strides, view.shape) if n != 1)
    return view._replace(offset=view.offset + offset, shape=view.shape[-2:], strides=view.strides[-2:])


def _product(out: View, a: View, b: View) -> tuple[list[Library], int] | None:
    (m, k), n = a.shape, b.shape[1]
    steps = [_steps(v) for v in (out, a, b)]
    if m * n * k > LARGEST_PRODUCT or any(s is None for s in steps):
        return None
    (out_row, out_column), (a_row, a_depth), (b_depth, b_column) = steps  # type: ignore[misc]
    if n != 1 and out_column != 1:  # its transpose, then
        out, a, b, m, n = out, b, a, n, m
        out_row, out_column, a_row, a_depth, b_depth, b_column = out_column, out_row, b_column, b_depth, a_depth, a_row
    if n != 1 and out_column != 1:
        return None
    dtype = out.dtype
    row_bytes = (b_depth if b_column == 1 else n) * dtype.itemsize
    if m * n * k > LARGEST_STRIDED and (row_bytes % 4096 == 0 or row_bytes > 8192):
        return None
    if n == 1 or b_column == 1:
        if n == 1 and k >= 32 and a_depth == 1 and b_depth == 1:
            return [Library("dots", dtype, (out, a, b, m, n, k, out_row, a_row, 0))], 0
        if a_row == 1 and a_depth != 1 and k >= 512 and n >= 256:  # else each tile reads its columns from far away
            turn = Library("transpose", dtype, (WORK, a, k, m, a_depth))
            return [turn, Library("product", dtype, (out, WORK, b, m, n, k, out_row, k, 1, b_depth))], m * k * dtype.itemsize
        return [Library("product", dtype, (out, a, b, m, n, k, out_row, a_row, a_depth, b_depth))], 0
    if b_depth != 1 and k != 1:
        return None
    if min(m, n) <= 4 and k >= 32 and a_depth == 1:
        return [Library("dots", dtype, (out, a, b, m, n, k, out_row, a_row, b_column))], 0
    turn = Library("transpose", dtype, (WORK, b, n, k, b_column))
    return [turn, Library("product", dtype, (out, a, WORK, m, n, k, out_row, a_row, a_depth, n))], n * k * dtype.itemsize


def _concatenate(call: Call) -> list[Unit] | None:
    """A copy for each part."""
    out, axis = call.options.get("out"), call.options.get("axis", 0)
    parts = call.arguments[0]
    if out is None or set(call.options) - {"out", "axis"} or not isinstance(axis, int) or len(call.arguments) != 1:
        return None
    units: list[Unit] = []
    axis %= len(out.shape)
    start = 0
    for part in parts:
        target = out._replace(
            offset=out.offset + start * out.strides[axis], shape=part.shape
        )
        start += part.shape[axis]
        if 0 in part.shape:
            continue
        copy = Call("copy", numpy.copyto, (target, part), {}, [part], [target], False, call.launch)
        unit = nest_of(copy)
        if unit is None or overlap(out, part):
            return None
        units.append(unit)
    return units


def _assigned(call: Call) -> list[Unit] | None:
    """``out[...] = a.astype(...)`` and ``out[...] = a.copy()``."""
    out, source = call.arguments[:2]
    copy = Call("copy", numpy.copyto, (out, source), {}, [source], [out], False, call.launch)
    unit = nest_of(copy) if isinstance(source, View) and len(call.reads) == 1 else None
    return None if unit is None else [unit]


def _clip(call: Call) -> list[Unit] | None:
    """The larger of x and the lower bound, then the smaller of that and the upper one."""
    x, low, high = call.arguments
    out = call.options["out"]
    if set(call.options) != {"out"} or low is None or high is None:
        return None
    first = Call("elementwise", numpy.maximum, (x, low), {"out": out}, [v for v in (x, low) if isinstance(v, View)], [out])
    second = Call("elementwise", numpy.minimum, (out, high), {"out": out}, [out], [out])
    if isinstance(high, View):
        return None
    units = [nest_of(first), nest_of(second)]
    return None if None in units else units  # type: ignore[return-value]


def _contiguous(*views: Any) -> bool:
    return all(isinstance(v, View) and v.contiguous for v in views if v is not None)


def _cross_entropy_labels(call: Call) -> list[Unit] | None:
    value, dx, factor, _, _, _, logits, labels = call.arguments
    options = call.options
    if logits.dtype not in FLOATING or not _contiguous(value, dx, factor, logits, labels) or 0 in logits.shape:
        return None
    reduction = _REDUCTIONS.index(options["reduction"])
    arrays = (value, dx, value if factor is None else factor, logits, labels, WORK)
    arguments = (*arrays, *logits.shape, reduction, options["ignore_index"])
    work = 2 * logits.shape[0] * logits.dtype.itemsize
    return [Form(call, [Library("cross_entropy_labels", logits.dtype, arguments)], work, checks=True)]


def _cross_entropy_soft(call: Call) -> list[Unit] | None:
    value, dx, factor, _, _, logits, targets = call.arguments
    if logits.dtype not in FLOATING or not _contiguous(value, dx, factor, logits, targets) or 0 in logits.shape:
        return None
    reduction = _REDUCTIONS.index(call.options["reduction"])
    arrays = (value, dx, value if factor is None else factor, logits, targets, WORK)
    work = 2 * logits.shape[0] * logits.dtype.itemsize
    return [Form(call, [Library("cross_entropy_soft", logits.dtype, (*arrays, *logits.shape, reduction))], work)]


def _random(function: str, *names: str) -> Callable[[Call], list[Unit] | None]:
    """A draw into a contiguous array; ``names`` are its options."""

    def form(call: Call) -> list[Unit] | None:
        out, state = call.arguments
        if not _contiguous(out, state):
            return None
        dtype = out.dtype if out.dtype in FLOATING else FLOATING[0]
        options = [call.options[n] for n in names]
        if function == "random_bernoulli":
            options = [round(options[0] * 2**24)]
        return [Form(call, [Library(function, dtype, (out, state, out.size, *options))])]

    return form


def _take_items(call: Call) -> list[Unit] | None:
    """``out[...] = x[index]`` for one integer array that picks along the first dimension."""
    if len(call.arguments) != 3 or call.options:
        return None
    out, x, index = call.arguments
    index = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not isinstance(index, View) or index.dtype != numpy.int64 or x.dtype not in FLOATING or not x.shape:
        return None
    if not _contiguous(out, x, index) or out.dtype != x.dtype or 0 in (*out.shape, *x.shape) or overlap(out, x):
        return None
    row = math.prod(x.shape[1:])
    return [Form(call, [Library("take_rows", x.dtype, (out, x, index, index.size, x.shape[0], row))], checks=True)]


#: By the function of the call, or by the name of the kernel whose twin it is.
FORMS: dict[Any, Callable[[Call], list[Unit] | None]] = {
    numpy.dot: _products,
    numpy.matmul: _products,
    numpy.concatenate: _concatenate,
    numpy.clip: _clip,
    "astype": _assigned,
    "copy": _assigned,
    "take_items": _take_items,
    "cross_entropy_labels": _cross_entropy_labels,
    "cross_entropy_soft": _cross_entropy_soft,
    "random_uniform": _random("random_uniform", "low", "high"),
    "random_integers": _random("random_integers", "low", "high"),
    "random_bernoulli": _random("random_bernoulli", "probability"),
}


def units_of(call: Call) -> list[Unit]:
    """What does a call in a compiled step."""
    nest = nest_of(call)
    if nest is not None:
        return [nest]
    if call.writes and all(0 in v.shape for v in call.writes) and call.kind in ("elementwise", "copy"):
        return []
    try:
        form = FORMS.get(call.function)
    except TypeError:  # not hashable
        form = None
    form = form or FORMS.get(getattr(call.function, "__name__", ""))
    units = form(call) if form is not None else None
    return [Opaque(call)] if units is None else units


__all__ = ["FORMS", "WORK", "Form", "Library", "Opaque", "units_of"]
