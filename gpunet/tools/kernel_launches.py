"""The launches that ``gpunet check-kernel`` checks, described by options or by a Python file.

An option ``--arg NAME=VALUE`` gives one argument by its parameter name. VALUE is

    1000, 0.5, true          a scalar of the declared type
    int64:1000               with this dtype, for parameters of an unknown type
    [1000], [64,10]          an array of this shape: random if the kernel only reads it, poisoned if it writes it
    float32[1000]            with this dtype
    [1000]:CONTENTS          with these contents before the launch: random (normal; integers 0 to 99), zeros, ones, arange,
                             a number, A..B (uniform; integers from A to B-1), or FILE.npy
    FILE.npy                 the array in a file
    null                     a null pointer
"""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.cuda_sources import Source
from gpunet.backend.dtypes import as_dtype, is_boolean, is_floating, is_integer
from gpunet.backend.signature import DTYPES, Entry, Parameter, entries, find_entry
from gpunet.errors import ArgumentError, DtypeError


class Launch(NamedTuple):
    """A launch to check.

    The outputs are the arrays that the kernel may write: its parameters that point to non-``const``. They are filled with
    poison before the launch, except those in ``inout``.
    """

    entry: str  #: "scale", or a specialisation, "scale<float>"
    grid: int | tuple[int, ...]
    block: int | tuple[int, ...]
    arguments: Mapping[str, Any]  #: by parameter name: arrays, numbers, or None for a null pointer
    shared: int = 0  #: bytes of dynamic shared memory
    inout: tuple[str, ...] = ()  #: outputs that keep their contents before the launch
    partial: tuple[str, ...] = ()  #: outputs that need not be fully written
    expected: Mapping[str, Any] = {}  #: expected outputs by name
    tolerance: float = 1e-5  #: allowed error of ``expected``, relative to the largest element


class Options(NamedTuple):
    """The options of the command line."""

    file: Path
    entry: str | None = None
    grid: tuple[int, ...] = (1,)
    block: tuple[int, ...] | None = None
    shared: int = 0
    arguments: tuple[str, ...] = ()  # "NAME=VALUE"
    partial: bool = False
    seed: int = 0
    launch_file: Path | None = None
    include_folders: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()


def from_options(source: Source, options: Options) -> list[Launch]:
    """The launches that the options describe.

    Raises:
        ArgumentError: an invalid option; the message names it and what was expected.
    """
    if options.launch_file is not None:
        if options.arguments or options.block or options.entry:
            raise ArgumentError("--launch describes the whole launch: remove --entry, --block and --arg")
        return list(from_file(options.launch_file))
    declared = entries(source.text)
    if options.entry is None and len(declared) != 1:
        raise ArgumentError(
            f"{source.name} has {', '.join(declared) or 'no __global__ function'}; choose one with --entry"
        )
    expression = options.entry or next(iter(declared))
    entry = find_entry(source.text, source.name, expression)
    if options.block is None:
        raise ArgumentError("--block is missing: give the threads per block, such as --block 256")
    values, inout = parse(source, expression, options.arguments, options.seed)
    partial = tuple(p.name for p in entry.parameters if p.pointer and not p.constant) if options.partial else ()
    return [Launch(expression, options.grid, options.block, values, options.shared, inout, partial)]


def from_file(path: str | Path) -> Iterator[Launch]:
    """The launches of a Python file: the result of its function ``launches()``.

    ``launches()`` returns or yields objects of type :class:`Launch`, or dictionaries with the same names.

    Raises:
        ArgumentError: the file raises, has no such function, or returns something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentError(f"--launch {path}: expected a Python file with a function launches()")
    try:
        found = runpy.run_path(str(path), run_name="launches")
        if "launches" not in found:
            raise ArgumentError("the file has no function launches()")
        made = [launch if isinstance(launch, Launch) else Launch(**launch) for launch in found["launches"]()]
    except Exception as error:  # the user's file may raise any exception
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        place = f"{path}:{lines[-1]}" if lines else str(path)
        raise ArgumentError(f"--launch {place}: {type(error).__name__}: {error}") from error
    if not made:
        raise ArgumentError(f"--launch {path}: launches() returned no launches")
    yield from made


# ---- --arg ------------------------------------------------------------------------------------------------------------

_ARRAY = re.compile(r"(\w*)\[([\d,x ]*)\](?::(.+))?")
_RANGE = re.compile(r"(-?[\d.e+-]+?)\.\.(-?[\d.e+-]+)")
_SCALAR = re.compile(r"(?:([a-z]\w*):)?([^:\[\]]+)")


def dtype_of(parameter: Parameter, entry: Entry, expression: str) -> numpy.dtype[Any] | None:
    """The dtype of a parameter in a specialisation; None if NumPy has no such type."""
    arguments = [a.strip() for a in expression.partition("<")[2].rpartition(">")[0].split(",")]
    named = dict(zip(entry.types, arguments)).get(parameter.c_type, parameter.c_type)
    return as_dtype(DTYPES[named]) if named in DTYPES else None


def parse(
    source: Source, expression: str, texts: Sequence[str], seed: int = 0
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments of a launch by name, and the names of the outputs that were given contents.

    Args:
        source: the source of the kernel.
        expression: the kernel, "scale", or a specialisation, "scale<float>".
        texts: the arguments, each "NAME=VALUE".
        seed: seed of random contents.

    Raises:
        ArgumentError: an invalid argument; the message has its text and what was expected.
    """
    entry = find_entry(source.text, source.name, expression)
    generator = numpy.random.default_rng(seed)
    arguments: dict[str, Any] = {}
    inout = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in arguments:
            raise ArgumentError(
                f"--arg {text!r}: expected NAME=VALUE" + f", and {name!r} only once" * (name in arguments)
            )
        arguments[name], has_contents = _value(entry, expression, name, value, generator)
        if has_contents:
            inout.append(name)
    return arguments, tuple(inout)


def _value(entry: Entry, expression: str, name: str, text: str, generator: Any) -> tuple[Any, bool]:
    """The value of an argument, and whether it is an output that was given contents."""
    option = f"--arg {name}={text}"
    parameter = next((p for p in entry.parameters if p.name == name), None)
    if parameter is None:
        raise ArgumentError(f"{option}: {entry} has no parameter {name!r}")
    declared = dtype_of(parameter, entry, expression)
    if not parameter.pointer:
        scalar = _SCALAR.fullmatch(text)
        if scalar is None:
            raise ArgumentError(f"{option}: '{parameter}' takes a number")
        return _scalar(option, _dtype(option, scalar[1], declared), scalar[2]), False
    if text == "null":
        return None, False
    if text.endswith(".npy") and "[" not in text:
        return _load(option, text), not parameter.constant
    array = _ARRAY.fullmatch(text)
    if array is None:
        raise ArgumentError(
            f"{option}: '{parameter}' takes an array: [SHAPE], DTYPE[SHAPE], [SHAPE]:CONTENTS, FILE.npy or null"
        )
    dtype = _dtype(option, array[1], declared)
    shape = tuple(int(n) for n in re.findall(r"\d+", array[2]))
    if array[3] is None and not parameter.constant:
        return numpy.zeros(shape, dtype), False
    return _contents(option, dtype, shape, array[3] or "random", generator), not parameter.constant


def _dtype(option: str, given: str | None, declared: numpy.dtype[Any] | None) -> numpy.dtype[Any]:
    if not given and declared is not None:
        return declared
    try:
        if given:
            return as_dtype(given)
    except DtypeError:
        raise ArgumentError(f"{option}: {given!r} is not a dtype; expected float32, int32, ...") from None
    raise ArgumentError(f"{option}: the declared type has no NumPy dtype; give one, as in float32[1000] or int32:5")


def _scalar(option: str, dtype: numpy.dtype[Any], text: str) -> Any:
    try:
        if is_boolean(dtype):
            return numpy.bool_({"true": True, "1": True, "false": False, "0": False}[text.lower()])
        return dtype.type(int(text, 0) if is_integer(dtype) else text)
    except (ValueError, KeyError, OverflowError):
        raise ArgumentError(f"{option}: {text!r} is not a valid {dtype}") from None


def _contents(option: str, dtype: numpy.dtype[Any], shape: tuple[int, ...], text: str, generator: Any) -> numpy.ndarray:
    bounds = _RANGE.fullmatch(text)
    takes_integers = is_integer(dtype)
    if text == "random":
        values = (
            generator.normal(size=shape)
            if is_floating(dtype)
            else generator.integers(0, 2 if is_boolean(dtype) else 100, shape)
        )
    elif text in ("zeros", "ones"):
        values = numpy.full(shape, text == "ones")
    elif text == "arange":
        values = numpy.arange(int(numpy.prod(shape))).reshape(shape)
    elif text.endswith(".npy"):
        values = _load(option, text)
        if values.shape != shape or values.dtype != dtype:
            raise ArgumentError(
                f"{option}: the file contains {values.dtype}{list(values.shape)}, expected {dtype}{list(shape)}"
            )
    elif bounds is not None:
        low, high = _scalar(option, dtype, bounds[1]), _scalar(option, dtype, bounds[2])
        if not low < high:
            raise ArgumentError(f"{option}: {text!r}: expected A..B with A less than B")
        values = generator.integers(low, high, shape) if takes_integers else generator.uniform(low, high, shape)
    else:
        try:
            values = numpy.full(shape, _scalar(option, dtype, text))
        except ArgumentError:
            known = "random, zeros, ones, arange, a number, A..B or FILE.npy"
            raise ArgumentError(f"{option}: invalid contents {text!r} for {dtype}; expected {known}") from None
    return numpy.asarray(values).astype(dtype)


def _load(option: str, path: str) -> numpy.ndarray:
    try:
        return numpy.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{option}: cannot read {path}: {error}") from None
