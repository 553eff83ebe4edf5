"""The public names of ``gpunet``: each is in the ``__all__`` of one module, and is imported at first use."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import gpunet

MODULES = gpunet._REEXPORTED
ROOT = Path(gpunet.__file__).parents[1]


@pytest.mark.parametrize("path", MODULES)
def test_module_defines_the_names_in_its_all(path: str) -> None:
    module = importlib.import_module(f"gpunet.{path}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_no_name_is_in_two_modules() -> None:
    modules = [importlib.import_module(f"gpunet.{path}") for path in MODULES]
    counts = Counter(name for module in modules for name in module.__all__)
    assert [name for name, count in counts.items() if count > 1] == []


def test_type_checking_imports_match_the_table() -> None:
    tree = ast.parse(Path(gpunet.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {node.module: [alias.name for alias in node.names] for node in block.body if isinstance(node, ast.ImportFrom)}
    assert imports.pop("gpunet") == [name for name in gpunet._SUBMODULES if name not in ("backend", "captured")]
    expected = {f"gpunet.{path}": [*gpunet._SELECTED_NAMES.get(path, ("*",))] for path in MODULES}
    assert imports == expected


def test_star_import_and_dir() -> None:
    namespace: dict[str, object] = {}
    exec("from gpunet import *", namespace)
    assert set(dir(gpunet)) <= namespace.keys()
    assert {"Tensor", "tensor", "nn", "capture", "save", "bool", "device", "relu"} <= set(dir(gpunet))
    assert "elu" not in dir(gpunet)  # in torch, too, only in nn.functional


def test_unknown_name_raises_attribute_error() -> None:
    for name in ("no_such_name", "__wrapped__", "_private"):
        with pytest.raises(AttributeError, match=f"module 'gpunet' has no attribute '{name}'"):
            getattr(gpunet, name)


def test_import_gpunet_imports_no_submodule_and_no_numpy() -> None:
    code = "import sys; before = set(sys.modules); import gpunet; print(sorted(set(sys.modules) - before - {'gpunet'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    found = set(ast.literal_eval(done.stdout))
    assert not {name for name in found if name.startswith(("gpunet", "numpy"))}


def test_tensor_methods_are_attached_in_any_import_order() -> None:
    for statement in ("from gpunet.nn import Linear; x = Linear(1, 1).weight", "from gpunet import zeros; x = zeros(1)"):
        code = f"{statement}; print((x.exp() + 1).sum().ndim)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.stdout == "0\n", done.stderr
