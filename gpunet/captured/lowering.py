"""Lower a recorded step to one function on planned memory.

    trace         launches to NumPy calls
    fuse          launches that others absorb, as their kernels declare
    plan, merge   drop dead calls, place temporaries in one arena, merge calls
    numpy_calls   the calls as one flat Python function
    compiled      the calls as loops, compiled by Numba
    cuda_graph    on other devices the launches themselves; on a GPU one CUDA graph
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_half
from gpunet.captured import compiled, cuda_graph, numpy_calls, plan
from gpunet.captured.fuse import fuse_launches
from gpunet.captured.ir import Call, View, tree_leaves
from gpunet.captured.trace import address, trace
from gpunet.launch.tape import Launch, Tape


class _ViewInterface:
    """A view as NumPy's array interface: it may reach beyond the array that owns the memory (see ``trace``).

    Args:
        keeper: object that owns the memory.
        start: address of the buffer.
        view: the view in that buffer.
    """

    def __init__(self, keeper: Any, start: int, view: View) -> None:
        self.keeper = keeper
        self.__array_interface__ = {
            "data": (start + view.offset, False),
            "shape": view.shape,
            "strides": view.strides,
            "typestr": f"<u{view.dtype.itemsize}" if is_half(view.dtype) else view.dtype.str,  # bfloat16 has none
            "version": 3,
        }
        self._dtype = view.dtype

    def array(self) -> numpy.ndarray:
        """Return the view as an array."""
        array = numpy.asarray(self)
        return array.view(self._dtype) if array.dtype != self._dtype else array


class Lowering:
    """Lower recorded launches.

    The constructor traces them.  :meth:`finish` plans and compiles, once it is known which buffers have outside references.

    Args:
        recorded: the launches, in order.
        kept: arrays of the step's own memory that are read after it: results and gradients.
        backend: of a step on the CPU: "numpy", or "numba" for compiled loops.
    """

    def __init__(self, recorded: Sequence[Launch], kept: Sequence[Array], backend: str = "numpy") -> None:
        arrays = tree_leaves([kept, *((x.arrays, x.options) for x in recorded)], devices.is_array)
        on_cpu = all(type(a) is numpy.ndarray for a in arrays)
        self.backend = backend if on_cpu else "launches"
        traced = trace(recorded, unchunked=backend == "numba") if on_cpu else cuda_graph.Launches(recorded)
        self._devices = {devices.of(b.array) for b in traced.buffers} or {devices.CPU}
        self._lines = [launch.line for launch in recorded]
        self._kept = [traced.view_of(a) for a in kept]
        self.buffers, self._calls = traced.buffers, traced.calls
        self._planned: list[Call] = []
        #: on devices other than the CPU, the launches of a replay
        self.tape: Tape | None = None
        #: source of the function of a replay
        self.source = ""
        #: buffers of the inputs that a replay reads in place, without a copy
        self.zero_copy_inputs: list[int] = []
        self.arena_bytes = 0

    def finish(
        self, own: Sequence[bool], inputs: Mapping[int, bool] | None = None
    ) -> tuple[Callable[..., None], list[numpy.ndarray]]:
        """Plan memory and build the function of a replay.

        Args:
            own: for each buffer whether nothing outside the step refers to it.
            inputs: buffers that are filled before each replay -> whether something else refers to them, too.

        Returns:
            The function of a replay, called with an array for each of ``zero_copy_inputs``; the kept arrays, on planned memory.

        Raises:
            CaptureError: a launch cannot be part of a CUDA graph.
        """
        one_arena = len(self._devices) == 1
        for buffer, is_own in zip(self.buffers, own):
            buffer.temporary = buffer.temporary or (is_own and one_arena)
        units: Sequence[Any]
        if self.backend == "launches":
            temporaries = {number for number, buffer in enumerate(self.buffers) if buffer.temporary}
            launches = fuse_launches(self._calls, temporaries - {view.buffer for view in self._kept})
            units, place, self.arena_bytes = plan.make_plan(
                self.buffers, launches, self._kept, lambda calls, kept: calls, plan.GPU_ALIGNMENT
            )
        elif self.backend == "numba":
            units, place, self.arena_bytes = plan.make_plan(self.buffers, self._calls, self._kept, self._make_units)
        else:
            units, place, self.arena_bytes = plan.make_plan(self.buffers, self._calls, self._kept)
            self._planned, self._numpy_bytes = list(units), self.arena_bytes
        arena = plan.allocate_arena(self.arena_bytes, next(iter(self._devices)))
        # buffer -> object that keeps its memory alive, and its address
        keepers: dict[int, tuple[Any, int]] = {-1: (arena, devices.pointer(arena))}
        for number, buffer in enumerate(self.buffers):
            if buffer.temporary:
                buffer.array = None
            elif buffer.array is not None:
                keepers[number] = (buffer.array, devices.pointer(buffer.array))
        written = (self.buffers[v.buffer].array for u in units for v in u.writes if not self._is_temporary(v))
        self.written = {id(array): array for array in written}  #: owners of the memory outside the arena that a replay writes

        def array(view: View) -> Array:
            owner, start = keepers[view.buffer]
            if not isinstance(owner, numpy.ndarray):
                return devices.gpu_view_without_owner(owner, view.offset, view.shape, view.strides, view.dtype)
            return _ViewInterface(owner, start, view).array().view(type(owner))

        if self.backend == "launches":
            run, self.tape = cuda_graph.function([u.replaced(place) for u in units], array, self._devices, self._lines)
        elif self.backend == "numba":
            whole = {n: (self._whole_view(n), is_shared) for n, is_shared in (inputs or {}).items()}
            arguments = compiled.select_arguments(units, whole, self._kept, keepers)
            self.zero_copy_inputs = [a.whole.buffer for a in arguments]
            run, self.source = compiled.function(units, array, keepers, place, arguments)
        else:
            run, self.source = numpy_calls.function(self._planned, array)
        self._keepers = keepers
        kept = [array(place(v)) for v in self._kept]
        for buffer in self.buffers:
            buffer.array = None
        return run, kept

    def _make_units(self, calls: list[Call], kept: set[int]) -> list[compiled.Unit]:
        units = compiled.fuse(calls)
        compiled.remove_dead_stores(units, [b.temporary for b in self.buffers], kept)
        return units

    def _whole_view(self, number: int) -> View:
        array = self.buffers[number].array
        return View(number, 0, array.shape, array.strides, array.dtype)

    def _is_temporary(self, view: View) -> bool:
        return view.buffer < 0 or self.buffers[view.buffer].temporary

    @property
    def calls(self) -> list[Call]:
        """The step as planned NumPy calls, also where it is compiled: :meth:`CapturedStep.explain` times these."""
        if not self._planned:
            units, _, self._numpy_bytes = plan.make_plan(self.buffers, self._calls, self._kept)
            self._planned = list(units)
        return self._planned

    def separate_calls(self) -> list[Callable[[], None]]:
        """Return a function for each of :attr:`calls`, on a new arena, to be timed."""
        calls = self.calls
        arena = plan.allocate_arena(self._numpy_bytes, devices.CPU)
        keepers = {**self._keepers, -1: (arena, address(arena))}
        return [numpy_calls.function([call], lambda v: _ViewInterface(*keepers[v.buffer], v).array())[0] for call in calls]

    def written_arrays(self) -> list[numpy.ndarray]:
        """Return the arrays outside the arena that :attr:`calls` write."""
        written = dict.fromkeys(v for c in self.calls for v in c.writes if v.buffer >= 0)
        return [_ViewInterface(*self._keepers[v.buffer], v).array() for v in written]
