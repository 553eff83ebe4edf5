"""Process groups: which processes work together, and how they are started and stopped.

``mpiexec -n 4 python script.py`` starts four processes; :func:`init_process_group` joins them.  Without MPI, a process is alone:
all collectives work, and do nothing but copy.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from collections.abc import Sequence
from enum import Enum
from types import ModuleType
from typing import Any

import numpy

from gpunet.backend import long_work
from gpunet.distributed.waiting import Watch, limit_of, wait_for
from gpunet.errors import ArgumentError, DtypeError, MissingDependencyError, ProcessError

__all__ = [
    "GroupMember", "ProcessGroup", "ReduceOp", "barrier", "destroy_process_group", "get_backend", "get_global_rank",
    "get_group_rank", "get_node_local_rank", "get_process_group_ranks", "get_rank", "get_world_size", "group",
    "init_process_group", "is_available", "is_gloo_available", "is_initialized", "is_mpi_available", "is_nccl_available",
    "is_torchelastic_launched", "is_ucc_available", "is_xccl_available", "new_group",
]  # fmt: skip

#: What launchers tell a process: number of processes, its rank, and its rank on this machine.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
_LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_BACKENDS = ("mpi", "nccl", "gloo", "ucc", "auto")


class ReduceOp(Enum):
    """How a collective combines the numbers of all processes; the values are the names of MPI's operations."""

    SUM = "SUM"
    AVG = "AVG"
    PRODUCT = "PROD"
    MIN = "MIN"
    MAX = "MAX"
    BAND = "BAND"
    BOR = "BOR"
    BXOR = "BXOR"


class _Alone:
    """The communicator of a process without others: mpi4py's methods that collectives call, whose requests are complete."""

    def Iallreduce(self, send: Any, receive: Any, op: Any = None) -> None:
        if send is not None:  # else it is in place
            receive[...] = send

    def Ireduce(self, send: Any, receive: Any, op: Any = None, root: int = 0) -> None:
        receive[...] = send

    def Ibcast(self, array: Any, root: int = 0) -> None:
        """Do nothing: there are no other processes."""

    def Iallgather(self, send: Any, receive: Any) -> None:
        receive.reshape(-1)[...] = send.reshape(-1)

    def Igather(self, send: Any, receive: Any, root: int = 0) -> None:
        self.Iallgather(send, receive)

    def Iscatter(self, send: Any, receive: Any, root: int = 0) -> None:
        self.Iallgather(send, receive)

    def Ireduce_scatter_block(self, send: Any, receive: Any, op: Any = None) -> None:
        self.Iallgather(send, receive)

    def Ialltoall(self, send: Any, receive: Any) -> None:
        self.Iallgather(send, receive)

    def Iallgatherv(self, send: Any, receive: Any) -> None:
        self.Iallgather(send, receive[0])

    def Ibarrier(self) -> None:
        """Return at once: there are no other processes."""


class ProcessGroup:
    """Processes that take part in a collective.

    Attributes:
        communicator: of mpi4py, or one of a process alone.
        ranks: ranks of the members in the group of all processes, in the order of their ranks in this one.
        rank: of this process in the group.
        waited: the seconds that this process has waited for the others.
    """

    def __init__(self, communicator: Any, ranks: Sequence[int], rank: int, mpi: ModuleType | None) -> None:
        self.communicator, self.ranks, self._rank, self._mpi = communicator, list(ranks), rank, mpi
        self.waited = 0.0

    @classmethod
    def alone(cls) -> ProcessGroup:
        """The group of a process without others."""
        return cls(_Alone(), [0], 0, None)

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return len(self.ranks)

    def name(self) -> str:
        return "mpi" if self._mpi is not None else "alone"

    def operation(self, op: ReduceOp) -> Any:
        """MPI's operation; an average is a sum that is divided."""
        return None if self._mpi is None else getattr(self._mpi, "SUM" if op is ReduceOp.AVG else op.value)

    @property
    def in_place(self) -> Any:
        """What MPI takes in place of an array to send that is the one to receive, too."""
        return None if self._mpi is None else self._mpi.IN_PLACE

    def complete(self, request: Any, function: str) -> None:
        """Wait until a request of :attr:`communicator` is complete.

        Args:
            function: that the user called, for the message at the time limit.
        """
        self.waited += wait_for(request, _World.watch, function)

    def gather_objects(self, value: Any, function: str) -> list[Any]:
        """Return the objects of all processes, which are pickled, in the order of their ranks."""
        sent = numpy.frombuffer(pickle.dumps(value), numpy.uint8)
        counts = numpy.empty(self.size(), numpy.int64)
        self.complete(self.communicator.Iallgather(numpy.array([sent.size], numpy.int64), counts), function)
        received = numpy.empty(int(counts.sum()), numpy.uint8)
        self.complete(self.communicator.Iallgatherv(sent, [received, counts.tolist()]), function)
        return [pickle.loads(part.tobytes()) for part in numpy.split(received, counts.cumsum()[:-1])]

    def broadcast_object(self, value: Any, root: int, function: str) -> Any:
        """Return the object of a process, which is pickled; the others' ``value`` has no effect."""
        sent = numpy.frombuffer(pickle.dumps(value), numpy.uint8) if self._rank == root else None
        size = numpy.array([0 if sent is None else sent.size], numpy.int64)
        self.complete(self.communicator.Ibcast(size, root=root), function)
        content = numpy.empty(int(size[0]), numpy.uint8) if sent is None else sent.copy()
        self.complete(self.communicator.Ibcast(content, root=root), function)
        return value if self._rank == root else pickle.loads(content.tobytes())

    def __repr__(self) -> str:
        return f"<ProcessGroup {self.name()}: rank {self._rank} of {self.size()}>"


class GroupMember:
    """The result of :func:`new_group` in a process that is no member."""

    NON_GROUP_MEMBER = object()


class _World:
    """The group of all processes, once it is initialized."""

    group: ProcessGroup | None = None
    watch: Watch | None = None
    excepthook: Any = None


class group:
    """``group.WORLD``, the group of all processes, as scripts call it."""

    WORLD = None


def from_environment(names: Sequence[str]) -> int | None:
    """The first of these variables that is a number."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)


def export_launcher_variables() -> None:
    """Set RANK, LOCAL_RANK and WORLD_SIZE, which scripts for torchrun read, where ``mpiexec`` or ``srun`` started this process."""
    size = from_environment(_SIZES)
    if size is not None:
        for name, value in (
            ("WORLD_SIZE", size), ("RANK", from_environment(_RANKS)), ("LOCAL_RANK", from_environment(_LOCAL_RANKS)),
        ):  # fmt: skip
            if value is not None:
                os.environ.setdefault(name, str(value))


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: Any = None, world_size: int = -1, rank: int = -1,
    store: Any = None, group_name: str = "", pg_options: Any = None, device_id: Any = None,
) -> None:  # fmt: skip
    """Join the processes that ``mpiexec`` started; a process that was started alone is a group of one.

    From then on, an error that ends one process stops all of them, and so does a process that does not answer.

    Args:
        backend: "mpi", "auto" or None; PyTorch's "nccl", "gloo" and "ucc" are taken as well.  All communicate over MPI.
        timeout: a timedelta or seconds; a process that waits longer for others names them and stops all.  By default the variable
            GPUNET_DISTRIBUTED_TIMEOUT, or 25 seconds.
        world_size, rank: what the script expects, if not -1.  The variables WORLD_SIZE and RANK of torchrun count likewise.
        init_method, store, group_name, pg_options, device_id: have no effect: MPI knows the other processes.

    Raises:
        ArgumentError: the processes that were started are others than the script expects.
        MissingDependencyError: several processes were started, and mpi4py is not installed.
        ProcessError: the group is initialized already.
    """
    parts = backend.lower().split(",") if isinstance(backend, str) else [backend or "auto"]
    if not {str(part).split(":")[-1] for part in parts} <= {*_BACKENDS}:
        raise ArgumentError(f"init_process_group: backend={backend!r}; expected one of {', '.join(map(repr, _BACKENDS))}")
    if _World.group is not None:
        raise ProcessError("init_process_group: the process group is initialized already; call destroy_process_group() first")
    limit = limit_of(timeout)
    found = _world("mpi" if backend == "mpi" else "")
    expected = world_size if world_size != -1 else from_environment(("WORLD_SIZE",))
    if expected is not None and expected != found.size():
        raise ArgumentError(
            f"init_process_group: a group of {expected} processes is expected, but MPI has started {found.size()}: run the script "
            f"by `mpiexec -n {expected} python script.py`"
        )
    if rank not in (-1, found.rank()):
        raise ArgumentError(f"init_process_group: rank={rank}, but MPI has given this process rank {found.rank()}")
    _World.group = group.WORLD = found  # type: ignore[assignment]
    if found.size() > 1:
        _World.watch = Watch(found.communicator.Dup(), limit)
        long_work.listeners.append(_World.watch.announce)
        _World.excepthook, sys.excepthook = sys.excepthook, _print_and_stop


def _world(backend: str) -> ProcessGroup:
    """All processes, of which MPI knows; without mpi4py a process is alone, unless its launcher says otherwise."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        count = from_environment(_SIZES) or 1
        if count == 1 and backend != "mpi":
            return ProcessGroup.alone()
        raise MissingDependencyError(
            f"init_process_group: {count} process{'es were' * (count > 1) or ' was'} started, and mpi4py with an MPI library is "
            "needed: pip install 'gpunet[mpi]'"
        ) from error
    if MPI.COMM_WORLD.Get_size() == 1 and backend != "mpi":
        return ProcessGroup.alone()
    communicator = MPI.COMM_WORLD.Dup()
    return ProcessGroup(communicator, range(communicator.Get_size()), communicator.Get_rank(), MPI)


def launched_group() -> ProcessGroup:
    """The group of all processes that a launcher has started, which is initialized if need be; else that of a process alone."""
    if _World.group is None and (from_environment(_SIZES) or 1) > 1:
        init_process_group()
    return _World.group or ProcessGroup.alone()


def _print_and_stop(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """The excepthook of joined processes: print an error that ends this one, and stop the others."""
    _World.excepthook(kind, error, traceback)
    stop_others()


def stop_others() -> None:
    """Stop all processes, because this one has failed, for which the others would wait."""
    found = _World.group
    if found is not None and found.size() > 1:
        print(f"gpunet: rank {found.rank()} of {found.size()} has failed; all are stopped", file=sys.stderr, flush=True)
        found.communicator.Abort(1)


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Leave the group of all processes, or another one."""
    found = member("destroy_process_group", group)
    if found is _World.group:
        if _World.excepthook is not None:
            sys.excepthook, _World.excepthook = _World.excepthook, None
        _World.group = globals()["group"].WORLD = None
    if found.size() > 1:
        found.complete(found.communicator.Ibarrier(), "destroy_process_group")
        found.communicator.Free()
    if _World.group is None and _World.watch is not None:
        long_work.listeners.remove(_World.watch.announce)
        _World.watch.communicator.Free()
        _World.watch = None


def new_group(
    ranks: Sequence[int] | None = None, timeout: Any = None, backend: str | None = None, pg_options: Any = None,
    use_local_synchronization: bool = False, group_desc: str | None = None, device_id: Any = None,
) -> Any:  # fmt: skip
    """A group of some of the processes; every process calls it, also those that are no members.

    Args:
        ranks: of the members, in the order of their ranks in the group; all if None.

    Raises:
        ArgumentError: a rank does not exist, or stands twice.
    """
    world = member("new_group", None)
    if ranks is not None and not isinstance(ranks, (list, tuple, range)):
        raise ArgumentError(f"new_group: ranks={ranks!r}; expected a list of ranks, or None for all")
    chosen = list(range(world.size())) if ranks is None else list(ranks)
    if len({*chosen}) != len(chosen) or not {*chosen} <= {*range(world.size())} or not chosen:
        raise ArgumentError(f"new_group: ranks={chosen}; expected different ranks from 0 to {world.size() - 1}")
    if world.name() == "alone":
        return ProcessGroup.alone()
    is_member = world.rank() in chosen
    mpi = sys.modules["mpi4py.MPI"]
    communicator = world.communicator.Split(0 if is_member else mpi.UNDEFINED, chosen.index(world.rank()) if is_member else 0)
    if not is_member:
        return GroupMember.NON_GROUP_MEMBER
    return ProcessGroup(communicator, chosen, communicator.Get_rank(), mpi)


def member(function: str, group: Any) -> ProcessGroup:
    """The group of a call, that of all processes if None.

    Raises:
        ProcessError: there is none, or this process is no member.
    """
    if group is None:
        if _World.group is None:
            raise ProcessError(f"{function}: the process group is not initialized; call init_process_group() first")
        return _World.group
    if group is GroupMember.NON_GROUP_MEMBER:
        raise ProcessError(f"{function}: this process is no member of the group")
    if not isinstance(group, ProcessGroup):
        raise DtypeError(f"{function}: group has type {type(group).__name__}; expected a process group, or None for all processes")
    return group


def rank_in(function: str, group: ProcessGroup, name: str, rank: Any) -> int:
    """The rank in a group of the process that has this rank among all."""
    if rank not in group.ranks:
        raise ArgumentError(f"{function}: {name}={rank!r}; expected a rank of the group: {', '.join(map(str, group.ranks))}")
    return group.ranks.index(rank)


def is_initialized() -> bool:
    """Whether :func:`init_process_group` was called."""
    return _World.group is not None


def get_rank(group: Any = None) -> int:
    """The rank of this process in a group, from 0; -1 if it is no member."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else member("get_rank", group).rank()


def get_world_size(group: Any = None) -> int:
    """The number of processes of a group; -1 if this one is no member."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else member("get_world_size", group).size()


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """The rank of this process among those on its machine, which the launcher tells.

    Raises:
        ProcessError: the launcher does not tell, and there is no fallback.
    """
    found = from_environment(("LOCAL_RANK", *_LOCAL_RANKS))
    if found is None and fallback_rank is None:
        raise ProcessError("get_node_local_rank: no launcher has set LOCAL_RANK; pass fallback_rank=")
    return int(found if found is not None else fallback_rank)  # type: ignore[arg-type]


def get_backend(group: Any = None) -> str:
    """The name of the backend, "mpi"."""
    member("get_backend", group)
    return "mpi"


def get_process_group_ranks(group: Any) -> list[int]:
    """The ranks of the members of a group among all processes."""
    return [*member("get_process_group_ranks", group).ranks]


def get_global_rank(group: Any, group_rank: int) -> int:
    """The rank among all processes of a member of a group."""
    ranks = member("get_global_rank", group).ranks
    if group_rank not in range(len(ranks)):
        raise ArgumentError(f"get_global_rank: group_rank={group_rank}; expected 0 to {len(ranks) - 1}")
    return ranks[group_rank]


def get_group_rank(group: Any, global_rank: int) -> int:
    """The rank in a group of a process that has this rank among all."""
    return rank_in("get_group_rank", member("get_group_rank", group), "global_rank", global_rank)


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> None:
    """Wait until all processes of the group are here.

    Raises:
        ArgumentError: ``async_op`` is True: a barrier waits.
    """
    if async_op:
        raise ArgumentError("barrier: async_op=True; expected False, since a barrier waits")
    found = member("barrier", group)
    found.complete(found.communicator.Ibarrier(), "barrier")


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def is_available() -> bool:
    """True: a process can always be a group of its own."""
    return True


def is_nccl_available() -> bool:
    """False: collectives go over MPI."""
    return False


is_gloo_available = is_ucc_available = is_xccl_available = is_nccl_available


def is_torchelastic_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
