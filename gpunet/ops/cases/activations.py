"""Facts of the kernels of activations, and the textbook formulas behind ``gpunet explain``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import activation_backward, activation_forward
from gpunet.ops.cases.case import COUNTS, Samples, off_kinks, unaligned

#: One without functions, one with erf, one with exp.
_REPRESENTATIVES = ("relu", "gelu", "tanh")

#: Those whose derivative compares, which decides the result at NaN.
_COMPARING = (
    "relu", "elu", "celu", "selu", "hardtanh", "relu6", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "threshold"
)
#: Those with a parameter.
_WITH_ALPHA = [name for name, row in ACTIVATIONS.items() if row.alpha or name == "threshold"]

activation_forward.describe(is_hot=True)


@activation_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        z = off_kinks(3 * s.normal(count))
        z[:1] = abs(z[:1])  # if z = -5 is the only element, 1 + tanh(z) cancels, and the relative error is large
        yield f"{name} ({count},)", [s.blank(count), z], {"activation": name, "alpha": row.alpha}
    for name, row in ACTIVATIONS.items():  # zero, and saturation
        far = numpy.linspace(-100, 100, 129).astype(s.dtype)
        yield f"{name} -100 .. 100", [s.blank(129), far], {"activation": name, "alpha": row.alpha}
    for name in _WITH_ALPHA:
        yield f"{name} (300,), alpha 0.3", [s.blank(300), off_kinks(s.normal(300))], {"activation": name, "alpha": 0.3}
    arrays, options = [s.blank(5003), s.normal(5003)], {"activation": "relu", "alpha": 0.0}
    yield "relu (5003,) by 2 blocks", arrays, options, 2
    yield from unaligned("relu (5003,)", arrays, options)


@activation_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for name in _REPRESENTATIVES:
        yield f"({s.width**2},)", [s.blank(s.width**2), s.normal(s.width**2)], {"activation": name, "alpha": 0.0}


@activation_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"gelu ({s.width**2},)", [s.blank(s.width**2), s.normal(s.width**2)], {"activation": "gelu", "alpha": 0.0}


@activation_forward.cost
def _(y, z, *, activation, alpha):
    return Cost(y.size, num_bytes(y, z))


@activation_forward.equivalent
def _(torch, y, z, *, activation, alpha):
    return lambda: torch.nn.functional.gelu(z)


activation_backward.describe(is_hot=True)


@activation_backward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        options = {"activation": name, "alpha": row.alpha}
        yield f"{name} ({count},)", [s.blank(count), s.normal(count), s.saved(name, count)], options
    for name in _WITH_ALPHA:
        arrays = [s.blank(300), s.normal(300), s.saved(name, 300, alpha=0.3)]
        yield f"{name} (300,), alpha 0.3", arrays, {"activation": name, "alpha": 0.3}
    for name in _COMPARING:
        saved = s.saved(name, 300)
        saved[::7] = numpy.nan
        yield f"{name} (300,), nan", [s.blank(300), s.normal(300), saved], {"activation": name, "alpha": ACTIVATIONS[name].alpha}
    arrays = [s.blank(300), s.normal(300), s.saved("relu", 300)]
    yield from unaligned("relu (300,)", arrays, {"activation": "relu", "alpha": 0.0})


@activation_backward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for name in _REPRESENTATIVES:
        arrays = [s.blank(s.width**2), s.normal(s.width**2), s.saved(name, s.width**2)]
        yield f"({s.width**2},)", arrays, {"activation": name, "alpha": 0.0}


@activation_backward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    arrays = [s.blank(s.width**2), s.normal(s.width**2), s.saved("gelu", s.width**2)]
    yield f"gelu ({s.width**2},)", arrays, {"activation": "gelu", "alpha": 0.0}


@activation_backward.cost
def _(dz, dy, saved, *, activation, alpha):
    return Cost(2 * dz.size, num_bytes(dz, dy, saved))


@activation_backward.equivalent
def _(torch, dz, dy, saved, *, activation, alpha):
    return lambda: torch.ops.aten.gelu_backward(dy, saved)


# ---- the formulas of ``gpunet explain`` --------------------------------------------------------------------------------


class TextbookActivation(NamedTuple):
    """An activation by its textbook formula, independent of the engine's."""

    symbol: str
    value: Callable[[float], float]
    slope: Callable[[float], float]
    slope_formula: str  # {0} is z, {1} is a
    max_slope: str  # largest slope
    meaning: str = ""  # explains the symbols


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0.0 else math.exp(z) / (1.0 + math.exp(z))


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _normal_density(z: float) -> float:
    return math.exp(-0.5 * min(z * z, 1400.0)) / math.sqrt(2.0 * math.pi)


def _gelu_t(z: float) -> float:
    return math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z * z * z))


def _gelu_tanh_slope(z: float) -> float:
    t = _gelu_t(z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * math.sqrt(2.0 / math.pi) * (1.0 + 0.134145 * z * z)


def _mish_t(z: float) -> float:
    return math.tanh(max(z, 0.0) + math.log1p(math.exp(-abs(z))))


_SIGMOID = "σ(z) = 1/(1 + e^(−z))"
TEXTBOOK_ACTIVATIONS: dict[str, TextbookActivation] = {
    "identity": TextbookActivation("id", lambda z: z, lambda z: 1.0, "1", "1", "id(z) = z: no activation"),
    "relu": TextbookActivation(
        "relu", lambda z: max(z, 0.0), lambda z: float(z > 0.0), "(1 if {0} > 0 else 0)", "1", "relu(z) = max(z, 0)"
    ),
    "leaky_relu": TextbookActivation(
        "leaky", lambda z: z if z > 0.0 else 0.01 * z, lambda z: 1.0 if z > 0.0 else 0.01,
        "(1 if {0} > 0 else 0.01)", "1", "leaky(z) = z where z > 0, 0.01·z elsewhere",
    ),
    "sigmoid": TextbookActivation("σ", _sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), "{1}·(1 − {1})", "1/4", _SIGMOID),
    "tanh": TextbookActivation("tanh", math.tanh, lambda z: 1.0 - math.tanh(z) ** 2, "1 − {1}²", "1"),
    "gelu": TextbookActivation(
        "gelu", lambda z: z * _normal_cdf(z), lambda z: _normal_cdf(z) + z * _normal_density(z), "Φ({0}) + {0}·φ({0})", "1.13",
        "gelu(z) = z·Φ(z), with the normal distribution Φ and its density φ",
    ),
    "gelu_tanh": TextbookActivation(
        "gelu", lambda z: 0.5 * z * (1.0 + _gelu_t(z)), _gelu_tanh_slope, "(1 + t({0}))/2 + {0}·t'({0})/2", "1.13",
        "gelu(z) = z·(1 + t(z))/2 with t(z) = tanh(√(2/π)·(z + 0.044715·z³))",
    ),
    "silu": TextbookActivation(
        "silu", lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1.0 + z * _sigmoid(-z)),
        "σ({0})·(1 + {0}·(1 − σ({0})))", "1.10", f"silu(z) = z·σ(z), {_SIGMOID}",
    ),
    "elu": TextbookActivation(
        "elu", lambda z: z if z > 0.0 else math.expm1(z), lambda z: 1.0 if z > 0.0 else math.exp(z),
        "(1 if {0} > 0 else e^{0})", "1", "elu(z) = z where z > 0, e^z − 1 elsewhere",
    ),
    "softplus": TextbookActivation(
        "softplus", lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), _sigmoid, "σ({0})", "1",
        f"softplus(z) = log(1 + e^z), {_SIGMOID}",
    ),
    "hardtanh": TextbookActivation(
        "hardtanh", lambda z: min(max(z, -1.0), 1.0), lambda z: float(abs(z) < 1.0), "(1 if |{0}| < 1 else 0)", "1",
        "hardtanh(z) = z limited to −1 .. 1",
    ),
    "relu6": TextbookActivation(
        "relu6", lambda z: min(max(z, 0.0), 6.0), lambda z: float(0.0 < z < 6.0), "(1 if 0 < {0} < 6 else 0)", "1",
        "relu6(z) = z limited to 0 .. 6",
    ),
    "hardsigmoid": TextbookActivation(
        "hardσ", lambda z: min(max(z + 3.0, 0.0), 6.0) / 6.0, lambda z: float(abs(z) < 3.0) / 6.0,
        "(1/6 if |{0}| < 3 else 0)", "1/6", "hardσ(z) = (z + 3)/6 limited to 0 .. 1",
    ),
    "hardswish": TextbookActivation(
        "hardswish", lambda z: z * min(max(z + 3.0, 0.0), 6.0) / 6.0,
        lambda z: 0.0 if z <= -3.0 else 1.0 if z >= 3.0 else z / 3.0 + 0.5,
        "(0 if {0} < −3, 1 if {0} > 3, else {0}/3 + 1/2)", "1.5",
        "hardswish(z) = z·(z + 3)/6 with the last factor limited to 0 .. 1",
    ),
    "hardshrink": TextbookActivation(
        "hardshrink", lambda z: z if abs(z) > 0.5 else 0.0, lambda z: float(abs(z) > 0.5), "(1 if |{0}| > 0.5 else 0)", "1",
        "hardshrink(z) = z where |z| > 0.5, 0 elsewhere",
    ),
    "softshrink": TextbookActivation(
        "softshrink", lambda z: math.copysign(max(abs(z) - 0.5, 0.0), z), lambda z: float(abs(z) > 0.5),
        "(1 if |{0}| > 0.5 else 0)", "1", "softshrink(z) = z moved toward 0 by 0.5, at most to 0",
    ),
    "tanhshrink": TextbookActivation(
        "tanhshrink", lambda z: z - math.tanh(z), lambda z: math.tanh(z) ** 2, "tanh({0})²", "1", "tanhshrink(z) = z − tanh(z)"
    ),
    "threshold": TextbookActivation(
        "threshold", lambda z: z if z > 0.0 else 0.0, lambda z: float(z > 0.0), "(1 if {0} > 0 else 0)", "1",
        "threshold(z) = z where z > 0, 0 elsewhere",
    ),
    "log_sigmoid": TextbookActivation(
        "logσ", lambda z: min(z, 0.0) - math.log1p(math.exp(-abs(z))), lambda z: _sigmoid(-z), "1 − σ({0})", "1",
        f"logσ(z) = log(σ(z)), {_SIGMOID}",
    ),
    "celu": TextbookActivation(
        "celu", lambda z: z if z > 0.0 else math.expm1(z), lambda z: 1.0 if z > 0.0 else math.exp(z),
        "(1 if {0} > 0 else e^{0})", "1", "celu(z) = z where z > 0, e^z − 1 elsewhere",
    ),
    "selu": TextbookActivation(
        "selu", lambda z: 1.0507009873554805 * (z if z > 0.0 else 1.6732632423543773 * math.expm1(z)),
        lambda z: 1.0507009873554805 * (1.0 if z > 0.0 else 1.6732632423543773 * math.exp(z)),
        "1.0507·(1 if {0} > 0 else 1.6733·e^{0})", "1.76", "selu(z) = 1.0507·(z where z > 0, 1.6733·(e^z − 1) elsewhere)",
    ),
    "mish": TextbookActivation(
        "mish", lambda z: z * _mish_t(z), lambda z: _mish_t(z) + z * (1.0 - _mish_t(z) ** 2) * _sigmoid(z),
        "t({0}) + {0}·(1 − t({0})²)·σ({0})", "1.09", f"mish(z) = z·t(z) with t(z) = tanh(log(1 + e^z)), {_SIGMOID}",
    ),
    "softsign": TextbookActivation(
        "softsign", lambda z: z / (1.0 + abs(z)), lambda z: 1.0 / (1.0 + abs(z)) ** 2, "1/(1 + |{0}|)²", "1",
        "softsign(z) = z/(1 + |z|)",
    ),
}  # fmt: skip
