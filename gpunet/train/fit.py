"""The training loop.

    for epoch in fit(model, loss, optimizer, train, test, epochs=20):
        print(epoch.number, epoch.test["accuracy"])

``fit`` is a generator that trains one epoch at a time: what happens between epochs (printing, saving, stopping early,
another learning rate) is the body of the caller's ``for``, so there are no callbacks to learn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpunet import captured
from gpunet.autograd import Tensor, no_grad
from gpunet.data.loader import Batches
from gpunet.errors import ArgumentError, GpunetError
from gpunet.nn import Module
from gpunet.nn.utils import clip_grad_norm_
from gpunet.optim import Optimizer

__all__ = ["EpochResult", "evaluate", "fit"]

EVALUATION_ROWS = 8192  # of a batch when nothing is kept for backward


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to."""

    number: int  # from 1
    train: dict[str, float]  # loss and metrics, in evaluation mode, after the epoch
    test: dict[str, float]  # the same for the held-out rows; empty without them
    seconds: float

    def as_line(self) -> dict[str, Any]:
        """One flat dict: a line of metrics.jsonl."""
        values = {f"train_{k}": v for k, v in self.train.items()} | {f"test_{k}": v for k, v in self.test.items()}
        return {"epoch": self.number, **values, "seconds": round(self.seconds, 4)}


def fit(
    model: Module,
    loss: Module,
    optimizer: Optimizer,
    train: Batches,
    test: Batches | None = None,
    *,
    epochs: int,
    task: str = "classification",
    target_scale: float = 1.0,
    clip: float | None = None,
    capture: bool = False,
    on_batch: Callable[[], bool | None] | None = None,
) -> Iterator[EpochResult]:
    """Train ``model``, and yield what each epoch came to.

    Args:
        model: called with the first tensor of a batch.
        loss: called with the model's output and the second tensor of a batch; its reduction must be "mean".
        optimizer: of the model's parameters.
        train: (inputs, targets) to learn from.
        test: (inputs, targets) held out.
        epochs: how often to go through ``train``.
        task: "classification" or "regression": which metrics to take; see :func:`evaluate`.
        target_scale: what standardised targets were divided by.
        clip: scale gradients whose norm is above it down to it, before each step.
        capture: record the step once and replay it (see ``gpunet.capture``): the same bits, in less time.
        on_batch: called after each step, for a schedule of the learning rate, say; when it returns True, training ends there.

    Raises:
        ArgumentError: epochs below 1.
        CaptureError: with ``capture``, a model or loss that cannot be recorded.
        GpunetError: the loss is no longer a finite number.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ArgumentError(f"fit: epochs={epochs!r}; expected a whole number, 1 or more")

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    run = captured.capture(step, backend="numpy") if capture else step
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        model.train()
        for inputs, targets in train:
            run(inputs, targets)
            if on_batch is not None and on_batch():
                return
        result = evaluate(model, loss, train, task, target_scale)
        if not math.isfinite(result["loss"]):
            rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups)
            raise GpunetError(
                f"the training loss became {result['loss']} in epoch {number}: the network diverged. Try a learning rate "
                f"below {rates}, and look for extreme values in the data"
            )
        held_out = {} if test is None else evaluate(model, loss, test, task, target_scale)
        yield EpochResult(number, result, held_out, time.perf_counter() - start)


def evaluate(
    model: Module, loss: Module, data: Batches, task: str = "classification", target_scale: float = 1.0
) -> dict[str, float]:
    """Loss and metrics of a model on data, in evaluation mode; a model that was training goes on in training mode.

    Classification gives the accuracy: the largest of several outputs, or the sign of a single one, against the class.
    Regression gives R², the share of the targets' variance that is explained, and the mean absolute error,
    times ``target_scale``: in the unit that the targets had before they were standardised.
    """
    training = model.training
    model.eval()
    inputs, targets = data.tensors
    total = correct = squared = absolute = 0.0
    with no_grad():
        for x, y in Batches(inputs, targets, batch_size=max(data.batch_size, EVALUATION_ROWS)):
            output = model(x)
            total += loss(output, y).item() * len(x)
            if task == "classification":
                hits = output.argmax(1) == y if output.shape[1] > 1 else (output > 0.0) == (y > 0.5)
                correct += hits.sum().item()
            else:
                error = output - y
                squared += (error * error).sum().item()
                absolute += error.abs().sum().item()
        if task == "classification":
            metrics = {"accuracy": correct / data.rows}
        else:
            spread = targets - targets.mean()
            variance = (spread * spread).sum().item()
            metrics = {
                "r2": 1.0 - squared / variance if variance else math.nan,
                "mae": absolute / data.rows * target_scale,
            }
    model.train(training)
    return {"loss": total / data.rows, **metrics}
