"""NCCL: collectives and training on devices of the stand-in driver, in processes that mpiexec or torchrun's variables start."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

import gpunet
from gpunet import distributed
from gpunet.backend import devices, launchers
from gpunet.backend.nccl import Reached
from gpunet.distributed import nccl, process_group
from gpunet.distributed.nccl import Link
from gpunet.errors import ArgumentError, MissingDependencyError, ProcessError
from tests import driver
from tests.distributed.test_distributed import MPIEXEC, needs_mpi
from tests.driver import processes

needs_driver = pytest.mark.skipif(not driver.available()[0], reason=f"no stand-in driver: {driver.available()[1]}")
#: Of a process that no launcher has started.
FORGOTTEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GPUNET_DISTRIBUTED_TIMEOUT")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run(count: int, name: str, by: str, options: Sequence[str] = (), **more: str) -> str:
    """Run a program of gpu_programs.py in processes, each with its own device; return what they print.

    Args:
        by: "mpiexec", "torchrun", or "variables": those of torchrun, without it.
    """
    arguments = ["-m", "tests.driver", "--devices", str(count), *options, "-m", "tests.distributed.gpu_programs", *name.split()]
    environment = {k: v for k, v in os.environ.items() if k not in FORGOTTEN} | {"OMP_NUM_THREADS": "1", **more}
    if by == "variables":
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
        commands = [([], {"RANK": str(rank), "LOCAL_RANK": str(rank), **place}) for rank in range(count)]
    elif by == "torchrun":
        port = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--rdzv-backend=c10d", port, "--no-python"]
        commands = [([sys.executable, *launcher], {})]
    else:
        commands = [([str(MPIEXEC), "-n", str(count)], {})]
    begun = [
        subprocess.Popen([*command, sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env={**environment, **variables}, cwd=processes.ROOT)
        for command, variables in commands
    ]  # fmt: skip
    printed = "".join(process.communicate(timeout=600)[0] for process in begun)
    assert all(process.returncode == 0 for process in begun) and printed.count("passed") == count, printed
    return printed


exhaustive = pytest.mark.exhaustive


@needs_driver
@pytest.mark.parametrize(
    "name, count, by, options",
    [
        pytest.param("collectives", 2, "variables", []),
        pytest.param("collectives", 3, "mpiexec", ["--lazy"], marks=[exhaustive, needs_mpi]),
        pytest.param("host", 3, "variables", [], marks=exhaustive),
        pytest.param("deterministic", 4, "variables", [], marks=exhaustive),
        pytest.param("deterministic", 2, "mpiexec", ["--lazy"], marks=[exhaustive, needs_mpi]),
        pytest.param("fit", 2, "mpiexec", [], marks=[exhaustive, needs_mpi]),
        pytest.param("fit", 2, "variables", ["--lazy"], marks=exhaustive),
        pytest.param("mismatched", 2, "mpiexec", [], marks=[exhaustive, needs_mpi]),
        pytest.param("shared_gpu auto", 2, "mpiexec", [], marks=[exhaustive, needs_mpi]),
    ],
)  # fmt: skip
def test_program(name: str, count: int, by: str, options: list[str]) -> None:
    run(count, name, by, options)


@needs_driver
@needs_mpi
@exhaustive
def test_training_has_the_losses_of_one_process_and_of_mpi() -> None:
    ways: Any = (
        (2, "training_on_the_cpu", "mpiexec", []), (2, "training", "mpiexec", []), (2, "training", "variables", ["--lazy"]),
        (4, "training", "variables", []), (4, "training", "mpiexec", ["--lazy"]),
    )  # fmt: skip
    found = [re.findall(r"^losses (.+)$", run(*way), re.MULTILINE) for way in ways]
    values = [[float(x) for x in printed[0].split()] for printed in found]
    assert all(v == pytest.approx(values[0], rel=1e-6) for v in values) and len(values[0]) == 5


@needs_driver
@exhaustive
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torchrun comes with PyTorch")
def test_torchrun_itself_starts_the_processes() -> None:
    """It listens at MASTER_PORT itself."""
    run(2, "host", "torchrun")


@needs_driver
@exhaustive
@needs_mpi
def test_processes_with_one_gpu_are_named() -> None:
    with pytest.raises(AssertionError, match=r"ProcessError: init_process_group: NCCL cannot be used: ranks 0, 1 share GPU 0000:"):
        run(2, "host", "variables", ["--devices", "1"])


@needs_driver
def test_missing_nccl_is_named() -> None:
    processes.run("""
    import cupy.cuda.nccl
    from gpunet import distributed
    from gpunet.backend import devices
    from gpunet.errors import MissingDependencyError
    assert distributed.is_nccl_available()
    devices.nccl.cache_clear()
    cupy.cuda.nccl.available = False
    with pytest.raises(MissingDependencyError, match="does not find NVIDIA's library NCCL: pip install 'nvidia-nccl-cu13>=2.27.7'"):
        devices.nccl()
    assert not distributed.is_nccl_available()
    """)


@needs_driver
@exhaustive
def test_a_process_alone_on_a_gpu_is_captured_with_its_collectives() -> None:
    processes.run("""
    import gpunet
    from gpunet import distributed, nn
    from gpunet.nn.parallel import DistributedDataParallel
    distributed.init_process_group()
    model = DistributedDataParallel(nn.Linear(2, 1, device="cuda"))

    @gpunet.capture
    def step(x):
        model.zero_grad()
        y = model(x).sum()
        y.backward()
        parts = [gpunet.zeros_like(y)]
        distributed.all_gather(parts, y)
        return parts[0] - y

    for number in range(1, 4):
        assert step(gpunet.full((1, 2), float(number), device="cuda")).item() == 0.0
        assert model.module.weight.grad.tolist() == [[float(number)] * 2]
    """)


def test_errors_of_collectives_are_raised_while_the_gpu_does_not_come_to_the_event() -> None:
    """A kernel of NCCL whose peer has gone never ends."""

    class Event:
        done = False

    def check() -> None:
        raise ProcessError("remote process exited")

    with pytest.raises(ProcessError, match="remote process exited"):
        Reached(Event(), check).Test()


@needs_driver
def test_a_communicator_that_a_graph_has_captured_is_not_destroyed() -> None:
    """ncclCommDestroy waits until all graphs with its collectives are gone."""
    processes.run("""
    import gpunet
    from gpunet.backend import devices, nccl
    libnccl = ctypes.CDLL("libnccl.so.2")
    for is_captured in (False, True):
        communicator = nccl.Communicator(gpunet.device("cuda"), 1, nccl.make_unique_id(), 0)
        x = cupy.ones(3, "float32")
        communicator.all_reduce(x, "SUM")
        if is_captured:
            graph = devices.record_cuda_graph(lambda: communicator.all_reduce(x, "SUM"), gpunet.device("cuda"))
            graph()
        cupy.cuda.Device().synchronize()
        before = libnccl.standin_nccl_num_destroyed()
        communicator.destroy()
        del communicator
        assert libnccl.standin_nccl_num_destroyed() - before == (not is_captured)
    """)


# ---- the agreement of processes ------------------------------------------------------------------------------------------


class Done:
    """A communicator of NCCL."""

    def __init__(self, device: Any, size: int, unique_id: bytes, rank: int) -> None:
        self.device, self.arguments = device, (size, unique_id, rank)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nccl.devices, "nccl", lambda: None)
    monkeypatch.setattr(nccl.library, "make_unique_id", lambda: b"\x01\x02")
    monkeypatch.setattr(nccl.library, "name_of", lambda device: f"of {device}")
    monkeypatch.setattr(nccl, "Communicator", Done)
    monkeypatch.setattr(nccl, "_connected", [])
    monkeypatch.setattr(nccl.platform, "node", lambda: "here")
    monkeypatch.setattr(nccl, "_boot_id", lambda: "1")


def link(others: list[list[str]], is_required: bool = True) -> Link:
    return Link(0, lambda own: [own, *others], lambda request: None, is_required)


CPU = gpunet.device("cpu")  # the link asks it for nothing


def test_processes_with_gpus_of_their_own_connect(library: None) -> None:
    found: Any = link([["", "", "GPU of cuda:1 of here", "1"]]).communicator(CPU)
    assert found.arguments == (2, b"\x01\x02", 0)
    assert link([["", "", "GPU of cpu of here", "2"]]).communicator(CPU)  # another machine of the same name


def test_a_group_that_was_destroyed_does_not_connect_anew(library: None) -> None:
    found = link([["", "", "GPU of cuda:1 of here", "1"]])
    found.destroy()
    with pytest.raises(ProcessError, match="a collective of a process group that destroy_process_group"):
        found.communicator(CPU)


def test_a_shared_gpu_is_an_error_or_none(library: None, caplog: pytest.LogCaptureFixture) -> None:
    others = [["", "", "GPU of cuda:1 of here", "1"], ["", "", "GPU of cpu of here", "1"]]
    with pytest.raises(ProcessError, match="NCCL cannot be used: ranks 0, 2 share GPU of cpu of here; start a process for each"):
        link(others).communicator(CPU)
    assert link(others, is_required=False).communicator(CPU) is None
    assert "ranks 0, 2 share" in caplog.text and "through the memory of the host" in caplog.text


def test_a_process_without_nccl_is_an_error_in_all(library: None) -> None:
    with pytest.raises(MissingDependencyError, match=r"NCCL cannot be used: pip install it \(rank 1\)"):
        link([["pip install it", "", "", "1"]]).communicator(CPU)


# ---- processes that mpiexec did not start ---------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*FORGOTTEN, *launchers._SIZES, *launchers._RANKS, *launchers._LOCAL_RANKS, "SLURM_JOB_ID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    status = devices.CudaStatus("no driver", "no CUDA driver was found", "")
    monkeypatch.setattr(process_group.devices, "cuda_status", lambda: status)
    return monkeypatch


@pytest.mark.parametrize("backend", ["nccl", "auto", "gloo", None])
def test_torchrun_without_a_gpu_names_mpiexec(environment: pytest.MonkeyPatch, backend: str | None) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("TORCHELASTIC_RUN_ID", "x")):
        environment.setenv(name, value)
    message = (
        r"torchrun has started 4 processes, but MPI knows this one alone.*run the script by `mpiexec -n 4 python script.py`; NCCL, "
        "which needs no MPI, needs GPUs: no CUDA driver was found"
    )
    with pytest.raises(ArgumentError, match=message):
        distributed.init_process_group(backend)
    with pytest.raises(ArgumentError, match=message):  # as the Trainer asks
        process_group.launched_group()


def test_slurm_without_mpi_names_srun(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLURM_STEP_NUM_TASKS", "2")
    environment.setenv("SLURM_PROCID", "0")
    with pytest.raises(ArgumentError, match=r"Slurm has started 2 processes.*`mpiexec -n 2 python .*`srun --mpi=pmi2 -n 2 python"):
        distributed.init_process_group()


def test_mpi_where_gpus_are_names_nccl(environment: pytest.MonkeyPatch) -> None:
    status = devices.CudaStatus("ready", "", "")
    environment.setattr(process_group.devices, "cuda_status", lambda: status)
    environment.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match=r"WORLD_SIZE says that there are 2 processes.*or pass backend='nccl'$"):
        distributed.init_process_group("mpi")
    with pytest.raises(ArgumentError, match=r"rank=-1 of 2 processes; set RANK, or pass rank=, from 0 to 1"):
        distributed.init_process_group("nccl")
    with pytest.raises(ArgumentError, match=r"find each other where MASTER_ADDR and MASTER_PORT say; set them, or pass init_"):
        distributed.init_process_group("nccl", rank=0)


def test_meeting_places(environment: pytest.MonkeyPatch) -> None:
    assert launchers.meeting_place("tcp://node:1234") == ("node", 1234)
    with pytest.raises(ArgumentError, match=r"init_method='file:///x'; expected 'env://' or 'tcp://HOST:PORT'"):
        launchers.meeting_place("file:///x")
    for method in ("tcp://node:99999", "tcp://node:0", "tcp://node", "tcp://[::1:2"):
        with pytest.raises(ArgumentError, match=r"expected 'env://' or 'tcp://HOST:PORT'"):
            launchers.meeting_place(method)
    environment.setenv("SLURM_JOB_ID", "123456")
    for machines, first in (
        ("node[03-05,9],other", "node03"), ("a7,b", "a7"), ("gpu-[1,3]-x,b", "gpu-1-x"), ("alone", "alone"),
        ("r[1-2]n[07-9]-x,b", "r1n07-x"),
    ):  # fmt: skip
        environment.setenv("SLURM_STEP_NODELIST", machines)
        assert launchers.meeting_place("env://") == (first, 18456)
    environment.setenv("MASTER_ADDR", "host")
    environment.setenv("MASTER_PORT", "29500")
    assert launchers.meeting_place(None) == ("host", 29500)
    environment.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert launchers.meeting_place(None) == ("host", 29501)
    environment.setenv("MASTER_PORT", "65535")
    with pytest.raises(ArgumentError, match="at port 65536; set MASTER_PORT, from 1 to 65535"):
        launchers.meeting_place(None)


def test_what_launchers_tell(environment: pytest.MonkeyPatch) -> None:
    assert launchers.told() is None and launchers.told(1, 0) is None and launchers.mpi_size() == 1
    assert launchers.told(3, 2) == (2, 3, "world_size")
    environment.setenv("SLURM_STEP_NUM_TASKS", "4")
    environment.setenv("SLURM_PROCID", "3")
    assert launchers.told() == (3, 4, "Slurm") and launchers.told(4, 1) == (1, 4, "Slurm")
    environment.setenv("RANK", "2")  # alone it may be of another launcher
    assert launchers.told() == (3, 4, "Slurm")
    environment.setenv("WORLD_SIZE", "4")
    assert launchers.told() == (2, 4, "Slurm")
    assert launchers.told(1, 0) is None
    environment.setenv("WORLD_SIZE", "2")
    environment.setenv("RANK", "1")
    assert launchers.told() == (1, 2, "WORLD_SIZE")
    environment.setenv("SLURM_LOCALID", "5")
    assert launchers.local_rank() == 5


def test_numbers_of_launchers_have_decimal_digits(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LOCAL_RANK", "\u00b2")
    assert launchers.local_rank() is None


def test_srun_with_variables_of_mpi_needs_no_mpi(environment: pytest.MonkeyPatch) -> None:
    for name, value in (("PMI_SIZE", "2"), ("PMI_RANK", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")):
        environment.setenv(name, value)
    environment.setitem(sys.modules, "mpi4py", None)
    told = launchers.told()
    with pytest.raises(MissingDependencyError, match="2 processes were started, and mpi4py with an MPI library is needed"):
        process_group._mpi_world("auto", False, told)  # there is no GPU
    status = devices.CudaStatus("ready", "", "")
    environment.setattr(process_group.devices, "cuda_status", lambda: status)
    assert process_group._mpi_world("auto", False, told).size() == 1
    with pytest.raises(MissingDependencyError):
        process_group._mpi_world("mpi", True, told)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_sends_no_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a DataLoader, whose parent has the connection."""

    class Watch:
        def announce(self, activity: str | None) -> None:
            """Do nothing."""

    watch = Watch()
    monkeypatch.setattr(process_group._World, "watch", watch)
    monkeypatch.setattr(process_group._World, "excepthook", sys.excepthook)
    monkeypatch.setattr(process_group.long_work, "listeners", [watch.announce])
    child = os.fork()
    if child == 0:
        os._exit(bool(process_group._World.watch or process_group.long_work.listeners))
    assert os.waitpid(child, 0)[1] == 0 and process_group._World.watch is watch


def test_the_gpu_of_a_process_is_that_of_its_rank(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(devices._contexts, "gpu", None)
    assert devices.current_gpu() == 0
    environment.setenv("MPI_LOCALRANKID", "3")
    assert devices.current_gpu() == 3
    devices.set_current_gpu(1)
    assert devices.current_gpu() == 1
