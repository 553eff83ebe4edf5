"""Run a network on trial, and leave everything as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from gpunet.autograd import no_grad
from gpunet.nn import Module
from gpunet.nn.module import is_lazy
from gpunet.train.randomness import random_state, set_random_state

__all__ = ["everything_kept"]


@contextlib.contextmanager
def everything_kept(modules: Sequence[Module], stateful: Sequence[Any]) -> Iterator[None]:
    """On exit all weights, buffers, gradients, states of ``stateful`` and global random numbers are as before.

    Weights and buffers that were uninitialized stay as they were initialized meanwhile, with running statistics reset.

    Args:
        stateful: objects with ``state_dict`` and ``load_state_dict``.
    """
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    values = [(t, None if is_lazy(t) else t.detach().clone(), t.grad) for t in tensors]
    lazy = [m for module in modules for m in module.modules() if any(map(is_lazy, (*m._parameters.values(), *m._buffers.values())))]
    states = [(part, copy.deepcopy(part.state_dict())) for part in stateful]
    numbers = random_state()
    try:
        yield
    finally:
        with no_grad():
            for tensor, value, gradient in values:
                if value is not None:
                    tensor.copy_(value)
                tensor.grad = gradient
            for module in lazy:
                if hasattr(module, "reset_running_stats") and not any(map(is_lazy, module._buffers.values())):
                    module.reset_running_stats()
        for part, state in states:
            part.load_state_dict(state)
        set_random_state(numbers)
