"""Stochastic gradient descent with momentum: one launch for all parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.device import Array
from gpunet.errors import ArgumentError
from gpunet.optim.joined import MOST_JOINED, joined, subtract_parts
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.runtime.kernel import Geometry, kernel
from gpunet.runtime.memory import JoinedArrays, as_scalar, scratch, ticket


@kernel(
    "optimizers.cu",
    outputs=3,
    lists=4,
    types={"steps": "float64", "learning_rate": "float64", "ticket": "uint32"},
    optional="momenta ticket",
)
def sgd_step(
    params, momenta, steps, grads, learning_rate, ticket, *, momentum, dampening, weight_decay, nesterov, maximize
):
    """g += weight_decay p;  v = momentum v + (1 - dampening) g, v = g at the first step;  p -= lr (g + momentum v | v)."""
    dtype = params[0].dtype
    rate = as_scalar(learning_rate.reshape(()), dtype, 2)
    if momenta is None and not (weight_decay or maximize) and len(params) > 1 and sum(p.size for p in params) <= MOST_JOINED:
        gradients = joined(grads, 0)  # many small tensors: one pass over their joined gradients
        subtract_parts(params, numpy.multiply(gradients, rate, out=scratch(gradients.shape, dtype, 1)))
        params = ()
    for index, (p, g, step) in enumerate(zip(params, grads, steps)):
        update, change = scratch(p.shape, dtype, 0), scratch(p.shape, dtype, 1)
        if maximize:
            numpy.negative(g, out=update)
            g = update
        if weight_decay:
            numpy.multiply(p, weight_decay, out=change)
            numpy.add(g, change, out=update)
            g = update
        if momenta is not None:
            v = momenta[index]
            v *= _later(step, 0.0, momentum, dtype, 3)
            if dampening:
                numpy.multiply(g, _later(step, 1.0, 1.0 - dampening, dtype, 4), out=change)
                v += change
            else:
                v += g
            if nesterov:
                numpy.multiply(v, momentum, out=change)
                numpy.add(g, change, out=update)
                g = update
            else:
                g = v
        numpy.multiply(g, rate, out=change)
        p -= change
    for step in [steps.flat] if isinstance(steps, JoinedArrays) and steps.flat is not None else steps:
        step += 1


def _later(step, first, later, dtype, slot):
    """``first`` at the first step and ``later`` from then on: not as a Python number, so that a replay follows the step."""
    value = scratch((), numpy.float64, slot)
    numpy.minimum(step.reshape(()), 1, out=value)
    value *= later - first
    value += first
    return as_scalar(value, dtype, slot)


@sgd_step.geometry
def _(params, momenta, steps, grads, learning_rate, ticket, *, momentum, dampening, weight_decay, nesterov, maximize):
    flags = tuple("true" if f else "false" for f in (momenta is not None, nesterov, maximize))
    return Geometry(0, 256, (momentum, dampening, weight_decay), flags)


class SGD(Optimizer):
    """p -= lr * g, with momentum (Polyak), Nesterov's form, dampening and weight decay as in PyTorch.

    Args:
        params: tensors or groups.
        lr: learning rate, >= 0.
        momentum: share of the last update that is kept, >= 0.
        dampening: share of the gradient that momentum leaves out.
        weight_decay: L2 factor, >= 0.
        nesterov: look ahead along the momentum; needs momentum > 0 and dampening 0.
        maximize: climb instead of descend.
    """

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
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                "nesterov": nesterov, "maximize": maximize,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        for name in ("momentum", "weight_decay"):
            if not options[name] >= 0.0:
                raise ArgumentError(f"SGD: {name}={options[name]}; expected zero or a positive number")
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ArgumentError(
                f"SGD: nesterov=True with momentum={options['momentum']}, dampening={options['dampening']}; expected "
                "momentum > 0 and dampening 0"
            )

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        steps, momenta = self.state_lists(params, ("step", "momentum_buffer" if group["momentum"] else ""))
        sgd_step(
            [p.array for p in params], momenta, steps, grads, group.learning_rate, ticket(grads[0]),
            momentum=float(group["momentum"]), dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]), nesterov=bool(group["nesterov"]),
            maximize=bool(group["maximize"]),
        )  # fmt: skip
