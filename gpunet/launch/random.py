"""Random numbers from the counter-based generator Philox4x64-10, with the same bits on CPU and GPU.

The state of a generator is a buffer of two uint64 on each device, ``(key, counter)``, so a recorded step draws new
numbers at each replay.  Number ``j`` of a launch is made from word ``j % 4`` of block ``counter + 1 + j // 4``, or for booleans
from 32 bits, the low or the high half of a word; the counter then passes the used blocks.  On the CPU, the
words come from NumPy's Philox.

The distributions use only operations that IEEE 754 rounds correctly (+ - * / sqrt), in the same order here and in
``random.cu``, without fused multiply-adds.  Therefore even normal numbers have the same bits on CPU and GPU.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy
from numpy import float64, int64, uint8, uint64

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.backend.gpus import device_count
from gpunet.errors import ArgumentError
from gpunet.launch.kernel import Geometry, ceil_div, elementwise_grid, kernel
from gpunet.launch.loops import Loops, like, load, loop_body, multiply_high, store
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import graph_break

__all__ = ["Generator", "default_generator", "manual_seed", "thread_safe_generator"]

_CHUNK = 16384  # words per pass, so that the temporaries of inverse_normal() stay in the cache


def philox_at(state: numpy.ndarray) -> numpy.random.Philox:
    """The stream at ``state``."""
    return numpy.random.Philox(key=int(state[0]), counter=int(state[1]))


def _words(state: numpy.ndarray, count: int) -> numpy.ndarray:
    """Return the next ``count`` words (uint64) of the stream at ``state``."""
    return philox_at(state).random_raw(count)


def draw_flags(philox: numpy.random.Philox, out: numpy.ndarray, probability: float) -> None:
    """out = u < probability, with u in [0, 1) from the next halves of words, of a multiple of eight numbers but at the end."""
    halves = philox.random_raw(ceil_div(out.size, 2)).view(numpy.uint32)  # the low half of a word stands first
    numpy.less(halves[: out.size], threshold_of(probability), out=out)


def threshold_of(probability: float) -> int:
    """The number of values of 32 bits that count as below ``probability``."""
    return round(probability * 2**32)


@loop_body
def philox_loop(key, counter, block):
    """Philox4x64-10: the four words of block ``block`` (from 0) after ``counter``."""
    multiplier_0, multiplier_1 = uint64(0xD2E7470EE14C6C93), uint64(0xCA5A826395121157)
    weyl_0, weyl_1 = uint64(0x9E3779B97F4A7C15), uint64(0xBB67AE8584CAA73B)
    a = uint64(uint64(counter + uint64(1)) + uint64(block))
    b = uint64(a <= counter)  # carry into the counter's second word
    c = d = uint64(0)
    key_1 = uint64(0)
    for _ in range(10):
        high_a, low_a = multiply_high(multiplier_0, a), uint64(multiplier_0 * a)
        high_c, low_c = multiply_high(multiplier_1, c), uint64(multiplier_1 * c)
        a, b, c, d = high_c ^ b ^ key, low_c, high_a ^ d ^ key_1, low_a
        key = uint64(key + weyl_0)
        key_1 = uint64(key_1 + weyl_1)
    return a, b, c, d


def _draw_geometry(out: Array, state: Array, *scalars: float | numpy.generic) -> Geometry:
    return Geometry(elementwise_grid(ceil_div(out.size, 4)), 256, (numpy.int64(out.size), *scalars))


@kernel("random.cu", outputs=1, types={"state": "uint64"}, reads_values=True)
def random_uniform(out, state, *, low, high, bits):
    """out = low + (high - low) * u, with u in [0, 1) from the top ``bits`` bits of a word: those of T's significand."""
    words = _words(state, out.size)
    flat = out.reshape(-1)
    numpy.multiply(words >> numpy.uint64(64 - bits), out.dtype.type(2.0**-bits), out=flat, casting="unsafe")
    if (low, high) != (0.0, 1.0):
        flat *= out.dtype.type(high - low)
        flat += out.dtype.type(low)


@random_uniform.loops
def _(out, state, *, low, high, bits):
    return Loops(_uniform_loop, (out, state), (out.size, 64 - bits, 2.0**-bits, float(low), float(high)))


@loop_body
def _uniform_loop(out, state, count, shift, unit, low, high):
    key, counter = load(state, 0, 1), load(state, 1, 1)
    is_unit = low == 0.0 and high == 1.0
    for block in range((count + 3) // 4):
        words = philox_loop(key, counter, block)
        for j in range(4):
            if 4 * block + j < count:
                value = like(out, float64(words[j] >> uint64(shift)) * unit)
                store(out, 4 * block + j, value if is_unit else value * like(out, high - low) + like(out, low), 0)
    return 0


def _probability(words: numpy.ndarray) -> numpy.ndarray:
    """Numbers in (0, 1) from words: 52 bits plus 1/2 are exact in float64, so that none is 0 or 1."""
    return ((words >> numpy.uint64(12)) + 0.5) * 2.0**-52


@kernel("random.cu", outputs=1, types={"state": "uint64"}, reads_values=True)
def random_normal(out, state, *, mean, std):
    """out = mean + std * z, with z the inverse normal CDF of one word per element, computed in float64."""
    words = _words(state, out.size)
    flat = out.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        z = inverse_normal(_probability(words[start : start + _CHUNK]))
        z *= float(std)
        z += float(mean)
        flat[start : start + _CHUNK] = z


@kernel("random.cu", outputs=1, types={"state": "uint64"}, reads_values=True)
def random_exponential(out, state, *, rate):
    """out = -log(p) / rate, with p in (0, 1) from one word per element, computed in float64."""
    words = _words(state, out.size)
    flat = out.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        flat[start : start + _CHUNK] = _log(_probability(words[start : start + _CHUNK])) / -float(rate)


@kernel(
    "random.cu", outputs=2, types={"out": "int64", "cumulative": "float64", "state": "uint64"}, reads_values=True,
    workspace="cumulative",
)  # fmt: skip
def random_choice(out, cumulative, weights, state):
    """out[row, j] = the first index whose cumulative weight is above u times their sum, with u in [0, 1) from one word.

    out (rows, samples), weights (rows, n), not negative, with a positive sum; cumulative, of the shape of weights, is scratch.
    """
    numpy.cumsum(weights, axis=1, dtype=numpy.float64, out=cumulative)
    points = (_words(state, out.size) >> numpy.uint64(11)).reshape(out.shape) * 2.0**-53
    for row, point, sums in zip(out, points, cumulative):
        row[:] = numpy.searchsorted(sums, point * sums[-1], side="right")


def _wrapped(high: int) -> int:
    """2^63, the end of all int64, as an int64; the width of a range is computed modulo 2^64."""
    return high - 2**64 if high == 2**63 else high


@kernel("random.cu", outputs=1, types={"out": "int64", "state": "uint64"}, reads_values=True)
def random_integers(out, state, *, low, high):
    """out = low + word % (high - low).  The modulo bias is below (high - low) / 2**64."""
    words = _words(state, out.size)
    out.reshape(-1)[:] = (words % numpy.uint64(high - low)).astype(numpy.int64) + low


@random_integers.loops
def _(out, state, *, low, high):
    half, odd = divmod(int(high) - int(low), 2)  # the width itself may be too large for an int64
    return Loops(_integers_loop, (out, state), (out.size, int(low), half, odd))


@loop_body
def _integers_loop(out, state, count, low, half, odd):
    key, counter = load(state, 0, 1), load(state, 1, 1)
    width = uint64(uint64(half) * uint64(2)) + uint64(odd)
    for block in range((count + 3) // 4):
        words = philox_loop(key, counter, block)
        for j in range(4):
            if 4 * block + j < count:
                store(out, 4 * block + j, int64(words[j] % uint64(width)) + low, 0)
    return 0


@kernel("random.cu", outputs=1, types={"mask": "bool", "state": "uint64"}, reads_values=True)
def random_bernoulli(mask, state, *, probability):
    """mask = u < probability, with u in [0, 1) from 32 bits, half a word."""
    draw_flags(philox_at(state), mask.reshape(-1), probability)


@random_bernoulli.loops
def _(mask, state, *, probability):
    return Loops(_bernoulli_loop, (mask, state), (mask.size, threshold_of(probability)))


@loop_body
def _bernoulli_loop(mask, state, count, threshold):
    key, counter = load(state, 0, 1), load(state, 1, 1)
    for block in range((count + 7) // 8):
        words = philox_loop(key, counter, block)
        for j in range(8):
            if 8 * block + j < count:
                half = (words[j // 2] >> uint64(32 * (j % 2))) & uint64(0xFFFFFFFF)
                store(mask, 8 * block + j, uint8(half < uint64(threshold)), 0)
    return 0


@kernel("random.cu", outputs=1, types={"state": "uint64"}, updates="state")
def random_advance(state, *, blocks):
    """Advance the counter by ``blocks`` blocks of four words."""
    state[1:] += numpy.uint64(blocks)  # on an array, because a NumPy scalar would warn when it overflows


@random_uniform.geometry
def _(out, state, *, low, high, bits):
    return _draw_geometry(out, state, float(low), float(high), bits)


@random_normal.geometry
def _(out, state, *, mean, std):
    return _draw_geometry(out, state, float(mean), float(std))


@random_exponential.geometry
def _(out, state, *, rate):
    return _draw_geometry(out, state, float(rate))


@random_choice.geometry
def _(out, cumulative, weights, state):
    return Geometry(len(weights), 256, (numpy.int64(out.shape[1]), numpy.int64(weights.shape[1])))


@random_integers.geometry
def _(out, state, *, low, high):
    return _draw_geometry(out, state, numpy.int64(low), numpy.int64(_wrapped(high)))


@random_bernoulli.geometry
def _(mask, state, *, probability):
    return Geometry(elementwise_grid(ceil_div(mask.size, 8)), 256, (numpy.int64(mask.size), float(probability)))


@random_advance.geometry
def _(state, *, blocks):
    return Geometry(1, 1, (numpy.uint64(blocks),))


# Inverse of the standard normal CDF: Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988).
# Coefficients of numerator and denominator for the three ranges, lowest power first.
CENTRAL = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _horner(coefficients: Sequence[float], x: numpy.ndarray) -> numpy.ndarray:
    """Evaluate the polynomial with these coefficients (lowest power first) at x."""
    value = numpy.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value


def _log(x: numpy.ndarray) -> numpy.ndarray:
    """Natural logarithm from correctly rounded operations: log(m 2^e) = e log 2 + 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = numpy.frexp(x)  # mantissa in [1/2, 1)
    is_low = mantissa < 0.70710678118654752
    mantissa = numpy.where(is_low, mantissa * 2.0, mantissa)
    exponent = (exponent - is_low).astype(numpy.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner([1.0 / (2 * k + 1) for k in range(11)], s * s)
    return exponent * 0.69314718055994531 + 2.0 * s * series


def inverse_normal(p: numpy.ndarray) -> numpy.ndarray:
    """Return z with P(Z <= z) = p for standard normal Z; p is float64 in (0, 1), the relative error about 1e-15."""
    q = p - 0.5
    r = 0.180625 - q * q
    z = q * (_horner(CENTRAL[0], r) / _horner(CENTRAL[1], r))
    outer = numpy.flatnonzero(numpy.abs(q) > 0.425)
    if outer.size:
        q_outer, p_outer = q[outer], p[outer]
        r = numpy.sqrt(-_log(numpy.where(q_outer < 0.0, p_outer, 1.0 - p_outer)))
        middle, tail = r - 1.6, r - 5.0
        magnitude = numpy.where(
            r <= 5.0,
            _horner(MIDDLE[0], middle) / _horner(MIDDLE[1], middle),
            _horner(TAIL[0], tail) / _horner(TAIL[1], tail),
        )
        z[outer] = numpy.where(q_outer < 0.0, -magnitude, magnitude)
    return z


COPY_STATE = Shim("copy_state", lambda xp, out, state: xp.copyto(out, state), widens=False)


class Streams(NamedTuple):
    """The streams of a generator: its seed, and the state buffers of the devices on which it has drawn."""

    seed: int
    states: dict[Device, Array]


class Share(NamedTuple):
    """Rows of a batch: those of one of several processes."""

    first: int  # the rows before
    rows: int
    total: int  # rows of the whole batch


class _Listeners(threading.local):
    functions: tuple[Callable[[Generator, Device], None], ...] = ()


_listeners = _Listeners()


@contextmanager
def before_draws(function: Callable[[Generator, Device], None]) -> Iterator[None]:
    """Inside the block, this thread calls ``function(generator, device)`` before each draw, after functions of blocks around."""
    before, _listeners.functions = _listeners.functions, (*_listeners.functions, function)
    try:
        yield
    finally:
        _listeners.functions = before


def _new_seed() -> int:
    """A number of 63 bits from the operating system."""
    return int.from_bytes(os.urandom(8), "little") >> 1


class Generator:
    """Random number generator with one stream per device, all started from one seed.

    Args:
        seed: see :meth:`manual_seed`; drawn from the operating system if None.  A device (a name or a ``gpunet.device``) in
            its place is ``device``, as in PyTorch.
        device: the device that ``generator.device`` names; the generator draws on every device.
    """

    def __init__(self, seed: int | str | Device | None = None, device: str | Device | None = None) -> None:
        if isinstance(seed, (str, Device)):
            if device is not None:
                raise ArgumentError(f"Generator({seed!r}, device={device!r}): expected one device; a seed is an integer")
            seed, device = None, seed
        self.device = devices.CPU if device is None else Device(device)
        self._states: dict[Device, Array] = {}
        self.num_seedings = 0  # how often it was seeded
        self.share: Share | None = None
        self.manual_seed(_new_seed() if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Restart the streams of all devices from ``seed``.

        Args:
            seed: integer from -2**63 to 2**64 - 1; a negative seed means seed + 2**64, as in PyTorch.

        Raises:
            ArgumentError: seed is not an integer in this range.
            CaptureError: called inside a recorded step.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, numpy.integer)) or not -(2**63) <= seed < 2**64:
            raise ArgumentError(f"seed {seed!r}: expected an integer from -2**63 to 2**64 - 1")
        graph_break("seeding random numbers", "seed before the step; its replays continue the stream")
        self._seed = int(seed) % 2**64
        self._num_substreams = 0
        self.num_seedings += 1
        for where in self._states:
            self.set_position(self._seed, 0, where)
        return self

    def next_substream(self) -> int:
        """Return 0 at the first call since the generator was seeded, then 1, and so on.

        Objects that derive random numbers from the seed alone, such as data loaders, are told apart by it.
        """
        self._num_substreams += 1
        return self._num_substreams - 1

    def exchange(self, streams: Streams) -> Streams:
        """Continue with other streams; return the streams so far, for a later call."""
        graph_break("exchanging the state of random numbers", "do it before the step")
        previous = Streams(self._seed, self._states)
        self._seed, self._states = streams
        return previous

    def initial_seed(self) -> int:
        """Return the seed that the streams were started from."""
        return self._seed

    def state(self, where: Device) -> Array:
        """Return the state buffer on a device: uint64 (2,), the key and the counter."""
        if where not in self._states:
            self.set_position(self._seed, 0, where)
        return self._states[where]

    def state_for_launch(self, where: Device) -> Array:
        """Return :meth:`state` for a draw, on which the active recording, if any, relies from now on."""
        for function in _listeners.functions:
            function(self, where)
        return self._recorded_state(where)

    def _recorded_state(self, where: Device) -> Array:
        state = self.state(where)
        rely_on([state])
        return state

    def position(self, where: Device = devices.CPU) -> tuple[int, int]:
        """Return (key, counter) of the stream on a device, as a checkpoint stores them."""
        key, counter = devices.move(self.state(where), devices.CPU)
        return int(key), int(counter)

    def set_position(self, key: int, counter: int, where: Device = devices.CPU) -> None:
        """Continue the stream on a device from (key, counter).

        The state buffer is written in place, so recorded steps use the new state.
        """
        value = numpy.array([key, counter], numpy.uint64)
        if where not in self._states:
            self._states[where] = devices.move(value, where)
        else:
            graph_break("setting the state of random numbers", "set it before the step; its replays continue the stream")
            devices.assign(self._states[where], devices.move(value, where))

    def positions(self) -> dict[Device, tuple[int, int]]:
        """Return :meth:`position` on each device on which numbers were drawn, and that of the seed on the CPU."""
        return {where: self.position(where) for where in (devices.CPU, *self._states)}

    def set_positions(self, positions: dict[Device, tuple[int, int]]) -> None:
        """Continue the streams from :meth:`positions`; those of other devices start again from the seed of then."""
        self._seed = positions[devices.CPU][0]
        for where in {*positions, *self._states}:
            self.set_position(*positions.get(where, (self._seed, 0)), where)

    def mark(self, where: Device) -> Array:
        """Return a copy of the state buffer on a device, for :meth:`repeat`; in a recorded step, replays copy it anew."""
        state = self._recorded_state(where)
        copied = empty(state.shape, state.dtype, state)
        COPY_STATE(copied, state)
        return copied

    @property
    def drawn_on(self) -> set[Device]:
        """The devices on which the generator has drawn."""
        return set(self._states)

    def mark_of_start(self, where: Device) -> Array:
        """Return a copy of the state that a device had before the first draw on it, for :meth:`repeat`.

        Raises:
            CaptureError: called inside a recorded step, whose replays draw more numbers.
        """
        graph_break(f"the first random numbers on {where}, which are drawn inside of checkpoint()", "draw one before the step")
        return devices.move(numpy.array([self._seed, 0], numpy.uint64), where)

    @contextmanager
    def repeat(self, mark: Array) -> Iterator[None]:
        """Draw again, inside the block, what was drawn after :meth:`mark`; then continue as if nothing had been drawn."""
        where = devices.of(mark)
        now = self.mark(where)
        COPY_STATE(self.state(where), mark)
        try:
            yield
        finally:
            COPY_STATE(self.state(where), now)

    def seed(self) -> int:
        """Seed the generator from the operating system; return the seed."""
        self.manual_seed(_new_seed())
        return self._seed

    def host_generator(self) -> numpy.random.Generator:
        """Return a NumPy generator, seeded by the next words of the CPU's stream, for draws that take an unknown number of words.

        Raises:
            CaptureError: called inside a recorded step, whose replays would not repeat what NumPy draws.
        """
        graph_break("drawing from this distribution, which NumPy does on the CPU,", "draw before the step, and pass it the numbers")
        words = numpy.empty(4, numpy.int64)
        self.fill(random_integers, words, low=0, high=2**62)
        return numpy.random.Generator(numpy.random.Philox(numpy.random.SeedSequence(words.tolist())))

    @contextmanager
    def sharing(self, first: int, rows: int, total: int) -> Iterator[None]:
        """Inside the block each draw takes, of the numbers for a batch, those for some of its rows, and passes the numbers for all.

        So what a process draws for its rows of a batch are the numbers that one process draws for these rows.

        Args:
            first: rows of the batch before.
            rows: 1 or more; a tensor of n numbers has n / rows of them for each row, row by row.
            total: rows of the batch.
        """
        before, self.share = self.share, Share(first, rows, total)
        try:
            yield
        finally:
            self.share = before

    def num_before(self, size: int, per_block: int) -> int:
        """How many numbers in the first block of a draw of ``size`` numbers are for the rows before (see :meth:`sharing`)."""
        return 0 if self.share is None else ceil_div(size, self.share.rows) * self.share.first % per_block

    def position_of_share(self, state: Array, size: int, per_block: int, per_advance: int) -> Array:
        """Return the position of the block that a draw of ``size`` numbers begins in, and pass the numbers for all rows.

        Args:
            per_block: numbers that the launch draws from a block.
            per_advance: numbers for which the stream advances by a block.
        """
        assert self.share is not None
        per_row = ceil_div(size, self.share.rows)
        position = empty(state.shape, state.dtype, state)
        COPY_STATE(position, state)
        random_advance(position, blocks=per_row * self.share.first // per_block)
        random_advance(state, blocks=ceil_div(per_row * self.share.total, per_advance))
        return position

    def rewind(self, mark: Array) -> None:
        """Continue from a :meth:`mark`."""
        COPY_STATE(self._recorded_state(devices.of(mark)), mark)

    def fill(self, draw: Any, out: Array, *arrays: Array, per_advance: int = 4, **options: Any) -> None:
        """Fill ``out`` by launching ``draw``, one of the ``random_*`` kernels, and advance the counter.

        Args:
            arrays: those between ``out`` and the state of the generator.
            per_advance: numbers for which the stream advances by a block.
        """
        state = self.state_for_launch(devices.of(out))
        with numpy.errstate(all="ignore"):  # a number outside the range of a half is infinite
            if self.share is None:
                draw(out, *arrays, state, **options)
                random_advance(state, blocks=ceil_div(out.size, per_advance))
                return
            per_block = 8 if draw is random_bernoulli else 4
            position = self.position_of_share(state, out.size, per_block, per_advance)
            before = self.num_before(out.size, per_block)
            if arrays or not before:  # a draw by weights takes the numbers from the start of the block
                draw(out, *arrays, position, **options)
                return
            wide = empty((before + out.size,), out.dtype, out)
            draw(wide, position, **options)
            COPY_STATE(out, wide[before:].reshape(out.shape))


default_generator = Generator()


def seed_gpus(seed: int, indices: Sequence[int] | None = None) -> None:
    """Seed the default generator on these GPUs, or on all; without a GPU the seed is only checked."""
    generator = Generator(seed)
    for index in range(device_count()) if indices is None else indices:
        default_generator.set_position(generator.initial_seed(), 0, Device("cuda", index))


def manual_seed(seed: int) -> Generator:
    """Seed the default generator on all devices; the same seed gives the same bits on CPU and GPU."""
    return default_generator.manual_seed(seed)


def thread_safe_generator() -> Generator | None:
    """Return None, for functions whose ``generator`` it is: workers of data loaders are processes with a generator each."""
    return None
