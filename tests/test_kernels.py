"""Every kernel's CUDA source against its NumPy twin: run on the device "emulated", in each specialisation, on ragged sizes.

Each case runs in check mode (races, bounds, uninitialised shared memory, divergent barriers, writes to inputs) and in fast
mode under every schedule, where the bits must not depend on which thread runs first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy
import pytest

import gpunet
from gpunet import device, emulator
from gpunet.ops import linear
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.losses import ELEMENTWISE_LOSSES, MAX_BLOCKS, REDUCTIONS
from gpunet.runtime.kernel import KERNELS, MAX_TENSORS
from test_cuda_sources import _geometries

DTYPES = ("float32", "float64")
#: A sum of some dozen products of numbers of size 1 in another order; exp and the like, of the host's and NumPy's own.
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-12, "atol": 1e-12}}
#: Work space: the twins leave it alone.
WORK = {"partials", "ticket"}


class Case(NamedTuple):
    """A launch: arrays (or lists of them), options, and what the geometry is told to choose."""

    kernel: str
    name: str
    arrays: list[Any]
    options: dict[str, Any]
    tile: int | None = None

    def __str__(self) -> str:
        return f"{self.kernel}-{self.name}"


# ---- arrays -----------------------------------------------------------------------------------------------------------


def out(*shape: int, dtype: Any) -> numpy.ndarray:
    """A destination, poisoned: what a kernel leaves out shows."""
    dtype = numpy.dtype(dtype)
    return numpy.full(shape, numpy.nan if dtype.kind == "f" else 1, dtype)


class Make:
    """Arrays of one floating dtype, the same ones every time."""

    def __init__(self, dtype: str) -> None:
        self.dtype = numpy.dtype(dtype)
        self.random = numpy.random.default_rng(3)

    def out(self, *shape: int) -> numpy.ndarray:
        return out(*shape, dtype=self.dtype)

    def normal(self, *shape: int) -> numpy.ndarray:
        return self.random.normal(size=shape).astype(self.dtype)

    def positive(self, *shape: int) -> numpy.ndarray:
        return self.random.uniform(0.1, 2.0, shape).astype(self.dtype)


# ---- cases: ragged and aligned sizes for each kernel ------------------------------------------------------------------

GEMM_SIZES = {64: ((1, 1, 1), (3, 2, 0), (64, 64, 16), (70, 66, 37)), 128: ((128, 128, 16), (129, 132, 19))}
COUNTS = (1, 3, 4, 1030)

_cases: dict[str, Callable[[Make], Iterator[tuple[Any, ...]]]] = {}


def cases(function: Callable[[Make], Iterator[tuple[Any, ...]]]) -> None:
    """Decorator: a generator of (name, arrays, options) or (name, arrays, options, tile) for the kernel of its name."""
    _cases[function.__name__] = function


def gemm_sizes() -> Iterator[tuple[int, tuple[int, int, int]]]:
    return ((tile, size) for tile, sizes in GEMM_SIZES.items() for size in sizes)


@cases
def linear_forward(make: Make) -> Iterator[tuple[Any, ...]]:
    for (tile, (n, o, i)), (name, row) in itertools.product(gemm_sizes(), ACTIVATIONS.items()):
        z, b = (make.out(n, o), make.normal(o)) if row.saves == "preactivation" else (None, None if n == 70 else make.normal(o))
        arrays = [make.out(n, o), z, make.normal(n, i), make.normal(o, i), b]
        yield f"{name} {n}x{o}x{i} tile {tile}", arrays, {"activation": name, "alpha": row.alpha}, tile


@cases
def linear_backward_input(make: Make) -> Iterator[tuple[Any, ...]]:
    for (tile, (n, i, o)), (name, row) in itertools.product(gemm_sizes(), ACTIVATIONS.items()):
        arrays = [make.out(n, i), make.normal(n, o), make.normal(o, i), make.positive(n, i) - make.dtype.type(0.05)]
        yield f"{name} {n}x{i}x{o} tile {tile}", arrays, {"activation": name, "alpha": row.alpha}, tile


@cases
def linear_backward_weight(make: Make) -> Iterator[tuple[Any, ...]]:
    for tile, (o, i, n) in gemm_sizes():
        for dw, db, scale in ((True, True, True), (True, False, False), (False, True, True)):
            arrays = [make.out(o, i) if dw else None, make.out(o) if db else None, make.normal(n, o), make.normal(n, i)]
            yield f"{o}x{i}x{n} tile {tile} {dw} {db}", [*arrays, make.positive(1) if scale else None], {}, tile


@cases
def linear_backward_weight_partial(make: Make) -> Iterator[tuple[Any, ...]]:
    for o, i, n, slices in ((3, 2, 5, 4), (66, 65, 70, 3), (8, 7, 64, 2)):
        yield f"{o}x{i}x{n}", [make.out(slices, o, i + 1), make.normal(n, o), make.normal(n, i)], {"slices": slices}


@cases
def linear_backward_weight_reduce(make: Make) -> Iterator[tuple[Any, ...]]:
    for o, i, slices in ((1, 1, 1), (13, 30, 5)):
        for dw, db, scale in ((True, True, True), (True, False, False), (False, True, True)):
            arrays = [make.out(o, i) if dw else None, make.out(o) if db else None, make.normal(slices, o, i + 1)]
            yield f"{o}x{i} {dw} {db}", [*arrays, make.positive(1) if scale else None], {}


@cases
def matmul_forward(make: Make) -> Iterator[tuple[Any, ...]]:
    """96 products are enough for the large tile."""
    for (j, m, n, k), flip_a, flip_b in itertools.product(
        ((1, 1, 1, 1), (2, 70, 66, 37), (96, 5, 3, 7), (96, 8, 4, 16)), (False, True), (False, True)
    ):
        a = make.normal(j, k, m).transpose(0, 2, 1) if flip_a else make.normal(j, m, k)
        b = make.normal(j, n, k).transpose(0, 2, 1) if flip_b else make.normal(j, k, n)
        yield f"{j}x{m}x{n}x{k} {flip_a} {flip_b}", [make.out(j, m, n), a, b], {}
    one = numpy.broadcast_to(make.normal(1, 5, 6), (3, 5, 6))
    yield "broadcast and reversed", [make.out(3, 5, 4), one, make.normal(3, 6, 8)[:, ::-1, ::2]], {}


@cases
def activation_forward(make: Make) -> Iterator[tuple[Any, ...]]:
    for count, (name, row) in itertools.product(COUNTS, ACTIVATIONS.items()):
        yield f"{name} {count}", [make.out(count), 3 * make.normal(count)], {"activation": name, "alpha": row.alpha}


@cases
def activation_backward(make: Make) -> Iterator[tuple[Any, ...]]:
    for count, (name, row) in itertools.product(COUNTS, ACTIVATIONS.items()):
        options = {"activation": name, "alpha": row.alpha}
        yield f"{name} {count}", [make.out(count), make.normal(count), make.positive(count)], options
        dy = make.normal(count)
        yield f"{name} {count} in place", [dy, dy, make.positive(count)], options


def loss_outputs(make: Make, value: int, shape: tuple[int, ...], reduction: str) -> list[Any]:
    if reduction == "none":
        return [make.out(value), make.out(*shape), None, None, None]
    ticket = numpy.zeros(1, numpy.uint32)
    factor = make.out(1) if reduction == "mean" else None
    return [make.out(1), make.out(*shape), factor, make.out(2 * MAX_BLOCKS), ticket]


@cases
def elementwise_loss(make: Make) -> Iterator[tuple[Any, ...]]:
    for count, loss, reduction in itertools.product((*COUNTS, 3001), ELEMENTWISE_LOSSES, REDUCTIONS):
        y = make.random.uniform(0, 1, count).astype(make.dtype)
        arrays = [*loss_outputs(make, count, (count,), reduction), make.normal(count), y]
        yield f"{loss} {reduction} {count}", arrays, {"loss": loss, "reduction": reduction, "delta": 0.7}


@cases
def cross_entropy_labels(make: Make) -> Iterator[tuple[Any, ...]]:
    for (n, c), reduction in itertools.product(((1, 1), (9, 10), (37, 33), (3, 1030)), REDUCTIONS):
        labels = make.random.integers(0, c, n)
        labels[n // 2 :: 3] = -100 if n > 1 else 0
        arrays = [*loss_outputs(make, n, (n, c), reduction), 3 * make.normal(n, c), labels]
        yield f"{reduction} {n}x{c}", arrays, {"reduction": reduction, "ignore_index": -100}


@cases
def cross_entropy_soft(make: Make) -> Iterator[tuple[Any, ...]]:
    for (n, c), reduction in itertools.product(((1, 1), (9, 10), (37, 33), (3, 1030)), REDUCTIONS):
        targets = make.positive(n, c)
        targets /= targets.sum(1, keepdims=True)
        yield f"{reduction} {n}x{c}", [*loss_outputs(make, n, (n, c), reduction), make.normal(n, c), targets], {"reduction": reduction}


@cases
def dropout_apply(make: Make) -> Iterator[tuple[Any, ...]]:
    for count in COUNTS:
        yield f"{count}", [make.out(count), make.normal(count), make.random.random(count) < 0.5], {"scale": 2.0}


@cases
def erf_forward(make: Make) -> Iterator[tuple[Any, ...]]:
    for count in COUNTS:
        yield f"{count}", [make.out(count), 2 * make.normal(count)], {}


@cases
def scatter_add(make: Make) -> Iterator[tuple[Any, ...]]:
    for count in (1, 7, 600):
        drawn = make.random.integers(0, 5, count)
        order = numpy.argsort(drawn, kind="stable")
        yield f"{count}", [make.normal(5), make.normal(count), drawn[order], order], {}


def states(make: Make) -> Iterator[tuple[int, numpy.ndarray]]:
    """Counts and states; at the second state the counter's lower half overflows."""
    for count, state in itertools.product((1, 6, 2051), ((7, 0), (2**64 - 1, 2**64 - 3))):
        yield count, numpy.array(state, numpy.uint64)


@cases
def random_uniform(make: Make) -> Iterator[tuple[Any, ...]]:
    for (count, state), (low, high) in itertools.product(states(make), ((0.0, 1.0), (-0.3, 1.7))):
        yield f"{count} {low} {state}", [make.out(count), state], {"low": low, "high": high}


@cases
def random_normal(make: Make) -> Iterator[tuple[Any, ...]]:
    for (count, state), (mean, std) in itertools.product(states(make), ((0.0, 1.0), (0.3, 1.7))):
        yield f"{count} {mean} {state}", [make.out(count), state], {"mean": mean, "std": std}


@cases
def random_integers(make: Make) -> Iterator[tuple[Any, ...]]:
    for count, state in states(make):
        yield f"{count} {state}", [out(count, dtype="int64"), state], {"low": -3, "high": 10}


@cases
def random_bernoulli(make: Make) -> Iterator[tuple[Any, ...]]:
    for count, state in states(make):
        yield f"{count} {state}", [out(count, dtype="bool"), state], {"probability": 0.3}


@cases
def random_advance(make: Make) -> Iterator[tuple[Any, ...]]:
    yield "5", [numpy.array([7, 2**64 - 3], numpy.uint64)], {"blocks": 5}


def tensors_of(make: Make, sizes: tuple[int, ...]) -> Callable[[], list[numpy.ndarray]]:
    return lambda: [make.positive(n) for n in sizes]


@cases
def sgd_step(make: Make) -> Iterator[tuple[Any, ...]]:
    for sizes, momentum, nesterov, maximize in itertools.product(((1,), (5, 2049, 4096, 3)), *[(False, True)] * 3):
        some = tensors_of(make, sizes)
        steps = [numpy.full(1, float(i % 2)) for i in range(len(sizes))]
        arrays = [some(), some() if momentum else None, steps, some(), numpy.full(1, 0.1), numpy.zeros(1, numpy.uint32)]
        options = {"momentum": 0.9 * momentum, "dampening": 0.1, "weight_decay": 0.01, "nesterov": nesterov, "maximize": maximize}
        yield f"{len(sizes)} {momentum} {nesterov} {maximize}", arrays, options


@cases
def adam_step(make: Make) -> Iterator[tuple[Any, ...]]:
    many = tuple(1 + i % 3 for i in range(MAX_TENSORS))
    for sizes, amsgrad, decoupled, maximize in itertools.product((many, (5, 2049, 4096)), *[(False, True)] * 3):
        some = tensors_of(make, sizes)
        steps = [numpy.full(1, float(i % 4)) for i in range(len(sizes))]
        largest = some() if amsgrad else None
        arrays = [some(), some(), some(), largest, steps, some(), numpy.full(1, 0.1), numpy.zeros(1, numpy.uint32)]
        options = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01, "decoupled": decoupled, "maximize": maximize}
        yield f"{len(sizes)} {amsgrad} {decoupled} {maximize}", arrays, options


def all_cases(name: str, dtype: str) -> list[Case]:
    return [Case(name, *case) for case in _cases[name](Make(dtype))]


# ---- running ----------------------------------------------------------------------------------------------------------


def converted(arrays: list[Any], convert: Callable[[numpy.ndarray], Any]) -> list[Any]:
    """Copies, in lists, too; what is one array in two places stays one."""
    copies: dict[int, Any] = {}

    def copy(a: Any) -> Any:
        if a is None or isinstance(a, list):
            return a and [copy(entry) for entry in a]
        if id(a) not in copies:
            copies[id(a)] = convert(a)
        return copies[id(a)]

    return [copy(a) for a in arrays]


def emulated(array: numpy.ndarray) -> Any:
    """A copy on the device "emulated", of the same strides."""
    if array.base is None:
        return device.move(array, device.Device("emulated"))
    low, high = numpy.lib.array_utils.byte_bounds(array)
    memory = device.empty((high - low,), numpy.uint8, device.Device("emulated"))
    copy = numpy.ndarray(array.shape, array.dtype, memory, array.ctypes.data - low, array.strides)
    if 0 not in array.strides:
        copy[...] = array
    else:
        copy[:1] = array[:1]
    return copy.view(device.EmulatedArray)


@pytest.fixture
def choose_tile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    """Small products in the large tile, too."""
    chosen = linear.gemm_tile

    def choose(case: Case) -> None:
        monkeypatch.setattr(linear, "gemm_tile", (lambda rows, columns: case.tile) if case.tile else chosen)

    return choose


def names_of(kernel: Any, arrays: list[Any]) -> list[tuple[str, int, Any]]:
    """(parameter, its position, array) of every array, those in lists one by one."""
    pairs = zip(kernel.parameters, itertools.count(), arrays)
    return [(name, at, entry) for name, at, a in pairs for entry in (a if isinstance(a, list) else [a]) if entry is not None]


needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
every_kernel = pytest.mark.parametrize("name", list(_cases))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def test_every_kernel_has_cases() -> None:
    assert set(_cases) == set(KERNELS)


@every_kernel
def test_cases_choose_every_specialisation(name: str, choose_tile: Callable[[Case], None]) -> None:
    kernel, found = KERNELS[name], set()
    for dtype in DTYPES:
        for case in all_cases(name, dtype):
            choose_tile(case)
            geometry = kernel.launch_geometry(case.arrays, case.options)
            found.add(kernel.expression(kernel.floating([a[0] if isinstance(a, list) else a for a in case.arrays]), geometry))
    assert {expression for expression, _ in _geometries(kernel)} <= found


@needs_compiler
@every_dtype
@every_kernel
def test_source_in_check_mode_does_what_the_twin_does(
    name: str, dtype: str, choose_tile: Callable[[Case], None]
) -> None:
    kernel = KERNELS[name]
    for case in all_cases(name, dtype):
        choose_tile(case)
        mine, theirs = converted(case.arrays, emulated), converted(case.arrays, numpy.copy)
        with emulator.check():
            kernel(*mine, **case.options)
        with numpy.errstate(all="ignore"):
            kernel.twin(*theirs, **case.options)
        triples = zip(names_of(kernel, mine), names_of(kernel, theirs), names_of(kernel, case.arrays))
        written = {id(a) for _, at, a in names_of(kernel, mine) if at < kernel.outputs}  # also where it is an input, too
        for (parameter, at, a), (_, _, expected), (_, _, start) in triples:
            what, result = f"{case}: {parameter}", a.get()
            if parameter == "ticket":
                assert result[0] == 0, f"{what} is not ready for the next launch"
            elif parameter in WORK:
                continue
            elif id(a) not in written:
                assert result.tobytes() == start.tobytes(), f"{what} is an input, and changed"
            elif name.startswith("random"):
                assert result.tobytes() == expected.tobytes(), f"{what}: not the bits of the twin"
            else:
                assert not numpy.isnan(expected).any(), f"{what}: the twin left something out"
                numpy.testing.assert_allclose(result, expected, **TOLERANCE[dtype], err_msg=what)


@needs_compiler
@every_dtype
@every_kernel
def test_schedules_do_not_change_the_bits(name: str, dtype: str, choose_tile: Callable[[Case], None]) -> None:
    kernel = KERNELS[name]
    for case in all_cases(name, dtype):
        choose_tile(case)
        results = set()
        for schedule in emulator.SCHEDULES:
            arrays = converted(case.arrays, emulated)
            with emulator.check(False, schedule=schedule, seed=5):
                kernel(*arrays, **case.options)
            results.add(b"".join(a.get().tobytes() for _, _, a in names_of(kernel, arrays)))
        assert len(results) == 1, f"{case}: the bits depend on which thread runs first"


def test_suite_runs_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUNET_DEVICE, .to(), and a launch that is refused as on a card."""
    monkeypatch.setenv("GPUNET_DEVICE", "emulated")
    x = gpunet.tensor([1.0, 2.0])
    assert str(x.device) == "emulated" and type(x.array) is device.EmulatedArray
    assert x.cpu().device == "cpu" and x.cpu().to("emulated").device == x.device
    with pytest.raises(gpunet.errors.DeviceError, match=r"\.cpu\(\)"):
        x.numpy()
    with pytest.raises(gpunet.errors.DeviceError, match="cpu"):
        x + gpunet.tensor([1.0, 2.0], device="cpu")
