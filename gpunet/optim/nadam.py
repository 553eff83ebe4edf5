"""NAdam: Adam with Nesterov momentum, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import (
    average,
    average_square,
    elements,
    scalars,
    shrink,
    update_kernel,
    update_tensors,
    vectors_of,
)

__all__ = ["NAdam"]


@update_kernel(counters="mu_products steps", flags="decoupled")
def nadam_step(
    params, exp_avgs, exp_avg_sqs, steps, mu_products, grads, hyperparameters, skip, ticket, *, decays, decoupled, maximize
):
    """mu(t) = b1 (1 - 0.96^(t momentum_decay) / 2);  M = M mu(t);  m, v as in Adam;  q = sqrt(v / (1 - b2^t)) + eps;
    p -= lr ((1 - mu(t)) / (1 - M) g + mu(t + 1) / (1 - M mu(t + 1)) m) / q.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (2016).

    Args:
        steps: the number t - 1 of earlier steps of each tensor, incremented by the launch.
        mu_products: M, the product of mu(1), ..., mu(t - 1), multiplied by mu(t).
        hyperparameters: lr, b1, b2, eps, weight_decay, momentum_decay.
        decoupled: apply the weight decay to p instead of g.
    """
    dtype = params[0].dtype
    lr, beta1, beta2, eps, weight_decay, momentum_decay = elements(hyperparameters)

    def mu(t):
        return beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))

    def factors(index):
        t, following = steps[index] + 1.0, mu(steps[index] + 2.0)
        product = mu_products[index] * mu(t)
        of_gradient, of_average = lr * (1.0 - mu(t)) / (1.0 - product), lr * following / (1.0 - product * following)
        correction = 1.0 / numpy.sqrt(1.0 - beta2**t)
        return scalars(
            dtype, weight_decay, of_gradient, of_average, correction, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps
        )

    if decoupled and decays:
        shrink(params, lr, weight_decay)
    states = exp_avgs, exp_avg_sqs
    update_tensors(params, states, steps, grads, factors, _update, decays=decays and not decoupled, maximize=maximize)
    for step, product in vectors_of(steps, mu_products):
        step += 1.0
        product *= mu(step)


def _update(change, p, g, states, of_gradient, of_average, correction, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m, v = states
    average(m, (beta1, one_minus_beta1), g, change)
    average_square(v, (beta2, one_minus_beta2), g, change)
    root = numpy.sqrt(v, out=scratch(g.shape, g.dtype, 4))
    root *= correction
    root += eps
    ahead = numpy.multiply(m, of_average, out=scratch(g.shape, g.dtype, 5))
    numpy.multiply(g, of_gradient, out=change)
    change += ahead
    change /= root


class NAdam(Optimizer):
    """NAdam (Dozat 2016), as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        betas: decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        momentum_decay: how fast the momentum rises to betas[0], >= 0.
        decoupled_weight_decay: decay the parameters as :class:`AdamW` does, instead of adding to the gradient.
        foreach, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "betas", "eps", "weight_decay", "momentum_decay")
    skips_on_device = True
    counters = ("step", "mu_product")

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
                "capturable": capturable, "differentiable": differentiable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_betas(options)
        self.check_not_negative(options, "eps", "weight_decay", "momentum_decay")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        names = "exp_avg", "exp_avg_sq", "step", "mu_product"
        nadam_step(
            [p.array for p in params], *self.state_lists(params, names, {"mu_product": 1.0}), grads, group.hyperparameters,
            self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")),
            decoupled=bool(group.last_set("decoupled_weight_decay")), maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
