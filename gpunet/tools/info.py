"""Facts about this machine: versions, CPU, BLAS, GPUs, driver, NVRTC, kernel cache, optional packages, commit.

:func:`collect` gathers all of them for ``gpunet info``. The headers of benchmark results call single functions.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gpunet
from gpunet.backend import onednn, threads
from gpunet.errors import GpunetError

#: Optional packages: module -> (distribution, purpose, the extra that installs it).
OPTIONAL = {
    "sklearn": ("scikit-learn", "the built-in data sets", "gpunet[train]"),
    "matplotlib": ("matplotlib", "the curves of a run", "gpunet[train]"),
    "rich": ("rich", "progress bars", "gpunet[train]"),
    "safetensors": ("safetensors", "checkpoints", "gpunet[train]"),
    "threadpoolctl": ("threadpoolctl", "one BLAS thread for small networks", "gpunet[train]"),
    "numba": ("numba", "captured steps compiled by Numba", "gpunet[jit]"),
    "torch": ("torch", "the reference in the tests", "gpunet[torch]"),
}


def collect() -> dict[str, Any]:
    """All facts as plain data that JSON can hold, by section."""
    return {
        "versions": _main_versions(),
        "cpu": cpu(),
        "blas": blas(),
        "cuda": _cuda(),
        "nvrtc": _nvrtc(),
        "kernel cache": _kernel_cache(),
        "optional": _optional_packages(),
    }


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The result of :func:`collect` as text: a line per section, and indented lines of name and value."""
    for title, content in facts.items():
        rows = content.items() if isinstance(content, dict) else [("", content)]
        yield title
        for name, value in rows:
            for index, text in enumerate(_value_lines(value)):
                yield f"  {name if index == 0 else '':<16} {text}".rstrip()


def _value_lines(value: Any) -> list[str]:
    if isinstance(value, list):
        return [line for part in value for line in _value_lines(part)] or ["none"]
    if isinstance(value, dict):
        return [", ".join(f"{k} {v}" for k, v in value.items() if v not in (None, ""))]
    return ["unknown" if value is None else str(value)]


def _format_bytes(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000.0:
            break
        value, unit = value / 1000.0, larger
    return f"{value:.4g} {unit}"


# ---- software ---------------------------------------------------------------------------------------------------------


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """Version of each distribution; None where it is not installed."""
    return {name: _version(name) for name in distributions}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _main_versions() -> dict[str, Any]:
    import numpy

    return {
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }


def _optional_packages() -> dict[str, Any]:
    found = {}
    for module, (distribution, purpose, extra) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            found[distribution] = f"missing ({purpose}): pip install '{extra}'"
        else:
            found[distribution] = _version(distribution) or "installed"
    return found


def commit() -> str | None:
    """The commit of the checkout that contains this package, with "+changes" if tracked files differ; else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + "+changes" * bool(changes.stdout.strip())


def _kernel_cache() -> dict[str, Any]:
    from gpunet.backend import disk_cache

    try:
        folder = Path(disk_cache.cache_directory())
    except (GpunetError, AttributeError) as error:
        return {"folder": None, "found": str(error)}
    sizes = []
    for parent, _, names in os.walk(folder):  # which skips folders that another process removes meanwhile
        for name in names:
            with contextlib.suppress(OSError):  # as it may remove a file
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
    return {"folder": str(folder), "files": len(sizes), "size": _format_bytes(sum(sizes))}


# ---- CPU --------------------------------------------------------------------------------------------------------------


def cpu() -> dict[str, Any]:
    """Model, cores, and the number of threads that captured steps use."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    cores = {"cores": os.cpu_count(), "usable cores": threads.available_cores()}
    return {"model": model, **cores, "step threads": threads.get_num_threads()}


def blas() -> dict[str, Any]:
    """NumPy's BLAS, the library chosen for large matrix products, and the loaded thread pools (needs threadpoolctl)."""
    import numpy

    try:
        built = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        found: dict[str, Any] = {"library": f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()}
    except (KeyError, TypeError):
        found = {"library": None}
    found["large products"] = _large_products()
    found["large convolutions"] = f"onednn {version}" if (version := onednn.version()) else "products of gpunet"
    try:
        import threadpoolctl
    except ImportError:
        return found
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool.get("user_api") == "blas"]
    found["loaded"] = [
        {k: pool.get(k) for k in ("internal_api", "version", "architecture", "threading_layer")}
        | {"threads": pool.get("num_threads")}
        for pool in pools
    ]
    if any(pool.get("architecture") in ("Haswell", "Zen") for pool in pools) and _has_avx512():
        core_type = os.environ.get("OPENBLAS_CORETYPE")
        found["advice"] = "OpenBLAS uses AVX2 kernels although this CPU has AVX-512: " + (
            f"OPENBLAS_CORETYPE={core_type} is set; without it, large matrix products may take half the time"
            if core_type
            else "with OPENBLAS_CORETYPE=SKYLAKEX in the environment, large matrix products may take half the time"
        )
    return found


def _large_products() -> str:
    """The library that computes large matrix products, and why it was chosen."""
    from gpunet.backend.blas import chosen
    from gpunet.backend.blas.choice import relative

    try:
        choice = chosen()
    except GpunetError as error:
        return str(error)
    if (os.environ.get("GPUNET_BLAS") or "auto") != "auto":
        return f"{choice.name}, set by GPUNET_BLAS"
    if not choice.seconds:
        return f"{choice.name}; install 'gpunet[onednn]' or 'gpunet[mkl]' to have the fastest library measured and used"
    times = ", ".join(f"{name} {relative(choice.seconds, name):.2f}" for name in choice.seconds)
    return f"{choice.name}; measured times relative to NumPy: {times}"


def _has_avx512() -> bool:
    """Whether the CPU has the instructions that OpenBLAS's AVX-512 kernels use; False without /proc."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("flags")[2].partition("\n")[0]
    except OSError:
        return False
    return {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= set(flags.split())


# ---- GPUs -------------------------------------------------------------------------------------------------------------


def _cuda() -> dict[str, Any]:
    from gpunet.backend.devices import cuda_status, cupy

    status = cuda_status()
    found: dict[str, Any] = {"state": status.state, "found": status.detail}
    if not status.ready:
        return found | {"advice": status.advice}
    runtime = cupy().cuda.runtime
    version = runtime.driverGetVersion()
    found["driver"] = f"{_driver_version()}, for CUDA up to {version // 1000}.{version % 1000 // 10}"
    found["gpus"] = []
    for index in range(runtime.getDeviceCount()):
        properties = _properties(index)
        properties["memory"] = _format_bytes(properties["memory"])
        found["gpus"].append({"device": f"cuda:{index}", **properties})
    return found


def _properties(index: int) -> dict[str, Any]:
    """Return name, memory in bytes, and compute capability of a GPU."""
    from gpunet.backend.devices import cupy
    from gpunet.backend.gpus import get_device_capability, get_device_name

    return {
        "name": get_device_name(index),
        "memory": int(cupy().cuda.runtime.getDeviceProperties(index)["totalGlobalMem"]),
        "compute capability": ".".join(map(str, get_device_capability(index))),
    }


def gpu() -> dict[str, Any] | None:
    """The first GPU, the CUDA version of its driver, and CuPy's version; None if CUDA is not ready."""
    from gpunet.backend.devices import cuda_status, cupy

    if not cuda_status().ready:
        return None
    driver = int(cupy().cuda.runtime.driverGetVersion())
    return {**_properties(0), "driver CUDA": driver, "cupy": cupy().__version__}


def _driver_version() -> str:
    """The version of NVIDIA's driver, where Linux reports it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "unknown version"
    return next((word for word in text.split() if re.fullmatch(r"\d+\.\d+(\.\d+)?", word)), "unknown version")


def _nvrtc() -> dict[str, Any]:
    """The run-time compiler. It needs no GPU."""
    from gpunet.backend import compiler

    try:
        version = ".".join(map(str, compiler.nvrtc_version()))
    except (GpunetError, AttributeError) as error:
        return {"state": "not found", "found": str(error), "advice": "pip install 'gpunet[cuda13]' or 'gpunet[cuda12]'"}
    return {"state": "ready", "version": version, "library": _nvrtc_library()}


def _nvrtc_library() -> str | None:
    """Path of the loaded NVRTC library, from the memory map of this process."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return next((path for path in mapped if "libnvrtc.so" in path), None)
