"""Jacobians and Hessians of functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from gpunet.autograd import Tensor, mode
from gpunet.autograd.functional import derivatives_of
from gpunet.errors import ArgumentError
from gpunet.func.arguments import Argnums, check_function, named_as
from gpunet.func.evaluation import Evaluation, refuse_complex
from gpunet.func.forward import Linearization
from gpunet.func.randomness import check_randomness, refusing_draws
from gpunet.func.trees import flatten, unflatten

__all__ = ["hessian", "jacfwd", "jacrev"]


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:  # fmt: skip
    """Return a function of the arguments of ``func`` that returns its Jacobian: a backward pass for each element of the result.

    Args:
        func: its result is a tensor, or nested tuples, lists and dictionaries of tensors.
        argnums, has_aux: as in :func:`grad`.
        chunk_size: the rows that PyTorch computes at once; it changes nothing here.

    Returns:
        The function.  Its result has the structure of the result of ``func``, with the structure of the argument, or a tuple of
        those, in the place of each tensor y, and there a tensor of shape (*y.shape, *x.shape) for each tensor x.

    Raises:
        ArgumentError: ``chunk_size`` is not positive.
        DtypeError: in a call, a tensor is complex, or not floating; else as :func:`grad`.
    """
    check_function("jacrev", func)
    check_chunk_size("jacrev", chunk_size)

    @named_as(func)
    def call(*args: Any) -> Any:
        evaluation = Evaluation("jacrev", func, args, {}, argnums, has_aux)
        outputs = evaluation.outputs(must_be_inexact=True)
        _refuse_complex(evaluation, outputs)
        with mode.enable_grad():
            rows = [derivatives_of("jacrev", y, evaluation.inputs, evaluation.is_connected) for y in outputs]
        return _with_structure(evaluation, rows, has_aux)

    return call


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """As :func:`jacrev`, by one backward pass for each element of the argument: for functions of few numbers that return many.

    Args:
        randomness: "error" refuses random numbers in ``func``; with "same" it draws them once, for all columns.

    Raises:
        ArgumentError: ``randomness`` is neither; "different" would give each column the Jacobian of another function.  In a call,
            ``func`` draws random numbers, and ``randomness`` is "error".
    """
    check_function("jacfwd", func)
    check_randomness("jacfwd", randomness)
    if randomness == "different":
        raise ArgumentError(
            "jacfwd: randomness='different' would take each column from other random numbers; expected 'same', or 'error'"
        )

    @named_as(func)
    def call(*args: Any) -> Any:
        with refusing_draws("jacfwd", "randomness='same'") if randomness == "error" else nullcontext():
            evaluation = Evaluation("jacfwd", func, args, {}, argnums, has_aux)
        _refuse_complex(evaluation, evaluation.outputs(must_be_inexact=False))
        linearization = Linearization(evaluation)
        with mode.enable_grad():
            create, cotangents = evaluation.is_connected, linearization.cotangents
            columns = [derivatives_of("jacfwd", product, cotangents, create) for product in linearization.products]
            rows = [[_last_first(column, x.array.ndim) for column, x in zip(by_y, evaluation.inputs)] for by_y in zip(*columns)]
        return _with_structure(evaluation, rows, has_aux)

    return call


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """Return a function of the arguments of ``func`` that returns its second derivatives: the Jacobian of the Jacobian.

    Args:
        argnums: as in :func:`grad`.

    Returns:
        The function.  For tensors y and x its result is of shape (*y.shape, *x.shape, *x.shape); of several arguments and nested
        tensors it has the structure of the argument twice.  It takes a backward pass for each element of the Jacobian.

    Raises:
        As :func:`jacrev`.
    """
    check_function("hessian", func)
    return jacrev(jacrev(func, argnums), argnums)


def check_chunk_size(transform: str, chunk_size: Any) -> None:
    """Raise an ArgumentError unless ``chunk_size`` is None or a positive integer."""
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise ArgumentError(f"{transform}: chunk_size={chunk_size!r}; expected None, or 1 or more")


def _refuse_complex(evaluation: Evaluation, outputs: tuple[Tensor, ...]) -> None:
    refuse_complex(evaluation.transform, evaluation.inputs, "an argument to differentiate by")
    refuse_complex(evaluation.transform, outputs, "the result of func")


def _last_first(column: Tensor, num_first: int) -> Tensor:
    """A tensor of shape (*x.shape, *y.shape) as one of (*y.shape, *x.shape), with ``num_first`` dimensions of x."""
    return column.permute([*range(num_first, column.array.ndim), *range(num_first)])


def _with_structure(evaluation: Evaluation, rows: Any, has_aux: bool) -> Any:
    """The derivatives of each output by each input, in the structure of the result."""
    inner = [unflatten(evaluation.structure, row) for row in rows]
    found = evaluation.for_outside(unflatten(flatten(evaluation.result)[1], inner))
    return (found, evaluation.for_outside(evaluation.aux)) if has_aux else found
