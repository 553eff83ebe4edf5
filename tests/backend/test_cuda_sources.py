"""The CUDA sources without a GPU: every kernel compiles for every architecture and matches its twin's declaration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpunet.backend import compiler, cuda_sources, disk_cache, nvrtc
from gpunet.backend.dtypes import C_TYPES
from gpunet.errors import CompileError
from gpunet.launch import list_kernel
from gpunet.launch.kernel import KERNELS, Geometry, Kernel
from gpunet.launch.list_kernel import ListKernel
from gpunet.ops import gemm, pooling_launches
from gpunet.ops.losses import MAX_BLOCKS
from gpunet.tools import kernel_cases, kernel_table
from gpunet.tools.kernel_cases import specialisations
from gpunet.tools.kernel_table import ARCHITECTURES, why_it_spills
from gpunet.tools.register_usage import compile_and_measure
from tests.tools.launch_interface import differences


@cache
def nvrtc_is_installed() -> bool:
    try:
        compiler.nvrtc_version()
    except CompileError:
        return False
    return True


needs_nvrtc = pytest.mark.skipif(not nvrtc_is_installed(), reason="NVRTC is not installed")

# ---- every specialisation -----------------------------------------------------------------------------------------------


@cache
def _geometries(kernel: Kernel) -> list[tuple[str, Geometry]]:
    """Return (expression, geometry) of each case of the kernel in ``gpunet.tools.kernel_cases``."""
    geometries = [(case, case.geometry()) for case in kernel_cases.cases(kernel)]
    return [(case.expression(geometry), geometry) for case, geometry in geometries]


def test_every_kernel_has_cases() -> None:
    """No test would compile a kernel without cases, and the self-test would not run it."""
    lacking = [name for name, kernel in KERNELS.items() if not kernel_cases.has_cases(kernel)]
    assert lacking == [], f"add cases to {kernel_cases.__file__}"


#: The quick tier compiles the shown specialisations for this architecture; the rest tier all of them for all.
_QUICK_ARCHITECTURE = "sm_80"


def _compilations(is_quick: bool) -> list[Any]:
    return [
        pytest.param(
            kernel.name, architecture, id=f"{kernel.name}-{architecture}",
            marks=[] if is_quick and architecture == _QUICK_ARCHITECTURE else [pytest.mark.exhaustive],
        )
        for kernel in KERNELS.values() for architecture in ARCHITECTURES
    ]  # fmt: skip


@needs_nvrtc
@pytest.mark.parametrize("name, architecture", _compilations(is_quick=True))
def test_shown_specialisations_use_what_is_documented(name: str, architecture: str) -> None:
    """They are compiled without others, as for the page: registers depend slightly on what is compiled together."""
    kernel = KERNELS[name]
    made = compile_and_measure(kernel.file, specialisations(kernel, "representative"), architecture)
    version, cells = kernel_table.parse(kernel_table.page_path().read_text(encoding="utf-8"))
    same_compiler = ".".join(map(str, compiler.nvrtc_version())) == version
    wrong = []
    for e, found in made.usage.items():
        wrong += kernel_table.complaints(kernel, e, architecture, found, cells.get((e, architecture), ""), same_compiler)
    assert wrong == []
    assert differences(kernel, made.cubin, made.lowered) == []


@needs_nvrtc
@pytest.mark.parametrize("name, architecture", _compilations(is_quick=False))
def test_every_specialisation_compiles(name: str, architecture: str) -> None:
    """No hot kernel spills unless its facts give the reason, and launches pack what the kernels expect."""
    kernel = KERNELS[name]
    expressions = specialisations(kernel)
    made = compile_and_measure(kernel.file, expressions, architecture)
    assert made.cubin[:4] == b"\x7fELF"
    assert len(set(made.lowered.values())) == len(expressions)
    assert not made.log, made.log
    spilling = [expression for expression, usage in made.usage.items() if usage.spills and kernel.is_hot]
    assert [e for e in spilling if why_it_spills(kernel, e, architecture) is None] == [], "see Facts.spills"
    assert differences(kernel, made.cubin, made.lowered) == []


# ---- the twin and the CUDA entry point declare the same parameters -----------------------------------------------------


def _entry_parameters(kernel: Kernel) -> list[tuple[str, str]]:
    """Return (type, name) of the CUDA entry point's parameters; types without ``__restrict__`` and similar qualifiers."""
    text = re.sub(r"//[^\n]*", "", cuda_sources.spliced(kernel.file))
    found = re.findall(
        r"template <class T[^;{}]*?__global__ void\s*(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\))?\s*"
        rf"{kernel.entry}\(([^{{]*?)\)\s*\{{",
        text,
    )
    assert len(found) == 1, f"{kernel.file}: {len(found)} templates over T with an entry point {kernel.entry}"
    parameters = []
    for parameter in re.split(r",(?![^<>]*>)", found[0]):
        words = re.sub(r"__restrict__|__grid_constant__", "", parameter).split()
        kind, name = " ".join(words[:-1]), words[-1]
        stars = name.count("*")
        parameters.append((kind.replace(" *", "*") + "*" * stars, name.lstrip("*")))
    return parameters


def _c_scalar(value: Any) -> str:
    if type(value) is int:
        return "int"
    if type(value) is float:
        return "double"
    metadata = value.dtype.metadata or {}  # of a struct
    return f"const {metadata['c_type']}" if "c_type" in metadata else C_TYPES[value.dtype.name]


@pytest.mark.parametrize("name", KERNELS)
def test_twin_and_entry_have_the_same_signature(name: str) -> None:
    kernel = KERNELS[name]
    actual = _entry_parameters(kernel)
    pointers = list(zip(kernel.parameters, kernel.c_types))
    expected = []
    if isinstance(kernel, ListKernel):
        expected = [(f"const TensorTable<{kernel.lists}, CAPACITY>", "table")]
        pointers = pointers[kernel.lists :]
    written = {*kernel.parameters[: kernel.outputs], "ticket"}
    names = {"A": "Accumulator<T>"}
    expected += [(f"{'' if p in written else 'const '}{names.get(c_type, c_type)}*", p) for p, c_type in pointers]
    assert actual[: len(expected)] == expected
    for _, geometry in _geometries(kernel):
        assert [kind for kind, _ in actual[len(expected) :]] == [_c_scalar(value) for value in geometry.scalars]


def _constant(file: str, name: str) -> int:
    found = re.search(rf"(?:constexpr int|enum {{) {name} = (\d+)", cuda_sources.spliced(file))
    assert found, f"{file} has no {name}"
    return int(found[1])


def test_constants_in_cuda_and_python_are_equal() -> None:
    assert _constant("optimizers.cu", "ELEMENTS_PER_BLOCK") == list_kernel.ELEMENTS_PER_BLOCK
    assert _constant("common/loss.cuh", "MAX_BLOCKS") == MAX_BLOCKS


@needs_nvrtc
@pytest.mark.parametrize("name, capacity", [
    (k.name, capacity) for k in KERNELS.values() if isinstance(k, ListKernel) for capacity in k.capacities
])  # fmt: skip
def test_tensor_table_has_the_layout_of_its_dtype(name: str, capacity: int, tmp_path: Any, monkeypatch: Any) -> None:
    kernel = KERNELS[name]
    assert isinstance(kernel, ListKernel)
    dtype = list_kernel.table_dtype(kernel.lists, capacity)
    limit = 32764 if capacity == list_kernel.LARGE_TABLE else 4096  # bytes of parameters
    assert dtype.itemsize + 8 * len(kernel.parameters[kernel.lists :]) <= limit
    fields = dtype.fields
    assert fields is not None
    checks = [f"using Table = TensorTable<{kernel.lists}, {capacity}>;", f"static_assert(sizeof(Table) == {dtype.itemsize});"]
    checks += [f"static_assert(offsetof(Table, {field}) == {entry[1]});" for field, entry in fields.items()]
    (tmp_path / "layout.cu").write_text(
        cuda_sources.spliced("common/tensor_table.cuh").partition("\n")[2]
        + "#define offsetof(type, member) __builtin_offsetof(type, member)\n"
        + "\n".join(checks)
        + "\ntemplate <class T> __global__ void nothing() {}\n"
    )
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    compiler.compile("layout.cu", "nothing<float>", "sm_75")


@needs_nvrtc
@pytest.mark.parametrize("file, struct, divisor", [
    ("gemm/window.cuh", gemm.WINDOW_SHAPE, "pixels"), ("pooling.cu", pooling_launches.POOL_SHAPE, "plane"),
])  # fmt: skip
def test_structs_have_the_layout_of_their_dtypes(file: str, struct: Any, divisor: str, tmp_path: Any, monkeypatch: Any) -> None:
    name, fields = struct.metadata["c_type"], struct.fields
    assert fields is not None
    checks = [f"static_assert(sizeof({name}) == {struct.itemsize});"]
    checks += [f"static_assert(__builtin_offsetof({name}, {field}) == {entry[1]});" for field, entry in fields.items()]
    inner = fields[divisor][0].fields
    checks += [f"static_assert(__builtin_offsetof(Divisor, {field}) == {entry[1]});" for field, entry in inner.items()]
    text = cuda_sources.spliced(file).partition("\n")[2]
    (tmp_path / "layout.cu").write_text("\n".join([text, *checks, "template <class T> __global__ void nothing() {}\n"]))
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    compiler.compile("layout.cu", "nothing<float>", "sm_75")


def test_kernel_files_match_the_registered_kernels() -> None:
    assert cuda_sources.kernel_files() == sorted({kernel.file for kernel in KERNELS.values()})


def cuda_files() -> list[Path]:
    return sorted(path for path in cuda_sources.kernel_directory().rglob("*") if path.is_file())


@pytest.mark.parametrize("path", cuda_files(), ids=lambda path: path.name)
def test_sources_are_header_free_and_narrow(path: Any) -> None:
    text = path.read_text()
    assert text.startswith("// ")
    assert not re.search(r"#\s*include\s*<", text), "NVRTC gets no include directory"
    assert not [line for line in text.splitlines() if len(line) > 128]
    assert not re.search(r"atomicAdd|__expf|__logf|use_fast_math", text), "results must repeat to the last bit"


def test_only_the_primitives_have_two_bodies() -> None:
    """Inline PTX and code that depends on the emulator or the architecture are in three files only."""
    special = re.compile(r"\basm\b|#\s*(if|ifdef|ifndef|elif)\b.*(EMULATOR|__CUDA_ARCH__)")
    found = {path.name for path in cuda_files() if special.search(path.read_text())}
    assert found == {"half.cuh", "hopper.cuh", "primitives.cuh"}


# ---- splicing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: Any) -> Any:
    """A folder of test sources: main.cu includes a.cuh and b.cuh, both of which include c.cuh."""
    (tmp_path / "main.cu").write_text(
        '#include "a.cuh"\n  #  include "b.cuh"  // twice through c.cuh\n'
        "template <class T> __global__ void entry(T* out) { out[0] = a<T>() + b<T>(); }\n"
    )
    (tmp_path / "a.cuh").write_text('#include "c.cuh"\ntemplate <class T> __device__ T a() { return c<T>(); }\n')
    (tmp_path / "b.cuh").write_text('#include "c.cuh"\ntemplate <class T> __device__ T b() { return c<T>(); }\n')
    (tmp_path / "c.cuh").write_text("template <class T> __device__ T c() { return T(1); }\n")
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(disk_cache, "_has_warned", False)
    return tmp_path


def test_splice_takes_each_header_once(folder: Any) -> None:
    text = cuda_sources.spliced("main.cu")
    assert "#include" not in text
    assert [text.count(f"T {name}()") for name in "abc"] == [1, 1, 1]
    assert text.index("T c()") < text.index("T a()") < text.index("T b()") < text.index("entry")


def test_splice_keeps_lines(folder: Any) -> None:
    lines, file, number = cuda_sources.spliced("main.cu").splitlines(), "", 0
    for line in lines:
        directive = re.fullmatch(r'#line (\d+) "(.*)"', line)
        if directive:
            number, file = int(directive[1]), directive[2]
            continue
        assert (folder / file).read_text().splitlines()[number - 1] == line
        number += 1


def test_splice_survives_circular_includes(folder: Any) -> None:
    (folder / "c.cuh").write_text('#include "a.cuh"\ntemplate <class T> __device__ T c() { return T(1); }\n')
    assert cuda_sources.spliced("main.cu").count("T c()") == 1


def test_external_source_finds_its_own_headers_first(folder: Any) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.cuh").write_text("template <class T> __device__ T b() { return T(3); }\n")
    (elsewhere / "own.cu").write_text('#include "a.cuh"\n#include "b.cuh"\n')
    text = cuda_sources.spliced(elsewhere / "own.cu")
    assert text.startswith('#line 1 "own.cu"\n') and "T c()" in text and "T(3)" in text
    (elsewhere / "own.cu").write_text('#include "absent.cuh"\n')
    with pytest.raises(CompileError, match=r"own\.cu:1 includes 'absent\.cuh': .* in .*elsewhere or "):
        cuda_sources.spliced(elsewhere / "own.cu")


def test_missing_header_names_the_including_line(folder: Any) -> None:
    (folder / "b.cuh").write_text("\n\n" + '#include "missing.cuh"\n')
    with pytest.raises(CompileError, match=r"b\.cuh:3 includes 'missing\.cuh'"):
        cuda_sources.spliced("main.cu")


def test_missing_source_is_named(folder: Any) -> None:
    with pytest.raises(CompileError, match=r"absent\.cu"):
        cuda_sources.spliced("absent.cu")


# ---- compiling --------------------------------------------------------------------------------------------------------


@needs_nvrtc
def test_error_names_file_line_and_specialisation(folder: Any) -> None:
    (folder / "b.cuh").write_text("\ntemplate <class T> __device__ T b() { return undeclared_thing; }\n")
    with pytest.raises(CompileError) as error:
        compiler.compile("main.cu", "entry<float>", "sm_80")
    message = str(error.value)
    assert "b.cuh(2)" in message and "undeclared_thing" in message
    assert "main.cu" in message and "entry<float>" in message and "sm_80" in message


@needs_nvrtc
def test_unknown_specialisation_is_an_error() -> None:
    with pytest.raises(CompileError, match="NoSuchActivation"):
        compiler.compile("activation.cu", "activation_forward<float, NoSuchActivation>", "sm_80")


@needs_nvrtc
def test_denormals_are_kept() -> None:
    assert not any("ftz" in option or "fast" in option for option in compiler.OPTIONS)


def test_absent_nvrtc_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["/nowhere/libnvrtc.so"]))
    nvrtc.load.cache_clear()
    try:
        with pytest.raises(CompileError, match=r"pip install 'gpunet\[cuda13\]'.*GPUNET_NVRTC(.|\n)*/nowhere/libnvrtc"):
            compiler.nvrtc_version()
    finally:
        nvrtc.load.cache_clear()


def test_requested_library_is_the_only_candidate(monkeypatch: Any) -> None:
    monkeypatch.setenv("GPUNET_NVRTC", "/from/environment.so")
    assert list(nvrtc._candidates()) == ["/from/environment.so"]
    monkeypatch.setattr(nvrtc, "_chosen", "/from/call.so")
    assert list(nvrtc._candidates()) == ["/from/call.so"]


def test_search_path_of_the_library(monkeypatch: Any, tmp_path: Any) -> None:
    """Without cuda.pathfinder: NVIDIA's wheels, the CUDA toolkit's folders, then the system's loader."""
    for place in ("site/nvidia/cu13/lib", "cuda/lib64"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "libnvrtc.so.13").touch()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    monkeypatch.delenv("GPUNET_NVRTC", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    found = list(nvrtc._candidates())
    assert found[:2] == [str(tmp_path / "site/nvidia/cu13/lib/libnvrtc.so.13"), str(tmp_path / "cuda/lib64/libnvrtc.so.13")]
    assert found[-3:] == ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]


@needs_nvrtc
def test_library_by_path_and_a_failing_call() -> None:
    path = nvrtc.load().path
    nvrtc.set_library(path)
    try:
        assert nvrtc.load().path == path
        with pytest.raises(CompileError, match=r"nvrtcGetNumSupportedArchs failed: NVRTC_ERROR_INVALID_INPUT \(NVRTC \d+\.\d+, "):
            nvrtc.load()._call("GetNumSupportedArchs", None)
    finally:
        nvrtc.set_library(None)


@needs_nvrtc
@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), "sm_75"), ((8, 6), "sm_86"), ((9, 0), "sm_90a"), ((10, 0), "sm_100a"), ((12, 0), "sm_120")],
)
def test_architecture_of_a_gpu(capability: tuple[int, int], expected: str) -> None:
    assert compiler.architecture(capability) == expected


@needs_nvrtc
def test_architecture_of_gpus_newer_or_older_than_the_compiler() -> None:
    assert compiler.architecture((8, 99)).startswith("sm_8")
    with pytest.raises(CompileError, match=r"capability 3\.5"):
        compiler.architecture((3, 5))


# ---- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compilations(folder: Any, monkeypatch: Any) -> list[str]:
    """The expressions that were compiled rather than read from the cache."""
    compiled: list[str] = []

    def compile(file: str, expression: str, architecture: str) -> tuple[bytes, str, str]:
        compiled.append(expression)
        return b"\x7fELF\n\0machine code", f"_Z5{expression}", ""

    monkeypatch.setattr(compiler, "compile", compile)
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (13, 5))
    return compiled


def _entry(expression: str = "entry<float>", architecture: str = "sm_80") -> tuple[bytes, str]:
    path, name = compiler.compiled("main.cu", expression, architecture)
    return path.read_bytes(), name


def test_cache_hit(folder: Any, compilations: list[str]) -> None:
    first = _entry()
    assert _entry() == first == (b"\x7fELF\n\0machine code", "_Z5entry<float>")
    assert compilations == ["entry<float>"]
    kept = sorted((folder / "cache").iterdir())
    assert [path.suffix for path in kept] == [".cubin", ".name"]  # no partial file is left
    assert kept[0].read_bytes() == first[0] and kept[0].stem == kept[1].stem


def test_cache_key_covers_all_inputs(folder: Any, compilations: list[str], monkeypatch: Any) -> None:
    _entry()
    _entry(expression="entry<double>")
    _entry(architecture="sm_90a")
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (12, 9))
    _entry()
    monkeypatch.setattr(compiler, "OPTIONS", ("--std=c++20",))
    _entry()
    (folder / "c.cuh").write_text("template <class T> __device__ T c() { return T(2); }\n")
    _entry()
    assert len(compilations) == 6


@pytest.mark.parametrize("suffix", [".cubin", ".name"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-3]), lambda path: path.unlink()])
def test_damaged_entry_is_compiled_again(folder: Any, compilations: list[str], suffix: str, damage: Any) -> None:
    first = _entry()
    (path,) = (folder / "cache").glob(f"*{suffix}")
    damage(path)
    assert _entry() == first
    assert _entry() == first
    assert len(compilations) == 2


def test_failed_write_leaves_nothing(folder: Any, compilations: list[str], monkeypatch: Any, caplog: Any) -> None:
    def replace(*paths: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(disk_cache.os, "replace", replace)
    monkeypatch.setattr(compiler, "_temporary_folder", lambda: folder)
    monkeypatch.setattr(compiler, "write_whole", Path.write_bytes)
    assert _entry()[0] == b"\x7fELF\n\0machine code"
    assert list((folder / "cache").iterdir()) == []
    assert "no space left" in caplog.text


def test_unwritable_cache_works_and_warns_once(
    folder: Any, compilations: list[str], monkeypatch: Any, caplog: Any
) -> None:
    (folder / "file").write_text("a file where the folder should be")
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(folder / "file" / "cache"))
    assert _entry() == _entry() == (b"\x7fELF\n\0machine code", "_Z5entry<float>")
    assert len(compilations) == 2
    assert len(caplog.records) == 1 and "GPUNET_CACHE_DIR" in caplog.text


def test_cache_directory(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.delenv("GPUNET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert disk_cache.cache_directory() == tmp_path / "gpunet"
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path / "asked"))
    assert disk_cache.cache_directory() == tmp_path / "asked"
    disk_cache.set_cache_directory(tmp_path / "chosen")
    try:
        assert disk_cache.cache_directory() == tmp_path / "chosen"
    finally:
        disk_cache.set_cache_directory(None)


@needs_nvrtc
def test_real_compilation_through_the_cache(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path))
    path, name = compiler.compiled("special.cu", "erf_forward<float>", "sm_80")
    assert path.parent == tmp_path and path.read_bytes()[:4] == b"\x7fELF" and name.encode() in path.read_bytes()
    assert compiler.compiled("special.cu", "erf_forward<float>", "sm_80") == (path, name)


@needs_nvrtc
def test_temporary_machine_code_lives_as_long_as_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = "from gpunet.backend import compiler; print(compiler.compiled('special.cu', 'erf_forward<float>', 'sm_80')[0])"
    program += "; print(compiler._temporary_folder())"
    variables = {**os.environ, "GPUNET_CACHE_DIR": str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-u", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    path, folder = map(Path, done.stdout.split())
    assert path.parent == folder and folder.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and "Traceback" not in done.stderr


# ---- loading, with a stand-in for CuPy -----------------------------------------------------------------------------------


class FakeCuda:
    """The part of ``cupy`` that loading and launching use; it records the calls."""

    static_shared = 0

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.current = 0
        self.runtime = SimpleNamespace(getDevice=lambda: self.current)
        self.cuda = self

    def Device(self, index: int) -> Any:
        @contextmanager
        def on() -> Any:
            before, self.current = self.current, index
            yield
            self.current = before

        class FakeDevice:
            compute_capability = "90"

            def __enter__(self) -> None:
                self.on = on()
                self.on.__enter__()

            def __exit__(self, *error: Any) -> None:
                self.on.__exit__(None, None, None)

        return FakeDevice()

    def RawModule(self, *, path: str) -> Any:
        fake = self
        self.events.append(("load", self.current, Path(path).read_bytes()))

        class RawKernel:
            shared_size_bytes = self.static_shared
            kernel = SimpleNamespace(ptr=0)

            def __init__(self, name: str) -> None:
                fake.events.append(("get", name))

            def __setattr__(self, name: str, value: int) -> None:
                fake.events.append((name, value))

            def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
                fake.events.append(("launch", fake.current, grid, block, arguments, shared_mem))

        return SimpleNamespace(get_function=RawKernel)


def test_function_loads_once_and_launches_on_its_gpu(folder: Any, compilations: list[str], monkeypatch: Any) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(compiler.devices, "cupy", lambda: cuda)
    monkeypatch.setattr(compiler, "architecture", lambda capability: f"sm_{capability[0]}{capability[1]}")
    monkeypatch.setattr(compiler, "_functions", {})
    monkeypatch.setattr(compiler, "parameter_sizes", lambda function: None)
    device = SimpleNamespace(type="cuda", index=1)
    entry = compiler.function("main.cu", "entry<float>", device)  # type: ignore[arg-type]
    assert compiler.function("main.cu", "entry<float>", device) is entry  # type: ignore[arg-type]
    assert cuda.events == [("load", 1, b"\x7fELF\n\0machine code"), ("get", "_Z5entry<float>")]
    assert cuda.current == 0

    del cuda.events[:]
    entry((2, 3), (256,), ("x",), 0)
    assert cuda.events == [("launch", 1, (2, 3), (256,), ("x",), 0)]

    del cuda.events[:]
    cuda.current = 1
    entry((2,), (256,), (), 100_000)  # raises the function's shared memory limit once
    entry((2,), (256,), (), 90_000)
    assert cuda.events == [
        ("max_dynamic_shared_size_bytes", 100_000),
        ("launch", 1, (2,), (256,), (), 100_000),
        ("launch", 1, (2,), (256,), (), 90_000),
    ]


def test_static_and_dynamic_shared_memory_are_added(folder: Any, compilations: list[str], monkeypatch: Any) -> None:
    cuda = FakeCuda()
    cuda.static_shared = 40 << 10
    monkeypatch.setattr(compiler.devices, "cupy", lambda: cuda)
    monkeypatch.setattr(compiler, "architecture", lambda capability: "sm_90")
    monkeypatch.setattr(compiler, "parameter_sizes", lambda function: None)
    monkeypatch.setattr(compiler, "_functions", {})
    entry = compiler.function("main.cu", "entry<float>", SimpleNamespace(type="cuda", index=0))  # type: ignore[arg-type]
    for shared in (8 << 10, 9 << 10, 20 << 10):
        entry((1,), (32,), (), shared)
    launches = [e if e[0] != "launch" else ("launch", e[-1]) for e in cuda.events[2:]]
    asked = [("max_dynamic_shared_size_bytes", 9 << 10), ("launch", 9 << 10)]
    assert launches == [("launch", 8 << 10), *asked, ("max_dynamic_shared_size_bytes", 20 << 10), ("launch", 20 << 10)]


def test_import_stays_light() -> None:
    program = "import sys, gpunet; print({'cupy', 'gpunet.backend.nvrtc'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
