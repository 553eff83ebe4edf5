"""A GEMM of Hopper's instructions together: right against float64, and clean and of the same bits in whatever order things run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.diagnose.usage import compile_and_measure
from gpunet.emulator import COMPLETIONS, SCHEDULES
from gpunet.runtime.tensor_map import TensorMap
from test_cuda_sources import needs_nvrtc
from test_hopper import Target, target  # noqa: F401

GEMM = Path(__file__).parent / "kernels" / "gemm_wgmma.cu"
SHARED = 4 * 32768 + 8 * 8  # a ring of four stages, and their mbarriers
FORMATS = {"BF16": 2, "TF32": 4}  # bytes of an element


def rounded(x: numpy.ndarray, form: str) -> numpy.ndarray:
    """To bfloat16, ties to even; of TF32 what the tensor cores read of a float32."""
    bits = x.astype(numpy.float32).view(numpy.uint32)
    kept = bits & 0xFFFFE000 if form == "TF32" else (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return kept.astype(numpy.uint32).view(numpy.float32)


def stored(x: numpy.ndarray, form: str) -> numpy.ndarray:
    """A float32 array as the kernel has it in memory."""
    return x if form == "TF32" else (rounded(x, form).view(numpy.uint32) >> 16).astype(numpy.uint16)


def multiply(target: Any, a: numpy.ndarray, b: numpy.ndarray, form: str, cluster: int, **how: Any) -> numpy.ndarray:
    (m, k), n = a.shape, len(b)
    line = 128 // FORMATS[form]
    arrays = [target.place(stored(a, form)), target.place(stored(b, form))]
    # rows that begin at multiples of 16 bytes, as a tensor copy needs them
    c = target.place(numpy.full((m, n + -n % 8), 7, arrays[0].dtype))[:, :n]
    tiles = [
        TensorMap(array, (rows, line), swizzle=128, bfloat16=form == "BF16")
        for array, rows in zip((*arrays, c), (128, 128 // cluster, 64))
    ]
    reached = [entry for tile, name in zip(tiles, "abc") for entry in tile.reached(name, written=name == "c")]
    grid = (-(-m // (128 * cluster)) * cluster, -(-n // 128))
    entry = "gemm_wgmma" if cluster == 1 else "gemm_wgmma_pairs"
    target.launch(
        f"{entry}<Format::{form}>", grid, 384, (*(tile.argument for tile in tiles), numpy.int32(k)), SHARED, reached, file=GEMM, **how
    )
    result = c.get()
    return result if form == "TF32" else (result.astype(numpy.uint32) << 16).view(numpy.float32)


def operands(m: int, n: int, k: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    generator = numpy.random.default_rng(k)
    return generator.normal(size=(m, k)).astype(numpy.float32), generator.normal(size=(n, k)).astype(numpy.float32)


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_gemm_is_right_and_its_bits_do_not_depend_on_the_order(target: Target, form: str, cluster: int) -> None:  # noqa: F811
    """A ragged rest of rows, columns and depth; six steps, so that the ring of four stages goes around."""
    depth = 5 * 128 // FORMATS[form] + 8
    a, b = operands(130, 136, depth)
    expected = rounded(a, form).astype(numpy.float64) @ rounded(b, form).astype(numpy.float64).T
    # the order of a float32 sum of products: at most k roundings of it; and bfloat16's own in the end
    magnitude = abs(a.astype(numpy.float64)) @ abs(b.astype(numpy.float64)).T
    tolerance = depth * 2.0**-24 * magnitude + (2.0**-8 * abs(expected) if form == "BF16" else 0)
    found = [
        multiply(target, a, b, form, cluster, schedule=schedule, completion=completion)
        for schedule, completion in itertools.product(SCHEDULES, COMPLETIONS)
    ]
    assert (abs(found[0] - expected) <= tolerance).all()
    for other in found[1:]:
        numpy.testing.assert_array_equal(other, found[0])


@needs_nvrtc
def test_gemm_takes_no_local_memory() -> None:
    """Registers as the launch bounds give them, nothing spilled, and no warning that wgmma is serialized."""
    entries = [f"{entry}<Format::{form}>" for entry in ("gemm_wgmma", "gemm_wgmma_pairs") for form in FORMATS]
    made = compile_and_measure(GEMM, entries, "sm_90a")
    assert not made.log
    for usage in made.usage.values():
        assert usage.registers == 168 and usage.stack == 0 and not usage.spills
