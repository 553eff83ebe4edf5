"""A tensor-core GEMM made of the primitives: correct, the same bits in every order, and planted bugs are reported."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler, cuda_sources, disk_cache
from gpunet.backend.devices import Device, move
from gpunet.emulator import COMPLETIONS, SCHEDULES, Function
from gpunet.errors import EmulationError
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.conftest import available_devices
from tests.emulator.test_primitives import brain, truncated

GEMM = Path(__file__).parent / "kernels" / "gemm_mma.cu"
TILE = 128

#: rows, columns, depth, row pitch of a, row pitch of b (in elements)
SHAPES = {
    "one tile": (128, 128, 64, 64, 64),
    "ragged": (130, 71, 50, 56, 64),
    "rows of a at 4 bytes": (60, 129, 37, 38, 40),
    "less than a step": (3, 2, 5, 8, 8),
    "no depth": (5, 7, 0, 8, 8),
    "deep": (16, 8, 160, 160, 160),
}


def operands(kind: str, shape: str) -> tuple[list[numpy.ndarray], tuple[numpy.ndarray, numpy.ndarray]]:
    """Return the kernel's arguments c, a and b, padded with NaN, and the values of a and b in float64."""
    rows, columns, depth, a_pitch, b_pitch = SHAPES[shape]
    random = numpy.random.default_rng(rows)
    arrays, numbers = [numpy.full((rows, columns), numpy.nan, numpy.float32)], []
    for lines, pitch in ((rows, a_pitch), (columns, b_pitch)):
        full = numpy.full((lines, pitch), numpy.nan, numpy.float32)
        full[:, :depth] = random.normal(size=(lines, depth))
        full = truncated(full, 16) if kind == "Bf16" else full
        arrays.append(brain(full) if kind == "Bf16" else full)
        numbers.append(full[:, :depth].astype(numpy.float64))
    return arrays, (numbers[0], numbers[1])


def launch_of(kind: str, shape: str) -> tuple[str, tuple[int, int], list[numpy.int32]]:
    """Return expression, grid and scalars of a launch."""
    rows, columns, depth, a_pitch, b_pitch = SHAPES[shape]
    size = 2 if kind == "Bf16" else 4
    whole = a_pitch * size % 16 == b_pitch * size % 16 == 0
    grid = (-(-columns // TILE), -(-rows // TILE))
    return f"gemm_mma<{kind}, {16 if whole else 4}>", grid, [numpy.int32(n) for n in SHAPES[shape]]


def assert_close(c: numpy.ndarray, a: numpy.ndarray, b: numpy.ndarray, kind: str) -> None:
    """Compare with a b^T within the rounding errors: operands of tf32 have 11 bits, sums are float32."""
    unit = (2 * 2.0**-11 if kind == "Tf32" else 0) + (a.shape[1] + 1) * 2.0**-23
    assert (numpy.abs(c - a @ b.T) <= unit * (numpy.abs(a) @ numpy.abs(b).T)).all()


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_100a", "sm_120"])
def test_compiles_for_every_architecture(architecture: str) -> None:
    expressions = [f"gemm_mma<{kind}, {bytes}>" for kind in ("Bf16", "Tf32") for bytes in (4, 16)]
    assert compiler.compile_all(GEMM, expressions, architecture)[0][:4] == b"\x7fELF"


@pytest.mark.parametrize("name", [name for name in available_devices() if name != "cpu"])
@pytest.mark.parametrize("kind", ["Bf16", "Tf32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_product(shape: str, kind: str, name: str) -> None:
    device, (arrays, numbers), (expression, grid, scalars) = Device(name), operands(kind, shape), launch_of(kind, shape)
    placed = [move(array, device) for array in arrays]
    with emulator.check(completion="lazy"):
        compiler.function(GEMM, expression, device)(grid, (256,), (*placed, *scalars))
    assert_close(placed[0].get(), *numbers, kind)


@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
@pytest.mark.parametrize("kind", ["Bf16", "Tf32"])
def test_bits_do_not_depend_on_the_order(kind: str) -> None:
    expression, grid, scalars = launch_of(kind, "ragged")
    function, bits = compiler.function(GEMM, expression, Device("emulated")), set()
    for schedule, completion, check in itertools.product(SCHEDULES, COMPLETIONS, (False, True)):
        arrays, _ = operands(kind, "ragged")
        with emulator.check(check, schedule=schedule, completion=completion, seed=3):
            function(grid, (256,), (*arrays, *scalars))
        bits.add(arrays[0].tobytes())
    assert len(bits) == 1


BARRIER = "    __syncthreads();  // this step is visible to all threads, and all have finished reading the previous one\n"
COPY = "    copy(step + STAGES - 1);\n"
NOT_COMPLETE = r"not waited for: .* reads .* at gemm_mma\.cu:7[89]; .* copy to it .* gemm_mma\.cu:41 \(called at gemm_mma\.cu:61"
#: name: (old text, new text, expected finding)
MISTAKES = {
    "missing wait": ("    cp_async_wait<STAGES - 2>();\n", "", NOT_COMPLETE),
    "wait off by one": ("wait<STAGES - 2>", "wait<STAGES - 1>", NOT_COMPLETE),
    "missing barrier": (BARRIER, "", r"uninitialised: .* reads byte \d+ of shared at gemm_mma\.cu:78"),
    "copy before the barrier": (BARRIER + COPY, COPY + BARRIER, r"race: .* writes .* at gemm_mma\.cu:41 .* read it at .*:79"),
    "rows past the end": ("row < lines ?", "row <= lines ?", r"out of bounds: reads 16 bytes at .*:41 .* past the end of b"),
}  # fmt: skip


@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistake_is_named(mistake: str, completion: str) -> None:
    old, new, finding = MISTAKES[mistake]
    text = GEMM.read_text()
    assert text.count(old) == 1
    spliced = cuda_sources.spliced_text(text.replace(old, new), GEMM.name, [cuda_sources.kernel_directory()])
    shape = "ragged" if mistake == "rows past the end" else "deep"
    expression, grid, scalars = launch_of("Bf16", shape)
    run = Function(spliced, GEMM.name, expression, disk_cache.cache_directory() / "emulator")
    with emulator.check(completion=completion), pytest.raises(EmulationError) as error:
        run(grid, (256,), (*operands("Bf16", shape)[0], *scalars))
    assert re.search(finding, str(error.value)), str(error.value)
