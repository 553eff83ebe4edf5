"""The ops, one file per family.  Importing this package attaches the methods to Tensor."""

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
