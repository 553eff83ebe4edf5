"""Parametrizations of weights: weight_norm and spectral_norm."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module
from gpunet.nn.utils.parametrize import register_parametrization
from gpunet.nn.utils.spectral_norm import as_matrix, default_dim, first_vectors, iterate, largest_singular_value
from gpunet.nn.utils.weight_norm import norm_except_dim, normalized_weight

__all__ = ["spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Any:
        return normalized_weight(v, g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, num_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dim, self.num_iterations, self.eps = dim, num_iterations, eps
        matrix = as_matrix(weight.detach(), dim)
        u, v = first_vectors(matrix, eps)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        iterate(matrix.t(), v, u, 15, eps)  # u first, in PyTorch's order

    def forward(self, weight: Tensor) -> Tensor:
        matrix = as_matrix(weight, self.dim)
        if self.training:
            iterate(matrix.t(), self._v, self._u, self.num_iterations, self.eps)
        return weight / largest_singular_value(matrix, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def weight_norm(module: Module, name: str = "weight", dim: int = 0) -> Module:
    """Parametrize a weight by its length, ``original0``, and its direction, ``original1`` (Salimans and Kingma 2016).

    Args:
        module: the module, which is returned.
        name: of its parameter.
        dim: the dimension whose entries have a length each; -1 for one length.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Parametrize a weight by itself divided by its largest singular value (Miyato et al. 2018).

    Args:
        module: the module, which is returned.
        name: of its parameter.
        n_power_iterations: for each time the weight is read in training mode; 15 more at the start.
        eps: norms in the iteration are at least this.
        dim: the dimension of the outputs; 0, or 1 of transposed convolutions, if None.

    Raises:
        ArgumentError: the module has no such parameter, or n_power_iterations is not positive.
    """
    if n_power_iterations <= 0:
        raise ArgumentError(f"spectral_norm: n_power_iterations={n_power_iterations}; expected a positive number")
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"spectral_norm: {type(module).__name__} has no parameter {name!r}")
    made = _SpectralNorm(weight, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    return register_parametrization(module, name, made)
