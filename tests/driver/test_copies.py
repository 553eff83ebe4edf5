"""Copies and memset of the stand-in driver refuse ranges that are not those of an allocation."""

from __future__ import annotations

from tests.driver.processes import run


def test_ranges_are_checked() -> None:
    run("""
    small, large = runtime.malloc(32), runtime.malloc(64)
    host = numpy.zeros(16, "f4")
    runtime.memcpy(small, large, 32, runtime.memcpyDeviceToDevice)
    with refuses("cuMemcpyDtoD.*the 40 bytes of the destination begin at byte 0 of an allocation of 32 bytes"):
        runtime.memcpy(small, large, 40, runtime.memcpyDeviceToDevice)
    with refuses("cuMemcpyDtoH.*the 64 bytes of the source begin at byte 0 of an allocation of 32"):
        runtime.memcpy(host.ctypes.data, small, 64, runtime.memcpyDeviceToHost)
    with refuses("cuMemcpyHtoD.*the destination .* is no memory of a device"):
        runtime.memcpy(host.ctypes.data, host.ctypes.data, 64, runtime.memcpyHostToDevice)
    with refuses("cuMemsetD8.*the 33 bytes of the destination"):
        runtime.memset(small, 0, 33)
    """)


def test_misaligned_memset_is_refused() -> None:
    run("""
    pointer = runtime.malloc(64)
    libcuda = driver._Installed.libcuda
    assert libcuda.cuMemsetD32_v2(ctypes.c_uint64(pointer + 4), ctypes.c_uint(1), ctypes.c_size_t(4)) == 0
    assert libcuda.cuMemsetD32_v2(ctypes.c_uint64(pointer + 2), ctypes.c_uint(1), ctypes.c_size_t(4)) == 1
    """)


def test_rows_are_checked() -> None:
    run("""
    pointer, host = runtime.malloc(64), numpy.arange(64, dtype="u1")
    runtime.memcpy2D(pointer, 16, host.ctypes.data, 8, 8, 4, runtime.memcpyHostToDevice)
    assert array(pointer, 64, "u1")[16:24].tolist() == list(range(8, 16))
    with refuses("rows of 8 bytes with pitches of 4 and 8"):
        runtime.memcpy2D(pointer, 4, host.ctypes.data, 8, 8, 4, runtime.memcpyHostToDevice)
    with refuses("the 72 bytes of the destination"):
        runtime.memcpy2D(pointer, 16, host.ctypes.data, 8, 8, 5, runtime.memcpyHostToDevice)
    """)
