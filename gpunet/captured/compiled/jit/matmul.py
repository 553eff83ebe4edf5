"""Matrix products and transposition: loops over tiles whose sums stay in vector registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpunet.captured.compiled.jit.arithmetic import reduce_add
from gpunet.captured.compiled.jit.memory import advance, like, load, store
from gpunet.launch.loops import loop_body


def _vector_bytes() -> int:
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()  # of this CPU's widest registers
TILE_ROWS = (8, 4, 1) if VECTOR_BYTES == 64 else (6, 3, 1)  # a tile of 2 vectors per row fits the registers


# ---- LLVM building blocks -------------------------------------------------------------------------------------------


@contextmanager
def _loop(builder: Any, count: Any) -> Iterator[Any]:
    """Emit a loop over 0 .. count - 1 that LLVM does not unroll."""
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
    # its own name, because LLVM takes loops with equal metadata for one loop
    texts = f"gpunet loop {builder.block.name}", "llvm.loop.unroll.disable"
    properties = [builder.module.add_metadata([text]) for text in texts]
    back.set_metadata("llvm.loop", builder.module.add_metadata(properties))
    builder.position_at_end(end)


def _broadcast(builder: Any, value: Any, kind: Any) -> Any:
    """A vector with ``value`` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane = ir.IntType(32)
    first = builder.insert_element(undefined, value, lane(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, kind.count), [0] * kind.count))


def _first_lanes(builder: Any, count: Any, width: int) -> Any:
    """A mask of the first ``count`` lanes."""
    kind = ir.VectorType(ir.IntType(64), width)
    return builder.icmp_signed("<", ir.Constant(kind, list(range(width))), _broadcast(builder, count, kind))


def _load_vector(builder: Any, address: Any, kind: Any, count: Any = None) -> Any:
    """Load adjacent elements; with ``count`` only the first ``count``, and zeros in the other lanes."""
    size = 8 if kind.element == ir.DoubleType() else 4
    source = builder.bitcast(address, kind.as_pointer())
    if count is None:
        return builder.load(source, align=size)
    mask = _first_lanes(builder, count, kind.count)
    signature = ir.FunctionType(kind, [source.type, ir.IntType(32), mask.type, kind])
    name = f"llvm.masked.load.v{kind.count}f{8 * size}.p0"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [source, ir.IntType(32)(size), mask, ir.Constant(kind, [0.0] * kind.count)])


def _store_vector(builder: Any, value: Any, address: Any, count: Any = None) -> None:
    """Store adjacent elements; with ``count`` only the first ``count``."""
    kind = value.type
    size = 8 if kind.element == ir.DoubleType() else 4
    target = builder.bitcast(address, kind.as_pointer())
    if count is None:
        builder.store(value, target, align=size)
        return
    mask = _first_lanes(builder, count, kind.count)
    signature = ir.FunctionType(ir.VoidType(), [kind, target.type, ir.IntType(32), mask.type])
    name = f"llvm.masked.store.v{kind.count}f{8 * size}.p0"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, [value, target, ir.IntType(32)(size), mask])


# ---- tiles ----------------------------------------------------------------------------------------------------------


@intrinsic
def vector_width(context, pointer):
    """Elements per vector register."""
    count = VECTOR_BYTES // (pointer.dtype.bitwidth // 8)
    return types.int64(pointer), lambda context, builder, signature, arguments: ir.IntType(64)(count)


@intrinsic(prefer_literal=True)
def product_columns(context, out, a, b, rows, depth, out_row, a_row, a_depth, b_depth, columns, vectors):
    """Adjacent columns of out = a b, in tiles that stay in registers while the product sums over ``depth``.

    Computes as many columns as fill ``vectors`` registers; if ``vectors`` is 0, the ``columns`` that do not fill one.
    The columns of ``out`` and of ``b`` are adjacent (stride 1); the other strides are in elements.
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
        num_lanes = columns if vectors.literal_value == 0 else None

        def vector(address: Any, column: int) -> Any:
            return builder.gep(address, [index(column * width)])

        def tile(first: Any, height: int) -> None:
            a_rows = [builder.gep(a, [builder.mul(builder.add(first, index(i)), a_row)]) for i in range(height)]
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(count)] for _ in range(height)]
            for total in (t for row in sums for t in row):
                builder.store(zero, total)
            with _loop(builder, depth) as step:
                b_row = builder.gep(b, [builder.mul(step, b_depth)])
                b_vectors = [_load_vector(builder, vector(b_row, j), kind, num_lanes) for j in range(count)]
                a_offset = builder.mul(step, a_depth)
                for i in range(height):
                    factor = _broadcast(builder, builder.load(builder.gep(a_rows[i], [a_offset])), kind)
                    for j in range(count):
                        total = builder.call(multiply_add, [factor, b_vectors[j], builder.load(sums[i][j])])
                        builder.store(total, sums[i][j])
            for i in range(height):
                row = builder.gep(out, [builder.mul(builder.add(first, index(i)), out_row)])
                for j in range(count):
                    _store_vector(builder, builder.load(sums[i][j]), vector(row, j), num_lanes)

        done = index(0)
        for height in TILE_ROWS:
            num_tiles = builder.sdiv(builder.sub(rows, done), index(height))
            with _loop(builder, num_tiles) as number:
                tile(builder.add(done, builder.mul(number, index(height))), height)
            done = builder.add(done, builder.mul(num_tiles, index(height)))
        return context.get_dummy_value()

    integers = [types.int64] * 7
    return types.void(out, a, b, *integers, vectors), generate


@intrinsic
def transpose_block(context, out, a, out_row, a_row, rows, columns):
    """out = a^T for one square block of as many rows and columns as a register has lanes, or fewer at the edges.

    ``rows`` and ``columns`` count those of ``a`` from the block's corner on.  Both matrices have stride 1 along a row.  A full
    block stays in registers: pass s swaps the off-diagonal quarters of each square of 2s rows and columns.
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
                if rows is not None:  # load the last row again instead of a missing one; it is not stored
                    row = builder.select(builder.icmp_signed("<", row, rows), row, builder.sub(rows, index(1)))
                vectors.append(_load_vector(builder, builder.gep(a, [builder.mul(row, a_row)]), kind, columns))
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
                target = builder.gep(out, [builder.mul(index(j), out_row)])
                if columns is None:
                    _store_vector(builder, vector, target, rows)
                else:
                    with builder.if_then(builder.icmp_signed("<", index(j), columns)):
                        _store_vector(builder, vector, target, rows)

        is_full = builder.and_(builder.icmp_signed(">=", rows, index(width)), builder.icmp_signed(">=", columns, index(width)))
        with builder.if_else(is_full) as (yes, no):
            with yes:
                block(None, None)
            with no:
                block(rows, columns)
        return context.get_dummy_value()

    return types.void(out, a, *[types.int64] * 4), generate


# ---- loop bodies ----------------------------------------------------------------------------------------------------


@loop_body
def product(out, a, b, m, n, k, out_row, a_row, a_depth, b_depth):
    """out (m, n) = a (m, k) b (k, n), where the columns of out and of b are adjacent; strides in elements."""
    width = vector_width(out)
    column = 0
    while n - column >= 2 * width:
        product_columns(advance(out, column), a, advance(b, column), m, k, out_row, a_row, a_depth, b_depth, 0, 2)
        column += 2 * width
    # the last vector overlaps the one before it and stores the same values again; if n < width it is partly filled
    while column < n:
        if n >= width:
            column = min(column, n - width)
            product_columns(advance(out, column), a, advance(b, column), m, k, out_row, a_row, a_depth, b_depth, 0, 1)
        else:
            product_columns(out, a, b, m, k, out_row, a_row, a_depth, b_depth, n, 0)
        column += width
    return 0


@loop_body
def dots(out, a, b, m, n, k, out_row, a_row, b_column):
    """out (m, n) = a (m, k) b (k, n) as dot products, for few rows or columns; stride 1 along k."""
    for i in range(m):
        for j in range(n):
            total = like(out, 0)
            for d in range(k):
                total = reduce_add(total, load(a, i * a_row + d, 1) * load(b, j * b_column + d, 2))
            store(out, i * out_row + j, total, 0)
    return 0


@loop_body
def transpose(out, a, rows, columns, a_row):
    """out (columns, rows) = a (rows, columns)^T, block by block; out is contiguous."""
    width = vector_width(out)
    for first in range(0, columns, width):
        for start in range(0, rows, width):
            block = advance(a, start * a_row + first)
            transpose_block(advance(out, first * rows + start), block, rows, a_row, rows - start, columns - first)
    return 0
