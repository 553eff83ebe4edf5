"""gpunet.capture: a step recorded once and replayed."""

from __future__ import annotations

import functools
import logging
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.captured.compiled import module as compiled
from gpunet.captured.epoch import CapturedEpoch
from gpunet.captured.explain import Explanation, Row, SplitExplanation
from gpunet.captured.guards import tensors
from gpunet.captured.ir import tree_map
from gpunet.captured.recording import Recording, check_arguments
from gpunet.captured.split import SplitStep
from gpunet.errors import ArgumentError, CaptureError
from gpunet.launch.random import Generator
from gpunet.launch.tape import Split, active

__all__ = ["capture"]

_log = logging.getLogger(__name__)
BACKENDS = ("auto", "numpy", "numba")
_ordering = threading.Lock()


class CapturedStep:
    """A function that is recorded at its first call and replayed from then on; made by :func:`capture`."""

    def __init__(self, function: Callable[..., Any], backend: str, recordings: int, fullgraph: bool = True) -> None:
        functools.update_wrapper(self, function)
        self.function, self.backend, self.max_recordings, self.fullgraph = function, backend, recordings, fullgraph
        self.name = getattr(function, "__name__", type(function).__name__)
        self.recordings: list[Recording] = []  # the latest used last
        self._split: SplitStep | None = None
        self._split_keys: list[Any] = []  # of arguments for which there is no recording

    def __reduce__(self) -> Any:  # a copy has recordings of its own
        return CapturedStep, (self.function, self.backend, self.max_recordings, self.fullgraph)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> CapturedStep:
        """As a method: each instance has recordings of its own."""
        if instance is None:
            return self
        step = CapturedStep(types.MethodType(self.function, instance), self.backend, self.max_recordings, self.fullgraph)
        instance.__dict__[self.name] = step
        return step

    def __call__(self, *args: Any, **options: Any) -> Any:
        if active.tape is not None:  # part of a step that is being recorded
            return self.function(*args, **options)
        latest = self.recordings[-1] if self.recordings else None
        if latest is not None and (given := latest.takes(args, options)) is not None and latest.conditions.hold():
            return latest.replay(given)  # nearly always
        args, options = _with_tensors(args, options)
        given = [t.array for t in tensors((args, options))]
        key = _key((args, options))
        broken: Recording | None = None
        for recording in reversed(self.recordings):
            if recording.key != key:
                continue
            if recording.conditions.hold():
                if recording is not self.recordings[-1]:
                    self._put_last(recording)
                return recording.replay(given)
            broken = broken or recording
        reason = broken.conditions.broken() if broken is not None else ""
        if self._split is not None and (key in self._split_keys or len(self._split_keys) >= self.max_recordings):
            check_arguments(args, options)
            return self._split(args, options)
        return self._record(args, options, key, reason)

    def epoch(
        self, *data: Tensor, batch_size: int, shuffle: bool = True, drop_last: bool = False,
        generator: Generator | None = None,
    ) -> CapturedEpoch:  # fmt: skip
        """A pass over data that is already where the step runs, as one call: ``step.epoch(x, y, batch_size=64)()``.

        Each batch is gathered straight into the step's buffers.  The order is that of ``randperm``, so the bits are
        those of a loop over ``randperm(n).split(batch_size)``.

        Args:
            data: the step's arguments, a row a sample.
            batch_size: rows of a batch; the last one may be smaller, and is recorded apart.
            shuffle: in a new order at each pass.
            drop_last: leave out the last batch if it is smaller.
            generator: of the order; the default one when None.

        Returns:
            A function without arguments; it returns what the step returns, averaged over the samples.
        """
        return CapturedEpoch(self, data, batch_size, shuffle, drop_last, generator)

    def fitting(self, args: Sequence[Any], rows: int) -> Recording | None:
        """The recording for so many rows of the arguments that can be replayed now."""
        for recording in reversed(self.recordings):
            if recording.takes_rows(args, {}, rows) is not None and recording.conditions.hold():
                return recording
        return None

    def explain(self) -> Explanation | SplitExplanation:
        """The launches of the recording that was used last, timed: shapes, bytes, FLOPs, and the share of the machine's limits.

        Prints as a table; of a split step the parts of its last call, and where it was split.  The step's tensors are as
        before afterwards.

        Raises:
            CaptureError: nothing was recorded yet.
        """
        if self._split is not None:
            return self._split.explain()
        if not self.recordings:
            raise CaptureError(f"{self.name} has no recording yet: call it first")
        return self.recordings[-1].explain()

    def _put_last(self, recording: Recording) -> None:
        """In a new list: another thread may be walking through this one."""
        with _ordering:
            self.recordings = [*(r for r in self.recordings if r is not recording), recording]

    def _record(self, args: Any, options: Any, key: Any, reason: str) -> Any:
        if self.recordings:
            _log.info("%s is recorded again: %s", self.name, reason or "other arguments")
        if len(self.recordings) >= self.max_recordings:
            differs = reason or "the arguments"
            what = f"{self.name} was recorded {self.max_recordings} times already, and again something differs: {differs}"
            way_out = "pass what changes as a tensor, pad arguments to few shapes, or allow more with capture(recordings=...)"
            if self.fullgraph:
                raise CaptureError(f"{what}; {way_out}")
            self._divide(key, [], [Split(what, "", way_out)])
            return self(*args, **options)
        recording = Recording(self.function, args, options, key, self.backend, self.fullgraph)
        first, recording.first = recording.first, None
        if recording.splits:
            self._divide(key, recording.rows, recording.splits)
        else:
            self._put_last(recording)
        return first

    def _divide(self, key: Any, rows: list[Row], splits: list[Split]) -> None:
        """From now on run in parts for arguments of this key."""
        self._split_keys.append(key)
        if self._split is None:
            self._split = SplitStep(self.function, self.name, self.backend, rows, splits)
            self._split.warn()


def capture(
    function: Callable[..., Any] | None = None, *, backend: str = "auto", recordings: int = 16, fullgraph: bool = True
) -> Any:
    """Record a step at its first call and replay it from then on; as a decorator or as a call.

        @gpunet.capture
        def step(x, y):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

    The first call is a true step.  A replay runs no Python of the step: see ``docs/capture.md`` for what makes it record
    anew.  Results are copied out, and arguments in, but for those that a compiled step only reads.

    Args:
        function: any function of tensors (also in lists and dicts), arrays, numbers and strings.
        backend: of steps on the CPU: "numpy", with the bits of the step itself; "numba", one compiled function, which
            agrees to rounding and repeats its own bits; "auto", the latter where Numba is installed.
        recordings: most recordings for arguments of different shapes, dtypes or numbers.
        fullgraph: refuse what a replay could not repeat, such as a value that is read back; if False, split there: the
            step's Python runs at every call then, and its launches in parts, with the bits and results of the function.

    Returns:
        A :class:`CapturedStep`, called as the function is; without ``function`` a decorator.

    Raises:
        ArgumentError: an unknown backend, or no function.
        MissingDependencyError: "numba" was asked for and is not installed.
    """
    if function is None:
        return functools.partial(capture, backend=backend, recordings=recordings, fullgraph=fullgraph)
    if backend not in BACKENDS:
        raise ArgumentError(f"capture: backend={backend!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    if not callable(function):
        raise ArgumentError(f"capture: got {function!r}; expected a function")
    if backend == "numba":
        compiled.require()
    elif backend == "auto":
        backend = "numba" if compiled.available() else "numpy"
    return CapturedStep(function, backend, recordings, fullgraph)


def _with_tensors(args: Any, options: Any) -> Any:
    return tree_map((args, options), Tensor, devices.is_array)


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.array.shape, value.array.dtype, type(value.array))
    if isinstance(value, (list, tuple)):
        return (type(value), *map(_key, value))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, (int, float, complex, numpy.generic)):  # 1 is not True nor 1.0, 0.0 is not -0.0, and NaN is NaN
        return type(value), repr(value)
    return value
