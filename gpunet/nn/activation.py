"""Activations as modules.  In a Sequential, an activation after a Linear is fused into its launch."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module, launches
from gpunet.ops import activations
from gpunet.ops.softmax import log_softmax, softmax

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ActivationModule(Module):
    """Base class of the activations in the table ``gpunet.ops.activations.ACTIVATIONS``.

    Args:
        alpha: the parameter of the activation (e.g. the negative slope), 0 if it has none.
        inplace: write the result to the input.  A Linear that fuses the activation does so anyway.

    Attributes:
        name: key in the table, by which ``gpunet train`` offers the module, too.
    """

    name = "identity"

    def __init__(self, alpha: float = 0.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = float(alpha), inplace

    @property
    def fusible(self) -> bool:
        """Whether a Linear can fuse this activation: with a negative alpha, the output does not tell the sign of x."""
        return self.alpha >= 0.0

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        if not self.inplace:
            return activations.activate(input, self.name, self.alpha)
        options = (self.alpha,) if self.name in ("leaky_relu", "elu") else ()
        result: Tensor = getattr(activations, self.name)(input, *options, inplace=True)
        return result

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(ActivationModule):
    """max(x, 0)."""

    name = "relu"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class LeakyReLU(ActivationModule):
    """x where x > 0, negative_slope * x elsewhere."""

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(negative_slope, inplace)
        self.negative_slope = negative_slope

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Sigmoid(ActivationModule):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all arguments are ignored, as in PyTorch
        super().__init__()


class Tanh(ActivationModule):
    """Hyperbolic tangent."""

    name = "tanh"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all arguments are ignored, as in PyTorch
        super().__init__()


class GELU(ActivationModule):
    """x Phi(x) with the standard normal CDF Phi, exact or with the tanh approximation (``approximate="tanh"``)."""

    name = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f"GELU: approximate={approximate!r}; expected 'none' or 'tanh'")
        self.approximate = approximate
        if approximate == "tanh":
            self.name = "gelu_tanh"

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(ActivationModule):
    """x sigmoid(x)."""

    name = "silu"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class ELU(ActivationModule):
    """x where x > 0, alpha (exp(x) - 1) elsewhere."""

    name = "elu"

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha, inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class Softplus(ActivationModule):
    """log(1 + exp(beta x)) / beta; x where beta x > threshold.  A Linear can fuse it only if beta is 1."""

    name = "softplus"

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    @property
    def fusible(self) -> bool:
        return self.beta == 1.0 and self.threshold >= 20.0

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        return activations.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp(x) / sum exp(x) along ``dim``.  Do not use it before CrossEntropyLoss, which takes logits.

    Args:
        dim: the dimension; None, which is deprecated, as in :func:`gpunet.nn.functional.softmax`.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        return softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum exp(x)) along ``dim``; see :class:`Softmax`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        return log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
