"""What schedules share.  Two kinds: those whose step is a launch, and those that are Python by nature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import ignore_fp_errors
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch.tape import active, graph_break, graph_break_on_read
from gpunet.optim.lr_scheduler.kernel import schedule_step
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["LRScheduler"]

#: In states of PyTorch's schedules; here they follow from the others.
_OF_TORCH = ("use_beta1", "default_min_lr", "mode_worse")


class LRScheduler:
    """Sets the learning rates of an optimizer's groups, one ``step()`` after the other.

    A subclass of your own has ``get_lr()``, the new rates of all groups; ``self.last_epoch`` counts the steps.  It runs
    Python, so it is called outside of a recorded step.

    Args:
        optimizer: what to schedule.  Each group keeps the rate it has now as "initial_lr".
        last_epoch: -1 to start; the last step's number to go on from it, with "initial_lr" in the groups.

    Raises:
        ArgumentError: an option out of range, or no "initial_lr" to go on from.
        DtypeError: something that is not an optimizer.
    """

    #: Which formula of the launch; empty where get_lr() is Python.
    kind = ""
    #: Whether the first step, made by the constructor, leaves the rate as it is.
    rests_at_first = False
    #: Whether the momentum (of Adam: beta1) moves, too.
    cycle_momentum = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        _check_optimizer(optimizer)
        graph_break(f"making a {type(self).__name__}", "make it before the step is recorded")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"{type(self).__name__}: last_epoch={last_epoch}, but group {number} has no 'initial_lr'; load the "
                    "optimizer's state_dict first, or start with last_epoch=-1"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._states = counters(optimizer)
        self._constants: list[tuple[list[float], Array]] = []
        self.last_epoch = last_epoch
        self._is_initial = False
        self._initial_step()
        self.update_constants()

    # -- for subclasses
    def get_lr(self) -> list[float]:
        """The rates of all groups at ``self.last_epoch``, in Python."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr(); get_last_lr() says what the rates are")

    def constants(self, index: int) -> list[float]:
        """What the launch reads beside the step count, for group ``index``; see kernel.py."""
        raise NotImplementedError(f"{type(self).__name__} has no constants")

    def momentum_constants(self, index: int) -> list[float]:
        """As many for the momentum of group ``index``, where it moves."""
        raise NotImplementedError(f"{type(self).__name__} has no constants for the momentum")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if self.__dict__.get("_constants") and name in self.__dict__ and name[0] != "_":
            self.update_constants()  # at once, for recorded steps

    # -- the step count
    @property
    def last_epoch(self) -> int:
        """Steps so far, read from the device."""
        graph_break_on_read("last_epoch", self._states[0])
        return int(self._states[0][0].item())

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        self._write(value, slice(0, 1))

    def _write(self, value: float, place: slice) -> None:
        graph_break(f"setting a {type(self).__name__}'s counters", "set them outside the step")
        for state in self._states:
            state[place] = float(value)

    def get_last_lr(self) -> list[float]:
        """The learning rates of all groups as they are now, read from the device."""
        return [group["lr"] for group in self.optimizer.param_groups]

    # -- steps
    @ignore_fp_errors
    def step(self) -> None:
        """The next rates; called after ``optimizer.step()``, also inside of a recorded step, where it is launches.

        Raises:
            CaptureError: a schedule that is Python (a function of yours, a metric) in a step that is recorded.
        """
        self._check_groups()
        self._refuse()
        if self.kind:
            self._launch()
        else:
            self._set(self.last_epoch + 1)

    def _initial_step(self) -> None:
        self._is_initial = True
        if self.kind and self.rests_at_first:
            self.last_epoch += 1
        else:
            self.step()
        self._is_initial = False

    @ignore_fp_errors
    def step_within(self, positions: list[Array], low: float, high: float) -> None:
        """As a part of a sequence that has counted to ``positions`` (the same number for each group)."""
        self._check_groups()
        self._refuse()
        if self.kind:
            self._launch(positions, low, high)
            return
        position = float(positions[0].item())
        if low <= position < high:
            self._set(0 if position == low else self.last_epoch + 1)

    def undo(self) -> None:
        """Take the constructor's step back, as far as the count is concerned; the rates are set anew by the caller."""
        self.last_epoch -= 1

    def _set(self, step: int) -> None:
        self.last_epoch = step
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def _refuse(self) -> None:
        """Refuse to be recorded, where that is not possible."""
        if not self.kind:
            graph_break(f"{type(self).__name__}.step(), which is Python,", "call it outside the step, after it")

    def _launch(self, positions: Sequence[Array | None] | None = None, low: float = 0.0, high: float = math.inf) -> None:
        self.update_constants()
        if active.tape is not None:
            for name, items in vars(self).items():
                if name[0] != "_" and isinstance(items, (list, dict)):  # which may be changed in place
                    reason = f"{name} of a {type(self).__name__}"
                    active.tape.relied.append(("{} == {}", (items, items.copy()), reason))
        for number, group in enumerate(self.optimizer.param_groups):
            position = None if positions is None else positions[number]
            momentum = None
            if self.cycle_momentum:
                group.move_momentum()
                momentum = group.momentum
            state, constants = self._states[number], self._constants[number][1]
            schedule_step(group.learning_rate, momentum, state, constants, position, kind=self.kind, low=low, high=high)

    def update_constants(self) -> None:
        """Bring the buffers that launches read up to date with this object's attributes."""
        if not self.kind:
            return
        for number, group in enumerate(self.optimizer.param_groups):
            momentum = self.momentum_constants(number) if self.cycle_momentum else ()
            values = [float(v) for v in (*self.constants(number), *momentum)]
            known = self._constants[number] if number < len(self._constants) else None
            if known is not None and known[0] == values:
                continue
            graph_break(f"changing what a {type(self).__name__} works with", "change it outside the step")
            if known is None or len(known[0]) != len(values):  # gpunet.capture notices that the old buffer is gone
                buffer = devices.empty((len(values),), numpy.float64, _place(group))
                self._constants[number : number + 1] = [(values, buffer)]
            self._constants[number] = (values, self._constants[number][1])
            self._constants[number][1][...] = devices.move(numpy.array(values), _place(group))

    def _check_groups(self) -> None:
        if len(self.optimizer.param_groups) != len(self._states):
            raise ArgumentError(
                f"{type(self).__name__} was made for {len(self._states)} parameter groups; the optimizer has "
                f"{len(self.optimizer.param_groups)} now. Make the scheduler after the last add_param_group"
            )

    # -- state
    def state_dict(self) -> dict[str, Any]:
        """Settings and step count as plain data, with PyTorch's keys; the rates are in the optimizer's state_dict."""
        settings = {k: v for k, v in self.__dict__.items() if not k.startswith("_") and k != "optimizer"}
        step = self.last_epoch
        return {**settings, "last_epoch": step, "_step_count": step + 1, "_last_lr": self.get_last_lr()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`; recorded steps follow.

        Raises:
            StateDictError: of another scheduler; nothing is changed then.
        """
        settings = {k: v for k, v in state_dict.items() if k[0] != "_" and k not in _OF_TORCH}
        unknown = [k for k in settings if not hasattr(self, k)]
        if unknown or "last_epoch" not in settings:
            raise StateDictError(
                f"this is no state of a {type(self).__name__}: "
                + (f"{unknown[0]!r} is none of its settings" if unknown else "there is no 'last_epoch'")
            )
        groups = len(settings.get("base_lrs", self.base_lrs))
        if groups != len(self.base_lrs):
            raise StateDictError(f"state for {groups} parameter groups; this {type(self).__name__} has {len(self.base_lrs)}")
        for key, value in settings.items():
            setattr(self, key, value)
        if self.kind and self.cycle_momentum:
            for group in self.optimizer.param_groups:
                group.move_momentum()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(last_epoch={self.last_epoch}, lr={self.get_last_lr()})"


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise DtypeError(f"{optimizer!r} is a {type(optimizer).__name__}; expected an optimizer of gpunet.optim")


def _place(group: ParameterGroup) -> Any:
    return devices.of(group.hyperparameters)


def counters(optimizer: Optimizer, count: int = 1) -> list[Array]:
    """A float64 buffer of zeros beside each group's learning rate."""
    return [devices.move(numpy.zeros(count), _place(group)) for group in optimizer.param_groups]


def for_each_group(what: str, optimizer: Optimizer, value: Any) -> list[float]:
    """A number for all groups, or a list of one for each.

    Raises:
        ArgumentError: as many numbers as there are no groups.
    """
    _check_optimizer(optimizer)
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [float(value)] * groups
    if len(value) != groups:
        raise ArgumentError(f"{what}: {len(value)} values for {groups} parameter groups; expected one for each")
    return [float(v) for v in value]


def functions_for_each_group(what: str, optimizer: Optimizer, value: Any) -> list[Callable[[int], float]]:
    _check_optimizer(optimizer)
    groups = len(optimizer.param_groups)
    functions = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(functions) != groups:
        raise ArgumentError(f"{what}: {len(functions)} functions for {groups} parameter groups; expected one for each")
    for function in functions:
        if not callable(function):
            raise DtypeError(f"{what}: {function!r} is a {type(function).__name__}; expected a function")
    return functions


def check(condition: bool, message: str) -> None:
    if not condition:
        raise ArgumentError(message)


