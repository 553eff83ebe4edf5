"""Why a training loss is not finite: values in the data, or a network that diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_inexact
from gpunet.data import TensorDataset
from gpunet.errors import DataError, GpunetError
from gpunet.nn import Module
from gpunet.optim import Optimizer


def explain_loss(
    loss: float, epoch: int, model: Module, optimizer: Optimizer, batches: Iterable[Any], place: Callable[[Any], list[Any]]
) -> GpunetError:
    """Return the error for a training loss that is not finite.

    Args:
        batches: the training data, which are searched if they can be passed over again.
        place: makes a batch a list, the inputs and then the target.
    """
    begin = f"the training loss became {loss} in epoch {epoch}"
    if where := _search(batches, place):
        return DataError(f"{begin}: {where}; fill in or leave out such rows")
    named = ((name, p) for name, p in model.named_parameters() if not p.isfinite().all().item())
    name = next((f"; its parameter {name!r} is not finite" for name, _ in named), "")
    rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups)
    return GpunetError(
        f"{begin}: the network diverged{name}. Try a learning rate below {rates}, and check the data for extreme values"
    )


def _search(batches: Iterable[Any], place: Callable[[Any], list[Any]]) -> str:
    """The first value of the batches that is not finite, in words, by its place in the data set if that is known; "" if none is."""
    if iter(batches) is batches:
        return ""
    found = next((found for number, batch in enumerate(batches) for found in _found(f" of batch {number}", place(batch))), "")
    dataset = getattr(batches, "dataset", None)
    if found and isinstance(dataset, TensorDataset):  # whose rows a sampler shuffles, or leaves out
        return next(_found("", list(dataset.tensors)), found)
    return found


def _found(place: str, parts: list[Any]) -> Iterator[str]:
    for number, value in enumerate(parts):
        if not isinstance(value, Tensor) or not is_inexact(value.array.dtype) or value.isfinite().all().item():
            continue
        values = value.detach().cpu().numpy()
        at = [int(i) for i in numpy.argwhere(~numpy.isfinite(values))[0]]
        name = "the targets" if number == len(parts) - 1 else "the inputs" if len(parts) == 2 else f"the inputs {number}"
        yield f"{name}{place} have a value that is not finite, {values[tuple(at)]} at {at}"
