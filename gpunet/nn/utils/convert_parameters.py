"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from gpunet.autograd import Tensor, wrap
from gpunet.errors import DeviceError, ShapeError
from gpunet.ops.join import cat

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Return the elements of all parameters, one after the other, as a vector with gradients.

    Raises:
        DeviceError: the parameters are on different devices.
    """
    parts = list(parameters)
    _check_devices("parameters_to_vector", parts)
    return cat([part.reshape(-1) for part in parts])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Make consecutive parts of a vector the data of the parameters; they share its memory.

    Raises:
        ShapeError: the vector has not as many elements as the parameters.
        DeviceError: the parameters are on different devices.
    """
    vec, parts = wrap(vec, "vector_to_parameters"), list(parameters)
    _check_devices("vector_to_parameters", parts)
    count = sum(part.numel() for part in parts)
    if vec.ndim != 1 or vec.numel() != count:
        raise ShapeError(f"vector_to_parameters: vec has shape {tuple(vec.shape)}; expected ({count},), as many as the parameters")
    start = 0
    for part in parts:
        part.data = vec[start : start + part.numel()].view(part.shape).data
        start += part.numel()


def _check_devices(name: str, parts: list[Tensor]) -> None:
    devices = {str(part.device) for part in parts}
    if len(devices) > 1:
        raise DeviceError(f"{name}: parameters on {', '.join(sorted(devices))}; expected one device")
