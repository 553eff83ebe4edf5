"""Measures one library, in a process of its own: ``python -m gpunet.backend.blas.measure NAME`` prints seconds, a product each.

Its own process, since thread pools spin on after a product, and would take a core from the next library.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable

import numpy

from gpunet.backend.blas import choice, libraries

#: m, n, k, and whether a and b are transposed: forward, gradient of the weight, and of the input, of layers at work.
PRODUCTS = (
    (256, 256, 64, False, True),
    (512, 784, 64, True, False),
    (512, 512, 512, False, False),
    (1024, 512, 784, False, True),
)
_SECONDS, _LEAST_RUNS = 0.03, 5


def measured(name: str) -> list[float]:
    """The fastest of several runs of each product, in seconds."""
    functions = choice.load(name).functions
    random = numpy.random.default_rng(0)
    result = []
    for m, n, k, *transposed in PRODUCTS:
        shapes = [(k, m) if transposed[0] else (m, k), (n, k) if transposed[1] else (k, n), (m, n)]
        a, b, out = (random.standard_normal(shape, numpy.float32) for shape in shapes)
        left, right = a.T if transposed[0] else a, b.T if transposed[1] else b
        run: Callable[[], object] = functools.partial(numpy.dot, left, right, out)
        if multiply := functions.get(out.dtype):
            operands = [libraries.operand(x, x.shape[1], t) for x, t in zip((a, b, out), (*transposed, False))]
            run = multiply.prepared(m, n, k, *operands)
        times: list[float] = []
        while sum(times) < _SECONDS or len(times) < _LEAST_RUNS:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        result.append(min(times))
    return result


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
