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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy

import gpunet.emulator  # noqa: F401  it registers itself as a loader of functions
from gpunet.backend import compiler, cuda_sources, devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import C_TYPES, FLOATING
from gpunet.errors import DtypeError, LaunchError
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.tape import active

ndarray = numpy.ndarray

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


class Launchable:
    """What a tape records: something called with arrays, destinations first, and options."""

    name: str
    outputs = 1  # how many of the arrays are destinations
    lists = 0  # how many of the leading arguments are lists of arrays

    def __call__(self, *arrays: Any, **options: Any) -> None:
        """Check the arrays, launch, and record the launch when a tape is recording."""
        recording = active.tape
        if recording is None:
            self.check(arrays)
            self.launch(arrays, options)
        else:
            recording.launch(self, arrays, options)

    def check(self, arrays: Sequence[Any]) -> None:
        raise NotImplementedError

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        """Launch without checks: what a replay does."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _first(arrays: Sequence[Any]) -> Any:
    """The first array that is there: an optional destination may come before it."""
    first = arrays[0]
    return first if first is not None else next(a for a in arrays if a is not None)


def _contract_of_numpy_arrays(contract: Sequence[tuple[Any, bool, bool]]) -> Callable[..., bool]:
    """A function of the arrays: True for NumPy's that keep the contract; of all others :meth:`Kernel.check` decides.

    It is one expression, compiled once for each kernel: a loop over the arguments takes three times as long, and this is
    the inner loop of an eager step on the CPU.
    """
    names = [f"a{index}" for index in range(len(contract))]
    space: dict[str, Any] = {"ndarray": ndarray, "FLOATING": FLOATING}
    terms: list[str] = []
    knows_t = False
    for name, (expected, may_be_none, strided) in sorted(zip(names, contract), key=lambda item: item[1][1]):
        term = f"type({name}) is ndarray" + ("" if strided else f" and {name}.flags.c_contiguous")
        if expected is not None:
            space[expected.name] = expected
            term += f" and {name}.dtype is {expected.name}"
        elif knows_t:
            term += f" and {name}.dtype is T"
        elif may_be_none:  # nothing that is always there tells T
            return lambda *arrays: False
        else:
            term, knows_t = f"{term} and (T := {name}.dtype) in FLOATING", True
        terms.append(f"({name} is None or {term})" if may_be_none else term)
    return eval(f"lambda {', '.join(names)}: {' and '.join(terms)}", space)


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
        self._dtypes = [numpy.dtype(types[p]) if p in types else None for p in self.parameters]
        self._contract = [
            (dtype, p in self.optional, p in strided.split()) for p, dtype in zip(self.parameters, self._dtypes)
        ]
        self._keeps_contract = _contract_of_numpy_arrays(self._contract)
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
        elif self._keeps_contract(*arrays):
            self.twin(*arrays, **options)
        else:
            self.check(arrays)
            self.launch(arrays, options)

    def check(self, arrays: Sequence[Any]) -> None:
        """Hold the arrays to the contract.

        Raises:
            LaunchError: which argument, what it is and what it must be.
        """
        self._check(arrays, self._contract)

    def _check(self, arrays: Sequence[Any], contract: Sequence[tuple[Any, bool, bool]]) -> None:
        kind = type(_first(arrays))
        floating = None
        for array, (expected, may_be_none, strided) in zip(arrays, contract, strict=True):
            if array is None:
                if not may_be_none:
                    self._reject(arrays)
                continue
            if type(array) is not kind or not (strided or array.flags.c_contiguous):
                self._reject(arrays)
            if expected is not None:
                if array.dtype is not expected and array.dtype != expected:
                    self._reject(arrays)
            elif floating is None:
                floating = array.dtype
                if floating not in FLOATING:
                    self._reject(arrays)
            elif array.dtype is not floating and array.dtype != floating:
                self._reject(arrays)
        if kind is not ndarray and kind is not devices.EmulatedArray:
            self._check_cards(zip(self.parameters, arrays))

    def _check_cards(self, named: Iterable[tuple[str, Any]]) -> None:
        cards = {name: array.data.device_id for name, array in named if array is not None}
        if len(set(cards.values())) > 1:
            raise LaunchError(
                f"launch of {self.name}: arrays on different cards ({', '.join(f'{n} on cuda:{i}' for n, i in cards.items())}); "
                "move them to one"
            )

    def _reject(self, arrays: Sequence[Any]) -> None:
        floating: Any = next((a.dtype for a, d in zip(arrays, self._dtypes) if a is not None and d is None), None)
        if floating not in FLOATING:
            floating = "float32 or float64"
        for name, array, expected in zip(self.parameters, arrays, self._dtypes):
            what = f"launch of {self.name}: argument {name!r}"
            if array is None:
                if name not in self.optional:
                    raise LaunchError(f"{what} is None, expected an array")
                continue
            if type(array) is not type(_first(arrays)):
                raise LaunchError(
                    f"{what} is a {type(array).__name__}, the first array a {type(_first(arrays)).__name__}: all arrays "
                    "of a launch live on one device"
                )
            if array.dtype != (floating if expected is None else expected):
                raise LaunchError(
                    f"{what} has dtype {array.dtype}, expected {floating if expected is None else expected}"
                )
            if not array.flags.c_contiguous:
                raise LaunchError(f"{what} of shape {array.shape} is not C-contiguous; pass a contiguous copy")

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        first = _first(arrays)
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
        function = compiler.function(self.file, self.expression(floating, geometry), devices.of(_first(arrays)))
        block = geometry.block if isinstance(geometry.block, tuple) else (geometry.block,)
        function(grid, block, self.pack(arrays, geometry), geometry.shared)

    def floating(self, arrays: Sequence[Any]) -> str:
        """C name of ``T`` for these arrays."""
        for array, expected in zip(arrays, self._dtypes):
            if array is not None and expected is None:
                return C_TYPES[array.dtype.name]
        return "float"

    def expression(self, floating: str, geometry: Geometry) -> str:
        """The C++ name of the specialisation, e.g. ``linear_forward<float, Relu>``."""
        return f"{self.entry}<{', '.join((floating, *geometry.template))}>"

    def pack(self, arrays: Sequence[Any], geometry: Geometry) -> tuple[Any, ...]:
        """The arguments of the CUDA launch: pointers, then scalars."""
        return (*(NULL if a is None else a for a in arrays), *map(self._scalar, geometry.scalars))

    def _scalar(self, value: Any) -> Any:
        if type(value) is int:
            if not -(2**31) <= value < 2**31:
                raise LaunchError(
                    f"launch of {self.name}: size {value} does not fit 32 bits; split the tensor along its first dimension"
                )
            return numpy.int32(value)
        return numpy.float64(value) if type(value) is float else value


NULL = numpy.uint64(0)


def kernel(
    file: str,
    *,
    outputs: int,
    types: dict[str, str] | None = None,
    optional: str = "",
    strided: str = "",
    lists: int = 0,
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a :class:`Kernel` of a NumPy twin.

    Args:
        file: the CUDA source in ``cuda_kernels/`` that holds the entry point of the twin's name.
        outputs: how many of the leading parameters are written.
        types: dtypes of the parameters that are not of the floating dtype ``T``.
        optional: names of the parameters that may be ``None``, separated by blanks.
        lists: how many of the leading parameters are lists of arrays (see :class:`ListKernel`).
        strided: names of the parameters that need not be contiguous: the kernel takes their strides as scalars.
    """

    def decorate(twin: Callable[..., None]) -> Kernel:
        if lists:
            made: Kernel = ListKernel(twin, file, outputs, types or {}, lists, optional)
        else:
            made = Kernel(twin, file, outputs, types or {}, optional, strided)
        KERNELS[made.name] = made
        return made

    return decorate


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
        super().__init__(twin, file, outputs, types, optional, "")
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
        if not self._keeps_contract(*[a and a[0] for a in lists], *arrays[self.lists :]):
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
        self._check([*heads, *arrays[self.lists :]], self._contract)
        for name, head, others in zip(self.parameters, heads, arrays):
            for index, other in enumerate(others or ()):
                if type(other) is not type(head) or other.dtype != head.dtype or not other.flags.c_contiguous:
                    strided = "" if other.flags.c_contiguous else " that is not C-contiguous"
                    raise LaunchError(
                        f"launch of {self.name}: tensor {index} of {name!r} is a {type(other).__name__} of {other.dtype}"
                        f"{strided}; expected a contiguous {type(head).__name__} of {head.dtype} like the first"
                    )
            if head is not None and not isinstance(head, ndarray):
                self._check_cards((f"{name}[{index}]", other) for index, other in enumerate(others))

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


class Shim(Launchable):
    """A launch that NumPy and CuPy spell the same way: ``function(xp, destination, *inputs, **options)``.

    Inputs may be strided, of any dtype, or Python scalars; only the destination's device is checked against theirs.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def check(self, arrays: Sequence[Any]) -> None:
        kind = type(arrays[0])
        for array in arrays:
            if type(array) is not kind and devices.is_array(array):
                raise LaunchError(
                    f"launch of {self.name}: got a {type(array).__name__} beside a {kind.__name__}: all arrays of a "
                    "launch live on one device"
                )

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        if type(arrays[0]) is ndarray:
            self.function(numpy, *arrays, **options)
        else:
            with devices.current(arrays[0]):
                self.function(devices.module(arrays[0]), *arrays, **options)


class Ufunc(Shim):
    """A universal function of NumPy and CuPy by its name: ``ADD(out, a, b)`` is ``numpy.add(a, b, out=out)``."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self._call)
        self.numpy_function = getattr(numpy, name)

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        out, *inputs = arrays
        if type(out) is ndarray:
            try:
                self.numpy_function(*inputs, out=out, **options)
            except (TypeError, OverflowError) as error:
                raise self._refused(inputs, error) from None
        else:
            with devices.current(out):
                self._call(devices.module(out), out, *inputs, **options)

    def _call(self, xp: Any, out: Array, *inputs: Any, **options: Any) -> None:
        try:
            getattr(xp, self.name)(*inputs, out=out, **options)
        except (TypeError, OverflowError) as error:
            raise self._refused(inputs, error) from None

    def _refused(self, inputs: Sequence[Any], error: Exception) -> DtypeError:
        taken = " and ".join(f"a tensor of {x.dtype}" if devices.is_array(x) else repr(x) for x in inputs)
        return DtypeError(f"{self.name} of {taken}: {error}; convert with .to(dtype) first")


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elementwise_grid(count: int, block: int = 256, per_thread: int = 4) -> int:
    """Blocks of a grid-stride elementwise kernel.  A function of the size alone: results never depend on the card."""
    return min(math.ceil(count / (block * per_thread)), 65535)
