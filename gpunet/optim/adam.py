"""Adam and AdamW: one launch for all parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import as_0d_arrays, cast_scalar, chunks, scratch, scratch_joined, ticket
from gpunet.optim.joined import MOST_JOINED, joined, stepped_together, subtract_parts
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

    The hyperparameters are lr, b1, b2, eps and weight_decay; ``decays`` says that the last is not zero.
    """
    dtype = params[0].dtype
    together = stepped_together(steps)
    for step in [steps.flat] if together else steps:
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
    if together and exp_avgs.flat.size <= MOST_JOINED:  # small tensors: one pass over their joined state
        scalars = _scalars(steps[0], hyperparameters, dtype)
        gradients = joined(grads, 3)
        change = scratch_joined(tuple([p.shape for p in params]), dtype, 0)
        of_all: list[Any] = [change.flat, joined(params, 2).flat if flags[0] else None, gradients.flat]
        of_all += [None if a is None else a.flat for a in lists[2:]]
        for piece in chunks(of_all):
            _adam_change(piece, scalars, *flags)
        subtract_parts(params, change)
        return
    for index, step in enumerate(steps):
        scalars = _scalars(step, hyperparameters, dtype)
        for piece in chunks([None if a is None else a[index].reshape(-1) for a in lists]):
            update = scratch(piece[0].shape, dtype, 0)
            _adam_change([update, *piece], scalars, *flags)
            piece[0] -= update


def _scalars(t, hyperparameters, dtype):
    """lr / (1 - b1^t), 1 / sqrt(1 - b2^t), 1 - b1, 1 - b2 and the hyperparameters, computed in float64.

    They are arrays, not Python numbers, so that a replay follows t and the hyperparameters.
    """
    work: Any = scratch_joined(((), (), (2,), (), (2,), (), ()), numpy.float64, 5)
    size, correction, rests, rate, betas, *_ = work
    both, one = work.flat[:2], as_0d_arrays(rests.dtype, 1)[0]
    numpy.copyto(work.flat[4:], hyperparameters)
    numpy.subtract(one, betas, out=rests)
    numpy.power(betas, t, out=both)
    numpy.subtract(one, both, out=both)
    numpy.sqrt(correction, out=correction)
    numpy.reciprocal(both, out=both)
    numpy.multiply(size, rate, out=size)
    result: Any = scratch_joined(((),) * 9, dtype, 6)
    numpy.copyto(result.flat, work.flat, casting="same_kind")
    return result


def _adam_change(arrays, scalars, decays, maximize):
    """Move the averages; change is what to take off the parameters.  All are vectors of one length."""
    change, p, g, m, v, largest = arrays
    size, correction, rest1, rest2, _, beta1, beta2, eps, weight_decay = scalars
    if maximize:
        g = numpy.negative(g, out=scratch(m.shape, m.dtype, 1))
    if decays:
        numpy.multiply(p, weight_decay, out=change)
        g = numpy.add(g, change, out=scratch(m.shape, m.dtype, 1))
    numpy.multiply(g, rest1, out=change)
    m *= beta1
    m += change
    numpy.multiply(g, g, out=change)
    change *= rest2
    v *= beta2
    v += change
    if largest is not None:
        v = numpy.maximum(largest, v, out=largest)
    numpy.sqrt(v, out=change)
    change *= correction
    change += eps
    numpy.divide(m, change, out=change)
    change *= size


@adam_step.geometry
def _(params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, hyperparameters, ticket, *, decays, decoupled, maximize):
    flags = tuple("true" if f else "false" for f in (max_exp_avg_sqs is not None, decoupled, maximize))
    return Geometry(0, 256, (), flags)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient, as in PyTorch.

    Args:
        params: tensors or groups.
        lr: learning rate, >= 0.
        betas: decay of the averages of the gradient and of its square, in [0, 1).
        eps: added to the root, > 0 keeps it from zero.
        weight_decay: L2 factor, >= 0.
        amsgrad: divide by the largest average of squares so far (Reddi et al. 2018).
        maximize: climb instead of descend.
    """

    hyperparameters = ("lr", "betas", "eps", "weight_decay")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                "maximize": maximize,
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

    def names(self, group: ParameterGroup) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq" if group.set_to("amsgrad") else "")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        averages, squares, steps, largest = self.state_lists(params, self.names(group))
        adam_step(
            [p.array for p in params], averages, squares, largest, steps, grads, group.hyperparameters, ticket(grads[0]),
            decays=bool(group.set_to("weight_decay")), decoupled=self.decoupled, maximize=bool(group.set_to("maximize")),
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr * weight_decay before the step."""

    decoupled = True

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
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
