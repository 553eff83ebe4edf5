"""``Case``, one launch of a kernel; ``Samples``, which draws its arrays; sizes that several families use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.backend.dtypes import accumulator, as_dtype, float32, is_half
from gpunet.launch.facts import Cost, Floor
from gpunet.launch.kernel import Geometry, Kernel, ceil_div
from gpunet.launch.list_kernel import SMALL_TABLE
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.gemm import HALVES, LOOPS, SIMT, TF32, TF32_3, Cut, Math


class View(NamedTuple):
    """An argument that is a view: transposed, reversed, broadcast or off alignment."""

    base: numpy.ndarray
    of: Callable[[Array], Array]  # makes the view from ``base``, on any device


class Case(NamedTuple):
    """A launch of ``kernel`` with given arrays and options."""

    kernel: Kernel
    label: str
    floating: str  # the dtype of T
    arrays: list[Any]  # NumPy arrays, Views, None, or lists of arrays and Views
    options: dict[str, Any]
    grid: int | tuple[int, ...] | None = None  # replaces the grid of the kernel's geometry
    twin: Callable[..., None] | None = None  # the expected result where the kernel's own twin raises, or rounds otherwise
    tags: frozenset[str] = frozenset()  # see gpunet.launch.facts.TAGS

    def __str__(self) -> str:
        return f"{self.kernel.name} {self.floating} {self.label}"

    def on_device(self, device: Device) -> list[Any]:
        """Return the arrays as arguments of a launch on ``device``: moved there, with views made of them."""

        def move(array: Any) -> Any:
            if isinstance(array, list):
                return [move(a) for a in array]
            if isinstance(array, View):
                return array.of(devices.move(array.base, device))
            return None if array is None else devices.move(array, device)

        return [move(array) for array in self.arrays]

    def on_cpu(self) -> list[Any]:
        """Return the arrays, with views made, as arguments of the twin."""
        return self.on_device(devices.CPU)

    def geometry(self) -> Geometry:
        return self._geometry(self.on_cpu())

    def _geometry(self, arrays: list[Any]) -> Geometry:
        geometry = self.kernel.launch_geometry(arrays, self.options)
        return geometry if self.grid is None else geometry._replace(grid=self.grid)

    def cost(self) -> Cost:
        return self.kernel.launch_cost(self.on_cpu(), self.options)

    def launch(self, arrays: list[Any]) -> None:
        """Launch on arrays of any device."""
        self.kernel.check(arrays)
        if self.grid is None or type(arrays[0]) is numpy.ndarray:
            self.kernel.launch(arrays, self.options)
        else:
            self.kernel.launch_as(self._geometry(arrays), arrays)

    def expression(self, geometry: Geometry | None = None) -> str:
        """The C++ name of the specialisation that the launch selects."""
        flat = [a[0] if isinstance(a, list) else a for a in self.on_cpu()]
        return self.kernel.expression(self.kernel.floating(flat), geometry or self.geometry())


class Samples:
    """Draws arrays of one floating dtype.

    Attributes:
        width: rows and columns of the matrices of a case that may have any size; its vectors have width^2 elements.
        accumulators: draws arrays of the dtype's accumulator.
    """

    def __init__(self, dtype: Any, seed: int | numpy.random.Generator, width: int = 128) -> None:
        self.dtype, self.random, self.width = as_dtype(dtype), numpy.random.default_rng(seed), width
        self.accumulators = Samples(accumulator(self.dtype), self.random, width) if is_half(self.dtype) else self

    def normal(self, *shape: int) -> numpy.ndarray:
        return self.random.normal(size=shape).astype(self.dtype)

    @property
    def maths(self) -> tuple[Math, ...]:
        """How GPUs may multiply this dtype."""
        return (SIMT, HALVES) if is_half(self.dtype) else (SIMT, TF32, TF32_3) if self.dtype == float32 else (SIMT,)

    def operand(self, cut: Cut, *shape: int) -> numpy.ndarray:
        """An operand of a product; if that is computed in TF32, numbers beside those of TF32, see :func:`tf32_twin`."""
        values = self.normal(*shape)
        if cut.math != TF32:
            return values
        aside = self.random.choice([1 - 2.0**-13, 1 + 2.0**-13], shape)
        return (values.astype(numpy.float16) * aside).astype(self.dtype)

    def positive(self, *shape: int) -> numpy.ndarray:
        return self.random.uniform(0.1, 2.0, shape).astype(self.dtype)

    def blank(self, *shape: int, dtype: Any = None) -> numpy.ndarray:
        return numpy.zeros(shape, dtype or self.dtype)

    def split(self, cut: Cut, extra: int = 0) -> list[Any]:
        """The partials and tickets of a product (see :func:`gpunet.ops.gemm.workspace`); None if it is not split."""
        if not cut.is_split:
            return [None, None]
        return [self.accumulators.blank(cut.num_partials(extra)), self.blank(cut.tiles, dtype=numpy.uint32)]

    def layers(self, draw: Callable[..., numpy.ndarray]) -> list[numpy.ndarray]:
        """The weights and biases of two layers, for a list kernel."""
        return [draw(*shape) for shape in ((self.width, self.width), (self.width,)) * 2]

    @property
    def layers_label(self) -> str:
        return f"4 tensors, {2 * self.width * (self.width + 1)}"

    def saved(self, activation: str, *shape: int, alpha: float | None = None) -> numpy.ndarray:
        """The residual of an activation: its output or its pre-activation, from normal z that contain 0."""
        row, z = ACTIVATIONS[activation], off_kinks(self.normal(*shape).astype(self.accumulators.dtype))
        z.reshape(-1)[1:2] = 0
        if row.saves == "output":
            row.forward(z, z, row.alpha if alpha is None else alpha)
        return z.astype(self.dtype)


#: Where an activation or its derivative jumps, apart from 0.
_KINKS = (0.3, 0.5, 1.0, 3.0, 6.0)


def off_kinks(z: numpy.ndarray) -> numpy.ndarray:
    """Move numbers away from the kinks, where a rounding changes an activation or its derivative by much."""
    for kink in _KINKS:
        z[numpy.abs(numpy.abs(z) - kink) < kink / 32] *= 1.125
    return z


def shifted(array: numpy.ndarray, by: int) -> View:
    """A view with the values of ``array`` that starts ``by`` elements off alignment."""
    flat = array.reshape(-1)
    return View(numpy.concatenate([numpy.zeros(by, flat.dtype), flat]), lambda x: x[by:].reshape(array.shape))


def unaligned(label: str, arrays: list[Any], options: dict[str, Any], *which: int) -> Iterator[Any]:
    """Yield launches with only one array off alignment, by one and by two elements: each in ``which`` (default: every array)."""
    for index, by in itertools.product(which or range(len(arrays)), (1, 2)):
        array = arrays[index]
        if array is not None:
            moved = [shifted(a, by) for a in array] if isinstance(array, list) else shifted(array, by)
            yield f"{label}, array {index} unaligned by {by}", [*arrays[:index], moved, *arrays[index + 1 :]], options


# ---- shapes ----------------------------------------------------------------------------------------------------------

def rounded_operands(*operands: numpy.ndarray) -> list[numpy.ndarray]:
    """Round operands of :meth:`Samples.operand` to TF32.  Beside them lies one number of 11 bits, which is one of float16."""
    return [x.astype(numpy.float16).astype(x.dtype) for x in operands]


def tf32_twin(kernel: Kernel, cut: Cut, *operands: str) -> Callable[..., None] | None:
    """Return the twin with these operands rounded to TF32; None if the product is not computed in TF32."""
    if cut.math != TF32:
        return None
    places = [kernel.parameters.index(name) for name in operands]

    def twin(*arrays: Any, **options: Any) -> None:
        rounded = dict(zip(places, rounded_operands(*(arrays[place] for place in places))))
        kernel.twin(*(rounded.get(place, array) for place, array in enumerate(arrays)), **options)

    return twin


#: (rows, columns, depth) of a product: ragged and empty ones, and one whose rows are pairs, but not packs of four.
SIZES = (
    (1, 1, 1), (7, 63, 65), (65, 7, 129), (129, 300, 63), (300, 129, 1), (63, 65, 300), (66, 10, 70), (0, 7, 5), (5, 7, 0),
)  # fmt: skip
#: (rows, columns, depth) whose rows are whole packs of four elements.
WHOLE_SIZES = ((4, 8, 36), (132, 136, 20), (64, 32, 64))
#: (rows, columns, depth) of products on tensor cores: less than a step, some steps, and rows of whole packs of 16 bytes.
MMA_SIZES = ((1, 1, 1), (65, 130, 37), (130, 63, 100), (0, 7, 5), (3, 5, 0), (136, 72, 136), (8, 200, 24), (64, 128, 256))


def cut(tile: tuple[int, int], slices: float, rows: int, columns: int, depth: int, batches: int = 1, math: Math = SIMT) -> Cut:
    """A product of this size, cut into these tiles, with as many blocks for each, but at most one for each step of depth."""
    tiles = ceil_div(rows, tile[0]) * max(1, ceil_div(columns, tile[1])) * batches
    blocks = min(int(tiles * slices), tiles * max(1, ceil_div(depth, math.depth)))
    return Cut(*tile, tiles, max(blocks, min(tiles, 1)), math)


def products(maths: Sequence[Math] = (SIMT,)) -> Iterator[tuple[tuple[int, int, int], Cut]]:
    """Every size with every tile and by one block for each tile, several, or a number that is no multiple (stream-K).

    Args:
        maths: how GPUs multiply; see ``Samples.maths``.
    """
    for math in maths:
        slices = itertools.cycle((1, 3, 1.5, 2, 0.6, 1, 7))
        sizes = (*SIZES, *WHOLE_SIZES) if math == SIMT else MMA_SIZES
        for size, tile in itertools.product(sizes, LOOPS[math]):
            yield size, cut(tile, next(slices), *size, math=math)


#: Floors of products on tensor cores.  An mma.sync of sm_90a takes as long as the shared memory needs to load its operands; a
#: smaller tile loads as many per multiply-add of a warp, but copies twice as many.
MMA_FLOORS = {
    ("float16, 128, 128, *, Mma>", "*"): Floor(0.35, 1.6, 4),
    ("float16, 64, 64, *, Mma>", "*"): Floor(0.25, 2.2, 4),
    ("float, 128, 128, *, Mma>", "*"): Floor(0.18, 1.6),
    ("float, *, Mma>", "*"): Floor(0.15, 2.2),
    ("float, *, Mma3>", "*"): Floor(0.2, 0.8),
}

#: Numbers of elements of an elementwise launch.
COUNTS = (1, 7, 63, 65, 66, 129, 300, 0)

#: Shapes of the tensors of a list kernel's launch.  A block processes 2048 elements.  (Optimizers count the steps of an
#: empty tensor, too.)  The last ones take the large table, and
#: are more than a block has threads.
TENSORS = (
    ((7,), (63, 65), (1,), (0,), (2049,)),
    tuple((1 + 7 * index,) for index in range(SMALL_TABLE)),
    tuple((1 + 7 * (index % 48),) for index in range(258)),
)
