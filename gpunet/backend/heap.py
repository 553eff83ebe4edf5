"""The heap of the process: how much freed memory it keeps."""

from __future__ import annotations

import ctypes
import os
import sys

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 4 * 1024 * 1024 * ctypes.sizeof(ctypes.c_long)


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MB of freed memory, unless the user's environment configures malloc.

    Else each large result of an eager step takes new pages, which the operating system clears: 4 to 13 % of the eager steps of
    LeNet, ResNet and VGG in ``gpunet bench``.  glibc itself raises its thresholds to these values once an array of 32 MB has
    been freed.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ or "MALLOC_MMAP_THRESHOLD_" in os.environ or "GLIBC_TUNABLES" in os.environ:
        return
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)


def return_freed_memory() -> None:
    """Return freed memory to the operating system; glibc keeps the blocks below a used one, which may be most of a recording's."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # not in musl
        libc.malloc_trim(0)
