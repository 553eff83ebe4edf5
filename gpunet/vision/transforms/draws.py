"""Random numbers of transforms: a row for each sample of a batch.

They come from the default generator.  Within :class:`keyed` they are a function of (seed, epoch, sample) alone: the counter-based
generator Philox2x32-10, whose rounds are ops on int64 tensors, with the same bits on every device and in captured steps.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from gpunet.autograd import Tensor, no_grad, wrap
from gpunet.backend.dtypes import is_integer
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.random import default_generator
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active, graph_break
from gpunet.ops.creation import arange
from gpunet.ops.face import as_integer
from gpunet.ops.join import stack
from gpunet.ops.random import rand, randn

__all__ = ["keyed"]

_WORD = 0xFFFFFFFF


def _philox(first: Any, second: Any, key: Any) -> tuple[Any, Any]:
    """Two words of 32 bits for a counter of two words and a key of one, all in int64."""
    for _ in range(10):
        product = first * 0xD256D193  # the 64 bits of the product, read as signed
        first, second = ((product // 2**32) & _WORD) ^ key ^ second, product & _WORD
        key = (key + 0x9E3779B9) & _WORD
    return first, second


class _Active(threading.local):
    """The innermost :class:`keyed` of this thread."""

    keys: keyed | None = None


_innermost = _Active()


class keyed:
    """Within this context the random numbers of transforms depend on (seed, epoch, sample) alone.

        with transforms.keyed(index, epoch=epoch):
            images = augment(images)

    A sample is augmented alike in any batch, at any place in it, on any device.  What combines samples, MixUp and CutMix, mixes
    each with its neighbour in the batch by a share that is keyed.  In a captured step the context stands inside of the step, and
    the indices are an argument; so is the epoch, as a tensor, or else each epoch makes a recording of its own.

    Args:
        index: the samples of the batch, int64 (batch,), or an integer for a single image.
        epoch: an integer, or an integer tensor of one element.
        seed: an integer; by default that of ``gpunet.manual_seed``.

    Raises:
        DtypeError: the indices or the epoch are no integers.
        ShapeError: (at a transform) there are not as many indices as samples.
    """

    def __init__(self, index: Any, epoch: Any = 0, seed: int | None = None) -> None:
        for name, value in (("index", index), ("epoch", epoch)):
            if not is_integer(wrap(value, "keyed").dtype):
                raise DtypeError(f"keyed: {name} of dtype {wrap(value).dtype}; expected integers")
        self._index = wrap(index, "keyed").reshape(-1).to("int64")
        self._epoch = wrap(epoch, "keyed").reshape(-1).to("int64")
        if self._epoch.shape != (1,):
            raise ShapeError(f"keyed: epoch has {self._epoch.numel()} elements; expected one")
        self._seed = None if seed is None else as_integer("keyed", "seed", seed)
        self._num_drawn = 0
        self._path: tuple[tuple[int, int], ...] = ()  # of each choice around: the number drawn before its option, and the option
        self._tape: Any = None

    def __enter__(self) -> keyed:
        self._outer, _innermost.keys = _innermost.keys, self
        self._num_drawn, self._path, self._tape = 0, (), active.tape
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _innermost.keys = self._outer

    def words(self, samples: int, count: int, device: Any) -> Any:
        """The next ``count`` words of each sample, int64 (samples, count) in 0 .. 2^32 - 1."""
        if active.tape is not self._tape:
            graph_break("a transform within keyed()", "move `with keyed(...)` into the step, and pass the indices to it")
        if self._index.shape != (samples,):
            raise ShapeError(f"keyed: {self._index.numel()} indices for a batch of {samples} samples; expected one for each")
        seed = self._seed
        if seed is None:
            seed = default_generator.initial_seed()
            rely_on((), "{}() == {}", (default_generator.initial_seed, seed), "the seed of the default generator")
        word = seed & _WORD
        for place, option in self._path:
            word = _philox(place & _WORD, option, word)[0]
        epoch: Any = self._epoch.to(device)
        index: Any = self._index.to(device)
        key = _philox(epoch & _WORD, ((epoch // 2**32) & _WORD) ^ ((seed >> 32) & _WORD), word)[0]
        pairs = math.ceil(count / 2)
        places = arange(self._num_drawn, self._num_drawn + pairs, device=device)
        self._num_drawn += pairs
        found = _philox((index & _WORD).reshape(-1, 1), places.reshape(1, -1), key)
        return stack(list(found), 2).reshape(samples, 2 * pairs)[:, :count]


def _current() -> keyed | None:
    return _innermost.keys


def _keys() -> keyed | None:
    keys = _innermost.keys
    if keys is None or keys._tape is not active.tape:
        rely_on((), "{}() is {}", (_current, keys), "the context transforms.keyed around the step")
    return keys


def is_keyed() -> bool:
    """Whether a :class:`keyed` is active."""
    return _keys() is not None


@contextlib.contextmanager
def branch(option: int) -> Iterator[None]:
    """Give an option of a choice keyed numbers of its own, so that they do not depend on the other options' being computed."""
    keys = _innermost.keys
    if keys is None:
        yield
        return
    before = keys._num_drawn, keys._path
    keys._num_drawn, keys._path = 0, (*keys._path, (keys._num_drawn, option))
    try:
        yield
    finally:
        keys._num_drawn, keys._path = before


@no_grad()
def uniform(samples: int, count: int, device: Any) -> Tensor:
    """Numbers in [0, 1), float32 (samples, count)."""
    keys = _keys()
    if keys is None:
        return rand(samples, count, dtype="float32", device=device)
    return (keys.words(samples, count, device) // 256).to("float32") * 2.0**-24


@no_grad()
def normal(samples: int, count: int, device: Any) -> Tensor:
    """Standard normal numbers, float32 (samples, count)."""
    if _keys() is None:
        return randn(samples, count, dtype="float32", device=device)
    half = math.ceil(count / 2)
    u = uniform(samples, 2 * half, device)
    radius, angle = (-2 * (1 - u[:, :half]).log()).sqrt(), 2 * math.pi * u[:, half:]  # Box and Muller (1958)
    return stack([radius * angle.cos(), radius * angle.sin()], 2).reshape(samples, 2 * half)[:, :count]
