"""What optimisers share: parameter groups, state, and the buffers that a launch reads.

A group's hyperparameters (learning rate, momentum, ...) live in a float64 buffer beside its parameters, and each
parameter's step count in another, so that a recorded launch follows them.  ``group["lr"] = value`` writes the buffer at once.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from types import MappingProxyType
from typing import Any

import numpy

from gpunet.autograd import Tensor, bump_version, enable_grad, ignore_fp_errors
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DeviceError, DtypeError, StateDictError
from gpunet.launch.list_kernel import MAX_TENSORS
from gpunet.launch.memory import JoinedArrays
from gpunet.launch.tape import active, graph_break, graph_break_on_read

__all__ = ["Optimizer"]

#: In which numbers an option must be; others are zero or positive.
_RANGES = {"betas": (0.0, 1.0), "dampening": (-math.inf, math.inf)}


class ParameterGroup(dict[str, Any]):
    """The parameters of a group under "params" beside its options.

    Options that are numbers are in the buffer that the launches read, where schedules move them: setting one writes the
    buffer, and reading one reads it, which waits for a card.
    """

    hyperparameters: Array  # float64
    places: Mapping[str, slice] = MappingProxyType({})  # of the options in it
    changes = 0  # how often an option was set to what other launches are made with

    @classmethod
    def make(cls, options: dict[str, Any], names: tuple[str, ...]) -> ParameterGroup:
        """A group with these options; those called ``names`` are in the buffer, in this order."""
        group, places, count = cls(), {}, 0
        for name in names:
            if name not in options:
                raise ArgumentError(f"{name!r} is named in hyperparameters, but is no option; add it to the defaults")
            size = len(options[name]) if isinstance(options[name], (tuple, list)) and name != "lr" else 1
            places[name] = slice(count, count := count + size)
        group.places = places
        group.hyperparameters = devices.empty((count,), numpy.float64, options["params"][0].device)
        for key, value in options.items():
            group[key] = value
        return group

    @property
    def learning_rate(self) -> Array:
        """Where the launches read it."""
        return self.hyperparameters[self.places["lr"]]

    @property
    def momentum(self) -> Array | None:
        """Where the launches read the momentum or, of Adam, beta1."""
        place = self.places.get("momentum", self.places.get("betas"))
        return None if place is None else self.hyperparameters[place][:1]

    def set_to(self, key: str) -> Any:
        """An option as it was set last from Python, without a look at the buffer."""
        return dict.get(self, key)

    def move_momentum(self) -> None:
        """Launch with momentum from now on, though it is zero now: a schedule moves it."""
        if "momentum" in self.places and not self.set_to("momentum"):
            self.changes += 1
            super().__setitem__("momentum", True)

    def settings(self) -> dict[str, Any]:
        """What launches are made with: a recorded step holds for it.  Of what is in the buffer, whether it is zero."""
        fixed = {key: value for key, value in super().items() if key != "params" and key not in self.places}
        return fixed | {key: "not zero" if self.set_to(key) else "zero" for key in self.places if key != "lr"}

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise what setting these options would raise, and set none."""
        for key, place in self.places.items():
            _numbers(key, options[key], place.stop - place.start)

    def __setitem__(self, key: str, value: Any) -> None:
        place = self.places.get(key)
        if place is not None:
            numbers = _numbers(key, value, place.stop - place.start)
            value = numbers[0] if len(numbers) == 1 else tuple(numbers)
            graph_break(f'setting group["{key}"]', "set it outside the step, or step a schedule of gpunet.optim.lr_scheduler")
            with devices.on_device_of(self.hyperparameters):
                for index, number in enumerate(numbers, place.start):
                    self.hyperparameters[index] = number
        if place is None or (key != "lr" and bool(value) != bool(self.set_to(key))):
            self.changes += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if key in self.places:
            raise ArgumentError(f'group["{key}"] cannot be removed, since launches read it; set it to another number')
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

    def __iter__(self) -> Iterator[str]:  # of its own, so that dict(group) and {**group} ask for each item, too
        return super().__iter__()

    def items(self) -> Any:
        return self.copy().items()

    def values(self) -> Any:
        return self.copy().values()

    def copy(self) -> dict[str, Any]:
        """A dict of the options as they are now."""
        return dict(super().items()) | (self._read("options of an optimizer") if self.places else {})

    __copy__ = copy

    def __repr__(self) -> str:
        return repr(self.copy())

    def _read(self, what: str) -> dict[str, Any]:
        graph_break_on_read(what, self.hyperparameters)
        numbers = self.hyperparameters.tolist()
        return {k: tuple(numbers[p]) if p.stop - p.start > 1 else numbers[p.start] for k, p in self.places.items()}


def _numbers(key: str, value: Any, count: int) -> list[float]:
    """The numbers of an option that lives in a buffer.

    Raises:
        ArgumentError: out of range.
        DtypeError: no number, or not as many as there are.
    """
    try:
        numbers = [float(v) for v in (value if isinstance(value, (tuple, list)) else [value])]
    except (TypeError, ValueError):
        raise DtypeError(f"{_title(key)} {value!r} is a {type(value).__name__}; expected a number") from None
    if len(numbers) != count:
        raise DtypeError(f"{_title(key)} {value!r}; expected {'a number' if count == 1 else f'{count} numbers'}")
    least, limit = _RANGES.get(key, (0.0, math.inf))
    if not all(least <= number and (number < limit or limit == math.inf) for number in numbers):
        expected = "zero or a positive number" if limit == math.inf else f"numbers in [{least:g}, {limit:g})"
        raise ArgumentError(f"{_title(key)} {numbers[0] if count == 1 else tuple(numbers)}; expected {expected}")
    return numbers


def _title(key: str) -> str:
    return "learning rate" if key == "lr" else key


class Optimizer:
    """Base class.  A subclass names its per-parameter state and launches its kernel in :meth:`update`.

    ``hyperparameters`` names the options that are numbers, in the order in which the kernel finds them in the buffer
    ``group.hyperparameters``: they may change between replays of a recorded step, which is recorded anew when another changes.

    Args:
        params: tensors, or dicts ``{"params": tensors, "lr": ...}`` with options of their own.
        defaults: the options of groups that do not set them.

    Raises:
        ArgumentError: no parameters, one twice, or an option out of range.
        DtypeError: something that is not a tensor.
    """

    hyperparameters: tuple[str, ...] = ("lr",)

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.param_groups: list[ParameterGroup] = []
        #: of parameters that step together, the state as it was found in ``state``, its arrays and the parameters' dtype
        self._lists: dict[Any, tuple[list[Tensor], list[list[Array] | None], Any]] = {}
        self.regrouped = [0]  # how often the parameters were grouped anew: a recorded step relies on it
        if isinstance(params, Tensor):
            raise DtypeError("params is a single tensor; pass a list of tensors, such as model.parameters()")
        if not isinstance(params, Iterable):
            raise DtypeError(f"params is a {type(params).__name__}; pass a list of tensors, such as model.parameters()")
        groups = list(params)
        if not groups:
            raise ArgumentError("optimizer got no parameters; pass model.parameters() of a model that has some")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with options of their own."""
        if not isinstance(group, dict) or "params" not in group:
            raise DtypeError(f'parameter group {group!r}; expected a dict {{"params": tensors, "lr": ...}}, as all groups')
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise DtypeError(f"optimizer parameter {p!r} is a {type(p).__name__}; expected a tensor")
            if p.dtype.kind != "f" or not p.is_leaf:
                raise DtypeError(f"optimizer parameter of shape {p.shape}: expected a floating leaf tensor")
            if id(p) in seen:
                raise ArgumentError(f"a parameter of shape {p.shape} is given to the optimizer twice")
            seen.add(id(p))
        if not params:
            raise ArgumentError("a parameter group without parameters")
        options = {**self.defaults, **group, "params": params}
        self.check_options(options)
        self.param_groups.append(ParameterGroup.make(options, self.hyperparameters))

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ArgumentError for an option out of range."""

    def update(self, group: ParameterGroup, params: list[Tensor], grads: list[Array]) -> None:
        """Launch the kernel over parameters that have a gradient: at most MAX_TENSORS, of one dtype and device."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it updates")

    def state_lists(self, params: list[Tensor], names: tuple[str, ...]) -> list[list[Array] | None]:
        """For each name (None for an empty one) the state of all ``params``, made of zeros at first use.

        "step" counts a parameter's steps in float64; all else has the parameter's shape and dtype.
        """
        key = (names, tuple(map(id, params)))
        states = [self.state[p] for p in params]
        now = [*itertools.chain.from_iterable(map(dict.values, states))]
        found, lists, dtype = self._lists.get(key, ([], [], params[0].array.dtype))
        if dtype != params[0].array.dtype:
            raise DtypeError(
                f"{type(self).__name__}: the state of a parameter of shape {params[0].shape} is {dtype}, but it is "
                f"{params[0].array.dtype} now; bring the state along: optimizer.load_state_dict(optimizer.state_dict())"
            )
        if not lists or len(found) != len(now) or not all(map(is_, found, now)):
            if lists or any(states):  # other parameters together than before: their steps may differ now; or other state
                for joined in itertools.chain.from_iterable(lists for _, lists, _ in self._lists.values()):
                    if isinstance(joined, JoinedArrays):
                        joined.flat = None
                self.regrouped[0] += 1
            lists = [self._state_list(params, name) if name else None for name in names]
            self._lists[key] = [*itertools.chain.from_iterable(map(dict.values, states))], lists, dtype
        if active.tape is not None:
            expression = "{0}[0] == {1} and len({2}.state) >= {3}"
            values = self.regrouped, self.regrouped[0], self, len(self.state)
            active.tape.relied.append((expression, values, "the state of an optimizer, or which parameters step together"))
        return lists

    def _state_list(self, params: list[Tensor], name: str) -> list[Array]:
        new = [p for p in params if name not in self.state[p]]
        shapes = [(1,) if name == "step" else p.shape for p in new]
        ends = list(itertools.accumulate(map(math.prod, shapes)))
        if new:
            dtype = numpy.float64 if name == "step" else new[0].dtype
            flat = devices.empty((ends[-1],), dtype, new[0].device)
            with devices.on_device_of(flat):
                flat.fill(0)
            for p, shape, end in zip(new, shapes, ends):
                self.state[p][name] = Tensor(flat[end - math.prod(shape) : end].reshape(shape))
        arrays = [self.state[p][name].array for p in params]
        return JoinedArrays(arrays, flat) if len(new) == len(params) else arrays

    @ignore_fp_errors
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.  ``closure``, if given, computes the loss again and returns it."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if active.tape is not None:
            self._rely_on_parameters(active.tape)
        for group in self.param_groups:
            alike: list[Tensor] = []
            for p in group["params"]:
                if p._grad is None:
                    continue
                array = p.array
                if not alike:
                    first = array
                elif len(alike) == MAX_TENSORS or array.dtype != first.dtype or type(array) is not type(first):
                    self._launch(group, alike)
                    alike, first = [], array
                alike.append(p)
            if alike:
                self._launch(group, alike)
        return loss

    def _rely_on_parameters(self, tape: Any) -> None:
        """A replay holds for the groups and parameters that there are."""
        owners: list[tuple[str, Any, list[Any]]] = [("{0}.param_groups", self, self.param_groups)]
        owners += [("{1}({0}, 'params')", group, group["params"]) for group in self.param_groups]
        for items_of, owner, items in owners:  # each by itself: half the time of a loop in a replay
            terms = [f"{items_of} is {{2}} and len({{2}}) == {len(items)}"]
            terms += [f"{{2}}[{number}] is {{{3 + number}}}" for number in range(len(items))]
            tape.relied.append((" and ".join(terms), (owner, dict.get, items, *items), "the parameters of an optimizer"))

    def _launch(self, group: ParameterGroup, params: list[Tensor]) -> None:
        if type(group.hyperparameters) is not type(params[0].array):
            raise DeviceError(
                f"{type(self).__name__}: a parameter of shape {params[0].shape} is on {params[0].device}, but the optimizer was "
                f"made for parameters on {devices.of(group.hyperparameters)}; make it after model.to({str(params[0].device)!r})"
            )
        if active.tape is not None:
            active.tape.options.append([group, group.changes, group.settings()])
        self.update(group, params, [p._grad.array for p in params if p._grad is not None])
        for p in params:
            bump_version(p)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero in place."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach().zero_()

    def state_dict(self) -> dict[str, Any]:
        """State and options, parameters by their number, in PyTorch's shape."""
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        return {
            "state": {numbers[id(p)]: dict(state) for p, state in self.state.items()},
            "param_groups": [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, also one with PyTorch's tensors converted to arrays.

        Raises:
            StateDictError: groups, options or parameters that are not this optimizer's; nothing is changed then.
            ArgumentError, DtypeError: an option out of range, or no number; nothing is changed then.
        """
        if not {"state", "param_groups"} <= state_dict.keys():
            raise StateDictError(f"a dict of {[*state_dict]}; expected what the state_dict() of an optimizer returned")
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise StateDictError(
                f"optimizer state has groups of {[len(g['params']) for g in groups]} parameters; this optimizer has "
                f"{[len(g['params']) for g in self.param_groups]}"
            )
        for mine, theirs in zip(self.param_groups, groups):
            if missing := [key for key in mine.places if key not in theirs]:
                raise StateDictError(f"this is no state of {type(self).__name__}: its groups have no {missing[0]!r}")
            mine.check(theirs)
        numbered = {i: p for g, m in zip(groups, self.param_groups) for i, p in zip(g["params"], m["params"])}
        loaded: dict[Tensor, dict[str, Array]] = {}
        for number, state in state_dict["state"].items():
            p = numbered.get(int(number))
            if p is None:
                raise StateDictError(f"optimizer state of parameter {number}, which is in none of its groups")
            arrays = {
                k: v.array if isinstance(v, Tensor) else numpy.asarray(v) for k, v in state.items() if v is not None
            }
            for name, array in arrays.items():
                if array.size != (1 if name == "step" else p.array.size):
                    raise StateDictError(
                        f"optimizer state {name!r} of parameter {number} has shape {array.shape}, expected "
                        f"{(1,) if name == 'step' else p.shape}"
                    )
            if "momentum_buffer" in arrays:
                arrays.setdefault("step", numpy.ones(1))  # PyTorch's SGD counts no steps; only the first is special
            loaded[p] = arrays
        for mine, theirs in zip(self.param_groups, groups):
            for key, value in theirs.items():
                if key != "params":
                    mine[key] = value
        self.state.clear()
        self._lists.clear()
        for p, arrays in loaded.items():
            for name, array in arrays.items():
                (target,) = self._state_list([p], name)
                with devices.on_device_of(target):
                    target[...] = devices.move(array, p.device).reshape(target.shape)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.param_groups[0].items() if k != "params")
        return f"{type(self).__name__}({options})"
