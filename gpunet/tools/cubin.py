"""The interface of a launch: where a kernel expects its parameters, as a cubin states, and what a launch packs.

A cubin is an ELF file.  Its section ``.nv.info.KERNEL`` is a list of attributes: a byte for the format, a byte for the
attribute, and two bytes, which are the length of the value that follows if the format is 4, else the value itself.  One
attribute describes one parameter, in 32-bit words: an index; the parameter's number (16 bits) and offset; flags, with the
size in the upper 14 bits.  A second kind of attribute, for parameters of more than 16 KB, has the size in the lower 24.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.errors import CompileError

_PARAMETER, _LARGE_PARAMETER = 0x17, 0x45  # EIATTR_KPARAM_INFO and its successor
_INFO = ".nv.info."


class Parameter(NamedTuple):
    """A parameter of a kernel: bytes from the start of the parameters, and its own."""

    offset: int
    size: int


def parameters(cubin: bytes) -> dict[str, list[Parameter]]:
    """Return the parameters of each kernel, in order, by mangled name.

    Raises:
        CompileError: the bytes are no 64-bit ELF file.
    """
    if cubin[:5] != b"\x7fELF\x02":
        raise CompileError(f"expected a cubin, a 64-bit ELF file, which does not begin with {cubin[:5]!r}")
    return {
        name.removeprefix(_INFO): _parameters(contents) for name, contents in _sections(cubin) if name.startswith(_INFO)
    }


def _sections(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the contents of each section."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, number, of_names = struct.unpack_from("<3H", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + size * index) for index in range(number)]
    names_at = headers[of_names][4]
    for name, _, _, _, at, length in headers:
        begin = names_at + name
        yield elf[begin : elf.index(b"\0", begin)].decode(), elf[at : at + length]


def _parameters(info: bytes) -> list[Parameter]:
    found: dict[int, Parameter] = {}
    at = 0
    while at + 4 <= len(info):
        form, attribute, length = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:
            continue
        if attribute in (_PARAMETER, _LARGE_PARAMETER):
            _, number, offset, last = struct.unpack_from("<IHHI", info, at)
            found[number] = Parameter(offset, last >> 18 if attribute == _PARAMETER else last & 0xFFFFFF)
        at += length
    return [found[number] for number in sorted(found)]


def packed(arguments: Sequence[Any]) -> list[Parameter]:
    """Return offset and size of each argument of a launch, as C lays out a parameter list of their types.

    Args:
        arguments: arrays for pointers, NumPy scalars, and structured NumPy arrays of one element for structs.
    """
    found: list[Parameter] = []
    end = 0
    for argument in arguments:
        is_value = isinstance(argument, numpy.generic) or type(argument) is numpy.ndarray  # not a subclass, an emulated array
        size, alignment = (argument.nbytes, _alignment(argument.dtype)) if is_value else (8, 8)
        end = -(-end // alignment) * alignment
        found.append(Parameter(end, size))
        end += size
    return found


def _alignment(dtype: numpy.dtype[Any]) -> int:
    """The alignment in C: that of the largest number in a struct."""
    if dtype.fields is not None:
        return max(_alignment(field[0]) for field in dtype.fields.values())
    return _alignment(dtype.base) if dtype.shape else dtype.itemsize
