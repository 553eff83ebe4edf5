"""A loss with what its mean divides by, so that the figures and gradients of batches add up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn import functional
from gpunet.ops.index import where

_MEANS = ("mean", "batchmean")

#: Functions whose mean divides by the same number as that of a module.
_MODULES: dict[Any, type[Any]] = {
    functional.cross_entropy: nn.CrossEntropyLoss, functional.nll_loss: nn.NLLLoss, functional.mse_loss: nn.MSELoss,
    functional.l1_loss: nn.L1Loss, functional.huber_loss: nn.HuberLoss, functional.smooth_l1_loss: nn.SmoothL1Loss,
    functional.binary_cross_entropy: nn.BCELoss, functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}  # fmt: skip


class CountedLoss:
    """The mean, count and sum of a loss over a batch.

    Args:
        loss: a module or function of (output, target) that returns a mean.
        count: a function of (output, target): what the mean divides by.  By default the loss's own method ``count``, or else the
            number of rows of the target.
        function: that the user called, for error messages.

    Raises:
        ArgumentError: the loss returns a sum, or a loss for each element, or is no function of (output, target).
    """

    def __init__(
        self, loss: Callable[[Any, Any], Tensor], count: Callable[[Any, Any], Any] | None = None, function: str = "Trainer"
    ) -> None:
        if isinstance(loss, type):
            raise ArgumentError(f"{function}: the loss is the class {loss.__name__}; expected an object: {loss.__name__}()")
        reduction = getattr(loss, "reduction", "mean")
        if not callable(loss) or reduction not in _MEANS:
            found = f"reduction={reduction!r}" if callable(loss) else repr(loss)
            raise ArgumentError(
                f"{function}: the loss has {found}; expected a loss with reduction='mean', which is weighted by what it divides by"
            )
        if count is not None and not callable(count):
            raise ArgumentError(f"{function}: count={count!r}; expected a function of (output, target), or None")
        if not _takes_two(loss):
            name = getattr(loss, "__name__", type(loss).__name__)
            raise ArgumentError(f"{function}: the loss {name} cannot be called as loss(output, target)")
        self.mean = loss
        counter = _MODULES[loss]() if loss in _MODULES else loss
        self.count: Callable[[Any, Any], Any] = count or getattr(counter, "count", None) or _num_rows
        self._total = getattr(counter, "total", None) if count is None else None

    def total(self, output: Any, target: Any) -> tuple[Tensor, Any]:
        """Return the sum over the batch, whose gradients add up over batches, and the count."""
        if self._total is not None:
            total, count = self._total(output, target)
        else:
            count = self.count(output, target)
            total = self.mean(output, target) * count
        return zero_if_uncounted(total, count), count


def zero_if_uncounted(total: Tensor, count: Any) -> Tensor:
    """Return the sum of a loss, or 0 if it counts nothing: the mean of ignored labels, or of no rows, is NaN."""
    if isinstance(count, Tensor):
        return where(count > 0, total, 0.0)
    return total if count > 0 else where(False, total, 0.0)


def _takes_two(function: Any) -> bool:
    """Whether a function or module can be called with two positional arguments, as far as its signature is known."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def _num_rows(output: Any, target: Any) -> int:
    return len(target[0] if isinstance(target, (list, tuple)) else target)
