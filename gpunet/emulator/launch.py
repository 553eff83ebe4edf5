"""A launch: arguments to pointers, arrays to regions of memory with known ends, mistakes to named errors."""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.emulator.library import Library, Parameter
from gpunet.emulator.report import Tally
from gpunet.errors import CompileError, EmulationError, LaunchError
from gpunet.signature import bare_name, entries

SCHEDULES = ("depth-first", "reversed", "random", "breadth-first")
COMPLETIONS = ("eager", "lazy")
_MOST_THREADS, _MOST_SHARED = 1024, 232448  # of a block, on the cards from sm_90 on
_MOST_STATIC_SHARED, _MOST_PARAMETERS = 49152, 32764  # bytes; more does not compile
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)
_MOST_BLOCK_EXTENT = (1024, 1024, 64)
_MOST_CLUSTER = 8  # blocks, where a kernel does not ask for more than every card has
_MOST_CHECKED_BLOCKS = 2**21  # threads have a name of 32 bits there
_GAP = 1 << 20  # bytes between arrays in check mode: what runs past the end of one meets no other


class Reached(NamedTuple):
    """An array that a kernel reaches through a structure passed by value."""

    name: str
    array: numpy.ndarray
    written: bool


class _Array(ctypes.Structure):
    """As ``emulator::Array`` in runtime.h."""

    _fields_ = [
        ("address", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("element_bytes", ctypes.c_int),
        ("shared", ctypes.c_int), ("written", ctypes.c_int), ("name", ctypes.c_char_p),
    ]  # fmt: skip


class _Launch(ctypes.Structure):
    """As ``emulator::Launch`` in runtime.h."""

    _fields_ = [
        ("entry", ctypes.c_void_p), ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("cluster", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint), ("seed", ctypes.c_uint),
        ("schedule", ctypes.c_int), ("completion", ctypes.c_int), ("check", ctypes.c_int),
        ("returned_pass", ctypes.c_int), ("array_count", ctypes.c_int), ("message_bytes", ctypes.c_int),
        ("arrays", ctypes.POINTER(_Array)),
        ("message", ctypes.c_char_p), ("library", ctypes.c_uint64),
        ("switches", ctypes.c_uint64), ("barriers", ctypes.c_uint64), ("accesses", ctypes.c_uint64),
        ("transfers", ctypes.c_uint64),
    ]  # fmt: skip


class Counts(NamedTuple):
    """What a launch did."""

    switches: int
    barriers: int
    accesses: int
    transfers: int = 0  # asynchronous copies
    tallies: tuple[Tally, ...] = ()  # of the lint


class _Region:
    """Memory of one or several overlapping arrays."""

    def __init__(self, name: str, array: numpy.ndarray, written: bool) -> None:
        self.names = [name]
        self.begin, self.end = numpy.lib.array_utils.byte_bounds(array) if array.size else (array.ctypes.data,) * 2
        self.element_bytes = array.itemsize
        self.offset = self.begin - _begin_of_owner(array)
        self.written = written
        self.moved = 0  # how far the launch's copy lies from it

    def absorb(self, other: _Region) -> None:
        self.names += [name for name in other.names if name not in self.names]
        self.end = max(self.end, other.end)
        self.element_bytes = math.gcd(self.element_bytes, other.element_bytes)
        self.written |= other.written


def _begin_of_owner(array: numpy.ndarray) -> int:
    """Where the memory begins that an array is a view of."""
    while isinstance(owner := numpy.ndarray.base.__get__(array), numpy.ndarray):
        array = owner
    return numpy.lib.array_utils.byte_bounds(array)[0] if array.size else array.ctypes.data


def _merged(regions: list[_Region]) -> list[_Region]:
    found: list[_Region] = []
    for region in sorted(regions, key=lambda r: r.begin):
        if found and region.begin < found[-1].end and region.begin < region.end:
            found[-1].absorb(region)
        else:
            found.append(region)
    return found


# ---- wrong launches ---------------------------------------------------------------------------------------------------


def _extents(given: int | Sequence[int], what: str, most: Sequence[int]) -> tuple[int, int, int]:
    extents = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    full = (*extents, 1, 1, 1)[:3]
    if not 1 <= len(extents) <= 3 or any(not 1 <= n <= limit for n, limit in zip(full, most)):
        raise LaunchError(f"{what} {given}: expected one to three extents from 1 to {tuple(most)}")
    return full


def _cluster(library: Library, grid: Sequence[int], what: str) -> int:
    """Blocks of a cluster."""
    size = math.prod(library.cluster)
    if not 1 <= size <= _MOST_CLUSTER:
        raise LaunchError(f"{what}: __cluster_dims__{library.cluster} makes {size} blocks; a cluster has 1 to {_MOST_CLUSTER}")
    if any(n % c for n, c in zip(grid, library.cluster)):
        raise LaunchError(f"{what}: grid {tuple(grid)} is not a multiple of its __cluster_dims__{library.cluster}")
    static = [v.name for v in library.variables if v.kind == "shared"]
    if size > 1 and static:
        raise LaunchError(
            f"{what}: the emulator gives each block of a cluster its own dynamic shared memory only; "
            f"put the static __shared__ {', '.join(static)} there, too"
        )
    return size


_NUMPY_KIND = {b"f": "f", b"i": "i", b"u": "u", b"b": "b"}
_C_NAME = {"f4": "float", "f8": "double", "i4": "int", "i8": "long long", "u4": "unsigned int", "u8": "unsigned long long",
           "b1": "bool", "i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short"}  # fmt: skip


def _check_type(parameter: Parameter, value: Any, dtype: numpy.dtype[Any], bytes: int, what: str) -> None:
    kind = _NUMPY_KIND.get(parameter.kind)
    if kind is not None and (dtype.kind != kind or dtype.itemsize != bytes):
        expected = _C_NAME.get(f"{kind}{bytes}", f"{kind}{bytes}")
        raise LaunchError(f"{what} is {dtype} where the kernel declares {expected}{'*' if parameter.pointer[0] else ''}")
    if kind is None and not parameter.pointer[0] and dtype.itemsize != bytes:
        raise LaunchError(f"{what} has {dtype.itemsize} bytes where the kernel's parameter has {bytes}")


def parameter_names(text: str, expression: str, count: int) -> list[str]:
    """Names of an entry point's parameters, as its declaration has them.

    Raises:
        LaunchError: a tensor map that a card would copy to where its hardware does not read it.
    """
    entry = entries(text).get(bare_name(expression))
    parameters = entry.parameters if entry is not None else ()
    for parameter in parameters:
        if parameter.c_type == "TensorMap" and not parameter.pointer and not parameter.grid_constant:
            raise LaunchError(
                f"{expression}: parameter {parameter.name!r} is a TensorMap that copies cannot read on a card; declare it "
                f"const __grid_constant__ TensorMap {parameter.name}"
            )
    names = [parameter.name for parameter in parameters]
    return names if len(names) == count and all(names) else [f"argument {i}" for i in range(count)]


def static_shared(library: Library, text: str, expression: str) -> int:
    """Bytes of the shared arrays of a specialisation, without those of the source's other entry points."""
    others = entries(text).keys() - {bare_name(expression)}
    return sum(v.bytes for v in library.variables if v.kind == "shared" and v.function not in others)


def check_compiled(library: Library, text: str, file: str, expression: str) -> None:
    """Refuse what a card's assembler would.

    Raises:
        CompileError: too much static shared memory, or too many bytes of parameters.
    """
    static = static_shared(library, text, expression)
    if static > _MOST_STATIC_SHARED:
        raise CompileError(
            f"{file} as {expression}: {static} bytes of static shared memory; a card's assembler takes "
            f"{_MOST_STATIC_SHARED} at most. Take them as dynamic shared memory: extern __shared__, and their size at the launch"
        )
    parameters = sum(parameter.bytes for parameter in library.parameters)
    if parameters > _MOST_PARAMETERS:
        raise CompileError(
            f"{file} as {expression}: {parameters} bytes of parameters; a card takes {_MOST_PARAMETERS} at most (4096 with "
            "CUDA before 12.1). Pass a pointer to what is large"
        )


# ---- the launch -------------------------------------------------------------------------------------------------------

_running = threading.Lock()  # the runtime has one set of fibers


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
    """Run a kernel to its end.

    Args:
        arguments: NumPy arrays for pointers, ``None`` or a zero for null, NumPy scalars, and structured arrays of one
            element for structures by value.
        reached: the arrays that those structures point into.
        static: bytes of static shared memory, which the dynamic comes on top of.

    Raises:
        LaunchError: a launch that a card would refuse, or arguments that are not the kernel's.
        EmulationError: what was found while it ran.
    """
    check = check or lint
    what = f"launch of {expression}"
    full_grid = _extents(grid, f"{what}: grid", _MOST_BLOCKS)
    full_block = _extents(block, f"{what}: block", _MOST_BLOCK_EXTENT)
    if math.prod(full_block) > _MOST_THREADS:
        raise LaunchError(f"{what}: block {block} has {math.prod(full_block)} threads; a card takes {_MOST_THREADS}")
    if check and math.prod(full_grid) >= _MOST_CHECKED_BLOCKS:
        raise LaunchError(f"{what}: check mode takes up to {_MOST_CHECKED_BLOCKS} blocks, got {math.prod(full_grid)}")
    cluster = _cluster(library, full_grid, what)
    if shared < 0 or shared + static > _MOST_SHARED:
        raise LaunchError(
            f"{what}: {shared} bytes of dynamic and {static} of static shared memory; a block has {_MOST_SHARED} at most"
        )
    if len(arguments) != len(library.parameters):
        raise LaunchError(f"{what}: {len(arguments)} arguments for {len(library.parameters)} parameters")

    regions, values = [], []  # values: bytes of each argument, and the array that it points to
    for name, parameter, value in zip(names, library.parameters, arguments):
        this = f"{what}: argument {name!r}"
        if parameter.pointer[0] and isinstance(value, numpy.ndarray):
            _check_type(parameter, value, value.dtype, parameter.element_bytes, this)
            regions.append(_Region(name, value, not parameter.constant[0]))
            values.append((numpy.uint64(value.ctypes.data).tobytes(), True))
        elif parameter.pointer[0]:
            if value is not None and not (isinstance(value, numpy.generic) and value == 0):
                raise LaunchError(f"{this} is {value!r}; expected an array or None")
            values.append((bytes(8), False))
        elif isinstance(value, numpy.generic) or (isinstance(value, numpy.ndarray) and value.size == 1 and value.dtype.names):
            _check_type(parameter, value, value.dtype, parameter.bytes, this)
            values.append((value.tobytes(), isinstance(value, numpy.ndarray)))
        else:
            raise LaunchError(f"{this} is {value!r}; expected a NumPy scalar of {parameter.bytes} bytes")
    regions += [_Region(*array) for array in reached]
    regions = _merged(regions)
    apart = _move_apart(regions, as_allocated=lint) if check else None

    arrays = [
        _Array(r.begin + r.moved, r.end - r.begin, r.element_bytes, 0, r.written, "/".join(r.names).encode()) for r in regions
    ]
    arrays += [_Array(v.address, v.bytes, 0, v.kind == "shared", v.kind != "constant", v.name.encode()) for v in library.variables]
    for rank in range(cluster if shared else 0):
        name = "dynamic shared memory" + (f" of the cluster's block {rank}" if cluster > 1 else "")
        arrays.append(_Array(library.runtime.emulator_dynamic_shared(rank), shared, 0, 1, 1, name.encode()))
    storage = [_aligned(_relocated(raw, regions) if points and apart else raw) for raw, points in values]
    pointers = (ctypes.c_void_p * max(len(storage), 1))(*(address for address, _ in storage))
    message = ctypes.create_string_buffer(4096)
    order = _Launch(
        library.entry, ctypes.addressof(pointers), full_grid, full_block, library.cluster, shared, seed, SCHEDULES.index(schedule),
        COMPLETIONS.index(completion), check + lint, 0, len(arrays), len(message), (_Array * len(arrays))(*arrays),
        ctypes.cast(message, ctypes.c_char_p), library.base,
    )  # fmt: skip
    with _running:
        failed = library.runtime.emulator_launch(ctypes.byref(order))
        tallies = Tally.of_last_launch(library.runtime) if lint and not failed else ()
    if failed:
        kind, found, where = message.value.decode().split("\n")
        if kind == "launch bounds":
            raise LaunchError(f"{what}: {found}; launch smaller blocks, or raise the bound")
        raise EmulationError(f"{expression}: {kind}: {library.explain(found)} [{where}]")
    if apart:
        for region in regions:
            if region.written:
                ctypes.memmove(region.begin, region.begin + region.moved, region.end - region.begin)
    return Counts(order.switches, order.barriers, order.accesses, order.transfers, tallies)


def _aligned(raw: bytes) -> tuple[int, Any]:
    """Address of a copy of ``raw``, aligned for any type, and what keeps it."""
    room = ctypes.create_string_buffer(len(raw) + 128)
    address = -(-ctypes.addressof(room) // 128) * 128
    ctypes.memmove(address, raw, len(raw))
    return address, room


def _move_apart(regions: list[_Region], as_allocated: bool) -> mmap.mmap:
    """Copy the arrays far from each other into memory that they keep for the launch: as aligned as they are, or as in
    memory that a card allocates, which begins at multiples of 256 bytes.
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
    """Bytes of an argument with the pointers into regions, wherever they stand in it, moved to the regions' copies."""
    words = numpy.frombuffer(raw, numpy.uint64, len(raw) // 8).copy()
    moved = words.copy()
    for region in regions:
        inside = (words >= region.begin) & (words < max(region.end, region.begin + 1))
        moved[inside] += numpy.uint64(region.moved % 2**64)
    return moved.tobytes() + raw[len(moved) * 8 :]
