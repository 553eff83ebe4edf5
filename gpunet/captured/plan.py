"""Plan the memory of a step: drop dead calls, and place its temporaries in one arena.

A temporary is live from the first call that writes it to the last call that uses it; temporaries with disjoint live ranges
may share memory.  Results and gradients of the step are live to the end.
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
GPU_ALIGNMENT = 256  #: bytes: the least alignment of CUDA allocations


def make_plan(
    buffers: list[Buffer],
    calls: list[Call],
    kept: list[View],
    group: Callable[[list[Call], set[int]], Sequence[Any]] | None = None,
    alignment: int = _ALIGNMENT,
) -> tuple[Sequence[Any], Callable[[Any], Any], int]:
    """Drop dead calls, let temporaries share memory, and assign each an offset in the arena.

    Args:
        buffers: of the step.
        calls: of the step, in order.
        kept: views of temporaries that are read after the step.
        group: fuses calls into units, which have ``reads`` and ``writes`` like calls; temporaries inside a unit need no
            memory.  It gets the calls and the set of buffers that are read after the step.
        alignment: of each temporary, in bytes.

    Returns:
        The calls, with the views of temporaries moved to buffer -1, the arena; with ``group``, the units, not yet moved.
        A function that moves a view to its place.
        The size of the arena in bytes.
    """
    calls = _drop_dead_calls(buffers, calls, {v.buffer for v in kept})
    homes = _Homes(buffers, {v.buffer for v in kept})
    calls = _eliminate_concatenations(calls, homes)

    def at_home(view: View) -> View:
        home, offset = homes.find(view.buffer)
        return view._replace(buffer=home, offset=offset + view.offset)

    units: Sequence[Any] = calls
    if group is None:
        _compute_in_place(calls, homes)
    else:
        units = group([c.replaced(at_home) for c in calls], homes.kept)
    offsets, size = _assign_offsets(units, homes, alignment)

    def place(view: Any) -> Any:
        if not buffers[view.buffer].temporary:
            return view
        home, offset = homes.find(view.buffer)
        return view._replace(buffer=-1, offset=offsets.get(home, 0) + offset + view.offset)

    if group is None:
        units = merge.split_into_chunks(merge.merge_adjacent_scalings([c.replaced(place) for c in calls]))
    return units, place, size


def _is_whole(view: View, buffers: list[Buffer]) -> bool:
    """Whether a view is contiguous and covers all of its buffer."""
    return view.contiguous and view.nbytes == buffers[view.buffer].nbytes


def _drop_dead_calls(buffers: list[Buffer], calls: list[Call], kept: set[int]) -> list[Call]:
    """Return the calls that write something read by a later call or after the step, or that other processes take part in."""
    needed = kept | {number for number, b in enumerate(buffers) if not b.temporary}
    result = []
    for call in reversed(calls):
        if not call.meets_others and not any(v.buffer in needed for v in call.writes):
            continue
        for view in call.writes:
            if not call.partial and buffers[view.buffer].temporary and _is_whole(view, buffers):
                needed.discard(view.buffer)
        needed.update(v.buffer for v in call.reads)
        result.append(call)
    return result[::-1]


class _Homes:
    """Temporaries placed inside others: each such buffer points to its home and its offset there, in bytes.

    Args:
        buffers: of the step.
        kept: indices of the buffers that are read after the step; the homes of these are added.
    """

    def __init__(self, buffers: list[Buffer], kept: set[int]) -> None:
        self.buffers, self.kept = buffers, kept
        self._of: dict[int, tuple[int, int]] = {}

    def find(self, number: int) -> tuple[int, int]:
        """Return the outermost home of a buffer, and its offset there in bytes."""
        offset = 0
        while number in self._of:
            number, more = self._of[number]
            offset += more
        return number, offset

    def join(self, number: int, home: int, offset: int) -> None:
        """Place a buffer inside another one."""
        self._of[number] = (home, offset)
        if number in self.kept:
            self.kept.add(home)


def _eliminate_concatenations(calls: list[Call], homes: _Homes) -> list[Call]:
    """Drop concatenations of vectors where the parts can be computed directly in the memory of the result."""
    buffers, result = homes.buffers, []
    first, _ = _live_ranges(calls, homes)
    last_write = {view.buffer: number for number, call in enumerate(calls) for view in call.writes}

    def joinable(number: int, out: View, parts: list[View]) -> bool:
        if not (buffers[out.buffer].temporary and _is_whole(out, buffers) and len(out.shape) == 1):
            return False
        if first[out.buffer] != number or last_write[out.buffer] != number or len({v.buffer for v in parts}) != len(parts):
            return False
        return all(
            buffers[v.buffer].temporary
            and _is_whole(v, buffers)
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
    """Let each elementwise call overwrite an operand that is dead after it."""
    buffers = homes.buffers
    first, last = _live_ranges(calls, homes)
    for number, call in enumerate(calls):
        if call.kind not in ("elementwise", "copy") or call.partial:
            continue
        (out,) = call.writes
        home, offset = homes.find(out.buffer)
        if not (buffers[out.buffer].temporary and _is_whole(out, buffers)) or offset or home != out.buffer or first[home] != number:
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
                and _is_whole(view, buffers)
                and all(v == view for v in call.reads if homes.find(v.buffer)[0] == operand)
            ):
                homes.join(home, operand, 0)
                last[operand] = last[home]
                break


def _live_ranges(calls: Sequence[Any], homes: _Homes) -> tuple[dict[int, int], dict[int, int]]:
    """Return the indices of the first and of the last call that uses each home."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, call in enumerate(calls):
        for view in (*call.reads, *call.writes):
            home = homes.find(view.buffer)[0]
            first.setdefault(home, number)
            last[home] = number
    for home, _ in map(homes.find, homes.kept):
        first.setdefault(home, len(calls))  # no call writes the result of gpunet.empty()
        last[home] = len(calls)
    return first, last


def _assign_offsets(calls: Sequence[Any], homes: _Homes, alignment: int) -> tuple[dict[int, int], int]:
    """Assign each home an offset in the arena: the largest first, each at the lowest offset free while it is live.

    Returns:
        The offset of each home, and the size of the arena, in bytes.
    """
    first, last = _live_ranges(calls, homes)
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted
    size = 0
    temporaries = [h for h in first if homes.buffers[h].temporary]
    for home in sorted(temporaries, key=lambda h: (-homes.buffers[h].nbytes, first[h])):
        nbytes = max(homes.buffers[home].nbytes, 1)
        offset = 0
        for start, end, first_use, last_use in placed:
            if last_use < first[home] or first_use > last[home]:
                continue
            if offset + nbytes <= start:
                break
            offset = max(offset, -(-end // alignment) * alignment)
        offsets[home] = offset
        size = max(size, offset + nbytes)
        placed.append((offset, offset + nbytes, first[home], last[home]))
        placed.sort()
    return offsets, size


def allocate_arena(size: int, device: Device) -> Array:
    """Allocate an aligned array of ``size`` bytes."""
    array = devices.empty((size + _ALIGNMENT,), numpy.uint8, device)
    start = -devices.pointer(array) % _ALIGNMENT
    return array[start : start + size]
