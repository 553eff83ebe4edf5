"""Arguments of a compiled step: read where they lie if that is safe, else copied; and never remembered."""

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
from tests.backend.test_threads import large_step, training_step

if not module.available():
    pytest.skip("Numba is not installed", allow_module_level=True)

Make = Callable[[numpy.ndarray], numpy.ndarray]


def placed(array: numpy.ndarray, offset: int) -> numpy.ndarray:
    """A copy so many bytes behind an address that 64 divides."""
    room = numpy.zeros(array.nbytes + 128, numpy.uint8)
    start = -room.ctypes.data % 64 + offset
    result = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def read_only(array: numpy.ndarray) -> numpy.ndarray:
    result = array.copy()
    result.flags.writeable = False
    return result


def spread(array: numpy.ndarray) -> numpy.ndarray:
    """A copy whose elements have gaps between them."""
    room = numpy.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)
    room[:, ::2] = array
    return room[:, ::2]


IN_PLACE: list[tuple[str, Make]] = [
    ("as it was recorded", numpy.copy),
    ("read-only", read_only),
    ("at a number", lambda a: placed(a, 4)),
    ("rows of more", lambda a: numpy.concatenate([a + 1, a, a - 1])[len(a) : 2 * len(a)]),
]
COPIED: list[tuple[str, Make]] = [
    ("between numbers", lambda a: placed(a, 1)),
    ("with gaps", spread),
    ("columns first", numpy.asfortranarray),
    ("backwards", lambda a: a[::-1].copy()[::-1]),
    ("one row many times", lambda a: numpy.broadcast_to(a[0], a.shape)),
]
ROWS = [pytest.param(make, True, id=name) for name, make in IN_PLACE]
ROWS += [pytest.param(make, False, id=name) for name, make in COPIED]


def buffers(step: CapturedStep) -> list[numpy.ndarray]:
    return step.recordings[-1].inputs


def numbers(rows: int, columns: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(size=(rows, columns)).astype("float32")


@pytest.mark.parametrize("make, in_place", ROWS)
def test_what_can_be_read_where_it_lies_is_not_copied(make: Make, in_place: bool) -> None:
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
def test_products_of_numpy_read_what_lies_like_the_recorded_one(
    make: Make, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NumPy's BLAS does may depend on where its operands start, so 4 bytes behind a vector is too far."""
    monkeypatch.setattr(library_calls, "LARGEST_PRODUCT", 0)
    weight = gpunet.tensor(numbers(6, 5, 7))
    step = capture(lambda x: (x @ weight + 1.0, x * 2.0), backend="numba")
    first = numbers(4, 6)
    step(gpunet.from_numpy(first))
    source = step.recordings[0].lowering.source
    assert "matmul(given0.reshape((1, 4, 6)), " in source.partition("def replay")[2]
    x = make(numbers(4, 6, 1))
    product, double = step(gpunet.from_numpy(x))
    assert (product.numpy() == x @ weight.numpy() + 1).all()
    assert (double.numpy() == x * 2).all()
    in_place = in_place and x.ctypes.data % 16 == 0
    assert (buffers(step)[0] == (first if in_place else x)).all()


def test_a_call_that_takes_a_part_of_an_argument_takes_it_from_a_copy() -> None:
    step = capture(lambda x: (gpunet.sort(x[1:], 1).values, x + 1.0), backend="numba")
    for seed in range(3):
        x = numbers(4, 6, seed)
        ordered, more = step(gpunet.from_numpy(x))
        assert (ordered.numpy() == numpy.sort(x[1:], 1)).all()
        assert (more.numpy() == x + 1).all()
    assert (buffers(step)[0] == x).all()


@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_bits_do_not_depend_on_where_arguments_lie(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(offset: int | None) -> list[bytes]:
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 5))
        step = training_step(model, gpunet.optim.Adam(model.parameters(), lr=0.01))
        for seed in range(5):
            x, y = numbers(17, 30, seed), numpy.arange(17) * seed % 5
            step(*(gpunet.from_numpy(a if offset is None else placed(a, 2 * offset)) for a in (x, y)))
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    found = trained(offset)
    monkeypatch.setattr(compiled, "taken", lambda *_: [])  # all arguments are copied by the recording
    assert trained(None) == found


def test_threads_read_the_argument_of_this_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[bytes]:
        step, (x, y), parameters = large_step()
        losses = [step(gpunet.from_numpy(numbers(*x.shape, seed)), y).numpy().tobytes() for seed in range(8)]
        return [*losses, *(p.detach().numpy().tobytes() for p in parameters)]

    found = trained()
    monkeypatch.setattr(compiled, "taken", lambda *_: [])
    assert trained() == found


# ---- memory that others see or write --------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 4, 7, -7])
def test_an_argument_on_memory_that_the_step_writes_is_read_as_it_was(start: int) -> None:
    """Where the two are not known to share it: both came by the buffer protocol."""
    room = bytearray(4 * 24)
    weight = gpunet.from_numpy(numpy.frombuffer(room, "float32", 8, 4 * 8))
    matrix = gpunet.tensor(numbers(4, 3))

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        weight.add_(1.0)
        return x.reshape(2, 4) @ matrix

    run = capture(step, backend="numba")
    run(gpunet.ones(8))
    for seed in range(3):
        numpy.frombuffer(room, "float32")[:] = numbers(1, 24, seed)[0]
        x = numpy.frombuffer(room, "float32", 8, 4 * (8 + start))
        expected = x.reshape(2, 4) @ matrix.numpy()
        numpy.testing.assert_allclose(run(gpunet.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_the_step_as_its_argument() -> None:
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


def test_an_argument_that_is_changed() -> None:
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x += y
        return x * 2.0

    run = capture(step, backend="numba")
    for start in (0.0, 1.0, 2.0, 3.0):
        x = gpunet.full((3,), start)
        assert run(x, gpunet.full((3,), 10.0 * start)).tolist() == [22.0 * start] * 3
        assert x.tolist() == [11.0 * start] * 3


def test_an_argument_that_is_returned() -> None:
    run = capture(lambda x, y: (x.reshape(3, 1), x * 2.0, y), backend="numba")
    for number in (0.0, 1.0, 2.0):
        x, y = gpunet.full((3,), number), gpunet.full((3,), -number)
        column, double, same = run(x, y)
        x.fill_(9.0)  # what was returned is not the argument
        y.fill_(9.0)
        assert (column.tolist(), double.tolist(), same.tolist()) == ([[number]] * 3, [2.0 * number] * 3, [-number] * 3)


def test_what_was_recorded_with_gaps_is_copied_at_once() -> None:
    """Looking at it first would take as long again as the copy."""
    step = capture(lambda x, y: x * 2.0 + y, backend="numba")
    for seed in range(4):
        x, y = numbers(3, 4, seed), numbers(3, 4, seed + 9)
        step(gpunet.from_numpy(spread(x)), gpunet.from_numpy(y))
        found = step(gpunet.from_numpy(x), gpunet.from_numpy(spread(y)))
        numpy.testing.assert_allclose(found.numpy(), x * 2 + y, rtol=1e-6)
        assert (buffers(step)[0] == x).all()
    assert "def replay(given0):" in step.recordings[0].lowering.source


def test_some_arguments_are_copied_and_others_are_not() -> None:
    step = capture(lambda x, y, z: x @ y.T + z, backend="numba")
    first = [numbers(5, 5, seed) for seed in range(3)]
    step(*map(gpunet.from_numpy, first))
    for which in range(8):
        arrays = [numbers(5, 5, 9 + seed) for seed in range(3)]
        given = [spread(a) if which >> n & 1 else a for n, a in enumerate(arrays)]
        for buffer, a in zip(buffers(step), first, strict=True):
            buffer[...] = a
        x, y, z = arrays
        numpy.testing.assert_allclose(step(*map(gpunet.from_numpy, given)).numpy(), x @ y.T + z, rtol=1e-4, atol=1e-5)
        assert [(b == a).all() for b, a in zip(buffers(step), first)] == [not which >> n & 1 for n in range(3)]


def test_who_kept_an_argument_sees_the_last_one() -> None:
    kept = queue.SimpleQueue[gpunet.Tensor]()

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        kept.put(x.reshape(2, 1))
        return x * 2.0

    run = capture(step, backend="numba")
    for number in range(3):
        assert run(gpunet.full((2,), float(number))).tolist() == [2.0 * number] * 2
    assert kept.get().tolist() == [[2.0]] * 2


def test_gradients_with_respect_to_an_argument() -> None:
    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        x = x.detach().requires_grad_()
        (x * x).sum().backward()
        return x.grad

    for number in range(3):
        assert step(gpunet.full((2,), float(number))).tolist() == [2.0 * number] * 2


# ---- labels and indices ---------------------------------------------------------------------------------------------


def test_labels_and_indices_are_copied() -> None:
    """They are looked at twice, and must not change in between."""
    table = gpunet.tensor(numbers(7, 3))
    step = capture(lambda index: table[index] * 2.0, backend="numba")
    for seed in range(3):
        index = numpy.random.default_rng(seed).integers(-7, 7, 20)
        assert (step(gpunet.from_numpy(index)).numpy() == table.numpy()[index] * 2).all()
        assert (buffers(step)[0] == index).all()
    strided = (numpy.arange(40) % 7)[::2]
    assert (step(gpunet.from_numpy(strided)).numpy() == table.numpy()[strided] * 2).all()
    with pytest.raises(IndexError, match="9"):
        step(gpunet.full((20,), 9))
    assert (step(gpunet.from_numpy(index)).numpy() == table.numpy()[index] * 2).all()


def test_a_step_that_raised_reads_the_next_argument() -> None:
    model = nn.Linear(6, 3)
    step = training_step(model, gpunet.optim.SGD(model.parameters(), lr=0.0))
    labels = gpunet.zeros(4).long()
    first = gpunet.from_numpy(numbers(4, 6))
    loss = step(first, labels).item()
    with pytest.raises(LabelError, match="label 5 at row 0"):
        step(gpunet.from_numpy(spread(numbers(4, 6, 1))), labels + 5)
    assert step(first, labels).item() == pytest.approx(loss, rel=1e-6)


# ---- lifetime -------------------------------------------------------------------------------------------------------


def test_no_argument_is_kept() -> None:
    model = nn.Linear(6, 3)
    step = training_step(model, gpunet.optim.SGD(model.parameters(), lr=0.1))
    for number in range(4):
        x, y = numbers(4, 6), numpy.zeros(4, "int64")
        x = x if number < 2 else spread(x)
        references = [weakref.ref(a) for a in (x, y, *([] if x.base is None else [x.base]))]
        step(gpunet.from_numpy(x), gpunet.from_numpy(y))
        del x, y
        gc.collect()
        assert [r() for r in references] == [None] * len(references)


def test_an_epoch_and_calls_in_turn() -> None:
    step = capture(lambda x, y: (x * 2.0 + y).sum(), backend="numba")
    x, y = gpunet.from_numpy(numbers(12, 3)), gpunet.from_numpy(numbers(12, 3, 1))
    epoch = step.epoch(x, y, batch_size=4, shuffle=False)
    shuffled = step.epoch(x, y, batch_size=4)
    total = float((x.numpy() * 2 + y.numpy()).sum())
    for _ in range(3):
        assert step(x[:4], y[:4]).item() == pytest.approx(float((x.numpy() * 2 + y.numpy())[:4].sum()), rel=1e-4)
        assert epoch().item() == pytest.approx(total / 3, rel=1e-4)
        assert shuffled().item() == pytest.approx(total / 3, rel=1e-4)


def test_recordings_of_other_shapes_and_explain_in_turn() -> None:
    step = capture(lambda x: x * 2.0 + x.sum(0), backend="numba")
    for number in range(9):
        x = numbers(2 + number % 3, 4, number)
        numpy.testing.assert_allclose(step(gpunet.from_numpy(x)).numpy(), x * 2 + x.sum(0), rtol=1e-5, atol=1e-6)
        if number > 3:
            assert step.explain().rows
    assert len(step.recordings) == 3


def test_empty_arguments_and_many_of_them() -> None:
    step = capture(lambda *many: [m * 2.0 for m in many], backend="numba")
    for seed in range(3):
        arrays = [numbers(number % 5, 3, seed + number) for number in range(arguments._MOST + 8)]
        found = step(*map(gpunet.from_numpy, arrays))
        assert all((f.numpy() == a * 2).all() for f, a in zip(found, arrays, strict=True))


def test_arrays_of_another_layout_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another NumPy or Python might have it."""
    assert arguments._layout_is_known()
    monkeypatch.setattr(arguments, "_layout_is_known", lambda: False)
    step = capture(lambda x: x * 2.0, backend="numba")
    for seed in range(3):
        x = numbers(2, 3, seed)
        assert (step(gpunet.from_numpy(x)).numpy() == x * 2).all()
        assert (buffers(step)[0] == x).all()
