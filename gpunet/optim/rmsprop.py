"""RMSprop: steps divided by a running root mean square of the gradient, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average, average_square, count, elements, scalars, update_kernel, update_tensors

__all__ = ["RMSprop"]


@update_kernel(optional="grad_avgs momenta", flags="momenta grad_avgs")
def rmsprop_step(params, square_avgs, grad_avgs, momenta, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """v = a v + (1 - a) g^2;  u = g / (sqrt(v) + eps);  p -= lr u.

    Centered, with ``grad_avgs``: c = a c + (1 - a) g, and v - c^2 stands for v in u.  With ``momenta``: b = momentum b + u, and
    p -= lr b.

    Source: Hinton, "Neural Networks for Machine Learning", lecture 6 (2012); centered: Graves, "Generating Sequences With
    Recurrent Neural Networks" (2013).

    Args:
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr, a, eps, weight_decay, momentum.
    """
    lr, alpha, eps, weight_decay, momentum = elements(hyperparameters)
    numbers = scalars(params[0].dtype, weight_decay, lr, alpha, 1.0 - alpha, eps, momentum)
    states = square_avgs, grad_avgs, momenta
    update_tensors(params, states, steps, grads, lambda _: numbers, _update, decays=decays, maximize=maximize)
    count(steps)


def _update(change, p, g, states, lr, alpha, one_minus_alpha, eps, momentum):
    v, c, b = states
    average_square(v, (alpha, one_minus_alpha), g, change)
    if c is None:
        numpy.sqrt(v, out=change)
    else:
        average(c, (alpha, one_minus_alpha), g, change)
        numpy.multiply(c, c, out=change)
        numpy.subtract(v, change, out=change)
        numpy.sqrt(change, out=change)
    change += eps
    numpy.divide(g, change, out=change)
    if b is not None:
        b *= momentum
        b += change
        change = numpy.multiply(b, lr, out=change)
    else:
        change *= lr


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), also centered and with momentum, as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        alpha: decay rate of the average of squared gradients, >= 0.
        eps: added to the root, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        momentum: factor of the previous update, >= 0.
        centered: subtract the squared average gradient from the average of squares, an estimate of the variance.
        capturable, foreach: have no effect: a step can always be captured, and one launch updates many parameters.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "alpha", "eps", "weight_decay", "momentum")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay,
                "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "alpha", "eps", "weight_decay", "momentum")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        last_set = group.last_set
        names = "square_avg", "grad_avg" if last_set("centered") else "", "momentum_buffer" if last_set("momentum") else "", "step"
        rmsprop_step(
            [p.array for p in params], *self.state_lists(params, names), grads, group.hyperparameters, self._skip, ticket(grads[0]),
            decays=bool(last_set("weight_decay")), maximize=bool(last_set("maximize")),
        )  # fmt: skip
