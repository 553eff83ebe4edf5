"""Products of Jacobians with vectors: derivatives of products from the other side, which are linear in their vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor, mode
from gpunet.autograd.functional import filled, gradients_of
from gpunet.errors import DtypeError, GradientError
from gpunet.func.arguments import vectors_like
from gpunet.func.evaluation import Evaluation, closed_entry
from gpunet.func.trees import flatten, unflatten

__all__ = ["jvp", "linearize"]


class Linearization:
    """The Jacobian J of an evaluation, as u J for vectors u that are entries: it is linear in u, so d(u J)/du v is J v.

    Args:
        evaluation: whose graph stays.

    Attributes:
        outputs: the tensors of the result.
        cotangents: u, one for each output.
        products: u J, one for each input.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation, self.transform = evaluation, evaluation.transform
        self.outputs = evaluation.outputs(must_be_inexact=False)
        self.cotangents = tuple([closed_entry(filled(y, y.array.shape, 0)) for y in self.outputs])
        with mode.enable_grad():
            self.products: tuple[Tensor, ...] = tuple(
                gradients_of(self.transform, self.outputs, evaluation.inputs, self.cotangents, True, False)
            )

    def apply(self, tangents: Any) -> Any:
        """J v, with the structure of the result.

        Args:
            tangents: v, with the structure and the shapes of the inputs.
        """
        evaluation = self.evaluation
        vectors = vectors_like(self.transform, "tangents", tangents, evaluation.structure, evaluation.inputs, "primals")
        create = mode.current.enabled and (evaluation.is_connected or any(vector.requires_grad for vector in vectors))
        with mode.enable_grad():
            found = gradients_of(self.transform, self.products, self.cotangents, tuple(vectors), create, False)
        return evaluation.for_outside(unflatten(flatten(evaluation.result)[1], found))


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """Return ``func(*primals)`` and the product of the Jacobian of ``func`` there with a vector.

        value, along_v = func.jvp(f, (x,), (v,))

    There is no forward mode: the product is the derivative of u J by u, two backward passes, whose time does not depend on the
    number of outputs either.

    Args:
        primals: a tuple of the arguments of ``func``, each a tensor or nested tuples, lists and dictionaries of tensors.
        tangents: the vector, with the structure and the shapes of ``primals``.
        strict: raise if an output does not depend on the arguments, instead of returning zeros.
        has_aux: ``func`` returns (result, aux); aux is then returned as the third value.

    Returns:
        The result, and the product with the structure and the shapes of the result.

    Raises:
        DtypeError: ``primals`` is no tuple, or an argument or the result has other leaves than tensors, or an argument is of
            integers.
        ArgumentError, ShapeError: ``tangents`` has another structure or other shapes than ``primals``.
        GradientError: ``strict``, and an output does not depend on the arguments; or the result is no pair, although ``has_aux``.
    """
    if not isinstance(primals, tuple):
        raise DtypeError(f"jvp: primals has type {type(primals).__name__}; expected a tuple of the arguments of func")
    evaluation = Evaluation("jvp", func, primals, {}, None, has_aux)
    if strict and not all(y.requires_grad for y in evaluation.outputs(must_be_inexact=False)):
        raise GradientError("jvp: an output of func does not depend on the primals; pass strict=False for zeros")
    product = Linearization(evaluation).apply(tangents)
    result = evaluation.for_outside(evaluation.result)
    return (result, product, evaluation.for_outside(evaluation.aux)) if has_aux else (result, product)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Return ``func(*primals)`` and a function that multiplies the Jacobian of ``func`` there with vectors.

        value, push_forward = func.linearize(f, x)
        push_forward(v)     # the product of jvp, one backward pass for each vector

    Args:
        primals: as in :func:`vjp`; ``func`` is called once.

    Returns:
        The result, and the function of vectors, one for each argument.

    Raises:
        DtypeError: an argument or the result has other leaves than tensors, or an argument is of integers.
        ArgumentError, ShapeError: in a call, the vectors have another structure or other shapes than the arguments.
    """
    linearization = Linearization(Evaluation("linearize", func, primals, {}, None, False))

    def push_forward(*tangents: Any) -> Any:
        return linearization.apply(tangents)

    return linearization.evaluation.for_outside(linearization.evaluation.result), push_forward
