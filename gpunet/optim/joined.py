"""Join many small tensors into one vector, where NumPy calls per tensor would cost more than the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from gpunet.launch.memory import JoinedArrays, scratch_joined

#: Join tensors with at most this many elements in total: copying their gradients costs less than a pass per tensor.
MAX_JOINED = 1 << 18


def join(tensors: Sequence[numpy.ndarray], slot: int) -> JoinedArrays:
    """Copy the tensors into one vector in scratch memory."""
    work = scratch_joined(tuple([t.shape for t in tensors]), tensors[0].dtype, slot)
    if type(work.flat) is numpy.ndarray:  # half the time of numpy.concatenate, whose single call is better in a trace
        for part, tensor in zip(work, tensors):
            part[...] = tensor
    else:
        numpy.concatenate([t.reshape(-1) for t in tensors], out=work.flat)
    return work


def has_joined_state(steps: Sequence[numpy.ndarray]) -> bool:
    """Whether the state of all tensors is joined in memory, and their step counts are equal."""
    return isinstance(steps, JoinedArrays) and steps.flat is not None


def subtract_joined(tensors: Sequence[numpy.ndarray], update: JoinedArrays) -> None:
    """Subtract from each tensor its part of the joined update, in place."""
    for tensor, part in zip(tensors, update):
        tensor -= part
