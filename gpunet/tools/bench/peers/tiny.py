"""tinygrad: the whole step under TinyJit, on the CPU or CUDA backend."""

from __future__ import annotations

import itertools
import os
from typing import Any

from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Perceptron, Runner


def make(case: Perceptron, kind: str, variant: str, device: str) -> Runner:
    """A step as in tinygrad's examples: the loss and the updated parameters are realised together."""
    os.environ.setdefault("DEV", "CUDA" if device.startswith("cuda") else "CPU")
    from tinygrad import Context, Tensor, TinyJit, nn

    layers = [nn.Linear(i, o) for i, o in itertools.pairwise(case.sizes)]
    for layer, values in zip(layers, case.layers(), strict=True):
        layer.weight.assign(Tensor(values.weight)).realize()
        layer.bias.assign(Tensor(values.bias)).realize()
    parameters = nn.state.get_parameters(layers)
    optimizer = None
    if kind == "sgd":
        optimizer = nn.optim.SGD(parameters, lr=LEARNING_RATES[kind])
    elif kind == "adam":
        optimizer = nn.optim.Adam(parameters, lr=LEARNING_RATES[kind], b1=BETAS[0], b2=BETAS[1], eps=EPSILON)

    def loss_of(x: Any, y: Any) -> Any:
        for layer in layers[:-1]:
            x = layer(x).relu()
        out = layers[-1](x)
        return ((out - y) ** 2).mean() if case.regression else out.sparse_categorical_crossentropy(y)

    @TinyJit
    def step(x: Any, y: Any) -> Any:
        if kind == "forward":
            return loss_of(x, y).realize()
        with Context(TRAINING=1):
            for p in parameters:
                p.grad = None
            loss = loss_of(x, y)
            loss.backward()
            if optimizer is None:
                return loss.realize(*[p.grad for p in parameters])
            return loss.realize(*optimizer.schedule_step())

    batches = [
        (Tensor(x).realize(), Tensor(y.astype("int32") if y.ndim == 1 else y).realize()) for x, y in case.batches()
    ]
    return Runner(step, batches, lambda loss: float(loss.item()))
