"""Cases of the activations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.activations import ACTIVATIONS, activation_backward, activation_forward
from gpunet.ops.cases.case import COUNTS, Samples, unaligned

#: One without functions, one with erf, one with exp.
_REPRESENTATIVES = ("relu", "gelu", "tanh")

activation_forward.describe(is_hot=True)


@activation_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        z = 3 * s.normal(count)
        z[:1] = abs(z[:1])  # if z = -5 is the only element, 1 + tanh(z) cancels, and the relative error is large
        yield f"{name} ({count},)", [s.blank(count), z], {"activation": name, "alpha": row.alpha}
    for name, row in ACTIVATIONS.items():  # zero, and saturation
        far = numpy.linspace(-100, 100, 129).astype(s.dtype)
        yield f"{name} -100 .. 100", [s.blank(129), far], {"activation": name, "alpha": row.alpha}
    for name in ("leaky_relu", "elu"):
        yield f"{name} (300,), alpha 0.3", [s.blank(300), s.normal(300)], {"activation": name, "alpha": 0.3}
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
    for name in ("leaky_relu", "elu"):
        arrays = [s.blank(300), s.normal(300), s.saved(name, 300, alpha=0.3)]
        yield f"{name} (300,), alpha 0.3", arrays, {"activation": name, "alpha": 0.3}
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
