"""One-hot encoding of labels."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.errors import LabelError
from gpunet.launch.tape import graph_break_on_read

__all__ = ["one_hot"]


def one_hot(labels: Any, num_classes: int = -1) -> Tensor:
    """One-hot encode integer labels: int64, shape (*labels.shape, num_classes).

    Args:
        num_classes: -1 means the largest label + 1.

    Raises:
        LabelError: a label is outside 0 .. num_classes - 1.
    """
    array = labels.array if isinstance(labels, Tensor) else labels
    graph_break_on_read("one_hot()", array)
    with devices.on_device_of(array):
        highest = int(array.max()) if array.size else -1
        classes = highest + 1 if num_classes == -1 else num_classes
        if array.size and (highest >= classes or int(array.min()) < 0):
            raise LabelError(f"one_hot: labels from {int(array.min())} to {highest}; expected 0 .. {classes - 1}")
        return Tensor((array[..., None] == devices.module(array).arange(classes)).astype(numpy.int64))
