"""Arguments of a compiled step are read in place if that is safe, else copied, and never kept alive."""

from __future__ import annotations

import gc
import queue
import weakref
from collections.abc import Callable

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.captured import CapturedStep, capture, compiled
from gpunet.captured.compiled import arguments, library_calls, module
from gpunet.errors import LabelError
from tests.captured.compiled.steps import large_step, training_step

if not module.available():
    pytest.skip("Numba is not installed", allow_module_level=True)

Make = Callable[[numpy.ndarray], numpy.ndarray]


def copy_at(array: numpy.ndarray, offset: int) -> numpy.ndarray:
    """A copy at ``offset`` bytes after a multiple of 64."""
    memory = numpy.zeros(array.nbytes + 128, numpy.uint8)
    start = -memory.ctypes.data % 64 + offset
    result = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def read_only(array: numpy.ndarray) -> numpy.ndarray:
    result = array.copy()
    result.flags.writeable = False
    return result


def strided(array: numpy.ndarray) -> numpy.ndarray:
    """A copy whose rows have stride 2."""
    memory = numpy.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)
    memory[:, ::2] = array
    return memory[:, ::2]


IN_PLACE: list[tuple[str, Make]] = [
    ("as recorded", numpy.copy),
    ("read-only", read_only),
    ("aligned to the element", lambda a: copy_at(a, 4)),
    ("rows of a larger array", lambda a: numpy.concatenate([a + 1, a, a - 1])[len(a) : 2 * len(a)]),
]
COPIED: list[tuple[str, Make]] = [
    ("unaligned", lambda a: copy_at(a, 1)),
    ("strided", strided),
    ("Fortran order", numpy.asfortranarray),
    ("negative stride", lambda a: a[::-1].copy()[::-1]),
    ("broadcast row", lambda a: numpy.broadcast_to(a[0], a.shape)),
]
ROWS = [pytest.param(make, True, id=name) for name, make in IN_PLACE]
ROWS += [pytest.param(make, False, id=name) for name, make in COPIED]


def buffers(step: CapturedStep) -> list[numpy.ndarray]:
    return step.recordings[-1].inputs


def numbers(rows: int, columns: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(size=(rows, columns)).astype("float32")


@pytest.mark.parametrize("make, in_place", ROWS)
def test_contiguous_arguments_are_read_in_place(make: Make, in_place: bool) -> None:
    weight = gpunet.tensor(numbers(6, 5, 7))
    step = capture(lambda x: (x @ weight, (x * 2.0).sum(0)), backend="numba")
    first = numbers(4, 6)
    step(gpunet.from_numpy(first))
    x = make(numbers(4, 6, 1))
    for found, expected in zip(step(gpunet.from_numpy(x)), step(gpunet.from_numpy(x.copy()))):
        assert found.numpy().tobytes() == expected.numpy().tobytes()
    assert (buffers(step)[0] == (first if in_place else x)).all()
    assert len(step.recordings) == 1


@pytest.mark.parametrize("make, in_place", ROWS)
def test_numpy_products_read_arguments_of_the_recorded_alignment(
    make: Make, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of a BLAS result may depend on alignment, so an argument that is not aligned to 16 bytes is copied."""
    monkeypatch.setattr(library_calls, "MAX_PRODUCT", 0)
    weight = gpunet.tensor(numbers(6, 5, 7))
    step = capture(lambda x: (x @ weight + 1.0, x * 2.0), backend="numba")
    first = numbers(4, 6)
    step(gpunet.from_numpy(first))
    source = step.recordings[0].lowering.source
    assert "matmul(argument0.reshape((1, 4, 6)), " in source.partition("def replay")[2]
    x = make(numbers(4, 6, 1))
    product, double = step(gpunet.from_numpy(x))
    assert (product.numpy() == x @ weight.numpy() + 1).all()
    assert (double.numpy() == x * 2).all()
    in_place = in_place and x.ctypes.data % 16 == 0
    assert (buffers(step)[0] == (first if in_place else x)).all()


def test_a_numpy_call_on_a_slice_of_an_argument_reads_a_copy() -> None:
    step = capture(lambda x: (gpunet.sort(x[1:], 1).values, x + 1.0), backend="numba")
    for seed in range(3):
        x = numbers(4, 6, seed)
        ordered, more = step(gpunet.from_numpy(x))
        assert (ordered.numpy() == numpy.sort(x[1:], 1)).all()
        assert (more.numpy() == x + 1).all()
    assert (buffers(step)[0] == x).all()


@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_bits_do_not_depend_on_the_alignment_of_arguments(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(offset: int | None) -> list[bytes]:
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 5))
        step = training_step(model, gpunet.optim.Adam(model.parameters(), lr=0.01))
        for seed in range(5):
            x, y = numbers(17, 30, seed), numpy.arange(17) * seed % 5
            step(*(gpunet.from_numpy(a if offset is None else copy_at(a, 2 * offset)) for a in (x, y)))
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    found = train(offset)
    monkeypatch.setattr(compiled, "select_arguments", lambda *_: [])  # the recording copies all arguments
    assert train(None) == found


def test_threads_read_the_arguments_of_the_current_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def train() -> list[bytes]:
        step, (x, y), parameters = large_step()
        losses = [step(gpunet.from_numpy(numbers(*x.shape, seed)), y).numpy().tobytes() for seed in range(8)]
        return [*losses, *(p.detach().numpy().tobytes() for p in parameters)]

    found = train()
    monkeypatch.setattr(compiled, "select_arguments", lambda *_: [])
    assert train() == found


# ---- shared memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 4, 7, -7])
def test_an_argument_that_overlaps_memory_the_step_writes_is_read_first(start: int) -> None:
    """The arrays have no common base: both come from the buffer protocol."""
    memory = bytearray(4 * 24)
    weight = gpunet.from_numpy(numpy.frombuffer(memory, "float32", 8, 4 * 8))
    matrix = gpunet.tensor(numbers(4, 3))

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        weight.add_(1.0)
        return x.reshape(2, 4) @ matrix

    run = capture(step, backend="numba")
    run(gpunet.ones(8))
    for seed in range(3):
        numpy.frombuffer(memory, "float32")[:] = numbers(1, 24, seed)[0]
        x = numpy.frombuffer(memory, "float32", 8, 4 * (8 + start))
        expected = x.reshape(2, 4) @ matrix.numpy()
        numpy.testing.assert_allclose(run(gpunet.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_argument_is_a_gradient_that_the_step_writes() -> None:
    parameter = gpunet.zeros(3, requires_grad=True)
    matrix = gpunet.tensor(numbers(3, 2))

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        parameter.grad = None
        ((parameter + x) * (parameter + x + 1.0)).sum().backward()
        return x.reshape(1, 3) @ matrix

    run = capture(step, backend="numba")
    run(gpunet.ones(3))
    for _ in range(3):
        before = parameter.grad.numpy().copy()
        numpy.testing.assert_allclose(run(parameter.grad).numpy()[0], before @ matrix.numpy(), rtol=1e-5)
        assert parameter.grad.tolist() == (2 * before + 1).tolist()


def test_arguments_that_share_memory() -> None:
    step = capture(lambda x, y: (x - y, x * y), backend="numba")
    step(gpunet.ones(6), gpunet.ones(6))
    whole = numpy.arange(9, dtype="float32")
    for shift in (0, 1, 3):
        x, y = whole[:6], whole[shift : shift + 6]
        difference, product = step(gpunet.from_numpy(x), gpunet.from_numpy(y))
        assert (difference.numpy() == x - y).all()
        assert (product.numpy() == x * y).all()


def test_an_argument_that_the_step_changes_in_place() -> None:
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x += y
        return x * 2.0

    run = capture(step, backend="numba")
    for start in (0.0, 1.0, 2.0, 3.0):
        x = gpunet.full((3,), start)
        assert run(x, gpunet.full((3,), 10.0 * start)).tolist() == [22.0 * start] * 3
        assert x.tolist() == [11.0 * start] * 3


def test_an_argument_that_the_step_returns() -> None:
    run = capture(lambda x, y: (x.reshape(3, 1), x * 2.0, y), backend="numba")
    for number in (0.0, 1.0, 2.0):
        x, y = gpunet.full((3,), number), gpunet.full((3,), -number)
        column, double, same = run(x, y)
        x.fill_(9.0)  # the results do not alias the arguments
        y.fill_(9.0)
        assert (column.tolist(), double.tolist(), same.tolist()) == ([[number]] * 3, [2.0 * number] * 3, [-number] * 3)


def test_an_argument_recorded_as_strided_is_always_copied() -> None:
    """Such an argument will probably be strided again, and checking it first would cost as much as the copy."""
    step = capture(lambda x, y: x * 2.0 + y, backend="numba")
    for seed in range(4):
        x, y = numbers(3, 4, seed), numbers(3, 4, seed + 9)
        step(gpunet.from_numpy(strided(x)), gpunet.from_numpy(y))
        found = step(gpunet.from_numpy(x), gpunet.from_numpy(strided(y)))
        numpy.testing.assert_allclose(found.numpy(), x * 2 + y, rtol=1e-6)
        assert (buffers(step)[0] == x).all()
    assert "def replay(argument0):" in step.recordings[0].lowering.source


def test_some_arguments_are_copied_and_others_are_not() -> None:
    step = capture(lambda x, y, z: x @ y.T + z, backend="numba")
    first = [numbers(5, 5, seed) for seed in range(3)]
    step(*map(gpunet.from_numpy, first))
    for mask in range(8):
        arrays = [numbers(5, 5, 9 + seed) for seed in range(3)]
        given = [strided(a) if mask >> n & 1 else a for n, a in enumerate(arrays)]
        for buffer, a in zip(buffers(step), first, strict=True):
            buffer[...] = a
        x, y, z = arrays
        numpy.testing.assert_allclose(step(*map(gpunet.from_numpy, given)).numpy(), x @ y.T + z, rtol=1e-4, atol=1e-5)
        assert [(b == a).all() for b, a in zip(buffers(step), first)] == [not mask >> n & 1 for n in range(3)]


def test_an_argument_that_outlives_the_step_has_the_last_values() -> None:
    kept = queue.SimpleQueue[gpunet.Tensor]()

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        kept.put(x.reshape(2, 1))
        return x * 2.0

    run = capture(step, backend="numba")
    for number in range(3):
        assert run(gpunet.full((2,), float(number))).tolist() == [2.0 * number] * 2
    assert kept.get().tolist() == [[2.0]] * 2


def test_gradients_of_an_argument() -> None:
    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        x = x.detach().requires_grad_()
        (x * x).sum().backward()
        return x.grad

    for number in range(3):
        assert step(gpunet.full((2,), float(number))).tolist() == [2.0 * number] * 2


# ---- labels and indices ---------------------------------------------------------------------------------------------


def test_labels_and_indices_are_copied() -> None:
    """The step reads them twice, to check and to use them; they must not change in between."""
    table = gpunet.tensor(numbers(7, 3))
    step = capture(lambda index: table[index] * 2.0, backend="numba")
    for seed in range(3):
        index = numpy.random.default_rng(seed).integers(-7, 7, 20)
        assert (step(gpunet.from_numpy(index)).numpy() == table.numpy()[index] * 2).all()
        assert (buffers(step)[0] == index).all()
    every_other = (numpy.arange(40) % 7)[::2]
    assert (step(gpunet.from_numpy(every_other)).numpy() == table.numpy()[every_other] * 2).all()
    with pytest.raises(IndexError, match="9"):
        step(gpunet.full((20,), 9))
    assert (step(gpunet.from_numpy(index)).numpy() == table.numpy()[index] * 2).all()


def test_a_step_that_raised_reads_its_next_arguments() -> None:
    model = nn.Linear(6, 3)
    step = training_step(model, gpunet.optim.SGD(model.parameters(), lr=0.0))
    labels = gpunet.zeros(4).long()
    first = gpunet.from_numpy(numbers(4, 6))
    loss = step(first, labels).item()
    with pytest.raises(LabelError, match="label 5 at row 0"):
        step(gpunet.from_numpy(strided(numbers(4, 6, 1))), labels + 5)
    assert step(first, labels).item() == pytest.approx(loss, rel=1e-6)


# ---- lifetime -------------------------------------------------------------------------------------------------------


def test_no_argument_is_kept_alive() -> None:
    model = nn.Linear(6, 3)
    step = training_step(model, gpunet.optim.SGD(model.parameters(), lr=0.1))
    for number in range(4):
        x, y = numbers(4, 6), numpy.zeros(4, "int64")
        x = x if number < 2 else strided(x)
        references = [weakref.ref(a) for a in (x, y, *([] if x.base is None else [x.base]))]
        step(gpunet.from_numpy(x), gpunet.from_numpy(y))
        del x, y
        gc.collect()
        assert [r() for r in references] == [None] * len(references)


def test_an_epoch_alternates_with_calls() -> None:
    step = capture(lambda x, y: (x * 2.0 + y).sum(), backend="numba")
    x, y = gpunet.from_numpy(numbers(12, 3)), gpunet.from_numpy(numbers(12, 3, 1))
    epoch = step.epoch(x, y, batch_size=4, shuffle=False)
    shuffled = step.epoch(x, y, batch_size=4)
    total = float((x.numpy() * 2 + y.numpy()).sum())
    for _ in range(3):
        assert step(x[:4], y[:4]).item() == pytest.approx(float((x.numpy() * 2 + y.numpy())[:4].sum()), rel=1e-4)
        assert epoch().item() == pytest.approx(total / 3, rel=1e-4)
        assert shuffled().item() == pytest.approx(total / 3, rel=1e-4)


def test_recordings_of_several_shapes_alternate_with_explain() -> None:
    step = capture(lambda x: x * 2.0 + x.sum(0), backend="numba")
    for number in range(9):
        x = numbers(2 + number % 3, 4, number)
        numpy.testing.assert_allclose(step(gpunet.from_numpy(x)).numpy(), x * 2 + x.sum(0), rtol=1e-5, atol=1e-6)
        if number > 3:
            assert step.explain().rows
    assert len(step.recordings) == 3


def test_many_arguments_and_empty_ones() -> None:
    step = capture(lambda *many: [m * 2.0 for m in many], backend="numba")
    for seed in range(3):
        arrays = [numbers(number % 5, 3, seed + number) for number in range(arguments._MAX_ARGUMENTS + 8)]
        found = step(*map(gpunet.from_numpy, arrays))
        assert all((f.numpy() == a * 2).all() for f, a in zip(found, arrays, strict=True))
