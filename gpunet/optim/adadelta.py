"""Adadelta: steps in the units of the parameters, without a learning rate to tune, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average_square, count, elements, scalars, update_kernel, update_tensors

__all__ = ["Adadelta"]


@update_kernel()
def adadelta_step(params, square_avgs, acc_deltas, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """v = rho v + (1 - rho) g^2;  d = g sqrt(u + eps) / sqrt(v + eps);  u = rho u + (1 - rho) d^2;  p -= lr d.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012).

    Args:
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr, rho, eps, weight_decay.
    """
    lr, rho, eps, weight_decay = elements(hyperparameters)
    numbers = scalars(params[0].dtype, weight_decay, lr, rho, 1.0 - rho, eps)
    states = square_avgs, acc_deltas
    update_tensors(params, states, steps, grads, lambda _: numbers, _update, decays=decays, maximize=maximize)
    count(steps)


def _update(change, p, g, states, lr, rho, one_minus_rho, eps):
    v, u = states
    average_square(v, (rho, one_minus_rho), g, change)
    root = scratch(g.shape, g.dtype, 4)
    numpy.add(v, eps, out=root)
    numpy.sqrt(root, out=root)
    numpy.add(u, eps, out=change)
    numpy.sqrt(change, out=change)
    change /= root
    change *= g
    average_square(u, (rho, one_minus_rho), change, root)
    change *= lr


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012), as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: factor of the step, >= 0.
        rho: decay rate of the averages of squared gradients and of squared steps, in [0, 1].
        eps: added under both roots, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        foreach, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "rho", "eps", "weight_decay")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
        foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "capturable": capturable,
                "foreach": foreach, "differentiable": differentiable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "eps", "weight_decay")
        if not 0.0 <= options["rho"] <= 1.0:
            raise ArgumentError(f"Adadelta: rho={options['rho']}; expected a number in [0, 1]")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        adadelta_step(
            [p.array for p in params], *self.state_lists(params, ("square_avg", "acc_delta", "step")), grads,
            group.hyperparameters, self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")),
            maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
