"""A stand-in for CuPy: as much of its surface as gpunet uses, on NumPy's memory, with cards that are not there.

    with fake_cupy.installed(cards=2):
        model.to("cuda")            # gpunet's own path for a card, to the end: launches are run by the emulator

It proves our Python, and nothing of CuPy or of a card.  So that it proves that much, it refuses what CuPy refuses.  Taken
from CuPy's source (14; ``cupy/cuda/function.pyx``, ``_core/core.pyx``, ``_core/_kernel.pyx``) and documentation:

* a launch takes tuples for grid and block; an extent of zero becomes one;
* its arguments are cupy.ndarray, None, NumPy and Python numbers, and numpy.ndarray of one element, by value; others are a
  TypeError ("You are trying to pass a numpy.ndarray of shape ..." for those of more elements);
* more than 48 KB of dynamic shared memory must have been asked for by the attribute of the kernel, else the driver refuses;
* functions of arrays refuse NumPy arrays ("Unsupported type <class 'numpy.ndarray'>") and arrays of another card than the
  current ("Array device must be same as the current device", as without peer access); copying and views do not;
* an array does not become a NumPy array by itself (TypeError: "Implicit conversion ..."), and results that NumPy makes
  scalars are arrays without dimensions;
* ``base`` is the array that owns the memory;
* filling with -0.0 fills with 0.0;
* while a stream is captured, nothing runs: kernels and copies on cards become nodes of the graph; a copy to the host and a
  wait are errors (cudaErrorStreamCaptureUnsupported) that spoil the capture, and so is capturing the default stream;
* ``installed(asynchronous=True)``: kernels, graphs, and functions with a destination, run when the host waits for their
  stream, or a stream does that waits for an event behind them; not before.  A read waits for the current stream, no other.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy

from gpunet.backend import compiler, devices
from gpunet.launch import memory, random
from gpunet.launch.kernel import KERNELS
from tests.fake_streams import Cards as _Cards
from tests.fake_streams import Stream, not_while_capturing, run, wait

_NUMBERS = (bool, int, float, complex, numpy.generic)

#: Functions of NumPy that gpunet asks CuPy for; each of them is one of CuPy's, with these arguments.  Others are an
#: AttributeError here, so that what gpunet begins to use is looked up.
FUNCTIONS = (
    "abs absolute add all amax amin any arange arctan argmax argmin argsort array asarray ascontiguousarray broadcast_to ceil "
    "clip concatenate copyto cos cosh cumsum divide empty equal exp expm1 floor floor_divide full greater greater_equal isfinite "
    "isinf isnan less less_equal log log10 log1p log2 logical_and logical_not logical_or logical_xor matmul maximum minimum "
    "multiply negative not_equal ones power prod reciprocal remainder rint sign sin sinh sqrt square stack subtract sum take "
    "tan tanh tri trunc unique where zeros"
)
_OF_NO_KERNEL = ("array", "asarray", "ascontiguousarray", "copyto", "broadcast_to")  # any card, or a view


class Memory:
    """A piece of a card's memory, which arrays keep without keeping one another."""

    def __init__(self, array: numpy.ndarray, card: int) -> None:
        while isinstance(array.base, numpy.ndarray):
            array = array.base
        self._array, self.ptr, self.card = array, numpy.lib.array_utils.byte_bounds(array)[0], card

    @property
    def room(self) -> Any:
        """All of it, as a buffer that does not keep it."""
        return (ctypes.c_char * self._array.nbytes).from_address(self.ptr)


class MemoryPointer:
    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.card


class ndarray:
    """An array of a card."""

    __module__ = "cupy"
    __array_priority__ = 100.0

    _memory: numpy.ndarray
    _card: int
    base: ndarray | None
    _kept: Memory

    def __init__(self, shape: tuple[int, ...], dtype: Any, memptr: MemoryPointer, strides: tuple[int, ...] | None = None) -> None:
        self._memory = numpy.ndarray(shape, dtype, memptr.mem.room, memptr.ptr - memptr.mem.ptr, strides)
        self._card, self.base, self._kept = memptr.mem.card, None, memptr.mem

    @staticmethod
    def of(memory: numpy.ndarray, card: int, base: ndarray | None = None) -> ndarray:
        made = ndarray.__new__(ndarray)
        made._memory, made._card, made.base = memory, card, base
        return made

    @property
    def device(self) -> Any:
        return Device(self._card)

    @property
    def data(self) -> Any:
        mem = Memory(self._memory, self._card)
        return MemoryPointer(mem, self._memory.ctypes.data - mem.ptr)

    def get(self) -> numpy.ndarray:
        wait()
        return self._memory.copy(order="A")

    def item(self) -> Any:
        wait()
        return self._memory.item()

    def tolist(self) -> Any:
        wait()
        return self._memory.tolist()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        assert method == "__call__"
        return _launched(ufunc, inputs, options)

    def _view(self, memory: Any) -> ndarray:
        owner = self if self.base is None else self.base
        return ndarray.of(memory, self._card, owner if numpy.may_share_memory(memory, self._memory) else None)

    @property
    def T(self) -> ndarray:
        return self._view(self._memory.T)

    def __getitem__(self, index: Any) -> ndarray:
        if [*_indices(index)]:
            if _Cards.nodes is not None:
                return self._picked(index)
            Stream._current.run()
        found = self._memory[_memory_of(index)]
        if isinstance(found, numpy.generic):
            found = self._memory[(*(_memory_of(index) if isinstance(index, tuple) else (_memory_of(index),)), ...)]
        return self._view(found)

    def _picked(self, index: Any) -> ndarray:
        """The node that picks elements by arrays; CuPy waits for the number of those that a mask picks."""
        for array in _indices(index):
            if array.dtype == bool or isinstance(array, numpy.ndarray):
                not_while_capturing()
        items = index if isinstance(index, tuple) else (index,)
        zeros = tuple(numpy.zeros(i.shape, int) if isinstance(i, ndarray) else i for i in items)
        result = _on_card(numpy.empty(self._memory[zeros].shape, self.dtype))  # C-contiguous, as NumPy's need not be
        run(lambda: numpy.copyto(result._memory, self._memory[_memory_of(items)]))
        return result

    def __setitem__(self, index: Any, value: Any) -> None:
        _check([self, value])
        for array in _indices(index):
            if array.dtype == bool:
                not_while_capturing()
        value = _filling(value)
        run(lambda: self._memory.__setitem__(_memory_of(index), _memory_of(value)))

    def fill(self, value: Any) -> None:
        _launched(numpy.ndarray.fill, (self, _filling(value)), {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._memory, name)
        if not callable(found):
            return found
        if name in ("reshape", "transpose", "swapaxes", "squeeze", "ravel", "view"):
            return lambda *inputs, **options: self._view(found(*inputs, **options))
        return lambda *inputs, **options: _launched(getattr(numpy.ndarray, name), (self, *inputs), options)

    __hash__ = None  # type: ignore[assignment]
    __len__ = lambda self: len(self._memory)  # noqa: E731
    __bool__ = lambda self: bool(self.item())  # noqa: E731
    __int__ = lambda self: int(self.item())  # noqa: E731
    __float__ = lambda self: float(self.item())  # noqa: E731
    __index__ = lambda self: self.item().__index__()  # noqa: E731


def _operator(name: str) -> Any:
    return lambda self, *inputs: _launched(getattr(numpy.ndarray, name), (self, *inputs), {})


_OPERATORS = (
    "add sub mul truediv floordiv mod pow and or xor radd rsub rmul rtruediv rpow iadd isub imul itruediv eq ne lt le gt ge "
    "neg invert abs matmul"
)
for _name in _OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _memory_of(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._memory
    if type(value) in (tuple, list):
        return type(value)(map(_memory_of, value))
    return value


def _arrays(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (ndarray, numpy.ndarray)):
            yield value
        elif type(value) in (tuple, list):
            yield from _arrays(value)


def _filling(value: Any) -> Any:
    return abs(value) if isinstance(value, (float, numpy.floating)) and value == 0 else value


def _indices(index: Any) -> Iterator[Any]:
    return _arrays(index if isinstance(index, tuple) else (index,))


def _check(values: Any) -> None:
    """What every kernel of CuPy checks of its arrays."""
    for array in _arrays(values):
        if isinstance(array, numpy.ndarray):
            raise TypeError(f"Unsupported type {type(array)}")
        if array._card != _Cards.current:
            raise ValueError(
                "Array device must be same as the current device: "
                f"array device = {array._card} while current = {_Cards.current}"
            )


def _on_card(result: Any) -> Any:
    if isinstance(result, (numpy.ndarray, numpy.generic)):
        return ndarray.of(numpy.asarray(result), _Cards.current)
    if type(result) in (tuple, list):
        return type(result)(map(_on_card, result))
    return result


def _launched(function: Any, inputs: Any, options: dict[str, Any]) -> Any:
    _check([*inputs, *options.values()])
    memories = _memory_of(inputs), {name: _memory_of(value) for name, value in options.items()}

    def node() -> Any:
        return function(*memories[0], **memories[1])

    in_place = function is numpy.ndarray.fill or getattr(function, "__name__", "").startswith("__i")
    if in_place or options.get("out") is not None:
        run(node)
        return inputs[0] if in_place else options["out"]
    if _Cards.nodes is not None:
        captured = _on_card(node())  # for its shape
        run(lambda: numpy.copyto(captured._memory, node()))
        return captured
    Stream._current.run()
    _Cards.enqueued += 1
    result = function(*_memory_of(inputs), **{name: _memory_of(value) for name, value in options.items()})
    for given in (options.get("out"), *inputs[:1]):  # what was computed in place is the same array afterwards
        given = given[0] if isinstance(given, tuple) and given else given
        if isinstance(given, ndarray) and given._memory is result:
            return given
    if (
        isinstance(result, numpy.ndarray)
        and inputs
        and isinstance(inputs[0], ndarray)
        and result.base is inputs[0]._memory
    ):
        return inputs[0]._view(result)
    return _on_card(result)


# ---- cupy.cuda ----------------------------------------------------------------------------------------------------------


class Device:
    def __init__(self, index: int | None = None) -> None:
        self.id = _Cards.current if index is None else int(index)

    compute_capability = "90"

    def __enter__(self) -> Device:
        self._before, _Cards.current = _Cards.current, self.id
        return self

    def __exit__(self, *_: Any) -> None:
        _Cards.current = self._before


class CUDADriverError(RuntimeError):
    """The driver refuses."""


class CUDARuntimeError(RuntimeError):
    """The runtime refuses."""


class RawModule:
    def __init__(self, *, path: str) -> None:
        self._cubin = Path(path).read_bytes()
        assert self._cubin[:4] == b"\x7fELF", "a module is machine code"

    def get_function(self, name: str) -> Function:
        if name.encode() not in self._cubin:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return Function(name)


class Function:
    """A kernel by its name in the machine code; the emulator runs it from its source."""

    shared_size_bytes = 0

    def __init__(self, name: str) -> None:
        plain = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
        expression = plain.removeprefix("void ")
        depth = 0
        for at, letter in enumerate(expression):  # the parameters begin at the first parenthesis outside of <>
            depth += (letter == "<") - (letter == ">")
            if letter == "(" and not depth:
                expression = expression[:at]
                break
        kernel = KERNELS[expression.partition("<")[0]]
        self._emulated = compiler._loaders["emulated"](kernel.file, expression, devices.Device("emulated"))
        self._entry, self._card, self._most_shared = kernel.name, _Cards.current, 48 << 10

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, shared_mem: int = 0) -> None:
        assert type(grid) is tuple and type(block) is tuple, "CuPy declares them as tuples"
        if shared_mem > self._most_shared or self._card != _Cards.current:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        arguments = [self._argument(a) for a in args]
        run(lambda: self._launch(tuple(max(1, n) for n in grid), tuple(max(1, n) for n in block), arguments, shared_mem))

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if value > 232448:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._most_shared = value

    def _launch(self, *launch: Any) -> None:
        _Cards.launches.append(self._entry)
        self._emulated(*launch)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, ndarray):
            assert value._card == self._card, "an illegal address, or the slow way through another card's memory"
            return value._memory
        if isinstance(value, numpy.ndarray):
            if value.size != 1:
                raise TypeError(f"You are trying to pass a numpy.ndarray of shape {value.shape} as a kernel parameter.")
            return value
        if value is not None and not isinstance(value, _NUMBERS):
            raise TypeError(f"Unsupported type {type(value)}")
        return value


def _malloc_managed(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(numpy.empty(size, numpy.uint8), _Cards.current), 0)


def _cuda(count: Any) -> ModuleType:
    cuda = ModuleType("cupy.cuda")
    properties = {"name": b"NVIDIA Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 141 * 10**9}
    contents = {
        "Device": Device, "MemoryPointer": MemoryPointer, "malloc_managed": _malloc_managed, "Stream": Stream,
        "get_current_stream": lambda device_id=-1: Stream._current,
        "MemoryPool": lambda: SimpleNamespace(malloc=None), "using_allocator": lambda malloc: contextlib.nullcontext(),
        "runtime": SimpleNamespace(
            getDeviceCount=count, getDevice=lambda: _Cards.current, getDeviceProperties=lambda index: dict(properties),
            driverGetVersion=lambda: 13000, CUDARuntimeError=CUDARuntimeError,
        ),
    }  # fmt: skip
    vars(cuda).update(contents)
    return cuda


# ---- cupy ---------------------------------------------------------------------------------------------------------------


class _Cupy(ModuleType):
    """The module itself: NumPy's functions, on arrays of cards."""

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS.split():
            raise AttributeError(f"module 'cupy' has no attribute {name!r} (of those in tests/fake_cupy.py)")
        function = getattr(numpy, name)

        def call(*inputs: Any, **options: Any) -> Any:
            if name == "broadcast_to":
                return inputs[0]._view(function(_memory_of(inputs[0]), *inputs[1:]))
            if name == "copyto":
                memories = _memory_of(inputs), {key: _memory_of(value) for key, value in options.items()}
                return run(lambda: numpy.copyto(*memories[0], **memories[1]))
            if name in _OF_NO_KERNEL:
                if isinstance(inputs[0], ndarray):
                    Stream._current.run()
                _check(options.values())
                result = function(*_memory_of(inputs), **{key: _memory_of(value) for key, value in options.items()})
                unchanged = (
                    isinstance(inputs[0], ndarray) and inputs[0]._memory is result and inputs[0]._card == _Cards.current
                )
                return inputs[0] if unchanged else _on_card(result if result is None else numpy.array(result))
            return _launched(function, inputs, options)

        return call


def _forget() -> None:
    """Nothing that was found, loaded or placed on a card outlives it."""
    for cached in (devices.cuda_status, devices.cupy, devices._gpu, devices._cupy_on_gpu):
        cached.cache_clear()
    compiler._functions.clear()
    memory._tickets.clear()
    states = random.default_generator._states
    for where in [where for where in states if where.type == "cuda"]:
        del states[where]


@contextlib.contextmanager
def installed(cards: int = 1, failure: Exception | None = None, asynchronous: bool = False) -> Iterator[ModuleType]:
    """``import cupy`` finds the stand-in meanwhile, on a machine of so many cards, or whose driver raises ``failure``.

    Args:
        asynchronous: nothing that has a destination runs before it is waited for.
    """

    def count() -> int:
        if failure is not None:
            raise failure
        return cards

    cupy = _Cupy("cupy")
    vars(cupy).update(__version__="14.2.0", ndarray=ndarray, RawModule=RawModule, cuda=_cuda(count), __path__=[])
    # what replaces a ufunc of CuPy's computes as NumPy's, as those of this stand-in do
    cupy._core = SimpleNamespace(create_ufunc=lambda name, *_, **options: getattr(cupy, name.removeprefix("gpunet_")))
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    before = {name: sys.modules.get(name) for name in ("cupy", "cupy.cuda")}
    _Cards.count, _Cards.current, _Cards.launches = cards, 0, []
    _Cards.asynchronous, Stream._current = asynchronous, Stream(default=True)
    _forget()
    sys.modules |= {"cupy": cupy, "cupy.cuda": cupy.cuda}
    try:
        yield cupy
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        _forget()
