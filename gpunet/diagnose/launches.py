"""Tapes that look at launches while they run, and keep none of them."""

from __future__ import annotations

from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.launch.facts import Cost, num_bytes, num_elements
from gpunet.launch.kernel import Kernel
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import Tape
from gpunet.ops import cases as _of_ops  # noqa: F401  fills the facts of the kernels
from gpunet.optim import cases as _of_optim  # noqa: F401


class Observer(Tape):
    """A tape that runs launches through :meth:`observe`, and keeps neither them nor their arrays alive."""

    def launch(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        kernel.check(arrays)
        self.observe(kernel, arrays, options)

    def observe(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        kernel.launch(arrays, options)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: devices.Device) -> Array:
        return devices.empty(shape, dtype, device)

    def record_gradient(self, leaf: Any, before: Any) -> None:
        pass


def cost_of(kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> Cost:
    """The work of a launch, from the facts of its kernel.

    Without facts the bytes are those of its arrays, and the FLOPs one for each result of a function of NumPy, 0 for other kernels.
    """
    if isinstance(kernel, Kernel) and kernel._cost is not None:
        return kernel.launch_cost(arrays, options)
    known = [a for a in arrays if devices.is_array(a) or isinstance(a, list)]
    return Cost(float(num_elements(*known[: kernel.outputs])) if isinstance(kernel, Ufunc) else 0.0, num_bytes(*known))


def multiply_adds_of(kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> int:
    """The multiply-adds of the matrix products of a launch, from the facts of its kernel."""
    return kernel.launch_multiply_adds(arrays, options) if isinstance(kernel, Kernel) else 0
