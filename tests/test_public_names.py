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
    assert [name for name in {*gpunet._names(path), *getattr(module, "__all__", ())} if not hasattr(module, name)] == []


def test_modules_import_without_docstrings() -> None:
    """With ``python -OO``.  A module may need a package that is not installed."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "gpunet").rglob("*.py")]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        if (error.name or '').startswith('gpunet'):\n"
        "            raise\n"
    )
    done = subprocess.run([sys.executable, "-OO", "-c", code, *sorted(modules)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_name_is_in_two_modules() -> None:
    counts = Counter(name for path in MODULES for name in gpunet._names(path))
    assert [name for name, count in counts.items() if count > 1] == []


def test_type_checking_imports_match_the_table() -> None:
    tree = ast.parse(Path(gpunet.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {node.module: [alias.name for alias in node.names] for node in block.body if isinstance(node, ast.ImportFrom)}
    submodules = {*gpunet._STAR_SUBMODULES, *gpunet._SUBMODULES} - {"backend", "captured", "launch"}
    assert imports.pop("gpunet") == sorted(submodules)
    expected = {f"gpunet.{path}": [*gpunet._SELECTED_NAMES.get(path, ("*",))] for path in MODULES}
    assert imports == expected


def star_import(module: str) -> set[str]:
    namespace: dict[str, object] = {}
    exec(f"from {module} import *", namespace)
    return namespace.keys() - {"__builtins__"}


def test_star_import_of_the_package() -> None:
    assert star_import("gpunet") == {*gpunet.__all__}
    assert {"Tensor", "tensor", "nn", "optim", "cuda", "capture", "save", "bool", "device", "relu"} <= {*gpunet.__all__}
    assert not {"data", "train", "errors", "elu"} & {*gpunet.__all__}  # in torch, too, elu is only in nn.functional
    assert {*gpunet.__all__, "data", "train", "errors"} <= {*dir(gpunet)}


@pytest.mark.parametrize("name", ["nn", "optim", "optim.lr_scheduler", "data", "train", "cuda", "nn.functional"])
def test_star_import_of_a_submodule_has_public_names_only(name: str) -> None:
    module = importlib.import_module(f"gpunet.{name}")
    found = star_import(f"gpunet.{name}")
    assert found == {n for n in dir(module) if not n.startswith("_")}
    assert not found & {"Any", "TYPE_CHECKING", "importlib", "annotations", "numpy"}


def submodules() -> list[str]:
    """Names of the files and folders of the package, without those of the command line."""
    found = {path.name.removesuffix(".py") for path in Path(gpunet.__file__).parent.glob("[a-z]*")}
    return sorted(found - {"cuda_kernels", "py.typed", "cli"})


@pytest.mark.parametrize("name", submodules())
def test_every_submodule_is_an_attribute_at_first_access(name: str) -> None:
    code = f"import gpunet; print(gpunet.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == f"gpunet.{name}\n", done.stderr


def test_unknown_name_raises_attribute_error() -> None:
    for name in ("no_such_name", "__wrapped__", "_private"):
        with pytest.raises(AttributeError, match=f"module 'gpunet' has no attribute '{name}'"):
            getattr(gpunet, name)


def test_a_name_of_the_backend_imports_no_ops() -> None:
    code = "import gpunet, sys; gpunet.device('cpu'); print('gpunet.ops' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


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


def test_a_network_trains_without_optional_packages() -> None:
    """With NumPy alone: no module needs another package, such as that of bfloat16, at its import."""
    code = """
import sys
for name in ("cupy", "matplotlib", "ml_dtypes", "numba", "pandas", "pyarrow", "rich", "safetensors", "scipy", "sklearn"):
    sys.modules[name] = None
import gpunet
from gpunet import data, metrics, models, nn, optim, train, vision
net = nn.Linear(4, 2)
optimizer = optim.Adam(net.parameters())
net(gpunet.randn(3, 4)).sum().backward()
optimizer.step()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
