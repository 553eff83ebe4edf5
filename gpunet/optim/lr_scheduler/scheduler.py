"""The base class of learning-rate schedules: those whose step is a launch, and those that run Python code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import ignore_fp_errors
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active, graph_break, graph_break_on_read, unrecorded, warn_user
from gpunet.optim.lr_scheduler.kernel import NOT_RECURSIVE, rate_after, schedule_step
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.step_counter import StepCounter

__all__ = ["LRScheduler"]

#: Attributes that follow from the class or from other attributes: no part of a state_dict.
_DERIVED = ("kind", "rests_at_first", "use_beta1", "mode_worse")


class LRScheduler:
    """Base class of schedules, which set the learning rates of an optimizer's parameter groups in each ``step()``.

    A user-defined subclass overrides ``get_lr()``, which returns the new learning rates of all groups; the step count
    is ``self.last_epoch``.  It runs Python code, so ``step()`` must be called outside of a recorded step.

    Args:
        optimizer: the optimizer.  The present learning rate of each group is stored in it as "initial_lr".
        last_epoch: -1 to start, or the number of the last step to continue from; then the groups need "initial_lr".
        verbose: deprecated, and has no effect.

    Raises:
        ArgumentError: an option is out of range, or a group has no "lr", or no "initial_lr" to continue from.
        DtypeError: ``optimizer`` is not an optimizer.
    """

    #: the formula of the launch, a key of ``kernel.KINDS``; empty if ``get_lr()`` computes the rates in Python
    kind = ""
    #: whether the initial step, which the constructor takes, leaves the learning rate unchanged
    rests_at_first = False
    #: whether the momentum (Adam's beta1) changes, too
    cycle_momentum = False
    #: whether an option has a value for each group, so that a group cannot be added later
    has_options_per_group = False
    _is_initial = False
    #: the counter of the optimizer, and a copy of its counts at the last step of the schedule
    _counts: tuple[StepCounter, Array] | None = None

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, verbose: Any = None) -> None:
        _check_optimizer(optimizer)
        warn_of_verbose(self, verbose)
        graph_break(f"creating a {type(self).__name__}", "create it before the step is recorded")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if "lr" not in group:
                raise ArgumentError(
                    f"{type(self).__name__}: group {number} of {type(optimizer).__name__} has no 'lr' to schedule; the "
                    "optimizer of a stack takes new learning rates by set_numbers(lr=...)"
                )
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"{type(self).__name__}: last_epoch={last_epoch}, but group {number} has no 'initial_lr'; load the "
                    "optimizer's state_dict first, or start with last_epoch=-1"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._states = zero_counters(optimizer)
        self._constants: list[tuple[list[float], Array]] = []
        self.last_epoch = last_epoch
        self._initial_step()
        self.update_constants()

    # -- for subclasses
    def get_lr(self) -> list[float]:
        """Return the learning rates of all groups at step ``self.last_epoch``."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr(); get_last_lr() returns the rates")

    def constants(self, index: int) -> list[float]:
        """Return the constants of the formula for the learning rate of group ``index``, see kernel.py."""
        raise NotImplementedError(f"{type(self).__name__} has no constants")

    def momentum_constants(self, index: int) -> list[float]:
        """Return the constants of the formula for the momentum of group ``index``."""
        raise NotImplementedError(f"{type(self).__name__} has no constants of the momentum")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if self.__dict__.get("_constants") and name in self.__dict__ and name[0] != "_":
            self.update_constants()  # immediately, because replays read the buffers

    # -- the step count
    @property
    def last_epoch(self) -> int:
        """The number of steps so far, read from the device."""
        graph_break_on_read("last_epoch")
        return int(devices.to_host(self._states[0])[0])

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        self._write(value, slice(0, 1))
        counter = self.optimizer._step_counter
        self._counts = None if counter is None else (counter, counter.copy())  # only later steps of the optimizer count

    def _write(self, value: float, place: slice) -> None:
        """Set a part of the counters of all groups."""
        graph_break(f"setting a {type(self).__name__}'s counters", "set them outside the step")
        for state in self._states:
            devices.assign(state, float(value), place)

    def get_last_lr(self) -> list[float]:
        """Return the current learning rates of all groups, read from the device."""
        return [group["lr"] for group in self.optimizer.param_groups]

    # -- steps
    @ignore_fp_errors
    def step(self, epoch: int | None = None) -> None:
        """Advance the learning rates by one step; call it after ``optimizer.step()``.

        Args:
            epoch: deprecated: the step to go to, instead of the next one.

        Raises:
            CaptureError: the schedule runs Python code (a user's function, or a metric) inside a recorded step.
        """
        self._adopt_groups()
        self._graph_break_if_python()
        if epoch is not None:
            warn_of_epoch(self)
            self._go_to(epoch)
            return
        if self.kind:
            skip = self._skip_of_step()
            if skip is None:
                self._launch()
            else:  # 1 if the optimizer's step was skipped, which is out of these bounds
                self._launch([skip] * len(self.optimizer.param_groups), -1.0, 0.5)
        elif not self._is_skipped():
            self._set_rates(self.last_epoch + 1)

    def _skip_of_step(self) -> Array | None:
        """Whether a GradScaler skipped all steps of the optimizer since the schedule's last, float64 (1,) on the device.

        None if no GradScaler has taken a step.
        """
        counter = None if self._is_initial else self.optimizer._step_counter
        rely_on([], "{}._step_counter is {}", (self.optimizer, counter), "whether a GradScaler takes the steps of an optimizer")
        if counter is None:
            return None
        if self._counts is None or self._counts[0] is not counter:  # of a counter that is new since the last step
            self._counts = counter, devices.zeros((2,), numpy.float64, devices.of(counter.counts))
        return counter.all_skipped_since(self._counts[1])

    def _is_skipped(self) -> bool:
        skip = self._skip_of_step()
        return skip is not None and bool(devices.to_host(skip)[0])

    def _go_to(self, epoch: int) -> None:
        """Set the step count to ``epoch``, and the learning rates to those of this step."""
        name = type(self).__name__
        graph_break(f"{name}.step(epoch)", "call step() without an argument, which counts on the device")
        check(epoch >= 0, f"{name}.step({epoch}); expected zero or a positive number")
        if not self.kind:
            self._set_rates(epoch)
        elif self.kind in NOT_RECURSIVE:
            self.last_epoch = epoch - 1
            self._launch()
        else:
            self.update_constants()
            for group, (constants, _) in zip(self.optimizer.param_groups, self._constants, strict=True):
                group["lr"] = rate_after(self.kind, int(epoch), constants)
            self.last_epoch = epoch

    def _initial_step(self) -> None:
        self._is_initial = True
        if self.kind and self.rests_at_first:
            self.last_epoch += 1
        else:
            self.step()
        self._is_initial = False

    @ignore_fp_errors
    def step_within(self, positions: list[Array], low: float, high: float) -> None:
        """Advance by one step as part of a SequentialLR if low <= position < high; restart if position == low.

        Args:
            positions: step count of the SequentialLR, one array of one element per group, all equal.
        """
        self._adopt_groups()
        self._graph_break_if_python()
        if self.kind:
            self._launch(positions, low, high)
            return
        position = float(devices.to_host(positions[0])[0])
        if low <= position < high:
            self._set_rates(0 if position == low else self.last_epoch + 1)

    def undo_initial_step(self) -> None:
        """Undo the step count of the initial step; the caller resets the learning rates."""
        self.last_epoch -= 1

    def _set_rates(self, step: int) -> None:
        """Set the step count, and the learning rates to ``get_lr()``."""
        self.last_epoch = step
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def _graph_break_if_python(self) -> None:
        if not self.kind:
            graph_break(f"{type(self).__name__}.step(), which runs Python code,", "call it outside the step, after it")

    def _launch(self, positions: Sequence[Array | None] | None = None, low: float = 0.0, high: float = math.inf) -> None:
        with unrecorded():  # a list among the attributes may have changed; replays read the buffers
            self.update_constants()
        if active.tape is not None:
            for name, items in vars(self).items():
                if name[0] != "_" and isinstance(items, (list, dict)):  # can be changed in place
                    rely_on([], "{} == {}", (items, items.copy()), f"{name} of a {type(self).__name__}")
        for number, group in enumerate(self.optimizer.param_groups):
            position = None if positions is None else positions[number]
            momentum = None
            if self.cycle_momentum:
                group.enable_momentum()
                momentum = group.momentum
            state, constants = self._states[number], self._constants[number][1]
            values = self._constants, number, constants
            memory = [state, constants, group.hyperparameters, *(positions or ())]
            rely_on(memory, "{}[{}][1] is {}", values, "the number of constants of a schedule")
            schedule_step(group.learning_rate, momentum, state, constants, position, kind=self.kind, low=low, high=high)

    def update_constants(self) -> None:
        """Copy the constants that follow from this object's attributes to the buffers that launches read."""
        if not self.kind:
            return
        for number, group in enumerate(self.optimizer.param_groups):
            momentum = self.momentum_constants(number) if self.cycle_momentum else ()
            values = [float(v) for v in (*self.constants(number), *momentum)]
            previous = self._constants[number] if number < len(self._constants) else None
            if previous is not None and previous[0] == values:
                continue
            graph_break(f"changing the settings of a {type(self).__name__}", "change them outside the step")
            if previous is None or len(previous[0]) != len(values):  # freeing the old buffer invalidates recordings
                buffer = devices.empty((len(values),), numpy.float64, _device_of(group))
                self._constants[number : number + 1] = [(values, buffer)]
            self._constants[number] = (values, self._constants[number][1])
            devices.assign(self._constants[number][1], devices.move(numpy.array(values), _device_of(group)))

    def _adopt_groups(self) -> None:
        """Take up groups that were added to the optimizer: each goes on from its own learning rate.

        Raises:
            ArgumentError: the schedule has options per group, or a group was removed.
        """
        groups, known = self.optimizer.param_groups, len(self._states)
        if len(groups) == known:
            return
        if len(groups) < known or self.has_options_per_group:
            raise ArgumentError(
                f"{type(self).__name__} was created for {known} parameter groups; the optimizer has {len(groups)} now. Create "
                "the scheduler after the last add_param_group()"
            )
        with unrecorded():  # replays find the groups taken up
            counters = devices.to_host(self._states[0])
            for group in groups[known:]:
                self.adopt_group(group)
                self._states.append(devices.move(counters.copy(), _device_of(group)))
            self.update_constants()

    def adopt_group(self, group: ParameterGroup) -> None:
        """Take up the options of a group that was added."""
        group.setdefault("initial_lr", group["lr"])
        self.base_lrs.append(float(group["initial_lr"]))

    # -- state
    def steps_between(self) -> list[float]:
        """Return the steps of the optimizer since the last of the schedule, and how many of them a GradScaler skipped."""
        counter = self.optimizer._step_counter
        if counter is None:
            return [0.0, 0.0]
        is_counted = self._counts is not None and self._counts[0] is counter
        before = devices.to_host(self._counts[1]) if is_counted and self._counts is not None else 0.0
        return list(map(float, devices.to_host(counter.counts) - before))

    def set_steps_between(self, steps: list[float]) -> None:
        """Continue from :meth:`steps_between`, which is no part of the state_dict, as in PyTorch; call it after loading that."""
        self.optimizer._step_counter = counter = StepCounter(_device_of(self.optimizer.param_groups[0]))
        devices.assign(counter.counts, numpy.array(steps, numpy.float64))
        self._counts = None

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and the step count, with PyTorch's keys.

        The learning rates are part of the optimizer's state_dict.
        """
        settings = {k: v for k, v in vars(self).items() if k[0] != "_" and k not in ("optimizer", *_DERIVED)}
        step = self.last_epoch
        return {**settings, "last_epoch": step, "_step_count": step + 1, "_last_lr": self.get_last_lr()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; replays of recorded steps continue from it, too.

        Raises:
            StateDictError: the state belongs to another kind of scheduler; this scheduler is unchanged.
        """
        settings = {k: v for k, v in state_dict.items() if k[0] != "_" and k not in _DERIVED}
        unknown = [k for k in settings if not hasattr(self, k)]
        if unknown or "last_epoch" not in settings:
            raise StateDictError(
                f"not a state_dict of a {type(self).__name__}: "
                + (f"it has no setting {unknown[0]!r}" if unknown else "the key 'last_epoch' is missing")
            )
        groups = len(settings.get("base_lrs", self.base_lrs))
        if groups != len(self.base_lrs):
            raise StateDictError(
                f"state_dict for {groups} parameter groups; this {type(self).__name__} has {len(self.base_lrs)}"
            )
        for key, value in settings.items():
            setattr(self, key, value)
        if self.kind and self.cycle_momentum:
            for group in self.optimizer.param_groups:
                group.enable_momentum()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(last_epoch={self.last_epoch}, lr={self.get_last_lr()})"


#: The name of older versions of PyTorch.
_LRScheduler = LRScheduler


def warn_of_verbose(scheduler: LRScheduler, verbose: Any) -> None:
    if verbose not in (None, False, "deprecated"):
        message = f"{type(scheduler).__name__}: verbose has no effect, and PyTorch has removed it; print get_last_lr()"
        warn_user(message)


def warn_of_epoch(scheduler: LRScheduler) -> None:
    message = f"{type(scheduler).__name__}: step(epoch) is deprecated; call step() without an argument"
    warn_user(message)


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise DtypeError(f"{optimizer!r} has type {type(optimizer).__name__}; expected an optimizer of gpunet.optim")


def _device_of(group: ParameterGroup) -> Any:
    return devices.of(group.hyperparameters)


def zero_counters(optimizer: Optimizer, count: int = 1) -> list[Array]:
    """Return a float64 array of ``count`` zeros for each parameter group, on the device of its hyperparameters."""
    return [devices.move(numpy.zeros(count), _device_of(group)) for group in optimizer.param_groups]


def number_per_group(name: str, optimizer: Optimizer, value: Any) -> list[float]:
    """Return one number per parameter group, given a number for all groups or a list with one number per group.

    Args:
        name: name of the argument, for error messages.

    Raises:
        ArgumentError: the length of the list is not the number of groups.
    """
    _check_optimizer(optimizer)
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [float(value)] * groups
    if len(value) != groups:
        raise ArgumentError(f"{name}: {len(value)} values for {groups} parameter groups; expected one per group")
    return [float(v) for v in value]


def function_per_group(name: str, optimizer: Optimizer, value: Any) -> list[Callable[[int], float]]:
    """Return one function per parameter group, given a function for all groups or a list with one per group.

    Args:
        name: name of the argument, for error messages.

    Raises:
        ArgumentError: the length of the list is not the number of groups.
        DtypeError: an item is not callable.
    """
    _check_optimizer(optimizer)
    groups = len(optimizer.param_groups)
    functions = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(functions) != groups:
        raise ArgumentError(f"{name}: {len(functions)} functions for {groups} parameter groups; expected one per group")
    for function in functions:
        if not callable(function):
            raise DtypeError(f"{name}: {function!r} has type {type(function).__name__}; expected a function")
    return functions


def check(condition: bool, message: str) -> None:
    """Raise ArgumentError with this message unless the condition holds."""
    if not condition:
        raise ArgumentError(message)


