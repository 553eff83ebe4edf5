"""Values and gradients of a function beside PyTorch's."""

from __future__ import annotations

import functools
import operator
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


def check_complex(call: Callable[..., Any], arrays: list[numpy.ndarray], torch: Any, device: str, rtol: float = 1e-9) -> None:
    """Compare ``call(library, *tensors)``, the gradients of its weighted squares, and the gradients of those.

    The tensors have the dtypes of the arrays, which may be complex, as may the result.
    """
    found = []
    for library, options in ((gpunet, {"device": device}), (torch, {})):
        inputs = [library.tensor(a, requires_grad=True, **options) for a in arrays]
        result = call(library, *inputs)
        shape, dtype = tuple(result.shape), result.abs().dtype
        weights = library.tensor(numpy.random.default_rng(9).normal(size=shape), dtype=dtype, **options)
        gradients = library.autograd.grad((result.abs() ** 2 * weights).sum(), inputs, create_graph=True)
        squares = [(g.abs() ** 2).sum() for g in gradients]
        functools.reduce(operator.add, squares).backward()
        values = (result, *gradients, *(x.grad for x in inputs))
        found.append([(v.detach().resolve_conj().cpu().numpy(), str(v.dtype).removeprefix("torch.")) for v in values])
    for (ours, dtype), (theirs, expected) in zip(*found, strict=True):
        assert dtype == expected and ours.shape == theirs.shape
        numpy.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * abs(theirs).max(initial=1.0))


def complex_normal(seed: int, *shape: int, dtype: str = "complex128") -> numpy.ndarray:
    """Complex random numbers, or real ones of a real dtype."""
    generator = numpy.random.default_rng(seed)
    real, imag = generator.normal(size=shape), generator.normal(size=shape)
    return (real + 1j * imag).astype(dtype) if dtype.startswith("complex") else real.astype(dtype)
