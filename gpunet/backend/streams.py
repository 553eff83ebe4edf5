"""Streams and events of a GPU; on a machine without one they do nothing, and events measure the time of the host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Device, cupy
from gpunet.backend.gpus import is_available
from gpunet.errors import ArgumentError, DeviceError

__all__ = ["Event", "Stream", "current_stream", "default_stream", "stream"]


class Stream:
    """A queue of launches on a GPU; ``with gpunet.cuda.stream(s):`` launches on it.

    Args:
        device: a GPU; the current one if None.
        priority: lower numbers are more urgent.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _stream: Any = None) -> None:
        self.device = Device("cuda" if device is None else device) if is_available() else devices.CPU
        if self.device.type == "cuda" and _stream is None:
            with cupy().cuda.Device(self.device.index):
                _stream = cupy().cuda.Stream(non_blocking=True, priority=priority)
        self._stream = _stream

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


@contextlib.contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Launch on ``stream`` inside the block; at its end the stream of before waits for those launches.  None does nothing."""
    if stream is None or stream._stream is None:
        yield
        return
    with devices.stream_guard(stream.device, stream._stream):
        yield


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
