"""Scalar operations that plain Python, as Numba compiles it, lacks or compiles to branches."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def select(context, condition, yes, no):
    """``yes`` if the condition holds, else ``no``, without a branch; both have the same type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(types.boolean, yes, yes), generate


@intrinsic
def float_to_int(context, value, kind):
    """Truncate a float to a signed integer; the smallest integer if it does not fit (undefined in LLVM's fptosi)."""
    integer = kind.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(integer.bitwidth), arguments[0]
        limit = 2.0 ** (integer.bitwidth - 1)
        above = builder.fcmp_ordered(">=", number, number.type(-limit))
        fits = builder.and_(above, builder.fcmp_ordered("<", number, number.type(limit)))
        return builder.select(fits, builder.fptosi(number, word), word(-(2 ** (integer.bitwidth - 1))))

    return integer(value, kind), generate


def _extremum(relation: str) -> Any:
    @intrinsic
    def extremum(context, a, b):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b = arguments
            is_first = builder.or_(builder.fcmp_ordered(relation, a, b), builder.fcmp_unordered("uno", a, a))
            return builder.select(is_first, a, b)

        return a(a, a), generate

    return extremum


#: numpy.maximum and numpy.minimum of two floats: NaN if either is NaN; the second of equal operands (0.0 and -0.0).
maximum, minimum = _extremum(">"), _extremum("<")


# ---- steps of a reduction -------------------------------------------------------------------------------------------


@intrinsic
def reduce_add(context, total, value):
    """total + value, which LLVM may reassociate to vectorise a sum; the compiled code fixes the order for all runs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc",))

    return total(total, total), generate


def _reduce_extremum(name: str) -> Any:
    @intrinsic
    def extremum(context, total, value):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(total)
            intrinsic_name = f"llvm.{name}.f{total.bitwidth}"
            kinds = ir.FunctionType(kind, [kind, kind])
            return builder.call(cgutils.get_or_insert_function(builder.module, kinds, intrinsic_name), arguments)

        return total(total, total), generate

    return extremum


#: NaN-propagating maximum and minimum in the form that LLVM vectorises as reductions.
reduce_maximum, reduce_minimum = _reduce_extremum("maximum"), _reduce_extremum("minimum")


# ---- bits and calls -------------------------------------------------------------------------------------------------


@intrinsic
def bitcast(context, value):
    """The bits of a float as a signed integer of the same width, or of such an integer as a float."""
    kinds = {types.float32: types.int32, types.float64: types.int64, types.int32: types.float32, types.int64: types.float64}
    kind = kinds[value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(kind))

    return kind(value), generate


@intrinsic
def multiply_high(context, a, b):
    """The upper 64 bits of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def call_address(context, address, *arguments):
    """Call the C function at an address with int64 and float64 arguments; it returns an int64."""
    kinds = types.StarArgTuple(arguments[0].types) if isinstance(arguments[0], types.BaseTuple) else types.StarArgTuple(arguments)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [builder.extract_value(arguments[1], i) for i in range(len(kinds.types))]
        kind = ir.FunctionType(ir.IntType(64), [value.type for value in values])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), values)

    return types.int64(types.int64, kinds), generate
