"""scikit-learn: one step is ``partial_fit`` of one batch, including its input validation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy

from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Perceptron, Runner


def make(case: Perceptron, kind: str, variant: str, device: str) -> Runner:
    """A step of MLPClassifier or MLPRegressor without L2.

    Its squared error is half the mean squared error, so the loss is doubled, and for SGD the learning rate too.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    warnings.filterwarnings("ignore", module="sklearn")  # they do not concern a single step
    factor = 2.0 if case.regression else 1.0
    rate = LEARNING_RATES[kind] * (factor if kind == "sgd" else 1.0)
    kind_of = MLPRegressor if case.regression else MLPClassifier
    network = kind_of(
        hidden_layer_sizes=case.sizes[1:-1], solver=kind, alpha=0.0, batch_size=case.batch, learning_rate_init=rate,
        shuffle=False, momentum=0.0, nesterovs_momentum=False, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON,
    )  # fmt: skip
    batches = [(x, y.ravel()) for x, y in case.batches()]
    classes: dict[str, Any] = {} if case.regression else {"classes": numpy.arange(case.sizes[-1])}
    network.partial_fit(*batches[0], **classes)  # creates weights and optimizer; both are reset below
    for layer, weight, bias in zip(case.layers(), network.coefs_, network.intercepts_, strict=True):
        weight[...], bias[...] = layer.weight.T, layer.bias
    del network._optimizer  # the next partial_fit creates a new one

    def step(x: Any, y: Any) -> Any:
        network.partial_fit(x, y)
        return network.loss_ * factor

    return Runner(step, batches, float)
