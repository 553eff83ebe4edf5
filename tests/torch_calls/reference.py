"""How uncertain a result of PyTorch is: random, uninitialised, or changed by a rounding of the arguments."""

from __future__ import annotations

import contextlib
import math
import re
from random import Random
from typing import Any

import numpy

from tests.torch_calls.compare import EPSILON, PARTS, ROUNDINGS
from tests.torch_calls.outcome import TensorValue, Value, is_tensor, run, snapshot

#: Functions of matrices whose errors are relative to the largest element of the result, not to each.
FACTORISATIONS = re.compile(
    r"\b((log|slog)?det|qr|p?inv(erse|_ex)?|\w*solve\w*|lstsq|svd\w*|eigh|eigvalsh|cholesky\w*|lu|lu_\w*|cond)\("
)


def with_roundings(epsilon: float, seed: int) -> Any:
    """A context in which each floating result of an operation of PyTorch, in a backward pass, too, is changed by a rounding error.

    The roundings of intermediate results are so measured where they cancel (the gradient of a determinant, a second derivative
    that is 0), and multiplied where the function is ill-conditioned.
    """
    from torch.utils._python_dispatch import TorchDispatchMode  # PyTorch is optional

    class Roundings(TorchDispatchMode):
        random = Random(seed)

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if any(r.alias_info is not None for r in function._schema.returns):  # views, and functions in place
                return result
            return tuple(map(self.rounded, result)) if type(result) is tuple else self.rounded(result)

        def rounded(self, value: Any) -> Any:
            if not is_tensor(value) or not (value.is_floating_point() or value.is_complex()) or value._is_zerotensor():
                return value
            return rounded(value, epsilon, self.random)

    return Roundings()


def rounded(value: Any, epsilon: float, random: Random) -> Any:
    """A tensor with each number changed by a rounding error; those of both parts of a complex number are relative to its size."""

    def errors() -> Any:
        chosen = [epsilon * random.choice((-1.0, -0.5, 0.5, 1.0)) for _ in range(value.numel())]
        return value.real.new_tensor(chosen).reshape(value.shape)

    if not value.is_complex():
        return value * (1.0 + errors())
    size = value.detach().abs()
    return value + size.where(size.isfinite(), size.new_zeros(())) * (errors() + 1j * errors())


class Perturbed:
    """PyTorch in float64, whose ``tensor`` changes each value by a rounding error of ``epsilon``."""

    def __init__(self, torch: Any, epsilon: float, seed: int) -> None:
        self._torch, self._epsilon, self._random = torch, epsilon, Random(seed)

    def __getattr__(self, name: str) -> Any:
        wider = "float64" if name in EPSILON else "complex128" if name in PARTS else name
        return getattr(self._torch, wider)

    def tensor(self, data: Any, **options: Any) -> Any:
        result = self._torch.tensor(data, **options)
        if result.dtype not in (self._torch.float64, self._torch.complex128) or not self._epsilon:
            return result
        return rounded(result, self._epsilon, self._random)


def is_undefined(text: str, torch: Any, expression: str, theirs: Value) -> bool:
    """Whether PyTorch's own result depends on the seed, or on what memory contained: ``empty`` and ``empty_like``."""
    name = expression.split(".")[0]
    for seed in range(1, 65):  # a few draws of bernoulli(0.9) are often all ones
        torch.manual_seed(seed)
        if not _same(theirs, _value(text, torch, name, expression)):
            return True
    return "torch.empty" in text or ("resize_" in text and _grows(text, torch, theirs))


def _grows(text: str, torch: Any, theirs: Value) -> bool:
    """Whether a value has more elements than the tensor x, which the line resizes: new ones are uninitialised."""
    x = run(text.split("; ")[0], torch).variables.get("x")
    return isinstance(theirs, TensorValue) and is_tensor(x) and theirs.array.size > x.numel()


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
    dtype = PARTS.get(theirs.dtype, theirs.dtype)
    named = [PARTS.get(name, name) for name in (*EPSILON, *PARTS) if f"torch.{name}" in text]
    epsilon = max((EPSILON[name] for name in named), default=EPSILON[dtype])
    widest = max(epsilon, EPSILON[dtype])
    # intermediate results are computed in float32 at least, but the first gradient is rounded to the dtype of its tensor
    computed_in = widest if "g.backward" in text else min(widest, EPSILON["float32"])
    results = []
    for seed in range(5):
        for change in (epsilon, 0.0) if seed else (0.0,):  # a probability of 1, changed, may be refused
            with with_roundings(computed_in, seed) if seed else contextlib.nullcontext():
                outcome = run(f"{text}; exact = {expression}", Perturbed(torch, change, seed))
            if outcome.error is None:
                break
        exact = outcome.variables.get("exact")
        if outcome.error is not None or not is_tensor(exact) or not tuple(exact.shape) == theirs.shape == ours.shape:
            return False
        is_complex = exact.is_complex() or theirs.dtype in PARTS
        results.append(_parts(exact.detach().resolve_conj().to(torch.complex128 if is_complex else torch.float64).numpy().copy()))
    with numpy.errstate(all="ignore"):
        exact, theirs_parts, ours_parts = results[0], _parts(theirs.array), _parts(ours.array)
        if exact.shape != theirs_parts.shape:
            return False
        spread = numpy.max([numpy.abs(r - exact) for r in results[1:]], axis=0)
        spread = numpy.where(numpy.isnan(spread), math.inf, spread)
        size = numpy.abs(exact) if theirs.dtype not in PARTS else numpy.broadcast_to(numpy.hypot(*exact), exact.shape)
        if spread.ndim > 1 and FACTORISATIONS.search(text):
            spread = numpy.broadcast_to(spread.max(axis=(-2, -1), keepdims=True, initial=0.0), spread.shape)
        roundings = 8 if computed_in == EPSILON["float64"] else 4  # of float64 the exact result is rounded, too
        allowed = roundings * (spread + widest * size) + ROUNDINGS * min(widest, EPSILON["float32"]) * magnitude
        is_close = (numpy.abs(ours_parts - exact) <= allowed + numpy.finfo("float32").tiny) | (theirs_parts == ours_parts)
        both_nan = numpy.isnan(theirs_parts) & numpy.isnan(ours_parts)
        overflows = (numpy.abs(exact) > 0.99 * _largest(dtype)) & ~numpy.isnan(ours_parts)
        return bool((is_close | both_nan | overflows).all())


def _parts(array: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """The numbers; of complex ones the two parts, in a first dimension."""
    return numpy.stack((array.real, array.imag)) if numpy.iscomplexobj(array) else array


def _largest(dtype: str) -> float:
    return {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38}.get(dtype, math.inf)
