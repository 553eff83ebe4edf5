"""What a tape records: the face that kernels and shims share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.launch.tape import active


class Launchable:
    """What a tape records: something called with arrays, destinations first, and options."""

    name: str
    outputs = 1  # how many of the arrays are destinations
    lists = 0  # how many of the leading arguments are lists of arrays

    def __call__(self, *arrays: Any, **options: Any) -> None:
        """Check the arrays, launch, and record the launch when a tape is recording."""
        recording = active.tape
        if recording is None:
            self.check(arrays)
            self.launch(arrays, options)
        else:
            recording.launch(self, arrays, options)

    def check(self, arrays: Sequence[Any]) -> None:
        raise NotImplementedError

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        """Launch without checks: what a replay does."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
