"""Parts of batches: what one of several processes gets of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.errors import ShapeError


class Cut(NamedTuple):
    """How batches are cut: into shards of nearly equal numbers of rows, of which a process has some.

    The first shards are the larger ones, so that the first shard of a batch is never empty.
    """

    num_shards: int
    own: range  # the shards of this process

    def bounds(self, total: int) -> list[tuple[int, int]]:
        """The first row, and the row behind the last one, of each own shard of a batch of ``total`` rows."""
        return [(-(-total * i // self.num_shards), -(-total * (i + 1) // self.num_shards)) for i in self.own]


class Parts(NamedTuple):
    """What a process has of a batch.

    Attributes:
        total: rows of the whole batch.
        shares: (first row in the batch, number of rows) of each own shard.
        batches: of the own shards that have rows.
        is_full: whether each process has rows.
    """

    total: int
    shares: tuple[tuple[int, int], ...]
    batches: list[Any]
    is_full: bool


def parts_of(total: int, cut: Cut, read: Any) -> Parts:
    """The parts of a batch of ``total`` rows; ``read(first, end)`` returns a batch of these rows."""
    bounds = cut.bounds(total)
    return Parts(
        total, tuple((first, end - first) for first, end in bounds), [read(*bound) for bound in bounds if bound[1] > bound[0]],
        total >= cut.num_shards,
    )  # fmt: skip


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def num_rows(batch: Any) -> int:
    """The number of rows of the tensors of a batch.

    Raises:
        ShapeError: they have different numbers of rows.
    """
    arrays = list(tree_leaves(batch, _is_array))
    sizes = {a.shape[0] if len(a.shape) else None for a in arrays}
    if len(sizes) != 1 or None in sizes:
        shapes = ", ".join(str(tuple(a.shape)) for a in arrays) or "no tensor"
        raise ShapeError(
            f"a batch has {shapes}; expected tensors of one first dimension, by which batches are cut for several processes: pass "
            "a DataLoader, whose batches are cut before they are read"
        )
    return int(sizes.pop())  # type: ignore[arg-type]


def cut_rows(batch: Any, cut: Cut) -> Parts:
    """Cut a batch along the first dimension of its tensors."""
    return parts_of(num_rows(batch), cut, lambda first, end: tree_map(batch, lambda a: a[first:end], _is_array))


def is_divided(loader: Any) -> bool:
    """Whether batches are those of one process, as of a DistributedSampler: some part has ``num_replicas``."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    return any(getattr(part, "num_replicas", 1) > 1 for part in (*parts, getattr(loader, "dataset", None)))


def cut_batches(loader: Any, cut: Cut) -> Iterator[Parts]:
    """The parts of the batches of a loader; those of a DataLoader by index are cut before they are read."""
    return loader.parts(cut) if hasattr(loader, "parts") else (cut_rows(batch, cut) for batch in loader)
