"""Check mode: bounds of each allocation and races, in kernels that CuPy launches."""

from __future__ import annotations

import pytest

from tests.driver.processes import run


def test_one_element_too_many() -> None:
    code = """
    fill = kernel(FILL, "fill")
    x = cupy.zeros(10, "f4")
    fill((1,), (32,), (x, numpy.float32(3), numpy.int32(10)))
    assert (x.get() == 3).all()
    """
    run(code, "--check")
    finding = """
    message = "out of bounds: writes 4 bytes at .*cu:3, up to 4 bytes past the end of the allocation of argument 0 of 40 bytes"
    with refuses(f"ILLEGAL_ADDRESS.*{message}"):
        fill((1,), (32,), (x, numpy.float32(3), numpy.int32(11)))
    """
    run(code + finding, "--check")
    with pytest.raises(AssertionError, match="DID NOT RAISE"):  # CuPy's allocations are multiples of 512 bytes
        run(code + finding)


def test_races() -> None:
    run("""
    code = '''extern "C" __global__ void reverse(int* x) {
        __shared__ int s[32];
        s[threadIdx.x] = threadIdx.x;
        BARRIER
        x[threadIdx.x] = s[31 - threadIdx.x];
    }'''
    x = cupy.zeros(32, "i4")
    kernel(code.replace("BARRIER", "__syncthreads();"), "reverse")((1,), (32,), (x,))
    assert x.tolist() == list(range(31, -1, -1))
    with refuses("LAUNCH_FAILED.*kernel reverse: (race|uninitialised).*cu:5"):
        kernel(code.replace("BARRIER", ""), "reverse")((1,), (32,), (x,))
    """, "--check")  # fmt: skip


def test_pointers_to_no_memory() -> None:
    code = """
    untouched = kernel('extern "C" __global__ void untouched(float* x, int n) { if (n < 0) x[n] = 1; }', "untouched")
    x = array(runtime.malloc(64), 16)
    def launch(address):
        untouched((1,), (1,), (numpy.uint64(address), numpy.int32(1)))
    launch(0), launch(x.data.ptr), launch(x.data.ptr + 60), launch(x.data.ptr + 64)
    """
    findings = """
    with refuses("MISALIGNED_ADDRESS.*kernel untouched: argument 0 is the pointer .* to elements of 4 bytes"):
        launch(x.data.ptr + 2)
    driver.clear_faults()
    with refuses("ILLEGAL_ADDRESS.*kernel untouched: argument 0 is the pointer 0x1000, which is no memory of a device"):
        launch(4096)
    driver.clear_faults()
    runtime.free(x.data.ptr)
    with refuses("kernel untouched: argument 0 is .* byte 4 of an allocation of 64 bytes on device 0 that was freed"):
        launch(x.data.ptr + 4)
    """
    run(code + findings, "--check")
    run(code + "launch(4096)")  # as on a GPU: nothing is read there


def test_writes_to_constant_arrays() -> None:
    run("""
    code = 'extern "C" __global__ void f(const float* x, float* y) { *(float*)x = 1; y[0] = 1; }'
    x, y = cupy.zeros(4, "f4"), cupy.zeros(4, "f4")
    with refuses("kernel f: write to an input"):
        kernel(code, "f")((1,), (1,), (x, y))
    """, "--check")  # fmt: skip


def test_uninitialised_shared_memory_is_no_finding_in_kernels_of_cupy() -> None:
    run("""
    code = '''extern "C" __global__ void NAME(int* x) {
        __shared__ int s[32];
        x[threadIdx.x] = s[threadIdx.x];
    }'''
    x = cupy.ones(32, "i4")
    with refuses("kernel mine: uninitialised: thread 0 reads .*cu:3"):
        kernel(code.replace("NAME", "mine"), "mine")((1,), (32,), (x,))
    driver.clear_faults()
    kernel(code.replace("NAME", "cupy_its"), "cupy_its")((1,), (32,), (x,))
    assert cupy.cumsum(cupy.ones((3, 5)), axis=1).get()[:, -1].tolist() == [5.0] * 3
    """, "--check")  # fmt: skip


def test_cupy_itself_has_no_findings() -> None:
    run("""
    x = cupy.arange(1000, dtype="f4").reshape(10, 100)
    assert (x[::2, ::3] * 2 + 1).get().shape == (5, 34)
    assert x.sum() == 499500 and x.max(axis=1).get()[0] == 99
    assert (cupy.where(x > 500, x, 0)[cupy.asarray([1, 7])].get()[0] == 0).all()
    """, "--check")  # fmt: skip
