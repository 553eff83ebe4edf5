"""Parts and places of numbers and tensors: frexp, renorm, unravel_index, histogram, split_with_sizes, sum_to_size ..."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, method, primitive, wrap
from gpunet.autograd.size import Size
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.arithmetic import exp2
from gpunet.ops.broadcast import broadcast_shape, broadcasts_to, cast, in_accumulator
from gpunet.ops.compare import compare
from gpunet.ops.complex_numbers import conj
from gpunet.ops.define import elementwise
from gpunet.ops.dims import normalize_dim, normalize_slice_dim
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, as_number, check_flag, public, sizes_of
from gpunet.ops.join import split
from gpunet.ops.norm import _norm
from gpunet.ops.reduce import check_floating
from gpunet.ops.shape import transpose

__all__ = [
    "adjoint", "broadcast_shapes", "frexp", "histogram", "histogramdd", "is_same_size", "renorm", "split_with_sizes",
    "unravel_index", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes",
]  # fmt: skip


# ---- numbers ------------------------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What :func:`frexp` returns."""

    mantissa: Tensor
    exponent: Tensor


EXPONENT = Shim("frexp", lambda xp, out, x: xp.copyto(out, xp.frexp(x)[1]))
MANTISSA = Shim("frexp", lambda xp, out, x: xp.copyto(out, xp.frexp(x)[0]))


@primitive(name="frexp")
def _mantissa(x, exponent):
    out = empty(x.shape, x.dtype, x.array)
    MANTISSA(out, x.array)
    return out


_mantissa.derivatives(x=lambda g, exponent: g / exp2(cast(exponent, dtype=g.dtype)))


@public("frexp")
def frexp(input: Any) -> Parts:
    """The mantissa m and the int32 exponent e of x = m 2^e, where |m| is from 1/2 to 1, or 0.

    Raises:
        DtypeError: an integer tensor.
    """
    x = check_floating(input, "frexp")
    exponent = empty(x.shape, dtypes.int32, x.array)
    EXPONENT(exponent, x.array)
    return Parts(_mantissa(x, make_tensor(exponent)), make_tensor(exponent))


@in_accumulator
def _renormed(x: Tensor, p: float, axes: tuple[int, ...], most: float) -> Tensor:
    norms = _norm(x, p, axes, True)
    return x * where(compare("greater", norms, most), most / (norms + 1e-7), 1.0)


@elementwise("renorm", autocast="cuda: float32")
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Tensor:
    """The tensor whose slices along ``dim`` are scaled so that their p-norm is at most ``maxnorm``.

    Raises:
        ArgumentError: ``p`` is not positive, or ``maxnorm`` negative.
        ShapeError: fewer than two dimensions.
    """
    order, most = as_number("renorm", "p", p), as_number("renorm", "maxnorm", maxnorm)
    x = check_floating(input, "renorm")
    if not order > 0.0:
        raise ArgumentError(f"renorm: p={p}; expected a positive number")
    if not most >= 0.0:
        raise ArgumentError(f"renorm: maxnorm={maxnorm}; expected 0 or more")
    if x.ndim < 2:
        raise ShapeError(f"renorm: the tensor has shape {tuple(x.shape)}; expected at least two dimensions")
    kept = normalize_dim(dim, x.ndim, "renorm")
    return _renormed(x, order, tuple(d for d in range(x.ndim) if d != kept), most)


# ---- shapes -------------------------------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape to which tensors of these shapes, tuples or integers, are broadcast.

    Raises:
        ShapeError: they cannot be broadcast together.
    """
    given = [sizes_of("broadcast_shapes", (s,), shapes=None) for s in shapes]
    if any(n < 0 for shape in given for n in shape):
        raise ShapeError(f"broadcast_shapes: shapes {given}; expected no negative size")
    return Size(broadcast_shape("broadcast_shapes", *given))


@public("is_same_size", out=False, takes_complex=True)
def is_same_size(input: Any, other: Any) -> bool:
    """Whether two tensors have the same shape."""
    return bool(input.shape == wrap(other, "is_same_size").shape)


@public("adjoint", out=False, takes_complex=True)
def adjoint(input: Any) -> Tensor:
    """The last two dimensions exchanged, and complex numbers conjugated; a view of a real tensor.

    Raises:
        ShapeError: one dimension.
    """
    if input.ndim == 1:
        raise ShapeError("adjoint: the tensor has one dimension; expected matrices, (..., n, m)")
    return conj(transpose(input, -2, -1) if input.ndim else input)


Tensor.mH = property(adjoint, doc="The last two dimensions exchanged, and complex numbers conjugated.")  # type: ignore[assignment]


def _hermitian(input: Tensor) -> Tensor:
    if input.ndim not in (0, 2):
        raise ShapeError(f"H: the tensor has {input.ndim} dimensions; expected a matrix: use mH")
    return adjoint(input)


Tensor.H = property(_hermitian, doc="The transposed matrix, its complex numbers conjugated.")  # type: ignore[assignment]


@method("sum_to_size")
def sum_to_size(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """The sum over the dimensions that broadcasting from ``size`` would expand.

    Raises:
        ShapeError: a tensor of ``size`` cannot be broadcast to the shape.
    """
    shape = sizes_of("sum_to_size", sizes, size=size)
    if not broadcasts_to(shape, tuple(input.shape)):
        raise ShapeError(f"sum_to_size: size={shape} cannot be broadcast to {tuple(input.shape)}")
    if not shape:
        return input.sum()  # of integers int64, also of one number
    if shape == tuple(input.shape):
        return input
    lead = input.ndim - len(shape)
    summed = [d for d, n in enumerate((1,) * lead + shape) if n == 1]
    return input.sum(summed, keepdim=True).reshape(shape)


@public("split_with_sizes", out=False, takes_complex=True)
def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split` with a list of sizes."""
    at = normalize_slice_dim(dim, input, "split_with_sizes")
    return split(input, sizes_of("split_with_sizes", (), split_sizes=split_sizes), at)


@public("unsafe_split", out=False, takes_complex=True)
def unsafe_split(input: Any, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split`: here its views can be changed in place as others can."""
    at = normalize_slice_dim(dim, input, "unsafe_split")
    return split(input, as_integer("unsafe_split", "split_size", split_size), at)


@public("unsafe_split_with_sizes", out=False, takes_complex=True)
def unsafe_split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split_with_sizes`: here its views can be changed in place as others can."""
    at = normalize_slice_dim(dim, input, "unsafe_split_with_sizes")
    return split(input, sizes_of("unsafe_split_with_sizes", (), split_sizes=split_sizes), at)


@public("unsafe_chunk", out=False, takes_complex=True)
def unsafe_chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`chunk`: here its views can be changed in place as others can."""
    return tuple(input.chunk(chunks, normalize_slice_dim(dim, input, "unsafe_chunk")))


def unravel_index(indices: Any, shape: Any) -> tuple[Tensor, ...]:
    """The coordinates of flat indices in a tensor of ``shape``: a tensor for each dimension.

    Raises:
        DtypeError: the indices are not integers.
        OutOfRangeError: a size is negative.
    """
    x = wrap(indices, "unravel_index")
    if isinstance(shape, Tensor):
        raise DtypeError("unravel_index: shape is a tensor; expected integers")
    sizes = sizes_of("unravel_index", (shape,), shape=None)
    if not dtypes.is_integer(x.dtype):
        raise DtypeError(f"unravel_index: indices of dtype {x.dtype}; expected integers")
    if any(n < 0 for n in sizes):
        raise OutOfRangeError(f"unravel_index: shape={sizes}; expected sizes of 0 or more")
    steps = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
    return tuple([(x // step if step else x * 0) % n if n else x * 0 for n, step in zip(sizes, steps)])


# ---- histograms ---------------------------------------------------------------------------------------------------------------


class Histogram(NamedTuple):
    """What :func:`histogram` returns."""

    hist: Tensor
    bin_edges: Tensor


class HistogramDD(NamedTuple):
    """What :func:`histogramdd` returns."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


def _edges(function: str, x: numpy.ndarray, bins: Any, limits: Any) -> numpy.ndarray:
    """The edges of the bins of one dimension, in the dtype of x; ``bins`` is their number or a tensor of edges."""
    if isinstance(bins, Tensor):
        if limits is not None:
            raise ArgumentError(f"{function}: got edges of bins and range={limits!r}; expected one of them")
        edges = devices.to_host(bins.array)
        if edges.ndim != 1 or edges.size < 2 or edges.dtype != x.dtype:
            raise ShapeError(f"{function}: bins have shape {edges.shape} and dtype {edges.dtype}; expected at least 2 of {x.dtype}")
        return edges
    count = as_integer(function, "bins", bins)
    if count < 1:
        raise ArgumentError(f"{function}: bins={count}; expected 1 or more")
    if limits is None:
        low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 1.0)
    else:
        low, high = (as_number(function, "range", v) for v in limits)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ArgumentError(f"{function}: the range is from {low} to {high}; expected ascending finite numbers")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return numpy.linspace(low, high, count + 1).astype(x.dtype)


def _counted(function: str, x: Tensor, edges: Sequence[numpy.ndarray], points: numpy.ndarray, weight: Any, density: bool) -> Tensor:
    """The histogram of the rows of ``points``, as a tensor like x."""
    heavy = None
    if weight is not None:
        heavy = devices.to_host(wrap(weight, function).detach().array)
        wanted = tuple(x.shape) if function == "histogram" else tuple(x.shape[:-1])
        if heavy.shape != wanted or heavy.dtype != x.dtype:
            raise ShapeError(
                f"{function}: weight has shape {heavy.shape} and dtype {heavy.dtype}; expected {wanted} and {x.dtype}"
            )
        heavy = heavy.reshape(-1)
    try:
        with numpy.errstate(all="ignore"):  # a density of no elements is NaN
            hist, _ = numpy.histogramdd(points, [*edges], density=bool(density), weights=heavy)
    except ValueError as error:  # edges that are not ascending
        raise ArgumentError(f"{function}: {error}") from None
    return make_tensor(devices.move(hist.astype(x.dtype), x.device))


def _check_range(function: str, range: Any, count: int) -> None:
    if range is not None and (not isinstance(range, Sequence) or len(range) != count):
        raise ArgumentError(f"{function}: range={range!r}; expected a sequence of {count} numbers")


def _histogram_input(function: str, x: Tensor) -> numpy.ndarray:
    if x.dtype not in (dtypes.float32, dtypes.float64):
        raise DtypeError(f"{function}: the tensor has dtype {x.dtype}; expected float32 or float64")
    graph_break_on_read(f"{function}, which counts on the CPU")
    return numpy.asarray(devices.to_host(x.array))


@public("histogram")
def histogram(input: Any, bins: Any = 100, *, range: Any = None, weight: Any = None, density: bool = False) -> Histogram:
    """How many elements are in each bin, or the sum of their weights, and the edges of the bins; computed on the CPU.

    A bin contains its left edge, the last one its right edge, too.

    Args:
        bins: the number of equal bins, or a vector of ascending edges.
        range: the first and the last edge; None is the least and the greatest element.
        weight: like ``input``.
        density: divide by the sum and the widths of the bins.

    Raises:
        DtypeError: the tensor is neither float32 nor float64.
        ArgumentError: ``bins`` is not positive, or the range is not finite.
    """
    x = input.detach()
    values = _histogram_input("histogram", x).reshape(-1)
    _check_range("histogram", range, 2)
    edges = _edges("histogram", values, bins, range)
    hist = _counted("histogram", x, [edges], values[:, None], weight, density)
    return Histogram(hist, make_tensor(devices.move(edges, x.device)))


def histogramdd(input: Any, bins: Any, range: Any = None, weight: Any = None, density: bool = False) -> HistogramDD:
    """:func:`histogram` of points: the rows of ``input`` (..., dimensions).

    Args:
        bins: a number, numbers or tensors of edges, one for each dimension.
        range: the first and the last edge of each dimension, in one sequence.
    """
    x = wrap(input, "histogramdd").detach()
    if x.ndim < 2 or not x.shape[-1]:
        raise ShapeError(f"histogramdd: the tensor has shape {tuple(x.shape)}; expected (..., dimensions)")
    points = _histogram_input("histogramdd", x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    dims = points.shape[1]
    check_flag("histogramdd", "density", density)
    given = list(bins) if isinstance(bins, (tuple, list)) else [bins] * dims
    if len(given) != dims:
        raise ShapeError(f"histogramdd: {len(given)} bins for {dims} dimensions; expected equally many")
    _check_range("histogramdd", range, 2 * dims)
    limits = [None] * dims if range is None else [tuple(range[2 * d : 2 * d + 2]) for d in numpy.arange(dims)]
    edges = [_edges("histogramdd", points[:, d], given[d], limits[d]) for d in numpy.arange(dims)]
    hist = _counted("histogramdd", x, edges, points, weight, density)
    return HistogramDD(hist, tuple(make_tensor(devices.move(e, x.device)) for e in edges))
