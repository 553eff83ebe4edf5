"""Kernels over lists of arrays, for example one launch for all parameters of an optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.backend import compiler, devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import C_TYPES
from gpunet.errors import LaunchError
from gpunet.launch.kernel import KERNELS, Geometry, Kernel, ceil_div
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.tape import active

#: Tensors that a table of pointers takes.  The table is a kernel parameter, and a kernel has 4 KB of them, or 32 KB.
SMALL_TABLE, LARGE_TABLE = 48, 512
#: Number of elements that one block processes.
ELEMENTS_PER_BLOCK = 2048


def max_tensors(array: Array) -> int:
    """Return the maximum number of tensors per launch on the device of an array."""
    if type(array) is ndarray or compiler.max_parameter_bytes(devices.of(array)) > 4096:
        return LARGE_TABLE
    return SMALL_TABLE


def num_blocks(tensors: Sequence[Any]) -> int:
    """Return the number of blocks of a launch; empty tensors have one, too, which counts the step of an optimizer."""
    return sum([_num_blocks(tensor) for tensor in tensors])


def _num_blocks(tensor: Any) -> int:
    return max(1, ceil_div(tensor.size, ELEMENTS_PER_BLOCK))


@functools.cache
def table_dtype(lists: int, capacity: int) -> numpy.dtype[Any]:
    """Return the layout of the CUDA sources' ``TensorTable<lists, capacity>``."""
    return numpy.dtype(
        [
            ("pointers", numpy.uint64, (lists, capacity)),
            ("counts", numpy.int64, (capacity,)),
            ("first_block", numpy.int32, (capacity + 1,)),
            ("tensors", numpy.int32),
        ]
    )


class ListKernel(Kernel):
    """One launch over many tensors.

    The first ``lists`` parameters are lists of arrays; entry i of each list belongs to tensor i.  The CUDA entry point
    takes the lists as one ``TensorTable<lists, capacity>`` by value, then the other pointers and the scalars; its last
    template argument is the capacity, the least of ``capacities`` that suffices.

    The grid of its geometry is the number of blocks of each tensor, or 0: a block for each ELEMENTS_PER_BLOCK elements.
    """

    def __init__(
        self, twin: Callable[..., None], file: str, outputs: int, types: dict[str, str], lists: int, optional: str,
        capacities: tuple[int, ...], **declared: Any,
    ) -> None:  # fmt: skip
        super().__init__(twin, file, outputs, types, optional, **declared)
        self.lists, self.capacities = lists, capacities

    def __call__(self, *arrays: Any, **options: Any) -> None:
        recording = active.tape
        if recording is not None:
            recording.launch(self, arrays, options)
        elif self._is_valid_numpy_lists(arrays):
            self.twin(*arrays, **options)
        else:
            self.check(arrays)
            self.launch(arrays, options)

    def _is_valid_numpy_lists(self, arrays: Sequence[Any]) -> bool:
        """Fast path: True if all arrays are NumPy arrays that satisfy the contract; otherwise call :meth:`check`."""
        lists = arrays[: self.lists]
        if not self._is_valid_numpy(*[a and a[0] for a in lists], *arrays[self.lists :]):
            return False
        count = len(lists[0])
        for tensors in lists:
            if tensors is not None:
                if len(tensors) != count or count > self.capacities[-1]:
                    return False
                if type(tensors) is JoinedArrays and tensors.flat is not None:
                    continue  # views of one vector: checking the first suffices
                dtype = tensors[0].dtype
                for array in tensors:
                    if type(array) is not ndarray or array.dtype is not dtype or not array.flags.c_contiguous:
                        return False
        return True

    def check(self, arrays: Sequence[Any]) -> None:
        lists = [a for a in arrays[: self.lists] if a is not None]
        count = len(lists[0])
        limit = min(self.capacities[-1], max_tensors(lists[0][0])) if count else self.capacities[0]
        if not 0 < count <= limit or any(len(a) != count for a in lists):
            raise LaunchError(
                f"kernel {self.name}: lists of {[len(a) for a in lists]} tensors; expected equal lengths from 1 to "
                f"{limit}"
            )
        firsts = [a and a[0] for a in arrays[: self.lists]]
        self.contract.check([*firsts, *arrays[self.lists :]])
        for name, first, tensors in zip(self.parameters, firsts, arrays):
            for index, array in enumerate(tensors or ()):
                if type(array) is not type(first) or array.dtype != first.dtype or not array.flags.c_contiguous:
                    strided = "" if array.flags.c_contiguous else " that is not C-contiguous"
                    raise LaunchError(
                        f"kernel {self.name}: tensor {index} of {name!r} is a {type(array).__name__} of {array.dtype}"
                        f"{strided}; expected a contiguous {type(first).__name__} of {first.dtype}, as tensor 0 is"
                    )
            if first is not None and not isinstance(first, ndarray):
                self.contract.check_gpus((f"{name}[{index}]", array) for index, array in enumerate(tensors))

    def launch_geometry(self, arrays: Sequence[Any], options: dict[str, Any]) -> Geometry:
        geometry = super().launch_geometry(arrays, options)
        blocks = geometry.grid if isinstance(geometry.grid, tuple) else tuple(map(_num_blocks, arrays[0]))
        return geometry._replace(grid=blocks, template=(*geometry.template, str(self._capacity(arrays[0]))))

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        first = arrays[0][0]
        if type(first) is ndarray:
            self.run_twin(arrays, options)
            return
        geometry = self.launch_geometry(arrays, options)
        function = compiler.function(self.file, self.expression(C_TYPES[first.dtype.name], geometry), devices.of(first))
        assert isinstance(geometry.grid, tuple) and isinstance(geometry.block, int)
        arguments = (self.table(arrays, geometry.grid), *super().pack(arrays[self.lists :], geometry))
        launch = functools.partial(function, (sum(geometry.grid),), (geometry.block,), arguments, geometry.shared)
        if type(first) is devices.EmulatedArray:
            launch(self._pointees(arrays))
        else:
            launch()

    def _pointees(self, arrays: Sequence[Any]) -> list[tuple[str, Array, bool]]:
        """Return (name, array, is_written) of each array in the table, so that the emulator can check their bounds."""
        return [
            (f"{name}[{number}]", array, index < self.outputs)
            for index, (name, tensors) in enumerate(zip(self.parameters, arrays[: self.lists]))
            if tensors is not None
            for number, array in enumerate(tensors)
        ]

    def table(self, arrays: Sequence[Any], blocks: Sequence[int]) -> numpy.ndarray:
        """Return the kernel's ``TensorTable``: pointers, element counts and first block of each tensor.

        Args:
            blocks: the number of blocks of each tensor.
        """
        table = numpy.zeros(1, table_dtype(self.lists, self._capacity(arrays[0])))
        counts = [a.size for a in arrays[0]]
        for row, tensors in enumerate(arrays[: self.lists]):
            if tensors is not None:
                table["pointers"][0, row, : len(tensors)] = [devices.pointer(a) for a in tensors]
        table["counts"][0, : len(counts)] = counts
        table["first_block"][0, 1 : len(counts) + 1] = numpy.cumsum(blocks)
        table["tensors"] = len(counts)
        return table

    def _capacity(self, tensors: Sequence[Array]) -> int:
        return next(capacity for capacity in self.capacities if len(tensors) <= capacity)


def list_kernel(
    file: str, *, outputs: int, lists: int, types: dict[str, str] | None = None, optional: str = "",
    capacities: tuple[int, ...] = (SMALL_TABLE, LARGE_TABLE), reads_values: bool = False, updates: str = "", workspace: str = "",
    tickets: str = "",
) -> Callable[[Callable[..., None]], ListKernel]:  # fmt: skip
    """Decorator: make a :class:`ListKernel` from its NumPy twin.

    Args:
        lists: number of leading parameters that are lists of arrays.
        capacities: numbers of tensors of the tables that the CUDA kernel is compiled for, in ascending order.

    The other arguments are those of :func:`gpunet.launch.kernel.kernel`.
    """

    def decorate(twin: Callable[..., None]) -> ListKernel:
        declared = {"reads_values": reads_values, "updates": updates, "workspace": workspace, "tickets": tickets}
        made = ListKernel(twin, file, outputs, types or {}, lists, optional, capacities, **declared)
        KERNELS[made.name] = made
        return made

    return decorate
