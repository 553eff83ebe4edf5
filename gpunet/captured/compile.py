"""``compile``, PyTorch's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.errors import DtypeError

__all__ = ["compile"]


def compile(
    model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None, backend: Any = "inductor", mode: str | None = None,
    options: Any = None, disable: bool = False,
) -> Any:  # fmt: skip
    """Return ``model``, a module or a function, as it is: :func:`gpunet.capture` compiles whole training steps.

    A function whose result is differentiated later cannot be captured alone, because its replay makes no graph.  Without
    ``model`` it returns a decorator.  The other arguments are accepted and have no effect.

    Raises:
        DtypeError: ``model`` cannot be called.
    """
    if model is None:
        return _unchanged
    return _unchanged(model)


def _unchanged(model: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(model):
        raise DtypeError(f"compile: got {model!r}; expected a module or a function")
    return model
