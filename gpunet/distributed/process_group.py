"""Process groups: which processes work together, and how they are started and stopped.

``mpiexec -n 4 python script.py`` starts four processes; :func:`init_process_group` joins them by MPI, and those of torchrun or
Slurm by NCCL.  A process that was started alone is a group: all collectives work, and do nothing but copy.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import sys
from collections.abc import Sequence
from enum import Enum
from types import ModuleType
from typing import Any

import numpy

from gpunet.backend import devices, launchers, long_work
from gpunet.backend.devices import Device
from gpunet.backend.nccl import Communicator
from gpunet.distributed.communicators import Alone, OverNccl
from gpunet.distributed.nccl import Link, destroy_all
from gpunet.distributed.store import Store
from gpunet.distributed.waiting import Limits, Watch, limits_of, wait_for
from gpunet.errors import ArgumentError, DeviceError, DtypeError, MissingDependencyError, ProcessError

__all__ = [
    "GroupMember", "ProcessGroup", "ReduceOp", "barrier", "destroy_process_group", "get_backend", "get_global_rank",
    "get_group_rank", "get_node_local_rank", "get_process_group_ranks", "get_rank", "get_world_size", "group",
    "init_process_group", "is_available", "is_gloo_available", "is_initialized", "is_mpi_available", "is_nccl_available",
    "is_torchelastic_launched", "is_ucc_available", "is_xccl_available", "new_group",
]  # fmt: skip

#: Those that communicate over MPI.
_OVER_MPI = ("mpi", "gloo", "ucc")
_BACKENDS = ("nccl", "auto", *_OVER_MPI)


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


class ProcessGroup:
    """Processes that take part in a collective.

    Attributes:
        communicator: of mpi4py, or one of a process alone, or one over NCCL.
        ranks: ranks of the members in the group of all processes, in the order of their ranks in this one.
        rank: of this process in the group.
        waited: the seconds that this process has waited for the others.
    """

    def __init__(
        self, communicator: Any, ranks: Sequence[int], rank: int, mpi: ModuleType | None, backend: str = "mpi"
    ) -> None:  # fmt: skip
        self.communicator, self.ranks, self._rank, self._mpi, self.backend = communicator, list(ranks), rank, mpi, backend
        self.waited = 0.0
        self.link: Link | None = None  # to the GPUs of the others
        if mpi is not None and backend in ("nccl", "auto"):
            gather = functools.partial(self.gather_objects, function="init_process_group")
            self.link = Link(rank, gather, self._wait_for_gpu, backend == "nccl")

    @classmethod
    def alone(cls) -> ProcessGroup:
        """The group of a process without others."""
        return cls(Alone(), [0], 0, None)

    @classmethod
    def over_nccl(cls, store: Store, key: str, ranks: Sequence[int], gpu: Device) -> ProcessGroup:
        """The group of processes that MPI does not know.

        Args:
            key: for what is exchanged over the store; another one for each group.
            gpu: of this process.
        """
        found = cls(None, ranks, ranks.index(store.rank), None, "nccl")
        found.link = Link(found.rank(), functools.partial(store.gather, key, ranks), found._wait_for_gpu, True)
        communicator = found.on_gpu(gpu)
        assert communicator is not None
        found.communicator = OverNccl(communicator, store.Abort)
        return found

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return len(self.ranks)

    def name(self) -> str:
        return "mpi" if self._mpi is not None else "alone" if self.link is None else "nccl"

    def on_gpu(self, gpu: Device) -> Communicator | None:
        """The communicator of NCCL for arrays on a GPU; None if they travel through the memory of the host."""
        return None if self.link is None else self.link.communicator(gpu)

    def operation(self, op: ReduceOp) -> Any:
        """The operation for :attr:`communicator`; an average is a sum that is divided."""
        name = "SUM" if op is ReduceOp.AVG else op.value
        return name if self._mpi is None else getattr(self._mpi, name)

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

    def _wait_for_gpu(self, request: Any) -> None:
        self.waited += wait_for(request, _World.watch, "a collective on a GPU", on_gpu=True)

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
    store: Store | None = None  # of processes without MPI
    num_groups = 0  # that new_group has made over the store


class group:
    """``group.WORLD``, the group of all processes, as scripts call it."""

    WORLD = None


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: Any = None, world_size: int = -1, rank: int = -1,
    store: Any = None, group_name: str = "", pg_options: Any = None, device_id: Any = None,
) -> None:  # fmt: skip
    """Join the processes that ``mpiexec``, torchrun or Slurm started; a process that was started alone is a group of one.

    From then on, an error that ends one process stops all of them, and so does a process that does not answer.

    Args:
        backend: "nccl": tensors on GPUs travel over NCCL, those on the CPU over MPI, or over NCCL if mpiexec did not start the
            processes.  "mpi": all travel over MPI, through the memory of the host; PyTorch's "gloo" and "ucc" mean the same.
            "auto" or None: "nccl" where each process has a GPU of its own and NCCL is installed, else "mpi".  Without a GPU "nccl"
            means "mpi".
        init_method: where processes without MPI find each other: "tcp://HOST:PORT", with ``world_size`` and ``rank``; by default
            "env://", by MASTER_ADDR and MASTER_PORT, or by the first machine of a job of Slurm.
        timeout: a timedelta or seconds; a process that waits longer for others names them and stops all.  By default the variable
            GPUNET_DISTRIBUTED_TIMEOUT, or 25 seconds; 600 for collectives on GPUs, and for processes without MPI to start.
        world_size, rank: what the script expects, if not -1.  The variables WORLD_SIZE and RANK of torchrun count likewise.
        device_id: the GPU of this process.
        store, group_name, pg_options: have no effect.

    Raises:
        ArgumentError: the processes that were started are others than the script expects, or MPI cannot join them.
        MissingDependencyError: several processes were started, and mpi4py, or for "nccl" NCCL, is not installed.
        ProcessError: the group is initialized already, a process is missing, or several processes have one GPU.
    """
    chosen = _chosen(backend)
    if _World.group is not None:
        raise ProcessError("init_process_group: the process group is initialized already; call destroy_process_group() first")
    limits = limits_of(timeout)
    told = launchers.told(world_size, rank)
    found = _mpi_world(chosen, backend == "mpi", told)
    if found.size() == 1 and told is not None:
        found = _nccl_world(chosen, told, init_method, limits, device_id)
    elif rank not in (-1, found.rank()):
        raise ArgumentError(f"init_process_group: rank={rank}, but MPI has given this process rank {found.rank()}")
    elif told is not None and told.size != found.size() and told.by != "Slurm":
        raise ArgumentError(
            f"init_process_group: a group of {told.size} processes is expected, but MPI has started {found.size()}: run the script "
            f"by `mpiexec -n {told.size} python script.py`"
        )
    if found.backend == "nccl" and found.size() > 1:
        found.on_gpu(_gpu(device_id))
    _World.group = group.WORLD = found  # type: ignore[assignment]
    if found.size() > 1:
        _World.watch = Watch(found.communicator.Dup() if _World.store is None else _World.store, limits)
        long_work.listeners.append(_World.watch.announce)
        _World.excepthook, sys.excepthook = sys.excepthook, _print_and_stop


def _forget_watch() -> None:
    """In a child that was forked, such as a worker of a DataLoader: the connections for notices are those of its parent."""
    if _World.watch is not None:
        long_work.listeners.remove(_World.watch.announce)
        sys.excepthook, _World.excepthook = _World.excepthook, None
        _World.watch = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_watch)


def _chosen(backend: Any) -> str:
    """ "nccl", "mpi" or "auto" for what a script has passed, which may be PyTorch's "cpu:gloo,cuda:nccl"."""
    parts = [part.split(":")[-1] for part in backend.lower().split(",")] if isinstance(backend, str) else [backend or "auto"]
    if not {*parts} <= {*_BACKENDS}:
        raise ArgumentError(f"init_process_group: backend={backend!r}; expected one of {', '.join(map(repr, _BACKENDS))}")
    if "nccl" in parts:
        return "nccl" if devices.cuda_status().ready else "mpi"
    return "auto" if "auto" in parts else "mpi"


def _gpu(device_id: Any) -> Device:
    """The GPU of this process: by its rank on the machine, if nobody has chosen another one."""
    if device_id is None:
        return Device("cuda")
    if isinstance(device_id, int) and device_id >= 0:
        device_id = f"cuda:{device_id}"
    gpu = Device(device_id)
    if gpu.type != "cuda":
        raise ArgumentError(f"init_process_group: device_id={device_id!r}; expected a GPU, such as 'cuda:0'")
    devices.set_current_gpu(gpu.index)
    return gpu


def _mpi_world(backend: str, is_required: bool, told: launchers.Told | None) -> ProcessGroup:
    """All processes of which MPI knows; without mpi4py a process is alone, unless a launcher of MPI says otherwise."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        count = launchers.mpi_size()
        if count == 1 and (told is not None or not is_required):
            return ProcessGroup.alone()
        if told is not None and backend != "mpi" and devices.cuda_status().ready:
            return ProcessGroup.alone()  # srun also sets variables of MPI, and NCCL joins the processes
        raise MissingDependencyError(
            f"init_process_group: {count} process{'es were' * (count > 1) or ' was'} started, and mpi4py with an MPI library is "
            "needed: pip install 'gpunet[mpi]'"
        ) from error
    if MPI.COMM_WORLD.Get_size() == 1 and not is_required:
        return ProcessGroup.alone()
    communicator = MPI.COMM_WORLD.Dup()
    return ProcessGroup(communicator, range(communicator.Get_size()), communicator.Get_rank(), MPI, backend)


def _nccl_world(backend: str, told: launchers.Told, init_method: str | None, limits: Limits, device_id: Any) -> ProcessGroup:
    """All processes, of which MPI knows only this one.

    Raises:
        ArgumentError: they cannot use NCCL.
    """
    rank, size, by = told
    status = devices.cuda_status()
    if backend == "mpi" or not status.ready:
        way_out = f"`mpiexec -n {size} python script.py`"
        if by == "Slurm":
            way_out += f", or `srun --mpi=pmi2 -n {size} python script.py`"
        way_out += ", or pass backend='nccl'" if status.ready else f"; NCCL, which needs no MPI, needs GPUs: {status.detail}"
        starts = "says that there are" if by in ("WORLD_SIZE", "world_size") else "has started"
        raise ArgumentError(
            f"init_process_group: {by} {starts} {size} processes, but MPI knows this one alone, since it joins only those that "
            f"mpiexec starts: run the script by {way_out}"
        )
    if not 0 <= rank < size:
        raise ArgumentError(f"init_process_group: rank={rank} of {size} processes; set RANK, or pass rank=, from 0 to {size - 1}")
    store = Store(*launchers.meeting_place(init_method), rank, size, limits.start)
    try:
        found = ProcessGroup.over_nccl(store, "all", range(size), _gpu(device_id))
    except BaseException:
        store.close()
        raise
    _World.store = store
    return found


def launched_group() -> ProcessGroup:
    """The group of all processes that a launcher has started, which is initialized if need be; else that of a process alone."""
    told = launchers.told()
    if _World.group is None and (launchers.mpi_size() > 1 or (told is not None and told.rank >= 0)):
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
    """Leave another group, or that of all processes and with it all others."""
    found = member("destroy_process_group", group)
    is_world = found is _World.group
    if is_world:
        if _World.excepthook is not None:
            sys.excepthook, _World.excepthook = _World.excepthook, None
        _World.group = globals()["group"].WORLD = None
    if found.size() > 1:
        _wait_for_all(found, "destroy_process_group")
        if is_world:
            destroy_all()
        elif found.link is not None:
            found.link.destroy()
        found.communicator.Free()
    if _World.group is None and _World.watch is not None:
        long_work.listeners.remove(_World.watch.announce)
        _World.watch.communicator.Free()
        _World.watch = _World.store = None


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
    if _World.store is not None:
        _World.num_groups += 1
        if not is_member:
            return GroupMember.NON_GROUP_MEMBER
        assert world.link is not None and world.link.device is not None
        return ProcessGroup.over_nccl(_World.store, f"group {_World.num_groups}", chosen, world.link.device)
    mpi = sys.modules["mpi4py.MPI"]
    communicator = world.communicator.Split(0 if is_member else mpi.UNDEFINED, chosen.index(world.rank()) if is_member else 0)
    if not is_member:
        return GroupMember.NON_GROUP_MEMBER
    return ProcessGroup(communicator, chosen, communicator.Get_rank(), mpi, world.backend)


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
    found = launchers.local_rank()
    if found is None and fallback_rank is None:
        raise ProcessError("get_node_local_rank: no launcher has set LOCAL_RANK; pass fallback_rank=")
    return int(found if found is not None else fallback_rank)  # type: ignore[arg-type]


def get_backend(group: Any = None) -> str:
    """The name of the backend: "nccl" if tensors on GPUs must travel over NCCL, else "mpi"."""
    return "nccl" if member("get_backend", group).backend == "nccl" else "mpi"


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
    _wait_for_all(member("barrier", group), "barrier")


def _wait_for_all(found: ProcessGroup, function: str) -> None:
    if found.link is not None:
        found.link.synchronize()
    found.complete(found.communicator.Ibarrier(), function)


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def is_available() -> bool:
    """True: a process can always be a group of its own."""
    return True


def is_nccl_available() -> bool:
    """Whether there is a GPU, and CuPy finds NCCL."""
    try:
        devices.nccl()
    except (DeviceError, MissingDependencyError):
        return False
    return True


def is_gloo_available() -> bool:
    """False: tensors on the CPU travel over MPI."""
    return False


is_ucc_available = is_xccl_available = is_gloo_available


def is_torchelastic_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
