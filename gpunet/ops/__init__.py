"""The ops: one file a family, forward and backward on one screen.  Importing this attaches the methods to Tensor."""

from gpunet.ops import activations, dropout, elementwise, linear, losses, matmul, reduce, shape  # noqa: F401
