"""Split steps on a GPU: each segment is a CUDA graph, in stream order.

Run it with ``--device cuda --driver-lazy --driver-devices 2``, too: then work runs only when it is waited for, and tests of two
GPUs do not skip.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.captured.split import SplitStep
from gpunet.errors import CaptureError, LaunchError
from gpunet.launch.shims import Shim
from gpunet.launch.tape import GraphBreak
from gpunet.ops.activations import activation_forward
from tests import driver
from tests.captured.test_capture_split import Masked, Reading, split, splits_silently

__all__ = ["splits_silently"]
pytestmark = pytest.mark.usefixtures("gpu")


class Graphs:
    """The current stream at each launch of a graph."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams: list[int] = []
        record = devices.record_cuda_graph

        def recorded(run: Callable[[], None], device: Device) -> Callable[[], None]:
            launch = record(run, device)

            def counted() -> None:
                self.streams.append(devices.stream_pointer(device))
                launch()

            return counted

        monkeypatch.setattr(devices, "record_cuda_graph", recorded)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    return Graphs(monkeypatch)


@pytest.fixture
def two_gpus(other_gpu: str) -> None:
    gpunet.set_default_device("cuda")


def peek(array: Any) -> list[float]:
    """Return the memory of a float32 array as it is, without waiting for launches; the stand-in driver's is host memory."""
    if driver.installed() is None:
        pytest.skip("memory of a GPU cannot be read without waiting for its launches")
    return list((ctypes.c_float * array.size).from_address(array.data.ptr))


def settled(captured: Any, *arguments: Any) -> Any:
    """Call a split step until its segments are graphs; return it."""
    for _ in range(6):
        captured(*arguments)
    assert all(segment.lowering is not None for segment in captured._split.segments)
    return captured


def at_once(step: Any) -> SplitStep:
    """Return a split step of a function that has no graph break."""
    return SplitStep(step, "step", "numpy", [], [GraphBreak("a test", "", "")])


# ---- graphs --------------------------------------------------------------------------------------------------------------


def test_a_segment_is_one_graph_and_only_reads_synchronize(graphs: Graphs) -> None:
    training = Reading(False)
    captured = split(training.step)
    batches = [(gpunet.rand(12, 5), gpunet.tensor(numpy.arange(12) % 3)) for _ in range(6)]
    for x, y in batches:
        captured(x, y)
    graphs.streams.clear()
    weight = training.model[0].weight
    for x, y in batches:
        before = weight.tolist()
        captured(x, y)
        if (driver.installed() or driver.Options()).lazy:
            assert peek(weight.array) == [value for row in before for value in row]  # the optimizer has not run yet
    assert len(graphs.streams) == 2 * 6  # before and after item()
    assert str(captured.explain()).count("one CUDA graph") == 2


def test_memory_is_planned_and_unread_arrays_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = devices.cupy()
    managed: list[int] = []
    malloc = cupy.cuda.malloc_managed
    monkeypatch.setattr(cupy.cuda, "malloc_managed", lambda size: managed.append(size) or malloc(size))
    kept: list[gpunet.Tensor] = []

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = x
        for _ in range(10):
            y = y * 1.5
        y.sum().item()
        return y

    captured, x = split(step), gpunet.ones(1000)
    for _ in range(6):
        kept[:] = [captured(x)]
    (segment,) = captured._split.segments
    assert managed and set(managed) == {4000}
    assert 4000 <= segment.lowering.arena_bytes < 3 * 4096  # not ten times that
    assert kept[0].tolist() == [numpy.float32(1.5**10)] * 1000
    kept.clear()

    monkeypatch.setattr(cupy.cuda, "malloc_managed", lambda size: (_ for _ in ()).throw(cupy.cuda.runtime.CUDARuntimeError(1)))
    assert devices.empty_on_first_touch((3,), "float32", Device("cuda")).shape == (3,)  # where there is no managed memory


def test_memory_of_a_graph_outlives_the_tensors_it_reads() -> None:
    world = {"w": gpunet.rand(50, 50)}

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        hidden = x @ world["w"]
        hidden.sum().item()
        return (hidden * 2.0).tanh()

    captured, x = split(step), gpunet.rand(3, 50)
    settled(captured, x)
    for number in range(4):
        world["w"] = gpunet.rand(50, 50) * (number + 1.0)
        gc.collect()
        scribbled = [gpunet.full((50, 50), float("nan")) for _ in range(4)]
        expected = step(x).tolist()
        assert captured(x).tolist() == captured(x).tolist() == expected
        del scribbled


def test_another_shape_is_another_segment_and_another_number_is_not() -> None:
    number = 0.0

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = x * 2.0
        float(y.sum())
        return y + number

    captured = split(step)
    for number in (1.0, 2.5, -3.0, 7.0, 0.0, -0.0, 2.5, -0.0, -0.0, 0.0):  # noqa: B007
        for rows in (1, 2):
            x = -gpunet.zeros(rows)  # to which zeros of both signs can be added
            assert numpy.array(captured(x).tolist()).tobytes() == numpy.array(step(x).tolist()).tobytes()
    assert len(captured._split.segments) == 2 * 3  # one more for -0.0, which CuPy cannot fill an array with


def test_launches_that_cannot_be_a_graph_run_one_by_one_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    training = Masked(False)
    captured = split(training.step)
    x, y = gpunet.rand(12, 5), gpunet.tensor(numpy.arange(12) % 3)
    with caplog.at_level(logging.WARNING, "gpunet"):
        for _ in range(8):
            captured(x, y)
    reason = "these launches cannot be captured as a CUDA graph: the current stream is capturing"
    assert len(caplog.records) == len({s for s in captured._split.segments if s.refused}) == 2  # once each
    for record in caplog.records:
        assert record.getMessage().startswith(f"a part of a split step runs launch by launch: {reason}")
    text = str(captured.explain())
    assert f"launch by launch, not timed ({reason}" in text and "one CUDA graph" in text


def test_a_step_that_cannot_be_a_graph_raises_or_is_split() -> None:
    def look(xp: Any, out: Any, x: Any) -> None:
        x.get()
        xp.copyto(out, x)

    looking, w = Shim("look", look), gpunet.ones(2, requires_grad=True)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        w.grad = None
        y = gpunet.empty(2)
        looking(y.array, x.array)
        (w * y).sum().backward()
        return y * 2.0

    with pytest.raises(CaptureError, match="captured as a CUDA graph: the current stream is capturing"):
        gpunet.capture(step)(gpunet.ones(2))
    assert w.grad.tolist() == [1.0, 1.0]
    captured = split(step)
    for number in range(5):
        assert captured(gpunet.full((2,), float(number))).tolist() == [2.0 * number] * 2
        assert w.grad.tolist() == [float(number)] * 2
    assert "no recording: these launches cannot be captured as a CUDA graph" in str(captured.explain())


# ---- errors --------------------------------------------------------------------------------------------------------------


def test_an_error_at_a_split_names_the_launch_and_spoils_nothing() -> None:
    wrong, state = False, gpunet.zeros(3)

    def step(x: gpunet.Tensor) -> float:
        state.add_(1.0)
        y = gpunet.empty(3, 2)
        activation_forward(y.array, x.T.array if wrong else x.array, activation="relu", alpha=0.0)  # here
        state.mul_(2.0)
        return y.sum().item()

    captured, x = settled(split(step), gpunet.ones(3, 2)), gpunet.ones(3, 2)
    state.zero_()
    wrong = True
    with pytest.raises(LaunchError, match="is not C-contiguous") as caught:
        captured(x)
    assert caught.value.__notes__[0].startswith("activation_forward, launched at test_split_graphs.py:")
    assert "# here" in caught.value.__notes__[0] and state.tolist() == [1.0] * 3
    wrong = False
    assert captured(x) == 6.0 and state.tolist() == [4.0] * 3


# ---- streams and threads -------------------------------------------------------------------------------------------------


def test_launches_are_enqueued_before_a_split_returns() -> None:
    seen = []

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = x * 2.0
        gpunet.cuda.synchronize()
        seen.append(peek(y.array))
        return y + 1.0

    captured = at_once(step)
    for number in range(6):
        captured((gpunet.full((2,), float(number)),), {})
    assert seen == [[2.0 * number] * 2 for number in range(6)]


def test_streams_within_a_step_follow_one_another(graphs: Graphs) -> None:
    cuda = devices.cupy().cuda
    side = cuda.Stream(non_blocking=True)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = x * 2.0
        float(y.sum())
        z = y.exp()
        side.wait_event(cuda.get_current_stream().record())
        with side:
            z = z + y
            w = z * 3.0
        cuda.get_current_stream().wait_event(side.record())
        return (w - z).tanh() + w

    captured = split(step)
    for number in range(8):
        y = numpy.full(3, 0.1 * number, "float32") * numpy.float32(2)
        z = numpy.exp(y) + y
        w = z * numpy.float32(3)
        found = captured(gpunet.full((3,), 0.1 * number)).tolist()
        numpy.testing.assert_allclose(found, numpy.tanh(w - z) + w, rtol=1e-6)
    assert [pointer == side.ptr for pointer in graphs.streams[-4:]] == [False, False, True, False]
    actions = [graph_break.action for graph_break in captured.explain().splits]
    assert actions[1:] == ["launches on cuda:0 after launches on another device or stream"] * 2


@pytest.mark.usefixtures("two_gpus")
def test_each_stream_has_memory_of_its_own() -> None:
    """A call on another stream must not overwrite memory that earlier launches have yet to read."""

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        x.mul_(1.5)
        gpunet.cuda.synchronize(Device("cuda:1"))  # a split that waits for nothing here
        y = (x * 2.0).exp()
        gpunet.cuda.synchronize(Device("cuda:1"))
        return (y + 1.0).log() * 2.0

    run, streams = at_once(step), [devices.cupy().cuda.Stream(non_blocking=True) for _ in range(2)]
    for _ in range(6):
        given = [gpunet.full((3,), 0.1 * number) for number in range(2)]
        expected = [step(x.clone()).tolist() for x in given]
        results = []
        for stream, x in zip(streams, given):
            with stream:
                results.append(run((x,), {}))
        for stream, result, values in reversed([*zip(streams, results, expected)]):
            with stream:
                assert result.tolist() == values
        del results, result
    assert sum(s.lowering is not None for s in run.segments) == 6


def test_a_place_is_a_stream_and_where_each_thread_has_one_a_thread() -> None:
    where, places, stream_of = Device("cuda"), [], devices.cupy().cuda.Stream

    def look(stream: Any) -> None:
        with stream:  # a thread has a current stream of its own
            places.append(devices.launch_target(where))

    for stream in (stream_of(), stream_of(ptds=True)):
        look(stream)
        thread = threading.Thread(target=look, args=(stream,))
        thread.start()
        thread.join()
    assert places[0] == places[1] and len(set(places)) == 3
    assert devices.launch_target(Device("cpu")) == (Device("cpu"), 0, 0)


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_in_one_step() -> None:
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> float:
        a, b = x * 2.0, y * 3.0
        a, b = a + 1.0, b + 1.0
        return a.sum().item() + b.sum().item()

    captured = split(step)
    for number in range(6):
        x = gpunet.full((2,), float(number))
        assert captured(x, x.to("cuda:1")) == 10.0 * number + 4.0
    assert {s.place.device.index for s in captured._split.segments} == {0, 1}
    assert all(s.lowering is not None for s in captured._split.segments)


def test_a_gpu_and_the_cpu_in_one_step() -> None:
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        here = y * 2.0
        there = x * float(here.sum())
        return there + (here + 1.0).to("cuda")

    captured = split(step)
    for number in range(6):
        x = gpunet.full((2,), float(number), device="cpu")
        assert captured(x.to("cuda"), x).tolist() == [4.0 * number**2 + 2.0 * number + 1.0] * 2
