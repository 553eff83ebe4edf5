"""Translations of layers: linear, convolution, pooling, norms, embedding, recurrence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from gpunet.interop.onnx.builder import Builder, translates
from gpunet.interop.onnx.reductions import reduced
from gpunet.interop.tracing import Dim, Node, Ref
from gpunet.interop.tracing.graph import is_static
from gpunet.ops.convolution import Window
from gpunet.ops.pooling_launches import Windows, _factors
from gpunet.ops.recurrent_cells import CELLS


@translates("linear")
def _linear(b: Builder, node: Node, x: str, w: str, bias: str | None) -> str:
    return b.add("Gemm", x, w, *([] if bias is None else [bias]), transB=1)


# ---- convolution --------------------------------------------------------------------------------------------------------


def at_sizes(value: Any, sizes: Mapping[str, int]) -> Any:
    """An option with these sizes in the place of dynamic ones."""
    if isinstance(value, Dim):
        return value.at(sizes)
    if isinstance(value, (tuple, list)):
        parts = [at_sizes(part, sizes) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _for_all_sizes(b: Builder, node: Node, detail: str, find: Callable[[Mapping[str, int]], list[int]]) -> list[int]:
    """What is found for the sizes with which the model was traced; it must be the same for all."""
    first, *others = map(find, b.graph.variants)
    if any(other != first for other in others):
        raise b.refusal(node, detail)
    return first


def _pads(b: Builder, node: Node, extent: Any, size: Any, taps: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """The padding before and behind each dimension, with which so many windows fit."""

    def behind(sizes: Mapping[str, int]) -> list[int]:
        numbers = zip(at_sizes(extent, sizes), at_sizes(size, sizes), taps, stride, padding, dilation)
        return [max(low, (m - 1) * s + d * (k - 1) + 1 - n - low) for n, m, k, s, low, d in numbers]

    return [*padding, *_for_all_sizes(b, node, " of dynamic sizes, some of which have a window more (ceil_mode=True),", behind)]


@translates("convolution")
def _convolution(b: Builder, node: Node, x: str, w: str, bias: str | None) -> str:
    window: Window = node.options["window"]
    taps = window.filters[2:]
    if window.extent[0] == window.size[0] == taps[0] == 1 and window.padding[0] == 0:  # signals
        return _signals(b, node, x, bias, window)
    pads = _pads(b, node, window.extent, window.size, taps, window.stride, window.padding, window.dilation)
    return b.add(
        "Conv", x, w, *([] if bias is None else [bias]), kernel_shape=[*taps], strides=[*window.stride], pads=pads,
        dilations=[*window.dilation], group=window.groups,
    )  # fmt: skip


def _signals(b: Builder, node: Node, x: str, bias: str | None, window: Window) -> str:
    """A convolution of signals, which the op has as images of one row."""
    one, filters = b.integers([2]), b.squeezed_weight(node.inputs[1], 2)
    pairs = (window.extent, window.size, window.filters[2:], window.stride, window.padding, window.dilation)
    numbers = [pair[1:] for pair in pairs]
    y = b.add(
        "Conv", b.add("Squeeze", x, one), filters, *([] if bias is None else [bias]),
        kernel_shape=[window.filters[3]], strides=[window.stride[1]], pads=_pads(b, node, *numbers), dilations=[window.dilation[1]],
        group=window.groups,
    )  # fmt: skip
    return b.add("Unsqueeze", y, one)


@translates("transposed_convolution")
def _transposed_convolution(b: Builder, node: Node, x: str, w: str) -> str:
    window: Window = node.options["window"]
    taps = window.filters[2:]

    def behind(sizes: Mapping[str, int]) -> list[int]:  # rows and columns beyond what the windows reach
        extent, size = at_sizes(window.extent, sizes), at_sizes(window.size, sizes)
        numbers = zip(extent, size, taps, window.stride, window.padding, window.dilation)
        return [n - ((m - 1) * s - 2 * low + d * (k - 1) + 1) for n, m, k, s, low, d in numbers]

    extra = _for_all_sizes(b, node, " to sizes that are no multiples of those of the input", behind)
    if window.extent[0] == window.size[0] == taps[0] == 1 and window.padding[0] == 0:  # signals
        one = b.integers([2])
        y = b.add(
            "ConvTranspose", b.add("Squeeze", x, one), b.squeezed_weight(node.inputs[1], 2), kernel_shape=[taps[1]],
            strides=[window.stride[1]], pads=[window.padding[1]] * 2, output_padding=extra[1:], dilations=[window.dilation[1]],
            group=window.groups,
        )  # fmt: skip
        return b.add("Unsqueeze", y, one)
    return b.add(
        "ConvTranspose", x, w, kernel_shape=[*taps], strides=[*window.stride], pads=[*window.padding] * 2, output_padding=extra,
        dilations=[*window.dilation], group=window.groups,
    )  # fmt: skip


@translates("conv3d")
def _conv3d(b: Builder, node: Node, x: str, w: str, bias: str | None) -> str:
    o = node.options
    return b.add(
        "Conv", x, w, *([] if bias is None else [bias]), kernel_shape=[*b.spec(1).shape[2:]], strides=[*o["stride"]],
        pads=[*o["low"], *o["high"]], dilations=[*o["dilation"]], group=o["groups"],
    )  # fmt: skip


@translates("conv_transpose3d")
def _conv_transpose3d(b: Builder, node: Node, x: str, w: str) -> str:
    o = node.options
    return b.add(
        "ConvTranspose", x, w, kernel_shape=[*b.spec(1).shape[2:]], strides=[*o["stride"]], pads=[*o["padding"]] * 2,
        output_padding=[*o["extra"]], dilations=[*o["dilation"]], group=o["groups"],
    )  # fmt: skip


# ---- pooling ------------------------------------------------------------------------------------------------------------


def _with_batch(b: Builder, x: str, windows: Windows) -> tuple[str, bool]:
    """x with a batch dimension, which images may lack."""
    lacks = len(b.spec().shape) == windows.dims + 1
    return (b.add("Unsqueeze", x, b.integers([0])) if lacks else x), lacks


def _is_global(windows: Windows) -> bool:
    """Whether one window is the whole plane."""
    return windows.size == (1, 1, 1) and windows.taps == windows.extent and not any(windows.padding)


def _global_pool(b: Builder, kind: str, x: str, windows: Windows) -> str:
    """The mean or maximum of each plane."""
    if len(b.spec().shape) == windows.dims + 2:
        return str(b.add({"Mean": "GlobalAveragePool", "Max": "GlobalMaxPool"}[kind], x))
    return reduced(b, f"Reduce{kind}", x, range(-windows.dims, 0), True)


def _pool(b: Builder, node: Node, kind: str, x: str, windows: Windows, **options: Any) -> Any:
    numbers = [getattr(windows, name)[3 - windows.dims :] for name in ("extent", "size", "taps", "stride", "padding", "dilation")]
    _, _, taps, stride, _, dilation = numbers
    dilations = [*dilation] if kind == "MaxPool" else None  # of AveragePool only from opset 19 on
    pads = _pads(b, node, *numbers)
    return b.add(kind, x, kernel_shape=[*taps], strides=[*stride], pads=pads, dilations=dilations, **options)


@translates("max_pool")
def _max_pool(b: Builder, node: Node, x: str) -> Any:
    windows: Windows = node.options["windows"]
    with_index = node.options["with_index"]
    if windows.is_adaptive:
        if with_index:
            raise b.refusal(node, " with indices")
        return _adaptive_max(b, node, x, windows)
    if _is_global(windows) and not with_index:
        return _global_pool(b, "Max", x, windows)
    if not is_static(windows[3:]):  # windows of an extent that is dynamic
        raise b.refusal(node, " of dynamic sizes")
    x, lacks = _with_batch(b, x, windows)
    found = _pool(b, node, "MaxPool", x, windows, outputs=1 + with_index)
    results = [found] if isinstance(found, str) else found
    if with_index:  # places in a plane, not in the whole tensor
        count = b.add("ReduceProd", b.sizes(windows.extent), keepdims=0)
        results[1] = b.cast(b.add("Mod", results[1], count), numpy.int32)
    results = [b.add("Squeeze", y, b.integers([0])) if lacks else y for y in results]
    return results if with_index else results[0]


def _adaptive_max(b: Builder, node: Node, x: str, windows: Windows) -> str:
    """Windows of different sizes: the elements of each, of which the last one is repeated, one dimension after the other."""
    if not is_static(windows):
        raise b.refusal(node, " of dynamic sizes")
    rank = len(b.spec().shape)
    for axis in range(3 - windows.dims, 3):
        dim = rank + axis - 3
        starts, ends = windows.spans(axis)
        index = numpy.minimum(starts[:, None] + numpy.arange((ends - starts).max()), ends[:, None] - 1)
        x = b.add("ReduceMax", b.add("Gather", x, b.constant(index, numpy.int64), axis=dim), b.integers([dim + 1]), keepdims=0)
    return x


@translates("avg_pool")
def _avg_pool(b: Builder, node: Node, x: str) -> str:
    windows: Windows = node.options["windows"]
    dtype = node.outputs[0].dtype
    if _is_global(windows) and not node.options["divisors"].number:
        return _global_pool(b, "Mean", x, windows)
    if not is_static(windows[3:]):
        raise b.refusal(node, " of dynamic sizes")
    x, lacks = _with_batch(b, x, windows)
    y = _pool(b, node, "AveragePool", x, windows, count_include_pad=1)
    divisors, float64 = node.options["divisors"], numpy.dtype(numpy.float64)
    each = [_factors(at_sizes(windows, sizes), divisors, float64) * windows.num_taps for sizes in b.graph.variants]
    factors = each[0]
    if all(numpy.ptp(numpy.append(other, factors.flat[0])) < 1e-12 for other in each):
        factors = factors.reshape(-1)[0]
    elif not is_static(windows):
        raise b.refusal(node, " of dynamic sizes, in which windows at the border have fewer elements,")
    else:
        factors = factors.reshape(windows.size[3 - windows.dims :])
    if numpy.ndim(factors) or not math.isclose(factors, 1.0):
        y = b.add("Mul", y, b.constant(factors, dtype))
    return b.add("Squeeze", y, b.integers([0])) if lacks else str(y)


# ---- norms --------------------------------------------------------------------------------------------------------------


@translates("normalized_by")
def _normalized_by(b: Builder, node: Node, x: str, w: str | None, bias: str | None, mean: str, variance: str) -> str:
    channels, dtype = b.spec(3).shape, node.outputs[0].dtype
    w = b.constant(numpy.ones(channels, dtype)) if w is None else w
    bias = b.constant(numpy.zeros(channels, dtype)) if bias is None else bias
    return b.add("BatchNormalization", x, w, bias, mean, variance, epsilon=float(node.options["eps"]))


@translates("normalized_rows")
def _normalized_rows(b: Builder, node: Node, x: str, w: str | None, bias: str | None) -> str:
    o, dtype = node.options, node.outputs[0].dtype
    (n, c, s), sizes, groups, shape = o["shape"], o["sizes"], o["groups"], node.outputs[0].shape
    trailing = tuple(shape[len(shape) - len(sizes) :])
    if groups == 1 and s == 1 and tuple(sizes) == trailing and is_static(trailing):
        if o["is_centred"]:
            w = b.constant(numpy.ones(trailing, dtype)) if w is None else w
            parameters = [w] if bias is None else [w, bias]
            return b.add("LayerNormalization", x, *parameters, axis=-len(trailing), epsilon=float(o["eps"]))
        squares = reduced(b, "ReduceMean", b.add("Mul", x, x), range(-len(trailing), 0), True)
        y = b.add("Div", x, b.add("Sqrt", b.add("Add", squares, b.constant(o["eps"], dtype))))
        y = y if w is None else b.add("Mul", y, w)
        return y if bias is None else b.add("Add", y, bias)
    if not o["is_centred"] or not is_static((c, groups)):
        raise b.refusal(node, " of these sizes")
    ones, zeros = (b.constant(numpy.full(groups, number, dtype)) for number in (1, 0))
    rows = b.reshape(x, (n, groups, c // groups * s)) if is_static(s) else b.add("Reshape", x, b.integers([0, groups, -1]))
    rows = b.add("InstanceNormalization", rows, ones, zeros, epsilon=float(o["eps"]))
    if w is None and bias is None:
        return b.reshape(rows, shape)
    y = b.reshape(rows, (n, c, s))
    y = y if w is None else b.add("Mul", y, b.reshape(w, (c, 1)))
    return b.reshape(y if bias is None else b.add("Add", y, b.reshape(bias, (c, 1))), shape)


# ---- sequences ----------------------------------------------------------------------------------------------------------


@translates("embedding_rows")
def _embedding_rows(b: Builder, node: Node, weight: str, index: str) -> str:
    return b.add("Gather", weight, index, axis=0)


@translates("embedding_bag")
def _embedding_bag(b: Builder, node: Node, weight: str, index: str, factors: str | None) -> str:
    """Bags of equal length: weight (rows, columns), index (bags, n) -> (bags, columns)."""
    mode, padding, dtype = node.options["mode"], node.options["padding"], node.outputs[0].dtype
    rows, last = b.add("Gather", weight, index, axis=0), b.integers([-1])
    if factors is not None:
        rows = b.add("Mul", rows, b.add("Unsqueeze", factors, last))
    if padding is None:
        return reduced(b, {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[mode], rows, [1], False)
    counts = b.add("Unsqueeze", b.add("Not", b.add("Equal", index, b.constant(padding, b.spec(1).dtype))), last)
    number = reduced(b, "ReduceSum", b.cast(counts, dtype), [1], False)
    zero, one = b.constant(0, dtype), b.constant(1, dtype)
    if mode == "max":
        found = reduced(b, "ReduceMax", b.add("Where", counts, rows, b.constant(-math.inf, dtype)), [1], False)
        return b.add("Where", b.add("Equal", number, zero), zero, found)
    total = reduced(b, "ReduceSum", b.add("Where", counts, rows, zero), [1], False)
    return total if mode == "sum" else b.add("Div", total, b.add("Max", number, one))


#: The gates in ONNX's order, as the places of PyTorch's.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


@translates("recurrence")
def _recurrence(
    b: Builder, node: Node, x: str, h0: str | None, c0: str | None, w_ih: str, w_hh: str, b_ih: str | None, b_hh: str | None
) -> Any:
    cell, batch_sizes = node.options["cell"], node.options["batch_sizes"]
    steps, n, (_, width) = len(batch_sizes), batch_sizes[0], b.spec(4).shape
    parts = [_in_order(b, node, number, cell, width) for number in (3, 4)]
    if b_ih is not None:
        biases = [_in_order(b, node, number, cell, width) for number in (5, 6)]
        parts.append(b.add("Concat", *biases, axis=0))
    first = b.integers([0])
    parts = [b.add("Unsqueeze", part, first) for part in parts]
    rows = b.reshape(x, (steps, n, b.spec(0).shape[1]))
    inputs = [rows, *parts, *[""] * (3 - len(parts))]  # no lengths of sequences
    if h0 is not None or c0 is not None:
        lacks_one = h0 is None or (c0 is None and cell == "lstm")
        zeros = b.full((1, n, width), numpy.zeros((), node.outputs[0].dtype)) if lacks_one else ""
        inputs += ["", zeros if h0 is None else b.add("Unsqueeze", h0, first)]
        inputs += [zeros if c0 is None else b.add("Unsqueeze", c0, first)] if cell == "lstm" else []
    options: dict[str, Any] = {"hidden_size": width, "direction": "reverse" if node.options["reverse"] else "forward"}
    if cell == "gru":
        options["linear_before_reset"] = 1
    elif cell != "lstm":
        options["activations"] = [cell.removeprefix("rnn_").capitalize()]
    y, *states = b.add(cell.split("_")[0].upper(), *inputs, outputs=2 + CELLS[cell].has_cells, **options)
    return [b.reshape(y, node.outputs[0].shape), *(b.add("Squeeze", state, first) for state in states)]


def _in_order(b: Builder, node: Node, number: int, cell: str, width: int) -> str:
    """A weight or bias (gates width, ...) with its gates in ONNX's order; a parameter is stored so."""
    ref, order = node.inputs[number], _GATES[cell]
    assert isinstance(ref, Ref)
    if order == (0,):
        return str(b.name(ref))
    array = b.graph.parameters.get(ref.key) if ref.kind == "parameter" else None
    if array is not None and b.folds:
        gates = array.reshape(len(order), width, *array.shape[1:])
        return b.weight(gates[[*order]].reshape(array.shape), f"{ref.key}_{cell}")
    whole = b.name(ref)
    parts = [b.add("Slice", whole, *(b.integers([i]) for i in (gate * width, (gate + 1) * width, 0))) for gate in order]
    return str(b.add("Concat", *parts, axis=0))


def supports_options(op: str, options: dict[str, Any]) -> bool:
    """Whether a translation takes these options; other fused ops are exported as their composition."""
    if op == "recurrence":
        return len(set(options["batch_sizes"])) == 1
    if op == "normalized_rows":  # a norm by the root of the mean square is an operator of rows only
        return bool(options["is_centred"] or (options["groups"] == 1 and options["shape"][2] == 1))
    return True
