"""Launches described in text: the arguments of ``gpunet check-kernel``, and the Python files that it takes instead.

An argument is ``NAME=VALUE``, by the name that the kernel declares.  VALUE is

    1000, 0.5, true          a scalar, of the type that the kernel declares
    int64:1000               of this dtype, where the declared type is not understood
    [1000], [64,10]          an array of this shape; what the kernel only reads is random, what it writes is poisoned
    float32[1000]            of this dtype
    [1000]:CONTENTS          with these contents before the launch: random (normal; integers 0 to 99), zeros, ones, arange,
                             a number, A..B (uniform; of integers A to B-1), or FILE.npy
    FILE.npy                 the array of a file
    null                     a null pointer
"""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from gpunet.backend.cuda_sources import Source
from gpunet.backend.signature import Entry, find_entry
from gpunet.errors import ArgumentError
from gpunet.tools.check_kernel import Launch, dtype_of

_ARRAY = re.compile(r"(\w*)\[([\d,x ]*)\](?::(.+))?")
_RANGE = re.compile(r"(-?[\d.e+-]+?)\.\.(-?[\d.e+-]+)")
_SCALAR = re.compile(r"(?:([a-z]\w*):)?([^:\[\]]+)")


def parse(
    source: Source, expression: str, texts: Sequence[str], seed: int = 0
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments of a launch, and the names of the arrays whose contents matter though the kernel may write them.

    Raises:
        ArgumentError: which text, and what was expected.
    """
    entry = find_entry(source.text, source.name, expression)
    generator = numpy.random.default_rng(seed)
    arguments: dict[str, Any] = {}
    inout = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in arguments:
            raise ArgumentError(
                f"--arg {text!r}: expected NAME=VALUE" + f", and {name!r} once only" * (name in arguments)
            )
        arguments[name], given = _value(entry, expression, name, value, generator)
        if given:
            inout.append(name)
    return arguments, tuple(inout)


def _value(entry: Entry, expression: str, name: str, text: str, generator: Any) -> tuple[Any, bool]:
    """An argument, and whether it is an array that was given contents."""
    what = f"--arg {name}={text}"
    parameter = next((p for p in entry.parameters if p.name == name), None)
    if parameter is None:
        raise ArgumentError(f"{what}: {entry} has no parameter {name!r}")
    declared = dtype_of(parameter, entry, expression)
    if not parameter.pointer:
        scalar = _SCALAR.fullmatch(text)
        if scalar is None:
            raise ArgumentError(f"{what}: '{parameter}' takes a number")
        return _scalar(what, _dtype(what, scalar[1], declared), scalar[2]), False
    if text == "null":
        return None, False
    if text.endswith(".npy") and "[" not in text:
        return _load(what, text), not parameter.constant
    array = _ARRAY.fullmatch(text)
    if array is None:
        raise ArgumentError(
            f"{what}: '{parameter}' takes an array: [SHAPE], DTYPE[SHAPE], [SHAPE]:CONTENTS, FILE.npy or null"
        )
    dtype = _dtype(what, array[1], declared)
    shape = tuple(int(n) for n in re.findall(r"\d+", array[2]))
    if array[3] is None and not parameter.constant:
        return numpy.zeros(shape, dtype), False
    return _contents(what, dtype, shape, array[3] or "random", generator), not parameter.constant


def _dtype(what: str, asked: str | None, declared: numpy.dtype[Any] | None) -> numpy.dtype[Any]:
    if not asked and declared is not None:
        return declared
    try:
        if asked:
            return numpy.dtype(asked)
    except TypeError:
        raise ArgumentError(f"{what}: {asked!r} is no dtype; expected float32, int32, ...") from None
    raise ArgumentError(f"{what}: the declared type is not understood; give a dtype, as in float32[1000] or int32:5")


def _scalar(what: str, dtype: numpy.dtype[Any], text: str) -> Any:
    try:
        if dtype.kind == "b":
            return numpy.bool_({"true": True, "1": True, "false": False, "0": False}[text.lower()])
        return dtype.type(int(text, 0) if dtype.kind in "iu" else text)
    except (ValueError, KeyError, OverflowError):
        raise ArgumentError(f"{what}: {text!r} is no {dtype}") from None


def _contents(what: str, dtype: numpy.dtype[Any], shape: tuple[int, ...], text: str, generator: Any) -> numpy.ndarray:
    bounds = _RANGE.fullmatch(text)
    integer = dtype.kind in "iu"
    if text == "random":
        drawn = (
            generator.normal(size=shape)
            if dtype.kind == "f"
            else generator.integers(0, 2 if dtype.kind == "b" else 100, shape)
        )
    elif text in ("zeros", "ones"):
        drawn = numpy.full(shape, text == "ones")
    elif text == "arange":
        drawn = numpy.arange(int(numpy.prod(shape))).reshape(shape)
    elif text.endswith(".npy"):
        drawn = _load(what, text)
        if drawn.shape != shape or drawn.dtype != dtype:
            raise ArgumentError(
                f"{what}: the file holds {drawn.dtype}{list(drawn.shape)}, expected {dtype}{list(shape)}"
            )
    elif bounds is not None:
        low, high = _scalar(what, dtype, bounds[1]), _scalar(what, dtype, bounds[2])
        if not low < high:
            raise ArgumentError(f"{what}: {text!r}: the first must be less than the second")
        drawn = generator.integers(low, high, shape) if integer else generator.uniform(low, high, shape)
    else:
        try:
            drawn = numpy.full(shape, _scalar(what, dtype, text))
        except ArgumentError:
            known = "random, zeros, ones, arange, a number, A..B or FILE.npy"
            raise ArgumentError(f"{what}: contents {text!r} of {dtype}; expected {known}") from None
    return numpy.asarray(drawn).astype(dtype)


def _load(what: str, path: str) -> numpy.ndarray:
    try:
        return numpy.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{what}: {path} cannot be read: {error}") from None


def from_file(path: str | Path) -> Iterator[Launch]:
    """The launches of a Python file: what its function ``launches()`` returns or yields, each a :class:`Launch` or a
    dictionary with the same names.

    Raises:
        ArgumentError: the file cannot be run, has no such function, or makes something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentError(f"--launch {path}: expected a Python file with a function launches()")
    try:
        found = runpy.run_path(str(path), run_name="launches")
        if "launches" not in found:
            raise ArgumentError("there is no function launches()")
        made = [launch if isinstance(launch, Launch) else Launch(**launch) for launch in found["launches"]()]
    except Exception as error:  # whatever the user's file raises
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise ArgumentError(f"--launch {where}: {type(error).__name__}: {error}") from error
    if not made:
        raise ArgumentError(f"--launch {path}: launches() returned none")
    yield from made
