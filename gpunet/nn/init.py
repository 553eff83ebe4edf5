"""Parameter initialisation in place: uniform, normal, constant, Xavier (Glorot) and Kaiming (He)."""

from __future__ import annotations

import math

from gpunet import autograd
from gpunet.autograd import FILL, Tensor
from gpunet.backend.dtypes import significand_bits
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.random import default_generator, random_normal, random_uniform


def _mark_changed(tensor: Tensor) -> Tensor:
    """Count a change in place; return the tensor."""
    tensor._version[0] += 1
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with samples of the uniform distribution on [a, b)."""
    bits = significand_bits(tensor.dtype)
    default_generator.fill(random_uniform, tensor.array, low=float(a), high=float(b), bits=bits)
    return _mark_changed(tensor)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with samples of the normal distribution with this mean and standard deviation."""
    default_generator.fill(random_normal, tensor.array, mean=float(mean), std=float(std))
    return _mark_changed(tensor)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    FILL(tensor.array, value=val)
    return _mark_changed(tensor)


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


def fan(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (out, in, *kernel): the number of inputs per output, and outputs per input.

    Raises:
        ShapeError: the weight has fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"fan of a weight of shape {tensor.shape}; expected at least 2 dimensions (out, in, ...)")
    kernel_size = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel_size, tensor.shape[0] * kernel_size


_GAINS = {"linear": 1.0, "identity": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}


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


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill uniformly from ±gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fan(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill from a normal distribution with std gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fan(tensor))))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode {mode!r}; expected 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fan(tensor)[mode == "fan_out"])


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill uniformly from ±gain sqrt(3 / fan) (He et al. 2015); ``a`` is the negative slope of leaky_relu."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill from a normal distribution with std gain / sqrt(fan) (He et al. 2015); ``a``: as in kaiming_uniform_."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))
