"""Many small tensors as one vector: what the optimizers' twins do where a pass each would cost more than the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from gpunet.launch.memory import JoinedArrays, scratch_joined

#: Elements of all tensors together that are worth being joined: copying the gradients costs less than a pass a tensor.
MOST_JOINED = 1 << 18


def joined(tensors: Sequence[numpy.ndarray], slot: int) -> JoinedArrays:
    """The elements of all tensors one after the other in scratch memory."""
    work = scratch_joined(tuple([t.shape for t in tensors]), tensors[0].dtype, slot)
    if type(work.flat) is numpy.ndarray:  # half the time of a concatenation, which is one call of a recorded step
        for part, tensor in zip(work, tensors):
            part[...] = tensor
    else:
        numpy.concatenate([t.reshape(-1) for t in tensors], out=work.flat)
    return work


def stepped_together(steps: Sequence[numpy.ndarray]) -> bool:
    """Whether the state of all tensors lies side by side, and they have taken equally many steps."""
    return isinstance(steps, JoinedArrays) and steps.flat is not None


def subtract_parts(tensors: Sequence[numpy.ndarray], change: JoinedArrays) -> None:
    """Take each tensor's part of joined ones off it."""
    for tensor, part in zip(tensors, change):
        tensor -= part
