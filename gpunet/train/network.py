"""Activations, losses, optimizers and schedules by name, and multilayer perceptrons: the choices of ``gpunet train``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from gpunet import nn, optim
from gpunet.errors import ArgumentError
from gpunet.optim import lr_scheduler

__all__ = ["ACTIVATIONS", "LOSSES", "OPTIMIZERS", "SCHEDULES", "multilayer_perceptron"]


def _named(file: ModuleType) -> dict[str, Any]:
    """The public modules of a file that have a ``name``, by their names."""
    return {kind.name: kind for key, kind in vars(file).items() if key in file.__all__ and getattr(kind, "name", None)}


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {**_named(nn.activation), "identity": nn.Identity}

LOSSES: dict[str, type[Any]] = _named(nn.loss)  # each has a ``task``


class OptimizerChoice(NamedTuple):
    """An optimizer with its default learning rate and other options."""

    make: Callable[..., optim.Optimizer]
    learning_rate: float
    options: Mapping[str, Any]


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "adam": OptimizerChoice(optim.Adam, 3e-3, {}),
    "adamw": OptimizerChoice(optim.AdamW, 3e-3, {}),
    "sgd": OptimizerChoice(optim.SGD, 0.05, {"momentum": 0.9}),
}


class ScheduleChoice(NamedTuple):
    """A learning-rate schedule, made from (optimizer, number of its steps), and what it counts."""

    make: Callable[[optim.Optimizer, int], lr_scheduler.LRScheduler]
    per: str  # "epoch" | "step"


SCHEDULES: dict[str, ScheduleChoice] = {
    "cosine": ScheduleChoice(lr_scheduler.CosineAnnealingLR, "epoch"),
    "onecycle": ScheduleChoice(
        lambda o, length: lr_scheduler.OneCycleLR(o, [group["lr"] for group in o.param_groups], length), "step"
    ),
    "step": ScheduleChoice(lambda o, length: lr_scheduler.StepLR(o, -(-length // 3)), "epoch"),
    "constant": ScheduleChoice(lambda o, _: lr_scheduler.ConstantLR(o, 1.0), "epoch"),
}


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Find ``name`` among the choices; "Leaky-ReLU" matches "leaky_relu".

    Raises:
        ArgumentError: no choice matches; the message has ``kind`` and lists the choices.
    """
    found = name.lower().replace("-", "_")
    choices = list(choices)
    if found not in choices:
        raise ArgumentError(f"unknown {kind} {name!r}; expected one of {', '.join(choices)}")
    return found


def choose_loss(name: str | None, task: str, classes: int) -> str:
    """The name of the loss, checked against the task; the default loss of the task if None.

    Raises:
        ArgumentError: the loss is unknown, or does not fit the task; the message lists the choices.
    """
    if name is None:
        return "cross_entropy" if task == "classification" else "mse"
    found = choose("loss", name, LOSSES)
    fitting = [n for n, loss in LOSSES.items() if loss.task == task or (loss.task == "binary" and classes == 2)]
    if found not in fitting:
        detail = f" into {classes} classes" if task == "classification" else ""
        raise ArgumentError(f"the loss {name!r} does not fit {task}{detail}; expected one of {', '.join(fitting)}")
    return found


def multilayer_perceptron(
    inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu", dropout: float = 0.0, device: Any = None,
    batch_norm: bool = False,
) -> nn.Sequential:  # fmt: skip
    """Linear layers, each but the last followed by optional batch norm, an activation and optional dropout.

    Args:
        inputs: number of input features.
        hidden: sizes of the hidden layers.
        outputs: number of outputs.
        activation: a key of ``ACTIVATIONS``.
        dropout: probability of dropping a hidden output; 0 adds no dropout layers.
        device: device of the parameters.
        batch_norm: normalise the hidden outputs before the activation.
    """
    modules: list[nn.Module] = []
    width = inputs
    for size in hidden:
        modules.append(nn.Linear(width, size, device=device))
        if batch_norm:
            modules.append(nn.BatchNorm1d(size, device=device))
        modules.append(ACTIVATIONS[activation]())
        if dropout:
            modules.append(nn.Dropout(dropout))
        width = size
    modules.append(nn.Linear(width, outputs, device=device))
    return nn.Sequential(*modules)
