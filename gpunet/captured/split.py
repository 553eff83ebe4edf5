"""A step that cannot be one recording: its Python runs at every call, its launches a segment at a time."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from gpunet.captured import explain
from gpunet.captured.deferred import Deferred, Segments
from gpunet.captured.explain import Explanation, Part, Row, SplitExplanation, ceilings
from gpunet.captured.guards import tensors
from gpunet.captured.segment import Segment
from gpunet.errors import CaptureError, SplitWarning
from gpunet.launch.tape import Split, record

LAUNCHES = "launch by launch, not timed"


class SplitStep:
    """Made by :class:`~gpunet.captured.step.CapturedStep` where a recording was not possible, with ``fullgraph=False``.

    Args:
        first: the launches of the run in which that was noticed.
        splits: what could not be recorded, and where; at least one.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, backend: str, first: list[Row], splits: list[Split]
    ) -> None:
        self.function, self.name = function, name
        self.segments = Segments(backend)
        self._first, self._splits = first, splits
        self._last: list[tuple[Segment, Split | None]] = []
        self._alone = threading.Lock()

    def warn(self) -> None:
        """Say where, once."""
        split = self._splits[0]
        warnings.warn(
            f"{self.name} is split: {split}. Its Python runs at every call, its launches in parts. For one graph: "
            f"{split.way_out}; print({self.name}.explain()) shows the parts",
            SplitWarning,
            stacklevel=5,
        )

    def __call__(self, args: Any, options: Any) -> Any:
        """A call, which is the function's own but for when its launches run."""
        if not self._alone.acquire(blocking=False):
            return self.function(*args, **options)  # in another thread meanwhile: as it is written
        try:
            tape = Deferred(self.segments, [t.array for t in tensors((args, options))])
            with record(tape):
                try:
                    return self.function(*args, **options)
                finally:
                    tape.end()
                    self._last = tape.ran
        finally:
            self._alone.release()

    def explain(self) -> SplitExplanation:
        """The parts of the last call, those that are lowered timed; before there was one, of the call that was to be recorded.

        Raises:
            CaptureError: the step is running.
        """
        if not self._alone.acquire(blocking=False):
            raise CaptureError(f"{self.name}.explain() while {self.name} runs: call it behind the step")
        try:
            parts = [_explained(segment, split) for segment, split in self._last]
        finally:
            self._alone.release()
        return SplitExplanation(self._splits[0], parts or self._first_parts())

    def _first_parts(self) -> list[Part]:
        splits = [split for split in self._splits if split.line]
        places = [0, *(split.position for split in splits), len(self._first)]
        parts = [Explanation(self._first[start:end], ceilings(), 0, 0) for start, end in itertools.pairwise(places)]
        return [(part, LAUNCHES, split) for part, split in zip(parts, [*splits, None]) if part.rows or split]


def _explained(segment: Segment, split: Split | None) -> Part:
    if segment.lowering is None:
        how = LAUNCHES + (f" ({segment.refused})" if segment.refused else "")
        return Explanation(segment.rows, ceilings(), 0, 0), how, split
    lines = [(row.launch, row.line) for row in segment.rows]
    if segment.lowering.tape is None:
        return segment.context.run(explain.explain_calls, segment.lowering, lines), "one function", split
    on_card = segment.place is not None and segment.place.device.type == "cuda"
    how = "one CUDA graph" if on_card else "launch by launch, on planned memory"
    return segment.context.run(explain.explain_launches, segment.lowering, lines), how, split
