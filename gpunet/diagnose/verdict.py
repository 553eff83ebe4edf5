"""The verdict on a training: which fault its gradient flow shows, where, since when, and the remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy import ndarray

__all__ = ["Finding", "Verdict"]

#: Gradients vanish (explode) over the depth of a net if a layer gets less than 1/1000 (more than 1000 times) of the last
#: layer's gradient: with the one learning rate of a net, it needs a thousand times the steps (one of the two steps is useless).
#: Ten layers with a factor of 1/2 each, which train well, are just within it.
DEPTH_RATIO = 1e3
#: Gradients explode at a step if their norm is 100 times that of the first step and that of the median step before: minibatches
#: and learning-rate schedules move it by factors of 2 to 20, and of a net that converges it falls.
TIME_RATIO = 1e2
#: An explosion began where the norm left the range of those fluctuations.
ONSET_RATIO = 1e1
#: A gradient that has grown is harmless while a step changes the weights of each layer by less than a tenth of their norm, as at
#: the start of a net whose signal was small; usual steps change them by 1/1000.
HARMLESS_UPDATE = 0.1
#: A layer is accused if half of its units are dead: trained nets of ReLU commonly lose a tenth to a third of them.
DEAD_SHARE = 0.5
#: An output is saturated if the slope of the activation there is below 1/20 of the largest, |y| > 0.975 for tanh; a layer is
#: accused if 60 % of its outputs are: trained nets of tanh commonly have a third.
SATURATED_SLOPE = 0.05
SATURATED_SHARE = 0.6
#: Units are judged from so many samples on: a live unit of ReLU is 0 for about half of them, so that 20 zeros in a row are one in
#: a million, and one that is active for a seventh of them is seen with 95 %.
MIN_SAMPLES = 20
#: Outputs below a millionth of the first layer's are 0 because the signal vanished, not because units died.
SIGNAL_RATIO = 1e-6


@dataclass(frozen=True)
class Finding:
    """A fault of a training.

    Attributes:
        kind: "exploding", "targets" (they are too large), "dead", "saturated" or "vanishing".
        text: the fault in words, with its place and its size.
        remedy: what to change.
        layers: the numbers of the layers concerned, from 1.
        step: the step at which it began; None if it does not have one.
    """

    kind: str
    text: str
    remedy: str
    layers: tuple[int, ...]
    step: int | None = None


class Verdict:
    """The findings on a training, the likely cause first; prints as sentences.

    Attributes:
        findings: see :class:`Finding`; empty if the training is healthy.
        num_steps: recorded steps.
        note: what could not be judged, in words; "" if all could be.
    """

    def __init__(self, findings: Sequence[Finding], num_steps: int, note: str = "") -> None:
        self.findings, self.num_steps, self.note = list(findings), num_steps, note

    @property
    def is_healthy(self) -> bool:
        return not self.findings

    @property
    def kind(self) -> str:
        """The kind of the first finding, or "healthy"."""
        return self.findings[0].kind if self.findings else "healthy"

    def __str__(self) -> str:
        steps = f"{self.num_steps} recorded step{'s' * (self.num_steps != 1)}"
        if not self.findings:
            alive = "" if self.note else ", units are alive,"
            return f"healthy: gradients reach all layers{alive} and nothing explodes ({steps}){'; ' * bool(self.note)}{self.note}"
        return "\n".join([*(f"{f.text}. Remedy: {f.remedy}" for f in self.findings), *([self.note] if self.note else [])])

    def __repr__(self) -> str:
        return f"<Verdict: {self.kind}, {self.num_steps} steps>"


@dataclass
class Flow:
    """What was recorded of a training: (steps, layers) arrays in order of execution.

    A figure is NaN where a layer did not run, and infinite where it is not a finite number.

    Attributes:
        names: of the layers.
        activations: of each layer, the name of the activation behind it, or "".
        has_norms: whether the network has normalization layers.
        steps: their numbers.
        outputs: root mean square of the outputs of the layers.
        gradients: norm of the gradient with respect to these outputs.
        weight_gradients: norm of the gradient with respect to the weights.
        updates: norm of the change of the weights by a step over the norm of the weights.
        saturated: share of saturated outputs of the activation; NaN where no later layer reads it.
        samples: in the activation.
        last_alive: for each layer and unit, the index among ``steps`` where its activation was last not 0; None if unknown.
    """

    names: list[str]
    activations: list[str]
    has_norms: bool
    steps: list[int]
    outputs: ndarray
    gradients: ndarray
    weight_gradients: ndarray
    updates: ndarray
    saturated: ndarray
    samples: ndarray
    last_alive: list[ndarray | None]

    def dead(self) -> ndarray:
        """For each layer, the share of units that were 0 in the whole judged half; NaN if unknown."""
        start = self._start_of_judged()
        return numpy.array([numpy.nan if alive is None else (alive < start).mean() for alive in self.last_alive])

    def num_samples(self) -> ndarray:
        """For each layer, the samples in the judged half of the steps of which its activation is known."""
        return numpy.nansum(self.samples[self._start_of_judged() :], axis=0)

    def _start_of_judged(self) -> int:
        """The first index of the second half of the steps: faults of the start that training has mended are no faults."""
        return len(self.steps) // 2

    def median(self, figure: ndarray) -> ndarray:
        """For each layer, the median over the judged half of the steps, of infinite numbers, too; NaN where there is none."""
        judged = figure[self._start_of_judged() :]
        return numpy.array([numpy.median(c) if len(c := column[~numpy.isnan(column)]) else numpy.nan for column in judged.T])

    def label(self, layer: Any) -> str:
        """A layer's number and name, such as "layer 3 (module features.4)"."""
        return f"layer {layer + 1} (module {self.names[layer]})"


def judge(flow: Flow) -> Verdict:
    """Return the verdict on what was recorded."""
    if not flow.steps:
        return Verdict([], 0)
    few = [int(count) for count in flow.num_samples() if 0 < count < MIN_SAMPLES]
    note = f"too few samples to judge units: {max(few)} of at least {MIN_SAMPLES}" if few else ""
    # causes before their consequences: an explosion kills units, and a dead or saturated layer stops gradients
    explosion, dead, saturated = _exploding_in_time(flow), _dead(flow), _saturated(flow)
    if explosion:  # behind it, the sizes of gradients mean nothing
        return Verdict([*explosion, *dead, *saturated], len(flow.steps), note)
    vanishing = _vanishing(flow)
    if vanishing and not saturated and numpy.nanmin(_ratios(flow)) > 0.0:  # a dead layer would have let nothing through
        dead, vanishing = [], [*vanishing, *dead]
    return Verdict([*_exploding_in_depth(flow), *dead, *saturated, *vanishing], len(flow.steps), note)


def _exploding_in_time(flow: Flow) -> list[Finding]:
    with numpy.errstate(over="ignore", invalid="ignore"):
        total = numpy.sqrt(numpy.nansum(numpy.square(flow.weight_gradients.astype(float)), axis=1))
    broken = numpy.isinf(total) | numpy.isinf(flow.outputs).any(axis=1) | numpy.isinf(flow.gradients).any(axis=1)
    total = numpy.where(broken, numpy.inf, total)
    change = numpy.where(numpy.isnan(flow.updates), 0.0, flow.updates).max(axis=1)
    for at, norm in enumerate(total):
        usual = max(total[0], float(numpy.median(total[:at]))) if at else norm
        if not (math.isinf(norm) or (change[at] > HARMLESS_UPDATE and norm > TIME_RATIO * usual > 0.0)):
            continue
        onset = at
        while onset > 1 and total[onset - 1] > ONSET_RATIO * max(total[0], float(numpy.median(total[: onset - 1]))):
            onset -= 1
        broken_at = int(numpy.argmax(numpy.isinf(total))) if numpy.isinf(total).any() else None
        if broken_at == 0:
            text = f"the numbers overflow at step {flow.steps[0]}, the first recorded one"
            return [Finding("exploding", text, f"{_smaller_start(flow)}; {_ANOMALY_FINDER}", (), flow.steps[0])]
        changes = change[max(onset - 1, 0) : at + 1]
        largest = changes[numpy.isfinite(changes)].max(initial=0.0)
        if broken_at == onset and largest <= HARMLESS_UPDATE:  # neither a gradient nor an update grew before
            skipped = flow.steps[onset] - flow.steps[onset - 1] - 1
            unknown = f"; the {skipped} steps before it are not recorded" if skipped else ""
            text = (
                f"the gradients are infinite or NaN from step {flow.steps[onset]} on, though they and the updates were normal "
                f"until step {flow.steps[onset - 1]}{unknown}"
            )
            return [Finding("exploding", text, _ANOMALY_FINDER, (), flow.steps[onset])]
        size = f"to {norm / usual:.0f} times their norm" if broken_at is None else (
            f"they are infinite or NaN from step {flow.steps[broken_at]} on")  # fmt: skip
        by = f" (a step changes the weights of a layer by {_share(largest)})" if largest > HARMLESS_UPDATE else ""
        remedy = f"lower the learning rate{by}, warm it up, or clip gradients (Trainer(clip=1.0), clip_grad_norm_)"
        return [Finding("exploding", f"gradients explode at step {flow.steps[onset]}: {size}", remedy, (), flow.steps[onset])]
    return []


_ANOMALY_FINDER = "diagnose.AnomalyFinder(model, optimizer) names the first op or input that is not finite"


def _share(change: float) -> str:
    """The change of weights by a step, relative to them, in words."""
    return f"{change:.0%}" if change <= 10.0 else "many times their norm"


def _ratios(flow: Flow) -> ndarray:
    """For each layer, the median of its gradient over the last layer's; NaN where there is none."""
    last = int(numpy.flatnonzero(~numpy.isnan(flow.gradients).all(axis=0))[-1]) if (~numpy.isnan(flow.gradients)).any() else 0
    with numpy.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = flow.gradients / flow.gradients[:, last : last + 1]
        ratios[0][ratios[0] == 0.0] = numpy.nan  # behind a last layer of zeros, which the first step changes
        return flow.median(ratios)


def _exploding_in_depth(flow: Flow) -> list[Finding]:
    ratios = _ratios(flow)
    large = numpy.flatnonzero(ratios > DEPTH_RATIO)
    # in a net whose last output has a small weight in the loss, all other layers have a larger gradient, but they are alike
    grows = len(large) and numpy.nanmax(ratios) > ONSET_RATIO * numpy.nanmedian(ratios)
    outputs = flow.median(flow.outputs)
    if grows and numpy.isfinite(ratios[large]).any():
        top = flow.label(large[-1])
        text = f"gradients explode from {top} down: the gradient there is {numpy.max(ratios[large]):.2g} times the last layer's"
    else:
        known = numpy.flatnonzero(outputs > 0.0)
        if len(known) < 2 or outputs[known[-1]] <= DEPTH_RATIO * outputs[known[0]]:
            return []
        large = known[outputs[known] > DEPTH_RATIO * outputs[known[0]]]
        growth = outputs[known[-1]] / outputs[known[0]]
        text = f"activations explode from {flow.label(large[0])} up: the last layer's are {growth:.2g} times the first layer's"
    return _large_targets(flow) or [Finding("exploding", text, _smaller_start(flow), tuple(int(i) + 1 for i in large))]


def _large_targets(flow: Flow) -> list[Finding]:
    """The finding that large outputs are what the loss asks for, not an explosion.

    Such a net starts with a usual last output, which grows step by step, while the gradient there, of which the error is the
    source, does not.
    """
    outputs, gradients = flow.outputs[:, -1], flow.gradients[:, -1]
    now, error = flow.median(flow.outputs)[-1], flow.median(flow.gradients)[-1]
    start = max(outputs[0], 1.0)  # of a last layer of zeros, too
    if not (math.isfinite(now) and now > TIME_RATIO * start and error <= ONSET_RATIO * gradients[0]):
        return []
    text = (
        f"the targets are large: the outputs of {flow.label(len(flow.names) - 1)} have grown from {outputs[0]:.2g} to {now:.2g}, "
        "and the weights with them, while the gradient there has not"
    )
    return [Finding("targets", text, _SCALED_TARGETS, (len(flow.names),))]


_SCALED_TARGETS = "scale the targets of a regression to mean 0 and variance 1, and the predictions back"


def _dead(flow: Flow) -> list[Finding]:
    shares, outputs, found = flow.dead(), flow.median(flow.outputs), []
    first = next((value for value in outputs if value > 0.0), 0.0)
    for layer in numpy.flatnonzero((shares >= DEAD_SHARE) & (flow.num_samples() >= MIN_SAMPLES)):
        if outputs[layer] >= SIGNAL_RATIO * first or not first:
            text = f"{shares[layer]:.0%} of the units of {flow.label(layer)} are dead: their activation is 0 for all samples"
            found.append((float(shares[layer]), int(layer), text))
    if not found:
        return []
    # a layer behind a dead one gets the same numbers for all samples, so the first one is the cause
    remedy = (
        "initialize again with nn.init.kaiming_normal_ and biases of 0, lower the learning rate, put batch norm before the "
        "activation, or use LeakyReLU, whose slope is never 0"
    )
    return [Finding("dead", text, remedy, (layer + 1,)) for _, layer, text in found]


def _saturated(flow: Flow) -> list[Finding]:
    shares = flow.median(flow.saturated)
    remedy = (
        "smaller weights at the start (nn.init.xavier_uniform_), normalized inputs, batch norm before the activation, a lower "
        "learning rate, or ReLU in place of the bounded activation"
    )
    return [
        Finding("saturated", f"{shares[layer]:.0%} of the activations of {flow.label(layer)} are saturated: the slope of "
                f"{flow.activations[layer]} is almost 0 there", remedy, (int(layer) + 1,))
        for layer in numpy.flatnonzero((shares >= SATURATED_SHARE) & (flow.num_samples() >= MIN_SAMPLES))
    ]  # fmt: skip


def _vanishing(flow: Flow) -> list[Finding]:
    ratios = _ratios(flow)
    with_gradient = numpy.flatnonzero(~numpy.isnan(ratios))
    small = ratios[with_gradient] < 1.0 / DEPTH_RATIO
    count = len(small) if small.all() else int(numpy.argmin(small))
    if not count:
        return []
    layers = with_gradient[:count]
    text = (
        f"gradients vanish from {flow.label(layers[-1])} down: the gradient of layer {layers[0] + 1} is "
        f"{ratios[layers[0]]:.1g} times the last layer's"
    )
    return [Finding("vanishing", text, _larger_flow(flow), tuple(int(i) + 1 for i in layers))]


def _larger_flow(flow: Flow) -> str:
    names = {name for name in flow.activations if name}
    ways = []
    if names & {"sigmoid", "hardsigmoid"}:
        ways.append("ReLU or tanh in place of sigmoid, whose slope is at most 1/4")
    if not flow.has_norms:
        ways.append("batch norm behind each layer")
    ways.append("residual connections, x + block(x)")
    bounded = names & {"tanh", "sigmoid"}
    ways.append(f"weights initialized by nn.init.{'xavier_uniform_' if bounded else 'kaiming_normal_'}")
    return ", or ".join(ways)


def _smaller_start(flow: Flow) -> str:
    bounded = {"tanh", "sigmoid"} & {name for name in flow.activations if name}
    norm = "" if flow.has_norms else ", or batch norm behind each layer"
    function = "xavier_uniform_" if bounded else "kaiming_normal_"
    return f"smaller weights at the start (nn.init.{function}){norm}, inputs of mean 0 and variance 1, or clipped gradients"
