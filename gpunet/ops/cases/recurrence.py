"""Cases of the kernels of recurrent layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.recurrence import CELLS, recurrence_backward, recurrence_forward


class _Sizes(NamedTuple):
    """The size of a launch."""

    batch_sizes: tuple[int, ...]
    width: int

    def __str__(self) -> str:
        or_fewer = " or fewer" * (self.batch_sizes[0] != self.batch_sizes[-1])
        return f"{self.batch_sizes[0]} sequences of {len(self.batch_sizes)} steps{or_fewer}, {self.width} units"


#: Less and more than a warp, more than a block has threads, no sequences; blocks of one and of four sequences.
_LAUNCHES = (
    _Sizes((5, 3, 3, 1), 5), _Sizes((3, 3, 3), 34), _Sizes((1,), 1), _Sizes((2, 2), 515), _Sizes((0, 0), 4),
    _Sizes((269, 267, 265, 2), 3), _Sizes((266, 266), 2),
)  # fmt: skip
_WHOLE = _Sizes((64, 64, 64, 64), 64)


class _Arrays:
    """Arrays of a launch by name, those that the cell does not have as None."""

    def __init__(self, s: Samples, cell: str, sizes: _Sizes) -> None:
        self.row, self.sizes, self.activation = CELLS[cell], sizes, "relu" if cell == "rnn_relu" else "tanh"
        self.width, self.n, self.rows = sizes.width, sizes.batch_sizes[0], sum(sizes.batch_sizes)
        self.gates = self.row.gates * self.width
        self.starts = numpy.concatenate([[0], numpy.cumsum(sizes.batch_sizes)]).astype(numpy.int64)
        self.w = s.normal(self.gates, self.width) * s.dtype.type(0.5 / self.width**0.5)

    def options(self, cell: str, reverse: bool) -> dict[str, Any]:
        return {"cell": cell, "reverse": reverse}

    def forward(self, s: Samples, with_b: bool, with_initial: bool) -> list[Any]:
        state = (self.n, self.width)
        cells = self.row.has_cells
        return [
            s.blank(self.rows, self.width), s.blank(*state), s.blank(*state) if cells else None, s.normal(self.rows, self.gates),
            s.blank(self.rows, self.width) if cells or self.row.keeps_hidden else None, self.w.T.copy(),
            s.normal(self.gates) if with_b else None, s.normal(*state) if with_initial else None,
            s.normal(*state) if with_initial and cells else None, self.starts,
        ]  # fmt: skip

    def backward(self, s: Samples, with_dy: bool, with_last: bool, with_initial: bool) -> list[Any]:
        state, cells = (self.n, self.width), self.row.has_cells
        inner = cells or self.row.keeps_hidden
        # gates are from 0 to 1 as after a sigmoid; so are those from -1 to 1, for the formulas hold there, too
        gates = s.positive(self.rows, self.gates) * s.dtype.type(0.5) if self.row.keeps_gates else None
        return [
            s.blank(self.rows, self.gates), s.blank(self.rows, self.gates) if self.row.keeps_hidden else None,
            s.blank(self.rows, self.width), s.blank(*state), s.blank(*state) if cells else None,
            s.normal(self.rows, self.width) if with_dy else None, s.normal(*state) if with_last else None,
            s.normal(*state) if with_last and cells else None, gates, s.normal(self.rows, self.width) if inner else None,
            s.saved(self.activation, self.rows, self.width), self.w, s.normal(*state) if with_initial else None,
            s.normal(*state) if with_initial and cells else None, self.starts,
        ]  # fmt: skip


def _launches() -> Iterator[tuple[str, _Sizes, bool, tuple[bool, ...]]]:
    """(cell, sizes, reverse, which optional arrays there are): each cell has each combination of these with some sizes."""
    presences = [*itertools.product((True, False), repeat=3)]
    for number, sizes in enumerate(_LAUNCHES):
        for position, (cell, reverse) in enumerate(itertools.product(CELLS, (False, True))):
            if sizes.width < 512 or (cell, reverse) in (("lstm", False), ("gru", True)):  # wide ones take seconds in the emulator
                yield cell, sizes, reverse, presences[(number + position) % len(presences)]


def _label(cell: str, sizes: _Sizes, reverse: bool = False) -> str:
    return f"{cell}, {sizes}{', reverse' * reverse}"


#: At most six registers.
_SPILLS = {("*", "*"): "NVRTC keeps to 40 or 64 registers per thread, for more warps, where a block of 512 threads might take 128"}

recurrence_forward.describe(is_hot=True, spills=_SPILLS)


@recurrence_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for cell, sizes, reverse, (with_b, with_initial, _) in _launches():
        a = _Arrays(s, cell, sizes)
        with_b = with_b and a.row.keeps_hidden
        label = f"{_label(cell, sizes, reverse)}{', b' * with_b}{', initial states' * with_initial}"
        yield label, a.forward(s, with_b, with_initial), a.options(cell, reverse)
    a = _Arrays(s, "lstm", _LAUNCHES[0])
    yield from unaligned(_label("lstm", _LAUNCHES[0]), a.forward(s, False, True), a.options("lstm", False), 0, 1, 2, 3, 4, 5, 7, 8)
    a = _Arrays(s, "gru", _LAUNCHES[0])
    yield from unaligned(_label("gru", _LAUNCHES[0]), a.forward(s, True, True), a.options("gru", False), 6)


@recurrence_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for cell in CELLS:
        a = _Arrays(s, cell, _WHOLE)
        yield _label(cell, _WHOLE), a.forward(s, a.row.keeps_hidden, False), a.options(cell, False)


@recurrence_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    sizes = _Sizes((max(1, s.width // 4),) * 32, s.width)
    a = _Arrays(s, "lstm", sizes)
    yield _label("lstm", sizes), a.forward(s, False, False), a.options("lstm", False)


@recurrence_forward.cost
def _(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, reverse):
    operations = 2.0 * w.size * len(y) + 3 * gates.size + 2 * y.size
    written = num_bytes(gates) if CELLS[cell].keeps_gates else 0
    return Cost(operations, num_bytes(y, hn, cn, gates, inner, w, b, h0, c0, starts) + written)


@recurrence_forward.multiply_adds
def _(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, reverse):
    return w.size * len(y)


recurrence_backward.describe(is_hot=True, spills=_SPILLS)


@recurrence_backward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for cell, sizes, reverse, presence in _launches():
        a = _Arrays(s, cell, sizes)
        given = [name for name, is_given in zip(("dy", "last states", "initial states"), presence) if is_given]
        yield ", ".join([_label(cell, sizes, reverse), *given]), a.backward(s, *presence), a.options(cell, reverse)
    a = _Arrays(s, "lstm", _LAUNCHES[0])
    which = [index for index in range(14) if index != 1]
    yield from unaligned(_label("lstm", _LAUNCHES[0]), a.backward(s, True, True, True), a.options("lstm", False), *which)


@recurrence_backward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for cell in CELLS:
        a = _Arrays(s, cell, _WHOLE)
        yield _label(cell, _WHOLE), a.backward(s, True, False, False), a.options(cell, False)


@recurrence_backward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    sizes = _Sizes((max(1, s.width // 4),) * 32, s.width)
    a = _Arrays(s, "lstm", sizes)
    yield _label("lstm", sizes), a.backward(s, True, False, False), a.options("lstm", False)


@recurrence_backward.cost
def _(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, reverse):
    operations = 2.0 * w.size * len(y) + 6 * dgates.size
    return Cost(operations, num_bytes(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts))


@recurrence_backward.multiply_adds
def _(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, reverse):
    return w.size * len(y)
