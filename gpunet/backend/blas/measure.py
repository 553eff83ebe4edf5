"""Times one library: ``python -m gpunet.backend.blas.measure NAME`` prints the seconds of each product as JSON.

Each library is timed in its own process, because thread pools keep spinning after a product and would slow the next library.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable

import numpy

from gpunet.backend.blas import choice
from gpunet.backend.blas.operands import Operand

#: m, n, k, and whether a and b are transposed: forward, weight gradient and input gradient of typical linear layers.
PRODUCTS = (
    (256, 256, 64, False, True),
    (512, 784, 64, True, False),
    (512, 512, 512, False, False),
    (1024, 512, 784, False, True),
)
_MIN_SECONDS, _MIN_RUNS = 0.03, 5


def measure(name: str) -> list[float]:
    """Return the fastest time of each product in seconds, over several runs."""
    functions = choice.load(name).functions
    random = numpy.random.default_rng(0)
    result = []
    for m, n, k, *transposed in PRODUCTS:
        shapes = [(k, m) if transposed[0] else (m, k), (n, k) if transposed[1] else (k, n), (m, n)]
        a, b, out = (random.standard_normal(shape, numpy.float32) for shape in shapes)
        left, right = a.T if transposed[0] else a, b.T if transposed[1] else b
        run: Callable[[], object] = functools.partial(numpy.dot, left, right, out)
        if multiply := functions.get(out.dtype):
            operands = [Operand(x, t, x.shape[1]) for x, t in zip((a, b, out), (*transposed, False))]
            run = multiply.bind(m, n, k, *operands)
        times: list[float] = []
        while sum(times) < _MIN_SECONDS or len(times) < _MIN_RUNS:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        result.append(min(times))
    return result


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
