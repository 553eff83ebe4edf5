"""From calls to units: which loop nests become one."""

from __future__ import annotations

from gpunet.runtime.lower.compiled.forms import units_of
from gpunet.runtime.lower.compiled.nests import Nest, Unit
from gpunet.runtime.lower.merge import overlap
from gpunet.runtime.lower.program import Call, View


def fused(calls: list[Call]) -> list[Unit]:
    """The units of a program, in order: each nest joined to the latest before it that takes it, past what it does not depend on."""
    result: list[Unit] = []
    for call in calls:
        for unit in units_of(call):
            if not (isinstance(unit, Nest) and _joined(unit, result)):
                result.append(unit)
    return result


def _joined(nest: Nest, before: list[Unit]) -> bool:
    for other in reversed(before):
        if isinstance(other, Nest) and other.join(nest):
            return True
        if other.barrier or depends(nest, other):
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
    last: dict[int, int] = {}
    for number, unit in enumerate(units):
        for view in unit.reads:
            last[view.buffer] = number
    for number, unit in enumerate(units):
        unit.stored(lambda v, n=number: not temporary[v.buffer] or v.buffer in kept or last.get(v.buffer, -1) > n)  # type: ignore[misc]
