"""A number that tells tensors of different bits apart."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import float64, int64, is_floating, uint64
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import cast
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, reduced_dims
from gpunet.ops.face import as_integer, public
from gpunet.ops.shape import _permute, _reshape

__all__ = ["hash_tensor"]


def _store_xor(xp: Any, out: Any, bits: Any) -> None:
    """out (n,) = the exclusive or of the bits of each row (n, m), by halves."""
    while bits.shape[1] > 1:
        half = bits.shape[1] // 2
        rest = bits[:, 2 * half :]
        bits = xp.concatenate([xp.bitwise_xor(bits[:, :half], bits[:, half : 2 * half]), rest], axis=1)
    xp.copyto(out, bits[:, 0] if bits.shape[1] else 0)


XOR = Shim("hash_tensor", _store_xor)


@public("hash_tensor")
def hash_tensor(input: Any, dim: Dims = (), *, keepdim: bool = False, mode: int = 0) -> Tensor:
    """The exclusive or of the bits of all elements, as numbers of float64 or int64, over dimensions: uint64.

    Args:
        dim: the dimensions; all for ().
        mode: 0.

    Raises:
        ArgumentError: another mode.
        ShapeError: a dimension without elements.
    """
    if as_integer("hash_tensor", "mode", mode):
        raise ArgumentError(f"hash_tensor: mode={mode}; expected 0")
    axes = reduced_dims(input, dim, "hash_tensor")
    if 0 in [input.array.shape[axis] for axis in axes]:
        raise ShapeError(f"hash_tensor: dimensions {axes} of a tensor of shape {tuple(input.shape)}; expected elements in them")
    x = input.detach()
    wide = x if x.dtype == uint64 else cast(x, dtype=float64 if is_floating(x.dtype) else int64)
    shape = tuple(x.array.shape)
    rest = [d for d in range(x.ndim) if d not in axes]
    kept = dropped_shape(shape, axes)
    out = empty(kept, uint64, x.array)
    count = 1
    for size in kept:
        count *= size
    rows = _reshape(_permute(wide, dims=(*rest, *axes)), shape=(count, x.array.size // count if count else 0))
    if out.size:
        XOR(out.reshape(-1), rows.array.view(uint64))
    return make_tensor(out.reshape(kept_shape(shape, axes)) if keepdim else out)
