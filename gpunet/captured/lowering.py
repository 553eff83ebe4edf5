"""Lower a recorded step to one function on planned memory.

    trace         launches to NumPy calls
    fuse, join    launches that others absorb, and launches that become one, as their kernels declare
    plan, merge   drop dead calls, place temporaries in one arena, merge calls
    numpy_calls   the calls as one flat Python function
    compiled      the calls as loops, compiled by Numba
    cuda_graph    on other devices the launches themselves; on a GPU one CUDA graph
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_half
from gpunet.captured import compiled, cuda_graph, numpy_calls, plan
from gpunet.captured.fuse import fuse_launches
from gpunet.captured.ir import Buffer, Call, View, tree_leaves
from gpunet.captured.join import join_launches
from gpunet.captured.trace import trace
from gpunet.launch.kernel import Workspace
from gpunet.launch.tape import Launch, Tape


def _view_of_memory(keeper: Any, start: int, view: View) -> numpy.ndarray:
    """Return a view of memory as an array: it may reach beyond the array that owns the memory (see ``trace``).

    Args:
        keeper: object that owns the memory; the array keeps it alive.
        start: address of the buffer.
        view: the view in that buffer.
    """
    interface = {
        "data": (start + view.offset, False),
        "shape": view.shape,
        "strides": view.strides,
        "typestr": f"<u{view.dtype.itemsize}" if is_half(view.dtype) else view.dtype.str,  # bfloat16 has none
        "version": 3,
    }
    array = numpy.asarray(types.SimpleNamespace(keeper=keeper, __array_interface__=interface))
    return array.view(view.dtype) if array.dtype != view.dtype else array


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
        traced = trace(recorded, unchunked=backend == "numba", untraced=not on_cpu)
        self._device_of = [devices.of(b.array) for b in traced.buffers]  # by buffer
        self._devices = set(self._device_of) or {devices.CPU}
        self._kept = [traced.view_of(a) for a in kept]
        self.buffers, self._calls = traced.buffers, traced.calls
        self._planned: list[Call] = []
        #: after :meth:`finish`, the array of a view of :attr:`recorded`; new memory for temporaries, whose places others share
        self.array_of: Callable[[View], Array]
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
            if one_arena:
                launches = join_launches(launches, self._allocate)
            units, place, self.arena_bytes = plan.make_plan(
                self.buffers, launches, self._kept, lambda calls, kept: calls, plan.GPU_ALIGNMENT
            )
            self._planned = [unit.replaced(place) for unit in units]
        elif self.backend == "numba":
            units, place, self.arena_bytes = plan.make_plan(self.buffers, self._calls, self._kept, self._make_units)
        else:
            units, place, self.arena_bytes = plan.make_plan(self.buffers, self._calls, self._kept)
            self._planned, self._numpy_bytes = list(units), self.arena_bytes
        # buffer -> object that keeps its memory alive, and its address
        keepers: dict[int, tuple[Any, int]] = {
            number: (buffer.array, devices.pointer(buffer.array))
            for number, buffer in enumerate(self.buffers)
            if not buffer.temporary and buffer.array is not None
        }
        if not one_arena:  # each of the step's own buffers has memory of its own
            for number, (buffer, device) in enumerate(zip(self.buffers, self._device_of)):
                if own[number] and number not in keepers:
                    memory = devices.empty((max(buffer.nbytes, 1),), numpy.uint8, device)
                    keepers[number] = (memory, devices.pointer(memory))
        written = (keepers[v.buffer][0] for u in units for v in u.writes if v.buffer in keepers)
        self.written = {id(array): array for array in written}  #: owners of the memory outside the arena that a replay writes
        for buffer in self.buffers:
            buffer.array = None
        arena = plan.allocate_arena(self.arena_bytes, next(iter(self._devices)))
        keepers[-1] = (arena, devices.pointer(arena))

        def array(view: View) -> Array:
            owner, start = keepers[view.buffer]
            if not isinstance(owner, numpy.ndarray):
                return devices.gpu_view_without_owner(owner, view.offset, view.shape, view.strides, view.dtype)
            return _view_of_memory(owner, start, view).view(type(owner))

        if self.backend == "launches":
            run, self.tape = cuda_graph.function(self._planned, array, self._devices)
        elif self.backend == "numba":
            arguments = compiled.select_arguments(units, inputs or {}, self._kept, keepers)
            self.zero_copy_inputs = [a.whole.buffer for a in arguments]
            run, self.source = compiled.function(units, array, keepers, place, arguments)
        else:
            run, self.source = numpy_calls.function(self._planned, array)
        self._keepers = keepers
        kept = {view.buffer for view in self._kept}

        def array_of(view: View) -> Array:
            if not self.buffers[view.buffer].temporary or view.buffer in kept:
                return array(place(view))
            return devices.empty(view.shape, view.dtype, self._device_of[view.buffer])

        self.array_of = array_of
        return run, [array(place(v)) for v in self._kept]

    def _allocate(self, workspace: Workspace) -> View:
        """Add a buffer of the step."""
        dtype = numpy.dtype(workspace.dtype)
        if workspace.is_zero:
            buffer = Buffer(devices.zeros((workspace.size,), dtype, next(iter(self._devices))))
        else:
            buffer = Buffer.of_size(workspace.size * dtype.itemsize)
        self.buffers.append(buffer)
        return View(len(self.buffers) - 1, 0, (workspace.size,), (dtype.itemsize,), dtype)

    def _make_units(self, calls: list[Call], kept: set[int]) -> list[compiled.Unit]:
        units = compiled.fuse(calls)
        compiled.remove_dead_stores(units, [b.temporary for b in self.buffers], kept)
        return units

    @property
    def recorded(self) -> tuple[list[Call], list[View]]:
        """The launches as they were recorded, of a step on another device than the CPU; and the views that are read after it."""
        return (self._calls if self.backend == "launches" else []), self._kept

    @property
    def calls(self) -> list[Call]:
        """The step as planned calls: on the CPU of NumPy, also where it is compiled.  :meth:`CapturedStep.explain` times them."""
        if not self._planned:
            units, _, self._numpy_bytes = plan.make_plan(self.buffers, self._calls, self._kept)
            self._planned = list(units)
        return self._planned

    def separate_calls(self) -> tuple[list[Callable[[], None]], list[Array]]:
        """Return a function for each of :attr:`calls`, to be timed, and the arrays that they change.

        NumPy calls work on a new arena.  A launch on another device is followed by a synchronisation.  Those that other processes
        take part in do nothing.
        """
        if self.tape is not None:
            launches = self.tape.launches
            written = {id(a): a for x in launches for a in tree_leaves(x.arrays[: x.kernel.outputs], devices.is_array)}
            return [
                _do_nothing if launch.kernel.meets_others else functools.partial(_launch_and_wait, launch) for launch in launches
            ], [*written.values()]
        calls = self.calls
        arena = plan.allocate_arena(self._numpy_bytes, devices.CPU)
        keepers = {**self._keepers, -1: (arena, devices.pointer(arena))}

        def array(view: View) -> numpy.ndarray:
            return _view_of_memory(*keepers[view.buffer], view)

        changed = dict.fromkeys(v for c in calls for v in c.writes if v.buffer >= 0)
        return [
            _do_nothing if call.meets_others else numpy_calls.function([call], array)[0] for call in calls
        ], [*map(array, changed)]


def _do_nothing() -> None:
    """Stand for a call that cannot be timed."""


def _launch_and_wait(launch: Launch) -> None:
    launch.kernel.launch(launch.arrays, launch.options)
    devices.synchronize(devices.of(next(tree_leaves((launch.arrays, launch.options), devices.is_array))))
