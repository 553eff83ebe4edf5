"""Change the shape or the order of dimensions; results are views where the strides allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import COPY, Tensor, contiguous, method, primitive
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import broadcast_to
from gpunet.ops.dims import normalize_dim

__all__ = ["flatten", "flip", "permute", "reshape", "squeeze", "transpose", "unsqueeze"]


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Accept both f(2, 3) and f((2, 3)): return (2, 3)."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(a) for a in args)


# ---- views ------------------------------------------------------------------------------------------------------------


@primitive(view=True)
def alias(x):
    """An alias of x: an identity node in the graph."""
    return x.array


alias.derivatives(x=lambda g: g)


@primitive(view=True)
def _reshape(x, *, shape):
    return contiguous(x.array).reshape(shape)


_reshape.derivatives(x=lambda g, x_shape: _reshape(g, shape=x_shape))


@method("reshape view")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The elements in another shape; one size may be -1.  A view if x is contiguous, else a copy.

    Raises:
        ShapeError: the number of elements differs.
    """
    sizes = _sizes(shape)
    known = math.prod(s for s in sizes if s != -1)
    missing = sizes.count(-1)
    if missing == 1 and known and x.array.size % known == 0:
        sizes = tuple(x.array.size // known if s == -1 else s for s in sizes)
    elif missing or known != x.array.size:
        raise ShapeError(f"reshape: {x.array.size} elements of shape {x.shape} cannot have shape {sizes}")
    return _reshape(x, shape=sizes)


@method("view_as reshape_as")
def reshape_as(x: Tensor, other: Tensor) -> Tensor:
    """``x`` reshaped to the shape of ``other``."""
    return reshape(x, other.shape)


@method("flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Flatten the dimensions start_dim .. end_dim into one."""
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = normalize_dim(start_dim, x.ndim, "flatten"), normalize_dim(end_dim, x.ndim, "flatten")
    if start > end:
        raise ArgumentError(f"flatten: start_dim={start_dim}, end_dim={end_dim}; expected start_dim <= end_dim")
    return reshape(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


@method("unflatten")
def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split dimension ``dim`` into dimensions of the given sizes."""
    dim = normalize_dim(dim, x.ndim, "unflatten")
    return reshape(x, *x.shape[:dim], *sizes, *x.shape[dim + 1 :])


@primitive(view=True)
def _permute(x, *, dims):
    return x.array.transpose(dims)


_permute.derivatives(x=lambda g, dims: _permute(g, dims=tuple(sorted(range(len(dims)), key=dims.__getitem__))))


@method("permute")
def permute(x: Tensor, *dims: Any) -> Tensor:
    """A view with the dimensions in another order.

    Raises:
        ShapeError: ``dims`` does not contain each dimension once.
    """
    order = tuple(normalize_dim(d, x.ndim, "permute") for d in _sizes(dims))
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute: dims={_sizes(dims)}; expected each of the {x.ndim} dimensions of {x.shape} once")
    return _permute(x, dims=order)


@method("transpose swapaxes")
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    order = list(range(x.ndim))
    first, second = normalize_dim(dim0, x.ndim, "transpose"), normalize_dim(dim1, x.ndim, "transpose")
    if x.ndim:
        order[first], order[second] = order[second], order[first]
    return _permute(x, dims=tuple(order))


@method("t")
def t(x: Tensor) -> Tensor:
    """The transpose of a matrix; a 0-d or 1-d tensor is returned as it is.

    Raises:
        ShapeError: x has more than two dimensions.
    """
    if x.ndim > 2:
        raise ShapeError(f"t: the tensor has shape {x.shape}; expected at most 2 dimensions: use .mT or .permute()")
    return _permute(x, dims=tuple(reversed(range(x.ndim))))


Tensor.T = property(lambda x: _permute(x, dims=tuple(reversed(range(x.ndim)))), doc="The dimensions reversed.")  # type: ignore[assignment]
Tensor.mT = property(lambda x: transpose(x, -2, -1), doc="The last two dimensions exchanged.")  # type: ignore[assignment]


@method("expand broadcast_to")
def expand(x: Tensor, *shape: Any) -> Tensor:
    """A view that repeats dimensions of size 1; -1 keeps a size.

    Raises:
        ShapeError: the size of a dimension is neither 1 nor the requested size.
    """
    sizes = _sizes(shape)
    lead = len(sizes) - x.ndim
    sizes = tuple(x.shape[i - lead] if s == -1 and i >= lead else s for i, s in enumerate(sizes))
    if lead < 0 or any(n not in (1, s) for n, s in zip(x.shape, sizes[lead:])):
        raise ShapeError(
            f"expand: shape {x.shape} cannot be expanded to {_sizes(shape)}: only dimensions of size 1 can be repeated"
        )
    return broadcast_to(x, shape=sizes)


@method("expand_as")
def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """``x`` expanded to the shape of ``other``."""
    return expand(x, other.shape)


@method("squeeze")
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Remove the dimensions of size 1: all, or those in ``dim``."""
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    drop = {normalize_dim(d, x.ndim, "squeeze") for d in dims}
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in drop))


@method("unsqueeze")
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1 at ``dim``."""
    at = normalize_dim(dim, x.ndim + 1, "unsqueeze")
    return reshape(x, x.shape[:at] + (1,) + x.shape[at:])


@primitive
def flip(x, *, dims):
    """Reverse the order of elements along ``dims``."""
    index = (..., *(slice(None, None, -1) if i in dims else slice(None) for i in range(x.ndim)))
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array[index])  # the Ellipsis keeps a 0-d array: x[()] would be a NumPy scalar
    return out


flip.derivatives(x=lambda g, dims: flip(g, dims=dims))


@method("flip")
def _flip_method(x: Tensor, *dims: Any) -> Tensor:
    """Reverse the order of elements along ``dims``."""
    return flip(x, dims=tuple(normalize_dim(d, x.ndim, "flip") for d in _sizes(dims)))


@method("repeat")
def repeat(x: Tensor, *repeats: Any) -> Tensor:
    """Repeat the tensor along each dimension, like numpy.tile."""
    times = _sizes(repeats)
    if len(times) < x.ndim:
        raise ShapeError(f"repeat: repeats={times} for shape {x.shape}; expected at least {x.ndim} integers")
    padded = (1,) * (len(times) - x.ndim) + x.shape
    paired = reshape(x, tuple(v for n in padded for v in (1, n)))
    wide = broadcast_to(paired, shape=tuple(v for r, n in zip(times, padded) for v in (r, n)))
    return reshape(wide, tuple(r * n for r, n in zip(times, padded)))
