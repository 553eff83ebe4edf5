"""Adamax: Adam with the largest gradient instead of the root mean square, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average, count, elements, scalars, update_kernel, update_tensors

__all__ = ["Adamax"]


@update_kernel()
def adamax_step(params, exp_avgs, exp_infs, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """m = b1 m + (1 - b1) g;  u = max(b2 u, |g| + eps);  p -= lr / (1 - b1^t) m / u.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), section 7.1; eps as in PyTorch.

    Args:
        steps: the number t - 1 of earlier steps of each tensor, incremented by the launch.
        hyperparameters: lr, b1, b2, eps, weight_decay.
    """
    lr, beta1, beta2, eps, weight_decay = elements(hyperparameters)

    def factors(index):
        rate = lr / (1.0 - beta1 ** (steps[index] + 1.0))
        return scalars(params[0].dtype, weight_decay, rate, beta1, 1.0 - beta1, beta2, eps)

    update_tensors(params, (exp_avgs, exp_infs), steps, grads, factors, _update, decays=decays, maximize=maximize)
    count(steps)


def _update(change, p, g, states, rate, beta1, one_minus_beta1, beta2, eps):
    m, u = states
    average(m, (beta1, one_minus_beta1), g, change)
    numpy.absolute(g, out=change)
    change += eps
    u *= beta2
    numpy.maximum(u, change, out=u)
    numpy.divide(m, u, out=change)
    change *= rate


class Adamax(Optimizer):
    """Adamax (Kingma and Ba 2015), as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        betas: decay rates of the average gradient and of its largest size, each in [0, 1).
        eps: added to the size of the gradient, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        foreach, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "betas", "eps", "weight_decay")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
                "differentiable": differentiable, "capturable": capturable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_betas(options)
        self.check_not_negative(options, "eps", "weight_decay")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        adamax_step(
            [p.array for p in params], *self.state_lists(params, ("exp_avg", "exp_inf", "step")), grads, group.hyperparameters,
            self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")), maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
