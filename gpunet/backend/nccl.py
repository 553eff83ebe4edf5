"""NCCL, NVIDIA's library of collectives between GPUs, by CuPy's binding: one GPU of each process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet.backend.devices import Array, Device, cupy, nccl
from gpunet.backend.dtypes import is_boolean, is_complex, to_real
from gpunet.errors import ProcessError

_TYPES = {
    "int8": 0, "uint8": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5, "float16": 6, "float32": 7, "float64": 8,
    "bfloat16": 9,
}  # fmt: skip
_BYTES = _TYPES["uint8"]
_OPERATIONS = {"SUM": 0, "PROD": 1, "MAX": 2, "MIN": 3, "AVG": 4}
_OF_BOOLEANS = {"SUM": "MAX", "PROD": "MIN", "MAX": "MAX", "MIN": "MIN"}


def make_unique_id() -> bytes:
    """Return what all processes of a communicator must be given: one of them makes it."""
    return bytes(nccl().get_unique_id())


def name_of(device: Device) -> str:
    """Return the name of a GPU on its machine, which is the same in all processes."""
    return str(cupy().cuda.Device(device.index).pci_bus_id)


@contextmanager
def _named_errors(function: str) -> Iterator[None]:
    try:
        yield
    except nccl().NcclError as error:
        raise ProcessError(f"{function}: NCCL failed ({error}); with NCCL_DEBUG=WARN it prints the cause") from error


class Communicator:
    """Collectives of contiguous arrays on a GPU, which begin on its current stream and can be captured; no method waits.

    All processes make one with the same unique identifier, and call the same methods in the same order.

    Args:
        device: the GPU of this process.
        size, rank: the number of processes, and of this one.
        unique_id: of :func:`make_unique_id`.

    Raises:
        ProcessError: NCCL has refused; by all methods.
    """

    def __init__(self, device: Device, size: int, unique_id: bytes, rank: int) -> None:
        self.device, self.size, self.rank = device, size, rank
        self._gpu = cupy().cuda.Device(device.index)
        with self._gpu, _named_errors("init_process_group"):
            self._side = cupy().cuda.Stream(non_blocking=True)
            self._communicator: Any = nccl().NcclCommunicator(size, unique_id, rank)
        # CuPy destroys it with its last reference, at exit after other processes have gone: NCCL may wait for them for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._communicator))
        self._is_captured = False
        self._posted: tuple[list[tuple[Array, int]], list[tuple[Array, int]]] = [], []

    @staticmethod
    def computes(dtype: Any, operation: str) -> bool:
        """Return whether NCCL combines numbers of a dtype so: "SUM", "AVG", "PROD", "MAX", "MIN"."""
        if is_complex(dtype):
            return operation in ("SUM", "AVG")
        return operation in (_OF_BOOLEANS if is_boolean(dtype) else _OPERATIONS if numpy.dtype(dtype).name in _TYPES else ())

    def _call(self, function: str, *arguments: Any) -> None:
        self.flush()
        with self._gpu, _named_errors(function):
            getattr(self._communicator, _METHODS[function])(*arguments, self._stream())

    def _stream(self) -> int:
        """Return the address of the current stream; note whether a graph captures it."""
        stream = cupy().cuda.get_current_stream()
        self._is_captured = self._is_captured or stream.is_capturing()
        return int(stream.ptr)

    def all_reduce(self, x: Array, op: str) -> None:
        self._call("all_reduce", x.data.ptr, x.data.ptr, *_numbers(x), _code(x, op))

    def reduce(self, x: Array, op: str, root: int) -> None:
        self._call("reduce", x.data.ptr, x.data.ptr if root == self.rank else 0, *_numbers(x), _code(x, op), root)

    def reduce_scatter(self, result: Array, x: Array, op: str) -> None:
        self._call("reduce_scatter", x.data.ptr, result.data.ptr, *_numbers(result), _code(x, op))

    def broadcast(self, x: Array, root: int) -> None:
        self._call("broadcast", x.data.ptr, x.data.ptr, x.nbytes, _BYTES, root)

    def all_gather(self, result: Array, x: Array) -> None:
        self._call("all_gather", x.data.ptr, result.data.ptr, x.nbytes, _BYTES)

    def gather(self, result: Array, x: Array, root: int) -> None:
        parts = result if self.rank == root else ()
        self.exchange("gather", [(x, root)], [(part, rank) for rank, part in enumerate(parts)])

    def scatter(self, result: Array, x: Array, root: int) -> None:
        parts = x if self.rank == root else ()
        self.exchange("scatter", [(part, rank) for rank, part in enumerate(parts)], [(result, root)])

    def all_to_all(self, result: Array, x: Array) -> None:
        sent, received = (a.reshape(self.size, -1) for a in (x, result))
        self.exchange("all_to_all", [(part, k) for k, part in enumerate(sent)], [(part, k) for k, part in enumerate(received)])

    def exchange(self, function: str, sent: Sequence[tuple[Array, int]], received: Sequence[tuple[Array, int]]) -> None:
        """Send arrays to processes and receive others from them, all at once.

        Args:
            function: that the user called, for messages.
            sent, received: arrays and ranks.
        """
        self.flush()
        with self._gpu, _named_errors(function):
            stream = self._stream()
            nccl().groupStart()
            try:
                for x, rank in sent:
                    self._communicator.send(x.data.ptr, x.nbytes, _BYTES, rank, stream)
                for x, rank in received:
                    self._communicator.recv(x.data.ptr, x.nbytes, _BYTES, rank, stream)
            finally:
                nccl().groupEnd()

    def post(self, sent: Sequence[tuple[Array, int]], received: Sequence[tuple[Array, int]]) -> None:
        """Remember arrays to send and to receive, see :meth:`exchange`, until :meth:`flush` or another call."""
        self._posted[0].extend(sent)
        self._posted[1].extend(received)

    def flush(self) -> None:
        """Begin to send and receive what was posted, all at once: one after the other, two processes could wait for each other."""
        (sent, received), self._posted = self._posted, ([], [])
        if sent or received:
            self.exchange("isend or irecv", sent, received)

    def begin_all_reduce(self, x: Array, op: str) -> Callable[[], None]:
        """Begin :meth:`all_reduce` on a stream of its own, behind what the current one has now.

        Returns:
            A function that lets the then current stream wait for the result; ``x`` must live until then.
        """
        xp = cupy()
        self.flush()
        with self._gpu:
            self._side.wait_event(xp.cuda.get_current_stream().record(xp.cuda.Event(disable_timing=True)))
            with self._side:
                self.all_reduce(x, op)
                done = self._side.record(xp.cuda.Event(disable_timing=True))

        def end() -> None:
            with self._gpu:
                xp.cuda.get_current_stream().wait_event(done)

        return end

    def record(self) -> Reached:
        """Return a request that is complete when the current stream has done what it has now."""
        with self._gpu:
            return Reached(cupy().cuda.get_current_stream().record(cupy().cuda.Event(disable_timing=True)), self.check)

    def check(self) -> None:
        """Raise a ProcessError if a collective has failed since it began, as when another process has gone."""
        with _named_errors("a collective on a GPU"):
            self._communicator.check_async_error()

    def destroy(self) -> None:
        """Release the communicator; once a graph has captured it, only the end of the process does.

        ncclCommDestroy waits until all graphs that contain its collectives are gone.
        """
        if not self._is_captured:
            self._communicator.destroy()


class Reached:
    """A request, as mpi4py has them: whether a GPU has come to an event.

    Args:
        check: raises an error of a collective, after which the GPU may never come there.
    """

    def __init__(self, event: Any, check: Callable[[], None]) -> None:
        self._event, self._check = event, check

    def Test(self) -> bool:
        if self._event.done:
            return True
        self._check()
        return False


#: CuPy's names.
_METHODS = {
    "all_reduce": "allReduce", "reduce": "reduce", "reduce_scatter": "reduceScatter", "broadcast": "broadcast",
    "all_gather": "allGather",
}  # fmt: skip


def _numbers(x: Array) -> tuple[int, int]:
    """The number of NCCL's numbers in an array, and their type; a complex one is two."""
    if is_complex(x.dtype):
        return 2 * x.size, _TYPES[numpy.dtype(to_real(x.dtype)).name]
    return x.size, _TYPES["uint8" if is_boolean(x.dtype) else x.dtype.name]


def _code(x: Array, operation: str) -> int:
    return _OPERATIONS[_OF_BOOLEANS[operation] if is_boolean(x.dtype) else operation]
