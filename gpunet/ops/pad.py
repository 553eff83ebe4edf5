"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

from gpunet.autograd import FILL, Tensor, make_tensor
from gpunet.errors import ArgumentError
from gpunet.launch.memory import empty
from gpunet.ops.join import cat

__all__ = ["pad"]


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Pad with a constant; ``pad`` is (left, right) of the last dimension, then of the second to last, and so on.

    Raises:
        ArgumentError: ``mode`` is not "constant", or ``pad`` is not a list of at most x.ndim pairs of widths >= 0.
    """
    if mode != "constant" or len(pad) % 2 or len(pad) > 2 * x.ndim or min(pad, default=0) < 0:
        raise ArgumentError(f"pad: pad={tuple(pad)}, mode={mode!r}; expected pairs of widths >= 0, and mode 'constant'")
    for pair in range(len(pad) // 2):
        dim = x.ndim - 1 - pair
        parts = [x]
        for position, width in ((0, pad[2 * pair]), (2, pad[2 * pair + 1])):
            if width:
                edge = empty((*x.shape[:dim], width, *x.shape[dim + 1 :]), x.dtype, x.array)
                FILL(edge, value=value)
                parts.insert(position, make_tensor(edge))
        x = cat(parts, dim)
    return x
