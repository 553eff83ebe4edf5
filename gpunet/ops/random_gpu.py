"""Seeds and states of random numbers on GPUs, as ``torch.cuda`` has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.devices import Device
from gpunet.backend.gpus import current_device, device_count, is_available
from gpunet.errors import ArgumentError
from gpunet.launch.random import default_generator, seed_gpus
from gpunet.ops.random import set_state_of, state_of

__all__ = [
    "get_rng_state", "get_rng_state_all", "initial_seed", "manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state",
    "set_rng_state_all",
]  # fmt: skip


def manual_seed(seed: int) -> None:
    """Seed the default generator on the current GPU; without a GPU nothing is changed."""
    seed_gpus(seed, [current_device()] if is_available() else [])


def manual_seed_all(seed: int) -> None:
    """Seed the default generator on all GPUs; without a GPU nothing is changed."""
    seed_gpus(seed)


def seed() -> None:
    """Seed the default generator on the current GPU from the operating system."""
    manual_seed(type(default_generator)().initial_seed())


def seed_all() -> None:
    """Seed the default generator on all GPUs from the operating system, alike."""
    manual_seed_all(type(default_generator)().initial_seed())


def initial_seed() -> int:
    """Return the key of the default generator on the current GPU."""
    return default_generator.position(Device("cuda"))[0]


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of the default generator on a GPU, uint8 (16,) on the CPU."""
    return state_of(default_generator, Device(device))


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Set the state of the default generator on a GPU to one from :func:`get_rng_state`.

    Raises:
        ShapeError: it is no such tensor.
    """
    set_state_of(default_generator, new_state, Device(device))


def get_rng_state_all() -> list[Tensor]:
    """The state on each GPU."""
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Set the states on the GPUs, from the first on."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """The GPUs of the tensors among ``args``, also in lists, tuples and dicts, and the states of the default generator on them."""
    numbers = [int(tensor.device.index) for tensor in _tensors(args) if tensor.is_cuda]
    return numbers, [get_rng_state(number) for number in numbers]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def set_device_states(devices: Iterable[int], states: Iterable[Tensor], *, device_type: str | None = None) -> None:
    """Set the states of the default generator on GPUs, as :func:`get_device_states` returned them.

    Raises:
        ArgumentError: ``device_type`` is not "cuda".
    """
    if device_type not in (None, "cuda"):
        raise ArgumentError(f"set_device_states: device_type={device_type!r}; expected 'cuda'")
    for device, state in zip(devices, states):
        set_rng_state(state, device)
