"""Indexing with arrays: PyTorch's order on every device, and indices out of range.

The CPU raises at once.  On a GPU nothing is read or written out of place, and the error is raised when the host next waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.errors import ArgumentError, CaptureError, DtypeError, InPlaceError, LabelError, OutOfRangeError, ShapeError
from gpunet.launch import faults
from gpunet.launch.tape import Tape, record

F = gpunet.nn.functional
X = numpy.arange(24, dtype="float32").reshape(2, 3, 4)
_A, _B = numpy.array([1, -1, 0, 1, 1]), numpy.array([[0], [2]])

#: Index tuples of a tensor of shape (2, 3, 4).
INDICES: dict[str, tuple[Any, ...]] = {
    "first": (_A,),
    "middle": (slice(None), _A),
    "last": (..., _A),
    "number before": (1, _A),
    "number behind": (_A, 1),
    "broadcast": (_A[:2], _B),
    "broadcast in the middle": (numpy.array([[[0]], [[1]]]), numpy.array([[0], [2], [2]]), numpy.array([[[1, 3]]])),
    "all": (_A, _A, _A),
    "separated": (_A, slice(None), _A),
    "separated by None": (_A, None, _A),
    "separated by ...": (_A, ..., -_A),
    "separated from a number": (1, slice(None), _A),
    "slices and None": (None, slice(None, None, -1), _A, slice(1, None, 2)),
    "matrix of indices": (slice(None), _A.reshape(1, 5), slice(1, 3)),
    "one index": (numpy.array(1), slice(None), numpy.array(-1)),
    "no index": (slice(None), _A[:0]),
    "mask and array": (numpy.array([True, False]), _A),
    "mask of two dimensions and array": (X[..., 0] % 8 == 0, _A[:3]),
    "True and array": (True, _A),
    "False and array": (_A[:1], False),
    "uint8 mask": (numpy.array([0, 1], "uint8"), _A),
    "negative number": (-1, slice(None), _A),
    "number, ... and array": (1, ..., _A),
    "number between": (_A, 2, _A),
    "array, slice and number": (_A, slice(None), 2),
    "index without dimensions": (numpy.array(1), slice(None), _A),
    "index without dimensions between": (_A[:, None], numpy.array(2), _A[:1]),
    "number and mask": (1, slice(None), numpy.array([True, False, True, True])),
    "... of no dimension": (slice(None), _A, ..., _A),
    "lists and ranges": ([1, 0], range(2)),
}

#: Where NumPy's order differs: the steps in which it does the same.
STEPS: dict[str, list[tuple[Any, ...]]] = {
    "separated from a number": [(1,), (slice(None), _A)],
    "uint8 mask": [(numpy.array([False, True]), _A)],
    "negative number": [(-1,), (slice(None), _A)],
    "number, ... and array": [(1,), (slice(None), _A)],
    "array, slice and number": [(..., 2), (_A,)],
    "index without dimensions": [(1,), (slice(None), _A)],
    "number and mask": [(1,), (slice(None), numpy.array([True, False, True, True]))],
    "... of no dimension": [(slice(None), _A, _A)],
}


def in_steps(name: str, x: numpy.ndarray) -> tuple[numpy.ndarray, tuple[Any, ...]]:
    """A view of x and its index, so that NumPy picks what x[INDICES[name]] shall be."""
    *views, last = STEPS.get(name, [INDICES[name]])
    for view in views:
        x = x[view]
    return x, last


def on_device(index: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(gpunet.tensor(i) if isinstance(i, numpy.ndarray) else i for i in index)


def to_numpy(x: gpunet.Tensor) -> numpy.ndarray:
    return x.detach().cpu().numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "int16", "bool"])
@pytest.mark.parametrize("name", INDICES)
def test_reads_and_writes(name: str, dtype: str, device: str) -> None:
    index, x = INDICES[name], X.astype(dtype)
    t = gpunet.tensor(x)
    picked = t[on_device(index)]
    view, last = in_steps(name, x)
    numpy.testing.assert_array_equal(to_numpy(picked), view[last], strict=True)
    value = (numpy.arange(picked.numel()).reshape(picked.shape) + 50).astype(dtype)
    for assigned in (value, value[..., :1], value[None, None], 1):
        expected, y = x.copy(), t.clone()
        view, last = in_steps(name, expected)
        view[last] = assigned
        y[on_device(index)] = gpunet.tensor(assigned) if isinstance(assigned, numpy.ndarray) else assigned
        numpy.testing.assert_array_equal(to_numpy(y), expected)


@pytest.mark.parametrize("name", INDICES)
def test_views_are_read_and_written(name: str, device: str) -> None:
    index, base = INDICES[name], numpy.arange(96, dtype="float32").reshape(4, 3, 8)
    t = gpunet.tensor(base)
    x = base.transpose(2, 1, 0)[2:8:4]  # (2, 3, 4)
    view, last = in_steps(name, x)
    numpy.testing.assert_array_equal(to_numpy(t.permute(2, 1, 0)[2:8:4][on_device(index)]), view[last], strict=True)
    expected = base.copy()
    view, last = in_steps(name, expected.transpose(2, 1, 0)[2:8:4])
    view[last] = -1
    t.permute(2, 1, 0)[2:8:4][on_device(index)] = -1
    numpy.testing.assert_array_equal(to_numpy(t), expected)


@pytest.mark.parametrize("name", INDICES)
def test_gradients_are_summed_in_place_of_the_index(name: str, device: str) -> None:
    index = INDICES[name]
    x = gpunet.tensor(X, requires_grad=True)
    picked = x[on_device(index)]
    weights = numpy.arange(1, picked.numel() + 1, dtype="float32").reshape(picked.shape)
    (picked * gpunet.tensor(weights)).sum().backward()
    expected = numpy.zeros_like(X)
    numpy.add.at(*in_steps(name, expected), weights)
    numpy.testing.assert_array_equal(to_numpy(x.grad), expected)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather_of_a_smaller_index(dim: int, device: str) -> None:
    shape = [5 if d == dim else n - 1 for d, n in enumerate(X.shape)]
    index = numpy.random.default_rng(0).integers(0, X.shape[dim], shape)
    x = gpunet.tensor(X, requires_grad=True)
    picked = x.gather(dim, gpunet.tensor(index))
    kept = X[tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(index.shape))]
    numpy.testing.assert_array_equal(to_numpy(picked), numpy.take_along_axis(kept, index, dim))
    picked.sum().backward()
    assert to_numpy(x.grad).sum() == index.size
    with pytest.raises(ShapeError, match="gather"):
        x.gather(dim, gpunet.zeros(9, 9, 9).long()).cpu()


def test_the_last_of_equal_indices_is_assigned(device: str) -> None:
    index = numpy.random.default_rng(1).integers(0, 7, 5000)
    x, expected = gpunet.zeros(7, 3), numpy.zeros((7, 3))
    value = numpy.arange(15000.0).reshape(5000, 3)
    x[gpunet.tensor(index)] = gpunet.tensor(value)
    expected[index] = value
    numpy.testing.assert_array_equal(to_numpy(x), expected)


# ---- out of range -----------------------------------------------------------------------------------------------------

t, NAN = gpunet.tensor, numpy.nan
#: name -> (call, pattern of the message, the result on a GPU); of x = arange(12).reshape(3, 4)
READS: dict[str, tuple[Callable[[gpunet.Tensor], Any], str, Any]] = {
    "row": (lambda x: x[t([1, 7])], r"x\[index\]: index 7 .*dimension 0 with size 3; expected -3 \.\. 2",
            [[4, 5, 6, 7], [NAN] * 4]),
    "negative": (lambda x: x[t([-3, -4])], r"x\[index\]: index -4 .*dimension 0 with size 3", [[0, 1, 2, 3], [NAN] * 4]),
    "one": (lambda x: x[t(3)], r"x\[index\]: index 3 .*dimension 0 with size 3", [NAN] * 4),
    "column": (lambda x: x[:2, t([4, 0])], r"x\[index\]: index 4 .*dimension 1 with size 4", [[NAN, 0], [NAN, 4]]),
    "element": (lambda x: x[t([2, 0]), t([0, 9])], r"x\[index\]: index 9 .*dimension 1 with size 4", [8, NAN]),
    "both": (lambda x: x[t([2, 5]), t([9, 0])], r"x\[index\]: index 5 .*dimension 0 with size 3", [NAN, NAN]),
    "huge": (lambda x: x[t([2**62, -(2**62)])][:, :1], f"index {2**62} ", [[NAN], [NAN]]),
    "int32": (lambda x: x[t([0, 3], dtype="int32"), 1], r"index 3 .*dimension 0 with size 3", [1, NAN]),
    "gather": (lambda x: x.gather(1, t([[3, -1], [4, 0]])), r"gather: index -1 .*dimension 1 with size 4; expected 0 \.\. 3",
               [[3, NAN], [NAN, 4]]),
    "negative index_select": (lambda x: x.index_select(1, t([3, -1]))[0], r"index_select: index -1 .*expected 0 \.\. 3", [3, NAN]),
    "index_select": (lambda x: x.index_select(1, t([3, 4]))[0], r"index_select: index 4 .*dimension 1 with size 4", [3, NAN]),
    "empty dimension": (lambda x: x[:0][t([0])][:, 0], "index 0 .*dimension 0 with size 0; the dimension is empty", [NAN]),
    "integers": (lambda x: x.long()[t([1, 3])], r"index 3 ", [[4, 5, 6, 7], [0] * 4]),
    "booleans": (lambda x: (x >= 0)[t([1, 3]), 0], r"index 3 ", [True, False]),
    "float64": (lambda x: x.double()[t([1, 3]), 0], r"index 3 ", [4, NAN]),
    "host index": (lambda x: x[numpy.array([1, 3]), 0], r"index 3 ", [4, NAN]),
    "list": (lambda x: x[[1, 3], 0], r"index 3 ", [4, NAN]),
}  # fmt: skip


def arange() -> gpunet.Tensor:
    return gpunet.arange(12).float().reshape(3, 4).clone()


@pytest.mark.parametrize("name", READS)
def test_read_out_of_range(name: str, device: str) -> None:
    read, message, expected = READS[name]
    results = []

    def read_and_wait() -> None:
        results.append(read(arange()))
        gpunet.synchronize()

    with pytest.raises(OutOfRangeError, match=message) as caught:
        read_and_wait()
    assert isinstance(caught.value, (ShapeError, IndexError))
    assert len(results) == (device != "cpu")
    for result in results:
        numpy.testing.assert_array_equal(to_numpy(result), numpy.array(expected, result.dtype))


#: name -> (index out of range, pattern, the positions of x.reshape(-1) that are written)
WRITES: dict[str, tuple[Callable[[], Any], str, list[int]]] = {
    "row": (lambda: t([1, 7]), r"x\[index\] = value: index 7 .*dimension 0 with size 3; expected -3 \.\. 2", [4, 5, 6, 7]),
    "negative": (lambda: gpunet.tensor([-4]), r"x\[index\] = value: index -4 ", []),
    "column": (lambda: (slice(1, 2), gpunet.tensor([3, 4])), r"index 4 .*dimension 1 with size 4", [7]),
    "element": (lambda: (gpunet.tensor([3, 2]), gpunet.tensor([0, 0])), r"index 3 .*dimension 0 with size 3", [8]),
}


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_write_out_of_range_is_dropped(name: str, tracked: bool, device: str) -> None:
    index, message, written = WRITES[name]
    x = arange()

    def write_and_wait() -> None:
        x[index()] = gpunet.tensor(-1.0, requires_grad=tracked)
        gpunet.synchronize()

    with pytest.raises(OutOfRangeError, match=message):
        write_and_wait()
    expected = numpy.arange(12.0)
    expected[written] = -1 if device != "cpu" else expected[written]
    numpy.testing.assert_array_equal(to_numpy(x).reshape(-1), expected)


def test_gradient_of_an_index_out_of_range_is_dropped(device: str) -> None:
    x = gpunet.tensor(X[0], requires_grad=True)

    def differentiate() -> None:
        x[gpunet.tensor([0, 3, -4, 0])].sum().backward()
        gpunet.synchronize()

    with pytest.raises(OutOfRangeError, match=r"x\[index\]: index 3 "):
        differentiate()
    if device != "cpu":
        numpy.testing.assert_array_equal(to_numpy(x.grad), [[2] * 4, [0] * 4, [0] * 4])


HOST_READS: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "bool": lambda x: bool(x.sum()),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "repr": repr,
    "format": lambda x: f"{x.sum():.2f}",
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "equal": lambda x: x.equal(x),
    "allclose": lambda x: x.allclose(x),
    "one_hot": lambda x: F.one_hot(x.long()),
    "synchronize": lambda x: gpunet.synchronize(x.device),
    "generator": lambda x: gpunet.launch.random.default_generator.position(x.device),
    "learning rate": lambda x: gpunet.optim.SGD([x], lr=0.1).param_groups[0]["lr"],
    "gradcheck": lambda x: gpunet.autograd.gradcheck(lambda y: y * 2, [x.double().requires_grad_()]),
    "mask": lambda x: gpunet.masked_select(x, x > 0).tolist(),
}


@pytest.mark.parametrize("name", HOST_READS)
def test_every_read_of_the_host_raises_once(name: str, device: str) -> None:
    if device == "cpu":
        pytest.skip("the CPU raises at once")
    x = gpunet.ones(2, 3)
    bad = x[gpunet.tensor([9])]
    with pytest.raises(OutOfRangeError, match="index 9 "):
        HOST_READS[name](x)
    HOST_READS[name](x)
    assert bad.isnan().all().item()


def test_launches_do_not_read(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even after an error: neither the index, nor what was reported."""
    x = arange().requires_grad_()
    index = gpunet.tensor([0, 2])
    with monkeypatch.context() as patch:
        patch.setattr(devices, "_start_checks", lambda device: pytest.fail("read a value"))
        x[index].sum().backward()
        x.gather(1, index.reshape(2, 1)).sum().backward()
        F.cross_entropy(x, gpunet.tensor([0, 1, 2])).backward()
        F.one_hot(index, 3) if device != "cpu" else None
        with gpunet.no_grad():
            x[index] = 1.0
        if device != "cpu":
            x[index + 2].sum().backward()
    if device != "cpu":
        with pytest.raises(OutOfRangeError):
            gpunet.synchronize()


def test_first_error_of_several_is_reported(device: str) -> None:
    if device == "cpu":
        pytest.skip("the CPU raises at once")
    x = gpunet.arange(40.0)
    for first in (0, 31, 32, 255, 256, 3000, 4999):
        index = numpy.where(numpy.arange(5000) < first, 39, 100 + numpy.arange(5000))
        found = x[gpunet.tensor(index)]
        x[gpunet.tensor([77])]  # a later launch
        with pytest.raises(OutOfRangeError, match=f"index {100 + first} "):
            gpunet.synchronize()
        assert to_numpy(found.isnan()).tolist() == [False] * first + [True] * (5000 - first)
        labels = gpunet.tensor(numpy.where(numpy.arange(5000) < first, -100, index))
        loss = F.cross_entropy(gpunet.zeros(5000, 3), labels)
        with pytest.raises(LabelError, match=f"label {100 + first} at row {first};"):
            loss.item()


def test_error_belongs_to_its_device(device: str) -> None:
    if device != "emulated":
        pytest.skip("two devices")
    gpunet.ones(3)[gpunet.tensor([3])]
    gpunet.synchronize("cpu")
    assert gpunet.ones(3, device="cpu").sum().item() == 3
    with pytest.raises(OutOfRangeError):
        gpunet.synchronize("emulated")


def test_record_is_made_once(device: str) -> None:
    x = gpunet.ones(3).array
    assert faults.fault_record(x) is faults.fault_record(x)
    assert (faults.fault_record(x) is None) == (device == "cpu")


# ---- captured steps ---------------------------------------------------------------------------------------------------


def make_step() -> tuple[gpunet.Tensor, Any]:
    w = gpunet.ones(3, 4, requires_grad=True)

    @gpunet.capture
    def step(index: gpunet.Tensor) -> Any:
        w.grad = None
        picked = (w * 2)[index]
        target = gpunet.zeros(3)
        target[index] = 1.0
        loss = picked.sum()
        loss.backward()
        return loss, target

    return w, step


def test_replay_raises_at_the_next_read(device: str) -> None:
    w, step = make_step()
    good, bad = gpunet.tensor([0, 2]), gpunet.tensor([0, 3])
    for _ in range(3):
        loss, target = step(good)
        assert loss.item() == 16 and target.tolist() == [1, 0, 1]
        results: list[Any] = []

        def run(results: list[Any] = results) -> None:
            results += step(bad)
            results[0].item()

        with pytest.raises(IndexError, match=r"index 3 is out of bounds"):
            run()
        if device != "cpu":
            assert results[0].isnan().item() and results[1].tolist() == [1, 0, 0]
            assert w.grad.tolist() == [[2] * 4, [0] * 4, [0] * 4]
    assert len(step.recordings) == 1


def test_wrong_label_in_a_replay(device: str) -> None:
    x = gpunet.tensor(X[0], requires_grad=True)

    @gpunet.capture
    def step(labels: gpunet.Tensor, weight: gpunet.Tensor) -> Any:
        x.grad = None
        loss = F.cross_entropy(x, labels) + F.cross_entropy(x, labels, weight=weight)
        loss.backward()
        return loss, F.one_hot(labels, 4) if device != "cpu" else loss

    weight = gpunet.ones(4)
    for _ in range(3):
        result = step(gpunet.tensor([0, 1, 3]), weight)[1]
        assert device == "cpu" or result.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
        with pytest.raises(LabelError, match="cross_entropy: label -2 at row 1; .*ignore_index -100"):
            step(gpunet.tensor([0, -2, 3]), weight)[0].item()


def test_explain_keeps_a_reported_error(device: str) -> None:
    if device == "cpu":
        pytest.skip("the CPU raises at once")
    _, step = make_step()
    step(gpunet.tensor([0, 2]))
    step.explain()
    gpunet.synchronize()


HOST_INDICES: dict[str, Any] = {
    "list": [0, 2, -1],
    "array": numpy.array([0, 2, -1]),
    "tensor": gpunet.from_numpy(numpy.array([0, 2, -1])),
}


@pytest.mark.parametrize("name", HOST_INDICES)
def test_index_of_the_host_in_a_captured_step(name: str, device: str) -> None:
    index, x = HOST_INDICES[name], gpunet.tensor(X[0])
    w = gpunet.ones(4, requires_grad=True)

    @gpunet.capture
    def step(x: gpunet.Tensor) -> Any:
        w.grad = None
        y = (x * w)[index]
        z = x.clone()
        z[index] = 0.0
        y.sum().backward()
        return y, z

    for k in range(3):
        y, z = step(x + k)
        numpy.testing.assert_array_equal(to_numpy(y), X[0][[0, 2, -1]] + k)
        assert to_numpy(z).sum(1).tolist() == [0, 22 + 4 * k, 0]
        numpy.testing.assert_array_equal(to_numpy(w.grad), (X[0][[0, 2, -1]] + k).sum(0))
    assert len(step.recordings) == 1


def test_changed_index_of_the_host_is_noticed(device: str) -> None:
    index, x = numpy.array([0, 2]), gpunet.tensor(X[0])

    @gpunet.capture
    def step(x: gpunet.Tensor) -> Any:
        return x[index] + 1

    for rows in ([0, 2], [1, 1], [0, 2], [1, 1]):
        index[:] = rows
        numpy.testing.assert_array_equal(to_numpy(step(x)), X[0][rows] + 1)
    assert len(step.recordings) == (1 if device == "cpu" else 2)


def test_index_made_inside_a_captured_step_is_refused(device: str) -> None:
    @gpunet.capture
    def step(x: gpunet.Tensor) -> Any:
        return x[numpy.array([0, 1])] + 1  # here

    with pytest.raises(CaptureError, match=r"test_index.py:\d+: .*# here.*inside the step.*outside"):
        step(gpunet.tensor(X[0]))


def test_index_argument_of_the_host_is_refused(device: str) -> None:
    if device == "cpu":
        pytest.skip("not another device")

    @gpunet.capture
    def step(x: gpunet.Tensor, index: gpunet.Tensor) -> Any:
        return x[index[:2]] + 1

    with pytest.raises(CaptureError, match="moving an array from cpu to"):
        step(gpunet.tensor(X[0]), gpunet.tensor([0, 1, 2], device="cpu"))


def test_recorded_launches_hold_for_a_plain_tape(device: str) -> None:
    tape, x, index = Tape(), gpunet.tensor(X[0]), gpunet.tensor([0, 1])
    with record(tape):
        y = x[index]
    devices.assign(index.array, gpunet.tensor([2, 1]).array)
    tape.replay()
    assert to_numpy(y).tolist() == X[0][[2, 1]].tolist()


# ---- the order of PyTorch, and its rules for arguments ------------------------------------------------------------------


@pytest.mark.parametrize("index", [(0, slice(None), t([0, 2])), (0, slice(None), [0, 2]), (0, ..., t([0, 2])), (-2, ..., (0, 2))])
def test_a_number_selects_first(index: Any, device: str) -> None:
    x = gpunet.arange(24.0).reshape(2, 3, 4)
    assert x[index].tolist() == [[0, 2], [4, 6], [8, 10]]
    x[index] = gpunet.tensor([-1.0, -2.0])
    assert x[0].tolist() == [[-1, 1, -2, 3], [-1, 5, -2, 7], [-1, 9, -2, 11]] and x[1].min() == 12


MATRIX = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]


def test_masks_of_masked_select_broadcast(device: str) -> None:
    x = gpunet.tensor(MATRIX, requires_grad=True)
    columns = x.masked_select(gpunet.tensor([True, False, False, True]))
    assert columns.tolist() == [0, 3, 4, 7, 8, 11]
    (columns * columns).sum().backward()
    assert x.grad.tolist() == [[0, 0, 0, 6], [8, 0, 0, 14], [16, 0, 0, 22]]
    assert gpunet.masked_select(input=x[0], mask=x[:2, :1] > 0).tolist() == MATRIX[0]
    assert gpunet.masked_select(gpunet.tensor(5.0), gpunet.tensor([True, False])).tolist() == [5]
    assert gpunet.masked_select(gpunet.tensor(5.0), gpunet.tensor(True)).tolist() == [5]
    with pytest.raises(DtypeError, match="masked_select: mask of dtype int64; expected booleans"):
        x.masked_select(gpunet.tensor([1, 0, 1, 0]))
    with pytest.raises(ShapeError, match="masked_select"):
        x.masked_select(gpunet.tensor([True, False]))


def test_gather_and_index_select_follow_pytorch(device: str) -> None:
    x, number = gpunet.tensor(MATRIX), gpunet.tensor(5.0)
    small = gpunet.tensor([[0, 1], [1, 2]], dtype=gpunet.int32)
    assert gpunet.gather(input=x, dim=-1, index=small, sparse_grad=False).tolist() == [[0, 1], [5, 6]]
    assert x.gather(0, gpunet.zeros(0, 2, 3).long()).shape == (0, 2, 3)
    assert number.gather(0, gpunet.tensor([0, 0])).tolist() == [5, 5] and number.gather(0, gpunet.tensor(0)).tolist() == 5
    assert x[0].gather(0, gpunet.tensor(1)).tolist() == 1
    assert x.index_select(0, gpunet.tensor(1)).tolist() == [MATRIX[1]]
    assert number.index_select(-1, gpunet.tensor([0])).shape == ()
    for call, error, text in (
        (lambda: x.gather(1, gpunet.zeros(1, 1)), DtypeError, "index of dtype float32; expected int32 or int64"),
        (lambda: x.gather(1, small[0]), ShapeError, "expected the same number of dimensions"),
        (lambda: x.gather(0, gpunet.zeros(1, 5).long()), ShapeError, "in every dimension except 0"),
        (lambda: x.gather(2, small), OutOfRangeError, "dim=2"),
        (lambda: x.gather(1, small, sparse_grad=1), DtypeError, "gather: sparse_grad=1 has type int; expected True or False"),
        (lambda: x.index_select(0, small), ShapeError, "expected one dimension"),
        (lambda: x.index_select(0, x[0] > 0), DtypeError, "index of dtype bool"),
        (lambda: number.index_select(0, gpunet.tensor([0, 0])), ShapeError, "2 indices for a tensor without dimensions"),
        (lambda: x.tril(True), DtypeError, "tril: diagonal=True"),
        (lambda: x[0].triu(), ShapeError, "triu: the tensor has shape"),
    ):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize(("index", "error", "text"), [
    (0.5, DtypeError, "index 0.5"),
    ("a", DtypeError, "index 'a'"),
    ({}, DtypeError, "index {}"),
    (slice("a", None), DtypeError, "slice: start='a'"),
    (slice(None, None, 0), ArgumentError, "slice: step=0"),
    ([0, slice(None)], DtypeError, "pass tuple"),
    ([[0, 1], [1, 2]], DtypeError, "pass tuple"),
    (numpy.array([0.5]), DtypeError, "index of dtype float64"),
    (3, OutOfRangeError, r"index 3 is out of bounds for dimension 0 with size 3; expected -3 \.\. 2"),
    ((slice(None), -5), OutOfRangeError, "index -5 .*dimension 1"),
    (([0], 4), OutOfRangeError, "index 4 .*dimension 1"),
    ((0, 0, 0), ShapeError, "indices"),
    (([0], 0, 0), ShapeError, "3 indices for a tensor of shape .*expected at most 2"),
    ((..., [0], ...), ShapeError, r"more than one \.\.\."),
    (numpy.array([True, False]), ShapeError, r"a mask of shape \(2,\) for dimensions of shape \(3,\)"),
    (([0, 1], [0, 1, 2]), ShapeError, r"index arrays of shapes \(2,\), \(3,\) do not broadcast"),
])  # fmt: skip
def test_refused_indices(index: Any, error: type[Exception], text: str, device: str) -> None:
    x = gpunet.tensor(MATRIX)
    with pytest.raises(error, match=text):
        x[index].cpu()
    with pytest.raises(error, match=text):
        x[index] = 1.0


def test_index_of_an_empty_dimension_is_refused_also_where_nothing_is_selected() -> None:
    x, index = gpunet.zeros(0, 3), gpunet.tensor([[0], [0]])
    for call in (lambda: x[index, 1:1], lambda: x.__setitem__((index, slice(1, 1)), 2.0)):
        with pytest.raises(OutOfRangeError, match="index 0 is out of bounds for dimension 0 with size 0"):
            call()


#: dtype of x, value, x after x[1] = value or the pattern of a message
ASSIGNED: list[tuple[str, Any, Any]] = [
    ("int64", 1.75, [0, 1, 0]), ("bool", 2, [False, True, False]), ("uint8", -1, [0, 255, 0]), ("float32", True, [0, 1, 0]),
    ("int64", numpy.float64(3), [0, 3, 0]), ("int64", [7], [0, 7, 0]), ("float32", [[1]], [0, 1, 0]),
    ("int64", NAN, "nan does not fit into int64"), ("uint8", 300, r"300 does not fit into uint8; expected 0 \.\. 255"),
    ("float32", 1e300, "does not fit into float32"), ("float16", 1e5, "does not fit into float16"),
    ("float32", "a", "'a' has type str; expected a number"), ("float32", None, "None has type NoneType"),
    ("float32", 1j, "has type complex"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value", "expected"), ASSIGNED)
def test_assigned_numbers(dtype: str, value: Any, expected: Any, device: str) -> None:
    x = gpunet.zeros(3, dtype=dtype)
    if isinstance(expected, str):
        with pytest.raises(DtypeError, match=expected):
            x[1] = value
    else:
        x[1] = value
        assert x.tolist() == expected


def test_values_of_index_arrays_are_not_rounded(device: str) -> None:
    x = gpunet.zeros(3, dtype=gpunet.int64)
    with pytest.raises(DtypeError, match=r"x\[index\] = value: the value has dtype float32, the tensor int64"):
        x[gpunet.tensor([0])] = gpunet.tensor([1.5])
    x[0] = gpunet.tensor(1.5)  # PyTorch rounds here
    assert x.tolist() == [1, 0, 0]


def test_expanded_tensors_are_not_assigned(device: str) -> None:
    y = gpunet.tensor([[1.0], [2.0]]).expand(2, 3)
    for index in ((0, 0), 0, gpunet.tensor([0]), y > 1):
        with pytest.raises(InPlaceError, match=r"share memory.*expand.*use \.clone\(\)"):
            y[index] = 9.0
    z = y.clone()
    z[0, 0] = 9.0
    assert z.tolist() == [[9, 1, 1], [2, 2, 2]]


def test_read_only_memory_is_not_assigned() -> None:
    array = numpy.zeros(3)
    array.flags.writeable = False
    with pytest.raises(InPlaceError, match=r"read-only.*use \.clone\(\)"):
        gpunet.from_numpy(array)[0] = 1.0
