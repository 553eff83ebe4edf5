"""Samples of medians, quantiles, sums without NaN, covariances and distances."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, distinct, normal
from tests.samples.row import SAME, row

row("_median", gpunet.median, lambda x: numpy.sort(x.ravel())[(x.size - 1) // 2], distinct(3, 4), torch="median")
row("_median", gpunet.nanmedian, lambda x: numpy.sort(x.ravel())[(x.size - 1) // 2], distinct(3, 4), torch="nanmedian", name="nan")
row("_index", lambda x: x.median(1).values, lambda x: numpy.sort(x, 1)[:, 1], distinct(ROWS, 4), torch=SAME, name="median along")
row("_index", lambda x: x.kthvalue(3, 1).values, lambda x: numpy.sort(x, 1)[:, 2], distinct(ROWS, 4), torch=SAME, name="kthvalue")
row("_index", gpunet.msort, lambda x: numpy.sort(x, 0), distinct(5, 3), torch="msort", name="msort")
for _interpolation in ("linear", "lower", "higher", "midpoint", "nearest"):
    row(
        "_index", lambda x, i=_interpolation: gpunet.quantile(x, 0.4, 1, interpolation=i),
        lambda x, i=_interpolation: numpy.quantile(x, 0.4, 1, method=i), distinct(3, 4),
        torch=lambda torch, x, i=_interpolation: torch.quantile(x, 0.4, 1, interpolation=i), name=f"quantile {_interpolation}",
    )  # fmt: skip
row("_index", lambda x: gpunet.nanquantile(x, 0.4), lambda x: numpy.quantile(x, 0.4), distinct(3, 4), name="nanquantile",
    torch=lambda torch, x: torch.nanquantile(x, 0.4))  # fmt: skip
row(
    "_sum", lambda x: gpunet.nansum(x, 1), lambda x: x.sum(1), normal(ROWS, 4), torch=lambda torch, x: torch.nansum(x, 1),
    name="nansum",
)  # fmt: skip
row(
    "_div", lambda x: gpunet.nanmean(x, 1), lambda x: x.mean(1), normal(ROWS, 4), torch=lambda torch, x: torch.nanmean(x, 1),
    name="nanmean",
)  # fmt: skip
row("_matmul", gpunet.cov, numpy.cov, normal(3, 5), torch="cov", name="cov")
row("_matmul", gpunet.corrcoef, numpy.corrcoef, normal(3, 5), torch="corrcoef", name="corrcoef")
row("sqrt_0", gpunet.dist, lambda a, b: numpy.linalg.norm(a - b), normal(3, 4), normal(4), torch="dist", name="dist")
row(
    "_extreme", lambda x: gpunet.sub(*gpunet.aminmax(x, dim=1)), lambda x: x.min(1) - x.max(1), distinct(ROWS, 4),
    torch=lambda torch, x: torch.sub(*torch.aminmax(x, dim=1)), name="aminmax",
)  # fmt: skip
