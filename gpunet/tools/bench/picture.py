"""Plots of a run: one panel per case, one bar per contestant, the roofline as a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gpunet.backend.files import replacing
from gpunet.errors import MissingDependencyError
from gpunet.tools.bench.measure import Measurement
from gpunet.tools.bench.report import TITLES, machine_line, microseconds, preferred

_OURS, _THEIRS, _LINE = "#2a7f3f", "#9aa5b1", "#c0392b"
_CYCLE = ("#1f77b4", "#ff7f0e", "#7f7f7f", "#9467bd", "#8c564b", "#17becf")  # green is reserved for gpunet


def _new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("plots need matplotlib: pip install 'gpunet[bench]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")  # without pyplot: no window, no global state
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with replacing(path, is_durable=False) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def draw(
    path: Path, header: dict[str, Any], measurements: list[Measurement], floors: dict[tuple[str, str], float]
) -> None:
    """Plot the step times of the preferred kind: one panel per case, with quartiles and the roofline.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    kind = preferred(measurements)
    chosen = [m for m in measurements if m.kind == kind and m.timed]
    columns = min(3, max(1, len(chosen)))
    rows = max(1, math.ceil(len(chosen) / columns))
    most = max((len(m.best()) for m in chosen), default=1)
    figure = _new_figure(5.0 * columns, (0.9 + 0.28 * most) * rows + 0.8)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    for axes, m in zip(panels, chosen):
        found = sorted(m.best().values(), key=lambda e: -e.median)
        medians = [e.median * 1e6 for e in found]
        errors = [
            [(e.median - e.quartiles[0]) * 1e6 for e in found],
            [(e.quartiles[1] - e.median) * 1e6 for e in found],
        ]
        colours = [_OURS if e.peer == "gpunet" else _THEIRS for e in found]
        axes.barh([e.name for e in found], medians, xerr=errors, color=colours, ecolor="#444444", height=0.7)
        for index, entry in enumerate(found):
            axes.text(entry.quartiles[1] * 1e6, index, f"  {microseconds(entry.median)}", va="center", fontsize=8)
        if (m.case.name, kind) in floors:
            limit = floors[m.case.name, kind] * 1e6
            axes.axvline(limit, color=_LINE, linewidth=1, linestyle="--")
            axes.set_xlabel(f"µs; dashed: roofline, {microseconds(limit / 1e6)}", fontsize=8)
        axes.set_xlim(0, 1.25 * max(e.quartiles[1] for e in found) * 1e6)
        axes.set_title(str(m.case), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{TITLES[kind]}: median and quartiles\n{machine_line(header)}", fontsize=9)
    _save(figure, path)


def draw_scaling(
    path: Path, header: dict[str, Any], series: dict[str, dict[str, list[tuple[int, float, float]]]]
) -> None:
    """Plot step time over batch size and over depth, on logarithmic axes.

    Args:
        series: axis and kind -> contestant -> (size, seconds, seconds of the fitted line).

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = _new_figure(5.5 * len(series), 4.2)
    for axes, (label, contestants) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items()):
        axes.set_prop_cycle(color=_CYCLE)
        for name, points in contestants.items():
            sizes, seconds, fitted = zip(*points)
            colour = _OURS if name == "gpunet eager" else None
            [line] = axes.plot(sizes, [1e6 * s for s in seconds], "o", markersize=4, label=name, color=colour)
            axes.plot(sizes, [1e6 * s for s in fitted], "-", linewidth=1, color=line.get_color(), alpha=0.6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("µs; lines: a + b · n")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(machine_line(header), fontsize=8)
    _save(figure, path)
