"""Operators of ONNX as functions of gpunet: arithmetic, shapes, reductions, indexing."""

from __future__ import annotations

import functools
import math
import operator as python
from typing import Any

import numpy

import gpunet
from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import FormatError
from gpunet.interop.onnx.operator_table import DTYPES, Attributes, as_tensor, axes_of, host, operator, tensors
from gpunet.nn import functional as F
from gpunet.ops.linear import linear

# ---- elementwise --------------------------------------------------------------------------------------------------------


def _unary(name: str, function: Any) -> None:
    @operator(name)
    def run(a: Attributes, x: Any) -> Any:
        return function(as_tensor(x))


for _name, _function in {
    "Neg": python.neg, "Abs": gpunet.abs, "Sqrt": gpunet.sqrt, "Reciprocal": gpunet.reciprocal, "Exp": gpunet.exp,
    "Log": gpunet.log, "Sin": gpunet.sin, "Cos": gpunet.cos, "Tan": gpunet.tan, "Sinh": gpunet.sinh, "Cosh": gpunet.cosh,
    "Asin": gpunet.asin, "Acos": gpunet.acos, "Atan": gpunet.atan, "Asinh": gpunet.asinh, "Acosh": gpunet.acosh,
    "Atanh": gpunet.atanh, "Erf": gpunet.erf, "Floor": gpunet.floor, "Ceil": gpunet.ceil, "Round": gpunet.round,
    "Sign": gpunet.sign, "Relu": F.relu, "Sigmoid": gpunet.sigmoid, "Tanh": gpunet.tanh,
    "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish, "Not": gpunet.logical_not,
    "IsNaN": gpunet.isnan, "BitwiseNot": gpunet.bitwise_not, "Identity": lambda x: x, "Det": lambda x: gpunet.linalg.det(x),
}.items():  # fmt: skip
    _unary(_name, _function)


def _divide(x: Any, y: Any) -> Any:
    return gpunet.div(x, y, rounding_mode=None if is_floating(x.dtype) else "trunc")


def _power(x: Any, y: Any) -> Any:
    return (x**y).to(x.dtype)


def _binary(name: str, function: Any) -> None:
    @operator(name)
    def run(a: Attributes, x: Any, y: Any) -> Any:
        return function(*tensors(x, y))


for _name, _function in {
    "Add": python.add, "Sub": python.sub, "Mul": python.mul, "Div": _divide, "Pow": _power, "And": gpunet.logical_and,
    "Or": gpunet.logical_or, "Xor": gpunet.logical_xor, "Equal": python.eq, "Greater": python.gt, "GreaterOrEqual": python.ge,
    "Less": python.lt, "LessOrEqual": python.le, "BitwiseAnd": python.and_, "BitwiseOr": python.or_, "BitwiseXor": python.xor,
    "PRelu": lambda x, slope: gpunet.where(x < 0, slope * x, x), "MatMul": gpunet.matmul,
}.items():  # fmt: skip
    _binary(_name, _function)


def _folded(name: str, function: Any) -> None:
    @operator(name)
    def run(a: Attributes, first: Any, *others: Any) -> Any:
        return functools.reduce(function, tensors(first, *others))


_folded("Sum", python.add)
_folded("Max", gpunet.maximum)
_folded("Min", gpunet.minimum)


@operator("Mod", attributes="fmod")
def _mod(a: Attributes, x: Any, y: Any) -> Any:
    x, y = tensors(x, y)
    return gpunet.fmod(x, y) if a.integer("fmod", 0) else gpunet.remainder(x, y)


@operator("Where")
def _where(a: Attributes, condition: Any, x: Any, y: Any) -> Any:
    return gpunet.where(*tensors(condition, x, y))


@operator("Clip")
def _clip(a: Attributes, x: Any, low: Any = None, high: Any = None) -> Any:
    x, low, high = tensors(x, low, high)
    x = x if low is None else gpunet.maximum(x, low)
    return x if high is None else gpunet.minimum(x, high)


@operator("IsInf", attributes="detect_negative detect_positive")
def _is_inf(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    found = gpunet.isinf(x)
    found = found if a.integer("detect_negative", 1) else found & (x > 0)
    return found if a.integer("detect_positive", 1) else found & (x < 0)


@operator("Cast", attributes="to saturate")
def _cast(a: Attributes, x: Any) -> Any:
    dtype = DTYPES.get(a.integer("to", 0))
    if dtype is None:
        raise a.refuse(f"the type to={a.integer('to', 0)}")
    return as_tensor(x).to(dtype)


@operator("CastLike", attributes="saturate")
def _cast_like(a: Attributes, x: Any, like: Any) -> Any:
    return as_tensor(x).to(like.dtype)


# ---- activations --------------------------------------------------------------------------------------------------------


def _with_alpha(name: str, default: float, function: Any) -> None:
    @operator(name, attributes="alpha")
    def run(a: Attributes, x: Any) -> Any:
        return function(as_tensor(x), a.number("alpha", default))


_with_alpha("LeakyRelu", 0.01, F.leaky_relu)
_with_alpha("Elu", 1.0, F.elu)
_with_alpha("Celu", 1.0, F.celu)
_with_alpha("ThresholdedRelu", 1.0, lambda x, alpha: F.threshold(x, alpha, 0.0))


@operator("Selu", attributes="alpha gamma")
def _selu(a: Attributes, x: Any) -> Any:
    alpha, gamma = a.number("alpha", 1.6732632423543772), a.number("gamma", 1.0507009873554805)
    x = as_tensor(x)
    if math.isclose(alpha, 1.6732632423543772, rel_tol=1e-6) and math.isclose(gamma, 1.0507009873554805, rel_tol=1e-6):
        return F.selu(x)
    return gamma * F.elu(x, alpha)


@operator("Gelu", attributes="approximate")
def _gelu(a: Attributes, x: Any) -> Any:
    return F.gelu(as_tensor(x), approximate=a.text("approximate", "none"))


@operator("Softplus")
def _softplus(a: Attributes, x: Any) -> Any:
    return gpunet.logaddexp(as_tensor(x), gpunet.zeros_like(as_tensor(x)))


@operator("HardSigmoid", attributes="alpha beta")
def _hard_sigmoid(a: Attributes, x: Any) -> Any:
    alpha, beta = a.number("alpha", 0.2), a.number("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(as_tensor(x))
    return (alpha * as_tensor(x) + beta).clamp(0.0, 1.0)


@operator("Shrink", attributes="lambd bias")
def _shrink(a: Attributes, x: Any) -> Any:
    limit, bias = a.number("lambd", 0.5), a.number("bias", 0.0)
    x = as_tensor(x)
    return gpunet.where(x < -limit, x + bias, gpunet.where(x > limit, x - bias, 0.0 * x))


@operator("Softmax", attributes="axis")
def _softmax(a: Attributes, x: Any) -> Any:
    return F.softmax(as_tensor(x), a.integer("axis", -1))


@operator("LogSoftmax", attributes="axis")
def _log_softmax(a: Attributes, x: Any) -> Any:
    return F.log_softmax(as_tensor(x), a.integer("axis", -1))


# ---- shapes ---------------------------------------------------------------------------------------------------------------


@operator("Constant", attributes="value value_float value_floats value_int value_ints")
def _constant(a: Attributes) -> Any:
    if len(a.values) != 1:
        raise a.refuse(f"a constant with {len(a.values)} attributes")
    ((name, value),) = a.values.items()
    return value if isinstance(value, numpy.ndarray) else numpy.array(value, numpy.int64 if "int" in name else numpy.float32)


@operator("Shape", attributes="start end")
def _shape(a: Attributes, x: Any) -> Any:
    start, end = a.integer("start", 0), a.integer("end", 1 << 31)
    return numpy.array(x.shape, numpy.int64)[start:end]


@operator("Size")
def _size(a: Attributes, x: Any) -> Any:
    return numpy.array(math.prod(x.shape), numpy.int64)


@operator("Reshape", attributes="allowzero")
def _reshape(a: Attributes, x: Any, shape: Any) -> Any:
    x, sizes = as_tensor(x), host(a, shape, "shape")
    if not a.integer("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(tuple(sizes))


@operator("Flatten", attributes="axis")
def _flatten(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    axis = a.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose", attributes="perm")
def _transpose(a: Attributes, x: Any) -> Any:
    x = as_tensor(x)
    return x.permute(tuple(a.integers("perm", [*range(x.ndim)][::-1])))


@operator("Squeeze")
def _squeeze(a: Attributes, x: Any, axes: Any = None) -> Any:
    x, chosen = as_tensor(x), axes_of(a, axes)
    if chosen is None:
        return x.squeeze()
    for axis in chosen:
        if x.shape[axis] != 1:
            raise FormatError(f"dimension {axis} of shape {tuple(x.shape)} has more than one element")
    return x.squeeze(tuple(chosen))


@operator("Unsqueeze")
def _unsqueeze(a: Attributes, x: Any, axes: Any) -> Any:
    x, chosen = as_tensor(x), host(a, axes, "axes")
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def _expand(a: Attributes, x: Any, shape: Any) -> Any:
    x = as_tensor(x)
    return x.expand(numpy.broadcast_shapes(tuple(x.shape), tuple(host(a, shape, "shape"))))


@operator("Tile")
def _tile(a: Attributes, x: Any, repeats: Any) -> Any:
    return as_tensor(x).repeat(tuple(host(a, repeats, "repeats")))


@operator("Concat", attributes="axis")
def _concat(a: Attributes, first: Any, *others: Any) -> Any:
    return gpunet.cat(tensors(first, *others), a.integer("axis", 0))


@operator("Split", attributes="axis num_outputs")
def _split(a: Attributes, x: Any, split: Any = None) -> Any:
    x, axis = as_tensor(x), a.integer("axis", 0)
    if split is not None:
        return tuple(gpunet.split(x, host(a, split, "split"), axis))
    count = a.integer("num_outputs", 0)
    if count < 1:
        raise a.refuse("a split without sizes and num_outputs")
    size, rest = -(-x.shape[axis] // count), x.shape[axis]
    return tuple(gpunet.split(x, [min(size, max(0, rest - number * size)) for number in range(count)], axis))


@operator("Slice")
def _slice(a: Attributes, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    x = as_tensor(x)
    first, last = host(a, starts, "starts"), host(a, ends, "ends")
    chosen = [*range(len(first))] if axes is None else host(a, axes, "axes")
    strides = [1] * len(first) if steps is None else host(a, steps, "steps")
    if not len(first) == len(last) == len(chosen) == len(strides):
        raise FormatError("starts, ends, axes and steps have different lengths")
    for start, end, axis, step in zip(first, last, chosen, strides):
        x = _sliced(x, axis % x.ndim, slice(start, end, step))
    return x


def _sliced(x: Tensor, axis: int, part: slice) -> Tensor:
    """A slice along an axis, also backwards."""
    size = x.shape[axis]
    start, stop, step = part.start, part.stop, part.step
    if step > 0:
        return x[(slice(None),) * axis + (slice(*part.indices(size)),)]
    # ends below -size mean the first element, included
    start = min(max(start + size if start < 0 else start, -1), size - 1)
    stop = max(stop + size if stop < 0 else stop, -1)
    numbers = numpy.arange(start, stop, step)
    if numbers.size == size and step == -1:
        return x.flip(axis)
    return gpunet.index_select(x, axis, as_tensor(numbers, x))


@operator("Pad", attributes="mode")
def _pad(a: Attributes, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    x, widths = as_tensor(x), host(a, pads, "pads")
    chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else host(a, axes, "axes"))]
    if len(widths) != 2 * len(chosen):
        raise FormatError(f"pads has {len(widths)} numbers; expected {2 * len(chosen)}")
    by_axis = dict(zip(chosen, zip(widths[: len(chosen)], widths[len(chosen) :])))
    flat = [n for axis in range(x.ndim)[::-1] for n in by_axis.get(axis, (0, 0))]
    mode = a.text("mode", "constant")
    if mode == "constant":
        number = 0 if value is None else as_tensor(value).reshape(-1)[0].item()
        return F.pad(x, flat, "constant", number)
    modes = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        raise a.refuse(f"mode={mode!r}")
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return F.pad(x, flat, modes[mode])


@operator("Trilu", attributes="upper")
def _trilu(a: Attributes, x: Any, k: Any = None) -> Any:
    diagonal = 0 if k is None else host(a, k, "k")[0]
    return (gpunet.triu if a.integer("upper", 1) else gpunet.tril)(as_tensor(x), diagonal)


@operator("Range")
def _range(a: Attributes, start: Any, limit: Any, delta: Any) -> Any:
    first, last, step = (as_tensor(v).item() for v in (start, limit, delta))
    return as_tensor(numpy.arange(first, last, step, dtype=start.dtype))


@operator("ConstantOfShape", attributes="value")
def _constant_of_shape(a: Attributes, shape: Any) -> Any:
    value = a.values.get("value", numpy.zeros(1, numpy.float32))
    if not isinstance(value, numpy.ndarray) or value.size != 1:
        raise FormatError(f"value={value!r}; expected a tensor of one element")
    return as_tensor(numpy.full(tuple(host(a, shape, "shape")), value.reshape(-1)[0]))


@operator("DepthToSpace", attributes="blocksize mode", check=lambda a: a.require("mode", "DCR", "CRD"))
def _depth_to_space(a: Attributes, x: Any) -> Any:
    x, block, mode = as_tensor(x), a.integer("blocksize", 1), a.text("mode", "DCR")
    n, c, h, w = x.shape
    if mode == "CRD":
        return F.pixel_shuffle(x, block)
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth", attributes="blocksize")
def _space_to_depth(a: Attributes, x: Any) -> Any:
    x, block = as_tensor(x), a.integer("blocksize", 1)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


# ---- indexing -------------------------------------------------------------------------------------------------------------


def _from_zero(index: Tensor, size: int) -> Tensor:
    """Indices that count from 0: negative ones count from the end."""
    return gpunet.where(index < 0, index + size, index)


@operator("Gather", attributes="axis")
def _gather(a: Attributes, x: Any, index: Any) -> Any:
    x, index = tensors(x, index)
    axis = a.integer("axis", 0) % x.ndim
    if axis == 0 and x.ndim == 2 and is_floating(x.dtype) and x.requires_grad:
        return F.embedding(_from_zero(index, x.shape[0]), x)
    return x[(slice(None),) * axis + (index.long(),)]


@operator("GatherElements", attributes="axis")
def _gather_elements(a: Attributes, x: Any, index: Any) -> Any:
    x, index = tensors(x, index)
    axis = a.integer("axis", 0) % x.ndim
    return gpunet.gather(x, axis, _from_zero(index, x.shape[axis]))


@operator("GatherND", attributes="batch_dims")
def _gather_nd(a: Attributes, x: Any, index: Any) -> Any:
    if a.integer("batch_dims", 0):
        raise a.refuse("batch_dims")
    x, index = tensors(x, index)
    return x[tuple(index.long()[..., i] for i in range(index.shape[-1]))]


@operator("ScatterElements", attributes="axis reduction")
def _scatter_elements(a: Attributes, x: Any, index: Any, updates: Any) -> Any:
    x, index, updates = tensors(x, index, updates)
    axis, kind = a.integer("axis", 0) % x.ndim, a.text("reduction", "none")
    index = _from_zero(index, x.shape[axis])
    if kind == "none":
        return gpunet.scatter(x, axis, index, updates)
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    if kind not in kinds:
        raise a.refuse(f"reduction={kind!r}")
    return gpunet.scatter_reduce(x, axis, index, updates, kinds[kind])


@operator("ScatterND", attributes="reduction")
def _scatter_nd(a: Attributes, x: Any, index: Any, updates: Any) -> Any:
    if a.text("reduction", "none") != "none":
        raise a.refuse(f"reduction={a.text('reduction', 'none')!r}")
    x, index, updates = tensors(x, index, updates)
    out = x.clone()
    out[tuple(index.long()[..., i] for i in range(index.shape[-1]))] = updates
    return out


@operator("TopK", attributes="axis largest sorted")
def _top_k(a: Attributes, x: Any, k: Any) -> Any:
    count = host(a, k, "k")[0]
    found = gpunet.topk(as_tensor(x), count, a.integer("axis", -1), bool(a.integer("largest", 1)))
    return found.values, found.indices


# ---- reductions -----------------------------------------------------------------------------------------------------------


def _reduction(name: str, function: Any) -> None:
    @operator(name, attributes="axes keepdims noop_with_empty_axes")
    def run(a: Attributes, x: Any, axes: Any = None) -> Any:
        x, chosen = as_tensor(x), axes_of(a, axes)
        if not chosen:
            if a.integer("noop_with_empty_axes", 0):
                return x
            chosen = [*range(x.ndim)]
        return function(x, tuple(chosen), bool(a.integer("keepdims", 1)))


def _product(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    for axis in sorted(axis % x.ndim for axis in axes)[::-1]:
        x = x.prod(axis, keepdim)
    return x


for _name, _function in {
    "ReduceSum": gpunet.sum, "ReduceMean": gpunet.mean, "ReduceMax": gpunet.amax, "ReduceMin": gpunet.amin, "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keepdim: x.abs().sum(axes, keepdim),
    "ReduceL2": lambda x, axes, keepdim: (x * x).sum(axes, keepdim).sqrt(),
    "ReduceSumSquare": lambda x, axes, keepdim: (x * x).sum(axes, keepdim), "ReduceLogSumExp": gpunet.logsumexp,
    "ReduceLogSum": lambda x, axes, keepdim: x.sum(axes, keepdim).log(),
}.items():  # fmt: skip
    _reduction(_name, _function)


def _arg_extreme(name: str, function: Any) -> None:
    @operator(name, attributes="axis keepdims select_last_index")
    def run(a: Attributes, x: Any) -> Any:
        if a.integer("select_last_index", 0):
            raise a.refuse("select_last_index=1")
        return function(as_tensor(x), a.integer("axis", 0), bool(a.integer("keepdims", 1)))


_arg_extreme("ArgMax", gpunet.argmax)
_arg_extreme("ArgMin", gpunet.argmin)


@operator("CumSum", attributes="exclusive reverse")
def _cumsum(a: Attributes, x: Any, axis: Any) -> Any:
    x, dim = as_tensor(x), host(a, axis, "axis")[0]
    whole = x.flip(dim) if a.integer("reverse", 0) else x
    found = whole.cumsum(dim)
    found = found - whole if a.integer("exclusive", 0) else found
    return found.flip(dim) if a.integer("reverse", 0) else found


# ---- products -------------------------------------------------------------------------------------------------------------


@operator("Gemm", attributes="alpha beta transA transB")
def _gemm(a: Attributes, x: Any, y: Any, c: Any = None) -> Any:
    x, y, c = tensors(x, y, c)
    alpha, beta = a.number("alpha", 1.0), a.number("beta", 1.0)
    x, weight = (x.T if a.integer("transA", 0) else x), (y if a.integer("transB", 0) else y.T)
    if alpha == beta == 1.0 and (c is None or tuple(c.shape) == (weight.shape[0],)):
        return linear(x, weight, c)
    product = alpha * gpunet.matmul(x, weight.T)
    return product if c is None else product + beta * c


@operator("Einsum", attributes="equation")
def _einsum(a: Attributes, first: Any, *others: Any) -> Any:
    return gpunet.einsum(a.text("equation", ""), *tensors(first, *others))
