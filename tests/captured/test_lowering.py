"""Edge cases of lowered steps: overlapping views, numbers and indices out of range, name clashes."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.captured.compiled import module
from gpunet.errors import OutOfRangeError

F = gpunet.nn.functional
BACKENDS = [
    "numpy",
    pytest.param("numba", marks=pytest.mark.skipif(not module.available(), reason="Numba is not installed")),
]
Step = Callable[..., list[gpunet.Tensor]]


def check(backend: str, step: Step, *state: Any, calls: int = 3) -> None:
    """Check that replays of ``step(*state)`` have the bits of eager, including in-place changes of the state."""
    check_states(backend, step, lambda: [gpunet.tensor(a) for a in state], calls)


def check_states(backend: str, step: Step, made: Callable[[], list[gpunet.Tensor]], calls: int = 3) -> None:
    here, there = made(), made()
    captured = gpunet.capture(lambda: step(*there), backend=backend)
    for _ in range(calls):
        with gpunet.no_grad():
            expected, found = step(*here), captured()
        for mine, theirs in zip([*found, *there], [*expected, *here], strict=True):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            numpy.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_place_changes_by_overlapping_views(backend: str) -> None:
    """Overlapping operands are read before they are written, also where other calls use parts of the vector."""

    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        rows = x[:300].reshape(30, 10).amax(1)
        x[1:].copy_(x[:-1])
        x[:-1].sub_(x[1:])
        return [rows, x.mul_(x[1]), x[:300].reshape(30, 10).amax(1)]

    check(backend, step, numpy.random.default_rng(0).normal(size=601))


@pytest.mark.parametrize("backend", BACKENDS)
def test_adjacent_views_scaled_by_a_one_element_matrix(backend: str) -> None:
    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        y, scale = x * 0.5, x[:1].reshape(1, 1) * 2.0
        for part in (y[:6], y[6:]):
            part.reshape(2, 3).mul_(scale)
        return [y]

    check(backend, step, numpy.arange(3.0, 15.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_of_which_one_element_is_taken(backend: str) -> None:
    """Split at the element, which is 0-d elsewhere, the vector is still scaled by an array of shape (1,)."""

    def step(x: gpunet.Tensor, scale: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [x[5] * 2.0, x.mul_(scale)]

    check(backend, step, numpy.arange(600.0), numpy.array([3.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_comparisons_with_numbers_out_of_range_of_the_dtype(backend: str) -> None:
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [
            op(x, n)
            for x in given
            for n in (-1, 256, 2**40, -(2**40), 2**70)
            for op in (gpunet.lt, gpunet.ge, gpunet.eq)
        ]

    check(backend, step, *(numpy.array([0, 1, 127, 255], dtype) for dtype in ("uint8", "int32", "int64")), calls=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_conversions_that_wrap_around(backend: str) -> None:
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [
            x.to(numpy.dtype(kind))
            for x in given
            for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
        ]

    values = numpy.random.default_rng(0).normal(size=300) * 200
    check(backend, step, values, values.astype("float32"), values.astype("int64"), calls=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_conversions_of_nan_and_inf_to_integers(backend: str) -> None:
    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        kinds = ("int8", "int32", "int64") if platform.machine() == "x86_64" else ()  # undefined elsewhere
        values = [x * numpy.nan, (x + 1) * numpy.inf]
        return [x[values[0].long().clamp(-1, 0)].isnan(), *(v.to(numpy.dtype(kind)) for v in values for kind in kinds)]

    check(backend, step, numpy.arange(4.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_changed_out_of_range_after_its_use(backend: str) -> None:
    """Launches are traced after the step has ended, when the index no longer fits."""

    def step(x: gpunet.Tensor, index: gpunet.Tensor) -> list[gpunet.Tensor]:
        index.clamp_(0, 7)
        return [x[index], gpunet.gather(x, 0, index), index.add_(5).clone()]

    check(backend, step, numpy.arange(8.0), numpy.array([7, 0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_of_a_replay_out_of_range(backend: str) -> None:
    def assign(x: gpunet.Tensor, index: gpunet.Tensor) -> gpunet.Tensor:
        x = x.clone()
        x[index] = -1.0
        return x

    x, index = gpunet.arange(3.0), gpunet.tensor([0, 2])
    steps: dict[str, Any] = {"x[index]": lambda x, index: x[index], "x[index] = value": assign}
    for name, step in steps.items():
        captured = gpunet.capture(step, backend=backend)
        captured(x, index)
        expected = f"{name}: index 3 is out of bounds for dimension 0 with size 3; expected -3 .. 2"
        with pytest.raises(OutOfRangeError, match=f"^{re.escape(expected)}$"):
            captured(x, index + 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_users_op_may_have_any_name(backend: str) -> None:
    """Also a name that the source of lowered steps or one of gpunet's kernels uses."""
    names = ("a0", "c0", "check", "copyto", "failure", "None", "part0", "random_uniform", "replay", "table")
    ops = [
        gpunet.cuda_op(
            f"template <class T> __global__ void {name}(T* y, const T* x, double a, long long n) {{}}",
            launch=lambda y: {"grid": 1, "block": 256, "n": y.size},
            twin=lambda x, a: a * x,
        )
        for name in names
    ]  # fmt: skip
    check(
        backend,
        lambda x: [op(x * 0.5, a=float(n)).clamp(-1, 2) for n, op in enumerate(ops)],
        numpy.arange(4.0),
        calls=2,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unwritten_result_has_memory(backend: str) -> None:
    captured = gpunet.capture(lambda x: (x + 1, gpunet.empty(40, 30)), backend=backend)
    captured(gpunet.ones(3))
    assert captured.recordings[0].lowering.arena_bytes >= 40 * 30 * 4
    assert captured(gpunet.ones(3))[1].shape == (40, 30)


@pytest.mark.parametrize("backend", BACKENDS)
def test_overlapping_memory_with_several_owners(backend: str) -> None:
    """Two arrays of one buffer from another library: only their addresses tell that they overlap."""

    def shared() -> list[gpunet.Tensor]:
        memory = bytearray(numpy.arange(24.0).tobytes())
        return [gpunet.from_numpy(numpy.frombuffer(memory, count=8, offset=8 * first)) for first in (0, 12, 6)]

    def step(a: gpunet.Tensor, b: gpunet.Tensor, bridge: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [a.mul_(1.5), b.add_(3), bridge.sub_(a), a.add_(1), b * bridge]

    check_states(backend, step, shared)


def test_step_on_two_devices_replays_the_launches_of_both() -> None:
    """Each device's own buffers have memory there: one arena cannot serve both."""
    gpunet.manual_seed(0)
    x = gpunet.ones(3, device="emulated")

    def step(x: Any) -> Any:
        on_cpu = gpunet.rand(3, device="cpu") * 2
        return x * 3 + 1, on_cpu + 1

    run = gpunet.capture(step)
    found = [[t.tolist() for t in run(x)] for _ in range(3)]
    gpunet.manual_seed(0)
    assert found == [[t.tolist() for t in step(x)] for _ in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [-1, 3])
@pytest.mark.parametrize(
    "name, call",
    [
        ("gather", lambda x, i: x.gather(0, i)), ("index_select", lambda x, i: x.index_select(0, i)),
        ("scatter_add", lambda x, i: x.scatter_add(0, i, gpunet.ones(2))),
        ("index_add", lambda x, i: x.index_add(0, i, gpunet.ones(2))),
        ("take_along_dim", lambda x, i: gpunet.take_along_dim(x, i, 0)), ("scatter", lambda x, i: x.scatter(0, i, gpunet.ones(2))),
    ],
)  # fmt: skip
def test_replays_check_indices_that_start_at_0(name: str, call: Any, bad: int, backend: str) -> None:
    """NumPy would take -1 for the last element."""
    run = gpunet.capture(lambda x, i: call(x, i) * 2, backend=backend)
    x = gpunet.arange(3.0)
    run(x, gpunet.tensor([0, 2]))
    with pytest.raises(OutOfRangeError, match=f"{name}: index {bad} is out of bounds for dimension 0 with size 3; expected 0"):
        run(x, gpunet.tensor([0, bad]))
