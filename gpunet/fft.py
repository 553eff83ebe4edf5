"""Functions of ``torch.fft``."""

from gpunet.ops.fourier import *
