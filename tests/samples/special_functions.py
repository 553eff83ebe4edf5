"""Samples of special functions, beside SciPy's."""

from __future__ import annotations

from scipy import special

import gpunet
from gpunet.ops.special_functions import polygamma, reparameterized_gamma
from tests.samples.inputs import ROWS, labels, normal, positive, uniform
from tests.samples.row import row

for _name, _formula in (("lgamma", special.gammaln), ("digamma", special.digamma)):
    _call = getattr(gpunet, _name)
    row(f"_{_name}", _call, _formula, uniform(0.1, 3.0, ROWS, 4), torch=_name)
    row(f"_{_name}", _call, _formula, uniform(3.0, 60.0, ROWS, 4), torch=_name, name="large")
    row(f"_{_name}", _call, _formula, uniform(-0.8, -0.2, ROWS, 4), torch=_name, name="negative")
for _order in (1, 2):
    row(
        "polygamma", lambda x, n=_order: polygamma(x, order=n), lambda x, n=_order: special.polygamma(n, x),
        uniform(0.4, 9.0, ROWS, 4), torch=lambda torch, x, n=_order: torch.polygamma(n, x), name=str(_order),
    )  # fmt: skip
row("_erfinv", gpunet.erfinv, special.erfinv, uniform(-0.95, 0.95, ROWS, 4), torch="erfinv")
row(
    "reparameterized_gamma", lambda a, x: reparameterized_gamma(a.float().to(x.dtype) + 1.0, x), lambda a, x: x, labels(4, ROWS, 3),
    normal(ROWS, 3),
)  # fmt: skip
row("_lgamma", gpunet.lgamma, special.gammaln, positive(ROWS, 2), torch="lgamma", name="around the zeros")
