"""The NCCL communicator of a process group."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet.backend import devices
from gpunet.backend import nccl as library
from gpunet.backend.devices import Device
from gpunet.backend.nccl import Communicator
from gpunet.errors import DeviceError, MissingDependencyError, ProcessError

_log = logging.getLogger(__name__)


class Link:
    """The NCCL communicator of a group, made when it is first needed.

    Args:
        rank: of this process in the group.
        gather: returns the values that all processes of the group pass, in the order of their ranks: numbers, texts and lists.
        wait: waits until a request is complete, and stops all at the time limit.
        is_required: whether it is an error that NCCL cannot be used; else arrays on GPUs go through the memory of the host then.
    """

    def __init__(self, rank: int, gather: Callable[[Any], list[Any]], wait: Callable[[Any], None], is_required: bool) -> None:
        self._rank, self._gather, self._wait, self._is_required = rank, gather, wait, is_required
        self._communicator: Communicator | None = None
        self._is_impossible = self._is_destroyed = False

    def communicator(self, device: Device) -> Communicator | None:
        """Return the communicator of a GPU; None if NCCL cannot be used, in all processes.

        Raises:
            ProcessError: the group is destroyed; or NCCL is required, and cannot be used, in all processes.
            MissingDependencyError: NCCL is required, and not installed, in all processes.
            DeviceError: the communicator is one of another GPU.
        """
        if self._is_destroyed:
            raise ProcessError("a collective of a process group that destroy_process_group() has destroyed")
        if self._communicator is None and not self._is_impossible:
            self._communicator = self._connect(device)
        found = self._communicator
        if found is not None and found.device != device:
            raise DeviceError(
                f"a collective of a tensor on {device}, but this process takes part with {found.device}: call cuda.set_device() "
                "before init_process_group(), or pass device_id="
            )
        return found

    def _connect(self, device: Device) -> Communicator | None:
        problem, identifier, place = "", "", ""
        try:
            devices.nccl()
            identifier = library.make_unique_id().hex() if self._rank == 0 else ""
            place = f"GPU {library.name_of(device)} of {platform.node()}"
        except MissingDependencyError as error:
            problem = str(error)
        found = self._gather([problem, identifier, place, _boot_id()])
        problems = {rank: problem for rank, (problem, *_) in enumerate(found) if problem}
        places, gpus = [place for _, _, place, _ in found], [tuple(gpu) for _, _, *gpu in found]
        shared = [rank for rank, gpu in enumerate(gpus) if gpus.count(gpu) > 1]
        if not problems and not shared:
            communicator = Communicator(device, len(found), bytes.fromhex(found[0][1]), self._rank)
            _connected.append(self)
            return communicator
        self._is_impossible = True
        if problems:
            message = f"NCCL cannot be used: {next(iter(problems.values()))} (rank {', '.join(map(str, problems))})"
        else:
            names = ", ".join(dict.fromkeys(places[rank] for rank in shared))
            message = (
                f"NCCL cannot be used: ranks {', '.join(map(str, shared))} share {names}; start a process for each GPU, which it "
                "gets by its rank on the machine, or by cuda.set_device() before"
            )
        if self._is_required:
            raise (MissingDependencyError if problems else ProcessError)(f"init_process_group: {message}")
        if self._rank == 0:
            _log.warning("%s. Tensors on GPUs go through the memory of the host.", message)
        return None

    def wait(self, device: Device) -> None:
        """Wait until the current stream of a GPU has done what it has now, and raise errors of collectives."""
        if self._communicator is not None and self.device == device:
            self._wait(self._communicator.record())
            self._communicator.check()

    @property
    def device(self) -> Device | None:
        """The GPU of this process; None if there is no communicator yet."""
        return None if self._communicator is None else self._communicator.device

    def synchronize(self) -> None:
        """Wait for the collectives that this process has begun."""
        if self._communicator is not None:
            devices.synchronize(self._communicator.device)

    def destroy(self) -> None:
        """Release the communicator."""
        self._is_destroyed = True
        if self._communicator is not None:
            _connected.remove(self)
            self._communicator.destroy()
            self._communicator = None


def _boot_id() -> str:
    """Text that differs between machines of one name, as containers on several machines may have; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


_connected: list[Link] = []


def destroy_all() -> None:
    """Release the communicators of all groups."""
    for link in [*_connected]:
        link.destroy()


@devices.at_wait
def _wait_for_others(device: Device) -> None:
    """Where the host waits for a GPU, its collectives may wait for other processes."""
    for link in _connected:
        link.wait(device)
