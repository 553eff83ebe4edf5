"""Memory by address: loads and stores with alias scopes, NumPy arguments, and atomics.

Each loop nest is a function of its own in which two operands are either the same or disjoint.  LLVM's alias scopes on
loads and stores say so, and LLVM vectorises the loops without overlap checks at run time.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from gpunet.captured.compiled.jit.decorators import jit_helper

MAX_SCOPES = 32  # operands of a nest
MAX_WORDS = 256  # arguments of a function of a program

_WORD = ir.IntType(64)


# ---- loads and stores -----------------------------------------------------------------------------------------------


def _add_alias_scope(builder: Any, access: Any, scope: int) -> None:
    """Mark a load or store of ``scope`` as disjoint from those of all other scopes."""
    module = builder.module
    domain = module.add_metadata(["gpunet"])
    scopes = [module.add_metadata([f"gpunet {number}", domain]) for number in range(MAX_SCOPES)]
    access.set_metadata("alias.scope", module.add_metadata([scopes[scope]]))
    access.set_metadata("noalias", module.add_metadata([s for s in scopes if s is not scopes[scope]]))


@intrinsic
def pointer(context, address, dtype):
    """An address as a pointer to elements of ``dtype``; booleans are bytes."""
    kind = types.CPointer(types.uint8 if dtype.dtype == types.boolean else dtype.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), generate


@intrinsic
def advance(context, pointer, offset):
    """The pointer, moved by ``offset`` elements."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


@intrinsic(prefer_literal=True)
def load(context, pointer, index, scope):
    """The element at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.gep(arguments[0], [arguments[1]]))
        _add_alias_scope(builder, value, scope.literal_value)
        return value

    return pointer.dtype(pointer, types.int64, scope), generate


@intrinsic(prefer_literal=True)
def store(context, pointer, index, value, scope):
    """Write the element at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))
        _add_alias_scope(builder, stored, scope.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype, scope), generate


@intrinsic
def like(context, pointer, value):
    """A number in the dtype that ``pointer`` points to."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], value, pointer.dtype)

    return pointer.dtype(pointer, value), generate


# ---- words of a program ---------------------------------------------------------------------------------------------


@intrinsic
def word_at(context, address, index):
    """The 64-bit word at ``index``, an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.load(builder.gep(words, [arguments[1]]))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def real_at(context, address, index):
    """The 64-bit word at ``index``, a float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        return builder.load(builder.gep(words, [arguments[1]]))

    return types.float64(types.int64, types.int64), generate


@intrinsic
def set_word_at(context, address, index, value):
    """Write the 64-bit word at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = builder.inttoptr(arguments[0], _WORD.as_pointer())
        builder.store(arguments[2], builder.gep(words, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def stack_words(context):
    """The address of ``MAX_WORDS`` words on the stack, which live as long as the calling function."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once(builder, ir.ArrayType(_WORD, MAX_WORDS)), _WORD)

    return types.int64(), generate


# ---- arguments of a step: NumPy arrays ------------------------------------------------------------------------------


@jit_helper
def _is_contiguous(array):
    expected = array.itemsize
    for axis in range(array.ndim - 1, -1, -1):
        if array.shape[axis] != 1 and array.strides[axis] != expected:
            return False
        expected *= array.shape[axis]
    return True


@jit_helper
def borrow_array(record, array):
    """Put the data address of an array into a program, so that the step reads the array in place.

    Args:
        record: the address of the words of this array (see ``program``).

    Returns:
        0, or 1 if the array is not contiguous, not aligned, or overlaps memory that the step writes.
    """
    start = int64(array.ctypes.data)
    if not _is_contiguous(array) or start & word_at(record, 1) - 1:
        return 1
    if start == word_at(record, 3):
        return 0
    spans = word_at(record, 2)
    for number in range(1, 1 + 2 * word_at(spans, 0), 2):
        if word_at(spans, number) < start + word_at(record, 0) and start < word_at(spans, number + 1):
            return 1
    for number in range(5, 5 + 2 * word_at(record, 4), 2):
        set_word_at(word_at(record, number), 0, start + word_at(record, number + 1))
    set_word_at(record, 3, start)
    return 0


# ---- atomics: 64-bit words that several threads use -----------------------------------------------------------------


@intrinsic
def atomic_load(context, address):
    """Load a word, with acquire semantics."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(context, address, value):
    """Store a word, with release semantics."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[1], signature.args[1], types.int64)
        builder.store_atomic(value, builder.inttoptr(arguments[0], _WORD.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def atomic_add(context, address, value):
    """Add to a word; return its old value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[1], signature.args[1], types.int64)
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], _WORD.as_pointer()), value, "acq_rel")

    return types.int64(types.int64, value), generate


@intrinsic
def pause(context):
    """The CPU's spin-wait hint."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64", "i686", "x86"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate
