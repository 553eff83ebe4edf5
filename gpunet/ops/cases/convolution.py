"""Cases of the kernels of convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from gpunet.launch.facts import Cost, Product, num_bytes
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.cases.case import Samples, cut, unaligned
from gpunet.ops.convolution import (
    Pair,
    Window,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    forward_product,
    input_product,
    weight_product,
)
from gpunet.ops.gemm import TILES, Cut


def window(
    groups: int, c: int, o: int, extent: Pair, filters: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Window:
    """The window of filters for o output and c input channels a group, with the same padding on both sides."""
    reach = [n + 2 * p - d * (k - 1) - 1 for n, p, d, k in zip(extent, padding, dilation, filters)]
    size = (reach[0] // stride[0] + 1, reach[1] // stride[1] + 1)
    return Window(extent, (groups * o, c, *filters), size, stride, padding, dilation, groups)


#: (images, window) of launches on every tile.
_LAUNCHES = (
    (2, window(1, 3, 5, (7, 9), (3, 3), padding=(1, 1))),  # 63 pixels: packs cross rows and images
    (2, window(2, 2, 3, (8, 8), (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))),
    (3, window(1, 8, 4, (6, 6), (1, 1))),  # whole packs
    (5, window(1, 1, 2, (3, 2), (3, 2))),  # one pixel: a pack is of four images
    (2, window(3, 1, 1, (5, 6), (2, 3), padding=(1, 2), dilation=(2, 1))),  # depthwise
    (1, window(1, 2, 66, (9, 8), (2, 2), stride=(3, 2), padding=(3, 3))),  # windows outside of the image
    (3, window(1, 16, 40, (10, 12), (3, 3), padding=(1, 1))),  # several tiles
    (2, window(1, 70, 3, (8, 9), (2, 2), stride=(2, 2))),
    (0, window(1, 2, 3, (4, 4), (2, 2))),
)  # fmt: skip
#: With each activation.
_ACTIVATED = (((64, 64), _LAUNCHES[0]), ((64, 64), _LAUNCHES[2]))
#: Whole tiles, and the activations and tiles that are shown.
_WHOLE = (2, window(1, 32, 128, (16, 16), (3, 3), padding=(1, 1)))
_SHOWN = (*(("relu", tile) for tile in TILES), ("gelu", (64, 64)))
#: The addresses and coordinates of windows take more registers than the rows of matrices, and some functions many.
_SPILLS = {("*", "*"): "some of the 128 or 168 registers per thread (255 of float64) hold coordinates of pixels and taps"}

_WASTE = {
    "reads": "neighbouring taps read the same sectors, one element of a pixel at a time; the L1 cache has what the next ones read"
}


def _launches() -> Iterator[tuple[str, int, Window, Pair, float]]:
    """(activation, images, window, tile, slices): every window with every tile, and every activation."""
    slices = itertools.cycle((1, 3, 1.5, 2, 0.6, 1, 5))
    for (n, of), tile in itertools.product(_LAUNCHES, TILES):
        yield "relu", n, of, tile, next(slices)
    for name, (tile, (n, of)) in itertools.product(ACTIVATIONS, _ACTIVATED):
        yield name, n, of, tile, 1


def _label(n: int, of: Window, chosen: Cut | None = None) -> str:
    c, (o, _, *filters) = of.filters[1] * of.groups, of.filters
    parts = [f"({n}, {c}, {of.extent[0]}, {of.extent[1]}) -> ({n}, {o}, {of.size[0]}, {of.size[1]}), filters {filters}"]
    for name, value, usual in (
        ("stride", of.stride, (1, 1)), ("padding", of.padding, (0, 0)), ("dilation", of.dilation, (1, 1)), ("groups", of.groups, 1)
    ):  # fmt: skip
        if value != usual:
            parts.append(f"{name} {value}")
    if chosen is not None:
        blocks = f", {chosen.blocks} blocks" if chosen.blocks != chosen.tiles else ""
        parts.append(f"tiles of {chosen.rows} x {chosen.columns}{blocks}")
    return ", ".join(parts)


def _arrays(s: Samples, n: int, of: Window, blank: str) -> dict[str, Any]:
    """Arrays of a launch by name; ``blank`` are zeros."""
    shapes = {
        "x": (n, of.filters[1] * of.groups, *of.extent), "y": (n, of.filters[0], *of.size), "w": of.filters, "b": of.filters[:1],
    }  # fmt: skip
    return {name: s.blank(*shape) if name in blank else s.normal(*shape) for name, shape in shapes.items()}


def _cut(
    product: Callable[[Any, Any, Window], tuple[int, int, int, int]], a: Any, b: Any, of: Window, tile: Pair, slices: float
) -> Cut:
    return cut(tile, slices, *product(a, b, of))


conv2d_forward.describe(is_hot=True, spills=_SPILLS, waste=_WASTE)


@conv2d_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product((True, False), repeat=2))
    for (name, n, of, tile, slices), (with_z, with_b) in zip(_launches(), presence):
        a = _arrays(s, n, of, "y")
        chosen = _cut(forward_product, a["y"], a["w"], of, tile, slices)
        options = {"window": of, "activation": name, "alpha": ACTIVATIONS[name].alpha, "cut": chosen}
        z, b = s.blank(*a["y"].shape) if with_z else None, a["b"] if with_b else None
        label = f"{name} {_label(n, of, chosen)}{', z' * with_z}{', b' * with_b}"
        yield label, [a["y"], z, *s.split(chosen), a["x"], a["w"], b], options
    n, of = _LAUNCHES[2]
    a, options = _arrays(s, n, of, "y"), {"window": of, "activation": "identity", "alpha": 0.0}
    yield from unaligned(_label(n, of), [a["y"], s.blank(*a["y"].shape), None, None, a["x"], a["w"], a["b"]], options)


@conv2d_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    n, of = _WHOLE
    for name, tile in _SHOWN:
        a = _arrays(s, n, of, "y")
        z = s.blank(*a["y"].shape) if ACTIVATIONS[name].saves == "preactivation" else None
        chosen = _cut(forward_product, a["y"], a["w"], of, tile, 1)
        options = {"window": of, "activation": name, "alpha": 0.0, "cut": chosen}
        yield _label(n, of), [a["y"], z, None, None, a["x"], a["w"], a["b"]], options


def _bench(s: Samples) -> tuple[int, Window]:
    """3 x 3 filters on 32 x 32 images of 64 channels; the batch follows from the width of the samples."""
    return max(1, s.width**2 // 2**14), window(1, 64, 64, (32, 32), (3, 3), padding=(1, 1))


@conv2d_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n, of = _bench(s)
    a = _arrays(s, n, of, "y")
    options = {"window": of, "activation": "relu", "alpha": 0.0}
    yield f"relu {_label(n, of)}", [a["y"], None, None, None, a["x"], a["w"], a["b"]], options


@conv2d_forward.cost
def _(y, z, partials, tickets, x, w, b, *, window, activation, alpha, cut=None):
    epilogue = (b is not None) + (activation != "identity")
    return Cost(y.size * (2.0 * math.prod(w.shape[1:]) + epilogue), num_bytes(y, z, x, w, b))


@conv2d_forward.product
def _(y, z, partials, tickets, x, w, b, *, window, activation, alpha, cut=None):
    return Product(*forward_product(y, w, window))


@conv2d_forward.equivalent
def _(torch, y, z, partials, tickets, x, w, b, *, window, activation, alpha):
    options = (window.stride, window.padding, window.dilation, window.groups)
    return lambda: torch.conv2d(x, w, b, *options).relu_()


conv2d_backward_input.describe(is_hot=True, spills=_SPILLS, waste=_WASTE)


@conv2d_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for name, n, of, tile, slices in _launches():
        a = _arrays(s, n, of, "x")
        chosen = _cut(input_product, a["x"], a["w"], of, tile, slices)
        saved = s.saved(name, *a["x"].shape) if name != "identity" else None
        options = {"window": of, "activation": name, "alpha": ACTIVATIONS[name].alpha, "cut": chosen}
        yield f"{name} {_label(n, of, chosen)}", [a["x"], *s.split(chosen), a["y"], a["w"], saved], options
    n, of = _LAUNCHES[2]
    a, options = _arrays(s, n, of, "x"), {"window": of, "activation": "tanh", "alpha": 0.0}
    yield from unaligned(_label(n, of), [a["x"], None, None, a["y"], a["w"], s.saved("tanh", *a["x"].shape)], options)


@conv2d_backward_input.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    n, of = _WHOLE
    for name, tile in _SHOWN:
        a = _arrays(s, n, of, "x")
        options = {"window": of, "activation": name, "alpha": 0.0, "cut": _cut(input_product, a["x"], a["w"], of, tile, 1)}
        yield _label(n, of), [a["x"], None, None, a["y"], a["w"], s.saved(name, *a["x"].shape)], options


@conv2d_backward_input.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n, of = _bench(s)
    a = _arrays(s, n, of, "x")
    options = {"window": of, "activation": "relu", "alpha": 0.0}
    yield f"relu {_label(n, of)}", [a["x"], None, None, a["y"], a["w"], s.saved("relu", *a["x"].shape)], options


@conv2d_backward_input.cost
def _(dx, partials, tickets, dy, w, saved, *, window, activation, alpha, cut=None):
    products = 2.0 * dy.size * math.prod(w.shape[1:])
    return Cost(products + 2 * dx.size * (activation != "identity"), num_bytes(dx, dy, w, saved))


def _backward_of_torch(torch: Any, dy: Any, x: Any, w: Any, of: Window, mask: list[bool]) -> Any:
    options = (of.stride, of.padding, of.dilation, False, [0, 0], of.groups, mask)
    return torch.ops.aten.convolution_backward(dy, x, w, [w.shape[0]], *options)


@conv2d_backward_input.product
def _(dx, partials, tickets, dy, w, saved, *, window, activation, alpha, cut=None):
    return Product(*input_product(dx, w, window))


@conv2d_backward_input.multiply_adds
def _(dx, partials, tickets, dy, w, saved, *, window, activation, alpha, cut=None):
    return dy.size * math.prod(w.shape[1:])  # a stride leaves most taps of the product's windows without an element of dy


@conv2d_backward_input.equivalent
def _(torch, dx, partials, tickets, dy, w, saved, *, window, activation, alpha):
    mask = [True, False, False]
    return lambda: torch.ops.aten.threshold_backward(_backward_of_torch(torch, dy, dx, w, window, mask)[0], saved, 0)


conv2d_backward_weight.describe(is_hot=True, spills=_SPILLS, waste=_WASTE)


@conv2d_backward_weight.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product(("", "dw", "db"), (True, False)))
    launches = itertools.islice(_launches(), len(_LAUNCHES) * len(TILES))
    for (_, n, of, tile, slices), (leave_out, scaled) in zip(launches, presence):
        a = _arrays(s, n, of, "wb")
        dw, db = (None if leave_out == name else a[name[1]] for name in ("dw", "db"))
        chosen = _cut(weight_product, dw, a["y"], of, tile, slices)
        label = f"{_label(n, of, chosen)}{', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        scale = s.accumulators.positive(1) if scaled else None
        yield label, [dw, db, *s.split(chosen, extra=1), a["y"], a["x"], scale], {"window": of, "cut": chosen}
    n, of = _LAUNCHES[2]
    a = _arrays(s, n, of, "wb")
    yield from unaligned(
        _label(n, of), [a["w"], a["b"], None, None, a["y"], a["x"], s.accumulators.positive(1)], {"window": of}
    )


@conv2d_backward_weight.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    n, of = _WHOLE
    for tile in TILES:
        a = _arrays(s, n, of, "wb")
        options = {"window": of, "cut": _cut(weight_product, a["w"], a["y"], of, tile, 1)}
        yield _label(n, of), [a["w"], a["b"], None, None, a["y"], a["x"], s.accumulators.positive(1)], options


@conv2d_backward_weight.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n, of = _bench(s)
    a = _arrays(s, n, of, "wb")
    yield _label(n, of), [a["w"], a["b"], None, None, a["y"], a["x"], s.accumulators.positive(1)], {"window": of}


@conv2d_backward_weight.cost
def _(dw, db, partials, tickets, dy, x, scale, *, window, cut=None):
    products = 0 if dw is None else 2.0 * dy.size * math.prod(dw.shape[1:])
    return Cost(products + (0 if db is None else dy.size), num_bytes(dw, db, dy, None if dw is None else x, scale))


@conv2d_backward_weight.product
def _(dw, db, partials, tickets, dy, x, scale, *, window, cut=None):
    return Product(*weight_product(dw, dy, window))


@conv2d_backward_weight.equivalent
def _(torch, dw, db, partials, tickets, dy, x, scale, *, window):
    def run() -> None:  # without the scale
        _backward_of_torch(torch, dy, x, dw, window, [False, True, True])

    return run
