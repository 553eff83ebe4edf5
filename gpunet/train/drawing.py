"""Figures of matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from typing import Any

from gpunet.errors import MissingDependencyError

__all__ = ["subplots"]


def subplots(count: int) -> tuple[Any, list[Any]]:
    """A figure with a row of diagrams, without a window and without global state.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise MissingDependencyError(
            "drawing curves needs matplotlib, which is not installed: pip install 'gpunet[train]'"
        ) from None
    figure = Figure(figsize=(4.5 * count, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for place in axes:
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes
