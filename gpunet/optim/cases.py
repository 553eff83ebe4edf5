"""Test cases of the kernels of optimizers and learning-rate schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes, num_elements
from gpunet.ops.cases.case import TENSORS, Samples, unaligned
from gpunet.optim.adam import adam_step
from gpunet.optim.lr_scheduler.kernel import KINDS, schedule_step
from gpunet.optim.sgd import sgd_step

_FLAGS = tuple(itertools.product((False, True), repeat=3))


def _steps(count: int) -> list[numpy.ndarray]:
    return [numpy.array([index % 3], "float64") for index in range(count)]


def _hyperparameters(*values: float) -> numpy.ndarray:
    return numpy.array(values, "float64")


def _ticket() -> numpy.ndarray:
    return numpy.zeros(1, "uint32")


sgd_step.describe(is_hot=True, updates="params momenta steps")


@sgd_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
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



@sgd_step.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for momentum in (0.0, 0.9):
        yield _whole_sgd(s, momentum)


@sgd_step.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_sgd(s, 0.9)


def _whole_sgd(s: Samples, momentum: float) -> Any:
    params, momenta, grads = (s.layers(s.normal) for _ in range(3))
    options = {"dampened": False, "decays": False, "nesterov": False, "maximize": False}
    numbers = _hyperparameters(1e-3, momentum, 0.0, 0.0)
    return s.layers_label, [params, momenta if momentum else None, _steps(4), grads, numbers, _ticket()], options


@sgd_step.cost
def _(params, momenta, steps, grads, hyperparameters, ticket, *, dampened, decays, nesterov, maximize):
    per_element = 2 + 2 * (momenta is not None) + dampened + 2 * decays + 2 * nesterov
    return Cost(per_element * num_elements(params), 2 * num_bytes(params, momenta, steps) + num_bytes(grads))


@sgd_step.equivalent
def _(torch, params, momenta, steps, grads, hyperparameters, ticket, *, dampened, decays, nesterov, maximize):
    return _fused_step(params, grads, torch.optim.SGD, lr=1e-3, momentum=0.9)


def _fused_step(params: list[Any], grads: list[Any], make: Callable[..., Any], **options: float) -> Callable[[], object]:
    """The step of PyTorch's optimizer."""
    for p, g in zip(params, grads):
        p.grad = g
    step: Callable[[], object] = make(params, fused=True, **options).step
    return step


adam_step.describe(is_hot=True, updates="params exp_avgs exp_avg_sqs max_exp_avg_sqs steps")


@adam_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shapes, (amsgrad, decoupled, maximize) in itertools.product(TENSORS, _FLAGS):
        params, averages, grads = ([s.normal(*shape) for shape in shapes] for _ in range(3))
        squares, largest = ([s.positive(*shape) for shape in shapes] for _ in range(2))
        numbers = _hyperparameters(0.01, 0.9, 0.999, 1e-8, 0.05)
        options = {"decays": True, "decoupled": decoupled, "maximize": maximize}
        grads[1].reshape(-1)[:1] = largest[1].reshape(-1)[1:2] = numpy.nan  # NaN must propagate
        maxima = largest if amsgrad else None
        arrays = [params, averages, squares, maxima, _steps(len(shapes)), grads, numbers, _ticket()]
        label = f"{len(shapes)} tensors, amsgrad {amsgrad}, decoupled {decoupled}, maximize {maximize}"
        yield label, arrays, options
        if amsgrad and decoupled and maximize and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0, 1, 2, 3, 5)


@adam_step.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for amsgrad, decoupled in ((False, False), (False, True), (True, False)):  # Adam, AdamW, AMSGrad
        yield _whole_adam(s, amsgrad, decoupled)
    yield _adam_of_many(s)


@adam_step.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_adam(s, False, False)


def _whole_adam(s: Samples, amsgrad: bool, decoupled: bool) -> Any:
    params, averages, grads = (s.layers(s.normal) for _ in range(3))
    squares, largest = (s.layers(s.positive) for _ in range(2))
    return s.layers_label, *_adam(params, averages, squares, largest if amsgrad else None, grads, decoupled)


def _adam_of_many(s: Samples) -> Any:
    """As many tensors as a ResNet-50 has: the large table."""
    size = 4 * s.width
    params, averages, grads = ([s.normal(size) for _ in range(161)] for _ in range(3))
    squares = [s.positive(size) for _ in range(161)]
    return f"161 tensors, {161 * size}", *_adam(params, averages, squares, None, grads, False)


def _adam(params: Any, averages: Any, squares: Any, largest: Any, grads: Any, decoupled: bool) -> Any:
    numbers = _hyperparameters(1e-3, 0.9, 0.999, 1e-8, 0.0)
    arrays = [params, averages, squares, largest, _steps(len(params)), grads, numbers, _ticket()]
    return arrays, {"decays": False, "decoupled": decoupled, "maximize": False}


@adam_step.cost
def _(params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, ticket, *, decays, decoupled, maximize):
    per_element = 13 + (max_exp_avg_sqs is not None) + 2 * decays
    updated = num_bytes(params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps)
    return Cost(per_element * num_elements(params), 2 * updated + num_bytes(grads))


@adam_step.equivalent
def _(torch, params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, ticket, **options):
    return _fused_step(params, grads, torch.optim.Adam, lr=1e-3)


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
}


schedule_step.describe(updates="rate momentum state")


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
