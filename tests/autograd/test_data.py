"""Arrays from outside: subclasses of ndarray and foreign byte orders are taken as their data, at every entrance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import DtypeError

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def memmap(tmp_path: Path) -> numpy.ndarray:
    array = numpy.memmap(tmp_path / "rows", "float32", "w+", shape=(2, 3))
    array[:] = ROWS
    return array


#: name -> a function of a folder that makes an array of ROWS
ARRAYS: dict[str, Callable[[Path], numpy.ndarray]] = {
    "memmap": memmap,
    "matrix": lambda _: numpy.array(ROWS, "float32").view(numpy.matrix),
    "recarray": lambda _: numpy.array(ROWS, "float32").view(numpy.recarray),
    "masked array": lambda _: numpy.ma.masked_array(numpy.array(ROWS, "float32"), [[False, True, False]] * 2),
    "big endian": lambda _: numpy.array(ROWS, ">f4"),
    "subclass": lambda _: numpy.array(ROWS, "float32").view(type("Mine", (numpy.ndarray,), {})),
}

every_array = pytest.mark.parametrize("name", ARRAYS)


@every_array
def test_arrays_become_tensors_of_their_data(name: str, tmp_path: Path) -> None:
    array = ARRAYS[name](tmp_path)
    for make in (gpunet.tensor, gpunet.as_tensor, gpunet.from_numpy, gpunet.Tensor):
        x = make(array)
        assert x.tolist() == ROWS and x.dtype == gpunet.float32 and type(x.array) is numpy.ndarray
        assert (x * 2 + 1).tolist() == [[3, 5, 7], [9, 11, 13]]
        shares = name != "big endian" and make is not gpunet.tensor
        assert numpy.may_share_memory(x.array, array) == shares


@every_array
def test_arrays_are_operands(name: str, tmp_path: Path) -> None:
    array = ARRAYS[name](tmp_path)
    x = gpunet.ones(2, 3, requires_grad=True)
    assert (x * array).tolist() == (x + array - 1).tolist() == gpunet.mul(x, array).tolist() == ROWS
    (x * array).backward(array)
    assert x.grad.tolist() == [[v * v for v in row] for row in ROWS]
    y = gpunet.zeros(2, 3)
    y[:] = array
    y[[0, 1]] += array
    assert y.tolist() == (2 * gpunet.tensor(ROWS)).tolist()
    layer = gpunet.nn.Linear(3, 2)
    assert layer(gpunet.as_tensor(array)).tolist() == layer(gpunet.tensor(ROWS)).tolist()
    assert gpunet.nn.Parameter(array).dtype == "float32"


def test_index_arrays_of_subclasses() -> None:
    x = gpunet.arange(6.0)
    plain = numpy.array([0, 4])
    for index in (plain.astype(">i8"), numpy.ma.masked_array(plain, [True, False]), plain.view(numpy.recarray)):
        assert x[index].tolist() == [0, 4] and x.gather(0, index).tolist() == [0, 4]


@pytest.mark.parametrize(("array", "text"), [
    (numpy.array([object()]), "object"), (numpy.array(["a"]), "str"),
    (numpy.array([b"a"]), "bytes"), (numpy.array([1], "M8[s]"), "datetime64"), (numpy.rec.array([(1, 2.0)]), "i8"),
    pytest.param(numpy.array([1], "g"), "float128", marks=pytest.mark.skipif(numpy.dtype("g").itemsize == 8, reason="is float64")),
])  # fmt: skip
def test_other_dtypes_are_refused_by_name(array: numpy.ndarray, text: str) -> None:
    for make in (gpunet.tensor, gpunet.as_tensor, gpunet.from_numpy, gpunet.Tensor, gpunet.nn.Parameter, gpunet.ones(1).mul):
        with pytest.raises(DtypeError, match=rf"data of dtype .*{text}.*; expected numbers"):
            make(array)


INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, "float16", "float64"])
def test_dtypes_are_kept(dtype: str) -> None:
    array: Any = numpy.array([0, 1], dtype)
    for make in (gpunet.tensor, gpunet.as_tensor, gpunet.from_numpy):
        assert make(array).dtype == dtype and make(array).tolist() == [0, 1]


def test_a_number_in_a_tensor(device: str) -> None:
    x = gpunet.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert 2.0 in x and 5 not in x and gpunet.tensor(2.0) in x and gpunet.tensor([3.0, 0.0]) in x and True in x
    for element in ("a", None, [1.0]):
        with pytest.raises(DtypeError, match="expected a number or a tensor"):
            element in x  # noqa: B015
