"""Translations of reductions, scans, softmax and products."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.interop.onnx.builder import TRANSLATIONS, Builder, translates
from gpunet.interop.tracing import Node
from gpunet.interop.tracing.graph import is_static
from gpunet.ops.resample import rows_of


def reduced(b: Builder, kind: str, x: str, axes: Any, keepdim: bool) -> str:
    """A reduction over axes; no axes reduce nothing."""
    return b.add(kind, x, b.integers(axes), keepdims=int(keepdim), noop_with_empty_axes=1)


def _reduction(kind: str) -> Any:
    def translate(b: Builder, node: Node, x: Any) -> str:
        x = b.operand(x, 0, node.outputs[0].dtype)
        return reduced(b, kind, x, node.options["axes"], node.options["keepdim"])

    return translate


TRANSLATIONS |= {"sum": _reduction("ReduceSum"), "mean": _reduction("ReduceMean"), "prod": _reduction("ReduceProd")}


@translates("extreme")
def _extreme(b: Builder, node: Node, x: str) -> str:
    kind = "ReduceMax" if node.options["name"].endswith("max") else "ReduceMin"
    return reduced(b, kind, x, node.options["axes"], node.options["keepdim"])


def _count(b: Builder, shape: Any, axes: Any, dtype: Any) -> str:
    """The number of elements that are reduced."""
    count = b.add("ReduceProd", b.sizes([shape[a] for a in axes]), keepdims=0)
    return b.cast(count, dtype)


@translates("variance")
def _variance(b: Builder, node: Node, x: str) -> str:
    axes, dtype, shape = node.options["axes"], node.outputs[0].dtype, b.spec().shape
    centred = b.add("Sub", x, reduced(b, "ReduceMean", x, axes, True))
    total = reduced(b, "ReduceSum", b.add("Mul", centred, centred), axes, node.options["keepdim"])
    return b.add("Div", total, b.add("Sub", _count(b, shape, axes, dtype), b.constant(node.options["correction"], dtype)))


@translates("cumsum")
def _cumsum(b: Builder, node: Node, x: Any) -> str:
    x = b.operand(x, 0, node.outputs[0].dtype)
    return b.add("CumSum", x, b.constant(node.options["axis"], numpy.int64), reverse=int(node.options["reverse"]))


@translates("any", "all")
def _any_all(b: Builder, node: Node, x: Any) -> str:
    whole = b.cast(b.operand(x, 0, numpy.dtype(bool)), numpy.int32)
    axis = node.options["axis"]
    found = reduced(b, "ReduceMax" if node.op == "any" else "ReduceMin", whole, axis if isinstance(axis, tuple) else (axis,), True)
    return b.cast(found, node.outputs[0].dtype)


@translates("argmax", "argmin")
def _arg_extreme(b: Builder, node: Node, x: str) -> str:
    axis, kind = node.options["axis"], {"argmax": "ArgMax", "argmin": "ArgMin"}[node.op]
    if axis is None:
        return b.reshape(b.add(kind, b.add("Reshape", x, b.integers([-1])), axis=0, keepdims=0), node.outputs[0].shape)
    return b.add(kind, x, axis=axis, keepdims=0)


@translates("argsort")
def _argsort(b: Builder, node: Node, x: str) -> str:
    axis = node.options["axis"]
    count = b.size(b.spec().shape[axis])
    return str(b.add("TopK", x, count, outputs=2, axis=axis, largest=0)[1])


@translates("softmax", "log_softmax")
def _softmax(b: Builder, node: Node, x: str) -> str:
    return b.add({"softmax": "Softmax", "log_softmax": "LogSoftmax"}[node.op], x, axis=node.options["axis"])


@translates("logsumexp")
def _logsumexp(b: Builder, node: Node, x: str) -> str:
    return reduced(b, "ReduceLogSumExp", x, node.options["axes"], node.options["keepdim"])


@translates("matmul")
def _matmul(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = node.outputs[0].dtype
    return b.add("MatMul", b.operand(x, 0, dtype), b.operand(y, 1, dtype))


@translates("det")
def _det(b: Builder, node: Node, x: str) -> str:
    return b.add("Det", x)


@translates("resample")
def _resample(b: Builder, node: Node, x: str) -> str:
    """A product with the matrix of the table; if it only picks elements, a Gather."""
    dim, dtype, rank = node.options["dim"], node.outputs[0].dtype, len(b.spec().shape)
    if not is_static(node.options["table"]):
        raise b.refusal(node, " along a dynamic dimension")
    places, weights, columns = rows_of(node.options["table"])[:3]
    if weights.shape[1] == 1 and (weights == 1).all():
        return b.add("Gather", x, b.constant(places[:, 0], numpy.int64), axis=dim)
    matrix = numpy.zeros((columns, len(places)), numpy.float64)
    numpy.add.at(matrix, (places, numpy.arange(len(places))[:, None]), weights)
    if dim == rank - 1:
        return b.add("MatMul", x, b.constant(matrix, dtype))
    if dim == rank - 2:
        return b.add("MatMul", b.constant(matrix.T, dtype), x)
    order = [d for d in range(rank) if d != dim] + [dim]
    found = b.add("MatMul", b.add("Transpose", x, perm=order), b.constant(matrix, dtype))
    return b.add("Transpose", found, perm=[order.index(d) for d in range(rank)])
