"""C code of convolution, pooling, norms, and of ops that move elements."""

from __future__ import annotations

import math

import numpy

from gpunet.autograd import OPS, make_tensor, no_grad
from gpunet.interop.c.program import Affine, Program, double, emits, in_block
from gpunet.interop.tracing import Node, Ref
from gpunet.ops.convolution import Window
from gpunet.ops.pooling_launches import Windows, _factors
from gpunet.ops.resample import rows_of

# ---- convolution --------------------------------------------------------------------------------------------------------


@emits("convolution")
@in_block
def _convolution(p: Program, node: Node) -> None:
    x, w, b = node.inputs
    window: Window = node.options["window"]
    (height, width), (o, c, r, s), (rows, columns), groups = window.extent, window.filters, window.size, window.groups
    shape = (p.shape(x)[0], o, rows, columns)
    n, of, i, j = p.nest(shape)
    p.line(f"double total = {double(0.0) if b is None else p.operand(b, of)};")
    p.open(c, "c")
    for d in range(2):
        p.open((r, s)[d], f"r{d}")
        place = f"{(i, j)[d]} * {window.stride[d]} - {window.padding[d]} + r{d} * {window.dilation[d]}"
        p.line(f"const int at{d} = {place};")
        p.line(f"if (at{d} < 0 || at{d} >= {window.extent[d]}) continue;")
    channel = "c" if groups == 1 else f"{of} / {o // groups} * {c} + c"
    image = f"(({n} * {c * groups} + {channel}) * {height} + at0) * {width} + at1"
    p.line(f"total += (double){p.operand(x, image)} * {p.operand(w, f'(({of} * {c} + c) * {r} + r0) * {s} + r1')};")
    p.close(3)
    p.line(f"{p.result()}[{Affine.contiguous(shape).text([n, of, i, j])}] = (float)total;")
    p.end(shape)


@emits("transposed_convolution")
@in_block
def _transposed_convolution(p: Program, node: Node) -> None:
    """Each pixel of the result gathers the pixels whose filters reach it."""
    x, w = node.inputs
    window: Window = node.options["window"]
    (c, of_group, r, s), groups, (rows, columns) = window.filters, window.groups, window.size
    shape = (p.shape(x)[0], of_group * groups, *window.extent)
    n, of, i, j = p.nest(shape)
    p.line("double total = 0.0;")
    p.open(c // groups, "c")
    for d in range(2):
        p.open((r, s)[d], f"r{d}")
        p.line(f"const int from{d} = {(i, j)[d]} + {window.padding[d]} - r{d} * {window.dilation[d]};")
        p.line(f"if (from{d} < 0 || from{d} % {window.stride[d]} || from{d} / {window.stride[d]} >= {window.size[d]}) continue;")
    channel = "c" if groups == 1 else f"({of} / {of_group} * {c // groups} + c)"
    source = f"(({n} * {c} + {channel}) * {rows} + from0 / {window.stride[0]}) * {columns} + from1 / {window.stride[1]}"
    filters = f"(({channel} * {of_group} + {of} % {of_group}) * {r} + r0) * {s} + r1"
    p.line(f"total += (double){p.operand(x, source)} * {p.operand(w, filters)};")
    p.close(3)
    p.line(f"{p.result()}[{Affine.contiguous(shape).text([n, of, i, j])}] = (float)total;")
    p.end(shape)


# ---- pooling ------------------------------------------------------------------------------------------------------------


def _pool(p: Program, node: Node, start: str, update: str, finish: str) -> None:
    windows: Windows = node.options["windows"]
    (x,) = node.inputs
    planes = math.prod(p.shape(x)) // math.prod(windows.extent)
    bounds = [[windows.elements(axis, number) for number in range(windows.size[axis])] for axis in range(3)]
    shape = (planes, *windows.size)
    indices = p.nest(shape)
    p.line(f"double total = {start};")
    loops = 0
    at = []
    for axis, spans in enumerate(bounds):
        if windows.extent[axis] == 1:
            at.append("0")
            continue
        first = p.constant(numpy.array([span.start for span in spans]))
        end = p.constant(numpy.array([min(span.stop, windows.extent[axis]) for span in spans]))
        number, step = indices[1 + axis], windows.dilation[axis]
        p.line(f"for (int a{axis} = {first}[{number}]; a{axis} < {end}[{number}]; a{axis} += {step}) {{")
        p.depth, loops = p.depth + 1, loops + 1
        at.append(f"a{axis}")
    place = Affine.contiguous((planes, *windows.extent)).text([indices[0], *at])
    p.line(f"const double v = {p.operand(x, place)};")
    p.line(update)
    p.close(loops)
    p.line(f"{p.result()}[{Affine.contiguous(shape).text(indices)}] = (float)({finish.format(*indices)});")
    p.end(shape)


@emits("max_pool")
@in_block
def _max_pool(p: Program, node: Node) -> None:
    if node.options["with_index"]:
        raise p.refusal(" with indices")
    _pool(p, node, "-INFINITY", "total = v > total || v != v ? v : total;", "total")


@emits("avg_pool")
@in_block
def _avg_pool(p: Program, node: Node) -> None:
    windows: Windows = node.options["windows"]
    factors = numpy.broadcast_to(_factors(windows, node.options["divisors"], numpy.dtype(numpy.float64)), windows.size)
    if (factors == factors.flat[0]).all():
        _pool(p, node, "0.0", "total += v;", f"total * {double(factors.flat[0])}")
        return
    table = p.constant(factors)
    _, rows, columns = windows.size
    _pool(p, node, "0.0", "total += v;", f"total * {table}[({{1}} * {rows} + {{2}}) * {columns} + {{3}}]")


@emits("resample")
@in_block
def _resample(p: Program, node: Node) -> None:
    (x,) = node.inputs
    shape, dim = p.shape(x), node.options["dim"]
    rows = rows_of(node.options["table"])
    places, weights = p.constant(rows.places), p.constant(rows.weights)
    count, taps = rows.places.shape
    outer, inner = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    a, b, c = p.nest((outer, count, inner))
    p.line("double total = 0.0;")
    p.open(taps, "k")
    tap = f"{b} * {taps} + k"
    element = p.operand(x, f"({a} * {shape[dim]} + {places}[{tap}]) * {inner} + {c}")
    p.line(f"if ({weights}[{tap}] != 0.0f) total += (double){weights}[{tap}] * {element};")
    p.close()
    p.line(f"{p.result()}[({a} * {count} + {b}) * {inner} + {c}] = (float)total;")
    p.end((outer, count, inner))


# ---- norms --------------------------------------------------------------------------------------------------------------


@emits("normalized_by")
@in_block
def _normalized_by(p: Program, node: Node) -> None:
    """(x - mean) * scale + b: x * scale + shift would cancel where the mean is large."""
    x, *others = node.inputs
    w, b, mean, variance = (None if value is None else p.array(value) for value in others)
    if mean is None or variance is None or any(v is not None and p.array(v) is None for v in others):
        raise p.refusal(" by statistics that depend on the input")
    shape = p.shape(x)
    scale = 1.0 / numpy.sqrt(variance.astype(numpy.float64) + node.options["eps"])
    scale = scale if w is None else scale * w
    means, factors, terms = (p.constant(table) for table in (mean, scale, numpy.zeros_like(mean) if b is None else b))
    extent = (shape[0], shape[1], math.prod(shape[2:]))

    def text(i: list[str]) -> str:
        element = p.operand(x, Affine.contiguous(extent).text(i))
        return f"(float)(((double){element} - {means}[{i[1]}]) * {factors}[{i[1]}] + {terms}[{i[1]}])"

    p.assign(extent, Affine.contiguous(extent), text)


@emits("normalized_rows")
@in_block
def _normalized_rows(p: Program, node: Node) -> None:
    x, w, b = node.inputs
    o = node.options
    (n, c, s), groups = o["shape"], o["groups"]
    count = c // groups * s
    (row,) = p.nest((n * groups,))
    start = f"{row} * {count} + k"
    p.line("double mean = 0.0, squares = 0.0;")
    if o["is_centred"]:
        p.open(count, "k")
        p.line(f"mean += {p.operand(x, start)};")
        p.close()
        p.line(f"mean /= {count}.0;")
    p.open(count, "k")
    p.line(f"squares += ({p.operand(x, start)} - mean) * ({p.operand(x, start)} - mean);")
    p.close()
    p.line(f"const double scale = 1.0 / sqrt(squares / {count}.0 + {double(o['eps'])});")
    p.open(count, "k")
    channel = f"{row} % {groups} * {c // groups} + k / {s}"
    value = f"({p.operand(x, start)} - mean) * scale"
    value = value if w is None else f"{value} * {p.operand(w, channel)}"
    value = value if b is None else f"{value} + {p.operand(b, channel)}"
    p.line(f"{p.result()}[{start}] = (float)({value});")
    p.close()
    p.end((n * groups,))


# ---- moved elements -----------------------------------------------------------------------------------------------------


@emits("reshape")
def _reshape(p: Program, node: Node) -> None:
    p.places[Ref("result", p.number)] = node.inputs[0]


@emits("permute", "broadcast_to", "index", "flip", "repeat", "roll", "unfold", "diagonal")
def _moved(p: Program, node: Node) -> None:
    """The op of the elements' places says where each comes from."""
    x, *others = node.inputs
    arrays = [p.array(value) for value in others]
    if any(array is None for array in arrays):
        raise p.refusal(" with an index that depends on the input")
    shape = p.shape(x)
    op = OPS.get(node.op) or OPS[f"_{node.op}"]
    with no_grad():
        places = make_tensor(numpy.arange(math.prod(shape)).reshape(shape))
        found = op.call(places, *(make_tensor(numpy.asarray(a)) for a in arrays), **node.options).array
    affine = Affine.of(numpy.asarray(found))
    target = Affine.contiguous(found.shape)
    if affine is not None:
        p.assign(found.shape, target, lambda i: p.operand(x, affine.text(i)))
    elif found.size:
        table = p.constant(found.astype(numpy.int64))
        p.assign((found.size,), Affine(0, (1,)), lambda i: p.operand(x, f"{table}[{i[0]}]"))


@emits("cat")
def _cat(p: Program, node: Node) -> None:
    dim, starts = node.options["dim"], node.options["starts"]
    strides = Affine.contiguous(node.outputs[0].shape).strides
    for x, start in zip(node.inputs, starts):
        shape = p.shape(x)
        source = Affine.contiguous(shape)
        p.assign(shape, Affine(start * strides[dim], strides), lambda i, x=x, source=source: p.operand(x, source.text(i)))  # type: ignore[misc]


@emits("pad_constant")
def _pad_constant(p: Program, node: Node) -> None:
    (x,) = node.inputs
    widths, shape, size = node.options["widths"], p.shape(x), node.outputs[0].shape
    number = p.operand(float(node.options["value"]), "")
    p.assign((math.prod(size),), Affine(0, (1,)), lambda i: number)
    kept = [min(n, n + low) + min(0, high) if low < 0 else n + min(0, high) for (low, high), n in zip(widths, shape)]
    own, strides = Affine.contiguous(shape).strides, Affine.contiguous(size).strides
    source = Affine(sum(max(0, -low) * step for (low, _), step in zip(widths, own)), own)
    target = Affine(sum(max(0, low) * step for (low, _), step in zip(widths, strides)), strides)
    p.assign(kept, target, lambda i: p.operand(x, source.text(i)))


@emits("fold")
def _fold(p: Program, node: Node) -> None:
    """Each element of the windows is added at its place."""
    (x,) = node.inputs
    dim, step, shape, size = node.options["dim"], node.options["step"], p.shape(x), node.outputs[0].shape
    p.assign((math.prod(size),), Affine(0, (1,)), lambda i: "0.0f")
    strides = Affine.contiguous(size).strides
    target = Affine(0, (*strides[:dim], strides[dim] * step, *strides[dim + 1 :], strides[dim]))
    indices = p.nest(shape)
    p.line(f"{p.result()}[{target.text(indices)}] += {p.operand(x, Affine.contiguous(shape).text(indices))};")
    p.end(shape)
