"""Which library multiplies large matrices: what ``GPUNET_BLAS`` says, or the fastest, measured once a machine and kept."""

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
from gpunet.backend.disk_cache import cache_directory, write_whole
from gpunet.errors import ArgumentError, MissingDependencyError

_log = logging.getLogger(__name__)
#: Another library is taken where it needs less than this share of NumPy's time.
GAIN = 0.9
_ROUNDS = 2
_NUMPY = "numpy"
_deciding = threading.Lock()


class Choice(NamedTuple):
    """The library that is taken."""

    name: str
    functions: libraries.Functions  # none: NumPy's own
    seconds: dict[str, list[float]]  # of every library that was measured, a product each


def choose() -> Choice:
    """What ``GPUNET_BLAS`` says; with "auto", the default, what is fastest.

    Raises:
        ArgumentError: it names no library.
        MissingDependencyError: it names one that is not installed or does not load.
    """
    with _deciding:
        asked = os.environ.get("GPUNET_BLAS") or "auto"
        if asked != "auto":
            return load(asked)
        found = libraries.installed()
        # a frozen program's executable is the program itself, not a Python that measures
        seconds = _kept(found) if found and not getattr(sys, "frozen", False) else {}
        best = min(seconds, key=lambda name: relative(seconds, name), default=_NUMPY)
        if relative(seconds, best) > GAIN:
            best = _NUMPY
        try:
            return load(best)._replace(seconds=seconds)
        except MissingDependencyError as error:  # it was there when it was measured
            _log.warning("large products stay with NumPy's BLAS: %s", error)
            return Choice(_NUMPY, {}, seconds)


def load(name: str) -> Choice:
    """Load a library by its name."""
    known = {library.name: library for library in libraries.installed()}
    if name == _NUMPY:
        return Choice(name, {}, {})
    if name not in libraries.NAMES:
        raise ArgumentError(f"GPUNET_BLAS={name!r}; expected one of auto, numpy, {', '.join(libraries.NAMES)}")
    if name not in known:
        raise MissingDependencyError(f"GPUNET_BLAS={name!r}, which is not installed here: pip install 'gpunet[{name}]' (Linux)")
    try:
        functions = known[name].load(known[name].path)
    except (OSError, AttributeError) as error:
        raise MissingDependencyError(
            f"{known[name].path} does not load ({error}): install it anew, pip install --force-reinstall 'gpunet[{name}]', "
            "or set GPUNET_BLAS=numpy"
        ) from error
    return Choice(name, functions, {})


def relative(seconds: dict[str, list[float]], name: str) -> float:
    """Geometric mean, over the products, of a library's time over NumPy's."""
    if name not in seconds:
        return 1.0
    return math.prod(t / u for t, u in zip(seconds[name], seconds[_NUMPY])) ** (1 / len(seconds[name]))


def _kept(found: list[libraries.Library]) -> dict[str, list[float]]:
    """What was measured on this machine before, or is now."""
    path = cache_directory() / f"blas-{_machine(found)}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read (%s): measuring anew", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
    seconds = _measured([_NUMPY, *(library.name for library in found)])
    if not seconds:  # the next process may have more luck
        return {}
    try:
        try:
            write_whole(path, json.dumps(seconds).encode(), replace=False)
        except FileExistsError:  # another process was faster: all shall choose alike
            seconds = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        _log.warning("the choice of a BLAS cannot be kept in %s (%s): another process may choose otherwise", path.parent, error)
    return seconds


def _machine(found: list[libraries.Library]) -> str:
    """What the measurement depends on: CPU, cores, libraries, and their settings."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = sorted({line for line in text.splitlines() if line.startswith(("model name", "flags"))})
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_", "OPENBLAS_", "MKL_", "KMP_")))
    parts = (*model, str(len(os.sched_getaffinity(0))), numpy.__version__, *(library.distribution for library in found), *settings)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _measured(names: list[str]) -> dict[str, list[float]]:
    """The fastest times of each library over several processes, in turn."""
    _log.info("measuring which BLAS multiplies fastest here: %s", ", ".join(names))
    seconds: dict[str, list[float]] = {}
    left_out: set[str] = set()
    for name in names * _ROUNDS:
        if name in left_out:
            continue
        try:
            times = _ask(name)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            detail = (getattr(error, "stderr", "") or "").strip()[-500:]
            _log.warning("products by %s could not be measured, so it is left out: %s %s", name, error, detail)
            left_out.add(name)
        else:
            seconds[name] = [min(pair) for pair in zip(times, seconds.get(name, times))]
    return {} if _NUMPY in left_out else {name: times for name, times in seconds.items() if name not in left_out}


def _ask(name: str) -> list[float]:
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
