"""Programs that test_distributed.py runs in several processes: ``mpiexec -n 2 python -m tests.distributed.programs NAME``."""

from __future__ import annotations

import copy
import os
import signal
import sys
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import distributed, nn
from gpunet.distributed.transfers import Transfer
from gpunet.nn.parallel import DistributedDataParallel

F = nn.functional


def arrays_of_all(shape: tuple[int, ...], dtype: str = "float64") -> list[numpy.ndarray]:
    """The array of each process, the same in all of them."""
    size = distributed.get_world_size()
    return [(10 * numpy.random.default_rng(rank).normal(size=shape)).astype(dtype) for rank in range(size)]


def collectives() -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    reductions: dict[Any, Any] = {"SUM": numpy.sum, "PRODUCT": numpy.prod, "MIN": numpy.min, "MAX": numpy.max, "AVG": numpy.mean}
    for dtype in ("float32", "float64", "float16", "int64", "int32", "uint8", "complex64", "bool"):
        everything = arrays_of_all((3, 4), dtype) if dtype != "complex64" else [a + 1j * a[::-1] for a in arrays_of_all((3, 4))]
        everything = [a.astype(dtype) for a in everything]
        for name, reduction in reductions.items():
            is_floating = dtype.startswith(("float", "complex"))
            if (name == "AVG" and not is_floating) or (name in ("MIN", "MAX") and dtype == "complex64"):
                continue
            wide = numpy.array(everything).astype("float64" if dtype == "float16" else dtype)
            expected = reduction(wide, axis=0).astype(dtype)
            x = gpunet.tensor(everything[rank].copy())
            distributed.all_reduce(x, getattr(distributed.ReduceOp, name))
            numpy.testing.assert_allclose(x.numpy(), expected, rtol=2e-3 if dtype == "float16" else 1e-5, err_msg=f"{dtype} {name}")
            y = gpunet.tensor(everything[rank].copy())
            distributed.reduce(y, size - 1, getattr(distributed.ReduceOp, name))
            if rank == size - 1:  # added in another order
                numpy.testing.assert_allclose(y.numpy(), x.numpy(), rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-4)
            else:
                assert (y.numpy() == everything[rank]).all()
    everything = arrays_of_all((2, 3))
    bits = gpunet.tensor([1 << rank])
    distributed.all_reduce(bits, distributed.ReduceOp.BOR)
    assert bits.item() == (1 << size) - 1
    x = gpunet.tensor(everything[rank])
    distributed.broadcast(x, 1)
    assert (x.numpy() == everything[1]).all()
    strided = gpunet.tensor(everything[rank].T.copy()).T
    distributed.all_reduce(strided)
    numpy.testing.assert_allclose(strided.numpy(), sum(everything))
    parts = [gpunet.zeros(2, 3, dtype=gpunet.float64) for _ in range(size)]
    own = gpunet.tensor(everything[rank])
    work = distributed.all_gather(parts, own, async_op=True)
    assert work is not None and work.wait() and work.is_completed()
    assert all((part.numpy() == a).all() for part, a in zip(parts, everything))
    whole = gpunet.zeros(2 * size, 3, dtype=gpunet.float64)
    distributed.all_gather_into_tensor(whole, own)
    assert (whole.numpy() == numpy.concatenate(everything)).all()
    gathered = [gpunet.zeros_like(own) for _ in range(size)] if rank == 0 else None
    distributed.gather(own, gathered)
    assert gathered is None or all((part.numpy() == a).all() for part, a in zip(gathered, everything))
    received = gpunet.zeros_like(own)
    distributed.scatter(received, [gpunet.tensor(a) for a in everything] if rank == 1 else None, src=1)
    assert (received.numpy() == everything[rank]).all()
    piece = gpunet.zeros(3, dtype=gpunet.float64)
    distributed.reduce_scatter_tensor(piece, gpunet.tensor(numpy.tile(everything[rank][:1], (size, 1))))
    numpy.testing.assert_allclose(piece.numpy(), sum(a[0] for a in everything))
    distributed.reduce_scatter(piece, [own[0] * (k + 1) for k in range(size)], distributed.ReduceOp.AVG)
    numpy.testing.assert_allclose(piece.numpy(), sum(a[0] for a in everything) * (rank + 1) / size)
    exchanged = gpunet.zeros(size, dtype=gpunet.int64)
    distributed.all_to_all_single(exchanged, gpunet.arange(size) + 10 * rank)
    assert exchanged.tolist() == [10 * k + rank for k in range(size)]
    outs = [gpunet.zeros(1) for _ in range(size)]
    distributed.all_to_all(outs, [gpunet.tensor([float(10 * rank + k)]) for k in range(size)])
    assert [o.item() for o in outs] == [10.0 * k + rank for k in range(size)]
    if rank == 0:
        distributed.send(gpunet.tensor([3.0, 4.0]), 1)
    if rank == 1:
        y = gpunet.zeros(2)
        assert distributed.recv(y, 0) == 0 and y.tolist() == [3.0, 4.0]
    pending = [distributed.isend(gpunet.full((50_000,), float(rank)), (rank + 1) % size)]
    y = gpunet.zeros(50_000)
    pending.append(distributed.irecv(y, (rank - 1) % size))
    assert all(work.wait() for work in pending) and (y == float((rank - 1) % size)).all()
    objects: list[Any] = [None] * size
    distributed.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": k} for k in range(size)]
    shared = [rank, "x"]
    distributed.broadcast_object_list(shared, src=1)
    assert shared == [1, "x"]
    mine: list[Any] = [None]
    distributed.scatter_object_list(mine, [*range(size)] if rank == 0 else None)
    assert mine == [rank]
    distributed.gather_object(rank, objects if rank == 1 else None, dst=1)
    assert rank != 1 or objects == [*range(size)]
    pair = distributed.new_group([1, 0])
    if rank < 2:
        x = gpunet.tensor([float(rank)])
        distributed.all_reduce(x, group=pair)
        assert x.item() == 1.0 and distributed.get_rank(pair) == 1 - rank and distributed.get_global_rank(pair, 0) == 1
        assert distributed.get_group_rank(pair, 1) == 0 and distributed.get_process_group_ranks(pair) == [1, 0]
    else:
        assert distributed.get_rank(pair) == -1
    for device in ("emulated",) if os.environ.get("TEST_EMULATED") else ():
        x = gpunet.tensor(everything[rank], device=device)
        distributed.all_reduce(x)
        numpy.testing.assert_allclose(x.cpu().numpy(), sum(everything))
    distributed.barrier()


def network(kind: str) -> nn.Module:
    gpunet.manual_seed(0)
    norm = {"plain": nn.Identity(), "sync": nn.BatchNorm1d(8)}[kind]
    return nn.Sequential(nn.Linear(4, 8), norm, nn.Tanh(), nn.Linear(8, 3)).double()


def batches() -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    generator = numpy.random.default_rng(7)
    return [(generator.normal(size=(12, 4)), generator.integers(0, 3, 12)) for _ in range(5)]


def training_step(model: nn.Module, is_captured: bool) -> Any:
    optimizer = gpunet.optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return gpunet.capture(step) if is_captured else step


def trained(model: nn.Module, is_captured: bool, rank: int, size: int) -> list[numpy.ndarray]:
    """Parameters and buffers after steps with this process's rows of each batch."""
    run = training_step(model, is_captured)
    for x, y in batches():
        run(gpunet.tensor(x[rank::size]), gpunet.tensor(y[rank::size]))
    return [t.detach().numpy() for t in (*model.parameters(), *model.buffers())]


def data_parallel() -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    for kind in ("plain", "sync"):
        alone = trained(network(kind), False, 0, 1)
        for is_captured in (False, True):
            runs = []
            for cap in (25.0, 25.0, 1e-4):
                model = network(kind)
                if rank:  # replaced by those of the first process
                    for p in model.parameters():
                        p.data.add_(rank)
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
                runs.append(trained(DistributedDataParallel(model, bucket_cap_mb=cap), is_captured, rank, size))
            for found in runs:
                for a, b in zip(found, alone, strict=True):
                    numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
            assert [a.tobytes() for a in runs[0]] == [a.tobytes() for a in runs[1]]
            digests: list[Any] = [None] * size
            distributed.all_gather_object(digests, [a.tobytes() for a in runs[0]])
            assert all(d == digests[0] for d in digests)


def accumulation() -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    model = DistributedDataParallel(network("plain"))
    x, y = (gpunet.tensor(a) for a in batches()[0])
    with model.no_sync():
        F.cross_entropy(model(x[rank::size][:2]), y[rank::size][:2]).backward()
    F.cross_entropy(model(x[rank::size][2:4]), y[rank::size][2:4]).backward()
    other = network("plain")
    for k in range(size):
        for part in (slice(0, 2), slice(2, 4)):
            (F.cross_entropy(other(x[k::size][part]), y[k::size][part]) / size).backward()
    for p, q in zip(model.parameters(), other.parameters()):
        assert p.grad is not None and q.grad is not None
        numpy.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-10, atol=1e-13)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x: Any, use_second: bool) -> Any:
        return self.first(x) + (self.second(x) if use_second else 0.0)


def unused() -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    model(gpunet.ones(1, 2), rank == 0).sum().backward()
    inner: Any = model.module
    assert inner.first.weight.grad.tolist() == [[1.0, 1.0]]
    numpy.testing.assert_allclose(inner.second.weight.grad.numpy(), 1 / size)
    assert inner.third.weight.grad is None
    model = DistributedDataParallel(Branches())
    with pytest.raises(gpunet.errors.GradientError, match=r"for third\.bias, third\.weight, second\.bias, second\.weight;"):
        model(gpunet.ones(1, 2), rank == 0).sum().backward()


def numbers() -> None:
    """Tensors without dimensions, and collectives whose results only some processes use, in captured steps."""
    rank, size = distributed.get_rank(), distributed.get_world_size()

    @gpunet.capture
    def step(x: Any) -> Any:
        loss = x.sum()
        mean = loss.clone()
        distributed.all_reduce(mean, distributed.ReduceOp.AVG)
        parts = [gpunet.zeros(()) for _ in range(size)]
        distributed.all_gather(parts, loss)
        total = loss.clone()
        distributed.reduce(total, 0)
        return mean if rank == 0 else loss, [p * 1 for p in parts]

    for number in range(4):
        result, parts = step(gpunet.full((2,), float(number + rank)))
        assert [p.item() for p in parts] == [2.0 * (number + k) for k in range(size)]
        assert rank or result.item() == 2.0 * number + (size - 1)
    x = gpunet.zeros(())
    distributed.scatter(x, [gpunet.tensor(float(k)) for k in range(size)] if rank == 0 else None)
    assert x.item() == rank
    distributed.reduce_scatter(x, [gpunet.tensor(1.0 + k) for k in range(size)])
    assert x.item() == size * (1.0 + rank)


def accumulated_and_unused() -> None:
    """Where a process has no new gradient, its accumulated one counts."""
    rank = distributed.get_rank()
    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    with model.no_sync():
        model(gpunet.ones(1, 2), True).sum().backward()
    model._arrived.clear()
    model(gpunet.full((1, 2), 4.0), rank == 0).sum().backward()
    inner: Any = model.module
    assert inner.second.weight.grad.tolist() == [[3.0, 3.0]]  # the mean of 1 + 4 and 1
    copied = copy.deepcopy(model)
    copied(gpunet.full((1, 2), float(rank)), True).sum().backward()
    assert copied.module.second.weight.grad.tolist() == [[3.5, 3.5]]
    assert inner.second.weight.grad.tolist() == [[3.0, 3.0]]


def different() -> None:
    rank = distributed.get_rank()
    with pytest.raises(gpunet.errors.ProcessError, match=r"'weight' is \(3, 2\) of float32 in rank 1, \(2, 2\) of"):
        DistributedDataParallel(nn.Linear(2, 2 + (rank == 1)))


def failing() -> None:
    if distributed.get_rank() == 1:
        raise ValueError("planted")
    distributed.all_reduce(gpunet.ones(1))  # would wait forever


def stopped() -> None:
    if distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    distributed.all_reduce(gpunet.ones(1))


def confused() -> None:
    if distributed.get_rank() == 1:
        distributed.recv(gpunet.zeros(1), 0)
    distributed.all_reduce(gpunet.ones(1))


def overlap() -> None:
    """Buckets leave while backward still runs, in eager and in captured steps."""
    order: list[str] = []
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)), bucket_cap_mb=1e-5)
    begin = Transfer.begin

    def noted(self: Transfer, x: Any, group: Any, op: Any) -> None:
        order.append("begin")
        begin(self, x, group, op)

    Transfer.begin = noted  # type: ignore[method-assign]
    h = model.module[0](gpunet.ones(2, 4))  # type: ignore[index]
    h.register_hook(lambda g: order.append("first layer"))
    model.module[2](model.module[1](h)).sum().backward()  # type: ignore[index]
    assert order == ["begin"] * 4 + ["first layer"] + ["begin"] * 2  # weights and biases of the last two layers

    @gpunet.capture
    def step(x: Any) -> Any:
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss

    step(gpunet.ones(2, 4))
    names = [name for name, _ in step.recordings[0].lines]
    assert names.count("all_reduce_begin") == names.count("all_reduce_end") == 6
    assert "all_reduce_end" not in names[: max(k for k, name in enumerate(names) if name == "all_reduce_begin")]
    between = names[names.index("all_reduce_begin") : names.index("all_reduce_end")]
    print(names)
    assert {*between} - {"all_reduce_begin", "copy", "fill"}, names  # of backward


if __name__ == "__main__":
    distributed.init_process_group()
    globals()[sys.argv[1]]()
    distributed.destroy_process_group()
    print("passed")
