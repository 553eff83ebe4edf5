"""Searches over hyperparameters of perceptrons in scikit-learn's manner, whose candidates train as stacks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy
import scipy.special
import scipy.stats
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunet.autograd import no_grad
from gpunet.backend import devices
from gpunet.data.randomness import preserved_globals
from gpunet.errors import ArgumentError, GpunetError
from gpunet.estimators.checks import FLAG, Rule, check_parameters, choice, is_whole, whole
from gpunet.nn import Sequential
from gpunet.ops.creation import as_tensor
from gpunet.sweeps.ranges import parse_ranges
from gpunet.sweeps.result import load_weights
from gpunet.sweeps.samplers import make_sampler
from gpunet.sweeps.training import Rows, Settings, build_net, divide, train_trials

__all__ = ["SweepClassifier", "SweepRegressor"]

_NONE_OR = Rule(lambda v: v is None or (is_whole(v) and v >= 1), "an integer of 1 or more, or None")


class _Sweep(BaseEstimator):
    """Base class of the searches."""

    _rules: ClassVar[Mapping[str, Rule]] = {
        "n_iter": whole(1),
        "sampler": choice("grid", "random", "optuna"),
        "epochs": whole(1),
        "patience": _NONE_OR,
        "halving": Rule(lambda v: v is None or (is_whole(v) and v >= 2), "an integer of 2 or more, or None"),
        "refit": FLAG,
        "stack_size": whole(1),
        "capture": choice("auto", "numba", "numpy"),
    }
    module_: Sequential

    def __init__(
        self, ranges: Any, *, n_iter: int = 64, sampler: str = "random", cv: Any = None, epochs: int = 30,
        patience: int | None = None, halving: int | None = None, refit: bool = True, stack_size: int = 64, random_state: Any = None,
        device: Any = "cpu", capture: str = "auto",
    ) -> None:  # fmt: skip
        self.ranges, self.n_iter, self.sampler, self.cv, self.epochs = ranges, n_iter, sampler, cv, epochs
        self.patience, self.halving, self.refit, self.stack_size = patience, halving, refit, stack_size
        self.random_state, self.device, self.capture = random_state, device, capture

    # -- of subclasses
    def _check_target(self, y: Any) -> numpy.ndarray:
        """Learn the classes, or the shape of the targets; return the targets of the networks."""
        raise NotImplementedError

    def _num_outputs(self) -> int:
        raise NotImplementedError

    _is_classifier: ClassVar[bool]

    # -- the search
    def _fit(self, x: Any, y: Any) -> Any:
        check_parameters(self, self._rules)
        ranges, name = parse_ranges(self.ranges), type(self).__name__
        is_numeric = not self._is_classifier
        x, y = validate_data(self, x, y, multi_output=is_numeric, y_numeric=is_numeric, dtype=numpy.float32)
        target = self._check_target(y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        folds = list(check_cv(self.cv, y, classifier=self._is_classifier).split(x, y))
        settings = Settings(
            self._num_outputs(), self.epochs, self.patience, self.halving, seed, str(self.device), self.capture, keeps_best=False
        )
        chosen = make_sampler(self.sampler, ranges, self.n_iter, seed)
        candidates: list[dict[str, Any]] = []
        scores, times = numpy.zeros((2, chosen.num_trials, len(folds)))
        while len(candidates) < chosen.num_trials:
            asked = chosen.ask(min(chosen.round_size, chosen.num_trials - len(candidates)))
            first = len(candidates)
            candidates += asked
            for fold, (train, test) in enumerate(folds):
                rows = Rows(x[train], target[train], x[test], target[test])
                for part in divide(asked, self.stack_size):
                    outcomes, _ = train_trials([asked[place] for place in part], rows, settings)
                    places = first + numpy.array(part)
                    scores[places, fold] = [outcome.score for outcome in outcomes]
                    times[places, fold] = outcomes[0].seconds / len(part)
            chosen.tell([-score for score in scores[first:].mean(1)[: len(asked)]])
        self.n_splits_ = len(folds)
        self.cv_results_ = _results(candidates, scores, times)
        means = self.cv_results_["mean_test_score"]
        if not numpy.isfinite(means).any():
            raise GpunetError(f"{name}: all candidates became infinite or NaN; scale the data, or try lower learning rates")
        self.best_index_ = int(numpy.nanargmax(means))
        self.best_params_, self.best_score_ = candidates[self.best_index_], float(means[self.best_index_])
        self.__dict__.pop("module_", None)  # of an earlier fit
        if self.refit:
            start = time.perf_counter()
            alone = settings._replace(patience=None, halving=None)
            _, weights = train_trials([self.best_params_], Rows(x, target, x, target), alone)
            with preserved_globals():
                self.module_ = build_net(self.best_params_, x.shape[1], self._num_outputs())
            load_weights(self.module_, [array[0] for array in weights])
            self.module_.to(devices.Device(self.device)).eval()
            self.refit_time_ = time.perf_counter() - start
        return self

    # -- predictions
    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cv_results_")

    @no_grad()
    def _outputs(self, x: Any) -> numpy.ndarray:
        check_is_fitted(self)
        if not hasattr(self, "module_"):
            raise ArgumentError(f"{type(self).__name__}: fitted with refit={self.refit}, so there is no network; pass refit=True")
        x = validate_data(self, x, reset=False, dtype=numpy.float32)
        found: numpy.ndarray = devices.to_host(self.module_(as_tensor(x, device=devices.Device(self.device))).array)
        return found


class SweepClassifier(ClassifierMixin, _Sweep):
    """A search over hyperparameters of perceptrons that classify, with GridSearchCV's results.

        search = SweepClassifier({"lr": "1e-4:1e-1:log", "hidden": ["32", "64"]}, n_iter=64, random_state=0).fit(X, y)
        search.best_params_, search.predict(X)

    The candidates of a fold train as stacks (:class:`gpunet.nn.Stack`), and the best one is trained again on all rows.

    Args:
        ranges: hyperparameter -> range, as of :func:`gpunet.sweep`.
        n_iter: number of candidates; of a grid the largest one.
        sampler: "grid", "random" or "optuna".
        cv: as of GridSearchCV: None (5 stratified folds), a number, a splitter, or pairs of row numbers.
        epochs: passes over the rows of a fold.
        patience: stop a candidate after so many epochs without a lower loss of the test rows.
        halving: keep the share 1 / halving of a stack after 1, halving, halving^2, ... epochs.
        refit: train the best candidate on all rows, for ``predict``.
        stack_size: the largest number of candidates in a stack.
        random_state: an int, a RandomState or None: sampler and order of the rows.
        device: "cpu", "cuda", "cuda:1", or "auto".
        capture: how steps run on the CPU: "auto", "numba" or "numpy".

    Attributes:
        cv_results_: dict of arrays, one entry for each candidate: "params", "param_<name>", "split<i>_test_score",
            "mean_test_score", "std_test_score", "rank_test_score", and the times of GridSearchCV; the time of a stack is divided by
            its candidates, and contains the scoring.
        best_index_, best_params_, best_score_, n_splits_, refit_time_: as of GridSearchCV.
        module_: the network that was trained on all rows.
        classes_: the classes, sorted.

    Raises:
        ArgumentError: a parameter is not valid.
        ValueError: the data are not valid; scikit-learn's messages.
        GpunetError: all candidates became infinite or NaN.
    """

    _is_classifier = True

    def fit(self, X: Any, y: Any) -> SweepClassifier:
        """Search, with X (n, f) numbers and y (n,) labels; return the estimator."""
        return self._fit(X, y)

    def _check_target(self, y: Any) -> numpy.ndarray:
        check_classification_targets(y)
        self.classes_, encoded = numpy.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ArgumentError(f"SweepClassifier: y has 1 class, {self.classes_[0]!r}; expected two or more")
        target: numpy.ndarray = encoded.astype(numpy.int64)
        return target

    def _num_outputs(self) -> int:
        return len(self.classes_)

    def predict_proba(self, X: Any) -> numpy.ndarray:
        """Return probabilities of the classes (n, c) for X (n, f)."""
        found: numpy.ndarray = scipy.special.softmax(self._outputs(X), axis=1)
        return found

    def predict(self, X: Any) -> numpy.ndarray:
        """Return labels (n,) for X (n, f)."""
        places = self._outputs(X).argmax(1)
        found: numpy.ndarray = self.classes_[places]
        return found


class SweepRegressor(RegressorMixin, _Sweep):
    """A search over hyperparameters of perceptrons that predict numbers, with GridSearchCV's results.

    The loss is the squared error, the score R².  Arguments and attributes are those of :class:`SweepClassifier`, without classes.
    """

    _is_classifier = False

    def fit(self, X: Any, y: Any) -> SweepRegressor:
        """Search, with X (n, f) and y (n,) or (n, k) numbers; return the estimator."""
        return self._fit(X, y)

    def _check_target(self, y: Any) -> numpy.ndarray:
        self._is_flat, target = y.ndim == 1, y.astype(numpy.float32).reshape(len(y), -1)
        self.n_outputs_: int = target.shape[1]
        found: numpy.ndarray = target
        return found

    def _num_outputs(self) -> int:
        return self.n_outputs_

    def predict(self, X: Any) -> numpy.ndarray:
        """Return numbers, (n,) or (n, k), for X (n, f)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs


def _results(candidates: Sequence[Mapping[str, Any]], scores: numpy.ndarray, times: numpy.ndarray) -> dict[str, Any]:
    """GridSearchCV's ``cv_results_`` of scores and times (candidates, folds)."""
    means = scores.mean(1)
    ranks = scipy.stats.rankdata(numpy.where(numpy.isnan(means), numpy.inf, -means), method="min").astype(numpy.int32)
    found: dict[str, Any] = {
        "mean_fit_time": times.mean(1), "std_fit_time": times.std(1), "mean_score_time": numpy.zeros(len(means)),
        "std_score_time": numpy.zeros(len(means)),
    }  # fmt: skip
    for name in candidates[0]:
        values = numpy.ma.masked_all(len(candidates), dtype=object)
        values[:] = [candidate[name] for candidate in candidates]
        found[f"param_{name}"] = values
    found["params"] = [dict(candidate) for candidate in candidates]
    found |= {f"split{fold}_test_score": of_fold for fold, of_fold in enumerate(scores.T)}
    return {**found, "mean_test_score": means, "std_test_score": scores.std(1), "rank_test_score": ranks}
