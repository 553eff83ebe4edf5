"""The ops: one file a family, forward and backward on one screen.  Importing this attaches the methods to Tensor."""

from gpunet.ops import (
    activations,
    broadcast,
    compare,
    convert,
    cross_entropy,
    dropout,
    elementwise,
    in_place,
    index,
    join,
    linear,
    losses,
    matmul,
    reduce,
    shape,
)
