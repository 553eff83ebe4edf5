"""Predicts the time of a step of a small net in one launch (docs/small-nets.md), with the numbers of ``predicted_time``.

A block computes the products of a step one after the other, on one multiprocessor.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.launch.kernel import ceil_div
from gpunet.ops.small_net import SOFTMAX_OF_LABELS, THREADS, Layer, Net, plan, small_net_steps, stride_of
from gpunet.optim.small_net_cases import ADAM
from gpunet.tools.kernel_cases import specialisations
from gpunet.tools.machine_code import disassemble
from gpunet.tools.main_loop import MainLoop, count_loops
from gpunet.tools.multiprocessors import SCHEDULERS, WARP
from gpunet.tools.predicted_time import ARCHITECTURE, CLOCK, ISSUE_EFFICIENCY
from gpunet.tools.register_usage import compile_and_measure

#: The nets of docs/performance.md by name: their sizes, and the rows of a batch.
NETS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "64-128-10, batch 64": ((64, 128, 10), 64),
    "64-32-10, batch 32": ((64, 32, 10), 32),
    "16-32-32-4, batch 32": ((16, 32, 32, 4), 32),
}
#: Bytes that the shared-memory pipe moves in a cycle.
_BYTES_PER_CYCLE = 4 * WARP


class Predicted(NamedTuple):
    """The predicted times of a step, in seconds; its loss, its barriers and the copy of a batch are not modelled."""

    products: float
    update: float

    @property
    def time(self) -> float:
        return self.products + self.update


def net_of(sizes: Sequence[int], rows: int) -> Net:
    """A net of linear layers and ReLU with cross-entropy and Adam."""
    layers = tuple(Layer(i, o) for i, o in zip(sizes, sizes[1:]))  # noqa: RUF007
    return Net(layers, rows, "relu", 0.0, SOFTMAX_OF_LABELS, "mean", ADAM.rule)


@functools.cache
def loops_of_tiles() -> dict[int, MainLoop]:
    """The main loops for tiles of 8 x 4 and 2 x 4, by multiply-adds per lane in four steps of depth: the slowest of each.

    Raises:
        CompileError: NVRTC or nvdisasm is not installed.
    """
    expression, *_ = specialisations(small_net_steps, "representative")  # of float32
    made = compile_and_measure(small_net_steps.file, [expression], ARCHITECTURE)
    loops = count_loops(disassemble(made.cubin)[made.lowered[expression]])
    return {
        size: max((loop for loop in loops if loop.arithmetic == size), key=lambda loop: (loop.shared_cycles, loop.issued))
        for size in (128, 32)
    }


def product_cycles(rows: int, columns: int, depth: int, lanes: int, loops: Mapping[int, MainLoop]) -> float:
    """The cycles of a product, whose tiles go to the threads in rounds.

    Args:
        lanes: see ``gpunet.ops.small_net.lanes_of``.
        loops: see :func:`loops_of_tiles`.
    """
    height, lanes = (8, 1) if lanes == 0 else (2, lanes)
    loop = loops[128 if height == 8 else 32]
    threads, cycles = ceil_div(rows, height) * ceil_div(columns, 4) * lanes, 0.0
    while threads > 0:
        warps = ceil_div(min(threads, THREADS), WARP)
        steps = ceil_div(ceil_div(depth, 4), lanes)
        cycles += steps * max(ceil_div(warps, SCHEDULERS) * loop.issued, warps * loop.shared_cycles)
        threads -= THREADS
    return cycles / ISSUE_EFFICIENCY


def predict(net: Net, loops: Mapping[int, MainLoop], itemsize: int = 4, num_states: int = 2) -> Predicted:
    """Predict a step of a net whose states are held in shared memory.

    Args:
        loops: see :func:`loops_of_tiles`.
    """
    places: Any = plan(net, itemsize, num_states)[0]["of"]
    cycles = moved = 0.0
    for number, (layer, of) in enumerate(zip(net.layers, places)):
        cycles += product_cycles(net.rows, layer.outputs, layer.inputs + 1, int(of["lanes_forward"]), loops)
        cycles += product_cycles(layer.outputs, layer.inputs, net.rows, int(of["lanes_gradient"]), loops)
        if number:
            cycles += product_cycles(net.rows, layer.inputs, layer.outputs, int(of["lanes_input"]), loops)
        # the gradient is read; parameters and states are read and written
        moved += (3 + 2 * num_states) * numpy.float64(itemsize) * layer.outputs * stride_of(layer.inputs)
    return Predicted(cycles / CLOCK, moved / _BYTES_PER_CYCLE / CLOCK)
