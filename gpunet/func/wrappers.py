"""Names of ``torch.func`` that have nothing to do here: no tensor is wrapped, and functions need no changes in place removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError
from gpunet.func.arguments import check_function, named_as

__all__ = ["debug_unwrap", "functionalize"]


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """Return a function with the results of ``func`` and its changes of arguments in place.

    PyTorch removes changes in place for compilers that need it; the graph and captured steps record them as they are.

    Args:
        remove: "mutations" or "mutations_and_views".

    Raises:
        ArgumentError: ``remove`` is another word.
    """
    check_function("functionalize", func)
    if remove not in ("mutations", "mutations_and_views"):
        raise ArgumentError(f"functionalize: remove={remove!r}; expected 'mutations' or 'mutations_and_views'")

    @named_as(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return call


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """Return the tensor: the transforms pass plain tensors to functions, which can be printed.

    Raises:
        DtypeError: it is no tensor.
    """
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"debug_unwrap: tensor has type {type(tensor).__name__}; expected a tensor")
    return tensor
