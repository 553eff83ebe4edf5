"""Complex tensors beside PyTorch's: values, gradients, second derivatives, and what is refused."""

from __future__ import annotations

import itertools
import pickle
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import dtypes
from gpunet.errors import DtypeError, GradientError, ShapeError
from tests.ops.beside_torch import check_complex, complex_normal

M = (3, 4)
INDEX = [0, 2, 2, 1]

#: name -> (call, shapes of its complex arguments)
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    **{
        name: (lambda t, x, name=name: getattr(t, name)(x), (M,))
        for name in (
            "neg", "reciprocal", "square", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "sin", "cos",
            "tan", "sinh",
            "cosh", "tanh", "abs", "angle", "sgn", "real", "imag", "conj", "conj_physical", "view_as_real", "sum", "mean",
            "prod", "clone",
            "t", "positive", "flipud", "fliplr", "ravel", "tril", "triu", "diagonal",
        )
    },
    **{
        name: (lambda t, x, y, name=name: getattr(t, name)(x, y), (M, (4,)))
        for name in ("add", "sub", "mul", "div", "pow", "rsub")
    },
    "operators": (lambda t, x, y: (2.0 - x) * y / (x + 1j) - (1 + 2j) / y, (M, M)),
    "powers": (lambda t, x: x**2 + x**3 - x**-1 + x**0.5 + x ** (1 + 1j) + 2**x + (1 + 1j) ** x, (M,)),
    "alpha": (lambda t, x, y: t.add(x, y, alpha=2 - 1j), (M, M)),
    "reductions": (lambda t, x: x.sum(0) + x.mean(dim=0) + x.prod(0) + x.cumsum(0)[1], (M,)),
    "matmul": (lambda t, x, y: x @ y, ((2, 3, 4), (4, 5))),
    "matmul of a vector": (lambda t, x, y: x @ y, ((4,), (2, 4, 3))),
    "mm": (lambda t, x, y: t.mm(x, y.mH), (M, (2, 4))),
    "bmm": (lambda t, x, y: t.bmm(x, y), ((2, 3, 4), (2, 4, 3))),
    "einsum": (lambda t, x, y: t.einsum("bixy,ioxy->boxy", x, y), ((2, 3, 2, 2), (3, 4, 2, 2))),
    "einsum of three": (lambda t, x, y, z: t.einsum("ij,jk,kl->il", x, y, z), ((2, 3), (3, 2), (2, 4))),
    "dot": (lambda t, x, y: t.dot(x, y), ((5,), (5,))),
    "vdot": (lambda t, x, y: t.vdot(x, y), ((5,), (5,))),
    "vecdot": (lambda t, x, y: t.linalg.vecdot(x, y), (M, M)),
    "outer": (lambda t, x, y: t.outer(x, y), ((3,), (4,))),
    "tensordot": (lambda t, x, y: t.tensordot(x, y, 1), (M, (4, 2))),
    "kron": (lambda t, x, y: t.kron(x, y), ((2, 2), (2, 1))),
    "addmm": (lambda t, a, x, y: t.addmm(a, x, y, beta=2, alpha=1 + 1j), ((3, 2), M, (4, 2))),
    "addcmul": (lambda t, a, x, y: t.addcmul(a, x, y, value=1j), (M, M, M)),
    "linear": (lambda t, x, w, b: t.nn.functional.linear(x, w, b), ((2, 3, 4), (5, 4), (5,))),
    "norm": (lambda t, x: x.norm() + x.norm(p=3, dim=0) + t.linalg.norm(x, dim=1).sum() + t.linalg.vector_norm(x, 1), (M,)),
    "matrix norm": (lambda t, x: t.linalg.matrix_norm(x) + t.linalg.norm(x, 1), (M,)),
    "shapes": (lambda t, x: x.reshape(2, 6).permute(1, 0).flip(0).roll(1, 0).unsqueeze(0).expand(2, 6, 2).repeat(1, 1, 2), (M,)),
    "joined": (lambda t, x, y: t.cat([x, t.stack([y, y])[0]]) * t.hstack([x, y]).reshape(6, 4), (M, M)),
    "parts": (lambda t, x: x.split(2, 1)[1] * x.chunk(2, 1)[0].conj() + x[:, 1::2] + x.unfold(1, 2, 2)[..., 0], (M,)),
    "indexed": (lambda t, x: x[INDEX][:, [1, 0]] + x.index_select(0, t.tensor(INDEX, device=x.device))[:, :2], (M,)),
    "gathered": (lambda t, x: x.gather(0, t.tensor([INDEX, INDEX], device=x.device)), (M,)),
    "scattered": (lambda t, x, y: _scattered(t, x, y, t.tensor([2, 0], device=x.device)), (M, (2, 4))),
    "put": (lambda t, x: x.put(t.tensor([3, 0], device=x.device), x[0, :2] * 2) + x.take(t.tensor([5], device=x.device)), (M,)),
    "grids": (lambda t, x, y: t.meshgrid(x, y, indexing="ij")[0] * t.cartesian_prod(x, y).reshape(3, 2, 2)[..., 1], ((3,), (2,))),
    "differences": (lambda t, x: t.diff(x).repeat_interleave(2, 1) + t.linalg.cross(x[:, :3], x[:, 1:])[:, :1], (M,)),
    "dist": (lambda t, x, y: t.dist(x, y) + t.dist(x, y, 1), (M, M)),
    "where": (lambda t, x, y: t.where(x.real > 0, x, y) + x.masked_fill(x.imag > 0, 2j), (M, M)),
    "diagonals": (lambda t, x: t.diag(x[0]) + t.diag_embed(x.diagonal())[0, 0] + x[:, :3].trace(), (M,)),
    "pad": (lambda t, x: t.nn.functional.pad(x, (1, 2), value=2.0) + t.nn.functional.pad(x[None], (2, 1), "reflect")[0], (M,)),
    "to": (lambda t, x: x.to(t.complex64).to(t.complex128) * x.cdouble(), (M,)),
    "adjoint": (lambda t, x: x.H @ x + x.mH.adjoint().mT @ x, (M,)),
    "in place": (lambda t, x: (x * 1).mul_(x).add_(1j).div_(2 + x).conj_physical_(), (M,)),
    "assigned": (lambda t, x, y: _assigned(x * 1, y), (M, (4,))),
    "complex": (lambda t, x, y: t.complex(x.real, y.imag) * t.polar(x.abs(), y.angle()), (M, M)),
    "view_as_complex": (lambda t, x: t.view_as_complex(t.view_as_real(x) * 2.0), (M,)),
}  # fmt: skip


def _scattered(t: Any, x: Any, y: Any, index: Any) -> Any:
    rows = index[:, None].expand(2, 4)
    a = x.scatter(0, rows, y) + x.scatter_add(0, rows, y) + x.scatter(1, rows[:, :2], 2j)
    b = x.index_add(0, index, y) * x.index_copy(0, index, y) * x.index_fill(0, index, 1j) + x.take_along_dim(rows[:1], 0)
    c = x.masked_scatter(x.real > 0, y.repeat(2, 1) * 2) + x.index_put((index,), y, accumulate=True)
    return a + b + c


def _assigned(x: Any, y: Any) -> Any:
    x[1] = y
    x[:, 0] = 3j
    x[[0, 2], 1] = y[:2]
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, device: str, torch: Any) -> None:
    call, shapes = FUNCTIONS[name]
    # of float32 in this one: the result of x.to(complex64)
    check_complex(call, [complex_normal(i, *s) for i, s in enumerate(shapes)], torch, device, 1e-5 if name == "to" else 1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_complex64(name: str, device: str, torch: Any) -> None:
    call, shapes = FUNCTIONS[name]
    if name != "to":
        check_complex(call, [complex_normal(i, *s, dtype="complex64") for i, s in enumerate(shapes)], torch, device, 3e-4)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "operators", "joined", "addcmul"])
@pytest.mark.parametrize("is_first_real", [True, False])
def test_real_and_complex_operands(name: str, is_first_real: bool, device: str, torch: Any) -> None:
    """A real tensor beside a complex one receives a real gradient."""
    call, shapes = FUNCTIONS[name]
    kinds = itertools.cycle(("float64", "complex128") if is_first_real else ("complex128", "float64"))
    arrays = [complex_normal(i, *s, dtype=kind) for i, (s, kind) in enumerate(zip(shapes, kinds))]
    check_complex(call, arrays, torch, device)


def test_gradients_at_zero(torch: Any) -> None:
    for name in ("abs", "angle", "sgn", "norm", "sqrt_of_square"):
        found = []
        for library in (gpunet, torch):
            x = library.tensor([0j, 3 + 4j, -2 + 0j], requires_grad=True)
            y = (x**2 + 1).sqrt() if name == "sqrt_of_square" else getattr(x, name)()
            y.abs().sum().backward()
            found.append(x.grad.resolve_conj().numpy())
        numpy.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("needs", ["base", "exponent", "both"])
def test_powers_of_negative_real_bases(needs: str, torch: Any) -> None:
    """log(negative) lies on a branch cut: the derivative has the conjugate of its value."""
    results = []
    for t in (gpunet, torch):
        base = t.tensor([-2.0, -0.5, 3.0], dtype=t.float64, requires_grad=needs != "exponent")
        exponent = t.tensor([0.5 + 1j, 2.5 - 0.5j, -1.5 + 2j], dtype=t.complex128, requires_grad=needs != "base")
        (base**exponent * (2 - 1j)).real.sum().backward()
        results.append([x.grad.tolist() for x in (base, exponent) if x.requires_grad])
    for mine, theirs in zip(*results):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_powers_of_negative_numbers(torch: Any) -> None:
    results = []
    for t in (gpunet, torch):
        z = t.tensor([0.5 + 0.5j, 2 - 1j], dtype=t.complex128, requires_grad=True)
        x = t.tensor([-2.0, -0.5], dtype=t.float64, requires_grad=True)
        ((-2.0) ** z + (-3) ** z + x ** (0.5 + 1j)).real.sum().backward()
        results.append((z.grad.tolist(), x.grad.tolist()))
    for mine, theirs in zip(*results):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-12)
    z = gpunet.tensor([0.5 + 0.5j, 2 - 1j], dtype=gpunet.complex128, requires_grad=True)
    x = gpunet.tensor([-2.0, -0.5], dtype=gpunet.float64, requires_grad=True)
    gpunet.autograd.gradcheck(lambda x, z: x**z, (x, z))
    gpunet.autograd.gradgradcheck(lambda x, z: x**z, (x, z))


def test_branch_cuts(torch: Any) -> None:
    """The signs of zeros choose the side of a branch cut, also in derivatives."""
    values = [complex(-2.0, 0.0), complex(-2.0, -0.0), complex(0.0, -0.0), complex(1.0, -0.0)]
    for name in ("log", "sqrt", "angle", "log10"):
        found = []
        for library in (gpunet, torch):
            x = library.tensor(values, dtype=library.complex128, requires_grad=True)
            y = getattr(x, name)()
            (y * (1 + 2j)).real.sum().backward()
            found.append([y.detach().resolve_conj().numpy(), x.grad.resolve_conj().numpy()])
        for ours, theirs in zip(*found):
            numpy.testing.assert_allclose(ours[[0, 1, 3]], theirs[[0, 1, 3]], rtol=1e-12, atol=1e-12)


# ---- dtypes -------------------------------------------------------------------------------------------------------------


NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "bfloat16", "float32", "float64", "complex64", "complex128")


@pytest.mark.parametrize("first", [*NAMES, "float16"])
@pytest.mark.parametrize("second", [*NAMES, "float16"])
def test_promotion(first: str, second: str, torch: Any) -> None:
    """Of tensors, 0-d tensors and Python numbers; where PyTorch gives complex32, of float16 with complex 0-d ones, complex64."""
    a, b = getattr(torch, first), getattr(torch, second)
    assert str(torch.promote_types(a, b)) == f"torch.{gpunet.promote_types(first, second)}"
    for shapes in (((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())):
        theirs = torch.result_type(*(torch.ones(s, dtype=d) for s, d in zip(shapes, (a, b))))
        ours = gpunet.result_type(*(gpunet.ones(s, dtype=d) for s, d in zip(shapes, (first, second))))
        assert str(theirs).replace("complex32", "complex64") == f"torch.{ours}"
    for number in (True, 1, 1.5, 1j):
        theirs = torch.result_type(torch.ones(2, dtype=a), number)
        assert str(theirs).replace("complex32", "complex64") == f"torch.{gpunet.result_type(gpunet.ones(2, dtype=first), number)}"


def test_dtypes() -> None:
    assert gpunet.cfloat is gpunet.complex64 and gpunet.cdouble is gpunet.complex128
    assert dtypes.to_complex(gpunet.float16) == gpunet.complex64 and dtypes.to_real(gpunet.complex128) == gpunet.float64
    assert gpunet.finfo(gpunet.complex64).eps == gpunet.finfo(gpunet.float32).eps
    assert gpunet.can_cast(gpunet.float32, gpunet.complex64) and not gpunet.can_cast(gpunet.complex64, gpunet.float32)
    x = gpunet.tensor([1 + 2j, 3])
    assert x.dtype == gpunet.complex64 and gpunet.tensor([1j], dtype=gpunet.complex128).dtype == gpunet.complex128
    assert x.is_complex() and gpunet.is_complex(x) and not x.is_floating_point() and x.is_signed() and x.element_size() == 8
    assert x.type() == "torch.ComplexFloatTensor" and not gpunet.is_complex(x.real)
    gpunet.set_default_dtype(gpunet.float64)
    try:
        assert gpunet.tensor([1j]).dtype == gpunet.complex128 and (gpunet.ones(1) * 1j).dtype == gpunet.complex128
    finally:
        gpunet.set_default_dtype(gpunet.float32)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_creation(shape: tuple[int, ...], device: str) -> None:
    for dtype in (gpunet.complex64, gpunet.complex128):
        for create in (gpunet.zeros, gpunet.ones, gpunet.empty, gpunet.rand, gpunet.randn):
            x = create(shape, dtype=dtype, device=device)
            assert x.dtype == dtype and x.shape == shape
        assert gpunet.full(shape, 2j, dtype=dtype, device=device).tolist() == numpy.full(shape, 2j).tolist()
        assert gpunet.zeros_like(x).dtype == gpunet.randn_like(x).dtype == x.new_ones(2).dtype == dtype
    assert gpunet.full(shape, 2j).dtype == gpunet.complex64 and gpunet.eye(2, dtype=gpunet.complex64).sum() == 2


def test_random_numbers_have_the_variance_of_both_parts() -> None:
    x = gpunet.randn(20000, dtype=gpunet.complex64)
    assert abs(float((x.abs() ** 2).mean()) - 1.0) < 0.05 and abs(float(x.real.var()) - 0.5) < 0.03
    u = gpunet.rand(20000, dtype=gpunet.complex128)
    assert abs(complex(u.mean()) - (0.5 + 0.5j)) < 0.02 and float(u.imag.min()) >= 0.0


def test_numpy_and_python() -> None:
    array = numpy.array([1 + 2j, 3])
    x = gpunet.from_numpy(array)
    array[0] = 5j
    assert x.tolist() == [5j, 3] and x.numpy() is array and numpy.asarray(x).dtype == numpy.complex128
    assert complex(x[0]) == x[0].item() == 5j and float(x[1]) == 3.0 and int(x[1]) == 3 and bool(x[0])
    assert f"{x[0]:.1f}" == "0.0+5.0j"
    assert 5j in x and 1j not in x and (x == 5j).tolist() == [True, False] and (x != 3).tolist() == [True, False]
    x.real = gpunet.tensor([7.0, 8.0], dtype=gpunet.float64)
    x.imag[1] = 1.0
    assert array.tolist() == [7 + 5j, 8 + 1j]
    with pytest.raises(DtypeError, match=r"float\(\) of a tensor of \(7\+5j\): the imaginary part is not 0"):
        float(x[0])


def test_views_share_memory_and_versions() -> None:
    x = gpunet.tensor([[1 + 2j, 3 + 4j]])
    gpunet.view_as_real(x)[0, 1, 1] = 9.0
    pairs = gpunet.zeros(2, 2)
    gpunet.view_as_complex(pairs).add_(1 + 1j)
    assert x.tolist() == [[1 + 2j, 3 + 9j]] and pairs.tolist() == [[1, 1], [1, 1]]
    assert gpunet.view_as_real(x.mT).shape == (2, 1, 2) and gpunet.view_as_real(x[0, 0]).tolist() == [1, 2]
    y = gpunet.tensor([1j], requires_grad=True) * 1
    z = y * y
    y.real.mul_(2.0) if not y.requires_grad else y.detach().real.mul_(2.0)
    with pytest.raises(gpunet.errors.InPlaceError):
        z.abs().backward()


def test_casts(torch: Any) -> None:
    x = gpunet.tensor([1 + 2j, 2j, 0])
    with pytest.warns(UserWarning, match="Casting complex values to real discards the imaginary part"):
        assert x.float().tolist() == [1, 0, 0]
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert gpunet.zeros(3).copy_(x).tolist() == [1, 0, 0]
    assert x.bool().tolist() == [True, True, False] and gpunet.tensor([1, 2]).cfloat().tolist() == [1 + 0j, 2 + 0j]
    assert x.real.to(x.dtype).dtype == x.dtype


@pytest.mark.parametrize("values", [
    [1 + 2j, -3.5, complex("nan+0j")], [[1 + 2j, 100.25]], [1e10 + 1j], 1j, [-1.25 - 0.5j], [complex(0, -0.0)], [1, 2j],
    [[complex(i * j, -i) / 7 for i in range(9)] for j in range(3)],
])  # fmt: skip
def test_printing(values: Any, torch: Any) -> None:
    assert repr(gpunet.tensor(values)) == repr(torch.tensor(values))
    x, theirs = gpunet.tensor(values, dtype=gpunet.complex128), torch.tensor(values, dtype=torch.complex128)
    assert repr(x) == repr(theirs).replace("torch.complex128", "complex128")


def test_printing_of_many(torch: Any) -> None:
    array = complex_normal(0, 1200, dtype="complex64")
    assert repr(gpunet.tensor(array)) == repr(torch.tensor(array))


def test_saving(tmp_path: Any) -> None:
    x = gpunet.tensor([1 + 2j, 3j], requires_grad=True)
    copy = pickle.loads(pickle.dumps(x))
    assert copy.tolist() == x.tolist() and copy.requires_grad
    for dtype in (gpunet.complex64, gpunet.complex128):
        layer, other = (gpunet.nn.Linear(2, 3, dtype=dtype) for _ in range(2))
        gpunet.save({"layer": layer.state_dict(), "step": 3}, tmp_path / "nested.pt")
        gpunet.save(layer.state_dict(), tmp_path / "state.pt")
        for state in (gpunet.load(tmp_path / "state.pt"), gpunet.load(tmp_path / "nested.pt")["layer"]):
            other.load_state_dict(state)
            assert other.weight.tolist() == layer.weight.tolist() and other.weight.dtype == dtype


# ---- what is refused ------------------------------------------------------------------------------------------------------

X = gpunet.tensor([[1 + 2j, 3 - 1j], [1j, 2.0]])
F = gpunet.nn.functional
REFUSED = (
    "X < X", "X >= 1", "X.max()", "X.sort()", "X.argmax()", "X // 2", "X % 2", "X & X", "X.clamp(0.0)", "X.sign()", "X.round()",
    "X.floor()", "X.var()", "gpunet.std(X)", "gpunet.relu(X)", "gpunet.softmax(X, 0)", "gpunet.maximum(X, X)", "X.erf()",
    "X.sinc()",
    "X.clone().sinc_()", "X.median()", "X.topk(1)", "X.unique()", "X.lerp(X, 0.5)", "X.logsumexp(0)", "gpunet.atan2(X, X)",
    "gpunet.hypot(X, X)", "gpunet.cdist(X, X)", "gpunet.cosine_similarity(X, X)", "gpunet.searchsorted(X, X)",
    "gpunet.bincount(X[0])",
    "gpunet.linalg.inv(X)", "gpunet.linalg.svd(X)", "gpunet.special.hermite_polynomial_h(X, 2)", "gpunet.maximum(X.real, 1j)",
    "F.mse_loss(X, X)", "F.cross_entropy(X, gpunet.tensor([0, 1]))", "F.layer_norm(X, (2,))", "F.dropout(X)",
    "F.avg_pool1d(X[None], 2)",
    "F.conv1d(X[None], X[:, None])", "F.scaled_dot_product_attention(X, X, X)", "F.embedding(gpunet.tensor([0]), X)",
    "F.linear(X, gpunet.ones(2, 2))", "gpunet.nn.Linear(2, 2)(X)", "gpunet.nn.GRU(2, 2)(X[None])",
    "gpunet.ones(2).mul_(1j)", "gpunet.ones(2, 2).add_(X)", "gpunet.ones(2).__setitem__(0, 1j)",
    "gpunet.ones(2).__setitem__(0, X[0, 0])", "gpunet.select_scatter(gpunet.ones(2, 2), X[0], 0, 0)",
    "gpunet.arange(3, dtype=gpunet.complex64)", "gpunet.full((2,), 1j, dtype=gpunet.float32)",
    "gpunet.tensor([1j], dtype=gpunet.float32)",
    "gpunet.ones(2).imag", "gpunet.view_as_real(gpunet.ones(2))", "gpunet.complex(gpunet.ones(2).half(), gpunet.ones(2).half())",
    "gpunet.complex(gpunet.ones(2), gpunet.ones(2).double())", "gpunet.set_default_dtype(gpunet.complex64)",
    "gpunet.optim.LBFGS([gpunet.nn.Parameter(X)])", "gpunet.nn.utils.clip_grad_value_([_with_gradient()], 1.0)",
)  # fmt: skip


def _with_gradient() -> gpunet.nn.Parameter:
    p = gpunet.nn.Parameter(X)
    p.grad = X.clone()
    return p


@pytest.mark.parametrize("call", REFUSED)
def test_refused(call: str) -> None:
    """By a message that names the dtype or the number, never a wrong number or an error of NumPy's."""
    with pytest.raises(DtypeError, match="complex|1j") as caught:
        eval(call)
    assert "kernel" not in str(caught.value) and "ufunc" not in str(caught.value)


def test_refusals_state_the_way_out() -> None:
    with pytest.raises(DtypeError, match=r"softmax: got a tensor of complex64; expected real numbers: pass x.real, x.imag or"):
        gpunet.softmax(X, 0)
    with pytest.raises(DtypeError, match=r"maximum: got a complex number; expected real numbers"):
        gpunet.maximum(X.real, 1j)
    with pytest.raises(ShapeError, match=r"view_as_complex: strides of .* use .contiguous\(\)"):
        gpunet.view_as_complex(gpunet.ones(2, 3).mT)
    with pytest.raises(ShapeError, match=r"view_as_complex: the tensor has shape \(3,\); expected \(..., 2\)"):
        gpunet.view_as_complex(gpunet.ones(3))


def test_backward_of_complex_losses() -> None:
    x = gpunet.tensor([1 + 1j], requires_grad=True)
    with pytest.raises(GradientError, match="backward on a tensor of complex64 needs gradient=: only that of a real loss"):
        (x * x).backward()
    for loss, gradient in ((x.abs(), gpunet.tensor([1j])), (x * x, gpunet.tensor([1.0]))):
        with pytest.raises(DtypeError, match="expected both real or complex"):
            loss.backward(gradient)
    (x * x).backward(gpunet.tensor([1 + 0j]))
    assert x.grad.tolist() == [2 - 2j]


def test_gradcheck() -> None:
    z, r = (
        gpunet.tensor(complex_normal(0, 2, 2, dtype=dtype), requires_grad=True) for dtype in ("complex128", "float64")
    )
    assert gpunet.autograd.gradcheck(lambda z, r: (z.exp() * r, z.abs(), (z @ z.conj()).sin()), [z, r])
    assert gpunet.autograd.gradgradcheck(lambda z, r: (z**3 * r).cos(), [z, r])
    with pytest.raises(gpunet.errors.MismatchError):  # its gradient is not that of a product
        gpunet.autograd.gradcheck(lambda z: z * z.detach().conj(), [z])


def test_real_tensors_are_not_looked_at_before_there_are_complex_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "complex_in_use", dtypes.complex_in_use)
    dtypes.complex_in_use.clear()
    x = gpunet.ones(2, requires_grad=True)
    (gpunet.relu(x) * 2.0).sum().backward()
    assert not dtypes.complex_in_use
    for use in (lambda: x * 1j, lambda: gpunet.zeros(1, dtype=complex), lambda: gpunet.tensor(numpy.ones(1, "complex64"))):
        dtypes.complex_in_use.clear()
        use()
        assert dtypes.complex_in_use


# ---- training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]
)
def test_optimizers(name: str, torch: Any) -> None:
    """The parts are numbers of their own; the state is saved as complex numbers."""
    found = []
    for library in (gpunet, torch):
        p, q = (library.nn.Parameter(library.tensor(complex_normal(i, 3, 2))) for i in range(2))
        real = library.nn.Parameter(library.ones(2, dtype=library.float64))
        options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        optimizer = getattr(library.optim, name)([p, q, real], lr=0.1, **options)
        for step in range(6):
            optimizer.zero_grad()
            ((p * q * real).sum(0).abs() ** 2 + (p - 1j).abs() ** 2).sum().backward()
            norm = library.nn.utils.clip_grad_norm_([p, q, real], 1.0)
            optimizer.step()
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
        state = [v for v in optimizer.state_dict()["state"][0].values() if hasattr(v, "ndim") and v.ndim]
        found.append([v.detach().numpy() for v in (p, q, real, norm, *state)])
    for ours, theirs in zip(*found, strict=name != "ASGD"):
        assert ours.dtype == theirs.dtype
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-8)  # PyTorch's NAdam and ASGD have float32 counters


# ---- the page ---------------------------------------------------------------------------------------------------------------


def test_the_page_lists_what_takes_complex_tensors() -> None:
    """Each function that declares it, under one of its names, and no other."""
    page = (Path(__file__).parents[2] / "docs/complex-numbers.md").read_text(encoding="utf-8")
    table = page.partition("## What takes complex tensors")[2].partition("| creation |")[0]
    listed = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", table)}
    listed |= {f"{name}{suffix}" for name in listed if name.endswith("fft") for suffix in "2n"}
    names: dict[Any, set[str]] = defaultdict(set)
    for place in (gpunet, gpunet.linalg, gpunet.nn.functional, gpunet.fft, gpunet.Tensor):
        for name in getattr(place, "__all__", dir(place)):
            function = getattr(place, name, None)
            if getattr(function, "takes_complex", False):
                names[function].add(name)
    assert listed - set().union(*names.values()) == {"complex", "polar", "view_as_complex"}  # of real tensors
    unlisted = [found for found in names.values() if not found & listed and not any(name.endswith("_") for name in found)]
    assert unlisted == []
