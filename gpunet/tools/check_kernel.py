"""Check launches of any CUDA kernel on the emulator: under every schedule, what was found, what was written.

source = gpunet.backend.cuda_sources.splice(Path("scale.cu"))
checked = check(source, Launch("scale<float>", grid=4, block=256, arguments={"y": y, "x": x, "n": 1000}))
checked.findings
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy

from gpunet import emulator
from gpunet.backend.compiler import function
from gpunet.backend.cuda_sources import Source
from gpunet.backend.devices import Device
from gpunet.backend.signature import DTYPES, Entry, Parameter, as_scalar, find_entry
from gpunet.errors import ArgumentError, EmulationError


class Launch(NamedTuple):
    """A launch to check.

    Arrays that the kernel may write (its pointers that are not to ``const``) are outputs, filled with poison before the
    launch, unless ``inout`` names them.
    """

    entry: str  #: "scale", or a specialisation, "scale<float>"
    grid: int | tuple[int, ...]
    block: int | tuple[int, ...]
    arguments: Mapping[str, Any]  #: by the names that the kernel declares: arrays, numbers, None for null
    shared: int = 0  #: bytes of dynamic shared memory
    inout: tuple[str, ...] = ()  #: outputs whose contents before the launch matter
    partial: tuple[str, ...] = ()  #: outputs that need not be written whole
    expected: Mapping[str, Any] = {}  #: outputs by name, as they should be
    tolerance: float = 1e-5  #: of ``expected``, relative to the largest element


class Finding(NamedTuple):
    """Something that is wrong."""

    place: str  #: file:line
    kind: str
    message: str
    way: str = ""  #: the schedule that it was found under first; empty for what is so under all

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.message}" + f" [{self.way}]" * bool(self.way)


class Output(NamedTuple):
    """What a kernel left in an array."""

    name: str
    array: numpy.ndarray
    unwritten: int  #: elements that still hold the poison
    differs: bool  #: whether the others depend on the schedule

    def __str__(self) -> str:
        left = (_bytes(self.array) == _poison(self.array.dtype, 0)).all(1) if self.unwritten else False
        written = self.array.reshape(-1)[~numpy.broadcast_to(left, self.array.size)]
        finite = written[numpy.isfinite(written)]
        nans = int(numpy.isnan(written).sum())
        said = [
            f"from {finite.min():.6g} to {finite.max():.6g}" if finite.size else "",
            f"{nans} NaN" if nans else "",
            f"{written.size - finite.size - nans} infinite" if finite.size + nans < written.size else "",
            f"{self.unwritten} not written" if self.unwritten else "",
            "not the same under every schedule" if self.differs else "",
        ]
        shape = ",".join(map(str, self.array.shape))
        return ", ".join(filter(None, [f"{self.name} {self.array.dtype}[{shape}]", *said]))


class Checked(NamedTuple):
    """What checking a launch brought to light."""

    findings: list[Finding]
    outputs: list[Output]  #: empty where no run came to its end


def dtype_of(parameter: Parameter, entry: Entry, expression: str) -> numpy.dtype[Any] | None:
    """The dtype of a parameter in a specialisation; None where its type is not one of NumPy's."""
    arguments = [a.strip() for a in expression.partition("<")[2].rpartition(">")[0].split(",")]
    named = dict(zip(entry.types, arguments)).get(parameter.c_type, parameter.c_type)
    return numpy.dtype(DTYPES[named]) if named in DTYPES else None


def check(source: Source, launch: Launch) -> Checked:
    """Run a launch in check mode, in every way that the emulator has.

    The arrays of ``launch`` stay as they are.  A run ends at the first thing that it finds; the same thing found by several
    is reported once.

    Raises:
        ArgumentError: arguments that are not the kernel's.
        LaunchError: a launch that a card would refuse.
        CompileError: the source does not compile, or g++ is not installed.
    """
    entry = find_entry(source.text, source.name, launch.entry)
    _check_names(launch, entry)
    run = function(source, launch.entry, Device("emulated"))
    places = _Places(source.text)
    findings: dict[Any, Finding] = {}
    runs: dict[str, dict[str, numpy.ndarray]] = {}  # what was written, by each run that came to its end
    unwritten: dict[str, numpy.ndarray] = {}
    for keywords in emulator.every_way():
        way = keywords["schedule"] + ", lazy completion" * (keywords["completion"] == "lazy")
        poison = len(runs) % 2
        arguments = {p.name: _argument(launch, p, dtype_of(p, entry, launch.entry), poison) for p in entry.parameters}
        try:
            with emulator.check(**keywords):
                run(launch.grid, launch.block, list(arguments.values()), launch.shared)
        except EmulationError as error:
            found = _finding(str(error).removeprefix(f"{launch.entry}: "), places, entry.place, way)
            findings.setdefault((found.kind, frozenset(places.named(found.message))), found)
            continue
        runs[way] = written = {p.name: arguments[p.name] for p in entry.parameters if _is_output(launch, p)}
        for name, array in written.items():
            if name not in launch.inout:
                left = (_bytes(array) == _poison(array.dtype, poison)).all(1)
                unwritten[name] = unwritten.get(name, left) & left
    outputs = [_output(name, [w[name] for w in runs.values()], unwritten) for name in next(iter(runs.values()), {})]
    for output in outputs:
        if output.unwritten and output.name not in launch.partial:
            first = _element(output.name, output.array, int(unwritten[output.name].argmax()))
            message = f"{output.unwritten} of {output.array.size} elements of {output.name}, the first {first}"
            findings[output.name, "not written"] = Finding(entry.place, "not written", message)
    for name, expected in launch.expected.items():
        for way, written in runs.items():
            message = _difference(name, written[name], numpy.asarray(expected), launch.tolerance)
            if message:
                findings.setdefault((name, "wrong result"), Finding(entry.place, "wrong result", message, way))
    return Checked(list(findings.values()), outputs)


def _check_names(launch: Launch, entry: Entry) -> None:
    names = [p.name for p in entry.parameters]
    outputs = [p.name for p in entry.parameters if p.pointer and not p.constant]
    for what, given, known in (
        ("argument", launch.arguments, names),
        ("inout", launch.inout, outputs),
        ("partial", launch.partial, outputs),
        ("expected", launch.expected, outputs),
    ):
        for name in given:
            if name not in known:
                raise ArgumentError(f"{what} {name!r}: expected one of {', '.join(known)}, by {entry}")
    for name in names:
        if name not in launch.arguments:
            raise ArgumentError(f"argument {name!r} is missing: {entry}")


def _output(name: str, found: list[numpy.ndarray], unwritten: dict[str, numpy.ndarray]) -> Output:
    first = found[0]
    left = unwritten.get(name, numpy.zeros(first.size, bool))
    other = [(_bytes(first) != _bytes(array)).any(1) & ~left for array in found[1:]]
    return Output(name, first, int(left.sum()), any(o.any() for o in other))


# ---- arguments --------------------------------------------------------------------------------------------------------


def _is_output(launch: Launch, parameter: Parameter) -> bool:
    return parameter.pointer and not parameter.constant and launch.arguments[parameter.name] is not None


def _argument(launch: Launch, parameter: Parameter, dtype: numpy.dtype[Any] | None, poison: int) -> Any:
    """An argument of one run: outputs poisoned, other arrays copied."""
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
    """Bytes of an element that nobody writes by chance: for floats a NaN of a strange payload.

    There are two, so that an element that holds one of them by chance does not hold the other as well.
    """
    poison = numpy.full(dtype.itemsize, (0xA5, 0x5B)[which], numpy.uint8)
    if dtype.itemsize > 1:
        poison[-2:] = 0xFF, 0x7F
    return poison


def _bytes(array: numpy.ndarray) -> numpy.ndarray:
    """The bytes of each element, one element a row."""
    return array.reshape(-1).view(numpy.uint8).reshape(array.size, array.itemsize)


# ---- findings ---------------------------------------------------------------------------------------------------------


class _Places:
    """Finds ``file:line`` in findings, which have of some files only the last part of the name, and gives it in full."""

    def __init__(self, text: str) -> None:
        names = set(re.findall(r'^#line \d+ "(.*)"$', text, re.MULTILINE))
        self.full = {os.path.basename(name): name for name in names} | {name: name for name in names}
        known = sorted(map(re.escape, self.full), key=len, reverse=True)
        self.pattern = re.compile(rf"({'|'.join(known)}):(\d+)")

    def shown(self, text: str) -> str:
        return self.pattern.sub(lambda found: f"{self.full[found[1]]}:{found[2]}", text)

    def named(self, text: str) -> list[str]:
        return [found[0] for found in self.pattern.finditer(text)]


def _finding(text: str, places: _Places, otherwise: str, way: str) -> Finding:
    """A finding of the emulator, ``kind: message [block, thread]``; its place is the first that the message names."""
    kind, _, message = text.partition(": ")
    message = places.shown(message)
    return Finding([*places.named(message), otherwise][0], kind, message, way)


def _element(name: str, array: numpy.ndarray, flat: int) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in numpy.unravel_index(flat, array.shape))}]"


def _difference(name: str, found: numpy.ndarray, expected: numpy.ndarray, tolerance: float) -> str:
    if found.shape != expected.shape:
        raise ArgumentError(f"expected {name!r} has shape {expected.shape}, the array {found.shape}")
    finite = numpy.abs(expected[numpy.isfinite(expected)].astype(numpy.float64))
    allowed = tolerance * finite.max(initial=0.0) if found.dtype.kind == "f" else 0.0
    wrong = ~numpy.isclose(found, expected, rtol=0.0, atol=allowed, equal_nan=found.dtype.kind == "f").reshape(-1)
    if not wrong.any():
        return ""
    first = int(wrong.argmax())
    return (
        f"{_element(name, found, first)} is {found.flat[first]}, expected {expected.flat[first]} ({int(wrong.sum())} of "
        f"{wrong.size} elements differ by more than {allowed:.2g})"
    )
