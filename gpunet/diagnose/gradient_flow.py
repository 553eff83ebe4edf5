"""Gradient flow: what activations, gradients, weights and updates of each layer do while a network trains."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from gpunet import nn
from gpunet.autograd import Tensor, is_grad_enabled, make_tensor, no_grad
from gpunet.autograd.graph import Node
from gpunet.backend import devices
from gpunet.backend.dtypes import float64, is_floating
from gpunet.captured.ir import tree_leaves
from gpunet.diagnose.arguments import check_every, check_model
from gpunet.diagnose.verdict import SATURATED_SLOPE, Flow, Verdict, judge
from gpunet.errors import ArgumentError, GradientError
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import unrecorded
from gpunet.nn.activation import ActivationModule
from gpunet.nn.utils import get_total_norm
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.join import cat
from gpunet.train.callbacks import Callback
from gpunet.train.drawing import subplots

__all__ = ["GradientFlow"]

#: The slope of bounded activations relative to the largest, from the output.
SLOPES: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda y: 1.0 - y * y,
    "sigmoid": lambda y: 4.0 * y * (1.0 - y),
    "softsign": lambda y: (1.0 - y.abs()) ** 2,
    "hardsigmoid": lambda y: ((y > 0.0) & (y < 1.0)).to(y.dtype),
}  # fmt: skip
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Functions through which an activation reaches the next layer with values of its own.
_PASSING = ("reshape", "view", "flatten", "max_pool1d", "max_pool2d", "max_pool3d")
#: The figures of a layer that are one number; the largest activation of each unit follows.  All are at least 0.
_OUTPUT, _GRADIENT, _SATURATED, _SAMPLES = range(4)
_MISSING = -1.0  # of a layer that does not run in a step
_NO_NODE = -1  # of an activation that needs no gradient: any later layer may read it


class _Layer:
    """A module with weights, and where its figures of a step are."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module
        self.weights = [p for p in module._parameters.values() if p is not None and p.ndim >= 2]
        self.order = -1  # of execution
        self.activation, self.has_activation_module = "", False
        self.activation_node: int | None = None  # its sequence number in this step's graph
        self.is_read = False  # whether a later layer reads the activation; otherwise it belongs to the loss, and may saturate
        self.figures: Any = None  # a tensor
        self.num_units = 0
        self.last_alive: numpy.ndarray | None = None

    def num_samples(self, shape: tuple[int, ...]) -> int:
        """The samples in an activation behind this layer; the positions of an image are too much alike to count."""
        dim, count = self.units(shape)
        return shape[0] if dim != len(shape) - 1 else math.prod(shape) // max(count, 1)

    def units(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The dimension of the units, and their number, of an output of this layer, or of an activation behind it."""
        dim = 1 if isinstance(self.module, CONVOLUTIONS) and len(shape) > 2 else len(shape) - 1
        return dim, shape[dim]


class GradientFlow(Callback):
    """Record activations, gradients and updates of each layer while a network trains, and judge them.

        with diagnose.GradientFlow(model) as flow:
            for x, y in batches:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                flow.step()
        print(flow.verdict())
        flow.plot("flow.png")

    It is also a callback: ``Trainer(..., callbacks=[flow])`` records by itself, also in captured steps, whose recording then
    contains what it computes.  Layers are the modules with weights of two or more dimensions, numbered in the order in which they
    run.  The activation behind a layer may be a module, or a function whose result, or the reshaped or max-pooled result, is the
    input of the next layer.  Of a layer that runs several times in a step, the output is that of the last run, and the gradient
    that of the first.

    While it records, the modules of a Sequential run one by one, so that results may differ in the last bits.

    Args:
        model: the network.
        every: record each so many steps; the others run almost without cost.

    Attributes:
        steps: the numbers of the recorded steps, from 1.

    Raises:
        ArgumentError: the network has no layer with weights, or ``every`` is not a positive integer.
    """

    def __init__(self, model: nn.Module, *, every: int = 1) -> None:
        check_model(model, "GradientFlow")
        check_every(every, "GradientFlow")
        self.model, self.every = model, every
        named = ((name or type(module).__name__, module) for name, module in model.named_modules())
        self._layers = [layer for name, module in named if (layer := _Layer(name, module)).weights]
        if not self._layers:
            raise ArgumentError("GradientFlow: the network has no layer with weights of two or more dimensions")
        self.steps: list[int] = []
        self._num_steps = 0
        self._rows: list[numpy.ndarray] = []  # of each recorded step: (layers, 7)
        self._before: list[Tensor] = []  # copies of the weights before a step that is recorded
        self._handles: list[Any] = []
        self._latest: _Layer | None = None  # that has run
        self._run: list[_Layer] = []  # in this step, in order
        # sequence numbers of nodes of this step's graph, which they do not keep alive
        self._seen: set[int] = set()  # of those whose results reach the input of a layer
        self._makers: dict[int, _Layer] = {}  # of the outputs of layers
        self._is_due = False

    # -- recording
    def __enter__(self) -> GradientFlow:
        if not self._handles:
            layers = {id(layer.module): layer for layer in self._layers}
            for module in self.model.modules():
                if layer := layers.get(id(module)):
                    self._handles.append(module.register_forward_hook(partial(self._on_layer, layer), with_kwargs=True))
                elif isinstance(module, ActivationModule):
                    self._handles.append(module.register_forward_hook(self._on_activation))
            self._prepare()
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._before = []
        self._forget_graph()

    def on_start(self, trainer: Any) -> None:
        """Start to record a Trainer's steps.

        Raises:
            ArgumentError: the Trainer has another network.
        """
        if trainer.model is not self.model:
            raise ArgumentError("GradientFlow: the Trainer trains another network; pass GradientFlow(model) the same one")
        self._num_steps = trainer.step
        self.__enter__()

    def on_step(self, trainer: Any) -> None:
        self.step()

    def on_end(self, trainer: Any) -> None:
        self.__exit__()

    def step(self) -> None:
        """Record a step: call it behind ``optimizer.step()``, before the next ``zero_grad()``.

        Raises:
            GradientError: there are no gradients, or the network has not run since the last call.
        """
        if not self._handles:
            raise GradientError("GradientFlow.step: it is not recording; call it inside of 'with GradientFlow(model) as flow:'")
        self._num_steps += 1
        if self._is_due:
            if all(p.grad is None for layer in self._layers for p in layer.weights):
                raise GradientError(
                    "GradientFlow.step: no layer has a gradient; call step() behind optimizer.step(), and zero_grad() after it"
                )
            if all(layer.figures is None for layer in self._layers):
                raise GradientError("GradientFlow.step: the network did not run inside of 'with GradientFlow(model) as flow:'")
            self._keep()
        self._prepare()

    def _prepare(self) -> None:
        """Look whether the next step is recorded."""
        self._is_due = (self._num_steps + 1) % self.every == 0
        self._latest, self._run, self._before = None, [], []
        self._forget_graph()
        if self._is_due:
            with no_grad():
                self._before = [p.clone() for layer in self._layers for p in layer.weights]
                for layer in self._layers:
                    if layer.figures is not None:
                        layer.figures.fill_(_MISSING)

    def _forget_graph(self) -> None:
        self._seen, self._makers = set(), {}
        for layer in self._layers:
            layer.activation_node = None

    def _is_recording(self, output: Any) -> bool:
        rely_on([], "{}._is_due is {}", (self, self._is_due), "whether GradientFlow records the step")
        return self._is_due and is_grad_enabled() and isinstance(output, Tensor) and is_floating(output.dtype)

    def _on_layer(self, layer: _Layer, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """The forward hook of a layer."""
        if isinstance(output, (tuple, list)) and output:  # of recurrent layers and attention
            output = output[0]
        if not self._is_recording(output):
            return
        if self._latest is not None and args and isinstance(args[0], Tensor):
            name, node = _activation_before(args[0])
            source = self._maker_of(node) or self._latest
            if name and not source.has_activation_module:
                self._write_activation(source, name, args[0].detach(), node)
        self._mark_read([value._node for value in tree_leaves((args, kwargs), Tensor)])
        self._latest = layer
        if isinstance(output._node, Node):
            self._makers[output._node.sequence] = layer
        if layer not in self._run:
            layer.order = max(layer.order, len(self._run))
            self._run.append(layer)
        with no_grad():
            self._write(layer, _OUTPUT, _mean_square(output.detach()).sqrt(), output)
        if output.requires_grad:
            output.register_hook(partial(self._on_gradient, layer))

    def _on_gradient(self, layer: _Layer, gradient: Tensor) -> None:
        with no_grad():
            values = gradient.detach().to(float64)
            self._write(layer, _GRADIENT, (values * values).sum().sqrt(), gradient)

    def _on_activation(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook of an activation."""
        if self._latest is not None and self._is_recording(output):
            layer = self._maker_of(output._node) or self._latest
            layer.has_activation_module = True
            self._write_activation(layer, module.name, output.detach(), output._node)

    def _maker_of(self, node: Any) -> _Layer | None:
        """The layer of whose output alone an activation, by its node, is a function, also through norms; None if unknown."""
        while isinstance(node, Node):
            if node.sequence in self._makers:
                return self._makers[node.sequence]
            below = [edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node)]
            node = below[0] if len(below) == 1 else None
        return None

    def _mark_read(self, nodes: list[Any]) -> None:
        """Mark the activations that the inputs of a layer, by their nodes, depend on; each node is visited once in a step."""
        while nodes:
            node = nodes.pop()
            if isinstance(node, Node) and node.sequence not in self._seen:
                self._seen.add(node.sequence)
                nodes += [edge[0] for edge in node.edges if edge is not None]
        for layer in self._run:
            layer.is_read = layer.is_read or layer.activation_node in self._seen or layer.activation_node == _NO_NODE

    def _write_activation(self, layer: _Layer, name: str, output: Any, node: Any) -> None:
        """Write the figures of an activation behind a layer; ``node`` is the activation's, None if it needs no gradient."""
        layer.activation, layer.activation_node = name, node.sequence if isinstance(node, Node) else _NO_NODE
        slope = SLOPES.get(name)
        with no_grad():
            if slope is not None:
                share = (slope(output.to(float64)) < SATURATED_SLOPE).to(float64).mean()
                self._write(layer, _SATURATED, share, output)
            dim, count = layer.units(tuple(output.shape))
            rely_on([layer.figures])
            layer.figures[_SAMPLES].fill_(float(layer.num_samples(tuple(output.shape))))
            if output.ndim > 1 and count == layer.num_units:
                largest = output.abs().amax(dim=[d for d in range(output.ndim) if d != dim])
                layer.figures[_SAMPLES + 1 :].copy_(largest.to(float64))

    def _write(self, layer: _Layer, part: int, value: Any, like: Tensor) -> None:
        """Write a number of a step into the memory of the layer, which a captured step writes to at each replay."""
        if layer.figures is None:
            with unrecorded():
                layer.num_units = layer.units(tuple(like.shape))[1]
                layer.figures = make_tensor(devices.zeros((_SAMPLES + 1 + layer.num_units,), float64, like.device))
                layer.figures.fill_(_MISSING)
        rely_on([layer.figures])
        layer.figures[part].copy_(value)

    def _keep(self) -> None:
        """Keep the figures of this step."""
        before = iter(self._before)
        with no_grad():
            tensors: list[Any] = []
            for layer in self._layers:
                for p in layer.weights:
                    weight = next(before)
                    tensors += [weight, p.grad, p.detach() - weight]
            figures = [layer.figures for layer in self._layers if layer.figures is not None]
            read = iter(_read([*map(_norm, tensors), *figures]))
            norms = [_exact(float(next(read)[0]), tensor) for tensor in tensors]
        row, norms_of = numpy.full((len(self._layers), 7), numpy.nan), iter(norms)
        for at, layer in enumerate(self._layers):
            found = numpy.array([[next(norms_of) for _ in range(3)] for _ in layer.weights])
            size, gradient, change = (_together(column) for column in found.T)
            row[at, :3] = size, gradient, change / size if size and size != numpy.inf else numpy.nan
            if layer.figures is None:
                continue
            values = _numbers(next(read))
            row[at, 3:], largest = values[: _SAMPLES + 1], values[_SAMPLES + 1 :]
            if layer.activation and not numpy.isnan(largest).all():
                if layer.last_alive is None:
                    layer.last_alive = numpy.full(layer.num_units, -1)
                layer.last_alive[largest != 0.0] = len(self.steps)
        self.steps.append(self._num_steps)
        self._rows.append(row)

    # -- results
    def flow(self) -> Flow:
        """Return what was recorded, as arrays."""
        layers = sorted((at for at, layer in enumerate(self._layers) if layer.order >= 0), key=lambda at: self._layers[at].order)
        chosen = [self._layers[at] for at in layers]
        rows = numpy.array(self._rows).reshape(len(self._rows), len(self._layers), 7)[:, layers]
        _, gradients, updates, outputs, passed, saturated, samples = numpy.moveaxis(rows, 2, 0)
        has_norms = any(isinstance(module, NORMS) for module in self.model.modules())
        is_judged = numpy.array([layer.is_read for layer in chosen], bool)
        return Flow(
            [layer.name for layer in chosen], [layer.activation for layer in chosen], has_norms, self.steps, outputs,
            passed, gradients, updates,
            numpy.where(is_judged, saturated, numpy.nan), samples,
            [layer.last_alive if layer.is_read else None for layer in chosen],
        )  # fmt: skip

    def verdict(self) -> Verdict:
        """Judge the recorded steps.

        Dead units, saturation and vanishing are judged on the second half of the recorded steps; the thresholds, with their
        reasons, stand in ``gpunet/diagnose/verdict.py``.

        Raises:
            GradientError: no step is recorded.
        """
        if not self.steps:
            raise GradientError(f"GradientFlow.verdict: no step is recorded; every={self.every}, {self._num_steps} steps ran")
        return judge(self.flow())

    def __str__(self) -> str:
        """A table with a row for each layer: medians of the second half of the recorded steps."""
        if not self.steps:
            return "no step is recorded"
        flow = self.flow()
        columns = [flow.median(f) for f in (flow.outputs, flow.gradients, flow.weight_gradients, flow.updates, flow.saturated)]
        columns.append(flow.dead())
        width = max(len(name) for name in (*flow.names, "layer"))
        lines = [f"{'':>3} {'layer':{width}} {'activation':>11} {'output':>9} {'gradient':>9} {'of weight':>9} {'update':>9} "
                 f"{'saturated':>9} {'dead':>6}"]  # fmt: skip
        for at, (name, activation) in enumerate(zip(flow.names, flow.activations)):
            numbers = " ".join(f"{'' if numpy.isnan(c[at]) else f'{c[at]:.2e}':>9}" for c in columns[:4])
            shares = [("" if numpy.isnan(c[at]) else f"{c[at]:.0%}") for c in columns[4:]]
            lines.append(f"{at + 1:3} {name:{width}} {activation:>11} {numbers} {shares[0]:>9} {shares[1]:>6}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw gradients, outputs, updates, and the shares of dead and saturated units, of each layer.

        Args:
            path: write the figure there, too, as PNG, PDF or SVG by its extension.

        Returns:
            A figure of matplotlib.

        Raises:
            GradientError: no step is recorded.
            MissingDependencyError: matplotlib is not installed.
        """
        verdict, flow = self.verdict(), self.flow()
        figure, axes = subplots(4)
        numbers = numpy.arange(1, len(flow.names) + 1)
        drawn = (("norm of the gradient of the output", flow.gradients), ("size of the output (rms)", flow.outputs),
                 ("update / weight", flow.updates))  # fmt: skip
        from matplotlib import colormaps

        colors = colormaps["viridis"](numpy.linspace(0.0, 0.9, len(numbers)))
        for place, (title, values) in zip(axes, drawn):
            for at in numbers - 1:
                shown = numpy.where(numpy.isfinite(values[:, at]) & (values[:, at] > 0.0), values[:, at], numpy.nan)
                marker = "o" if len(flow.steps) == 1 else None
                place.plot(flow.steps, shown, color=colors[at], marker=marker, label=f"{at + 1} {flow.names[at]}")
            place.set_yscale("log")
            place.set_title(title)
            place.set_xlabel("step")
            place.grid(alpha=0.3)
        if len(numbers) <= 12:
            axes[0].legend(fontsize="x-small", title="layer", title_fontsize="x-small")
        axes[3].bar(numbers - 0.2, numpy.nan_to_num(flow.dead()), 0.4, label="dead")
        axes[3].bar(numbers + 0.2, numpy.nan_to_num(flow.median(flow.saturated)), 0.4, label="saturated")
        axes[3].set_ylim(0.0, 1.0)
        axes[3].set_title("share of units")
        axes[3].set_xlabel("layer")
        axes[3].legend()
        figure.suptitle(verdict.findings[0].text if verdict.findings else "healthy", fontsize="medium")
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


def _activation_before(input: Tensor) -> tuple[str, Any]:
    """The name of the function of an activation whose values a tensor has, and its node; "" and None if there is none."""
    node = input._node
    while node is not None and hasattr(node, "public_name"):
        name = node.public_name
        if name in ACTIVATIONS and name != "identity":
            return str(name), node
        if name not in _PASSING or not node.edges or node.edges[0] is None:
            break
        node = node.edges[0][0]
    return "", None


def _mean_square(values: Any) -> Any:
    values = values.to(float64)
    return (values * values).mean()


def _norm(values: Any) -> Any:
    """The norm of a weight or a gradient, by one launch, as a float64 vector of one element; None of None."""
    return None if values is None else get_total_norm([values]).to(float64).reshape(1)


def _exact(norm: float, values: Any) -> float:
    """The norm of a tensor, given what one launch found, whose squares may have overflowed or become 0."""
    if values is None or (norm > 0.0 and numpy.isfinite(norm)):
        return norm
    values = values.detach().to(float64)
    return float((values * values).sum().sqrt().item())


def _numbers(figures: numpy.ndarray) -> numpy.ndarray:
    """NaN in place of missing figures, and infinity in place of NaN: both are numbers that training cannot use."""
    return numpy.where(figures < 0.0, numpy.nan, numpy.where(numpy.isnan(figures), numpy.inf, figures))


def _together(norms: numpy.ndarray) -> float:
    """The norm of all tensors of a layer; NaN if none is there."""
    norms = _numbers(norms)
    with numpy.errstate(over="ignore"):
        return numpy.nan if numpy.isnan(norms).all() else float(numpy.sqrt(numpy.nansum(norms**2)))


def _read(parts: list[Any]) -> list[numpy.ndarray]:
    """Return the values of vectors, with one wait for each device; missing ones for None."""
    places: dict[Any, list[int]] = {}
    for at, part in enumerate(parts):
        if part is not None:
            places.setdefault(part.device, []).append(at)
    read = [numpy.array([_MISSING])] * len(parts)
    for indices in places.values():
        flat = devices.to_host(cat([parts[at] for at in indices]).array)
        for at, values in zip(indices, numpy.split(flat, numpy.cumsum([len(parts[at]) for at in indices])[:-1])):
            read[at] = values
    return read
