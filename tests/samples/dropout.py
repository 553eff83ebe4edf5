"""Samples of dropout."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import OPS
from tests.samples.inputs import ROWS, fixed, mask, normal
from tests.samples.row import row


def _keep(x: Any, position: Any) -> Any:
    halves = numpy.random.Philox(key=int(position[0]), counter=int(position[1])).random_raw(x.size // 2 + 1).view("uint32")
    return x * (halves[: x.size].reshape(x.shape) < 0.75 * 2**32) / 0.75


row("drop", lambda x, position: OPS["drop"].call(x, position, probability=0.75, scale=4 / 3), _keep, normal(ROWS, 4),
    fixed(numpy.array([5, 7], "uint64")))  # fmt: skip
row("masked_scale", lambda x, m: OPS["masked_scale"].call(x, m, scale=1.25), lambda x, m: x * m * 1.25, normal(ROWS, 4),
    mask(ROWS, 4))  # fmt: skip
