"""The disk cache for compiled code and measurements: its folder, and atomic writes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

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


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file atomically, creating its folders: other processes see all of it or nothing.

    Raises:
        FileExistsError: the file exists and ``replace`` is False.
        OSError: the file cannot be written; no partial file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{path.stem[:16]}{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:  # with the access that the umask gives, unlike files of tempfile
            file.write(content)
        (os.replace if replace else os.link)(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
