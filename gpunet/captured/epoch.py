"""A pass over data on the device: gather each batch, call the step, average its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator
from gpunet.launch.tape import graph_break, unrecorded
from gpunet.ops.random import randperm

if TYPE_CHECKING:
    from gpunet.captured.step import CapturedStep


class CapturedEpoch:
    """One pass over the data for each call; created by :meth:`CapturedStep.epoch`, which documents the arguments."""

    def __init__(
        self, step: CapturedStep, data: tuple[Tensor, ...], batch_size: int, shuffle: bool, drop_last: bool,
        generator: Generator | None,
    ) -> None:  # fmt: skip
        if not data or not all(isinstance(t, Tensor) and t.ndim for t in data):
            types = [type(t).__name__ for t in data]
            raise ArgumentError(f"epoch: got data of types {types}; expected tensors with one row per sample")
        counts = [len(t) for t in data]
        if len(set(counts)) > 1 or not counts[0]:
            raise ArgumentError(f"epoch: data have {counts} rows; expected the same number in each tensor, at least one")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"epoch: batch_size={batch_size!r}; expected an integer, at least 1")
        if drop_last and counts[0] < batch_size:
            raise ArgumentError(
                f"epoch: the data have {counts[0]} rows, less than one batch, and drop_last=True would drop them; "
                f"batch_size={batch_size} has to be at most {counts[0]}, or drop_last=False"
            )
        self._step, self._data, self.batch_size = step, data, batch_size
        self.shuffle, self.drop_last, self.generator = shuffle, drop_last, generator

    def __len__(self) -> int:
        """Return the number of batches in a pass."""
        num_full, rest = divmod(len(self._data[0]), self.batch_size)
        return num_full + (rest > 0 and not self.drop_last)

    def __call__(self) -> Any:
        """Run the step on every batch.

        Returns:
            The structure that the step returns, with the mean over all rows in place of each tensor, in float64.
        """
        graph_break("a pass over the data", "call it outside the step")
        with unrecorded():
            return self._run()

    def _run(self) -> Any:
        num_rows = len(self._data[0])
        order: Array = None
        if self.shuffle:
            order = randperm(num_rows, device=self._data[0].device, generator=self.generator).array
        totals: list[Any] = []
        structure: Any = None
        seen = 0
        for number in range(len(self)):
            rows = slice(number * self.batch_size, min((number + 1) * self.batch_size, num_rows))
            batch = rows if order is None else order[rows]
            result = self._step(*(make_tensor(devices.take(t.array, batch)) for t in self._data))
            weight = rows.stop - rows.start
            seen += weight
            values = [_weighted(t.array, weight) for t in tree_leaves(result, Tensor)]
            for total, value in zip(totals, values):
                devices.module(total).add(total, value, out=total)
            if not number:
                structure, totals = result, values
        for total in totals:
            devices.module(total).divide(total, seen, out=total)
        means = iter(totals)
        return tree_map(structure, lambda t: make_tensor(next(means)), Tensor)


def _weighted(array: Array, weight: int) -> Array:
    """Return ``weight * array`` in float64."""
    xp = devices.module(array)
    result = xp.array(array, numpy.float64)
    xp.multiply(result, weight, out=result)
    return result
