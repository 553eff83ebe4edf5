"""What the mean of a loss divides by: the counts of its batches add up."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn

RANDOM = numpy.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return gpunet.tensor(RANDOM.standard_normal(shape))


def probabilities(*shape: int) -> Any:
    return gpunet.tensor(RANDOM.uniform(0.1, 0.9, shape))


def labels(high: int, *shape: int) -> Any:
    return gpunet.tensor(RANDOM.integers(0, high, shape))


def signs(*shape: int) -> Any:
    return gpunet.tensor(RANDOM.choice([-1.0, 1.0], shape))


WEIGHTS = probabilities(4)
CASES = {
    "MSELoss": (nn.MSELoss, lambda n: (numbers(n, 3), numbers(n, 3))),
    "L1Loss": (nn.L1Loss, lambda n: (numbers(n, 3), numbers(n, 3))),
    "HuberLoss": (nn.HuberLoss, lambda n: (numbers(n), numbers(n))),
    "SmoothL1Loss": (nn.SmoothL1Loss, lambda n: (numbers(n, 2, 2), numbers(n, 2, 2))),
    "BCELoss": (nn.BCELoss, lambda n: (probabilities(n, 1), probabilities(n, 1))),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, lambda n: (numbers(n, 2), probabilities(n, 2))),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, lambda n: (numbers(n), probabilities(n))),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, lambda n: (numbers(n, 2), numbers(n, 2), probabilities(n, 1))),
    "SoftMarginLoss": (nn.SoftMarginLoss, lambda n: (numbers(n, 2), signs(n, 2))),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, lambda n: (numbers(n), signs(n))),
    "MarginRankingLoss": (nn.MarginRankingLoss, lambda n: (numbers(n), numbers(n), signs(n))),
    "KLDivLoss": (nn.KLDivLoss, lambda n: (numbers(n, 3), probabilities(n, 3))),
    "KLDivLoss batchmean": (lambda reduction: nn.KLDivLoss(reduction=reduction.replace("mean", "batchmean")),
                            lambda n: (numbers(n, 3), probabilities(n, 3))),
    "MultiMarginLoss": (lambda **o: nn.MultiMarginLoss(weight=WEIGHTS, **o), lambda n: (numbers(n, 4), labels(4, n))),
    "MultiLabelMarginLoss": (nn.MultiLabelMarginLoss, lambda n: (numbers(n, 4), labels(4, n, 4))),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss, lambda n: (numbers(n, 4), labels(2, n, 4).double())),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, lambda n: (numbers(n, 4), numbers(n, 4), signs(n))),
    "TripletMarginLoss": (nn.TripletMarginLoss, lambda n: (numbers(n, 4), numbers(n, 4), numbers(n, 4))),
    "TripletMarginWithDistanceLoss": (nn.TripletMarginWithDistanceLoss, lambda n: (numbers(n, 4), numbers(n, 4), numbers(n, 4))),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, lambda n: (numbers(n, 4), labels(4, n))),
    "CrossEntropyLoss of one row": (nn.CrossEntropyLoss, lambda n: (numbers(4), labels(4))),
    "CrossEntropyLoss of images": (nn.CrossEntropyLoss, lambda n: (numbers(n, 4, 2, 3), labels(4, n, 2, 3))),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss, lambda n: (numbers(n, 4, 2), probabilities(n, 4, 2))),
    "CrossEntropyLoss ignoring": (lambda **o: nn.CrossEntropyLoss(ignore_index=1, **o), lambda n: (numbers(n, 4), labels(4, n))),
    "CrossEntropyLoss weighted": (lambda **o: nn.CrossEntropyLoss(WEIGHTS, ignore_index=-1, label_smoothing=0.1, **o),
                                  lambda n: (numbers(n, 4), labels(5, n) - 1)),
    "NLLLoss": (lambda **o: nn.NLLLoss(WEIGHTS, ignore_index=-1, **o), lambda n: (numbers(n, 4), labels(5, n) - 1)),
    "LinearCrossEntropyLoss": (lambda **o: nn.LinearCrossEntropyLoss(3, 4, dtype=gpunet.float64, **o),
                               lambda n: (numbers(n, 3), labels(4, n))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:kl_div")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [1, 7])
def test_the_mean_times_the_count_is_the_sum(name: str, rows: int) -> None:
    make, arguments = CASES[name]
    gpunet.manual_seed(0)
    mean, total = make(reduction="mean"), make(reduction="sum")
    total.load_state_dict(mean.state_dict())
    given = arguments(rows)
    if name.startswith("NLL") or "weighted" in name:  # at least one label counts
        given[1][0] = 2
    if "ignoring" in name:
        given[1][0] = 0
    expected = total(*given).item()
    assert float(mean(*given).item()) * float(mean.count(*given)) == pytest.approx(expected, rel=1e-12)
    assert mean.total(*given)[0].item() == pytest.approx(expected, rel=1e-12)


def test_every_loss_has_a_case() -> None:
    without = {"NLLLoss2d", "CTCLoss"}  # the first is NLLLoss, the second divides by lengths as well
    assert {name for name in nn.loss.__all__ if not any(case.split()[0] == name for case in CASES)} == without


def test_the_sum_of_ignored_labels_alone_is_zero_with_gradients_of_zero() -> None:
    logits = numbers(3, 4).requires_grad_()
    total, count = nn.CrossEntropyLoss(WEIGHTS).total(logits, gpunet.full((3,), -100))
    total.backward()
    assert total.item() == 0.0 and float(count) == 0.0 and (logits.grad == 0.0).all()


def test_ctc_counts_sequences() -> None:
    assert nn.CTCLoss().count(numbers(5, 3, 4), labels(3, 3, 2)) == 3
    assert nn.CTCLoss().count(numbers(5, 4), labels(3, 2)) == 1
