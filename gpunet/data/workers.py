"""Worker processes of a DataLoader: what they run, what they send, and how the main process notices that one died.

The main process sends a worker tasks by a pipe, and the worker answers each of them, in order, by another.  A result is a
pickled message whose arrays follow it as raw bytes.  A thread of the worker sends results, so that a full pipe does not keep the
worker from the next batch.  A worker ends when it is told to, or when the main process is gone.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, NoReturn

import numpy

from gpunet.backend.devices import CPU
from gpunet.backend.threads import set_num_threads
from gpunet.data.fetch import EXHAUSTED, Recipe, make_fetcher
from gpunet.data.randomness import Key, seed_globals
from gpunet.errors import WorkerError

__all__ = ["get_worker_info"]

_GRACE = 5.0  # seconds that a worker gets to finish its sample before it is terminated


@dataclass(frozen=True)
class WorkerInfo:
    """Describes the worker process that calls :func:`get_worker_info`."""

    id: int
    num_workers: int
    seed: int
    dataset: Any  # the copy of this process


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Return ``id``, ``num_workers``, ``seed`` and ``dataset`` of this worker process; None in the main process."""
    return _worker_info


class Job(NamedTuple):
    """What a worker needs to start."""

    recipe: Recipe
    num_workers: int
    key: Key
    init: Callable[[int], None] | None


class StartEpoch(NamedTuple):
    """A task without an answer: begin an epoch."""

    key: Key
    epoch: int


class Task(NamedTuple):
    """A task: make the batch with a number, of the data set at ``index``, or the next one of an iterable data set."""

    iteration: int
    number: int
    index: Any = None
    is_discarded: bool = False


class Result(NamedTuple):
    """The answer to a task: a batch, or None with ``is_exhausted``, or a failure."""

    task: Task
    batch: Any = None
    is_exhausted: bool = False
    failure: Failure | None = None


class Failure(NamedTuple):
    """An exception in a worker."""

    text: str  # the traceback
    summary: str
    pickled: bytes | None  # the exception itself, where it can be pickled


# ---- in the worker ----------------------------------------------------------------------------------------------------


def _run(number: int, job: Job, tasks: Connection, results: Connection) -> None:
    """Answer tasks until told to stop; this is all that a worker process does."""
    with CPU:
        _answer_tasks(number, job, tasks, results)


def _answer_tasks(number: int, job: Job, tasks: Connection, results: Connection) -> None:
    global _worker_info
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main process stops its workers
    set_num_threads(1)
    seed = job.key.seed_of("worker", number)
    _worker_info = WorkerInfo(number, job.num_workers, seed, job.recipe.dataset)
    outbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    threading.Thread(target=_send_all, args=(outbox, results), daemon=True).start()
    parent = parent_process()
    assert parent is not None
    copies = job.recipe.collate_fn is not None or not job.recipe.is_batched  # of what the data set or a function keeps
    failure: Failure | None = None
    fetcher = None
    try:
        seed_globals(job.key.digest("worker", number))
        if job.init is not None:
            job.init(number)
        fetcher = make_fetcher(job.recipe, number)
    except Exception as error:
        failure = _describe(error)
    while tasks in connection.wait([tasks, parent.sentinel]):
        try:
            task = tasks.recv()
        except EOFError:
            return
        if task is None:
            return
        if isinstance(task, StartEpoch):
            try:
                if fetcher is not None:
                    failure = None
                    fetcher.start(*task)
            except Exception as error:
                failure = _describe(error)
        else:
            outbox.put(_pack(Result(task._replace(index=None), failure=failure)) if failure else _answer(fetcher, task, copies))


def _answer(fetcher: Any, task: Task, copies: bool) -> _Message:
    short = task._replace(index=None)
    try:
        batch = fetcher.fetch(task.is_discarded) if task.index is None else fetcher.fetch(task.index)
        return _pack(Result(short, is_exhausted=True) if batch is EXHAUSTED else Result(short, batch), copies)
    except Exception as error:
        return _pack(Result(short, failure=_describe(error)))


def _describe(error: Exception) -> Failure:
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # some exceptions pickle, but do not come back
    except Exception:
        pickled = None
    summary = "".join(traceback.format_exception_only(error)).strip()
    return Failure("".join(traceback.format_exception(error)).rstrip(), summary, pickled)


class _Message(NamedTuple):
    """A pickled message, and the memory of its arrays."""

    body: bytes
    buffers: list[Any]


def _pack(message: Any, copies: bool = False) -> _Message:
    """Pickle a message; ``copies``: its arrays may change before they are sent."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    return _Message(body, [bytes(view) for view in views] if copies else views)


def _send_all(outbox: queue.SimpleQueue[_Message], results: Connection) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more
        for body, buffers in iter(outbox.get, None):
            results.send_bytes(pickle.dumps((body, list(map(len, buffers)))))
            for buffer in filter(len, buffers):
                results.send_bytes(buffer)


def _receive(results: Connection) -> Any:
    body, sizes = pickle.loads(results.recv_bytes())
    buffers = [numpy.empty(size, numpy.uint8) for size in sizes]
    for buffer in filter(len, buffers):
        results.recv_bytes_into(buffer.data)
    return pickle.loads(body, buffers=buffers)


# ---- in the main process ----------------------------------------------------------------------------------------------


class _Worker(NamedTuple):
    number: int
    process: Any
    tasks: Connection
    results: Connection

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.process.pid})"


class WorkerPool:
    """The worker processes of a loader.

    Args:
        job: what each worker runs.
        context: of multiprocessing.
        timeout: seconds to wait for a batch; 0 waits as long as the worker lives.
    """

    def __init__(self, job: Job, context: Any, timeout: float) -> None:
        self._timeout = timeout
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        try:
            for number in range(job.num_workers):
                self._workers.append(_start(number, job, context))
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        return bool(self._finalizer.alive)

    def send(self, number: int, task: Any) -> None:
        """Send a task to a worker."""
        worker = self._workers[number]
        try:
            worker.tasks.send(task)
        except OSError:
            self._raise_death(worker)

    def receive(self, numbers: Sequence[int]) -> Result:
        """Return the next result of any of the workers ``numbers``.

        Raises:
            WorkerError: a worker died, or none sent a result in time; the pool is closed.
        """
        workers = [self._workers[number] for number in numbers]
        waited: dict[Any, _Worker] = {worker.results: worker for worker in workers}
        waited |= {worker.process.sentinel: worker for worker in workers}
        ready = connection.wait(list(waited), self._timeout or None)
        if not ready:
            names = " and ".join(map(str, workers))
            self.close(grace=0.0)
            raise WorkerError(
                f"DataLoader: no batch from {names} within timeout={self._timeout} seconds; look for what blocks __getitem__, or "
                "pass a longer timeout (0 waits without limit)"
            )
        worker = waited[ready[0]]
        try:
            if worker.results.poll():  # also what it sent before it died
                result: Result = _receive(worker.results)
                return result
        except (EOFError, OSError):
            pass
        self._raise_death(worker)

    def _raise_death(self, worker: _Worker) -> NoReturn:
        worker.process.join(_GRACE)
        code = worker.process.exitcode
        how = f"exited with status {code}" if code is None or code >= 0 else f"was killed by {signal.Signals(-code).name}"
        hint = "; the system kills processes when memory runs out" if code == -signal.SIGKILL else "; its messages are above"
        text = f"DataLoader: {worker} {how}, without sending its batch{hint}. To see the failure itself, pass num_workers=0"
        self.close(grace=0.0)
        raise WorkerError(text)

    def close(self, grace: float = _GRACE) -> None:
        """Stop all workers; one that has not finished its sample after ``grace`` seconds is terminated."""
        if self._finalizer.detach() is not None:
            _stop(self._workers, grace)


def _start(number: int, job: Job, context: Any) -> _Worker:
    task_reader, task_writer = context.Pipe(duplex=False)
    result_reader, result_writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(number, job, task_reader, result_writer), daemon=True, name=f"DataLoader worker {number}"
    )
    with warnings.catch_warnings():
        # Python 3.12 warns that a forked child may wait for locks of other threads; workers use no threads of the parent
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        process.start()
    task_reader.close()
    result_writer.close()  # before the next worker is forked, which would keep it open
    return _Worker(number, process, task_writer, result_reader)


def _stop(workers: list[_Worker], grace: float = _GRACE) -> None:
    for worker in workers:
        if grace:
            with contextlib.suppress(OSError):
                worker.tasks.send(None)
        else:
            worker.process.terminate()
    deadline = time.monotonic() + grace
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0.0) + (0.0 if grace else 1.0))
        if worker.process.exitcode is None:
            worker.process.terminate()
            worker.process.join(1.0)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.tasks.close()
        worker.results.close()
        worker.process.close()
    workers.clear()


def raise_failure(failure: Failure, number: int) -> NoReturn:
    """Raise the WorkerError of an exception in worker ``number``; its cause is the exception, where it can be pickled."""
    cause = None
    if failure.pickled is not None:
        cause = pickle.loads(failure.pickled)
    raise WorkerError(f"DataLoader: {failure.summary}\nin worker {number}:\n\n{failure.text}") from cause
