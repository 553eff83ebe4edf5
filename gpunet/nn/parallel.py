"""DataParallel of one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.errors import ArgumentError, DtypeError
from gpunet.nn.module import Module

__all__ = ["DataParallel"]


class DataParallel(Module):
    """Call ``module`` on one device, with PyTorch's names of parameters, which begin with "module.".

    Args:
        module: the module.
        device_ids: None, or a list of one GPU.
        output_device, dim: have no effect with one device.

    Raises:
        ArgumentError: several GPUs; train one process on each.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise DtypeError(f"DataParallel: module has type {type(module).__name__}; expected a module")
        self.device_ids = [] if device_ids is None else list(device_ids)
        if len(self.device_ids) > 1:
            raise ArgumentError(
                f"DataParallel: device_ids={self.device_ids}; expected one GPU: pass device_ids=[{self.device_ids[0]}], or leave "
                "DataParallel out"
            )
        self.module, self.dim = module, dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
