"""Functions of ``torch.onnx``, and ``load``."""

from gpunet.interop.onnx import export, load

__all__ = ["export", "load"]
