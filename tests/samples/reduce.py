"""Samples of reductions."""

from __future__ import annotations

import math

import numpy

import gpunet
from tests.samples.inputs import (
    ROWS,
    distinct,
    normal,
    positive,
)
from tests.samples.row import SAME, row, same

for _op, _name in {"_sum": "sum", "_mean": "mean", "_prod": "prod"}.items():
    for _axes, _kept in ((None, False), (0, False), (-1, True), ((0, 2), False), ((2, 0), True)):
        if _op == "_prod" and isinstance(_axes, tuple):
            continue
        _options = {} if _axes is None else {"axis": _axes, "keepdims": _kept}
        _torch_options = {} if _axes is None else {"dim": _axes, "keepdim": _kept}
        row(
            _op, lambda x, f=_name, o=_options: getattr(x, f)(**o), lambda x, f=_name, o=_options: getattr(x, f)(**o),
            positive(2, 3, 4), torch=lambda torch, x, f=_name, o=_torch_options: getattr(x, f)(**o),
            name=f"over {_axes}{' kept' if _kept else ''}",
        )  # fmt: skip
same("_sum", lambda x: x.sum(1), normal(ROWS, 3), name="rows")
same("_mean", lambda x: x.mean(1), normal(ROWS, 3), name="rows")
_zeros = numpy.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], numpy.float32)
row(
    "_prod", lambda x: (x * gpunet.tensor(_zeros.tolist(), device=x.device)).prod(1), lambda x: (x * _zeros).prod(1),
    positive(3, 3), name="with zeros",
)  # fmt: skip
for _op in ("amax", "amin"):
    for _axes in (None, 0, -1, (0, 2)):
        row(
            "_extreme", lambda x, f=_op, a=_axes: getattr(gpunet, f)(x, a), lambda x, f=_op, a=_axes: getattr(numpy, f)(x, a),
            distinct(2, 3, 4), name=f"{_op} over {_axes}",
            torch=lambda torch, x, f=_op, a=_axes: getattr(torch, f)(x, () if a is None else a),
        )  # fmt: skip
row("_extreme", lambda x: x.max(), lambda x: x.max(), distinct(3, 4), torch="max", name="max")
for _axis in (0, 1):
    row("_cumsum", lambda x, a=_axis: x.cumsum(a), lambda x, a=_axis: x.cumsum(a), normal(ROWS, 4), name=f"over {_axis}",
        torch=SAME)  # fmt: skip
for _correction in (0, 1):
    row(
        "_variance", lambda x, c=_correction: x.var(1, correction=c), lambda x, c=_correction: x.var(1, ddof=c), normal(ROWS, 4),
        torch=SAME, name=f"var {_correction}",
    )  # fmt: skip
row("sqrt_0", lambda x: x.std(), lambda x: x.std(ddof=1), normal(3, 4), torch="std", name="std")
row("_logsumexp", lambda x: x.logsumexp(1), lambda x: numpy.log(numpy.exp(x).sum(1)), normal(ROWS, 4), torch=SAME)  # fmt: skip
for _p in (1, 2, 3, math.inf, -math.inf):
    row(
        "_extreme" if math.isinf(_p) else "_sum", lambda x, p=_p: x.norm(p, 1),
        lambda x, p=_p: numpy.linalg.norm(x, p, 1), distinct(ROWS, 4, offset=0.0625),
        torch=SAME, name=f"norm {_p}",
    )  # fmt: skip
