"""Rules for the whole library: samples for every op, layering of imports, lazy imports, error types."""

from __future__ import annotations

import ast
import builtins
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

import numpy
import pytest

import gpunet
from gpunet.autograd import OPS
from gpunet.autograd.op import Fused, Primitive
from gpunet.errors import GpunetError
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.optim import lr_scheduler  # noqa: F401  fills KERNELS
from tests.samples import ACTIVATIONS, SAMPLES

PACKAGE = Path(gpunet.__file__).parent

#: From the bottom up: a module imports only from earlier lines and, without cycles, from its own line.
LAYERS = (
    "errors",
    "backend",
    "emulator",
    "testing",
    "launch",
    "autograd",
    "ops",
    "distributed",
    "nn optim",
    "func",
    "captured",
    "data distributions",
    "metrics models vision",
    "train",
    "sweeps",
    "diagnose estimators",
    "_C accelerator amp backends cpu cuda fft linalg mps multiprocessing random special utils",  # re-export names, as "" does
    "",
    "interop onnx",
    "tools version",
    "cli __main__",
)
OPTIONAL = (
    "cupy", "cupyx", "torch", "sklearn", "scipy", "joblib", "threadpoolctl", "matplotlib", "ml_dtypes", "mpi4py", "safetensors",
    "rich", "optuna", "numba", "cuda", "onnx", "onnxruntime", "pandas", "polars", "pyarrow", "tokenizers",
)  # fmt: skip


# ---- ops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPS))
def test_op_has_a_sample(name: str) -> None:
    assert any(s.op == name for s in SAMPLES), f"op {name!r} has no row in tests/samples/: add one (CONTRIBUTING.md)"


def test_every_activation_has_samples() -> None:
    names = {name for name, _ in ACTIVATIONS}
    assert names == set(gpunet.ops.activations.ACTIVATIONS), "tests/samples/activations.py: ACTIVATIONS lacks a row"


def test_samples_have_existing_ops_and_unique_names() -> None:
    assert {s.op for s in SAMPLES} <= set(OPS)
    names = [s.name for s in SAMPLES]
    assert len(set(names)) == len(names)


def test_every_fused_op_has_a_composition() -> None:
    for op in OPS.values():
        assert op.kind in ("primitive", "fused")
        assert (op.composed is not None) == (op.kind == "fused"), op.name


def test_every_op_has_a_backward() -> None:
    for op in OPS.values():
        if isinstance(op, Primitive):
            assert any(op.rules) or op.variadic_rule is not None, f"{op.name} has no derivatives"
        else:
            assert isinstance(op, Fused) and op.backward is not None, f"{op.name} has no backward"


# ---- layers ---------------------------------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """Module name without "gpunet." ("" for the package itself) -> source, for every module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes outside ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from runtime_nodes(other)
            continue
        yield node
        yield from runtime_nodes(node)


def imported(module: str, source: str, package: bool) -> Iterator[str]:
    """Absolute names of the modules and of the names in modules that a module imports, also inside functions."""
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["gpunet", *filter(None, module.split("."))]
                here = here[: len(here) - node.level + package]
                base = ".".join([*here, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def dependencies(modules: dict[str, str]) -> dict[str, set[str]]:
    """module -> the modules of the package that it imports."""
    result: dict[str, set[str]] = {}
    for module, source in modules.items():
        is_package = any(other.startswith(f"{module}.") for other in modules) or module == ""
        found = set()
        for name in imported(module, source, is_package):
            if name == "gpunet" or name.startswith("gpunet."):
                inner = name.removeprefix("gpunet").lstrip(".")
                found.add(inner if inner in modules else inner.rpartition(".")[0])
        result[module] = found - {module}
    return result


def layer(module: str) -> int:
    """The index in LAYERS of a module's top-level package."""
    wanted = ".".join(module.split(".")[:1])
    for number, line in enumerate(LAYERS):
        if wanted in (line.split() or [""]):
            return number
    raise AssertionError(f"gpunet.{module} is in no layer: add its package to LAYERS in {__file__}")


def upward_imports(modules: dict[str, str]) -> list[str]:
    return [
        f"gpunet.{module} imports gpunet.{other}, which is in a higher layer"
        for module, found in dependencies(modules).items()
        for other in sorted(found)
        if layer(other) > layer(module)
    ]


def import_cycles(modules: dict[str, str]) -> list[list[str]]:
    """Cycles of imports, each once: repeatedly remove modules without imports, then follow the remaining imports."""
    graph = {m: set(found) for m, found in dependencies(modules).items()}
    while free := [m for m, found in graph.items() if not found & graph.keys()]:
        for module in free:
            del graph[module]
    found = []
    while graph:
        path = [next(iter(graph))]
        while (step := next(iter(sorted(graph[path[-1]] & graph.keys())), None)) is not None and step not in path:
            path.append(step)
        if step is not None:
            found.append(path[path.index(step) :])
        for module in path:
            graph.pop(module, None)
    return found


def test_imports_go_down() -> None:
    assert upward_imports(sources()) == []


def test_imports_have_no_cycle() -> None:
    assert import_cycles(sources()) == []


def test_layer_checks_detect_planted_violations() -> None:
    planted = {"": "", "errors": "", "nn": "", "backend": ""}
    planted |= {"backend.devices": "from gpunet.errors import DeviceError", "autograd": "from gpunet.backend import devices"}
    assert upward_imports(planted) == []
    assert len(upward_imports({**planted, "backend.devices": "import gpunet.autograd"})) == 1
    assert len(upward_imports({**planted, "autograd": "def f():\n    from gpunet.nn import Linear"})) == 1
    assert len(upward_imports({**planted, "autograd": "from . import nn"})) == 1
    assert len(upward_imports({**planted, "errors": "from gpunet import __version__"})) == 1
    type_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gpunet.nn import Linear"
    assert upward_imports({**planted, "autograd": type_only}) == []
    with pytest.raises(AssertionError, match="is in no layer"):
        upward_imports({**planted, "novelty": "import gpunet.errors"})

    one_way = {"ops": "", "ops.a": "from gpunet.ops.b import f", "ops.b": ""}
    assert import_cycles(one_way) == []
    assert import_cycles({**one_way, "ops.b": "def f():\n    import gpunet.ops.a"}) == [["ops.a", "ops.b"]]


def test_only_backend_devices_imports_cupy() -> None:
    offenders = []
    for module, source in sources().items():
        names = {name.partition(".")[0] for name in imported(module, source, False)}
        if names & {"cupy", "cupyx", "cupy_backends"} and module != "backend.devices":
            offenders.append(module)
    assert offenders == []


#: Modules that may call CuPy with the current device as it is, and those that make the GPU of an array current themselves.
PLACES = ("backend", "tools", "cli.info")
SEAM = ("launch.shims", "launch.faults", "ops.index_launches", "ops.one_hot")
#: Methods of arrays that launch nothing and wait for nothing.
VIEWS = ("reshape", "transpose", "swapaxes", "squeeze", "view")
METHODS = {name for name in dir(numpy.ndarray) if callable(getattr(numpy.ndarray, name))} | {"get", "set"}


def misplaced(module: str, source: str) -> list[str]:
    """Lines that may run CuPy with another GPU as the current device than the one of the array."""
    if module.startswith(PLACES):
        return []

    def is_array(node: ast.AST | None) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "array"

    offenders = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            wrong = node.attr == "cupy" or (node.attr == "on_device_of" and module not in SEAM)
            wrong |= is_array(node.value) and node.attr in METHODS.difference(VIEWS)
        elif isinstance(node, ast.ImportFrom):
            wrong = any(alias.name in ("cupy", "on_device_of") for alias in node.names)
        elif isinstance(node, ast.Subscript):
            wrong = isinstance(node.ctx, ast.Store) and is_array(node.value)
        elif isinstance(node, ast.BinOp):
            wrong = is_array(node.left) or is_array(node.right)
        elif isinstance(node, ast.AugAssign):
            wrong = is_array(node.target) or is_array(node.value)
        elif isinstance(node, (ast.UnaryOp, ast.Compare)):
            operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, *node.comparators]
            is_identity = isinstance(node, ast.Compare) and all(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops)
            wrong = any(map(is_array, operands)) and not is_identity
        else:
            continue
        if wrong:
            offenders.append(f"gpunet.{module}, line {node.lineno}: {ast.unparse(node)[:80]}")
    return offenders


def test_cupy_runs_on_the_gpu_of_its_arrays() -> None:
    """By launches, ``devices.module(array)``, ``devices.copy``, ``assign``, ``take`` and ``move``.

    CuPy launches, allocates and reads on the current device.  Of what has no ``.array`` in sight, test_other_gpu.py finds
    out.
    """
    assert [line for module, source in sources().items() for line in misplaced(module, source)] == []


@pytest.mark.parametrize(
    "line",
    ["x.array.copy()", "x.array[...] = 1.0", "x.array += 1", "y = -x.array", "y = 2 * x.array", "y = x.array > 0",
     "xp = devices.cupy()", "from gpunet.backend.devices import on_device_of", "run(x.array.get)"],
)  # fmt: skip
def test_the_check_of_places_detects(line: str) -> None:
    assert len(misplaced("ops.novelty", line)) == 1 and misplaced("backend.novelty", line) == []
    assert misplaced("ops.novelty", "devices.copy(x.array.reshape(-1)); y = x.array is z.array; f(x.array.shape)") == []


def test_the_host_reads_arrays_through_the_backend() -> None:
    """``devices.to_host`` and ``devices.move`` raise what kernels reported; ``array.item()`` and the like would not."""
    offenders = []
    for module, source in sources().items():
        if module.partition(".")[0] in ("backend", "emulator", "tools"):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("item", "tolist", "get"):
                value = ast.unparse(node.func.value)
                if value.endswith(".array") or (node.func.attr == "get" and not node.args):
                    offenders.append(f"gpunet/{module.replace('.', '/')}.py:{node.lineno} calls {value}.{node.func.attr}()")
    assert [o for o in offenders if not o.startswith("gpunet/launch/faults.py")] == []  # it reads what was reported


def test_package_root_only_re_exports_names() -> None:
    for node in ast.parse(sources()[""]).body:
        plain = isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If))
        hook = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__", "_names")
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert plain or hook or text, f"gpunet/__init__.py, line {node.lineno}: {ast.unparse(node)[:60]}"


def test_the_library_makes_tensors_of_arrays_by_make_tensor() -> None:
    """Tensor is the constructor of PyTorch for users: it converts arrays to the default dtype."""
    offenders = []
    for module, source in sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Tensor":
                offenders.append(f"{module}:{node.lineno}")
    assert [o for o in offenders if not o.startswith("tools.bench.peers")] == []


# ---- facts of kernels -----------------------------------------------------------------------------------------------

#: Files of tests that may name kernels in strings outside of assertions, with the reason.
MAY_NAME_KERNELS = {"tests/captured/test_lowering.py": "the op of a user has the name of a kernel there"}


def named_kernels(source: str, is_test: bool, names: Collection[str]) -> Iterator[str]:
    """Lines that name a kernel where it should be the kernel itself, or one of its facts: see ``gpunet.launch.facts``.

    In the library these are strings that begin with the name of a kernel, such as keys of a table and patterns of
    specialisations, and functions that have its name, as a registry might take it.  In tests only strings that are the
    name; an assertion may compare the name of a launch.
    """
    tree = ast.parse(source)
    skipped: set[ast.AST] = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    if is_test:
        skipped.update(node for n in ast.walk(tree) if isinstance(n, ast.Assert) for node in ast.walk(n))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            first_word = re.match(r"\w*+(?!\.cu)", node.value)
            name = node.value if is_test else first_word[0] if first_word else ""
        elif isinstance(node, ast.FunctionDef) and not is_test:
            is_kernel = any(ast.unparse(d).startswith(("kernel(", "list_kernel(", "update_kernel(")) for d in node.decorator_list)
            name = "" if is_kernel else node.name
        else:
            continue
        if name in names:
            yield f"line {node.lineno}: {name!r}"


def test_no_table_outside_of_the_kernels_is_keyed_by_their_names() -> None:
    root, offenders = PACKAGE.parent, []
    for folder in ("gpunet", "bench", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if file not in MAY_NAME_KERNELS:
                found = named_kernels(path.read_text(encoding="utf-8"), folder == "tests", KERNELS)
                offenders += [f"{file}, {line}" for line in found]
    assert offenders == [], "state a fact of a kernel where its cases are (CONTRIBUTING.md), and pass the kernel itself"


@pytest.mark.parametrize("line", ["HOT = ('scale', 'shift')", "ROWS = {'scale': 3}", "WASTE = [('scale<float, *', '*')]",
                                  "@registered\ndef scale(s):\n    yield s", "if kernel.name == 'scale':\n    pass"])  # fmt: skip
def test_the_check_of_names_detects(line: str) -> None:
    assert len(list(named_kernels(line, False, {"scale"}))) == 1
    is_whole_name = "def" not in line and "<" not in line
    assert len(list(named_kernels(line, True, {"scale"}))) == is_whole_name


def test_the_check_of_names_accepts_kernels_texts_and_assertions() -> None:
    twin = "@kernel('scale.cu', outputs=1)\ndef scale(y):\n    'scale: y *= 2'\n    raise ValueError('of scale')"
    assert list(named_kernels(twin, False, {"scale"})) == []
    assert list(named_kernels("assert launch.kernel.name == 'scale'", True, {"scale"})) == []


def test_captured_steps_know_no_op() -> None:
    """Loop bodies, and all else that a compiled step needs of an op, hang on its kernel."""
    known = [
        f"{module.__name__}.{name}"
        for module in all_modules()
        if module.__name__.startswith("gpunet.captured")
        for name, value in vars(module).items()
        if isinstance(value, Kernel) or any(value is op for op in OPS.values())
    ]
    assert known == []


# ---- imports --------------------------------------------------------------------------------------------------------


def test_import_gpunet_imports_no_optional_package() -> None:
    """In a new process with warnings as errors; nothing is printed."""
    code = f"import gpunet, sys; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_snippet_runs_with_gpunet_imported_as_torch() -> None:
    code = (
        "import gpunet as torch\nw = torch.tensor([2.0], requires_grad=True)\nx = torch.tensor([3.0])\n"
        "loss = (w*x - 10.0)**2\nloss.backward()\nprint(w.grad.item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout == "-24.0\n"


# ---- dtypes ---------------------------------------------------------------------------------------------------------


def kinds_of_dtypes(source: str) -> Iterator[int]:
    """The lines that read ``kind`` of a dtype: of an attribute ``dtype``, or compared with NumPy's letters of kinds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "kind" and getattr(node.value, "attr", "") == "dtype":
            yield node.lineno
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            letters = [o.value for o in operands if isinstance(o, ast.Constant) and isinstance(o.value, str)]
            reads_kind = any(isinstance(o, ast.Attribute) and o.attr == "kind" for o in operands)
            if reads_kind and any(text and set(text) <= set("biufcmMOSUV") for text in letters):
                yield node.lineno


def test_only_one_module_knows_the_kinds_of_dtypes() -> None:
    """That of bfloat16 is "V": other modules ask ``is_floating`` and the like."""
    found = {name: [*kinds_of_dtypes(text)] for name, text in sources().items() if name != "backend.dtypes"}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    ['x.dtype.kind == "f"', 'numpy.dtype(t).kind in "iu"', 'target.kind not in "fiub"', "KINDS[a.dtype.kind]", '"b" != d.kind'],
)
def test_kinds_of_dtypes_are_found(line: str) -> None:
    assert [*kinds_of_dtypes(line)] and not [*kinds_of_dtypes('call.kind == "opaque" or p.kind is p.VAR_KEYWORD')]


# ---- errors ---------------------------------------------------------------------------------------------------------


#: What may be absent, by the modules that import it.
OPTIONAL_PACKAGES = {
    "gpunet.captured.compiled.": ("numba", "llvmlite"),
    "gpunet.interop.onnx.": ("onnx",),
    "gpunet.tools.bench.peers.jax_networks": ("jax",),
    "gpunet.estimators": ("sklearn",),
}


def all_modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages([str(PACKAGE)], "gpunet."):
        if not found.name.endswith("__main__"):
            try:
                yield importlib.import_module(found.name)
            except ImportError as error:
                optional = {name for prefix, names in OPTIONAL_PACKAGES.items() if found.name.startswith(prefix) for name in names}
                if error.name not in optional:
                    raise


def test_every_exception_class_is_a_gpunet_error() -> None:
    ours = {
        value
        for module in all_modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__.startswith("gpunet")
    }
    assert len(ours) > 5
    assert [kind for kind in ours if not issubclass(kind, GpunetError)] == []
    assert [kind for kind in ours if not kind.__doc__] == []


def test_library_raises_only_gpunet_errors() -> None:
    """Allowed built-in exceptions: those of Python's protocols, and AssertionError for impossible states."""
    allowed = {"AttributeError", "NotImplementedError", "StopIteration", "KeyboardInterrupt", "SystemExit", "AssertionError"}
    offenders = []
    for module, source in sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                name = node.exc.func.id
                if hasattr(builtins, name) and name not in allowed:
                    offenders.append(f"gpunet/{module.replace('.', '/')}.py:{node.lineno} raises {name}")
    assert offenders == []
