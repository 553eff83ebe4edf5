"""ShardedArrays: rows of many .npy files, which are mapped into memory while they are read."""

from __future__ import annotations

import functools
import mmap
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.lib import format as npy

from gpunet.backend.dtypes import is_numeric
from gpunet.data.blocks import BlockDataset, Field, files_of
from gpunet.data.tabular import TARGET_KEYS
from gpunet.errors import ArgumentError, DataError

__all__ = ["ShardedArrays"]

#: The bytes of a block, unless ``block_size`` says otherwise: enough to be read in one go from any disk.
BLOCK_BYTES = 2**20
#: Files of each array that stay mapped.
_MAX_MAPPED = 4
#: The stem of a file, such as x-000 or images-00003-of-00010.
_NAME = re.compile(r"(.+?)[-_.](\d+)(?:-of-\d+)?")
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class _File(NamedTuple):
    """An .npy file: where its rows begin, and what they are."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]

    @property
    def num_bytes(self) -> int:
        return self.offset + int(numpy.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def rows(self) -> str:
        """What a row is, for messages."""
        return f"rows of {self.dtype} {self.shape[1:]}"


class ShardedArrays(BlockDataset):
    """Rows of arrays that are divided into .npy files, of which parts are in memory: for more data than memory has room for.

        train = ShardedArrays("train")  # x-000.npy, x-001.npy, ... and y-000.npy, y-001.npy, ...
        loader = DataLoader(train, batch_size=64, shuffle=True)

    Sample i is the tuple of the i-th rows of the arrays, in the order of their names, with targets (y, target, label) behind the
    others.  Headers and lengths of all files are checked at once.

    Args:
        source: a folder, a path, or a list of paths, of files ARRAY.npy or ARRAY-NUMBER.npy; or a dict that has the list of files
            of each array, whatever their names are.  The files of a number, or a place in the lists, have equally many rows.
        arrays: the names of the arrays of a sample, in another order, or only some of them.
        block_size: rows of a block, which is read at once; by default those of 1 MiB.

    Raises:
        DataError: files are missing, damaged, truncated, or do not fit together; the message has the file.
        ArgumentError: an argument is out of range.
    """

    def __init__(self, source: Any, arrays: Sequence[str] | None = None, block_size: int | None = None) -> None:
        if block_size is not None and (isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1):
            raise ArgumentError(f"ShardedArrays: block_size={block_size!r}; expected an integer of 1 or more")
        if isinstance(arrays, str):
            raise ArgumentError(f"ShardedArrays: arrays={arrays!r}; expected a list of names")
        paths = _files_of(source, arrays)
        self.array_names = tuple(paths)
        self._files = [[_header(path) for path in of_array] for of_array in paths.values()]
        _check(self._files)
        fields = [Field(files[0].shape[1:], files[0].dtype) for files in self._files]
        row_bytes = sum(field.dtype.itemsize * int(numpy.prod(field.shape)) for field in fields)
        size = block_size or max(1, BLOCK_BYTES // max(row_bytes, 1))
        lengths = [file.shape[0] for file in self._files[0]]
        blocks = [
            (number, start, min(start + size, length))
            for number, length in enumerate(lengths)
            for start in range(0, length, size)
        ]
        if not blocks:
            raise DataError(f"{self._files[0][0].path}: there are no rows, also in the other files")
        super().__init__(fields, numpy.array(blocks, numpy.int64))

    def _forget(self) -> None:
        super()._forget()
        self._map = functools.lru_cache(_MAX_MAPPED * len(self._files))(_mapped)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_map"]
        return state

    def fill(self, arrays: list[numpy.ndarray], source: int, start: int, stop: int) -> None:
        for number, array in enumerate(arrays):
            file = self._files[number][source]
            mapping, rows = self._map(file)
            if hasattr(mmap, "MADV_WILLNEED"):  # read ahead of the copy, all at once
                row_bytes, offset = rows[0].nbytes, file.offset
                first = (offset + start * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
                mapping.madvise(mmap.MADV_WILLNEED, first, offset + stop * row_bytes - first)
            numpy.copyto(array, rows[start:stop])

    def _gather_from_many(self, blocks: numpy.ndarray, places: numpy.ndarray) -> list[numpy.ndarray]:
        """Gather rows without their blocks, such as for a sampler that knows no blocks."""
        result = [numpy.empty((len(blocks), *field.shape), field.dtype) for field in self.fields]
        sources, rows = self._blocks[blocks, 0], self._blocks[blocks, 1] + places
        order = numpy.lexsort((rows, sources))
        for where in numpy.split(order, numpy.flatnonzero(numpy.diff(sources[order])) + 1):
            for number, array in enumerate(result):
                array[where] = self._map(self._files[number][sources[where[0]]])[1][rows[where]]
        return result


# ---- finding files ------------------------------------------------------------------------------------------------------


def _files_of(source: Any, arrays: Sequence[str] | None) -> dict[str, list[Path]]:
    """The files of each array, in order."""
    if isinstance(source, Mapping):
        found = {name: _paths(source[name]) for name in _chosen([*source], arrays)}
        for name, paths in found.items():
            if not paths or len(paths) != len(next(iter(found.values()))):
                counts = ", ".join(f"{len(paths)} of {name!r}" for name, paths in found.items())
                raise DataError(f"ShardedArrays: files {counts}; expected the same number of each array, and at least one")
        if not found:
            raise DataError("ShardedArrays: no arrays; expected a dict with the list of files of each array")
        return found
    return _grouped(_paths(source), arrays)


def _paths(source: Any) -> list[Path]:
    return files_of("ShardedArrays", source, (".npy", ".npz"))


def _chosen(names: list[str], arrays: Sequence[str] | None) -> list[str]:
    if unknown := [name for name in arrays or () if name not in names]:
        raise ArgumentError(f"ShardedArrays: arrays={arrays!r}, but there is no {unknown[0]!r}; expected names among {names}")
    return [*arrays] if arrays is not None else names


def array_names(folder: Path) -> list[str]:
    """The names of the arrays in a folder, with targets behind the others."""
    return _sorted(_numbered(_paths(folder)))


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name in TARGET_KEYS, name))


def _numbered(paths: Sequence[Path]) -> dict[str, dict[int, Path]]:
    """Files by the names of their arrays and their numbers."""
    found: dict[str, dict[int, Path]] = {}
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        name, number = (match[1], int(match[2])) if match else (path.stem, -1)
        numbered = found.setdefault(name, {})
        if number in numbered:
            raise DataError(f"{path}: {numbered[number]} has the same array and number; expected one of them")
        numbered[number] = path
    return found


def _grouped(paths: Sequence[Path], arrays: Sequence[str] | None) -> dict[str, list[Path]]:
    """The files of each array, sorted by their numbers."""
    found = _numbered(paths)
    names = _chosen(_sorted(found), arrays)
    for name in names:
        for other in names:
            if missing := sorted(found[other].keys() - found[name].keys()):
                raise DataError(
                    f"{found[other][missing[0]]}: there is no file of the array {name!r} with its number; expected the same "
                    f"numbers of {' and '.join(map(repr, names))}, or a dict of lists of files"
                )
    return {name: [found[name][number] for number in sorted(found[name])] for name in names}


def _mapped(file: _File) -> tuple[mmap.mmap, numpy.ndarray]:
    """Map a file, and return its rows.

    Raises:
        DataError: it has changed since its header was read.
    """
    try:
        with file.path.open("rb") as opened:
            mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: it is empty
        raise DataError(f"{file.path} cannot be read any more: {getattr(error, 'strerror', None) or error}") from None
    if len(mapping) != file.num_bytes:
        raise DataError(
            f"{file.path} has {len(mapping)} bytes, but had {file.num_bytes} before; do not change files while they are read"
        )
    return mapping, numpy.ndarray(file.shape, file.dtype, mapping, file.offset)


def _header(path: Path) -> _File:
    """Read the header of a file, and compare it with the size of the file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(npy.MAGIC_PREFIX))
            file.seek(0)
            if start.startswith(b"PK") or path.suffix.lower() == ".npz":
                raise DataError(
                    f"{path} is an .npz file, of which no part can be mapped into memory; write each of its arrays to a file: "
                    "numpy.save('x-000.npy', archive['x'])"
                )
            if start != npy.MAGIC_PREFIX:
                raise DataError(f"{path} is damaged, or no .npy file: it begins with {start!r}; expected {npy.MAGIC_PREFIX!r}")
            version = npy.read_magic(file)
            if version not in _HEADERS:
                raise DataError(f"{path} has the version {version} of .npy files; expected (1, 0) or (2, 0), for arrays of numbers")
            shape, is_fortran, dtype = _HEADERS[version](file)
            found = _File(path, file.tell(), shape, dtype)
            size = os.fstat(file.fileno()).st_size
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises a dozen types for damaged headers
        raise DataError(f"{path} is damaged: {str(error)[:200]}; save the array again with numpy.save") from None
    if not is_numeric(dtype) or not dtype.isnative:
        way_out = "save array.astype('float32')"
        raise DataError(f"{path} contains {dtype}; expected numbers in the byte order of this machine: {way_out}")
    if not shape:
        raise DataError(f"{path} contains a single number; expected rows")
    if is_fortran and len(shape) > 1:
        raise DataError(f"{path} is in Fortran's order, in which rows are not contiguous; save numpy.ascontiguousarray(array)")
    if size != found.num_bytes:
        how = "truncated" if size < found.num_bytes else "damaged"
        raise DataError(f"{path} is {how}: it has {size} bytes; expected {found.num_bytes} for {dtype} {shape}")
    return found


def _check(files: Sequence[Sequence[_File]]) -> None:
    """Check that the files of an array have equal rows, and those of a number equally many of them."""
    for of_array in files:
        first = of_array[0]
        for file in of_array:
            if (file.dtype, file.shape[1:]) != (first.dtype, first.shape[1:]):
                raise DataError(f"{file.path} has {file.rows}, but {first.path} has {first.rows}; expected the same in all files")
        for file, other in zip(of_array, files[0]):
            if file.shape[0] != other.shape[0]:
                raise DataError(
                    f"{file.path} has {file.shape[0]} rows, but {other.path} has {other.shape[0]}; expected the same number, since "
                    "row i of each array belongs to one sample"
                )
