"""Compiles the kernels of a CUDA module for gpunet's emulator.  The only file of tests/driver that imports from gpunet.

``libcuda.so.1`` calls :meth:`Emulator._compile` once for each module, with the record that ``libnvrtc.so.13`` left in its image
(native/record.h), and launches the result itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from gpunet.backend.disk_cache import cache_directory
from gpunet.emulator import compiler
from gpunet.emulator.launch import _Array, _Launch
from gpunet.emulator.library import Parameter, SymbolTable, runtime

__all__ = ["Emulator", "separate_cache", "user_cache"]
_SEPARATE = "with-driver"


def user_cache() -> Path:
    """gpunet's folder in the user's cache."""
    folder = cache_directory()
    return folder.parent if folder.name == _SEPARATE else folder


def separate_cache() -> Path:
    """Let this process, and those that it starts, keep compiled kernels apart from those of other runs: gpunet's cubins have
    no record where NVIDIA's NVRTC compiled them alone.
    """
    folder = user_cache() / _SEPARATE
    os.environ["GPUNET_CACHE_DIR"] = str(folder)
    return folder


# ---- structures of native/driver/emulator_interface.h -------------------------------------------------------------------


class _KernelCode(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("entry", ctypes.c_void_p), ("cluster", ctypes.c_uint * 3), ("parameter_count", ctypes.c_int),
        ("parameters", ctypes.POINTER(Parameter)),
    ]  # fmt: skip


class _VariableCode(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("address", ctypes.c_void_p), ("bytes", ctypes.c_uint64)]


class _ModuleCode(ctypes.Structure):
    _fields_ = [
        ("library", ctypes.c_uint64),
        ("kernel_count", ctypes.c_int), ("variable_count", ctypes.c_int), ("array_count", ctypes.c_int),
        ("kernels", ctypes.POINTER(_KernelCode)), ("variables", ctypes.POINTER(_VariableCode)),
        ("arrays", ctypes.POINTER(_Array)), ("error", ctypes.c_char_p),
    ]  # fmt: skip


_COMPILE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p)
_EXPLAIN = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p)


class _EmulatorFunctions(ctypes.Structure):
    _fields_ = [
        ("launch", ctypes.c_void_p), ("dynamic_shared", ctypes.c_void_p), ("fault", ctypes.c_void_p), ("compile", _COMPILE),
        ("explain", _EXPLAIN),
    ]  # fmt: skip


# ---- a module's record --------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """What a module was compiled from, see native/record.h."""

    name: str
    source: str
    options: tuple[str, ...]
    lowered: dict[str, str]  # the name expression of each lowered name
    headers: dict[str, str]

    @staticmethod
    def parse(data: bytes) -> Record:
        fields: dict[str, list[str]] = {"name": [], "source": [], "option": [], "lowered": [], "header": []}
        at = 0
        while at < len(data):
            end = data.index(b"\n", at)
            key, size = data[at:end].decode().split()
            at = end + 1
            fields[key].append(data[at : at + int(size)].decode())
            at += int(size) + 1
        pairs = [text.split("\n", 1) for text in fields["lowered"]]
        headers = dict(text.split("\n", 1) for text in fields["header"])
        return Record(
            fields["name"][0], fields["source"][0], tuple(fields["option"]), {low: name for name, low in pairs}, headers
        )


def _demangled(name: str) -> str:
    """The C++ name of a lowered one, without return type and parameters: "ns::scale<float>"."""
    if not name.startswith("_Z"):
        return name
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if not text:
        return name
    found = ctypes.string_at(text).decode()
    depth, begin = 0, 0
    for at, letter in enumerate(found):
        if letter == "(" and depth == 0 and not found.startswith("(anonymous", at):
            return found[begin:at]
        depth += (letter == "<") - (letter == ">")
        if letter == " " and depth == 0:
            begin = at + 1  # a template's return type comes first
    return found[begin:]


def _is_variable_of(name: str, source: str) -> bool:
    """Whether a variable is declared in the source itself, where an expression can name it, and not by a header or NVRTC."""
    expression = _demangled(name)
    nameable = re.fullmatch(r"(\w+::)*(\w+)(<[\w:, ]+>)?", expression)
    return nameable is not None and re.search(rf"\b{nameable[2]}\b", source) is not None


# ---- sources of CuPy and of users, as g++ takes them ----------------------------------------------------------------------

# CuPy's float16.cuh uses CUDA's own half where it sees the version of a compiler that has one, and it declares float16::nan
# without a definition, which g++ needs at times.  Constant memory is written through cuModuleGetGlobal, so it is an ordinary
# variable here.
_PRELUDE = """\
#define __CUDACC_VER_MAJOR__ 13
#undef __constant__
#define __constant__
extern "C" const unsigned short emulator_half_nan __asm__("_ZN7float163nanE");
extern "C" __attribute__((weak)) const unsigned short emulator_half_nan = 0x7e00;
"""
#: Headers of CUDA that work for a host; others are left out, and CCCL then does without them.
_HOST_HEADERS = ("cuda_fp16.h", "cuda_fp16.hpp", "cuda_bf16.h", "cuda_bf16.hpp", "cuComplex.h", "math_constants.h")
_EMPTY_HEADERS = ("vector_types.h", "vector_functions.h")  # the emulator has what they declare


@functools.cache
def _cuda_headers() -> Path:
    """A folder with those of CUDA's headers that kernels on a CPU may include."""
    spec = importlib.util.find_spec("nvidia")
    locations = spec.submodule_search_locations if spec is not None else None
    include = next(
        Path(place, "cu13", "include") for place in locations or () if Path(place, "cu13", "include").exists()
    )
    key = hashlib.sha256("\0".join([str(include), *_HOST_HEADERS, *_EMPTY_HEADERS]).encode()).hexdigest()[:16]
    folder = user_cache() / "driver" / f"headers-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in _HOST_HEADERS:
            (beside / name).symlink_to(include / name)
        for name in _EMPTY_HEADERS:
            (beside / name).touch()
        try:
            os.replace(beside, folder)
        except OSError:  # another process was faster
            shutil.rmtree(beside)
    return folder


def _gcc_options(record: Record) -> tuple[str, ...]:
    """Those of NVRTC's options that g++ needs, with CUDA's headers as they are for a host."""
    joined = re.sub(r"(^|\0)(-I|-D|--include-path|--define-macro)[=\0]", r"\1\2", "\0".join(record.options))
    joined = joined.replace("--include-path", "-I").replace("--define-macro", "-D")
    wanted = tuple(
        option
        for option in joined.split("\0")
        if option.startswith(("-I", "-D")) and not option.rstrip("/").endswith("/cu13/include")
    )
    folders = (f"-I{_cuda_headers()}",) if "<" in record.source or record.headers else ()
    return (*wanted, *folders, *((f"-I{_written(record.headers)}",) if record.headers else ()))


def _written(headers: dict[str, str]) -> Path:
    """A folder with headers that were given to NVRTC as texts."""
    key = hashlib.sha256(repr(sorted(headers.items())).encode()).hexdigest()[:16]
    folder = user_cache() / "driver" / "given-headers" / key
    for name, text in headers.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
    return folder


# ---- compilation ----------------------------------------------------------------------------------------------------------


class _Module:
    """A module compiled for the emulator, loaded, with the structure that the driver reads."""

    def __init__(self, record: Record, kernels: list[str], variables: list[str], mode: str, cache: Path) -> None:
        self.kept: list[Any] = []
        expressions = [record.lowered.get(name) or _demangled(name) for name in kernels]
        variables = [name for name in variables if _is_variable_of(name, record.source)]
        text = f"{_PRELUDE}#line 1\n{record.source}"
        file = os.path.basename(record.name) or "source.cu"
        path = compiler.kernels(
            text, file, expressions, mode, cache, _gcc_options(record), [_demangled(name) for name in variables]
        )
        self.library = self._loaded(path, has_variables=bool(variables))
        entries = [self._address(f"emulator_entry_{i}") for i in range(len(kernels))]
        symbol = "emulator_entry_0" if kernels else "emulator_variable_0"
        self.table = SymbolTable(path, symbol, self._address(symbol))
        self.code = self._describe(kernels, entries, variables)

    def _loaded(self, path: Path, has_variables: bool) -> ctypes.CDLL:
        """Each module has variables of its own, so one with variables is loaded from a copy of its file."""
        if not has_variables:
            return ctypes.CDLL(str(path))
        with tempfile.TemporaryDirectory() as folder:
            return ctypes.CDLL(str(shutil.copy(path, folder)))

    def _address(self, name: str) -> int:
        return ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value or 0

    def _describe(self, kernels: list[str], entries: list[int], variables: list[str]) -> _ModuleCode:
        codes = (_KernelCode * max(len(kernels), 1))()
        for i, name in enumerate(kernels):
            count_of = getattr(self.library, f"emulator_parameters_{i}")
            parameters = (Parameter * (count_of(None) + 1))()
            count_of(parameters)
            cluster = (ctypes.c_uint * 3).in_dll(self.library, f"emulator_cluster_{i}")
            codes[i] = _KernelCode(name.encode(), entries[i], cluster, len(parameters) - 1, parameters)
            self.kept.append(parameters)
        found = (_VariableCode * max(len(variables), 1))()
        sizes = {v.address: v.bytes for v in self.table.variables}
        for i, name in enumerate(variables):
            address = ctypes.c_void_p.in_dll(self.library, f"emulator_variable_{i}").value or 0
            found[i] = _VariableCode(name.encode(), address, sizes[address])
        arrays = (_Array * max(len(self.table.variables), 1))(
            *(
                _Array(v.address, v.bytes, 0, v.kind == "shared", v.kind != "constant", v.name.encode())
                for v in self.table.variables
            )
        )
        return _ModuleCode(
            self.table.base, len(kernels), len(variables), len(self.table.variables), codes, found, arrays, None
        )


class Emulator:
    """The functions that the driver calls, and the modules that it has."""

    def __init__(self, check: bool) -> None:
        self.mode = "check" if check else "fast"
        self.cache = (
            separate_cache() / "emulator"
        )  # as of the device "emulated": a process has one runtime of the emulator
        self._modules: list[Any] = []
        self._tables: dict[int, Any] = {}
        self._text = ctypes.create_string_buffer(b"")
        library = runtime(self.cache)
        address = {
            name: ctypes.cast(getattr(library, f"emulator_{name}"), ctypes.c_void_p)
            for name in ("launch", "dynamic_shared", "fault")
        }
        self.functions = _EmulatorFunctions(
            address["launch"],
            address["dynamic_shared"],
            address["fault"],
            _COMPILE(self._compile),
            _EXPLAIN(self._explain),
        )
        self.launch_bytes = ctypes.sizeof(_Launch)

    def _compile(self, record: int, size: int, kernels: bytes, variables: bytes) -> int:
        try:
            parsed = Record.parse(ctypes.string_at(record, size))
            made = _Module(parsed, kernels.decode().split(), variables.decode().split(), self.mode, self.cache)
            self._tables[made.table.base] = made.table
            code = made.code
        except Exception as error:  # told by the driver, in the message of the call that needs the module
            made, code = None, _ModuleCode()
            code.error = (str(error) or traceback.format_exc())[:3500].encode()
        self._modules.append((made, code))
        return ctypes.addressof(code)

    def _explain(self, library: int, message: bytes) -> int:
        table = self._tables.get(library)
        text = message.decode(errors="replace")
        self._text = ctypes.create_string_buffer((table.explain(text) if table is not None else text).encode())
        return ctypes.addressof(self._text)
