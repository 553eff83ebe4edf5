"""Adam and AdamW: one launch for all parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.device import Array
from gpunet.errors import ArgumentError
from gpunet.optim.joined import MOST_JOINED, joined, stepped_together, subtract_parts
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.runtime.kernel import Geometry, kernel
from gpunet.runtime.memory import as_scalar, numbers, pieces, scratch, scratch_joined, ticket


@kernel(
    "optimizers.cu",
    outputs=5,
    lists=6,
    types={"steps": "float64", "learning_rate": "float64", "ticket": "uint32"},
    optional="max_exp_avg_sqs ticket",
)
def adam_step(
    params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, learning_rate, ticket,
    *, beta1, beta2, eps, weight_decay, decoupled, maximize,
):  # fmt: skip
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)."""
    dtype, rate = params[0].dtype, learning_rate.reshape(())
    together = stepped_together(steps)
    for step in [steps.flat] if together else steps:
        step += numbers(step.dtype, 1)[0]
    if decoupled and weight_decay:
        factor = scratch((), numpy.float64, 4)
        numpy.multiply(rate, -weight_decay, out=factor)
        factor += 1
        factor = as_scalar(factor, dtype, 4)
        for p in params:
            p *= factor
    scalars: Any = (beta1, beta2, eps, 0.0 if decoupled else weight_decay, maximize)
    lists: Any = (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)
    if together and exp_avgs.flat.size <= MOST_JOINED:  # small tensors: one pass over their joined state
        corrections = _corrections(steps[0], rate, beta1, beta2, dtype)
        gradients = joined(grads, 3)
        change = scratch_joined(tuple([p.shape for p in params]), dtype, 0)
        of_all: list[Any] = [change.flat, joined(params, 2).flat if scalars[3] else None, gradients.flat]
        of_all += [None if a is None else a.flat for a in lists[2:]]
        for piece in pieces(of_all):
            _adam_change(piece, corrections, *scalars)
        subtract_parts(params, change)
        return
    for index, step in enumerate(steps):
        corrections = _corrections(step, rate, beta1, beta2, dtype)
        for piece in pieces([None if a is None else a[index].reshape(-1) for a in lists]):
            update = scratch(piece[0].shape, dtype, 0)
            _adam_change([update, *piece], corrections, *scalars)
            piece[0] -= update


@functools.lru_cache
def _betas(beta1, beta2):
    return numpy.array((beta1, beta2))


def _corrections(t, rate, beta1, beta2, dtype):
    """lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) as arrays: no Python numbers, so that a replay follows t."""
    both: Any = scratch_joined(((), ()), numpy.float64, 5)
    numpy.power(_betas(beta1, beta2), t, out=both.flat)
    numpy.subtract(numbers(both.flat.dtype, 1)[0], both.flat, out=both.flat)
    numpy.sqrt(both[1], out=both[1])
    numpy.reciprocal(both.flat, out=both.flat)
    numpy.multiply(both[0], rate, out=both[0])
    result: Any = scratch_joined(((), ()), dtype, 6)
    numpy.copyto(result.flat, both.flat, casting="same_kind")
    return result


def _adam_change(arrays, corrections, beta1, beta2, eps, weight_decay, maximize):
    """Move the averages; change is what to take off the parameters.  All are vectors of one length."""
    change, p, g, m, v, largest = arrays
    if maximize:
        g = numpy.negative(g, out=scratch(m.shape, m.dtype, 1))
    if weight_decay:
        numpy.multiply(p, weight_decay, out=change)
        g = numpy.add(g, change, out=scratch(m.shape, m.dtype, 1))
    beta1, rest1, beta2, rest2, eps = numbers(m.dtype, beta1, 1 - beta1, beta2, 1 - beta2, eps)
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
    change *= corrections[1]
    change += eps
    numpy.divide(m, change, out=change)
    change *= corrections[0]


@adam_step.geometry
def _(
    params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, grads, learning_rate, ticket,
    *, beta1, beta2, eps, weight_decay, decoupled, maximize,
):  # fmt: skip
    flags = tuple("true" if f else "false" for f in (max_exp_avg_sqs is not None, decoupled, maximize))
    return Geometry(0, 256, (beta1, beta2, eps, weight_decay), flags)


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
        for beta in options["betas"]:
            if not 0.0 <= beta < 1.0:
                raise ArgumentError(f"{type(self).__name__}: betas={options['betas']}; expected numbers in [0, 1)")
        for name in ("eps", "weight_decay"):
            if not options[name] >= 0.0:
                raise ArgumentError(
                    f"{type(self).__name__}: {name}={options[name]}; expected zero or a positive number"
                )

    def names(self, group: ParameterGroup) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq" if group["amsgrad"] else "")

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        averages, squares, steps, largest = self.state_lists(params, self.names(group))
        adam_step(
            [p.array for p in params], averages, squares, largest, steps, grads, group.learning_rate, ticket(grads[0]),
            beta1=float(group["betas"][0]), beta2=float(group["betas"][1]), eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]), decoupled=self.decoupled, maximize=bool(group["maximize"]),
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
