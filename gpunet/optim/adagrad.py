"""Adagrad: steps divided by the root of the sum of squared gradients, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.autograd.complex_numbers import as_real_in_place
from gpunet.backend.devices import Array
from gpunet.launch.memory import ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import count, elements, scalars, update_kernel, update_tensors

__all__ = ["Adagrad"]


@update_kernel()
def adagrad_step(params, sums, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization" (2011).

    Args:
        steps: the number t - 1 of earlier steps of each tensor, incremented by the launch.
        hyperparameters: lr, lr_decay, weight_decay, eps.
    """
    lr, lr_decay, weight_decay, eps = elements(hyperparameters)

    def factors(index):
        return scalars(params[0].dtype, weight_decay, lr / (1.0 + steps[index] * lr_decay), eps)

    update_tensors(params, (sums,), steps, grads, factors, _update, decays=decays, maximize=maximize)
    count(steps)


def _update(change, p, g, states, rate, eps):
    (s,) = states
    numpy.multiply(g, g, out=change)
    s += change
    numpy.sqrt(s, out=change)
    change += eps
    numpy.divide(g, change, out=change)
    change *= rate


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011), as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        lr_decay: the learning rate of step t is lr / (1 + (t - 1) lr_decay); >= 0.
        weight_decay: L2 penalty factor, >= 0.
        initial_accumulator_value: the sums of squares at the start, >= 0.
        eps: added to the root, >= 0.
        foreach, fused: have no effect: one launch always updates many parameters.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "lr_decay", "weight_decay", "eps")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *, maximize: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
                "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip
        for group in self.param_groups:  # a state_dict before the first step has the sums, as in PyTorch
            with as_real_in_place(group["params"]):
                for p in group["params"]:
                    self._states([p], initial_accumulator_value)

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def _states(self, params: list[Any], initial: float) -> list[list[Array] | None]:
        return self.state_lists(params, ("sum", "step"), {"sum": initial})

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        last_set = group.last_set
        adagrad_step(
            [p.array for p in params], *self._states(params, last_set("initial_accumulator_value")), grads, group.hyperparameters,
            self._skip, ticket(grads[0]), decays=bool(last_set("weight_decay")), maximize=bool(last_set("maximize")),
        )  # fmt: skip
