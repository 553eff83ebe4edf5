"""The weight gradients of several linear layers in one launch of a captured step, and an optimizer's step on them.

The launches of ``linear_backward_weight`` of a step are independent of each other, and small ones do not fill a GPU.  Each part of
a tile is computed as by a launch of its own, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Arguments, Geometry, Kernel, Workspace
from gpunet.launch.list_kernel import ListKernel, list_kernel
from gpunet.ops.gemm import SIMT, Cut, whole_flag
from gpunet.ops.linear import linear_backward_weight

#: Gradients of one launch: a kernel has 4 KB of parameters.
CAPACITY = 24
_FIELDS = ("rows", "columns", "depth", "tiles", "bias", "is_whole")
#: The struct WeightProducts of weight_gradients.cu.
_WEIGHT_PRODUCTS = numpy.dtype(
    [("of", numpy.dtype([(name, "i4") for name in _FIELDS]), (CAPACITY,))], metadata={"c_type": "WeightProducts<CAPACITY>"}
)
MOST_STATES = 3  #: lists of states of an optimizer


class Update(NamedTuple):
    """An optimizer's step that is part of a launch."""

    kernel: ListKernel
    rule: str  # its struct in common/update_rules.cuh
    options: dict[str, Any]


@list_kernel(
    "weight_gradients.cu",
    outputs=8,
    lists=10,
    types={
        "steps": "float64", "partials": "A", "tickets": "uint32", "scale": "A", "hyperparameters": "float64", "ticket": "uint32"
    },
    optional="params first_states second_states third_states steps scale hyperparameters ticket",
    capacities=(CAPACITY,),
    updates="params first_states second_states third_states steps", workspace="partials",
    tickets="tickets ticket",
)  # fmt: skip
def linear_backward_weights(
    grads, params, first_states, second_states, third_states, steps, partials, tickets, dys, xs, scale, hyperparameters, ticket,
    *, cuts, biases, update=None,
):  # fmt: skip
    """grads = scale dy^T x of each layer, then scale (column sums of dy); then an optimizer's step on the parameters.

    Args:
        grads: of weights (o, i), then of biases (o,).
        params, first_states, second_states, third_states, steps, hyperparameters, ticket: of the optimizer; None without one,
            or if it has fewer states.
        partials, tickets: the workspace of each product; of biases, and of products that are not split, any arrays.
        dys, xs: (n, o) and (n, i), of each gradient.
        cuts: how a GPU computes each product; all in tiles of one shape, by the same arithmetic.
        biases: of each weight the place of its bias in the lists, or -1.
        update: an :class:`Update`, or None.
    """
    for number, (gradient, dy, x) in enumerate(zip(grads, dys, xs)):
        if number < len(cuts):
            linear_backward_weight.twin(gradient, None, None, None, dy, x, scale)
        else:
            linear_backward_weight.twin(None, gradient, None, None, dy, None, scale)
    if update is not None:
        states = (first_states, second_states, third_states)[: update.kernel.lists - 3]
        update.kernel.twin(params, *states, steps, grads, hyperparameters, None, ticket, **update.options)


@linear_backward_weights.geometry
def _(
    grads, params, first_states, second_states, third_states, steps, partials, tickets, dys, xs, scale, hyperparameters, ticket,
    *, cuts, biases, update=None,
):  # fmt: skip
    products = numpy.zeros(1, _WEIGHT_PRODUCTS)
    for number, (cut, dy, x, bias) in enumerate(zip(cuts, dys, xs, biases)):
        is_whole = whole_flag(dy, x, pack=cut.pack(dy.itemsize)) == "true"
        products["of"][0, number] = (dy.shape[1], x.shape[1], len(dy), cut.tiles, bias, is_whole)
    cut, rule = cuts[0], "NoRule" if update is None else update.rule
    blocks = (*(c.blocks for c in cuts), *[0] * (len(grads) - len(cuts)))
    maximize = int(update is not None and update.options["maximize"])
    return Geometry(
        blocks, cut.threads, (products, maximize), (str(cut.rows), str(cut.columns), cut.math.name, rule), cut.shared
    )


# ---- which launches become one ----------------------------------------------------------------------------------------


def common_tile(cuts: Sequence[Cut]) -> tuple[int, int] | None:
    """Return the shape of the tiles in which one launch computes all products with the bits that these cuts have, or None.

    In plain arithmetic, the bits depend only on where the depth is cut.  Equal slices are the same in tiles of any shape.
    """
    if len({cut.math for cut in cuts}) > 1:
        return None
    fixed = {(c.rows, c.columns) for c in cuts if c.math != SIMT or c.blocks % c.tiles}
    if len(fixed) > 1:
        return None
    largest = max(cuts, key=lambda cut: cut.tiles * cut.rows * cut.columns)
    return next(iter(fixed), (largest.rows, largest.columns))


def _in_tiles(cut: Cut, tile: tuple[int, int], rows: int, columns: int) -> Cut:
    """The cut in tiles of another shape, with as many slices."""
    if (cut.rows, cut.columns) == tile:
        return cut
    tiles = -(-rows // tile[0]) * max(1, -(-columns // tile[1]))
    return Cut(*tile, tiles, tiles * (cut.blocks // cut.tiles), cut.math)


@linear_backward_weight.joins
def _(launches: Sequence[Arguments]) -> tuple[Kernel, Arguments] | None:
    """All that have the pending scale of the first one."""
    cuts: list[Cut] = [options["cut"] for _, options in launches if options.get("cut") is not None]
    if len(cuts) < len(launches) or any(not cut.blocks for cut in cuts) or any(arrays[0] is None for arrays, _ in launches):
        return None
    scale, dtype = launches[0].arrays[6], launches[0].arrays[0].dtype
    if any(arrays[6] != scale or arrays[0].dtype != dtype for arrays, _ in launches):
        return None
    tile = common_tile(cuts)
    with_bias = [number for number, (arrays, _) in enumerate(launches) if arrays[1] is not None]
    if tile is None or len(launches) + len(with_bias) > CAPACITY:
        return None
    of = [*launches, *(launches[number] for number in with_bias)]
    cuts = [_in_tiles(cut, tile, *arrays[0].shape) for (arrays, _), cut in zip(launches, cuts)]
    grads = [*(arrays[0] for arrays, _ in launches), *(launches[number].arrays[1] for number in with_bias)]
    sizes = [(cut.num_partials(1), cut.tiles) if cut.is_split else (0, 0) for cut in cuts] + [(0, 0)] * len(with_bias)
    partials = [Workspace(count, accumulator(dtype)) for count, _ in sizes]
    tickets = [Workspace(count, numpy.dtype("uint32"), True) for _, count in sizes]
    dys, xs = ([arrays[place] for arrays, _ in of] for place in (4, 5))
    biases = [len(launches) + with_bias.index(number) if number in with_bias else -1 for number in range(len(launches))]
    arrays = (grads, None, None, None, None, None, partials, tickets, dys, xs, scale, None, None)
    return linear_backward_weights, Arguments(arrays, {"cuts": tuple(cuts), "biases": tuple(biases)})


def add_update(kernel: ListKernel, rule: str, launch: Arguments, step: Arguments) -> tuple[Kernel, Arguments] | None:
    """Let a launch of ``linear_backward_weights`` do an optimizer's step, if that is on the parameters of all its gradients.

    Args:
        kernel: of the optimizer.
        rule: its struct in common/update_rules.cuh.
        launch: of ``linear_backward_weights``.
        step: of ``kernel``.
    """
    params, *states, steps, gradients, hyperparameters, skip, ticket = step.arrays
    grads, workspace = launch.arrays[0], launch.arrays[6:11]
    if skip is not None or len(gradients) != len(grads) or any(gradient not in gradients for gradient in grads):
        return None
    order = [gradients.index(gradient) for gradient in grads]
    params, steps, *states = (
        None if tensors is None else [tensors[place] for place in order] for tensors in (params, steps, *states)
    )
    of_states = [*states, *[None] * (MOST_STATES - len(states))]
    arrays = (grads, params, *of_states, steps, *workspace, hyperparameters, ticket)
    return linear_backward_weights, Arguments(arrays, {**launch.options, "update": Update(kernel, rule, step.options)})
