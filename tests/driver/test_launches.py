"""Launches: what CUDA refuses, faults of running kernels, and arguments that are not the kernel's."""

from __future__ import annotations

from tests.driver.processes import run


def test_geometry_is_checked() -> None:
    run("""
    fill = kernel(FILL, "fill")
    x = cupy.zeros(16, "f4")
    arguments = (x, numpy.float32(3), numpy.int32(16))
    for grid, block, message in (((1,), (1025,), "block .1025, 1, 1."), ((1,), (64, 32), "block of 2048 threads"),
                                 ((1, 65536), (1,), "grid .1, 65536, 1."), ((1,), (1, 1, 65), "block .1, 1, 65.")):
        with refuses(f"INVALID_VALUE.*cuLaunchKernel: fill: .*{message}"):
            fill(grid, block, arguments)
    bounded = kernel('extern "C" __global__ void __launch_bounds__(64) bounded(float* x) { x[threadIdx.x] = 1; }', "bounded")
    bounded((1,), (16,), (x,))
    with refuses("LAUNCH_OUT_OF_RESOURCES.*128 threads, where its __launch_bounds__ allow 64"):
        bounded((1,), (128,), (x,))
    assert (x.get() == 1).all()
    """)


def test_shared_memory_is_checked() -> None:
    run("""
    code = '''extern "C" __global__ void f(float* x) {
        __shared__ float s[1024];
        extern __shared__ float d[];
        s[threadIdx.x] = x[0] + 1;
        d[threadIdx.x] = x[0] + 2;
        __syncthreads();
        x[0] = s[blockDim.x - 1 - threadIdx.x] + d[blockDim.x - 1 - threadIdx.x];
    }'''
    f = cupy.RawKernel(code, "f")
    x = cupy.zeros(1, "f4")
    assert f.attributes["shared_size_bytes"] == 4096 and f.max_dynamic_shared_size_bytes == 49152 - 4096
    f((1,), (1,), (x,), shared_mem=45056)
    with refuses("45060 bytes of dynamic and 4096 of static shared memory; 45056 of dynamic shared memory are allowed"):
        f((1,), (1,), (x,), shared_mem=45060)
    f.max_dynamic_shared_size_bytes = 100_000
    f((1,), (1,), (x,), shared_mem=100_000)
    with refuses("cuFuncSetAttribute"):
        f.max_dynamic_shared_size_bytes = 232448
    assert x.item() == 9
    """)


def test_an_argument_of_another_size_gives_the_value_that_a_gpu_gives() -> None:
    run("""
    fill = kernel(FILL, "fill")
    x = cupy.zeros(4, "f4")
    fill((1,), (4,), (x, numpy.float64(1.0), numpy.int32(4)))  # the kernel reads the lower half of the double
    assert x.tolist() == [0.0] * 4
    fill((1,), (4,), (x, numpy.float32(1.0), numpy.int32(4)))
    assert x.tolist() == [1.0] * 4
    """)


def test_too_few_arguments_end_in_an_error() -> None:
    run("""
    fill = kernel(FILL, "fill")
    libcuda = driver._Installed.libcuda
    one = ctypes.c_uint(1)
    arguments = (ctypes.c_void_p * 3)(ctypes.addressof(ctypes.c_uint64(0)), 0, 16)
    launch = lambda: libcuda.cuLaunchKernel(ctypes.c_void_p(fill.kernel.ptr), *[one] * 6, one, None, arguments, None)
    assert launch() == 1  # a null pointer in place of the second
    arguments[1] = 16
    assert launch() == 700  # no address at all
    """)


def test_a_parameter_buffer_has_the_size_of_the_parameters() -> None:
    run("""
    fill = kernel(FILL, "fill")
    libcuda = driver._Installed.libcuda
    x = cupy.zeros(4, "f4")
    buffer = numpy.array([(x.data.ptr, 3.0, 4)], [("x", "u8"), ("value", "f4"), ("n", "i4")])
    one = ctypes.c_uint(1)
    def launch(bytes, arguments=None):
        size = ctypes.c_size_t(bytes)
        extra = (ctypes.c_void_p * 5)(1, buffer.ctypes.data, 2, ctypes.addressof(size), 0)
        geometry = (one, one, one, ctypes.c_uint(4), one, one)
        return libcuda.cuLaunchKernel(ctypes.c_void_p(fill.kernel.ptr), *geometry, ctypes.c_uint(0), None, arguments, extra)
    assert [launch(bytes) for bytes in (12, 20, 0)] == [1, 1, 1] and not x.get().any()
    assert launch(16, (ctypes.c_void_p * 3)()) == 1
    assert launch(16) == 0 and x.tolist() == [3.0] * 4
    """)


def test_the_driver_tells_the_sizes_of_parameters() -> None:
    run("""
    from gpunet.backend.parameter_sizes import parameter_sizes
    code = '''struct Odd { char bytes[3]; };
    extern "C" __global__ void f(const float* x, char c, double d, Odd odd, short s) {}
    extern "C" __global__ void none() {}'''
    assert parameter_sizes(kernel(code, "f").kernel.ptr) == [8, 1, 8, 3, 2]
    assert parameter_sizes(kernel(code, "none").kernel.ptr) == []
    """)


def test_faults_name_kernel_and_line() -> None:
    run("""
    x = cupy.zeros(16, "f4")
    null = kernel('extern "C" __global__ void null(float* x) {\\n  x[0] = 1;\\n}', "null")
    with refuses("ILLEGAL_ADDRESS.*kernel null: .*writes to 0, which is a null pointer, at .*cu:2 .*thread .0, 0, 0."):
        null((1,), (1,), (numpy.uint64(0),))
    driver.clear_faults()
    code = 'extern "C" __global__ void aligned(float* x) {\\n\\n  *(float4*)(x + 1) = make_float4(1, 2, 3, 4);\\n}'
    aligned = kernel(code, "aligned")
    with refuses("MISALIGNED_ADDRESS.*kernel aligned.*cu:3"):
        aligned((1,), (1,), (x,))
    driver.clear_faults()
    stuck = kernel('extern "C" __global__ void stuck(volatile float* x) { while (*x == 0) __nanosleep(100); }', "stuck")
    with refuses("LAUNCH_FAILED.*kernel stuck: no progress"):
        stuck((1,), (1,), (x,))
    """)


def test_returned_threads_do_not_hold_a_barrier() -> None:
    run("""
    code = '''extern "C" __global__ void half(int* x) {
        if (threadIdx.x >= 16) return;
        __shared__ int s[16];
        s[threadIdx.x] = threadIdx.x;
        __syncthreads();
        x[threadIdx.x] = s[15 - threadIdx.x];
    }'''
    x = cupy.zeros(16, "i4")
    kernel(code, "half")((1,), (32,), (x,))
    assert x.tolist() == list(range(15, -1, -1))
    assert cupy.cumsum(cupy.ones((3, 5)), axis=1).get()[:, -1].tolist() == [5.0] * 3
    """)


def test_integer_division_has_the_results_of_a_gpu() -> None:
    run("""
    for dtype in "bhiq":
        least = numpy.iinfo(dtype).min
        x, y = cupy.asarray([least, 7], dtype), cupy.asarray([-1, -1], dtype)
        assert (x // y).tolist() == [least, -7] and (x % y).tolist() == [0, 0]
    divide = kernel('extern "C" __global__ void divide(int* x) { x[0] = x[1] / x[2]; }', "divide")
    x = cupy.asarray([5, -2**31, -1], "i4")
    divide((1,), (1,), (x,))
    assert x.tolist() == [-2**31, -2**31, -1]
    x[2] = 0
    with refuses("kernel divide: division: divides an integer by zero, at .*cu:1"):
        divide((1,), (1,), (x,))
    """)
