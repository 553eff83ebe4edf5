"""cuda_op: an op of a user's own, from a CUDA source, with a NumPy twin and a backward.

What the CUDA entry point declares is not said again.  Its ``const`` pointers are the op's inputs, its other pointers the
outputs, and its scalars are options of the op or computed for the launch.  The functions that belong to an op (``launch``,
``shapes``, ``twin``, ``backward``) are called with what their parameters name, in any order.
"""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import (
    FILL,
    Node,
    Op,
    Tensor,
    contiguous,
    get_default_dtype,
    gradcheck,
    ignore_fp_errors,
    is_grad_enabled,
    no_grad,
    operands,
)
from gpunet.autograd.graph import edge_to
from gpunet.backend import cuda_sources as sources
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import C_TYPES
from gpunet.backend.signature import Entry, bare_name, entries, find_entry
from gpunet.errors import ArgumentError, DtypeError, GradientError, MismatchError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.custom_kernel import ByName, CustomKernel

__all__ = ["cuda_op"]

_FLOATING = ("float32", "float64")


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
    """Make an op of a ``__global__`` function.

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

    The ``const`` pointers of the function are the op's inputs, in order, its other pointers the outputs.  ``T*`` stands
    for float32 or float64, as the inputs are; any other type of pointer for arrays of that dtype.  Scalars that ``launch``
    does not compute are options of the op, passed by keyword.  All arrays reach the kernel C-contiguous.

    Each of the functions below is called with what its parameters name: inputs and outputs by their names in the CUDA
    function, options by theirs.

    Args:
        source: the CUDA source, or the path of a file (a ``pathlib.Path``).  ``#include "pack.cuh"`` finds the headers of
            ``cuda_kernels/``.
        launch: of outputs, inputs and options: a dictionary with ``grid`` and ``block`` (an int or up to three),
            the scalars that it computes by name, and at need ``shared`` (bytes of dynamic shared memory) and ``template``
            (the template arguments after ``T``, as text).  A grid of 0 launches nothing.
        name: the ``__global__`` function; needed where there are several, and for one in a namespace.
        shapes: of inputs and options: the shape of the output, or a tuple with a shape for each.  Without it all outputs
            have the shape of the first input.
        twin: of inputs and options, NumPy arrays: what the kernel computes, a NumPy array, or one for each output.  It is
            what runs on the CPU.
        backward: of gradients of the outputs (``dy`` for the output ``y``), outputs, inputs and options, all Tensors: the
            gradient of each floating input in order, None for one that has none.  Made of ops, it can be differentiated
            again; another ``cuda_op`` serves, too.  What it does not name is not kept.
        zeroed: names of the outputs that are zero before the launch, separated by blanks: for sums by atomics.

    Raises:
        ArgumentError: the source has no such function, or one of a kind that is not taken.
        CompileError: a file or header is not there.  The source itself is compiled at the first launch.
    """
    called = ""
    if isinstance(source, str):
        called = f"{bare_name(name) if name else _only(source, entries(source)).name}.cu"
    found = sources.splice(source, called)
    declared = entries(found.text)
    entry = _only(found.name, declared) if name is None else find_entry(found.text, found.name, name, specialised=False)
    what = f"cuda_op {entry.name!r}"
    asked = {"launch": launch, "shapes": shapes, "twin": twin, "backward": backward}
    functions = {key: ByName(f, f"{key} of {what}") for key, f in asked.items() if f is not None}
    return CudaOp(CustomKernel(found, entry, name or entry.name, functions), functions, zeroed.split())


def _only(source: str, declared: dict[str, Entry]) -> Entry:
    if len(declared) == 1:
        return next(iter(declared.values()))
    if declared:
        raise ArgumentError(f"cuda_op: the source defines {', '.join(declared)}; say which with name=")
    if "\n" not in source and source.endswith((".cu", ".cuh")):
        raise ArgumentError(f"cuda_op: {source!r} is no CUDA source; for a file pass pathlib.Path({source!r})")
    raise ArgumentError("cuda_op: the source defines no __global__ function; with one in a header, say which by name=")


class CudaOp:
    """An op made by :func:`cuda_op`: called with tensors and options, it returns a Tensor, or a tuple of them."""

    def __init__(self, kernel: CustomKernel, functions: dict[str, ByName], zeroed: Sequence[str]) -> None:
        self.kernel = kernel
        self.name = self.__name__ = kernel.name
        self._shapes, self._backward = functions.get("shapes"), functions.get("backward")
        gradients = [f"d{y}" for y in kernel.out]
        known = {
            "launch": [*kernel.out, *kernel.inputs, *kernel.taken],
            "shapes": [*kernel.inputs, *kernel.taken],
            "twin": [*kernel.inputs, *kernel.taken],
            "backward": [*gradients, *kernel.out, *kernel.inputs, *kernel.taken],
        }
        for key, function in functions.items():
            function.check_names(known[key])
        what = f"cuda_op {self.name!r}"
        if self._backward is not None and (both := {*gradients} & {*kernel.inputs, *kernel.out}):
            raise ArgumentError(
                f"{what}: {both.pop()!r} is an array of the kernel and the gradient of another; rename one"
            )
        for name in zeroed:
            if name not in kernel.out:
                raise ArgumentError(f"{what}: zeroed names {name!r}; the outputs are {', '.join(kernel.out)}")
        self._zeroed = [name in zeroed for name in kernel.out]
        kinds = inspect.Parameter
        self.__signature__ = inspect.Signature(
            [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in kernel.inputs]
            + [kinds(name, kinds.KEYWORD_ONLY, default=None) for name in kernel.taken]
        )
        self._op = Op(self, kind="custom")

    def __repr__(self) -> str:
        return f"<cuda_op {self.kernel.declared}>"

    @ignore_fp_errors
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the op.

        Raises:
            ArgumentError: too few or too many inputs, or an option that nobody takes.
            DtypeError: an input of another dtype than the kernel's.
            DeviceError: tensors on different devices, or on the CPU without a twin.
        """
        kernel = self.kernel
        named = [name for name in kernel.inputs if name in options]
        inputs += tuple(options.pop(name) for name in named) if kernel.inputs[len(inputs) :] == named else ()
        tensors = self._checked(inputs, options)
        arrays = [contiguous(t.array) for t in tensors]
        outputs = [empty(*about, arrays[0]) for about in self._destinations(arrays, options)]
        for zero, output in zip(self._zeroed, outputs):
            if zero:
                FILL(output, value=0)
        kernel(*outputs, *arrays, **options)
        results = [Tensor(output) for output in outputs]
        edges = [edge_to(t) for t in tensors] if is_grad_enabled() else []
        if any(edges):
            self._link(tensors, results, edges, options)
        return results[0] if len(results) == 1 else tuple(results)

    def _checked(self, inputs: Sequence[Any], options: dict[str, Any]) -> Sequence[Tensor]:
        kernel = self.kernel
        if len(inputs) != len(kernel.inputs):
            raise ArgumentError(
                f"{self.name}: {len(inputs)} inputs; expected {len(kernel.inputs)}: {', '.join(kernel.inputs)}"
            )
        for name in options:
            if name not in kernel.taken:
                raise ArgumentError(f"{self.name}: no option {name!r}; there are {', '.join(kernel.taken) or 'none'}")
        tensors = operands(self.name, inputs)
        floating = None
        for name, tensor, c_type in zip(kernel.inputs, tensors, kernel.c_types[kernel.outputs :]):
            if not isinstance(tensor, Tensor):
                raise ArgumentError(f"{self.name}: input {name!r} is {tensor!r}; expected a Tensor or an array")
            found = tensor.dtype.name
            if c_type == "T":
                floating = floating or found
                expected: tuple[str, ...] = (floating,) if floating in _FLOATING else _FLOATING
            else:
                expected = tuple(dtype for dtype, c_name in C_TYPES.items() if c_name == c_type)
            if found not in expected:
                wanted = " or ".join(expected)
                raise DtypeError(
                    f"{self.name}: input {name!r} is {found}, the kernel takes {wanted} there; convert it with "
                    f".to(gpunet.{expected[0]})"
                )
        return tensors

    def _destinations(self, arrays: Sequence[Array], options: dict[str, Any]) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each output."""
        kernel = self.kernel
        dtypes = dict(zip(kernel.parameters, kernel.contract.dtypes))
        floating = next((a.dtype for a, n in zip(arrays, kernel.inputs) if dtypes[n] is None), get_default_dtype())
        shapes: Any = [arrays[0].shape] * kernel.outputs
        if self._shapes is not None:
            answer = self._shapes(dict(zip(kernel.inputs, arrays)) | options)
            shapes = [answer] if kernel.outputs == 1 else answer
            try:
                shapes = [tuple(map(operator.index, (s,) if isinstance(s, int) else s)) for s in shapes]
            except TypeError:
                shapes = []
            if len(shapes) != kernel.outputs or any(n < 0 for shape in shapes for n in shape):
                raise ShapeError(
                    f"{self._shapes.what} returned {answer!r}; expected "
                    + ("a shape" if kernel.outputs == 1 else f"a shape for each of {', '.join(kernel.out)}")
                )
        return [(shape, dtypes[name] or floating) for name, shape in zip(kernel.out, shapes)]

    def check(self, *inputs: Any, tolerance: float | None = None, **options: Any) -> None:
        """Hold the kernel to its twin, and the backward to finite differences.  For tests: it needs g++ and no card.

        The kernel runs on the device "emulated" in check mode, under every schedule, so that races, wrong bounds and
        missing barriers are found, too.

        Args:
            inputs: small ones.  Gradients are checked of those that require one, or of all floating inputs where none
                does; in float64 where the kernel is a template of ``T``.
            tolerance: of kernel and twin, relative to an output's largest element: 1e-5 for float32, 1e-12 for float64.

        Raises:
            EmulationError: what was found in the running kernel, by file and line.
            MismatchError: kernel and twin, or gradient and finite differences, differ.
        """
        from gpunet import emulator  # brings ctypes and subprocess in, which a CPU run does without

        given = [Tensor(devices.move(t.array, devices.CPU)) for t in self._checked(inputs, options)]
        there = [Tensor(devices.move(t.array, devices.Device("emulated"))) for t in given]
        with no_grad():
            expected = None if self.kernel._twin is None else _tuple(self(*given, **options))
            for way in emulator.every_way():
                with emulator.check(**way):
                    found = _tuple(self(*there, **options))
                for name, y, twin in zip(self.kernel.out, found, expected or ()):
                    _compare(f"cuda_op {self.name!r}: output {name!r}", y.array.get(), twin.array, tolerance)
        if self._backward is None or not any(t.is_floating_point() for t in there):
            return
        for tensor, c_type in zip(there, self.kernel.c_types[self.kernel.outputs :]):
            tensor.array = tensor.array.astype(numpy.float64) if c_type == "T" else tensor.array
        asked = [isinstance(x, Tensor) and x.requires_grad for x in inputs]
        for tensor, wanted in zip(there, asked):
            tensor.requires_grad = tensor.is_floating_point() and (wanted or not any(asked))
        with emulator.check():
            gradcheck(lambda *xs: self(*xs, **options), there)

    # ---- backward -----------------------------------------------------------------------------------------------------

    def _link(
        self, tensors: Sequence[Tensor], results: list[Tensor], edges: list[Any], options: dict[str, Any]
    ) -> None:
        """Make the results part of the graph.  Only what ``backward`` names is kept."""
        asker, out = self._backward, self.kernel.out
        wanted = [] if asker is None else [*self.kernel.inputs, *out] if asker.takes_all else asker.names
        inputs = {name: tensor for name, tensor in zip(self.kernel.inputs, tensors) if name in wanted}
        # of the outputs their parts: the Tensors themselves would close a circle of references
        made = [(y.array if name in wanted else None, y._version, y.shape, y.dtype) for name, y in zip(out, results)]
        about = [(t.shape, t.dtype) for t in tensors]

        def backward(node: Node, arrived: list[Tensor | None]) -> list[Tensor | None]:
            values: dict[str, Any] = dict(inputs)
            like = next(g.array for g in arrived if g is not None)
            for index, (array, version, shape, dtype) in enumerate(made):
                gradient = arrived[index]
                if gradient is None:  # nothing depends on this output
                    gradient = Tensor(empty(shape, dtype, like))
                    FILL(gradient.array, value=0)
                values[f"d{out[index]}"] = gradient
                if array is not None:
                    values[out[index]] = output = Tensor(array)
                    output._version = version
                    _attach(output, node, index)
            return self._gradients(values | options, about)

        node = Node(self._op, edges, backward, len(results))
        saved = [*inputs.values(), *(y for name, y in zip(out, results) if name in wanted)]
        node.saved = [(tensor._version, tensor._version[0], None) for tensor in saved]
        for index, tensor in enumerate(results):
            _attach(tensor, node, index)

    def _gradients(self, values: dict[str, Any], about: Sequence[tuple[tuple[int, ...], Any]]) -> list[Tensor | None]:
        """What ``backward`` answers, for each input.

        Raises:
            GradientError: there is no backward, or it returned something else than the gradients.
            ShapeError: a gradient has another shape than its input.
        """
        if self._backward is None:
            raise GradientError(
                f"cuda_op {self.name!r} has no backward: pass backward= to cuda_op, or .detach() its inputs"
            )
        answer = self._backward(values)
        answers = answer if isinstance(answer, (tuple, list)) else (answer,)
        floating = [name for name, (_, dtype) in zip(self.kernel.inputs, about) if dtype.kind == "f"]
        if len(answers) != len(floating) or not all(g is None or isinstance(g, Tensor) for g in answers):
            raise GradientError(
                f"{self._backward.what} returned {answer!r}; expected a Tensor or None for each of {', '.join(floating)}"
            )
        found = iter(answers)
        gradients = [next(found) if dtype.kind == "f" else None for _, dtype in about]
        for name, gradient, (shape, dtype) in zip(self.kernel.inputs, gradients, about):
            if gradient is not None and (gradient.shape != shape or gradient.dtype != dtype):
                raise ShapeError(
                    f"{self._backward.what} returned for {name!r} a gradient of shape {gradient.shape} and {gradient.dtype}; "
                    f"the input has {shape} and {dtype}"
                )
        return gradients


def _attach(tensor: Tensor, node: Node, index: int) -> None:
    """Make a tensor an output of a node; one of integers has no gradient."""
    if tensor.is_floating_point():
        tensor._node, tensor._index, tensor._requires_grad = node, index, True


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _compare(what: str, found: numpy.ndarray, expected: numpy.ndarray, tolerance: float | None) -> None:
    if tolerance is None:
        tolerance = {"float32": 1e-5, "float64": 1e-12}.get(found.dtype.name, 0.0)
    finite = numpy.abs(expected[numpy.isfinite(expected)].astype(numpy.float64))
    allowed = tolerance * finite.max(initial=0.0)
    wrong = ~numpy.isclose(found, expected, rtol=0.0, atol=allowed, equal_nan=found.dtype.kind == "f")
    if wrong.any():
        first = tuple(map(int, numpy.argwhere(wrong)[0]))
        raise MismatchError(
            f"{what}: kernel and twin differ in {int(wrong.sum())} of {wrong.size} elements: at {first} the kernel has "
            f"{found[first]}, the twin {expected[first]} (tolerance {allowed:.2g})"
        )
