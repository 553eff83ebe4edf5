"""The training loop.

    for epoch in fit(model, loss, optimizer, train, test, epochs=20):
        print(epoch.number, epoch.test["accuracy"])

``fit`` is a generator that trains one epoch per iteration. The body of the ``for`` loop replaces callbacks: it can print,
save, change the learning rate, or stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpunet import captured
from gpunet.autograd import Tensor, no_grad
from gpunet.data.loader import DataLoader
from gpunet.errors import ArgumentError, GpunetError
from gpunet.nn import Module
from gpunet.nn.utils import clip_grad_norm_
from gpunet.ops.join import cat
from gpunet.optim import Optimizer

__all__ = ["EpochResult", "evaluate", "fit"]

EVALUATION_ROWS = 8192  # minimal batch size in evaluation, where no residuals are kept for backward


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch."""

    number: int  # from 1
    train: dict[str, float]  # loss and metrics, in evaluation mode, after the epoch
    test: dict[str, float]  # the same for the held-out rows; empty if there are none
    seconds: float

    def as_line(self) -> dict[str, Any]:
        """A flat dict, as written to a line of metrics.jsonl."""
        values = {f"train_{k}": v for k, v in self.train.items()} | {f"test_{k}": v for k, v in self.test.items()}
        return {"epoch": self.number, **values, "seconds": round(self.seconds, 4)}


def fit(
    model: Module,
    loss: Module,
    optimizer: Optimizer,
    train: DataLoader,
    test: DataLoader | None = None,
    *,
    epochs: int,
    task: str = "classification",
    target_scale: float = 1.0,
    clip: float | None = None,
    capture: bool = False,
    on_batch: Callable[[], bool | None] | None = None,
) -> Iterator[EpochResult]:
    """Train ``model`` and yield the result of each epoch.

    Args:
        model: called with the first tensor of a batch.
        loss: called with the output of the model and the second tensor of a batch; its reduction must be "mean".
        optimizer: the optimizer of the parameters of the model.
        train: batches of (inputs, targets) for training, of a data set with a length.
        test: batches of (inputs, targets) held out for evaluation.
        epochs: number of passes over ``train``.
        task: "classification" or "regression", which selects the metrics; see :func:`evaluate`.
        target_scale: the divisor of standardised targets.
        clip: clip the gradient norm to this value before each step.
        capture: capture the step (see ``gpunet.capture``); faster, with the same bits.
        on_batch: called after each step, for example for a learning-rate schedule; training stops when it returns True.

    Raises:
        ArgumentError: epochs below 1.
        CaptureError: with ``capture``, the model or loss cannot be recorded.
        GpunetError: the training loss is no longer finite.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ArgumentError(f"fit: epochs={epochs!r}; expected an integer of 1 or more")

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    run_step = captured.capture(step, backend="numpy") if capture else step
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        model.train()
        for inputs, targets in train:
            run_step(inputs, targets)
            if on_batch is not None and on_batch():
                return
        result = evaluate(model, loss, train, task, target_scale)
        if not math.isfinite(result["loss"]):
            rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups)
            raise GpunetError(
                f"the training loss became {result['loss']} in epoch {number}: the network diverged. Try a learning rate "
                f"below {rates}, and check the data for extreme values"
            )
        held_out = {} if test is None else evaluate(model, loss, test, task, target_scale)
        yield EpochResult(number, result, held_out, time.perf_counter() - start)


def evaluate(
    model: Module, loss: Module, data: DataLoader, task: str = "classification", target_scale: float = 1.0
) -> dict[str, float]:
    """Compute loss and metrics of a model in evaluation mode. The mode of the model is restored afterwards.

    Args:
        model: called with the inputs (n, ...).
        loss: called with output and targets; its reduction must be "mean".
        data: batches of (inputs, targets).
        task: "classification" or "regression".
        target_scale: the divisor of standardised targets.

    Returns:
        "loss"; for classification "accuracy" (the prediction is the argmax of several outputs, or the sign of a single
        output); for regression "r2" (the fraction of explained variance, NaN if the targets are constant) and "mae" (mean
        absolute error times ``target_scale``, in the unit of the original targets).
    """
    was_training = model.training
    model.eval()
    batch_size = max(data.batch_size or 1, EVALUATION_ROWS)
    batches = DataLoader(data.dataset, batch_size, collate_fn=data.collate_fn)
    rows, seen = len(data.dataset), []
    total = correct = squared = absolute = 0.0
    with no_grad():
        for x, y in batches:
            output = model(x)
            total += loss(output, y).item() * len(x)
            if task == "classification":
                hits = output.argmax(1) == y if output.shape[1] > 1 else (output > 0.0) == (y > 0.5)
                correct += hits.sum().item()
            else:
                seen.append(y)
                error = output - y
                squared += (error * error).sum().item()
                absolute += error.abs().sum().item()
        if task == "classification":
            metrics = {"accuracy": correct / rows}
        else:
            targets = cat(seen)
            spread = targets - targets.mean()
            variance = (spread * spread).sum().item()
            metrics = {
                "r2": 1.0 - squared / variance if variance else math.nan,
                "mae": absolute / rows * target_scale,
            }
    model.train(was_training)
    return {"loss": total / rows, **metrics}
