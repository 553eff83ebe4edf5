"""Samples of dropout."""

from __future__ import annotations

from gpunet.autograd import OPS
from tests.samples.inputs import (
    ROWS,
    mask,
    normal,
)
from tests.samples.row import row

row("masked_scale", lambda x, m: OPS["masked_scale"].call(x, m, scale=1.25), lambda x, m: x * m * 1.25, normal(ROWS, 4),
    mask(ROWS, 4))  # fmt: skip
