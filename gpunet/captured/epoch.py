"""A pass over data on the device: gather each batch, call the step, average its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import int64
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.errors import ArgumentError, CaptureError
from gpunet.launch.random import Generator
from gpunet.launch.tape import graph_break, undoable, unrecorded
from gpunet.ops.random import randperm

if TYPE_CHECKING:
    from gpunet.captured.small_net import SmallNet
    from gpunet.captured.step import CapturedStep

#: How steps are run: in one launch if that is possible, by a replay for each, or in one launch or not at all.
ENGINES = ("auto", "replay", "launch")
#: Steps of one launch; a longer one keeps the GPU from drawing a screen.
MOST_STEPS = 1 << 14
#: Bytes that a step may change to be undone after its recording: small nets, also many of them, change less.
MOST_UNDONE = 1 << 30


class CapturedEpoch:
    """One pass over the data for each call; created by :meth:`CapturedStep.epoch`, which documents the arguments."""

    def __init__(
        self, step: CapturedStep, data: tuple[Tensor, ...], batch_size: int, shuffle: bool, drop_last: bool,
        generator: Generator | None, engine: str,
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
        if engine not in ENGINES:
            raise ArgumentError(f"epoch: engine={engine!r}; expected one of {', '.join(map(repr, ENGINES))}")
        self.engine = engine
        self._step, self._data, self.batch_size = step, data, batch_size
        self.shuffle, self.drop_last, self.generator = shuffle, drop_last, generator

    def __len__(self) -> int:
        """Return the number of batches in a pass."""
        num_full, rest = divmod(len(self._data[0]), self.batch_size)
        return num_full + (rest > 0 and not self.drop_last)

    def __call__(self, order: Tensor | None = None) -> Any:
        """Run the step on every batch.

        Args:
            order: int64 (n,), the rows in the order of the batches, in place of one that is drawn.

        Returns:
            The structure that the step returns, with the mean over all rows in place of each tensor, in float64.

        Raises:
            ArgumentError: ``order`` has another shape or dtype, or another row than those of the data.
        """
        means = _Means()
        self._run(order, means)
        return means.finish()

    def each(self, order: Tensor | None = None) -> Any:
        """Run the step on every batch, and return the results of all steps, such as their losses.

        Args:
            order: as above.

        Returns:
            The structure that the step returns, in place of each tensor one with a first dimension more: a row for each step.

        Raises:
            ArgumentError: as above.
        """
        rows = _Rows()
        self._run(order, rows)
        return rows.finish()

    def explain(self) -> str:
        """Return how batches of the full size are run: in one launch, or by a replay for each, and why."""
        if self.engine == "replay":
            return "a replay for each step, because engine is 'replay'"
        recording = self._step.find_recording(self._batch(0, None))
        if recording is None:
            return "a replay for each step, until the step is recorded for a batch"
        return recording.describe_epoch()

    def _batch(self, number: int, order: Array | None) -> list[Tensor]:
        rows = slice(number * self.batch_size, min((number + 1) * self.batch_size, len(self._data[0])))
        chosen = rows if order is None else order[rows]
        return [make_tensor(devices.take(t.array, chosen)) for t in self._data]

    def _run(self, given: Tensor | None, results: _Means | _Rows) -> None:
        """Run the step on every batch, and add the result of each to ``results``."""
        graph_break("a pass over the data", "call it outside the step")
        with unrecorded():
            num_rows = len(self._data[0])
            order: Array = None
            if given is not None:
                order = self._checked(given)
            elif self.shuffle:
                order = randperm(num_rows, device=self._data[0].device, generator=self.generator).array
            for number in range(self._run_in_launches(order, results), len(self)):
                batch = self._batch(number, order)
                results.add(self._step(*batch), len(batch[0]))

    def _checked(self, order: Tensor) -> Array:
        """The array of an order that is given."""
        num_rows, device = len(self._data[0]), self._data[0].device
        if not isinstance(order, Tensor) or order.dtype != int64 or tuple(order.shape) != (num_rows,) or order.device != device:
            what = f"{order.dtype} of shape {tuple(order.shape)} on {order.device}" if isinstance(order, Tensor) else repr(order)
            raise ArgumentError(f"epoch: order is {what}; expected an int64 tensor of shape ({num_rows},) on {device}")
        if not bool(((order >= 0) & (order < num_rows)).all()):
            raise ArgumentError(f"epoch: order has rows out of range; expected numbers from 0 to {num_rows - 1}")
        return order.contiguous().array

    def _run_in_launches(self, order: Array | None, results: _Means | _Rows) -> int:
        """Run the batches of the full size in as few launches as possible; return how many batches are done.

        A batch that records the step is undone and runs again, because replays have other bits: those of a run must not depend
        on when its steps were recorded.

        Raises:
            CaptureError: ``engine`` is "launch", and one launch is not possible.
        """
        num_full, number = len(self._data[0]) // self.batch_size, 0
        if not num_full or self.engine == "replay" or (self.engine == "auto" and self._data[0].device.type == "cpu"):
            return 0
        batch = self._batch(0, order)
        recording = self._step.find_recording(batch)
        if recording is None:
            with undoable(MOST_UNDONE) as undo:
                first = self._step(*batch)
            recording = self._step.find_recording(batch)
            if recording is None or isinstance(recording.small_net, str) or not undo.restore():
                results.add(first, self.batch_size)
                number = 1
        net: SmallNet | str = "capture(check=True) replays nothing" if self._step.check else "it is not recorded"
        if recording is None or isinstance(net := recording.small_net, str):
            if self.engine == "launch":
                raise CaptureError(
                    f"epoch: engine='launch', but {self._step.name} needs a replay for each step, because {net}; use engine='auto'"
                )
            return number
        arrays = [devices.module(t.array).ascontiguousarray(t.array) for t in self._data]
        while number < num_full:
            steps = min(num_full - number, MOST_STEPS)
            start, stop = number * self.batch_size, (number + steps) * self.batch_size
            losses = devices.empty((net.num_nets or 1, steps), net.dtype, devices.of(arrays[0]))
            if order is None:
                recording.run_steps(losses, [a[start:stop] for a in arrays], None)
            else:
                recording.run_steps(losses, arrays, order[start:stop])
            results.add_steps(losses[0] if net.num_nets is None else losses.T, self.batch_size)
            number += steps
        return number


class _Means:
    """The means of the results of steps over the rows of their batches."""

    def __init__(self) -> None:
        self.totals: list[Array] = []
        self.structure: Any = None
        self.count = 0

    def add(self, result: Any, rows: int) -> None:
        values = [_weighted(t.array, rows) for t in tree_leaves(result, Tensor)]
        if not self.count:
            self.structure, self.totals = result, values
        else:
            for total, value in zip(self.totals, values):
                devices.module(total).add(total, value, out=total)
        self.count += rows

    def add_steps(self, losses: Array, rows: int) -> None:
        """Add the losses (steps, ...) of steps that return one tensor."""
        total = _weighted(losses, rows).sum(0, keepdims=True)
        self.add(make_tensor(total[0]), 1)
        self.count += len(losses) * rows - 1

    def finish(self) -> Any:
        for total in self.totals:
            devices.module(total).divide(total, self.count, out=total)
        means = iter(self.totals)
        return tree_map(self.structure, lambda t: make_tensor(next(means)), Tensor)


class _Rows:
    """The results of all steps."""

    def __init__(self) -> None:
        self.parts: list[list[Array]] = []
        self.structure: Any = None

    def add(self, result: Any, rows: int) -> None:
        self._add(result, [t.array[None] for t in tree_leaves(result, Tensor)])

    def add_steps(self, losses: Array, rows: int) -> None:
        """Add the losses (steps, ...) of steps that return one tensor."""
        self._add(make_tensor(losses), [losses])

    def _add(self, structure: Any, arrays: list[Array]) -> None:
        if not self.parts:
            self.structure, self.parts = structure, [[] for _ in arrays]
        for part, array in zip(self.parts, arrays):
            part.append(array)

    def finish(self) -> Any:
        joined = iter([devices.module(part[0]).concatenate(part) for part in self.parts])
        return tree_map(self.structure, lambda t: make_tensor(next(joined)), Tensor)


def _weighted(array: Array, weight: int) -> Array:
    """Return ``weight * array`` in float64."""
    xp = devices.module(array)
    result = xp.array(array, numpy.float64)
    xp.multiply(result, weight, out=result)
    return result
