"""Weight normalization: a weight as its direction and its length (Salimans and Kingma 2016)."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module, Parameter
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.dims import normalize_dim
from gpunet.ops.norm import norm

__all__ = ["remove_weight_norm", "weight_norm"]


def norm_except_dim(v: Tensor, dim: int | None) -> Tensor:
    """The norm of v over all dimensions but ``dim``, which are kept; over all of them, as a 0-d tensor, if it is None or -1."""
    if dim is None or dim == -1:
        return norm(v)
    kept = normalize_dim(dim, v.ndim, "weight_norm")
    others = tuple(axis for axis in range(v.ndim) if axis != kept)
    return norm(v, 2, others, True) if others else v.abs()


@in_accumulator
def normalized_weight(v, g, dim):
    """v g / |v|."""
    return v * (g / norm_except_dim(v, dim))


class _WeightNorm:
    """The forward pre-hook that computes the weight."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name, self.dim = name, dim

    def compute(self, module: Module) -> Tensor:
        return normalized_weight(getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g"), self.dim)

    def __call__(self, module: Module, args: Any) -> None:
        setattr(module, self.name, self.compute(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train ``name_g``, the length, and ``name_v``, the direction, instead of a parameter; each forward computes the weight.

    PyTorch deprecates it for :func:`gpunet.nn.utils.parametrizations.weight_norm`, whose state has other names.

    Args:
        module: the module, which is returned.
        name: of its parameter.
        dim: the dimension whose entries have a length each; None for one length.

    Raises:
        ArgumentError: the module has no such parameter, or has a weight_norm of it.
    """
    if any(isinstance(hook, _WeightNorm) and hook.name == name for hook in module._forward_pre_hooks.values()):
        raise ArgumentError(f"weight_norm: {type(module).__name__} has weight_norm of {name!r} already")
    weight = module._parameters.get(name)
    if weight is None:
        raise ArgumentError(f"weight_norm: {type(module).__name__} has no parameter {name!r}; it has {list(module._parameters)}")
    hook = _WeightNorm(name, dim)
    delattr(module, name)
    setattr(module, f"{name}_g", Parameter(norm_except_dim(weight.detach(), dim)))
    setattr(module, f"{name}_v", Parameter(weight.detach()))
    hook(module, ())
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Undo :func:`weight_norm`: the parameter has its present value; return the module.

    Raises:
        ArgumentError: the module has no weight_norm of this parameter.
    """
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, _WeightNorm) and hook.name == name:
            weight = hook.compute(module).detach()
            del module._forward_pre_hooks[number]
            for key in (name, f"{name}_g", f"{name}_v"):
                delattr(module, key)
            setattr(module, name, Parameter(weight))
            return module
    raise ArgumentError(f"remove_weight_norm: {type(module).__name__} has no weight_norm of {name!r}")
