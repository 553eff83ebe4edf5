"""The network of a case written by hand in NumPy: a lower bound for the time of a library on NumPy.

All parameters are views of one vector and all gradients of another. Every result has preallocated memory (``out=``). The
optimizer updates the vectors in pieces that fit in the cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy

from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Perceptron, Runner

_PIECE = 32768


class Network:
    """Forward, backward and update of one case."""

    def __init__(self, case: Perceptron) -> None:
        layers = case.layers()
        self.p = numpy.concatenate([a.reshape(-1) for layer in layers for a in layer])
        self.g = numpy.zeros_like(self.p)
        self.weights, self.biases = zip(*self._views(self.p, case.sizes))
        self.weight_gradients, self.bias_gradients = zip(*self._views(self.g, case.sizes))
        self.values = [numpy.empty((case.batch, size), "float32") for size in case.sizes]
        self.deltas = [numpy.empty_like(v) for v in self.values]
        self.masks = [numpy.empty(v.shape, bool) for v in self.values]
        self.batch, self.regression = case.batch, case.regression
        self.rows = numpy.arange(case.batch)
        self.per_row = numpy.empty((case.batch, 1), "float32")
        self.square = numpy.empty((case.batch, 1), "float32")
        self.m, self.v, self.change = (numpy.zeros_like(self.p) for _ in range(3))
        pieces = [slice(start, start + _PIECE) for start in range(0, self.p.size, _PIECE)]
        self.pieces = [[a[piece] for a in (self.p, self.g, self.m, self.v, self.change)] for piece in pieces]
        self.steps = 0

    @staticmethod
    def _views(vector: numpy.ndarray, sizes: tuple[int, ...]) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        start = 0
        for i, o in itertools.pairwise(sizes):
            yield vector[start : start + o * i].reshape(o, i), vector[start + o * i : start + o * i + o]
            start += o * i + o

    def forward(self, x: numpy.ndarray, y: numpy.ndarray) -> float:
        """The loss. Stores the values of all layers, and in the last delta out - y or the softmax."""
        self.values[0] = x
        last = len(self.weights) - 1
        for index, (w, b) in enumerate(zip(self.weights, self.biases)):
            out = self.values[index + 1]
            numpy.matmul(self.values[index], w.T, out=out)
            out += b
            if index < last:
                numpy.maximum(out, 0, out=out)
        delta = self.deltas[-1]
        if self.regression:
            numpy.subtract(self.values[-1], y, out=delta)
            numpy.multiply(delta, delta, out=self.square)
            return float(self.square.sum()) / self.batch
        logits, per_row = self.values[-1], self.per_row
        numpy.maximum.reduce(logits, axis=1, keepdims=True, out=per_row)
        logits -= per_row
        chosen = logits[self.rows, y]
        numpy.exp(logits, out=delta)
        numpy.add.reduce(delta, axis=1, keepdims=True, out=per_row)
        delta /= per_row
        numpy.log(per_row, out=per_row)
        return (float(per_row.sum()) - float(chosen.sum())) / self.batch

    def backward(self, x: numpy.ndarray, y: numpy.ndarray) -> float:
        """The loss. Stores all gradients."""
        loss = self.forward(x, y)
        delta = self.deltas[-1]
        if self.regression:
            delta *= 2.0 / self.batch
        else:
            delta[self.rows, y] -= 1.0
            delta *= 1.0 / self.batch
        for index in reversed(range(len(self.weights))):
            numpy.matmul(self.deltas[index + 1].T, self.values[index], out=self.weight_gradients[index])
            numpy.add.reduce(self.deltas[index + 1], axis=0, out=self.bias_gradients[index])
            if index:
                numpy.matmul(self.deltas[index + 1], self.weights[index], out=self.deltas[index])
                numpy.greater(self.values[index], 0, out=self.masks[index])
                self.deltas[index] *= self.masks[index]
        return loss

    def sgd(self, x: numpy.ndarray, y: numpy.ndarray) -> float:
        """A step of SGD; returns the loss."""
        loss, rate = self.backward(x, y), LEARNING_RATES["sgd"]
        for p, g, _, _, change in self.pieces:
            numpy.multiply(g, rate, out=change)
            p -= change
        return loss

    def adam(self, x: numpy.ndarray, y: numpy.ndarray) -> float:
        """A step of Adam; returns the loss."""
        loss, (beta1, beta2) = self.backward(x, y), BETAS
        self.steps += 1
        root, rate = 1 / math.sqrt(1 - beta2**self.steps), LEARNING_RATES["adam"] / (1 - beta1**self.steps)
        for p, g, m, v, change in self.pieces:
            numpy.multiply(g, 1 - beta1, out=change)
            m *= beta1
            m += change
            numpy.multiply(g, g, out=change)
            change *= 1 - beta2
            v *= beta2
            v += change
            numpy.sqrt(v, out=change)
            change *= root
            change += EPSILON
            numpy.divide(m, change, out=change)
            change *= rate
            p -= change
        return loss


def make(case: Perceptron, kind: str, variant: str, device: str) -> Runner:
    """``variant`` and ``device`` are always "flat" and "cpu"."""
    return Runner(getattr(Network(case), kind), [(x, y) for x, y in case.batches()], float)
