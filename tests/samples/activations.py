"""Samples of activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from gpunet.autograd import OPS
from tests.samples.formulas import erf, sigmoid
from tests.samples.inputs import (
    ROWS,
    away,
)
from tests.samples.row import row

F = gpunet.nn.functional

_GELU_TANH = lambda z: 0.5 * z * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))  # noqa: E731
#: (name, alpha) -> (formula, name of the function in torch.nn.functional, its options).
ACTIVATIONS: dict[tuple[str, float], tuple[Callable[[Any], Any], str, dict[str, Any]]] = {
    ("identity", 0.0): (lambda z: z, "", {}),
    ("relu", 0.0): (lambda z: numpy.maximum(z, 0), "relu", {}),
    ("leaky_relu", 0.01): (lambda z: numpy.where(z > 0, z, 0.01 * z), "leaky_relu", {}),
    ("leaky_relu", 0.3): (lambda z: numpy.where(z > 0, z, 0.3 * z), "leaky_relu", {"negative_slope": 0.3}),
    ("sigmoid", 0.0): (sigmoid, "sigmoid", {}),
    ("tanh", 0.0): (numpy.tanh, "tanh", {}),
    ("gelu", 0.0): (lambda z: 0.5 * z * (1 + erf(z / math.sqrt(2))), "gelu", {}),
    ("gelu_tanh", 0.0): (_GELU_TANH, "gelu", {"approximate": "tanh"}),
    ("silu", 0.0): (lambda z: z * sigmoid(z), "silu", {}),
    ("elu", 1.0): (lambda z: numpy.where(z > 0, z, numpy.expm1(z)), "elu", {}),
    ("elu", 0.7): (lambda z: numpy.where(z > 0, z, 0.7 * numpy.expm1(z)), "elu", {"alpha": 0.7}),
    ("softplus", 0.0): (lambda z: numpy.log1p(numpy.exp(z)), "softplus", {}),
}


def torch_activation(torch: Any, z: Any, key: tuple[str, float]) -> Any:
    _, name, options = ACTIVATIONS[key]
    return getattr(torch.nn.functional, name)(z, **options) if name else z


for _key, (_formula, _, _) in ACTIVATIONS.items():
    _label = f"{_key[0]} {_key[1]}"
    row(
        "activation", lambda x, k=_key: OPS["activation"].call(x, name=k[0], alpha=k[1]), _formula, away(ROWS, 4),
        torch=lambda torch, x, k=_key: torch_activation(torch, x, k), name=_label,
    )  # fmt: skip
row("activation", lambda x: F.leaky_relu(x, -0.5) + F.relu(x), lambda x: numpy.where(x > 0, 2 * x, -0.5 * x), away(ROWS, 4),
    torch=lambda torch, x: torch.nn.functional.leaky_relu(x, -0.5) + x.relu(), name="negative slope")  # fmt: skip
row("activation", lambda x: F.softplus(x, 2.0, 1.0), lambda x: numpy.where(2 * x > 1, x, numpy.log1p(numpy.exp(2 * x)) / 2),
    away(ROWS, 4, kinks=(0.5,)), torch=lambda torch, x: torch.nn.functional.softplus(x, 2.0, 1.0), name="softplus 2")  # fmt: skip
