"""Modules in several processes: DistributedDataParallel, and DataParallel of one device."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpunet.autograd import COPY, FILL, Tensor, bump_version, make_tensor, no_grad
from gpunet.autograd.tensor import PostAccumulateHook, RemovableHandle
from gpunet.backend import devices
from gpunet.distributed.collectives import ALL_REDUCE, broadcast
from gpunet.distributed.process_group import ProcessGroup, ReduceOp, member
from gpunet.errors import ArgumentError, DtypeError, GradientError, ProcessError
from gpunet.launch.memory import empty
from gpunet.launch.tape import active, graph_break
from gpunet.nn.module import Module

__all__ = ["DataParallel", "DistributedDataParallel"]


class DataParallel(Module):
    """Call ``module`` on one device, with PyTorch's names of parameters, which begin with "module.".

    Args:
        module: the module.
        device_ids: None, or a list of one GPU.
        output_device, dim: have no effect with one device.

    Raises:
        ArgumentError: several GPUs; train one process on each.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        _check_module("DataParallel", module)
        self.device_ids = [] if device_ids is None else list(device_ids)
        if len(self.device_ids) > 1:
            raise ArgumentError(
                f"DataParallel: device_ids={self.device_ids}; expected one GPU: pass device_ids=[{self.device_ids[0]}], or train "
                "one process on each GPU with DistributedDataParallel"
            )
        self.module, self.dim = module, dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """Train ``module`` in all processes of a group, each on its own batches: backward leaves the mean gradient of the processes.

    The parameters and buffers of the first process replace those of the others at the start, and its buffers at each forward.
    Gradients travel together: a vector for each dtype, in buckets.  With a loss that is a mean, and batches of one size in all
    processes, the gradient is that of the joined batch.  The same number of processes gives the same bits.

    Args:
        module: the module; its parameters have the names that begin with "module.".
        device_ids: None, or a list of one GPU.
        broadcast_buffers: let the processes have the buffers of the first one.
        process_group: the group, by default of all processes.
        bucket_cap_mb: megabytes of gradients that travel together.
        find_unused_parameters: a parameter without a gradient in some processes gets the mean of the others' and 0, and without one
            in all of them keeps its ``grad``; else that is an error in all processes.
        output_device, dim, check_reduction, gradient_as_bucket_view, static_graph, delay_all_reduce_named_params,
            param_to_hook_all_reduce, mixed_precision, device_mesh, skip_all_reduce_unused_params: have no effect.

    Raises:
        ProcessError: the group is not initialized, or the modules of the processes differ.
        ArgumentError: no parameter requires grad.
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0,
        broadcast_buffers: bool = True, init_sync: bool = True, process_group: Any = None, bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False, check_reduction: bool = False, gradient_as_bucket_view: bool = False,
        static_graph: bool = False, delay_all_reduce_named_params: Any = None, param_to_hook_all_reduce: Any = None,
        mixed_precision: Any = None, device_mesh: Any = None, skip_all_reduce_unused_params: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_module("DistributedDataParallel", module)
        self.process_group: ProcessGroup = member("DistributedDataParallel", process_group)
        if device_ids is not None and len(device_ids) > 1:
            raise ArgumentError(f"DistributedDataParallel: device_ids={list(device_ids)}; expected one GPU in each process")
        limit = 25.0 if bucket_cap_mb is None else float(bucket_cap_mb)
        if not limit > 0:
            raise ArgumentError(f"DistributedDataParallel: bucket_cap_mb={bucket_cap_mb!r}; expected a positive number")
        self.module, self._bucket_bytes = module, limit * 2**20
        self.broadcast_buffers, self.find_unused_parameters, self.require_backward_grad_sync = (
            broadcast_buffers, find_unused_parameters, True
        )  # fmt: skip
        if not any(p.requires_grad for p in module.parameters()):
            raise ArgumentError("DistributedDataParallel: no parameter requires grad; use the module itself")
        self._check_equal()
        if init_sync:
            for tensor in (*module.parameters(), *module.buffers()):
                broadcast(tensor.detach(), self.process_group.ranks[0], self.process_group)
        self._attach()

    def _check_equal(self) -> None:
        """Compare the names, shapes and dtypes of the parameters and buffers of all processes."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        own = "\n".join(f"{name} {tuple(t.shape)} {t.dtype} {t.requires_grad}" for name, t in named)
        digests = self.process_group.gather_objects(hashlib.sha256(own.encode()).hexdigest(), "DistributedDataParallel")
        others = [self.process_group.ranks[i] for i, digest in enumerate(digests) if digest != digests[0]]
        if others:
            raise ProcessError(
                f"DistributedDataParallel: the parameters or buffers of rank {', '.join(map(str, others))} differ in name, shape "
                f"or dtype from those of rank {self.process_group.ranks[0]}; build the same module in all processes"
            )

    def _attach(self) -> None:
        """Collect the gradients of the module's parameters from now on."""
        trained = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        self._buckets = list(_buckets(trained[::-1], self._bucket_bytes))
        self._arrived: set[str] = set()
        for name, parameter in trained:
            if parameter._hooks is None:
                parameter._hooks = {}
            RemovableHandle(parameter._hooks, PostAccumulateHook(functools.partial(self._arrive, name), self._reduce))

    def __deepcopy__(self, memo: dict[int, Any]) -> DistributedDataParallel:
        """A copy of the module in the same group, with gradients of its own."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        Module.__init__(made)
        made.process_group, made._bucket_bytes = self.process_group, self._bucket_bytes
        made.broadcast_buffers, made.find_unused_parameters = self.broadcast_buffers, self.find_unused_parameters
        made.require_backward_grad_sync = self.require_backward_grad_sync
        made.module = copy.deepcopy(self.module, memo)
        for parameter in made.module.parameters():
            parameter._hooks = None
        made._attach()
        return made

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module."""
        if self.broadcast_buffers and self.require_backward_grad_sync:
            for buffer in self.module.buffers():
                broadcast(buffer, self.process_group.ranks[0], self.process_group)
        return self.module(*inputs, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside the block, backward leaves the gradients of this process alone; the next one outside averages the sums."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def _arrive(self, name: str, parameter: Tensor) -> None:
        self._arrived.add(name)

    def _reduce(self) -> None:
        """Replace the gradients by their means over the processes."""
        if not self.require_backward_grad_sync:
            return
        arrived, self._arrived = self._arrived, set()
        with no_grad():
            missing = [name for bucket in self._buckets for name in self._reduce_bucket(bucket, arrived)]
        if missing and not self.find_unused_parameters:
            raise GradientError(
                f"DistributedDataParallel: backward has computed no gradient, in some or all processes, for {', '.join(missing)}; "
                "use all parameters in the loss, pass find_unused_parameters=True, or freeze them by requires_grad_(False) before "
                "DistributedDataParallel"
            )

    def _reduce_bucket(self, bucket: list[tuple[str, Tensor]], arrived: set[str]) -> list[str]:
        """Average the gradients of a bucket; return the names of the parameters that lack one in some process.

        One number for each parameter, 1 where this process has computed its gradient, travels behind the gradients.
        """
        is_complete = all(name in arrived for name, _ in bucket)
        if not is_complete:
            graph_break("a step with parameters that have no gradient", "use all parameters in the loss")
        like = bucket[0][1].array
        size = sum(p.array.size for _, p in bucket)
        flat = empty((size + len(bucket),), like.dtype, like)
        parts, start = [], 0
        for place, (name, p) in enumerate(bucket):
            parts.append(flat[start : start + p.array.size].reshape(p.array.shape))
            start += p.array.size
            FILL(flat[size + place : size + place + 1], value=float(name in arrived))
            if p.grad is None:
                FILL(parts[-1], value=0)
            else:
                COPY(parts[-1], p.grad.array)
        ALL_REDUCE(flat, group=self.process_group, op=ReduceOp.AVG)
        if active.tape is not None and is_complete:
            shares = [1.0] * len(bucket)
        else:
            shares = devices.to_host(flat[size:]).real.astype("float64").tolist()
        for (_, p), part, share in zip(bucket, parts, shares):
            if share:
                gradient = make_tensor(empty(p.array.shape, p.array.dtype, p.array)) if p.grad is None else p.grad
                COPY(gradient.array, part)
                bump_version(gradient)
                p.grad = gradient
        return [name for (name, _), share in zip(bucket, shares) if share < 1.0]


def _buckets(parameters: Sequence[tuple[str, Tensor]], limit: float) -> Iterator[list[tuple[str, Tensor]]]:
    """The named parameters in order, in lists of one dtype and device of up to ``limit`` bytes, or of one parameter."""
    open_buckets: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, p in parameters:
        key = (p.dtype, p.device)
        bucket = open_buckets.setdefault(key, [])
        if bucket and sum(q.array.nbytes for _, q in bucket) + p.array.nbytes > limit:
            yield bucket
            bucket = open_buckets[key] = []
        bucket.append((name, p))
    yield from open_buckets.values()


def _check_module(function: str, module: Any) -> None:
    if not isinstance(module, Module):
        raise DtypeError(f"{function}: module has type {type(module).__name__}; expected a module")
