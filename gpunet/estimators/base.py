"""Base classes of the estimators: checks, training of a module by a Trainer, predictions, and pickling of states."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy
import scipy.sparse
import scipy.special
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunet.autograd import Tensor, no_grad
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.captured.ir import tree_map
from gpunet.data.randomness import OwnRandomness, preserved_globals
from gpunet.distributed.process_group import ProcessGroup
from gpunet.errors import ArgumentError, DeviceError, GpunetError, ShapeError
from gpunet.estimators.batches import Batches
from gpunet.estimators.checks import Rule, check_parameters, check_weights
from gpunet.estimators.curves import Curves, Validation
from gpunet.estimators.labels import Labels
from gpunet.estimators.objectives import (
    BINARY_LOSSES,
    CLASS_LOSSES,
    RowLoss,
    WeightedMean,
    activation_in,
    name_of,
    takes_numbers,
)
from gpunet.estimators.threads import training
from gpunet.launch.tape import warn_user
from gpunet.nn import Module
from gpunet.ops.creation import as_tensor
from gpunet.ops.join import cat
from gpunet.optim import Optimizer
from gpunet.train.fit import FitTrainer
from gpunet.train.modes import evaluating
from gpunet.train.trainer import Trainer

#: Functions from outputs (n, k) to predictions.
ACTIVATIONS: dict[str, Callable[[numpy.ndarray], numpy.ndarray]] = {
    "identity": lambda outputs: outputs,
    "logistic": scipy.special.expit,
    "softmax": lambda outputs: scipy.special.softmax(outputs, axis=1),
    "exp": numpy.exp,
}
#: Activations of networks with one output for each class.
_OF_CLASSES = ("softmax", "exp")
#: Rows of a prediction that are on the device at once.
_CHUNK = 8192
#: Smallest number of steps of a training whose step is recorded: a recording takes the time of some eager steps.
_LEAST_RECORDED = 32


class NetworkEstimator(BaseEstimator):
    """Base class of the estimators.

    A subclass builds the network, its loss and its optimizer; a mixin says whether the targets are labels or numbers.
    """

    _rules: ClassVar[Mapping[str, Rule]]
    module_: Module
    out_activation_: str

    # -- of subclasses
    def _build_module(self, random_state: numpy.random.RandomState | None) -> Module:
        """Return the network on the device, with initial weights from ``random_state``, or with any if it is None."""
        raise NotImplementedError

    def _build_optimizer(self, module: Module) -> Optimizer:
        """Return the optimizer of a network."""
        raise NotImplementedError

    def _row_loss(self) -> RowLoss:
        """Return the loss, on the device."""
        raise NotImplementedError

    def _choose_activation(self) -> str:
        """Return the key in ``ACTIVATIONS`` of the function from outputs to predictions, of a classifier to probabilities."""
        raise NotImplementedError

    def _resolve_dtype(self, x: Any) -> numpy.dtype[Any] | None:
        """Return the dtype of the network for these inputs; None leaves inputs and network as they are."""
        raise NotImplementedError

    def _num_epochs(self) -> int:
        """Return the largest number of passes over the data."""
        raise NotImplementedError

    def _trainer_options(self) -> dict[str, Any]:
        """Return further options of the Trainer."""
        return {}

    # -- data
    def _check_x(self, x: Any, *, reset: bool, **options: Any) -> Any:
        """Return X, and y if it is among the options, as arrays; X is (n, f), dense or csr."""
        allowed = {"accept_sparse": "csr", "dtype": (numpy.float64, numpy.float32)}
        return validate_data(self, x, reset=reset, **{**allowed, **options})

    def _check_target(self, y: Any, *, starts_anew: bool, incremental: bool, classes: Any) -> numpy.ndarray:
        """Learn the classes, or the number of targets, if training starts anew; return the targets of the network."""
        raise NotImplementedError

    def _rows_on_device(self, x: Any) -> Iterator[Tensor]:
        """Yield the rows of X in chunks."""
        for start in range(0, x.shape[0], _CHUNK):
            rows = x[start : start + _CHUNK]
            rows = rows.toarray() if scipy.sparse.issparse(rows) else rows
            yield as_tensor(self._cast(rows), device=self._device)

    def _cast(self, x: Any) -> Any:
        """Cast an array to the dtype of the network."""
        return x if self._dtype is None else x.astype(self._dtype, copy=False)

    def _place_loss(self, loss: Any) -> Any:
        """Return a copy of a loss whose buffers, such as weights of classes, have device and dtype of the network."""
        if not isinstance(loss, Module):
            return loss
        placed = copy.deepcopy(loss)
        return placed.to(self._device) if self._dtype is None else placed.to(self._device, self._dtype)

    # -- training
    def _make_loss(self, is_weighted: bool) -> Callable[[Any, Any], Tensor]:
        """Return the loss of (output, target), or of (output, (target, weight))."""
        loss = self._row_loss()
        return WeightedMean(loss) if is_weighted else loss.mean

    def _fit(self, x: Any, y: Any, sample_weight: Any, *, incremental: bool = False, classes: Any = None) -> Any:
        """Train on rows.

        Args:
            x: (n, f), dense or sparse.
            y: (n,) or (n, k).
            sample_weight: (n,), or None.
            incremental: pass over the rows once, and continue an earlier training.
            classes: all classes, if ``y`` may lack some.
        """
        with training():
            check_parameters(self, self._rules)
            starts_anew = not hasattr(self, "module_") or not (incremental or self.warm_start)
            try:
                self._fit_checked(x, y, sample_weight, classes, starts_anew, incremental)
            except BaseException:
                if starts_anew:
                    self.__dict__.pop("module_", None)  # or it would predict from weights that are not trained
                raise
        return self

    def _fit_checked(self, x: Any, y: Any, sample_weight: Any, classes: Any, starts_anew: bool, incremental: bool) -> None:
        """Check the data and train, given checked parameters; see :meth:`_fit`."""
        x, y = self._check_x(x, y=y, reset=starts_anew, **self._options_of_y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y.toarray() if scipy.sparse.issparse(y) else y, warn=True)
        weight = check_weights(sample_weight, x.shape[0], type(self).__name__)
        target = self._check_target(y, starts_anew=starts_anew, incremental=incremental, classes=classes)
        if not starts_anew and self._choose_activation() != self.out_activation_:
            raise ArgumentError(
                f"{type(self).__name__}: the loss that was set after the first training changes the activation of the outputs from "
                f"{self.out_activation_!r} to {self._choose_activation()!r}; call fit() with warm_start=False"
            )
        weight = self._with_class_weight(weight, y, target, incremental)
        if starts_anew or not incremental:  # else those of the optimizer's state
            self._device = self._resolve_device()
            self._dtype = self._resolve_dtype(x)
        x = self._cast(x)
        weight = None if weight is None else weight.astype(self._dtype or numpy.float32)
        random_state = _random_state_of(self.random_state)
        if starts_anew:
            self._begin()
            self._module_params = self.get_params(deep=False)
        elif not incremental:
            self.module_.to(self._device, self._dtype)
        with OwnRandomness(_digest(random_state, self.t_)):
            module = self._build_module(random_state) if starts_anew else self.module_
            target = self._shape_target(module, x, target)
            self.module_ = module.train()
            try:
                self._train(x, target, y, weight, random_state, incremental)
            finally:
                module.eval()
        self._check_finite()

    _options_of_y: ClassVar[dict[str, Any]]  # of validate_data

    def _resolve_device(self) -> Device:
        return Device(self.device)

    def _with_class_weight(
        self, weight: numpy.ndarray | None, y: Any, target: numpy.ndarray, incremental: bool
    ) -> numpy.ndarray | None:
        """Multiply the weights of the rows by those of their classes, if the targets are classes."""
        return weight

    def _begin(self) -> None:
        """Forget the curves of an earlier training."""
        self.n_iter_ = self.t_ = self._num_waited = 0
        self.loss_curve_: list[float] = []
        self.best_loss_: float | None = None
        self.validation_scores_: list[float] | None = None
        self.validation_losses_: list[float] | None = None
        self.best_validation_score_: float | None = None
        self._optimizer: Optimizer | None = None

    def _shape_target(self, module: Module, x: Any, target: numpy.ndarray) -> numpy.ndarray:
        """Return the targets in the shape of the outputs of the module."""
        return target

    def _train(
        self, x: Any, target: numpy.ndarray, y: Any, weight: numpy.ndarray | None, random_state: numpy.random.RandomState,
        incremental: bool,
    ) -> None:  # fmt: skip
        """Train by a Trainer, on the rows that are not set aside."""
        loss, validation = self._make_loss(weight is not None), None
        if self.early_stopping:
            if incremental:
                raise ArgumentError("partial_fit: early_stopping=True, but one pass does not stop early; pass early_stopping=False")
            x, target, weight, validation = self._set_aside(x, target, y, weight, random_state, loss)
            if self.validation_scores_ is None:
                self.validation_scores_, self.validation_losses_, self.best_validation_score_ = [], [], -math.inf
        if not incremental or self._optimizer is None:
            self._optimizer, self._optimizer_params = self._build_optimizer(self.module_), self.get_params(deep=False)
        optimizer = self._optimizer
        batches = Batches(
            x, target, weight, batch_size=self._batch_size(len(target)), device=self._device,
            random_state=random_state if self.shuffle else None, leaves_out_single=self._needs_pairs(),
            before_batch=lambda size: self._before_batch(optimizer, size),
        )  # fmt: skip
        total = float(len(target) if weight is None else weight.sum())
        epochs = 1 if incremental else self._num_epochs()
        self.n_iter_ = 0

        def end_epoch(trainer: Trainer, is_due: bool) -> bool:
            self.t_ += batches.num_rows
            return self._end_epoch(optimizer, is_due) or incremental

        curves = Curves(
            self, validation, penalty=lambda: self._penalty(len(batches) / total), stops=self._stops_by_loss, end_epoch=end_epoch
        )
        options = self._trainer_options()
        trainer = FitTrainer(
            self.module_, loss, optimizer, restore_best=False, progress=bool(self.verbose),
            capture=self.capture if epochs * len(batches) >= _LEAST_RECORDED else False, process_group=ProcessGroup.alone(),
            callbacks=[curves, *options.pop("callbacks", ())], **options,
        )  # fmt: skip
        history = trainer.fit(batches, epochs=epochs)
        if history.ending == "interrupted":
            warn_user(f"{type(self).__name__}: training was interrupted after {self.n_iter_} epochs; it has the weights of then")
        elif history.ending == "finished" and not incremental:
            self._warn_of_no_convergence(epochs)

    _stops_by_loss = True  # whether training ends when the training loss does not fall any more

    def _set_aside(
        self, x: Any, target: numpy.ndarray, y: Any, weight: numpy.ndarray | None, random_state: numpy.random.RandomState,
        loss: Callable[[Any, Any], Tensor],
    ) -> tuple[Any, numpy.ndarray, numpy.ndarray | None, Validation]:  # fmt: skip
        """Split the rows into those to train on and those to score on, as scikit-learn's perceptrons do."""
        count = math.ceil(self.validation_fraction * len(target))
        if count < 2:
            raise ArgumentError(
                f"{type(self).__name__}: validation_fraction={self.validation_fraction} sets {count} of {len(target)} rows aside; "
                "expected two or more: increase validation_fraction, or pass more rows"
            )
        train, held_out = train_test_split(
            numpy.arange(len(target)), random_state=random_state, test_size=self.validation_fraction, stratify=self._strata(y)
        )
        parts = [None if weight is None else weight[rows] for rows in (train, held_out)]
        return x[train], target[train], parts[0], Validation(x[held_out], target[held_out], y[held_out], parts[1], loss)

    def _strata(self, y: Any) -> Any:
        return None

    def _batch_size(self, num_rows: int) -> int:
        return min(200 if isinstance(self.batch_size, str) else int(self.batch_size), num_rows)

    def _needs_pairs(self) -> bool:
        """Whether a batch of one row cannot be trained on."""
        return False

    def _before_batch(self, optimizer: Optimizer, size: float) -> None:
        """Called before each step.

        Args:
            optimizer: of the training.
            size: the number of rows of the batch, or the sum of their weights.
        """

    def _penalty(self, batches_per_row: float) -> float:
        """Return the summand of an epoch's loss that is no loss of its rows."""
        return 0.0

    def _end_epoch(self, optimizer: Optimizer, is_due: bool) -> bool:
        """Change the learning rate; return whether training stops, given whether it is due."""
        return is_due

    def _warn_of_no_convergence(self, epochs: int) -> None:
        """Called if the number of epochs has ended the training."""

    def _check_finite(self) -> None:
        for name, parameter in self.module_.named_parameters():
            if not parameter.isfinite().all().item():
                raise GpunetError(
                    f"{type(self).__name__}: training made the parameter {name!r} infinite or NaN; scale the data, such as by "
                    "StandardScaler, or try a lower learning rate"
                )

    def _evaluate(self, validation: Validation) -> tuple[float, float]:
        """Return the loss and the score of validation rows."""
        output = self._forward(self.module_, validation.x)
        target: Any = as_tensor(validation.target, device=self._device)
        if validation.weight is not None:
            target = target, as_tensor(validation.weight, device=self._device)
        with no_grad():
            loss = validation.loss(output, target).item()
        outputs = devices.to_host(output.array)
        if not numpy.isfinite(outputs).all():
            return loss, math.nan
        return loss, float(self._score_function(validation.labels, self._decode(outputs), sample_weight=validation.weight))

    _score_function: Any

    # -- predictions
    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def _forward(self, module: Module, x: Any) -> Tensor:
        """Return the outputs of a network, in evaluation mode."""
        with evaluating(module), no_grad():
            return cat([module(rows) for rows in self._rows_on_device(x)])

    def _outputs(self, x: Any) -> numpy.ndarray:
        """Check X, and return the outputs of the network for it."""
        check_is_fitted(self)
        found: numpy.ndarray = devices.to_host(self._forward(self.module_, self._check_x(x, reset=False)).array)
        return found

    def _decode(self, outputs: numpy.ndarray) -> Any:
        """Return predictions of outputs."""
        raise NotImplementedError

    def predict(self, X: Any) -> Any:
        """Return predictions.

        Args:
            X: (n, f), dense or sparse.

        Returns:
            Labels or numbers: (n,), or (n, k) if there are several for each row.
        """
        return self._decode(self._outputs(X))

    # -- states
    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle: parameters, curves, and the states of network and optimizer as NumPy arrays."""
        state = dict(super().__getstate__())
        if "module_" in state:
            state["module_"] = _as_arrays(state["module_"].state_dict())
            optimizer = state.pop("_optimizer")
            del state["_device"]
            state["_optimizer_state"] = None if optimizer is None else _as_arrays(optimizer.state_dict())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`__getstate__`: build the network anew, and load the states."""
        state = dict(state)
        weights, of_optimizer = state.pop("module_", None), state.pop("_optimizer_state", None)
        super().__setstate__(state)
        if weights is None:
            return
        try:
            self._device = self._resolve_device()
        except DeviceError:
            warn_user(f"{type(self).__name__}: it was trained on device={self.device!r}, which is not here; it predicts on the CPU")
            self._device = devices.CPU
        with preserved_globals():
            self.module_ = self._with(self._module_params)._build_module(None)
        self.module_.load_state_dict(_as_tensors(weights))
        self.module_.eval()
        self._optimizer = None
        if of_optimizer is not None:
            self._optimizer = self._with(self._optimizer_params)._build_optimizer(self.module_)
            self._optimizer.load_state_dict(_as_tensors(of_optimizer))

    def _with(self, params: dict[str, Any]) -> NetworkEstimator:
        """Return an estimator with the parameters of a training, for the same data; those of this one may have been changed."""
        made = type(self)(**params)
        for name in ("n_features_in_", "n_outputs_", "_device", "_dtype"):
            setattr(made, name, getattr(self, name))
        return made


class ClassifierPart(ClassifierMixin, NetworkEstimator):
    """Base class of the classifiers.

    A network has one output for each class, with the probabilities as their softmax; or one output in all, with the probability of
    the second class as its sigmoid; or, for a multilabel target, one output for each label.
    """

    _options_of_y: ClassVar[dict[str, Any]] = {"multi_output": True}
    _score_function = staticmethod(accuracy_score)
    _labels: Labels
    class_weight: Any

    def _check_target(self, y: Any, *, starts_anew: bool, incremental: bool, classes: Any) -> numpy.ndarray:
        name = type(self).__name__
        if starts_anew:
            self._labels = Labels(y, classes)
            self.classes_ = self._labels.classes
        elif not incremental:
            self._labels.check_kind(y, name)
            if not self._labels.is_multilabel and set(numpy.unique(y)) != set(self.classes_):
                raise ArgumentError(
                    f"{name}: warm_start=True continues with the classes {self.classes_.tolist()}, but y has "
                    f"{numpy.unique(y).tolist()}; pass rows of the same classes, or warm_start=False"
                )
        target = self._labels.encode(y, name)
        if starts_anew:
            self.out_activation_ = self._choose_activation()
            self.n_outputs_ = 1 if self._has_one_output() else len(self.classes_)
        if self.out_activation_ in _OF_CLASSES:
            return target
        return target.reshape(len(target), -1).astype(numpy.float64)

    def _with_class_weight(
        self, weight: numpy.ndarray | None, y: Any, target: numpy.ndarray, incremental: bool
    ) -> numpy.ndarray | None:
        given, name = self.class_weight, type(self).__name__
        if given is None:
            return weight
        if incremental and given == "balanced":
            raise ArgumentError(
                "partial_fit: class_weight='balanced' needs the frequencies of all rows, which one part of them does not tell; "
                "pass class_weight as a dict, such as of sklearn.utils.class_weight.compute_class_weight on all labels"
            )
        if given == "balanced":
            of_rows = compute_sample_weight(given, y)
        elif self._labels.is_multilabel:
            raise ArgumentError(
                f"{name}: class_weight={given!r}, but y has indicators of {len(self.classes_)} labels; pass sample_weight, "
                "class_weight='balanced', or a loss such as nn.BCEWithLogitsLoss(pos_weight=...)"
            )
        else:
            classes = self.classes_.tolist()
            unknown = [key for key in given if key not in classes]
            if unknown:
                raise ArgumentError(f"{name}: class_weight has the keys {unknown}, which are not among the classes {classes}")
            of_rows = numpy.array([float(given.get(key, 1.0)) for key in classes])[target.reshape(-1).astype(numpy.int64)]
        weights = of_rows if weight is None else weight * of_rows
        if not weights.any():
            times = "" if weight is None else " times sample_weight"
            raise ArgumentError(f"{name}: class_weight={given!r}{times} gives each row the weight 0, so no row would count")
        return weights

    def _given_loss(self) -> Any:
        """Return the parameter of the loss: a name, module, class or function."""
        raise NotImplementedError

    def _activation_of_loss(self, parameter: str, loss: Any) -> str:
        """Return the activation that makes probabilities of the outputs that a loss takes.

        Args:
            parameter: the name of the loss among the parameters, for messages.
            loss: a module or function of (output, target).

        Raises:
            ArgumentError: the loss does not take the classes, or the labels, of the target.
        """
        described = f"{type(self).__name__}: {parameter}={name_of(loss)}"
        if takes_numbers(loss):
            raise ArgumentError(
                f"{described} takes numbers as targets; expected a loss of classes, such as nn.CrossEntropyLoss, or "
                "nn.BCEWithLogitsLoss of two classes or of several labels for each row"
            )
        of_labels = activation_in(BINARY_LOSSES, loss)
        if self._labels.is_multilabel and of_labels is None:
            raise ArgumentError(
                f"{described} takes one class for each row, but y has indicators of {len(self.classes_)} labels; expected "
                "nn.BCEWithLogitsLoss or a subclass of it"
            )
        if not self._labels.is_multilabel and of_labels is not None and len(self.classes_) > 2:
            raise ArgumentError(
                f"{described} has one output for two classes, but y has the {len(self.classes_)} classes {self.classes_.tolist()}. "
                "Only binary classification is supported. Use nn.CrossEntropyLoss, or pass y as indicators of labels (n, k)"
            )
        return of_labels or activation_in(CLASS_LOSSES, loss) or "softmax"

    def _has_one_output(self) -> bool:
        """Whether the network has one output, of the second of two classes."""
        return not self._labels.is_multilabel and self.out_activation_ not in _OF_CLASSES

    def _check_partial_fit(self, classes: Any) -> None:
        """Check the classes of a call of ``partial_fit``.

        Raises:
            ArgumentError: the first call lacks them, or a later one has others.
        """
        if not hasattr(self, "module_"):  # also after a first call that failed, which may have left classes
            if classes is None:
                raise ArgumentError("partial_fit: the first call needs all classes; pass classes=numpy.unique(all_labels)")
        elif classes is not None and not numpy.array_equal(numpy.unique(classes), self.classes_):
            raise ArgumentError(
                f"partial_fit: classes={numpy.asarray(classes).tolist()}, but the first call had {self.classes_.tolist()}; leave "
                "them out in later calls"
            )

    def _strata(self, y: Any) -> Any:
        return y if self._has_one_output() else None  # as scikit-learn's: of two classes only

    def _probabilities(self, outputs: numpy.ndarray) -> numpy.ndarray:
        """Return the probabilities (n, c) of outputs."""
        found = ACTIVATIONS[self.out_activation_](outputs)
        if not self._has_one_output():
            return found
        if len(self.classes_) == 1:  # the network has learnt that there is no second one
            return numpy.ones((len(found), 1), found.dtype)
        second = found.reshape(-1)
        return numpy.stack([1.0 - second, second], axis=1)

    def _decode(self, outputs: numpy.ndarray) -> Any:
        return self._labels.decode(self._probabilities(outputs))

    def predict_proba(self, X: Any) -> numpy.ndarray:
        """Return the probability of each class.

        Args:
            X: (n, f), dense or sparse.

        Returns:
            (n, c), in the order of ``classes_``; of a multilabel target the probability of each label.
        """
        return self._probabilities(self._outputs(X))

    def predict_log_proba(self, X: Any) -> numpy.ndarray:
        """Return the logarithm of :meth:`predict_proba`."""
        with numpy.errstate(divide="ignore"):
            return numpy.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        is_binary = activation_in(BINARY_LOSSES, self._given_loss()) is not None
        tags.classifier_tags.multi_label = is_binary or self._given_loss() == "log_loss"
        tags.classifier_tags.multi_class = not is_binary
        return tags


class RegressorPart(RegressorMixin, NetworkEstimator):
    """Base class of the regressors."""

    _options_of_y: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}
    _score_function = staticmethod(r2_score)

    def _check_target(self, y: Any, *, starts_anew: bool, incremental: bool, classes: Any) -> numpy.ndarray:
        target: numpy.ndarray = y.reshape(len(y), -1).astype(numpy.float64)
        if starts_anew:
            self.n_outputs_, self.out_activation_ = target.shape[1], self._choose_activation()
        elif target.shape[1] != self.n_outputs_:
            raise ShapeError(f"{type(self).__name__}: y has {target.shape[1]} columns; expected {self.n_outputs_}, as before")
        return target

    def _decode(self, outputs: numpy.ndarray) -> numpy.ndarray:
        found = ACTIVATIONS[self.out_activation_](outputs)
        return found.reshape(-1) if self.n_outputs_ == 1 else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _random_state_of(given: Any) -> numpy.random.RandomState:
    """Return a generator; of None one that is seeded by NumPy's global generator, which training preserves."""
    state = check_random_state(given)
    is_global = state is check_random_state(None)
    return numpy.random.RandomState(state.randint(2**31)) if is_global else state


def _digest(random_state: numpy.random.RandomState, num_rows: int) -> bytes:
    """Return the seed of a training, which draws nothing from ``random_state``."""
    state = pickle.dumps((random_state.get_state(legacy=False), num_rows))
    return hashlib.blake2b(state, digest_size=20).digest()


def _as_arrays(state: Any) -> Any:
    return tree_map(state, lambda tensor: devices.to_host(tensor.detach().array).copy(), Tensor)


def _as_tensors(state: Any) -> Any:
    return tree_map(state, as_tensor, numpy.ndarray)
