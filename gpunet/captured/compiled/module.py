"""Loads generated source as a module, from the disk cache if it is there, and finds Numba.

The file in the cache directory is named after a digest of the source and of the code that it imports.  Numba keeps the
machine code next to it, per kind of CPU.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

from gpunet.backend.disk_cache import cache_directory
from gpunet.backend.files import write_whole
from gpunet.backend.long_work import long_work
from gpunet.errors import MissingDependencyError

_log = logging.getLogger(__name__)
_loading = threading.Lock()


def available() -> bool:
    """Whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


def require() -> None:
    """Import Numba.

    Raises:
        MissingDependencyError: Numba is not installed, or its import fails.
    """
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"capture: backend='numba' needs Numba, which cannot be imported ({error}); "
            "pip install 'gpunet[jit]', or use backend='auto'"
        ) from None


def load(text: str, kind: str = "step") -> ModuleType:
    """The module of a source text, compiled or from the disk cache; ``kind`` is a part of its name."""
    digest = hashlib.sha256(text.encode())
    digest.update(_code_digest())
    name = f"gpunet_{kind}_{digest.hexdigest()[:32]}"
    with _loading:
        if name in sys.modules:
            return sys.modules[name]
        try:
            path = _write(cache_directory() / "numba" / f"{name}.py", text)
        except OSError as error:
            _log.warning("capture: cannot cache compiled steps in %s (%s), so every process compiles", cache_directory(), error)
            path = _write(Path(tempfile.mkdtemp(prefix="gpunet-")) / f"{name}.py", text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            with long_work("compiling a step"):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


@functools.cache
def _code_digest() -> bytes:
    """Digest of what the machine code depends on besides the source text: Numba, Python, and the helpers in ``jit/``."""
    import numba

    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _write(path: Path, text: str) -> Path:
    """Write a file, unless it has this text: a new modification time would invalidate Numba's cache."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)
    return path
