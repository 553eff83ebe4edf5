"""Random numbers: tensors of samples, choices by weight, and the state of the generators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet import autograd
from gpunet.autograd import Tensor, contiguous, make_tensor
from gpunet.autograd.data import convert_number
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.random import (
    Generator,
    default_generator,
    random_choice,
    random_exponential,
    random_integers,
    random_normal,
    random_uniform,
)
from gpunet.launch.tape import active
from gpunet.ops.broadcast import broadcast_shape, cast
from gpunet.ops.compare import compare
from gpunet.ops.creation import allocate, count_of, creates, number_of, shape_of, takes_like
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, public

__all__ = [
    "bernoulli", "get_rng_state", "initial_seed", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


def _floating(function: str, dtype: Any, takes_complex: bool = False) -> Any:
    """The dtype of random numbers; None is the default dtype."""
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not (dtypes.is_floating(dtype) or (takes_complex and dtypes.is_complex(dtype))):
        raise DtypeError(f"{function}: dtype={dtype}; expected a floating {'or complex ' if takes_complex else ''}dtype")
    return dtype


def _parts(x: Tensor) -> Any:
    """The numbers of a new tensor to be filled with samples: of a complex one, the real and imaginary parts."""
    return devices.real_view(x.array) if dtypes.is_complex(x.dtype) else x.array


def generator_of(function: str, generator: Any) -> Generator:
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise DtypeError(f"{function}: generator={generator!r} has type {type(generator).__name__}; expected a gpunet.Generator")
    return generator


# ---- tensors of samples -------------------------------------------------------------------------------------------------


@creates
def rand(*args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Samples of the uniform distribution on [0, 1); of a complex dtype, both parts are."""
    return uniform_samples("rand", shape_of("rand", args, size), dtype, device, generator)


@creates
def randn(*args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Samples of the standard normal distribution; of a complex dtype, both parts have the variance 1/2."""
    return normal_samples("randn", shape_of("randn", args, size), dtype, device, generator)


@creates
@takes_like
def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Samples of the uniform distribution on [0, 1), with the shape, dtype and device of ``input``."""
    return uniform_samples("rand_like", input.array.shape, dtype, device, generator)


@creates
@takes_like
def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Samples of the standard normal distribution, with the shape, dtype and device of ``input``."""
    return normal_samples("randn_like", input.array.shape, dtype, device, generator)


@creates
@takes_like
def randint_like(
    input: Tensor, low: Any = None, high: Any = None, *, generator: Generator | None = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Uniform random integers: ``randint_like(x, high)`` in [0, high) or ``randint_like(x, low, high)`` in [low, high).

    The shape is that of ``input``, and the dtype and device by default.

    Raises:
        ArgumentError: no bound, an empty range, or the dtype cannot hold it.
    """
    if low is None and high is None:
        raise ArgumentError("randint_like: high is missing; expected randint_like(input, high) or randint_like(input, low, high)")
    bounds = (0, low) if high is None else (0 if low is None else low, high)
    return randint(*bounds, tuple(input.array.shape), generator=generator, dtype=dtype, device=device)


def uniform_samples(
    function: str, shape: tuple[int, ...], dtype: Any, device: Any, generator: Any, low: float = 0.0, high: float = 1.0
) -> Tensor:
    result = allocate(shape, _floating(function, dtype, True), device)
    bits = dtypes.significand_bits(result.array.dtype)
    generator_of(function, generator).fill(random_uniform, _parts(result), low=low, high=high, bits=bits)
    return result


def normal_samples(
    function: str, shape: tuple[int, ...], dtype: Any, device: Any, generator: Any, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    result = allocate(shape, _floating(function, dtype, True), device)
    std = std / math.sqrt(2.0) if dtypes.is_complex(result.dtype) else std
    generator_of(function, generator).fill(random_normal, _parts(result), mean=mean, std=std)
    return result


def exponential_samples(
    function: str, shape: tuple[int, ...], dtype: Any, device: Any, generator: Any, rate: float = 1.0
) -> Tensor:
    result = allocate(shape, _floating(function, dtype), device)
    generator_of(function, generator).fill(random_exponential, result.array, rate=rate)
    return result


@creates
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Samples of normal distributions.

    Args:
        mean, std: numbers, or tensors that broadcast; of tensors the result has their shape, and the dtype and device of the mean,
            or of ``std`` if the mean is a number.
        size: of the result, if both are numbers.

    Raises:
        ArgumentError: std is negative; no size for numbers, or one beside a tensor.
        DtypeError: the dtype of the result is not floating.
    """
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    if not isinstance(std, Tensor):
        std = nonnegative("normal", "std", std)
    elif std.array.size and active.tape is None and not float(std.detach().min()) >= 0.0:
        raise ArgumentError(f"normal: std contains {float(std.detach().min())}; expected 0 or more")
    if not tensors:
        mean, shape = float(number_of("normal", "mean", mean)), shape_of("normal", (), size)
        return normal_samples("normal", shape, dtype, device, generator, mean, std)
    if size is not None:
        raise ArgumentError("normal: size beside a tensor; expected numbers as mean and std, or no size")
    mean, std = (t.detach() if isinstance(t, Tensor) else t for t in (mean, std))
    shape = broadcast_shape("normal", *(t.array.shape for t in tensors)) if len(tensors) == 2 else tensors[0].array.shape
    samples = normal_samples("normal", shape, dtype or tensors[0].dtype, device or tensors[0].device, generator)
    found = samples * std + mean
    return found if found.dtype == samples.dtype else cast(found, dtype=samples.dtype)


def nonnegative(function: str, name: str, value: Any) -> float:
    number = float(number_of(function, name, value))
    if not number >= 0.0:
        raise ArgumentError(f"{function}: {name}={number}; expected 0 or more")
    return number


@creates
def randint(
    *args: Any, low: Any = None, high: Any = None, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Uniform random integers in [low, high): ``randint(high, size)`` or ``randint(low, high, size)``; int64 by default.

    Raises:
        ArgumentError: the range is empty, or the dtype cannot hold it.
    """
    given = {"low": low, "high": high, "size": size}
    missing = [name for name, value in given.items() if value is None]
    names = missing[1:] if len(args) < len(missing) and missing[:1] == ["low"] else missing
    if len(args) != len(names):
        raise ArgumentError(
            f"randint: {len(args)} positional arguments beside {[n for n in given if n not in missing]}; expected "
            "randint(high, size) or randint(low, high, size)"
        )
    given.update(zip(names, args))
    shape = shape_of("randint", (), given["size"])
    start = as_integer("randint", "low", 0 if given["low"] is None else given["low"])
    stop = as_integer("randint", "high", given["high"])
    dtype = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    if not start < stop:
        raise ArgumentError(f"randint: low={start}, high={stop}; expected low < high")
    convert_number(stop, dtypes.int64, "randint", "high")
    for bound in (start, stop - 1):
        smallest, largest = dtypes.limits(dtype)
        if not smallest <= bound <= largest:
            raise OutOfRangeError(f"randint: {bound} does not fit into {dtype}; expected {smallest} .. {largest}")
    result = allocate(shape, dtypes.int64, device)
    generator_of("randint", generator).fill(random_integers, result.array, low=start, high=stop)
    return result if dtype == dtypes.int64 else cast(result, dtype=dtype)


@creates
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """A random permutation of 0 .. n - 1, int64 by default: the argsort of n random 62-bit integers."""
    count, dtype = count_of("randperm", "n", n), dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    convert_number(max(count - 1, 0), dtype, "randperm")
    keys = random_keys(count, generator, device)
    result = keys.argsort(0) if count else keys
    return result if dtype == dtypes.int64 else cast(result, dtype=dtype)


def random_keys(count: int, generator: Generator | None, device: Any = None) -> Tensor:
    """The integers of 62 bits whose stable argsort is ``randperm(count)``."""
    keys = allocate((count,), dtypes.int64, device)
    generator_of("randperm", generator).fill(random_integers, keys.array, low=0, high=2**62)
    return keys


@public("bernoulli")
def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Zeros and ones, of the dtype of ``input``: 1 with the probability that the element of input is.

    Args:
        input: the probabilities, or with ``p`` a tensor of the shape of the result.
        p: one probability for all elements.

    Raises:
        ArgumentError: a probability is not between 0 and 1.
        DtypeError: the probabilities are not floating.
    """
    array = input.array
    if p is None and not dtypes.is_floating(array.dtype):
        raise DtypeError(f"bernoulli: input of dtype {array.dtype}; expected floating probabilities")
    if p is not None and not 0.0 <= (p := float(number_of("bernoulli", "p", p))) <= 1.0:
        raise ArgumentError(f"bernoulli: p={p}; expected a probability from 0 to 1")
    if p is None and array.size and active.tape is None:
        low, high = float(input.detach().min()), float(input.detach().max())
        if not (low >= 0.0 and high <= 1.0):
            raise ArgumentError(f"bernoulli: probabilities from {low} to {high}; expected 0 to 1")
    drawn = uniform_samples("bernoulli", array.shape, dtypes.float32, input.device, generator)
    result: Tensor = cast(compare("less", drawn, input.detach() if p is None else p), dtype=array.dtype)
    if input.requires_grad and autograd.is_grad_enabled():
        result = where(compare("equal", drawn, drawn), result, input)  # the gradient is zero
    return result


# ---- choices by weight --------------------------------------------------------------------------------------------------


@public("multinomial")
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Draw indices with probabilities in proportion to weights.

    Without replacement, and for one sample, the indices are those of the largest weight / e, with e of the exponential
    distribution (Efraimidis and Spirakis 2006), the first drawn first.

    Args:
        input: weights, (n,) or (rows, n), not negative; they need not sum to 1.
        num_samples: the number of indices for each row.
        replacement: whether an index may be drawn more than once.

    Returns:
        int64 (num_samples,) or (rows, num_samples).

    Raises:
        ShapeError: the weights have another number of dimensions.
        ArgumentError: a weight is negative or not finite, a row has no positive weight, or without replacement fewer positive
            weights than samples.
        DtypeError: the weights are not floating.
    """
    array, count = input.array, as_integer("multinomial", "num_samples", num_samples)
    if array.ndim not in (1, 2):
        raise ShapeError(f"multinomial: the weights have shape {tuple(array.shape)}; expected (n,) or (rows, n)")
    if not dtypes.is_floating(array.dtype):
        raise DtypeError(f"multinomial: weights of dtype {array.dtype}; expected a floating dtype")
    if count < 1:
        raise ArgumentError(f"multinomial: num_samples={count}; expected 1 or more")
    if not replacement and count > array.shape[-1]:
        raise ArgumentError(
            f"multinomial: num_samples={count} of {array.shape[-1]} weights; expected at most as many, or replacement=True"
        )
    if active.tape is None:
        _check_weights(input.detach(), 1 if replacement else count)
    rows = contiguous(array if array.ndim == 2 else array[None])
    shape = (*array.shape[:-1], count)
    if replacement and count > 1:
        indices = empty((len(rows), count), dtypes.int64, rows)
        sums = empty(rows.shape, dtypes.float64, rows)
        generator_of("multinomial", generator).fill(random_choice, indices, sums, rows)
        return make_tensor(indices.reshape(shape))
    accumulator = dtypes.accumulator(rows.dtype)
    drawn = exponential_samples("multinomial", rows.shape, accumulator, input.device, generator)
    race: Any = cast(make_tensor(rows), dtype=accumulator) / drawn
    found: Tensor = race.topk(count, dim=1)[1] if count > 1 else race.argmax(dim=1, keepdim=True)
    return found.reshape(shape)


def _check_weights(weights: Any, needed: int) -> None:
    """Check the weights of :func:`multinomial`, of which each row needs this number of positive ones."""
    if weights.array.size == 0:
        raise ArgumentError(f"multinomial: the weights have shape {tuple(weights.shape)}; expected at least one weight")
    low, high = float(weights.min()), float(weights.max())
    if not low >= 0.0 or not math.isfinite(high):
        raise ArgumentError(f"multinomial: weights from {low} to {high}; expected finite numbers of 0 or more")
    positive = int((weights > 0).sum(-1).min())
    if positive < needed:
        raise ArgumentError(f"multinomial: a row has {positive} positive weights; expected at least {needed}")


# ---- the state of the generators ----------------------------------------------------------------------------------------


def seed() -> int:
    """Seed the default generator from the operating system; return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """Return the seed of the default generator."""
    return default_generator.initial_seed()


def state_of(generator: Generator, device: Any) -> Tensor:
    """The state of a generator on a device: key and counter, as uint8 (16,) on the CPU."""
    position = numpy.array(generator.position(device), numpy.uint64)
    return make_tensor(position.view(numpy.uint8))


def set_state_of(generator: Generator, state: Any, device: Any) -> None:
    """Set the state of a generator on a device to one from :func:`state_of`.

    Raises:
        ShapeError: it is no such tensor.
    """
    if not isinstance(state, Tensor) or state.dtype != dtypes.uint8 or state.shape != (16,):
        text = f"a tensor of shape {tuple(state.shape)}, {state.dtype}" if isinstance(state, Tensor) else repr(state)
        raise ShapeError(f"set_rng_state: got {text}; expected a state from get_rng_state(), uint8 of shape (16,)")
    key, counter = numpy.ascontiguousarray(devices.to_host(state.array)).view(numpy.uint64)
    generator.set_position(int(key), int(counter), device)


def get_rng_state() -> Tensor:
    """The state of the default generator on the CPU, uint8 (16,)."""
    return state_of(default_generator, devices.CPU)


def set_rng_state(new_state: Tensor) -> None:
    """Set the state of the default generator on the CPU to one from :func:`get_rng_state`.

    Raises:
        ShapeError: it is no such tensor.
    """
    set_state_of(default_generator, new_state, devices.CPU)


def _get_state(self: Generator) -> Tensor:
    """The state on the generator's device, uint8 (16,)."""
    return state_of(self, self.device)


def _set_state(self: Generator, new_state: Tensor) -> Generator:
    """Set the state on the generator's device to one from ``get_state``."""
    set_state_of(self, new_state, self.device)
    return self


Generator.get_state, Generator.set_state = _get_state, _set_state  # type: ignore[attr-defined]


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, device_type: str = "cuda") -> Iterator[None]:
    """Restore the state of the default generator on every device at the end of the block.

    Args:
        devices, device_type: have no effect: all devices are restored.
        enabled: False does nothing.
    """
    saved = default_generator.positions()
    try:
        yield
    finally:
        if enabled:
            default_generator.set_positions(saved)
