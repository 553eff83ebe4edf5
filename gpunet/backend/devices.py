"""Devices and the arrays on them.  The only module that imports CuPy, and it does so lazily.

The type of an array determines its device: ``numpy.ndarray`` is the CPU, ``cupy.ndarray`` a CUDA device, and
:class:`~gpunet.backend.emulated_array.EmulatedArray` the device "emulated", where launches run the CUDA sources on the CPU.
So a kernel needs no device argument, and NumPy and CuPy arrays are used as they are.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NamedTuple

import numpy

from gpunet.backend import cupy_functions, dtypes
from gpunet.backend.emulated_array import EmulatedArray, emulated_copy, emulated_numpy
from gpunet.backend.launchers import local_rank
from gpunet.errors import CaptureError, DeviceError, DtypeError, MissingDependencyError, OutOfMemoryError

__all__ = ["cuda_status", "default_device", "device", "set_default_device"]

Array = Any  # numpy.ndarray, EmulatedArray or cupy.ndarray; an annotation with cupy.ndarray would import CuPy


class CudaStatus(NamedTuple):
    """Whether CUDA can be used on this machine, and why not."""

    state: str  # "not installed" | "no driver" | "no GPU" | "ready"
    detail: str  # a sentence for messages
    advice: str  # how to fix it; empty when ready

    @property
    def ready(self) -> bool:
        return self.state == "ready"


_INSTALL = "install gpunet with CUDA support: pip install 'gpunet[cuda13]' (driver 580 or newer) or 'gpunet[cuda12]'"


@functools.cache
def cuda_status() -> CudaStatus:
    """Return the state of CUDA on this machine; cached for the process."""
    if importlib.util.find_spec("cupy") is None:
        return CudaStatus("not installed", "CuPy is not installed", _INSTALL)
    try:
        import cupy
    except Exception as error:  # a broken installation can raise anything, and a CPU run must still work
        return CudaStatus("not installed", f"CuPy is installed but cannot be imported: {error}", _INSTALL)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return CudaStatus(
            "no driver",
            f"CuPy {cupy.__version__} is installed, but no CUDA driver was found: {error}",
            "install NVIDIA's driver, or make it visible here (in a container: --gpus all)",
        )
    if count == 0:
        return CudaStatus(
            "no GPU",
            f"CuPy {cupy.__version__} and a driver are installed, but no NVIDIA GPU is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    return CudaStatus("ready", f"CuPy {cupy.__version__}, {count} GPU(s)", "")


@functools.cache
def cupy() -> ModuleType:
    """Import and return CuPy.

    Raises:
        DeviceError: CUDA is not ready; the message says what is missing and what to install.
    """
    status = cuda_status()
    if not status.ready:
        raise DeviceError(f"CUDA was requested, but {status.detail}. To use it, {status.advice}. Or use device='cpu'.")
    import cupy

    return cupy


class Device(contextlib.ContextDecorator):
    """A device: ``Device("cpu")``, ``Device("cuda")``, ``Device("cuda:1")`` or ``Device("cuda", 1)``, ``Device("emulated")``,
    ``Device("auto")``.

    "auto" is "cuda" if CUDA is ready, else "cpu".  "cuda" means the current GPU of the thread, until ``cuda.set_device`` changes it
    "cuda:0", or of several processes on a machine the one with the process's rank there; a number means that GPU.
    "emulated" is for tests: it runs the CUDA sources on the CPU, thread by thread, and can check them (see
    :mod:`gpunet.emulator`).

    As a context manager or decorator, it is the default device of this thread inside the block.

    Attributes:
        type: "cpu", "cuda" or "emulated".
        index: the number of the GPU; None for other devices.

    Raises:
        DeviceError: the name is unknown, or the CUDA device does not exist.
    """

    __slots__ = ("index", "type")
    type: str
    index: Any  # int or None; callers on the path of a GPU know that it is an int

    def __init__(self, type: str | int | Device = "auto", index: int | None = None) -> None:
        if isinstance(type, Device):
            if index is not None:
                raise DeviceError(f"device({type!r}, {index!r}): the device has an index; pass a name such as 'cuda' with index")
            self.type, self.index = type.type, type.index
            return
        kind, number = _parse_device(type, index)
        if kind == "auto" and number is None:
            kind = "cuda" if cuda_status().ready else "cpu"
        if kind not in _KINDS or (kind != "cuda" and number not in (None, 0)):
            written = repr(type) if index is None else f"{type!r}, {index!r}"
            raise DeviceError(f"unknown device {written}: expected 'cpu', 'cuda', 'cuda:N', 'emulated' or 'auto'")
        if kind == "cuda":
            count = cupy().cuda.runtime.getDeviceCount()
            number = current_gpu() % count if number is None else number
            if number >= count:
                raise DeviceError(f"device 'cuda:{number}' does not exist: {count} GPU(s) are visible, the first is 'cuda:0'")
        self.type, self.index = kind, number if kind == "cuda" else None

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + (f", index={self.index})" if self.type == "cuda" else ")")

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.type == "cuda" else self.type

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):  # also of a device that does not exist here
            kind, number = _parse_device(other, None)
            if kind == "auto":
                return number is None and self == Device("auto")
            return (kind, number or 0) == (self.type, self.index or 0)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __enter__(self) -> Device:
        _contexts.devices.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _contexts.devices.pop()


def _parse_device(name: Any, index: Any) -> tuple[str, int | None]:
    """Return the kind and the number in the name of a device; the kind is empty if it is none."""
    if isinstance(name, int) and not isinstance(name, bool):
        name, index = ("cuda", name) if index is None else ("", None)
    kind, colon, digits = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon:
        is_number = index is None or (isinstance(index, (int, numpy.integer)) and not isinstance(index, bool) and index >= 0)
        return (kind, None if index is None else int(index)) if is_number else ("", None)
    return (kind, int(digits)) if digits.isdecimal() and index is None else ("", None)


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.devices: list[Device] = []
        self.gpu: int | None = None  # the index of the GPU that "cuda" means; None: that of the process


def current_gpu() -> int:
    """Return the index of the GPU that "cuda" means in this thread; counted on from the first one beyond the last one."""
    return (local_rank() or 0) if _contexts.gpu is None else _contexts.gpu


def set_current_gpu(index: int) -> None:
    """Set the index of the GPU that "cuda" means in this thread."""
    _contexts.gpu = index


_contexts = _Contexts()  # the devices whose blocks this thread is in
device = Device  # PyTorch's name

_KINDS = ("cpu", "cuda", "emulated")
CPU = Device("cpu")
_EMULATED = Device("emulated")

_process_default: Device | None = None


def set_default_device(device: str | Device | None) -> None:
    """Create new tensors on ``device`` from now on; ``None`` goes back to ``GPUNET_DEVICE`` or "cpu".

    As in PyTorch the default is the CPU, even where a GPU is ready; the command line defaults to "auto".
    """
    global _process_default
    _process_default = None if device is None else Device(device)


def default_device() -> Device:
    """Return the device for new tensors: ``with device:``, else ``set_default_device``, else ``GPUNET_DEVICE``, else the CPU."""
    if _contexts.devices:
        return _contexts.devices[-1]
    if _process_default is not None:
        return _process_default
    name = os.environ.get("GPUNET_DEVICE")
    return CPU if not name else Device(name)


def of(array: Array) -> Device:
    """Return the device of an array."""
    if isinstance(array, numpy.ndarray):
        return _EMULATED if isinstance(array, EmulatedArray) else CPU
    return _gpu(array.device.id)


@functools.cache
def _gpu(index: int) -> Device:
    return Device(f"cuda:{index}")


# ---- CuPy launches and allocates on the current device, wherever its arguments are ----------------------------------


class _CupyOnGpu(ModuleType):
    """CuPy, each of whose functions runs with one GPU as the current device and computes what NumPy's does."""

    def __init__(self, index: int) -> None:
        super().__init__(f"cupy on cuda:{index}")
        self._device = cupy().cuda.Device(index)

    def __getattr__(self, name: str) -> Any:
        found, gpu = cupy_functions.replacement(cupy(), name) or getattr(cupy(), name), self._device
        if isinstance(found, type) or not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            with gpu:
                try:
                    return found(*arguments, **options)
                except MemoryError as error:
                    raise out_of_memory(error, Device("cuda", gpu.id)) from error

        setattr(self, name, call)
        return call


_cupy_on_gpu = functools.cache(_CupyOnGpu)


def module(array: Array) -> ModuleType:
    """Return the array module for the device of an array: NumPy, CuPy whose functions run on that GPU, or the emulated NumPy."""
    if isinstance(array, EmulatedArray):
        return emulated_numpy
    return numpy if isinstance(array, numpy.ndarray) else _cupy_on_gpu(array.device.id)


def on_device_of(array: Array) -> AbstractContextManager[Any]:
    """Make the GPU of an array the current device, for code that calls methods and operators of arrays."""
    return _ANYWHERE if isinstance(array, numpy.ndarray) else array.device


_ANYWHERE = contextlib.nullcontext()


def copy(array: Array) -> Array:
    """Return a C-contiguous copy on the same device."""
    with on_device_of(array):
        return array.copy()


def cast(array: Array, dtype: Any) -> Array:
    """Return a C-contiguous copy with this dtype, on the same device.

    Raises:
        DtypeError: the array is complex, and the dtype is real.
    """
    if dtypes.discards_imaginary(array.dtype, dtype):
        raise DtypeError(f"complex numbers for a tensor of {dtype}; expected dtype=gpunet.complex64, or the real part of the data")
    with on_device_of(array):
        return array.astype(dtype, order="C", copy=True)


def assign(target: Array, source: Any, index: Any = ...) -> None:
    """Assign ``target[index] = source``; the source is an array on the same device or a number."""
    if isinstance(target, numpy.ndarray):
        target[index] = source
    else:
        with target.device:
            cupy_functions.assign(cupy(), target, source, index)


def take(array: Array, index: Any) -> Array:
    """Return ``array[index]``."""
    with on_device_of(array):
        return array[index]


# ---- allocation, copies between devices, streams --------------------------------------------------------------------


def is_array(value: object) -> bool:
    """Return whether ``value`` is a NumPy or CuPy array."""
    return isinstance(value, numpy.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def empty(shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
    """Return an uninitialised array on ``device``."""
    if device.type == "cpu":
        return numpy.empty(shape, dtype)
    if device.type == "emulated":
        return EmulatedArray(shape, dtype)
    xp = cupy()
    with xp.cuda.Device(device.index):
        try:
            return xp.empty(shape, dtype)
        except MemoryError as error:
            raise out_of_memory(error, device) from error


def out_of_memory(error: MemoryError, device: Device) -> OutOfMemoryError:
    """Return the error of a failed allocation on a GPU, in the words of the library."""
    return OutOfMemoryError(f"{device} is out of memory: {error}; use a smaller batch, or free tensors and call cuda.empty_cache()")


def zeros(shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
    """Return an array of zeros on ``device``."""
    array = empty(shape, dtype, device)
    assign(array, 0)
    return array


def empty_on_first_touch(shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
    """Return an uninitialised array whose memory is committed at first access, where the device supports it.

    On CUDA this is managed memory; GPUs without it get an ordinary array.
    """
    if device.type != "cuda":
        return empty(shape, dtype, device)  # the operating system commits pages at first access
    xp = cupy()
    with xp.cuda.Device(device.index):
        try:
            memory = xp.cuda.malloc_managed(max(1, math.prod(shape)) * numpy.dtype(dtype).itemsize)
        except xp.cuda.runtime.CUDARuntimeError:  # a GPU or MIG instance without managed memory
            return xp.empty(shape, dtype)
        return xp.ndarray(shape, dtype, memory)


def move(array: Array, device: Device) -> Array:
    """Return ``array`` if it is on ``device``, else a copy of it there.

    Raises:
        GpunetError: the copy is on the CPU, and a check of :func:`at_wait` fails.
    """
    source = of(array)
    if source == device:
        return array
    if device.type == "cpu":
        return _read(array, source)
    if source.type == "emulated" or device.type == "emulated":
        with on_device_of(array):  # ordered behind the current stream of its own device
            array = array if source.type == "cpu" else array.get()
    if device.type == "emulated":
        return emulated_copy(array)
    xp = cupy()
    with xp.cuda.Device(device.index):
        if isinstance(array, numpy.ndarray) and array.ndim == 0:
            number = xp.empty((), array.dtype)
            assign(number, array[()])
            return number
        return xp.asarray(array)


def _read(array: Array, device: Device) -> numpy.ndarray:
    """Return a copy of an array of ``device`` on the CPU; the host waits once, for it and for what the checks copy."""
    with on_device_of(array):  # ordered behind the current stream of its own device
        finish = _start_checks(device)
        if device.type == "cuda":
            if read_debug_mode[0]:
                _report_read()
            copied = array.get(blocking=False)
            cupy().cuda.get_current_stream().synchronize()
        else:
            copied = array.get()
        finish()
    return copied


#: 0; 1 to warn and 2 to raise when the host reads from a GPU: see ``cuda.set_sync_debug_mode``.
read_debug_mode = [0]


def _report_read() -> None:
    message = "the host reads a value of a GPU, and waits for all launches before it (cuda.set_sync_debug_mode)"
    if read_debug_mode[0] == 2:
        raise DeviceError(message)
    warnings.warn(message, stacklevel=2)


def start_read(array: Array) -> Callable[[], numpy.ndarray]:
    """Start to copy a contiguous array to the CPU on the current stream of its device, which is the current device.

    Returns:
        A function that returns the copy, to be called when the host has waited for the stream.
    """
    if isinstance(array, numpy.ndarray):
        return lambda: array
    memory = cupy().cuda.alloc_pinned_memory(array.nbytes)  # a copy to other memory would wait
    array.data.copy_to_host_async(memory.ptr, array.nbytes)
    return lambda: numpy.frombuffer(memory, array.dtype, array.size).reshape(array.shape)


def to_host(array: Array) -> Any:
    """``array`` on the CPU, see :func:`move`; a NumPy array or scalar is returned as it is."""
    return array if type(array) is numpy.ndarray or isinstance(array, numpy.generic) else move(array, CPU)


def synchronize(device: str | Device | None = None) -> None:
    """Wait for all launches on the current stream of ``device`` (default: the default device); a no-op unless it is CUDA.

    Raises:
        GpunetError: a check of :func:`at_wait` fails.
    """
    target = default_device() if device is None else Device(device)
    if target.type == "cuda":
        with cupy().cuda.Device(target.index):
            finish = _start_checks(target)
            cupy().cuda.get_current_stream().synchronize()
            _free_dead_pools()
            finish()
    else:
        _start_checks(target)()


Check = Callable[[Device], Callable[[], None] | None]

_checks: list[Check] = []


def at_wait(check: Check) -> Check:
    """Decorator: call ``check(device)`` each time that the host is about to read from ``device`` or to synchronize it.

    There kernels cannot raise errors, and no launch waits.  The check starts to read what they left in device memory, see
    :func:`start_read`, and returns a function that raises it, which is called when the host has waited; or None.
    """
    _checks.append(check)
    return check


def _start_checks(device: Device) -> Callable[[], None]:
    """Start the checks of :func:`at_wait`; the device is the current one."""
    finishes = [finish for check in _checks if (finish := check(device)) is not None]

    def finish_all() -> None:
        for finish in finishes:
            finish()

    return finish_all


def record_cuda_graph(run: Callable[[], None], device: Device) -> Callable[[], None]:
    """Capture the launches of ``run`` as one CUDA graph; return a function that launches the graph on the current stream.

    ``run`` is called once, during stream capture, so its launches do not execute.  It must not synchronise with the GPU or
    copy between GPU and host.

    Raises:
        CaptureError: ``run`` did something that cannot be captured; the message contains CuPy's reason.
    """
    xp = cupy()
    _free_dead_pools()
    # The graph keeps using the workspaces that CuPy's functions allocate during capture, so it comes from a private pool.
    pool = xp.cuda.MemoryPool()
    with xp.cuda.Device(device.index):
        stream = xp.cuda.Stream(non_blocking=True)
        with xp.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            try:
                run()
                recorded = stream.end_capture()
            except BaseException as error:
                with contextlib.suppress(Exception):  # the error may have ended the capture already
                    stream.end_capture()
                pool.free_all_blocks()
                if isinstance(error, Exception):
                    raise CaptureError(f"these launches cannot be captured as a CUDA graph: {error}") from error
                raise

    def launch() -> None:
        with xp.cuda.Device(device.index):
            recorded.launch()

    # It keeps the pool alive, whose memory CuPy does not free when the pool dies.
    weakref.finalize(launch, _dead_pools.append, (pool, device.index)).atexit = False
    return launch


_dead_pools: list[tuple[Any, int]] = []  # of graphs that are gone, with the number of their GPU


def _free_dead_pools() -> None:
    """Free the memory of graphs that are gone: later than they go, because that may be while a stream is captured."""
    with contextlib.suppress(IndexError):
        while True:
            pool, index = _dead_pools.pop()
            with cupy().cuda.Device(index):
                pool.free_all_blocks()


def stream_pointer(device: Device) -> int:
    """Return the address of the current stream of ``device``; 0 if launches there are synchronous."""
    if device.type != "cuda":
        return 0
    return int(cupy().cuda.get_current_stream(device.index).ptr)


class LaunchTarget(NamedTuple):
    """A device and its current stream."""

    device: Device
    stream: int  # address; 0 unless the device is CUDA
    thread: int  # the thread's identifier if the stream is the per-thread default stream; else 0


def launch_target(device: Device) -> LaunchTarget:
    """Return the target that launches on ``device`` currently go to."""
    stream = stream_pointer(device)
    return LaunchTarget(device, stream, threading.get_ident() if stream == _PER_THREAD else 0)


_PER_THREAD = 2  # cudaStreamPerThread


def stream(device: Device) -> Any:
    """Return the current stream of a CUDA device, as an object that keeps the stream alive; None for other devices."""
    return cupy().cuda.get_current_stream(device.index) if device.type == "cuda" else None


@contextlib.contextmanager
def stream_guard(device: Device, stream: Any) -> Iterator[None]:
    """Make a CUDA device and ``stream`` current; on exit the previous stream waits for the work launched on ``stream``."""
    if device.type != "cuda":
        yield
        return
    xp = cupy()
    with xp.cuda.Device(device.index):
        previous = xp.cuda.get_current_stream()
        if previous.ptr == stream.ptr:
            yield
            return
        with stream:
            try:
                yield
            finally:
                previous.wait_event(stream.record())


@functools.cache
def has_cufft() -> bool:
    """Return whether CuPy finds cuFFT, which a slim installation lacks."""
    try:
        importlib.import_module("cupy.cuda.cufft")
    except ImportError:
        return False
    return True


@functools.cache
def nccl() -> ModuleType:
    """Return CuPy's module of NCCL.

    Raises:
        DeviceError: CUDA is not ready.
        MissingDependencyError: CuPy does not find NVIDIA's library.
    """
    major = cupy().cuda.runtime.runtimeGetVersion() // 1000
    with warnings.catch_warnings(action="ignore"):  # CuPy's own words, which the error replaces
        found = importlib.import_module("cupy.cuda.nccl")
    if not found.available:
        raise MissingDependencyError(f"CuPy does not find NVIDIA's library NCCL: pip install 'nvidia-nccl-cu{major}>=2.27.7'")
    return found


def from_dlpack(source: Any) -> Array:
    """Return an array that shares the memory of an object with ``__dlpack__``, by the library of its device."""
    is_on_gpu = int(source.__dlpack_device__()[0]) == 2  # kDLCUDA
    array: Array = (cupy() if is_on_gpu else numpy).from_dlpack(source)
    return array


def pointer(array: Array) -> int:
    """Return the address of an array's first element."""
    return int(array.ctypes.data if isinstance(array, numpy.ndarray) else array.data.ptr)


def strided_view(owner: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """Return a view of ``owner``'s memory; offset and strides in bytes."""
    if isinstance(owner, numpy.ndarray):
        return numpy.ndarray.__new__(type(owner), shape, dtype, owner, offset, strides)
    view = gpu_view_without_owner(owner, offset, shape, strides, dtype)
    _keep_owner(view, owner)
    return view


def real_view(array: Array) -> Array:
    """View a contiguous complex array as real numbers, the two parts side by side: (..., n) -> (..., 2 n), a number -> (2,)."""
    return array.reshape(array.shape or (1,)).view(dtypes.to_real(array.dtype))


def parts_of(array: Array) -> Array:
    """View a complex array of any strides as real numbers, the two parts in a new last dimension: (...) -> (..., 2)."""
    return array[..., None].view(dtypes.to_real(array.dtype))


def as_pairs(array: Array) -> Array:
    """Return an array (..., 2) whose pairs lie side by side in memory, each at a multiple of its size, else a contiguous copy."""
    size = array.itemsize
    if not array.size:
        return array.reshape(array.shape)  # with the strides of a contiguous one
    is_paired = array.strides[-1] == size and not any(s % (2 * size) for n, s in zip(array.shape[:-1], array.strides) if n > 1)
    return array if is_paired and pointer(array) % (2 * size) == 0 else module(array).ascontiguousarray(array)


def as_strided(array: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Return a view that begins at the first element of ``array``, with other strides, in bytes; its elements may overlap.

    Of a NumPy array in memory that is neither in C nor in Fortran order, return a view of a copy.
    """
    if not isinstance(array, numpy.ndarray):
        return strided_view(array, 0, shape, strides, array.dtype)
    owner: Any = array  # NumPy's own function returns an array whose base is no array, so that its owner is not found
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
    if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
        return numpy.lib.stride_tricks.as_strided(array, shape, strides, subok=True).copy()
    memory = owner if owner.flags.c_contiguous else owner.T
    return strided_view(memory, pointer(array) - pointer(memory), shape, strides, array.dtype)


#: of views of CuPy arrays that CuPy cannot make, by their ids: the arrays whose memory they have.  CuPy's own have a ``base``
owner_of_view: dict[int, Array] = {}


def _keep_owner(view: Array, owner: Array) -> None:
    """Remember the owner as long as the view lives."""
    owner_of_view[id(view)] = owner
    weakref.finalize(view, owner_of_view.pop, id(view)).atexit = False


def is_own(array: Array) -> bool:
    """Return whether an array is no view."""
    return array.base is None and id(array) not in owner_of_view


def owner_of(array: Array) -> Array:
    """Return the array at the root of ``array``'s views: arrays with one root may share memory, others do not.

    The memory of the root may belong to another object, such as a buffer or a file.
    """
    while True:
        base = array.base
        if base is None:
            base = owner_of_view.get(id(array)) if owner_of_view else None
        if base is None or not is_array(base):
            return array
        array = base


def gpu_view_without_owner(owner: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """Return a view of a CuPy array's memory that holds no reference to ``owner``; offset and strides in bytes."""
    xp, memory = cupy(), owner.data.mem
    pointer = xp.cuda.MemoryPointer(memory, owner.data.ptr - memory.ptr + offset)
    return xp.ndarray(shape, dtype, pointer, strides)
