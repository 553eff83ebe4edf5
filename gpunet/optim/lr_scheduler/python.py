"""Schedules that are Python by nature: a function of yours, or a look at a metric.  They are called outside recorded steps."""

from __future__ import annotations

import math
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.launch.tape import graph_break
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, check, for_each_group, functions_for_each_group
from gpunet.optim.optimizer import Optimizer

__all__ = ["LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau"]


class LambdaLR(LRScheduler):
    """The first rate times ``lr_lambda(step)``: one function, or a list of one for each group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        self.lr_lambdas = functions_for_each_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * function(self.last_epoch) for function, base in zip(self.lr_lambdas, self.base_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Functions are not kept, objects that can be called are, by their attributes; as in PyTorch."""
        kept = [dict(getattr(f, "__dict__", None) or {}) or None for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        settings = dict(state_dict)
        kept = settings.pop("lr_lambdas", ())
        super().load_state_dict(settings)
        for function, attributes in zip(self.lr_lambdas, kept):
            if attributes is not None:
                function.__dict__.update(attributes)


class MultiplicativeLR(LambdaLR):
    """In each step the rate times ``lr_lambda(step)``."""

    rests_at_first = True

    def get_lr(self) -> list[float]:
        rates = self.get_last_lr()
        if self._is_initial:
            return rates
        return [rate * function(self.last_epoch) for function, rate in zip(self.lr_lambdas, rates)]


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a metric has not got better for more than ``patience`` steps.

    Args:
        mode: "min": smaller is better; "max": larger is.
        threshold: how much better counts: a share of the best for threshold_mode "rel", a difference for "abs".
        cooldown: steps after a reduction in which none is counted as bad.
        min_lr: least rate, for all groups or a list of one for each.
        eps: reductions by less than this are left out.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: float | list[float] = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        check(factor < 1.0, f"ReduceLROnPlateau: factor={factor}; expected a number below 1")
        check(mode in ("min", "max"), f"ReduceLROnPlateau: mode={mode!r}; expected min or max")
        check(threshold_mode in ("rel", "abs"), f"ReduceLROnPlateau: threshold_mode={threshold_mode!r}; expected rel or abs")
        self.min_lrs = for_each_group("min_lr", optimizer, min_lr)
        self.mode, self.factor, self.patience, self.cooldown, self.eps = mode, factor, patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        super().__init__(optimizer)

    def _initial_step(self) -> None:
        self.last_epoch = 0

    def step(self, metrics: Any = None) -> None:
        """Look at the metric, a number or a tensor of one element, and reduce the rates where it is time.

        Raises:
            ArgumentError: no metric.
            CaptureError: in a step that is recorded.
        """
        graph_break("ReduceLROnPlateau.step(), which reads a metric,", "call it outside the step, after it")
        if metrics is None:
            raise ArgumentError("ReduceLROnPlateau.step() without a metric; pass step(validation_loss)")
        self._check_groups()
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs):
                before = group["lr"]
                after = max(before * self.factor, least)
                if before - after > self.eps:
                    group["lr"] = after
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, current: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "abs":
            return sign * current > sign * self.best + self.threshold
        return sign * current > sign * self.best * (1.0 + sign * self.threshold)


