"""Modules as functions of their parameters and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError, StackError
from gpunet.nn import normalization
from gpunet.nn.module import Module
from gpunet.nn.utils import stateless
from gpunet.ops.join import stack

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]


def functional_call(
    module: Module, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: dict[str, Any] | None = None, *,
    tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Call a module with these parameters and buffers in the place of its own (see ``gpunet.nn.utils.stateless``)."""
    return stateless.functional_call(
        module, parameter_and_buffer_dicts, args, kwargs, tie_weights=tie_weights, strict=strict
    )


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (parameters, buffers) of several modules, by name, each stacked along a new first dimension.

    The parameters are new leaves.  :class:`gpunet.nn.Stack` runs many nets by one launch for all; this function, with
    :func:`vmap` and :func:`functional_call`, calls any module once for each of them.

    Args:
        models: modules of one class, all in training mode or none.

    Raises:
        ArgumentError: there is no module.
        StackError: the classes, the modes, the names, shapes, dtypes or devices of tensors, or their ``requires_grad`` differ.
    """
    models = list(models)
    if not models:
        raise ArgumentError("stack_module_state: models is empty; expected one module or more")
    for what, values in (
        ("class", [type(model).__name__ for model in models]),
        ("mode", ["training" if model.training else "evaluation" for model in models]),
    ):
        for index, value in enumerate(values):
            if value != values[0]:
                raise StackError(
                    f"stack_module_state: the {what} of model {index} is {value}, that of model 0 {values[0]}; expected the same "
                    "for all models"
                )
    parameters = _stacked([dict(model.named_parameters()) for model in models])
    return parameters, _stacked([dict(model.named_buffers()) for model in models])


def _stacked(states: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of each name, stacked."""
    for index, state in enumerate(states):
        if different := state.keys() ^ states[0].keys():
            raise StackError(f"stack_module_state: {sorted(different)[0]!r} is in one of the models 0 and {index} alone")
    found = {}
    for name, first in states[0].items():
        for index, state in enumerate(states):
            if _facts(state[name]) != _facts(first):
                raise StackError(
                    f"stack_module_state: {name!r} of model {index} has (shape, dtype, device, requires_grad) "
                    f"{_facts(state[name])}, that of model 0 {_facts(first)}; expected the same for all models"
                )
        stacked = stack([state[name].detach() for state in states])
        found[name] = stacked.requires_grad_(first.requires_grad)
    return found


def _facts(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), str(tensor.dtype), str(tensor.device), tensor.requires_grad


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Take their running statistics from all batch norm layers of ``root``, in place, and return it.

    They then normalize by the batch also in evaluation mode, and change no buffer, so that :func:`vmap` can call the module.

    Raises:
        DtypeError: ``root`` is no module.
    """
    if not isinstance(root, Module):
        raise DtypeError(f"replace_all_batch_norm_modules_: root has type {type(root).__name__}; expected a module")
    for module in root.modules():
        if isinstance(module, normalization._BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
