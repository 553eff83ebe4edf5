"""One launch of every kernel, large enough to time: for ``pytest bench``, and on a GPU beside cuBLAS and PyTorch.

The launches are the cases of the kernels with the tag "bench"; what they compute and move, and their equivalents in PyTorch, are
facts of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.facts import Cost
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.tools import kernel_cases

#: FLOPs per byte above which a launch is limited by arithmetic instead of memory, on every GPU and CPU that is in use.
COMPUTE_BOUND = 12.0


class Launch(NamedTuple):
    """A launch with its arrays on the device."""

    kernel: Kernel
    label: str
    arrays: list[Any]
    options: dict[str, Any]
    cost: Cost

    def __call__(self) -> None:
        self.kernel(*self.arrays, **self.options)

    @property
    def is_compute_bound(self) -> bool:
        return self.cost.intensity > COMPUTE_BOUND

    def rate(self, seconds: float) -> tuple[float, str]:
        """The GFLOP/s of a launch that arithmetic limits, else its GB/s, and the unit."""
        amount, unit = (self.cost.flops, "GFLOP/s") if self.is_compute_bound else (self.cost.bytes, "GB/s")
        return amount / seconds / 1e9, unit

    def in_pytorch(self, device: str) -> Callable[[], object] | None:
        """The equivalent of the launch in PyTorch, ready to call; None if there is none or PyTorch is not installed.

        Args:
            device: of PyTorch, "cuda" or "cpu".
        """
        try:
            import torch
        except ImportError:
            return None
        if device == "cuda" and not torch.cuda.is_available():
            return None

        def tensor(array: Any) -> Any:
            if isinstance(array, list):
                return [tensor(a) for a in array]
            if array is None or array.dtype.name.startswith("uint"):  # a ticket, or the state of random numbers
                return None
            return torch.from_numpy(numpy.array(devices.move(array, devices.CPU), order="C")).to(device)

        return self.kernel.launch_equivalent(torch, [tensor(a) for a in self.arrays], self.options)


def launches(device: Device, width: int = 512, kernels: Iterable[Kernel] | None = None) -> Iterator[Launch]:
    """One float32 launch of each kernel.

    Args:
        device: the device of the arrays.
        width: number of rows and columns of matrices; vectors have width² elements.
        kernels: default all; kernels without cases, such as a user's, are skipped.
    """
    for kernel in KERNELS.values() if kernels is None else kernels:
        for case in kernel_cases.cases(kernel, "bench", ("float32",), width):
            yield Launch(kernel, case.label, case.on_device(device), case.options, case.cost())
