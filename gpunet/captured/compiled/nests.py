"""Loop nests: elementwise calls and reductions over one shape, fused into one pass over memory.

Calls are fused if no element of one depends on another element of the other.  A value that one statement computes and
a later one reads stays in a register; it is stored only if something outside the nest needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_boolean, is_floating, is_half, is_integer
from gpunet.captured.compiled.expressions import TYPE_NAMES, convert, literal, loop_dtypes, template
from gpunet.captured.ir import Call, View, overlap

_MAX_OPERANDS = 30  # of a nest; jit.memory.MAX_SCOPES is 32
_MAX_SIZES = 100  # of a nest that are arguments; jit.memory.MAX_WORDS is 256
_MAX_UNROLLED = 64  # iterations of an innermost loop of a length that the source states
_MAX_GAP = 8  # elements between two of an innermost loop, stated likewise: LLVM loads vectors and shuffles them


class Operand(NamedTuple):
    """An operand of a nest: byte offset in its buffer and byte strides along the loops, 0 where it is broadcast."""

    buffer: int
    offset: int
    strides: tuple[int, ...]
    dtype: numpy.dtype[Any]


class Statement(NamedTuple):
    """``target = expression(sources)`` for each element, or one step of a reduction into ``target``."""

    target: Operand
    sources: tuple[Operand | str, ...]  # a string is a literal
    expression: str  # with {0}, {1} for sources and {old} for the target's value
    dtype: numpy.dtype[Any]  # of the expression
    dtypes: tuple[numpy.dtype[Any], ...]  # the sources are cast to these
    reduce: str = ""  # "", "add", "maximum" or "minimum"


class Unit:
    """A piece of a compiled step.

    Attributes:
        reads, writes: the views through which it accesses memory.
        barrier: no unit may move across it.
    """

    barrier = False

    def __init__(self, reads: list[View], writes: list[View]) -> None:
        self.reads, self.writes = reads, writes

    def remove_stores(self, is_needed: Callable[[View], bool]) -> None:
        """Keep only those results in memory that are needed outside the unit."""


class Nest(Unit):
    """A nest of loops over ``shape``, which has no dimension of length 1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__([], [])
        self.shape = shape
        self.statements: list[Statement] = []
        self._read: dict[Operand, View] = {}
        self._written: dict[Operand, View] = {}
        self._reduced: list[View] = []

    def fuse(self, other: Nest) -> bool:
        """Append the statements of a nest that follows this one.

        Returns:
            False, with nothing changed, if an element of one depends on another element of the other.
        """
        if self.shape != other.shape or len({*self._operands(), *other._operands()}) > _MAX_OPERANDS:
            return False
        for mine, theirs in ((self._written, other._read), (self._written, other._written), (self._read, other._written)):
            for operand, view in mine.items():
                if any(operand != o and overlap(view, v) for o, v in theirs.items()):
                    return False
        for a, b in ((self, other), (other, self)):
            if any(overlap(r, v) for r in a._reduced for v in (*b.reads, *b.writes)):
                return False
        self._read |= {o: v for o, v in other._read.items() if o not in self._written}
        self._written |= other._written
        self._reduced += other._reduced
        self.statements += other.statements
        self._update_views()
        return True

    def shares_operand(self, other: Nest) -> bool:
        """Whether both access an operand of more than one element in the same order."""
        return any(any(o.strides) for o in {*self._operands()} & {*other._operands()})

    def _update_views(self) -> None:
        self.reads = list(self._read.values())
        self.writes = [*self._written.values(), *self._reduced]

    def remove_stores(self, is_needed: Callable[[View], bool]) -> None:
        self._written = {o: v for o, v in self._written.items() if is_needed(v)}
        self._update_views()

    def add(self, statement: Statement, sources: list[View], target: View) -> None:
        """Append a statement; ``sources`` and ``target`` are the views of its operands."""
        self.statements.append(statement)
        for operand, view in zip((s for s in statement.sources if isinstance(s, Operand)), sources, strict=True):
            self._read.setdefault(operand, view)
        if "{old}" in statement.expression:
            self._read.setdefault(statement.target, target)
        if statement.reduce:
            self._reduced.append(target)
        else:
            self._written[statement.target] = target
        self._update_views()

    def _operands(self) -> list[Operand]:
        return list(dict.fromkeys((*self._read, *self._written, *(s.target for s in self.statements if s.reduce))))

    @property
    def size(self) -> int:
        """Number of iterations."""
        return math.prod(self.shape)

    def parallel_loop(self) -> tuple[int | None, int, int]:
        """The first loop that no reduction runs over (None if there is none), its length, and the work of the nest.

        The work is in bytes that the nest moves; a statement counts as two bytes per element.
        """
        operands = self._operands()
        shape, strides = _merge_dims(self.shape, [o.strides for o in operands])
        work = sum(o.dtype.itemsize for o, s in zip(operands, strides) if any(s)) + 2 * len(self.statements)
        totals = [s for o, s in zip(operands, strides) if self._is_reduced(o)]
        for d, extent in enumerate(shape):
            if all(total[d] for total in totals):
                return d, extent, self.size * work
        return None, 1, 0

    def source(self, along: int | None = None) -> tuple[str, list[Operand], list[int]]:
        """The nest as a function ``nest`` of the address of its arguments.

        In its source, p0 is the pointer to operand 0, v0 the value; t0 is the value of statement 0, r0 its running total; i0 is
        the index of loop 0; n0 is a number of iterations or elements.  Those are arguments, so that nests of other sizes are
        the same function; a short innermost loop has its length in the source, since that lets LLVM unroll it.

        Args:
            along: a loop that runs from ``low`` to ``high``, two more arguments of the function, instead of in full.

        Returns:
            The source, the operands whose addresses are the first arguments, and the numbers that follow them.
        """
        operands = self._operands()
        shape, strides = _merge_dims(self.shape, [o.strides for o in operands])
        depth = len(shape)
        sizes: dict[int, str] = {}

        def size(number: int, limit: int) -> str:
            if 0 <= number <= limit or (number not in sizes and len(sizes) == _MAX_SIZES):
                return str(number)
            return sizes.setdefault(number, f"n{len(sizes)}")

        limits = [*[1] * (depth - 1), _MAX_UNROLLED]
        bounds = ["low, high" if d == along else size(extent, limits[d]) for d, extent in enumerate(shape)]
        limits = [*[1] * (depth - 1), _MAX_GAP]
        steps = {
            o: tuple("" if s == 0 else size(s // o.dtype.itemsize, limits[d]) for d, s in enumerate(of))
            for o, of in zip(operands, strides)
        }
        slot = {o: n for n, o in enumerate(operands)}
        prologue = [f"p{n} = pointer(word_at(words, {n}), {TYPE_NAMES[o.dtype]})" for n, o in enumerate(operands)]
        names = [*sizes.values(), *(("low", "high") if along is not None else ())]
        prologue += [f"{name} = word_at(words, {n})" for n, name in enumerate(names, len(operands))]
        before: list[list[str]] = [[] for _ in range(depth + 1)]  # [d]: at the start of the body of d nested loops
        after: list[list[str]] = [[] for _ in range(depth + 1)]  # [d]: at the end of that body
        values: dict[Operand, str] = {}

        def access(operand: Operand) -> str:
            terms = [f"i{d} * {s}" if s != "1" else f"i{d}" for d, s in enumerate(steps[operand]) if s]
            return f"p{slot[operand]}, {' + '.join(terms) or '0'}"

        for operand in self._read:
            level = max((d + 1 for d, s in enumerate(steps[operand]) if s), default=0)
            loaded = f"load({access(operand)}, {slot[operand]})"
            before[level].append(f"v{slot[operand]} = {loaded}" + (" != 0" if is_boolean(operand.dtype) else ""))
            values[operand] = f"v{slot[operand]}"

        def store(operand: Operand, value: str) -> str:
            value = f"u1({value})" if is_boolean(operand.dtype) else value
            return f"store({access(operand)}, {value}, {slot[operand]})"

        body: list[str] = []
        inits: list[str] = []
        for count, statement in enumerate(self.statements):
            arguments = [
                s if isinstance(s, str) else convert(values[s], s.dtype, d) for s, d in zip(statement.sources, statement.dtypes)
            ]
            target = statement.target
            text = statement.expression.format(
                *arguments, T=TYPE_NAMES[(*statement.dtypes, statement.dtype)[0]], old=values.get(target, "")
            )
            if not statement.reduce:
                if is_integer(statement.dtype):
                    text = f"{TYPE_NAMES[statement.dtype]}({text})"
                body.append(f"t{count} = {convert(text, statement.dtype, target.dtype)}")
                values[target] = f"t{count}"
                continue
            self._emit_reduction(statement, f"r{count}", text, steps[target], bounds, access, store, before, after, body, inits)
        body += [store(o, values[o]) for o in self._written]
        lines = [*prologue, *inits]
        for level in range(depth):
            lines += ["    " * level + line for line in before[level]]
            lines.append("    " * level + f"for i{level} in range({bounds[level]}):")
        lines += ["    " * depth + line for line in (*before[depth], *body)]
        for level in range(depth, -1, -1):
            lines += ["    " * level + line for line in after[level]]
        lines.append("return 0")
        return "def nest(words):\n" + "".join(f"    {line}\n" for line in lines), operands, [*sizes]

    def _is_reduced(self, operand: Operand) -> bool:
        return any(s.reduce and s.target == operand for s in self.statements)

    @staticmethod
    def _emit_reduction(
        statement: Statement, name: str, text: str, steps: tuple[str, ...], bounds: list[str],
        access: Any, store: Any, before: list[list[str]], after: list[list[str]], body: list[str], inits: list[str],
    ) -> None:  # fmt: skip
        """Emit a reduction: its total is in a register over the innermost reduced loops, in memory over outer ones."""
        depth, dtype, target = len(bounds), statement.dtype, statement.target
        start = {"add": "0", "maximum": "-math.inf", "minimum": "math.inf"}[statement.reduce]
        own = TYPE_NAMES[dtype]
        inner = depth
        while inner and not steps[inner - 1]:
            inner -= 1
        is_sum = statement.reduce == "add"
        wide = "f8" if is_sum and dtype == numpy.float32 and inner < depth else own  # of the total in a register
        step = "{} + {}" if is_sum and not is_floating(dtype) else f"reduce_{statement.reduce}({{}}, {{}})"
        total = text
        if inner < depth:
            before[inner].append(f"{name} = {wide}({start})")
            body.append(f"{name} = " + step.format(name, f"{wide}({text})"))
            total = name if wide == own else f"{own}({name})"
        lines = after[inner] if inner < depth else body
        if "" in steps[:inner]:
            loops = [d for d in range(inner) if steps[d]]
            for level, d in enumerate(loops):
                inits.append("    " * level + f"for i{d} in range({bounds[d]}):")
            inits.append("    " * len(loops) + store(target, f"{own}({start})"))
            old = f"load({access(target)}, {access(target).partition(',')[0][1:]})"
            total = ("{} + {}" if is_sum else step).format(old, total)
        lines.append(store(target, total))


def _merge_dims(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The shape and strides with adjacent dimensions merged wherever all operands allow it."""
    extents = list(shape)
    steps = [list(s) for s in strides]
    for d in range(len(extents) - 2, -1, -1):
        if all(s[d] == s[d + 1] * extents[d + 1] for s in steps):
            extents[d : d + 2] = [extents[d] * extents[d + 1]]
            for s in steps:
                del s[d]
    return tuple(extents), [tuple(s) for s in steps]


# ---- from calls -----------------------------------------------------------------------------------------------------


def nest_of(call: Call) -> Nest | None:
    """The call as a loop nest, or None if it cannot be one."""
    if call.kind == "elementwise":
        return _elementwise(call, call.function, list(call.arguments))
    if call.kind == "copy":
        return _copy(call)
    if call.kind == "reduce":
        return _reduce(call)
    return None


def _operand_of(view: View, shape: tuple[int, ...], kept: list[int]) -> Operand | None:
    """A view, broadcast to ``shape``, as an operand of loops over the dimensions ``kept``; None if unsupported."""
    missing = len(shape) - len(view.shape)
    if missing < 0 or view.dtype not in TYPE_NAMES:
        return None
    strides = []
    for d in kept:
        has_extent = d >= missing and view.shape[d - missing] != 1
        strides.append(view.strides[d - missing] if has_extent else 0)
    if any(s % view.dtype.itemsize for s in strides) or view.offset % view.dtype.itemsize:
        return None
    return Operand(view.buffer, view.offset, tuple(strides), view.dtype)


def _elementwise(call: Call, ufunc: Any, arguments: list[Any]) -> Nest | None:
    options = dict(call.options)
    out, where = options.pop("out"), options.pop("where", True)
    options.pop("casting", None)
    dtype = options.pop("dtype", None)
    if options or not isinstance(out, View) or 0 in out.shape:
        return None
    kinds = [a.dtype if isinstance(a, (View, numpy.generic)) else type(a) for a in arguments]
    if not all(isinstance(k, numpy.dtype) or k in (bool, int, float) for k in kinds):
        return None
    signature = None if dtype is None else (*(None for _ in arguments), numpy.dtype(dtype))
    dtypes = loop_dtypes(ufunc, [numpy.dtype(bool) if k is bool else k for k in kinds], signature)
    # NumPy computes x ** 0.5 as sqrt, which differs from pow for -inf and -0.0
    name = "sqrt" if ufunc is numpy.power and not isinstance(arguments[1], View) and arguments[1] == 0.5 else ufunc.__name__
    expression = dtypes and template(name, dtypes[0])
    if not dtypes or not expression:
        return None
    return _statement(out, arguments, dtypes[:-1], dtypes[-1], expression, where)


def _copy(call: Call) -> Nest | None:
    out, value = call.arguments
    options = dict(call.options)
    options.pop("casting", None)
    where = options.pop("where", True)
    if options or 0 in out.shape or not isinstance(value, (View, bool, int, float, numpy.generic)):
        return None
    dtype = value.dtype if isinstance(value, View) else out.dtype
    if dtype not in TYPE_NAMES or (dtype == numpy.float64 and is_half(out.dtype)):  # rounded to float32 first, it would differ
        return None
    return _statement(out, [value], [dtype], dtype, "{0}", where)


def _statement(out: View, arguments: list[Any], dtypes: Any, dtype: Any, expression: str, where: Any) -> Nest | None:
    kept = [d for d, extent in enumerate(out.shape) if extent != 1]
    target = _operand_of(out, out.shape, kept)
    if target is None:
        return None
    sources: list[Operand | str] = []
    views = []
    for argument, operand_dtype in zip(arguments, dtypes):
        if isinstance(argument, View):
            operand = _operand_of(argument, out.shape, kept)
            if operand is None or (operand != target and overlap(argument, out)):
                return None
            sources.append(operand)
            views.append(argument)
        elif (text := literal(argument, operand_dtype)) is not None:
            sources.append(text)
        else:
            return None
    dtypes = list(dtypes)
    if where is not True:
        mask = _operand_of(where, out.shape, kept) if isinstance(where, View) else None
        if mask is None or not is_boolean(mask.dtype) or overlap(where, out):
            return None
        value = convert(expression, dtype, out.dtype)
        expression = f"select({{{len(sources)}}}, {value}, {{old}})"
        sources.append(mask)
        views.append(where)
        dtypes.append(mask.dtype)
        dtype = out.dtype
    nest = Nest(tuple(out.shape[d] for d in kept))
    nest.add(Statement(target, tuple(sources), expression, dtype, tuple(dtypes)), views, out)
    return nest


def _reduce(call: Call) -> Nest | None:
    ufunc = getattr(call.function, "__self__", None)
    (view,) = call.arguments[:1]
    options = dict(call.options)
    axis, out, keepdims = options.pop("axis", 0), options.pop("out"), options.pop("keepdims", False)
    name = getattr(ufunc, "__name__", "")
    if options or len(call.arguments) != 1 or not isinstance(view, View) or name not in ("add", "maximum", "minimum"):
        return None
    if name != "add" and (not is_floating(out.dtype) or view.dtype != out.dtype):
        return None
    if is_boolean(out.dtype) or (is_floating(view.dtype) and out.dtype != view.dtype):
        return None
    rank = len(view.shape)
    axes = list(range(rank)) if axis is None else [a % rank for a in ((axis,) if isinstance(axis, int) else axis)]
    strides = list(out.strides)
    if keepdims:
        strides = [s for d, s in enumerate(strides) if d not in axes]
    return _reduction([view], out, strides, axes, "{0}", name)


def sum_of_products(call: Call) -> Nest | None:
    """``numpy.einsum("ij,ij->j", a, b, out=out)``: the sums of a product of two arrays of the same shape; None if unsupported."""
    if len(call.arguments) != 3 or set(call.options) != {"out"}:
        return None
    text, a, b = call.arguments
    out, (inputs, _, kept) = call.options["out"], text.partition("->")
    first, _, second = inputs.partition(",")
    if first != second or len(set(first)) != len(first) or [d for d in first if d in kept] != list(kept):
        return None
    if not isinstance(a, View) or not isinstance(b, View) or not a.dtype == b.dtype == out.dtype or not is_floating(out.dtype):
        return None
    axes = [d for d, name in enumerate(first) if name not in kept]
    return _reduction([a, b], out, list(out.strides), axes, "{0} * {1}", "add")


def _reduction(views: list[View], out: View, strides: list[int], axes: list[int], expression: str, name: str) -> Nest | None:
    """Reduce an expression of views of one shape over ``axes``; None if unsupported.

    Args:
        strides: of ``out``, for the other dimensions.
        expression: with {0} and {1} for the views.
        name: of the ufunc that reduces.
    """
    shape, remaining = views[0].shape, list(strides)
    if 0 in shape or out.dtype not in TYPE_NAMES or is_half(out.dtype) or any(v.shape != shape or is_half(v.dtype) for v in views):
        return None
    kept = [d for d, extent in enumerate(shape) if extent != 1]
    sources = [_operand_of(view, shape, kept) for view in views]
    if None in sources or any(overlap(view, out) for view in views):
        return None
    out_strides = [0 if d in axes else remaining.pop(0) for d in range(len(shape))]
    if any(s % out.dtype.itemsize for s in out_strides) or out.offset % out.dtype.itemsize:
        return None
    target = Operand(out.buffer, out.offset, tuple(out_strides[d] for d in kept), out.dtype)
    nest = Nest(tuple(shape[d] for d in kept))
    dtypes = (out.dtype,) * len(views)
    nest.add(Statement(target, tuple(sources), expression, out.dtype, dtypes, name), views, out)  # type: ignore[arg-type]
    return nest
