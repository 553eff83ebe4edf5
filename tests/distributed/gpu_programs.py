"""Programs that test_nccl.py runs in several processes on the stand-in driver and the stand-in NCCL, one device for each process:

    mpiexec -n 2 python -m tests.driver --devices 2 -m tests.distributed.gpu_programs NAME
    torchrun --nproc-per-node 2 --no-python python -m tests.driver --devices 2 -m tests.distributed.gpu_programs NAME
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import distributed, nn
from gpunet.backend.nccl import Communicator
from gpunet.distributed import nccl
from gpunet.nn.parallel import DistributedDataParallel
from gpunet.train.reduction import Sums, Tree
from tests import driver
from tests.distributed import programs

F = nn.functional


def on_gpu(array: Any) -> gpunet.Tensor:
    return gpunet.tensor(array, device="cuda")


def collectives() -> None:
    """Collectives of tensors on GPUs against NumPy; of those on the CPU, which go over NCCL without MPI, programs.collectives."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    assert distributed.get_backend() == "nccl" and gpunet.cuda.current_device() == rank
    combined: dict[str, Any] = {"SUM": numpy.sum, "PRODUCT": numpy.prod, "MIN": numpy.min, "MAX": numpy.max, "AVG": numpy.mean}
    for dtype in ("float32", "float64", "float16", "int64", "uint8", "int16", "complex64", "bool"):
        everything = [(a if dtype != "complex64" else a + 1j * a[::-1]).astype(dtype) for a in programs.arrays_of_all((3, 4))]
        for name, combine in combined.items():
            is_floating = dtype.startswith(("float", "complex"))
            if (name == "AVG" and not is_floating) or (name in ("MIN", "MAX") and dtype == "complex64"):
                continue
            wide = numpy.array(everything).astype("float64" if dtype == "float16" else dtype)
            expected, rtol = combine(wide, axis=0).astype(dtype), 2e-3 if dtype == "float16" else 1e-5
            op = getattr(distributed.ReduceOp, name)
            x, y = on_gpu(everything[rank]), on_gpu(everything[rank])
            distributed.all_reduce(x, op)
            numpy.testing.assert_allclose(x.cpu().numpy(), expected, rtol=rtol, atol=1e-6, err_msg=f"{dtype} {name}")
            distributed.reduce(y, size - 1, op)
            expected = expected if rank == size - 1 else everything[rank]
            numpy.testing.assert_allclose(y.cpu().numpy(), expected, rtol=rtol, atol=1e-6, err_msg=f"{dtype} {name}")
    everything = programs.arrays_of_all((2, 3))
    bits, own = on_gpu([1 << rank]), on_gpu(everything[rank])
    distributed.all_reduce(bits, distributed.ReduceOp.BOR)
    assert bits.item() == (1 << size) - 1
    x = on_gpu(everything[rank])
    distributed.broadcast(x, 1)
    assert (x.cpu().numpy() == everything[1]).all()
    parts = [gpunet.zeros_like(own) for _ in range(size)]
    distributed.all_gather(parts, own)
    assert all((part.cpu().numpy() == a).all() for part, a in zip(parts, everything))
    gathered = [gpunet.zeros_like(own) for _ in range(size)] if rank == 0 else None
    distributed.gather(own, gathered)
    assert gathered is None or all((part.cpu().numpy() == a).all() for part, a in zip(gathered, everything))
    received = gpunet.zeros_like(own)
    distributed.scatter(received, [on_gpu(a) for a in everything] if rank == 1 else None, src=1)
    assert (received.cpu().numpy() == everything[rank]).all()
    piece = on_gpu(numpy.zeros(3))
    distributed.reduce_scatter_tensor(piece, on_gpu(numpy.tile(everything[rank][:1], (size, 1))))
    numpy.testing.assert_allclose(piece.cpu().numpy(), sum(a[0] for a in everything))
    exchanged = on_gpu(numpy.zeros(size, int))
    distributed.all_to_all_single(exchanged, on_gpu(numpy.arange(size) + 10 * rank))
    assert exchanged.tolist() == [10 * k + rank for k in range(size)]
    large = on_gpu(numpy.full(100_003, rank, "float32"))  # several letters, and several slots
    distributed.all_reduce(large)
    assert (large == float(sum(range(size)))).all()
    pair = distributed.new_group([1, 0])
    if rank < 2:
        x = on_gpu([float(rank)])
        distributed.all_reduce(x, group=pair)
        assert x.item() == 1.0 and distributed.get_rank(pair) == 1 - rank
        if rank == 0:
            distributed.send(on_gpu([3.0, 4.0]), 1)
        else:
            y = on_gpu([0.0, 0.0])
            assert distributed.recv(y, 0) == 0 and y.tolist() == [3.0, 4.0]
    else:
        assert pair is distributed.GroupMember.NON_GROUP_MEMBER
    with pytest.raises(gpunet.errors.DeviceError, match="but this process takes part with cuda:"):
        distributed.all_reduce(gpunet.ones(1, device=f"cuda:{(rank + 1) % size}"))
    distributed.barrier()


def host() -> None:
    """Tensors on the CPU and objects, in processes that MPI does not know."""
    programs.collectives()


def training(device: str = "cuda") -> None:
    """Losses of eager and captured steps against those of one process on the CPU; a replay has its collectives in the graph."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    for kind in ("plain", "sync"):
        alone = losses(programs.network(kind), False, 0, 1, "cpu")
        for is_captured in (False, True):
            model = programs.network(kind)
            if rank:
                for p in model.parameters():
                    p.data.add_(rank)
            model = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model.to(device)), bucket_cap_mb=1e-4)
            found = losses(model, is_captured, rank, size, device)
            numpy.testing.assert_allclose(found, alone, rtol=1e-6)
    if rank == 0:
        print(f"losses {' '.join(f'{x:.9f}' for x in found)}")


def training_on_the_cpu() -> None:
    """The same over MPI."""
    training("cpu")


def losses(model: nn.Module, is_captured: bool, rank: int, size: int, device: str) -> list[float]:
    """The mean losses of all processes of five steps, each with its own rows of the batches."""
    calls: list[str] = []
    run = programs.training_step(model, is_captured)
    found, noted = [], Communicator.all_reduce

    def note(*arguments: Any) -> None:
        calls.append("all_reduce")
        noted(*arguments)

    Communicator.all_reduce = note  # type: ignore[method-assign]
    for number, (x, y) in enumerate(programs.batches()):
        calls.clear()
        before = driver.num_collectives()
        loss = run(gpunet.tensor(x[rank::size], device=device), gpunet.tensor(y[rank::size], device=device))
        gpunet.synchronize(device)
        num_run = driver.num_collectives() - before
        if is_captured and device == "cuda" and number > 1:
            assert not calls and num_run >= 4, (calls, num_run)  # in the graph
        mean = loss.detach().clone()
        if size > 1:
            distributed.all_reduce(mean, distributed.ReduceOp.AVG)
        found.append(mean.item())
    Communicator.all_reduce = noted  # type: ignore[method-assign]
    return found


def deterministic() -> None:
    """The tree of gradients has the bits of one process, in eager steps and in a graph."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    for is_captured in (False, True):
        runs = [shards(distributed.group.WORLD, range(rank * 4 // size, (rank + 1) * 4 // size), is_captured)]
        runs.append(shards(distributed.ProcessGroup.alone(), range(4), is_captured))
        assert runs[0] == runs[1]


def shards(group: Any, own: range, is_captured: bool) -> list[bytes]:
    """The weights after steps whose batches are computed in four shards."""
    model = programs.network("plain").cuda()
    parameters = [*model.parameters()]
    optimizer, sums = gpunet.optim.Adam(parameters, lr=0.01), Sums(gpunet.device("cuda"))
    tree = Tree(parameters, group, sums)
    sums.unit.fill_(1.0)

    def step(x: Any, y: Any) -> None:
        tree.start(True)
        for k in range(len(own)):
            loss = F.cross_entropy(model(x[3 * k : 3 * k + 3]), y[3 * k : 3 * k + 3], reduction="sum")
            tree.add(loss, gpunet.stack([loss.detach().double(), gpunet.full((), 3.0, dtype=gpunet.float64, device="cuda")]))
        tree.end_batch(True)
        tree.finish()
        optimizer.step()

    run = gpunet.capture(step) if is_captured else step
    for x, y in programs.batches():
        run(on_gpu(x[3 * own.start : 3 * own.stop]), on_gpu(y[3 * own.start : 3 * own.stop]))
    return [p.detach().cpu().numpy().tobytes() for p in parameters]


def fit() -> None:
    """gpunet.Trainer shares batches among GPUs, and has the losses of one process."""
    x, y = (gpunet.tensor(numpy.concatenate(arrays)) for arrays in zip(*programs.batches()))
    found = []
    for group, device in ((None, "cuda"), (distributed.ProcessGroup.alone(), "cpu")):
        model = programs.network("plain").to(device)
        loader = gpunet.utils.data.DataLoader(gpunet.utils.data.TensorDataset(x, y), batch_size=12)
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)
        trainer = gpunet.Trainer(model, nn.CrossEntropyLoss(), optimizer, progress=False, process_group=group)
        found.append([row["train_loss"] for row in trainer.fit(loader, epochs=2).rows])
    numpy.testing.assert_allclose(*found, rtol=1e-6)


def mismatched() -> None:
    """Processes that call different collectives: the error of NCCL is raised where the host next waits."""
    x = on_gpu([1.0, 2.0])
    if distributed.get_rank() == 0:
        distributed.all_reduce(x)
    else:
        distributed.broadcast(x, 0)
    with pytest.raises(gpunet.errors.ProcessError, match=r"a collective on a GPU: NCCL failed \(.*remote process exited"):
        gpunet.cuda.synchronize("cuda")
    print("passed", flush=True)
    os._exit(0)  # the group cannot be destroyed


def shared_gpu() -> None:
    """In a process group "auto", processes that share a GPU exchange tensors through the memory of the host."""
    gpunet.cuda.set_device(0)
    x = on_gpu([1.0, 2.0])
    distributed.all_reduce(x)
    assert x.tolist() == [2.0, 4.0] and distributed.get_backend() == "mpi"

    @gpunet.capture
    def step(x: Any) -> Any:
        y = x * 2
        distributed.all_reduce(y)
        return y

    with pytest.raises(gpunet.errors.CaptureError, match=r"all_reduce by ReduceOp.SUM of float32 on a GPU, which goes through the"):
        step(x)


if __name__ == "__main__":
    distributed.init_process_group(sys.argv[2] if len(sys.argv) > 2 else "nccl")
    globals()[sys.argv[1]]()
    distributed.destroy_process_group()
    assert not nccl._connected  # also of the other groups
    print("passed", flush=True)
