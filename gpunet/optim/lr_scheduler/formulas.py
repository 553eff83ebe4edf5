"""Schedules that are a formula of the step: one launch a group and step, in a recorded step, too."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gpunet.autograd import ignore_fp_errors
from gpunet.errors import ArgumentError
from gpunet.launch.tape import graph_break, graph_break_on_read
from gpunet.optim.lr_scheduler.kernel import schedule_at
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, check, counters, for_each_group
from gpunet.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR", "LinearLR",
    "MultiStepLR", "OneCycleLR", "PolynomialLR", "StepLR",
]  # fmt: skip


class StepLR(LRScheduler):
    """Every ``step_size`` steps the rate times ``gamma``."""

    kind = "step"

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        check(step_size > 0, f"StepLR: step_size={step_size}; expected 1 or more")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.step_size, self.gamma]


class MultiStepLR(LRScheduler):
    """At each of the ``milestones`` the rate times ``gamma``."""

    kind = "points"

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        factors = {int(m): self.gamma**times for m, times in Counter(self.milestones).items()}
        at_start = math.prod(factor for milestone, factor in factors.items() if milestone <= 0)
        return [self.base_lrs[index] * at_start, *(v for point in sorted(factors.items()) for v in point)]


class ConstantLR(LRScheduler):
    """The rate times ``factor`` until step ``total_iters``."""

    kind = "points"

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        check(0.0 < factor <= 1.0, f"ConstantLR: factor={factor}; expected a number above 0 and up to 1")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        points = {self.total_iters: 1.0 / self.factor, 0: self.factor}
        at_start = self.factor if self.total_iters > 0 else 1.0
        return [self.base_lrs[index] * at_start, *(v for point in points.items() for v in point)]


class LinearLR(LRScheduler):
    """The rate times a factor that goes from ``start_factor`` to ``end_factor`` in ``total_iters`` steps, and stays."""

    kind = "linear"

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        check(0.0 < start_factor <= 1.0, f"LinearLR: start_factor={start_factor}; expected above 0 and up to 1")
        check(0.0 <= end_factor <= 1.0, f"LinearLR: end_factor={end_factor}; expected from 0 to 1")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        self.rests_at_first = last_epoch != -1
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index] * self.start_factor, self.start_factor, self.end_factor, self.total_iters]


class ExponentialLR(LRScheduler):
    """In each step the rate times ``gamma``."""

    kind, rests_at_first = "exponential", True

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.gamma]


class PolynomialLR(LRScheduler):
    """The rate times (1 - t / total_iters)^power, and 0 from there on."""

    kind, rests_at_first = "polynomial", True

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        check(total_iters > 0, f"PolynomialLR: total_iters={total_iters}; expected 1 or more")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.total_iters, self.power]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate down to ``eta_min`` in ``T_max`` steps, then up again, and so on
    (Loshchilov and Hutter 2017, without the restarts).
    """

    kind, rests_at_first = "cosine", True

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:  # noqa: N803
        check(T_max > 0, f"CosineAnnealingLR: T_max={T_max}; expected 1 or more")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.T_max, self.eta_min]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the first rate down to ``eta_min`` in ``T_0`` steps, then again from the top, each time
    ``T_mult`` times as long (Loshchilov and Hutter 2017).
    """

    kind = "warm_restarts"

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1  # noqa: N803
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            whole = isinstance(value, int) and value > 0
            check(whole, f"CosineAnnealingWarmRestarts: {name}={value!r}; expected a whole number, 1 or more")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.T_mult, self.eta_min]

    @property
    def T_cur(self) -> float:
        """Steps since the last restart."""
        graph_break_on_read("T_cur", self._states[0])
        return self._states[0][1].item()

    @T_cur.setter
    def T_cur(self, value: float) -> None:
        self._write(value, slice(1, 2))

    @property
    def T_i(self) -> float:
        """Steps from the last restart to the next."""
        graph_break_on_read("T_i", self._states[0])
        return self._states[0][2].item()

    @T_i.setter
    def T_i(self, value: float) -> None:
        self._write(value, slice(2, 3))

    def _initial_step(self) -> None:
        first = self.last_epoch
        self._states = counters(self.optimizer, 3)
        self.last_epoch, self.T_cur, self.T_i = first, first, self.T_0
        self.step(0 if first < 0 else None)

    @ignore_fp_errors
    def step(self, epoch: float | None = None) -> None:
        """The next rates, or those at ``epoch``, which may lie between two steps: ``step(epoch + batch / batches)``.

        Raises:
            CaptureError: an ``epoch`` in a step that is recorded.
        """
        if epoch is None:
            super().step()
            return
        graph_break("CosineAnnealingWarmRestarts.step(epoch)", "call step() without a number: it counts on the device")
        check(epoch >= 0, f"CosineAnnealingWarmRestarts.step({epoch}); expected zero or a positive number")
        start, period = 0.0, self.T_0
        while epoch >= start + period:
            if self.T_mult == 1:
                start = epoch - epoch % period
                break
            start, period = start + period, period * self.T_mult
        self.last_epoch, self.T_cur, self.T_i = math.floor(epoch), epoch - start, period
        share = (1.0 + math.cos(math.pi * (epoch - start) / period)) / 2.0
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.eta_min + (base - self.eta_min) * share

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}


class _WithMomentum(LRScheduler):
    """A schedule that may move the momentum (of Adam: beta1) against the rate."""

    def _cycle(self, base: Any, most: Any, last_epoch: int) -> None:
        """Take up the momenta's range, and set the groups to the upper end."""
        if not self.cycle_momentum:
            return
        optimizer, name = self.optimizer, type(self).__name__
        if optimizer.param_groups[0].momentum is None:
            raise ArgumentError(f"{name}: {type(optimizer).__name__} has no momentum; pass cycle_momentum=False")
        self.base_momentums = for_each_group("base_momentum", optimizer, base)
        self.max_momentums = for_each_group("max_momentum", optimizer, most)
        if last_epoch == -1:
            self._set_momenta(self.max_momentums)

    def _set_momenta(self, momenta: Iterable[float]) -> None:
        for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
            if "betas" in group:
                group["betas"] = (momentum, *group.set_to("betas")[1:])
            else:
                group["momentum"] = momentum


class CyclicLR(_WithMomentum):
    """Up from ``base_lr`` to ``max_lr`` in ``step_size_up`` steps, down again in ``step_size_down``, and so on
    (Smith 2017).

    Args:
        mode: "triangular"; "triangular2" halves the height with each cycle; "exp_range" multiplies it by ``gamma`` in
            each step.
        scale_fn: a factor of the height instead, a function of the cycle (from 1) or of the step; it is Python, and not
            recorded.
        scale_mode: what scale_fn is a function of, "cycle" or "iterations".
        cycle_momentum: move the momentum, or beta1, from ``max_momentum`` down to ``base_momentum`` and up.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: float | list[float], max_lr: float | list[float], step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8, max_momentum: float | list[float] = 0.9, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        base_lrs = for_each_group("base_lr", optimizer, base_lr)
        self.max_lrs = for_each_group("max_lr", optimizer, max_lr)
        modes = ("triangular", "triangular2", "exp_range")
        check(scale_fn is not None or mode in modes, f"CyclicLR: mode={mode!r}; expected one of {', '.join(modes)}")
        check(scale_mode in ("cycle", "iterations"), f"CyclicLR: scale_mode={scale_mode!r}; expected cycle or iterations")
        down = step_size_up if step_size_down is None else step_size_down
        check(min(step_size_up, down) > 0, f"CyclicLR: step sizes {step_size_up} and {down}; expected positive numbers")
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self.scale_mode, self._scale_fn = mode, gamma, scale_mode, scale_fn
        self.kind = "cyclic" if scale_fn is None else ""
        self.optimizer, self.cycle_momentum = optimizer, cycle_momentum
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, base_lrs):
                group["lr"] = rate
        self._cycle(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def constants(self, index: int) -> list[float]:
        return self._constants_of(self.base_lrs[index], self.max_lrs[index])

    def momentum_constants(self, index: int) -> list[float]:
        return self._constants_of(self.max_momentums[index], self.base_momentums[index])

    def _constants_of(self, base: float, most: float) -> list[float]:
        per_step = self.gamma if self.mode == "exp_range" and self.kind else 1.0
        per_cycle = 0.5 if self.mode == "triangular2" and self.kind else 1.0
        return [base, most, self.total_size, self.step_ratio, per_step, per_cycle]

    def _scaled(self, step: int, base: float, most: float) -> float:
        """With a scale_fn: its factor belongs to the height."""
        assert self._scale_fn is not None
        height = schedule_at("cyclic", step, self._constants_of(0.0, most - base))
        of = math.floor(1 + step / self.total_size) if self.scale_mode == "cycle" else step
        return base + height * self._scale_fn(of)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        return [self._scaled(step, base, most) for base, most in zip(self.base_lrs, self.max_lrs)]

    def _set(self, step: int) -> None:
        super()._set(step)
        if self.cycle_momentum:
            ranges = zip(self.max_momentums, self.base_momentums, strict=True)
            self._set_momenta(self._scaled(step, most, least) for most, least in ranges)


class OneCycleLR(_WithMomentum):
    """Up from ``max_lr / div_factor`` to ``max_lr`` and down to ``max_lr / div_factor / final_div_factor`` in
    ``total_steps`` steps (Smith and Topin 2018); one step after each batch.

    Args:
        total_steps: of the whole training; or ``epochs`` times ``steps_per_epoch``.
        pct_start: share of the steps that goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move the momentum, or beta1, from ``max_momentum`` down to ``base_momentum`` and up.
        three_phase: up, down just as fast, and then on down to the end.

    Raises:
        ArgumentError: an option out of range; or, from ``step()``, more than ``total_steps`` steps.  A recorded step
            cannot raise: there the rate stays where it ended.
    """

    kind = "one_cycle"

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("OneCycleLR: how many steps? Pass total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        check(isinstance(total_steps, int) and total_steps > 0, f"OneCycleLR: total_steps={total_steps!r}; expected 1 or more")
        check(0.0 <= pct_start <= 1.0, f"OneCycleLR: pct_start={pct_start}; expected a share from 0 to 1")
        strategies = ("cos", "linear")
        check(anneal_strategy in strategies, f"OneCycleLR: anneal_strategy={anneal_strategy!r}; expected cos or linear")
        self.total_steps, self.pct_start, self.three_phase = total_steps, float(pct_start), three_phase
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.optimizer = optimizer
        ends = self._ends()
        check(
            all(a != b for a, b in itertools.pairwise(ends)),
            f"OneCycleLR: {total_steps} steps with pct_start={pct_start} leave a phase without a step; pass more steps",
        )
        for number, most in enumerate(for_each_group("max_lr", optimizer, max_lr)):
            if last_epoch == -1:
                first = most / div_factor
                optimizer.param_groups[number].update(initial_lr=first, max_lr=most, min_lr=first / final_div_factor)
        self._cycle(base_momentum, max_momentum, last_epoch)
        self._calls = last_epoch  # a lower bound of the step count that needs no look at the device
        super().__init__(optimizer, last_epoch)

    def _ends(self) -> list[float]:
        up = self.pct_start * self.total_steps
        return [0.0, up - 1.0, *([2.0 * up - 2.0] if self.three_phase else []), self.total_steps - 1.0]

    def _constants_of(self, first: float, most: float, last: float) -> list[float]:
        values = [first, most, *([first] if self.three_phase else []), last]
        points = (v for point in zip(self._ends(), values) for v in point)
        return [float(self.anneal_strategy == "cos"), *points]

    def constants(self, index: int) -> list[float]:
        group = self.optimizer.param_groups[index]
        return self._constants_of(group["initial_lr"], group["max_lr"], group["min_lr"])

    def momentum_constants(self, index: int) -> list[float]:
        most, least = self.max_momentums[index], self.base_momentums[index]
        return self._constants_of(most, least, most)

    def step(self) -> None:
        """The next rates; see :class:`LRScheduler`.

        Raises:
            ArgumentError: there were ``total_steps`` already.
        """
        if self._calls >= self.total_steps:
            raise ArgumentError(
                f"OneCycleLR: step {self._calls + 1} of a schedule of {self.total_steps} steps; make it with total_steps as "
                "large as the number of batches of the whole training"
            )
        super().step()
        self._calls += 1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._calls = state_dict["last_epoch"]
