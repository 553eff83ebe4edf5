"""``Sample``, a row of the table, and the functions that add rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from tests.samples.inputs import Input

SAME = "same"


class Sample(NamedTuple):
    """A row of the table."""

    op: str  # the name of the op that must be in the graph
    name: str
    call: Callable[..., Any]  # of gpunet tensors
    formula: Callable[..., Any]  # of float64 arrays
    inputs: tuple[Input, ...]
    torch: Callable[..., Any] | None  # of (torch, *tensors)
    second: bool  # the second derivative is correct, too
    takes_halves: bool

    def arrays(self, seed: int = 0, rows: int = 5) -> list[numpy.ndarray]:
        generator = numpy.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return [given.make(generator, rows) for given in self.inputs]

    @property
    def has_rows(self) -> bool:
        return any(given.has_rows for given in self.inputs)


SAMPLES: list[Sample] = []


def row(
    op: str, call: Any, formula: Any, *inputs: Input, torch: Any = None, name: str = "", second: bool = True,
    takes_halves: bool = True,
) -> None:  # fmt: skip
    """Add a row; ``name`` distinguishes the rows of an op."""
    oracle = torch
    if torch == SAME:
        oracle = lambda module, *tensors: call(*tensors)  # noqa: E731
    elif isinstance(torch, str):
        oracle = lambda module, *tensors: getattr(module, torch)(*tensors)  # noqa: E731
    number = sum(sample.op == op for sample in SAMPLES)
    SAMPLES.append(Sample(op, f"{op}-{name or number}", call, formula, inputs, oracle, second, takes_halves))


def same(op: str, call: Any, *inputs: Input, name: str = "", second: bool = True) -> None:
    """Add a row whose call is also its formula and its PyTorch function."""
    row(op, call, call, *inputs, torch=SAME, name=name, second=second)
