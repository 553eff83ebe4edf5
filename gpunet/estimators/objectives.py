"""Losses as the mean over rows, weighted where the rows have weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn import functional
from gpunet.ops.entropy import xlogy
from gpunet.ops.index import where


class RowLoss(NamedTuple):
    """A loss of (output, target)."""

    of_rows: Callable[[Any, Any], Tensor]  # (n,): a loss for each row
    mean: Callable[[Any, Any], Tensor]  # its mean over the rows


class Objective(nn.Module):
    """The mean of a loss over the rows; with a target (target, weights) the mean weighted by (n,) weights.

    Args:
        loss: the loss of rows.
    """

    def __init__(self, loss: RowLoss) -> None:
        super().__init__()
        self._of_rows, self._mean = loss

    def forward(self, output: Any, target: Any) -> Tensor:
        if isinstance(target, tuple):
            target, weight = target
            total = weight.sum()
            return (self._of_rows(output, target) * weight).sum() / where(total > 0.0, total, 1.0)
        return self._mean(output, target)

    def count(self, output: Any, target: Any) -> Tensor | int:
        """Return the sum of the weights, or the number of rows."""
        return target[1].sum() if isinstance(target, tuple) else len(target)


def row_loss_of(loss: Callable[[Any, Any], Tensor], name: str) -> RowLoss:
    """The losses of rows of a loss such as ``nn.CrossEntropyLoss()``: the mean of a row's elements.

    Args:
        loss: a module or function of (output, target) that returns a mean.
        name: of the estimator, for messages.
    """
    if not hasattr(loss, "reduction"):

        def refuse(output: Any, target: Any) -> Tensor:
            raise ArgumentError(
                f"{name}: sample and class weights need a loss for each row, which {getattr(loss, '__name__', loss)} does not "
                "return: it has no reduction='none'; fit without weights, or pass a loss with an attribute `reduction`"
            )

        return RowLoss(refuse, loss)
    of_elements: Any = copy.deepcopy(loss)
    of_elements.reduction = "none"

    def of_rows(output: Any, target: Any) -> Tensor:
        found: Tensor = of_elements(output, target)
        return found.reshape(len(found), -1).mean(1)

    return RowLoss(of_rows, loss)


def _summed(of_elements: Callable[[Any, Any], Tensor]) -> RowLoss:
    """The sum of a row's elements."""

    def of_rows(output: Any, target: Any) -> Tensor:
        return of_elements(output, target).sum(1)

    def mean(output: Any, target: Any) -> Tensor:
        return of_elements(output, target).sum() / len(target)

    return RowLoss(of_rows, mean)


def _squared_error(output: Any, target: Any) -> Tensor:
    return 0.5 * functional.mse_loss(output, target, reduction="none")


def _mean_squared_error(output: Any, target: Any) -> Tensor:
    return functional.mse_loss(output, target) * (0.5 * output.shape[1])


def _binary_log_loss(output: Any, target: Any) -> Tensor:
    return functional.binary_cross_entropy_with_logits(output, target, reduction="none")


def _mean_binary_log_loss(output: Any, target: Any) -> Tensor:
    mean = functional.binary_cross_entropy_with_logits(output, target)
    return mean if output.shape[1] == 1 else mean * output.shape[1]


def _log_loss(output: Any, target: Any) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


def _poisson(output: Any, target: Any) -> Tensor:
    return output.exp() - target * output + (xlogy(target, target) - target)


def _absolute_error(output: Any, target: Any) -> Tensor:
    return functional.l1_loss(output, target, reduction="none")


def _huber(output: Any, target: Any) -> Tensor:
    return functional.huber_loss(output, target, reduction="none")


#: Of logits and labels (n,).
LOG_LOSS = RowLoss(_log_loss, functional.cross_entropy)
#: Of logits and 0 or 1, both (n, k).
BINARY_LOG_LOSS = _summed(_binary_log_loss)._replace(mean=_mean_binary_log_loss)
#: Of outputs and targets, both (n, k), by scikit-learn's names; the first two are its halves of squared error and Poisson deviance.
REGRESSION_LOSSES = {
    "squared_error": _summed(_squared_error)._replace(mean=_mean_squared_error),
    "poisson": _summed(_poisson),
    "absolute_error": _summed(_absolute_error),
    "huber": _summed(_huber),
}
