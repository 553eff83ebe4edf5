"""Turn calls into units: split calls on concatenated vectors into one call per tensor, then fuse loop nests.

An optimizer's twin updates many small tensors as one vector, which saves NumPy calls.  In a compiled step that saves
nothing; split into tensors, the update of each can be fused with the nest that computes its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpunet.captured.compiled.library_calls import units_of
from gpunet.captured.compiled.nests import Nest, Unit
from gpunet.captured.ir import Call, View, overlap

_MIN_SPLIT_SIZE = 256  # elements of a vector that is split
_MAX_PARTS = 256


def fuse(calls: list[Call]) -> list[Unit]:
    """Return the units of a step, in order, with loop nests fused.

    A nest moves up, past units that it does not depend on, into the latest earlier nest that accepts it.  If it depends
    on a unit in between, the earlier nest moves down instead, past units that do not depend on it.
    """
    result: list[Unit] = []
    for group in split_vectors(calls):
        units: list[Unit] = []
        for unit in (u for call in group for u in units_of(call)):
            if not (len(group) > 1 and isinstance(unit, Nest) and _fuse_upward(unit, units, True)):
                units.append(unit)
        for unit in units:
            if not (isinstance(unit, Nest) and (_fuse_upward(unit, result, False) or _fuse_downward(unit, result))):
                result.append(unit)
    return result


def _fuse_upward(nest: Nest, before: list[Unit], unrelated: bool) -> bool:
    """Fuse a nest into the nearest earlier nest that it depends on, else into the latest independent nest after that.

    Args:
        unrelated: also fuse nests without a common operand, which saves a loop but no memory access.
    """
    candidates: list[Nest] = []
    for other in reversed(before):
        is_dependent = _depends(nest, other)
        if is_dependent and isinstance(other, Nest) and other.fuse(nest):
            return True
        if is_dependent or other.barrier:
            break
        if isinstance(other, Nest) and (unrelated or other.shares_operand(nest)):
            candidates.append(other)
    return any(other.fuse(nest) for other in candidates)


def _fuse_downward(nest: Nest, before: list[Unit]) -> bool:
    """Move the latest nest of the same shape that ``nest`` depends on down to the end, and fuse the two there."""
    for position in range(len(before) - 1, -1, -1):
        other = before[position]
        if isinstance(other, Nest) and other.shape == nest.shape and _depends(nest, other):
            if any(_depends(unit, other) for unit in before[position + 1 :]) or not other.fuse(nest):
                return False
            before.append(before.pop(position))
            return True
        if other.barrier:
            return False
    return False


def _depends(later: Unit, earlier: Unit) -> bool:
    """Whether the order of two units matters."""
    pairs = (later.reads, earlier.writes), (later.writes, earlier.reads), (later.writes, earlier.writes)
    return any(overlap(a, b) for mine, theirs in pairs for a in mine for b in theirs)


def remove_dead_stores(units: list[Unit], temporary: list[bool], kept: set[int]) -> None:
    """Remove stores that no later unit reads; the nest keeps these values in registers.

    Args:
        temporary: for each buffer, whether it is invisible outside the step.
        kept: buffers that are read after the step.
    """
    readers: dict[int, list[tuple[int, View]]] = {}
    for number, unit in enumerate(units):
        for view in unit.reads:
            readers.setdefault(view.buffer, []).append((number, view))

    def is_needed(written: View, writer: int) -> bool:
        if not temporary[written.buffer] or written.buffer in kept:
            return True
        return any(number > writer and overlap(view, written) for number, view in readers.get(written.buffer, ()))

    for number, unit in enumerate(units):
        unit.remove_stores(lambda v, n=number: is_needed(v, n))  # type: ignore[misc]


# ---- vectors of several tensors -------------------------------------------------------------------------------------


def split_vectors(calls: list[Call]) -> Iterator[list[Call]]:
    """Split calls on vectors of several tensors: yield those on the first part, then those on the second, and so on.

    Other calls are yielded one by one.  The parts of a vector are the contiguous views that other calls take of its
    buffer; the split calls get the part's shape.
    """
    groups = _vector_groups(calls)
    parts: dict[int, dict[int, View]] = {}  # buffer -> offset in it -> the view of a part that begins there
    for call in calls:
        if not _is_splittable(call):
            for view in (*call.reads, *call.writes):
                if view.contiguous and view.size:
                    parts.setdefault(view.buffer, {}).setdefault(view.offset, view)
    run: list[Call] = []
    for call in calls:
        is_splittable = _is_splittable(call)
        if run and not (is_splittable and _can_split_together(call, run, groups)):
            yield from _split_run(run, _part_bounds(groups[run[0].writes[0]], parts))
            run = []
        if is_splittable:
            run.append(call)
        else:
            yield [call]
    if run:
        yield from _split_run(run, _part_bounds(groups[run[0].writes[0]], parts))


def _can_split_together(call: Call, run: list[Call], groups: dict[View, list[View]]) -> bool:
    """Whether a call can join a run: computing the whole run part by part gives the same results."""
    if groups[call.writes[0]] is not groups[run[0].writes[0]]:
        return False
    return not any(
        mine != theirs and overlap(mine, theirs)
        for before in run
        for a, b in ((call.writes, (*before.reads, *before.writes)), (call.reads, before.writes))
        for mine in a
        for theirs in b
    )


def _is_splittable(call: Call) -> bool:
    """Whether a call is elementwise on whole contiguous vectors and scalars."""
    if call.kind not in ("elementwise", "copy") or call.partial or len(call.writes) != 1:
        return False
    (out,) = call.writes
    if len(out.shape) != 1 or out.size < _MIN_SPLIT_SIZE or not out.contiguous:
        return False
    return all((v.size == 1 or (v.shape == out.shape and v.contiguous)) and (v == out or not overlap(v, out)) for v in call.reads)


def _vector_groups(calls: list[Call]) -> dict[View, list[View]]:
    """Map each vector to its group: vectors that splittable calls combine, transitively.

    A group is split at the same bounds.
    """
    groups: dict[View, list[View]] = {}
    for call in filter(_is_splittable, calls):
        combined = [v for v in (*call.writes, *call.reads) if v.shape == call.writes[0].shape]
        merged: list[View] = []
        for view in combined:
            for member in groups.get(view, [view]):
                if member not in merged:
                    merged.append(member)
        for member in merged:
            groups[member] = merged
    return groups


def _part_bounds(group: list[View], parts: dict[int, dict[int, View]]) -> list[tuple[int, tuple[int, ...]]]:
    """Return (start in elements, shape, or () if unknown) of each part; one part if there would be more than _MAX_PARTS."""
    size = group[0].size
    shapes: dict[int, tuple[int, ...]] = {0: (size,)}
    for vector in group:
        itemsize = vector.dtype.itemsize
        for offset, view in parts.get(vector.buffer, {}).items():
            start, rest = divmod(offset - vector.offset, itemsize)
            if rest or view.dtype != vector.dtype or start < 0 or start + view.size > size:
                continue
            for edge, shape in ((start, view.shape), (start + view.size, ())):
                if edge < size and len(shapes.get(edge, ())) <= len(shape):
                    shapes[edge] = shape
    return sorted(shapes.items()) if len(shapes) <= _MAX_PARTS else [(0, (size,))]


def _split_run(run: list[Call], parts: list[tuple[int, tuple[int, ...]]]) -> Iterator[list[Call]]:
    """Yield all calls of a run for the first part, then for the second, and so on."""
    vector = run[0].writes[0]
    for (start, shape), (stop, _) in zip(parts, [*parts[1:], (vector.size, ())]):
        count = stop - start

        def part(view: View, start: int = start, count: int = count, shape: tuple[int, ...] = shape) -> View:
            if view.shape != vector.shape:
                return view
            piece = View(view.buffer, view.offset + start * view.strides[0], (count,), view.strides, view.dtype)
            return piece.reshape(shape) if shape and math.prod(shape) == count else piece

        yield [call.replaced(part) for call in run]
