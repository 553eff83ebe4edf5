"""The machine that figures are from: CPU, BLAS, card, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpunet.backend import threads


def cpu() -> dict[str, Any]:
    """Model, cores, and how many threads captured steps use."""
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
    """The BLAS that NumPy was built with, what multiplies large matrices, and the pools loaded, where threadpoolctl tells."""
    import numpy

    try:
        built = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        found: dict[str, Any] = {"library": f"{built.get('name', 'not known')} {built.get('version', '')}".strip()}
    except (KeyError, TypeError):
        found = {"library": None}
    found["large products"] = _large_products()
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
        asked = os.environ.get("OPENBLAS_CORETYPE")
        found["advice"] = "OpenBLAS runs its kernels for AVX2 although this CPU has AVX-512: " + (
            f"OPENBLAS_CORETYPE={asked} in the environment says so; without it large products may take half the time"
            if asked
            else "with OPENBLAS_CORETYPE=SKYLAKEX in the environment large products may take half the time"
        )
    return found


def _large_products() -> str:
    """The library that the products of large matrices go to, and why."""
    from gpunet.backend.blas import chosen
    from gpunet.backend.blas.choice import relative
    from gpunet.errors import GpunetError

    try:
        choice = chosen()
    except GpunetError as error:
        return str(error)
    if (os.environ.get("GPUNET_BLAS") or "auto") != "auto":
        return f"{choice.name}, as GPUNET_BLAS says"
    if not choice.seconds:
        return f"{choice.name}; with 'gpunet[onednn]' or 'gpunet[mkl]' installed, what is fastest here is measured and taken"
    times = ", ".join(f"{name} {relative(choice.seconds, name):.2f}" for name in choice.seconds)
    return f"{choice.name}: measured times over NumPy's: {times}"


def _has_avx512() -> bool:
    """Whether the CPU has what OpenBLAS's kernels for AVX-512 use; not known to have, where there is no /proc."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("flags")[2].partition("\n")[0]
    except OSError:
        return False
    return {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= set(flags.split())


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """Versions of installed distributions, None for the others."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit of the checkout that this package is in, with "+changes" where files differ from it."""
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


def card() -> dict[str, Any] | None:
    """The first card, its driver's CUDA and CuPy's version; None where CUDA is not ready."""
    from gpunet.backend.devices import cuda_status, cupy

    if not cuda_status().ready:
        return None
    runtime = cupy().cuda.runtime
    properties = runtime.getDeviceProperties(0)
    name = properties["name"]
    return {
        "name": name.decode() if isinstance(name, bytes) else str(name),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "memory": int(properties["totalGlobalMem"]),
        "driver CUDA": int(runtime.driverGetVersion()),
        "cupy": cupy().__version__,
    }
