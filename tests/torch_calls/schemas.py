"""The overloads of PyTorch's functions: names, types and defaults of their parameters.

They are read from ``native_functions.yaml``, which comes with PyTorch, and from the signatures of functions written in Python.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

#: Functions whose Python signature is not in native_functions.yaml, or not the one there; written as there.
PARSED_BY_HAND = """
tensor(Any data, *, ScalarType? dtype=None, Device? device=None, bool requires_grad=False, bool pin_memory=False)
as_tensor(Any data, ScalarType? dtype=None, Device? device=None)
from_numpy(Array ndarray)
asarray(Any obj, *, ScalarType? dtype=None, Device? device=None, bool? copy=None, bool requires_grad=False)
size(Tensor self)
size(Tensor self, int dim)
stride(Tensor self)
stride(Tensor self, int dim)
numpy(Tensor self, *, bool force=False)
is_contiguous(Tensor self, *, MemoryFormat memory_format=contiguous_format)
type(Tensor self)
type(Tensor self, ScalarType dtype)
cpu(Tensor self, *, MemoryFormat? memory_format=None)
copy_(Tensor self, Tensor other, bool non_blocking=False)
"""
#: Methods that convert to the dtype of their name have one parameter.
CONVERSIONS = "bool byte char short int long half float double bfloat16"


class Parameter(NamedTuple):
    name: str
    type: str  # as in native_functions.yaml: "Tensor", "int[1]?", "Scalar", ...
    default: str | None  # source text of the default; None if the parameter is required
    is_keyword_only: bool


class Overload(NamedTuple):
    parameters: tuple[Parameter, ...]

    @property
    def has_out(self) -> bool:
        return any(p.type.startswith("Tensor(") and "!" in p.type and p.is_keyword_only for p in self.parameters)


def parse(arguments: str) -> Overload:
    """Return the overload whose arguments are written as in native_functions.yaml."""
    parameters, is_keyword_only = [], False
    for item in re.split(r", (?![^(\[]*[)\]])", arguments):
        if item == "*":
            is_keyword_only = True
        elif item:
            declared, _, default = item.partition("=")
            kind, _, name = declared.rpartition(" ")
            parameters.append(Parameter(name, kind, _default(default), is_keyword_only))
    return Overload(tuple(parameters))


def _default(text: str) -> str | None:
    if text == "Mean":  # of a loss: Python's functions of PyTorch do not reduce by default, against the file
        return "0"
    if text.startswith("[") or text in ("None", "True", "False") or not re.match(r"[a-zA-Z]", text):
        return text or None
    return text if text.startswith(("'", '"')) else f"torch.{text}"  # Mean, long, contiguous_format


@functools.cache
def native() -> dict[str, list[tuple[Overload, frozenset[str]]]]:
    """The overloads of each name, with their variants: "function", "method", "nn"."""
    spec = importlib.util.find_spec("torchgen")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "packaged/ATen/native/native_functions.yaml"
    found: dict[str, list[tuple[Overload, frozenset[str]]]] = defaultdict(list)
    for entry in re.split(r"^- func: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head = re.match(r"(\w+?)(?:\.\w+)?\((.*)\) -> ", entry)
        if head is None or "Dimname" in head[2]:
            continue
        variants = re.search(r"^  variants: ([\w, ]+)", entry, re.MULTILINE)
        module = re.search(r"^  python_module: (\w+)", entry, re.MULTILINE)
        kinds = {word.strip() for word in variants[1].split(",")} if variants else {"function"}
        if module:
            kinds = {module[1]} | (kinds & {"method"})
        overload = parse(head[2])
        if "function" in kinds and {"layout", "pin_memory"} <= {p.name for p in overload.parameters}:  # makes a tensor
            overload = Overload((*overload.parameters, Parameter("requires_grad", "bool", "False", True)))
        found[head[1]].append((overload, frozenset(kinds)))
    by_hand = [line.partition("(") for line in PARSED_BY_HAND.strip().split("\n")]
    for name, _, _ in by_hand:
        found.pop(name, None)
    for name, _, arguments in by_hand:
        found[name].append((parse(arguments.removesuffix(")")), frozenset({"function", "method"})))
    for name in CONVERSIONS.split():
        overload = parse("Tensor self, *, MemoryFormat? memory_format=None")
        found[name].append((overload, frozenset({"method"})))
    return found


#: Annotations of PyTorch's Python functions -> types of native_functions.yaml.
_ANNOTATIONS = {
    "Tensor": "Tensor", "int": "int", "float": "float", "bool": "bool", "str": "str", "DType": "ScalarType", "dtype": "ScalarType",
    "list[int]": "int[]", "List[int]": "int[]", "BroadcastingList1[int]": "int[]", "BroadcastingList2[int]": "int[]",
    "Number": "Scalar",
}  # fmt: skip


def of_python(function: Callable[..., Any]) -> Overload:
    """Return the signature of a function that is written in Python."""
    parameters = []
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        text = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "") or str(p.annotation)
        text = str(p.annotation) if "[" in str(p.annotation) or "|" in str(p.annotation) else text
        text = re.sub(r"torch\.|typing\.|_C\.|builtins\.", "", text)
        optional = "Optional" in text or "None" in text
        text = re.sub(r"Optional\[(.*)\]", r"\1", text).replace(" | None", "").replace("None | ", "")
        kind = _ANNOTATIONS.get(text, "Tensor" if p.name in ("input", "self") else "Any")
        default = None if p.default is p.empty else _text_of_default(p.default)
        parameters.append(Parameter(p.name, kind + ("?" if optional else ""), default, p.kind is p.KEYWORD_ONLY))
    return Overload(tuple(parameters))


def _text_of_default(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, (bool, int, float, str, list, tuple)) else "None"
