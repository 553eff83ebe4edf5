"""Tensor maps: descriptors of arrays in global memory for a kernel's tensor copies (TMA).

    tiles = TensorMap(x, box=(64, 64), swizzle=128)      # copies move 64 x 64 boxes of a matrix in C order
    function(grid, block, (tiles.argument, ...), shared, tiles.reached("x", written=False))

The kernel declares the parameter as ``const __grid_constant__ TensorMap`` (cuda_kernels/common/hopper.cuh) and gives
coordinates innermost first: the box ``x[i : i + 64, j : j + 64]`` is at ``{j, i}``.  For CUDA the driver encodes the 128
bytes; for the device "emulated" they have a format of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.driver_calls import driver_function
from gpunet.errors import ArgumentError, DeviceError, DtypeError, LaunchError

_BFLOAT16, _TF32 = 9, 11
#: CUtensorMapDataType of each dtype.
_DATA_TYPES = {"uint8": 0, "uint16": 1, "uint32": 2, "int32": 3, "uint64": 4, "int64": 5, "float16": 6, "float32": 7,
               "float64": 8, "bfloat16": _BFLOAT16}  # fmt: skip
#: CUtensorMapSwizzle of each swizzle span in bytes.
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}
_MAX_BOX = 256  # elements along a dimension
_MAX_SIZE, _MAX_STRIDE = 2**32, 2**40  # elements; bytes
_MAGIC = 0x70614D726F736E65

#: Layout of ``TensorMap`` in gpunet/emulator/bulk.cpp.
_EMULATED = numpy.dtype(
    {
        "names": ["magic", "address", "sizes", "strides", "element_bytes", "dimensions", "swizzle", "box", "tf32"],
        "formats": ["u8", "u8", ("u8", 5), ("u8", 5), "u4", "u4", "u4", ("u2", 5), "u2"],
        "offsets": [0, 8, 16, 56, 96, 100, 104, 108, 118],
        "itemsize": 128,
    }
)
_OPAQUE = numpy.dtype([("opaque", numpy.uint64, 16)])


class TensorMap:
    """Describes an array of 1 to 5 dimensions for tensor copies: address, shape, strides, and the box that one copy moves.

    Args:
        array: an array on CUDA or the device "emulated".  The last dimension is contiguous; the strides of the others are
            positive multiples of 16 bytes.
        box: shape of a box, with one extent for each dimension of the array, innermost last.
        swizzle: span of the swizzle in shared memory, in bytes: 0 (none), 32, 64 or 128.
        bfloat16: whether a uint16 array contains bfloat16 numbers; this makes no difference for copies.
        tf32: whether loads round float32 elements to TF32, for wgmma, which otherwise truncates their lower 13 bits.

    Raises:
        DeviceError: the array is on the CPU.
        DtypeError: tensor copies do not support the dtype.
        ArgumentError: the hardware does not support the box or the swizzle.
        LaunchError: the hardware does not support the array's address, shape or strides, or the driver rejects the map.
    """

    def __init__(
        self, array: Array, box: Sequence[int], *, swizzle: int = 0, bfloat16: bool = False, tf32: bool = False
    ) -> None:
        self.array, self.box, self.swizzle, self.tf32 = array, tuple(box), swizzle, tf32
        _check(array, self.box, swizzle, bfloat16, tf32)
        #: The kernel's argument: a structured array of one element and 128 bytes.
        self.argument: numpy.ndarray = (
            self._emulated() if type(array) is devices.EmulatedArray else _encoded(self._driver_arguments(bfloat16))
        )

    def reached(self, name: str, written: bool) -> list[tuple[str, Array, bool]]:
        """Return the ``reached`` argument for a launch on the device "emulated".

        Args:
            name: the array's name in findings.
            written: whether the kernel writes to the array.
        """
        return [(name, self.array, written)]

    def _emulated(self) -> numpy.ndarray:
        described = numpy.zeros(1, _EMULATED)
        rank = self.array.ndim
        described["magic"], described["address"] = _MAGIC, devices.pointer(self.array)
        described["sizes"][0, :rank] = self.array.shape[::-1]
        described["strides"][0, :rank] = self.array.strides[::-1]
        described["box"][0, :rank] = self.box[::-1]
        described["element_bytes"], described["dimensions"] = self.array.itemsize, rank
        described["swizzle"], described["tf32"] = self.swizzle, self.tf32
        return described.view(_OPAQUE)

    def _driver_arguments(self, bfloat16: bool) -> tuple[Any, ...]:
        """Return the arguments of cuTensorMapEncodeTiled after the map itself."""
        import ctypes

        rank = self.array.ndim
        return (
            ctypes.c_int(_BFLOAT16 if bfloat16 else _TF32 if self.tf32 else _DATA_TYPES[self.array.dtype.name]),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(devices.pointer(self.array)),
            (ctypes.c_uint64 * rank)(*self.array.shape[::-1]),
            (ctypes.c_uint64 * max(rank - 1, 1))(*self.array.strides[-2::-1]),
            (ctypes.c_uint32 * rank)(*self.box[::-1]),
            (ctypes.c_uint32 * rank)(*[1] * rank),  # element strides
            ctypes.c_int(0),  # no interleaving
            ctypes.c_int(_SWIZZLES[self.swizzle]),
            ctypes.c_int(2),  # L2 promotion: 128 bytes
            ctypes.c_int(0),  # elements outside the array are read as zero, not NaN
        )


def _check(array: Array, box: tuple[int, ...], swizzle: int, bfloat16: bool, tf32: bool) -> None:
    if not devices.is_array(array) or (isinstance(array, numpy.ndarray) and type(array) is not devices.EmulatedArray):
        raise DeviceError(f"TensorMap of a {type(array).__name__}: expected an array on CUDA or the device 'emulated'")
    what = f"TensorMap of an array of shape {array.shape}, strides {array.strides} and dtype {array.dtype}"
    if bfloat16 and tf32:
        raise ArgumentError(f"{what}: bfloat16 and tf32 are both set; expected at most one of them")
    if array.dtype.name not in (["uint16"] if bfloat16 else ["float32"] if tf32 else _DATA_TYPES):
        expected = "uint16 (bfloat16's bits)" if bfloat16 else "float32 for tf32" if tf32 else ", ".join(_DATA_TYPES)
        raise DtypeError(f"{what}: expected dtype {expected}")
    if not 1 <= array.ndim <= 5:
        raise LaunchError(f"{what}: {array.ndim} dimensions; tensor copies support 1 to 5: reshape it")
    if any(not 1 <= n <= _MAX_SIZE for n in array.shape):
        raise LaunchError(f"{what}: each extent must be from 1 to 2**32")
    if array.strides[-1] != array.itemsize and array.shape[-1] > 1:
        raise LaunchError(f"{what}: the last dimension is not contiguous; pass a contiguous copy")
    address = devices.pointer(array)
    if address % 16:
        raise LaunchError(f"{what}: its address {address:#x} is not a multiple of 16 bytes; pass a copy")
    if any(s % 16 or not 0 < s < _MAX_STRIDE for s in array.strides[:-1]):
        raise LaunchError(
            f"{what}: all strides except the last must be positive multiples of 16 bytes below 2**40; pad the last dimension "
            f"to a multiple of {max(1, 16 // array.itemsize)} elements"
        )
    if swizzle not in _SWIZZLES:
        raise ArgumentError(f"{what}: swizzle={swizzle}; expected 0 (none), 32, 64 or 128 bytes")
    if len(box) != array.ndim or any(not 1 <= n <= _MAX_BOX for n in box):
        raise ArgumentError(f"{what}: box={box}; expected {array.ndim} extents from 1 to {_MAX_BOX}")
    inner = box[-1] * array.itemsize
    if inner % 16:
        raise ArgumentError(f"{what}: box={box} has rows of {inner} bytes; expected a multiple of 16")
    if swizzle and inner > swizzle:
        raise ArgumentError(f"{what}: box={box} has rows of {inner} bytes, more than the swizzle's {swizzle}")


# ---- the driver -------------------------------------------------------------------------------------------------------


def _encoded(arguments: tuple[Any, ...]) -> numpy.ndarray:
    """Have the driver encode a tensor map; return its 128 bytes, aligned to 64 bytes as the driver requires."""
    import ctypes

    buffer = numpy.zeros(128 + 64, numpy.uint8)
    begin = -buffer.ctypes.data % 64
    encode = driver_function("cuTensorMapEncodeTiled", "tensor maps", "525")
    status = encode(ctypes.c_void_p(buffer.ctypes.data + begin), *arguments)
    if status:
        raise LaunchError(f"cuTensorMapEncodeTiled rejects the tensor map: CUDA error {status}")
    return buffer[begin : begin + 128].view(_OPAQUE)
