"""Samples of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from tests.samples.activations import ACTIVATIONS, torch_activation
from tests.samples.formulas import sigmoid
from tests.samples.inputs import (
    ROWS,
    away,
    normal,
    uniform,
)
from tests.samples.row import row

F = gpunet.nn.functional

def _linear(key: tuple[str, float]) -> Callable[..., Any]:
    return lambda x, w, b=None: F.linear(x, w, b, activation=key[0], alpha=key[1])


for _key, (_formula, _, _) in ACTIVATIONS.items():
    _label = f"{_key[0]} {_key[1]}"
    # |x w| <= 0.3 and |b| >= 0.4 keep the pre-activation away from the kink at 0
    row(
        "linear_chain", _linear(_key), lambda x, w, b, f=_formula: f(x @ w.T + b),
        uniform(-1, 1, ROWS, 3), uniform(-0.1, 0.1, 4, 3), away(4, margin=0.4), name=_label,
        torch=lambda torch, x, w, b, k=_key: torch_activation(torch, torch.nn.functional.linear(x, w, b), k),
    )  # fmt: skip
row("linear_chain", _linear(("identity", 0.0)), lambda x, w: x @ w.T, normal(ROWS, 3), normal(4, 3), name="no bias",
    torch=lambda torch, x, w: torch.nn.functional.linear(x, w))  # fmt: skip
row("linear_chain", _linear(("tanh", 0.0)), lambda x, w, b: numpy.tanh(x @ w.T + b), normal(2, 3, 4), normal(2, 4), normal(2),
    name="batches")  # fmt: skip
row("linear_chain", _linear(("silu", 0.0)), lambda x, w: sigmoid(w @ x) * (w @ x), normal(4), normal(2, 4), name="vector")
row(
    "linear_chain",
    lambda x, v, a, w, u, c: gpunet.ops.linear.linear_layers(
        x, [(v, a, "softplus", 0.0), (w, None, "gelu", 0.0), (u, c, "elu", 1.0)]
    ),
    lambda x, v, a, w, u, c: ACTIVATIONS["elu", 1.0][0](
        ACTIVATIONS["gelu", 0.0][0](numpy.log1p(numpy.exp(x @ v.T + a)) @ w.T) @ u.T + c
    ),
    normal(ROWS, 3), normal(4, 3), normal(4), normal(5, 4), normal(2, 5), normal(2), name="three layers",
)  # fmt: skip
