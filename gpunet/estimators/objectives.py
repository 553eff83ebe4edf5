"""Losses of rows and their means, weighted or not, and the targets that a loss takes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError
from gpunet.nn import functional
from gpunet.ops.creation import ones
from gpunet.ops.entropy import xlogy
from gpunet.ops.index import where

#: Losses of class indices (n,) and outputs (n, c), with the activation that makes probabilities of the outputs.
CLASS_LOSSES: dict[Any, str] = {
    nn.CrossEntropyLoss: "softmax", functional.cross_entropy: "softmax", nn.MultiMarginLoss: "softmax",
    functional.multi_margin_loss: "softmax", nn.NLLLoss: "exp", functional.nll_loss: "exp",
}  # fmt: skip
#: Losses of targets 0 and 1 and outputs, both (n, k), with the activation that makes probabilities of the outputs.
BINARY_LOSSES: dict[Any, str] = {
    nn.BCEWithLogitsLoss: "logistic", functional.binary_cross_entropy_with_logits: "logistic",
    nn.MultiLabelSoftMarginLoss: "logistic", functional.multilabel_soft_margin_loss: "logistic", nn.BCELoss: "identity",
    functional.binary_cross_entropy: "identity",
}  # fmt: skip
_NUMBER_FUNCTIONS = (
    functional.mse_loss, functional.l1_loss, functional.huber_loss, functional.smooth_l1_loss, functional.kl_div,
    functional.poisson_nll_loss, functional.soft_margin_loss, functional.hinge_embedding_loss, functional.multilabel_margin_loss,
)  # fmt: skip


def activation_in(losses: dict[Any, str], loss: Any) -> str | None:
    """Return the activation of a loss in ``CLASS_LOSSES`` or ``BINARY_LOSSES``; None if it is not there.

    Args:
        losses: the dict.
        loss: a module or its class, also a subclass; or a function, also with arguments by ``functools.partial``.
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    bases = function.__mro__ if isinstance(function, type) else (*type(function).__mro__, function)
    return next((activation for known, activation in losses.items() if any(known is base for base in bases)), None)


def takes_numbers(loss: Any) -> bool:
    """Whether a loss is one of gpunet's that takes neither class indices nor 0 and 1; the target of other losses is unknown."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    is_of_gpunet = type(function).__module__ == nn.MSELoss.__module__ or any(function is known for known in _NUMBER_FUNCTIONS)
    return is_of_gpunet and activation_in({**CLASS_LOSSES, **BINARY_LOSSES}, loss) is None


def name_of(loss: Any) -> str:
    """Return the name of a loss, for messages."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    return str(getattr(function, "__name__", type(function).__name__))


class RowLoss(NamedTuple):
    """A loss of (output, target)."""

    of_rows: Callable[[Any, Any], Tensor]  # (n,): a loss for each row
    mean: Callable[[Any, Any], Tensor]  # its mean over the rows
    counts: Callable[[Any, Any], Tensor] | None = None  # (n,): the share of each row in the divisor of the mean; None: 1 each


class WeightedMean(nn.Module):
    """The mean of a loss of (output, (target, weight)), with a weight for each row (n,).

    Args:
        loss: the loss of rows.
    """

    def __init__(self, loss: RowLoss) -> None:
        super().__init__()
        self._of_rows, self._counts = loss.of_rows, loss.counts

    def forward(self, output: Any, target: Any) -> Tensor:
        total = self.count(output, target)
        target, weight = target
        return (self._of_rows(output, target) * weight).sum() / where(total > 0.0, total, 1.0)

    def count(self, output: Any, target: Any) -> Tensor:
        """Return the divisor of the mean: the sum of the weights, each times the share of its row."""
        target, weight = target
        return (weight if self._counts is None else self._counts(output, target) * weight).sum()


def row_loss_of(loss: Callable[[Any, Any], Tensor], name: str) -> RowLoss:
    """The losses of rows of a loss such as ``nn.CrossEntropyLoss()``: the mean of a row's elements.

    Args:
        loss: a module or function of (output, target) that returns a mean.
        name: of the estimator, for messages.

    Raises:
        ArgumentError: the loss returns a sum, or the loss of each element.
    """
    if not hasattr(loss, "reduction"):

        def refuse(output: Any, target: Any) -> Tensor:
            raise ArgumentError(
                f"{name}: sample and class weights need a loss for each row, which {name_of(loss)} does not "
                "return: it has no reduction='none'; fit without weights, or pass a loss with an attribute `reduction`"
            )

        return RowLoss(refuse, loss)
    if loss.reduction not in ("mean", "batchmean"):
        raise ArgumentError(f"{name}: {name_of(loss)} has reduction={loss.reduction!r}; expected reduction='mean'")
    is_summed = loss.reduction == "batchmean"
    of_elements: Any = copy.deepcopy(loss)
    of_elements.reduction = "none"

    def of_rows(output: Any, target: Any) -> Tensor:
        found: Tensor = of_elements(output, target)
        found = found.reshape(len(found), -1)
        return found.sum(1) if is_summed else found.mean(1)

    def counts(output: Any, target: Any) -> Tensor:
        if is_floating(target.dtype):  # class probabilities
            return ones(len(target), dtype=output.dtype, device=output.device)
        is_counted = target != of_elements.ignore_index
        share = 1.0 if of_elements.weight is None else of_elements.weight[where(is_counted, target, 0)]
        return where(is_counted, share, 0.0).to(output.dtype)

    needs_counts = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and not (loss.weight is None and loss.ignore_index < 0)
    return RowLoss(of_rows, loss, counts if needs_counts else None)


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
