"""Reduce the memory traffic of NumPy calls: merge calls on adjacent memory, run elementwise calls in cache-sized chunks.

Neither changes how an element is computed, so results keep their bits.
"""

from __future__ import annotations

import numpy

from gpunet.captured.ir import Call, View, overlap

#: Bytes of the arrays of a run that stay in the cache between its calls.
_CACHE_BYTES = 512 << 10


# ---- adjacent scalings ------------------------------------------------------------------------------------------------


def _scaling(call: Call) -> tuple[View, View] | None:
    """Return (x, s) of a call ``x *= s`` with s of one element, else None."""
    if call.function is not numpy.multiply or call.partial or len(call.reads) != 2 or set(call.options) != {"out"}:
        return None
    x, s = call.reads
    (out,) = call.writes
    if x != out or s.size != 1 or len(s.shape) > 1 or not x.contiguous or x.dtype != s.dtype or overlap(x, s):
        return None
    return x, s


def merge_adjacent_scalings(calls: list[Call]) -> list[Call]:
    """Merge ``a *= s; b *= s`` into one call, in place of the later one, where a and b are adjacent in memory."""
    result: list[Call | None] = []
    movable: dict[int, tuple[View, View]] = {}  # index in result -> (x, s) of a scaling that no later call depends on
    for call in calls:
        if call.kind == "opaque":
            movable.clear()  # the call may raise, and then the calls before it must have run
        scaling = _scaling(call)
        merged = True
        while scaling is not None and merged:  # the merged one may be adjacent to another one
            merged = False
            for index, (x, s) in movable.items():
                if s == scaling[1] and (both := _join(x, scaling[0])) is not None:
                    call = Call(call.kind, call.function, (both, s), {"out": both}, [both, s], [both], launch=call.launch)
                    scaling, merged, result[index] = (both, s), True, None
                    del movable[index]
                    break
        for index, (x, s) in [*movable.items()]:
            if any(overlap(v, x) for v in (*call.reads, *call.writes)) or any(overlap(v, s) for v in call.writes):
                del movable[index]
        if scaling is not None:
            movable[len(result)] = scaling
        result.append(call)
    return [call for call in result if call is not None]


def _join(a: View, b: View) -> View | None:
    """Return two contiguous views as one vector, or None if they are not adjacent."""
    first, second = (a, b) if a.offset < b.offset else (b, a)
    if a.buffer != b.buffer or a.dtype != b.dtype or first.offset + first.nbytes != second.offset:
        return None
    return first._replace(shape=(a.size + b.size,), strides=(a.dtype.itemsize,))


# ---- chunks -----------------------------------------------------------------------------------------------------------


def _num_rows(call: Call) -> int:
    """Return the number of rows (length of axis 0) that a call can be split along, or 0 if it cannot or need not be."""
    if call.kind not in ("elementwise", "copy") or call.partial:
        return 0
    (out,) = call.writes
    if len(out.shape) == 0 or out.shape[0] < 2 or not out.contiguous or out.nbytes <= _CACHE_BYTES // 2:
        return 0
    for view in call.reads:
        is_same = view.shape == out.shape and view.contiguous
        is_row = len(view.shape) < len(out.shape) or (len(view.shape) == len(out.shape) and view.shape[0] == 1)
        if not (is_same or is_row or view.size == 1) or (overlap(view, out) and not (is_same and view.offset == out.offset)):
            return 0
    return out.shape[0]


def _can_join_run(call: Call, run: list[Call]) -> bool:
    """Whether a call depends on those of a run row by row only, so that all can process one chunk of rows at a time."""
    shape = call.writes[0].shape
    for before in run:
        for view, earlier in (
            *((a, b) for a in call.writes for b in (*before.reads, *before.writes)),
            *((a, b) for a in call.reads for b in before.writes),
        ):
            by_row = view.shape == shape and earlier.shape == before.writes[0].shape  # else each chunk uses all of it
            if overlap(view, earlier) and not (by_row and view[1:4] == earlier[1:4]):
                return False
    return True


def _bytes_per_row(run: list[Call]) -> int:
    views = {v for call in run for v in (*call.reads, *call.writes) if v.shape == call.writes[0].shape}
    return sum(v.nbytes // v.shape[0] for v in views)


def split_into_chunks(calls: list[Call]) -> list[Call]:
    """Split runs of elementwise calls on arrays larger than the cache: each chunk of rows goes through the whole run."""
    result: list[Call] = []
    run: list[Call] = []

    def end_run() -> None:
        if len(run) > 1 and _bytes_per_row(run) * _num_rows(run[0]) > 2 * _CACHE_BYTES:
            num_rows = _num_rows(run[0])
            step = max(1, _CACHE_BYTES // max(1, _bytes_per_row(run)))
            for start in range(0, num_rows, step):
                result.extend(_slice_rows(call, start, min(start + step, num_rows)) for call in run)
        else:
            result.extend(run)
        run.clear()

    for call in calls:
        rows = _num_rows(call)
        if run and not (rows and rows == _num_rows(run[0]) and _can_join_run(call, run)):
            end_run()
        if rows:
            run.append(call)
        else:
            result.append(call)
    end_run()
    return result


def _slice_rows(call: Call, start: int, stop: int) -> Call:
    shape = call.writes[0].shape

    def rows(view: View) -> View:
        if view.shape != shape:
            return view
        return view._replace(offset=view.offset + start * view.strides[0], shape=(stop - start, *shape[1:]))

    return call.replaced(rows)
