"""Samples of losses with a margin, composed of primitives."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.formulas import REDUCE
from tests.samples.inputs import ROWS, Input, distinct, labels, normal, probabilities, signs, values
from tests.samples.row import row

F = gpunet.nn.functional

_weight = numpy.array([0.5, 1.0, 2.0, 3.0])


def _rows(op: str, name: str, formula: Any, *inputs: Input, **options: Any) -> None:
    """A row per reduction; ``formula`` gives the unreduced loss."""
    for reduction in REDUCE:
        row(
            op, lambda *v, r=reduction: getattr(F, name)(*v, **_on(gpunet, v[0], options), reduction=r),
            lambda *v, r=reduction: REDUCE[r](formula(*v)), *inputs, name=f"{name} {reduction} {sorted(options)}",
            torch=lambda torch, *v, r=reduction: getattr(torch.nn.functional, name)(*v, **_on(torch, v[0], options), reduction=r),
        )  # fmt: skip


def _on(module: Any, like: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options with arrays as tensors of ``module`` like ``like``."""
    return {k: module.tensor(v.tolist()).to(like) if isinstance(v, numpy.ndarray) else v for k, v in options.items()}


def _multi_margin(x: Any, y: Any, p: int = 1, margin: float = 1.0, weight: Any = None) -> Any:
    rows = numpy.arange(len(y))
    hinge = numpy.maximum(margin - x[rows, y][:, None] + x, 0) ** p
    hinge[rows, y] = 0
    return hinge.mean(1) * (1 if weight is None else weight[y])


def _multilabel_margin(x: Any, y: Any) -> Any:
    result = numpy.zeros(len(x))
    for row_number, (scores, target) in enumerate(zip(x, y)):
        found = list(target[: list(target).index(-1)] if -1 in target else target)
        others = [i for i in range(len(scores)) if i not in found]
        result[row_number] = sum(max(1 - scores[j] + scores[i], 0) for j in found for i in others) / len(scores)
    return result


def _label_lists(generator: numpy.random.Generator, shape: tuple[int, ...]) -> numpy.ndarray:
    """Labels 0 .. 3 in each row, among them a repeated one, ended by -1 at different places."""
    drawn = generator.integers(0, 4, shape)
    return numpy.where(numpy.arange(shape[1]) == generator.integers(0, shape[1] + 1, (shape[0], 1)), -1, drawn)


_rows("activation", "multi_margin_loss", lambda *v: _multi_margin(*v, margin=0.8), distinct(ROWS, 4, offset=0.125), labels(4, ROWS),
      margin=0.8)  # fmt: skip
_rows("activation", "multi_margin_loss", lambda *v: _multi_margin(*v, 2, 0.8, _weight), distinct(ROWS, 4, offset=0.125),
      labels(4, ROWS), p=2, margin=0.8, weight=_weight)  # fmt: skip
_rows("activation", "multilabel_margin_loss", _multilabel_margin, normal(ROWS, 4), values(_label_lists, (ROWS, 4), gradient=False))
_rows("_clamp", "margin_ranking_loss", lambda a, b, y: numpy.maximum(0.1 - y * (a - b), 0), distinct(ROWS, 4),
      distinct(ROWS, 4, offset=0.125), signs(ROWS, 4), margin=0.1)  # fmt: skip
_bce = lambda x, y: numpy.log1p(numpy.exp(-abs(x))) + numpy.maximum(x, 0) - x * y  # noqa: E731
_rows("regression_loss", "multilabel_soft_margin_loss", lambda x, y: (_weight * _bce(x, y)).mean(-1), normal(ROWS, 4),
      probabilities(ROWS, 4), weight=_weight)  # fmt: skip
