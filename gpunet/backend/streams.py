"""Streams and events of a GPU; on a machine without one they do nothing, and events measure the time of the host."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Device, cupy
from gpunet.backend.gpus import is_available
from gpunet.errors import ArgumentError, DeviceError

__all__ = [
    "Event", "ExternalStream", "Stream", "StreamContext", "current_stream", "default_stream", "get_stream_from_external",
    "get_sync_debug_mode", "is_current_stream_capturing", "set_stream", "set_sync_debug_mode", "stream",
]  # fmt: skip


class Stream:
    """A queue of launches on a GPU; ``with gpunet.cuda.stream(s):`` launches on it.

    Args:
        device: a GPU; the current one if None.
        priority: lower numbers are more urgent.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _stream: Any = None) -> None:
        is_gpu = is_available() and (device is None or Device(device).type == "cuda")
        self.device = Device("cuda" if device is None else device) if is_gpu else devices.CPU
        if self.device.type == "cuda" and _stream is None:
            with cupy().cuda.Device(self.device.index):
                _stream = cupy().cuda.Stream(non_blocking=True, priority=priority)
        self._stream = _stream
        self._blocks: list[AbstractContextManager[None]] = []  # those of ``with`` that are open

    def __enter__(self) -> Stream:
        block = stream(self)
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._blocks.pop().__exit__(*exception)

    @property
    def device_index(self) -> int:
        """The number of the GPU; -1 without one."""
        return -1 if self.device.index is None else int(self.device.index)

    @property
    def cuda_stream(self) -> int:
        """The address of the stream; 0 without a GPU."""
        return 0 if self._stream is None else int(self._stream.ptr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.cuda_stream) == (other.device, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self.device, self.cuda_stream))

    def synchronize(self) -> None:
        """Wait until all launches on the stream have finished."""
        if self._stream is not None:
            with devices.stream_guard(self.device, self._stream):
                devices.synchronize(self.device)

    def query(self) -> bool:
        """Return whether all launches on the stream have finished."""
        return self._stream is None or bool(self._stream.done)

    def wait_stream(self, stream: Stream) -> None:
        """Let later launches on this stream wait for those on another that are queued now."""
        self.wait_event(stream.record_event())

    def wait_event(self, event: Event) -> None:
        """Let later launches on this stream wait for an event."""
        if self._stream is not None and event._event is not None:
            self._stream.wait_event(event._event)

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event, a new one if None, and return it."""
        event = Event() if event is None else event
        event.record(self)
        return event


def current_stream(device: Any = None) -> Stream:
    """Return the stream on which this thread launches on a GPU."""
    if not is_available():
        return Stream()
    gpu = Device("cuda" if device is None else device)
    return Stream(gpu, _stream=devices.stream(gpu))


def default_stream(device: Any = None) -> Stream:
    """Return the stream of a GPU on which all threads launch at first."""
    return Stream(device, _stream=cupy().cuda.Stream.null if is_available() else None)


class StreamContext:
    """Context manager: launch on a stream inside the block; at its end the stream of before waits for those launches.

    Args:
        stream: None does nothing.
    """

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self._guards: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        chosen = self.stream
        is_stream = chosen is not None and chosen._stream is not None
        guard: Any = devices.stream_guard(chosen.device, chosen._stream) if is_stream and chosen else contextlib.nullcontext()
        guard.__enter__()
        self._guards.append(guard)

    def __exit__(self, *exception: Any) -> None:
        self._guards.pop().__exit__(*exception)


def stream(stream: Stream | None) -> StreamContext:
    """Return a :class:`StreamContext`: ``with gpunet.cuda.stream(s):`` launches on it."""
    return StreamContext(stream)


def set_stream(stream: Stream | None) -> None:
    """Launch on ``stream`` in this thread from now on; its launches wait for those that are queued now.  None does nothing."""
    if stream is not None and stream._stream is not None:
        with cupy().cuda.Device(stream.device.index):
            stream._stream.wait_event(cupy().cuda.get_current_stream().record())
            stream._stream.use()


class _Foreign:
    """A stream of another library, as CuPy asks for it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


class ExternalStream(Stream):
    """A stream of another library, which must live as long as this object.

    Args:
        stream_ptr: its address.
        device: the GPU of the stream; the current one if None.
    """

    def __init__(self, stream_ptr: int, device: Any = None) -> None:
        found = None
        if is_available():
            with cupy().cuda.Device(Device("cuda" if device is None else device).index):
                kind = cupy().cuda.Stream
                found = kind.from_external(_Foreign(int(stream_ptr)))
        super().__init__(device, _stream=found)


def get_stream_from_external(data_ptr: int, device: Any = None) -> ExternalStream:
    """Return the stream at an address, see :class:`ExternalStream`."""
    return ExternalStream(data_ptr, device)


def is_current_stream_capturing() -> bool:
    """Return whether the launches of this thread are recorded as a CUDA graph."""
    if not is_available():
        return False
    return bool(devices.stream(Device("cuda")).is_capturing())


def set_sync_debug_mode(debug_mode: int | str) -> None:
    """Warn or raise when the host reads a value of a GPU, which waits for all launches.

    Args:
        debug_mode: 0 or "default", 1 or "warn", 2 or "error".

    Raises:
        ArgumentError: another value.
    """
    words = ("default", "warn", "error")
    known = {word: number for number, word in enumerate(words)} | {n: n for n in range(len(words))}
    if isinstance(debug_mode, bool) or not isinstance(debug_mode, (int, str)) or debug_mode not in known:
        raise ArgumentError(f"set_sync_debug_mode({debug_mode!r}): expected 0, 1, 2, 'default', 'warn' or 'error'")
    devices.read_debug_mode[0] = known[debug_mode]


def get_sync_debug_mode() -> int:
    """Return the number of the mode of :func:`set_sync_debug_mode`, 0 at first."""
    return devices.read_debug_mode[0]


class Event:
    """A mark in a stream, which the host or another stream can wait for, and whose time can be measured.

    Without a GPU, an event is the time at which it is recorded.

    Args:
        enable_timing: whether :meth:`elapsed_time` may be called.
        blocking: whether the host sleeps while it waits.
        interprocess: False; events are not shared with other processes.

    Raises:
        ArgumentError: interprocess is true.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise ArgumentError("Event: interprocess=True; expected False: events are not shared with other processes")
        self.enable_timing, self._blocking = bool(enable_timing), bool(blocking)
        self._event: Any = None
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Set the mark behind all launches that are queued on ``stream``, or on the current one, now."""
        if not is_available():
            self._time = time.perf_counter()
            return
        on = current_stream() if stream is None else stream
        with cupy().cuda.Device(on.device.index):
            self._event = cupy().cuda.Event(block=self._blocking, disable_timing=not self.enable_timing)
            self._event.record(on._stream)

    def synchronize(self) -> None:
        """Wait until the stream has reached the mark."""
        if self._event is not None:
            self._event.synchronize()

    def query(self) -> bool:
        """Return whether the stream has reached the mark."""
        return self._event is None or bool(self._event.done)

    def wait(self, stream: Stream | None = None) -> None:
        """Let later launches on ``stream``, or on the current one, wait for the mark."""
        (current_stream() if stream is None else stream).wait_event(self)

    def elapsed_time(self, end_event: Event) -> float:
        """Return the milliseconds from this event to another; both must have been reached.

        Raises:
            DeviceError: an event was not recorded, or without ``enable_timing``.
        """
        for name, event in (("this event", self), ("end_event", end_event)):
            if not event.enable_timing:
                raise DeviceError(f"elapsed_time: {name} was made without enable_timing=True")
            if event._event is None and event._time is None:
                raise DeviceError(f"elapsed_time: {name} was not recorded; call record() first")
        if self._event is None or end_event._event is None:
            assert self._time is not None and end_event._time is not None
            return 1e3 * (end_event._time - self._time)
        return float(cupy().cuda.get_elapsed_time(self._event, end_event._event))
