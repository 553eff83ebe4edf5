"""Fewer and shorter passes over memory: calls on neighbouring memory made one, long elementwise runs cut into chunks.

Both leave every element's computation as it is, and so its bits.
"""

from __future__ import annotations

import numpy

from gpunet.captured.ir import Call, View

#: Bytes of all arrays of a run that stay in the cache between its calls.
_CACHE = 512 << 10


def span(view: View) -> tuple[int, int, int]:
    """Buffer, and the bytes from which to which a view lies in it."""
    low = high = view.offset
    for extent, stride in zip(view.shape, view.strides):
        low, high = low + min(0, (extent - 1) * stride), high + max(0, (extent - 1) * stride)
    return view.buffer, low, high + view.dtype.itemsize


def overlap(a: View, b: View) -> bool:
    """Whether two views may share memory."""
    (buffer, low, high), (other, other_low, other_high) = span(a), span(b)
    return buffer == other and low < other_high and other_low < high and a.size > 0 and b.size > 0


# ---- neighbours -------------------------------------------------------------------------------------------------------


def _scaling(call: Call) -> tuple[View, View] | None:
    """(x, s) of a call ``x *= s`` with a scalar of one element."""
    if call.function is not numpy.multiply or call.partial or len(call.reads) != 2 or set(call.options) != {"out"}:
        return None
    x, s = call.reads
    (out,) = call.writes
    if x != out or s.size != 1 or len(s.shape) > 1 or not x.contiguous or x.dtype != s.dtype or overlap(x, s):
        return None
    return x, s


def join_neighbours(calls: list[Call]) -> list[Call]:
    """Let ``a *= s; b *= s`` of arrays that lie side by side be one call, at the place of the later one."""
    result: list[Call | None] = []
    movable: dict[int, tuple[View, View]] = {}  # place of a scaling that nothing behind it depends on: (x, s)
    for call in calls:
        if call.kind == "opaque":
            movable.clear()  # it may raise, and what comes before it has run then
        mine = _scaling(call)
        joined = True
        while mine is not None and joined:  # what was joined may touch the next one
            joined = False
            for place, (x, s) in movable.items():
                if s == mine[1] and _adjacent(x, mine[0]):
                    call = _scaled_together(call, x, mine[0], s)
                    mine, joined, result[place] = (call.writes[0], s), True, None
                    del movable[place]
                    break
        for place, (x, s) in [*movable.items()]:
            if any(overlap(v, x) for v in (*call.reads, *call.writes)) or any(overlap(v, s) for v in call.writes):
                del movable[place]
        if mine is not None:
            movable[len(result)] = mine
        result.append(call)
    return [call for call in result if call is not None]


def _adjacent(a: View, b: View) -> bool:
    if a.buffer != b.buffer or a.dtype != b.dtype:
        return False
    return a.offset + a.nbytes == b.offset or b.offset + b.nbytes == a.offset


def _scaled_together(call: Call, a: View, b: View, s: View) -> Call:
    size = a.size + b.size
    both = View(a.buffer, min(a.offset, b.offset), (size,), (a.dtype.itemsize,), a.dtype)
    return Call(call.kind, call.function, (both, s), {"out": both}, [both, s], [both], launch=call.launch)


# ---- chunks -----------------------------------------------------------------------------------------------------------


def _rows(call: Call) -> int:
    """Rows that a call can be cut along; 0 where it cannot be."""
    if call.kind not in ("elementwise", "copy") or call.partial:
        return 0
    (out,) = call.writes
    if len(out.shape) == 0 or out.shape[0] < 2 or not out.contiguous or out.nbytes <= _CACHE // 2:
        return 0  # small enough as it is
    for view in call.reads:
        same = view.shape == out.shape and view.contiguous
        row = len(view.shape) < len(out.shape) or (len(view.shape) == len(out.shape) and view.shape[0] == 1)
        if not (same or row or view.size == 1) or (overlap(view, out) and not (same and view.offset == out.offset)):
            return 0
    return out.shape[0]


def _fits(call: Call, run: list[Call]) -> bool:
    """Whether cutting a call together with those before it computes the same: what they share, they share row by row."""
    shape = call.writes[0].shape
    for before in run:
        for mine, theirs in (
            *((a, b) for a in call.writes for b in (*before.reads, *before.writes)),
            *((a, b) for a in call.reads for b in before.writes),
        ):
            by_row = mine.shape == shape and theirs.shape == before.writes[0].shape  # else it is whole for each row
            if overlap(mine, theirs) and not (by_row and mine[1:4] == theirs[1:4]):
                return False
    return True


def _row_bytes(run: list[Call]) -> int:
    views = {v for call in run for v in (*call.reads, *call.writes) if v.shape == call.writes[0].shape}
    return sum(v.nbytes // v.shape[0] for v in views)


def in_chunks(calls: list[Call]) -> list[Call]:
    """Cut runs of elementwise calls that are larger than the cache into chunks of rows, each taken through the whole run."""
    result: list[Call] = []
    run: list[Call] = []

    def end() -> None:
        if len(run) > 1 and _row_bytes(run) * _rows(run[0]) > 2 * _CACHE:
            count = _rows(run[0])
            step = max(1, _CACHE // max(1, _row_bytes(run)))
            for start in range(0, count, step):
                result.extend(_cut(call, start, min(start + step, count)) for call in run)
        else:
            result.extend(run)
        run.clear()

    for call in calls:
        rows = _rows(call)
        if run and not (rows and rows == _rows(run[0]) and _fits(call, run)):
            end()
        if rows:
            run.append(call)
        else:
            result.append(call)
    end()
    return result


def _cut(call: Call, start: int, stop: int) -> Call:
    shape = call.writes[0].shape

    def rows(view: View) -> View:
        if view.shape != shape:
            return view
        return view._replace(offset=view.offset + start * view.strides[0], shape=(stop - start, *shape[1:]))

    return call.replaced(rows)
