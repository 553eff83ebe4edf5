"""Linear layers and mean losses of many nets at once; a net's numbers do not depend on the other nets.

The parameters of the nets are stacked along a first dimension, so that one launch serves all nets.  Each net's products and sums
are computed alone, in an order that depends on its shapes, but not on the number of nets: a net has the same bits in every stack.
A compiled step has loops over nets, which threads share.

A net whose number in ``active`` is 0 is stopped: its outputs and gradients are zeros, its loss is NaN, and its products are not
computed on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
from numpy import float64, ndarray

from gpunet.autograd import COPY, MULTIPLY, Tensor, fused
from gpunet.backend import blas
from gpunet.backend.devices import Array
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, kernel
from gpunet.launch.loops import Loops, advance, like, load, loop_body, product, reduce_add, store, transpose
from gpunet.launch.memory import empty
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import broadcast_to
from gpunet.ops.elementwise import where
from gpunet.ops.gemm import Cut, best_cut, geometry, whole_flag
from gpunet.ops.matmul import matmul

_ACTIVE = {"active": "int64"}


def is_active(active: Any, net: int) -> bool:
    """Whether a net is trained; all are if ``active`` is None."""
    return active is None or bool(active[net])


@kernel("stacked.cu", outputs=2, types=_ACTIVE, optional="packed b active", reads_values=True, workspace="packed")
def stacked_linear_forward(y, packed, x, w, b, active, *, cut=None):
    """y[s] = x[s] w[s]^T + b[s].  x (nets, n, i) or (n, i), w (nets, o, i), b (nets, o), active (nets,) -> y (nets, n, o).

    Here and below, ``cut`` has the tiles of the products on a GPU (see :mod:`gpunet.ops.gemm`).  ``packed`` (nets, i, o) is
    workspace of compiled steps.
    """
    for net in range(len(w)):
        if is_active(active, net):
            blas.dot(x if x.ndim == 2 else x[net], w[net].T, out=y[net])
            if b is not None:
                y[net] += b[net]
        else:
            y[net] = 0


@kernel("stacked.cu", outputs=1, types=_ACTIVE, optional="active", reads_values=True)
def stacked_linear_backward_input(dx, dy, w, active, *, cut=None):
    """dx[s] = dy[s] w[s].  dy (nets, n, o), w (nets, o, i), active (nets,) -> dx (nets, n, i)."""
    for net in range(len(w)):
        if is_active(active, net):
            blas.dot(dy[net], w[net], out=dx[net])
        else:
            dx[net] = 0


@kernel("stacked.cu", outputs=2, types=_ACTIVE, optional="db active", reads_values=True)
def stacked_linear_backward_weight(dw, db, dy, x, active, *, cut=None):
    """dw[s] = dy[s]^T x[s], db[s] = column sums of dy[s].  dy (nets, n, o), x (nets, n, i) or (n, i), active (nets,)
    -> dw (nets, o, i), db (nets, o).
    """  # fmt: skip
    for net in range(len(dy)):
        if is_active(active, net):
            blas.dot(dy[net].T, x if x.ndim == 2 else x[net], out=dw[net])
            if db is not None:
                numpy.add.reduce(dy[net], axis=0, out=db[net])
        else:
            dw[net] = 0
            if db is not None:
                db[net] = 0


@kernel("stacked.cu", outputs=1, types=_ACTIVE, optional="active", reads_values=True)
def stacked_mean_forward(value, each, active):
    """value[s] = the mean of each[s], or NaN.  each (nets, count), active (nets,) -> value (nets,)."""
    for net in range(len(each)):
        value[net] = numpy.add.reduce(each[net]) / value.dtype.type(each.shape[1]) if is_active(active, net) else numpy.nan


# ---- what they compute in a network ---------------------------------------------------------------------------------------


@stacked_linear_forward.computes
def _(y, packed, x, w, b, active, *, cut=None):
    return parts.StackedLayer(y, x, w, b, active)


@stacked_linear_backward_input.computes
def _(dx, dy, w, active, *, cut=None):
    return parts.InputGradient(dx, dy, w, None, "identity", 0.0)


@stacked_linear_backward_weight.computes
def _(dw, db, dy, x, active, *, cut=None):
    return parts.WeightGradient(dw, db, dy, x, None)


@stacked_mean_forward.computes
def _(value, each, active):
    return parts.StackedMean(value, each, active)


# ---- on a GPU -----------------------------------------------------------------------------------------------------------


def _cut_of(cut: Cut | None, rows: int, columns: int, depth: int, nets: int) -> Cut:
    """Return ``cut``; if it is None, the tiles that are best for one net, each computed by one block."""
    if cut is not None:
        return cut
    of_net = best_cut(rows, columns, depth)
    return of_net._replace(tiles=nets * of_net.tiles, blocks=nets * of_net.tiles)


def _of_net(x: Array) -> numpy.int64:
    """The elements from a net's rows to the next one's: 0 for rows that all nets share."""
    return numpy.int64(0 if x.ndim == 2 else x.shape[1] * x.shape[2])


@stacked_linear_forward.geometry
def _(y, packed, x, w, b, active, *, cut=None):
    (nets, n, o), i = y.shape, w.shape[2]
    cut = _cut_of(cut, n, o, i, nets)
    return geometry(n, o, i, cut, (_of_net(x),), whole_flag(x, w, pack=cut.pack(x.itemsize)))


@stacked_linear_backward_input.geometry
def _(dx, dy, w, active, *, cut=None):
    (nets, n, i), o = dx.shape, w.shape[1]
    cut = _cut_of(cut, n, i, o, nets)
    return geometry(n, i, o, cut, (), whole_flag(dy, w, pack=cut.pack(dy.itemsize)))


@stacked_linear_backward_weight.geometry
def _(dw, db, dy, x, active, *, cut=None):
    (nets, o, i), n = dw.shape, dy.shape[1]
    cut = _cut_of(cut, o, i, n, nets)
    return geometry(o, i, n, cut, (_of_net(x),), whole_flag(dy, x, pack=cut.pack(dy.itemsize)))


@stacked_mean_forward.geometry
def _(value, each, active):
    return Geometry(len(each), 256, (each.shape[1],))


# ---- in compiled steps ----------------------------------------------------------------------------------------------------
#
# The bodies take nets ``first`` to ``stop``.  Another array stands in the place of one that is not given, and a number says so.


@stacked_linear_forward.loops
def _(y, packed, x, w, b, active, *, cut=None):
    if packed is None:
        return None
    (nets, n, o), i = y.shape, w.shape[2]
    arrays = (y, packed, x, w, y if b is None else b, y if active is None else active)
    numbers = (0, nets, n, o, i, int(_of_net_view(x)), int(b is not None), int(active is not None))
    return Loops(_forward_loop, arrays, numbers, work=nets * n * o * i)


@stacked_linear_backward_input.loops
def _(dx, dy, w, active, *, cut=None):
    (nets, n, i), o = dx.shape, w.shape[1]
    numbers = (0, nets, n, o, i, int(active is not None))
    return Loops(_input_loop, (dx, dy, w, dx if active is None else active), numbers, work=nets * n * o * i)


@stacked_linear_backward_weight.loops
def _(dw, db, dy, x, active, *, cut=None):
    (nets, o, i), n = dw.shape, dy.shape[1]
    arrays = (dw, dw if db is None else db, dy, x, dw if active is None else active)
    numbers = (0, nets, n, o, i, int(_of_net_view(x)), int(db is not None), int(active is not None))
    return Loops(_weight_loop, arrays, numbers, work=nets * n * o * i)


@stacked_mean_forward.loops
def _(value, each, active):
    nets, count = each.shape
    numbers = (0, nets, count, int(active is not None))
    return Loops(_mean_loop, (value, each, value if active is None else active), numbers, work=nets * count * each.dtype.itemsize)


def _of_net_view(x: Any) -> int:
    return 0 if len(x.shape) == 2 else x.shape[1] * x.shape[2]


@loop_body
def _forward_loop(y, packed, x, w, b, active, first, stop, n, o, i, x_of_net, has_b, has_active):
    for net in range(first, stop):
        start = net * n * o
        if has_active != 0 and load(active, net, 5) == 0:
            for j in range(start, start + n * o):
                store(y, j, like(y, 0), 0)
        else:
            of_net = advance(packed, net * o * i)
            transpose(of_net, advance(w, net * o * i), o, i, i)
            product(advance(y, start), advance(x, net * x_of_net), of_net, n, o, i, o, i, 1, o)
            if has_b != 0:
                for row in range(n):
                    for j in range(o):
                        at = start + row * o + j
                        store(y, at, load(y, at, 0) + load(b, net * o + j, 4), 0)
    return 0


@loop_body
def _input_loop(dx, dy, w, active, first, stop, n, o, i, has_active):
    for net in range(first, stop):
        start = net * n * i
        if has_active != 0 and load(active, net, 3) == 0:
            for j in range(start, start + n * i):
                store(dx, j, like(dx, 0), 0)
        else:
            product(advance(dx, start), advance(dy, net * n * o), advance(w, net * o * i), n, i, o, i, o, 1, i)
    return 0


@loop_body
def _weight_loop(dw, db, dy, x, active, first, stop, n, o, i, x_of_net, has_db, has_active):
    for net in range(first, stop):
        start, of_dy = net * o * i, net * n * o
        if has_active != 0 and load(active, net, 4) == 0:
            for j in range(start, start + o * i):
                store(dw, j, like(dw, 0), 0)
            if has_db != 0:
                for j in range(o):
                    store(db, net * o + j, like(db, 0), 1)
        else:
            product(advance(dw, start), advance(dy, of_dy), advance(x, net * x_of_net), o, i, n, i, 1, o, i)
            if has_db != 0:
                for j in range(o):
                    store(db, net * o + j, like(db, 0), 1)
                for row in range(n):
                    for j in range(o):
                        store(db, net * o + j, load(db, net * o + j, 1) + load(dy, of_dy + row * o + j, 2), 1)
    return 0


@loop_body
def _mean_loop(value, each, active, first, stop, count, has_active):
    for net in range(first, stop):
        if has_active != 0 and load(active, net, 2) == 0:
            store(value, net, like(value, math.nan), 0)
        else:
            total = float64(0)
            for j in range(count):
                total = reduce_add(total, float64(load(each, net * count + j, 1)))
            store(value, net, like(value, total / count), 0)
    return 0


# ---- ops ------------------------------------------------------------------------------------------------------------------


def _linear_composed(x, w, b, active):
    y = matmul(x, w.mT)
    y = y if b is None else y + b.reshape(b.shape[0], 1, b.shape[1])
    return y if active is None else where((active != 0).reshape(-1, 1, 1), y, 0.0)


@fused(composed=_linear_composed)
def stacked_linear(x, w, b, active, *, need):
    """A linear layer of each net: x (nets, n, i), or (n, i) for all nets if it needs no gradient; w (nets, o, i); b (nets, o) or
    None; active int64 (nets,) or None -> (nets, n, o).
    """  # fmt: skip
    nets, outputs, inputs = w.shape
    y = empty((nets, x.shape[-2], outputs), x.dtype, x)
    packed = empty((nets, inputs, outputs), x.dtype, x) if type(x) is ndarray else None
    stacked_linear_forward(y, packed, x, w, b, active)
    return y, (x if need[1] or need[2] else None, w if need[0] else None, active)


@stacked_linear.backward
def _(saved, dy, *, need):
    x, w, active = saved
    dy, dx, dw, db = dy.array, None, None, None
    nets, n, outputs = dy.shape
    if need[1] or need[2]:
        dw = empty((nets, outputs, x.shape[-1]), dy.dtype, dy)
        db = empty((nets, outputs), dy.dtype, dy) if need[2] else None
        stacked_linear_backward_weight(dw, db, dy, x, active)
    if need[0]:
        dx = empty((nets, n, w.shape[-1]), dy.dtype, dy)
        stacked_linear_backward_input(dx, dy, w, active)
    return dx, dw, db, None


def _mean_composed(each, active):
    mean = reductions.mean(each, 1)
    return mean if active is None else where(active != 0, mean, numpy.nan)


@fused(composed=_mean_composed)
def stacked_mean(each, active, *, need):
    """The mean of each net's numbers: each (nets, count), active int64 (nets,) or None -> (nets,)."""
    value = empty(each.shape[:1], each.dtype, each)
    stacked_mean_forward(value, each, active)
    return value, (each,)


@stacked_mean.backward
def _(saved, dy, *, need):
    (each,) = saved
    dx = empty(each.shape, each.dtype, each)
    COPY(dx, dy.array.reshape(-1, 1))
    MULTIPLY(dx, dx, 1.0 / max(1, each.shape[1]))
    return dx, None


def shared_or_own(x: Tensor, nets: int) -> Tensor:
    """Return inputs (nets, n, i), or (n, i) that all nets share, as :func:`stacked_linear` takes them."""
    if x.ndim == 2 and x.requires_grad:
        return broadcast_to(x, shape=(nets, *x.shape))
    return x
