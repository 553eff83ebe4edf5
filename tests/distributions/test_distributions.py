"""Distributions beside PyTorch's and SciPy's: densities, moments, gradients, draws, divergences, messages."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy
import pytest
from scipy import special, stats

import gpunet
from gpunet import distributions
from gpunet.distributions import Distribution, kl_divergence, register_kl
from gpunet.distributions.kl import _RULES as RULES
from gpunet.errors import ArgumentError, DtypeError, GpunetError, GradientError, ShapeError
from gpunet.launch.random import default_generator

COVARIANCE = [[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 0.7]]
TRIL = [[1.5, 0.0, 0.0], [0.2, 0.7, 0.0], [-0.3, 0.4, 1.1]]
LOC3 = [[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]]
POSITIVE, REAL, UNIT, COUNTS = [0.3, 1.0, 2.5], [-1.5, 0.2, 2.0], [0.1, 0.35, 0.9], [0.0, 2.0, 5.0]
PROBS, ONE_HOT = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
LOGITS = [[0.1, -1.0, 2.0], [0.0, 0.5, 0.3]]


class Case(NamedTuple):
    """A distribution by the name of its class, its parameters, a value, and what is not compared."""

    name: str
    parameters: dict[str, Any]
    value: Any
    without: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}-{'-'.join(self.parameters)}"


CASES = [
    Case("Normal", {"loc": REAL, "scale": POSITIVE}, REAL),
    Case("Categorical", {"probs": PROBS}, [2, 0], "mean variance stddev"),
    Case("Categorical", {"logits": LOGITS}, [2, 0], "mean variance stddev"),
    Case("MultivariateNormal", {"loc": LOC3, "covariance_matrix": COVARIANCE}, LOC3[::-1]),
    Case("MultivariateNormal", {"loc": LOC3, "precision_matrix": COVARIANCE}, LOC3[::-1]),
    Case("MultivariateNormal", {"loc": LOC3, "scale_tril": TRIL}, LOC3[::-1]),
    Case("Bernoulli", {"probs": UNIT}, [0.0, 1.0, 1.0]),
    Case("Bernoulli", {"logits": REAL}, [0.0, 1.0, 1.0]),
    Case("OneHotCategorical", {"probs": PROBS}, ONE_HOT),
    Case("OneHotCategorical", {"logits": LOGITS}, ONE_HOT),
    Case("ContinuousBernoulli", {"probs": [0.2, 0.4995, 0.9]}, UNIT, "mode"),
    Case("ContinuousBernoulli", {"logits": REAL}, UNIT, "mode"),
    Case("Gumbel", {"loc": REAL, "scale": POSITIVE}, REAL),
    Case("Poisson", {"rate": POSITIVE}, COUNTS),
    Case("Uniform", {"low": [-1.0, 0.0], "high": [2.0, 5.0]}, [0.5, 4.0], "mode"),
    Case("Beta", {"concentration1": [2.0, 0.5, 3.0], "concentration0": [3.0, 0.7, 1.5]}, UNIT),
    Case("Gamma", {"concentration": [0.5, 2.0, 9.0], "rate": POSITIVE}, POSITIVE, "cdf"),
    Case("Chi2", {"df": [1.0, 3.0, 8.0]}, POSITIVE, "cdf"),
    Case("Dirichlet", {"concentration": [[2.0, 3.0, 0.5], [1.5, 1.1, 4.0]]}, PROBS),
    Case("Exponential", {"rate": POSITIVE}, POSITIVE),
    Case("Laplace", {"loc": REAL, "scale": POSITIVE}, [0.5, -1.0, 3.0]),
    Case("LogNormal", {"loc": REAL, "scale": POSITIVE}, POSITIVE),
    Case("HalfNormal", {"scale": POSITIVE}, [0.1, 2.0, 1.0]),
    Case("StudentT", {"df": [1.5, 3.0, 10.0], "loc": REAL, "scale": POSITIVE}, [0.5, -1.0, 3.0]),
    Case("Cauchy", {"loc": REAL, "scale": POSITIVE}, [0.5, -1.0, 3.0]),
    Case("Binomial", {"total_count": [7.0, 7.0, 7.0], "probs": UNIT}, COUNTS),
    Case("Binomial", {"total_count": [7.0, 7.0, 7.0], "logits": REAL}, COUNTS),
    Case("Geometric", {"probs": UNIT}, COUNTS),
    Case("Geometric", {"logits": REAL}, COUNTS),
    Case("Multinomial", {"probs": PROBS, "total_count": 5}, [[1.0, 2.0, 2.0], [5.0, 0.0, 0.0]], "mode entropy"),
    Case("Multinomial", {"logits": LOGITS, "total_count": 5}, [[1.0, 2.0, 2.0], [5.0, 0.0, 0.0]], "mode entropy"),
]
BY_NAME = {case.name: case for case in CASES}


def arguments(library: Any, case: Case, grad: bool = False) -> dict[str, Any]:
    return {
        key: value if isinstance(value, int)
        else library.tensor(value, dtype=library.float64, requires_grad=grad and key != "total_count")
        for key, value in case.parameters.items()
    }  # fmt: skip


def make(library: Any, case: Case) -> Any:
    return getattr(library.distributions, case.name)(**arguments(library, case))


def value_of(library: Any, case: Case, grad: bool = False) -> Any:
    if isinstance(numpy.asarray(case.value).flat[0], numpy.integer):
        return library.tensor(case.value)
    return library.tensor(case.value, dtype=library.float64, requires_grad=grad)


def both(torch: Any, case: Case, compute: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """The result of a function of (distribution, library) and the gradients in all parameters, in both libraries."""
    found = []
    for library in (gpunet, torch):
        given = arguments(library, case, grad=True)
        result = compute(getattr(library.distributions, case.name)(**given), library)
        leaves = [leaf for leaf in given.values() if not isinstance(leaf, int) and leaf.requires_grad]
        gradients: list[Any] = []
        if result.requires_grad:
            weights = library.linspace(0.5, 1.5, result.numel(), dtype=library.float64).reshape(result.shape)
            (result * weights).sum().backward()
            gradients = [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]
        found.append((result.detach().numpy(), gradients))
    return found[0], found[1]


#: Formulas with digamma, whose derivative is trigamma: PyTorch's has an error of 5e-10, tests/samples compare ours with SciPy's.
WITH_TRIGAMMA = {"Beta", "Chi2", "Dirichlet", "Gamma", "StudentT"}


def assert_equal(ours: Any, theirs: Any, *names: str) -> None:
    numpy.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9, atol=1e-12)
    assert ours[0].dtype == theirs[0].dtype
    for a, b in zip(ours[1], theirs[1]):
        # PyTorch has a gradient of zeros where ours has none, and the other way round
        a, b = (0.0 if g is None else g for g in (a, b))
        numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 if WITH_TRIGAMMA.isdisjoint(names) else 2e-8)


# ---- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_log_prob(case: Case, torch: Any) -> None:
    assert_equal(*both(torch, case, lambda d, library: d.log_prob(value_of(library, case))))


@pytest.mark.parametrize("case", [c for c in CASES if BY_NAME[c.name] is c], ids=lambda case: case.id)
def test_gradient_of_log_prob_in_the_value(case: Case, torch: Any) -> None:
    values = []
    for library in (gpunet, torch):
        value = value_of(library, case, grad=True)
        if not value.requires_grad:
            return
        distribution = make(library, case)
        if case.name in ("OneHotCategorical", "Uniform"):  # of which it is no function
            return
        distribution.log_prob(value).sum().backward()
        values.append(value.grad.numpy())
    numpy.testing.assert_allclose(*values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("member", ["mean", "mode", "variance", "stddev", "entropy", "cdf", "icdf"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_members(case: Case, member: str, torch: Any) -> None:
    theirs = make(torch, case)

    def compute(distribution: Any, library: Any) -> Any:
        found = getattr(distribution, member)
        if member == "cdf":
            return found(value_of(library, case))
        if member == "icdf":
            count = math.prod(theirs.batch_shape)
            return found(library.linspace(0.1, 0.9, count, dtype=library.float64).reshape(theirs.batch_shape))
        return found() if member == "entropy" else found

    try:
        compute(theirs, torch)
        has = True
    except (NotImplementedError, AttributeError):
        has = False
    if member in case.without.split() or not has:
        if not has and not (case.name == "Geometric" and member == "entropy"):
            with pytest.raises((NotImplementedError, GpunetError)):
                compute(make(gpunet, case), gpunet)
        return
    assert_equal(*both(torch, case, compute), case.name)


def test_entropy_of_multinomial_and_of_probability_zero(torch: Any) -> None:
    """PyTorch's of Multinomial is of float32."""
    for count in (1, 6):
        ours = distributions.Multinomial(count, probs=gpunet.tensor([0.2, 0.7, 0.1], dtype=gpunet.float64))
        assert ours.entropy().item() == pytest.approx(stats.multinomial(count, [0.2, 0.7, 0.1]).entropy(), abs=1e-12)
    logits = gpunet.tensor(LOGITS, dtype=gpunet.float64, requires_grad=True)
    assert gpunet.autograd.gradcheck(lambda x: distributions.Multinomial(4, logits=x).entropy(), [logits])
    sure = [[1.0, 0.0], [0.5, 0.5]]
    found = [m.distributions.Categorical(m.tensor(sure)).entropy().tolist() for m in (gpunet, torch)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_densities_of_scipy() -> None:
    x = numpy.linspace(0.05, 0.95, 7)
    for ours, theirs in (
        (distributions.Beta(2.0, 3.5), stats.beta(2.0, 3.5)),
        (distributions.Gamma(2.5, 1.7), stats.gamma(2.5, scale=1 / 1.7)),
        (distributions.StudentT(4.5, 0.5, 2.0), stats.t(4.5, 0.5, 2.0)),
        (distributions.LogNormal(0.3, 0.8), stats.lognorm(0.8, scale=math.exp(0.3))),
    ):
        numpy.testing.assert_allclose(ours.log_prob(gpunet.tensor(x)).numpy(), theirs.logpdf(x), rtol=1e-6)
        assert ours.entropy().item() == pytest.approx(theirs.entropy(), rel=1e-5)


# ---- divergences ------------------------------------------------------------------------------------------------------

OTHER: dict[str, dict[str, Any]] = {
    "Normal": {"loc": [0.1, 0.0, 1.0], "scale": [1.0, 0.5, 2.0]},
    "Categorical": {"logits": [[0.3, 0.2, -1.0], [0.0, 1.0, 0.5]]},
    "OneHotCategorical": {"logits": [[0.3, 0.2, -1.0], [0.0, 1.0, 0.5]]},
    "MultivariateNormal": {"loc": [[0.0, 1.0, 0.5]], "covariance_matrix": [[1.0, 0.2, 0.0], [0.2, 1.5, 0.1], [0.0, 0.1, 0.8]]},
    "Bernoulli": {"probs": [0.5, 0.2, 0.7]},
    "ContinuousBernoulli": {"probs": [0.6, 0.2, 0.8]},
    "Gumbel": {"loc": [0.1, 0.0, 1.0], "scale": [1.0, 0.5, 2.0]},
    "Poisson": {"rate": [1.0, 2.0, 0.5]},
    "Uniform": {"low": [-2.0, 0.5], "high": [3.0, 6.0]},
    "Beta": {"concentration1": [1.0, 2.0, 0.6], "concentration0": [1.3, 0.2, 2.0]},
    "Gamma": {"concentration": [1.5, 0.7, 3.0], "rate": [1.0, 2.0, 0.4]},
    "Dirichlet": {"concentration": [[1.0, 2.0, 3.0], [0.5, 1.0, 0.7]]},
    "Exponential": {"rate": [1.0, 2.0, 0.4]},
    "Laplace": {"loc": [0.1, 0.0, 1.0], "scale": [1.0, 0.5, 2.0]},
    "LogNormal": {"loc": [0.1, 0.0, 1.0], "scale": [1.0, 0.5, 2.0]},
    "HalfNormal": {"scale": [1.0, 0.5, 2.0]},
    "Cauchy": {"loc": [0.1, 0.0, 1.0], "scale": [1.0, 0.5, 2.0]},
    "Binomial": {"total_count": [7.0, 7.0, 7.0], "probs": [0.5, 0.2, 0.7]},
    "Geometric": {"probs": [0.5, 0.2, 0.7]},
}
#: For pairs with other distributions, whose support is the unit interval or the positive numbers.
INSIDE = Case("Uniform", {"low": [0.1, 0.05, 0.3], "high": [0.9, 0.8, 0.99]}, None)
MIXED = sorted((p.__name__, q.__name__) for p, q in RULES if p is not q and {p.__name__, q.__name__} <= OTHER.keys())


@pytest.mark.parametrize(("p", "q"), [(name, name) for name in OTHER] + MIXED)
def test_kl_divergence(p: str, q: str, torch: Any) -> None:
    first, second = BY_NAME[p], Case(q, OTHER[q], None)
    if p != q and "Uniform" in (p, q):
        first, second = (INSIDE if name == "Uniform" else case for name, case in ((p, first), (q, second)))
    compute: Any = lambda d, library: library.distributions.kl_divergence(d, make(library, second))  # noqa: E731
    assert_equal(*both(torch, first, compute), p, q)
    reverse = lambda d, library: library.distributions.kl_divergence(make(library, first), d)  # noqa: E731
    assert_equal(*both(torch, second, reverse), p, q)


def test_the_pairs_of_torch_have_a_rule(torch: Any) -> None:
    known = {(p.__name__, q.__name__) for p, q in RULES}
    pairs = {(p.__name__, q.__name__) for p, q in torch.distributions.kl._KL_REGISTRY}
    assert not {pair for pair in pairs - known if all(hasattr(distributions, name) for name in pair)}


@pytest.mark.parametrize("q", ["Beta", "Gamma", "ContinuousBernoulli"])
def test_a_divergence_is_infinite_where_the_support_is_left(q: str) -> None:
    p, other = distributions.Uniform(-0.5, 1.5), make(gpunet, Case(q, OTHER[q], None))
    assert kl_divergence(p, other).tolist() == [math.inf] * 3
    for narrow in (distributions.Beta(1.0, 2.0), distributions.ContinuousBernoulli(0.3)):
        assert kl_divergence(narrow, distributions.Uniform(0.1, 2.0)).item() == math.inf
        assert kl_divergence(narrow, distributions.Uniform(0.0, 0.9)).item() == math.inf


def test_register_kl() -> None:
    class Mine(distributions.Normal):
        pass

    p = Mine(0.0, 1.0)
    assert kl_divergence(p, p).item() == 0.0  # by the rule of Normal
    register_kl(Mine, Mine)(lambda p, q: gpunet.tensor(5.0))
    assert kl_divergence(p, p).item() == 5.0
    with pytest.raises(NotImplementedError, match="no rule for Poisson and Mine; add one with register_kl"):
        kl_divergence(distributions.Poisson(1.0), p)
    with pytest.raises(ArgumentError, match="expected a subclass of Distribution"):
        register_kl(int, Mine)


# ---- draws ------------------------------------------------------------------------------------------------------------

KOLMOGOROV: dict[str, tuple[Any, Any]] = {
    "Normal": (lambda: distributions.Normal(1.0, 2.0), stats.norm(1.0, 2.0)),
    "Uniform": (lambda: distributions.Uniform(-1.0, 3.0), stats.uniform(-1.0, 4.0)),
    "Exponential": (lambda: distributions.Exponential(0.5), stats.expon(scale=2.0)),
    "Laplace": (lambda: distributions.Laplace(1.0, 2.0), stats.laplace(1.0, 2.0)),
    "Cauchy": (lambda: distributions.Cauchy(1.0, 2.0), stats.cauchy(1.0, 2.0)),
    "Gumbel": (lambda: distributions.Gumbel(1.0, 2.0), stats.gumbel_r(1.0, 2.0)),
    "LogNormal": (lambda: distributions.LogNormal(0.2, 0.7), stats.lognorm(0.7, scale=math.exp(0.2))),
    "HalfNormal": (lambda: distributions.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "Gamma": (lambda: distributions.Gamma(0.7, 2.0), stats.gamma(0.7, scale=0.5)),
    "Beta": (lambda: distributions.Beta(0.5, 2.0), stats.beta(0.5, 2.0)),
    "StudentT": (lambda: distributions.StudentT(3.0, 1.0, 2.0), stats.t(3.0, 1.0, 2.0)),
    "Chi2": (lambda: distributions.Chi2(3.0), stats.chi2(3.0)),
}


@pytest.mark.parametrize("name", KOLMOGOROV)
def test_draws_by_kolmogorov_and_smirnov(name: str) -> None:
    distribution, expected = KOLMOGOROV[name]
    drawn = distribution().sample((4000,))
    assert stats.kstest(drawn.numpy().astype(float), expected.cdf).pvalue > 1e-3
    assert not drawn.requires_grad


#: Of these the moments do not exist, or converge slowly.
WITHOUT_MOMENTS = ("Cauchy", "StudentT", "Categorical", "LogNormal")


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in WITHOUT_MOMENTS], ids=lambda case: case.id)
def test_moments_of_draws(case: Case) -> None:
    distribution = make(gpunet, case)
    drawn = distribution.sample((20_000,))
    assert tuple(drawn.shape) == (20_000, *distribution.batch_shape, *distribution.event_shape)
    assert drawn.dtype == gpunet.float64
    x, mean, variance = drawn.numpy(), distribution.mean.numpy(), distribution.variance.numpy()
    assert (numpy.abs(x.mean(0) - mean) < 5 * numpy.sqrt(variance / 20_000)).all()
    fourth = ((x - mean) ** 4).mean(0)
    assert (numpy.abs(x.var(0) - variance) < 6 * numpy.sqrt(fourth / 20_000) + 1e-12).all()
    distribution.log_prob(drawn)  # they are in the support
    assert distribution.sample().shape == (*distribution.batch_shape, *distribution.event_shape)


def test_categorical_draws(device: str) -> None:
    probs = [[0.0, 0.1, 0.0, 0.6, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    drawn = distributions.Categorical(probs=gpunet.tensor(probs)).sample((2000,))
    assert drawn.dtype == gpunet.int64 and drawn.shape == (2000, 2)
    counts = [numpy.bincount(drawn.cpu().numpy()[:, i], minlength=6) / 2000 for i in range(2)]
    assert counts[1].tolist() == [1, 0, 0, 0, 0, 0]
    assert (counts[0][[0, 2, 5]] == 0).all()
    numpy.testing.assert_allclose(counts[0], probs[0], atol=0.06)


@pytest.mark.parametrize("name", ["Normal", "Categorical", "Gamma", "Beta", "Bernoulli", "Poisson", "MultivariateNormal"])
def test_devices_draw_and_compute_the_same(name: str, device: str) -> None:
    case = BY_NAME[name]
    gpunet.manual_seed(5)
    distribution = make(gpunet, case)
    found = distribution.sample((3,))
    density = distribution.log_prob(found)
    assert str(found.device).startswith(device) and found.device == density.device
    gpunet.manual_seed(5)
    with gpunet.device("cpu"):
        on_cpu = make(gpunet, case)
        expected = on_cpu.sample((3,))
        numpy.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), rtol=1e-12)
        numpy.testing.assert_allclose(density.cpu().numpy(), on_cpu.log_prob(expected).numpy(), rtol=1e-11)


def test_the_seed_decides_the_draws() -> None:
    for name in ("Gamma", "Binomial", "Normal", "Categorical"):
        gpunet.manual_seed(3)
        distribution = make(gpunet, BY_NAME[name])
        first = [distribution.sample().tolist() for _ in range(2)]
        gpunet.manual_seed(3)
        assert [distribution.sample().tolist() for _ in range(2)] == first
        assert name == "Categorical" or first[0] != first[1]
        assert default_generator.position()[1] > 0


# ---- gradients of draws -----------------------------------------------------------------------------------------------

REPARAMETERIZED = [c for c in CASES if getattr(distributions, c.name).has_rsample is True and BY_NAME[c.name] is c]


@pytest.mark.parametrize("case", REPARAMETERIZED, ids=lambda case: case.id)
def test_gradient_of_the_mean_of_draws(case: Case) -> None:
    """The mean of the gradients of draws is the gradient of the mean."""
    if case.name in ("Cauchy", "StudentT"):
        pytest.skip("has no mean, or draws of infinite variance")
    given, exact = arguments(gpunet, case, grad=True), arguments(gpunet, case, grad=True)
    kind = getattr(distributions, case.name)
    parts = [kind(**given).rsample((4000,)).mean(0) for _ in range(5)]
    gradients = [gpunet.grad([part[..., :1].sum()], list(given.values())) for part in parts]
    kind(**exact).mean[..., :1].sum().backward()
    for i, leaf in enumerate(exact.values()):
        found = numpy.stack([g[i].numpy() for g in gradients])
        expected = 0.0 if leaf.grad is None else leaf.grad.numpy()
        spread = numpy.abs(found - found.mean(0)).max() + 1e-12
        assert (numpy.abs(found.mean(0) - expected) < 4 * spread).all()


@pytest.mark.parametrize("concentration", [0.1, 0.7, 2.0, 30.0, 1000.0])
def test_implicit_gradient_of_gamma(concentration: float) -> None:
    a = gpunet.full((200,), concentration, dtype=gpunet.float64).requires_grad_()
    drawn = distributions.Gamma(a, gpunet.tensor(1.0, dtype=gpunet.float64)).rsample()
    drawn.sum().backward()
    x, step = drawn.detach().numpy(), 1e-5 * concentration
    p = special.gammainc(concentration, x)
    is_inside = (p > 1e-3) & (p < 1.0 - 1e-3)
    quantiles = [special.gammaincinv(concentration + s, p) for s in (step, -step)]
    expected = (quantiles[0] - quantiles[1]) / (2 * step)
    assert a.grad is not None
    numpy.testing.assert_allclose(a.grad.numpy()[is_inside], expected[is_inside], rtol=2e-6)


def test_draws_are_not_differentiated_twice_in_a_concentration() -> None:
    a = gpunet.tensor([2.0], requires_grad=True)
    drawn = distributions.Gamma(a, 1.0).rsample()
    with pytest.raises(GradientError, match="second derivatives of draws of gamma, beta, Dirichlet"):
        gpunet.grad([drawn.sum()], [a], create_graph=True)


def test_draws_without_gradients_say_so() -> None:
    for name in ("Categorical", "Bernoulli", "Poisson", "Binomial", "Multinomial", "Geometric", "OneHotCategorical"):
        with pytest.raises(NotImplementedError, match=rf"{name} has no rsample\(\): its draws have no gradient; use sample\(\)"):
            make(gpunet, BY_NAME[name]).rsample()


# ---- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_expand(case: Case, torch: Any) -> None:
    ours, theirs = (make(m, case) for m in (gpunet, torch))
    shape = (4, *ours.batch_shape)
    expanded, expected = ours.expand(shape), theirs.expand(shape)
    assert type(expanded) is type(ours)
    assert (tuple(expanded.batch_shape), tuple(expanded.event_shape)) == (tuple(expected.batch_shape), tuple(expected.event_shape))
    density = expanded.log_prob(value_of(gpunet, case))
    assert density.shape == shape
    numpy.testing.assert_allclose(density.numpy(), expected.log_prob(value_of(torch, case)).numpy(), rtol=1e-9)
    assert expanded.sample((2,)).shape == (2, *shape, *ours.event_shape)
    assert repr(ours).startswith(f"{case.name}(")


@pytest.mark.parametrize("name", ["Categorical", "Bernoulli", "OneHotCategorical", "Binomial"])
@pytest.mark.parametrize("expand", [False, True])
def test_enumerate_support(name: str, expand: bool, torch: Any) -> None:
    ours, theirs = (make(m, BY_NAME[name]).enumerate_support(expand) for m in (gpunet, torch))
    assert ours.tolist() == theirs.tolist() and str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")


def test_independent_and_mixture(torch: Any) -> None:
    def compute(m: Any) -> Iterator[Any]:
        d = m.distributions
        tensor = lambda x: m.tensor(x, dtype=m.float64)  # noqa: E731
        base = d.Normal(tensor(LOC3), tensor(1.5))
        independent = d.Independent(base, 1)
        yield independent.log_prob(tensor(LOC3[::-1]))
        yield independent.entropy()
        yield independent.expand((4, 2)).log_prob(tensor(LOC3))
        yield d.kl_divergence(independent, d.Independent(d.Normal(tensor([0.0, 1.0, 2.0]), tensor(0.5)).expand((2, 3)), 1))
        weights = d.Categorical(logits=tensor(LOGITS))
        mixture = d.MixtureSameFamily(weights, base)
        yield from (mixture.log_prob(tensor([0.5, 0.1])), mixture.mean, mixture.variance, mixture.cdf(tensor([0.5, 0.1])))
        of_vectors = d.MixtureSameFamily(d.Categorical(tensor([0.3, 0.7])), independent)
        yield from (of_vectors.log_prob(tensor([0.1, 0.2, 0.3])), of_vectors.mean, of_vectors.variance)
        yield of_vectors.expand((3,)).log_prob(tensor([0.1, 0.2, 0.3]))

    for ours, theirs in zip(compute(gpunet), compute(torch)):
        assert ours.shape == tuple(theirs.shape)
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9)


def test_draws_of_a_mixture() -> None:
    parts = distributions.Independent(distributions.Normal(gpunet.tensor([[0.0, 5.0], [10.0, -5.0]]), 0.1), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(gpunet.tensor([0.25, 0.75])), parts)
    drawn = mixture.sample((4000,)).numpy()
    is_second = drawn[:, 0] > 5.0
    assert abs(is_second.mean() - 0.75) < 0.03
    assert (drawn[is_second, 1] < 0).all() and (drawn[~is_second, 1] > 0).all()


# ---- arguments --------------------------------------------------------------------------------------------------------


def test_wrong_parameters_and_values_are_named() -> None:
    tensor = gpunet.tensor
    for call, error, message in (
        (lambda: distributions.Normal(tensor([0.0, 1.0]), tensor([1.0, -2.0])), ArgumentError,
         r"Normal: scale has 1 wrong value, such as -2.0; expected numbers above 0 \(validate_args=False skips this check\)"),
        (lambda: distributions.Normal(math.nan, 1.0), ArgumentError, "Normal: loc has 1 wrong value, such as nan; expected real"),
        (lambda: distributions.Normal(gpunet.tensor([1j]), 1.0), DtypeError, "Normal: got a tensor of complex64; expected real"),
        (lambda: distributions.Categorical(gpunet.tensor([1j, 1.0])), DtypeError, "Categorical: got a tensor of complex64"),
        (
            lambda: distributions.MultivariateNormal(gpunet.tensor([1j, 1.0]), gpunet.eye(2)), DtypeError,
            "MultivariateNormal: got a tensor of complex64; expected real numbers",
        ),
        (lambda: distributions.Normal("a", 1.0), DtypeError, "Normal: loc='a' has type str; expected a number or a tensor"),
        (lambda: distributions.Normal(tensor([0.0, 1.0]), tensor([1.0] * 3)), ShapeError, "Normal: shapes .* cannot be broadcast"),
        (lambda: distributions.Categorical(tensor([[0.5, -0.1], [1.0, 1.0]])), ArgumentError, "Categorical: probs has 1 wrong"),
        (lambda: distributions.Categorical(), ArgumentError, "Categorical: neither of probs and logits; expected one of them"),
        (lambda: distributions.Bernoulli(0.5, 0.5), ArgumentError, "Bernoulli: both of probs and logits"),
        (lambda: distributions.Categorical(0.5), ShapeError, r"expected a tensor \(\.\.\., classes\)"),
        (lambda: distributions.Uniform(1.0, 0.0), ArgumentError, "Uniform: low=1.0, high=0.0; expected low < high"),
        (lambda: distributions.MultivariateNormal(tensor([0.0, 1.0])), ArgumentError, "got no matrix; expected one of covariance"),
        (lambda: distributions.MultivariateNormal(tensor([0.0, 1.0]), tensor([[1.0, 2.0], [2.0, 1.0]])), ArgumentError,
         "covariance_matrix has 1 wrong value.*expected positive definite matrices"),
        (lambda: distributions.MultivariateNormal(tensor([0.0, 1.0]), gpunet.eye(3)), ShapeError, r"expected \(\.\.\., n\) and"),
        (lambda: distributions.Geometric(0.0), ArgumentError, "Geometric: probs has 1 wrong value"),
        (lambda: distributions.Multinomial(2.5, tensor([1.0])), ArgumentError, "total_count=2.5"),
        (lambda: distributions.Bernoulli(0.5).log_prob(tensor(0.5)), ArgumentError, "value has .*, such as 0.5; expected 0 or 1"),
        (lambda: distributions.Categorical(tensor([0.5, 0.5])).log_prob(tensor(2)), ArgumentError, "expected integers from 0 to 1"),
        (lambda: distributions.Normal(tensor([0.0, 1.0]), 1.0).log_prob(tensor([0.0] * 3)), ShapeError, r"value has shape \(3,\)"),
        (lambda: distributions.Normal(0.0, 1.0).log_prob(0.5), DtypeError, "value=0.5 has type float; expected a tensor"),
        (lambda: distributions.Normal(0.0, 1.0).sample(3), DtypeError, r"sample_shape=3; expected a tuple, such as \(3,\)"),
        (lambda: distributions.Independent(distributions.Normal(0.0, 1.0), 1), ShapeError, "reinterpreted_batch_ndims=1"),
        (lambda: distributions.ContinuousBernoulli(0.3, lims=(0.6, 0.7)), ArgumentError, "lims="),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_checks_can_be_skipped() -> None:
    assert math.isnan(distributions.Normal(0.0, -1.0, validate_args=False).log_prob(gpunet.tensor(0.0)).item())
    Distribution.set_default_validate_args(False)
    try:
        distributions.Normal(0.0, -1.0)
    finally:
        Distribution.set_default_validate_args(True)


def test_signatures_are_those_of_pytorch(torch: Any) -> None:
    for name in distributions.__all__:
        ours, theirs = getattr(distributions, name), getattr(torch.distributions, name)
        if inspect.isclass(ours) and issubclass(ours, (Distribution, distributions.Transform)) and name != "Distribution":
            found, expected = (
                [(p.name, p.default) for p in inspect.signature(kind).parameters.values()] for kind in (ours, theirs)
            )
            assert found == expected, name


# ---- use --------------------------------------------------------------------------------------------------------------


def test_a_captured_step_draws_and_computes() -> None:
    loc = gpunet.zeros(3, requires_grad=True)

    def step(x: Any) -> Any:
        loc.grad = None
        policy = distributions.Normal(loc, 1.0)
        action = policy.rsample((4,))
        loss = (action - x).square().mean() - policy.log_prob(x).mean()
        loss.backward()
        return loss, action

    captured = gpunet.capture(step, backend="numpy")
    gpunet.manual_seed(1)
    found = [[t.tolist() for t in captured(gpunet.full((3,), float(i)))] for i in range(3)]
    gpunet.manual_seed(1)
    assert [[t.tolist() for t in step(gpunet.full((3,), float(i)))] for i in range(3)] == found
    assert found[0][1] != found[1][1]


def test_halves(torch: Any) -> None:
    found = distributions.Normal(gpunet.zeros(2, dtype=gpunet.float16), 1.0).sample((3,))
    assert found.dtype == gpunet.float16
    entropy = distributions.Categorical(logits=gpunet.zeros(3, dtype=gpunet.float16)).entropy()
    assert entropy.item() == pytest.approx(math.log(3.0), abs=2e-3)
