"""Connectionist temporal classification.

The loss of a sequence is -log of the probability that its frames spell its labels: the forward variables of Graves et al. (2006),
section 4.1, in logarithms.  State 2 i + 1 is label i, the states between are blanks; a path may skip a blank between different
labels.  The backward variables are the forward variables of the sequence read from its end, so that one loop over time has both.
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, fused, make_tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from gpunet.launch.faults import fault_code, fault_record, report
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import active
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.compare import ne
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import clamp_max, clamp_min, maximum, where
from gpunet.ops.face import as_integer, check_flag
from gpunet.ops.index import gather
from gpunet.ops.index_launches import INT64
from gpunet.ops.join import stack
from gpunet.ops.losses import reduce_composed, reduction_of
from gpunet.ops.pad import pad

__all__ = ["ctc_loss"]

MULTIPLY = Ufunc("multiply")


@casts("cpu: float32")
def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """The negative log-probability of label sequences, over all alignments with frames (Graves et al. 2006).

    The gradient is that of the formula.  PyTorch's differs by exp(log_probs), which a log_softmax before it removes.

    Args:
        log_probs: (frames, n, classes) or (frames, classes), logarithms of probabilities.
        targets: integer labels without blanks: (n, longest), or all sequences one after the other, (sum of target_lengths,).
        input_lengths, target_lengths: (n,) integers, tensors or tuples; () for one sequence.
        blank: the class of the blank.
        reduction: "mean" divides each loss by its target length, at least 1, and averages; "sum" or "none".
        zero_infinity: an infinite loss, of a target that is too long for its frames, and its gradient become 0; else its
            gradient is NaN.

    Returns:
        A 0-d tensor; for "none" (n,), or () for one sequence.

    Raises:
        ShapeError: the shapes or lengths do not fit.
        DtypeError: log_probs are not floating, or targets or lengths are not integers.
        ArgumentError: ``blank`` is no class.
        LabelError: a label is no class, or the blank.  On a GPU, errors of lengths and labels are raised when the host next reads
            a value or synchronizes.
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
    given = _integers("targets", targets, x)
    lengths, sizes = _lengths("input_lengths", input_lengths, x), _lengths("target_lengths", target_lengths, x)
    if n == 1 and given.ndim == 1:
        given = given.reshape(1, -1)
    if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != n):
        raise ShapeError(f"ctc_loss: targets have shape {given.shape}; expected ({n}, longest), or all labels in one dimension")
    longest = min(given.shape[-1], frames + 1)  # more labels have an infinite loss, too
    if given.ndim == 1 and active.tape is None:
        longest = min(longest, max(0, int(sizes.max())) if n else 0)
    labels = empty((n, longest), INT64, x.array)
    _LABELS(labels, fault_record(x.array), given, lengths, sizes, frames=frames, classes=classes, blank=blank)
    losses = ctc_losses(x, labels, lengths, sizes, blank=blank, zero_infinity=zero_infinity)
    if reduction == "mean":
        return reductions.mean(losses / clamp_min(make_tensor(sizes), 1))
    losses = reduce_composed(losses, reduction)
    return losses.reshape(()) if is_single and reduction == "none" else losses


def _integers(name: str, values: Any, x: Tensor) -> Array:
    """An argument as int64 on the device of ``x``."""
    tensor = wrap(values, "ctc_loss").detach()
    if not is_integer(tensor.dtype) and (tensor.array.size or isinstance(values, Tensor)):
        raise DtypeError(f"ctc_loss: {name} of dtype {tensor.dtype}; expected integers")
    if tensor.dtype != INT64:
        tensor = cast(tensor, dtype=INT64)
    return move_to_device(tensor.array, devices.of(x.array), guarded=True)


def _lengths(name: str, values: Any, x: Tensor) -> Array:
    lengths = _integers(name, values, x).reshape(-1)
    if lengths.shape != (x.shape[1],):
        raise ShapeError(f"ctc_loss: {name} holds {lengths.size} lengths; expected {x.shape[1]}, one per sequence")
    return lengths


# ---- labels -----------------------------------------------------------------------------------------------------------

_INPUT_LENGTH, _TARGET_LENGTH = (
    fault_code(lambda fault, name=name: ShapeError(  # type: ignore[misc]
        f"ctc_loss: {name}[{fault.position}] is {fault.value}; expected 0 .. {fault.size}"
    ))
    for name in ("input_lengths", "target_lengths")
)  # fmt: skip
_TOTAL = fault_code(lambda fault: ShapeError(
    f"ctc_loss: targets hold {fault.size} labels, target_lengths add up to {fault.value}; expected the same"
))  # fmt: skip
_LABEL = fault_code(lambda fault: LabelError(
    f"ctc_loss: label {fault.value}; expected one of 0 .. {fault.size - 1} other than the blank {fault.detail}"
))  # fmt: skip


def _pad_labels(
    xp: Any, labels: Any, fault: Any, given: Any, lengths: Any, sizes: Any, *, frames: int, classes: int, blank: int
) -> None:
    """Fill the labels (n, longest), with the blank behind the end of each sequence, and check the values."""
    report(xp, fault, (lengths < 0) | (lengths > frames), _INPUT_LENGTH, lengths, frames)
    report(xp, fault, (sizes < 0) | (sizes > given.shape[-1]), _TARGET_LENGTH, sizes, given.shape[-1])
    ends = xp.cumsum(sizes)
    is_label = xp.arange(given.shape[-1]) < sizes[:, None] if given.ndim == 2 else xp.ones(given.shape, bool)
    if given.ndim == 1 and sizes.size:
        report(xp, fault, ends[-1:] != given.size, _TOTAL, ends[-1:], given.size)
    bad = is_label & ((given < 0) | (given >= classes) | (given == blank))
    report(xp, fault, bad, _LABEL, given, classes, blank)
    if not labels.size:
        return
    place = xp.arange(labels.shape[1])
    if given.ndim == 1:
        given = xp.take(given, xp.clip((ends - sizes)[:, None] + place, 0, given.size - 1))
    xp.copyto(labels, xp.where(place < sizes[:, None], xp.clip(given[:, : len(place)], 0, classes - 1), blank))


_LABELS = Shim("ctc labels", _pad_labels, reads_values=True)


# ---- the op -----------------------------------------------------------------------------------------------------------


def _forward_variables(xp: Any, scores: Any, states: Any) -> tuple[Any, Any]:
    """log-probabilities of the starts of paths.

    Args:
        scores: (frames, n, states), of the class of each state.
        states: (n, states), their classes.

    Returns:
        The arrivals (frames, n, states): the sum over paths that are in a state at a frame, without its score.  With it they are
        the forward variables, (frames + 1, n, 2 + states): those of frame t stand at t + 1, behind two columns that are no
        states.  A path starts in the second of them, from which it may skip to the first label.
    """
    frames, n, width = scores.shape
    blocked = xp.full((n, width), -math.inf, scores.dtype)
    blocked[:, 1:2] = 0.0
    blocked[:, 3::2] = xp.where(states[:, 3::2] != states[:, 1:-2:2], 0.0, -math.inf)
    arrivals = xp.empty(scores.shape, scores.dtype)
    alphas = xp.full((frames + 1, n, 2 + width), -math.inf, scores.dtype)
    alphas[0, :, 1] = 0.0
    terms = xp.empty((3, n, width), scores.dtype)
    top, lowest = xp.empty((n, width), scores.dtype), xp.finfo(scores.dtype).min
    for t in range(frames):
        start = alphas[t]
        xp.copyto(terms[0], start[:, 2:])
        xp.copyto(terms[1], start[:, 1:-1])
        xp.add(start[:, :-2], blocked, out=terms[2])
        terms.max(0, out=top)
        xp.maximum(top, lowest, out=top)  # so that the log of no path is -inf - top, not NaN
        xp.subtract(terms, top, out=terms)
        xp.exp(terms, out=terms)
        arrived = arrivals[t]
        terms.sum(0, out=arrived)
        xp.log(arrived, out=arrived)
        xp.add(arrived, top, out=arrived)
        xp.add(arrived, scores[t], out=alphas[t + 1, :, 2:])
    return arrivals, alphas


def _run(
    xp: Any, losses: Any, gradient: Any, x: Any, labels: Any, lengths: Any, sizes: Any, *, blank: int, zero_infinity: bool
) -> None:
    """The losses (n,) and, unless it is None, their gradient (frames, n, classes)."""
    frames, n, _ = x.shape
    longest = labels.shape[1]
    sequence = xp.arange(n)
    lengths, sizes = xp.clip(lengths, 0, frames), xp.clip(sizes, 0, longest)
    states = xp.full((n, 2 * longest + 1), blank)
    states[:, 1::2] = labels
    scores = x[:, sequence[:, None], states]
    if gradient is not None:  # read from its end, a sequence has the frame length - 1 - t and the state 2 size - s
        time = (lengths - 1 - xp.arange(frames)[:, None])[:, :, None]
        state = 2 * sizes[:, None] - xp.arange(states.shape[1])
        is_inside = (time >= 0) & (state >= 0)
        time, state = xp.maximum(time, 0), xp.maximum(state, 0)
        states = xp.concatenate((states, states[sequence[:, None], state]))
        scores = xp.concatenate((scores, scores[time, sequence[:, None], state]), 1)
    arrivals, alphas = _forward_variables(xp, scores, states)
    last = 2 * sizes + 2
    end, before = alphas[lengths, sequence, last], alphas[lengths, sequence, last - 1]
    total = xp.logaddexp(end, before)
    is_infinite = total == -math.inf
    xp.copyto(losses, xp.where(is_infinite, 0.0 if zero_infinity else math.inf, -total))
    if gradient is None:
        return
    ahead = arrivals[xp.maximum(lengths - 1 - xp.arange(frames)[:, None], 0)[:, :, None], n + sequence[:, None], state]
    occupancy = xp.exp(alphas[1:, :n, 2:] + ahead - total[:, None])
    is_counted = is_inside & ~is_infinite[:, None]
    occupancy = xp.where(is_counted, occupancy, 0.0)
    gradient.fill(0)
    gradient[:, :, blank] = -occupancy[:, :, ::2].sum(2)
    for place in range(longest):  # labels of different sequences: no two have the same element
        gradient[:, sequence, labels[:, place]] -= occupancy[:, :, 2 * place + 1]
    if not zero_infinity:
        xp.copyto(gradient, math.nan, where=(is_infinite & (xp.arange(frames)[:, None] < lengths))[:, :, None])


_LOSSES = Shim("ctc_loss", _run, reads_values=True)
_LOSSES.outputs = 2


@in_accumulator
def _composed(x, labels, lengths, sizes, *, blank, zero_infinity):
    frames, n, _ = x.shape
    states = pad(stack([labels * 0 + blank, labels], 2).reshape(n, -1), (0, 1), value=blank)
    position = arange(2 + states.shape[1], device=x.device)
    can_skip = (position[2:] % 2 == 1) & ne(states, pad(states, (2, 0), value=blank)[:, :-2])
    scores = gather(x, 2, states.unsqueeze(0).expand(frames, -1, -1))  # (frames, n, states)
    alpha = where(position == 1, 0.0, -math.inf).to(x.dtype).expand(n, -1)
    alphas = [alpha]  # as of _forward_variables
    for t in range(frames):
        arrived = _log_add_exp(alpha[:, 2:], alpha[:, 1:-1], where(can_skip, alpha[:, :-2], -math.inf))
        alpha = pad(arrived + scores[t], (2, 0), value=-math.inf)
        alphas.append(alpha)
    ends: Any = stack(alphas)[lengths, arange(n, device=x.device)]  # (n, 2 + states)
    last = 2 * clamp_max(sizes, labels.shape[1]).unsqueeze(1) + 2
    losses = -_log_add_exp(gather(ends, 1, last), gather(ends, 1, last - 1)).reshape(-1)
    if zero_infinity:
        return where(losses == math.inf, 0.0, losses)
    is_counted = (arange(frames, device=x.device).unsqueeze(1) < lengths).unsqueeze(2)
    no_path = where(is_counted, 0.0 * x.exp(), 0.0).sum((0, 2))  # 0, with the gradient NaN of its logarithm
    is_infinite = losses == math.inf
    return where(is_infinite, -where(is_infinite, no_path, 1.0).log(), losses)


@fused(composed=_composed, name="ctc_loss")
def ctc_losses(x, labels, lengths, sizes, *, blank, zero_infinity, need):
    """The losses (n,).  x (frames, n, classes), labels (n, longest), lengths and sizes (n,), all int64."""
    losses = empty(x.shape[1:2], x.dtype, x)
    gradient = empty(x.shape, x.dtype, x) if need[0] else None
    _LOSSES(losses, gradient, x, labels, lengths, sizes, blank=blank, zero_infinity=zero_infinity)
    return losses, (gradient,)


@ctc_losses.backward
def _(saved, dy, *, blank, zero_infinity, need):
    (gradient,) = saved
    dx = empty(gradient.shape, gradient.dtype, gradient)
    MULTIPLY(dx, gradient, dy.array[:, None])
    return dx, None, None, None


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
