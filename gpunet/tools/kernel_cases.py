"""Cases for every kernel: the arrays and options of launches that together choose all of its specialisations.

The one table of them: the tests compile what it chooses, the emulator runs it, and ``gpunet selftest`` runs it on a
card.  Sizes are odd and ragged, optional arrays are left out in turn, empty ones are there where a kernel allows it, each
array lies off alignment once, and grids that go round more than once do so.  ``python -m tests.mutation`` says what no
case would notice.

A maker has its kernel's name and yields ``(label, arrays, options)`` for one floating dtype, then what differs from most
launches: grid and twin.  Destinations are blank.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet import ops, optim  # noqa: F401  they fill KERNELS
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.launch.kernel import ELEMENTS_A_BLOCK, KERNELS, MAX_TENSORS, Kernel, ceil_div
from gpunet.ops import clip  # noqa: F401  so does this
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.losses import ELEMENTWISE_LOSSES, MAX_BLOCKS, REDUCTIONS
from gpunet.optim.lr_scheduler.kernel import KINDS
from gpunet.tools.case import MAKERS, Case, Purpose, Samples, View, maker, unaligned

FLOATING = ("float32", "float64")


def has_cases(kernel: Kernel) -> bool:
    return kernel.name in MAKERS


def purpose(kernel: Kernel) -> Purpose:
    """Which arrays of a kernel are updated in place, and which are work space."""
    return MAKERS[kernel.name][1]


def cases(kernel: Kernel) -> Iterator[Case]:
    """All cases of a kernel, the same ones every time; a kernel without ``T`` has them once, the others in each dtype."""
    make, _ = MAKERS[kernel.name]
    for floating in FLOATING if "T" in kernel.c_types else FLOATING[:1]:
        samples = Samples(floating, zlib.crc32(f"{kernel.name} {floating}".encode()))
        for label, arrays, options, *more in make(samples):
            yield Case(kernel, label, floating, arrays, options, *more)


# ---- products ---------------------------------------------------------------------------------------------------------

#: (rows, columns, depth) of a product: odd and ragged ones, none of some, and ones that take the tile of 128.
SIZES = ((1, 1, 1), (7, 63, 65), (65, 7, 129), (129, 300, 63), (300, 129, 1), (63, 65, 300), (0, 7, 5), (5, 7, 0))
#: One whose rows are whole packs of four.
WHOLE_SIZE = (4, 8, 36)
LARGE_SIZES = ((7, 95 * 128 + 1, 9), (129, 48 * 128 - 63, 65))

_PRESENCE = tuple(itertools.product((True, False), repeat=2))


def _products() -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(activation, size): every activation on both tiles, and all sizes."""
    yield from zip(itertools.cycle(("tanh", "identity")), SIZES)
    yield from itertools.product(ACTIVATIONS, ((64, 68, 32), LARGE_SIZES[0]))
    yield "identity", LARGE_SIZES[1]


@maker()
def linear_forward(s: Samples) -> Iterator[Any]:
    for (name, (n, o, i)), (with_z, with_b) in zip(_products(), itertools.cycle(_PRESENCE)):
        z, b = s.blank(n, o) if with_z else None, s.normal(o) if with_b else None
        label = f"{name} ({n}, {i}) -> ({n}, {o}){', z' * with_z}{', b' * with_b}"
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield label, [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), b], options
    n, o, i = WHOLE_SIZE
    arrays = [s.blank(n, o), s.blank(n, o), s.normal(n, i), s.normal(o, i), s.normal(o)]
    yield from unaligned(f"({n}, {i}) -> ({n}, {o})", arrays, {"activation": "identity", "alpha": 0.0})


@maker()
def linear_backward_input(s: Samples) -> Iterator[Any]:
    for name, (n, i, o) in _products():
        saved = s.saved(name, n, i) if name != "identity" else None
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield f"{name} ({n}, {o}) -> ({n}, {i})", [s.blank(n, i), s.normal(n, o), s.normal(o, i), saved], options
    n, i, o = WHOLE_SIZE
    arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved("tanh", n, i)]
    yield from unaligned(f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": "tanh", "alpha": 0.0})


@maker()
def linear_backward_weight(s: Samples) -> Iterator[Any]:
    for (o, i, n), (leave_out, scaled) in zip(
        (*SIZES, *SIZES, *LARGE_SIZES), itertools.cycle(itertools.product(("", "dw", "db"), (True, False)))
    ):
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"({n}, {o}), ({n}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(n, o), s.normal(n, i), s.positive(1) if scaled else None], {}
    o, i, n = WHOLE_SIZE
    arrays = [s.blank(o, i), s.blank(o), s.normal(n, o), s.normal(n, i), s.positive(1)]
    yield from unaligned(f"({n}, {o}), ({n}, {i})", arrays, {})


@maker()
def linear_backward_weight_partial(s: Samples) -> Iterator[Any]:
    for (o, i, n), slices in zip((*SIZES, (65, 64, 300)), (1, 4, 3, 7, 2, 64, 2, 2, 8)):
        label = f"({n}, {o}), ({n}, {i}) in {slices} slices"
        yield label, [s.blank(slices, o * i + o), s.normal(n, o), s.normal(n, i)], {"slices": slices}
    arrays = [s.blank(2, 8 * 4 + 8), s.normal(5, 8), s.normal(5, 4)]
    yield from unaligned("(5, 8), (5, 4) in 2 slices", arrays, {"slices": 2}, 0)


@maker()
def linear_backward_weight_reduce(s: Samples) -> Iterator[Any]:
    choices = itertools.product(((1, 1, 1), (7, 63, 65), (65, 7, 2), (129, 300, 5)), ("", "dw", "db"), (True, False))
    for (o, i, slices), leave_out, scaled in choices:
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"{slices} of ({o}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(slices, o * i + o), s.positive(1) if scaled else None], {}
    yield "2 of (63, 65) by 3 blocks", [s.blank(63, 65), s.blank(63), s.normal(2, 63 * 66), None], {}, 3


@maker()
def matmul_forward(s: Samples) -> Iterator[Any]:
    def swapped(x: Array) -> Array:
        return x.transpose(0, 2, 1)

    # 96 products are enough for the tile of 128
    sizes = [(1, *size) for size in SIZES] + [(96, 7, 9, 33), (3, 65, 129, 7)]
    for (j, m, n, k), flip_a, flip_b in itertools.product(sizes, (False, True), (False, True)):
        a = View(s.normal(j, k, m), swapped) if flip_a else s.normal(j, m, k)
        b = View(s.normal(j, n, k), swapped) if flip_b else s.normal(j, k, n)
        label = f"({j}, {m}, {k}){' transposed' * flip_a}, ({j}, {k}, {n}){' transposed' * flip_b}"
        yield label, [s.blank(j, m, n), a, b], {}
    one_for_all = View(s.normal(1, 7, 63), lambda x: devices.module(x).broadcast_to(x, (3, 7, 63)))
    mirrored = View(s.normal(3, 63, 2 * 65), lambda x: x[:, ::-1, ::2])
    yield "one for all, and reversed with every second column", [s.blank(3, 7, 65), one_for_all, mirrored], {}
    rows, column = View(s.normal(129, 65), lambda x: x[None, ::3]), View(s.normal(65, 2), lambda x: x[None, :, :1])
    yield "every third row, one column", [s.blank(1, 43, 1), rows, column], {}
    arrays = [s.blank(5, 7, 65), s.normal(5, 7, 9), s.normal(5, 9, 65)]
    yield "(5, 7, 9), (5, 9, 65), two at once", arrays, {}, (2, 2)
    m, n, k = WHOLE_SIZE
    yield from unaligned(f"(1, {m}, {k}), (1, {k}, {n})", [s.blank(1, m, n), s.normal(1, m, k), s.normal(1, k, n)], {})


# ---- elementwise ------------------------------------------------------------------------------------------------------

COUNTS = (1, 7, 63, 65, 129, 300, 0)


@maker()
def activation_forward(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        z = 3 * s.normal(count)
        z[:1] = abs(z[:1])  # for z = -5 alone, 1 + tanh cancels, and no larger value says how little that is
        yield f"{name} ({count},)", [s.blank(count), z], {"activation": name, "alpha": row.alpha}
    for name, row in ACTIVATIONS.items():  # zero, and far out
        far = numpy.linspace(-100, 100, 129).astype(s.dtype)
        yield f"{name} -100 .. 100", [s.blank(129), far], {"activation": name, "alpha": row.alpha}
    for name in ("leaky_relu", "elu"):
        yield f"{name} (300,), alpha 0.3", [s.blank(300), s.normal(300)], {"activation": name, "alpha": 0.3}
    arrays, options = [s.blank(5003), s.normal(5003)], {"activation": "relu", "alpha": 0.0}
    yield "relu (5003,) by 2 blocks", arrays, options, 2
    yield from unaligned("relu (5003,)", arrays, options)


@maker()
def activation_backward(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        options = {"activation": name, "alpha": row.alpha}
        yield f"{name} ({count},)", [s.blank(count), s.normal(count), s.saved(name, count)], options
    for name in ("leaky_relu", "elu"):
        arrays = [s.blank(300), s.normal(300), s.saved(name, 300, alpha=0.3)]
        yield f"{name} (300,), alpha 0.3", arrays, {"activation": name, "alpha": 0.3}
    arrays = [s.blank(300), s.normal(300), s.saved("relu", 300)]
    yield from unaligned("relu (300,)", arrays, {"activation": "relu", "alpha": 0.0})


@maker()
def dropout_apply(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        mask = s.random.random(count) < 0.5
        yield f"({count},)", [s.blank(count), s.normal(count), mask], {"scale": 1.25}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300), s.random.random(300) < 0.5], {"scale": 1.25})


@maker()
def erf_forward(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        yield f"({count},)", [s.blank(count), 2 * s.normal(count)], {}
    yield "-100 .. 100", [s.blank(129), numpy.linspace(-100, 100, 129).astype(s.dtype)], {}
    yield from unaligned("(300,)", [s.blank(300), s.normal(300)], {})


@maker(updates="out")
def scatter_add(s: Samples) -> Iterator[Any]:
    for places, count in ((1, 1), (7, 300), (300, 129), (5003, 65), (1, 300), (63, 5003), (5, 0)):
        unsorted = s.random.integers(0, places, count)
        order = numpy.argsort(unsorted, kind="stable")
        arrays = [s.normal(places), s.normal(count), unsorted[order].astype("int64"), order.astype("int64")]
        yield f"{count} into {places}", arrays, {}


# ---- losses -----------------------------------------------------------------------------------------------------------


def _loss(s: Samples, reduction: str, dx: tuple[int, ...], samples: tuple[int, ...]) -> list[Any]:
    """value, dx, factor, partials, ticket."""
    reduced = reduction != "none"
    return [
        s.blank(1) if reduced else s.blank(*samples),
        s.blank(*dx),
        s.blank(1) if reduction == "mean" else None,
        s.blank(2 * MAX_BLOCKS) if reduced else None,
        s.blank(1, dtype="uint32") if reduced else None,
    ]


@maker(workspace="partials")
def elementwise_loss(s: Samples) -> Iterator[Any]:
    shapes = ((1,), (7, 63), (300, 129), (0, 7))
    for loss, reduction, shape in itertools.product(ELEMENTWISE_LOSSES, REDUCTIONS, shapes):
        x, y = 2 * s.normal(*shape), s.normal(*shape)
        if loss != "absolute":  # whose derivative jumps there: the error of all of its elements would be told by that one
            y.reshape(-1)[1:2] = x.reshape(-1)[1:2]
        if loss == "binary_cross_entropy":
            y = s.positive(*shape) / 2
        options = {"loss": loss, "reduction": reduction, "delta": 0.5}
        yield f"{loss} {reduction} {shape}", [*_loss(s, reduction, shape, shape), x, y], options
    for reduction in REDUCTIONS:
        ties, options = s.normal(3), {"loss": "absolute", "reduction": reduction, "delta": 0.5}
        yield f"absolute {reduction} ties", [*_loss(s, reduction, (3,), (3,)), ties, ties.copy()], options
    options = {"loss": "squared", "reduction": "mean", "delta": 0.0}
    arrays = [*_loss(s, "mean", (5003,), (5003,)), s.normal(5003), s.normal(5003)]
    yield "squared mean (5003,) by 2 blocks", arrays, options, 2
    arrays = [*_loss(s, "none", (300,), (300,)), s.normal(300), s.normal(300)]
    yield from unaligned("squared none (300,)", arrays, {**options, "reduction": "none"})


#: (rows, classes, grid): a warp a row up to 1024 classes, a block a row beyond; more rows than blocks have warps.
ROWS = (
    (1, 1, None), (7, 63, None), (65, 10, None), (129, 1024, None), (9, 1025, None), (3, 5003, None), (8300, 3, None),
    (9, 1025, 4), (0, 7, None),
)  # fmt: skip


def _far(s: Samples, rows: int, classes: int) -> numpy.ndarray:
    """Logits whose exponentials overflow, both ways; some of them masked, a row all masked, one infinite, one NaN."""
    logits = s.random.permuted(numpy.linspace(-1000, 1000, rows * classes)).reshape(rows, classes).astype(s.dtype)
    logits[0, 3::2] = logits[1] = -numpy.inf
    logits[2, 5], logits[3, 7] = numpy.inf, numpy.nan
    return logits


def _labels_out_of_range(value, dx, factor, partials, ticket, logits, labels, **options) -> None:
    """The CPU refuses them; a card, which cannot, makes their rows NaN."""
    wrong = (labels != options["ignore_index"]) & ((labels < 0) | (labels >= logits.shape[1]))
    twin = KERNELS["cross_entropy_labels"].twin
    twin(value, dx, factor, partials, ticket, logits, numpy.where(wrong, 0, labels), **options)
    dx[wrong] = numpy.nan
    value[wrong if options["reduction"] == "none" else ...] = numpy.nan


@maker(workspace="partials")
def cross_entropy_labels(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction, ignore_index in itertools.product(ROWS, REDUCTIONS, (-100, 2)):
        labels = s.random.integers(0, classes, rows)
        if ignore_index < 0:
            labels[1::5] = ignore_index
        arrays = [*_loss(s, reduction, (rows, classes), (rows,)), 3 * s.normal(rows, classes), labels.astype("int64")]
        label = f"{reduction} ({rows}, {classes}){f' by {grid} blocks' * bool(grid)} ignoring {ignore_index}"
        yield label, arrays, {"reduction": reduction, "ignore_index": ignore_index}, grid
    for reduction in REDUCTIONS:
        arrays = [*_loss(s, reduction, (7, 65), (7,)), s.normal(7, 65), numpy.full(7, -100, "int64")]
        yield f"{reduction} (7, 65) ignoring all", arrays, {"reduction": reduction, "ignore_index": -100}
        for classes in (65, 1025):
            arrays = [*_loss(s, reduction, (7, classes), (7,)), _far(s, 7, classes), s.random.integers(0, 3, 7)]
            yield f"{reduction} (7, {classes}) far apart", arrays, {"reduction": reduction, "ignore_index": -100}
        arrays = [*_loss(s, reduction, (7, 10), (7,)), s.normal(7, 10), numpy.array([0, 9, 10, 11, -1, -100, 3])]
        options = {"reduction": reduction, "ignore_index": -100}
        yield f"{reduction} (7, 10) out of range", arrays, options, None, _labels_out_of_range


@maker(workspace="partials")
def cross_entropy_soft(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction in itertools.product(ROWS, REDUCTIONS):
        targets = s.positive(rows, classes) / s.dtype.type(classes)
        arrays = [*_loss(s, reduction, (rows, classes), (rows,)), 3 * s.normal(rows, classes), targets]
        yield f"{reduction} ({rows}, {classes}){f' by {grid} blocks' * bool(grid)}", arrays, {"reduction": reduction}, grid
    for reduction, classes in itertools.product(REDUCTIONS, (65, 1025)):
        targets = s.positive(7, classes) / s.dtype.type(classes)
        arrays = [*_loss(s, reduction, (7, classes), (7,)), _far(s, 7, classes), targets]
        yield f"{reduction} (7, {classes}) far apart", arrays, {"reduction": reduction}


# ---- random numbers ---------------------------------------------------------------------------------------------------

#: (key, counter): the last two carry into the counter's second word, in the ninth block and in the first.
STATES = ((0, 0), (2**63 + 12345, 987654321), (7, 2**64 - 9), (7, 2**64 - 1))


def _draws(dtype: Any, *options: dict[str, Any]) -> Iterator[Any]:
    choices = itertools.product((*COUNTS, 5003), STATES, options)
    for count, state, chosen in choices:
        label = f"({count},) from {state}, {', '.join(f'{k} {v}' for k, v in chosen.items())}"
        yield label, [numpy.zeros(count, dtype), numpy.array(state, "uint64")], chosen
    yield from unaligned("(300,)", [numpy.zeros(300, dtype), numpy.array(STATES[0], "uint64")], options[0], 0)


@maker()
def random_uniform(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"low": 0.0, "high": 1.0}, {"low": -1.7, "high": 0.3})


@maker()
def random_normal(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"mean": 0.0, "std": 1.0}, {"mean": 5.1, "std": 0.3})


@maker()
def random_integers(s: Samples) -> Iterator[Any]:
    yield from _draws("int64", {"low": 0, "high": 10}, {"low": -(2**62), "high": 2**62 - 1})


@maker()
def random_bernoulli(s: Samples) -> Iterator[Any]:
    yield from _draws("bool", {"probability": 0.0}, {"probability": 0.3}, {"probability": 1.0})
    first = int(numpy.random.Philox(key=0, counter=0).random_raw(1)[0] >> 40)
    for threshold in (first, first + 1):  # just not, and just so
        options = {"probability": threshold / 2**24}
        yield f"(7,) with a threshold of {threshold}", [numpy.zeros(7, "bool"), numpy.zeros(2, "uint64")], options


@maker(updates="state")
def random_advance(s: Samples) -> Iterator[Any]:
    for state, blocks in itertools.product(STATES, (1, 300)):
        yield f"{state} by {blocks}", [numpy.array(state, "uint64")], {"blocks": blocks}


# ---- optimisers -------------------------------------------------------------------------------------------------------

#: Sizes of the tensors of a launch.  A block works on 2048 elements; an empty tensor counts its steps, too.
TENSORS = (((7,), (63, 65), (1,), (0,), (2049,)), tuple((1 + 7 * index,) for index in range(MAX_TENSORS)))

_FLAGS = tuple(itertools.product((False, True), repeat=3))


def _steps(count: int) -> list[numpy.ndarray]:
    return [numpy.array([index % 3], "float64") for index in range(count)]


def _hyperparameters(*values: float) -> numpy.ndarray:
    return numpy.array(values, "float64")


def _ticket() -> numpy.ndarray:
    return numpy.zeros(1, "uint32")


@maker(updates="params momenta steps")
def sgd_step(s: Samples) -> Iterator[Any]:
    for shapes, (momentum, nesterov, maximize) in itertools.product(TENSORS, _FLAGS):
        params, momenta, grads = ([s.normal(*shape) for shape in shapes] for _ in range(3))
        dampening = 0.0 if nesterov else 0.1
        numbers = _hyperparameters(0.01, 0.9, dampening, 0.05)
        options = {"dampened": dampening > 0.0, "decays": True, "nesterov": nesterov, "maximize": maximize}
        arrays = [params, momenta if momentum else None, _steps(len(shapes)), grads, numbers, _ticket()]
        label = f"{len(shapes)} tensors, momentum {momentum}, nesterov {nesterov}, maximize {maximize}"
        yield label, arrays, options
        if momentum and nesterov and maximize and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0, 1, 3)


@maker(updates="params exp_avgs exp_avg_sqs max_exp_avg_sqs steps")
def adam_step(s: Samples) -> Iterator[Any]:
    for shapes, (amsgrad, decoupled, maximize) in itertools.product(TENSORS, _FLAGS):
        params, averages, grads = ([s.normal(*shape) for shape in shapes] for _ in range(3))
        squares, largest = ([s.positive(*shape) for shape in shapes] for _ in range(2))
        numbers = _hyperparameters(0.01, 0.9, 0.999, 1e-8, 0.05)
        options = {"decays": True, "decoupled": decoupled, "maximize": maximize}
        grads[1].reshape(-1)[:1] = largest[1].reshape(-1)[1:2] = numpy.nan  # both must last
        most = largest if amsgrad else None
        arrays = [params, averages, squares, most, _steps(len(shapes)), grads, numbers, _ticket()]
        label = f"{len(shapes)} tensors, amsgrad {amsgrad}, decoupled {decoupled}, maximize {maximize}"
        yield label, arrays, options
        if amsgrad and decoupled and maximize and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0, 1, 2, 3, 5)


# ---- gradients and learning rates -------------------------------------------------------------------------------------


def _norm(s: Samples, grads: list[numpy.ndarray]) -> list[Any]:
    """Arrays of gradient_norm."""
    blocks = sum(max(1, ceil_div(g.size, ELEMENTS_A_BLOCK)) for g in grads)
    return [grads, s.positive(1), s.blank(blocks), s.blank(1, dtype="uint32")]


def _odd(s: Samples, *values: float) -> list[numpy.ndarray]:
    """Two gradients; these values begin the first."""
    grads = [s.normal(300), s.normal(7)]
    grads[0][: len(values)] = values
    return grads


@maker(updates="grads norm", workspace="partials")
def gradient_norm(s: Samples) -> Iterator[Any]:
    ends = ((True, True), (True, False), (False, False), (False, True))
    orders = (1.0, 2.0, 3.5, numpy.inf)
    for shapes, order, (first, last) in itertools.product(TENSORS, orders, ends):
        label, options = f"{len(shapes)} tensors, order {order}", {"order": order, "first": first, "last": last}
        arrays = _norm(s, [s.normal(*shape) for shape in shapes])
        yield f"{label}, first {first}, last {last}", arrays, options
        if first and last and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0)
    for order, value in itertools.product(orders, (numpy.nan, numpy.inf)):
        arrays, options = _norm(s, _odd(s, value)), {"order": order, "first": True, "last": True}
        yield f"{value} among them, order {order}", arrays, options
    many = s.blank(256 * ELEMENTS_A_BLOCK + 1)  # more blocks than a block, which adds up their partials, has threads
    many[-1] = 1
    yield "257 blocks", _norm(s, [many]), {"order": 2.0, "first": True, "last": True}


@maker(updates="grads")
def clip_by_norm(s: Samples) -> Iterator[Any]:
    for shapes, max_norm in itertools.product(TENSORS, (0.0, 0.05, 5.0)):
        label, options = f"{len(shapes)} tensors to {max_norm}", {"max_norm": max_norm}
        arrays = [[s.normal(*shape) for shape in shapes], s.positive(1)]
        yield label, arrays, options
        if max_norm == 0.05 and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0)
    for norm in (0.0, 5.0, numpy.inf, numpy.nan):
        yield f"of norm {norm} to 5.0", [_odd(s), numpy.array([norm], s.dtype)], {"max_norm": 5.0}


@maker(updates="grads")
def clip_by_value(s: Samples) -> Iterator[Any]:
    for shapes, limit in itertools.product(TENSORS, (0.0, 0.5)):
        label, arrays = f"{len(shapes)} tensors to {limit}", [[s.normal(*shape) for shape in shapes]]
        yield label, arrays, {"limit": limit}
        if limit and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, {"limit": limit})
    yield "at the limit, and not finite", [_odd(s, 0.5, -0.5, numpy.nan, numpy.inf, -numpy.inf)], {"limit": 0.5}


#: Constants of each kind of schedule, see gpunet.optim.lr_scheduler.kernel, and steps around which something happens.
_SCHEDULES: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[int, ...]]] = {
    "step": (((0.3, 5, 0.5), (0.3, 1, 0.5)), (-1, 0, 3, 4, 5)),
    "points": (((0.3,), (0.3, 0, 0.5, 4, 2.0, 9, 0.1)), (-1, 0, 3, 8)),
    "exponential": (((0.3, 0.9),), (-1, 7)),
    "linear": (((0.03, 0.1, 1.0, 6),), (-1, 0, 4, 5, 6)),
    "polynomial": (((0.3, 6, 2.5),), (-1, 0, 4, 5, 6)),
    "cosine": (((0.3, 6, 0.01),), (-1, 0, 5, 6, 7, 18)),
    "warm_restarts": (((0.3, 2, 0.01),), (0, 4, 5)),
    "cyclic": (((0.1, 0.4, 10, 0.3, 0.99, 0.5),), (-1, 2, 3, 9, 10, 27)),
    "one_cycle": (
        ((1, 0, 0.01, 2.9, 0.3, 12, 0.001), (0, 0, 0.01, 2.9, 0.3, 4.8, 0.01, 12, 0.001)),
        (-1, 1, 2, 4, 11, 12, 20),
    ),
}


@maker(updates="rate momentum state")
def schedule_step(s: Samples) -> Iterator[Any]:
    for kind in KINDS:
        constants, steps = _SCHEDULES[kind]
        for values, step, position in itertools.product(constants, steps, (None, 3.0, 4.0, 6.0, 7.0)):
            state = numpy.array([step, step % 6, 6] if kind == "warm_restarts" else [step], "float64")
            at = None if position is None else numpy.array([position])
            options = {"kind": kind, "low": 4.0, "high": 7.0}
            label, rate = f"{kind} {values} from {step} at {position}", numpy.array([0.2], s.dtype)
            yield label, [rate, None, state, numpy.array(values, "float64"), at], options
            if kind in ("exponential", "cyclic", "one_cycle"):  # the momentum's constants are behind the rate's
                both = numpy.array([*values, *(0.5 * value + 0.25 for value in values)], "float64")
                momentum = numpy.array([0.9], s.dtype)
                yield f"{label}, momentum", [rate.copy(), momentum, state.copy(), both, at], options
