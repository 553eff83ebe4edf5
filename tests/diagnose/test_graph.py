"""diagnose.graph: each op and leaf once, edges downwards, no overlaps."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import gpunet
from gpunet import diagnose, nn
from gpunet.errors import ArgumentError, GradientError
from gpunet.nn import functional as F
from gpunet.vision.models import LeNet, resnet18

SPACE = "{http://www.w3.org/2000/svg}"


def boxes_of(svg: str) -> list[tuple[str, list[str], tuple[float, ...]]]:
    """(kind, lines, (x, y, width, height)) of each box."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SPACE}g"):
        [rect] = group.iter(f"{SPACE}rect")
        lines = [text.text or "" for text in group.iter(f"{SPACE}text")]
        found.append((group.get("class", ""), lines, tuple(float(rect.get(n, "")) for n in ("x", "y", "width", "height"))))
    return found


def edges_of(svg: str) -> list[tuple[float, ...]]:
    """(x, y) of the start and of the end of each edge."""
    numbers = [re.findall(r"-?[\d.]+", path.get("d", "")) for path in ElementTree.fromstring(svg).iter(f"{SPACE}path")
               if path.get("class") == "edge"]  # fmt: skip
    return [tuple(map(float, [*n[:2], *n[-2:]])) for n in numbers]


def check(svg: str) -> None:
    """No two boxes overlap, nothing leaves the page, and each edge goes down from a box to a box."""
    boxes = [box for _, _, box in boxes_of(svg)]
    rows: dict[float, list[Any]] = {}
    for box in boxes:
        rows.setdefault(box[1] + box[3] / 2, []).append(box)
    for row in rows.values():
        for (x1, _, width, _), (x2, *_) in itertools.pairwise(sorted(row)):
            assert x1 + width < x2
    _, _, right, bottom = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())
    assert all(x >= 0 and y >= 0 and x + w <= right and y + h <= bottom for x, y, w, h in boxes)
    lower = {(round(x + w / 2), round(y + h)) for x, y, w, h in boxes}
    upper = {(round(x + w / 2), round(y)) for x, y, w, h in boxes}

    def is_near(x: float, y: float, places: set[tuple[int, int]]) -> bool:
        return any((round(x) + i, round(y) + j) in places for i in (-1, 0, 1) for j in (-1, 0, 1))

    for x1, y1, x2, y2 in edges_of(svg):
        assert y1 < y2 and is_near(x1, y1, lower) and is_near(x2, y2, upper)


def test_a_loss_with_a_reused_tensor() -> None:
    w, b = gpunet.ones(3, requires_grad=True), gpunet.zeros(3, requires_grad=True)
    h = (w * 2.0 + b).tanh()
    drawing = diagnose.graph((h * h).sum())
    assert (drawing.num_ops, drawing.num_leaves) == (5, 2) and repr(drawing) == "<GraphDrawing: 5 ops, 2 leaves>"
    boxes = boxes_of(drawing.svg)
    assert sorted(lines[0] for _, lines, _ in boxes) == ["add", "leaf", "leaf", "mul", "mul", "sum", "tanh"]
    assert [(kind, lines) for kind, lines, _ in boxes if kind == "output"] == [("output", ["sum", "scalar"])]
    assert len(edges_of(drawing.svg)) == 7  # h reaches its product twice
    check(drawing.svg)
    assert drawing._repr_svg_() == drawing.svg


def test_names_of_parameters_and_activations() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    svg = diagnose.graph(F.cross_entropy(model(gpunet.randn(5, 4)), gpunet.tensor([0, 1, 0, 1, 0])), model).svg
    lines = [lines for _, lines, _ in boxes_of(svg)]
    assert {line[0] for line in lines} >= {"0.weight", "0.bias", "2.weight", "2.bias", "cross_entropy", "linear + relu"}
    assert ["0.weight", "3 × 4"] in lines
    check(svg)


@pytest.mark.parametrize("make", [LeNet, resnet18, lambda: nn.TransformerEncoderLayer(16, 2, 32)])
def test_networks(make: Any) -> None:
    model = make()
    shape = {"LeNet": (2, 1, 28, 28), "ResNet": (2, 3, 32, 32)}.get(type(model).__name__, (3, 2, 16))
    drawing = diagnose.graph(model(gpunet.randn(*shape)).sum(), model)
    assert drawing.num_leaves == len([*model.parameters()])
    check(drawing.svg)


def test_files_and_errors(tmp_path: Path) -> None:
    w = gpunet.ones(2, requires_grad=True)
    loss = (w * w).sum()
    diagnose.graph(loss).save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8").startswith("<svg ")
    with pytest.raises(ArgumentError, match=r"graph.png'; expected a file name that ends in \.svg"):
        diagnose.graph(loss).save("graph.png")
    with pytest.raises(ArgumentError, match="cannot write"):
        diagnose.graph(loss).save(tmp_path / "none" / "graph.svg")
    loss.backward()
    with pytest.raises(GradientError, match="backward has released it"):
        diagnose.graph(loss)
    with pytest.raises(GradientError, match="the tensor has no graph"):
        diagnose.graph(w)
    with pytest.raises(ArgumentError, match="got a float; expected a tensor"):
        diagnose.graph(3.0)  # type: ignore[arg-type]
    x = w
    for _ in range(3001):
        x = x * 1.0
    with pytest.raises(ArgumentError, match="more than 3000 ops"):
        diagnose.graph(x.sum())
