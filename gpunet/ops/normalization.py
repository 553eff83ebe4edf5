"""Layer, RMS, group and instance norm, one launch forward and two backward; local response norm.

For images x (n, c, s) of c channels with s elements, divided into groups of channels, each group of an image is a row with

    mean, variance    of its elements, rstd = 1 / sqrt(variance + eps)
    y = act(w (x - mean) rstd + b)

where w and b have a number for each channel.  Layer norm (Ba, Kiros and Hinton 2016) has rows of n images with one group, and
s = 1: a weight for each element.  RMS norm (Zhang and Sennrich 2019) is the same without mean: the variance is the average of x^2.
Group norm is of Wu and He 2018, instance norm (Ulyanov, Vedaldi and Lempitsky 2016) has as many groups as channels.  With
g = dy w and h = (x - mean) rstd, backward computes

    dx = rstd (g - average of g - h average of (g h)), dw = sum of (dy h), db = sum of dy

with averages over the row, and sums over what shares the weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import Gradient, Tensor, fused, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, finfo, float32, is_floating, is_half
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import as_0d_arrays, empty, scratch, ticket
from gpunet.ops import reduce as reductions
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import absorb_activation, activation_backward, activation_forward, find
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.face import as_integer, as_number, as_positive, public
from gpunet.ops.gemm import NUM_MULTIPROCESSORS
from gpunet.ops.pad import pad
from gpunet.ops.shape import _unfold

__all__ = ["group_norm", "layer_norm", "local_response_norm", "rms_norm"]


# ---- helpers of twins -------------------------------------------------------------------------------------------------
# Numbers of channels are repeated for each of their s elements: long inner loops for any s, and all work on arrays of one shape,
# which a compiled step can do in few passes.


def per_column(values: ndarray, s: int, slot: int) -> ndarray:
    """Numbers of channels (c,) as numbers of columns (c s,)."""
    if s == 1:
        return values
    columns = scratch((values.size, s), values.dtype, slot)
    numpy.copyto(columns, values[:, None])
    return columns.reshape(values.size * s)


def sum_columns(out: ndarray, columns: ndarray, slot: int) -> None:
    """out (c,) = sums of an array (n, c s), or (n, groups, c s / groups), over n and s."""
    if math.prod(columns.shape[1:]) == out.size:
        numpy.add.reduce(columns, axis=0, out=out.reshape(columns.shape[1:]))
        return
    sums = scratch(columns.shape[1:], columns.dtype, slot)
    numpy.add.reduce(columns, axis=0, out=sums)
    numpy.add.reduce(sums.reshape(out.size, -1), axis=1, out=out)


def sum_column_products(out: ndarray, a: ndarray, b: ndarray, slot: int) -> None:
    """out (c,) = sums of a b, arrays as of :func:`sum_columns`, over n and s."""
    text = "ij,ij->j" if a.ndim == 2 else "ijk,ijk->jk"
    if math.prod(a.shape[1:]) == out.size:
        numpy.einsum(text, a, b, out=out.reshape(a.shape[1:]))
        return
    sums = scratch(a.shape[1:], a.dtype, slot)
    numpy.einsum(text, a, b, out=sums)
    numpy.add.reduce(sums.reshape(out.size, -1), axis=1, out=out)


def reciprocal_root(out: ndarray, eps: float) -> None:
    """out = 1 / sqrt(out + eps)."""
    out += out.dtype.type(eps)
    numpy.sqrt(out, out=out)
    numpy.divide(as_0d_arrays(out.dtype, 1)[0], out, out=out)


class _Rows:
    """The arrays of a twin as rows: those of shape (n, c, s) as (n, groups, size), numbers of rows as (n, groups)."""

    def __init__(self, x: ndarray, groups: int) -> None:
        n, c, self.s = x.shape
        self.groups, self.shape = groups, (n, groups, c // groups * self.s)
        self.average = x.dtype.type(1 / max(1, self.shape[2]))

    def all(self, x: ndarray) -> ndarray:
        return x.reshape(self.shape)

    def each(self, values: ndarray) -> ndarray:
        return values.reshape(self.shape[:2])

    def weights(self, w: ndarray, slot: int) -> ndarray:
        """Numbers of channels (c,) as (groups, size)."""
        return per_column(w, self.s, slot).reshape(self.shape[1:])


# ---- kernels ----------------------------------------------------------------------------------------------------------


@kernel("normalization.cu", outputs=4, types={"mean": "A", "rstd": "A"}, optional="z mean w b")
def group_norm_forward(y, z, mean, rstd, x, w, b, *, groups, eps, activation, alpha):
    """y = act(w (x - mean) rstd + b).  x (n, c, s), w and b (c,) -> y (n, c, s), mean and rstd (n groups,).

    z, the pre-activation, of the shape of y, or None.  Without ``mean``, x is not centred.
    """
    rows = _Rows(x, groups)
    source, out, scale = rows.all(x), rows.all(y), rows.each(rstd)
    if mean is not None:
        center = rows.each(mean)
        numpy.add.reduce(source, axis=2, out=center)
        center *= rows.average
        numpy.subtract(source, center[:, :, None], out=out)
        source = out
    numpy.einsum("ijk,ijk->ij", source, source, out=scale)
    scale *= rows.average
    reciprocal_root(scale, eps)
    numpy.multiply(source, scale[:, :, None], out=out)
    if w is not None:
        out *= rows.weights(w, 1)
    if b is not None:
        out += rows.weights(b, 1)
    if z is not None:
        numpy.copyto(z, y)
    ACTIVATIONS[activation].forward(y, y, alpha)


@kernel("normalization.cu", outputs=1, types={"mean": "A", "rstd": "A"}, optional="w mean")
def group_norm_backward_input(dx, dy, x, w, mean, rstd, *, groups):
    """The gradient of :func:`group_norm_forward`, without activation, with respect to x."""
    # dx = rstd g - slope x - shift
    rows = _Rows(x, groups)
    out, scale, of_x = rows.all(dx), rows.each(rstd), scratch(rows.shape, x.dtype, 1)
    slope, shift, product = (scratch(rows.shape[:2], x.dtype, slot) for slot in (2, 3, 4))
    if w is None:
        numpy.copyto(dx, dy)
    else:
        numpy.multiply(rows.all(dy), rows.weights(w, 5), out=out)
    numpy.einsum("ijk,ijk->ij", out, rows.all(x), out=slope)
    if mean is not None:
        center = rows.each(mean)
        numpy.add.reduce(out, axis=2, out=shift)
        numpy.multiply(shift, center, out=product)
        slope -= product
    numpy.multiply(scale, scale, out=product)
    product *= scale
    product *= rows.average
    slope *= product
    numpy.multiply(rows.all(x), slope[:, :, None], out=of_x)
    out *= scale[:, :, None]
    out -= of_x
    if mean is not None:
        shift *= scale
        shift *= rows.average
        slope *= center
        shift -= slope
        out -= shift[:, :, None]


@kernel(
    "normalization.cu", outputs=5, optional="dw db sums partials tickets mean scale",
    types={"sums": "A", "partials": "A", "tickets": "uint32", "mean": "A", "rstd": "A", "scale": "A"},
    workspace="partials", tickets="tickets",
)  # fmt: skip
def norm_backward_weight(dw, db, sums, partials, tickets, dy, x, mean, rstd, scale, *, groups):
    """dw = scale sum of (dy (x - mean) rstd), db = scale sum of dy, of each channel of x and dy (n, c, s).

    mean and rstd (n groups,), or (c,) if ``groups`` is 0; sums (2, c): both sums without the scale; scale (1,).  ``partials`` and
    ``tickets`` are workspace of the CUDA kernel (:func:`channel_workspace`).
    """
    rows = _Rows(x, groups or 1)
    normal, gradient = scratch(rows.shape, x.dtype, 1), rows.all(dy)
    total, product = (scratch(x.shape[1:2], x.dtype, 2), scratch(x.shape[1:2], x.dtype, 3)) if sums is None else sums
    if not groups:
        numpy.subtract(rows.all(x), rows.weights(mean, 4), out=normal)
    elif mean is None:
        numpy.multiply(rows.all(x), rows.each(rstd)[:, :, None], out=normal)
    else:
        numpy.subtract(rows.all(x), rows.each(mean)[:, :, None], out=normal)
        normal *= rows.each(rstd)[:, :, None]
    sum_column_products(product, gradient, normal, 4)
    if not groups:
        product *= rstd
    if db is not None or sums is not None:
        sum_columns(total, gradient, 4)
    for result, of in ((db, total), (dw, product)):
        if result is not None and scale is None:
            numpy.copyto(result, of)
        elif result is not None:
            numpy.multiply(of, scale.reshape(()), out=result)


MAX_BLOCKS = 65535  # of a launch; they take further rows in a loop
_WARP_ELEMENTS, _BLOCK_ELEMENTS = 1024, 8192  # of a row that a warp or a block keeps in registers


def _rows_geometry(x: Array, groups: int, *scalars: Any, struct: str = "") -> Geometry:
    """A warp for each row, or a block for a long one."""
    n, c, s = x.shape
    rows, size = n * groups, c // groups * s
    is_short = size <= _WARP_ELEMENTS
    flags = ("true" if is_short else "false", "true" if size <= _BLOCK_ELEMENTS else "false")
    grid = min(MAX_BLOCKS, ceil_div(rows, 8) if is_short else rows)
    return Geometry(grid, 256, (numpy.int64(rows), size, groups, s, *scalars), (struct, *flags) if struct else flags)


@group_norm_forward.geometry
def _(y, z, mean, rstd, x, w, b, *, groups, eps, activation, alpha):
    return _rows_geometry(x, groups, float(eps), float(alpha), struct=ACTIVATIONS[activation].struct)


@group_norm_backward_input.geometry
def _(dx, dy, x, w, mean, rstd, *, groups):
    return _rows_geometry(x, groups)


#: Images of fewer elements are summed with neighbouring threads on neighbouring channels: the rows of an image would not fill the
#: sectors of 32 bytes, 8 float32, that a GPU reads.
_NEIGHBOURS = 8
#: Packs of four elements that each thread of a slice sums at least, fewer than the 8 steps that combine the threads of a block; and
#: slices of a channel, which the last block adds one after the other.  Both are estimates, not measurements.
_MIN_PACKS, _MAX_SLICES = 4, 64


def channel_tiles(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How the channels of x (n, c, s) are summed on a GPU: channels of a tile, number of tiles, slices of a channel's elements.

    It depends on the shape alone, so that all GPUs compute the same bits.
    """
    n, c, s = shape
    channels = 32 if s < _NEIGHBOURS else 1
    tiles, packs = ceil_div(c, channels), ceil_div(n * s, 4)
    enough = max(1, packs * channels // (256 * _MIN_PACKS))
    return channels, tiles, min(_MAX_SLICES, enough, ceil_div(2 * NUM_MULTIPROCESSORS, max(1, tiles)))


def channel_workspace(x: Array, count: int) -> tuple[Any, Any]:
    """Allocate partial results, ``count`` numbers of each channel and slice, and a ticket for each tile and one for all.

    (None, None) on the CPU; a single slice has no partial results.
    """
    if type(x) is ndarray:
        return None, None
    _, tiles, slices = channel_tiles(x.shape)
    partials = empty((slices * count * x.shape[1],), accumulator(x.dtype), x) if slices > 1 else None
    return partials, ticket(x, tiles + 1)


def channel_geometry(x: Array, *scalars: Any) -> Geometry:
    """The geometry of a kernel whose scalars begin with n, c, s; ``scalars`` follow, with None for the number of slices."""
    channels, tiles, slices = channel_tiles(x.shape)
    numbers = [slices if scalar is None else scalar for scalar in scalars]
    return Geometry((tiles, slices), 256, (*x.shape, *numbers), (str(channels),))


@norm_backward_weight.geometry
def _(dw, db, sums, partials, tickets, dy, x, mean, rstd, scale, *, groups):
    return channel_geometry(x, groups, None)


group_norm_forward.absorbs(activation_forward)(absorb_activation)


# ---- the op -----------------------------------------------------------------------------------------------------------


def _rows_composed(x, w, b, *, shape, sizes, groups, eps, is_centred, activation, alpha, function):
    n, c, s = shape
    rows = x.reshape(n * groups, c // groups * s)
    if is_centred:
        rows = rows - reductions.mean(rows, 1, True)
    rows = rows / (reductions.mean(rows * rows, 1, True) + eps).sqrt()
    y = rows.reshape(n, c, s)
    if w is not None:
        y = y * w.reshape(c, 1)
    y = y if b is None else y + b.reshape(c, 1)
    return find(activation).composed(y.reshape(*x.shape), alpha)


def activation_gradient(dy: Any, residual: Array | None, activation: str, alpha: float) -> Array:
    """The gradient of the pre-activation, without the pending scale."""
    if activation == "identity":
        return dy.array
    dz = empty(dy.array.shape, dy.array.dtype, dy.array)
    activation_backward(dz, dy.array, residual, activation=activation, alpha=alpha)
    return dz


@fused(composed=in_accumulator(_rows_composed), name_from=lambda options: options["function"], takes_scale=True)
def normalized_rows(x, w, b, *, shape, sizes, groups, eps, is_centred, activation, alpha, function, need):
    """Norm of each group of each image; w and b have a number for each channel, or are None.

    Args:
        shape: (n, c, s), as which x is read.
        sizes: the shape of w and b.
        function: the public function, for messages.
    """
    row, dtype, rows = find(activation), accumulator(x.dtype), (shape[0] * groups,)
    y = empty(x.shape, x.dtype, x)
    z = empty(x.shape, x.dtype, x) if row.saves == "preactivation" else None
    mean, rstd = empty(rows, dtype, x) if is_centred else None, empty(rows, dtype, x)
    if x.size:
        out, before, images, weights, biases = reshaped(shape, (y, z, x), (w, b))
        options = {"groups": groups, "eps": eps, "activation": activation, "alpha": alpha}
        group_norm_forward(out, before, mean, rstd, images, weights, biases, **options)
    return y, (x, w if need[0] else None, mean, rstd, y if row.saves == "output" else z)


def as_images(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape (n, c, ...) as (n, c, s)."""
    return shape[0], shape[1], math.prod(shape[2:])


def reshaped(shape: tuple[int, ...], arrays: Sequence[Any], parameters: Sequence[Any]) -> list[Any]:
    """Views of arrays in the shape (n, c, s), and of parameters in the shape (c,); None stays None."""
    found = [a if a is None or a.shape == shape else a.reshape(shape) for a in arrays]
    return found + [p if p is None or p.ndim == 1 else p.reshape(shape[1]) for p in parameters]


@normalized_rows.backward
def _(saved, dy, *, shape, sizes, groups, eps, is_centred, activation, alpha, function, need):
    x, w, mean, rstd, residual = saved
    dz = activation_gradient(dy, residual, activation, alpha)
    dw = empty(sizes, x.dtype, x) if need[1] else None
    db = empty(sizes, x.dtype, x) if need[2] else None
    images, gradient, of_w, of_b = reshaped(shape, (x, dz), (dw, db))
    if dw is not None or db is not None:
        partials, tickets = channel_workspace(images, 2)
        norm_backward_weight(of_w, of_b, None, partials, tickets, gradient, images, mean, rstd, dy.scale, groups=groups)
    if not need[0]:
        return None, dw, db
    dx = empty(x.shape, x.dtype, x)
    if x.size:
        of_x, weights = reshaped(shape, (dx,), (w,))
        group_norm_backward_input(of_x, gradient, images, weights, mean, rstd, groups=groups)
    return dx if dy.scale is None else Gradient(dx, dy.scale), dw, db


# ---- public functions -------------------------------------------------------------------------------------------------


def check_eps(function: str, eps: Any) -> float:
    """Return ``eps`` as a float.

    Raises:
        ArgumentError: it is negative, infinite or NaN.
    """
    eps = as_number(function, "eps", eps)
    if not 0.0 <= eps < math.inf:
        raise ArgumentError(f"{function}: eps={eps:g}; expected zero or a positive number")
    return eps


def norm_operands(function: str, input: Any, shape: tuple[int, ...] | None, **parameters: Any) -> list[Any]:
    """The input, and weight and bias as tensors or None, in one dtype.  A half beside float32 parameters is widened.

    Args:
        shape: of the parameters.

    Raises:
        DtypeError: the input is not floating, or the dtypes differ.
        ShapeError: a parameter has another shape.
    """
    x = wrap(input)
    if not is_floating(x.array.dtype):
        raise DtypeError(f"{function}: the input has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    found: list[Any] = [x]
    for name, value in parameters.items():
        value = None if value is None else wrap(value)
        if value is not None and value.array.shape != shape:
            raise ShapeError(
                f"{function}: {name} has shape {tuple(value.shape)}; expected {shape} for an input of shape {tuple(x.shape)}"
            )
        found.append(value)
    for name, value in zip(parameters, found[1:]):
        if value is None or value.array.dtype == found[0].array.dtype:
            continue
        if not (is_half(x.array.dtype) and value.array.dtype == float32):
            raise DtypeError(
                f"{function}: {name} has dtype {value.dtype}; expected that of the input, {x.dtype}: use .to({x.dtype})"
            )
        found = [v if v is None or v.array.dtype == float32 else cast(v, dtype=float32) for v in found]
    return found


def rounded(y: Tensor, input: Any) -> Tensor:
    """y in the dtype of the input (see :func:`norm_operands`)."""
    dtype = wrap(input).array.dtype
    return y if y.array.dtype == dtype else cast(y, dtype=dtype)


def normalized_sizes(function: str, normalized_shape: Any) -> tuple[int, ...]:
    """``normalized_shape``, an integer or integers, as a tuple.

    Raises:
        ArgumentError: it has no sizes, or a negative one.
    """
    sizes = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    numbers = tuple([as_integer(function, "normalized_shape", size) for size in sizes])
    if not numbers or min(numbers) < 0:
        raise ArgumentError(
            f"{function}: normalized_shape={normalized_shape!r}; expected the sizes of the last dimensions of the input"
        )
    return numbers


@casts("cuda: float32")
def normalize_layers(
    function: str, input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, is_centred: bool,
    activation: str = "identity", alpha: float = 0.0,
) -> Tensor:  # fmt: skip
    """Layer or RMS norm, and the activation behind it, in one launch; the other arguments are those of :func:`layer_norm`."""
    sizes = normalized_sizes(function, normalized_shape)
    x, w, b = norm_operands(function, input, sizes, weight=weight, bias=bias)
    shape = x.array.shape
    if shape[max(0, len(shape) - len(sizes)) :] != sizes:
        raise ShapeError(
            f"{function}: the input has shape {tuple(shape)}, normalized_shape={list(sizes)}; expected an input (*, "
            f"{', '.join(map(str, sizes))})"
        )
    y = normalized_rows(
        x, w, b, shape=(math.prod(shape[: len(shape) - len(sizes)]), math.prod(sizes), 1), sizes=sizes, groups=1, eps=eps,
        is_centred=is_centred, activation=activation, alpha=alpha, function=function,
    )  # fmt: skip
    return rounded(y, input)


@public(out=False)
def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """w (x - mean) / sqrt(variance + eps) + b, with mean and variance over the last dimensions (Ba, Kiros and Hinton 2016).

    Args:
        input: (*, normalized_shape), floating.
        normalized_shape: the sizes of the last dimensions, over which each row is normalized; an integer means one dimension.
        weight, bias: of the shape ``normalized_shape``, or None.
        eps: added to the (biased) variance.

    Returns:
        A tensor of the shape and dtype of the input.

    Raises:
        ShapeError: the input does not end in ``normalized_shape``, or a parameter has another shape.
        DtypeError: the input is not floating, or the dtypes differ.
        ArgumentError: eps is negative, or ``normalized_shape`` is empty.
    """
    return normalize_layers("layer_norm", input, normalized_shape, weight, bias, check_eps("layer_norm", eps), True)


@public(out=False)
def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """w x / sqrt(average of x^2 + eps), with averages over the last dimensions (Zhang and Sennrich 2019).

    Args:
        input, normalized_shape, weight: as of :func:`layer_norm`.
        eps: added to the average; None means the machine epsilon of the dtype (of halves, that of float32).

    Raises:
        ShapeError, DtypeError, ArgumentError: as of :func:`layer_norm`.
    """
    return normalize_layers("rms_norm", input, normalized_shape, weight, None, rms_eps(input, eps), False)


def rms_eps(input: Any, eps: float | None) -> float:
    """The ``eps`` of :func:`rms_norm`; its default if None."""
    if eps is not None:
        return check_eps("rms_norm", eps)
    dtype = wrap(input).array.dtype
    return float(finfo(accumulator(dtype)).eps) if is_floating(dtype) else 0.0


@casts("cuda: float32")
def normalize_groups(
    function: str, input: Any, num_groups: int, weight: Any, bias: Any, eps: float, activation: str = "identity", alpha: float = 0.0
) -> Tensor:
    """Group norm, and the activation behind it, in one launch; the other arguments are those of :func:`group_norm`."""
    shape = tuple(wrap(input).array.shape)
    if len(shape) < 2:
        raise ShapeError(f"{function}: the input has shape {shape}; expected (batch, channels, ...)")
    if shape[1] % num_groups:
        raise ShapeError(f"{function}: the input {shape} has {shape[1]} channels; expected a multiple of num_groups={num_groups}")
    x, w, b = norm_operands(function, input, shape[1:2], weight=weight, bias=bias)
    if math.prod(shape) == num_groups:
        raise ShapeError(
            f"{function}: the input {shape} has one value in each of num_groups={num_groups}; expected more, since the variance of "
            "one is 0"
        )
    y = normalized_rows(
        x, w, b, shape=as_images(shape), sizes=shape[1:2], groups=num_groups, eps=eps, is_centred=True, activation=activation,
        alpha=alpha, function=function,
    )  # fmt: skip
    return rounded(y, input)


@public(out=False)
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """w (x - mean) / sqrt(variance + eps) + b, with mean and variance over each group of channels of an image (Wu and He 2018).

    Args:
        input: (n, channels, ...), floating.
        num_groups: a divisor of the number of channels.
        weight, bias: (channels,), or None.
        eps: added to the (biased) variance.

    Returns:
        A tensor of the shape and dtype of the input.

    Raises:
        ShapeError: the channels are no multiple of ``num_groups``, a group has a single value, or a parameter has another shape.
        DtypeError: the input is not floating, or the dtypes differ.
        ArgumentError: eps is negative, or ``num_groups`` is less than 1.
    """
    groups, eps = as_positive("group_norm", "num_groups", num_groups), check_eps("group_norm", eps)
    return normalize_groups("group_norm", input, groups, weight, bias, eps)


@public(out=False, autocast="float32")
def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha average)^beta, where the average is of x^2 over ``size`` neighbouring channels (Krizhevsky et al. 2012).

    Args:
        input: (n, channels, ...), floating.
        size: number of channels; beyond the first and last one, x is 0.

    Raises:
        ShapeError: the input has fewer than three dimensions.
        DtypeError: it is not floating.
        ArgumentError: size is less than 1.
    """
    size = as_positive("local_response_norm", "size", size)
    (x,) = norm_operands("local_response_norm", input, None)
    if x.ndim < 3:
        raise ShapeError(
            f"local_response_norm: the input has shape {tuple(x.shape)}; expected (batch, channels, ...), 3 dimensions or more"
        )
    numbers = [as_number("local_response_norm", name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))]
    return _local_response_norm(x, size, size, *numbers)


def norm_across_maps(input: Any, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """:func:`local_response_norm` of images, over the largest odd number of channels up to ``size``; the sum divided by ``size``.

    Raises:
        ShapeError: the input has not four dimensions.
        DtypeError: it is not floating.
        ArgumentError: size is less than 1.
    """
    size = as_positive("CrossMapLRN2d", "size", size)
    (x,) = norm_operands("CrossMapLRN2d", wrap(input), None)
    if x.ndim != 4:
        raise ShapeError(f"CrossMapLRN2d: the input has shape {tuple(x.shape)}; expected (batch, channels, height, width)")
    numbers = [as_number("CrossMapLRN2d", name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))]
    return _local_response_norm(x, size - (size % 2 == 0), size, *numbers)


@in_accumulator
def _local_response_norm(x, size, divisor, alpha, beta, k):
    if not x.array.size:
        return x * 1.0
    squares = pad(x * x, (*(0, 0) * (x.ndim - 2), size // 2, (size - 1) // 2))
    average = reductions.sum(_unfold(squares, dim=1, size=size, step=1), -1) / divisor
    return x / (average * alpha + k) ** beta
