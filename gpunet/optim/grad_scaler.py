"""GradScaler: scale the loss, so that gradients in float16 do not become 0, and skip steps whose gradients overflow."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.autograd import COPY, FILL, Tensor, bump_version, contiguous_in_place, ignore_fp_errors, make_tensor
from gpunet.autograd.complex_numbers import as_real
from gpunet.autograd.loss_scaling import LossScaling, leaves_of
from gpunet.backend import devices, gpus
from gpunet.backend.devices import Array, Device
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, StateDictError
from gpunet.launch.faults import fault_record
from gpunet.launch.list_kernel import max_tensors, num_blocks
from gpunet.launch.memory import empty, ticket
from gpunet.launch.shims import Ufunc
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import active, graph_break, graph_break_on_read, unrecorded, warn_user
from gpunet.optim.optimizer import Optimizer
from gpunet.optim.scaling import SCALERS, unscale_gradients, update_scale
from gpunet.optim.step_counter import StepCounter

__all__ = ["GradScaler"]

_MAXIMUM = Ufunc("maximum")
_numbers = itertools.count()
#: What was done with the gradients of an optimizer since the last update.
_READY, _UNSCALED, _STEPPED = "ready", "unscaled", "stepped"


class _Progress:
    """What a scaler knows of an optimizer.

    Attributes:
        stage: one of the stages above.
        found: float64 (1,) on the device, 1 if its gradients were not finite when they were unscaled last, else 0.
    """

    def __init__(self, device: Device) -> None:
        self.stage = _READY
        self.found = devices.zeros((1,), numpy.float64, device)

    def check_end_of_step(self, stage: str) -> None:
        """Raise CaptureError at the end of a recorded step that has left another stage than it has found, ``stage``."""
        if self.stage != stage:
            what = f"a step that finds the gradients of an optimizer {stage} for a GradScaler and leaves them {self.stage}"
            graph_break(what, "call scaler.unscale_(), step() and update() all inside the step, or all outside")


class GradScaler(LossScaling):
    """Scale the loss and skip steps with infinite gradients, for training with ``autocast(dtype=float16)``.

        scaler = gpunet.amp.GradScaler("cuda")

        with gpunet.autocast("cuda"):
            loss = criterion(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)          # only needed before gradients are read or clipped
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    Its state is in device memory, and whether a step is skipped is decided there, without waiting: in a captured step, too.
    In a skipped step the parameters, the state of the optimizer and its step count stay as they are, and so does a schedule of
    the optimizer at its next ``step()`` if all steps since its last were skipped.  An infinite gradient of any of several
    accumulated backward passes skips their step.

    Args:
        device: kind of device, for the warning that there is none.
        init_scale: the first scale.
        growth_factor: factor of the scale after ``growth_interval`` finite steps in a row, above 1.
        backoff_factor: factor of the scale after a skipped step, below 1.
        growth_interval: finite steps in a row after which the scale grows.
        enabled: False makes all methods do nothing, and ``step`` call the optimizer's.

    Raises:
        ArgumentError: a number is out of range.
    """

    #: after so many skipped steps in a row an error is raised, as soon as the host reads a value from the device
    max_skips = 20

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        if not isinstance(device, str):
            raise DtypeError(f"GradScaler: device={device!r} has type {type(device).__name__}; expected a string, such as 'cuda'")
        if not growth_factor > 1.0:
            raise ArgumentError(f"GradScaler: growth_factor={growth_factor}; expected a number above 1")
        if not backoff_factor < 1.0:
            raise ArgumentError(f"GradScaler: backoff_factor={backoff_factor}; expected a number below 1")
        self._enabled = bool(enabled)
        if self._enabled and device == "cuda" and not gpus.is_available():
            message = "GradScaler('cuda') has no effect: there is no GPU; pass 'cpu' to scale on the CPU"
            warn_user(message)
            self._enabled = False
        self._device = device
        self._init_scale, self._init_growth_tracker = float(init_scale), 0
        self._growth_factor, self._backoff_factor, self._growth_interval = growth_factor, backoff_factor, growth_interval
        self._prepare()

    def _prepare(self) -> None:
        super().__init__()
        #: in device memory, from the first use on: the scale, float32 (1,), and the finite and the skipped steps in a row
        self._state: tuple[Array, Array] | None = None
        self._progress: weakref.WeakKeyDictionary[Any, _Progress] = weakref.WeakKeyDictionary()
        self._skipped: Array | None = None  # float64 (1,) on the device: whether a step before the last update was skipped
        self._number = next(_numbers)
        SCALERS[self._number] = self

    def names_of_optimizers(self) -> list[str]:
        """Return the class names of the optimizers whose last steps were skipped."""
        return [type(o).__name__ for o, progress in self._progress.items() if devices.to_host(progress.found)[0]]

    # -- scale
    def scale(self, outputs: Any) -> Any:
        """Return the loss times the scale; of a list or tuple of tensors, all of them.

        Raises:
            DtypeError: an output is no tensor.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            scale, _ = self._state or self._start(outputs.device)
            rely_on([scale])
            self.scaled |= leaves_of(outputs)
            return outputs * make_tensor(devices.move(scale, outputs.device).reshape(()))
        if isinstance(outputs, Iterable):
            values = map(self.scale, outputs)
            return type(outputs)(values) if isinstance(outputs, (list, tuple)) else values
        raise DtypeError(f"GradScaler.scale: outputs has type {type(outputs).__name__}; expected a tensor, or a list of tensors")

    def _start(self, device: Device) -> tuple[Array, Array]:
        """Create the state on the device of the first scaled loss."""
        with unrecorded():  # replays use it as memory from outside the step
            scale = devices.move(numpy.array([self._init_scale], numpy.float32), device)
            counters = devices.move(numpy.array([self._init_growth_tracker, 0], numpy.int64), device)
        self._state = scale, counters
        return self._state

    def _started(self, function: str) -> tuple[Array, Array]:
        if self._state is None:
            raise GradientError(f"GradScaler.{function}: no loss was scaled yet; call scaler.scale(loss).backward() before")
        rely_on([*self._state])
        return self._state

    # -- steps
    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer by the scale, and find whether they are finite.

        Raises:
            GradientError: it was called since the last update already, or no loss was scaled; or a parameter is float16.
            DeviceError: a gradient is on another device than the scale.
        """
        if not self._enabled:
            return
        scale, _ = self._started("unscale_")
        progress = self._progress_of(optimizer)
        if progress.stage != _READY:
            done = "unscale_()" if progress.stage == _UNSCALED else "step()"
            raise GradientError(
                f"GradScaler.unscale_: {done} was already called for this {type(optimizer).__name__} since the last update(); call "
                "scaler.update() at the end of each step"
            )
        self._unscale(optimizer, progress, scale)
        progress.stage = _UNSCALED

    def _progress_of(self, optimizer: Any) -> _Progress:
        state = self._state
        assert state is not None
        progress = self._progress.get(optimizer)
        if progress is None:
            with unrecorded():
                progress = self._progress[optimizer] = _Progress(devices.of(state[0]))
        if active.tape is not None and progress not in active.tape.at_end:
            stage = progress.stage
            rely_on([progress.found], "{}.stage == {}", (progress, stage), "the stage of a GradScaler: unscaled or not")
            active.tape.at_end[progress] = functools.partial(progress.check_end_of_step, stage)
        return progress

    @ignore_fp_errors
    def _unscale(self, optimizer: Any, progress: _Progress, scale: Array) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p._grad is not None]
        groups: dict[Any, list[Tensor]] = {}
        for p in parameters:
            gradient = p._grad.array
            if gradient.dtype == numpy.float16:
                raise GradientError(
                    f"GradScaler: a parameter of shape {tuple(p.shape)} is float16, where unscaled gradients would become 0; keep "
                    "the parameters in float32 and let autocast() cast them"
                )
            if devices.of(gradient) != devices.of(scale):
                raise DeviceError(
                    f"GradScaler: a gradient of shape {tuple(p.shape)} is on {devices.of(gradient)}, the scaled loss was on "
                    f"{devices.of(scale)}; use one scaler for each device"
                )
            numbers = as_real(p._grad)
            groups.setdefault(numbers.dtype, []).append(numbers)
        if not parameters:
            raise GradientError(
                f"GradScaler: no parameter of this {type(optimizer).__name__} has a gradient; call "
                "scaler.scale(loss).backward() before"
            )
        first = True
        for gradients in groups.values():
            limit = max_tensors(gradients[0].array)
            for batch in _batches(gradients, limit):
                with contiguous_in_place(batch):
                    arrays, counter, partials = [g.array for g in batch], ticket(scale), None
                    if counter is not None:
                        partials = empty((num_blocks(arrays),), numpy.uint32, scale)
                    unscale_gradients(arrays, progress.found, partials, counter, scale, first=first)
                first = False
        bump_version(*[p._grad for p in parameters])
        self.scaled.difference_update(parameters)

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call ``optimizer.step(*args, **kwargs)`` on unscaled gradients; nothing changes if they are not finite.

        The gradients are unscaled unless ``unscale_`` was called.  :attr:`stepped` tells whether the step was taken.  An optimizer
        with a ``step`` or ``update`` of its own reads on the host whether it is skipped, and its ``step`` is not called then.

        Returns:
            What the optimizer's ``step`` returns.

        Raises:
            GradientError: step() was called since the last update() already; or as :meth:`unscale_`.
            ArgumentError: a closure was passed: it would have to be run with another scale.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or "closure" in kwargs:
            raise ArgumentError("GradScaler.step: got a closure; compute the loss and its gradients before, without a closure")
        scale, _ = self._started("step")
        progress = self._progress_of(optimizer)
        if progress.stage == _STEPPED:
            raise GradientError(
                f"GradScaler.step: step() was already called for this {type(optimizer).__name__} since the last update(); call "
                "scaler.update() at the end of each step"
            )
        if progress.stage == _READY:
            self._unscale(optimizer, progress, scale)
        progress.stage = _STEPPED
        counter: StepCounter | None = None
        if isinstance(optimizer, Optimizer):
            counter = optimizer._step_counter = optimizer._step_counter or StepCounter(devices.of(scale))
        if counter is None or not optimizer.skips_on_device:
            graph_break_on_read(f"GradScaler.step() of {type(optimizer).__name__}, which has a step of its own")
            if not devices.to_host(progress.found)[0]:
                return optimizer.step(**kwargs)
            if counter is not None:
                counter.add(1.0)
            return None
        rely_on([], "{}._step_counter is {}", (optimizer, counter), "how the steps of an optimizer are counted")
        counter.add(progress.found)
        optimizer._skip = progress.found
        try:
            return optimizer.step(**kwargs)
        finally:
            optimizer._skip = None

    @property
    def stepped(self) -> bool:
        """Whether the steps before the last ``update()`` were taken, of all optimizers; reads the answer from the device."""
        graph_break_on_read("GradScaler.stepped")
        return self._skipped is None or not devices.to_host(self._skipped)[0]

    @property
    def skipped(self) -> Tensor:
        """Whether a step before the last ``update()`` was skipped: a bool of shape () on the device, also in a captured step.

        Raises:
            GradientError: there was no update() yet.
        """
        if self._skipped is None:
            raise GradientError("GradScaler.skipped: no step was taken yet; call scaler.step(optimizer) and scaler.update() before")
        rely_on([self._skipped])
        return make_tensor(self._skipped).reshape(()) != 0.0

    @ignore_fp_errors
    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to whether the steps since the last update were skipped; call it at the end of each step.

        Args:
            new_scale: set the scale to this number, or tensor of one element, instead.

        Raises:
            GradientError: there was no step since the last update; or ``max_skips`` steps in a row were skipped.
        """
        if not self._enabled:
            return
        scale, counters = self._started("update")
        checked = [progress for progress in self._progress.values() if progress.stage != _READY]
        if new_scale is not None:
            self._set_scale(new_scale)
        elif not checked:
            raise GradientError("GradScaler.update: no step() since the last update(); call scaler.step(optimizer) before")
        for progress in checked:
            progress.stage = _READY
        self.scaled.clear()
        if checked:
            skipped = self._combine([progress.found for progress in checked])
            if new_scale is None:
                self._adapt(scale, counters, skipped)

    def _combine(self, found: list[Array]) -> Array:
        """Remember whether the gradients of any optimizer were not finite, given that of each; return it, float64 (1,)."""
        if self._skipped is None:
            with unrecorded():
                self._skipped = devices.zeros((1,), numpy.float64, devices.of(found[0]))
        skipped = self._skipped
        rely_on([skipped])
        COPY(skipped, found[0])
        for other in found[1:]:
            _MAXIMUM(skipped, skipped, other)
        return skipped

    def _adapt(self, scale: Array, counters: Array, skipped: Array) -> None:
        """Launch the update of the scale."""
        options = growth, backoff, interval, max_skips = (
            self._growth_factor, self._backoff_factor, self._growth_interval, self.max_skips
        )  # fmt: skip
        names = "({0}._growth_factor, {0}._backoff_factor, {0}._growth_interval, {0}.max_skips) == {1}"
        rely_on([], names, (self, options), "an option of a GradScaler")
        update_scale(
            scale, counters, fault_record(scale), skipped, growth=growth, backoff=backoff, interval=interval, max_skips=max_skips,
            number=self._number,
        )  # fmt: skip

    def _set_scale(self, new_scale: Any) -> None:
        assert self._state is not None
        scale, _ = self._state
        if isinstance(new_scale, Tensor):
            if new_scale.numel() != 1 or new_scale.requires_grad:
                raise ArgumentError(
                    f"GradScaler.update: new_scale is a tensor of shape {tuple(new_scale.shape)} with requires_grad="
                    f"{new_scale.requires_grad}; expected one element without a gradient"
                )
            make_tensor(scale.reshape(())).copy_(new_scale.reshape(()))
        elif isinstance(new_scale, (int, float)):
            FILL(scale, value=float(new_scale))
        else:
            raise DtypeError(f"GradScaler.update: new_scale has type {type(new_scale).__name__}; expected a number or a tensor")

    # -- options and state
    def get_scale(self) -> float:
        """Return the scale, read from the device; 1 if the scaler is not enabled."""
        if not self._enabled:
            return 1.0
        graph_break_on_read("GradScaler.get_scale()")
        return self._init_scale if self._state is None else float(devices.to_host(self._state[0])[0])

    def get_growth_factor(self) -> float:
        """Return the factor by which the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """Return the factor of the scale after a skipped step."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor of the scale after a skipped step."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """Return the number of finite steps in a row after which the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the number of finite steps in a row after which the scale grows."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        """Return the number of finite steps since the scale has changed, read from the device."""
        if not self._enabled:
            return 0
        graph_break_on_read("the state of a GradScaler")
        return self._init_growth_tracker if self._state is None else int(devices.to_host(self._state[1])[0])

    def is_enabled(self) -> bool:
        """Return whether the scaler scales."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return the state with PyTorch's keys; an empty dict if the scaler is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval, "_growth_tracker": self._get_growth_tracker(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`, also one of PyTorch.

        Raises:
            StateDictError: a key is missing, as of a scaler that was not enabled.
        """
        if not self._enabled:
            return
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise StateDictError(
                f"GradScaler: the state has no {missing[0]!r}; that of a scaler with enabled=False is empty and cannot be loaded"
            )
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_scale, self._init_growth_tracker = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        if self._state is not None:
            graph_break("loading the state of a GradScaler", "load it outside the step")
            scale, counters = self._state
            devices.assign(scale, self._init_scale)
            devices.assign(counters, self._init_growth_tracker, slice(0, 1))
            devices.assign(counters, 0, slice(1, 2))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled or copied: options and scale, but not what was done since the last update."""
        left_out = ("_state", "_progress", "_skipped", "_number", "scaled")
        state = {key: value for key, value in vars(self).items() if key not in left_out}
        if self._enabled:
            state |= {"_init_scale": self.get_scale(), "_init_growth_tracker": self._get_growth_tracker()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()

    def __repr__(self) -> str:
        return f"GradScaler(scale={self.get_scale():g}, enabled={self._enabled})"


def _batches(tensors: list[Tensor], size: int) -> list[list[Tensor]]:
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]
