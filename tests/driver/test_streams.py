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


def test_the_default_stream_and_blocking_streams_wait_for_each_other() -> None:
    run("""
    fill = kernel(FILL, "fill")
    def filled_by(stream, value):
        x = array(runtime.malloc(64), 16)
        with stream:
            fill((1,), (16,), (x, numpy.float32(value), numpy.int32(16)))
        return x
    blocking, other = Stream(), Stream(non_blocking=True)
    assert filled_by(blocking, 3).get().tolist() == [3.0] * 16

    x = filled_by(blocking, 4)
    other.wait_event(Stream.null.record())
    assert (x.get(stream=other) == 4).all()

    x = filled_by(Stream.null, 5)
    with blocking:
        y = x + 1
    assert (y.get(stream=blocking) == 6).all()
    """, "--lazy")  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--lazy"]])
def test_host_threads_share_a_stream(options: list[str]) -> None:
    """Work of a stream runs in its order, whichever thread waits for it; another stream waits for what a thread still runs."""
    run("""
    import time
    counts, errors = cupy.zeros(1024, "i4"), []
    def count():
        stream = Stream(non_blocking=True)
        for number in range(1, 41):
            counts.__iadd__(1)
            if counts.get().min() < number:
                errors.append(number)
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert errors == [] and set(counts.tolist()) == {160}

    producer, consumer = Stream(non_blocking=True), Stream(non_blocking=True)
    began, flag, seen = threading.Event(), [], []
    def slow(_):
        began.set()
        time.sleep(0.2)
        flag.append(1)
    def produce():
        producer.launch_host_func(slow, None)
        producer.synchronize()
    thread = threading.Thread(target=produce)
    thread.start()
    began.wait()
    consumer.wait_event(producer.record())
    consumer.launch_host_func(lambda _: seen.extend(flag), None)
    consumer.synchronize()
    thread.join()
    assert seen == [1]
    """, *options)  # fmt: skip


def test_work_behind_a_fault_never_runs() -> None:
    run("""
    fill = kernel(FILL, "fill")
    x = cupy.zeros(16, "f4")
    Stream.null.synchronize()
    fill((1,), (16,), (numpy.uint64(0), numpy.float32(3), numpy.int32(16)))
    fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
    with refuses("ILLEGAL_ADDRESS|IllegalAddress"):
        Stream.null.synchronize()
    driver.clear_faults()
    assert not x.get().any()
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


@pytest.mark.parametrize("waits", [False, True])
def test_each_host_thread_has_a_default_stream_of_its_own(waits: bool) -> None:
    run(f"waits = {waits}" + """
    fill = kernel(FILL, "fill")
    x = array(runtime.malloc(64), 16)
    def produce():
        with Stream.ptds:
            fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
            events.append(Stream.ptds.record())
    events = []
    thread = threading.Thread(target=produce)
    thread.start()
    thread.join()
    with Stream.ptds:
        if waits:
            Stream.ptds.wait_event(events[0])
        assert ((x.get() == 3).all()) == waits
    """.replace("\n    ", "\n"), "--lazy")  # fmt: skip


def test_synchronize_waits_for_the_current_gpu_and_all_its_streams() -> None:
    run("""
    import gpunet
    from gpunet import cuda
    cuda.set_device(1)
    for wait in (cuda.synchronize, gpunet.accelerator.synchronize):
        x = gpunet.ones(1 << 16, device="cuda")
        with cuda.stream(cuda.Stream()):
            y = x * 2
        z = x * 3
        before = driver.host_waits()  # those that found work left
        wait()
        waits = driver.host_waits()
        cuda.current_stream().synchronize()
        assert waits > before and driver.host_waits() == waits and y.device.index == 1
        with cuda.stream(cuda.Stream()):
            y = x * 2
        before = driver.host_waits()
        wait()
        assert driver.host_waits() > before
    """, "--devices", "2", "--lazy")
