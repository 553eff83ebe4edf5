"""Adam and AdamW, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import as_0d_arrays, cast_scalar, chunks, scratch, scratch_joined, ticket
from gpunet.optim.joined import MAX_JOINED, has_joined_state, join, subtract_joined
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["Adam", "AdamW"]


@list_kernel(
    "optimizers.cu",
    outputs=5,
    lists=6,
    types={"steps": "float64", "hyperparameters": "float64", "ticket": "uint32"},
    optional="max_exp_avg_sqs ticket",
)
def adam_step(
    params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, ticket, *, decays, decoupled, maximize
):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015).

    Args:
        steps: the step count t of each tensor, incremented by the launch.
        hyperparameters: lr, b1, b2, eps, weight_decay.
        ticket: see :func:`gpunet.launch.memory.ticket`.
        decays: whether weight_decay is not zero.
        decoupled: apply the weight decay to p (AdamW) instead of g.
        maximize: use -g.
    """
    dtype = params[0].dtype
    is_joined = has_joined_state(steps)
    for step in [steps.flat] if is_joined else steps:
        step += as_0d_arrays(step.dtype, 1)[0]
    if decoupled and decays:
        factor = scratch((), numpy.float64, 4)
        numpy.multiply(hyperparameters[:1].reshape(()), hyperparameters[4:].reshape(()), out=factor)
        numpy.subtract(as_0d_arrays(factor.dtype, 1)[0], factor, out=factor)
        factor = cast_scalar(factor, dtype, 4)
        for p in params:
            p *= factor
    flags: Any = (decays and not decoupled, maximize)
    lists: Any = (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)
    if is_joined and exp_avgs.flat.size <= MAX_JOINED:  # small tensors: one pass over all
        scalars = _scalars(steps[0], hyperparameters, dtype)
        gradients = join(grads, 3)
        update = scratch_joined(tuple([p.shape for p in params]), dtype, 0)
        vectors: list[Any] = [update.flat, join(params, 2).flat if flags[0] else None, gradients.flat]
        vectors += [None if a is None else a.flat for a in lists[2:]]
        for chunk in chunks(vectors):
            _adam_update(chunk, scalars, *flags)
        subtract_joined(params, update)
        return
    for index, step in enumerate(steps):
        scalars = _scalars(step, hyperparameters, dtype)
        for chunk in chunks([None if a is None else a[index].reshape(-1) for a in lists]):
            change = scratch(chunk[0].shape, dtype, 0)
            _adam_update([change, *chunk], scalars, *flags)
            chunk[0] -= change


def _scalars(t, hyperparameters, dtype):
    """Return lr / (1 - b1^t), 1 / sqrt(1 - b2^t), 1 - b1, 1 - b2 and the hyperparameters as 0-d arrays of ``dtype``.

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
    return result


def _adam_update(arrays, scalars, decays, maximize):
    """Update the averages m and v, and write the amount to subtract from the parameters to ``update``.

    Args:
        arrays: update, p, g, m, v, max_v: vectors of one length; max_v may be None, and p if not ``decays``.
        scalars: as returned by :func:`_scalars`.
    """
    update, p, g, m, v, max_v = arrays
    step_size, correction, one_minus_beta1, one_minus_beta2, _, beta1, beta2, eps, weight_decay = scalars
    if maximize:
        g = numpy.negative(g, out=scratch(m.shape, m.dtype, 1))
    if decays:
        numpy.multiply(p, weight_decay, out=update)
        g = numpy.add(g, update, out=scratch(m.shape, m.dtype, 1))
    numpy.multiply(g, one_minus_beta1, out=update)
    m *= beta1
    m += update
    numpy.multiply(g, g, out=update)
    update *= one_minus_beta2
    v *= beta2
    v += update
    if max_v is not None:
        v = numpy.maximum(max_v, v, out=max_v)
    numpy.sqrt(v, out=update)
    update *= correction
    update += eps
    numpy.divide(m, update, out=update)
    update *= step_size


@adam_step.geometry
def _(params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, ticket, *, decays, decoupled, maximize):
    flags = tuple("true" if f else "false" for f in (max_exp_avg_sqs is not None, decoupled, maximize))
    return Geometry(0, 256, (), flags)


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
        betas = options["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise DtypeError(f"{type(self).__name__}: betas={betas!r}; expected a tuple of two numbers")
        for beta in betas:
            if not 0.0 <= beta < 1.0:
                raise ArgumentError(f"{type(self).__name__}: betas={betas}; expected numbers in [0, 1)")
        for name in ("eps", "weight_decay"):
            if not options[name] >= 0.0:
                raise ArgumentError(
                    f"{type(self).__name__}: {name}={options[name]}; expected zero or a positive number"
                )

    def _state_names(self, group: ParameterGroup) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq" if group.last_set("amsgrad") else "")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        exp_avgs, exp_avg_sqs, steps, max_exp_avg_sqs = self.state_lists(params, self._state_names(group))
        adam_step(
            [p.array for p in params], exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, group.hyperparameters,
            ticket(grads[0]), decays=bool(group.last_set("weight_decay")), decoupled=bool(group.last_set("decoupled_weight_decay")),
            maximize=bool(group.last_set("maximize")),
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
