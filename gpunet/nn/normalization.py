"""Normalization layers: LayerNorm, RMSNorm, BatchNorm, GroupNorm, InstanceNorm, LocalResponseNorm."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, get_default_dtype, mode, no_grad, wrap
from gpunet.backend.dtypes import is_half
from gpunet.distributed.collectives import sum_over_processes
from gpunet.distributed.process_group import get_world_size, is_initialized, member
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.nn import init
from gpunet.nn.module import (
    Module,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
    empty_parameter,
    launches,
    run_activated,
    with_arguments_of,
)
from gpunet.ops.batch_norm import batch_norm_apply, normalize_batch, normalize_instances
from gpunet.ops.creation import ones, zeros
from gpunet.ops.face import as_integer, as_number, as_positive
from gpunet.ops.join import cat
from gpunet.ops.normalization import (
    check_eps,
    group_norm_forward,
    local_response_norm,
    norm_across_maps,
    normalize_groups,
    normalize_layers,
    normalized_sizes,
    rms_eps,
)

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "CrossMapLRN2d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyInstanceNorm1d",
    "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LocalResponseNorm", "RMSNorm", "SyncBatchNorm",
]  # fmt: skip


class _Affine(Module):
    """Base class of the layers with a weight, initialized to 1, and a bias, to 0; both may be None."""

    weight: Parameter | None
    bias: Parameter | None

    def _register(self, shape: tuple[int, ...], has_weight: bool, has_bias: bool, device: Any, dtype: Any) -> None:
        for name, is_present in (("weight", has_weight), ("bias", has_weight and has_bias)):
            self.register_parameter(name, empty_parameter(shape, device, dtype) if is_present else None)

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        raise NotImplementedError


class LayerNorm(_Affine):
    """Normalize over the last dimensions (see :func:`gpunet.nn.functional.layer_norm`).

    Args:
        normalized_shape: their sizes, or one size.
        eps: added to the variance.
        elementwise_affine: whether there is a weight, and a bias.
        bias: False for a weight alone.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight, bias: of ``normalized_shape``, or None.

    Raises:
        ArgumentError: eps is negative, or ``normalized_shape`` is empty.
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = normalized_sizes("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = check_eps("LayerNorm", eps), elementwise_affine
        self._register(self.normalized_shape, elementwise_affine, bias, device, dtype)
        self.reset_parameters()

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        parameters = (self.normalized_shape, self.weight, self.bias, self.eps)
        return normalize_layers("layer_norm", input, *parameters, True, activation, alpha)

    @launches(group_norm_forward, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    """Divide by the root mean square over the last dimensions (see :func:`gpunet.nn.functional.rms_norm`).

    Args:
        normalized_shape: their sizes, or one size.
        eps: added to the mean of squares; None means the machine epsilon of the dtype.
        elementwise_affine: whether there is a weight.
        device: device of the parameter; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: of ``normalized_shape``, or None.

    Raises:
        ArgumentError: eps is negative, or ``normalized_shape`` is empty.
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = normalized_sizes("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps if eps is None else check_eps("RMSNorm", eps), elementwise_affine
        self.register_parameter("weight", empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        parameters = (self.normalized_shape, self.weight, None, rms_eps(input, self.eps))
        return normalize_layers("rms_norm", input, *parameters, False, activation, alpha)

    @launches(group_norm_forward, run_activated)
    def forward(self, x: Any) -> Tensor:
        return self._activated(x, "identity", 0.0)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(_Affine):
    """Normalize each group of channels of an image (see :func:`gpunet.nn.functional.group_norm`).

    Args:
        num_groups: a divisor of ``num_channels``.
        num_channels: size of dimension 1 of the input.
        eps: added to the variance.
        affine: whether there is a weight, and a bias.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.
        bias: False for a weight alone.

    Attributes:
        weight, bias: (num_channels,), or None.

    Raises:
        ArgumentError: eps is negative, or ``num_groups`` does not divide ``num_channels``.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_groups = as_positive("GroupNorm", "num_groups", num_groups)
        self.num_channels = as_integer("GroupNorm", "num_channels", num_channels)
        if self.num_channels < 1 or self.num_channels % self.num_groups:
            raise ArgumentError(f"GroupNorm: num_channels={num_channels}; expected a positive multiple of num_groups={num_groups}")
        self.eps, self.affine = check_eps("GroupNorm", eps), affine
        self._register((self.num_channels,), affine, bias, device, dtype)
        self.reset_parameters()

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        parameters = (self.num_groups, self.weight, self.bias, self.eps)
        return normalize_groups("group_norm", input, *parameters, activation, alpha)

    @launches(group_norm_forward, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class _NormBase(_Affine):
    """Base class of batch and instance norm.

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: the share of a batch in the running statistics; None for averages of all batches.
        affine: whether there is a weight, and a bias.
        track_running_stats: whether there are running statistics, which evaluation uses.
        device: device of parameters and buffers; the default device if None.
        dtype: a floating dtype; the default dtype if None.
        bias: False for a weight alone.

    Attributes:
        weight, bias: (num_features,), or None.
        running_mean, running_var: buffers (num_features,), or None.
        num_batches_tracked: a buffer, int64 without dimensions, or None.

    Raises:
        ArgumentError: eps or ``num_features`` is negative.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    optional_state = frozenset({"num_batches_tracked"})  # PyTorch's before version 0.4.1 have none
    #: numbers of dimensions of an input
    num_dims: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.num_features = as_integer(name, "num_features", num_features)
        if self.num_features < 0:
            raise ArgumentError(f"{name}: num_features={num_features}; expected an integer, 0 or more")
        self.eps, self.affine, self.track_running_stats = check_eps(name, eps), affine, track_running_stats
        self.momentum = momentum if momentum is None else as_number(name, "momentum", momentum)
        shape, is_tracking = (self.num_features,), track_running_stats
        self._register(shape, affine, bias, device, dtype)
        dtype = get_default_dtype() if dtype is None else dtype
        self.register_buffer("running_mean", zeros(shape, device=device, dtype=dtype) if is_tracking else None)
        self.register_buffer("running_var", ones(shape, device=device, dtype=dtype) if is_tracking else None)
        self.register_buffer("num_batches_tracked", zeros((), device=device, dtype="int64") if is_tracking else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1, and the number of batches to 0."""
        with no_grad():
            for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
                if buffer is not None:
                    buffer.fill_(value)

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0, and reset the running statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Any) -> None:
        """Raise a ShapeError unless the input has an expected number of dimensions."""
        shape = tuple(wrap(input).shape)
        if len(shape) not in self.num_dims:
            numbers = " or ".join(map(str, self.num_dims))
            raise ShapeError(f"{type(self).__name__}: the input has shape {shape}; expected {numbers} dimensions")

    def _channels_message(self, shape: tuple[int, ...], channels: int) -> str:
        return f"{type(self).__name__}: the input {shape} has {channels} channels; expected num_features={self.num_features}"

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_NormBase):
    __doc__ = _NormBase.__doc__

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        self._check_input_dim(input)
        shape = tuple(wrap(input).shape)
        if shape[1] != self.num_features and (self.weight is not None or self.running_mean is not None):
            raise ShapeError(self._channels_message(shape, shape[1]))
        running, batches = (self.running_mean, self.running_var), None
        uses_batch = self.training or running == (None, None)
        if self.training:
            running = running if self.track_running_stats else (None, None)
            batches = self.num_batches_tracked if self.track_running_stats else None
        momentum = self.momentum
        if momentum is None and batches is None:
            momentum = 0.0
        return normalize_batch(
            input, *running, self.weight, self.bias, uses_batch, momentum, self.eps, batches, activation, alpha
        )

    @launches(batch_norm_apply, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)


@with_arguments_of(_NormBase)
class BatchNorm1d(_BatchNorm):
    """Normalize each channel of (n, channels) or (n, channels, length) over a batch (Ioffe and Szegedy 2015).

    Training normalizes by mean and variance of the batch, and moves the running statistics towards them in the same launch;
    evaluation uses the running ones.  In a :class:`Sequential`, the launch includes the activation that follows.
    """

    num_dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """:class:`BatchNorm1d` of images (n, channels, height, width)."""

    num_dims = (4,)


class BatchNorm3d(_BatchNorm):
    """:class:`BatchNorm1d` of volumes (n, channels, depth, height, width)."""

    num_dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the batches of all processes that train together, (n, channels, ...).

    In evaluation, and with one process, it is :class:`BatchNorm2d` of any number of dimensions.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype, bias: those of :class:`BatchNorm2d`.
        process_group: the processes, by default all (:mod:`gpunet.distributed`).
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Any) -> None:
        shape = tuple(wrap(input).shape)
        if len(shape) < 2:
            raise ShapeError(f"SyncBatchNorm: the input has shape {shape}; expected (batch, channels, ...)")

    def forward(self, input: Any) -> Tensor:
        if not self.training or not is_initialized() or get_world_size(self.process_group) == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = wrap(input)
        if x.shape[1] != self.num_features:
            raise ShapeError(self._channels_message(tuple(x.shape), x.shape[1]))
        y: Tensor = self._synchronized(x.float() if is_half(x.dtype) else x)
        return y.to(x.dtype)

    def _synchronized(self, x: Tensor) -> Any:
        group = member("SyncBatchNorm", self.process_group)
        dims, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        count = x.new_full((1,), x.numel() / x.shape[1])
        total = sum_over_processes(cat([x.sum(dims), count]), group=group)
        number = total[-1:].detach()
        mean = total[:-1] / number
        centred = x - mean.reshape(shape)
        variance = sum_over_processes((centred * centred).sum(dims), group=group) / number
        self._follow(mean.detach(), variance.detach() * (number / (number - 1.0)))
        y = centred * (variance + self.eps).rsqrt().reshape(shape)
        if self.weight is not None:
            y = y * self.weight.to(x.dtype).reshape(shape)
        return y if self.bias is None else y + self.bias.to(x.dtype).reshape(shape)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or mode.current.recomputes:
            return
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with no_grad():
            self.num_batches_tracked.add_(1)
            share: Any = self.momentum
            for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
                if share is None:
                    running.add_((batch - running) / self.num_batches_tracked)
                else:
                    running.lerp_(batch.to(running.dtype), share)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """Replace the batch norms in ``module`` by this one, with their parameters and buffers.

        Returns:
            The module; if it is a batch norm itself, its replacement.
        """
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            if isinstance(module.weight, UninitializedParameter) or isinstance(module.running_mean, UninitializedBuffer):
                raise ArgumentError(
                    f"convert_sync_batchnorm: {type(module).__name__} does not know its number of features yet; call the model once"
                )
            dtype = None if module.weight is None else module.weight.dtype
            made = cls(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group,
                dtype=dtype,
            )  # fmt: skip
            made.weight, made.bias = module.weight, module.bias
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(made, name, getattr(module, name))
            made.train(module.training)
            return made
        for name, child in list(module.named_children()):
            replacement = cls.convert_sync_batchnorm(child, process_group)
            if replacement is not child:
                setattr(module, name, replacement)
        return module


class _InstanceNorm(_NormBase):
    __doc__ = _NormBase.__doc__

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False, track_running_stats: bool = False,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        self._check_input_dim(input)
        x = wrap(input)
        shape, is_single = tuple(x.shape), x.ndim == self.num_dims[0]
        channels = shape[0 if is_single else 1]
        if channels != self.num_features:
            if self.weight is not None or self.running_mean is not None:
                raise ShapeError(self._channels_message(shape, channels))
            warn_user(f"{self._channels_message(shape, channels)}, which has no effect")
        y = normalize_instances(
            x.unsqueeze(0) if is_single else x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, self.momentum or 0.0, self.eps, activation, alpha,
        )  # fmt: skip
        return y.squeeze(0) if is_single else y

    @launches(group_norm_forward, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)


@with_arguments_of(_NormBase)
class InstanceNorm1d(_InstanceNorm):
    """Normalize each channel of each sample of (n, channels, length), or of (channels, length) (Ulyanov et al. 2016).

    With ``track_running_stats``, evaluation uses running statistics, averages over the samples.
    """

    num_dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """:class:`InstanceNorm1d` of images (n, channels, height, width), or of one without n."""

    num_dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """:class:`InstanceNorm1d` of volumes (n, channels, depth, height, width), or of one without n."""

    num_dims = (4, 5)


class _LazyNorm(_NormBase):
    """Base class of the layers that take ``num_features`` from their first input; their class changes then.

    Until then parameters and buffers are uninitialized (:mod:`gpunet.nn.parameter`).  Create an optimizer after the first call.
    """

    #: the class of the layer after the first input
    cls_to_become: type[_NormBase]

    def __init__(
        self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, track_running_stats, device, dtype, bias=False)
        self.affine = affine
        for name in ("weight", "bias")[: (1 + bias) * affine]:
            self.register_parameter(name, UninitializedParameter(device=device, dtype=dtype))
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, UninitializedBuffer(device=device, dtype=dtype) if track_running_stats else None)

    def reset_parameters(self) -> None:
        """Initialize parameters and buffers, if their shape is known."""
        if self.num_features:
            super().reset_parameters()

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        self._check_input_dim(input)
        shape = wrap(input).shape
        tensors = [t for t in (self.weight, self.bias, self.running_mean, self.running_var) if t is not None]
        lazy: list[Any] = [t for t in tensors if isinstance(t, (UninitializedParameter, UninitializedBuffer))]
        at = 1 if issubclass(self.cls_to_become, _BatchNorm) or len(shape) > self.num_dims[0] else 0
        self.num_features = tensors[0].shape[0] if tensors and not lazy else shape[at]  # also of a loaded state
        for tensor in lazy:
            tensor.materialize((self.num_features,))
        if lazy:
            self.reset_parameters()
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        return self._activated(input, activation, alpha)

    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)


class LazyBatchNorm1d(_LazyNorm, _BatchNorm):
    """A :class:`BatchNorm1d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = BatchNorm1d, BatchNorm1d.num_dims


class LazyBatchNorm2d(_LazyNorm, _BatchNorm):
    """A :class:`BatchNorm2d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = BatchNorm2d, BatchNorm2d.num_dims


class LazyBatchNorm3d(_LazyNorm, _BatchNorm):
    """A :class:`BatchNorm3d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = BatchNorm3d, BatchNorm3d.num_dims


class LazyInstanceNorm1d(_LazyNorm, _InstanceNorm):
    """An :class:`InstanceNorm1d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = InstanceNorm1d, InstanceNorm1d.num_dims


class LazyInstanceNorm2d(_LazyNorm, _InstanceNorm):
    """An :class:`InstanceNorm2d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = InstanceNorm2d, InstanceNorm2d.num_dims


class LazyInstanceNorm3d(_LazyNorm, _InstanceNorm):
    """An :class:`InstanceNorm3d` that takes ``num_features`` from its first input."""

    cls_to_become, num_dims = InstanceNorm3d, InstanceNorm3d.num_dims


class LocalResponseNorm(Module):
    """Divide by a power of the mean square of neighbouring channels (see :func:`gpunet.nn.functional.local_response_norm`)."""

    def __init__(self, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Tensor:
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(Module):
    """:class:`LocalResponseNorm` of images (n, channels, height, width), with a window of an odd number of channels.

    PyTorch's module of this name adds the square of the first channel to the windows behind it as well.

    Args:
        size: the number of channels; of an even one the window has one less, but its sum is divided by ``size``, as in PyTorch.
        alpha, beta, k: as of :class:`LocalResponseNorm`.
    """

    def __init__(self, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Tensor:
        return norm_across_maps(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
