"""What all metrics have in common: values do not depend on batches and order, sums are saved, and captured steps add to them."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import metrics
from gpunet.errors import CaptureError, DeviceError, LabelError, ShapeError, StateDictError
from gpunet.launch.tape import GraphBreak, Tape, record
from tests.metrics.table import ROWS, Row, assert_equal, multiclass, on_device, pick, to_host

COUNT = 40
EVERY_METRIC = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
SUMMED = pytest.mark.parametrize("row", [row for row in ROWS if row.is_summed], ids=lambda row: row.name)


def value(row: Row, *batches: Any) -> Any:
    metric = row.make()
    for batch in batches:
        row.update(metric, batch)
    return to_host(metric.compute())


def test_every_metric_has_a_row() -> None:
    tested = {type(row.make()).__name__ for row in ROWS}
    assert {*metrics.__all__} - tested == {"Metric"}


@EVERY_METRIC
def test_value_does_not_depend_on_batches_and_order(row: Row, device: str) -> None:
    random = numpy.random.default_rng(0)
    arguments = row.draw(random, COUNT)
    expected = value(row, arguments)
    cuts = [0, 1, 1, 2, 17, COUNT]  # one batch is empty
    parts = [tuple(pick(argument, range(*span)) for argument in arguments) for span in itertools.pairwise(cuts)]
    assert_equal(value(row, *parts), expected)
    order = random.permutation(COUNT)
    mixed = [tuple(pick(argument, order[i : i + 13]) for argument in arguments) for i in range(0, COUNT, 13)]
    assert_equal(value(row, *mixed), expected)


@EVERY_METRIC
def test_reset_call_and_merge(row: Row) -> None:
    random = numpy.random.default_rng(1)
    first, second = row.draw(random, COUNT), row.draw(random, COUNT)
    metric, other = row.make(), row.make()
    assert_equal(to_host(metric(*map(on_device, first))), value(row, first))  # the value of the batch alone
    assert_equal(to_host(metric(*map(on_device, second))), value(row, second))
    assert_equal(to_host(metric.compute()), value(row, first, second))
    metric.reset()
    row.update(metric, first)
    assert_equal(to_host(metric.compute()), value(row, first))
    row.update(other, second)
    metric.merge_state(other)
    assert_equal(to_host(metric.compute()), value(row, first, second))
    assert_equal(to_host(other.compute()), value(row, second))
    fresh = row.make()
    fresh.merge_state(metric)
    assert_equal(to_host(fresh.compute()), value(row, first, second))


@EVERY_METRIC
def test_saved_sums_are_continued(row: Row, device: str, tmp_path: Path) -> None:
    random = numpy.random.default_rng(2)
    first, second = row.draw(random, COUNT), row.draw(random, COUNT)
    metric = row.make()
    row.update(metric, first)
    gpunet.save(metric.state_dict(), tmp_path / "metric.safetensors")
    for loaded in (row.make(), pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        loaded.load_state_dict(gpunet.load(tmp_path / "metric.safetensors", map_location="cpu"))
        row.update(loaded, second)
        assert_equal(to_host(loaded.compute()), value(row, first, second))
    assert_equal(to_host(metric.compute()), value(row, first))


@SUMMED
def test_captured_step_updates(row: Row, device: str, backend: str) -> None:
    random = numpy.random.default_rng(3)
    batches = [row.draw(random, 8) for _ in range(3)]
    metric = row.make()
    step = gpunet.capture(lambda *arguments: metric.update(*arguments), backend=backend)
    for batch in batches:
        step(*map(on_device, batch))
    assert len(step.recordings) == 1
    assert_equal(to_host(metric.compute()), value(row, *batches))
    metric.reset()
    step(*map(on_device, batches[0]))
    metric.load_state_dict(metric.state_dict())
    step(*map(on_device, batches[1]))
    assert len(step.recordings) == 1
    assert_equal(to_host(metric.compute()), value(row, *batches[:2]))


@EVERY_METRIC
def test_update_reads_nothing_on_the_host(row: Row, device: str) -> None:
    metric, breaks = row.make(), list[GraphBreak]()
    arguments = [on_device(argument) for argument in row.draw(numpy.random.default_rng(4), 8)]
    with record(Tape(strict=True, breaks=breaks)):
        metric.update(*arguments)
    assert {str(found).split(",")[0] for found in breaks} == (set() if row.is_summed else {f"{type(metric).__name__}.update()"})


def test_captured_step_with_a_metric_that_keeps_rows() -> None:
    metric = metrics.AUROC("binary")
    step = gpunet.capture(lambda x, y: metric.update(x, y), fullgraph=True)
    with pytest.raises(CaptureError, match=r"AUROC.update\(\), which keeps rows, cannot be captured .*: return its arguments"):
        step(gpunet.rand(3), gpunet.tensor([0, 1, 1]))


def test_changed_option_makes_a_new_recording() -> None:
    metric = metrics.Accuracy("binary")
    step = gpunet.capture(lambda x, y: metric.update(x, y), backend="numpy")
    x, y = gpunet.tensor([0.3, 0.7]), gpunet.tensor([1, 1])
    step(x, y)
    metric.threshold = 0.2
    step(x, y)
    assert metric.compute().item() == 0.75 and len(step.recordings) == 2


def test_replay_checks_labels(device: str, backend: str) -> None:
    metric = metrics.Accuracy("multiclass", num_classes=3)
    step = gpunet.capture(lambda x, y: metric.update(x, y), backend=backend)
    step(gpunet.rand(2, 3), gpunet.tensor([0, 1]))
    with pytest.raises(LabelError, match="Accuracy: target has the label 7 at position 1; expected 0 .. 2 for 3 classes"):
        (step(gpunet.rand(2, 3), gpunet.tensor([0, 7])), gpunet.synchronize())


def test_update_has_no_graph() -> None:
    x = gpunet.rand(4, requires_grad=True)
    metric = metrics.MeanSquaredError()
    metric.update(x, gpunet.zeros(4))
    assert not metric.compute().requires_grad


def test_sums_are_float64_on_the_device_of_the_batch(device: str) -> None:
    metric = metrics.Accuracy("multiclass", num_classes=5)
    assert metric.device is None
    metric.update(*map(on_device, multiclass(numpy.random.default_rng(0), 4)))
    for name, tensor in metric.state_dict().items():
        assert tensor.dtype == gpunet.float64 and tensor.device == metric.device == gpunet.tensor(0.0).device, name


# ---- errors -----------------------------------------------------------------------------------------------------------


def test_another_device(gpu: str) -> None:
    metric = metrics.MeanSquaredError()
    metric.update(gpunet.ones(2), gpunet.zeros(2))
    with pytest.raises(DeviceError, match="MeanSquaredError: preds is on cpu, the sums of the metric are on cuda:0; move one"):
        metric.update(gpunet.ones(2, device="cpu"), gpunet.zeros(2, device="cpu"))
    metric.to("cpu").update(gpunet.zeros(2, device="cpu"), gpunet.zeros(2, device="cpu"))
    assert metric.compute().item() == 0.5 and metric.device == gpunet.device("cpu")


def test_loaded_sums_move_to_the_first_batch(gpu: str) -> None:
    metric, on_cpu = metrics.MeanSquaredError(), metrics.MeanSquaredError()
    on_cpu.update(gpunet.ones(2, device="cpu"), gpunet.zeros(2, device="cpu"))
    gpunet.set_default_device("cpu")
    metric.load_state_dict(on_cpu.state_dict())
    gpunet.set_default_device("cuda")
    step = gpunet.capture(lambda x, y: metric.update(x, y))
    for _ in range(2):
        step(gpunet.ones(2), gpunet.ones(2))
    assert metric.compute().item() == pytest.approx(1 / 3) and len(step.recordings) == 1
    metric.to("cpu")  # a replay would add to memory that the metric has left
    with pytest.raises(DeviceError, match="preds is on cuda:0, the sums of the metric are on cpu"):
        step(gpunet.ones(2), gpunet.ones(2))


def test_state_of_another_metric() -> None:
    metric = metrics.Accuracy("multiclass", num_classes=3)
    state = metrics.Accuracy("multiclass", num_classes=4).state_dict()
    state["extra"] = state.pop("rows")
    with pytest.raises(StateDictError, match=r"missing keys: rows; unexpected keys: extra; hits has shape \(4,\), expected \(3,\)"):
        metric.load_state_dict(state)
    with pytest.raises(ShapeError, match=r"merge_state: got Accuracy\(task='multiclass', num_classes=4"):
        metric.merge_state(metrics.Accuracy("multiclass", num_classes=4))


def test_merged_metrics_have_the_same_options() -> None:
    metric = metrics.Accuracy("binary", threshold=0.9, zero_division=float("nan"))
    metric(gpunet.tensor([0.8]), gpunet.tensor([1]))
    with pytest.raises(ShapeError, match="merge_state: got Accuracy.*threshold=0.1"):
        metric.merge_state(metrics.Accuracy("binary", threshold=0.1, zero_division=float("nan")))
    fresh = metrics.Accuracy("binary", threshold=0.9, zero_division=float("nan"))
    fresh.merge_state(metric)
    assert fresh.compute().item() == 0


@EVERY_METRIC
def test_no_rows(row: Row) -> None:
    metric = row.make()
    name = type(metric).__name__
    if name in ("ConfusionMatrix", "MeanAveragePrecision"):
        assert name == "ConfusionMatrix" or metric.compute()["map"].item() == -1
        return
    with pytest.warns(UserWarning, match=f"{name}: (no|less than two) (rows|tokens|references)? ?(rows )?since the last reset"):
        assert numpy.isnan(to_host(metric.compute())).all()
