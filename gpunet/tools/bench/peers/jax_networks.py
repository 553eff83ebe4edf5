"""The named networks written for JAX, as functions of the parameters and buffers by PyTorch's names.

Images are (n, h, w, c) and the kernels of convolutions (h, w, in, out), JAX's fastest layout on CPU and GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy

from gpunet.tools.bench.networks import HEADS, WIDTH, Network

Values = dict[str, Any]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_MOMENTUM, _EPS = 0.1, 1e-5


def linear(p: Values, name: str, x: Any) -> Any:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def convolution(p: Values, name: str, x: Any, stride: int = 1, padding: int = 0) -> Any:
    pads = [(padding, padding)] * 2
    y = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), pads, dimension_numbers=_LAYOUT)
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def transposed_convolution(p: Values, name: str, x: Any, stride: int, padding: int) -> Any:
    kernel = p[f"{name}.weight"]
    pads = [(kernel.shape[0] - 1 - padding,) * 2] * 2
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT)
    return y + p[f"{name}.bias"]


def max_pool(x: Any) -> Any:
    """Of windows of 2 x 2."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def flat(x: Any) -> Any:
    """Rows of images in PyTorch's order: channels first."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def batch_norm(p: Values, buffers: Values, name: str, x: Any) -> Any:
    """Normalize by the statistics of the batch, and set the running ones."""
    axes = tuple(range(x.ndim - 1))
    mean, count = x.mean(axes), math.prod(x.shape[:-1])
    variance = ((x - mean) ** 2).mean(axes)
    for key, value in (("running_mean", mean), ("running_var", variance * (count / (count - 1)))):
        buffers[f"{name}.{key}"] = (1 - _MOMENTUM) * buffers[f"{name}.{key}"] + _MOMENTUM * jax.lax.stop_gradient(value)
    return (x - mean) * jax.lax.rsqrt(variance + _EPS) * p[f"{name}.weight"] + p[f"{name}.bias"]


def layer_norm(p: Values, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + _EPS)
    return centred * rstd * p[f"{name}.weight"] + p[f"{name}.bias"]


def gelu(x: Any) -> Any:
    return jax.nn.gelu(x, approximate=False)


# ---- the networks: (parameters, buffers, x) -> output; they set the buffers ------------------------------------------


def lenet(p: Values, buffers: Values, x: Any) -> Any:
    x = max_pool(jax.nn.relu(convolution(p, "0", x, padding=2)))
    x = flat(max_pool(jax.nn.relu(convolution(p, "3", x))))
    return linear(p, "11", jax.nn.relu(linear(p, "9", jax.nn.relu(linear(p, "7", x)))))


def resnet(p: Values, buffers: Values, x: Any) -> Any:
    def layer(name: str, x: Any, stride: int = 1, padding: int = 1) -> Any:
        return batch_norm(p, buffers, f"{name}.1", convolution(p, f"{name}.0", x, stride, padding))

    x = jax.nn.relu(layer("0", x))
    for block, stride in (("2", 1), ("3", 2), ("4", 2)):
        y = layer(f"{block}.second", jax.nn.relu(layer(f"{block}.first", x, stride)))
        x = jax.nn.relu(y + (x if stride == 1 else layer(f"{block}.shortcut", x, stride, 0)))
    return linear(p, "7", x.mean((1, 2)))


def vgg(p: Values, buffers: Values, x: Any) -> Any:
    for first in (0, 5, 10):
        x = jax.nn.relu(convolution(p, str(first), x, padding=1))
        x = max_pool(jax.nn.relu(convolution(p, str(first + 2), x, padding=1)))
    return linear(p, "18", jax.nn.relu(linear(p, "16", flat(x))))


def autoencoder(p: Values, buffers: Values, x: Any) -> Any:
    x = jax.nn.relu(convolution(p, "0", x, 2, 1))
    x = linear(p, "6", linear(p, "5", flat(jax.nn.relu(convolution(p, "2", x, 2, 1)))))
    x = jax.nn.relu(x.reshape(len(x), 32, 7, 7).transpose(0, 2, 3, 1))
    return transposed_convolution(p, "11", jax.nn.relu(transposed_convolution(p, "9", x, 2, 1)), 2, 1)


def batch_norm_mlp(p: Values, buffers: Values, x: Any) -> Any:
    for layer in (0, 3):
        x = jax.nn.relu(batch_norm(p, buffers, str(layer + 1), linear(p, str(layer), x)))
    return linear(p, "6", x)


def recommender(p: Values, buffers: Values, x: Any) -> Any:
    rows = jnp.concatenate([p["users.weight"][x[:, 0]], p["items.weight"][x[:, 1]]], 1)
    return linear(p, "rating.2", jax.nn.relu(linear(p, "rating.0", rows)))[:, 0]


def residual_mlp(p: Values, buffers: Values, x: Any) -> Any:
    x = linear(p, "0", x)
    for block in "1234":
        x = x + linear(p, f"{block}.second", gelu(linear(p, f"{block}.first", layer_norm(p, f"{block}.norm", x))))
    return linear(p, "6", layer_norm(p, "5", x))


def gpt(p: Values, buffers: Values, index: Any) -> Any:
    n, positions = index.shape
    x = p["tokens.weight"][index] + p["positions.weight"]
    for block in ("blocks.0", "blocks.1"):
        parts = linear(p, f"{block}.projection", layer_norm(p, f"{block}.norms.0", x))
        q, k, v = (part.reshape(n, positions, HEADS, WIDTH // HEADS) for part in jnp.split(parts, 3, -1))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(p, f"{block}.joined", y.reshape(n, positions, WIDTH))
        x = x + linear(p, f"{block}.second", gelu(linear(p, f"{block}.first", layer_norm(p, f"{block}.norms.1", x))))
    return layer_norm(p, "norm", x) @ p["tokens.weight"].T


def lstm(p: Values, buffers: Values, x: Any) -> Any:
    bias = p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]
    products = x.swapaxes(0, 1) @ p["lstm.weight_ih_l0"].T + bias  # of all steps at once

    def cell(state: Any, product: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(product + h @ p["lstm.weight_hh_l0"].T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((x.shape[0], p["lstm.weight_hh_l0"].shape[1]))
    (h, _), _ = jax.lax.scan(cell, (zeros, zeros), products)
    return linear(p, "head", h)


FORWARD: dict[str, Callable[[Values, Values, Any], Any]] = {
    "lenet": lenet, "resnet": resnet, "vgg": vgg, "gpt": gpt, "lstm": lstm, "batch-norm": batch_norm_mlp,
    "autoencoder": autoencoder, "recommender": recommender, "residual": residual_mlp,
}  # fmt: skip

_TRANSPOSED = {"autoencoder": ("9.weight", "11.weight")}


def values_of(network: Network) -> tuple[Values, Values]:
    """Parameters and buffers with initial values."""
    parameters: Values = {}
    buffers: Values = {}
    for name, array in network.state().items():
        if name in network.trained:
            if array.ndim == 4 and name in _TRANSPOSED.get(network.name, ()):  # (in, out, h, w), flipped
                array = array.transpose(2, 3, 0, 1)[::-1, ::-1]
            elif array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
            parameters[name] = jnp.asarray(numpy.ascontiguousarray(array))
        elif name.endswith(("running_mean", "running_var")):
            buffers[name] = jnp.asarray(array)
    return parameters, buffers


def as_images_last(array: numpy.ndarray) -> numpy.ndarray:
    """Images (n, c, h, w) as (n, h, w, c); another array as it is."""
    return numpy.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
