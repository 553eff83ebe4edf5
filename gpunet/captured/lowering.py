"""What a recorded step is lowered to: one function on planned memory.

    trace     launches to calls: the NumPy twins, run on arrays that write down what is done to them
    plan      dead calls dropped, temporaries placed in one arena
    flat      the calls as one Python function
    compiled  the calls as loops, compiled by Numba
    launches  on other devices: the launches as they are; on a card one CUDA graph
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.captured import compiled, cuda_graph, numpy_calls, plan
from gpunet.captured.generated import FIRST_LINE
from gpunet.captured.ir import Call, View, tree_leaves
from gpunet.captured.trace import address, trace
from gpunet.launch.tape import Launch, Tape

#: References of an object that one list or dict holds, as counted by map().
REFS_OF_LIST_ITEM = next(map(getrefcount, [object()]))


class Shared:
    """The one reference that all recordings together hold to an array of the world outside."""

    __slots__ = ("__weakref__", "array", "of_recording")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.of_recording = False  # whether a recording goes by whether somebody else still holds it

    def references(self) -> int:
        """How many hold the array that are not recordings."""
        return getrefcount(self.array) - 2


_shared: weakref.WeakValueDictionary[int, Shared] = weakref.WeakValueDictionary()


def share(array: Any) -> Shared:
    known = _shared.get(id(array))
    if known is None:
        known = _shared[id(array)] = Shared(array)
    return known


class _At:
    """A view of shared memory, as NumPy's array interface describes it: keeps the memory without a reference to its array."""

    def __init__(self, keeper: Any, start: int, view: View) -> None:
        self.keeper = keeper
        self.__array_interface__ = {
            "data": (start + view.offset, False),
            "shape": view.shape,
            "strides": view.strides,
            "typestr": view.dtype.str,
            "version": 3,
        }


class Lowering:
    """Launches, in two steps: what they do, and then, when it is known what others hold, how.

    Args:
        kept: arrays of the step's own memory that are read after it.
        backend: "numpy", or "numba": compiled.
    """

    def __init__(self, recorded: Sequence[Launch], kept: Sequence[Array], backend: str = "numpy") -> None:
        arrays = tree_leaves([kept, *((x.arrays, x.options) for x in recorded)], devices.is_array)
        on_cpu = all(type(a) is numpy.ndarray for a in arrays)
        self.backend = backend if on_cpu else "launches"
        traced = trace(recorded, whole=backend == "numba") if on_cpu else cuda_graph.Launches(recorded)
        self._devices = {devices.of(b.array) for b in traced.buffers} or {devices.CPU}
        self._lines = [launch.line for launch in recorded]
        self._kept = [traced.view(a) for a in kept]
        self.buffers, self._calls = traced.buffers, traced.calls
        self._planned: list[Call] = []
        #: on other devices than the CPU, the launches
        self.tape: Tape | None = None
        self.source = ""
        #: of which inputs a replay takes the arrays itself
        self.taken: list[int] = []
        self.arena_bytes = 0

    def finish(
        self, own: Sequence[bool], inputs: Mapping[int, bool] | None = None
    ) -> tuple[Callable[..., None], list[numpy.ndarray]]:
        """Plan and bind.

        Args:
            own: for each buffer whether the step alone holds it.
            inputs: buffers that are filled before each run, by their numbers, and whether others see their memory.

        Returns:
            The function of a replay, which is called with an array for each of ``taken``, and the kept arrays where they are now.
        """
        one_arena = len(self._devices) == 1
        for buffer, alone in zip(self.buffers, own):
            buffer.temporary = buffer.temporary or (alone and one_arena)
        units: Sequence[Any]
        if self.backend == "launches":
            units, place, self.arena_bytes = plan.planned(
                self.buffers, self._calls, self._kept, lambda calls, kept: calls, plan.ALIGNMENT_ELSEWHERE
            )
        elif self.backend == "numba":
            units, place, self.arena_bytes = plan.planned(self.buffers, self._calls, self._kept, self._units)
        else:
            units, place, self.arena_bytes = plan.planned(self.buffers, self._calls, self._kept)
            self._planned, self._numpy_bytes = list(units), self.arena_bytes
        arena = plan.memory(self.arena_bytes, next(iter(self._devices)))
        keepers: dict[int, tuple[Any, int]] = {-1: (arena, devices.pointer(arena))}
        for number, buffer in enumerate(self.buffers):
            if buffer.temporary:
                buffer.array = None
            elif buffer.array is not None:
                keepers[number] = (share(buffer.array), devices.pointer(buffer.array))
        self.written = {id(self.buffers[v.buffer].array) for u in units for v in u.writes if not self._temporary(v)}

        def array(view: View) -> Array:
            keeper, start = keepers[view.buffer]
            owner = keeper.array if isinstance(keeper, Shared) else keeper
            if not isinstance(owner, numpy.ndarray):
                return devices.gpu_view_without_owner(owner, view.offset, view.shape, view.strides, view.dtype)
            found = numpy.asarray(_At(keeper, start, view))
            return found.view(type(owner))

        if self.backend == "launches":
            run, self.tape = cuda_graph.function([u.replaced(place) for u in units], array, self._devices, self._lines)
        elif self.backend == "numba":
            whole = {n: (self._whole(n), seen) for n, seen in (inputs or {}).items()}
            given = compiled.select_arguments(units, whole, self._kept, keepers)
            self.taken = [g.whole.buffer for g in given]
            run, self.source = compiled.function(units, array, keepers, place, given)
        else:
            run, self.source = numpy_calls.function(self._planned, array)
        self._code = getattr(run, "__code__", None)
        self._keepers = keepers
        kept = [array(place(v)) for v in self._kept]
        for buffer in self.buffers:
            buffer.array = None
        return run, kept

    def _units(self, calls: list[Call], kept: set[int]) -> list[compiled.Unit]:
        units = compiled.fuse(calls)
        compiled.remove_dead_stores(units, [b.temporary for b in self.buffers], kept)
        return units

    def _whole(self, number: int) -> View:
        array = self.buffers[number].array
        return View(number, 0, array.shape, array.strides, array.dtype)

    def _temporary(self, view: View) -> bool:
        return view.buffer < 0 or self.buffers[view.buffer].temporary

    @property
    def calls(self) -> list[Call]:
        """The step as calls of NumPy; a compiled one, too, is explained by them."""
        if not self._planned:
            units, _, self._numpy_bytes = plan.planned(self.buffers, self._calls, self._kept)
            self._planned = list(units)
        return self._planned

    def launch_of(self, error: BaseException) -> int | None:
        """The number of the launch whose call raised in a replay, where there is a line a call."""
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is self._code and self.backend == "numpy":
                return self._planned[trace.tb_lineno - FIRST_LINE].launch
            trace = trace.tb_next
        return None

    def separately(self) -> list[Callable[[], None]]:
        """The calls of NumPy one by one, on memory of their own: what is timed."""
        calls = self.calls
        arena = plan.memory(self._numpy_bytes, devices.CPU)
        keepers = {**self._keepers, -1: (arena, address(arena))}
        return [numpy_calls.function([call], lambda v: numpy.asarray(_At(*keepers[v.buffer], v)))[0] for call in calls]

    def changed(self) -> list[numpy.ndarray]:
        """The arrays outside the arena that the calls write."""
        written = dict.fromkeys(v for c in self.calls for v in c.writes if v.buffer >= 0)
        return [numpy.asarray(_At(*self._keepers[v.buffer], v)) for v in written]
