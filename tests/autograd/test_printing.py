"""Printed tensors, beside PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    gpunet.set_printoptions(profile="default")


def without_dtype(text: str) -> str:
    """The text with "torch." and a line break before a remark left out: PyTorch's name of a dtype is longer."""
    return text.replace("torch.", "").replace(",\n       dtype", ", dtype")


def arrays() -> Iterator[numpy.ndarray]:
    random = numpy.random.default_rng(0)
    for number in range(600):
        shape = tuple(random.choice([0, 1, 2, 3, 7, 8, 40], p=[0.03, 0.1, 0.3, 0.3, 0.12, 0.1, 0.05], size=random.integers(0, 4)))
        a = numpy.asarray(random.normal(size=shape) * 10.0 ** random.integers(-6, 10))
        choices = [
            a, numpy.round(a), a.astype("float32"), a.astype("int64"), a > 0, a.astype("float16"), 0 * a,
            numpy.where(random.random(shape) < 0.2, random.choice([numpy.inf, -numpy.inf, numpy.nan, 0.0]), a),
        ]  # fmt: skip
        yield numpy.asarray(choices[number % 8])


@pytest.mark.parametrize("options", [{}, {"precision": 2, "linewidth": 40}, {"edgeitems": 1, "threshold": 5}, {"sci_mode": True}])
@pytest.mark.filterwarnings("ignore:overflow")
def test_equals_pytorch(options: dict[str, Any], torch: Any) -> None:
    gpunet.set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        for a in arrays():
            mine, theirs = repr(gpunet.from_numpy(a.copy())), repr(torch.from_numpy(a.copy()))
            assert without_dtype(mine) == without_dtype(theirs)
    finally:
        torch.set_printoptions(profile="default")


def test_remarks(device: str) -> None:
    place = "" if device == "cpu" else f", device='{gpunet.device(device)}'"
    x = gpunet.tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == f"tensor([1.0000, 2.5000]{place}, requires_grad=True)"
    assert repr(x * 2) == f"tensor([2., 5.]{place}, grad_fn=<mul>)"
    assert repr(gpunet.tensor(1.5, dtype="float16")) == f"tensor(1.5000{place}, dtype=float16)"


def test_profiles() -> None:
    x = gpunet.tensor(math.pi)
    gpunet.set_printoptions(profile="short")
    assert repr(x) == "tensor(3.14)"
    gpunet.set_printoptions(profile="full")
    assert "..." not in repr(gpunet.zeros(3000))
    with pytest.raises(ArgumentError, match=r"profile='long'; expected one of 'default', 'short', 'full'"):
        gpunet.set_printoptions(profile="long")
