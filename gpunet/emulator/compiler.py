"""Compiles CUDA sources with g++: the kernels, their precompiled header, and the emulator's runtime, cached on disk.

Every file is named by a hash of all its inputs (sources, headers, flags, the compiler's version) and is moved into place
atomically.  So processes can share a cache folder, and an existing file is always complete and up to date.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpunet.backend import signature
from gpunet.errors import CompileError

_HERE = Path(__file__).resolve().parent
_HEADERS = ("cuda_on_cpu.h", "hopper.h", "intrinsics.h", "conversions.h", "vector_types.h", "half.h")
_TOOLKIT = _HERE / "toolkit"  # wrappers for CUDA's headers; precedes them in the include path
_RUNTIME = (
    "scheduler.cpp", "synchronise.cpp", "clocks.cpp", "checker.cpp", "lint.cpp", "asynchronous.cpp", "tensor_core.cpp",
    "mbarrier.cpp", "cluster.cpp", "bulk.cpp", "wgmma.cpp", "division.cpp", "callbacks.cpp",
)  # fmt: skip
_GENERATORS = (Path(__file__), Path(signature.__file__))  # they rewrite the sources, so their text is part of the hash

_COMMON = (
    "-std=c++17", "-fPIC", "-w",
    "-g1", "-gdwarf-4",  # line numbers only; addr2line of binutils misreads DWARF 5 for inlined functions
    "-ffp-contract=off",  # no fused multiply-adds: intrinsics such as __fmul_rn are plain operators
    "-fno-strict-aliasing", "-fno-math-errno", "-fno-exceptions", "-fno-threadsafe-statics",
    "-fno-gnu-unique",  # else two libraries would share the static arrays of a template instantiation
)  # fmt: skip

#: Flags of the two build modes of a kernel.  Both report misaligned vector accesses, which would crash the process.
MODES = {
    "fast": ("-O2", "-fsanitize=alignment"),
    "check": (
        "-O1", "-fno-tree-sra", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-ftrivial-auto-var-init=pattern",
        "-fsanitize=alignment,bounds-strict,object-size,shift,signed-integer-overflow,integer-divide-by-zero",
    ),
}  # fmt: skip


# ---- the compiler -----------------------------------------------------------------------------------------------------


def _executable() -> str:
    return os.environ.get("GPUNET_CXX") or "g++"


@functools.cache
def _describe(executable: str) -> str:
    """Return path, version and machine of a compiler."""
    path = shutil.which(executable)
    if path is None:
        raise CompileError(
            f"the device 'emulated' compiles CUDA sources with g++, but {executable!r} is not installed: "
            "apt install g++ (or dnf install gcc-c++, or conda install gxx), or set GPUNET_CXX to the path of g++"
        )
    done = subprocess.run([path, "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise CompileError(f"{path} is not g++ ({done.stderr.strip()}); set GPUNET_CXX to the path of g++")
    return f"{path} {' '.join(done.stdout.split())}"


def version() -> str:
    """Return path, version and machine of the compiler.

    Raises:
        CompileError: g++ is not installed; the message says what to install.
    """
    return _describe(_executable())


@functools.cache
def _machine_flags() -> tuple[str, ...]:
    """Return the flags that enable AVX2, if this machine has it."""
    with contextlib.suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if flags and {"avx2", "fma", "bmi2"} <= set(flags[1].split()):
            return ("-march=x86-64-v3",)
    return ()


def switch_kind() -> str:
    """Return how fibers are switched: "assembly" on x86-64 unless ``GPUNET_EMULATOR_SWITCH=ucontext``; else "ucontext"."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "ucontext"
    return os.environ.get("GPUNET_EMULATOR_SWITCH") or "assembly"


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"cannot compile {what} with {version()}:\n{done.stderr.strip()[:4000]}")


# ---- the cache on disk ------------------------------------------------------------------------------------------------


@functools.cache
def _emulator_sources() -> str:
    sources = [_HERE / name for name in (*_HEADERS, "fiber.h", "runtime.h", "clocks.h", *_RUNTIME)]
    return "\0".join(path.read_text() for path in (*sources, *sorted(_TOOLKIT.iterdir()), *_GENERATORS))


def _content_hash(*parts: str) -> str:
    key = "\0".join((*parts, *_COMMON, *_machine_flags(), version(), _emulator_sources()))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


@contextlib.contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for building ``path``, so that only one process builds it."""
    import fcntl

    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Return ``path``; if it does not exist, call ``build`` with a temporary path and move the result there."""
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _file_lock(path), tempfile.TemporaryDirectory(prefix="building-", dir=path.parent) as folder:
            if not path.exists():
                temporary = Path(folder) / path.name
                build(temporary)
                os.replace(temporary, path)
    except OSError as error:
        raise CompileError(
            f"cannot write compiled kernels to {path.parent} ({error}); set GPUNET_CACHE_DIR to a writable folder"
        ) from None
    path.with_suffix(".lock").unlink(missing_ok=True)
    return path


def _precompiled_headers(cache: Path, mode: str) -> Path:
    """Return a folder with the kernels' headers, precompiled for a mode."""

    def build(folder: Path) -> None:
        folder.mkdir()
        for name in _HEADERS:
            shutil.copy(_HERE / name, folder / name)
        header = folder / _HEADERS[0]
        command = [*compiler_command(mode), "-x", "c++-header", str(header), "-o", f"{header}.gch"]
        _run(command, f"the emulator's {_HEADERS[0]}")

    return _build_once(cache / f"headers-{mode}-{_content_hash(mode, *MODES[mode])}", build)


def compiler_command(mode: str) -> list[str]:
    return [_executable(), *_COMMON, *_machine_flags(), "-fvisibility=hidden", *MODES[mode]]


def runtime(cache: Path) -> Path:
    """Return the emulator's runtime library, built for this process's :func:`switch_kind`."""
    kind = switch_kind()
    if kind not in ("assembly", "ucontext"):
        raise CompileError(f"GPUNET_EMULATOR_SWITCH={kind!r}: expected 'assembly' or 'ucontext'")

    def build(library: Path) -> None:
        defines = ["-DEMULATOR_UCONTEXT=1"] if kind == "ucontext" else []
        sources = [str(_HERE / name) for name in _RUNTIME]
        command = [_executable(), *_COMMON, *_machine_flags(), "-O3", *defines, "-shared", *sources, "-o", str(library)]
        _run(command, "the emulator's runtime")

    return _build_once(cache / f"runtime-{kind}-{_content_hash('runtime', kind)}.so", build)


_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\([^()]*\)\s*)?([\w:<>, ]+?)\s+(\w+)\s*\[\s*\]\s*;")


def _attribute(text: str, expression: str, name: str) -> str:
    """Return the arguments of an entry point's attribute such as ``__cluster_dims__``; "" if it does not have it."""
    entry = signature.entries(text).get(signature.bare_name(expression))
    return entry.attributes.get(name, "") if entry is not None else ""


def _check_launch_bounds(text: str) -> str:
    """Insert a check of the launch bounds at the start of the body of each entry point that declares them."""
    for entry in sorted(signature.entries(text).values(), key=lambda e: e.body, reverse=True):
        bounds = entry.attributes.get("__launch_bounds__")
        if bounds:
            text = f"{text[: entry.body]} emulator::launch_bounds({bounds}); {text[entry.body :]}"
    return text


def kernel(text: str, file: str, expression: str, mode: str, cache: Path, options: Sequence[str] = ()) -> Path:
    """Build the library of one specialisation: see :func:`kernels`."""
    return kernels(text, file, (expression,), mode, cache, options)


def kernels(
    text: str,
    file: str,
    expressions: Sequence[str],
    mode: str,
    cache: Path,
    options: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Path:
    """Build the library of several specialisations; its symbol table is in the same folder, with the suffix .symbols.

    Args:
        text: the source, with its headers spliced in.
        file: the name of the source in messages.
        expressions: the specialisations, such as "scale<float>"; the library exports them as ``emulator_entry_0`` and so on.
        mode: "fast" or "check".
        cache: the folder to build in.
        options: further compiler options, such as the folders of CUDA's headers.
        variables: names of ``__device__`` variables, whose addresses are exported as ``emulator_variable_0`` and so on.

    Raises:
        CompileError: the source does not compile (with the compiler's message), or g++ is not installed.
    """

    def build(library: Path) -> None:
        # an extern array without extent becomes a pointer to the launch's dynamic shared memory
        body = _DYNAMIC_SHARED.sub(r"\1* const \2 = static_cast<\1*>(emulator::dynamic_shared_memory());", text)
        body = _check_launch_bounds(body)
        source = library.with_suffix(".cpp")
        exports = "".join(
            f"EMULATOR_EXPORT({number}, {expression})\n"
            f"EMULATOR_CLUSTER({number}, {_attribute(text, expression, '__cluster_dims__')})\n"
            for number, expression in enumerate(expressions)
        )
        exports += "".join(f"EMULATOR_VARIABLE({number}, {name})\n" for number, name in enumerate(variables))
        source.write_text(f'#line 1 "{file}"\n{body}\n#line 1 "export"\n{exports}')
        header = _precompiled_headers(cache, mode) / _HEADERS[0]
        # no default libraries: -fsanitize=thread would link the sanitizer runtime that callbacks.cpp replaces
        command = [*compiler_command(mode), "-include", str(header), "-shared", "-nodefaultlibs", str(source), "-lm", "-lc"]
        toolkit = (f"-I{_TOOLKIT}", *options) if options else ()
        _run([*command, *toolkit, "-o", str(library)], f"{file} as {', '.join(expressions)}")
        mangled, plain = (
            subprocess.run(["objdump", "-t", *option, str(library)], capture_output=True, text=True, check=True).stdout
            for option in ((), ("--demangle",))
        )
        symbols = [  # mangled names of function-local variables begin with _ZZ
            "local " * bool(re.search(r"\s_ZZ", name)) + line for name, line in zip(mangled.splitlines(), plain.splitlines())
        ]
        temporary = library.with_suffix(".symbols")
        temporary.write_text("\n".join(symbols))
        os.replace(temporary, path.with_suffix(".symbols"))

    path = cache / f"{_content_hash(text, file, repr((*expressions, variables)), mode, *MODES[mode], *options)}-{mode}.so"
    return _build_once(path, build)
