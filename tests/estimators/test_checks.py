"""scikit-learn's checks of estimators, what they lack: parameters out of range, missing packages, workers of joblib."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import joblib
import threadpoolctl
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as ReferenceClassifier
from sklearn.neural_network import MLPRegressor as ReferenceRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, MissingDependencyError, ShapeError
from gpunet.estimators import MLPClassifier, MLPRegressor, NeuralClassifier, NeuralRegressor
from gpunet.estimators.threads import training

RANDOM = numpy.random.RandomState(0)
X = RANDOM.randn(60, 4)
Y = (X[:, :2].sum(1) > 0).astype(int)


class Network(nn.Module):
    """A hidden layer; its sizes are those of the data."""

    def __init__(self, n_features_in: int, n_outputs: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features_in, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


NEURAL: dict[str, Any] = {"lr": 0.02, "max_epochs": 100, "dtype": "float64"}
CHECKED = {
    "MLPClassifier": (MLPClassifier(max_iter=100), ReferenceClassifier),
    "MLPRegressor": (MLPRegressor(max_iter=100), ReferenceRegressor),
    "NeuralClassifier": (NeuralClassifier(Network, **NEURAL), ReferenceClassifier),
    "NeuralClassifier of labels": (NeuralClassifier(Network, nn.BCEWithLogitsLoss, **NEURAL), ReferenceClassifier),
    "NeuralRegressor": (NeuralRegressor(Network, **NEURAL), ReferenceRegressor),
}


# ---- scikit-learn's checks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.filterwarnings("ignore")  # the checks pass data on which training does not converge, and more
def test_checks_of_scikit_learn(name: str) -> None:
    estimator, reference = CHECKED[name]
    found = check_estimator(clone(estimator), on_fail=None, on_skip=None)
    assert {r["check_name"]: repr(r["exception"]) for r in found if r["status"] not in ("passed", "skipped")} == {}
    assert len(found) > 55
    skipped = {r["check_name"] for r in found if r["status"] == "skipped"}
    of_reference = set()
    for made, check in estimator_checks_generator(reference(max_iter=5)):
        if getattr(check, "func", check).__name__ in skipped:
            with pytest.raises(BaseException, match="SCIPY_ARRAY_API|decision_function|is not installed"):
                check(made)
            of_reference.add(getattr(check, "func", check).__name__)
    assert skipped == of_reference


# ---- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, message",
    [
        ({"hidden_layer_sizes": (10, 0)}, r"hidden_layer_sizes=\(10, 0\); expected one positive integer"),
        ({"activation": "sine"}, "activation='sine'; expected one of 'logistic', 'relu'"),
        ({"solver": "adamw"}, "solver='adamw'; expected one of 'adam', 'sgd', 'lbfgs'"),
        ({"alpha": -1.0}, r"alpha=-1.0; expected a number in \[0, inf\)"),
        ({"batch_size": 0}, "batch_size=0; expected an integer of 1 or more, or 'auto'"),
        ({"batch_size": True}, "batch_size=True; expected an integer"),
        ({"learning_rate_init": 0}, r"learning_rate_init=0; expected a number in \(0, inf\)"),
        ({"dropout": 1.0}, r"dropout=1.0; expected a number in \[0, 1\)"),
        ({"momentum": float("nan")}, "momentum=nan"),
        ({"n_iter_no_change": 2.5}, "n_iter_no_change=2.5; expected an integer of 1 or more, or inf"),
        ({"dtype": "float16"}, "dtype='float16'; expected one of 'auto', 'float32', 'float64'"),
        ({"capture": True}, "capture=True; expected one of 'numpy', 'numba', False"),
        ({"loss": "hinge"}, "loss='hinge'; expected 'log_loss', or a loss of gpunet"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver='lbfgs' minimizes one function, but with dropout=0.5"),
        ({"early_stopping": True, "validation_fraction": 0.01}, "validation_fraction=0.01 sets 1 of 60 rows aside"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"MLPClassifier: {message}"):
        MLPClassifier(**params).fit(X, Y)


def test_sample_weights_are_checked() -> None:
    classifier = MLPClassifier(max_iter=1)
    with pytest.raises(ShapeError, match=r"sample_weight has the shape \(59,\); expected \(60,\)"):
        classifier.fit(X, Y, numpy.ones(59))
    with pytest.raises(ArgumentError, match=r"sample_weight\[3\] is -1; expected no negative weight"):
        classifier.fit(X, Y, numpy.where(numpy.arange(60) == 3, -1.0, 1.0))
    with pytest.raises(ArgumentError, match="all sample weights are zero"):
        classifier.fit(X, Y, numpy.zeros(60))


def test_a_poisson_target_is_not_negative() -> None:
    with pytest.raises(ArgumentError, match="loss='poisson', but y has -1"):
        MLPRegressor("poisson").fit(X, numpy.where(numpy.arange(60) == 3, -1.0, 1.0))


def test_unconverged_training_warns_in_the_words_of_the_parameters() -> None:
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(ConvergenceWarning, match="not converged after max_iter=2 epochs"):
        MLPClassifier(max_iter=2).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="L-BFGS has not converged after 2 iterations"):
        MLPClassifier(max_iter=2, solver="lbfgs").fit(X, Y)


def test_divergence_is_an_error() -> None:
    with pytest.raises(gpunet.errors.GpunetError, match="diverged"):
        MLPRegressor(solver="sgd", learning_rate_init=10.0, max_iter=50).fit(1e3 * X, 1e3 * X[:, 0])


# ---- packages ---------------------------------------------------------------------------------------------------------


def test_a_missing_scikit_learn_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\nimport gpunet\n"
        "try: gpunet.estimators\nexcept ImportError as error: print(repr(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "gpunet.estimators needs scikit-learn 1.6 or newer: pip install 'gpunet[estimators]'"
    assert done.stdout.strip() == repr(MissingDependencyError(expected))


def test_training_imports_no_scikit_learn() -> None:
    code = "import sys, gpunet; gpunet.Trainer; gpunet.data; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- workers of joblib ------------------------------------------------------------------------------------------------


def threads_inside(_: int) -> tuple[int, int]:
    """The numbers of threads of gpunet and of BLAS in a training of this worker."""
    numpy.ones((2, 2)) @ numpy.ones((2, 2))
    with training():
        return gpunet.get_num_threads(), max(lib["num_threads"] for lib in threadpoolctl.threadpool_info())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = gpunet.get_num_threads()
    gpunet.set_num_threads(2)
    yield
    gpunet.set_num_threads(before)


@pytest.mark.parametrize("joblib_backend", ["loky", "threading"])
def test_a_worker_has_one_thread(joblib_backend: str, two_threads: None) -> None:
    assert joblib.Parallel(2, backend=joblib_backend)(joblib.delayed(threads_inside)(i) for i in range(4)) == [(1, 1)] * 4
    assert threads_inside(0)[0] == 2 and gpunet.get_num_threads() == 2


@pytest.mark.parametrize("joblib_backend", ["loky", "threading"])
def test_searches_find_the_same_in_workers(joblib_backend: str) -> None:
    """Dropout draws from the global generator of a process; trainings in threads take turns."""
    classifier = MLPClassifier((8,), max_iter=5, n_iter_no_change=9, dropout=0.2, batch_size=16, random_state=0, tol=0)
    estimator = make_pipeline(StandardScaler(), classifier)
    grid = {"mlpclassifier__hidden_layer_sizes": [(4,), (8,)], "mlpclassifier__activation": ["relu", "tanh"]}
    before = gpunet.get_num_threads(), gpunet.rand(3).tolist()
    gpunet.manual_seed(0)
    found = []
    for jobs in (1, 2):
        with joblib.parallel_config(backend=joblib_backend), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONWARNINGS", "ignore")  # of convergence, in other processes
            search = GridSearchCV(estimator, grid, n_jobs=jobs, cv=3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(search.fit(X, Y).cv_results_["mean_test_score"].tolist())
    assert found[0] == found[1] and len(set(found[0])) > 1
    assert (gpunet.get_num_threads(), gpunet.rand(3).tolist()) == before


def test_trainings_in_threads_have_the_bits_of_those_in_turns() -> None:
    def train(seed: int) -> numpy.ndarray:
        return NeuralClassifier(Network, max_epochs=5, batch_size=16, random_state=seed).fit(X, Y).predict_proba(X)

    expected = [train(seed) for seed in range(3)]
    found: dict[int, numpy.ndarray] = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: train(seed)})) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        numpy.testing.assert_array_equal(found[seed], expected[seed])
