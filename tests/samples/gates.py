"""Samples of activations whose parameters are tensors, or halves of the input."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.formulas import sigmoid, softmax
from tests.samples.inputs import ROWS, away, normal, positive
from tests.samples.row import row

F = gpunet.nn.functional

row("_where", lambda x, w: F.prelu(x, w), lambda x, w: numpy.where(x > 0, x, w[:, None] * x), away(ROWS, 4, 3), positive(4),
    name="prelu of channels", torch=lambda torch, x, w: torch.prelu(x, w))  # fmt: skip
row("_where", lambda x, w: F.prelu(x, w), lambda x, w: numpy.where(x > 0, x, w * x), away(ROWS, 4), positive(1), name="prelu",
    torch=lambda torch, x, w: torch.prelu(x, w))  # fmt: skip
row("activation", lambda x: F.rrelu(x, 0.2, 0.4), lambda x: numpy.where(x > 0, x, 0.3 * x), away(ROWS, 4), name="rrelu",
    torch=lambda torch, x: torch.nn.functional.rrelu(x, 0.2, 0.4))  # fmt: skip
row("activation", lambda x: F.glu(x), lambda x: x[:, :2] * sigmoid(x[:, 2:]), normal(ROWS, 4), name="glu",
    torch=lambda torch, x: torch.nn.functional.glu(x))  # fmt: skip
row("activation", lambda x: F.glu(x, 1), lambda x: x[:, :2] * sigmoid(x[:, 2:]), normal(ROWS, 4, 3), name="glu of channels",
    torch=lambda torch, x: torch.nn.functional.glu(x, 1))  # fmt: skip
row("_softmax", lambda x: F.softmin(x, 1), lambda x: softmax(-x, 1), normal(ROWS, 4), name="softmin",
    torch=lambda torch, x: torch.nn.functional.softmin(x, 1))  # fmt: skip
