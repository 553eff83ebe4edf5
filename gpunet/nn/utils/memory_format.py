"""Orders of the weights of convolutions in memory: hints without effect, since the kernels read their weights in one order."""

from __future__ import annotations

from typing import Any, TypeVar

from gpunet.backend.formats import check_memory_format
from gpunet.nn.module import Module

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]

M = TypeVar("M", bound=Module)


def convert_conv2d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Return the module: a memory format changes no value here, and no order.

    Raises:
        ArgumentError: it is no memory format.
    """
    check_memory_format("convert_conv2d_weight_memory_format", memory_format)
    return module


def convert_conv3d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Return the module, as :func:`convert_conv2d_weight_memory_format`."""
    check_memory_format("convert_conv3d_weight_memory_format", memory_format)
    return module
