"""Functions of the layers, under PyTorch's names."""

from gpunet.ops.activations import elu, gelu, leaky_relu, relu, sigmoid, silu, softplus, tanh
from gpunet.ops.dropout import dropout
from gpunet.ops.index import one_hot
from gpunet.ops.join import pad
from gpunet.ops.linear import linear
from gpunet.ops.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from gpunet.ops.reduce import log_softmax, softmax

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "elu",
    "gelu",
    "huber_loss",
    "l1_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mse_loss",
    "one_hot",
    "pad",
    "relu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]
