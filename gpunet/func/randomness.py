"""Random numbers in functions that are called for several samples: refused, or the same for each sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpunet.backend.devices import Array, Device
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator, before_draws

CHOICES = ("error", "different", "same")


def check_randomness(transform: str, randomness: Any) -> None:
    """Raise an ArgumentError if ``randomness`` is not one of the words."""
    if randomness not in CHOICES:
        raise ArgumentError(f"{transform}: randomness={randomness!r}; expected 'error', 'different' or 'same'")


@contextmanager
def refusing_draws(transform: str, way_out: str) -> Iterator[None]:
    """Inside the block, random numbers raise an ArgumentError.

    Args:
        way_out: what to pass instead, for the message.
    """

    def refuse(generator: Generator, where: Device) -> None:
        raise ArgumentError(
            f"{transform}: func draws random numbers, and randomness='error'; pass {way_out}, or draw outside and pass the numbers"
        )

    with before_draws(refuse):
        yield


class SameDraws:
    """Lets the calls of a function draw the same numbers: each continues every generator from where the first call began."""

    def __init__(self) -> None:
        self._marks: dict[tuple[Generator, Device], Array] = {}
        self._drawn: set[tuple[Generator, Device]] = set()  # in the present call

    @contextmanager
    def call(self) -> Iterator[None]:
        """Inside the block is one of the calls."""
        self._drawn = set()
        with before_draws(self._before_draw):
            yield

    def _before_draw(self, generator: Generator, where: Device) -> None:
        key = generator, where
        if key in self._drawn:
            return
        self._drawn.add(key)
        if key in self._marks:
            generator.rewind(self._marks[key])
        else:
            self._marks[key] = generator.mark(where)
