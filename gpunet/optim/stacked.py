"""SGD, Adam and AdamW of a stack of nets (:class:`gpunet.nn.Stack`), with hyperparameters for each net."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy

from gpunet.autograd import Tensor, bump_version
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.loops import Loops, like, load, loop_body, sqrt, store
from gpunet.launch.memory import empty, scratch
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import graph_break, graph_break_on_read
from gpunet.ops.creation import as_tensor
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["StackAdam", "StackAdamW", "StackSGD"]

_NUM_FACTORS = 9  # of a net, see stacked_adam_factors
_TYPES = {"numbers": "float64", "factors": "float64", "powers": "float64", "active": "int64"}


# ---- launches -----------------------------------------------------------------------------------------------------------


def _rows(*arrays: Any) -> list[Any]:
    """Arrays (nets, ...) as matrices (nets, count)."""
    return [None if a is None else a.reshape(len(a), -1) for a in arrays]


def _assign(target: Any, values: Any, active: Any) -> None:
    """Assign rows, but not those of nets that are stopped."""
    numpy.copyto(target, values, where=True if active is None else (active != 0)[:, None])


def _columns(numbers: Any, dtype: Any) -> list[Any]:
    """The columns of numbers (nets, k), (nets, 1) each, in the dtype of the parameters."""
    return [numbers[:, k : k + 1].astype(dtype) for k in range(numbers.shape[1])]


@kernel("stacked_optimizers.cu", outputs=2, types=_TYPES, optional="velocity active", reads_values=True, updates="p velocity")
def stacked_sgd_step(p, velocity, g, numbers, active, *, nesterov):
    """g += decay p;  velocity = momentum velocity + g;  p -= lr velocity, or with nesterov lr (g + momentum velocity).

    p, velocity and g (nets, ...), numbers (nets, 3): lr, momentum and weight decay; active (nets,).  Without ``velocity``,
    p -= lr g.
    """
    of_p, of_velocity, of_g = _rows(p, velocity, g)
    rate, momentum, decay = _columns(numbers, p.dtype)
    change, moved = (scratch(of_p.shape, p.dtype, slot) for slot in (0, 1))
    numpy.multiply(of_p, decay, out=change)
    change += of_g
    if velocity is not None:
        numpy.multiply(of_velocity, momentum, out=moved)
        moved += change
        _assign(of_velocity, moved, active)
        if nesterov:
            moved *= momentum
            change += moved
        else:
            change = moved
    change *= rate
    numpy.subtract(of_p, change, out=change)
    _assign(of_p, change, active)


@kernel("stacked_optimizers.cu", outputs=2, types=_TYPES, optional="active", reads_values=True, updates="factors powers")
def stacked_adam_factors(factors, powers, numbers, active, *, decoupled):
    """The numbers of a step of Adam, for each net; powers (nets, 2), those of the betas, are multiplied by them first.

    numbers (nets, 5): lr, beta1, beta2, eps and weight decay; active (nets,).  factors (nets, 9): the factor of p, that of p in the
    gradient, beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), eps.
    """
    rate, first, second, eps, decay = (numbers[:, k] for k in range(5))
    _assign(powers, powers * numbers[:, 1:3], active)
    columns = (
        1.0 - rate * decay if decoupled else numpy.ones(len(numbers)), numpy.zeros(len(numbers)) if decoupled else decay, first,
        1.0 - first, second, 1.0 - second, rate / (1.0 - powers[:, 0]), 1.0 / numpy.sqrt(1.0 - powers[:, 1]), eps,
    )  # fmt: skip
    _assign(factors, numpy.stack(columns, 1), active)


@kernel("stacked_optimizers.cu", outputs=3, types=_TYPES, optional="active", reads_values=True, updates="p average square")
def stacked_adam_step(p, average, square, g, factors, active):
    """A step of Adam: p, its averages and g (nets, ...), with the numbers of :func:`stacked_adam_factors`; active (nets,)."""
    of_p, of_average, of_square, of_g = _rows(p, average, square, g)
    shrink, add, keep1, share1, keep2, share2, size, correction, eps = _columns(factors, p.dtype)
    value, gradient, work = (scratch(of_p.shape, p.dtype, slot) for slot in range(3))
    numpy.multiply(of_p, shrink, out=value)
    numpy.multiply(value, add, out=gradient)
    gradient += of_g
    numpy.multiply(of_average, keep1, out=work)
    work += share1 * gradient
    _assign(of_average, work, active)
    gradient *= gradient
    gradient *= share2
    numpy.multiply(of_square, keep2, out=work)
    work += gradient
    _assign(of_square, work, active)
    numpy.sqrt(work, out=work)
    work *= correction
    work += eps
    numpy.divide(of_average, work, out=work)
    work *= size
    value -= work
    _assign(of_p, value, active)


def _grid(p: Any) -> tuple[int, tuple[int, int]]:
    """The elements of a net in a parameter, and the grid: a row of blocks for each net."""
    count = p.size // max(1, p.shape[0])
    return count, (ceil_div(count, 256), p.shape[0])


@stacked_sgd_step.geometry
def _(p, velocity, g, numbers, active, *, nesterov):
    count, grid = _grid(p)
    template = "true" if velocity is not None else "false", "true" if nesterov else "false"
    return Geometry(grid, 256, (count,), template)


@stacked_adam_factors.geometry
def _(factors, powers, numbers, active, *, decoupled):
    return Geometry(ceil_div(len(numbers), 256), 256, (len(numbers), numpy.bool_(decoupled)))


@stacked_adam_step.geometry
def _(p, average, square, g, factors, active):
    count, grid = _grid(p)
    return Geometry(grid, 256, (count,))


# ---- what they compute in a network ---------------------------------------------------------------------------------------


@stacked_sgd_step.computes
def _(p, velocity, g, numbers, active, *, nesterov):
    momentum, ahead = "true" if velocity is not None else "false", "true" if nesterov else "false"
    apply = functools.partial(_apply_sgd, nesterov)
    return parts.StackedUpdate(p, [velocity], g, numbers, active, f"StackedSgd<{momentum}, {ahead}>", apply)


@stacked_adam_factors.computes
def _(factors, powers, numbers, active, *, decoupled):
    rule = f"StackedAdam<{'true' if decoupled else 'false'}>"
    return parts.StackedNumbers(factors, powers, numbers, active, rule, functools.partial(_apply_adam, decoupled))


@stacked_adam_step.computes
def _(p, average, square, g, factors, active):
    return parts.StackedUpdate(p, [average, square], g, factors, active)


def _apply_sgd(nesterov, params, states, counters, grads, hyperparameters):
    """A step of one net; see ``gpunet.ops.small_net.Rule``."""
    for number, (p, g) in enumerate(zip(params, grads)):
        velocity = None if states[0] is None else states[0][number][None]
        stacked_sgd_step.twin(p[None], velocity, g[None], hyperparameters[None], None, nesterov=nesterov)


def _apply_adam(decoupled, params, states, counters, grads, hyperparameters):
    """A step of one net; the counters of all parameters are the same powers."""
    factors = numpy.empty((1, _NUM_FACTORS))
    stacked_adam_factors.twin(factors, counters[0][None], hyperparameters[None], None, decoupled=decoupled)
    for number, (p, g) in enumerate(zip(params, grads)):
        average, square = (states[k][number][None] for k in (0, 1))
        stacked_adam_step.twin(p[None], average, square, g[None], factors, None)


# ---- in compiled steps ----------------------------------------------------------------------------------------------------
# The bodies take nets ``first`` to ``stop``; see gpunet/ops/stacked.py.


@stacked_sgd_step.loops
def _(p, velocity, g, numbers, active, *, nesterov):
    count, (_, nets) = _grid(p)
    arrays = (p, p if velocity is None else velocity, g, numbers, numbers if active is None else active)
    options = (int(velocity is not None), int(nesterov), int(active is not None))
    return Loops(_sgd_loop, arrays, (0, nets, count, *options), work=5 * p.size * p.dtype.itemsize)


@stacked_adam_factors.loops
def _(factors, powers, numbers, active, *, decoupled):
    nets = numbers.shape[0]
    arrays = (factors, powers, numbers, numbers if active is None else active)
    return Loops(_factors_loop, arrays, (0, nets, int(decoupled), int(active is not None)), work=nets)


@stacked_adam_step.loops
def _(p, average, square, g, factors, active):
    count, (_, nets) = _grid(p)
    arrays = (p, average, square, g, factors, factors if active is None else active)
    return Loops(_adam_loop, arrays, (0, nets, count, int(active is not None)), work=10 * p.size * p.dtype.itemsize)


@loop_body
def _sgd_loop(p, velocity, g, numbers, active, first, stop, count, has_velocity, nesterov, has_active):
    for net in range(first, stop):
        if has_active == 0 or load(active, net, 4) != 0:
            rate, momentum = like(p, load(numbers, 3 * net, 3)), like(p, load(numbers, 3 * net + 1, 3))
            decay = like(p, load(numbers, 3 * net + 2, 3))
            start, end = net * count, net * count + count
            if has_velocity == 0:
                for j in range(start, end):
                    store(p, j, load(p, j, 0) - rate * (load(g, j, 2) + decay * load(p, j, 0)), 0)
            else:
                for j in range(start, end):
                    gradient = load(g, j, 2) + decay * load(p, j, 0)
                    moved = momentum * load(velocity, j, 1) + gradient
                    store(velocity, j, moved, 1)
                    change = gradient + momentum * moved if nesterov != 0 else moved
                    store(p, j, load(p, j, 0) - rate * change, 0)
    return 0


@loop_body
def _factors_loop(factors, powers, numbers, active, first, stop, decoupled, has_active):
    for net in range(first, stop):
        if has_active == 0 or load(active, net, 3) != 0:
            rate, beta1, beta2 = load(numbers, 5 * net, 2), load(numbers, 5 * net + 1, 2), load(numbers, 5 * net + 2, 2)
            eps, decay = load(numbers, 5 * net + 3, 2), load(numbers, 5 * net + 4, 2)
            power1, power2 = load(powers, 2 * net, 1) * beta1, load(powers, 2 * net + 1, 1) * beta2
            store(powers, 2 * net, power1, 1)
            store(powers, 2 * net + 1, power2, 1)
            at = 9 * net
            store(factors, at, 1.0 - rate * decay if decoupled != 0 else 1.0, 0)
            store(factors, at + 1, 0.0 if decoupled != 0 else decay, 0)
            store(factors, at + 2, beta1, 0)
            store(factors, at + 3, 1.0 - beta1, 0)
            store(factors, at + 4, beta2, 0)
            store(factors, at + 5, 1.0 - beta2, 0)
            store(factors, at + 6, rate / (1.0 - power1), 0)
            store(factors, at + 7, 1.0 / sqrt(1.0 - power2), 0)
            store(factors, at + 8, eps, 0)
    return 0


@loop_body
def _adam_loop(p, average, square, g, factors, active, first, stop, count, has_active):
    for net in range(first, stop):
        if has_active == 0 or load(active, net, 5) != 0:
            at = 9 * net
            shrink, add = like(p, load(factors, at, 4)), like(p, load(factors, at + 1, 4))
            keep1, share1 = like(p, load(factors, at + 2, 4)), like(p, load(factors, at + 3, 4))
            keep2, share2 = like(p, load(factors, at + 4, 4)), like(p, load(factors, at + 5, 4))
            size, correction = like(p, load(factors, at + 6, 4)), like(p, load(factors, at + 7, 4))
            eps = like(p, load(factors, at + 8, 4))
            for j in range(net * count, net * count + count):
                value = load(p, j, 0) * shrink
                gradient = load(g, j, 3) + add * value
                first_average = keep1 * load(average, j, 1) + share1 * gradient
                second_average = keep2 * load(square, j, 2) + share2 * (gradient * gradient)
                store(average, j, first_average, 1)
                store(square, j, second_average, 2)
                store(p, j, value - size * (first_average / (sqrt(second_average) * correction + eps)), 0)
    return 0


# ---- optimizers -----------------------------------------------------------------------------------------------------------


class _StackOptimizer(Optimizer):
    """Base class of the optimizers of a stack.

    Args:
        stack: a :class:`gpunet.nn.Stack`.
        numbers: the hyperparameters by name, each a number for all nets or a sequence with one for each.
        options: other options.

    Attributes:
        numbers: (nets, k), float64: a column for each hyperparameter, which recorded steps read.
    """

    hyperparameters = ()
    counters = ()
    takes_complex = False

    #: the hyperparameters, in the order of the columns, with the bounds [low, high) of each
    _ranges: Mapping[str, tuple[float, float]]

    def __init__(self, stack: Any, numbers: Mapping[str, Any], **options: Any) -> None:
        if not hasattr(stack, "num_nets"):
            raise DtypeError(f"{type(self).__name__}: got a value of type {type(stack).__name__}; expected a gpunet.nn.Stack")
        super().__init__(stack.parameters(), options)
        self.stack = stack
        table = numpy.stack([self._checked(name, numbers[name]) for name in self._ranges], 1)
        self.numbers = as_tensor(table, device=self.param_groups[0]["params"][0].device)

    def _checked(self, name: str, value: Any) -> numpy.ndarray:
        low, high = self._ranges[name]
        nets = self.stack.num_nets
        try:
            values = numpy.asarray(value.tolist() if isinstance(value, Tensor) else value, numpy.float64)
        except (TypeError, ValueError):
            raise DtypeError(f"{type(self).__name__}: {name}={value!r}; expected a number, or one for each net") from None
        if values.shape not in ((), (nets,)):
            raise ArgumentError(
                f"{type(self).__name__}: {name} has shape {values.shape}; expected a number for all nets, or {nets} numbers, one "
                "for each net"
            )
        values = numpy.broadcast_to(values, (nets,))
        wrong = ~((values >= low) & (values < high))
        if wrong.any():
            net = int(wrong.argmax())
            span = f"in [{low:g}, {high:g})" if high < math.inf else f"of {low:g} or more"
            raise ArgumentError(f"{type(self).__name__}: {name} of net {net} is {values[net]:g}; expected a number {span}")
        return values

    def set_numbers(self, **numbers: Any) -> None:
        """Set hyperparameters, such as ``set_numbers(lr=[0.1, 0.01])``: each a number for all nets, or one for each.

        Raises:
            ArgumentError, DtypeError: there is no such hyperparameter, or a number is out of range.
        """
        graph_break("setting hyperparameters of a stack", "set them outside the step")
        table = devices.to_host(self.numbers.array).copy()
        for name, value in numbers.items():
            if name not in self._ranges:
                raise ArgumentError(f"{type(self).__name__} has no {name!r}; expected one of {', '.join(self._ranges)}")
            table[:, [*self._ranges].index(name)] = self._checked(name, value)
        devices.assign(self.numbers.array, table)
        bump_version(self.numbers)

    def get_numbers(self, name: str) -> numpy.ndarray:
        """Return a hyperparameter of all nets, float64 (nets,)."""
        graph_break_on_read(f"the hyperparameter {name!r} of a stack")
        found: numpy.ndarray = devices.to_host(self.numbers.array)[:, [*self._ranges].index(name)].copy()
        return found

    def _own_tensors(self) -> dict[str, Tensor]:
        """The tensors of the optimizer that are no states of parameters, by their keys in a state_dict."""
        return {"numbers": self.numbers}

    def _active(self) -> Array:
        tensors = [self.stack.active, *self._own_tensors().values()]
        rely_on(tensors, "{}.stack is {}", (self, self.stack), "the stack of an optimizer")
        array: Array = self.stack.active.array
        return array

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the hyperparameters of the nets under "nets"."""
        return {**super().state_dict(), "nets": {name: tensor.clone() for name, tensor in self._own_tensors().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state and the hyperparameters of a :meth:`state_dict`.

        Raises:
            StateDictError: it is of another optimizer, or of a stack of another number of nets.
        """
        own, given = self._own_tensors(), state_dict.get("nets", {})
        for name, tensor in own.items():
            if name not in given or tuple(given[name].shape) != tuple(tensor.shape):
                raise StateDictError(
                    f"{type(self).__name__}: the state_dict has no {name!r} of shape {tuple(tensor.shape)} under 'nets'; expected "
                    f"the state of the same optimizer of a stack of {self.stack.num_nets} nets"
                )
        super().load_state_dict(state_dict)
        for name, tensor in own.items():
            devices.assign(tensor.array, devices.move(as_tensor(given[name]).array, tensor.device))
            bump_version(tensor)


#: The bounds of eps begin at the smallest normal float32: padded weights, whose averages are 0, must not become 0 / 0.
_RATE, _POSITIVE, _BETA = (0.0, math.inf), (2.0**-126, math.inf), (0.0, 1.0)


class StackSGD(_StackOptimizer):
    """Stochastic gradient descent of each net of a stack.

    Args:
        stack: a :class:`gpunet.nn.Stack`.
        lr: learning rate, >= 0.
        momentum: in [0, 1).
        weight_decay: L2 penalty factor, >= 0.
        nesterov: use Nesterov's momentum.

    Each but the last is a number for all nets, or a sequence with one for each.

    Raises:
        ArgumentError, DtypeError: a number is out of range, or there is not one for each net.
    """

    _ranges = {"lr": _RATE, "momentum": _BETA, "weight_decay": _RATE}  # noqa: RUF012

    def __init__(
        self, stack: Any, lr: Any = 1e-3, momentum: Any = 0.0, weight_decay: Any = 0.0, *, nesterov: bool = False
    ) -> None:
        super().__init__(stack, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, nesterov=nesterov)

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        (velocities,) = self.state_lists(params, ("momentum_buffer",))
        assert velocities is not None
        active = self._active()
        for p, velocity, g in zip(params, velocities, grads):
            stacked_sgd_step(p.array, velocity, g, self.numbers.array, active, nesterov=bool(group.last_set("nesterov")))


class StackAdam(_StackOptimizer):
    """Adam (Kingma and Ba 2015) of each net of a stack, with weight decay added to the gradient.

    Args:
        stack: a :class:`gpunet.nn.Stack`.
        lr: learning rate, >= 0.
        beta1, beta2: decay rates of the averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, > 0.
        weight_decay: L2 penalty factor, >= 0.

    Each is a number for all nets, or a sequence with one for each.

    Raises:
        ArgumentError, DtypeError: a number is out of range, or there is not one for each net.
    """

    _ranges = {"lr": _RATE, "beta1": _BETA, "beta2": _BETA, "eps": _POSITIVE, "weight_decay": _RATE}  # noqa: RUF012
    _decoupled = False

    def __init__(
        self, stack: Any, lr: Any = 1e-3, beta1: Any = 0.9, beta2: Any = 0.999, eps: Any = 1e-8, weight_decay: Any = 0.0
    ) -> None:
        numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
        super().__init__(stack, numbers)
        self.powers = as_tensor(numpy.ones((stack.num_nets, 2)), device=self.numbers.device)

    def _own_tensors(self) -> dict[str, Tensor]:
        return {**super()._own_tensors(), "powers": self.powers}

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        averages, squares = self.state_lists(params, ("exp_avg", "exp_avg_sq"))
        assert averages is not None and squares is not None
        active, numbers = self._active(), self.numbers.array
        factors = empty((self.stack.num_nets, _NUM_FACTORS), numbers.dtype, numbers)
        stacked_adam_factors(factors, self.powers.array, numbers, active, decoupled=self._decoupled)
        for p, average, square, g in zip(params, averages, squares, grads):
            stacked_adam_step(p.array, average, square, g, factors, active)


class StackAdamW(StackAdam):
    """:class:`StackAdam` with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr * weight_decay before the step."""

    _decoupled = True

    def __init__(
        self, stack: Any, lr: Any = 1e-3, beta1: Any = 0.9, beta2: Any = 0.999, eps: Any = 1e-8, weight_decay: Any = 0.01
    ) -> None:
        super().__init__(stack, lr, beta1, beta2, eps, weight_decay)


