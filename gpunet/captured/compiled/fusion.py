"""Elementwise calls on a vector that others use in parts, cut where those parts begin: each part can then join its own nest.

An optimizer's twin takes many small tensors as one vector, which spares NumPy calls.  A compiled step has none to spare,
and does better to take each gradient from its product to its parameter in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpunet.captured.ir import Call, View
from gpunet.captured.merge import overlap

_SHORTEST = 256  # elements that are worth a cut
_MOST_PARTS = 256


def cut_at_seams(calls: list[Call]) -> Iterator[list[Call]]:
    """The same calls one by one, but those on vectors of parts: for each part all of a run together, in the part's shape."""
    groups = _groups(calls)
    parts: dict[int, dict[int, View]] = {}  # buffer -> offset in it -> the view of a part that begins there
    for call in calls:
        if not _cuttable(call):
            for view in (*call.reads, *call.writes):
                if view.contiguous and view.size:
                    parts.setdefault(view.buffer, {}).setdefault(view.offset, view)
    run: list[Call] = []
    for call in calls:
        cuttable = _cuttable(call)
        if run and not (cuttable and _belongs(call, run, groups)):
            yield from _cut(run, _lengths(groups[run[0].writes[0]], parts))
            run = []
        if cuttable:
            run.append(call)
        else:
            yield [call]
    if run:
        yield from _cut(run, _lengths(groups[run[0].writes[0]], parts))


def _belongs(call: Call, run: list[Call], groups: dict[View, list[View]]) -> bool:
    """Whether parts of a call can be done together with those of the calls before it, part after part."""
    if groups[call.writes[0]] is not groups[run[0].writes[0]]:
        return False
    return not any(
        mine != theirs and overlap(mine, theirs)
        for before in run
        for some, others in ((call.writes, (*before.reads, *before.writes)), (call.reads, before.writes))
        for mine in some
        for theirs in others
    )


def _cuttable(call: Call) -> bool:
    """Whether a call is elementwise on whole vectors, and numbers."""
    if call.kind not in ("elementwise", "copy") or call.partial or len(call.writes) != 1:
        return False
    (out,) = call.writes
    if len(out.shape) != 1 or out.size < _SHORTEST or not out.contiguous:
        return False
    return all((v.size == 1 or (v.shape == out.shape and v.contiguous)) and (v == out or not overlap(v, out)) for v in call.reads)


def _groups(calls: list[Call]) -> dict[View, list[View]]:
    """For each vector of such a call, all vectors that are walked with it, directly or by another one."""
    groups: dict[View, list[View]] = {}
    for call in filter(_cuttable, calls):
        together = [v for v in (*call.writes, *call.reads) if v.shape == call.writes[0].shape]
        merged: list[View] = []
        for view in together:
            for member in groups.get(view, [view]):
                if member not in merged:
                    merged.append(member)
        for member in merged:
            groups[member] = merged
    return groups


def _lengths(group: list[View], parts: dict[int, dict[int, View]]) -> list[tuple[int, tuple[int, ...]]]:
    """Where the parts of a group's vectors begin, in elements, each with a shape; one part where they don't fit together."""
    size = group[0].size
    shapes: dict[int, tuple[int, ...]] = {0: (size,)}
    for vector in group:
        item = vector.dtype.itemsize
        for offset, view in parts.get(vector.buffer, {}).items():
            start, rest = divmod(offset - vector.offset, item)
            if rest or view.dtype != vector.dtype or start < 0 or start + view.size > size:
                continue
            for edge, shape in ((start, view.shape), (start + view.size, ())):
                if edge < size and len(shapes.get(edge, ())) <= len(shape):
                    shapes[edge] = shape
    return sorted(shapes.items()) if len(shapes) <= _MOST_PARTS else [(0, (size,))]


def _cut(run: list[Call], parts: list[tuple[int, tuple[int, ...]]]) -> Iterator[list[Call]]:
    """All calls of a run for the first part, then for the second ..."""
    vector = run[0].writes[0]
    for (start, shape), (stop, _) in zip(parts, [*parts[1:], (vector.size, ())]):
        count = stop - start

        def part(view: View, start: int = start, count: int = count, shape: tuple[int, ...] = shape) -> View:
            if view.shape != vector.shape:
                return view
            whole = View(view.buffer, view.offset + start * view.strides[0], (count,), view.strides, view.dtype)
            return reshaped(whole, shape) if math.prod(shape) == count else whole

        yield [call.replaced(part) for call in run]


def reshaped(view: View, shape: tuple[int, ...]) -> View:
    """A contiguous view in another shape of its size."""
    strides: list[int] = []
    step = view.dtype.itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return view._replace(shape=shape, strides=tuple(reversed(strides)))
