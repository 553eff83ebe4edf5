"""Trace recorded launches into NumPy calls: run each kernel's twin on arrays that record calls instead of computing.

A twin is a few NumPy calls.  Run on a :class:`TracedArray`, each call is recorded with its views and not executed, so a
step becomes one flat list of calls, and a replay spends one Python function call on each.  Each kernel declares how it is
traced (``Kernel.tracing``): a twin that reads values (labels, random words) becomes one opaque call, and so does the
launch of a user's kernel, whose twin is arbitrary Python.

The dialect of twins that become calls; ``tests/captured/test_dialect.py`` holds them to it:

* ufuncs, their ``reduce``, ``numpy.copyto``, ``numpy.dot`` and other functions with ``out=`` write into arrays;
* views by slices, ``reshape``, ``transpose``, ``swapaxes``, ``view``, ``squeeze`` and ``diagonal``; no single elements;
* ``call_library()`` calls what is no function of NumPy;
* ``scratch()`` for temporaries; other new arrays depend on shapes and options only, and are not indexed by arguments;
* no value is read: no ``if`` on elements, no ``float(...)``, no loop over a vector.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, owner_of
from gpunet.captured.ir import Buffer, Call, View, span, tree_leaves, tree_map
from gpunet.errors import GpunetError
from gpunet.launch import halves, memory
from gpunet.launch.kernel import Kernel
from gpunet.launch.launchable import Launchable
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import Launch
from gpunet.ops.index_launches import translate_index_error

ndarray = numpy.ndarray


class Untraceable(GpunetError):
    """A twin did something that cannot be recorded; its launch becomes an opaque call."""


class _Current(threading.local):
    trace: Trace | None = None  # the trace for which this thread runs a twin


_current = _Current()


class Trace:
    """The calls of traced launches, and the buffers that they use.

    Args:
        unchunked: do not split vectors into chunks.
        first_owners: see :func:`_find_first_owners`.
        untraced: let each launch be one opaque call of its kernel.
    """

    def __init__(self, unchunked: bool = False, first_owners: dict[int, ndarray] | None = None, untraced: bool = False) -> None:
        self.unchunked, self.untraced = unchunked, untraced
        self._first_owners = first_owners or {}
        self.buffers: list[Buffer] = []
        self.calls: list[Call] = []
        self._numbers: dict[int, int] = {}  # id of an owner -> index of its buffer
        self._constants: list[ndarray] = []  # arrays that the twin of the current launch created
        self._launch = 0

    def buffer_of(self, owner: ndarray, temporary: bool = False) -> int:
        """Return the index of an owner's buffer; add the buffer if it is new."""
        if id(owner) not in self._numbers:
            first = self._first_owners.get(id(owner), owner)
            if first is owner:
                self._numbers[id(owner)] = len(self.buffers)
                self.buffers.append(Buffer(owner, temporary))
            else:
                self._numbers[id(owner)] = self.buffer_of(first)
        return self._numbers[id(owner)]

    def view_of(self, array: Array) -> View:
        """Return the View (buffer, offset, strides) of an array.

        Raises:
            Untraceable: NumPy copied a traced array without a recorded call.
        """
        owner = owner_of(array)
        if type(array) is TracedArray and id(owner) not in self._numbers:
            raise Untraceable
        if id(owner) not in self._numbers:
            self._constants.append(array)
        number = self.buffer_of(owner)
        offset = devices.pointer(array) - devices.pointer(self.buffers[number].array)
        return View(number, offset, array.shape, array.strides, array.dtype)

    def as_traced(self, array: ndarray) -> ndarray:
        """Return a traced view of an argument of a launch."""
        self.buffer_of(owner_of(array))
        return array.view(TracedArray)

    def as_temporary(self, array: ndarray) -> ndarray:
        """Return a traced view of an array that a twin creates or takes from scratch memory."""
        self.buffer_of(array, temporary=True)
        return array.view(TracedArray)

    # -- launches
    def add_launch(self, launch: Launch) -> None:
        """Append the calls of a launch: those of its twin, or one opaque call if that cannot be traced."""
        kernel, arrays, options = launch.kernel, launch.arrays, launch.options
        if self.untraced:
            self._add_opaque(kernel, arrays, options)
            self._launch += 1
            return
        start = len(self.calls)
        arguments, settings = tree_map((arrays, options), self.as_traced, ndarray)
        self._constants.clear()
        try:
            self._trace_twin(kernel, arguments, settings)
        except (Untraceable, IndexError):  # IndexError: the step has changed an index array since the launch
            del self.calls[start:]
            self._trace_twin(kernel, arguments, settings, self._add_opaque)
        self._launch += 1

    def _trace_twin(
        self, kernel: Launchable, arguments: Sequence[Any], settings: dict[str, Any], call: Callable[..., None] | None = None
    ) -> None:
        """Call a twin, or another function of the kernel, its arrays and options, on traced arrays; halves are widened."""
        _current.trace = self
        try:
            with (
                memory.traced_twins(self.as_temporary, self.record_library, self.unchunked),
                halves.widened(arguments, kernel.outputs) if kernel.widens else nullcontext(arguments) as wide,
            ):
                (call or self._call_twin)(kernel, wide, settings)
        finally:
            _current.trace = None

    @staticmethod
    def _call_twin(kernel: Launchable, arguments: Sequence[Any], settings: dict[str, Any]) -> None:
        if kernel.reads_values:
            raise Untraceable
        if isinstance(kernel, Kernel) and kernel.traceable:
            kernel.twin(*arguments, **settings)
        elif isinstance(kernel, Ufunc):
            settings = halves.ufunc_options(arguments[0], arguments[1:]) or settings
            kernel.numpy_function(*arguments[1:], out=arguments[0], **settings)
        elif isinstance(kernel, Shim):
            kernel.function(numpy, *arguments, **settings)
        else:
            raise Untraceable

    def _add_opaque(self, kernel: Any, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        """Append one opaque call: of the kernel if untraced, else of its twin or of a function that launches it."""
        has_twin = isinstance(kernel, Kernel) and kernel.traceable
        function = kernel if self.untraced else kernel.twin if has_twin else _launching(kernel)
        arguments, settings = tree_map((tuple(arrays), options), self.view_of, devices.is_array)
        views, written = list(tree_leaves((arguments, settings))), list(tree_leaves(arguments[: kernel.outputs]))
        loops = kernel.launch_loops if has_twin else None
        self.add_call(
            "opaque", function, arguments, settings, views, written, True, loops=loops, meets_others=kernel.meets_others
        )

    def add_call(self, *fields: Any, **more: Any) -> None:
        """Append a :class:`Call` of the current launch, given its other arguments."""
        call = Call(*fields, **more)
        call.launch = self._launch
        self.calls.append(call)

    # -- calls reported by traced arrays
    def record(self, kind: str, function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any], out: Any) -> None:
        """Record a call that writes to ``out``: the first argument of a copy, else a keyword argument."""
        options = {name: option for name, option in options.items() if name != "out"}
        inputs, settings = tree_map((tuple(arguments), options), self.view_of, ndarray)
        target, reads = self.view_of(out), list(tree_leaves((inputs, settings)))
        if kind == "copy":
            inputs = (target, *inputs)
        else:
            settings["out"] = target
        self.add_call(kind, function, inputs, settings, reads, [target], options.get("where", True) is not True)

    def record_new(self, function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any], result: ndarray) -> Any:
        """Record a call that returns a new array, and return that array traced.  A replay copies the result into its buffer."""
        out = self.as_temporary(result)
        inputs, settings = tree_map((tuple(arguments), options), self.view_of, ndarray)
        target, reads = self.view_of(out), list(tree_leaves((inputs, settings)))
        self.add_call("opaque", _copying(function), (target, *inputs), settings, reads, [target])
        return out


    def record_library(self, function: Callable[..., None], outputs: Sequence[Any], inputs: Sequence[Any], options: Any) -> None:
        """Record a call of :func:`gpunet.launch.memory.call_library`."""
        arguments = tree_map((*outputs, *inputs), self.view_of, ndarray)
        self.add_call("opaque", function, arguments, options, [*tree_leaves(arguments)], [*tree_leaves(arguments[: len(outputs)])])


def _launching(kernel: Launchable) -> Callable[..., None]:
    """Return a function that launches a kernel."""

    def launch(*arrays: Any, **options: Any) -> None:
        kernel.launch(arrays, options)

    # prefixed, because a user's kernel may have the name of a function that compiled/library_calls.py looks up
    launch.__name__ = f"launch_{kernel.name}"
    return launch


def _copying(function: Callable[..., Any]) -> Callable[..., None]:
    """Return a function that copies the result of ``function`` to its first argument."""

    def call(out: ndarray, *arguments: Any, **options: Any) -> None:
        out[...] = function(*arguments, **options)

    call.__name__ = function.__name__
    return call


def take_items(array: ndarray, index: Any) -> Any:
    """Return ``array[index]``: the recorded function of indexing with an array."""
    try:
        return array[index]
    except IndexError as error:
        raise translate_index_error(error, "x[index]", array.shape) from None


def put_items(array: ndarray, index: Any, value: Any) -> None:
    """Assign ``array[index] = value``: the recorded function of assignment through an index array."""
    try:
        array[index] = value
    except IndexError as error:
        raise translate_index_error(error, "x[index] = value", array.shape) from None


@functools.cache
def _positional(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters that may be given by position; none of a function in C that does not state them."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return ()
    return tuple(name for name, parameter in parameters.items() if parameter.kind in by_position)


def _name_out(function: Any, arguments: Any, options: Any) -> tuple[Any, Any]:
    """Move an ``out`` that is given by position, and the arguments behind it, to the options."""
    names = _positional(function)
    at = names.index("out") if "out" in names else len(arguments)
    return arguments[:at], {**options, **dict(zip(names[at:], arguments[at:]))}


def _untraced(value: Any) -> Any:
    """Replace traced arrays by plain ones on the same memory."""
    return tree_map(value, lambda a: a.view(ndarray), TracedArray)


def _current_trace() -> Trace:
    if _current.trace is None:
        raise Untraceable
    return _current.trace


#: Methods that return a view, so there is nothing to record.
_VIEW_METHODS = ("reshape", "swapaxes", "transpose", "view", "squeeze", "diagonal")
#: NumPy reductions, and the ufunc whose ``reduce`` computes them.
_REDUCTIONS: dict[Any, numpy.ufunc] = {
    numpy.sum: numpy.add, numpy.prod: numpy.multiply, numpy.amax: numpy.maximum, numpy.amin: numpy.minimum
}  # fmt: skip
#: Functions that depend on shapes and dtypes only.
_SHAPE_FUNCTIONS = (numpy.shape, numpy.ndim, numpy.size, numpy.result_type)


class TracedArray(ndarray):
    """A view of a recorded array.  Operations on it are recorded in this thread's trace, and not executed."""

    def __array_ufunc__(self, ufunc: numpy.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        trace = _current_trace()
        if method == "__call__":
            function: Callable[..., Any] = ufunc
            kind = "elementwise" if ufunc.signature is None else "product"
        elif method == "reduce":
            function, kind = ufunc.reduce, "reduce"
        else:
            raise Untraceable
        if ufunc.nout != 1:
            raise Untraceable
        if out is None:
            # computed for its shape and dtype alone
            result = numpy.asarray(function(*_untraced(inputs), **_untraced(options)))
            out = trace.as_temporary(result.copy() if result.base is not None else result)
        else:
            out = out[0]
        trace.record(kind, function, inputs, options, out)
        return out

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        trace = _current_trace()
        arguments, options = _name_out(function, arguments, options)
        if function is numpy.copyto:
            trace.record("copy", numpy.copyto, arguments[1:], options, arguments[0])
            return None
        if function in _SHAPE_FUNCTIONS:
            return function(*_untraced(arguments), **_untraced(options))
        if function in _REDUCTIONS and options.get("out") is not None:
            reduced = {"axis": options.get("axis", None if len(arguments) < 2 else arguments[1])}
            keepdims = options.get("keepdims", False)
            out = options["out"]
            trace.record("reduce", _REDUCTIONS[function].reduce, arguments[:1], {**reduced, "keepdims": keepdims}, out)
            return out
        if options.get("out") is not None:
            out = options["out"]
            kind = "product" if function in (numpy.dot,) else "opaque"
            trace.record(kind, function, arguments, options, out)
            return out
        return self._call(trace, function, arguments, options)

    @staticmethod
    def _call(trace: Trace, function: Any, arguments: Any, options: Any) -> Any:
        """Call a function that returns an array, and record the call unless the result is a view of an argument."""
        plain = _untraced(arguments)
        with numpy.errstate(all="ignore"):
            result = function(*plain, **_untraced(options))
        if not isinstance(result, ndarray) or any(result is argument for argument in plain[1:]):  # a destination without "out="
            raise Untraceable
        if id(owner_of(result)) in trace._numbers and result.base is not None:
            return result.view(TracedArray)
        return trace.record_new(function, arguments, options, result.copy() if result.base is not None else result)

    def __getitem__(self, index: Any) -> Any:
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, (ndarray, list)) for i in items):
            return self._call(_current_trace(), take_items, (self, index), {})
        result = super().__getitem__(index)
        if not isinstance(result, ndarray):
            raise Untraceable  # an element, whose value would be read
        return result

    def __setitem__(self, index: Any, value: Any) -> None:
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, (ndarray, list)) for i in items):
            trace = _current_trace()
            target, at, new = tree_map((self, index, value), trace.view_of, ndarray)
            trace.add_call("opaque", put_items, (target, at, new), {}, [target, *tree_leaves((at, new))], [target], True)
            return
        out = super().__getitem__(index)
        if not isinstance(out, ndarray):  # one element
            if isinstance(index, tuple):
                raise Untraceable
            out = super().__getitem__(slice(index, index + 1 or None)).reshape(())
        # a[i] += b assigns to a[i] the view it has already updated; skip the copy
        if not (type(value) is TracedArray and devices.pointer(value) == devices.pointer(out) and value.shape == out.shape):
            numpy.copyto(out, value, casting="unsafe")

    def __iter__(self) -> Any:
        if self.ndim < 2:
            raise Untraceable
        return (self[i] for i in range(len(self)))

    def fill(self, value: Any) -> None:
        numpy.copyto(self, value, casting="unsafe")

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        return self._call(_current_trace(), ndarray.astype, (self, dtype, *args), options)

    def copy(self, *args: Any) -> Any:
        return self._call(_current_trace(), ndarray.copy, (self, *args), {})


def _untraceable_method(name: str) -> Callable[..., Any]:
    """Return the method ``name`` of arrays, which raises :class:`Untraceable` while this thread traces."""

    def method(self: Any, *args: Any, **options: Any) -> Any:
        if _current.trace is None:
            return getattr(ndarray, name)(self, *args, **options)
        raise Untraceable

    method.__name__ = name
    return method


for _name in ("__float__", "__int__", "__bool__", "__index__", "__contains__", "__complex__"):
    setattr(TracedArray, _name, _untraceable_method(_name))
for _name in dir(ndarray):
    if not _name.startswith("_") and callable(getattr(ndarray, _name)) and _name not in (*_VIEW_METHODS, *TracedArray.__dict__):
        setattr(TracedArray, _name, _untraceable_method(_name))


def _find_first_owners(launches: Sequence[Launch]) -> dict[int, ndarray]:
    """Map the id of each owner to the first owner of its group of overlapping ones.

    NumPy and CuPy see separate owners where another library made two arrays from one buffer.
    """
    arrays = tree_leaves([(x.arrays, x.options) for x in launches], devices.is_array)
    owners = {id(a): a for a in map(owner_of, arrays) if a.size}
    spans = sorted((*span(View(0, devices.pointer(a), a.shape, a.strides, a.dtype))[1:], key) for key, a in owners.items())
    result: dict[int, ndarray] = {}
    end = 0
    for low, high, key in spans:
        if low >= end:
            first = owners[key]
        result[key] = first
        end = max(end, high)
    return result


def trace(launches: Sequence[Launch], unchunked: bool = False, untraced: bool = False) -> Trace:
    """Trace the launches of a recorded step.

    Args:
        launches: in order.
        unchunked: do not split vectors into chunks.
        untraced: let each launch be one opaque call of its kernel, for devices other than the CPU.
    """
    result = Trace(unchunked, _find_first_owners(launches), untraced)
    for launch in launches:
        result.add_launch(launch)
    return result
