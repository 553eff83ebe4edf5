"""Cases of the kernels of attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.attention import attention_backward, attention_delta, attention_forward
from gpunet.ops.cases.case import Samples, View, unaligned


class _Size(NamedTuple):
    """The extents of a launch."""

    batches: int
    heads: int
    group: int
    queries: int
    keys: int
    depth: int
    columns: int

    def shape(self, name: str) -> tuple[int, ...]:
        of_keys = name in ("k", "v", "dk", "dv")
        heads, rows = (self.heads // self.group, self.keys) if of_keys else (self.heads, self.queries)
        return self.batches, heads, rows, self.depth if name in ("q", "k", "dq", "dk") else self.columns


#: Ragged and whole tiles, several tiles of rows and of columns, groups, more keys than queries and fewer.
_SIZES = (
    _Size(1, 1, 1, 1, 1, 1, 1), _Size(2, 2, 1, 7, 5, 3, 6), _Size(1, 2, 2, 70, 65, 8, 12), _Size(1, 4, 2, 5, 130, 68, 5),
    _Size(1, 1, 1, 130, 9, 5, 70), _Size(2, 3, 3, 64, 64, 16, 8), _Size(1, 1, 1, 66, 132, 12, 66),
)  # fmt: skip
_MASKS = ("", "causal", "mask", "bias", "rows", "keys")
_SHOWN = (_Size(2, 4, 1, 128, 128, 64, 64), _Size(1, 4, 2, 128, 128, 128, 128))
_WASTE = {
    "reads writes": "queries, keys and values of ragged heads are moved element by element; masks and lse are read once for each "
    "tile of scores",
    "banks": "scores are stored transposed, four of a column at once",
}
#: As :class:`gpunet.launch.facts.Facts`.
_SPILLS = {("*", "*"): "a thread keeps 64 sums of the scores and 64 of the result, of 255 registers (twice as many of float64)"}


def _transposed(array: numpy.ndarray) -> View:
    """A tensor (b, heads, n, d) as a view of one (b, n, heads, d), the layout of a projection."""
    return View(numpy.ascontiguousarray(array.transpose(0, 2, 1, 3)), lambda x: x.transpose(0, 2, 1, 3))


def _broadcast(array: numpy.ndarray, shape: tuple[int, ...]) -> View:
    """An array that is broadcast by strides of 0."""
    return View(array, lambda x: devices.module(x).broadcast_to(x, shape))


def _masks(s: Samples, size: _Size, kind: str) -> tuple[Any, Any]:
    """The mask and the bias; with "rows", all keys of some queries are hidden."""
    n, m = size.queries, size.keys
    shape = (size.batches, size.heads, n, m)
    if kind == "mask":
        return s.random.random(shape) < 0.7, None
    if kind == "bias":
        return None, _broadcast(s.normal(1, size.heads, n, m), shape)
    if kind == "rows":
        shown = s.random.random((1, 1, n, m)) < 0.5
        shown[:, :, :: 2 + n // 3] = False
        return _broadcast(shown, shape), None
    if kind == "keys":
        hidden = numpy.where(s.random.random((size.batches, 1, 1, m)) < 0.3, -numpy.inf, 0.0)
        return None, _broadcast(hidden.astype(s.dtype), shape)
    return None, None


def _label(size: _Size, kind: str) -> str:
    return f"queries {size.shape('q')}, keys {size.shape('k')}, {size.columns} columns{', ' * bool(kind)}{kind}"


def _options(size: _Size, kind: str) -> dict[str, Any]:
    return {"scale": float(size.depth) ** -0.5, "is_causal": kind == "causal"}


def _drawn(s: Samples, size: _Size, names: str, is_transposed: bool) -> list[Any]:
    arrays = [s.normal(*size.shape(name)) for name in names.split()]
    return [_transposed(array) for array in arrays] if is_transposed else arrays


def _forward(s: Samples, size: _Size, kind: str, is_transposed: bool = False) -> Any:
    y = s.blank(*size.shape("y"))
    outputs = [_transposed(y) if is_transposed else y, s.accumulators.blank(*y.shape[:3])]
    arrays = [*outputs, *_drawn(s, size, "q k v", is_transposed), *_masks(s, size, kind)]
    return f"{_label(size, kind)}{', transposed' * is_transposed}", arrays, _options(size, kind)


def _launches() -> Iterator[tuple[_Size, str, bool]]:
    """Every size with two kinds of mask, contiguous and transposed."""
    for index, size in enumerate(_SIZES):
        kinds = _MASKS[index % 2 :: 2] if size.queries < 100 else ("causal", _MASKS[2 + index % 4])
        for kind in dict.fromkeys((*kinds, "causal")):
            yield size, kind, False
        yield size, _MASKS[index % 6], True


attention_forward.describe(is_hot=True, waste=_WASTE, spills=_SPILLS)


@attention_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for size, kind, is_transposed in _launches():
        yield _forward(s, size, kind, is_transposed)
    yield from unaligned(*_forward(s, _SIZES[5], "mask"))


@attention_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for size in _SHOWN:
        yield _forward(s, size, "causal")


def _bench(s: Samples) -> _Size:
    """Heads of 64 features on sequences of a quarter of the width of the samples."""
    return _Size(1, 8, 1, max(8, s.width // 4), max(8, s.width // 4), 64, 64)


@attention_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _forward(s, _bench(s), "")


def _num_scores(q: Any, k: Any) -> int:
    return q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]


@attention_forward.cost
def _(y, lse, q, k, v, mask, bias, *, scale, is_causal):
    # two products, and scale, maximum, difference, exp and sum of the scores; masked scores are counted
    flops = _num_scores(q, k) * (2.0 * q.shape[3] + 2 * v.shape[3] + 5 + (bias is not None))
    return Cost(flops, num_bytes(y, lse, q, k, v, mask, bias))


@attention_forward.multiply_adds
def _(y, lse, q, k, v, mask, bias, *, scale, is_causal):
    return _num_scores(q, k) * (q.shape[3] + v.shape[3])


@attention_forward.equivalent
def _(torch, y, lse, q, k, v, mask, bias, *, scale, is_causal):
    attention = torch.nn.functional.scaled_dot_product_attention
    given = mask if bias is None else bias
    return lambda: attention(q, k, v, given, is_causal=is_causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


@attention_delta.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for size in (*_SIZES, _Size(1, 2, 1, 9, 1, 1, 132)):
        for is_transposed in (False, True):
            arrays = [s.accumulators.blank(*size.shape("y")[:3]), *_drawn(s, size, "dy y", is_transposed)]
            yield f"{size.shape('y')}{', transposed' * is_transposed}", arrays, {}
    size = _SIZES[5]
    yield from unaligned(f"{size.shape('y')}", [s.accumulators.blank(*size.shape("y")[:3]), *_drawn(s, size, "dy y", False)], {})
    arrays = [s.accumulators.blank(*size.shape("y")[:3]), *_drawn(s, size, "dy y", False)]
    yield f"{size.shape('y')}, two blocks", arrays, {}, 2


@attention_delta.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    size = _bench(s)
    yield f"{size.shape('y')}", [s.accumulators.blank(*size.shape("y")[:3]), *_drawn(s, size, "dy y", False)], {}


@attention_delta.cost
def _(delta, dy, y):
    return Cost(2 * y.size, num_bytes(delta, dy, y))


def _backward(s: Samples, size: _Size, kind: str, is_transposed: bool = False, leave_out: str = "") -> Any:
    """A launch with lse and delta of a forward launch of the same inputs."""
    q, k, v, dy = (s.normal(*size.shape(name)) for name in ("q", "k", "v", "dy"))
    mask, bias = _masks(s, size, kind)
    whole = [m.of(m.base) if isinstance(m, View) else m for m in (mask, bias)]
    wide = s.accumulators.dtype
    y, lse = numpy.empty(dy.shape, wide), numpy.empty(dy.shape[:3], wide)
    inputs = [None if x is None or x.dtype == bool else x.astype(wide) for x in (q, k, v, whole[1])]
    attention_forward.twin(y, lse, *inputs[:3], whole[0], inputs[3], **_options(size, kind))
    delta = (dy.astype(wide) * y).sum(3)
    outputs = [s.blank(*size.shape(name)) for name in ("dq", "dk", "dv")]
    arrays: list[Any] = [_transposed(x) if is_transposed else x for x in (*outputs, dy, q, k, v)]
    arrays[:3] = [None if name in leave_out.split() else x for name, x in zip(("dq", "dk", "dv"), arrays)]
    text = f"{', transposed' * is_transposed}{', without ' * bool(leave_out)}{leave_out}"
    return f"{_label(size, kind)}{text}", [*arrays[:4], lse, delta, *arrays[4:], mask, bias], _options(size, kind)


attention_backward.describe(is_hot=True, waste=_WASTE, spills=_SPILLS)


@attention_backward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for size, kind, is_transposed in _launches():
        yield _backward(s, size, kind, is_transposed)
    for leave_out in ("dq", "dk", "dv", "dk dv", "dq dk"):
        yield _backward(s, _SIZES[1], "causal", False, leave_out)
    yield from unaligned(*_backward(s, _SIZES[5], "mask"))


@attention_backward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for size in _SHOWN:
        yield _backward(s, size, "causal")


@attention_backward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _backward(s, _bench(s), "")


@attention_backward.cost
def _(dq, dk, dv, dy, lse, delta, q, k, v, mask, bias, *, scale, is_causal):
    # scores, dp, and a product for each gradient; scale, difference, exp, difference and product of the scores
    d, e = q.shape[3], v.shape[3]
    flops = _num_scores(q, k) * (2.0 * (d + e + d * (dq is not None) + d * (dk is not None) + e * (dv is not None)) + 5)
    return Cost(flops, num_bytes(dq, dk, dv, dy, lse, delta, q, k, v, mask, bias))


@attention_backward.multiply_adds
def _(dq, dk, dv, dy, lse, delta, q, k, v, mask, bias, *, scale, is_causal):
    d, e = q.shape[3], v.shape[3]
    return _num_scores(q, k) * (d + e + d * (dq is not None) + d * (dk is not None) + e * (dv is not None))
