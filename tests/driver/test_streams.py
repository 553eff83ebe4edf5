"""Streams and events: in lazy mode work runs when something waits for it, so a missing wait shows."""

from __future__ import annotations

import pytest

from tests.driver.processes import run

_TWO_STREAMS = """
fill = kernel(FILL, "fill")
copy = kernel('extern "C" __global__ void copy(float* to, const float* from) { to[threadIdx.x] = from[threadIdx.x]; }', "copy")
producer, consumer = Stream(non_blocking=True), Stream(non_blocking=True)
x, y = array(runtime.malloc(64), 16), array(runtime.malloc(64), 16)
with producer:
    fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
if wait:
    consumer.wait_event(producer.record())
with consumer:
    copy((1,), (16,), (y, x))
consumer.synchronize()
with consumer:
    values = y.get()
if sees_it:
    assert values.tolist() == [3.0] * 16
else:
    assert set(values.view("u1").tolist()) == {0xa5}
"""


@pytest.mark.parametrize(
    "wait, options, sees_it", [(True, ["--lazy"], True), (False, ["--lazy"], False), (False, [], True)]
)
def test_a_missing_wait_reads_old_memory_in_lazy_mode(wait: bool, options: list[str], sees_it: bool) -> None:
    run(f"wait, sees_it = {wait}, {sees_it}{_TWO_STREAMS}", *options)


def test_pinned_memory_is_written_when_the_stream_is_waited_for() -> None:
    run("""
    x = cupy.full(16, 3, "f4")
    pinned = numpy.frombuffer(cupy.cuda.alloc_pinned_memory(64), "f4", 16)
    pinned[:] = 0
    stream = Stream(non_blocking=True)
    stream.wait_event(Stream.null.record())
    runtime.memcpyAsync(pinned.ctypes.data, x.data.ptr, 64, runtime.memcpyDeviceToHost, stream.ptr)
    assert not pinned.any()
    stream.synchronize()
    assert (pinned == 3).all()
    """, "--lazy")  # fmt: skip


def test_the_default_stream_waits_for_blocking_streams() -> None:
    run("""
    fill = kernel(FILL, "fill")
    x = array(runtime.malloc(64), 16)
    with Stream():
        fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
    assert x.get().tolist() == [3.0] * 16
    """, "--lazy")  # fmt: skip


def test_handles_are_checked() -> None:
    run("""
    stream, event = runtime.streamCreate(), runtime.eventCreate()
    runtime.eventRecord(event, stream)
    runtime.streamDestroy(stream)
    with refuses("cudaErrorInvalidResourceHandle.*is no stream, or was destroyed"):
        runtime.eventRecord(event, stream)
    runtime.eventDestroy(event)
    with refuses("cudaErrorInvalidResourceHandle.*is no event, or was destroyed"):
        runtime.eventSynchronize(event)
    first, second = Event(), Event(disable_timing=True)
    first.record(), second.record()
    with refuses("cuEventElapsedTime.*created without timing"):
        cupy.cuda.get_elapsed_time(first, second)
    """)
