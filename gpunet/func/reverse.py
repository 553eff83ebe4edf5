"""Gradients and products of vectors with Jacobians, by backward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import mode
from gpunet.autograd.functional import gradients_of
from gpunet.func.arguments import Argnums, check_function, named_as, vectors_like
from gpunet.func.evaluation import Evaluation
from gpunet.func.trees import flatten, unflatten

__all__ = ["grad", "grad_and_value", "vjp"]


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Return a function of the arguments of ``func`` that returns the gradient of its result.

        slope = func.grad(lambda x: x.sin().sum())
        slope(x)                     # x.cos()
        func.grad(slope_at_0)(x)     # gradients of gradients, any number of times

    Args:
        func: a function, or a module, whose result is a tensor without dimensions.
        argnums: the position of the argument to differentiate by, a tensor or nested tuples, lists and dictionaries of tensors;
            or a tuple of positions.
        has_aux: ``func`` returns (result, aux); the new function then returns (gradient, aux).

    Returns:
        The function.  Its gradient has the structure of the argument, of several arguments it is a tuple; an argument that the
        result does not depend on has a gradient of zeros.  It can be differentiated by what ``func`` depends on: arguments, and
        tensors from outside that require grad.

    Raises:
        DtypeError: in a call, an argument has other leaves than floating or complex tensors, or the result is no tensor.
        GradientError: in a call, the result has dimensions, or is no pair although ``has_aux``.
        ArgumentError: in a call, ``argnums`` names no argument.
    """
    check_function("grad", func)

    @named_as(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        gradient, value = _grad_and_value("grad", func, argnums, has_aux, args, kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return call


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As :func:`grad`, but the function returns (gradient, result), and with ``has_aux`` (gradient, (result, aux))."""
    check_function("grad_and_value", func)

    @named_as(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _grad_and_value("grad_and_value", func, argnums, has_aux, args, kwargs)

    return call


def _grad_and_value(
    transform: str, func: Callable[..., Any], argnums: Argnums, has_aux: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    evaluation = Evaluation(transform, func, args, kwargs, argnums, has_aux)
    result, create = evaluation.scalar(), evaluation.is_connected
    with mode.enable_grad():
        found = gradients_of(transform, (result,), evaluation.inputs, (None,), create, False, retain_graph=create)
    gradient = evaluation.for_outside(unflatten(evaluation.structure, found))
    value = (result, evaluation.aux) if has_aux else result
    return gradient, evaluation.for_outside(value)


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return ``func(*primals)`` and a function that multiplies a vector with the Jacobian of ``func`` there.

        value, pull_back = func.vjp(f, x, y)
        by_x, by_y = pull_back(v)     # v has the structure and the shapes of value; any number of times

    Args:
        func: its result is a tensor, or nested tuples, lists and dictionaries of tensors.
        primals: its arguments, each a tensor or nested tensors.
        has_aux: ``func`` returns (result, aux); aux is then returned as the third value.

    Returns:
        The result, and the function, which returns a tuple of the products by each argument, with its structure.

    Raises:
        DtypeError: an argument or the result has other leaves than floating or complex tensors.
        GradientError: the result is no pair, although ``has_aux``.
        ArgumentError, ShapeError: in a call, the vector has another structure or other shapes than the result.
    """
    evaluation = Evaluation("vjp", func, primals, {}, None, has_aux)
    outputs = evaluation.outputs(must_be_inexact=True)
    structure = flatten(evaluation.result)[1]

    def pull_back(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        vectors = vectors_like("vjp", "cotangents", cotangents, structure, outputs, "result")
        create = mode.current.enabled if create_graph is None else create_graph
        create = create and (evaluation.is_connected or any(vector.requires_grad for vector in vectors))
        with mode.enable_grad():
            found = gradients_of("vjp", outputs, evaluation.inputs, tuple(vectors), create, False, retain_graph=retain_graph)
        return evaluation.for_outside(unflatten(evaluation.structure, found))

    result = evaluation.for_outside(evaluation.result)
    return (result, pull_back, evaluation.for_outside(evaluation.aux)) if has_aux else (result, pull_back)
