"""Convolution of images: act(x * w + b) in one launch (cross-correlation, as in PyTorch).

For images x (n, c, height, width) and filters w (o, c / groups, r, s), the result y (n, o, p, q) has

    y[n, o, i, j] = b[o] + sum over c, r, s of
        x[n, c, i stride - padding + r dilation, j stride - padding + s dilation] w[o, c, r, s]

where x is 0 outside.  It is a matrix product for each group: channels o by pixels (n, i, j), summed over taps (c, r, s).  So are
its gradients (Chellapilla, Puri and Simard 2006): dX sums over (o, r, s), dW over (n, i, j).  The CUDA kernels read windows of
the images as operands of the product and store no columns (``cuda_kernels/gemm/window.cuh``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.autograd import Gradient, Tensor, fused, wrap
from gpunet.autograd.autocast import casts
from gpunet.autograd.op import Composite, observers
from gpunet.backend import blas
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.kernel import ceil_div, kernel
from gpunet.launch.memory import call_library, empty, scratch
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import absorb_activation, absorb_derivative, activation_backward, activation_forward, find
from gpunet.ops.face import as_integer, as_positive, public
from gpunet.ops.gemm import best_cut, geometry, whole_flag, window_shape, workspace
from gpunet.ops.matmul import matmul
from gpunet.ops.pad import pad
from gpunet.ops.shape import _permute, _reshape, _unfold
from gpunet.ops.windows import per_dimension

__all__ = ["conv1d", "conv2d", "conv3d", "conv_tbc"]

Pair = tuple[int, int]


class Window(NamedTuple):
    """How filters move over images; pairs are (vertical, horizontal)."""

    extent: Pair  # of the images, (height, width)
    filters: tuple[int, int, int, int]  # the shape of w, (o, c / groups, r, s)
    size: Pair  # of the result, (p, q)
    stride: Pair
    padding: Pair  # above and to the left; what is needed below and to the right follows from the size
    dilation: Pair
    groups: int


# ---- twins: products on columns ---------------------------------------------------------------------------------------
# Columns are copies of the images, one for each tap of a filter.  With a vertical stride of 1, only the horizontal taps are
# copied: the product computes the vertical taps as further rows of the result, which are shifted and added.  So 3 x 3 filters
# need 3 copies instead of 9, and three times as many rows make the product faster.

#: Bytes of the columns of the images that are processed at once: they stay in the L2 cache, or in the share of a core of L3.
_CHUNK_BYTES = 1 << 21
_MAX_CHUNKS = 32  # of a batch: each is some NumPy calls of a captured step
_MAX_WASTE = 1.4  # computed rows of pixels for each row of the result
_LEAST_PIXELS = 64  # of an image whose pixels are columns as they are


def _chunks(count: int, bytes_per_image: int) -> list[slice]:
    """Divide a batch into chunks of nearly equal size."""
    step = max(1, _CHUNK_BYTES // max(1, bytes_per_image), ceil_div(count, _MAX_CHUNKS))
    step = max(1, ceil_div(count, max(1, ceil_div(count, step))))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class _Overlap(NamedTuple):
    """The pixels of a result for which a tap lies inside of the image, and the pixels that it reads there."""

    rows: slice
    columns: slice
    ys: slice
    xs: slice

    @classmethod
    def of(cls, size: Pair, extent: Pair, place: Pair, stride: Pair) -> _Overlap:
        """Of a result of ``size`` with images of ``extent``; ``place`` is where the tap of the first pixel lies."""
        found = []
        for count, length, first, step in zip(size, extent, place, stride):
            low = min(count, max(0, -(first // step)))
            high = max(low, min(count, (length - 1 - first) // step + 1))
            start = max(0, first + low * step)
            found.append((slice(low, high), slice(start, start + max(0, (high - low - 1) * step + 1) * (high > low), step)))
        return cls(found[0][0], found[1][0], found[0][1], found[1][1])

    def zero_outside(self, out: ndarray) -> None:
        """Set the other pixels of out (c, n, rows, columns) to 0."""
        top, bottom, left, right = self.rows.start, self.rows.stop, self.columns.start, self.columns.stop
        for part in (out[:, :, :top], out[:, :, bottom:], out[:, :, top:bottom, :left], out[:, :, top:bottom, right:]):
            if part.size:
                part.fill(0)

    def copy(self, out: ndarray, images: ndarray) -> None:
        """Copy what the tap reads from images (n, c, height, width) to out (c, n, rows, columns)."""
        target = out[:, :, self.rows, self.columns]
        if target.size:
            numpy.copyto(target, images[:, :, self.ys, self.xs].transpose(1, 0, 2, 3))

    def add(self, images: ndarray, out: ndarray) -> None:
        """Add ``out`` to what the tap reads."""
        target = images[:, :, self.ys, self.xs]
        if target.size:
            target += out[:, :, self.rows, self.columns].transpose(1, 0, 2, 3)


class _Columns:
    """The columns of a batch of images.

    Args:
        images: (n, groups c, height, width).
        filters: the extents (r, s) of filters.

    Attributes:
        num_shifts: vertical taps that the product computes.
        rows: of pixels of an image in the columns.
        depth: taps of a group in the columns.
        chunks: of the batch.
        chunk: the size of the first one, which is the largest.
    """

    def __init__(self, images: ndarray, filters: Pair, window: Window) -> None:
        (rows, columns), (down, across) = window.size, filters
        self.images, self.window = images, window
        extent = rows + (down - 1) * window.dilation[0]
        self.num_shifts = down if window.stride[0] == 1 and extent <= _MAX_WASTE * rows else 1
        self.taps = (down // self.num_shifts, across)
        self.rows = extent if self.num_shifts > 1 else rows
        num_columns = images.shape[1] * math.prod(self.taps)
        self.depth = num_columns // window.groups
        self.chunks = _chunks(len(images), num_columns * self.rows * columns * images.itemsize)
        self.chunk = self.chunks[0].stop if self.chunks else 0

    def __iter__(self) -> Iterator[tuple[slice, ndarray]]:
        """Yield each chunk, and the columns of its images (groups, depth, images rows columns)."""
        window, size = self.window, (self.rows, self.window.size[1])
        copies = scratch((self.images.shape[1], *self.taps, self.chunk, *size), self.images.dtype, 4)
        overlaps = {}
        for r in range(self.taps[0]):
            for s in range(self.taps[1]):
                place = r * window.dilation[0] - window.padding[0], s * window.dilation[1] - window.padding[1]
                overlap = overlaps[r, s] = _Overlap.of(size, self.images.shape[2:], place, window.stride)
                overlap.zero_outside(copies[:, r, s])
        for chunk in self.chunks:
            count = chunk.stop - chunk.start
            for (r, s), overlap in overlaps.items():
                overlap.copy(copies[:, r, s, :count], self.images[chunk])
            yield chunk, copies.reshape(window.groups, self.depth, -1)[:, :, : count * math.prod(size)]

    def as_rows(self, w: ndarray) -> ndarray:
        """Filters (groups, o, c, r, s) as the rows of a product (groups, o num_shifts, depth)."""
        groups, o, c = w.shape[:3]
        rows = scratch((groups, o, self.num_shifts, c, *self.taps), w.dtype, 5)
        numpy.copyto(rows, w[:, :, None] if self.num_shifts == 1 else w.transpose(0, 1, 3, 2, 4)[:, :, :, :, None])
        return rows.reshape(groups, -1, self.depth)


def _first(buffer: ndarray, *shape: int) -> ndarray:
    """The first elements of a buffer in this shape: numpy.dot writes to contiguous arrays only."""
    return buffer.reshape(-1)[: math.prod(shape)].reshape(shape)


def _multiply(a: ndarray, b: ndarray, out: ndarray) -> None:
    """out[g] = a[g] b[g] for each group."""
    if len(out) > 1 and out[0].size * a.shape[2] < blas.LEAST:
        numpy.matmul(a, b, out=out)
        return
    for left, right, product in zip(a, b, out):
        blas.dot(left, right, out=product)


def _grouped(w: ndarray, groups: int) -> ndarray:
    """Filters (groups o, c, r, s) as (groups, o, c, r, s)."""
    return w.reshape(groups, len(w) // groups, *w.shape[1:])


def _correlate(y: ndarray, x: ndarray, w: ndarray, window: Window) -> None:
    """y = the convolution of x with filters w (groups, o, c, r, s)."""
    n, (groups, o, c), (rows, columns) = len(x), w.shape[:3], window.size
    is_pointwise = w.shape[3:] == window.stride == (1, 1) and window.padding == (0, 0)
    if is_pointwise and rows * columns >= _LEAST_PIXELS:  # no copies are needed
        filters, pixels = w.reshape(groups, o, c), rows * columns
        for image, out in zip(x.reshape(n, groups, c, pixels), y.reshape(n, groups, o, pixels)):
            _multiply(filters, image, out)
        return
    images = _Columns(x, w.shape[3:], window)
    filters, shifts = images.as_rows(w), [r * window.dilation[0] for r in range(images.num_shifts)]
    buffer = scratch((groups * o * len(shifts) * images.chunk * images.rows * columns,), y.dtype, 6)
    for chunk, copies in images:
        out = y[chunk].reshape(-1, groups, o, rows, columns).transpose(1, 2, 0, 3, 4)
        count = out.shape[2]
        products = _first(buffer, groups, o, len(shifts), count, images.rows, columns)
        _multiply(filters, copies, products.reshape(groups, o * len(shifts), copies.shape[2]))
        parts = [products[:, :, r, :, shift : shift + rows] for r, shift in enumerate(shifts)]
        if len(parts) == 1:
            numpy.copyto(out, parts[0])
            continue
        numpy.add(parts[0], parts[1], out=out)
        for part in parts[2:]:
            out += part


def _correlate_transposed(dx: ndarray, dy: ndarray, w: ndarray, window: Window) -> None:
    """dx = the gradient of :func:`_correlate` with respect to x."""
    groups, o, c, down, across = w.shape
    dilation, padding = window.dilation, window.padding
    if window.stride == (1, 1):  # a convolution of dy with the filters turned by 180 degrees
        turned = w[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4)
        border = (dilation[0] * (down - 1) - padding[0], dilation[1] * (across - 1) - padding[1])
        _correlate(dx, dy, turned, window._replace(size=dx.shape[2:], padding=border))
        return
    filters = scratch((groups, c, down, across, o), w.dtype, 5)
    numpy.copyto(filters, w.transpose(0, 2, 3, 4, 1))
    dx.fill(0)
    chunks = _chunks(len(dy), groups * c * down * across * math.prod(window.size) * dy.itemsize)
    most = chunks[0].stop * math.prod(window.size) if chunks else 0
    buffers = scratch((groups * o * most,), dy.dtype, 6), scratch((groups * c * down * across * most,), dy.dtype, 4)
    for chunk in chunks:
        shape = (chunk.stop - chunk.start, *window.size)
        channels, copies = _first(buffers[0], groups * o, *shape), _first(buffers[1], groups * c, down, across, *shape)
        numpy.copyto(channels, dy[chunk].transpose(1, 0, 2, 3))
        pixels = math.prod(shape)
        rows = filters.reshape(groups, c * down * across, o)
        _multiply(rows, channels.reshape(groups, o, pixels), copies.reshape(groups, c * down * across, pixels))
        for r in range(down):
            for s in range(across):
                place = r * dilation[0] - padding[0], s * dilation[1] - padding[1]
                _Overlap.of(window.size, dx.shape[2:], place, window.stride).add(dx[chunk], copies[:, r, s])


def _correlate_weight(dw: ndarray, dy: ndarray, x: ndarray, window: Window) -> None:
    """dw (groups, o, c, r, s) = the gradient of :func:`_correlate` with respect to w."""
    groups, o, c, down, across = dw.shape
    images = _Columns(x, (down, across), window)
    num_shifts, size = images.num_shifts, (images.rows, window.size[1])
    overlaps = [_Overlap.of(size, window.size, (-r * window.dilation[0], 0), (1, 1)) for r in range(num_shifts)]
    shifted = scratch((groups * o, num_shifts, images.chunk, *size), dy.dtype, 7)
    for r, overlap in enumerate(overlaps):
        overlap.zero_outside(shifted[:, r])
    shape = (groups, o * num_shifts, images.depth)
    total, part = scratch(shape, dw.dtype, 6), scratch(shape, dw.dtype, 8)
    if not images.chunks:
        total.fill(0)
    for chunk, copies in images:
        for r, overlap in enumerate(overlaps):
            overlap.copy(shifted[:, r, : chunk.stop - chunk.start], dy[chunk])
        gradient = shifted.reshape(groups, o * num_shifts, -1)[:, :, : copies.shape[2]]
        _multiply(gradient, copies.transpose(0, 2, 1), part if chunk.start else total)
        if chunk.start:
            total += part
    if num_shifts == 1:
        numpy.copyto(dw, total.reshape(dw.shape))
    else:
        numpy.copyto(dw, total.reshape(groups, o, down, c, across).transpose(0, 1, 3, 2, 4))


def _by_onednn(kind: str, outputs: Any, inputs: Any, x: ndarray, y: ndarray, window: Window) -> bool:
    """Compute a large convolution of images x with result y, or one of its gradients, by oneDNN; False if that cannot be done."""
    arrays = (*outputs, *inputs)
    if y.dtype != numpy.float32 or y.size * math.prod(window.filters[1:]) < blas.LEAST:
        return False
    from gpunet.backend import onednn  # loaded at the first large convolution only

    geometry = onednn.Geometry(x.shape, window.filters, y.shape, window.stride, window.padding, window.dilation)
    if not onednn.is_compiled(kind, geometry, len(arrays) == 4 and all(a is not None for a in arrays)):
        return False
    call_library(onednn.convolve, outputs, inputs, kind=kind, geometry=geometry, scratch=scratch)
    return True


# ---- kernels ----------------------------------------------------------------------------------------------------------

_SPLIT = {"partials": "A", "tickets": "uint32"}


@kernel("convolution.cu", outputs=4, types=_SPLIT, optional="z partials tickets b", workspace="partials", tickets="tickets")
def conv2d_forward(y, z, partials, tickets, x, w, b, *, window, activation, alpha, cut=None):
    """y = act(x * w + b).  x (n, c, height, width), w (o, c / groups, r, s), b (o,) -> y (n, o, p, q).

    z, the pre-activation, of the shape of y, or None.  ``cut``, ``partials`` and ``tickets`` are as in
    :func:`gpunet.ops.linear.linear_forward`.
    """
    if not _by_onednn("forward", (y,), (x, w, b), x, y, window):
        _correlate(y, x, _grouped(w, window.groups), window)
        if b is not None:
            y += b.reshape(-1, 1, 1)
    if z is not None:
        numpy.copyto(z, y)
    ACTIVATIONS[activation].forward(y, y, alpha)


@kernel("convolution.cu", outputs=3, types=_SPLIT, optional="partials tickets saved", workspace="partials", tickets="tickets")
def conv2d_backward_input(dx, partials, tickets, dy, w, saved, *, window, activation, alpha, cut=None):
    """dx = (w over the windows of dy) * act'(saved).  dy (n, o, p, q), w as in forward, saved and dx of the shape of x."""
    if not _by_onednn("backward_data", (dx,), (dy, w), dx, dy, window):
        _correlate_transposed(dx, dy, _grouped(w, window.groups), window)
    ACTIVATIONS[activation].backward(dx, dx, saved, alpha)


@kernel(
    "convolution.cu", outputs=4, types={**_SPLIT, "scale": "A"}, optional="dw db partials tickets x scale",
    workspace="partials", tickets="tickets",
)  # fmt: skip
def conv2d_backward_weight(dw, db, partials, tickets, dy, x, scale, *, window, cut=None):
    """dw = scale * (dy over the windows of x), db = scale * (sums of dy by channel).

    dy (n, o, p, q), x as in forward, scale (1,); x may be None if dw is None.
    """
    if dw is None or not _by_onednn("backward_weights", (dw, db), (dy, x), x, dy, window):
        if dw is not None:
            _correlate_weight(_grouped(dw, window.groups), dy, x, window)
        if db is not None:
            numpy.add.reduce(dy, axis=(0, 2, 3), out=db)
    if scale is not None:
        factor = scale.reshape(())
        for gradient in (dw, db):
            if gradient is not None:
                gradient *= factor


def forward_product(y: Array, w: Array, window: Window) -> tuple[int, int, int, int]:
    """(rows, columns, depth, batches) of the product: channels by pixels by taps, for each group."""
    return w.shape[0] // window.groups, len(y) * math.prod(window.size), math.prod(w.shape[1:]), window.groups


def input_product(dx: Array, w: Array, window: Window) -> tuple[int, int, int, int]:
    o, c, *taps = w.shape
    return c, len(dx) * math.prod(window.extent), o // window.groups * math.prod(taps), window.groups


def weight_product(dw: Array | None, dy: Array, window: Window) -> tuple[int, int, int, int]:
    o, n = dy.shape[1] // window.groups, len(dy) * math.prod(window.size)
    return o, 0 if dw is None else math.prod(dw.shape[1:]), n, window.groups


@conv2d_forward.geometry
def _(y, z, partials, tickets, x, w, b, *, window, activation, alpha, cut=None):
    rows, columns, depth, groups = forward_product(y, w, window)
    scalars, whole = (groups, _windows_of_x(window), alpha), whole_flag(w.reshape(len(w), -1))
    return geometry(rows, columns, depth, cut, scalars, whole, ACTIVATIONS[activation].struct, batches=groups)


@conv2d_backward_input.geometry
def _(dx, partials, tickets, dy, w, saved, *, window, activation, alpha, cut=None):
    padding, dilation = window.padding, window.dilation
    turned = (-dilation[0], -dilation[1])
    shape = window_shape(dy.shape[1], window.size, window.extent, w.shape[2:], (1, 1), padding, turned, window.stride)
    divides = "false" if window.stride == (1, 1) else "true"
    rows, columns, depth, groups = input_product(dx, w, window)
    return geometry(rows, columns, depth, cut, (groups, shape, alpha), divides, ACTIVATIONS[activation].struct, batches=groups)


@conv2d_backward_weight.geometry
def _(dw, db, partials, tickets, dy, x, scale, *, window, cut=None):
    rows, columns, depth, groups = weight_product(dw, dy, window)
    return geometry(rows, columns, depth, cut, (groups, _windows_of_x(window)), batches=groups)


def _windows_of_x(window: Window) -> ndarray:
    channels, first = window.filters[1] * window.groups, (-window.padding[0], -window.padding[1])
    return window_shape(channels, window.extent, window.size, window.filters[2:], window.stride, first, window.dilation)


conv2d_forward.absorbs(activation_forward)(absorb_activation)
conv2d_backward_input.absorbs(activation_backward)(absorb_derivative)


# ---- the op -----------------------------------------------------------------------------------------------------------


def convolution_composed(x, w, b, *, window, activation, alpha, function):
    groups, (n, c, height, width), (o, _, down, across) = window.groups, x.shape, w.shape
    (rows, columns), dilation = window.size, window.dilation
    widths: list[int] = []
    for extent, count, low, stride, dilated, taps in zip(
        (width, height), window.size[::-1], window.padding[::-1], window.stride[::-1], dilation[::-1], (across, down)
    ):
        widths += (low, (count - 1) * stride + dilated * (taps - 1) + 1 - extent - low)  # what no window reads is cropped
    x = pad(x, widths)
    for dim, taps in ((2, down), (3, across)):
        x = _unfold(x, dim=dim, size=dilation[dim - 2] * (taps - 1) + 1, step=window.stride[dim - 2])[..., :: dilation[dim - 2]]
    taps = x.reshape(n, groups, c // groups, rows, columns, down, across).permute(1, 2, 5, 6, 0, 3, 4)
    depth = c // groups * down * across
    product = matmul(w.reshape(groups, o // groups, depth), taps.reshape(groups, depth, n * rows * columns))
    z = product.reshape(o, n, rows, columns).permute(1, 0, 2, 3)
    return find(activation).composed(z if b is None else z + b.reshape(o, 1, 1), alpha)


@fused(composed=convolution_composed, name_from=lambda options: options["function"], takes_scale=True)
def convolution(x, w, b, *, window, activation, alpha, function, need):
    """act(x * w + b): x (n, c, height, width), w (o, c / groups, r, s), b (o,) or None -> (n, o, p, q)."""
    row = find(activation)
    y = empty((len(x), len(w), *window.size), x.dtype, x)
    z = empty(y.shape, y.dtype, y) if row.saves == "preactivation" else None
    if type(x) is ndarray:
        conv2d_forward(y, z, None, None, x, w, b, window=window, activation=activation, alpha=alpha)
    else:
        cut = best_cut(*forward_product(y, w, window))
        conv2d_forward(y, z, *workspace(x, cut), x, w, b, window=window, activation=activation, alpha=alpha, cut=cut)
    return y, (x if need[1] else None, w if need[0] else None, y if row.saves == "output" else z)


@convolution.backward
def _(saved, dy, *, window, activation, alpha, function, need):
    x, w, residual = saved
    dz, scale, shape = dy.array, dy.scale, window.filters
    if activation != "identity":
        dz = empty(dz.shape, dz.dtype, dz)
        activation_backward(dz, dy.array, residual, activation=activation, alpha=alpha)
    dw = empty(shape, dz.dtype, dz) if need[1] else None
    db = empty(shape[:1], dz.dtype, dz) if need[2] else None
    if dw is not None or db is not None:
        if type(dz) is ndarray:
            conv2d_backward_weight(dw, db, None, None, dz, x, scale, window=window)
        else:
            cut = best_cut(*weight_product(dw, dz, window))
            conv2d_backward_weight(dw, db, *workspace(dz, cut, extra=1), dz, x, scale, window=window, cut=cut)
    dx: Any = None
    if need[0]:
        dx = empty((len(dz), shape[1] * window.groups, *window.extent), dz.dtype, dz)
        options = {"window": window, "activation": "identity", "alpha": 0.0}
        if type(dz) is ndarray:
            conv2d_backward_input(dx, None, None, dz, w, None, **options)
        else:
            cut = best_cut(*input_product(dx, w, window))
            conv2d_backward_input(dx, *workspace(dz, cut), dz, w, None, **options, cut=cut)
    return dx if dx is None or scale is None else Gradient(dx, scale), dw, db


#: What exports see instead of the op on images.
CONV3D = Composite("conv3d")
_DIMS_TEXT = {1: "length", 2: "height, width", 3: "depth, height, width"}
_SAMPLES = {1: "signal", 2: "image", 3: "volume"}


def paddings(
    function: str, padding: Any, filters: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of padding before each dimension (above, to the left), and behind it.

    Raises:
        ArgumentError: an unknown word, "same" with a stride, or a negative number.
    """
    if not isinstance(padding, str):
        both = per_dimension(function, "padding", padding, len(filters), 0)
        return both, both
    nothing = (0,) * len(filters)
    if padding == "valid":
        return nothing, nothing
    if padding != "same":
        raise ArgumentError(f"{function}: padding={padding!r}; expected integers, 'valid' or 'same'")
    if any(step != 1 for step in stride):
        raise ArgumentError(f"{function}: padding='same' with stride={stride}; expected a stride of 1: pass the widths as integers")
    total = [d * (k - 1) for d, k in zip(dilation, filters)]
    return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)


def check_tensors(function: str, x: Tensor, w: Tensor, b: Tensor | None, dims: int) -> None:
    """Check numbers of dimensions and dtypes of input (with a batch), filters and bias.

    Raises:
        ShapeError: a number of dimensions is wrong, or there are no filters or no taps.
        DtypeError: the dtypes differ, or are boolean.
    """
    shape, filters, names = x.array.shape, w.array.shape, _DIMS_TEXT[dims]
    if len(filters) != dims + 2:
        order = "in_channels, out_channels" if "transpose" in function else "out_channels, in_channels"
        raise ShapeError(f"{function}: weight has shape {filters}; expected ({order} / groups, {names})")
    if len(shape) != dims + 2:
        raise ShapeError(
            f"{function}: the input has shape {shape}; expected (batch, channels, {names}), or one {_SAMPLES[dims]} without batch"
        )
    if 0 in filters[1:]:
        raise ShapeError(f"{function}: weight has shape {filters}; expected filters of one element or more")
    dtype = w.array.dtype
    if is_boolean(dtype):
        raise DtypeError(f"{function}: weight has dtype {dtype}; expected numbers: convert it with .float()")
    for name, tensor in (("the input", x), ("bias", b)):
        if tensor is not None and tensor.array.dtype != dtype:
            raise DtypeError(f"{function}: {name} has dtype {tensor.dtype}; expected that of the weight, {dtype}: use .to({dtype})")


def _check_channels(function: str, x: tuple[int, ...], w: tuple[int, ...], b: tuple[int, ...] | None, groups: int) -> None:
    """Check the channels of input, filters (out_channels, in_channels / groups, ...) and bias.

    Raises:
        ShapeError: they do not match.
    """
    if w[0] % groups or w[0] < groups:
        raise ShapeError(f"{function}: weight {w} has {w[0]} output channels; expected a multiple of groups={groups}")
    if x[1] != w[1] * groups:
        raise ShapeError(
            f"{function}: the input {x} has {x[1]} channels; the weight of shape {w} with groups={groups} expects {w[1] * groups}"
        )
    if b is not None and b != w[:1]:
        raise ShapeError(f"{function}: bias has shape {b}; expected {w[:1]} for weight {w}")


@casts("half")
def convolve(
    x: Any, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: Any,
    activation: str = "identity", alpha: float = 0.0, dims: int = 2,
) -> Tensor:  # fmt: skip
    """act(x * weight + bias) in one launch: conv1d, conv2d or conv3d, for ``dims`` dimensions; arguments as of :func:`conv2d`."""
    function = f"conv{dims}d"
    x, groups = wrap(x), as_positive(function, "groups", groups)
    strides, dilations = (per_dimension(function, n, v, dims, 1) for n, v in (("stride", stride), ("dilation", dilation)))
    if x.array.ndim == dims + 1:
        batch = x.reshape(1, *x.shape)
        return convolve(batch, weight, bias, strides, padding, dilations, groups, activation, alpha, dims)[0]
    shape, filters = x.array.shape, weight.array.shape
    check_tensors(function, x, weight, bias, dims)
    _check_channels(function, shape, filters, None if bias is None else bias.array.shape, groups)
    low, high = paddings(function, padding, filters[2:], strides, dilations)
    padded = tuple(n + a + b for n, a, b in zip(shape[2:], low, high))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, filters[2:]))
    if any(n < r for n, r in zip(padded, reach)):
        filter_text = f"filters of {filters[2:]}" + (f", dilated to {reach}," if reach != filters[2:] else "")
        image_text = f"{_SAMPLES[dims]}s of {shape[2:]}" + (f", padded to {padded}" if padded != shape[2:] else "")
        raise ShapeError(f"{function}: {filter_text} on {image_text}; expected filters that fit: pass a smaller weight, or padding")
    sizes = tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, strides))
    given = (x, weight, bias)
    if dims == 3:
        x, weight = _depth_as_channels(x, weight, sizes[0], strides[0], low[0], dilations[0])
    elif dims == 1:
        x, weight = _reshape(x, shape=(*shape[:2], 1, shape[2])), _reshape(weight, shape=(*filters[:2], 1, filters[2]))
    extent, numbers = last_two(x.array.shape[2:]), (last_two(sizes), last_two(strides), last_two(low, 0), last_two(dilations))
    window = Window(extent, weight.array.shape, *numbers, groups)
    convolve_images = convolution if is_floating(weight.dtype) else convolution_composed  # integers wrap around
    y = convolve_images(x, weight, bias, window=window, activation=activation, alpha=alpha, function=function)
    if dims == 2:
        return y
    y = _restored(y, sizes)
    if observers and dims == 3 and activation == "identity":
        options = {"stride": strides, "low": low, "high": high, "dilation": dilations, "groups": groups}
        CONV3D.notify(given, options, y)
    return y


def last_two(numbers: tuple[int, ...], fill: int = 1) -> Pair:
    """The last two of some numbers, of a signal with ``fill`` before its one."""
    first, last = (fill, *numbers)[-2:]
    return first, last


def _restored(y: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The result of images for signals (n, o, 1, length), or for volumes (n depth, o, height, width)."""
    if len(sizes) == 1:
        return _reshape(y, shape=(*y.shape[:2], *sizes))
    count, o, *rest = y.array.shape
    return _permute(_reshape(y, shape=(count // sizes[0], sizes[0], o, *rest)), dims=(0, 2, 1, 3, 4))


def _depth_as_channels(x: Tensor, w: Tensor, size: int, stride: int, low: int, dilation: int) -> tuple[Tensor, Tensor]:
    """A convolution of volumes as one of images, in which the taps along depth are channels.

    x (n, c, depth, height, width) -> (n size, c taps, height, width), w (o, c / groups, taps, r, s) -> (o, c taps / groups, r, s).
    """
    (n, c, depth, height, width), (o, of_group, taps, r, s) = x.array.shape, w.array.shape
    reach = dilation * (taps - 1) + 1
    x = pad(x, (0, 0, 0, 0, low, (size - 1) * stride + reach - depth - low))
    windows = _unfold(x, dim=2, size=reach, step=stride)[..., ::dilation]
    images = _reshape(_permute(windows, dims=(0, 2, 1, 5, 3, 4)), shape=(n * size, c * taps, height, width))
    return images, _reshape(w, shape=(o, of_group * taps, r, s))


@public(out=False)
def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolve signals with filters, in one launch; arguments and errors as of :func:`conv2d`.

    Args:
        input: (n, in_channels, length), or one signal (in_channels, length).
        weight: (out_channels, in_channels / groups, filter length).
    """
    weight, bias = wrap(weight), None if bias is None else wrap(bias)
    return convolve(input, weight, bias, stride, padding, dilation, groups, dims=1)


@public(out=False)
def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolve images with filters (cross-correlation), in one launch.

    Args:
        input: (n, in_channels, height, width), or one image (in_channels, height, width); of the dtype of the weight.
        weight: the filters, (out_channels, in_channels / groups, filter height, filter width).
        bias: (out_channels,), added to each channel; None for none.
        stride: pixels from one window to the next, an integer or a pair (vertical, horizontal).
        padding: width of the border of zeros on each side, an integer or a pair; "valid" for none, "same" for as many rows and
            columns in the result as in the input, with a stride of 1 (if the border is odd, it is wider below and to the right).
        dilation: pixels from one tap of a filter to the next, an integer or a pair.
        groups: the channels are divided into so many groups; each output channel sees the input channels of its group.

    Returns:
        (n, out_channels, (height + 2 padding - dilation (filter height - 1) - 1) // stride + 1, ...), without n of one image.

    Raises:
        ShapeError: the shapes do not match, or the filters are larger than the padded images.
        DtypeError: the dtypes differ, or are boolean.
        ArgumentError: a stride, dilation or number of groups below 1, or a negative or unknown padding.
    """
    return convolve(input, wrap(weight), None if bias is None else wrap(bias), stride, padding, dilation, groups)


@public(out=False)
def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolve volumes with filters; arguments and errors as of :func:`conv2d`.

    The taps along depth become channels of images, so the input is copied once for each of them.

    Args:
        input: (n, in_channels, depth, height, width), or one volume.
        weight: (out_channels, in_channels / groups, filter depth, filter height, filter width).
    """
    weight, bias = wrap(weight), None if bias is None else wrap(bias)
    return convolve(input, weight, bias, stride, padding, dilation, groups, dims=3)


@public(out=False)
def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Tensor:
    """:func:`conv1d` of signals whose dimensions are (steps, batch, channels).

    Args:
        input: (steps, batch, in_channels).
        weight: (filter length, in_channels, out_channels).
        bias: (out_channels,).
        pad: zeros on each side.

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: the dtypes differ, or are boolean.
    """
    filters = wrap(weight, "conv_tbc")
    if input.ndim != 3 or filters.ndim != 3:
        raise ShapeError(
            f"conv_tbc: input of shape {tuple(input.shape)}, weight of {tuple(filters.shape)}; expected (steps, batch, channels) "
            "and (length, in_channels, out_channels)"
        )
    zeros, signals = as_integer("conv_tbc", "pad", pad), _permute(input, dims=(1, 2, 0))
    found = convolve(signals, _permute(filters, dims=(2, 1, 0)), wrap(bias, "conv_tbc"), 1, zeros, 1, 1, dims=1)
    return _permute(found, dims=(2, 0, 1))
