"""Facts of a kernel for tools and tests: cases, cost, PyTorch equivalent, known waste.  No other table is keyed by a kernel.

The cases file of the kernel's family (in ``gpunet/ops/cases/``, or ``gpunet/optim/cases.py``) declares them, so that
``import gpunet`` loads none of them:

    @dropout_apply.cases("edge")
    def _(s):
        for count in COUNTS:
            yield f"({count},)", [s.blank(count), s.normal(count), s.random.random(count) < 0.5], {"scale": 1.25}

    @dropout_apply.cost
    def _(y, x, mask, *, scale):
        return Cost(y.size, num_bytes(y, x, mask))

    @dropout_apply.equivalent
    def _(torch, y, x, mask, *, scale):
        return lambda: torch.ops.aten.native_dropout_backward(x, mask, scale)

    add_rows.describe(waste={"reads writes": "the indices scatter the destinations"})
    matmul_forward.describe(floors={("float, 128, *", "*"): Floor(0.81)})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

#: What a case is for:
#:     edge            checks the kernel: ragged and empty sizes, unaligned arrays, extreme values, every specialisation
#:     representative  a launch on whole tiles and rows, whose specialisation and memory accesses docs/kernels.md shows
#:     bench           the one launch that benchmarks time
TAGS = ("edge", "representative", "bench")


class Cost(NamedTuple):
    """The work of a launch."""

    flops: float  # floating-point operations; a function such as exp, or an activation, counts as one
    bytes: float  # memory traffic if caches were infinite: what must be read, and what is written

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes


class Product(NamedTuple):
    """The extents of the matrix product that a launch computes, for the predicted time."""

    rows: int
    columns: int
    depth: int
    batches: int = 1
    terms: int = 1  # products by which a multiply-add is computed, see TF32_3 of gpunet.ops.gemm


class Floor(NamedTuple):
    """What the main loop of a specialisation must reach; see :mod:`gpunet.tools.floors`.  It must not use local memory either."""

    arithmetic: float  # the least share of arithmetic of the issued instructions
    shared: float = 1.0  # the most cycles of shared memory for each cycle of arithmetic
    per_load: float = 0.0  # the least number of HMMA for each LDSM of four matrices


def _flat(arrays: Iterable[Any]) -> Iterator[Any]:
    for array in arrays:
        if array is not None:
            yield from array if isinstance(array, list) else [array]


def num_elements(*arrays: Any) -> int:
    """Return the number of elements of arrays, of lists of arrays, and of None (0)."""
    return sum(a.size for a in _flat(arrays))


def num_bytes(*arrays: Any) -> int:
    """Return the bytes of these elements."""
    return sum(a.size * a.dtype.itemsize for a in _flat(arrays))


class Facts:
    """The facts of a kernel.

    Attributes:
        case_makers: (tags, generator) pairs; :mod:`gpunet.tools.kernel_cases` makes the cases.
        is_hot: whether it takes a large part of a training step: its waste and its spills need a reason.
        waste: kinds of wasted memory accesses ("banks", "reads", "writes", or "repeats" of reads) -> the reason.
        spills: (template arguments as a pattern, architectures or "*") -> the reason that registers spill.
        floors: the same -> what the main loop of the machine code must reach; the first that matches holds.
    """

    def __init__(self) -> None:
        self.case_makers: list[tuple[frozenset[str], Callable[[Any], Iterator[Any]]]] = []
        self.is_hot = False
        self.waste: Mapping[str, str] = {}
        self.spills: Mapping[tuple[str, str], str] = {}
        self.floors: Mapping[tuple[str, str], Floor] = {}
        self._cost: Callable[..., Cost] | None = None
        self._product: Callable[..., Product | Sequence[Product]] | None = None
        self._multiply_adds: Callable[..., int] | None = None
        self._equivalent: Callable[..., Callable[[], object]] | None = None

    def describe(
        self,
        *,
        is_hot: bool = False,
        waste: Mapping[str, str] | None = None,
        spills: Mapping[tuple[str, str], str] | None = None,
        floors: Mapping[tuple[str, str], Floor] | None = None,
    ) -> None:
        """Set the attributes."""
        self.is_hot, self.waste, self.spills, self.floors = is_hot, waste or {}, spills or {}, floors or {}

    def cases(self, *tags: str) -> Callable[[F], F]:
        """Decorator of a generator of cases with these :data:`TAGS`.

        It takes a ``Samples`` and yields ``(label, arrays, options)``, or ``(label, arrays, options, grid, twin)`` to
        replace the grid and the twin (see ``gpunet.ops.cases.case.Case``).  Destinations are zeros.
        """
        assert tags and {*tags} <= {*TAGS}

        def register(make: F) -> F:
            self.case_makers.append((frozenset(tags), make))
            return make

        return register

    def cost(self, function: F) -> F:
        """Decorator of the function that returns the :class:`Cost` of a launch."""
        self._cost = function
        return function

    def launch_cost(self, arrays: Sequence[Any], options: dict[str, Any]) -> Cost:
        assert self._cost is not None, f"kernel {self} has no cost"
        return self._cost(*arrays, **options)

    def product(self, function: F) -> F:
        """Decorator of the function that returns the :class:`Product` of a launch, or several of them."""
        self._product = function
        return function

    def launch_products(self, arrays: Sequence[Any], options: dict[str, Any]) -> Sequence[Product]:
        """Return the products that a launch computes."""
        found = () if self._product is None else self._product(*arrays, **options)
        return (found,) if isinstance(found, Product) else found

    def multiply_adds(self, function: F) -> F:
        """Decorator of the function that returns the multiply-adds of the matrix products of a launch.

        A kernel with a :class:`Product` needs it only if that product has terms that are zero by its construction.
        """
        self._multiply_adds = function
        return function

    def launch_multiply_adds(self, arrays: Sequence[Any], options: dict[str, Any]) -> int:
        """Return the multiply-adds of the matrix products of a launch: as declared, or those of its products."""
        if self._multiply_adds is not None:
            return self._multiply_adds(*arrays, **options)
        return sum(p.rows * p.columns * p.depth * p.batches for p in self.launch_products(arrays, options))

    def equivalent(self, function: F) -> F:
        """Decorator of the function that returns the launch in PyTorch, as a user would write it for speed.

        It takes PyTorch, then the arguments of the launch as tensors, and returns a callable.
        """
        self._equivalent = function
        return function

    def launch_equivalent(self, torch: Any, tensors: Sequence[Any], options: dict[str, Any]) -> Callable[[], object] | None:
        """Return the launch in PyTorch; None if the kernel has no equivalent."""
        return None if self._equivalent is None else self._equivalent(torch, *tensors, **options)
