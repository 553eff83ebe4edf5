"""``gpunet.capture``: record a step once and replay it; choose the recording for each call, or record again."""

from __future__ import annotations

import functools
import logging
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.backend.heap import return_freed_memory
from gpunet.captured.compiled import module as compiled
from gpunet.captured.epoch import CapturedEpoch
from gpunet.captured.explain import Explanation
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.captured.recording import Recording, check_arguments
from gpunet.errors import ArgumentError, CaptureError, GraphBreakWarning
from gpunet.launch.memory import release_scratch
from gpunet.launch.random import Generator
from gpunet.launch.tape import GraphBreak, active, warn_user

__all__ = ["capture"]

_log = logging.getLogger(__name__)
BACKENDS = ("auto", "numpy", "numba")
_reorder_lock = threading.Lock()
#: Bytes of a step's arena from which the memory of its recording is returned: it takes time in proportion to the whole heap.
_LEAST_RETURNED = 1 << 22


class CapturedStep:
    """A function that is recorded at its first call and replayed from then on; made by :func:`capture`."""

    def __init__(self, function: Callable[..., Any], backend: str, recordings: int, fullgraph: bool, check: bool) -> None:
        functools.update_wrapper(self, function)
        self.function, self.backend, self.max_recordings = function, backend, recordings
        self.fullgraph, self.check = fullgraph, check
        self._options = backend, recordings, fullgraph, check
        self.name = getattr(function, "__name__", type(function).__name__)
        self.recordings: list[Recording] = []  # the most recently used one last
        self._graph_break: GraphBreak | None = None  # the first one, without ``fullgraph``
        self._eager_keys: list[Any] = []  # keys of arguments for which the step has graph breaks

    def __reduce__(self) -> Any:
        """Copy without the recordings: a copy makes its own."""
        return CapturedStep, (self.function, *self._options)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> CapturedStep:
        """Bind as a method; each instance has recordings of its own."""
        if instance is None:
            return self
        step = CapturedStep(types.MethodType(self.function, instance), *self._options)
        instance.__dict__[self.name] = step
        return step

    def __call__(self, *args: Any, **options: Any) -> Any:
        if active.tape is not None:  # called inside a step that is being recorded
            return self.function(*args, **options)
        latest = self.recordings[-1] if self.recordings else None
        if latest is not None and (given := latest.match(args, options)) is not None and latest.guards.hold():
            return latest.replay(given)  # fast path: nearly every call ends here
        args, options = tree_map((args, options), Tensor, devices.is_array)
        given = [t.array for t in tree_leaves((args, options), Tensor)]
        key = _key((args, options))
        outdated: Recording | None = None
        for recording in reversed(self.recordings):
            if recording.key != key:
                continue
            if recording.guards.hold():
                if recording is not self.recordings[-1]:
                    self._move_last(recording)
                return recording.replay(given)
            outdated = outdated or recording
        reason = outdated.guards.find_change() if outdated is not None else ""
        if key in self._eager_keys or len(self._eager_keys) >= self.max_recordings:
            check_arguments(args, options)
            return self.function(*args, **options)
        return self._record(args, options, key, reason)

    def epoch(
        self, *data: Tensor, batch_size: int, shuffle: bool = True, drop_last: bool = False,
        generator: Generator | None = None, engine: str = "auto",
    ) -> CapturedEpoch:  # fmt: skip
        """Return a function that runs the step on every batch of a data set: ``step.epoch(x, y, batch_size=64)()``.

        Batches are in the order of ``randperm``, so replays have the bits of a loop over ``randperm(n).split(batch_size)``.  On a
        GPU all steps of a small net are one launch, whose results are equal to these up to rounding.

        Args:
            data: the step's arguments for all samples, one row per sample, on the step's device.
            batch_size: samples in a batch.  The last batch may be smaller; it has a recording of its own.
            shuffle: draw a new order at each pass.
            drop_last: leave out the last batch if it is smaller.
            generator: random numbers for the order; None for the default generator of the device.
            engine: "auto": one launch for all steps where that is possible, see docs/small-nets.md.  "replay": a replay for each
                step.  "launch": raise if one launch is not possible.

        Returns:
            A function that returns the results of the step, averaged over the samples, in float64.  Its method ``each`` returns
            those of all steps, and ``explain`` how they are run.

        Raises:
            ArgumentError: ``data`` are not tensors of the same number of rows, ``batch_size`` does not fit, or ``engine`` is
                unknown.
        """
        return CapturedEpoch(self, data, batch_size, shuffle, drop_last, generator, engine)

    def find_recording(self, args: Any) -> Recording | None:
        """Return the recording that a call with these arguments would replay; None if it would record, or run eagerly."""
        key = _key((tuple(args), {}))
        found = (r for r in reversed(self.recordings) if r.key == key and r.guards.hold())
        return None if self.check else next(found, None)

    def explain(self) -> Explanation:
        """Time each launch of the most recently used recording; the result prints as a table.

        It lists shapes, bytes, FLOPs, times, and the fraction of this machine's measured limits that each launch reaches.
        The step's tensors keep their values.

        Raises:
            CaptureError: there is no recording; the message names the line of the graph break, if that is why.
        """
        if not self.recordings:
            reason = self._graph_break
            why = f"there is no recording yet; call {self.name} first" if reason is None else _describe(self.name, reason)
            raise CaptureError(f"{self.name}.explain(): {why}")
        return self.recordings[-1].explain()

    def _move_last(self, recording: Recording) -> None:
        with _reorder_lock:  # a new list, since another thread may be iterating over this one
            self.recordings = [*(r for r in self.recordings if r is not recording), recording]

    def _record(self, args: Any, options: Any, key: Any, reason: str) -> Any:
        if self.recordings:
            _log.info("recording %s again; changed: %s", self.name, reason or "the arguments")
        if len(self.recordings) >= self.max_recordings:
            changed = reason or "the arguments"
            what = f"{self.name} was recorded {self.max_recordings} times already and differs again; changed: {changed}"
            way_out = "pass changing values as tensors, pad arguments to a few shapes, or raise capture(recordings=...)"
            if self.fullgraph:
                raise CaptureError(f"{what}; {way_out}")
            self._run_eagerly(key, GraphBreak(what, "", way_out))
            return self.function(*args, **options)
        recording = Recording(self.function, args, options, key, self.backend, self.fullgraph, self.check)
        first, recording.first = recording.first, None
        if recording.breaks:
            self._run_eagerly(key, recording.breaks[0])
        else:
            self._move_last(recording)
            if recording.lowering.arena_bytes >= _LEAST_RETURNED:
                release_scratch()
                return_freed_memory()  # the arrays of the recorded run are gone, and a replay has its own
        return first

    def _run_eagerly(self, key: Any, reason: GraphBreak) -> None:
        """Do not record calls whose arguments have this key."""
        self._eager_keys.append(key)
        if self._graph_break is None:
            self._graph_break = reason
            warn_user(_describe(self.name, reason), GraphBreakWarning)


def _describe(name: str, reason: GraphBreak) -> str:
    return f"{name} runs eagerly, because of {reason}. To record it: {reason.way_out}"


def capture(
    function: Callable[..., Any] | None = None, *, backend: str = "auto", recordings: int = 16, fullgraph: bool = True,
    check: bool = False,
) -> Any:  # fmt: skip
    """Record a step at its first call, and replay its launches at later calls.  Works as a decorator, too.

        @gpunet.capture
        def step(x, y):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

    The first call runs the step.  A replay runs none of the step's Python; ``docs/capture.md`` lists the changes after
    which the step is recorded again.  Arguments are copied into the step's buffers, except those that a compiled step
    only reads.  Results are copies.

    Args:
        function: a function of tensors, arrays, numbers and strings, also in lists, tuples and dicts.
        backend: for steps on the CPU.  "numpy": NumPy calls, with the bits of the step itself.  "numba": one compiled
            function, equal up to rounding, with the same bits at each run.  "auto": "numba" if Numba is installed, else
            "numpy".
        recordings: maximum number of recordings: one for each combination of shapes, dtypes, numbers and guarded values.
        fullgraph: raise at a graph break, such as reading a value back.  If False, a step with a graph break is not
            recorded: it runs eagerly, and a :class:`GraphBreakWarning` names the line once.
        check: for debugging.  At each call run the step's Python instead of the replay, and compare the launches with the
            recorded ones.  A difference that no guard found, such as a number from ``random.random()``, raises.

    Returns:
        A :class:`CapturedStep`, to be called like the function; a decorator if ``function`` is None.

    Raises:
        ArgumentError: ``backend`` is unknown, or ``function`` is not callable.
        CaptureError: raised by calls: the step cannot be recorded, or ``check`` found a difference; the message names the line.
        MissingDependencyError: ``backend="numba"``, and Numba is not installed.
    """
    if function is None:
        return functools.partial(capture, backend=backend, recordings=recordings, fullgraph=fullgraph, check=check)
    if backend not in BACKENDS:
        raise ArgumentError(f"capture: backend={backend!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    if not callable(function):
        raise ArgumentError(f"capture: got {function!r}; expected a function")
    if backend == "numba":
        compiled.require()
    elif backend == "auto":
        backend = "numba" if compiled.available() else "numpy"
    return CapturedStep(function, backend, recordings, fullgraph, check)


def _key(value: Any) -> Any:
    """Return a key that is equal for arguments of the same structure, shapes, dtypes, devices and plain values."""
    if isinstance(value, Tensor):
        return (value.array.shape, value.array.dtype, devices.of(value.array), value._facts())
    if isinstance(value, (list, tuple)):
        return (type(value), *map(_key, value))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, (int, float, complex, numpy.generic)):  # 1 is not True nor 1.0, 0.0 is not -0.0, and NaN is NaN
        return type(value), repr(value)
    return value
