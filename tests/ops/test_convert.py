"""Conversions of dtype and device, copies, and queries of the layout: PyTorch's forms of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpunet
from gpunet.errors import ArgumentError, DeviceError, DtypeError, OutOfRangeError


def test_forms_of_to(device: str) -> None:
    x = gpunet.arange(6.0).reshape(2, 3)
    f64 = gpunet.float64
    for y in (
        x.to(f64), x.to(device, f64), x.to(f64, True), x.to(f64, non_blocking=True, copy=True), x.to(x.double()), x.to(None, f64),
        x.to(device=device, dtype=f64, memory_format=gpunet.preserve_format), x.to(float), x.to("float64"),
        x.to(device, f64, False, True), x.double(memory_format=gpunet.channels_last), x.type(f64),
        x.type(dtype=f64, non_blocking=True), x.type("float64"), x.type_as(x.double()),
    ):  # fmt: skip
        assert y.dtype == f64 and y.tolist() == x.tolist() and y.device == device
    for same in (x.to(), x.to(None), x.to(device), x.to(gpunet.float32), x.to(device, non_blocking=True), x.to(x), x.float()):
        assert same is x
    for copy in (x.to(device, copy=True), x.to(gpunet.float32, False, True), x.clone(memory_format=gpunet.contiguous_format)):
        assert copy is not x and copy.tolist() == x.tolist()
    assert x.contiguous(memory_format=gpunet.contiguous_format) is x and gpunet.Tensor.clone(input=x).tolist() == x.tolist()
    assert x.cpu(memory_format=gpunet.preserve_format).device == "cpu"


#: call -> (exception, pattern of the message)
REFUSED: dict[str, tuple[Callable[[gpunet.Tensor], Any], type[Exception], str]] = {
    "no dtype": (lambda x: x.to(1.5), DtypeError, r"to: 1\.5 has type float; expected a device, a dtype or a tensor"),
    "no flag": (lambda x: x.to(gpunet.float64, 1), ArgumentError, "non_blocking and copy, which are booleans"),
    "two devices": (lambda x: x.to("cpu", device="cpu"), ArgumentError, "to: got device='cpu' beside 'cpu'"),
    "unknown device": (lambda x: x.to("nowhere"), DeviceError, "'nowhere'"),
    "memory format": (lambda x: x.clone(memory_format="last"), ArgumentError, "clone: memory_format='last'"),
    "copy=0": (lambda x: x.to(dtype=gpunet.float64, copy=0), ArgumentError, "copy=0; expected True or False"),
    "force=1": (lambda x: x.numpy(force=1), DtypeError, "numpy: force=1 has type int"),
    "no GPU": (lambda x: x.cuda("cpu"), ArgumentError, "cuda: device='cpu'; expected a GPU"),
    "no type": (lambda x: x.type("torch.Float"), DtypeError, r"type: 'torch\.Float'; expected"),
    "type_as": (lambda x: x.type_as(1), DtypeError, "type_as: other has type int"),
    "size": (lambda x: x.size(2), OutOfRangeError, r"size: dim=2 .*expected -2 \.\. 1"),
    "size of a bool": (lambda x: x.size(True), DtypeError, "size: dim=True"),
    "size of a string": (lambda x: x.size("a"), DtypeError, "size: dim='a'"),
    "size of a number": (lambda x: x[0, 0].size(0), OutOfRangeError, "size: dim=0 for a tensor without dimensions"),
    "stride": (lambda x: x.stride(5), OutOfRangeError, "stride: dim=5"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_clear_words(name: str, device: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        call(gpunet.arange(6.0).reshape(2, 3))


def test_types_by_name(device: str) -> None:
    x = gpunet.tensor([1.5, 2.0])
    where = "" if device == "cpu" else f"{x.device.type}."
    for dtype, name in (("float32", "Float"), ("float16", "Half"), ("int64", "Long"), ("bool", "Bool"), ("uint8", "Byte")):
        assert x.to(dtype).type() == f"torch.{where}{name}Tensor"
    assert x.type(gpunet.LongTensor).tolist() == [1, 2] and x.type("LongTensor").device == device
    assert x.type("torch.DoubleTensor").dtype == "float64" and x.type("torch.DoubleTensor").device == "cpu"


def test_queries(device: str) -> None:
    x = gpunet.zeros(2, 3, dtype=gpunet.int16)
    assert x.element_size() == x.itemsize == 2 and x.nbytes == 12 and x.numel() == 6 and x.ndimension() == x.dim() == 2
    assert x.stride() == (3, 1) and x.T.stride() == (1, 3) and x.T.stride(dim=-1) == 3 and x.size(dim=-1) == 3
    assert x[1:].data_ptr() - x.data_ptr() == 6 and x.data_ptr() != x.clone().data_ptr()
    assert x.is_contiguous(memory_format=gpunet.contiguous_format) and not x.T.is_contiguous()
    assert x.layout is gpunet.strided and not x.is_sparse and not x.is_complex() and x.is_signed() and not x.byte().is_signed()
    assert x.is_cpu == (device == "cpu") and x.get_device() == (-1 if x.device.index is None else x.device.index)
    assert repr(gpunet.channels_last) == "gpunet.channels_last"


@pytest.mark.parametrize("name", ["long", "int", "short", "char", "byte", "bool"])
def test_the_graph_ends_at_integers(name: str, device: str) -> None:
    x = gpunet.tensor([1.0, 2.5], requires_grad=True)
    dtype = getattr(x, name)().dtype
    for y in (getattr(x, name)(), x.to(dtype), x.type(dtype), x.type_as(gpunet.zeros(1, dtype=dtype)), (x * x).to(dtype)):
        assert not y.requires_grad and y.grad_fn is None
        x.grad = None
        (y.float() * x).sum().backward()
        assert x.grad.tolist() == y.tolist()
    assert x.double().requires_grad and x.half().requires_grad
