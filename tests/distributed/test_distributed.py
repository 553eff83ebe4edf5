"""Process groups, collectives and data-parallel training, in several processes started by mpiexec."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet import distributed, emulator, nn
from gpunet.distributed.waiting import limits_of
from gpunet.errors import ArgumentError, DtypeError, ProcessError, ShapeError
from gpunet.nn.parallel import DistributedDataParallel

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or not distributed.is_mpi_available(), reason="MPI is not installed: pip install 'gpunet[mpi]'"
)


def run(count: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(count), sys.executable, *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@needs_mpi
@pytest.mark.parametrize(
    "name, count",
    [
        ("collectives", 3), ("data_parallel", 2), ("accumulation", 3), ("unused", 2), ("different", 2), ("numbers", 2),
        ("accumulated_and_unused", 2), ("overlap", 2),
    ],
)  # fmt: skip
def test_program(name: str, count: int) -> None:
    emulated = {"TEST_EMULATED": "1"} if emulator.available() else {}
    done = run(count, "-m", "tests.distributed.programs", name, **emulated)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == count


@needs_mpi
def test_an_error_in_one_process_stops_all() -> None:
    done = run(2, "-m", "tests.distributed.programs", "failing")
    assert done.returncode != 0
    assert "ValueError: planted" in done.stderr and "rank 1 of 2 has failed; all are stopped" in done.stderr


@needs_mpi
@pytest.mark.parametrize(
    "name, message",
    [
        ("stopped", r"rank [02] has waited [3-9] s in all_reduce for rank 1, which does not answer"),
        ("confused", r"rank 1 has waited [3-9] s in irecv for other processes, which call other functions; rank 0 in all_r"),
    ],
)
def test_a_process_that_hangs_is_named_and_stops_all(name: str, message: str) -> None:
    done = run(3, "-m", "tests.distributed.programs", name, GPUNET_DISTRIBUTED_TIMEOUT="3")
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr


def test_time_limits() -> None:
    assert limits_of(timedelta(minutes=1)) == (60.0, 60.0, 60.0) and limits_of(2) == (2.0, 2.0, 2.0)
    with pytest.raises(ArgumentError, match="init_process_group: timeout=-1; expected a timedelta, or a positive number"):
        limits_of(-1)


SCRIPT = """
import os
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
local_rank = int(os.environ["LOCAL_RANK"])
torch.manual_seed(0)
data = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10.0)[:, None])
sampler = DistributedSampler(data)
model = DDP(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(2):
    sampler.set_epoch(epoch)
    for x, y in DataLoader(data, batch_size=5, sampler=sampler):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
dist.barrier()
print(f"weight {model.module.weight.item():.9f}", flush=True)
dist.destroy_process_group()
"""


@needs_mpi
def test_a_script_for_torchrun_runs_under_mpiexec(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = run(2, "-m", "gpunet", "run", str(script))
    assert done.returncode == 0, done.stderr
    assert len({line for line in done.stdout.splitlines() if line.startswith("weight")}) == 1
    assert done.stdout.count("weight") == 2


# ---- a process alone ----------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.init_process_group("nccl", timeout=timedelta(minutes=1))
    yield
    distributed.destroy_process_group()


def test_a_process_alone_is_a_group(alone: None) -> None:
    assert distributed.is_initialized() and distributed.group.WORLD is not None
    assert (distributed.get_rank(), distributed.get_world_size(), distributed.get_backend()) == (0, 1, "mpi")
    x = gpunet.tensor([1.0, 2.0])
    distributed.all_reduce(x, distributed.ReduceOp.AVG)
    distributed.broadcast(x, 0)
    parts = [gpunet.zeros(2)]
    distributed.all_gather(parts, x)
    assert parts[0].tolist() == [1.0, 2.0]
    objects: list[Any] = [None]
    distributed.all_gather_object(objects, "a")
    assert objects == ["a"]
    model = DistributedDataParallel(nn.Linear(2, 1))
    model(gpunet.ones(1, 2)).sum().backward()
    assert model.module.weight.grad.tolist() == [[1.0, 1.0]]
    assert [name for name, _ in model.named_parameters()] == ["module.weight", "module.bias"]
    assert list(gpunet.utils.data.DistributedSampler(range(4), shuffle=False)) == [0, 1, 2, 3]
    y = nn.SyncBatchNorm(2)(gpunet.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert gpunet.allclose(y, gpunet.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4)
    distributed.barrier()


def test_a_collective_in_place_is_detected_by_backward(alone: None) -> None:
    x = gpunet.ones(2, requires_grad=True)
    y = x * 1
    z = y * y
    distributed.all_reduce(y.detach())
    with pytest.raises(gpunet.errors.InPlaceError):
        z.sum().backward()


def test_errors_before_the_group_is_initialized() -> None:
    assert not distributed.is_initialized() and distributed.is_available()
    for call in (distributed.get_rank, distributed.barrier, lambda: DistributedDataParallel(nn.Linear(1, 1))):
        with pytest.raises(ProcessError, match=r"call init_process_group\(\) first"):
            call()
    with pytest.raises(ArgumentError, match="init_process_group"):
        gpunet.utils.data.DistributedSampler([1, 2])


def test_another_number_of_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="mpiexec -n 4"):
        distributed.init_process_group("gloo", world_size=4, rank=0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ArgumentError, match="mpiexec -n 8"):
        distributed.init_process_group()
    with pytest.raises(ArgumentError, match="backend='smoke'"):
        distributed.init_process_group("smoke")
    assert not distributed.is_initialized()


def test_wrong_arguments_are_named(alone: None) -> None:
    x = gpunet.ones(2)
    with pytest.raises(ProcessError, match="initialized already"):
        distributed.init_process_group()
    with pytest.raises(ArgumentError, match=r"src=3; expected a rank of the group: 0"):
        distributed.broadcast(x, 3)
    with pytest.raises(ArgumentError, match="tensor_list is 2 tensors; expected a list of 1"):
        distributed.all_gather([x, x], x)
    with pytest.raises(ShapeError, match=r"contains a tensor \(3,\)"):
        distributed.all_gather([gpunet.ones(3)], x)
    with pytest.raises(DtypeError, match="AVG of int64"):
        distributed.all_reduce(gpunet.arange(2), distributed.ReduceOp.AVG)
    with pytest.raises(DtypeError, match="BOR of float32"):
        distributed.all_reduce(x, distributed.ReduceOp.BOR)
    with pytest.raises(ArgumentError, match=r"op='sum'; expected one of ReduceOp\.SUM"):
        distributed.all_reduce(x, "sum")
    with pytest.raises(DtypeError, match="tensor has type list"):
        distributed.all_reduce([1.0])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="dst=0 is this process"):
        distributed.send(x, 0)
    with pytest.raises(ArgumentError, match="no parameter requires grad"):
        DistributedDataParallel(nn.ReLU())
    with pytest.raises(ArgumentError, match=r"ranks=\[0, 5\]"):
        distributed.new_group([0, 5])


def test_more_wrong_arguments_are_named(alone: None) -> None:
    with pytest.raises(ArgumentError, match="barrier: async_op=True"):
        distributed.barrier(async_op=True)
    with pytest.raises(ArgumentError, match="new_group: ranks=3"):
        distributed.new_group(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="broadcast_object_list: object_list="):
        distributed.broadcast_object_list((1, 2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="LazyBatchNorm2d does not know its number of features"):
        nn.SyncBatchNorm.convert_sync_batchnorm(nn.LazyBatchNorm2d())


def test_explain_runs_no_collective(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    communicator = type(distributed.group.WORLD.communicator)  # type: ignore[attr-defined]
    run = communicator.Iallreduce
    monkeypatch.setattr(communicator, "Iallreduce", lambda *args, **options: calls.append(1) or run(*args, **options))

    @gpunet.capture
    def step(x: Any) -> Any:
        y = x * 2
        distributed.all_reduce(y)
        return x + 1  # nothing reads y

    for _ in range(3):
        step(gpunet.ones(2))
    before = len(calls)
    step(gpunet.ones(2))
    assert len(calls) == before + 1
    step.explain()
    assert len(calls) == before + 1


def test_several_processes_without_mpi4py_are_not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(gpunet.errors.MissingDependencyError, match=r"2 processes were started.*pip install 'gpunet\[mpi\]'"):
        distributed.init_process_group()
    monkeypatch.delenv("PMI_SIZE")
    with pytest.raises(gpunet.errors.MissingDependencyError, match="1 process was started"):
        distributed.init_process_group("mpi")
    distributed.init_process_group()
    assert distributed.get_world_size() == 1
    distributed.destroy_process_group()


@needs_mpi
def test_mpi_and_not_the_environment_counts_the_processes() -> None:
    """As under a launcher whose variables are not known."""
    code = (
        "from gpunet.backend import launchers\nfrom gpunet.distributed import process_group as p\nlaunchers._MPI_SIZES = ()\n"
        "p.init_process_group()\n"
        "print(f'size {p.get_world_size()}')\np.destroy_process_group()"
    )
    done = run(2, "-c", code)
    assert done.stdout.count("size 2") == 2, done.stderr
