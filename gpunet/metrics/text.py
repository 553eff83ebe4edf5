"""Metrics of text: of a language model's tokens, and of translations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import graph_break
from gpunet.metrics.checks import check_labels, check_numbers
from gpunet.metrics.inputs import PROBABILITIES
from gpunet.metrics.metric import Metric
from gpunet.ops.creation import full, tensor
from gpunet.ops.cross_entropy import cross_entropy
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_positive, check_flag
from gpunet.ops.index import gather

__all__ = ["BLEUScore", "Perplexity"]


class Perplexity(Metric):
    """e^(mean of -log p of each token).

    Source: Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks (1977).

    Args:
        ignore_index: targets that do not count.
        from_logits: whether predictions are logits, as torchmetrics takes them; False for probabilities.
    """

    def __init__(self, ignore_index: int | None = None, from_logits: bool = True) -> None:
        super().__init__({"surprise": (), "tokens": ()})
        check_flag(self._name, "from_logits", from_logits)
        self.ignore_index, self.from_logits = ignore_index, from_logits

    def update(self, preds: Any, target: Any) -> None:
        """Add a batch.

        Args:
            preds: (rows, tokens, vocabulary).
            target: the token at each place, integers (rows, tokens).

        Raises:
            DtypeError: predictions are integers, or targets are not.
            ShapeError: shapes do not fit.
            LabelError: a target is outside the vocabulary.
            ArgumentError: a prediction is NaN or no probability.
        """
        preds, target = self._take(preds=preds, target=target)
        if not is_floating(preds.dtype):
            expected = "logits" if self.from_logits else "probabilities"
            raise DtypeError(f"{self._name}: preds has dtype {preds.dtype}; expected {expected}, which are floating")
        if preds.ndim != target.ndim + 1 or preds.shape[:-1] != target.shape:
            shapes = f"preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}"
            raise ShapeError(f"{self._name}: {shapes}; expected (rows, tokens, vocabulary) and (rows, tokens)")
        preds, target = preds.reshape(-1, preds.shape[-1]), target.reshape(-1)
        counts = full(target.shape, True, device=target.device) if self.ignore_index is None else target != self.ignore_index
        target = check_labels(self._name, "target", target, preds.shape[1], self.ignore_index)
        if self.from_logits:
            check_numbers(self._name, "preds", preds)
            surprise = cross_entropy(preds, target, reduction="none").to(float64)
        else:
            check_numbers(self._name, "preds", preds, 0.0, 1.0, PROBABILITIES)
            surprise = -gather(preds, 1, target.reshape(-1, 1)).reshape(-1).to(float64).log()
        self._add({"surprise": where(counts, surprise, 0.0).sum(), "tokens": counts.sum().to(float64)})

    def compute(self) -> Any:
        """Return the perplexity, a 0-d float64 tensor."""
        tokens = self._sum("tokens")
        return (self._sum("surprise") / tokens).exp() if float(tokens) else self._nan("no tokens since the last reset")


class BLEUScore(Metric):
    """How many word sequences of translations occur in reference translations, over the whole corpus.

    White space separates words.  It is computed on the host.

    Source: Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation (2002), with the reference nearest in
    length, the shorter of two; ``smooth``: Lin and Och, ORANGE (2004).

    Args:
        n_gram: the longest sequences, in words.
        smooth: add 1 to the counts of sequences of more than one word.
        weights: of the logarithm of the precision of each length; equal by default.
    """

    def __init__(self, n_gram: int = 4, smooth: bool = False, weights: Sequence[float] | None = None) -> None:
        self.n_gram = as_positive(type(self).__name__, "n_gram", n_gram)
        super().__init__({"hits": (self.n_gram,), "sequences": (self.n_gram,), "words": (), "words_of_references": ()})
        check_flag(self._name, "smooth", smooth)
        self.smooth = smooth
        self.weights = tuple(map(float, weights)) if weights is not None else (1 / self.n_gram,) * self.n_gram
        if len(self.weights) != self.n_gram:
            raise ArgumentError(f"{self._name}: {len(self.weights)} weights with n_gram={n_gram}; expected {n_gram}")

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:
        """Add translations.

        Args:
            preds: the translations.
            target: the references of each.

        Raises:
            DtypeError: a translation or reference is no text.
            ShapeError: there is another number of lists of references, or an empty list.
        """
        graph_break(f"{self._name}.update(), which counts words on the host,", "call it behind the step")
        self._check(preds, target)
        sums: dict[str, Any] = {name: [0] * self.n_gram for name in ("hits", "sequences")} | {"words": 0, "words_of_references": 0}
        for text, references in zip(preds, target):
            words, others = text.split(), [reference.split() for reference in references]
            sums["words"] += len(words)
            sums["words_of_references"] += min(map(len, others), key=lambda length: (abs(length - len(words)), length))
            for n in range(1, self.n_gram + 1):
                allowed: Counter[Any] = Counter()
                for other in others:
                    allowed |= _sequences(other, n)
                found = _sequences(words, n)
                sums["hits"][n - 1] += sum((found & allowed).values())
                sums["sequences"][n - 1] += sum(found.values())
        self._start(Device("cpu"))
        self._add({name: tensor(value, dtype=float64, device=self._device) for name, value in sums.items()})

    def _check(self, preds: Any, target: Any) -> None:
        if isinstance(preds, str) or isinstance(target, str):
            raise DtypeError(f"{self._name}: got one text; expected lists: preds=['a translation'], target=[['a reference']]")
        if len(preds) != len(target):
            raise ShapeError(f"{self._name}: {len(preds)} translations, {len(target)} lists of references; expected one for each")
        for number, (text, references) in enumerate(zip(preds, target)):
            if isinstance(references, str) or not all(isinstance(t, str) for t in (text, *references)):
                raise DtypeError(f"{self._name}: item {number} is {text!r} with {references!r}; expected text and a list of texts")
            if not references:
                raise ShapeError(f"{self._name}: item {number}, {text!r}, has no references; expected at least one")

    def compute(self) -> Any:
        """Return the score, a 0-d float64 tensor from 0 to 1."""
        hits, sequences, words, length = (self._sum(name) for name in ("hits", "sequences", "words", "words_of_references"))
        if not float(length):
            return self._nan("no references since the last reset")
        if self.smooth:
            added = tensor([0.0, *(1.0,) * (self.n_gram - 1)], dtype=float64, device=hits.device)
            hits, sequences = hits + added, sequences + added
        if not bool(hits.all()):
            return hits.sum() * 0.0
        weights = tensor(self.weights, dtype=float64, device=hits.device)
        brevity = (1 - length / words).clamp(max=0)
        return (brevity + ((hits / sequences).log() * weights).sum()).exp()


def _sequences(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each sequence of ``n`` words occurs."""
    return Counter(zip(*(words[start:] for start in range(n))))
