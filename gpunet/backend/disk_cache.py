"""The cache on disk: where compiled code and measurements are kept, and files that are written whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

_chosen_cache: Path | None = None
_cache_complained = False


def set_cache_directory(path: str | os.PathLike[str] | None) -> None:
    """Keep machine code in ``path`` from now on; ``None`` goes back to ``GPUNET_CACHE_DIR`` or the default."""
    global _chosen_cache
    _chosen_cache = None if path is None else Path(path)


def cache_directory() -> Path:
    """Where machine code is kept: ``set_cache_directory``, else ``GPUNET_CACHE_DIR``, else ``~/.cache/gpunet``."""
    if _chosen_cache is not None:
        return _chosen_cache
    asked = os.environ.get("GPUNET_CACHE_DIR")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~"), ".cache")) / "gpunet"


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that other processes see whole or not at all, and the folders that it lies in.

    Raises:
        FileExistsError: not ``replace``, and it is there.
        OSError: it cannot be written; nothing is left of it.
    """
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=path.stem[:16], suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        (os.replace if replace else os.link)(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def keep(path: Path, content: bytes) -> bool:
    """Write a file of the cache, if it can be written; return whether it was."""
    global _cache_complained
    try:
        write_whole(path, content)
    except OSError as error:
        if not _cache_complained:
            _cache_complained = True
            _log.warning(
                "compiled kernels cannot be kept in %s (%s), so every process compiles them again; "
                "set GPUNET_CACHE_DIR to a folder that can be written",
                path.parent,
                error,
            )
        return False
    return True
