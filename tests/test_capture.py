"""Captured steps: the same bits as eager whatever the step does, and a refusal or a new recording where it could not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, CaptureError, LabelError
from samples import SAMPLES, Sample
from test_ops import cotangent, tensors, to_numpy

F = nn.functional


# ---- every op ---------------------------------------------------------------------------------------------------------


def differentiate(sample: Sample, g: gpunet.Tensor, *inputs: gpunet.Tensor) -> list[gpunet.Tensor]:
    """Forward and backward of a sample, as a step: its output and gradients."""
    leaves = [x.detach().requires_grad_() if given.gradient else x for x, given in zip(inputs, sample.inputs)]
    out = sample.call(*leaves)
    out.backward(g)
    return [out, *(x.grad for x in leaves if x.grad is not None)]


def is_refused(sample: Sample) -> bool:
    """Whether the shape of a result depends on values."""
    return "mask" in sample.name and sample.op in ("_index", "_with_index")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_op_replays_to_the_bits_of_eager(sample: Sample, device: str) -> None:
    def step(*args: gpunet.Tensor) -> list[gpunet.Tensor]:
        return differentiate(sample, *args)

    captured = gpunet.capture(step)
    out = sample.call(*tensors(sample, sample.arrays(), "float32", device, graph=False))
    g = gpunet.tensor(cotangent(out.shape), dtype=out.dtype, device=device)
    for seed in range(3):
        gpunet.manual_seed(seed)
        given = tensors(sample, sample.arrays(seed), "float32", device, graph=False)
        expected = step(g, *given)
        gpunet.manual_seed(seed)
        if is_refused(sample):
            with pytest.raises(CaptureError, match="booleans"):
                captured(g, *given)
            return
        found = captured(g, *given)
        assert [to_numpy(a).tobytes() for a in found] == [to_numpy(b).tobytes() for b in expected]
    assert len(captured.recordings) == 1
