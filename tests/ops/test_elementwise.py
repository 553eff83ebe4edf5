"""Public elementwise functions: PyTorch's forms of calls, dtypes, gradients of steps, in-place methods, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError

F = nn.functional


def both(f: Callable[..., Any], torch: Any, *values: Any, gradient: bool = False) -> list[list[Any]]:
    """What f(library, *tensors) returns with gpunet and PyTorch: dtype, values, and gradients of ones if ``gradient``."""
    found = []
    for library in (gpunet, torch):
        tensors = [library.tensor(v) for v in values]
        for tensor in tensors:
            if gradient:
                tensor.requires_grad_()
        out = f(library, *tensors)
        if gradient:
            out.sum().backward()
        grads = [x.grad.tolist() for x in tensors] if gradient else []
        found.append([str(out.dtype).removeprefix("torch."), out.detach().tolist(), grads])
    return found


def assert_same(f: Callable[..., Any], torch: Any, *values: Any, gradient: bool = False) -> None:
    (dtype, mine, grads), (expected_dtype, theirs, expected_grads) = both(f, torch, *values, gradient=gradient)
    assert dtype == expected_dtype
    numpy.testing.assert_allclose(mine, theirs, rtol=1e-6)
    for grad, expected in zip(grads, expected_grads):
        numpy.testing.assert_allclose(grad, expected, rtol=1e-5)


# ---- dtypes -----------------------------------------------------------------------------------------------------------

FLOATING = [
    "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "sinh", "cosh", "atan", "arctan", "erf", "sqrt", "rsqrt",
    "reciprocal", "sigmoid", "tanh",
]  # fmt: skip


@pytest.mark.parametrize("name", FLOATING)
def test_floating_functions_of_booleans_and_integers_compute_in_the_default_dtype(name: str, device: str, torch: Any) -> None:
    for values in ([True, True], [3, 1], [16777217, 2]):
        for dtype in ("bool",) if values[0] is True else ("int32", "int64"):
            assert_same(lambda lib, x, d=dtype: getattr(lib, name)(x.to(getattr(lib, d))), torch, values)
    assert_same(lambda lib, x: getattr(lib, name)(x.to(lib.int8)), torch, [3, 1])


SAME_DTYPE = {
    "relu": [-1, 2**53 + 1], "round": [2**53 + 1, -3], "floor": [2**53 + 1], "ceil": [-7], "trunc": [2**53 + 1], "abs": [-3, 2],
    "neg": [-3, 2], "square": [-3, 2**30], "sign": [-3, 0, 2], "sgn": [True, False],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_DTYPE)
def test_functions_that_keep_integers(name: str, device: str) -> None:
    values = SAME_DTYPE[name]
    expected = {"relu": lambda v: max(v, 0), "abs": abs, "neg": lambda v: -v, "square": lambda v: v * v}.get(name, lambda v: v)
    if name == "sign":
        expected = lambda v: (v > 0) - (v < 0)  # noqa: E731
    out = getattr(gpunet, name)(gpunet.tensor(values))
    assert out.tolist() == [expected(v) for v in values]
    assert out.dtype == gpunet.tensor(values).dtype


@pytest.mark.parametrize(
    "f",
    [
        lambda lib, x: x**2.0, lambda lib, x: x**2, lambda lib, x: 2.0**x, lambda lib, x: lib.pow(2, x), lambda lib, x: 5 // x,
        lambda lib, x: 5 % x, lambda lib, x: x // 2, lambda lib, x: x % -2, lambda lib, x: lib.remainder(5, x),
        lambda lib, x: lib.floor_divide(x, 2.0), lambda lib, x: lib.div(x, 2, rounding_mode="floor"),
        lambda lib, x: lib.div(-x, 2, rounding_mode="trunc"), lambda lib, x: lib.div(x, -2.0, rounding_mode="trunc"),
        lambda lib, x: x & 3, lambda lib, x: 3 | x, lambda lib, x: x ^ 1, lambda lib, x: ~x, lambda lib, x: x & (x > 6),
        lambda lib, x: lib.add(x, x, alpha=2), lambda lib, x: lib.sub(x, 1, alpha=3), lambda lib, x: lib.rsub(x, 2, alpha=2),
        lambda lib, x: lib.add(x, 1.5, alpha=0.5), lambda lib, x: lib.add(x.double(), x, alpha=0.1),
        lambda lib, x: lib.clamp(x, 6, 7), lambda lib, x: lib.clamp(x, min=6.5), lambda lib, x: x.clip(max=lib.tensor([6, 5, 9])),
        lambda lib, x: lib.clamp_min(x, lib.tensor(6.5)), lambda lib, x: x.clamp_max(6), lambda lib, x: lib.where(x > 6, x, 2.0),
        lambda lib, x: lib.where(x > 6, 1, 2), lambda lib, x: lib.where(x > 6, True, 0.5),
        lambda lib, x: lib.where(x > 6, x, lib.tensor(2.5, dtype=lib.float64)), lambda lib, x: x.masked_fill(x > 6, 7.9),
        lambda lib, x: lib.where(x > 6, x.half(), lib.tensor(2.5, dtype=lib.bfloat16)),
        lambda lib, x: lib.where(x > 6, lib.tensor(-2), x.to(lib.uint8)), lambda lib, x: x[0].int().clamp_min(x.to(lib.uint8)),
        lambda lib, x: x[0].half().clip(lib.tensor(0.5), max=6), lambda lib, x: x[0].half().clip(lib.tensor(0.5), lib.tensor(6)),
        lambda lib, x: x[0].half().clip(max=lib.tensor(6.5)), lambda lib, x: x.clip(6, lib.tensor(6.5, dtype=lib.float64)),
        lambda lib, x: x.masked_fill(x > 6, lib.tensor(-7.9)), lambda lib, x: (x > 6).masked_fill(x > 7, 0),
        lambda lib, x: x.int().masked_fill(x > 6, True), lambda lib, x: lib.logical_and(x, x - 7), lambda lib, x: x.logical_not(),
        lambda lib, x: x == 7.0, lambda lib, x: lib.isclose(x, x + 1, rtol=0.1), lambda lib, x: x.square(),
        lambda lib, x: (x > 6).square(), lambda lib, x: (x > 6) ** 2, lambda lib, x: lib.maximum(x.to(lib.uint8), lib.tensor(7)),
        lambda lib, x: lib.tensor([1, -1, 2]) ** -x, lambda lib, x: (-1) ** -x, lambda lib, x: x ** lib.tensor([2, 0, -1]),
        lambda lib, x: x.to(lib.uint8) & lib.tensor(-4, dtype=lib.int32), lambda lib, x: x + lib.tensor([True, False, True]),
    ],
)  # fmt: skip
def test_integers_have_the_dtype_and_values_of_torch(f: Any, device: str, torch: Any) -> None:
    assert_same(f, torch, [6, 7, 8])


def test_comparisons_are_in_the_promoted_dtype(device: str, torch: Any) -> None:
    assert_same(lambda lib, x, y: x == y, torch, [16777217], [16777216.0])
    assert_same(lambda lib, x: x == 16777216.0, torch, [16777217])
    assert_same(lambda lib, x: x == lib.tensor(0.1, dtype=lib.float64), torch, [0.1])
    assert_same(lambda lib, x: x <= x.to(lib.bfloat16), torch, [0.1, math.nan])


def test_comparison_with_no_number_is_that_of_python(device: str) -> None:
    x = gpunet.tensor([1])
    assert (x == None) is False and (x != "a") is True  # noqa: E711
    with pytest.raises(TypeError):
        x < None  # noqa: B015


# ---- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "sign", "sgn"])
def test_steps_have_gradient_zero_in_the_graph(name: str, device: str) -> None:
    x = gpunet.tensor([1.5, -0.2, 0.0, math.inf], requires_grad=True)
    y = getattr(gpunet, name)(x)
    assert y.requires_grad
    y.backward(gpunet.tensor([1.0, math.inf, math.nan, 1.0]))
    assert x.grad.tolist() == [0.0] * 4


def test_remainder_stays_in_the_graph(device: str, torch: Any) -> None:
    assert_same(lambda lib, x: x % 2 + x * x, torch, [5.5, -2.25], gradient=True)
    assert_same(lambda lib, x, y: lib.remainder(x, y), torch, [5.5, -2.25], [2.0, -0.7], gradient=True)
    x = gpunet.tensor([3.5], requires_grad=True)
    (8.0 % x).sum().backward()
    assert x.grad.tolist() == [-2.0]


def test_gradient_of_a_quotient_does_not_square_the_divisor(device: str) -> None:
    b = gpunet.tensor([1e25], requires_grad=True)
    (gpunet.tensor([1e30]) / b).sum().backward()
    assert b.grad.item() == pytest.approx(-1e-20)


@pytest.mark.parametrize(
    "cut", [lambda x: x.long().float(), lambda x: x.int() * 1.0, lambda x: x.bool().float(), lambda x: x.to(gpunet.int64) * 1.0]
)
def test_graph_is_cut_where_a_tensor_becomes_integer(cut: Any, device: str) -> None:
    x = gpunet.tensor([1.5, 2.5], requires_grad=True)
    assert not cut(x).requires_grad
    (cut(x) * x).sum().backward()
    assert x.grad.tolist() == cut(x).tolist()


SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5]


@pytest.mark.parametrize(
    "f",
    [
        lambda lib, x, y: lib.maximum(x, y), lambda lib, x, y: lib.minimum(x, y), lambda lib, x, y: x**y,
        lambda lib, x, y: lib.clamp(x, y, 0.5 * y), lambda lib, x, y: x.clamp(min=y), lambda lib, x, y: x.clamp(max=y),
        lambda lib, x, y: lib.div(x, y, rounding_mode="trunc"),
    ],
)  # fmt: skip
def test_gradients_at_ties_infinities_and_nan_are_those_of_torch(f: Any, device: str, torch: Any) -> None:
    a, b = (numpy.array(SPECIAL, "float32")[i].tolist() for i in numpy.indices((len(SPECIAL),) * 2).reshape(2, -1))
    assert_same(f, torch, a, b, gradient=True)


def test_power_of_a_number_to_a_tensor(device: str, torch: Any) -> None:
    for base in (2.0, 0.0, -2.0, 0, 3):
        assert_same(lambda lib, x, b=base: b**x, torch, [0.0, 1.5, -1.0, 2.0], gradient=True)


def test_gradient_of_a_power_of_integers_has_the_precision_of_the_exponent(device: str, torch: Any) -> None:
    grads = []
    for library in (gpunet, torch):
        x = library.tensor([0.3], dtype=library.float64, requires_grad=True)
        (library.tensor([7]) ** x).sum().backward()
        grads.append(x.grad.item())
    assert grads[0] == pytest.approx(grads[1], rel=1e-14)


def test_gradient_of_a_power_of_a_0d_base_has_the_precision_of_the_result(device: str) -> None:
    x = gpunet.tensor([2.448], dtype="float64", requires_grad=True)
    (gpunet.tensor(0.5) ** x).sum().backward()
    assert x.grad.item() == pytest.approx(0.5**2.448 * math.log(0.5), rel=1e-14)


def test_gradient_of_a_power_with_integer_exponents_has_the_precision_of_the_base(device: str) -> None:
    x = gpunet.tensor(1.01, dtype="float64", requires_grad=True)
    (x ** gpunet.tensor([-3, 0, -128], dtype="int8")).sum().backward()
    assert x.grad.item() == pytest.approx(-3 * 1.01**-4 - 128 * 1.01**-129, rel=1e-14)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "sigmoid", "tanh", "softplus", "elu"])
def test_second_derivatives_of_activations_at_zero(name: str, device: str, torch: Any) -> None:
    """The compositions in primitives have no kink there; where the function has one, they take its right side."""
    seconds = []
    for library in (gpunet, torch):
        x = library.tensor([0.0], dtype=library.float64, requires_grad=True)
        f = library.nn.functional
        y = f.gelu(x, approximate="tanh") if name == "gelu_tanh" else getattr(f, name)(x)
        (first,) = library.autograd.grad(y.sum(), x, create_graph=True)
        first.sum().backward()
        seconds.append(x.grad.item())
    assert seconds[0] == pytest.approx(seconds[1], abs=1e-12)


@pytest.mark.parametrize("slope", [0.01, 1.0, 3.0, 1e30, -1.0])
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_gradients_of_activations_with_any_slope(name: str, slope: float, device: str, torch: Any) -> None:
    assert_same(lambda lib, x: getattr(lib.nn.functional, name)(x, slope), torch, [0.0, 2.0, -1.0], gradient=True)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "silu", "gelu", "sigmoid", "tanh", "softplus"])
def test_gradients_of_activations_at_nan_are_those_of_torch(name: str, device: str, torch: Any) -> None:
    assert_same(lambda lib, x: getattr(lib.nn.functional, name)(x), torch, [math.nan, -1.0, 0.0, 2.0], gradient=True)
    firsts = []
    for library in (gpunet, torch):
        x = library.tensor([math.nan, -1.0, 2.0], requires_grad=True)
        (first,) = library.autograd.grad(getattr(library.nn.functional, name)(x).sum(), x, create_graph=True)
        firsts.append(first.tolist())
    assert firsts[0] == pytest.approx(firsts[1], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_derivatives_of_tanh_gelu_at_large_numbers_are_their_limits(dtype: str, device: str) -> None:
    """Also where the square of the number overflows, and in the composition in primitives."""
    largest = float(gpunet.finfo(dtype).max)
    numbers = [largest, -largest, math.inf, -math.inf, 12.0, -12.0, math.nan]
    for options in ({}, {"create_graph": True}):
        x = gpunet.tensor(numbers, dtype=dtype, requires_grad=True)
        (first,) = gpunet.autograd.grad(gpunet.nn.functional.gelu(x, approximate="tanh").sum(), x, **options)
        assert first.tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, math.nan], abs=0, nan_ok=True)
    (second,) = gpunet.autograd.grad(first.sum(), x)
    assert second.tolist() == pytest.approx([0.0] * 6 + [math.nan], abs=1e-30, nan_ok=True)


def test_negative_integers_beside_uint8_wrap_around(device: str) -> None:
    x = gpunet.tensor([1, 2, 253], dtype="uint8")
    assert (x + (-1)).tolist() == [0, 1, 252] and (-3 // x).tolist() == [253, 126, 1]
    assert (x & -3).tolist() == [1, 0, 253] and x.clone().mul_(-1).tolist() == [255, 254, 3]
    assert (x > -1).tolist() == [True, True, True]
    mask = gpunet.tensor([True, False, True])
    assert x.masked_fill(mask, -1).tolist() == [255, 2, 255] and gpunet.where(mask, x, -2).tolist() == [1, 254, 253]
    assert gpunet.add(x, x, alpha=-1).tolist() == [0, 0, 0]


def test_alpha_as_a_tensor_keeps_the_dtype(device: str) -> None:
    x, alpha = gpunet.tensor(-1.625, dtype="float16"), gpunet.tensor(2)
    assert gpunet.sub(x, 0.5, alpha=alpha).dtype == gpunet.add(x, 1, alpha=alpha).dtype == "float16"
    assert gpunet.sub(x, 0.5, alpha=alpha).item() == -2.625


def test_numbers_beyond_a_floating_dtype_become_infinite(device: str) -> None:
    x, mask = gpunet.tensor([2.0, 3.0], dtype="float16"), gpunet.tensor([True, False])
    assert x.masked_fill(mask, -1e9).tolist() == [-math.inf, 3.0] and gpunet.where(mask, x, 2**70).tolist() == [2.0, math.inf]
    assert x.fill_(1e30).tolist() == [math.inf, math.inf]
    with pytest.raises(DtypeError, match="where: 1000.* does not fit into float16"):
        gpunet.where(mask, x, 10**400)


def test_sign_of_nan_is_zero(device: str) -> None:
    assert gpunet.tensor([math.nan, -0.5]).sign().tolist() == [0.0, -1.0]


# ---- in place -----------------------------------------------------------------------------------------------------------

#: In-place methods and an argument with which an integer tensor would become floating.
WIDENING = {
    "add_": 0.5, "sub_": 0.5, "mul_": 0.5, "div_": 2, "pow_": 0.5, "clamp_": 0.5, "remainder_": 2.5, "floor_divide_": 2.5,
    **dict.fromkeys([f"{name}_" for name in FLOATING]),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDENING)
def test_in_place_method_refuses_a_floating_result_in_an_integer_tensor(name: str, device: str) -> None:
    x = gpunet.tensor([7, 9])
    arguments = [] if WIDENING[name] is None else [WIDENING[name]]
    with pytest.raises(DtypeError, match=r"result has dtype float32, which a tensor of int64 cannot hold.*\.to\(float32\)"):
        getattr(x, name)(*arguments)
    assert x.tolist() == [7, 9]


def test_in_place_operators_of_integers(device: str) -> None:
    x = gpunet.tensor([7, 9])
    with pytest.raises(DtypeError, match="cannot hold"):
        x /= 2
    with pytest.raises(DtypeError, match="cannot hold"):
        x += gpunet.tensor([math.nan, 1.5])
    before = x
    x //= 2
    x %= 3
    x **= 2
    x |= 4
    x &= 5
    x ^= 1
    assert x is before and x.tolist() == [5, 4]
    mask = gpunet.tensor([True, False])
    with pytest.raises(DtypeError, match="int64, which a tensor of bool"):
        mask += 1
    mask ^= True
    assert mask.tolist() == [False, True]


@pytest.mark.parametrize("name", [*FLOATING, "neg", "abs", "square", "sign", "floor", "ceil", "round", "trunc", "relu"])
def test_in_place_method_of_each_function_of_one_tensor(name: str, device: str) -> None:
    start = [0.3, 0.7]
    expected = getattr(gpunet, name)(gpunet.tensor(start)).tolist()
    plain = gpunet.tensor(start)
    assert getattr(plain, f"{name}_")() is plain and plain.tolist() == expected
    x, w = (gpunet.tensor(start, requires_grad=True) for _ in range(2))
    y = x * 1.0
    getattr(y, f"{name}_")()
    y.sum().backward()
    getattr(gpunet, name)(w).sum().backward()
    assert y.tolist() == expected and x.grad.tolist() == w.grad.tolist()
    with pytest.raises(GradientError, match="^[a-z0-9]+_ changes a leaf"):
        getattr(w, f"{name}_")()


@pytest.mark.parametrize(
    "f",
    [
        lambda x, **inplace: F.relu(x, **inplace), lambda x, **inplace: F.leaky_relu(x, 0.2, **inplace),
        lambda x, **inplace: F.elu(x, 0.5, **inplace), lambda x, **inplace: F.silu(x, **inplace),
        lambda x, **inplace: F.leaky_relu_(x, 0.2) if inplace else F.leaky_relu(x, 0.2),
        lambda x, **inplace: F.elu_(x, 0.5) if inplace else F.elu(x, 0.5), lambda x, **inplace: (F.relu_ if inplace else F.relu)(x),
    ],
)  # fmt: skip
def test_inplace_activation_changes_its_argument(f: Any, device: str) -> None:
    start = [-1.0, 0.5]
    x, w = (gpunet.tensor(start, requires_grad=True) for _ in range(2))
    y = x * 1.0
    result = f(y, inplace=True)
    expected = f(w)
    assert result is y and y.tolist() == expected.tolist()
    y.sum().backward()
    expected.sum().backward()
    assert x.grad.tolist() == w.grad.tolist()


def test_inplace_dropout(device: str) -> None:
    x = gpunet.ones(1000)
    assert F.dropout(x, 0.5, True, True) is x
    assert set(x.tolist()) == {0.0, 2.0}
    assert F.dropout(x, 0.5, training=False, inplace=True) is x


def test_overwritten_tensor_receives_no_gradient(device: str) -> None:
    for change in (lambda y: y.fill_(3.0), lambda y: y.zero_(), lambda y: y.copy_(gpunet.ones(2)), lambda y: y.logical_not_()):
        x = gpunet.tensor([1.0, 2.0], requires_grad=True)
        y = x * 5.0
        change(y)
        y.sum().backward()
        assert x.grad.tolist() == [0.0, 0.0]


def test_copy_of_a_leaf_is_in_the_graph(device: str) -> None:
    source, target = gpunet.tensor([1.0, 2.0], requires_grad=True), gpunet.zeros(2)
    target.copy_(source)
    (target * 3.0).sum().backward()
    assert source.grad.tolist() == [3.0, 3.0]


# ---- forms of calls -----------------------------------------------------------------------------------------------------


def test_keywords_and_out(device: str) -> None:
    x, y = gpunet.tensor([1.0, 4.0]), gpunet.tensor([2.0, 8.0])
    out = gpunet.zeros(2)
    assert gpunet.add(input=x, other=y, alpha=2, out=out) is out and out.tolist() == [5.0, 20.0]
    assert gpunet.sqrt(input=x).tolist() == gpunet.sqrt(x=x).tolist() == [1.0, 2.0]
    assert gpunet.pow(x, exponent=2).tolist() == [1.0, 16.0] and gpunet.pow(input=2, exponent=x).tolist() == [2.0, 16.0]
    assert gpunet.pow(2, gpunet.tensor([1.0, 3.0])).tolist() == [2.0, 8.0]
    assert gpunet.round(gpunet.tensor([1.25, -1.35]), decimals=1).tolist() == pytest.approx([1.2, -1.4])
    assert gpunet.clamp(input=x, max=2).tolist() == [1.0, 2.0]
    assert gpunet.eq(input=x, other=1).tolist() == [True, False]
    assert x.div(other=3.0, rounding_mode="floor").tolist() == [0.0, 1.0]


def test_superfluous_argument_of_an_in_place_method_is_refused(device: str) -> None:
    x = gpunet.ones(2)
    x.mul_(x2=2.0).sub_(other=1.0)
    for call in (lambda: x.add_(1.0, 2.0), lambda: x.exp_(1.0), lambda: x.relu_(1.0), lambda: x.mul_(2.0, out=x)):
        with pytest.raises(TypeError, match=r"^(add|exp|relu_|mul)\(\) (takes|got)"):
            call()
    assert x.tolist() == [1.0, 1.0]


def test_result_that_overflows_out_becomes_infinite_without_a_warning(device: str) -> None:
    out = gpunet.zeros(2, dtype="float16")
    assert gpunet.neg(gpunet.tensor([1e30, 2.0]), out=out).tolist() == [-math.inf, -2.0]


def test_messages_about_out_name_the_function(device: str) -> None:
    with pytest.raises(ShapeError, match=r"^exp: out has shape \(3,\)"):
        gpunet.exp(gpunet.ones(2), out=gpunet.ones(3))


def test_where_of_a_condition_returns_indices(device: str) -> None:
    rows, columns = gpunet.where(gpunet.tensor([[1.0, 0.0], [2.0, 3.0]]))
    assert rows.tolist() == [0, 1, 1] and columns.tolist() == [0, 0, 1] and rows.dtype == "int64"
    assert [i.tolist() for i in gpunet.where(gpunet.tensor(True))] == [[0]]


def test_aliases_are_the_same_function() -> None:
    for alias, name in {
        "absolute": "abs", "arctan": "atan", "clip": "clamp", "divide": "div", "true_divide": "div", "multiply": "mul",
        "negative": "neg", "subtract": "sub", "greater": "gt", "less_equal": "le", "not_equal": "ne",
    }.items():  # fmt: skip
        assert getattr(gpunet, alias) is getattr(gpunet, name) is getattr(gpunet.Tensor, alias)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "negative power": (lambda: gpunet.tensor([2]) ** -1, DtypeError, r"pow: an integer tensor has no power -1.*\.float\(\)"),
    "boolean minus": (lambda: gpunet.tensor([True]) - 1, DtypeError, "sub.*boolean"),
    "minus True": (lambda: gpunet.tensor([1]).sub_(True), DtypeError, "sub.*boolean"),
    "bits of floats": (lambda: gpunet.tensor([1.0]) & 1, DtypeError, r"bitwise_and \(&\) of float32.*integers or booleans"),
    "not of floats": (lambda: ~gpunet.tensor([1.0]), DtypeError, r"bitwise_not \(~\) of float32"),
    "relu of booleans": (lambda: F.relu(gpunet.tensor([True])), DtypeError, "relu of a boolean"),
    "floating alpha": (lambda: gpunet.add(gpunet.tensor([1]), 1, alpha=0.5), DtypeError, "alpha=0.5 for a result of int64"),
    "rounding mode": (lambda: gpunet.div(gpunet.ones(1), 2, rounding_mode="up"), ArgumentError, "rounding_mode='up'.*floor"),
    "decimals": (lambda: gpunet.tensor([15]).round(decimals=-1), DtypeError, "decimals=-1 of a tensor of int64"),
    "clamp_min": (lambda: gpunet.ones(1).clamp_min(None), DtypeError, "clamp_min: got None"),
    "clamp": (lambda: gpunet.ones(1).clamp("a"), DtypeError, "clamp.*'a'"),
    "where": (lambda: gpunet.where(gpunet.ones(1), 1, 2), DtypeError, "condition of dtype float32.*x > 0"),
    "where with one": (lambda: gpunet.where(gpunet.ones(1) > 0, 1), ArgumentError, "one of input and other"),
    "nan into integers": (
        lambda: gpunet.tensor([1]).masked_fill(gpunet.tensor([True]), math.nan), DtypeError, "masked_fill: value=nan .* int64",
    ),
    "negative fill": (lambda: gpunet.zeros(2, dtype="uint8").fill_(-0.25), DtypeError, r"fill_: value=-0.25 .* 0 \.\. 255"),
    "fill": (lambda: gpunet.tensor([1]).fill_(math.inf), DtypeError, "fill_: value=inf does not fit into int64"),
    "value with dimensions": (
        lambda: gpunet.ones(2).masked_fill(gpunet.ones(2) > 0, gpunet.ones(2)), ShapeError, r"shape \(2,\).*0-d",
    ),
    "slope": (lambda: F.leaky_relu(gpunet.ones(1), math.inf), ArgumentError, "negative_slope=inf"),
    "dropout of integers": (lambda: F.dropout(gpunet.tensor([1])), DtypeError, "dropout.*int64"),
    "probability": (lambda: F.dropout(gpunet.ones(1), "a"), DtypeError, "dropout: p='a' has type str; expected a number"),
    "isclose": (lambda: gpunet.isclose(gpunet.ones(1), gpunet.tensor([1])), DtypeError, "float32 and int64"),
    "tolerance": (lambda: gpunet.allclose(gpunet.ones(1), gpunet.ones(1), rtol=-1.0), ArgumentError, "rtol=-1"),
    "large number": (lambda: gpunet.tensor([1], dtype="uint8") + 300, DtypeError, "300"),
    "copy_ with None": (lambda: gpunet.ones(1).copy_(gpunet.ones(1), None), DtypeError, "copy_: non_blocking=None.*True or False"),
    "huge integers": (lambda: gpunet.pow(-3, 2**70), DtypeError, "pow: 1180591620717411303424 does not fit into int64"),
    "addcmul by a fraction": (
        lambda: gpunet.tensor(1).addcmul(gpunet.tensor(1), gpunet.tensor(1), value=gpunet.tensor(0.5)), DtypeError, "value=.*0.5",
    ),
    "masked gradient": (lambda: gpunet.ones(1).to_dense(masked_grad=-1), DtypeError, "to_dense: masked_grad=-1 has type int"),
    "relu_ of a list": (lambda: F.relu_([1.0]), DtypeError, r"relu_: got \[1.0\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, device: str) -> None:
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_isclose_and_allclose(device: str, torch: Any) -> None:
    values = [1.0, math.inf, -math.inf, math.nan, 0.0]
    for options in ({}, {"equal_nan": True}, {"rtol": 0.5, "atol": 0.1}):
        assert_same(lambda lib, x, y, o=options: lib.isclose(x[:, None], y + 0.01, **o), torch, values, values)
    x = gpunet.tensor([1.0, math.nan])
    assert gpunet.allclose(x, x, equal_nan=True) and not x.allclose(x)


def test_the_next_number_towards_one_that_the_dtype_cannot_hold(device: str) -> None:
    x = gpunet.tensor([65504.0, 1.0], dtype=gpunet.float16, device=device)
    assert gpunet.nextafter(x, gpunet.tensor(1e308, dtype=gpunet.float64, device=device)).tolist() == [math.inf, 1.0 + 2**-10]
