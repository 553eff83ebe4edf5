"""Methods that concern the memory of a tensor, and methods that create tensors like it."""

from __future__ import annotations

import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, OutOfRangeError, ShapeError


def test_new_tensors_have_the_dtype_and_device(device: str) -> None:
    x = gpunet.zeros(2, dtype="float64")
    with gpunet.device("cpu"):
        for made, values in (
            (x.new_zeros(3), [0.0] * 3), (x.new_ones((1, 2)), [[1.0, 1.0]]), (x.new_full((2,), 5), [5.0, 5.0]),
            (x.new_tensor([1, 2]), [1.0, 2.0]), (x.new([4, 5]), [4.0, 5.0]),
        ):  # fmt: skip
            assert (made.dtype, made.device, made.tolist()) == (x.dtype, x.device, values)
        assert x.new(2, 3).shape == (2, 3) and x.new_empty(4).dtype == x.dtype
    assert x.new_zeros(1, dtype="int64", requires_grad=False).dtype == gpunet.int64


def test_detach_in_place() -> None:
    x = gpunet.ones(3, requires_grad=True)
    y = x * 2
    assert y.detach_() is y and y.is_leaf and not y.requires_grad
    with pytest.raises(InPlaceError, match=r"detach_ on a view"):
        (x * 2)[:1].detach_()
    with pytest.raises(InPlaceError, match=r"detach_ on a view"):
        gpunet.ones(1).expand(2).detach_()
    assert x[:1].detach().detach_().is_leaf


def test_resize(device: str) -> None:
    x = gpunet.arange(6)
    assert x.resize_(2, 2) is x and x.tolist() == [[0, 1], [2, 3]]
    assert x.resize_((2, 3)).tolist()[0] == [0, 1, 2]
    z = gpunet.arange(6)
    assert z.resize_(2).resize_(6).tolist() == [0, 1, 2, 3, 4, 5]
    y = gpunet.arange(6).reshape(2, 3).t()
    assert y.resize_(6).tolist() == [0, 1, 2, 3, 4, 5]  # in the order of memory, as in PyTorch
    y = gpunet.arange(6).reshape(2, 3).t()
    assert y.resize_(3, 2) is y and y[0].tolist() == [0, 3]
    assert y.resize_(3, 2, memory_format=gpunet.contiguous_format).tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ShapeError, match="resize_as_ on a view with gaps"):
        gpunet.arange(6)[::2].resize_as_(gpunet.zeros(3), memory_format=gpunet.preserve_format)
    with pytest.raises(ArgumentError, match="resize_: memory_format=gpunet.channels_last; expected None or"):
        y.resize_(3, 2, memory_format=gpunet.channels_last)
    assert x.resize_as_(gpunet.zeros(4)).shape == (4,)
    with pytest.raises(ShapeError, match=r"resize_: size=\(-1,\)"):
        x.resize_(-1)
    with pytest.raises(ShapeError, match=r"resize_ on a view with gaps"):
        gpunet.zeros(4, 4)[:, :2].resize_(3)
    with pytest.raises(GradientError, match=r"resize_ on a tensor that requires grad"):
        gpunet.ones(2, requires_grad=True).resize_(1)


def test_set() -> None:
    x, y = gpunet.zeros(2), gpunet.ones(3)
    assert x.set_(y) is x
    y[0] = 5
    assert x.tolist() == [5.0, 1.0, 1.0] and gpunet.zeros(2).set_().shape == (0,)
    with pytest.raises(DtypeError, match=r"set_: source has dtype int64"):
        x.set_(gpunet.ones(1, dtype="int64"))
    with pytest.raises(DtypeError, match=r"set_: source has type list"):
        x.set_([1.0])


def test_places() -> None:
    x = gpunet.zeros(4, 5)
    assert (x.storage_offset(), x[1:].storage_offset(), x[1, 2:].storage_offset()) == (0, 5, 7)
    assert x.pin_memory() is x and not x.is_pinned() and x.share_memory_() is x and not x.is_shared()


def test_type_queries(torch: object) -> None:
    assert gpunet.is_tensor(gpunet.ones(1)) and not gpunet.is_tensor(1.0)
    assert gpunet.is_floating_point(gpunet.ones(1)) and not gpunet.is_complex(gpunet.ones(1))
    assert gpunet.is_signed(gpunet.ones(1)) and not gpunet.is_signed(gpunet.ones(1, dtype="uint8"))
    assert gpunet.is_nonzero(gpunet.ones(1)) and gpunet.numel(gpunet.ones(2, 3)) == 6
    assert gpunet.promote_types("float16", "int64") == gpunet.float16 and gpunet.can_cast("int64", "float32")
    assert not gpunet.can_cast("float32", "int64")
    assert gpunet.result_type(gpunet.ones(1, dtype="int64"), 1.5) == gpunet.float32
    assert gpunet.result_type(1, gpunet.ones(1, dtype="float64")) == gpunet.float64
    assert gpunet.result_type(gpunet.ones(2), gpunet.ones(3)) == gpunet.float32
    assert gpunet.result_type(1, 2.0) == gpunet.float32 and gpunet.result_type(1, True) == gpunet.int64
    assert gpunet.typename(gpunet.ones(1)) == "torch.FloatTensor"
    with pytest.raises(ShapeError, match=r"is_nonzero: the tensor has shape \(2,\)"):
        gpunet.is_nonzero(gpunet.ones(2))


def test_default_tensor_type() -> None:
    try:
        gpunet.set_default_tensor_type("torch.DoubleTensor")
        assert gpunet.zeros(1).dtype == gpunet.float64
        with pytest.raises(DtypeError, match=r"expected a floating type"):
            gpunet.set_default_tensor_type(gpunet.LongTensor)
    finally:
        gpunet.set_default_dtype("float32")
        gpunet.set_default_device(None)


def test_an_empty_view_grows_in_memory_of_its_own(device: str) -> None:
    """The place of an empty slice is not known, so nothing is written to the elements at the start of the owner."""
    base = gpunet.arange(10, device=device)
    base[4:4].resize_(2).fill_(-1)
    gpunet.empty(0, device=device, dtype=base.dtype).set_(base[6:6]).resize_(3).fill_(-1)
    assert base.tolist() == [*range(10)]


def test_storage_is_the_memory_behind_views(device: str) -> None:
    x = gpunet.arange(6.0, device=device).reshape(2, 3)
    typed, untyped = x[1].storage(), x[1].untyped_storage()
    assert typed.tolist() == [*typed] == x.flatten().tolist() and len(typed) == typed.size() == 6
    assert (typed.nbytes(), untyped.nbytes(), untyped.size(), typed.element_size()) == (24, 24, 24, 4)
    assert typed.data_ptr() == untyped.data_ptr() == typed.untyped().data_ptr() == x.data_ptr() != x[1].data_ptr()
    assert (typed.dtype, typed.device, typed.is_cuda) == (x.dtype, x.device, x.is_cuda) and untyped.dtype == gpunet.uint8
    typed[0], typed[-2:] = 7, 8
    assert typed[0] == 7 and x.tolist() == [[7, 1, 2], [3, 8, 8]]
    copy = typed.clone()
    typed.fill_(2)
    assert copy.tolist() == [7, 1, 2, 3, 8, 8] == typed.copy_(copy).tolist() and copy[1:3].tolist() == [1, 2]
    assert typed.cpu().tolist() == typed.tolist() and str(typed).endswith("of size 6]") and isinstance(typed, gpunet.TypedStorage)
    with pytest.raises(OutOfRangeError, match=r"index 6 of 6 elements"):
        typed[6]
    with pytest.raises(DtypeError, match=r"index 1.0 has type float"):
        typed[1.0]


def test_a_change_of_a_storage_is_a_change_of_what_was_saved() -> None:
    x = gpunet.ones(3, requires_grad=True)
    y = (x * x).sum()
    x.storage().fill_(5)
    with pytest.raises(InPlaceError):
        y.backward()


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64"])
def test_unsigned_integers(name: str, device: str) -> None:
    dtype = getattr(gpunet, name)
    x = gpunet.tensor([1, 2, 2**16 - 1], dtype=dtype, device=device)
    assert x.dtype == dtype and (x + x[:1]).tolist()[:2] == [2, 3] and x.long().tolist() == [1, 2, 2**16 - 1]
    assert x.flip(0)[0].item() == 2**16 - 1 and (x * 0.5).dtype == gpunet.float32
    if name == "uint64":
        with pytest.raises(DtypeError, match=r"no integer dtype holds the numbers of uint64 and int64"):
            x + x.long()
    else:
        assert (x + x.long()).dtype == gpunet.int64
