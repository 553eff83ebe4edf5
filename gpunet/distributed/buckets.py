"""Gradients in buckets: vectors that are summed over processes as soon as they are complete, while backward still runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

from gpunet.autograd import COPY, FILL, Tensor
from gpunet.distributed.process_group import ProcessGroup, ReduceOp
from gpunet.distributed.transfers import BEGIN_ALL_REDUCE, END_ALL_REDUCE, Transfer
from gpunet.launch.memory import empty

#: Megabytes of a bucket, and of the first one, which shall leave early.
BUCKET_MB, FIRST_MB = 25.0, 1.0


def partition(parameters: Sequence[Tensor], megabytes: float | None = None) -> list[list[Tensor]]:
    """The parameters in order, in lists of one dtype and device.

    Args:
        megabytes: of each list, or one parameter; by default BUCKET_MB, and FIRST_MB for the first list.
    """
    found: list[list[Tensor]] = []
    open_lists: dict[Any, list[Tensor]] = {}
    limit = (FIRST_MB if megabytes is None else megabytes) * 2**20
    for p in parameters:
        key = (p.dtype, p.device)
        bucket = open_lists.get(key)
        if bucket is None or sum(q.array.nbytes for q in bucket) + p.array.nbytes > limit:
            if bucket is not None and megabytes is None:
                limit = BUCKET_MB * 2**20
            bucket = open_lists[key] = []
            found.append(bucket)
        bucket.append(p)
    return found


def pack(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], num_more: int = 0) -> Any:
    """Return the gradients as a vector, 0 where there is none, with places for more numbers behind them."""
    like = parameters[0].array
    flat = empty((sum(p.array.size for p in parameters) + num_more,), like.dtype, like)
    for part, gradient in zip(unpack(flat, parameters), gradients):
        if gradient is None:
            FILL(part, value=0)
        else:
            COPY(part, gradient.array)
    return flat


def unpack(flat: Any, parameters: Sequence[Tensor]) -> Iterator[Any]:
    """Yield the parts of a vector in the shapes of the parameters."""
    start = 0
    for p in parameters:
        yield flat[start : start + p.array.size].reshape(p.array.shape)
        start += p.array.size


class Summed(NamedTuple):
    """A bucket whose gradients were combined: see :meth:`Buckets.receive`."""

    parameters: list[Tensor]
    parts: list[Any]  # arrays of the shapes of the parameters
    shares: Any  # for each parameter the combination of 1 where a process had a gradient, else 0


class Buckets:
    """Combine the gradients of parameters over processes.

        for p in ...: buckets.arrive(p)     # when the grad of p is complete: full buckets leave, in order
        buckets.send_rest()
        for bucket in buckets.receive(): ...

    Args:
        parameters: in the order in which backward completes them.
        group: the processes, which have the same parameters in the same order.
        op: SUM or AVG.
        megabytes: see :func:`partition`.
    """

    def __init__(self, parameters: Sequence[Tensor], group: ProcessGroup, op: ReduceOp, megabytes: float | None = None) -> None:
        self.group, self._op = group, op
        self._buckets = partition(parameters, megabytes)
        self._transfers = [Transfer() for _ in self._buckets]
        self._place = {id(p): number for number, bucket in enumerate(self._buckets) for p in bucket}
        self.restart()

    def restart(self) -> None:
        """Forget what has arrived in a backward pass that did not end."""
        self._flat: list[Any] = []
        self._missing = [{id(p) for p in bucket} for bucket in self._buckets]

    def arrive(self, parameter: Tensor) -> None:
        """Send the buckets that are complete with a parameter, and those behind them that are complete."""
        place = self._place.get(id(parameter))
        if place is None:
            return
        self._missing[place].discard(id(parameter))
        while len(self._flat) < len(self._buckets) and not self._missing[len(self._flat)]:
            self._send(())

    def send_rest(self, absent: Set[int] = frozenset()) -> None:
        """Send the buckets that were not complete.

        Args:
            absent: ids of the parameters that this process has no gradient for; what is in their ``grad`` counts all the same.
        """
        while len(self._flat) < len(self._buckets):
            self._send(absent)

    def _send(self, absent: Any) -> None:
        number = len(self._flat)
        bucket = self._buckets[number]
        flat = pack(bucket, [p.grad for p in bucket], len(bucket))
        size = flat.size - len(bucket)
        FILL(flat[size:], value=1)
        for place, p in enumerate(bucket):
            if id(p) in absent:
                FILL(flat[size + place : size + place + 1], value=0)
        BEGIN_ALL_REDUCE(flat, transfer=self._transfers[number], group=self.group, op=self._op)
        self._flat.append(flat)

    def receive(self) -> Iterator[Summed]:
        """Yield each bucket when it is complete; then start anew."""
        flats = self._flat
        self.restart()
        for bucket, transfer, flat in zip(self._buckets, self._transfers, flats, strict=True):
            END_ALL_REDUCE(flat, transfer=transfer, group=self.group, op=self._op)
            yield Summed(bucket, [*unpack(flat, bucket)], flat[flat.size - len(bucket) :])
