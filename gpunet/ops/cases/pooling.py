"""Cases of the kernels of pooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.pooling_launches import (
    Divisors,
    Triple,
    Windows,
    adaptive_windows,
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from gpunet.ops.windows import num_windows


def windows(
    extent: Triple, taps: Triple, stride: Triple, padding: Triple = (0, 0, 0), dilation: Triple = (1, 1, 1), ceil_mode: bool = False
) -> Windows:
    depth, height, width = (num_windows(*numbers, ceil_mode) for numbers in zip(extent, taps, stride, padding, dilation))
    return Windows(3, extent, (depth, height, width), taps, stride, padding, dilation)


#: (planes, windows) without dilation.  Those of 64 elements and more are computed by warps.
_PLAIN = (
    (3, windows((1, 6, 8), (1, 2, 2), (1, 2, 2))), (2, windows((1, 7, 9), (1, 2, 2), (1, 2, 2))),
    (2, windows((1, 7, 9), (1, 3, 3), (1, 2, 2), (0, 1, 1))),
    (2, windows((1, 5, 7), (1, 3, 2), (1, 1, 3), (0, 1, 0), ceil_mode=True)),  # the last window ends behind the padding
    (2, windows((3, 5, 4), (2, 3, 2), (1, 2, 1), (1, 1, 1))),
    (5, windows((1, 1, 70), (1, 1, 4), (1, 1, 3))),
    (4, windows((1, 9, 10), (1, 9, 10), (1, 9, 10))),
    (2, windows((1, 10, 13), (1, 9, 8), (1, 1, 2), (0, 4, 3))),
    (3, windows((5, 6, 5), (4, 5, 4), (1, 1, 1), (2, 2, 1))),
    (0, windows((1, 4, 4), (1, 2, 2), (1, 2, 2))),
)
_DILATED = (
    (2, windows((1, 9, 8), (1, 2, 3), (1, 2, 1), (0, 1, 2), (1, 3, 2))),
    (2, windows((7, 9, 11), (2, 3, 2), (2, 1, 3), (1, 2, 0), (2, 2, 4))),
    (2, windows((1, 20, 19), (1, 9, 9), (1, 1, 1), (0, 8, 4), (1, 2, 2))),
)
_ADAPTIVE = (
    (3, adaptive_windows(3, (1, 7, 9), (1, 3, 4))), (2, adaptive_windows(3, (5, 4, 7), (3, 5, 2))),
    (2, adaptive_windows(3, (1, 25, 19), (1, 2, 2))), (0, adaptive_windows(3, (1, 7, 7), (1, 2, 2))),
)  # fmt: skip
#: With more elements than a block has threads, or warps.
_LONG = ((30, _PLAIN[1][1]), (20, _PLAIN[5][1]))
_DIVISORS = (Divisors(), Divisors(False), Divisors(True, 5), Divisors(False, -3))
#: Pooling of images by halves, of any size, and a mean of each plane.
_HALVES, _GLOBAL = windows((1, 32, 32), (1, 2, 2), (1, 2, 2)), windows((1, 16, 16), (1, 16, 16), (1, 16, 16))
_SPILLS = {("*", "*"): "coordinates in three dimensions, used once a window; ptxas limits the registers to reach full occupancy"}
_WASTE = {"reads writes": "each thread has one window: its elements are neighbours of those of the next threads, in the L1 cache"}


def _label(planes: int, of: Windows) -> str:
    kind = "adaptive" if of.is_adaptive else f"taps {of.taps}, stride {of.stride}, padding {of.padding}, dilation {of.dilation}"
    return f"({planes}, {of.extent}) -> {of.size}, {kind}"


def _special(s: Samples, planes: int, of: Windows) -> numpy.ndarray:
    """Numbers with ties, NaN and infinities."""
    x = s.random.choice(numpy.array([0.0, 1.0, -1.0, numpy.nan, -numpy.inf]), (planes, *of.extent), p=(0.3, 0.2, 0.1, 0.1, 0.3))
    return x.astype(s.dtype)


def _index(s: Samples, planes: int, of: Windows) -> numpy.ndarray:
    """The places of the maxima of random numbers."""
    x, y = s.random.normal(size=(planes, *of.extent)).round(1), s.blank(planes, *of.size, dtype=numpy.float64)
    index = s.blank(*y.shape, dtype=numpy.int32)
    max_pool_forward.twin(y, index, x, windows=of)
    return index



max_pool_forward.describe(waste=_WASTE, spills=_SPILLS)


@max_pool_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (planes, of), name in itertools.product((*_PLAIN, *_DILATED, *_ADAPTIVE), ("normal", "special", "no index")):
        x = _special(s, planes, of) if name == "special" else s.normal(planes, *of.extent)
        index = None if name == "no index" else s.blank(planes, *of.size, dtype=numpy.int32)
        yield f"{_label(planes, of)}, {name}", [s.blank(planes, *of.size), index, x], {"windows": of}
    for planes, of in _LONG:
        arrays = [s.blank(planes, *of.size), s.blank(planes, *of.size, dtype=numpy.int32), s.normal(planes, *of.extent)]
        yield f"{_label(planes, of)}, one block", arrays, {"windows": of}, 1
    yield from unaligned(_label(planes, of), arrays, {"windows": of})


def _planes(s: Samples, of: Windows) -> int:
    return max(1, s.width**2 // math.prod(of.extent))


@max_pool_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for of in (_HALVES, _GLOBAL, _ADAPTIVE[0][1], _ADAPTIVE[2][1]):
        index = s.blank(64, *of.size, dtype=numpy.int32)
        yield _label(64, of), [s.blank(64, *of.size), index, s.normal(64, *of.extent)], {"windows": of}


@max_pool_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    of, n = _HALVES, _planes(s, _HALVES)
    yield _label(n, of), [s.blank(n, *of.size), s.blank(n, *of.size, dtype=numpy.int32), s.normal(n, *of.extent)], {"windows": of}


@max_pool_forward.cost
def _(y, index, x, *, windows):
    return Cost(y.size * windows.num_taps, num_bytes(y, index, x))


def _of_torch(of: Windows) -> tuple[Any, ...]:
    return of.taps, of.stride, of.padding


@max_pool_forward.equivalent
def _(torch, y, index, x, *, windows):
    return lambda: torch.ops.aten.max_pool3d_with_indices(x, *_of_torch(windows), windows.dilation)[0]


max_pool_backward.describe(waste=_WASTE, spills=_SPILLS)


@max_pool_backward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for planes, of in (*_PLAIN, *_DILATED, *_ADAPTIVE):
        yield _label(planes, of), [s.blank(planes, *of.extent), _index(s, planes, of), s.normal(planes, *of.size)], {"windows": of}
    planes, of = _LONG[0]
    arrays = [s.blank(planes, *of.extent), _index(s, planes, of), s.normal(planes, *of.size)]
    yield f"{_label(planes, of)}, one block", arrays, {"windows": of}, 1
    yield from unaligned(_label(planes, of), arrays, {"windows": of})


@max_pool_backward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for of in (_HALVES, _ADAPTIVE[0][1]):
        yield _label(64, of), [s.blank(64, *of.extent), _index(s, 64, of), s.normal(64, *of.size)], {"windows": of}


@max_pool_backward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    of, n = _HALVES, _planes(s, _HALVES)
    yield _label(n, of), [s.blank(n, *of.extent), _index(s, n, of), s.normal(n, *of.size)], {"windows": of}


@max_pool_backward.cost
def _(dx, index, dy, *, windows):
    return Cost(dy.size, num_bytes(dx, index, dy))


@max_pool_backward.equivalent
def _(torch, dx, index, dy, *, windows):
    numbers = (*_of_torch(windows), windows.dilation, False)
    return lambda: torch.ops.aten.max_pool3d_with_indices_backward(dy, dx, *numbers, index.long())


avg_pool_forward.describe(waste=_WASTE)


@avg_pool_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (planes, of), divisors in itertools.product(_PLAIN, _DIVISORS):
        arrays = [s.blank(planes, *of.size), s.normal(planes, *of.extent)]
        yield f"{_label(planes, of)}, {divisors}", arrays, {"windows": of, "divisors": divisors}
    for planes, of in _LONG:
        arrays, options = [s.blank(planes, *of.size), s.normal(planes, *of.extent)], {"windows": of, "divisors": Divisors()}
        yield f"{_label(planes, of)}, one block", arrays, options, 1
    yield from unaligned(_label(planes, of), arrays, options)


@avg_pool_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for of in (_HALVES, _GLOBAL):
        options = {"windows": of, "divisors": Divisors()}
        yield _label(64, of), [s.blank(64, *of.size), s.normal(64, *of.extent)], options


@avg_pool_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    of, n = _HALVES, _planes(s, _HALVES)
    yield _label(n, of), [s.blank(n, *of.size), s.normal(n, *of.extent)], {"windows": of, "divisors": Divisors()}


@avg_pool_forward.cost
def _(y, x, *, windows, divisors):
    return Cost(y.size * windows.num_taps, num_bytes(y, x))


@avg_pool_forward.equivalent
def _(torch, y, x, *, windows, divisors):
    return lambda: torch.ops.aten.avg_pool3d(x, *_of_torch(windows))


avg_pool_backward.describe(waste=_WASTE, spills=_SPILLS)


@avg_pool_backward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (planes, of), divisors in itertools.product(_PLAIN, _DIVISORS):
        arrays = [s.blank(planes, *of.extent), s.normal(planes, *of.size)]
        yield f"{_label(planes, of)}, {divisors}", arrays, {"windows": of, "divisors": divisors}
    planes, of = _LONG[0]
    arrays, options = [s.blank(planes, *of.extent), s.normal(planes, *of.size)], {"windows": of, "divisors": Divisors()}
    yield f"{_label(planes, of)}, one block", arrays, options, 1
    yield from unaligned(_label(planes, of), arrays, options)


@avg_pool_backward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    options = {"windows": _HALVES, "divisors": Divisors()}
    yield _label(64, _HALVES), [s.blank(64, *_HALVES.extent), s.normal(64, *_HALVES.size)], options


@avg_pool_backward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    of, n = _HALVES, _planes(s, _HALVES)
    yield _label(n, of), [s.blank(n, *of.extent), s.normal(n, *of.size)], {"windows": of, "divisors": Divisors()}


@avg_pool_backward.cost
def _(dx, dy, *, windows, divisors):
    return Cost(dx.size + dy.size, num_bytes(dx, dy))


@avg_pool_backward.equivalent
def _(torch, dx, dy, *, windows, divisors):
    return lambda: torch.ops.aten.avg_pool3d_backward(dy, dx, *_of_torch(windows), False, True, None)
