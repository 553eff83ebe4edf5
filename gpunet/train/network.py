"""What the command line offers by name: activations, losses, optimizers; and the network made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gpunet import nn, optim
from gpunet.errors import ArgumentError
from gpunet.optim import lr_scheduler

__all__ = ["ACTIVATIONS", "LOSSES", "OPTIMIZERS", "SCHEDULES", "multilayer_perceptron"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


class Loss(NamedTuple):
    """A loss and the task that it is for."""

    make: Callable[[], nn.Module]
    task: str  # "classification" | "binary" (two classes, one output) | "regression"


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(nn.CrossEntropyLoss, "classification"),
    "bce": Loss(nn.BCEWithLogitsLoss, "binary"),
    "mse": Loss(nn.MSELoss, "regression"),
    "mae": Loss(nn.L1Loss, "regression"),
    "huber": Loss(nn.HuberLoss, "regression"),
}


class OptimizerChoice(NamedTuple):
    """An optimizer, the learning rate that it starts with, and its other options."""

    make: Callable[..., optim.Optimizer]
    learning_rate: float
    options: Mapping[str, Any]


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "adam": OptimizerChoice(optim.Adam, 3e-3, {}),
    "adamw": OptimizerChoice(optim.AdamW, 3e-3, {}),
    "sgd": OptimizerChoice(optim.SGD, 0.05, {"momentum": 0.9}),
}


class ScheduleChoice(NamedTuple):
    """A schedule of the learning rate, made of (optimizer, epochs, batches of an epoch), and after what it steps."""

    make: Callable[[optim.Optimizer, int, int], lr_scheduler.LRScheduler]
    after: str  # "epoch" | "batch"


SCHEDULES: dict[str, ScheduleChoice] = {
    "cosine": ScheduleChoice(lambda o, epochs, _: lr_scheduler.CosineAnnealingLR(o, epochs), "epoch"),
    "onecycle": ScheduleChoice(
        lambda o, epochs, batches: lr_scheduler.OneCycleLR(o, [group["lr"] for group in o.param_groups], epochs * batches),
        "batch",
    ),
    "step": ScheduleChoice(lambda o, epochs, _: lr_scheduler.StepLR(o, -(-epochs // 3)), "epoch"),
    "constant": ScheduleChoice(lambda o, *_: lr_scheduler.ConstantLR(o, 1.0), "epoch"),
}


def choose(what: str, name: str, choices: Iterable[str]) -> str:
    """``name`` as it stands among the choices; "leaky-relu" finds "leaky_relu".

    Raises:
        ArgumentError: it is none of them; the message lists them.
    """
    found = name.lower().replace("-", "_")
    choices = list(choices)
    if found not in choices:
        raise ArgumentError(f"unknown {what} {name!r}; expected one of {', '.join(choices)}")
    return found


def choose_loss(name: str | None, task: str, classes: int) -> str:
    """The loss of that name, or the usual one of the task when None.

    Raises:
        ArgumentError: unknown, or made for another task; the message lists those that fit.
    """
    if name is None:
        return "cross_entropy" if task == "classification" else "mse"
    found = choose("loss", name, LOSSES)
    fitting = [n for n, loss in LOSSES.items() if loss.task == task or (loss.task == "binary" and classes == 2)]
    if found not in fitting:
        of = f" into {classes} classes" if task == "classification" else ""
        raise ArgumentError(f"the loss {name!r} does not fit {task}{of}; expected one of {', '.join(fitting)}")
    return found


def multilayer_perceptron(
    inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu", dropout: float = 0.0, device: Any = None
) -> nn.Sequential:
    """Linear layers with an activation, and dropout if asked for, behind each but the last."""
    modules: list[nn.Module] = []
    width = inputs
    for size in hidden:
        modules += [nn.Linear(width, size, device=device), ACTIVATIONS[activation]()]
        if dropout:
            modules.append(nn.Dropout(dropout))
        width = size
    modules.append(nn.Linear(width, outputs, device=device))
    return nn.Sequential(*modules)
