"""The lowering of other devices than the CPU: the launches themselves, on planned memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.captured.ir import Buffer, Call, View, tree_leaves, tree_map
from gpunet.captured.trace import owner_of
from gpunet.launch.tape import Launch, Tape


class Launches:
    """Each launch as one call, and the buffers that they are on: what a trace is on the CPU."""

    def __init__(self, launches: Sequence[Launch]) -> None:
        self.buffers: list[Buffer] = []
        self._numbers: dict[int, int] = {}  # buffer of an owner, by id
        self.calls = []
        for number, launch in enumerate(launches):
            arrays, options = tree_map((launch.arrays, launch.options), self.view, devices.is_array)
            written = list(tree_leaves(arrays[: launch.kernel.outputs]))
            everything = list(tree_leaves((arrays, options)))
            self.calls.append(Call("opaque", launch.kernel, arrays, options, everything, written, True, number))

    def view(self, array: Array) -> View:
        """Where an array lies."""
        owner = owner_of(array)
        if id(owner) not in self._numbers:
            self._numbers[id(owner)] = len(self.buffers)
            self.buffers.append(Buffer(owner))
        offset = devices.pointer(array) - devices.pointer(owner)
        return View(self._numbers[id(owner)], offset, array.shape, array.strides, array.dtype)


def function(
    calls: Sequence[Call], array: Callable[[View], Array], where: set[Device], lines: Sequence[str]
) -> tuple[Callable[[], None], Tape]:
    """The function that makes all launches, and the launches: on one card a CUDA graph, elsewhere one by one.

    Args:
        array: the array of a view.
        where: the devices that they are on.
        lines: of the user's program, by the number of the recorded launch.
    """
    tape = Tape()
    known: dict[View, Array] = {}

    def at(view: View) -> Array:
        if view not in known:
            known[view] = array(view)
        return known[view]

    for call in calls:
        kernel: Any = call.function
        arrays, options = tree_map((call.arguments, call.options), at)
        tape.launches.append(Launch(kernel, arrays, options, lines[call.launch]))
    if len(where) == 1 and (card := next(iter(where))).type == "cuda":
        return devices.record_cuda_graph(tape.replay, card), tape
    return tape.replay, tape
