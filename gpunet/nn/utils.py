"""Clipping of gradients between ``backward()`` and ``optimizer.step()``, also inside of a recorded step.

    loss.backward()
    norm = gpunet.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

All gradients are reduced in one launch and scaled in another (of 48 tensors each), in an order that follows from the
shapes alone; the norm stays on the device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy

from gpunet.autograd import Tensor, bump_version, ignore_fp_errors
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError
from gpunet.launch.kernel import ceil_div
from gpunet.launch.list_kernel import ELEMENTS_A_BLOCK, MAX_TENSORS
from gpunet.launch.memory import empty, ticket
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.clip import clip_by_norm, clip_by_value, gradient_norm

Tensors = Tensor | Iterable[Tensor]


@ignore_fp_errors
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))``, in place; return the norm that they had.

    Args:
        parameters: tensors; those without a gradient are passed over.
        max_norm: zero or positive.
        norm_type: the order p of the norm (sum |g|^p)^(1/p) over all elements, > 0; ``inf`` for the largest.
        error_if_nonfinite: read the norm back and raise when it is not finite; without it nothing waits for a card.
        foreach: as in PyTorch; one launch takes all tensors, whatever it says.

    Returns:
        The norm, a tensor without dimensions, of the gradients' dtype and on their device; 0 when there are none.

    Raises:
        ArgumentError: max_norm or norm_type out of range.
        DtypeError, DeviceError: gradients of different dtypes, or on different devices.
        GradientError: the norm is not finite, and ``error_if_nonfinite``.
        CaptureError: ``error_if_nonfinite`` in a step that is recorded.
    """
    grads = _gradients(parameters)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    _scale(grads, max_norm, norm)
    return norm


@ignore_fp_errors
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of all elements of ``tensors``; arguments and errors are those of :func:`clip_grad_norm_`."""
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    order = float(norm_type)
    if not order > 0.0:
        raise ArgumentError(f"norm_type={norm_type!r}; expected a positive number or inf")
    if not tensors:
        return Tensor(numpy.zeros((), numpy.float32))
    _check_alike(tensors)
    norm = empty((1,), tensors[0].dtype, tensors[0].array)
    launches = list(_launches(tensors))
    for number, arrays in enumerate(launches):
        counter = ticket(norm)
        partials = None
        if counter is not None:
            blocks = sum(max(1, ceil_div(a.size, ELEMENTS_A_BLOCK)) for a in arrays)
            partials = empty((blocks,), norm.dtype, norm)
        gradient_norm(
            arrays, norm, partials, counter, order=order, first=number == 0, last=number == len(launches) - 1
        )
    result = Tensor(norm.reshape(()))
    if error_if_nonfinite:
        graph_break_on_read("error_if_nonfinite=True")
        if not math.isfinite(result.item()):
            raise GradientError(
                f"the norm of order {order:g} of the gradients is {result.item()}: there is nothing to scale them to. Look for "
                "the step before in which the loss grew; error_if_nonfinite=False scales nevertheless"
            )
    return result


@ignore_fp_errors
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by ``min(1, max_norm / (total_norm + 1e-6))``, in place: the second half of
    :func:`clip_grad_norm_`, whose arguments and errors it has.
    """
    _scale(_gradients(parameters), max_norm, total_norm)


@ignore_fp_errors
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Move each element of all gradients to the nearest in [-clip_value, clip_value], in place; NaN stays NaN.

    Raises:
        ArgumentError: a clip_value below zero.
    """
    if not clip_value >= 0.0:
        raise ArgumentError(f"clip_value={clip_value!r}; expected zero or a positive number")
    grads = _gradients(parameters)
    for _, alike in itertools.groupby(grads, lambda g: (g.dtype, g.device)):
        for arrays in _launches(list(alike)):
            clip_by_value(arrays, limit=float(clip_value))
    for g in grads:
        bump_version(g)


def _scale(grads: list[Tensor], max_norm: float, norm: Tensor) -> None:
    if not max_norm >= 0.0:
        raise ArgumentError(f"max_norm={max_norm!r}; expected zero or a positive number")
    if grads:
        _check_alike([*grads, norm])
    for arrays in _launches(grads):
        clip_by_norm(arrays, norm.array.reshape(1), max_norm=float(max_norm))
    for g in grads:
        bump_version(g)


def _gradients(parameters: Tensors) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p._grad for p in parameters if p._grad is not None]


def _launches(tensors: list[Tensor]) -> Iterator[list[Array]]:
    for start in range(0, len(tensors), MAX_TENSORS):
        yield [t.array for t in tensors[start : start + MAX_TENSORS]]


def _check_alike(tensors: list[Tensor]) -> None:
    first = tensors[0].array
    for tensor in tensors:
        array = tensor.array
        if array.dtype != first.dtype:
            raise DtypeError(f"one norm of tensors of {first.dtype} and of {array.dtype}; take one of each dtype by itself")
        if type(array) is not type(first):
            raise DeviceError(
                f"one norm of tensors on {tensors[0].device} and on {tensor.device}; take one of each device by itself"
            )
