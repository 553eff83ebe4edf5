"""The memory of GPUs: CuPy's pool, what is in use of it, and its limit."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

from gpunet.backend.devices import Device, cupy
from gpunet.backend.gpus import device_count, gpu_of, is_available
from gpunet.errors import ArgumentError

__all__ = [
    "empty_cache", "get_per_process_memory_fraction", "ipc_collect", "max_memory_allocated", "max_memory_cached",
    "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_cached", "memory_reserved", "memory_stats",
    "memory_stats_as_nested_dict", "memory_summary", "reset_accumulated_memory_stats", "reset_max_memory_allocated",
    "reset_max_memory_cached", "reset_peak_memory_stats", "set_per_process_memory_fraction",
]  # fmt: skip


def _pool(device: Any) -> tuple[Any, Any]:
    """A context with the GPU as the current one, and CuPy's pool of its memory."""
    return cupy().cuda.Device(gpu_of(device).index), cupy().get_default_memory_pool()


def memory_allocated(device: str | Device | int | None = None) -> int:
    """Return the bytes of all arrays on a GPU; 0 if CUDA is not ready."""
    if not is_available():
        return 0
    context, pool = _pool(device)
    with context:
        return int(pool.used_bytes())


def memory_reserved(device: str | Device | int | None = None) -> int:
    """Return the bytes that CuPy's memory pool holds on a GPU, in use or not; 0 if CUDA is not ready."""
    if not is_available():
        return 0
    context, pool = _pool(device)
    with context:
        return int(pool.total_bytes())


def max_memory_allocated(device: str | Device | int | None = None) -> int:
    """Return :func:`memory_reserved`: the pool keeps what was in use at the peak since :func:`reset_peak_memory_stats`.

    It is a bound from above of the peak of :func:`memory_allocated`, which is not recorded.
    """
    return memory_reserved(device)


def max_memory_reserved(device: str | Device | int | None = None) -> int:
    """Return :func:`memory_reserved`: the pool grows until :func:`empty_cache`."""
    return memory_reserved(device)


def reset_peak_memory_stats(device: str | Device | int | None = None) -> None:
    """Begin a new peak of :func:`max_memory_allocated`: free the memory of the pool that is not in use."""
    if is_available():
        context, pool = _pool(device)
        with context:
            pool.free_all_blocks()


reset_max_memory_allocated = reset_peak_memory_stats


def empty_cache() -> None:
    """Free the memory of CuPy's pools that is not in use; do nothing if CUDA is not ready."""
    if is_available():
        for index in range(device_count()):
            with cupy().cuda.Device(index):
                cupy().get_default_memory_pool().free_all_blocks()
        cupy().get_default_pinned_memory_pool().free_all_blocks()


def ipc_collect() -> None:
    """Do nothing: no memory is shared with other processes."""


def mem_get_info(device: str | Device | int | None = None) -> tuple[int, int]:
    """Return (free, total) memory of a GPU in bytes, as the driver sees it.

    Raises:
        DeviceError: CUDA is not ready.
    """
    with cupy().cuda.Device(gpu_of(device).index):
        free, total = cupy().cuda.runtime.memGetInfo()
    return int(free), int(total)


reset_max_memory_cached = reset_peak_memory_stats


def memory_cached(device: str | Device | int | None = None) -> int:
    """:func:`memory_reserved`, by an older name, with a warning."""
    warnings.warn("memory_cached is deprecated, as in PyTorch: use memory_reserved", FutureWarning, stacklevel=2)
    return memory_reserved(device)


def max_memory_cached(device: str | Device | int | None = None) -> int:
    """:func:`max_memory_reserved`, by an older name, with a warning."""
    warnings.warn("max_memory_cached is deprecated, as in PyTorch: use max_memory_reserved", FutureWarning, stacklevel=2)
    return max_memory_reserved(device)


def memory_stats(device: str | Device | int | None = None) -> OrderedDict[str, int]:
    """Return what CuPy's pool tells of PyTorch's statistics, in bytes: of ``allocated_bytes`` and ``reserved_bytes`` for all sizes
    of blocks the numbers of now and at the peak; empty if CUDA is not ready.

    The peaks are those of :func:`max_memory_allocated` and :func:`max_memory_reserved`.
    """
    if not is_available():
        return OrderedDict()
    found = OrderedDict()
    for name, now, most in (
        ("allocated_bytes", memory_allocated, max_memory_allocated), ("reserved_bytes", memory_reserved, max_memory_reserved)
    ):  # fmt: skip
        found[f"{name}.all.current"], found[f"{name}.all.peak"] = now(device), most(device)
    return found


def memory_stats_as_nested_dict(device: str | Device | int | None = None) -> dict[str, Any]:
    """Return :func:`memory_stats` as dictionaries: ``found["allocated_bytes"]["all"]["current"]``."""
    nested: dict[str, Any] = {}
    for path, value in memory_stats(device).items():
        *parents, last = path.split(".")
        place = nested
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return nested


def reset_accumulated_memory_stats(device: str | Device | int | None = None) -> None:
    """Do nothing: CuPy's pool does not add up allocations."""


def memory_summary(device: str | Device | int | None = None, abbreviated: bool = False) -> str:
    """Return a table of the memory that CuPy's pool holds and that the driver sees; a sentence if CUDA is not ready."""
    if not is_available():
        return "CUDA is not ready: no memory is in use"
    free, total = mem_get_info(device)
    rows = [
        ("in use by arrays", memory_allocated(device)), ("held by CuPy's pool", memory_reserved(device)),
        ("in use on the GPU by all processes", total - free), ("of the GPU", total),
    ]  # fmt: skip
    return "\n".join([f"memory of cuda:{gpu_of(device).index}", *(f"{value / 2**20:12,.1f} MiB  {name}" for name, value in rows)])


def set_per_process_memory_fraction(fraction: float, device: str | Device | int | None = None) -> None:
    """Let CuPy's pool hold at most this part of the memory of a GPU; more raises an OutOfMemoryError.

    Raises:
        ArgumentError: the fraction is not from 0 to 1.
        DeviceError: CUDA is not ready.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
        raise ArgumentError(f"set_per_process_memory_fraction: fraction={fraction!r}; expected a number from 0 to 1")
    context, pool = _pool(device)
    with context:
        pool.set_limit(fraction=None if fraction == 1.0 else float(fraction), size=0 if fraction == 1.0 else None)


def get_per_process_memory_fraction(device: str | Device | int | None = None) -> float:
    """Return the part of :func:`set_per_process_memory_fraction`, 1 at first.

    Raises:
        DeviceError: CUDA is not ready.
    """
    context, pool = _pool(device)
    with context:
        limit = int(pool.get_limit())
    return limit / mem_get_info(device)[1] if limit else 1.0
