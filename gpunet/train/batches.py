"""Batches on the device of the model, in the dtype of its parameters."""

from __future__ import annotations

import itertools
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DataError
from gpunet.launch.tape import warn_user
from gpunet.nn import Module


class Placement:
    """Moves batches to the device of a model, and casts floating tensors to the dtype of its parameters; a cast warns once."""

    def __init__(self, model: Module) -> None:
        tensors = [t for t in itertools.chain(model.parameters(), model.buffers()) if is_floating(t.dtype)]
        self.device = tensors[0].device if tensors else devices.CPU
        self.dtype = tensors[0].dtype if tensors else None
        self._has_warned = False

    def __call__(self, batch: Any, function: str) -> list[Any]:
        """Return the inputs of the model, followed by the target.

        Args:
            batch: a tuple or list.
            function: that the user called, for messages.

        Raises:
            DataError: the batch is not a tuple or list of inputs and a target.
        """
        if not isinstance(batch, (list, tuple)) or len(batch) < 2:
            raise DataError(
                f"{function}: a batch is {_describe(batch)}; expected (inputs, target), or a tuple of several inputs and then the "
                "target"
            )
        return [self._place(part, function) for part in batch]

    def _place(self, part: Any, function: str) -> Any:
        if isinstance(part, (list, tuple)):
            parts = [self._place(each, function) for each in part]
            return part._make(parts) if hasattr(part, "_make") else type(part)(parts)  # a named tuple
        tensor = part if isinstance(part, Tensor) else wrap(part)
        if self.dtype is not None and tensor.dtype != self.dtype and is_floating(tensor.dtype):
            if not self._has_warned:
                warn_user(
                    f"{function}: the data are {tensor.dtype}, the network {self.dtype}; the data are cast to {self.dtype}"
                )
                self._has_warned = True
            tensor = tensor.to(self.dtype)
        return tensor if tensor.device == self.device else tensor.to(self.device)


def _describe(batch: Any) -> str:
    if isinstance(batch, (list, tuple)):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
