"""Cases of random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.backend.dtypes import significand_bits
from gpunet.launch.facts import Cost, num_bytes
from gpunet.launch.random import (
    random_advance,
    random_bernoulli,
    random_choice,
    random_exponential,
    random_integers,
    random_normal,
    random_uniform,
)
from gpunet.ops.cases.case import COUNTS, Samples, unaligned

#: (key, counter); the last two overflow into the second word of the counter, in the ninth block and in the first.
STATES = ((0, 0), (2**63 + 12345, 987654321), (7, 2**64 - 9), (7, 2**64 - 1))


def first_half() -> int:
    """The first number of 32 bits from the first of the states."""
    return int(numpy.random.Philox(key=0, counter=0).random_raw(1)[0] & 0xFFFFFFFF)


def _draws(dtype: Any, *options: dict[str, Any]) -> Iterator[Any]:
    choices = itertools.product((*COUNTS, 5003), STATES, options)
    for count, state, chosen in choices:
        label = f"({count},) from {state}, {', '.join(f'{k} {v}' for k, v in chosen.items())}"
        yield label, [numpy.zeros(count, dtype), numpy.array(state, "uint64")], chosen
    yield from unaligned("(300,)", [numpy.zeros(300, dtype), numpy.array(STATES[0], "uint64")], options[0], 0)


def _whole_draw(s: Samples, dtype: Any, **options: float) -> Any:
    return f"({s.width**2},)", [s.blank(s.width**2, dtype=dtype), numpy.array([7, 1], "uint64")], options


@random_uniform.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    bits = significand_bits(s.dtype)
    yield from _draws(s.dtype, {"low": 0.0, "high": 1.0, "bits": bits}, {"low": -1.7, "high": 0.3, "bits": bits})


@random_uniform.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_draw(s, s.dtype, low=0.0, high=1.0, bits=significand_bits(s.dtype))


@random_uniform.cost
def _(out, state, *, low, high, bits):
    return Cost(2 * out.size, num_bytes(out, state))


@random_uniform.equivalent
def _(torch, out, state, *, low, high, bits):
    return lambda: out.uniform_(low, high)


@random_normal.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"mean": 0.0, "std": 1.0}, {"mean": 5.1, "std": 0.3})


@random_normal.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_draw(s, s.dtype, mean=0.0, std=1.0)


@random_normal.cost
def _(out, state, *, mean, std):
    return Cost(4 * out.size, num_bytes(out, state))  # the probability, the inverse CDF, its scale and shift


@random_normal.equivalent
def _(torch, out, state, *, mean, std):
    return lambda: out.normal_(mean, std)


@random_exponential.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"rate": 1.0}, {"rate": 0.3})


@random_exponential.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_draw(s, s.dtype, rate=1.0)


@random_exponential.cost
def _(out, state, *, rate):
    return Cost(3 * out.size, num_bytes(out, state))  # the probability, its logarithm, the division


@random_exponential.equivalent
def _(torch, out, state, *, rate):
    return lambda: out.exponential_(rate)


random_choice.describe(waste={"reads": "each sample searches the sums of its row, one element of a sector at a time"})


def _choice(weights: Any, samples: int, state: tuple[int, int]) -> list[Any]:
    rows = len(weights)
    return [numpy.zeros((rows, samples), "int64"), numpy.zeros(weights.shape), weights, numpy.array(state, "uint64")]


@random_choice.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (rows, n, samples), state in zip(((1, 1, 3), (2, 7, 5), (3, 300, 1), (1, 2, 600), (4, 33, 258)), itertools.cycle(STATES)):
        weights = s.positive(rows, n)
        yield f"({rows}, {n}), {samples} samples", _choice(weights, samples, state), {}
    weights = s.blank(2, 5)
    weights[0, 3], weights[1, :] = 2, 1  # all but one weight are 0; and equal weights
    yield "zeros", _choice(weights, 40, STATES[0]), {}
    if s.dtype == "float64":  # the first cumulative weight is exactly the first point, which belongs to the second index
        point = float(numpy.random.Philox(key=0, counter=0).random_raw(1)[0] >> 11) * 2.0**-53
        yield "a tie", _choice(numpy.array([[point, 1.0 - point]]), 1, STATES[0]), {}


@random_choice.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    rows = max(1, s.width**2 // 128)
    yield f"({rows}, 128), 64 samples", _choice(s.positive(rows, 128), 64, (7, 1)), {}


@random_choice.cost
def _(out, cumulative, weights, state):
    searched = 8 * out.size * weights.shape[1].bit_length()
    return Cost(weights.size, num_bytes(out, cumulative, weights, state) + searched)


@random_choice.equivalent
def _(torch, out, cumulative, weights, state):
    return lambda: torch.multinomial(weights, out.shape[1], replacement=True)


random_integers.describe(
    waste={"writes": "the four int64 of a thread take two 16-byte stores of half a sector each, which the L2 cache merges"}
)


@random_integers.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    yield from _draws("int64", {"low": 0, "high": 10}, {"low": -(2**62), "high": 2**62 - 1}, {"low": 5, "high": 2**63})


@random_integers.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_draw(s, "int64", low=0, high=10)


@random_integers.cost
def _(out, state, *, low, high):
    return Cost(0.0, num_bytes(out, state))


@random_integers.equivalent
def _(torch, out, state, *, low, high):
    return lambda: out.random_(low, high)


@random_bernoulli.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    yield from _draws("bool", {"probability": 0.0}, {"probability": 0.3}, {"probability": 1.0})
    for threshold in (first_half(), first_half() + 1):  # around the first number: False, then True
        options = {"probability": threshold / 2**32}
        yield f"(7,) with a threshold of {threshold}", [numpy.zeros(7, "bool"), numpy.zeros(2, "uint64")], options


@random_bernoulli.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_draw(s, "bool", probability=0.3)


@random_bernoulli.cost
def _(mask, state, *, probability):
    return Cost(0.0, num_bytes(mask, state))


@random_bernoulli.equivalent
def _(torch, mask, state, *, probability):
    return lambda: mask.bernoulli_(probability)


@random_advance.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for state, blocks in itertools.product(STATES, (1, 300)):
        yield f"{state} by {blocks}", [numpy.array(state, "uint64")], {"blocks": blocks}


@random_advance.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield "1 block", [numpy.array([7, 1], "uint64")], {"blocks": 1}


@random_advance.cost
def _(state, *, blocks):
    return Cost(0.0, num_bytes(state))  # reads and writes the counter
