"""Averages of a model's weights: equal ones (stochastic weight averaging) and exponential ones, with PyTorch's names.

    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    for inputs, targets in batches:
        ...
        optimizer.step()
        ema.update_parameters(model)
    ema(inputs)

The update is one launch for all parameters of a dtype.  It may be part of a recorded step.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module
from gpunet.ops.creation import tensor
from gpunet.ops.index import where
from gpunet.optim.averaging import move_averages
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, check, number_per_group
from gpunet.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip


class _MultiAverage:
    """A function that averages lists of tensors; ``weight`` is the weight of the present values, given the number of models."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self.weight = weight

    def __call__(self, averaged_params: Sequence[Tensor], current_params: Sequence[Tensor], num_averaged: Any) -> None:
        count = num_averaged if isinstance(num_averaged, Tensor) else tensor(num_averaged, device=averaged_params[0].device)
        move_averages(averaged_params, current_params, self.weight(count))


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ArgumentError(f"decay={decay}; expected a number in [0, 1]")


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], None]:
    """Return the ``multi_avg_fn`` of an exponential moving average: average = decay * average + (1 - decay) * parameter.

    Raises:
        ArgumentError: ``decay`` is not in [0, 1].
    """
    _check_decay(decay)
    return _MultiAverage(lambda count: count.double() * 0.0 + (1.0 - decay))


def get_swa_multi_avg_fn() -> Callable[[Any, Any, Any], None]:
    """Return the ``multi_avg_fn`` of equally weighted averages."""
    return _MultiAverage(lambda count: 1.0 / (count.double() + 1.0))


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], Any]:
    """Return the ``avg_fn`` of an exponential moving average, see :func:`get_ema_multi_avg_fn`."""
    _check_decay(decay)
    return lambda averaged, current, num_averaged: decay * averaged + (1.0 - decay) * current


def get_swa_avg_fn() -> Callable[[Any, Any, Any], Any]:
    """Return the ``avg_fn`` of equally weighted averages."""
    return lambda averaged, current, num_averaged: averaged + (current - averaged) / (num_averaged + 1)


class AveragedModel(Module):
    """A copy of a model whose parameters are averages over the calls of :meth:`update_parameters`.

    Sources: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018); exponential averages:
    Polyak and Juditsky (1992).

    Args:
        model: the model to copy.
        device: of the copy; that of the model if None.
        avg_fn: called as ``avg_fn(average, parameter, num_averaged)`` for each parameter, returns the new average.
        multi_avg_fn: called as ``multi_avg_fn(averages, parameters, num_averaged)`` with lists, changes the averages in place.
            If neither is given, all models have the same weight.
        use_buffers: average buffers, too; else they are copied from the model.

    Raises:
        ArgumentError: both functions are given.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., None] | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("AveragedModel got avg_fn and multi_avg_fn; pass one of them")
        self.module = copy.deepcopy(model)
        first = next(itertools.chain(model.parameters(), model.buffers()), None)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device if device is not None or first is None else first.device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged model."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of ``model`` into the averages; the first call copies them.

        Raises:
            CaptureError: called inside a recorded step with an ``avg_fn``, or with a ``multi_avg_fn`` other than those of this
                module: whether the call is the first one is then read from the device.
        """
        self.update_unless(None, model)

    @no_grad()
    def update_unless(self, is_skipped: Tensor | None, model: Module) -> None:
        """:meth:`update_parameters`, which changes nothing but buffers if a step was skipped.

        Args:
            is_skipped: ``GradScaler.skipped``; its value is not read on the host, except for an ``avg_fn``, or a ``multi_avg_fn``
                other than those of this module.
        """

        def tensors(of: Module) -> list[Tensor]:
            return [*of.parameters(), *(of.buffers() if self.use_buffers else ())]

        averages = tensors(self.module)
        values = [v.detach().to(a.device) for a, v in zip(averages, tensors(model), strict=True)]
        if self.avg_fn is None and isinstance(self.multi_avg_fn, _MultiAverage | None):
            average = self.multi_avg_fn or get_swa_multi_avg_fn()
            assert isinstance(average, _MultiAverage)
            weight = where(self.n_averaged == 0, 1.0, average.weight(self.n_averaged))
            move_averages(averages, values, weight if is_skipped is None else where(is_skipped, 0.0, weight))
        elif is_skipped is not None and is_skipped:
            pass
        elif self.n_averaged == 0:
            for a, v in zip(averages, values):
                a.copy_(v)
        elif self.multi_avg_fn is not None:
            self.multi_avg_fn(averages, values, self.n_averaged)
        else:
            assert self.avg_fn is not None
            for a, v in zip(averages, values):
                a.copy_(self.avg_fn(a.detach(), v, self.n_averaged.to(a.device)))
        if not self.use_buffers:
            for mine, its in zip(self.module.buffers(), model.buffers(), strict=True):
                mine.copy_(its.to(mine.device))
        self.n_averaged += 1 if is_skipped is None else (~is_skipped).long()


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of batch normalization anew, as averages over the batches of ``loader``.

    Args:
        loader: batches of inputs, or lists or tuples that start with them.
        model: the model, in the mode that it is left in; its modules with ``running_mean`` and ``reset_running_stats`` are updated.
        device: move the inputs there.
    """
    momenta = {
        module: module.momentum
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None and hasattr(module, "reset_running_stats")
    }
    if not momenta:
        return
    was_training = model.training
    model.train()
    try:
        for module in momenta:
            module.reset_running_stats()
            module.momentum = None  # an equally weighted average
        for batch in loader:
            inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(inputs if device is None else inputs.to(device))
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """Anneal the learning rate of each group from its present value to ``swa_lr``, and keep it there.

    Args:
        swa_lr: the final learning rate; a number, or a list with one number per group.
        anneal_epochs: number of steps of the annealing.
        anneal_strategy: shape of the curve, "cos" or "linear".
        optimizer, last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: an option is out of range.
    """

    kind = "anneal"

    def __init__(
        self, optimizer: Optimizer, swa_lr: float, anneal_epochs: int = 10, anneal_strategy: str = "cos", last_epoch: int = -1
    ) -> None:
        for group, rate in zip(optimizer.param_groups, number_per_group("swa_lr", optimizer, swa_lr)):
            group["swa_lr"] = rate
        strategies = ("cos", "linear")
        check(anneal_strategy in strategies, f"SWALR: anneal_strategy={anneal_strategy!r}; expected 'cos' or 'linear'")
        is_valid = isinstance(anneal_epochs, int) and anneal_epochs >= 0
        check(is_valid, f"SWALR: anneal_epochs={anneal_epochs!r}; expected an integer, zero or positive")
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def constants(self, index: int) -> list[float]:
        group = self.optimizer.param_groups[index]
        check("swa_lr" in group, "SWALR: a parameter group was added without 'swa_lr'; pass it to add_param_group()")
        return [group["swa_lr"], self.anneal_epochs, float(self._anneal_strategy == "cos")]

    def _go_to(self, epoch: int) -> None:
        raise ArgumentError(f"SWALR.step({epoch}): its rate follows from the previous one; call step() without an argument")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_anneal_strategy": self._anneal_strategy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._anneal_strategy = state_dict.get("_anneal_strategy", self._anneal_strategy)
        self.update_constants()
