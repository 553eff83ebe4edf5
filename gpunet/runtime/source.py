"""CUDA sources: find, splice, specialise, compile, cache and load them.

A ``.cu`` file in ``cuda_kernels/`` and the headers beside it are one text when they are compiled, so the compiler needs
no include path and a changed header is a changed source.  A specialisation is named by its C++ expression, such as
``linear_forward<float, 64, Relu>``; it is compiled at its first launch on a kind of card, and kept

* in memory, as a loaded function;
* on disk, as machine code in ``cache_directory()``, for the next process.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpunet import device as devices
from gpunet.device import Device
from gpunet.errors import CompileError, LaunchError
from gpunet.runtime import toolkit

_log = logging.getLogger(__name__)

#: Options of every compilation.  Denormals stay, divisions and roots round exactly: no fast math.
OPTIONS = ("--std=c++17",)

# ---- sources ----------------------------------------------------------------------------------------------------------

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def kernel_directory() -> Path:
    """The folder of the CUDA sources: inside the package in a wheel, at the top of the repository in a checkout.

    Raises:
        CompileError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cuda_kernels", package.parent / "cuda_kernels"):
        if folder.is_dir():
            return folder
    raise CompileError(f"cuda_kernels/ is neither in {package} nor beside it; reinstall gpunet")


def kernel_files() -> list[str]:
    """Names of the ``.cu`` files, sorted."""
    return sorted(path.name for path in kernel_directory().glob("*.cu"))


class Source(NamedTuple):
    """A CUDA source that is no file of ``cuda_kernels/``: its name in messages, and its text with the headers in it."""

    name: str
    text: str


def splice(code: str | os.PathLike[str], name: str = "source.cu", options: Sequence[str] = ()) -> Source:
    """A CUDA source from anywhere, given as text or as the path of a file.

    ``#include "..."`` finds headers beside the file that includes them, in the folders of ``options``, and in
    ``cuda_kernels/``; ``#include <...>`` is left to the compiler.

    Args:
        name: what messages call a text; a file has its path.
        options: ``-Ifolder`` and ``-Dname=value``, as compilers take them.  Others are ignored.

    Raises:
        CompileError: the file, or a header that it includes, is not there.
    """
    found = [(option[:2], option[2:]) for option in options]
    splicer = _Splicer([Path(value) for flag, value in found if flag == "-I"])
    splicer.lines += [f"#define {' '.join((*value.split('=', 1), '1')[:2])}" for flag, value in found if flag == "-D"]
    if isinstance(code, str):
        splicer.add_text(code, name)
    else:
        name = Path(code).as_posix()
        splicer.add_file(Path(code), name, f"asked for {name!r}")
    return Source(name, splicer.text())


def spliced(file: str | Path | Source) -> str:
    """The text of a source with its headers in place of ``#include "..."``, each header once.

    ``file`` is the name of one of ours, or the path of a source elsewhere: its headers are looked for beside it, then
    among ours.  ``#line`` directives keep the compiler's messages about the right file and line.

    Raises:
        CompileError: the file, or a header that it includes, is not there.
    """
    if isinstance(file, Source):
        return file.text
    splicer = _Splicer([])
    path = kernel_directory() / file if isinstance(file, str) else file
    splicer.add_file(path, name_of(file), f"asked for {str(file)!r}")
    return splicer.text()


def spliced_text(text: str, file: str, folders: Sequence[Path]) -> str:
    """The same for a source that is at hand: ``file`` is its name in messages, ``folders`` are where its headers may be.

    Raises:
        CompileError: a header that it includes is not there.
    """
    splicer = _Splicer(list(folders))
    splicer.add_text(text, file)
    return splicer.text()


class _Splicer:
    """The lines of a source so far, and the files that are in them."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.lines: list[str] = []
        self.seen: set[Path] = set()

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add_file(self, path: Path, name: str, asked: str, searched: Sequence[Path] = ()) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            folders = " or ".join(map(str, searched or [path.parent]))
            raise CompileError(f"{asked}, but there is no such file in {folders}") from None
        if path.resolve() not in self.seen:
            self.seen.add(path.resolve())
            self.add_text(text, name, path.parent)

    def add_text(self, text: str, name: str, folder: Path | None = None) -> None:
        self.lines.append(f'#line 1 "{name}"')
        for number, line in enumerate(text.splitlines(), 1):
            include = _INCLUDE.match(line)
            if include is None:
                self.lines.append(line)
                continue
            own = kernel_directory()
            searched = list(dict.fromkeys([*([folder] if folder else []), *self.folders, own]))
            path = next((found for found in (f / include[1] for f in searched) if found.is_file()), own / include[1])
            header = include[1] if path.parent == own else path.as_posix()
            self.add_file(path, header, f"{name}:{number} includes {include[1]!r}", searched)
            self.lines.append(f'#line {number + 1} "{name}"')


def name_of(file: str | Path | Source) -> str:
    """What messages call a source."""
    return file if isinstance(file, str) else file.name


# ---- compilation ------------------------------------------------------------------------------------------------------


def nvrtc_version() -> tuple[int, int]:
    """Version of the NVRTC library that compiles.

    Raises:
        CompileError: NVRTC is not installed.
    """
    from gpunet.runtime import nvrtc  # not at the top: it brings ctypes in, which a CPU run does without

    return nvrtc.load().version


def architecture(capability: tuple[int, int]) -> str:
    """The architecture to compile for, for a card of this compute capability: (9, 0) is "sm_90a".

    A card newer than the compiler takes the newest code of its own major version that the compiler knows.

    Raises:
        CompileError: the compiler knows none.
    """
    from gpunet.runtime import nvrtc

    major, minor = capability
    known = [c for c in nvrtc.load().capabilities if c // 10 == major and c <= 10 * major + minor]
    if not known:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"NVRTC {version} does not compile for compute capability {major}.{minor}; install one that does: "
            "pip install 'gpunet[cuda13]' for capability 7.5 and up, 'gpunet[cuda12]' for older cards"
        )
    return f"sm_{known[-1]}" + ("a" if known[-1] in (90, 100) else "")


def compile_all(file: str | Path | Source, expressions: Sequence[str], architecture: str) -> tuple[bytes, dict[str, str], str]:
    """Compile specialisations of a source together: the machine code, the name of each in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expressions and the architecture, with NVRTC's log.
    """
    from gpunet.runtime import nvrtc

    text, name = spliced(file), name_of(file)
    try:
        options = (*OPTIONS, *toolkit.options(text, name), f"--gpu-architecture={architecture}")
        return nvrtc.load().compile(text, name, expressions, options)
    except nvrtc.CompilationError as failure:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"{name} does not compile as {', '.join(expressions)} for {architecture} (NVRTC {version}):\n{failure}"
        ) from None


def compile(file: str | Path | Source, expression: str, architecture: str) -> tuple[bytes, str, str]:
    """Compile one specialisation: the machine code, its name in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expression and the architecture, with NVRTC's log.
    """
    cubin, lowered, log = compile_all(file, (expression,), architecture)
    return cubin, lowered[expression], log


# ---- the cache on disk ------------------------------------------------------------------------------------------------

_chosen_cache: Path | None = None
_cache_complained = False


def set_cache_directory(path: str | os.PathLike[str] | None) -> None:
    """Keep machine code in ``path`` from now on; ``None`` goes back to ``GPUNET_CACHE_DIR`` or the default."""
    global _chosen_cache
    _chosen_cache = None if path is None else Path(path)


def cache_directory() -> Path:
    """Where machine code is kept: ``set_cache_directory``, else ``GPUNET_CACHE_DIR``, else ``~/.cache/gpunet``."""
    if _chosen_cache is not None:
        return _chosen_cache
    asked = os.environ.get("GPUNET_CACHE_DIR")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~"), ".cache")) / "gpunet"


def compiled(file: str | Path | Source, expression: str, architecture: str) -> tuple[bytes, str]:
    """Machine code and name of a specialisation: from the disk if it is there and whole, else compiled and kept.

    A cache that cannot be written costs a warning, once, and the next process a compilation.

    Raises:
        CompileError: it does not compile, or NVRTC is not installed.
    """
    import hashlib

    text = spliced(file)
    parts = (text, expression, architecture, *OPTIONS, *toolkit.options(text, name_of(file)), repr(nvrtc_version()))
    path = cache_directory() / (hashlib.sha256("\0".join(parts).encode()).hexdigest() + ".cubin")
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        pass
    else:
        if hashlib.sha256(content).hexdigest().encode() == digest:
            name, _, cubin = content.partition(b"\n")
            return cubin, name.decode()
        _log.warning("%s is damaged; compiling %s again", path, expression)
    cubin, lowered, log = compile(file, expression, architecture)
    if log:
        _log.debug("%s: %s", expression, log)
    content = lowered.encode() + b"\n" + cubin
    _keep(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return cubin, lowered


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that other processes see whole or not at all, and the folders that it lies in.

    Raises:
        FileExistsError: not ``replace``, and it is there.
        OSError: it cannot be written; nothing is left of it.
    """
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=path.stem[:16], suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        (os.replace if replace else os.link)(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def _keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, if it can be written."""
    global _cache_complained
    try:
        write_whole(path, content)
    except OSError as error:
        if not _cache_complained:
            _cache_complained = True
            _log.warning(
                "compiled kernels cannot be kept in %s (%s), so every process compiles them again; "
                "set GPUNET_CACHE_DIR to a folder that can be written",
                path.parent,
                error,
            )


# ---- loading ----------------------------------------------------------------------------------------------------------

#: ``function(grid, block, arguments, shared)`` launches on the current stream of the function's device.
Function = Callable[..., None]

_functions: dict[tuple[str | Path | Source, str, str, int], Function] = {}
_lock = threading.Lock()
_STATIC_SHARED_LIMIT = 48 << 10  # bytes of shared memory that need no asking


def function(file: str | Path | Source, expression: str, device: Device) -> Function:
    """The loaded function of a specialisation on a card, or on the device "emulated"; compiled at the first call.

    Raises:
        CompileError: it does not compile, or NVRTC (for "emulated" g++) is not installed.
        DeviceError: CUDA is not ready.
    """
    key = (file, expression, device.type, device.index)
    found = _functions.get(key)
    if found is None:
        with _lock:
            found = _functions.get(key)
            if found is None:
                found = (
                    _emulated(file, expression) if device.type == "emulated" else _load(file, expression, device.index)
                )
                _functions[key] = found
    return found


def _emulated(file: str | Path | Source, expression: str) -> Function:
    from gpunet import emulator  # brings ctypes and subprocess in, which a CPU run does without

    text, name = spliced(file), name_of(file)
    return emulator.Function(text, name, expression, cache_directory() / "emulator", toolkit.options(text, name))


def _load(file: str | Path | Source, expression: str, index: int) -> Function:
    cuda = devices.cupy().cuda
    card = cuda.Device(index)
    capability = card.compute_capability  # "90", "120"
    cubin, name = compiled(file, expression, architecture((int(capability[:-1]), int(capability[-1]))))
    with card:
        module = cuda.Module()
        module.load(cubin)
        loaded = module.get_function(name)
    current = cuda.runtime.getDevice
    most_shared = _STATIC_SHARED_LIMIT

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
        nonlocal most_shared
        if current() != index:
            with card:
                launch(grid, block, arguments, shared)
            return
        if 0 in grid or 0 in block:  # CuPy would launch one block of one thread instead
            raise LaunchError(f"launch of {expression}: grid {grid}, block {block}; expected extents from 1 on")
        if shared > most_shared:
            cuda.driver.funcSetAttribute(
                loaded.ptr, cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared
            )
            most_shared = shared
        loaded(grid, block, arguments, shared)

    return launch
