"""The cells of recurrent layers: of each the twins of all steps, forward and backward, and one step in primitives.

``walk`` has the rows of each step in the order of forward.  Forward gets the first states in h and c (n, width), and leaves the
last ones there; backward gets the gradients of the last states in dh and dc, and leaves those of the first ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.backend import blas
from gpunet.launch.loops import LoopBody
from gpunet.launch.memory import scratch
from gpunet.ops import recurrent_loops as loops
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import find, sigmoid, tanh
from gpunet.ops.join import split

Walk = list[slice]


def walk_of(starts: ndarray, is_reverse: bool) -> Walk:
    """The rows of each step in the order of forward, given the first row of each and the number of all."""
    bounds = starts.tolist()
    spans = [slice(first, last) for first, last in itertools.pairwise(bounds)]
    return spans[::-1] if is_reverse else spans


def states_before(states: ndarray, initial: ndarray | None, walk: Walk, step: int, slot: int) -> ndarray:
    """The states before a step: those after the step before it, or the initial ones of sequences that begin here."""
    num_rows = walk[step].stop - walk[step].start
    first = walk[step - 1].start if step else 0
    num_earlier = min(num_rows, walk[step - 1].stop - first) if step else 0
    if num_earlier == num_rows:
        return states[first : first + num_rows]
    out = scratch((num_rows, states.shape[1]), states.dtype, slot)
    numpy.copyto(out[:num_earlier], states[first : first + num_earlier])
    numpy.copyto(out[num_earlier:], 0 if initial is None else initial[num_earlier:num_rows])
    return out


def keep_last(state: ndarray, states: ndarray, walk: Walk) -> None:
    """Copy the state of each sequence after its last step."""
    for span, later in zip(walk, [*walk[1:], slice(0, 0)]):
        num_later = later.stop - later.start
        if span.stop - span.start > num_later:
            numpy.copyto(state[num_later : span.stop - span.start], states[span.start + num_later : span.stop])


def _one_minus_square(out: ndarray, x: ndarray) -> None:
    numpy.multiply(x, x, out=out)
    numpy.subtract(1, out, out=out)


class Cell(NamedTuple):
    """A kind of recurrent layer.

    Attributes:
        gates: numbers of a unit that a step computes from input and state, in PyTorch's order.
        struct: the struct in ``cuda_kernels/recurrence.cu``.
        forward: (y, h, c, gates, inner, w, b, walk); b is None unless ``keeps_hidden``.
        backward: (dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk).
        step: (z, h w_hh^T + b_hh, h, c) -> (h, c), in primitives.
        forward_loop, backward_loop: the loop bodies, see :mod:`gpunet.ops.recurrent_loops`.
        has_cells: it has cell states, a second state.
        keeps_gates: backward reads the gates.
        keeps_hidden: the products with input and state do not only enter as their sum: forward adds b_hh to the latter, and
            backward needs a part of it.
    """

    gates: int
    struct: str
    forward: Callable[..., None]
    backward: Callable[..., None]
    step: Callable[..., tuple[Any, Any]]
    forward_loop: LoopBody
    backward_loop: LoopBody
    has_cells: bool = False
    keeps_gates: bool = True
    keeps_hidden: bool = False


# LSTM: i, f, o = sigmoid, g = tanh; c = f c + i g; h = o tanh(c) (Hochreiter and Schmidhuber 1997; Gers et al. 2000)


def _gate_matrix(n: int, width: int, dtype: numpy.dtype[Any], of_g: float, of_others: float, slot: int) -> ndarray:
    """A number for each gate, as (n, 4 width): NumPy takes twice the time for one row that is broadcast."""
    out = scratch((n, 4 * width), dtype, slot)
    out.fill(of_others)
    out[:, 2 * width : 3 * width] = of_g
    return out


def _lstm_forward(y, h, c, gates, cells, w, b, walk):
    (n, width), dtype = h.shape, y.dtype
    products, u = scratch((n, 4 * width), dtype, 4), scratch((n, width), dtype, 5)
    # sigmoid(z) = tanh(z / 2) / 2 + 1/2, so that one call computes all gates; halving is exact
    scales, shifts = _gate_matrix(max(n, 1), width, dtype, 1, 0.5, 7), _gate_matrix(n, width, dtype, 0, 0.5, 8)
    halved = scratch(w.shape, dtype, 9)
    numpy.multiply(w, scales[:1], out=halved)
    for step, span in enumerate(walk):
        rows = span.stop - span.start
        a, new_c, product, scale = gates[span], cells[span], products[:rows], scales[:rows]
        blas.dot(states_before(y, h, walk, step, 6), halved, out=product)
        a *= scale
        a += product
        numpy.tanh(a, out=a)
        a *= scale
        a += shifts[:rows]
        numpy.multiply(a[:, :width], a[:, 2 * width : 3 * width], out=u[:rows])
        numpy.multiply(a[:, width : 2 * width], states_before(cells, c, walk, step, 6), out=new_c)
        new_c += u[:rows]
        numpy.tanh(new_c, out=u[:rows])
        numpy.multiply(u[:rows], a[:, 3 * width :], out=y[span])
    keep_last(h, y, walk)
    keep_last(c, cells, walk)


def _lstm_backward(dgates, dhidden, dh, dc, dy, gates, cells, y, w, h0, c0, walk):
    n, width = dh.shape
    products, us = scratch((n, 4 * width), dh.dtype, 4), scratch(dh.shape, dh.dtype, 5)
    ones_of_g = _gate_matrix(n, width, dh.dtype, 1, 0, 7)
    by_gate, of_gate = gates.reshape(-1, 4, width), dgates.reshape(-1, 4, width)
    for step in reversed(range(len(walk))):
        span = walk[step]
        rows = span.stop - span.start
        dnew_h, dnew_c, u, a, d, product = dh[:rows], dc[:rows], us[:rows], gates[span], dgates[span], products[:rows]
        do = d[:, 3 * width :]
        if dy is not None:
            dnew_h += dy[span]
        numpy.subtract(1, a, out=d)
        numpy.add(a, ones_of_g[:rows], out=product)
        d *= product  # the derivatives a (1 - a) of sigmoid and (1 - g) (1 + g) of tanh
        numpy.tanh(cells[span], out=u)
        do *= u
        do *= dnew_h
        _one_minus_square(u, u)
        u *= a[:, 3 * width :]
        u *= dnew_h
        dnew_c += u
        of_i_and_g = of_gate[span, ::2][:, :2]
        of_i_and_g *= by_gate[span, 2::-2]
        of_f = d[:, width : 2 * width]
        of_f *= states_before(cells, c0, walk, step, 6)
        of_cell = of_gate[span, :3]
        of_cell *= dnew_c[:, None]
        dnew_c *= a[:, width : 2 * width]
        blas.dot(d, w, out=dnew_h)


def _lstm_step(z, p, h, c):
    i, f, g, o = split(z + p, c.shape[1], 1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


# GRU: r, z = sigmoid; n = tanh(x part + r (h part)); h = n + z (h - n) (Cho et al. 2014, with the reset gate behind the product)


def _gru_forward(y, h, c, gates, inner, w, b, walk):
    n, width = h.shape
    product = scratch((n, 3 * width), y.dtype, 4)
    for step, span in enumerate(walk):
        a, p, new_h, before = gates[span], product[: span.stop - span.start], y[span], states_before(y, h, walk, step, 6)
        blas.dot(before, w, out=p)
        if b is not None:
            p += b
        numpy.copyto(inner[span], p[:, 2 * width :])
        of_state = a[:, : 2 * width]
        of_state += p[:, : 2 * width]
        of_state *= 0.5
        numpy.tanh(of_state, out=of_state)
        of_state *= 0.5
        of_state += 0.5
        r, z, new = a[:, :width], a[:, width : 2 * width], a[:, 2 * width :]
        u = p[:, 2 * width :]
        u *= r
        new += u
        numpy.tanh(new, out=new)
        numpy.subtract(before, new, out=new_h)
        new_h *= z
        new_h += new
    keep_last(h, y, walk)


def _gru_backward(dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk):
    width = dh.shape[1]
    product = scratch(dh.shape, dh.dtype, 5)
    for step in reversed(range(len(walk))):
        span = walk[step]
        rows = span.stop - span.start
        dnew_h, u, a, d, e = dh[:rows], product[:rows], gates[span], dgates[span], dhidden[span]
        r, z, new = (a[:, k * width : (k + 1) * width] for k in range(3))
        dr, dz, dnew = (d[:, k * width : (k + 1) * width] for k in range(3))
        if dy is not None:
            dnew_h += dy[span]
        numpy.subtract(1, a, out=d)
        numpy.multiply(dnew_h, dz, out=u)  # dh (1 - z)
        of_state = d[:, : 2 * width]
        of_state *= a[:, : 2 * width]
        _one_minus_square(dnew, new)
        dnew *= u
        dr *= inner[span]
        dr *= dnew
        numpy.subtract(states_before(y, h0, walk, step, 6), new, out=u)
        u *= dnew_h
        dz *= u
        numpy.copyto(e[:, : 2 * width], of_state)
        numpy.multiply(dnew, r, out=e[:, 2 * width :])
        dnew_h *= z
        blas.dot(e, w, out=u)
        dnew_h += u


def _gru_step(x, p, h, c):
    (xr, xz, xn), (pr, pz, pn) = split(x, h.shape[1], 1), split(p, h.shape[1], 1)
    n = tanh(xn + sigmoid(xr + pr) * pn)
    return n + sigmoid(xz + pz) * (h - n), None


# RNN: h = act(z) (Elman 1990)


def _rnn(activation: str) -> Cell:
    def forward(y, h, c, gates, inner, w, b, walk):
        product = scratch(h.shape, y.dtype, 4)
        for step, span in enumerate(walk):
            z = product[: span.stop - span.start]
            blas.dot(states_before(y, h, walk, step, 6), w, out=z)
            z += gates[span]
            ACTIVATIONS[activation].forward(y[span], z, 0.0)
        keep_last(h, y, walk)

    def backward(dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk):
        for span in reversed(walk):
            dnew_h = dh[: span.stop - span.start]
            if dy is not None:
                dnew_h += dy[span]
            ACTIVATIONS[activation].backward(dgates[span], dnew_h, y[span], 0.0)
            blas.dot(dgates[span], w, out=dnew_h)

    def step(z, p, h, c):
        return find(activation).composed(z + p, 0.0), None

    bodies = (loops.tanh_forward, loops.tanh_backward) if activation == "tanh" else (loops.relu_forward, loops.relu_backward)
    return Cell(1, f"Rnn<{ACTIVATIONS[activation].struct}>", forward, backward, step, *bodies, keeps_gates=False)


#: By PyTorch's mode in lower case.
CELLS = {
    "lstm": Cell(
        4, "Lstm", _lstm_forward, _lstm_backward, _lstm_step, loops.lstm_forward, loops.lstm_backward, has_cells=True
    ),
    "gru": Cell(
        3, "Gru", _gru_forward, _gru_backward, _gru_step, loops.gru_forward, loops.gru_backward, keeps_hidden=True
    ),
    "rnn_tanh": _rnn("tanh"),
    "rnn_relu": _rnn("relu"),
}
