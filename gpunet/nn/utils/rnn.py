"""Batches of sequences of different lengths: padded, or packed without padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_integer
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import active, constant, graph_break_on_read
from gpunet.ops.elementwise import where
from gpunet.ops.index import index_select
from gpunet.ops.join import stack
from gpunet.ops.pad import pad

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence",
    "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """A batch of sequences without padding, as :func:`pack_padded_sequence` makes it; recurrent layers take it.

    Attributes:
        data: (sum of lengths, ...): the first elements of all sequences, longest first, then the second ones, and so on.
        batch_sizes: int64 on the CPU: how many sequences have an element at each step.
        sorted_indices, unsorted_indices: the order of the batch by length, and its inverse; None if it was sorted.
    """

    __slots__ = ()

    def __new__(
        cls, data: Tensor, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:  # fmt: skip
        if batch_sizes is None:
            raise ArgumentError("PackedSequence: batch_sizes is missing; use pack_padded_sequence() or pack_sequence()")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Move or convert the data; the indices move with it.  The arguments are those of :meth:`Tensor.to`."""
        data = self.data.to(*args, **kwargs)
        moved = [None if index is None else index.to(data.device) for index in self[2:]]
        return self if data is self.data else type(self)(data, self.batch_sizes, *moved)

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Move to the CPU."""
        return self.to(self.data.cpu(*args, **kwargs).device)

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Move to a GPU."""
        return self.to(self.data.cuda(*args, **kwargs).device)

    def double(self) -> PackedSequence:
        """Convert the data to float64."""
        return self.to(dtype="float64")

    def float(self) -> PackedSequence:
        """Convert the data to float32."""
        return self.to(dtype="float32")

    def half(self) -> PackedSequence:
        """Convert the data to float16."""
        return self.to(dtype="float16")

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a GPU."""
        return bool(self.data.is_cuda)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Return the inverse of a permutation, (n,) int64; None of None."""
    return None if permutation is None else permutation.argsort()


def _lengths(function: str, lengths: Any) -> numpy.ndarray:
    """Lengths on the host."""
    if isinstance(lengths, Tensor):
        graph_break_on_read(f"{function}()")
        lengths = devices.to_host(lengths.array)
    array = numpy.asarray(lengths)
    if array.ndim != 1 or (array.size and not is_integer(array.dtype)):
        raise DtypeError(f"{function}: lengths={lengths!r}; expected a list or a 1-d tensor of integers")
    return array.astype(numpy.int64)


def values_on_host(function: str, indices: Tensor) -> numpy.ndarray:
    """Read the batch sizes or the order of a PackedSequence.

    A captured step relies on them: those of a sequence that is packed inside of the step are constants, those of one from outside
    are guarded, and those of an argument are a graph break.
    """
    array, tape = indices.array, active.tape
    if tape is not None and not any(array is known for known in tape.constants):
        if tape.strict and type(array) is numpy.ndarray and not tape.is_own(array):
            tape.guard_values(array)
        else:
            graph_break_on_read(f"{function} of a PackedSequence")
    return devices.to_host(array)


def _on_device_of(x: Tensor, array: numpy.ndarray) -> Tensor:
    """A NumPy array of values that a captured step may rely on, as a tensor on the device of ``x``."""
    return make_tensor(constant(devices.move(numpy.ascontiguousarray(array), x.device)))


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack a padded batch of sequences.

    Args:
        input: (steps, n, ...), or (n, steps, ...) if ``batch_first``.
        lengths: of the sequences: a list, or a tensor, which is read on the host.
        batch_first: the layout of the input.
        enforce_sorted: the sequences must be sorted by length, longest first; False sorts them.

    Raises:
        ShapeError: there is not one length per sequence, or a length is not in 1 .. steps.
        ArgumentError: the lengths are not sorted.
    """
    input, sizes = wrap(input), _lengths("pack_padded_sequence", lengths)
    steps, n = input.shape[:2][:: -1 if batch_first else 1]
    if sizes.shape != (n,) or not n or sizes.min() < 1 or sizes.max() > steps:
        raise ShapeError(f"pack_padded_sequence: lengths={sizes.tolist()}; expected {n} lengths from 1 to {steps}")
    order = numpy.argsort(-sizes, kind="stable")
    is_sorted = (numpy.diff(sizes) <= 0).all()
    if enforce_sorted and not is_sorted:
        raise ArgumentError(
            f"pack_padded_sequence: lengths={sizes.tolist()} are not sorted, longest first; pass enforce_sorted=False"
        )
    sizes = sizes[order]
    step, place = numpy.nonzero(numpy.arange(sizes[0])[:, None] < sizes)
    rows = order[place] * steps + step if batch_first else step * n + order[place]
    data = index_select(input.reshape((steps * n, *input.shape[2:])), 0, _on_device_of(input, rows))
    batch_sizes = make_tensor(constant(numpy.bincount(step)))
    if enforce_sorted:
        return PackedSequence(data, batch_sizes)
    return PackedSequence(data, batch_sizes, _on_device_of(input, order), _on_device_of(input, numpy.argsort(order)))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Undo :func:`pack_padded_sequence`.

    Args:
        sequence: the packed batch.
        batch_first: return (n, steps, ...) instead of (steps, n, ...).
        padding_value: of the elements beyond a sequence's end.
        total_length: number of steps; by default the longest length.

    Returns:
        The padded batch, and the lengths, int64 on the CPU.

    Raises:
        ArgumentError: total_length is smaller than the longest length.
    """
    data, batch_sizes, _, unsorted = sequence
    sizes = values_on_host("pad_packed_sequence()", batch_sizes)
    n, longest = int(sizes[0]), len(sizes)
    steps = longest if total_length is None else total_length
    if steps < longest:
        raise ArgumentError(f"pad_packed_sequence: total_length={total_length}; expected at least {longest}, the longest length")
    place = numpy.arange(n)
    lengths = (sizes[:, None] > place).sum(0)
    if unsorted is not None:
        place = values_on_host("pad_packed_sequence()", unsorted)
        lengths = lengths[place]
    starts = numpy.concatenate([[0], numpy.cumsum(sizes)[:-1], numpy.zeros(steps - longest, int)])
    is_element = numpy.arange(steps)[:, None] < lengths
    rows = numpy.where(is_element, starts[:, None] + place, 0)
    if batch_first:
        rows, is_element = rows.T, is_element.T
    picked = index_select(data, 0, _on_device_of(data, rows.reshape(-1))).reshape((*rows.shape, *data.shape[1:]))
    mask = _on_device_of(data, is_element.reshape(*rows.shape, *(1,) * (data.ndim - 1)))
    return where(mask, picked, padding_value), make_tensor(constant(numpy.ascontiguousarray(lengths)))


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Stack sequences (length, ...) of different lengths, padded to the longest.

    Args:
        sequences: tensors that differ in their first dimension only.
        batch_first: return (n, longest, ...) instead of (longest, n, ...).
        padding_value: of the added elements.
        padding_side: "right" or "left".

    Raises:
        ArgumentError: there is no sequence, or padding_side has another value.
    """
    items = [wrap(item, "pad_sequence") for item in sequences]
    if not items:
        raise ArgumentError("pad_sequence: no sequences; expected at least one tensor")
    if padding_side not in ("left", "right"):
        raise ArgumentError(f"pad_sequence: padding_side={padding_side!r}; expected 'right' or 'left'")
    longest = max(len(item) for item in items)
    padded = []
    for item in items:
        missing = longest - len(item)
        widths = [0, 0] * (item.ndim - 1) + ([0, missing] if padding_side == "right" else [missing, 0])
        padded.append(pad(item, widths, value=padding_value) if missing else item)
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """Undo :func:`pad_sequence`: return the sequences without their padding on the right."""
    padded = wrap(padded_sequences)
    rows = padded if batch_first else padded.transpose(0, 1)
    return [rows[number, :length] for number, length in enumerate(_lengths("unpad_sequence", lengths).tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, ...); arguments as of :func:`pack_padded_sequence`."""
    return pack_padded_sequence(pad_sequence(sequences), [len(item) for item in sequences], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Undo :func:`pack_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
