"""Modules of ``torch.backends``: flags that scripts set, none of which changes a value here (see :mod:`gpunet.backend.flags`)."""

from gpunet.backends import cuda, cudnn, mkl, mkldnn, mps, openmp
