"""Samples of inverse trigonometric and hyperbolic functions."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, away, normal, uniform
from tests.samples.row import row

for _name, _formula, _input in (
    ("acos", numpy.arccos, uniform(-0.9, 0.9, ROWS, 4)),
    ("asin", numpy.arcsin, uniform(-0.9, 0.9, ROWS, 4)),
    ("acosh", numpy.arccosh, uniform(1.2, 3.0, ROWS, 4)),
    ("asinh", numpy.arcsinh, normal(ROWS, 4)),
    ("atanh", numpy.arctanh, uniform(-0.9, 0.9, ROWS, 4)),
):
    row(f"_{_name}", getattr(gpunet, _name), _formula, _input, torch=_name)
for _name, _formula in (("atan2", numpy.arctan2), ("hypot", numpy.hypot)):
    row(f"_{_name}", getattr(gpunet, _name), _formula, away(ROWS, 4), away(ROWS, 4), torch=_name, name="equal shapes")
    row(f"_{_name}", getattr(gpunet, _name), _formula, away(ROWS, 1), away(4), torch=_name, name="broadcast")
row("_mul", gpunet.deg2rad, numpy.deg2rad, normal(ROWS, 4), torch="deg2rad", name="deg2rad")
row("_mul", gpunet.rad2deg, numpy.rad2deg, normal(ROWS, 4), torch="rad2deg", name="rad2deg")
row("_where", gpunet.sinc, numpy.sinc, normal(ROWS, 4), torch="sinc", name="sinc")
row("_where", gpunet.sinc, numpy.sinc, uniform(-0.03, 0.03, 20), name="sinc near 0")
