"""Build the stand-in for NVIDIA's driver and what CuPy needs beside it.

    python -m tests.driver.build

Needs x86-64 Linux, g++ and pip.  A folder of the user's cache takes the result, by a hash of the sources, the versions of
CuPy, Python and g++; what is there is not built again.  CuPy's module ``cupy_backends.cuda.api.runtime`` is built from CuPy's
own source distribution, which pip fetches; its licence lies beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.driver import emulator_adapter

#: The version that the tests are for.  Another one needs a look at the functions that its runtime module links to.
CUPY_VERSION = "14.2.0"
#: Distributions that a build needs, and a module or file of each.
PACKAGES = {
    f"cupy-cuda13x=={CUPY_VERSION}": "cupy",
    "cython": "Cython",
    "setuptools": "setuptools",
    "nvidia-cuda-nvrtc": "lib/libnvrtc.so.13",
    "nvidia-cuda-runtime": "include/cuda_runtime_api.h",
    "nvidia-cuda-crt": "include/crt/host_defines.h",
    "nvidia-cuda-cccl": "include/cccl/nv/target",
}

_NATIVE = Path(__file__).resolve().parent / "native"
_COMPILER = ("g++", "-std=c++20", "-O1", "-g", "-fPIC", "-fvisibility=hidden")
#: What CuPy's own build gives Cython.
_CYTHON_CONSTANTS = {
    "CUPY_USE_CUDA_PYTHON": False, "CUPY_CUFFT_STATIC": False, "CUPY_CYTHON_VERSION": "3", "CUPY_CUDA_VERSION": 13000,
    "CUPY_HIP_VERSION": 0,
}  # fmt: skip


class BuildError(RuntimeError):
    """The stand-in cannot be built; the message says why."""


# ---- what is installed ------------------------------------------------------------------------------------------------


@functools.cache
def cuda_wheels() -> Path:
    """The folder of NVIDIA's wheels for CUDA 13."""
    return Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13"


def missing() -> list[str]:
    """Why the stand-in cannot be built here, one reason an entry; nothing if it can."""
    reasons = []
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        reasons.append(f"it needs x86-64 Linux, this is {platform.machine()} {platform.system()}")
    if shutil.which("g++") is None:
        reasons.append("g++ is not installed")
    absent = [package for package, part in PACKAGES.items() if not _is_installed(part)]
    if absent:
        reasons.append(f"not installed: pip install {' '.join(absent)}")
    else:
        version = importlib.metadata.version("cupy-cuda13x")
        if version != CUPY_VERSION:
            reasons.append(f"it is made for CuPy {CUPY_VERSION}, and {version} is installed")
    return reasons


def _is_installed(part: str) -> bool:
    if "/" in part:
        return (cuda_wheels() / part).exists()
    return importlib.util.find_spec(part) is not None


# ---- the folder -------------------------------------------------------------------------------------------------------


@functools.cache
def _key() -> str:
    parts = [sysconfig.get_config_var("EXT_SUFFIX"), CUPY_VERSION, *_COMPILER]
    parts.append(subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout)
    parts += [importlib.metadata.version(name) for name in ("nvidia-cuda-runtime", "cython")]
    for path in sorted([Path(__file__), *(p for p in _NATIVE.rglob("*") if p.is_file())]):
        parts += [path.name, path.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def folder() -> Path:
    """Where the build of these sources lies, or will lie."""
    return _cache() / f"build-{_key()}"


def _cache() -> Path:
    return emulator_adapter.user_cache() / "driver"


def build() -> Path:
    """Build what is not built yet, and return the folder.

    Raises:
        BuildError: something is missing, or does not compile.
    """
    target = folder()
    if target.exists():
        return target
    if reasons := missing():
        raise BuildError("; ".join(reasons))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target), tempfile.TemporaryDirectory(prefix="building-driver-", dir=target.parent) as name:
        if not target.exists():
            _build_into(Path(name))
            os.replace(name, target)
            os.mkdir(name)  # for TemporaryDirectory to remove
    return target


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time."""
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def _build_into(out: Path) -> None:
    include = f"-I{cuda_wheels() / 'include'}"
    _build_library(out / "libcuda.so.1", "driver", include)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(_build_library, out / "libnvrtc.so.13", "nvrtc", include),
            pool.submit(_build_library, out / "libcublas.so.13", "cublas", include, out / "libcuda.so.1"),
            pool.submit(_build_library, out / "libcublasLt.so.13", "cublasLt"),
            pool.submit(_build_library, out / "libcurand.so.10", "curand", include, out / "libcuda.so.1"),
            pool.submit(_build_library, out / "libnccl.so.2", "nccl", include, out / "libcuda.so.1"),
            pool.submit(_build_runtime_module, out, include),
        ]
        for job in jobs:
            job.result()


def _build_library(path: Path, sources: str, *options: object) -> None:
    """A shared library of the C++ files in one folder; a file ``exports.map`` there gives its symbols versions."""
    script = _NATIVE / sources / "exports.map"
    versions = [f"-Wl,--version-script={script}"] if script.exists() else []
    files = sorted((_NATIVE / sources).glob("*.cpp"))
    _run(
        *_COMPILER,
        "-Wall",
        "-Wextra",
        "-shared",
        *files,
        *options,
        *versions,
        f"-Wl,-soname,{path.name}",
        "-ldl",
        "-lrt",
        "-o",
        path,
    )


# ---- CuPy's runtime module --------------------------------------------------------------------------------------------


def cupy_source() -> Path:
    """CuPy's source distribution, unpacked; fetched by pip at the first call.

    pip then also tries to build metadata, which fails without CUDA's toolkit, but ``--no-clean`` leaves the sources.

    Raises:
        BuildError: pip does not find it.
    """
    target = _cache() / f"cupy-{CUPY_VERSION}-source"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target), tempfile.TemporaryDirectory(prefix="fetching-cupy-", dir=target.parent) as name:
        if target.exists():
            return target
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-clean", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
             f"cupy=={CUPY_VERSION}"],
            cwd=name, env={**os.environ, "TMPDIR": name}, capture_output=True, text=True,
        )  # fmt: skip
        found = [*Path(name).rglob("cupy_backends/cuda/api/runtime.pyx")]
        if not found:
            raise BuildError(f"pip does not fetch the sources of CuPy {CUPY_VERSION}:\n{done.stderr}")
        os.replace(found[0].parents[3], target)
    return target


def _build_runtime_module(out: Path, include: str) -> None:
    """``cupy_backends.cuda.api.runtime`` with our runtime linked in, in place of NVIDIA's static one."""
    cupy = cupy_source()
    api = cupy / "cupy_backends" / "cuda" / "api"
    shutil.copy(cupy / "LICENSE", out / "LICENSE-cupy")
    constants = [word for name, value in _CYTHON_CONSTANTS.items() for word in ("-E", f"{name}={value}")]
    generated = out / "cupy_runtime.cpp"
    _run(sys.executable, "-m", "cython", "-3", "--cplus", *constants, "-X", "embedsignature=True", "-X", "binding=False",
         "-w", cupy, api / "runtime.pyx", "-o", generated)  # fmt: skip
    python = f"-I{sysconfig.get_paths()['include']}"
    headers = f"-I{_NATIVE / 'runtime' / 'include'}"
    _run(*_COMPILER, "-w", "-c", include, headers, python, "-iquote", api, generated, "-o", out / "cupy_runtime.o")
    files = sorted((_NATIVE / "runtime").glob("*.cpp"))
    module = out / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    _run(
        *_COMPILER,
        "-Wall",
        "-Wextra",
        "-shared",
        include,
        out / "cupy_runtime.o",
        *files,
        out / "libcuda.so.1",
        "-o",
        module,
    )
    for file in (generated, out / "cupy_runtime.o"):
        file.unlink()


if __name__ == "__main__":
    print(build())
