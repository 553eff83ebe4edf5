"""Losses that PyTorch has at its top level, too: with a number for ``reduction``, 0 "none", 1 "mean", 2 "sum".

PyTorch's documentation says that the default is the mean; its functions do not reduce by default, and neither do these.
"""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.ops import ctc, distance, likelihood_losses, losses, margin_losses
from gpunet.ops.face import public
from gpunet.ops.native import word

__all__ = [
    "binary_cross_entropy_with_logits", "cosine_embedding_loss", "ctc_loss", "hinge_embedding_loss", "kl_div",
    "margin_ranking_loss", "poisson_nll_loss", "triplet_margin_loss",
]  # fmt: skip


def _word(function: str, reduction: Any) -> str:
    return word(function, "reduction", reduction, ("none", "mean", "sum"))


@public(out=False)
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 0
) -> Tensor:
    """:func:`nn.functional.binary_cross_entropy_with_logits` of a tensor of logits."""
    name = "binary_cross_entropy_with_logits"
    return losses.binary_cross_entropy_with_logits(
        input, target, weight, reduction=_word(name, reduction), pos_weight=pos_weight
    )


def cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: int = 0) -> Tensor:
    """:func:`nn.functional.cosine_embedding_loss`."""
    return distance.cosine_embedding_loss(input1, input2, target, margin, reduction=_word("cosine_embedding_loss", reduction))


def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: int = 0,
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """:func:`nn.functional.ctc_loss`."""
    return ctc.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _word("ctc_loss", reduction), zero_infinity)


@public(out=False)
def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: int = 0) -> Tensor:
    """:func:`nn.functional.hinge_embedding_loss`."""
    return margin_losses.hinge_embedding_loss(input, target, margin, reduction=_word("hinge_embedding_loss", reduction))


@public(out=False)
def kl_div(input: Any, target: Any, reduction: int = 0, *, log_target: bool = False) -> Tensor:
    """:func:`nn.functional.kl_div`; its mean is that of all elements."""
    return likelihood_losses.divergence(input, target, _word("kl_div", reduction), log_target)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: int = 0) -> Tensor:
    """:func:`nn.functional.margin_ranking_loss`."""
    return margin_losses.margin_ranking_loss(input1, input2, target, margin, reduction=_word("margin_ranking_loss", reduction))


@public(out=False)
def poisson_nll_loss(input: Any, target: Any, log_input: bool, full: bool, eps: float, reduction: int) -> Tensor:
    """:func:`nn.functional.poisson_nll_loss`."""
    kind = _word("poisson_nll_loss", reduction)
    return likelihood_losses.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=kind)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
    reduction: int = 0,
) -> Tensor:  # fmt: skip
    """:func:`nn.functional.triplet_margin_loss`."""
    kind = _word("triplet_margin_loss", reduction)
    return distance.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=kind)
