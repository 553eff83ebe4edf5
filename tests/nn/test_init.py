"""Initializations: distributions, shapes, the same numbers on all devices, old names, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import scipy.stats

import gpunet
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 2, 3), (1, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_orthogonal_rows_or_columns_are_orthonormal(shape: tuple[int, ...], dtype: str, device: str) -> None:
    w = init.orthogonal_(gpunet.empty(*shape, dtype=dtype, device=device), 2.0).double().cpu().numpy().reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    numpy.testing.assert_allclose(product, 4 * numpy.eye(len(product)), atol=20 * float(gpunet.finfo(dtype).eps))


def test_orthogonal_matrices_are_distributed_as_scipys() -> None:
    """The trace of a Haar-distributed orthogonal matrix; without the signs of R its mean is not 0."""
    gpunet.manual_seed(0)
    mine = [float(numpy.trace(init.orthogonal_(gpunet.empty(3, 3)).numpy())) for _ in range(800)]
    theirs = [numpy.trace(m) for m in scipy.stats.ortho_group.rvs(3, 800, random_state=0)]
    assert scipy.stats.ks_2samp(mine, theirs).pvalue > 0.01


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0.0, 1.0, -2.0, 2.0), (1.0, 2.0, -1.0, 1.5), (0.0, 0.02, -2.0, 2.0), (0.0, 1.0, 5.0, 9.0)]
)
def test_truncated_normal_numbers_are_distributed_as_scipys(mean: float, std: float, a: float, b: float) -> None:
    gpunet.manual_seed(1)
    x = init.trunc_normal_(gpunet.empty(20000, dtype="float64"), mean, std, a, b).numpy()
    assert a <= x.min() and x.max() <= b
    assert scipy.stats.kstest(x, scipy.stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std).cdf).pvalue > 0.01


def test_quantiles_of_the_normal_distribution() -> None:
    p = numpy.concatenate([10.0 ** -numpy.arange(1, 300, 7), numpy.linspace(0.01, 0.99, 99), 1 - 10.0 ** -numpy.arange(1, 16)])
    numpy.testing.assert_allclose(init._normal_quantile(p), scipy.stats.norm.ppf(p), rtol=1e-13, atol=1e-15)


def test_sparse_columns() -> None:
    x = init.sparse_(gpunet.empty(10, 6), 0.35, 2.0).numpy()
    assert ((x == 0).sum(0) == 4).all() and len({tuple(column) for column in (x == 0).T}) > 1


@pytest.mark.parametrize(("shape", "groups"), [((4, 2, 3), 1), ((6, 2, 3, 5), 3), ((2, 4, 1, 2, 3), 2)])
def test_dirac_is_torchs(shape: tuple[int, ...], groups: int, torch: Any) -> None:
    mine = init.dirac_(gpunet.empty(*shape), groups).numpy()
    numpy.testing.assert_array_equal(mine, torch.nn.init.dirac_(torch.empty(*shape), groups).numpy())


@pytest.mark.parametrize("fill", [init.orthogonal_, init.trunc_normal_, lambda t: init.sparse_(t, 0.5)])
def test_numbers_do_not_depend_on_the_device(fill: Callable[[Any], Any], device: str) -> None:
    results = []
    for place in ("cpu", device):
        gpunet.manual_seed(3)
        results.append(fill(gpunet.empty(6, 4, device=place)).cpu().tolist())
    assert results[0] == results[1]


def test_old_names_warn_and_work() -> None:
    for name in ("uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "eye"):
        gpunet.manual_seed(0)
        with pytest.warns(FutureWarning, match=f"nn.init.{name} is deprecated; use nn.init.{name}_"):
            old = getattr(init, name)(gpunet.empty(3, 2))
        gpunet.manual_seed(0)
        assert (old == getattr(init, f"{name}_")(gpunet.empty(3, 2))).all()


def test_errors_of_initializations() -> None:
    with pytest.raises(ShapeError, match=r"orthogonal_: tensor of shape \(3,\); expected at least 2 dimensions"):
        init.orthogonal_(gpunet.empty(3))
    with pytest.raises(ShapeError, match=r"dirac_: 3 output channels in groups=2; expected a divisor"):
        init.dirac_(gpunet.empty(3, 2, 1), 2)
    with pytest.raises(ArgumentError, match="sparse_: sparsity=2; expected a fraction from 0 to 1"):
        init.sparse_(gpunet.empty(3, 2), 2)
    with pytest.raises(ArgumentError, match="trunc_normal_: std=1.0, a=2.0, b=1.0; expected std > 0 and a < b"):
        init.trunc_normal_(gpunet.empty(3), a=2.0, b=1.0)
