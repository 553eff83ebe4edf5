"""Translations of elementwise ops and activations."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.backend.dtypes import is_floating
from gpunet.interop.onnx.builder import TRANSLATIONS, Builder, translates
from gpunet.interop.tracing import Node

BOOL = numpy.dtype(bool)

# ---- one operator -----------------------------------------------------------------------------------------------------

_UNARY = {
    "floor": "Floor", "ceil": "Ceil", "sign": "Sign", "neg": "Neg", "abs": "Abs", "sqrt": "Sqrt", "sqrt_0": "Sqrt",
    "reciprocal": "Reciprocal", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tan": "Tan", "sinh": "Sinh",
    "cosh": "Cosh", "atan": "Atan", "erf": "Erf", "acos": "Acos", "asin": "Asin", "acosh": "Acosh", "asinh": "Asinh",
    "atanh": "Atanh",
}  # fmt: skip
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "maximum": "Max", "minimum": "Min"}
_COMPARISONS = {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less", "less_equal": "LessOrEqual",
}  # fmt: skip
_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
_BITS = {"bitwise_and": ("And", "BitwiseAnd"), "bitwise_or": ("Or", "BitwiseOr"), "bitwise_xor": ("Xor", "BitwiseXor")}


def _result(node: Node) -> Any:
    return node.outputs[0].dtype


def _unary(b: Builder, node: Node, x: Any) -> str:
    return b.add(_UNARY[node.op], b.operand(x, 0, _result(node)))


def _binary(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    return b.add(_BINARY[node.op], b.operand(x, 0, dtype), b.operand(y, 1, dtype))


def _common(b: Builder, node: Node, x: Any, y: Any) -> tuple[str, str]:
    """The operands of a comparison in one dtype; a number takes the tensor's, unless the tensor is of integers."""
    own = [b.spec(i).dtype for i, value in enumerate((x, y)) if isinstance(value, str)]
    is_float = any(isinstance(value, float) for value in (x, y)) and not any(map(is_floating, own))
    dtype = numpy.dtype(numpy.float64) if is_float else numpy.result_type(*own)
    return b.operand(x, 0, dtype), b.operand(y, 1, dtype)


def _comparison(b: Builder, node: Node, x: Any, y: Any) -> str:
    return b.add(_COMPARISONS[node.op], *_common(b, node, x, y))


def _logical(b: Builder, node: Node, x: Any, y: Any) -> str:
    return b.add(_LOGICAL[node.op], b.operand(x, 0, BOOL), b.operand(y, 1, BOOL))


def _bits(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    return b.add(_BITS[node.op][dtype != BOOL], b.operand(x, 0, dtype), b.operand(y, 1, dtype))


TRANSLATIONS |= dict.fromkeys(_UNARY, _unary) | dict.fromkeys(_BINARY, _binary) | dict.fromkeys(_COMPARISONS, _comparison)
TRANSLATIONS |= dict.fromkeys(_LOGICAL, _logical) | dict.fromkeys(_BITS, _bits)


# ---- several operators --------------------------------------------------------------------------------------------------


@translates("not_equal")
def _not_equal(b: Builder, node: Node, x: Any, y: Any) -> str:
    return b.add("Not", b.add("Equal", *_common(b, node, x, y)))


@translates("logical_not")
def _logical_not(b: Builder, node: Node, x: Any) -> str:
    return b.add("Not", b.operand(x, 0, BOOL))


@translates("invert")
def _invert(b: Builder, node: Node, x: Any) -> str:
    return b.add("Not" if _result(node) == BOOL else "BitwiseNot", x)


@translates("isnan")
def _isnan(b: Builder, node: Node, x: Any) -> str:
    return b.add("IsNaN", x)


@translates("isinf")
def _isinf(b: Builder, node: Node, x: Any) -> str:
    return b.add("IsInf", x)


@translates("isfinite")
def _isfinite(b: Builder, node: Node, x: Any) -> str:
    return b.add("Not", b.add("Or", b.add("IsNaN", x), b.add("IsInf", x)))


@translates("cast")
def _cast(b: Builder, node: Node, x: Any) -> str:
    return b.cast(x, node.options["dtype"])


@translates("overwrite")
def _overwrite(b: Builder, node: Node, x: Any, source: Any) -> str:
    return b.operand(source, 1, _result(node))


@translates("trunc")
def _trunc(b: Builder, node: Node, x: Any) -> str:
    return b.add("Mul", b.add("Sign", x), b.add("Floor", b.add("Abs", x)))


@translates("round")
def _round(b: Builder, node: Node, x: Any) -> str:
    decimals = node.options["decimals"]
    if not decimals:
        return b.add("Round", x)
    scale = b.constant(10.0**decimals, _result(node))
    return b.add("Div", b.add("Round", b.add("Mul", x, scale)), scale)


@translates("floor_divide")
def _floor_divide(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    if is_floating(dtype):
        return b.add("Floor", _quotient(b, x, y, dtype))
    x, y = b.operand(x, 0, dtype), b.operand(y, 1, dtype)
    return b.add("Div", b.add("Sub", x, b.add("Mod", x, y)), y)


@translates("truncated_div")
def _truncated_div(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    quotient = _quotient(b, x, y, dtype)  # of integers, it is truncated
    return quotient if not is_floating(dtype) else b.add("Mul", b.add("Sign", quotient), b.add("Floor", b.add("Abs", quotient)))


def _quotient(b: Builder, x: Any, y: Any, dtype: Any) -> str:
    return b.add("Div", b.operand(x, 0, dtype), b.operand(y, 1, dtype))


@translates("remainder")
def _remainder(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    x, y = b.operand(x, 0, dtype), b.operand(y, 1, dtype)
    if not is_floating(dtype):
        return b.add("Mod", x, y)
    return b.add("Sub", x, b.add("Mul", y, b.add("Floor", b.add("Div", x, y))))


@translates("fmod")
def _fmod(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    return b.add("Mod", b.operand(x, 0, dtype), b.operand(y, 1, dtype), fmod=1)


@translates("square")
def _square(b: Builder, node: Node, x: Any) -> str:
    x = b.operand(x, 0, _result(node))
    return b.add("Mul", x, x)


@translates("rsqrt")
def _rsqrt(b: Builder, node: Node, x: Any) -> str:
    return b.add("Reciprocal", b.add("Sqrt", b.operand(x, 0, _result(node))))


@translates("expm1")
def _expm1(b: Builder, node: Node, x: Any) -> str:
    """tanh(x / 2) (e^x + 1), which does not cancel near 0."""
    dtype = _result(node)
    x = b.operand(x, 0, dtype)
    half = b.add("Tanh", b.add("Mul", x, b.constant(0.5, dtype)))
    exact = b.add("Mul", half, b.add("Add", b.add("Exp", x), b.constant(1, dtype)))
    large = b.add("Sub", b.add("Exp", x), b.constant(1, dtype))
    return b.add("Where", b.add("Less", b.add("Abs", x), b.constant(1, dtype)), exact, large)


@translates("log1p")
def _log1p(b: Builder, node: Node, x: Any) -> str:
    """2 atanh(x / (x + 2)), which does not lose small x."""
    dtype = _result(node)
    x = b.operand(x, 0, dtype)
    ratio = b.add("Div", x, b.add("Add", x, b.constant(2, dtype)))
    small = b.add("Mul", b.constant(2, dtype), b.add("Atanh", ratio))
    large = b.add("Log", b.add("Add", x, b.constant(1, dtype)))
    return b.add("Where", b.add("Less", b.add("Abs", x), b.constant(0.5, dtype)), small, large)


def _logarithm(base: float) -> Any:
    def translate(b: Builder, node: Node, x: Any) -> str:
        dtype = _result(node)
        return b.add("Mul", b.add("Log", b.operand(x, 0, dtype)), b.constant(1 / math.log(base), dtype))

    return translate


TRANSLATIONS |= {"log2": _logarithm(2), "log10": _logarithm(10)}


@translates("exp2")
def _exp2(b: Builder, node: Node, x: Any) -> str:
    dtype = _result(node)
    return b.add("Pow", b.constant(2, dtype), b.operand(x, 0, dtype))


@translates("logaddexp")
def _logaddexp(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    x, y = b.operand(x, 0, dtype), b.operand(y, 1, dtype)
    distance = b.add("Neg", b.add("Abs", b.add("Sub", x, y)))
    return b.add("Add", b.add("Max", x, y), b.add("Softplus", distance))


@translates("atan2")
def _atan2(b: Builder, node: Node, y: Any, x: Any) -> str:
    """2 atan(y / (r + x)), or for x < 0, where that cancels, 2 atan((r - x) / y)."""
    dtype = _result(node)
    y, x = b.operand(y, 0, dtype), b.operand(x, 1, dtype)
    r = b.add("Sqrt", b.add("Add", b.add("Mul", x, x), b.add("Mul", y, y)))
    right = b.add("Atan", b.add("Div", y, b.add("Add", r, x)))
    left = b.add("Atan", b.add("Div", b.add("Sub", r, x), y))
    half = b.add("Where", b.add("Less", x, b.constant(0, dtype)), left, right)
    angle = b.add("Mul", b.constant(2, dtype), half)
    return b.add("Where", b.add("Equal", r, b.constant(0, dtype)), b.constant(0, dtype), angle)


@translates("hypot")
def _hypot(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    x, y = b.operand(x, 0, dtype), b.operand(y, 1, dtype)
    return b.add("Sqrt", b.add("Add", b.add("Mul", x, x), b.add("Mul", y, y)))


@translates("where")
def _where(b: Builder, node: Node, condition: Any, x: Any, y: Any) -> str:
    dtype = _result(node)
    condition, x, y = b.operand(condition, 0, BOOL), b.operand(x, 1, dtype), b.operand(y, 2, dtype)
    if dtype == BOOL:  # which onnxruntime's Where does not take
        return b.add("Or", b.add("And", condition, x), b.add("And", b.add("Not", condition), y))
    return b.add("Where", condition, x, y)


@translates("clamp")
def _clamp(b: Builder, node: Node, x: Any, low: Any, high: Any) -> str:
    dtype = _result(node)
    x = b.operand(x, 0, dtype)
    x = x if low is None else b.add("Max", x, b.operand(low, 1, dtype))
    return x if high is None else b.add("Min", x, b.operand(high, 2, dtype))


@translates("raise_to")
def _raise_to(b: Builder, node: Node, x: Any) -> str:
    return b.add("Max", x, b.constant(node.options["bound"], _result(node)))


@translates("x_log_x")
def _x_log_x(b: Builder, node: Node, x: Any) -> str:
    return _times_log(b, x, x, _result(node))


@translates("xlogy")
def _xlogy(b: Builder, node: Node, x: Any, y: Any) -> str:
    dtype = _result(node)
    return _times_log(b, b.operand(x, 0, dtype), b.operand(y, 1, dtype), dtype)


def _times_log(b: Builder, x: str, y: str, dtype: Any) -> str:
    zero = b.constant(0, dtype)
    return b.add("Where", b.add("Equal", x, zero), zero, b.add("Mul", x, b.add("Log", y)))


@translates("logit")
def _logit(b: Builder, node: Node, x: Any) -> str:
    return b.add("Log", b.add("Div", x, b.add("Sub", b.constant(1, _result(node)), x)))


@translates("erfc")
def _erfc(b: Builder, node: Node, x: Any) -> str:
    return b.add("Sub", b.constant(1, _result(node)), b.add("Erf", x))


# ---- activations --------------------------------------------------------------------------------------------------------


def _gelu(b: Builder, x: str, alpha: float, dtype: Any) -> str:
    erf = b.add("Erf", b.add("Mul", x, b.constant(math.sqrt(0.5), dtype)))
    return b.add("Mul", b.add("Mul", b.constant(0.5, dtype), x), b.add("Add", b.constant(1, dtype), erf))


def _gelu_tanh(b: Builder, x: str, alpha: float, dtype: Any) -> str:
    cube = b.add("Mul", b.constant(0.044715, dtype), b.add("Mul", b.add("Mul", x, x), x))
    tanh = b.add("Tanh", b.add("Mul", b.constant(math.sqrt(2 / math.pi), dtype), b.add("Add", x, cube)))
    return b.add("Mul", b.add("Mul", b.constant(0.5, dtype), x), b.add("Add", b.constant(1, dtype), tanh))


def _clip(low: float | None, high: float | None = None) -> Any:
    """A limit to [low, high]; None is minus and plus alpha."""

    def translate(b: Builder, x: str, alpha: float, dtype: Any) -> str:
        limits = (-alpha if low is None else low, alpha if high is None else high)
        return b.add("Clip", x, *(b.constant(limit, dtype) for limit in limits))

    return translate


_ACTIVATIONS: dict[str, Any] = {
    "identity": lambda b, x, alpha, dtype: x,
    "relu": lambda b, x, alpha, dtype: b.add("Relu", x),
    "leaky_relu": lambda b, x, alpha, dtype: b.add("LeakyRelu", x, alpha=alpha),
    "sigmoid": lambda b, x, alpha, dtype: b.add("Sigmoid", x),
    "tanh": lambda b, x, alpha, dtype: b.add("Tanh", x),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda b, x, alpha, dtype: b.add("Mul", x, b.add("Sigmoid", x)),
    "elu": lambda b, x, alpha, dtype: b.add("Elu", x, alpha=alpha),
    "softplus": lambda b, x, alpha, dtype: b.add("Softplus", x),
    "hardtanh": _clip(None),
    "relu6": _clip(0.0),
    "hardsigmoid": lambda b, x, alpha, dtype: b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "hardswish": lambda b, x, alpha, dtype: b.add("HardSwish", x),
    "hardshrink": lambda b, x, alpha, dtype: b.add("Shrink", x, lambd=alpha, bias=0.0),
    "softshrink": lambda b, x, alpha, dtype: b.add("Shrink", x, lambd=alpha, bias=alpha),
    "tanhshrink": lambda b, x, alpha, dtype: b.add("Sub", x, b.add("Tanh", x)),
    "threshold": lambda b, x, alpha, dtype: b.add("ThresholdedRelu", x, alpha=alpha),
    "log_sigmoid": lambda b, x, alpha, dtype: b.add("Neg", b.add("Softplus", b.add("Neg", x))),
    "celu": lambda b, x, alpha, dtype: b.add("Celu", x, alpha=alpha),
    "selu": lambda b, x, alpha, dtype: b.add("Selu", x),
    "mish": lambda b, x, alpha, dtype: b.add("Mul", x, b.add("Tanh", b.add("Softplus", x))),
    "softsign": lambda b, x, alpha, dtype: b.add("Softsign", x),
}


@translates("activation")
def _activation(b: Builder, node: Node, x: str) -> str:
    name = node.options["name"]
    if name not in _ACTIVATIONS:
        raise b.refusal(node)
    found: str = _ACTIVATIONS[name](b, x, node.options["alpha"], _result(node))
    return found
