"""A lock on a folder that the operating system releases when its process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from gpunet.errors import CheckpointError

LOCK = ".lock"


class FolderLock:
    """Hold a folder, as a context manager.  The lock file stays after the release; only an open, locked file holds the folder.

    Raises:
        CheckpointError: another process, or another Trainer of this one, holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: IO[str] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the folder."""
        return self._file is not None

    def __enter__(self) -> FolderLock:
        try:
            file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write the run folder {self.path.parent}: {error.strerror or error}") from None
        if not _acquire(file):
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise CheckpointError(
                f"the run folder {self.path.parent} is in use by {owner}; wait for its end, or choose another folder"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


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
