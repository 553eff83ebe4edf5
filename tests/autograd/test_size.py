"""Size, the shape of a tensor, as PyTorch's: a tuple of integers that stays one under slices and sums."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import DtypeError

SIZE = gpunet.Size((2, 3, 4))


def test_shapes_are_sizes(device: str) -> None:
    x = gpunet.zeros(2, 3, 4)
    for shape in (x.shape, x.size(), (x + 1).shape, x.T.T.shape):
        assert type(shape) is gpunet.Size and shape == SIZE == (2, 3, 4) and isinstance(shape, tuple)
    assert x.shape.numel() == 24 and gpunet.zeros(()).shape.numel() == 1
    assert gpunet.ones(x.shape).shape == x.shape and x.reshape(x.shape[1:] + (2,)).shape == (3, 4, 2)


@pytest.mark.parametrize(("size", "expected"), [
    (SIZE[1:], (3, 4)), (SIZE[::-1], (4, 3, 2)), (SIZE + (1,), (2, 3, 4, 1)), ((1,) + SIZE, (1, 2, 3, 4)),
    (SIZE + SIZE[:1], (2, 3, 4, 2)),
    (SIZE[:1] * 2, (2, 2)), (2 * SIZE[:1], (2, 2)), (gpunet.Size(), ()),
    (gpunet.Size([numpy.int64(2), 3]), (2, 3)),
    (copy.deepcopy(SIZE), (2, 3, 4)), (pickle.loads(pickle.dumps(SIZE)), (2, 3, 4)),
])  # fmt: skip
def test_sizes_stay_sizes(size: Any, expected: tuple[int, ...]) -> None:
    assert type(size) is gpunet.Size and size == expected and hash(size) == hash(expected)


def test_items_and_texts() -> None:
    first, *rest = SIZE
    assert type(SIZE[-1]) is int and (first, rest) == (2, [3, 4]) and SIZE.index(3) == 1 and SIZE.count(3) == 1
    assert repr(SIZE) == str(SIZE) == "gpunet.Size([2, 3, 4])" and f"{SIZE}" == "(2, 3, 4)"
    for wrong in (["a"], [2.0], [None]):
        with pytest.raises(DtypeError, match=r"Size: item 0 is .*expected integers"):
            gpunet.Size(wrong)
    with pytest.raises(TypeError):
        SIZE + [1]
