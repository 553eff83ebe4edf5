"""Tensors that share memory with other objects: asarray, frombuffer, DLPack."""

from __future__ import annotations

import array
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GradientError


def test_asarray_shares_memory_where_it_can() -> None:
    numbers = numpy.arange(3.0)
    for source in (numbers, gpunet.from_numpy(numbers), memoryview(numbers).cast("B").cast("d")):
        x = gpunet.asarray(source, dtype=gpunet.float64)
        x[0] = 7.0
        assert numbers[0] == 7.0 and x.dtype == gpunet.float64
        numbers[0] = 0.0
        assert gpunet.asarray(source, dtype=gpunet.float64, copy=True).fill_(1.0).sum() == 3.0 and numbers[0] == 0.0
    assert gpunet.asarray([1, 2]).dtype == gpunet.int64 and gpunet.asarray(2.5).shape == ()
    with pytest.raises(ArgumentError, match="asarray: copy=False of list"):
        gpunet.asarray([1, 2], copy=False)
    with pytest.raises(ArgumentError, match="asarray: copy=False, but the conversion to float32"):
        gpunet.asarray(numbers, dtype=gpunet.float32, copy=False)
    with pytest.raises(DtypeError, match="asarray: "):
        gpunet.asarray("text")


def test_asarray_and_gradients(torch: Any) -> None:
    for t in (gpunet, torch):
        x = t.ones(2, requires_grad=True)
        t.asarray(x * 2, requires_grad=True).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0] and not t.asarray(x * 2, requires_grad=False).requires_grad
        assert t.asarray(x, requires_grad=False) is x and not x.requires_grad  # a leaf is changed itself
        assert t.asarray(x, requires_grad=True) is x and x.requires_grad
        assert t.asarray([1.0], requires_grad=True).is_leaf and not t.asarray(x, copy=True, requires_grad=True).is_leaf


def test_asarray_leaves_gradients_as_they_are() -> None:
    x = gpunet.ones(2, requires_grad=True)
    assert gpunet.asarray(x) is x and gpunet.asarray(x * 2).grad_fn is not None and not gpunet.asarray([1.0]).requires_grad


def test_frombuffer(torch: Any) -> None:
    for buffer in (bytearray(range(16)), array.array("i", range(4))):
        for options in ({}, {"count": 2}, {"offset": 4}, {"count": 1, "offset": 8}):
            ours, theirs = (t.frombuffer(buffer, dtype=t.int32, **options) for t in (gpunet, torch))
            numpy.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    memory = bytearray(4)
    gpunet.frombuffer(memory, dtype=gpunet.uint8)[1] = 5
    assert memory[1] == 5
    assert gpunet.frombuffer(bytearray(8), dtype=gpunet.float32, requires_grad=True).requires_grad


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ArgumentError, "a buffer of 0 bytes", {"buffer": b""}), (ArgumentError, "count=0", {"count": 0}),
        (ArgumentError, "offset=16; expected 0 to 15", {"offset": 16}), (ArgumentError, "expected a multiple of 4", {"offset": 3}),
        (ArgumentError, "count=5 elements of float32", {"count": 5}), (DtypeError, "buffer has type int", {"buffer": 3}),
    ],
)  # fmt: skip
def test_refused_buffers(error: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"frombuffer: .*{message}"):
        gpunet.frombuffer(**{"buffer": bytearray(16), "dtype": gpunet.float32} | options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "complex64"])
def test_dlpack_with_torch_and_numpy(dtype: str, torch: Any) -> None:
    source = torch.arange(6).to(getattr(torch, dtype)).reshape(2, 3).t()
    x = gpunet.from_dlpack(source)
    assert x.shape == (3, 2) and str(x.dtype) == dtype and x.data_ptr() == source.data_ptr()
    back = torch.from_dlpack(x)
    assert back.data_ptr() == source.data_ptr() and back.equal(source)
    assert numpy.from_dlpack(gpunet.ones(2)).tolist() == [1.0, 1.0]
    assert gpunet.from_dlpack(numpy.arange(3.0)).tolist() == [0.0, 1.0, 2.0]
    assert gpunet.from_dlpack(source, copy=True).data_ptr() != source.data_ptr()


def test_capsules(torch: Any) -> None:
    x = gpunet.arange(3.0)
    assert torch.utils.dlpack.from_dlpack(gpunet.to_dlpack(x)).tolist() == [0.0, 1.0, 2.0]
    assert gpunet.from_dlpack(torch.utils.dlpack.to_dlpack(torch.ones(2))).tolist() == [1.0, 1.0]
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(GradientError, match="requires grad"):
        gpunet.to_dlpack(gpunet.ones(1, requires_grad=True))
    with pytest.raises(DtypeError, match="to_dlpack: got a list"):
        gpunet.to_dlpack([1.0])
    with pytest.raises(DtypeError, match="from_dlpack: ext_tensor has type list"):
        gpunet.from_dlpack([1.0])


def test_dlpack_on_a_gpu(gpu: str) -> None:
    import cupy

    x = gpunet.arange(3.0, device=gpu)
    assert x.__dlpack_device__()[0] == 2
    shared = cupy.from_dlpack(x)
    shared += 1
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert gpunet.from_dlpack(shared).data_ptr() == x.data_ptr() and gpunet.from_dlpack(x, device="cpu").device == "cpu"
    with pytest.raises(ArgumentError, match="from_dlpack: copy=False"):
        gpunet.from_dlpack(x, device="cpu", copy=False)


def test_refused_exchange() -> None:
    with pytest.raises(ArgumentError, match="frombuffer: the elements of the buffer do not follow each other"):
        gpunet.frombuffer(memoryview(bytearray(8))[::2], dtype=gpunet.uint8)
    with pytest.raises(DtypeError, match="__dlpack__ of a tensor of bfloat16 on the CPU"):
        gpunet.to_dlpack(gpunet.ones(2, dtype=gpunet.bfloat16))
    with pytest.raises(GradientError, match="__dlpack__ on a tensor that requires grad"):
        gpunet.to_dlpack(gpunet.ones(2, requires_grad=True))
