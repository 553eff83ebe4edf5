"""From launches to calls: run the NumPy twins on arrays that write down what is done to them, and do nothing.

A twin is a few calls of NumPy.  Run on a :class:`TracedArray`, each call is noted with its views and not carried out, so
a recorded step becomes one flat list of calls, and Python's share of a replay is one call a call.  A twin that looks at
values (labels, random words) cannot be noted; it is called as a whole, and so is a user's, which may do anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.backend.devices import Array
from gpunet.captured.ir import Buffer, Call, View, tree_leaves, tree_map
from gpunet.captured.merge import span
from gpunet.errors import GpunetError
from gpunet.launch import memory
from gpunet.launch.kernel import Kernel
from gpunet.launch.launchable import Launchable
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import Launch

ndarray = numpy.ndarray


class Untraceable(GpunetError):
    """A twin did what cannot be noted."""


class _Current(threading.local):
    trace: Trace | None = None


_current = _Current()


def owner_of(array: Array) -> Array:
    """The array whose memory this one is a view of."""
    while isinstance(array.base, (ndarray, type(array))):
        array = array.base
    return array


def address(array: ndarray) -> int:
    return int(array.__array_interface__["data"][0])


class Trace:
    """Makes calls of launches, and the buffers that they are on."""

    def __init__(self, whole: bool = False, homes: dict[int, ndarray] | None = None) -> None:
        self.whole = whole  # twins don't walk in chunks
        self._homes = homes or {}
        self.buffers: list[Buffer] = []
        self.calls: list[Call] = []
        self._numbers: dict[int, int] = {}  # buffer of an owner, by id
        self._constants: list[ndarray] = []  # that the twin of this launch made for itself
        self._launch = 0

    def buffer(self, owner: ndarray, temporary: bool = False) -> int:
        if id(owner) not in self._numbers:
            home = self._homes.get(id(owner), owner)
            if home is owner:
                self._numbers[id(owner)] = len(self.buffers)
                self.buffers.append(Buffer(owner, temporary))
            else:
                self._numbers[id(owner)] = self.buffer(home)
        return self._numbers[id(owner)]

    def view(self, array: ndarray) -> View:
        """Where an array lies."""
        owner = owner_of(array)
        if type(array) is TracedArray and id(owner) not in self._numbers:
            raise Untraceable  # a copy that NumPy made unseen
        if id(owner) not in self._numbers:
            self._constants.append(array)
        number = self.buffer(owner)
        return View(number, address(array) - address(self.buffers[number].array), array.shape, array.strides, array.dtype)

    def traced(self, array: ndarray) -> ndarray:
        self.buffer(owner_of(array))
        return array.view(TracedArray)

    def temporary(self, array: ndarray) -> ndarray:
        """An array that a twin makes or takes from scratch."""
        self.buffer(array, temporary=True)
        return array.view(TracedArray)

    # -- launches
    def launch(self, launch: Launch) -> None:
        kernel, arrays, options = launch.kernel, launch.arrays, launch.options
        start = len(self.calls)
        arguments, settings = tree_map((arrays, options), self.traced, ndarray)
        self._constants.clear()
        try:
            self._run(kernel, arguments, settings)
            if self._constants:
                self._check_constants(launch)
        except (Untraceable, IndexError):  # an index that the step has changed since may be out of range
            del self.calls[start:]
            self._opaque(kernel, arrays, options)
        for constant in self._constants:
            self.buffers[self.buffer(owner_of(constant))].constant = True
        self._launch += 1

    def _check_constants(self, launch: Launch) -> None:
        """Make sure that what a twin made for itself does not depend on the arrays' values: make it from other values.

        Raises:
            Untraceable: it does.
        """
        for value in (0, 1):
            other = Trace(self.whole)

            def filled(array: ndarray, trace: Trace = other, value: int = value) -> ndarray:
                return trace.temporary(numpy.full(array.shape, value, array.dtype))

            arrays, options = tree_map((launch.arrays, launch.options), filled, ndarray)
            try:
                other._run(launch.kernel, arrays, options)
            except (IndexError, ValueError):  # an index out of range
                raise Untraceable from None
            mine, theirs = ([(a.shape, a.tobytes()) for a in t._constants] for t in (self, other))
            if mine != theirs:
                raise Untraceable

    def _run(self, kernel: Launchable, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
        _current.trace = self
        try:
            with memory.scratch_allocator(self.temporary, self.whole):
                self._note(kernel, arguments, settings)
        finally:
            _current.trace = None

    @staticmethod
    def _note(kernel: Launchable, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
        if isinstance(kernel, Kernel) and kernel.traceable:
            kernel.twin(*arguments, **settings)
        elif isinstance(kernel, Ufunc):
            kernel.numpy_function(*arguments[1:], out=arguments[0], **settings)
        elif isinstance(kernel, Shim):
            kernel.function(numpy, *arguments, **settings)
        else:
            raise Untraceable

    def _opaque(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        arguments, settings = tree_map((arrays, options), self.view, ndarray)
        function: Callable[..., Any] = kernel.twin if isinstance(kernel, Kernel) and kernel.traceable else _Function(kernel)
        everything, written = list(tree_leaves((arguments, settings))), list(tree_leaves(arguments[: kernel.outputs]))
        self.note("opaque", function, arguments, settings, everything, written, True)

    def note(self, *call: Any) -> None:
        """Note a :class:`Call` by what it is made of, up to ``partial``."""
        noted = Call(*call)
        noted.launch = self._launch
        self.calls.append(noted)

    # -- what a traced array reports
    def noted(self, kind: str, function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any], out: Any) -> None:
        """Note a call whose result goes to ``out``, which is the argument of that name in ``options``."""
        inputs = tree_map(tuple(arguments), self.view, ndarray)
        settings = tree_map(options, self.view, ndarray)
        target = self.view(out)
        partial = options.get("where", True) is not True
        reads = [*tree_leaves(inputs), *tree_leaves({k: v for k, v in settings.items() if k != "out"})]
        self.note(kind, function, inputs, {**settings, "out": target}, reads, [target], partial)

    def assign(self, function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any], result: ndarray) -> Any:
        """Note a call that makes a new array: at a replay it is copied to where the first one is."""
        out = self.temporary(result)
        inputs, settings = tree_map((tuple(arguments), options), self.view, ndarray)
        target = self.view(out)
        call = _Assign(function)
        self.note("opaque", call, (target, *inputs), settings, list(tree_leaves((inputs, settings))), [target])
        return out


class _Function:
    """A shim, called as a whole."""

    def __init__(self, kernel: Launchable) -> None:
        self.kernel = kernel
        self.__name__ = f"launch_{kernel.name}"  # no name of ours: it may be an op of a user

    def __call__(self, *arrays: Any, **options: Any) -> None:
        self.kernel.launch(arrays, options)


class _Assign:
    """``out[...] = function(...)``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = function.__name__

    def __call__(self, out: ndarray, *arguments: Any, **options: Any) -> None:
        out[...] = self.function(*arguments, **options)


def take_items(array: ndarray, index: Any) -> Any:
    return array[index]


def put_items(array: ndarray, index: Any, value: Any) -> None:
    array[index] = value


def _plain(value: Any) -> Any:
    return tree_map(value, lambda a: a.view(ndarray), TracedArray)


def _noting() -> Trace:
    if _current.trace is None:
        raise Untraceable
    return _current.trace


_VIEWS = ("reshape", "swapaxes", "transpose", "view", "squeeze", "diagonal")
#: What NumPy's functions of an array and an axis call in the end.
_REDUCTIONS: dict[Any, numpy.ufunc] = {
    numpy.sum: numpy.add, numpy.prod: numpy.multiply, numpy.amax: numpy.maximum, numpy.amin: numpy.minimum
}  # fmt: skip
_HARMLESS = (numpy.shape, numpy.ndim, numpy.size, numpy.result_type)


class TracedArray(ndarray):
    """A view of an array of the recording; what is done to it is noted in the running trace, and not done."""

    def __array_ufunc__(self, ufunc: numpy.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        trace = _noting()
        if method == "__call__":
            function: Callable[..., Any] = ufunc
            kind = "elementwise" if ufunc.signature is None else "product"
        elif method == "reduce":
            function, kind = ufunc.reduce, "reduce"
        else:
            raise Untraceable
        if ufunc.nout != 1:
            raise Untraceable
        if isinstance(options.get("axis"), numpy.ndarray):
            raise Untraceable
        if out is None:
            # the result of a call on the recording's own values: only its shape and dtype count
            result = numpy.asarray(function(*_plain(inputs), **_plain(options)))
            out = trace.temporary(result.copy() if result.base is not None else result)
        else:
            out = out[0]
        trace.noted(kind, function, inputs, options, out)
        return out

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        trace = _noting()
        if function is numpy.copyto:
            out, source = arguments
            inputs, target = tree_map(source, trace.view, ndarray), trace.view(out)
            settings = tree_map(options, trace.view, ndarray)
            partial = options.get("where", True) is not True
            reads = [*tree_leaves((inputs,)), *tree_leaves(settings)]
            trace.note("copy", numpy.copyto, (target, inputs), settings, reads, [target], partial)
            return None
        if function in _HARMLESS:
            return function(*_plain(arguments), **_plain(options))
        if function in _REDUCTIONS and options.get("out") is not None:
            reduced = {"axis": options.get("axis", None if len(arguments) < 2 else arguments[1])}
            keepdims = options.get("keepdims", False)
            out = options["out"]
            trace.noted("reduce", _REDUCTIONS[function].reduce, arguments[:1], {**reduced, "keepdims": keepdims}, out)
            return out
        if options.get("out") is not None:
            out = options["out"]
            kind = "product" if function in (numpy.dot,) else "opaque"
            trace.noted(kind, function, arguments, options, out)
            return out
        return self._call(trace, function, arguments, options)

    @staticmethod
    def _call(trace: Trace, function: Any, arguments: Any, options: Any) -> Any:
        with numpy.errstate(all="ignore"):
            result = function(*_plain(arguments), **_plain(options))
        if not isinstance(result, ndarray):
            raise Untraceable
        if id(owner_of(result)) in trace._numbers and result.base is not None:
            return result.view(TracedArray)  # a view of an argument
        return trace.assign(function, arguments, options, result.copy() if result.base is not None else result)

    def __getitem__(self, index: Any) -> Any:
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, (ndarray, list)) for i in items):
            return self._call(_noting(), take_items, (self, index), {})
        result = super().__getitem__(index)
        if not isinstance(result, ndarray):
            raise Untraceable  # a number
        return result

    def __setitem__(self, index: Any, value: Any) -> None:
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, (ndarray, list)) for i in items):
            trace = _noting()
            target, at, new = tree_map((self, index, value), trace.view, ndarray)
            trace.note("opaque", put_items, (target, at, new), {}, [target, *tree_leaves((at, new))], [target], True)
            return
        out = super().__getitem__(index)
        if not isinstance(out, ndarray):  # one element
            if isinstance(index, tuple):
                raise Untraceable
            out = super().__getitem__(slice(index, index + 1 or None)).reshape(())
        if not (type(value) is TracedArray and address(value) == address(out) and value.shape == out.shape):
            numpy.copyto(out, value, casting="unsafe")

    def __iter__(self) -> Any:
        if self.ndim < 2:
            raise Untraceable
        return (self[i] for i in range(len(self)))

    def fill(self, value: Any) -> None:
        numpy.copyto(self, value, casting="unsafe")

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        return self._call(_noting(), ndarray.astype, (self, dtype, *args), options)

    def copy(self, *args: Any) -> Any:
        return self._call(_noting(), ndarray.copy, (self, *args), {})

    def take(self, indices: Any, *args: Any, **options: Any) -> Any:
        return numpy.take(self, indices, *args, **options)


def _looks(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        if _current.trace is None:
            return getattr(ndarray, name)(self, *args, **options)
        raise Untraceable

    method.__name__ = name
    return method


for _name in ("__float__", "__int__", "__bool__", "__index__", "__contains__", "__complex__"):
    setattr(TracedArray, _name, _looks(_name))
for _name in dir(ndarray):
    if not _name.startswith("_") and callable(getattr(ndarray, _name)) and _name not in (*_VIEWS, *TracedArray.__dict__):
        setattr(TracedArray, _name, _looks(_name))


def _homes(launches: Sequence[Launch]) -> dict[int, ndarray]:
    """For each owner, by id, the one whose memory comes first among those that overlap: several own what libraries share."""
    arrays = tree_leaves([(x.arrays, x.options) for x in launches], ndarray)
    owners = {id(a): a for a in map(owner_of, arrays) if a.size}
    spans = sorted((*span(View(0, address(a), a.shape, a.strides, a.dtype))[1:], key) for key, a in owners.items())
    homes: dict[int, ndarray] = {}
    end = 0
    for low, high, key in spans:
        if low >= end:
            home = owners[key]
        homes[key] = home
        end = max(end, high)
    return homes


def trace(launches: Sequence[Launch], whole: bool = False) -> Trace:
    """The calls that a recorded step consists of; ``whole``: on whole arrays, where a twin would walk them in chunks."""
    result = Trace(whole, _homes(launches))
    for launch in launches:
        result.launch(launch)
    return result
