"""The module that runs an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from gpunet.autograd import Tensor, make_tensor, no_grad, wrap
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, FormatError, GpunetError, OutOfRangeError
from gpunet.interop.onnx import layer_operators, operators  # noqa: F401  fill OPERATORS
from gpunet.interop.onnx.operator_table import DTYPES, OPERATORS, Attributes, Operator
from gpunet.launch.tape import unrecorded
from gpunet.nn import Module, Parameter

#: Versions of the operators that are read.
OPSETS = range(13, 24)
_MAX_NODES, _MAX_DIMS = 1_000_000, 32


class Step(NamedTuple):
    """A node of the graph.

    Attributes:
        operator: its operator.
        inputs: names; "" for an optional input that is not given.
    """

    operator: Operator
    attributes: Attributes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    where: str


class OnnxModule(Module):
    """An ONNX graph as a module, see :func:`gpunet.onnx.load`.

    Attributes:
        input_names, output_names: of the graph.
        input_shapes: for each input its shape; a name or None stands for a size that is not fixed.
        input_dtypes: for each input its dtype; None for a type that gpunet does not have.
    """

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        super().__init__()
        graph = model.graph
        self.opset = _opset(model, where)
        initializers = {tensor.name: _array(tensor, where) for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in initializers]
        self.input_names = tuple(value.name for value in inputs)
        self.input_shapes = tuple(map(_shape, inputs))
        self.input_dtypes = tuple(DTYPES.get(value.type.tensor_type.elem_type) for value in inputs)
        self.output_names = tuple(value.name for value in graph.output)
        #: initializers and constants that do not train, as NumPy arrays: they are on no device
        self.constants: dict[str, numpy.ndarray] = {}
        self._steps = [*_steps(graph, self.opset, where)]
        statistics = {name for step in self._steps if step.attributes.operator == "BatchNormalization" for name in step.inputs[3:5]}
        read = {name for step in self._steps for name in step.inputs} | {*self.output_names}
        self._places: dict[str, tuple[str, ...]] = {}
        for name, array in initializers.items():
            if name not in read:
                continue
            if is_floating(array.dtype) and array.ndim:
                tensor = make_tensor(array)
                self._place(name, tensor if name in statistics else Parameter(tensor))
            else:
                self.constants[name] = array
        _check_names(self, where)

    def _place(self, name: str, tensor: Tensor) -> None:
        """Register a parameter or buffer; a dotted name, such as "features.0.weight", is a path of submodules."""
        path = tuple(part or "_" for part in name.split("."))
        owner: Module = self
        for part in path[:-1]:
            if part in owner._modules:
                owner = owner._modules[part]
            elif hasattr(owner, part):
                break
            else:
                owner.add_module(part, Module())
                owner = owner._modules[part]
        else:
            if not hasattr(owner, path[-1]):
                self._register(owner, path[-1], tensor)
                self._places[name] = path
                return
        flat = f"initializer_{len(self._places)}"
        self._register(self, flat, tensor)
        self._places[name] = (flat,)

    @staticmethod
    def _register(owner: Module, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, Parameter):
            owner.register_parameter(name, tensor)
        else:
            owner.register_buffer(name, tensor)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the graph on its inputs, in their order or by their names."""
        values: dict[str, Any] = {"": None, **self.constants, **self._given(inputs, named)}
        for name, path in self._places.items():
            found: Any = self
            for part in path:
                found = getattr(found, part)
            values[name] = found
        for step in self._steps:
            results = _run(step, [values[name] for name in step.inputs], self.training)
            missing = [name for name in step.outputs[len(results) :] if not name.startswith("\0")]
            if missing:
                raise FormatError(f"{step.where} has {len(results)} results; the output {missing[0]!r} is not supported")
            values.update(zip(step.outputs, results))
        outputs = [wrap(values[name]) for name in self.output_names]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _given(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Tensor]:
        given = dict(zip(self.input_names, inputs)) | {**named}
        if len(inputs) > len(self.input_names) or given.keys() != {*self.input_names} or len(given) != len(inputs) + len(named):
            got = f"{len(inputs)} inputs{''.join(f', {name}=' for name in named)}"
            raise ArgumentError(f"OnnxModule: got {got}; expected {', '.join(self.input_names)}")
        return {name: wrap(value) for name, value in given.items()}

    def extra_repr(self) -> str:
        return f"inputs={', '.join(self.input_names)}; outputs={', '.join(self.output_names)}; {len(self._steps)} nodes"


def _run(step: Step, inputs: Sequence[Any], is_training: bool) -> Sequence[Any]:
    """The results of a node; of NumPy arrays alone, such as shapes, NumPy arrays."""
    is_host = not any(isinstance(value, Tensor) for value in inputs)
    try:
        if is_host:
            with no_grad(), unrecorded():
                found = step.operator.run(step.attributes, *(value if value is None else make_tensor(value) for value in inputs))
                results = found if isinstance(found, tuple) else (found,)
                return [value.array if isinstance(value, Tensor) else value for value in results]
        mode = {"is_training": is_training} if step.operator.depends_on_mode else {}
        found = step.operator.run(step.attributes, *inputs, **mode)
        return found if isinstance(found, tuple) else (found,)
    except OutOfRangeError:
        raise  # of the user's indices
    except (GpunetError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        text = str(error)
        raise FormatError(text if text.startswith(step.where) else f"{step.where}: {text}") from error


# ---- reading --------------------------------------------------------------------------------------------------------------


def module_of(content: bytes, where: str) -> OnnxModule:
    """The module of the bytes of a file."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise FormatError(f"{where} is damaged, or is no ONNX file") from None
    if not model.graph.node and not model.graph.output:
        raise FormatError(f"{where} is damaged, or is no ONNX file: it has no graph")
    try:
        return OnnxModule(model, where).eval()
    except UnicodeDecodeError:
        raise FormatError(f"{where} is damaged: a text is not in UTF-8") from None


def _opset(model: onnx.ModelProto, where: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        found = f"{versions[0]}" if len(versions) == 1 else "missing"
        raise FormatError(f"{where}: the version of the operators is {found}; expected {OPSETS[0]} to {OPSETS[-1]}")
    return int(versions[0])


def _array(tensor: TensorProto, where: str) -> numpy.ndarray:
    """The array of a tensor, after a check that the file holds as many numbers as its shape says."""
    name = f"{where}: tensor {tensor.name!r}"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise FormatError(f"{name} is in another file, which is not read; save the model as one file")
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        raise FormatError(f"{name} has elements of type {tensor.data_type}; expected float, double, float16, integers or booleans")
    shape = tuple(tensor.dims)
    if len(shape) > _MAX_DIMS or any(n < 0 for n in shape):
        raise FormatError(f"{name} has shape {shape[:40]}; expected sizes of 0 or more")
    count = math.prod(shape)
    if tensor.raw_data:
        held, expected = len(tensor.raw_data), count * dtype.itemsize
    else:
        field = {numpy.dtype("float32"): "float_data", numpy.dtype("float64"): "double_data", numpy.dtype("int64"): "int64_data"}
        held, expected = len(getattr(tensor, field.get(dtype, "int32_data"))), count
    if held != expected:
        unit = "bytes" if tensor.raw_data else "numbers"
        raise FormatError(f"{name} of shape {shape} and {dtype} holds {held} {unit}; expected {expected}")
    try:
        return numpy.array(numpy_helper.to_array(tensor), dtype, order="C").reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{name} is damaged: {error}") from None


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def _steps(graph: onnx.GraphProto, opset: int, where: str) -> Iterator[Step]:
    if len(graph.node) > _MAX_NODES:
        raise FormatError(f"{where} has {len(graph.node)} nodes; expected at most {_MAX_NODES}")
    for number, node in enumerate(graph.node):
        at = f"{where}: node {node.name or number!r} ({node.op_type})"
        if node.domain not in ("", "ai.onnx"):
            raise FormatError(f"{at} has an operator of the domain {node.domain!r}; only those of ONNX itself are supported")
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            raise FormatError(f"{at}: this operator is not supported; see docs/export.md for those that are")
        given, needed = len(node.input), operator.num_inputs
        if not needed[0] <= given <= needed[1] or not all(node.input[: needed[0]]):
            expected = f"{needed[0]}" if needed[0] == needed[1] else f"{needed[0]} to {needed[1]}"
            raise FormatError(f"{at} has {given} inputs; expected {expected}")
        attributes = Attributes(node.op_type, opset, at, {})
        for attribute in node.attribute:
            attributes.values[attribute.name] = _attribute(attribute, at)
        unknown = attributes.values.keys() - operator.attributes
        if unknown:
            raise FormatError(f"{at}: attribute {min(unknown)!r} is not supported")
        try:
            operator.check(attributes)
        except FormatError:
            raise
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise FormatError(f"{at}: {error}") from None
        outputs = tuple(name or f"\0{number}" for name in node.output)
        yield Step(operator, attributes, tuple(node.input), outputs, at)


def _attribute(attribute: onnx.AttributeProto, at: str) -> Any:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(attribute.t, at)
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if attribute.type == kinds.STRINGS:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    if attribute.type in (kinds.FLOAT, kinds.INT, kinds.FLOATS, kinds.INTS):
        value = helper.get_attribute_value(attribute)
        return [*value] if attribute.type in (kinds.FLOATS, kinds.INTS) else value
    raise FormatError(f"{at}: attribute {attribute.name!r} has a type that is not supported")


def _check_names(module: OnnxModule, where: str) -> None:
    """Check that each value is made before it is read, and once."""
    known = {"", *module.constants, *module._places, *module.input_names}
    if len({*module.input_names}) != len(module.input_names):
        raise FormatError(f"{where}: two inputs have one name")
    for step in module._steps:
        missing = [name for name in step.inputs if name not in known]
        if missing:
            raise FormatError(f"{step.where} reads {missing[0]!r}, which nothing before it makes")
        twice = [name for name in step.outputs if name in known]
        if twice:
            raise FormatError(f"{step.where} makes {twice[0]!r}, which is there already")
        known.update(step.outputs)
    missing = [name for name in module.output_names if name not in known]
    if missing or not module.output_names:
        raise FormatError(f"{where}: the output {missing[0] if missing else ''!r} is made by no node")
