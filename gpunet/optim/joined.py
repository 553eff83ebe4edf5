"""Many small tensors as one vector: what the optimizers' twins do where a pass each would cost more than the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from gpunet.runtime.memory import scratch

#: Elements of a pass: the five arrays of an Adam step stay in the L2 cache.
CHUNK = 32768
#: Elements of all tensors together that are worth being joined: copying the gradients costs less than a pass a tensor.
MOST_JOINED = 8 * CHUNK


def joined(tensors: Sequence[numpy.ndarray], slot: int) -> numpy.ndarray:
    """The elements of all tensors as one vector in scratch memory."""
    out = scratch((sum(t.size for t in tensors),), tensors[0].dtype, slot)
    return numpy.concatenate([t.reshape(-1) for t in tensors], out=out)


def subtract_parts(tensors: Sequence[numpy.ndarray], change: numpy.ndarray) -> None:
    """Take each tensor's part of a joined vector off it."""
    start = 0
    for tensor in tensors:
        tensor -= change[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
