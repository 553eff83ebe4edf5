"""Parameter initialisation in place: random, constant, identity, Xavier (Glorot), Kaiming (He), orthogonal, sparse."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet import autograd
from gpunet.autograd import COPY, FILL, Tensor, bump_version, wrap
from gpunet.backend import devices
from gpunet.backend.devices import real_view
from gpunet.backend.dtypes import float64, is_complex, is_floating, is_inexact, significand_bits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.random import Generator, default_generator, random_normal, random_uniform
from gpunet.launch.tape import graph_break_on_read, warn_user
from gpunet.ops.creation import empty as new_empty

__all__ = [
    "calculate_gain", "constant", "constant_", "dirac", "dirac_", "eye", "eye_", "kaiming_normal", "kaiming_normal_",
    "kaiming_uniform", "kaiming_uniform_", "normal", "normal_", "ones_", "orthogonal", "orthogonal_", "sparse", "sparse_",
    "trunc_normal_", "uniform", "uniform_", "xavier_normal", "xavier_normal_", "xavier_uniform", "xavier_uniform_", "zeros_",
]  # fmt: skip


def _draw(name: str, tensor: Tensor, kernel: Any, generator: Generator | None, **options: Any) -> Tensor:
    """Fill with random numbers of ``generator``, or of the default one, both parts of complex numbers; return the tensor.

    Raises:
        DtypeError: the tensor is neither floating nor complex, or ``generator`` is no Generator.
    """
    if not is_inexact(tensor.dtype):
        raise DtypeError(f"{name}: a tensor of dtype {tensor.dtype}; expected a floating or complex tensor")
    if generator is not None and not isinstance(generator, Generator):
        raise DtypeError(f"{name}: generator={generator!r}; expected a gpunet.Generator or None")
    array = tensor.array
    target = array if array.flags.c_contiguous else empty(array.shape, array.dtype, array)
    (generator or default_generator).fill(kernel, real_view(target) if is_complex(target.dtype) else target, **options)
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
    bits = significand_bits(tensor.dtype) if is_inexact(tensor.dtype) else 0
    return _draw("uniform_", tensor, random_uniform, generator, low=float(a), high=float(b), bits=bits)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with samples of the normal distribution with this mean and standard deviation.

    Args:
        tensor: a floating tensor; of a complex one, both parts have half of the variance.
        mean, std: of the distribution, std >= 0.
        generator: draws the numbers; the default one if None.
    """
    if not std >= 0.0:
        raise ArgumentError(f"normal_: std={std}; expected zero or a positive number")
    deviation = std / math.sqrt(2.0) if is_complex(tensor.dtype) else float(std)
    return _draw("normal_", tensor, random_normal, generator, mean=float(mean), std=deviation)


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
    if not isinstance(nonlinearity, str) or nonlinearity not in _GAINS:
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
        warn_user("initializing a tensor without elements is a no-op")
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


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> Tensor:
    """Fill with samples of the normal distribution with this mean and standard deviation, limited to [a, b].

    Args:
        tensor: a floating tensor.
        mean, std: of the distribution before the limits, std > 0.
        a, b: the limits, not relative to mean and std.
        generator: draws the numbers; the default one if None.
    """
    if not (a < b and std > 0.0):
        raise ArgumentError(f"trunc_normal_: std={std}, a={a}, b={b}; expected std > 0 and a < b")
    low, high = (0.5 * math.erfc((mean - limit) / std * math.sqrt(0.5)) for limit in (a, b))  # of the distribution function
    drawn = _drawn("trunc_normal_", tensor, uniform_, 0.0, 1.0, generator)
    values = mean + std * _normal_quantile(low + (high - low) * drawn)
    return _set(tensor, numpy.clip(values, a, b))


#: Numerators and denominators of the approximation of Wichura (1988), algorithm AS 241, lowest power first: |p - 1/2| <= 0.425,
#: and r = sqrt(-log p) up to 5 and beyond, in the tails.
_QUANTILE = (
    (
        (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,
         67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
        (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077, 21213.794301586595867, 39307.895800092710610,
         28729.085735721942674, 5226.4952788528545610),
    ),
    (
        (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504, 1.27045825245236838258,
         0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
        (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550, 0.148103976427480074590,
         0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
    ),
    (
        (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230, 0.0265321895265761230930,
         1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
        (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525, 7.86869131145613259100e-4,
         1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
    ),
)  # fmt: skip


def _normal_quantile(p: numpy.ndarray) -> numpy.ndarray:
    """The inverse of the standard normal distribution function, for p in [0, 1], to about 1e-16 relative."""
    polynomial = numpy.polynomial.polynomial.polyval
    q = p - 0.5
    with numpy.errstate(all="ignore"):
        r = numpy.sqrt(-numpy.log(numpy.minimum(p, 1.0 - p)))
        arguments = (0.180625 - q * q, r - 1.6, r - 5.0)
        pieces = [polynomial(x, top) / polynomial(x, bottom) for x, (top, bottom) in zip(arguments, _QUANTILE)]
        tails = numpy.where(numpy.isinf(r), numpy.inf, numpy.where(r <= 5.0, pieces[1], pieces[2]))
    return numpy.where(abs(q) <= 0.425, q * pieces[0], numpy.copysign(tails, q))


def _drawn(name: str, tensor: Tensor, fill: Any, *options: Any) -> numpy.ndarray:
    """Random numbers of the shape of a floating tensor as a float64 array on the host, with the same bits on all devices."""
    if not is_floating(tensor.dtype):
        raise DtypeError(f"{name}: a tensor of dtype {tensor.dtype}; expected a floating tensor")
    graph_break_on_read(f"{name}()")
    return devices.to_host(fill(new_empty(tensor.shape, dtype=float64, device=tensor.device), *options).array)


def _set(tensor: Tensor, values: numpy.ndarray) -> Tensor:
    """Write values of the host to a tensor."""
    with autograd.no_grad():
        tensor.copy_(wrap(numpy.ascontiguousarray(values)).to(tensor.device))
    return tensor


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with a random orthogonal matrix times ``gain``: rows or columns, the fewer, are orthonormal (Saxe et al. 2013).

    Args:
        tensor: floating, with two dimensions at least; those from the second on are flattened.
        gain: factor.
        generator: draws the numbers; the default one if None.

    Raises:
        ShapeError: the tensor has fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: tensor of shape {tuple(tensor.shape)}; expected at least 2 dimensions")
    if 0 in tensor.shape:
        return tensor
    drawn = _drawn("orthogonal_", tensor, normal_, 0.0, 1.0, generator).reshape(tensor.shape[0], -1)
    is_wide = drawn.shape[0] < drawn.shape[1]
    q, r = numpy.linalg.qr(drawn.T if is_wide else drawn)
    q *= numpy.copysign(gain, numpy.diagonal(r))  # so that all orthogonal matrices are equally likely (Mezzadri 2007)
    return _set(tensor, (q.T if is_wide else q).reshape(tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill the weight (out, in, ...) of a convolution so that it passes on as many channels as possible, in each group.

    Raises:
        ShapeError: the tensor has not 3, 4 or 5 dimensions, or ``groups`` does not divide the output channels.
    """
    shape = tuple(tensor.shape)
    if len(shape) not in (3, 4, 5):
        raise ShapeError(f"dirac_: tensor of shape {shape}; expected 3, 4 or 5 dimensions")
    if groups < 1 or shape[0] % groups:
        raise ShapeError(f"dirac_: {shape[0]} output channels in groups={groups}; expected a divisor")
    values, per_group = numpy.zeros(shape), shape[0] // groups
    center = tuple(n // 2 for n in shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, shape[1])):
            values[(group * per_group + channel, channel, *center)] = 1.0
    return _set(tensor, values)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Fill a matrix from a normal distribution, with a fraction ``sparsity`` of each column set to 0 (Martens 2010).

    Raises:
        ShapeError: the tensor is not 2-d.
        ArgumentError: sparsity is not in [0, 1].
    """
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_: tensor of shape {tuple(tensor.shape)}; expected 2 dimensions")
    if not 0.0 <= sparsity <= 1.0:
        raise ArgumentError(f"sparse_: sparsity={sparsity}; expected a fraction from 0 to 1")
    values = _drawn("sparse_", tensor, normal_, 0.0, std, generator)
    order = _drawn("sparse_", tensor, uniform_, 0.0, 1.0, generator).argsort(axis=0, kind="stable")
    numpy.put_along_axis(values, order[: math.ceil(sparsity * len(values))], 0.0, axis=0)
    return _set(tensor, values)


def _deprecated(function: Any) -> Any:
    """The old name of a function, without the underscore."""
    name = function.__name__.removesuffix("_")

    def old(*args: Any, **kwargs: Any) -> Tensor:
        warn_user(f"nn.init.{name} is deprecated; use nn.init.{name}_", FutureWarning)
        result: Tensor = function(*args, **kwargs)
        return result

    old.__name__ = old.__qualname__ = name
    old.__doc__ = f"The old name of :func:`{name}_`."
    return old


uniform, normal, constant, eye, dirac = map(_deprecated, (uniform_, normal_, constant_, eye_, dirac_))
xavier_uniform, xavier_normal = map(_deprecated, (xavier_uniform_, xavier_normal_))
kaiming_uniform, kaiming_normal = map(_deprecated, (kaiming_uniform_, kaiming_normal_))
orthogonal, sparse = map(_deprecated, (orthogonal_, sparse_))
