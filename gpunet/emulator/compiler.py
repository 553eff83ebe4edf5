"""g++ as a compiler of CUDA sources: kernels, the header that they see, and the runtime, built once and kept on disk.

Every file is named by a hash of all that went into it (sources, headers, flags, the compiler's version), written beside
its place and moved there whole.  So processes may share a folder, and a file that is there is a file that is right.
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
_HEADERS = ("cuda_on_cpu.h", "hopper.h", "intrinsics.h", "vector_types.h", "half.h")
_TOOLKIT = _HERE / "toolkit"  # in front of CUDA's own headers
_RUNTIME = (
    "scheduler.cpp", "synchronise.cpp", "clocks.cpp", "checker.cpp", "lint.cpp", "asynchronous.cpp", "tensor_core.cpp",
    "mbarrier.cpp", "cluster.cpp", "bulk.cpp", "wgmma.cpp", "callbacks.cpp",
)  # fmt: skip
_MAKERS = (Path(__file__), Path(signature.__file__))  # what they make of a source is part of it

_COMMON = (
    "-std=c++17", "-fPIC", "-w",
    "-g1", "-gdwarf-4",  # lines only; addr2line of binutils reads version 5 wrongly for inlined functions
    "-ffp-contract=off",  # exactly rounded intrinsics are plain operators
    "-fno-strict-aliasing", "-fno-math-errno", "-fno-exceptions", "-fno-threadsafe-statics",
    "-fno-gnu-unique",  # or the shared arrays of one template, in two libraries, would be one
)  # fmt: skip

#: Flags of the two ways to build a kernel.  Both trap misaligned vector accesses, which would end the process.
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
    """Name, version and machine of a compiler."""
    path = shutil.which(executable)
    if path is None:
        raise CompileError(
            f"the device 'emulated' compiles CUDA sources with g++, but {executable!r} is not installed: "
            "apt install g++ (or dnf install gcc-c++, or conda install gxx), or set GPUNET_CXX to the path of one"
        )
    asked = subprocess.run([path, "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True)
    if asked.returncode or not asked.stdout.strip():
        raise CompileError(f"{path} does not answer as g++ does: {asked.stderr.strip()}; set GPUNET_CXX to the path of g++")
    return f"{path} {' '.join(asked.stdout.split())}"


def version() -> str:
    """Path, version and machine of the compiler.

    Raises:
        CompileError: there is none; the message says what to install.
    """
    return _describe(_executable())


@functools.cache
def _machine_flags() -> tuple[str, ...]:
    """AVX2, where this machine has it."""
    with contextlib.suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if flags and {"avx2", "fma", "bmi2"} <= set(flags[1].split()):
            return ("-march=x86-64-v3",)
    return ()


def switch_kind() -> str:
    """How fibers are switched: "assembly" on x86-64, unless ``GPUNET_EMULATOR_SWITCH=ucontext``; "ucontext" elsewhere."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "ucontext"
    return os.environ.get("GPUNET_EMULATOR_SWITCH") or "assembly"


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"{what} does not compile with {version()}:\n{done.stderr.strip()[:4000]}")


# ---- the cache on disk ------------------------------------------------------------------------------------------------


@functools.cache
def _own_sources() -> str:
    own = [_HERE / name for name in (*_HEADERS, "fiber.h", "runtime.h", "clocks.h", *_RUNTIME)]
    return "\0".join(path.read_text() for path in (*own, *sorted(_TOOLKIT.iterdir()), *_MAKERS))


def _name(*parts: str) -> str:
    key = "\0".join((*parts, *_COMMON, *_machine_flags(), version(), _own_sources()))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: the others find what the first has built."""
    import fcntl

    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _built(path: Path, build: Callable[[Path], None]) -> Path:
    """``path``, which ``build`` makes under another name if it is not there."""
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path), tempfile.TemporaryDirectory(prefix="building-", dir=path.parent) as folder:
            if not path.exists():
                beside = Path(folder) / path.name
                build(beside)
                os.replace(beside, path)
    except OSError as error:
        raise CompileError(
            f"compiled kernels cannot be kept in {path.parent} ({error}); set GPUNET_CACHE_DIR to a folder that can be written"
        ) from None
    path.with_suffix(".lock").unlink(missing_ok=True)
    return path


def _headers(cache: Path, mode: str) -> Path:
    """A folder with the kernels' header, precompiled for a mode."""

    def build(folder: Path) -> None:
        folder.mkdir()
        for name in _HEADERS:
            shutil.copy(_HERE / name, folder / name)
        header = folder / _HEADERS[0]
        command = [*compiler_command(mode), "-x", "c++-header", str(header), "-o", f"{header}.gch"]
        _run(command, f"the emulator's {_HEADERS[0]}")

    return _built(cache / f"headers-{mode}-{_name(mode, *MODES[mode])}", build)


def compiler_command(mode: str) -> list[str]:
    return [_executable(), *_COMMON, *_machine_flags(), "-fvisibility=hidden", *MODES[mode]]


def runtime(cache: Path) -> Path:
    """The runtime library for this process's kind of switch."""
    kind = switch_kind()
    if kind not in ("assembly", "ucontext"):
        raise CompileError(f"GPUNET_EMULATOR_SWITCH={kind!r}: expected 'assembly' or 'ucontext'")

    def build(library: Path) -> None:
        defines = ["-DEMULATOR_UCONTEXT=1"] if kind == "ucontext" else []
        sources = [str(_HERE / name) for name in _RUNTIME]
        command = [_executable(), *_COMMON, *_machine_flags(), "-O3", *defines, "-shared", *sources, "-o", str(library)]
        _run(command, "the emulator's runtime")

    return _built(cache / f"runtime-{kind}-{_name('runtime', kind)}.so", build)


_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\([^()]*\)\s*)?([\w:<>, ]+?)\s+(\w+)\s*\[\s*\]\s*;")


def _attribute(text: str, expression: str, name: str) -> str:
    """What an entry point's declaration says in an attribute such as ``__cluster_dims__``; "" for nothing."""
    entry = signature.entries(text).get(signature.bare_name(expression))
    return entry.attributes.get(name, "") if entry is not None else ""


def _bounded(text: str) -> str:
    """The source with a check of its launch bounds at the head of each entry point, where they mean what they say."""
    for entry in sorted(signature.entries(text).values(), key=lambda e: e.body, reverse=True):
        bounds = entry.attributes.get("__launch_bounds__")
        if bounds:
            text = f"{text[: entry.body]} emulator::launch_bounds({bounds}); {text[entry.body :]}"
    return text


def kernel(text: str, file: str, expression: str, mode: str, cache: Path, options: Sequence[str] = ()) -> Path:
    """The library of one specialisation: see :func:`kernels`."""
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
    """The library of several specialisations of a source; beside it, with the suffix .symbols, its symbol table.

    Args:
        expressions: the kernels; the library exports ``emulator_entry_0`` and so on, in this order.
        options: where CUDA's headers are, if the source includes any.
        variables: names of ``__device__`` variables, whose addresses are exported as ``emulator_variable_0`` and so on.

    Raises:
        CompileError: it does not compile, with the compiler's message; or there is no g++.
    """

    def build(library: Path) -> None:
        # an array without extent has no storage to link to: it becomes a pointer to the launch's dynamic shared memory
        body = _DYNAMIC_SHARED.sub(r"\1* const \2 = static_cast<\1*>(emulator::dynamic_shared_memory());", text)
        body = _bounded(body)
        source = library.with_suffix(".cpp")
        exports = "".join(
            f"EMULATOR_EXPORT({number}, {expression})\n"
            f"EMULATOR_CLUSTER({number}, {_attribute(text, expression, '__cluster_dims__')})\n"
            for number, expression in enumerate(expressions)
        )
        exports += "".join(f"EMULATOR_VARIABLE({number}, {name})\n" for number, name in enumerate(variables))
        source.write_text(f'#line 1 "{file}"\n{body}\n#line 1 "export"\n{exports}')
        header = _headers(cache, mode) / _HEADERS[0]
        # without the default libraries: -fsanitize=thread would link the ones that the runtime's callbacks replace
        command = [*compiler_command(mode), "-include", str(header), "-shared", "-nodefaultlibs", str(source), "-lm", "-lc"]
        toolkit = (f"-I{_TOOLKIT}", *options) if options else ()
        _run([*command, *toolkit, "-o", str(library)], f"{file} as {', '.join(expressions)}")
        mangled, plain = (
            subprocess.run(["objdump", "-t", *option, str(library)], capture_output=True, text=True, check=True).stdout
            for option in ((), ("--demangle",))
        )
        symbols = [  # a function's own variables begin with _ZZ
            "local " * bool(re.search(r"\s_ZZ", name)) + line for name, line in zip(mangled.splitlines(), plain.splitlines())
        ]
        table = path.with_suffix(".symbols")
        beside = library.with_suffix(".symbols")
        beside.write_text("\n".join(symbols))
        os.replace(beside, table)

    path = cache / f"{_name(text, file, repr((*expressions, variables)), mode, *MODES[mode], *options)}-{mode}.so"
    return _built(path, build)
