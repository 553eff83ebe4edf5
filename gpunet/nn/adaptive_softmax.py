"""The adaptive softmax of many classes of unequal frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, OutOfRangeError, ShapeError
from gpunet.nn.containers import ModuleList, Sequential
from gpunet.nn.layers import Linear
from gpunet.nn.module import Module
from gpunet.ops.creation import zeros
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer
from gpunet.ops.index import gather, index_select
from gpunet.ops.join import cat
from gpunet.ops.scatter import index_add
from gpunet.ops.softmax import log_softmax

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class AdaptiveOutput(NamedTuple):
    """What :class:`AdaptiveLogSoftmaxWithLoss` returns: the log-probability of each target, and minus their mean."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of classes that are sorted by frequency, the frequent ones in the head, the others in clusters.

    A cluster is one output of the head, and its classes are computed from fewer features, for the rows of its targets only.
    Source: Grave et al., "Efficient softmax approximation for GPUs" (2017).

    Args:
        in_features: size of the rows.
        n_classes: number of classes.
        cutoffs: ascending numbers of classes, at which the clusters begin.
        div_value: cluster i has in_features / div_value^(i + 1) features.
        head_bias: whether the head has a bias.
        device, dtype: as of :class:`Linear`.

    Raises:
        ArgumentError: the cutoffs are not ascending integers from 1 to n_classes - 1.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0, head_bias: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        ends = [as_integer("AdaptiveLogSoftmaxWithLoss", "cutoffs", c) for c in cutoffs]
        if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] > n_classes - 1:
            raise ArgumentError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs={cutoffs} of {n_classes} classes; expected ascending integers from 1 to "
                f"n_classes - 1"
            )
        self.in_features, self.n_classes, self.div_value, self.head_bias = in_features, n_classes, div_value, head_bias
        self.cutoffs = [*ends, n_classes]
        self.shortlist_size, self.n_clusters = ends[0], len(ends)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            features = int(in_features // div_value ** (i + 1))
            first = Linear(in_features, features, False, device, dtype)
            self.tail.append(Sequential(first, Linear(features, high - low, False, device, dtype)))

    def reset_parameters(self) -> None:
        """Initialize the parameters again with random values."""
        self.head.reset_parameters()
        for cluster in self.tail:
            for layer in cluster.children():
                layer.reset_parameters()

    def forward(self, input_: Any, target_: Any) -> AdaptiveOutput:
        """The log-probability of each target, and the loss.

        Args:
            input_: (n, in_features) or (in_features,).
            target_: (n,) or (), integers.

        Raises:
            ShapeError: the shapes do not fit.
            OutOfRangeError: a target is no class.
        """
        x, labels = wrap(input_), wrap(target_)
        if x.ndim not in (1, 2) or tuple(labels.shape) != tuple(x.shape[:-1]):
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: input {tuple(x.shape)}, target {tuple(labels.shape)}; expected (n, features), (n,)"
            )
        if x.ndim == 1:
            output, loss = self(x.unsqueeze(0), labels.unsqueeze(0))
            return AdaptiveOutput(output.squeeze(0), loss)
        least, most = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
        if least < 0 or most >= self.n_classes:
            raise OutOfRangeError(
                f"AdaptiveLogSoftmaxWithLoss: targets from {least} to {most}; expected 0 to {self.n_classes - 1}"
            )
        head = log_softmax(self.head(x), 1)
        column = labels
        for i, low in enumerate(self.cutoffs[:-1]):
            column = where(labels >= low, self.shortlist_size + i, column)
        output = gather(head, 1, column.unsqueeze(1)).squeeze(1)
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            rows = ((labels >= low) & (labels < high)).nonzero().squeeze(1)
            if rows.numel():
                inner = log_softmax(self.tail[i](index_select(x, 0, rows)), 1)
                chosen = gather(inner, 1, (index_select(labels, 0, rows) - low).unsqueeze(1)).squeeze(1)
                output = output + index_add(zeros(len(labels), dtype=output.dtype, device=output.device), 0, rows, chosen)
        return AdaptiveOutput(output, -output.mean())

    def log_prob(self, input: Any) -> Tensor:
        """The log-probabilities of all classes, (n, n_classes)."""
        x = wrap(input)
        head = log_softmax(self.head(x), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, layer in enumerate(self.tail):
            parts.append(log_softmax(layer(x), 1) + head[:, self.shortlist_size + i].unsqueeze(1))
        return cat(parts, 1)

    def predict(self, input: Any) -> Tensor:
        """The most probable class of each row."""
        return self.log_prob(input).argmax(1)
