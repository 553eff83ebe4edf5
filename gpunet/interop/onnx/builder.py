"""Build an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import onnx
from onnx import helper, numpy_helper

from gpunet.errors import ExportError
from gpunet.interop.tracing import Dim, Graph, Node, Ref
from gpunet.interop.tracing.graph import Counting, Repeated, Shape, Spec, is_static

#: A translation: (builder, node, *inputs) -> the names of the results.
Translation = Callable[..., Any]
TRANSLATIONS: dict[str, Translation] = {}

int64 = numpy.dtype(numpy.int64)


def translates(*ops: str) -> Callable[[Translation], Translation]:
    """Decorator of the translation of ops: ``function(builder, node, *inputs)`` returns the name of the result, or of several.

    The inputs are names of values; numbers and None come as they are.
    """

    def declare(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(ops, function))
        return function

    return declare


class Builder:
    """An ONNX graph that grows.

    Args:
        graph: the traced pass.
        opset: version of the operators.
        folds: compute what depends on parameters alone.
        reserved: names that no value gets: those of the outputs.
    """

    def __init__(self, graph: Graph, opset: int, folds: bool = True, reserved: Sequence[str] = ()) -> None:
        self.graph, self.opset, self.folds = graph, opset, folds
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}  # weights
        self.constants: dict[str, onnx.TensorProto] = {}
        self._names: dict[Ref, str] = {}
        self._numbers: dict[tuple[str, bytes], str] = {}
        self._sizes: dict[str, str] = {}
        self._taken: set[str] = {name for name, _ in graph.inputs} | {*reserved}
        self._node = Node("", (), {}, [])
        for number, (name, _) in enumerate(graph.inputs):
            self._names[Ref("input", number)] = name

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node of an ONNX operator; return the name of its output, or the names of several."""
        names = [self._unique(kind.lower()) for _ in range(outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, [*inputs], names, name=f"{self._node.module} {names[0]}".strip(), **kept))
        return names[0] if outputs == 1 else names

    def _unique(self, name: str) -> str:
        found, number = name, 0
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant; equal small ones are one."""
        array = numpy.asarray(value, dtype)
        key = (array.dtype.str + str(array.shape), array.tobytes()) if array.size <= 64 else None
        if key is None or key not in self._numbers:
            name = self._unique("constant")
            self.constants[name] = _tensor(array, name)
            if key is None:
                return name
            self._numbers[key] = name
        return self._numbers[key]

    def weight(self, array: numpy.ndarray, name: str) -> str:
        """The name of an initializer, which another library may train."""
        name = self._unique(name)
        self.initializers[name] = _tensor(array, name)
        return name

    def integers(self, values: Sequence[int]) -> str:
        """The name of a constant vector of int64."""
        return self.constant(numpy.array([*values], numpy.int64))

    # ---- values -----------------------------------------------------------------------------------------------------

    def build(self) -> list[str]:
        """Translate all nodes; return the names of the outputs.

        Raises:
            ExportError: an op has no translation.
        """
        for number, node in enumerate(self.graph.nodes):
            self._node = node
            found = self.translate(node, *map(self.name, node.inputs))
            for index, name in enumerate([found] if isinstance(found, str) else found):
                self._names[Ref("result", number, index)] = name
        return [self.name(ref) for ref in self.graph.outputs]

    def translate(self, node: Node, *inputs: Any) -> Any:
        """Append the operators of a node; return the names of its results."""
        if node.op not in TRANSLATIONS:
            raise self.refusal(node)
        return TRANSLATIONS[node.op](self, node, *inputs)

    def refusal(self, node: Node, detail: str = "") -> ExportError:
        """The error for a node without a translation."""
        return ExportError(
            f"{node.function}{detail} has no translation to ONNX (op {node.op!r}, in {node.module}). Compute it from other "
            "functions of gpunet, or export the part of the model without it"
        )

    def name(self, value: Any) -> Any:
        """The name of a value in the ONNX graph; numbers and None as they are."""
        if not isinstance(value, Ref):
            return value
        if value not in self._names:
            self._names[value] = self._initializer(value)
        return self._names[value]

    def _initializer(self, ref: Ref) -> str:
        if ref.kind == "parameter":
            return self.weight(self.graph.parameters[ref.key], ref.key)
        value = self.graph.constants[ref.key]
        if isinstance(value, Repeated):
            if not value.value.ndim:
                return self.full(value.shape, value.value)
            return self.add("Expand", self.constant(value.value), self.sizes(value.shape))
        if isinstance(value, Counting):
            count = self.size(value.shape[value.dim])
            zero, one = self.constant(0, numpy.int64), self.constant(1, numpy.int64)
            counted = self.add("Range", zero, self.add("Squeeze", count), one)
            return self.reshape(self.cast(counted, value.dtype) if value.dtype != int64 else counted, value.shape)
        return self.constant(value)

    def spec(self, number: int = 0, node: Node | None = None) -> Spec:
        """The specification of an input of the node that is translated."""
        ref = (node or self._node).inputs[number]
        return self.graph.spec(ref)

    # ---- sizes ------------------------------------------------------------------------------------------------------

    def size(self, value: int | Dim) -> str:
        """A size as a vector of one int64."""
        if not isinstance(value, Dim):
            return self.integers([value])
        key = str(value)
        if key not in self._sizes:
            found = ""
            for name in value.names:
                part = self._dynamic_size(name)
                found = part if not found else self.add("Mul", found, part)
            if value.factor != 1:
                found = self.add("Mul", found, self.integers([value.factor]))
            if value.offset:
                found = self.add("Add", found, self.integers([value.offset]))
            self._sizes[key] = found
        return self._sizes[key]

    def _dynamic_size(self, name: str) -> str:
        if name in self.graph.made:
            ref, at = self.graph.made[name]
            return self.add("Shape", self.name(ref), start=at, end=at + 1)
        dim = Dim(1, (name,))
        for input_name, spec in self.graph.inputs:
            if dim in spec.shape:
                at = spec.shape.index(dim)
                return self.add("Shape", input_name, start=at, end=at + 1)
        raise AssertionError(name)

    def sizes(self, shape: Sequence[int | Dim]) -> str:
        """A shape as a vector of int64."""
        if is_static([*shape]):
            return self.constant(numpy.array([*shape], numpy.int64))
        parts = [self.size(value) for value in shape]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def reshape(self, x: str, shape: Shape) -> str:
        """x in another shape."""
        dynamic = [value for value in shape if isinstance(value, Dim)]
        if len(dynamic) == 1 and 0 not in shape:
            return self.add("Reshape", x, self.integers([-1 if isinstance(value, Dim) else value for value in shape]))
        return self.add("Reshape", x, self.sizes(shape))

    def squeezed_weight(self, ref: Ref, dim: int) -> str:
        """A value without a dimension of one element; of a parameter that only got this dimension, the parameter itself."""
        shape = self.graph.spec(ref).shape
        original = self.graph.reshaped.get(ref.key) if ref.kind == "parameter" else None
        if original is not None and self.graph.parameters[original].shape == (*shape[:dim], *shape[dim + 1 :]):
            return str(self.name(Ref("parameter", original)))
        return self.add("Squeeze", self.name(ref), self.integers([dim]))

    def full(self, shape: Shape, value: Any) -> str:
        """A tensor of one number, a 0-d array."""
        filled = numpy_helper.from_array(numpy.asarray(value).reshape(1))
        return self.add("ConstantOfShape", self.sizes(shape), value=filled)

    # ---- conversions ------------------------------------------------------------------------------------------------

    def cast(self, x: str, dtype: Any) -> str:
        """x in another dtype."""
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype)))

    def operand(self, value: Any, number: int, dtype: Any) -> str:
        """Input ``number`` of the node in a dtype; a number becomes a constant."""
        if isinstance(value, Dim):
            return self.cast(self.add("Squeeze", self.size(value)), dtype)
        if not isinstance(value, str):
            with numpy.errstate(over="ignore"):
                return self.constant(numpy.asarray(value).astype(dtype))
        return value if self.spec(number).dtype == dtype else self.cast(value, dtype)


def _tensor(array: numpy.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy.ascontiguousarray(array).reshape(array.shape), name)
