"""Which gradients are those of a scaled loss, for functions that need them unscaled."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable

from gpunet.autograd.tensor import Tensor
from gpunet.launch.tape import user_stacklevel


class LossScaling:
    """Base class of GradScaler: what is known of the gradients between ``scale()`` and ``update()``."""

    def __init__(self) -> None:
        self.has_scaled = False  # whether a loss was scaled since the last update
        self.unscaled: set[int] = set()  # the ids of the parameters that were unscaled since
        _SCALINGS.add(self)


_SCALINGS: weakref.WeakSet[LossScaling] = weakref.WeakSet()


def warn_of_scaled_gradients(function: str, parameters: Iterable[Tensor]) -> None:
    """Warn if a loss was scaled and the gradients of ``parameters`` were not unscaled yet."""
    for scaling in _SCALINGS:
        if scaling.has_scaled and any(p._grad is not None and id(p) not in scaling.unscaled for p in parameters):
            warnings.warn(
                f"{function}: the gradients are those of a loss that GradScaler.scale() multiplied; call "
                "scaler.unscale_(optimizer) before, or the limit holds for the scaled gradients",
                UserWarning, stacklevel=user_stacklevel(),
            )  # fmt: skip
            return
