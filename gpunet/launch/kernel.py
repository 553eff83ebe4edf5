"""The launch seam.  A :class:`Kernel` is one launch: a CUDA entry point and its NumPy twin.

The contract, for every kernel:

* destinations come first, then what is saved for backward, then inputs; options are keywords;
* **a launch never allocates and never returns a value**: ops allocate, then launch;
* arrays are C-contiguous, on one device, and of one floating dtype ``T``, save where ``types`` says otherwise;
* ``None`` stands for an array that this specialisation does not use.

So a recorded step is a list of launches, and it can be replayed, planned or turned into a CUDA graph.

    @kernel("linear.cu", outputs=2)
    def linear_forward(y, z, x, w, b, *, activation, alpha):   # the twin; its name is the CUDA entry point
        ...
    @linear_forward.geometry                                    # how the CUDA entry point is launched
    def _(y, z, x, w, b, *, activation, alpha):
        return Geometry(grid=..., block=256, scalars=(n, o, i, alpha), template=(...))

The CUDA entry is ``template <class T, ...> __global__ void linear_forward(T* y, T* z, const T* x, ...)``: the pointers
in the twin's order and with the twin's names, ``const`` for inputs, then the scalars.  A test holds the two together.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

import gpunet.emulator  # noqa: F401  it registers itself as a loader of functions
from gpunet.backend import compiler, cuda_sources, devices
from gpunet.backend.dtypes import C_TYPES
from gpunet.launch.contract import Contract, first_array
from gpunet.launch.launchable import Launchable
from gpunet.launch.packing import pack
from gpunet.launch.tape import active

#: Every CUDA kernel of ours by name, for the tests that compile and compare them all.
KERNELS: dict[str, Kernel] = {}


class Geometry(NamedTuple):
    """How a CUDA entry point is launched.

    ``scalars`` follow the pointers: a Python int becomes a C ``int`` (an error when it does not fit), a float a
    ``double``, a NumPy scalar or a one-element structured array is passed as it is.  ``template`` are the template
    arguments after ``T``.
    """

    grid: int | tuple[int, ...]
    block: int | tuple[int, ...]
    scalars: tuple[Any, ...] = ()
    template: tuple[str, ...] = ()
    shared: int = 0


class Kernel(Launchable):
    """One launch: a CUDA entry point and its NumPy twin.  Made by :func:`kernel`."""

    traceable = True  #: whether a replay may call what the twin calls, instead of the twin

    def __init__(
        self,
        twin: Callable[..., None],
        file: str | cuda_sources.Source,
        outputs: int,
        types: dict[str, str],
        optional: str,
        strided: str,
    ) -> None:
        parameters = inspect.signature(twin).parameters.values()
        self.twin = twin
        self.name = self.entry = twin.__name__
        self.__doc__ = twin.__doc__
        self.file = file
        self.outputs = outputs
        self.parameters = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.optional = frozenset(optional.split())
        #: C type of each pointer: "T" or one of C_TYPES' values.
        self.c_types = [C_TYPES[types[p]] if p in types else "T" for p in self.parameters]
        dtypes = [numpy.dtype(types[p]) if p in types else None for p in self.parameters]
        self.contract = Contract(self.name, self.parameters, dtypes, self.optional, frozenset(strided.split()))
        self._holds_for_numpy = self.contract.holds_for_numpy
        self._geometry: Callable[..., Geometry] | None = None

    def geometry(self, function: Callable[..., Geometry]) -> Callable[..., Geometry]:
        """Decorator: how the CUDA entry point is launched for given arrays and options."""
        self._geometry = function
        return function

    def launch_geometry(self, arrays: Sequence[Any], options: dict[str, Any]) -> Geometry:
        assert self._geometry is not None, f"kernel {self.name} has no geometry"
        return self._geometry(*arrays, **options)

    def __call__(self, *arrays: Any, **options: Any) -> None:
        recording = active.tape
        if recording is not None:
            recording.launch(self, arrays, options)
        elif self._holds_for_numpy(*arrays):
            self.twin(*arrays, **options)
        else:
            self.check(arrays)
            self.launch(arrays, options)

    def check(self, arrays: Sequence[Any]) -> None:
        """Hold the arrays to the contract.

        Raises:
            LaunchError: which argument, what it is and what it must be.
        """
        self.contract.check(arrays)

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        first = first_array(arrays)
        if type(first) is ndarray:
            self.twin(*arrays, **options)
            return
        self.launch_as(self.launch_geometry(arrays, options), arrays)

    def launch_as(self, geometry: Geometry, arrays: Sequence[Any]) -> None:
        """Launch the CUDA entry point with this geometry."""
        grid = geometry.grid if isinstance(geometry.grid, tuple) else (geometry.grid,)
        if 0 in grid:
            return  # nothing to compute: an empty destination
        floating = self.floating(arrays)
        function = compiler.function(self.file, self.expression(floating, geometry), devices.of(first_array(arrays)))
        block = geometry.block if isinstance(geometry.block, tuple) else (geometry.block,)
        function(grid, block, self.pack(arrays, geometry), geometry.shared)

    def floating(self, arrays: Sequence[Any]) -> str:
        """C name of ``T`` for these arrays."""
        for array, expected in zip(arrays, self.contract.dtypes):
            if array is not None and expected is None:
                return C_TYPES[array.dtype.name]
        return "float"

    def expression(self, floating: str, geometry: Geometry) -> str:
        """The C++ name of the specialisation, e.g. ``linear_forward<float, Relu>``."""
        return f"{self.entry}<{', '.join((floating, *geometry.template))}>"

    def pack(self, arrays: Sequence[Any], geometry: Geometry) -> tuple[Any, ...]:
        """The arguments of the CUDA launch: pointers, then scalars."""
        return pack(self.name, arrays, geometry.scalars)


def kernel(
    file: str,
    *,
    outputs: int,
    types: dict[str, str] | None = None,
    optional: str = "",
    strided: str = "",
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a :class:`Kernel` of a NumPy twin.

    Args:
        file: the CUDA source in ``cuda_kernels/`` that holds the entry point of the twin's name.
        outputs: how many of the leading parameters are written.
        types: dtypes of the parameters that are not of the floating dtype ``T``.
        optional: names of the parameters that may be ``None``, separated by blanks.
        strided: names of the parameters that need not be contiguous: the kernel takes their strides as scalars.
    """

    def decorate(twin: Callable[..., None]) -> Kernel:
        made = Kernel(twin, file, outputs, types or {}, optional, strided)
        KERNELS[made.name] = made
        return made

    return decorate


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elementwise_grid(count: int, block: int = 256, per_thread: int = 4) -> int:
    """Blocks of a grid-stride elementwise kernel.  A function of the size alone: results never depend on the card."""
    return min(math.ceil(count / (block * per_thread)), 65535)
