"""Each function of hopper.cuh against a NumPy model of the layout documented in the PTX ISA, emulated and on a GPU."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler
from gpunet.backend.devices import Device, move
from gpunet.backend.tensor_map import TensorMap
from gpunet.emulator import COMPLETIONS, SCHEDULES
from gpunet.tools.register_usage import compile_and_measure
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.conftest import available_devices

HOW = list(itertools.product(SCHEDULES, COMPLETIONS))
HOPPER = Path(__file__).parent / "kernels" / "hopper.cu"
COORDINATES = numpy.dtype([("of", numpy.int32, 5)])
LAYOUT = numpy.dtype([(name, numpy.int32) for name in ("swizzle", "leading", "stride", "start")])


def devices() -> list[str]:
    """List the devices with Hopper's instructions: the emulator, and a GPU of compute capability 9.0."""
    names = [name for name in available_devices() if name != "cpu"]
    if "cuda" in names:
        import cupy

        if cupy.cuda.Device().compute_capability != "90":
            names.remove("cuda")
    return names


class Target:
    """A device to launch test kernels on."""

    def __init__(self, name: str) -> None:
        self.name, self.device = name, Device(name)

    def place(self, array: numpy.ndarray) -> Any:
        return move(array, self.device)

    def launch(
        self, expression: str, grid: Any, block: int, values: Any, shared: int = 0, reached: Any = (), *, file: Path = HOPPER,
        **how: Any,
    ) -> None:  # fmt: skip
        """Launch, in the emulator's check mode; ``how``: its schedule and completion."""
        function = compiler.function(file, expression, self.device)
        grid = grid if isinstance(grid, tuple) else (grid,)
        if self.name == "cuda":
            function(grid, (block,), values, shared)
            return
        with emulator.check(**how):
            function(grid, (block,), values, shared, reached)


@pytest.fixture(params=devices())
def target(request: pytest.FixtureRequest) -> Target:
    if request.config.getoption("--device") not in (None, request.param):
        pytest.skip("another device was requested")
    return Target(request.param)


def bytes_of(array: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(array).view(numpy.uint8).reshape(-1)


# ---- swizzles ---------------------------------------------------------------------------------------------------------


def chunk_of(row: int, chunk: int, span: int) -> int:
    """Return the position of a 16-byte chunk in a row of ``span`` bytes, in the PTX ISA's pattern of eight rows."""
    return chunk ^ {16: 0, 32: row // 4, 64: row // 2, 128: row}[span] % 8 % (span // 16)


SPANS = {16: 0, 128: 1, 64: 2, 32: 3}  # bytes of a row: the code in a matrix descriptor


def test_swizzle_is_a_permutation_that_spreads_a_column() -> None:
    """With the 128-byte swizzle the same chunk of eight rows is in eight different positions, so in different banks."""
    for span in SPANS:
        for row in range(8):
            assert sorted(chunk_of(row, c, span) for c in range(span // 16)) == list(range(span // 16))
    assert {chunk_of(row, 3, 128) for row in range(8)} == set(range(8))


# ---- wgmma ------------------------------------------------------------------------------------------------------------

FORMATS = {"F16": (2, 16), "BF16": (2, 16), "TF32": (4, 8)}  # bytes of an element, depth of a wgmma


def encoded(values: numpy.ndarray, form: str, generator: numpy.random.Generator) -> numpy.ndarray:
    """Return the bits of small integers in a format; the bits that TF32 ignores are random."""
    if form == "F16":
        return values.astype(numpy.float16).view(numpy.uint16)
    bits = values.astype(numpy.float32).view(numpy.uint32)
    return (bits >> 16).astype(numpy.uint16) if form == "BF16" else bits | generator.integers(0, 1 << 13, bits.shape, numpy.uint32)


def laid_out(matrix: numpy.ndarray, span: int, major: str, step: int, slack: int) -> tuple[numpy.ndarray, Any]:
    """Return an image of shared memory that contains ``matrix`` (rows of M or N, columns of K), and its layout.

    Args:
        step: for K-major matrices, which 32-byte piece of the ``span`` bytes of a row the matrix occupies.
        slack: number of empty patterns between groups, so that a wrong offset fails the test.
    """
    size = matrix.dtype.itemsize
    lines = matrix if major == "K" else matrix.T  # each along the contiguous dimension
    chunks = numpy.ascontiguousarray(lines).view(numpy.uint8).reshape(len(lines), -1, 16)
    pattern = 8 * span
    if span == 16:  # one group: 8 lines of 16 bytes
        a, b = pattern * (1 + slack), pattern * (1 + slack) * chunks.shape[1]
        leading, stride = (a, b) if major == "K" else (b, a)

        def place(line: int, c: int) -> int:
            return line // 8 * b + c * a + line % 8 * 16

    else:
        per_row = span // 16
        rows = -(-(chunks.shape[1] + 2 * step) // per_row)
        a = pattern * (1 + slack)  # to the next group of eight lines
        b = a * -(-len(lines) // 8)  # to the continuation of a row
        leading, stride = (b, a) if major == "MN" else (16, a)
        assert major == "MN" or rows == 1

        def place(line: int, c: int) -> int:
            c += 2 * step
            return c // per_row * b + line // 8 * a + line % 8 * span + chunk_of(line % 8, c % per_row, span) * 16

    places = [[place(line, c) for c in range(chunks.shape[1])] for line in range(len(lines))]
    image = numpy.full(-(-(numpy.max(places) + 16) // 1024) * 1024, 0xFF, numpy.uint8)  # NaN in every format
    for line, c in itertools.product(range(len(lines)), range(chunks.shape[1])):
        image[places[line][c] : places[line][c] + 16] = chunks[line, c]
    layout = numpy.zeros(1, LAYOUT)
    layout["swizzle"], layout["leading"], layout["stride"], layout["start"] = SPANS[span], leading, stride, 32 * step
    assert size * matrix.shape[1] == 32
    return image, layout


THREAD = numpy.arange(128)
WARP, LANE = THREAD // 32, THREAD % 32


def accumulator(n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return row and column of each thread's registers, both (128, n / 2)."""
    i = numpy.arange(n // 2)
    row = 16 * WARP[:, None] + LANE[:, None] // 4 + numpy.where(i % 4 < 2, 0, 8)
    return row, 8 * (i // 4) + 2 * (LANE[:, None] % 4) + (i & 1)


def operand_words(a: numpy.ndarray) -> numpy.ndarray:
    """Return the four registers of each thread for the bits of A: (128, 4)."""
    group, member = LANE // 4, LANE % 4
    rows = [16 * WARP + group, 16 * WARP + group + 8] * 2
    if a.dtype == numpy.uint32:
        return numpy.stack([a[row, member + k] for row, k in zip(rows, (0, 0, 4, 4))], 1)
    wide = a.astype(numpy.uint32)
    columns = [2 * member + k for k in (0, 0, 8, 8)]
    return numpy.stack([wide[r, c] | wide[r, c + 1] << 16 for r, c in zip(rows, columns)], 1)


def majors(form: str) -> list[str]:
    return ["K"] if form == "TF32" else ["K", "MN"]


SHARED_CASES = [
    (form, 64, a, b, span, accumulate)
    for form in FORMATS
    for a, b in itertools.product(majors(form), majors(form))
    for span, accumulate in zip(SPANS, (False, True, False, True))
] + [(form, n, "K", "K", 128, True) for form in FORMATS for n in (8, 16, 32, 96, 128, 192, 256)]


@pytest.mark.parametrize("form, n, major_a, major_b, span, accumulate", SHARED_CASES)
def test_wgmma_from_shared_memory(
    target: Target, form: str, n: int, major_a: str, major_b: str, span: int, accumulate: bool
) -> None:
    generator = numpy.random.default_rng(n + span)
    k = FORMATS[form][1]
    a, b, d = (generator.integers(-8, 9, shape).astype(numpy.float32) for shape in ((64, k), (n, k), (64, n)))
    row, column = accumulator(n)
    registers = target.place(d[row, column])
    step_a, step_b = ((span // 32 - 1) if major == "K" and span > 16 else 0 for major in (major_a, major_b))
    image_a, layout_a = laid_out(encoded(a, form, generator), span, major_a, step_a, slack=1)
    image_b, layout_b = laid_out(encoded(b, form, generator), span, major_b, step_b, slack=0)
    sizes = numpy.int32(image_a.size), numpy.int32(image_b.size)
    target.launch(
        f"multiply<Format::{form}, {n}, Major::{major_a}, Major::{major_b}>", 1, 128,
        (registers, target.place(image_a), target.place(image_b), *sizes, layout_a, layout_b, numpy.int32(accumulate)),
        image_a.size + image_b.size,
    )  # fmt: skip
    expected = a @ b.T + (d if accumulate else 0)
    numpy.testing.assert_array_equal(registers.get(), expected[row, column])


@pytest.mark.parametrize("form, major", [(form, major) for form in FORMATS for major in majors(form)])
def test_wgmma_with_a_in_registers(target: Target, form: str, major: str) -> None:
    generator = numpy.random.default_rng(5)
    k, n = FORMATS[form][1], 32
    a, b, d = (generator.integers(-8, 9, shape).astype(numpy.float32) for shape in ((64, k), (n, k), (64, n)))
    row, column = accumulator(n)
    registers = target.place(d[row, column])
    image, layout = laid_out(encoded(b, form, generator), 32, major, 0, slack=0)
    words = target.place(operand_words(encoded(a, form, generator)))
    target.launch(
        f"multiply_registers<Format::{form}, {n}, Major::{major}>", 1, 128,
        (registers, words, target.place(image), numpy.int32(image.size), layout, numpy.int32(1)), image.size,
    )  # fmt: skip
    numpy.testing.assert_array_equal(registers.get(), (a @ b.T + d)[row, column])


# ---- tensor copies ----------------------------------------------------------------------------------------------------

BOXES = [
    # dtype, shape, box, first element, swizzle
    ("float32", (100,), (32,), (80,), 0),
    ("uint8", (256,), (64,), (-16,), 0),
    ("float32", (37, 52), (16, 32), (30, 40), 128),
    ("uint16", (50, 72), (24, 32), (-5, -7), 64),
    ("float16", (20, 64), (8, 16), (3, 8), 32),
    ("float64", (9, 30), (5, 16), (2, 1), 128),
    ("float32", (5, 9, 12), (3, 4, 8), (3, -2, 6), 32),
    ("float32", (3, 4, 5, 12), (2, 3, 2, 8), (2, 1, 4, 8), 0),
    ("uint8", (2, 3, 4, 5, 32), (2, 2, 2, 2, 32), (-1, 2, 3, 0, 0), 32),
]


def boxed(array: numpy.ndarray, box: Any, first: Any) -> numpy.ndarray:
    """Return the box of an array at ``first``; elements outside the array are zero."""
    result = numpy.zeros(box, array.dtype)
    for place in numpy.ndindex(*box):
        at = tuple(f + p for f, p in zip(first, place))
        if all(0 <= i < n for i, n in zip(at, array.shape)):
            result[place] = array[at]
    return result


def swizzled(tile: numpy.ndarray, span: int) -> numpy.ndarray:
    """Return the bytes of a tile in its shared memory layout."""
    if not span:
        return bytes_of(tile)
    rows = bytes_of(tile).reshape(-1, span // 16, 16)
    result = numpy.empty_like(rows)
    for row, chunk in itertools.product(range(len(rows)), range(span // 16)):
        result[row, chunk_of(row % 8, chunk, span)] = rows[row, chunk]
    return result.reshape(-1)


def coordinates(first: Any) -> numpy.ndarray:
    result = numpy.zeros(1, COORDINATES)
    result["of"][0, : len(first)] = first[::-1]
    return result


def random_array(shape: Any, dtype: str) -> numpy.ndarray:
    return numpy.random.default_rng(1).integers(1, 100, shape).astype(dtype)


def padded(target: Target, array: numpy.ndarray) -> tuple[Any, Any]:
    """Return the array on the device, with rows at multiples of 16 bytes, and the larger array that it is a view of."""
    extent = -(-array.shape[-1] * array.itemsize // 16) * 16 // array.itemsize
    room = target.place(numpy.full((*array.shape[:-1], extent), 77, array.dtype))
    view = room[..., : array.shape[-1]]
    view[...] = target.place(array)
    return view, room


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("dtype, shape, box, first, swizzle", BOXES)
def test_tensor_load(target: Target, dtype: str, shape: Any, box: Any, first: Any, swizzle: int, completion: str) -> None:
    array = random_array(shape, dtype)
    tiles = TensorMap(padded(target, array)[0], box, swizzle=swizzle)
    tile = boxed(array, box, first)
    out = target.place(numpy.zeros(tile.nbytes, numpy.uint8))
    arguments = (out, tiles.argument, coordinates(first), numpy.int32(tile.nbytes))
    target.launch(
        f"load_box<{len(shape)}>", 1, 64, arguments, 1024 + tile.nbytes, tiles.reached("x", written=False), completion=completion
    )
    numpy.testing.assert_array_equal(out.get(), swizzled(tile, swizzle))


def test_tensor_load_rounds_to_tf32(target: Target) -> None:
    """Half of what TF32 drops is 0x1000; infinities stay, and what is not a number stays none."""
    numbers = [0x3F800000, 0x3F800FFF, 0x3F801001, 0xBF801FFF, 0x3FFFF001, 0x7F800000, 0xFF800000, 0x00000001]
    bits = numpy.array(numbers, numpy.uint32)
    values = numpy.append(bits.view(numpy.float32), numpy.float32([numpy.nan, 0.0, -0.0, 1e38])).reshape(1, 12)
    expected = numpy.append((bits + 0x1000) & 0xFFFFE000, [0, 0, 1 << 31, 0]).astype(numpy.uint32)
    expected[5:7], expected[11] = bits[5:7], (values.view(numpy.uint32)[0, 11] + 0x1000) & 0xFFFFE000
    tiles = TensorMap(target.place(values), (1, 12), tf32=True)
    out = target.place(numpy.zeros(48, numpy.uint8))
    arguments = (out, tiles.argument, coordinates((0, 0)), numpy.int32(48))
    target.launch("load_box<2>", 1, 64, arguments, 1024 + 48, tiles.reached("x", written=False))
    found = out.get().view(numpy.uint32)
    assert numpy.isnan(found.view(numpy.float32)[8])
    numpy.testing.assert_array_equal(numpy.delete(found, 8), numpy.delete(expected, 8))


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("dtype, shape, box, first, swizzle", BOXES)
def test_tensor_store(target: Target, dtype: str, shape: Any, box: Any, first: Any, swizzle: int, completion: str) -> None:
    array, room = padded(target, random_array(shape, dtype))
    before = array.get()
    tile = 100 + random_array(box, dtype)
    tiles = TensorMap(array, box, swizzle=swizzle)
    values = target.place(swizzled(tile, swizzle))
    arguments = (tiles.argument, values, coordinates(first), numpy.int32(tile.nbytes))
    target.launch(
        f"store_box<{len(shape)}>", 1, 64, arguments, tile.nbytes, tiles.reached("x", written=True), completion=completion
    )
    for place in numpy.ndindex(*box):
        at = tuple(f + p for f, p in zip(first, place))
        if all(0 <= i < n for i, n in zip(at, shape)):
            before[at] = tile[place]
    numpy.testing.assert_array_equal(array.get(), before)
    assert (room.get()[..., shape[-1] :] == 77).all()


@pytest.mark.parametrize("schedule, completion", HOW)
def test_bulk_copies(target: Target, schedule: str, completion: str) -> None:
    numbers = random_array(512, "uint8")
    out = target.place(numpy.zeros_like(numbers))
    arguments = (out, target.place(numbers), numpy.int32(256))
    target.launch("copy_in_bulk", 1, 64, arguments, 1024 + 256, schedule=schedule, completion=completion)
    numpy.testing.assert_array_equal(out.get(), numbers)


@pytest.mark.parametrize("schedule, completion", HOW)
def test_multicast(target: Target, schedule: str, completion: str) -> None:
    array = random_array((64, 32), "float32")
    tiles = TensorMap(target.place(array), (8, 32), swizzle=128)
    masks = [0b1111, 0b0010, 0b0101, 0b1000]
    out = target.place(numpy.zeros((4, 4, 1024), numpy.uint8))
    arguments = (out, tiles.argument, target.place(numpy.array(masks, numpy.int32)))
    target.launch(
        "multicast<unsigned char>", 4, 64, arguments, 5 * 1024, tiles.reached("x", written=False), schedule=schedule,
        completion=completion,
    )  # fmt: skip
    for block, source_block in itertools.product(range(4), range(4)):
        tile = swizzled(array[8 * source_block : 8 * source_block + 8], 128)
        expected = tile if masks[source_block] >> block & 1 else numpy.full(1024, 0xEE, numpy.uint8)
        numpy.testing.assert_array_equal(out.get()[block, source_block], expected)


# ---- clusters, warps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_of_a_cluster_exchange_numbers(target: Target, schedule: str) -> None:
    numbers = numpy.arange(4 * 2 * 48, dtype=numpy.int32).reshape(8, 48)
    out = target.place(numpy.zeros_like(numbers))
    target.launch("pass_around", (4, 2), 48, (out, target.place(numbers)), 2048, schedule=schedule, seed=2)
    for x, y in itertools.product(range(4), range(2)):  # clusters of 2 x 2 blocks, x fastest
        rank = x % 2 + 2 * y
        source = (rank - 3) % 4
        of_source = numpy.roll(numbers[x // 2 * 2 + source % 2 + 4 * (source // 2)], -3)
        numpy.testing.assert_array_equal(out.get()[x + 4 * y], of_source + 1000 * rank)


def test_one_lane_is_elected(target: Target) -> None:
    out = target.place(numpy.zeros((3, 32), numpy.int32))
    target.launch("elect", 1, 96, (out,))
    assert (out.get().sum(1) == 1).all()


def test_registers_move_between_warpgroups(target: Target) -> None:
    out = target.place(numpy.zeros(256, numpy.int32))
    target.launch("resize<40, 232>", 1, 256, (out,))
    assert (out.get() == numpy.arange(256)).all()


# ---- every expression compiles for the architectures that support it --------------------------------------------------

COPIES = [f"{kind}_box<{d}>" for kind in ("load", "store") for d in (1, 2, 3, 4, 5)] + ["copy_in_bulk", "pass_around", "elect"]
WITH_90A = [
    *{f"multiply<Format::{form}, {n}, Major::{a}, Major::{b}>" for form, n, a, b, _, _ in SHARED_CASES},
    *(f"multiply_registers<Format::{form}, 32, Major::{major}>" for form in FORMATS for major in majors(form)),
    "multicast<unsigned char>",
    "resize<40, 232>",
]


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_90", "sm_90a", "sm_100a", "sm_120"])
def test_hopper_compiles_where_it_exists(architecture: str) -> None:
    entries = COPIES + (WITH_90A if architecture == "sm_90a" else [])
    cubin, lowered, log = compiler.compile_all(HOPPER, entries, architecture)
    assert cubin[:4] == b"\x7fELF" and len(lowered) == len(entries) and not log


# ---- a GEMM with all of them --------------------------------------------------------------------------------------------

GEMM = Path(__file__).parent / "kernels" / "gemm_wgmma.cu"
SHARED = 4 * 32768 + 8 * 8  # a ring buffer of four stages, and their mbarriers


def rounded(x: numpy.ndarray, form: str) -> numpy.ndarray:
    """Round to bfloat16, ties to even, or to TF32, ties away from zero."""
    bits = x.astype(numpy.float32).view(numpy.uint32)
    kept = (bits + 0x1000) & 0xFFFFE000 if form == "TF32" else (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return kept.astype(numpy.uint32).view(numpy.float32)


def stored(x: numpy.ndarray, form: str) -> numpy.ndarray:
    """Convert a float32 array to the kernel's storage format."""
    return x if form == "TF32" else (rounded(x, form).view(numpy.uint32) >> 16).astype(numpy.uint16)


def multiply(target: Any, a: numpy.ndarray, b: numpy.ndarray, form: str, cluster: int, **how: Any) -> numpy.ndarray:
    (m, k), n = a.shape, len(b)
    line = 128 // FORMATS[form][0]
    arrays = [target.place(stored(a, form)), target.place(stored(b, form))]
    # rows at multiples of 16 bytes, as tensor copies require
    c = target.place(numpy.full((m, n + -n % 8), 7, arrays[0].dtype))[:, :n]
    tiles = [
        TensorMap(array, (rows, line), swizzle=128, bfloat16=form == "BF16", tf32=form == "TF32" and array is not c)
        for array, rows in zip((*arrays, c), (128, 128 // cluster, 64))
    ]
    reached = [entry for tile, name in zip(tiles, "abc") for entry in tile.reached(name, written=name == "c")]
    grid = (-(-m // (128 * cluster)) * cluster, -(-n // 128))
    entry = "gemm_wgmma" if cluster == 1 else "gemm_wgmma_pairs"
    arguments = (*(tile.argument for tile in tiles), numpy.int32(k))
    target.launch(f"{entry}<Format::{form}>", grid, 384, arguments, SHARED, reached, file=GEMM, **how)
    result = c.get()
    return result if form == "TF32" else (result.astype(numpy.uint32) << 16).view(numpy.float32)


def operands(m: int, n: int, k: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    generator = numpy.random.default_rng(k)
    return generator.normal(size=(m, k)).astype(numpy.float32), generator.normal(size=(n, k)).astype(numpy.float32)


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("form", ["BF16", "TF32"])
def test_gemm_is_correct_and_its_bits_do_not_depend_on_the_order(target: Target, form: str, cluster: int) -> None:
    """Ragged rows, columns and depth; six steps, so that the ring buffer of four stages wraps around."""
    depth = 5 * 128 // FORMATS[form][0] + 8
    a, b = operands(130, 133, depth)
    expected = rounded(a, form).astype(numpy.float64) @ rounded(b, form).astype(numpy.float64).T
    # a float32 sum is rounded at most `depth` times (tensor cores truncate: twice the error); bfloat16 once more at the end
    magnitude = abs(a.astype(numpy.float64)) @ abs(b.astype(numpy.float64)).T
    tolerance = depth * 2.0**-23 * magnitude + (2.0**-8 * abs(expected) if form == "BF16" else 0)
    found = [
        multiply(target, a, b, form, cluster, schedule=schedule, completion=completion)
        for schedule, completion in itertools.product(SCHEDULES, COMPLETIONS)
    ]
    assert (abs(found[0] - expected) <= tolerance).all()
    for other in found[1:]:
        numpy.testing.assert_array_equal(other, found[0])


@needs_nvrtc
def test_gemm_takes_no_local_memory() -> None:
    """As many registers as the launch bounds allow, no spills, and no warning that wgmma is serialised."""
    entries = [f"{entry}<Format::{form}>" for entry in ("gemm_wgmma", "gemm_wgmma_pairs") for form in ("BF16", "TF32")]
    made = compile_and_measure(GEMM, entries, "sm_90a")
    assert not made.log
    for usage in made.usage.values():
        assert usage.registers == 168 and usage.stack == 0 and not usage.spills
