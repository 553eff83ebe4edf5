"""Samples of special functions, beside SciPy's."""

from __future__ import annotations

import numpy
from scipy import special

import gpunet
from gpunet.ops.incomplete_gamma import reparameterized_gamma
from tests.samples.inputs import ROWS, labels, normal, positive, uniform
from tests.samples.row import row

for _name, _formula in (("lgamma", special.gammaln), ("digamma", special.digamma)):
    _call = getattr(gpunet, _name)
    row(f"_{_name}", _call, _formula, uniform(0.1, 3.0, ROWS, 4), torch=_name)
    row(f"_{_name}", _call, _formula, uniform(3.0, 60.0, ROWS, 4), torch=_name, name="large")
    row(f"_{_name}", _call, _formula, uniform(-0.8, -0.2, ROWS, 4), torch=_name, name="negative")
for _order in (1, 2, 3):
    row(
        "_polygamma_of", lambda x, n=_order: gpunet.polygamma(n, x), lambda x, n=_order: special.polygamma(n, x),
        uniform(0.4, 9.0, ROWS, 4), torch=lambda torch, x, n=_order: torch.polygamma(n, x), name=str(_order),
    )  # fmt: skip
row("_zeta_of", gpunet.special.zeta, special.zeta, uniform(2.0, 5.0, ROWS, 4, gradient=False), uniform(0.5, 20.0, 4))
for _name in ("igamma", "igammac"):
    _formula = special.gammainc if _name == "igamma" else special.gammaincc
    _call = getattr(gpunet, _name)
    row(f"_{_name}", _call, _formula, uniform(0.3, 30.0, ROWS, 4, gradient=False), uniform(0.5, 30.0, 4), torch=_name)
for _name in ("erfc", "erfcx", "ndtr", "log_ndtr", "i0", "i0e", "i1", "i1e"):
    row(
        f"_{_name}", getattr(gpunet.special, _name), getattr(special, _name), uniform(-3.0, 3.0, ROWS, 4),
        torch=lambda torch, x, n=_name: getattr(torch.special, n)(x),
    )  # fmt: skip
row("_ndtri", gpunet.special.ndtri, special.ndtri, uniform(0.05, 0.95, ROWS, 4))
row("_entr", gpunet.special.entr, special.entr, positive(ROWS, 4))
row("_xlog1py", gpunet.special.xlog1py, special.xlog1py, normal(ROWS, 4), positive(4))
row("_xlog1py", lambda x: gpunet.special.xlog1py(x, 3.0), lambda x: special.xlog1py(x, 3.0), normal(ROWS, 4), name="number")
row("_erfinv", gpunet.erfinv, special.erfinv, uniform(-0.95, 0.95, ROWS, 4), torch="erfinv")
row(
    "reparameterized_gamma", lambda a, x: reparameterized_gamma(a.float().to(x.dtype) + 1.0, x), lambda a, x: x, labels(4, ROWS, 3),
    normal(ROWS, 3),
)  # fmt: skip
row("_lgamma", gpunet.lgamma, special.gammaln, positive(ROWS, 2), torch="lgamma", name="around the zeros")
row("_lgamma", lambda x: gpunet.mvlgamma(x, 3), numpy.vectorize(lambda x: special.multigammaln(x, 3), [float]),
    uniform(1.5, 9.0, ROWS, 4), name="mvlgamma", torch=lambda torch, x: torch.mvlgamma(x, 3))  # fmt: skip
row("_exp2", gpunet.special.exp2, numpy.exp2, normal(ROWS, 4), torch="exp2", name="exp2")
row("_logit", lambda x: gpunet.logit(x, 0.2), lambda x: special.logit(numpy.clip(x, 0.2, 0.8)), uniform(0.25, 0.75, ROWS, 4),
    name="with a limit", torch=lambda torch, x: torch.logit(x, 0.2))  # fmt: skip
row("_logaddexp", lambda x: gpunet.logcumsumexp(x, 1), lambda x: numpy.logaddexp.accumulate(x, 1),
    normal(ROWS, 4), name="logcumsumexp", torch=lambda torch, x: torch.logcumsumexp(x, 1))  # fmt: skip
