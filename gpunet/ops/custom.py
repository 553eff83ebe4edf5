"""cuda_op: make an op from a user's CUDA source, with a NumPy twin and a backward.

The signature of the CUDA entry point defines the op: its ``const`` pointers are the inputs, its other pointers the
outputs, and its scalars are options of the op or computed by ``launch``.  The callbacks (``launch``, ``shapes``,
``twin``, ``backward``) receive arguments by the names of their parameters, in any order.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

import numpy

from gpunet.autograd import (
    FILL,
    Gradient,
    Node,
    Op,
    Tensor,
    contiguous,
    get_default_dtype,
    gradcheck,
    ignore_fp_errors,
    is_grad_enabled,
    make_tensor,
    no_grad,
    operands,
)
from gpunet.autograd.graph import edge_to, materialize, spec_at
from gpunet.autograd.saved import packing
from gpunet.backend import cuda_sources as sources
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import C_TYPES, NATIVE, finfo, is_floating, is_half
from gpunet.backend.signature import Entry, bare_name, entries, find_entry
from gpunet.errors import ArgumentError, DtypeError, GradientError, MismatchError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.custom_kernel import Callback, CustomKernel

__all__ = ["cuda_op"]

#: What ``T`` of a user's kernel may be.
_FLOATING = tuple(dtype.name for dtype in NATIVE)


def cuda_op(
    source: str | os.PathLike[str],
    *,
    launch: Callable[..., dict[str, Any]],
    name: str | None = None,
    shapes: Callable[..., Any] | None = None,
    twin: Callable[..., Any] | None = None,
    backward: Callable[..., Any] | None = None,
    zeroed: str = "",
) -> CudaOp:
    """Make an op from a ``__global__`` function.

        double = gpunet.cuda_op(
            '''
            template <class T> __global__ void twice(T* y, const T* x, long long n) {
              const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
              if (i < n) y[i] = 2 * x[i];
            }
            ''',
            launch=lambda y: dict(grid=-(-y.size // 256), block=256, n=y.size),
            twin=lambda x: 2 * x,
            backward=lambda dy: 2 * dy,
        )
        y = double(x)

    The ``const`` pointers of the function are the inputs of the op, in order; its other pointers are the outputs.
    ``T*`` accepts float32 or float64, the same for all; a pointer to any other type accepts arrays of that dtype.
    Scalars that ``launch`` does not compute are options of the op, passed by keyword.  The kernel gets C-contiguous
    arrays.

    The callbacks below receive arguments by the names of their parameters: inputs, outputs and scalars are named as in
    the CUDA function.

    Args:
        source: the CUDA source, or the path of a file (a ``pathlib.Path``).  ``#include "pack.cuh"`` finds the headers
            of ``cuda_kernels/``.
        launch: called with outputs, inputs and options; returns a dictionary with ``grid`` and ``block`` (an int or a
            tuple of up to three), the scalars that it computes by name, and optionally ``shared`` (bytes of dynamic
            shared memory) and ``template`` (the template arguments after ``T``, as text).  A grid of 0 launches
            nothing.
        name: the ``__global__`` function; required if the source has several, or if it is in a namespace.
        shapes: called with inputs and options; returns the shape of the output, or a tuple with a shape per output.
            Without it, all outputs have the shape of the first input.
        twin: the implementation on the CPU.  Called with inputs (NumPy arrays) and options; returns the output, or a
            tuple of outputs.
        backward: called with the gradients of the outputs (``dy`` for the output ``y``), outputs, inputs and options,
            where arrays are Tensors; returns the gradient of each floating input in order, or None for no gradient.
            Composed of ops, also of another ``cuda_op``, it is itself differentiable.  Only the tensors that it names
            are saved.  It is a function, a lambda or another ``cuda_op``, and closes over no arrays: a change in place of
            those would not be noticed.
        zeroed: names of outputs to fill with zero before the launch, separated by blanks, for sums by atomics.

    Raises:
        ArgumentError: the source has no such function, its signature is not supported, or ``backward`` closes over an
            array.
        CompileError: a file or header does not exist.  (Errors in the source are raised at the first launch.)
    """
    file_name = ""
    if isinstance(source, str):
        file_name = f"{bare_name(name) if name else _single_entry(source, entries(source)).name}.cu"
    spliced = sources.splice(source, file_name)
    if name is None:
        entry = _single_entry(spliced.name, entries(spliced.text))
    else:
        entry = find_entry(spliced.text, spliced.name, name, specialised=False)
    given = {"launch": launch, "shapes": shapes, "twin": twin, "backward": backward}
    callbacks = {key: Callback(f, f"{key} of cuda_op {entry.name!r}") for key, f in given.items() if f is not None}
    return CudaOp(CustomKernel(spliced, entry, name or entry.name, callbacks), callbacks, zeroed.split())


def _single_entry(source: str, found: dict[str, Entry]) -> Entry:
    """The only entry point among ``found``; ``source`` is the source or its name, for messages."""
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ArgumentError(f"cuda_op: the source defines {', '.join(found)}; choose one with name=")
    if "\n" not in source and source.endswith((".cu", ".cuh")):
        raise ArgumentError(f"cuda_op: {source!r} is not CUDA source; for a file pass pathlib.Path({source!r})")
    raise ArgumentError("cuda_op: the source defines no __global__ function; if a header defines it, pass name=")


class CudaOp:
    """An op made by :func:`cuda_op`; a call returns a Tensor, or a tuple of Tensors if there are several outputs."""

    def __init__(self, kernel: CustomKernel, callbacks: dict[str, Callback], zeroed: Sequence[str]) -> None:
        self.kernel = kernel
        self.name = self.__name__ = kernel.name
        self._shapes, self._backward = callbacks.get("shapes"), callbacks.get("backward")
        gradients = [f"d{y}" for y in kernel.output_names]
        allowed = {
            "launch": [*kernel.output_names, *kernel.input_names, *kernel.option_names],
            "shapes": [*kernel.input_names, *kernel.option_names],
            "twin": [*kernel.input_names, *kernel.option_names],
            "backward": [*gradients, *kernel.output_names, *kernel.input_names, *kernel.option_names],
        }
        for key, callback in callbacks.items():
            callback.check_names(allowed[key])
        label = f"cuda_op {self.name!r}"
        if self._backward is not None and (both := {*gradients} & {*kernel.input_names, *kernel.output_names}):
            raise ArgumentError(
                f"{label}: {both.pop()!r} is an array of the kernel and also the name of a gradient; rename the array"
            )
        for name in zeroed:
            if name not in kernel.output_names:
                outputs = ", ".join(kernel.output_names)
                raise ArgumentError(f"{label}: zeroed={name!r} is not an output; the outputs are {outputs}")
        self._zeroed = [name in zeroed for name in kernel.output_names]
        kinds = inspect.Parameter
        self.__signature__ = inspect.Signature(
            [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in kernel.input_names]
            + [kinds(name, kinds.KEYWORD_ONLY, default=None) for name in kernel.option_names]
        )
        self._op = Custom(self)

    def __repr__(self) -> str:
        return f"<cuda_op {self.kernel.signature}>"

    @ignore_fp_errors
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the op.

        Raises:
            ArgumentError: the number of inputs is wrong, or an option is unknown.
            DtypeError: the dtype of an input is not the one that the kernel declares.
            DeviceError: the tensors are on different devices, or on the CPU and there is no twin.
        """
        kernel = self.kernel
        by_keyword = [name for name in kernel.input_names if name in options]
        if kernel.input_names[len(inputs) :] == by_keyword:
            inputs += tuple(options.pop(name) for name in by_keyword)
        tensors = self._check_inputs(inputs, options)
        arrays = [contiguous(t.array) for t in tensors]
        outputs = [empty(shape, dtype, arrays[0]) for shape, dtype in self._output_specs(arrays, options)]
        for zero, output in zip(self._zeroed, outputs):
            if zero:
                FILL(output, value=0)
        kernel(*outputs, *arrays, **options)
        results = [make_tensor(output) for output in outputs]
        edges = [edge_to(t) for t in tensors] if is_grad_enabled() else []
        if any(edges):
            self._op.record(tensors, results, edges, options)
        return results[0] if len(results) == 1 else tuple(results)

    def _check_inputs(self, inputs: Sequence[Any], options: dict[str, Any]) -> Sequence[Tensor]:
        """Check number, types and dtypes of the inputs and the names of the options; return the inputs as tensors."""
        kernel = self.kernel
        if len(inputs) != len(kernel.input_names):
            raise ArgumentError(
                f"{self.name}: {len(inputs)} inputs; expected {len(kernel.input_names)}: {', '.join(kernel.input_names)}"
            )
        for name in options:
            if name not in kernel.option_names:
                expected_names = ", ".join(kernel.option_names) or "none"
                raise ArgumentError(f"{self.name}: unknown option {name!r}; expected {expected_names}")
        tensors = operands(self.name, inputs)
        floating = None
        for name, tensor, c_type in zip(kernel.input_names, tensors, kernel.c_types[kernel.outputs :]):
            if not isinstance(tensor, Tensor):
                raise ArgumentError(f"{self.name}: input {name!r} is {tensor!r}; expected a Tensor or an array")
            dtype = tensor.dtype.name
            if c_type == "T":
                floating = floating or dtype
                expected: tuple[str, ...] = (floating,) if floating in _FLOATING else _FLOATING
            else:
                expected = tuple(key for key, c_name in C_TYPES.items() if c_name == c_type)
            if dtype not in expected:
                raise DtypeError(
                    f"{self.name}: input {name!r} is {dtype}; the kernel expects {' or '.join(expected)}: convert it "
                    f"with .to(gpunet.{expected[0]})"
                )
        return tensors

    def _output_specs(self, arrays: Sequence[Array], options: dict[str, Any]) -> list[tuple[tuple[int, ...], Any]]:
        """(shape, dtype) of each output."""
        kernel = self.kernel
        dtypes: dict[str, Any] = {p.name: p.dtype for p in kernel.contract.parameters}
        floating = next((a.dtype for a, n in zip(arrays, kernel.input_names) if dtypes[n] == "T"), get_default_dtype())
        shapes: Any = [arrays[0].shape] * kernel.outputs
        if self._shapes is not None:
            returned = self._shapes(dict(zip(kernel.input_names, arrays)) | options)
            shapes = [returned] if kernel.outputs == 1 else returned
            try:
                shapes = [tuple(map(operator.index, (s,) if isinstance(s, int) else s)) for s in shapes]
            except TypeError:
                shapes = []
            if len(shapes) != kernel.outputs or any(n < 0 for shape in shapes for n in shape):
                raise ShapeError(
                    f"{self._shapes.label} returned {returned!r}; expected "
                    + ("a shape" if kernel.outputs == 1 else f"a shape for each of {', '.join(kernel.output_names)}")
                )
        return [(shape, floating if dtypes[name] == "T" else dtypes[name]) for name, shape in zip(kernel.output_names, shapes)]

    def check(self, *inputs: Any, tolerance: float | None = None, **options: Any) -> None:
        """Compare the kernel with its twin, and the backward with finite differences.  Needs g++ but no GPU.

        The kernel runs on the device "emulated" in check mode under every schedule, which also finds races, accesses
        out of bounds and missing barriers.

        Args:
            inputs: small tensors.  The gradient is checked for those that require grad, or for all floating inputs if
                none does; in float64 if the kernel is a template of ``T``.
            tolerance: largest difference between kernel and twin, relative to the largest element of the output; None
                means 1e-5 for float32, 1e-12 for float64, an eps for halves.

        Raises:
            EmulationError: check mode found an error in the kernel; the message names file and line.
            MismatchError: the kernel differs from its twin, or the gradient from finite differences.
        """
        from gpunet import emulator  # deferred: imports ctypes and subprocess

        on_cpu = [make_tensor(devices.move(t.array, devices.CPU)) for t in self._check_inputs(inputs, options)]
        emulated = [make_tensor(devices.move(t.array, devices.Device("emulated"))) for t in on_cpu]
        with no_grad():
            expected = None if self.kernel._twin is None else _as_tuple(self(*on_cpu, **options))
            for schedule in emulator.every_way():
                with emulator.check(**schedule):
                    found = _as_tuple(self(*emulated, **options))
                for name, y, twin in zip(self.kernel.output_names, found, expected or ()):
                    _compare(f"cuda_op {self.name!r}: output {name!r}", devices.to_host(y.array), twin.array, tolerance)
        if self._backward is None or not any(t.is_floating_point() for t in emulated):
            return
        for tensor, c_type in zip(emulated, self.kernel.c_types[self.kernel.outputs :]):
            if c_type == "T":
                tensor.array = devices.module(tensor.array).array(tensor.array, numpy.float64)
        requested = [isinstance(x, Tensor) and x.requires_grad for x in inputs]
        for tensor, is_requested in zip(emulated, requested):
            tensor.requires_grad = tensor.is_floating_point() and (is_requested or not any(requested))
        with emulator.check():
            gradcheck(lambda *xs: self(*xs, **options), emulated)


class Custom(Op):
    """The op of a :class:`CudaOp`, for the engine: its backward receives Tensors by name."""

    kind = "custom"

    def __init__(self, cuda_op: CudaOp) -> None:
        super().__init__(cuda_op)
        self.kernel, self._callback = cuda_op.kernel, cuda_op._backward
        if self._callback is not None:
            self.check_backward(self._callback.function)

    def check_backward(self, function: Any) -> None:
        if isinstance(function, CudaOp):
            return
        if type(function) is not FunctionType:
            raise ArgumentError(
                f"backward of cuda_op {self.name!r} is {function!r}; expected a function or a lambda, so that the arrays "
                "it uses are seen: take them as parameters"
            )
        for name, value in _closure(function):
            if isinstance(value, Tensor) or devices.is_array(value):
                raise ArgumentError(
                    f"backward of cuda_op {self.name!r} closes over the array {name!r}, so that its change in place "
                    "between forward and backward would not be noticed: make it an input of the kernel, and a parameter"
                )

    def record(
        self, tensors: Sequence[Tensor], results: list[Tensor], edges: list[Any], options: dict[str, Any]
    ) -> None:
        """Attach a graph node to the results; it saves only the tensors that ``backward`` names."""
        callback, out = self._callback, self.kernel.output_names
        if callback is None:
            needed = []
        else:
            needed = [*self.kernel.input_names, *out] if callback.has_var_keyword else callback.names
        # the detached outputs do not refer to the node, which would make a reference cycle
        by_name = [*zip(self.kernel.input_names, tensors), *((name, y.detach()) for name, y in zip(out, results))]
        saved = {name: tensor for name, tensor in by_name if name in needed}
        versions = [(tensor._version, tensor._version[0], None) for tensor in saved.values()]
        node = Node(self, edges, saved, versions, [(y.shape, y.dtype) for y in results], options)
        if packing:
            node.pack()
        for index, tensor in enumerate(results):
            _attach(tensor, node, index)

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        values = node.saved | node.options
        tensors = [None if g is None else materialize(g) for g in upstream]
        like = next(t.array for t in tensors if t is not None)
        for index, (name, tensor) in enumerate(zip(self.kernel.output_names, tensors)):
            if tensor is None:  # the loss does not depend on this output
                shape, dtype = node.outputs[index]
                tensor = make_tensor(empty(shape, dtype, like))
                FILL(tensor.array, value=0)
            values[f"d{name}"] = tensor
            if name in node.saved:
                values[name] = output = node.saved[name].detach()
                _attach(output, node, index)
        gradients = self._input_gradients(values, node)
        return [None if g is None else Gradient.of(g) for g in gradients]

    def _input_gradients(self, values: dict[str, Any], node: Node) -> list[Tensor | None]:
        """Call ``backward`` and return a gradient, or None, per input.

        Raises:
            GradientError: there is no ``backward``, or it did not return a Tensor or None per floating input.
            ShapeError: the shape or dtype of a gradient is not that of its input.
        """
        if self._callback is None:
            raise GradientError(
                f"cuda_op {self.name!r} has no backward: pass backward= to cuda_op, or .detach() its inputs"
            )
        returned = self._callback(values)
        items = returned if isinstance(returned, (tuple, list)) else (returned,)
        inputs = self.kernel.contract.parameters[self.kernel.outputs :]
        has_gradient = [not isinstance(p.dtype, numpy.dtype) or is_floating(p.dtype) for p in inputs]
        floating = [name for name, yes in zip(self.kernel.input_names, has_gradient) if yes]
        if len(items) != len(floating) or not all(g is None or isinstance(g, Tensor) for g in items):
            raise GradientError(
                f"{self._callback.label} returned {returned!r}; expected a Tensor or None for each of {', '.join(floating)}"
            )
        remaining = iter(items)
        gradients = [next(remaining) if yes else None for yes in has_gradient]
        for name, gradient, edge in zip(self.kernel.input_names, gradients, node.edges):
            if gradient is None or edge is None:
                continue
            shape, dtype = spec_at(edge)
            if gradient.shape != shape or gradient.dtype != dtype:
                raise ShapeError(
                    f"{self._callback.label} returned for {name!r} a gradient of shape {gradient.shape} and dtype "
                    f"{gradient.dtype}; expected those of the input, {shape} and {dtype}"
                )
        return gradients


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values that a function closes over, by variable, with what they contain or close over in turn."""
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", function)]
    while stack:
        name, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield name, value
        if isinstance(value, FunctionType):
            for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
                with contextlib.suppress(ValueError):  # the variable has no value yet
                    stack.append((variable, cell.cell_contents))
        elif isinstance(value, functools.partial):
            stack += [(name, item) for item in (value.func, *value.args, *value.keywords.values())]
        elif isinstance(value, MethodType):
            stack += [(name, value.__self__), (name, value.__func__)]
        elif isinstance(value, dict):
            stack += [(name, item) for item in value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack += [(name, item) for item in value]


def _attach(tensor: Tensor, node: Node, index: int) -> None:
    """Make a floating tensor output ``index`` of a node; an integer tensor stays outside the graph."""
    if tensor.is_floating_point():
        tensor._node, tensor._index, tensor._requires_grad = node, index, True


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _compare(label: str, found: numpy.ndarray, expected: numpy.ndarray, tolerance: float | None) -> None:
    """Raise a MismatchError if the kernel's output ``found`` differs from the twin's, ``expected``."""
    if tolerance is None:
        tolerance = {"float32": 1e-5, "float64": 1e-12}.get(found.dtype.name, 0.0)
        tolerance = float(finfo(found.dtype).eps) if is_half(found.dtype) else tolerance
    if is_half(found.dtype):
        found, expected = found.astype(numpy.float64), expected.astype(numpy.float64)
    finite = numpy.abs(expected[numpy.isfinite(expected)].astype(numpy.float64))
    allowed = tolerance * finite.max(initial=0.0)
    wrong = ~numpy.isclose(found, expected, rtol=0.0, atol=allowed, equal_nan=is_floating(found.dtype))
    if wrong.any():
        first = tuple(map(int, numpy.argwhere(wrong)[0]))
        raise MismatchError(
            f"{label}: kernel and twin differ in {int(wrong.sum())} of {wrong.size} elements: at {first} the kernel has "
            f"{found[first]}, the twin {expected[first]} (tolerance {allowed:.2g})"
        )
