"""Gradient clipping, parameters as vectors, sequences of different lengths, and parametrizations."""

from gpunet.nn.utils import (
    clip_grad,
    convert_parameters,
    fusion,
    memory_format,
    parametrizations,
    parametrize,
    rnn,
    stateless,
)
from gpunet.nn.utils.clip_grad import *
from gpunet.nn.utils.convert_parameters import *
from gpunet.nn.utils.fusion import *
from gpunet.nn.utils.init import skip_init
from gpunet.nn.utils.memory_format import *
from gpunet.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
from gpunet.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = ["clip_grad", "convert_parameters", "parametrizations", "parametrize", "rnn", "stateless"]
__all__ += ["remove_spectral_norm", "remove_weight_norm", "skip_init", "spectral_norm", "weight_norm"]
__all__ += clip_grad.__all__
__all__ += convert_parameters.__all__
__all__ += fusion.__all__
__all__ += memory_format.__all__
