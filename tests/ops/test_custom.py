"""gpunet.cuda_op on every device, and the messages for wrong definitions and launches."""

from __future__ import annotations

import gc
import math
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import emulator
from gpunet.autograd import OPS, gradcheck
from gpunet.backend import compiler, nvrtc
from gpunet.errors import (
    ArgumentError,
    CompileError,
    DeviceError,
    DtypeError,
    EmulationError,
    GpunetError,
    GradientError,
    InPlaceError,
    LaunchError,
    MismatchError,
    ShapeError,
)
from gpunet.launch.kernel import KERNELS
from gpunet.launch.tape import Tape, record

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

INDEX = "const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;"
POWER = f"""
template <class T>
__global__ void power(T* y, const T* x, double a, long long n) {{
  {INDEX}
  if (i < n) y[i] = T(a) * x[i] * x[i];
}}
"""


def blocks(y: Any) -> dict[str, Any]:
    return {"grid": -(-y.size // 256), "block": 256, "n": y.size}


def power(**changed: Any) -> Any:
    """The op y = a x², with some arguments of cuda_op changed, or left out if None."""
    defaults = {"launch": blocks, "twin": lambda x, a: a * x * x, "backward": lambda dy, x, a: dy * x * (2 * a)}
    return gpunet.cuda_op(changed.pop("source", POWER), **{k: f for k, f in (defaults | changed).items() if f is not None})


# an extern "C" kernel with several outputs and dtypes, and its parameters in no particular order
SPLIT = f"""
extern "C" __global__ void split(const float* x, int n, float by, float* whole, int* bin, const long long* shift) {{
  {INDEX}
  if (i < n) {{ whole[i] = x[i] * by; bin[i] = int(x[i]) + int(shift[i]); }}
}}
"""


def split() -> Any:
    return gpunet.cuda_op(
        SPLIT,
        launch=lambda x: {"grid": 1, "block": (32, 1), "n": x.size},
        twin=lambda shift, x, by: (x * by, (x.astype(int) + shift).astype(numpy.int32)),
        backward=lambda dwhole, by: dwhole * by,
    )


# ---- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [gpunet.float32, gpunet.float64])
def test_values_gradients_and_gradients_of_gradients(device: str, dtype: Any) -> None:
    op = power()
    x = gpunet.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=dtype).T.detach().requires_grad_()  # strided
    y = op(x, a=3.0)
    assert y.device == device and y.dtype == dtype and y.shape == (3, 2)
    assert y.tolist() == [[3.0, 48.0], [12.0, 75.0], [27.0, 108.0]]
    (first,) = gpunet.grad([y.sum()], [x], create_graph=True)
    assert first.tolist() == [[6.0, 24.0], [12.0, 30.0], [18.0, 36.0]]
    (second,) = gpunet.grad([first.sum()], [x])
    assert second.tolist() == [[6.0] * 2] * 3
    y = op(x, a=3.0)
    y.backward(gpunet.ones_like(y))
    assert x.grad is not None and x.grad.tolist() == first.tolist()


def test_backward_that_uses_the_output_is_differentiable(device: str) -> None:
    op = gpunet.cuda_op(
        f"template <class T> __global__ void grow(T* y, const T* x, double rate, long long n) {{\n{INDEX}\n"
        "if (i < n) y[i] = exp(T(rate) * x[i]); }",
        launch=blocks,
        twin=lambda x, **options: numpy.exp(options["rate"] * x),
        backward=lambda **names: names["dy"] * names["y"] * names["rate"],
    )
    x = gpunet.zeros(2).requires_grad_()
    (first,) = gpunet.grad([op(x, rate=3.0).sum()], [x], create_graph=True)
    (second,) = gpunet.grad([first.sum()], [x])
    assert first.tolist() == [3.0, 3.0] and second.tolist() == [9.0, 9.0]


def test_several_outputs_integers_and_parameters_in_any_order(device: str) -> None:
    x = gpunet.tensor([1.5, 2.5], requires_grad=True)
    shift = gpunet.tensor([10, 20])
    whole, bins = split()(x, shift, by=2)
    assert whole.tolist() == [3.0, 5.0] and bins.tolist() == [11, 22]
    assert bins.dtype == gpunet.int32 and not bins.requires_grad
    whole.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]


def test_custom_op_as_backward_of_another(device: str) -> None:
    slope = gpunet.cuda_op(
        f"template <class T> __global__ void slope(T* dx, const T* dy, const T* x, double a, long long n) {{\n{INDEX}\n"
        "if (i < n) dx[i] = T(2 * a) * dy[i] * x[i]; }",
        launch=lambda dx: blocks(dx),
        twin=lambda dy, x, a: 2 * a * dy * x,
    )
    x = gpunet.tensor([1.0, -2.0], requires_grad=True)
    y = power(backward=slope)(x, a=0.5)
    (first,) = gpunet.grad([y.sum()], [x], create_graph=True)
    assert first.tolist() == [1.0, -2.0]
    with pytest.raises(GradientError, match=r"'slope' has no backward"):
        gpunet.grad([first.sum()], [x])


def test_unused_output_has_gradient_zero(device: str) -> None:
    op = gpunet.cuda_op(
        f"template <class T> __global__ void both(T* y, T* z, const T* x, long long n) {{\n{INDEX}\n"
        "if (i < n) { y[i] = x[i]; z[i] = 2 * x[i]; } }",
        launch=blocks,
        twin=lambda x: (x, 2 * x),
        backward=lambda dy, dz: dy + 2 * dz,
    )
    x = gpunet.ones(3).requires_grad_()
    op(x)[1].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0] * 3


def test_shapes_zeroed_shared_memory_and_template_arguments(device: str) -> None:
    op = gpunet.cuda_op(
        """
        template <class T, int CLASSES, bool TWICE>
        __global__ void counts(int* found, const int* labels, int n) {
          extern __shared__ int mine[];
          if (threadIdx.x < CLASSES) mine[threadIdx.x] = 0;
          __syncthreads();
          for (int i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(mine + labels[i], TWICE ? 2 : 1);
          __syncthreads();
          if (threadIdx.x < CLASSES) atomicAdd(found + threadIdx.x, mine[threadIdx.x]);
        }
        """,
        launch=lambda labels, classes: {
            "grid": 1, "block": 32, "shared": 4 * classes, "template": (str(classes), "true"), "n": labels.size,
        },
        shapes=lambda classes: classes,
        twin=lambda labels, classes: 2 * numpy.bincount(labels, minlength=classes).astype(numpy.int32),
        zeroed="found",
    )  # fmt: skip
    labels = gpunet.tensor([0, 2, 2, 1, 2], dtype=gpunet.int32)
    with emulator.check():
        assert op(labels, classes=4).tolist() == [2, 2, 6, 0]


def test_empty_input_launches_nothing(device: str) -> None:
    assert power()(gpunet.ones(0), a=1.0).shape == (0,)


def test_custom_op_is_recorded_and_replayed(device: str) -> None:
    x = gpunet.tensor([1.0, 2.0])
    tape = Tape()
    with record(tape):
        y = power()(x, a=1.0)
    assert len(tape) == 1 and y.tolist() == [1.0, 4.0]
    x.fill_(3.0)
    tape.replay()
    assert y.tolist() == [9.0, 9.0]


def test_custom_op_with_an_untraceable_twin_is_captured(device: str) -> None:
    """The twin branches on values, allocates arrays and converts to Python numbers."""

    def twin(x: numpy.ndarray, a: float) -> numpy.ndarray:
        calls.append(x.size)
        return (
            a * x * x if x.max() < 3 else numpy.array([a * float(v) ** 2 for v in x.ravel()], x.dtype).reshape(x.shape)
        )

    calls: list[int] = []
    op = power(twin=twin)

    def losses(captured: bool) -> list[float]:
        gpunet.manual_seed(0)
        model = gpunet.nn.Linear(3, 2)
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)

        def step(x: gpunet.Tensor) -> gpunet.Tensor:
            optimizer.zero_grad()
            loss = op(model(x), a=0.5).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = gpunet.capture(step) if captured else step
        return [run(gpunet.full((4, 3), size)).item() for size in (1.0, 9.0, 2.0, 0.5)]

    assert losses(captured=False) == losses(captured=True)
    if device == "cpu":
        assert len(calls) == 8, "each of the steps calls the twin"


def test_source_file_can_include_its_own_headers_and_those_of_gpunet(device: str, tmp_path: Path) -> None:
    (tmp_path / "mine.cuh").write_text("template <class T> __device__ T twice(T x) { return x + x; }\n")
    (tmp_path / "packs.cu").write_text(
        '#include "mine.cuh"\n#include "pack.cuh"\n'
        "template <class T> __global__ void packs(T* y, const T* x, long long n) {\n"
        "  for_each_pack(n, [&](long long start, long long valid) {\n"
        "    Pack<T, 4> p = load_pack<4>(x + start, valid, false);\n"
        "    for (int e = 0; e < 4; e++) p.v[e] = twice(p.v[e]);\n"
        "    store_pack(y + start, p, valid, false);\n  });\n}\n"
    )
    op = gpunet.cuda_op(tmp_path / "packs.cu", launch=blocks, twin=lambda x: 2 * x)
    assert op(gpunet.arange(5).float()).tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


@needs_compiler
def test_changed_source_is_compiled_as_another_kernel() -> None:
    x = gpunet.ones(2, device="emulated")
    assert power(twin=None)(x, a=1.0).tolist() == [1.0, 1.0]
    assert power(source=POWER.replace("T(a) *", "T(a) +"), twin=None)(x, a=1.0).tolist() == [2.0, 2.0]
    in_namespace = f"namespace mine {{{POWER}}}"
    assert power(source=in_namespace, name="mine::power", twin=None)(x, a=3.0).tolist() == [3.0, 3.0]


def test_custom_ops_are_not_registered() -> None:
    before = (set(KERNELS), set(OPS))
    power()
    power()
    assert (set(KERNELS), set(OPS)) == before


@pytest.mark.parametrize("backward, is_saved", [(lambda dy: dy, False), (lambda dy, y, x: dy * y * x, True)])
def test_only_tensors_named_by_backward_are_saved(backward: Callable[..., Any], is_saved: bool) -> None:
    inner = gpunet.ones(9).requires_grad_() * 2
    y = power(backward=backward)(inner, a=1.0)
    reference = weakref.ref(inner)
    gc.disable()
    try:
        del inner
        assert (reference() is not None) == is_saved
        del y
        assert reference() is None, "a reference cycle keeps the tensor"
    finally:
        gc.enable()


@pytest.mark.parametrize("expression", ["power<float>", "power<double>"])
def test_custom_op_compiles_for_sm_90(expression: str) -> None:
    try:
        nvrtc.load()
    except CompileError:
        pytest.skip("NVRTC is not installed")
    for op, name in ((power(), expression), (split(), "split")):
        cubin, _, log = compiler.compile(op.kernel.file, name, "sm_90")
        assert cubin[:4] == b"\x7fELF" and not log
    with pytest.raises(CompileError, match=r"power\.cu\(5\): error: .*undeclared"):
        compiler.compile(power(source=POWER.replace("T(a)", "undeclared")).kernel.file, expression, "sm_90")


# ---- check and gradcheck ----------------------------------------------------------------------------------------------


@needs_compiler
def test_check_accepts_a_correct_op() -> None:
    power().check(gpunet.randn(3, 4), a=2.0)
    power(twin=None).check(gpunet.randn(3), a=2.0)
    split().check(gpunet.tensor([1.5, 2.5]), gpunet.tensor([1, 2]), by=2.0)


@needs_compiler
@pytest.mark.parametrize(
    "changed, error, message",
    [
        (
            {"twin": lambda x, a: a * x},
            MismatchError,
            r"'power': output 'y': .* differ in 2 of 2 elements: at \(0,\) the kernel",
        ),
        (
            {"backward": lambda dy, x, a: dy * x * a},
            MismatchError,
            r"gradient of input 0 is wrong in 2 of 2 .* differences give",
        ),
        ({"backward": lambda dy: None}, MismatchError, "gradient of input 0"),
        (
            {"source": POWER.replace("if (i < n)", "")},
            EmulationError,
            r"power<float>: out of bounds: reads .* power\.cu:5, .* of x",
        ),
    ],
)
def test_check_rejects_a_wrong_op(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        power(**changed).check(gpunet.tensor([2.0, 3.0]), a=2.0)


def test_gradcheck() -> None:
    x = gpunet.randn(2, 3, dtype=gpunet.float64).requires_grad_()
    w = gpunet.randn(2, 3, dtype=gpunet.float64)
    assert gradcheck(lambda x, w: (x.exp() * w, x.sum(0)), [x, w])
    assert gradcheck(lambda x: x.sin(), x.detach().float().requires_grad_())
    assert gradcheck(lambda x: x.square().sum(), x)
    assert not gradcheck(lambda x: x.detach() * x, x, raise_exception=False)
    with pytest.raises(MismatchError, match=r"input 0 is wrong in 6 of 6 elements: at \(\d, \d\) it is .*, finite"):
        gradcheck(lambda x: x.detach() * x, [x])
    with pytest.raises(ArgumentError, match="none of the inputs"):
        gradcheck(lambda w: w, w)
    with pytest.raises(ArgumentError, match="floating outputs"):
        gradcheck(lambda x: x.detach(), x)


# ---- messages ---------------------------------------------------------------------------------------------------------


def x2() -> gpunet.Tensor:
    return gpunet.ones(2).requires_grad_()


def backward_of(function: Callable[..., Any]) -> None:
    power(backward=function)(x2(), a=1.0).sum().backward()


def changed_in_place() -> None:
    x = gpunet.ones(2).requires_grad_() * 1.0
    y = power()(x, a=1.0)
    x += 1.0
    y.sum().backward()


MISTAKES: dict[str, tuple[Callable[[], Any], type[GpunetError], str]] = {
    "no kernel": (lambda: power(source="int x;\n"), ArgumentError, "defines no __global__ function"),
    "a path as text": (lambda: power(source="power.cu"), ArgumentError, r"pass pathlib\.Path\('power\.cu'\)"),
    "no such file": (lambda: power(source=Path("absent.cu")), CompileError, "absent.cu"),
    "two kernels": (lambda: power(source=POWER + POWER.replace("power", "other")), ArgumentError, "power, other; choose one"),
    "another name": (lambda: power(name="other"), ArgumentError, "no __global__ function 'other'; it has power"),
    "no input": (lambda: power(source=POWER.replace("const T*", "T*")), ArgumentError, "an input .a pointer to const"),
    "pairs": (lambda: power(source=POWER.replace("const T*", "const float2*")), ArgumentError, r"'const float2\* x' .* T, float"),
    "twin names": (lambda: power(twin=lambda z: z), ArgumentError, "twin of cuda_op 'power' has a parameter 'z'.*x, a, n"),
    "backward names": (lambda: power(backward=lambda dz: dz), ArgumentError, "backward .* parameter 'dz'.*dy, y, x"),
    "twin without names": (lambda: power(twin=numpy.tanh), ArgumentError, "expected a function with named parameters.*wrap"),
    "zeroed": (lambda: power(zeroed="z"), ArgumentError, "zeroed='z' is not an output; the outputs are y"),
    "ambiguous gradient": (
        lambda: power(source=POWER.replace("const T* x", "const T* x, const T* dy")), ArgumentError, "'dy' is an array .* and",
    ),
    "inputs": (lambda: power()(), ArgumentError, "power: 0 inputs; expected 1: x"),
    "a number": (lambda: power()(1.0, a=1.0), ArgumentError, "input 'x' is 1.0; expected a Tensor"),
    "option": (lambda: power()(x2(), b=1.0), ArgumentError, "power: unknown option 'b'; expected a, n"),
    "missing option": (lambda: power()(x2()), ArgumentError, "twin of cuda_op 'power' needs 'a'"),
    "integers": (lambda: power()(gpunet.tensor([1]), a=1.0), DtypeError, r"'x' is int64; .* float32 or float64: .* \.to\("),
    "dtype": (lambda: split()(x2().double(), x2(), by=1.0), DtypeError, r"'x' is float64; the kernel expects float32"),
    "no twin": (lambda: power(twin=None)(x2(), a=1.0), DeviceError, "no twin, .* pass twin= .* 'emulated'"),
    "twin's shape": (lambda: power(twin=lambda x: x[:1])(x2(), a=1.0), ShapeError, r"'y' of shape \(1,\), expected \(2,\)"),
    "twin's dtype": (lambda: power(twin=lambda x: x + 1j)(x2(), a=1.0), DtypeError, "'y' of complex64, expected float32"),
    "twin's count": (lambda: power(twin=lambda x: (x, x))(x2(), a=1.0), ArgumentError, "returned 2 arrays; expected 1: y"),
    "shapes": (lambda: power(shapes=lambda x: "ab")(x2(), a=1.0), ShapeError, "shapes of .* returned 'ab'; expected a shape"),
    "gradients": (lambda: backward_of(lambda dy: (dy, dy)), GradientError, r"backward of .* returned .* for each of x"),
    "gradient's shape": (lambda: backward_of(lambda dy: dy.sum()), ShapeError, r"'x' a gradient of shape \(\) .* \(2,\)"),
    "no backward": (lambda: power(backward=None)(x2(), a=1.0).sum().backward(), GradientError, "'power' has no backward"),
    "changed in place": (changed_in_place, InPlaceError, "power saved a tensor for backward"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_raises_with_a_clear_message(name: str) -> None:
    act, error, message = MISTAKES[name]
    with pytest.raises(error) as raised:
        act()
    assert re.search(message, str(raised.value)), str(raised.value)


def launch_power(options: dict[str, Any], source: str = POWER, **launch: Any) -> None:
    power(source=source, twin=None, launch=lambda y: blocks(y) | launch)(gpunet.ones(2, device="emulated"), **options)


WRONG_LAUNCHES: dict[str, tuple[Callable[[], Any], str]] = {
    "missing scalar": (lambda: launch_power({}), "the scalar 'a' of .* has no value: pass a=, or return it"),
    "twice": (lambda: launch_power({"a": 1.0, "n": 2}), "'n' was passed and is also computed by launch"),
    "unknown": (lambda: launch_power({"a": 1.0}, stride=2), "returned 'stride', which is not a scalar of power"),
    "no number": (lambda: launch_power({"a": "x"}), "scalar 'double a' is 'x', which is not a valid float64"),
    "a fraction": (lambda: launch_power({"a": 1.0}, n=1.5), "scalar 'long long n' is 1.5, which is not a valid int64"),
    "too large": (
        lambda: launch_power({"a": 1.0}, POWER.replace("long long n", "int n"), n=2**31),
        "'int n' is 2147483648, which is not a valid int32",
    ),
    "a text": (lambda: launch_power({"a": "1.5"}), "scalar 'double a' is '1.5', which is not a valid float64"),
    "half a block": (lambda: launch_power({"a": 1.0}, grid=0.5), "'grid': 0.5.*; expected an integer"),
    "no dictionary": (
        lambda: power(twin=None, launch=lambda y: (1, 256))(gpunet.ones(2, device="emulated"), a=1.0), "expected a dictionary",
    ),
    "devices": (
        lambda: split()(gpunet.ones(2, device="emulated"), gpunet.tensor([1, 2]), by=1.0), "tensor is on emulated, another on cpu",
    ),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", WRONG_LAUNCHES)
def test_wrong_launch_raises_with_a_clear_message(name: str) -> None:
    act, message = WRONG_LAUNCHES[name]
    with pytest.raises((LaunchError, DeviceError)) as raised:
        act()
    assert re.search(message, str(raised.value)), str(raised.value)


@needs_compiler
def test_scalars_are_converted_to_the_declared_type() -> None:
    """A Python float is passed to a C float as float32, not as the first four bytes of a double."""
    x, shift = gpunet.ones(2, device="emulated"), gpunet.tensor([1, 2], device="emulated")
    assert split()(x, shift, by=0.1)[0].tolist() == [float(numpy.float32(0.1))] * 2


@needs_compiler
def test_halves_by_pointers_of_fixed_types(device: str) -> None:
    """The structs of ``common/half.cuh``; with CUDA's headers ``__half`` and ``__nv_bfloat16`` are the same dtypes."""
    source = """
        #include "common/half.cuh"
        __global__ void twice(float16* y, const bfloat16* x, int n) {
          const int i = blockIdx.x * blockDim.x + threadIdx.x;
          if (i < n) y[i] = float16(2.0f * x[i]);
        }
    """
    twice = gpunet.cuda_op(
        source, launch=lambda x: {"grid": -(-x.size // 64), "block": 64, "n": x.size},
        twin=lambda x: (2 * x.astype("float32")).astype("float16"),
    )  # fmt: skip
    x = gpunet.tensor([0.1, -3.0, 1e4, 5e4], dtype="bfloat16")
    assert twice(x).dtype == gpunet.float16 and twice(x).tolist() == [0.2001953125, -6.0, 19968.0, math.inf]
    twice.check(x[:3])
    with pytest.raises(DtypeError, match=r"input 'x' is float32; .* expects bfloat16: convert it with \.to\(gpunet.bfloat16\)"):
        twice(x.float())
