"""Samples of softmax and log_softmax."""

from __future__ import annotations

import numpy

from tests.samples.formulas import softmax
from tests.samples.inputs import (
    ROWS,
    normal,
)
from tests.samples.row import SAME, row

for _axis in (0, 1, -1):
    _shape = (5, 4) if _axis == 0 else (ROWS, 4)
    row("_softmax", lambda x, a=_axis: x.softmax(a), lambda x, a=_axis: softmax(x, a), normal(*_shape), name=f"over {_axis}",
        torch=SAME)  # fmt: skip
    row("_log_softmax", lambda x, a=_axis: x.log_softmax(a), lambda x, a=_axis: numpy.log(softmax(x, a)), normal(*_shape),
        torch=SAME, name=f"over {_axis}")  # fmt: skip
