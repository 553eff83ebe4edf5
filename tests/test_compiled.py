"""A recorded step that Numba compiles: the values of eager up to rounding, for every op; the same bits on every run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.captured import CapturedStep, capture
from gpunet.errors import CaptureError, LabelError, MissingDependencyError
from gpunet.runtime.lower.compiled import module
from gpunet.runtime.random import default_generator
from samples import SAMPLES, Sample

if not module.available():
    if os.environ.get("GPUNET_REQUIRE_NUMBA") == "1":
        pytest.fail("GPUNET_REQUIRE_NUMBA=1, but Numba is not installed: pip install 'gpunet[jit]'", pytrace=False)
    pytest.skip("Numba is not installed", allow_module_level=True)

F = nn.functional
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def close(a: Any, b: Any, dtype: str = "float32") -> None:
    a, b = numpy.asarray(a), numpy.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    tolerance = TOLERANCE[dtype]
    numpy.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(numpy.max(numpy.abs(b), initial=0.0))))


# ---- every op -------------------------------------------------------------------------------------------------------


def step_of(sample: Sample, inputs: list[gpunet.Tensor]) -> Callable[[], list[gpunet.Tensor]]:
    """Forward and backward of a row, as a step on ``inputs``, which it finds outside."""
    leaves = [t for t in inputs if t.requires_grad]

    def step() -> list[gpunet.Tensor]:
        out = sample.call(*inputs)
        outs = [o for o in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(o, gpunet.Tensor)]
        total = [o for o in outs if o.requires_grad]
        if not total or not leaves:
            return outs
        return [*outs, *gpunet.grad([(o * o).sum() for o in total], leaves)]

    return step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_sample(sample: Sample, dtype: str) -> None:
    def tensors(seed: int) -> list[gpunet.Tensor]:
        return [
            gpunet.tensor(a.astype(dtype) if a.dtype.kind == "f" else a, requires_grad=bool(i.gradient and a.dtype.kind == "f"))
            for a, i in zip(sample.arrays(seed), sample.inputs)
        ]

    inputs = tensors(0)
    captured = capture(step_of(sample, inputs), backend="numba")
    try:
        captured()
    except CaptureError:
        pytest.xfail("the step looks at values")
    for seed in (1, 2):
        new = tensors(seed)
        for old, fresh in zip(inputs, new):
            old.array[...] = fresh.array
        expected, found = step_of(sample, new)(), captured()
        for e, f in zip(expected, found, strict=True):
            close(f.detach().numpy(), e.detach().numpy(), dtype)
