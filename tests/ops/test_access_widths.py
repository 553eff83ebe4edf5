"""The widths of global memory accesses: rows that are not whole packs of four are moved in pairs, not element by element."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.kernel import Kernel
from gpunet.ops.activations import activation_backward, activation_forward
from gpunet.ops.linear import (
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)
from gpunet.ops.matmul import matmul_forward

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

RELU = {"activation": "relu", "alpha": 0.0}


def accesses(kernel: Kernel, arrays: list[Any], options: dict[str, Any], skip: int = 0) -> tuple[Counter[int], Counter[int]]:
    """The warps' reads and writes of global memory in a launch: number of requests by bytes per thread.

    Args:
        skip: elements by which every array is off alignment.
    """

    def placed(array: numpy.ndarray) -> Any:
        memory = devices.move(numpy.concatenate([numpy.zeros(skip, array.dtype), array.reshape(-1)]), Device("emulated"))
        return memory[skip:].reshape(array.shape)

    with emulator.lint() as report:
        kernel(*(None if array is None else placed(array) for array in arrays), **options)
    reads, writes = Counter[int](), Counter[int]()
    for access in report.accesses():
        if access.memory == "global":
            (writes if access.write else reads)[access.bytes] += access.requests
    return reads, writes


def launches(dtype: str, n: int, o: int, i: int) -> dict[str, tuple[Kernel, list[Any], dict[str, Any]]]:
    """Forward and backward of a linear layer with ``i`` inputs and ``o`` outputs, without the bias gradient."""
    x, w, y, b = numpy.ones((n, i), dtype), numpy.ones((o, i), dtype), numpy.ones((n, o), dtype), numpy.ones(o, dtype)
    return {
        "forward": (linear_forward, [y, y.copy(), None, None, x, w, b], RELU),
        "backward_input": (linear_backward_input, [x, None, None, y, w, x.copy()], RELU),
        "backward_weight": (linear_backward_weight, [w, None, None, None, y, x, None], {}),
        "matmul": (matmul_forward, [y[None], None, None, x[None], w[None].transpose(0, 2, 1).copy()], {}),
    }


NAMES = ("forward", "backward_input", "backward_weight", "matmul")
ITEM = {"float16": 2, "float32": 4, "float64": 8}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ITEM)
def test_rows_of_ten_are_moved_in_pairs(dtype: str, name: str) -> None:
    reads, writes = accesses(*launches(dtype, 70, 10, 10)[name])
    of_bias = {4 * ITEM[dtype]} if name == "forward" else set()  # one row, whose packs are aligned
    assert set(reads) - of_bias == set(writes) == {2 * ITEM[dtype]}


@pytest.mark.parametrize("name", NAMES)
def test_arrays_off_by_two_elements_are_moved_in_pairs(name: str) -> None:
    reads, writes = accesses(*launches("float32", 64, 16, 16)[name], skip=2)
    assert set(reads) == set(writes) == {8}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ITEM)
def test_whole_rows_are_moved_in_packs(dtype: str, name: str) -> None:
    """Of four elements; asynchronous copies, to the tensor cores, are of 16 bytes."""
    reads, writes = accesses(*launches(dtype, 64, 16, 16)[name])
    pack = min(4 * ITEM[dtype], 16)
    of_epilogue = {pack} if name in ("forward", "backward_input") else set()  # the bias, the saved pre-activation
    assert set(reads) == {16} | of_epilogue
    assert set(writes) == {pack}


@pytest.mark.parametrize("name", NAMES)
def test_odd_rows_are_moved_by_element(name: str) -> None:
    reads, writes = accesses(*launches("float32", 64, 9, 9)[name])
    assert set(reads) - ({16} if name == "forward" else set()) == set(writes) == {4}


def test_only_the_ragged_end_is_moved_in_smaller_accesses() -> None:
    """131 elements: 32 packs, one pair and one element."""
    z, y = numpy.ones(131, numpy.float32), numpy.ones(131, numpy.float32)
    once = {16: 1, 8: 1, 4: 1}
    assert accesses(activation_forward, [y, z], RELU) == (once, once)
    assert accesses(activation_backward, [y, z, z.copy()], RELU) == ({16: 2, 8: 2, 4: 2}, once)
