"""Sums of vectors over processes that travel while other work is done: one launch begins a transfer, another ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.dtypes import is_half
from gpunet.distributed.collectives import Collective, break_graph_on_host, communicator_of
from gpunet.distributed.process_group import ProcessGroup, ReduceOp

#: Transfers that have begun and not ended.  MPI moves their data while the process is in a call of MPI.
_under_way: list[Transfer] = []


class Transfer:
    """The state between the two launches of an all_reduce."""

    def __init__(self) -> None:
        self._request: Any = None
        self._array: Any = None  # the one that MPI or NCCL works on
        self._end_on_gpu: Callable[[], None] | None = None

    def begin(self, x: Any, group: ProcessGroup, op: ReduceOp) -> None:
        """Begin to replace ``x``, which must stay as it is until :meth:`end`."""
        self._abandon(group)
        if not isinstance(x, numpy.ndarray):
            if group.size() == 1:
                return
            if (communicator := communicator_of(group, x, op)) is not None:
                self._array, self._end_on_gpu = x, communicator.begin_all_reduce(x, op.value)
                return
            break_graph_on_host("all_reduce", x, op)
        array = devices.to_host(x).view(numpy.ndarray)
        self._array = array.astype(numpy.float32) if is_half(array.dtype) else array
        self._request = group.communicator.Iallreduce(group.in_place, self._array, op=group.operation(op))
        for transfer in _under_way:
            transfer.progress()
        if self._request is not None:
            _under_way.append(self)

    def progress(self) -> None:
        """Let MPI move data."""
        if self._request is not None and self._request.Test():
            self._request = None

    def end(self, x: Any, group: ProcessGroup, op: ReduceOp) -> None:
        """Wait until ``x`` has the result."""
        array, self._array = self._array, None
        if self._end_on_gpu is not None:
            end, self._end_on_gpu = self._end_on_gpu, None
            end()
            return
        if array is None:  # of a process alone, on a GPU
            return
        if self in _under_way:
            _under_way.remove(self)
        group.complete(self._request, "all_reduce")
        self._request = None
        if op is ReduceOp.AVG:
            numpy.divide(array, array.dtype.type(group.size()), out=array)
        if not (isinstance(x, numpy.ndarray) and numpy.may_share_memory(x, array)):
            devices.assign(x, devices.move(array.astype(x.dtype), devices.of(x)))

    def _abandon(self, group: ProcessGroup) -> None:
        """Complete a transfer whose end an error has prevented."""
        if self in _under_way:
            _under_way.remove(self)
        group.complete(self._request, "all_reduce")
        if self._end_on_gpu is not None:
            self._end_on_gpu()
            self._end_on_gpu = None


class _Half(Collective):
    """The launch of a method of a :class:`Transfer`, which is an option, on one array."""

    def __init__(self, method: str) -> None:
        self.name, self._method = f"all_reduce_{method}", method

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        getattr(options["transfer"], self._method)(arrays[0], options["group"], options["op"])


BEGIN_ALL_REDUCE, END_ALL_REDUCE = _Half("begin"), _Half("end")
