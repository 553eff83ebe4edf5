"""Functions that PyTorch has beside a method of the same name: ``clone(x)`` for ``x.clone()``, ``abs_(x)`` for ``x.abs_()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import DtypeError

_NAMES = [
    "abs_", "acos_", "acosh_", "addmv_", "arccos_", "arccosh_", "arcsin_", "arcsinh_", "arctan_", "arctanh_", "as_strided_",
    "asin_", "asinh_", "atan_", "atanh_", "ceil_", "clamp_", "clamp_max_", "clamp_min_", "clip_", "clone", "cos_", "cosh_",
    "deg2rad_", "detach", "detach_", "erf_", "erfc_", "exp2_", "exp_", "expm1_", "fill_", "fix_", "floor_", "frac_", "gcd_",
    "get_device", "i0_", "index_put_", "lcm_", "ldexp_", "log10_", "log1p_", "log2_", "log_", "logit_", "nan_to_num_", "neg_",
    "negative_", "rad2deg_", "reciprocal_", "resize_as_", "round_", "rsqrt_", "sigmoid_", "sin_", "sinc_", "sinh_", "sqrt_",
    "square_", "tan_", "tanh_", "trunc_", "xlogy_", "zero_",
]  # fmt: skip


def _function(name: str) -> Callable[..., Any]:
    def call(input: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(input, Tensor):
            raise DtypeError(f"{name}: input has type {type(input).__name__}; expected a tensor")
        return getattr(input, name)(*args, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``input.{name}(...)``."
    return call


globals().update({name: _function(name) for name in _NAMES})
__all__ = [*_NAMES]
