"""How a product is cut into tiles and slices on a GPU (cuda_kernels/gemm/product.cuh).

The choice depends on the shape alone, so that all GPUs compute the same bits.  It is by a coarse form of the model in
docs/performance.md, which needs no compiler.  The latencies below are assumptions, which no GPU has confirmed; they only rank
the cuts of a product, and any cut is right.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Geometry, ceil_div
from gpunet.launch.memory import empty, ticket

#: (rows, columns) of a tile -> the share of its main loop's instructions that multiply and add (docs/performance.md)
TILES = {(128, 128): 0.86, (64, 64): 0.83, (128, 32): 0.80, (32, 128): 0.81}
#: The multiprocessors that the choice assumes: those of an H200, whatever GPU is present.
NUM_MULTIPROCESSORS = 132
_DEPTH = 8  # of a step of the main loop, in float32
_MULTIPLY_ADDS = 512  # of a thread in a step
_LEAST_STEP = 700  # cycles: the latency of the loads of the next step, which the multiply-adds of a step hide
_START = 1500  # cycles of the first loads of a block and of its epilogue
_HANDOVER = 1500  # cycles of a fence, a ticket and the first loads of the partial sums
L2_BYTES_PER_CYCLE = 64  # that one multiprocessor reads or writes
_MAX_SLICES = 64
_LARGE = 1 << 24  # multiply-adds of a product that has to fill the GPU


class Cut(NamedTuple):
    """Tiles and slices of a product."""

    rows: int  # of a tile
    columns: int
    tiles: int
    slices: int  # blocks per tile, along depth

    @property
    def threads(self) -> int:
        """Threads of a block, which compute 64 elements each."""
        return self.rows * self.columns // 64

    def num_partials(self, extra: int) -> int:
        """Elements of the partial sums; see :func:`workspace`."""
        return self.tiles * self.slices * self.threads * 4 * (16 + extra)


def predicted_cycles(cut: Cut, depth: int) -> float:
    """The cycles of the multiprocessor with the most blocks."""
    blocks = ceil_div(cut.tiles * cut.slices, NUM_MULTIPROCESSORS)
    steps = ceil_div(ceil_div(depth, _DEPTH), cut.slices)
    warps = ceil_div(blocks * cut.threads // 32, 4)  # on the busiest of the four schedulers of a multiprocessor
    of_step = warps * _MULTIPLY_ADDS / TILES[cut.rows, cut.columns]
    cycles = _START + steps * max(_LEAST_STEP, of_step)
    if cut.slices > 1:
        of_tile = cut.rows * cut.columns * 4 / L2_BYTES_PER_CYCLE
        reads = cut.slices * ceil_div(cut.tiles, NUM_MULTIPROCESSORS)
        cycles += _HANDOVER + (blocks + reads) * of_tile
    return cycles


@functools.lru_cache(maxsize=4096)
def best_cut(rows: int, columns: int, depth: int, batches: int = 1) -> Cut:
    """Return the cut of least predicted time for the product of (rows, depth) by (depth, columns), computed ``batches`` times.

    Without columns there is one tile across: ``linear_backward_weight`` sums the rows there.
    """
    steps = max(1, ceil_div(depth, _DEPTH))
    candidates = []
    for tile in TILES:
        tiles = ceil_div(rows, tile[0]) * max(1, ceil_div(columns, tile[1])) * batches
        most = max(1, min(_MAX_SLICES, steps // 2)) if tiles < 2 * NUM_MULTIPROCESSORS else 1
        every = [s for s in range(1, most + 1) if ceil_div(steps, ceil_div(steps, s)) == s]  # each slice has steps
        candidates += [Cut(*tile, tiles, slices) for slices in every]
    if rows * columns * depth * batches >= _LARGE:
        candidates = [c for c in candidates if c.tiles * c.slices >= 0.9 * NUM_MULTIPROCESSORS] or candidates
    return min(candidates, key=lambda cut: (predicted_cycles(cut, depth), cut.slices))


def workspace(like: Array, cut: Cut, extra: int = 0) -> tuple[Any, Any]:
    """Allocate the partial sums and the tickets of a product that is split along depth; (None, None) if it is not.

    Args:
        like: an operand.
        extra: packs of four sums per thread beside those of the product.
    """
    if cut.slices == 1:
        return None, None
    return empty((cut.num_partials(extra),), accumulator(like.dtype), like), ticket(like, cut.tiles)


def geometry(
    rows: int, columns: int, depth: int, cut: Cut | None, scalars: tuple[Any, ...], *template: str, batches: int = 1
) -> Geometry:
    """The geometry of a kernel whose scalars begin with rows, columns, depth and slices, and its template arguments with the tile.

    Without a cut, the product is not split.
    """
    cut = cut or best_cut(rows, columns, depth, batches)._replace(slices=1)
    return Geometry(
        (cut.tiles, cut.slices), cut.threads, (rows, columns, depth, cut.slices, *scalars),
        (str(cut.rows), str(cut.columns), *template),
    )  # fmt: skip


def whole_flag(*operands: Array | None) -> str:
    """The template argument WHOLE (gemm/source.cuh): whether packs of four never leave the rows of matrices, and are aligned."""
    is_whole = all(
        x is not None
        and x.shape[-1] % 4 == 0
        and x.size > 0
        and devices.pointer(x) % min(16, 4 * x.itemsize) == 0
        and x.strides[-1] == x.itemsize
        and all(stride % (4 * x.itemsize) == 0 for stride in x.strides[:-1])
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
