"""Cases of the activations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.cases.case import COUNTS, Samples, maker, unaligned


@maker()
def activation_forward(s: Samples) -> Iterator[Any]:
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


@maker()
def activation_backward(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        options = {"activation": name, "alpha": row.alpha}
        yield f"{name} ({count},)", [s.blank(count), s.normal(count), s.saved(name, count)], options
    for name in ("leaky_relu", "elu"):
        arrays = [s.blank(300), s.normal(300), s.saved(name, 300, alpha=0.3)]
        yield f"{name} (300,), alpha 0.3", arrays, {"activation": name, "alpha": 0.3}
    arrays = [s.blank(300), s.normal(300), s.saved("relu", 300)]
    yield from unaligned("relu (300,)", arrays, {"activation": "relu", "alpha": 0.0})
