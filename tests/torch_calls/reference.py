"""How uncertain a result of PyTorch is: random, uninitialised, or changed by a rounding of the arguments."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy

from tests.torch_calls.compare import EPSILON, ROUNDINGS
from tests.torch_calls.outcome import TensorValue, Value, is_tensor, run, snapshot


class Perturbed:
    """PyTorch in float64, whose ``tensor`` changes each value by a rounding error of ``epsilon``."""

    def __init__(self, torch: Any, epsilon: float, seed: int) -> None:
        self._torch, self._epsilon, self._random = torch, epsilon, Random(seed)

    def __getattr__(self, name: str) -> Any:
        return self._torch.float64 if name in EPSILON else getattr(self._torch, name)

    def tensor(self, data: Any, **options: Any) -> Any:
        result = self._torch.tensor(data, **options)
        if result.dtype != self._torch.float64 or not self._epsilon:
            return result
        factors = [1.0 + self._epsilon * self._random.choice((-1.0, -0.5, 0.5, 1.0)) for _ in range(result.numel())]
        return result * self._torch.tensor(factors, dtype=result.dtype).reshape(result.shape)


def is_undefined(text: str, torch: Any, expression: str, theirs: Value) -> bool:
    """Whether PyTorch's own result depends on the seed, or on what memory contained: ``empty`` and ``empty_like``."""
    name = expression.split(".")[0]
    for seed in range(1, 9):
        torch.manual_seed(seed)
        if not _same(theirs, _value(text, torch, name, expression)):
            return True
    return "torch.empty" in text


def _value(text: str, torch: Any, name: str, expression: str) -> Value:
    value = run(text, torch).variables.get(name)
    return snapshot(value.grad if expression.endswith(".grad") else value)


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, TensorValue) and isinstance(b, TensorValue):
        return bool(numpy.array_equal(a.array, b.array, equal_nan=True)) and a.shape == b.shape
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and a and isinstance(a[0], str):
        return all(_same(x, y) if isinstance(x, tuple) else x == y for x, y in zip(a, b))
    return a == b or repr(a) == repr(b)


def is_rounding(text: str, torch: Any, expression: str, theirs: TensorValue, ours: TensorValue, magnitude: float) -> bool:
    """Whether a difference is as small as what roundings of the arguments, of intermediate and of exact results explain.

    Args:
        expression: the compared value as an expression of the line's variables.
        magnitude: of intermediate results, which are rounded in float32 at least.
    """
    dtype = theirs.dtype
    epsilon = max((EPSILON[name] for name in EPSILON if f"torch.{name}" in text), default=EPSILON[dtype])
    results = []
    for seed in range(5):
        library = Perturbed(torch, epsilon if seed else 0.0, seed)
        outcome = run(f"{text}; exact = {expression}", library)
        exact = outcome.variables.get("exact")
        if outcome.error is not None or not is_tensor(exact) or not tuple(exact.shape) == theirs.shape == ours.shape:
            return False
        results.append(exact.detach().to(torch.float64).numpy().copy())
    with numpy.errstate(all="ignore"):
        exact = results[0]
        spread = numpy.max([numpy.abs(r - exact) for r in results[1:]], axis=0)
        spread = numpy.where(numpy.isnan(spread), math.inf, spread)
        computed_in = min(max(epsilon, EPSILON[dtype]), EPSILON["float32"])
        allowed = 4 * spread + 4 * max(epsilon, EPSILON[dtype]) * numpy.abs(exact) + ROUNDINGS * computed_in * magnitude
        is_close = (numpy.abs(ours.array - exact) <= allowed + numpy.finfo("float32").tiny) | (theirs.array == ours.array)
        both_nan = numpy.isnan(theirs.array) & numpy.isnan(ours.array)
        overflows = (numpy.abs(exact) > 0.99 * _largest(dtype)) & ~numpy.isnan(ours.array)
        return bool((is_close | both_nan | overflows).all())


def _largest(dtype: str) -> float:
    return {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38}.get(dtype, math.inf)
