"""Activations as modules.  In a Sequential, an activation after a Linear is fused into its launch."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.autograd.mode import current
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.nn.init import constant_
from gpunet.nn.module import Module, Parameter, empty_parameter, launches
from gpunet.ops import activations, gates
from gpunet.ops.softmax import log_softmax, softmax, softmin

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]  # fmt: skip


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
        options = (self.alpha,) if self.name in ("leaky_relu", "elu", "celu") else ()
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
        is_plain = self.beta == 1.0 and self.threshold >= 20.0
        return is_plain and current.autocast is None  # autocasting on a GPU, it computes in float32 what a Linear gives in float16

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        return activations.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class CELU(ActivationModule):
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere."""

    name = "celu"

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha, inplace)
        if alpha == 0:
            raise ArgumentError("CELU: alpha=0, by which the input is divided; expected another number")

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class SELU(ActivationModule):
    """1.0507 x where x > 0, 1.7581 (exp(x) - 1) elsewhere (Klambauer et al. 2017)."""

    name = "selu"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Mish(ActivationModule):
    """x tanh(softplus(x))."""

    name = "mish"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Hardtanh(ActivationModule):
    """Limit to [min_val, max_val].  A Linear can fuse it if the bounds are symmetric or from 0 on.

    Args:
        min_val, max_val: the bounds.
        inplace: write the result to the input.
        min_value, max_value: deprecated names of the bounds.
    """

    name = "hardtanh"

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:  # fmt: skip
        for key, value in (("min_value", min_value), ("max_value", max_value)):
            if value is not None:
                warn_user(f"{key} is deprecated; pass {key[:7]}", FutureWarning)
        min_val, max_val = min_val if min_value is None else min_value, max_val if max_value is None else max_value
        if not min_val < max_val:
            raise ArgumentError(f"Hardtanh: min_val={min_val}, max_val={max_val}; expected min_val < max_val")
        super().__init__(inplace=inplace)
        self.min_val, self.max_val = min_val, max_val
        self.name, self.alpha = activations.bounded(min_val, max_val) or ("hardtanh", -1.0)

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        return activations.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ReLU6(Hardtanh):
    """Limit to [0, 6]."""

    name = "relu6"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Hardsigmoid(ActivationModule):
    """min(max(x + 3, 0), 6) / 6."""

    name = "hardsigmoid"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Hardswish(ActivationModule):
    """x hardsigmoid(x) (Howard et al. 2019)."""

    name = "hardswish"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Hardshrink(ActivationModule):
    """x where |x| > lambd, 0 elsewhere."""

    name = "hardshrink"

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd)
        self.lambd = lambd

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(ActivationModule):
    """x - lambd where x > lambd, x + lambd where x < -lambd, 0 elsewhere."""

    name = "softshrink"

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd)
        self.lambd = lambd

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        return activations.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Tanhshrink(ActivationModule):
    """x - tanh(x)."""

    name = "tanhshrink"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all arguments are ignored, as in PyTorch
        super().__init__()


class Softsign(ActivationModule):
    """x / (1 + |x|)."""

    name = "softsign"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all arguments are ignored, as in PyTorch
        super().__init__()


class LogSigmoid(ActivationModule):
    """log(sigmoid(x)), computed without underflow."""

    name = "log_sigmoid"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all arguments are ignored, as in PyTorch
        super().__init__()


class Threshold(ActivationModule):
    """x where x > threshold, ``value`` elsewhere.  A Linear can fuse it if the value is 0 and the threshold not negative."""

    name = ""  # gpunet train offers no module that needs arguments

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)
        self.threshold, self.value = threshold, value
        self.name, self.alpha = "threshold", float(threshold) if value == 0 else -1.0

    @launches(activations.activation_forward)
    def forward(self, input: Any) -> Tensor:
        return activations.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where x > 0, weight x elsewhere (He et al. 2015).

    Args:
        num_parameters: 1, or the number of channels, dimension 1 of the input.
        init: initial value of the weight.
        device, dtype: of the weight.

    Attributes:
        weight: (num_parameters,).
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = empty_parameter((num_parameters,), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to its initial value."""
        constant_(self.weight, self.init)

    def forward(self, input: Any) -> Tensor:
        return gates.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x where x > 0, r x elsewhere: r is drawn from [lower, upper) for each element in training mode, else their mean."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Tensor:
        return gates.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class GLU(Module):
    """a sigmoid(b) with the halves a and b of the input along ``dim`` (Dauphin et al. 2017)."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        return gates.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmin(Module):
    """Softmax of -x along ``dim``; see :class:`Softmax`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        return softmin(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax2d(Module):
    """Softmax over the channels of images (n, c, h, w) or (c, h, w)."""

    def forward(self, input: Any) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError(f"Softmax2d: input of shape {tuple(input.shape)}; expected (n, c, h, w) or (c, h, w)")
        return softmax(input, -3)


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
