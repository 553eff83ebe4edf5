"""Files that are written beside their place and renamed, so that a file is whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
    """Yield the path of a new file in the same folder, which takes the place of ``path`` when the block ends without an error."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    except OSError as error:
        error.filename = str(path)  # what the user knows
        raise
    try:
        os.close(handle)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp restricts access to the owner
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def leftovers(folder: Path) -> list[Path]:
    """What processes that were killed while writing have left in a folder."""
    return [*folder.glob(".*.partial")]


def remove_leftovers(folder: Path) -> None:
    """Remove :func:`leftovers`, in a folder that no other process writes to."""
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            path.unlink()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
