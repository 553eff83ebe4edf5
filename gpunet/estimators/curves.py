"""The curves of a training, and when to stop it: scikit-learn's rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from gpunet.train.callbacks import Callback

if TYPE_CHECKING:
    from gpunet.autograd import Tensor
    from gpunet.estimators.base import NetworkEstimator
    from gpunet.train.trainer import Trainer


class Validation(NamedTuple):
    """The rows that are set aside."""

    x: Any
    target: numpy.ndarray
    labels: Any  # as the user passed them: (v,) or (v, k)
    weight: numpy.ndarray | None
    loss: Callable[[Any, Any], Tensor]  # that of training


class Curves(Callback):
    """Append the figures of each epoch to the attributes of an estimator, and keep the weights of the best score.

    Args:
        estimator: with ``loss_curve_`` and so on.
        validation: the rows to score the network on, or None.
        penalty: returns the summand of an epoch's loss that is no loss of its rows.
        stops: whether the training loss ends the training, too, if it does not fall any more.
        end_epoch: called at the end of each epoch with the trainer, and whether it is time to stop; returns whether to stop.
    """

    def __init__(
        self, estimator: NetworkEstimator, validation: Validation | None, *, penalty: Callable[[], float], stops: bool,
        end_epoch: Callable[[Trainer, bool], bool],
    ) -> None:  # fmt: skip
        self._estimator, self._validation, self._penalty, self._stops = estimator, validation, penalty, stops
        self._end_epoch = end_epoch
        self._best: dict[str, Any] | None = None

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> bool:
        estimator = self._estimator
        estimator.n_iter_ += 1
        estimator.loss_ = row["train_loss"] + self._penalty()
        estimator.loss_curve_.append(estimator.loss_)
        is_better = self._take_loss(estimator.loss_) if self._validation is None else self._take_score(self._validation)
        estimator._num_waited = 0 if is_better else estimator._num_waited + 1
        is_due = (self._stops or self._validation is not None) and estimator._num_waited > estimator.n_iter_no_change
        stops = self._end_epoch(trainer, is_due)
        if is_due and not stops:
            estimator._num_waited = 0
        return stops

    def _take_loss(self, loss: float) -> bool:
        """Compare the training loss with the best one; return whether it is lower by ``tol``."""
        estimator = self._estimator
        best = math.inf if estimator.best_loss_ is None else estimator.best_loss_
        estimator.best_loss_ = min(best, loss)
        return loss <= best - estimator.tol

    def _take_score(self, validation: Validation) -> bool:
        """Score the validation rows; return whether the score is higher than the best one by ``tol``."""
        estimator: Any = self._estimator
        loss, score = estimator._evaluate(validation)
        estimator.validation_losses_.append(loss)
        estimator.validation_scores_.append(score)
        best = estimator.best_validation_score_
        is_better = score >= best + estimator.tol
        if score > best:
            estimator.best_validation_score_ = score
            self._best = {name: value.detach().clone() for name, value in estimator.module_.state_dict().items()}
        return is_better

    def on_end(self, trainer: Trainer) -> None:
        if self._best is not None:
            self._estimator.module_.load_state_dict(self._best)
