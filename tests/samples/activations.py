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
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543773
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
    ("hardtanh", 1.0): (lambda z: numpy.clip(z, -1, 1), "hardtanh", {}),
    ("hardtanh", 0.5): (lambda z: numpy.clip(z, -0.5, 0.5), "hardtanh", {"min_val": -0.5, "max_val": 0.5}),
    ("relu6", 6.0): (lambda z: numpy.clip(z, 0, 6), "relu6", {}),
    ("relu6", 1.0): (lambda z: numpy.clip(z, 0, 1), "hardtanh", {"min_val": 0.0, "max_val": 1.0}),
    ("hardsigmoid", 0.0): (lambda z: numpy.clip(z / 6 + 0.5, 0, 1), "hardsigmoid", {}),
    ("hardswish", 0.0): (lambda z: z * numpy.clip(z / 6 + 0.5, 0, 1), "hardswish", {}),
    ("hardshrink", 0.5): (lambda z: numpy.where(abs(z) > 0.5, z, 0), "hardshrink", {}),
    ("softshrink", 0.5): (lambda z: numpy.sign(z) * numpy.maximum(abs(z) - 0.5, 0), "softshrink", {}),
    ("tanhshrink", 0.0): (lambda z: z - numpy.tanh(z), "tanhshrink", {}),
    ("threshold", 0.0): (lambda z: numpy.maximum(z, 0), "threshold", {"threshold": 0.0, "value": 0.0}),
    ("threshold", 0.5): (lambda z: numpy.where(z > 0.5, z, 0), "threshold", {"threshold": 0.5, "value": 0.0}),
    ("log_sigmoid", 0.0): (lambda z: numpy.log(sigmoid(z)), "logsigmoid", {}),
    ("celu", 1.0): (lambda z: numpy.where(z > 0, z, numpy.expm1(z)), "celu", {}),
    ("celu", 0.5): (lambda z: numpy.where(z > 0, z, 0.5 * numpy.expm1(z / 0.5)), "celu", {"alpha": 0.5}),
    ("selu", 0.0): (lambda z: _SELU_SCALE * numpy.where(z > 0, z, _SELU_ALPHA * numpy.expm1(z)), "selu", {}),
    ("mish", 0.0): (lambda z: z * numpy.tanh(numpy.log1p(numpy.exp(z))), "mish", {}),
    ("softsign", 0.0): (lambda z: z / (1 + abs(z)), "softsign", {}),
}
#: Where the derivatives of the activations jump.
KINKS = (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0)


def torch_activation(torch: Any, z: Any, key: tuple[str, float]) -> Any:
    _, name, options = ACTIVATIONS[key]
    return getattr(torch.nn.functional, name)(z, **options) if name else z


for _key, (_formula, _, _) in ACTIVATIONS.items():
    _label = f"{_key[0]} {_key[1]}"
    row(
        "activation", lambda x, k=_key: OPS["activation"].call(x, name=k[0], alpha=k[1]), _formula, away(ROWS, 4, kinks=KINKS),
        torch=lambda torch, x, k=_key: torch_activation(torch, x, k), name=_label,
    )  # fmt: skip
row("activation", lambda x: F.leaky_relu(x, -0.5) + F.relu(x), lambda x: numpy.where(x > 0, 2 * x, -0.5 * x), away(ROWS, 4),
    torch=lambda torch, x: torch.nn.functional.leaky_relu(x, -0.5) + x.relu(), name="negative slope")  # fmt: skip
row("activation", lambda x: F.softplus(x, 2.0, 1.0), lambda x: numpy.where(2 * x > 1, x, numpy.log1p(numpy.exp(2 * x)) / 2),
    away(ROWS, 4, kinks=(0.5,)), torch=lambda torch, x: torch.nn.functional.softplus(x, 2.0, 1.0), name="softplus 2")  # fmt: skip
for _op, _label, _call, _formula, _torch in (
    ("_where", "hardtanh", lambda x: F.hardtanh(x, -0.5, 1.0), lambda x: numpy.clip(x, -0.5, 1),
     lambda torch, x: torch.nn.functional.hardtanh(x, -0.5, 1.0)),
    ("_where", "threshold", lambda x: F.threshold(x, 0.5, 2.0), lambda x: numpy.where(x > 0.5, x, 2.0),
     lambda torch, x: torch.nn.functional.threshold(x, 0.5, 2.0)),
    ("_where", "celu", lambda x: F.celu(x, -0.5), lambda x: numpy.where(x > 0, x, -0.5 * numpy.expm1(-2 * x)),
     lambda torch, x: torch.celu(x, -0.5)),
    ("_where", "hardshrink", lambda x: F.hardshrink(x, -1.0), lambda x: x,
     lambda torch, x: torch.nn.functional.hardshrink(x, -1.0)),
):  # fmt: skip
    row(_op, _call, _formula, away(ROWS, 4, kinks=KINKS), name=f"unfused {_label}", torch=_torch)
