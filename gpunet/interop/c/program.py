"""A C function that grows: constants, buffers, loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.errors import ExportError
from gpunet.interop.tracing import Graph, Node, Ref

#: An emitter: (program, node) appends the code of a node.
Emitter = Callable[..., None]
EMITTERS: dict[str, Emitter] = {}


def emits(*ops: str) -> Callable[[Emitter], Emitter]:
    """Decorator of the emitter of ops."""

    def declare(function: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(ops, function))
        return function

    return declare


def in_block(function: Emitter) -> Emitter:
    """An emitter whose variables are in a block of their own."""

    def emit(p: Program, node: Node) -> None:
        p.line("{")
        p.depth += 1
        function(p, node)
        p.close()

    return emit


class Affine(NamedTuple):
    """Places of elements: offset + the sum over dimensions of stride * index."""

    offset: int
    strides: tuple[int, ...]

    @classmethod
    def of(cls, places: ndarray) -> Affine | None:
        """The form of an array of places, or None if they are not affine."""
        if not places.size:
            return None
        first = int(places.flat[0])
        origin = (0,) * places.ndim
        strides = tuple(
            int(places[(*origin[:d], 1, *origin[d + 1 :])]) - first if places.shape[d] > 1 else 0 for d in range(places.ndim)
        )
        expected: Any = first
        for step, at in zip(strides, numpy.ogrid[tuple(slice(n) for n in places.shape)]):
            expected = expected + step * at
        return cls(first, strides) if numpy.array_equal(places, expected) else None

    @classmethod
    def contiguous(cls, shape: Sequence[int]) -> Affine:
        return cls(0, tuple(math.prod(shape[d + 1 :]) for d in range(len(shape))))

    @classmethod
    def broadcast(cls, shape: Sequence[int], target: Sequence[int]) -> Affine:
        """Of an operand of ``shape`` in loops over ``target``."""
        own = cls.contiguous(shape).strides
        lead = len(target) - len(shape)
        return cls(0, (0,) * lead + tuple(0 if n == 1 else step for n, step in zip(shape, own)))

    def text(self, indices: Sequence[str]) -> str:
        """The place as an expression of loop indices."""
        parts = [index if step == 1 else f"{step} * {index}" for step, index in zip(self.strides, indices) if step]
        return " + ".join(([str(self.offset)] if self.offset or not parts else []) + parts).replace("+ -", "- ")


def literal(value: float) -> str:
    """A float as C writes it."""
    number = float(value)
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    text = f"{number:.9g}"
    return text + ("f" if any(c in text for c in ".e") else ".0f")


def double(value: float) -> str:
    """A double as C writes it."""
    if not math.isfinite(value):
        return literal(value)
    return repr(float(value))


class Program:
    """The body of the function, its constants and its buffers.

    Args:
        graph: with one input of float32 or more, all sizes fixed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines: list[str] = []
        self.constants: list[str] = []
        self.depth = 1
        self.places: dict[Ref, Ref] = {}  # a value that has the memory of another one
        self._names: dict[Ref, str] = {}
        self._tables = 0
        self.node = Node("", (), {}, [])  # whose code is written, and its number
        self.number = 0

    # ---- values -----------------------------------------------------------------------------------------------------

    def root(self, ref: Ref) -> Ref:
        """The value whose memory a value has."""
        while ref in self.places:
            ref = self.places[ref]
        return ref

    def shape(self, value: Any) -> tuple[int, ...]:
        """The shape of an input of the node; () of a number."""
        return self.graph.spec(value).shape if isinstance(value, Ref) else ()

    def array(self, value: Any) -> ndarray | None:
        """The values of an input of the node if they are known: a parameter or a constant."""
        if not isinstance(value, Ref):
            return None
        value = self.root(value)
        found = {"parameter": self.graph.parameters, "constant": self.graph.constants}.get(value.kind)
        return None if found is None else found[value.key]  # type: ignore[index]

    def name(self, ref: Ref) -> str:
        """The C name of the memory of a value; a parameter or constant is declared at its first use."""
        ref = self.root(ref)
        if ref not in self._names:
            if ref.kind == "result":
                self._names[ref] = f"v{ref.key}" + (f"_{ref.output}" if ref.output else "")
            elif ref.kind == "input":
                self._names[ref] = "x"
            else:
                array = self.array(ref)
                assert array is not None
                text = "".join(c if c.isalnum() and c.isascii() else "_" for c in str(ref.key))
                self._names[ref] = self.constant(array, f"{'p' if ref.kind == 'parameter' else 'c'}{len(self.constants)}_{text}")
        return self._names[ref]

    def result(self) -> str:
        """The C name of the memory of the node's result."""
        return self.name(Ref("result", self.number))

    def constant(self, array: Any, name: str = "") -> str:
        """Declare a constant array of floats, or of ints if it has integers; return its name."""
        values = numpy.asarray(array)
        if not name:
            name, self._tables = f"t{self._tables}", self._tables + 1
        is_int = numpy.issubdtype(values.dtype, numpy.integer)
        items = [str(int(v)) if is_int else literal(v) for v in values.ravel().tolist()] or ["0"]
        lines, line = [], "   "
        for item in items:
            if len(line) + len(item) > 118:
                lines.append(line)
                line = "   "
            line += f" {item},"
        text = "\n".join([*lines, line])
        self.constants.append(f"static const {'int' if is_int else 'float'} {name}[{max(1, values.size)}] = {{\n{text}\n}};")
        return name

    def operand(self, value: Any, at: str) -> str:
        """The element of an input at a place, or a number."""
        if isinstance(value, Ref):
            return f"{self.name(value)}[{at}]"
        return literal(float(value))

    # ---- code -------------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Append a line of code."""
        self.lines.append("    " * self.depth + text)

    def open(self, count: int, index: str) -> None:
        """Begin a loop over 0 .. count - 1."""
        self.line(f"for (int {index} = 0; {index} < {count}; {index}++) {{")
        self.depth += 1

    def close(self, loops: int = 1) -> None:
        """End loops."""
        for _ in range(loops):
            self.depth -= 1
            self.line("}")

    def nest(self, shape: Sequence[int], prefix: str = "i") -> list[str]:
        """Begin a loop for each dimension of more than one element; return the index of each, "0" of the others."""
        indices = []
        for d, count in enumerate(shape):
            if count == 1:
                indices.append("0")
            else:
                self.open(count, f"{prefix}{d}")
                indices.append(f"{prefix}{d}")
        return indices

    def end(self, shape: Sequence[int]) -> None:
        """End the loops of :meth:`nest`."""
        self.close(sum(count != 1 for count in shape))

    def assign(self, shape: Sequence[int], target: Affine, expression: Callable[[list[str]], str]) -> None:
        """result[target] = expression(indices), in loops over ``shape``."""
        if 0 in shape:
            return
        indices = self.nest(shape)
        self.line(f"{self.result()}[{target.text(indices)}] = {expression(indices)};")
        self.end(shape)

    def refusal(self, detail: str) -> ExportError:
        """The error for a node without an emitter."""
        return ExportError(
            f"{self.node.function}{detail} has no translation to C (op {self.node.op!r}, in {self.node.module}). It covers linear, "
            "convolutional and recurrent layers, norms, pooling, activations, softmax, arithmetic and changes of shape; export the "
            "part of the model that has these, or use gpunet.onnx.export"
        )
