"""Gradient clipping, parameters as vectors, sequences of different lengths, and parametrizations."""

from gpunet.nn.utils import clip_grad, convert_parameters, rnn
from gpunet.nn.utils.clip_grad import *
from gpunet.nn.utils.convert_parameters import *

__all__ = ["clip_grad", "convert_parameters", "rnn"]
__all__ += clip_grad.__all__
__all__ += convert_parameters.__all__
