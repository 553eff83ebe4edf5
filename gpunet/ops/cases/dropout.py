"""Cases of dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import COUNTS, Samples, unaligned
from gpunet.ops.cases.random import STATES, first_half
from gpunet.ops.dropout import dropout_apply, dropout_drawn


def _drawn(s: Samples, count: int, state: tuple[int, int], advances: bool, is_marked: bool) -> list[Any]:
    start, ticket = (numpy.zeros(2, "uint64") if is_marked else None), (numpy.zeros(1, "uint32") if advances else None)
    return [s.blank(count), start, numpy.array(state, "uint64"), ticket, s.normal(count)]


@dropout_drawn.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    options = {"probability": 0.8, "scale": 1.25, "advances": True}
    for count in (*COUNTS, 4099):
        for state in STATES:
            yield f"({count},) from {state}", _drawn(s, count, state, True, True), options
        yield f"({count},), no copy of the state", _drawn(s, count, STATES[1], True, False), options
        yield f"({count},) again", _drawn(s, count, STATES[1], False, False), options | {"advances": False}
    for probability in (0.0, 1.0):
        yield f"(9,) with {probability:g}", _drawn(s, 9, STATES[1], True, True), options | {"probability": probability}
    for threshold in (first_half(), first_half() + 1):  # around the first number: dropped, then kept
        label = f"(7,) with a threshold of {threshold}"
        yield label, _drawn(s, 7, STATES[0], True, True), options | {"probability": threshold / 2**32}
    yield from unaligned("(300,)", _drawn(s, 300, STATES[1], True, True), options)


@dropout_drawn.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    options = {"probability": 0.5, "scale": 2.0, "advances": True}
    yield f"({s.width**2},)", _drawn(s, s.width**2, (7, 1), True, True), options


@dropout_drawn.cost
def _(y, start, state, ticket, x, *, probability, scale, advances):
    return Cost(y.size, num_bytes(y, start, state, x))


@dropout_drawn.equivalent
def _(torch, y, start, state, ticket, x, *, probability, scale, advances):
    return lambda: torch.nn.functional.dropout(x, 1.0 - probability)


@dropout_apply.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        mask = s.random.random(count) < 0.5
        yield f"({count},)", [s.blank(count), s.normal(count), mask], {"scale": 1.25}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300), s.random.random(300) < 0.5], {"scale": 1.25})


@dropout_apply.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    count = s.width**2
    yield f"({count},)", [s.blank(count), s.normal(count), s.random.random(count) < 0.5], {"scale": 2.0}


@dropout_apply.cost
def _(y, x, mask, *, scale):
    return Cost(y.size, num_bytes(y, x, mask))


@dropout_apply.equivalent
def _(torch, y, x, mask, *, scale):
    return lambda: torch.ops.aten.native_dropout_backward(x, mask, scale)
