"""The base class of metrics: sums and rows of batches on a device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float64
from gpunet.errors import DeviceError, ShapeError, StateDictError
from gpunet.launch.stateful import PLAIN, rely_on
from gpunet.launch.tape import graph_break, unrecorded, warn_user
from gpunet.ops.creation import full
from gpunet.ops.join import cat

__all__ = ["Metric"]

M = TypeVar("M", bound="Metric")


class Metric:
    """Base class of metrics.

        accuracy = gpunet.metrics.Accuracy("multiclass", num_classes=10)
        for x, y in batches:
            accuracy.update(model(x), y)
        print(accuracy.compute().item())
        accuracy.reset()

    ``update`` adds a batch to sums in float64, on the device of the first batch, without waiting for it; it may stand in a captured
    step.  A metric whose value is no function of sums, such as :class:`~gpunet.metrics.AUROC`, keeps the rows themselves, and is
    updated behind a captured step.  ``compute`` returns the value of all batches since the last ``reset``, which depends neither on
    their sizes nor on their order.  Calling the metric updates it, and returns the value of that batch alone.

    Args:
        sums: the shape of each sum by name.
        rows: the names of the rows that are kept.
    """

    def __init__(self, sums: Mapping[str, tuple[int, ...]], rows: tuple[str, ...] = ()) -> None:
        self._shapes = dict(sums)
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in rows}
        self._device: Device | None = None  # of the first batch

    # -- for users
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def compute(self) -> Any:
        """Return the value of all batches since the last reset."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch, and return the value of that batch alone."""
        batch = copy.copy(self)
        batch._sums, batch._rows, batch._device = {}, {name: [] for name in self._rows}, None
        batch.update(*args, **kwargs)
        self.merge_state(batch)
        return batch.compute()

    def reset(self) -> None:
        """Start anew, on the same device."""
        self._rely_on_sums()
        for tensor in self._sums.values():
            tensor.zero_()
        for kept in self._rows.values():
            kept.clear()

    def merge_state(self, other: Metric) -> None:
        """Add the batches of another metric of the same kind, for example from another process.

        Raises:
            ShapeError: it is of another kind, or has other classes or options.
            DeviceError: it is on another device.
        """
        if type(other) is not type(self) or other._shapes != self._shapes or not self._has_options_of(other):
            raise ShapeError(f"{self._name}.merge_state: got {other!r}; expected one like {self!r}")
        if other._device is not None:
            self._start(other._device)
        self._check_device("the other metric", other._device)
        if other._sums:
            self._rely_on_sums()
            self._add(other._sums)
        for name, kept in other._rows.items():
            self._rows[name] += kept

    @property
    def device(self) -> Device | None:
        """The device of the sums; None before the first batch."""
        return self._device

    def to(self: M, device: Any) -> M:
        """Move the sums to a device; return the metric."""
        self._device = Device(device)
        for tensor in self._sums.values():
            tensor.data = tensor.to(self._device)
        for kept in self._rows.values():
            kept[:] = [tensor.to(self._device) for tensor in kept]
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, and the rows kept, by name."""
        state = {name: self._sum(name) for name in self._shapes}
        return state | {name: cat(kept) for name, kept in self._rows.items() if kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the sums and rows that :meth:`state_dict` returned.

        Raises:
            StateDictError: names are missing or unexpected, or shapes differ.
        """
        state = {name: wrap(value, f"{self._name}.load_state_dict").detach() for name, value in state_dict.items()}
        names = {*self._shapes, *(self._rows if state.keys() & self._rows.keys() else ())}
        problems = [f"missing keys: {', '.join(sorted(names - state.keys()))}"] if names - state.keys() else []
        problems += [f"unexpected keys: {', '.join(sorted(state.keys() - names))}"] if state.keys() - names else []
        problems += [
            f"{name} has shape {tuple(state[name].shape)}, expected {shape}"
            for name, shape in self._shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ]
        if problems:
            raise StateDictError(f"state_dict does not fit {self!r}: {'; '.join(problems)}")
        for name in self._shapes:
            self._sum(name).copy_(state[name])
        for name in self._rows:
            rows = state.get(name)
            self._rows[name] = [] if rows is None else [rows.clone() if self._device is None else rows.to(self._device).clone()]

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and value is not None}
        return f"{self._name}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    # -- for subclasses
    @property
    def _name(self) -> str:
        return type(self).__name__

    def _take(self, **given: Any) -> list[Any]:
        """Return the arguments of ``update`` as tensors without a graph; the sums are on their device from now on.

        Raises:
            DtypeError: an argument is complex.
            DeviceError: an argument is on another device than the sums.
        """
        tensors = [wrap(value, f"{self._name}.update").detach() for value in given.values()]
        refuse_complex(f"{self._name}.update", tensors)
        self._start(tensors[0].device)
        for name, tensor in zip(given, tensors):
            self._check_device(name, tensor.device)
        self._rely_on_sums()
        return tensors

    def _start(self, device: Device) -> None:
        if self._device is None:
            with unrecorded():  # replays add to memory from outside of the step
                self.to(device)
                for name in self._shapes:
                    self._sum(name)

    def _check_device(self, name: str, device: Device | None) -> None:
        if device is not None and device != self._device:
            raise DeviceError(
                f"{self._name}: {name} is on {device}, the sums of the metric are on {self._device}; move one of them by .to()"
            )

    def _rely_on_sums(self) -> None:
        options = "the options of a metric"
        rely_on([*self._sums.values()], "{}() == {}", (self._options, self._options()), options)

    def _options(self) -> tuple[Any, ...]:
        return tuple([value for name, value in vars(self).items() if name != "_device" and isinstance(value, (*PLAIN, tuple))])

    def _has_options_of(self, other: Metric) -> bool:
        pairs = zip(self._options(), other._options(), strict=True)
        return all(a == b or (a != a and b != b) for a, b in pairs)  # zero_division may be NaN

    def _sum(self, name: str) -> Any:
        """Return a sum, zeros before the first batch."""
        if name not in self._sums:
            place = devices.default_device() if self._device is None else self._device
            self._sums[name] = make_tensor(devices.zeros(self._shapes[name], float64, place))
        return self._sums[name]

    def _add(self, sums: Mapping[str, Tensor]) -> None:
        """Add the sums of a batch."""
        for name, value in sums.items():
            self._sum(name).add_(value)

    def _keep(self, **rows: Any) -> None:
        """Keep rows: tensors whose first dimension counts them."""
        graph_break(
            f"{self._name}.update(), which keeps rows,", "return its arguments from the step, and update the metric behind the call"
        )
        for name, tensor in rows.items():
            self._rows[name].append(tensor.clone())

    def _all(self, name: str) -> Any:
        """Return all rows; None if there are none."""
        kept = self._rows[name]
        if len(kept) > 1:
            kept[:] = [cat(kept)]
        return kept[0] if kept else None

    def _nan(self, reason: str = "no rows since the last reset", shape: tuple[int, ...] = ()) -> Any:
        """Return NaN, and warn of the reason."""
        warn_user(f"{self._name}: {reason}; the value is nan")
        return full(shape, float("nan"), dtype=float64, device=self._device)
