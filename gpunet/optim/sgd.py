"""Stochastic gradient descent with momentum: one launch for all parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import as_0d_arrays, cast_scalar, chunks, scratch, scratch_joined, ticket
from gpunet.optim.joined import MOST_JOINED, joined, stepped_together, subtract_parts
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["SGD"]


@list_kernel(
    "optimizers.cu",
    outputs=3,
    lists=4,
    types={"steps": "float64", "hyperparameters": "float64", "ticket": "uint32"},
    optional="momenta ticket",
)
def sgd_step(params, momenta, steps, grads, hyperparameters, ticket, *, dampened, decays, nesterov, maximize):
    """g += weight_decay p;  v = momentum v + (1 - dampening) g, v = g at the first step;  p -= lr (g + momentum v | v).

    The hyperparameters are lr, momentum, dampening and weight_decay; ``dampened`` and ``decays`` say that the last two
    are not zero.
    """
    dtype, together = params[0].dtype, stepped_together(steps)
    scalars: Any = scratch_joined(((),) * 4, dtype, 2)
    numpy.copyto(scalars.flat, hyperparameters, casting="same_kind")
    flags: Any = (decays, nesterov, maximize)
    dampening = hyperparameters[2:3].reshape(()) if dampened else None
    lists: Any = (params, grads, momenta)
    if len(params) > 1 and sum([p.size for p in params]) <= MOST_JOINED and (momenta is None or together):
        change = scratch_joined(tuple([p.shape for p in params]), dtype, 1)  # small tensors: one pass over them joined
        of_all: list[Any] = [change.flat, joined(params, 5).flat if decays else None, joined(grads, 6).flat]
        of_all.append(None if momenta is None else momenta.flat)
        shares = None if momenta is None else _shares(steps[0], scalars[1], dampening)
        for piece in chunks(of_all):
            _sgd_change(piece, shares, scalars, *flags)
        subtract_parts(params, change)
        params = ()
    for index, step in enumerate(steps[: len(params)]):
        shares = None if momenta is None else _shares(step, scalars[1], dampening)
        for piece in chunks([None if a is None else a[index].reshape(-1) for a in lists]):
            update = scratch(piece[0].shape, dtype, 1)
            _sgd_change([update, *piece], shares, scalars, *flags)
            piece[0] -= update
    for step in [steps.flat] if together else steps:
        step += as_0d_arrays(step.dtype, 1)[0]


def _shares(step, momentum, dampening):
    """What momentum keeps of the last update, and takes of the gradient: nothing and all of it at the first step.

    These are no Python numbers, so that a replay follows the step.
    """
    step, one = step.reshape(()), as_0d_arrays(step.dtype, 1)[0]
    kept = scratch((), momentum.dtype, 3)
    numpy.minimum(step, one, out=kept)
    kept *= momentum
    if dampening is None:
        return kept, None
    taken = scratch((), numpy.float64, 4)
    numpy.minimum(step, one, out=taken)
    taken *= dampening
    numpy.subtract(one, taken, out=taken)
    return kept, cast_scalar(taken, momentum.dtype, 4)


def _sgd_change(arrays, shares, scalars, decays, nesterov, maximize):
    """Move the momentum; change is what to take off the parameters.  All are vectors of one length."""
    change, p, g, v = arrays
    rate, momentum, _, weight_decay = scalars
    if maximize:
        g = numpy.negative(g, out=scratch(g.shape, g.dtype, 0))
    if decays:
        numpy.multiply(p, weight_decay, out=change)
        g = numpy.add(g, change, out=scratch(g.shape, g.dtype, 0))
    if v is not None:
        kept, taken = shares
        v *= kept
        v += g if taken is None else numpy.multiply(g, taken, out=change)
        if nesterov:
            numpy.multiply(v, momentum, out=change)
            g = numpy.add(g, change, out=change)
        else:
            g = v
    numpy.multiply(g, rate, out=change)


@sgd_step.geometry
def _(params, momenta, steps, grads, hyperparameters, ticket, *, dampened, decays, nesterov, maximize):
    flags = tuple("true" if f else "false" for f in (momenta is not None, nesterov, maximize))
    return Geometry(0, 256, (), flags)


class SGD(Optimizer):
    """p -= lr * g, with momentum (Polyak), Nesterov's form, dampening and weight decay as in PyTorch.

    Args:
        params: tensors or groups.
        lr: learning rate, >= 0.
        momentum: share of the last update that is kept, >= 0.
        dampening: share of the gradient that momentum leaves out.
        weight_decay: L2 factor, >= 0.
        nesterov: look ahead along the momentum; needs momentum > 0 and dampening 0.
        maximize: climb instead of descend.
    """

    hyperparameters = ("lr", "momentum", "dampening", "weight_decay")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                "nesterov": nesterov, "maximize": maximize,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        for name in ("momentum", "weight_decay"):
            if not options[name] >= 0.0:
                raise ArgumentError(f"SGD: {name}={options[name]}; expected zero or a positive number")
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ArgumentError(
                f"SGD: nesterov=True with momentum={options['momentum']}, dampening={options['dampening']}; expected "
                "momentum > 0 and dampening 0"
            )

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        set_to = group.set_to
        if set_to("momentum"):
            for state in map(self.state.__getitem__, params):
                if "momentum_buffer" not in state:
                    state.pop("step", None)  # those without momentum don't count: the first with it is special
        steps, momenta = self.state_lists(params, ("step", "momentum_buffer" if set_to("momentum") else ""))
        sgd_step(
            [p.array for p in params], momenta, steps, grads, group.hyperparameters, ticket(grads[0]),
            dampened=bool(set_to("dampening")), decays=bool(set_to("weight_decay")), nesterov=bool(set_to("nesterov")),
            maximize=bool(set_to("maximize")),
        )  # fmt: skip
