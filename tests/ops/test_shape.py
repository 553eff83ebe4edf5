"""Values, views and refusals of shape functions, joins, splits, products of matrices and padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, GpunetError, OutOfRangeError, ShapeError

F = gpunet.nn.functional


def x23() -> gpunet.Tensor:
    return gpunet.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def integers(values: Any, dtype: str = "int64") -> gpunet.Tensor:
    return gpunet.tensor(values, dtype=dtype)


VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    "flip(dims=(-1,))": (lambda: gpunet.flip(x23(), dims=(-1,)), [[3, 2, 1], [6, 5, 4]]),
    "flip(x, [0])": (lambda: gpunet.flip(x23(), [0]), [[4, 5, 6], [1, 2, 3]]),
    "x.flip(dims=(0,))": (lambda: x23().flip(dims=(0,)), [[4, 5, 6], [1, 2, 3]]),
    "x.flip(0, 1)": (lambda: x23().flip(0, 1), [[6, 5, 4], [3, 2, 1]]),
    "permute(dims=)": (lambda: x23().permute(dims=(1, 0)), [[1, 4], [2, 5], [3, 6]]),
    "permute of a function": (lambda: gpunet.permute(x23(), (1, 0)), [[1, 4], [2, 5], [3, 6]]),
    "swapaxes(axis0=, axis1=)": (lambda: x23().swapaxes(axis0=0, axis1=1), [[1, 4], [2, 5], [3, 6]]),
    "transpose(dim0=, dim1=)": (lambda: gpunet.transpose(x23(), dim0=0, dim1=-1), [[1, 4], [2, 5], [3, 6]]),
    "t": (lambda: gpunet.t(x23()), [[1, 4], [2, 5], [3, 6]]),
    "squeeze by NumPy integer": (lambda: gpunet.ones(1, 2).squeeze(numpy.int64(0)), [1, 1]),
    "squeeze by tuple": (lambda: gpunet.ones(1, 2, 1).squeeze((0, 2)), [1, 1]),
    "squeeze by numbers": (lambda: gpunet.ones(1, 2, 1).squeeze(0, -1), [1, 1]),
    "squeeze of no dimension": (lambda: gpunet.ones(1, 2).squeeze(()), [[1, 1]]),
    "reshape(shape=)": (lambda: gpunet.reshape(x23(), shape=(3, -1)), [[1, 2], [3, 4], [5, 6]]),
    "unflatten": (lambda: gpunet.unflatten(x23(), 1, sizes=(-1, 1)), [[[1], [2], [3]], [[4], [5], [6]]]),
    "unflatten of nothing": (lambda: gpunet.zeros(0, 6).unflatten(1, (2, -1)), numpy.zeros((0, 2, 3))),
    "broadcast_to": (lambda: gpunet.broadcast_to(gpunet.ones(2, 1), (1, 2, 3)), numpy.ones((1, 2, 3))),
    "expand(size=)": (lambda: gpunet.ones(2, 1).expand(size=(-1, 2)), [[1, 1], [1, 1]]),
    "repeat(repeats=)": (lambda: integers([1, 2]).repeat(repeats=(2, 1)), [[1, 2], [1, 2]]),
    "repeat 0 times": (lambda: x23().repeat(0, 1), numpy.zeros((0, 3))),
    "view(dtype)": (lambda: gpunet.tensor([1.0]).view(gpunet.int32), [0x3F800000]),
    "view(smaller dtype)": (lambda: integers([[1, 256]], "int16").view(gpunet.uint8), [[1, 0, 0, 1]]),
    # joins
    "cat(axis=)": (lambda: gpunet.cat([x23()], axis=0), [[1, 2, 3], [4, 5, 6]]),
    "stack(axis=)": (lambda: gpunet.stack([integers([1]), integers([2])], axis=1), [[1, 2]]),
    "cat skips (0,)": (lambda: gpunet.cat([gpunet.tensor([]), x23(), gpunet.tensor([])], 1), [[1, 2, 3], [4, 5, 6]]),
    "cat of (0,) alone": (lambda: gpunet.cat([gpunet.tensor([]), gpunet.tensor([])]), []),
    "split(split_size=)": (lambda: x23().split(split_size=2, dim=1)[1], [[3], [6]]),
    "split(split_size_or_sections=)": (lambda: gpunet.split(tensor=x23(), split_size_or_sections=[2, 1], dim=1)[1], [[3], [6]]),
    "chunk of nothing": (lambda: gpunet.stack(gpunet.zeros(0, 1).chunk(3)), numpy.zeros((3, 0, 1))),
    # products of integers
    "dot": (lambda: gpunet.dot(integers([1, 2]), integers([3, 4])), 11),
    "matmul": (lambda: integers([[1, 2], [3, 4]]) @ integers([[5, 6], [7, 8]]), [[19, 22], [43, 50]]),
    "matmul beyond 2^53": (lambda: integers([[2**53 + 1]]) @ integers([[1]]), [[2**53 + 1]]),
    "matmul wraps around": (lambda: integers([200], "uint8") @ integers([2], "uint8"), 144),
    "matmul of batches": (lambda: integers([[[1, 2]]] * 2) @ integers([[3], [4]]), [[[11]], [[11]]]),
    "matmul of a transpose": (lambda: integers([[1, 2]]) @ integers([[3, 4]]).T, [[11]]),
    "matmul over nothing": (lambda: integers([[], []]) @ integers([[], []]).T, [[0, 0], [0, 0]]),
    "mm": (lambda: gpunet.mm(integers([[2]]), mat2=integers([[3]])), [[6]]),
    "bmm": (lambda: gpunet.bmm(integers([[[2]]]), integers([[[3]]])), [[[6]]]),
    # padding
    "pad crops": (lambda: F.pad(x23(), (-1, 1)), [[2, 3, 0], [5, 6, 0]]),
    "pad crops all": (lambda: F.pad(x23(), (-2, -1)), numpy.zeros((2, 0))),
    "pad(value=None)": (lambda: F.pad(integers([1]), (0, 1), "constant", None), [1, 0]),
    "pad of integers by a float": (lambda: F.pad(integers([1]), (1, 0), value=2.7), [2, 1]),
    "circular crops first": (lambda: F.pad(x23(), (-1, 2), mode="circular"), [[2, 3, 2, 3], [5, 6, 5, 6]]),
    "reflect crops last": (lambda: F.pad(x23(), (-1, 2), mode="reflect"), [[2, 3, 2, 1], [5, 6, 5, 4]]),
    "one_hot(input=)": (lambda: F.one_hot(input=integers([1, 0])), [[0, 1], [1, 0]]),
}


@pytest.mark.parametrize("name", VALUES)
def test_value(name: str, device: str) -> None:
    call, expected = VALUES[name]
    found, wanted = call(), numpy.asarray(expected)
    assert found.shape == wanted.shape
    numpy.testing.assert_array_equal(found.cpu().numpy(), wanted)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "flip out of range": (lambda: gpunet.flip(gpunet.ones(3), dims=(5,)), OutOfRangeError, "flip: dims=5"),
    "flip twice": (lambda: x23().flip(0, 0), ArgumentError, r"flip: dims=\(0, 0\).*twice"),
    "flip twice, once from the end": (lambda: gpunet.flip(x23(), dims=(1, -1)), ArgumentError, "flip: .*twice"),
    "flip without dims": (lambda: x23().flip(dims=None), ArgumentError, "flip: dims is missing"),
    "squeeze twice": (lambda: gpunet.ones(1, 2, 1).squeeze((0, -3)), ArgumentError, "squeeze: .*twice"),
    "reshape to negative sizes": (lambda: x23().reshape(-2, -3), ShapeError, r"reshape: .*\(-2, -3\)"),
    "reshape to floats": (lambda: x23().reshape(2.0, 3), DtypeError, "reshape: shape=2.0"),
    "size as a number": (lambda: x23().reshape(shape=6), DtypeError, "reshape: shape=6 .*tuple"),
    "unflatten": (lambda: x23().unflatten(1, (2, 2)), ShapeError, r"unflatten: dimension 1 of size 3 .*\(2, 2\)"),
    "unflatten to None": (lambda: x23().unflatten(1, None), ArgumentError, "unflatten: sizes is missing"),
    "unflatten to nothing": (lambda: gpunet.ones(1).unflatten(0, ()), ShapeError, r"unflatten: sizes=\(\) is empty"),
    "crop with a tuple as value": (lambda: F.pad(x23(), (-1, 0), value=()), DtypeError, r"pad: value=\(\) has type tuple"),
    "pad by None": (lambda: F.pad(x23(), None), ArgumentError, "pad: pad is missing"),
    "mT of a vector": (lambda: gpunet.ones(3).mT, ShapeError, r"mT: .*\(3,\)"),
    "expand to a negative size": (lambda: gpunet.ones(1).expand(-2), ShapeError, r"expand: .*\(-2,\)"),
    "repeat a negative number": (lambda: x23().repeat(-1, 1), ShapeError, r"repeat: repeats=\(-1, 1\)"),
    "huge size": (lambda: x23().repeat(2**70, 1), OutOfRangeError, "repeat: repeats=11805.* 64 bits"),
    "view of a transpose": (lambda: x23().T.view(6), ShapeError, r"view: .*reshape\(\)"),
    "view(dtype) of a ragged row": (lambda: gpunet.ones(2, 3).view(gpunet.float64), ShapeError, "multiple of 8 bytes"),
    "cat of a tensor": (lambda: gpunet.cat(x23()), DtypeError, "cat: tensors has type Tensor"),
    "cat of numbers": (lambda: gpunet.cat([gpunet.tensor(1.0)]), ShapeError, "cat: .*stack"),
    "stack of nothing": (lambda: gpunet.stack([]), ArgumentError, "stack: got no tensors"),
    "stack out of range": (lambda: gpunet.stack([x23()], 3), OutOfRangeError, "stack: dim=3"),
    "split into negative sizes": (lambda: x23().split([4, -1], 1), ArgumentError, r"split: sizes \[4, -1\]"),
    "split of size 0": (lambda: x23().split(0), ArgumentError, "split_size=0"),
    "chunk by a float": (lambda: x23().chunk(2.0), DtypeError, "chunk: chunks=2.0"),
    "matmul of booleans": (lambda: integers([1], "bool") @ integers([1], "bool"), DtypeError, "matmul: .*bool"),
    "mm of batches": (lambda: gpunet.ones(1, 2, 3).mm(gpunet.ones(3, 2)), ShapeError, r"mm: .*matmul\(\)"),
    "bmm of two sizes": (lambda: gpunet.bmm(gpunet.ones(1, 2, 3), gpunet.ones(2, 3, 2)), ShapeError, r"bmm: .*matmul\(\)"),
    "pad by a float": (lambda: F.pad(x23(), (1.0, 1)), DtypeError, "pad: pad=1.0"),
    "pad(mode=)": (lambda: F.pad(x23(), (1, 1), mode="nope"), ArgumentError, "mode='nope'"),
    "reflect too far": (lambda: F.pad(x23(), (3, 0), mode="reflect"), ShapeError, "takes widths up to 2"),
    "crop too far": (lambda: F.pad(x23(), (-4, 4)), ShapeError, "crops more"),
    "value without a constant": (lambda: F.pad(x23(), (1, 1), "reflect", 1.0), ArgumentError, "value=1.0"),
    "pad of integers by inf": (lambda: F.pad(integers([1]), (1, 0), value=float("inf")), DtypeError, "pad: value=inf .*int64"),
    "pad of unsigned integers by -1": (
        lambda: F.pad(integers([1], "uint8"), (1, 0), value=-1), DtypeError, r"pad: value=-1.0 does not fit into uint8",
    ),
    "view_as a number": (lambda: x23().view_as(7), DtypeError, "view_as: other=7; expected a tensor"),
    "one_hot of floats": (lambda: F.one_hot(x23()), DtypeError, r"one_hot: .*float32.*\.long\(\)"),
    "one_hot of a huge label": (lambda: F.one_hot(integers([2**62])), ShapeError, r"one_hot: 1 labels of \d+ classes"),
    "roll of a number": (lambda: gpunet.tensor(3.0).roll(2, 0), ShapeError, "roll: the tensor has no dimensions"),
    "narrow from a vector": (lambda: x23().narrow(1, integers([0]), 1), ShapeError, r"narrow: start has shape \(1,\)"),
    "diff beside another size": (lambda: x23().diff(0, prepend=x23()[:1]), ShapeError, r"diff: .*\(1, 3\); expected .*\(2, 3\)"),
    "addr by a fraction": (
        lambda: gpunet.addr(integers(1), integers([1]), integers([1]), alpha=gpunet.tensor(0.5)), DtypeError, "addr: alpha=.*0.5",
    ),
    "baddbmm of two dtypes": (
        lambda: gpunet.baddbmm(integers(1), gpunet.ones(1, 2, 3), gpunet.ones(1, 3, 2)), DtypeError, "int64, float32 and float32",
    ),
    "one_hot of nothing": (lambda: F.one_hot(integers([])), ArgumentError, "num_classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str, device: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


# ---- views ------------------------------------------------------------------------------------------------------------

def test_ravel_copies_what_is_not_contiguous(device: str) -> None:
    x = x23().to(device)
    assert x.ravel().zero_().tolist() == [0.0] * 6 and x.tolist() == [[0.0] * 3] * 2
    y = gpunet.arange(6, device=device)[::2]
    assert y.ravel().zero_().tolist() == [0, 0, 0] and y.tolist() == [0, 2, 4]


#: What PyTorch returns as a view, of a contiguous tensor and of a transpose.
VIEWS: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "reshape": lambda x: x.reshape(1, *x.shape),
    "view": lambda x: x.view(*x.shape, 1),
    "view(dtype)": lambda x: x.view(gpunet.int32),
    "flatten": lambda x: x.unsqueeze(0).flatten(0, 1),
    "unflatten": lambda x: x.unflatten(0, (1, -1)),
    "permute": lambda x: x.permute(1, 0),
    "transpose": lambda x: x.transpose(0, 1),
    "t": lambda x: x.t(),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "expand": lambda x: x.expand(1, *x.shape),
    "expand that repeats": lambda x: x.expand(2, *x.shape),
    "broadcast_to": lambda x: gpunet.broadcast_to(x, (2, *x.shape)),
    "split": lambda x: x.split(1, 1)[0],
    "chunk": lambda x: x.chunk(2)[0],
    "unbind": lambda x: x.unbind(1)[0],
    "detach": lambda x: x.detach(),
}
#: What it copies.
COPIES: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "flip of nothing": lambda x: x.flip(()),
    "repeat once": lambda x: x.repeat(1, 1),
    "cat of one": lambda x: gpunet.cat([x]),
    "pad by 0": lambda x: F.pad(x, (0, 0)),
    "pad by 0 elements": lambda x: F.pad(x, (0, 0), "reflect"),
    "sum over one element": lambda x: x.unsqueeze(0).sum(0),
    "amax over one element": lambda x: x.unsqueeze(0).amax(0),
    "reshape of a transpose": lambda x: x.T.reshape(-1),
}


def shares_memory(a: gpunet.Tensor, b: gpunet.Tensor) -> bool:
    return devices.pointer(a.array) == devices.pointer(b.array)


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory(name: str, device: str) -> None:
    for x in (gpunet.ones(3, 4), gpunet.ones(4, 3).T, gpunet.ones(3, 8)[:, ::2]):
        assert shares_memory(VIEWS[name](x), x)


@pytest.mark.parametrize("name", COPIES)
def test_copies_do_not(name: str, device: str) -> None:
    x = gpunet.ones(3, 4)
    assert not shares_memory(COPIES[name](x), x)


def test_writing_to_an_expanded_tensor_that_repeats_nothing(device: str) -> None:
    x = gpunet.ones(2)
    x.expand(1, 2).zero_()
    assert x.tolist() == [0.0, 0.0]


def test_gradient_of_skipped_empty_tensors(device: str) -> None:
    x, empty = x23().requires_grad_(), gpunet.tensor([], requires_grad=True)
    gpunet.cat([empty, x], 1).sum().backward()
    assert empty.grad is not None and empty.grad.shape == (0,)
    assert x.grad is not None and x.grad.tolist() == [[1.0] * 3] * 2


def test_integer_products_have_no_graph(device: str) -> None:
    product = integers([[1]]) @ gpunet.tensor([[2.0]], requires_grad=True)
    assert product.dtype == "float32" and product.requires_grad
    assert not (integers([[1]]) @ integers([[1]])).requires_grad


@pytest.mark.parametrize("transposed", [False, True])
def test_unfold_is_a_view(transposed: bool, device: str) -> None:
    """Windows share the memory and the version of the tensor, and overlap."""
    x = gpunet.arange(12.0, device=device).reshape(3, 4)
    x = x.T if transposed else x
    windows = x.unfold(0, 2, 1)
    version = x._version[0]
    windows[1, 0, 0] = 50.0
    assert x[1, 0].item() == windows[0, 0, 1].item() == 50.0
    assert x._version[0] == version + 1


def test_unfold_of_0d_and_of_memory_without_order(torch: Any) -> None:
    for size in (0, 1):
        assert gpunet.tensor(5.0).unfold(0, size, 1).tolist() == torch.tensor(5.0).unfold(0, size, 1).tolist()
    lines = numpy.frombuffer(numpy.arange(24.0), numpy.float64).reshape(2, 3, 4).transpose(1, 0, 2)
    assert gpunet.from_numpy(lines).unfold(2, 2, 1).tolist() == torch.tensor(lines).unfold(2, 2, 1).tolist()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 5, 1), r"unfold: size=5 for dimension 0 of size 3 of shape \(3, 4\)"), ((0, -1, 1), "unfold: size=-1, step=1"),
        ((1, 2, 0), "unfold: size=2, step=0"), ((2, 1, 1), "unfold: dimension=2"), ((0, 1.5, 1), "unfold: size=1.5"),
    ],
)  # fmt: skip
def test_errors_of_unfold(arguments: Any, message: str) -> None:
    with pytest.raises(GpunetError, match=message):
        gpunet.ones(3, 4).unfold(*arguments)
