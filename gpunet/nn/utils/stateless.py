"""Calls of a module with other parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError, MissingNameError
from gpunet.nn.module import Module

__all__ = ["functional_call"]


def functional_call(
    module: Module, parameters_and_buffers: Any, args: Any = None, kwargs: dict[str, Any] | None = None, *,
    tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Call a module with other tensors in the place of some of its parameters and buffers; afterwards it has its own again.

    Args:
        parameters_and_buffers: name -> tensor, as of ``named_parameters()``, or a sequence of such dictionaries.
        args: a tuple of positional arguments, or the only one.
        tie_weights: a parameter that stands under several names is replaced under all of them.
        strict: all parameters and buffers must be given.

    Raises:
        ArgumentError: a name is given twice, is missing although ``strict``, or tied parameters get different tensors.
        MissingNameError: the module has no parameter or buffer of a name.
        DtypeError: a value is no tensor.
    """
    places = {name: place for name, place in _places(module)}
    given = _merged(parameters_and_buffers)
    unknown = [name for name in given if name not in places]
    if unknown:
        raise MissingNameError(f"functional_call: {type(module).__name__} has no parameter or buffer {unknown[0]!r}")
    given = _tied(given, places) if tie_weights else given
    if strict and (missing := [name for name in places if name not in given]):
        raise ArgumentError(f"functional_call: strict=True, but {missing[0]!r} is not given")
    before = {name: places[name][0][places[name][1]] for name in given}
    try:
        for name, tensor in given.items():
            table, key = places[name]
            table[key] = tensor
        return module(*(() if args is None else args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
    finally:
        for name, tensor in before.items():
            table, key = places[name]
            table[key] = tensor


def _places(module: Module) -> Any:
    """The names of parameters and buffers, tied ones under each name, with the table and the key that hold them."""
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for table in (owner._parameters, owner._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield f"{prefix}.{key}" if prefix else key, (table, key)


def _merged(given: Any) -> dict[str, Tensor]:
    parts: Sequence[Mapping[str, Any]] = [given] if isinstance(given, Mapping) else given
    found: dict[str, Tensor] = {}
    for part in parts:
        if not isinstance(part, Mapping):
            raise DtypeError(f"functional_call: got {type(part).__name__}; expected a dictionary, or a sequence of dictionaries")
        for name, tensor in part.items():
            if not isinstance(tensor, Tensor):
                raise DtypeError(f"functional_call: {name!r} has type {type(tensor).__name__}; expected a tensor")
            if name in found:
                raise ArgumentError(f"functional_call: {name!r} is in two of the dictionaries")
            found[name] = tensor
    return found


def _tied(given: dict[str, Tensor], places: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors under all names of the parameters that they replace."""
    names: dict[int, list[str]] = {}
    for name, (table, key) in places.items():
        names.setdefault(id(table[key]), []).append(name)
    found = {}
    for group in names.values():
        tensors = {id(given[name]): given[name] for name in group if name in given}
        if len(tensors) > 1:
            raise ArgumentError(f"functional_call: {group} are one parameter, but get different tensors; pass tie_weights=False")
        found.update({name: tensor for tensor in tensors.values() for name in group})
    return found
