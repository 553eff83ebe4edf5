"""Loop nests: elementwise calls and reductions over one shape, joined into one pass over memory.

Calls are joined where every element is read and written at its own place: a value that one call of a nest writes and
the next one reads stays in a register, and is stored only where something outside of the nest needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.captured.compiled.expressions import NAMES, converted, loop_dtypes, number, template
from gpunet.captured.ir import Call, View
from gpunet.captured.merge import overlap

_MOST_OPERANDS = 30  # access.SCOPES, and two to spare
_SHORT = range(8, 64)  # lengths of inner loops that the compiler unrolls whole where it knows them


class Place(NamedTuple):
    """Where an operand's elements lie as the nest walks them: byte offset, and strides in bytes, 0 along what is repeated."""

    buffer: int
    offset: int
    strides: tuple[int, ...]
    dtype: numpy.dtype[Any]


class Statement(NamedTuple):
    """``target = expression(sources)`` for each element, or one step of a reduction."""

    target: Place
    sources: tuple[Place | str, ...]  # a text is a number
    expression: str  # with {0}, {1} for sources and {old} for the target's value
    dtype: numpy.dtype[Any]  # of the expression
    dtypes: tuple[numpy.dtype[Any], ...]  # what sources are converted to
    reduce: str = ""  # "", "add", "maximum" or "minimum"


class Unit:
    """A piece of a compiled step, with the views through which it touches memory.

    Attributes:
        barrier: nothing may move across it.
    """

    barrier = False

    def __init__(self, reads: list[View], writes: list[View]) -> None:
        self.reads, self.writes = reads, writes

    def stored(self, needed: Callable[[View], bool]) -> None:
        """Forget the results that nobody outside needs."""


class Nest(Unit):
    """One nest of loops over ``shape``, in which no dimension is 1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__([], [])
        self.shape = shape
        self.statements: list[Statement] = []
        self._read: dict[Place, View] = {}
        self._written: dict[Place, View] = {}
        self._reduced: list[View] = []

    def join(self, other: Nest) -> bool:
        """Take over another nest that follows this one; False where the two cannot be one."""
        if self.shape != other.shape or len({*self._places(), *other._places()}) > _MOST_OPERANDS:
            return False
        for mine, theirs in ((self._written, other._read), (self._written, other._written), (self._read, other._written)):
            for place, view in mine.items():
                if any(place != p and overlap(view, v) for p, v in theirs.items()):
                    return False
        for a, b in ((self, other), (other, self)):
            if any(overlap(r, v) for r in a._reduced for v in (*b._read.values(), *b._written.values())):
                return False
        if any(overlap(a, b) for a in self._reduced for b in other._reduced):
            return False
        self._read |= {p: v for p, v in other._read.items() if p not in self._written}
        self._written |= other._written
        self._reduced += other._reduced
        self.statements += other.statements
        self._views()
        return True

    def shares(self, other: Nest) -> bool:
        """Whether both walk one operand in the same way, other than a single element."""
        return any(any(p.strides) for p in {*self._places()} & {*other._places()})

    def _places(self) -> list[Place]:
        return [*self._read, *self._written, *(s.target for s in self.statements if s.reduce)]

    def _views(self) -> None:
        self.reads = list(self._read.values())
        self.writes = [*self._written.values(), *self._reduced]

    def stored(self, needed: Callable[[View], bool]) -> None:
        self._written = {p: v for p, v in self._written.items() if needed(v)}
        self._views()

    # -- from calls
    def add(self, statement: Statement, sources: list[View], target: View) -> None:
        self.statements.append(statement)
        for place, view in zip((s for s in statement.sources if isinstance(s, Place)), sources, strict=True):
            self._read.setdefault(place, view)
        if "{old}" in statement.expression:
            self._read.setdefault(statement.target, target)
        if statement.reduce:
            self._reduced.append(target)
        else:
            self._written[statement.target] = target
        self._views()

    # -- to source
    def _operands(self) -> list[Place]:
        return list(dict.fromkeys(p for p in self._places() if p in self._read or p in self._written or self._is_total(p)))

    @property
    def size(self) -> int:
        """How many elements it walks."""
        return math.prod(self.shape)

    def divisible(self) -> tuple[int | None, int, int]:
        """The first loop over which nothing is summed, or None, its length, and the bytes that the nest moves."""
        operands = self._operands()
        shape, strides = _collapsed(self.shape, [p.strides for p in operands])
        moved = sum(p.dtype.itemsize for p, s in zip(operands, strides) if any(s)) + 2 * len(self.statements)
        totals = [s for p, s in zip(operands, strides) if self._is_total(p)]
        for d, extent in enumerate(shape):
            if all(total[d] for total in totals):
                return d, extent, self.size * moved
        return None, 1, 0

    def source(self, name: str, along: int | None = None) -> tuple[str, list[Place]]:
        """The nest as a function of addresses, and the places that they are of; loop ``along`` is from ``low`` to ``high``."""
        operands = self._operands()
        shape, strides = _collapsed(self.shape, [p.strides for p in operands])
        bounds = ["low, high" if d == along else str(extent) for d, extent in enumerate(shape)]
        if len(shape) > 1 and shape[-1] in _SHORT and along != len(shape) - 1 and not self._reduced:
            bounds[-1] = f"hidden({shape[-1]})"
        steps = {p: tuple(s // p.dtype.itemsize for s in of) for p, of in zip(operands, strides)}
        slot = {p: n for n, p in enumerate(operands)}
        depth = len(shape)
        prologue = [
            f"p{n} = pointer(a{n}, {NAMES[p.dtype]})" for n, p in enumerate(operands)
        ]
        before: list[list[str]] = [[] for _ in range(depth + 1)]  # at the start of the body of loop number ...
        after: list[list[str]] = [[] for _ in range(depth + 1)]  # at its end
        values: dict[Place, str] = {}

        def access(place: Place) -> str:
            terms = [f"i{d} * {s}" if s != 1 else f"i{d}" for d, s in enumerate(steps[place]) if s]
            return f"p{slot[place]}, {' + '.join(terms) or '0'}"

        for place in self._read:
            level = max((d + 1 for d, s in enumerate(steps[place]) if s), default=0)
            loaded = f"load({access(place)}, {slot[place]})"
            before[level].append(f"v{slot[place]} = {loaded}" + (" != 0" if place.dtype.kind == "b" else ""))
            values[place] = f"v{slot[place]}"

        def store(place: Place, value: str) -> str:
            return f"store({access(place)}, {f'u1({value})' if place.dtype.kind == 'b' else value}, {slot[place]})"

        body: list[str] = []
        inits: list[str] = []
        for count, statement in enumerate(self.statements):
            arguments = [
                s if isinstance(s, str) else converted(values[s], s.dtype, d) for s, d in zip(statement.sources, statement.dtypes)
            ]
            target = statement.target
            text = statement.expression.format(
                *arguments, T=NAMES[(*statement.dtypes, statement.dtype)[0]], old=values.get(target, "")
            )
            if not statement.reduce:
                if statement.dtype.kind in "iu":
                    text = f"{NAMES[statement.dtype]}({text})"
                body.append(f"t{count} = {converted(text, statement.dtype, target.dtype)}")
                values[target] = f"t{count}"
                continue
            self._reduction(statement, f"r{count}", text, steps[target], bounds, access, store, before, after, body, inits)
        body += [store(p, values[p]) for p in self._written]
        lines = [*prologue, *inits]
        for level in range(depth):
            lines += ["    " * level + line for line in before[level]]
            lines.append("    " * level + f"for i{level} in range({bounds[level]}):")
        lines += ["    " * depth + line for line in (*before[depth], *body)]
        for level in range(depth, -1, -1):
            lines += ["    " * level + line for line in after[level]]
        names = ", ".join([*(f"a{n}" for n in range(len(operands))), *(("low", "high") if along is not None else ())])
        return f"def {name}({names}):\n    apart()\n" + "".join(f"    {line}\n" for line in lines), operands

    def _is_total(self, place: Place) -> bool:
        return any(s.reduce and s.target == place for s in self.statements)

    @staticmethod
    def _reduction(
        statement: Statement, name: str, text: str, steps: tuple[int, ...], bounds: list[str],
        access: Any, store: Any, before: list[list[str]], after: list[list[str]], body: list[str], inits: list[str],
    ) -> None:  # fmt: skip
        """A total in a register over the inner loops that it runs along, and in memory over the outer ones."""
        depth, dtype, target = len(bounds), statement.dtype, statement.target
        start = {"add": "0", "maximum": "-math.inf", "minimum": "math.inf"}[statement.reduce]
        own = NAMES[dtype]
        inner = depth
        while inner and steps[inner - 1] == 0:
            inner -= 1
        wide = "f8" if dtype == numpy.float32 and statement.reduce == "add" and inner < depth else own
        step = {"add": "accumulate({}, {})" if dtype.kind == "f" else "{} + {}"}.get(statement.reduce, "largest({}, {})")
        if statement.reduce == "minimum":
            step = "smallest({}, {})"
        total = text
        if inner < depth:
            before[inner].append(f"{name} = {wide}({start})")
            body.append(f"{name} = " + step.format(name, f"{wide}({text})"))
            total = name if wide == own else f"{own}({name})"
        place = after[inner] if inner < depth else body
        if 0 in steps[:inner]:
            loops = [d for d in range(inner) if steps[d]]
            for level, d in enumerate(loops):
                inits.append("    " * level + f"for i{d} in range({bounds[d]}):")
            inits.append("    " * len(loops) + store(target, f"{own}({start})"))
            old = f"load({access(target)}, {access(target).partition(',')[0][1:]})"
            plain = {"add": "{} + {}"}.get(statement.reduce, step)
            total = plain.format(old, total)
        place.append(store(target, total))


def _collapsed(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Fewer dimensions where all operands walk two of them as one."""
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
    """A nest that does what a call does, or None where none does."""
    if call.kind == "elementwise":
        return _elementwise(call, call.function, list(call.arguments))
    if call.kind == "copy":
        return _copy(call)
    if call.kind == "reduce":
        return _reduce(call)
    return None


def _placed(view: View, shape: tuple[int, ...], kept: list[int]) -> Place | None:
    """A view as broadcast to ``shape``, of which the dimensions ``kept`` are walked."""
    missing = len(shape) - len(view.shape)
    if missing < 0 or view.dtype not in NAMES:
        return None
    strides = []
    for d in kept:
        walked = d >= missing and view.shape[d - missing] != 1
        strides.append(view.strides[d - missing] if walked else 0)
    if any(s % view.dtype.itemsize for s in strides) or view.offset % view.dtype.itemsize:
        return None
    return Place(view.buffer, view.offset, tuple(strides), view.dtype)


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
    # the root, as in NumPy: a power of -inf or -0 differs
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
    if dtype not in NAMES:
        return None
    return _statement(out, [value], [dtype], dtype, "{0}", where)


def _statement(out: View, arguments: list[Any], dtypes: Any, dtype: Any, expression: str, where: Any) -> Nest | None:
    kept = [d for d, extent in enumerate(out.shape) if extent != 1]
    target = _placed(out, out.shape, kept)
    if target is None:
        return None
    sources: list[Place | str] = []
    views = []
    for argument, needed in zip(arguments, dtypes):
        if isinstance(argument, View):
            place = _placed(argument, out.shape, kept)
            if place is None or (place != target and overlap(argument, out)):
                return None
            sources.append(place)
            views.append(argument)
        elif (text := number(argument, needed)) is not None:
            sources.append(text)
        else:
            return None
    dtypes = list(dtypes)
    if where is not True:
        mask = _placed(where, out.shape, kept) if isinstance(where, View) else None
        if mask is None or mask.dtype.kind != "b" or overlap(where, out):
            return None
        value = converted(expression, dtype, out.dtype)
        expression = f"choose({{{len(sources)}}}, {value}, {{old}})"
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
    if 0 in view.shape or out.dtype not in NAMES or (name != "add" and (out.dtype.kind != "f" or view.dtype != out.dtype)):
        return None
    if out.dtype.kind == "b" or (view.dtype.kind == "f" and out.dtype != view.dtype):
        return None
    rank = len(view.shape)
    axes = range(rank) if axis is None else [a % rank for a in ((axis,) if isinstance(axis, int) else axis)]
    strides = list(out.strides)
    if keepdims:
        strides = [s for d, s in enumerate(strides) if d not in axes]
    kept = [d for d, extent in enumerate(view.shape) if extent != 1]
    source = _placed(view, view.shape, kept)
    if source is None or overlap(view, out):
        return None
    full = {}
    for d in range(rank):
        full[d] = 0 if d in axes else strides.pop(0)
    if any(s % out.dtype.itemsize for s in full.values()) or out.offset % out.dtype.itemsize:
        return None
    target = Place(out.buffer, out.offset, tuple(full[d] for d in kept), out.dtype)
    nest = Nest(tuple(view.shape[d] for d in kept))
    nest.add(Statement(target, (source,), "{0}", out.dtype, (out.dtype,), name), [view], out)
    return nest
