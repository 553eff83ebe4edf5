"""Gradient clipping, for use between ``backward()`` and ``optimizer.step()``, also inside a recorded step.

    loss.backward()
    norm = gpunet.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

One launch computes the norm of up to 48 gradients and another one scales them.  The order of the reduction depends on
the shapes only, so results are deterministic.  The norm stays on the device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy

from gpunet.autograd import Tensor, bump_version, contiguous, contiguous_in_place, ignore_fp_errors, no_grad, wrap
from gpunet.autograd.complex_numbers import as_real, refuse_complex
from gpunet.autograd.loss_scaling import warn_of_scaled_gradients
from gpunet.backend.dtypes import accumulator, is_complex
from gpunet.errors import ArgumentError, DeviceError, GradientError, ShapeError
from gpunet.launch.list_kernel import max_tensors, num_blocks
from gpunet.launch.memory import empty, ticket
from gpunet.launch.tape import graph_break_on_read, warn_user
from gpunet.ops.clip import clip_by_norm, clip_by_value, gradient_norm
from gpunet.ops.join import stack

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

Tensors = Tensor | Iterable[Tensor]


@ignore_fp_errors
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))`` in place; return their norm before scaling.

    Args:
        parameters: tensors; those without a gradient are skipped.
        max_norm: maximum norm, >= 0.
        norm_type: the order p of the norm (sum |g|^p)^(1/p) over all elements; ``inf`` for the maximum of |g|, ``-inf`` for
            the minimum, and 0 for the number of gradients with an element that is not zero, as in PyTorch.
        error_if_nonfinite: raise if the norm is not finite; this reads the norm, which synchronizes with the GPU.
        foreach: has no effect: one launch always takes many gradients.

    Returns:
        The norm as a 0-d tensor with the dtype and device of the gradients, float32 for halves, the widest of several
        dtypes; 0 if there are no gradients.

    Raises:
        ArgumentError: max_norm or norm_type is out of range.
        DeviceError: the gradients are on different devices.
        GradientError: the norm is not finite and ``error_if_nonfinite`` is set.
        CaptureError: ``error_if_nonfinite`` is set inside a recorded step.
    """
    grads = _gradients("clip_grad_norm_", parameters)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    _scale(grads, max_norm, norm)
    return norm


def clip_grad_norm(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The old name of :func:`clip_grad_norm_`."""
    warn_user("nn.utils.clip_grad_norm is deprecated; use nn.utils.clip_grad_norm_", FutureWarning)
    result: Tensor = clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
    return result


@ignore_fp_errors
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """Return the norm of all elements of ``tensors``; arguments and errors as in :func:`clip_grad_norm_`."""
    order = float(norm_type)
    tensors = [_magnitudes(t, order) for t in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    if math.isnan(order):
        raise ArgumentError(f"norm_type={norm_type!r}; expected a number")
    if not tensors:
        return wrap(numpy.zeros((), numpy.float32))
    _check_devices(tensors)
    if order > 0.0:
        norms = [_norm_of_positive_order(group, order) for group in _by_dtype(tensors)]
        widest = functools.reduce(numpy.promote_types, [norm.dtype for norm in norms])
        result = norms[0] if len(norms) == 1 else _norm_of_positive_order([norm.to(widest) for norm in norms], order)
    else:
        result = _composed_norm(tensors, order)
    if error_if_nonfinite:
        graph_break_on_read("error_if_nonfinite=True")
        if not math.isfinite(result.item()):
            raise GradientError(
                f"the norm of order {order:g} of the gradients is {result.item()}, so they cannot be clipped. Find the "
                "earlier step in which the loss grew, or pass error_if_nonfinite=False to scale them anyway"
            )
    return result


def _magnitudes(x: Tensor, order: float) -> Tensor:
    """A real tensor whose norm of this order is that of x, which may be complex."""
    return as_real(x) if order == 2.0 or not is_complex(x.dtype) else x.detach().abs()


def _norm_of_positive_order(tensors: list[Tensor], order: float) -> Tensor:
    norm = empty((1,), accumulator(tensors[0].dtype), tensors[0].array)
    batches = list(_batches(tensors))
    for number, batch in enumerate(batches):
        arrays, counter = [contiguous(t.array) for t in batch], ticket(norm)
        partials = None
        if counter is not None:
            partials = empty((num_blocks(arrays),), norm.dtype, norm)
        gradient_norm(
            arrays, norm, partials, counter, order=order, first=number == 0, last=number == len(batches) - 1
        )
    return wrap(norm.reshape(()))


def _composed_norm(tensors: list[Tensor], order: float) -> Tensor:
    """The norm of an order that is not positive.

    Raises:
        ShapeError: the order is negative, and a tensor is empty: its norm is not defined.
    """
    if order < 0.0 and (empties := [t for t in tensors if not t.array.size]):
        raise ShapeError(f"norm_type={order:g} with a gradient of shape {tuple(empties[0].shape)}; expected at least one element")
    with no_grad():
        widest = functools.reduce(numpy.promote_types, [accumulator(t.dtype) for t in tensors])
        magnitudes = [t.detach().to(widest).abs().reshape(-1) for t in tensors]
        if order == 0.0:
            return stack([(m != 0.0).any() for m in magnitudes]).sum().to(magnitudes[0].dtype)
        if order == -math.inf:
            return stack([m.min() for m in magnitudes]).min()
        return stack([(m**order).sum() for m in magnitudes]).sum() ** (1.0 / order)


@ignore_fp_errors
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by ``min(1, max_norm / (total_norm + 1e-6))`` in place.

    This is the second half of :func:`clip_grad_norm_`, with the same arguments and errors.
    """
    _scale(_gradients("clip_grads_with_norm_", parameters), max_norm, total_norm)


@ignore_fp_errors
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp each element of all gradients to [-clip_value, clip_value] in place; NaN stays NaN.

    Raises:
        ArgumentError: clip_value is negative or NaN.
    """
    if not clip_value >= 0.0:
        raise ArgumentError(f"clip_value={clip_value!r}; expected zero or a positive number")
    grads = _gradients("clip_grad_value_", parameters)
    refuse_complex("clip_grad_value_", grads)
    for group in _by_dtype(grads):
        for batch in _batches(group):
            with contiguous_in_place(batch):
                clip_by_value([g.array for g in batch], limit=float(clip_value))
    bump_version(*grads)


def _scale(grads: list[Tensor], max_norm: float, norm: Tensor) -> None:
    if not max_norm >= 0.0:
        raise ArgumentError(f"max_norm={max_norm!r}; expected zero or a positive number")
    if grads:
        _check_devices([*grads, norm])
    for group in _by_dtype([as_real(g) for g in grads]):
        array = norm.detach().to(accumulator(group[0].dtype)).array.reshape(1)
        for batch in _batches(group):
            with contiguous_in_place(batch):
                clip_by_norm([g.array for g in batch], array, max_norm=float(max_norm))
    bump_version(*grads)


def _gradients(function: str, parameters: Tensors) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    warn_of_scaled_gradients(function, parameters)
    return [p._grad for p in parameters if p._grad is not None]


def _batches(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Split the tensors into lists, one per launch."""
    limit = max_tensors(tensors[0].array) if tensors else 1
    for start in range(0, len(tensors), limit):
        yield tensors[start : start + limit]


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors of each dtype and kind of device, in the order of the first of each."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, type(tensor.array)), []).append(tensor)
    return [*groups.values()]


def _check_devices(tensors: list[Tensor]) -> None:
    """Raise DeviceError if the tensors are on different devices."""
    for tensor in tensors:
        if type(tensor.array) is not type(tensors[0].array):
            raise DeviceError(
                f"gradient norm of tensors on {tensors[0].device} and on {tensor.device}; clip the parameters of each "
                "device separately"
            )
