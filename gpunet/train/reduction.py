"""The gradients of a batch that several processes share, or that is computed in shards: how they are added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from gpunet.autograd import COPY, FILL, Tensor, bump_version, grad, make_tensor, no_grad
from gpunet.autograd.engine import listening_to_leaves
from gpunet.autograd.graph import ADD, MULTIPLY
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float64
from gpunet.distributed.buckets import Buckets, pack, partition, unpack
from gpunet.distributed.collectives import TREE_SUM
from gpunet.distributed.process_group import ProcessGroup, ReduceOp
from gpunet.distributed.transfers import BEGIN_ALL_REDUCE, END_ALL_REDUCE, Transfer
from gpunet.launch.memory import empty
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active
from gpunet.ops.creation import zeros
from gpunet.ops.index import where


class Sums:
    """What a training step adds up beside gradients, on the device, in float64, of all processes.

    Attributes:
        total, count: the losses of an epoch, and what their mean divides by.
        window: the count of the batches of a step.
        unit: by which the losses of the window are divided for backward.
    """

    def __init__(self, device: Device) -> None:
        self.total, self.count, self.window, self.unit = (zeros((), dtype=float64, device=device) for _ in range(4))

    def rely(self) -> None:
        """Let a recorded step use these tensors."""
        rely_on([*vars(self).values()])

    def add(self, figures: Tensor) -> None:
        """Add (sum of losses, count)."""
        self.total.add_(figures[0])
        self.count.add_(figures[1])
        self.window.add_(figures[1])

    def factor(self) -> Tensor:
        """What turns the sum of the gradients of the window into that of the mean."""
        return self.unit / where(self.window == 0.0, 1.0, self.window)

    def scale_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Multiply gradients by :meth:`factor`."""
        self.rely()
        with no_grad():
            factor = self.factor()
            for p in parameters:
                if p.grad is not None:
                    p.grad.mul_(factor.to(p.grad.dtype))


class Overlapped:
    """Adds over processes by MPI, in buckets that leave while backward runs.  A process has one shard of each batch, or none.

    Args:
        parameters: of the optimizer; those that no loss depends on get a zero gradient.
        overlaps: whether a window is one batch; else the gradients are added over processes at its end.
    """

    def __init__(self, parameters: Sequence[Tensor], group: ProcessGroup, sums: Sums, overlaps: bool) -> None:
        self._parameters, self._group, self._sums, self._overlaps = parameters, group, sums, overlaps
        self._pending = zeros((2,), dtype=float64, device=sums.total.device)  # figures of this process in the window
        self._transfer, self._figures = Transfer(), None
        self._made: tuple[list[int], Buckets] | None = None

    def start(self, is_first: bool) -> None:
        """Begin a batch, the first of a window or another one."""
        self._rely()
        if is_first:
            self._pending.zero_()
            self._sums.window.zero_()
        self._buckets().restart()
        self._figures = None

    def add(self, value: Tensor, figures: Tensor) -> None:
        """Differentiate the loss of a shard, in the unit of the window.

        Args:
            figures: (sum of losses, count), float64.
        """
        with no_grad():
            self._pending.add_(figures)
            if self._overlaps:
                self._send_figures()
        with listening_to_leaves(self._arrive) if self._overlaps else nullcontext():
            value.backward()

    def add_nothing(self) -> None:
        """Count a shard without rows."""

    def end_batch(self, is_first: bool) -> None:
        """End a batch."""

    def finish(self) -> None:
        """Replace the gradients of the window by those of the mean over its samples, of all processes."""
        self._rely()
        buckets = self._buckets()
        with no_grad():
            self._send_figures()
            buckets.send_rest()
            END_ALL_REDUCE(self._figures, transfer=self._transfer, group=self._group, op=ReduceOp.SUM)
            self._sums.window.zero_()
            self._sums.add(make_tensor(self._figures))
            factor = self._sums.factor()
            for bucket in buckets.receive():
                number = factor.to(bucket.parameters[0].dtype).array
                for p, part in zip(bucket.parameters, bucket.parts):
                    set_gradient(p, MULTIPLY, part, number)
        self._figures = None  # also if the start of the next window is replayed, and its end is not

    def resume(self, is_first_process: bool) -> None:
        """Continue a window whose gradients, which one process has computed, were loaded."""
        self._pending.zero_()
        self._sums.count.sub_(self._sums.window)  # added again when the window ends
        if is_first_process:
            self._pending[1:].add_(self._sums.window)
            return
        for p in self._parameters:
            p.grad = None

    def _rely(self) -> None:
        rely_on([self._pending])
        self._sums.rely()

    def _send_figures(self) -> None:
        if self._figures is None:
            self._figures = empty((2,), float64, self._pending.array)
            COPY(self._figures, self._pending.array)
            BEGIN_ALL_REDUCE(self._figures, transfer=self._transfer, group=self._group, op=ReduceOp.SUM)

    def _arrive(self, leaf: Tensor) -> None:
        with no_grad():
            self._buckets().arrive(leaf)

    def _buckets(self) -> Buckets:
        """The buckets of the parameters that are trained now."""
        trained = [p for p in reversed(self._parameters) if p.requires_grad]
        ids = [id(p) for p in trained]
        if self._made is None or self._made[0] != ids:
            self._made = ids, Buckets(trained, self._group, ReduceOp.SUM)
        return self._made[1]


class Tree:
    """Adds shards of a batch in a binary tree, which is the same for any number of processes.

    Args:
        parameters, sums: see :class:`Overlapped`.
    """

    def __init__(self, parameters: Sequence[Tensor], group: ProcessGroup, sums: Sums) -> None:
        self._parameters, self._group, self._sums = parameters, group, sums
        self._branches: list[list[Any]] = []  # of complete subtrees, the largest first, their sums
        self._num_added = 0

    def start(self, is_first: bool) -> None:
        """Begin a batch, the first of a window or another one."""
        self._sums.rely()
        self._branches, self._num_added = [], 0
        if is_first:
            self._sums.window.zero_()

    def add(self, value: Tensor, figures: Tensor) -> None:
        """Differentiate the loss of the next shard (see :meth:`Overlapped.add`)."""
        buckets = self._buckets()
        trained = [p for bucket in buckets for p in bucket]
        found = dict(zip(map(id, trained), grad([value], trained, allow_unused=True)))
        with no_grad():
            self._push([*(pack(bucket, [found[id(p)] for p in bucket]) for bucket in buckets), figures.array])

    def add_nothing(self) -> None:
        """Add zeros for a shard without rows, as each process does: x + 0 may differ from x in the sign of a zero."""
        figures = empty((2,), float64, self._sums.total.array)
        FILL(figures, value=0)
        with no_grad():
            self._push([*(pack(bucket, [None] * len(bucket)) for bucket in self._buckets()), figures])

    def _push(self, vectors: list[Any]) -> None:
        number, self._num_added = self._num_added, self._num_added + 1
        while number & 1:
            lower = self._branches.pop()
            for a, b in zip(lower, vectors):
                ADD(a, a, b)
            vectors, number = lower, number >> 1
        self._branches.append(vectors)

    def end_batch(self, is_first: bool) -> None:
        """Add over processes, and then to the gradients of the window."""
        ((*flats, figures),) = self._branches
        with no_grad():
            for vector in (*flats, figures):
                TREE_SUM(vector, group=self._group)
            self._sums.add(make_tensor(figures))
            for bucket, flat in zip(self._buckets(), flats):
                for p, part in zip(bucket, unpack(flat, bucket)):
                    if is_first or p.grad is None:
                        set_gradient(p, COPY, part)
                    else:
                        set_gradient(p, ADD, p.grad.array, part)

    def finish(self) -> None:
        """Replace the gradients of the window by those of the mean over its samples."""
        self._sums.scale_gradients(self._parameters)

    def resume(self, is_first_process: bool) -> None:
        """Continue a window whose gradients were loaded."""

    def _buckets(self) -> list[list[Tensor]]:
        return partition([p for p in reversed(self._parameters) if p.requires_grad])


def set_gradient(parameter: Tensor, kernel: Callable[..., None], *operands: Any) -> None:
    """Launch a kernel that writes the ``grad`` of a parameter, which is made if need be."""
    gradient = parameter.grad
    if gradient is None:
        if active.tape is not None:
            active.tape.record_gradient(parameter, None)  # guarded, unless the step sets it: the window has no rows here
        gradient = make_tensor(empty(parameter.array.shape, parameter.array.dtype, parameter.array))
    kernel(gradient.array, *operands)
    bump_version(gradient)
    parameter.grad = gradient
