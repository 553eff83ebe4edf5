"""Predicts the time of recorded steps on an H200 from shapes and machine code; docs/performance.md states the model.

No constant is fitted to a measurement of gpunet.  A predicted time serves to compare kernels and to find losses until a GPU
has measured it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import gpunet
from gpunet import nn
from gpunet.backend.devices import owner_of
from gpunet.captured.lowering import Lowering
from gpunet.errors import ArgumentError
from gpunet.launch.facts import Product
from gpunet.launch.kernel import Geometry, Kernel, ceil_div
from gpunet.launch.list_kernel import ListKernel
from gpunet.launch.tape import Launch, Tape, record
from gpunet.ops.gemm import L2_BYTES_PER_CYCLE, NUM_MULTIPROCESSORS, num_parts
from gpunet.tools import kernel_cases  # noqa: F401  fills the facts of the kernels
from gpunet.tools.floors import Measured, measure, num_threads
from gpunet.tools.multiprocessors import SCHEDULERS, WARP

ARCHITECTURE = "sm_90a"
CLOCK = 1.755e9  # Hz
NODE_LATENCY = 2e-6  # s, from a node of a CUDA graph to the next
MEMORY = 4.3e12  # bytes/s that a copy reaches
ISSUE_EFFICIENCY = 0.9  # of a main loop: barriers and latencies take the rest; assumed


# ---- recording --------------------------------------------------------------------------------------------------------


class Recording(Tape):
    """Records launches without running them: arrays keep whatever they contain."""

    def launch(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        kernel.check(arrays)
        self.append(kernel, arrays, options)


#: How products are computed: words of ``set_float32_matmul_precision``, or all parameters and inputs in a dtype of halves.
ARITHMETIC = ("highest", "high", "medium", "bfloat16")


@contextlib.contextmanager
def arithmetic_of(how: str) -> Iterator[Any]:
    """Inside the block, products are computed in a way of :data:`ARITHMETIC`; yields the dtype of parameters and inputs."""
    before = gpunet.get_float32_matmul_precision()
    is_half = how == "bfloat16"
    gpunet.set_float32_matmul_precision("highest" if is_half else how)
    try:
        yield gpunet.bfloat16 if is_half else gpunet.float32
    finally:
        gpunet.set_float32_matmul_precision(before)


def training_step(sizes: Sequence[int], batch: int, how: str = "highest") -> list[Launch]:
    """Record a step of a network of linear layers and ReLU with cross-entropy and Adam, as a captured step launches it.

    Args:
        how: one of :data:`ARITHMETIC`.
    """
    layers = [[nn.Linear(i, o, device="cpu"), nn.ReLU()] for i, o in itertools.pairwise(sizes)]
    with arithmetic_of(how) as dtype:
        network = nn.Sequential(*itertools.chain(*layers[:-1]), layers[-1][0]).to("emulated").to(dtype)
        optimizer, criterion = gpunet.optim.Adam(network.parameters()), nn.CrossEntropyLoss()
        x = gpunet.empty(batch, sizes[0], device="emulated", dtype=dtype)
        labels = gpunet.empty(batch, dtype=gpunet.int64, device="emulated")
        with record(Recording()) as tape:
            optimizer.zero_grad()
            loss = criterion(network(x), labels)
            loss.backward()
            optimizer.step()
    return _replayed(tape, [loss.array, *(p.grad.array for p in network.parameters() if p.grad is not None)])


def _replayed(tape: Tape, kept: Sequence[Any]) -> list[Launch]:
    """Return the launches of a replay of a captured step.

    Args:
        kept: arrays that are read after the step.
    """
    lowering = Lowering(tape.launches, kept)
    own = {id(owner_of(array)) for array in tape.allocated}
    lowering.finish([id(buffer.array) in own for buffer in lowering.buffers])
    assert lowering.tape is not None
    return lowering.tape.launches


def _layer(n: int, how: str = "highest") -> list[Launch]:
    layer = nn.Linear(n, n, device="cpu").to("emulated")
    with arithmetic_of(how) as dtype:
        layer.to(dtype)
        x = gpunet.empty(n, n, device="emulated", dtype=dtype)
        with gpunet.no_grad(), record(Recording()) as tape:
            layer(x)
    return tape.launches


def _matmul(n: int, how: str = "highest") -> list[Launch]:
    with arithmetic_of(how) as dtype:
        a, b = (gpunet.empty(n, n, device="emulated", dtype=dtype) for _ in range(2))
        with record(Recording()) as tape:
            gpunet.matmul(a, b)
    return tape.launches


#: The steps of docs/performance.md by name; each takes one of ARITHMETIC, by default "highest".
STEPS: dict[str, Callable[..., list[Launch]]] = {
    "784-128-10, batch 128": lambda how="highest": training_step((784, 128, 10), 128, how),
    "784-512-512-10, batch 64": lambda how="highest": training_step((784, 512, 512, 10), 64, how),
    "784-512-512-10, batch 256": lambda how="highest": training_step((784, 512, 512, 10), 256, how),
    "784-512-512-10, batch 1024": lambda how="highest": training_step((784, 512, 512, 10), 1024, how),
    "2048-2048-2048, batch 512": lambda how="highest": training_step((2048,) * 3, 512, how),
    "2048-2048-2048-2048, batch 512": lambda how="highest": training_step((2048,) * 4, 512, how),
    "4096-4096, batch 4096, forward": lambda how="highest": _layer(4096, how),
    "4096 × 4096 × 4096, matmul": lambda how="highest": _matmul(4096, how),
}

# ---- geometry ---------------------------------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """How the blocks of a launch share a product."""

    rows: int  # of a tile
    columns: int
    tiles: int
    blocks: int

    @property
    def slices(self) -> Fraction:
        """Blocks for each tile."""
        return Fraction(self.blocks, self.tiles)

    @property
    def parts(self) -> int:
        """The parts of tiles that blocks compute."""
        return num_parts(self.tiles, self.blocks)

    @property
    def on_busiest(self) -> int:
        """The blocks of the multiprocessor that has the most."""
        return ceil_div(self.blocks, NUM_MULTIPROCESSORS)

    @property
    def filled(self) -> float:
        """The share of the multiprocessors that work while the busiest one does."""
        return self.blocks / (self.on_busiest * NUM_MULTIPROCESSORS)


def tiling(product: Product, geometry: Geometry) -> Tiling:
    """Return the tiling of a launch, whose geometry is that of :func:`gpunet.ops.gemm.geometry`.

    Raises:
        ArgumentError: there are no tiles.
    """
    rows, columns = map(int, geometry.template[:2])
    blocks = geometry.grid if isinstance(geometry.grid, int) else math.prod(geometry.grid)
    tiles = ceil_div(product.rows, rows) * ceil_div(product.columns, columns) * product.batches
    if not tiles:
        raise ArgumentError(f"{blocks} blocks for no tiles of {rows} x {columns}; expected a product that is not empty")
    return Tiling(rows, columns, tiles, blocks)


def tilings(kernel: Kernel, products: Sequence[Product], geometry: Geometry) -> list[Tiling]:
    """Return the tiling of each product of a launch; those of a list kernel have blocks of their own."""
    if not isinstance(kernel, ListKernel):
        return [tiling(product, geometry) for product in products]
    assert isinstance(geometry.grid, tuple)
    return [tiling(product, geometry._replace(grid=blocks)) for product, blocks in zip(products, geometry.grid)]


# ---- time -------------------------------------------------------------------------------------------------------------


class Predicted(NamedTuple):
    """The predicted time of a launch, in seconds."""

    launch: Launch
    arithmetic: float
    memory: float
    tilings: Sequence[Tiling] = ()  # of each product

    @property
    def time(self) -> float:
        return max(self.arithmetic, self.memory) + NODE_LATENCY


def predict(launches: Sequence[Launch]) -> list[Predicted]:
    """Predict the time of each launch of a step.

    Raises:
        CompileError: NVRTC or nvdisasm is not installed.
    """
    needed: dict[Kernel, dict[str, Geometry]] = {}
    for launch in launches:
        kernel = launch.kernel
        if isinstance(kernel, Kernel) and kernel.launch_products(launch.arrays, launch.options):
            geometry = kernel.launch_geometry(launch.arrays, launch.options)
            needed.setdefault(kernel, {})[_expression(launch, geometry)] = geometry
    loops = {m.expression: m for kernel, geometries in needed.items() for m in _measured(kernel, geometries)}
    return [_predict(launch, loops) for launch in launches]


def _expression(launch: Launch, geometry: Geometry) -> str:
    kernel: Any = launch.kernel
    firsts = [a[0] if isinstance(a, list) else a for a in launch.arrays]
    return kernel.expression(kernel.floating(firsts), geometry)


_loops: dict[str, Measured] = {}


def _measured(kernel: Kernel, geometries: Mapping[str, Geometry]) -> list[Measured]:
    missing = {expression: g for expression, g in geometries.items() if expression not in _loops}
    if missing:
        _loops.update((m.expression, m) for m in measure(kernel, missing, ARCHITECTURE))
    return [_loops[expression] for expression in geometries]


def _predict(launch: Launch, loops: Mapping[str, Measured]) -> Predicted:
    kernel, arrays, options = launch.kernel, launch.arrays, launch.options
    if not isinstance(kernel, Kernel):
        raise ArgumentError(f"{launch.kernel} is no kernel: its time is not modelled")
    memory = kernel.launch_cost(arrays, options).bytes / MEMORY
    products = kernel.launch_products(arrays, options)
    if not products:
        return Predicted(launch, 0.0, memory)
    geometry = kernel.launch_geometry(arrays, options)
    found = tilings(kernel, products, geometry)
    cycles = main_loop_cycles(products, found, loops[_expression(launch, geometry)], num_threads(geometry) // WARP)
    cycles += sum(part_cycles(tiles) for tiles in found if tiles.tiles % tiles.blocks)
    return Predicted(launch, cycles / CLOCK, memory, found)


def main_loop_cycles(products: Sequence[Product], found: Sequence[Tiling], measured: Measured, warps: int) -> float:
    """Return the cycles that the busiest multiprocessor takes for the main loops of its blocks.

    The blocks go to the multiprocessors in turn, and the warps of a multiprocessor to its schedulers.

    Args:
        found: the tiling of each product.
        warps: of a block.
    """
    loop = measured.loop
    steps_of_blocks: list[int] = []
    for product, tiles in zip(products, found):
        depth_of_step = loop.multiply_adds * warps * WARP // (tiles.rows * tiles.columns * product.terms)
        steps = ceil_div(tiles.tiles * ceil_div(product.depth, depth_of_step), tiles.blocks)
        steps_of_blocks += [steps] * tiles.blocks
    busiest = 0.0
    for first in range(min(NUM_MULTIPROCESSORS, len(steps_of_blocks))):
        of_warps = [steps for steps in steps_of_blocks[first::NUM_MULTIPROCESSORS] for _ in range(warps)]
        issued = max(sum(of_warps[scheduler::SCHEDULERS]) for scheduler in range(SCHEDULERS))
        issue = issued * max(loop.issued, measured.arithmetic_cycles * SCHEDULERS)
        busiest = max(busiest, issue, sum(of_warps) * loop.shared_cycles)
    return busiest / ISSUE_EFFICIENCY


def part_cycles(tiles: Tiling) -> float:
    """Return the cycles for adding the parts of tiles within the launch.

    Each block writes its parts; the last one of a tile reads all of them.  Both go through L2.
    """
    tile_bytes = 4 * tiles.rows * tiles.columns
    return tile_bytes * (ceil_div(tiles.parts, NUM_MULTIPROCESSORS) + ceil_div(tiles.parts, tiles.tiles)) / L2_BYTES_PER_CYCLE
