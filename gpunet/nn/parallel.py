"""Modules in several processes: DistributedDataParallel, and DataParallel of one device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpunet.autograd import COPY, Tensor, bump_version, make_tensor, no_grad
from gpunet.autograd.tensor import add_post_accumulate_hook
from gpunet.backend import devices
from gpunet.distributed.agreement import check_equal, tensor_facts
from gpunet.distributed.buckets import Buckets
from gpunet.distributed.collectives import broadcast
from gpunet.distributed.process_group import ProcessGroup, ReduceOp, member
from gpunet.errors import ArgumentError, DtypeError, GradientError
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
    Gradients travel together, in vectors that leave as soon as they are complete, while backward still runs.  With a loss that is a
    mean, and batches of one size in all processes, the gradient is that of the joined batch.  The same number of processes gives
    the same bits.

    Args:
        module: the module; its parameters have the names that begin with "module.".
        device_ids: None, or a list of one GPU.
        broadcast_buffers: let the processes have the buffers of the first one.
        process_group: the group, by default of all processes.
        bucket_cap_mb: megabytes of gradients that travel together; 25 by default, and 1 for those that are complete first.
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
        if bucket_cap_mb is not None and not float(bucket_cap_mb) > 0:
            raise ArgumentError(f"DistributedDataParallel: bucket_cap_mb={bucket_cap_mb!r}; expected a positive number")
        self.module, self._bucket_megabytes = module, bucket_cap_mb
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
        named = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        check_equal("DistributedDataParallel", self.process_group, tensor_facts(named), "build the same module in all processes")

    def _attach(self) -> None:
        """Collect the gradients of the module's parameters from now on."""
        self._trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        backwards = [*self._trained.values()][::-1]
        self._buckets = Buckets(backwards, self.process_group, ReduceOp.AVG, self._bucket_megabytes)
        self._arrived: set[int] = set()
        for parameter in self._trained.values():
            add_post_accumulate_hook(parameter, self._arrive, self._reduce)

    def __deepcopy__(self, memo: dict[int, Any]) -> DistributedDataParallel:
        """A copy of the module in the same group, with gradients of its own."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        Module.__init__(made)
        made.process_group, made._bucket_megabytes = self.process_group, self._bucket_megabytes
        made.broadcast_buffers, made.find_unused_parameters = self.broadcast_buffers, self.find_unused_parameters
        made.require_backward_grad_sync = self.require_backward_grad_sync
        made.module = copy.deepcopy(self.module, memo)
        for parameter in made.module.parameters():
            parameter._hooks = None
        made._attach()
        return made

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module."""
        if self.require_backward_grad_sync:
            self._buckets.restart()
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

    def _arrive(self, parameter: Tensor) -> None:
        self._arrived.add(id(parameter))
        if self.require_backward_grad_sync:
            self._buckets.arrive(parameter)

    def _reduce(self) -> None:
        """Replace the gradients by their means over the processes."""
        if not self.require_backward_grad_sync:
            return
        arrived, self._arrived = self._arrived, set()
        absent = {id(p) for p in self._trained.values()} - arrived
        if absent:
            graph_break("a step with parameters that have no gradient", "use all parameters in the loss")
        missing: set[int] = set()
        with no_grad():
            self._buckets.send_rest(absent)
            for bucket in self._buckets.receive():
                if active.tape is not None and not absent:
                    shares = [1.0] * len(bucket.parameters)
                else:
                    shares = devices.to_host(bucket.shares).real.astype("float64").tolist()
                missing |= {id(p) for p, share in zip(bucket.parameters, shares) if share < 1.0}
                for p, part, share in zip(bucket.parameters, bucket.parts, shares):
                    if share:
                        _set_gradient(p, part)
        if missing and not self.find_unused_parameters:
            names = [name for name, p in reversed(self._trained.items()) if id(p) in missing]
            raise GradientError(
                f"DistributedDataParallel: backward has computed no gradient, in some or all processes, for {', '.join(names)}; "
                "use all parameters in the loss, pass find_unused_parameters=True, or freeze them by requires_grad_(False) before "
                "DistributedDataParallel"
            )


def _set_gradient(parameter: Tensor, value: Any) -> None:
    gradient = parameter.grad
    if gradient is None:
        gradient = make_tensor(empty(value.shape, value.dtype, value))
    COPY(gradient.array, value)
    bump_version(gradient)
    parameter.grad = gradient


def _check_module(function: str, module: Any) -> None:
    if not isinstance(module, Module):
        raise DtypeError(f"{function}: module has type {type(module).__name__}; expected a module")
