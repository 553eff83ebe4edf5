"""Lowered steps in odd corners: memory that overlaps itself, numbers and indices out of range, names that are taken."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.captured.compiled import module

F = gpunet.nn.functional
BACKENDS = [
    "numpy",
    pytest.param("numba", marks=pytest.mark.skipif(not module.available(), reason="Numba is not installed")),
]
Step = Callable[..., list[gpunet.Tensor]]


def agrees(backend: str, step: Step, *state: Any, calls: int = 3) -> None:
    """Hold replays of ``step(*state)``, which changes its state in place, to eager ones, to the bit."""
    compare(backend, step, lambda: [gpunet.tensor(a) for a in state], calls)


def compare(backend: str, step: Step, made: Callable[[], list[gpunet.Tensor]], calls: int = 3) -> None:
    here, there = made(), made()
    captured = gpunet.capture(lambda: step(*there), backend=backend)
    for _ in range(calls):
        with gpunet.no_grad():
            expected, found = step(*here), captured()
        for mine, theirs in zip([*found, *there], [*expected, *here], strict=True):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            numpy.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_that_is_changed_by_a_part_of_itself(backend: str) -> None:
    """The part is read whole before it is changed, also where others use the vector in parts."""

    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        rows = x[:300].reshape(30, 10).amax(1)
        x[1:].copy_(x[:-1])
        x[:-1].sub_(x[1:])
        return [rows, x.mul_(x[1]), x[:300].reshape(30, 10).amax(1)]

    agrees(backend, step, numpy.random.default_rng(0).normal(size=601))


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_that_are_scaled_by_a_matrix_of_one_element(backend: str) -> None:
    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        y, scale = x * 0.5, x[:1].reshape(1, 1) * 2.0
        for part in (y[:6], y[6:]):
            part.reshape(2, 3).mul_(scale)
        return [y]

    agrees(backend, step, numpy.arange(3.0, 15.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_comparisons_with_numbers_out_of_range(backend: str) -> None:
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [
            op(x, n)
            for x in given
            for n in (-1, 256, 2**40, -(2**40), 2**70)
            for op in (gpunet.lt, gpunet.ge, gpunet.eq)
        ]

    agrees(backend, step, *(numpy.array([0, 1, 127, 255], dtype) for dtype in ("uint8", "int32", "int64")), calls=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_conversions_that_wrap_around(backend: str) -> None:
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [
            x.to(numpy.dtype(kind))
            for x in given
            for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
        ]

    values = numpy.random.default_rng(0).normal(size=300) * 200
    agrees(backend, step, values, values.astype("float32"), values.astype("int64"), calls=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_becomes_an_integer_all_the_same(backend: str) -> None:
    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        kinds = ("int8", "int32", "int64") if platform.machine() == "x86_64" else ()  # elsewhere NumPy makes others of it
        values = [x * numpy.nan, (x + 1) * numpy.inf]
        return [x[values[0].long().clamp(-1, 0)].isnan(), *(v.to(numpy.dtype(kind)) for v in values for kind in kinds)]

    agrees(backend, step, numpy.arange(4.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_that_the_step_moves_out_of_range(backend: str) -> None:
    """What is recorded is looked at when the step has ended."""

    def step(x: gpunet.Tensor, index: gpunet.Tensor) -> list[gpunet.Tensor]:
        index.clamp_(0, 7)
        return [x[index], gpunet.gather(x, 0, index), index.add_(5).clone()]

    agrees(backend, step, numpy.arange(8.0), numpy.array([7, 0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_op_may_have_any_name(backend: str) -> None:
    """Also one that the source of a lowered step uses, or a kernel of ours."""
    names = ("a0", "c0", "check", "copyto", "failure", "None", "part0", "random_uniform", "replay", "table")
    ops = [
        gpunet.cuda_op(
            f"template <class T> __global__ void {name}(T* y, const T* x, double a, long long n) {{}}",
            launch=lambda y: {"grid": 1, "block": 256, "n": y.size},
            twin=lambda x, a: a * x,
        )
        for name in names
    ]  # fmt: skip
    agrees(
        backend,
        lambda x: [op(x * 0.5, a=float(n)).clamp(-1, 2) for n, op in enumerate(ops)],
        numpy.arange(4.0),
        calls=2,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_returned_has_memory_though_nobody_writes_it(backend: str) -> None:
    captured = gpunet.capture(lambda x: (x + 1, gpunet.empty(40, 30)), backend=backend)
    captured(gpunet.ones(3))
    assert captured.recordings[0].lowering.arena_bytes >= 40 * 30 * 4
    assert captured(gpunet.ones(3))[1].shape == (40, 30)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_that_several_arrays_own(backend: str) -> None:
    """As two arrays have it that another library hands over: nothing but their addresses says that they overlap."""

    def shared() -> list[gpunet.Tensor]:
        memory = bytearray(numpy.arange(24.0).tobytes())
        return [gpunet.from_numpy(numpy.frombuffer(memory, count=8, offset=8 * first)) for first in (0, 12, 6)]

    def step(a: gpunet.Tensor, b: gpunet.Tensor, bridge: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [a.mul_(1.5), b.add_(3), bridge.sub_(a), a.add_(1), b * bridge]

    compare(backend, step, shared)
