"""Samples of functions that move, roll, rotate and repeat elements."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal
from tests.samples.row import SAME, row

row(
    "_permute", lambda x: x.movedim((0, 2), (1, 0)), lambda x: numpy.moveaxis(x, (0, 2), (1, 0)), normal(ROWS, 3, 4), torch=SAME,
    name="movedim",
)  # fmt: skip
row("_reshape", lambda x: gpunet.atleast_3d(x), lambda x: x[None, :, None], normal(ROWS), torch="atleast_3d", name="atleast_3d")
for _shifts, _dims in ((1, ()), (-2, 1), ((1, -1), (0, 1)), (7, 0), (0, 0)):
    row(
        "_roll", lambda x, s=_shifts, d=_dims: x.roll(s, d),
        lambda x, s=_shifts, d=_dims: numpy.roll(x, s, None if d == () else d), normal(ROWS, 3), torch=SAME,
        name=f"{_shifts} along {_dims}",
    )  # fmt: skip
for _turns in (0, 1, 2, -1):
    row(
        "_clone" if _turns != 2 else "_flip", lambda x, k=_turns: gpunet.rot90(x, k, (0, 1)), lambda x, k=_turns: numpy.rot90(x, k),
        normal(ROWS, 3), torch=lambda torch, x, k=_turns: torch.rot90(x, k, (0, 1)), name=f"rot90 {_turns}",
    )  # fmt: skip
row("_flip", lambda x: x.fliplr(), numpy.fliplr, normal(ROWS, 3), torch=SAME, name="fliplr")
row("_repeat", lambda x: x.tile(2), lambda x: numpy.tile(x, 2), normal(ROWS, 3), torch=SAME, name="tile")
row(
    "_permute", lambda x: (x * 1).transpose_(0, 1).unsqueeze_(0), lambda x: x.T[None], normal(3, 4), torch=SAME, name="in place",
)  # fmt: skip
