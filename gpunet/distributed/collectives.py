"""Collectives of tensors: all processes of a group exchange or combine arrays of the same shapes.

A collective is a launch, so that a captured step contains it: between two compiled parts on the CPU, and over NCCL within the CUDA
graph.  MPI takes memory of the host; without NCCL arrays on a GPU are copied there and back, which a CUDA graph cannot contain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, bump_version, contiguous, contiguous_in_place, make_tensor, no_grad, primitive
from gpunet.autograd.graph import ADD
from gpunet.backend import devices
from gpunet.backend.dtypes import is_boolean, is_complex, is_half, is_inexact
from gpunet.backend.nccl import Communicator
from gpunet.distributed.communicators import Posted
from gpunet.distributed.process_group import ProcessGroup, ReduceOp, member, rank_in
from gpunet.errors import ArgumentError, DtypeError, LaunchError, ShapeError
from gpunet.launch.launchable import Launchable
from gpunet.launch.memory import empty
from gpunet.launch.tape import graph_break

__all__ = [
    "Work", "all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all", "all_to_all_single", "broadcast", "gather",
    "irecv", "isend", "recv", "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter", "send",
]  # fmt: skip


class Collective(Launchable):
    """A launch of ``function(communicator, result, *operands, group, **options)`` on contiguous host arrays.

    Args:
        on_gpu: does the same by NCCL: ``on_gpu(communicator, result, *operands, **options)``.
    """

    reads_values = True  # opaque to captured steps
    meets_others = True

    def __init__(self, function: Callable[..., None], on_gpu: Callable[..., None]) -> None:
        self.name, self._function, self._on_gpu = function.__name__.strip("_"), function, on_gpu

    def check(self, arrays: Sequence[Any]) -> None:
        if not all(array.flags.c_contiguous for array in arrays):
            raise LaunchError(f"collective {self.name}: expected C-contiguous arrays")

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        result = arrays[0]
        if isinstance(result, numpy.ndarray):
            self._on_host([a.view(numpy.ndarray) for a in arrays], **options)
            return
        group, op = options["group"], options.get("op")
        if group.size() == 1:
            for x in arrays[1:]:
                COPY.launch([result.reshape(-1), x.reshape(-1)], {})
        elif (communicator := communicator_of(group, result, op)) is not None:
            others = {name: value.value if name == "op" else value for name, value in options.items() if name != "group"}
            self._on_gpu(communicator, *arrays, **others)
        else:
            break_graph_on_host(self.name, result, op)
            host = [devices.to_host(a) for a in arrays]
            self._on_host(host, **options)
            devices.assign(result, devices.move(host[0], devices.of(result)))

    def _on_host(self, arrays: list[numpy.ndarray], *, group: ProcessGroup, **options: Any) -> None:
        """Call the function; MPI has no halves, which travel as float32, and no booleans of NumPy's."""
        result = arrays[0]
        if is_half(result.dtype) or is_boolean(result.dtype):
            arrays = [a.astype(numpy.float32 if is_half(a.dtype) else numpy.uint8) for a in arrays]
        self._function(group.communicator, *arrays, group=group, **options)
        if arrays[0] is not result:
            result[...] = arrays[0].astype(result.dtype)


def communicator_of(group: ProcessGroup, x: Any, op: ReduceOp | None) -> Communicator | None:
    """The communicator of NCCL that takes an array on a GPU; None if it travels through the memory of the host."""
    found = group.on_gpu(devices.of(x))
    return found if found is not None and (op is None or found.computes(x.dtype, op.value)) else None


def break_graph_on_host(name: str, x: Any, op: ReduceOp | None) -> None:
    """Report that a captured step cannot contain a collective of an array on a GPU."""
    what = name if op is None else f"{name} by ReduceOp.{op.name}"
    way_out = "train eagerly, or use NCCL (docs/distributed.md)"
    graph_break(f"{what} of {x.dtype} on a GPU, which goes through the memory of the host,", way_out)


def _all_reduce(communicator: Any, x: numpy.ndarray, group: ProcessGroup, op: ReduceOp) -> None:
    group.complete(communicator.Iallreduce(group.in_place, x, op=group.operation(op)), "all_reduce")
    if op is ReduceOp.AVG:
        numpy.divide(x, x.dtype.type(group.size()), out=x)


def _reduce(communicator: Any, x: numpy.ndarray, group: ProcessGroup, op: ReduceOp, root: int) -> None:
    found = numpy.empty_like(x)
    group.complete(communicator.Ireduce(x, found, op=group.operation(op), root=root), "reduce")
    if group.rank() == root:
        numpy.divide(found, x.dtype.type(group.size()), out=x) if op is ReduceOp.AVG else numpy.copyto(x, found)


def _broadcast(communicator: Any, x: numpy.ndarray, group: ProcessGroup, root: int) -> None:
    group.complete(communicator.Ibcast(x, root=root), "broadcast")


def _all_gather(communicator: Any, result: numpy.ndarray, x: numpy.ndarray, group: ProcessGroup) -> None:
    group.complete(communicator.Iallgather(x, result), "all_gather")


def _reduce_scatter(communicator: Any, result: numpy.ndarray, x: numpy.ndarray, group: ProcessGroup, op: ReduceOp) -> None:
    group.complete(communicator.Ireduce_scatter_block(x, result, op=group.operation(op)), "reduce_scatter")
    if op is ReduceOp.AVG:
        numpy.divide(result, result.dtype.type(group.size()), out=result)


def _all_to_all(communicator: Any, result: numpy.ndarray, x: numpy.ndarray, group: ProcessGroup) -> None:
    group.complete(communicator.Ialltoall(x, result), "all_to_all")


def _gather(communicator: Any, result: numpy.ndarray, x: numpy.ndarray, group: ProcessGroup, root: int) -> None:
    group.complete(communicator.Igather(x, result, root=root), "gather")


def _scatter(communicator: Any, result: numpy.ndarray, x: numpy.ndarray, group: ProcessGroup, root: int) -> None:
    group.complete(communicator.Iscatter(x, result, root=root), "scatter")


def _tree_sum_on_gpu(communicator: Communicator, x: Any) -> None:
    """:func:`_tree_sum` by NCCL."""
    other, distance = devices.empty(x.shape, x.dtype, devices.of(x)), 1
    while distance < communicator.size:
        peer = communicator.rank ^ distance
        communicator.exchange("tree_sum", [(x, peer)], [(other, peer)])
        ADD.launch([x, x, other], {})
        distance *= 2


def _tree_sum(communicator: Any, x: numpy.ndarray, group: ProcessGroup) -> None:
    """Add pairs of neighbours, then pairs of pairs, and so on: a binary tree, of a power of two processes."""
    other, distance = numpy.empty_like(x), 1
    while distance < group.size():
        peer = group.rank() ^ distance
        received = communicator.Irecv(other, source=peer)
        sent = communicator.Isend(x, dest=peer)
        group.complete(received, "tree_sum")
        group.complete(sent, "tree_sum")
        numpy.add(x, other, out=x)  # both get the same bits: addition is commutative
        distance *= 2


ALL_REDUCE = Collective(_all_reduce, Communicator.all_reduce)
REDUCE = Collective(_reduce, Communicator.reduce)
BROADCAST = Collective(_broadcast, Communicator.broadcast)
ALL_GATHER = Collective(_all_gather, Communicator.all_gather)
REDUCE_SCATTER = Collective(_reduce_scatter, Communicator.reduce_scatter)
ALL_TO_ALL = Collective(_all_to_all, Communicator.all_to_all)
GATHER = Collective(_gather, Communicator.gather)
SCATTER = Collective(_scatter, Communicator.scatter)
TREE_SUM = Collective(_tree_sum, _tree_sum_on_gpu)


#: Unfinished work, whose memory MPI still uses, also if nobody waits for it.
_pending: set[Work] = set()


class Work:
    """The handle of a collective with ``async_op=True``, of :func:`isend` and of :func:`irecv`.

    Args:
        request: of mpi4py, or one like it; None for work that is done.
        finish: called once the request has completed.
        group: of the request.
        function: that the user called, for messages.
    """

    def __init__(
        self, request: Any = None, finish: Callable[[], None] | None = None, group: ProcessGroup | None = None, function: str = ""
    ) -> None:
        self._request, self._finish, self._group, self._function = request, finish, group, function
        if request is not None and not isinstance(request, Posted):
            for work in [*_pending]:
                work.is_completed()  # then it leaves the set
            _pending.add(self)

    def wait(self, timeout: Any = None) -> bool:
        """Wait until the work is done."""
        if self._request is not None:
            assert self._group is not None
            self._group.complete(self._request, self._function)
            self._end()
        return True

    def is_completed(self) -> bool:
        """Whether the work is done."""
        if self._request is not None and self._request.Test():
            self._end()
        return self._request is None

    def _end(self) -> None:
        _pending.discard(self)
        self._request, finish, self._finish = None, self._finish, None
        if finish is not None:
            finish()


# ---- arguments --------------------------------------------------------------------------------------------------------


def _check(function: str, name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise DtypeError(f"{function}: {name} has type {type(x).__name__}; expected a tensor")
    return x


def _check_list(function: str, name: str, tensors: Any, like: Tensor, group: ProcessGroup) -> list[Tensor]:
    """A list of a tensor for each process, all like another tensor."""
    if not isinstance(tensors, (list, tuple)) or len(tensors) != group.size():
        got = f"{len(tensors)} tensors" if isinstance(tensors, (list, tuple)) else type(tensors).__name__
        raise ArgumentError(f"{function}: {name} is {got}; expected a list of {group.size()}, one for each process")
    for x in tensors:
        if _check(function, name, x).shape != like.shape or x.dtype != like.dtype:
            raise ShapeError(
                f"{function}: {name} contains a tensor {tuple(x.shape)} of {x.dtype}; expected {tuple(like.shape)} of {like.dtype}"
            )
    return list(tensors)


def _check_op(function: str, op: Any, x: Tensor) -> ReduceOp:
    if not isinstance(op, ReduceOp):
        raise ArgumentError(f"{function}: op={op!r}; expected one of {', '.join(f'ReduceOp.{o.name}' for o in ReduceOp)}")
    if op is ReduceOp.AVG and not (is_inexact(x.dtype)):
        raise DtypeError(f"{function}: op=ReduceOp.AVG of {x.dtype}; expected a floating dtype, or ReduceOp.SUM")
    if op in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR) and is_inexact(x.dtype):
        raise DtypeError(f"{function}: op=ReduceOp.{op.name} of {x.dtype}; expected integers or booleans")
    if op in (ReduceOp.MIN, ReduceOp.MAX) and is_complex(x.dtype):
        raise DtypeError(f"{function}: op=ReduceOp.{op.name} of {x.dtype}; complex numbers have no order")
    return op


def _done(async_op: bool) -> Work | None:
    return Work() if async_op else None


def _in_place(kernel: Collective, x: Tensor, **options: Any) -> None:
    with no_grad(), contiguous_in_place([x]):
        kernel(x.array, **options)
    bump_version(x)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape behind each other in new memory."""
    first = tensors[0]
    out = empty((len(tensors), *first.array.shape), first.array.dtype, first.array)
    for number, x in enumerate(tensors):
        COPY(out[number, ...], x.array)
    return make_tensor(out)


def _split(joined: Any, tensors: Sequence[Tensor]) -> None:
    for number, x in enumerate(tensors):
        COPY(x.array, joined[number, ...])  # a view, also of a tensor without dimensions
        bump_version(x)


# ---- collectives ------------------------------------------------------------------------------------------------------


def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """Replace ``tensor`` on each process by the sum, or another combination, of those of all, in the same order of addition."""
    found, x = member("all_reduce", group), _check("all_reduce", "tensor", tensor)
    _in_place(ALL_REDUCE, x, group=found, op=_check_op("all_reduce", op, x))
    return _done(async_op)


def reduce(tensor: Tensor, dst: int, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """Replace ``tensor`` on process ``dst`` by the sum, or another combination, of those of all; the others keep theirs."""
    found, x = member("reduce", group), _check("reduce", "tensor", tensor)
    _in_place(REDUCE, x, group=found, op=_check_op("reduce", op, x), root=rank_in("reduce", found, "dst", dst))
    return _done(async_op)


def broadcast(tensor: Tensor, src: int, group: Any = None, async_op: bool = False) -> Work | None:
    """Replace ``tensor`` on each process by that of process ``src``."""
    found, x = member("broadcast", group), _check("broadcast", "tensor", tensor)
    _in_place(BROADCAST, x, group=found, root=rank_in("broadcast", found, "src", src))
    return _done(async_op)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill ``output_tensor`` with the tensors of all processes, along a new or the first dimension."""
    found = member("all_gather_into_tensor", group)
    out, x = (
        _check("all_gather_into_tensor", name, t) for name, t in (("output_tensor", output_tensor), ("input_tensor", input_tensor))
    )
    _check_whole("all_gather_into_tensor", "output_tensor", out, "input_tensor", x, found)
    with no_grad(), contiguous_in_place([out]):
        ALL_GATHER(out.array, contiguous(x.array), group=found)
    bump_version(out)
    return _done(async_op)


def _check_whole(function: str, name: str, whole: Tensor, of: str, part: Tensor, group: ProcessGroup) -> None:
    if whole.numel() != part.numel() * group.size() or whole.dtype != part.dtype:
        raise ShapeError(
            f"{function}: {name} {tuple(whole.shape)} of {whole.dtype}, {of} {tuple(part.shape)} of {part.dtype}, "
            f"{group.size()} processes; expected {group.size()} times as many elements, and one dtype"
        )


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Fill the tensors of ``tensor_list`` with those of all processes."""
    found, x = member("all_gather", group), _check("all_gather", "tensor", tensor)
    results = _check_list("all_gather", "tensor_list", tensor_list, x, found)
    with no_grad():
        joined = empty((found.size(), *x.array.shape), x.array.dtype, x.array)
        ALL_GATHER(joined, contiguous(x.array), group=found)
        _split(joined, results)
    return _done(async_op)


def gather(
    tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int = 0, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill the tensors of ``gather_list`` of process ``dst`` with those of all; the others pass None."""
    found, x = member("gather", group), _check("gather", "tensor", tensor)
    root = rank_in("gather", found, "dst", dst)
    is_root = found.rank() == root
    results = _check_list("gather", "gather_list", gather_list, x, found) if is_root else []
    with no_grad():
        joined = empty((found.size() if is_root else 0, *x.array.shape), x.array.dtype, x.array)
        GATHER(joined, contiguous(x.array), group=found, root=root)
        _split(joined, results)
    return _done(async_op)


def scatter(
    tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int = 0, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill ``tensor`` with the one that process ``src`` has for this process in ``scatter_list``; the others pass None."""
    found, x = member("scatter", group), _check("scatter", "tensor", tensor)
    root = rank_in("scatter", found, "src", src)
    with no_grad(), contiguous_in_place([x]):
        if found.rank() == root:
            source = _joined(_check_list("scatter", "scatter_list", scatter_list, x, found)).array
        else:
            source = empty((0, *x.array.shape), x.array.dtype, x.array)
        SCATTER(x.array, source, group=found, root=root)
    bump_version(x)
    return _done(async_op)


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill ``output`` with this process's part of the sum, or another combination, of the ``input`` of all."""
    found = member("reduce_scatter_tensor", group)
    out, x = _check("reduce_scatter_tensor", "output", output), _check("reduce_scatter_tensor", "input", input)
    _check_whole("reduce_scatter_tensor", "input", x, "output", out, found)
    chosen = _check_op("reduce_scatter_tensor", op, x)
    with no_grad(), contiguous_in_place([out]):
        REDUCE_SCATTER(out.array, contiguous(x.array), group=found, op=chosen)
    bump_version(out)
    return _done(async_op)


def reduce_scatter(
    output: Tensor, input_list: list[Tensor], op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill ``output`` with the sum, or another combination, of the tensors that all processes have for this one."""
    found, out = member("reduce_scatter", group), _check("reduce_scatter", "output", output)
    chosen = _check_op("reduce_scatter", op, out)
    with no_grad(), contiguous_in_place([out]):
        source = _joined(_check_list("reduce_scatter", "input_list", input_list, out, found))
        REDUCE_SCATTER(out.array, source.array, group=found, op=chosen)
    bump_version(out)
    return _done(async_op)


def all_to_all_single(
    output: Tensor, input: Tensor, output_split_sizes: Any = None, input_split_sizes: Any = None, group: Any = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Send the i-th part of ``input`` to process i, and fill ``output`` with the parts that the others send.

    Raises:
        ArgumentError: sizes are given: parts are equal.
    """
    found = member("all_to_all_single", group)
    out, x = _check("all_to_all_single", "output", output), _check("all_to_all_single", "input", input)
    if output_split_sizes is not None or input_split_sizes is not None:
        raise ArgumentError("all_to_all_single: split sizes are not supported; pass parts of equal sizes")
    if out.shape != x.shape or out.dtype != x.dtype or not x.ndim or x.shape[0] % found.size():
        raise ShapeError(
            f"all_to_all_single: input {tuple(x.shape)} of {x.dtype}, output {tuple(out.shape)} of {out.dtype}; expected one "
            f"shape, a multiple of {found.size()} rows"
        )
    with no_grad(), contiguous_in_place([out]):
        ALL_TO_ALL(out.array, contiguous(x.array), group=found)
    bump_version(out)
    return _done(async_op)


def all_to_all(
    output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], group: Any = None, async_op: bool = False
) -> Work | None:
    """Send the i-th tensor to process i, and fill the output tensors with those that the others send."""
    found = member("all_to_all", group)
    if not input_tensor_list:
        raise ArgumentError(f"all_to_all: input_tensor_list is empty; expected {found.size()} tensors")
    like = _check("all_to_all", "input_tensor_list", input_tensor_list[0])
    sources = _check_list("all_to_all", "input_tensor_list", input_tensor_list, like, found)
    results = _check_list("all_to_all", "output_tensor_list", output_tensor_list, like, found)
    with no_grad():
        joined = empty((found.size(), *like.array.shape), like.array.dtype, like.array)
        ALL_TO_ALL(joined, _joined(sources).array, group=found)
        _split(joined, results)
    return _done(async_op)


# ---- from one process to another ----------------------------------------------------------------------------------------


def _bytes_of(function: str, x: Tensor) -> numpy.ndarray:
    """The memory of a tensor on the host, contiguous."""
    graph_break(f"{function}, which sends to one process,", "call it outside of the step")
    return numpy.ascontiguousarray(devices.to_host(x.detach().array))


def _peer(function: str, group: Any, name: str, rank: Any) -> tuple[ProcessGroup, int]:
    found = member(function, group)
    peer = rank_in(function, found, name, rank)
    if peer == found.rank():
        raise ArgumentError(f"{function}: {name}={rank} is this process; expected another one")
    return found, peer


def isend(tensor: Tensor, dst: int, group: Any = None, tag: int = 0) -> Work:
    """Send a tensor to process ``dst``, and go on; the returned work is done when it is on its way."""
    found, peer = _peer("isend", group, "dst", dst)
    sent = _bytes_of("isend", _check("isend", "tensor", tensor)).copy()
    return Work(found.communicator.Isend(sent.view(numpy.uint8).reshape(-1), dest=peer, tag=tag), None, found, "isend")


def irecv(tensor: Tensor, src: int, group: Any = None, tag: int = 0) -> Work:
    """Receive a tensor from process ``src``, and go on; ``tensor`` has its values once the returned work is done."""
    found, peer = _peer("irecv", group, "src", src)
    x = _check("irecv", "tensor", tensor)
    memory = numpy.empty_like(_bytes_of("irecv", x))

    def finish() -> None:
        with no_grad():
            COPY(x.array, devices.move(memory, devices.of(x.array)))
        bump_version(x)

    return Work(found.communicator.Irecv(memory.view(numpy.uint8).reshape(-1), source=peer, tag=tag), finish, found, "irecv")


def send(tensor: Tensor, dst: int, group: Any = None, tag: int = 0) -> None:
    """Send a tensor to process ``dst``."""
    isend(tensor, dst, group, tag).wait()


def recv(tensor: Tensor, src: int, group: Any = None, tag: int = 0) -> int:
    """Fill ``tensor`` with one that process ``src`` sends; return ``src``."""
    irecv(tensor, src, group, tag).wait()
    return src


# ---- with a gradient ------------------------------------------------------------------------------------------------------


@primitive(name="all_reduce")
def sum_over_processes(x, *, group):
    """The sum of the tensors of all processes; so is the gradient."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    ALL_REDUCE(out, group=group, op=ReduceOp.SUM)
    return out


sum_over_processes.derivatives(x=lambda g, group: sum_over_processes(g, group=group))
