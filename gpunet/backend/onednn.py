"""oneDNN (oneAPI Deep Neural Network Library), called through ctypes: its convolutions of float32 images.

A convolution is a *primitive*, which oneDNN compiles for given shapes and this CPU (docs: oneDNN developer guide, version 3).  It
is kept for its thread.  Most primitives want the channels in blocks of the width of a vector register, so the arrays are reordered
before and after it.  Where oneDNN has no compiled code for a convolution but its general one, gpunet uses its own.

``pip install 'gpunet[onednn]'`` installs the library, and ``GPUNET_BLAS`` says whether it may be used (:mod:`gpunet.backend.blas`).
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.blas import libraries
from gpunet.errors import LaunchError

_log = logging.getLogger(__name__)
Pair = tuple[int, int]

# The numbers are those of dnnl_types.h and dnnl_common_types.h.

_VERSION = 3  # whose functions and numbers these are
_CPU, _IN_ORDER, _FLOAT32, _ANY_LAYOUT, _TRAINING, _DIRECT = 1, 1, 3, 1, 64, 1
_QUERY_IMPLEMENTATION = 8
#: Names of implementations that are compiled for the shapes; the others are as slow as gpunet's products, or much slower.
_COMPILED = ("jit", "brg")
_MAX_DIMENSIONS = 12
_MAX_PLANS = 256  # of a thread
_ALIGNMENT = 64  # bytes
_SLOTS = 4  # the first slot of scratch memory, as in gpunet.ops.convolution
_FROM, _TO = 1, 17  # arguments of a reorder
_IN_ORDER_ONLY = 0  # instead of a query: the array has one dimension


class _Argument(ctypes.Structure):
    _fields_ = (("number", c_int), ("memory", c_void_p))


class _Version(ctypes.Structure):
    _fields_ = (("major", c_int), ("minor", c_int))


class _Role(NamedTuple):
    """An argument of a primitive."""

    number: int  # of the argument
    query: int  # of the layout that the primitive wants
    is_output: bool = False


_IMAGES, _FILTERS, _BIAS, _RESULT = _Role(1, 129), _Role(33, 131), _Role(41, _IN_ORDER_ONLY), _Role(17, 133, True)
_IMAGES_GRADIENT, _FILTERS_GRADIENT = _Role(129, 130, True), _Role(161, 132, True)
_BIAS_GRADIENT, _RESULT_GRADIENT = _Role(169, _IN_ORDER_ONLY, True), _Role(145, 134)

#: A convolution and its gradients by oneDNN's names, and the arrays that each takes, outputs first.
_ROLES = {
    "forward": (_RESULT, _IMAGES, _FILTERS, _BIAS),
    "backward_data": (_IMAGES_GRADIENT, _RESULT_GRADIENT, _FILTERS),
    "backward_weights": (_FILTERS_GRADIENT, _BIAS_GRADIENT, _RESULT_GRADIENT, _IMAGES),
}


class Geometry(NamedTuple):
    """The shapes of a convolution, and how its filters move; pairs are (vertical, horizontal)."""

    images: tuple[int, ...]  # (n, c, height, width)
    filters: tuple[int, ...]  # (o, c / groups, r, s)
    result: tuple[int, ...]  # (n, o, p, q)
    stride: Pair
    padding: Pair  # above and to the left
    dilation: Pair


def _dimensions(numbers: tuple[int, ...]) -> Any:
    return (c_int64 * _MAX_DIMENSIONS)(*numbers)


class _Library:
    """The functions of oneDNN that return a status, and the engine that stands for the CPU."""

    def __init__(self, path: Path) -> None:
        self.functions = libraries.open_onednn(path)
        self.functions.dnnl_version.restype = ctypes.POINTER(_Version)
        self.functions.dnnl_primitive_desc_query_md.restype = c_void_p
        self.functions.dnnl_memory_desc_get_size.restype = c_size_t
        self.set_address = self.functions.dnnl_memory_set_data_handle
        self.set_address.argtypes = [c_void_p, c_void_p]
        self.execute = self.functions.dnnl_primitive_execute
        self.execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
        found = self.functions.dnnl_version().contents
        self.version = f"{found.major}.{found.minor}"
        if found.major != _VERSION:
            raise LaunchError(f"{path} is oneDNN {self.version}; expected version {_VERSION}")
        self.engine = self.make("dnnl_engine_create", _CPU, c_size_t(0))

    def make(self, function: str, *arguments: Any) -> c_void_p:
        """Call a function that writes a handle to its first argument."""
        handle = c_void_p()
        status = getattr(self.functions, function)(byref(handle), *arguments)
        if status:
            raise LaunchError(f"oneDNN: {function} failed with status {status}")
        return handle


_lock = threading.Lock()


def _library() -> _Library | None:
    """oneDNN, if ``GPUNET_BLAS`` allows it and it is installed; the same object for all threads."""
    with _lock:
        return _find_library()


@functools.cache
def _find_library() -> _Library | None:
    if (os.environ.get("GPUNET_BLAS") or "auto") not in ("auto", "onednn"):
        return None
    path = next((library.path for library in libraries.installed() if library.name == "onednn"), None)
    if path is None:
        return None
    try:
        return _Library(path)
    except (OSError, AttributeError, LaunchError) as error:
        _log.warning("convolutions are computed without oneDNN: %s", error)
        return None


class _Plan:
    """A compiled convolution, and the reorders around it.

    Args:
        kind: a key of _ROLES.
        has_bias: a bias is added, or its gradient computed.

    Raises:
        LaunchError: oneDNN has no such convolution.
    """

    def __init__(self, library: _Library, stream: c_void_p, kind: str, geometry: Geometry, has_bias: bool) -> None:
        self._library, self._stream = library, stream
        self._handles: list[tuple[str, c_void_p]] = []  # and the functions that destroy them
        weakref.finalize(self, _destroy, library, self._handles).atexit = False
        shapes = self._shapes(geometry)
        described = self._describe(kind, geometry, shapes, has_bias)
        name = ctypes.c_char_p()
        library.functions.dnnl_primitive_desc_query(described, _QUERY_IMPLEMENTATION, 0, byref(name))
        self.is_compiled = (name.value or b"").decode().startswith(_COMPILED)
        if not self.is_compiled:
            return
        #: memories of the arrays; of those that are reordered, the other memory and its bytes
        self._memories: list[c_void_p] = []
        self._reordered: list[tuple[c_void_p, int] | None] = []
        before: list[tuple[Any, ...]] = []
        after: list[tuple[Any, ...]] = []
        arguments = []
        for role in _ROLES[kind]:
            if role.query == _IN_ORDER_ONLY and not has_bias:
                continue
            plain = self._layout(shapes[role.number])
            wanted = c_void_p(library.functions.dnnl_primitive_desc_query_md(described, role.query, 0)) if role.query else plain
            memory = inner = self._memory(plain)
            self._memories.append(memory)
            if library.functions.dnnl_memory_desc_equal(plain, wanted):
                self._reordered.append(None)
            else:
                inner = self._memory(wanted)
                self._reordered.append((inner, library.functions.dnnl_memory_desc_get_size(wanted)))
                source, target = ((wanted, inner), (plain, memory))[:: 1 if role.is_output else -1]
                (after if role.is_output else before).append(self._reorder(*source, *target))
            arguments.append(_Argument(role.number, inner))
        primitive = self._make("dnnl_primitive_create", "dnnl_primitive_destroy", described)
        self._calls = [*before, (primitive, len(arguments), (_Argument * len(arguments))(*arguments)), *after]

    def _make(self, function: str, destroyer: str, *arguments: Any) -> c_void_p:
        handle = self._library.make(function, *arguments)
        self._handles.append((destroyer, handle))
        return handle

    def _layout(self, shape: tuple[int, ...], is_any: bool = False) -> c_void_p:
        """Describe an array in C order, or one whose order oneDNN chooses."""
        name, layout = "dnnl_memory_desc_create_with_tag", _ANY_LAYOUT
        if not is_any:
            name = "dnnl_memory_desc_create_with_strides"
            layout = _dimensions(tuple(stride // 4 for stride in numpy.empty(shape, "float32").strides))
        return self._make(name, "dnnl_memory_desc_destroy", len(shape), _dimensions(shape), _FLOAT32, layout)

    def _memory(self, layout: c_void_p) -> c_void_p:
        return self._make("dnnl_memory_create", "dnnl_memory_destroy", layout, self._library.engine, None)

    def _reorder(self, layout: c_void_p, memory: c_void_p, target: c_void_p, result: c_void_p) -> tuple[Any, ...]:
        engine, destroyer = self._library.engine, "dnnl_primitive_desc_destroy"
        described = self._make("dnnl_reorder_primitive_desc_create", destroyer, layout, engine, target, engine, None)
        primitive = self._make("dnnl_primitive_create", "dnnl_primitive_destroy", described)
        return primitive, 2, (_Argument * 2)(_Argument(_FROM, memory), _Argument(_TO, result))

    @staticmethod
    def _shapes(geometry: Geometry) -> dict[int, tuple[int, ...]]:
        """The shapes of arguments; filters of several groups have a dimension of them."""
        (o, of_group, r, s), groups = geometry.filters, geometry.images[1] // geometry.filters[1]
        filters = geometry.filters if groups == 1 else (groups, o // groups, of_group, r, s)
        by_role = {
            _IMAGES: geometry.images, _IMAGES_GRADIENT: geometry.images, _FILTERS: filters, _FILTERS_GRADIENT: filters,
            _BIAS: (o,), _BIAS_GRADIENT: (o,), _RESULT: geometry.result, _RESULT_GRADIENT: geometry.result,
        }  # fmt: skip
        return {role.number: shape for role, shape in by_role.items()}

    def _describe(self, kind: str, geometry: Geometry, shapes: dict[int, tuple[int, ...]], has_bias: bool) -> c_void_p:
        images, filters, result = (self._layout(shapes[role.number], True) for role in (_IMAGES, _FILTERS, _RESULT))
        bias = self._layout(shapes[_BIAS.number]) if has_bias else None
        behind = tuple(
            max(0, (count - 1) * step + dilation * (taps - 1) + 1 - extent - before)
            for count, step, dilation, taps, extent, before in zip(
                geometry.result[2:], geometry.stride, geometry.dilation, geometry.filters[2:], geometry.images[2:], geometry.padding
            )
        )
        dilation = tuple(step - 1 for step in geometry.dilation)
        moves = [_dimensions(numbers) for numbers in (geometry.stride, dilation, geometry.padding, behind)]
        operands = {
            "forward": (images, filters, bias, result), "backward_data": (images, filters, result),
            "backward_weights": (images, filters, bias, result),
        }  # fmt: skip

        def describe(kind: str, *leading: int, hints: tuple[Any, ...] = ()) -> c_void_p:
            name = f"dnnl_convolution_{kind}_primitive_desc_create"
            numbers = (self._library.engine, *leading, *operands[kind], *moves, *hints, None)
            return self._make(name, "dnnl_primitive_desc_destroy", *numbers)

        forward = describe("forward", _TRAINING, _DIRECT)
        return forward if kind == "forward" else describe(kind, _DIRECT, hints=(forward,))

    def __call__(self, arrays: list[numpy.ndarray], scratch: Callable[..., numpy.ndarray]) -> None:
        set_address = self._library.set_address
        for number, (array, memory, reordered) in enumerate(zip(arrays, self._memories, self._reordered)):
            set_address(memory, array.ctypes.data)
            if reordered is not None:
                inner, num_bytes = reordered
                address = scratch(((num_bytes + _ALIGNMENT) // 4,), numpy.float32, _SLOTS + number).ctypes.data
                set_address(inner, address + -address % _ALIGNMENT)
        for primitive, count, arguments in self._calls:
            status = self._library.execute(primitive, self._stream, count, arguments)
            if status:
                raise LaunchError(f"oneDNN: a convolution failed with status {status}")


def _destroy(library: _Library, handles: list[tuple[str, c_void_p]]) -> None:
    for destroyer, handle in reversed(handles):
        getattr(library.functions, destroyer)(handle)


class _OfThread(threading.local):
    """The plans of a thread: the addresses in a plan's memories are those of its last call."""

    def __init__(self) -> None:
        self.plans: dict[Any, _Plan | None] = {}
        self.stream: c_void_p | None = None

    def find(self, kind: str, geometry: Geometry, has_bias: bool) -> _Plan | None:
        """The plan of a convolution; None if there is no oneDNN, or no compiled code."""
        key = (kind, geometry, has_bias)
        if key not in self.plans:
            if len(self.plans) >= _MAX_PLANS:
                self.plans.clear()
            self.plans[key] = self._plan(*key)
        return self.plans[key]

    def _plan(self, kind: str, geometry: Geometry, has_bias: bool) -> _Plan | None:
        library = _library()
        if library is None:
            return None
        if self.stream is None:
            self.stream = library.make("dnnl_stream_create", library.engine, _IN_ORDER)
        try:
            plan = _Plan(library, self.stream, kind, geometry, has_bias)
        except LaunchError as error:
            _log.info("%s of %s: %s", kind, geometry, error)
            return None
        return plan if plan.is_compiled else None


_plans = _OfThread()
if hasattr(os, "register_at_fork"):  # a plan is for the number of threads when it was made; a child has one (open_onednn)
    os.register_at_fork(after_in_child=lambda: _plans.plans.clear())


def version() -> str | None:
    """The version of oneDNN that computes large convolutions; None if NumPy does."""
    library = _library()
    return None if library is None else library.version


def is_compiled(kind: str, geometry: Geometry, has_bias: bool) -> bool:
    """Whether oneDNN may be used and has compiled code for a convolution of float32 images on this machine.

    Args:
        kind: "forward", "backward_data" or "backward_weights".
        has_bias: a bias is added, or its gradient computed.
    """
    return _plans.find(kind, geometry, has_bias) is not None


def convolve(*arrays: numpy.ndarray | None, kind: str, geometry: Geometry, scratch: Callable[..., numpy.ndarray]) -> None:
    """Compute a convolution, or one of its gradients, for which :func:`is_compiled` holds.

    Args:
        arrays: float32, in C order.  "forward" takes the result y, images x, filters w and bias b (or None) and writes y;
            "backward_data" takes the gradients dx and dy, and w; "backward_weights" takes dw, db (or None), dy and x.
        scratch: returns memory of a shape and dtype, by number (:func:`gpunet.launch.memory.scratch`).

    Raises:
        LaunchError: oneDNN failed.
    """
    present = [array for array in arrays if array is not None]
    plan = _plans.find(kind, geometry, len(present) == 4)
    if plan is None:
        raise LaunchError(f"oneDNN has no compiled {kind} for {geometry}")
    plan(present, scratch)
