"""A step with graph breaks: its Python runs at each call, its launches a segment at a time."""

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
from gpunet.launch.tape import GraphBreak, record

LAUNCHES = "launch by launch, not timed"


class SplitStep:
    """Runs a step in parts; created by :class:`~gpunet.captured.step.CapturedStep` at a graph break with ``fullgraph=False``.

    Args:
        function: the step.
        name: of the step, for messages.
        backend: "numpy" or "numba".
        first: launches of the run in which the graph breaks were found.
        splits: these graph breaks, at least one.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, backend: str, first: list[Row], splits: list[GraphBreak]
    ) -> None:
        self.function, self.name = function, name
        self.segments = Segments(backend)
        self._first, self._splits = first, splits
        self._last: list[tuple[Segment, GraphBreak | None]] = []
        self._alone = threading.Lock()

    def warn(self) -> None:
        """Warn with the first graph break."""
        split = self._splits[0]
        warnings.warn(
            f"{self.name} is split: {split}. Its Python runs at every call, its launches in parts. For one graph: "
            f"{split.way_out}; print({self.name}.explain()) shows the parts",
            SplitWarning,
            stacklevel=5,
        )

    def __call__(self, args: Any, options: Any) -> Any:
        """Call the function, with its launches deferred to the next graph break."""
        if not self._alone.acquire(blocking=False):
            return self.function(*args, **options)  # already running, in another thread or recursively: run eagerly
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
        """Explain the parts of the last call, with times for the lowered ones; before any call, of the attempt to record.

        Raises:
            CaptureError: the step is running.
        """
        if not self._alone.acquire(blocking=False):
            raise CaptureError(f"{self.name}.explain() while {self.name} runs: call it after the step")
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


def _explained(segment: Segment, split: GraphBreak | None) -> Part:
    if segment.lowering is None:
        how = LAUNCHES + (f" ({segment.refused})" if segment.refused else "")
        return Explanation(segment.rows, ceilings(), 0, 0), how, split
    lines = [(row.launch, row.line) for row in segment.rows]
    if segment.lowering.tape is None:
        return segment.context.run(explain.explain_calls, segment.lowering, lines), "one function", split
    is_on_gpu = segment.place is not None and segment.place.device.type == "cuda"
    how = "one CUDA graph" if is_on_gpu else "launch by launch, on planned memory"
    return segment.context.run(explain.explain_launches, segment.lowering, lines), how, split
