"""``gpunet.fit``: train a model in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpunet.autograd import Tensor
from gpunet.nn import Module
from gpunet.optim import Optimizer
from gpunet.train.history import History
from gpunet.train.trainer import Trainer

__all__ = ["fit"]


class FitTrainer(Trainer):
    """A Trainer whose errors name ``fit``."""

    _function = "fit"


def fit(
    model: Module, loss: Callable[[Any, Any], Tensor], optimizer: Optimizer, train: Iterable[Any],
    validation: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None, *, epochs: int | None = None, steps: int | None = None,
    **options: Any,
) -> History:  # fmt: skip
    """Train a model: ``Trainer(model, loss, optimizer, **options).fit(train, validation, epochs=epochs)``.

        history = gpunet.fit(model, nn.CrossEntropyLoss(), optimizer, train, validation, epochs=30, patience=5)
        history["val_loss"]

    Args:
        model, loss, optimizer, options: see :class:`gpunet.train.Trainer`.
        train, validation, epochs, steps: see :meth:`gpunet.train.Trainer.fit`.

    Returns:
        The figures; with ``ema``, ``history.averaged`` is the model with the averaged weights, which the figures are of.
    """
    return FitTrainer(model, loss, optimizer, **options).fit(train, validation, epochs=epochs, steps=steps)
