"""Stochastic gradient descent with momentum, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError
from gpunet.launch.memory import as_0d_arrays, cast_scalar, scratch, scratch_joined, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import count, update_kernel, update_tensors

__all__ = ["SGD"]


@update_kernel(optional="momenta", flags="momenta nesterov")
def sgd_step(params, momenta, steps, grads, hyperparameters, skip, ticket, *, dampened, decays, nesterov, maximize):
    """g += weight_decay p;  v = momentum v + (1 - dampening) g, but v = g in the first step;  p -= lr v.

    With ``nesterov``, p -= lr (g + momentum v); without momentum, p -= lr g.

    Args:
        momenta: v of each tensor, or None without momentum.
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr, momentum, dampening, weight_decay.
        dampened: whether dampening is not zero.
    """
    numbers: Any = scratch_joined(((),) * 4, params[0].dtype, 6)
    numpy.copyto(numbers.flat, hyperparameters, casting="same_kind")
    lr, momentum, _, weight_decay = numbers
    dampening = hyperparameters[2:3].reshape(()) if dampened else None

    def factors(index):
        of_velocity = (None, None) if momenta is None else _momentum_factors(steps[index], momentum, dampening)
        return weight_decay, lr, *of_velocity, momentum if nesterov else None

    update_tensors(params, (momenta,), steps, grads, factors, _update, decays=decays, maximize=maximize)
    count(steps)


def _momentum_factors(step, momentum, dampening):
    """Return the factors of v and g in the new v: (momentum, 1 - dampening), but (0, 1) in the first step.

    The second factor is None if dampening is None.  The factors are arrays instead of Python numbers, so that replays
    use the current step.
    """
    step, one = step.reshape(()), as_0d_arrays(step.dtype, 1)[0]
    factor_v = scratch((), momentum.dtype, 5)
    numpy.minimum(step, one, out=factor_v)
    factor_v *= momentum
    if dampening is None:
        return factor_v, None
    factor_g = scratch((), numpy.float64, 4)
    numpy.minimum(step, one, out=factor_g)
    factor_g *= dampening
    numpy.subtract(one, factor_g, out=factor_g)
    return factor_v, cast_scalar(factor_g, momentum.dtype, 4)


def _update(change, p, g, states, lr, factor_v, factor_g, ahead):
    """Update the momentum v, unless it is None; with Nesterov momentum, ``ahead`` is its factor."""
    (v,) = states
    if v is not None:
        v *= factor_v
        v += g if factor_g is None else numpy.multiply(g, factor_g, out=change)
        if ahead is not None:
            numpy.multiply(v, ahead, out=change)
            g = numpy.add(g, change, out=change)
        else:
            g = v
    numpy.multiply(g, lr, out=change)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, dampening and weight decay as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        momentum: factor of the previous update, >= 0.
        dampening: 1 minus the factor of the gradient in the momentum.
        weight_decay: L2 penalty factor, >= 0.
        nesterov: use Nesterov momentum; requires momentum > 0 and dampening 0.
        maximize: maximize the loss instead of minimising it.
        foreach, fused: have no effect: one launch always updates many parameters.
        differentiable: must be False: a step is not part of the graph.
    """

    hyperparameters = ("lr", "momentum", "dampening", "weight_decay")
    skips_on_device = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
                "fused": fused,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "momentum", "weight_decay")
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ArgumentError(
                f"SGD: nesterov=True with momentum={options['momentum']}, dampening={options['dampening']}; expected "
                "momentum > 0 and dampening 0"
            )

    def saved_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Leave out the step count, which PyTorch's SGD does not have: momentum implies a step before."""
        return {name: tensor for name, tensor in state.items() if name != "step"}

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        last_set = group.last_set
        if last_set("momentum"):
            for state in map(self.state.__getitem__, params):
                if "momentum_buffer" not in state:
                    state.pop("step", None)  # restart the count: the first step with momentum sets v = g
        steps, momenta = self.state_lists(params, ("step", "momentum_buffer" if last_set("momentum") else ""))
        sgd_step(
            [p.array for p in params], momenta, steps, grads, group.hyperparameters, self._skip, ticket(grads[0]),
            dampened=bool(last_set("dampening")), decays=bool(last_set("weight_decay")),
            nesterov=bool(last_set("nesterov")), maximize=bool(last_set("maximize")),
        )  # fmt: skip
