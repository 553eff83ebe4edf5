"""Offsets of more than 2^31 elements: launches that touch a few pages of a sparse file, so it takes no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend.devices import EmulatedArray
from gpunet.errors import LaunchError
from gpunet.launch.packing import MAX_EXTENT, pack
from gpunet.ops.index_launches import add_rows, gather_rows, scatter_rows
from gpunet.ops.matmul import matmul_forward

ROW = 2**30 + 8  # elements; rows 2 and 3 begin behind 2^31 elements


@pytest.fixture
def rows(tmp_path: Path) -> numpy.ndarray:
    """Four rows of ROW float32 numbers, all zero."""
    if not emulator.available():
        pytest.skip("g++ is not installed")
    try:
        return numpy.memmap(tmp_path / "rows", "float32", "w+", shape=(4, ROW)).view(numpy.ndarray)
    except OSError as error:
        pytest.skip(f"no sparse file of 16 GB: {error}")


def emulated(array: Any) -> EmulatedArray:
    return numpy.asarray(array).view(EmulatedArray)


@pytest.mark.parametrize("along_depth", [False, True])
def test_operands_of_a_product(rows: numpy.ndarray, along_depth: bool) -> None:
    random = numpy.random.default_rng(1)
    rows[:, :5] = random.normal(size=(4, 5))
    a = rows[:, :5] if along_depth else rows[:, :5].T
    out = emulated(numpy.full((1, len(a), len(a)), numpy.nan, "float32"))
    matmul_forward(out, None, None, emulated(a)[None], emulated(a.T)[None])
    numpy.testing.assert_allclose(out.get()[0], a @ a.T, rtol=1e-5)


def test_batches_of_a_product(rows: numpy.ndarray) -> None:
    rows[:, :6] = numpy.arange(24).reshape(4, 6)
    a = numpy.lib.stride_tricks.as_strided(rows, (4, 2, 3), (4 * ROW, 12, 4))
    out = emulated(numpy.full((4, 2, 2), numpy.nan, "float32"))
    matmul_forward(out, None, None, emulated(a), emulated(a.transpose(0, 2, 1)))
    numpy.testing.assert_array_equal(out.get(), a @ a.transpose(0, 2, 1))


def test_rows_at_positions(rows: numpy.ndarray) -> None:
    size = rows.size
    places = numpy.array([1, size // 2 + 1, size - 1])
    table = rows.reshape(size)
    table[places] = 1, 2, 3
    memory, positions = emulated(rows.reshape(-1).view("uint8")), emulated(places)
    out = emulated(numpy.empty(12, "uint8"))
    gather_rows(out, memory, positions, size=size, inner=1, itemsize=4, fill=0)
    numpy.testing.assert_array_equal(out.get().view("float32"), (1, 2, 3))

    values = numpy.array([4, 5, 6], "float32")
    order = emulated(numpy.array([2, 1, 0]))
    scatter_rows(memory, emulated(values.view("uint8")), positions, order, size=size, inner=1, itemsize=4)
    numpy.testing.assert_array_equal(table[places], (6, 5, 4))

    add_rows(emulated(table), emulated(values), positions, order)
    numpy.testing.assert_array_equal(table[places], (12, 10, 8))


@pytest.mark.parametrize("steps", [1, 128, 256, 65535])
def test_a_coordinate_that_steps_past_the_end_fits_into_an_int(steps: int) -> None:
    """Kernels step by tiles, by blocks and, over batches, by up to 65535, the largest grid in y."""
    (extent,) = pack(matmul_forward.name, (), (MAX_EXTENT,))
    assert extent.dtype == "int32" and int(extent) - 1 + steps < 2**31
    with pytest.raises(LaunchError, match=r"size 2147418113; expected at most 2147418112.*split the tensor"):
        pack(matmul_forward.name, (), (MAX_EXTENT + 1,))
