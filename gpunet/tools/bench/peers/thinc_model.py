"""Thinc: a chain of its layers with its optimizer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy

from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Perceptron, Runner


def make(case: Perceptron, kind: str, variant: str, device: str) -> Runner:
    """A step of ``begin_update``, the gradient of the loss in NumPy (as is usual with Thinc) and ``finish_update``."""
    from thinc.api import SGD, Adam, Linear, Relu, Softmax, chain

    last = Linear if case.regression else Softmax
    pairs = list(itertools.pairwise(case.sizes))
    layers = [(Relu if index < len(pairs) - 1 else last)(nO=o, nI=i) for index, (i, o) in enumerate(pairs)]
    model = chain(*layers) if len(layers) > 1 else layers[0]
    model.initialize()
    for layer, values in zip(layers, case.layers(), strict=True):
        layer.set_param("W", values.weight)
        layer.set_param("b", values.bias)
    optimizer = None
    if kind == "sgd":
        optimizer = SGD(LEARNING_RATES[kind], L2=0.0, grad_clip=0.0, use_averages=False)
    elif kind == "adam":
        optimizer = Adam(
            LEARNING_RATES[kind], beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, L2=0.0, grad_clip=0.0, use_averages=False,
            L2_is_weight_decay=True,
        )  # fmt: skip
    rows = numpy.arange(case.batch)

    def value(out: Any, y: Any) -> Any:
        return ((out - y) ** 2).mean() if case.regression else -numpy.log(out[rows, y]).mean()

    def forward(x: Any, y: Any) -> Any:
        return value(model.predict(x), y)

    def backward(x: Any, y: Any) -> Any:
        out, backprop = model.begin_update(x)
        loss = value(out, y)
        if case.regression:
            delta = (out - y) * numpy.float32(2 / case.batch)
        else:
            delta = out.copy()
            delta[rows, y] -= 1
            delta /= case.batch
        backprop(delta)
        if optimizer is not None:
            model.finish_update(optimizer)
            optimizer.step_schedules()
        else:
            for layer in layers:
                for name in layer.grad_names:
                    layer.set_grad(name, layer.get_grad(name) * 0)
        return loss

    function = forward if kind == "forward" else backward
    return Runner(function, [(x, y) for x, y in case.batches()], float)
