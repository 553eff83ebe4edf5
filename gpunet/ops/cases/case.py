"""What a case of a kernel is, what draws its arrays, and the shapes that families share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.backend.devices import Array
from gpunet.launch.kernel import Geometry, Kernel
from gpunet.launch.list_kernel import MAX_TENSORS
from gpunet.ops.activations import ACTIVATIONS


class View(NamedTuple):
    """An array that a kernel takes as a view of another one: transposed, reversed, broadcast, off alignment."""

    base: numpy.ndarray
    of: Callable[[Array], Array]


class Case(NamedTuple):
    """One launch."""

    kernel: Kernel
    label: str
    floating: str  # dtype of T
    arrays: list[Any]  # NumPy arrays, Views, None, or lists of arrays and Views
    options: dict[str, Any]
    grid: int | tuple[int, ...] | None = None  # instead of the one that the arrays' shapes lead to
    twin: Callable[..., None] | None = None  # what is right where the kernel's own twin refuses, and so the CPU does

    def __str__(self) -> str:
        return f"{self.kernel.name} {self.floating} {self.label}"

    def on_cpu(self) -> list[Any]:
        """The arrays as the twin takes them."""
        return [[_seen(x) for x in a] if isinstance(a, list) else _seen(a) for a in self.arrays]

    def geometry(self) -> Geometry:
        return self._geometry(self.on_cpu())

    def _geometry(self, arrays: list[Any]) -> Geometry:
        geometry = self.kernel.launch_geometry(arrays, self.options)
        return geometry if self.grid is None else geometry._replace(grid=self.grid)

    def launch(self, arrays: list[Any]) -> None:
        """Launch on the arrays of a device."""
        self.kernel.check(arrays)
        if self.grid is None or type(arrays[0]) is numpy.ndarray:
            self.kernel.launch(arrays, self.options)
        else:
            self.kernel.launch_as(self._geometry(arrays), arrays)

    def expression(self, geometry: Geometry | None = None) -> str:
        """The C++ name of the specialisation that the launch chooses."""
        flat = [a[0] if isinstance(a, list) else a for a in self.on_cpu()]
        return self.kernel.expression(self.kernel.floating(flat), geometry or self.geometry())


def _seen(array: Any) -> Any:
    return array.of(array.base) if isinstance(array, View) else array


class Purpose(NamedTuple):
    """What the launch does with destinations that it does not simply write."""

    updates: frozenset[str]  # read, then written
    workspace: frozenset[str]  # of the card: what is left there means nothing


#: For each kernel that has cases what yields them, and its purpose.
MAKERS: dict[str, tuple[Callable[[Samples], Iterator[Any]], Purpose]] = {}


def maker(updates: str = "", workspace: str = "") -> Callable[[Callable[[Samples], Iterator[Any]]], None]:
    """Decorator: a function with its kernel's name yields the cases of the kernel.

    Args:
        updates: arrays that are read, then written.
        workspace: arrays of the card in which what is left means nothing.
    """

    def register(make: Callable[[Samples], Iterator[Any]]) -> None:
        # the ticket is zero before and after every launch
        MAKERS[make.__name__] = make, Purpose(frozenset([*updates.split(), "ticket"]), frozenset(workspace.split()))

    return register


class Samples:
    """Draws arrays of one floating dtype."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.dtype = numpy.dtype(dtype)
        self.random = numpy.random.default_rng(seed)

    def normal(self, *shape: int) -> numpy.ndarray:
        return self.random.normal(size=shape).astype(self.dtype)

    def positive(self, *shape: int) -> numpy.ndarray:
        return self.random.uniform(0.1, 2.0, shape).astype(self.dtype)

    def blank(self, *shape: int, dtype: Any = None) -> numpy.ndarray:
        return numpy.zeros(shape, dtype or self.dtype)

    def saved(self, activation: str, *shape: int, alpha: float | None = None) -> numpy.ndarray:
        """What the forward pass of an activation saves."""
        row, z = ACTIVATIONS[activation], self.normal(*shape)
        z.reshape(-1)[1:2] = 0
        if row.saves == "output":
            row.forward(z, z, row.alpha if alpha is None else alpha)
        return z


def shifted(array: numpy.ndarray) -> View:
    """The array, one element off alignment."""
    flat = array.reshape(-1)
    return View(numpy.concatenate([flat[:1], flat]), lambda x: x[1:].reshape(array.shape))


def unaligned(label: str, arrays: list[Any], options: dict[str, Any], *which: int) -> Iterator[Any]:
    """The same launch for each of the arrays, all of them by default, with that one off alignment and the others not."""
    for index in which or range(len(arrays)):
        array = arrays[index]
        if array is not None:
            moved = [shifted(a) for a in array] if isinstance(array, list) else shifted(array)
            yield f"{label}, array {index} unaligned", [*arrays[:index], moved, *arrays[index + 1 :]], options


# ---- shapes ----------------------------------------------------------------------------------------------------------

#: (rows, columns, depth) of a product: odd and ragged ones, none of some, and ones that take the tile of 128.
SIZES = ((1, 1, 1), (7, 63, 65), (65, 7, 129), (129, 300, 63), (300, 129, 1), (63, 65, 300), (0, 7, 5), (5, 7, 0))
#: One whose rows are whole packs of four.
WHOLE_SIZE = (4, 8, 36)
LARGE_SIZES = ((7, 95 * 128 + 1, 9), (129, 48 * 128 - 63, 65))

#: Elements of an elementwise launch.
COUNTS = (1, 7, 63, 65, 129, 300, 0)

#: Sizes of the tensors of a launch.  A block works on 2048 elements; an empty tensor counts its steps, too.
TENSORS = (((7,), (63, 65), (1,), (0,), (2049,)), tuple((1 + 7 * index,) for index in range(MAX_TENSORS)))
