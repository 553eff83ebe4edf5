"""Batches of arrays on the device of a network, each by one gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import scipy.sparse

from gpunet.data.datasets import TensorDataset
from gpunet.data.fetch import MapFetcher, Recipe
from gpunet.ops.creation import as_tensor


class Batches:
    """Batches (x, target), or (x, (target, weight)), in a new order in each pass.

    Args:
        x: (n, ...) inputs, or a sparse matrix (n, f) of the format csr, of which each batch is made dense.
        target: (n,) or (n, k).
        weight: (n,), or None.
        batch_size: rows of a batch; the last one may have fewer.
        device: where the batches are.
        random_state: draws the orders; None keeps the order of the rows.
        leaves_out_single: leave out a last batch of one row, of which batch norm has no variance.
        before_batch: called with the number of rows of each batch, or the sum of their weights, before it is yielded.
    """

    def __init__(
        self, x: Any, target: numpy.ndarray, weight: numpy.ndarray | None, *, batch_size: int, device: Any,
        random_state: numpy.random.RandomState | None = None, leaves_out_single: bool = False,
        before_batch: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        self.num_rows, self._batch_size = len(target), batch_size
        self._sparse = x if scipy.sparse.issparse(x) else None
        arrays = [array for array in (None if self._sparse is not None else x, target, weight) if array is not None]
        self._device, self._weight = device, weight
        tensors = TensorDataset(*(as_tensor(array, device=device) for array in arrays))
        recipe = Recipe(tensors, collate_fn=None, is_batched=True, batch_size=None, drop_last=False)
        self._fetcher = MapFetcher(recipe, is_worker=True)  # the training preserves the global generators
        self._order = numpy.arange(self.num_rows)
        self._random_state = random_state
        self._leaves_out = leaves_out_single and self.num_rows > 1 and self.num_rows % batch_size == 1
        self._before_batch = before_batch

    def __len__(self) -> int:
        return -(-self.num_rows // self._batch_size) - self._leaves_out

    def __iter__(self) -> Iterator[Any]:
        if self._random_state is not None:  # scikit-learn's orders: each permutes the last one
            permutation = numpy.arange(self.num_rows)
            self._random_state.shuffle(permutation)
            self._order = self._order[permutation]
        order = self._order[: self.num_rows - self._leaves_out]
        for number, batch in enumerate(self._fetcher.batches(order, self._batch_size)):
            rows = order[number * self._batch_size : (number + 1) * self._batch_size]
            if self._before_batch is not None:
                self._before_batch(float(len(rows) if self._weight is None else self._weight[rows].sum()))
            x = batch.pop(0) if self._sparse is None else as_tensor(self._sparse[rows].toarray(), device=self._device)
            yield x, batch[0] if self._weight is None else tuple(batch)
