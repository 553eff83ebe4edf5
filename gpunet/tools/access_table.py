"""Memory access of the kernels: the second part of docs/kernels.md, counted by the emulator's lint.

Every kernel is launched in float32 on whole tiles and rows, in the specialisations that the page shows. A test fails if a
hot kernel has bank conflicts or uncoalesced accesses that are not on the page or have no known reason.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy

from gpunet import emulator
from gpunet.backend.devices import Array, Device
from gpunet.emulator import Access
from gpunet.launch.faults import RECORD_SIZE
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.cases.case import Case, Samples, View
from gpunet.ops.cases.losses import loss_arrays
from gpunet.ops.losses import ELEMENTWISE_LOSSES
from gpunet.tools.representatives import is_hot, representatives

#: Accepted waste: pattern of specialisations, kinds ("banks", "reads" or "writes"), reason.
KNOWN_WASTE: tuple[tuple[str, str, str], ...] = (
    ("scatter_add*", "reads writes", "the indices scatter the destinations; one thread adds all terms of a destination"),
    ("gather_rows*", "reads", "the indices choose the elements; rows of elements are read whole"),
    ("scatter_rows*", "reads writes", "the indices choose the destinations; rows of elements are written whole"),
    (
        "random_integers*", "writes",
        "the four int64 of a thread take two 16-byte stores of half a sector each, which the L2 cache merges",
    ),
)  # fmt: skip

#: Waste up to this fraction of the ideal number of transactions is ignored.
SMALL = 0.02


# ---- launches ---------------------------------------------------------------------------------------------------------

_COUNT = 8192
_TILES = ((128, 128, 64), (128, 96 * 128, 32))  # (rows, columns, depth) that select tiles of 64 and of 128

_makers: dict[str, Callable[[Samples], Iterator[Any]]] = {}


def _launches(make: Callable[[Samples], Iterator[Any]]) -> Callable[[Samples], Iterator[Any]]:
    """Register a function that yields (label, arrays, options) of launches of the kernel of its name."""
    _makers[make.__name__] = make
    return make


def _activations(kernel: Kernel) -> list[str]:
    """Names of the activations in the representatives of a kernel."""
    structs = {row.struct: name for name, row in ACTIVATIONS.items()}
    words = {word for expression in representatives(kernel) for word in re.findall(r"\w+", expression)}
    return [name for struct, name in structs.items() if struct in words]


@_launches
def linear_forward(s: Samples) -> Iterator[Any]:
    for name in _activations(KERNELS["linear_forward"]):
        for n, o, i in _TILES:
            z = s.blank(n, o) if ACTIVATIONS[name].saves == "preactivation" else None
            options = {"activation": name, "alpha": 0.0}
            yield f"({n}, {i}) -> ({n}, {o})", [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), s.normal(o)], options


@_launches
def linear_backward_input(s: Samples) -> Iterator[Any]:
    for name in _activations(KERNELS["linear_backward_input"]):
        for n, i, o in _TILES:
            arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved(name, n, i)]
            yield f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": name, "alpha": 0.0}


@_launches
def linear_backward_weight(s: Samples) -> Iterator[Any]:
    for o, i, n in _TILES:
        yield f"({n}, {o}), ({n}, {i})", [s.blank(o, i), s.blank(o), s.normal(n, o), s.normal(n, i), s.positive(1)], {}


@_launches
def linear_backward_weight_partial(s: Samples) -> Iterator[Any]:
    o, i, n, slices = 64, 128, 256, 4
    yield (
        f"({n}, {o}), ({n}, {i}) in 4 slices",
        [s.blank(slices, o * i + o), s.normal(n, o), s.normal(n, i)],
        {"slices": slices},
    )


@_launches
def linear_backward_weight_reduce(s: Samples) -> Iterator[Any]:
    o, i, slices = 64, 128, 4
    yield f"{slices} of ({o}, {i})", [s.blank(o, i), s.blank(o), s.normal(slices, o * i + o), s.positive(1)], {}


@_launches
def matmul_forward(s: Samples) -> Iterator[Any]:
    def swapped(x: Array) -> Array:
        return x.transpose(0, 2, 1)

    for j, m, n, k in ((1, 128, 128, 64), (96, 128, 128, 32)):
        a, b = s.normal(j, m, k), s.normal(j, k, n)
        transposed_a, transposed_b = View(s.normal(j, k, m), swapped), View(s.normal(j, n, k), swapped)
        for left, right, label in ((a, b, "a b"), (a, transposed_b, "a b^T"), (transposed_a, b, "a^T b")):
            yield f"{label}, ({j}, {m}, {k}), ({j}, {k}, {n})", [s.blank(j, m, n), left, right], {}


@_launches
def activation_forward(s: Samples) -> Iterator[Any]:
    for name in _activations(KERNELS["activation_forward"]):
        yield f"({_COUNT},)", [s.blank(_COUNT), s.normal(_COUNT)], {"activation": name, "alpha": 0.0}


@_launches
def activation_backward(s: Samples) -> Iterator[Any]:
    for name in _activations(KERNELS["activation_backward"]):
        arrays = [s.blank(_COUNT), s.normal(_COUNT), s.saved(name, _COUNT)]
        yield f"({_COUNT},)", arrays, {"activation": name, "alpha": 0.0}


@_launches
def dropout_apply(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT), s.normal(_COUNT), s.random.random(_COUNT) < 0.5], {"scale": 2.0}


@_launches
def erf_forward(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT), s.normal(_COUNT)], {}


@_launches
def scatter_add(s: Samples) -> Iterator[Any]:
    unsorted = s.random.integers(0, 1024, 4096)
    order = numpy.argsort(unsorted, kind="stable")
    yield "4096 into 1024", [s.normal(1024), s.normal(4096), unsorted[order].astype("int64"), order.astype("int64")], {}


@_launches
def index_positions(s: Samples) -> Iterator[Any]:
    options = {"count": 4096, "size": 1024, "repeat": 1, "length": 4096, "span": 4096, "inner": 1, "wraps": True}
    for continues in (False, True):
        positions = s.blank(4096, dtype="int64")
        arrays = [positions, s.blank(RECORD_SIZE, dtype="int64"), s.random.integers(-1024, 1024, 4096)]
        yield "4096 of 1024", arrays, {**options, "continues": continues, "code": 1, "detail": 0}


@_launches
def gather_rows(s: Samples) -> Iterator[Any]:
    for inner, dtype in itertools.product((1, 64), ("uint8", "uint16", "uint32", "uint64")):
        x = s.random.integers(0, 200, (1024, inner)).astype(dtype)
        arrays = [s.blank(4096 // inner * inner * x.itemsize, dtype="uint8"), x.reshape(-1).view("uint8")]
        options = {"size": 1024, "inner": inner, "itemsize": x.itemsize, "fill": 0}
        yield f"{4096 // inner} of (1024, {inner})", [*arrays, s.random.integers(0, 1024, 4096 // inner)], options


@_launches
def scatter_rows(s: Samples) -> Iterator[Any]:
    for inner, dtype in itertools.product((1, 64), ("uint8", "uint16", "uint32", "uint64")):
        count = 4096 // inner
        unsorted = s.random.integers(0, 1024, count)
        order = numpy.argsort(unsorted, kind="stable")
        x, values = (s.random.integers(0, 200, (n, inner)).astype(dtype) for n in (1024, count))
        arrays = [x.reshape(-1).view("uint8"), values.reshape(-1).view("uint8"), unsorted[order], order]
        yield f"{count} into (1024, {inner})", arrays, {"size": 1024, "inner": inner, "itemsize": x.itemsize}


@_launches
def elementwise_loss(s: Samples) -> Iterator[Any]:
    for loss in ELEMENTWISE_LOSSES:
        arrays = [*loss_arrays(s, "mean", (_COUNT,), (_COUNT,)), s.normal(_COUNT), s.positive(_COUNT) / 2]
        yield f"({_COUNT},)", arrays, {"loss": loss, "reduction": "mean", "delta": 0.5}


_ROWS = ((64, 1024), (8, 4096), (1024, 10))


@_launches
def cross_entropy_labels(s: Samples) -> Iterator[Any]:
    for rows, classes in _ROWS:
        arrays = [
            *loss_arrays(s, "mean", (rows, classes), (rows,)),
            s.blank(RECORD_SIZE, dtype="int64"),
            s.normal(rows, classes),
            s.random.integers(0, classes, rows).astype("int64"),
        ]
        yield f"({rows}, {classes})", arrays, {"reduction": "mean", "ignore_index": -100, "code": 1}


@_launches
def cross_entropy_soft(s: Samples) -> Iterator[Any]:
    for rows, classes in _ROWS:
        destinations = loss_arrays(s, "mean", (rows, classes), (rows,))
        arrays = [*destinations, s.normal(rows, classes), s.positive(rows, classes)]
        yield f"({rows}, {classes})", arrays, {"reduction": "mean"}


def _state() -> numpy.ndarray:
    return numpy.array([1, 2], "uint64")


@_launches
def random_uniform(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT), _state()], {"low": 0.0, "high": 1.0}


@_launches
def random_normal(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT), _state()], {"mean": 0.0, "std": 1.0}


@_launches
def random_integers(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT, dtype="int64"), _state()], {"low": 0, "high": 10}


@_launches
def random_bernoulli(s: Samples) -> Iterator[Any]:
    yield f"({_COUNT},)", [s.blank(_COUNT, dtype="bool"), _state()], {"probability": 0.5}


@_launches
def random_advance(s: Samples) -> Iterator[Any]:
    yield "1 block", [_state()], {"blocks": 1}


def _tensors(s: Samples) -> list[numpy.ndarray]:
    return [s.positive(128, 64), s.positive(128)]


def _steps_to_ticket(grads: list[numpy.ndarray], *hyperparameters: float) -> list[Any]:
    """The last arguments of an optimizer's launch: steps, gradients, hyperparameters, ticket."""
    return [[numpy.zeros(1) for _ in grads], grads, numpy.array(hyperparameters), numpy.zeros(1, "uint32")]


@_launches
def sgd_step(s: Samples) -> Iterator[Any]:
    for momentum in (0.0, 0.9):
        options = {"dampened": False, "decays": False, "nesterov": False, "maximize": False}
        momenta = _tensors(s) if momentum else None
        arrays = [_tensors(s), momenta, *_steps_to_ticket(_tensors(s), 0.01, momentum, 0.0, 0.0)]
        yield "(128, 64), (128,)", arrays, options


@_launches
def adam_step(s: Samples) -> Iterator[Any]:
    for amsgrad, decoupled in ((False, False), (False, True), (True, False)):
        options = {"decays": False, "decoupled": decoupled, "maximize": False}
        largest = _tensors(s) if amsgrad else None
        last = _steps_to_ticket(_tensors(s), 0.01, 0.9, 0.999, 1e-8, 0.0)
        yield "(128, 64), (128,)", [_tensors(s), _tensors(s), _tensors(s), largest, *last], options


@_launches
def gradient_norm(s: Samples) -> Iterator[Any]:
    for order in (1.0, 2.0, 3.5, numpy.inf):
        arrays = [_tensors(s), s.blank(1), s.blank(5), s.blank(1, dtype="uint32")]
        yield "(128, 64), (128,)", arrays, {"order": order, "first": True, "last": True}


@_launches
def clip_by_norm(s: Samples) -> Iterator[Any]:
    yield "(128, 64), (128,)", [_tensors(s), s.positive(1)], {"max_norm": 0.01}


@_launches
def clip_by_value(s: Samples) -> Iterator[Any]:
    yield "(128, 64), (128,)", [_tensors(s)], {"limit": 0.5}


@_launches
def schedule_step(s: Samples) -> Iterator[Any]:
    arrays = [s.positive(1), None, numpy.array([3.0]), numpy.array([0.3, 5.0, 0.5]), None]
    yield "(1,)", arrays, {"kind": "step", "low": 0.0, "high": 0.0}


def launches(kernel: Kernel) -> list[Case]:
    """The launches of a kernel in the table, at least one per float32 representative."""
    samples = Samples("float32", 0)
    cases = [
        Case(kernel, label, "float32", arrays, options) for label, arrays, options in _makers[kernel.name](samples)
    ]
    return [case for case in cases if case.expression() in representatives(kernel)]


# ---- counting ---------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The counts of one launch."""

    launch: str  # "linear_forward<float, 64, Relu>, (128, 64) -> (128, 128)"
    degree: int  # ways of the worst bank conflict; 0 without shared memory
    banks: float  # wavefronts of shared memory above the ideal number, as a fraction of it
    reads: float  # efficiency of global reads: ideal / moved sectors; 1 without reads
    writes: float  # efficiency of global writes
    places: tuple[str, ...]  # "file:line" of the waste

    def cells(self) -> list[str]:
        """The cells of the table: bank conflicts, reads, writes, lines."""
        banks = "-" if not self.degree else "none" if self.degree == 1 else f"{self.degree} ways, +{self.banks:.0%}"
        return [banks, f"{self.reads:.0%}", f"{self.writes:.0%}", ", ".join(self.places)]

    def wasted(self) -> list[str]:
        """The kinds of waste above :data:`SMALL`: "banks", "reads", "writes"."""
        amounts = {"banks": self.banks, "reads": 1 / self.reads - 1, "writes": 1 / self.writes - 1}
        return [name for name, amount in amounts.items() if amount > SMALL]


def lint(case: Case) -> Found:
    """Launch a case on the device "emulated" and count its accesses.

    Raises:
        CompileError: g++ is not installed.
    """
    with emulator.lint() as report:
        case.kernel(*case.on_device(Device("emulated")), **case.options)
    accesses = report.accesses()
    shared = [a for a in accesses if a.memory == "shared"]
    reads, writes = ([a for a in accesses if a.memory == "global" and a.write == write] for write in (False, True))
    found = Found(
        f"{case.expression()}, {case.label}",
        max((a.degree for a in shared), default=0),
        1 / _efficiency(shared) - 1,
        _efficiency(reads),
        _efficiency(writes),
        (),
    )
    places = dict.fromkeys(_place(access) for access in report.findings(SMALL))
    return found._replace(places=tuple(places)[:3] if found.wasted() else ())


def _efficiency(accesses: list[Access]) -> float:
    return sum(a.ideal for a in accesses) / sum(a.transactions for a in accesses) if accesses else 1.0


def _place(access: Access) -> str:
    """The line to show: that of the caller for accesses in pack.cuh."""
    frames = [f"{access.file}:{access.line}", *access.calls]
    return next((frame for frame in frames if not frame.startswith("pack.cuh")), frames[0])


def why_it_wastes(launch: str, kind: str) -> str | None:
    """The reason of an accepted waste, or None."""
    return next((reason for p, kinds, reason in KNOWN_WASTE if kind in kinds.split() and fnmatchcase(launch, p)), None)


def complaints(found: Found, cells: list[str], same_compiler: bool) -> list[str]:
    """Problems of a launch: waste of a hot kernel without a reason or above that on the page, or outdated cells.

    Args:
        found: the counts of the launch.
        cells: its cells on the page; empty if the page has no such row.
        same_compiler: whether the page is from this version of g++; otherwise only hot kernels are checked.
    """
    wrong = []
    if is_hot(found.launch):
        wrong += [
            f"{found.launch} wastes {kind} at {', '.join(found.places)}, and KNOWN_WASTE of "
            "gpunet/tools/access_table.py has no reason for it"
            for kind in found.wasted()
            if why_it_wastes(found.launch, kind) is None
        ]
        if cells:
            wrong += [
                f"{found.launch}: {column} were {before}, and are {now}"
                for column, before, now in zip(("bank conflicts", "reads", "writes"), cells, found.cells())
                if _is_worse(before, now)
            ]
    if same_compiler and cells != found.cells():
        wrong.append(f"{found.launch}: docs/kernels.md has {cells}, but the lint counts {found.cells()}")
    return wrong


def _is_worse(before: str, now: str) -> bool:
    def waste(cell: str) -> float:  # in percent
        numbers = re.findall(r"\d+(?=%)", cell)
        return 0.0 if not numbers else float(numbers[0]) if "ways" in cell else 100.0 - float(numbers[0])

    return waste(now) > waste(before) + 100 * SMALL


# ---- the page ---------------------------------------------------------------------------------------------------------

TITLE = "## Memory access"
_TOP = """
{title}

Accesses per warp, counted by the emulator (`gpunet.emulator.lint()`) in float32 on whole tiles and rows. Bank conflicts: the
ways of the worst conflict, and the wavefronts of shared memory above the ideal number. Reads and writes of global memory: the
32-byte sectors that the data fill, in percent of the sectors that are moved, without caches. The last column has the lines
of inefficient accesses.

Compiled by g++ {version}.
"""
_COLUMNS = ("launch", "bank conflicts", "reads", "writes", "lines")


def compiler() -> str:
    """Version of g++."""
    return emulator.compiler.version().split()[1]


def render() -> str:
    """The second part of the page: memory access and known waste."""
    kernels = sorted(KERNELS.values(), key=lambda k: (k.file, k.name))
    found = [lint(case) for kernel in kernels for case in launches(kernel)]
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *((f"`{f.launch}`", *f.cells()) for f in found)]
    known = [
        f"- `{pattern}` ({kinds}): {reason}"
        for pattern, kinds, reason in KNOWN_WASTE
        if any(fnmatchcase(f.launch, pattern) and set(kinds.split()) & set(f.wasted()) for f in found)
    ]
    lines = [_TOP.format(title=TITLE, version=compiler()), *(f"| {' | '.join(row)} |" for row in rows)]
    if known:
        lines += ["", "### Known waste", "", *known]
    return "\n".join(lines) + "\n"


def parse(page: str) -> tuple[str, dict[str, list[str]]]:
    """Parse the second part of the page: the version of g++, and cells by launch."""
    part = page.partition(TITLE)[2]
    version = re.search(r"^Compiled by g\+\+ (\S+)\.$", part, re.MULTILINE)
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*$", part, re.MULTILINE)]
    return version[1] if version else "", {launch: cells for launch, *cells in rows}
