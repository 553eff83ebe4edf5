"""Small inputs with their values in PyTorch 2.13, by kind: dimensions, gradients, indices, dtypes, arrays, modules.

The lines run without PyTorch; where it is installed, one test runs them with it, too.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import GpunetError

NAN, INF = math.nan, math.inf

#: A line, an expression, and its value; a pair (value, dtype) states the dtype as well.
Row = tuple[str, str, Any]

DIMENSIONS: list[Row] = [
    ("x = t([[1, 2, 3], [4, 5, 6]])", "torch.flip(x, dims=(-1,))", [[3, 2, 1], [6, 5, 4]]),
    ("x = t([[1, 2, 3], [4, 5, 6]])", "torch.flip(x, (0,))", [[4, 5, 6], [1, 2, 3]]),
    ("x = t([[1, 2, 3], [4, 5, 6]])", "torch.flip(x, [0])", [[4, 5, 6], [1, 2, 3]]),
    ("x = t([[1, 2, 3], [4, 5, 6]])", "x.flip(dims=(0,))", [[4, 5, 6], [1, 2, 3]]),
    ("x = t([[1, 2, 3], [4, 5, 6]])", "x.flip(0, -1)", [[6, 5, 4], [3, 2, 1]]),
    ("x = t([[1.0, 2, 4], [3, 3, 9]])", "x.var(0, False)", [1, 0.25, 6.25]),
    ("x = t([[1.0, 2, 4], [3, 3, 9]])", "x.var(1, True)", [7 / 3, 12.0]),
    ("x = t([[1.0, 2, 4], [3, 3, 9]])", "torch.std(x, 1, True, True)", [[math.sqrt(7 / 3)], [math.sqrt(12)]]),
    ("x = t([1.0, 2, 4])", "x.var(False)", 14 / 9),
    ("x = t([1.0, 2, 4])", "x.std(False)", math.sqrt(14 / 9)),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.sum(dim=())", 21.0),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.mean(dim=())", 3.5),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.amax(dim=())", 6.0),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.amin(dim=())", 1.0),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.var(dim=())", 3.5),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.std(dim=())", math.sqrt(3.5)),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.norm(dim=())", math.sqrt(91)),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.argmax(keepdim=True)", [[5]]),
    ("x = t([[1.0, 2, 3], [4, 5, 6]])", "x.argmin(keepdim=True)", [[0]]),
    ("x = t(2.0)", "x.argmax(0, True)", 0),
    ("x = t(2.0)", "x.argmin(0, True)", 0),
    ("x = torch.ones(1, 2)", "x.squeeze(np.int64(0))", [1.0, 1.0]),
    ("x = torch.ones(1, 2)", "x.max(np.int64(1)).values", [1.0]),
    ("x = torch.ones(1, 2)", "x.permute(dims=(1, 0))", [[1.0], [1.0]]),
    ("x = torch.ones(1, 2)", "x.swapaxes(axis0=0, axis1=1)", [[1.0], [1.0]]),
    ("x = torch.ones(1, 2)", "torch.sum(input=x)", 2.0),
    ("x = torch.ones(1, 2)", "torch.softmax(input=x, dim=1)", [[0.5, 0.5]]),
    ("x = t([1.0, 2.0, 3.0])", "torch.clamp(input=x, max=2)", [1.0, 2.0, 2.0]),
    ("x = t([1.0, 2.0])", "torch.cat([x, x], axis=0)", [1.0, 2.0, 1.0, 2.0]),
    ("x = t([1.0, 2.0])", "torch.stack([x, x], axis=0)", [[1.0, 2.0], [1.0, 2.0]]),
    ("x = t([1.0, 2.0])", "torch.add(x, x, alpha=2)", [3.0, 6.0]),
    ("x = t([1.0, 2.0])", "torch.sub(x, x, alpha=2)", [-1.0, -2.0]),
    ("x = t([1, 2])", "x.sum(dtype=torch.float64)", (3.0, "float64")),
    ("x = t([[1.0, 1.0]])", "torch.softmax(x, 1, dtype=torch.float64)", ([[0.5, 0.5]], "float64")),
    ("x = t([[1.0, 1.0]])", "x.softmax(dim=1, dtype=torch.float64)", ([[0.5, 0.5]], "float64")),
    ("x = t([-3.0, 3.0])", "torch.div(x, 2, rounding_mode='floor')", [-2.0, 1.0]),
    ("x = t([-3.0, 3.0])", "torch.div(x, 2, rounding_mode='trunc')", [-1.0, 1.0]),
    ("x = t([3.0, 1.0])", "x.sort(stable=True).values", [1.0, 3.0]),
    ("x = t([3.0, 1.0])", "x.topk(1, sorted=True).values", [3.0]),
    ("x = t([1.25, -1.25])", "x.round(decimals=1)", [1.2, -1.2]),
    ("x = t([])", "torch.cat([x, torch.ones(2, 3)])", [[1.0] * 3] * 2),
    ("x = torch.zeros(0, 3)", "torch.logsumexp(x, 0)", [-INF] * 3),
]

REFUSED: list[tuple[str, str, type[Exception]]] = [
    ("x = t([1, 2, 3])", "torch.flip(x, dims=(5,))", IndexError),
    ("x = torch.ones(2, 3)", "x.flip(0, 0)", GpunetError),
    ("x = torch.ones(2, 3)", "torch.flip(x, dims=(1, -1))", GpunetError),
    ("x = t(3.0)", "x.max(dim=5)", IndexError),
    ("x = t(3.0)", "x.min(dim=5)", IndexError),
    ("x = t(3.0)", "x.max(dim='q')", TypeError),
    ("x = t(3.0)", "x.min(dim='q')", TypeError),
    ("x = torch.ones(2, 3)", "x.sum(True)", TypeError),
    ("x = torch.ones(2, 3)", "x.mean(dim=True)", TypeError),
    ("x = torch.ones(2, 3)", "x.argmax(dim=True)", TypeError),
    ("x = torch.ones(2, 3)", "x.softmax(dim=True)", TypeError),
    ("x = t(3.0)", "x.size(0)", IndexError),
    ("x = t([7, 9])", "x.__itruediv__(2)", GpunetError),
    ("x = t([7, 9])", "x.__iadd__(t([nan, 1.5]))", GpunetError),
    ("x = t([7, 9])", "x.mul_(0.5)", GpunetError),
    ("x = t([7, 9])", "x.sub_(0.5)", GpunetError),
    ("x = t([7, 9])", "x.sqrt_()", GpunetError),
    ("x = t([7, 9])", "x.exp_()", GpunetError),
    ("x = t([7, 9])", "x.to_dense(t(1))", TypeError),
    ("x = t([7, 9], dtype=torch.int32)", "F.hardtanh_(x, -inf, 300)", ValueError),
    ("x = torch.zeros(3, 3)", "torch.as_strided_scatter(x, torch.ones(3, 3), (3, 3), (0, 3))", GpunetError),
    ("x = torch.ones(2, 1)", "torch.histogramdd(x, [torch.arange(2.0)], 7)", GpunetError),
    ("x = t([1.5])", "F.rrelu(x, upper=inf, training=True)", GpunetError),
    ("x = t([1.5])", "x << 1", GpunetError),
    ("x = t([1.5])", "torch.rrelu(x, generator=nan)", TypeError),
    ("x = t([1.0, 2.0, 4.0])", "x.cov(fweights=t([True, True, False]))", GpunetError),
    ("x = t([1, 2])", "x.repeat_interleave(None)", TypeError),
    ("x = torch.zeros(2, 3)", "x.index_select(1, t([3])).tolist()", IndexError),
    ("x = torch.zeros(2, 3)", "x[:, t([-4])].tolist()", IndexError),
    ("x = torch.ones(2, 3)", "torch.nuclear_norm(x, dim=True)", TypeError),
    ("x = torch.ones(2, 3)", "torch.norm_except_dim(x, 2.0)", TypeError),
    ("x = torch.ones(4)", "torch.split_copy(x, [1, 3])", TypeError),
    ("x = torch.zeros(0, dtype=torch.int64)", "torch.bincount(x, 'q')", TypeError),
    ("x = torch.ones(2, 2)", "torch.gradient(x, spacing=(t(1.0),), dim=1)", GpunetError),
    ("x = torch.ones(2, 2)", "torch.linalg.lstsq(x, x, (), driver='gels')", TypeError),
    ("x = torch.ones(5, 2, 2)", "torch.conv_tbc(x, torch.ones(3, 2, 1), torch.ones(1), [0])", TypeError),
    ("x = torch.ones(2)", "torch.segment_reduce(x, ['sum'], lengths=t([2]))", GpunetError),
    *(
        ("x = torch.ones(1, 1, 4, 4)", call, GpunetError)  # a sequence of one integer, which convolutions take
        for call in (
            "F.fractional_max_pool2d(x, (1,), 2)", "F.fractional_max_pool2d(x, 1, [2])", "F.fractional_max_pool3d(x, 1, [2])",
            "F.lp_pool2d(x, 2, [2])", "F.unfold(x, 2, stride=[1])", "F.fold(torch.ones(1, 1, 16), 4, 1, dilation=[1])",
            "F.max_unpool2d(x, torch.arange(16).reshape(1, 1, 4, 4), 1, [1])",
        )
    ),
]

GRADIENTS: list[Row] = [
    ("x = t([1.5, 2.5], requires_grad=True); (x.long().float() * x).sum().backward()", "x.grad", [1.0, 2.0]),
    ("x = t([1.5, 2.5], requires_grad=True); (x.int().float() * x).sum().backward()", "x.grad", [1.0, 2.0]),
    ("x = t([1.5, 2.5], requires_grad=True); (x.bool().float() * x).sum().backward()", "x.grad", [1.0, 1.0]),
    ("x = t([1.5, 2.5], requires_grad=True); (x.to(torch.int64).float() * x).sum().backward()", "x.grad", [1.0, 2.0]),
    ("x = t([1.5, 2.5], requires_grad=True); y = x.long()", "y.requires_grad", False),
    ("x = t([5.5, -2.25], requires_grad=True); (x % 2 + x * x).sum().backward()", "x.grad", [12.0, -3.5]),
    (
        "x = t([2.0, 3, 0], requires_grad=True); d, = torch.autograd.grad(x.prod(), x, create_graph=True); d.sum().backward()",
        "x.grad", [3.0, 2.0, 5.0],
    ),
    (
        "x = t([1.0, 2.0], requires_grad=True); y = x * 2; y.retain_grad(); y.retain_grad(); (y * y).sum().backward()",
        "y.grad", [4.0, 8.0],
    ),
    ("x = t([2.0, 2, 2], requires_grad=True); x.std().backward()", "x.grad", [0.0, 0.0, 0.0]),
    (
        "x = t([[2.0, 2.0], [1.0, 3.0]], requires_grad=True); x.std(dim=1).sum().backward()",
        "x.grad", [[0.0, 0.0], [-math.sqrt(0.5), math.sqrt(0.5)]],
    ),
    ("x = t([[1.0, 2.0], [3.0, 4.0]], requires_grad=True); y = F.cross_entropy(x, t([-100, -100]))", "y", NAN),
    (
        "x = t([65504.0, -65504.0], dtype=torch.float16, requires_grad=True); "
        "g, = torch.autograd.grad(F.gelu(x, approximate='tanh').sum(), x, create_graph=True)",
        "g", ([1.0, 0.0], "float16"),
    ),
    ("x = torch.zeros(0, requires_grad=True); torch.ones(3).as_strided_scatter(x, (0,), (1,)).sum().backward()", "x.grad", []),
    (
        "x = t([[2.581, 1.0, 0.869], [1.0, 0.375, 2.125]], dtype=torch.float64, requires_grad=True); "
        "w, v = t([[[-1.5, 2, 2], [0.5, 0.5, 1]], [[-1, 2, 3], [1, 0.5, 0.5]]]).double(); "
        "g, = torch.autograd.grad(torch.linalg.lu_factor_ex(x)[0], x, w, create_graph=True); g.backward(v)",
        "x.grad[1, 1]", 0.0,
    ),
    (
        "x = t([[1.0, 2.0], [3.0, 4.0]], requires_grad=True); F.cross_entropy(x, t([-100, -100])).backward()",
        "x.grad", [[0.0, 0.0]] * 2,
    ),
    ("b = t([1e25], requires_grad=True); (t([1e30]) / b).sum().backward()", "b.grad", [-1e-20]),
    *(
        (f"x = t([1.5, -2.5], requires_grad=True); torch.{name}(x).sum().backward()", "x.grad", [0.0, 0.0])
        for name in ("floor", "ceil", "round", "trunc", "sign")
    ),
    (
        "l = torch.nn.Linear(1, 1); _ = (l.weight.detach().zero_(), l.bias.detach().zero_())",
        "l(t([[1.0], [nan], [inf]]))", [[0.0], [NAN], [NAN]],
    ),
    ("l = torch.nn.Linear(2, 1); (l(t([1.0, inf])) * 0).sum().backward()", "l.weight.grad", [[0.0, NAN]]),
]  # fmt: skip

INDICES: list[Row] = [
    *(
        ("x = torch.arange(24.0).reshape(2, 3, 4)", f"x[{index}]", [[12.0 * j + 4 * i + k for k in (0, 2)] for i in range(3)])
        for index, j in (("0, :, t([0, 2])", 0), ("0, :, [0, 2]", 0), ("1, ..., t([0, 2])", 1), ("-1, :, t([0, 2])", 1))
    ),
    ("x = t([[1.0, 2], [3, 4]])", "torch.masked_select(x, t([True, False]))", [1.0, 3.0]),
]

DTYPES: list[Row] = [
    ("x = t([True])", "torch.exp(x)", ([math.e], "float32")),
    ("x = t([True])", "torch.cos(x)", ([math.cos(1)], "float32")),
    ("x = t([True])", "torch.log1p(x)", ([math.log(2)], "float32")),
    ("x = t([-1, 2])", "torch.relu(x)", ([0, 2], "int64")),
    ("x = t([2**53 + 1])", "torch.relu(x).tolist()[0]", 2**53 + 1),
    ("x = t([1, 2, 3])", "x.masked_fill(t([True, False, False]), 7.0)", ([7, 2, 3], "int64")),
    ("x = t([True, True])", "x.masked_fill(t([True, False]), 0)", ([False, True], "bool")),
    ("x = t([1, 2])", "x ** 2.0", ([1.0, 4.0], "float32")),
    ("x = t([1, 2])", "torch.dot(x, t([3, 4]))", (11, "int64")),
    ("x = t([[1, 2], [3, 4]])", "x @ t([1, 1])", ([3, 7], "int64")),
    ("x = t([5])", "5 // x", ([1], "int64")),
    ("x = t([3])", "5 % x", ([2], "int64")),
    ("x = t([1])", "torch.round(x)", ([1], "int64")),
    ("x = t([[1.0, 2], [3, 4]])", "2.0 in x", True),
    ("x = t([[1.0, 2], [3, 4]])", "5.0 in x", False),
]


def half(value: float) -> float:
    return float(np.float16(value))


#: Found by random calls.
NUMBERS: list[Row] = [
    ("x = t([-0.125], dtype=torch.float16)", "torch.celu(x, -3.0)", ([half(-3 * math.expm1(0.125 / 3))], "float16")),
    ("x = t([-0.125], dtype=torch.float16)", "F.elu(x, -3.0)", ([half(-3 * math.expm1(-0.125))], "float16")),
    ("x = t([2.25, -1.875], dtype=torch.float16)", "x.round(decimals=7)", ([2.25, -1.875], "float16")),
    ("x = t([inf, 65504.0], dtype=torch.float16)", "torch.threshold(x, 1e30, 4)", ([INF, 4.0], "float16")),
    ("x = 0.5", "torch.logspace(x, -3, 1, dtype=torch.int64)", ([3], "int64")),
    ("x = 0.5", "torch.logspace(x, 2.5, 3, dtype=torch.int64)", ([1, 10, 100], "int64")),
    ("x = torch.zeros(1, dtype=torch.bfloat16); x *= t([1e308], dtype=torch.float64)", "x", ([0.0], "bfloat16")),
    ("x = torch.ones(2, dtype=torch.float16)", "F.gaussian_nll_loss(x, x, 1e30)", (INF, "float16")),
    (
        "x = torch.ones(1, 2, dtype=torch.float16)", "F.multilabel_soft_margin_loss(x, t(0.5))",
        (half(math.log1p(math.e) - 0.5), "float16"),
    ),
    ("x = t(0, dtype=torch.int32); y = t([3], dtype=torch.uint8)", "torch.addr(x, y, y)", ([[9]], "int32")),
    ("x = t(1.0, requires_grad=True); y = torch.ones(2); torch.addr(x, y, y).sum().backward()", "x.grad", 4.0),
    *(
        ("x = t([[1.0, 2, 3], [2, 1, -1], [1, 1, 1]])", f"torch.linalg.lstsq(x, torch.ones(3, 1), {options}).solution", expected)
        for options, expected in (
            ("0.5, driver='gels'", [[2.0], [-2.0], [1.0]]), ("1.0, driver='gelss'", [[0.0]] * 3),
        )
    ),
    ("x = t([1, -5, 7], dtype=torch.int32)", "x << 2", ([4, -20, 28], "int32")),
    ("x = t([1, -5, 7], dtype=torch.int32)", "x >> t([1, 1, 40], dtype=torch.int8)", ([0, -3, 0], "int32")),
    ("x = t([1, -5, 7], dtype=torch.int32)", "2 << x", ([4, 0, 256], "int32")),
    ("x = t([1, -5, 2])", "16 >> x", ([8, 0, 4], "int64")),
    ("x = t([1, 2], dtype=torch.int32); x <<= t([1, 40])", "x", ([2, 0], "int32")),
    ("x = t([8, -8]); x >>= 1", "x", ([4, -4], "int64")),
    ("x = t([True])", "x << 1", ([2], "int64")),
    ("x = t([1.5, nan, -3.0, 9.0])", "x.clamp(-1, 1)", ([1.0, NAN, -1.0, 1.0], "float32")),
    ("x = t([1.5, nan, -3.0, 9.0])", "x.clamp(2, 1)", [1.0, NAN, 1.0, 1.0]),
    ("x = t([1.5, nan, -3.0, 9.0])", "x.clamp(t(0.0), t([[1.0], [nan]]))", [[1.0, NAN, 0.0, 1.0], [NAN] * 4]),
    ("x = t([1.5, -3.0], requires_grad=True); x.clamp(-1, 2).sum().backward()", "x.grad", [1.0, 0.0]),
    *(
        ("x = torch.arange(12.0).reshape(1, 3, 4)", f"x{index}", [[[4.0 * j + k for k in (3, 0)] for j in range(3)]])
        for index in (".index_select(2, t([3, 0]))", "[..., t([-1, 0])]", "[:, :, [3, -4]]")
    ),
    ("x = torch.arange(6.0).reshape(2, 3).mT", "x.index_select(1, t([1]))", [[3.0], [4.0], [5.0]]),
    ("x = torch.arange(6).reshape(2, 3)", "x[:, t([[0, 2], [1, -1]])]", ([[[0, 2], [1, 2]], [[3, 5], [4, 5]]], "int64")),
    ("x = torch.arange(3.0)", "x[t(1)]", 1.0),
    ("x = t(2.0, dtype=torch.float64)", "torch.block_diag(x, t([[3.0]]))", ([[2.0, 0.0], [0.0, 3.0]], "float32")),
    *(
        (f"x = t([[[{numbers}]]])", "F.fractional_max_pool2d(x, (1, 4), 1, return_indices=True)[1]", ([[[[place]]]], "int64"))
        for numbers, place in (("[1, nan, nan, inf]", 2), ("[1, 2, 2, 0.0]", 1))
    ),
]  # fmt: skip

ROWS = [*DIMENSIONS, *GRADIENTS, *INDICES, *DTYPES, *NUMBERS]


def evaluate(library: Any, line: str, expression: str) -> Any:
    scope = {"torch": library, "t": library.tensor, "F": library.nn.functional, "np": np, "nan": NAN, "inf": INF}
    exec(line, scope)
    return eval(expression, scope)


def check(result: Any, expected: Any) -> None:
    value, dtype = expected if isinstance(expected, tuple) else (expected, None)
    if not hasattr(result, "detach"):
        assert result == value
        return
    array = np.asarray(result.detach().cpu().tolist())
    assert tuple(result.shape) == np.shape(value)
    np.testing.assert_allclose(array, value, rtol=1e-5, atol=1e-37)
    assert dtype is None or str(result.dtype).removeprefix("torch.") == dtype


@contextlib.contextmanager
def allow_refusal(word: str) -> Iterator[None]:
    """Allow an error whose message contains ``word`` instead of the result."""
    try:
        yield
    except GpunetError as error:
        if word not in str(error):
            raise


def name_of(value: Any) -> str | None:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("line, expression, expected", ROWS, ids=name_of)
def test_value(device: str, line: str, expression: str, expected: Any) -> None:
    check(evaluate(gpunet, line, expression), expected)


@pytest.mark.parametrize("line, expression, error", REFUSED, ids=name_of)
def test_refused(device: str, line: str, expression: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        evaluate(gpunet, line, expression)
    assert isinstance(caught.value, GpunetError)


@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_pytorch(torch: Any) -> None:
    for line, expression, expected in ROWS:
        check(evaluate(torch, line, expression), expected)
    for line, expression, _ in REFUSED:
        with pytest.raises((TypeError, RuntimeError, IndexError, ValueError)):
            evaluate(torch, line, expression)


def test_logsumexp_of_no_dimensions_reduces_all(device: str) -> None:  # PyTorch fails with an error about shapes
    check(evaluate(gpunet, "x = t([[1.0, 2, 3], [4, 5, 6]])", "x.logsumexp(dim=())"), 6.456193)


def test_size_of_a_0d_tensor_names_the_argument(device: str) -> None:
    with pytest.raises(IndexError, match="dim"):
        gpunet.tensor(3.0).size(0)


def test_no_grad_decorates_generators(device: str) -> None:
    x = gpunet.ones(2, requires_grad=True)

    @gpunet.no_grad()
    def values() -> Any:
        yield (x * 2).requires_grad
        yield (x * 2).requires_grad

    generator = values()
    assert not next(generator)
    assert (x * 2).requires_grad
    assert not next(generator)


# ---- arrays ---------------------------------------------------------------------------------------------------------


def subclasses(folder: Path) -> list[Any]:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    memmap = np.memmap(folder / "data", np.float32, "w+", shape=(2, 3))
    memmap[...] = array

    class Labelled(np.ndarray):
        pass

    return [memmap, array.view(Labelled), array.view(np.recarray), np.asmatrix(array), np.ma.masked_array(array, array > 4)]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("index", range(5), ids=["memmap", "subclass", "recarray", "matrix", "masked"])
def test_subclass_of_ndarray_is_taken_as_its_data(index: int, tmp_path: Path) -> None:
    array = subclasses(tmp_path)[index]
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer = nn.Linear(3, 2)
    for tensor in (gpunet.from_numpy(array), gpunet.tensor(array), gpunet.as_tensor(array)):
        assert (tensor * 2).tolist() == (expected * 2).tolist()
        assert (tensor + gpunet.ones(3)).tolist() == (expected + 1).tolist()
        assert layer(tensor).tolist() == layer(gpunet.tensor(expected)).tolist()
        assert type(tensor.numpy()) is np.ndarray


def test_masked_array_gives_its_data() -> None:
    assert gpunet.tensor(np.ma.masked_array([1.0, 2.0], [False, True])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i8", ">i2"])
def test_foreign_byte_order_becomes_native(device: str, dtype: str) -> None:
    native = np.dtype(dtype).newbyteorder("=")
    tensor = gpunet.tensor(np.array([1, 2], dtype))
    assert tensor.dtype == getattr(gpunet, native.name)
    assert tensor.dtype.isnative
    assert (tensor + tensor).tolist() == [2, 4]


def test_assignment_into_an_expanded_tensor(device: str) -> None:
    y = gpunet.tensor([[1.0], [2.0]]).expand(2, 3)
    with allow_refusal("expand"):
        y[0, 0] = 9.0
        assert y.tolist() == [[9.0] * 3, [2.0] * 3]


# ---- modules, optimizers and checkpoints ----------------------------------------------------------------------------


def test_state_dict_has_a_shared_module_under_each_name(device: str) -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    model.load_state_dict(state)
    assert len(list(model.parameters())) == 2


def test_state_dict_takes_prefix_and_keep_vars(device: str) -> None:
    layer = nn.Linear(2, 2)
    assert list(layer.state_dict(prefix="head.")) == ["head.weight", "head.bias"]
    assert layer.state_dict(keep_vars=True)["weight"] is layer.weight
    assert not layer.state_dict()["weight"].requires_grad


def test_module_can_be_pickled(device: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = gpunet.tensor([[1.0, -2.0]])
    assert pickle.loads(pickle.dumps(model))(x).tolist() == model(x).tolist()


def test_key_that_the_file_format_reserves(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with allow_refusal("__metadata__"):
        gpunet.save({"__metadata__": gpunet.ones(1)}, path)
        assert gpunet.load(path)["__metadata__"].tolist() == [1.0]


def test_bfloat16_file(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.array([0x3F80, 0xC000], "<u2").tobytes())
    tensor = gpunet.load(path)["w"]
    assert tensor.dtype == gpunet.bfloat16
    assert tensor.tolist() == [1.0, -2.0]


def test_file_object(tmp_path: Path) -> None:
    file = io.BytesIO()
    gpunet.save({"w": gpunet.tensor([1.0, 2.0])}, file)
    file.seek(0)
    assert gpunet.load(file)["w"].tolist() == [1.0, 2.0]


def test_group_added_after_the_schedule_was_made(device: str) -> None:
    first, second = nn.Parameter(gpunet.ones(1)), nn.Parameter(gpunet.ones(1))
    optimizer = gpunet.optim.SGD([first], lr=0.1)
    schedule = gpunet.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.add_param_group({"params": [second], "lr": 0.4})
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2])


def test_clip_by_the_number_of_nonzero_gradients(device: str) -> None:
    parameters = [nn.Parameter(gpunet.ones(3)), nn.Parameter(gpunet.ones(2))]
    parameters[0].grad, parameters[1].grad = gpunet.tensor([1.0, 0.0, 2.0]), gpunet.tensor([0.0, 0.0])
    assert nn.utils.clip_grad_norm_(parameters, 1.0, norm_type=0).item() == 1.0  # tensors with a nonzero norm
    assert parameters[0].grad.tolist() == pytest.approx([1.0, 0.0, 2.0], rel=1e-5)


def test_sum_of_one_integer_to_no_dimensions_is_int64(device: str) -> None:
    assert gpunet.tensor(65, dtype=gpunet.int8).sum_to_size(()).dtype == gpunet.int64
    assert gpunet.tensor([65], dtype=gpunet.int8).sum_to_size(1).dtype == gpunet.int8
