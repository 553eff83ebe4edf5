"""RAdam: Adam that starts as momentum until its second average is reliable, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average, average_square, count, elements, scalars, shrink, update_kernel, update_tensors

__all__ = ["RAdam"]


@update_kernel(flags="decoupled")
def radam_step(
    params, exp_avgs, exp_avg_sqs, steps, grads, hyperparameters, skip, ticket, *, decays, decoupled, maximize
):
    """m, v as in Adam;  p -= lr / (1 - b1^t) m r sqrt(1 - b2^t) / (sqrt(v) + eps) if rho > 5, else p -= lr / (1 - b1^t) m.

    R = 2 / (1 - b2) - 1;  rho = R - 2 t b2^t / (1 - b2^t);  r = sqrt((rho - 4) (rho - 2) R / ((R - 4) (R - 2) rho)).

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020); eps as in PyTorch.

    Args:
        steps: the number t - 1 of earlier steps of each tensor, incremented by the launch.
        hyperparameters: lr, b1, b2, eps, weight_decay.
        decoupled: apply the weight decay to p instead of g.
    """
    dtype = params[0].dtype
    lr, beta1, beta2, eps, weight_decay = elements(hyperparameters)

    def factors(index):
        t = steps[index] + 1.0
        decayed, limit = beta2**t, 2.0 / (1.0 - beta2) - 1.0
        length = limit - 2.0 * t * decayed / (1.0 - decayed)
        is_rectified = length > 5.0
        length, limit = numpy.maximum(length, 5.0), numpy.maximum(limit, 5.0)  # where not rectified, a finite ratio will do
        ratio = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length)
        rectified = numpy.sqrt(ratio * (1.0 - decayed)) * is_rectified
        return scalars(
            dtype, weight_decay, lr / (1.0 - beta1**t), 1.0 - is_rectified, rectified, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps
        )

    if decoupled and decays:
        shrink(params, lr, weight_decay)
    states = exp_avgs, exp_avg_sqs
    update_tensors(params, states, steps, grads, factors, _update, decays=decays and not decoupled, maximize=maximize)
    count(steps)


def _update(change, p, g, states, rate, plain, rectified, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m, v = states
    average(m, (beta1, one_minus_beta1), g, change)
    average_square(v, (beta2, one_minus_beta2), g, change)
    is_plain = numpy.not_equal(plain, 0.0, out=scratch((), numpy.bool_, 0))
    numpy.sqrt(v, out=change)
    change += eps
    numpy.divide(rectified, change, out=change)
    numpy.copyto(change, 1.0, where=is_plain)
    change *= m
    change *= rate


class RAdam(Optimizer):
    """RAdam (Liu et al. 2020), as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        betas: decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        decoupled_weight_decay: decay the parameters as :class:`AdamW` does, instead of adding to the gradient.
        foreach, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "betas", "eps", "weight_decay")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach,
                "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_betas(options)
        self.check_not_negative(options, "eps", "weight_decay")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        radam_step(
            [p.array for p in params], *self.state_lists(params, ("exp_avg", "exp_avg_sq", "step")), grads,
            group.hyperparameters, self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")),
            decoupled=bool(group.last_set("decoupled_weight_decay")), maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
