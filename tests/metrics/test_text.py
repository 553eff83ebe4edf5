"""Perplexity against the formula; BLEU against a plain computation and published examples."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import metrics
from gpunet.errors import ArgumentError, CaptureError, DtypeError, LabelError, ShapeError
from tests.metrics.table import assert_equal, on_device, sentences, to_host


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_perplexity(dtype: str, device: str) -> None:
    random = numpy.random.default_rng(0)
    logits, target = random.normal(size=(3, 5, 7)).astype(dtype), random.integers(0, 7, (3, 5))
    target[0, :3] = -100
    scores = numpy.exp(logits.astype("float64"))
    scores /= scores.sum(-1, keepdims=True)
    counts = target >= 0
    of_target = numpy.take_along_axis(scores, numpy.maximum(target, 0)[..., None], -1)[..., 0][counts]
    expected = math.exp(-numpy.log(of_target).mean())
    for preds, options in ((logits, {}), (scores.astype(dtype), {"from_logits": False})):
        metric = metrics.Perplexity(ignore_index=-100, **options)
        metric.update(*map(on_device, (preds, target)))
        assert_equal(to_host(metric.compute()), expected, 1e-6 if dtype == "float32" else 1e-12)


def test_perplexity_of_impossible_and_ignored_tokens() -> None:
    preds, target = gpunet.tensor([[[0.0, 1.0], [0.0, 1.0]]]), gpunet.tensor([[5, 1]])
    metric = metrics.Perplexity(ignore_index=5, from_logits=False)
    assert metric(preds, target).item() == 1
    assert metric(preds, gpunet.tensor([[0, 1]])).item() == math.inf


@pytest.mark.parametrize(
    "preds, target, error, message",
    [
        ([[[1.0, 2.0]]], [[2]], LabelError, "Perplexity: target has the label 2 at position 0; expected 0 .. 1 for 2 classes; pas"),
        ([[[1.0, 2.0]]], [2], ShapeError, r"preds has shape \(1, 1, 2\), target \(1,\); expected \(rows, tokens, vocabulary\)"),
        ([[[1, 2]]], [[1]], DtypeError, "Perplexity: preds has dtype int64; expected logits"),
        ([[[1.0, math.nan]]], [[0]], ArgumentError, "Perplexity: preds has nan at position 1"),
    ],
)
def test_errors_of_perplexity(preds: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.Perplexity().update(gpunet.tensor(preds), gpunet.tensor(target))


def test_probabilities_are_checked() -> None:
    with pytest.raises(ArgumentError, match="preds has 2 at position 1; expected probabilities from 0 to 1; for logits"):
        metrics.Perplexity(from_logits=False).update(gpunet.tensor([[[1.0, 2.0]]]), gpunet.tensor([[0]]))


# ---- BLEU -------------------------------------------------------------------------------------------------------------


def bleu(preds: list[str], target: list[list[str]], longest: int, smooth: bool) -> float:
    """Papineni et al. (2002), section 2.3, with loops."""
    logarithms = 0.0
    for n in range(1, longest + 1):
        hits = total = 0
        for text, references in zip(preds, target):
            def cut(words: list[str], n: int = n) -> list[Any]:
                return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

            own = cut(text.split())
            total += len(own)
            hits += sum(min(own.count(s), max(cut(r.split()).count(s) for r in references)) for s in {*own})
        if smooth and n > 1:
            hits, total = hits + 1, total + 1
        if not hits:
            return 0.0
        logarithms += math.log(hits / total) / longest
    length = sum(len(text.split()) for text in preds)
    nearest = sum(sorted((abs(len(r.split()) - len(t.split())), len(r.split())) for r in rs)[0][1] for t, rs in zip(preds, target))
    return math.exp(logarithms + min(0.0, 1 - nearest / length))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("longest", [1, 2, 4])
def test_bleu(longest: int, smooth: bool) -> None:
    preds, target = sentences(numpy.random.default_rng(longest), 30)
    metric = metrics.BLEUScore(longest, smooth)
    metric.update(preds, target)
    expected = bleu(preds, target, longest, smooth)
    assert 0 < expected < 1
    assert_equal(to_host(metric.compute()), expected)


def test_published_examples() -> None:
    """The paper's example 2 of clipped counts (2 of 7), and the examples of the documentation of torchmetrics."""
    the = metrics.BLEUScore(1)(["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]])
    assert the.item() == pytest.approx(2 / 7)
    cat = ["the cat is on the mat"], [["there is a cat on the mat", "a cat is on the mat"]]
    assert metrics.BLEUScore()(*cat).item() == pytest.approx(0.7598, abs=5e-5)
    weighted = metrics.BLEUScore(2, weights=[1.0, 0.0])(*cat)
    assert weighted.item() == pytest.approx(5 / 6)


def test_translations_without_a_match_or_a_word() -> None:
    assert metrics.BLEUScore()(["a b c d e"], [["v w x y z"]]).item() == 0
    assert metrics.BLEUScore()([""], [["a b c d"]]).item() == 0


@pytest.mark.parametrize(
    "preds, target, error, message",
    [
        ("a b", [["a b"]], DtypeError, r"BLEUScore: got one text; expected lists: preds=\['a translation'\]"),
        (["a b"], ["a b"], DtypeError, "BLEUScore: item 0 is 'a b' with 'a b'; expected text and a list of texts"),
        (["a b"], [["a b"], ["a"]], ShapeError, "BLEUScore: 1 translations, 2 lists of references; expected one for each"),
        (["a b"], [[]], ShapeError, "BLEUScore: item 0, 'a b', has no references; expected at least one"),
    ],
)
def test_errors_of_bleu(preds: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.BLEUScore().update(preds, target)
    with pytest.raises(ArgumentError, match="BLEUScore: 1 weights with n_gram=2; expected 2"):
        metrics.BLEUScore(2, weights=[1.0])


def test_bleu_in_a_captured_step() -> None:
    metric = metrics.BLEUScore(1)
    step = gpunet.capture(lambda x: metric.update(["a"], [["a"]]), fullgraph=True)
    with pytest.raises(CaptureError, match=r"BLEUScore.update\(\), which counts words on the host"):
        step(gpunet.ones(1))
