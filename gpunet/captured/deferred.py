"""The tape of a split step: launches are noted as the step's Python makes them, and run a segment at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from sys import getrefcount
from types import CodeType, FrameType
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, LaunchTarget
from gpunet.backend.dtypes import is_floating
from gpunet.captured.ir import tree_leaves
from gpunet.captured.lowering import Shared, share
from gpunet.captured.segment import FREE, Segment, blamed, described, flatten
from gpunet.captured.trace import owner_of
from gpunet.launch.launchable import Launchable
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.tape import ANY, GraphBreak, Launch, Tape, is_library, line_at, unrecorded, user_line

ndarray = numpy.ndarray
#: Kernel, arrays and options of a launch, and code and instruction of the user's program that it is from.
Noted = tuple[Launchable, tuple[Any, ...], dict[str, Any], CodeType, int]


class Point:
    """A place between segments: the start of the step, or the end of a segment.

    What is allocated behind it gets the same memory in every run, as long as nobody else holds it: ``pool`` has that by
    number, and for each number by shape, dtype and place, of which it keeps a few.
    """

    max_arrays = 4

    def __init__(self) -> None:
        self.next: list[Segment] = []  # the latest first
        self.pool: list[dict[Any, Shared]] = []

    def allocate(self, number: int, shape: tuple[int, ...], dtype: Any, place: LaunchTarget | None, spare: list[Shared]) -> Array:
        """An array that is held by its :class:`Shared` alone: the pool's, or if that is in use one put into ``spare``."""
        if number == len(self.pool):
            self.pool.append({})
        shelf, kind = self.pool[number], (shape, dtype, place)
        shared = shelf.get(kind)
        if shared is None or shared.of_recording:
            if len(shelf) >= self.max_arrays:
                del shelf[next(iter(shelf))]
            shared = shelf[kind] = share(_empty(shape, dtype, place))
        elif getrefcount(shared.array) != FREE:
            shared = share(_empty(shape, dtype, place))
            spare.append(shared)
        return shared.array


def _empty(shape: tuple[int, ...], dtype: Any, place: LaunchTarget | None) -> Array:
    return numpy.empty(shape, dtype) if place is None else devices.empty(shape, dtype, place.device)


class Segments:
    """The segments that a step consists of, at most so many: the least recently used goes."""

    def __init__(self, backend: str, max_recordings: int = 32) -> None:
        self.backend, self.max_recordings = backend, max_recordings
        self.start = Point()
        self._points: dict[Segment, Point] = {}  # the latest last
        #: of the launches that ran last: how many came before the one that raised, as far as that is known
        self.reached = 0
        self.tickets: dict[LaunchTarget, Array] = {}
        self.depths: dict[Launchable, int] = {}  # of the user's frame above the launch of a kernel

    def __len__(self) -> int:
        return len(self._points)

    def find_user(self, kernel: Launchable) -> FrameType:
        """The innermost frame that is not the library's, seen from :meth:`Deferred.launch`, whose caller it is called by."""
        depth = 1
        while is_library(sys._getframe(depth + 1).f_code.co_filename):
            depth += 1
        self.depths[kernel] = depth
        return sys._getframe(depth + 1)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._points)

    def run(
        self, point: Point, noted: list[Noted], atoms: list[Any], allocated: list[Array], given: set[int],
        place: LaunchTarget | None,
    ) -> tuple[Segment, Point]:
        """Run launches, as a segment that is known where there is one; where it was, and the place behind it.

        Args:
            atoms: what was noted, flat: see :func:`flatten`.
            allocated: the arrays made for them, each held by a :class:`Shared`.
            given: ids of arrays that are others in every run.
            place: where they go; None for the CPU.
        """
        ids, fresh = [*map(id, atoms)], [*map(id, allocated)]
        self.reached = 0
        for number, segment in enumerate(point.next):
            if segment in self._points and segment.place == place and segment.fits(ids, fresh, atoms, allocated):
                if number:
                    point.next.insert(0, point.next.pop(number))
                behind = self._points[segment] = self._points.pop(segment)
                try:
                    segment.replay(atoms, allocated)
                except Exception as error:
                    launches = _launches(noted)
                    known = segment.launch_of(error)
                    blamed(error, launches if known is None else launches[known : known + 1])
                    self.reached = known or 0
                    raise
                return segment, behind
        launches = _launches(noted)
        segment = self._met(point, launches, atoms, allocated, given, place)
        behind = self._points[segment]
        self._run(launches)
        if segment.meetings > 1:
            segment.lower(launches, atoms, allocated, self.backend, point.pool)
        return segment, behind

    @numpy.errstate(all="ignore")
    def _run(self, launches: Sequence[Launch]) -> None:
        for self.reached, launch in enumerate(launches):
            try:
                launch.kernel.check(launch.arrays)
                launch.kernel.launch(launch.arrays, launch.options)
            except Exception as error:
                blamed(error, [launch])
                raise
        self.reached = len(launches)

    def _met(
        self, point: Point, launches: list[Launch], atoms: list[Any], allocated: list[Array], given: set[int],
        place: LaunchTarget | None,
    ) -> Segment:
        """The segment of these launches, if they were met before on other arrays; else a new one."""
        kinds = described(launches, atoms, allocated)
        for segment in (*point.next, *reversed(self._points)):
            if segment.place == place and segment.met_again(kinds, atoms, allocated, given):
                break
        else:
            segment = Segment(launches, kinds, atoms, allocated, given, place)
            while len(self._points) >= self.max_recordings:
                oldest = next(iter(self._points))
                del self._points[oldest]
                for other in (self.start, *self._points.values()):
                    if oldest in other.next:
                        other.next.remove(oldest)
        self._points[segment] = self._points.pop(segment) if segment in self._points else Point()
        if segment in point.next:
            point.next.remove(segment)
        point.next.insert(0, segment)
        return segment


def _launches(noted: list[Noted]) -> list[Launch]:
    return [Launch(kernel, arrays, options, line_at(code, at)) for kernel, arrays, options, code, at in noted]


def _forget(noted: list[Noted], reached: int, allocated: list[Array], gradients: list[tuple[Any, int, Any]]) -> None:
    """Take back what the step's Python did on the strength of launches that did not run: let nobody read their results.

    The gradients of leaves are what they were then; one that was dropped or replaced since (``zero_grad``) stays gone.
    What else was to be written for the first time, and somebody may hold, is NaN, or 0.

    Args:
        reached: how many launches ran.
    """
    for leaf, position, before in reversed(gradients):
        if position > reached:
            leaf._grad = None if before is ANY else before
    written = [
        {id(owner_of(a)) for kernel, arrays, *_ in part for a in tree_leaves(arrays[: kernel.outputs], devices.is_array)}
        for part in (noted[:reached], noted[reached:])
    ]
    for array in allocated:
        if id(array) in written[1] - written[0]:
            devices.assign(array, numpy.nan if is_floating(array.dtype) else 0)


_NOWHERE = contextlib.nullcontext()


def _copied(value: Any) -> Any:
    """A list that its owner may change later."""
    if isinstance(value, JoinedArrays):
        return JoinedArrays(value, value.flat)
    return value[:] if isinstance(value, list) else value


class Deferred(Tape):
    """Notes launches, and runs what was noted where a value is needed: there the step splits.

    It splits, too, before a launch that goes elsewhere, so that a segment is on one device and one stream of it.
    """

    def __init__(self, segments: Segments, given: Sequence[Array]) -> None:
        super().__init__()
        self.runs_immediately = False
        self._segments, self._point = segments, segments.start
        self.tickets = segments.tickets  # the same in every run; a segment runs on one stream only
        self._atoms: list[Any] = []
        self._noted: list[Noted] = []
        self._place: LaunchTarget | None = None  # where they go; None for the CPU
        self._stream: Any = None
        self._spare: list[Shared] = []  # of arrays allocated while the pool's own was in use
        self._given = {id(a) for array in given for a in (array, owner_of(array))}
        #: leaves whose ``grad`` was set, how many launches were noted by then, and what it was before, or ANY
        self._gradients: list[tuple[Any, int, Any]] = []
        #: what ran so far: segments, and where they ended
        self.ran: list[tuple[Segment, GraphBreak | None]] = []

    def launch(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        first = arrays[0]
        if kernel.lists:
            first = first[0]
            arrays = tuple(map(_copied, arrays))
        elif first is None:
            first = next(a for a in arrays if a is not None)
        if type(first) is not ndarray:
            self._go(devices.of(first))
        elif self._place is not None:
            self._go(devices.CPU)
        flatten(kernel, arrays, options, self._atoms)
        # walking up the stack to the user's line costs as much as all the rest: try where it was the last time
        depth = self._segments.depths.get(kernel, 1)
        try:
            frame = sys._getframe(depth)
            found = is_library(sys._getframe(depth - 1).f_code.co_filename) and not is_library(frame.f_code.co_filename)
        except ValueError:
            found = False
        if not found:
            frame = self._segments.find_user(kernel)
        self._noted.append((kernel, arrays, options, frame.f_code, frame.f_lasti))

    def empty(self, shape: tuple[int, ...], dtype: Any, device: devices.Device) -> Array:
        if device is not devices.CPU or self._place is not None:
            self._go(device)
        array = self._point.allocate(len(self.allocated), shape, dtype, self._place, self._spare)
        self.allocated.append(array)
        return array

    def _go(self, device: devices.Device) -> None:
        """Note from here on what goes to the present stream of a device."""
        place = None if device.type == "cpu" else devices.launch_target(device)
        if place != self._place:
            what = f"launches on {device} after launches on another device or stream"
            self._flush(what, "keep the step on one device and one stream")
            self._place, self._stream = place, devices.stream(device)

    def record_gradient(self, leaf: Any, before: Any) -> None:
        self._gradients.append((leaf, len(self._noted), before))

    # -- where it splits
    def graph_break(self, action: str, way_out: str, arrays: tuple[Array, ...]) -> None:
        if self._outstanding(arrays):
            self._flush(action, way_out)

    def flush_pending(self, action: str, arrays: tuple[Array, ...]) -> None:
        self.graph_break(action, "do it before or after the step", arrays)

    def end(self) -> None:
        """Run what is still to run."""
        self._flush("", "")

    def _outstanding(self, arrays: tuple[Array, ...]) -> bool:
        """Whether a launch that is noted touches one of these arrays, or any; or whether one was made for a launch."""
        if not arrays:
            return True
        owners = {id(owner_of(a)) for a in arrays}
        if any(id(a) in owners for a in reversed(self.allocated)):
            return True
        kinds = {type(a) for a in arrays}
        return any(id(owner_of(a)) in owners for a in self._atoms if type(a) in kinds)

    def _flush(self, action: str, way_out: str) -> None:
        noted, atoms, allocated, spare = self._noted, self._atoms, self.allocated, self._spare
        gradients, self._gradients = self._gradients, []
        self._noted, self._atoms, self.allocated, self._spare = [], [], [], []
        self.constants.clear()
        try:
            if not noted:
                return
            with unrecorded(), _NOWHERE if self._place is None else devices.stream_guard(self._place.device, self._stream):
                segment, self._point = self._segments.run(self._point, noted, atoms, allocated, self._given, self._place)
        except BaseException:
            _forget(noted, self._segments.reached, allocated, gradients)
            raise
        finally:
            self._given.update(map(id, allocated))
            spare.clear()
        if segment.split is None and action:
            segment.split = GraphBreak(action, user_line(), way_out)
        self.ran.append((segment, segment.split if action else None))
