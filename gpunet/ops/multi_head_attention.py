"""Multi-head attention (Vaswani et al. 2017): projections to heads, attention of each head, and a projection of their results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import is_cast
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.ops.attention import scaled_dot_product_attention, weights_of_attention
from gpunet.ops.creation import zeros
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, as_probability, public
from gpunet.ops.join import cat, chunk, split
from gpunet.ops.linear import linear
from gpunet.ops.matmul import matmul
from gpunet.ops.reduce import mean
from gpunet.ops.shape import _permute, _reshape

__all__ = ["multi_head_attention_forward"]


class Parameters(NamedTuple):
    """The parameters of multi-head attention, see :func:`multi_head_attention_forward`; all but ``out_weight`` may be None.

    Attributes:
        packed: the projections of query, key and value in one matrix, or None; then ``separate`` are the three.
    """

    packed: Tensor | None
    separate: Sequence[Any]
    bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_weight: Tensor
    out_bias: Tensor | None


class Masks(NamedTuple):
    """The masks of multi-head attention, as :func:`multi_head_attention_forward` takes them."""

    attn_mask: Any
    key_padding_mask: Any
    is_causal: bool


_IGNORED = "True is ignored here; in scaled_dot_product_attention, True attends"


def _check_inputs(function: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check the numbers of dimensions and positions."""
    text = f"{function}: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise ShapeError(f"{text}; expected three dimensions each, or two without a batch")
    if key.shape[:-1] != value.shape[:-1]:
        raise ShapeError(f"{text}; expected key and value of the same positions and batches")


def _check_features(function: str, inputs: Sequence[tuple[str, Tensor, int]]) -> None:
    for name, x, expected in inputs:
        if x.shape[-1] != expected:
            raise ShapeError(f"{function}: {name} has shape {tuple(x.shape)}; expected {expected} features in its last dimension")


def _check_parameters(function: str, parameters: Sequence[tuple[str, Tensor | None, tuple[int | None, ...]]]) -> None:
    """Check dtypes and shapes of (name, parameter, expected shape); None in a shape is any size."""
    for name, x, expected in parameters:
        if x is not None and (x.ndim != len(expected) or any(n not in (m, None) for n, m in zip(expected, x.shape))):
            text = ", ".join("features" if n is None else str(n) for n in expected)
            raise ShapeError(f"{function}: {name} has shape {tuple(x.shape)}; expected ({text})")
        if x is not None and not is_floating(x.dtype):
            raise DtypeError(f"{function}: {name} has dtype {x.dtype}; expected a floating dtype: convert it with .float()")


def _projected(query: Tensor, key: Tensor, value: Tensor, parameters: Parameters) -> Sequence[Tensor]:
    """Project query, key and value; inputs that are the same tensor share one product with the packed weight."""
    weight, bias = parameters.packed, parameters.bias
    if weight is None:
        biases = (None,) * 3 if bias is None else chunk(bias, 3)
        return [linear(x, w, b) for x, w, b in zip((query, key, value), parameters.separate, biases)]
    if query is key and key is value:
        return chunk(linear(query, weight, bias), 3, -1)
    size = weight.shape[0] // 3
    sizes = [size, 2 * size] if key is value else [size] * 3
    biases = (None,) * 3 if bias is None else split(bias, sizes)
    found = [linear(x, w, b) for x, w, b in zip((query, key, value), split(weight, sizes), biases)]
    return [found[0], *chunk(found[1], 2, -1)] if key is value else found


def _with_column(mask: Tensor, count: int) -> Tensor:
    """A mask (..., m) that hides none of ``count`` further keys."""
    if not count:
        return mask
    return cat([mask, zeros(*mask.shape[:-1], count, dtype=mask.dtype, device=mask.device)], -1)


def _merged_mask(
    function: str, masks: Masks, query: Tensor, dtype: Any, n: int, heads: int, extent: tuple[int, int], num_more: int
) -> Tensor | None:
    """The mask of :func:`scaled_dot_product_attention`, four-dimensional, from those of multi-head attention.

    Args:
        dtype: of the projected query, which differs from that of the query in an autocast block.
        extent: numbers of queries and keys.
        num_more: of keys behind them, which no mask hides.
    """
    found: list[Tensor] = []
    whole, of_heads = extent, (n * heads, *extent)
    shapes_of = {"attn_mask": (whole, of_heads), "key_padding_mask": ((n, extent[1]),)}
    for (name, shapes), mask in zip(shapes_of.items(), masks):
        if mask is None:
            continue
        mask = wrap(mask)
        if not is_boolean(mask.dtype) and mask.dtype != query.dtype and not (is_cast(mask) and is_cast(query)):
            raise DtypeError(
                f"{function}: {name} has dtype {mask.dtype}; expected bool ({_IGNORED}), or {query.dtype}, which is added to the "
                "scores"
            )
        if tuple(mask.shape) not in shapes:
            raise ShapeError(f"{function}: {name} has shape {tuple(mask.shape)}; expected {' or '.join(map(str, shapes))}")
        if name == "key_padding_mask":
            mask = _reshape(mask, shape=(n, 1, 1, extent[1]))
        else:
            mask = _reshape(mask, shape=(1, 1, *extent) if mask.ndim == 2 else (n, heads, *extent))
        found.append(_with_column(mask if is_boolean(mask.dtype) else mask.to(dtype), num_more))
    if not found:
        return None
    if len({mask.dtype for mask in found}) == 2:
        warn_user(f"{function}: mismatched key_padding_mask and attn_mask are deprecated; use the same dtype for both")
        found = [where(m, -math.inf, 0.0).to(dtype) if is_boolean(m.dtype) else m for m in found]
    if is_boolean(found[0].dtype):
        return ~(found[0] | found[1] if len(found) == 2 else found[0])
    return found[0] + found[1] if len(found) == 2 else found[0]


def attend(
    function: str, query: Any, key: Any, value: Any, num_heads: int, parameters: Parameters, masks: Masks, *, dropout_p: float,
    add_zero_attn: bool, need_weights: bool, average: bool, batch_first: bool = False, static: tuple[Any, Any] = (None, None),
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """:func:`multi_head_attention_forward` on behalf of ``function``; with ``batch_first`` of inputs (n, positions, features).

    Args:
        dropout_p: 0 in evaluation.
        average: whether the weights are averaged over the heads.
        static: keys and values that are passed as heads, or None.
    """
    same = query is key, key is value
    query = wrap(query)
    key = query if same[0] else wrap(key)
    value = key if same[1] else wrap(value)
    is_batched = query.ndim == 3
    _check_inputs(function, query, key, value)
    size = parameters.out_weight.shape[1]
    inputs = [size] * 3 if parameters.packed is not None else [w.shape[1] for w in parameters.separate]
    _check_features(function, [*zip(("query", "key", "value"), (query, key, value), inputs)])
    if not is_batched:
        if masks.key_padding_mask is not None:
            masks = masks._replace(key_padding_mask=wrap(masks.key_padding_mask).unsqueeze(0))
        batched = [x.unsqueeze(0 if batch_first else 1) for x in (query, key, value)]
        query, key = batched[0], batched[0] if same[0] else batched[1]
        value = key if same[1] else batched[2]
    at, of_batch = (1, 0) if batch_first else (0, 1)
    n, positions, num_keys, d = query.shape[of_batch], query.shape[at], key.shape[at], size // num_heads
    if key.shape[of_batch] != n:
        raise ShapeError(f"{function}: query {tuple(query.shape)} and key {tuple(key.shape)}; expected the same batch size")
    if masks.is_causal and masks.attn_mask is None:
        raise ArgumentError(
            f"{function}: is_causal=True without attn_mask; pass the mask, too: is_causal says that it is causal "
            "(nn.Transformer.generate_square_subsequent_mask makes it)"
        )
    q, k, v = _projected(query, key, value, parameters)
    if parameters.bias_k is not None and parameters.bias_v is not None:
        more = (n, 1, size) if batch_first else (1, n, size)
        k, v = (cat([x, b.to(x.dtype).expand(*more)], at) for x, b in ((k, parameters.bias_k), (v, parameters.bias_v)))
    order = (0, 2, 1, 3) if batch_first else (1, 2, 0, 3)
    q, k, v = (_permute(_reshape(x, shape=(*x.shape[:2], num_heads, d)), dims=order) for x in (q, k, v))
    k, v = (x if given is None else _static(function, name, given, n, num_heads, d) for name, x, given in (
        ("static_k", k, static[0]), ("static_v", v, static[1])
    ))  # fmt: skip
    if add_zero_attn:
        k, v = (cat([x, zeros(n, num_heads, 1, d, dtype=x.dtype, device=x.device)], 2) for x in (k, v))
    is_causal = masks.is_causal and masks.key_padding_mask is None and not need_weights and k.shape[2] == num_keys
    mask = None
    if not is_causal:
        extent = positions, num_keys if static[0] is None else static[0].shape[1]
        mask = _merged_mask(function, masks, query, q.dtype, n, num_heads, extent, k.shape[2] - extent[1])
    weights = None
    if need_weights:
        weights = weights_of_attention(q, k, mask, 1.0 / math.sqrt(d), False, dropout_p)
        y = matmul(weights, v)
        weights = mean(weights, 1) if average else weights
    else:
        y = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)
    y = _reshape(_permute(y, dims=(0, 2, 1, 3) if batch_first else (2, 0, 1, 3)), shape=(*query.shape[:2], size))
    y = linear(y, parameters.out_weight, parameters.out_bias)
    if not is_batched:
        y, weights = y.squeeze(of_batch), None if weights is None else weights.squeeze(0)
    return y, weights


def _static(function: str, name: str, given: Any, n: int, heads: int, d: int) -> Tensor:
    """Keys or values that are passed as heads, (n heads, positions, d)."""
    x = wrap(given)
    if x.ndim != 3 or x.shape[0] != n * heads or x.shape[2] != d:
        raise ShapeError(f"{function}: {name} has shape {tuple(x.shape)}; expected ({n * heads}, positions, {d})")
    return _reshape(x, shape=(n, heads, x.shape[1], d))


@public(out=False)
def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any, in_proj_bias: Any, bias_k: Any,
    bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any, out_proj_bias: Any, training: bool = True,
    key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None, k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Attention of several heads between projections, the function of :class:`gpunet.nn.MultiheadAttention`.

    Args:
        query: (positions, n, features), or (positions, features) without a batch.
        key: (keys, n, features).
        value: (keys, n, features).
        embed_dim_to_check: the features of the query.
        num_heads: a divisor of the features.
        in_proj_weight: (3 features, features), the projections of query, key and value.
        in_proj_bias: (3 features,), or None.
        bias_k, bias_v: (1, 1, features), a key and a value behind the others, or None.
        add_zero_attn: add a key and a value of zeros.
        dropout_p: the probability with which each weight is dropped in training.
        out_proj_weight, out_proj_bias: (features, features) and (features,), or None.
        training: whether to drop weights.
        key_padding_mask: (n, keys): boolean, where True is ignored, or added to the scores.
        need_weights: whether to return the weights, which are stored then.
        attn_mask: (positions, keys) or (n num_heads, positions, keys): boolean, where True is ignored, or added to the scores.
            In :func:`scaled_dot_product_attention`, True attends.
        use_separate_proj_weight: whether to use the following instead of ``in_proj_weight``.
        q_proj_weight, k_proj_weight, v_proj_weight: (features, features of the input).
        static_k, static_v: (n num_heads, keys, features / num_heads), in place of the projected keys and values.
        average_attn_weights: whether the weights are averaged over the heads.
        is_causal: says that ``attn_mask`` is the causal mask; it is not read then unless other masks or the weights need it.

    Returns:
        The result, of the shape of the query, and the weights (n, positions, keys), with the heads as dimension 1 if not averaged;
        None without ``need_weights``.  Queries whose keys are all ignored give weights of 0.

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: a mask is neither boolean nor of the dtype of the query.
        ArgumentError: arguments contradict each other.
    """
    name = "multi_head_attention_forward"
    heads, size = as_integer(name, "num_heads", num_heads), as_integer(name, "embed_dim_to_check", embed_dim_to_check)
    out_weight, shape = wrap(out_proj_weight), tuple(wrap(query).shape)
    if shape[-1:] != (size,):
        raise ShapeError(f"{name}: the query has shape {shape}; expected embed_dim_to_check={size} features in its last dimension")
    if heads < 1 or size % heads:
        raise ArgumentError(f"{name}: num_heads={num_heads}; expected a divisor of the {size} features")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    if any(w is None for w in (separate if use_separate_proj_weight else (in_proj_weight,))):
        expected = "q_proj_weight, k_proj_weight and v_proj_weight" if use_separate_proj_weight else "in_proj_weight"
        raise ArgumentError(f"{name}: use_separate_proj_weight={use_separate_proj_weight}; expected {expected}")
    if (bias_k is None) != (bias_v is None):
        raise ArgumentError(f"{name}: got {'bias_v' if bias_k is None else 'bias_k'} alone; expected bias_k and bias_v, or neither")
    if bias_k is not None and (static_k is not None or static_v is not None):
        raise ArgumentError(f"{name}: got bias_k and bias_v with static_k or static_v; expected one pair of them")
    weight = None if use_separate_proj_weight else wrap(in_proj_weight)
    weights = [wrap(w) for w in separate] if use_separate_proj_weight else ()
    bias, *bias_kv = (None if b is None else wrap(b) for b in (in_proj_bias, bias_k, bias_v))
    _check_parameters(name, (
        ("out_proj_weight", out_weight, (size, size)), ("in_proj_weight", weight, (3 * size, size)),
        ("in_proj_bias", bias, (3 * size,)),
        *((f"{key}_proj_weight", w, (size, None)) for key, w in zip("qkv", weights)),
        *((f"bias_{key}", b, (1, 1, size)) for key, b in zip("kv", bias_kv)),
    ))  # fmt: skip
    p = as_probability(name, "dropout_p", dropout_p)
    return attend(
        name, query, key, value, heads, Parameters(weight, weights, bias, bias_kv[0], bias_kv[1], out_weight, out_proj_bias),
        Masks(attn_mask, key_padding_mask, is_causal), dropout_p=p if training else 0.0, add_zero_attn=add_zero_attn,
        need_weights=need_weights, average=average_attn_weights, static=(static_k, static_v),
    )  # fmt: skip
