"""Invalid launches raise a precise error on the device "emulated", also where a GPU would compute wrong results.

On a GPU, the error comes from the driver through CuPy, so only that some exception is raised is tested there, or from the check
of the sizes of arguments.  Errors that none of them detects (they see addresses, not types) have ``gpu_error`` None and are
tested on "emulated" only.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest

import gpunet
from gpunet import emulator
from gpunet.backend import compiler, cuda_sources, disk_cache
from gpunet.backend.devices import Device
from gpunet.backend.signature import entries
from gpunet.errors import CompileError, EmulationError, LaunchError
from gpunet.launch.kernel import Geometry, Kernel
from gpunet.ops.activations import activation_backward, activation_forward
from gpunet.optim.sgd import sgd_step

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

DEVICES = [
    pytest.param("emulated", marks=needs_compiler),
    pytest.param("cuda", marks=pytest.mark.skipif(not gpunet.cuda_status().ready, reason="no GPU")),
]


@pytest.fixture
def launch(tmp_path: Any, monkeypatch: Any) -> Callable[..., None]:
    """Return a function that compiles the entry point ``planted`` and launches it on a device.

    ``launch.check`` switches the check mode of the emulator on.
    """
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    monkeypatch.setattr(compiler, "_functions", {})

    def run(name: str, text: str, grid: Any, block: Any, arguments: list[Any], shared: int = 0) -> None:
        (tmp_path / "planted.cu").write_text(text)
        where = Device(name)
        placed = [
            gpunet.backend.devices.move(a, where) if type(a) is numpy.ndarray and not a.dtype.names else a for a in arguments
        ]
        function = compiler.function("planted.cu", "planted", where)
        with emulator.check(run.check):  # type: ignore[attr-defined]
            function(grid, block, placed, shared)
        gpunet.cuda.synchronize(where)

    run.check = False  # type: ignore[attr-defined]
    return run


class Wrong(NamedTuple):
    """An invalid launch and the errors it raises."""

    text: str  # the CUDA source
    changes: dict[str, Any]  # launch arguments that differ from the defaults of the test
    error: type[Exception]  # on the device "emulated"
    message: str
    gpu_error: str | None  # of the error on a GPU: who raises it, and a pattern of the message


def floats(count: int = 64) -> numpy.ndarray:
    return numpy.zeros(count, numpy.float32)


BOUNDED = 'extern "C" __global__ void __launch_bounds__(128, 2) planted(float* out, int n) { out[threadIdx.x] = n; }'
PLAIN = BOUNDED.replace("__launch_bounds__(128, 2) ", "")
STATIC = (
    'extern "C" __global__ void planted(float* out, int n) {{\n  __shared__ float tile[{0}];\n  tile[threadIdx.x] = n;\n'
    "  __syncthreads();\n  out[threadIdx.x] = tile[{0} - 1 - threadIdx.x];\n}}"
)
DYNAMIC = (
    'extern "C" __global__ void planted(float* out, int n) {\n  extern __shared__ float tile[];\n  __shared__ float more[64];\n'
    "  tile[threadIdx.x] = more[threadIdx.x] = n;\n  out[threadIdx.x] = tile[threadIdx.x] + more[threadIdx.x];\n}"
)
LARGE = (
    "struct Large { char bytes[32768]; };\n"
    'extern "C" __global__ void planted(float* out, const Large large) { out[0] = large.bytes[7]; }'
)
PAIR = 'struct Pair { int a, b; };\nextern "C" __global__ void planted(float* out, Pair pair) { out[0] = pair.b; }'
VECTOR = 'extern "C" __global__ void planted(float* out, int n) { out[0] = reinterpret_cast<float4*>(out + n)->x; }'
STORE = 'extern "C" __global__ void planted(float* out, int n) { *reinterpret_cast<double2*>(out + n) = make_double2(1, 2); }'

DRIVER = "the driver: invalid argument"
SIZES = "gpunet's check of sizes: launch of planted: "

WRONG = {
    "a grid of none": Wrong(PLAIN, {"grid": (0,)}, LaunchError, r"grid \(0,\).*extents from 1", "gpunet: CuPy would launch one"),
    "a block of none": Wrong(PLAIN, {"block": (32, 0)}, LaunchError, r"block \(32, 0\).*from 1", "gpunet: CuPy would launch one"),
    "a grid too long": Wrong(PLAIN, {"grid": (2**31,)}, LaunchError, r"grid \(2147483648,\)", DRIVER),
    "a grid too wide": Wrong(PLAIN, {"grid": (1, 65536)}, LaunchError, r"grid \(1, 65536\).* \(2147483647, 65535, 65535\)", DRIVER),
    "a grid too deep": Wrong(PLAIN, {"grid": (1, 1, 65536)}, LaunchError, r"grid \(1, 1, 65536\)", DRIVER),
    "a block too deep": Wrong(PLAIN, {"block": (1, 1, 65)}, LaunchError, r"block \(1, 1, 65\).* \(1024, 1024, 64\)", DRIVER),
    "too many threads": Wrong(PLAIN, {"block": (64, 32)}, LaunchError, "has 2048 threads; a GPU allows at most 1024", DRIVER),
    "more than the launch bounds": Wrong(
        BOUNDED, {"block": (64, 4)}, LaunchError,
        r"planted: a block of 256 threads, where the kernel declares __launch_bounds__\(128\); launch smaller blocks",
        "the driver: too many resources requested for launch|invalid argument",
    ),
    "too much static shared memory": Wrong(
        STATIC.format(58113), {}, CompileError, r"planted\.cu as planted: 232452 bytes of static shared memory.* at most 49152",
        "NVRTC's assembler: uses too much shared data",
    ),
    "too much dynamic shared memory": Wrong(
        DYNAMIC, {"shared": 232449}, LaunchError, "232449 bytes of dynamic .* allows at most 232448", DRIVER
    ),
    "too much of both": Wrong(
        DYNAMIC, {"shared": 232448}, LaunchError, "232448 bytes of dynamic and 256 of static shared memory", DRIVER
    ),
    "too many bytes of parameters": Wrong(
        LARGE, {"arguments": [floats(), numpy.zeros(1, [("bytes", "V32768")])]},
        CompileError, r"32776 bytes of parameters; a GPU allows at most 32764",
        "NVRTC's assembler: Formal parameter space overflowed",
    ),
    "a misaligned vector load": Wrong(VECTOR, {"arguments": [floats(), numpy.int32(1)]}, EmulationError,
                                      r"misaligned: .*planted\.cu:1", "the driver at the next call: misaligned address"),
    "a misaligned vector store": Wrong(STORE, {"arguments": [floats(), numpy.int32(2)]}, EmulationError,
                                       r"misaligned: .*planted\.cu:1", "the driver at the next call: misaligned address"),
    "too few arguments": Wrong(PLAIN, {"arguments": [floats()]}, LaunchError, "1 arguments for 2 parameters",
                               f"{SIZES}1 arguments for 2 parameters"),
    "too many arguments": Wrong(
        PLAIN, {"arguments": [floats(), numpy.int32(1), numpy.int32(1)]}, LaunchError, "3 arguments for 2 parameters",
        f"{SIZES}3 arguments for 2 parameters",
    ),
    "an array of another dtype": Wrong(
        PLAIN, {"arguments": [numpy.zeros(64), numpy.int32(1)]}, LaunchError, r"'out' is float64 where .* declares float\*", None
    ),
    "a scalar of another size": Wrong(
        PLAIN, {"arguments": [floats(), numpy.int64(1)]}, LaunchError, "'n' is int64 where the kernel declares int",
        f"{SIZES}argument 1 is int64, which is passed as 8 bytes, where the kernel's parameter has 4",
    ),
    "a scalar of another kind": Wrong(
        PLAIN, {"arguments": [floats(), numpy.float32(1)]}, LaunchError, "'n' is float32 where the kernel declares int", None
    ),
    "an address for an array": Wrong(
        PLAIN, {"arguments": [numpy.uint64(4096), numpy.int32(1)]}, LaunchError, "'out' is .*4096.*; expected an array", None
    ),
    "a scalar for an array": Wrong(
        PLAIN, {"arguments": [numpy.int32(0), numpy.int32(1)]}, LaunchError, "'out' is .*0.*; expected an array or None",
        f"{SIZES}argument 0 is int32, which is passed as 4 bytes, where the kernel's parameter has 8",
    ),
    "an array for a scalar": Wrong(PLAIN, {"arguments": [floats(), floats(2)]}, LaunchError, "'n' is",
                                   f"{SIZES}argument 1 is an array of float32, which is passed as 8 bytes, where .* has 4"),
    "a structure of another size": Wrong(
        PAIR, {"arguments": [floats(), numpy.zeros(1, [("a", "i4")])]}, LaunchError, "'pair' has 4 bytes where .* has 8",
        f"{SIZES}argument 1 is .*, which is passed as 4 bytes, where the kernel's parameter has 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", [False, True], ids=["fast", "check"])
@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", WRONG)
def test_invalid_launch_raises(name: str, where: str, check: bool, launch: Any) -> None:
    wrong = WRONG[name]
    if where == "cuda" and (wrong.gpu_error is None or "next call" in wrong.gpu_error or check):
        pytest.skip("the GPU does not detect it, or the error would destroy the CUDA context of the other tests")
    source, _, message = (wrong.gpu_error or "").partition(": ")
    is_our_error = where == "emulated" or source == "gpunet"
    arguments = {"grid": (1,), "block": (64,), "arguments": [floats(), numpy.int32(3)], **wrong.changes}
    launch.check = check
    with pytest.raises(wrong.error if is_our_error else Exception, match=wrong.message if is_our_error else message):
        launch(where, wrong.text, **arguments)


RIGHT = {
    "as many threads as the bounds say": (BOUNDED, {"block": (128,)}),
    "48 KB of static shared memory": (STATIC.format(12288), {}),
    "all shared memory": (DYNAMIC, {"shared": 232448 - 256}),
    "the deepest block": (PLAIN.replace("threadIdx.x", "threadIdx.z"), {"block": (1, 1, 64)}),
    "the widest grid": (PLAIN.replace("threadIdx.x", "blockIdx.y % 64"), {"grid": (1, 65535), "block": (1,)}),
}


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", RIGHT)
def test_launch_at_the_limits_runs(name: str, where: str, launch: Any) -> None:
    text, changes = RIGHT[name]
    launch(where, text, **{"grid": (1,), "block": (64,), "arguments": [floats(128), numpy.int32(3)], **changes})


@needs_compiler
def test_static_shared_memory_is_counted_per_entry_point(launch: Any) -> None:
    other = STATIC.format(12288).replace("planted", "other")
    launch("emulated", other + "\n" + STATIC.format(12000), (1,), (64,), [floats(), numpy.int32(3)])


@needs_compiler
def test_launch_bounds_of_a_template(tmp_path: Any) -> None:
    """The launch bound is evaluated for each specialisation."""
    text = (
        "template <class T, int N> __global__ void /* (not this) */ __launch_bounds__(N * (sizeof(T) == 8 ? 1 : 2), 1)\n"
        "    planted(T* out) { out[threadIdx.x] = N; }"
    )
    for expression, most in (("planted<float, 32>", 64), ("planted<double, 32>", 32)):
        function = emulator.Function(text, "planted.cu", expression, disk_cache.cache_directory() / "emulator")
        out = numpy.zeros(65, numpy.float32 if "float" in expression else numpy.float64)
        function((1,), (most,), (out,))
        assert (out == 32).sum() == most
        with pytest.raises(LaunchError, match=rf"a block of {most + 1} threads, .*__launch_bounds__\({most}\)"):
            function((1,), (most + 1,), (out,))


def test_entry_points_are_parsed_from_source() -> None:
    text = (
        "// __global__ void no(int a) {\n#define KERNEL __global__ void\n__global__ void declared(int a);\n"
        "template <class T>\n__global__ void __launch_bounds__(4 * (3 + 1),\n  2) one(const T* __restrict__ a, Table<4> b) {}\n"
        "__launch_bounds__(7) __global__ void two() /* ( */ { one<float>(1); }\n"
        "__global__ void __cluster_dims__(2, 1, 1) three(int (&c)) {}\n__global__ void unfinished(int a"
    )
    declared = entries(text).values()
    found = [(e.name, [p.name for p in e.parameters], e.attributes.get("__launch_bounds__", "")) for e in declared]
    assert found == [("one", ["a", "b"], "4 * (3 + 1), 2"), ("two", [], "7"), ("three", ["c"], "")]
    assert all(text[e.body - 1] == "{" for e in declared)


# ---- kernels of the library -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", DEVICES)
def test_arrays_that_violate_the_contract_raise(where: str) -> None:
    here = gpunet.tensor([1.0, 2.0], device=where).array
    options = {"activation": "relu", "alpha": 0.0}
    for arrays, message in (
        (
            (here, numpy.ones(2, "float32")),
            r"'z' is a ndarray, but the first array is a .*; all arrays of a launch must be on the same device",
        ),
        ((here, here.astype("float64")), "'z' has dtype float64, expected float32"),
        ((here, here[::-1]), r"'z' of shape \(2,\) is not C-contiguous; pass a contiguous copy"),
        ((here.astype("int32"), here), "expected a floating dtype"),
        ((here, None), "'z' is None, expected an array"),
    ):
        with pytest.raises(LaunchError, match=f"kernel activation_forward: argument {message}|{message}"):
            activation_forward(*arrays, **options)


def test_arrays_on_two_gpus_raise() -> None:
    """A kernel would read the memory of the other GPU over the bus, slowly or not at all."""

    class Array(SimpleNamespace):
        dtype = numpy.dtype("float32")
        flags = SimpleNamespace(c_contiguous=True)
        shape, size = (4,), 4

    first, second = (Array(data=SimpleNamespace(device_id=index)) for index in (0, 1))
    with pytest.raises(
        LaunchError, match="arrays on different GPUs .dz on cuda:0, dy on cuda:0, saved on cuda:1.; move them"
    ):
        activation_backward.check((first, first, second))
    activation_backward.check((first, first, first))


def test_invalid_sizes_and_lists_raise() -> None:
    x = numpy.ones(3, "float32")
    with pytest.raises(LaunchError, match="size 2147483648; expected at most 2147418112: split the tensor"):
        activation_forward.pack((x, x), Geometry(1, 1, (2**31,)))
    with pytest.raises(LaunchError, match=r"lists of \[1, 0, 1, 1\] tensors; expected equal lengths from 1 to 512"):
        sgd_step.check(([x], [], [numpy.zeros(1)], [x], numpy.ones(1), None, None))
    with pytest.raises(
        LaunchError, match="tensor 1 of 'params' is a ndarray of float64; expected a contiguous ndarray of float32"
    ):
        sgd_step.check(
            ([x, x.astype("float64")], None, [numpy.zeros(1)] * 2, [x, x], numpy.ones(1), None, numpy.zeros(1, "uint32"))
        )
    assert isinstance(sgd_step, Kernel)


@needs_compiler
def test_local_arrays_larger_than_the_stack_raise(launch: Any) -> None:
    text = (
        'extern "C" __global__ void planted(float* out, int n) {\n  volatile float many[20000];\n'
        "  for (int i = 0; i < 16300; i++) many[i] = n;\n  out[0] = many[n];\n}"
    )
    with pytest.raises(
        EmulationError, match="stack: a thread's local variables take more than the 65536 bytes of its stack"
    ):
        launch("emulated", text, (1,), (1,), [floats(), numpy.int32(3)])
