"""``gpunet check-kernel``: check launches of any CUDA kernel on the emulator, under every schedule.

source = gpunet.backend.cuda_sources.splice(Path("scale.cu"))
result = check(source, Launch("scale<float>", grid=4, block=256, arguments={"y": y, "x": x, "n": 1000}))
result.findings
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NamedTuple

import numpy

from gpunet import emulator
from gpunet.backend import cuda_sources
from gpunet.backend.compiler import function
from gpunet.backend.cuda_sources import Source
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import is_floating
from gpunet.backend.signature import Entry, Parameter, as_scalar, find_entry
from gpunet.emulator import compiler
from gpunet.errors import ArgumentError, CompileError, EmulationError
from gpunet.tools import kernel_launches
from gpunet.tools.kernel_launches import Launch, Options, dtype_of


class Finding(NamedTuple):
    """An error in a kernel."""

    place: str  #: file:line
    kind: str
    message: str
    schedule: str = ""  #: the first schedule that shows the error; empty for unwritten elements

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.message}" + f" [{self.schedule}]" * bool(self.schedule)


class Output(NamedTuple):
    """An output of a kernel after the launch."""

    name: str
    array: numpy.ndarray
    unwritten: int  #: number of elements that still hold the poison
    differs: bool  #: whether written elements depend on the schedule

    def __str__(self) -> str:
        is_poison = (_bytes(self.array) == _poison(self.array.dtype, 0)).all(1) if self.unwritten else False
        written = self.array.reshape(-1)[~numpy.broadcast_to(is_poison, self.array.size)]
        finite = written[numpy.isfinite(written)]
        nans = int(numpy.isnan(written).sum())
        details = [
            f"from {finite.min():.6g} to {finite.max():.6g}" if finite.size else "",
            f"{nans} NaN" if nans else "",
            f"{written.size - finite.size - nans} infinite" if finite.size + nans < written.size else "",
            f"{self.unwritten} not written" if self.unwritten else "",
            "different under different schedules" if self.differs else "",
        ]
        shape = ",".join(map(str, self.array.shape))
        return ", ".join(filter(None, [f"{self.name} {self.array.dtype}[{shape}]", *details]))


class Checked(NamedTuple):
    """The result of checking a launch."""

    findings: list[Finding]
    outputs: list[Output]  #: empty if every run ended with an error


def check_file(options: Options) -> int:
    """Check the launches that the options describe, and print errors and outputs.

    Returns:
        The exit code: 0 if no errors were found, 1 if there are errors or the source does not compile.

    Raises:
        ArgumentError: an invalid option.
        CompileError: g++ is not installed.
    """
    compiler.version()  # raises if g++ is missing, so that a CompileError below is an error in the source
    flags = [f"-I{folder}" for folder in options.include_folders] + [f"-D{macro}" for macro in options.macros]
    source = cuda_sources.splice(options.file, options=flags)
    found = 0
    for launch in kernel_launches.from_options(source, options):
        try:
            checked = check(source, launch)
        except CompileError as error:
            print(error, file=sys.stderr)
            return 1
        found += len(checked.findings)
        for finding in checked.findings:
            print(finding)
        verdict = f"{len(checked.findings)} error(s) found" if checked.findings else "no errors found"
        grid, block = (",".join(map(str, n if isinstance(n, tuple) else (n,))) for n in (launch.grid, launch.block))
        print(f"{launch.entry}, grid {grid}, block {block}: {verdict}")
        for output in checked.outputs:
            print(f"  {output}")
    return 1 if found else 0


def check(source: Source, launch: Launch) -> Checked:
    """Run a launch in check mode, under every schedule of the emulator and with eager and lazy asynchronous copies.

    The arrays of ``launch`` are not modified. A run ends at its first error; the same error in several runs is reported
    once.

    Raises:
        ArgumentError: the arguments do not match the parameters of the kernel.
        LaunchError: a GPU would reject the launch.
        CompileError: the source does not compile, or g++ is not installed.
    """
    entry = find_entry(source.text, source.name, launch.entry)
    _check_names(launch, entry)
    run = function(source, launch.entry, Device("emulated"))
    places = _Places(source.text)
    findings: dict[Any, Finding] = {}
    runs: dict[str, dict[str, numpy.ndarray]] = {}  # schedule -> outputs, of the runs without an error
    unwritten: dict[str, numpy.ndarray] = {}
    for keywords in emulator.every_way():
        schedule = keywords["schedule"] + ", lazy completion" * (keywords["completion"] == "lazy")
        poison = len(runs) % 2
        arguments = {p.name: _argument(launch, p, dtype_of(p, entry, launch.entry), poison) for p in entry.parameters}
        try:
            with emulator.check(**keywords):
                run(launch.grid, launch.block, list(arguments.values()), launch.shared)
        except EmulationError as error:
            found = _finding(str(error).removeprefix(f"{launch.entry}: "), places, entry.place, schedule)
            findings.setdefault((found.kind, frozenset(places.find(found.message))), found)
            continue
        runs[schedule] = written = {p.name: arguments[p.name] for p in entry.parameters if _is_output(launch, p)}
        for name, array in written.items():
            if name not in launch.inout:
                is_poison = (_bytes(array) == _poison(array.dtype, poison)).all(1)
                unwritten[name] = unwritten.get(name, is_poison) & is_poison
    outputs = [_output(name, [w[name] for w in runs.values()], unwritten) for name in next(iter(runs.values()), {})]
    for output in outputs:
        if output.unwritten and output.name not in launch.partial:
            first = _element(output.name, output.array, int(unwritten[output.name].argmax()))
            message = f"{output.unwritten} of {output.array.size} elements of {output.name}, the first {first}"
            findings[output.name, "not written"] = Finding(entry.place, "not written", message)
    for name, expected in launch.expected.items():
        for schedule, written in runs.items():
            message = _difference(name, written[name], numpy.asarray(expected), launch.tolerance)
            if message:
                findings.setdefault((name, "wrong result"), Finding(entry.place, "wrong result", message, schedule))
    return Checked(list(findings.values()), outputs)


def _check_names(launch: Launch, entry: Entry) -> None:
    names = [p.name for p in entry.parameters]
    outputs = [p.name for p in entry.parameters if p.pointer and not p.constant]
    for field, given, known in (
        ("argument", launch.arguments, names),
        ("inout", launch.inout, outputs),
        ("partial", launch.partial, outputs),
        ("expected", launch.expected, outputs),
    ):
        for name in given:
            if name not in known:
                raise ArgumentError(f"{field} {name!r}: expected one of {', '.join(known)}, as in {entry}")
    for name in names:
        if name not in launch.arguments:
            raise ArgumentError(f"argument {name!r} is missing: {entry}")


def _output(name: str, found: list[numpy.ndarray], unwritten: dict[str, numpy.ndarray]) -> Output:
    first = found[0]
    is_poison = unwritten.get(name, numpy.zeros(first.size, bool))
    differing = [(_bytes(first) != _bytes(array)).any(1) & ~is_poison for array in found[1:]]
    return Output(name, first, int(is_poison.sum()), any(d.any() for d in differing))


# ---- arguments --------------------------------------------------------------------------------------------------------


def _is_output(launch: Launch, parameter: Parameter) -> bool:
    return parameter.pointer and not parameter.constant and launch.arguments[parameter.name] is not None


def _argument(launch: Launch, parameter: Parameter, dtype: numpy.dtype[Any] | None, poison: int) -> Any:
    """An argument of one run: a copy of the array, poisoned if it is an output."""
    value = launch.arguments[parameter.name]
    if not parameter.pointer:
        if isinstance(value, (bool, int, float)) and dtype is not None:
            return as_scalar(value, dtype.name, f"argument {parameter.name!r}")
        return value
    if value is None:
        return None
    array = numpy.array(value, order="C")
    if _is_output(launch, parameter) and parameter.name not in launch.inout:
        _bytes(array)[...] = _poison(array.dtype, poison)
    return array


def _poison(dtype: numpy.dtype[Any], which: int) -> numpy.ndarray:
    """Bytes of an element that kernels do not write: for floats a NaN with an unusual payload.

    Runs alternate between two patterns, so that a kernel that writes one of them is not taken for one that writes nothing.
    """
    poison = numpy.full(dtype.itemsize, (0xA5, 0x5B)[which], numpy.uint8)
    if dtype.itemsize > 1:
        poison[-2:] = 0xFF, 0x7F
    return poison


def _bytes(array: numpy.ndarray) -> numpy.ndarray:
    """The bytes of an array, one row per element."""
    return array.reshape(-1).view(numpy.uint8).reshape(array.size, array.itemsize)


# ---- findings ---------------------------------------------------------------------------------------------------------


class _Places:
    """Finds ``file:line`` in messages of the emulator, and expands base names of files to the paths that were given."""

    def __init__(self, text: str) -> None:
        names = set(re.findall(r'^#line \d+ "(.*)"$', text, re.MULTILINE))
        self.full = {os.path.basename(name): name for name in names} | {name: name for name in names}
        known = sorted(map(re.escape, self.full), key=len, reverse=True)
        self.pattern = re.compile(rf"({'|'.join(known)}):(\d+)")

    def expand(self, text: str) -> str:
        return self.pattern.sub(lambda found: f"{self.full[found[1]]}:{found[2]}", text)

    def find(self, text: str) -> list[str]:
        return [found[0] for found in self.pattern.finditer(text)]


def _finding(text: str, places: _Places, default_place: str, schedule: str) -> Finding:
    """Parse a message of the emulator, ``kind: message [block, thread]``. The place is the first one in the message."""
    kind, _, message = text.partition(": ")
    message = places.expand(message)
    return Finding([*places.find(message), default_place][0], kind, message, schedule)


def _element(name: str, array: numpy.ndarray, flat: int) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in numpy.unravel_index(flat, array.shape))}]"


def _difference(name: str, found: numpy.ndarray, expected: numpy.ndarray, tolerance: float) -> str:
    if found.shape != expected.shape:
        raise ArgumentError(f"expected[{name!r}] has shape {expected.shape}, but the array has shape {found.shape}")
    finite = numpy.abs(expected[numpy.isfinite(expected)].astype(numpy.float64))
    allowed = tolerance * finite.max(initial=0.0) if is_floating(found.dtype) else 0.0
    wrong = ~numpy.isclose(found, expected, rtol=0.0, atol=allowed, equal_nan=is_floating(found.dtype)).reshape(-1)
    if not wrong.any():
        return ""
    first = int(wrong.argmax())
    return (
        f"{_element(name, found, first)} is {found.flat[first]}, expected {expected.flat[first]} ({int(wrong.sum())} of "
        f"{wrong.size} elements differ by more than {allowed:.2g})"
    )
