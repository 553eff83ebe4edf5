"""Many training steps of small perceptrons in one launch, for epochs of captured steps.

A block of a GPU keeps a whole net in its shared memory: parameters, gradients, the states of the optimizer where they fit, and the
results of a batch.  :func:`plan` places them; :mod:`gpunet.captured.small_net` finds out whether a recorded step is such a net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.launch.kernel import Geometry, ceil_div
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.random import threshold_of
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.clip import clip_by_norm, gradient_norm
from gpunet.ops.cross_entropy import cross_entropy_labels
from gpunet.ops.dropout import dropout_drawn
from gpunet.ops.linear import linear_backward_input, linear_backward_weight, linear_forward
from gpunet.ops.losses import ELEMENTWISE_LOSSES, elementwise_loss
from gpunet.ops.weight_gradients import CAPACITY

#: The constants of the same names in small_net.cu.
MOST_LAYERS, MOST_FACTORS, THREADS, AHEAD = 8, 10, 256, 8
#: Bytes of shared memory that the kernel has beside the net.
STATIC_BYTES = 1024
#: The loss of :class:`Net` that is softmax cross-entropy against labels; the others are keys of ``ELEMENTWISE_LOSSES``.
SOFTMAX_OF_LABELS = "cross_entropy"
#: The constants in memory.cuh; "row_mean" divides by all rows, also those that cross-entropy ignores.
REDUCTIONS = {"sum": 0, "mean": 1, "row_mean": 2}

_LONGS, _DOUBLES = ("kept",), ("scale",)
_INTS = (
    "inputs", "outputs", "weight", "bias", "parameters", "gradients", "states", "result", "saved", "slope", "flags", "stream",
    "first_block", "blocks", "mask", "first_mask", "lanes_forward", "lanes_input", "lanes_gradient",
)  # fmt: skip
_LAYER = numpy.dtype(
    [*((name, "u8") for name in _LONGS), *((name, "f8") for name in _DOUBLES), *((name, "i4") for name in _INTS)], align=True
)
_PLACES = ("layers", "rows", "entries", "streams", "masks", "inputs", "targets", "losses", "numbers", "factors", "size")
#: The struct NetShape of small_net.cu.
_NET_SHAPE = numpy.dtype(
    {
        "names": ["of", *_PLACES],
        "formats": [(_LAYER, (MOST_LAYERS,)), *["i4"] * len(_PLACES)],
        "offsets": [0, *(MOST_LAYERS * _LAYER.itemsize + 4 * place for place in range(len(_PLACES)))],
        "itemsize": ceil_div(MOST_LAYERS * _LAYER.itemsize + 4 * len(_PLACES), 8) * 8,
    },
    metadata={"c_type": "NetShape"},
)


class Layer(NamedTuple):
    """A linear layer, and what is behind its activation: a mask of its features, then dropout."""

    inputs: int
    outputs: int
    has_bias: bool = True
    probability: float | None = None  # that dropout keeps an element
    scale: float = 1.0  # of a kept element
    stream: int = 0  # of the random numbers of dropout
    is_masked: bool = False


class Rule(NamedTuple):
    """An optimizer's step on a net."""

    struct: str  # in small_net.cu or common/update_rules.cuh
    maximize: bool
    #: the twin of a step: called with the params, the lists of states, the counters and the grads of one net, and the
    #: hyperparameters (k,)
    apply: Callable[[list[Any], list[Any], list[Any], list[Any], Any], None]


class Net(NamedTuple):
    """What a step of a net computes; the last layer has neither activation nor dropout."""

    layers: tuple[Layer, ...]
    rows: int  # of a batch
    activation: str
    alpha: float
    loss: str  # SOFTMAX_OF_LABELS, or a key of ELEMENTWISE_LOSSES
    reduction: str  # a key of REDUCTIONS
    rule: Rule
    delta: float = 0.0  # of the loss
    ignore_index: int = -100
    code: int = 0  # of the fault of a label out of range
    max_norm: float = 0.0  # to which the gradients are clipped; 0 for no clipping


def stride_of(features: int) -> int:
    """Return the elements from a row of features to the next one in shared memory, as ``stride_of`` in small_net.cu."""
    return (features + 7) // 8 * 8 + 4


def lanes_of(rows: int, columns: int, depth: int) -> int:
    """Return the lanes that share an element of a product: 0 stands for tiles of 8 x 4, else tiles have 2 x 4 elements."""
    if ceil_div(rows, 8) * ceil_div(columns, 4) >= THREADS // 2:
        return 0
    lanes, tiles = 1, ceil_div(rows, 2) * ceil_div(columns, 4)
    while lanes < 32 and tiles * lanes * 2 <= THREADS and lanes * 2 * 4 <= depth:
        lanes *= 2
    return lanes


def plan(net: Net, itemsize: int, num_states: int) -> numpy.ndarray:
    """Return the struct NetShape of a net, with the place of each of its arrays in shared memory.

    Args:
        itemsize: bytes of an element.
        num_states: lists of states that are held in shared memory, 0 for none.
    """
    shape = numpy.zeros(1, _NET_SHAPE)
    used = 0

    def place(elements: int) -> int:
        nonlocal used
        start, used = used, used + ceil_div(elements, 4) * 4
        return start

    layers, rows = net.layers, net.rows
    saves_z = ACTIVATIONS[net.activation].saves == "preactivation"
    draws = [ceil_div(rows * layer.outputs, 8) if layer.probability is not None else 0 for layer in layers]
    entries = masks = 0
    places: Any = shape[0]["of"]
    for number, (layer, of) in enumerate(zip(layers, places)):
        matrix, result = layer.outputs * stride_of(layer.inputs), rows * stride_of(layer.outputs)
        of["inputs"], of["outputs"] = layer.inputs, layer.outputs
        of["weight"], of["bias"] = entries, entries + 1 if layer.has_bias else -1
        entries += 2 if layer.has_bias else 1
        of["parameters"], of["gradients"], of["states"] = place(matrix), place(matrix), place(num_states * matrix)
        of["result"] = of["saved"] = of["slope"] = place(result)
        if number == len(layers) - 1 or saves_z:
            of["saved"] = of["slope"] = place(result)
        of["flags"] = -1
        if layer.probability is not None:
            of_stream = [blocks if _draws_from(other, layer.stream) else 0 for other, blocks in zip(layers, draws)]
            of["flags"], of["stream"] = place(ceil_div(draws[number], itemsize)), layer.stream
            of["first_block"], of["blocks"] = sum(of_stream[:number]), sum(of_stream)
            of["kept"], of["scale"] = threshold_of(layer.probability), layer.scale
        of["mask"] = -1
        if layer.is_masked:
            of["mask"], of["first_mask"] = place(stride_of(layer.outputs)), masks
            masks += layer.outputs
        of["lanes_forward"] = lanes_of(rows, layer.outputs, layer.inputs + 1)
        of["lanes_input"] = lanes_of(rows, layer.inputs, layer.outputs)
        of["lanes_gradient"] = lanes_of(layer.outputs, layer.inputs, rows)
    targets = ceil_div(8, itemsize) if net.loss == SOFTMAX_OF_LABELS else stride_of(layers[-1].outputs)
    shape["layers"], shape["rows"], shape["entries"], shape["masks"] = len(layers), rows, entries, masks
    shape["streams"] = num_streams(net)
    shape["inputs"], shape["targets"] = place(rows * stride_of(layers[0].inputs)), place(rows * targets)
    shape["losses"], shape["numbers"], shape["factors"] = place(rows), place(2), place(AHEAD * entries * MOST_FACTORS)
    shape["size"] = used
    return shape


def _draws_from(layer: Layer, stream: int) -> bool:
    return layer.probability is not None and layer.stream == stream


def num_streams(net: Net) -> int:
    """Return the number of streams of random numbers of a net."""
    return max((1 + layer.stream for layer in net.layers if layer.probability is not None), default=0)


def num_bytes(net: Net, itemsize: int, num_states: int) -> int:
    """Return the bytes of shared memory of a net; see :func:`plan`."""
    return int(plan(net, itemsize, num_states)["size"][0]) * itemsize


def held_states(net: Net, itemsize: int, num_states: int, limit: int) -> int | None:
    """Return how many lists of states are held in shared memory: all or 0; None if the net does not fit without them either.

    Args:
        limit: bytes of shared memory of a block.
    """
    for held in (num_states, 0):
        if num_bytes(net, itemsize, held) <= limit:
            return held
    return None


@list_kernel(
    "small_net.cu",
    outputs=9,
    lists=6,
    types={
        "steps": "float64", "streams": "uint64", "fault": "int64", "labels": "int64", "order": "int64",
        "hyperparameters": "float64", "active": "int64", "kept": "int64",
    },
    optional="first_states second_states third_states steps streams fault targets labels order active kept masks",
    capacities=(CAPACITY,),
    reads_values=True,
    updates="params first_states second_states third_states steps streams fault",
)  # fmt: skip
def small_net_steps(
    params, first_states, second_states, third_states, steps, grads, streams, losses, fault, x, targets, labels, order,
    hyperparameters, active, kept, masks, *, net, held,
):  # fmt: skip
    """Run training steps of nets of one shape, each on ``net.rows`` rows of the data.

    Args:
        params: of each layer the weight (nets, o, i), then the bias (nets, o), if it has one.
        first_states, second_states, third_states: of the optimizer, None for those that it does not use.
        steps: the counters of the optimizer for each parameter, (nets, k); None if it has none.
        grads: those of the last step, clipped.
        streams: (nets, streams, 2), key and counter of each stream of random numbers for dropout; None without dropout.
        losses: (nets, num_steps), of each step.
        fault: see :mod:`gpunet.launch.faults`.
        x: (samples, i), which all nets share.
        targets, labels: (samples, o) or (samples,); the one that the loss takes.
        order: (num_steps * rows,), the samples of the steps; None for the order of the data.
        hyperparameters: (nets, k) of the optimizer.
        active: int64 (nets,), 0 for nets that are stopped: their losses become NaN and their gradients 0, their streams pass as if
            they had drawn, and nothing else changes; None for none.
        kept: (nets, layers), the thresholds of dropout of each net, as ``stacked_dropout`` takes them; None for those of ``net``.
        masks: (nets, features of all masked layers), None without masks.
        net: a :class:`Net`.
        held: the lists of states that are held in shared memory, see :func:`held_states`.
    """
    for number, of_net in enumerate(losses):
        lists = [[] if a is None else [tensor[number] for tensor in a] for a in (params, first_states, second_states, third_states)]
        counts = [] if steps is None else [count[number] for count in steps]
        gradients, stream = [g[number] for g in grads], None if streams is None else streams[number]
        if active is not None and not active[number]:
            of_net[...] = numpy.nan
            for gradient in gradients:
                gradient[...] = 0
            for each in range(num_streams(net)):
                draws = [ceil_div(net.rows * layer.outputs, 8) for layer in net.layers if _draws_from(layer, each)]
                streams[number][each, 1:] += numpy.uint64(len(of_net) * sum(draws))
            continue
        for step in range(len(of_net)):
            chosen: Any = slice(step * net.rows, (step + 1) * net.rows)
            if order is not None:
                chosen = order[chosen]
            target = labels if net.loss == SOFTMAX_OF_LABELS else targets
            _run_forward_and_backward(
                net, lists[0], gradients, stream, None if kept is None else kept[number], None if masks is None else masks[number],
                of_net[step : step + 1], fault, numpy.ascontiguousarray(x[chosen]), target[chosen],
            )  # fmt: skip
            if net.max_norm:
                norm = numpy.empty(1, x.dtype)
                gradient_norm.twin(gradients, norm, None, None, order=2.0, first=True, last=True)
                clip_by_norm.twin(gradients, norm, max_norm=net.max_norm)
            net.rule.apply(lists[0], [of_list or None for of_list in lists[1:]], counts, gradients, hyperparameters[number])


def _run_forward_and_backward(
    net: Net, params: Sequence[Any], grads: Sequence[Any], streams: Any, kept: Any, masks: Any, value: Any, fault: Any, x: Any,
    target: Any,
) -> None:  # fmt: skip
    """A step of a net up to its gradients, by the twins of the launches that a captured step makes."""
    entries, at = [], 0  # the numbers of the weight and of the bias of each layer
    for layer in net.layers:
        entries.append((at, at + 1 if layer.has_bias else None))
        at += 1 + layer.has_bias
    alpha, inputs, saved, behind = net.alpha, [x], [], []  # behind: the factors of mask and dropout of each layer
    saves_z = ACTIVATIONS[net.activation].saves == "preactivation"
    for number, (layer, (weight, bias)) in enumerate(zip(net.layers, entries)):
        is_last = number == len(net.layers) - 1
        y = numpy.empty((len(x), layer.outputs), x.dtype)
        z = numpy.empty_like(y) if saves_z and not is_last else None
        linear_forward.twin(
            y, z, None, None, inputs[-1], params[weight], None if bias is None else params[bias],
            activation="identity" if is_last else net.activation, alpha=alpha,
        )  # fmt: skip
        saved.append(y if z is None else z)
        factors = numpy.ones_like(y)
        if layer.is_masked:
            factors *= masks[: layer.outputs]
            masks = masks[layer.outputs :]
        if layer.probability is not None:
            is_kept = numpy.empty_like(y)
            threshold = threshold_of(layer.probability) if kept is None else int(kept[number])
            scale = layer.scale if kept is None else 2.0**32 / threshold if threshold else 0.0
            options = {"probability": threshold / 2.0**32, "scale": scale, "advances": True}
            dropout_drawn.twin(is_kept, None, streams[layer.stream], None, numpy.ones_like(y), **options)
            factors *= is_kept
        behind.append(factors)
        inputs.append(y * factors)
    result, dz, factor = inputs.pop(), numpy.empty_like(saved[-1]), numpy.ones(1, x.dtype)
    counts_all = net.reduction == "row_mean" and net.loss == SOFTMAX_OF_LABELS
    reduction = "sum" if counts_all or net.reduction == "sum" else "mean"
    if net.loss == SOFTMAX_OF_LABELS:
        cross_entropy_labels.twin(
            value, dz, factor, None, None, fault, result, target, reduction=reduction, ignore_index=net.ignore_index,
            code=net.code,
        )  # fmt: skip
        if counts_all:
            factor /= len(x)
            value *= factor
    else:
        elementwise_loss.twin(
            value, dz, factor, None, None, result, target, loss=net.loss, reduction=reduction, delta=net.delta
        )
    for number in reversed(range(len(net.layers))):
        weight, bias = entries[number]
        of_bias = None if bias is None else grads[bias]
        linear_backward_weight.twin(grads[weight], of_bias, None, None, dz, inputs[number], factor)
        if number == 0:
            break
        dy, dz = dz, numpy.empty_like(saved[number - 1])
        linear_backward_input.twin(dz, None, None, dy, params[weight], None, activation="identity", alpha=0.0)
        dz *= behind[number - 1]
        ACTIVATIONS[net.activation].backward(dz, dz, saved[number - 1], alpha)


@small_net_steps.geometry
def _(
    params, first_states, second_states, third_states, steps, grads, streams, losses, fault, x, targets, labels, order,
    hyperparameters, active, kept, masks, *, net, held,
):  # fmt: skip
    nets, num_steps = losses.shape
    shape = plan(net, x.itemsize, held)
    activation = ACTIVATIONS[net.activation]
    loss = "SoftmaxOfLabels" if net.loss == SOFTMAX_OF_LABELS else ELEMENTWISE_LOSSES[net.loss].struct
    flags = activation.saves == "preactivation", held > 0
    saves_z, holds = ("true" if flag else "false" for flag in flags)
    scalars = (
        shape, num_steps, hyperparameters.shape[1], numpy.int64(net.ignore_index), numpy.int32(net.code), net.alpha, net.delta,
        net.max_norm, REDUCTIONS[net.reduction], int(net.rule.maximize),
    )  # fmt: skip
    return Geometry(
        (nets, *[0] * (len(params) - 1)), THREADS, scalars, (activation.struct, saves_z, loss, net.rule.struct, holds),
        int(shape["size"][0]) * x.itemsize,
    )  # fmt: skip
