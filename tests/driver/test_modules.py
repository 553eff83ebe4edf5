"""Modules: what NVRTC and the cubin say, variables, files."""

from __future__ import annotations

from tests.driver.processes import run


def test_errors_and_names_are_those_of_nvrtc() -> None:
    run("""
    code = '''namespace ns { template <class T, int N> __global__ void fill(T* x) { x[threadIdx.x] = N; } }
    extern "C" __global__ void plain(float* x) { x[0] = 1; }
    __global__ void mangled(double* x) { x[0] = 2; }'''
    name = "ns::fill<long long, 7>"
    module = cupy.RawModule(code=code, options=("--std=c++17",), name_expressions=[name])
    x, d = cupy.zeros(2, "i8"), cupy.zeros(1)
    module.get_function(name)((1,), (2,), (x,))
    module.get_function("_Z7mangledPd")((1,), (1,), (d,))
    assert x.tolist() == [7, 7] and d.item() == 2
    assert module.get_function(name).attributes["num_regs"] > 0
    with refuses("CUDA_ERROR_NOT_FOUND.*cuModuleGetFunction: the module has no kernel absent"):
        module.get_function("absent")
    with pytest.raises(cupy.cuda.compiler.CompileException, match='identifier "y" is undefined'):
        cupy.RawKernel('extern "C" __global__ void f(float* x) { y = 1; }', "f").compile()
    code = '''extern "C" __global__ void f(float* x) {
        __shared__ float s[20000];
        s[threadIdx.x] = x[0];
        __syncthreads();
        x[threadIdx.x] = s[0];
    }'''
    with pytest.raises(cupy.cuda.compiler.CompileException, match="uses too much shared data"):
        cupy.RawKernel(code, "f").compile()
    """)


def test_variables_belong_to_their_module() -> None:
    run("""
    code = '''__constant__ float factors[2]; __device__ int launches;
    extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= factors[threadIdx.x]; if (threadIdx.x == 0) launches++; }
    extern "C" __global__ void count(int* to) { *to = launches; }'''
    x, count = cupy.ones(2, "f4"), cupy.zeros(1, "i4")
    modules = [cupy.RawModule(code=code), cupy.RawModule(code=code + "\\n")]
    for number, module in enumerate(modules, 1):
        factors = cupy.ndarray(2, "f4", module.get_global("factors"))
        factors[...] = cupy.asarray([2.0, 3.0], "f4") * number
        for _ in range(number):
            module.get_function("scale")((1,), (2,), (x,))
        module.get_function("count")((1,), (1,), (count,))
        assert count.item() == number
    assert x.tolist() == [2.0 * 4 * 4, 3.0 * 6 * 6]
    with refuses("CUDA_ERROR_NOT_FOUND.*cuModuleGetGlobal: the module has no variable absent"):
        modules[0].get_global("absent")
    with refuses("cuMemcpyDtoH.*byte 4 of the variable factors of 8 bytes"):
        numpy_array = numpy.zeros(4, "f4")
        runtime.memcpy(numpy_array.ctypes.data, factors.data.ptr + 4, 16, runtime.memcpyDeviceToHost)
    """)


def test_one_module_loaded_twice_has_two_sets_of_variables() -> None:
    run("""
    code = '__device__ int counter; extern "C" __global__ void count(int* to) { *to = ++counter; }'
    from cupy.cuda import compiler
    cubin, _ = compiler._compile_using_nvrtc_no_warning(code, arch="90")
    x = cupy.zeros(1, "i4")
    for _ in range(2):
        module = cupy.cuda.function.Module()
        module.load(cubin)
        module.get_function("count")((1,), (1,), (x,))
        assert x.item() == 1
    """)


def test_files_and_foreign_images() -> None:
    run("""
    import pathlib, tempfile
    from cupy.cuda import compiler
    code = 'extern "C" __global__ void fill(float* x) { x[threadIdx.x] = 5; }'
    cubin, _ = compiler._compile_using_nvrtc_no_warning(code, arch="90")
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "whole.cubin").write_bytes(cubin)
    (folder / "cut.cubin").write_bytes(cubin[:-100])
    (folder / "foreign.cubin").write_bytes(cubin[:cubin.index(b"GPUNETSRC")])
    x = cupy.zeros(2, "f4")
    cupy.RawModule(path=str(folder / "whole.cubin")).get_function("fill")((1,), (2,), (x,))
    assert x.tolist() == [5.0, 5.0]
    for name, message in (("cut", "cuModuleLoad: a truncated cubin"), ("absent", "FILE_NOT_FOUND.*cuModuleLoad"),
                          ("foreign", "cuModuleLoad: .* was not compiled by the stand-in's NVRTC")):
        with refuses(message):
            cupy.RawModule(path=str(folder / f"{name}.cubin")).get_function("fill")
    """)
