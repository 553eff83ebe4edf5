"""Losses as modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError
from gpunet.launch.tape import warn_user
from gpunet.nn.layers import Linear
from gpunet.nn.module import Module
from gpunet.ops import distance, likelihood_losses, losses, margin_losses
from gpunet.ops.cross_entropy import cross_entropy
from gpunet.ops.ctc import ctc_loss
from gpunet.ops.face import as_number
from gpunet.ops.index import where
from gpunet.ops.linear_cross_entropy import linear_cross_entropy
from gpunet.ops.nll import nll_loss
from gpunet.ops.parts import broadcast_shapes

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss",
    "HuberLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss", "MSELoss", "MarginRankingLoss", "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "NLLLoss2d", "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss",
    "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


class _Loss(Module):
    """Base class of the losses.

    Args:
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".

    Attributes:
        name: by which ``gpunet train`` offers the loss; "" if it does not.
        task: "classification", "binary" (two classes, one output) or "regression".
        reductions: what ``reduction`` may be.
    """

    name = task = ""
    reductions: tuple[str, ...] = losses.REDUCTIONS

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = losses.reduction_of(type(self).__name__, size_average, reduce, reduction, self.reductions)

    def count(self, *args: Any) -> Tensor | int:
        """Return the number by which ``reduction="mean"`` divides the sum of the losses, given the arguments of a call.

        The mean over several batches is the sum of their means times their counts, divided by the sum of the counts.
        """
        return math.prod(broadcast_shapes(*(argument.shape for argument in args)))  # one loss for each element

    def total(self, *args: Any) -> tuple[Tensor, Tensor | int]:
        """Return the sum of the losses, whose gradients add up over batches, and :meth:`count`."""
        count = self.count(*args)
        return self(*args) * count, count


class _LabelLoss(_Loss):
    """A loss of class labels, which counts the weights of the labels that are not ignored."""

    weight: Tensor | None
    ignore_index: Any

    def count(self, input: Any, target: Any) -> Tensor | int:
        if is_floating(target.dtype):  # class probabilities
            return math.prod(target.shape) // (target.shape[1] if target.ndim > 1 else target.shape[0])
        is_counted = target != (-100 if self.ignore_index is None else self.ignore_index)
        if self.weight is None:
            return is_counted.sum()
        return where(is_counted, self.weight[where(is_counted, target, 0)], 0.0).sum()

    def total(self, input: Any, target: Any) -> tuple[Tensor, Tensor | int]:
        return self._reduce(input, target, "sum"), self.count(input, target)  # the mean of ignored labels alone is NaN

    def forward(self, input: Any, target: Any) -> Tensor:
        return self._reduce(input, target, self.reduction)

    def _reduce(self, input: Any, target: Any, reduction: str) -> Tensor:
        raise NotImplementedError


class _RowLoss(_Loss):
    """A loss of rows of scores."""

    def count(self, input: Any, *args: Any) -> int:
        return math.prod(input.shape[:-1])


class MSELoss(_Loss):
    """(input - target)^2, reduced over all elements (Mean Squared Error)."""

    name, task = "mse", "regression"

    def forward(self, input: Any, target: Any) -> Tensor:
        return losses.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|, reduced over all elements (Mean Absolute Error)."""

    name, task = "mae", "regression"

    def forward(self, input: Any, target: Any) -> Tensor:
        return losses.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """0.5 d^2 where |d| < delta, delta (|d| - 0.5 delta) elsewhere, with d = input - target (Huber 1964)."""

    name, task = "huber", "regression"

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Tensor:
        return losses.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(_Loss):
    """The Huber loss with delta = beta, divided by beta."""

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean", beta: float = 1.0
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Tensor:
        return losses.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class BCELoss(_Loss):
    """Binary cross-entropy of the probabilities ``input``; :class:`BCEWithLogitsLoss` of logits is more accurate."""

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return likelihood_losses.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of the logits ``input`` against the probabilities ``target``."""

    name, task = "bce", "binary"

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean", pos_weight: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return losses.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class CrossEntropyLoss(_LabelLoss):
    """Softmax cross-entropy of the logits ``input`` against class labels or class probabilities ``target``."""

    name, task = "cross_entropy", "classification"

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def _reduce(self, input: Any, target: Any, reduction: str) -> Tensor:
        return cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class LinearCrossEntropyLoss(_LabelLoss):
    """A linear layer and softmax cross-entropy of its outputs (see :func:`gpunet.nn.functional.linear_cross_entropy`).

    Args:
        in_features: of the input (n, in_features).
        num_classes: of the logits (n, num_classes, *out_features).
        out_features: further dimensions of the logits.
        bias: whether the layer has a bias.
        weight, reduction, ignore_index, label_smoothing, options: as of the function.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
        device: Any = None, dtype: Any = None, reduction: str = "mean", weight: Tensor | None = None,
        ignore_index: int | None = None, label_smoothing: float = 0.0, options: None = None,
    ) -> None:  # fmt: skip
        super().__init__(None, None, reduction)
        self.in_features, self.num_classes, self.out_features, self.bias = in_features, num_classes, tuple(out_features), bias
        rows = num_classes * math.prod(self.out_features)
        self.linear = Linear(in_features, rows, bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing, self.options = ignore_index, label_smoothing, options

    def extra_repr(self) -> str:
        names = ["in_features", "num_classes", "out_features", "bias", "reduction", "ignore_index", "label_smoothing", "options"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def _reduce(self, input: Any, target: Any, reduction: str) -> Tensor:
        shape, bias = (self.num_classes, *self.out_features), self.linear.bias
        return linear_cross_entropy(
            input, self.linear.weight.reshape(*shape, -1), target, linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight, reduction=reduction, ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing, options=self.options,
        )  # fmt: skip


class NLLLoss(_LabelLoss):
    """Negative log-likelihood of class labels, of log-probabilities ``input`` (see :func:`gpunet.nn.functional.nll_loss`)."""

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def _reduce(self, input: Any, target: Any, reduction: str) -> Tensor:
        return nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=reduction)


class NLLLoss2d(NLLLoss):
    """The old name of :class:`NLLLoss`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warn_user("NLLLoss2d is deprecated; use NLLLoss", FutureWarning)
        super().__init__(*args, **kwargs)


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of log-probabilities ``input`` from the probabilities ``target``.

    ``reduction="batchmean"`` is the divergence of distributions (see :func:`gpunet.nn.functional.kl_div`).
    """

    reductions = likelihood_losses.KL_REDUCTIONS

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean", log_target: bool = False
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        return likelihood_losses.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)

    def count(self, input: Any, target: Any) -> Tensor | int:
        return int(input.shape[0]) if self.reduction == "batchmean" else super().count(input, target)


class PoissonNLLLoss(_Loss):
    """Negative log-likelihood of counts ``target`` (see :func:`gpunet.nn.functional.poisson_nll_loss`)."""

    def __init__(
        self, log_input: bool = True, full: bool = False, size_average: bool | None = None, eps: float = 1e-8,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, log_input: Any, target: Any) -> Tensor:
        return likelihood_losses.poisson_nll_loss(
            log_input, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(_Loss):
    """Negative log-likelihood under normal distributions (see :func:`gpunet.nn.functional.gaussian_nll_loss`)."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Any, target: Any, var: Any) -> Tensor:
        return likelihood_losses.gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target input)) of scores and targets -1 and 1."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return margin_losses.soft_margin_loss(input, target, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """The distance ``input`` where the target is 1, max(margin - input, 0) where it is -1."""

    def __init__(
        self, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Any, target: Any) -> Tensor:
        return margin_losses.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """max(margin - target (input1 - input2), 0): ranks input1 above input2 where the target is 1, below where it is -1."""

    def __init__(
        self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:
        return margin_losses.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(_RowLoss):
    """Hinge loss of class labels (see :func:`gpunet.nn.functional.multi_margin_loss`)."""

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, size_average: bool | None = None,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        if p not in (1, 2):
            raise ArgumentError(f"MultiMarginLoss: p={p!r}; expected 1 or 2")
        self.p, self.margin = p, margin
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return margin_losses.multi_margin_loss(
            input, target, p=self.p, margin=self.margin, weight=self.weight, reduction=self.reduction
        )


class MultiLabelMarginLoss(_RowLoss):
    """Hinge loss of several labels per row (see :func:`gpunet.nn.functional.multilabel_margin_loss`)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return margin_losses.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_RowLoss):
    """Binary cross-entropy of the logits of each class, averaged over the classes."""

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return margin_losses.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)


class CosineEmbeddingLoss(_RowLoss):
    """1 - cos(input1, input2) where the target is 1, max(cos - margin, 0) where it is -1."""

    def __init__(
        self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:
        return distance.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class TripletMarginLoss(_RowLoss):
    """max(margin + d(anchor, positive) - d(anchor, negative), 0) (see :func:`gpunet.nn.functional.triplet_margin_loss`)."""

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.margin, self.p, self.eps, self.swap = _positive("TripletMarginLoss", margin), p, eps, swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        return distance.triplet_margin_loss(
            anchor, positive, negative, margin=self.margin, p=self.p, eps=self.eps, swap=self.swap, reduction=self.reduction
        )


class TripletMarginWithDistanceLoss(_RowLoss):
    """:class:`TripletMarginLoss` with a distance of the user, by default the pairwise distance."""

    def __init__(
        self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(reduction=reduction)
        self.margin, self.swap = _positive("TripletMarginWithDistanceLoss", margin), swap
        self.distance_function = distance_function or distance.pairwise_distance

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        return distance.triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function, margin=self.margin, swap=self.swap,
            reduction=self.reduction,
        )  # fmt: skip


def _positive(name: str, margin: float) -> float:
    if not as_number(name, "margin", margin) > 0.0:
        raise ArgumentError(f"{name}: margin={margin}; expected a positive number")
    return margin


class CTCLoss(_Loss):
    """Connectionist temporal classification (see :func:`gpunet.nn.functional.ctc_loss`)."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Tensor:
        return ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity)

    def count(self, log_probs: Any, *args: Any) -> int:
        return int(log_probs.shape[1]) if log_probs.ndim == 3 else 1  # sequences
