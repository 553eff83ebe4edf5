"""Shape primitives: views, joins, and indexing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet import device
from gpunet.autograd import COPY, FILL, Tensor, contiguous, method, primitive
from gpunet.device import Array
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from gpunet.ops.elementwise import broadcast_to, cast, check_in_place, replace, result_dtype, where
from gpunet.ops.elementwise import _alias_of as alias_of
from gpunet.runtime.kernel import Geometry, Shim, kernel
from gpunet.runtime.memory import empty

TAKE = Shim("take", lambda xp, out, x, *, index: xp.copyto(out, x[index]))
PUT = Shim("put", lambda xp, out, value, *, index: out.__setitem__(index, value))


def normal_dim(dim: int, ndim: int, name: str) -> int:
    """A dimension counted from the front.

    Raises:
        ShapeError: there is no such dimension.
    """
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(f"{name}: dim={dim} for a tensor of {ndim} dimensions; expected {-max(ndim, 1)} .. {max(ndim, 1) - 1}")
    return dim + ndim if dim < 0 else dim


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """(2, 3) of both f(2, 3) and f((2, 3))."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(a) for a in args)


# ---- views ------------------------------------------------------------------------------------------------------------


@primitive(view=True)
def alias(x):
    """The same tensor under another name: an identity in the graph."""
    return x.array, lambda g: g


@primitive(view=True)
def _reshape(x, *, shape):
    source = x.shape
    return contiguous(x.array).reshape(shape), lambda g: _reshape(g, shape=source)


@method("reshape view")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1.  A view where the memory allows it.

    Raises:
        ShapeError: the number of elements differs.
    """
    sizes = _sizes(shape)
    known = math.prod(s for s in sizes if s != -1)
    missing = sizes.count(-1)
    if missing == 1 and known and x.array.size % known == 0:
        sizes = tuple(x.array.size // known if s == -1 else s for s in sizes)
    elif missing or known != x.array.size:
        raise ShapeError(f"reshape: {x.array.size} elements of shape {x.shape} do not fit shape {sizes}")
    return _reshape(x, shape=sizes)


@method("view_as reshape_as")
def reshape_as(x: Tensor, other: Tensor) -> Tensor:
    """``x`` in the shape of ``other``."""
    return reshape(x, other.shape)


@method("flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions start_dim .. end_dim."""
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = normal_dim(start_dim, x.ndim, "flatten"), normal_dim(end_dim, x.ndim, "flatten")
    if start > end:
        raise ArgumentError(f"flatten: start_dim={start_dim} lies behind end_dim={end_dim}")
    return reshape(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


@method("unflatten")
def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split a dimension into several."""
    dim = normal_dim(dim, x.ndim, "unflatten")
    return reshape(x, *x.shape[:dim], *sizes, *x.shape[dim + 1 :])


@primitive(view=True)
def _permute(x, *, dims):
    inverse = tuple(sorted(range(len(dims)), key=dims.__getitem__))
    return x.array.transpose(dims), lambda g: _permute(g, dims=inverse)


@method("permute")
def permute(x: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order: a view.

    Raises:
        ShapeError: not each dimension exactly once.
    """
    order = tuple(normal_dim(d, x.ndim, "permute") for d in _sizes(dims))
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute: {_sizes(dims)} does not name each of the {x.ndim} dimensions of {x.shape} once")
    return _permute(x, dims=order)


@method("transpose swapaxes")
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged: a view."""
    order = list(range(x.ndim))
    first, second = normal_dim(dim0, x.ndim, "transpose"), normal_dim(dim1, x.ndim, "transpose")
    if x.ndim:
        order[first], order[second] = order[second], order[first]
    return _permute(x, dims=tuple(order))


@method("t")
def t(x: Tensor) -> Tensor:
    """The transpose of a matrix; vectors stay.

    Raises:
        ShapeError: more than two dimensions.
    """
    if x.ndim > 2:
        raise ShapeError(f"t: a tensor of shape {x.shape}; expected at most 2 dimensions, use .mT or .permute")
    return _permute(x, dims=tuple(reversed(range(x.ndim))))


Tensor.T = property(lambda x: _permute(x, dims=tuple(reversed(range(x.ndim)))), doc="All dimensions reversed.")  # type: ignore[method-assign]
Tensor.mT = property(lambda x: transpose(x, -2, -1), doc="The last two dimensions exchanged.")  # type: ignore[method-assign]


@method("expand broadcast_to")
def expand(x: Tensor, *shape: Any) -> Tensor:
    """Repeat dimensions of size 1 without copying; -1 keeps a size.

    Raises:
        ShapeError: a dimension that is neither 1 nor the wanted size.
    """
    sizes = _sizes(shape)
    lead = len(sizes) - x.ndim
    sizes = tuple(x.shape[i - lead] if s == -1 and i >= lead else s for i, s in enumerate(sizes))
    if lead < 0 or any(n not in (1, s) for n, s in zip(x.shape, sizes[lead:])):
        raise ShapeError(f"expand: shape {x.shape} cannot become {_sizes(shape)}: only dimensions of size 1 are repeated")
    return broadcast_to(x, shape=sizes)


@method("expand_as")
def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of ``other``."""
    return expand(x, other.shape)


@method("squeeze")
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without its dimensions of size 1: all of them, or those of ``dim`` that are."""
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    drop = {normal_dim(d, x.ndim, "squeeze") for d in dims}
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in drop))


@method("unsqueeze")
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at ``dim``."""
    at = normal_dim(dim, x.ndim + 1, "unsqueeze")
    return reshape(x, x.shape[:at] + (1,) + x.shape[at:])


@primitive
def flip(x, *, dims):
    """The order along ``dims`` reversed."""
    index = tuple(slice(None, None, -1) if i in dims else slice(None) for i in range(x.ndim))
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array[index])
    return out, lambda g: flip(g, dims=dims)


@method("flip")
def _flip_method(x: Tensor, *dims: Any) -> Tensor:
    """The order along ``dims`` reversed."""
    return flip(x, dims=tuple(normal_dim(d, x.ndim, "flip") for d in _sizes(dims)))


# ---- joins ------------------------------------------------------------------------------------------------------------


@primitive
def _cat(*tensors, dim):
    shape = list(tensors[0].shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    out = empty(tuple(shape), result_dtype(*tensors), tensors[0].array)
    rules, start = [], 0
    for x in tensors:
        index = (slice(None),) * dim + (slice(start, start + x.shape[dim]),)
        COPY(out[index], x.array)
        rules.append(_slice_rule(index, x.dtype))
        start += x.shape[dim]
    return (out, *rules)


def _slice_rule(index: tuple[slice, ...], dtype: Any) -> Any:
    return lambda g: _index(g, index=index) if g.dtype == dtype else cast(_index(g, index=index), dtype=dtype)


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors one after the other along ``dim``.

    Raises:
        ShapeError: other dimensions differ.
        ArgumentError: no tensors.
    """
    if not tensors:
        raise ArgumentError("cat: got no tensors; expected at least one")
    parts = [x if isinstance(x, Tensor) else Tensor(x) for x in tensors]
    at = normal_dim(dim, parts[0].ndim, "cat")
    for x in parts[1:]:
        if x.ndim != parts[0].ndim or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, parts[0].shape)) if i != at
        ):
            raise ShapeError(f"cat: shapes {parts[0].shape} and {x.shape} differ in a dimension other than {dim}")
    return _cat(*parts, dim=at)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension.

    Raises:
        ShapeError: their shapes differ.
    """
    parts = [x if isinstance(x, Tensor) else Tensor(x) for x in tensors]
    for x in parts[1:]:
        if x.shape != parts[0].shape:
            raise ShapeError(f"stack: shapes {parts[0].shape} and {x.shape} differ; stack needs one shape")
    return cat([unsqueeze(x, dim) for x in parts], dim)


@method("split")
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of ``split_size`` (the last may be smaller), or of the given sizes, along ``dim``: views.

    Raises:
        ShapeError: the sizes do not add up.
    """
    at = normal_dim(dim, x.ndim, "split")
    total = x.shape[at]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ArgumentError(f"split: split_size={split_size}; expected a positive number")
        sizes = [min(split_size, total - start) for start in range(0, total, split_size)] or [0]
    else:
        sizes = list(split_size)
        if sum(sizes) != total:
            raise ShapeError(f"split: sizes {sizes} add up to {sum(sizes)}; dimension {dim} of {x.shape} has {total}")
    ends = numpy.cumsum(sizes).tolist()
    return tuple(_index(x, index=(slice(None),) * at + (slice(end - n, end),)) for n, end in zip(sizes, ends))


@method("chunk")
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """``chunks`` pieces of equal size, the last smaller, along ``dim``."""
    if chunks <= 0:
        raise ArgumentError(f"chunk: chunks={chunks}; expected a positive number")
    return split(x, max(1, -(-x.shape[normal_dim(dim, x.ndim, "chunk")] // chunks)), dim)


@method("unbind")
def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without that dimension."""
    at = normal_dim(dim, x.ndim, "unbind")
    return tuple(_index(x, index=(slice(None),) * at + (i,)) for i in range(x.shape[at]))


@method("repeat")
def repeat(x: Tensor, *repeats: Any) -> Tensor:
    """The whole tensor repeated along each dimension, as numpy.tile."""
    times = _sizes(repeats)
    if len(times) < x.ndim:
        raise ShapeError(f"repeat: {times} for shape {x.shape}; expected at least {x.ndim} numbers")
    padded = (1,) * (len(times) - x.ndim) + x.shape
    paired = reshape(x, tuple(v for n in padded for v in (1, n)))
    wide = broadcast_to(paired, shape=tuple(v for r, n in zip(times, padded) for v in (r, n)))
    return reshape(wide, tuple(r * n for r, n in zip(times, padded)))


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Constant padding; ``pad`` is (left, right) of the last dimension, then of the one before, and so on.

    Raises:
        ArgumentError: another mode, or an odd number of widths.
    """
    if mode != "constant" or len(pad) % 2 or len(pad) > 2 * x.ndim or min(pad, default=0) < 0:
        raise ArgumentError(f"pad: pad={tuple(pad)}, mode={mode!r}; expected pairs of widths >= 0 and mode 'constant'")
    for number in range(len(pad) // 2):
        dim = x.ndim - 1 - number
        parts = [x]
        for position, width in ((0, pad[2 * number]), (2, pad[2 * number + 1])):
            if width:
                edge = empty((*x.shape[:dim], width, *x.shape[dim + 1 :]), x.dtype, x.array)
                FILL(edge, value=value)
                parts.insert(position, Tensor(edge))
        x = cat(parts, dim)
    return x


# ---- indexing ---------------------------------------------------------------------------------------------------------


def _plain_index(index: Any, x: Tensor) -> tuple[Any, ...]:
    """An index of Python numbers, slices and arrays on the tensor's device."""
    items = index if isinstance(index, tuple) else (index,)
    plain = []
    for item in items:
        if isinstance(item, Tensor):
            item = item.array
        elif isinstance(item, (list, range)):
            item = numpy.asarray(item, numpy.int64 if not len(item) else None)
        if device.is_array(item):
            if item.dtype.kind not in "iub":
                raise DtypeError(f"index of dtype {item.dtype}; expected integers, booleans, slices, None or ...")
            item = device.move(item, x.device)
        elif isinstance(item, (float, str)):
            raise DtypeError(f"index {item!r}; expected integers, booleans, slices, None or ...")
        plain.append(item)
    return tuple(plain)


def _checked(x: Tensor, index: tuple[Any, ...]) -> Array:
    """x[index] with errors that name the shapes."""
    try:
        return x.array[index]
    except IndexError as error:
        raise ShapeError(f"index {index} does not fit a tensor of shape {x.shape}: {error}") from None


def _is_view(index: tuple[Any, ...]) -> bool:
    return all(isinstance(i, (int, numpy.integer, slice)) or i is None or i is Ellipsis for i in index)


@primitive(view=True)
def _index(x, *, index):
    """x[index]: a view for numbers and slices, a copy for arrays."""
    source = x.shape
    if _is_view(index):
        return _checked(x, index), lambda g: _unindex(g, index=index, shape=source)
    picked = _checked(x, index)  # looked at once for its shape, then launched, so that a tape can repeat it
    out = empty(picked.shape, x.dtype, x.array)
    TAKE(out, x.array, index=index)
    return out, lambda g: _unindex(g, index=index, shape=source)


@primitive
def _unindex(g, *, index, shape):
    """Zeros of ``shape`` with g added at ``index``: what indexing does to a gradient."""
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    if _is_view(index):
        COPY(out[index], g.array)
    else:
        add_rows(out, g.array, index)
    return out, lambda h: _index(h, index=index)


def add_rows(out: Array, values: Array, index: tuple[Any, ...]) -> None:
    """out[index] += values where an element may be named several times, in a fixed order.

    The flat positions are sorted (stably), so that each element is summed by one thread from its first name to its last.
    """
    xp = device.module(out)
    positions = xp.arange(out.size, dtype=numpy.int64).reshape(out.shape)[index].reshape(-1)
    order = xp.argsort(positions, kind="stable").astype(numpy.int64)
    scatter_add(out.reshape(-1), contiguous(values).reshape(-1), positions[order], order)


@kernel("scatter.cu", outputs=1, types={"positions": "int64", "order": "int64"})
def scatter_add(out, values, positions, order):
    """out[positions[j]] += values[order[j]], one position's terms in the order of j; positions are sorted.

    out (n,), values, positions, order (m,).
    """
    numpy.add.at(out, positions, values[order])


@scatter_add.geometry
def _(out, values, positions, order):
    return Geometry(max(1, -(-values.size // 256)) if values.size else 0, 256, (numpy.int64(values.size),))


@method("__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] with NumPy's rules: numbers, slices, None, ..., integer and boolean tensors or arrays.

    Raises:
        ShapeError: an index out of range, or too many.
        DtypeError: an index that is no index.
    """
    return _index(x, index=_plain_index(index, x))


@primitive
def _with_index(x, value, *, index):
    """A copy of x in which x[index] is value."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    shape, dtype = (value.shape, value.dtype) if isinstance(value, Tensor) else ((), x.dtype)
    PUT(out, value.array if isinstance(value, Tensor) else value, index=index)

    def value_rule(g):
        from gpunet.ops.elementwise import fit

        return fit(_index(g, index=index), (shape, dtype))

    return out, lambda g: _with_index(g, 0, index=index), value_rule


@method("__setitem__")
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, in place; the gradient follows both.

    Raises:
        ShapeError: the value does not fit.
        GradientError: x is a leaf that requires grad (do it under no_grad()).
    """
    index = _plain_index(index, x)
    check_in_place(x, (value,), "x[...] = value")
    picked = _checked(x, index)
    if device.is_array(value):
        value = Tensor(value)
    if isinstance(value, (list, tuple)):
        value = Tensor(device.move(numpy.asarray(value, x.dtype), x.device))
    if isinstance(value, Tensor):
        try:
            fits = numpy.broadcast_shapes(value.shape, picked.shape) == picked.shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"x[...] = value: value of shape {value.shape} does not fit the place of shape {picked.shape}")
    if x._requires_grad or (isinstance(value, Tensor) and value._requires_grad):
        replace(x, _with_index(alias_of(x), value, index=index), "x[...] = value")
    else:
        PUT(x.array, value.array if isinstance(value, Tensor) else value, index=index)
        x._version[0] += 1


def _gather_index(shape: tuple[int, ...], dim: int, index: Array) -> tuple[Any, ...]:
    xp = device.module(index)
    grid = [
        xp.arange(n).reshape((1,) * i + (n,) + (1,) * (len(shape) - i - 1)) for i, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


@method("gather")
def gather(x: Tensor, dim: int, index: Any) -> Tensor:
    """out[i][j] = x[index[i][j]][j] for dim 0, and so on: one element for each of the index.

    Raises:
        ShapeError: another number of dimensions.
        DtypeError: indices that are not integers.
    """
    index = index if isinstance(index, Tensor) else Tensor(index)
    if index.ndim != x.ndim:
        raise ShapeError(f"gather: index has shape {index.shape}, the tensor {x.shape}; expected as many dimensions")
    if index.dtype.kind not in "iu":
        raise DtypeError(f"gather: index of dtype {index.dtype}; expected integers")
    return _index(x, index=_gather_index(x.shape, normal_dim(dim, x.ndim, "gather"), index.array))


@method("index_select")
def index_select(x: Tensor, dim: int, index: Any) -> Tensor:
    """The slices along ``dim`` that a vector of integers names."""
    at = normal_dim(dim, x.ndim, "index_select")
    return getitem(x, (slice(None),) * at + (index,))


@method("masked_select")
def masked_select(x: Tensor, mask: Any) -> Tensor:
    """The elements where a boolean mask holds, as a vector."""
    return getitem(x, mask)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    xp = device.module(x.array)
    rows, columns = xp.arange(x.shape[-2])[:, None], xp.arange(x.shape[-1])[None, :]
    keep = columns <= rows + diagonal if lower else columns >= rows + diagonal
    return where(Tensor(xp.broadcast_to(keep, x.shape)), x, 0.0 if x.is_floating_point() else 0)


@method("tril")
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, zero above."""
    return _triangle(x, diagonal, True)


@method("triu")
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, zero below."""
    return _triangle(x, diagonal, False)


# ---- copies, conversions --------------------------------------------------------------------------------------------------


@primitive(methods="clone")
def clone(x):
    """A copy, in the graph."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    return out, lambda g: g


@method("contiguous")
def _contiguous_method(x: Tensor) -> Tensor:
    """The tensor itself when its memory is C-contiguous, else a copy."""
    return x if x.array.flags.c_contiguous else clone(x)


@primitive
def _move(x, *, target):
    source = x.device
    return device.move(x.array, target), lambda g: _move(g, target=source)


@method("to")
def to(x: Tensor, *args: Any, device: Any = None, dtype: Any = None, copy: bool = False) -> Tensor:
    """On another device, in another dtype, or both: ``x.to("cuda")``, ``x.to(gpunet.float64)``, ``x.to(other)``.

    The gradient finds its way back.  The tensor itself comes back when nothing changes.

    Raises:
        DeviceError: the device is not there.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, (Device, str)) and not _is_dtype_name(arg):
            device = arg
        elif isinstance(arg, bool):
            continue  # PyTorch's non_blocking
        else:
            dtype = arg
    result = x
    if device is not None and Device(device) != x.device:
        result = _move(result, target=Device(device))
    if dtype is not None and numpy.dtype(dtype) != x.dtype:
        result = cast(result, dtype=numpy.dtype(dtype))
    return clone(x) if copy and result is x else result


Device = device.Device


def _is_dtype_name(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    try:
        numpy.dtype(name)
    except TypeError:
        return False
    return True


@method("cpu")
def cpu(x: Tensor) -> Tensor:
    """On the CPU."""
    return to(x, "cpu")


@method("cuda")
def cuda(x: Tensor, index: int | None = None) -> Tensor:
    """On a CUDA card."""
    return to(x, "cuda" if index is None else f"cuda:{index}")


def _converter(name: str, dtype: str) -> None:
    def convert(x: Tensor) -> Tensor:
        return to(x, dtype=numpy.dtype(dtype))

    convert.__name__ = name
    convert.__doc__ = f"As {dtype}."
    method(name)(convert)


for _name, _dtype in {"float": "float32", "double": "float64", "long": "int64", "int": "int32", "bool": "bool"}.items():
    _converter(_name, _dtype)


@method("type_as")
def type_as(x: Tensor, other: Tensor) -> Tensor:
    """In the dtype of ``other``."""
    return to(x, dtype=other.dtype)


@method("size")
def size(x: Tensor, dim: int | None = None) -> Any:
    """The shape, or one of its numbers."""
    return x.shape if dim is None else x.shape[normal_dim(dim, x.ndim, "size")]


@method("numel nelement")
def numel(x: Tensor) -> int:
    """The number of elements."""
    return int(x.array.size)


@method("dim")
def dim(x: Tensor) -> int:
    """The number of dimensions."""
    return x.ndim


@method("is_contiguous")
def is_contiguous(x: Tensor) -> bool:
    """Whether the memory is C-contiguous."""
    return bool(x.array.flags.c_contiguous)


def one_hot(labels: Any, num_classes: int = -1) -> Tensor:
    """A 1 in the column that each label names, int64, of shape (*labels.shape, num_classes).

    Raises:
        LabelError: a label outside 0 .. num_classes - 1.
    """
    array = labels.array if isinstance(labels, Tensor) else labels
    highest = int(array.max()) if array.size else -1
    classes = highest + 1 if num_classes == -1 else num_classes
    if array.size and (highest >= classes or int(array.min()) < 0):
        raise LabelError(f"one_hot: labels from {int(array.min())} to {highest}; expected 0 .. {classes - 1}")
    xp = device.module(array)
    return Tensor((array[..., None] == xp.arange(classes)).astype(numpy.int64))
