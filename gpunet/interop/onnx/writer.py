"""Write a traced graph as an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import onnx
from onnx import helper

import gpunet
from gpunet.errors import ExportError
from gpunet.interop.onnx import elementwise, reductions, shapes  # noqa: F401  fill TRANSLATIONS
from gpunet.interop.onnx.builder import TRANSLATIONS, Builder
from gpunet.interop.onnx.layers import supports_options
from gpunet.interop.tracing import Dim, Graph, Spec

#: Ops of training, which are refused by name instead of being composed.
_REFUSED = ("drop", "masked_scale")


def supports(op: str, options: dict[str, Any]) -> bool:
    """Whether an op is translated as it is."""
    return op in _REFUSED or op == "linear_chain" or (op in TRANSLATIONS and supports_options(op, options))


def write(
    graph: Graph, output_names: Sequence[str], opset: int, folds: bool = True, export_params: bool = True,
    initializers_are_inputs: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """The graph as an ONNX model, which onnx's checker has accepted.

    Raises:
        ExportError: an op has no translation, or the checker refuses the model.
    """
    builder = Builder(graph, opset, folds, output_names)
    names = builder.build()
    inputs = [_value(name, spec) for name, spec in graph.inputs]
    nodes = builder.nodes
    for number, wanted in enumerate(output_names):
        name = names[number]
        is_made = any(name in node.output for node in nodes) and name not in names[:number]
        if is_made:
            _rename(nodes, name, wanted)
            names = [wanted if other == name else other for other in names]
        else:
            nodes.append(helper.make_node("Identity", [name], [wanted], name=wanted))
    outputs = [_value(name, graph.spec(ref)) for name, ref in zip(output_names, graph.outputs)]
    read = {name for node in nodes for name in node.input}
    constants = {name: tensor for name, tensor in builder.constants.items() if name in read}
    nodes = [*(helper.make_node("Constant", [], [name], name=name, value=tensor) for name, tensor in constants.items()), *nodes]
    initializers = {name: tensor for name, tensor in builder.initializers.items() if name in read}
    parameters = [name for name in initializers if name in graph.parameters]
    if initializers_are_inputs or not export_params:
        inputs += [helper.make_tensor_value_info(n, initializers[n].data_type, initializers[n].dims) for n in parameters]
    if not export_params:
        initializers = {name: tensor for name, tensor in initializers.items() if name not in parameters}
    built = helper.make_graph(nodes, "gpunet", inputs, outputs, [*initializers.values()])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        built, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets), producer_name="gpunet",
        producer_version=gpunet.__version__,
    )  # fmt: skip
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx's checker refuses the exported graph: {' '.join(str(error).split())}") from None
    return model


def as_text(model: onnx.ModelProto) -> str:
    """The graph of a model as text."""
    return onnx.printer.to_text(model)


def _rename(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _value(name: str, spec: Spec) -> onnx.ValueInfoProto:
    dims = [str(size) if isinstance(size, Dim) else int(size) for size in spec.shape]
    try:
        kind = helper.np_dtype_to_tensor_dtype(numpy.dtype(spec.dtype))
    except (KeyError, ValueError):
        raise ExportError(f"{name} has dtype {spec.dtype}, which ONNX does not have; convert it, as with .float()") from None
    return helper.make_tensor_value_info(name, kind, dims)
