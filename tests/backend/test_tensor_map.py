"""Tensor maps: the arguments that the driver gets, and the errors that are raised before it is called."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from gpunet.backend import devices, driver_calls, dtypes, tensor_map
from gpunet.backend.emulated_array import EmulatedArray
from gpunet.backend.tensor_map import TensorMap
from gpunet.errors import ArgumentError, DeviceError, DtypeError, LaunchError


class FakeGpuArray:
    """The attributes of a CuPy array that a tensor map reads."""

    def __init__(self, memory: numpy.ndarray) -> None:
        self.shape, self.strides, self.ndim, self.dtype = memory.shape, memory.strides, memory.ndim, memory.dtype
        self.itemsize, self.data = memory.itemsize, SimpleNamespace(ptr=0x7F0000000400)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace cuTensorMapEncodeTiled: it records its calls in ``driver.all``, writes 1, 2, ..., returns ``driver.status``."""
    calls = SimpleNamespace(all=[], status=0)

    def encode(buffer: ctypes.c_void_p, *arguments: Any) -> int:
        assert buffer.value is not None and buffer.value % 64 == 0
        calls.all.append([list(a) if isinstance(a, ctypes.Array) else a.value for a in arguments])
        ctypes.memmove(buffer, bytes(range(1, 129)), 128)
        return calls.status

    monkeypatch.setattr(tensor_map, "driver_function", lambda *_: encode)
    monkeypatch.setattr(devices, "is_array", lambda value: isinstance(value, (FakeGpuArray, numpy.ndarray)))
    monkeypatch.setattr(devices, "pointer", lambda array: array.data.ptr if isinstance(array, FakeGpuArray) else array.ctypes.data)
    return calls


def test_driver_gets_extents_innermost_first(driver: Any) -> None:
    memory = numpy.zeros((7, 5, 64), numpy.float32)[:, :, :40]
    made = TensorMap(FakeGpuArray(memory), (2, 3, 16), swizzle=64)
    #           type, rank, address, sizes, outer strides, box, element strides, interleave, swizzle, L2 promotion, fill
    assert driver.all == [[7, 3, 0x7F0000000400, [40, 5, 7], [256, 1280], [16, 3, 2], [1, 1, 1], 0, 2, 2, 0]]
    assert made.argument.nbytes == 128 and made.argument.size == 1 and made.argument.dtype.names
    assert made.argument.tobytes() == bytes(range(1, 129))


CODES = [("uint8", 0), ("uint16", 1), ("bfloat16", 9), ("float16", 6), ("float32", 7), ("tf32", 11), ("float64", 8)]
#: Options of what is no dtype of NumPy, and the dtype of its bits.
OPTIONS = {"bfloat16": ("uint16", {"bfloat16": True}), "tf32": ("float32", {"tf32": True})}


@pytest.mark.parametrize("dtype, code", CODES)
@pytest.mark.parametrize("swizzle, code_of_swizzle", [(0, 0), (32, 1), (64, 2), (128, 3)])
def test_driver_gets_dtype_and_swizzle_codes(driver: Any, dtype: str, code: int, swizzle: int, code_of_swizzle: int) -> None:
    stored, options = OPTIONS.get(dtype, (dtype, {}))
    array = numpy.zeros(64, stored)
    TensorMap(FakeGpuArray(array), (32 // array.itemsize,), swizzle=swizzle, **options)
    assert driver.all[0][0] == code and driver.all[0][8] == code_of_swizzle


def test_driver_gets_the_code_of_the_dtype_bfloat16(driver: Any) -> None:
    TensorMap(FakeGpuArray(numpy.zeros(64, dtypes.bfloat16)), (16,))
    assert driver.all[0][0] == 9


def test_driver_error(driver: Any) -> None:
    driver.status = 1
    with pytest.raises(LaunchError, match="cuTensorMapEncodeTiled rejects the tensor map: CUDA error 1"):
        TensorMap(FakeGpuArray(numpy.zeros(64, numpy.float32)), (32,))


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError("no such file")

    driver_calls.driver_function.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DeviceError, match=r"tensor maps need NVIDIA's driver .*: no such file"):
        driver_calls.driver_function("cuTensorMapEncodeTiled", "tensor maps", "525")


def emulated(shape: Any, dtype: str = "float32") -> numpy.ndarray:
    return numpy.zeros(shape, dtype).view(EmulatedArray)


REJECTED: dict[str, tuple[Any, Any, dict[str, Any], Any, str]] = {
    "on the CPU": (numpy.zeros(64, numpy.float32), (32,), {}, DeviceError, "of a ndarray: expected an array on CUDA or the device"),
    "not an array": ([1.0], (1,), {}, DeviceError, "of a list"),
    "dtype": (emulated((64,), "complex64"), (32,), {}, DtypeError, "complex64: expected dtype uint8, "),
    "bfloat16 of a float32": (emulated((64,)), (32,), {"bfloat16": True}, DtypeError, "expected dtype uint16"),
    "tf32 of a float64": (emulated((64,), "float64"), (32,), {"tf32": True}, DtypeError, "expected dtype float32 for tf32"),
    "tf32 of bfloat16": (emulated((64,), "uint16"), (32,), {"tf32": True, "bfloat16": True}, ArgumentError, "both set"),
    "0-d": (emulated(()), (), {}, LaunchError, "0 dimensions; tensor copies support 1 to 5"),
    "six dimensions": (emulated((1, 1, 1, 1, 1, 4)), (1,) * 6, {}, LaunchError, "6 dimensions"),
    "empty": (emulated((0, 4)), (1, 4), {}, LaunchError, r"extent must be from 1 to 2\*\*32"),
    "strided inner dimension": (emulated((8, 8)).T[::2], (4, 4), {}, LaunchError, "the last dimension is not contiguous"),
    "address": (emulated((68,))[1:65], (32,), {}, LaunchError, "not a multiple of 16 bytes"),
    "strides": (emulated((8, 6)), (4, 4), {}, LaunchError, "pad the last dimension to a multiple of 4 elements"),
    "negative stride": (emulated((8, 8))[::-1], (4, 4), {}, LaunchError, "strides except the last must be positive"),
    "swizzle": (emulated((8, 8)), (4, 4), {"swizzle": 16}, ArgumentError, r"swizzle=16; expected 0 \(none\), 32, 64 or 128"),
    "box of other rank": (emulated((8, 8)), (8,), {}, ArgumentError, r"box=\(8,\); expected 2 extents from 1 to 256"),
    "box too large": (emulated((8, 512)), (1, 257), {}, ArgumentError, r"box=\(1, 257\); expected 2 extents from 1 to 256"),
    "empty box": (emulated((8, 8)), (0, 8), {}, ArgumentError, r"box=\(0, 8\)"),
    "rows of the box": (emulated((8, 8)), (4, 6), {}, ArgumentError, "rows of 24 bytes; expected a multiple of 16"),
    "box wider than the swizzle": (emulated((8, 64)), (4, 16), {"swizzle": 32}, ArgumentError, "64 bytes, more than the swizzle's"),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_unsupported_arrays_and_boxes_are_rejected(name: str) -> None:
    array, box, options, error, message = REJECTED[name]
    with pytest.raises(error, match=message):
        TensorMap(array, box, **options)


def test_map_keeps_its_array_alive_and_reports_it_as_reached() -> None:
    array = emulated((8, 8))
    made = TensorMap(array, (4, 8), swizzle=32)
    assert made.reached("x", written=True) == [("x", array, True)]
    assert made.array is array and made.argument.nbytes == 128
