"""Layers: Linear, Bilinear, Identity, Flatten, Unflatten, Dropout, distances."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.module import (
    FusedLayer,
    Module,
    Parameter,
    UninitializedParameter,
    empty_parameter,
    launches,
    with_arguments_of,
)
from gpunet.ops import distance
from gpunet.ops.bilinear import bilinear
from gpunet.ops.dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from gpunet.ops.face import as_probability
from gpunet.ops.linear import linear_forward, linear_layers
from gpunet.ops.shape import flatten, unflatten

__all__ = [
    "AlphaDropout", "Bilinear", "CosineSimilarity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout",
    "Flatten", "Identity", "LazyLinear", "Linear", "PairwiseDistance", "Unflatten",
]  # fmt: skip


class Identity(Module):
    """Return the input unchanged; all arguments are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """y = x W^T + b, in one launch; in a :class:`Sequential`, the launch includes the activation that follows.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        bias: whether to add b.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (out_features, in_features), initialised uniformly from ±1/sqrt(in_features).
        bias: (out_features,), initialised like ``weight``; None without bias.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise ArgumentError(f"Linear: {name}={value!r}; expected an integer, 0 or more")
        in_features, out_features = int(in_features), int(out_features)  # of NumPy's integers
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty_parameter((out_features, in_features), device, dtype)
        if bias:
            self.bias = empty_parameter((out_features,), device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weight and bias again with random values."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    @staticmethod
    def _together(input: Any, layers: list[FusedLayer]) -> Tensor:
        """Apply consecutive linear layers and their activations as one op."""
        found = [(module.weight, module.bias, name, alpha) for module, name, alpha in layers]
        return linear_layers(input, found)

    @launches(linear_forward, _together)
    def forward(self, input: Any) -> Tensor:
        return linear_layers(input, [(self.weight, self.bias, "identity", 0.0)])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class LazyLinear(Linear):
    """A :class:`Linear` that takes ``in_features`` from its first input, and is a Linear from then on.

    Until then its parameters are :class:`gpunet.nn.parameter.UninitializedParameter`.  Create an optimizer after the first call.

    Args:
        out_features, bias, device, dtype: as of :class:`Linear`.
    """

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, False, device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def forward(self, input: Any) -> Tensor:
        if isinstance(self.weight, UninitializedParameter):
            self.weight.materialize((self.out_features, wrap(input).shape[-1]))
            if isinstance(self.bias, UninitializedParameter):
                self.bias.materialize((self.out_features,))
            self.in_features = self.weight.shape[1]
            self.reset_parameters()
        self.in_features = self.weight.shape[1]  # also of a loaded state
        self.__class__ = Linear  # type: ignore[assignment]
        return linear_layers(input, [(self.weight, self.bias, "identity", 0.0)])


class Bilinear(Module):
    """y = x1 A x2 + b, for each output with its matrix A.

    Args:
        in1_features, in2_features: sizes of the last dimensions of the inputs, positive.
        out_features: size of the last dimension of the result.
        bias: whether to add b.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (out_features, in1_features, in2_features), initialised uniformly from ±1/sqrt(in1_features).
        bias: (out_features,), initialised like ``weight``; None without bias.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ArgumentError(f"Bilinear: in1_features={in1_features}; expected a positive number")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = empty_parameter((out_features, in1_features, in2_features), device, dtype)
        if bias:
            self.bias = empty_parameter((out_features,), device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weight and bias again with random values."""
        bound = 1.0 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Tensor:
        return bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class CosineSimilarity(Module):
    """The cosine of the angle of vectors along ``dim`` (see :func:`gpunet.nn.functional.cosine_similarity`)."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return distance.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of differences (see :func:`gpunet.nn.functional.pairwise_distance`)."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return distance.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class Flatten(Module):
    """Flatten the dimensions start_dim .. end_dim (inclusive) into one; by default all but the batch dimension."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Tensor:
        return flatten(wrap(input), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split dimension ``dim`` into dimensions of the sizes ``unflattened_size``."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Any) -> Tensor:
        return unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class _Dropout(Module):
    """Base class of the kinds of dropout.

    Args:
        p: the probability with which an element, or a channel, is dropped in training.
        inplace: write the result to the input.

    Raises:
        ArgumentError: p is not in [0, 1].
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        as_probability(type(self).__name__, "p", p)
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


@with_arguments_of(_Dropout)
class Dropout(_Dropout):
    """In training mode, set each element to 0 with probability p and scale the other elements by 1 / (1 - p)."""

    def forward(self, input: Any) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace)


@with_arguments_of(_Dropout)
class Dropout1d(_Dropout):
    """In training mode, set each channel of (n, channels, length) to 0 with probability p and scale the others by 1 / (1 - p)."""

    def forward(self, input: Any) -> Tensor:
        return dropout1d(input, self.p, self.training, self.inplace)


@with_arguments_of(_Dropout)
class Dropout2d(_Dropout):
    """:class:`Dropout1d` of images (n, channels, height, width)."""

    def forward(self, input: Any) -> Tensor:
        return dropout2d(input, self.p, self.training, self.inplace)


@with_arguments_of(_Dropout)
class Dropout3d(_Dropout):
    """:class:`Dropout1d` of volumes (n, channels, depth, height, width)."""

    def forward(self, input: Any) -> Tensor:
        return dropout3d(input, self.p, self.training, self.inplace)


@with_arguments_of(_Dropout)
class AlphaDropout(_Dropout):
    """Dropout behind SELU, which keeps mean and variance (see :func:`gpunet.nn.functional.alpha_dropout`)."""

    def forward(self, input: Any) -> Tensor:
        return alpha_dropout(input, self.p, self.training, self.inplace)


@with_arguments_of(_Dropout)
class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels (n, channels, ...)."""

    def forward(self, input: Any) -> Tensor:
        return feature_alpha_dropout(input, self.p, self.training, self.inplace)
