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


def test_more_allocations_than_linux_has_maps() -> None:
    """Memory that was freed is noticed among 100,000 allocations, too, and freed memory takes no maps."""
    run("""
    def maps():
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)
    fill = kernel(FILL, "fill")
    fill((1,), (1,), (array(runtime.malloc(4), 1), numpy.float32(3), numpy.int32(1)))
    before = maps()
    for _ in range(20_000):
        runtime.free(runtime.malloc(64))
    assert maps() < before + 100
    pointers = [runtime.malloc(64) for _ in range(100_000)]
    assert maps() < 20_000
    for pointer in pointers[::9_999]:
        x = array(pointer, 16)
        fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
        assert x.tolist() == [3.0] * 16
        runtime.free(pointer)
        with refuses("kernel fill: .* byte 0 of an allocation of 64 bytes on device 0 that was freed"):
            fill((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
        driver.clear_faults()
    noticed = set(pointers[::9_999])
    left = [pointer for pointer in pointers if pointer not in noticed]
    for pointer in left[::2] + left[1::2]:  # first as many holes as there can be, more than Linux has maps
        runtime.free(pointer)
    assert set(array(runtime.malloc(64), 64, "u1").tolist()) == {0xa5}
    """)


def test_freeing_waits_for_the_device_that_owns_the_memory() -> None:
    run("""
    for allocate in (runtime.malloc, runtime.mallocManaged, lambda bytes: runtime.hostAlloc(bytes, 0)):
        with Device(1):
            x = array(allocate(64), 16)
            kernel(FILL, "fill")((1,), (16,), (x, numpy.float32(3), numpy.int32(16)))
        (runtime.free if allocate in (runtime.malloc, runtime.mallocManaged) else runtime.freeHost)(x.data.ptr)
        with Device(1):
            Stream.null.synchronize()
    """, "--devices", "2", "--lazy")  # fmt: skip
