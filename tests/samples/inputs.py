"""Inputs of the samples: factories of arrays whose values stay away from kinks and ties.

Values are exact in float32, so that a float32 run and a float64 formula get the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

ROWS = -1  # in a shape: the number of rows, 5 unless a test asks for another


class Input(NamedTuple):
    """An operand of a sample."""

    make: Callable[[numpy.random.Generator, int], numpy.ndarray]  # (generator, number of rows)
    gradient: bool = True  # it requires grad
    has_rows: bool = False  # its shape contains ROWS


def values(
    draw: Callable[[numpy.random.Generator, tuple[int, ...]], Any], shape: tuple[int, ...], **options: Any
) -> Input:
    def make(generator: numpy.random.Generator, rows: int) -> numpy.ndarray:
        array = numpy.asarray(draw(generator, tuple(rows if n == ROWS else n for n in shape)))
        return array.astype(numpy.float32).astype(numpy.float64) if array.dtype.kind == "f" else array

    return Input(make, has_rows=ROWS in shape, **options)


def fixed(array: numpy.ndarray) -> Input:
    """The array itself, without a gradient."""
    return Input(lambda generator, rows: array, gradient=False)


def normal(*shape: int) -> Input:
    return values(lambda generator, s: generator.normal(size=s), shape)


def uniform(low: float, high: float, *shape: int, **options: Any) -> Input:
    return values(lambda generator, s: generator.uniform(low, high, s), shape, **options)


def positive(*shape: int) -> Input:
    return uniform(0.5, 2.0, *shape)


def away(*shape: int, kinks: tuple[float, ...] = (0.0,), margin: float = 0.1) -> Input:
    """Normal numbers at least ``margin`` from every kink; kinks are at least two margins apart."""

    def draw(generator: numpy.random.Generator, s: tuple[int, ...]) -> numpy.ndarray:
        x = 1.5 * generator.normal(size=s)
        for kink in kinks:
            x = numpy.where(numpy.abs(x - kink) < margin, kink + numpy.where(x < kink, -margin, margin), x)
        return x

    return values(draw, shape)


def distinct(*shape: int, offset: float = 0.0) -> Input:
    """A permuted grid of step 0.25: no ties, and with offset 0.125 no ties with a grid of offset 0."""
    return values(
        lambda generator, s: 0.25 * (generator.permutation(math.prod(s)).reshape(s) - math.prod(s) // 2) + offset, shape
    )


def labels(classes: int, *shape: int, dtype: str = "int64", ignored: int | None = None) -> Input:
    """Class labels; with ``ignored``, about 30 % of them have that value."""

    def draw(generator: numpy.random.Generator, s: tuple[int, ...]) -> numpy.ndarray:
        drawn = generator.integers(0, classes, s)
        return numpy.where(generator.random(s) < 0.3, drawn if ignored is None else ignored, drawn).astype(dtype)

    return values(draw, shape, gradient=False)


def matrices(*shape: int) -> Input:
    """Matrices of condition about 3, with different singular values and eigenvalues: small numbers beside a diagonal."""

    def draw(generator: numpy.random.Generator, s: tuple[int, ...]) -> numpy.ndarray:
        return 0.3 * generator.normal(size=s) + numpy.eye(*s[-2:]) * numpy.linspace(1.0, 3.0, s[-1])

    return values(draw, shape)


def probabilities(*shape: int, axis: int = 1) -> Input:
    def draw(generator: numpy.random.Generator, s: tuple[int, ...]) -> numpy.ndarray:
        drawn = generator.random(s)
        return drawn / drawn.sum(axis, keepdims=True)

    return values(draw, shape, gradient=False)


def mask(*shape: int) -> Input:
    return values(lambda generator, s: generator.random(s) < 0.5, shape, gradient=False)


def near_zero(*shape: int) -> Input:
    """Targets in [-0.04, 0.04], smaller than the margin of ``away``: input - target stays away from kinks, too."""
    return uniform(-0.04, 0.04, *shape, gradient=False)


def signs(*shape: int) -> Input:
    """-1 and 1."""
    return values(lambda generator, s: numpy.where(generator.random(s) < 0.5, -1.0, 1.0), shape, gradient=False)
