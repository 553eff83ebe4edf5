"""Export a model to ONNX."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gpunet.autograd import Tensor
from gpunet.backend.files import replacing
from gpunet.errors import ArgumentError, ExportError, MissingDependencyError
from gpunet.interop.onnx.load import MAX_BYTES
from gpunet.interop.tracing.graph import Graph
from gpunet.interop.tracing.trace import Call, Dynamic, on_cpu, trace
from gpunet.nn import Module
from gpunet.train.modes import evaluating

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

#: Versions of the operators that can be written, and the default.
OPSETS, DEFAULT_OPSET = range(18, 22), 18


def export(
    model: Module, args: Any = (), f: str | os.PathLike[str] | IO[bytes] | None = None, *, kwargs: Mapping[str, Any] | None = None,
    export_params: bool = True, verbose: bool | None = None, input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None, opset_version: int | None = None, do_constant_folding: bool = True,
    dynamic_axes: Mapping[str, Any] | None = None, dynamic_shapes: Any = None, keep_initializers_as_inputs: bool = False,
    verify: bool = True, dynamo: bool = True, external_data: bool = False, optimize: bool = True,
) -> onnx.ModelProto:  # fmt: skip
    """Export the forward pass of a model as an ONNX file.

    The model runs in eval mode, and each module is in its mode again afterwards.  The ops of the run become operators; a model that
    chooses by the values of its inputs is refused.  Before the file is written, onnxruntime runs it on the arguments, and with
    other sizes of dynamic dimensions, odd and even ones up to 5 times as large; its results must agree with the model's within
    1e-5 of the largest.

    Args:
        model: a module; on a GPU, a copy on the CPU is exported, and of DistributedDataParallel its ``module``.
        args: the arguments of a call: a tensor, or a tuple of tensors, of tuples, lists and dicts of tensors, and of other values,
            which are constant in the file.
        f: a path or a binary file.  A path is written beside its place and renamed, so that it is whole or not there.
        kwargs: keyword arguments of the call.
        export_params: with False, parameters and buffers are inputs of the graph, without values, and nothing is folded.
        verbose: log the graph as text, at level INFO of the logger "gpunet.interop.onnx.export".
        input_names: names of the tensors among the arguments, by default those of the parameters of ``forward``.
        output_names: names of the tensors that the model returns, by default "output", or "output_0", "output_1", ...; a parameter
            of the same name gets another one.
        opset_version: version of the operators, 18 to 21; 18 by default.
        do_constant_folding: compute what depends on parameters alone now; with False, it is computed by the graph.
        dynamic_axes: by input name the dimensions of any size, as {0: "batch"} or [0]; names of outputs are accepted, too, and
            follow.  By default the first dimension of each input, "batch", unlike in PyTorch; {} fixes all sizes.
        dynamic_shapes: the same by position of the tensors, or by name: ({0: "batch"}, None).
        keep_initializers_as_inputs: list the parameters among the inputs of the graph, too, with their values as defaults.
        verify: compare the results of onnxruntime.
        dynamo, optimize: have no effect: there is one exporter.
        external_data: has no effect: there is one file, which has the weights.

    Returns:
        The model, an ``onnx.ModelProto``.

    Raises:
        ExportError: an op has no translation, the result depends on values or sizes of the inputs in a way that a graph cannot
            express, or the results of onnxruntime differ.
        ArgumentError: an argument is out of its range.
        MissingDependencyError: onnx or, with ``verify``, onnxruntime is not installed.
    """
    try:
        from gpunet.interop.onnx import writer
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise MissingDependencyError("onnx.export needs the package onnx: pip install 'gpunet[onnx]'") from None
    from gpunet.interop.onnx.check import check, runtime

    if not isinstance(model, Module):
        raise ArgumentError(f"onnx.export: model={type(model).__name__}; expected a gpunet.nn.Module")
    if verify:
        runtime()
    opset = DEFAULT_OPSET if opset_version is None else opset_version
    if opset not in OPSETS:
        raise ArgumentError(f"onnx.export: opset_version={opset_version!r}; expected {OPSETS[0]} to {OPSETS[-1]}")
    model, call = on_cpu(model, args, kwargs)
    inputs = _input_names(model, call, input_names)
    dynamic = _dynamic(inputs, call, dynamic_axes, dynamic_shapes, output_names or ())
    with evaluating(model):
        folds = do_constant_folding and export_params
        graph = trace(model, call, inputs, dynamic, writer.supports, folds)
        outputs = _output_names(graph, output_names)
        _check_axes(dynamic_axes, inputs, outputs)
        _check_axes(dynamic_shapes, inputs, outputs, "dynamic_shapes")
        proto = writer.write(graph, outputs, opset, folds, export_params, keep_initializers_as_inputs)
        if proto.ByteSize() > MAX_BYTES:
            size = proto.ByteSize()
            raise ExportError(f"the file would have {size} bytes; an ONNX file holds less than 2 GB. Export parts of the model")
        if verbose:
            logger.info("%s", writer.as_text(proto))
        if verify:
            check(proto, model, call, graph, dynamic, export_params)
    content = proto.SerializeToString()
    if isinstance(f, (str, os.PathLike)):
        with replacing(Path(f)) as temporary:
            Path(temporary).write_bytes(content)
    elif f is not None:
        f.write(content)
    return proto


def _input_names(model: Module, call: Call, given: Sequence[str] | None) -> list[str]:
    """The names of the tensors among the arguments."""
    count = len(call.tensors)
    if given is not None:
        _check_names("input_names", given, count)
        return [*given]
    parameters = [p for p in inspect.signature(model.forward).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names: list[str] = []
    for number, value in enumerate(call.args):
        parameter = parameters[min(number, len(parameters) - 1)] if parameters else None
        name = "input" if parameter is None else parameter.name
        if parameter is not None and parameter.kind is parameter.VAR_POSITIONAL:
            name = f"{name}_{number}"
        names += _numbered(name, value)
    for name, value in call.kwargs.items():
        names += _numbered(name, value)
    return names


def _numbered(name: str, value: Any) -> list[str]:
    tensors = Call((value,), {}).tensors
    return [name] if isinstance(value, Tensor) else [f"{name}_{number}" for number in range(len(tensors))]


def _output_names(graph: Graph, given: Sequence[str] | None) -> list[str]:
    count = len(graph.outputs)
    if given is not None:
        _check_names("output_names", given, count)
        taken = {name for name, _ in graph.inputs}.intersection(given)
        if taken:
            raise ArgumentError(f"onnx.export: {min(taken)!r} names an input and an output; expected different names")
        return [*given]
    taken = {name for name, _ in graph.inputs} | graph.parameters.keys()
    found = ["output"] if count == 1 else [f"output_{number}" for number in range(count)]
    while taken.intersection(found):  # the parameters keep their names
        found = [f"model_{name}" for name in found]
    return found


def _check_names(argument: str, names: Sequence[str], count: int) -> None:
    if isinstance(names, str) or len(names) != count or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"onnx.export: {argument}={names!r}; expected {count} name{'s' * (count != 1)}")
    if len(set(names)) != count:
        raise ArgumentError(f"onnx.export: {argument}={names!r}; expected different names")


def _check_axes(given: Any, inputs: Sequence[str], outputs: Sequence[str], argument: str = "dynamic_axes") -> None:
    """Check that each name is that of an input or output."""
    if not isinstance(given, Mapping):
        return
    unknown = given.keys() - {*inputs} - {*outputs}
    if unknown:
        raise ArgumentError(
            f"onnx.export: {argument} has {min(unknown)!r}; the inputs are {', '.join(inputs)}, and the outputs "
            f"{', '.join(outputs) or 'are named by output_names'}"
        )


def _dynamic(
    names: Sequence[str], call: Call, axes: Mapping[str, Any] | None, shapes: Any, output_names: Sequence[str]
) -> Dynamic:
    """The dynamic dimensions of each input."""
    if axes is not None and shapes is not None:
        raise ArgumentError("onnx.export: got both dynamic_axes and dynamic_shapes; pass one of them")
    argument = "dynamic_axes" if shapes is None else "dynamic_shapes"
    if shapes is not None and not isinstance(shapes, Mapping):
        if not isinstance(shapes, (tuple, list)) or len(shapes) != len(names):
            raise ArgumentError(f"onnx.export: dynamic_shapes={shapes!r}; expected one entry for each of {len(names)} tensors")
        shapes = dict(zip(names, shapes))
    given = axes if shapes is None else shapes
    if given is None:
        return [{0: "batch"} if tensor.ndim else {} for tensor in call.tensors]
    # those that the model returns have their names after it has run, see _check_axes
    _check_axes(given, names, [*output_names, *(name for name in given if name.startswith("output"))], argument)
    found = []
    for name, tensor in zip(names, call.tensors):
        value = given.get(name) or {}
        pairs = value if isinstance(value, Mapping) else {dim: f"{name}_{dim}" for dim in value}
        entry: dict[int, str] = {}
        for dim, text in pairs.items():
            if text is None:
                continue
            if not isinstance(dim, int) or not -tensor.ndim <= dim < tensor.ndim or not isinstance(text, str) or not text:
                raise ArgumentError(
                    f"onnx.export: {argument}[{name!r}] has {dim!r}: {text!r}; expected dimensions of {tuple(tensor.shape)}, and "
                    "their names"
                )
            entry[dim % tensor.ndim] = text
        found.append(entry)
    return found
