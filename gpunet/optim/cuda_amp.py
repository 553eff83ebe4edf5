"""Mixed precision under the names of ``torch.cuda.amp``, which PyTorch has replaced by those of ``torch.amp``."""

from __future__ import annotations

import functools
from typing import Any

from gpunet.autograd import autocast as modern
from gpunet.launch.tape import warn_user
from gpunet.optim import grad_scaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


def _warn(name: str) -> None:
    warn_user(f"cuda.amp.{name} is deprecated; use amp.{name} with 'cuda'", FutureWarning)


class autocast(modern.autocast):
    """``gpunet.autocast("cuda", ...)``."""

    def __init__(self, enabled: bool = True, dtype: Any = "float16", cache_enabled: bool = True) -> None:
        _warn("autocast")
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(grad_scaler.GradScaler):
    """``gpunet.amp.GradScaler("cuda", ...)``."""

    def __init__(
        self, init_scale: float = 65536.0, growth_factor: float = 2.0, backoff_factor: float = 0.5, growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:  # fmt: skip
        _warn("GradScaler")
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


custom_fwd = functools.partial(modern.custom_fwd, device_type="cuda")
custom_bwd = functools.partial(modern.custom_bwd, device_type="cuda")
