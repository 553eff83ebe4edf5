"""The disk cache for compiled code and measurements: its folder, and writes that may fail."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from gpunet.backend.files import write_whole

_log = logging.getLogger(__name__)

_chosen_cache: Path | None = None
_has_warned = False


def set_cache_directory(path: str | os.PathLike[str] | None) -> None:
    """Use ``path`` as the cache folder from now on; ``None`` goes back to ``GPUNET_CACHE_DIR`` or the default."""
    global _chosen_cache
    _chosen_cache = None if path is None else Path(path)


def cache_directory() -> Path:
    """Return the cache folder: ``set_cache_directory``, else ``GPUNET_CACHE_DIR``, else ``~/.cache/gpunet``."""
    if _chosen_cache is not None:
        return _chosen_cache
    from_environment = os.environ.get("GPUNET_CACHE_DIR")
    if from_environment:
        return Path(from_environment)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~"), ".cache")) / "gpunet"


def keep(path: Path, content: bytes) -> bool:
    """Write a file to the cache and return whether it was written; if that fails, log one warning per process."""
    global _has_warned
    try:
        write_whole(path, content)
    except OSError as error:
        if not _has_warned:
            _has_warned = True
            _log.warning(
                "cannot cache compiled kernels in %s (%s), so every process compiles them again; "
                "set GPUNET_CACHE_DIR to a writable folder",
                path.parent,
                error,
            )
        return False
    return True
