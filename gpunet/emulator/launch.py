"""Launches: validates grid, block and arguments, describes the arrays to the runtime, and turns findings into errors."""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import C_TYPES
from gpunet.backend.signature import bare_name, entries
from gpunet.emulator.library import Library, Parameter
from gpunet.emulator.report import Tally
from gpunet.errors import CompileError, EmulationError, LaunchError

SCHEDULES = ("depth-first", "reversed", "random", "breadth-first")
COMPLETIONS = ("eager", "lazy")
_MAX_THREADS, _MAX_SHARED = 1024, 232448  # per block; bytes, on GPUs from sm_90 on
_MAX_STATIC_SHARED, _MAX_PARAMETERS = 49152, 32764  # bytes; nvcc and NVRTC reject more
_MAX_GRID = (2**31 - 1, 65535, 65535)
_MAX_BLOCK = (1024, 1024, 64)
_MAX_CLUSTER = 8  # blocks; the portable cluster size
_MAX_CHECKED_BLOCKS = 2**21  # check mode numbers threads with 32 bits
_GAP = 1 << 20  # bytes between arrays in check mode, so that an access past the end of one does not reach another


class Reached(NamedTuple):
    """An array that a kernel accesses through a pointer in a structure passed by value."""

    name: str
    array: numpy.ndarray
    written: bool


class _Array(ctypes.Structure):
    """Layout of ``emulator::Array`` in runtime.h."""

    _fields_ = [
        ("address", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("element_bytes", ctypes.c_int),
        ("shared", ctypes.c_int), ("written", ctypes.c_int), ("name", ctypes.c_char_p),
    ]  # fmt: skip


class _Launch(ctypes.Structure):
    """Layout of ``emulator::Launch`` in runtime.h."""

    _fields_ = [
        ("entry", ctypes.c_void_p), ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("cluster", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint), ("seed", ctypes.c_uint),
        ("schedule", ctypes.c_int), ("completion", ctypes.c_int), ("check", ctypes.c_int),
        ("returned_pass", ctypes.c_int), ("unset_allowed", ctypes.c_int), ("array_count", ctypes.c_int),
        ("message_bytes", ctypes.c_int),
        ("arrays", ctypes.POINTER(_Array)), ("message", ctypes.c_char_p), ("library", ctypes.c_uint64),
        ("switches", ctypes.c_uint64), ("barriers", ctypes.c_uint64), ("accesses", ctypes.c_uint64),
        ("transfers", ctypes.c_uint64),
    ]  # fmt: skip


class Counts(NamedTuple):
    """Numbers of events in a launch."""

    switches: int  # of fibers
    barriers: int
    accesses: int  # of memory, in check mode
    transfers: int = 0  # asynchronous copies and wgmma instructions
    tallies: tuple[Tally, ...] = ()  # with lint()


class _Region:
    """The memory of one array, or of several overlapping arrays."""

    def __init__(self, name: str, array: numpy.ndarray, written: bool) -> None:
        self.names = [name]
        self.begin, self.end = numpy.lib.array_utils.byte_bounds(array) if array.size else (array.ctypes.data,) * 2
        self.element_bytes = array.itemsize
        self.offset = self.begin - _owner_address(array)
        self.written = written
        self.moved = 0  # address of the launch's copy minus the address of the array

    def absorb(self, other: _Region) -> None:
        self.names += [name for name in other.names if name not in self.names]
        self.end = max(self.end, other.end)
        self.element_bytes = math.gcd(self.element_bytes, other.element_bytes)
        self.written |= other.written


def _owner_address(array: numpy.ndarray) -> int:
    """Return the address of the memory block that an array is a view of."""
    while isinstance(owner := numpy.ndarray.base.__get__(array), numpy.ndarray):
        array = owner
    return numpy.lib.array_utils.byte_bounds(array)[0] if array.size else array.ctypes.data


def _merge_overlapping(regions: list[_Region]) -> list[_Region]:
    merged: list[_Region] = []
    for region in sorted(regions, key=lambda r: r.begin):
        if merged and region.begin < merged[-1].end and region.begin < region.end:
            merged[-1].absorb(region)
        else:
            merged.append(region)
    return merged


# ---- validation -------------------------------------------------------------------------------------------------------


def _checked_extents(extents: int | Sequence[int], what: str, limits: Sequence[int]) -> tuple[int, int, int]:
    """Return a grid or block as three extents.

    Raises:
        LaunchError: there are not one to three extents, or an extent is out of range.
    """
    given = tuple(extents) if isinstance(extents, (tuple, list)) else (extents,)
    full = (*given, 1, 1, 1)[:3]
    if not 1 <= len(given) <= 3 or any(not 1 <= n <= limit for n, limit in zip(full, limits)):
        raise LaunchError(f"{what} {extents}: expected one to three extents from 1 to {tuple(limits)}")
    return full


def _cluster_size(library: Library, grid: Sequence[int], what: str) -> int:
    """Return the number of blocks in a cluster.

    Raises:
        LaunchError: the cluster is too large, does not divide the grid, or has static shared memory.
    """
    size = math.prod(library.cluster)
    if not 1 <= size <= _MAX_CLUSTER:
        raise LaunchError(
            f"{what}: __cluster_dims__{library.cluster} makes {size} blocks; a cluster can have 1 to {_MAX_CLUSTER}"
        )
    if any(n % c for n, c in zip(grid, library.cluster)):
        raise LaunchError(f"{what}: grid {tuple(grid)} is not a multiple of __cluster_dims__{library.cluster}")
    static = [v.name for v in library.variables if v.kind == "shared"]
    if size > 1 and static:
        raise LaunchError(
            f"{what}: the emulator supports only dynamic shared memory in clusters; "
            f"move the static __shared__ {', '.join(static)} there"
        )
    return size


#: The name of a dtype without its bits, by ``Parameter.kind``; kind "V" is any other type.
_NAMES = {b"f": "float", b"B": "bfloat", b"i": "int", b"u": "uint", b"b": "bool"}


def _check_type(parameter: Parameter, value: Any, dtype: numpy.dtype[Any], bytes: int, what: str) -> None:
    name = _NAMES.get(parameter.kind)
    expected = name if name == "bool" else f"{name}{8 * bytes}"
    is_bits = dtype.name == "uint16" and expected in ("float16", "bfloat16")  # of halves, where ml_dtypes is not installed
    if name is not None and dtype.name != expected and not is_bits:
        declared = C_TYPES.get(expected, expected)
        raise LaunchError(f"{what} is {dtype} where the kernel declares {declared}{'*' if parameter.pointer[0] else ''}")
    if name is None and not parameter.pointer[0] and dtype.itemsize != bytes:
        raise LaunchError(f"{what} has {dtype.itemsize} bytes where the kernel's parameter has {bytes}")


def parameter_names(text: str, expression: str, count: int) -> list[str]:
    """Return the names of an entry point's parameters; "argument 0", ... if the declaration cannot be parsed.

    Raises:
        LaunchError: a TensorMap parameter is not a __grid_constant__, so tensor copies on a GPU could not read it.
    """
    entry = entries(text).get(bare_name(expression))
    parameters = entry.parameters if entry is not None else ()
    for parameter in parameters:
        if parameter.c_type == "TensorMap" and not parameter.pointer and not parameter.grid_constant:
            raise LaunchError(
                f"{expression}: tensor copies on a GPU cannot read the TensorMap parameter {parameter.name!r}; declare it "
                f"const __grid_constant__ TensorMap {parameter.name}"
            )
    names = [parameter.name for parameter in parameters]
    return names if len(names) == count and all(names) else [f"argument {i}" for i in range(count)]


def static_shared(library: Library, text: str, expression: str) -> int:
    """Return the bytes of static shared memory of a specialisation, without that of the source's other entry points."""
    other_entries = entries(text).keys() - {bare_name(expression)}
    return sum(v.bytes for v in library.variables if v.kind == "shared" and v.function not in other_entries)


def check_compiled(library: Library, text: str, file: str, expression: str) -> None:
    """Raise the errors that compiling for a GPU would raise.

    Raises:
        CompileError: too much static shared memory, or too many bytes of parameters.
    """
    static = static_shared(library, text, expression)
    if static > _MAX_STATIC_SHARED:
        raise CompileError(
            f"{file} as {expression}: {static} bytes of static shared memory; a GPU allows at most {_MAX_STATIC_SHARED}. "
            "Use dynamic shared memory (extern __shared__), and pass its size at the launch"
        )
    parameters = sum(parameter.bytes for parameter in library.parameters)
    if parameters > _MAX_PARAMETERS:
        raise CompileError(
            f"{file} as {expression}: {parameters} bytes of parameters; a GPU allows at most {_MAX_PARAMETERS} (4096 before "
            "CUDA 12.1). Pass a pointer to large structures"
        )


# ---- the launch -------------------------------------------------------------------------------------------------------

_running = threading.Lock()  # the runtime runs one launch at a time


def launch(
    library: Library,
    expression: str,
    names: list[str],
    grid: int | Sequence[int],
    block: int | Sequence[int],
    arguments: Sequence[Any],
    shared: int = 0,
    reached: Sequence[Reached] = (),
    static: int = 0,
    *,
    check: bool = False,
    schedule: str = "depth-first",
    seed: int = 0,
    completion: str = "eager",
    lint: bool = False,
) -> Counts:
    """Run a kernel and wait until it has finished.

    Args:
        library: the compiled specialisation.
        expression: its name in messages.
        names: the names of its parameters, for messages.
        grid, block: up to three extents each.
        arguments: NumPy arrays for pointers, ``None`` or a zero of 8 bytes for null, NumPy scalars, and structured arrays of one
            element for structures passed by value.
        shared: bytes of dynamic shared memory.
        reached: the arrays that those structures point into.
        static: bytes of static shared memory.
        check, schedule, seed, completion: see :func:`gpunet.emulator.check`.
        lint: count bank conflicts and sectors; implies check.

    Raises:
        LaunchError: a GPU would reject the launch, or the arguments do not match the kernel's parameters.
        EmulationError: a bug was found while the kernel ran.
    """
    check = check or lint
    what = f"launch of {expression}"
    full_grid = _checked_extents(grid, f"{what}: grid", _MAX_GRID)
    full_block = _checked_extents(block, f"{what}: block", _MAX_BLOCK)
    if math.prod(full_block) > _MAX_THREADS:
        raise LaunchError(f"{what}: block {block} has {math.prod(full_block)} threads; a GPU allows at most {_MAX_THREADS}")
    if check and math.prod(full_grid) >= _MAX_CHECKED_BLOCKS:
        raise LaunchError(f"{what}: grid {grid} has {math.prod(full_grid)} blocks; check mode allows {_MAX_CHECKED_BLOCKS - 1}")
    cluster = _cluster_size(library, full_grid, what)
    if shared < 0 or shared + static > _MAX_SHARED:
        raise LaunchError(
            f"{what}: {shared} bytes of dynamic and {static} of static shared memory; a GPU allows at most {_MAX_SHARED} per block"
        )
    if len(arguments) != len(library.parameters):
        raise LaunchError(f"{what}: {len(arguments)} arguments for {len(library.parameters)} parameters")

    regions, values = [], []  # values: the bytes of each argument, and whether they may contain pointers into arrays
    for name, parameter, value in zip(names, library.parameters, arguments):
        argument = f"{what}: argument {name!r}"
        if parameter.pointer[0] and isinstance(value, numpy.ndarray):
            _check_type(parameter, value, value.dtype, parameter.element_bytes, argument)
            regions.append(_Region(name, value, not parameter.constant[0]))
            values.append((numpy.uint64(value.ctypes.data).tobytes(), True))
        elif parameter.pointer[0]:
            if value is not None and not (isinstance(value, numpy.generic) and value.itemsize == 8 and value == 0):
                raise LaunchError(f"{argument} is {value!r}; expected an array or None")
            values.append((bytes(8), False))
        elif isinstance(value, numpy.generic) or (isinstance(value, numpy.ndarray) and value.size == 1 and value.dtype.names):
            _check_type(parameter, value, value.dtype, parameter.bytes, argument)
            values.append((value.tobytes(), isinstance(value, numpy.ndarray)))
        else:
            raise LaunchError(f"{argument} is {value!r}; expected a NumPy scalar of {parameter.bytes} bytes")
    regions += [_Region(*array) for array in reached]
    regions = _merge_overlapping(regions)
    copies = _copy_apart(regions, as_allocated=lint) if check else None

    arrays = [
        _Array(r.begin + r.moved, r.end - r.begin, r.element_bytes, 0, r.written, "/".join(r.names).encode()) for r in regions
    ]
    arrays += [_Array(v.address, v.bytes, 0, v.kind == "shared", v.kind != "constant", v.name.encode()) for v in library.variables]
    for rank in range(cluster if shared else 0):
        name = "dynamic shared memory" + (f" of the cluster's block {rank}" if cluster > 1 else "")
        arrays.append(_Array(library.runtime.emulator_dynamic_shared(rank), shared, 0, 1, 1, name.encode()))
    storage = [_aligned_copy(_relocated(raw, regions) if points and copies else raw) for raw, points in values]
    pointers = (ctypes.c_void_p * max(len(storage), 1))(*(address for address, _ in storage))
    message = ctypes.create_string_buffer(4096)
    request = _Launch(
        library.entry, ctypes.addressof(pointers), full_grid, full_block, library.cluster, shared, seed, SCHEDULES.index(schedule),
        COMPLETIONS.index(completion), check + lint, 0, 0, len(arrays), len(message), (_Array * len(arrays))(*arrays),
        ctypes.cast(message, ctypes.c_char_p), library.base,
    )  # fmt: skip
    with _running:
        failed = library.runtime.emulator_launch(ctypes.byref(request))
        tallies = Tally.of_last_launch(library.runtime) if lint and not failed else ()
    if failed:
        kind, finding, thread = message.value.decode().split("\n")
        if kind == "launch bounds":
            raise LaunchError(f"{what}: {finding}; launch smaller blocks, or raise the bound")
        raise EmulationError(f"{expression}: {kind}: {library.explain(finding)} [{thread}]")
    if copies:
        for region in regions:
            if region.written:
                ctypes.memmove(region.begin, region.begin + region.moved, region.end - region.begin)
    return Counts(request.switches, request.barriers, request.accesses, request.transfers, tallies)


def _aligned_copy(raw: bytes) -> tuple[int, Any]:
    """Copy ``raw`` to an address aligned for any type; return the address and the object that owns the memory."""
    buffer = ctypes.create_string_buffer(len(raw) + 128)
    address = -(-ctypes.addressof(buffer) // 128) * 128
    ctypes.memmove(address, raw, len(raw))
    return address, buffer


def _copy_apart(regions: list[_Region], as_allocated: bool) -> mmap.mmap:
    """Copy the arrays into new memory, far from each other, for the time of the launch.

    Args:
        as_allocated: align each copy as if its owner began at a multiple of 256 bytes, like memory from a GPU's allocator;
            else a copy has the alignment of its array.
    """
    offsets, end = [], _GAP
    for region in regions:
        offsets.append(end + (region.offset if as_allocated else region.begin) % 4096)
        end += -(-(region.end - region.begin + 4096) // 4096) * 4096 + _GAP
    memory = mmap.mmap(-1, end)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for region, offset in zip(regions, offsets):
        region.moved = base + offset - region.begin
        ctypes.memmove(base + offset, region.begin, region.end - region.begin)
    return memory


def _relocated(raw: bytes, regions: list[_Region]) -> bytes:
    """Replace all pointers into regions in an argument's bytes by pointers into the regions' copies."""
    words = numpy.frombuffer(raw, numpy.uint64, len(raw) // 8).copy()
    moved = words.copy()
    for region in regions:
        inside = (words >= region.begin) & (words < max(region.end, region.begin + 1))
        moved[inside] += numpy.uint64(region.moved % 2**64)
    return moved.tobytes() + raw[len(moved) * 8 :]
