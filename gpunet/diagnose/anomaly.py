"""``diagnose.AnomalyFinder``: find the first op whose result is infinite or NaN, cheaply enough to be left on.

In each step one launch looks at the gradients before the optimizer moves.  Only if one is not finite, forward and backward run
again, launch by launch, with the weights and the inputs of that step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy

from gpunet import nn
from gpunet.autograd import Tensor, enable_grad, engine, make_tensor, no_grad
from gpunet.autograd.graph import Node
from gpunet.backend import devices
from gpunet.backend.dtypes import float32, float64, is_floating
from gpunet.captured.ir import tree_leaves
from gpunet.diagnose.arguments import check_every, check_model
from gpunet.diagnose.launches import Observer
from gpunet.errors import ArgumentError, GradientError
from gpunet.launch.kernel import Kernel
from gpunet.launch.shims import Shim
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active, record, unrecorded, user_line
from gpunet.nn.utils import get_total_norm
from gpunet.optim import Optimizer
from gpunet.train.callbacks import Callback
from gpunet.train.keeping import everything_kept

__all__ = ["Anomaly", "AnomalyFinder"]


@dataclass(frozen=True)
class Range:
    """The values of an array: the least and the largest finite one, and how many are not finite."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    num_nan: int
    num_infinite: int

    @classmethod
    def of(cls, array: Any, name: str = "") -> Range:
        values = numpy.asarray(devices.to_host(array)).astype(numpy.float64).reshape(-1)
        finite = values[numpy.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
        return cls(name, tuple(array.shape), low, high, int(numpy.isnan(values).sum()), int(numpy.isinf(values).sum()))

    @property
    def is_finite(self) -> bool:
        return not self.num_nan and not self.num_infinite

    def __str__(self) -> str:
        parts = [] if math.isnan(self.low) else [f"{self.low:.4g} to {self.high:.4g}"]
        parts += [f"{count} {word}" for count, word in ((self.num_nan, "NaN"), (self.num_infinite, "infinite")) if count]
        return f"{self.name} {' × '.join(map(str, self.shape)) or 'scalar'}: {', '.join(parts) or 'empty'}".strip()


@dataclass(frozen=True)
class Anomaly:
    """The first result that is infinite or NaN.

    Attributes:
        step: the step, from 1.
        where: "forward", "backward", "loss", "input" or "parameter"; "unknown" if it did not occur again.
        op: the function that the user called, "" if none is to blame.
        layer: the module that it ran in, such as "layers.2 (Linear)", or the name of the parameter; "" if it ran in none.
        line: the user's line, "" in a backward pass.
        inputs: the ranges of the inputs of the op.
        text: all of this in words.
    """

    step: int
    where: str
    op: str
    layer: str
    line: str
    inputs: tuple[Range, ...]
    text: str

    def __str__(self) -> str:
        return self.text


class AnomalyFinder(Callback):
    """Find the first op whose result is infinite or NaN, and stop before it reaches the weights.

        with diagnose.AnomalyFinder(model, optimizer) as finder:
            for x, y in batches:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                finder.step()

    It is also a callback: ``Trainer(..., callbacks=[AnomalyFinder(model, optimizer)])``, also with captured steps.  On the CPU
    ``optimizer.step()`` itself raises, before it changes a weight.  ``optimizer.step(closure)`` raises behind the call of the
    closure that computed the gradients, with the weights of that call; a line search tries several.  On a GPU nothing waits: from
    the first bad step on the optimizer's launches change nothing, and :meth:`step` raises, at the latest after ``every`` steps.
    Then forward and backward run again with the inputs and the gradient of the output of the bad step; on a GPU those are of the
    last step that ran.  Dropout draws other numbers then.  The weights, buffers and gradients stay those of the bad step.

    Gradients under a GradScaler are not looked at: they overflow as a matter of course, and it skips those steps.

    Args:
        model: the network.
        optimizer: of its parameters.
        every: on a GPU, read after so many steps whether there was an anomaly.

    Attributes:
        anomaly: see :class:`Anomaly`; None so far.

    Raises:
        ArgumentError: an argument is of the wrong kind, or of an optimizer that decides on the host whether it steps, on a GPU.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, every: int = 10) -> None:
        check_model(model, "AnomalyFinder")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"AnomalyFinder: optimizer is a {type(optimizer).__name__}; expected an Optimizer")
        check_every(every, "AnomalyFinder")
        self.model, self.optimizer, self.every = model, optimizer, every
        self.anomaly: Anomaly | None = None
        self.num_steps = 0
        self._handles: list[Any] = []
        self._inputs: tuple[Any, dict[str, Any]] = (), {}  # of the last run
        self._gradients: dict[Any, Tensor] = {}  # copies of the gradient of the output, by shape
        self._gradient: Tensor | None = None  # the last of them
        self._flags: Any = None  # on the device: whether there was an anomaly, and the number of steps before it
        self._is_skipping = False
        self._is_busy = False  # with the second run

    # -- hooks
    def __enter__(self) -> AnomalyFinder:
        if not self._handles:
            self._handles = [
                self.model.register_forward_pre_hook(self._on_inputs, with_kwargs=True),
                self.model.register_forward_hook(self._on_output),
                self.optimizer.register_step_pre_hook(self._before_step),
                self.optimizer.register_step_post_hook(self._after_step),
            ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._inputs, self._gradient = ((), {}), None
        self._gradients.clear()

    def on_start(self, trainer: Any) -> None:
        """Watch a Trainer's steps.

        Raises:
            ArgumentError: the Trainer has another network or optimizer.
        """
        if trainer.model is not self.model or trainer.optimizer is not self.optimizer:
            raise ArgumentError("AnomalyFinder: the Trainer has another network or optimizer; pass the same ones to both")
        self.num_steps = trainer.step
        self.__enter__()

    def on_step(self, trainer: Any) -> None:
        self.step()

    def on_end(self, trainer: Any) -> None:
        self.__exit__()

    def _on_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._is_busy:
            self._inputs = args, kwargs

    def _on_output(self, module: nn.Module, args: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if not self._is_busy and tensor is not None and tensor.requires_grad:
            tensor.register_hook(self._on_gradient)

    def _on_gradient(self, gradient: Tensor) -> None:
        key = tuple(gradient.shape), gradient.dtype, gradient.device
        kept = self._gradients.get(key)
        if kept is None:
            with unrecorded():
                kept = self._gradients[key] = make_tensor(devices.zeros(*key))
        rely_on([kept])
        with no_grad():
            kept.copy_(gradient.detach())
        self._gradient = kept

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """The step pre-hook: check the gradients now, or behind each call of a closure, which computes them."""
        if optimizer._skip is not None:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._check_gradients(optimizer, is_first=True)
            return None
        calls = itertools.count()

        def checked() -> Any:
            loss = closure()
            self._check_gradients(optimizer, is_first=not next(calls))
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": checked}
        return (args[0], checked, *args[2:]), kwargs

    def _check_gradients(self, optimizer: Optimizer, is_first: bool) -> None:
        """Stop, or on a GPU skip the step, if a gradient is not finite; the first check of a step counts it."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return
        device = gradients[0].device
        if self._flags is None:
            with unrecorded():
                self._flags = make_tensor(devices.zeros((2,), float64, device))
                self._flags[1] = float(self.num_steps)
        rely_on([self._flags])
        if device.type != "cuda":
            _STOP(self._flags.array, *(gradient.array for gradient in gradients), finder=self, is_first=is_first)
            return
        if not optimizer.skips_on_device:
            raise ArgumentError(
                f"AnomalyFinder: {type(optimizer).__name__} has a step of its own, which cannot be skipped on {device}; use "
                "gpunet.autograd.detect_anomaly()"
            )
        with no_grad():
            largest = get_total_norm(gradients, math.inf)
            found = self._flags[:1]
            is_bad = (largest - largest != 0.0).to(float64).reshape(1)
            found.copy_(found + is_bad - found * is_bad)
            if is_first:
                self._flags[1:].add_(1.0 - found)
        optimizer._skip, self._is_skipping = found.array, True

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._is_skipping:
            optimizer._skip, self._is_skipping = None, False

    def step(self) -> None:
        """On a GPU, read whether there was an anomaly; call it behind ``optimizer.step()``.

        Raises:
            GradientError: there was one; the message names step, op, layer and the range of the input.
        """
        self.num_steps += 1
        if self._flags is not None and self._flags.device.type == "cuda" and self.num_steps % self.every == 0:
            found, before = (float(value) for value in devices.to_host(self._flags.array))
            if found:
                self.report(int(before) + 1)

    # -- the second run
    def report(self, step: int) -> None:
        """Examine a step.

        Raises:
            GradientError: always, with the text of :attr:`anomaly`.
        """
        with unrecorded():
            self.anomaly = self._examine(step)
        raise GradientError(str(self.anomaly))

    def _examine(self, step: int) -> Anomaly:
        """Run forward and backward again, and find the first launch that makes numbers that are not finite of finite ones."""
        args, kwargs = self._inputs
        given = [Range.of(t.array, f"input {at}") for at, t in enumerate([*args, *kwargs.values()]) if _is_real(t)]
        search = _Search(self.model)
        self._is_busy = True
        try:
            with everything_kept([self.model], []), enable_grad(), search.observing():
                output = _first_tensor(self.model(*args, **kwargs))
                search.end_of_forward(output)
                if search.found is None and output is not None and self._gradient is not None:
                    passed = Range.of(self._gradient.array, "gradient of the output")
                    if passed.is_finite and output.shape == self._gradient.shape:
                        output.backward(self._gradient)
                    elif Range.of(output.array).is_finite:
                        return _of_loss(step, Range.of(output.array, "output of the network"), passed)
        finally:
            self._is_busy = False
        if search.found is not None:
            return search.found.anomaly(step)
        for name, p in self.model.named_parameters():
            values = Range.of(p.array, name)
            if not values.is_finite:
                return Anomaly(step, "parameter", "", name, "", (values,), f"step {step}: a parameter is not finite: {values}")
        bad = [values for values in given if not values.is_finite]
        if bad:
            text = f"step {step}: the input of the network is not finite: {'; '.join(map(str, bad))}. Look at the data of the batch"
            return Anomaly(step, "input", "", "", "", tuple(bad), text)
        graded = [(name, p.grad) for name, p in self.model.named_parameters() if p.grad is not None]
        names = [name for name, gradient in graded if not Range.of(gradient.array).is_finite]
        others = " and others" if len(names) > 3 else ""
        what = f"the gradients of {', '.join(names[:3])}{others} are" if names else "a gradient was"
        text = f"step {step}: {what} not finite, and forward and backward of the last batch do not show why; inputs: "
        text += "; ".join(map(str, given)) or "none"
        return Anomaly(step, "unknown", "", "", "", tuple(given), text)


def _of_loss(step: int, output: Range, gradient: Range) -> Anomaly:
    text = f"step {step}: the loss or its derivative is not finite, though the output of the network is. {output}; {gradient}"
    return Anomaly(step, "loss", "", "", "", (output, gradient), text)


def _stop(xp: Any, flags: Any, *gradients: Any, finder: AnomalyFinder, is_first: bool) -> None:
    """Count a step at its first check; raise if a gradient is not finite."""
    if not all(map(_is_finite, gradients)):
        finder.report(int(devices.to_host(flags)[1]) + is_first)
    flags[1] += float(is_first)


def _is_finite(gradient: Any) -> bool:
    values = numpy.asarray(devices.to_host(gradient)).reshape(-1)
    if values.dtype in (float32, float64):  # one pass without a temporary; of large numbers the squares may overflow
        with numpy.errstate(all="ignore"):
            if math.isfinite(numpy.dot(values, values)):
                return True
    return bool(numpy.isfinite(values).all())


#: A launch before those of the optimizer, so that a captured step contains it.  It writes to memory from outside of the step, since
#: launches whose results nothing reads are dropped.
_STOP = Shim("stop_unless_finite", _stop, widens=False, reads_values=True)


def _first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in a network's output."""
    return next(tree_leaves(value, _is_real), None)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and is_floating(value.dtype)


@dataclass
class _Suspect:
    """A launch whose inputs are finite and whose results are not."""

    kernel: str
    line: str
    is_backward: bool
    number: int  # of the node that is made next
    inputs: tuple[Range, ...]
    result: Range
    op: str = ""
    layer: str = ""

    def anomaly(self, step: int) -> Anomaly:
        where = "backward" if self.is_backward else "forward"
        op = self.op or self.kernel
        place = f" in {self.layer}" if self.layer else ""
        at = "" if self.is_backward or not self.line else f", at {self.line}"
        got = "; ".join(map(str, self.inputs)) or "no tensors"
        subject = f"the backward of {op}" if self.is_backward else op
        text = f"step {step}: {subject}{place} is the first to return numbers that are not finite{at}. It got {got}; "
        text += f"the result is {self.result}"
        return Anomaly(step, where, op, self.layer, self.line if not self.is_backward else "", self.inputs, text)


class _Search(Observer):
    """Runs launches one by one until one makes numbers that are not finite of finite ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: _Suspect | None = None
        self._model = model
        self._names = {id(module): f"{name or 'the network'} ({type(module).__name__})" for name, module in model.named_modules()}
        self._running: list[tuple[int, str]] = []  # the modules that run, the innermost last, with the node number at the start
        self._spans: list[tuple[int, int, str]] = []  # numbers of the nodes that a module has made, inner modules first
        self._is_backward = False

    @contextmanager
    def observing(self) -> Iterator[None]:
        handles = []
        for module in self._model.modules():
            handles.append(module.register_forward_pre_hook(lambda module, args: self._begin(module)))
            handles.append(module.register_forward_hook(lambda module, args, output: self._end(module)))
        before, engine.inspect_gradients = engine.inspect_gradients, self._on_node
        try:
            with record(self):
                yield
        finally:
            engine.inspect_gradients = before
            for handle in handles:
                handle.remove()

    def _begin(self, module: nn.Module) -> None:
        self._running.append((next(Node._sequence), self._names[id(module)]))

    def _end(self, module: nn.Module) -> None:
        first, name = self._running.pop()
        self._spans.append((first, next(Node._sequence), name))

    def observe(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.found is not None:
            kernel.launch(arrays, options)
            return
        names = kernel.parameters if isinstance(kernel, Kernel) else [""] * len(arrays)
        updates = kernel.updates if isinstance(kernel, Kernel) else frozenset()
        scratch = kernel.workspace if isinstance(kernel, Kernel) else frozenset()
        named = [*zip(names, arrays)]
        inputs = _ranges([pair for at, pair in enumerate(named) if at >= kernel.outputs or pair[0] in updates])
        numbers = [v for v in (*arrays, *options.values()) if isinstance(v, (float, numpy.floating))]
        kernel.launch(arrays, options)
        if all(r.is_finite for r in inputs) and all(map(math.isfinite, numbers)):
            results = _ranges([pair for pair in named[: kernel.outputs] if pair[0] not in scratch])
            bad = next((r for r in results if not r.is_finite), None)
            if bad is not None:
                self.found = _Suspect(kernel.name, user_line(), self._is_backward, next(Node._sequence), tuple(inputs), bad)
                if not self._is_backward and self._running:
                    self.found.layer = self._running[-1][1]

    def end_of_forward(self, output: Tensor | None) -> None:
        """Name the op of the launch that was found in forward: the first node that was made behind it."""
        self._is_backward = True
        if self.found is None or output is None:
            return
        nodes, seen, best = [output._node], set(), None
        while nodes:
            node = nodes.pop()
            if type(node) is not Node or node in seen:
                continue
            seen.add(node)
            nodes += [edge[0] for edge in node.edges if edge is not None]
            if node.sequence > self.found.number and (best is None or node.sequence < best.sequence):
                best = node
        if best is not None:
            self.found.op = best.public_name

    def _on_node(self, node: Node, gradients: Any) -> None:
        """Name op and layer of the launch that was found while the backward of this node ran."""
        if active.tape is self and self.found is not None and self.found.is_backward and not self.found.op:
            self.found.op = node.public_name
            self.found.layer = next((name for first, last, name in self._spans if first < node.sequence < last), "")


def _ranges(named: list[tuple[str, Any]]) -> list[Range]:
    """The ranges of the floating arrays, also in lists."""
    flat = [(name, a) for name, array in named for a in (array if isinstance(array, list) else [array])]
    return [Range.of(a, name) for name, a in flat if devices.is_array(a) and is_floating(a.dtype)]
