"""Stochastic gradient descent with momentum, in one launch for all parameters of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import as_0d_arrays, cast_scalar, chunks, scratch, scratch_joined, ticket
from gpunet.optim.joined import MAX_JOINED, has_joined_state, join, subtract_joined
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
    """g += weight_decay p;  v = momentum v + (1 - dampening) g, but v = g in the first step;  p -= lr v.

    With ``nesterov``, p -= lr (g + momentum v); without momentum, p -= lr g.

    Args:
        momenta: v of each tensor, or None without momentum.
        steps: the step count of each tensor, incremented by the launch.
        hyperparameters: lr, momentum, dampening, weight_decay.
        ticket: see :func:`gpunet.launch.memory.ticket`.
        dampened: whether dampening is not zero.
        decays: whether weight_decay is not zero.
        maximize: use -g.
    """
    dtype, is_joined = params[0].dtype, has_joined_state(steps)
    scalars: Any = scratch_joined(((),) * 4, dtype, 2)
    numpy.copyto(scalars.flat, hyperparameters, casting="same_kind")
    flags: Any = (decays, nesterov, maximize)
    dampening = hyperparameters[2:3].reshape(()) if dampened else None
    lists: Any = (params, grads, momenta)
    if len(params) > 1 and sum([p.size for p in params]) <= MAX_JOINED and (momenta is None or is_joined):
        update = scratch_joined(tuple([p.shape for p in params]), dtype, 1)  # small tensors: one pass over all
        vectors: list[Any] = [update.flat, join(params, 5).flat if decays else None, join(grads, 6).flat]
        vectors.append(None if momenta is None else momenta.flat)
        factors = None if momenta is None else _momentum_factors(steps[0], scalars[1], dampening)
        for chunk in chunks(vectors):
            _sgd_update(chunk, factors, scalars, *flags)
        subtract_joined(params, update)
        params = ()
    for index, step in enumerate(steps[: len(params)]):
        factors = None if momenta is None else _momentum_factors(step, scalars[1], dampening)
        for chunk in chunks([None if a is None else a[index].reshape(-1) for a in lists]):
            change = scratch(chunk[0].shape, dtype, 1)
            _sgd_update([change, *chunk], factors, scalars, *flags)
            chunk[0] -= change
    for step in [steps.flat] if is_joined else steps:
        step += as_0d_arrays(step.dtype, 1)[0]


def _momentum_factors(step, momentum, dampening):
    """Return the factors of v and g in the new v: (momentum, 1 - dampening), but (0, 1) in the first step.

    The second factor is None if dampening is None.  The factors are arrays instead of Python numbers, so that replays
    use the current step.
    """
    step, one = step.reshape(()), as_0d_arrays(step.dtype, 1)[0]
    factor_v = scratch((), momentum.dtype, 3)
    numpy.minimum(step, one, out=factor_v)
    factor_v *= momentum
    if dampening is None:
        return factor_v, None
    factor_g = scratch((), numpy.float64, 4)
    numpy.minimum(step, one, out=factor_g)
    factor_g *= dampening
    numpy.subtract(one, factor_g, out=factor_g)
    return factor_v, cast_scalar(factor_g, momentum.dtype, 4)


def _sgd_update(arrays, factors, scalars, decays, nesterov, maximize):
    """Update the momentum v, and write the amount to subtract from the parameters to ``update``.

    Args:
        arrays: update, p, g, v: vectors of one length; v may be None, and p if not ``decays``.
        factors: as returned by :func:`_momentum_factors`; None without momentum.
        scalars: lr, momentum, dampening, weight_decay as 0-d arrays.
    """
    update, p, g, v = arrays
    lr, momentum, _, weight_decay = scalars
    if maximize:
        g = numpy.negative(g, out=scratch(g.shape, g.dtype, 0))
    if decays:
        numpy.multiply(p, weight_decay, out=update)
        g = numpy.add(g, update, out=scratch(g.shape, g.dtype, 0))
    if v is not None:
        factor_v, factor_g = factors
        v *= factor_v
        v += g if factor_g is None else numpy.multiply(g, factor_g, out=update)
        if nesterov:
            numpy.multiply(v, momentum, out=update)
            g = numpy.add(g, update, out=update)
        else:
            g = v
    numpy.multiply(g, lr, out=update)


@sgd_step.geometry
def _(params, momenta, steps, grads, hyperparameters, ticket, *, dampened, decays, nesterov, maximize):
    flags = tuple("true" if f else "false" for f in (momenta is not None, nesterov, maximize))
    return Geometry(0, 256, (), flags)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, dampening and weight decay as in PyTorch.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: learning rate, >= 0.
        momentum: factor of the previous update, >= 0.
        dampening: 1 minus the factor of the gradient in the momentum.
        weight_decay: L2 penalty factor, >= 0.
        nesterov: use Nesterov momentum; requires momentum > 0 and dampening 0.
        maximize: maximize the loss instead of minimising it.
        foreach, fused: have no effect: one launch always updates many parameters.
        differentiable: must be False: a step is not part of the graph.
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
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
                "fused": fused,
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

    def saved_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Leave out the step count, which PyTorch's SGD does not have: momentum implies a step before."""
        return {name: tensor for name, tensor in state.items() if name != "step"}

    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        last_set = group.last_set
        if last_set("momentum"):
            for state in map(self.state.__getitem__, params):
                if "momentum_buffer" not in state:
                    state.pop("step", None)  # restart the count: the first step with momentum sets v = g
        steps, momenta = self.state_lists(params, ("step", "momentum_buffer" if last_set("momentum") else ""))
        sgd_step(
            [p.array for p in params], momenta, steps, grads, group.hyperparameters, ticket(grads[0]),
            dampened=bool(last_set("dampening")), decays=bool(last_set("weight_decay")),
            nesterov=bool(last_set("nesterov")), maximize=bool(last_set("maximize")),
        )  # fmt: skip
