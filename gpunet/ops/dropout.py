"""Dropout of elements, of channels, and alpha dropout.  Masks are drawn with Philox by ``random_bernoulli``."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, fused, make_tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import empty
from gpunet.launch.random import default_generator, random_bernoulli
from gpunet.ops.creation import ones
from gpunet.ops.face import as_probability, public
from gpunet.ops.in_place import in_place

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


@kernel("dropout.cu", outputs=1, types={"mask": "bool"})
def dropout_apply(y, x, mask, *, scale):
    """y = x * scale where mask holds, 0 elsewhere: forward and backward alike."""
    numpy.multiply(x, mask, out=y)
    y *= y.dtype.type(scale)


@dropout_apply.geometry
def _(y, x, mask, *, scale):
    return Geometry(elementwise_grid(y.size), 256, (numpy.int64(y.size), float(scale)))


def _masked_composed(x, mask, *, scale):
    return x * mask * scale


@fused(name="dropout", composed=_masked_composed)
def masked_scale(x, mask, *, scale, need):
    """x * scale where the boolean mask holds, 0 elsewhere."""
    y = empty(x.shape, x.dtype, x)
    dropout_apply(y, x, mask, scale=scale)
    return y, (mask,)


@masked_scale.backward
def _(saved, dy, *, scale, need):
    (mask,) = saved
    dx = empty(mask.shape, dy.array.dtype, mask)
    dropout_apply(dx, dy.array, mask, scale=scale)
    return dx, None


# ---- draws ------------------------------------------------------------------------------------------------------------


def _mask(x: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """A mask that is False with probability p."""
    mask = empty(shape, numpy.bool_, x.array)
    default_generator.fill(random_bernoulli, mask, probability=1.0 - p)
    return make_tensor(mask)


def _noise(x: Tensor, lead: int, p: float, scale: float) -> Tensor:
    """0 with probability p and ``scale`` otherwise, a number for each index of the first ``lead`` dimensions of x."""
    shape = (*x.array.shape[:lead], *(1,) * (x.ndim - lead))
    return masked_scale(ones(*shape, dtype=x.dtype, device=x.device), _mask(x, shape, p), scale=scale)


def _drop(x: Tensor, p: float, lead: int) -> Tensor:
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    return masked_scale(x, _mask(x, x.array.shape, p), scale=scale) if lead == x.ndim else x * _noise(x, lead, p, scale)


#: SELU of -infinity is -_SATURATION, its scale times its alpha (Klambauer et al. 2017).
_SATURATION = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def _saturate(x: Tensor, p: float, lead: int) -> Tensor:
    """a x + b, in which x is replaced by -_SATURATION with probability p, with a and b that keep mean 0 and variance 1."""
    if p == 1.0:
        return x * 0.0
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SATURATION**2))
    noise = _noise(x, lead, p, a)
    return x * noise + (noise - a * (1.0 - p)) * _SATURATION


_KINDS = {
    "dropout": _drop, "dropout1d": _drop, "dropout2d": _drop, "dropout3d": _drop, "alpha_dropout": _saturate,
    "feature_alpha_dropout": _saturate,
}  # fmt: skip
_IN_PLACE = {name: in_place(drop, f"{name}(inplace=True)") for name, drop in _KINDS.items()}


# ---- public functions -------------------------------------------------------------------------------------------------


def _dropped(function: str, input: Tensor, p: Any, training: bool, inplace: bool, lead: int | None = None) -> Tensor:
    """Dropout on behalf of ``function``; with ``lead``, all elements with the same first indices are dropped together."""
    p = as_probability(function, "p", p)
    if not training or (p == 0.0 and not inplace):
        return input
    if not is_floating(input.dtype):
        raise DtypeError(f"{function}: the tensor has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    return (_IN_PLACE if inplace else _KINDS)[function](input, p, input.ndim if lead is None else lead)


def _num_leading(function: str, input: Tensor, num_dims: tuple[int, ...], names: str) -> int:
    """How many of the first dimensions are batch and channels; the fewest of ``num_dims`` are without a batch."""
    if input.ndim not in num_dims:
        raise ShapeError(f"{function}: the input has shape {tuple(input.shape)}; expected {names}")
    return 1 + (input.ndim > num_dims[0])


@public(out=False)
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p); the identity if not training.

    Raises:
        ArgumentError: p is not in [0, 1].
        DtypeError: the tensor is not floating.
    """
    return _dropped("dropout", input, p, training, inplace)


@public(out=False)
def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each channel with probability ``p`` and scale the others by 1 / (1 - p); the identity if not training.

    Args:
        input: (n, channels, length), or (channels, length); floating.

    Raises:
        ShapeError: the input has other dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    lead = _num_leading("dropout1d", input, (2, 3), "(batch, channels, length), or the same without batch")
    return _dropped("dropout1d", input, p, training, inplace, lead)


@public(out=False)
def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each channel with probability ``p`` and scale the others by 1 / (1 - p) (Tompson et al. 2015).

    Args:
        input: (n, channels, height, width); floating.  As in PyTorch, three dimensions are (n, channels, length).

    Raises:
        ShapeError: the input has other dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    if input.ndim not in (3, 4):
        raise ShapeError(f"dropout2d: the input has shape {tuple(input.shape)}; expected (batch, channels, height, width)")
    return _dropped("dropout2d", input, p, training, inplace, 2)


@public(out=False)
def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`dropout1d` of volumes (n, channels, depth, height, width), or of one without n."""
    lead = _num_leading("dropout3d", input, (4, 5), "(batch, channels, depth, height, width), or the same without batch")
    return _dropped("dropout3d", input, p, training, inplace, lead)


@public(out=False)
def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Set each element to the limit of SELU with probability ``p``, then keep mean 0 and variance 1 (Klambauer et al. 2017).

    Raises:
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    return _dropped("alpha_dropout", input, p, training, inplace)


@public(out=False)
def feature_alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` of whole channels (n, channels, ...).

    Raises:
        ShapeError: the input has fewer than two dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    if input.ndim < 2:
        raise ShapeError(f"feature_alpha_dropout: the input has shape {tuple(input.shape)}; expected (batch, channels, ...)")
    return _dropped("feature_alpha_dropout", input, p, training, inplace, 2)
