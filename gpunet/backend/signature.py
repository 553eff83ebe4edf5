"""Parses the entry points (``__global__`` functions) of a CUDA source: template parameters, parameters, attributes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import as_dtype, is_floating
from gpunet.errors import ArgumentError, LaunchError

#: NumPy's name for each C type of a parameter.
DTYPES = {
    "float": "float32", "double": "float64", "bool": "bool", "half": "float16", "__half": "float16", "float16": "float16",
    "__nv_bfloat16": "bfloat16", "nv_bfloat16": "bfloat16", "bfloat16": "bfloat16",
    "char": "int8", "short": "int16", "int": "int32", "long": "int64", "long long": "int64",
    "unsigned char": "uint8", "unsigned short": "uint16", "unsigned int": "uint32", "unsigned long": "uint64",
    "unsigned long long": "uint64", "size_t": "uint64",
    **{f"{kind}{bits}_t": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Parameter(NamedTuple):
    """A parameter of an entry point."""

    name: str
    c_type: str  # without const and *: "float", "unsigned int", "T"
    pointer: bool
    constant: bool  # for a pointer: points to const
    grid_constant: bool = False  # declared __grid_constant__

    def __str__(self) -> str:
        return f"{'const ' * (self.pointer and self.constant)}{self.c_type}{'*' * self.pointer} {self.name}"


class Entry(NamedTuple):
    """A ``__global__`` function."""

    name: str
    place: str  # file:line of the declaration, according to the #line directives
    types: tuple[str, ...]  # names of the type template parameters, in order
    values: tuple[str, ...]  # names of the other template parameters
    parameters: tuple[Parameter, ...]
    attributes: dict[str, str]  # arguments of __launch_bounds__(...), __cluster_dims__(...) and similar attributes
    body: int  # index in the text just after the opening brace

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


def bare_name(expression: str) -> str:
    """Return the function's name without namespace and template arguments: "scale" for "kernels::scale<float>"."""
    return expression.partition("<")[0].rpartition("::")[2].strip()


def find_entry(text: str, file: str, expression: str, *, specialised: bool = True) -> Entry:
    """Find the declaration of a kernel ("scale") or of a specialisation ("scale<float>").

    Args:
        file: the name of the source in messages.
        specialised: raise if the kernel is a template and ``expression`` has no template arguments.

    Raises:
        ArgumentError: the source has no kernel of this name, or ``expression`` lacks template arguments.
    """
    declared = entries(text)
    entry = declared.get(bare_name(expression))
    if entry is None:
        known = ", ".join(declared) or "none"
        raise ArgumentError(f"{file} defines no __global__ function {expression!r}; it has {known}")
    if specialised and (entry.types or entry.values) and "<" not in expression:
        raise ArgumentError(
            f"{file}: {entry.name} is a template; name a specialisation, such as {entry.name + '<float>'!r}"
        )
    return entry


def as_scalar(value: Any, dtype: str, what: str) -> Any:
    """Convert ``value`` to a NumPy scalar of ``dtype``; ``what`` names it in the error.

    Raises:
        LaunchError: the value is not a number, or out of range for an integer dtype.
    """
    c_number = as_dtype(dtype).type
    if is_floating(as_dtype(dtype)):
        fits = isinstance(value, (int, float, numpy.integer, numpy.floating))
    elif c_number is numpy.bool_:
        fits = isinstance(value, (bool, numpy.bool_))
    else:
        limits = numpy.iinfo(dtype)
        fits = isinstance(value, (int, numpy.integer)) and limits.min <= int(value) <= limits.max
    if not fits:
        raise LaunchError(f"{what} is {value!r}, which is not a valid {dtype}")
    return c_number(value)


_NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_LINE = re.compile(r'\s*#\s*line\s+(\d+)\s+"([^"]*)"')
_NAME = re.compile(r"(\w+)\s*\(")
_ATTRIBUTE = re.compile(r"\b(__\w+__)\s*\(([^()]*)\)")
_QUALIFIERS = re.compile(r"\b(__restrict__|__restrict|__grid_constant__|const|volatile|struct|typename|register)\b")
_INTEGER = {"unsigned": "unsigned int", "signed": "int"}


def entries(text: str) -> dict[str, Entry]:
    """Parse the ``__global__`` functions that a source defines; declarations without a body are skipped."""
    code = _NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]) if m[0][0] == "/" else m[0], text)
    found = {}
    for start in (match.start() for match in re.finditer(r"\b__global__\b", code)):
        at = start
        attributes = dict(_ATTRIBUTE.findall(code[max(code.rfind(c, 0, start) for c in ";{}") + 1 : start]))
        while (named := _NAME.search(code, at)) is not None:
            end = _after_closing(code, named.end() - 1)
            if not named[1].startswith("__"):  # else an attribute such as __launch_bounds__(...)
                break
            attributes[named[1]] = " ".join(code[named.end() : end - 1].split())
            at = end
        brace = re.compile(r"\s*\{").match(code, end) if named is not None else None
        if named is None or brace is None:
            continue
        types, values = _template(code[:start])
        parameters = tuple(map(_parameter, _split(code[named.end() : end - 1])))
        place = _source_line(code[: named.start(1)])
        found[named[1]] = Entry(named[1], place, types, values, parameters, attributes, brace.end())
    return found


def _after_closing(code: str, at: int) -> int:
    """Return the index just after the parenthesis that closes the one at index ``at``."""
    depth = 0
    for index in range(at, len(code)):
        depth += {"(": 1, ")": -1}.get(code[index], 0)
        if depth == 0:
            return index + 1
    return len(code)


def _split(code: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in code:
        depth += (character in "(<[{") - (character in ")>]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _template(before: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the type and value template parameters of the function whose ``__global__`` follows ``before``."""
    head = re.search(r"\btemplate\s*<([^;{}]*)>\s*(?:(?:static|inline)\s*)*$", before)
    types: list[str] = []
    values: list[str] = []
    for parameter in _split(head[1].rpartition("template")[2].lstrip(" <") if head else ""):
        declared = parameter.partition("=")[0].split()
        (types if declared[0] in ("class", "typename") else values).append(declared[-1])
    return tuple(types), tuple(values)


def _parameter(text: str) -> Parameter:
    text = text.partition("=")[0]
    pointer = "*" in text or text.rstrip().endswith("]")
    constant = re.search(r"\bconst\b", text.partition("*")[0]) is not None
    words = _QUALIFIERS.sub(" ", text.replace("*", " ").partition("[")[0]).split()
    name = words.pop().strip("(&)") if len(words) > 1 else ""
    if len(words) > 1 and words[-1] == "int" and words[-2] in ("long", "short"):
        words.pop()
    if len(words) > 1 and words[0] == "signed":
        words.pop(0)
    c_type = " ".join(words)
    return Parameter(name, _INTEGER.get(c_type, c_type), pointer, constant, "__grid_constant__" in text)


def _source_line(before: str) -> str:
    """Return "file:line" of the position after ``before``, according to its #line directives."""
    file, number = "source", 1
    for line in before.split("\n")[:-1]:
        directive = _LINE.match(line)
        number = int(directive[1]) if directive else number + 1
        file = directive[2] if directive else file
    return f"{file}:{number}"
