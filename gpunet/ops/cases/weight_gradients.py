"""Cases of the kernel of the weight gradients of several layers; ``gpunet.optim.cases`` adds those with an optimizer's step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from gpunet.launch.facts import Cost, Floor, Product, num_bytes, num_elements
from gpunet.ops.cases.case import Samples, cut, rounded_operands, shifted
from gpunet.ops.gemm import LOOPS, TF32, Cut
from gpunet.ops.weight_gradients import MOST_STATES, linear_backward_weights

#: (o, i, n), and whether there is a bias: of whole rows, of ragged ones, and without columns.
_LAYERS = (((68, 72, 40), True), ((10, 23, 70), True), ((130, 5, 33), False), ((5, 0, 9), True))
WHOLE_LAYERS = (((128, 256, 64), True), ((64, 128, 64), True))
Layers = Sequence[tuple[tuple[int, int, int], bool]]


def arrays_of(s: Samples, layers: Layers, cuts: Sequence[Cut], scaled: bool) -> tuple[list[Any], tuple[int, ...]]:
    """The arrays of a launch without an optimizer's step, and the option ``biases``."""
    with_bias = [number for number, (_, has_bias) in enumerate(layers) if has_bias]
    grads = [s.blank(o, i) for (o, i, _), _ in layers] + [s.blank(layers[number][0][0]) for number in with_bias]
    workspaces = [s.split(cut, extra=1) for cut in cuts] + [[None, None]] * len(with_bias)
    partials = [s.accumulators.blank(1) if found is None else found for found, _ in workspaces]
    tickets = [s.blank(1, dtype="uint32") if found is None else found for _, found in workspaces]
    operands = [(s.operand(cut, n, o), s.operand(cut, n, i)) for ((o, i, n), _), cut in zip(layers, cuts)]
    of_grads = [*operands, *(operands[number] for number in with_bias)]
    dys, xs = ([pair[which] for pair in of_grads] for which in (0, 1))
    scale = s.accumulators.positive(1) if scaled else None
    biases = tuple(len(layers) + with_bias.index(n) if n in with_bias else -1 for n in range(len(layers)))
    return [grads, *[None] * (2 + MOST_STATES), partials, tickets, dys, xs, scale, None, None], biases


def in_tf32(grads, *others, cuts, biases, update=None):
    """The twin where the gradients of weights are products of TF32."""
    *states, dys, xs, scale, hyperparameters, ticket = others
    count = len(cuts)
    rounded = zip(*(rounded_operands(dy, x) for dy, x in zip(dys[:count], xs[:count])))
    dys, xs = ([*ours, *all_of[count:]] for ours, all_of in zip(rounded, (dys, xs)))
    linear_backward_weights.twin(
        grads, *states, dys, xs, scale, hyperparameters, ticket, cuts=cuts, biases=biases, update=update
    )


#: Slightly below those of one product: what differs between products is read in each step.
_FLOORS = {
    ("float, 64, 64, Mma, *", "*"): Floor(0.12, 2.2),
    ("float, 128, 128, Simt, *", "*"): Floor(0.84),
    ("float, 64, 64, Simt, *", "*"): Floor(0.82),
}

linear_backward_weights.describe(
    is_hot=True, floors=_FLOORS,
    spills={
        (pattern, "*"): "around the main loops; the one that takes packs of any width has no register to spare"
        for pattern in ("*, 128, 128, *", "*, 128, 32, *", "*, 32, 128, *", "*, 64, 64, Simt, *")
    },
)  # fmt: skip


@linear_backward_weights.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for math in s.maths:
        for tile, (slices, scaled, layers) in itertools.product(
            LOOPS[math],
            (((1, 3, 1.5, 2), True, _LAYERS), ((2, 1, 1, 1), False, _LAYERS[1:]), ((0.6,), True, (((300, 136, 20), True),))),
        ):
            cuts = tuple(cut(tile, part, o, i, n, math=math) for ((o, i, n), _), part in zip(layers, slices))
            arrays, biases = arrays_of(s, layers, cuts, scaled)
            label = f"{len(layers)} layers, tiles of {tile} by {math.name}{', scale' * scaled}"
            yield label, arrays, {"cuts": cuts, "biases": biases}, None, in_tf32 if math == TF32 else None
    layers = (((12, 8, 36), True),)
    cuts = (cut((64, 64), 1, 12, 8, 36),)
    arrays, biases = arrays_of(s, layers, cuts, True)
    for place, by in itertools.product((0, 8, 9), (1, 2)):
        yield from _unaligned(arrays, {"cuts": cuts, "biases": biases}, place, by)


def _unaligned(arrays: list[Any], options: dict[str, Any], place: int, by: int) -> Iterator[Any]:
    moved = [shifted(array, by) for array in arrays[place]]
    yield f"list {place} unaligned by {by}", [*arrays[:place], moved, *arrays[place + 1 :]], options


@linear_backward_weights.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    layers = (((s.width,) * 3, True),) * 2
    cuts = tuple(cut((64, 64), 1, *size) for size, _ in layers)
    arrays, biases = arrays_of(s, layers, cuts, True)
    yield f"2 layers ({s.width}, {s.width})", arrays, {"cuts": cuts, "biases": biases}


@linear_backward_weights.cost
def _(
    grads, params, first_states, second_states, third_states, steps, partials, tickets, dys, xs, scale, hyperparameters, ticket,
    *, cuts, biases, update=None,
):  # fmt: skip
    count = len(cuts)
    products = sum(2.0 * gradient.size * len(dy) for gradient, dy in zip(grads, dys))
    sums = sum(dy.size for dy in dys[count:])
    of_step = num_bytes(params, first_states, second_states, third_states, steps)
    flops = products + sums + (0.0 if update is None else 10.0 * num_elements(params))
    return Cost(flops, num_bytes(grads, dys[:count], xs[:count], scale, hyperparameters) + 2 * of_step)


@linear_backward_weights.product
def _(
    grads, params, first_states, second_states, third_states, steps, partials, tickets, dys, xs, scale, hyperparameters, ticket,
    *, cuts, biases, update=None,
):  # fmt: skip
    return [Product(dy.shape[1], x.shape[1], len(dy), terms=cut.terms) for cut, dy, x in zip(cuts, dys, xs)]


@linear_backward_weights.equivalent
def _(torch, grads, *others, cuts, biases, update=None):
    dys, xs = others[-5:-3]

    def run() -> None:
        for number, (gradient, dy, x) in enumerate(zip(grads, dys, xs)):
            if number < len(cuts):
                torch.mm(dy.T, x, out=gradient)
            else:
                torch.sum(dy, 0, out=gradient)

    return run
