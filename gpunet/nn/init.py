"""Parameter initialisation in place: uniform, normal, constant, Xavier (Glorot) and Kaiming (He)."""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpunet import autograd
from gpunet.autograd import COPY, FILL, Tensor, bump_version
from gpunet.backend.dtypes import is_floating, significand_bits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.random import Generator, default_generator, random_normal, random_uniform

__all__ = [
    "calculate_gain", "constant_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "uniform_",
    "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip


def _draw(name: str, tensor: Tensor, kernel: Any, generator: Generator | None, **options: Any) -> Tensor:
    """Fill with random numbers of ``generator``, or of the default one; return the tensor.

    Raises:
        DtypeError: the tensor is not floating, or ``generator`` is no Generator.
    """
    if not is_floating(tensor.dtype):
        raise DtypeError(f"{name}: a tensor of dtype {tensor.dtype}; expected a floating tensor")
    if generator is not None and not isinstance(generator, Generator):
        raise DtypeError(f"{name}: generator={generator!r}; expected a gpunet.Generator or None")
    array = tensor.array
    target = array if array.flags.c_contiguous else empty(array.shape, array.dtype, array)
    (generator or default_generator).fill(kernel, target, **options)
    if target is not array:
        COPY(array, target)
    bump_version(tensor)
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with samples of the uniform distribution on [a, b).

    Args:
        tensor: a floating tensor.
        a, b: the bounds, a <= b.
        generator: draws the numbers; the default one if None.
    """
    if not a <= b:
        raise ArgumentError(f"uniform_: a={a}, b={b}; expected a <= b")
    bits = significand_bits(tensor.dtype) if is_floating(tensor.dtype) else 0
    return _draw("uniform_", tensor, random_uniform, generator, low=float(a), high=float(b), bits=bits)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with samples of the normal distribution with this mean and standard deviation.

    Args:
        tensor: a floating tensor.
        mean, std: of the distribution, std >= 0.
        generator: draws the numbers; the default one if None.
    """
    if not std >= 0.0:
        raise ArgumentError(f"normal_: std={std}; expected zero or a positive number")
    return _draw("normal_", tensor, random_normal, generator, mean=float(mean), std=float(std))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    FILL(tensor.array, value=val)
    bump_version(tensor)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a 2-d tensor with the identity matrix.

    Raises:
        ShapeError: the tensor is not 2-d.
    """
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: tensor of shape {tensor.shape}; expected 2 dimensions")
    zeros_(tensor)
    diagonal = range(min(tensor.shape))
    with autograd.no_grad():
        tensor[list(diagonal), list(diagonal)] = 1.0
    return tensor


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (out, in, *kernel): the number of inputs per output, and outputs per input.

    Raises:
        ShapeError: the weight has fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"fan of a weight of shape {tuple(tensor.shape)}; expected at least 2 dimensions (out, in, ...)")
    kernel_size = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel_size, tensor.shape[0] * kernel_size


_GAINS = {
    **dict.fromkeys(("linear", "identity", "sigmoid"), 1.0),
    **{f"conv{transposed}{n}d": 1.0 for transposed in ("", "_transpose") for n in (1, 2, 3)},
    "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor of the standard deviation of weights that compensates for a nonlinearity.

    Args:
        nonlinearity: name of the activation, e.g. "relu".
        param: the negative slope of "leaky_relu", 0.01 if None.

    Raises:
        ArgumentError: the nonlinearity is unknown.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ArgumentError(f"nonlinearity {nonlinearity!r}; expected one of {', '.join([*_GAINS, 'leaky_relu'])}")
    return _GAINS[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill uniformly from ±gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / max(1, sum(_calculate_fan_in_and_fan_out(tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from a normal distribution with std gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(1, sum(_calculate_fan_in_and_fan_out(tensor)))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode {mode!r}; expected 'fan_in' or 'fan_out'")
    gain = calculate_gain(nonlinearity, a)
    if 0 in tensor.shape:
        warnings.warn("initializing a tensor without elements is a no-op", UserWarning, stacklevel=3)
        return 0.0
    return gain / math.sqrt(_calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Fill uniformly from ±gain sqrt(3 / fan) (He et al. 2015).

    Args:
        tensor: a weight (out, in, ...).
        a: the negative slope, if ``nonlinearity`` is "leaky_relu".
        mode: "fan_in" keeps the variance of forward, "fan_out" that of backward.
        nonlinearity: the activation behind the layer, see :func:`calculate_gain`.
        generator: draws the numbers; the default one if None.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Fill from a normal distribution with std gain / sqrt(fan) (He et al. 2015); arguments as of kaiming_uniform_."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)
