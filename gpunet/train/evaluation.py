"""Loss and metrics of a model over a data set, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError
from gpunet.nn import Module
from gpunet.train.batches import Placement
from gpunet.train.figures import Figure, as_number, figures_of
from gpunet.train.losses import CountedLoss
from gpunet.train.modes import evaluating

__all__ = ["evaluate"]


def evaluate(
    model: Module, loss: Callable[[Any, Any], Tensor], data: Iterable[Any], metrics: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Compute the loss and metrics of a model over batches, in evaluation mode.

    Each figure is that of all samples together, whatever the sizes of the batches.

    Args:
        model: called with the inputs of a batch.
        loss: called with the output and the target; see :class:`Trainer`.
        data: batches of (inputs, target).
        metrics: objects with ``reset()``, ``update(output, target)`` and ``compute()``, by name.

    Returns:
        "loss", and the value of each metric by its name.

    Raises:
        ArgumentError: the data have no batch, or an argument is of another kind.
    """
    figures = figures_of(metrics, "evaluate")
    return evaluate_on(Placement(model), model, CountedLoss(loss, function="evaluate"), data, figures, "evaluate")


def evaluate_on(
    place: Placement, model: Module, counted: CountedLoss, data: Iterable[Any], figures: Mapping[str, Figure],
    function: str,
) -> dict[str, float]:  # fmt: skip
    """:func:`evaluate` on batches that ``place`` moves to the device of the model; ``function`` is that the user called."""
    for figure in figures.values():
        figure.reset()
    total: Any = 0.0
    count: Any = 0.0
    is_empty = True
    parts = [model, *([counted.mean] if isinstance(counted.mean, Module) else [])]
    with evaluating(*parts), no_grad():
        for batch in data:
            is_empty = False
            *inputs, target = place(batch, function)
            output = model(*inputs)
            added, weight = counted.total(output, target)
            total, count = total + added.double(), count + weight
            for figure in figures.values():
                figure.update(output, target)
    if is_empty:
        raise ArgumentError(f"{function}: the data to evaluate on have no batch")
    return {"loss": ratio(total, count), **{name: figure.compute(function) for name, figure in figures.items()}}


def ratio(total: Any, count: Any) -> float:
    """Return total / count, NaN if nothing was counted; reads both from the device."""
    number = as_number(count)
    return as_number(total) / number if number else math.nan
