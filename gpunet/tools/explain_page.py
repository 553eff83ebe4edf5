"""``gpunet explain --html``: one page that shows backpropagation of a small net step by step, and computes it again at each change.

The page contains everything it needs.  Its JavaScript computes all numbers, and compares them with those of the engine, which are
embedded, when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gpunet
from gpunet.backend.devices import default_device
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS, Layer, Matrix, batch_by_engine, by_engine

#: JavaScript, styles and the place of the data.
TEMPLATE = Path(__file__).with_suffix(".html")
_PLACE = "DATA_OF_THE_PAGE"


class Part(NamedTuple):
    """A net with its samples."""

    title: str
    net: Sequence[Layer]
    inputs: Matrix
    targets: Matrix


def render_page(parts: Sequence[Part], lr: float, digits: int) -> str:
    """The page as HTML.

    Args:
        parts: the nets to choose from.
        lr: the learning rate η.
        digits: digits after the decimal point, of the numbers beside the drawing.
    """
    data = {
        "engine": f"gpunet {gpunet.__version__}, float64 on {default_device()}",
        "nets": [_data(part, lr, digits) for part in parts],
    }
    # a title could end the script element, and U+2028 a line of JavaScript
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text)


def _data(part: Part, lr: float, digits: int) -> dict[str, Any]:
    traces = [by_engine(part.net, x, y) for x, y in zip(part.inputs, part.targets)]
    batch = batch_by_engine(part.net, part.inputs, part.targets, lr)
    names = {layer.activation for layer in part.net}
    return {
        "title": part.title, "lr": lr, "digits": digits, "inputs": part.inputs, "targets": part.targets,
        "layers": [layer._asdict() for layer in part.net],
        "symbols": {
            name: {"symbol": row.symbol, "slope": row.slope_formula, "meaning": row.meaning}
            for name, row in TEXTBOOK_ACTIVATIONS.items() if name in names
        },
        "engine": {
            "traces": [
                {"a": t.a, "z": t.z, "slope": t.slope, "cost": t.cost, "byA": t.cost_by_a, "byZ": t.cost_by_z, "byW": t.cost_by_w}
                for t in traces
            ],
            "cost": batch.cost, "byW": batch.cost_by_w, "byB": batch.cost_by_b,
            "w": [layer.w for layer in batch.after], "b": [layer.b for layer in batch.after],
        },
    }  # fmt: skip
