"""Samples of layer, RMS, group, instance, batch and local response norm."""

from __future__ import annotations

import math
from typing import Any

import numpy

import gpunet
from tests.samples.activations import ACTIVATIONS, torch_activation
from tests.samples.inputs import ROWS, away, fixed, normal, positive, uniform
from tests.samples.row import row

F = gpunet.nn.functional
EPS = 1e-5


def standardized(x: numpy.ndarray, axes: Any, is_centred: bool = True, eps: float = EPS) -> numpy.ndarray:
    """(x - mean) / sqrt(variance + eps) over some axes."""
    centred = x - x.mean(axes, keepdims=True) if is_centred else x
    return centred / numpy.sqrt((centred * centred).mean(axes, keepdims=True) + eps)


def per_channel(values: numpy.ndarray, x: numpy.ndarray) -> numpy.ndarray:
    """Numbers of channels in the shape (channels, 1, ...) of x (n, channels, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def grouped(x: numpy.ndarray, w: numpy.ndarray, b: numpy.ndarray, groups: int) -> numpy.ndarray:
    rows = x.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)
    return standardized(rows, 2).reshape(x.shape) * per_channel(w, x) + per_channel(b, x)


def of_batch(x: numpy.ndarray, w: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    return standardized(x, (0, *range(2, x.ndim))) * per_channel(w, x) + per_channel(b, x)


for _name, _x, _sizes in (
    ("rows", (ROWS, 7), (7,)), ("packs", (ROWS, 12), (12,)), ("sequences", (ROWS, 3, 5), (5,)),
    ("two dimensions", (ROWS, 3, 5), (3, 5)),
):  # fmt: skip
    _axes = tuple(range(-len(_sizes), 0))
    row(
        "normalized_rows", lambda x, w, b, s=_sizes: F.layer_norm(x, s, w, b),
        lambda x, w, b, a=_axes: standardized(x, a) * w + b, normal(*_x), normal(*_sizes), normal(*_sizes), name=f"layer, {_name}",
        torch=lambda torch, x, w, b, s=_sizes: torch.nn.functional.layer_norm(x, s, w, b),
    )  # fmt: skip
    row(
        "normalized_rows", lambda x, w, s=_sizes: F.rms_norm(x, s, w, 0.1),
        lambda x, w, a=_axes: standardized(x, a, False, 0.1) * w, normal(*_x), normal(*_sizes), name=f"root mean square, {_name}",
        torch=lambda torch, x, w, s=_sizes: torch.nn.functional.rms_norm(x, s, w, 0.1),
    )  # fmt: skip
row("normalized_rows", lambda x: F.layer_norm(x, 6), lambda x: standardized(x, -1), normal(ROWS, 6), name="layer, no weights",
    torch=lambda torch, x: torch.nn.functional.layer_norm(x, (6,)))  # fmt: skip
for _name, _x, _groups in (("images", (ROWS, 6, 3, 2), 2), ("packs", (ROWS, 4, 8), 2), ("features", (ROWS, 8), 2)):
    row(
        "normalized_rows", lambda x, w, b, g=_groups: F.group_norm(x, g, w, b),
        lambda x, w, b, g=_groups: grouped(x, w, b, g), normal(*_x), normal(_x[1]), normal(_x[1]), name=f"groups, {_name}",
        torch=lambda torch, x, w, b, g=_groups: torch.nn.functional.group_norm(x, g, w, b),
    )  # fmt: skip
row(
    "normalized_rows", lambda x, w, b: F.instance_norm(x, None, None, w, b), lambda x, w, b: grouped(x, w, b, 3),
    normal(ROWS, 3, 4, 2), normal(3), normal(3), name="instances",
    torch=lambda torch, x, w, b: torch.nn.functional.instance_norm(x, None, None, w, b),
)  # fmt: skip
for _name, _x in (("images", (6, 3, 4, 2)), ("packs", (6, 3, 8)), ("features", (6, 5)), ("pairs", (6, 5, 2))):
    row(
        "batch_normalized", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), of_batch, normal(*_x), normal(_x[1]),
        normal(_x[1]), name=_name, torch=lambda torch, x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
    )  # fmt: skip
row("batch_normalized", lambda x: F.batch_norm(x, None, None, training=True), lambda x: standardized(x, 0), normal(7, 4),
    name="no weights", torch=lambda torch, x: torch.nn.functional.batch_norm(x, None, None, training=True))  # fmt: skip
_mean, _variance = numpy.array([0.5, -1.0, 2.0]), numpy.array([0.25, 1.0, 4.0])
row(
    "normalized_by", lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b),
    lambda x, w, b, m, v: (x - per_channel(m, x)) / numpy.sqrt(per_channel(v, x) + EPS) * per_channel(w, x) + per_channel(b, x),
    normal(ROWS, 3, 4), normal(3), normal(3), fixed(_mean), fixed(_variance),
    torch=lambda torch, x, w, b, m, v: torch.nn.functional.batch_norm(x, m, v, w, b),
)  # fmt: skip
for _key, (_formula, _, _) in ACTIVATIONS.items():
    # |w| <= 0.02 and |b| >= 0.4 keep the pre-activation away from the kink at 0
    row(
        "normalized_rows",
        lambda x, w, b, k=_key: gpunet.ops.normalization.normalize_layers("layer_norm", x, 5, w, b, EPS, True, *k),
        lambda x, w, b, f=_formula: f(standardized(x, -1) * w + b),
        uniform(-1, 1, ROWS, 5), uniform(-0.02, 0.02, 5), away(5, margin=0.4), name=f"{_key[0]} {_key[1]}",
        torch=lambda torch, x, w, b, k=_key: torch_activation(torch, torch.nn.functional.layer_norm(x, (5,), w, b), k),
    )  # fmt: skip
    row(
        "batch_normalized",
        lambda x, w, b, k=_key: gpunet.ops.batch_norm.normalize_batch(x, None, None, w, b, True, 0.1, EPS, None, *k),
        lambda x, w, b, f=_formula: f(of_batch(x, w, b)),
        uniform(-1, 1, 6, 5), uniform(-0.02, 0.02, 5), away(5, margin=0.4), name=f"{_key[0]} {_key[1]}",
        torch=lambda torch, x, w, b, k=_key: torch_activation(
            torch, torch.nn.functional.batch_norm(x, None, None, w, b, True), k
        ),
    )  # fmt: skip
row(
    "_pow", lambda x: F.local_response_norm(x, 3, 0.1, 0.7, 2.0),
    lambda x: x / (2.0 + 0.1 / 3 * sum(numpy.pad(x * x, ((0, 0), (1, 1), (0, 0)))[:, i : i + x.shape[1]] for i in range(3))) ** 0.7,
    positive(ROWS, 4, 3), name="local response norm",
    torch=lambda torch, x: torch.nn.functional.local_response_norm(x, 3, 0.1, 0.7, 2.0),
)  # fmt: skip
