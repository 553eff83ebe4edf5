"""From calls to units: which loop nests become one."""

from __future__ import annotations

from gpunet.captured.compiled.fusion import cut_at_seams
from gpunet.captured.compiled.library_calls import units_of
from gpunet.captured.compiled.nests import Nest, Unit
from gpunet.captured.ir import Call, View
from gpunet.captured.merge import overlap

_SMALL = 1024  # elements: fewer are in the first cache anyway


def fused(calls: list[Call]) -> list[Unit]:
    """The units of a program, in order: each nest joined to the latest before it that takes it, past what it does not depend on.

    Where it does depend on what lies between, the one before moves down to it, past what does not depend on that.
    """
    result: list[Unit] = []
    for together in cut_at_seams(calls):
        units: list[Unit] = []
        for unit in (u for call in together for u in units_of(call)):
            if not (len(together) > 1 and isinstance(unit, Nest) and _joined(unit, units, True)):
                units.append(unit)
        for unit in units:
            if not (isinstance(unit, Nest) and (_joined(unit, result, unit.size <= _SMALL) or _met(unit, result))):
                result.append(unit)
    return result


def _joined(nest: Nest, before: list[Unit], strangers: bool) -> bool:
    """Join a nest to one that it depends on, else to the latest of those behind that.

    Args:
        strangers: also to one that has no operand in common with it, which spares a loop, but nothing in memory.
    """
    free: list[Nest] = []
    for other in reversed(before):
        needed = depends(nest, other)
        if needed and isinstance(other, Nest) and other.join(nest):
            return True
        if needed or other.barrier:
            break
        if isinstance(other, Nest) and (strangers or other.shares(nest)):
            free.append(other)
    return any(other.join(nest) for other in free)


def _met(nest: Nest, before: list[Unit]) -> bool:
    """Join a nest to one before it that reads or writes what it does, at the later place."""
    for position in range(len(before) - 1, -1, -1):
        other = before[position]
        if isinstance(other, Nest) and other.shape == nest.shape and depends(nest, other):
            if any(depends(unit, other) for unit in before[position + 1 :]) or not other.join(nest):
                return False
            before.append(before.pop(position))
            return True
        if other.barrier:
            return False
    return False


def depends(later: Unit, earlier: Unit) -> bool:
    """Whether the order of the two matters."""
    return (
        _meet(later.reads, earlier.writes) or _meet(later.writes, earlier.reads) or _meet(later.writes, earlier.writes)
    )


def _meet(some: list[View], others: list[View]) -> bool:
    return any(overlap(a, b) for a in some for b in others)


def without_dead_stores(units: list[Unit], temporary: list[bool], kept: set[int]) -> None:
    """Let values that only their own nest reads stay in registers.

    Args:
        temporary: for each buffer whether nobody outside sees it.
        kept: buffers that are read after the step.
    """
    readers: dict[int, list[tuple[int, View]]] = {}
    for number, unit in enumerate(units):
        for view in unit.reads:
            readers.setdefault(view.buffer, []).append((number, view))

    def needed(written: View, writer: int) -> bool:
        if not temporary[written.buffer] or written.buffer in kept:
            return True
        return any(number > writer and overlap(view, written) for number, view in readers.get(written.buffer, ()))

    for number, unit in enumerate(units):
        unit.stored(lambda v, n=number: needed(v, n))  # type: ignore[misc]
