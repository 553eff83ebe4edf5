"""Translations of ops that move elements: shapes, indexing, joining."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.backend.dtypes import is_boolean
from gpunet.interop.onnx.builder import Builder, translates
from gpunet.interop.tracing import Dim, Node
from gpunet.interop.tracing.graph import Shape
from gpunet.ops.index import ARRAY

#: The end of a slice that reaches to the end of a dimension.
_END = numpy.iinfo(numpy.int64).max


@translates("reshape")
def _reshape(b: Builder, node: Node, x: str) -> str:
    return b.reshape(x, node.options["shape"])


@translates("permute")
def _permute(b: Builder, node: Node, x: str) -> str:
    return b.add("Transpose", x, perm=[*node.options["dims"]])


@translates("broadcast_to")
def _broadcast_to(b: Builder, node: Node, x: str) -> str:
    return b.add("Expand", x, b.sizes(node.options["shape"]))


@translates("sum_to")
def _sum_to(b: Builder, node: Node, x: str) -> str:
    shape, target = b.spec().shape, node.options["shape"]
    lead = len(shape) - len(target)
    axes = [*range(lead), *(i + lead for i, n in enumerate(target) if n == 1 and shape[i + lead] != 1)]
    return b.reshape(b.add("ReduceSum", x, b.integers(axes), keepdims=1) if axes else x, target)


@translates("flip")
def _flip(b: Builder, node: Node, x: str) -> str:
    dims = [*node.options["dims"]]
    if not dims:
        return x
    count = len(dims)
    numbers = (b.integers(values) for values in ([-1] * count, [-_END] * count, dims, [-1] * count))
    return b.add("Slice", x, *numbers)


@translates("repeat")
def _repeat(b: Builder, node: Node, x: str) -> str:
    shape, repeats = b.spec().shape, node.options["repeats"]
    extra = len(repeats) - len(shape)
    whole = x if not extra else b.reshape(x, (*(1,) * extra, *shape))
    return b.add("Tile", whole, b.sizes(repeats))


@translates("roll")
def _roll(b: Builder, node: Node, x: str) -> str:
    for dim, shift in enumerate(node.options["shifts"]):
        if isinstance(shift, Dim):
            raise b.refusal(node, " along a dynamic dimension")
        if shift:
            x = b.add("Concat", _part(b, x, dim, -shift, _END), _part(b, x, dim, 0, -shift), axis=dim)
    return x


def _part(b: Builder, x: str, dim: int, start: int, stop: int) -> str:
    return b.add("Slice", x, *(b.integers([number]) for number in (start, stop, dim)))


@translates("cat")
def _cat(b: Builder, node: Node, *tensors: str) -> str:
    dtype = node.outputs[0].dtype
    return b.add("Concat", *(b.operand(x, i, dtype) for i, x in enumerate(tensors)), axis=node.options["dim"])


@translates("pad_constant")
def _pad_constant(b: Builder, node: Node, x: str) -> str:
    widths, dtype = node.options["widths"], node.outputs[0].dtype
    pads = [low for low, _ in widths] + [high for _, high in widths]
    return b.add("Pad", x, b.sizes(pads), b.constant(numpy.asarray(node.options["value"]).astype(dtype)))


@translates("unfold")
def _unfold(b: Builder, node: Node, x: str) -> str:
    dim, size, step = node.options["dim"], node.options["size"], node.options["step"]
    count, rank = node.outputs[0].shape[dim], len(b.spec().shape)
    if isinstance(count, Dim):
        raise b.refusal(node, " along a dynamic dimension")
    index = numpy.arange(count)[:, None] * step + numpy.arange(size)
    windows = b.add("Gather", x, b.constant(index, numpy.int64), axis=dim)  # (..., count, size, ...)
    order = [*range(dim + 1), *range(dim + 2, rank + 1), dim + 1]
    return b.add("Transpose", windows, perm=order)


@translates("fold")
def _fold(b: Builder, node: Node, windows: str) -> str:
    """The product with the matrix (length, count size) that adds each element at its place."""
    dim, size, step, length = (node.options[name] for name in ("dim", "size", "step", "length"))
    shape = b.spec().shape
    count, rank = shape[dim], len(shape) - 1
    if isinstance(count, Dim):
        raise b.refusal(node, " along a dynamic dimension")
    places = (numpy.arange(count)[:, None] * step + numpy.arange(size)).ravel()
    matrix = (places[:, None] == numpy.arange(length)).astype(node.outputs[0].dtype)
    others = [d for d in range(rank) if d != dim]
    moved = b.add("Transpose", windows, perm=[*others, dim, rank])
    rows = b.reshape(moved, (*(shape[d] for d in others), count * size))
    return _move_last(b, b.add("MatMul", rows, b.constant(matrix)), dim, rank)


def _move_last(b: Builder, x: str, dim: int, rank: int) -> str:
    """The last dimension of x at the place ``dim``."""
    order = [*range(dim), rank - 1, *range(dim, rank - 1)]
    return x if order == [*range(rank)] else b.add("Transpose", x, perm=order)


@translates("diagonal")
def _diagonal(b: Builder, node: Node, x: str) -> str:
    dim1, dim2, offset = (node.options[name] for name in ("dim1", "dim2", "offset"))
    shape = b.spec().shape
    if isinstance(shape[dim1], Dim) or isinstance(shape[dim2], Dim):
        raise b.refusal(node, " of a dynamic dimension")
    rest = [d for d in range(len(shape)) if d not in (dim1, dim2)]
    moved = b.add("Transpose", x, perm=[*rest, dim1, dim2])
    flat = b.reshape(moved, (*(shape[d] for d in rest), shape[dim1] * shape[dim2]))
    count = node.outputs[0].shape[-1]
    first = (numpy.arange(count) + max(0, -offset)) * shape[dim2] + numpy.arange(count) + max(0, offset)
    return b.add("Gather", flat, b.constant(first, numpy.int64), axis=len(rest))


# ---- indexing -----------------------------------------------------------------------------------------------------------


@translates("index")
def _index(b: Builder, node: Node, x: str, *arrays: str) -> str:
    dtypes = [b.spec(1 + i).dtype for i in range(len(arrays))]
    whole = [a if dtype == numpy.int64 else b.cast(a, numpy.int64) for a, dtype in zip(arrays, dtypes)]
    ranks = [len(b.spec(1 + i).shape) for i in range(len(arrays))]
    if any(map(is_boolean, dtypes)):
        raise b.refusal(node, " with a boolean mask")
    return indexed(b, x, b.spec().shape, node.options["pattern"], whole, ranks)


def indexed(b: Builder, x: str, shape: Shape, pattern: tuple[Any, ...], arrays: list[str], ranks: list[int]) -> str:
    """x[index]: numbers and slices first, then index arrays, which are of int64 and of these numbers of dimensions."""
    items = [*pattern]
    taken = sum(1 for item in items if item is not None and item is not Ellipsis and not isinstance(item, bool))
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at : at + 1] = [slice(None)] * (len(shape) - taken)
    dim, added, spots = 0, [], []  # of x as it is sliced, without the dimensions of numbers; places of None; dims of arrays
    out = 0  # the dimension of the result, while an index array keeps its dimension
    starts: list[Any] = []
    stops: list[Any] = []
    axes: list[int] = []
    steps: list[int] = []
    numbers: list[tuple[int, Any]] = []
    for item in items:
        if item is None or item is True:
            added.append(out)
            out += 1
            continue
        if item is ARRAY:
            spots.append(out)
        elif isinstance(item, slice):
            if item != slice(None):
                step = 1 if item.step is None else item.step
                starts.append(0 if item.start is None else item.start)
                stops.append(_END if item.stop is None else item.stop)
                axes.append(dim)
                steps.append(step)
        else:
            numbers.append((dim, item))
            out -= 1
        dim, out = dim + 1, out + 1
    if axes:
        x = b.add("Slice", x, b.sizes(starts), b.sizes(stops), b.integers(axes), b.integers(steps))
    for at_dim, number in reversed(numbers):
        x = b.add("Gather", x, b.add("Squeeze", b.size(number), b.integers([0])), axis=at_dim)
    if added:
        x = b.add("Unsqueeze", x, b.integers(added))
    return _picked(b, x, out, spots, arrays, ranks) if arrays else x


def _picked(b: Builder, x: str, rank: int, spots: list[int], arrays: list[str], ranks: list[int]) -> str:
    """x with index arrays in the dimensions ``spots``, of all ``rank`` of x."""
    if len(arrays) == 1:
        return b.add("Gather", x, arrays[0], axis=spots[0])
    # the indexed dimensions to the front, one vector of indices for each picked element
    rest = [d for d in range(rank) if d not in spots]
    x = b.add("Transpose", x, perm=[*spots, *rest])
    wide = max(ranks)
    total = arrays[0]
    for other in arrays[1:]:  # zeros of the broadcast shape
        total = b.add("Add", b.add("Sub", total, total), b.add("Sub", other, other))
    columns = [b.add("Unsqueeze", b.add("Add", array, total), b.integers([-1])) for array in arrays]
    picked = b.add("GatherND", x, b.add("Concat", *columns, axis=-1))  # (picked ..., rest ...)
    is_adjacent = spots == [*range(spots[0], spots[0] + len(spots))]
    before = spots[0] if is_adjacent else 0
    if not before:
        return picked
    order = [*range(wide, wide + before), *range(wide), *range(wide + before, wide + len(rest))]
    return b.add("Transpose", picked, perm=order)


@translates("with_index")
def _with_index(b: Builder, node: Node, x: str, value: Any, *arrays: str) -> str:
    """A copy with elements replaced: the same index of the elements' numbers says where."""
    dtype, shape, flat = node.outputs[0].dtype, b.spec().shape, b.integers([-1])
    count = b.add("Size", x)
    numbers = b.add("Range", b.constant(0, numpy.int64), count, b.constant(1, numpy.int64))
    whole = [a if b.spec(2 + i).dtype == numpy.int64 else b.cast(a, numpy.int64) for i, a in enumerate(arrays)]
    if any(is_boolean(b.spec(2 + i).dtype) for i in range(len(arrays))):
        raise b.refusal(node, " with a boolean mask")
    ranks = [len(b.spec(2 + i).shape) for i in range(len(arrays))]
    places = indexed(b, b.add("Reshape", numbers, b.add("Shape", x)), shape, node.options["pattern"], whole, ranks)
    values = b.add("Expand", b.operand(value, 1, dtype), b.add("Shape", places))
    parts = (b.add("Reshape", x, flat), b.add("Reshape", places, flat), b.add("Reshape", values, flat))
    return b.add("Reshape", b.add("ScatterElements", *parts, axis=0), b.add("Shape", x))
