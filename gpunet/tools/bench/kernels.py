"""One launch of every kernel, large enough to time: for ``pytest bench``, and on a GPU beside cuBLAS and PyTorch.

A kernel without a row here uses the largest of its ``kernel_cases``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.backend.devices import Device
from gpunet.launch.faults import RECORD_SIZE
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.cases.case import Case, Samples, View
from gpunet.ops.cases.losses import loss_arrays
from gpunet.tools import kernel_cases


class Launch(NamedTuple):
    """A launch with its arrays on the device."""

    kernel: Kernel
    label: str
    arrays: list[Any]
    options: dict[str, Any]
    flop: float  # FLOPs of a matrix product, else 0
    bytes: float  # total size of all arrays

    def __call__(self) -> None:
        self.kernel(*self.arrays, **self.options)


_rows: dict[str, Callable[[Samples, int], Iterator[Any]]] = {}


def _row(make: Callable[[Samples, int], Iterator[Any]]) -> Callable[[Samples, int], Iterator[Any]]:
    """Register a function that yields (label, arrays, options, flop) for the kernel of its name and a width."""
    _rows[make.__name__] = make
    return make


def launches(device: Device, width: int = 512, pattern: Callable[[str], bool] = lambda name: True) -> Iterator[Launch]:
    """One float32 launch of each kernel.

    Args:
        device: the device of the arrays.
        width: number of rows and columns of matrices; vectors have width² elements.
        pattern: selects kernels by name.
    """
    for name, kernel in KERNELS.items():
        if not pattern(name) or not (name in _rows or kernel_cases.has_cases(kernel)):
            continue  # a user's kernel has no cases
        samples = Samples("float32", 0)
        if name in _rows:
            ((label, arrays, options, flop),) = _rows[name](samples, width)
        else:
            case = max(
                (c for c in kernel_cases.cases(kernel) if c.floating == "float32"), key=lambda c: _bytes(c.arrays)
            )
            label, arrays, options, flop = case.label, case.arrays, case.options, 0.0
        case = Case(kernel, label, "float32", arrays, options)
        yield Launch(kernel, label, case.on_device(device), options, flop, _bytes(arrays))


def _bytes(arrays: list[Any]) -> float:
    flat = [a for array in arrays for a in (array if isinstance(array, list) else [array])]
    return float(sum(a.base.nbytes if isinstance(a, View) else a.nbytes for a in flat if a is not None))


_RELU = {"activation": "relu", "alpha": 0.0}
_GELU = {"activation": "gelu", "alpha": 0.0}


@_row
def linear_forward(s: Samples, n: int) -> Iterator[Any]:
    yield (
        f"relu ({n}, {n}) -> ({n}, {n})",
        [s.blank(n, n), None, s.normal(n, n), s.normal(n, n), s.normal(n)],
        _RELU,
        2.0 * n**3,
    )


@_row
def linear_backward_input(s: Samples, n: int) -> Iterator[Any]:
    arrays = [s.blank(n, n), s.normal(n, n), s.normal(n, n), s.saved("relu", n, n)]
    yield f"relu ({n}, {n}) -> ({n}, {n})", arrays, _RELU, 2.0 * n**3


@_row
def linear_backward_weight(s: Samples, n: int) -> Iterator[Any]:
    arrays = [s.blank(n, n), s.blank(n), s.normal(n, n), s.normal(n, n), s.positive(1)]
    yield f"({n}, {n}), ({n}, {n})", arrays, {}, 2.0 * n**3


@_row
def linear_backward_weight_partial(s: Samples, n: int) -> Iterator[Any]:
    rows, small = 8 * n, max(1, n // 4)
    arrays = [s.blank(8, small * (small + 1)), s.normal(rows, small), s.normal(rows, small)]
    yield f"({rows}, {small}) in 8 slices", arrays, {"slices": 8}, 2.0 * rows * small**2


@_row
def linear_backward_weight_reduce(s: Samples, n: int) -> Iterator[Any]:
    arrays = [s.blank(n, n), s.blank(n), s.normal(8, n * (n + 1)), s.positive(1)]
    yield f"8 of ({n}, {n})", arrays, {}, 0.0


@_row
def matmul_forward(s: Samples, n: int) -> Iterator[Any]:
    yield f"({n}, {n}) ({n}, {n})", [s.blank(1, n, n), s.normal(1, n, n), s.normal(1, n, n)], {}, 2.0 * n**3


@_row
def activation_forward(s: Samples, n: int) -> Iterator[Any]:
    yield f"gelu ({n * n},)", [s.blank(n * n), s.normal(n * n)], _GELU, 0.0


@_row
def activation_backward(s: Samples, n: int) -> Iterator[Any]:
    yield f"gelu ({n * n},)", [s.blank(n * n), s.normal(n * n), s.saved("gelu", n * n)], _GELU, 0.0


@_row
def dropout_apply(s: Samples, n: int) -> Iterator[Any]:
    mask = s.random.random(n * n) < 0.5
    yield f"({n * n},)", [s.blank(n * n), s.normal(n * n), mask], {"scale": 2.0}, 0.0


@_row
def erf_forward(s: Samples, n: int) -> Iterator[Any]:
    yield f"({n * n},)", [s.blank(n * n), s.normal(n * n)], {}, 0.0


@_row
def scatter_add(s: Samples, n: int) -> Iterator[Any]:
    unsorted = s.random.integers(0, n, n * n // 4)
    order = numpy.argsort(unsorted, kind="stable")
    arrays = [s.normal(n), s.normal(n * n // 4), unsorted[order].astype("int64"), order.astype("int64")]
    yield f"{n * n // 4} into {n}", arrays, {}, 0.0


@_row
def index_positions(s: Samples, n: int) -> Iterator[Any]:
    count = n * n // 4
    options = {"count": count, "size": n, "repeat": 1, "length": count, "span": count, "inner": 1, "continues": False}
    arrays = [s.blank(count, dtype="int64"), s.blank(RECORD_SIZE, dtype="int64"), s.random.integers(0, n, count)]
    yield f"{count} of {n}", arrays, {**options, "wraps": True, "code": 1, "detail": 0}, 0.0


@_row
def gather_rows(s: Samples, n: int) -> Iterator[Any]:
    x, options = s.normal(n, n), {"size": n, "inner": n, "itemsize": s.dtype.itemsize, "fill": 0}
    arrays = [s.blank(n, n).reshape(-1).view("uint8"), x.reshape(-1).view("uint8"), s.random.integers(0, n, n)]
    yield f"{n} of ({n}, {n})", arrays, options, 0.0


@_row
def scatter_rows(s: Samples, n: int) -> Iterator[Any]:
    x, values = (s.normal(n, n).reshape(-1).view("uint8") for _ in range(2))
    unsorted = s.random.integers(0, n, n)
    order = numpy.argsort(unsorted, kind="stable")
    options = {"size": n, "inner": n, "itemsize": s.dtype.itemsize}
    yield f"{n} into ({n}, {n})", [x, values, unsorted[order], order], options, 0.0


@_row
def elementwise_loss(s: Samples, n: int) -> Iterator[Any]:
    arrays = [*loss_arrays(s, "mean", (n, n), (n,)), s.normal(n, n), s.normal(n, n)]
    yield f"squared mean ({n}, {n})", arrays, {"loss": "squared", "reduction": "mean", "delta": 0.5}, 0.0


@_row
def cross_entropy_labels(s: Samples, n: int) -> Iterator[Any]:
    record = s.blank(RECORD_SIZE, dtype="int64")
    arrays = [*loss_arrays(s, "mean", (n, n), (n,)), record, s.normal(n, n), s.random.integers(0, n, n).astype("int64")]
    yield f"mean ({n}, {n})", arrays, {"reduction": "mean", "ignore_index": -100, "code": 1}, 0.0


@_row
def cross_entropy_soft(s: Samples, n: int) -> Iterator[Any]:
    arrays = [*loss_arrays(s, "mean", (n, n), (n,)), s.normal(n, n), s.positive(n, n) / s.dtype.type(n)]
    yield f"mean ({n}, {n})", arrays, {"reduction": "mean"}, 0.0


def _random(s: Samples, n: int, dtype: str, options: dict[str, Any]) -> Iterator[Any]:
    yield f"({n * n},)", [s.blank(n * n, dtype=dtype), numpy.array((7, 1), "uint64")], options, 0.0


@_row
def random_uniform(s: Samples, n: int) -> Iterator[Any]:
    yield from _random(s, n, "float32", {"low": 0.0, "high": 1.0})


@_row
def random_normal(s: Samples, n: int) -> Iterator[Any]:
    yield from _random(s, n, "float32", {"mean": 0.0, "std": 1.0})


@_row
def random_integers(s: Samples, n: int) -> Iterator[Any]:
    yield from _random(s, n, "int64", {"low": 0, "high": 10})


@_row
def random_bernoulli(s: Samples, n: int) -> Iterator[Any]:
    yield from _random(s, n, "bool", {"probability": 0.3})


def _tensors(n: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the weights and biases of two layers."""
    return ((n, n), (n,), (n, n), (n,))


def _hyperparameters_and_ticket(*values: float) -> list[numpy.ndarray]:
    return [numpy.array(values, "float64"), numpy.zeros(1, "uint32")]


@_row
def sgd_step(s: Samples, n: int) -> Iterator[Any]:
    params, momenta, grads = ([s.normal(*shape) for shape in _tensors(n)] for _ in range(3))
    steps = [numpy.ones(1) for _ in params]
    options = {"dampened": False, "decays": False, "nesterov": False, "maximize": False}
    arrays = [params, momenta, steps, grads, *_hyperparameters_and_ticket(1e-3, 0.9, 0.0, 0.0)]
    yield f"4 tensors, {2 * n * (n + 1)}", arrays, options, 0.0


@_row
def adam_step(s: Samples, n: int) -> Iterator[Any]:
    params, averages, grads = ([s.normal(*shape) for shape in _tensors(n)] for _ in range(3))
    squares, steps = [s.positive(*shape) for shape in _tensors(n)], [numpy.ones(1) for _ in params]
    options = {"decays": False, "decoupled": False, "maximize": False}
    numbers = _hyperparameters_and_ticket(1e-3, 0.9, 0.999, 1e-8, 0.0)
    arrays = [params, averages, squares, None, steps, grads, *numbers]
    yield f"4 tensors, {2 * n * (n + 1)}", arrays, options, 0.0
