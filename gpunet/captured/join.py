"""Joining of launches: independent ones become one, and one waits for a later one to do its work, as their kernels declare.

The weight gradients of all layers are one launch, which also does the optimizer's step (see
:meth:`gpunet.launch.kernel.Kernel.joins` and :meth:`~gpunet.launch.kernel.Kernel.waits_for`).  This is for steps that replay
launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.captured.fuse import any_overlap
from gpunet.captured.ir import Call, View, tree_leaves, tree_map
from gpunet.launch.kernel import Arguments, Kernel, Workspace

#: Bytes of the operands of launches that are joined: memory that would be free earlier without it.
MOST_BYTES = 1 << 26


def join_launches(calls: Sequence[Call], allocate: Callable[[Workspace], View]) -> list[Call]:
    """Return the launches of a step with fewer of them.

    Args:
        calls: the launches in order.
        allocate: returns a view of a new buffer.
    """
    remaining = dict(enumerate(calls))
    for number in reversed(range(len(calls))):
        call = remaining.get(number)
        if call is None or not isinstance(call.function, Kernel):
            continue
        members = [number]
        if call.function.join is not None:
            members, found = _members(remaining, number, call.function)
            if found is None:
                continue
            call = _with_memory(*found, [remaining[n] for n in members], allocate)
        others = {n: c for n, c in remaining.items() if n not in members}
        place, call = _wait(others, number, call)
        if len(members) > 1 or place != number:
            remaining = dict(sorted({**others, place: call}.items()))
    return [*remaining.values()]


def _members(remaining: dict[int, Call], last: int, kernel: Kernel) -> tuple[list[int], tuple[Kernel, Arguments] | None]:
    """Find launches of a kernel that can be one launch at the place of the last of them: their numbers, and that launch."""
    assert kernel.join is not None
    members, found = [last], kernel.join([_arguments(remaining[last])])
    num_bytes = _num_bytes(remaining[last])
    for number in sorted((n for n in remaining if n < last and remaining[n].function is kernel), reverse=True):
        call = remaining[number]
        joined = kernel.join([_arguments(remaining[n]) for n in (number, *members)])  # first, since it takes the least time
        if joined is None or num_bytes + _num_bytes(call) > MOST_BYTES:
            continue
        between = [c for n, c in remaining.items() if number < n < last and n not in members]
        if _can_pass(call, between) and not any(_depend(_used(call), _used(remaining[n])) for n in members):
            members, found, num_bytes = [number, *members], joined, num_bytes + _num_bytes(call)
    return members, found


def _wait(others: dict[int, Call], number: int, call: Call) -> tuple[int, Call]:
    """Let a launch wait for a later one whose work it can do: the place of the launch that replaces both, and that launch."""
    kernel: Any = call.function
    used = _used(call)
    later = [n for n in others if n > number]
    place = next((n for n in later if any_overlap(used[1], others[n].reads)), None)
    follower: Any = None if place is None else others[place]
    if place is None or follower.function not in kernel.awaited or _num_bytes(call) > MOST_BYTES:
        return number, call
    if not _can_pass(call, [others[n] for n in later if n < place]) or any_overlap(_used(follower)[1], used[0]):
        return number, call
    found = kernel.awaited[follower.function](_arguments(call), _arguments(follower))
    if found is None:
        return number, call
    new_kernel, arguments = found
    return place, _call(new_kernel, arguments, follower.launch, (*call.merged, call.launch, *follower.merged))


def _arguments(call: Call) -> Arguments:
    return Arguments(call.arguments, call.options)


def _num_bytes(call: Call) -> int:
    return sum(view.nbytes for view in _used(call)[0])


def _used(call: Call) -> tuple[list[View], list[View]]:
    """The views that a launch reads and those that it writes, without workspace and tickets, which do not order launches."""
    kernel: Any = call.function
    places = [place for place, name in enumerate(kernel.parameters) if name not in kernel.workspace | kernel.tickets]
    read, written = ([p for p in places if (p < kernel.outputs) is of_outputs] for of_outputs in (False, True))
    return [*tree_leaves([call.arguments[p] for p in read])], [*tree_leaves([call.arguments[p] for p in written])]


def _can_pass(call: Call, between: Sequence[Call]) -> bool:
    """Whether a launch can be made after others that followed it."""
    return not any(_depend(_used(call), (other.reads, other.writes)) for other in between)


def _depend(uses: tuple[list[View], list[View]], others: tuple[list[View], list[View]]) -> bool:
    """Whether a launch writes what another one reads or writes, or reads what that writes; each by its (reads, writes)."""
    return any_overlap(uses[1], [*others[0], *others[1]]) or any_overlap(uses[0], others[1])


def _with_memory(kernel: Kernel, arguments: Arguments, members: Sequence[Call], allocate: Callable[[Workspace], View]) -> Call:
    arrays = tree_map(arguments.arrays, allocate, Workspace)
    *merged, last = (number for call in members for number in (*call.merged, call.launch))
    return _call(kernel, arguments._replace(arrays=arrays), last, tuple(merged))


def _call(kernel: Kernel, arguments: Arguments, launch: int, merged: tuple[int, ...]) -> Call:
    views, written = list(tree_leaves(arguments.arrays)), list(tree_leaves(arguments.arrays[: kernel.outputs]))
    return Call("opaque", kernel, arguments.arrays, arguments.options, views, written, True, launch, merged=merged)
