"""A pass over resident data: gather a batch by its rows, replay the step, add up what it returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.devices import Array
from gpunet.captured.guards import tensors
from gpunet.captured.ir import tree_map
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator
from gpunet.launch.tape import graph_break, unrecorded
from gpunet.ops.creation import randperm

if TYPE_CHECKING:
    from gpunet.captured.step import CapturedStep


class CapturedEpoch:
    """Made by :meth:`CapturedStep.epoch`; call it for one pass over the data."""

    def __init__(
        self, step: CapturedStep, data: tuple[Tensor, ...], batch_size: int, shuffle: bool, drop_last: bool,
        generator: Generator | None,
    ) -> None:  # fmt: skip
        if not data or not all(isinstance(t, Tensor) and t.ndim for t in data):
            raise ArgumentError(f"epoch: data of {[type(t).__name__ for t in data]}; expected tensors with a row a sample")
        counts = [len(t) for t in data]
        if len(set(counts)) > 1 or not counts[0]:
            raise ArgumentError(f"epoch: data of {counts} rows; expected the same number, at least one")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"epoch: batch_size={batch_size!r}; expected a whole number from 1")
        if drop_last and counts[0] < batch_size:
            raise ArgumentError(f"epoch: {counts[0]} rows are less than one batch of {batch_size}, and drop_last drops them")
        self._step, self._data, self.batch_size = step, data, batch_size
        self.shuffle, self.drop_last, self.generator = shuffle, drop_last, generator

    def __len__(self) -> int:
        """Batches of a pass."""
        whole, rest = divmod(len(self._data[0]), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __call__(self) -> Any:
        """Run the step on every batch.

        Returns:
            What the step returns, each floating tensor in it the mean over the batches, weighted by their rows, float64.
        """
        graph_break("a pass over the data", "call it outside the step")
        with unrecorded():
            return self._pass()

    def _pass(self) -> Any:
        count = len(self._data[0])
        order: Array = None
        if self.shuffle:
            order = randperm(count, device=self._data[0].device, generator=self.generator).array
        totals: list[Any] = []
        structure: Any = None
        seen = 0
        for number in range(len(self)):
            rows = slice(number * self.batch_size, min((number + 1) * self.batch_size, count))
            result = self._batch(rows if order is None else order[rows])
            weight = rows.stop - rows.start
            seen += weight
            values = [t.array for t in tensors(result)]
            if not number:
                structure = result
                totals = [_weighted(a, weight) for a in values]
            else:
                for total, value in zip(totals, values):
                    total += _weighted(value, weight)
        for total in totals:
            total /= seen
        means = iter(totals)
        return tree_map(structure, lambda t: Tensor(next(means)), Tensor)

    def _batch(self, rows: Any) -> Any:
        recording = self._step.fitting(self._data, len(rows) if not isinstance(rows, slice) else rows.stop - rows.start)
        if recording is None:
            return self._step(*(Tensor(t.array[rows]) for t in self._data))
        return recording.replay_rows([t.array for t in self._data], rows)


def _weighted(array: Array, weight: int) -> Array:
    result = array.astype(numpy.float64)
    result *= weight
    return result
