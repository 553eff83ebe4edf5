"""Trains trials as one stack."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

from gpunet import optim
from gpunet.autograd import no_grad
from gpunet.backend.devices import Device
from gpunet.captured import capture
from gpunet.data.randomness import preserved_globals
from gpunet.launch.random import manual_seed
from gpunet.nn import Dropout, Sequential, Stack
from gpunet.nn import functional as F
from gpunet.ops.creation import as_tensor
from gpunet.sweeps.ranges import PARAMETERS
from gpunet.train.network import OPTIMIZERS, multilayer_perceptron
from gpunet.train.stopping import StackStopping

_CHUNK = 8192  # held-out rows whose outputs are in memory at once


class Rows(NamedTuple):
    """The data of a sweep: inputs float32 (n, f); targets int64 (n,), or float32 (n, k) of a regression."""

    x: numpy.ndarray
    y: numpy.ndarray
    held_out_x: numpy.ndarray
    held_out_y: numpy.ndarray

    @property
    def is_classification(self) -> bool:
        return self.y.ndim == 1


class Settings(NamedTuple):
    """How trials are trained; see :func:`gpunet.sweep`."""

    outputs: int
    epochs: int
    patience: int | None
    halving: int | None
    seed: int  # of the order of the rows
    device: str
    capture: str
    keeps_best: bool = True  # give each net the weights of its best epoch, not of its last one


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        loss: the lowest held-out loss, infinite if there was no finite one.
        score: the accuracy or R² with the weights of that epoch, or of the last one, see :class:`Settings`; NaN if an output is not
            finite.
        epochs: how many it was trained.
        best_epoch: that of the lowest loss, from 1.
        reason: why it was stopped, see :class:`gpunet.train.StackStopping`; "" if it was not.
        seconds: of the whole stack.
    """

    loss: float
    score: float
    epochs: int
    best_epoch: int
    reason: str
    seconds: float


def sizes_of(parameters: Mapping[str, Any]) -> list[int]:
    """The sizes of the hidden layers of a trial."""
    return [int(size) for size in str(value_of(parameters, "hidden")).split(",")]


def value_of(parameters: Mapping[str, Any], name: str) -> Any:
    """A hyperparameter of a trial, by default that of the sweep or of the optimizer."""
    value = parameters.get(name, PARAMETERS[name].default)
    if value is None:
        kind = value_of(parameters, "optimizer")
        value = OPTIMIZERS[kind].learning_rate if name == "lr" else 0.01 if kind == "adamw" else 0.0
    return value


def shared_by_stack(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal in the trials of a stack."""
    shared = (value_of(parameters, name) for name, parameter in PARAMETERS.items() if parameter.is_shared)
    return (len(sizes_of(parameters)), *shared)


def divide(asked: Sequence[Mapping[str, Any]], stack_size: int) -> list[list[int]]:
    """Divide trials into stacks of at most ``stack_size``: their places, in order."""
    groups: dict[Any, list[int]] = {}
    for place, parameters in enumerate(asked):
        groups.setdefault(shared_by_stack(parameters), []).append(place)
    return [group[first : first + stack_size] for group in groups.values() for first in range(0, len(group), stack_size)]


def build_net(parameters: Mapping[str, Any], inputs: int, outputs: int) -> Sequential:
    """The net of a trial, with the weights of its seed; it has dropout layers, also of probability 0."""
    manual_seed(value_of(parameters, "seed"))
    net = multilayer_perceptron(inputs, sizes_of(parameters), outputs, value_of(parameters, "activation"), 0.5)
    for module in net.modules():
        if isinstance(module, Dropout):
            module.p = value_of(parameters, "dropout")
    return net


def _make_optimizer(stack: Stack, trials: Sequence[Mapping[str, Any]]) -> optim.Optimizer:
    numbers: dict[str, Any] = {
        name: [value_of(parameters, name) for parameters in trials]
        for name in ("lr", "weight_decay", "momentum", "beta1", "beta2")
    }
    momentum, betas = {"momentum": numbers.pop("momentum")}, {name: numbers.pop(name) for name in ("beta1", "beta2")}
    kind = value_of(trials[0], "optimizer")
    if kind == "sgd":
        return optim.StackSGD(stack, **numbers, **momentum)
    return (optim.StackAdam if kind == "adam" else optim.StackAdamW)(stack, **numbers, **betas)


def train_trials(
    trials: Sequence[Mapping[str, Any]], rows: Rows, settings: Settings
) -> tuple[list[Outcome], list[numpy.ndarray]]:
    """Train trials as one stack; return their outcomes and the parameters of the stack.

    The global generators of random numbers are left as they were.
    """
    with preserved_globals():
        return _train(trials, rows, settings)


def _train(
    trials: Sequence[Mapping[str, Any]], rows: Rows, settings: Settings
) -> tuple[list[Outcome], list[numpy.ndarray]]:
    start, device = time.perf_counter(), Device(settings.device)
    nets = [build_net(parameters, rows.x.shape[1], settings.outputs) for parameters in trials]
    stack = Stack(nets, seeds=[value_of(parameters, "seed") for parameters in trials]).to(device)
    optimizer = _make_optimizer(stack, trials)
    stopping = StackStopping(stack, settings.patience, settings.halving)
    x, y, held_out_x, held_out_y = (as_tensor(array, device=device) for array in rows)
    loss_function = F.cross_entropy if rows.is_classification else F.mse_loss

    def step(inputs: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        losses = stack.losses(loss_function, stack(inputs), targets)
        losses.sum().backward()
        optimizer.step()
        return losses

    def evaluate(inputs: Any, targets: Any) -> Any:
        return stack.losses(loss_function, stack(inputs), targets)

    captured_step, captured_evaluate = (capture(function, backend=settings.capture) for function in (step, evaluate))
    manual_seed(settings.seed)
    epoch = captured_step.epoch(x, y, batch_size=min(value_of(trials[0], "batch_size"), len(rows.x)))
    for _ in range(settings.epochs):
        stack.train()
        epoch()
        stack.eval()
        total: Any = 0.0
        with no_grad():
            for first in range(0, len(rows.held_out_x), _CHUNK):
                part = held_out_x[first : first + _CHUNK]
                total = total + captured_evaluate(part, held_out_y[first : first + _CHUNK]) * len(part)
        if not stopping.update(total / len(rows.held_out_x)):
            break
    if settings.keeps_best:
        stopping.restore()
    stack.eval()
    with no_grad():
        parts = [stack(held_out_x[first : first + _CHUNK]).cpu().numpy() for first in range(0, len(rows.held_out_x), _CHUNK)]
    scores = _scores(numpy.concatenate(parts, 1), rows)
    seconds = time.perf_counter() - start
    outcomes = [
        Outcome(float(loss), float(score), int(epochs), int(best), reason, seconds)
        for loss, score, epochs, best, reason in zip(
            stopping.best, scores, stopping.epochs, stopping.best_epoch, stopping.reasons, strict=True
        )
    ]
    return outcomes, [p.detach().cpu().numpy() for p in stack.parameters()]


def _scores(outputs: numpy.ndarray, rows: Rows) -> numpy.ndarray:
    """The accuracy, or R² averaged over the targets, of outputs (nets, n, k)."""
    target = rows.held_out_y
    is_finite = numpy.isfinite(outputs).all((1, 2))
    if rows.is_classification:
        return numpy.where(is_finite, (outputs.argmax(2) == target).mean(1), numpy.nan)
    residual = ((outputs.astype(numpy.float64) - target) ** 2).sum(1)
    total = ((target.astype(numpy.float64) - target.mean(0, dtype=numpy.float64)) ** 2).sum(0)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where(is_finite, (1.0 - residual / total).mean(1), numpy.nan)
