"""The package's public names: each stands once, in the ``__all__`` of its module, and is found at first use."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import gpunet

MODULES = gpunet._MODULES
ROOT = Path(gpunet.__file__).parents[1]


@pytest.mark.parametrize("path", MODULES)
def test_module_defines_what_it_lists(path: str) -> None:
    module = importlib.import_module(f"gpunet.{path}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_names_stand_once() -> None:
    modules = [importlib.import_module(f"gpunet.{path}") for path in MODULES]
    counts = Counter(name for module in modules for name in module.__all__)
    assert [name for name, count in counts.items() if count > 1] == []


def test_the_names_that_type_checkers_see_are_those_of_the_table() -> None:
    tree = ast.parse(Path(gpunet.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {node.module: [alias.name for alias in node.names] for node in block.body if isinstance(node, ast.ImportFrom)}
    assert imports.pop("gpunet") == [room for room in gpunet._ROOMS if room not in ("backend", "captured")]
    expected = {f"gpunet.{path}": [*gpunet._ONLY.get(path, ("*",))] for path in MODULES}
    assert imports == expected


def test_star_import_and_dir() -> None:
    namespace: dict[str, object] = {}
    exec("from gpunet import *", namespace)
    assert set(dir(gpunet)) <= namespace.keys()
    assert {"Tensor", "tensor", "nn", "capture", "save", "bool", "device", "relu"} <= set(dir(gpunet))
    assert "elu" not in dir(gpunet)  # PyTorch has it in nn.functional alone


def test_unknown_names_are_attribute_errors() -> None:
    for name in ("no_such_name", "__wrapped__", "_private"):
        with pytest.raises(AttributeError, match=f"module 'gpunet' has no attribute '{name}'"):
            getattr(gpunet, name)


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import gpunet; print(sorted(set(sys.modules) - before - {'gpunet'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    found = set(ast.literal_eval(done.stdout))
    assert not {name for name in found if name.startswith(("gpunet", "numpy"))}


def test_methods_are_attached_whatever_is_imported_first() -> None:
    for statement in ("from gpunet.nn import Linear; x = Linear(1, 1).weight", "from gpunet import zeros; x = zeros(1)"):
        code = f"{statement}; print((x.exp() + 1).sum().ndim)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.stdout == "0\n", done.stderr
