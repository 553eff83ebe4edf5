"""The lowering for devices other than the CPU: the launches on planned memory, on a GPU as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.captured.ir import Buffer, Call, View, tree_leaves, tree_map
from gpunet.captured.trace import owner_of
from gpunet.launch.tape import Launch, Tape


class Launches:
    """Launches as opaque calls, and the buffers that they use: the counterpart of :class:`~gpunet.captured.trace.Trace`."""

    def __init__(self, launches: Sequence[Launch]) -> None:
        self.buffers: list[Buffer] = []
        self._numbers: dict[int, int] = {}  # id of an owner -> index of its buffer
        self.calls = []
        for number, launch in enumerate(launches):
            arrays, options = tree_map((launch.arrays, launch.options), self.view_of, devices.is_array)
            written = list(tree_leaves(arrays[: launch.kernel.outputs]))
            views = list(tree_leaves((arrays, options)))
            self.calls.append(Call("opaque", launch.kernel, arrays, options, views, written, True, number))

    def view_of(self, array: Array) -> View:
        """Return the view that stands for an array."""
        owner = owner_of(array)
        if id(owner) not in self._numbers:
            self._numbers[id(owner)] = len(self.buffers)
            self.buffers.append(Buffer(owner))
        offset = devices.pointer(array) - devices.pointer(owner)
        return View(self._numbers[id(owner)], offset, array.shape, array.strides, array.dtype)


def function(
    calls: Sequence[Call], array: Callable[[View], Array], used_devices: set[Device], lines: Sequence[str]
) -> tuple[Callable[[], None], Tape]:
    """Return a function that runs all launches, and the tape of them.

    On a single GPU the function launches one CUDA graph; otherwise it launches the kernels one by one.

    Args:
        calls: the launches, as calls on planned memory.
        array: returns the array of a view.
        used_devices: devices of the arrays.
        lines: the user's source line of each recorded launch.

    Raises:
        CaptureError: a launch cannot be part of a CUDA graph.
    """
    tape = Tape()
    arrays_of: dict[View, Array] = {}

    def array_of(view: View) -> Array:
        if view not in arrays_of:
            arrays_of[view] = array(view)
        return arrays_of[view]

    for call in calls:
        kernel: Any = call.function
        arrays, options = tree_map((call.arguments, call.options), array_of)
        tape.launches.append(Launch(kernel, arrays, options, lines[call.launch]))
    if len(used_devices) == 1 and (device := next(iter(used_devices))).type == "cuda":
        return devices.record_cuda_graph(tape.replay, device), tape
    return tape.replay, tape
