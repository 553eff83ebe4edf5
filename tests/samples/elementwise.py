"""Samples of elementwise arithmetic, unary functions and selection."""

from __future__ import annotations

import numpy

import gpunet
from gpunet.autograd import OPS
from tests.samples.formulas import erf
from tests.samples.inputs import (
    ROWS,
    away,
    distinct,
    mask,
    normal,
    positive,
    uniform,
)
from tests.samples.row import SAME, row, same

for _op, _call in {
    "_add": lambda a, b: a + b,
    "_sub": lambda a, b: a - b,
    "_mul": lambda a, b: a * b,
    "_div": lambda a, b: a / b,
}.items():
    same(_op, _call, normal(ROWS, 4), positive(ROWS, 4), name="equal shapes")
    same(_op, _call, normal(ROWS, 1), positive(4), name="broadcast both")
    same(_op, _call, normal(3, 4), positive(2, 1, 4), name="broadcast left")
    same(_op, _call, normal(2, 3), positive(), name="scalar tensor")
    same(_op, lambda a, f=_call: f(a, 1.5), normal(ROWS, 4), name="number right")
    same(_op, lambda b, f=_call: f(2.5, b), positive(ROWS, 4), name="number left")
same("_mul", lambda a: a * a * a, normal(ROWS, 3), name="by itself")
for _power in (0, 1, 2, 3, 0.5, -1.5):
    same("_pow", lambda a, p=_power: a**p, positive(ROWS, 3), name=f"to the {_power}")
same("_pow", lambda a: a**3, away(ROWS, 3), name="of negative numbers")
same("_pow", lambda b: 2.5**b, normal(ROWS, 3), name="of a number")
same("_pow", lambda a, b: a**b, positive(ROWS, 3), normal(3), name="of tensors")
same("_neg", lambda x: -x, normal(ROWS, 3))
row("sum_to", lambda x: OPS["sum_to"].call(x, shape=(3, 1)), lambda x: x.sum(2, keepdims=True).sum(0), normal(2, 3, 4))
row(
    "broadcast_to", lambda x: x.expand(2, 3, -1), lambda x: numpy.broadcast_to(x, (2, 3, 4)), normal(3, 4),
    torch=SAME,
)  # fmt: skip
row("cast", lambda x: OPS["cast"].call(x, dtype=gpunet.float64), lambda x: x, normal(ROWS, 3))
for _name, _formula, _input in (
    ("abs", numpy.abs, away(ROWS, 4)),
    ("square", numpy.square, normal(ROWS, 4)),
    ("sqrt", numpy.sqrt, positive(ROWS, 4)),
    ("rsqrt", lambda x: 1 / numpy.sqrt(x), positive(ROWS, 4)),
    ("reciprocal", lambda x: 1 / x, positive(ROWS, 4)),
    ("exp", numpy.exp, normal(ROWS, 4)),
    ("expm1", numpy.expm1, normal(ROWS, 4)),
    ("log", numpy.log, positive(ROWS, 4)),
    ("log1p", numpy.log1p, positive(ROWS, 4)),
    ("log2", numpy.log2, positive(ROWS, 4)),
    ("log10", numpy.log10, positive(ROWS, 4)),
    ("sin", numpy.sin, normal(ROWS, 4)),
    ("cos", numpy.cos, normal(ROWS, 4)),
    ("tan", numpy.tan, uniform(-1, 1, ROWS, 4)),
    ("sinh", numpy.sinh, normal(ROWS, 4)),
    ("cosh", numpy.cosh, normal(ROWS, 4)),
    ("atan", numpy.arctan, normal(ROWS, 4)),
    ("erf", erf, normal(ROWS, 4)),
):
    row(f"_{_name}", getattr(gpunet, _name), _formula, _input, torch=_name)
row("_erf", gpunet.erf, erf, uniform(-7, 7, 50), torch="erf", name="tails")
for _name in ("maximum", "minimum"):
    _call, _formula = getattr(gpunet, _name), getattr(numpy, _name)
    row(f"_{_name}", _call, _formula, distinct(ROWS, 4), distinct(ROWS, 4, offset=0.125), torch=_name, name="equal shapes")
    row(f"_{_name}", _call, _formula, distinct(ROWS, 4), distinct(4, offset=0.125), torch=_name, name="broadcast")
    row(f"_{_name}", lambda x, f=_call: f(x, 0.3), lambda x, f=_formula: f(x, 0.3), away(ROWS, 4, kinks=(0.3,)), name="number")
_mask = numpy.array([True, False, True, False])
row("_where", gpunet.where, numpy.where, mask(ROWS, 4), normal(ROWS, 4), normal(ROWS, 4), torch="where", name="equal shapes")
row("_where", gpunet.where, numpy.where, mask(ROWS, 1), normal(4), normal(ROWS, 4), torch="where", name="broadcast")
row("_where", lambda c, x: gpunet.where(c, x, 2.0), lambda c, x: numpy.where(c, x, 2.0), mask(ROWS, 4), normal(4), name="number")
row(
    "_where", lambda x: x.masked_fill(gpunet.tensor(_mask.tolist(), device=x.device), -1.0), lambda x: numpy.where(_mask, -1.0, x),
    normal(ROWS, 4), torch=lambda torch, x: x.masked_fill(torch.tensor(_mask), -1.0), name="masked_fill",
)  # fmt: skip
row("_where", lambda x: x.tril(1), lambda x: numpy.tril(x, 1), normal(3, 4), torch=SAME, name="tril")
row("_where", lambda x: x.triu(), numpy.triu, normal(2, 3, 4), torch="triu", name="triu")
for _low, _high in ((-0.5, 0.5), (-0.5, None), (None, 0.5)):
    row(
        "_clamp", lambda x, a=_low, b=_high: x.clamp(a, b), lambda x, a=_low, b=_high: numpy.clip(x, a, b),
        away(ROWS, 4, kinks=(-0.5, 0.5)), torch=SAME, name=f"{_low} to {_high}",
    )  # fmt: skip
row(
    "_clamp", lambda x, a, b: x.clamp(a, b), lambda x, a, b: numpy.clip(x, a, b), away(ROWS, 4, kinks=(-0.5, 0.5), margin=0.2),
    uniform(-0.6, -0.4, 4), uniform(0.4, 0.6, ROWS, 1), torch=SAME, name="tensors",
)  # fmt: skip
row(
    "_clamp", lambda x, a: x.clamp_min(a), numpy.maximum, away(ROWS, 4, kinks=(-0.5, 0.5), margin=0.2), uniform(-0.6, -0.4, 4),
    torch=SAME, name="tensor min",
)  # fmt: skip
row(
    "_clamp", lambda x, a: x.clamp_max(a), numpy.minimum, away(ROWS, 4, kinks=(-0.5, 0.5), margin=0.2), uniform(0.4, 0.6, 4),
    torch=SAME, name="tensor max",
)  # fmt: skip
row(
    "_where", lambda x, v: x.masked_fill(gpunet.tensor(_mask.tolist(), device=x.device), v), lambda x, v: numpy.where(_mask, v, x),
    normal(ROWS, 4), normal(), torch=lambda torch, x, v: x.masked_fill(torch.tensor(_mask), v), name="masked_fill with a tensor",
)  # fmt: skip
row("overwrite", lambda x: (x * 2.0).fill_(0.5), lambda x: 0 * x + 0.5, normal(ROWS, 4), name="fill_")
row("overwrite", lambda x: (x * 2.0).logical_not_(), lambda x: 0 * x, away(ROWS, 4), name="logical_not_")
row("raise_to", lambda x: OPS["raise_to"].call(x, bound=0.25), lambda x: numpy.maximum(x, 0.25), positive(ROWS, 4))
