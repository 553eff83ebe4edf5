"""Test cases of the kernels of optimizers and learning-rate schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.launch.facts import Cost, num_bytes, num_elements
from gpunet.launch.faults import RECORD_SIZE
from gpunet.launch.kernel import Arguments
from gpunet.launch.list_kernel import ELEMENTS_PER_BLOCK, ListKernel, num_blocks
from gpunet.ops.cases.case import TENSORS, Samples, cut, shifted, unaligned
from gpunet.ops.cases.weight_gradients import WHOLE_LAYERS, arrays_of, in_tf32
from gpunet.ops.gemm import HALVES, LOOPS, SIMT, TF32, Math
from gpunet.ops.weight_gradients import MOST_STATES, Update, linear_backward_weights
from gpunet.optim import small_net_cases, stacked_cases  # noqa: F401  add the facts of their kernels
from gpunet.optim.adadelta import adadelta_step
from gpunet.optim.adagrad import adagrad_step
from gpunet.optim.adam import adam_step
from gpunet.optim.adamax import adamax_step
from gpunet.optim.asgd import asgd_step
from gpunet.optim.averaging import average_step
from gpunet.optim.lion import lion_step
from gpunet.optim.lr_scheduler.kernel import KINDS, schedule_step
from gpunet.optim.nadam import nadam_step
from gpunet.optim.radam import radam_step
from gpunet.optim.rmsprop import rmsprop_step
from gpunet.optim.rprop import rprop_step
from gpunet.optim.scaling import unscale_gradients, update_scale
from gpunet.optim.sgd import sgd_step
from gpunet.optim.update import rule_of

#: Steps before this one.  The second average of RAdam has just become reliable in the sixth step, with the beta2 below.
_STEPS = (0.0, 1.0, 5.0)
Variant = tuple[tuple[int, ...], dict[str, Any]]  # the states that are None, by index, and the options


class Rule(NamedTuple):
    """What the cases of an optimizer's kernel need.

    Attributes:
        states: how each list of states is drawn: "normal", "small" or "positive".
        numbers: the hyperparameters by name.
        peer: the name of PyTorch's optimizer, and its options.
        counters: the values of each counter; of n values tensor i gets the (i mod n)-th.
        variants: those that select a specialisation each; the first is timed.
        edges: further variants.
        flops: FLOPs for each element; an estimate, since a step is memory-bound.
    """

    kernel: ListKernel
    states: tuple[str, ...]
    numbers: dict[str, float]
    peer: tuple[str, dict[str, Any]] | None
    counters: tuple[tuple[float, ...], ...] = (_STEPS,)
    variants: tuple[Variant, ...] = (((), {}),)
    edges: tuple[Variant, ...] = ()
    flops: float = 10.0


_SCALING = {"growth": 2.0, "backoff": 0.5, "interval": 2, "max_skips": 4, "number": 7}
_ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.05}
_COUPLED_OR_NOT: Any = tuple(((), {"decoupled": decoupled}) for decoupled in (False, True))
RULES = (
    Rule(
        sgd_step, ("normal",), {"lr": 0.01, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.05},
        ("SGD", {"lr": 1e-3, "momentum": 0.9, "fused": True}),
        variants=(
            ((), {"dampened": False, "nesterov": False}), ((), {"dampened": False, "nesterov": True}),
            ((0,), {"dampened": False, "nesterov": False}),
        ),
        edges=tuple((absent, {"dampened": True, "nesterov": False}) for absent in ((), (0,))), flops=4.0,
    ),
    Rule(
        adam_step, ("normal", "positive", "positive"), _ADAM, ("Adam", {"fused": True}),
        variants=tuple((absent, {"decoupled": decoupled}) for absent in ((2,), ()) for decoupled in (False, True)), flops=13.0,
    ),
    Rule(adamax_step, ("normal", "positive"), _ADAM, ("Adamax", {})),
    Rule(
        nadam_step, ("normal", "positive"), {**_ADAM, "momentum_decay": 4e-3}, ("NAdam", {}),
        counters=(_STEPS, (1.0, 0.5, 0.25)), variants=_COUPLED_OR_NOT, flops=16.0,
    ),
    Rule(
        radam_step, ("normal", "positive"), {**_ADAM, "beta2": 0.91, "eps": 1e-3}, ("RAdam", {}), variants=_COUPLED_OR_NOT,
        flops=14.0,
    ),
    Rule(
        rmsprop_step, ("positive", "small", "normal"),
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05, "momentum": 0.8}, ("RMSprop", {}),
        variants=tuple((absent, {}) for absent in ((1, 2), (1,), (2,), ())), flops=12.0,
    ),
    Rule(
        adagrad_step, ("positive",), {"lr": 0.01, "lr_decay": 0.1, "weight_decay": 0.05, "eps": 1e-3},
        ("Adagrad", {"fused": True}),
    ),
    Rule(
        adadelta_step, ("positive", "positive"), {"lr": 0.5, "rho": 0.9, "eps": 1e-3, "weight_decay": 0.05}, ("Adadelta", {}),
        flops=15.0,
    ),
    Rule(
        asgd_step, ("normal",), {"lr": 0.1, "lambd": 0.02, "alpha": 0.75, "t0": 3.0, "weight_decay": 0.05}, ("ASGD", {}),
        counters=(_STEPS, (0.1, 0.05, 0.2), (1.0, 0.5, 0.25)),
    ),
    Rule(
        rprop_step, ("normal", "positive"), {"lr": 0.01, "smaller": 0.5, "larger": 1.25, "lowest": 0.25, "highest": 1.5},
        ("Rprop", {}),
    ),
    Rule(lion_step, ("normal",), {"lr": 0.01, "beta1": 0.9, "beta2": 0.97, "weight_decay": 0.05}, None),
)  # fmt: skip


def _launch(s: Samples, rule: Rule, variant: Variant, draw: Callable[..., list[numpy.ndarray]], maximize: bool, decay: bool) -> Any:
    """Return the arrays and options of a launch.

    Args:
        draw: given a function that draws one tensor, draws a list of them.
        decay: let the weight decay be not zero, if the optimizer has one.
    """
    absent, options = variant
    draws: dict[str, Callable[..., numpy.ndarray]] = {
        "normal": s.normal, "positive": s.positive, "small": lambda *shape: (s.normal(*shape) / 16).astype(s.dtype)
    }  # fmt: skip
    params, grads = draw(s.normal), draw(s.normal)
    states = [None if index in absent else draw(draws[kind]) for index, kind in enumerate(rule.states)]
    counters = [[numpy.array([v[i % len(v)]], "float64") for i in range(len(params))] for v in rule.counters]
    numbers = dict(rule.numbers)
    if not decay and "weight_decay" in numbers:
        numbers["weight_decay"] = 0.0
    if options.get("dampened") is False:
        numbers["dampening"] = 0.0
    options = {"decays": bool(numbers.get("weight_decay")), "maximize": maximize, **options}
    vector = numpy.array([*numbers.values()], "float64")
    return [params, *states, *counters, grads, vector, None, numpy.zeros(1, "uint32")], options


def _add_facts(rule: Rule) -> None:
    """Add cases, cost and equivalent to the kernel of a rule."""
    kernel = rule.kernel
    kernel.describe(is_hot=True)

    @kernel.cases("edge")
    def _(s: Samples) -> Iterator[Any]:
        of_few = itertools.product(TENSORS[:1], (*rule.variants, *rule.edges))
        for number, (shapes, variant) in enumerate([*of_few, *itertools.product(TENSORS[1:], rule.variants[:1])]):
            maximize = number % 2 == 0
            arrays, options = _launch(s, rule, variant, lambda draw, to=shapes: [draw(*shape) for shape in to], maximize, True)
            grads = arrays[kernel.lists - 1]
            states = {i: a for i, a in enumerate(arrays[1 : 1 + len(rule.states)]) if a is not None}
            for index, array in enumerate((grads, *states.values())):  # NaN must propagate, from gradient and state
                array[1].reshape(-1)[index : index + 1] = numpy.nan
            for array in (grads, *(a for i, a in states.items() if rule.states[i] != "positive")):  # no gradient, and none before
                array[1].reshape(-1)[5:6] = 0
            label = f"{len(shapes)} tensors, {variant}, maximize {maximize}"
            yield label, arrays, options
            if shapes is TENSORS[0] and variant == rule.variants[-1]:
                for skip in (0.0, 1.0):
                    yield f"{label}, skip {skip}", [*arrays[: kernel.lists + 1], numpy.array([skip]), arrays[-1]], options
                yield from unaligned(label, arrays, options, 0, kernel.lists - 1, *(1 + i for i in states))

    @kernel.cases("representative")
    def _(s: Samples) -> Iterator[Any]:
        for variant in rule.variants:
            yield s.layers_label, *_launch(s, rule, variant, s.layers, False, False)
        if kernel is adam_step:  # as many tensors as a ResNet-50 has: the large table
            size = 4 * s.width
            many = _launch(s, rule, rule.variants[0], lambda draw: [draw(size) for _ in range(161)], False, False)
            yield f"161 tensors, {161 * size}", *many

    @kernel.cases("bench")
    def _(s: Samples) -> Iterator[Any]:
        yield s.layers_label, *_launch(s, rule, rule.variants[0], s.layers, False, False)

    @kernel.cost
    def _(*arrays: Any, **options: Any) -> Cost:
        *updated, grads = arrays[: kernel.lists]
        return Cost(rule.flops * num_elements(grads), 2 * num_bytes(*updated) + num_bytes(grads))

    if rule.peer is None:
        return

    @kernel.equivalent
    def _(torch: Any, params: list[Any], *arrays: Any, **options: Any) -> Callable[[], object]:
        assert rule.peer is not None
        name, settings = rule.peer
        for p, g in zip(params, arrays[kernel.lists - 2]):
            p.grad = g
        step: Callable[[], object] = getattr(torch.optim, name)(params, **settings).step
        return step


for _rule in RULES:
    _add_facts(_rule)


# ---- with the weight gradients ------------------------------------------------------------------------------------------


def _with_gradients(s: Samples, rule: Rule, variant: Variant, layers: Any, tile: tuple[int, int], math: Math, number: int) -> Any:
    """A launch of the weight gradients of layers, and of the step of an optimizer on them."""
    cuts = tuple(cut(tile, 1 + layer % 2, o, i, n, math=math) for layer, ((o, i, n), _) in enumerate(layers))
    arrays, biases = arrays_of(s, layers, cuts, True)
    shapes = [gradient.shape for gradient in arrays[0]]
    step, options = _launch(s, rule, variant, lambda draw: [draw(*shape) for shape in shapes], number % 2 == 1, True)
    params, *states, steps, _, hyperparameters, _, ticket = step
    rule_name = rule_of(rule.kernel, Arguments(tuple(step), options))
    arrays[1:6] = [params, *states, *[None] * (MOST_STATES - len(states)), steps]
    arrays[11:] = [hyperparameters, ticket]
    label = f"{len(layers)} layers, {rule_name}, tiles of {tile} by {math.name}"
    options = {"cuts": cuts, "biases": biases, "update": Update(rule.kernel, rule_name, options)}
    return label, arrays, options, None, in_tf32 if math == TF32 else None


@linear_backward_weights.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    layers = (((69, 21, 33), True), ((68, 72, 20), False))
    for number, rule in enumerate(rule for rule in RULES if rule.kernel in linear_backward_weights.awaited):
        for variant in rule.variants if s.dtype == numpy.float32 else rule.variants[:1]:
            if s.dtype == numpy.float32 or rule.kernel is adam_step:
                yield _with_gradients(s, rule, variant, layers, (64, 64), SIMT, number)
    [adam] = (rule for rule in RULES if rule.kernel is adam_step)
    is_float32 = s.dtype == numpy.float32
    for math in s.maths if is_float32 else s.maths[-1:]:
        for tile in LOOPS[math] if is_float32 else ((64, 64),):
            yield _with_gradients(s, adam, adam.variants[0], layers, tile, math, 0)
    for place, by in itertools.product(range(4), (1, 2)):  # gradients, parameters, and states
        label, arrays, options, *_ = _with_gradients(s, adam, adam.variants[0], (((12, 8, 36), True),), (64, 64), SIMT, 0)
        arrays[place] = [shifted(array, by) for array in arrays[place]]
        yield f"{label}, list {place} unaligned by {by}", arrays, options


#: The tiles of the cases that are shown, and how products are computed, by the bytes of the dtype.
_SHOWN = {2: (((64, 64), HALVES),), 4: (((128, 128), SIMT), ((64, 64), SIMT), ((64, 64), TF32)), 8: (((64, 64), SIMT),)}


@linear_backward_weights.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    [adam] = (rule for rule in RULES if rule.kernel is adam_step)
    for tile, math in _SHOWN.get(s.dtype.itemsize, ()):
        yield _with_gradients(s, adam, adam.variants[0], WHOLE_LAYERS, tile, math, 0)


@average_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shapes, weight in zip(TENSORS, (0.25, 0.75, 1.0)):
        averages, values = ([s.normal(*shape) for shape in shapes] for _ in range(2))
        yield f"{len(shapes)} tensors, weight {weight}", (arrays := [averages, values, numpy.array([weight])]), {}
        if shapes is TENSORS[0]:
            yield from unaligned("few tensors", arrays, {}, 0, 1)


@average_step.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield s.layers_label, [s.layers(s.normal), s.layers(s.normal), numpy.array([0.001])], {}


@average_step.cost
def _(averages, values, weight):
    return Cost(3.0 * num_elements(averages), 2 * num_bytes(averages) + num_bytes(values, weight))


@average_step.equivalent
def _(torch, averages, values, weight):
    return lambda: torch._foreach_lerp_(averages, values, 0.001)


unscale_gradients.describe(is_hot=True)


def _scaled(s: Samples, grads: list[numpy.ndarray], scale: float, before: float) -> list[Any]:
    partials, ticket = s.blank(num_blocks(grads), dtype="uint32"), s.blank(1, dtype="uint32")
    return [grads, numpy.array([before]), partials, ticket, numpy.array([scale], "float32")]


@unscale_gradients.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shapes, bad, first in itertools.product(TENSORS, (None, numpy.inf, -numpy.inf, numpy.nan), (True, False)):
        grads = [s.normal(*shape) for shape in shapes]
        if bad is not None:
            grads[1].reshape(-1)[-1:] = bad
        arrays = _scaled(s, grads, 4.0, 0.0)
        yield f"{len(shapes)} tensors with {bad}, first {first}", arrays, {"first": first}
        if shapes is TENSORS[0] and bad is None:
            yield from unaligned("few tensors", arrays, {"first": first}, 0)
    many = s.blank(256 * ELEMENTS_PER_BLOCK + 1)  # more blocks than the last block, which reads the partials, has threads
    many[-1] = numpy.nan
    yield "257 blocks", _scaled(s, [many], 2.0, 0.0), {"first": True}
    not_a_number = _scaled(s, [s.normal(5)], 3.0, 0.0)
    not_a_number[-1].view("uint32")[0] = 0x7FFFFFFF  # as GPUs compute it; rounded like a number, it gives -0 as bfloat16
    yield "not finite: the scale is no number", not_a_number, {"first": True}
    yield "found before", _scaled(s, [s.normal(5)], 3.0, 1.0), {"first": False}
    yield "found before, first", _scaled(s, [s.normal(5)], 3.0, 1.0), {"first": True}


@unscale_gradients.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield s.layers_label, _scaled(s, s.layers(s.normal), 1024.0, 0.0), {"first": True}


@unscale_gradients.cost
def _(grads, found, partials, ticket, scale, *, first):
    return Cost(2.0 * num_elements(grads), 2 * num_bytes(grads, partials) + num_bytes(found, scale))


@unscale_gradients.equivalent
def _(torch, grads, found, partials, ticket, scale, *, first):
    flag = torch.zeros(1, device=grads[0].device)
    return lambda: torch._amp_foreach_non_finite_check_and_unscale_(grads, flag, 1.0 / scale)


@update_scale.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    largest = 3.0e38
    for found, scale, finite, skips in itertools.product((0.0, 1.0), (8.0, largest), (0, 1), (0, 1, 3)):
        for has_record in (True, False):
            if not has_record and found and skips == 3:
                continue  # raises
            record = numpy.zeros(RECORD_SIZE, "int64") if has_record else None
            arrays = [numpy.array([scale], "float32"), numpy.array([finite, skips]), record, numpy.array([found])]
            yield f"found {found}, {scale:g}, {finite} finite, {skips} skipped, record {has_record}", arrays, dict(_SCALING)
    reported = numpy.arange(1, RECORD_SIZE + 1)
    yield "reported before", [numpy.array([8.0], "float32"), numpy.array([0, 3]), reported, numpy.ones(1)], dict(_SCALING)


@update_scale.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield "(1,)", [numpy.array([8.0], "float32"), numpy.array([1, 0]), None, numpy.zeros(1)], dict(_SCALING)


@update_scale.cost
def _(scale, counters, record, found, *, growth, backoff, interval, max_skips, number):
    return Cost(2.0, 2 * num_bytes(scale, counters) + num_bytes(found))


#: For each kind of schedule, its constants (see gpunet.optim.lr_scheduler.kernel) and steps around which it changes.
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
    "anneal": (((0.05, 4, 0), (0.05, 4, 1), (0.05, 0, 1)), (-1, 0, 2, 3, 4, 6)),
}


@schedule_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for kind in KINDS:
        constants, steps = _SCHEDULES[kind]
        for values, step, position in itertools.product(constants, steps, (None, 3.0, 4.0, 6.0, 7.0)):
            state = numpy.array([step, step % 6, 6] if kind == "warm_restarts" else [step], "float64")
            at = None if position is None else numpy.array([position])
            options = {"kind": kind, "low": 4.0, "high": 7.0}
            label, rate = f"{kind} {values} from {step} at {position}", numpy.array([0.2], s.dtype)
            yield label, [rate, None, state, numpy.array(values, "float64"), at], options
            if kind in ("exponential", "cyclic", "one_cycle"):  # the constants of the momentum follow those of the rate
                both = numpy.array([*values, *(0.5 * value + 0.25 for value in values)], "float64")
                momentum = numpy.array([0.9], s.dtype)
                yield f"{label}, momentum", [rate.copy(), momentum, state.copy(), both, at], options


@schedule_step.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    arrays = [s.positive(1), None, numpy.array([3.0]), numpy.array([0.3, 5.0, 0.5]), None]
    yield "(1,)", arrays, {"kind": "step", "low": 0.0, "high": 0.0}


@schedule_step.cost
def _(rate, momentum, state, constants, position, *, kind, low, high):
    return Cost(10.0, 2 * num_bytes(state) + num_bytes(rate, momentum, constants, position))  # ten operations or so
