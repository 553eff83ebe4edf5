"""PyTorch's names of memory formats and layouts.

Tensors here are C-contiguous when they are created, whatever format is asked for: a format is a hint that changes no value.
"""

from __future__ import annotations

from typing import Any

from gpunet.errors import ArgumentError

__all__ = [
    "channels_last", "channels_last_3d", "contiguous_format", "layout", "legacy_contiguous_format", "memory_format",
    "preserve_format", "strided",
]  # fmt: skip


class _Name:
    """A value that is known by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"gpunet.{self.name}"


class MemoryFormat(_Name):
    """The order in memory that PyTorch gives to a tensor; a hint without effect here."""


class Layout(_Name):
    """How the elements of a tensor are stored; ``strided`` is the only layout."""


channels_last, channels_last_3d = MemoryFormat("channels_last"), MemoryFormat("channels_last_3d")
contiguous_format, preserve_format = MemoryFormat("contiguous_format"), MemoryFormat("preserve_format")
legacy_contiguous_format = contiguous_format
strided = Layout("strided")
#: PyTorch's names of the classes.
layout, memory_format = Layout, MemoryFormat


def check_memory_format(function: str, memory_format: Any) -> None:
    """Raise an ArgumentError unless ``memory_format`` is a MemoryFormat or None."""
    if memory_format is not None and not isinstance(memory_format, MemoryFormat):
        raise ArgumentError(f"{function}: memory_format={memory_format!r}; expected one such as gpunet.contiguous_format")


def check_layout(function: str, layout: Any) -> None:
    """Raise an ArgumentError unless ``layout`` is ``strided`` or None."""
    if layout is not None and layout is not strided:
        raise ArgumentError(f"{function}: layout={layout!r}; only gpunet.strided is supported, tensors are dense")
