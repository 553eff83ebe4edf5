"""Loss and metrics of a model over a data set, in evaluation mode."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError
from gpunet.nn import Module
from gpunet.train.batches import Placement
from gpunet.train.figures import Figure, as_number, figures_of, merged
from gpunet.train.losses import CountedLoss
from gpunet.train.modes import evaluating
from gpunet.train.sharing import Sharing

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
    function: str, sharing: Sharing | None = None,
) -> dict[str, float]:  # fmt: skip
    """:func:`evaluate` on batches that ``place`` moves to the device of the model.

    Args:
        function: that the user called.
        sharing: the processes that share each batch; all of them get the figures of all rows.
    """
    for figure in figures.values():
        figure.reset()
    shards = [_Shard(dict(figures))]
    if sharing is not None:
        shards += [_Shard(copy.deepcopy(dict(figures))) for _ in range(sharing.num_own - 1)]
    is_empty = True
    modules = [model, *([counted.mean] if isinstance(counted.mean, Module) else [])]
    with evaluating(*modules), no_grad():
        for shares, batches in _parts(data, sharing):
            is_empty = False
            for shard, batch in zip((s for s, (_, rows) in zip(shards, shares) if rows), batches, strict=True):
                *inputs, target = place(batch, function)
                output = model(*inputs)
                added, weight = counted.total(output, target)
                shard.total, shard.count = shard.total + added.double(), shard.count + weight
                for figure in shard.figures.values():
                    figure.update(output, target)
    if is_empty:
        raise ArgumentError(f"{function}: the data to evaluate on have no batch")
    found = [(as_number(s.total), as_number(s.count), s.figures) for s in shards]
    found = found if sharing is None else sharing.gather(found)
    together = found[0][2] if len(found) == 1 else merged([each[2] for each in found])
    loss = ratio(sum(each[0] for each in found), sum(each[1] for each in found))
    return {"loss": loss, **{name: figure.compute(function) for name, figure in together.items()}}


class _Shard:
    """The sums of an evaluation."""

    def __init__(self, figures: dict[str, Figure]) -> None:
        self.total: Any = 0.0
        self.count: Any = 0.0
        self.figures = figures


def _parts(data: Iterable[Any], sharing: Sharing | None) -> Iterator[tuple[Any, list[Any]]]:
    """For each batch the shares of this process, and the batches of those that have rows."""
    if sharing is None:
        yield from ((((0, 1),), [batch]) for batch in data)
    else:
        yield from ((parts.shares, parts.batches) for parts in sharing.parts(data))


def ratio(total: Any, count: Any) -> float:
    """Return total / count, NaN if nothing was counted; reads both from the device."""
    number = as_number(count)
    return as_number(total) / number if number else math.nan
