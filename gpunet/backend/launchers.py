"""What launchers tell a process by environment variables: how many processes there are, which one it is, and where they meet."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from gpunet.errors import ArgumentError

#: Number of processes, rank, and rank on this machine.
_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")
_SIZES = (*_MPI_SIZES, "SLURM_STEP_NUM_TASKS")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
_LOCAL_RANKS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")

#: The ports of Slurm's jobs are those from here to 10,000 above.
_SLURM_PORTS = 15000


class Told(NamedTuple):
    """What a launcher, or the script, says of the processes."""

    rank: int
    size: int
    by: str  # who says it, for messages


def from_environment(names: Sequence[str]) -> int | None:
    """The first of these variables that is a number."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), None)


def mpi_size() -> int:
    """The number of processes that a launcher of MPI says it has started; 1 without one."""
    return from_environment(_MPI_SIZES) or 1


def local_rank() -> int | None:
    """The rank of this process among those on its machine; None if no launcher tells."""
    return from_environment(_LOCAL_RANKS)


def export_launcher_variables() -> None:
    """Set RANK, LOCAL_RANK and WORLD_SIZE, which scripts for torchrun read, where ``mpiexec`` or ``srun`` started this process."""
    size = from_environment(_SIZES)
    if size is not None:
        for name, value in (("WORLD_SIZE", size), ("RANK", from_environment(_RANKS)), ("LOCAL_RANK", local_rank())):
            if value is not None:
                os.environ.setdefault(name, str(value))


def told(world_size: int = -1, rank: int = -1) -> Told | None:
    """What the script says, or torchrun, or Slurm, of several processes; None if nobody does.

    Args:
        world_size, rank: of the script, -1 if it does not say.
    """
    slurm = from_environment(("SLURM_STEP_NUM_TASKS",))
    size = world_size if world_size != -1 else from_environment(("WORLD_SIZE",))
    found = rank if rank != -1 else from_environment(("RANK",))
    by = "world_size" if world_size != -1 else "WORLD_SIZE"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        by = "torchrun"
    elif slurm is not None and size in (None, slurm):  # that size also by export_launcher_variables
        if found is None or (rank == -1 and size is None):  # RANK without WORLD_SIZE is not of these processes
            found = from_environment(("SLURM_PROCID",))
        size, by = slurm, "Slurm"
    return None if size is None or size == 1 else Told(-1 if found is None else found, size, by)


def meeting_place(init_method: str | None) -> tuple[str, int]:
    """Return host and port where processes without MPI find each other: on the machine of the first one.

    Args:
        init_method: "tcp://HOST:PORT"; else MASTER_ADDR and MASTER_PORT count, and in a job of Slurm its first machine, with a port
            by the number of the job.  Where torchrun itself listens at MASTER_PORT, it is the port behind that.

    Raises:
        ArgumentError: nobody tells, or ``init_method`` is of another kind.
    """
    if init_method is not None and not init_method.startswith("env:"):
        try:
            place = urlsplit(init_method)
            host, port = place.hostname, place.port
        except ValueError:  # of the port
            host = port = None
        if host is None or not port or place.scheme != "tcp":
            raise ArgumentError(f"init_process_group: init_method={init_method!r}; expected 'env://' or 'tcp://HOST:PORT'")
        return host, port
    host, port = os.environ.get("MASTER_ADDR"), from_environment(("MASTER_PORT",))
    job = from_environment(("SLURM_JOB_ID",))
    if job is not None:
        host = host or _first_machine(os.environ.get("SLURM_STEP_NODELIST", ""))
        port = _SLURM_PORTS + job % 10_000 if port is None else port
    if not host or port is None:
        raise ArgumentError(
            "init_process_group: processes without MPI find each other where MASTER_ADDR and MASTER_PORT say; set them, or pass "
            "init_method='tcp://HOST:PORT' with world_size= and rank="
        )
    port += os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not 0 < port < 65536:
        raise ArgumentError(f"init_process_group: processes would find each other at port {port}; set MASTER_PORT, from 1 to 65535")
    return host, port


def _first_machine(machines: str) -> str | None:
    """The first of Slurm's machines: "rack1-node[03-05,9],other" -> "rack1-node03"."""
    found = re.match(r"([^,\[]|\[[^\]]*\])+", machines)
    return None if found is None else re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0])
