"""The processes of a training, and what each has of a batch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.data import DistributedSampler
from gpunet.data.parts import Cut, Parts, cut_batches, is_divided, num_rows
from gpunet.distributed import broadcast
from gpunet.distributed.agreement import check_equal, code_facts, on_first, tensor_facts
from gpunet.distributed.process_group import ProcessGroup, ReduceOp, launched_group
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator, default_generator
from gpunet.nn import Module
from gpunet.nn.module import is_lazy

#: Shards of a batch with ``deterministic=True``: the largest number of processes with the bits of one.
NUM_SHARDS = 4


def make_sharing(process_group: ProcessGroup | None, deterministic: bool | int, function: str) -> Sharing | None:
    """How the processes of a group share batches; None for one process, unless it computes in shards, too.

    Args:
        process_group: by default all processes that the launcher has started.
        deterministic: see :class:`gpunet.train.Trainer`.

    Raises:
        ArgumentError: the shards cannot be shared out evenly.
    """
    group = launched_group() if process_group is None else process_group
    size = group.size()
    if deterministic is False:
        return Sharing(group, size, False) if size > 1 else None
    shards = NUM_SHARDS if deterministic is True else deterministic
    if not isinstance(shards, int) or shards < 1 or shards & (shards - 1):
        raise ArgumentError(f"{function}: deterministic={deterministic!r}; expected a bool or a power of two")
    if size > shards or size & (size - 1):
        raise ArgumentError(
            f"{function}: deterministic={deterministic!r} makes {shards} shards of a batch, for {size} processes; expected a power "
            f"of two, at most {shards}, of processes, or more shards"
        )
    return Sharing(group, shards, True)


class Sharing:
    """The processes that train together.

    Args:
        group: the processes.
        num_shards: of a batch; a process has as many as each other one.
        is_tree: whether gradients are added in a tree that does not depend on the number of processes.
    """

    def __init__(self, group: ProcessGroup, num_shards: int, is_tree: bool) -> None:
        self.group, self.is_tree = group, is_tree
        count = num_shards // group.size()
        self.cut = Cut(num_shards, range(group.rank() * count, (group.rank() + 1) * count))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.group.rank() == 0

    @property
    def num_own(self) -> int:
        """The number of shards of this process."""
        return len(self.cut.own)

    def on_first(self, compute: Callable[[], Any], function: str = "fit") -> Any:
        """See :func:`gpunet.distributed.agreement.on_first`."""
        return on_first(self.group, compute, function)

    def largest(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        found = numpy.array([number], numpy.int64)
        request = self.group.communicator.Iallreduce(self.group.in_place, found, op=self.group.operation(ReduceOp.MAX))
        self.group.complete(request, "fit")
        return int(found[0])

    def gather(self, own: list[Any]) -> list[Any]:
        """The lists of all processes, joined: what each shard has, in the order of the shards."""
        if self.group.size() == 1:
            return own
        return [each for part in self.group.gather_objects(own, "fit") for each in part]

    # -- at the start
    def check(self, function: str, facts: Mapping[str, Any], modules: Mapping[str, Module]) -> None:
        """Compare code, seeds, modules and options of the processes.

        Where no process has seeded the default generator, all continue with the numbers of the first one.

        Raises:
            ProcessError: they differ.
        """
        if self.group.size() == 1:
            return
        if self.largest(default_generator.num_seedings) == 1:
            default_generator.manual_seed(self.group.broadcast_object(default_generator.initial_seed(), 0, function))
        named = {f"{name}.{key}": t for name, module in modules.items() for key, t in tensors_of(module).items() if not is_lazy(t)}
        options = {name: re.sub(r" at 0x[0-9a-f]+", "", str(value)) for name, value in facts.items()}  # addresses differ
        options["the seed"] = str(default_generator.initial_seed())
        way_out = "start all processes with the same code, the same gpunet.manual_seed(...) and the same arguments"
        check_equal(function, self.group, {**code_facts(), **options, **tensor_facts(named)}, way_out)
        self.align_random_numbers()
        for tensor in named.values():
            broadcast(tensor.detach(), self.group.ranks[0], self.group)

    def align_random_numbers(self) -> None:
        """Continue the random numbers of the first process in all."""
        if self.group.size() > 1:
            default_generator.set_positions(self.group.broadcast_object(default_generator.positions(), 0, "fit"))

    def align_buffers(self, modules: Iterable[Module]) -> None:
        """Give all processes the buffers of the first one."""
        if self.group.size() > 1:
            for module in modules:
                for buffer in module.buffers():
                    broadcast(buffer.detach(), self.group.ranks[0], self.group)

    # -- batches
    def check_loader(self, function: str, name: str, loader: Any) -> None:
        """Raises an ArgumentError for batches that depend on the number of processes, in a training that must not."""
        if self.is_tree and is_divided(loader):
            raise ArgumentError(
                f"{function}: deterministic=True, but the data {name!r} are divided by a DistributedSampler or the like, and so "
                "depend on the number of processes; pass a DataLoader without, whose batches are cut here"
            )

    def parts(self, batches: Any) -> Iterator[Parts]:
        """The parts of batches to evaluate on: each row is in one of them, of one process."""
        if not is_divided(batches):
            yield from cut_batches(batches, self.cut)
            return
        with _unpadded(batches):
            for batch in batches:
                yield Parts(num_rows(batch), ((0, num_rows(batch)),), [batch], True)

    def parts_to_train_on(self, batches: Any) -> Iterator[Parts]:
        """The parts of batches, as many in each process: where one has no more batches, it has parts without rows."""
        if not is_divided(batches):
            yield from cut_batches(batches, self.cut)
            return
        rank, remaining = self.group.rank(), iter(batches)
        while True:
            batch = next(remaining, None)
            rows = numpy.empty(self.group.size(), numpy.int64)
            own = numpy.array([-1 if batch is None else num_rows(batch)], numpy.int64)
            self.group.complete(self.group.communicator.Iallgather(own, rows), "fit")
            if (rows < 0).all():
                return
            rows = rows.clip(min=0)
            share = int(rows[:rank].sum()), int(rows[rank])
            yield Parts(int(rows.sum()), (share,), [batch] if share[1] else [], bool(rows.all()))


def tensors_of(module: Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def own_seeds(loader: Any) -> list[int]:
    """The seeds of the generators that a loader and its sampler were given."""
    generators = [getattr(part, "generator", None) for part in (loader, getattr(loader, "sampler", None))]
    return [generator.initial_seed() for generator in generators if isinstance(generator, Generator)]


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell samplers that have ``set_epoch`` the number of the epoch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)  # type: ignore[union-attr]


@contextlib.contextmanager
def _unpadded(loader: Any) -> Iterator[None]:
    """Let a DistributedSampler neither repeat nor leave out samples."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        yield
        return
    before, sampler.pads = sampler.pads, False
    try:
        yield
    finally:
        sampler.pads = before
