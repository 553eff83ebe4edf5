"""Recorded steps that a GPU can run many times in one launch: small perceptrons (see :mod:`gpunet.ops.small_net`).

:func:`read_net` reads the parts of a network that the launches of a step declare (:mod:`gpunet.launch.parts`), and refuses a step
that computes anything else.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import float32, float64, int64
from gpunet.captured.ir import Call, View
from gpunet.errors import CaptureError
from gpunet.launch import parts
from gpunet.ops import small_net
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.small_net import SOFTMAX_OF_LABELS, Net, Rule
from gpunet.ops.weight_gradients import CAPACITY, MOST_STATES


class UnfitStepError(CaptureError):
    """A step is no small net; the message says why."""


@dataclasses.dataclass
class _Layer:
    """A layer as the forward pass shows it, and its gradients."""

    part: parts.Layer
    activation: str
    alpha: float
    saved: Any  # what the derivative of the activation reads
    mask: Any = None
    dropout: parts.Dropout | parts.StackedDropout | None = None
    gradient: parts.WeightGradient | None = None


@dataclasses.dataclass
class FoundNet:
    """A net in a recorded step, with views of its arrays.

    Attributes:
        net: what it computes.
        params, states, steps, grads: as the kernel takes them.
        streams: of dropout.
        kept: of each layer the thresholds of dropout (nets,), or None.
        masks: of the layers that have one.
        fault: record of labels out of range, or None.
        hyperparameters: of the optimizer.
        active: which nets are not stopped, or None.
        num_nets: None for a net that is no stack.
        inputs, target: numbers of the arguments of the step.
    """

    net: Net
    params: list[View]
    states: list[list[View] | None]
    steps: list[View] | None
    grads: list[View]
    streams: list[View]
    fault: View | None
    hyperparameters: View
    active: View | None
    inputs: int
    target: int
    num_nets: int | None
    kept: list[View | None]
    masks: list[View]

    @property
    def changed(self) -> Iterator[View]:
        """All that the launch changes."""
        lists = (self.params, *self.states, self.steps, self.grads, self.streams, None if self.fault is None else [self.fault])
        return itertools.chain.from_iterable(views for views in lists if views is not None)


def _is_same(view: Any, other: Any) -> bool:
    """Whether two views have the same elements in the same order, perhaps in other shapes."""
    return isinstance(view, View) and isinstance(other, View) and other.contiguous and view.is_all_of(other)


class _Reader:
    """Follows the value of a step forward, and its gradient backward, launch by launch."""

    def __init__(self, input_of: Mapping[int, tuple[int, tuple[int, ...]]], own: Set[int]) -> None:
        self.input_of = input_of  # buffer -> number and shape of the argument
        self.own = own  # buffers
        self.written: set[int] = set()  # buffers that are not the step's own
        self.layers: list[_Layer] = []
        self.value: View | None = None
        self.loss: parts.Loss | None = None
        self.slope: Any = None  # the gradient that is followed
        self.is_scaled = False  # whether the factor of the loss is applied to it
        self.at = -1  # the layer whose result, or pre-activation, it belongs to
        self.pending: set[str] = set()  # what lies between that result and the pre-activation: "dropout", "activation"
        self.norm: parts.Norm | None = None
        self.clip: parts.Clip | None = None
        self.update: parts.Update | None = None
        # of stacks
        self.is_stack = False
        self.active: Any = None
        self.mean: parts.StackedMean | None = None
        self.constants: dict[int, float] = {}  # by buffer
        self.copies: dict[int, int] = {}  # buffer with a copy of an argument for each net -> number of the argument
        self.numbers: parts.StackedNumbers | None = None
        self.updates: list[parts.StackedUpdate] = []

    def read(self, call: Call) -> None:
        compute = getattr(call.function, "part", None)
        part = None if compute is None else compute(*call.arguments, **call.options)
        name = getattr(call.function, "name", "a launch")
        take: Any = None if part is None else getattr(self, f"_take_{type(part).__name__}", None)
        if take is None or self.update is not None or not take(part):
            raise UnfitStepError(f"{name} is no part of a chain of linear layers, its loss and its optimizer")
        self.written |= {view.buffer for view in call.writes} - self.own

    # -- forward
    def _argument(self, view: Any) -> int | None:
        """The number of the argument that a view is all of, row for row."""
        if not isinstance(view, View) or view.buffer not in self.input_of or not view.contiguous:
            return None
        number, shape = self.input_of[view.buffer]
        return number if view.size == math.prod(shape) and view.shape[:1] == shape[:1] else None

    def _target(self, view: Any) -> int | None:
        """The number of the argument that a target is; those of stacks of several nets are copies for each net."""
        has_copies = self.is_stack and self.layers[0].part.w.shape[0] > 1
        return self.copies.get(view.buffer) if has_copies else self._argument(view)

    # -- stacks
    def _take_StackedLayer(self, part: parts.StackedLayer) -> bool:
        self.is_stack, self.active = True, part.active
        if self.layers and part.active != self.layers[0].part.z:  # where the first one keeps it
            return False
        return self._take_Layer(parts.Layer(part.y, part.active, part.x, part.w, part.b, "identity", 0.0))

    def _take_Copy(self, part: parts.Copy) -> bool:
        source, target = part.x, part.y
        if not isinstance(source, View) or not isinstance(target, View) or not target.contiguous:
            return False
        if source.buffer in self.constants:
            self.constants[target.buffer] = self.constants[source.buffer]
            return True
        if source.shape[:1] == target.shape[:1] and source.strides[:1] == (0,):  # of all nets: a copy for each
            number = self._argument(source._replace(shape=source.shape[1:], strides=source.strides[1:]))
            if number is not None:
                self.copies[target.buffer] = number
                return True
        return False

    def _take_Fill(self, part: parts.Fill) -> bool:
        self.constants[part.y.buffer] = float(part.value)
        return self.is_stack

    def _take_Sum(self, part: parts.Sum) -> bool:
        return self.mean is not None and _is_same(part.x, self.mean.value)  # its value is used only if it is returned

    def _take_StackedMean(self, part: parts.StackedMean) -> bool:
        if self.mean is not None or self.loss is None or not _is_same(part.each, self.loss.value) or part.active != self.active:
            return False
        self.mean = part
        return True

    def _take_StackedNumbers(self, part: parts.StackedNumbers) -> bool:
        if self.numbers is not None or part.active != self.active:
            return False
        self.numbers = part
        return True

    def _take_StackedUpdate(self, part: parts.StackedUpdate) -> bool:
        rule, apply, counters, hyperparameters = part.rule, part.apply, None, part.numbers
        if rule is None or apply is None:
            numbers = self.numbers
            if numbers is None or not _is_same(part.numbers, numbers.numbers):
                return False
            rule, apply, counters, hyperparameters = numbers.rule, numbers.apply, numbers.counters, numbers.hyperparameters
        if part.active != self.active or self.at != 0 or self.pending:
            return False
        if self.updates and (part.rule, part.numbers) != (self.updates[0].rule, self.updates[0].numbers):
            return False
        self.updates.append(part)
        grads = [update.grad for update in self.updates]
        if len(grads) == len(self._gradients()):
            steps = None if counters is None else [counters] * len(grads)
            states: list[Any] = [
                None if of[0] is None else list(of) for of in zip(*(update.states for update in self.updates), strict=True)
            ]
            params = [update.param for update in self.updates]
            return self._take_Update(parts.Update(params, states, steps, grads, hyperparameters, None, rule, False, apply))
        return True

    def _take_Layer(self, part: parts.Layer) -> bool:
        if self.loss is not None or part.x.shape[-1] != part.w.shape[-1]:
            return False
        if self.value is None:
            if len(part.x.shape) != 2 or self._argument(part.x) is None:
                return False
        elif not _is_same(part.x, self.value) or part.x.shape[-1] != self.layers[-1].part.w.shape[-2]:
            return False
        saved = part.y if ACTIVATIONS[part.activation].saves != "preactivation" else part.z
        self.layers.append(_Layer(part, part.activation, part.alpha, saved))
        self.value = part.y
        return True

    def _take_Activation(self, part: parts.Activation) -> bool:
        if self.loss is not None or not self.layers or not _is_same(part.z, self.value):
            return False
        layer = self.layers[-1]
        if layer.activation != "identity" or layer.dropout is not None or layer.mask is not None:
            return False
        layer.activation, layer.alpha = part.activation, part.alpha
        layer.saved = part.y if ACTIVATIONS[part.activation].saves != "preactivation" else part.z
        self.value = part.y
        return True

    def _take_StackedDropout(self, part: parts.StackedDropout) -> bool:
        return self._take_Dropout(part)

    def _take_Dropout(self, part: parts.Dropout | parts.StackedDropout) -> bool:
        if part.advances:
            if self.loss is not None or not self.layers or self.layers[-1].dropout is not None:
                return False
            if not _is_same(part.x, self.value):
                return False
            self.layers[-1].dropout, self.value = part, part.y
            return True
        layer = self.layers[self.at] if self.slope is not None else None
        if layer is None or "dropout" not in self.pending or layer.dropout is None or not _is_same(part.x, self.slope):
            return False
        ours, theirs = (each._replace(y=None, x=None, state=None, start=None, advances=True) for each in (part, layer.dropout))
        if part.state != layer.dropout.start or ours != theirs:
            return False
        self.pending.discard("dropout")
        self.slope = part.y
        return True

    def _take_Loss(self, part: parts.Loss) -> bool:
        if self.loss is not None or not self.layers or not _is_same(part.x, self.value):
            return False
        if (part.reduction == "none") != self.is_stack:
            return False
        last = self.layers[-1]
        if last.activation != "identity" or last.dropout is not None or last.mask is not None:
            raise UnfitStepError("the last layer has an activation or dropout")
        if self._target(part.target) is None:
            return False
        self.loss, self.slope, self.at = part, part.slope, len(self.layers) - 1
        self.is_scaled = part.factor is None and not self.is_stack
        return True

    # -- backward
    def _has_factor(self, view: Any) -> bool:
        """Whether a view is the pending factor; None if there is none."""
        assert self.loss is not None
        return view is None if self.is_scaled else _is_same(view, self.loss.factor)

    def _take_Scaling(self, part: parts.Scaling) -> bool:
        if self.is_stack:
            return self._scale_of_stack(part)
        if self.slope is None or self.is_scaled or not _is_same(part.x, self.slope) or not self._has_factor(part.factor):
            return False
        self.slope, self.is_scaled = part.y, True
        return True

    def _scale_of_stack(self, part: parts.Scaling) -> bool:
        """Follow 1 / count, which a stack multiplies with the slope, and masks of features, (nets, 1, o)."""
        if self.loss is None:
            if not self.layers or not _is_same(part.x, self.value) or not isinstance(part.factor, View):
                return False
            layer, shape = self.layers[-1], self.layers[-1].part.w.shape
            if layer.mask is not None or layer.dropout is not None or part.factor.shape != (shape[0], 1, shape[1]):
                return False
            layer.mask, self.value = part.factor, part.y
            return part.factor.contiguous
        if "mask" in self.pending and "dropout" not in self.pending and _is_same(part.x, self.slope):
            self.pending.discard("mask")
            self.slope = part.y
            return bool(part.factor == self.layers[self.at].mask)
        if isinstance(part.factor, float) and isinstance(part.x, View) and part.x.buffer in self.constants:
            self.constants[part.y.buffer] = self.constants[part.x.buffer] * part.factor
            return True
        if not isinstance(part.factor, View) or self.mean is None or self.is_scaled or not _is_same(part.x, self.slope):
            return False
        factor, count = self.constants.get(part.factor.buffer, 0.0), self.mean.each.shape[1]
        self.slope, self.is_scaled = part.y, True
        return abs(factor * count - 1.0) < 1e-6

    def _take_WeightGradient(self, part: parts.WeightGradient) -> bool:
        if self.slope is None or self.pending or not _is_same(part.dy, self.slope) or part.dw is None:
            return False
        layer = self.layers[self.at]
        if layer.gradient is not None or not _is_same(part.x, layer.part.x) or not self._has_factor(part.scale):
            return False
        layer.gradient = part
        return (part.db is None) == (layer.part.b is None)

    def _take_InputGradient(self, part: parts.InputGradient) -> bool:
        if self.slope is None or self.pending or self.at < 1 or not _is_same(part.dy, self.slope):
            return False
        if part.w != self.layers[self.at].part.w:
            return False
        self.at -= 1
        layer = self.layers[self.at]
        self.slope = part.dx
        self.pending = {"activation"} if layer.activation != "identity" else set()
        self.pending |= {"dropout"} if layer.dropout is not None else set()
        self.pending |= {"mask"} if layer.mask is not None else set()
        return part.activation == "identity" or self._derive(part)

    def _take_ActivationGradient(self, part: parts.ActivationGradient) -> bool:
        if self.slope is None or not _is_same(part.dy, self.slope) or not self._derive(part):
            return False
        self.slope = part.dz
        return True

    def _derive(self, part: parts.InputGradient | parts.ActivationGradient) -> bool:
        """Take the derivative of the activation, the last thing between a result and a pre-activation."""
        layer = self.layers[self.at]
        if self.pending != {"activation"} or not _is_same(part.saved, layer.saved):
            return False
        self.pending = set()
        return (part.activation, part.alpha) == (layer.activation, layer.alpha)

    # -- the step
    def _gradients(self) -> list[View]:
        found: list[View] = []
        for layer in self.layers:
            if layer.gradient is None:
                raise UnfitStepError("a layer has no gradient")
            found += [layer.gradient.dw, *([] if layer.gradient.db is None else [layer.gradient.db])]
        return found

    def _has_all(self, grads: Sequence[Any]) -> bool:
        return sorted(grads, key=str) == sorted(self._gradients(), key=str)

    def _take_Norm(self, part: parts.Norm) -> bool:
        if self.is_stack or self.norm is not None or part.order != 2.0 or not self._has_all(part.grads):
            return False
        self.norm = part
        return True

    def _take_Clip(self, part: parts.Clip) -> bool:
        if self.norm is None or self.clip is not None or not self._has_all(part.grads) or not _is_same(part.norm, self.norm.norm):
            return False
        self.clip = part
        return part.max_norm > 0.0

    def _take_Update(self, part: parts.Update) -> bool:
        if self.is_stack != bool(self.updates):
            return False
        if self.at != 0 or self.pending or part.skip is not None or not self._has_all(part.grads):
            return False
        self.update = part
        return True

    # -- the result
    def finish(self, kept: Sequence[View]) -> FoundNet:
        """Return the net.

        Args:
            kept: results of the step, and gradients.
        """
        layers, loss, update = self.layers, self.loss, self.update
        if loss is None or update is None:
            raise UnfitStepError("it has no step of an optimizer on the gradients of a loss")
        grads = self._gradients()
        value = loss.value if self.mean is None else self.mean.value
        results = [view for view in kept if view not in grads]
        if (self.mean is None) == self.is_stack or any(not _is_same(view, value) for view in results):
            raise UnfitStepError("it returns more than its loss")
        if any(len(view.shape) != int(self.is_stack) for view in results):
            raise UnfitStepError("it returns its loss in another shape")
        hidden = layers[:-1]
        if len({(layer.activation, layer.alpha) for layer in hidden}) > 1:
            raise UnfitStepError("its hidden layers have different activations")
        streams = [layer.dropout.state for layer in hidden if layer.dropout is not None]
        if len(set(streams)) > 1 and not self.is_stack:
            raise UnfitStepError("its layers draw from different generators")
        if layers[0].part.x.dtype not in (float32, float64):
            raise UnfitStepError(f"it computes in {layers[0].part.x.dtype}; expected float32 or float64")
        if len(layers) > small_net.MOST_LAYERS or len(grads) > CAPACITY:
            raise UnfitStepError(f"it has {len(layers)} layers; expected at most {small_net.MOST_LAYERS}")
        params: list[View] = []
        for layer in layers:
            params += [layer.part.w, *([] if layer.part.b is None else [layer.part.b])]
        order = [update.grads.index(gradient) for gradient in grads]
        if [update.params[place] for place in order] != params:
            raise UnfitStepError("its optimizer updates other tensors than the weights of its layers")
        states = [None if of is None else [of[place] for place in order] for of in update.states]
        inputs, target = self._argument(layers[0].part.x), self._target(loss.target)
        assert inputs is not None and target is not None
        net = Net(
            tuple(_layer(layer, streams) for layer in layers), layers[0].part.x.shape[0],
            hidden[0].activation if hidden else "identity", hidden[0].alpha if hidden else 0.0, loss.loss,
            "row_mean" if self.is_stack else loss.reduction, Rule(update.rule, update.maximize, update.apply),
            max_norm=0.0 if self.clip is None else float(self.clip.max_norm), **loss.options,
        )  # fmt: skip
        found = FoundNet(
            net, params, [*states, *[None] * (MOST_STATES - len(states))],
            None if update.steps is None else [update.steps[place] for place in order], grads, [*dict.fromkeys(streams)],
            loss.fault, update.hyperparameters, self.active, inputs, target, params[0].shape[0] if self.is_stack else None,
            [getattr(layer.dropout, "kept", None) for layer in layers],
            [layer.mask for layer in layers if layer.mask is not None],
        )  # fmt: skip
        if self.written - {view.buffer for view in found.changed}:
            raise UnfitStepError("it changes more than weights, gradients and the optimizer, or keeps a value such as an attribute")
        read = [*found.masks, *(view for view in (*found.kept, found.active, found.hyperparameters) if view is not None)]
        if any(view.buffer in self.own or view.buffer in self.input_of for view in read):
            raise UnfitStepError("it computes numbers that have to be the same in all steps")
        return found


def _layer(layer: _Layer, streams: list[View]) -> small_net.Layer:
    outputs, inputs = layer.part.w.shape[-2:]
    dropout, of_layer = layer.dropout, small_net.Layer(inputs, outputs, layer.part.b is not None, is_masked=layer.mask is not None)
    if dropout is None:
        return of_layer
    stream = [*dict.fromkeys(streams)].index(dropout.state)
    if isinstance(dropout, parts.StackedDropout):  # each net has its own probability
        return of_layer._replace(probability=1.0, stream=stream)
    return of_layer._replace(probability=dropout.probability, scale=dropout.scale, stream=stream)


def read_net(
    calls: Sequence[Call], kept: Sequence[View], input_of: Mapping[int, tuple[int, tuple[int, ...]]], own: Set[int]
) -> FoundNet:
    """Find the net in the launches of a recorded step.

    Args:
        calls: the launches.
        kept: views that are read after the step: its results, and gradients.
        input_of: the number and the shape of the argument that a buffer has.
        own: the buffers to which nothing outside the step refers.

    Raises:
        UnfitStepError: the step computes something else, too.
    """
    reader = _Reader(input_of, own)
    for call in calls:
        reader.read(call)
    return reader.finish(kept)


class SmallNet:
    """The net of a recorded step, ready to run on its arrays.

    Args:
        found: the net.
        array: returns the array of a view.
        max_shared: bytes of shared memory that a block of the device can have.

    Raises:
        UnfitStepError: the net does not fit.
    """

    def __init__(self, found: FoundNet, array: Callable[[View], Array], max_shared: int) -> None:
        self.net, self.inputs, self.target = found.net, found.inputs, found.target
        self.dtype, itemsize = found.params[0].dtype, found.params[0].dtype.itemsize
        num_states = max((number + 1 for number, of in enumerate(found.states) if of is not None), default=0)
        limit = max_shared - small_net.STATIC_BYTES
        held = small_net.held_states(self.net, itemsize, num_states, limit)
        if held is None:
            needed = small_net.num_bytes(self.net, itemsize, 0)
            raise UnfitStepError(f"it needs {needed} bytes of shared memory; a block has {limit}")
        self.is_whole = held == num_states
        self.held, self.num_bytes = held, small_net.num_bytes(self.net, itemsize, held)

        self.num_nets = found.num_nets

        def of_nets(view: View) -> Array:
            """The array of a view, with nets as its first dimension."""
            found_array = array(view)
            return found_array if self.num_nets is not None else found_array.reshape(1, *view.shape)

        lists = (found.params, *found.states, found.steps, found.grads)
        self._lists = [None if of is None else [of_nets(view) for view in of] for of in lists]
        self._streams = [of_nets(view) for view in found.streams]
        self._kept = [None if view is None else array(view) for view in found.kept]
        self._masks = [array(view) for view in found.masks]
        self._fault = None if found.fault is None else array(found.fault)
        self._active = None if found.active is None else array(found.active)
        self._hyperparameters = of_nets(found.hyperparameters)

    def run(self, losses: Array, x: Array, target: Array, order: Array | None) -> None:
        """Run steps.

        Args:
            losses: (nets, num_steps), for the losses; one net if it is no stack.
            x, target: the arguments of the step for all samples.
            order: int64, the samples of the steps; None for the order of the data.
        """
        x = x.reshape(len(x), -1)
        has_labels = self.net.loss == SOFTMAX_OF_LABELS
        target = target.reshape(-1) if has_labels else target.reshape(len(target), -1)
        targets, labels = (None, target) if has_labels else (target, None)
        # what tensors of their own have for each layer: small, and copied once a launch
        xp, nets = devices.module(losses), len(losses)
        streams = xp.stack(self._streams, axis=1) if self._streams else None
        kept = masks = None
        if any(a is not None for a in self._kept):
            kept = xp.stack([xp.zeros((nets,), int64) if a is None else a for a in self._kept], axis=1)
        if self._masks:
            masks = xp.concatenate([mask.reshape(nets, -1) for mask in self._masks], axis=1)
        small_net.small_net_steps(
            *self._lists, streams, losses, self._fault, x, targets, labels, order, self._hyperparameters, self._active, kept, masks,
            net=self.net, held=self.held,
        )  # fmt: skip
        if streams is not None:
            for number, stream in enumerate(self._streams):
                devices.assign(stream, streams[:, number])

    def describe(self) -> str:
        """Return a line about the net and its memory."""
        sizes = "-".join(map(str, (self.net.layers[0].inputs, *(layer.outputs for layer in self.net.layers))))
        where = "" if self.is_whole else "; the states of the optimizer stay in global memory"
        sizes = sizes if self.num_nets is None else f"{self.num_nets} nets {sizes}"
        return f"one launch for all steps: {sizes}, batches of {self.net.rows}, {self.num_bytes} bytes of shared memory{where}"
