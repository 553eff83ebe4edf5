"""SweepClassifier and SweepRegressor: GridSearchCV's results."""

from __future__ import annotations

import pickle
from typing import Any

import numpy
import pytest

pytest.importorskip("sklearn", reason="pip install 'gpunet[estimators]'")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier

import gpunet
from gpunet.errors import ArgumentError, GpunetError
from gpunet.estimators import SweepClassifier, SweepRegressor

GRID = {"lr": [1e-3, 3e-2], "hidden": ["4", "8"]}


def rows() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(150, 3))
    return x, numpy.array(["no", "yes"])[(x[:, 0] > x[:, 1]).astype(int)]


def make(**options: Any) -> SweepClassifier:
    return SweepClassifier(GRID, **{"sampler": "grid", "epochs": 4, "cv": 3, "random_state": 0, "capture": "numpy", **options})


def test_results_are_those_of_grid_search() -> None:
    x, y = rows()
    search = make().fit(x, y)
    peer = GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2], "min_samples_leaf": [1, 2]}, cv=3).fit(x, y)
    names = {name for name in peer.cv_results_ if not name.startswith("param_")}
    assert set(search.cv_results_) == names | {"param_lr", "param_hidden"}
    results = search.cv_results_
    splits = numpy.array([results[f"split{fold}_test_score"] for fold in range(3)])
    numpy.testing.assert_allclose(results["mean_test_score"], splits.mean(0))
    numpy.testing.assert_allclose(results["std_test_score"], splits.std(0))
    assert results["params"] == [{"lr": lr, "hidden": hidden} for lr in GRID["lr"] for hidden in GRID["hidden"]]
    assert results["param_lr"].tolist() == [1e-3, 1e-3, 3e-2, 3e-2]
    assert results["rank_test_score"][search.best_index_] == 1
    assert results["rank_test_score"].dtype == peer.cv_results_["rank_test_score"].dtype
    assert search.best_params_ == results["params"][search.best_index_]
    assert search.best_score_ == results["mean_test_score"].max()
    assert search.n_splits_ == 3
    assert search.best_params_["lr"] == 3e-2
    assert search.score(x, y) > 0.85


def test_predictions() -> None:
    x, y = rows()
    state = gpunet.get_rng_state()
    search = make(epochs=10).fit(x, y)
    assert (gpunet.get_rng_state() == state).all()
    shares = search.predict_proba(x)
    assert shares.shape == (150, 2)
    numpy.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-5)
    assert (search.classes_[shares.argmax(1)] == search.predict(x)).all()
    again = pickle.loads(pickle.dumps(search))
    numpy.testing.assert_array_equal(again.predict_proba(x), shares)
    same = clone(search).fit(x, y)
    numpy.testing.assert_array_equal(same.predict_proba(x), shares)
    without = make(refit=False).fit(x, y)
    with pytest.raises(ArgumentError, match="pass refit=True"):
        without.predict(x)
    with pytest.raises(NotFittedError):
        make().predict(x)


def test_folds_are_scikit_learns() -> None:
    x, y = rows()
    found = make().fit(x, y).cv_results_
    for cv in (StratifiedKFold(3), list(StratifiedKFold(3).split(x, y))):
        numpy.testing.assert_array_equal(make(cv=cv).fit(x, y).cv_results_["mean_test_score"], found["mean_test_score"])
    others = make(cv=KFold(3, shuffle=True, random_state=1)).fit(x, y).cv_results_
    assert (others["mean_test_score"] != found["mean_test_score"]).any()


def test_regressor() -> None:
    x, _ = rows()
    y = x @ [1.0, -2.0, 0.5]
    search = SweepRegressor(GRID, sampler="grid", epochs=30, cv=3, random_state=0, capture="numpy", halving=2).fit(x, y)
    assert search.predict(x).shape == (150,)
    assert search.score(x, y) > 0.9
    both = SweepRegressor({"lr": 3e-2}, n_iter=1, epochs=30, cv=2, random_state=0, capture="numpy").fit(x, numpy.stack([y, -y], 1))
    assert both.predict(x).shape == (150, 2)
    assert both.n_outputs_ == 2


def test_candidates_that_diverge_rank_last() -> None:
    x, y = rows()
    ranges = {"lr": [1e30, 1e-2], "optimizer": "sgd"}
    search = SweepClassifier(ranges, sampler="grid", epochs=2, cv=2, random_state=0, capture="numpy").fit(x, y)
    assert search.best_index_ == 1
    assert search.cv_results_["rank_test_score"].tolist() == [2, 1]
    assert numpy.isnan(search.cv_results_["mean_test_score"][0])
    with pytest.raises(GpunetError, match="all candidates became infinite or NaN"):
        SweepClassifier({**ranges, "lr": 1e30}, n_iter=2, epochs=2, cv=2, capture="numpy").fit(x, y)


def test_wrong_parameters() -> None:
    x, y = rows()
    for options, message in (
        ({"epochs": 0}, "epochs=0"), ({"sampler": "bayes"}, "sampler='bayes'"), ({"halving": 1}, "halving=1"),
        ({"patience": 0}, "patience=0"), ({"refit": "yes"}, "refit='yes'"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=message):
            make(**options).fit(x, y)
    with pytest.raises(ArgumentError, match="unknown hyperparameter"):
        SweepClassifier({"rate": 1}).fit(x, y)
    with pytest.raises(ArgumentError, match="y has 1 class"):
        make().fit(x, numpy.zeros(len(x), int))
