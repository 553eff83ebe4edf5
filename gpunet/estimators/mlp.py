"""Multilayer perceptrons with the parameters of scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if

from gpunet import captured, nn, optim
from gpunet.autograd import Tensor, no_grad
from gpunet.backend import devices
from gpunet.errors import ArgumentError
from gpunet.estimators.base import ClassifierPart, NetworkEstimator, RegressorPart
from gpunet.estimators.batches import Batches
from gpunet.estimators.checks import CAPTURE, CLASS_WEIGHT, FLAG, VERBOSE, Rule, choice, is_whole, real, whole
from gpunet.estimators.objectives import BINARY_LOG_LOSS, LOG_LOSS, REGRESSION_LOSSES, RowLoss, name_of, row_loss_of
from gpunet.launch.tape import warn_user
from gpunet.nn.utils import parameters_to_vector
from gpunet.ops.creation import as_tensor
from gpunet.train.network import ACTIVATIONS, multilayer_perceptron

__all__ = ["MLPClassifier", "MLPRegressor"]

#: Of learning_rate="adaptive": the factor, and the rate at which training stops.
_REDUCTION, _LEAST_RATE = 5.0, 1e-6


def _is_sizes(value: Any) -> bool:
    sizes = [value] if is_whole(value) else value
    return isinstance(sizes, Iterable) and not isinstance(sizes, str) and all(is_whole(size) and size > 0 for size in sizes)


_RULES = {
    "hidden_layer_sizes": Rule(_is_sizes, "one positive integer for each hidden layer, such as (100,)"),
    "activation": choice("logistic", *ACTIVATIONS),
    "solver": choice("adam", "sgd", "lbfgs"),
    "alpha": real(0),
    "batch_size": whole(1, "auto"),
    "learning_rate": choice("constant", "invscaling", "adaptive"),
    "learning_rate_init": real(0, has_low=False),
    "power_t": real(0),
    "max_iter": whole(1),
    "shuffle": FLAG,
    "tol": real(0),
    "verbose": VERBOSE,
    "warm_start": FLAG,
    "momentum": real(0, 1, has_high=True),
    "nesterovs_momentum": FLAG,
    "early_stopping": FLAG,
    "validation_fraction": real(0, 1),
    "beta_1": real(0, 1),
    "beta_2": real(0, 1),
    "epsilon": real(0, has_low=False),
    "n_iter_no_change": whole(1, numpy.inf),
    "max_fun": whole(1),
    "dropout": real(0, 1),
    "batch_norm": FLAG,
    "dtype": choice("auto", "float32", "float64"),
    "capture": choice(*CAPTURE, False),
}


def _is_stochastic(estimator: Any) -> bool:
    """Whether an estimator has ``partial_fit``."""
    return bool(estimator.solver != "lbfgs")


class _MLP(NetworkEstimator):
    """Base class of the perceptrons, which compute as scikit-learn's do, from the same random numbers."""

    _rules: ClassVar[Mapping[str, Rule]] = _RULES

    # -- the network
    def _sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        return [int(given)] if is_whole(given) else [int(size) for size in given]

    def _build_module(self, random_state: numpy.random.RandomState | None) -> nn.Module:
        activation = "sigmoid" if self.activation == "logistic" else self.activation  # scikit-learn's name
        module = multilayer_perceptron(
            self.n_features_in_, self._sizes(), self.n_outputs_, activation, self.dropout, batch_norm=self.batch_norm
        )
        module.to(self._device, self._dtype)
        if random_state is not None:
            factor = 2.0 if activation == "sigmoid" else 6.0
            for layer in _linear_layers(module):
                _initialize(layer, factor, random_state)
        return module

    def _build_optimizer(self, module: nn.Module) -> optim.Optimizer:
        weights = [layer.weight for layer in _linear_layers(module)]
        decayed = {id(weight) for weight in weights}
        others = [p for p in module.parameters() if id(p) not in decayed]
        groups = [{"params": weights, "weight_decay": self.alpha}, {"params": others}]
        rate = self.learning_rate_init
        if self.solver == "adam":
            return optim.Adam(groups, rate, (self.beta_1, self.beta_2), self.epsilon)
        return optim.SGD(groups, rate, self.momentum, nesterov=bool(self.nesterovs_momentum) and self.momentum > 0.0)

    def _resolve_dtype(self, x: Any) -> numpy.dtype[Any]:
        if self.solver == "lbfgs":  # its line search compares losses that are nearly equal
            return numpy.dtype("float64")
        if self.dtype != "auto":
            return numpy.dtype(self.dtype)
        return numpy.dtype("float32") if self._device.type == "cuda" else x.dtype

    # -- training
    _num_updates: int  # of the optimizer
    _size: float  # of the last batch, NaN before the first one

    def _num_epochs(self) -> int:
        return int(self.max_iter)

    def _needs_pairs(self) -> bool:
        return bool(self.batch_norm)

    def _train(
        self, x: Any, target: numpy.ndarray, y: Any, weight: numpy.ndarray | None, random_state: numpy.random.RandomState,
        incremental: bool,
    ) -> None:  # fmt: skip
        target = target if target.ndim == 1 else target.astype(self._dtype)
        if not incremental or self._optimizer is None:
            self._num_updates, self._size = 0, math.nan
        if self.solver == "lbfgs":
            self._minimize(x, target, weight)
        else:
            super()._train(x, target, y, weight, random_state, incremental)

    def _before_batch(self, optimizer: optim.Optimizer, size: float) -> None:
        if size != self._size:
            self._size = size
            optimizer.param_groups[0]["weight_decay"] = self.alpha / size if size else 0.0  # the gradient of alpha / (2 size) |W|^2
        if self.solver == "adam":  # scikit-learn adds epsilon before the correction of the average, not behind it
            self._num_updates += 1
            epsilon = self.epsilon / math.sqrt(1.0 - self.beta_2**self._num_updates)
            for group in optimizer.param_groups:  # without the checks of group["eps"] = epsilon, which take longer
                devices.assign(group.hyperparameters, epsilon, group.places["eps"].start)

    def _penalty(self, batches_per_row: float) -> float:
        """Return the L2 penalties of an epoch's batches, at its end, divided by its rows."""
        if not self.alpha:
            return 0.0
        arrays = [layer.weight.array for layer in _linear_layers(self.module_)]
        squares = sum(float(devices.to_host(devices.module(array).vdot(array, array))) for array in arrays)
        return 0.5 * self.alpha * squares * batches_per_row

    def _end_epoch(self, optimizer: optim.Optimizer, is_due: bool) -> bool:
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            _set_rate(optimizer, self.learning_rate_init / (self.t_ + 1) ** self.power_t)
        rate = optimizer.param_groups[0]["lr"]
        if is_due and self.solver == "sgd" and self.learning_rate == "adaptive" and rate > _LEAST_RATE:
            _set_rate(optimizer, rate / _REDUCTION)
            return False
        return is_due

    def _warn_of_no_convergence(self, epochs: int) -> None:
        warn_user(
            f"{type(self).__name__}: training has not converged after max_iter={epochs} epochs; increase max_iter, or tol",
            ConvergenceWarning,
        )

    def _minimize(self, x: Any, target: numpy.ndarray, weight: numpy.ndarray | None) -> None:
        """Minimize the loss of all rows by L-BFGS-B of SciPy."""
        if self.dropout or self.batch_norm:
            raise ArgumentError(
                f"{type(self).__name__}: solver='lbfgs' minimizes one function, but with dropout={self.dropout} and "
                f"batch_norm={self.batch_norm} the loss changes from call to call; use solver='adam' or 'sgd'"
            )
        module, objective = self.module_, self._make_loss(weight is not None)
        parameters = [*module.parameters()]
        decayed = numpy.concatenate([numpy.full(p.numel(), float(p.ndim == 2)) for p in parameters])
        [batch] = Batches(x, target, weight, batch_size=len(target), device=self._device)
        total = float(len(target) if weight is None else weight.sum())

        def step(inputs: Tensor, target: Any) -> tuple[Tensor, Tensor]:
            module.zero_grad()
            loss = objective(module(inputs), target)
            loss.backward()
            gradients: list[Any] = [p.grad for p in parameters]
            return loss.detach(), parameters_to_vector(gradients)

        run = captured.capture(step, backend=self.capture, fullgraph=False) if self.capture else step

        def loss_and_gradient(vector: numpy.ndarray) -> tuple[float, numpy.ndarray]:
            self._set_parameters(parameters, vector)
            loss, gradient = run(*batch)
            penalized = vector * decayed
            value = loss.item() + 0.5 * self.alpha * numpy.dot(penalized, penalized) / total
            return value, devices.to_host(gradient.array) + self.alpha / total * penalized

        with no_grad():
            start = devices.to_host(parameters_to_vector(parameters).array)
        options = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        found = scipy.optimize.minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options)
        self._set_parameters(parameters, found.x)
        self.n_iter_, self.loss_ = min(int(found.nit), int(self.max_iter)), float(found.fun)
        self.t_ += self.n_iter_ * len(target)
        if found.status:
            warn_user(
                f"{type(self).__name__}: L-BFGS has not converged after {found.nit} iterations and {found.nfev} evaluations "
                f"({found.message}); increase max_iter={self.max_iter} or max_fun={self.max_fun}, or scale the data",
                ConvergenceWarning,
            )

    @no_grad()
    def _set_parameters(self, parameters: list[Any], vector: numpy.ndarray) -> None:
        start = 0
        for parameter in parameters:
            part = vector[start : start + parameter.numel()].reshape(parameter.shape)
            parameter.copy_(as_tensor(part, device=self._device))
            start += parameter.numel()

    # -- scikit-learn's attributes
    @property
    def coefs_(self) -> list[numpy.ndarray]:
        """The weights of each layer, (inputs, outputs)."""
        return [_on_host(layer.weight).T for layer in self._layers("coefs_")]

    @property
    def intercepts_(self) -> list[numpy.ndarray]:
        """The biases of each layer, (outputs,)."""
        return [_on_host(layer.bias) for layer in self._layers("intercepts_")]

    @property
    def n_layers_(self) -> int:
        """The number of layers, with that of the inputs."""
        return len(self._layers("n_layers_")) + 1

    def _layers(self, attribute: str) -> list[Any]:
        if not hasattr(self, "module_"):
            raise AttributeError(f"{type(self).__name__} has no {attribute} before fit()")
        return _linear_layers(self.module_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class MLPClassifier(ClassifierPart, _MLP):
    """A multilayer perceptron that classifies, with scikit-learn's parameters and more.

        classifier = MLPClassifier((100, 50), dropout=0.2, early_stopping=True, random_state=0).fit(X, y)
        classifier.predict_proba(X)

    The network starts from scikit-learn's weights and sees the batches in its order, so ``random_state=0`` gives scikit-learn's
    network up to rounding.  Two classes have one output, with a sigmoid; more have one
    each, with a softmax; the labels of a multilabel target have sigmoids.

    Args:
        hidden_layer_sizes: units of each hidden layer.
        activation: "relu", "tanh", "logistic", "identity", or another activation of :data:`gpunet.train.ACTIVATIONS`.
        solver: "adam", "sgd", or "lbfgs", which computes in float64 and takes all rows at once.
        alpha: L2 penalty alpha / (2 n) |W|^2 of the weights W, for a batch of n rows (or of weights that sum to n).
        batch_size: rows of a batch; "auto" is min(200, rows).
        learning_rate: of solver="sgd": "constant", "invscaling" (learning_rate_init / (rows seen + 1)^power_t after each epoch) or
            "adaptive" (divided by 5 instead of stopping, until 1e-6).
        learning_rate_init: the learning rate.
        power_t: exponent of "invscaling".
        max_iter: the largest number of epochs; of iterations of "lbfgs".
        shuffle: a new order of the rows in each epoch.
        random_state: an int, a RandomState or None: initial weights, orders, the rows set aside, dropout.
        tol: training stops after ``n_iter_no_change`` epochs whose loss is not lower by ``tol``, or whose score is not higher.
        verbose: print the loss of each epoch.
        warm_start: a later ``fit`` continues from the network instead of starting anew.
        momentum, nesterovs_momentum: of solver="sgd".
        early_stopping: set ``validation_fraction`` of the rows aside, stop by their score, and keep the weights of the best one.
        validation_fraction: in [0, 1).
        beta_1, beta_2, epsilon: of solver="adam".
        n_iter_no_change: epochs without improvement before training stops; inf never stops.
        max_fun: evaluations of "lbfgs".
        loss: "log_loss", or a loss of gpunet such as ``nn.CrossEntropyLoss(label_smoothing=0.1)``, of logits and classes, or
            ``nn.BCEWithLogitsLoss()`` of two classes or a multilabel target.
        class_weight: a dict of weights by label, 1 for the classes that it lacks; or "balanced": inversely proportional to their
            frequencies.
        dropout: probability of dropping a hidden output.
        batch_norm: normalise the hidden outputs before the activation.  A last batch of one row is left out.
        device: "cpu", "cuda", "cuda:1", or "auto".
        dtype: of network and data: "auto" is that of X (float32 or float64) on the CPU, and float32 on a GPU.
        capture: the backend of the captured step: "numpy", "numba" (faster; a new shape compiles for seconds, once), or False.

    Attributes:
        classes_: the classes, sorted (c,).
        module_: the network, a gpunet module.
        coefs_, intercepts_: weights (inputs, outputs) and biases (outputs,) of each layer.
        loss_curve_, loss_, best_loss_: the training loss of each epoch, the last and the least.
        validation_scores_, validation_losses_, best_validation_score_: accuracy and loss of the rows set aside; None without.
        n_iter_, t_: epochs, and rows seen.
        n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_: as in scikit-learn.

    Raises:
        ArgumentError: (in ``fit``) a parameter or a weight is out of range, or the loss does not take the target.
        ValueError: (in ``fit``) the data are malformed; scikit-learn's messages.
        GpunetError: (in ``fit``) the network diverged.
    """

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam", alpha: float = 0.0001,
        batch_size: Any = "auto", learning_rate: str = "constant", learning_rate_init: float = 0.001, power_t: float = 0.5,
        max_iter: int = 200, shuffle: bool = True, random_state: Any = None, tol: float = 1e-4, verbose: Any = False,
        warm_start: bool = False, momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: Any = 10, max_fun: int = 15000, loss: Any = "log_loss", class_weight: Any = None, dropout: float = 0.0,
        batch_norm: bool = False, device: Any = "cpu", dtype: str = "auto", capture: Any = "numpy",
    ) -> None:  # fmt: skip
        self.hidden_layer_sizes, self.activation, self.solver, self.alpha = hidden_layer_sizes, activation, solver, alpha
        self.batch_size, self.learning_rate, self.learning_rate_init = batch_size, learning_rate, learning_rate_init
        self.power_t, self.max_iter, self.shuffle, self.random_state = power_t, max_iter, shuffle, random_state
        self.tol, self.verbose, self.warm_start, self.momentum = tol, verbose, warm_start, momentum
        self.nesterovs_momentum, self.early_stopping = nesterovs_momentum, early_stopping
        self.validation_fraction, self.beta_1, self.beta_2, self.epsilon = validation_fraction, beta_1, beta_2, epsilon
        self.n_iter_no_change, self.max_fun, self.loss, self.class_weight = n_iter_no_change, max_fun, loss, class_weight
        self.dropout, self.batch_norm, self.device, self.dtype, self.capture = dropout, batch_norm, device, dtype, capture

    _rules: ClassVar[Mapping[str, Rule]] = {
        **_RULES,
        "class_weight": CLASS_WEIGHT,
        "loss": Rule(
            lambda v: isinstance(v, nn.Module) or (isinstance(v, str) and v == "log_loss"), "'log_loss', or a loss of gpunet"
        ),
    }

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Train the network.

        Args:
            X: (n, f) numbers: an array, a data frame of pandas or polars, or a sparse matrix, of which each batch is made dense.
            y: (n,) labels of any sortable type, or (n, k) indicators of several labels for each row.
            sample_weight: (n,) weights; not negative, not all zero.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight)

    @available_if(_is_stochastic)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Pass over some rows once, and continue an earlier training.

        Args:
            X, y, sample_weight: as of :meth:`fit`; ``y`` may lack classes.
            classes: all classes; needed in the first call.

        Returns:
            The estimator.
        """
        self._check_partial_fit(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _given_loss(self) -> Any:
        return self.loss

    def _choose_activation(self) -> str:
        if not isinstance(self.loss, nn.Module):
            return "softmax" if len(self.classes_) > 2 and not self._labels.is_multilabel else "logistic"
        found = self._activation_of_loss("loss", self.loss)
        if found in ("exp", "identity"):
            raise ArgumentError(
                f"MLPClassifier: loss={name_of(self.loss)} takes {'log-' if found == 'exp' else ''}probabilities, but the network "
                f"returns logits; pass nn.{'CrossEntropyLoss' if found == 'exp' else 'BCEWithLogitsLoss'}"
            )
        return found

    def _row_loss(self) -> RowLoss:
        if isinstance(self.loss, nn.Module):
            return row_loss_of(self._place_loss(self.loss), type(self).__name__)
        return LOG_LOSS if self.out_activation_ == "softmax" else BINARY_LOG_LOSS


class MLPRegressor(RegressorPart, _MLP):
    """A multilayer perceptron that predicts numbers, with scikit-learn's parameters and more.

        regressor = MLPRegressor((100,), solver="lbfgs", random_state=0).fit(X, y)

    Args:
        loss: "squared_error" (its half, summed over the targets of a row), "poisson" (half the deviance; the outputs are logarithms
            of the rates, y >= 0), "absolute_error", "huber", or a loss of gpunet of outputs and targets (n, k).
        hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle,
            random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1,
            beta_2, epsilon, n_iter_no_change, max_fun, dropout, batch_norm, device, dtype, capture: see :class:`MLPClassifier`.
            The score of ``early_stopping`` is R².

    Attributes:
        module_, coefs_, intercepts_, loss_curve_, loss_, best_loss_, validation_scores_, validation_losses_,
            best_validation_score_, n_iter_, t_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_: see
            :class:`MLPClassifier`.

    Raises:
        ArgumentError, ValueError, GpunetError: see :class:`MLPClassifier`.
    """

    def __init__(
        self, loss: Any = "squared_error", hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam",
        alpha: float = 0.0001, batch_size: Any = "auto", learning_rate: str = "constant", learning_rate_init: float = 0.001,
        power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True, random_state: Any = None, tol: float = 1e-4,
        verbose: Any = False, warm_start: bool = False, momentum: float = 0.9, nesterovs_momentum: bool = True,
        early_stopping: bool = False, validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999,
        epsilon: float = 1e-8, n_iter_no_change: Any = 10, max_fun: int = 15000, dropout: float = 0.0, batch_norm: bool = False,
        device: Any = "cpu", dtype: str = "auto", capture: Any = "numpy",
    ) -> None:  # fmt: skip
        self.loss, self.hidden_layer_sizes, self.activation, self.solver = loss, hidden_layer_sizes, activation, solver
        self.alpha, self.batch_size, self.learning_rate, self.power_t = alpha, batch_size, learning_rate, power_t
        self.learning_rate_init, self.max_iter, self.shuffle = learning_rate_init, max_iter, shuffle
        self.random_state, self.tol, self.verbose, self.warm_start = random_state, tol, verbose, warm_start
        self.momentum, self.nesterovs_momentum, self.early_stopping = momentum, nesterovs_momentum, early_stopping
        self.validation_fraction, self.beta_1, self.beta_2, self.epsilon = validation_fraction, beta_1, beta_2, epsilon
        self.n_iter_no_change, self.max_fun, self.dropout, self.batch_norm = n_iter_no_change, max_fun, dropout, batch_norm
        self.device, self.dtype, self.capture = device, dtype, capture

    _rules: ClassVar[Mapping[str, Rule]] = {
        **_RULES,
        "loss": Rule(
            lambda v: isinstance(v, nn.Module) or (isinstance(v, str) and v in REGRESSION_LOSSES),
            f"one of {', '.join(map(repr, REGRESSION_LOSSES))}, or a loss of gpunet",
        ),
    }

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train the network.

        Args:
            X: (n, f) numbers: an array, a data frame of pandas or polars, or a sparse matrix, of which each batch is made dense.
            y: (n,) or (n, k) numbers.
            sample_weight: (n,) weights; not negative, not all zero.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight)

    @available_if(_is_stochastic)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Pass over some rows once, and continue an earlier training; the arguments are those of :meth:`fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_target(self, y: Any, **options: Any) -> numpy.ndarray:
        target = super()._check_target(y, **options)
        if self.loss == "poisson" and (target < 0.0).any():
            raise ArgumentError(f"MLPRegressor: loss='poisson', but y has {target.min():g}; expected no negative target")
        return target

    def _row_loss(self) -> RowLoss:
        if isinstance(self.loss, nn.Module):
            return row_loss_of(self._place_loss(self.loss), type(self).__name__)
        return REGRESSION_LOSSES[self.loss]

    def _choose_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"


def _linear_layers(module: nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@no_grad()
def _initialize(layer: Any, factor: float, random_state: numpy.random.RandomState) -> None:
    """Draw weights and biases as scikit-learn does, from (inputs, outputs) uniform numbers and then those of the biases.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), equation 16;
    for a sigmoid a third of its variance.
    """
    outputs, inputs = layer.weight.shape
    bound = numpy.sqrt(factor / (inputs + outputs))
    weight = random_state.uniform(-bound, bound, (inputs, outputs))
    bias = random_state.uniform(-bound, bound, outputs)
    for parameter, values in ((layer.weight, numpy.ascontiguousarray(weight.T)), (layer.bias, bias)):
        parameter.copy_(as_tensor(values.astype(parameter.dtype), device=parameter.device))


def _set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Set the learning rate of SGD for gradients to come: in scikit-learn's momentum each has the rate of its step."""
    factor = optimizer.param_groups[0]["lr"] / rate
    for state in optimizer.state.values():
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(factor)
    for group in optimizer.param_groups:
        group["lr"] = rate


def _on_host(parameter: Any) -> numpy.ndarray:
    found: numpy.ndarray = devices.to_host(parameter.detach().array)
    return found
