"""Selects the library for large products: the one ``GPUNET_BLAS`` names, or the fastest, timed once per machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy

from gpunet.backend.blas import libraries
from gpunet.backend.disk_cache import cache_directory
from gpunet.backend.files import write_whole
from gpunet.errors import ArgumentError, MissingDependencyError

_log = logging.getLogger(__name__)
#: A library replaces NumPy's BLAS only if it needs less than this fraction of NumPy's time.
GAIN = 0.9
_ROUNDS = 2
_NUMPY = "numpy"
_lock = threading.Lock()


class Choice(NamedTuple):
    """The selected library."""

    name: str
    functions: libraries.Functions  # by dtype; empty for NumPy
    seconds: dict[str, list[float]]  # for each library that was timed, the time of each product in measure.PRODUCTS


def choose() -> Choice:
    """Select the library that ``GPUNET_BLAS`` names; with "auto" (the default), the fastest installed library.

    Raises:
        ArgumentError: ``GPUNET_BLAS`` is not the name of a library.
        MissingDependencyError: the library that it names is not installed or cannot be loaded.
    """
    with _lock:
        requested = os.environ.get("GPUNET_BLAS") or "auto"
        if requested != "auto":
            return load(requested)
        found = libraries.installed()
        # in a frozen program sys.executable is the program itself, so the measuring subprocess cannot be started
        seconds = _cached_times(found) if found and not getattr(sys, "frozen", False) else {}
        best = min(seconds, key=lambda name: relative(seconds, name), default=_NUMPY)
        if relative(seconds, best) > GAIN:
            best = _NUMPY
        try:
            return load(best)._replace(seconds=seconds)
        except MissingDependencyError as error:  # removed or broken since it was timed
            _log.warning("using NumPy's BLAS for large products: %s", error)
            return Choice(_NUMPY, {}, seconds)


def load(name: str) -> Choice:
    """Load a library by its name; "numpy" needs no loading.

    Raises:
        ArgumentError: the name is not that of a supported library.
        MissingDependencyError: the library is not installed or cannot be loaded.
    """
    known = {library.name: library for library in libraries.installed()}
    if name == _NUMPY:
        return Choice(name, {}, {})
    if name not in libraries.NAMES:
        raise ArgumentError(f"GPUNET_BLAS={name!r}; expected one of auto, numpy, {', '.join(libraries.NAMES)}")
    if name not in known:
        raise MissingDependencyError(
            f"GPUNET_BLAS={name!r}, but that library is not installed: pip install 'gpunet[{name}]' (Linux)"
        )
    try:
        functions = known[name].load(known[name].path)
    except (OSError, AttributeError) as error:
        raise MissingDependencyError(
            f"{known[name].path} cannot be loaded ({error}): reinstall it, pip install --force-reinstall 'gpunet[{name}]', "
            "or set GPUNET_BLAS=numpy"
        ) from error
    return Choice(name, functions, {})


def relative(seconds: dict[str, list[float]], name: str) -> float:
    """Return a library's time relative to NumPy's: the geometric mean over the products; 1.0 if it was not timed."""
    if name not in seconds:
        return 1.0
    return math.prod(t / u for t, u in zip(seconds[name], seconds[_NUMPY])) ** (1 / len(seconds[name]))


def _cached_times(found: list[libraries.Library]) -> dict[str, list[float]]:
    """Read the times measured earlier on this machine; measure and cache them if there are none."""
    path = cache_directory() / f"blas-{_machine_key(found)}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.warning("cannot read %s (%s): measuring again", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
    seconds = _measure([_NUMPY, *(library.name for library in found)])
    if not seconds:  # not cached: the next process tries again
        return {}
    try:
        try:
            write_whole(path, json.dumps(seconds), replace=False)
        except FileExistsError:  # another process wrote its times first: use them, so that all processes choose alike
            seconds = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        _log.warning(
            "cannot cache the choice of a BLAS library in %s (%s): another process may choose differently", path.parent, error
        )
    return seconds


def _machine_key(found: list[libraries.Library]) -> str:
    """Hash everything the times depend on: CPU model, cores, libraries and their environment variables."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = sorted({line for line in text.splitlines() if line.startswith(("model name", "flags"))})
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_", "OPENBLAS_", "MKL_", "KMP_")))
    names = (library.distribution for library in found)
    spins = (f"{k}={v}" for k, v in libraries.SPINS.items())
    parts = (*model, str(len(os.sched_getaffinity(0))), numpy.__version__, *names, *settings, *spins)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _measure(names: list[str]) -> dict[str, list[float]]:
    """Time each library in several processes, taking turns; return its fastest time of each product.

    A library that fails is left out; if NumPy fails, the result is empty.
    """
    _log.info("timing BLAS libraries: %s", ", ".join(names))
    seconds: dict[str, list[float]] = {}
    failed: set[str] = set()
    for name in names * _ROUNDS:
        if name in failed:
            continue
        try:
            times = _measure_in_subprocess(name)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            detail = (getattr(error, "stderr", "") or "").strip()[-500:]
            _log.warning("%s could not be timed and is not used: %s %s", name, error, detail)
            failed.add(name)
        else:
            seconds[name] = [min(pair) for pair in zip(times, seconds.get(name, times))]
    return {} if _NUMPY in failed else {name: times for name, times in seconds.items() if name not in failed}


def _measure_in_subprocess(name: str) -> list[float]:
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "gpunet.backend.blas.measure", name],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(map(float, json.loads(done.stdout)))
