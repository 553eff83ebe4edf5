"""``diagnose.graph``: a drawing of the graph that backward goes through, as SVG."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.autograd.graph import Node
from gpunet.diagnose.arguments import check_svg, write_text
from gpunet.errors import ArgumentError, GradientError

__all__ = ["GraphDrawing", "graph"]

#: Larger drawings cannot be read, and browsers are slow to show them.
MAX_NODES = 3000
_LINE, _CHARACTER, _GAP, _RANK_GAP, _MARGIN = 15, 7.2, 18, 34, 16
_SWEEPS = 8  # of ordering and of placing; further ones change little
_LEAF_WEIGHT = 0.02  # leaves stand beside the column that they feed, and do not pull it aside
_COLORS = {"op": "#eef2f7", "leaf": "#d7e9fb", "output": "#fde3cf"}


@dataclass(eq=False)
class _Box:
    """A node of the drawing, or a bend of an edge that passes several ranks."""

    kind: str  # "op", "leaf", "output", or "" for a bend
    lines: list[str]
    inputs: list[_Box] = field(default_factory=list)
    outputs: list[_Box] = field(default_factory=list)
    rank: int = 0
    x: float = 0.0  # of the center
    y: float = 0.0  # of the upper edge

    @property
    def width(self) -> float:
        return max(map(len, self.lines)) * _CHARACTER + 16 if self.kind else 2.0

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 8.0 if self.kind else 0.0


class GraphDrawing:
    """A drawing of a graph: ``svg`` is its text; a notebook shows it.

    Attributes:
        svg: the drawing.
        num_ops, num_leaves: what it shows.
    """

    def __init__(self, svg: str, num_ops: int, num_leaves: int) -> None:
        self.svg, self.num_ops, self.num_leaves = svg, num_ops, num_leaves

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing to a file with the extension ".svg".

        Raises:
            ArgumentError: another extension, or a file that cannot be written.
        """
        check_svg(path, "graph.save")
        write_text(path, self.svg, "graph.save")

    def __repr__(self) -> str:
        return f"<GraphDrawing: {self.num_ops} ops, {self.num_leaves} leaves>"


def graph(output: Tensor, model: nn.Module | None = None) -> GraphDrawing:
    """Draw the graph of a tensor: its ops with the shapes of their results, and the leaves that require grad.

        diagnose.graph(criterion(model(x), y), model).save("graph.svg")

    Values flow downwards, from the leaves to the tensor; backward goes upwards along the same edges.  Boxes are in layers, ordered
    by the barycenters of their neighbours (Sugiyama, Tagawa and Toda, 1981).

    Args:
        output: the tensor, such as a loss.
        model: gives the leaves the names of its parameters.

    Raises:
        GradientError: the tensor has no graph, or backward has released it.
        ArgumentError: the graph has more than 3000 ops and leaves.
    """
    if not isinstance(output, Tensor):
        raise ArgumentError(f"graph: got a {type(output).__name__}; expected a tensor, such as a loss")
    if output._node is None:
        raise GradientError("graph: the tensor has no graph: it was not computed from a tensor that requires grad, or in no_grad()")
    names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    boxes = _boxes(output._node, names)
    ranks = _ranks(boxes)
    _order(ranks)
    width, height = _place(ranks)
    num_leaves = sum(box.kind == "leaf" for box in boxes)
    return GraphDrawing(_svg(ranks, width, height), len(boxes) - num_leaves, num_leaves)


def _boxes(root: Node, names: dict[int, str]) -> list[_Box]:
    """The boxes of the graph, each behind its inputs."""
    boxes: dict[Any, _Box] = {}
    order: list[_Box] = []
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        target, is_complete = stack.pop()
        if is_complete:
            boxes[target].inputs = [boxes[edge[0]] for edge in target.edges if edge is not None]
            order.append(boxes[target])
            continue
        if target in boxes:
            continue
        if len(boxes) == MAX_NODES:
            raise ArgumentError(f"graph: it has more than {MAX_NODES} ops and leaves; draw a part, such as the output of a block")
        if not isinstance(target, Node):
            name = names.get(id(target), type(target).__name__ if isinstance(target, nn.Parameter) else "leaf")
            boxes[target] = _Box("leaf", [name, _shape(target.array.shape)])
            order.append(boxes[target])
            continue
        if target.saved is None:
            raise GradientError("graph: backward has released it; draw it before, or call backward(retain_graph=True)")
        name = " + ".join([target.public_name, *_activations(target.options)])
        shapes = [_shape(shape) for shape, _ in target.outputs]
        boxes[target] = _Box("output" if target is root else "op", [name, *shapes[:3]])
        stack.append((target, True))
        stack += [(edge[0], False) for edge in reversed(target.edges) if edge is not None]
    return order


def _activations(options: dict[str, Any]) -> list[str]:
    """The activations that an op runs behind its own function."""
    found = [options.get("activation"), *(name for name, _ in options.get("activations", ()))]
    return [name for name in found if isinstance(name, str) and name != "identity"]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _ranks(boxes: list[_Box]) -> list[list[_Box]]:
    """Boxes by rank, inputs above outputs, with bends in the ranks that an edge passes."""
    for box in boxes:
        box.rank = max((source.rank + 1 for source in box.inputs), default=0)
    first_use: dict[_Box, int] = {}
    for box in boxes:
        for source in box.inputs:
            first_use[source] = min(first_use.get(source, box.rank), box.rank)
    for box in boxes:
        if box.kind == "leaf":
            box.rank = first_use[box] - 1
    ranks: list[list[_Box]] = [[] for _ in range(max(box.rank for box in boxes) + 1)]
    for box in boxes:
        ranks[box.rank].append(box)
    for box in boxes:
        for at, source in enumerate(box.inputs):
            for rank in range(source.rank + 1, box.rank):
                bend = _Box("", [""], [source], rank=rank)
                source.outputs.append(bend)
                ranks[rank].append(bend)
                source = bend
            box.inputs[at] = source
            source.outputs.append(box)
    return ranks


def _order(ranks: list[list[_Box]]) -> None:
    """Order each rank by the barycenters of its neighbours, downwards and upwards in turn."""
    for sweep in range(_SWEEPS):
        position = {box: at for rank in ranks for at, box in enumerate(rank)}
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            neighbours = {box: box.inputs if sweep % 2 == 0 else box.outputs for box in rank}
            center = {
                box: sum(position[other] for other in others) / len(others) if others else position[box]
                for box, others in neighbours.items()
            }
            rank.sort(key=lambda box: center[box])
            position.update((box, at) for at, box in enumerate(rank))


def _place(ranks: list[list[_Box]]) -> tuple[float, float]:
    """Give each box its place; return width and height of the drawing."""
    y = float(_MARGIN)
    for rank in ranks:
        x, height = 0.0, max(box.height for box in rank)
        for box in rank:
            box.x = x + box.width / 2
            box.y = y + (height - box.height) / 2
            x += box.width + _GAP
        y += height + _RANK_GAP
    for sweep in range(_SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            wanted = []
            for box in rank:
                others = box.inputs if sweep % 2 == 0 else box.outputs
                others = [other for other in others if other.kind != "leaf"] or others
                wanted.append(sum(other.x for other in others) / len(others) if others else box.x)
            _spread(rank, wanted)
    left = min(box.x - box.width / 2 for rank in ranks for box in rank) - _MARGIN
    for rank in ranks:
        for box in rank:
            box.x -= left
    return max(box.x + box.width / 2 for rank in ranks for box in rank) + _MARGIN, y - _RANK_GAP + _MARGIN


def _spread(rank: list[_Box], wanted: list[float]) -> None:
    """Place the boxes of a rank, in order and without overlaps, as near to the wanted places as possible (least squares).

    Without the widths between them the places are a monotone sequence: pool adjacent violators.
    """
    offsets, offset = [], 0.0
    for at, box in enumerate(rank):
        offset += (rank[at - 1].width + box.width) / 2 + _GAP if at else 0.0
        offsets.append(offset)
    groups: list[list[float]] = []  # [weighted sum, weight, count]
    for box, want, offset in zip(rank, wanted, offsets):
        weight = _LEAF_WEIGHT if box.kind == "leaf" else 1.0
        groups.append([weight * (want - offset), weight, 1.0])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            last = groups.pop()
            groups[-1] = [a + b for a, b in zip(groups[-1], last)]
    places = [total / weight for total, weight, count in groups for _ in range(int(count))]
    for box, start, offset in zip(rank, places, offsets):
        box.x = start + offset


def _svg(ranks: list[list[_Box]], width: float, height: float) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        'font-family="ui-monospace, monospace" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    boxes = [box for rank in ranks for box in rank]
    parts += [_edge(box, source) for box in boxes if box.kind for source in box.inputs]
    for box in boxes:
        if not box.kind:
            continue
        radius = 8 if box.kind == "leaf" else 3
        parts.append(
            f'<g class="{box.kind}"><rect x="{box.x - box.width / 2:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
            f'height="{box.height:.1f}" rx="{radius}" fill="{_COLORS[box.kind]}" stroke="#64748b"/>'
        )
        for at, line in enumerate(box.lines):
            color = "#0f172a" if at == 0 else "#475569"
            y = box.y + _LINE * (at + 1)
            parts.append(f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{color}">{escape(line)}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"])


def _edge(box: _Box, source: _Box) -> str:
    """The curve from an input through its bends to a box."""
    path = [source]
    while not path[0].kind:
        path.insert(0, path[0].inputs[0])
    points = [(path[0].x, path[0].y + path[0].height), *((bend.x, bend.y) for bend in path[1:]), (box.x, box.y)]
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        middle = (y1 + y2) / 2
        text += f" C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    return f'<path class="edge" d="{text}" fill="none" stroke="#64748b" marker-end="url(#arrow)"/>'
