"""Rprop: a step size for each element, which follows the sign of its gradient, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError
from gpunet.launch.memory import scratch, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import count, elements, scalars, update_kernel, update_tensors

__all__ = ["Rprop"]


@update_kernel()
def rprop_step(params, prevs, step_sizes, steps, grads, hyperparameters, skip, ticket, *, decays, maximize):
    """s = clamp(s eta, lowest, highest), eta by the sign of g times the previous g: eta+ if they agree, eta- if the sign has
    turned, else 1;  g = 0 where it has turned;  p -= sign(g) s.

    Source: Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm" (1993),
    without its backtracking.

    Args:
        prevs: the previous g of each tensor, replaced by g.
        step_sizes: s of each tensor.
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr (the initial s, not read), eta-, eta+, lowest, highest.
    """
    _, smaller, larger, lowest, highest = elements(hyperparameters)
    numbers = scalars(params[0].dtype, smaller, smaller, larger, lowest, highest)  # the first stands for the weight decay
    states = prevs, step_sizes
    update_tensors(params, states, steps, grads, lambda _: numbers, _update, decays=decays, maximize=maximize)
    count(steps)


def _update(change, p, g, states, smaller, larger, lowest, highest):
    previous, size = states
    mask = scratch(g.shape, numpy.bool_, 0)
    numpy.multiply(g, previous, out=change)
    numpy.greater(change, 0.0, out=mask)
    numpy.multiply(size, larger, out=size, where=mask)
    numpy.less(change, 0.0, out=mask)
    numpy.multiply(size, smaller, out=size, where=mask)
    numpy.maximum(size, lowest, out=size)
    numpy.minimum(size, highest, out=size)
    numpy.copyto(previous, g)
    numpy.copyto(previous, 0.0, where=mask)
    numpy.sign(previous, out=change)
    change *= size


class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun 1993), as in PyTorch; for gradients of the whole data set.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: the initial step size of each element, >= 0.
        etas: factors of the step size where the gradient's sign turns, and where it stays: in (0, 1) and above 1.
        step_sizes: the lowest and the highest step size.
        capturable, foreach: have no effect: a step can always be captured, and one launch updates many parameters.
        maximize: maximize the loss instead of minimising it.
        differentiable: must be False: a step is not part of the graph.

    Raises:
        ArgumentError, DtypeError: see :class:`Optimizer`.
    """

    hyperparameters = ("lr", "etas", "step_sizes")
    skips_on_device = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
                "differentiable": differentiable, "capturable": capturable,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        smaller, larger = self.check_pair(options, "etas")
        if not 0.0 < smaller < 1.0 < larger:
            raise ArgumentError(f"Rprop: etas={options['etas']}; expected a number in (0, 1), and one above 1")
        self.check_pair(options, "step_sizes")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        initial = {"step_size": group.learning_rate}
        rprop_step(
            [p.array for p in params], *self.state_lists(params, ("prev", "step_size", "step"), initial), grads,
            group.hyperparameters, self._skip, ticket(grads[0]), decays=False, maximize=bool(group.last_set("maximize")),
        )  # fmt: skip
