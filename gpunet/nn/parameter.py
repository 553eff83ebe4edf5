"""PyTorch's name of the module that has the kinds of parameters."""

from gpunet.nn.module import Buffer, Parameter, UninitializedBuffer, UninitializedParameter, is_lazy

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]
