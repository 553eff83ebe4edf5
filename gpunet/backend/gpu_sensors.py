"""What NVIDIA's management library tells of a GPU: utilization, temperature, power, clock, memory and processes."""

from __future__ import annotations

import importlib
from typing import Any

from gpunet.backend.devices import Device
from gpunet.backend.gpus import gpu_of, uuid_of
from gpunet.errors import DeviceError, MissingDependencyError

__all__ = ["clock_rate", "device_memory_used", "list_gpu_processes", "memory_usage", "power_draw", "temperature", "utilization"]


def _handle(function: str, device: Any) -> tuple[Any, Any]:
    """The library, and its handle of a GPU.

    Raises:
        MissingDependencyError: the library is not installed.
        DeviceError: the GPU does not exist, or the library does not know it.
    """
    try:
        library: Any = importlib.import_module("pynvml")
    except ImportError:
        raise MissingDependencyError(f"cuda.{function} needs the package nvidia-ml-py: pip install nvidia-ml-py") from None
    gpu = gpu_of(device)
    try:
        library.nvmlInit()
        return library, library.nvmlDeviceGetHandleByUUID(uuid_of(gpu))
    except library.NVMLError as error:
        raise DeviceError(f"cuda.{function}: NVIDIA's management library does not know {gpu}: {error}") from None


def utilization(device: str | Device | int | None = None) -> int:
    """Return the percentage of the last interval in which kernels ran on a GPU."""
    library, handle = _handle("utilization", device)
    return int(library.nvmlDeviceGetUtilizationRates(handle).gpu)


def memory_usage(device: str | Device | int | None = None) -> int:
    """Return the percentage of the last interval in which memory of a GPU was read or written."""
    library, handle = _handle("memory_usage", device)
    return int(library.nvmlDeviceGetUtilizationRates(handle).memory)


def device_memory_used(device: str | Device | int | None = None) -> int:
    """Return the bytes of a GPU that all processes use."""
    library, handle = _handle("device_memory_used", device)
    return int(library.nvmlDeviceGetMemoryInfo(handle).used)


def temperature(device: str | Device | int | None = None) -> int:
    """Return the temperature of a GPU in degrees Celsius."""
    library, handle = _handle("temperature", device)
    return int(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))


def power_draw(device: str | Device | int | None = None) -> int:
    """Return the power that a GPU draws in milliwatts."""
    library, handle = _handle("power_draw", device)
    return int(library.nvmlDeviceGetPowerUsage(handle))


def clock_rate(device: str | Device | int | None = None) -> int:
    """Return the clock of the multiprocessors of a GPU in MHz."""
    library, handle = _handle("clock_rate", device)
    return int(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))


def list_gpu_processes(device: str | Device | int | None = None) -> str:
    """Return a line for each process that computes on a GPU, with the memory that it uses."""
    library, handle = _handle("list_gpu_processes", device)
    lines = [f"GPU:{gpu_of(device).index}"]
    for process in library.nvmlDeviceGetComputeRunningProcesses(handle):
        used = process.usedGpuMemory
        lines.append(f"process {process.pid:>10d} uses {'unknown' if used is None else f'{used / 2**20:12.3f} MB'} GPU memory")
    return "\n".join(lines if len(lines) > 1 else [*lines, "no processes are running"])
