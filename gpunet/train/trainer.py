"""The training loop: :class:`Trainer`, with checkpoints of its whole state."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import as_dtype
from gpunet.backend.long_work import long_work
from gpunet.data.parts import Parts, is_divided
from gpunet.distributed.process_group import ProcessGroup
from gpunet.errors import ArgumentError, CheckpointError, DataError, GpunetError
from gpunet.nn import Module, SyncBatchNorm
from gpunet.optim import Optimizer
from gpunet.optim.grad_scaler import GradScaler
from gpunet.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from gpunet.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from gpunet.train import checkpoint
from gpunet.train.batches import Placement
from gpunet.train.callbacks import Callback
from gpunet.train.evaluation import evaluate_on, ratio
from gpunet.train.figures import Figure, as_number, check_mergeable, figures_of, merged
from gpunet.train.finite import explain_loss
from gpunet.train.history import History
from gpunet.train.interrupt import stop_on_interrupt
from gpunet.train.keeping import everything_kept
from gpunet.train.loaders import length_of, named_loaders, whole_batch
from gpunet.train.losses import CountedLoss
from gpunet.train.monitor import Monitor
from gpunet.train.preflight import check_first_batch, check_mode, check_optimizer
from gpunet.train.progress import Progress
from gpunet.train.rate_finder import LearningRates, endless, has_diverged, rates_between, set_rate
from gpunet.train.run_folder import RunFolder
from gpunet.train.schedule import check_schedule, make_schedule
from gpunet.train.sharing import Sharing, make_sharing, own_seeds, set_epoch
from gpunet.train.state import load_state, state_of
from gpunet.train.step import TrainingStep

__all__ = ["Trainer"]

PRECISIONS = ("float32", "bfloat16", "float16")

#: Why training ends within an epoch, or not; of several processes the last one counts.
_REASONS = ("", "stopped", "interrupted")


class Trainer:
    """Train a model.

        trainer = Trainer(model, nn.MSELoss(), optimizer, metrics={"error": MeanAbsoluteError()}, patience=5)
        history = trainer.fit(train, validation, epochs=30)

    Each figure of an epoch is a sum over its samples divided by their count (or the sum of their weights).  With ``accumulate``
    the gradient is that of all samples of the window at once.  When training ends, by its end, by ``patience``, by Ctrl-C or by
    an error, the model has the weights of the best epoch.  Batches are (inputs, target), or several inputs and then the target;
    the model gets the inputs, the loss the output and the target.

    Args:
        model: the network.
        loss: a module or function of (output, target) that returns a mean.
        optimizer: the optimizer of the parameters.
        metrics: objects with ``reset()``, ``update(output, target)`` and ``compute()``, by name.
        count: a function of (output, target) that returns what the mean of the loss divides by; by default the method ``count``
            of the loss, or else the number of rows of the target.
        accumulate: batches for each optimizer step.
        clip: the largest gradient norm; larger gradients are scaled down to it.
        precision: "float32" (the dtype of the parameters), "bfloat16" or "float16" (autocast, for float16 with loss scaling).
        schedule: a learning-rate schedule, or a function of (optimizer, length) that makes one.
        schedule_per: "epoch" or "step": whether the schedule moves after each epoch or each optimizer step.
        ema: decay of an exponential moving average of the weights, such as 0.999; :attr:`averaged` has it, and is evaluated.
        monitor: the figure that says which epoch is best; by default "val_loss", or "train_loss" without validation.
        mode: "min" if smaller figures are better, "max" if larger ones are; by default "min" if the figure is a loss; a
            metric needs it.
        patience: stop after so many epochs without a better figure.  NaN is never better.
        restore_best: give the model the weights of the best epoch at the end.
        capture: record the step, see :func:`gpunet.capture`; a step that cannot be recorded runs eagerly, and a warning names the
            line.  True uses the backend "numpy", which has the bits of the eager step; a string names another backend.
        callbacks: see :class:`Callback`; loggers are callbacks.
        progress: print the figures of each epoch.
        folder: write checkpoints there, after each epoch and at the end.
        save_every: write a checkpoint after so many optimizer steps, too.
        resume: continue from the checkpoint in ``folder``, if there is one.
        class_names: kept in the checkpoint.
        deterministic: the same bits for any number of processes: each batch is computed in 4 shards, or in as many as the number
            says, a power of two; their gradients are added in a tree.  docs/distributed.md states the cost.
        process_group: the processes that share each batch (:mod:`gpunet.distributed`); by default all that a launcher has started.
            ``ProcessGroup.alone()`` trains this process alone.

    Attributes:
        history: the figures, see :class:`History`.
        epoch: complete epochs.
        step: optimizer steps so far.
        num_epochs, num_steps: the length of the training, None if it is unknown.
        num_rows: samples trained on since this process started, by all processes.

    Raises:
        ArgumentError: an argument is out of range.
    """

    _function = "Trainer"  # that the user called, for error messages

    def __init__(
        self, model: Module, loss: Callable[[Any, Any], Tensor], optimizer: Optimizer, *,
        metrics: Mapping[str, Any] | None = None, count: Callable[[Any, Any], Any] | None = None, accumulate: int = 1,
        clip: float | None = None, precision: str = "float32",
        schedule: LRScheduler | Callable[[Optimizer, int], LRScheduler] | None = None, schedule_per: str | None = None,
        ema: float | None = None, monitor: str | None = None, mode: str | None = None, patience: int | None = None,
        restore_best: bool = True, capture: bool | str = True, callbacks: Sequence[Callback] = (), progress: bool = True,
        folder: str | os.PathLike[str] | RunFolder | None = None, save_every: int | None = None, resume: bool = False,
        class_names: Sequence[str] = (), deterministic: bool | int = False, process_group: ProcessGroup | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, Module):
            raise ArgumentError(f"{self._function}: model is a {type(model).__name__}; expected a Module")
        if not isinstance(optimizer, Optimizer):
            expected = "an optimizer, such as Adam(model.parameters())"
            raise ArgumentError(f"{self._function}: optimizer={optimizer!r}; expected {expected}")
        _check_count(self._function, "accumulate", accumulate)
        if save_every is not None:
            _check_count(self._function, "save_every", save_every)
        if clip is not None and not (_is_number(clip) and clip > 0.0):
            raise ArgumentError(f"{self._function}: clip={clip!r}; expected a positive number or None")
        if ema is not None and not (_is_number(ema) and 0.0 <= ema < 1.0):
            raise ArgumentError(f"{self._function}: ema={ema!r}; expected a number from 0 to less than 1, or None")
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise ArgumentError(
                    f"{self._function}: callbacks contains {callback!r}; expected objects of a subclass of Callback, which "
                    "overrides on_step or on_epoch"
                )
        if precision not in PRECISIONS:
            raise ArgumentError(f"{self._function}: precision={precision!r}; expected one of {', '.join(PRECISIONS)}")
        if (resume or save_every is not None) and folder is None:
            given = "resume=True" if resume else f"save_every={save_every}"
            raise ArgumentError(f"{self._function}: {given} without a folder; pass folder=")
        self._evaluated = figures_of(metrics, self._function)
        self._sharing = sharing = make_sharing(process_group, deterministic, self._function)
        self._is_first = sharing is None or sharing.is_first  # whether this process writes
        if sharing is not None:
            check_mergeable(self._evaluated, self._function)
            if not sharing.is_tree:
                model = SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.loss, self.optimizer = model, CountedLoss(loss, count, self._function), optimizer
        self.metrics, self.accumulate, self.clip = dict(metrics or {}), accumulate, clip
        num_own = 1 if sharing is None else sharing.num_own
        self._trained = [copy.deepcopy(self._evaluated) for _ in range(num_own)]  # of each shard of this process
        self._place = Placement(model)
        self._dtype = None if precision == "float32" else as_dtype(precision)
        kind = self._place.device.type
        self._scaler = GradScaler("cuda" if kind == "cuda" else "cpu") if precision == "float16" else None
        self._schedule_given, self._schedule_per = schedule, schedule_per
        self._schedule: LRScheduler | None = None
        self._schedule_length: int | None = None  # for which a function made it
        self._average = None if ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self._monitor = Monitor(monitor, mode, patience, self._function)
        self._restores_best, self._capture = restore_best, capture
        self.callbacks = [*callbacks, *([Progress()] if progress else [])]
        self._folder_given, self._save_every, self._resumes = folder, save_every, resume
        self.class_names = list(class_names)
        self.history = History()
        self.history.averaged = None if self._average is None else self._average.module
        self.epoch = self.step = self.num_rows = 0
        self.num_epochs: int | None = None
        self.num_steps: int | None = None
        self._num_batches = 0  # of the current epoch, so far
        self._is_exhausted = False  # whether there are no more
        self._seconds = 0.0  # of the current epoch, so far
        self._loaders: dict[str, Any] = {}  # "train", and those to evaluate on
        self._training: TrainingStep
        self._folder: RunFolder | None = None
        self._loaded: tuple[str, Any] | None = None  # path and state of a checkpoint that the next fit() continues
        self._reset_trained()

    @property
    def averaged(self) -> Module:
        """The model with the moving averages of the weights, or the model itself without ``ema``."""
        return self.model if self._average is None else self._average.module

    # -- training
    def fit(
        self, train: Iterable[Any], validation: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None, *,
        epochs: int | None = None, steps: int | None = None,
    ) -> History:  # fmt: skip
        """Train for a number of epochs or of optimizer steps.

        Args:
            train: batches, such as a DataLoader.
            validation: batches to evaluate the model on after each epoch; several data sets by name.  The figures of one are
                "val_loss" and so on; a data set "train" takes the place of the figures that are added up during training.
            epochs: the number of passes over ``train``, with those of a resumed run.
            steps: the number of optimizer steps, with those of a resumed run, instead of ``epochs``.

        Returns:
            :attr:`history`.

        Raises:
            ArgumentError, ShapeError: what is passed does not fit together; before the first step.
            CheckpointError: a checkpoint cannot be written or read, or another process uses the folder.
            GpunetError: the training loss is no longer finite.
        """
        if (epochs is None) == (steps is None):
            raise ArgumentError(f"fit: epochs={epochs}, steps={steps}; expected one of them")
        _check_count("fit", "epochs" if steps is None else "steps", epochs if steps is None else steps)
        check_optimizer(self.optimizer, self._parts().values())
        self._prepare(named_loaders(train, validation, "fit"), epochs, steps)
        self._check_processes()
        with self._open_folder(), stop_on_interrupt() as interrupt:
            self._check_schedule()
            check_mode(self.model)
            started: list[Callback] = []
            try:
                for callback in self._called():
                    started.append(callback)
                    callback.on_start(self)
                self.history.ending = self._run(interrupt)
            finally:
                self._restore_best()
                for callback in started:
                    callback.on_end(self)
        return self.history

    def evaluate(self, data: Iterable[Any]) -> dict[str, float]:
        """Return the loss and the metrics over batches, in evaluation mode, of the averaged weights if there are any.

        Raises:
            ArgumentError: the data have no batch.
        """
        return self._evaluate(data, "evaluate")

    def _evaluate(self, data: Iterable[Any], function: str) -> dict[str, float]:
        return evaluate_on(self._place, self.averaged, self.loss, data, self._evaluated, function, self._sharing)

    def _called(self) -> list[Callback]:
        """The callbacks that this process calls."""
        return [callback for callback in self.callbacks if self._is_first or not callback.only_first]

    def _on_first(self, compute: Callable[[], Any]) -> Any:
        """What the first process computes."""
        return compute() if self._sharing is None else self._sharing.on_first(compute)

    def _check_processes(self) -> None:
        """Compare the processes that train together, and give them the weights of the first one."""
        if self._sharing is None:
            return
        loaders = {"train": self._loaders["train"], **self._loaders["evaluation"]}
        for name, loader in loaders.items():
            self._sharing.check_loader("fit", name, loader)
        names = ("accumulate", "clip", "num_epochs", "num_steps", "_save_every", "_schedule_per")
        facts = {f"the option {name.strip('_')}": getattr(self, name) for name in names}
        facts |= {"the optimizer": repr(self.optimizer), "the loss": repr(self.loss.mean), "the metrics": [*self.metrics]}
        facts |= {"the precision": self._dtype, "the number of shards": self._sharing.cut.num_shards}
        for name, loader in loaders.items():
            facts[f"the number of batches of the data {name!r}"] = None if is_divided(loader) else length_of(loader)
            facts[f"the seed of the data {name!r}"] = own_seeds(loader)
        self._sharing.check("fit", facts, self._parts())

    def find_learning_rate(
        self, train: Iterable[Any], low: float = 1e-7, high: float = 10.0, steps: int = 100
    ) -> LearningRates:
        """Train with learning rates that grow from ``low`` to ``high``, until the loss explodes, and undo it all.

        Weights, buffers, gradients, the states of the optimizer and the loss scaling, learning rates, random numbers and the
        position of ``train`` are as before afterwards, also after an error.

        Raises:
            ArgumentError: the bounds are out of range, the data have no batch, or the loss never fell.
        """
        rates, losses = rates_between(low, high, steps), []
        named_loaders(train, None, "find_learning_rate")
        check_optimizer(self.optimizer, self._parts().values(), "find_learning_rate")
        check_mode(self.model, "find_learning_rate")
        step = self._make_step(None, None, None, adds_up=True)
        before = [group["lr"] for group in self.optimizer.param_groups]
        stateful = [part for part in (self.optimizer, self._scaler, train) if hasattr(part, "load_state_dict")]
        with everything_kept([*self._parts().values()], stateful):
            batches = endless(train)
            for rate in rates:
                set_rate(self.optimizer, before, rate)
                step.reset()
                while not step.add(whole_batch(self._place(next(batches), "find_learning_rate")))[1]:
                    pass
                losses.append(ratio(*step.sums))
                if has_diverged(losses):
                    break
        return LearningRates(rates[: len(losses)], losses)

    def _prepare(self, loaders: dict[str, Any], epochs: int | None, steps: int | None) -> None:
        """Work out the length of the training, and build what depends on it."""
        if loaders["train"] is not self._loaders.get("train"):  # else training goes on within the epoch
            self._start_epoch()
        self._loaders = loaders
        self._monitor.num_waited = 0
        num_batches = length_of(loaders["train"])
        self.num_epochs, self.num_steps = epochs, steps
        length = epochs
        if num_batches is not None:
            per_epoch = math.ceil(num_batches / self.accumulate)
            if epochs is not None:
                self.num_steps = epochs * per_epoch
            elif steps is not None:
                length = math.ceil(steps / per_epoch)
        if self._schedule is None:
            given = self._schedule_given, self._schedule_per
            self._schedule = make_schedule(*given, self.optimizer, length, self.num_steps)
            if self._schedule is not self._schedule_given:
                self._schedule_length = length if self._schedule_per == "epoch" else self.num_steps
        self._lengths = length, self.num_steps
        parts = dict.fromkeys(("train", *loaders["evaluation"]))
        self._monitor.choose([f"{part}_{name}" for part in parts for name in ("loss", *self.metrics)])
        self._check_schedule()
        schedule = self._schedule if self._schedule_per == "step" else None
        adds_up = "train" not in loaders["evaluation"]
        self._training = self._make_step(schedule, self._average, self._sharing, adds_up)

    def _check_schedule(self) -> None:
        """Compare the schedule, possibly that of a checkpoint, with the length of the training and with ``mode``."""
        if self._schedule is not None:
            made_for, mode = self._schedule_length, self._monitor.mode
            check_schedule(self._schedule, self._schedule_per, *self._lengths, made_for=made_for, mode=mode)

    def _start_epoch(self, num_batches: int = 0) -> None:
        """Start the figures anew, at a batch of the training data."""
        self._num_batches, self._is_exhausted, self._seconds = num_batches, False, 0.0
        self._reset_trained()

    def _reset_trained(self) -> None:
        for figures in self._trained:
            for figure in figures.values():
                figure.reset()

    def _all_trained(self) -> dict[str, Figure]:
        """The figures of the training data of all shards."""
        return self._trained[0] if self._sharing is None else merged(self._sharing.gather(self._trained))

    def _make_step(
        self, schedule: LRScheduler | None, average: AveragedModel | None, sharing: Sharing | None, adds_up: bool
    ) -> TrainingStep:
        return TrainingStep(
            self.model, self.loss, self.optimizer, device=self._place.device, accumulate=self.accumulate, clip=self.clip,
            dtype=self._dtype, scaler=self._scaler, schedule=schedule, average=average, keeps_sums=adds_up,
            keeps_output=adds_up and bool(self.metrics), capture=self._capture, sharing=sharing,
        )  # fmt: skip

    def _run(self, interrupt: threading.Event) -> str:
        """Train until there is a reason to end; return it."""
        self._has_checked = False
        is_tree = self._sharing is not None and self._sharing.is_tree
        self._buffer_versions = {name: b._version[0] for name, b in self.model.named_buffers()} if is_tree else None
        while not (ending := self._ending()):
            reason = self._train_batches(interrupt)
            if reason:
                ending = reason
                break
            if self._end_epoch():
                ending = "stopped"
                break
        if self._folder is not None and ending in ("stopped", "interrupted"):
            self.save()
        if self._folder is not None and self._monitor.weights is None:  # no epoch was best
            self._save_model(self._weights())
        return ending

    def _ending(self) -> str:
        if self._monitor.is_out_of_patience:
            return "early"
        by_epochs = self.num_epochs is not None and self.epoch >= self.num_epochs
        by_steps = self.num_epochs is None and self.num_steps is not None and self.step >= self.num_steps
        return "finished" if by_epochs or by_steps else ""

    def _train_batches(self, interrupt: threading.Event) -> str:
        """Train on the rest of an epoch, or up to the last step; return why training ends within it, or ""."""
        training, start = self._training, time.perf_counter()
        try:
            for parts in self._remaining_parts():
                parts = parts._replace(batches=[self._place(batch, "fit") for batch in parts.batches])
                self._check_batch(parts)
                outputs, has_stepped = training.add(parts)
                self.num_rows += parts.total or len(parts.batches[0][0])
                self._num_batches += 1
                if not parts.is_full and self._sharing is not None:
                    self._sharing.align_random_numbers()  # a process without rows has drawn none
                self._update_trained(parts, outputs)
                reason = "stopped" if has_stepped and self._count_step() else "interrupted" if interrupt.is_set() else ""
                if self._sharing is not None:
                    reason = _REASONS[self._sharing.largest(_REASONS.index(reason))] if has_stepped else ""
                if reason:
                    return reason
                if self.num_epochs is None and self.step == self.num_steps:
                    return ""
            self._is_exhausted = True
            has_stopped = training.finish_window() and self._count_step()
            if self._sharing is not None:
                has_stopped = bool(self._sharing.largest(has_stopped))
            return "stopped" if has_stopped else ""
        finally:
            self._seconds += time.perf_counter() - start

    def _check_batch(self, parts: Parts) -> None:
        """Check the first batch; and that each process has rows for a batch norm of all."""
        if not self._has_checked and parts.batches:
            figures = self._trained[0].values()
            check_first_batch(self.model, self.loss.mean, parts.batches[0], self._loaders["train"], figures)
            self._has_checked = True
        if not parts.is_full and any(isinstance(m, SyncBatchNorm) and m.training for m in self.model.modules()):
            raise ArgumentError(
                f"fit: a batch of {parts.total} rows has none for some of the processes, but batch norm needs some in each; pass "
                "DataLoader(drop_last=True), or another batch_size"
            )

    def _update_trained(self, parts: Parts, outputs: list[Any]) -> None:
        """Add the outputs of a batch, if they are kept, to the figures of the shards."""
        with_rows = [figures for figures, (_, rows) in zip(self._trained, parts.shares) if rows]
        for figures, output, batch in zip(with_rows, outputs, parts.batches):
            if output is not None:
                for figure in figures.values():
                    figure.update(output, batch[-1])

    def _remaining_parts(self) -> Iterator[Parts]:
        """The batches of an epoch, from where the last one was left, or what this process has of each."""
        train = self._loaders["train"]
        if self._is_exhausted:  # the checkpoint was written after the last window of the epoch
            return iter(())
        if not self._num_batches:
            set_epoch(train, self.epoch)
        num_passed = 0 if hasattr(train, "load_state_dict") else self._num_batches
        if self._sharing is None:
            return map(whole_batch, itertools.islice(train, num_passed, None))
        return itertools.islice(self._sharing.parts_to_train_on(train), num_passed, None)

    def _count_step(self) -> bool:
        """Count an optimizer step; return whether a callback of this process stops the training."""
        self.step += 1
        self._check_buffers()
        stops = [callback.on_step(self) for callback in self._called()]
        if self._save_every is not None and self.step % self._save_every == 0:
            self.save()
        return any(map(bool, stops))

    def _check_buffers(self) -> None:
        """Raise if the first step of a training with the bits of any number of processes has changed a buffer."""
        if self._buffer_versions is None:
            return
        before, self._buffer_versions = self._buffer_versions, None
        changed = next((name for name, b in self.model.named_buffers() if b._version[0] != before.get(name)), None)
        if changed is not None:
            raise ArgumentError(
                f"fit: deterministic=True, but the network changes its buffer {changed!r} with each shard, so it depends on the "
                "number of processes; use GroupNorm or LayerNorm instead of a batch norm, or freeze it by eval()"
            )

    def _end_epoch(self) -> bool:
        """Compute the figures of an epoch, and move what moves with epochs; return whether a callback stops the training."""
        start = time.perf_counter()
        if self._sharing is not None:
            self._sharing.align_buffers(self._parts().values())
            self._sharing.align_random_numbers()  # processes draw as many numbers, unless some are not for the rows of a batch
        rate = self.optimizer.param_groups[0]["lr"]
        figures = self._figures()
        self._seconds += time.perf_counter() - start
        self.epoch += 1
        row = {"epoch": self.epoch, **figures, "lr": rate, "step": self.step, "seconds": round(self._seconds, 4)}
        self._check_finite(row)
        self._training.reset()
        if self._is_exhausted:  # else the number of optimizer steps has ended within the epoch
            self._num_batches = 0
        self._start_epoch(self._num_batches)
        is_best = self._monitor.update(row, self._weights if self._restores_best else None)
        self.history.rows.append(row)
        self.history.best_epoch = self._monitor.epoch
        if isinstance(self._schedule, ReduceLROnPlateau):
            self._schedule.step(row[self._monitor.name])
        elif self._schedule is not None and self._schedule_per == "epoch":
            self._schedule.step()
        stops = any([callback.on_epoch(self, row) for callback in self._called()])
        if self._folder is not None:
            self.save()
            if is_best or not self._restores_best:
                self._save_model(self._weights())
        return stops if self._sharing is None else bool(self._sharing.largest(stops))

    def _save_model(self, weights: dict[str, dict[str, Tensor]]) -> None:
        """Write the weights to use."""
        if self._is_first:
            assert self._folder is not None
            with long_work("writing the weights"):
                self._folder.save_model(self._usable(weights))

    def _figures(self) -> dict[str, float]:
        figures = {}
        if "train" not in self._loaders["evaluation"]:
            figures["train_loss"] = ratio(*self._training.sums)
            figures |= {f"train_{name}": figure.compute() for name, figure in self._all_trained().items()}
        for part, loader in self._loaders["evaluation"].items():
            figures |= {f"{part}_{name}": value for name, value in self._evaluate(loader, "fit").items()}
        return figures

    def _check_finite(self, row: dict[str, Any]) -> None:
        if math.isfinite(row["train_loss"]):
            return
        if "train" not in self._loaders["evaluation"] and not as_number(self._training.sums[1]):
            raise DataError(f"fit: no target of epoch {row['epoch']} counts in the loss: all are ignored, or there are no rows")
        train = self._loaders["train"]
        raise explain_loss(
            row["train_loss"], row["epoch"], self.model, self.optimizer, train, lambda batch: self._place(batch, "fit")
        )

    # -- weights
    def _parts(self) -> dict[str, Module]:
        """The modules that are trained, by their names in a checkpoint."""
        parts = {"model": self.model, "loss": self.loss.mean, "average": self._average}
        return {name: part for name, part in parts.items() if isinstance(part, Module)}

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        """A copy of all weights."""
        return {
            name: {key: value.detach().clone() for key, value in part.state_dict().items()} for name, part in self._parts().items()
        }

    def _usable(self, weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """The weights to use: those of the averages, if there are any."""
        if "average" not in weights:
            return weights["model"]
        return {k.removeprefix("module."): v for k, v in weights["average"].items() if k.startswith("module.")}

    def _restore_best(self) -> None:
        if self._monitor.weights is not None:
            for name, part in self._parts().items():
                part.load_state_dict(self._monitor.weights[name])

    # -- checkpoints
    @contextlib.contextmanager
    def _open_folder(self) -> Iterator[None]:
        """Hold the run folder, if any, and continue from its checkpoint."""
        given = self._folder_given
        if given is None:
            self._take_state()
            yield
            return
        folder = given if isinstance(given, RunFolder) else RunFolder(given)
        with contextlib.ExitStack() as stack:
            self._on_first(lambda: _hold(folder, stack))
            self._folder = folder
            try:
                self._start_folder(folder)
                yield
            finally:
                self._folder = None

    def _start_folder(self, folder: RunFolder) -> None:
        if not self._on_first(folder.checkpoint.exists):
            self._take_state()
            self.save()  # of step 0, so that a process killed from now on leaves one
            return
        if not self._resumes:
            raise ArgumentError(
                f"fit: the folder {folder.path} has a checkpoint of another run; pass resume=True to continue it, or another folder"
            )
        self._loaded = str(folder.checkpoint), self._on_first(lambda: checkpoint.load(folder.checkpoint))
        self._take_state()
        if self._monitor.weights is not None:  # of a process that was killed before it wrote them
            self._save_model(self._monitor.weights)

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write a checkpoint, to the run folder by default.  Of several processes all call it, and the first one writes.

        Raises:
            CheckpointError: the file cannot be written; an earlier one is kept.
        """
        if path is None and self._folder is None:
            raise ArgumentError("Trainer.save: training with a folder has not begun; pass a path")
        state = self.state_dict()
        if not self._is_first:
            return
        with long_work("writing a checkpoint"):
            if path is not None:
                checkpoint.save(state, path)
            elif self._folder is not None:
                self._folder.save_checkpoint(state)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Let the next :meth:`fit` go on from a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or no checkpoint of a Trainer; some of that is found by :meth:`fit`.
        """
        self._loaded = os.fspath(path), checkpoint.load(path)

    def _take_state(self) -> None:
        """Go on from the checkpoint that was loaded, if any."""
        if self._loaded is None:
            return
        (path, state), self._loaded = self._loaded, None
        try:
            load_state(self, state)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except GpunetError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{path} is no checkpoint of a Trainer with these options ({error!r})") from None

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._place.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed training needs; its tensors are those of the training, not copies.

        Raises:
            ArgumentError: training has not begun: :meth:`fit` makes a part of the state.
        """
        if not self._loaders:
            raise ArgumentError("Trainer.state_dict: training has not begun; call it in a callback, or after fit()")
        return state_of(self)


def _hold(folder: RunFolder, stack: contextlib.ExitStack) -> None:
    """Make a run folder, and hold it as long as the stack, if it is not held."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write the run folder {folder.path}: {error.strerror or error}") from None
    if not folder.is_held:
        stack.enter_context(folder)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, numpy.integer, numpy.floating)) and not isinstance(value, bool)


def _check_count(function: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{function}: {name}={value!r}; expected an integer of 1 or more")
