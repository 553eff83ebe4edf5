"""Cases of the kernels of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.cases.case import LARGE_SIZES, SIZES, WHOLE_SIZE, Samples, maker, unaligned

_PRESENCE = tuple(itertools.product((True, False), repeat=2))


def _products() -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(activation, size): every activation with both tile sizes, and every size."""
    yield from zip(itertools.cycle(("tanh", "identity")), SIZES)
    yield from itertools.product(ACTIVATIONS, ((64, 68, 32), LARGE_SIZES[0]))
    yield "identity", LARGE_SIZES[1]


@maker()
def linear_forward(s: Samples) -> Iterator[Any]:
    for (name, (n, o, i)), (with_z, with_b) in zip(_products(), itertools.cycle(_PRESENCE)):
        z, b = s.blank(n, o) if with_z else None, s.normal(o) if with_b else None
        label = f"{name} ({n}, {i}) -> ({n}, {o}){', z' * with_z}{', b' * with_b}"
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield label, [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), b], options
    n, o, i = WHOLE_SIZE
    arrays = [s.blank(n, o), s.blank(n, o), s.normal(n, i), s.normal(o, i), s.normal(o)]
    yield from unaligned(f"({n}, {i}) -> ({n}, {o})", arrays, {"activation": "identity", "alpha": 0.0})


@maker()
def linear_backward_input(s: Samples) -> Iterator[Any]:
    for name, (n, i, o) in _products():
        saved = s.saved(name, n, i) if name != "identity" else None
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield f"{name} ({n}, {o}) -> ({n}, {i})", [s.blank(n, i), s.normal(n, o), s.normal(o, i), saved], options
    n, i, o = WHOLE_SIZE
    arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved("tanh", n, i)]
    yield from unaligned(f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": "tanh", "alpha": 0.0})


@maker()
def linear_backward_weight(s: Samples) -> Iterator[Any]:
    for (o, i, n), (leave_out, scaled) in zip(
        (*SIZES, *SIZES, *LARGE_SIZES), itertools.cycle(itertools.product(("", "dw", "db"), (True, False)))
    ):
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"({n}, {o}), ({n}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(n, o), s.normal(n, i), s.positive(1) if scaled else None], {}
    o, i, n = WHOLE_SIZE
    arrays = [s.blank(o, i), s.blank(o), s.normal(n, o), s.normal(n, i), s.positive(1)]
    yield from unaligned(f"({n}, {o}), ({n}, {i})", arrays, {})


@maker()
def linear_backward_weight_partial(s: Samples) -> Iterator[Any]:
    for (o, i, n), slices in zip((*SIZES, (65, 64, 300)), (1, 4, 3, 7, 2, 64, 2, 2, 8)):
        label = f"({n}, {o}), ({n}, {i}) in {slices} slices"
        yield label, [s.blank(slices, o * i + o), s.normal(n, o), s.normal(n, i)], {"slices": slices}
    arrays = [s.blank(2, 8 * 4 + 8), s.normal(5, 8), s.normal(5, 4)]
    yield from unaligned("(5, 8), (5, 4) in 2 slices", arrays, {"slices": 2}, 0)


@maker()
def linear_backward_weight_reduce(s: Samples) -> Iterator[Any]:
    choices = itertools.product(((1, 1, 1), (7, 63, 65), (65, 7, 2), (129, 300, 5)), ("", "dw", "db"), (True, False))
    for (o, i, slices), leave_out, scaled in choices:
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"{slices} of ({o}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(slices, o * i + o), s.positive(1) if scaled else None], {}
    yield "2 of (63, 65) by 3 blocks", [s.blank(63, 65), s.blank(63), s.normal(2, 63 * 66), None], {}, 3
