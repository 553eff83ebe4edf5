"""The base class of optimizers, parameter groups, and the buffers that their launches read.

The hyperparameters of a group (learning rate, momentum, ...) are stored in a float64 buffer on the device of its
parameters, and the step count of each parameter in another, so that a recorded launch uses their current values.
``group["lr"] = value`` writes the buffer immediately.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from types import MappingProxyType
from typing import Any, TypeVar

import numpy

from gpunet.autograd import (
    RemovableHandle,
    Tensor,
    bump_version,
    contiguous_in_place,
    enable_grad,
    ignore_fp_errors,
    make_tensor,
)
from gpunet.autograd.complex_numbers import as_real_in_place
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import complex_in_use, is_complex, is_inexact
from gpunet.errors import ArgumentError, DeviceError, DtypeError, InPlaceError, StateDictError
from gpunet.launch.list_kernel import max_tensors
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active, graph_break, graph_break_on_read
from gpunet.optim.step_counter import StepCounter

__all__ = ["Optimizer"]

Hook = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
#: Kinds of hooks of an optimizer.
_HOOKS = (
    "step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post",
)  # fmt: skip
#: Hooks of the steps of all optimizers.
_global_hooks: dict[str, dict[int, Hook]] = {"step_pre": {}, "step_post": {}}

#: Sets of parameters that step together, whose lists of state are kept.
_MAX_LISTS = 64
#: Valid range [low, high) of options that need not be >= 0.
_RANGES = {"betas": (0.0, 1.0)} | dict.fromkeys(("dampening", "lambd", "t0"), (-math.inf, math.inf))


class _Required:
    """The default of an option without a default, in optimizers written for older versions of PyTorch."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class ParameterGroup(dict[str, Any]):
    """A dict of the options of a parameter group, with its parameters under "params".

    Numeric options (hyperparameters) are stored in a device buffer, which launches read and schedules change.  Setting
    a hyperparameter writes the buffer; reading it reads the buffer, which synchronizes with the GPU.
    """

    hyperparameters: Array  # the buffer, float64
    places: Mapping[str, slice] = MappingProxyType({})  # the slice of each hyperparameter in the buffer
    changes = 0  # number of changes of :meth:`settings`, i.e. changes that need other launches
    read: Mapping[str, tuple[Tensor, int]] = MappingProxyType({})  # hyperparameters set to a tensor: it, and its version then

    @classmethod
    def make(cls, options: dict[str, Any], names: tuple[str, ...], device: Any) -> ParameterGroup:
        """Create a group.

        Args:
            options: "params" and the options.
            names: the options that are stored in the buffer, in this order.
            device: of the buffer.
        """
        group, places, count = cls(), {}, 0
        for name in names:
            if name not in options:
                raise ArgumentError(f"hyperparameters contains {name!r}, which is no option; add it to the defaults")
            size = len(options[name]) if isinstance(options[name], (tuple, list)) and name != "lr" else 1
            places[name] = slice(count, count := count + size)
        group.places = places
        group.hyperparameters = devices.empty((count,), numpy.float64, device)
        for key, value in options.items():
            group[key] = value
        return group

    @property
    def learning_rate(self) -> Array:
        """The view of the buffer that holds the learning rate, an array of one element."""
        return self.hyperparameters[self.places["lr"]]

    @property
    def momentum(self) -> Array | None:
        """The view of the buffer that holds the momentum, or Adam's beta1; None if the optimizer has neither."""
        place = self.places.get("momentum", self.places.get("betas"))
        return None if place is None else self.hyperparameters[place][:1]

    def last_set(self, key: str) -> Any:
        """Return the value of an option that Python code set last, without reading the buffer."""
        return dict.get(self, key)

    def enable_momentum(self) -> None:
        """Make launches apply momentum even if it is zero now, because a schedule is going to change it."""
        if "momentum" in self.places and not self.last_set("momentum"):
            self.changes += 1
            super().__setitem__("momentum", True)

    def settings(self) -> dict[str, Any]:
        """Return the options that determine the launches, which recorded steps guard on.

        Of hyperparameters in the buffer (except the learning rate), only whether they are zero matters.
        """
        fixed = {key: value for key, value in super().items() if key != "params" and key not in self.places}
        return fixed | {key: "not zero" if self.last_set(key) else "zero" for key in self.places if key != "lr"}

    def check(self, options: Mapping[str, Any]) -> None:
        """Validate hyperparameters without setting them.

        Raises:
            ArgumentError, DtypeError: as when setting them.
        """
        for key, place in self.places.items():
            _parse_numbers(key, options[key], place.stop - place.start)

    def check_tensors(self) -> None:
        """Raise if a tensor that an option was set to has changed: its value was read when it was set.

        Raises:
            InPlaceError: it has.
        """
        for key, (tensor, version) in self.read.items():
            if tensor._version[0] != version:
                raise InPlaceError(
                    f'the tensor that was passed as {key} has been changed in place, which the optimizer does not see; set '
                    f'group["{key}"] to it again'
                )

    def __setitem__(self, key: str, value: Any) -> None:
        place = self.places.get(key)
        if place is not None:
            numbers = _parse_numbers(key, value, place.stop - place.start)
            read = {name: pair for name, pair in self.read.items() if name != key}
            self.read = read | {key: (value, value._version[0])} if isinstance(value, Tensor) else read
            value = numbers[0] if len(numbers) == 1 else tuple(numbers)
            graph_break(f'setting group["{key}"]', "set it outside the step, or use gpunet.optim.lr_scheduler")
            for index, number in enumerate(numbers, place.start):
                devices.assign(self.hyperparameters, number, index)
        if place is None or (key != "lr" and bool(value) != bool(self.last_set(key))):
            self.changes += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if key in self.places:
            raise ArgumentError(f'group["{key}"] cannot be removed, the optimizer needs it; set it to another number')
        self.changes += 1
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        value = super().pop(key, *default) if key not in self else self[key]
        if key in self:
            del self[key]
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *options: Any, **more: Any) -> None:
        for key, value in dict(*options, **more).items():
            self[key] = value

    def __ior__(self, options: Any) -> ParameterGroup:  # type: ignore[misc,override]
        self.update(options)
        return self

    def __getitem__(self, key: str) -> Any:
        return self._read(f'group["{key}"]')[key] if key in self.places else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.places else super().get(key, default)

    def __iter__(self) -> Iterator[str]:  # overridden so that dict(group) and {**group} call __getitem__
        return super().__iter__()

    def items(self) -> Any:
        return self.copy().items()

    def values(self) -> Any:
        return self.copy().values()

    def copy(self) -> dict[str, Any]:
        """Return a dict of the current options."""
        return dict(super().items()) | (self._read("options of an optimizer") if self.places else {})

    __copy__ = copy

    def __repr__(self) -> str:
        return repr(self.copy())

    def _read(self, action: str) -> dict[str, Any]:
        """Return the hyperparameters in the buffer; ``action`` describes the access in messages."""
        graph_break_on_read(action)
        numbers = devices.to_host(self.hyperparameters).tolist()
        return {k: tuple(numbers[p]) if p.stop - p.start > 1 else numbers[p.start] for k, p in self.places.items()}


def _copied_state(value: Any, p: Tensor, name: str = "") -> Any:
    """Return a copy of a parameter's state in a state_dict, with its tensors on the device of the parameter.

    As in PyTorch, they get the dtype of the parameter, except the one named "step".
    """
    if isinstance(value, dict):
        return {key: _copied_state(item, p, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied_state(item, p, name) for item in value)
    if not isinstance(value, Tensor) and not hasattr(value, "__array__"):
        return copy.deepcopy(value)
    array = value.array if isinstance(value, Tensor) else numpy.asarray(value)
    target = devices.empty(array.shape, array.dtype if name == "step" else p.dtype, p.device)
    devices.assign(target, devices.move(array, p.device))
    return make_tensor(target)


class _Unchanged:
    """The condition that the options of a group still select the recorded launches."""

    def __init__(self, group: ParameterGroup) -> None:
        self.group, self.changes, self.settings = group, group.changes, group.settings()

    def holds(self) -> bool:
        """Whether the options are the recorded ones, though some were set; then remember the number of changes."""
        changes = self.group.changes
        if self.group.settings() != self.settings:
            return False
        self.changes = changes
        return True

    def describe(self) -> str:
        """Return the options that differ, with their values then and now."""
        before, now = self.settings, self.group.settings()
        changed = [name for name in now | before if before.get(name) != now.get(name)]
        return f"an option of an optimizer ({', '.join(f'{n} was {before.get(n)} and is {now.get(n)}' for n in changed)})"


def _parse_numbers(key: str, value: Any, count: int) -> list[float]:
    """Validate a hyperparameter, a number or a sequence of ``count`` numbers; return the numbers.

    Raises:
        ArgumentError: a number is out of range.
        DtypeError: ``value`` is not a number, or not a sequence of ``count`` numbers.
    """
    try:
        numbers = [float(v) for v in (value if isinstance(value, (tuple, list)) else [value])]
    except (TypeError, ValueError):
        raise DtypeError(f"{_title(key)} {value!r} has type {type(value).__name__}; expected a number") from None
    if len(numbers) != count:
        raise DtypeError(f"{_title(key)} {value!r}; expected {'a number' if count == 1 else f'{count} numbers'}")
    low, high = _RANGES.get(key, (0.0, math.inf))
    if not all(low <= number and (number < high or high == math.inf) for number in numbers):
        expected = "zero or a positive number" if high == math.inf else f"numbers in [{low:g}, {high:g})"
        raise ArgumentError(f"{_title(key)} {numbers[0] if count == 1 else tuple(numbers)}; expected {expected}")
    return numbers


def _title(key: str) -> str:
    return "learning rate" if key == "lr" else key


def register_optimizer_step_pre_hook(hook: Hook) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before each step of any optimizer, see :meth:`Optimizer.register_step_pre_hook`."""
    return RemovableHandle(_global_hooks["step_pre"], hook)


def register_optimizer_step_post_hook(hook: Hook) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after each step of any optimizer."""
    return RemovableHandle(_global_hooks["step_post"], hook)


def _with_hooks(step: F) -> F:
    """Decorator of ``step``: call the hooks before and after it, and count the step."""

    @functools.wraps(step)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._skip is None:  # else GradScaler counts it
            counter = self._step_counter
            rely_on([], "{}._step_counter is {}", (self, counter), "whether a GradScaler takes the steps of an optimizer")
            if counter is not None:
                counter.add()
        tables = before_all, before, after, after_all = (
            _global_hooks["step_pre"], self._hooks["step_pre"], self._hooks["step_post"], _global_hooks["step_post"]
        )  # fmt: skip
        if active.tape is not None:
            for table in tables:
                rely_on([], "{} == {}", (table, dict(table)), "the hooks of an optimizer's step")
        if not (before_all or before or after or after_all):
            return step(self, *args, **kwargs)
        arguments: Any = (self, *args)
        for hook in (*before_all.values(), *before.values()):
            result = hook(self, arguments, kwargs)
            if result is not None:
                if not isinstance(result, tuple) or len(result) != 2:
                    kind = f"a value of type {type(result).__name__}"
                    raise DtypeError(f"{hook} returned {kind}; a step pre-hook returns None or a tuple (args, kwargs)")
                arguments, kwargs = result
        result = step(*arguments, **kwargs)
        for hook in (*after.values(), *after_all.values()):
            hook(self, arguments, kwargs)
        return result

    return call  # type: ignore[return-value]


class Optimizer:
    """Base class of optimizers.  A subclass launches its kernel in :meth:`update`.

    The class attribute ``hyperparameters`` names the numeric options, in the order in which the kernel reads them from
    the buffer ``group.hyperparameters``.  They may change between replays of a recorded step; a change of any other
    option makes the step record again.

    Args:
        params: tensors; pairs of name and tensor, such as ``model.named_parameters()``; or dicts
            ``{"params": tensors, "lr": ...}`` with options per group.
        defaults: the options of groups that do not set them.

    Raises:
        ArgumentError: there are no parameters, one occurs twice, or an option is out of range or not supported.
        DtypeError: a parameter is not a floating or complex leaf tensor.
    """

    hyperparameters: tuple[str, ...] = ("lr",)
    #: the state that is one float64 number for each parameter
    counters: tuple[str, ...] = ("step",)
    #: whether the rule is right for the two parts of complex parameters, each as a number of its own
    takes_complex = True
    #: during a step of a GradScaler: float64 (1,) in device memory; launches change nothing if it is not 0
    _skip: Array | None = None
    #: whether the launches of ``update`` read ``_skip``; a subclass with a ``step`` or ``update`` of its own declares it anew
    skips_on_device = False
    #: counts the steps since a GradScaler took one: a schedule stays where it is while all are skipped
    _step_counter: StepCounter | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a subclass's own ``step`` call the hooks of the optimizer, too, and skip on the host unless it declares more."""
        super().__init_subclass__(**options)
        if "step" in vars(cls):
            cls.step = _with_hooks(vars(cls)["step"])  # type: ignore[method-assign]
        if not {"step", "update"}.isdisjoint(vars(cls)) and "skips_on_device" not in vars(cls):
            cls.skips_on_device = False

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.param_groups: list[ParameterGroup] = []
        #: cache of :meth:`state_lists`, by state names and parameters: the tensors in ``state`` that it was built from,
        #: the lists of arrays, and the dtype of the parameters
        self._cached_lists: dict[Any, tuple[list[Tensor], list[list[Array] | None], Any]] = {}
        self.regrouped = [0]  # number of rebuilds of the cached lists, which recorded steps guard on
        self._hooks: dict[str, dict[int, Hook]] = {kind: {} for kind in _HOOKS}
        if isinstance(params, Tensor):
            raise DtypeError("params is a single tensor; pass a list of tensors, such as model.parameters()")
        if not isinstance(params, Iterable) or isinstance(params, (set, frozenset)):
            raise DtypeError(f"params has type {type(params).__name__}; pass a list of tensors, such as model.parameters()")
        groups = list(params)
        if not groups:
            raise ArgumentError("optimizer got no parameters; pass model.parameters() of a model that has parameters")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group ``{"params": tensors, "lr": ...}``; options that it lacks are the defaults.

        Raises:
            ArgumentError, DtypeError: as the constructor.
        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise DtypeError(f'parameter group {param_group!r}; expected a dict {{"params": tensors, "lr": ...}}')
        params = param_group["params"]
        if isinstance(params, (set, frozenset)):
            raise DtypeError(f'parameter group with "params" of type {type(params).__name__}; expected a list: a set has no order')
        params = [params] if isinstance(params, Tensor) else list(params)
        options = {**self.defaults, **param_group}
        names = [p[0] for p in params if isinstance(p, tuple)]
        if names:
            options["param_names"] = names
            params = [p[1] if isinstance(p, tuple) else p for p in params]
        if len(names) not in (0, len(params)) or any(("param_names" in g) != bool(names) for g in self.param_groups):
            raise ArgumentError("some parameters have a name, others none; pass all as pairs of name and tensor, or none")
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise DtypeError(f"optimizer parameter {p!r} has type {type(p).__name__}; expected a tensor")
            if not is_inexact(p.dtype) or not p.is_leaf:
                raise DtypeError(f"optimizer parameter of shape {p.shape}: expected a floating or complex leaf tensor")
            if is_complex(p.dtype) and not self.takes_complex:
                raise DtypeError(f"{type(self).__name__}: a parameter has dtype {p.dtype}; expected real ones")
            if id(p) in seen:
                raise ArgumentError(f"a parameter of shape {p.shape} is given to the optimizer twice")
            seen.add(id(p))
        if missing := [name for name, value in options.items() if value is required]:
            raise ArgumentError(f"{type(self).__name__}: a parameter group without {missing[0]}, which has no default; pass it")
        options["params"] = params
        self._check_options(options)
        device = params[0].device if params else devices.default_device()
        names_in_buffer = self.hyperparameters
        if "lr" not in options and names_in_buffer is Optimizer.hyperparameters:
            names_in_buffer = ()  # an optimizer of the user's own may have no learning rate
        self.param_groups.append(ParameterGroup.make(options, names_in_buffer, device))

    def _check_options(self, options: dict[str, Any]) -> None:
        """Validate the options that all optimizers have, then those of the subclass."""
        name = type(self).__name__
        if options.get("differentiable"):
            raise ArgumentError(f"{name}: differentiable=True; expected False: a step is not part of the graph")
        if options.get("fused") and options.get("foreach"):
            raise ArgumentError(f"{name}: fused=True and foreach=True; pass one of them. Both have no effect here")
        self.check_options(options)

    def check_options(self, options: dict[str, Any]) -> None:
        """Validate the options of a group, in subclasses.

        Raises:
            ArgumentError: an option is out of range.
        """

    def check_not_negative(self, options: dict[str, Any], *names: str) -> None:
        """Raise ArgumentError unless all of these options are zero or positive."""
        for name in names:
            if not options[name] >= 0.0:
                raise ArgumentError(f"{type(self).__name__}: {name}={options[name]}; expected zero or a positive number")

    def check_pair(self, options: dict[str, Any], name: str) -> tuple[float, float]:
        """Return an option that is a pair of numbers; raise DtypeError if it is not."""
        pair = options[name]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DtypeError(f"{type(self).__name__}: {name}={pair!r}; expected a tuple of two numbers")
        return pair[0], pair[1]

    def check_betas(self, options: dict[str, Any]) -> None:
        """Raise unless the option ``betas`` is a pair of numbers in [0, 1)."""
        for beta in self.check_pair(options, "betas"):
            if not 0.0 <= beta < 1.0:
                raise ArgumentError(f"{type(self).__name__}: betas={options['betas']}; expected numbers in [0, 1)")

    def update(self, group: ParameterGroup, params: list[Tensor], grads: list[Array]) -> None:
        """Launch the kernel over parameters with gradients: at most as many as one launch takes, all of one dtype and device.

        Complex parameters, their gradients and their state are given as real ones of their two parts, (..., 2), as PyTorch's
        optimizers see them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def state_lists(
        self, params: list[Tensor], names: tuple[str, ...], initial: Mapping[str, Any] = MappingProxyType({})
    ) -> list[list[Array] | None]:
        """Return for each state name the list of the state arrays of all ``params``, or None for an empty name.

        State is created at first use.  The :attr:`counters`, such as the step count, are float64 (1,); other state has the
        shape and dtype of its parameter.

        Args:
            initial: the value of new state by its name, a number or an array of one element on the device; zero if absent.

        Raises:
            DtypeError: the dtype of the parameters has changed since the state was created.
        """
        key = (names, tuple(map(id, params)))
        states = [self.state[p] for p in params]
        tensors = [*itertools.chain.from_iterable(map(dict.values, states))]
        cached, lists, dtype = self._cached_lists.get(key, ([], [], params[0].array.dtype))
        if dtype != params[0].array.dtype:
            raise DtypeError(
                f"{type(self).__name__}: the state of a parameter of shape {params[0].shape} is {dtype}, but it is "
                f"{params[0].array.dtype} now; convert it with optimizer.load_state_dict(optimizer.state_dict())"
            )
        if not lists or len(cached) != len(tensors) or not all(map(is_, cached, tensors)):
            if lists or any(states):  # other parameters step together, so their step counts may differ; or other state
                for joined in itertools.chain.from_iterable(lists for _, lists, _ in self._cached_lists.values()):
                    if isinstance(joined, JoinedArrays):
                        joined.flat = None
                self.regrouped[0] += 1
            lists = [self._state_list(params, name, initial.get(name)) if name else None for name in names]
            if len(self._cached_lists) >= _MAX_LISTS:  # each step may have gradients of other parameters
                del self._cached_lists[next(iter(self._cached_lists))]
            self._cached_lists[key] = [*itertools.chain.from_iterable(map(dict.values, states))], lists, dtype
        if active.tape is not None:
            description = "the state of an optimizer, or which parameters step together"
            values = self.regrouped, self.regrouped[0], self, len(self.state)
            rely_on(self._cached_lists[key][0], "{0}[0] == {1} and len({2}.state) >= {3}", values, description)
        return lists

    def _state_list(self, params: list[Tensor], name: str, initial: Any = None) -> list[Array]:
        """Return the state ``name`` of all ``params``; create missing state, joined if all of it is missing."""
        new = [p for p in params if name not in self.state[p]]
        shapes = [(1,) if name in self.counters else p.shape for p in new]
        ends = list(itertools.accumulate(map(math.prod, shapes)))
        if new:
            dtype = numpy.float64 if name in self.counters else new[0].dtype
            flat = devices.zeros((ends[-1],), dtype, new[0].device)
            if initial is not None:
                devices.assign(flat, initial)
            for p, shape, end in zip(new, shapes, ends):
                self.state[p][name] = make_tensor(flat[end - math.prod(shape) : end].reshape(shape))
        arrays = [self.state[p][name].array for p in params]
        return JoinedArrays(arrays, flat) if len(new) == len(params) else arrays

    @_with_hooks
    @ignore_fp_errors
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss and its gradients, and returns the loss.

        Returns:
            The loss that ``closure`` returned, or None.

        Raises:
            DeviceError: a parameter was moved to another device after the optimizer was created.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if active.tape is not None:
            self._rely_on_parameters()
        for group in self.param_groups:
            batch: list[Tensor] = []  # parameters of one launch
            for p in group["params"]:
                if p._grad is None:
                    continue
                array = p.array
                if not batch:
                    first, limit = array, max_tensors(array)
                elif len(batch) == limit or array.dtype != first.dtype or type(array) is not type(first):
                    self._launch(group, batch)
                    batch, first, limit = [], array, max_tensors(array)
                batch.append(p)
            if batch:
                self._launch(group, batch)
        return loss

    def _rely_on_parameters(self) -> None:
        """Make recorded steps rely on the present groups and parameters."""
        owners: list[tuple[str, Any, list[Any]]] = [("{0}.param_groups", self, self.param_groups)]
        owners += [("{1}({0}, 'params')", group, group["params"]) for group in self.param_groups]
        for items_of, owner, items in owners:  # one unrolled expression takes half the time of a loop over the items
            terms = [f"{items_of} is {{2}} and len({{2}}) == {len(items)}"]
            terms += [f"{{2}}[{number}] is {{{3 + number}}}" for number in range(len(items))]
            memory = items if owner is not self else []
            rely_on(memory, " and ".join(terms), (owner, dict.get, items, *items), "the parameters of an optimizer")

    def _launch(self, group: ParameterGroup, params: list[Tensor]) -> None:
        if type(group.hyperparameters) is not type(params[0].array):
            raise DeviceError(
                f"{type(self).__name__}: a parameter of shape {params[0].shape} is on {params[0].device}, but the "
                f"optimizer was created for parameters on {devices.of(group.hyperparameters)}; create it after "
                f"model.to({str(params[0].device)!r})"
            )
        if active.tape is not None:
            unchanged = _Unchanged(group)
            values = group, unchanged, unchanged
            memory = [group.hyperparameters] if self._skip is None else [group.hyperparameters, self._skip]
            rely_on(memory, "({}.changes == {}.changes or {}.holds())", values, unchanged.describe)
        if group.read:
            group.check_tensors()
        grads = [p._grad for p in params if p._grad is not None]
        if complex_in_use and is_complex(params[0].array.dtype):
            with contiguous_in_place([*params, *grads]), as_real_in_place([*params, *grads]):
                self.update(group, params, [g.array for g in grads])
        elif strided := [t for t in (*params, *grads) if not t.array.flags.c_contiguous]:
            with contiguous_in_place(strided):
                self.update(group, params, [g.array for g in grads])
        else:
            self.update(group, params, [g.array for g in grads])
        bump_version(*params)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the ``grad`` of all parameters to None, or with ``set_to_none=False`` to zero in place."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach().zero_()

    # -- hooks
    def _register(self, kind: str, hook: Hook, prepend: bool = False) -> RemovableHandle:
        hooks = self._hooks[kind]
        before = dict(hooks)
        if prepend:
            hooks.clear()
        handle = RemovableHandle(hooks, hook)
        hooks.update(before)
        return handle

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step.

        ``args`` begins with the optimizer.  A result that is not None, a tuple ``(args, kwargs)``, replaces the arguments.
        """
        return self._register("step_pre", hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return self._register("step_post", hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before each :meth:`state_dict`; with ``prepend``, before the hooks registered already."""
        return self._register("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after each :meth:`state_dict`; its result, unless None, replaces the dict."""
        return self._register("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before each :meth:`load_state_dict`, on a shallow copy of the dict.

        Its result, unless None, is loaded instead.
        """
        return self._register("load_state_dict_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after each :meth:`load_state_dict`."""
        return self._register("load_state_dict_post", hook, prepend)

    # -- state
    def state_dict(self) -> dict[str, Any]:
        """Return the state and the options in PyTorch's format, with parameters identified by their number."""
        for hook in self._hooks["state_dict_pre"].values():
            hook(self)
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        states = (
            (numbers[id(p)], self._saved_state(p, state)) if isinstance(p, Tensor) else (p, state)
            for p, state in self.state.items()
        )
        result = {
            "state": {key: state for key, state in states if state},
            "param_groups": [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in self.param_groups],
        }
        for hook in self._hooks["state_dict_post"].values():
            replaced = hook(self, result)
            result = result if replaced is None else replaced
        return result

    def saved_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of a parameter as a state_dict holds it: the counters are 0-d there."""
        is_counter = {name: name in self.counters and isinstance(value, Tensor) for name, value in state.items()}
        return {name: value.reshape(()) if is_counter[name] else value for name, value in state.items()}

    def _saved_state(self, p: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`saved_state`, in which that of a complex parameter is complex."""
        saved = dict(self.saved_state(state))
        if is_complex(p.array.dtype):
            pairs = (*p.array.shape, 2)
            for name, value in saved.items():
                if value.shape == pairs:
                    saved[name] = make_tensor(value.array.view(p.array.dtype)[..., 0])
        return saved

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled or copied: all but the hooks and the caches of a process."""
        left_out = ("_cached_lists", "regrouped", "_hooks", "_skip", "_step_counter")
        return {key: value for key, value in vars(self).items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _cached_lists={}, regrouped=[0], _hooks={kind: {} for kind in _HOOKS})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state and options of a :meth:`state_dict`, also one of the same PyTorch optimizer.

        The optimizer is unchanged if an error is raised.

        Raises:
            StateDictError: the groups, options or state do not match this optimizer.
            ArgumentError, DtypeError: an option is out of range or not a number.
        """
        state_dict = dict(state_dict)
        for hook in self._hooks["load_state_dict_pre"].values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        if not {"state", "param_groups"} <= state_dict.keys():
            raise StateDictError(f"a dict with the keys {[*state_dict]}; expected the state_dict() of an optimizer")
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise StateDictError(
                f"optimizer state has groups of {[len(g['params']) for g in groups]} parameters; this optimizer has "
                f"{[len(g['params']) for g in self.param_groups]}"
            )
        for group, saved in zip(self.param_groups, groups):
            if missing := [key for key in group.places if key not in saved]:
                raise StateDictError(f"not a state_dict of {type(self).__name__}: its groups have no {missing[0]!r}")
            group.check(saved)
            self._check_options({**group, **saved})
        numbered = {i: p for g, m in zip(groups, self.param_groups) for i, p in zip(g["params"], m["params"])}
        with as_real_in_place([*numbered.values()] if self._has_own_state else []):
            self._load_state(numbered, state_dict["state"], groups)
        for hook in self._hooks["load_state_dict_post"].values():
            hook(self)

    def _load_state(self, numbered: dict[int, Tensor], states: dict[Any, Any], groups: list[dict[str, Any]]) -> None:
        loaded: dict[Any, dict[str, Any]] = {}
        for number, state in states.items():
            if not str(number).isdigit():  # not the state of a parameter
                loaded[number] = state
                continue
            p = numbered.get(int(number))
            if p is None:
                raise StateDictError(f"optimizer state of parameter {number}, which is not in any group")
            loaded[p] = self._checked_state(p, state, number) if self._has_own_state else _copied_state(state, p)
        for group, saved in zip(self.param_groups, groups):
            for key, value in saved.items():
                if key not in ("params", "param_names"):
                    group[key] = value
        self.state.clear()
        self._cached_lists.clear()
        self.regrouped[0] += 1
        for p, state in loaded.items():
            if not self._has_own_state or not isinstance(p, Tensor):
                self.state[p] = state
                continue
            for name, array in state.items():
                (target,) = self._state_list([p], name)
                devices.assign(target, devices.move(array, p.device).reshape(target.shape))

    @property
    def _has_own_state(self) -> bool:
        """Whether the state is that of :meth:`state_lists`; else, as of a subclass with its own ``step``, it may be anything."""
        return type(self).step is Optimizer.step

    def _checked_state(self, p: Tensor, state: dict[str, Any], number: Any) -> dict[str, Array]:
        """Return the arrays of a parameter's state in a state_dict.

        Raises:
            StateDictError: one has another shape than the parameter.
        """
        arrays = {k: v.array if isinstance(v, Tensor) else numpy.asarray(v) for k, v in state.items() if v is not None}
        arrays = {k: devices.parts_of(v) if is_complex(v.dtype) else v for k, v in arrays.items()}
        for name, array in arrays.items():
            if array.size != (1 if name in self.counters else p.array.size):
                raise StateDictError(
                    f"optimizer state {name!r} of parameter {number} has shape {array.shape}, expected "
                    f"{(1,) if name in self.counters else p.shape}"
                )
        if "momentum_buffer" in arrays:
            arrays.setdefault("step", numpy.ones(1))  # PyTorch's SGD does not save it; any number > 0 will do
        return arrays

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.param_groups[0].items() if k != "params")
        return f"{type(self).__name__}({options})"
