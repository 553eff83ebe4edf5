"""Derivatives of functions of tensors: Jacobians, Hessians, and their products with vectors (``torch.autograd.functional``).

Each function takes a function of tensors and its inputs, a tensor or a tuple of tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import mode
from gpunet.autograd.engine import grad
from gpunet.autograd.graph import FILL
from gpunet.autograd.op import OPS
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from gpunet.launch.memory import empty

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = tuple[Tensor, ...]


def _as_tuple(function: str, name: str, value: Any) -> tuple[Tensors, bool]:
    """A tensor or a tuple of tensors as a tuple, and whether it was one.

    Raises:
        DtypeError: it is something else.
    """
    is_tuple = isinstance(value, (tuple, list))
    tensors = tuple(value) if is_tuple else (value,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"{function}: {name} has type {type(tensor).__name__}; expected a tensor, or a tuple of tensors")
    return tensors, is_tuple


def _unpacked(tensors: Any, is_tuple: bool) -> Any:
    return tuple(tensors) if is_tuple else tensors[0]


def _leaves(tensors: Tensors, create_graph: bool) -> Tensors:
    """Inputs for the function, from which gradients are taken; connected with the graph of ``tensors`` if ``create_graph``."""
    found = []
    for tensor in tensors:
        if create_graph and tensor.requires_grad:
            found.append(OPS["alias"].call(tensor))
        else:
            found.append(tensor.detach().requires_grad_())
    return tuple(found)


def filled(like: Tensor, shape: tuple[int, ...], value: int) -> Tensor:
    """A new tensor of this shape, with the dtype and the device of ``like``."""
    array = empty(shape, like.array.dtype, like.array)
    FILL(array, value=value)
    return make_tensor(array)


def _call(function: str, func: Callable[..., Any], inputs: Tensors) -> tuple[Tensors, bool]:
    return _as_tuple(function, "the result of func", func(*inputs))


def _vectors(function: str, name: str, v: Any, like: Tensors) -> Tensors:
    """The vectors of a product, of the shapes of ``like``; None is 1 if ``like`` is one tensor of one element.

    Raises:
        GradientError: v is None for anything else.
        ShapeError: the number of vectors, or a shape, does not match.
    """
    if v is None:
        if len(like) != 1 or like[0].array.size != 1:
            raise GradientError(f"{function}: v=None for {name} of shapes {[tuple(t.shape) for t in like]}; expected such vectors")
        return (filled(like[0], like[0].array.shape, 1),)
    vectors, _ = _as_tuple(function, "v", v)
    if [t.shape for t in vectors] != [t.shape for t in like]:
        raise ShapeError(
            f"{function}: v has shapes {[tuple(t.shape) for t in vectors]}; expected those of {name}, "
            f"{[tuple(t.shape) for t in like]}"
        )
    return vectors


def gradients_of(
    function: str, outputs: Tensors, inputs: Tensors, vectors: Sequence[Tensor | None], create_graph: bool, strict: bool,
    retain_graph: bool = True,
) -> list[Tensor]:  # fmt: skip
    """The gradient of each input, zeros where nothing depends on it; a vector of None is 1, for an output of one element.

    Raises:
        GradientError: ``strict``, and an output does not depend on an input.
    """
    pairs = [(y, v) for y, v in zip(outputs, vectors) if y.requires_grad]
    if strict and len(pairs) < len(outputs):
        raise GradientError(f"{function}: an output of func does not depend on the inputs; pass strict=False for zeros")
    found: tuple[Any, ...] = (None,) * len(inputs)
    if pairs:
        ys, vs = zip(*pairs)
        found = grad(ys, inputs, vs, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True)
    if strict and None in [None if g is None else 0 for g in found]:
        position = next(i for i, g in enumerate(found) if g is None)
        raise GradientError(f"{function}: the result of func does not depend on input {position}; pass strict=False for zeros")
    return [filled(x, x.array.shape, 0) if g is None else g for g, x in zip(found, inputs)]


def _detached(tensors: Any, create_graph: bool) -> list[Tensor]:
    return list(tensors) if create_graph else [t.detach() for t in tensors]


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """Return (func(*inputs), the product of the vector ``v`` with the Jacobian of ``func`` at ``inputs``).

    Args:
        v: of the shape, or shapes, of the result; None is 1 if the result has one element.
        create_graph: make the results differentiable.
        strict: raise if the result does not depend on an input, instead of returning zeros.

    Returns:
        The result, and the product with the structure and shapes of ``inputs``.

    Raises:
        DtypeError: the inputs or the result are no tensors.
        GradientError, ShapeError: ``v`` is missing, or does not match the result.
    """
    given, is_tuple = _as_tuple("vjp", "inputs", inputs)
    with mode.enable_grad():
        leaves = _leaves(given, create_graph)
        outputs, outputs_are_tuple = _call("vjp", func, leaves)
        vectors = _vectors("vjp", "the result", v, outputs)
        products = gradients_of("vjp", outputs, leaves, vectors, create_graph, strict)
    return _unpacked(_detached(outputs, create_graph), outputs_are_tuple), _unpacked(_detached(products, create_graph), is_tuple)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """Return (func(*inputs), the product of the Jacobian of ``func`` at ``inputs`` with the vector ``v``).

    It is the derivative of u J v by u, two backward passes.

    Args:
        v: of the shape, or shapes, of ``inputs``; None is 1 if there is one input of one element.
        create_graph, strict: as in :func:`vjp`.

    Returns:
        The result, and the product with the structure and shapes of the result.
    """
    given, _ = _as_tuple("jvp", "inputs", inputs)
    with mode.enable_grad():
        leaves = _leaves(given, create_graph)
        vectors = _vectors("jvp", "inputs", v, given)
        outputs, is_tuple = _call("jvp", func, leaves)
        cotangents = tuple([filled(y, y.array.shape, 0).requires_grad_() for y in outputs])
        products = gradients_of("jvp", outputs, leaves, cotangents, True, strict)
        found = gradients_of("jvp", tuple(products), cotangents, vectors, create_graph, False)
    return _unpacked(_detached(outputs, create_graph), is_tuple), _unpacked(_detached(found, create_graph), is_tuple)


def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian of ``func`` at ``inputs``, one backward pass for each element of the result.

    Args:
        create_graph, strict: as in :func:`vjp`.
        vectorize: has no effect on values.
        strategy: "reverse-mode" or "forward-mode", likewise.

    Returns:
        For a tensor as result and one as input a tensor of shape (*result, *input).  A tuple of inputs gives a tuple, and a
        tuple of results a tuple of those.
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ArgumentError(f"jacobian: strategy={strategy!r}; expected 'reverse-mode' or 'forward-mode'")
    given, is_tuple = _as_tuple("jacobian", "inputs", inputs)
    with mode.enable_grad():
        leaves = _leaves(given, create_graph)
        outputs, outputs_are_tuple = _call("jacobian", func, leaves)
        rows = [_detached(derivatives_of("jacobian", y, leaves, create_graph, strict), create_graph) for y in outputs]
    return _unpacked([_unpacked(row, is_tuple) for row in rows], outputs_are_tuple)


def derivatives_of(function: str, y: Tensor, inputs: Tensors, create_graph: bool, strict: bool = False) -> list[Tensor]:
    """The derivatives of all elements of ``y`` by each input, (*y.shape, *input.shape); the graph of ``y`` stays."""
    elements, one = itertools.product(*map(range, y.shape)), filled(y, (), 1)
    rows = [gradients_of(function, (y[e],), inputs, (one,), create_graph, strict) for e in elements]
    shapes = [(*y.array.shape, *x.array.shape) for x in inputs]
    if not rows:
        return [filled(x, shape, 0) for x, shape in zip(inputs, shapes)]
    return [_stacked(gradients, shape) for gradients, shape in zip(zip(*rows), shapes)]


def _stacked(gradients: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """The gradients of all elements of a result, as one tensor of this shape."""
    rows = [OPS["_reshape"].call(g, shape=(1, *g.array.shape)) for g in gradients]
    return OPS["_reshape"].call(OPS["_cat"].call(*rows, dim=0, starts=(*range(len(rows) + 1),)), shape=shape)


def _scalar(function: str, func: Callable[..., Any]) -> Callable[..., Tensor]:
    """``func``, whose result must be a tensor of one element."""

    def call(*inputs: Tensor) -> Tensor:
        result = func(*inputs)
        if not isinstance(result, Tensor) or result.array.size != 1:
            text = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)
            raise GradientError(f"{function}: func returned {text}; expected a tensor of one element")
        return result.reshape(())

    return call


def _gradient_function(function: str, func: Callable[..., Any], strict: bool) -> Callable[..., Tensors]:
    """The gradient of a scalar function, as a differentiable function."""
    scalar = _scalar(function, func)

    def call(*inputs: Tensor) -> Tensors:
        output = scalar(*inputs)
        return tuple(gradients_of(function, (output,), inputs, (filled(output, output.array.shape, 1),), True, strict))

    return call


def hessian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Hessian of ``func``, whose result has one element, at ``inputs``.

    Args:
        create_graph, strict: as in :func:`vjp`; vectorize and outer_jacobian_strategy have no effect on values.

    Returns:
        For one input a tensor of shape (*input, *input); for a tuple of inputs, a tuple of tuples.
    """
    given, is_tuple = _as_tuple("hessian", "inputs", inputs)
    found = jacobian(_gradient_function("hessian", func, strict), given, create_graph, strict, vectorize, outer_jacobian_strategy)
    return found if is_tuple else found[0][0]


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """Return (func(*inputs), the product of the Hessian of ``func`` at ``inputs`` with ``v``); see :func:`vhp`, which is faster."""
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """Return (func(*inputs), the product of ``v`` with the Hessian of ``func`` at ``inputs``).

    Args:
        func: its result has one element.
        v: of the shape, or shapes, of ``inputs``; None is 1 if there is one input of one element.
        create_graph, strict: as in :func:`vjp`.

    Returns:
        The result, and the product with the structure and shapes of ``inputs``.
    """
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def _hessian_product(
    function: str, func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Any, Any]:
    """The product with the Hessian, which is symmetric: the gradient of (gradient v)."""
    given, is_tuple = _as_tuple(function, "inputs", inputs)
    with mode.enable_grad():
        leaves = _leaves(given, create_graph)
        vectors = _vectors(function, "inputs", v, given)
        output = _scalar(function, func)(*leaves)
        gradients = gradients_of(function, (output,), leaves, (filled(output, output.array.shape, 1),), True, strict)
        products = gradients_of(function, tuple(gradients), leaves, vectors, create_graph, strict)
    return _detached([output], create_graph)[0], _unpacked(_detached(products, create_graph), is_tuple)
