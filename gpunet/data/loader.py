"""Batches of tensors on their device, without copies between host and GPU during training."""

from __future__ import annotations

from collections.abc import Iterator

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError, DeviceError, ShapeError
from gpunet.launch.random import Generator
from gpunet.ops.random import randperm

__all__ = ["Batches"]


class Batches:
    """Iterate over the rows of tensors, batch by batch; the last batch may be smaller.

        for x, y in Batches(features, labels, batch_size=64, shuffle=True):
            ...

    Args:
        tensors: tensors with the same number of rows, on one device.
        batch_size: rows per batch, 1 or more.
        shuffle: iterate in a new random order each time; the order is drawn on the device of the tensors.
        generator: the generator of the order; the default generator if None.

    Raises:
        ArgumentError: no tensors, or a batch size below 1.
        ShapeError: the tensors have different numbers of rows.
        DeviceError: the tensors are on different devices.
    """

    def __init__(
        self, *tensors: Tensor, batch_size: int, shuffle: bool = False, generator: Generator | None = None
    ) -> None:
        if not tensors:
            raise ArgumentError("Batches: no tensors; expected at least one")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"Batches: batch_size={batch_size!r}; expected an integer of 1 or more")
        if any(t.ndim == 0 for t in tensors) or len({len(t) for t in tensors}) > 1:
            raise ShapeError(
                f"Batches: tensors of shapes {[tuple(t.shape) for t in tensors]}; expected the same number of rows"
            )
        if len({t.device for t in tensors}) > 1:
            raise DeviceError(
                f"Batches: tensors on {[str(t.device) for t in tensors]}; move them to one device with .to()"
            )
        self.tensors = tensors
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.generator = generator

    @property
    def rows(self) -> int:
        """Number of rows of all batches together."""
        return len(self.tensors[0])

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = randperm(self.rows, device=self.tensors[0].device, generator=self.generator) if self.shuffle else None
        for start in range(0, self.rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            with no_grad():
                if order is None:
                    batch = tuple(tensor[rows] for tensor in self.tensors)
                else:
                    batch = tuple(tensor[order[rows]] for tensor in self.tensors)
            yield batch
