"""Layers with the batch normalization that follows, as one layer: for evaluation."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module, Parameter
from gpunet.ops.creation import ones_like, zeros_like

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]

M = TypeVar("M", bound=Module)


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of a convolution that computes what it and the batch normalization behind it compute in evaluation.

    Args:
        transpose: the convolution is a transposed one.

    Raises:
        ArgumentError: one of them is in training mode, or has no running statistics.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """:func:`fuse_conv_bn_eval` of a linear layer.

    Raises:
        ArgumentError: one of them is in training mode, has no running statistics, or the numbers of features differ.
    """
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ArgumentError(f"fuse_linear_bn_eval: {linear.out_features} features, then {bn.num_features}; expected equally many")
    return _fused("fuse_linear_bn_eval", linear, bn, False)


def _fused(function: str, layer: M, bn: Module, transpose: bool) -> M:
    if layer.training or bn.training:
        raise ArgumentError(f"{function}: a layer is in training mode; call .eval() on both first")
    if bn.running_mean is None or bn.running_var is None:
        raise ArgumentError(f"{function}: the batch normalization has no running statistics; expected track_running_stats=True")
    found = copy.deepcopy(layer)
    statistics = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    found.weight, found.bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transpose=transpose)
    return found


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Tensor | None, bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of a convolution with the batch normalization behind it.

    Args:
        conv_w, conv_b: of the convolution.
        bn_rm, bn_rv, bn_eps, bn_w, bn_b: of the normalization: running mean and variance, eps, weight and bias.
        transpose: the convolution is a transposed one, whose weight is (in, out, ...).
    """
    with no_grad():
        mean: Any = bn_rm
        scale = (ones_like(mean) if bn_w is None else bn_w) * (bn_rv + bn_eps).rsqrt()
        shape = [1] * conv_w.ndim
        shape[1 if transpose else 0] = -1
        weight = (conv_w * scale.reshape(shape)).to(conv_w.dtype)
        shift = ((zeros_like(mean) if conv_b is None else conv_b) - mean) * scale
        bias = (shift + (zeros_like(mean) if bn_b is None else bn_b)).to((conv_w if conv_b is None else conv_b).dtype)
    needs_grad = conv_w.requires_grad, conv_w.requires_grad if conv_b is None else conv_b.requires_grad
    return Parameter(weight, needs_grad[0]), Parameter(bias, needs_grad[1])


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Tensor, bn_b: Tensor
) -> tuple[Parameter, Parameter]:
    """:func:`fuse_conv_bn_weights` of a linear layer."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
