"""Optimizers on halves: a step computes in float32 what PyTorch's does in float64, and rounds parameters and state once."""

from __future__ import annotations

import inspect
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import dtypes
from gpunet.launch.list_kernel import max_tensors
from tests.ops.test_halves import ONE_ROUNDING, error, every_half
from tests.ops.test_ops import to_numpy
from tests.optim.test_optim import SHAPES, VARIANTS


@every_half
@pytest.mark.parametrize("name, options", VARIANTS, ids=lambda v: v if isinstance(v, str) else ", ".join(v))
def test_each_step_is_that_of_torch_in_float64(name: str, options: dict[str, Any], dtype: str, device: str, torch: Any) -> None:
    """PyTorch starts each step from our parameters, gradients and state, so that a step's own error shows."""
    generator = numpy.random.default_rng(0)
    if "eps" in inspect.signature(getattr(gpunet.optim, name)).parameters:
        options = {"eps": 1e-3, **options}  # the squares of small gradients are 0 in float16
    params = [gpunet.tensor(generator.normal(size=s), dtype=dtype, device=device, requires_grad=True) for s in SHAPES]
    mine = getattr(gpunet.optim, name)(params, **options)
    for _ in range(6):
        doubles = [torch.tensor(to_numpy(p).astype("float64"), requires_grad=True) for p in params]
        theirs = getattr(torch.optim, name)(doubles, **options)
        for p, double in zip(params, doubles):
            p.grad = gpunet.tensor(generator.normal(size=p.shape), dtype=dtype, device=device)
            double.grad = torch.tensor(to_numpy(p.grad).astype("float64"))
            theirs.state[double] = {
                key: torch.tensor(to_numpy(value).astype("float64")).reshape(() if key in mine.counters else p.shape)
                for key, value in mine.state.get(p, {}).items()
            }
        mine.step()
        theirs.step()
        for p, double in zip(params, doubles):
            assert p.dtype == dtypes.as_dtype(dtype) and error(p, double.detach().numpy(), dtype) <= ONE_ROUNDING
            for key, value in mine.state[p].items():
                if key not in mine.counters:
                    assert value.dtype == p.dtype and error(value, theirs.state[double][key].numpy(), dtype) <= ONE_ROUNDING


@every_half
def test_many_tensors_and_mixed_dtypes(dtype: str, device: str) -> None:
    """More tensors than a launch takes, halves beside float32; the state follows the dtype through a state_dict."""
    shapes = [(1 + i % 5,) for i in range(2 * max_tensors(gpunet.zeros(1, device=device).array) + 3)]
    params = [gpunet.ones(*s, dtype=dtype if i % 3 else "float32", device=device, requires_grad=True) for i, s in enumerate(shapes)]
    optimizer = gpunet.optim.Adam(params, lr=0.25, eps=1e-3)
    for _ in range(2):
        for p in params:
            p.grad = gpunet.ones(*p.shape, dtype=p.dtype, device=device)
        optimizer.step()
    for p in params:
        half_or_single = dtypes.as_dtype(p.dtype)
        numpy.testing.assert_allclose(to_numpy(p).astype("float64"), 0.5, atol=2 * float(dtypes.finfo(half_or_single).eps) + 1e-3)
        assert optimizer.state[p]["exp_avg"].dtype == p.dtype and optimizer.state[p]["step"].dtype == gpunet.float64
    other = gpunet.optim.Adam(params, lr=0.25)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[params[1]]["exp_avg"].dtype == dtypes.as_dtype(dtype)
    assert to_numpy(other.state[params[1]]["exp_avg"]).tobytes() == to_numpy(optimizer.state[params[1]]["exp_avg"]).tobytes()


@every_half
def test_lion_rounds_parameters_and_state_once(dtype: str, device: str) -> None:
    generator = numpy.random.default_rng(0)
    p = gpunet.tensor(generator.normal(size=50), dtype=dtype, device=device, requires_grad=True)
    optimizer, average = gpunet.optim.Lion([p], lr=0.01, weight_decay=0.1), numpy.zeros(50)
    for _ in range(6):
        before = to_numpy(p).astype("float64")
        p.grad = gpunet.tensor(generator.normal(size=50), dtype=dtype, device=device)
        g = to_numpy(p.grad).astype("float64")
        optimizer.step()
        assert error(p, before * (1.0 - 1e-3) - 0.01 * numpy.sign(0.9 * average + 0.1 * g), dtype) <= ONE_ROUNDING
        average = 0.99 * average + 0.01 * g
        found = optimizer.state[p]["exp_avg"]
        assert error(found, average, dtype) <= ONE_ROUNDING
        average = to_numpy(found).astype("float64")
