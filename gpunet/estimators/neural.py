"""Estimators of any module, in the manner of skorch."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy

from gpunet import nn, optim
from gpunet.errors import ArgumentError, ShapeError
from gpunet.estimators.base import ClassifierPart, NetworkEstimator, RegressorPart
from gpunet.estimators.checks import CAPTURE, CLASS_WEIGHT, FLAG, VERBOSE, Rule, choice, real, whole
from gpunet.estimators.objectives import RowLoss, name_of, row_loss_of

__all__ = ["NeuralClassifier", "NeuralRegressor"]

#: Parts of an estimator, whose parameters have a double underline.
_PARTS = ("module", "criterion", "optimizer", "trainer")
#: Options of the Trainer that an estimator hands on.
_TRAINER_OPTIONS = ("accumulate", "clip", "precision", "schedule", "schedule_per")

_RULES = {
    "lr": real(0),
    "max_epochs": whole(1),
    "batch_size": whole(1),
    "shuffle": FLAG,
    "early_stopping": FLAG,
    "validation_fraction": real(0, 1),
    "n_iter_no_change": whole(1, numpy.inf),
    "tol": real(0),
    "warm_start": FLAG,
    "verbose": VERBOSE,
    "dtype": choice("float32", "float64", None),
    "capture": choice(*CAPTURE, False),
    "module": Rule(callable, "a module, or a class or function that returns one"),
    "criterion": Rule(callable, "a loss, its class, or a function of (output, target)"),
    "optimizer": Rule(callable, "a class such as gpunet.optim.Adam, or a function of (parameters, lr=...)"),
    "callbacks": Rule(lambda v: v is None or isinstance(v, (list, tuple)), "a list of callbacks, or None"),
}


class _Neural(NetworkEstimator):
    """Base class of the two: parameters with a double underline, and construction of module, criterion and optimizer."""

    _rules: ClassVar[Mapping[str, Rule]] = _RULES
    _stops_by_loss = False

    _routed: tuple[str, ...] = ()  # the names of parameters such as module__hidden

    def _set_routed(self, routed: dict[str, Any]) -> None:
        """Set parameters such as ``module__hidden``; :meth:`fit` refuses those of no part, since a constructor must not raise."""
        for name, value in routed.items():
            setattr(self, name, value)
        self._routed = tuple(dict.fromkeys((*self._routed, *routed)))

    def _check_routed(self) -> None:
        for name in self._routed:
            if not _is_routed(name):
                expected = ", ".join(f"{part}__..." for part in _PARTS)
                raise ArgumentError(f"{type(self).__name__}: unknown parameter {name!r}; expected one of its own, or {expected}")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with those that have a double underline.

        Args:
            deep: also return the parameters of parameters that are estimators.
        """
        return {**super().get_params(deep), **{name: getattr(self, name) for name in self._routed}}

    def set_params(self, **params: Any) -> Any:
        """Set parameters, also those that have a double underline; return the estimator.

        Raises:
            ValueError: there is no such parameter; scikit-learn's message.
        """
        self._set_routed({name: value for name, value in params.items() if _is_routed(name)})
        super().set_params(**{name: value for name, value in params.items() if not _is_routed(name)})
        return self

    def _options(self, part: str) -> dict[str, Any]:
        prefix = f"{part}__"
        return {name.removeprefix(prefix): getattr(self, name) for name in self._routed if name.startswith(prefix)}

    # -- parts
    def _build_module(self, random_state: numpy.random.RandomState | None) -> nn.Module:
        module = self._make("module", {"n_features_in": self.n_features_in_, "n_outputs": self.n_outputs_})
        if not isinstance(module, nn.Module):
            raise ArgumentError(f"{type(self).__name__}: module={self.module!r} makes a {type(module).__name__}; expected a module")
        return module.to(self._device) if self._dtype is None else module.to(self._device, self._dtype)

    def _build_optimizer(self, module: nn.Module) -> optim.Optimizer:
        arguments = {"lr": self.lr, **self._options("optimizer")}
        made: optim.Optimizer = self._call("optimizer", arguments, module.parameters())
        return made

    def _row_loss(self) -> RowLoss:
        return row_loss_of(self._place_loss(self._criterion()), type(self).__name__)

    def _criterion(self) -> Any:
        return self._make("criterion", {})

    def _make(self, part: str, sizes: dict[str, int]) -> Any:
        """Return the part: a copy of a module, a function of (output, target) as it is, or the result of a class or function.

        Args:
            part: "module" or "criterion".
            sizes: arguments that are passed if the class or function has them.
        """
        given, options = getattr(self, part), self._options(part)
        if isinstance(given, nn.Module) or (part == "criterion" and not _is_class(given)):
            if options:
                names = ", ".join(f"{part}__{name}" for name in options)
                kind = "an object" if isinstance(given, nn.Module) else "a function of (output, target)"
                raise ArgumentError(f"{type(self).__name__}: {part} is {kind}, which {names} cannot change; pass the class")
            if not isinstance(given, nn.Module) and not _takes_two(given):
                raise ArgumentError(
                    f"{type(self).__name__}: criterion={name_of(given)} cannot be called with (output, target); expected a loss, "
                    "its class, or a function of (output, target)"
                )
            return copy.deepcopy(given) if isinstance(given, nn.Module) else given
        taken = inspect.signature(given).parameters
        return self._call(part, {**{name: size for name, size in sizes.items() if name in taken}, **options})

    def _call(self, part: str, arguments: dict[str, Any], *positional: Any) -> Any:
        """Call the class or function of a part, whose arguments are named in messages as the user passes them.

        Raises:
            ArgumentError: an argument is unknown, or one without a default is missing.
        """
        given = getattr(self, part)
        described = f"{type(self).__name__}: {part}={name_of(given)}"
        parameters = [*inspect.signature(given).parameters.values()]
        named = {p.name: p for p in parameters[len(positional) :] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            for name in arguments:
                if name not in named:
                    written = name if name == "lr" and name not in self._options(part) else f"{part}__{name}"
                    known = ", ".join(f"{part}__{other}" for other in named)
                    raise ArgumentError(f"{described} does not take {written!r}; expected {f'one of {known}' if known else 'none'}")
        for name, parameter in named.items():
            if parameter.default is parameter.empty and name not in arguments:
                raise ArgumentError(f"{described} needs the argument {name!r}; pass {part}__{name}")
        return given(*positional, **arguments)

    def _resolve_dtype(self, x: Any) -> numpy.dtype[Any] | None:
        return None if self.dtype is None else numpy.dtype(self.dtype)

    def _check_x(self, x: Any, *, reset: bool, **options: Any) -> Any:
        self._check_routed()
        allowed = {"dtype": "numeric" if self.dtype is None else (numpy.float64, numpy.float32)}
        return super()._check_x(x, reset=reset, **{"accept_sparse": False, "allow_nd": True, **allowed, **options})

    # -- training
    def _num_epochs(self) -> int:
        return int(self.max_epochs)

    def _needs_pairs(self) -> bool:
        return any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for module in self.module_.modules())

    def _trainer_options(self) -> dict[str, Any]:
        options = self._options("trainer")
        for name in options:
            if name not in _TRAINER_OPTIONS:
                expected = ", ".join(f"trainer__{option}" for option in _TRAINER_OPTIONS)
                raise ArgumentError(f"{type(self).__name__}: unknown parameter 'trainer__{name}'; expected one of {expected}")
        return {"callbacks": tuple(self.callbacks or ()), **options}

    def _shape_target(self, module: nn.Module, x: Any, target: numpy.ndarray) -> numpy.ndarray:
        shape = tuple(self._forward(module, x[:2]).shape)
        if target.ndim == 1:
            if len(shape) != 2 or shape[1] != len(self.classes_):
                self._refuse(shape, f"({len(x[:2])}, {len(self.classes_)}), one output for each class")
            return target
        cast = target.astype(self._dtype or numpy.float32)
        if len(shape) == 1 and target.shape[1] == 1:
            return cast[:, 0]
        if shape[1:] != target.shape[1:]:
            self._refuse(shape, f"{(len(x[:2]), *target.shape[1:])}, one output for each column of the target")
        return cast

    def _refuse(self, shape: tuple[int, ...], expected: str) -> None:
        raise ShapeError(
            f"{type(self).__name__}: the module returns the shape {shape}; expected {expected}. A class or function that takes "
            "n_outputs gets the number"
        )


class NeuralClassifier(ClassifierPart, _Neural):
    """A classifier that trains any module.

        class Net(nn.Module):
            def __init__(self, n_features_in, n_outputs, hidden=32): ...

        classifier = NeuralClassifier(Net, module__hidden=64, optimizer__weight_decay=1e-3, trainer__clip=1.0).fit(X, y)
        GridSearchCV(classifier, {"module__hidden": [16, 64], "lr": [1e-2, 1e-3]})

    Args:
        module: a class or function that makes the module; ``module__NAME`` are its arguments, and it gets the numbers of features
            and outputs if it takes ``n_features_in`` and ``n_outputs``.  Or a module, of which ``fit`` trains a copy.
        criterion: the loss: a class, whose arguments are ``criterion__NAME``, or an object, or a function of (output, target).
            ``nn.BCEWithLogitsLoss``, ``nn.BCELoss``, ``nn.MultiLabelSoftMarginLoss``, their subclasses and functions have one
            output for two classes, and one for each label of a multilabel target, and refuse more classes.  Other losses have one
            output for each class, and refuse multilabel targets; a loss of your own is taken as a loss of logits.
        optimizer: a class or function of (parameters, lr=...); ``optimizer__NAME`` are its arguments.
        lr: the learning rate.
        max_epochs: passes over the data.
        batch_size: rows of a batch.
        shuffle: a new order of the rows in each epoch.
        early_stopping: set ``validation_fraction`` of the rows aside, stop by their score, and keep the weights of the best one.
        validation_fraction: in [0, 1).
        n_iter_no_change: epochs whose score is not higher by ``tol`` before training stops; inf never stops.
        tol: the smallest improvement.
        warm_start: a later ``fit`` continues from the network instead of starting anew.
        classes: all classes, if a fold of a cross-validation may lack some.
        class_weight: a dict of weights by label, 1 for the classes that it lacks; or "balanced": inversely proportional to their
            frequencies.
        random_state: an int, a RandomState or None: initial weights, orders, the rows set aside, random numbers of the module.
        callbacks: see :class:`gpunet.train.Callback`.
        verbose: print the figures of each epoch.
        device: "cpu", "cuda", "cuda:1", or "auto".
        dtype: of module and data; None leaves the module as it is, and passes integers of X as integers.
        capture: the backend of the captured step: "numpy", "numba" (faster; a new shape compiles for seconds, once), or False.
        routed: ``module__NAME``, ``criterion__NAME``, ``optimizer__NAME``; and of :class:`gpunet.Trainer` ``trainer__accumulate``,
            ``trainer__clip``, ``trainer__precision``, ``trainer__schedule`` and ``trainer__schedule_per``.

    Attributes:
        classes_: the classes, sorted (c,).
        module_: the trained module.
        out_activation_: the function from its outputs to probabilities: "softmax", "logistic", "exp" or "identity".
        loss_curve_, loss_, best_loss_: the training loss of each epoch, the last and the least.
        validation_scores_, validation_losses_, best_validation_score_: accuracy and loss of the rows set aside; None without.
        n_iter_, t_: epochs, and rows seen.
        n_features_in_, feature_names_in_, n_outputs_: as in scikit-learn.

    Raises:
        ArgumentError: (in ``fit``) a parameter belongs to no part or is out of range, or a weight is; the loss does not take the
            target.
        ShapeError: (in ``fit``) the outputs of the module do not fit the targets.
        ValueError: (in ``fit``) the data are malformed; scikit-learn's messages.
        GpunetError: (in ``fit``) the network diverged.
    """

    _rules: ClassVar[Mapping[str, Rule]] = {
        **_RULES,
        "class_weight": CLASS_WEIGHT,
        "classes": Rule(lambda v: v is None or (numpy.ndim(v) == 1 and len(v) > 0), "a list of all classes, or None"),
    }

    def __init__(
        self, module: Any, criterion: Any = nn.CrossEntropyLoss, optimizer: Any = optim.Adam, *, lr: float = 1e-3,
        max_epochs: int = 10, batch_size: int = 128, shuffle: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, n_iter_no_change: Any = 10, tol: float = 1e-4, warm_start: bool = False,
        classes: Any = None, class_weight: Any = None, random_state: Any = None, callbacks: Any = None, verbose: Any = False,
        device: Any = "cpu", dtype: Any = "float32", capture: Any = "numpy", **routed: Any,
    ) -> None:  # fmt: skip
        self.module, self.criterion, self.optimizer, self.lr = module, criterion, optimizer, lr
        self.max_epochs, self.batch_size, self.shuffle, self.early_stopping = max_epochs, batch_size, shuffle, early_stopping
        self.validation_fraction, self.n_iter_no_change, self.tol = validation_fraction, n_iter_no_change, tol
        self.warm_start, self.classes, self.class_weight, self.random_state = warm_start, classes, class_weight, random_state
        self.callbacks, self.verbose, self.device, self.dtype, self.capture = callbacks, verbose, device, dtype, capture
        self._set_routed(routed)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NeuralClassifier:
        """Train the module.

        Args:
            X: (n, f) or more dimensions: an array, or a data frame of pandas or polars.
            y: (n,) labels of any sortable type, or (n, k) indicators of several labels for each row.
            sample_weight: (n,) weights; not negative, not all zero.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight, classes=self.classes)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> NeuralClassifier:
        """Pass over some rows once, and continue an earlier training.

        Args:
            X, y, sample_weight: as of :meth:`fit`; ``y`` may lack classes.
            classes: all classes; needed in the first call, unless they are a parameter.

        Returns:
            The estimator.
        """
        classes = self.classes if classes is None and not hasattr(self, "module_") else classes
        self._check_partial_fit(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _given_loss(self) -> Any:
        return self.criterion

    def _choose_activation(self) -> str:
        return self._activation_of_loss("criterion", self._criterion())


class NeuralRegressor(RegressorPart, _Neural):
    """A regressor that trains any module.

        regressor = NeuralRegressor(Net, criterion=nn.HuberLoss, module__hidden=64, max_epochs=50).fit(X, y)

    Args:
        module: a class or function that makes the module; ``module__NAME`` are its arguments, and it gets the numbers of features
            and targets if it takes ``n_features_in`` and ``n_outputs``.  Or a module, of which ``fit`` trains a copy.  It returns
            (n, k) for k targets, or (n,) for one.
        criterion: the loss of outputs and targets: a class, whose arguments are ``criterion__NAME``, or an object, or a function.
        optimizer, lr, max_epochs, batch_size, shuffle, early_stopping, validation_fraction, n_iter_no_change, tol, warm_start,
            random_state, callbacks, verbose, device, dtype, capture, routed: see :class:`NeuralClassifier`.  The score of
            ``early_stopping`` is R².

    Attributes:
        module_, loss_curve_, loss_, best_loss_, validation_scores_, validation_losses_, best_validation_score_, n_iter_, t_,
            n_features_in_, feature_names_in_, n_outputs_: see :class:`NeuralClassifier`.

    Raises:
        ArgumentError, ShapeError, ValueError, GpunetError: see :class:`NeuralClassifier`.
    """

    def __init__(
        self, module: Any, criterion: Any = nn.MSELoss, optimizer: Any = optim.Adam, *, lr: float = 1e-3, max_epochs: int = 10,
        batch_size: int = 128, shuffle: bool = True, early_stopping: bool = False, validation_fraction: float = 0.1,
        n_iter_no_change: Any = 10, tol: float = 1e-4, warm_start: bool = False, random_state: Any = None, callbacks: Any = None,
        verbose: Any = False, device: Any = "cpu", dtype: Any = "float32", capture: Any = "numpy", **routed: Any,
    ) -> None:  # fmt: skip
        self.module, self.criterion, self.optimizer, self.lr = module, criterion, optimizer, lr
        self.max_epochs, self.batch_size, self.shuffle, self.early_stopping = max_epochs, batch_size, shuffle, early_stopping
        self.validation_fraction, self.n_iter_no_change, self.tol = validation_fraction, n_iter_no_change, tol
        self.warm_start, self.random_state, self.callbacks, self.verbose = warm_start, random_state, callbacks, verbose
        self.device, self.dtype, self.capture = device, dtype, capture
        self._set_routed(routed)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NeuralRegressor:
        """Train the module.

        Args:
            X: (n, f) or more dimensions: an array, or a data frame of pandas or polars.
            y: (n,) or (n, k) numbers.
            sample_weight: (n,) weights; not negative, not all zero.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> NeuralRegressor:
        """Pass over some rows once, and continue an earlier training; the arguments are those of :meth:`fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _choose_activation(self) -> str:
        return "identity"


def _is_routed(name: str) -> bool:
    part, underline, rest = name.partition("__")
    return part in _PARTS and bool(underline and rest)


def _is_class(value: Any) -> bool:
    """Whether a value is a class, also with arguments by ``functools.partial``."""
    return isinstance(value.func if isinstance(value, functools.partial) else value, type)


def _takes_two(function: Any) -> bool:
    """Whether a function can be called with two positional arguments, as far as its signature is known."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a function of an extension module without a signature
        return True
    return True
