"""Samples of recurrent layers: the states of all steps, then the last states, as the rows of one tensor."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from gpunet.ops.recurrence import recurrence
from tests.samples.formulas import sigmoid
from tests.samples.inputs import ROWS, away, normal, uniform
from tests.samples.row import row

STEPS, FEATURES, UNITS = 3, 2, 4


def _step(cell: str, x: Any, p: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """A step, as PyTorch's documentation states it; x and p are the products with input and state."""
    if cell == "lstm":
        i, f, g, o = numpy.split(x + p, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
        return sigmoid(o) * numpy.tanh(c), c
    if cell == "gru":
        (xr, xz, xn), (pr, pz, pn) = numpy.split(x, 3, 1), numpy.split(p, 3, 1)
        n = numpy.tanh(xn + sigmoid(xr + pr) * pn)
        return (1 - sigmoid(xz + pz)) * n + sigmoid(xz + pz) * h, c
    return numpy.tanh(x + p) if cell == "rnn_tanh" else numpy.maximum(x + p, 0), c


def _formula(cell: str, sizes: tuple[int, ...], reverse: bool, x: Any, h: Any, c: Any, weights: list[Any]) -> Any:
    w_ih, w_hh, b_ih, b_hh = weights
    starts = [0, *itertools.accumulate(sizes)]
    y, h, c = numpy.zeros((len(x), UNITS)), h.copy(), c.copy()
    for t in range(len(sizes))[:: -1 if reverse else 1]:
        rows, n = slice(starts[t], starts[t + 1]), sizes[t]
        h[:n], c[:n] = _step(cell, x[rows] @ w_ih.T + b_ih, h[:n] @ w_hh.T + b_hh, h[:n], c[:n])
        y[rows] = h[:n]
    return numpy.concatenate([y, h, c] if cell == "lstm" else [y, h])


def _by_step(x: Any, sizes: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """x (n, steps, features) as rows by step, and n for each step; or packed rows with their batch sizes."""
    if sizes:
        return x, sizes
    axes = x.transpose(0, 1) if isinstance(x, gpunet.Tensor) else x.swapaxes(0, 1)
    return axes.reshape((-1, FEATURES)), (x.shape[0],) * STEPS


def _add(cell: str, name: str, inputs: list[Any], sizes: tuple[int, ...] = (), reverse: bool = False) -> None:
    """A row of a cell with its weights behind x, h0 and, of an LSTM, c0."""

    def split(arrays: Any) -> tuple[Any, Any, list[Any]]:
        return (arrays[0], arrays[1], arrays[2:]) if cell == "lstm" else (arrays[0], None, arrays[1:])

    def call(x: Any, *arrays: Any) -> Any:
        h0, c0, weights = split(arrays)
        rows, batch_sizes = _by_step(x, sizes)
        return gpunet.cat(recurrence(rows, h0, c0, *weights, cell=cell, batch_sizes=batch_sizes, reverse=reverse))

    def formula(x: Any, *arrays: Any) -> Any:
        h0, c0, weights = split(arrays)
        rows, batch_sizes = _by_step(x, sizes)
        return _formula(cell, batch_sizes, reverse, rows, h0, h0 if c0 is None else c0, weights)

    row("recurrence", call, formula, *inputs, torch=None if sizes or reverse else _oracle(cell, split), name=f"{cell} {name}")


def _oracle(cell: str, split: Callable[..., Any]) -> Callable[..., Any]:
    def run(torch: Any, x: Any, *arrays: Any) -> Any:
        h0, c0, weights = split(arrays)
        state = h0[None] if c0 is None else (h0[None], c0[None])
        y, *last = getattr(torch, cell)(x.transpose(0, 1), state, weights, True, 1, 0.0, True, False, False)
        return torch.cat([y.reshape(-1, UNITS), *(s.reshape(-1, UNITS) for s in last)])

    return run


for _cell, _gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1)):
    _weights = [normal(_gates * UNITS, FEATURES), uniform(-1, 1, _gates * UNITS, UNITS), *[normal(_gates * UNITS)] * 2]
    _num_states = 2 if _cell == "lstm" else 1
    _add(_cell, "steps", [normal(ROWS, STEPS, FEATURES), *[normal(ROWS, UNITS)] * _num_states, *_weights])
    _add(_cell, "reverse", [normal(ROWS, STEPS, FEATURES), *[normal(ROWS, UNITS)] * _num_states, *_weights], reverse=True)
    for _reverse in (False, True):
        _packed = [normal(7, FEATURES), *[normal(4, UNITS)] * _num_states, *_weights]
        _add(_cell, f"packed{' reverse' * _reverse}", _packed, (4, 2, 1), _reverse)
# |x w_ih + h w_hh| <= 0.5 and |b_ih| >= 0.8 keep the pre-activation away from the kink at 0
_add("rnn_relu", "steps", [
    uniform(-1, 1, ROWS, STEPS, FEATURES), uniform(-1, 1, ROWS, UNITS), uniform(-0.1, 0.1, UNITS, FEATURES),
    uniform(-0.02, 0.02, UNITS, UNITS), away(UNITS, margin=0.8), uniform(-0.1, 0.1, UNITS),
])  # fmt: skip
for _cell, _gates, _index, _rows in (("gru", 3, 0, slice(4)), ("lstm", 4, 2, slice(6, 8))):
    row(
        "recurrence",
        lambda x, w_ih, w_hh, c=_cell, i=_index: recurrence(
            x, None, None, w_ih, w_hh, None, None, cell=c, batch_sizes=(2, 2), reverse=False
        )[i],
        lambda x, w_ih, w_hh, c=_cell, r=_rows: _formula(
            c, (2, 2), False, x, numpy.zeros((2, UNITS)), numpy.zeros((2, UNITS)), [w_ih, w_hh, 0, 0]
        )[r],
        normal(4, FEATURES), normal(_gates * UNITS, FEATURES), normal(_gates * UNITS, UNITS),
        name=f"{_cell}, no first states, no biases, one output",
    )  # fmt: skip


def _cell(cell: str, x: Any, h: Any, *weights: Any) -> Any:
    """The state behind one step."""
    w_ih, w_hh, b_ih, b_hh = weights
    return _step(cell, x @ w_ih.T + b_ih, h @ w_hh.T + b_hh, h, h / 2)[0]


for _name, _gates in (("rnn_tanh", 1), ("gru", 3), ("lstm", 4)):

    def _called(library: Any, x: Any, h: Any, *weights: Any, name: str = _name) -> Any:
        state = (h, h / 2) if name == "lstm" else h
        found = getattr(library, f"{name}_cell")(x, state, *weights)
        return found[0] if name == "lstm" else found

    row(
        "recurrence", lambda *v, f=_called: f(gpunet, *v), lambda *v, n=_name: _cell(n, *v),
        normal(ROWS, FEATURES), normal(ROWS, UNITS), normal(_gates * UNITS, FEATURES), normal(_gates * UNITS, UNITS),
        normal(_gates * UNITS), normal(_gates * UNITS), name=f"{_name}_cell", torch=_called,
    )  # fmt: skip
