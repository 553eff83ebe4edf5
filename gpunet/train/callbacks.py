"""What a user's code may do while a Trainer trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

__all__ = ["Callback"]


class Callback:
    """Base class of callbacks; override what you need.

    A callback with ``state_dict`` and ``load_state_dict`` has its state in checkpoints.  In several processes each calls its
    callbacks, unless they are ``only_first``.

    Attributes:
        only_first: whether of several processes only the first one calls it, because it writes or prints.
    """

    only_first = False

    def on_start(self, trainer: Trainer) -> None:
        """Called before the first step, with the state of a resumed run loaded."""

    def on_step(self, trainer: Trainer) -> bool | None:
        """Called after each optimizer step; training stops if it returns True."""

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Called with the figures of each epoch; training stops if it returns True."""

    def on_end(self, trainer: Trainer) -> None:
        """Called when training ends, however it ends; the best weights are restored then."""
