"""Which gradients are those of a scaled loss, for functions that need them unscaled."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from gpunet.autograd.graph import Node, edge_to
from gpunet.autograd.tensor import Tensor
from gpunet.launch.tape import warn_user


class LossScaling:
    """Base class of GradScaler: what is known of the gradients between ``scale()`` and ``update()``."""

    def __init__(self) -> None:
        self.scaled: set[Tensor] = set()  # the leaves of the losses scaled since the last update, unless unscaled since
        _SCALINGS.add(self)


_SCALINGS: weakref.WeakSet[LossScaling] = weakref.WeakSet()


def leaves_of(tensor: Tensor) -> set[Tensor]:
    """Return the leaves that require grad in the graph of a tensor."""
    leaves: set[Tensor] = set()
    seen: set[Any] = set()
    stack = [edge_to(tensor)]
    while stack:
        target = None if (edge := stack.pop()) is None else edge[0]
        if type(target) is not Node:
            if target is not None:
                leaves.add(target)
        elif target not in seen:
            seen.add(target)
            stack += target.edges
    return leaves


def warn_of_scaled_gradients(function: str, parameters: Iterable[Tensor]) -> None:
    """Warn if gradients of ``parameters`` are those of a scaled loss, and were not unscaled yet."""
    for scaling in _SCALINGS:
        if any(p._grad is not None and p in scaling.scaled for p in parameters):
            warn_user(
                f"{function}: the gradients are those of a loss that GradScaler.scale() multiplied; call "
                "scaler.unscale_(optimizer) before, or the limit holds for the scaled gradients",
            )
            return
