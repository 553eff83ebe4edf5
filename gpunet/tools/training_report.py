"""``gpunet train --report``: one HTML page about a run, with pictures by matplotlib, that needs nothing else.

Curves, the confusion matrix or predicted against true values, gradient flow, and the held-out examples with the largest errors.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy

import gpunet
from gpunet.backend.files import replacing
from gpunet.data import Split, Standardisation, TabularData
from gpunet.diagnose import GradientFlow
from gpunet.nn import Module
from gpunet.ops.creation import tensor
from gpunet.train.drawing import subplots
from gpunet.train.history import History
from gpunet.train.predict import probabilities

REPORT = "report.html"

NUM_EXAMPLES = 24
NUM_FEATURES = 12  # that a table of examples has
#: A confusion matrix with at most so many classes has numbers, and one with at most so many has names.
MAX_NUMBERED, MAX_NAMED = 15, 40

_BATCH = 8192  # rows at once

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px } td, th { border: 1px solid #ccc; padding: 2px 7px; text-align: right }
.scroll { overflow-x: auto }
"""


@dataclass(frozen=True)
class Run:
    """A run to report on.

    Attributes:
        options: that differ from their defaults.
        loss: the name of the loss.
        flow: what was recorded of the gradients.
    """

    name: str
    options: Mapping[str, Any]
    loss: str
    split: Split
    standardisation: Standardisation
    history: History
    flow: GradientFlow


def write_report(path: Path, run: Run, model: Module) -> None:
    """Write the page.

    Args:
        path: of the file, which is replaced when the page is complete.
        run: what it says.
        model: the network with the weights to use, in evaluation mode, on the CPU.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    page = render(run, model)
    with replacing(path) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")


def render(run: Run, model: Module) -> str:
    """The page as HTML."""
    data = run.split.test
    with gpunet.no_grad():
        inputs = run.standardisation.features(data.features)
        outputs = gpunet.cat([model(tensor(inputs[i : i + _BATCH])) for i in range(0, len(inputs), _BATCH)])
        scores = (probabilities(outputs, run.loss) if data.class_names else outputs[:, 0]).numpy().astype(float)
    sections = [("Curves", _image(run.history.plot()))] if len(run.history) else []
    sections += _of_classes(data, scores) if data.class_names else _of_numbers(data, scores, run.standardisation)
    sections.append(("Gradient flow", _flow(run.flow)))
    title = f"gpunet train: {run.name}"
    facts = {
        "rows": f"{len(run.split.train)} for training, {len(data)} held out", "features": data.features.shape[1],
        **run.options, **({f"best epoch: {name}": _shown(value) for name, value in (run.history.best or {}).items()}),
    }  # fmt: skip
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    body = "".join(f"<h2>{escape(name)}</h2>\n{content}\n" for name, content in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body>\n<h1>{escape(title)}</h1>\n{_table(['', ''], [[*row] for row in facts.items()])}\n<ul>{notes}</ul>\n{body}"
        f"<p>gpunet {gpunet.__version__}</p>\n</body></html>\n"
    )


# ---- sections -------------------------------------------------------------------------------------------------------


def _of_classes(data: TabularData, scores: numpy.ndarray) -> list[tuple[str, str]]:
    """The confusion matrix, and the wrong examples of which the network is most certain."""
    names, found = data.class_names, scores.argmax(1)
    counts = numpy.zeros((len(names), len(names)), int)
    numpy.add.at(counts, (data.targets, found), 1)
    wrong = numpy.flatnonzero(found != data.targets)
    wrong = wrong[numpy.argsort(-scores[wrong, found[wrong]], kind="stable")]
    accuracy = 1.0 - len(wrong) / len(found)
    labels = [f"{names[found[i]]} ({scores[i, found[i]]:.0%}), is {names[data.targets[i]]}" for i in wrong[:NUM_EXAMPLES]]
    examples = _examples(data, wrong[:NUM_EXAMPLES], labels) if len(wrong) else "<p>None: all held-out rows are right.</p>"
    return [
        (f"Confusion matrix of the held-out rows (accuracy {accuracy:.4f})", _confusion(counts, names)),
        (f"Wrong examples: {len(wrong)} of {len(found)} held-out rows, the most certain first", examples),
    ]


def _of_numbers(data: TabularData, scores: numpy.ndarray, standardisation: Standardisation) -> list[tuple[str, str]]:
    """Predicted against true values, and the examples with the largest errors."""
    found = scores * standardisation.target_scale + standardisation.target_mean
    figure, (place,) = subplots(1)
    place.scatter(data.targets, found, s=12, alpha=0.6)
    both = numpy.concatenate([data.targets, found[numpy.isfinite(found)]])
    place.plot([both.min(), both.max()], [both.min(), both.max()], color="gray", linewidth=1)
    place.set_xlabel("true")
    place.set_ylabel("predicted")
    place.grid(alpha=0.3)
    error = numpy.where(numpy.isfinite(found), abs(found - data.targets), math.inf)
    worst = numpy.argsort(-error, kind="stable")[:NUM_EXAMPLES]
    labels = [f"{found[i]:.5g}, is {data.targets[i]:.5g}" for i in worst]
    return [
        (f"Predicted against true values of the held-out rows (mean absolute error {error.mean():.5g})", _image(figure)),
        ("The largest errors", _examples(data, worst, labels)),
    ]


def _flow(flow: GradientFlow) -> str:
    if not flow.steps:
        return "<p>No step was recorded: this process has trained none.</p>"
    return f"{_image(flow.plot())}<p>{escape(str(flow.verdict()))}</p>"


def _confusion(counts: numpy.ndarray, names: Sequence[str]) -> str:
    figure, (place,) = subplots(1)
    size = min(4.0 + 0.3 * len(names), 16.0)
    figure.set_size_inches(size, size)
    shares = counts / numpy.maximum(counts.sum(1, keepdims=True), 1)
    place.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    place.set_xlabel("predicted")
    place.set_ylabel("true")
    ticks = range(len(names)) if len(names) <= MAX_NAMED else []
    shown = [_plain(name) for name in names] if len(names) <= MAX_NAMED else []
    place.set_xticks(ticks, shown, rotation=90)
    place.set_yticks(ticks, shown)
    if len(names) <= MAX_NUMBERED:
        for (row, column), count in numpy.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            place.text(column, row, str(count), ha="center", va="center", color=color, fontsize="small")
    return _image(figure)


def _examples(data: TabularData, rows: numpy.ndarray, labels: Sequence[str]) -> str:
    """Examples with what is predicted for each: as pictures if they are images, else as rows."""
    if _is_image(data.shape):
        columns = min(6, len(rows))
        figure, _ = subplots(1)
        figure.clear()
        places = numpy.ravel(figure.subplots(math.ceil(len(rows) / columns), columns, squeeze=False))
        figure.set_size_inches(2.0 * columns, 2.2 * math.ceil(len(rows) / columns))
        for place in places:
            place.axis("off")
        for place, row, label in zip(places, rows, labels):
            pixels = data.features[row].reshape(data.shape)
            low, high = float(pixels.min()), float(pixels.max())
            place.imshow((pixels - low) / max(high - low, 1e-12), cmap="gray")
            place.set_title(_plain(label), fontsize=7)
        return _image(figure)
    names = data.feature_names[:NUM_FEATURES]
    more = len(data.feature_names) - len(names)
    note = f"<p>The first {len(names)} of {len(data.feature_names)} features.</p>" if more else ""
    cells = [[label, *data.features[row, : len(names)].tolist()] for row, label in zip(rows, labels)]
    return note + _table(["predicted", *names], cells)


def _is_image(shape: tuple[int, ...]) -> bool:
    """Whether rows were images (height, width) or (height, width, 3 or 4)."""
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (3, 4))


# ---- HTML -----------------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head) if any(head) else ""
    cells = "".join("<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table>{f"<tr>{top}</tr>" if top else ""}{cells}</table></div>'


def _plain(text: str) -> str:
    """A text without the formulas of matplotlib, of many characters the first ones."""
    return (text if len(text) <= 40 else text[:39] + "…").replace("$", r"\$")


def _image(figure: Any) -> str:
    """A figure of matplotlib as an element with the picture in it."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of characters that the font lacks
        figure.savefig(content, format="png", dpi=100)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'
