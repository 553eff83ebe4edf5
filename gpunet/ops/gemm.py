"""How a product is cut into tiles and shared out to blocks on a GPU (cuda_kernels/gemm/product.cuh).

The choice depends on the shape alone, so that all GPUs compute the same bits.  It is by a coarse form of the model in
docs/performance.md, which needs no compiler.  The latencies below are assumptions, which no GPU has confirmed; they only rank
the cuts of a product, and any cut is right.

Tensor cores multiply halves, and float32 where the user allowed it (``set_float32_matmul_precision``); they do not from compute
capability 7.5 down, except for float16 on 7.5.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices, flags, gpus
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, float16, float32
from gpunet.launch.kernel import Geometry, ceil_div
from gpunet.launch.memory import empty, ticket
from gpunet.launch.tape import active


class Math(NamedTuple):
    """How a GPU multiplies: the template argument MATH of cuda_kernels/gemm/product.cuh."""

    name: str
    depth: int  # of a step of the main loop


SIMT = Math("Simt", 8)  # in the accumulator; depth that of float32
HALVES = Math("Mma", 32)  # halves on tensor cores
TF32 = Math("Mma", 16)  # float32 rounded to TF32, on tensor cores
TF32_3 = Math("Mma3", 16)  # float32 as the sum of two numbers of TF32: three products


class Loop(NamedTuple):
    """What a step of a block's main loop takes of a multiprocessor (docs/performance.md)."""

    warps: int
    cycles: float  # of a scheduler, for a warp
    shared: float  # of the shared memory, for the block


_MULTIPLY_ADDS = 512  # of a thread in a step of SIMT
#: (rows, columns) of a tile -> the share of its main loop's instructions that multiply and add (docs/performance.md)
TILES = {(128, 128): 0.86, (64, 64): 0.83, (128, 32): 0.80, (32, 128): 0.81}
#: How a GPU multiplies -> tile -> main loop.  An mma.sync takes a scheduler of an H200 four cycles.
LOOPS: dict[Math, dict[tuple[int, int], Loop]] = {
    SIMT: {tile: Loop(tile[0] * tile[1] // 2048, _MULTIPLY_ADDS / share, 0) for tile, share in TILES.items()},
    HALVES: {(128, 128): Loop(4, 256, 396), (64, 64): Loop(2, 128, 134)},
    TF32: {(128, 128): Loop(4, 290, 396), (64, 64): Loop(2, 170, 134)},
    TF32_3: {(128, 128): Loop(4, 770, 396), (64, 64): Loop(2, 390, 134)},
}
#: The multiprocessors that the choice assumes: those of an H200, whatever GPU is present.
NUM_MULTIPROCESSORS = 132
_LEAST_STEP = 700  # cycles: the latency of the loads of the next step, which the multiply-adds of a step hide
_MMA_STAGES = 3  # of the ring of steps: loads are two steps ahead
_MMA_STEP_BYTES = 64  # of a line
_START = 1500  # cycles of the first loads of a block and of its epilogue
_HANDOVER = 1500  # cycles of a fence, a ticket and the first loads of the partial sums
L2_BYTES_PER_CYCLE = 64  # that one multiprocessor reads or writes
_MAX_SLICES = 64
_MAX_WAVES = 6  # blocks of a stream-K product on a multiprocessor
_MAX_RUN = 8  # tiles that a stream-K block computes: with more of them, whole tiles leave multiprocessors idle for less than 1/8
_LARGE = 1 << 24  # multiply-adds of a product that has to fill the GPU


class Cut(NamedTuple):
    """How a product is computed: in tiles, by so many blocks, and by which arithmetic."""

    rows: int  # of a tile
    columns: int
    tiles: int
    blocks: int  # that share out the steps of all tiles in equal runs
    math: Math = SIMT

    @property
    def loop(self) -> Loop:
        return LOOPS[self.math][self.rows, self.columns]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.loop.warps

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory of a block."""
        return 0 if self.math == SIMT else _MMA_STAGES * (self.rows + self.columns) * _MMA_STEP_BYTES

    def pack(self, itemsize: int) -> int:
        """Elements that are loaded at once."""
        return 4 if self.math == SIMT else 16 // itemsize

    @property
    def terms(self) -> int:
        """Products by which tensor cores compute a multiply-add."""
        return 3 if self.math == TF32_3 else 1

    @property
    def is_split(self) -> bool:
        """Whether a tile is shared by several blocks."""
        return self.tiles % max(1, self.blocks) != 0

    @property
    def filled(self) -> float:
        """The share of the multiprocessors that have work while the busiest one has."""
        return self.blocks / (NUM_MULTIPROCESSORS * max(1, ceil_div(self.blocks, NUM_MULTIPROCESSORS)))

    @property
    def parts(self) -> int:
        """The number of parts of tiles that blocks compute."""
        return num_parts(self.tiles, self.blocks)

    def num_partials(self, extra: int) -> int:
        """Elements of the partial sums; see :func:`workspace`."""
        return (self.blocks + self.tiles) * (self.rows * self.columns + 4 * extra * self.threads)


def num_parts(tiles: int, blocks: int) -> int:
    """The number of parts into which equal runs of ``blocks`` blocks cut ``tiles`` tiles.

    A part ends where a run ends or a tile ends; both end together at gcd(blocks, tiles) places.
    """
    return blocks + tiles - math.gcd(blocks, tiles)


def math_of(like: Array) -> Math:
    """Return how a GPU multiplies arrays of the dtype and on the device of ``like``.

    A captured step is recorded again if that changes.
    """
    dtype = like.dtype
    if dtype.itemsize == 2:
        return HALVES if _has_tensor_cores(like, dtype == float16) else SIMT
    if dtype != float32:
        return SIMT
    precision = flags.get_float32_matmul_precision()
    if active.tape is not None and type(like) is not numpy.ndarray:
        holds = "{}() == {}", (flags.get_float32_matmul_precision, precision)
        active.tape.guards.append((*holds, "the precision of float32 products (set_float32_matmul_precision)"))
    if precision == "highest" or not _has_tensor_cores(like, False):
        return SIMT
    return TF32 if precision == "medium" else TF32_3


def _has_tensor_cores(like: Array, is_float16: bool) -> bool:
    """Whether the GPU of an array has tensor cores for its dtype; the emulated one has."""
    device = devices.of(like)
    return device.type != "cuda" or _capability(device) >= ((7, 5) if is_float16 else (8, 0))


_capability = functools.cache(gpus.get_device_capability)


def predicted_cycles(cut: Cut, depth: int) -> float:
    """The cycles of the multiprocessor with the most blocks."""
    blocks, loop = ceil_div(cut.blocks, NUM_MULTIPROCESSORS), cut.loop
    steps = ceil_div(cut.tiles * ceil_div(depth, cut.math.depth), max(1, cut.blocks))
    # the busiest of the four schedulers of a multiprocessor
    of_step = max(ceil_div(blocks * loop.warps, 4) * loop.cycles, blocks * loop.shared)
    least = _LEAST_STEP if cut.math == SIMT else _LEAST_STEP / (_MMA_STAGES - 1)
    cycles = _START + steps * max(least, of_step)
    if cut.is_split:
        of_tile = cut.rows * cut.columns * 4 / L2_BYTES_PER_CYCLE
        writes = ceil_div(cut.parts, NUM_MULTIPROCESSORS)
        reads = ceil_div(cut.parts, cut.tiles) * ceil_div(cut.tiles, NUM_MULTIPROCESSORS)
        cycles += _HANDOVER + (writes + reads) * of_tile
    return cycles


@functools.lru_cache(maxsize=4096)
def best_cut(rows: int, columns: int, depth: int, batches: int = 1, math: Math = SIMT) -> Cut:
    """Return the cut of least predicted time for the product of (rows, depth) by (depth, columns), computed ``batches`` times.

    Without columns there is one tile across: ``linear_backward_weight`` sums the rows there.
    """
    steps = max(1, ceil_div(depth, math.depth))
    candidates = []
    for tile in LOOPS[math]:
        tiles = ceil_div(rows, tile[0]) * max(1, ceil_div(columns, tile[1])) * batches
        most = max(1, min(_MAX_SLICES, steps // 2 if math == SIMT else steps)) if tiles < 2 * NUM_MULTIPROCESSORS else 1
        every = [tiles * s for s in range(1, most + 1) if ceil_div(steps, ceil_div(steps, s)) == s]  # each slice has steps
        waves = [NUM_MULTIPROCESSORS * wave for wave in range(1, _MAX_WAVES + 1)]
        every += [blocks for blocks in waves if tiles < _MAX_RUN * blocks and 2 * blocks <= tiles * steps]  # a run has two steps
        candidates += [Cut(*tile, tiles, blocks, math) for blocks in every]
    if rows * columns * depth * batches >= _LARGE:
        busy = [c for c in candidates if c.blocks >= 0.9 * NUM_MULTIPROCESSORS] or candidates
        candidates = [c for c in busy if c.filled >= 0.9] or busy
    return min(candidates, key=lambda cut: (predicted_cycles(cut, depth), cut.blocks))


def workspace(like: Array, cut: Cut, extra: int = 0) -> tuple[Any, Any]:
    """Allocate the partial sums and the tickets of a product that is split along depth; (None, None) if it is not.

    Args:
        like: an operand.
        extra: packs of four sums per thread beside those of the product.
    """
    if not cut.is_split:
        return None, None
    return empty((cut.num_partials(extra),), accumulator(like.dtype), like), ticket(like, cut.tiles)


def cut_of(cut: Cut | None, like: Array, rows: int, columns: int, depth: int, batches: int = 1) -> Cut:
    """Return ``cut``; if it is None, one of a block for each tile for a product of arrays like ``like``."""
    return cut or _whole(best_cut(rows, columns, depth, batches, math_of(like)))


def _whole(cut: Cut) -> Cut:
    """The cut with a block for each tile, which needs no workspace."""
    return cut._replace(blocks=cut.tiles)


def geometry(
    rows: int, columns: int, depth: int, cut: Cut | None, scalars: tuple[Any, ...], *template: str, batches: int = 1
) -> Geometry:
    """The geometry of a kernel whose scalars begin with rows, columns, depth and tiles, and its template arguments with the tile.

    Without a cut, each block computes a tile.  The last template argument is MATH, unless it is the default.
    """
    cut = cut or _whole(best_cut(rows, columns, depth, batches))
    math = () if cut.math == SIMT else (cut.math.name,)
    return Geometry(
        cut.blocks, cut.threads, (rows, columns, depth, cut.tiles, *scalars),
        (str(cut.rows), str(cut.columns), *template, *math), cut.shared,
    )  # fmt: skip


def whole_flag(*operands: Array | None, pack: int = 4) -> str:
    """The template argument WHOLE (gemm/source.cuh): whether packs never leave the rows of matrices, and are aligned.

    Args:
        pack: elements of a pack.
    """
    is_whole = all(
        x is not None
        and x.shape[-1] % pack == 0
        and x.size > 0
        and devices.pointer(x) % min(16, pack * x.itemsize) == 0
        and x.strides[-1] == x.itemsize
        and all(stride % (pack * x.itemsize) == 0 for stride in x.strides[:-1])
        for x in operands
    )
    return "true" if is_whole else "false"


# ---- windows of images (gemm/window.cuh) -------------------------------------------------------------------------------


def divisor(number: int) -> tuple[int, int, int]:
    """A Divisor of common/divisor.cuh: (number, multiplier, shift).

    n // number == ((n multiplier >> 32) + n) >> shift for 0 <= n < 2^31 and 0 < number < 2^31 (Granlund and Montgomery 1994).
    """
    shift = (number - 1).bit_length()
    return number, ((1 << 32) * ((1 << shift) - number) // number + 1) & 0xFFFFFFFF, shift


#: The struct Divisor of common/divisor.cuh.
DIVISOR = numpy.dtype([("divisor", "u4"), ("multiplier", "u4"), ("shift", "u4")])
_INTS = ("channels", "height", "width", "step_y", "step_x", "first_y", "first_x", "tap_y", "tap_x")
_DIVISORS = ("pixels", "columns", "taps", "taps_x", "spacing_y", "spacing_x")
#: The struct WindowShape of gemm/window.cuh.
WINDOW_SHAPE = numpy.dtype(
    [*((name, "i4") for name in _INTS), *((name, DIVISOR) for name in _DIVISORS)], metadata={"c_type": "WindowShape"}
)

Pair = tuple[int, int]


@functools.lru_cache(maxsize=1024)
def window_shape(
    channels: int, extent: Pair, size: Pair, filters: Pair, step: Pair, first: Pair, tap: Pair, spacing: Pair = (1, 1)
) -> numpy.ndarray:
    """The WindowShape of gemm/window.cuh, an argument of a launch; pairs are (vertical, horizontal).

    Args:
        channels, extent: of the images that are read.
        size: pixels (i, j) of the result.
        filters: taps (r, s) of a filter.
        step, first, tap, spacing: pixel i reads with tap r at (first + i step + r tap) / spacing where that is an integer.
    """
    divisors = (math.prod(size), size[1], math.prod(filters), filters[1], *spacing)
    shape = numpy.array([(channels, *extent, *step, *first, *tap, *map(divisor, divisors))], WINDOW_SHAPE)
    shape.flags.writeable = False
    return shape
