"""Estimators of any module: parts and their parameters, losses, shapes, and states."""

from __future__ import annotations

import pickle
import signal
from functools import partial
from typing import Any

import numpy
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import scipy.sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

import gpunet
from gpunet import nn, optim
from gpunet.errors import ArgumentError, ShapeError
from gpunet.estimators import NeuralClassifier, NeuralRegressor
from gpunet.optim import lr_scheduler
from gpunet.train import Callback

X, Y = datasets.load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
NAMES = numpy.array(["setosa", "versicolor", "virginica"])[Y]
INDICATORS = numpy.stack([Y == 0, Y > 0], axis=1).astype(int)


class Network(nn.Module):
    """A hidden layer and dropout; its sizes are those of the data."""

    def __init__(self, n_features_in: int, n_outputs: int, hidden: int = 16, dropout: float = 0.1, end: Any = None) -> None:
        super().__init__()
        self.hidden = hidden
        self.layers = nn.Sequential(
            nn.Linear(n_features_in, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_outputs),
            nn.Identity() if end is None else end,
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def fast(**params: Any) -> dict[str, Any]:
    return {"lr": 0.02, "max_epochs": 15, "batch_size": 30, "random_state": 0, **params}


def test_classifier_learns_and_follows_from_its_seed() -> None:
    gpunet.manual_seed(4)
    expected_next = gpunet.rand(2).tolist()
    gpunet.manual_seed(4)
    classifier = NeuralClassifier(Network, **fast()).fit(X, NAMES)
    assert gpunet.rand(2).tolist() == expected_next
    assert classifier.score(X, NAMES) > 0.93
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 15 and classifier.t_ == 15 * 150
    assert classifier.loss_curve_[-1] < 0.5 * classifier.loss_curve_[0]
    numpy.testing.assert_array_equal(clone(classifier).fit(X, NAMES).predict_proba(X), classifier.predict_proba(X))
    assert classifier.predict(X).dtype == NAMES.dtype and not classifier.module_.training


def test_parameters_reach_their_parts() -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
            self.rates.append(trainer.optimizer.param_groups[0]["lr"])
            self.clip, self.loss, self.options = trainer.clip, trainer.loss, dict(trainer.optimizer.param_groups[0])

    callback = Rates()
    classifier = NeuralClassifier(
        Network, optimizer=optim.SGD, module__hidden=5, optimizer__momentum=0.5, criterion__label_smoothing=0.1, trainer__clip=2.0,
        trainer__schedule=lambda optimizer, length: lr_scheduler.StepLR(optimizer, 1, 0.5), trainer__schedule_per="epoch",
        callbacks=[callback], **fast(max_epochs=3),
    )  # fmt: skip
    classifier.fit(X, Y)
    assert classifier.module_.hidden == 5
    assert callback.clip == 2.0 and callback.options["momentum"] == 0.5
    numpy.testing.assert_allclose(callback.rates, [0.01, 0.005, 0.0025])
    assert callback.loss.mean.label_smoothing == 0.1


def test_parameters_are_those_of_scikit_learn() -> None:
    classifier = NeuralClassifier(Network, module__hidden=5)
    assert classifier.get_params()["module__hidden"] == 5
    assert clone(classifier.set_params(module__hidden=7, lr=0.5)).get_params() == classifier.get_params()
    assert "module__hidden=7" in repr(classifier)
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        classifier.set_params(rate=3)
    search = GridSearchCV(NeuralClassifier(Network, **fast(max_epochs=4)), {"module__hidden": [4, 16], "lr": [1e-6, 0.05]}, cv=2)
    search.fit(X, NAMES)
    assert search.best_params_["lr"] == 0.05 and search.best_estimator_.module_.hidden == search.best_params_["module__hidden"]


def test_an_interrupted_training_keeps_its_weights() -> None:
    class Interrupt(Callback):
        def on_step(self, trainer: Any) -> None:
            if trainer.step == 12:
                signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="NeuralClassifier: training was interrupted after 2 epochs; it has the weights of then"):
        classifier = NeuralClassifier(Network, callbacks=[Interrupt()], **fast()).fit(X, Y)
    assert len(classifier.loss_curve_) == 2 and classifier.predict(X).shape == (150,)


def test_a_softmax_before_cross_entropy_is_told() -> None:
    with pytest.warns(UserWarning, match="returns probabilities, as of a softmax, but cross-entropy expects logits"):
        NeuralClassifier(Network, module__end=nn.Softmax(1), **fast(max_epochs=1)).fit(X, Y)


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ArgumentError, match="unknown parameter 'modul__hidden'; expected one of its own, or module__"):
        clone(NeuralClassifier(Network, modul__hidden=3)).fit(X, Y)
    with pytest.raises(ArgumentError, match="unknown parameter 'trainer__ema'; expected one of trainer__accumulate"):
        NeuralClassifier(Network, trainer__ema=0.9).fit(X, Y)
    with pytest.raises(ArgumentError, match="module is an object, which module__hidden cannot change; pass the class"):
        NeuralClassifier(nn.Linear(4, 3), module__hidden=3).fit(X, Y)
    with pytest.raises(ArgumentError, match="makes a int; expected a module"):
        NeuralClassifier(lambda: 3).fit(X, Y)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"optimizer__foo": 3}, "optimizer=Adam does not take 'optimizer__foo'; expected one of optimizer__lr, optimizer__betas"),
        ({"module__foo": 3}, "module=Network does not take 'module__foo'; expected one of module__n_features_in, "),
        ({"criterion__foo": 3}, "criterion=CrossEntropyLoss does not take 'criterion__foo'; expected one of criterion__weight"),
        ({"module": lambda n_outputs, width: nn.Linear(4, n_outputs)}, "module=<lambda> needs the argument 'width'; pass module"),
        ({"optimizer": lambda parameters: optim.Adam(parameters)}, "optimizer=<lambda> does not take 'lr'; expected none"),
        ({"criterion": lambda: nn.CrossEntropyLoss()},
         r"criterion=<lambda> cannot be called with \(output, target\); expected a loss"),
        ({"criterion": nn.functional.cross_entropy, "criterion__label_smoothing": 0.1},
         r"criterion is a function of \(output, target\), which criterion__label_smoothing cannot change; pass the class"),
    ],
    ids=["optimizer", "module", "criterion", "missing", "lr", "no loss", "function"],
)  # fmt: skip
def test_arguments_of_parts_are_checked(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"NeuralClassifier: {message}"):
        NeuralClassifier(**{"module": Network, **params}).fit(X, Y)


def test_classes_and_functions_as_criteria() -> None:
    """A function may have further arguments with defaults, and a class some already set."""

    def smoothed(output: Any, target: Any, smoothing: float = 0.3) -> Any:
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)

    expected = NeuralClassifier(Network, criterion__label_smoothing=0.3, **fast(max_epochs=2)).fit(X, Y).predict_proba(X)
    for criterion in (smoothed, partial(nn.CrossEntropyLoss, label_smoothing=0.3), partial(smoothed, smoothing=0.3)):
        found = NeuralClassifier(Network, criterion, **fast(max_epochs=2)).fit(X, Y).predict_proba(X)
        numpy.testing.assert_allclose(found, expected, rtol=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"returns the shape \(2, 2\); expected \(2, 3\), one output for each class"):
        NeuralClassifier(nn.Linear(4, 2)).fit(X, Y)
    with pytest.raises(ShapeError, match=r"returns the shape \(2, 3\); expected \(2, 1\), one output for each column"):
        NeuralRegressor(nn.Linear(4, 3)).fit(X, X[:, 0])
    with pytest.raises(TypeError, match="dense data is required"):
        NeuralClassifier(Network).fit(scipy.sparse.csr_array(X), Y)


@pytest.mark.parametrize(
    "criterion, end",
    [(nn.CrossEntropyLoss, None), (nn.NLLLoss, nn.LogSoftmax(1)), (nn.BCEWithLogitsLoss, None), (nn.BCELoss, nn.Sigmoid())],
)
def test_probabilities_of_losses(criterion: Any, end: Any) -> None:
    binary = NAMES == "setosa"
    classifier = NeuralClassifier(Network, criterion, module__end=end, **fast()).fit(X, binary)
    found = classifier.predict_proba(X)
    assert classifier.score(X, binary) > 0.95 and found.shape == (150, 2)
    numpy.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
    numpy.testing.assert_array_equal(found[:, 1] > found[:, 0], classifier.predict(X))
    numpy.testing.assert_allclose(numpy.exp(classifier.predict_log_proba(X)), found, atol=1e-6)


def test_multilabel_targets() -> None:
    classifier = NeuralClassifier(Network, nn.BCEWithLogitsLoss, **fast(max_epochs=30)).fit(X, INDICATORS)
    assert classifier.score(X, INDICATORS) > 0.9 and classifier.predict_proba(X).shape == (150, 2)


F = nn.functional


@pytest.mark.parametrize(
    "criterion, y, message",
    [
        (nn.BCEWithLogitsLoss, Y, r"criterion=BCEWithLogitsLoss has one output for two classes, but y has the 3 classes \[0, 1"),
        (F.binary_cross_entropy, NAMES, "criterion=binary_cross_entropy has one output for two classes, but y has the 3 classes"),
        (nn.MultiLabelSoftMarginLoss(), Y, "criterion=MultiLabelSoftMarginLoss has one output for two classes"),
        (nn.CrossEntropyLoss, INDICATORS, "CrossEntropyLoss takes one class for each row, but y has indicators of 2 labels"),
        (lambda output, target: F.mse_loss(output, target), INDICATORS, "takes one class for each row"),
        (nn.MSELoss, Y, "criterion=MSELoss takes numbers as targets; expected a loss of classes, such as nn.CrossEntropyLoss"),
        (F.smooth_l1_loss, Y == 0, "criterion=smooth_l1_loss takes numbers as targets"),
        (partial(F.mse_loss, reduction="mean"), INDICATORS, "criterion=mse_loss takes numbers as targets"),
    ],
    ids=["three classes", "names", "object", "multilabel", "function", "numbers", "number function", "partial"],
)
def test_losses_that_do_not_take_the_target_are_refused(criterion: Any, y: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"NeuralClassifier: {message}" if message.startswith("criterion") else message):
        NeuralClassifier(Network, criterion).fit(X, y)


@pytest.mark.parametrize(
    "criterion, function, end",
    [
        (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, None),
        (nn.BCEWithLogitsLoss, partial(F.binary_cross_entropy_with_logits, reduction="mean"), None),
        (nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss, None),
        (nn.BCELoss, F.binary_cross_entropy, nn.Sigmoid()),
        (nn.NLLLoss, F.nll_loss, nn.LogSoftmax(1)),
    ],
    ids=["logits", "partial", "soft margin", "probabilities", "log probabilities"],
)
def test_functions_are_known_as_their_modules(criterion: Any, function: Any, end: Any) -> None:
    for y in (Y == 0, INDICATORS) if criterion is not nn.NLLLoss else (Y,):
        found, expected = (
            NeuralClassifier(Network, loss, module__end=end, **fast(max_epochs=3)).fit(X, y) for loss in (function, criterion)
        )
        assert found.out_activation_ == expected.out_activation_
        numpy.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-5)


CLASS_WEIGHTS = gpunet.tensor([1.0, 2.0, 9.0])


@pytest.mark.parametrize(
    "criterion, end",
    [
        (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), None),
        (nn.CrossEntropyLoss(ignore_index=1), None),
        (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=0, label_smoothing=0.2), None),
        (nn.NLLLoss(weight=CLASS_WEIGHTS), nn.LogSoftmax(1)),
        (nn.MultiMarginLoss(weight=CLASS_WEIGHTS), None),
    ],
    ids=["weight", "ignore_index", "all", "nll", "margin"],
)
def test_sample_weights_of_one_change_nothing(criterion: Any, end: Any) -> None:
    params = fast(max_epochs=3, dtype="float64", optimizer=optim.SGD, early_stopping=True, module__end=end)
    plain: Any = NeuralClassifier(Network, criterion, **params).fit(X, Y)
    for weight in (1.0, 2.0):
        weighted: Any = NeuralClassifier(Network, criterion, **params).fit(X, Y, numpy.full(150, weight))
        numpy.testing.assert_allclose(weighted.predict_proba(X), plain.predict_proba(X), rtol=1e-9)
        numpy.testing.assert_allclose(weighted.loss_curve_, plain.loss_curve_, rtol=1e-9)
        numpy.testing.assert_allclose(weighted.validation_losses_, plain.validation_losses_, rtol=1e-9)


def test_sample_weights_and_criteria() -> None:
    """Rows of weight 0 do not count; a function without ``reduction`` cannot be weighted."""
    params: dict[str, Any] = fast(shuffle=False, module__dropout=0.0, max_epochs=3, batch_size=150, dtype="float64")
    weight = numpy.repeat([1.0, 0.0], [100, 50])
    weighted = NeuralClassifier(Network, criterion__label_smoothing=0.1, **params).fit(X, Y, weight)
    expected = NeuralClassifier(Network, criterion__label_smoothing=0.1, classes=[0, 1, 2], **params).fit(X[:100], Y[:100])
    numpy.testing.assert_allclose(weighted.predict_proba(X), expected.predict_proba(X), rtol=1e-9)

    def criterion(output: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(output, target)

    NeuralClassifier(Network, criterion, **params).fit(X, Y)
    with pytest.raises(ArgumentError, match="weights need a loss for each row, which criterion does not return"):
        NeuralClassifier(Network, criterion, **params).fit(X, Y, weight)


def test_folds_without_a_class() -> None:
    """Sorted labels: each of three folds trains without the class that it is tested on."""
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):  # filled with 0
        found = cross_val_predict(NeuralClassifier(Network, **fast(max_epochs=2)), X, Y, cv=KFold(3), method="predict_proba")
    assert found.shape == (150, 3) and not found[:50, 0].any()
    classifier = NeuralClassifier(Network, classes=[0, 1, 2], **fast(max_epochs=2)).fit(X[:100], Y[:100])
    assert classifier.classes_.tolist() == [0, 1, 2] and classifier.predict_proba(X).shape == (150, 3)


def test_partial_fit_and_warm_start() -> None:
    classifier: Any = NeuralClassifier(Network, **fast(lr=0.05))
    with pytest.raises(ArgumentError, match="the first call needs all classes"):
        classifier.partial_fit(X, Y)
    for number in range(12):
        rows = numpy.arange(number % 3, 150, 3)
        classifier.partial_fit(X[rows], Y[rows], classes=[0, 1, 2] if number == 0 else None)
        if number == 5:
            classifier = pickle.loads(pickle.dumps(classifier))
    assert classifier.t_ == 600 and len(classifier.loss_curve_) == 12 and classifier.score(X, Y) > 0.8
    warm = NeuralClassifier(Network, warm_start=True, **fast(max_epochs=2)).fit(X, Y)
    module = warm.module_
    assert warm.fit(X, Y).module_ is module and len(warm.loss_curve_) == 4


def test_early_stopping_keeps_the_best_weights() -> None:
    states: list[dict[str, numpy.ndarray]] = []

    class Keep(Callback):
        def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
            states.append({name: value.detach().numpy().copy() for name, value in trainer.model.state_dict().items()})

    params = fast(max_epochs=200, lr=0.05, callbacks=[Keep()], validation_fraction=0.3, n_iter_no_change=4)
    classifier: Any = NeuralClassifier(Network, early_stopping=True, **params).fit(X, Y)
    scores = classifier.validation_scores_
    assert len(scores) == len(classifier.validation_losses_) == len(states) == classifier.n_iter_ < 200
    assert classifier.best_validation_score_ == max(scores)
    best, last = states[int(numpy.argmax(scores))], states[-1]
    for name, value in classifier.module_.state_dict().items():
        numpy.testing.assert_array_equal(value.detach().numpy(), best[name])
        assert (best[name] != last[name]).any()


def test_the_number_of_epochs_makes_no_more_copies_of_a_criterion() -> None:
    class Counted(nn.CrossEntropyLoss):
        copies = 0

        def __deepcopy__(self, memo: Any) -> Any:
            Counted.copies += 1
            return Counted()

    def num_copies(max_epochs: int) -> int:
        before = Counted.copies
        NeuralClassifier(Network, Counted(), early_stopping=True, n_iter_no_change=numpy.inf, max_epochs=max_epochs).fit(X, Y)
        return Counted.copies - before

    assert num_copies(2) == num_copies(6) > 0


def test_regressors_of_one_and_two_targets() -> None:
    target = X @ numpy.array([1.0, -2.0, 0.5, 0.0])

    class Flat(Network):
        def forward(self, x: Any) -> Any:
            return self.layers(x)[:, 0]

    for module, y in ((Network, target), (Flat, target), (Network, numpy.stack([target, -target], axis=1))):
        regressor = NeuralRegressor(module, nn.HuberLoss, **fast(max_epochs=60, module__dropout=0.0)).fit(X, y)
        assert regressor.predict(X).shape == y.shape and regressor.score(X, y) > 0.9


def test_a_module_is_copied_and_a_function_is_called() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before = module[1].weight.detach().numpy().copy()
    classifier = NeuralClassifier(module, **fast(max_epochs=2)).fit(X.reshape(150, 2, 2), Y)
    assert (module[1].weight.detach().numpy() == before).all() and (classifier.module_[1].weight.detach().numpy() != before).any()

    def make(n_outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, n_outputs), nn.BatchNorm1d(n_outputs))

    classifier = NeuralClassifier(make, **fast(batch_size=149)).fit(X, Y)  # a last batch of one row is left out
    assert classifier.score(X, Y) > 0.5


def test_integers_stay_integers_without_a_dtype() -> None:
    class Bag(nn.Module):
        def __init__(self, n_outputs: int) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(10, 8), nn.Linear(8, n_outputs)

        def forward(self, x: Any) -> Any:
            return self.linear(self.embedding(x).mean(1))

    tokens = numpy.random.RandomState(0).randint(0, 10, (200, 5))
    classifier = NeuralClassifier(Bag, dtype=None, **fast(lr=0.05)).fit(tokens, tokens.max(1) > 7)
    assert classifier.score(tokens, tokens.max(1) > 7) > 0.8


def test_pickles_hold_states_and_the_class_by_its_name() -> None:
    classifier = NeuralClassifier(Network, **fast(max_epochs=2)).fit(X, NAMES)
    text = pickle.dumps(classifier)
    assert b"Linear" not in text and b"Adam" in text  # the parameter `optimizer`
    numpy.testing.assert_array_equal(pickle.loads(text).predict_proba(X), classifier.predict_proba(X))
