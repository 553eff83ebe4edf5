"""Batches of tensors that stay where they are: nothing is copied between host and card while training."""

from __future__ import annotations

from collections.abc import Iterator

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError, DeviceError, ShapeError
from gpunet.launch.random import Generator
from gpunet.ops.creation import randperm

__all__ = ["Batches"]


class Batches:
    """Iterate over the rows of tensors, batch by batch; the last batch may be smaller.

        for x, y in Batches(features, labels, batch_size=64, shuffle=True):
            ...

    Args:
        tensors: tensors of the same number of rows, on one device.
        batch_size: rows of a batch, 1 or more.
        shuffle: a new order each time, drawn on the tensors' device.
        generator: where the order comes from; the default generator when None.

    Raises:
        ArgumentError: no tensors, or a batch size below 1.
        ShapeError: different numbers of rows.
        DeviceError: tensors on different devices.
    """

    def __init__(
        self, *tensors: Tensor, batch_size: int, shuffle: bool = False, generator: Generator | None = None
    ) -> None:
        if not tensors:
            raise ArgumentError("Batches: no tensors; expected at least one")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"Batches: batch_size={batch_size!r}; expected a whole number, 1 or more")
        if any(t.ndim == 0 for t in tensors) or len({len(t) for t in tensors}) > 1:
            raise ShapeError(
                f"Batches: tensors of shapes {[t.shape for t in tensors]}; expected the same number of rows"
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
        """Rows of all batches together."""
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
