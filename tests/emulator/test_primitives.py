"""Each primitive against a NumPy model of the layout documented in the PTX ISA, in the emulator and on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler
from gpunet.backend.devices import Device, move
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.conftest import available_devices

KERNELS = Path(__file__).parent / "kernels"
PRIMITIVES = KERNELS / "primitives.cu"

#: The first architecture that supports each entry point of primitives.cu.
ENTRIES = {
    **{f"multiply<{m}>": 75 for m in ("F16_8", "F16_8_HALF")},
    **{f"multiply<{m}>": 80 for m in ("F16_16", "F16_16_HALF", "BF16_8", "BF16_16", "TF32_4", "TF32_8")},
    "multiply_doubles<double>": 80,
    **{f"load<{n}, {t}>": 75 for n in (1, 2, 4) for t in ("false", "true")},
    **{f"store<{n}, {t}>": 90 for n in (1, 2, 4) for t in ("false", "true")},
    **{f"copy<{n}, {past}>": 80 for n, past in ((4, "false"), (8, "false"), (16, "false"), (16, "true"))},
    "hand_over<float>": 75,
    "reduce<int>": 80,
    "depend<float>": 75,
    "narrow<float>": 75,
    "narrow_to_tf32<float>": 80,
    "widen<float>": 75,
}  # fmt: skip


@pytest.fixture(params=[name for name in available_devices() if name != "cpu"])
def target(request: pytest.FixtureRequest) -> Any:
    """``launch(expression, block, *values)`` launches on a device and returns the arrays' contents afterwards."""
    if request.config.getoption("--device") not in (None, request.param):
        pytest.skip("another device was requested")
    device = Device(request.param)

    def launch(expression: str, block: int, *values: Any, grid: int = 1, file: Path = PRIMITIVES) -> list[numpy.ndarray]:
        placed = [move(v, device) if isinstance(v, numpy.ndarray) else v for v in values]
        with emulator.check():
            compiler.function(file, expression, device)((grid,), (block,), tuple(placed))
        return [p.get() for p in placed if hasattr(p, "get")]

    launch.device = request.param  # type: ignore[attr-defined]
    return launch


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120"])
def test_primitives_compile_where_they_exist(architecture: str) -> None:
    number = int(architecture[3:].rstrip("a"))
    entries = [entry for entry, first in ENTRIES.items() if number >= first]
    cubin, lowered, log = compiler.compile_all(PRIMITIVES, entries, architecture)
    assert cubin[:4] == b"\x7fELF" and len(lowered) == len(entries) and not log


# ---- fragments, as in the PTX ISA's tables: row and column of element i of lane l ------------------------------------------

LANE = numpy.arange(32)
GROUP, MEMBER = LANE >> 2, LANE & 3  # groupID and threadID_in_group


def elements(count: int, of: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return rows and columns, each (32, count); ``of(i)`` gives row and column of element i in all lanes."""
    pairs = [of(i) for i in range(count)]
    return tuple(numpy.stack([numpy.broadcast_to(p[side], 32) for p in pairs], 1) for side in (0, 1))  # type: ignore


SUMS = elements(4, lambda i: (GROUP + (8 if i >= 2 else 0), MEMBER * 2 + (i & 1)))
FRAGMENTS = {
    # depth, bits of an element: a, b
    (16, 16): (
        elements(8, lambda i: (GROUP if i in (0, 1, 4, 5) else GROUP + 8, MEMBER * 2 + (i & 1) + (8 if i >= 4 else 0))),
        elements(4, lambda i: (MEMBER * 2 + (i & 1) + (8 if i >= 2 else 0), GROUP)),
    ),
    (8, 16): (
        elements(4, lambda i: (GROUP + (8 if i >= 2 else 0), MEMBER * 2 + (i & 1))),
        elements(2, lambda i: (MEMBER * 2 + i, GROUP)),
    ),
    (8, 32): (
        elements(4, lambda i: (GROUP if i in (0, 2) else GROUP + 8, MEMBER if i in (0, 1) else MEMBER + 4)),
        elements(2, lambda i: (MEMBER if i == 0 else MEMBER + 4, GROUP)),
    ),
    (4, 32): (elements(2, lambda i: (GROUP if i == 0 else GROUP + 8, MEMBER)), elements(1, lambda i: (MEMBER, GROUP))),
}


def brain(x: numpy.ndarray) -> numpy.ndarray:
    """Return the bits of numbers that are exact in bfloat16."""
    return (numpy.asarray(x, numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def truncated(x: numpy.ndarray, bits: int) -> numpy.ndarray:
    """Clear the last ``bits`` bits of the fraction."""
    return (x.astype(numpy.float32).view(numpy.uint32) >> bits << bits).view(numpy.float32)


BITS_OF = {
    "F16": lambda x: x.astype(numpy.float16).view(numpy.uint16),
    "BF16": brain,
    "TF32": lambda x: x.astype(numpy.float32).view(numpy.uint32),
}
EXACT = {
    "F16": lambda x: x.astype(numpy.float16).astype(numpy.float32),
    "BF16": lambda x: truncated(x, 16),
    "TF32": lambda x: truncated(x, 13),
}


@pytest.mark.parametrize("name", [e[9:-1] for e in ENTRIES if e.startswith("multiply<")])
def test_mma(target: Any, name: str) -> None:
    """With integers, whose sums are exact in any order."""
    kind, depth = name.split("_")[0], int(name.split("_")[1])
    a_at, b_at = FRAGMENTS[depth, 32 if kind == "TF32" else 16]
    random = numpy.random.default_rng(depth)
    a, b, d = (random.integers(-8, 9, shape).astype(numpy.float32) for shape in ((16, depth), (depth, 8), (16, 8)))
    registers = d[SUMS].astype(numpy.float16) if name.endswith("HALF") else d[SUMS]
    of_a, of_b = (numpy.ascontiguousarray(BITS_OF[kind](m[at])).view(numpy.uint32) for m, at in ((a, a_at), (b, b_at)))
    bits = registers.view(numpy.uint32) if name.endswith("HALF") else registers
    done = target(f"multiply<{name}>", 32, bits, of_a, of_b)[0]
    result = numpy.empty((16, 8))
    result[SUMS] = done.view(numpy.float16) if name.endswith("HALF") else done
    numpy.testing.assert_array_equal(result, d + a @ b)


@pytest.mark.parametrize("name", ["F16_16", "BF16_16", "TF32_8", "F16_16_HALF"])
def test_mma_rounds(target: Any, name: str) -> None:
    """The emulator sums exact products in the order of depth in float32; a GPU's order is not documented."""
    kind, depth = name.split("_")[0], int(name.split("_")[1])
    a_at, b_at = FRAGMENTS[depth, 32 if kind == "TF32" else 16]
    random = numpy.random.default_rng(1)
    a, b = (EXACT[kind](random.normal(size=shape)) for shape in ((16, depth), (depth, 8)))
    d = random.normal(size=(16, 8)).astype(numpy.float16 if name.endswith("HALF") else numpy.float32)
    expected = d.astype(numpy.float32)
    for k in range(depth):
        expected = expected + a[:, k, None] * b[k]
    of_a, of_b = (numpy.ascontiguousarray(BITS_OF[kind](m[at])).view(numpy.uint32) for m, at in ((a, a_at), (b, b_at)))
    if kind == "TF32":
        of_a |= 0x1FFF  # the instruction ignores the lower 13 bits
    registers = d[SUMS].view(numpy.uint32) if name.endswith("HALF") else d[SUMS]
    result = numpy.empty_like(d)
    result[SUMS] = target(f"multiply<{name}>", 32, registers, of_a, of_b)[0].view(d.dtype)
    if target.device == "emulated":
        numpy.testing.assert_array_equal(result, expected.astype(d.dtype))
    # sums of 17 terms of size 1; in f16 a GPU rounds to 2^-11 at each step
    numpy.testing.assert_allclose(result, expected, rtol=0, atol=0.05 if name.endswith("HALF") else 2e-5)


def test_mma_of_doubles(target: Any) -> None:
    random = numpy.random.default_rng(2)
    a, b, d = (random.normal(size=shape) for shape in ((8, 4), (4, 8), (8, 8)))
    rows, columns = elements(2, lambda i: (GROUP, MEMBER * 2 + i))
    result = numpy.empty_like(d)
    registers = numpy.ascontiguousarray(d[rows, columns])
    result[rows, columns] = target("multiply_doubles<double>", 32, registers, a[GROUP, MEMBER], b[MEMBER, GROUP])[0]
    numpy.testing.assert_allclose(result, d + a @ b, rtol=1e-14, atol=1e-14)


# ---- 8 x 8 matrices -----------------------------------------------------------------------------------------------------

ROWS = numpy.random.default_rng(3).permutation(32).astype(numpy.int32)


def in_matrices(n: int, transposed: bool) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return row and column in memory of both halves of each register: (32, n, 2)."""
    lane, matrix, half = numpy.ogrid[:32, :n, :2]
    row, column = numpy.broadcast_arrays(lane // 4 + 0 * matrix, lane % 4 * 2 + half + 0 * matrix)
    if transposed:
        row, column = column, row
    return ROWS[8 * matrix + row], column


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_ldmatrix(target: Any, n: int, transposed: bool) -> None:
    memory = numpy.arange(256, dtype=numpy.uint16).reshape(32, 8)
    entry = f"load<{n}, {str(transposed).lower()}>"
    loaded = target(entry, 32, numpy.zeros(32 * n, numpy.uint32), memory, ROWS)[0].view(numpy.uint16)
    numpy.testing.assert_array_equal(loaded.reshape(32, n, 2), memory[in_matrices(n, transposed)])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_stmatrix(target: Any, n: int, transposed: bool) -> None:
    registers = numpy.arange(1, 64 * n + 1, dtype=numpy.uint16).reshape(32, n, 2)
    expected = numpy.zeros((32, 8), numpy.uint16)
    expected[in_matrices(n, transposed)] = registers
    entry = f"store<{n}, {str(transposed).lower()}>"
    numpy.testing.assert_array_equal(
        target(entry, 32, numpy.zeros((32, 8), numpy.uint16), registers.view(numpy.uint32), ROWS)[0], expected
    )


# ---- copies, barriers, reductions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.startswith("copy")])
def test_cp_async(target: Any, entry: str) -> None:
    bytes = int(entry[5:].split(",")[0])
    data = numpy.random.default_rng(4).integers(1, 256, (64, bytes)).astype(numpy.uint8)
    valid = (numpy.arange(64) % (bytes + 1)).astype(numpy.int32)
    expected = numpy.where(numpy.arange(bytes) < valid[:, None], data, 0)
    done = target(entry, 64, numpy.zeros((2, 64, bytes), numpy.uint8), data, valid)[0]
    numpy.testing.assert_array_equal(done, numpy.stack([expected, data]))


def test_named_barriers(target: Any) -> None:
    numbers = numpy.arange(192, dtype=numpy.float32)
    done = target("hand_over<float>", 128, numpy.zeros(192, numpy.float32), numbers)[0]
    numpy.testing.assert_array_equal(done.reshape(3, 64), numbers.reshape(3, 64)[:, ::-1])


@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x000FF0F1])
def test_redux(target: Any, mask: int) -> None:
    values = numpy.random.default_rng(5).integers(0, 2**32, 32, numpy.uint32)
    member = (mask >> LANE & 1).astype(bool)
    mine, signed = values[member], values[member].view(numpy.int32)
    total = numpy.uint32(int(mine.astype(object).sum()) % 2**32)
    expected = [
        total, mine.min(), mine.max(), total, signed.min().view(numpy.uint32), signed.max().view(numpy.uint32),
        numpy.bitwise_and.reduce(mine), numpy.bitwise_or.reduce(mine), numpy.bitwise_xor.reduce(mine),
    ]  # fmt: skip
    out = target("reduce<int>", 32, numpy.zeros((32, 9), numpy.uint32), values, numpy.uint32(mask))[0]
    numpy.testing.assert_array_equal(out, numpy.where(member[:, None], numpy.array(expected), 0))


def test_griddepcontrol(target: Any) -> None:
    numbers = numpy.arange(32, dtype=numpy.float32)
    numpy.testing.assert_array_equal(target("depend<float>", 32, numpy.zeros_like(numbers), numbers)[0], numbers)


# ---- conversions --------------------------------------------------------------------------------------------------------


def hard_floats() -> numpy.ndarray:
    """Return random bits, all midpoints between neighbouring 16-bit numbers and their neighbours, infinities and NaNs."""
    random = numpy.random.default_rng(6).integers(0, 2**32, 20000, numpy.uint32)
    halves = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16).astype(numpy.float32)
    between = ((halves[1:] + halves[:-1]) / 2).view(numpy.uint32)
    top = numpy.array([65504, 65519.996, 65520, 65536, numpy.inf, numpy.nan, 3.4e38, 1e-45], numpy.float32).view(numpy.uint32)
    brains = (numpy.arange(0, 0x7F80, 5, dtype=numpy.uint32) << 16) + 0x8000
    tfs = (numpy.arange(0, 0x3FC00, 37, dtype=numpy.uint32) << 13) + 0x1000
    bits = numpy.concatenate([random, *(x + numpy.uint32(i) for x in (between, brains, tfs) for i in (-1 % 2**32, 0, 1)), top])
    return numpy.concatenate([bits, bits | 0x80000000]).view(numpy.float32)


def rounded(x: numpy.ndarray, dropped: int, ties_away: bool) -> numpy.ndarray:
    """Round to the nearest float32 whose last ``dropped`` bits are zero; computed in float64, where overflow is finite."""
    below = truncated(x, dropped).astype(numpy.float64)
    step = numpy.ldexp(1.0, numpy.maximum(numpy.frexp(numpy.abs(x))[1] - 1, -126) - 23 + dropped)
    above = below + numpy.copysign(step, x)
    down, up = numpy.abs(x - below), numpy.abs(above - x)
    odd = truncated(x, dropped).view(numpy.uint32) >> dropped & 1 == 1
    result = numpy.where((up < down) | ((up == down) & (odd | ties_away)), above, below)
    result = numpy.where(numpy.abs(result) > 3.4028235e38, numpy.copysign(numpy.inf, x), result)
    return numpy.where(numpy.isfinite(x), result, x)


def assert_same(bits: numpy.ndarray, expected: numpy.ndarray) -> None:
    """Compare float32 bits with numbers; all NaNs are equal."""
    numpy.testing.assert_array_equal(bits.view(numpy.float32).astype(numpy.float64), expected)
    known = ~numpy.isnan(expected)
    numpy.testing.assert_array_equal(numpy.signbit(bits.view(numpy.float32))[known], numpy.signbit(expected)[known])


def test_narrowing(target: Any) -> None:
    x = hard_floats()
    with numpy.errstate(all="ignore"):
        half, brains = x.astype(numpy.float16), rounded(x, 16, False)
    out = target("narrow<float>", 256, numpy.zeros((4, x.size), numpy.uint32), x, numpy.int32(x.size), grid=8)[0]
    assert_same(out[0].astype(numpy.uint16).view(numpy.float16).astype(numpy.float32), half.astype(numpy.float64))
    assert_same(out[1] << 16, brains)
    numpy.testing.assert_array_equal(out[2], out[0] | out[0][::-1] << 16)
    numpy.testing.assert_array_equal(out[3], out[1] | out[1][::-1] << 16)


def test_tf32(target: Any) -> None:
    x = hard_floats()
    with numpy.errstate(all="ignore"):
        expected = rounded(x, 13, True)
    out = target("narrow_to_tf32<float>", 256, numpy.zeros(x.size, numpy.uint32), x, numpy.int32(x.size), grid=8)[0]
    assert_same(out, expected)


def test_widening(target: Any) -> None:
    every = numpy.arange(2**16, dtype=numpy.uint16)
    out = target("widen<float>", 256, numpy.zeros((4, 2**16), numpy.float32), every, grid=256)[0]
    half, brains = every.view(numpy.float16).astype(numpy.float32), (every.astype(numpy.uint32) << 16).view(numpy.float32)
    for found, expected in zip(out, (half, brains, half[::-1], brains[::-1])):
        numpy.testing.assert_array_equal(found, expected)
