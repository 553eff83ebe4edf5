"""gpunet.estimators beside scikit-learn's perceptrons: test scores on its data sets, and the time of a fit on digits.

    python bench/estimators.py
    python bench/estimators.py --seeds 0 --rounds 5

Scores are means over seeds, each with its own split; both have the same weights at the start and the same batches.  In the times
both have the same architecture, batch size, number of epochs and dtype, and take turns in one run; a fit contains the recording
of the captured step.  A row shows the median seconds of both and the median of scikit-learn's time / ours, with the range of
single rounds.  The fit that compiles the step of "numba", for every process later, is not among them, but printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import numpy
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from gpunet import estimators

#: Rows of a batch, and epochs, of the timed fits; 200 rows are scikit-learn's default.
CASES = ((200, 200), (32, 50))
NAMES = ("digits", "breast_cancer", "wine", "iris", "diabetes")
#: Every epoch is run, whatever the loss.
EQUAL: dict[str, Any] = {"hidden_layer_sizes": (100,), "tol": 0.0, "n_iter_no_change": numpy.inf, "random_state": 0}


def compare_scores(num_seeds: int) -> None:
    print(f"{'test score':16}{'scikit-learn':>18}{'gpunet':>18}{'gpunet, float32':>18}   mean ± deviation over {num_seeds} seeds")
    for name in NAMES:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
        theirs, ours = getattr(neural_network, kind), getattr(estimators, kind)
        epochs = 1000 if name == "diabetes" else 200  # its targets are large numbers
        scores: list[list[float]] = [[], [], []]
        for seed in range(num_seeds):
            train_x, test_x, train_y, test_y = train_test_split(x, y, random_state=seed)
            scale = StandardScaler().fit(train_x)
            params: dict[str, Any] = {"random_state": seed, "max_iter": epochs}
            made = theirs(**params), ours(**params), ours(dtype="float32", **params)
            for of_kind, estimator in zip(scores, made):
                of_kind.append(estimator.fit(scale.transform(train_x), train_y).score(scale.transform(test_x), test_y))
        cells = "".join(f"{f'{numpy.mean(s):.4f} ± {numpy.std(s):.4f}':>18}" for s in scores)
        print(f"{name:16}{cells}", flush=True)


def compare_times(batch_size: int, epochs: int, rounds: int) -> None:
    x, y = datasets.load_digits(return_X_y=True)
    print(f"\n{f'{epochs} epochs of digits by {batch_size}':28}{'scikit-learn':>14}{'gpunet':>10}{'ratio':>8}")
    for dtype in ("float32", "float64"):
        features = (x / 16.0).astype(dtype)
        for capture in ("numba", "numpy"):
            params = {**EQUAL, "max_iter": epochs, "batch_size": batch_size}
            first = _seconds(estimators.MLPClassifier(capture=capture, **params), features, y)
            theirs, ours = [], []
            for _ in range(rounds):
                theirs.append(_seconds(neural_network.MLPClassifier(**params), features, y))
                ours.append(_seconds(estimators.MLPClassifier(capture=capture, **params), features, y))
            ratios = [a / b for a, b in zip(theirs, ours)]
            row = f"{statistics.median(theirs):12.3f} s{statistics.median(ours):8.3f} s{statistics.median(ratios):8.2f}"
            spread = f"({min(ratios):.2f} to {max(ratios):.2f}; first fit {first:.2f} s)"
            print(f"{f'{dtype}, capture={capture!r}':28}{row}   {spread}", flush=True)


def _seconds(estimator: Any, x: numpy.ndarray, y: numpy.ndarray) -> float:
    start = time.perf_counter()
    estimator.fit(x, y)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="seeds of the scores (default: 10; 0 leaves them out)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant (default: 9)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if options.seeds:
        compare_scores(options.seeds)
    for batch_size, epochs in CASES:
        compare_times(batch_size, epochs, options.rounds)


if __name__ == "__main__":
    main()
