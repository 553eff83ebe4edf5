"""Cases of the kernel that runs many training steps of small perceptrons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_half
from gpunet.launch.facts import Cost, Floor, num_bytes
from gpunet.launch.faults import RECORD_SIZE, report_first
from gpunet.ops.cases.case import Samples, shifted
from gpunet.ops.small_net import SOFTMAX_OF_LABELS, Layer, Net, Rule, small_net_steps
from gpunet.ops.weight_gradients import MOST_STATES
from gpunet.optim.adam import adam_step
from gpunet.optim.sgd import sgd_step
from gpunet.optim.stacked import stacked_adam_factors, stacked_sgd_step

small_net_steps.describe(
    is_hot=True,
    floors={("float, *", "*"): Floor(0.7, 1.6)},
    waste={
        "banks": "copies between tensors and the wider rows in shared memory, once a launch; products with ragged edges",
        "reads": "single numbers, such as the count of steps, take a sector each",
    },
)  # fmt: skip


class _Rule(NamedTuple):
    """An optimizer: its rule, its number of states, its counters and its hyperparameters."""

    rule: Rule
    num_states: int
    counters: tuple[float, ...]
    numbers: tuple[float, ...]


def _rule_of(kernel: Any, num_states: int, numbers: tuple[float, ...], **options: Any) -> _Rule:
    """A rule of one net, as the optimizer's kernel declares it."""
    states = [[numpy.zeros(1)] if number < num_states else None for number in range(kernel.lists - 3)]
    lists = [[numpy.zeros(1)], *states, [numpy.zeros(1)], [numpy.zeros(1)]]
    part = kernel.part(*lists, numpy.array(numbers), None, None, **options)
    return _Rule(Rule(part.rule, part.maximize, part.apply), num_states, (2.0,), numbers)


ADAM = _rule_of(adam_step, 2, (0.01, 0.9, 0.99, 1e-4, 0.1), decays=True, decoupled=False, maximize=False)
_SGD = _rule_of(sgd_step, 1, (0.05, 0.9, 0.0, 0.01), dampened=False, decays=True, nesterov=True, maximize=True)


def _of_stack(part: Any, num_states: int, counters: tuple[float, ...], numbers: tuple[float, ...]) -> _Rule:
    return _Rule(Rule(part.rule, False, part.apply), num_states, counters, numbers)


_STACK_ADAM = _of_stack(
    stacked_adam_factors.part(*[None] * 4, decoupled=True), 2, (0.81, 0.98), (0.01, 0.9, 0.99, 1e-4, 0.1)  # type: ignore[misc]
)
_STACK_SGD = _of_stack(
    stacked_sgd_step.part(None, (), None, None, None, nesterov=True), 1, (), (0.05, 0.9, 0.01)  # type: ignore[misc]
)


def _net(
    sizes: tuple[int, ...], rows: int, rule: _Rule, loss: str, has_bias: bool = True, kept: float | None = None, **more: Any
) -> Net:
    last = len(sizes) - 2
    layers = tuple(
        Layer(i, o, has_bias, None if number == last else kept, 1.0 if kept is None else 1 / kept if kept else 0.0)
        for number, (i, o) in enumerate(itertools.pairwise(sizes))
    )
    activation = "relu" if loss == SOFTMAX_OF_LABELS else "gelu"
    options = {"reduction": "mean", "code": 7, **more}
    return Net(layers, rows, activation, 0.0, loss, rule=rule.rule, **options)


def _case(
    s: Samples, net: Net, rule: _Rule, num_steps: int, nets: int = 1, held: int | None = None, labels: Any = None,
    is_ordered: bool = True, label: str = "", active: Any = None,
) -> tuple[str, list[Any], dict[str, Any]]:  # fmt: skip
    shapes: list[tuple[int, ...]] = []
    for layer in net.layers:
        shapes += [(nets, layer.outputs, layer.inputs), *([(nets, layer.outputs)] if layer.has_bias else [])]
    states: list[Any] = [[s.positive(*shape) * s.dtype.type(0.1) for shape in shapes] for _ in range(rule.num_states)]
    counters: Any = [numpy.full((nets, 1), 2.0 + number) for number in range(len(shapes))]
    if len(rule.counters) != 1:  # a stack's, which all parameters share
        counters = [numpy.array([rule.counters] * nets) for _ in shapes] if rule.counters else None
    inputs, outputs = net.layers[0].inputs, net.layers[-1].outputs
    num_samples = num_steps * net.rows + 3
    has_labels = net.loss == SOFTMAX_OF_LABELS
    if has_labels and labels is None:
        labels = s.random.integers(0, outputs, num_samples)
    drops = any(layer.probability is not None for layer in net.layers)
    streams = numpy.array([[[5 + net, 2 * net]] for net in range(nets)], numpy.uint64) if drops else None
    arrays = [
        [s.normal(*shape) * s.dtype.type(0.3) for shape in shapes],
        *states, *[None] * (MOST_STATES - rule.num_states), counters,
        [s.blank(*shape) for shape in shapes], streams, s.blank(nets, num_steps),
        s.blank(RECORD_SIZE, dtype="int64"), s.normal(num_samples, inputs), None if has_labels else s.normal(num_samples, outputs),
        labels, s.random.permutation(num_samples)[: num_steps * net.rows] if is_ordered else None,
        numpy.array([rule.numbers] * nets) * numpy.linspace(1, 0.9, nets)[:, None], active, None, None,
    ]  # fmt: skip
    held = rule.num_states if held is None else held
    sizes = "-".join(map(str, (inputs, *(layer.outputs for layer in net.layers))))
    text = f"{nets} nets {sizes}, {num_steps} batches of {net.rows}, {net.loss}, {rule.rule.struct}, {held} states held{label}"
    return text, arrays, {"net": net, "held": held}


def _out_of_range(*arrays: Any, net: Net, held: int) -> None:
    """The twin for labels out of range in a single step: the CPU raises, the kernel makes everything NaN and reports the first."""
    of = dict(zip(small_net_steps.parameters, arrays))
    labels, losses = of["labels"], of["losses"]
    chosen = labels[of["order"]]
    classes = net.layers[-1].outputs
    report_first(of["fault"], (chosen < 0) | (chosen >= classes), net.code, chosen, classes, net.ignore_index)
    valid = numpy.where((labels < 0) | (labels >= classes), 0, labels)
    places = small_net_steps.parameters.index("labels")
    small_net_steps.twin(*arrays[:places], valid, *arrays[places + 1 :], net=net, held=held)
    losses[...] = numpy.nan
    for tensors in (of["params"], of["first_states"], of["second_states"], of["grads"]):
        for tensor in tensors:
            tensor[...] = numpy.nan


def _of_labels(s: Samples) -> Iterator[Any]:
    """Cases of one specialisation: cross-entropy, and Adam with its states in shared memory."""
    softmax = SOFTMAX_OF_LABELS
    yield _case(s, _net((1, 1), 1, ADAM, softmax), ADAM, 1)
    yield _case(s, _net((5, 9, 7, 3), 9, ADAM, softmax, kept=0.75, max_norm=0.1), ADAM, 3)
    yield _case(s, _net((5, 9, 7, 3), 9, ADAM, softmax, kept=0.75, max_norm=100.0), ADAM, 2, nets=3, is_ordered=False)
    for rule in (_STACK_ADAM, _STACK_SGD) if s.dtype == numpy.float32 else ():
        for active in (None, numpy.array([1, 0, 1])):
            yield _case(s, _net((5, 9, 7, 3), 9, rule, softmax), rule, 3, nets=3, active=active, label=f", active {active}")
    if s.dtype == numpy.float32:
        net = _net((5, 9, 7, 3), 9, _STACK_ADAM, softmax, kept=0.5)
        hidden = [layer._replace(stream=number, is_masked=True) for number, layer in enumerate(net.layers[:-1])]
        net = net._replace(layers=(*hidden, net.layers[-1]))
        text, arrays, options = _case(s, net, _STACK_ADAM, 2, nets=3, label=", masks, and dropout of their own")
        arrays[6] = s.random.integers(0, 2**62, (3, 2, 2)).astype("uint64")
        arrays[-2] = numpy.array([[2**31, 2**32, 0], [0, 2**30, 0], [3 * 2**30, 2**31, 0]])
        arrays[-1] = (s.normal(3, 16) > 0).astype(s.dtype) * s.dtype.type(0.5)
        arrays[-3] = numpy.array([1, 1, 0])
        yield text, arrays, options
    net = _net((5, 9, 3), 40, ADAM, softmax, ignore_index=1)
    yield _case(s, net, ADAM, 2, labels=s.random.integers(0, 3, 83), label=", ignoring some")
    yield _case(s, net, ADAM, 1, labels=numpy.full(43, 1), label=", ignoring all")
    if s.dtype == numpy.float32:
        net = _net((5, 9, 3), 40, _STACK_ADAM, softmax, ignore_index=1, reduction="row_mean")
        labels = s.random.integers(0, 3, 43)
        yield _case(s, net, _STACK_ADAM, 1, nets=2, labels=labels, label=", ignored rows count")
    for bad in (-1, 3):
        net = _net((5, 9, 3), 40, ADAM, softmax)
        labels = s.random.integers(0, 3, 43)
        text, arrays, options = _case(s, net, ADAM, 1, labels=labels, label=f", a label {bad}")
        labels[arrays[12][[35, 38]]] = bad
        for tensors in arrays[:3]:  # no gradient stays 0, so that all become NaN
            for tensor in tensors:
                numpy.abs(tensor, out=tensor)
        yield text, arrays, options, None, _out_of_range


@small_net_steps.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    if is_half(s.dtype):
        return
    softmax, squared = SOFTMAX_OF_LABELS, "squared"
    if s.dtype == numpy.float64:  # whose other specialisations differ alike
        yield from _of_labels(s)
        return
    yield from _of_labels(s)
    yield _case(s, _net((4, 8, 12), 11, ADAM, softmax, has_bias=False), ADAM, 10, held=0)
    yield _case(s, _net((7, 6, 3), 5, ADAM, softmax, reduction="sum"), ADAM, 2, held=0)
    yield _case(s, _net((62, 64, 5), 64, ADAM, softmax), ADAM, 2, held=0)  # tiles of 8 x 4
    yield _case(s, _net((63, 65, 33), 37, ADAM, softmax, has_bias=False), ADAM, 1, held=0)
    yield _case(s, _net((5, 9, 7, 3), 9, _SGD, squared, kept=0.5, max_norm=0.1), _SGD, 3, nets=2)
    yield _case(s, _net((8, 4), 33, _SGD, squared, reduction="sum"), _SGD, 2)
    yield _case(s, _net((8, 4, 1), 6, _SGD, squared, kept=0.0), _SGD, 2, is_ordered=False)
    for place, by in itertools.product((0, 1, 9), (1, 2)):
        text, arrays, options = _case(s, _net((8, 12, 4), 7, ADAM, softmax), ADAM, 2, held=0)
        moved: Any = [shifted(a, by) for a in arrays[place]] if place < 9 else shifted(arrays[place], by)
        yield f"{text}, array {place} unaligned by {by}", [*arrays[:place], moved, *arrays[place + 1 :]], options


@small_net_steps.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    if s.dtype == numpy.float32:
        yield _case(s, _net((64, 128, 10), 64, ADAM, SOFTMAX_OF_LABELS), ADAM, 1)
    elif not is_half(s.dtype):  # meant for checking: small
        yield _case(s, _net((16, 32, 10), 32, ADAM, SOFTMAX_OF_LABELS), ADAM, 1)


@small_net_steps.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    if not is_half(s.dtype):
        yield _case(s, _net((16, 32, 10), 32, ADAM, SOFTMAX_OF_LABELS), ADAM, max(1, s.width // 16), nets=max(1, s.width // 8))


def multiply_adds(net: Net) -> int:
    """Of the products of a step."""
    weights = [layer.inputs * layer.outputs for layer in net.layers]
    return net.rows * (3 * sum(weights) - weights[0])


@small_net_steps.multiply_adds
def _(*arrays: Any, net: Net, held: int) -> int:
    return arrays[7].size * multiply_adds(net)


@small_net_steps.cost
def _(params, first_states, second_states, third_states, steps, grads, streams, losses, fault, x, targets, labels, order,
      hyperparameters, active, kept, masks, *, net, held):  # fmt: skip
    states = num_bytes(first_states, second_states, third_states)
    once = 2 * num_bytes(params, steps) + num_bytes(grads, losses, order, hyperparameters) + 2 * states
    of_row = sum(a.itemsize * a.size // max(1, len(a)) for a in (x, targets, labels) if a is not None)
    flops = losses.size * (2.0 * multiply_adds(net) + 12 * sum(layer.outputs * (layer.inputs + 1) for layer in net.layers))
    return Cost(flops, once + net.rows * losses.size * of_row)
