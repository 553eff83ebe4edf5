"""ONNX: export a model, and load one as a module."""

from gpunet.interop.onnx.export import export
from gpunet.interop.onnx.load import load

__all__ = ["export", "load"]
