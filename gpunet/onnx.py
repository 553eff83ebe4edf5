"""Functions of ``torch.onnx``, and ``load``."""

from gpunet.interop.onnx import *
