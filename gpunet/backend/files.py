"""Files that are written beside their place and renamed, so that a file is whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, replace: bool = True, is_durable: bool = True) -> Iterator[str]:
    """Yield the path of a new file in the same folder, which takes the place of ``path`` when the block ends without an error.

    Args:
        replace: whether the place may be taken.
        is_durable: whether the content must survive a loss of power; what can be made again need not.

    Raises:
        FileExistsError: the file exists, and ``replace`` is False.
        OSError: the file cannot be written; no partial file is left.
    """
    temporary = str(path.with_name(f".{path.name[:40]}.{os.urandom(8).hex()}.partial"))  # a name has at most 255 bytes
    try:
        try:
            with open(temporary, "xb") as file:
                mode = os.fstat(file.fileno()).st_mode  # what the umask gives
        except OSError as error:
            error.filename = str(path)  # what the user knows
            raise
        yield temporary
        if is_durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.chmod(temporary, mode)  # libraries that replace the file may restrict access to the owner
        (os.replace if replace else os.link)(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_whole(path: Path, content: bytes | str, *, replace: bool = True, is_durable: bool = False) -> None:
    """Write a file, text as UTF-8, and its folders, as :func:`replacing` does: other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, replace=replace, is_durable=is_durable) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def leftovers(folder: Path) -> list[Path]:
    """What processes that were killed while writing have left in a folder."""
    return [*folder.glob(".*.partial")]


def remove_leftovers(folder: Path) -> None:
    """Remove :func:`leftovers`, in a folder that no other process writes to."""
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            path.unlink()
