"""ASGD: stochastic gradient descent that averages the parameters, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import elements, scalars, update_kernel, update_tensors, vectors_of

__all__ = ["ASGD"]


@update_kernel(counters="steps etas mus")
def asgd_step(params, averages, steps, etas, mus, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """p -= lambd eta p + eta g;  a += mu (p - a);  then eta = lr / (1 + lambd lr t)^alpha and mu = 1 / max(1, t - t0).

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992); the rates are those of
    Bottou, "Stochastic Gradient Descent Tricks" (2012).

    Args:
        averages: a of each tensor.
        steps: the number t - 1 of earlier steps of each tensor, incremented by the launch.
        etas, mus: the rates of this step, replaced by those of the next.
        hyperparameters: lr, lambd, alpha, t0, weight_decay.
    """
    lr, lambd, alpha, t0, weight_decay = elements(hyperparameters)

    def factors(index):
        return scalars(params[0].dtype, weight_decay, etas[index], lambd * etas[index], mus[index])

    update_tensors(
        params, (averages,), steps, grads, factors, _update, decays=decays, maximize=maximize, reads_params=True
    )
    for step, eta, mu in vectors_of(steps, etas, mus):
        step += 1.0
        numpy.divide(lr, (1.0 + lambd * lr * step) ** alpha, out=eta)
        numpy.divide(1.0, numpy.maximum(step - t0, 1.0), out=mu)


def _update(change, p, g, states, rate, shrink, share):
    (a,) = states
    numpy.multiply(g, rate, out=change)
    new = numpy.multiply(p, shrink, out=scratch(p.shape, p.dtype, 4))
    change += new
    numpy.subtract(p, change, out=new)
    new -= a
    new *= share
    a += new


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky 1992), as in PyTorch; ``state[p]["ax"]`` is the average.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        lambd: decay of the parameters and of the learning rate.
        alpha: power of the learning rate's decay, >= 0.
        t0: the step at which averaging starts.
        weight_decay: L2 penalty factor, >= 0.
        foreach, capturable: have no effect: one launch updates many parameters, and a step can always be captured.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "lambd", "alpha", "t0", "weight_decay")
    skips_on_device = True
    counters = ("step", "eta", "mu")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "alpha", "weight_decay")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        initial = {"eta": group.learning_rate, "mu": 1.0}
        asgd_step(
            [p.array for p in params], *self.state_lists(params, ("ax", "step", "eta", "mu"), initial), grads,
            group.hyperparameters, self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")),
            maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
