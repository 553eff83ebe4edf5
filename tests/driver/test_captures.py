"""Capture and graphs: what CUDA refuses, and what a graph does when it is launched."""

from __future__ import annotations

from tests.driver.processes import run


def test_a_graph_runs_when_it_is_launched() -> None:
    run("""
    x = cupy.zeros(8, "f4")
    stream = Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
        assert not x.get().any()
        graph.launch(), graph.launch()
        assert (x.get() == 2).all()
    """)


def test_a_freed_buffer_is_noticed_when_the_graph_is_launched() -> None:
    run("""
    fill = kernel(FILL, "fill")
    pointer = runtime.malloc(64)
    stream = Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        fill((1,), (16,), (array(pointer, 16), numpy.float32(3), numpy.int32(16)))
        graph = stream.end_capture()
        graph.launch()
        runtime.free(pointer)
        with refuses("cuGraphLaunch: kernel fill: .* that was freed"):
            graph.launch()
    """)


def test_forks_must_be_joined() -> None:
    run("""
    x = cupy.zeros(8, "f4")
    origin, fork = Stream(non_blocking=True), Stream(non_blocking=True)
    for joined in (True, False):
        with origin:
            origin.begin_capture()
            fork.wait_event(origin.record())
            with fork:
                x += 1
            if joined:
                origin.wait_event(fork.record())
                graph = origin.end_capture()
                graph.launch()
                assert (x.get() == 1).all()
            else:
                with refuses("cudaErrorStreamCaptureUnjoined.*a forked stream has work"):
                    origin.end_capture()
    """)


def test_a_missing_dependency_shows_in_lazy_mode() -> None:
    run("""
    fill = kernel(FILL, "fill")
    copy = kernel('extern "C" __global__ void copy(float* to, const float* from) { to[threadIdx.x] = from[threadIdx.x]; }', "copy")
    origin, fork = Stream(non_blocking=True), Stream(non_blocking=True)
    for ordered in (True, False):
        x, y = array(runtime.malloc(64), 16), array(runtime.malloc(64), 16)
        with origin:
            origin.begin_capture()
            begin = origin.record()
            fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
            fork.wait_event(origin.record() if ordered else begin)
            with fork:
                copy((1,), (16,), (y, x))
            origin.wait_event(fork.record())
            origin.end_capture().launch()
            assert (y.get() == 3).all() == ordered
    """, "--lazy")  # fmt: skip


def test_what_may_wait_invalidates_a_capture() -> None:
    run("""
    x = cupy.zeros(8, "f4")
    def captured(work, message, end="Invalidated.*" , mode=runtime.streamCaptureModeGlobal, non_blocking=True):
        stream = Stream(non_blocking=non_blocking)
        with stream:
            stream.begin_capture(mode)
            with refuses(message):
                work(stream)
            with refuses(end):
                stream.end_capture()
    captured(lambda stream: stream.synchronize(), "cudaErrorStreamCaptureUnsupported.*cuStreamSynchronize")
    captured(lambda stream: runtime.malloc(64), "cudaErrorStreamCaptureUnsupported.*cuMemAlloc")
    captured(lambda stream: runtime.deviceSynchronize(), "cudaErrorStreamCaptureUnsupported.*cuCtxSynchronize")
    captured(lambda stream: runtime.memcpy(x.data.ptr, x.data.ptr, 4, runtime.memcpyDefault), "StreamCaptureUnsupported.*cuMemcpy")
    captured(lambda stream: runtime.memsetAsync(x.data.ptr, 0, 4, 0), "cudaErrorStreamCaptureImplicit.*default stream waits",
             non_blocking=False)
    outside = Event()
    outside.record(Stream.null)
    captured(lambda stream: stream.wait_event(outside), "cudaErrorStreamCaptureIsolation.*recorded outside")
    with refuses("cudaErrorStreamCaptureUnsupported.*the default stream cannot be captured"):
        runtime.streamBeginCapture(0)
    """)
