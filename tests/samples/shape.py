"""Samples of changes of shape, copies and moves."""

from __future__ import annotations

import numpy

from gpunet.autograd import OPS
from tests.samples.inputs import (
    ROWS,
    normal,
)
from tests.samples.row import SAME, row, same

row("alias", OPS["alias"].call, lambda x: x, normal(ROWS, 3))
row("_clone", lambda x: x.clone(), lambda x: x, normal(ROWS, 3), torch="clone")
row("_move", lambda x: OPS["_move"].call(x, source=x.device, target=x.device), lambda x: x, normal(ROWS, 3))
same("_reshape", lambda x: x.reshape(3, -1), normal(2, 3, 4), name="reshape")
same("_reshape", lambda x: x.T.reshape(2, 6), normal(3, 4), name="of a transpose")
row("_reshape", lambda x: x.flatten(1), lambda x: x.reshape(len(x), 6), normal(ROWS, 2, 3), torch=SAME, name="flatten")
row("_reshape", lambda x: x.unsqueeze(1), lambda x: x[:, None], normal(ROWS, 3), torch=SAME, name="unsqueeze")
row("_reshape", lambda x: x.squeeze(1), lambda x: x[:, 0], normal(ROWS, 1, 3), torch=SAME, name="squeeze")
row("_repeat", lambda x: x.repeat(2, 3), lambda x: numpy.tile(x, (2, 3)), normal(ROWS, 3), torch=SAME)
row("_permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), normal(ROWS, 3, 4), torch=SAME, name="permute")
row("_permute", lambda x: x.transpose(-1, 0), lambda x: x.swapaxes(-1, 0), normal(ROWS, 3, 4), torch=SAME, name="transpose")
same("_permute", lambda x: x.T, normal(ROWS, 3), name="T")
row("_flip", lambda x: x.flip(0, -1), lambda x: x[::-1, ::-1], normal(ROWS, 3), torch=SAME)
row("_flip", lambda x: x.flip(0), lambda x: x, normal(), torch=SAME, name="a number")
row("_repeat", lambda x: x.repeat(2, 1, 2), lambda x: numpy.tile(x, (2, 1, 2)), normal(ROWS, 3), torch=SAME, name="repeat more")
row("_reshape", lambda x: x.unflatten(1, (2, -1)), lambda x: x.reshape(len(x), 2, 3), normal(ROWS, 6), torch=SAME, name="unflatten")
row("_reshape", lambda x: x.T.unsqueeze(1), lambda x: x.T[:, None], normal(ROWS, 3), name="view of a transpose")


def windows(x: numpy.ndarray, dim: int, size: int, step: int) -> numpy.ndarray:
    """The windows of ``x`` along a dimension, one by one."""
    lines = numpy.moveaxis(x, dim, -1)
    starts = range(0, lines.shape[-1] - size + 1, step)
    return numpy.moveaxis(numpy.stack([lines[..., start : start + size] for start in starts], -2), -2, dim)


def sum_of_windows(g: numpy.ndarray, dim: int, step: int, length: int) -> numpy.ndarray:
    by_window = numpy.moveaxis(g, dim, 0)
    lines = numpy.zeros((*by_window.shape[1:-1], length))
    for number, window in enumerate(by_window):
        lines[..., number * step : number * step + window.shape[-1]] += window
    return numpy.moveaxis(lines, -1, dim)


for _dim, _size, _step in ((1, 3, 1), (0, 2, 3), (2, 3, 2), (1, 5, 1), (1, 1, 4), (0, 0, 2)):
    row(
        "_unfold", lambda x, d=_dim, n=_size, s=_step: x.unfold(d, n, s), lambda x, d=_dim, n=_size, s=_step: windows(x, d, n, s),
        normal(5, 6, 4), torch=SAME, name=f"dimension {_dim}, size {_size}, step {_step}",
    )  # fmt: skip
row("_unfold", lambda x: x.T.unfold(0, 2, 1), lambda x: windows(x.T, 0, 2, 1), normal(3, 4), name="of a transpose")
for _dim, _count, _size, _step in ((1, 6, 3, 1), (0, 3, 3, 2), (1, 3, 4, 2), (1, 4, 1, 2)):
    row(
        "_fold", lambda g, d=_dim, s=_step: OPS["_fold"].call(g, dim=d, size=g.shape[-1], step=s, length=8),
        lambda g, d=_dim, s=_step: sum_of_windows(g, d, s, 8),
        normal(*((_count, 2, _size) if _dim == 0 else (2, _count, _size))), name=f"dimension {_dim}, size {_size}, step {_step}",
    )  # fmt: skip
row(
    "_as_strided", lambda x: x.clone().reshape(-1).as_strided((3, 2, 2), (2, 1, 1), 1),
    lambda x: numpy.array([[x.flat[i + j + 1 : i + j + 3] for j in (0, 1)] for i in (0, 2, 4)]), normal(5, 4),
    torch=lambda torch, x: torch.as_strided(x, (3, 2, 2), (2, 1, 1), 1),
)  # fmt: skip
