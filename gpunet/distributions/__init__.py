"""Probability distributions: draws, densities, entropies and divergences, with PyTorch's names."""

from gpunet.distributions import constraints, transforms
from gpunet.distributions.binary import *
from gpunet.distributions.binary import __all__ as _binary_names
from gpunet.distributions.categorical import *
from gpunet.distributions.categorical import __all__ as _categorical_names
from gpunet.distributions.continuous import *
from gpunet.distributions.continuous import __all__ as _continuous_names
from gpunet.distributions.distribution import *
from gpunet.distributions.distribution import __all__ as _distribution_names
from gpunet.distributions.gamma import *
from gpunet.distributions.gamma import __all__ as _gamma_names
from gpunet.distributions.kl import *
from gpunet.distributions.kl import __all__ as _kl_names
from gpunet.distributions.normal import *
from gpunet.distributions.normal import __all__ as _normal_names
from gpunet.distributions.transformed import *
from gpunet.distributions.transformed import __all__ as _transformed_names
from gpunet.distributions.transforms import *
from gpunet.distributions.transforms import __all__ as _transforms_names

__all__ = [
    "constraints", "transforms", *_binary_names, *_categorical_names, *_continuous_names, *_distribution_names, *_gamma_names,
    *_kl_names, *_normal_names, *_transformed_names, *_transforms_names,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
