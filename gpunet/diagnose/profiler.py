"""``diagnose.profile``: the launches of a block of code with time, bytes, FLOPs and share of the machine's limits.

The result prints as a table, and is written as a Chrome trace or as a flame picture.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

from gpunet.autograd import engine, no_grad
from gpunet.autograd.graph import Node
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float32
from gpunet.backend.streams import Event
from gpunet.captured.explain import Ceilings, ceilings, describe, with_unit
from gpunet.diagnose.arguments import check_svg, write_text
from gpunet.diagnose.launches import Observer, cost_of
from gpunet.errors import ArgumentError, GpunetError
from gpunet.launch.tape import active, is_library, line_at
from gpunet.ops.creation import ones
from gpunet.ops.matmul import matmul

__all__ = ["Profile", "ProfiledLaunch", "profile"]

_GPU_ROWS, _GPU_ELEMENTS = 4096, 1 << 27  # of the product and of the copy that measure a GPU's limits
GROUPS = ("kernel", "line", "launch")


@dataclass
class ProfiledLaunch:
    """A launch.

    Attributes:
        name: of the kernel.
        stack: the user's lines from the outermost to the one that launched it; in a backward pass also the op.
        shapes: of its arrays.
        start: seconds from the start of the block.
        seconds: that it took, on a GPU by events on its stream.
        flops, bytes: its work, from the facts of its kernel; FLOPs are 0 if they are not known.
    """

    name: str
    stack: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    start: float
    seconds: float
    flops: float
    bytes: float


class ProfileRow(NamedTuple):
    """Launches in a row of the table."""

    name: str
    calls: int
    seconds: float
    flops: float
    bytes: float

    def share(self, limits: Ceilings) -> float:
        """The fraction of the machine's limits reached: the least time that they allow, over the measured time."""
        return max(self.flops / limits.flops, self.bytes / limits.bytes) / self.seconds if self.seconds else 0.0


@dataclass
class _Slice:
    """A box of the flame picture, or an event of the trace: calls of one function."""

    name: str
    start: float
    seconds: float
    children: list[_Slice] = field(default_factory=list)
    launch: ProfiledLaunch | None = None


class Profile:
    """The launches of a block; a context manager, made by :func:`profile`.

    Attributes:
        launches: see :class:`ProfiledLaunch`; complete when the block has ended.
        seconds: of the block, with all that runs between launches.
    """

    def __init__(self) -> None:
        self.launches: list[ProfiledLaunch] = []
        self.seconds = 0.0
        self._observer: _Timer | None = None
        self._limits: Ceilings | None = None

    def __enter__(self) -> Profile:
        if active.tape is not None:
            raise GpunetError("profile: this thread already records its launches, in another profile or a captured step")
        self._observer = active.tape = _Timer()
        self._inspect, engine.inspect_gradients = engine.inspect_gradients, self._on_node
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._observer is not None
        active.tape, engine.inspect_gradients = None, self._inspect
        timer, self._observer = self._observer, None
        self.launches, self.seconds = timer.finish()
        self._device = timer.device

    def _on_node(self, node: Node, gradients: Any) -> None:
        """Attribute the launches since the last node to the backward of this one."""
        if self._inspect is not None:
            self._inspect(node, gradients)
        if self._observer is not None and active.tape is self._observer:  # the hook is called for the nodes of all threads
            self._observer.attribute(f"backward of {node.public_name}")

    @property
    def limits(self) -> Ceilings:
        """FLOP/s of a large float32 product and bytes/s of a large copy by gpunet on this device, measured once per process."""
        self._check()
        if self._limits is None:
            self._limits = _limits(self._device)
        return self._limits

    def _check(self) -> None:
        if not self.launches:
            raise ArgumentError("profile: nothing was launched in its block, or the block has not ended")

    # -- table
    def rows(self, by: str = "kernel") -> list[ProfileRow]:
        """Return the launches added up, the longest first.

        Args:
            by: "kernel" adds up launches of the same kernel, "line" those of the same line; "launch" lists each, in order.

        Raises:
            ArgumentError: ``by`` is another word, or nothing was launched.
        """
        self._check()
        if by not in GROUPS:
            raise ArgumentError(f"profile: by={by!r}; expected one of {', '.join(map(repr, GROUPS))}")
        if by == "launch":
            return [ProfileRow(launch.name, 1, launch.seconds, launch.flops, launch.bytes) for launch in self.launches]
        groups: dict[str, list[ProfiledLaunch]] = {}
        for launch in self.launches:
            lines = [frame for frame in launch.stack if not frame.startswith("backward of ")]
            groups.setdefault(launch.name if by == "kernel" else lines[-1] if lines else "?", []).append(launch)
        rows = [
            ProfileRow(name, len(found), sum(f.seconds for f in found), sum(f.flops for f in found), sum(f.bytes for f in found))
            for name, found in groups.items()
        ]
        return sorted(rows, key=lambda row: -row.seconds)

    def table(self, by: str = "kernel", limit: int = 30) -> str:
        """Return the table of :meth:`rows` as text.

        Args:
            by: see :meth:`rows`.
            limit: show so many rows, and the others as one.
        """
        rows = self.rows(by)
        total = sum(row.seconds for row in rows)
        if len(rows) > limit:
            others = rows[limit:]
            sums = (sum(row[part] for row in others) for part in range(1, 5))  # type: ignore[misc]
            rows = [*rows[:limit], ProfileRow(f"{len(others)} others", *sums)]
        width = min(max(len(row.name) for row in rows), 60)
        lines = [f"{by:{width}} {'calls':>6} {'µs':>9} {'time':>5} {'FLOP':>8} {'bytes':>8} {'of limit':>8}"]
        for row in rows:
            lines.append(
                f"{row.name[:width]:{width}} {row.calls:6} {row.seconds * 1e6:9.1f} {row.seconds / total if total else 0.0:5.0%} "
                f"{with_unit(row.flops):>8} {with_unit(row.bytes):>8} {row.share(self.limits):8.0%}"
            )
        lines.append(
            f"{len(self.launches)} launches take {total * 1e6:.0f} µs; the block takes {self.seconds * 1e6:.0f} µs, with what this "
            f"profile adds"
        )
        lines.append(describe(self.limits))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    # -- pictures
    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace: JSON that https://ui.perfetto.dev and chrome://tracing open.

        Raises:
            ArgumentError: nothing was launched, or the file cannot be written.
        """
        self._check()
        events: list[dict[str, Any]] = [{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "gpunet"}}]

        def visit(slices: Iterable[_Slice]) -> None:
            for s in slices:
                event = {"name": s.name, "ph": "X", "pid": 1, "tid": 1, "ts": s.start * 1e6, "dur": s.seconds * 1e6}
                if (launch := s.launch) is not None:
                    event |= {"cat": "launch", "args": {"shapes": launch.shapes, "flops": launch.flops, "bytes": launch.bytes}}
                events.append(event)
                visit(s.children)

        visit(self._slices(merges=False))
        write_text(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), "profile.save_trace")

    def save_flame(self, path: str | os.PathLike[str]) -> None:
        """Write a flame picture as SVG: the width of a box is the time of its launches, with its callers below it.

        Launches of the same lines are added up.  A browser shows name, time and share of a box under the mouse.

        Raises:
            ArgumentError: nothing was launched, the name does not end in ".svg", or the file cannot be written.
        """
        self._check()
        check_svg(path, "profile.save_flame")
        write_text(path, _flame(self._slices(merges=True)), "profile.save_flame")

    def _slices(self, merges: bool) -> list[_Slice]:
        """The launches as a tree of calls; calls of one function in a row are one, and all of them if ``merges``."""
        root = _Slice("", 0.0, 0.0)
        for launch in self.launches:
            parent, end = root, launch.start + launch.seconds
            for depth, name in enumerate([*launch.stack, launch.name]):
                is_launch = depth == len(launch.stack)
                known = parent.children if merges else parent.children[-1:]
                same = [s for s in known if s.name == name and (merges or not is_launch) and (s.launch is None or merges)]
                if same:
                    [found] = same
                    found.seconds = found.seconds + launch.seconds if merges else end - found.start
                else:
                    found = _Slice(name, launch.start, launch.seconds, launch=launch if is_launch else None)
                    parent.children.append(found)
                parent = found
        return root.children


def profile() -> Profile:
    """Time the launches of a block, in this thread.

        with diagnose.profile() as profile:
            step(x, y)
        print(profile)                        # by kernel; profile.table("line") by line
        profile.save_trace("trace.json")      # for https://ui.perfetto.dev
        profile.save_flame("flame.svg")

    Run the step once before, so that kernels are compiled.  A captured step runs eagerly inside the block; ``step.explain()`` times
    the launches of its recording.  On a GPU each launch is timed by events on its stream, without a wait until the block has ended.

    Raises:
        GpunetError: (on entering) this thread already records its launches.
    """
    return Profile()


class _Timer(Observer):
    """A tape that times launches."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[ProfiledLaunch] = []
        self._events: list[tuple[Event, Event] | None] = []
        self._places: list[Any] = []  # where the user's innermost line launched each
        self._attributed = 0
        self.device = Device("cpu")
        self._start = time.perf_counter()

    def observe(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        flat = [a for array in arrays for a in (array if isinstance(array, list) else [array]) if devices.is_array(a)]
        if flat:
            self.device = devices.of(flat[0])
        events = None
        if self.device.type == "cuda":
            events = Event(enable_timing=True), Event(enable_timing=True)
            events[0].record()
        start = time.perf_counter()
        kernel.launch(arrays, options)
        end = time.perf_counter()
        if events is not None:
            events[1].record()
        flops, num_bytes = cost_of(kernel, arrays, options)
        shapes, (stack, place) = tuple(tuple(a.shape) for a in flat), _stack()
        self._events.append(events)
        self._places.append(place)
        self._found.append(ProfiledLaunch(kernel.name, stack, shapes, start - self._start, end - start, flops, num_bytes))

    def attribute(self, name: str) -> None:
        """Name the caller of the launches since the last call, as far as the user's call that runs now has made them."""
        _, here = _stack()
        for launch, place in zip(self._found[self._attributed :], self._places[self._attributed :]):
            if place == here:
                launch.stack = (*launch.stack, name)
        self._attributed = len(self._found)

    def finish(self) -> tuple[list[ProfiledLaunch], float]:
        """Wait for the launches; return them, and the seconds since the start."""
        if any(self._events):
            devices.synchronize(self.device)
        seconds = time.perf_counter() - self._start
        first = next((pair for pair in self._events if pair is not None), None)
        offset = next((launch.start for launch, pair in zip(self._found, self._events) if pair is not None), 0.0)
        for launch, pair in zip(self._found, self._events):
            if pair is not None and first is not None:  # on the clock of the GPU, from its first launch on
                launch.start = offset + first[0].elapsed_time(pair[0]) / 1e3
                launch.seconds = pair[0].elapsed_time(pair[1]) / 1e3
        return self._found, seconds


def _stack() -> tuple[tuple[str, ...], Any]:
    """The lines of the user on the stack, the outermost first, and the call in the innermost one."""
    frame: Any = sys._getframe(1)
    lines: list[str] = []
    place: Any = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not is_library(file) and not file.startswith("<frozen") and "site-packages" not in file:
            place = place or (frame.f_code, frame.f_lasti)
            lines.append(_line_at(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(reversed(lines)), place


_line_at = functools.lru_cache(4096)(line_at)


@functools.cache
def _limits(device: Device) -> Ceilings:
    if device.type != "cuda":
        return ceilings()
    with no_grad():
        a, b = (ones((_GPU_ROWS, _GPU_ROWS), dtype=float32, device=device) for _ in range(2))
        source = ones((_GPU_ELEMENTS,), dtype=float32, device=device)
        product = 2.0 * _GPU_ROWS**3 / _best(lambda: matmul(a, b), device)
        return Ceilings(product, 2.0 * 4 * _GPU_ELEMENTS / _best(source.clone, device))


def _best(function: Callable[[], object], device: Device) -> float:
    """The least seconds of a call on a GPU, after one that compiles."""
    function()
    found = []
    for _ in range(7):
        start, end = Event(enable_timing=True), Event(enable_timing=True)
        start.record()
        function()
        end.record()
        devices.synchronize(device)
        found.append(start.elapsed_time(end) / 1e3)
    return min(found)


# ---- flame picture --------------------------------------------------------------------------------------------------

_WIDTH, _ROW, _LETTER = 1200.0, 19, 6.6
_FILLS = ("#f4a261", "#e9c46a", "#f2b880", "#e8a87c", "#ffd29d", "#f6bd60")
_FILL_OF_LAUNCHES = "#8ecae6"


def _flame(slices: Sequence[_Slice]) -> str:
    total = sum(s.seconds for s in slices) or 1.0
    parts: list[str] = []

    def depth_of(slices: Sequence[_Slice]) -> int:
        return max((1 + depth_of(s.children) for s in slices), default=0)

    height = (depth_of(slices) + 1) * _ROW + 8

    def visit(slices: Sequence[_Slice], left: float, depth: int) -> None:
        for s in slices:
            width = s.seconds / total * _WIDTH
            y = height - (depth + 2) * _ROW
            fill = _FILL_OF_LAUNCHES if not s.children else _FILLS[sum(map(ord, s.name)) % len(_FILLS)]
            title = f"{s.name}: {s.seconds * 1e6:.1f} µs, {s.seconds / total:.1%}"
            parts.append(f'<g><title>{escape(title)}</title><rect x="{left:.2f}" y="{y}" width="{max(width, 0.1):.2f}" '
                         f'height="{_ROW - 1}" fill="{fill}"/>')  # fmt: skip
            if (letters := int((width - 6) / _LETTER)) >= 3:
                name = s.name if len(s.name) <= letters else s.name[: letters - 1] + "…"
                parts.append(f'<text x="{left + 3:.2f}" y="{y + 13}">{escape(name)}</text>')
            parts.append("</g>")
            visit(s.children, left, depth + 1)
            left += width

    visit(slices, 0.0, 0)
    label = f"{total * 1e6:.0f} µs in launches; blue boxes are launches, their callers stand below"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height}" font-family="ui-monospace, monospace" '
        'font-size="11">', f'<rect width="{_WIDTH:.0f}" height="{height}" fill="#ffffff"/>', *parts,
        f'<text x="3" y="{height - 6}" fill="#475569">{label}</text>', "</svg>",
    ])  # fmt: skip
