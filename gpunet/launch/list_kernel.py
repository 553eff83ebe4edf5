"""Kernels over lists of arrays: one launch for all parameters of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.backend import compiler, devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import C_TYPES
from gpunet.errors import LaunchError
from gpunet.launch.kernel import KERNELS, Kernel, ceil_div
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.tape import active

#: Most tensors that one launch of a ListKernel takes: their table travels in the launch's 4 KB of parameters.
MAX_TENSORS = 48
#: Elements of a tensor that one block of a ListKernel works on.
ELEMENTS_A_BLOCK = 2048


class ListKernel(Kernel):
    """One launch over many tensors: the first ``lists`` parameters are lists of arrays, entry i of each belonging to
    tensor i.  The CUDA entry takes them as one ``TensorTable<lists>`` by value, then the other pointers and scalars.
    """

    def __init__(
        self, twin: Callable[..., None], file: str, outputs: int, types: dict[str, str], lists: int, optional: str
    ) -> None:
        super().__init__(twin, file, outputs, types, optional, strided="")
        self.lists = lists
        self.table_dtype = numpy.dtype(
            [
                ("pointers", numpy.uint64, (lists, MAX_TENSORS)),
                ("counts", numpy.int64, (MAX_TENSORS,)),
                ("first_block", numpy.int32, (MAX_TENSORS + 1,)),
                ("tensors", numpy.int32),
            ]
        )

    def __call__(self, *arrays: Any, **options: Any) -> None:
        recording = active.tape
        if recording is not None:
            recording.launch(self, arrays, options)
        elif self._lists_keep_contract(arrays):
            self.twin(*arrays, **options)
        else:
            self.check(arrays)
            self.launch(arrays, options)

    def _lists_keep_contract(self, arrays: Sequence[Any]) -> bool:
        """True for lists of NumPy arrays that keep the contract; of all others :meth:`check` decides."""
        lists = arrays[: self.lists]
        if not self._holds_for_numpy(*[a and a[0] for a in lists], *arrays[self.lists :]):
            return False
        count = len(lists[0])
        for tensors in lists:
            if tensors is not None:
                if len(tensors) != count or count > MAX_TENSORS:
                    return False
                if type(tensors) is JoinedArrays and tensors.flat is not None:
                    continue  # parts of one vector are all as the first one is
                dtype = tensors[0].dtype
                for array in tensors:
                    if type(array) is not ndarray or array.dtype is not dtype or not array.flags.c_contiguous:
                        return False
        return True

    def check(self, arrays: Sequence[Any]) -> None:
        lists = [a for a in arrays[: self.lists] if a is not None]
        tensors = len(lists[0])
        if not 0 < tensors <= MAX_TENSORS or any(len(a) != tensors for a in lists):
            raise LaunchError(
                f"launch of {self.name}: lists of {[len(a) for a in lists]} tensors; expected equal lengths from 1 to "
                f"{MAX_TENSORS}"
            )
        heads = [a and a[0] for a in arrays[: self.lists]]
        self.contract.check([*heads, *arrays[self.lists :]])
        for name, head, others in zip(self.parameters, heads, arrays):
            for index, other in enumerate(others or ()):
                if type(other) is not type(head) or other.dtype != head.dtype or not other.flags.c_contiguous:
                    strided = "" if other.flags.c_contiguous else " that is not C-contiguous"
                    raise LaunchError(
                        f"launch of {self.name}: tensor {index} of {name!r} is a {type(other).__name__} of {other.dtype}"
                        f"{strided}; expected a contiguous {type(head).__name__} of {head.dtype} like the first"
                    )
            if head is not None and not isinstance(head, ndarray):
                self.contract.check_gpus((f"{name}[{index}]", other) for index, other in enumerate(others))

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        first = arrays[0][0]
        if type(first) is ndarray:
            self.twin(*arrays, **options)
            return
        geometry = self.launch_geometry(arrays, options)
        function = compiler.function(self.file, self.expression(C_TYPES[first.dtype.name], geometry), devices.of(first))
        table = self.table(arrays)
        arguments = (table, *super().pack(arrays[self.lists :], geometry))
        grid = (int(table["first_block"][0, len(arrays[0])]),)
        if type(first) is devices.EmulatedArray:
            function(grid, (256,), arguments, 0, self._reached(arrays))
        else:
            function(grid, (256,), arguments, 0)

    def _reached(self, arrays: Sequence[Any]) -> list[tuple[str, Array, bool]]:
        """Name, array, and whether it is written, of what the table points to: the emulator watches over their bounds."""
        return [
            (f"{name}[{number}]", array, index < self.outputs)
            for index, (name, tensors) in enumerate(zip(self.parameters, arrays[: self.lists]))
            if tensors is not None
            for number, array in enumerate(tensors)
        ]

    def table(self, arrays: Sequence[Any]) -> numpy.ndarray:
        """Pointers, element counts and the first block of each tensor."""
        table = numpy.zeros(1, self.table_dtype)
        counts = [a.size for a in arrays[0]]
        for row, tensors in enumerate(arrays[: self.lists]):
            if tensors is not None:
                table["pointers"][0, row, : len(tensors)] = [devices.pointer(a) for a in tensors]
        table["counts"][0, : len(counts)] = counts
        table["first_block"][0, 1 : len(counts) + 1] = numpy.cumsum(
            [max(1, ceil_div(c, ELEMENTS_A_BLOCK)) for c in counts]  # an empty tensor counts its steps, too
        )
        table["tensors"] = len(counts)
        return table


def list_kernel(
    file: str, *, outputs: int, lists: int, types: dict[str, str] | None = None, optional: str = ""
) -> Callable[[Callable[..., None]], ListKernel]:
    """Make a :class:`ListKernel` of a NumPy twin.

    Args:
        lists: how many of the leading parameters are lists of arrays.
        others: as of :func:`gpunet.launch.kernel.kernel`.
    """

    def decorate(twin: Callable[..., None]) -> ListKernel:
        made = ListKernel(twin, file, outputs, types or {}, lists, optional)
        KERNELS[made.name] = made
        return made

    return decorate
