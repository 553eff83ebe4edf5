"""Recurrent layers: a launch runs all steps of one direction of an LSTM, a GRU or an RNN, another one all steps of its backward.

The products with the input, x w_ih^T + b_ih, do not depend on the states: they are one product over all steps, before the launch.
Per step it computes h w_hh^T and the gates.  Backward walks the steps in the other order and leaves the gradients of the gates of
all steps, from which the gradients of the input, the weights and the biases are products over all steps again.

Rows are packed as in a PackedSequence, sorted by length, longest first: step t has rows ``starts[t]`` to ``starts[t + 1]``, of the
first sequences.  So padding takes neither memory nor time.  In reverse, a sequence starts at its own last element.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import COPY, Gradient, fused
from gpunet.autograd.autocast import casts
from gpunet.autograd.graph import ADD
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.loops import LoopBody, Loops
from gpunet.launch.memory import empty
from gpunet.launch.tape import constant
from gpunet.ops.creation import zeros
from gpunet.ops.gemm import NUM_MULTIPROCESSORS
from gpunet.ops.join import cat, split
from gpunet.ops.linear import apply_layer, input_gradient, weight_gradients
from gpunet.ops.matmul import matmul
from gpunet.ops.recurrent_cells import CELLS, states_before, walk_of

# ---- kernels ----------------------------------------------------------------------------------------------------------


def _start(state: ndarray | None, initial: ndarray | None) -> None:
    if state is not None:
        numpy.copyto(state, 0 if initial is None else initial)


@kernel("recurrence.cu", outputs=5, types={"starts": "int64"}, optional="cn inner b h0 c0", reads_values=True, updates="gates")
def recurrence_forward(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, reverse):
    """All steps of one direction of a layer.

    Args:
        y: (rows, width), the states h of all steps.
        hn, cn: (n, width), the last states of each sequence; cn of an LSTM only.
        gates: (rows, gates width), the products with the input on entry; on return the gates i f g o or r z n, of an RNN unchanged.
        inner: (rows, width): of an LSTM the cell states, of a GRU the part of n that is multiplied by r; else None.
        w: (width, gates width), w_hh^T.
        b: (gates width,), of a GRU: b_hh, which is part of the product with the state; else None.
        h0, c0: (n, width), the first states; None for 0.
        starts: (steps + 1,), the first row of each step, and the number of rows; no step has more rows than the one before.
        cell: a key of CELLS.
        reverse: walk from the last step to the first.
    """
    _start(hn, h0)
    _start(cn, c0)
    CELLS[cell].forward(y, hn, cn, gates, inner, w, b, walk_of(starts, reverse))


@kernel(
    "recurrence.cu", outputs=5, types={"starts": "int64"}, optional="dhidden dc dy dhn dcn gates inner h0 c0",
    reads_values=True,
)  # fmt: skip
def recurrence_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, reverse
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
        h0, c0, starts, cell, reverse: as in :func:`recurrence_forward`.
    """
    _start(dh, dhn)
    _start(dc, dcn)
    walk = walk_of(starts, reverse)
    for step, span in enumerate(walk):
        numpy.copyto(previous[span], states_before(y, h0, walk, step, 6))
    CELLS[cell].backward(dgates, dhidden, dh, dc, dy, gates, inner, y, w, h0, c0, walk)


#: The most blocks that have one sequence each: two for each multiprocessor.
_MAX_BLOCKS_OF_ONE = 2 * NUM_MULTIPROCESSORS
_SHARED_BYTES = 48 << 10  # of a block, which every GPU has


def _shared_bytes(width: int, dtype: Any, numbers: int) -> int:
    """Shared memory of a sequence, with so many numbers of the accumulator for each unit."""
    return numbers * width * accumulator(dtype).itemsize


def _has_kernel(width: int, dtype: Any, cell: str) -> bool:
    """Whether a GPU computes states of this width by one launch: the gradients of a sequence fit into shared memory."""
    return _shared_bytes(width, dtype, _NUMBERS_OF_BACKWARD[cell]) <= _SHARED_BYTES


def _geometry(state: Array, starts: Array, cell: str, reverse: bool, numbers: int) -> Geometry:
    """A block has four sequences, or one if there are few or four do not fit into shared memory."""
    n, width = state.shape
    of_sequence = _shared_bytes(width, state.dtype, numbers)
    sequences = 1 if n <= _MAX_BLOCKS_OF_ONE or 4 * of_sequence > _SHARED_BYTES else 4
    threads = min(512, 32 * ceil_div(width, 32))
    scalars = (len(starts) - 1, n, width, numpy.bool_(reverse))
    return Geometry(ceil_div(n, sequences), threads, scalars, (CELLS[cell].struct, str(sequences)), sequences * of_sequence)


#: h before and after a step, and c; the gradients of the products, of h and of c.
_NUMBERS_OF_FORWARD = {cell: 2 + row.has_cells for cell, row in CELLS.items()}
_NUMBERS_OF_BACKWARD = {cell: row.gates + 1 + row.has_cells for cell, row in CELLS.items()}


@recurrence_forward.geometry
def _(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, reverse):
    return _geometry(hn, starts, cell, reverse, _NUMBERS_OF_FORWARD[cell])


@recurrence_backward.geometry
def _(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, reverse):
    return _geometry(dh, starts, cell, reverse, _NUMBERS_OF_BACKWARD[cell])


@recurrence_forward.loops
def _(y, hn, cn, gates, inner, w, b, h0, c0, starts, *, cell, reverse):
    arrays = (y, hn, cn, gates, inner, w, b, h0, c0)
    return _loops(CELLS[cell].forward_loop, arrays, (b, h0, c0), starts, hn, reverse, hn.size * CELLS[cell].gates)


@recurrence_backward.loops
def _(dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, *, cell, reverse):
    arrays, optional = (dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0), (dy, dhn, dcn, h0, c0)
    return _loops(CELLS[cell].backward_loop, arrays, optional, starts, dh, reverse, dh.size)


def _loops(
    body: LoopBody, arrays: Sequence[Any], optional: Sequence[Any], starts: Any, state: Any, reverse: bool, scratch: int
) -> Loops:
    """The loops of a launch; the first array stands in for those that it does not have."""
    given = [arrays[0] if array is None else array for array in arrays]
    numbers = (starts.shape[0] - 1, *state.shape, int(reverse), *[int(array is not None) for array in optional])
    return Loops(body, (*given, starts), numbers, scratch)


# ---- the op -----------------------------------------------------------------------------------------------------------


def recurrence_composed(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr=None, *, cell, batch_sizes, reverse):
    """:func:`recurrence` in primitives; w_hr (width of h, width of c) projects the states h of an LSTM (Sak et al. 2014)."""
    row, n, h, c = CELLS[cell], batch_sizes[0], h0, c0
    h = zeros(n, w_hh.shape[1], dtype=x.dtype, device=x.device) if h is None else h
    if row.has_cells and c is None:
        c = zeros(n, len(w_hh) // row.gates, dtype=x.dtype, device=x.device)
    product = matmul(x, w_ih.T)
    products = split(product if b_ih is None else product + b_ih, list(batch_sizes))
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


@casts("half")
def run_direction(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr=None, *, cell, batch_sizes, reverse):
    """:func:`recurrence`, or its composition: of an LSTM with projection, and of states that are too wide for a GPU's kernel (an
    LSTM of more than 2048 units in float32).
    """
    options = {"cell": cell, "batch_sizes": batch_sizes, "reverse": reverse}
    if w_hr is None and (type(x.array) is ndarray or _has_kernel(w_hh.shape[1], x.dtype, cell)):
        return recurrence(x, h0, c0, w_ih, w_hh, b_ih, b_hh, **options)
    return recurrence_composed(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, **options)


def _public_name(options: dict[str, Any]) -> str:
    return str(options["cell"].split("_")[0].upper())


@fused(name="RNN", name_from=_public_name, composed=recurrence_composed, takes_scale=True)
def recurrence(x, h0, c0, w_ih, w_hh, b_ih, b_hh, *, cell, batch_sizes, reverse, need):
    """One direction of a recurrent layer.

    Args:
        x: (rows, features), packed: the elements of all sequences at step 0, then those at step 1, and so on.
        h0, c0: (n, width), the first states; None for 0, and c0 of anything but an LSTM.
        w_ih, w_hh: (gates width, features) and (gates width, width).
        b_ih, b_hh: (gates width,), or None.
        cell: a key of CELLS.
        batch_sizes: the rows of each step, which are those of the first sequences.
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
    starts = _starts(batch_sizes, devices.of(x))
    recurrence_forward(
        y, hn, cn, gates, inner, w, b_hh if row.keeps_hidden else None, h0, c0, starts, cell=cell, reverse=reverse
    )
    saved = (x if need[3] else None, h0, c0, w_ih if need[0] else None, w_hh, starts, gates if row.keeps_gates else None, inner, y)
    return (y, hn, cn) if row.has_cells else (y, hn), saved


@functools.lru_cache(maxsize=256)
def _starts_on(batch_sizes: tuple[int, ...], device: devices.Device) -> Array:
    return devices.move(numpy.concatenate([[0], numpy.cumsum(batch_sizes)]).astype(numpy.int64), device)


def _starts(batch_sizes: tuple[int, ...], device: devices.Device) -> Array:
    """The first row of each step, and the number of rows, as a constant on the device."""
    return constant(_starts_on(batch_sizes, device))


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
        reverse=reverse,
    )  # fmt: skip
    of_state = dgates if dhidden is None else dhidden
    need_b = need[5] or need[6]
    dw_ih: Any
    db_ih: Any
    dw_ih, db_ih = weight_gradients(dgates, x, scale, need_b) if need[3] or need_b else (None, None)
    dw_hh: Any = None
    db_hh: Any = None
    if need[4] or (need[6] and dhidden is not None):
        dw_hh, db_hh = weight_gradients(of_state, previous, scale, need[6] and dhidden is not None)
    if need[6] and dhidden is None:
        db_hh = empty(db_ih.shape, db_ih.dtype, db_ih)
        COPY(db_hh, db_ih)
    dx = input_gradient(dgates, w_ih) if need[0] else None
    gradients = [dx, dh if need[1] else None, dc if need[2] else None]
    if scale is not None:
        gradients = [None if g is None else Gradient(g, scale) for g in gradients]
    return *gradients, dw_ih, dw_hh, db_ih if need[5] else None, db_hh
