"""The training step: forward, backward, and what moves when the gradients of a window of batches are complete."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from gpunet import captured
from gpunet.autograd import Tensor, no_grad
from gpunet.autograd.autocast import autocast
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import float64
from gpunet.captured.ir import tree_map
from gpunet.data.parts import Parts
from gpunet.errors import CheckpointError
from gpunet.launch.random import default_generator
from gpunet.nn import Module
from gpunet.nn.utils import clip_grad_norm_
from gpunet.ops.creation import full
from gpunet.ops.index import where
from gpunet.ops.join import cat
from gpunet.optim import Optimizer
from gpunet.optim.grad_scaler import GradScaler
from gpunet.optim.lr_scheduler import LRScheduler
from gpunet.optim.swa_utils import AveragedModel
from gpunet.train.checkpoint import check_type
from gpunet.train.losses import CountedLoss, zero_if_uncounted
from gpunet.train.reduction import Overlapped, Sums, Tree
from gpunet.train.sharing import Sharing


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
        sharing: the processes that share each batch, or None.
    """

    def __init__(
        self, model: Module, loss: CountedLoss, optimizer: Optimizer, *, device: Device, accumulate: int, clip: float | None,
        dtype: Any, scaler: GradScaler | None, schedule: LRScheduler | None, average: AveragedModel | None, keeps_sums: bool,
        keeps_output: bool, capture: bool | str, sharing: Sharing | None = None,
    ) -> None:  # fmt: skip
        self.optimizer, self.accumulate, self._sharing = optimizer, accumulate, sharing
        self.num_added = 0  # batches of the window so far
        self._sums = sums = Sums(device)
        total, count, unit, window = sums.total, sums.count, sums.unit, sums.window
        mean = loss.mean  # a name of the step, so that its tensors are guarded
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        reduction: Any = None  # of gradients, where processes share batches
        if sharing is not None:
            with_tree, group = sharing.is_tree, sharing.group
            reduction = Tree(parameters, group, sums) if with_tree else Overlapped(parameters, group, sums, accumulate == 1)
        self._reduction = reduction

        def forward(batch: tuple[Any, ...]) -> tuple[Any, Tensor, Any]:
            """The output of the model, the loss to differentiate and its count."""
            *inputs, target = batch
            with nullcontext() if dtype is None else autocast(device.type, dtype):
                output = model(*inputs)
                if accumulate == 1 and reduction is None:
                    return output, mean(output, target), loss.count(output, target) if keeps_sums else 0
                return output, *loss.total(output, target)

        def backward(value: Tensor) -> None:
            (value if scaler is None else scaler.scale(value)).backward()

        def update() -> None:
            if reduction is not None:
                reduction.finish()
            if scaler is not None:
                scaler.unscale_(optimizer)
            if accumulate > 1 and reduction is None:
                sums.scale_gradients(parameters)
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

        def add_parts(is_first: bool, num_rows: int, shares: tuple[tuple[int, int], ...], batches: list[list[Any]]) -> list[Any]:
            """Add the gradients of a batch of ``num_rows`` rows, of which this process has shards.

            Args:
                shares: (first row in the batch, number of rows) of each shard.
                batches: of the shards that have rows.
            """
            if is_first:
                optimizer.zero_grad()
                with no_grad():
                    unit.zero_().add_(float(num_rows))
            reduction.start(is_first)
            outputs: list[Any] = []
            remaining = iter(batches)
            start = default_generator.mark(device) if len(batches) > 1 else None
            for first, rows in shares:
                if not rows:
                    reduction.add_nothing()
                    continue
                if outputs and start is not None:
                    default_generator.rewind(start)
                with default_generator.sharing(first, rows, num_rows):
                    output, value, weight = forward(tuple(next(remaining)))
                    with no_grad():
                        figures = cat([_number(value.detach(), device), _number(weight, device)])
                    value = value / unit.to(value.dtype)
                    reduction.add(value if scaler is None else scaler.scale(value), figures)
                outputs.append(tree_map(output, Tensor.detach, Tensor) if keeps_output else None)
            reduction.end_batch(is_first)
            return outputs

        def step_parts(num_rows: int, shares: tuple[tuple[int, int], ...], batches: list[list[Any]]) -> list[Any]:
            """A window of one batch, which processes share."""
            outputs = add_parts(True, num_rows, shares, batches)
            update()
            return outputs

        functions: list[Callable[..., Any]] = [step, add, update] if sharing is None else [step_parts, add_parts, update]
        if capture:
            backend = "numpy" if capture is True else capture
            functions = [captured.capture(function, backend=backend, fullgraph=False) for function in functions]
        self._step, self._add, self._update = functions

    def add(self, parts: Parts) -> tuple[list[Any], bool]:
        """Take a batch, or what this process has of it; without ``sharing`` that is one batch.

        Returns:
            The outputs, None where they are not kept, and whether the optimizer has stepped.
        """
        if self._sharing is None:
            (batch,) = parts.batches
            if self.accumulate == 1:
                return [self._step(*batch)], True
            outputs = [self._add(self.num_added == 0, *batch)]
        elif self.accumulate == 1:
            return self._step(*parts[:3]), True
        else:
            outputs = self._add(self.num_added == 0, *parts[:3])
        self.num_added += 1
        return outputs, self.num_added == self.accumulate and self.finish_window()

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
        return self._sums.total, self._sums.count

    def reset(self) -> None:
        """Start the sums of an epoch anew."""
        self._sums.total.zero_()
        self._sums.count.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, and the gradients of a window that is not complete."""
        state: dict[str, Any] = {"num_added": self.num_added}
        state |= vars(self._sums)
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
            getattr(self._sums, name).copy_(state[name].to(self._sums.total.device))
        if self.num_added:
            parameters = self._parameters()
            if len(parameters) != len(state["gradients"]):
                raise CheckpointError(f"{len(state['gradients'])} gradients for {len(parameters)} parameters")
            for p, gradient in zip(parameters, state["gradients"]):
                p.grad = None if gradient is None else gradient.to(p.device)
            if self._sharing is not None:
                self._reduction.resume(self._sharing.is_first)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _number(value: Any, device: Device) -> Tensor:
    """A number, or a tensor of one, as a float64 vector of one element."""
    if isinstance(value, Tensor):
        return value.double().reshape(1)
    return full((1,), float(value), dtype=float64, device=device)
