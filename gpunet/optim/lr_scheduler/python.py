"""Schedules that run Python code (a user's function, or a decision on a metric); call them outside recorded steps."""

from __future__ import annotations

import math
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.launch.tape import graph_break
from gpunet.optim.lr_scheduler.scheduler import (
    LRScheduler,
    check,
    function_per_group,
    number_per_group,
    warn_of_epoch,
)
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau"]


class LambdaLR(LRScheduler):
    """Multiply the initial learning rate by ``lr_lambda(step)``.

    Args:
        lr_lambda: a function, or a list of one function per parameter group.
    """

    has_options_per_group = True

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1, verbose: Any = None) -> None:
        self.lr_lambdas = function_per_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch, verbose)

    def get_lr(self) -> list[float]:
        return [base * function(self.last_epoch) for function, base in zip(self.lr_lambdas, self.base_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the attributes of callable objects; functions are not saved, as in PyTorch."""
        attributes = [dict(getattr(f, "__dict__", None) or {}) or None for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": attributes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        settings = dict(state_dict)
        saved = settings.pop("lr_lambdas", ())
        super().load_state_dict(settings)
        for function, attributes in zip(self.lr_lambdas, saved):
            if attributes is not None:
                function.__dict__.update(attributes)


class MultiplicativeLR(LambdaLR):
    """Multiply the learning rate by ``lr_lambda(step)`` in each step."""

    rests_at_first = True

    def get_lr(self) -> list[float]:
        rates = self.get_last_lr()
        if self._is_initial:
            return rates
        return [rate * function(self.last_epoch) for function, rate in zip(self.lr_lambdas, rates)]


class ReduceLROnPlateau(LRScheduler):
    """Multiply the learning rate by ``factor`` if a metric has not improved for more than ``patience`` steps.

    Args:
        optimizer: the optimizer.
        mode: "min" if smaller metrics are better, "max" if larger metrics are better.
        factor: factor of the learning rate, below 1.
        patience: number of steps without improvement that are tolerated before a reduction.
        threshold: minimum change that counts as an improvement.
        threshold_mode: "rel": ``threshold`` is relative to the best metric; "abs": it is absolute.
        cooldown: number of steps after a reduction in which missing improvements do not count.
        min_lr: lower bound of the learning rate; a number, or a list with one number per group.
        eps: minimum reduction; smaller changes of the learning rate are not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: float | list[float] = 0.0, eps: float = 1e-8,
        verbose: Any = None,
    ) -> None:  # fmt: skip
        check(factor < 1.0, f"ReduceLROnPlateau: factor={factor}; expected a number below 1")
        check(mode in ("min", "max"), f"ReduceLROnPlateau: mode={mode!r}; expected 'min' or 'max'")
        check(threshold_mode in ("rel", "abs"), f"ReduceLROnPlateau: threshold_mode={threshold_mode!r}; expected 'rel' or 'abs'")
        self.min_lrs = number_per_group("min_lr", optimizer, min_lr)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else float(min_lr)
        self.mode, self.factor, self.patience, self.cooldown, self.eps = mode, factor, patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        super().__init__(optimizer, verbose=verbose)

    def _initial_step(self) -> None:
        self.last_epoch = 0

    def adopt_group(self, group: ParameterGroup) -> None:
        check(
            self.default_min_lr is not None,
            "ReduceLROnPlateau: a parameter group was added, but min_lr is a list without a value for it; append one to "
            "min_lrs and set default_min_lr, or create the scheduler after the last add_param_group()",
        )
        super().adopt_group(group)
        self.min_lrs.append(self.default_min_lr)  # type: ignore[arg-type]

    def step(self, metrics: Any = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """Reduce the learning rates if the metric has not improved for long enough.

        Args:
            metrics: the metric, a number or a tensor of one element.
            epoch: deprecated: the number of the step, instead of the next one.

        Raises:
            ArgumentError: there is no metric.
            CaptureError: called inside a recorded step.
        """
        graph_break("ReduceLROnPlateau.step(), which reads a metric,", "call it outside the step, after it")
        if metrics is None:
            raise ArgumentError("ReduceLROnPlateau.step() without a metric; pass it, e.g. step(validation_loss)")
        self._adopt_groups()
        current = float(metrics)
        if epoch is not None:
            warn_of_epoch(self)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs):
                before = group["lr"]
                after = max(before * self.factor, min_lr)
                if before - after > self.eps:
                    group["lr"] = after
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, current: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "abs":
            return sign * current > sign * self.best + self.threshold
        return sign * current > sign * self.best * (1.0 + sign * self.threshold)


