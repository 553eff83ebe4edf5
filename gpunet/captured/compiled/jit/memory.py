"""What compiled steps are made of: memory by address, and a small matrix product in vector registers.

Each loop nest is a function of its own, whose operands either are the same or don't overlap.  Loads and stores carry that
knowledge as LLVM's alias scopes, so that loops are vectorised without checks at run time.  Imported by generated modules
only: Numba is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir
from numba import int32, int64, njit, types, uint8
from numba.core import cgutils
from numba.extending import intrinsic

from gpunet.captured.compiled.arguments import ALIGNED, CONTIGUOUS, DATA, FLAGS

SCOPES = 32  # operands of a nest


def _tag(builder: Any, access: Any, scope: int) -> None:
    """Say that an access of this scope overlaps with none of another."""
    module = builder.module
    domain = module.add_metadata(["gpunet"])
    scopes = [module.add_metadata([f"gpunet {number}", domain]) for number in range(SCOPES)]
    access.set_metadata("alias.scope", module.add_metadata([scopes[scope]]))
    access.set_metadata("noalias", module.add_metadata([s for s in scopes if s is not scopes[scope]]))


@intrinsic
def apart(context):
    """Keep the calling function from being inlined: scopes only hold within it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def pointer(context, address, dtype):
    """The address of elements of ``dtype`` as a pointer; booleans are bytes."""
    kind = types.CPointer(types.uint8 if dtype.dtype == types.boolean else dtype.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), generate


@intrinsic(prefer_literal=True)
def load(context, address, index, scope):
    """The element at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.gep(arguments[0], [arguments[1]]))
        _tag(builder, value, scope.literal_value)
        return value

    return address.dtype(address, types.int64, scope), generate


@intrinsic(prefer_literal=True)
def store(context, address, index, value, scope):
    """Write the element at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))
        _tag(builder, written, scope.literal_value)
        return context.get_dummy_value()

    return types.void(address, types.int64, address.dtype, scope), generate


@intrinsic
def hidden(context, number):
    """A number that the compiler does not know: a short loop of known length it would unroll whole, and then not vectorise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        value = context.cast(builder, arguments[0], number, types.int64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [value], False)

    return types.int64(number), generate


@intrinsic
def element(context, address, value):
    """A number as one of those at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], value, address.dtype)

    return address.dtype(address, value), generate


# ---- arrays ---------------------------------------------------------------------------------------------------------

#: Decorator of what only compiled functions call.
jit_helper = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@jit_helper
def lend(table, slot, array, size, alignment, written):
    """Put the address of an array's elements, so many bytes, into the table; 1 where they cannot be read there.

    Args:
        array: the address of the array object.
        written: that of :func:`given.written_spans`.
    """
    start, flags = load(pointer(array + DATA, int64), 0, 0), load(pointer(array + FLAGS, int32), 0, 0)
    if not (flags & CONTIGUOUS and flags & ALIGNED) or start & alignment - 1:
        return 1
    spans = pointer(written, int64)
    for number in range(1, 1 + 2 * load(spans, 0, 0), 2):
        if load(spans, number, 0) < start + size and start < load(spans, number + 1, 0):
            return 1
    store(pointer(table, int64), slot, start, 0)
    return 0


@jit_helper
def copy(table, slot, array, size):
    """Copy an array's elements, so many bytes, to the address in the table; 1 where they don't lie one after the other."""
    apart()
    if not load(pointer(array + FLAGS, int32), 0, 0) & CONTIGUOUS:
        return 1
    target, source = load(pointer(table, int64), slot, 0), load(pointer(array + DATA, int64), 0, 0)
    if target != source:
        for byte in range(size):
            store(pointer(target, uint8), byte, load(pointer(source, uint8), byte, 1), 2)
    return 0


# ---- arithmetic that plain Python has no word for -------------------------------------------------------------------


@intrinsic
def choose(context, condition, yes, no):
    """``yes`` where the condition holds, else ``no``, without a branch; both of one type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(types.boolean, yes, yes), generate


@intrinsic
def whole(context, value, kind):
    """A floating number as a signed integer, the least one where it does not fit: to LLVM that would be any value, or none."""
    integer = kind.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(integer.bitwidth), arguments[0]
        limit = 2.0 ** (integer.bitwidth - 1)
        above = builder.fcmp_ordered(">=", number, number.type(-limit))
        fits = builder.and_(above, builder.fcmp_ordered("<", number, number.type(limit)))
        return builder.select(fits, builder.fptosi(number, word), word(-(2 ** (integer.bitwidth - 1))))

    return integer(value, kind), generate


def _extreme(relation: str) -> Any:
    @intrinsic
    def extreme(context, a, b):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b = arguments
            first = builder.or_(builder.fcmp_ordered(relation, a, b), builder.fcmp_unordered("uno", a, a))
            return builder.select(first, a, b)

        return a(a, a), generate

    return extreme


#: The larger or smaller of two floating numbers, the second of equal ones (0 and -0) as in NumPy; NaN if one is.
maximum, minimum = _extreme(">"), _extreme("<")


@intrinsic
def accumulate(context, total, value):
    """total + value, where the compiler may choose the order of a whole sum: once and for all runs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc",))

    return total(total, total), generate


def _nan_aware(name: str) -> Any:
    @intrinsic
    def extreme(context, total, value):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(total)
            name_of_kind = f"llvm.{name}.f{total.bitwidth}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind]), name_of_kind)
            return builder.call(function, arguments)

        return total(total, total), generate

    return extreme


#: The same for steps of a reduction, which LLVM knows by this form.
largest, smallest = _nan_aware("maximum"), _nan_aware("minimum")


@intrinsic
def call(context, address, *arguments):
    """Call a function of integers and float64 by its address; it returns an integer."""
    kinds = types.StarArgTuple(arguments[0].types) if isinstance(arguments[0], types.BaseTuple) else types.StarArgTuple(arguments)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [builder.extract_value(arguments[1], i) for i in range(len(kinds.types))]
        kind = ir.FunctionType(ir.IntType(64), [value.type for value in values])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), values)

    return types.int64(types.int64, kinds), generate


@intrinsic
def float_bits(context, value):
    """The bits of a floating number as a signed integer of its width, and of such an integer as a number."""
    kinds = {types.float32: types.int32, types.float64: types.int64, types.int32: types.float32, types.int64: types.float64}
    kind = kinds[value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(kind))

    return kind(value), generate


@intrinsic
def high_product(context, a, b):
    """The upper 64 bits of a product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


# ---- matrix product -------------------------------------------------------------------------------------------------


def _vector_bytes() -> int:
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()  # of this CPU's widest registers
HEIGHTS = (8, 4, 1) if VECTOR_BYTES == 64 else (6, 3, 1)  # rows of a tile; with 2 vectors a row it fits the registers


@contextmanager
def _counted(builder: Any, count: Any) -> Iterator[Any]:
    """A loop over 0 .. count - 1 that the compiler leaves as it is."""
    index = ir.IntType(64)
    variable = cgutils.alloca_once(builder, index)
    builder.store(index(0), variable)
    condition, body, end = (builder.append_basic_block(f"counted.{name}") for name in ("condition", "body", "end"))
    builder.branch(condition)
    builder.position_at_end(condition)
    number = builder.load(variable)
    builder.cbranch(builder.icmp_signed("<", number, count), body, end)
    builder.position_at_end(body)
    yield number
    builder.store(builder.add(number, index(1)), variable)
    back = builder.branch(condition)
    module = builder.module
    back.set_metadata("llvm.loop", module.add_metadata([_loop_name(builder), module.add_metadata(["llvm.loop.unroll.disable"])]))
    builder.position_at_end(end)


def _loop_name(builder: Any) -> Any:
    """Tells one loop from the next: loops of equal metadata would be one."""
    return builder.module.add_metadata([f"gpunet loop {builder.block.name}"])


@intrinsic
def lanes(context, address):
    """How many elements a vector register holds."""
    count = VECTOR_BYTES // (address.dtype.bitwidth // 8)
    return types.int64(address), lambda context, builder, signature, arguments: ir.IntType(64)(count)


@intrinsic
def moved(context, address, offset):
    """A pointer ``offset`` elements on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return address(address, types.int64), generate


def _broadcast(builder: Any, value: Any, kind: Any) -> Any:
    """A vector that holds a number everywhere."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane = ir.IntType(32)
    first = builder.insert_element(undefined, value, lane(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, kind.count), [0] * kind.count))


def _first(builder: Any, count: Any, width: int) -> Any:
    """A mask of the first ``count`` lanes."""
    kind = ir.VectorType(ir.IntType(64), width)
    return builder.icmp_signed("<", ir.Constant(kind, list(range(width))), _broadcast(builder, count, kind))


def load_vector(builder: Any, address: Any, kind: Any, count: Any = None) -> Any:
    """Neighbouring elements; with ``count`` only so many, and zeros behind them."""
    size = 8 if kind.element == ir.DoubleType() else 4
    where = builder.bitcast(address, kind.as_pointer())
    if count is None:
        return builder.load(where, align=size)
    mask = _first(builder, count, kind.count)
    signature = ir.FunctionType(kind, [where.type, ir.IntType(32), mask.type, kind])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.load.v{kind.count}f{8 * size}.p0")
    return builder.call(function, [where, ir.IntType(32)(size), mask, ir.Constant(kind, [0.0] * kind.count)])


def store_vector(builder: Any, value: Any, address: Any, count: Any = None) -> None:
    """Write neighbouring elements; with ``count`` only so many."""
    kind = value.type
    size = 8 if kind.element == ir.DoubleType() else 4
    where = builder.bitcast(address, kind.as_pointer())
    if count is None:
        builder.store(value, where, align=size)
        return
    mask = _first(builder, count, kind.count)
    signature = ir.FunctionType(ir.VoidType(), [kind, where.type, ir.IntType(32), mask.type])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.store.v{kind.count}f{8 * size}.p0")
    builder.call(function, [value, where, ir.IntType(32)(size), mask])


@intrinsic(prefer_literal=True)
def stripe(context, out, a, b, rows, depth, out_row, a_row, a_depth, b_depth, columns, vectors):
    """Some neighbouring columns of out = a b, in tiles that stay in registers while the depth is summed.

    These are as many columns as fill ``vectors`` registers; where that is 0, the ``columns`` that don't fill one.
    Columns of ``out`` and ``b`` lie next to each other; the other strides are in elements.
    """
    size = out.dtype.bitwidth // 8
    count, width = max(1, vectors.literal_value), VECTOR_BYTES // size

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, a, b, rows, depth, out_row, a_row, a_depth, b_depth, columns = arguments[:10]
        index = ir.IntType(64)
        kind = ir.VectorType(context.get_value_type(signature.args[0].dtype), width)
        zero = ir.Constant(kind, [0.0] * width)
        name = f"llvm.fmuladd.v{width}f{8 * size}"
        multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        part = columns if vectors.literal_value == 0 else None

        def vector(address: Any, column: int) -> Any:
            return builder.gep(address, [index(column * width)])

        def tile(first: Any, height: int) -> None:
            of_a = [builder.gep(a, [builder.mul(builder.add(first, index(i)), a_row)]) for i in range(height)]
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(count)] for _ in range(height)]
            for total in (t for row in sums for t in row):
                builder.store(zero, total)
            with _counted(builder, depth) as step:
                row_of_b = builder.gep(b, [builder.mul(step, b_depth)])
                of_b = [load_vector(builder, vector(row_of_b, j), kind, part) for j in range(count)]
                along = builder.mul(step, a_depth)
                for i in range(height):
                    spread = _broadcast(builder, builder.load(builder.gep(of_a[i], [along])), kind)
                    for j in range(count):
                        builder.store(builder.call(multiply_add, [spread, of_b[j], builder.load(sums[i][j])]), sums[i][j])
            for i in range(height):
                row = builder.gep(out, [builder.mul(builder.add(first, index(i)), out_row)])
                for j in range(count):
                    store_vector(builder, builder.load(sums[i][j]), vector(row, j), part)

        done = index(0)
        for height in HEIGHTS:
            blocks = builder.sdiv(builder.sub(rows, done), index(height))
            with _counted(builder, blocks) as block:
                tile(builder.add(done, builder.mul(block, index(height))), height)
            done = builder.add(done, builder.mul(blocks, index(height)))
        return context.get_dummy_value()

    integers = [types.int64] * 7
    return types.void(out, a, b, *integers, vectors), generate


@intrinsic
def transposed(context, out, a, out_row, a_row, rows, columns):
    """out = a transposed, for at most so many rows and columns of ``a`` as a register has lanes; all others in registers.

    Columns of both lie next to each other.  Stage s of the network exchanges the off-diagonal quarters of squares of 2s.
    """
    size = a.dtype.bitwidth // 8
    width = VECTOR_BYTES // size

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, a, out_row, a_row, rows, columns = arguments
        index, lane = ir.IntType(64), ir.IntType(32)
        kind = ir.VectorType(context.get_value_type(signature.args[0].dtype), width)

        def block(rows: Any, columns: Any) -> None:
            vectors = []
            for i in range(width):
                row = index(i)
                if rows is not None:  # a row that is not there: the last one in its stead, and nobody stores it
                    row = builder.select(builder.icmp_signed("<", row, rows), row, builder.sub(rows, index(1)))
                vectors.append(load_vector(builder, builder.gep(a, [builder.mul(row, a_row)]), kind, columns))
            step = 1
            while step < width:
                for i in (i for i in range(width) if not i & step):
                    low = [j if not j & step else width + j - step for j in range(width)]
                    high = [j + step if not j & step else width + j for j in range(width)]
                    pair = vectors[i], vectors[i + step]
                    for k, lanes in ((i, low), (i + step, high)):
                        mask = ir.Constant(ir.VectorType(lane, width), lanes)
                        vectors[k] = builder.shuffle_vector(*pair, mask)
                step *= 2
            for j, vector in enumerate(vectors):
                where = builder.gep(out, [builder.mul(index(j), out_row)])
                if columns is None:
                    store_vector(builder, vector, where, rows)
                else:
                    with builder.if_then(builder.icmp_signed("<", index(j), columns)):
                        store_vector(builder, vector, where, rows)

        whole = builder.and_(
            builder.icmp_signed(">=", rows, index(width)), builder.icmp_signed(">=", columns, index(width))
        )
        with builder.if_else(whole) as (yes, no):
            with yes:
                block(None, None)
            with no:
                block(rows, columns)
        return context.get_dummy_value()

    return types.void(out, a, *[types.int64] * 4), generate
