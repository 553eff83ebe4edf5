"""ONNX: export a model, and load one as a module."""

from gpunet.interop.onnx.export import export

__all__ = ["export"]
