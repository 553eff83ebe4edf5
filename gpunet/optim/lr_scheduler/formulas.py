"""Schedules that are a formula of the step: one launch per parameter group and step, also in recorded steps."""

from __future__ import annotations

import itertools
import math
import types
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gpunet.autograd import ignore_fp_errors
from gpunet.backend import devices
from gpunet.errors import ArgumentError
from gpunet.launch.tape import graph_break, graph_break_on_read
from gpunet.optim.lr_scheduler.kernel import schedule_at
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, check, number_per_group, zero_counters
from gpunet.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR", "LinearLR",
    "MultiStepLR", "OneCycleLR", "PolynomialLR", "StepLR",
]  # fmt: skip


class StepLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` every ``step_size`` steps."""

    kind = "step"

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1, verbose: Any = None
    ) -> None:
        check(step_size > 0, f"StepLR: step_size={step_size}; expected 1 or more")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.step_size, self.gamma]


class MultiStepLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` at each step in ``milestones``."""

    kind = "points"

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1, verbose: Any = None
    ) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        factors = {int(m): self.gamma**times for m, times in Counter(self.milestones).items()}
        at_start = math.prod(factor for milestone, factor in factors.items() if milestone <= 0)
        return [self.base_lrs[index] * at_start, *(v for point in sorted(factors.items()) for v in point)]


class ConstantLR(LRScheduler):
    """Multiply the learning rate by ``factor`` until step ``total_iters``."""

    kind = "points"

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1, verbose: Any = None
    ) -> None:
        check(0.0 < factor <= 1.0, f"ConstantLR: factor={factor}; expected a number above 0 and up to 1")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        points = {self.total_iters: 1.0 / self.factor, 0: self.factor}
        at_start = self.factor if self.total_iters > 0 else 1.0
        return [self.base_lrs[index] * at_start, *(v for point in points.items() for v in point)]


class LinearLR(LRScheduler):
    """Multiply the learning rate by a factor that changes linearly in ``total_iters`` steps and then stays constant.

    Args:
        start_factor: the factor at step 0.
        end_factor: the factor from step ``total_iters`` on.
    """

    kind = "linear"

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5,
        last_epoch: int = -1, verbose: Any = None,
    ) -> None:  # fmt: skip
        check(0.0 < start_factor <= 1.0, f"LinearLR: start_factor={start_factor}; expected above 0 and up to 1")
        check(0.0 <= end_factor <= 1.0, f"LinearLR: end_factor={end_factor}; expected from 0 to 1")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        self.rests_at_first = last_epoch != -1
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index] * self.start_factor, self.start_factor, self.end_factor, self.total_iters]


class ExponentialLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` in each step."""

    kind, rests_at_first = "exponential", True

    def __init__(
        self, optimizer: Optimizer, gamma: float, last_epoch: int = -1, verbose: Any = None
    ) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.gamma]


class PolynomialLR(LRScheduler):
    """Multiply the initial learning rate by (1 - t / total_iters)^power at step t; 0 from ``total_iters`` on."""

    kind, rests_at_first = "polynomial", True

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1, verbose: Any = None
    ) -> None:
        check(total_iters > 0, f"PolynomialLR: total_iters={total_iters}; expected 1 or more")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.total_iters, self.power]


class CosineAnnealingLR(LRScheduler):
    """Cosine annealing without restarts (Loshchilov and Hutter 2017).

    The learning rate follows half a cosine from its initial value down to ``eta_min`` in ``T_max`` steps, then up again
    in the next ``T_max`` steps, and so on.
    """

    kind, rests_at_first = "cosine", True

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1, verbose: Any = None  # noqa: N803
    ) -> None:
        check(T_max > 0, f"CosineAnnealingLR: T_max={T_max}; expected 1 or more")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.T_max, self.eta_min]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017).

    The learning rate follows half a cosine from its initial value down to ``eta_min`` in ``T_0`` steps, and then
    restarts.  Each period is ``T_mult`` times as long as the one before.
    """

    kind = "warm_restarts"

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1,  # noqa: N803
        verbose: Any = None,
    ) -> None:  # fmt: skip
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            is_valid = isinstance(value, int) and value > 0
            check(is_valid, f"CosineAnnealingWarmRestarts: {name}={value!r}; expected an integer, 1 or more")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch, verbose)

    def constants(self, index: int) -> list[float]:
        return [self.base_lrs[index], self.T_mult, self.eta_min]

    @property
    def T_cur(self) -> float:
        """Number of steps since the last restart."""
        graph_break_on_read("T_cur")
        return devices.to_host(self._states[0][1]).item()

    @T_cur.setter
    def T_cur(self, value: float) -> None:
        self._write(value, slice(1, 2))

    @property
    def T_i(self) -> float:
        """Number of steps from the last restart to the next."""
        graph_break_on_read("T_i")
        return devices.to_host(self._states[0][2]).item()

    @T_i.setter
    def T_i(self, value: float) -> None:
        self._write(value, slice(2, 3))

    def _initial_step(self) -> None:
        first = self.last_epoch
        self._states = zero_counters(self.optimizer, 3)
        self.last_epoch, self.T_cur, self.T_i = first, first, self.T_0
        self.step(0 if first < 0 else None)

    @ignore_fp_errors
    def step(self, epoch: float | None = None) -> None:
        """Advance by one step, or go to ``epoch``.

        Args:
            epoch: may be fractional, as in ``step(epoch + batch / batches)``; None for the next step.

        Raises:
            ArgumentError: ``epoch`` is negative.
            CaptureError: ``epoch`` is given inside a recorded step.
        """
        if epoch is None:
            super().step()
            return
        graph_break("CosineAnnealingWarmRestarts.step(epoch)", "call step() without an argument, which counts on the device")
        check(epoch >= 0, f"CosineAnnealingWarmRestarts.step({epoch}); expected zero or a positive number")
        start, period = 0.0, self.T_0
        while epoch >= start + period:
            if self.T_mult == 1:
                start = epoch - epoch % period
                break
            start, period = start + period, period * self.T_mult
        self.last_epoch, self.T_cur, self.T_i = math.floor(epoch), epoch - start, period
        factor = (1.0 + math.cos(math.pi * (epoch - start) / period)) / 2.0
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.eta_min + (base - self.eta_min) * factor

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}


class _WithMomentum(LRScheduler):
    """Base class of schedules that can also cycle the momentum (Adam's beta1), inversely to the learning rate."""

    has_options_per_group = True

    def _init_momentum(self, base_momentum: Any, max_momentum: Any, last_epoch: int) -> None:
        """Set the momentum range; at the start of the schedule, set the momentum of the groups to its upper end."""
        if not self.cycle_momentum:
            return
        optimizer, name = self.optimizer, type(self).__name__
        if optimizer.param_groups[0].momentum is None:
            raise ArgumentError(f"{name}: {type(optimizer).__name__} has no momentum; pass cycle_momentum=False")
        self.base_momentums = number_per_group("base_momentum", optimizer, base_momentum)
        self.max_momentums = number_per_group("max_momentum", optimizer, max_momentum)
        if last_epoch == -1:
            self._set_momenta(self.max_momentums)
            for group, low, high in zip(optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True):
                group.update(base_momentum=low, max_momentum=high)  # where PyTorch has them

    def _set_momenta(self, momenta: Iterable[float]) -> None:
        """Set the momentum, or beta1, of each group."""
        for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
            if "betas" in group:
                group["betas"] = (momentum, *group.last_set("betas")[1:])
            else:
                group["momentum"] = momentum


class CyclicLR(_WithMomentum):
    """Cyclical learning rate (Smith 2017).

    The learning rate rises linearly from ``base_lr`` to ``max_lr`` in ``step_size_up`` steps, falls in
    ``step_size_down`` steps, and so on.  The amplitude is max_lr - base_lr times a factor that depends on ``mode``.

    Args:
        base_lr: lower bound; a number, or a list with one number per group.
        max_lr: upper bound; a number, or a list with one number per group.
        step_size_up: number of steps of the rising half of a cycle.
        step_size_down: number of steps of the falling half; ``step_size_up`` if None.
        mode: "triangular": factor 1; "triangular2": halve the amplitude after each cycle; "exp_range": multiply it by
            ``gamma`` in each step.
        gamma: see ``mode``.
        scale_fn: custom factor of the amplitude instead of ``mode``; a Python function, so the schedule cannot be part
            of a recorded step.
        scale_mode: argument of ``scale_fn``: "cycle": the number of the cycle, from 1; "iterations": the step.
        cycle_momentum: cycle the momentum, or beta1, from ``max_momentum`` down to ``base_momentum`` and up again.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: float | list[float], max_lr: float | list[float], step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8, max_momentum: float | list[float] = 0.9, last_epoch: int = -1,
        verbose: Any = None,
    ) -> None:  # fmt: skip
        base_lrs = number_per_group("base_lr", optimizer, base_lr)
        self.max_lrs = number_per_group("max_lr", optimizer, max_lr)
        modes = ("triangular", "triangular2", "exp_range")
        check(scale_fn is not None or mode in modes, f"CyclicLR: mode={mode!r}; expected one of {', '.join(modes)}")
        check(scale_mode in ("cycle", "iterations"), f"CyclicLR: scale_mode={scale_mode!r}; expected 'cycle' or 'iterations'")
        down = step_size_up if step_size_down is None else step_size_down
        sizes = f"step_size_up={step_size_up} and step_size_down={down}"
        check(min(step_size_up, down) > 0, f"CyclicLR: {sizes}; expected positive numbers")
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self.scale_mode, self._scale_fn = mode, gamma, scale_mode, scale_fn
        self.kind = "cyclic" if scale_fn is None else ""
        self.optimizer, self.cycle_momentum = optimizer, cycle_momentum
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, base_lrs):
                group["lr"] = rate
        self._init_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch, verbose)
        self.base_lrs = base_lrs

    def constants(self, index: int) -> list[float]:
        return self._cycle_constants(self.base_lrs[index], self.max_lrs[index])

    def momentum_constants(self, index: int) -> list[float]:
        return self._cycle_constants(self.max_momentums[index], self.base_momentums[index])

    def _cycle_constants(self, base: float, maximum: float) -> list[float]:
        """Return the constants of the kind "cyclic" for a cycle from ``base`` to ``maximum`` and back."""
        per_step = self.gamma if self.mode == "exp_range" and self.kind else 1.0
        per_cycle = 0.5 if self.mode == "triangular2" and self.kind else 1.0
        return [base, maximum, self.total_size, self.step_ratio, per_step, per_cycle]

    def _value_at(self, step: int, base: float, maximum: float) -> float:
        """Return the learning rate or momentum at a step, with the amplitude scaled by ``scale_fn``."""
        assert self._scale_fn is not None
        amplitude = schedule_at("cyclic", step, self._cycle_constants(0.0, maximum - base))
        argument = math.floor(1 + step / self.total_size) if self.scale_mode == "cycle" else step
        return base + amplitude * self._scale_fn(argument)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        return [self._value_at(step, base_lr, max_lr) for base_lr, max_lr in zip(self.base_lrs, self.max_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the attributes of ``scale_fn`` if it is a callable object; functions are not saved."""
        is_object = self._scale_fn is not None and not isinstance(self._scale_fn, types.FunctionType)
        return {**super().state_dict(), "_scale_fn_custom": vars(self._scale_fn).copy() if is_object else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("_scale_fn_custom") is not None:
            vars(self._scale_fn).update(state_dict["_scale_fn_custom"])

    def _set_rates(self, step: int) -> None:
        super()._set_rates(step)
        if self.cycle_momentum:
            ranges = zip(self.max_momentums, self.base_momentums, strict=True)
            self._set_momenta(self._value_at(step, high, low) for high, low in ranges)


class OneCycleLR(_WithMomentum):
    """One-cycle learning rate (Smith and Topin 2018); call ``step()`` after each batch.

    The learning rate rises from max_lr / div_factor to max_lr, and then falls to max_lr / div_factor / final_div_factor.

    Args:
        max_lr: upper bound; a number, or a list with one number per group.
        total_steps: number of steps of the whole training; ``epochs * steps_per_epoch`` if None.
        pct_start: fraction of the steps in which the learning rate rises.
        anneal_strategy: shape of the curve, "cos" or "linear".
        cycle_momentum: cycle the momentum, or beta1, from ``max_momentum`` down to ``base_momentum`` and up again.
        three_phase: let the learning rate fall to max_lr / div_factor as fast as it rose, and then to its final value.

    Raises:
        ArgumentError: an option is out of range.
    """

    kind = "one_cycle"

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1, verbose: Any = None,
    ) -> None:  # fmt: skip
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("OneCycleLR without a number of steps; pass total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        check(isinstance(total_steps, int) and total_steps > 0, f"OneCycleLR: total_steps={total_steps!r}; expected 1 or more")
        check(0.0 <= pct_start <= 1.0, f"OneCycleLR: pct_start={pct_start}; expected a number from 0 to 1")
        strategies = ("cos", "linear")
        check(anneal_strategy in strategies, f"OneCycleLR: anneal_strategy={anneal_strategy!r}; expected 'cos' or 'linear'")
        self.total_steps, self.pct_start, self.three_phase = total_steps, float(pct_start), three_phase
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.optimizer = optimizer
        ends = self._phase_ends()
        check(
            all(a != b for a, b in itertools.pairwise(ends)),
            f"OneCycleLR: total_steps={total_steps} with pct_start={pct_start} leaves a phase without a step; pass more steps",
        )
        for number, maximum in enumerate(number_per_group("max_lr", optimizer, max_lr)):
            if last_epoch == -1:
                initial = maximum / div_factor
                optimizer.param_groups[number].update(
                    initial_lr=initial, max_lr=maximum, min_lr=initial / final_div_factor
                )
        self._init_momentum(base_momentum, max_momentum, last_epoch)
        self._calls = last_epoch  # a lower bound of the step count, known without reading the device
        super().__init__(optimizer, last_epoch, verbose)

    def _phase_ends(self) -> list[float]:
        """Return 0 and the last step of each phase."""
        rise = self.pct_start * self.total_steps
        return [0.0, rise - 1.0, *([2.0 * rise - 2.0] if self.three_phase else []), self.total_steps - 1.0]

    def _phase_constants(self, initial: float, maximum: float, final: float) -> list[float]:
        """Return the constants of the kind "one_cycle": whether it is a cosine, then step and value of each phase end."""
        values = [initial, maximum, *([initial] if self.three_phase else []), final]
        points = (v for point in zip(self._phase_ends(), values) for v in point)
        return [float(self.anneal_strategy == "cos"), *points]

    def constants(self, index: int) -> list[float]:
        group = self.optimizer.param_groups[index]
        return self._phase_constants(group["initial_lr"], group["max_lr"], group["min_lr"])

    def momentum_constants(self, index: int) -> list[float]:
        group = self.optimizer.param_groups[index]
        high = group.get("max_momentum", self.max_momentums[index])
        return self._phase_constants(high, group.get("base_momentum", self.base_momentums[index]), high)

    def step(self, epoch: int | None = None) -> None:
        """Advance by one step, see :meth:`LRScheduler.step`.

        Raises:
            ArgumentError: the schedule has taken ``total_steps`` steps already.  Replays of a recorded step cannot
                raise; there the learning rate keeps its final value.
        """
        if epoch is not None:
            check(epoch < self.total_steps, f"OneCycleLR: step({epoch}) of a schedule of {self.total_steps} steps")
            self._calls = epoch - 1
        if self._calls >= self.total_steps:
            raise ArgumentError(
                f"OneCycleLR: step {self._calls + 1} of a schedule of {self.total_steps} steps; pass the number of batches "
                "of the whole training as total_steps"
            )
        super().step(epoch)
        self._calls += 1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._calls = state_dict["last_epoch"]
