"""Samples of rounding, sign, floor division and remainder, away from their steps."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, away, uniform
from tests.samples.row import SAME, row

_STEPS = tuple(i / 2 for i in range(-14, 15))

for _name, _formula in (
    ("floor", numpy.floor),
    ("ceil", numpy.ceil),
    ("trunc", numpy.trunc),
    ("sign", numpy.sign),
    ("round", numpy.rint),
):
    row(f"_{_name}", getattr(gpunet, _name), _formula, away(ROWS, 4, kinks=_STEPS), torch=_name)
row(
    "_round", lambda x: x.round(decimals=1), lambda x: numpy.round(x, 1),
    away(3, 4, kinks=tuple(i / 20 for i in range(-99, 99)), margin=0.01), torch=SAME, name="decimals",
)  # fmt: skip

_above = uniform(4.2, 4.35, ROWS, 4), uniform(1.1, 1.15, 4)  # a quotient between 3.6 and 4
for _op, _call in {"_floor_divide": lambda a, b: a // b, "_remainder": lambda a, b: a % b}.items():
    row(_op, _call, _call, *_above, name="tensors")
    row(_op, lambda a, b, f=_call: f(-a, b), lambda a, b, f=_call: f(-a, b), *_above, name="of negative numbers")
    row(_op, lambda a, f=_call: f(a, -1.1), lambda a, f=_call: f(a, -1.1), _above[0], name="number right")
    row(_op, lambda b, f=_call: f(4.25, b), lambda b, f=_call: f(4.25, b), _above[1], name="number left")
row("_remainder", gpunet.remainder, numpy.remainder, *_above, torch="remainder", name="function")
row(
    "truncated_div", lambda a, b: gpunet.div(-a, b, rounding_mode="trunc"), lambda a, b: numpy.trunc(-a / b), *_above,
    torch=lambda torch, a, b: torch.div(-a, b, rounding_mode="trunc"),
)  # fmt: skip
row(
    "_floor_divide", lambda a, b: gpunet.div(-a, b, rounding_mode="floor"), lambda a, b: numpy.floor(-a / b), *_above,
    torch=lambda torch, a, b: torch.div(-a, b, rounding_mode="floor"), name="div floor",
)  # fmt: skip
