"""The interface that kernels and shims share, and that a tape records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpunet.launch.tape import active

F = TypeVar("F", bound=Callable[..., Any])


class Launchable:
    """An operation on arrays (destinations first) with keyword options, which a tape can record and replay."""

    name: str
    outputs = 1  # number of leading arrays that are destinations
    lists = 0  # number of leading arguments that are lists of arrays
    #: The NumPy calls that it makes depend on values (labels, indices, random words), so that a captured step cannot trace it.
    reads_values = False
    #: Other processes take part, so that a captured step runs it even if nothing reads its result, and nothing else runs it alone.
    meets_others = False
    #: what a launch computes in a network, see :meth:`computes`
    part: Callable[..., Any] | None = None
    widens = False  # whether what NumPy computes of halves is computed on float32 copies, see gpunet.launch.halves

    def __call__(self, *arrays: Any, **options: Any) -> None:
        """Check the arrays and launch; if a tape is recording, record the launch."""
        recording = active.tape
        if recording is None:
            self.check(arrays)
            self.launch(arrays, options)
        else:
            recording.launch(self, arrays, options)

    def computes(self, function: F) -> F:
        """Decorator: declare what a launch computes in a network.

        The decorated function takes the arrays and options of a launch, and returns a part (see :mod:`gpunet.launch.parts`), or
        None if there is none for them.
        """
        self.part = function
        return function

    def check(self, arrays: Sequence[Any]) -> None:
        raise NotImplementedError

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        """Launch without checks, as a replay does."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
