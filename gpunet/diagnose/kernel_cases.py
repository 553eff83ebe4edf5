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
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet import device, ops, optim  # noqa: F401  the latter two fill KERNELS
from gpunet.device import Array
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.losses import ELEMENTWISE_LOSSES, MAX_BLOCKS, REDUCTIONS
from gpunet.runtime.kernel import KERNELS, MAX_TENSORS, Geometry, Kernel

FLOATING = ("float32", "float64")


class View(NamedTuple):
    """An array that a kernel takes as a view of another one: transposed, reversed, broadcast, off alignment."""

    base: numpy.ndarray
    of: Callable[[Array], Array]


class Case(NamedTuple):
    """One launch."""

    kernel: Kernel
    label: str
    floating: str  # dtype of T
    arrays: list[Any]  # NumPy arrays, Views, None, or lists of arrays and Views
    options: dict[str, Any]
    grid: int | tuple[int, ...] | None = None  # instead of the one that the arrays' shapes lead to
    twin: Callable[..., None] | None = None  # what is right where the kernel's own twin refuses, and so the CPU does

    def __str__(self) -> str:
        return f"{self.kernel.name} {self.floating} {self.label}"

    def on_cpu(self) -> list[Any]:
        """The arrays as the twin takes them."""
        return [[_seen(x) for x in a] if isinstance(a, list) else _seen(a) for a in self.arrays]

    def geometry(self) -> Geometry:
        return self._geometry(self.on_cpu())

    def _geometry(self, arrays: list[Any]) -> Geometry:
        geometry = self.kernel.launch_geometry(arrays, self.options)
        return geometry if self.grid is None else geometry._replace(grid=self.grid)

    def launch(self, arrays: list[Any]) -> None:
        """Launch on the arrays of a device."""
        self.kernel.check(arrays)
        if self.grid is None or type(arrays[0]) is numpy.ndarray:
            self.kernel.launch(arrays, self.options)
        else:
            self.kernel.launch_as(self._geometry(arrays), arrays)

    def expression(self, geometry: Geometry | None = None) -> str:
        """The C++ name of the specialisation that the launch chooses."""
        flat = [a[0] if isinstance(a, list) else a for a in self.on_cpu()]
        return self.kernel.expression(self.kernel.floating(flat), geometry or self.geometry())


def _seen(array: Any) -> Any:
    return array.of(array.base) if isinstance(array, View) else array


class Purpose(NamedTuple):
    """What the launch does with destinations that it does not simply write."""

    updates: frozenset[str]  # read, then written
    workspace: frozenset[str]  # of the card: what is left there means nothing


_makers: dict[str, tuple[Callable[[Samples], Iterator[Any]], Purpose]] = {}


def has_cases(kernel: Kernel) -> bool:
    return kernel.name in _makers


def purpose(kernel: Kernel) -> Purpose:
    """Which arrays of a kernel are updated in place, and which are work space."""
    return _makers[kernel.name][1]


def cases(kernel: Kernel) -> Iterator[Case]:
    """All cases of a kernel, the same ones every time; a kernel without ``T`` has them once, the others in each dtype."""
    make, _ = _makers[kernel.name]
    for floating in FLOATING if "T" in kernel.c_types else FLOATING[:1]:
        samples = Samples(floating, zlib.crc32(f"{kernel.name} {floating}".encode()))
        for label, arrays, options, *more in make(samples):
            yield Case(kernel, label, floating, arrays, options, *more)


def _cases(updates: str = "", workspace: str = "") -> Callable[[Callable[[Samples], Iterator[Any]]], None]:
    def register(make: Callable[[Samples], Iterator[Any]]) -> None:
        # the ticket is zero before and after every launch
        _makers[make.__name__] = make, Purpose(frozenset([*updates.split(), "ticket"]), frozenset(workspace.split()))

    return register


class Samples:
    """Draws arrays of one floating dtype."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.dtype = numpy.dtype(dtype)
        self.random = numpy.random.default_rng(seed)

    def normal(self, *shape: int) -> numpy.ndarray:
        return self.random.normal(size=shape).astype(self.dtype)

    def positive(self, *shape: int) -> numpy.ndarray:
        return self.random.uniform(0.1, 2.0, shape).astype(self.dtype)

    def blank(self, *shape: int, dtype: Any = None) -> numpy.ndarray:
        return numpy.zeros(shape, dtype or self.dtype)

    def saved(self, activation: str, *shape: int, alpha: float | None = None) -> numpy.ndarray:
        """What the forward pass of an activation saves."""
        row, z = ACTIVATIONS[activation], self.normal(*shape)
        z.reshape(-1)[1:2] = 0
        if row.saves == "output":
            row.forward(z, z, row.alpha if alpha is None else alpha)
        return z


def _shifted(array: numpy.ndarray) -> View:
    """The array, one element off alignment."""
    flat = array.reshape(-1)
    return View(numpy.concatenate([flat[:1], flat]), lambda x: x[1:].reshape(array.shape))


def _unaligned(label: str, arrays: list[Any], options: dict[str, Any], *which: int) -> Iterator[Any]:
    """The same launch for each of the arrays, all of them by default, with that one off alignment and the others not."""
    for index in which or range(len(arrays)):
        array = arrays[index]
        if array is not None:
            shifted = [_shifted(a) for a in array] if isinstance(array, list) else _shifted(array)
            yield f"{label}, array {index} unaligned", [*arrays[:index], shifted, *arrays[index + 1 :]], options


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


@_cases()
def linear_forward(s: Samples) -> Iterator[Any]:
    for (name, (n, o, i)), (with_z, with_b) in zip(_products(), itertools.cycle(_PRESENCE)):
        z, b = s.blank(n, o) if with_z else None, s.normal(o) if with_b else None
        label = f"{name} ({n}, {i}) -> ({n}, {o}){', z' * with_z}{', b' * with_b}"
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield label, [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), b], options
    n, o, i = WHOLE_SIZE
    arrays = [s.blank(n, o), s.blank(n, o), s.normal(n, i), s.normal(o, i), s.normal(o)]
    yield from _unaligned(f"({n}, {i}) -> ({n}, {o})", arrays, {"activation": "identity", "alpha": 0.0})


@_cases()
def linear_backward_input(s: Samples) -> Iterator[Any]:
    for name, (n, i, o) in _products():
        saved = s.saved(name, n, i) if name != "identity" else None
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield f"{name} ({n}, {o}) -> ({n}, {i})", [s.blank(n, i), s.normal(n, o), s.normal(o, i), saved], options
    n, i, o = WHOLE_SIZE
    arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved("tanh", n, i)]
    yield from _unaligned(f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": "tanh", "alpha": 0.0})


@_cases()
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
    yield from _unaligned(f"({n}, {o}), ({n}, {i})", arrays, {})


@_cases()
def linear_backward_weight_partial(s: Samples) -> Iterator[Any]:
    for (o, i, n), slices in zip((*SIZES, (65, 64, 300)), (1, 4, 3, 7, 2, 64, 2, 2, 8)):
        label = f"({n}, {o}), ({n}, {i}) in {slices} slices"
        yield label, [s.blank(slices, o, i + 1), s.normal(n, o), s.normal(n, i)], {"slices": slices}
    arrays = [s.blank(2, 8, 4), s.normal(5, 8), s.normal(5, 3)]
    yield from _unaligned("(5, 8), (5, 3) in 2 slices", arrays, {"slices": 2}, 0)


@_cases()
def linear_backward_weight_reduce(s: Samples) -> Iterator[Any]:
    choices = itertools.product(((1, 1, 1), (7, 63, 65), (65, 7, 2), (129, 300, 5)), ("", "dw", "db"), (True, False))
    for (o, i, slices), leave_out, scaled in choices:
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"({slices}, {o}, {i + 1}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(slices, o, i + 1), s.positive(1) if scaled else None], {}
    yield "(2, 63, 66) by 3 blocks", [s.blank(63, 65), s.blank(63), s.normal(2, 63, 66), None], {}, 3


@_cases()
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
    one_for_all = View(s.normal(1, 7, 63), lambda x: device.module(x).broadcast_to(x, (3, 7, 63)))
    mirrored = View(s.normal(3, 63, 2 * 65), lambda x: x[:, ::-1, ::2])
    yield "one for all, and reversed with every second column", [s.blank(3, 7, 65), one_for_all, mirrored], {}
    rows, column = View(s.normal(129, 65), lambda x: x[None, ::3]), View(s.normal(65, 2), lambda x: x[None, :, :1])
    yield "every third row, one column", [s.blank(1, 43, 1), rows, column], {}
    arrays = [s.blank(5, 7, 65), s.normal(5, 7, 9), s.normal(5, 9, 65)]
    yield "(5, 7, 9), (5, 9, 65), two at once", arrays, {}, (2, 2)
    m, n, k = WHOLE_SIZE
    yield from _unaligned(f"(1, {m}, {k}), (1, {k}, {n})", [s.blank(1, m, n), s.normal(1, m, k), s.normal(1, k, n)], {})


# ---- elementwise ------------------------------------------------------------------------------------------------------

COUNTS = (1, 7, 63, 65, 129, 300, 0)


@_cases()
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
    yield from _unaligned("relu (5003,)", arrays, options)


@_cases()
def activation_backward(s: Samples) -> Iterator[Any]:
    for (name, row), count in itertools.product(ACTIVATIONS.items(), (*COUNTS, 5003)):
        options = {"activation": name, "alpha": row.alpha}
        yield f"{name} ({count},)", [s.blank(count), s.normal(count), s.saved(name, count)], options
    for name in ("leaky_relu", "elu"):
        arrays = [s.blank(300), s.normal(300), s.saved(name, 300, alpha=0.3)]
        yield f"{name} (300,), alpha 0.3", arrays, {"activation": name, "alpha": 0.3}
    arrays = [s.blank(300), s.normal(300), s.saved("relu", 300)]
    yield from _unaligned("relu (300,)", arrays, {"activation": "relu", "alpha": 0.0})


@_cases()
def dropout_apply(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        mask = s.random.random(count) < 0.5
        yield f"({count},)", [s.blank(count), s.normal(count), mask], {"scale": 1.25}
    yield from _unaligned("(300,)", [s.blank(300), s.normal(300), s.random.random(300) < 0.5], {"scale": 1.25})


@_cases()
def erf_forward(s: Samples) -> Iterator[Any]:
    for count in (*COUNTS, 5003):
        yield f"({count},)", [s.blank(count), 2 * s.normal(count)], {}
    yield "-100 .. 100", [s.blank(129), numpy.linspace(-100, 100, 129).astype(s.dtype)], {}
    yield from _unaligned("(300,)", [s.blank(300), s.normal(300)], {})


@_cases(updates="out")
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


@_cases(workspace="partials")
def elementwise_loss(s: Samples) -> Iterator[Any]:
    shapes = ((1,), (7, 63), (300, 129), (0, 7))
    for loss, reduction, shape in itertools.product(ELEMENTWISE_LOSSES, REDUCTIONS, shapes):
        x, y = 2 * s.normal(*shape), s.normal(*shape)
        y.reshape(-1)[1:2] = x.reshape(-1)[1:2]
        if loss == "binary_cross_entropy":
            y = s.positive(*shape) / 2
        options = {"loss": loss, "reduction": reduction, "delta": 0.5}
        yield f"{loss} {reduction} {shape}", [*_loss(s, reduction, shape, shape), x, y], options
    options = {"loss": "squared", "reduction": "mean", "delta": 0.0}
    arrays = [*_loss(s, "mean", (5003,), (5003,)), s.normal(5003), s.normal(5003)]
    yield "squared mean (5003,) by 2 blocks", arrays, options, 2
    arrays = [*_loss(s, "none", (300,), (300,)), s.normal(300), s.normal(300)]
    yield from _unaligned("squared none (300,)", arrays, {**options, "reduction": "none"})


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


@_cases(workspace="partials")
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


@_cases(workspace="partials")
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
    yield from _unaligned("(300,)", [numpy.zeros(300, dtype), numpy.array(STATES[0], "uint64")], options[0], 0)


@_cases()
def random_uniform(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"low": 0.0, "high": 1.0}, {"low": -1.7, "high": 0.3})


@_cases()
def random_normal(s: Samples) -> Iterator[Any]:
    yield from _draws(s.dtype, {"mean": 0.0, "std": 1.0}, {"mean": 5.1, "std": 0.3})


@_cases()
def random_integers(s: Samples) -> Iterator[Any]:
    yield from _draws("int64", {"low": 0, "high": 10}, {"low": -(2**62), "high": 2**62 - 1})


@_cases()
def random_bernoulli(s: Samples) -> Iterator[Any]:
    yield from _draws("bool", {"probability": 0.0}, {"probability": 0.3}, {"probability": 1.0})
    first = int(numpy.random.Philox(key=0, counter=0).random_raw(1)[0] >> 40)
    for threshold in (first, first + 1):  # just not, and just so
        options = {"probability": threshold / 2**24}
        yield f"(7,) with a threshold of {threshold}", [numpy.zeros(7, "bool"), numpy.zeros(2, "uint64")], options


@_cases(updates="state")
def random_advance(s: Samples) -> Iterator[Any]:
    for state, blocks in itertools.product(STATES, (1, 300)):
        yield f"{state} by {blocks}", [numpy.array(state, "uint64")], {"blocks": blocks}


# ---- optimisers -------------------------------------------------------------------------------------------------------

#: Sizes of the tensors of a launch.  A block works on 2048 elements; an empty tensor counts its steps, too.
TENSORS = (((7,), (63, 65), (1,), (0,), (2049,)), tuple((1 + 7 * index,) for index in range(MAX_TENSORS)))

_FLAGS = tuple(itertools.product((False, True), repeat=3))


def _steps(count: int) -> list[numpy.ndarray]:
    return [numpy.array([index % 3], "float64") for index in range(count)]


def _rate_and_ticket() -> list[numpy.ndarray]:
    return [numpy.array([0.01], "float64"), numpy.zeros(1, "uint32")]


@_cases(updates="params momenta steps")
def sgd_step(s: Samples) -> Iterator[Any]:
    for shapes, (momentum, nesterov, maximize) in itertools.product(TENSORS, _FLAGS):
        params, momenta, grads = ([s.normal(*shape) for shape in shapes] for _ in range(3))
        options = {
            "momentum": 0.9, "dampening": 0.0 if nesterov else 0.1, "weight_decay": 0.05, "nesterov": nesterov,
            "maximize": maximize,
        }  # fmt: skip
        arrays = [params, momenta if momentum else None, _steps(len(shapes)), grads, *_rate_and_ticket()]
        label = f"{len(shapes)} tensors, momentum {momentum}, nesterov {nesterov}, maximize {maximize}"
        yield label, arrays, options
        if momentum and nesterov and maximize and shapes is TENSORS[0]:
            yield from _unaligned(label, arrays, options, 0, 1, 3)


@_cases(updates="params exp_avgs exp_avg_sqs max_exp_avg_sqs steps")
def adam_step(s: Samples) -> Iterator[Any]:
    for shapes, (amsgrad, decoupled, maximize) in itertools.product(TENSORS, _FLAGS):
        params, averages, grads = ([s.normal(*shape) for shape in shapes] for _ in range(3))
        squares, largest = ([s.positive(*shape) for shape in shapes] for _ in range(2))
        options = {
            "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.05, "decoupled": decoupled, "maximize": maximize,
        }  # fmt: skip
        grads[1].reshape(-1)[:1] = largest[1].reshape(-1)[1:2] = numpy.nan  # both must last
        arrays = [
            params, averages, squares, largest if amsgrad else None, _steps(len(shapes)), grads, *_rate_and_ticket(),
        ]  # fmt: skip
        label = f"{len(shapes)} tensors, amsgrad {amsgrad}, decoupled {decoupled}, maximize {maximize}"
        yield label, arrays, options
        if amsgrad and decoupled and maximize and shapes is TENSORS[0]:
            yield from _unaligned(label, arrays, options, 0, 1, 2, 3, 5)
