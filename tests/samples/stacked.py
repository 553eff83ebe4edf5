"""Samples of stacked nets."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import OPS
from tests.samples.inputs import fixed, normal
from tests.samples.row import row

_ACTIVE = numpy.array([1, 0, 1])


def _linear(x: Any, w: Any, b: Any) -> Any:
    return x @ w.swapaxes(1, 2) + b[:, None]


row("stacked_linear", lambda x, w, b: OPS["stacked_linear"].call(x, w, b, None), _linear, normal(3, 5, 4), normal(3, 2, 4),
    normal(3, 2), name="all", torch=lambda torch, x, w, b: torch.baddbmm(b[:, None], x, w.mT))  # fmt: skip
row("stacked_linear", lambda x, w, active: OPS["stacked_linear"].call(x, w, None, active),
    lambda x, w, active: (x @ w.swapaxes(1, 2)) * (active != 0)[:, None, None], normal(3, 5, 4), normal(3, 2, 4), fixed(_ACTIVE),
    name="one stopped")  # fmt: skip
row("stacked_mean", lambda each: OPS["stacked_mean"].call(each, None), lambda each: each.mean(1), normal(3, 5),
    torch=lambda torch, each: each.mean(1))  # fmt: skip


def _keep(x: Any, position: Any, kept: Any) -> Any:
    flags = []
    for (key, counter), threshold in zip(position, kept):
        halves = numpy.random.Philox(key=int(key), counter=int(counter)).random_raw(x[0].size // 2 + 1).view("uint32")
        flags.append((halves[: x[0].size] < threshold).reshape(x[0].shape) * 2.0**32 / threshold)
    return x * numpy.array(flags)


row("stacked_drop", lambda x, position, kept: OPS["stacked_drop"].call(x, position, kept, advances=False), _keep, normal(3, 5, 4),
    fixed(numpy.array([[5, 7], [6, 0], [1, 2]], "uint64")), fixed(numpy.array([2**31, 3 * 2**30, 2**32])))  # fmt: skip
