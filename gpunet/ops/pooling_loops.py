"""The loop bodies of max pooling, for compiled steps.

Their first items are planes.  For larger windows, whose rows overlap or reach into a padding, the twin is faster than loops.
"""

from __future__ import annotations

from gpunet.launch.loops import advance, like, load, loop_body, select, store


@loop_body
def halving_loop(y, index, x, first, end, rows, columns, height, width):
    """y (planes, rows, columns) = the maxima of windows of 2 x 2 at stride 2, index = their places in a plane of height x width.

    The place is that of the first maximum, of NaN the last one.
    """
    for plane in range(first, end):
        for row in range(rows):
            out, place = (plane * rows + row) * columns, 2 * row * width
            source = advance(x, plane * height * width + place)
            _row_of_pairs(advance(y, out), advance(index, out), source, advance(source, width), place, width, columns)
    return 0


@loop_body
def _row_of_pairs(y, index, upper, lower, place, width, columns):
    for w in range(columns):
        best, where = load(upper, 2 * w, 2), like(index, place + 2 * w)
        value = load(upper, 2 * w + 1, 2)
        is_larger = (value > best) | (value != value)
        best, where = select(is_larger, value, best), select(is_larger, like(index, place + 2 * w + 1), where)
        value = load(lower, 2 * w, 2)
        is_larger = (value > best) | (value != value)
        best, where = select(is_larger, value, best), select(is_larger, like(index, place + width + 2 * w), where)
        value = load(lower, 2 * w + 1, 2)
        is_larger = (value > best) | (value != value)
        store(y, w, select(is_larger, value, best), 0)
        store(index, w, select(is_larger, like(index, place + width + 2 * w + 1), where), 1)


@loop_body
def spread_loop(dx, index, dy, first, end, windows, elements):
    """dx (planes, elements) = the sum of dy (planes, windows) over the windows whose maximum is the element."""
    for i in range(first * elements, end * elements):
        store(dx, i, like(dx, 0), 0)
    for plane in range(first, end):
        out = advance(dx, plane * elements)
        for i in range(plane * windows, (plane + 1) * windows):
            place = load(index, i, 1)
            store(out, place, load(out, place, 0) + load(dy, i, 2), 0)
    return 0
