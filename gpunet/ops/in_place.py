"""In-place methods: compute out of place, then copy the result into the tensor and give it the result's graph node."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import (
    COPY,
    Tensor,
    bump_version,
    ignore_fp_errors,
    is_grad_enabled,
    make_tensor,
    operands,
    primitive,
)
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.backend.dtypes import category, complex_in_use, is_boolean, is_complex, is_floating, is_half
from gpunet.errors import DtypeError, GradientError, InPlaceError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Ufunc
from gpunet.ops.broadcast import broadcast_shape, cast, check_operand, zero_gradient
from gpunet.ops.face import numpy_names, rename


def in_place(
    function: Callable[..., Tensor], name: str, launch: Ufunc | None = None, takes_complex: bool = False
) -> Callable[..., Tensor]:
    """Return the in-place variant of a function: it writes the result to the first argument, and returns that.

    Args:
        name: the method that a user calls, for messages.
        launch: the function as a ufunc of the tensor and at most one more operand, to be launched directly on a floating
            tensor if there is no graph and no keyword.
        takes_complex: as of :func:`gpunet.ops.face.public`.
    """

    num_arguments = launch.numpy_function.nin - 1 if launch is not None else None
    aliases = numpy_names(function)

    def change(input: Tensor, *args: Any, **options: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise DtypeError(f"{name}: got {input!r}; expected a tensor, which the result is written to")
        if options:
            rename(name, options, aliases)
        others = (*args, *options.values()) if options else args
        if complex_in_use and not takes_complex:
            refuse_complex(name, (input, *others))
        needs_graph = check_in_place(input, others, name)
        array = input.array
        if len(args) == num_arguments and not (needs_graph or options) and array.size and is_floating(array.dtype):
            assert launch is not None
            if not args:
                launch(array, array)
                bump_version(input)
                return input
            _, other = operands(name, (input, *args))
            if _fits(input, other, name):
                launch(array, array, other.array if isinstance(other, Tensor) else other)
                bump_version(input)
                return input
        before = _copy_before_change(input) if needs_graph else alias_of(input)
        result = function(before, *args, **options)
        if category(result.dtype) > category(input.dtype):
            raise DtypeError(
                f"{name}: the result has dtype {result.dtype}, which a tensor of {input.dtype} cannot hold; compute a new "
                f"tensor with {name.removesuffix('_')}(), or convert the tensor with .to({result.dtype}) first"
            )
        return assign_in_place(input, result, name)

    change.__qualname__ = name  # Python's in messages
    change = functools.wraps(function)(ignore_fp_errors(change))
    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"{name.removesuffix('_')}, in place."
    return change


def _fits(target: Tensor, other: Any, name: str) -> bool:
    """Whether a second operand leaves the shape of a floating ``target`` as it is, and needs no check of its dtype."""
    if not isinstance(other, Tensor):
        check_operand(name, other)
        return not isinstance(other, (bool, complex))
    if is_boolean(other.dtype) or (complex_in_use and is_complex(other.dtype)):
        return False
    if is_half(target.dtype) and other.dtype.itemsize > 4:  # a launch would convert it to float32 first
        return False
    return other.shape == target.shape or broadcast_shape(name, target.shape, other.shape) == target.shape


def assign_in_place(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Copy ``result`` into ``target``, and give ``target`` the graph node of ``result``."""
    if result.shape != target.shape:
        raise ShapeError(
            f"{name}: the result has shape {result.shape}, the tensor {target.shape}; expected the same shape"
        )
    if target._requires_grad and not result._requires_grad and is_grad_enabled():
        result = overwrite(alias_of(target), result)
    if target.array.size:  # an empty expanded array is read-only
        COPY(target.array, result.array)
    bump_version(target)
    if result._requires_grad and is_grad_enabled():  # under no_grad(), copy_() must not adopt the source's graph
        retains_grad = target.retains_grad
        target._node, target._index, target._requires_grad = result._node, result._index, True
        if retains_grad:
            target.retain_grad()
    return target


@primitive(name="copy_", takes_complex=True)
def overwrite(x, source):
    """The source, of which x receives a gradient of zero."""
    return source.array if source.dtype == x.dtype else cast(source, dtype=x.dtype).array


overwrite.derivatives(x=zero_gradient, source=lambda g: g)


def check_in_place(target: Tensor, others: tuple[Any, ...], name: str) -> bool:
    """Return whether the graph must represent an in-place change of ``target``; raise if it cannot.

    Args:
        others: the other operands.
        name: the in-place method, for messages.

    Raises:
        GradientError: ``target`` is a leaf that requires grad.
        InPlaceError: ``target`` is a view, and it or an operand requires grad; or its memory cannot be written.
    """
    refuse_shared_memory(target.array, name)
    if not is_grad_enabled():
        return False
    if target._requires_grad and target._node is None:
        raise GradientError(
            f"{name} changes a leaf tensor that requires grad; do it under no_grad(), or compute a new tensor (e.g. "
            "gpunet.where)"
        )
    needs_graph = target._requires_grad
    for other in others:
        needs_graph = needs_graph or (isinstance(other, Tensor) and other._requires_grad)
    if needs_graph and target._view_version is not None:
        raise InPlaceError(
            f"{name} on a view, and a gradient is required; assign to the base (base[index] = ...), or to a .clone()"
        )
    return needs_graph


def refuse_shared_memory(array: Any, name: str) -> None:
    """Raise an InPlaceError if elements of an array share memory, or it is read-only."""
    if 0 in array.strides and array.size > 1 and any(n > 1 and not step for n, step in zip(array.shape, array.strides)):
        raise InPlaceError(f"{name}: elements of the tensor share memory, as those of expand() do; use .clone() first")
    if isinstance(array, numpy.ndarray) and not array.flags.writeable and array.size:
        raise InPlaceError(f"{name}: the tensor is in read-only memory; use .clone() first")


def alias_of(target: Tensor) -> Tensor:
    """A tensor with the array, version and graph node that ``target`` has before the change."""
    old = make_tensor(target.array)
    old._version, old._node, old._index = target._version, target._node, target._index
    old._requires_grad = target._requires_grad
    return old


def _copy_before_change(target: Tensor) -> Tensor:
    """A copy of ``target`` with its graph node: the op's backward may need the value that the change overwrites."""
    old = alias_of(target)
    old.array, old._version = empty(target.shape, target.dtype, target.array), [0]
    COPY(old.array, target.array)
    return old
