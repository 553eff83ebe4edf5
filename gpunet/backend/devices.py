"""Devices: where arrays live.  The only file that imports CuPy, and it does so lazily.

A device is known by the *type* of its arrays: ``numpy.ndarray`` is the CPU, ``cupy.ndarray`` a CUDA card, and
:class:`~gpunet.backend.emulated_array.EmulatedArray` the device "emulated", where launches run the CUDA sources on the CPU.  So a
kernel needs no device argument, and NumPy and CuPy arrays are taken as they are.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NamedTuple

import numpy

from gpunet.backend.emulated_array import EmulatedArray, emulated_numpy
from gpunet.errors import CaptureError, DeviceError

__all__ = ["cuda_status", "default_device", "device", "set_default_device"]

Array = Any  # numpy.ndarray, EmulatedArray or cupy.ndarray; CuPy cannot be named in a type without being imported


class CudaStatus(NamedTuple):
    """What was found of CUDA on this machine."""

    state: str  # "not installed" | "no driver" | "no card" | "ready"
    detail: str  # what was found, for people
    advice: str  # what to do about it; empty when ready

    @property
    def ready(self) -> bool:
        return self.state == "ready"


_INSTALL = "install gpunet with CUDA support: pip install 'gpunet[cuda13]' (driver 580 or newer) or 'gpunet[cuda12]'"


@functools.cache
def cuda_status() -> CudaStatus:
    """Whether CUDA can be used here: CuPy absent, no driver, no card, or ready.  Looked up once a process."""
    if importlib.util.find_spec("cupy") is None:
        return CudaStatus("not installed", "CuPy is not installed", _INSTALL)
    try:
        import cupy
    except Exception as error:  # a broken CuPy raises many kinds; a CPU run must survive every one of them
        return CudaStatus("not installed", f"CuPy is installed but does not import: {error}", _INSTALL)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return CudaStatus(
            "no driver",
            f"CuPy {cupy.__version__} is installed, but no CUDA driver answers: {error}",
            "install NVIDIA's driver, or make it visible here (in a container: --gpus all)",
        )
    if count == 0:
        return CudaStatus(
            "no card",
            f"CuPy {cupy.__version__} and a driver are installed, but no NVIDIA card is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    return CudaStatus("ready", f"CuPy {cupy.__version__}, {count} card(s)", "")


@functools.cache
def cupy() -> ModuleType:
    """CuPy itself.

    Raises:
        DeviceError: CUDA is not ready; the message says what was found and what to install.
    """
    status = cuda_status()
    if not status.ready:
        raise DeviceError(f"CUDA was asked for, but {status.detail}. To use it, {status.advice}. Or use device='cpu'.")
    import cupy

    return cupy


class Device:
    """A place where arrays live: ``Device("cpu")``, ``Device("cuda")``, ``Device("cuda:1")`` or ``Device("auto")``.

    "auto" is CUDA when it is ready and the CPU otherwise.  A plain "cuda" is card 0.  "emulated" runs the CUDA sources
    on the CPU, thread by thread, and can check them as it does so (see :mod:`gpunet.emulator`): for tests.

    Raises:
        DeviceError: an unknown name, or a CUDA device that is not there.
    """

    __slots__ = ("index", "type")
    type: str
    index: int

    def __init__(self, name: str | Device = "auto") -> None:
        if isinstance(name, Device):
            self.type, self.index = name.type, name.index
            return
        kind, _, number = str(name).partition(":")
        if kind == "auto" and not number:
            kind = "cuda" if cuda_status().ready else "cpu"
        valid_number = not number or number.isdecimal()
        if kind not in _KINDS or not valid_number or (kind != "cuda" and number not in ("", "0")):
            raise DeviceError(f"unknown device {str(name)!r}: expected 'cpu', 'cuda', 'cuda:N', 'emulated' or 'auto'")
        if kind == "cuda":
            count = cupy().cuda.runtime.getDeviceCount()
            if int(number or 0) >= count:
                raise DeviceError(f"device {str(name)!r} was asked for, but there are {count} card(s): 'cuda:0' is the first")
        self.type = kind
        self.index = int(number or 0)

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + (f", index={self.index})" if self.type == "cuda" else ")")

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.type == "cuda" else self.type

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Device(other)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


device = Device  #: PyTorch's name

_KINDS = ("cpu", "cuda", "emulated")
CPU = Device("cpu")
_EMULATED = Device("emulated")

_process_default: Device | None = None


def set_default_device(device: str | Device | None) -> None:
    """New tensors are made on ``device`` from now on; ``None`` goes back to ``GPUNET_DEVICE`` or "cpu".

    Like PyTorch, and unlike the command line, the library itself starts on the CPU: a script says where it runs.
    """
    global _process_default
    _process_default = None if device is None else Device(device)


def default_device() -> Device:
    """The device that new tensors are made on: ``set_default_device``, else ``GPUNET_DEVICE``, else the CPU."""
    if _process_default is not None:
        return _process_default
    name = os.environ.get("GPUNET_DEVICE")
    return CPU if not name else Device(name)


def of(array: Array) -> Device:
    """The device that an array lives on."""
    if isinstance(array, numpy.ndarray):
        return _EMULATED if isinstance(array, EmulatedArray) else CPU
    return _gpu(array.device.id)


@functools.cache
def _gpu(index: int) -> Device:
    return Device(f"cuda:{index}")


def module(array: Array) -> ModuleType:
    """The array module of an array: ``numpy``, ``cupy``, or NumPy on the device "emulated"."""
    if isinstance(array, EmulatedArray):
        return emulated_numpy
    return numpy if isinstance(array, numpy.ndarray) else cupy()


def is_array(value: object) -> bool:
    """Whether ``value`` is a NumPy or CuPy array."""
    return isinstance(value, numpy.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def empty(shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
    """An uninitialised array on ``device``."""
    if device.type == "cpu":
        return numpy.empty(shape, dtype)
    if device.type == "emulated":
        return EmulatedArray(shape, dtype)
    xp = cupy()
    with xp.cuda.Device(device.index):
        return xp.empty(shape, dtype)


def empty_on_first_touch(shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
    """An array that takes room only once it is touched, where the device can do that: a card by managed memory."""
    if device.type != "cuda":
        return empty(shape, dtype, device)  # the system gives pages out as they are touched
    xp = cupy()
    with xp.cuda.Device(device.index):
        try:
            memory = xp.cuda.malloc_managed(max(1, math.prod(shape)) * numpy.dtype(dtype).itemsize)
        except xp.cuda.runtime.CUDARuntimeError:  # a card, or a share of one, without managed memory
            return xp.empty(shape, dtype)
        return xp.ndarray(shape, dtype, memory)


def move(array: Array, device: Device) -> Array:
    """``array`` on ``device``: itself when it is there already, a copy otherwise.

    Raises:
        GpunetError: the copy is on the CPU, and a check of :func:`after_wait` fails.
    """
    source = of(array)
    if source == device:
        return array
    if device.type == "cpu":
        copy = array.get()
        _check_after_wait(source)
        return copy
    if source.type == "emulated" or (device.type == "emulated" and source.type == "cuda"):
        array = array.get()
    if device.type == "emulated":
        return numpy.array(array).view(EmulatedArray)
    xp = cupy()
    with xp.cuda.Device(device.index):
        return xp.asarray(array)


def to_host(array: Array) -> Any:
    """``array`` on the CPU, see :func:`move`; a NumPy array or scalar is returned as it is."""
    return array if type(array) is numpy.ndarray or isinstance(array, numpy.generic) else move(array, CPU)


def synchronize(device: str | Device | None = None) -> None:
    """Wait until all launches on ``device`` (default: the default device) have finished.  Nothing to do on the CPU.

    Raises:
        GpunetError: a check of :func:`after_wait` fails.
    """
    target = default_device() if device is None else Device(device)
    if target.type == "cuda":
        with cupy().cuda.Device(target.index):
            cupy().cuda.get_current_stream().synchronize()
    _check_after_wait(target)


_checks: list[Callable[[Device], None]] = []


def after_wait(check: Callable[[Device], None]) -> Callable[[Device], None]:
    """Decorator: call ``check(device)`` each time that the host has read from ``device`` or synchronized it.

    There kernels cannot raise errors, and no launch waits; the check raises what they left in device memory.
    """
    _checks.append(check)
    return check


def _check_after_wait(device: Device) -> None:
    for check in _checks:
        check(device)


def record_cuda_graph(run: Callable[[], None], device: Device) -> Callable[[], None]:
    """What ``run`` launches on a card, as one CUDA graph: the result launches it on the current stream.

    ``run`` is called once and computes nothing.  It must not wait for the card, nor copy between card and host.

    Raises:
        CaptureError: it does, or CuPy refuses to record what it does; the message has CuPy's reason.
    """
    xp = cupy()
    # Work space that CuPy's own functions take while recording is part of the graph for good: nobody else may get it.
    pool = xp.cuda.MemoryPool()
    with xp.cuda.Device(device.index):
        stream = xp.cuda.Stream(non_blocking=True)
        with xp.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            try:
                run()
                recorded = stream.end_capture()
            except BaseException as error:
                with contextlib.suppress(Exception):  # of a capture that what went wrong has ended
                    stream.end_capture()
                if isinstance(error, Exception):
                    raise CaptureError(f"a CUDA graph cannot be made of these launches: {error}") from error
                raise

    def launch(pool: Any = pool) -> None:
        with xp.cuda.Device(device.index):
            recorded.launch()

    return launch


def on_device_of(array: Array) -> AbstractContextManager[Any]:
    """Meanwhile the card of an array is CuPy's current one, as its functions want it; nothing for other arrays."""
    return _ANYWHERE if isinstance(array, numpy.ndarray) else array.device


_ANYWHERE = contextlib.nullcontext()


def stream_pointer(device: Device) -> int:
    """Address of the stream that launches on ``device`` go to; 0 where launches run at once."""
    if device.type != "cuda":
        return 0
    return int(cupy().cuda.get_current_stream(device.index).ptr)


class LaunchTarget(NamedTuple):
    """Where launches go: a device, and of a card the stream."""

    device: Device
    stream: int  # its address
    thread: int  # where that stands for another stream in each thread, which one; else 0


def launch_target(device: Device) -> LaunchTarget:
    """Where launches on ``device`` go at present."""
    stream = stream_pointer(device)
    return LaunchTarget(device, stream, threading.get_ident() if stream == _PER_THREAD else 0)


_PER_THREAD = 2  # cudaStreamPerThread


def stream(device: Device) -> Any:
    """The stream that launches on a card go to, which keeps its address valid; None on other devices."""
    return cupy().cuda.get_current_stream(device.index) if device.type == "cuda" else None


@contextlib.contextmanager
def stream_guard(device: Device, stream: Any) -> Iterator[None]:
    """Meanwhile a card is the current one and launches go to ``stream``; what is current otherwise goes on behind them."""
    if device.type != "cuda":
        yield
        return
    xp = cupy()
    with xp.cuda.Device(device.index):
        here = xp.cuda.get_current_stream()
        if here.ptr == stream.ptr:
            yield
            return
        with stream:
            try:
                yield
            finally:
                here.wait_event(stream.record())


def pointer(array: Array) -> int:
    """Address of an array's first element."""
    return int(array.ctypes.data if isinstance(array, numpy.ndarray) else array.data.ptr)


def strided_view(owner: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """An array on the memory of another one; offset and strides in bytes."""
    if isinstance(owner, numpy.ndarray):
        return numpy.ndarray(shape, dtype, owner, offset, strides).view(type(owner))
    return gpu_view_without_owner(owner, offset, shape, strides, dtype)


def gpu_view_without_owner(owner: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """An array of a card on the memory of another one, without a reference to that one; offset and strides in bytes."""
    xp, memory = cupy(), owner.data.mem
    pointer = xp.cuda.MemoryPointer(memory, owner.data.ptr - memory.ptr + offset)
    return xp.ndarray(shape, dtype, pointer, strides)
