"""Functions that PyTorch has at its top level under names of ``nn.functional``, with other parameters: what its layers call.

Words are numbers there: the mode of a bag is 0 for "sum", 1 for "mean" and 2 for "max".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import dtypes
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.random import default_generator, random_bernoulli
from gpunet.ops import batch_norm as batches
from gpunet.ops import conv_transpose, gates, grid_sample, normalization, pooling
from gpunet.ops import convolution as convolutions
from gpunet.ops import dropout as dropouts
from gpunet.ops import embedding as tables
from gpunet.ops import pad as paddings
from gpunet.ops.compare import compare
from gpunet.ops.convert import clone
from gpunet.ops.creation import ones, ones_like
from gpunet.ops.elementwise import rsqrt, where
from gpunet.ops.face import as_integer, as_positive, as_probability, named, public, sizes_of
from gpunet.ops.in_place import check_in_place
from gpunet.ops.index import index_select
from gpunet.ops.join import cat
from gpunet.ops.reduce import converted, var_mean
from gpunet.ops.scatter import index_add

_NAMES = [
    "affine_grid_generator", "batch_norm", "constant_pad_nd", "convolution", "embedding", "embedding_bag", "embedding_renorm_",
    "group_norm", "instance_norm", "layer_norm", "native_batch_norm", "native_dropout", "native_group_norm", "native_layer_norm",
    "rrelu",
]  # fmt: skip


def word(function: str, name: str, number: Any, words: tuple[str, ...]) -> str:
    """The word that a number stands for.

    Raises:
        ArgumentError: the number stands for none.
    """
    position = as_integer(function, name, number)
    if not 0 <= position < len(words):
        expected = ", ".join(f"{i} ({text})" for i, text in enumerate(words))
        raise ArgumentError(f"{function}: {name}={number}; expected one of {expected}")
    return words[position]


# ---- dropout ----------------------------------------------------------------------------------------------------------


def _dropout(name: str, by_channel: bool, is_in_place: bool) -> Callable[..., Any]:
    kind, function = name.removesuffix("_"), f"{name}_" if is_in_place else name

    def drop(input: Any, p: float, train: bool) -> Tensor:
        if by_channel and input.ndim < 2:
            raise ShapeError(f"{function}: the input has shape {tuple(input.shape)}; expected (batch, channels, ...)")
        return dropouts.dropped(kind, input, p, train, is_in_place, 2 if by_channel else None)

    where_to = ", in place" if is_in_place else ""
    doc = f":func:`nn.functional.{kind}` of {'channels (n, c, ...)' if by_channel else 'elements'}{where_to}, if ``train``."
    return public(out=False)(named(drop, function, doc))


_FAMILY = {
    f"{_name}{'_' * _in_place}": _dropout(_name, _name.startswith("feature"), _in_place)
    for _name in ("alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout") for _in_place in (False, True)
}  # fmt: skip


@public(out=False)
def native_dropout(input: Any, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(the elements, zero with probability ``p`` and else times 1 / (1 - p); a mask of those that are kept).

    Args:
        train: False keeps all; None means True.
    """
    p = as_probability("native_dropout", "p", p)
    if train is False:
        return clone(input), ones_like(input, dtype=dtypes.bool)
    if not dtypes.is_floating(input.dtype):
        raise DtypeError(f"native_dropout: the tensor has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    mask = empty(input.array.shape, numpy.bool_, input.array)
    default_generator.fill(random_bernoulli, mask, probability=1.0 - p)
    kept = make_tensor(mask)
    return dropouts.masked_scale(input, kept, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), kept


# ---- tables -----------------------------------------------------------------------------------------------------------


def _padding(function: str, weight: Any, padding_idx: Any) -> int | None:
    """The padding row; a number that is none of the table's rows means none."""
    padding, rows = as_integer(function, "padding_idx", padding_idx), len(weight) if wrap(weight, function).ndim else 0
    return padding if 0 <= padding < rows else None


def embedding(
    weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """:func:`nn.functional.embedding` with the table in front; a negative ``padding_idx`` means none."""
    padding = _padding("embedding", weight, padding_idx)
    return tables.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


@public(out=False)
def embedding_renorm_(input: Any, indices: Any, max_norm: float, norm_type: float) -> Tensor:
    """Scale the rows of a table at ``indices`` to a norm of at most ``max_norm``, in place; return the table."""
    check_in_place(input, (), "embedding_renorm_")
    weight, index, _ = tables.checked_table("embedding_renorm_", tables.EMBEDDING, indices, input, None, False, False)
    tables.limit_norms("embedding_renorm_", weight, index, max_norm, norm_type)
    return weight


def embedding_bag(
    weight: Any, indices: Any, offsets: Any, scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """:func:`nn.functional.embedding_bag` of a vector of ``indices``, and what it is computed by.

    Args:
        mode: 0 for the sum, 1 for the mean, 2 for the maximum.

    Returns:
        (bags, columns); the bag of each index (n,); the number of indices of each bag that count (bags,), and the same again, or
        for the maximum the index of each (bags, columns), 0 in an empty bag.
    """
    kind = word("embedding_bag", "mode", mode, ("sum", "mean", "max"))
    if offsets is None:
        raise DtypeError("embedding_bag: offsets is None; expected a vector: where each bag begins")
    found = tables.embedding_bag(
        indices, weight, offsets, scale_grad_by_freq=scale_grad_by_freq, mode=kind, sparse=sparse,
        per_sample_weights=per_sample_weights, include_last_offset=include_last_offset, padding_idx=padding_idx,
    )  # fmt: skip
    index = wrap(indices, "embedding_bag").long()
    bags, bag_of = tables.bags_of(index, offsets, include_last_offset)
    padding = None if padding_idx is None else int(padding_idx) % len(wrap(weight))
    counted = bag_of if padding is None else where(compare("equal", index, padding), bags, bag_of)
    zeros = index.new_zeros(bags + 1)
    sizes = index_add(zeros, 0, counted, ones(len(index), dtype=dtypes.int64, device=index.device))[:bags]
    if kind != "max":
        return found, bag_of, sizes, sizes
    first = tables.first_maxima(index_select(wrap(weight).detach(), 0, index), counted, bags)
    numbers = cat([index, index.new_zeros(1)])  # the last one is of empty bags
    return found, bag_of, sizes, index_select(numbers, 0, first.reshape(-1)).reshape(first.shape)


# ---- pooling, padding, convolution ------------------------------------------------------------------------------------


def _max_pool(name: str) -> Callable[..., Any]:
    in_functional = getattr(pooling, name)

    def pool(
        input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> Any:
        return in_functional(input, kernel_size, stride, padding, dilation, ceil_mode)

    return public(out=False)(named(pool, name, f":func:`nn.functional.{name}`, whose last parameter it lacks."))


_FAMILY |= {_name: _max_pool(_name) for _name in ("max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool3d")}


def _adaptive_max_pool1d(input: Any, output_size: Any) -> tuple[Tensor, Tensor]:
    return pooling.adaptive_max_pool1d_with_indices(input, output_size)


_FAMILY["adaptive_max_pool1d"] = public(out=False)(
    named(_adaptive_max_pool1d, "adaptive_max_pool1d", ":func:`nn.functional.adaptive_max_pool1d_with_indices`.")
)


@public(out=False)
def constant_pad_nd(input: Any, pad: Any, value: Any = 0) -> Tensor:
    """:func:`nn.functional.pad` with a constant."""
    if value is None:
        raise DtypeError("constant_pad_nd: value is None; expected a number")
    return paddings.pad(input, pad, "constant", value)


def convolution(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int
) -> Tensor:
    """A convolution of signals, images or volumes with filters, or its transpose: of as many dimensions as the filters have.

    Args:
        transposed: :func:`conv_transpose2d` and its kin, else :func:`conv2d` and its kin, which take no ``output_padding``.

    Raises:
        ShapeError: the weight has not 3 to 5 dimensions.
    """
    filters = wrap(weight, "convolution")
    dims = filters.ndim - 2
    if dims not in (1, 2, 3):
        raise ShapeError(f"convolution: weight has shape {tuple(filters.shape)}; expected 3, 4 or 5 dimensions")
    bias = None if bias is None else wrap(bias)
    numbers = [sizes_of("convolution", (), numbers=value) for value in (stride, padding, dilation, output_padding)]
    steps, widths, gaps, more = (n * dims if len(n) == 1 else n for n in numbers)
    if transposed:
        return conv_transpose.transpose_convolve(wrap(input), filters, bias, steps, widths, more, groups, gaps, dims=dims)
    return convolutions.convolve(input, filters, bias, steps, widths, gaps, groups, dims=dims)


# ---- norms ------------------------------------------------------------------------------------------------------------


@public(out=False)
def batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float, eps: float,
    cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """:func:`nn.functional.batch_norm` with its parameters in another order; ``cudnn_enabled`` has no effect."""
    return batches.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


@public(out=False)
def instance_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, use_input_stats: bool, momentum: float, eps: float,
    cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """:func:`nn.functional.instance_norm` with its parameters in another order; ``cudnn_enabled`` has no effect."""
    return batches.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


@public(out=False)
def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enable: bool = True
) -> Tensor:
    """:func:`nn.functional.layer_norm`; ``cudnn_enable`` has no effect."""
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps)


@public(out=False)
def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Tensor:
    """:func:`nn.functional.group_norm`; ``cudnn_enabled`` has no effect."""
    return normalization.group_norm(input, num_groups, weight, bias, eps)


def _statistics(x: Tensor, dims: tuple[int, ...], eps: float, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The means, and 1 / sqrt(variances + eps), over dimensions; outside of the graph, as in PyTorch."""
    x = x.detach()
    variance, mean = var_mean(converted(x, dtypes.accumulator(x.dtype)), dims, correction=0, keepdim=keepdim)
    return converted(mean, x.dtype), converted(rsqrt(variance + eps), x.dtype)


@public(out=False)
def native_layer_norm(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(:func:`layer_norm`, the means, 1 / sqrt(variances + eps)); the statistics have size 1 in the normalized dimensions."""
    y = normalization.layer_norm(input, normalized_shape, weight, bias, eps)
    count = len(normalization.normalized_sizes("native_layer_norm", normalized_shape))
    return y, *_statistics(input, tuple(range(input.ndim - count, input.ndim)), eps, keepdim=True)


@public(out=False)
def native_group_norm(
    input: Any, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float  # noqa: N803
) -> tuple[Tensor, Tensor, Tensor]:
    """(:func:`group_norm`, the means (N, group), 1 / sqrt(variances + eps) (N, group)).

    Raises:
        ShapeError: the input has not N images of C channels of HxW elements.
    """
    groups, shape = as_positive("native_group_norm", "group", group), tuple(input.shape)
    if shape[:2] != (N, C) or math.prod(shape) != N * C * HxW:
        raise ShapeError(f"native_group_norm: the input has shape {shape}; expected N={N}, C={C} and HxW={HxW} elements of each")
    y = normalization.group_norm(input, groups, weight, bias, eps)
    return y, *_statistics(input.reshape(N, groups, -1), (2,), eps)


@public(out=False)
def native_batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(:func:`batch_norm`, the means and 1 / sqrt(variances + eps) of the channels in training, else empty)."""
    y = batches.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if training:
        return y, *_statistics(input, (0, *range(2, input.ndim)), eps)
    nothing = make_tensor(empty((0,), input.dtype, input.array))
    return y, nothing, nothing


# ---- samples of a grid, activations -----------------------------------------------------------------------------------


def _sampler(name: str, num_dims: tuple[int, ...]) -> Callable[..., Any]:
    def sample(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
        if input.ndim not in num_dims:
            expected = " or ".join(map(str, num_dims))
            raise ShapeError(f"{name}: the input has shape {tuple(input.shape)}; expected {expected} dimensions")
        mode = word(name, "interpolation_mode", interpolation_mode, ("bilinear", "nearest", "bicubic"))
        padding = word(name, "padding_mode", padding_mode, ("zeros", "border", "reflection"))
        return grid_sample.grid_sample(input, grid, mode, padding, align_corners)

    doc = (
        ":func:`nn.functional.grid_sample`; modes are 0 bilinear, 1 nearest, 2 bicubic, paddings 0 zeros, 1 border, 2 reflection."
    )
    return public(out=False, autocast="cpu: float32, cuda: widest")(named(sample, name, doc))


_FAMILY |= {
    _name: _sampler(_name, _dims) for _name, _dims in
    (("grid_sampler", (4, 5)), ("grid_sampler_2d", (4,)), ("grid_sampler_3d", (5,)))
}  # fmt: skip


def affine_grid_generator(theta: Any, size: Any, align_corners: bool) -> Tensor:
    """:func:`nn.functional.affine_grid`."""
    return grid_sample.affine_grid(theta, size, align_corners)


@public(out=False)
def rrelu(
    input: Any, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, generator: Any = None
) -> Tensor:
    """:func:`nn.functional.rrelu` with the numbers of a generator."""
    return gates.randomized(input, lower, upper, training, generator)


globals().update(_FAMILY)
__all__ = sorted([*_NAMES, *_FAMILY])
