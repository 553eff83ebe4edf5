"""Spectral normalization: a weight divided by its largest singular value (Miyato et al. 2018)."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.module import Module, Parameter
from gpunet.ops.creation import empty
from gpunet.ops.distance import normalize
from gpunet.ops.matmul import matmul

__all__ = ["remove_spectral_norm", "spectral_norm"]


def default_dim(module: Module) -> int:
    """The dimension of a module's outputs in its weight."""
    return 1 if type(module).__name__.startswith("ConvTranspose") else 0


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as a matrix with ``dim`` as its rows."""
    if dim:
        weight = weight.permute(dim, *(axis for axis in range(weight.ndim) if axis != dim))
    return weight.reshape(weight.shape[0], -1)


def first_vectors(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random unit vectors u (rows,) and v (columns,)."""
    u, v = (init.normal_(empty(n, dtype=matrix.dtype, device=matrix.device)) for n in matrix.shape)
    return normalize(u, dim=0, eps=eps), normalize(v, dim=0, eps=eps)


def iterate(matrix: Tensor, u: Tensor, v: Tensor, count: int, eps: float) -> None:
    """Power iterations, which write to the singular vectors u and v."""
    with no_grad():
        matrix = matrix.detach()
        for _ in range(count):
            v.copy_(normalize(matmul(matrix.t(), u), dim=0, eps=eps))
            u.copy_(normalize(matmul(matrix, v), dim=0, eps=eps))


def largest_singular_value(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^T W v, whose gradient is that of the singular value; u and v are constants, copied, for they change in place."""
    return matmul(u.detach().clone(), matmul(matrix, v.detach().clone()))


class _SpectralNorm:
    """The forward pre-hook that computes the weight."""

    def __init__(self, name: str, num_iterations: int, dim: int, eps: float) -> None:
        self.name, self.num_iterations, self.dim, self.eps = name, num_iterations, dim, eps

    def compute(self, module: Module, update: bool) -> Tensor:
        weight, u, v = (getattr(module, f"{self.name}_{part}") for part in ("orig", "u", "v"))
        matrix = as_matrix(weight, self.dim)
        if update:
            iterate(matrix, u, v, self.num_iterations, self.eps)
        return weight / largest_singular_value(matrix, u, v)

    def __call__(self, module: Module, args: Any) -> None:
        setattr(module, self.name, self.compute(module, module.training))


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a parameter by its largest singular value, which each forward in training mode estimates by power iterations.

    The parameter becomes ``name_orig``, the singular vectors are the buffers ``name_u`` and ``name_v``.

    Args:
        module: the module, which is returned.
        name: of its parameter.
        n_power_iterations: per forward, positive.
        eps: norms in the iteration are at least this.
        dim: the dimension of the outputs; 0, or 1 of transposed convolutions, if None.

    Raises:
        ArgumentError: the module has no such parameter, or has a spectral_norm of it, or n_power_iterations is not positive.
    """
    if n_power_iterations <= 0:
        raise ArgumentError(f"spectral_norm: n_power_iterations={n_power_iterations}; expected a positive number")
    if any(isinstance(hook, _SpectralNorm) and hook.name == name for hook in module._forward_pre_hooks.values()):
        raise ArgumentError(f"spectral_norm: {type(module).__name__} has spectral_norm of {name!r} already")
    weight = module._parameters.get(name)
    if weight is None:
        raise ArgumentError(f"spectral_norm: {type(module).__name__} has no parameter {name!r}; it has {list(module._parameters)}")
    hook = _SpectralNorm(name, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    u, v = first_vectors(as_matrix(weight.detach(), hook.dim), eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    object.__setattr__(module, name, weight.detach())
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Undo :func:`spectral_norm`: the parameter has its present, normalized value; return the module.

    Raises:
        ArgumentError: the module has no spectral_norm of this parameter.
    """
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, _SpectralNorm) and hook.name == name:
            weight = hook.compute(module, False).detach()
            del module._forward_pre_hooks[number]
            for key in (name, f"{name}_orig", f"{name}_u", f"{name}_v"):
                delattr(module, key)
            setattr(module, name, Parameter(weight))
            return module
    raise ArgumentError(f"remove_spectral_norm: {type(module).__name__} has no spectral_norm of {name!r}")
