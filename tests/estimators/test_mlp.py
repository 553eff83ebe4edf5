"""Perceptrons have the weights of scikit-learn's, for every solver, target and kind of input."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import scipy.sparse
from sklearn import datasets, neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError
from gpunet.estimators import MLPClassifier, MLPRegressor

X, Y = datasets.load_iris(return_X_y=True)
NAMES = numpy.array(["setosa", "versicolor", "virginica"])[Y]
INDICATORS = numpy.stack([Y == 0, Y > 0, Y == 1], axis=1).astype(int)
X_NUMBERS, NUMBERS = datasets.load_diabetes(return_X_y=True)
WEIGHT = numpy.random.RandomState(0).rand(len(Y))


@pytest.fixture(autouse=True)
def no_convergence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def both(kind: str, data: tuple[Any, ...], **params: Any) -> tuple[Any, Any]:
    """Our estimator and scikit-learn's, trained on the same data."""
    params = {"random_state": 0, "max_iter": 15, **params}
    ours = (MLPClassifier if kind == "classifier" else MLPRegressor)(**params)
    theirs = (neural_network.MLPClassifier if kind == "classifier" else neural_network.MLPRegressor)(**params)
    return ours.fit(*data), theirs.fit(*data)


def check_equal(ours: Any, theirs: Any, rtol: float = 1e-9) -> None:
    """Compare weights, biases and what both tell of the training."""
    assert len(ours.coefs_) == len(theirs.coefs_)
    for found, expected in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        numpy.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-10)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        if ours.solver != "lbfgs" or name != "t_":
            assert getattr(ours, name) == getattr(theirs, name), name


VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {},
    "two hidden layers": {"hidden_layer_sizes": (20, 10), "activation": "tanh"},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "logistic": {"activation": "logistic", "hidden_layer_sizes": 7},
    "identity": {"activation": "identity"},
    "alpha": {"alpha": 0.3, "batch_size": 32},
    "no alpha": {"alpha": 0.0, "batch_size": 32, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3},
    "no shuffle": {"shuffle": False, "batch_size": 40},
    "stops": {"tol": 0.05, "n_iter_no_change": 2, "learning_rate_init": 0.01, "max_iter": 100},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.02, "max_iter": 60},
    "sgd": {"solver": "sgd", "batch_size": 32},
    "sgd without momentum": {"solver": "sgd", "momentum": 0.0},
    "sgd without Nesterov": {"solver": "sgd", "nesterovs_momentum": False},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 2},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "lbfgs": {"solver": "lbfgs"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_classifier_has_the_weights_of_scikit_learn(name: str) -> None:
    ours, theirs = both("classifier", (X, NAMES), **VARIANTS[name])
    check_equal(ours, theirs, rtol=1e-6 if name == "lbfgs" else 1e-9)
    numpy.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    numpy.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-2 if name == "alpha" else 1e-4)
    if ours.early_stopping:
        numpy.testing.assert_array_equal(ours.validation_scores_, theirs.validation_scores_)
        assert ours.best_validation_score_ == theirs.best_validation_score_ and ours.best_loss_ is None
        assert len(ours.validation_losses_) == ours.n_iter_ and min(ours.validation_losses_) > 0.0
    elif ours.solver != "lbfgs":
        assert len(ours.loss_curve_) == len(theirs.loss_curve_)
        assert ours.validation_scores_ is None and ours.best_loss_ == min(ours.loss_curve_)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("target", [Y == 0, INDICATORS, numpy.ones(150, int)], ids=["binary", "multilabel", "one class"])
def test_classifier_of_other_targets(target: numpy.ndarray, solver: str) -> None:
    ours, theirs = both("classifier", (X, target), solver=solver)
    check_equal(ours, theirs, rtol=1e-5)
    if len(theirs.classes_) > 1:
        numpy.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-7)
    numpy.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.predict(X).dtype == target.dtype


def test_multilabel_targets_may_be_sparse() -> None:
    classifier = MLPClassifier(max_iter=5, random_state=0).fit(X, scipy.sparse.csr_array(INDICATORS))
    dense = clone(classifier).fit(X, INDICATORS).predict(X)
    numpy.testing.assert_array_equal(classifier.predict(X).toarray(), dense)


@pytest.mark.parametrize(
    "params",
    [{}, {"loss": "poisson"}, {"solver": "lbfgs"}, {"early_stopping": True}, {"solver": "sgd", "learning_rate_init": 1e-5}],
    ids=str,
)
def test_regressor_has_the_weights_of_scikit_learn(params: dict[str, Any]) -> None:
    ours, theirs = both("regressor", (X_NUMBERS, NUMBERS), **params)
    check_equal(ours, theirs, rtol=1e-6)
    numpy.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-6)


def test_regressor_of_two_targets() -> None:
    ours, theirs = both("regressor", (X_NUMBERS, numpy.stack([NUMBERS, -NUMBERS], axis=1)))
    check_equal(ours, theirs)
    assert ours.predict(X_NUMBERS).shape == (442, 2)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("target", [Y, Y == 0, INDICATORS], ids=["classes", "binary", "multilabel"])
def test_sample_weights(target: numpy.ndarray, solver: str) -> None:
    check_equal(*both("classifier", (X, target, WEIGHT), solver=solver, batch_size=40), rtol=1e-5)


def test_a_batch_without_weight_changes_nothing() -> None:
    """Neither by a gradient nor by the decay of weights; without momentum, whose steps go on."""
    order = numpy.random.RandomState(1).permutation(150)
    x, y, weight = X[order], Y[order], numpy.repeat([0.0, 1.0], [100, 50])
    params: dict[str, Any] = {"solver": "sgd", "momentum": 0.0, "alpha": 0.5, "batch_size": 50, "max_iter": 3, "shuffle": False}
    found = MLPClassifier(random_state=0, **params).fit(x, y, weight)
    expected = MLPClassifier(random_state=0, **params).fit(x[100:], y[100:])
    for ours, theirs in zip(found.coefs_ + found.intercepts_, expected.coefs_ + expected.intercepts_):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert numpy.isfinite(found.loss_curve_).all()


def test_class_weights_are_sample_weights() -> None:
    weights = {"setosa": 1.0, "versicolor": 3.0, "virginica": 0.5}
    of_classes = MLPClassifier(max_iter=5, random_state=0, class_weight=weights).fit(X, NAMES, WEIGHT)
    of_rows = MLPClassifier(max_iter=5, random_state=0).fit(X, NAMES, WEIGHT * [weights[name] for name in NAMES])
    numpy.testing.assert_array_equal(of_classes.predict_proba(X), of_rows.predict_proba(X))
    unbalanced = numpy.r_[0:50, 50:60, 100:105]
    plain, balanced = (
        MLPClassifier(max_iter=100, random_state=0, class_weight=given).fit(X[unbalanced], Y[unbalanced]).predict(X)
        for given in (None, "balanced")
    )
    assert accuracy_score(Y, balanced) > accuracy_score(Y, plain)


@pytest.mark.parametrize("batch", [slice(100), slice(50, 150), slice(150)], ids=["first two", "last two", "all"])
def test_class_weights_of_a_batch_that_lacks_classes(batch: slice) -> None:
    for names, classes in ((NAMES, numpy.unique(NAMES)), (Y, [0, 1, 2]), (Y == 0, [False, True])):
        weights = {classes[-1]: 3.0, classes[0]: 0.5}
        of_rows = numpy.array([weights.get(name, 1.0) for name in names[batch]])
        found = MLPClassifier(random_state=0, class_weight=weights).partial_fit(X[batch], names[batch], classes=classes)
        expected = MLPClassifier(random_state=0).partial_fit(X[batch], names[batch], of_rows, classes=classes)
        numpy.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize(
    "class_weight, y, message",
    [
        ({0: -1.0}, Y, r"class_weight=\{0: -1.0\}; expected a dict with a finite weight of 0 or more for each class, 'balanced'"),
        ({0: numpy.inf}, Y, "class_weight={0: inf}; expected a dict"),
        ({0: "2"}, Y, "class_weight={0: '2'}; expected a dict"),
        ([1.0, 2.0, 3.0], Y, r"class_weight=\[1.0, 2.0, 3.0\]; expected a dict"),
        ("balance", Y, "class_weight='balance'; expected a dict"),
        ({7: 2.0, 0: 1.0}, Y, r"class_weight has the keys \[7\], which are not among the classes \[0, 1, 2\]"),
        ({0: 2.0}, INDICATORS, r"class_weight=\{0: 2.0\}, but y has indicators of 3 labels; pass sample_weight"),
        ({0: 0, 1: 0, 2: 0}, Y, r"class_weight=\{0: 0, 1: 0, 2: 0\} times sample_weight gives each row the weight 0"),
    ],
    ids=["negative", "inf", "text", "list", "name", "unknown key", "multilabel", "zeros"],
)
def test_class_weights_are_checked(class_weight: Any, y: numpy.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"MLPClassifier: {message}"):
        MLPClassifier(class_weight=class_weight).fit(X, y, WEIGHT)


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_data_frames(module: str) -> None:
    frames = pytest.importorskip(module)
    frame = frames.DataFrame({f"column {i}": X[:, i] for i in range(4)})
    classifier = MLPClassifier(max_iter=3, random_state=0).fit(frame, frames.Series(NAMES.tolist()))
    assert classifier.feature_names_in_.tolist() == [f"column {i}" for i in range(4)]
    expected = MLPClassifier(max_iter=3, random_state=0).fit(X, NAMES).predict_proba(X)
    numpy.testing.assert_array_equal(classifier.predict_proba(frame), expected)


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_array])
def test_sparse_inputs(form: Any) -> None:
    classifier = MLPClassifier(max_iter=3, batch_size=40, random_state=0, early_stopping=True).fit(form(X), Y)
    expected = clone(classifier).fit(X, Y)
    numpy.testing.assert_array_equal(classifier.predict_proba(form(X)), expected.predict_proba(X))


# ---- continued trainings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_continues_through_a_pickle(solver: str) -> None:
    ours: Any = MLPClassifier(random_state=0, solver=solver, batch_size=10)
    theirs = neural_network.MLPClassifier(random_state=0, solver=solver, batch_size=10)
    for part in range(6):
        rows = slice(25 * part, 25 * part + 25)  # each part lacks classes
        for estimator in (ours, theirs):
            estimator.partial_fit(X[rows], NAMES[rows], classes=numpy.unique(NAMES) if part == 0 else None)
        if part == 2:
            ours = pickle.loads(pickle.dumps(ours))
    check_equal(ours, theirs)
    assert len(ours.loss_curve_) == 6


def test_partial_fit_of_a_regressor() -> None:
    ours, theirs = MLPRegressor(random_state=0), neural_network.MLPRegressor(random_state=0)
    for rows in (slice(200), slice(200, 442)):
        ours.partial_fit(X_NUMBERS[rows], NUMBERS[rows])
        theirs.partial_fit(X_NUMBERS[rows], NUMBERS[rows])
    check_equal(ours, theirs)


def test_partial_fit_checks_the_classes() -> None:
    classifier = MLPClassifier(random_state=0)
    with pytest.raises(ArgumentError, match="the first call needs all classes"):
        classifier.partial_fit(X, Y)
    classifier.partial_fit(X[:50], Y[:50], classes=[0, 1])
    with pytest.raises(ArgumentError, match=r"classes=\[0, 1, 2\], but the first call had \[0, 1\]"):
        classifier.partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ArgumentError, match=r"y has the classes \[0, 1, 2\], of which \[2\] are not among the classes \[0, 1\]"):
        classifier.partial_fit(X, Y)
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with pytest.raises(ArgumentError, match="class_weight='balanced' needs the frequencies of all rows"):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ArgumentError, match="one pass does not stop early"):
        MLPClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])


@pytest.mark.parametrize(
    "first, later, message",
    [
        (Y, INDICATORS, r"y has the shape \(150, 3\); expected \(n,\), one class for each row, as in the first call"),
        (Y, scipy.sparse.csr_array(INDICATORS), r"y has the shape \(150, 3\); expected \(n,\), one class"),
        (Y == 0, INDICATORS, r"y has the shape \(150, 3\); expected \(n,\), one class"),
        (INDICATORS, Y, r"y has the shape \(150,\); expected \(n, 3\), indicators of labels, as in the first call"),
        (INDICATORS, INDICATORS[:, :2], r"y has the shape \(150, 2\); expected 3 columns, one for each label"),
        (INDICATORS, INDICATORS * 2, r"y has the shape \(150, 3\) and the value 2; expected 0 or 1 for each label"),
        (INDICATORS, scipy.sparse.csr_array(INDICATORS * 2 - 1), r"y has the shape .* and the value -1; expected 0 or 1"),
    ],
    ids=["indicators", "sparse", "binary", "classes", "fewer labels", "value 2", "value -1"],
)
def test_a_later_target_is_of_the_first_ones_kind(first: Any, later: Any, message: str) -> None:
    classifier = MLPClassifier(random_state=0, max_iter=2).partial_fit(X, first, classes=numpy.unique(first))
    expected = classifier.predict_proba(X)
    with pytest.raises(ArgumentError, match=f"MLPClassifier: {message}"):
        classifier.partial_fit(X, later)
    with pytest.raises(ArgumentError, match=f"MLPClassifier: {message}"):
        classifier.set_params(warm_start=True).fit(X, later)
    numpy.testing.assert_array_equal(classifier.predict_proba(X), expected)


def test_indicators_of_a_first_target_are_0_and_1() -> None:
    for given in (INDICATORS * 2, INDICATORS + numpy.arange(3), numpy.where(INDICATORS, "yes", "no")):
        with pytest.raises(ArgumentError, match=r"y has the shape \(150, 3\) and the value (2|3|'yes'); expected 0 or 1"):
            MLPClassifier().fit(X, given)


@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_a_sparse_column_is_a_column() -> None:
    params: dict[str, Any] = {"max_iter": 2, "random_state": 0}
    found = MLPClassifier(**params).fit(X, scipy.sparse.csr_array(INDICATORS[:, :1])).predict_proba(X)
    numpy.testing.assert_array_equal(found, MLPClassifier(**params).fit(X, INDICATORS[:, 0]).predict_proba(X))


def test_partial_fit_needs_the_classes_after_a_failure() -> None:
    classifier = MLPClassifier(random_state=0)
    with pytest.raises(ArgumentError, match="one pass does not stop early"):
        classifier.set_params(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ArgumentError, match="the first call needs all classes"):
        classifier.set_params(early_stopping=False).partial_fit(X[:100], Y[:100])
    assert classifier.partial_fit(X[:100], Y[:100], classes=[0, 1, 2, 3]).classes_.tolist() == [0, 1, 2, 3]


def test_warm_start_continues() -> None:
    ours = MLPClassifier(random_state=0, max_iter=4, warm_start=True)
    theirs = neural_network.MLPClassifier(random_state=0, max_iter=4, warm_start=True)
    for _ in range(3):
        ours.fit(X, Y)
        theirs.fit(X, Y)
    check_equal(ours, theirs)
    assert len(ours.loss_curve_) == 12
    with pytest.raises(ArgumentError, match="warm_start=True continues with the classes"):
        ours.fit(X, Y + 1)


# ---- what scikit-learn does not have ----------------------------------------------------------------------------------


def test_dropout_and_batch_norm_follow_from_the_seed() -> None:
    """149 rows leave a last batch of one, which batch norm would refuse."""
    params: dict[str, Any] = {"dropout": 0.4, "batch_norm": True, "batch_size": 37, "max_iter": 10, "random_state": 1}
    before = gpunet.rand(2).tolist()
    gpunet.manual_seed(0)
    first = MLPClassifier((30,), **params).fit(X[:149], Y[:149])
    assert gpunet.rand(2).tolist() == before
    again = MLPClassifier((30,), **params).fit(X[:149], Y[:149])
    numpy.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert isinstance(first.module_[1], nn.BatchNorm1d) and isinstance(first.module_[3], nn.Dropout)
    other = MLPClassifier((30,), **{**params, "random_state": 2}).fit(X[:149], Y[:149])
    assert (first.predict_proba(X) != other.predict_proba(X)).any()


def test_without_a_seed_trainings_differ_and_follow_from_numpys() -> None:
    def train() -> numpy.ndarray:
        found: numpy.ndarray = MLPClassifier((5,), max_iter=2).fit(X, Y).coefs_[0]
        return found

    numpy.random.seed(3)  # noqa: NPY002
    first, second = train(), train()
    numpy.random.seed(3)  # noqa: NPY002
    numpy.testing.assert_array_equal(train(), first)
    assert (first != second).all()


def test_any_random_state_of_numpy() -> None:
    def train() -> numpy.ndarray:
        state = numpy.random.RandomState(numpy.random.PCG64(3))
        return MLPClassifier((5,), dropout=0.2, max_iter=2, random_state=state).fit(X, Y).predict_proba(X)

    numpy.testing.assert_array_equal(train(), train())


def test_an_estimator_whose_fit_failed_is_not_fitted() -> None:
    """Otherwise it would predict from the first weights."""
    classifier = MLPClassifier(max_iter=2).fit(X, Y).set_params(early_stopping=True, validation_fraction=0.001)
    with pytest.raises(ArgumentError, match="rows aside"):
        classifier.fit(X, Y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.MultiMarginLoss()], ids=repr)
@pytest.mark.parametrize("target", [Y, Y == 0], ids=["classes", "binary"])
def test_classifier_with_a_loss_of_gpunet(loss: nn.Module, target: numpy.ndarray) -> None:
    x = StandardScaler().fit_transform(X)
    for weight in (None, numpy.ones(150)):
        classifier = MLPClassifier(max_iter=100, learning_rate_init=0.01, loss=loss, random_state=0).fit(x, target, weight)
        assert classifier.score(x, target) > 0.95
        assert classifier.predict_proba(x).shape == (150, len(classifier.classes_))


@pytest.mark.parametrize("target", [Y == 0, INDICATORS], ids=["binary", "multilabel"])
def test_binary_losses_have_sigmoids(target: numpy.ndarray) -> None:
    """The log loss of scikit-learn is summed over the labels, the loss of gpunet is their mean."""
    params: dict[str, Any] = {"max_iter": 5, "random_state": 0, "alpha": 0.0, "epsilon": 1e-300}
    plain, found = (MLPClassifier(loss=loss, **params).fit(X, target) for loss in ("log_loss", nn.BCEWithLogitsLoss()))
    assert found.out_activation_ == "logistic"
    numpy.testing.assert_allclose(found.predict_proba(X), plain.predict_proba(X), rtol=1e-7)


@pytest.mark.parametrize(
    "loss, y, message",
    [
        (nn.BCEWithLogitsLoss(), Y, "loss=BCEWithLogitsLoss has one output for two classes, but y has the 3 classes"),
        (nn.CrossEntropyLoss(), INDICATORS, "loss=CrossEntropyLoss takes one class for each row, but y has indicators of 3 labels"),
        (nn.L1Loss(), Y, "loss=L1Loss takes numbers as targets"),
        (nn.NLLLoss(), Y, "loss=NLLLoss takes log-probabilities, but the network returns logits; pass nn.CrossEntropyLoss"),
        (nn.BCELoss(), Y == 0, "loss=BCELoss takes probabilities, but the network returns logits; pass nn.BCEWithLogitsLoss"),
        (nn.CrossEntropyLoss(reduction="sum"), Y, "CrossEntropyLoss has reduction='sum'; expected reduction='mean'"),
    ],
    ids=["three classes", "multilabel", "numbers", "log-probabilities", "probabilities", "sum"],
)
def test_losses_that_do_not_take_the_target_are_refused(loss: nn.Module, y: numpy.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"MLPClassifier: {message}"):
        MLPClassifier(loss=loss).fit(X, y)


def test_sample_weights_of_one_change_nothing() -> None:
    loss = nn.CrossEntropyLoss(weight=gpunet.tensor([1.0, 2.0, 9.0]), ignore_index=0)
    plain, weighted = (
        MLPClassifier(loss=loss, max_iter=3, batch_size=40, solver="sgd", random_state=0).fit(X, Y, weight)
        for weight in (None, numpy.ones(150))
    )
    numpy.testing.assert_allclose(weighted.predict_proba(X), plain.predict_proba(X), rtol=1e-9)
    numpy.testing.assert_allclose(weighted.loss_curve_, plain.loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", nn.SmoothL1Loss()], ids=str)
def test_regressor_with_other_losses(loss: Any) -> None:
    x = StandardScaler().fit_transform(X_NUMBERS)
    y = (NUMBERS - NUMBERS.mean()) / NUMBERS.std()
    assert MLPRegressor(loss, max_iter=60, learning_rate_init=0.01, random_state=0).fit(x, y).score(x, y) > 0.5
    plain, weighted = (
        MLPRegressor(loss, max_iter=3, alpha=0.0, random_state=0).fit(x, y, weight) for weight in (None, numpy.full(442, 2.0))
    )
    numpy.testing.assert_allclose(weighted.coefs_[0], plain.coefs_[0], rtol=1e-9)  # a weighted mean of rows is a mean


def test_pickles_and_copies_hold_states_alone() -> None:
    classifier = MLPClassifier((8,), batch_norm=True, dropout=0.1, max_iter=3, random_state=0, loss=nn.CrossEntropyLoss())
    classifier.fit(X, NAMES)
    text = pickle.dumps(classifier)
    assert b"BatchNorm1d" not in text and b"Sequential" not in text and b"Adam" not in text
    for copied in (pickle.loads(text), copy.deepcopy(classifier)):
        numpy.testing.assert_array_equal(copied.predict_proba(X), classifier.predict_proba(X))
        assert copied.loss_curve_ == classifier.loss_curve_


def test_parameters_that_are_set_later_change_no_prediction() -> None:
    """Neither in the estimator nor in a pickle of it, which builds the network anew."""
    classifier: Any = MLPClassifier((8,), max_iter=3, random_state=0).fit(X, Y == 0)
    regressor: Any = MLPRegressor(hidden_layer_sizes=(8,), max_iter=3, random_state=0).fit(X_NUMBERS, NUMBERS)
    for estimator, x, loss in ((classifier, X, nn.CrossEntropyLoss()), (regressor, X_NUMBERS, "poisson")):
        expected = estimator.predict(x)
        estimator.set_params(hidden_layer_sizes=(9, 9), activation="tanh", loss=loss, solver="sgd", batch_norm=True)
        for found in (estimator, pickle.loads(pickle.dumps(estimator))):
            numpy.testing.assert_array_equal(found.predict(x), expected)
    with pytest.raises(ArgumentError, match="changes the activation of the outputs from 'logistic' to 'softmax'"):
        classifier.partial_fit(X, Y == 0)


def test_a_pickle_of_a_device_that_is_not_here_predicts_on_the_cpu() -> None:
    classifier = MLPClassifier((8,), max_iter=3, random_state=0).fit(X, Y)
    classifier.device = "cuda:99"
    with pytest.warns(UserWarning, match="trained on device='cuda:99', which is not here; it predicts on the CPU"):
        copied = pickle.loads(pickle.dumps(classifier))
    numpy.testing.assert_array_equal(copied.predict_proba(X), classifier.predict_proba(X))


def test_dtypes() -> None:
    params: dict[str, Any] = {"max_iter": 10, "random_state": 0}
    double = MLPClassifier(**params).fit(X, Y)
    for single in (MLPClassifier(**params).fit(X.astype("f4"), Y), MLPClassifier(dtype="float32", **params).fit(X, Y)):
        assert single.coefs_[0].dtype == single.predict_proba(X).dtype == numpy.float32
        numpy.testing.assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=1e-4)
    assert MLPClassifier(solver="lbfgs", **params).fit(X.astype("f4"), Y).coefs_[0].dtype == numpy.float64
    parts = MLPClassifier(random_state=0).partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X.astype("f4"), Y)
    assert parts.coefs_[0].dtype == numpy.float64


def test_other_devices_compute_the_same(device: str) -> None:
    params: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 2, "batch_size": 75, "random_state": 0, "dtype": "float32"}
    here = MLPClassifier(device="cpu", early_stopping=True, **params).fit(X, Y, WEIGHT)
    there = MLPClassifier(device=device, early_stopping=True, **params).fit(X, Y, WEIGHT)
    assert {p.device.type for p in there.module_.parameters()} == {device.partition(":")[0]}
    numpy.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-5)
    numpy.testing.assert_allclose(pickle.loads(pickle.dumps(there)).coefs_[0], here.coefs_[0], atol=1e-5)
    loss = nn.CrossEntropyLoss(weight=gpunet.tensor([1.0, 2.0, 9.0]))
    on_host, on_device = (MLPClassifier(device=given, loss=loss, **params).fit(X, Y, WEIGHT) for given in ("cpu", device))
    numpy.testing.assert_allclose(on_device.predict_proba(X), on_host.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("capture", ["numba", False])
def test_captured_steps_compute_the_same(capture: Any) -> None:
    if capture:
        pytest.importorskip("numba")
    params: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 40, "random_state": 0, "n_iter_no_change": 99}
    found, expected = (MLPClassifier(capture=given, **params).fit(X, Y).coefs_[0] for given in (capture, "numpy"))
    numpy.testing.assert_allclose(found, expected, rtol=1e-7 if capture else 0.0)


@pytest.mark.parametrize("params", [{}, {"solver": "sgd", "learning_rate": "invscaling"}, {"early_stopping": True}], ids=str)
def test_a_training_is_recorded_once_for_each_size_of_batch(params: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Penalty, epsilon and learning rate change from step to step, and are no part of a recording."""
    with caplog.at_level("INFO", logger="gpunet.captured.step"):
        MLPClassifier((5,), max_iter=20, batch_size=40, random_state=0, n_iter_no_change=99, **params).fit(X, Y)
    again = [record.getMessage() for record in caplog.records]
    assert len(again) == 1 and "changed: the arguments" in again[0]  # of 40 rows, and of the rest


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris", "diabetes"])
def test_scores_on_the_bundled_data_are_those_of_scikit_learn(name: str) -> None:
    """By the same seeds, in float32 as well; over 10 seeds their mean differs by less than a quarter of their spread."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    kind = "regressor" if name == "diabetes" else "classifier"
    scores = []
    for seed in range(10):
        train_x, test_x, train_y, test_y = train_test_split(x, y, random_state=seed)
        scale = StandardScaler().fit(train_x)
        row = [m.score(scale.transform(test_x), test_y) for m in both(kind, (scale.transform(train_x), train_y), random_state=seed,
                                                                      max_iter=100)]  # fmt: skip
        ours = (MLPRegressor if kind == "regressor" else MLPClassifier)(random_state=seed, max_iter=100, dtype="float32")
        scores.append([*row, ours.fit(scale.transform(train_x), train_y).score(scale.transform(test_x), test_y)])
    mean, spread = numpy.mean(scores, axis=0), numpy.std(scores, axis=0).max()
    print(f"{name}: scikit-learn {mean[1]:.4f}, gpunet {mean[0]:.4f}, in float32 {mean[2]:.4f}, spread {spread:.4f}")
    assert abs(mean[0] - mean[1]) <= 0.25 * spread and abs(mean[2] - mean[1]) <= 0.25 * spread
