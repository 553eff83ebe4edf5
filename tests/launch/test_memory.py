"""Tickets: the counters by which the blocks of a launch find out which of them finishes last."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from gpunet import nn
from gpunet.backend import devices
from gpunet.launch.memory import ticket
from gpunet.launch.tape import Tape, record


class Training:
    """A model and a step of it, whose norm, loss and optimizer take tickets."""

    def __init__(self, seed: int) -> None:
        gpunet.manual_seed(seed)
        self.model = nn.Linear(6, 3)
        self.optimizer = gpunet.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        return loss

    def state(self) -> list[bytes]:
        steps = [state["step"] for state in self.optimizer.state.values()]
        return [t.detach().cpu().numpy().tobytes() for t in (*self.model.parameters(), *steps)]


def tickets_of(recording: Any) -> set[int]:
    """The addresses of the tickets that the launches of a recorded step use."""
    launches = recording.lowering.tape.launches
    arrays = [
        array
        for launch in launches
        for name, array in zip(getattr(launch.kernel, "parameters", ()), launch.arrays)
        if name == "ticket" and array is not None
    ]
    assert {launch.kernel.name for launch in launches} >= {"elementwise_loss", "gradient_norm", "sgd_step"} and len(arrays) == 3
    assert all(int(devices.move(array, devices.CPU)[0]) == 0 for array in arrays)
    return {devices.pointer(array) for array in arrays}


def test_a_recording_has_a_ticket_of_its_own(device: str) -> None:
    x, y = gpunet.ones(4, 6), gpunet.zeros(4, 3)
    eager = ticket(x.array)
    if device == "cpu":
        assert eager is None
        return
    assert eager is ticket(y.array)
    found = {devices.pointer(eager)}
    captured = [gpunet.capture(Training(seed).step) for seed in range(2)]
    for _ in range(3):
        for step in captured:
            step(x, y)
    for step in captured:
        (recording,) = step.recordings
        own = tickets_of(recording)
        assert len(own) == 1 and not own & found
        found |= own
    tapes = [Tape(), Tape()]
    for tape in tapes:
        with record(tape):
            first = ticket(x.array)
            assert first is ticket(y.array)
            found.add(devices.pointer(first))
    assert len(found) == 5 and ticket(x.array) is eager


def test_two_recordings_replay_on_two_streams(gpu: str) -> None:
    import cupy

    generator = numpy.random.default_rng(0)
    batches = [gpunet.tensor(generator.normal(size=(700, 9)).astype("float32")) for _ in range(5)]
    expected, found = [Training(seed) for seed in range(2)], [Training(seed) for seed in range(2)]
    losses = [[training.step(x[:, :6], x[:, 6:]).item() for x in batches] for training in expected]
    steps = [gpunet.capture(training.step) for training in found]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in steps]
    results = [[step(batches[0][:, :6], batches[0][:, 6:])] for step in steps]  # both recorded on the default stream
    cupy.cuda.Stream.null.synchronize()
    for x in batches[1:]:
        for step, stream, into in zip(steps, streams, results):
            with stream:
                into.append(step(x[:, :6], x[:, 6:]))
    for stream in streams:
        stream.synchronize()
    assert [[loss.item() for loss in into] for into in results] == losses
    assert [training.state() for training in found] == [training.state() for training in expected]
    assert not tickets_of(steps[0].recordings[0]) & tickets_of(steps[1].recordings[0])
