"""Communicators of processes without MPI: mpi4py's methods that collectives call, for arrays of the host.

Their requests are complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.nccl import Communicator, Reached
from gpunet.errors import ArgumentError


class Alone:
    """The communicator of a process without others."""

    def Iallreduce(self, send: Any, receive: Any, op: Any = None) -> None:
        if send is not None:  # else it is in place
            receive[...] = send

    def Ireduce(self, send: Any, receive: Any, op: Any = None, root: int = 0) -> None:
        receive[...] = send

    def Ibcast(self, array: Any, root: int = 0) -> None:
        """Do nothing: there are no other processes."""

    def Iallgather(self, send: Any, receive: Any) -> None:
        receive.reshape(-1)[...] = send.reshape(-1)

    def Igather(self, send: Any, receive: Any, root: int = 0) -> None:
        self.Iallgather(send, receive)

    def Iscatter(self, send: Any, receive: Any, root: int = 0) -> None:
        self.Iallgather(send, receive)

    def Ireduce_scatter_block(self, send: Any, receive: Any, op: Any = None) -> None:
        self.Iallgather(send, receive)

    def Ialltoall(self, send: Any, receive: Any) -> None:
        self.Iallgather(send, receive)

    def Iallgatherv(self, send: Any, receive: Any) -> None:
        self.Iallgather(send, receive[0])

    def Ibarrier(self) -> None:
        """Return at once: there are no other processes."""


class OverNccl:
    """The communicator of processes that MPI does not know.

    Arrays travel as bytes from GPU to GPU, those of all processes to each; sums are computed on the host in the order of the ranks.

    Args:
        abort: ends this process with a status.
    """

    def __init__(self, communicator: Communicator, abort: Callable[[int], None]) -> None:
        self._communicator, self.Abort = communicator, abort

    def _gather(self, array: numpy.ndarray) -> numpy.ndarray:
        """The arrays of all processes, along a new first dimension."""
        size = self._communicator.size
        if not array.size:
            return numpy.empty((size, *array.shape), array.dtype)
        own = self._on_gpu(array)
        everything = devices.empty((size * own.size,), numpy.dtype("uint8"), self._communicator.device)
        self._communicator.all_gather(everything, own)
        found: numpy.ndarray = devices.to_host(everything).view(array.dtype).reshape(size, *array.shape)
        return found

    def _on_gpu(self, array: numpy.ndarray) -> Array:
        return devices.move(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8), self._communicator.device)

    def _combine(self, array: numpy.ndarray, op: str) -> numpy.ndarray:
        found: numpy.ndarray = _UFUNCS[op].reduce(self._gather(array), axis=0, dtype=array.dtype)
        return found

    def Iallreduce(self, send: numpy.ndarray | None, receive: numpy.ndarray, op: str) -> None:
        receive[...] = self._combine(receive if send is None else send, op)

    def Ireduce(self, send: numpy.ndarray, receive: numpy.ndarray, op: str, root: int) -> None:
        self.Iallreduce(send, receive, op)

    def Ireduce_scatter_block(self, send: numpy.ndarray, receive: numpy.ndarray, op: str) -> None:
        receive[...] = self._combine(send, op).reshape(self._communicator.size, *receive.shape)[self._communicator.rank]

    def Ibcast(self, array: numpy.ndarray, root: int) -> None:
        if array.size:
            moved = self._on_gpu(array)
            self._communicator.broadcast(moved, root)
            array[...] = devices.to_host(moved).view(array.dtype).reshape(array.shape)

    def Iallgather(self, send: numpy.ndarray, receive: numpy.ndarray) -> None:
        receive.reshape(-1)[...] = self._gather(send).reshape(-1)

    def Iallgatherv(self, send: numpy.ndarray, receive: tuple[numpy.ndarray, list[int]]) -> None:
        result, counts = receive
        padded = numpy.zeros(max(counts), send.dtype)
        padded[: send.size] = send
        result[...] = numpy.concatenate([part[:count] for part, count in zip(self._gather(padded), counts)])

    def Igather(self, send: numpy.ndarray, receive: numpy.ndarray, root: int) -> None:
        found = self._gather(send)
        if self._communicator.rank == root:
            receive[...] = found

    def Iscatter(self, send: numpy.ndarray, receive: numpy.ndarray, root: int) -> None:
        whole = send if self._communicator.rank == root else numpy.empty((self._communicator.size, *receive.shape), receive.dtype)
        self.Ibcast(whole, root)
        receive[...] = whole[self._communicator.rank]

    def Ialltoall(self, send: numpy.ndarray, receive: numpy.ndarray) -> None:
        parts = self._gather(send).reshape(self._communicator.size, self._communicator.size, -1)
        receive.reshape(-1)[...] = parts[:, self._communicator.rank].reshape(-1)

    def Isend(self, array: numpy.ndarray, dest: int, tag: int) -> Posted:
        self._check_tag("isend", tag)
        self._communicator.post([(self._on_gpu(array), dest)], [])
        return Posted(self._communicator)

    def Irecv(self, array: numpy.ndarray, source: int, tag: int) -> Posted:
        self._check_tag("irecv", tag)
        received = devices.empty(array.shape, array.dtype, self._communicator.device)
        self._communicator.post([], [(received, source)])
        return Posted(self._communicator, array, received)

    @staticmethod
    def _check_tag(function: str, tag: int) -> None:
        if tag != 0:
            raise ArgumentError(f"{function}: tag={tag}; expected 0 in processes that mpiexec did not start: NCCL has no tags")

    def Ibarrier(self) -> None:
        self._gather(numpy.zeros(1, numpy.uint8))

    def Free(self) -> None:
        """Do nothing: the group releases the communicator."""


class Posted:
    """A request to send, or to receive an array, which begins when somebody waits for it or calls a collective."""

    def __init__(self, communicator: Communicator, target: numpy.ndarray | None = None, received: Array = None) -> None:
        self._communicator, self._target, self._received = communicator, target, received
        self._reached: Reached | None = None

    def Test(self) -> bool:
        if self._reached is None:
            self._communicator.flush()
            self._reached = self._communicator.record()
        if not self._reached.Test():
            return False
        if self._target is not None:
            self._target[...] = devices.to_host(self._received)
        return True


#: of the values of ReduceOp; an average is a sum that the caller divides
_UFUNCS = {
    "SUM": numpy.add, "AVG": numpy.add, "PROD": numpy.multiply, "MIN": numpy.minimum, "MAX": numpy.maximum,
    "BAND": numpy.bitwise_and, "BOR": numpy.bitwise_or, "BXOR": numpy.bitwise_xor,
}  # fmt: skip
