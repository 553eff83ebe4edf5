"""Fusion by launches: a launch absorbs the one that works on its result, as its kernel declares.

``F.relu(self.fc(x))`` records a linear launch and an activation; the linear kernel computes the activation in its epilogue
(see :meth:`gpunet.launch.kernel.Kernel.absorbs`), so that one launch replaces both, with the same bits.

This is for steps that replay launches.  On the CPU, the two twins make no more NumPy calls than the fused one.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from gpunet.captured.ir import Call, View, overlap, tree_leaves
from gpunet.launch.kernel import Kernel


def fuse_launches(calls: Sequence[Call], own: Container[int]) -> list[Call]:
    """Return the launches of a step without those that others absorb.

    Args:
        calls: the launches in order.
        own: buffers that nothing outside of the step reads.
    """
    remaining = dict(enumerate(calls))
    for number in range(len(calls)):
        while number in remaining and (found := _absorb(remaining, number, own)) is not None:
            absorbed, remaining[number] = found
            del remaining[absorbed]
    return [*remaining.values()]


def _absorb(remaining: dict[int, Call], number: int, own: Container[int]) -> tuple[int, Call] | None:
    """Find a launch that number ``number`` absorbs: its number, and the launch that replaces both; None if there is none."""
    call = remaining[number]
    kernel: Any = call.function
    if not isinstance(kernel, Kernel) or not kernel.absorbed:
        return None
    result: View = call.arguments[0]
    later = [n for n in remaining if n > number]
    users = [n for n in later if any(view.buffer == result.buffer for view in remaining[n].reads)]
    if not users:
        return None
    follower: Any = remaining[users[0]]
    absorb = kernel.absorbed.get(follower.function)
    if absorb is None or not _reads_only(follower, result):
        return None
    # the work of the follower moves ahead of the launches between
    between = [remaining[n] for n in later[: later.index(users[0])]]
    if any_overlap(follower.writes, call.reads) or any(
        any_overlap(follower.writes, c.reads) or any_overlap(c.writes, follower.reads) for c in between
    ):
        return None
    is_needed = len(users) > 1 or result.buffer not in own
    arrays = absorb(call.arguments, call.options, follower.arguments, is_needed)
    if arrays is None:
        return None
    views, outputs = list(tree_leaves(arrays)), list(tree_leaves(arrays[: kernel.outputs]))
    merged = (*call.merged, follower.launch, *follower.merged)
    return users[0], Call(
        "opaque", kernel, arrays, {**call.options, **follower.options}, views, outputs, True, call.launch, merged=merged
    )


def _reads_only(call: Call, view: View) -> bool:
    """Whether a launch reads the elements of ``view`` in their order, and nothing else of its buffer."""
    kernel: Any = call.function
    inputs = [v for v in tree_leaves(call.arguments[kernel.outputs :]) if v.buffer == view.buffer]
    return len(inputs) == 1 and inputs[0].is_all_of(view)


def any_overlap(views: Sequence[View], others: Sequence[View]) -> bool:
    """Whether a view may share memory with one of the others."""
    return any(overlap(view, other) for view in views for other in others)
