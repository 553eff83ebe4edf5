"""The plan of a program: calls that nobody needs dropped, and its temporaries placed in one arena.

A temporary lives from the call that writes it first to the last call that touches it; temporaries whose lives don't meet
share memory.  What the step hands out (its results, the gradients that it leaves) lives to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.captured import merge
from gpunet.captured.ir import Buffer, Call, View

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector
ALIGNMENT_ELSEWHERE = 256  #: as CUDA aligns memory at least


def planned(
    buffers: list[Buffer],
    calls: list[Call],
    kept: list[View],
    group: Callable[[list[Call], set[int]], Sequence[Any]] | None = None,
    alignment: int = _ALIGNMENT,
) -> tuple[Sequence[Any], Callable[[Any], Any], int]:
    """Drop, join and place.

    Args:
        kept: views of temporaries that are read after the program.
        group: makes units of the calls: things that have ``reads`` and ``writes``, too, but hold some temporaries of
            their own.  Its second argument are the buffers that are kept.
        alignment: of each temporary, in bytes.

    Returns:
        The calls, each temporary at its place in buffer -1, the arena; or the units, as they were made; the function that
        gives a view its place; and the arena's bytes.
    """
    calls = _needed(buffers, calls, {v.buffer for v in kept})
    homes = _Homes(buffers, {v.buffer for v in kept})
    calls = _without_concatenations(calls, homes)

    def at_home(view: View) -> View:
        home, offset = homes.find(view.buffer)
        return view._replace(buffer=home, offset=offset + view.offset)

    units: Sequence[Any] = calls
    if group is None:
        _compute_in_place(calls, homes)
    else:
        units = group([c.replaced(at_home) for c in calls], homes.kept)
    offsets, size = _placed(units, homes, alignment)

    def place(view: Any) -> Any:
        if not buffers[view.buffer].temporary:
            return view
        home, offset = homes.find(view.buffer)
        return view._replace(buffer=-1, offset=offsets.get(home, 0) + offset + view.offset)

    if group is None:
        units = merge.in_chunks(merge.join_neighbours([c.replaced(place) for c in calls]))
    return units, place, size


def _whole(view: View, buffers: list[Buffer]) -> bool:
    return view.contiguous and view.nbytes == buffers[view.buffer].nbytes


def _needed(buffers: list[Buffer], calls: list[Call], kept: set[int]) -> list[Call]:
    """The calls whose results are read later, or outlive the program."""
    needed = kept | {number for number, b in enumerate(buffers) if not b.temporary}
    result = []
    for call in reversed(calls):
        if not any(v.buffer in needed for v in call.writes):
            continue
        for view in call.writes:
            if not call.partial and buffers[view.buffer].temporary and _whole(view, buffers):
                needed.discard(view.buffer)
        needed.update(v.buffer for v in call.reads)
        result.append(call)
    return result[::-1]


class _Homes:
    """In which buffer, and where in it, a temporary lives that was joined to another one."""

    def __init__(self, buffers: list[Buffer], kept: set[int]) -> None:
        self.buffers, self.kept = buffers, kept
        self._of: dict[int, tuple[int, int]] = {}

    def find(self, number: int) -> tuple[int, int]:
        offset = 0
        while number in self._of:
            number, more = self._of[number]
            offset += more
        return number, offset

    def join(self, number: int, home: int, offset: int) -> None:
        self._of[number] = (home, offset)
        if number in self.kept:
            self.kept.add(home)


def _without_concatenations(calls: list[Call], homes: _Homes) -> list[Call]:
    """Let the parts of a concatenated vector be written where they will be needed, so that nothing is copied."""
    buffers, result = homes.buffers, []
    first: dict[int, int] = {}
    last_write: dict[int, int] = {}
    for number, call in enumerate(calls):
        for view in (*call.reads, *call.writes):
            first.setdefault(view.buffer, number)
        for view in call.writes:
            last_write[view.buffer] = number

    def joinable(number: int, out: View, parts: list[View]) -> bool:
        if not (buffers[out.buffer].temporary and _whole(out, buffers) and len(out.shape) == 1):
            return False
        if first[out.buffer] != number or last_write[out.buffer] != number or len({v.buffer for v in parts}) != len(parts):
            return False
        return all(
            buffers[v.buffer].temporary
            and _whole(v, buffers)
            and last_write.get(v.buffer, number) < number
            and homes.find(v.buffer) == (v.buffer, 0)
            and v.dtype == out.dtype
            for v in parts
        )

    for number, call in enumerate(calls):
        if call.function is not numpy.concatenate or not joinable(number, call.writes[0], call.reads):
            result.append(call)
            continue
        offset = 0
        for view in call.reads:
            homes.join(view.buffer, call.writes[0].buffer, offset)
            offset += view.nbytes
    return result


def _compute_in_place(calls: list[Call], homes: _Homes) -> None:
    """Let an elementwise call write over an operand that nobody reads later."""
    buffers = homes.buffers
    first, last = _lives(calls, homes)
    for number, call in enumerate(calls):
        if call.kind not in ("elementwise", "copy") or call.partial:
            continue
        (out,) = call.writes
        home, offset = homes.find(out.buffer)
        if not buffers[out.buffer].temporary or offset or home != out.buffer or first[home] != number or not _whole(out, buffers):
            continue
        for view in call.reads:
            operand, offset = homes.find(view.buffer)
            if (
                buffers[operand].temporary
                and operand not in homes.kept
                and not offset
                and operand == view.buffer
                and last[operand] == number
                and operand != home
                and (view.shape, view.strides, view.dtype.itemsize) == (out.shape, out.strides, out.dtype.itemsize)
                and _whole(view, buffers)
                and all(v == view for v in call.reads if homes.find(v.buffer)[0] == operand)
            ):
                homes.join(home, operand, 0)
                last[operand] = last[home]
                break


def _lives(calls: Sequence[Any], homes: _Homes) -> tuple[dict[int, int], dict[int, int]]:
    """The first and the last call that touches each home."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, call in enumerate(calls):
        for view in (*call.reads, *call.writes):
            home = homes.find(view.buffer)[0]
            first.setdefault(home, number)
            last[home] = number
    for home, _ in map(homes.find, homes.kept):
        first.setdefault(home, len(calls))  # nobody may have written it: gpunet.empty()
        last[home] = len(calls)
    return first, last


def _placed(calls: Sequence[Any], homes: _Homes, alignment: int) -> tuple[dict[int, int], int]:
    """An offset for each home: the largest first, each at the lowest place free during its life."""
    first, last = _lives(calls, homes)
    offsets: dict[int, int] = {}
    taken: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), by offset
    size = 0
    temporaries = [h for h in first if homes.buffers[h].temporary]
    for home in sorted(temporaries, key=lambda h: (-homes.buffers[h].nbytes, first[h])):
        bytes = max(homes.buffers[home].nbytes, 1)
        offset = 0
        for start, end, begins, ends in taken:
            if ends < first[home] or begins > last[home]:
                continue
            if offset + bytes <= start:
                break
            offset = max(offset, -(-end // alignment) * alignment)
        offsets[home] = offset
        size = max(size, offset + bytes)
        taken.append((offset, offset + bytes, first[home], last[home]))
        taken.sort()
    return offsets, size


def memory(size: int, device: Device) -> Array:
    """An aligned arena of bytes."""
    if device.type == "cuda":
        return devices.empty((size,), numpy.uint8, device)
    room = devices.empty((size + _ALIGNMENT,), numpy.uint8, device)
    start = -devices.pointer(room) % _ALIGNMENT
    return room[start : start + size]


__all__ = ["memory", "planned"]
