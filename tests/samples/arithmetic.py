"""Samples of remainders, extremes, parts of numbers, logarithms of sums, and weighted sums."""

from __future__ import annotations

import math

import numpy

import gpunet
from tests.samples.inputs import ROWS, away, distinct, normal, positive, uniform
from tests.samples.row import SAME, row

row("_fmod", gpunet.fmod, numpy.fmod, uniform(5.2, 5.8, ROWS, 4), uniform(-2.2, -2.0, 4), torch="fmod")
for _name in ("fmax", "fmin"):
    row(
        f"_{_name}", getattr(gpunet, _name), getattr(numpy, _name), distinct(ROWS, 4), distinct(4, offset=0.125), torch=_name,
    )  # fmt: skip
row("_sub", gpunet.frac, lambda x: x - numpy.trunc(x), uniform(1.1, 1.9, ROWS, 4), torch="frac", name="frac")
row("_copysign", gpunet.copysign, numpy.copysign, away(ROWS, 4), away(4), torch="copysign")
row("_where", gpunet.nan_to_num, lambda x: x, normal(ROWS, 4), torch="nan_to_num", name="nan_to_num")
row("_mul", gpunet.ldexp, lambda x, y: x * 2.0**y, normal(ROWS, 4), normal(4), name="ldexp")
row("_exp2", gpunet.exp2, numpy.exp2, normal(ROWS, 4), torch="exp2")
row("_logaddexp", gpunet.logaddexp, numpy.logaddexp, normal(ROWS, 4), normal(4), torch="logaddexp")
row("_logaddexp2", gpunet.logaddexp2, numpy.logaddexp2, normal(ROWS, 4), normal(4), torch="logaddexp2")
row("_xlogy", gpunet.xlogy, lambda x, y: x * numpy.log(y), normal(ROWS, 4), positive(4), torch="xlogy")
row("_xlogy", lambda x: gpunet.xlogy(x, 3.0), lambda x: x * math.log(3.0), normal(ROWS, 4), name="number")
row("_logit", gpunet.logit, lambda x: numpy.log(x / (1 - x)), uniform(0.1, 0.9, ROWS, 4), torch="logit")
row(
    "_logit", lambda x: gpunet.logit(x, 0.25), lambda x: numpy.log(numpy.clip(x, 0.25, 0.75) / (1 - numpy.clip(x, 0.25, 0.75))),
    away(ROWS, 4, kinks=(0.25, 0.75)), torch=lambda torch, x: torch.logit(x, 0.25), name="limited",
)  # fmt: skip
for _value in (1, -0.5):
    row(
        "_add", lambda x, a, b, v=_value: gpunet.addcmul(x, a, b, value=v), lambda x, a, b, v=_value: x + v * a * b,
        normal(ROWS, 4), normal(ROWS, 1), normal(4), torch=lambda torch, *x, v=_value: torch.addcmul(*x, value=v),
        name=f"addcmul {_value}",
    )  # fmt: skip
    row(
        "_add", lambda x, a, b, v=_value: (x * 1).addcdiv_(a, b, value=v), lambda x, a, b, v=_value: x + v * a / b,
        normal(ROWS, 4), normal(ROWS, 1), positive(4), torch=lambda torch, *x, v=_value: torch.addcdiv(*x, value=v),
        name=f"addcdiv_ {_value}",
    )  # fmt: skip
for _weight in (0.25, 0.75):
    row(
        "_add" if _weight < 0.5 else "_sub", lambda a, b, w=_weight: a.lerp(b, w), lambda a, b, w=_weight: a + w * (b - a),
        normal(ROWS, 4), normal(4), torch=SAME, name=f"lerp {_weight}",
    )  # fmt: skip
row(
    "_where", lambda a, b, w: a.lerp(b, w), lambda a, b, w: a + w * (b - a), normal(ROWS, 4), normal(4),
    away(ROWS, 1, kinks=(-0.5, 0.5)), torch=SAME, name="lerp by a tensor",
)  # fmt: skip
row("_cumsum", lambda x: (x * 1).cumsum_(1), lambda x: x.cumsum(1), normal(ROWS, 4), torch=SAME, name="in place")
row(
    "_mantissa", lambda x: gpunet.frexp(x).mantissa, lambda x: numpy.frexp(x)[0], positive(ROWS, 4),
    torch=lambda torch, x: torch.frexp(x).mantissa,
)  # fmt: skip
