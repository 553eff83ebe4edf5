"""Scaled dot-product attention (Vaswani et al. 2017), without the matrix of scores.

For queries q (b, h, n, d), keys k (b, h / group, m, d) and values v (b, h / group, m, e), where ``group`` query heads share a head
of keys (Ainslie et al. 2023),

    s = scale q k^T + bias, -infinity where a key is hidden;  p = softmax of the rows of s;  y = p v

Forward saves y and lse, the logarithm of the sum of exp(s) over each row.  Backward computes p = exp(s - lse) again, dp = dy v^T,

    ds = p (dp - delta) with delta = sum of dy y over the row;  dq = scale ds k,  dk = scale ds^T q,  dv = p^T dy

(Dao et al. 2022; the softmax of a row in steps is of Milakov and Gimelshein 2018).  Where all keys of a query are hidden, y and its
gradients are 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.autograd import Gradient, Tensor, fused, is_grad_enabled, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, is_boolean, is_floating, limits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import empty, scratch
from gpunet.ops.broadcast import broadcast_to, broadcasts_to, in_accumulator
from gpunet.ops.creation import ones
from gpunet.ops.dropout import dropout
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, as_probability, public
from gpunet.ops.gemm import whole_flag
from gpunet.ops.matmul import matmul
from gpunet.ops.shape import _reshape
from gpunet.ops.softmax import softmax

__all__ = ["scaled_dot_product_attention"]


# ---- twins: the scores of some heads and queries at once --------------------------------------------------------------
# Scores are transposed, (batches, heads of keys, group, keys, queries): NumPy reduces over the keys of many queries at once faster
# than over short rows.

#: Bytes of the scores that are computed at once: they stay in the L2 cache, or in the share of a core of L3.
_CHUNK_BYTES = 1 << 20
_MAX_CHUNKS = 32  # each is some NumPy calls of a captured step
_QUERIES = 128  # of a chunk: with a causal mask, later keys are left out


def _slices(count: int, most: int) -> list[slice]:
    """Divide ``count`` into parts of nearly equal size, of at most ``most``."""
    step = ceil_div(count, ceil_div(count, most)) if count else 1
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class _Part(NamedTuple):
    """The scores of some batches, heads of keys and queries, with the keys that a causal mask leaves."""

    batches: slice
    heads: slice
    rows: slice
    keys: slice

    def of_queries(self, x: ndarray) -> ndarray:
        """This part of an array (b, heads, group, n, ...)."""
        return x[self.batches, self.heads, :, self.rows]

    def of_keys(self, x: ndarray) -> ndarray:
        """This part of an array (b, heads, m, ...), with a dimension for the group."""
        return x[self.batches, self.heads, None, self.keys]

    def of_scores(self, x: ndarray) -> ndarray:
        """This part of an array (b, heads, group, n, m), transposed; one element of each dimension that is broadcast."""
        part = x[self.batches, self.heads, :, self.rows, self.keys]
        return part[tuple([slice(0, 1 if stride == 0 else None) for stride in part.strides])].swapaxes(3, 4)


def _parts(shape: tuple[int, ...], m: int, itemsize: int, is_causal: bool) -> Iterator[_Part]:
    """Divide the scores of queries (b, heads, group, n, d) with m keys; the last queries of each head come first."""
    b, heads, group, n = shape[:4]
    rows = _slices(n, max(_QUERIES, ceil_div(n, _MAX_CHUNKS)) if n > 3 * _QUERIES // 2 else n)
    per_head = group * rows[0].stop * m * itemsize
    at_once = max(1, max(_CHUNK_BYTES, b * heads * len(rows) * per_head // _MAX_CHUNKS) // per_head)
    for batches in _slices(b, max(1, at_once // heads)):
        for of_heads in _slices(heads, min(at_once, heads)):
            for row in reversed(rows):
                yield _Part(batches, of_heads, row, slice(0, min(row.stop, m) if is_causal else m))


@functools.lru_cache(maxsize=256)
def _causal_bounds(keys: int, queries: int, dtype: Any) -> ndarray:
    """The largest score of key i for query j: -infinity if the key comes later, else infinity."""
    bounds = numpy.where(numpy.tri(keys, queries, -1, dtype=numpy.bool_), -numpy.inf, numpy.inf).astype(dtype)
    bounds.flags.writeable = False
    return bounds


def _grouped(x: Any, heads: int) -> Any:
    """An array (b, h, n, ...) of queries as (b, heads, group, n, ...); None stays None."""
    return None if x is None else x.reshape(x.shape[0], heads, x.shape[1] // heads, *x.shape[2:])


def _scores(
    q: ndarray, k: ndarray, mask: ndarray | None, bias: ndarray | None, scale: float, is_causal: bool
) -> Iterator[tuple[_Part, ndarray, ndarray]]:
    """Yield each part, its queries times ``scale``, and its scores, transposed."""
    heads, m = k.shape[1:3]
    q, mask, bias = _grouped(q, heads), _grouped(mask, heads), _grouped(bias, heads)
    for part in _parts(q.shape, m, q.itemsize, is_causal):
        queries = part.of_queries(q)
        scaled = scratch(queries.shape, q.dtype, 1)
        numpy.multiply(queries, q.dtype.type(scale), out=scaled)
        s = scratch((*queries.shape[:3], part.keys.stop, queries.shape[3]), q.dtype, 2)
        numpy.matmul(part.of_keys(k), scaled.swapaxes(3, 4), out=s)
        if bias is not None:
            s += part.of_scores(bias)
        if mask is not None:
            shown = part.of_scores(mask)
            hidden = scratch(shown.shape, numpy.bool_, 3)
            numpy.logical_not(shown, out=hidden)
            numpy.copyto(s, -numpy.inf, where=hidden)
        if is_causal and part.rows.start < part.keys.stop:
            diagonal = s[:, :, :, part.rows.start :]
            # three times as fast as a copy to where keys come later; the softmax with a score of infinity is NaN, as with NaN
            numpy.fmin(diagonal, _causal_bounds(*diagonal.shape[3:], q.dtype), out=diagonal)
        yield part, scaled, s


def _add_product(out: ndarray, a: ndarray, b: ndarray, is_first: bool) -> None:
    """out (batches, heads, rows, columns) = or += a b, summed over the group, dimension 2 of a and b."""
    if is_first and a.shape[2] == 1:
        numpy.matmul(a[:, :, 0], b[:, :, 0], out=out)
        return
    product = scratch((*a.shape[:4], b.shape[4]), out.dtype, 5)
    numpy.matmul(a, b, out=product)
    if is_first:
        numpy.add.reduce(product, axis=2, out=out)
    elif a.shape[2] == 1:
        out += product[:, :, 0]
    else:
        total = scratch(out.shape, out.dtype, 6)
        numpy.add.reduce(product, axis=2, out=total)
        out += total


# ---- kernels ----------------------------------------------------------------------------------------------------------


@kernel("attention.cu", outputs=2, types={"lse": "A", "mask": "bool"}, rows="y q k v", strided="mask bias", optional="mask bias")
def attention_forward(y, lse, q, k, v, mask, bias, *, scale, is_causal):
    """y = softmax(scale q k^T + bias) v, lse = log of the sum of exp(scale q k^T + bias) over the keys,
    0 without one.

    q (b, h, n, d), k (b, h / group, m, d), v (b, h / group, m, e) -> y (b, h, n, e), lse (b, h, n).  mask and bias (b, h, n, m),
    broadcast by strides of 0, or None: keys are hidden where mask is False, and with ``is_causal`` those behind the query.
    """
    heads = k.shape[1]
    results, sums = _grouped(y, heads), _grouped(lse, heads)
    for part, _, s in _scores(q, k, mask, bias, scale, is_causal):
        top = scratch((*s.shape[:3], 1, s.shape[4]), s.dtype, 3)
        numpy.maximum.reduce(s, axis=3, out=top, keepdims=True)
        if mask is not None or bias is not None:
            numpy.maximum(top, limits(s.dtype)[0], out=top)  # finite, so that exp is 0 where all keys are hidden
        s -= top
        numpy.exp(s, out=s)
        total = scratch(top.shape, s.dtype, 4)
        numpy.add.reduce(s, axis=3, out=total, keepdims=True)
        if mask is not None or bias is not None:
            has_keys = scratch(top.shape, s.dtype, 5)
            numpy.sign(total, out=has_keys)  # the total is 0 if all keys are hidden, else at least 1
            top *= has_keys
            numpy.maximum(total, s.dtype.type(1), out=total)
        out = part.of_queries(results)
        numpy.matmul(s.swapaxes(3, 4), part.of_keys(v), out=out)
        out /= total.swapaxes(3, 4)
        numpy.log(total, out=total)
        numpy.add(total[:, :, :, 0], top[:, :, :, 0], out=part.of_queries(sums))


@kernel("attention.cu", outputs=1, types={"delta": "A"}, rows="dy y")
def attention_delta(delta, dy, y):
    """delta (b, h, n) = the sum of dy y over the last dimension of dy and y (b, h, n, e)."""
    numpy.einsum("bhne,bhne->bhn", dy, y, out=delta)


@kernel(
    "attention.cu", outputs=3, types={"lse": "A", "delta": "A", "mask": "bool"}, rows="dq dk dv dy q k v", strided="mask bias",
    optional="dq dk dv mask bias",
)  # fmt: skip
def attention_backward(dq, dk, dv, dy, lse, delta, q, k, v, mask, bias, *, scale, is_causal):
    """The gradients of :func:`attention_forward`; delta (b, h, n) is of :func:`attention_delta`."""
    heads, m = k.shape[1:3]
    gradients, of_q, sums, deltas = (_grouped(x, heads) for x in (dy, dq, lse, delta))
    for part, scaled, p in _scores(q, k, mask, bias, scale, is_causal):
        p -= part.of_queries(sums)[:, :, :, None]
        numpy.exp(p, out=p)
        gradient, is_first, used = part.of_queries(gradients), part.rows.stop == q.shape[2], part.keys.stop
        of_k, of_v = (None if x is None else x[part.batches, part.heads] for x in (dk, dv))
        if of_v is not None:
            if is_first and used < m:
                of_v[:, :, used:].fill(0)
            _add_product(of_v[:, :, :used], p, gradient, is_first)
        if dq is None and dk is None:
            continue
        ds = scratch(p.shape, p.dtype, 7)
        numpy.matmul(part.of_keys(v), gradient.swapaxes(3, 4), out=ds)
        ds -= part.of_queries(deltas)[:, :, :, None]
        ds *= p
        if of_k is not None:
            if is_first and used < m:
                of_k[:, :, used:].fill(0)
            _add_product(of_k[:, :, :used], ds, scaled, is_first)
        if of_q is not None:
            out = part.of_queries(of_q)
            numpy.matmul(ds.swapaxes(3, 4), part.of_keys(k), out=out)
            out *= q.dtype.type(scale)


# ---- geometries -------------------------------------------------------------------------------------------------------

TILE = 64  # rows and columns of the result that a block computes

_ROWS = numpy.dtype([(name, "i8") for name in ("batch", "head", "row")])
_MATRIX = numpy.dtype([(name, "i8") for name in ("batch", "head", "row", "column")])
_EXTENTS = ("batches", "heads", "group", "queries", "keys", "depth", "columns", "is_causal")
_TENSORS = ("q", "k", "v", "y", "dq", "dk", "dv", "dy")
#: The struct Attention of attention.cu.
ATTENTION = numpy.dtype(
    [
        *((name, "i4") for name in _EXTENTS), ("scale", "f8"), *((name, _ROWS) for name in _TENSORS),
        *((name, _MATRIX) for name in ("mask", "bias")),
    ],
    metadata={"c_type": "Attention"},
)  # fmt: skip


def _attention(q: Array, k: Array, columns: int, scale: float, is_causal: bool, /, **arrays: Array | None) -> ndarray:
    """The Attention of a launch with a result of so many columns; ``arrays`` are addressed by their strides."""
    shape = numpy.zeros(1, ATTENTION)
    extents = (*q.shape[:2], q.shape[1] // k.shape[1], q.shape[2], k.shape[2], q.shape[3], columns, is_causal)
    for name, number in (*zip(_EXTENTS, extents), ("scale", scale)):
        shape[0][name] = number
    for name, array in arrays.items():
        if array is not None:
            strides = [stride // array.itemsize for stride in array.strides]
            shape[0][name] = tuple(strides if name in ("mask", "bias") else strides[:3])
    return shape


def _num_blocks(result: Array | None) -> int:
    """The number of blocks that compute an array (b, heads, rows, columns)."""
    if result is None:
        return 0
    b, heads, rows, columns = result.shape
    return b * heads * ceil_div(rows, TILE) * ceil_div(columns, TILE)


@attention_forward.geometry
def _(y, lse, q, k, v, mask, bias, *, scale, is_causal):
    shape = _attention(q, k, v.shape[3], scale, is_causal, q=q, k=k, v=v, y=y, mask=mask, bias=bias)
    return Geometry(_num_blocks(y), TILE, (shape,), (whole_flag(q, k, v),))


@attention_delta.geometry
def _(delta, dy, y):
    shape = _attention(y, y, y.shape[3], 1.0, False, y=y, dy=dy)
    return Geometry(min(65535, ceil_div(delta.size, 8)), 256, (shape,))


@attention_backward.geometry
def _(dq, dk, dv, dy, lse, delta, q, k, v, mask, bias, *, scale, is_causal):
    tensors = {"q": q, "k": k, "v": v, "dq": dq, "dk": dk, "dv": dv, "dy": dy, "mask": mask, "bias": bias}
    shape = _attention(q, k, v.shape[3], scale, is_causal, **tensors)
    blocks = [_num_blocks(x) for x in (dq, dk, dv)]
    return Geometry(sum(blocks), TILE, (shape, *blocks[:2]), (whole_flag(q, k, v, dy),))


# ---- the op -----------------------------------------------------------------------------------------------------------


def weights_of_attention(
    q: Tensor, k: Tensor, mask: Tensor | None, scale: float, is_causal: bool, dropout_p: float = 0.0
) -> Tensor:
    """p (..., n, m) = softmax(scale q k^T + bias) in primitives; 0 where all keys are hidden.

    Args:
        mask: boolean (True shows the key), or floating, which is added; broadcast to the scores.
        dropout_p: the probability with which each weight is dropped.
    """
    scores, shown = matmul(q, k.mT) * scale, None
    if mask is not None:
        shown = mask if is_boolean(mask.dtype) else mask > -math.inf
        if shown is not mask:
            scores = scores + where(shown, mask, 0.0)
    elif is_causal:
        shown = ones(*scores.shape[-2:], dtype=bool, device=q.device).tril()
    if shown is not None:
        has_keys = shown.any(-1, keepdim=True)
        scores = where(shown, scores, where(has_keys, -math.inf, 0.0).to(scores.dtype))
    weights = softmax(scores, -1)
    if mask is not None:
        weights = where(has_keys, weights, 0.0)
    return dropout(weights, dropout_p) if dropout_p else weights


@in_accumulator
def _attention_composed(q, k, v, mask, *, scale, is_causal, dropout_p=0.0):
    heads = k.shape[1]
    if q.shape[1] != heads:
        shape, group = q.shape, q.shape[1] // heads
        if mask is not None:
            mask = _grouped(mask, heads) if mask.shape[1] > 1 else mask.unsqueeze(2)
        y = matmul(
            weights_of_attention(_grouped(q, heads), k.unsqueeze(2), mask, scale, is_causal, dropout_p), v.unsqueeze(2)
        )
        return y.reshape(shape[0], heads * group, shape[2], v.shape[3])
    return matmul(weights_of_attention(q, k, mask, scale, is_causal, dropout_p), v)


def _empty_in_order(shape: tuple[int, ...], like: Array) -> Array:
    """Allocate an array whose dimensions lie in memory in the order of those of ``like``; the last one is the last."""
    order = sorted(range(like.ndim - 1), key=lambda d: -like.strides[d])
    if order == [*range(like.ndim - 1)]:
        return empty(shape, like.dtype, like)
    storage = empty((*(shape[d] for d in order), shape[-1]), like.dtype, like)
    return storage.transpose(*(order.index(d) for d in range(like.ndim - 1)), like.ndim - 1)


def _mask_and_bias(mask: Array | None, q: Array, k: Array) -> tuple[Any, Any]:
    """The arguments ``mask`` and ``bias`` of a kernel: a mask, broadcast to all scores, in its place."""
    if mask is None:
        return None, None
    whole = devices.module(mask).broadcast_to(mask, (*q.shape[:3], k.shape[2]))
    return (whole, None) if is_boolean(mask.dtype) else (None, whole)


@fused(name="scaled_dot_product_attention", composed=_attention_composed, takes_rows=True)
def attention(q, k, v, mask, *, scale, is_causal, need):
    """softmax(scale q k^T + bias) v of four-dimensional arrays; mask is boolean, floating or None, and has no gradient."""
    y = _empty_in_order((*q.shape[:3], v.shape[3]), q)
    lse = empty(q.shape[:3], accumulator(q.dtype), q)
    attention_forward(y, lse, q, k, v, *_mask_and_bias(mask, q, k), scale=scale, is_causal=is_causal)
    return y, (q, k, v, mask, y, lse)


@attention.backward
def _(saved, dy, *, scale, is_causal, need):
    q, k, v, mask, y, lse = saved
    gradients = [_empty_in_order(x.shape, x) if is_needed else None for x, is_needed in zip((q, k, v), need)]
    delta = empty(lse.shape, lse.dtype, lse)
    attention_delta(delta, dy.array, y)
    masks = _mask_and_bias(mask, q, k)
    attention_backward(*gradients, dy.array, lse, delta, q, k, v, *masks, scale=scale, is_causal=is_causal)
    return [None if g is None else g if g.flags.c_contiguous else Gradient(g) for g in gradients] + [None]


# ---- the public function ----------------------------------------------------------------------------------------------

_NAME = "scaled_dot_product_attention"


def _check_operands(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check dtypes and the last two dimensions."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not is_floating(x.dtype):
            raise DtypeError(f"{_NAME}: {name} has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
        if x.dtype != query.dtype:
            raise DtypeError(f"{_NAME}: {name} has dtype {x.dtype}; expected that of the query, {query.dtype}")
        if x.ndim < 2:
            raise ShapeError(f"{_NAME}: {name} has shape {tuple(x.shape)}; expected (..., positions, features)")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(f"{_NAME}: query {tuple(query.shape)} and key {tuple(key.shape)}; expected the same last dimension")
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{_NAME}: key {tuple(key.shape)} and value {tuple(value.shape)}; expected the same number of positions, dimension -2"
        )


def _leading(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The leading dimensions of the query, and of key and value, broadcast."""
    shapes = [tuple(x.shape[:-2]) for x in (query, key, value)]
    text = f"{_NAME}: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    heads: list[tuple[int, ...]] = [(), ()]
    if enable_gqa:
        if () in shapes:
            raise ShapeError(f"{text} with enable_gqa=True; expected (..., heads, positions, features)")
        if shapes[1][-1] != shapes[2][-1] or shapes[1][-1] == 0 or shapes[0][-1] % shapes[1][-1]:
            raise ShapeError(
                f"{text} with enable_gqa=True: {shapes[0][-1]} heads of queries, {shapes[1][-1]} of keys and {shapes[2][-1]} of "
                "values; expected as many of keys as of values, and a multiple of them of queries"
            )
        heads, shapes = [shapes[0][-1:], shapes[1][-1:]], [shape[:-1] for shape in shapes]
    try:
        batch = numpy.broadcast_shapes(*shapes)
    except ValueError:
        hint = "" if enable_gqa else "; if heads of queries share those of keys, pass enable_gqa=True"
        raise ShapeError(f"{text}: the dimensions before the last two cannot be broadcast together{hint}") from None
    return (*batch, *heads[0]), (*batch, *heads[1])


def _with_heads(x: Tensor, leading: tuple[int, ...]) -> Tensor:
    """x (..., n, d), broadcast to the leading dimensions, as (batches, heads, n, d); a view if the strides allow it."""
    shape = (*leading, *x.array.shape[-2:])
    if x.array.shape != shape:
        x = broadcast_to(x, shape=shape)
    return x if len(shape) == 4 else _reshape(x, shape=(math.prod(leading[:-1]), *(leading or (1,))[-1:], *shape[-2:]))


def _checked_mask(mask: Any, query: Tensor, leading: tuple[int, ...], n: int, m: int) -> Tensor:
    """The mask with four dimensions, which broadcast to (batches, heads, n, m)."""
    mask, shape = wrap(mask), (*leading, n, m)
    if not is_boolean(mask.dtype) and mask.dtype != query.dtype:
        raise DtypeError(
            f"{_NAME}: attn_mask has dtype {mask.dtype}; expected bool, where True attends, or {query.dtype}, which is added to "
            "the scores"
        )
    if not broadcasts_to(tuple(mask.shape), shape):
        raise ShapeError(f"{_NAME}: attn_mask has shape {tuple(mask.shape)}; expected one that broadcasts to {shape}")
    if len(leading) > 2 and mask.ndim > 2:
        return _with_heads(mask, leading)
    return mask if mask.ndim == 4 else _reshape(mask, shape=(*(1,) * (4 - mask.ndim), *mask.shape))


@public(out=False, autocast="half")
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, *,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(scale query key^T + mask) value, in one launch that stores no scores.

    Args:
        query: (..., n, d).
        key: (..., m, d).
        value: (..., m, e); of the dtype of the query, as ``key``.  Leading dimensions broadcast.  Slices and transposes of one
            projection are taken without a copy if the last dimension is adjacent.
        attn_mask: broadcasts to (..., n, m).  Boolean: True attends (in :class:`gpunet.nn.MultiheadAttention`, True is ignored).
            Floating, of the dtype of the query: added to the scores.  If it requires a gradient, the scores are stored.
        dropout_p: the probability with which each weight is dropped, also in evaluation: pass 0.0 there.  The scores are stored.
        is_causal: hide the keys behind the position of each query; excludes ``attn_mask``.
        scale: of the scores; 1 / sqrt(d) if None.
        enable_gqa: key and value have a divisor of the query's number of heads (dimension -3), and each is used by as many
            consecutive heads of queries.

    Returns:
        (..., n, e).  A query whose keys are all hidden gives 0, with gradients of 0.

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: the dtypes differ, or are not floating.
        ArgumentError: both ``attn_mask`` and ``is_causal``, or ``dropout_p`` is no probability.
    """
    query, key, value = wrap(query), wrap(key), wrap(value)
    _check_operands(query, key, value)
    p = as_probability(_NAME, "dropout_p", dropout_p)
    if is_causal and attn_mask is not None:
        raise ArgumentError(f"{_NAME}: got attn_mask and is_causal=True; expected one: add the causal mask to attn_mask")
    leading, of_keys = _leading(query, key, value, enable_gqa)
    (n, d), (m, e) = query.array.shape[-2:], value.array.shape[-2:]
    factor = as_number(_NAME, "scale", scale) if scale is not None else 1.0 / math.sqrt(d) if d else 1.0
    q, k, v = _with_heads(query, leading), _with_heads(key, of_keys), _with_heads(value, of_keys)
    mask = None if attn_mask is None else _checked_mask(attn_mask, query, leading, n, m)
    is_stored = p > 0.0 or not (q.array.size and k.array.size and v.array.size)
    if is_stored or (mask is not None and mask.requires_grad and is_grad_enabled()):
        y = _attention_composed(q, k, v, mask, scale=factor, is_causal=is_causal, dropout_p=p)
    else:
        y = attention(q, k, v, mask, scale=factor, is_causal=is_causal)
    return y if len(leading) == 2 else _reshape(y, shape=(*leading, n, e))
