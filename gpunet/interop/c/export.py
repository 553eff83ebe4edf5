"""Export a model as one file of C99."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

import gpunet
from gpunet.backend.files import replacing
from gpunet.errors import ArgumentError, ExportError
from gpunet.interop.c import arithmetic, layers  # noqa: F401  fill EMITTERS
from gpunet.interop.c.names import check_name
from gpunet.interop.c.program import EMITTERS, Program
from gpunet.interop.tracing import Graph, Ref, trace
from gpunet.interop.tracing.trace import Call, on_cpu
from gpunet.nn import Module
from gpunet.train.modes import evaluating

_REFUSED = ("drop", "masked_scale", "embedding_rows")
_FLOAT32, _BOOL = numpy.dtype(numpy.float32), numpy.dtype(bool)


def export_c(
    model: Module, args: Any, f: str | os.PathLike[str] | None = None, *, name: str = "net", kwargs: Mapping[str, Any] | None = None
) -> str:  # fmt: skip
    """Export the forward pass of a model as one file of C99 with the function ``void NAME(const float* x, float* y)``.

    The file has the weights as static arrays, allocates nothing, and needs only the mathematical functions of the C library.  The
    function has the sizes of ``args``, batch included; x and y are contiguous and do not overlap.  It keeps intermediate results
    in static memory, so that one thread at a time may call it.  The model runs in eval mode, and each module is in its mode again
    afterwards.

    Args:
        model: a module of float32 with one tensor as input and one as output.
        args: the argument of a call: a tensor of float32, or a tuple of it and of other values, which are constant in the file.
        f: a path, which is written beside its place and renamed.
        name: of the function.
        kwargs: keyword arguments of the call.

    Returns:
        The source.

    Raises:
        ExportError: an op has no translation, or a dtype is not float32; the message has op and module.
        ArgumentError: an argument is out of its range.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"export_c: model={type(model).__name__}; expected a gpunet.nn.Module")
    check_name(name)
    model, call = on_cpu(model, args, kwargs)
    with evaluating(model):
        source = _source(_traced(model, call), name)
    if f is not None:
        with replacing(Path(f)) as temporary:
            Path(temporary).write_text(source, encoding="ascii")
    return source


def _supports(op: str, options: dict[str, Any]) -> bool:
    return op in EMITTERS or op in _REFUSED or op == "linear_chain"


def _traced(model: Module, call: Call) -> Graph:
    count = len(call.tensors)
    graph = trace(model, call, [f"x{i}" for i in range(count)], [{}] * count, _supports)
    for what, number in (("takes", count), ("returns", len(graph.outputs))):
        if number != 1:
            raise ExportError(
                f"export_c: the model {what} {number} tensors; expected 1. Wrap it in a module that joins or selects them"
            )
    for what, spec in (("input", graph.inputs[0][1]), ("output", graph.spec(graph.outputs[0]))):
        if spec.dtype != _FLOAT32:
            raise ExportError(f"export_c: the {what} has dtype {spec.dtype}; expected float32: convert it with .float()")
        if not math.prod(spec.shape):
            raise ExportError(f"export_c: the {what} has shape {tuple(spec.shape)}; expected at least one element")
    return graph


def _source(graph: Graph, name: str) -> str:
    program = Program(graph)
    for number, node in enumerate(graph.nodes):
        program.node, program.number = node, number
        if node.op not in EMITTERS:
            raise program.refusal("")
        for spec in node.outputs:
            if spec.dtype not in (_FLOAT32, _BOOL):
                raise program.refusal(f", of dtype {spec.dtype},")
        program.line(f"/* {_comment(node.function)} in {_comment(node.module)} -> {_sizes(node.outputs[0].shape)} */")
        EMITTERS[node.op](program, node)
    (output,), (_, given) = graph.outputs, graph.inputs[0]
    made, count = program.root(output), math.prod(graph.spec(output).shape)
    buffers, total = _placed(program, made)
    if made.kind != "result":
        program.open(count, "i0")
        program.line(f"y[i0] = {program.operand(output, 'i0')};")
        program.close()
    reads = any(re.search(r"\bx\[", line) for line in program.lines)
    lines = [
        f"/* {name}: exported by gpunet {gpunet.__version__}.  C99; link with -lm.",
        f"   x: {_sizes(given.shape)}, {math.prod(given.shape)} floats.  y: {_sizes(graph.spec(output).shape)}, {count} floats.",
        "   Both are contiguous (row by row), and do not overlap.  One thread at a time may call it. */",
        "#include <math.h>",
        "",
        *program.constants,
        "",
        f"void {name}(const float* x, float* y);  /* its declaration, for callers */",
        "",
        f"void {name}(const float* x, float* y) {{",
        *([f"    static float buffer[{total}];"] if total else []),
        *buffers,
        *([] if reads else ["    (void)x;"]),
        *program.lines,
        "}",
        "",
    ]
    return "\n".join(lines)


def _placed(program: Program, output: Ref) -> tuple[list[str], int]:
    """Pointers to the results in one buffer, in which those that are not alive at the same time share memory.

    Returns:
        Their declarations, and the number of floats in the buffer.
    """
    nodes = program.graph.nodes
    last: dict[Ref, int] = {}
    for number, node in enumerate(nodes):
        for ref in node.references:
            last[program.root(ref)] = number
    alive: list[tuple[int, int, int]] = []  # end of life, start, size
    lines, total = [], 0
    for number, node in enumerate(nodes):
        for index, spec in enumerate(node.outputs):
            ref = Ref("result", number, index)
            if ref in program.places:
                continue
            if ref == output:
                lines.append(f"    float* const {program.name(ref)} = y;")
                continue
            alive = [item for item in alive if item[0] >= number]
            size, start = max(1, math.prod(spec.shape)), 0
            for _, other, length in sorted(alive, key=lambda item: item[1]):
                if start + size <= other:
                    break
                start = max(start, other + length)
            alive.append((last.get(ref, number), start, size))
            total = max(total, start + size)
            lines.append(f"    float* const {program.name(ref)} = buffer + {start};")
    return lines, total


def _sizes(shape: Any) -> str:
    return f"({', '.join(map(str, shape))})"


def _comment(text: str) -> str:
    return text.replace("*/", "").encode("ascii", "replace").decode()
