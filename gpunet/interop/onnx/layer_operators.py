"""Operators of ONNX as layers of gpunet: convolution, pooling, norms, recurrence, resampling."""

from __future__ import annotations

import math
from typing import Any

import gpunet
from gpunet.autograd import Tensor
from gpunet.errors import FormatError
from gpunet.interop.onnx.operator_table import Attributes, as_tensor, axes_of, host, operator, tensors
from gpunet.nn import functional as F
from gpunet.ops.recurrence import run_direction

# ---- windows ------------------------------------------------------------------------------------------------------------

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _dims(a: Attributes, x: Tensor) -> int:
    dims = x.ndim - 2
    if dims not in (1, 2, 3):
        raise FormatError(f"the input has shape {tuple(x.shape)}; expected (batch, channels, 1 to 3 further dimensions)")
    return dims


def _numbers(a: Attributes, name: str, dims: int, default: int) -> tuple[int, ...]:
    found = a.integers(name, [default] * dims)
    if len(found) != dims:
        raise FormatError(f"{name}={found}; expected {dims} integers")
    return tuple(found)


def _pads(a: Attributes, x: Tensor, taps: Any, strides: Any, dilations: Any) -> tuple[list[int], list[int]]:
    """The padding before and behind each dimension."""
    dims, auto = len(taps), a.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        found = _numbers(a, "pads", 2 * dims, 0)
        return [*found[:dims]], [*found[dims:]]
    if auto == "VALID":
        return [0] * dims, [0] * dims
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise a.refuse(f"auto_pad={auto!r}")
    total = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in zip(x.shape[2:], taps, strides, dilations)]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _padded(x: Tensor, low: list[int], high: list[int], value: float = 0.0) -> Tensor:
    return F.pad(x, [n for pair in zip(low[::-1], high[::-1]) for n in pair], "constant", value)


_WINDOW = "auto_pad dilations kernel_shape pads strides"


@operator("Conv", attributes=f"{_WINDOW} group")
def _conv(a: Attributes, x: Any, w: Any, bias: Any = None) -> Any:
    x, w, bias = tensors(x, w, bias)
    dims = _dims(a, x)
    strides, dilations = _numbers(a, "strides", dims, 1), _numbers(a, "dilations", dims, 1)
    low, high = _pads(a, x, w.shape[2:], strides, dilations)
    if low != high:
        x, low = _padded(x, low, high), [0] * dims
    return _CONVOLUTIONS[dims](x, w, bias, strides, tuple(low), dilations, a.integer("group", 1))


@operator("ConvTranspose", attributes=f"{_WINDOW} group output_padding output_shape")
def _conv_transpose(a: Attributes, x: Any, w: Any, bias: Any = None) -> Any:
    x, w, bias = tensors(x, w, bias)
    dims = _dims(a, x)
    if a.integers("output_shape") is not None or a.text("auto_pad", "NOTSET") != "NOTSET":
        raise a.refuse("output_shape or auto_pad")
    strides, dilations, extra = (_numbers(a, n, dims, d) for n, d in (("strides", 1), ("dilations", 1), ("output_padding", 0)))
    pads = _numbers(a, "pads", 2 * dims, 0)
    group = a.integer("group", 1)
    if pads[:dims] == pads[dims:]:
        return _TRANSPOSED[dims](x, w, bias, strides, pads[:dims], extra, group, dilations)
    whole = _TRANSPOSED[dims](x, w, bias, strides, 0, extra, group, dilations)
    return _padded(whole, [-n for n in pads[:dims]], [-n for n in pads[dims:]])


@operator("MaxPool", attributes=f"{_WINDOW} ceil_mode storage_order")
def _max_pool(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    dims = _dims(a, x)
    taps, strides, dilations = (_numbers(a, n, dims, 1) for n in ("kernel_shape", "strides", "dilations"))
    low, high = _pads(a, x, taps, strides, dilations)
    if a.integer("storage_order", 0):
        raise a.refuse("storage_order=1")
    sizes, whole = tuple(x.shape), x
    if low != high or any(2 * n > d * (k - 1) + 1 for n, k, d in zip(low, taps, dilations)):
        whole = _padded(x, low, high, -math.inf)
        padding: Any = 0
    else:
        padding = tuple(low)
    values, places = _MAXIMA[dims](whole, taps, strides, padding, dilations, bool(a.integer("ceil_mode", 0)), return_indices=True)
    return values, _places_in_tensor(places, tuple(whole.shape[2:]), sizes, low if whole is not x else [0] * dims)


def _places_in_tensor(places: Tensor, padded: tuple[int, ...], sizes: tuple[int, ...], low: list[int]) -> Tensor:
    """Places in padded planes as places in the whole tensor."""
    found, rest = gpunet.zeros_like(places), places
    step, steps = 1, []
    for size in sizes[:1:-1]:
        steps.append(step)
        step *= size
    for size, shift, step_of in zip(padded[::-1], low[::-1], steps):
        found = found + (gpunet.remainder(rest, size) - shift) * step_of
        rest = gpunet.div(rest, size, rounding_mode="floor")
    planes = gpunet.arange(sizes[0] * sizes[1], device=places.device).reshape(sizes[0], sizes[1], *(1,) * len(padded))
    return found + planes * math.prod(sizes[2:])


@operator("AveragePool", attributes=f"{_WINDOW} ceil_mode count_include_pad")
def _average_pool(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    dims = _dims(a, x)
    taps, strides, dilations = (_numbers(a, n, dims, 1) for n in ("kernel_shape", "strides", "dilations"))
    if any(d != 1 for d in dilations):
        raise a.refuse("dilations")
    low, high = _pads(a, x, taps, strides, dilations)
    ceil, counts = bool(a.integer("ceil_mode", 0)), bool(a.integer("count_include_pad", 0))
    if low == high and all(2 * n <= k for n, k in zip(low, taps)):
        return _MEANS[dims](x, taps, strides, tuple(low), ceil, counts)
    sums = _MEANS[dims](_padded(x, low, high), taps, strides, 0, ceil)
    if counts:
        return sums
    return sums / _MEANS[dims](_padded(gpunet.ones_like(x), low, high), taps, strides, 0, ceil)


@operator("GlobalAveragePool")
def _global_average_pool(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


# ---- norms --------------------------------------------------------------------------------------------------------------


def _check_batch_normalization(a: Attributes) -> None:
    a.require("training_mode", 0)
    a.require("spatial", 1)


@operator("BatchNormalization", attributes="epsilon momentum training_mode spatial", check=_check_batch_normalization)
def _batch_normalization(a: Attributes, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, is_training: bool = False) -> Any:
    x, scale, bias, mean, variance = tensors(x, scale, bias, mean, variance)
    # ONNX's momentum is the part of the old statistics
    return F.batch_norm(x, mean, variance, scale, bias, is_training, 1 - a.number("momentum", 0.9), a.number("epsilon", 1e-5))


@operator("InstanceNormalization", attributes="epsilon")
def _instance_normalization(a: Attributes, x: Any, scale: Any, bias: Any) -> Any:
    x, scale, bias = tensors(x, scale, bias)
    return F.instance_norm(x, weight=scale, bias=bias, eps=a.number("epsilon", 1e-5))


@operator("LayerNormalization", attributes="axis epsilon stash_type", check=lambda a: a.require("stash_type", 1))
def _layer_normalization(a: Attributes, x: Any, scale: Any, bias: Any = None) -> Any:
    x, scale, bias = tensors(x, scale, bias)
    axis = a.integer("axis", -1) % x.ndim
    return F.layer_norm(x, tuple(x.shape[axis:]), scale, bias, a.number("epsilon", 1e-5))


@operator("GroupNormalization", attributes="epsilon num_groups stash_type", check=lambda a: a.require("stash_type", 1))
def _group_normalization(a: Attributes, x: Any, scale: Any, bias: Any) -> Any:
    x, scale, bias = tensors(x, scale, bias)
    if a.opset < 21:
        raise a.refuse(f"version {a.opset} of the operators")
    return F.group_norm(x, a.integer("num_groups", 1), scale, bias, a.number("epsilon", 1e-5))


@operator("LRN", attributes="alpha beta bias size")
def _lrn(a: Attributes, x: Any) -> Any:
    return F.local_response_norm(
        as_tensor(x), a.integer("size", 1), a.number("alpha", 1e-4), a.number("beta", 0.75), a.number("bias", 1.0)
    )


@operator("Dropout", attributes="seed")
def _dropout(a: Attributes, x: Any, ratio: Any = None, mode: Any = None, is_training: bool = False) -> Any:
    x = as_tensor(x)
    if mode is not None and as_tensor(mode).item():
        raise a.refuse("training_mode=True")
    p = 0.5 if ratio is None else float(as_tensor(ratio).item())
    return F.dropout(x, p, is_training), gpunet.ones_like(x, dtype=bool)


# ---- recurrence -----------------------------------------------------------------------------------------------------------

#: PyTorch's gates as the places of ONNX's.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def _recurrent(
    a: Attributes, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, c0: Any = None, peepholes: Any = None
) -> Any:
    """The layer with the weights of ONNX: x (steps, n, features), w and r (directions, gates width, ...), b for both products."""
    x, w, r, b, h0, c0 = tensors(x, w, r, b, h0, c0)
    kind = a.operator
    steps, n, directions, width = x.shape[0], x.shape[1], w.shape[0], r.shape[2]
    direction = a.text("direction", "forward")
    if directions != (2 if direction == "bidirectional" else 1):
        raise FormatError(f"direction={direction!r} with weights of {directions} directions")
    if lengths is not None and any(length != steps for length in host(a, lengths, "sequence_lens")):
        raise a.refuse("a sequence shorter than others")
    cell = _cell(a, kind, directions)
    if peepholes is not None or a.integer("layout", 0) or a.integer("input_forget", 0) or "clip" in a.values:
        raise a.refuse("peepholes, layout, input_forget or clip")
    if kind == "GRU" and not a.integer("linear_before_reset", 0):
        raise a.refuse("linear_before_reset=0")
    rows = x.reshape(steps * n, x.shape[2])
    outputs: list[Any] = []
    states: list[Any] = []
    for d in range(directions):
        parts = [_ordered(weight, kind, width) for weight in (w[d], r[d], *((b[d].reshape(2, -1)) if b is not None else ()))]
        biases: list[Any] = parts[2:] or [None, None]
        found = run_direction(
            rows, None if h0 is None else h0[d], None if c0 is None else c0[d], *parts[:2], *biases, cell=cell,
            batch_sizes=(n,) * steps, reverse=direction == "reverse" or d == 1,
        )  # fmt: skip
        outputs.append(found[0].reshape(steps, n, width))
        states.append(found[1:])
    last = (gpunet.stack([*state]) for state in zip(*states))
    return (gpunet.stack(outputs, 1), *last)


def _cell(a: Attributes, kind: str, directions: int) -> str:
    given = a.values.get("activations", _ACTIVATIONS[kind] * directions)
    if kind == "RNN" and given in (["Relu"] * directions, ["Tanh"] * directions):
        return f"rnn_{given[0].lower()}"
    if given != _ACTIVATIONS[kind] * directions:
        raise a.refuse(f"activations={given}")
    return kind.lower()


def _ordered(weight: Tensor, kind: str, width: int) -> Tensor:
    """A weight or bias (gates width, ...) with its gates in PyTorch's order."""
    order = _GATES[kind]
    if len(order) == 1:
        return weight
    return gpunet.cat([weight[gate * width : (gate + 1) * width] for gate in order])


_RECURRENT = "activations clip direction hidden_size layout"


def _check_recurrent(a: Attributes) -> None:
    a.require("direction", "forward", "reverse", "bidirectional")


@operator("LSTM", attributes=f"{_RECURRENT} input_forget", check=_check_recurrent)
def _lstm(
    a: Attributes, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, c0: Any = None, p: Any = None
) -> Any:
    return _recurrent(a, x, w, r, b, lengths, h0, c0, p)


@operator("GRU", attributes=f"{_RECURRENT} linear_before_reset", check=_check_recurrent)
@operator("RNN", attributes=_RECURRENT, check=_check_recurrent)
def _gru(a: Attributes, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    return _recurrent(a, x, w, r, b, lengths, h0)


# ---- resampling -----------------------------------------------------------------------------------------------------------


def _check_resize(a: Attributes) -> None:
    a.require("antialias", 0)
    a.require("exclude_outside", 0)
    a.require("keep_aspect_ratio_policy", "stretch")


@operator(
    "Resize", attributes="antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
    "keep_aspect_ratio_policy mode nearest_mode", check=_check_resize,
)  # fmt: skip
def _resize(a: Attributes, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """The forms of F.interpolate."""
    x = as_tensor(x)
    dims, mode = _dims(a, x), a.text("mode", "nearest")
    where, nearest = a.text("coordinate_transformation_mode", "half_pixel"), a.text("nearest_mode", "round_prefer_floor")
    if axes_of(a, None) is not None:
        raise a.refuse("axes")
    given = sizes if sizes is not None else scales
    numbers: Any = [] if given is None else as_tensor(given).reshape(-1).tolist()
    if len(numbers) != x.ndim or (list(numbers[:2]) != [*x.shape[:2]] if sizes is not None else list(numbers[:2]) != [1, 1]):
        raise a.refuse(f"a change of batch or channels, to {numbers},")
    target: dict[str, Any] = {"size" if sizes is not None else "scale_factor": tuple(numbers[2:])}
    if mode == "nearest" and (where, nearest) == ("asymmetric", "floor"):
        return F.interpolate(x, **target, mode="nearest")
    names = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}
    kinds = {"align_corners": True, "half_pixel": False, "pytorch_half_pixel": False}
    is_known = mode in names and dims in names[mode] and where in kinds
    if not is_known or (mode == "cubic" and a.number("cubic_coeff_a", -0.75) != -0.75):
        raise a.refuse(f"mode={mode!r} with {where!r} and {nearest!r} in {dims} dimensions")
    out = numbers[2:] if sizes is not None else [math.floor(n * f) for n, f in zip(x.shape[2:], numbers[2:])]
    if where == "pytorch_half_pixel" and any(m == 1 < n for n, m in zip(x.shape[2:], out)):
        raise a.refuse("coordinate_transformation_mode='pytorch_half_pixel' to one pixel")
    return F.interpolate(x, **target, mode=names[mode][dims], align_corners=kinds[where])
