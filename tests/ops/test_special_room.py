"""``gpunet.special`` against SciPy in float64, in the halves, on integers, at limits, and its refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from scipy import special as scipy

import gpunet
from gpunet import special
from gpunet.errors import ArgumentError, DtypeError, GradientError, OutOfRangeError

LINE = numpy.concatenate([numpy.linspace(-12.0, 12.0, 1201), numpy.logspace(-8, 2.8, 200), -numpy.logspace(-8, 2.8, 200)])
ABOVE_0 = numpy.abs(LINE[LINE != 0.0])
PROBABILITIES = numpy.concatenate([numpy.logspace(-300.0, -1.0, 200), numpy.linspace(0.0, 1.0, 101)])


def assert_close(ours: Any, expected: Any, relative: float, absolute: float = 0.0) -> None:
    with numpy.errstate(all="ignore"):
        numpy.testing.assert_allclose(ours.cpu().numpy(), expected, rtol=relative, atol=absolute)


#: Name, SciPy's function, arguments, and the error: of float64 relative to the result or, of what has zeros, absolute.
UNARY = [
    ("erfc", scipy.erfc, LINE, 5e-14, 1e-307), ("erfcx", scipy.erfcx, LINE[LINE > -20], 1e-13, 0.0),
    ("ndtr", scipy.ndtr, LINE, 2e-13, 1e-300), ("log_ndtr", scipy.log_ndtr, LINE, 1e-12, 1e-300),
    ("ndtri", scipy.ndtri, PROBABILITIES, 1e-14, 1e-15), ("i0", scipy.i0, LINE, 1e-14, 0.0), ("i0e", scipy.i0e, LINE, 1e-14, 0.0),
    ("i1", scipy.i1, LINE, 1e-14, 0.0), ("i1e", scipy.i1e, LINE, 1e-14, 0.0),
    ("modified_bessel_i0", scipy.i0, LINE, 1e-14, 0.0), ("modified_bessel_i1", scipy.i1, LINE, 1e-14, 0.0),
    ("modified_bessel_k0", scipy.k0, LINE, 1e-14, 0.0), ("modified_bessel_k1", scipy.k1, LINE, 1e-14, 0.0),
    ("scaled_modified_bessel_k0", scipy.k0e, LINE, 1e-14, 0.0), ("scaled_modified_bessel_k1", scipy.k1e, LINE, 1e-14, 0.0),
    ("bessel_j0", scipy.j0, LINE, 0.0, 1e-14), ("bessel_j1", scipy.j1, LINE, 0.0, 1e-14),
    ("bessel_y0", scipy.y0, ABOVE_0, 1e-14, 1e-14), ("bessel_y1", scipy.y1, ABOVE_0, 1e-14, 1e-14),
    ("spherical_bessel_j0", lambda x: scipy.spherical_jn(0, abs(x)), LINE, 1e-14, 1e-16),
    ("airy_ai", lambda x: scipy.airy(x)[0], LINE[numpy.abs(LINE) < 100], 2e-13, 1e-14), ("entr", scipy.entr, LINE, 1e-14, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "formula", "x", "relative", "absolute"), UNARY, ids=[row[0] for row in UNARY])
def test_float64(name: str, formula: Any, x: numpy.ndarray, relative: float, absolute: float, device: str) -> None:
    with numpy.errstate(all="ignore"):
        assert_close(getattr(special, name)(gpunet.tensor(x, device=device)), formula(x), relative, absolute)


@pytest.mark.parametrize(("name", "formula", "x", "relative", "absolute"), UNARY, ids=[row[0] for row in UNARY])
def test_rounded_once(name: str, formula: Any, x: numpy.ndarray, relative: float, absolute: float) -> None:
    function = getattr(special, name)
    if name == "entr":
        pytest.skip("computed in float32")
    for dtype in ("float32", "float16", "bfloat16"):
        given = gpunet.tensor(x[::7], dtype=getattr(gpunet, dtype))
        result = function(given)
        assert result.dtype == given.dtype
        with numpy.errstate(over="ignore"):
            expected = function(given.double()).to(given.dtype).float().numpy()
        rounding = 0.0 if dtype == "float32" else gpunet.finfo(given.dtype).eps  # halves are rounded to float32 first
        numpy.testing.assert_allclose(result.float().numpy(), expected, rtol=rounding, atol=6e-8 if rounding else 0.0)
    assert function(gpunet.tensor([0, 1, 2])).dtype == gpunet.float32


def test_derivatives_of_digamma() -> None:
    x = numpy.concatenate([numpy.linspace(0.05, 40.0, 200), numpy.linspace(-8.95, -0.05, 90)])
    assert_close(gpunet.polygamma(0, gpunet.tensor(x)), scipy.psi(x), 1e-12)
    assert_close(gpunet.polygamma(1, gpunet.tensor(x[:200])), scipy.zeta(2, x[:200]), 1e-14)
    for n in range(1, 6):
        moved = gpunet.polygamma(n, gpunet.tensor(x + 1.0)).numpy() + (-1.0) ** (n + 1) * math.factorial(n) * x ** -(n + 1.0)
        assert_close(gpunet.polygamma(n, gpunet.tensor(x)), moved, 1e-9)  # DLMF 5.15.5: cancellation near zeros
    with pytest.raises(ArgumentError, match="n=-1"):
        gpunet.polygamma(-1, gpunet.tensor([1.0]))


def test_zeta(torch: Any) -> None:
    s, q = numpy.meshgrid(numpy.linspace(1.1, 60.0, 40), numpy.linspace(0.1, 80.0, 45))
    assert_close(special.zeta(gpunet.tensor(s), gpunet.tensor(q)), scipy.zeta(s, q), 1e-14)
    limits = [(1.0, 2.0), (0.5, 1.0), (3.0, -2.0), (3.0, -2.5), (2.5, -2.5), (4.0, -0.25), (40.0, 1.0)]
    s, q = (numpy.array(column) for column in zip(*limits))
    assert_close(
        special.zeta(gpunet.tensor(s), gpunet.tensor(q)), torch.special.zeta(torch.tensor(s), torch.tensor(q)).numpy(), 1e-14, 1e-14
    )


def test_incomplete_gamma(torch: Any) -> None:
    a, x = numpy.meshgrid(numpy.logspace(-3.0, 3.0, 31), numpy.logspace(-3.0, 3.0, 31))
    assert_close(special.gammainc(gpunet.tensor(a), gpunet.tensor(x)), scipy.gammainc(a, x), 1e-11, 1e-300)
    assert_close(special.gammaincc(gpunet.tensor(a), gpunet.tensor(x)), scipy.gammaincc(a, x), 1e-11, 1e-300)
    a = numpy.logspace(4.0, 8.0, 9)[:, None]
    x = a * (1.0 + numpy.linspace(-3.0, 3.0, 11) / numpy.sqrt(a))
    a = a + 0.0 * x
    assert_close(special.gammainc(gpunet.tensor(a), gpunet.tensor(x)), scipy.gammainc(a, x), 1e-9)
    corners = [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, math.inf), (math.inf, 1.0), (math.inf, math.inf), (-1.0, 1.0), (1.0, -1.0)]
    a, x = (numpy.array(column) for column in zip(*corners))
    for name in ("igamma", "igammac"):
        theirs = getattr(torch, name)(torch.tensor(a), torch.tensor(x)).numpy()
        assert_close(getattr(gpunet, name)(gpunet.tensor(a), gpunet.tensor(x)), theirs, 1e-14)
    shape = gpunet.tensor([2.0], requires_grad=True)
    with pytest.raises(GradientError, match="igamma: the derivative in input"):
        gpunet.igamma(shape, gpunet.tensor([1.0])).backward()


POLYNOMIALS = {
    "chebyshev_polynomial_t": scipy.eval_chebyt, "chebyshev_polynomial_u": scipy.eval_chebyu,
    "shifted_chebyshev_polynomial_t": scipy.eval_sh_chebyt, "shifted_chebyshev_polynomial_u": scipy.eval_sh_chebyu,
    "hermite_polynomial_h": scipy.eval_hermite, "hermite_polynomial_he": scipy.eval_hermitenorm,
    "laguerre_polynomial_l": scipy.eval_laguerre, "legendre_polynomial_p": scipy.eval_legendre,
    "chebyshev_polynomial_v": None, "chebyshev_polynomial_w": None, "shifted_chebyshev_polynomial_v": None,
    "shifted_chebyshev_polynomial_w": None,
}  # fmt: skip


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str, torch: Any, device: str) -> None:
    x, n = numpy.meshgrid(numpy.linspace(-3.0, 3.0, 49), numpy.arange(-1.0, 25.0))
    ours = getattr(special, name)(gpunet.tensor(x, device=device), gpunet.tensor(n, device=device))
    theirs = getattr(torch.special, name)(torch.tensor(x), torch.tensor(n)).numpy()
    scale = numpy.abs(theirs).max(1, keepdims=True) * 1e-14 + 1e-12 * numpy.abs(theirs)  # roundings of a row, whose zeros cancel
    assert (numpy.abs(ours.cpu().numpy() - theirs) <= scale).all()
    if (formula := POLYNOMIALS[name]) is not None:
        assert (numpy.abs(ours.cpu().numpy()[1:] - formula(n[1:].astype(int), x[1:])) <= 4.0 * scale[1:]).all()


def test_polynomials_take_numbers_and_have_no_gradient() -> None:
    x = gpunet.tensor([0.5], requires_grad=True)
    assert not special.chebyshev_polynomial_t(x, 3).requires_grad
    assert special.chebyshev_polynomial_t(0.5, gpunet.tensor([2])).tolist() == [-0.5]
    with pytest.raises(DtypeError, match=r"2 and 0\.5; expected a tensor|0\.5 and 2; expected a tensor"):
        special.legendre_polynomial_p(0.5, 2)
    with pytest.raises(OutOfRangeError, match="at most 1000000"):
        special.laguerre_polynomial_l(x, 2e6)


def test_multigammaln() -> None:
    x = numpy.linspace(2.1, 30.0, 50)
    for p in (1, 2, 4):
        assert_close(special.multigammaln(gpunet.tensor(x), p), [scipy.multigammaln(v, p) for v in x], 1e-12, 1e-12)


def test_a_number_without_a_logarithm_gives_gradient_0_at_0(torch: Any) -> None:
    for name, numbers in (("xlogy", (math.nan, 0.0, -1.0, 2.0)), ("xlog1py", (math.nan, -1.0, -2.0, 2.0))):
        for number in numbers:
            found = []
            for library in (gpunet, torch):
                x = library.tensor([0.0, 2.0], requires_grad=True)
                getattr(library.special, name)(x, number).sum().backward()
                found.append(x.grad.tolist())
            numpy.testing.assert_allclose(found[0], found[1])


def test_every_name_is_pytorchs(torch: Any) -> None:
    assert set(torch.special.__all__) <= set(dir(special))
