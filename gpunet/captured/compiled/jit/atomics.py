"""Words that several threads read and write at once, for the regions of compiled steps.  Imported by these only."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD = ir.IntType(64)


@intrinsic
def read(context, address):
    """The word at an address; what was written before it was written is seen from then on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def write(context, address, value):
    """Set the word at an address, behind everything that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[1], signature.args[1], types.int64)
        builder.store_atomic(value, builder.inttoptr(arguments[0], _WORD.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def fetch_add(context, address, value):
    """Add to the word at an address; what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[1], signature.args[1], types.int64)
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], _WORD.as_pointer()), value, "acq_rel")

    return types.int64(types.int64, value), generate


@intrinsic
def pause(context):
    """A moment of a thread that waits without sleeping."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64", "i686", "x86"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate
