"""``gpunet selftest``: check every kernel on a device.

Each case of ``kernel_cases`` is launched twice. Every array is allocated between two guard regions. Destinations are
filled with NaN before the first launch and with another pattern before the second. A kernel passes if

* its results are within a few eps of the NumPy twin computed in float64 on the same data; random numbers must equal
  the twin's bit for bit;
* both launches produce the same bits, so the result depends neither on uninitialised memory nor on thread order;
* inputs and guard regions are unchanged.

On the CPU a launch runs the twin itself, so the first check only measures float32 rounding there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy

from gpunet.backend import compiler, devices, gpus
from gpunet.backend.devices import Array, Device
from gpunet.backend.dtypes import accumulator, as_dtype, finfo, is_boolean, is_floating, is_half
from gpunet.errors import ArgumentError, DeviceError, GpunetError
from gpunet.launch import halves
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.cases.case import Case, View
from gpunet.tools import kernel_cases

#: Largest error that passes, in eps of the result's dtype relative to ``Reference.scales``.
LIMIT = 16.0
#: The same of halves: half an eps for the one rounding, at the store, and a little for the arithmetic in float32.
_HALF_LIMIT = 0.51
#: Guard elements on each side of an array; a multiple of 16 bytes for every dtype, so that arrays stay aligned.
_GUARD = 64
_GUARD_BYTE = 0x5A


class Row(NamedTuple):
    """The result of one kernel: a row of the table."""

    kernel: str
    specialisations: int
    launches: int
    error: float  # largest error in eps; infinite for a wrong NaN or infinity, or a difference where none is allowed
    same_bits: bool
    seconds: float  # total time of the second launches
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems


# ---- arrays on the device ---------------------------------------------------------------------------------------------


def _map_arrays(function: Callable[[str, Any], Any], case: Case) -> list[Any]:
    """Apply ``function(name, array)`` to all arrays of a case, including those in lists; keep ``None``."""

    def apply(name: str, array: Any) -> Any:
        if isinstance(array, list):
            return [function(name, a) for a in array]
        return None if array is None else function(name, array)

    return [apply(name, array) for name, array in zip(case.kernel.parameters, case.arrays)]


def _written(kernel: Kernel) -> set[str]:
    """Names of the arrays that a launch may write."""
    return {*kernel.parameters[: kernel.outputs]} | kernel.tickets


def _poison(array: numpy.ndarray, round: int) -> None:
    """Fill a destination with a pattern that differs between the two rounds, so that unwritten elements show."""
    if is_boolean(array.dtype):
        array.fill(round == 1)
    elif is_floating(array.dtype) and round == 0:
        array.fill(numpy.nan)
    else:
        array.view(numpy.uint8).fill(0xAB if round else 0x54)


class _Placed:
    """The arrays of a case on a device, each between two guard regions."""

    def __init__(self, case: Case, device: Device, round: int) -> None:
        self.case = case
        self._round, self._device = round, device
        self._buffers: list[tuple[str, numpy.ndarray, Array, Array]] = []  # name, bytes before the launch, buffer, array in it
        self.arrays = _map_arrays(self._place, case)

    def _place(self, name: str, array: Any) -> Array:
        base = array.base if isinstance(array, View) else array
        host = numpy.empty(base.size + 2 * _GUARD, base.dtype)
        host.view(numpy.uint8).fill(_GUARD_BYTE)
        inside = host[_GUARD : _GUARD + base.size]
        kernel = self.case.kernel
        if name in _written(kernel) - kernel.updates - kernel.tickets:
            _poison(inside, self._round)
        else:
            inside[...] = base.reshape(-1)
        before = host.view(numpy.uint8).copy()
        buffer = devices.move(host, self._device)
        placed = buffer[_GUARD : _GUARD + base.size].reshape(base.shape)
        if isinstance(array, View):
            placed = array.of(placed)
        self._buffers.append((name, before, buffer, placed))
        return placed

    def read(self) -> list[tuple[str, numpy.ndarray]]:
        """(name, copy on the host) of every array that the launch may write, except workspaces."""
        written = _written(self.case.kernel) - self.case.kernel.workspace
        return [(name, devices.move(a, devices.CPU).copy()) for name, _, _, a in self._buffers if name in written]

    def forbidden_writes(self) -> Iterator[str]:
        """Yield each write to a guard region or an input."""
        written = _written(self.case.kernel)
        for name, before, buffer, _ in self._buffers:
            host = devices.move(buffer, devices.CPU)
            after, guard = host.view(numpy.uint8), _GUARD * host.itemsize
            if (after[:guard] != _GUARD_BYTE).any() or (after[len(after) - guard :] != _GUARD_BYTE).any():
                yield f"writes out of bounds of {name!r}"
            elif name not in written and (after != before).any():
                yield f"changes its input {name!r}"


# ---- the reference ----------------------------------------------------------------------------------------------------


class Reference:
    """The results of the twin in float64, and for each the magnitude that its error is relative to.

    The magnitude is the largest absolute value of the result, or its sensitivity if that is larger: the change of the
    result divided by the relative change of the inputs that caused it. Without the sensitivity a sum that cancels to
    nearly zero would fail: no summation order is exact to its last bit.
    """

    _CHANGE = 2.0**-20  # relative change of the inputs, in float64, from which the sensitivity is estimated

    def __init__(self, case: Case) -> None:
        self._case = case
        self._exact = self._twin(case.floating, None)
        self._results = self._twin("float64", None)
        self.scales = [self._largest(r) for r in self._results]
        for seed in range(2):
            changed = self._twin("float64", numpy.random.default_rng(seed))
            for index, (result, other) in enumerate(zip(self._results, changed)):
                if is_floating(result.dtype):
                    sensitivity = self._largest(other - result) / self._CHANGE
                    self.scales[index] = max(self.scales[index], sensitivity)

    @staticmethod
    def _largest(array: numpy.ndarray) -> float:
        finite = numpy.abs(array[numpy.isfinite(array)]) if is_floating(array.dtype) else array[:0]
        return float(finite.max()) if finite.size else 0.0

    def _is_result(self, name: str) -> bool:
        return name in _written(self._case.kernel) - self._case.kernel.workspace

    def _twin(self, floating: str, change: numpy.random.Generator | None) -> list[numpy.ndarray]:
        """Results of the twin with T = ``floating``; the inputs are perturbed at random if ``change`` is given."""
        kernel, results = self._case.kernel, []
        storage = as_dtype(floating)
        sought = {"T": storage, "A": accumulator(storage)}
        dtypes = {name: sought.get(c_type) for name, c_type in zip(kernel.parameters, kernel.c_types)}

        def prepare(name: str, array: Any) -> numpy.ndarray:
            base = array.base if isinstance(array, View) else array
            base = base.astype(dtypes[name] or base.dtype)
            if change is not None and dtypes[name] and not numpy.isin(base, (-1, 0, 1)).all():  # else they are labels
                base *= 1 + self._CHANGE * change.choice((-1.0, 1.0), base.shape)
            passed = array.of(base) if isinstance(array, View) else base
            if self._is_result(name):
                results.append(passed)
            return passed

        arrays = _map_arrays(prepare, self._case)
        with halves.widened(arrays, kernel.outputs) as wide:
            (self._case.twin or kernel.twin)(*wide, **self._case.options)
        return results

    def error(self, index: int, actual: numpy.ndarray, c_type: str) -> float:
        """The largest error of result number ``index``, in eps; integers and random numbers must be equal."""
        expected, kernel = self._results[index], self._case.kernel
        if c_type not in ("T", "A", "double") or kernel.file == "random.cu":
            return 0.0 if self._exact[index].tobytes() == actual.tobytes() else float("inf")
        same = (actual == expected) | ((actual != actual) & (expected != expected))
        same |= numpy.isinf(actual) & (actual == expected.astype(actual.dtype))  # halves overflow
        if same.all():
            return 0.0
        difference = numpy.abs(actual.astype("float64") - expected)[~same]
        if not numpy.isfinite(difference).all() or not self.scales[index]:
            return float("inf")
        return float(difference.max() / self.scales[index] / float(finfo(actual.dtype).eps))


# ---- checks -----------------------------------------------------------------------------------------------------------


def select_kernels(pattern: str = "*") -> list[Kernel]:
    """Return the kernels whose names match a pattern, or one of several patterns separated by commas, in alphabetical order.

    Raises:
        ArgumentError: no name matches; the message lists the names.
    """
    patterns = [p.strip() for p in pattern.split(",")]
    found = [KERNELS[name] for name in sorted(KERNELS) if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise ArgumentError(f"no kernel matches {pattern!r}; expected one of {', '.join(sorted(KERNELS))}")
    return found


def check_kernel(kernel: Kernel, device: Device, cases: Sequence[Case] | None = None) -> Row:
    """Launch cases of a kernel, by default all of them, on a device and check the results.

    Raises:
        ArgumentError: the kernel has no cases.
    """
    if not kernel_cases.has_cases(kernel):
        raise ArgumentError(f"kernel {kernel.name} has no cases: add them to gpunet/ops/cases/ or gpunet/optim/cases.py")
    problems: list[str] = []
    expressions, launches, error, same_bits, seconds = set(), 0, 0.0, True, 0.0
    with numpy.errstate(all="ignore"):
        if cases is None:
            cases = [c for c in kernel_cases.cases(kernel) if c.twin is None or device.type != "cpu"]
        _compile_in_parallel(kernel, cases, device)
        for case in cases:
            expression = case.expression()
            launch = f"{expression}, {case.label}"
            expressions.add(expression)
            launches += 2
            try:
                errors, same, taken, forbidden = _check_case(case, device)
            except DeviceError:
                raise
            except GpunetError as failure:
                problems.append(f"{launch}: {failure}")
                continue
            seconds += taken
            same_bits &= same
            error = max(error, *errors.values())
            problems += [f"{launch}: {name} is wrong by {e:.3g} eps" for name, e in errors.items() if e > _limit(case, name)]
            problems += [f"{launch}: {finding}" for finding in forbidden]
            if not same:
                problems.append(f"{launch}: a second launch produces different bits")
    return Row(kernel.name, len(expressions), launches, error, same_bits, seconds, problems)


def _limit(case: Case, name: str) -> float:
    """Largest error of a result that passes, in eps."""
    c_type = dict(zip(case.kernel.parameters, case.kernel.c_types)).get(name)
    return _HALF_LIMIT if c_type == "T" and is_half(as_dtype(case.floating)) else LIMIT


def _check_case(case: Case, device: Device) -> tuple[dict[str, float], bool, float, list[str]]:
    """Launch a case twice and compare it with the reference.

    Returns:
        Errors in eps by array name, whether both launches gave the same bits, seconds of the second launch, and
        forbidden writes.
    """
    reference = Reference(case)
    results: list[list[tuple[str, numpy.ndarray]]] = []
    forbidden: set[str] = set()
    taken = 0.0
    for round in range(2):
        placed = _Placed(case, device, round)
        devices.synchronize(device)
        start = time.perf_counter()
        case.launch(placed.arrays)
        devices.synchronize(device)
        taken = time.perf_counter() - start
        results.append(placed.read())
        forbidden.update(placed.forbidden_writes())
    c_types = dict(zip(case.kernel.parameters, case.kernel.c_types))
    errors: dict[str, float] = {"": 0.0}
    for index, (name, actual) in enumerate(results[0]):
        errors[name] = max(errors.get(name, 0.0), reference.error(index, actual, c_types[name]))
    same = all(first.tobytes() == second.tobytes() for (_, first), (_, second) in zip(*results))
    return errors, same, taken, sorted(forbidden)


def _compile_in_parallel(kernel: Kernel, cases: Sequence[Case], device: Device) -> None:
    """Compile all specialisations in parallel before the launches. Errors are ignored here; the launch raises them."""
    if device.type == "cpu":
        return
    expressions = sorted({case.expression() for case in cases})
    with ThreadPoolExecutor() as pool:
        if device.type == "emulated":
            tasks = [pool.submit(compiler.function(kernel.file, e, device).build, "fast") for e in expressions]  # type: ignore[attr-defined]
        else:
            architecture = compiler.architecture(gpus.get_device_capability(device))
            tasks = [pool.submit(compiler.compiled, kernel.file, e, architecture) for e in expressions]
        for task in tasks:
            task.exception()


# ---- the table --------------------------------------------------------------------------------------------------------

HEADER = f"{'kernel':<32}{'special.':>9}{'launches':>10}{'error':>12}  {'same bits':<10}{'time':>10}  verdict"


def describe(row: Row) -> str:
    """A line of the table, and below it up to three problems."""
    error = f"{row.error:.2f} eps" if row.error < 1e4 else f"{row.error:.1e} eps"
    line = (
        f"{row.kernel:<32}{row.specialisations:>9}{row.launches:>10}{error:>12}  {'yes' if row.same_bits else 'NO':<10}"
        f"{1000 * row.seconds:>7.0f} ms  {'ok' if row.passed else 'FAILED'}"
    )
    shown = [f"    {problem}" for problem in row.problems[:3]]
    if len(row.problems) > len(shown):
        shown.append(f"    and {len(row.problems) - len(shown)} more")
    return "\n".join([line, *shown])


def run(device_name: str = "auto", pattern: str = "*", *, as_json: bool = False) -> int:
    """Check kernels and print a row for each, or JSON at the end.

    Args:
        device_name: as ``gpunet.device`` takes it; "auto" is the first GPU, or the CPU if CUDA is not ready.
        pattern: see :func:`select_kernels`.
        as_json: print one JSON document instead of the table.

    Returns:
        The exit code: 0 if all kernels pass, else 1.

    Raises:
        DeviceError: the device is not available.
        ArgumentError: no kernel matches the pattern.
    """
    device = Device(device_name)
    kernels = select_kernels(pattern)
    note = ""
    if device_name == "auto" and device.type == "cpu":
        note = f"CUDA is not ready ({devices.cuda_status().detail}), so the NumPy twins are checked"
    if not as_json:
        gpu = f" ({gpus.get_device_name(device)})" if device.type == "cuda" else ""
        print(f"device {device}{gpu}" + f"; {note}" * bool(note))
        print("error: the largest error against float64, in eps", end="\n\n")
        print(HEADER, flush=True)
    rows = []
    for kernel in kernels:
        rows.append(check_kernel(kernel, device))
        if not as_json:
            print(describe(rows[-1]), flush=True)
    failed = [row.kernel for row in rows if not row.passed]
    if as_json:
        found = [
            row._asdict() | {"error": row.error if math.isfinite(row.error) else None, "passed": row.passed}
            for row in rows
        ]
        print(json.dumps({"device": str(device), "note": note, "passed": not failed, "kernels": found}, indent=2))
    else:
        launches = sum(row.launches for row in rows)
        verdict = f"{len(failed)} FAILED: {', '.join(failed)}" if failed else "all ok"
        print(f"\n{len(rows)} kernels, {launches} launches: {verdict}")
    return 1 if failed else 0
