"""A lock on a folder that the operating system releases when its process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from gpunet.errors import CheckpointError

LOCK = ".lock"


class FolderLock:
    """Hold a folder, as a context manager.  The file of the lock stays: only who holds it counts.

    Raises:
        CheckpointError: another process, or another Trainer of this one, holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK

    def __enter__(self) -> FolderLock:
        try:
            self._file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write the run folder {self.path.parent}: {error.strerror or error}") from None
        if not _acquire(self._file):
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise CheckpointError(
                f"the run folder {self.path.parent} is in use by {owner}; wait for its end, or choose another folder"
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _acquire(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
