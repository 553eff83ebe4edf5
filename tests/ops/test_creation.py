"""Functions that create tensors: PyTorch's forms of calls, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, OutOfRangeError, ShapeError

NAN, LAST = numpy.nan, gpunet.channels_last
i8, i32, i64, u8, f16, f64 = (gpunet.int8, gpunet.int32, gpunet.int64, gpunet.uint8, gpunet.float16, gpunet.float64)

#: call -> (values, dtype)
CALLS: dict[str, tuple[Callable[[], gpunet.Tensor], Any, str]] = {
    "zeros": (lambda: gpunet.zeros(2, 1), [[0], [0]], "float32"),
    "zeros of a tuple": (lambda: gpunet.zeros((2, 1), dtype=i8), [[0], [0]], "int8"),
    "zeros of size=": (lambda: gpunet.zeros(size=(1,), layout=gpunet.strided, pin_memory=True), [0], "float32"),
    "zeros of integers": (lambda: gpunet.zeros(numpy.int64(1), gpunet.tensor(2)), [[0, 0]], "float32"),
    "ones": (lambda: gpunet.ones([2], dtype=float), [1, 1], "float64"),
    "full": (lambda: gpunet.full((2,), 3), [3, 3], "int64"),
    "full of a bool": (lambda: gpunet.full(size=(2,), fill_value=True), [True, True], "bool"),
    "full of a NumPy integer": (lambda: gpunet.full((1,), numpy.int32(2)), [2], "int64"),
    "full of a NumPy float": (lambda: gpunet.full((1,), numpy.float64(2)), [2], "float32"),
    "full of a tensor": (lambda: gpunet.full((1,), gpunet.tensor(2.5)), [2.5], "float32"),
    "full cuts": (lambda: gpunet.full((1,), 1.75, dtype=i64), [1], "int64"),
    "full wraps -1": (lambda: gpunet.full((1,), -1, dtype=u8), [255], "uint8"),
    "full_like": (lambda: gpunet.full_like(gpunet.tensor([1, 2]), 1.5), [1, 1], "int64"),
    "zeros_like": (lambda: gpunet.zeros_like(input=gpunet.ones(2), dtype=i64, memory_format=LAST), [0, 0], "int64"),
    "ones_like": (lambda: gpunet.ones_like(gpunet.zeros(2, dtype=u8)), [1, 1], "uint8"),
    "arange": (lambda: gpunet.arange(3), [0, 1, 2], "int64"),
    "arange of a float": (lambda: gpunet.arange(2.5), [0, 1, 2], "float32"),
    "arange of three": (lambda: gpunet.arange(5, 1, -2), [5, 3], "int64"),
    "arange by name": (lambda: gpunet.arange(start=1, end=4, step=2), [1, 3], "int64"),
    "arange end=": (lambda: gpunet.arange(end=2), [0, 1], "int64"),
    "arange and end=": (lambda: gpunet.arange(1, end=3), [1, 2], "int64"),
    "arange of tensors": (lambda: gpunet.arange(gpunet.tensor(2.0)), [0, 1], "float32"),
    "arange of nothing": (lambda: gpunet.arange(0), [], "int64"),
    "arange of an integer dtype": (lambda: gpunet.arange(-0.5, 2.25, dtype=i32), [0, 1, 2], "int32"),
    "arange exact": (lambda: gpunet.arange(2**62, 2**62 + 2), [2**62, 2**62 + 1], "int64"),
    "arange of tenths": (lambda: gpunet.arange(0, 1, 0.25), [0, 0.25, 0.5, 0.75], "float32"),
    "linspace": (lambda: gpunet.linspace(0, 1, 3), [0, 0.5, 1], "float32"),
    "linspace of one": (lambda: gpunet.linspace(start=2, end=1, steps=1, dtype=f64), [2], "float64"),
    "linspace of integers": (lambda: gpunet.linspace(3, -2, 7, dtype=i32), [3, 2, 1, 0, 0, -1, -2], "int32"),
    "linspace cuts its ends": (lambda: gpunet.linspace(1.375, 0.875, 6, dtype=i64), [1, 0, 0, 0, 0, 0], "int64"),
    "linspace from inf": (lambda: gpunet.linspace(float("inf"), 3, 5).isnan(), [True, True, False, False, True], "bool"),
    "linspace of one to inf": (lambda: gpunet.linspace(2, float("inf"), 1), [2], "float32"),
    "linspace to nan": (lambda: gpunet.linspace(NAN, -0.5, 2).isnan(), [True, True], "bool"),
    "halves without elements": (lambda: gpunet.rand(2, 0, dtype=f16), [[], []], "float16"),
    "arange of int64 cuts its end": (lambda: gpunet.arange(-3, 2.25, dtype=i64), [-3, -2, -1, 0, 1], "int64"),
    "linspace of tensors": (lambda: gpunet.linspace(gpunet.tensor(0.0), gpunet.tensor(1), 2), [0, 1], "float32"),
    "eye": (lambda: gpunet.eye(2, m=3, dtype=i64), [[1, 0, 0], [0, 1, 0]], "int64"),
    "eye of nothing": (lambda: gpunet.eye(n=0), [], "float32"),
    "tensor of NumPy floats": (lambda: gpunet.tensor([numpy.float64(1), 2.5]), [1, 2.5], "float64"),
    "tensor of NumPy integers": (lambda: gpunet.tensor([numpy.int32(1)]), [1], "int32"),
    "tensor of tensors": (lambda: gpunet.tensor([gpunet.tensor(1.0), gpunet.tensor(2)]), [1, 2], "float32"),
    "tensor of rows": (lambda: gpunet.tensor([(1, True), range(2)], pin_memory=False), [[1, 1], [0, 1]], "int64"),
    "tensor of nothing": (lambda: gpunet.tensor([[], []]), [[], []], "float32"),
    "tensor cuts": (lambda: gpunet.tensor([1.75, -1.75], dtype=i64), [1, -1], "int64"),
    "tensor wraps -1": (lambda: gpunet.tensor([-1], dtype=u8), [255], "uint8"),
    "tensor of a NumPy number": (lambda: gpunet.tensor(numpy.int8(3)), 3, "int8"),
    "Tensor": (lambda: gpunet.Tensor([1, 2]), [1, 2], "float32"),
    "Tensor of nothing": (lambda: gpunet.Tensor(), [], "float32"),
    "Tensor of data=": (lambda: gpunet.Tensor(data=[[1], [2]], device=None), [[1], [2]], "float32"),
    "Tensor of an array": (lambda: gpunet.Tensor(numpy.array([1.5, 2])), [1.5, 2], "float32"),
    "Tensor of a tensor": (lambda: gpunet.Tensor(gpunet.tensor([1, 2])), [1, 2], "int64"),
    "LongTensor": (lambda: gpunet.LongTensor([1.5, 2]), [1, 2], "int64"),
    "ByteTensor": (lambda: gpunet.ByteTensor(range(2)), [0, 1], "uint8"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_values(name: str, device: str) -> None:
    call, values, dtype = CALLS[name]
    result = call()
    assert result.tolist() == values and result.dtype == dtype and result.device == device and not result.requires_grad


#: call -> (exception, pattern of the message)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "zeros of a string": (lambda: gpunet.zeros("a"), DtypeError, "zeros: size='a' has type str; expected an integer"),
    "zeros of a float": (lambda: gpunet.zeros(2.0), DtypeError, r"zeros: size=2\.0"),
    "zeros of a bool": (lambda: gpunet.zeros(True), DtypeError, "zeros: size=True"),
    "zeros of floats": (lambda: gpunet.zeros((2, 3.0)), DtypeError, r"size=3\.0"),
    "zeros of size=2": (lambda: gpunet.zeros(size=2), DtypeError, "zeros: size=2 has type int; expected a tuple"),
    "zeros of two sizes": (lambda: gpunet.zeros(2, size=(2,)), ArgumentError, "size="),
    "zeros of nothing": (lambda: gpunet.zeros(), ArgumentError, "zeros: size is missing"),
    "negative": (lambda: gpunet.ones(-1), ShapeError, r"ones: size=\(-1,\); expected 0 or more"),
    "sparse": (lambda: gpunet.empty(2, layout="sparse"), ArgumentError, "empty: layout='sparse'; only gpunet.strided"),
    "memory format": (lambda: gpunet.empty(2, memory_format=1), ArgumentError, "empty: memory_format=1"),
    "no dtype": (lambda: gpunet.zeros(2, dtype="q"), DtypeError, "'q' is not a dtype of tensors"),
    "tensor as dtype": (lambda: gpunet.zeros(2, dtype=gpunet.ones(1)), DtypeError, "is not a dtype of tensors"),
    "complex numbers as real ones": (lambda: gpunet.Tensor(numpy.array([1j])), DtypeError, "complex numbers for a tensor of float"),
    "integers with gradient": (lambda: gpunet.arange(3, requires_grad=True), DtypeError, "only floating and complex tensors"),
    "full of a string": (lambda: gpunet.full((2,), "a"), DtypeError, "full: fill_value='a' has type str; expected a number"),
    "full of a size": (lambda: gpunet.full(2, 1.5), DtypeError, "full: size=2 has type int"),
    "full of a vector": (lambda: gpunet.full((2,), gpunet.ones(1)), DtypeError, "full: fill_value="),
    "full of too much": (lambda: gpunet.full((2,), 300, dtype=u8), DtypeError, r"300 does not fit into uint8; expected 0 \.\. 255"),
    "full of nan": (lambda: gpunet.full((2,), NAN, dtype=i64), DtypeError, "nan does not fit into int64"),
    "full of 1e300": (lambda: gpunet.full((2,), 1e300), DtypeError, "does not fit into float32"),
    "like a list": (lambda: gpunet.zeros_like([1]), DtypeError, "zeros_like: input has type list; expected a tensor"),
    "arange of a string": (lambda: gpunet.arange("a"), DtypeError, "arange: end='a' has type str"),
    "arange backwards": (lambda: gpunet.arange(5, 1), ArgumentError, "arange: start=5, end=1, step=1; expected a step"),
    "arange of step 0": (lambda: gpunet.arange(0, 5, 0), ArgumentError, "arange: step=0"),
    "arange of step 0.5": (lambda: gpunet.arange(0, 5, 0.5, dtype=i64), ArgumentError, r"step=0\.5; expected a nonzero integer"),
    "arange of inf": (lambda: gpunet.arange(float("inf")), ArgumentError, "expected finite numbers"),
    "arange twice": (lambda: gpunet.arange(1, 2, end=3), ArgumentError, "arange: 2 positional arguments"),
    "arange without end": (lambda: gpunet.arange(start=1), ArgumentError, "arange: end is missing"),
    "arange of int8": (lambda: gpunet.arange(200, dtype=i8), DtypeError, "199 does not fit into int8"),
    "arange of 1e30": (lambda: gpunet.arange(-2, 1e30), ShapeError, "arange: .* elements; expected at most"),
    "eye of 2**70": (lambda: gpunet.eye(2**70), OutOfRangeError, "eye: n=.* does not fit into 64 bits"),
    "zeros of 2**60": (lambda: gpunet.zeros(2**30, 2**30), ShapeError, "expected at most"),
    "zeros of an array": (lambda: gpunet.zeros(numpy.array([1.0])), DtypeError, "zeros: size=.*ndarray; expected an integer"),
    "linspace of uint8": (lambda: gpunet.linspace(-1.75, 2, 2, dtype=u8), DtypeError, r"linspace: start=-1\.75 does not fit"),
    "requires_grad=0": (lambda: gpunet.zeros(2, requires_grad=0), DtypeError, "requires_grad=0 has type int"),
    "requires_grad=1": (lambda: gpunet.zeros(2, requires_grad=1), DtypeError, "requires_grad=1 has type int"),
    "linspace of -1": (lambda: gpunet.linspace(0, 1, -1), ShapeError, "linspace: steps=-1"),
    "linspace of 2.5": (lambda: gpunet.linspace(0, 1, 2.5), DtypeError, r"linspace: steps=2\.5"),
    "linspace of vectors": (lambda: gpunet.linspace(gpunet.ones(2), 1, 2), DtypeError, "linspace: start="),
    "eye of a float": (lambda: gpunet.eye(2.0), DtypeError, r"eye: n=2\.0"),
    "eye of -1": (lambda: gpunet.eye(2, -1), ShapeError, "eye: m=-1"),
    "rand of integers": (lambda: gpunet.rand(2, dtype=i64), DtypeError, "rand: dtype=int64; expected a floating or complex dtype"),
    "rand_like of integers": (lambda: gpunet.rand_like(gpunet.tensor([1])), DtypeError, "rand_like: dtype=int64"),
    "generator": (lambda: gpunet.randn(2, generator=3), DtypeError, "randn: generator=3 has type int"),
    "randint of a size": (lambda: gpunet.randint(0, 5, 3), DtypeError, "randint: size=3 has type int; expected a tuple"),
    "randint without size": (lambda: gpunet.randint(0, 5), DtypeError, "randint: size=5"),
    "randint of a float": (lambda: gpunet.randint(0.5, 5, (2,)), DtypeError, r"randint: low=0\.5"),
    "randint of a bool": (lambda: gpunet.randint(True, high=9, size=(4,)), DtypeError, "randint: low=True"),
    "randint of too much": (lambda: gpunet.randint(0, 500, (2,), dtype=u8), OutOfRangeError, r"499 does not fit into uint8"),
    "randint of 2**63": (lambda: gpunet.randint(0, 2**63, (2,)), OutOfRangeError, "randint: high=9.* does not fit into 64 bits"),
    "randperm of a float": (lambda: gpunet.randperm(2.5), DtypeError, r"randperm: n=2\.5"),
    "randperm of -1": (lambda: gpunet.randperm(-1), ShapeError, "randperm: n=-1"),
    "randperm of uint8": (lambda: gpunet.randperm(300, dtype=u8), DtypeError, "299 does not fit into uint8"),
    "tensor of strings": (lambda: gpunet.tensor([1, "a"]), DtypeError, "tensor: data of dtype str; expected numbers"),
    "tensor of None": (lambda: gpunet.tensor([None]), DtypeError, "tensor: data of dtype object"),
    "tensor of a set": (lambda: gpunet.tensor({1}), DtypeError, r"tensor: \{1\} has type set"),
    "tensor of complex": (lambda: gpunet.tensor([1j], dtype="float32"), DtypeError, "tensor: complex numbers for a tensor of"),
    "tensor of large integers": (lambda: gpunet.tensor([2**63]), DtypeError, "9223372036854775808 is too large"),
    "tensor of rows of two lengths": (lambda: gpunet.tensor([[1, 2], [3]]), ShapeError, "tensor: the nested lists"),
    "tensor of too much": (lambda: gpunet.tensor([1, 300], dtype=u8), DtypeError, "tensor: 300 does not fit into uint8"),
    "tensor of nan": (lambda: gpunet.tensor([NAN, 1.0], dtype=i64), DtypeError, "tensor: nan does not fit into int64"),
    "Tensor of a float": (lambda: gpunet.Tensor(2.5), DtypeError, r"Tensor\(2\.5\): .*use tensor\(2\.5\)"),
    "Tensor of a string": (lambda: gpunet.Tensor(2, "a"), DtypeError, r"Tensor\(2, 'a'\): expected integers"),
    "Tensor of -1": (lambda: gpunet.Tensor(-1), ShapeError, r"Tensor\(-1\): a size is negative"),
    "Tensor of dtype=": (lambda: gpunet.Tensor([1], dtype=i64), ArgumentError, "Tensor: got dtype="),
    "FloatTensor of integers": (lambda: gpunet.FloatTensor(gpunet.tensor([1])), DtypeError, "FloatTensor: .*expected float32"),
    "out of another dtype": (lambda: gpunet.zeros(2, dtype=i64, out=gpunet.ones(2)), DtypeError, "but out has dtype float32"),
    "out of another shape": (lambda: gpunet.zeros(2, out=gpunet.ones(3)), ShapeError, "zeros: out has shape"),
    "out that is a list": (lambda: gpunet.zeros(2, out=[1, 2]), DtypeError, "zeros: out has type list"),
    "out with gradient": (lambda: gpunet.zeros(2, out=gpunet.ones(2, requires_grad=True)), GradientError, "out"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_clear_words(name: str, device: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        call()


def test_out_is_filled(device: str) -> None:
    for out in (gpunet.full((3,), 7, dtype=i32), gpunet.empty(0, dtype=i32)):
        assert gpunet.arange(3, out=out) is out and out.tolist() == [0, 1, 2] and out.dtype == i32


def test_requires_grad_makes_leaves(device: str) -> None:
    for x in (
        gpunet.arange(3.0, requires_grad=True), gpunet.linspace(0, 1, 3, requires_grad=True), gpunet.eye(2, requires_grad=True),
        gpunet.randn(2, requires_grad=True), gpunet.randint(0, 3, (2,), dtype=gpunet.float32, requires_grad=True),
        gpunet.ones_like(gpunet.zeros(2), requires_grad=True),
    ):  # fmt: skip
        assert x.requires_grad and x.is_leaf


def test_random_numbers_of_all_forms(device: str) -> None:
    generator = gpunet.Generator(device=device).manual_seed(3)
    first = gpunet.randn(size=(2, 3), generator=generator)
    assert first.shape == (2, 3) and gpunet.randn((2, 3), generator=generator.manual_seed(3)).tolist() == first.tolist()
    for drawn in (
        gpunet.randint(5, (40,)), gpunet.randint(0, 5, [40]), gpunet.randint(high=5, size=(40,)), gpunet.randint(5, size=(40,)),
        gpunet.randint(low=0, high=5, size=(40,)), gpunet.randint(gpunet.tensor(0), 5, (40,)),
    ):  # fmt: skip
        assert drawn.dtype == i64 and {*drawn.tolist()} == {0, 1, 2, 3, 4}
    assert gpunet.randint(0, 2, (40,), dtype=gpunet.bool).dtype == "bool"
    assert gpunet.randint(-3, 256, (40,), dtype=gpunet.float32).dtype == "float32"
    assert sorted(gpunet.randperm(n=256, dtype=u8).tolist()) == [*range(256)]
    assert gpunet.rand_like(gpunet.zeros(2, dtype=f16)).dtype == f16


def test_types_of_tensors(device: str) -> None:
    x = gpunet.zeros(2)
    assert isinstance(x, gpunet.FloatTensor) == (not x.is_cuda) and not isinstance(x, gpunet.LongTensor)
    assert gpunet.FloatTensor(2, 3).shape == (2, 3) and gpunet.Tensor(gpunet.Size((2, 3))).shape == (2, 3)
    assert type(gpunet.IntTensor(1)) is gpunet.Tensor


def test_tensor_shares_the_memory_of_tensors_and_float32_arrays() -> None:
    x, array = gpunet.zeros(2), numpy.zeros(2, "float32")
    gpunet.Tensor(x)[0] = 1
    gpunet.Tensor(array)[0] = 1
    assert x.tolist() == [1, 0] and array.tolist() == [1, 0]
    with pytest.raises(DeviceError, match=r"use tensor\.to\(device\)"):
        gpunet.Tensor(x, device="emulated")


def test_memory_in_a_file(tmp_path: Any, torch: Any) -> None:
    path = tmp_path / "numbers"
    numpy.arange(6, dtype="float32").tofile(path)
    private, theirs = (library.from_file(str(path), size=4) for library in (gpunet, torch))
    private += 1
    assert theirs.tolist() == [0, 1, 2, 3] and private.tolist() == [1, 2, 3, 4]
    shared = gpunet.from_file(path, True, 8, dtype=gpunet.float32)
    shared[7] = 5.0
    shared.sqrt_()
    del shared
    assert numpy.fromfile(path, "float32").tolist()[-2:] == [0, pytest.approx(5**0.5)]
    with pytest.raises(ArgumentError, match="has 8 elements of float32; expected at least 9"):
        gpunet.from_file(path, size=9)


def test_names_for_complex_and_sparse_tensors_of_those_that_are_neither() -> None:
    x = gpunet.ones(2)
    assert x.conj() is x and gpunet.conj(x) is x and x.resolve_conj() is x and not x.is_conj() and x.to_dense() is x
    assert x.to_dense(gpunet.float64).dtype == gpunet.float64
