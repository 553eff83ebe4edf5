"""``gpunet info``: what was found on this machine, and what to install where something is missing."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import platform
import re
from pathlib import Path
from typing import Any

from gpunet.errors import GpunetError
from gpunet.tools import machine

#: Optional packages: module → (distribution, what it is for, how to get it).
OPTIONAL = {
    "sklearn": ("scikit-learn", "the built-in data sets", "gpunet[train]"),
    "matplotlib": ("matplotlib", "the curves of a run", "gpunet[train]"),
    "tqdm": ("tqdm", "progress bars", "gpunet[train]"),
    "safetensors": ("safetensors", "checkpoints", "gpunet[train]"),
    "threadpoolctl": ("threadpoolctl", "one BLAS thread for small networks", "gpunet[train]"),
    "numba": ("numba", "recorded steps as compiled loops", "gpunet[jit]"),
    "torch": ("torch", "the tests' oracle", "gpunet[torch]"),
}


def add_parser(subparsers: Any) -> None:
    """Add ``info`` and its options."""
    parser = subparsers.add_parser(
        "info",
        help="versions, CPU, BLAS, GPU, driver, kernel cache, and what to install",
        description="Show what gpunet found on this machine, and what to install where something is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; the exit code is 0 whatever was."""
    found = collect()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for title, content in found.items():
        rows = content.items() if isinstance(content, dict) else [("", content)]
        print(title)
        for name, value in rows:
            for index, line in enumerate(_lines(value)):
                print(f"  {name if index == 0 else '':<16} {line}".rstrip())
    return 0


def _lines(value: Any) -> list[str]:
    if isinstance(value, list):
        return [line for part in value for line in _lines(part)] or ["none"]
    if isinstance(value, dict):
        return [", ".join(f"{k} {v}" for k, v in value.items() if v not in (None, ""))]
    return ["not known" if value is None else str(value)]


def collect() -> dict[str, Any]:
    """Everything that was found, as plain data."""
    return {
        "versions": _versions(),
        "cpu": machine.cpu(),
        "blas": machine.blas(),
        "cuda": _cuda(),
        "nvrtc": _nvrtc(),
        "kernel cache": _cache(),
        "optional": _optional(),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, Any]:
    import numpy

    import gpunet

    return {
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }


def _cuda() -> dict[str, Any]:
    from gpunet.backend.devices import cuda_status, cupy

    status = cuda_status()
    found: dict[str, Any] = {"state": status.state, "found": status.detail}
    if not status.ready:
        return found | {"advice": status.advice}
    cuda = cupy().cuda
    driver = cuda.runtime.driverGetVersion()
    found["driver"] = f"{_driver()}, for CUDA up to {driver // 1000}.{driver % 1000 // 10}"
    found["cards"] = []
    for index in range(cuda.runtime.getDeviceCount()):
        card = cuda.runtime.getDeviceProperties(index)
        name = card["name"].decode() if isinstance(card["name"], bytes) else str(card["name"])
        found["cards"].append(
            {
                "device": f"cuda:{index}",
                "name": name,
                "memory": _size(card["totalGlobalMem"]),
                "compute capability": f"{card['major']}.{card['minor']}",
            }
        )
    return found


def _driver() -> str:
    """The driver's own version, where Linux tells it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "version not known"
    return next((word for word in text.split() if re.fullmatch(r"\d+\.\d+(\.\d+)?", word)), "version not known")


def _nvrtc() -> dict[str, Any]:
    """The run-time compiler, which needs no card."""
    from gpunet.backend import compiler

    try:
        version = ".".join(map(str, compiler.nvrtc_version()))
    except (GpunetError, AttributeError) as error:
        return {"state": "not found", "found": str(error), "advice": "pip install 'gpunet[cuda13]' or 'gpunet[cuda12]'"}
    return {"state": "ready", "version": version, "library": _nvrtc_library()}


def _nvrtc_library() -> str | None:
    """Path of the loaded NVRTC library, from the process's memory map."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return next((path for path in mapped if "libnvrtc.so" in path), None)


def _cache() -> dict[str, Any]:
    from gpunet.backend import disk_cache

    try:
        folder = Path(disk_cache.cache_directory())
    except (GpunetError, AttributeError) as error:
        return {"folder": None, "found": str(error)}
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be at work there
            if path.is_file():
                sizes.append(path.stat().st_size)
    return {"folder": str(folder), "files": len(sizes), "size": _size(sum(sizes))}


def _optional() -> dict[str, Any]:
    found = {}
    for module, (distribution, purpose, extra) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            found[distribution] = f"missing ({purpose}): pip install '{extra}'"
        else:
            found[distribution] = _version(distribution) or "installed"
    return found


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000.0:
            break
        value, unit = value / 1000.0, larger
    return f"{value:.4g} {unit}"
