"""Type promotion, NaN, infinities and precision, compared with PyTorch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import DtypeError

F = nn.functional
DTYPES = ("bool", "int32", "int64", "float32", "float64")
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


def both(torch: Any, dtype: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    return gpunet.ones(shape, dtype=dtype), torch.ones(shape, dtype=getattr(torch, dtype))


def name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


# ---- promotion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left, right", list(itertools.product(DTYPES, DTYPES)))
@pytest.mark.parametrize("shapes", [((2,), (2,)), ((2,), ()), ((), (2,))], ids=["equal", "scalar right", "scalar left"])
@pytest.mark.parametrize("op", ARITHMETIC)
def test_tensors_promote_as_in_torch(op: str, shapes: Any, left: str, right: str, device: str, torch: Any) -> None:
    (a, ta), (b, tb) = both(torch, left, shapes[0]), both(torch, right, shapes[1])
    assert name(ARITHMETIC[op](a, b).dtype) == name(ARITHMETIC[op](ta, tb).dtype)


EVERY_DTYPE = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("left", EVERY_DTYPE)
def test_every_pair_promotes_as_in_torch(left: str, torch: Any) -> None:
    """Each dtype in a tensor with a dimension and in a 0-d one, with all others in both and with Python numbers."""
    pairs: list[tuple[Any, Any]] = [*itertools.product([both(torch, left, ()), both(torch, left, (2,))], [*_operands(torch)])]
    wrong = [
        (a[0], b[0], gpunet.ops.broadcast.result_dtype(a[0], b[0]))
        for pair in pairs for a, b in (pair, pair[::-1])
        if name(gpunet.ops.broadcast.result_dtype(a[0], b[0])) != name(torch.result_type(a[1], b[1]))
    ]  # fmt: skip
    assert wrong == []


def _operands(torch: Any) -> Any:
    yield from (both(torch, dtype, shape) for dtype in EVERY_DTYPE for shape in ((), (2,)))
    yield from ((number, number) for number in (True, 2, 2.5))


@pytest.mark.parametrize("number", [True, 2, 2.5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ARITHMETIC)
def test_numbers_promote_as_in_torch(op: str, dtype: str, number: Any, device: str, torch: Any) -> None:
    a, t = both(torch, dtype, (2,))
    f = ARITHMETIC[op]
    assert name(f(a, number).dtype) == name(f(t, number).dtype)
    assert name(f(number, a).dtype) == name(f(number, t).dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.exp(), lambda x: x.sqrt(), lambda x: x.sum(), lambda x: x.sum(0), lambda x: x.prod(), lambda x: x.cumsum(0),
        lambda x: x > 0, lambda x: x == x, lambda x: x.reciprocal(), lambda x: x.log1p(), lambda x: x.sigmoid(),
        lambda x: (x + 0).argmax(), lambda x: x.amax(), lambda x: x.clone(), lambda x: x.float(), lambda x: x.long(),
        lambda x: x.sort().indices, lambda x: x.tanh(),
    ],
)  # fmt: skip
def test_functions_give_the_dtype_of_torch(f: Any, dtype: str, device: str, torch: Any) -> None:
    a, t = both(torch, dtype, (3,))
    assert name(f(a).dtype) == name(f(t).dtype)


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_numpy_scalars_and_arrays_mix(dtype: str, device: str) -> None:
    x = gpunet.ones(2, dtype=dtype)
    assert (x * numpy.float64(0.5)).dtype == ("float32" if dtype == "int64" else dtype)
    if device == "cpu":
        array = numpy.ones(2, dtype)
        for mixed in (x + array, array + x, array @ x.double() if dtype == "float64" else array * x):
            assert isinstance(mixed, gpunet.Tensor) and mixed.dtype == dtype


def test_default_dtype(device: str) -> None:
    assert gpunet.tensor([0.1]).dtype == gpunet.zeros(1).dtype == "float32"
    assert gpunet.tensor([1]).dtype == "int64"
    assert gpunet.tensor([True]).dtype == "bool"
    assert gpunet.tensor(numpy.float64(0.1)).dtype == "float64"
    gpunet.set_default_dtype(gpunet.float64)
    assert (gpunet.tensor([0.1]) == 0.1).all()
    assert nn.Linear(1, 1).weight.dtype == gpunet.randn(1).dtype == "float64"
    assert (gpunet.tensor([1, 2]) / 2).dtype == "float64"
    with pytest.raises(DtypeError, match="int64"):
        gpunet.set_default_dtype(gpunet.int64)


def test_python_number_keeps_the_precision_of_the_requested_dtype(device: str) -> None:
    assert gpunet.tensor(0.1, dtype="float64").item() == 0.1
    assert gpunet.tensor([0.1, 0.2], dtype="float64").tolist() == [0.1, 0.2]
    assert gpunet.full((1,), 0.1, dtype="float64").item() == 0.1
    found = gpunet.linspace(0.0, 1.0, 11, dtype="float64").tolist()
    numpy.testing.assert_allclose(found, numpy.linspace(0, 1, 11), rtol=2e-16)
    assert (gpunet.ones(1, dtype="float64") * 0.1).item() == 0.1


# ---- NaN and infinity -----------------------------------------------------------------------------------------------

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e30, -1e30, 1e-30, -2.0, 2.0]
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda f, x: f.relu(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.1),
    "sigmoid": lambda f, x: x.sigmoid(),
    "tanh": lambda f, x: x.tanh(),
    "gelu": lambda f, x: f.gelu(x),
    "gelu_tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "silu": lambda f, x: f.silu(x),
    "elu": lambda f, x: f.elu(x),
    "softplus": lambda f, x: f.softplus(x),
    "exp": lambda f, x: x.exp(),
    "log": lambda f, x: x.log(),
    "sqrt": lambda f, x: x.sqrt(),
    "abs": lambda f, x: x.abs(),
    "erf": lambda f, x: x.erf(),
    "square": lambda f, x: x.square(),
    "reciprocal": lambda f, x: x.reciprocal(),
    "clamp": lambda f, x: x.clamp(-1.0, 1.0),
    "pow": lambda f, x: x**3,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_special_numbers_give_the_values_of_torch(function: str, device: str, torch: Any) -> None:
    """Without warnings, which are errors in this suite."""
    numbers = [x for x in SPECIAL if x != math.inf or "gelu" not in function]  # torch's gelu(inf) is NaN, ours is inf
    mine = FUNCTIONS[function](F, gpunet.tensor(numbers))
    theirs = FUNCTIONS[function](torch.nn.functional, torch.tensor(numbers))
    numpy.testing.assert_allclose(mine.cpu().numpy(), theirs.numpy(), rtol=1e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_at_extreme_numbers_are_those_of_torch(function: str, device: str, torch: Any) -> None:
    """0 at kinks, and no intermediate overflow.  At infinities and NaN the libraries differ, so these are left out."""
    x, t = gpunet.tensor(SPECIAL, requires_grad=True), torch.tensor(SPECIAL, requires_grad=True)
    FUNCTIONS[function](F, x).sum().backward()
    FUNCTIONS[function](torch.nn.functional, t).sum().backward()
    if function == "gelu_tanh":  # in PyTorch the square overflows
        t.grad[t == 1e30], t.grad[t == -1e30] = 1.0, 0.0
    finite = numpy.isfinite(SPECIAL)
    mine, theirs = x.grad.cpu().numpy()[finite], t.grad.numpy()[finite]
    numpy.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.max(), lambda x: x.min(), lambda x: x.sum(), lambda x: x.mean(), lambda x: x.norm(), lambda x: x.amax(0),
        lambda x: x.max(0).values, lambda x: x.softmax(0), lambda x: x.logsumexp(0), lambda x: x.cumsum(0)[-1],
        lambda x: gpunet.maximum(x, 1.0), lambda x: gpunet.minimum(1.0, x),
    ],
)  # fmt: skip
def test_nan_propagates(f: Any, device: str) -> None:
    assert f(gpunet.tensor([1.0, math.nan, 2.0])).isnan().any()


def test_argmax_finds_nan_as_in_torch(device: str) -> None:
    assert gpunet.tensor([1.0, math.nan, 2.0]).argmax().item() == 1


def test_where_passes_no_nan_from_the_unselected_operand(device: str) -> None:
    x = gpunet.tensor([0.0, 4.0], requires_grad=True)
    gpunet.where(x > 0, x.clamp(min=1e-9).sqrt(), 0.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_power_at_zero(device: str, torch: Any) -> None:
    for base, exponent in ((0.0, 2.0), (0.0, 1.0), (0.0, 0.0), (-2.0, 3.0), (0.0, 0.5)):
        grads = []
        for library in (gpunet, torch):
            b, e = library.tensor([base], requires_grad=True), library.tensor([exponent], requires_grad=True)
            (b**e).sum().backward()
            grads.append((b.grad.item(), e.grad.item()))
        numpy.testing.assert_equal(*grads)


def test_ties_share_the_gradient_as_in_torch(device: str, torch: Any) -> None:
    functions = (lambda lib, x: x.amax(0), lambda lib, x: lib.maximum(x, x * 1.0), lambda lib, x: x.max(0).values)
    for f in (*functions, lambda lib, x: x.max()):
        grads = []
        for library in (gpunet, torch):
            x = library.tensor([1.0, 3.0, 3.0, 2.0], requires_grad=True)
            f(library, x).sum().backward()
            grads.append(x.grad.tolist())
        assert grads[0] == grads[1]


def test_norm_of_zero_has_gradient_zero(device: str) -> None:
    x = gpunet.zeros(3, requires_grad=True)
    x.norm().backward()
    assert x.grad.tolist() == [0.0] * 3


def test_softmax_of_large_numbers(device: str) -> None:
    x = gpunet.tensor([[1e4, 0.0, -1e4], [-math.inf, 0.0, 0.0]])
    assert x.softmax(1).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    assert x.log_softmax(1)[0].tolist() == [0.0, -1e4, -2e4]
    assert gpunet.tensor([1e4, 1e4]).logsumexp(0).item() == pytest.approx(1e4 + math.log(2))
    assert gpunet.tensor([-math.inf, -math.inf]).logsumexp(0).item() == -math.inf


# ---- the CPU's results on every device ------------------------------------------------------------------------------

INTEGERS = [0, 1, -1, 2, -2, 3, -3, 7, -7, 2**31 - 1, -(2**31)]
NUMBERS = {
    "float32": [*SPECIAL, 1.0, -1.0, 0.5, -0.5, 2.5, 7.3, -7.3, 1e38, 1e-42],
    "float64": [*SPECIAL, 1.0, -1.0, 0.5, -0.5, 2.5, 7.3, -7.3, 1e300, 5e-324],
    "int32": INTEGERS, "int64": [*INTEGERS, 2**62, -(2**63)], "int8": [0, 1, -1, 2, -3, 7, 127, -128], "uint8": [0, 1, 3, 255],
}  # fmt: skip


def results_of(f: Callable[[str], Any], device: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What ``f`` returns on the CPU and on a device."""
    here, there = (f(where).cpu().numpy() for where in ("cpu", device))
    assert here.dtype == there.dtype
    return here, there


def assert_same(here: numpy.ndarray, there: numpy.ndarray) -> None:
    """Equal numbers with equal signs of zero; NaN in the same places."""
    numpy.testing.assert_array_equal(there, here)
    if here.dtype.kind == "f":
        numpy.testing.assert_array_equal(numpy.signbit(there)[here == 0], numpy.signbit(here)[here == 0])


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("op", [lambda a, b: a // b, lambda a, b: a % b], ids=["floor_divide", "remainder"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_division_has_the_numbers_of_the_cpu(op: Any, dtype: str, device: str) -> None:
    """Also by zero, of infinities, and of the smallest integer by -1."""
    values = numpy.array(NUMBERS[dtype], dtype)
    assert_same(*results_of(lambda d: op(gpunet.tensor(values[:, None], device=d), gpunet.tensor(values, device=d)), device))
    for number in (2, -3) if dtype != "uint8" else (2,):
        assert_same(*results_of(lambda d, n=number: op(gpunet.tensor(values, device=d), n), device))
    if dtype.startswith("float"):
        for number in (0.0, -0.0, math.inf, -math.inf, math.nan):
            assert_same(*results_of(lambda d, n=number: op(gpunet.tensor(values, device=d), n), device))


FILLS: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "full": lambda x: gpunet.full(x.shape, -0.0, device=x.device),
    "fill_": lambda x: x.fill_(-0.0),
    "fill_ with a tensor": lambda x: x.fill_(gpunet.tensor(-0.0, device=x.device)),
    "constant_": lambda x: nn.init.constant_(x, -0.0),
    "slice": lambda x: x.__setitem__(slice(1, None), -0.0),
    "element": lambda x: x.__setitem__((1, 0), -0.0),
    "transposed": lambda x: x.T.__setitem__(0, -0.0),
    "integers": lambda x: x.__setitem__([0, 1], -0.0),
    "mask": lambda x: x.__setitem__(x == 1.0, -0.0),
    "tensor": lambda x: x.__setitem__(0, gpunet.tensor(-0.0, device=x.device)),
    "masked_fill_": lambda x: x.masked_fill_(x == 1.0, -0.0),
    "where": lambda x: gpunet.where(x == 2.0, x, -0.0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", FILLS)
def test_negative_zero_keeps_its_sign(name: str, dtype: str, device: str) -> None:
    def fill(where: str) -> gpunet.Tensor:
        x = gpunet.tensor([[1.0, 2.0], [1.0, 1.0]], dtype=dtype, device=where)
        result = FILLS[name](x)
        return x if result is None else result

    assert_same(*results_of(fill, device))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_first_extreme_or_nan_is_found(name: str, device: str) -> None:
    values = numpy.tile(numpy.array([0.0, 3.0, -0.0, -3.0, 3.0, -3.0], "float32"), (4, 200))
    values[1, [700, 900, 30]] = math.nan
    values[2, 5:] = math.inf
    for dim in (None, 0, 1):
        assert_same(*results_of(lambda d, dim=dim: getattr(gpunet.tensor(values, device=d), name)(dim), device))
    integers = numpy.tile(numpy.array([1, 5, -5, 5], "int64"), 300)
    assert_same(*results_of(lambda d: getattr(gpunet.tensor(integers, device=d), name)(0), device))


def test_extremes_of_a_0d_tensor(device: str) -> None:
    for number in (gpunet.tensor(2.5), gpunet.tensor(3)):
        assert number.argmax().item() == number.argmin(-1).item() == number.argmax(0, keepdim=True).item() == 0
        assert number.max(0).values.item() == number.item()
