"""Elementwise primitives: arithmetic, powers, exponentials, trigonometry, selection, comparison.

All are launches of universal functions that NumPy and CuPy share.  Dtypes follow PyTorch: a Python number takes the
tensor's kind, an integer beside a floating tensor takes the floating dtype, float32 beside float64 gives float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet import autograd
from gpunet.autograd import ADD, COPY, MULTIPLY, Tensor, contiguous, method, primitive
from gpunet.device import Array
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.special import ERF
from gpunet.runtime.kernel import Launchable, Shim, Ufunc
from gpunet.runtime.memory import empty

SUM = Shim("sum", lambda xp, out, x, *, axis, keepdims: xp.sum(x, axis=axis, keepdims=keepdims, out=out))
WHERE = Shim("where", lambda xp, out, condition, a, b: (xp.copyto(out, b), xp.copyto(out, a, where=condition)))
_UFUNCS: dict[str, Ufunc] = {}


def ufunc(name: str) -> Ufunc:
    """The launch of a universal function, by its NumPy name."""
    if name not in _UFUNCS:
        _UFUNCS[name] = Ufunc(name)
    return _UFUNCS[name]


# ---- dtypes, shapes -------------------------------------------------------------------------------------------------


def result_dtype(*operands: Any) -> numpy.dtype[Any]:
    """The dtype of an arithmetic result, by PyTorch's rules for tensors and Python numbers."""
    tensors = [o.array.dtype for o in operands if isinstance(o, Tensor)]
    numbers = [o for o in operands if not isinstance(o, Tensor)]
    floats = [d for d in tensors if d.kind == "f"]
    if floats:
        return numpy.result_type(*floats)
    if any(isinstance(n, (float, numpy.floating)) for n in numbers):
        return autograd.get_default_dtype()
    if not tensors:
        return numpy.dtype("int64")
    dtype = numpy.result_type(*tensors)
    has_integer = any(isinstance(n, (int, numpy.integer)) and not isinstance(n, bool) for n in numbers)
    return numpy.dtype("int64") if dtype.kind == "b" and has_integer else dtype


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of operands.

    Raises:
        ShapeError: they cannot be broadcast; the message names them.
    """
    try:
        return numpy.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise ShapeError(
            f"{name}: shapes {listed} cannot be broadcast together: from the right, dimensions must be equal or 1"
        ) from None


def check_operand(name: str, value: Any) -> None:
    if not isinstance(value, (Tensor, int, float, numpy.number, numpy.bool_)):
        raise DtypeError(f"{name}: operand {value!r} is a {type(value).__name__}; expected a tensor, an array or a number")


def binary(launch: Launchable, a: Any, b: Any, dtype: Any = None) -> Array:
    """Launch a universal function of two operands (tensors or Python numbers) into a new array."""
    if not isinstance(a, Tensor):
        check_operand(launch.name, a)
        if not isinstance(b, Tensor):
            b = autograd.Tensor(numpy.asarray(b, result_dtype(b)))
        x, y, shape, like = a, b.array, b.array.shape, b.array
        dtype = dtype or (like.dtype if like.dtype.kind == "f" else result_dtype(a, b))
    elif not isinstance(b, Tensor):
        check_operand(launch.name, b)
        x, y, shape, like = a.array, b, a.array.shape, a.array
        dtype = dtype or (like.dtype if like.dtype.kind == "f" else result_dtype(a, b))
    else:
        x, y, like = a.array, b.array, a.array
        shape = x.shape if x.shape == y.shape else broadcast_shape(launch.name, x.shape, y.shape)
        dtype = dtype or (x.dtype if x.dtype == y.dtype else result_dtype(a, b))
    out = empty(shape, dtype, like)
    launch(out, x, y)
    return out


def unary(launch: Launchable, x: Tensor, dtype: Any = None) -> Array:
    """Launch a universal function of one tensor into a new array; integers give floats."""
    array = x.array
    out = empty(array.shape, dtype or (array.dtype if array.dtype.kind == "f" else autograd.get_default_dtype()), array)
    launch(out, array)
    return out


def like(value: Any) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of an operand: what its gradient must have."""
    return (value.array.shape, value.array.dtype) if isinstance(value, Tensor) else ((), None)


def fit(g: Tensor, target: tuple[tuple[int, ...], Any]) -> Tensor:
    """The gradient of a broadcast operand: summed over what was broadcast, in the operand's dtype."""
    shape, dtype = target
    if g.array.shape != shape:
        g = sum_to(g, shape=shape)
    return g if g.array.dtype == dtype else cast(g, dtype=dtype)


@primitive
def sum_to(x, *, shape):
    """Sum over the dimensions that broadcasting ``shape`` to ``x.shape`` repeats."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    source = x.shape
    out = empty(shape, x.dtype, x.array)
    SUM(out.reshape((1,) * lead + tuple(shape)), x.array, axis=axes, keepdims=True)
    return out, lambda g: broadcast_to(g, shape=source)


@primitive(view=True)
def broadcast_to(x, *, shape):
    """Repeat without copying: a view with strides of zero."""
    source = x.shape
    xp = autograd.devices.module(x.array)
    return xp.broadcast_to(x.array, shape), lambda g: sum_to(g, shape=source)


@primitive
def cast(x, *, dtype):
    """A copy in another dtype."""
    source = x.dtype
    out = empty(x.shape, dtype, x.array)
    COPY(out, x.array)
    return out, lambda g: cast(g, dtype=source)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@primitive(methods="__add__ __radd__")
def add(a, b):
    a_like, b_like = like(a), like(b)
    return binary(ADD, a, b), lambda g: fit(g, a_like), lambda g: fit(g, b_like)


@primitive(methods="__sub__")
def sub(a, b):
    a_like, b_like = like(a), like(b)
    return binary(ufunc("subtract"), a, b), lambda g: fit(g, a_like), lambda g: fit(-g, b_like)


@primitive(methods="mul multiply __mul__ __rmul__")
def mul(a, b):
    a_like, b_like = like(a), like(b)
    return binary(MULTIPLY, a, b), lambda g: fit(g * b, a_like), lambda g: fit(g * a, b_like)


@primitive(methods="div divide true_divide __truediv__")
def div(a, b):
    a_like, b_like = like(a), like(b)
    dtype = result_dtype(a, b)
    out = binary(ufunc("divide"), a, b, dtype if dtype.kind == "f" else autograd.get_default_dtype())
    return out, lambda g: fit(g / b, a_like), lambda g: fit(-(g * a) / (b * b), b_like)


@primitive(methods="pow __pow__")
def pow(a, b):
    """a ** b.  The gradient of the exponent takes log(a) as 0 where a is 0, as PyTorch does."""
    a_like, b_like = like(a), like(b)
    if not isinstance(b, Tensor) and b == 2:
        return binary(MULTIPLY, a, a), lambda g: fit(g * (2.0 * a), a_like)
    launch = ufunc("power") if isinstance(b, Tensor) or result_dtype(a, b).kind == "f" or b >= 0 else None
    if launch is None:
        raise DtypeError(f"pow: an integer tensor to the negative power {b}: convert it with .float() first")

    def base_rule(g):
        if not isinstance(b, Tensor):
            return fit(g * (b * a ** (b - 1)), a_like) if b != 0 else fit(g * 0.0, a_like)
        # where b is 0 the derivative is 0, also at a = 0, where b * a ** (b - 1) would be 0 * inf
        return fit(where(equal(b, 0), 0.0, g * (b * a ** where(equal(b, 0), 1.0, b - 1))), a_like)

    def exponent_rule(g):
        if not isinstance(a, Tensor):
            return fit(g * (a**b * (math.log(a) if a > 0 else 0.0)), b_like)
        safe = where(equal(a, 0), 1.0, a)
        return fit(g * (a**b * log(safe)), b_like)

    return binary(launch, a, b), base_rule, exponent_rule


@method("__rsub__")
def _rsub(b, a):
    return sub(a, b)


@method("__rtruediv__")
def _rdiv(b, a):
    return div(a, b)


@method("__rpow__")
def _rpow(b, a):
    return pow(a, b)


@method("add")
def _add_method(a, b, *, alpha=1):
    return add(a, b if alpha == 1 else mul(b, alpha))


@method("sub subtract")
def _sub_method(a, b, *, alpha=1):
    return sub(a, b if alpha == 1 else mul(b, alpha))


@primitive(methods="neg negative __neg__")
def neg(x):
    return unary(ufunc("negative"), x, x.dtype), lambda g: -g


@method("__pos__")
def _pos(x):
    return x


@primitive(methods="abs absolute __abs__")
def abs(x):
    return unary(ufunc("absolute"), x, x.dtype), lambda g: g * sign(x)


@primitive(methods="square")
def square(x):
    return unary(ufunc("square"), x, x.dtype), lambda g: g * (2.0 * x)


@primitive(methods="sqrt", output=True)
def sqrt(x):
    return unary(ufunc("sqrt"), x), lambda g, out: g / (2.0 * out)


@method("rsqrt")
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1.0 / sqrt(x)


@primitive(methods="reciprocal", output=True)
def reciprocal(x):
    dtype = x.dtype if x.dtype.kind == "f" else autograd.get_default_dtype()
    return binary(ufunc("divide"), 1.0, x, dtype), lambda g, out: -(g * out * out)


# ---- exponentials, trigonometry -------------------------------------------------------------------------------------


@primitive(methods="exp", output=True)
def exp(x):
    return unary(ufunc("exp"), x), lambda g, out: g * out


@primitive(methods="expm1", output=True)
def expm1(x):
    return unary(ufunc("expm1"), x), lambda g, out: g * (out + 1.0)


@primitive(methods="log")
def log(x):
    return unary(ufunc("log"), x), lambda g: g / x


@primitive(methods="log1p")
def log1p(x):
    return unary(ufunc("log1p"), x), lambda g: g / (x + 1.0)


@primitive(methods="log2")
def log2(x):
    return unary(ufunc("log2"), x), lambda g: g / (x * math.log(2.0))


@primitive(methods="log10")
def log10(x):
    return unary(ufunc("log10"), x), lambda g: g / (x * math.log(10.0))


@primitive(methods="sin")
def sin(x):
    return unary(ufunc("sin"), x), lambda g: g * cos(x)


@primitive(methods="cos")
def cos(x):
    return unary(ufunc("cos"), x), lambda g: -(g * sin(x))


@primitive(methods="tan", output=True)
def tan(x):
    return unary(ufunc("tan"), x), lambda g, out: g * (out * out + 1.0)


@primitive(methods="sinh")
def sinh(x):
    return unary(ufunc("sinh"), x), lambda g: g * cosh(x)


@primitive(methods="cosh")
def cosh(x):
    return unary(ufunc("cosh"), x), lambda g: g * sinh(x)


@primitive(methods="arctan atan")
def atan(x):
    return unary(ufunc("arctan"), x), lambda g: g / (x * x + 1.0)


@primitive(methods="erf")
def erf(x):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    array = x.array if x.dtype.kind == "f" else cast(x, dtype=autograd.get_default_dtype()).array
    out = empty(x.shape, array.dtype, array)
    ERF(out, contiguous(array))
    return out, lambda g: g * (2.0 / math.sqrt(math.pi) * exp(-(x * x)))


# ---- selection ------------------------------------------------------------------------------------------------------


def _extremum(name, a, b, greater_or_less):
    a_like, b_like = like(a), like(b)

    def share(g, first, second, target):  # a tie gives half to each, as PyTorch does
        chosen = cast(_compare(greater_or_less, first, second), dtype=g.dtype)
        return fit(g * (chosen + 0.5 * cast(equal(first, second), dtype=g.dtype)), target)

    return binary(ufunc(name), a, b), lambda g: share(g, a, b, a_like), lambda g: share(g, b, a, b_like)


@primitive(methods="maximum")
def maximum(a, b):
    """The larger of each pair; NaN where either is NaN."""
    return _extremum("maximum", a, b, "greater")


@primitive(methods="minimum")
def minimum(a, b):
    """The smaller of each pair; NaN where either is NaN."""
    return _extremum("minimum", a, b, "less")


@primitive
def _where(condition, a, b):
    mask = condition.array
    shape = broadcast_shape("where", mask.shape, *(v.shape for v in (a, b) if isinstance(v, Tensor)))
    out = empty(shape, result_dtype(a, b), mask)
    WHERE(out, mask, *(v.array if isinstance(v, Tensor) else v for v in (a, b)))
    a_like, b_like = like(a), like(b)
    fixed = Tensor(mask)
    fixed._version = condition._version
    return out, None, lambda g: fit(where(fixed, g, 0.0), a_like), lambda g: fit(where(fixed, 0.0, g), b_like)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where the condition holds, ``b`` elsewhere; no gradient leaks from the side not taken.

    Raises:
        DtypeError: the condition is not boolean.
    """
    condition = condition if isinstance(condition, Tensor) else Tensor(numpy.asarray(condition))
    if condition.dtype != numpy.bool_:
        raise DtypeError(f"where: condition of dtype {condition.dtype}; expected a boolean tensor, as a comparison gives")
    return _where(condition, a, b)


@method("where")
def _where_method(x, condition, other):
    return where(condition, x, other)


@method("masked_fill")
def masked_fill(x: Tensor, mask: Any, value: Any) -> Tensor:
    """``value`` where ``mask`` holds, ``x`` elsewhere."""
    return where(mask, value, x)


@primitive(methods="clamp clip")
def clamp(x, min=None, max=None):
    """Limit to [min, max], numbers or None.  The gradient passes where x is inside, bounds included."""
    if min is None and max is None:
        raise ArgumentError("clamp: min and max are both None; give at least one")
    out = empty(x.shape, result_dtype(x, *(v for v in (min, max) if v is not None)), x.array)
    source = x.array
    if min is not None:
        ufunc("maximum")(out, source, min)
        source = out
    if max is not None:
        ufunc("minimum")(out, source, max)

    def rule(g):
        low = None if min is None else _compare("greater_equal", x, min)
        high = None if max is None else _compare("less_equal", x, max)
        both = low if high is None else high if low is None else logical_and(low, high)
        return where(both, g, 0.0)

    return out, rule


# ---- without a gradient ---------------------------------------------------------------------------------------------


def _compare(name: str, a: Any, b: Any) -> Tensor:
    a, b = autograd._convert([a, b])
    return Tensor(binary(ufunc(name), a, b, numpy.dtype(bool)))


@method("sign sgn")
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1.  Its gradient is zero everywhere, so it has no graph."""
    return Tensor(unary(ufunc("sign"), x, x.dtype))


def _comparison(name: str, methods: str) -> Any:
    def compare(a: Any, b: Any) -> Tensor:
        return _compare(name, a, b)

    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"Elementwise {name.replace('_', ' ')}, a boolean tensor."
    return method(methods)(compare)


equal = _comparison("equal", "eq __eq__")
not_equal = _comparison("not_equal", "ne __ne__")
greater = _comparison("greater", "gt __gt__")
greater_equal = _comparison("greater_equal", "ge __ge__")
less = _comparison("less", "lt __lt__")
less_equal = _comparison("less_equal", "le __le__")
logical_and = _comparison("logical_and", "logical_and __and__ __rand__")
logical_or = _comparison("logical_or", "logical_or __or__ __ror__")
logical_xor = _comparison("logical_xor", "logical_xor __xor__ __rxor__")


def _predicate(name: str) -> Any:
    def test(x: Any) -> Tensor:
        return Tensor(unary(ufunc(name), autograd._convert([x])[0], numpy.dtype(bool)))

    test.__name__ = test.__qualname__ = name
    test.__doc__ = f"Elementwise {name}, a boolean tensor."
    return method(name)(test)


isnan = _predicate("isnan")
isinf = _predicate("isinf")
isfinite = _predicate("isfinite")
logical_not = _predicate("logical_not")
Tensor.__invert__ = logical_not  # type: ignore[method-assign]


def _rounding(name: str, methods: str) -> Any:
    def function(x: Any) -> Tensor:
        x = autograd._convert([x])[0]
        return Tensor(unary(ufunc(name), x, x.dtype))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise {name}.  Its gradient is zero almost everywhere, so it has no graph."
    return method(methods)(function)


floor = _rounding("floor", "floor")
ceil = _rounding("ceil", "ceil")
round = _rounding("rint", "round")
trunc = _rounding("trunc", "trunc")


def _integer_arithmetic(name: str, methods: str) -> Any:
    def function(a: Any, b: Any) -> Tensor:
        a, b = autograd._convert([a, b])
        return Tensor(binary(ufunc(name), a, b))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise {name}, with Python's sign; no graph."
    return method(methods)(function)


floor_divide = _integer_arithmetic("floor_divide", "floor_divide __floordiv__")
remainder = _integer_arithmetic("remainder", "remainder __mod__")


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are equal within ``atol + rtol * |b|``."""
    a, b = (autograd.devices.move(autograd._convert([v])[0].array, autograd.devices.CPU) for v in (a, b))
    return bool(numpy.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))


# ---- in place -------------------------------------------------------------------------------------------------------


def replace(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Let ``target`` become ``result`` in place: its memory and its place in the graph."""
    if result.shape != target.shape:
        raise ShapeError(f"{name}: the result has shape {result.shape}, the tensor {target.shape}; in place they must agree")
    COPY(target.array, result.array)
    target._version[0] += 1
    if target._view_version is not None:
        target._view_version = target._version[0]
    if result._requires_grad:
        target._node, target._index, target._requires_grad = result._node, result._index, True
    return target


def check_in_place(target: Tensor, others: tuple[Any, ...], name: str) -> None:
    """Refuse the changes in place that the graph cannot follow.

    Raises:
        GradientError: on a leaf that requires grad.
        InPlaceError: on a view, with a gradient to follow.
    """
    if not autograd.is_grad_enabled():
        return
    if target._requires_grad and target._node is None:
        raise autograd.GradientError(
            f"{name} on a leaf tensor that requires grad; do it under no_grad(), or use the op that returns a new tensor"
        )
    follows = target._requires_grad or any(isinstance(o, Tensor) and o._requires_grad for o in others)
    if follows and target._view_version is not None:
        raise autograd.InPlaceError(
            f"{name} on a view whose base has a gradient to follow: change the base (base[index] = ...), or a .clone()"
        )


def _alias_of(target: Tensor) -> Tensor:
    """What the target was before the change, for rules to close over."""
    old = Tensor(target.array)
    old._version, old._node, old._index = target._version, target._node, target._index
    old._requires_grad = target._requires_grad
    return old


def _in_place(op: Any, methods: str, launch: Ufunc | None = None) -> None:
    name = methods.split()[0]

    def change(self: Tensor, *args: Any, **options: Any) -> Tensor:
        check_in_place(self, args, name)
        graph = autograd.is_grad_enabled() and (
            self._requires_grad or any(isinstance(a, Tensor) and a._requires_grad for a in args)
        )
        if launch is not None and not graph and not options and self.array.dtype.kind == "f":
            other = autograd._convert(args)[0] if args else None
            operand = other.array if isinstance(other, Tensor) else other
            if not isinstance(other, Tensor) or other.shape == self.shape or broadcast_shape(
                name, self.shape, other.shape
            ) == self.shape:
                launch(self.array, self.array, *(() if other is None else (operand,)))
                self._version[0] += 1
                if self._view_version is not None:
                    self._view_version = self._version[0]
                return self
        return replace(self, op(_alias_of(self), *args, **options), name)

    change.__name__ = name
    change.__doc__ = f"{name[:-1] if name.endswith('_') else name}, in place."
    method(methods)(change)


_in_place(_add_method, "add_ __iadd__", ADD)
_in_place(_sub_method, "sub_ __isub__", ufunc("subtract"))
_in_place(mul, "mul_ __imul__", MULTIPLY)
_in_place(div, "div_ __itruediv__", ufunc("divide"))
_in_place(pow, "pow_ __ipow__")
_in_place(clamp, "clamp_ clip_")
_in_place(neg, "neg_", ufunc("negative"))
_in_place(exp, "exp_", ufunc("exp"))
_in_place(sqrt, "sqrt_", ufunc("sqrt"))
_in_place(abs, "abs_", ufunc("absolute"))
_in_place(masked_fill, "masked_fill_")


@method("fill_")
def fill_(x: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``."""
    check_in_place(x, (value,), "fill_")
    return replace(x, broadcast_to(cast(_as_scalar(value, x), dtype=x.dtype), shape=x.shape), "fill_")


def _as_scalar(value: Any, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    out = empty((), x.dtype, x.array)
    autograd.FILL(out, value=value)
    return Tensor(out)


@method("zero_")
def zero_(x: Tensor) -> Tensor:
    """Set every element to zero."""
    return fill_(x, 0)


@method("copy_")
def copy_(x: Tensor, source: Any) -> Tensor:
    """Copy ``source`` into ``x``, broadcast and converted; between devices too."""
    source = autograd._convert([source])[0]
    check_in_place(x, (source,), "copy_")
    if source.device != x.device:
        source = Tensor(autograd.devices.move(source.array, x.device))
    if source.dtype != x.dtype:
        source = cast(source, dtype=x.dtype)
    if source.shape != x.shape:
        broadcast_shape("copy_", source.shape, x.shape)
        source = broadcast_to(source, shape=x.shape)
    return replace(x, source, "copy_")
