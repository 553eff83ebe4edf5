"""C code of elementwise ops, reductions, softmax and products."""

from __future__ import annotations

import math

import numpy

from gpunet.interop.c.program import EMITTERS, Affine, Program, double, emits, in_block, literal
from gpunet.interop.tracing import Node, Ref

# ---- elementwise --------------------------------------------------------------------------------------------------------

#: Expressions of operands a, b and c.
_EXPRESSIONS = {
    "add": "{a} + {b}", "sub": "{a} - {b}", "mul": "{a} * {b}", "div": "{a} / {b}", "pow": "(float)pow({a}, {b})",
    "neg": "-{a}", "abs": "fabsf({a})", "square": "{a} * {a}", "sqrt": "sqrtf({a})", "sqrt_0": "sqrtf({a})",
    "rsqrt": "(float)(1.0 / sqrt({a}))", "reciprocal": "1.0f / {a}", "exp": "(float)exp({a})", "expm1": "(float)expm1({a})",
    "log": "(float)log({a})", "log1p": "(float)log1p({a})", "log2": "(float)log2({a})", "log10": "(float)log10({a})",
    "sin": "(float)sin({a})", "cos": "(float)cos({a})", "tan": "(float)tan({a})", "sinh": "(float)sinh({a})",
    "cosh": "(float)cosh({a})", "asin": "(float)asin({a})", "acos": "(float)acos({a})", "atan": "(float)atan({a})",
    "erf": "(float)erf({a})", "floor": "floorf({a})", "ceil": "ceilf({a})", "trunc": "truncf({a})", "exp2": "(float)exp2({a})",
    "maximum": "({a} > {b} || {a} != {a} ? {a} : {b})", "minimum": "({a} < {b} || {a} != {a} ? {a} : {b})",
    "where": "({a} != 0.0f ? {b} : {c})", "greater": "{a} > {b}", "greater_equal": "{a} >= {b}", "less": "{a} < {b}",
    "less_equal": "{a} <= {b}", "equal": "{a} == {b}", "not_equal": "{a} != {b}", "logical_and": "{a} != 0.0f && {b} != 0.0f",
    "logical_or": "{a} != 0.0f || {b} != 0.0f", "logical_not": "{a} == 0.0f", "invert": "{a} == 0.0f",
    "bitwise_and": "{a} != 0.0f && {b} != 0.0f", "bitwise_or": "{a} != 0.0f || {b} != 0.0f", "isnan": "{a} != {a}", "cast": "{a}",
}  # fmt: skip
#: Expressions of a in the middle of an activation; alpha is its parameter.
_ACTIVATIONS = {
    "identity": "{a}",
    "relu": "({a} <= 0.0f ? 0.0f : {a})",
    "leaky_relu": "({a} > 0.0f ? {a} : {alpha} * {a})",
    "sigmoid": "(float)(1.0 / (1.0 + exp(-(double){a})))",
    "tanh": "(float)tanh({a})",
    "gelu": "(float)(0.5 * {a} * (1.0 + erf({a} * 0.70710678118654752)))",
    "gelu_tanh": "(float)(0.5 * {a} * (1.0 + tanh(0.79788456080286536 * ({a} + 0.044715 * (double){a} * {a} * {a}))))",
    "silu": "(float)({a} / (1.0 + exp(-(double){a})))",
    "elu": "({a} <= 0.0f ? (float)({alpha} * expm1({a})) : {a})",
    "softplus": "(float)(({a} > 0.0f ? {a} : 0.0) + log1p(exp(-fabs({a}))))",
    "hardtanh": "({a} <= -{alpha} ? -{alpha} : {a} >= {alpha} ? {alpha} : {a})",
    "relu6": "({a} <= 0.0f ? 0.0f : {a} >= {alpha} ? {alpha} : {a})",
    "hardsigmoid": "({a} <= -3.0f ? 0.0f : {a} >= 3.0f ? 1.0f : ({a} + 3.0f) / 6.0f)",
    "hardswish": "({a} <= -3.0f ? 0.0f : {a} >= 3.0f ? {a} : {a} * ({a} + 3.0f) / 6.0f)",
    "hardshrink": "({a} >= -{alpha} && {a} <= {alpha} ? 0.0f : {a})",
    "softshrink": "({a} > {alpha} ? {a} - {alpha} : {a} < -{alpha} ? {a} + {alpha} : 0.0f * {a})",
    "tanhshrink": "(float)({a} - tanh({a}))",
    "threshold": "({a} <= {alpha} ? 0.0f : {a})",
    "log_sigmoid": "(float)-(({a} < 0.0f ? -(double){a} : 0.0) + log1p(exp(-fabs({a}))))",
    "celu": "({a} <= 0.0f ? (float)({alpha} * expm1({a} / (double){alpha})) : {a})",
    "selu": "(float)(1.0507009873554805 * ({a} <= 0.0f ? 1.6732632423543772 * expm1({a}) : {a}))",
    "mish": "(float)({a} * tanh(({a} > 0.0f ? {a} : 0.0) + log1p(exp(-fabs({a})))))",
    "softsign": "{a} / (1.0f + fabsf({a}))",
}


#: Expressions whose values are 0 and 1, and those that are right for booleans as soon as what is not 0 is 1.
_BOOLEAN = frozenset((
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_not", "invert",
    "bitwise_and", "bitwise_or", "isnan", "maximum", "minimum",
))  # fmt: skip
_TRUTHY = frozenset(("cast", "add", "mul", "where", "abs"))


def _elementwise(p: Program, node: Node) -> None:
    expression = _EXPRESSIONS[node.op]
    if node.outputs[0].dtype == bool and node.op not in _BOOLEAN:
        if node.op not in _TRUTHY:
            raise p.refusal(" of booleans")
        expression = f"({expression}) != 0.0f"
    _assign(p, node, expression)


def _assign(p: Program, node: Node, expression: str, **numbers: str) -> None:
    shape = node.outputs[0].shape
    shapes = {p.shape(value) for value in node.inputs if isinstance(value, Ref)}
    if shapes == {tuple(shape)}:  # one loop
        shape = (math.prod(shape),)
    places = [Affine.contiguous(shape) if shapes == {tuple(node.outputs[0].shape)} else Affine.broadcast(p.shape(v), shape)
              for v in node.inputs]  # fmt: skip

    def text(indices: list[str]) -> str:
        values = {key: p.operand(value, at.text(indices)) for key, value, at in zip("abc", node.inputs, places)}
        return expression.format(**values, **numbers)

    p.assign(shape, Affine.contiguous(shape), text)


EMITTERS |= dict.fromkeys(_EXPRESSIONS, _elementwise)


@emits("activation")
def _activation(p: Program, node: Node) -> None:
    if node.options["name"] not in _ACTIVATIONS:
        raise p.refusal("")
    _assign(p, node, _ACTIVATIONS[node.options["name"]], alpha=literal(node.options["alpha"]))


@emits("clamp")
def _clamp(p: Program, node: Node) -> None:
    x, low, high = node.inputs
    if isinstance(low, Ref) or isinstance(high, Ref):
        raise p.refusal(" with limits that are tensors")
    text = "{a}"
    text = text if low is None else f"({text} < {literal(low)} ? {literal(low)} : {text})"
    text = text if high is None else f"({text} > {literal(high)} ? {literal(high)} : {text})"
    _assign(p, Node(node.op, (x,), {}, node.outputs), text)


# ---- reductions ---------------------------------------------------------------------------------------------------------


def _reduce(p: Program, node: Node, start: str, update: str, finish: str = "total") -> None:
    """total = start; update of each element v; result = finish."""
    (x,) = node.inputs[:1]
    shape, axes = p.shape(x), node.options["axes"]
    source = Affine.contiguous(shape)
    kept = [d for d in range(len(shape)) if d not in axes]
    target = Affine.contiguous([shape[d] for d in kept])
    outer = p.nest([shape[d] for d in kept])
    indices = dict(zip(kept, outer))
    p.line(f"double total = {start};")
    inner = p.nest([shape[d] for d in axes], "j")
    indices |= dict(zip(axes, inner))
    p.line(f"const double v = {p.operand(x, source.text([indices[d] for d in range(len(shape))]))};")
    for text in update.splitlines():
        p.line(text)
    p.end([shape[d] for d in axes])
    p.line(f"{p.result()}[{target.text(outer)}] = (float)({finish});")
    p.end([shape[d] for d in kept])


@emits("sum")
@in_block
def _sum(p: Program, node: Node) -> None:
    _reduce(p, node, "0.0", "total += v;")


@emits("mean")
@in_block
def _mean(p: Program, node: Node) -> None:
    count = math.prod(p.shape(node.inputs[0])[a] for a in node.options["axes"])
    _reduce(p, node, "0.0", "total += v;", f"total / {count}.0")


@emits("variance")
@in_block
def _variance(p: Program, node: Node) -> None:
    """By the sums of deviations from the first element of each row, and of their squares, as doubles."""
    count = math.prod(p.shape(node.inputs[0])[a] for a in node.options["axes"])
    freedom = count - node.options["correction"]
    p.line("double squares, first;")
    start = "0.0; squares = 0.0; first = NAN"
    update = "if (first != first) first = v;\ntotal += v - first;\nsquares += (v - first) * (v - first);"
    _reduce(p, node, start, update, f"(squares - total * total / {count}.0) / {double(freedom)}")


@emits("prod")
@in_block
def _prod(p: Program, node: Node) -> None:
    _reduce(p, node, "1.0", "total *= v;")


@emits("extreme")
@in_block
def _extreme(p: Program, node: Node) -> None:
    is_max = node.options["name"].endswith("max")
    sign, start = (">", "-INFINITY") if is_max else ("<", "INFINITY")
    _reduce(p, node, start, f"total = v {sign} total || v != v ? v : total;")


@emits("softmax", "log_softmax")
@in_block
def _softmax(p: Program, node: Node) -> None:
    (x,) = node.inputs
    shape, axis = p.shape(x), node.options["axis"]
    kept = tuple(1 if d == axis else n for d, n in enumerate(shape))
    at, count, y = Affine.contiguous(shape), shape[axis], p.result()
    indices = p.nest(kept)
    indices[axis] = "j"
    place = at.text(indices)
    p.line("double largest = -INFINITY, total = 0.0;")
    for text in (
        f"largest = {p.operand(x, place)} > largest ? {p.operand(x, place)} : largest;",
        f"total += exp({p.operand(x, place)} - largest);",
        f"{y}[{place}] = (float)(exp({p.operand(x, place)} - largest) / total);" if node.op == "softmax" else
        f"{y}[{place}] = (float)({p.operand(x, place)} - largest - log(total));",
    ):  # fmt: skip
        p.open(count, "j")
        p.line(text)
        p.close()
    p.end(kept)


# ---- products -----------------------------------------------------------------------------------------------------------


@emits("linear")
@in_block
def _linear(p: Program, node: Node) -> None:
    x, w, b = node.inputs
    (rows, features), width = p.shape(x), p.shape(w)[0]
    i, o = p.nest((rows, width))
    p.line(f"double total = {double(0.0) if b is None else p.operand(b, o)};")
    p.open(features, "k")
    left, right = Affine(0, (features, 1)).text([i, "k"]), Affine(0, (features, 1)).text([o, "k"])
    p.line(f"total += (double){p.operand(x, left)} * {p.operand(w, right)};")
    p.close()
    p.line(f"{p.result()}[{Affine(0, (width, 1)).text([i, o])}] = (float)total;")
    p.end((rows, width))


@emits("matmul")
@in_block
def _matmul(p: Program, node: Node) -> None:
    a, b = node.inputs
    left, right = p.shape(a), p.shape(b)
    left_matrix, right_matrix = (1, *left) if len(left) == 1 else left, (*right, 1) if len(right) == 1 else right
    batch = numpy.broadcast_shapes(left_matrix[:-2], right_matrix[:-2])
    rows, depth, columns = left_matrix[-2], left_matrix[-1], right_matrix[-1]
    indices = p.nest((*batch, rows, columns))
    *outer, i, j = indices
    p.line("double total = 0.0;")
    p.open(depth, "k")
    places = []
    for shape, matrix in ((left_matrix, (i, "k")), (right_matrix, ("k", j))):
        own = Affine.contiguous(shape)
        lead = len(batch) - (len(shape) - 2)
        strides = (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape[:-2], own.strides)) + own.strides[-2:]
        places.append(Affine(0, strides).text([*outer, *matrix]))
    p.line(f"total += (double){p.operand(a, places[0])} * {p.operand(b, places[1])};")
    p.close()
    p.line(f"{p.result()}[{Affine.contiguous((*batch, rows, columns)).text(indices)}] = (float)total;")
    p.end((*batch, rows, columns))
