"""Adam and AdamW, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.memory import as_0d_arrays, scratch_joined, ticket
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.update import average, average_square, count, shrink, update_kernel, update_tensors

__all__ = ["Adam", "AdamW"]


@update_kernel(optional="max_exp_avg_sqs", flags="max_exp_avg_sqs decoupled")
def adam_step(
    params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, skip, ticket, *, decays, decoupled, maximize
):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015).

    Args:
        steps: the step count t of each tensor, incremented by the launch.
        hyperparameters: lr, b1, b2, eps, weight_decay.
        decoupled: apply the weight decay to p (AdamW) instead of g.
    """
    dtype = params[0].dtype
    count(steps)
    if decoupled and decays:
        shrink(params, hyperparameters[:1], hyperparameters[4:])
    update_tensors(
        params, (exp_avgs, exp_avg_sqs, max_exp_avg_sqs), steps, grads,
        lambda index: _scalars(steps[index], hyperparameters, dtype), _update,
        decays=decays and not decoupled, maximize=maximize,
    )  # fmt: skip


def _scalars(t, hyperparameters, dtype):
    """Return the weight decay, then lr / (1 - b1^t), 1 / sqrt(1 - b2^t), b1, 1 - b1, b2, 1 - b2 and eps, as 0-d arrays.

    They are computed in float64, from arrays instead of Python numbers, so that replays use the current t and
    hyperparameters.
    """
    work: Any = scratch_joined(((), (), (2,), (), (2,), (), ()), numpy.float64, 5)
    step_size, correction, one_minus_betas, lr, betas, *_ = work
    both, one = work.flat[:2], as_0d_arrays(one_minus_betas.dtype, 1)[0]  # both: step_size and correction
    numpy.copyto(work.flat[4:], hyperparameters)
    numpy.subtract(one, betas, out=one_minus_betas)
    numpy.power(betas, t, out=both)
    numpy.subtract(one, both, out=both)
    numpy.sqrt(correction, out=correction)
    numpy.reciprocal(both, out=both)
    numpy.multiply(step_size, lr, out=step_size)
    result: Any = scratch_joined(((),) * 9, dtype, 6)
    numpy.copyto(result.flat, work.flat, casting="same_kind")
    step_size, correction, one_minus_beta1, one_minus_beta2, _, beta1, beta2, eps, weight_decay = result
    return weight_decay, step_size, correction, beta1, one_minus_beta1, beta2, one_minus_beta2, eps


def _update(change, p, g, states, step_size, correction, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    """Update the averages m and v, and the maximum of v if it is not None."""
    m, v, max_v = states
    average(m, (beta1, one_minus_beta1), g, change)
    average_square(v, (beta2, one_minus_beta2), g, change)
    if max_v is not None:
        v = numpy.maximum(max_v, v, out=max_v)
    numpy.sqrt(v, out=change)
    change *= correction
    change += eps
    numpy.divide(m, change, out=change)
    change *= step_size


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), with weight decay added to the gradient, as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        betas: decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: L2 penalty factor, >= 0.
        amsgrad: use the maximum of all averages of squares so far (Reddi et al. 2018).
        maximize: maximize the loss instead of minimising it.
        foreach, fused: have no effect: one launch always updates many parameters.
        capturable: has no effect: a step can always be captured.
        differentiable: must be False: a step is not part of the graph.
        decoupled_weight_decay: decay as :class:`AdamW` does.
    """

    hyperparameters = ("lr", "betas", "eps", "weight_decay")
    skips_on_device = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
                "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_betas(options)
        self.check_not_negative(options, "eps", "weight_decay")

    def _state_names(self, group: ParameterGroup) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq" if group.last_set("amsgrad") else "")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        exp_avgs, exp_avg_sqs, steps, max_exp_avg_sqs = self.state_lists(params, self._state_names(group))
        adam_step(
            [p.array for p in params], exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, group.hyperparameters,
            self._skip, ticket(grads[0]), decays=bool(group.last_set("weight_decay")),
            decoupled=bool(group.last_set("decoupled_weight_decay")), maximize=bool(group.last_set("maximize")),
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr * weight_decay before the step.

    The arguments are those of :class:`Adam`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`, also one of Adam; the weight decay stays decoupled."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
