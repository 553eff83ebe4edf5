"""The lowering for devices other than the CPU: the launches on planned memory, on a GPU as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.captured.ir import Call, View, tree_map
from gpunet.launch.tape import Launch, Tape


def function(
    calls: Sequence[Call], array: Callable[[View], Array], used_devices: set[Device]
) -> tuple[Callable[[], None], Tape]:
    """Return a function that runs all launches, and the tape of them.

    On a single GPU the function launches one CUDA graph; otherwise it launches the kernels one by one.

    Args:
        calls: the launches, as calls on planned memory.
        array: returns the array of a view.
        used_devices: devices of the arrays.

    Raises:
        CaptureError: a launch cannot be part of a CUDA graph.
    """
    tape, array_of = Tape(), functools.cache(array)
    for call in calls:
        kernel: Any = call.function
        arrays, options = tree_map((call.arguments, call.options), array_of)
        tape.launches.append(Launch(kernel, arrays, options))
    if len(used_devices) == 1 and (device := next(iter(used_devices))).type == "cuda":
        return devices.record_cuda_graph(tape.replay, device), tape
    return tape.replay, tape
