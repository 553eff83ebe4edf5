"""The training step: forward, backward, and what moves when the gradients of a window of batches are complete."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from gpunet import captured
from gpunet.autograd import Tensor, no_grad
from gpunet.autograd.autocast import autocast
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float64
from gpunet.captured.ir import tree_map
from gpunet.errors import CheckpointError
from gpunet.nn import Module
from gpunet.nn.utils import clip_grad_norm_
from gpunet.ops.creation import zeros
from gpunet.ops.index import where
from gpunet.optim import Optimizer
from gpunet.optim.grad_scaler import GradScaler
from gpunet.optim.lr_scheduler import LRScheduler
from gpunet.optim.swa_utils import AveragedModel
from gpunet.train.checkpoint import check_type
from gpunet.train.losses import CountedLoss, zero_if_uncounted


class TrainingStep:
    """A step of a Trainer, captured if possible.

    With ``accumulate`` above 1, the gradients of the sums of the losses add up, in units of the first batch's count, and are
    divided by the count of all batches: the result is the gradient of the mean over all samples, for any partition.

    Args:
        model, loss, optimizer: the parts of the step.
        accumulate: batches of a window, after which the optimizer steps.
        clip: the largest gradient norm; None does not clip.
        dtype: of autocast; None computes in the dtype of the parameters.
        scaler: of the loss, for float16.
        schedule: a schedule that counts optimizer steps.
        average: moving averages of the parameters.
        keeps_sums: whether to add up the losses of an epoch.
        keeps_output: whether :meth:`add` returns the output of the model.
        capture: False runs eagerly, True or the name of a backend of ``gpunet.capture`` records the step.
    """

    def __init__(
        self, model: Module, loss: CountedLoss, optimizer: Optimizer, *, device: Device, accumulate: int, clip: float | None,
        dtype: Any, scaler: GradScaler | None, schedule: LRScheduler | None, average: AveragedModel | None, keeps_sums: bool,
        keeps_output: bool, capture: bool | str,
    ) -> None:  # fmt: skip
        self.optimizer, self.accumulate = optimizer, accumulate
        self.num_added = 0  # batches of the window so far
        self._total, self._count, self._unit, self._window = (zeros((), dtype=float64, device=device) for _ in range(4))
        total, count, unit, window = self._total, self._count, self._unit, self._window
        mean = loss.mean  # a name of the step, so that its tensors are guarded
        parameters = [p for group in optimizer.param_groups for p in group["params"]]

        def forward(batch: tuple[Any, ...]) -> tuple[Any, Tensor, Any]:
            """The output of the model, the loss to differentiate and its count."""
            *inputs, target = batch
            with nullcontext() if dtype is None else autocast(device.type, dtype):
                output = model(*inputs)
                if accumulate == 1:
                    return output, mean(output, target), loss.count(output, target) if keeps_sums else 0
                return output, *loss.total(output, target)

        def backward(value: Tensor) -> None:
            (value if scaler is None else scaler.scale(value)).backward()

        def update() -> None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            if accumulate > 1:
                with no_grad():
                    factor = unit / where(window == 0.0, 1.0, window)
                    for p in parameters:
                        if p.grad is not None:
                            p.grad.mul_(factor.to(p.grad.dtype))
            if clip is not None:
                clip_grad_norm_(parameters, clip)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            if schedule is not None:
                schedule.step()
            if average is not None:
                average.update_unless(None if scaler is None else scaler.skipped, model)

        def add(is_first: bool, *batch: Any) -> Any:
            """Add the gradients of a batch to those of the window."""
            if is_first:
                optimizer.zero_grad()
            output, value, weight = forward(batch)
            summed = value
            if accumulate > 1:
                with no_grad():
                    if is_first:
                        window.zero_()
                        unit.zero_().add_(weight)
                        unit.copy_(where(unit > 0.0, unit, 1.0))
                    window.add_(weight)
                value = value / unit.to(value.dtype)
            backward(value)
            if keeps_sums:
                with no_grad():
                    summed = summed.detach().double()
                    total.add_(summed if accumulate > 1 else zero_if_uncounted(summed * weight, weight))
                    count.add_(weight)
            return tree_map(output, Tensor.detach, Tensor) if keeps_output else None

        def step(*batch: Any) -> Any:
            """A window of one batch."""
            output = add(True, *batch)
            update()
            return output

        self._step, self._add, self._update = step, add, update
        if capture:
            backend = "numpy" if capture is True else capture
            self._step, self._add, self._update = (
                captured.capture(function, backend=backend, fullgraph=False) for function in (step, add, update)
            )

    def add(self, batch: list[Any]) -> tuple[Any, bool]:
        """Take a batch; return the output, if it is kept, and whether the optimizer has stepped."""
        if self.accumulate == 1:
            return self._step(*batch), True
        output = self._add(self.num_added == 0, *batch)
        self.num_added += 1
        return output, self.num_added == self.accumulate and self.finish_window()

    def finish_window(self) -> bool:
        """Step the optimizer on the batches of the window, if there are any; return whether there are."""
        if self.num_added == 0:
            return False
        self._update()
        self.num_added = 0
        return True

    @property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The sum of the losses since :meth:`reset`, and their count, on the device."""
        return self._total, self._count

    def reset(self) -> None:
        """Start the sums of an epoch anew."""
        self._total.zero_()
        self._count.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, and the gradients of a window that is not complete."""
        state: dict[str, Any] = {"num_added": self.num_added}
        state |= {"total": self._total, "count": self._count, "unit": self._unit, "window": self._window}
        if self.num_added:
            state["gradients"] = [None if p.grad is None else p.grad for p in self._parameters()]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.num_added = state["num_added"]
        check_type("the batches of a window", self.num_added, int)
        if not 0 <= self.num_added < self.accumulate:
            raise CheckpointError(f"it has {self.num_added} batches of a window; accumulate={self.accumulate} is too small")
        for name in ("total", "count", "unit", "window"):
            getattr(self, f"_{name}").copy_(state[name].to(self._total.device))
        if self.num_added:
            parameters = self._parameters()
            if len(parameters) != len(state["gradients"]):
                raise CheckpointError(f"{len(state['gradients'])} gradients for {len(parameters)} parameters")
            for p, gradient in zip(parameters, state["gradients"]):
                p.grad = None if gradient is None else gradient.to(p.device)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


