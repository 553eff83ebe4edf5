"""Tensors on cuda:1 while cuda:0 is CuPy's current device: each op, training, capture, schedules.

CuPy launches and allocates on the current device, so whatever does not set it fails here, best without peer access:

    python -m pytest -p tests.driver.pytest_plugin --driver-devices 2 --driver-lazy --device cuda tests/test_other_gpu.py

``--device cuda:1`` runs any other test in this way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.optim import lr_scheduler
from tests.captured.test_capture import TRAININGS, Training, batches, hold_epoch_to_loop
from tests.ops.test_ops import TOLERANCE, run, tensors, to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional
_OF_INDEXING = ("_index", "_unindex", "_with_index")
_FIRST = {sample.op: sample for sample in reversed(SAMPLES)}
SMOKE = [sample for sample in SAMPLES if _FIRST[sample.op] is sample or sample.op in _OF_INDEXING]


@pytest.fixture(autouse=True)
def current_device_stays(other_gpu: str) -> Iterator[None]:
    import cupy

    assert cupy.cuda.runtime.getDevice() == 0
    yield
    assert cupy.cuda.runtime.getDevice() == 0


@pytest.mark.parametrize("sample", SMOKE, ids=lambda sample: sample.name)
def test_ops(sample: Sample) -> None:
    found, expected = (run(sample, tensors(sample, sample.arrays(), "float32", device)) for device in ("cuda:1", "cpu"))
    for there, here in zip((found[0], *found[1]), (expected[0], *expected[1])):
        assert (there is None) == (here is None)
        if there is not None and here is not None:
            assert there.device == "cuda:1"
            numpy.testing.assert_allclose(to_numpy(there), to_numpy(here), **TOLERANCE["float32"])


#: Functions that no sample names, of a (4, 3) tensor and labels.
FUNCTIONS: dict[str, Callable[[gpunet.Tensor, gpunet.Tensor], Any]] = {
    "sort": lambda x, y: x.sort(1, descending=True),
    "topk": lambda x, y: x.topk(2, 1),
    "max along": lambda x, y: x.max(0),
    "argmin": lambda x, y: x.argmin(),
    "any and all": lambda x, y: ((x > 0).any(1), (x > 0).all(0)),
    "mask": lambda x, y: x[x > 0],
    "triangles": lambda x, y: (x.tril(), x.triu(1), gpunet.tril(x, -1)),
    "one_hot": lambda x, y: F.one_hot(y, 3),
    "weighted loss": lambda x, y: F.cross_entropy(x, y, weight=gpunet.tensor([1.0, 2.0, 0.5], device=x.device)),
    "weighted and smoothed loss": lambda x, y: F.cross_entropy(
        x, y, weight=gpunet.tensor([1.0, 2.0, 0.5], device=x.device), label_smoothing=0.1
    ),
    "creation": lambda x, y: (
        gpunet.full((2,), 3, device=x.device), gpunet.eye(3, device=x.device), gpunet.zeros_like(x),
        gpunet.tensor(x.T, dtype="float64"),
    ),
    "random": lambda x, y: (gpunet.rand(3, device=x.device), gpunet.randperm(5, device=x.device)),
    "in place": lambda x, y: x.clone().mul_(2.0).add_(x).clamp_(-1, 1).fill_(0.5),
    "deepcopy": lambda x, y: copy.deepcopy(x),
    "host": lambda x, y: (x.tolist(), x[0, 0].item(), bool((x == x).all()), repr(x)[:20], x.T.tolist()),
}  # fmt: skip


def on_host(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(on_host, value))
    return to_numpy(value).tolist() if isinstance(value, gpunet.Tensor) else value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    values = numpy.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    results = []
    for device in ("cuda:1", "cpu"):
        gpunet.manual_seed(0)
        results.append(on_host(FUNCTIONS[name](gpunet.tensor(values, device=device), gpunet.tensor([2, 0, 1, 2], device=device))))
    numpy.testing.assert_equal(*results) if "loss" not in name else numpy.testing.assert_allclose(*results, rtol=1e-6)


def test_assignment() -> None:
    x = gpunet.zeros(3, 4)
    x[1] = 2.0
    x[gpunet.tensor([0, 2]), 1] = gpunet.tensor([5.0, 6.0])
    x[:, 3] = [7.0, 8.0, 9.0]
    x[x == 2.0] = 1.0
    assert x.tolist() == [[0.0, 5.0, 0.0, 7.0], [1.0, 1.0, 1.0, 8.0], [0.0, 6.0, 0.0, 9.0]] and x.device == "cuda:1"


@pytest.mark.parametrize("name", TRAININGS)
def test_captured_training_has_the_bits_of_eager(name: str) -> None:
    captured = TRAININGS[name](True)
    assert captured.train(4) == TRAININGS[name](False).train(4)
    assert str(captured.run.explain())


def test_epochs() -> None:
    hold_epoch_to_loop(Training(True), Training(False))
    x = gpunet.arange(10).float()
    step = gpunet.capture(lambda x: {"sum": x.sum(), "first": x[0]})
    assert step.epoch(x, batch_size=4, shuffle=False)()["sum"].item() == pytest.approx((4 * 6.0 + 4 * 22.0 + 2 * 17.0) / 10)


def test_schedules() -> None:
    def train(captured: bool) -> list[Any]:
        training = Training(False)
        optimizer = training.optimizer = gpunet.optim.SGD(training.model.parameters(), lr=0.1, momentum=0.9)
        schedule = lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.LinearLR(optimizer, 0.5), lr_scheduler.OneCycleLR(optimizer, 0.3, 20)], [2]
        )

        def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
            loss = training.step(x, y)
            nn.utils.clip_grad_norm_(training.model.parameters(), 0.1)
            nn.utils.clip_grad_value_(training.model.parameters(), 0.01)
            schedule.step()
            return loss

        run = gpunet.capture(step) if captured else step
        losses = [run(x, y).item() for x, y in batches(5)]
        assert schedule.last_epoch == 5
        return [*losses, schedule.get_last_lr(), *(to_numpy(p).tobytes() for p in training.model.parameters())]

    assert train(True) == train(False)


def test_plateaus_and_states_of_optimizers() -> None:
    p = nn.Parameter(gpunet.ones(5))
    p.grad = gpunet.ones_like(p)
    optimizer = gpunet.optim.Adam([p], lr=0.5)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        optimizer.step()
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    other = gpunet.optim.Adam([p], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[p]["step"].tolist() == [3.0] and other.param_groups[0]["lr"] == pytest.approx(0.005)


def test_a_recording_is_of_one_gpu() -> None:
    step = gpunet.capture(lambda x: x * 2.0 + 1.0)
    for number, device in enumerate(("cuda:0", "cuda:1") * 3):
        y = step(gpunet.full((3,), float(number), device=device))
        assert y.device == device and y.tolist() == [2.0 * number + 1.0] * 3
    assert len(step.recordings) == 2


def test_a_step_on_two_gpus() -> None:
    step = gpunet.capture(lambda x, y: (x * 2.0, y + 1.0))
    for number in range(3):
        x, y = (gpunet.full((3,), float(number), device=device) for device in ("cuda:0", "cuda:1"))
        doubled, added = step(x, y)
        assert (doubled.device, added.device) == ("cuda:0", "cuda:1")
        assert (doubled.tolist(), added.tolist()) == ([2.0 * number] * 3, [number + 1.0] * 3)


def test_streams_of_the_other_gpu() -> None:
    """Launches go to the current stream of cuda:1, and reads wait for it."""
    import cupy

    with cupy.cuda.Device(1):
        cupy.cuda.Stream(non_blocking=True).use()
    try:
        x = gpunet.ones(4, 4)
        for _ in range(5):
            x = (x @ x) * 0.25
        assert x[0].tolist() == [1.0] * 4 and x[1, 2].item() == 1.0
    finally:
        with cupy.cuda.Device(1):
            cupy.cuda.Stream.null.use()
