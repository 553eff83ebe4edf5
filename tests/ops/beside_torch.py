"""Values and gradients of a function beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

import gpunet


def check_values_and_gradients(
    call: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], torch: Any, device: str, rtol: float
) -> None:
    """Compare ``call(library, *tensors)``, of random numbers in float64, and the gradients of its weighted squares."""
    arrays = [numpy.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    found = []
    for library, options in ((gpunet, {"device": device}), (torch, {})):
        inputs = [library.tensor(a, requires_grad=True, **options) for a in arrays]
        result = call(library, *inputs)
        weights = library.tensor(numpy.random.default_rng(9).normal(size=tuple(result.shape)), **options)
        (result * result * weights).sum().backward()
        found.append([v.detach().cpu().numpy() for v in (result, *(x.grad for x in inputs))])
    for ours, theirs in zip(*found):
        numpy.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0.1 * rtol * abs(theirs).max())
