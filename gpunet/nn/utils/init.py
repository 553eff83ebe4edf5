"""Modules without the random numbers of their initialization."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from gpunet.errors import ArgumentError, DtypeError
from gpunet.nn.module import Module
from gpunet.ops.random import get_rng_state, set_rng_state

__all__ = ["skip_init"]

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """A module whose parameters are to be overwritten: its initialization does not advance the generator of random numbers.

    Raises:
        DtypeError: ``module_cls`` is no class of modules.
        ArgumentError: it has no parameter ``device``, as in PyTorch.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise DtypeError(f"skip_init: module_cls={module_cls!r}; expected a subclass of nn.Module")
    if "device" not in inspect.signature(module_cls).parameters:
        raise ArgumentError(f"skip_init: {module_cls.__name__} has no parameter device; create it as usual")
    state = get_rng_state()
    try:
        return module_cls(*args, **kwargs)
    finally:
        set_rng_state(state)
