"""The loop bodies of recurrent layers, for compiled steps: all steps of a direction, in the order of forward or of backward.

The bodies take the arrays of ``recurrence_forward`` or ``recurrence_backward``, then scratch memory for the product of a step.
Another array stands in for one that a launch does not have, and a flag says so.
"""

from __future__ import annotations

from gpunet.launch.loops import advance, exp, like, load, loop_body, product, select, store, tanh

# ---- shared -----------------------------------------------------------------------------------------------------------


@loop_body
def _start(state, initial, is_given, count):
    """state = initial, or 0."""
    for i in range(count):
        store(state, i, load(initial, i, 1) if is_given else like(state, 0), 0)


@loop_body
def _logistic(pointer, x):
    return like(pointer, 1) / (like(pointer, 1) + exp(-x))


@loop_body
def _before(out, states, initial, starts, step, number, is_given, is_reverse, row, width):
    """out = the state of sequence ``row`` before a step, the number-th of forward; 0 if it is not given."""
    earlier = step + 1 if is_reverse else step - 1
    first = load(starts, earlier, 3) if number else 0
    is_first = number == 0 or row >= load(starts, earlier + 1, 3) - first
    if is_first:
        for u in range(width):
            store(out, u, load(initial, row * width + u, 1) if is_given else like(out, 0), 0)
    else:
        for u in range(width):
            store(out, u, load(states, (first + row) * width + u, 2), 0)


# ---- LSTM -------------------------------------------------------------------------------------------------------------


@loop_body
def lstm_forward(
    y, h, c, gates, cells, w, b, h0, c0, starts, z, steps, n, width, is_reverse, has_b, has_h0, has_c0
):  # fmt: skip
    _start(h, h0, has_h0, n * width)
    _start(c, c0, has_c0, n * width)
    for number in range(steps):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        product(z, h, w, rows, 4 * width, width, 4 * width, width, 1, 4 * width)
        for row in range(rows):
            state, at = row * width, (first + row) * width
            _lstm_units(
                advance(y, at), advance(h, state), advance(c, state), advance(cells, at), advance(gates, 4 * at),
                advance(gates, 4 * at + width), advance(gates, 4 * at + 2 * width), advance(gates, 4 * at + 3 * width),
                advance(z, 4 * state), advance(z, 4 * state + width), advance(z, 4 * state + 2 * width),
                advance(z, 4 * state + 3 * width), width,
            )  # fmt: skip
    return 0


@loop_body
def _lstm_units(y, h, c, cells, i_gates, f_gates, g_gates, o_gates, i_z, f_z, g_z, o_z, width):
    for u in range(width):
        i = _logistic(y, load(i_gates, u, 4) + load(i_z, u, 8))
        f = _logistic(y, load(f_gates, u, 5) + load(f_z, u, 8))
        g = tanh(load(g_gates, u, 6) + load(g_z, u, 8))
        o = _logistic(y, load(o_gates, u, 7) + load(o_z, u, 8))
        new_c = f * load(c, u, 2) + i * g
        new_h = o * tanh(new_c)
        store(i_gates, u, i, 4)
        store(f_gates, u, f, 5)
        store(g_gates, u, g, 6)
        store(o_gates, u, o, 7)
        store(c, u, new_c, 2)
        store(cells, u, new_c, 3)
        store(h, u, new_h, 1)
        store(y, u, new_h, 0)


@loop_body
def lstm_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, cells, y, w, h0, c0, starts, z, steps, n, width, is_reverse, has_dy,
    has_dhn, has_dcn, has_h0, has_c0,
):  # fmt: skip
    _start(dh, dhn, has_dhn, n * width)
    _start(dc, dcn, has_dcn, n * width)
    for number in range(steps - 1, -1, -1):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        for row in range(rows):
            state, at = row * width, (first + row) * width
            _before(advance(previous, at), y, h0, starts, step, number, has_h0, is_reverse, row, width)
            _before(z, cells, c0, starts, step, number, has_c0, is_reverse, row, width)
            _lstm_backward_units(
                advance(dgates, 4 * at), advance(dgates, 4 * at + width), advance(dgates, 4 * at + 2 * width),
                advance(dgates, 4 * at + 3 * width), advance(dh, state), advance(dc, state), advance(dy, at if has_dy else 0),
                advance(gates, 4 * at), advance(cells, at), z, has_dy, width,
            )  # fmt: skip
        product(dh, advance(dgates, 4 * first * width), w, rows, width, 4 * width, width, 4 * width, 1, width)
    return 0


@loop_body
def _lstm_backward_units(di, df, dg, do, dh, dc, dy, gates, cells, c_before, has_dy, width):
    one = like(dh, 1)
    for u in range(width):
        i, f = load(gates, u, 7), load(gates, width + u, 7)
        g, o = load(gates, 2 * width + u, 7), load(gates, 3 * width + u, 7)
        t = tanh(load(cells, u, 8))
        of_h = load(dh, u, 4) + (load(dy, u, 6) if has_dy else like(dh, 0))
        of_c = load(dc, u, 5) + of_h * o * (one - t * t)
        store(di, u, of_c * g * i * (one - i), 0)
        store(df, u, of_c * load(c_before, u, 10) * f * (one - f), 1)
        store(dg, u, of_c * i * (one - g * g), 2)
        store(do, u, of_h * t * o * (one - o), 3)
        store(dc, u, of_c * f, 5)


# ---- GRU --------------------------------------------------------------------------------------------------------------


@loop_body
def gru_forward(
    y, h, c, gates, inner, w, b, h0, c0, starts, z, steps, n, width, is_reverse, has_b, has_h0, has_c0
):  # fmt: skip
    _start(h, h0, has_h0, n * width)
    for number in range(steps):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        product(z, h, w, rows, 3 * width, width, 3 * width, width, 1, 3 * width)
        if has_b:
            _add_bias(z, b, rows, 3 * width)
        for row in range(rows):
            state, at = row * width, (first + row) * width
            _gru_units(
                advance(y, at), advance(h, state), advance(inner, at), advance(gates, 3 * at), advance(gates, 3 * at + width),
                advance(gates, 3 * at + 2 * width), advance(z, 3 * state), advance(z, 3 * state + width),
                advance(z, 3 * state + 2 * width), width,
            )  # fmt: skip
    return 0


@loop_body
def _add_bias(z, b, rows, columns):
    for row in range(rows):
        for column in range(columns):
            store(z, row * columns + column, load(z, row * columns + column, 0) + load(b, column, 1), 0)


@loop_body
def _gru_units(y, h, inner, r_gates, z_gates, n_gates, r_z, z_z, n_z, width):
    for u in range(width):
        hidden = load(n_z, u, 6)
        r = _logistic(y, load(r_gates, u, 3) + load(r_z, u, 6))
        z = _logistic(y, load(z_gates, u, 4) + load(z_z, u, 6))
        n = tanh(load(n_gates, u, 5) + r * hidden)
        new_h = n + z * (load(h, u, 1) - n)
        store(r_gates, u, r, 3)
        store(z_gates, u, z, 4)
        store(n_gates, u, n, 5)
        store(inner, u, hidden, 2)
        store(h, u, new_h, 1)
        store(y, u, new_h, 0)


@loop_body
def gru_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, z, steps, n, width, is_reverse, has_dy,
    has_dhn, has_dcn, has_h0, has_c0,
):  # fmt: skip
    _start(dh, dhn, has_dhn, n * width)
    for number in range(steps - 1, -1, -1):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        for row in range(rows):
            state, at = row * width, (first + row) * width
            _before(advance(previous, at), y, h0, starts, step, number, has_h0, is_reverse, row, width)
            _gru_backward_units(
                advance(dgates, 3 * at), advance(dgates, 3 * at + width), advance(dgates, 3 * at + 2 * width),
                advance(dhidden, 3 * at), advance(dhidden, 3 * at + width), advance(dhidden, 3 * at + 2 * width),
                advance(dh, state), advance(dy, at if has_dy else 0), advance(gates, 3 * at), advance(inner, at),
                advance(previous, at), has_dy, width,
            )  # fmt: skip
        product(z, advance(dhidden, 3 * first * width), w, rows, width, 3 * width, width, 3 * width, 1, width)
        for at in range(rows * width):
            store(dh, at, load(dh, at, 0) + load(z, at, 1), 0)
    return 0


@loop_body
def _gru_backward_units(dr, dz, dn, hidden_r, hidden_z, hidden_n, dh, dy, gates, inner, before, has_dy, width):
    one = like(dh, 1)
    for u in range(width):
        r, z, n = load(gates, u, 8), load(gates, width + u, 8), load(gates, 2 * width + u, 8)
        of_h = load(dh, u, 6) + (load(dy, u, 7) if has_dy else like(dh, 0))
        of_n = of_h * (one - z) * (one - n * n)
        of_z = of_h * (load(before, u, 10) - n) * z * (one - z)
        of_r = of_n * load(inner, u, 9) * r * (one - r)
        store(dr, u, of_r, 0)
        store(dz, u, of_z, 1)
        store(dn, u, of_n, 2)
        store(hidden_r, u, of_r, 3)
        store(hidden_z, u, of_z, 4)
        store(hidden_n, u, of_n * r, 5)
        store(dh, u, of_h * z, 6)


# ---- RNN --------------------------------------------------------------------------------------------------------------


@loop_body
def tanh_forward(
    y, h, c, gates, inner, w, b, h0, c0, starts, z, steps, n, width, is_reverse, has_b, has_h0, has_c0
):  # fmt: skip
    _rnn_forward(y, h, gates, w, h0, starts, z, steps, n, width, is_reverse, has_h0, 1)
    return 0


@loop_body
def relu_forward(
    y, h, c, gates, inner, w, b, h0, c0, starts, z, steps, n, width, is_reverse, has_b, has_h0, has_c0
):  # fmt: skip
    _rnn_forward(y, h, gates, w, h0, starts, z, steps, n, width, is_reverse, has_h0, 0)
    return 0


@loop_body
def _rnn_forward(y, h, gates, w, h0, starts, z, steps, n, width, is_reverse, has_h0, is_tanh):
    _start(h, h0, has_h0, n * width)
    for number in range(steps):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        product(z, h, w, rows, width, width, width, width, 1, width)
        _rnn_units(advance(y, first * width), h, advance(gates, first * width), z, rows * width, is_tanh)


@loop_body
def _rnn_units(y, h, gates, z, count, is_tanh):
    for u in range(count):
        x = load(gates, u, 2) + load(z, u, 3)
        new_h = tanh(x) if is_tanh else select(x < like(y, 0), like(y, 0), x)
        store(h, u, new_h, 1)
        store(y, u, new_h, 0)


@loop_body
def tanh_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, z, steps, n, width, is_reverse, has_dy,
    has_dhn, has_dcn, has_h0, has_c0,
):  # fmt: skip
    _rnn_backward(dgates, previous, dh, dy, dhn, y, w, h0, starts, steps, n, width, is_reverse, has_dy, has_dhn, has_h0, 1)
    return 0


@loop_body
def relu_backward(
    dgates, dhidden, previous, dh, dc, dy, dhn, dcn, gates, inner, y, w, h0, c0, starts, z, steps, n, width, is_reverse, has_dy,
    has_dhn, has_dcn, has_h0, has_c0,
):  # fmt: skip
    _rnn_backward(dgates, previous, dh, dy, dhn, y, w, h0, starts, steps, n, width, is_reverse, has_dy, has_dhn, has_h0, 0)
    return 0


@loop_body
def _rnn_backward(dgates, previous, dh, dy, dhn, y, w, h0, starts, steps, n, width, is_reverse, has_dy, has_dhn, has_h0, is_tanh):
    _start(dh, dhn, has_dhn, n * width)
    for number in range(steps - 1, -1, -1):
        step = steps - 1 - number if is_reverse else number
        first = load(starts, step, 9)
        rows = load(starts, step + 1, 9) - first
        for row in range(rows):
            _before(advance(previous, (first + row) * width), y, h0, starts, step, number, has_h0, is_reverse, row, width)
        at = first * width
        _rnn_backward_units(
            advance(dgates, at), dh, advance(dy, at if has_dy else 0), advance(y, at), has_dy, rows * width, is_tanh
        )
        product(dh, advance(dgates, at), w, rows, width, width, width, width, 1, width)


@loop_body
def _rnn_backward_units(dgates, dh, dy, y, has_dy, count, is_tanh):
    one, zero = like(dh, 1), like(dh, 0)
    for u in range(count):
        value = load(y, u, 3)
        of_h = load(dh, u, 1) + (load(dy, u, 2) if has_dy else zero)
        store(dgates, u, of_h * (one - value * value) if is_tanh else select(value <= zero, zero, of_h), 0)
