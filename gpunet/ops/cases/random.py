"""Cases of random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.ops.cases.case import COUNTS, Samples, maker, unaligned

#: (key, counter); the last two overflow into the second word of the counter, in the ninth block and in the first.
STATES = ((0, 0), (2**63 + 12345, 987654321), (7, 2**64 - 9), (7, 2**64 - 1))


def _draws(dtype: Any, *options: dict[str, Any]) -> Iterator[Any]:
    choices = itertools.product((*COUNTS, 5003), STATES, options)
    for count, state, chosen in choices:
        label = f"({count},) from {state}, {', '.join(f'{k} {v}' for k, v in chosen.items())}"
        yield label, [numpy.zeros(count, dtype), numpy.array(state, "uint64")], chosen
    yield from unaligned("(300,)", [numpy.zeros(300, dtype), numpy.array(STATES[0], "uint64")], options[0], 0)


@maker()
def random_uniform(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"low": 0.0, "high": 1.0}, {"low": -1.7, "high": 0.3})


@maker()
def random_normal(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"mean": 0.0, "std": 1.0}, {"mean": 5.1, "std": 0.3})


@maker()
def random_integers(s: Samples) -> Iterator[Any]:
    yield from _draws("int64", {"low": 0, "high": 10}, {"low": -(2**62), "high": 2**62 - 1})


@maker()
def random_bernoulli(s: Samples) -> Iterator[Any]:
    yield from _draws("bool", {"probability": 0.0}, {"probability": 0.3}, {"probability": 1.0})
    first = int(numpy.random.Philox(key=0, counter=0).random_raw(1)[0] >> 40)
    for threshold in (first, first + 1):  # around the first draw: False, then True
        options = {"probability": threshold / 2**24}
        yield f"(7,) with a threshold of {threshold}", [numpy.zeros(7, "bool"), numpy.zeros(2, "uint64")], options


@maker(updates="state")
def random_advance(s: Samples) -> Iterator[Any]:
    for state, blocks in itertools.product(STATES, (1, 300)):
        yield f"{state} by {blocks}", [numpy.array(state, "uint64")], {"blocks": blocks}
