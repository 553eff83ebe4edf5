"""Memory of the stand-in driver: wrong uses are refused or end the work that makes them."""

from __future__ import annotations

from tests.driver.processes import run


def test_freed_memory_is_noticed_in_kernels_and_copies() -> None:
    run("""
    fill = kernel(FILL, "fill")
    kept, freed = array(runtime.malloc(64), 16), array(runtime.malloc(64), 16)
    fill((1,), (32,), (kept, numpy.float32(3), numpy.int32(16)))
    assert kept.get().tolist() == [3.0] * 16
    runtime.free(freed.data.ptr)
    with refuses("ILLEGAL_ADDRESS.*kernel fill: .* byte 0 of an allocation of 64 bytes on device 0 that was freed, at .*cu:3"):
        fill((1,), (32,), (freed, numpy.float32(3), numpy.int32(16)))
    with refuses("an earlier error left device 0 unusable: cuLaunchKernel: kernel fill"):
        kept.get()
    driver.clear_faults()
    with refuses("InvalidValue.*the source .* that was freed"):
        freed.get()
    """)


def test_wrong_frees_are_refused() -> None:
    run("""
    pointer = runtime.malloc(64)
    with refuses("cuMemFree.*byte 4 of an allocation of 64 bytes.*expected the begin"):
        runtime.free(pointer + 4)
    runtime.free(pointer)
    with refuses("cuMemFree.*that was freed"):
        runtime.free(pointer)
    pinned = runtime.hostAlloc(64, 0)
    with refuses("cuMemFree.*use cuMemFreeHost"):
        runtime.free(pinned)
    with refuses("cuMemFreeHost.*expected pinned host memory"):
        runtime.freeHost(12345)
    runtime.freeHost(pinned)
    """)


def test_memory_runs_out_and_comes_back() -> None:
    run("""
    free, total = runtime.memGetInfo()
    pointer = runtime.malloc(1 << 30)
    assert runtime.memGetInfo() == (free - (1 << 30), total)
    with refuses("cudaErrorMemoryAllocation.*device 0 has .* left"):
        runtime.malloc(total)
    runtime.free(pointer)
    assert runtime.memGetInfo() == (free, total)
    """)


def test_new_memory_is_poisoned() -> None:
    run("""
    assert set(array(runtime.malloc(64), 64, "u1").tolist()) == {0xa5}
    """)


def test_an_overrun_beyond_the_last_page_is_noticed() -> None:
    run("""
    fill = kernel(FILL, "fill")
    x = array(runtime.malloc(1024), 256)
    with refuses("writes to .*, which is 0 bytes past the end of an allocation of 1024 bytes"):
        fill((2,), (256,), (x, numpy.float32(3), numpy.int32(257)))
    """)
