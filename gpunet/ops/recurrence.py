"""Recurrent layers: a launch runs all steps of one direction of an LSTM, a GRU or an RNN, and another one all steps of its backward.

The products with the input, x w_ih^T + b_ih, do not depend on the states: they are one product over all steps, before the launch.
Per step it computes h w_hh^T and the gates.  Backward walks the steps in the other order and leaves the gradients of the gates of
all steps, from which the gradients of the input, the weights and the biases are products over all steps again.

Rows are packed as in a PackedSequence, sorted by length, longest first: step t has rows ``starts[t]`` to ``starts[t + 1]``, those of
the first sequences.  So padding takes neither memory nor time.  In reverse, a sequence starts at its own last element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.autograd import COPY, Gradient, Tensor, fused, wrap
from gpunet.autograd.graph import ADD
from gpunet.backend import blas
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import empty, scratch
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import find, sigmoid, tanh
from gpunet.ops.creation import zeros
from gpunet.ops.join import cat, split
from gpunet.ops.linear import apply_layer, input_gradient, weight_gradients
from gpunet.ops.matmul import matmul

# ---- cells ------------------------------------------------------------------------------------------------------------
# Of each cell: the twins of the walk over the steps, forward and backward, and one step in primitives.  ``walk`` has the rows of each
# step in the order of forward; the states h and c (n, width) are updated in place, those of the first sequences in each step.

Walk = tuple[slice, ...]


@functools.lru_cache(maxsize=256)
def _walk(batch_sizes: tuple[int, ...], is_reverse: bool) -> Walk:
    ends = numpy.cumsum(batch_sizes).tolist()
    spans = [slice(end - size, end) for end, size in zip(ends, batch_sizes)]
    return tuple(spans[::-1] if is_reverse else spans)


def _before(states: ndarray, initial: ndarray | None, walk: Walk, step: int, slot: int) -> ndarray:
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


def _one_minus_square(out: ndarray, x: ndarray) -> None:
    numpy.multiply(x, x, out=out)
    numpy.subtract(1, out, out=out)


class Cell(NamedTuple):
    """A kind of recurrent layer.

    Attributes:
        gates: numbers of a unit that a step computes from input and state, in PyTorch's order.
        struct: the struct in ``cuda_kernels/recurrence.cu``.
        forward: (y, h, c, gates, inner, w, b, walk).
        backward: (dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk).
        step: (z, h w_hh^T + b_hh, h, c) -> (h, c), in primitives.
        has_cells: it has cell states, a second state.
        keeps_hidden: the products with input and state do not only enter as their sum, so backward needs a part of the latter.
    """

    gates: int
    struct: str
    forward: Callable[..., None]
    backward: Callable[..., None]
    step: Callable[..., tuple[Any, Any]]
    has_cells: bool = False
    keeps_hidden: bool = False


# LSTM: i, f, o = sigmoid, g = tanh; c = f c + i g; h = o tanh(c) (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000)


def _lstm_forward(y, h, c, gates, cells, w, b, walk):
    (n, width), dtype = h.shape, y.dtype
    z, product = scratch((n, 4 * width), dtype, 4), scratch((n, width), dtype, 5)
    # sigmoid(z) = tanh(z / 2) / 2 + 1/2, so that one call computes all gates; halving is exact
    scale, shift = numpy.full((4, width), 0.5, dtype), numpy.full((4, width), 0.5, dtype)
    scale[2], shift[2] = 1, 0
    scale, shift = scale.reshape(-1), shift.reshape(-1)
    halved = scratch(w.shape, dtype, 6)
    numpy.multiply(w, scale, out=halved)
    if b is not None:
        gates += b
    gates *= scale
    for span in walk:
        rows = span.stop - span.start
        a, new_h, new_c, u = gates[span], h[:rows], c[:rows], product[:rows]
        blas.dot(new_h, halved, out=z[:rows])
        a += z[:rows]
        numpy.tanh(a, out=a)
        a *= scale
        a += shift
        new_c *= a[:, width : 2 * width]
        numpy.multiply(a[:, :width], a[:, 2 * width : 3 * width], out=u)
        new_c += u
        numpy.copyto(cells[span], new_c)
        numpy.tanh(new_c, out=u)
        numpy.multiply(u, a[:, 3 * width :], out=new_h)
        numpy.copyto(y[span], new_h)


def _lstm_backward(dgates, dhidden, dh, dc, dy, gates, cells, y, w, h0, c0, walk):
    width = dh.shape[1]
    product = scratch(dh.shape, dh.dtype, 5)
    for step in reversed(range(len(walk))):
        span = walk[step]
        rows = span.stop - span.start
        dnew_h, dnew_c, u, a, d = dh[:rows], dc[:rows], product[:rows], gates[span], dgates[span]
        i, f, g, o = (a[:, k * width : (k + 1) * width] for k in range(4))
        di, df, dg, do = (d[:, k * width : (k + 1) * width] for k in range(4))
        if dy is not None:
            dnew_h += dy[span]
        numpy.subtract(1, a, out=d)
        d *= a  # the derivative of sigmoid
        numpy.tanh(cells[span], out=u)
        do *= u
        do *= dnew_h
        _one_minus_square(u, u)
        u *= o
        u *= dnew_h
        dnew_c += u
        di *= g
        df *= _before(cells, c0, walk, step, 6)
        _one_minus_square(dg, g)
        dg *= i
        of_cell = d.reshape(rows, 4, width)[:, :3]
        of_cell *= dnew_c[:, None]
        dnew_c *= f
        blas.dot(d, w, out=dnew_h)


def _lstm_step(z, p, h, c):
    i, f, g, o = split(z + p, c.shape[1], 1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


# GRU: r, z = sigmoid; n = tanh(x part + r (h part)); h = n + z (h - n) (Cho et al. 2014, with the reset gate behind the product)


def _gru_forward(y, h, c, gates, inner, w, b, walk):
    n, width = h.shape
    product = scratch((n, 3 * width), y.dtype, 4)
    for span in walk:
        rows = span.stop - span.start
        a, p, new_h = gates[span], product[:rows], h[:rows]
        blas.dot(new_h, w, out=p)
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
        new_h -= new
        new_h *= z
        new_h += new
        numpy.copyto(y[span], new_h)


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
        numpy.subtract(_before(y, h0, walk, step, 6), new, out=u)
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
        for span in walk:
            rows = span.stop - span.start
            z, new_h = product[:rows], h[:rows]
            blas.dot(new_h, w, out=z)
            z += gates[span]
            if b is not None:
                z += b
            ACTIVATIONS[activation].forward(new_h, z, 0.0)
            numpy.copyto(y[span], new_h)

    def backward(dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk):
        for span in reversed(walk):
            dnew_h = dh[: span.stop - span.start]
            if dy is not None:
                dnew_h += dy[span]
            ACTIVATIONS[activation].backward(dgates[span], dnew_h, y[span], 0.0)
            blas.dot(dgates[span], w, out=dnew_h)

    def step(z, p, h, c):
        return find(activation).composed(z + p, 0.0), None

    return Cell(1, f"Rnn<{ACTIVATIONS[activation].struct}>", forward, backward, step)


#: PyTorch's modes, in lower case.
CELLS = {
    "lstm": Cell(4, "Lstm", _lstm_forward, _lstm_backward, _lstm_step, has_cells=True),
    "gru": Cell(3, "Gru", _gru_forward, _gru_backward, _gru_step, keeps_hidden=True),
    "rnn_tanh": _rnn("tanh"),
    "rnn_relu": _rnn("relu"),
}

# ---- kernels ----------------------------------------------------------------------------------------------------------


def _start(state: ndarray | None, initial: ndarray | None) -> None:
    if state is not None:
        numpy.copyto(state, 0 if initial is None else initial)


@kernel("recurrence.cu", outputs=5, types={"starts": "int64"}, optional="cn inner b h0 c0 starts", reads_values=True)
def recurrence_forward(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, batch_sizes, reverse):
    """All steps of one direction of a layer.

    Args:
        y: (rows, width), the states h of all steps.
        hn, cn: (n, width), the last states of each sequence; cn of an LSTM only.
        gates: (rows, gates width), the products with the input on entry; on return the gates i f g o or r z n, of an RNN unchanged.
        inner: (rows, width): of an LSTM the cell states, of a GRU the part of n that is multiplied by r; else None.
        w: (width, gates width), w_hh^T.
        b: (gates width,), or None.
        h0, c0: (n, width), the first states; None for 0.
        starts: (steps + 1,), the first row of each step; None if every step has n rows.
        batch_sizes: rows of each step, descending, on the host.
    """
    _start(hn, h0)
    _start(cn, c0)
    CELLS[cell].forward(y, hn, cn, gates, inner, w, b, _walk(batch_sizes, reverse))


@kernel(
    "recurrence.cu", outputs=5, types={"starts": "int64"}, optional="dhidden dc dy dhn dcn gates inner h0 c0 starts",
    reads_values=True,
)  # fmt: skip
def recurrence_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, batch_sizes, reverse
):  # fmt: skip
    """Backward of all steps.

    Args:
        dgates: (rows, gates width), the gradients of the gates before their activations, with respect to the input's products.
        dhidden: the same with respect to the state's products, if they differ (of a GRU); else None.
        previous: (rows, width), the states h before each step.
        dh, dc: (n, width), the gradients of the first states; dc of an LSTM only.
        dy: (rows, width); None for 0.
        dhn, dcn: (n, width); None for 0.
        gates, inner, y: as forward leaves them; gates of an RNN are not needed.
        w: (gates width, width), w_hh.
        h0, c0, starts, batch_sizes: as in :func:`recurrence_forward`.
    """
    _start(dh, dhn)
    _start(dc, dcn)
    walk = _walk(batch_sizes, reverse)
    for step, span in enumerate(walk):
        numpy.copyto(previous[span], _before(y, h0, walk, step, 6))
    CELLS[cell].backward(dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk)


#: The most blocks that have one sequence each: two for each multiprocessor of an H200, whatever GPU is present.
_MAX_BLOCKS_OF_ONE = 264
_SHARED_BYTES = 48 << 10  # of a block, which every GPU has


def _shared_bytes(width: int, dtype: Any, numbers: int) -> int:
    """Shared memory of a sequence, with so many numbers of the accumulator for each unit."""
    return numbers * width * accumulator(dtype).itemsize


def _has_kernel(width: int, dtype: Any, cell: str) -> bool:
    """Whether a GPU computes states of this width by one launch: the gradients of a sequence fit into shared memory."""
    return _shared_bytes(width, dtype, _NUMBERS_OF_BACKWARD[cell]) <= _SHARED_BYTES


def _geometry(state: Array, cell: str, batch_sizes: tuple[int, ...], reverse: bool, numbers: int) -> Geometry:
    """A block has four sequences, or one if there are few or four do not fit into shared memory."""
    n, width = state.shape
    of_sequence = _shared_bytes(width, state.dtype, numbers)
    sequences = 1 if n <= _MAX_BLOCKS_OF_ONE or 4 * of_sequence > _SHARED_BYTES else 4
    threads = min(512, 32 * ceil_div(width, 32))
    scalars = (len(batch_sizes), n, width, numpy.bool_(reverse))
    return Geometry(ceil_div(n, sequences), threads, scalars, (CELLS[cell].struct, str(sequences)), sequences * of_sequence)


#: h before and after a step, and c; the gradients of the products, of h and of c.
_NUMBERS_OF_FORWARD = {cell: 2 + row.has_cells for cell, row in CELLS.items()}
_NUMBERS_OF_BACKWARD = {cell: row.gates + 1 + row.has_cells for cell, row in CELLS.items()}


@recurrence_forward.geometry
def _(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, batch_sizes, reverse):
    return _geometry(hn, cell, batch_sizes, reverse, _NUMBERS_OF_FORWARD[cell])


@recurrence_backward.geometry
def _(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, batch_sizes, reverse):
    return _geometry(dh, cell, batch_sizes, reverse, _NUMBERS_OF_BACKWARD[cell])


# ---- the op -----------------------------------------------------------------------------------------------------------


def recurrence_composed(x, h0, c0, w_ih, w_hh, b_ih, b_hh, starts, w_hr=None, *, cell, batch_sizes, reverse):
    """:func:`recurrence` in primitives; w_hr (width of h, width of c) projects the states h of an LSTM (Sak et al. 2014)."""
    row, n, h, c = CELLS[cell], batch_sizes[0], h0, c0
    h = zeros(n, w_hh.shape[1], dtype=x.dtype, device=x.device) if h is None else h
    if row.has_cells and c is None:
        c = zeros(n, len(w_hh) // row.gates, dtype=x.dtype, device=x.device)
    products = matmul(x, w_ih.T)
    products = split(products if b_ih is None else products + b_ih, list(batch_sizes))
    outputs: list[Any] = [None] * len(batch_sizes)
    for t in reversed(range(len(batch_sizes))) if reverse else range(len(batch_sizes)):
        size = batch_sizes[t]
        p = matmul(h[:size], w_hh.T)
        new_h, new_c = row.step(products[t], p if b_hh is None else p + b_hh, h[:size], None if c is None else c[:size])
        if w_hr is not None:
            new_h = matmul(new_h, w_hr.T)
        outputs[t] = new_h
        h = new_h if size == n else cat([new_h, h[size:]])
        c = new_c if size == n or c is None else cat([new_c, c[size:]])
    return (cat(outputs), h, c) if row.has_cells else (cat(outputs), h)


def run_direction(x, h0, c0, w_ih, w_hh, b_ih, b_hh, starts, w_hr=None, *, cell, batch_sizes, reverse):
    """:func:`recurrence`, or its composition: of an LSTM with projection, and of states that are too wide for the shared memory of a
    GPU (an LSTM of more than 2048 units in float32).
    """  # fmt: skip
    options = {"cell": cell, "batch_sizes": batch_sizes, "reverse": reverse}
    if w_hr is None and (type(x.array) is ndarray or _has_kernel(w_hh.shape[1], x.dtype, cell)):
        return recurrence(x, h0, c0, w_ih, w_hh, b_ih, b_hh, starts, **options)
    return recurrence_composed(x, h0, c0, w_ih, w_hh, b_ih, b_hh, starts, w_hr, **options)


def _public_name(options: dict[str, Any]) -> str:
    return str(options["cell"].split("_")[0].upper())


@fused(name="RNN", name_from=_public_name, composed=recurrence_composed, takes_scale=True)
def recurrence(x, h0, c0, w_ih, w_hh, b_ih, b_hh, starts, *, cell, batch_sizes, reverse, need):
    """One direction of a recurrent layer.

    Args:
        x: (rows, features), packed: the elements of all sequences at step 0, then those at step 1, and so on.
        h0, c0: (n, width), the first states; None for 0, and c0 of anything but an LSTM.
        w_ih, w_hh: (gates width, features) and (gates width, width).
        b_ih, b_hh: (gates width,), or None.
        starts: int64 (steps + 1,), the first row of each step; None if every step has n rows.
        cell: a key of CELLS.
        batch_sizes: the rows of each step.
        reverse: walk from the last element of each sequence to the first.

    Returns:
        The states h of all steps (rows, width), the last ones (n, width), and of an LSTM the last cell states (n, width).
    """
    row, n, width = CELLS[cell], batch_sizes[0], w_hh.shape[1]
    bias = b_ih
    if b_hh is not None and not row.keeps_hidden:  # only the sum of the products matters, so one product adds both
        bias = empty(b_ih.shape, b_ih.dtype, b_ih)
        ADD(bias, b_ih, b_hh)
    gates, _ = apply_layer(x, w_ih, bias)
    w = empty(w_hh.shape[::-1], w_hh.dtype, w_hh)
    COPY(w, w_hh.T)
    y, hn = empty((len(x), width), x.dtype, x), empty((n, width), x.dtype, x)
    cn = empty(hn.shape, x.dtype, x) if row.has_cells else None
    inner = empty(y.shape, x.dtype, x) if row.has_cells or row.keeps_hidden else None
    recurrence_forward(
        y, hn, cn, gates, inner, w, b_hh if row.keeps_hidden else None, h0, c0, starts, cell=cell, batch_sizes=batch_sizes,
        reverse=reverse,
    )  # fmt: skip
    saved = (x if need[3] else None, h0, c0, w_ih if need[0] else None, w_hh, starts, None if row.gates == 1 else gates, inner, y)
    return (y, hn, cn) if row.has_cells else (y, hn), saved


def _as_arrays(gradients: list[Gradient | None]) -> tuple[list[Any], Any]:
    """The arrays of gradients and the pending scale that they have in common; a scale that they have not is applied."""
    scales = [g.scale for g in gradients if g is not None]
    if all(scale is scales[0] for scale in scales):
        return [None if g is None else g.array for g in gradients], scales[0]
    return [None if g is None else g.apply() for g in gradients], None


@recurrence.backward
def _(saved, dy, dhn, dcn=None, *, cell, batch_sizes, reverse, need):
    x, h0, c0, w_ih, w_hh, starts, gates, inner, y = saved
    row, n = CELLS[cell], batch_sizes[0]
    (dy, dhn, dcn), scale = _as_arrays([dy, dhn, dcn])
    dgates = empty((len(y), len(w_hh)), y.dtype, y)
    dhidden = empty(dgates.shape, y.dtype, y) if row.keeps_hidden else None
    previous, dh = empty(y.shape, y.dtype, y), empty((n, y.shape[1]), y.dtype, y)
    dc: Any = empty(dh.shape, y.dtype, y) if row.has_cells else None
    recurrence_backward(
        dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w_hh, h0, c0, starts, cell=cell,
        batch_sizes=batch_sizes, reverse=reverse,
    )  # fmt: skip
    of_state = dgates if dhidden is None else dhidden
    need_b = need[5] or need[6]
    dw_ih, db_ih = weight_gradients(dgates, x, scale, need_b) if need[3] or need_b else (None, None)
    dw_hh, db_hh = None, None
    if need[4] or (need[6] and dhidden is not None):
        dw_hh, db_hh = weight_gradients(of_state, previous, scale, need[6] and dhidden is not None)
    if need[6] and dhidden is None:
        db_hh = empty(db_ih.shape, db_ih.dtype, db_ih)
        COPY(db_hh, db_ih)
    dx = input_gradient(dgates, w_ih) if need[0] else None
    gradients = [dx, dh if need[1] else None, dc if need[2] else None]
    if scale is not None:
        gradients = [None if g is None else Gradient(g, scale) for g in gradients]
    return *gradients, dw_ih, dw_hh, db_ih if need[5] else None, db_hh, None
