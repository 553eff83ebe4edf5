"""Many nets as one module: parameters stacked along a first dimension, one launch for all nets."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, no_grad, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, ShapeError, StackError
from gpunet.launch.random import threshold_of
from gpunet.nn.activation import ActivationModule
from gpunet.nn.containers import Sequential
from gpunet.nn.layers import Dropout, Identity, Linear
from gpunet.nn.module import Module, Parameter
from gpunet.ops.broadcast import broadcast_to
from gpunet.ops.creation import as_tensor, zeros
from gpunet.ops.join import cat
from gpunet.ops.random import randint
from gpunet.ops.softmax import softmax
from gpunet.ops.stacked import shared_or_own, stacked_linear, stacked_mean
from gpunet.ops.stacked_dropout import stacked_drop

__all__ = ["Ensemble", "Stack"]


class Stack(Module):
    """Many nets as one module: one launch serves all nets, and each net has the same bits in every stack.

        nets = nn.Stack([nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(64)])
        optimizer = optim.StackAdam(nets, lr=numpy.geomspace(1e-4, 1e-1, 64))
        losses = nets.losses(nn.functional.cross_entropy, nets(x), y)  # (64,)
        losses.sum().backward()
        optimizer.step()

    The nets are :class:`Sequential`, also nested, of :class:`Linear`, activations such as :class:`ReLU`, :class:`Dropout` and
    :class:`Identity`, the same kinds in the same places.  Their hidden layers may have different widths and their dropout different
    probabilities; narrower layers are padded by zeros, which stay zeros.  No number of a net depends on another net: one that
    becomes NaN, or is stopped, changes no bit of the others.

    Args:
        nets: one net or more, whose parameters are copied.
        seeds: one for each net: the seed of its dropout; drawn from the default generator if None.

    Attributes:
        num_nets: the number of nets.
        active: int64 (nets,): 1 for a net that is trained, 0 for one that is stopped.

    Raises:
        StackError: the nets have modules that cannot be stacked, or differ in more than widths and dropout.
        ArgumentError: there is no net, or not one seed for each.
    """

    active: Tensor

    def __init__(self, nets: Sequence[Module], seeds: Sequence[int] | None = None) -> None:
        super().__init__()
        nets = list(nets)
        if not nets:
            raise ArgumentError("Stack: got no nets; expected one or more")
        if seeds is not None and len(seeds) != len(nets):
            raise ArgumentError(f"Stack: got {len(seeds)} seeds for {len(nets)} nets; expected one for each net")
        self.num_nets = len(nets)
        self._originals = _Originals(nets)
        rows = _same_places(nets)
        device, dtype = _common_device(rows)
        streams = _streams(self.num_nets, seeds)
        self._paths: list[str] = []
        last = [path for path, row in rows if isinstance(row[0], Linear)][-1]
        num_dropouts, mask = 0, None  # the mask of the features of the last linear layer so far
        for path, row in rows:
            first = row[0]
            if isinstance(first, Identity):
                continue
            if isinstance(first, Linear):
                layer: Module = _StackedLinear(row)
                widths = sorted({module.out_features for module in row})
                if path == last and len(widths) > 1:
                    raise StackError(f"Stack: the nets have {widths} outputs in {path!r}; expected the same number")
                mask = None if len(widths) == 1 else _mask(row, device, dtype)
            elif isinstance(first, Dropout):
                num_dropouts += 1  # the numbers from 0 on are those of weights that were drawn with the same seed
                counter = numpy.array([0, num_dropouts << 40], numpy.uint64)
                layer = _StackedDropout([module.p for module in row], streams + counter)
            else:
                layer = _StackedActivation(copy.deepcopy(first), mask)
            self._paths.append(path)
            self._add_at(path, layer.to(device))
        self.register_buffer("active", as_tensor(numpy.ones(self.num_nets, numpy.int64), device=device))

    def _add_at(self, path: str, layer: Module) -> None:
        """Add a layer under a path such as "1.0", so that the state has the keys of a net."""
        *parents, name = path.split(".")
        owner: Module = self
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, Module())
            owner = owner.get_submodule(parent)
        owner.add_module(name, layer)

    def forward(self, input: Any) -> Tensor:
        """Apply all nets.

        Args:
            input: (n, features) for all nets, or (nets, n, features), a batch for each.

        Returns:
            (nets, n, outputs).  In training mode the linear layers of stopped nets return zeros.

        Raises:
            ShapeError: the input has another shape.
        """
        x = wrap(input)
        if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[0] != self.num_nets):
            raise ShapeError(
                f"Stack: the input has shape {tuple(x.shape)}; expected (n, features), which all nets share, or "
                f"({self.num_nets}, n, features), a batch for each net"
            )
        active = self.active if self.training else None
        for path in self._paths:
            x = self.get_submodule(path)(x, active)
        return x

    def losses(self, function: Callable[..., Tensor], output: Any, target: Any, **options: Any) -> Tensor:
        """Return the mean loss of each net; its sum is what ``backward`` starts from.

        Args:
            function: a loss such as ``nn.functional.cross_entropy``, called with ``reduction="none"``.
            output: (nets, n, ...), of the stack.
            target: of a net, which all share, or (nets, ...), one for each.
            options: other arguments of the loss.

        Returns:
            (nets,), the means over all rows and outputs; NaN for stopped nets in training mode.

        Raises:
            ShapeError: the target fits neither way.
        """
        y, t = wrap(output), wrap(target)
        nets, n = self.num_nets, y.shape[1]
        own = y.ndim if is_floating(t.dtype) else y.ndim - 1  # dimensions of a target (nets, n, ...)
        if not (t.ndim == own and t.shape[:2] == (nets, n)) and not (t.ndim == own - 1 and t.shape[:1] == (n,)):
            raise ShapeError(
                f"Stack.losses: the output has shape {tuple(y.shape)}, the target {tuple(t.shape)} of {t.dtype}; expected a "
                f"target of {n} rows that all nets share, or one for each of the {nets} nets"
            )
        if t.ndim < own:
            t = broadcast_to(t, shape=(nets, *t.shape))
        each = function(y.reshape(nets * n, *y.shape[2:]), t.reshape(nets * n, *t.shape[2:]), reduction="none", **options)
        return stacked_mean(each.reshape(nets, -1), self.active if self.training else None)

    # -- stopped nets
    @no_grad()
    def _set_active(self, nets: Any, value: int) -> None:
        chosen = numpy.asarray(nets.tolist() if isinstance(nets, Tensor) else nets)
        if is_boolean(chosen.dtype):
            if chosen.shape != (self.num_nets,):
                raise ShapeError(f"Stack: got flags of shape {chosen.shape}; expected ({self.num_nets},), one for each net")
            chosen = numpy.flatnonzero(chosen)
        chosen = chosen.astype(numpy.int64).reshape(-1)
        if ((chosen < 0) | (chosen >= self.num_nets)).any():
            raise ArgumentError(f"Stack: no net {chosen.tolist()}; expected numbers from 0 to {self.num_nets - 1}")
        flags = devices.to_host(self.active.array).copy()
        flags[chosen] = value
        self.active.copy_(as_tensor(flags, device=self.active.device))

    def stop(self, nets: Any) -> None:
        """Stop training some nets: their parameters and the state of their optimizer stay as they are, bit by bit.

        Args:
            nets: their numbers, or a flag for each net, such as ``losses.isnan()``.
        """
        self._set_active(nets, 0)

    def resume(self, nets: Any) -> None:
        """Train nets again that were stopped; the argument is that of :meth:`stop`."""
        self._set_active(nets, 1)

    def is_active(self) -> numpy.ndarray:
        """Return which nets are trained, boolean (nets,)."""
        return devices.to_host(self.active.array) != 0

    # -- single nets
    @no_grad()
    def net(self, number: int) -> Sequential:
        """Return a copy of a net, with its present parameters."""
        found: Any = self._originals.copy_of(range(self.num_nets)[number])
        for path, layer in _leaves(found):
            if isinstance(layer, Linear):
                stacked: Any = self.get_submodule(path)
                layer.to(stacked.weight.device, stacked.weight.dtype)
                layer.weight.copy_(stacked.weight[number, : layer.out_features, : layer.in_features])
                if layer.bias is not None:
                    layer.bias.copy_(stacked.bias[number, : layer.out_features])
        found.train(self.training)
        return found

    def extra_repr(self) -> str:
        return f"num_nets={self.num_nets}"


class Ensemble(Module):
    """The mean and the spread of the predictions of several nets (Lakshminarayanan et al. 2017).

    Args:
        nets: a :class:`Stack`.
        probabilities: average the softmax of the outputs, as of classifiers, instead of the outputs.
        chosen: the numbers of the nets that take part; all if None.

    Raises:
        ArgumentError: there is no such net.
    """

    def __init__(self, nets: Stack, probabilities: bool = False, chosen: Sequence[int] | None = None) -> None:
        super().__init__()
        self.nets, self.probabilities = nets, probabilities
        numbers = [*range(nets.num_nets)] if chosen is None else [int(number) for number in chosen]
        if not numbers or not all(0 <= number < nets.num_nets for number in numbers):
            raise ArgumentError(f"Ensemble: chosen={chosen}; expected one number or more from 0 to {nets.num_nets - 1}")
        self.chosen = numbers

    def forward(self, input: Any) -> tuple[Tensor, Tensor]:
        """Return (mean, spread), (n, outputs) each: the standard deviation over the nets, 0 for one net."""
        outputs = self.nets(input)
        if len(self.chosen) < self.nets.num_nets:
            outputs = cat([outputs[number : number + 1] for number in self.chosen])
        if self.probabilities:
            outputs = softmax(outputs, -1)
        mean = outputs.mean(0)
        return mean, ((outputs - mean) ** 2).mean(0).sqrt()


# ---- what a stack consists of ---------------------------------------------------------------------------------------------


class _Originals:
    """Copies of the nets that a stack was made of; no module, so that recorded steps do not look into it."""

    def __init__(self, nets: Sequence[Module]) -> None:
        self._nets = [copy.deepcopy(net) for net in nets]

    def copy_of(self, number: int) -> Module:
        return copy.deepcopy(self._nets[number])


class _StackedLinear(Module):
    """The linear layers of all nets: weight (nets, o, i), bias (nets, o) or None, padded by zeros."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        first = layers[0]
        outputs, inputs = max(x.out_features for x in layers), max(x.in_features for x in layers)
        self.weight = Parameter(_padded([x.weight for x in layers], (outputs, inputs)), first.weight.requires_grad)
        if first.bias is None:
            self.register_parameter("bias", None)
        else:
            self.bias = Parameter(_padded([x.bias for x in layers], (outputs,)), first.bias.requires_grad)

    def forward(self, input: Tensor, active: Tensor | None) -> Tensor:
        x = shared_or_own(input if input.dtype == self.weight.dtype else input.to(self.weight.dtype), len(self.weight))
        if x.shape[-1] != self.weight.shape[2]:
            raise ShapeError(f"Stack: the input has {x.shape[-1]} features; expected {self.weight.shape[2]}")
        return stacked_linear(x, self.weight, self.bias, active)

    def extra_repr(self) -> str:
        nets, outputs, inputs = self.weight.shape
        return f"num_nets={nets}, in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


class _StackedActivation(Module):
    """An activation, and a mask (nets, 1, features) of the features that a net has; None if all have the same."""

    def __init__(self, activation: Module, mask: Tensor | None) -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor, active: Tensor | None) -> Tensor:
        y: Tensor = self.activation(input)
        return y if self.mask is None else y * self.mask


class _StackedDropout(Module):
    """Dropout with a probability and a stream of random numbers for each net."""

    def __init__(self, probabilities: Sequence[float], streams: numpy.ndarray) -> None:
        super().__init__()
        self.register_buffer("kept", as_tensor(numpy.array([threshold_of(1.0 - p) for p in probabilities], numpy.int64)))
        self.register_buffer("streams", as_tensor(streams))

    def forward(self, input: Tensor, active: Tensor | None) -> Tensor:
        if not self.training:
            return input
        nets = len(self.kept)
        x = broadcast_to(input, shape=(nets, *input.shape)) if input.ndim == 2 else input
        return stacked_drop(x.contiguous(), self.streams, self.kept, advances=True)


def _leaves(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """The layers of nested Sequentials, with their paths."""
    for name, child in module._modules.items():
        at = f"{path}.{name}" if path else name
        assert child is not None
        if isinstance(child, Sequential):
            yield from _leaves(child, at)
        else:
            yield at, child


_EXPECTED = "expected nn.Sequential of nn.Linear, activations without parameters, nn.Dropout and nn.Identity"


def _same_places(nets: Sequence[Module]) -> list[tuple[str, list[Any]]]:
    """Return (path, the layers of all nets there), in order.

    Raises:
        StackError: a net or a layer cannot be stacked, or the nets differ.
    """
    for number, net in enumerate(nets):
        if not isinstance(net, Sequential):
            raise StackError(f"Stack: net {number} is a {type(net).__name__}; {_EXPECTED}")
        for path, module in net.named_modules():
            _check_module(number, path, module)
        _check_own(number, net)
    of_nets: list[dict[str, Any]] = [dict(_leaves(net)) for net in nets]
    paths = [*dict.fromkeys(path for layers in of_nets for path in layers)]
    rows = [(path, [layers.get(path) for layers in of_nets]) for path in paths]
    for path, row in rows:
        for number, layer in enumerate(row):
            if type(layer) is not type(row[0]):
                first, kind = ("no layer" if found is None else f"a {type(found).__name__}" for found in (row[0], layer))
                raise StackError(
                    f"Stack: net 0 has {first} in {path!r}, net {number} {kind}; expected the same kinds of layers in the same "
                    "places"
                )
            if _settings(layer) != _settings(row[0]):
                raise StackError(
                    f"Stack: {path!r} is {row[0]!r} in net 0 and {layer!r} in net {number}; expected the same settings, device and "
                    "dtype"
                )
    for number, layers in enumerate(of_nets):
        if [*layers] != paths:
            raise StackError(f"Stack: the layers of net 0 are {paths}, those of net {number} {[*layers]}; expected the same order")
    linear: list[list[Any]] = [row for _, row in rows if isinstance(row[0], Linear)]
    if not linear:
        raise StackError("Stack: the nets have no nn.Linear; expected one or more")
    inputs = {layer.in_features for layer in linear[0]}
    if len(inputs) > 1:
        raise StackError(f"Stack: the nets have {sorted(inputs)} inputs; expected the same number")
    for number in range(len(nets)):
        for before, after in itertools.pairwise(linear):
            if before[number].out_features != after[number].in_features:
                raise StackError(
                    f"Stack: a layer of net {number} has {before[number].out_features} outputs, the next one "
                    f"{after[number].in_features} inputs; expected the same number"
                )
    return rows


def _check_module(number: int, path: str, module: Module) -> None:
    """Raise StackError unless a module can be stacked."""
    is_plain = type(module) in (Linear, Dropout, Identity) or (
        isinstance(module, Sequential) and type(module).forward is Sequential.forward
    )
    is_activation = isinstance(module, ActivationModule) and not module._parameters
    described = f"Stack: net {number} has a {type(module).__name__} in {path!r}"
    if not is_plain and not is_activation:
        raise StackError(f"{described}, which cannot be stacked; {_EXPECTED}")
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        raise StackError(f"{described} with hooks, which would see all nets at once; remove them")


def _check_own(number: int, net: Sequential) -> None:
    """Raise StackError if layers of a net share parameters, or one has the name of the stack's own buffer."""
    owners: dict[int, str] = {}
    for path, layer in _leaves(net):
        for parameter in layer._parameters.values():
            if parameter is not None and (other := owners.setdefault(id(parameter), path)) != path:
                raise StackError(
                    f"Stack: {other!r} and {path!r} of net {number} share a parameter; expected layers with parameters of their own"
                )
    if "active" in net._modules:
        raise StackError(f"Stack: net {number} has a layer of the name 'active', which a stack uses itself; rename the layer")


def _settings(layer: Any) -> Any:
    """What must be the same in all nets."""
    if isinstance(layer, Linear):
        bias = layer.bias
        flags = layer.weight.requires_grad, None if bias is None else bias.requires_grad
        return (*flags, str(layer.weight.device), str(layer.weight.dtype))
    if isinstance(layer, ActivationModule):
        return {key: value for key, value in vars(layer).items() if isinstance(value, (int, float, str)) and key != "training"}
    return None


def _common_device(rows: Sequence[tuple[str, list[Any]]]) -> tuple[Any, Any]:
    first = next(row[0] for _, row in rows if isinstance(row[0], Linear))
    return first.weight.device, first.weight.dtype


@no_grad()
def _padded(parameters: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    first = parameters[0]
    result: Any = zeros(len(parameters), *shape, dtype=first.dtype, device=first.device)
    for target, parameter in zip(result, parameters):
        target[tuple(slice(0, extent) for extent in parameter.shape)] = parameter
    return result


def _mask(row: Sequence[Any], device: Any, dtype: Any) -> Tensor:
    """1 where a net has a feature, else 0: (nets, 1, features)."""
    widths = numpy.array([layer.out_features for layer in row])
    flags = numpy.arange(widths.max()) < widths[:, None, None]
    return as_tensor(flags.astype(numpy.float64), device=device).to(dtype)


def _streams(nets: int, seeds: Sequence[int] | None) -> numpy.ndarray:
    """Keys and counters of the streams of random numbers, uint64 (nets, 2)."""
    if seeds is None:
        seeds = randint(0, 2**62, (nets,)).tolist()
    keys = numpy.array([int(seed) % 2**64 for seed in seeds], numpy.uint64)
    return numpy.stack([keys, numpy.zeros(nets, numpy.uint64)], 1)
