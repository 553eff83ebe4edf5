"""Read scripts that are written for PyTorch, without running them, and find what gpunet lacks."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gpunet
from gpunet.errors import ArgumentError, MissingNameError
from gpunet.interop.run_script import code_of_notebook
from gpunet.interop.torch_modules import WITHOUT, _Torch, place_of
from gpunet.ops.face import NUMPY_NAMES


class Finding(NamedTuple):
    """A name that a script uses, and that gpunet lacks."""

    path: str
    line: int
    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}: {self.problem}"


class Report(NamedTuple):
    """What was found in a script.

    Attributes:
        uses: the number of uses of PyTorch's names, methods of tensors excepted.
        findings: the uses of what is missing, by line.
    """

    uses: int
    findings: list[Finding]


MISSING = object()


@functools.cache
def _tensor_attributes() -> frozenset[str]:
    """The public attributes of PyTorch's Tensor, so that a method that gpunet lacks is known."""
    return frozenset(Path(__file__).with_name("tensor_attributes.txt").read_text(encoding="utf-8").split())


def resolve(path: str) -> Any:
    """The object of gpunet for a path such as "torch.nn.Linear", or the sentinel of a missing one."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        module_path = ".".join(parts[:count])
        if module_path == "torch":
            found: Any = _Torch()
        else:
            place = place_of(module_path)
            if place is None:
                continue
            try:
                found = importlib.import_module(place)
            except ImportError:
                return MISSING
        for name in parts[count:]:
            try:
                found = getattr(found, name)
            except (AttributeError, MissingNameError):
                found = MISSING
                break
        if found is not MISSING:
            return found
    return MISSING


class _Reader(ast.NodeVisitor):
    """Collects the uses of PyTorch's names in a tree.

    Attributes:
        names: variables that stand for a module or name of PyTorch -> its path.
        uses: (node, path) of each use.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.uses: list[tuple[ast.AST, str]] = []
        self.calls: list[tuple[ast.Call, str]] = []
        self.methods: list[tuple[ast.Call, str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            root = alias.name.partition(".")[0]
            if root in ("torch", "torchvision") or root in WITHOUT:
                self.names[alias.asname or root] = alias.name if alias.asname else root
                self.uses.append((node, alias.name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        root = (node.module or "").partition(".")[0]
        if node.level or (root not in ("torch", "torchvision") and root not in WITHOUT):
            return
        for alias in node.names:
            path = node.module if alias.name == "*" else f"{node.module}.{alias.name}"
            assert path is not None
            self.names[alias.asname or alias.name] = path
            self.uses.append((node, path))

    def path(self, node: ast.AST) -> str | None:
        """The path in PyTorch of an expression, such as ``nn.functional.relu``; None if it is something else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.path(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self.path(node)
        if path is None:
            self.visit(node.value)
        else:
            self.uses.append((node, path))

    def visit_Call(self, node: ast.Call) -> None:
        path = self.path(node.func)
        if path is not None:
            self.calls.append((node, path))
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.ctx, ast.Load):
            self.methods.append((node, node.func.attr))
        self.generic_visit(node)


def read_script(path: str | Path) -> Report:
    """Find the names of PyTorch that a script or notebook uses and gpunet lacks, and keywords that its functions do not take.

    Methods are found by their names: those of PyTorch's tensors that gpunet's do not have, whatever the object is.

    Raises:
        ArgumentError: the file does not exist, or is not Python.
    """
    script = Path(path)
    if not script.is_file():
        raise ArgumentError(f"port: no file {str(path)!r}; expected a Python script or a notebook")
    source = "\n".join(code_of_notebook(script)) if script.suffix == ".ipynb" else script.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source, str(script))
    except SyntaxError as error:
        raise ArgumentError(f"port: {path}, line {error.lineno}: {error.msg}") from None
    reader = _Reader()
    reader.visit(tree)
    findings = {finding for find in (_missing_names, _wrong_keywords, _missing_methods) for finding in find(reader, str(path))}
    return Report(len(reader.uses), sorted(findings))


def _missing_names(reader: _Reader, script: str) -> Iterator[Finding]:
    for node, path in reader.uses:
        if resolve(path) is MISSING:
            way_out = next((text for prefix, text in WITHOUT.items() if path == prefix or path.startswith(prefix + ".")), "")
            yield Finding(script, getattr(node, "lineno", 0), path, f"missing{': ' if way_out else ''}{way_out}")


def _wrong_keywords(reader: _Reader, script: str) -> Iterator[Finding]:
    for call, path in reader.calls:
        function = resolve(path)
        names = _keywords(function) if function is not MISSING else None
        if names is None:
            continue
        for keyword in call.keywords:
            if keyword.arg is not None and keyword.arg not in names:
                yield Finding(script, call.lineno, path, f"takes no keyword {keyword.arg}=")


def _keywords(function: Any) -> set[str] | None:
    """The keywords that a function takes; None if it takes any, or they are unknown."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
    return names if inspect.isclass(function) else names | {"out"} | {n for n, of in NUMPY_NAMES.items() if of in names}


def _missing_methods(reader: _Reader, script: str) -> Iterator[Finding]:
    for call, name in reader.methods:
        if name in _tensor_attributes() and not hasattr(gpunet.Tensor, name) and not hasattr(gpunet.nn.Module, name):
            yield Finding(script, call.lineno, f"Tensor.{name}", "missing, if this is a tensor")
