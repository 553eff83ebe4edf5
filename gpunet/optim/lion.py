"""Lion: the sign of a momentum as the step, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average, count, elements, scalars, shrink, update_kernel, update_tensors

__all__ = ["Lion"]


@update_kernel()
def lion_step(params, exp_avgs, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """p *= 1 - lr weight_decay;  p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2.

    Args:
        exp_avgs: m of each tensor.
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr, b1, b2, weight_decay.
    """
    lr, beta1, beta2, weight_decay = elements(hyperparameters)
    if decays:
        shrink(params, lr, weight_decay)
    numbers = scalars(params[0].dtype, weight_decay, lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2)
    update_tensors(params, (exp_avgs,), steps, grads, lambda _: numbers, _update, decays=False, maximize=maximize)
    count(steps)


def _update(change, p, g, states, lr, beta1, one_minus_beta1, beta2, one_minus_beta2):
    (m,) = states
    of_average = numpy.multiply(m, beta1, out=scratch(g.shape, g.dtype, 4))
    numpy.multiply(g, one_minus_beta1, out=change)
    of_average += change
    average(m, (beta2, one_minus_beta2), g, change)
    numpy.sign(of_average, out=change)
    change *= lr


class Lion(Optimizer):
    """Lion (Chen et al. 2023).  PyTorch has none; names and defaults are those of the paper's code.

    Its learning rate is 3 to 10 times smaller than Adam's, and its weight decay as many times larger.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0: the size of each element's step.
        betas: decay rates of the average gradient, in the step and in the state, each in [0, 1).
        weight_decay: decoupled weight decay, >= 0: p *= 1 - lr * weight_decay before the step.
        foreach, fused, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "betas", "weight_decay")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
                "capturable": capturable, "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_betas(options)
        self.check_not_negative(options, "weight_decay")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        lion_step(
            [p.array for p in params], *self.state_lists(params, ("exp_avg", "step")), grads, group.hyperparameters,
            self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")), maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
