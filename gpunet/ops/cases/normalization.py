"""Cases of the kernels of layer, RMS and group norm."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.normalization import (
    channel_tiles,
    group_norm_backward_input,
    group_norm_forward,
    norm_backward_weight,
)

#: (shape of x, groups, grid): a warp for each row, a block for each, and a block that reads its row again; weights of elements and
#: of channels, ragged rows and whole packs.  The grids are smaller than the rows need, so that the loop over rows iterates.
ROWS = (
    ((1, 1, 1), 1, None), ((7, 63, 1), 1, None), ((5, 128, 1), 1, None), ((9, 1024, 1), 1, None), ((3, 1025, 1), 1, None),
    ((2, 5003, 1), 1, None), ((2, 8200, 1), 1, None), ((21, 6, 1), 1, 2), ((5, 1030, 1), 1, 2), ((2, 6, 5), 3, None),
    ((3, 4, 8), 2, None), ((2, 4, 600), 2, None), ((1, 6, 3000), 2, None), ((0, 5, 2), 1, None),
)  # fmt: skip
_WASTE = {
    "reads writes": "rows of an odd number of elements are moved element by element; the caches have the sectors of a pack, and "
    "the weights, which every row reads"
}
#: As :class:`gpunet.launch.facts.Facts`.
_SPILLS = {("*, true>", "*"): "8 to 40 bytes; the packs of a row take the last of the registers that ptxas allows"}
_SHOWN = (((64, 512, 1), 1), ((64, 501, 1), 1), ((8, 4096, 1), 1), ((8, 32, 64), 8))


def _statistics(s: Samples, x: numpy.ndarray, groups: int, is_centred: bool) -> tuple[Any, Any]:
    """The mean of rows of x, or None, and a random rstd; without groups (0) of channels."""
    count = len(x) * groups or x.shape[1] * (not groups)
    rows = x if groups else numpy.moveaxis(x, 1, 0)
    mean = rows.reshape(count, -1).astype(s.accumulators.dtype).mean(1) if x.size else s.accumulators.blank(count)
    return mean if is_centred else None, s.accumulators.positive(count)


def _label(shape: tuple[int, ...], groups: int, is_centred: bool) -> str:
    return f"{shape}, {groups} groups{'' if is_centred else ', not centred'}"


def _forward(
    s: Samples, shape: tuple[int, ...], groups: int, name: str, is_centred: bool = True, has_weights: bool = True,
    has_z: bool = True,
) -> Any:  # fmt: skip
    rows, channels = shape[0] * groups, shape[1]
    mean, rstd = s.accumulators.blank(rows) if is_centred else None, s.accumulators.blank(rows)
    w, b = (s.normal(channels), s.normal(channels)) if has_weights else (None, None)
    z = s.blank(*shape) if has_z else None
    options = {"groups": groups, "eps": 1e-3, "activation": name, "alpha": ACTIVATIONS[name].alpha}
    label = f"{name} {_label(shape, groups, is_centred)}{', weights' * has_weights}{', z' * has_z}"
    # off the origin: a variance that is the difference of two averages would be wrong
    return label, [s.blank(*shape), z, mean, rstd, s.normal(*shape) + s.dtype.type(4 * is_centred), w, b], options


group_norm_forward.describe(is_hot=True, waste=_WASTE, spills=_SPILLS)


@group_norm_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product((True, False), repeat=3))
    for shape, groups, grid in ROWS:
        for _ in range(3):
            yield *_forward(s, shape, groups, "identity", *next(presence)), grid
    for name in ACTIVATIONS:
        yield _forward(s, (5, 24, 1), 1, name)
    yield from unaligned(*_forward(s, (5, 24, 1), 1, "identity"))


@group_norm_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape, groups in _SHOWN:
        yield _forward(s, shape, groups, "identity", has_z=False)


@group_norm_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _forward(s, (s.width, s.width, 1), 1, "identity", has_z=False)


@group_norm_forward.cost
def _(y, z, mean, rstd, x, w, b, *, groups, eps, activation, alpha):
    # the mean, the difference, its square and their sum, two factors, the bias
    return Cost((5 + 2 * (mean is not None) + (activation != "identity")) * x.size, num_bytes(y, z, mean, rstd, x, w, b))


@group_norm_forward.equivalent
def _(torch, y, z, mean, rstd, x, w, b, *, groups, eps, activation, alpha):
    return lambda: torch.ops.aten.native_layer_norm(x[..., 0], w.shape, w, b, eps)[0][..., None]


def _backward(s: Samples, shape: tuple[int, ...], groups: int, is_centred: bool = True, has_weights: bool = True) -> Any:
    w = s.normal(shape[1]) if has_weights else None
    label = f"{_label(shape, groups, is_centred)}{', weights' * has_weights}"
    x = s.normal(*shape)
    return label, [s.blank(*shape), s.normal(*shape), x, w, *_statistics(s, x, groups, is_centred)], {"groups": groups}


group_norm_backward_input.describe(is_hot=True, waste=_WASTE, spills=_SPILLS)


@group_norm_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product((True, False), repeat=2))
    for shape, groups, grid in ROWS:
        for _ in range(3):
            yield *_backward(s, shape, groups, *next(presence)), grid
    yield from unaligned(*_backward(s, (5, 24, 1), 1))


@group_norm_backward_input.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape, groups in _SHOWN:
        yield _backward(s, shape, groups)


@group_norm_backward_input.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _backward(s, (s.width, s.width, 1), 1)


@group_norm_backward_input.cost
def _(dx, dy, x, w, mean, rstd, *, groups):
    return Cost(10 * x.size, num_bytes(dx, dy, x, w, mean, rstd))


@group_norm_backward_input.equivalent
def _(torch, dx, dy, x, w, mean, rstd, *, groups):
    statistics = (mean[:, None], rstd[:, None])
    options = (*statistics, w, None, [True, False, False])
    return lambda: torch.ops.aten.native_layer_norm_backward(dy[..., 0], x[..., 0], w.shape, *options)[0][..., None]


#: (shape of x, groups): tiles of 32 channels and of one, slices, packs that cross images, whole packs.
CHANNELS = (
    ((1, 1, 1), 0), ((7, 33, 1), 0), ((300, 5, 1), 0), ((500, 70, 1), 1), ((5, 6, 3), 3), ((90, 40, 7), 2), ((3, 2, 8), 0),
    ((9, 3, 25), 1), ((4, 2, 5003), 0), ((70, 4, 16), 2), ((0, 5, 2), 0), ((2, 34, 8), 17),
)  # fmt: skip


def workspace(s: Samples, shape: tuple[int, ...], count: int) -> tuple[Any, Any]:
    """The partial results of several slices, or None, and the tickets (:func:`gpunet.ops.normalization.channel_workspace`)."""
    _, tiles, slices = channel_tiles(shape)
    partials = s.accumulators.blank(slices * count * shape[1]) if slices > 1 else None
    return partials, s.blank(tiles + 1, dtype="uint32")


def _weight(
    s: Samples, shape: tuple[int, ...], groups: int, leave_out: str = "", is_scaled: bool = True, is_centred: bool = True
) -> Any:
    a, channels = s.accumulators, shape[1]
    outputs = {"dw": s.blank(channels), "db": s.blank(channels), "sums": a.blank(2, channels)}
    x = s.normal(*shape)
    scale = a.positive(1) if is_scaled else None
    arrays = [*(None if name == leave_out else array for name, array in outputs.items()), *workspace(s, shape, 2)]
    label = f"{_label(shape, groups, is_centred)}{', scale' * is_scaled}{', no ' * bool(leave_out)}{leave_out}"
    return label, [*arrays, s.normal(*shape), x, *_statistics(s, x, groups, is_centred), scale], {"groups": groups}


norm_backward_weight.describe(is_hot=True)


@norm_backward_weight.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product(("", "dw", "db", "sums"), (True, False)))
    for (shape, groups), _ in itertools.product(CHANNELS, range(3)):
        yield _weight(s, shape, groups, *next(presence))
    yield _weight(s, (7, 33, 1), 1, is_centred=False)
    label, arrays, options = _weight(s, (5, 4, 24), 2)
    yield from unaligned(label, arrays, options, 0, 1, 2, 5, 6, 7, 8, 9)


@norm_backward_weight.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape, groups in (((256, 512, 1), 1), ((8, 32, 64), 0)):
        yield _weight(s, shape, groups, "sums" if groups else "")


@norm_backward_weight.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _weight(s, (s.width, s.width, 1), 1, "sums")


@norm_backward_weight.cost
def _(dw, db, sums, partials, tickets, dy, x, mean, rstd, scale, *, groups):
    return Cost(5 * x.size, num_bytes(dw, db, sums, dy, x, mean, rstd, scale))


@norm_backward_weight.equivalent
def _(torch, dw, db, sums, partials, tickets, dy, x, mean, rstd, scale, *, groups):
    statistics = (mean[:, None], rstd[:, None])

    def run() -> None:  # without the scale
        torch.ops.aten.native_layer_norm_backward(dy[..., 0], x[..., 0], dw.shape, *statistics, dw, db, [False, True, True])

    return run
