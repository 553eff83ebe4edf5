"""Random numbers of data loaders: a function of (seed, epoch, index of the sample), whoever computes the sample.

``__getitem__`` may draw from the global generators of gpunet, NumPy and ``random``.  Before each sample they are seeded from a
hash of the key, so neither the number of workers nor the batch size nor what the main process draws meanwhile has an influence.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy

from gpunet.launch.random import Streams, default_generator


class Key(NamedTuple):
    """The origin of all random numbers of a loader: the seed of its generator, and its number among that generator's loaders."""

    seed: int
    substream: int

    def digest(self, *path: Any) -> bytes:
        """Return 20 bytes for what ``path`` names, such as ("sample", epoch, index)."""
        return hashlib.blake2b(repr((*self, *path)).encode(), digest_size=20).digest()

    def seed_of(self, *path: Any) -> int:
        """Return a seed of 64 bits for what ``path`` names."""
        return int.from_bytes(self.digest(*path)[:8], "little")


def seed_globals(digest: bytes) -> None:
    """Seed the global generators of gpunet (on every device), NumPy and ``random``."""
    default_generator.exchange(Streams(int.from_bytes(digest[:8], "little"), {}))
    numpy.random.seed(int.from_bytes(digest[8:12], "little"))  # noqa: NPY002 (the generator that users' transforms draw from)
    random.seed(int.from_bytes(digest[12:], "little"))


class _States(NamedTuple):
    """The states of the global generators."""

    streams: Streams
    numpy: Any
    python: Any


def _exchange_states(states: _States | None) -> _States:
    """Continue with ``states``, if they are given; return the states so far."""
    previous = _States(
        default_generator.exchange(Streams(0, {}) if states is None else states.streams),
        numpy.random.get_state(legacy=False),  # noqa: NPY002
        random.getstate(),
    )
    if states is not None:
        numpy.random.set_state(states.numpy)  # noqa: NPY002
        random.setstate(states.python)
    return previous


@contextmanager
def preserved_globals() -> Iterator[None]:
    """On exit the global generators continue as if nothing had been drawn."""
    outer = _exchange_states(None)
    try:
        yield
    finally:
        _exchange_states(outer)


class OwnRandomness:
    """Global generators for code that runs in pieces, such as the iterator of a sampler: seeded once, apart from all else.

        own = OwnRandomness(key.digest("order", epoch))
        with own:
            first = next(iterator)
        with own:
            second = next(iterator)  # continues the random numbers
    """

    def __init__(self, digest: bytes) -> None:
        self._digest: bytes | None = digest
        self._states: _States | None = None

    def __enter__(self) -> None:
        self._outer = _exchange_states(self._states)
        if self._digest is not None:
            seed_globals(self._digest)
            self._digest = None

    def __exit__(self, *exception: object) -> None:
        self._states = _exchange_states(self._outer)
