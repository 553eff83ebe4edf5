"""Kernels.  A :class:`Kernel` pairs a CUDA entry point with its NumPy twin; calling it is one launch on either device.

Every kernel follows the same contract:

* the arguments are the destinations, then residuals (arrays saved for backward), then inputs; options are keywords;
* **a launch never allocates and never returns a value**: an op allocates the destinations, then launches;
* arrays are on one device, C-contiguous (except ``rows`` and ``strided`` ones) and of one floating dtype ``T`` (except
  ``types``); of halves, products and sums are computed in float32, the accumulator ``A`` of T, and rounded at the store;
* ``None`` stands for an array that the specialisation does not use.

A recorded step is therefore a list of launches that can be replayed, given planned memory, or made a CUDA graph.

    @kernel("linear.cu", outputs=2)
    def linear_forward(y, z, x, w, b, *, activation, alpha):    # the twin, named like the CUDA entry point
        ...
    @linear_forward.geometry                                    # grid, block and scalars of the CUDA launch
    def _(y, z, x, w, b, *, activation, alpha):
        return Geometry(grid=..., block=256, scalars=(n, o, i, alpha), template=(...))

The CUDA entry point is ``template <class T, ...> __global__ void linear_forward(T* y, T* z, const T* x, ...)``: the
pointers in the twin's order and with the twin's names, ``const`` for inputs, then the scalars.  A test compares the two
signatures.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from numpy import ndarray

import gpunet.emulator  # noqa: F401  registers the loader of the device "emulated"
from gpunet.backend import compiler, cuda_sources, devices
from gpunet.backend.dtypes import C_TYPES, as_dtype
from gpunet.launch import contract, halves
from gpunet.launch.contract import Contract, first_array
from gpunet.launch.facts import Facts
from gpunet.launch.launchable import Launchable
from gpunet.launch.loops import Loops
from gpunet.launch.packing import pack
from gpunet.launch.tape import active

#: All kernels by name.
KERNELS: dict[str, Kernel] = {}


F = TypeVar("F", bound=Callable[..., Any])


class Geometry(NamedTuple):
    """The launch configuration of a CUDA entry point.

    Attributes:
        grid: number of blocks, one int or up to three.
        block: threads per block, one int or up to three.
        scalars: the arguments after the pointers.  A Python int is an extent, passed as a C ``int`` (LaunchError if
            it is too large), a float as a ``double``; a NumPy scalar or a one-element structured array is passed unchanged.
        template: the template arguments after ``T``.
        shared: dynamic shared memory in bytes.
    """

    grid: int | tuple[int, ...]
    block: int | tuple[int, ...]
    scalars: tuple[Any, ...] = ()
    template: tuple[str, ...] = ()
    shared: int = 0


class Arguments(NamedTuple):
    """The arguments of a launch."""

    arrays: tuple[Any, ...]
    options: dict[str, Any]


class Workspace(NamedTuple):
    """An array that a launch needs beside its operands and results."""

    size: int  # elements
    dtype: Any
    is_zero: bool = False  # before and after each launch, as tickets are; else it has no values between launches


class Kernel(Facts, Launchable):
    """A CUDA entry point and its NumPy twin, created by the decorator :func:`kernel`."""

    traceable = True  #: whether a replay may call the twin, or the NumPy calls traced from it, instead of launching
    widens = True

    def __init__(
        self,
        twin: Callable[..., None],
        file: str | cuda_sources.Source,
        outputs: int,
        types: dict[str, str],
        optional: str = "",
        rows: str = "",
        strided: str = "",
        reads_values: bool = False,
        updates: str = "",
        workspace: str = "",
        tickets: str = "",
    ) -> None:
        super().__init__()
        parameters = inspect.signature(twin).parameters.values()
        self.twin = twin
        self.name = self.entry = twin.__name__
        self.__doc__ = twin.__doc__
        self.file = file
        self.outputs = outputs
        self.reads_values = reads_values
        self.parameters = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.optional = frozenset(optional.split())
        self.updates, self.workspace, self.tickets = (frozenset(names.split()) for names in (updates, workspace, tickets))
        assert self.updates | self.workspace <= {*self.parameters[:outputs]} and self.tickets <= {*self.parameters}
        declared = [types.get(p, contract.T) for p in self.parameters]
        #: C type of each pointer: "T", "A" or a value of C_TYPES
        self.c_types = [C_TYPES.get(name, name) for name in declared]
        layouts = dict.fromkeys(rows.split(), "rows") | dict.fromkeys(strided.split(), "strided")
        self.contract = Contract(
            self.name,
            [
                contract.Parameter(p, as_dtype(d) if d in C_TYPES else d, layouts.get(p, "contiguous"), p in self.optional)
                for p, d in zip(self.parameters, declared)
            ],
        )
        self._is_valid_numpy = self.contract.is_valid_numpy
        self._geometry: Callable[..., Geometry] | None = None
        self.launch_loops: Callable[..., Loops | None] | None = None
        #: the kernels whose work on the first destination a launch can do itself, see :meth:`absorbs`
        self.absorbed: dict[Launchable, Callable[..., tuple[Any, ...] | None]] = {}
        #: how several launches become one, see :meth:`joins`
        self.join: Callable[[Sequence[Arguments]], tuple[Kernel, Arguments] | None] | None = None
        #: the kernels for whose launches a launch can wait, see :meth:`waits_for`
        self.awaited: dict[Launchable, Callable[[Arguments, Arguments], tuple[Kernel, Arguments] | None]] = {}

    @property
    def tracing(self) -> str:
        """How a captured step on the CPU runs it: as "loops", as the "calls" that the twin makes, or "opaque", as one call."""
        return "loops" if self.launch_loops else "calls" if self.traceable and not self.reads_values else "opaque"

    def geometry(self, function: Callable[..., Geometry]) -> Callable[..., Geometry]:
        """Decorator of the function that returns the :class:`Geometry` for given arrays and options."""
        self._geometry = function
        return function

    def loops(self, function: Callable[..., Loops | None]) -> Callable[..., Loops | None]:
        """Decorator of the function that returns how a compiled step runs a launch as loops, or None if it cannot.

        Only a twin that cannot be traced into NumPy calls needs it.  The arrays may be views of a recorded step
        (``gpunet.captured.ir.View``), which have a shape, a dtype and a size.
        """
        self.launch_loops = function
        return function

    def absorbs(self, follower: Kernel) -> Callable[[F], F]:
        """Decorator: declare that a launch can do the work of a launch of ``follower`` behind it, on its first destination.

        The decorated function takes the arrays and options of this launch, the arrays of the other, and whether the
        first destination is needed otherwise; it returns the arrays of the launch that replaces both, or None if there
        is none with the same bits.  The options of the other launch replace those of this one.
        """

        def register(function: F) -> F:
            self.absorbed[follower] = function
            return function

        return register

    def joins(self, function: F) -> F:
        """Decorator: declare that independent launches can be one launch, at the place of the last of them.

        The decorated function takes the arguments of the launches, in order, and returns the kernel and the arguments of the
        launch that replaces all, with the same bits, or None if they do not go together.  A :class:`Workspace` stands for an
        array that has to be allocated; the new launch uses no workspace and no tickets of the others.
        """
        self.join = function
        return function

    def waits_for(self, follower: Kernel) -> Callable[[F], F]:
        """Decorator: declare that a launch can be made at the place of a later launch of ``follower``, and do its work, too.

        The decorated function takes the arguments of this launch and of the other, and returns the kernel and the arguments of
        the launch that replaces both, or None if there is none with the same bits.
        """

        def register(function: F) -> F:
            self.awaited[follower] = function
            return function

        return register

    def launch_geometry(self, arrays: Sequence[Any], options: dict[str, Any]) -> Geometry:
        assert self._geometry is not None, f"kernel {self.name} has no geometry"
        return self._geometry(*arrays, **options)

    def __call__(self, *arrays: Any, **options: Any) -> None:
        recording = active.tape
        if recording is not None:
            recording.launch(self, arrays, options)
        elif self._is_valid_numpy(*arrays):
            self.twin(*arrays, **options)
        else:
            self.check(arrays)
            self.launch(arrays, options)

    def check(self, arrays: Sequence[Any]) -> None:
        """Check dtypes, contiguity and device of the arrays, see :class:`Contract`.

        Raises:
            LaunchError: an array violates the contract.
        """
        self.contract.check(arrays)

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        if type(first_array(arrays)) is ndarray:
            self.run_twin(arrays, options)
        else:
            self.launch_as(self.launch_geometry(arrays, options), arrays)

    def run_twin(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        """Run the twin on NumPy arrays, of halves on float32 copies of them."""
        if self.widens and halves.has_halves(arrays):
            with halves.widened(arrays, self.outputs) as arrays:
                self.twin(*arrays, **options)
        else:
            self.twin(*arrays, **options)

    def launch_as(self, geometry: Geometry, arrays: Sequence[Any]) -> None:
        """Launch the CUDA entry point with this geometry."""
        grid = geometry.grid if isinstance(geometry.grid, tuple) else (geometry.grid,)
        if 0 in grid:
            return  # an empty destination
        floating = self.floating(arrays)
        function = compiler.function(self.file, self.expression(floating, geometry), devices.of(first_array(arrays)))
        block = geometry.block if isinstance(geometry.block, tuple) else (geometry.block,)
        function(grid, block, self.pack(arrays, geometry), geometry.shared)

    def floating(self, arrays: Sequence[Any]) -> str:
        """Return the C name of ``T`` for these arrays."""
        storage = self.contract.storage(arrays)
        return "float" if storage is None else C_TYPES[storage.name]

    def expression(self, floating: str, geometry: Geometry) -> str:
        """Return the C++ name of the specialisation, e.g. ``linear_forward<float, Relu>``."""
        return f"{self.entry}<{', '.join((floating, *geometry.template))}>"

    def pack(self, arrays: Sequence[Any], geometry: Geometry) -> tuple[Any, ...]:
        """Return the arguments of the CUDA launch: pointers, then scalars."""
        return pack(self.name, arrays, geometry.scalars)


def kernel(
    file: str,
    *,
    outputs: int,
    types: dict[str, str] | None = None,
    optional: str = "",
    rows: str = "",
    strided: str = "",
    reads_values: bool = False,
    updates: str = "",
    workspace: str = "",
    tickets: str = "",
) -> Callable[[Callable[..., None]], Kernel]:
    """Decorator: make a :class:`Kernel` from its NumPy twin.

    Args:
        file: CUDA source in ``cuda_kernels/`` that defines the entry point, which has the twin's name.
        outputs: number of leading parameters that are written.
        types: dtypes of the parameters whose dtype is not the floating dtype ``T``; "A" is the accumulator of T.
        optional: names of the parameters that may be ``None``, separated by spaces.
        rows, strided: names of the parameters of these layouts (see :mod:`gpunet.launch.contract`), separated by spaces;
            the kernel takes their strides as scalars.
        reads_values: the NumPy calls of the twin depend on values (labels, indices, random words), so that it cannot be traced;
            a compiled step calls it, or runs its :meth:`Kernel.loops`.
        updates: names of the outputs that are read, then written.
        workspace: names of the outputs that are scratch of the CUDA kernel, without defined values before or after a launch.
        tickets: names of the parameters that count blocks of the CUDA kernel, zero before and after a launch.
    """

    def decorate(twin: Callable[..., None]) -> Kernel:
        made = Kernel(twin, file, outputs, types or {}, optional, rows, strided, reads_values, updates, workspace, tickets)
        KERNELS[made.name] = made
        return made

    return decorate


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elementwise_grid(count: int, block: int = 256, per_thread: int = 4) -> int:
    """Return the number of blocks of a grid-stride elementwise kernel.

    It depends on the number of elements only, not on the GPU, so that results do not depend on the GPU either.
    """
    return min(math.ceil(count / (block * per_thread)), 65535)
