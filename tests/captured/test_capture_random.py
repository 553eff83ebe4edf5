"""Fuzz captured and split steps with random programs, against eager.

Programs consist of views, broadcasting, reductions, concatenations and in-place changes, with gradients, on new values at each
call, NaN and infinities among them.  Seeds are fixed, so a failure repeats.  Vectors are split into chunks, and loops into
parts for threads, from a few elements on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.captured import merge
from gpunet.captured.compiled import fusion, module, regions
from gpunet.errors import GpunetError, OutOfRangeError
from gpunet.launch import memory

F = gpunet.nn.functional
NUMBA = module.available()
Tensors = list[gpunet.Tensor]
SHAPES = ((), (1,), (0,), (5,), (3, 4), (1, 4), (3, 1), (2, 3, 4), (4, 3), (33, 17))
SQUARES = ((33,), (33, 33), (33, 1, 33))  # (33,) broadcasts along the rows of (33, 33)
UNARY = ["abs", "cos", "erf", "exp", "expm1", "log", "log1p", "sqrt", "square", "tanh", "sigmoid", "relu", "neg", "sin"]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "gt", "le"]
REDUCTIONS = ["sum", "mean", "amax", "amin", "prod", "var", "softmax", "log_softmax", "cumsum", "argmax"]
NUMBERS = (2, 1.5, -0.5, True, numpy.float64(0.1), numpy.int64(2), -0.0)
OUT_OF_RANGE = (-1, 256, 2**40, -(2**70))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for holder, name, value in (
        (merge, "_CACHE_BYTES", 256), (memory, "CHUNK_BYTES", 128), (fusion, "_MIN_SPLIT_SIZE", 4),
        (regions, "MIN_CHUNK_WORK", 1 << 8), (regions, "MIN_REGION_WORK", 1 << 9), (regions, "MIN_PART_WORK", 1 << 9),
    ):  # fmt: skip
        monkeypatch.setattr(holder, name, value)


def in_place(x: gpunet.Tensor, y: gpunet.Tensor, name: str) -> gpunet.Tensor:
    x = x.clone() if name not in ("view", "shift") else x.detach().clone()
    if name == "view":
        x[..., ::2].mul_(2.0)
    elif name == "item":
        x[..., 0] = 2.0
    elif name == "shift":
        flat = x.reshape(-1)
        flat[1:].add_(flat[:-1])
        flat.mul_(flat[1])
    else:
        getattr(x, name)(y)
    return x


def operation(draw: random.Random, count: int) -> Callable[[Tensors], gpunet.Tensor]:
    """Draw an operation on some of ``count`` tensors; it may raise for their shapes or dtypes."""
    i, j, k = (count - 1 - min(int(draw.expovariate(0.4)), count - 1) for _ in range(3))
    kind, axis, kept = draw.randrange(13), draw.randrange(-2, 3), draw.random() < 0.5
    if kind < 2:
        name = draw.choice(UNARY)
        return lambda v: getattr(gpunet, name)(v[i])
    if kind < 4:
        name = draw.choice(BINARY)
        return lambda v: getattr(gpunet, name)(v[i], v[j])
    if kind == 4:
        number, name = draw.choice(NUMBERS), draw.choice(BINARY[:4])
        return lambda v: getattr(gpunet, name)(v[i], number)
    if kind == 5:
        index = tuple(draw.choice((slice(None), slice(1, None), slice(None, None, -1), 0, None, ...)) for _ in range(2))
        return lambda v: v[i][index]
    if kind == 6:
        return draw.choice((
            lambda v: v[i].transpose(0, -1), lambda v: v[i].reshape(-1), lambda v: v[i].expand(2, *v[i].shape),
            lambda v: v[i].flip(0), lambda v: v[i].to(gpunet.float64), lambda v: v[i][v[j].long().clamp(0, 2)],
        ))  # fmt: skip
    if kind == 7:
        return lambda v: gpunet.cat([v[i], v[j], v[i]], axis)
    if kind == 8:
        name = draw.choice(REDUCTIONS)
        options = {} if name in ("softmax", "log_softmax", "cumsum") else {"keepdim": kept}
        return lambda v: getattr(gpunet, name)(v[i], axis, **options)
    if kind == 9:
        return lambda v: v[i] @ v[j] if kept else F.linear(v[i], v[j], activation="tanh")
    if kind == 10:
        return lambda v: gpunet.where(v[k] > 0, v[i], v[j])
    if kind == 11:
        number, name = draw.choice(OUT_OF_RANGE), draw.choice(("lt", "ge", "ne"))
        return lambda v: getattr(gpunet, name)(v[i], number)
    name = draw.choice(("add_", "mul_", "copy_", "view", "item", "shift"))
    return lambda v: in_place(v[i], v[j], name)


class Program:
    """Random operations on three arguments and two parameters, with a backward pass."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        dtype = draw.choice(("float32", "float32", "float64"))
        shapes = draw.sample(SHAPES, 3) if draw.random() < 0.7 else [*SQUARES]
        self.inputs = [(draw.choice(shapes), draw.choice((dtype,) * 5 + ("int64", "uint8", "bool"))) for _ in range(3)]
        self.inputs[1] = draw.choice(self.inputs)
        values = numpy.random.default_rng(seed)
        self.first = [values.normal(size=draw.choice(shapes)).astype(dtype) for _ in range(2)]
        self.operations: list[Callable[[Tensors], gpunet.Tensor]] = []
        for _ in range(60):
            self.operations.append(operation(draw, 5 + len(self.operations)))
            try:
                with numpy.errstate(all="ignore"):
                    last = self.run(self.arguments(values, False), self.parameters())[-1]
            except GpunetError:
                self.operations.pop()
            else:
                if last.numel() > 5000:
                    self.operations.pop()
            if len(self.operations) == 15:
                break

    def arguments(self, values: numpy.random.Generator, special: bool) -> Tensors:
        found = []
        for shape, dtype in self.inputs:
            array = numpy.asarray(values.normal(size=shape) * 2)
            if special and array.size and dtype.startswith("float"):
                array.flat[values.integers(array.size)] = values.choice([numpy.nan, numpy.inf, -numpy.inf, -0.0])
            found.append(gpunet.tensor(array.astype(dtype)))
        return found

    def parameters(self) -> Tensors:
        return [gpunet.tensor(value, requires_grad=True) for value in self.first]

    def run(self, arguments: Tensors, parameters: Tensors, reads: Collection[int] = ()) -> Tensors:
        """Run the program; ``reads`` are the indices of operations whose result is read back."""
        values = [*arguments, *parameters]
        for number, operation in enumerate(self.operations):
            values.append(operation(values))
            if number in reads:
                values[-1].sum().item()
        losses = [v.sum() for v in values[5:] if v.requires_grad]
        if losses:
            losses[0].backward(retain_graph=True)
            losses[-1].backward()
        return [v.detach() for v in values[-3:]]


def bits(tensors: list[gpunet.Tensor | None]) -> list[Any]:
    """Return dtype, shape and bits of each tensor; all NaNs are equal."""
    found = [None if t is None else t.detach().numpy() for t in tensors]
    return [None if a is None else (str(a.dtype), a.shape, numpy.where(a == a, a, numpy.nan).tobytes()) for a in found]


@pytest.mark.parametrize("seed", [*range(60, 140), 10350])
def test_random_programs_replay_to_the_bits_of_eager(seed: int) -> None:
    """Two calls without NaN and infinities, two with; gradients accumulate over the calls.

    An index may be out of range for some values; then both raise the same error.
    """
    program = Program(seed)
    here, there = program.parameters(), program.parameters()
    captured = gpunet.capture(lambda *arguments: program.run(list(arguments), there), backend="numpy")
    values = numpy.random.default_rng(seed)
    for call in range(4):
        arguments = program.arguments(values, call > 1)
        try:
            with numpy.errstate(all="ignore"):
                expected = program.run(arguments, here)
        except OutOfRangeError as error:
            with pytest.raises(OutOfRangeError, match=re.escape(str(error))):
                captured(*arguments)
            return
        assert bits(captured(*arguments)) == bits(expected)
        assert bits([p.grad for p in there]) == bits([p.grad for p in here])


@pytest.mark.exhaustive
@pytest.mark.skipif(not NUMBA, reason="Numba is not installed")
def test_random_programs_compile_to_the_values_of_eager() -> None:
    """Programs in float64, so that some digits are left where they amplify rounding; all in one step."""
    programs = [p for p in map(Program, range(100, 114)) if p.first[0].dtype == numpy.float64]
    there = [p.parameters() for p in programs]

    def step(arguments: list[Tensors]) -> list[Tensors]:
        return [p.run(given, parameters) for p, given, parameters in zip(programs, arguments, there)]

    captured = gpunet.capture(step, backend="numba")
    values = numpy.random.default_rng(0)
    here = [p.parameters() for p in programs]
    for call in range(3):
        arguments = [p.arguments(values, call > 1) for p in programs]
        with numpy.errstate(all="ignore"):
            expected = [p.run(given, parameters) for p, given, parameters in zip(programs, arguments, here)]
        for ours, theirs in zip(captured(arguments), expected):
            for a, b in zip(ours, theirs):
                numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-9)


def test_ranges_of_integers_up_to_the_largest(backend: str) -> None:
    def step() -> Any:
        x = gpunet.zeros(5, dtype="int64")
        return x.random_(), x.clone().random_(-5, None), gpunet.randint(3, 9, (4,))

    captured = gpunet.capture(step, backend=backend)
    gpunet.manual_seed(1)
    found = [[t.tolist() for t in captured()] for _ in range(3)]
    gpunet.manual_seed(1)
    assert found == [[t.tolist() for t in step()] for _ in range(3)]
