"""The kernel checks behind ``gpunet selftest``: does every kernel compute on this device what it should?

Each case of ``kernel_cases`` is launched twice.  Every array lies between guards; destinations hold NaN before the first
launch and other rubbish before the second.  Then

* the results lie within some eps of an independent computation, the NumPy twin in float64 on the same data; random
  numbers are equal to the twin's to the last bit;
* both launches left the same bits, so nothing depends on what memory held, nor on which thread came first;
* inputs and guards are as they were.

On the CPU a launch *is* the twin, so the first check is then about float32's rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy

from gpunet.backend import compiler, devices
from gpunet.backend.devices import Array, Device
from gpunet.errors import ArgumentError, DeviceError, GpunetError
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.cases.case import Case, View
from gpunet.tools import kernel_cases

#: Largest error that passes, in eps of T; see ``Reference`` for what it is measured against.
LIMIT = 16.0
#: Elements on both sides of an array that a launch must leave alone; as many as keep 16 bytes' alignment.
_GUARD = 64
_GUARD_BYTE = 0x5A


class Row(NamedTuple):
    """What was found of one kernel."""

    kernel: str
    specialisations: int
    launches: int
    error: float  # the largest, in eps; infinite where something is no number, or should be equal and is not
    same_bits: bool
    seconds: float  # of the second launches
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems


# ---- arrays on the device ---------------------------------------------------------------------------------------------


def _map(function: Callable[[str, Any], Any], case: Case) -> list[Any]:
    """``function(name, array)`` of all arrays, also those in lists; ``None`` stays."""

    def one(name: str, array: Any) -> Any:
        if isinstance(array, list):
            return [function(name, a) for a in array]
        return None if array is None else function(name, array)

    return [one(name, array) for name, array in zip(case.kernel.parameters, case.arrays)]


def _written(kernel: Kernel) -> set[str]:
    return {*kernel.parameters[: kernel.outputs], "ticket"}


def _poison(array: numpy.ndarray, round: int) -> None:
    """Fill a destination with what no kernel would write; every element differs between the two rounds."""
    if array.dtype.kind == "b":
        array.fill(round == 1)
    elif array.dtype.kind == "f" and round == 0:
        array.fill(numpy.nan)
    else:
        array.view(numpy.uint8).fill(0xAB if round else 0x54)


class _Placed:
    """The arrays of a case on a device, each between two guards."""

    def __init__(self, case: Case, where: Device, round: int) -> None:
        self.case = case
        self._purpose = kernel_cases.purpose(case.kernel)
        self._round, self._where = round, where
        self._buffers: list[tuple[str, numpy.ndarray, Array, Array]] = []  # name, bytes before, buffer, array in it
        self.arrays = _map(self._place, case)

    def _place(self, name: str, array: Any) -> Array:
        base = array.base if isinstance(array, View) else array
        host = numpy.empty(base.size + 2 * _GUARD, base.dtype)
        host.view(numpy.uint8).fill(_GUARD_BYTE)
        inside = host[_GUARD : _GUARD + base.size]
        if name in _written(self.case.kernel) - self._purpose.updates:
            _poison(inside, self._round)
        else:
            inside[...] = base.reshape(-1)
        before = host.view(numpy.uint8).copy()
        buffer = devices.move(host, self._where)
        placed = buffer[_GUARD : _GUARD + base.size].reshape(base.shape)
        if isinstance(array, View):
            placed = array.of(placed)
        self._buffers.append((name, before, buffer, placed))
        return placed

    def read(self) -> list[tuple[str, numpy.ndarray]]:
        """(name, copy) of all that the launch may write, work space left out."""
        left_out = self._purpose.workspace
        written = _written(self.case.kernel) - left_out
        return [(name, devices.move(a, devices.CPU).copy()) for name, _, _, a in self._buffers if name in written]

    def spoiled(self) -> Iterator[str]:
        """What the launch changed and should not have."""
        written = _written(self.case.kernel)
        for name, before, buffer, _ in self._buffers:
            host = devices.move(buffer, devices.CPU)
            after, guard = host.view(numpy.uint8), _GUARD * host.itemsize
            if (after[:guard] != _GUARD_BYTE).any() or (after[len(after) - guard :] != _GUARD_BYTE).any():
                yield f"writes beside {name!r}"
            elif name not in written and (after != before).any():
                yield f"changes its input {name!r}"


# ---- what is right ----------------------------------------------------------------------------------------------------


class Reference:
    """The twin's results in float64, and how large an error of one eps is.

    The unit is eps times the largest of an array's values, or, where that is more, times what the largest relative
    change of the inputs by eps would do to it: a sum of a hundred terms that happens to be nearly zero is not exact to
    its own last bit in any order.
    """

    _CHANGE = 2.0**-20  # of inputs, in the float64 computation that finds their influence

    def __init__(self, case: Case) -> None:
        self._case = case
        self._purpose = kernel_cases.purpose(case.kernel)
        self._exact = self._twin(case.floating, None)
        self._results = self._twin("float64", None)
        self.scales = [self._largest(r) for r in self._results]
        for seed in range(2):
            changed = self._twin("float64", numpy.random.default_rng(seed))
            for index, (result, other) in enumerate(zip(self._results, changed)):
                if result.dtype.kind == "f":
                    influence = self._largest(other - result) / self._CHANGE
                    self.scales[index] = max(self.scales[index], influence)

    @staticmethod
    def _largest(array: numpy.ndarray) -> float:
        finite = numpy.abs(array[numpy.isfinite(array)]) if array.dtype.kind == "f" else array[:0]
        return float(finite.max()) if finite.size else 0.0

    def _counts(self, name: str) -> bool:
        return name in _written(self._case.kernel) - self._purpose.workspace

    def _twin(self, floating: str, change: numpy.random.Generator | None) -> list[numpy.ndarray]:
        """Results of the twin, with T float64 or as it is, on the inputs or on slightly different ones."""
        kernel, results = self._case.kernel, []
        is_t = dict(zip(kernel.parameters, (c_type == "T" for c_type in kernel.c_types)))

        def prepare(name: str, array: Any) -> numpy.ndarray:
            base = array.base if isinstance(array, View) else array
            base = base.astype(floating if is_t[name] else base.dtype)
            if change is not None and is_t[name]:
                base *= 1 + self._CHANGE * change.choice((-1.0, 1.0), base.shape)
            seen = array.of(base) if isinstance(array, View) else base
            if self._counts(name):
                results.append(seen)
            return seen

        arrays = _map(prepare, self._case)
        (self._case.twin or kernel.twin)(*arrays, **self._case.options)
        return results

    def error(self, index: int, actual: numpy.ndarray, c_type: str) -> float:
        """The largest error of result number ``index``, in eps; what is not of type T must be equal."""
        expected, kernel = self._results[index], self._case.kernel
        if c_type != "T" or kernel.file == "random.cu":
            return 0.0 if self._exact[index].tobytes() == actual.tobytes() else float("inf")
        same = (actual == expected) | ((actual != actual) & (expected != expected))
        if same.all():
            return 0.0
        difference = numpy.abs(actual.astype("float64") - expected)[~same]
        if not numpy.isfinite(difference).all() or not self.scales[index]:
            return float("inf")
        return float(difference.max() / self.scales[index] / numpy.finfo(actual.dtype).eps)


# ---- checks -----------------------------------------------------------------------------------------------------------


def chosen(pattern: str = "*") -> list[Kernel]:
    """The kernels whose names match a pattern, or several between commas.

    Raises:
        ArgumentError: none does; the message lists the names.
    """
    patterns = [p.strip() for p in pattern.split(",")]
    found = [kernel for name, kernel in KERNELS.items() if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise ArgumentError(f"no kernel matches {pattern!r}; there are {', '.join(KERNELS)}")
    return found


def check_kernel(kernel: Kernel, where: Device, cases: Sequence[Case] | None = None) -> Row:
    """Launch cases of a kernel, by default all of them, on a device.

    Raises:
        ArgumentError: the kernel has no cases.
    """
    if not kernel_cases.has_cases(kernel):
        raise ArgumentError(f"kernel {kernel.name} has no cases: add them to {kernel_cases.__file__}")
    problems: list[str] = []
    expressions, launches, error, same_bits, seconds = set(), 0, 0.0, True, 0.0
    with numpy.errstate(all="ignore"):
        if cases is None:
            cases = [c for c in kernel_cases.cases(kernel) if c.twin is None or where.type != "cpu"]
        _compile_at_once(kernel, cases, where)
        for case in cases:
            expression = case.expression()
            what = f"{expression}, {case.label}"
            expressions.add(expression)
            launches += 2
            try:
                errors, same, taken, spoiled = _check_case(case, where)
            except DeviceError:
                raise
            except GpunetError as failure:
                problems.append(f"{what}: {failure}")
                continue
            seconds += taken
            same_bits &= same
            error = max(error, *errors.values())
            problems += [f"{what}: {name} is wrong by {e:.3g} eps" for name, e in errors.items() if e > LIMIT]
            problems += [f"{what}: {finding}" for finding in spoiled]
            if not same:
                problems.append(f"{what}: a second launch leaves other bits")
    return Row(kernel.name, len(expressions), launches, error, same_bits, seconds, problems)


def _check_case(case: Case, where: Device) -> tuple[dict[str, float], bool, float, list[str]]:
    """Errors in eps by name, whether the bits are the same, seconds of the second launch, what was spoiled."""
    reference = Reference(case)
    results: list[list[tuple[str, numpy.ndarray]]] = []
    spoiled: set[str] = set()
    taken = 0.0
    for round in range(2):
        placed = _Placed(case, where, round)
        devices.synchronize(where)
        start = time.perf_counter()
        case.launch(placed.arrays)
        devices.synchronize(where)
        taken = time.perf_counter() - start
        results.append(placed.read())
        spoiled.update(placed.spoiled())
    c_types = dict(zip(case.kernel.parameters, case.kernel.c_types))
    errors: dict[str, float] = {"": 0.0}
    for index, (name, actual) in enumerate(results[0]):
        errors[name] = max(errors.get(name, 0.0), reference.error(index, actual, c_types[name]))
    same = all(first.tobytes() == second.tobytes() for (_, first), (_, second) in zip(*results))
    return errors, same, taken, sorted(spoiled)


def _compile_at_once(kernel: Kernel, cases: Sequence[Case], where: Device) -> None:
    """Compile all specialisations side by side, so that the launches find them; what fails, fails again there."""
    if where.type == "cpu":
        return
    expressions = sorted({case.expression() for case in cases})
    with ThreadPoolExecutor() as pool:
        if where.type == "emulated":
            tasks = [pool.submit(compiler.function(kernel.file, e, where).build, "fast") for e in expressions]  # type: ignore[attr-defined]
        else:
            capability = devices.cupy().cuda.Device(where.index).compute_capability
            architecture = compiler.architecture((int(capability[:-1]), int(capability[-1])))
            tasks = [pool.submit(compiler.compiled, kernel.file, e, architecture) for e in expressions]
        for task in tasks:
            task.exception()


# ---- the table --------------------------------------------------------------------------------------------------------

HEADER = f"{'kernel':<32}{'special.':>9}{'launches':>10}{'error':>12}  {'same bits':<10}{'time':>10}  verdict"


def describe(row: Row) -> str:
    """One line of the table, and below it what was found wrong, the first of it at least."""
    error = f"{row.error:.2f} eps" if row.error < 1e4 else f"{row.error:.1e} eps"
    line = (
        f"{row.kernel:<32}{row.specialisations:>9}{row.launches:>10}{error:>12}  {'yes' if row.same_bits else 'NO':<10}"
        f"{1000 * row.seconds:>7.0f} ms  {'ok' if row.passed else 'FAILED'}"
    )
    shown = [f"    {problem}" for problem in row.problems[:3]]
    if len(row.problems) > len(shown):
        shown.append(f"    and {len(row.problems) - len(shown)} more")
    return "\n".join([line, *shown])
