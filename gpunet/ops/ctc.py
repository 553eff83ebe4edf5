"""Connectionist temporal classification."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from gpunet.launch.tape import constant, graph_break_on_read
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.elementwise import clamp_min, maximum, where
from gpunet.ops.face import as_integer, check_flag
from gpunet.ops.index import gather
from gpunet.ops.join import stack
from gpunet.ops.losses import reduce_composed, reduction_of
from gpunet.ops.pad import pad

__all__ = ["ctc_loss"]


@casts("cpu: float32")
def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """The negative log-probability of label sequences, over all alignments with frames (Graves et al. 2006).

    The gradient is that of the formula.  PyTorch's differs by exp(log_probs), which a log_softmax before it removes.  Lengths and
    targets are read on the host, so a captured step cannot contain the call.

    Args:
        log_probs: (frames, n, classes) or (frames, classes), logarithms of probabilities.
        targets: integer labels without blanks: (n, longest), or all sequences one after the other, (sum of target_lengths,).
        input_lengths, target_lengths: (n,) integers, tensors or tuples; () for one sequence.
        blank: the class of the blank.
        reduction: "mean" divides each loss by its target length, at least 1, and averages; "sum" or "none".
        zero_infinity: an infinite loss, of a target that is too long for its frames, becomes 0.  Its gradient is 0 in any case;
            PyTorch's is NaN if ``zero_infinity`` is False.

    Returns:
        A 0-d tensor; for "none" (n,), or () for one sequence.

    Raises:
        ShapeError: the shapes or lengths do not fit.
        DtypeError: log_probs are not floating, or targets or lengths are not integers.
        ArgumentError: ``blank`` is no class.
        LabelError: a label is no class, or the blank.
    """
    reduction = reduction_of("ctc_loss", None, None, reduction)
    check_flag("ctc_loss", "zero_infinity", zero_infinity)
    x = wrap(log_probs)
    if not is_floating(x.dtype):
        raise DtypeError(f"ctc_loss: log_probs of dtype {x.dtype}; expected a floating tensor")
    if x.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss: log_probs of shape {tuple(x.shape)}; expected (frames, n, classes) or (frames, classes)")
    is_single = x.ndim == 2
    if is_single:
        x = x.unsqueeze(1)
    frames, n, classes = x.shape
    blank = as_integer("ctc_loss", "blank", blank)
    if not 0 <= blank < classes:
        raise ArgumentError(f"ctc_loss: blank={blank}; expected one of the classes 0 .. {classes - 1}")
    graph_break_on_read("ctc_loss()")
    lengths = _lengths("input_lengths", input_lengths, n, frames)
    labels, sizes = _labels(targets, target_lengths, n, classes, blank)
    losses = _losses(x, lengths, labels, sizes, blank=blank)
    if zero_infinity:
        losses = where(losses == math.inf, 0.0, losses)
    if reduction == "mean":
        return reductions.mean(losses / _on_device_of(x, numpy.maximum(sizes, 1)))
    losses = reduce_composed(losses, reduction)
    return losses.reshape(()) if is_single and reduction == "none" else losses


def _integers(name: str, values: Any) -> numpy.ndarray:
    array = devices.to_host(values.array) if isinstance(values, Tensor) else numpy.asarray(values)
    if not is_integer(array.dtype) and (array.size or isinstance(values, Tensor)):
        raise DtypeError(f"ctc_loss: {name} of dtype {array.dtype}; expected integers")
    return array.astype(numpy.int64)


def _lengths(name: str, values: Any, n: int, largest: int) -> numpy.ndarray:
    lengths = _integers(name, values).reshape(-1)
    if lengths.shape != (n,):
        raise ShapeError(f"ctc_loss: {name} holds {lengths.size} lengths; expected {n}, one per sequence")
    if n and (lengths.min() < 0 or lengths.max() > largest):
        raise ShapeError(f"ctc_loss: {name} holds {lengths.tolist()}; expected 0 .. {largest}")
    return lengths


def _labels(targets: Any, target_lengths: Any, n: int, classes: int, blank: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The labels (n, longest), the blank behind the end of each sequence, and the lengths."""
    given = _integers("targets", targets)
    is_padded = given.ndim == 2 or (n == 1 and given.ndim == 1)
    if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != n):
        raise ShapeError(f"ctc_loss: targets have shape {given.shape}; expected ({n}, longest), or all labels in one dimension")
    sizes = _lengths("target_lengths", target_lengths, n, given.shape[-1])
    longest = int(sizes.max(initial=0))
    is_label = numpy.arange(longest) < sizes[:, None]
    labels = numpy.full((n, longest), blank)
    if is_padded:
        labels[is_label] = given.reshape(n, given.shape[-1])[:, :longest][is_label]
    elif sizes.sum() != given.size:
        raise ShapeError(f"ctc_loss: targets hold {given.size} labels, target_lengths add up to {sizes.sum()}; expected the same")
    else:
        labels[is_label] = given
    bad = is_label & ((labels < 0) | (labels >= classes) | (labels == blank))
    if bad.any():
        raise LabelError(f"ctc_loss: label {labels[bad][0]}; expected one of 0 .. {classes - 1} other than the blank {blank}")
    return labels, sizes


def _on_device_of(x: Tensor, array: numpy.ndarray) -> Tensor:
    return make_tensor(constant(devices.move(numpy.ascontiguousarray(array), x.device)))


@in_accumulator
def _losses(x, lengths, labels, sizes, *, blank):
    """The loss of each sequence: the forward variables of Graves et al. (2006), section 4.1, in logarithms.

    State 2 i + 1 is label i, the states between are blanks; a path may skip a blank between different labels.
    """
    frames, n, _ = x.shape
    states = numpy.full((n, 2 * labels.shape[1] + 1), blank)
    states[:, 1::2] = labels
    can_skip = numpy.zeros(states.shape, numpy.bool_)
    can_skip[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    scores = gather(x, 2, _on_device_of(x, numpy.broadcast_to(states, (frames, *states.shape))))  # (frames, n, states)
    before_first = numpy.full(states.shape, -math.inf, x.dtype)
    before_first[:, :1] = 0.0  # an empty input has an empty target
    start = _on_device_of(x, before_first)
    skips = _on_device_of(x, can_skip)
    last = _on_device_of(x, 2 * sizes[:, None])
    alphas = [start]
    alpha = where(_on_device_of(x, numpy.arange(states.shape[1]) < 2), scores[0], -math.inf) if frames else start
    for t in range(frames):
        if t:
            one, two = pad(alpha, (1, 0), value=-math.inf)[:, :-1], pad(alpha, (2, 0), value=-math.inf)[:, :-2]
            alpha = _log_add_exp(alpha, one, where(skips, two, -math.inf)) + scores[t]
        alphas.append(alpha)
    ends: Any = stack(alphas)[_on_device_of(x, lengths), _on_device_of(x, numpy.arange(n))]  # (n, states)
    end = gather(ends, 1, last)
    before = where(last > 0, gather(ends, 1, clamp_min(last - 1, 0)), -math.inf)
    return -_log_add_exp(end, before).reshape(-1)


def _log_add_exp(*terms: Tensor) -> Tensor:
    """log(sum of exp(term)), -inf of terms that are all -inf, with a gradient of 0."""
    top = terms[0].detach()
    for term in terms[1:]:
        top = maximum(top, term.detach())
    is_nothing = top == -math.inf
    top = where(is_nothing, 0.0, top)
    total: Any = 0.0
    for term in terms:
        total = (term - top).exp() + total
    return where(is_nothing, -math.inf, where(is_nothing, 1.0, total).log() + top)
