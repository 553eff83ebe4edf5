"""Copies under the names of views, uninitialised tensors with strides, and methods that concern memory, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GpunetError, OutOfRangeError, ShapeError
from tests.ops.beside_torch import check_complex, complex_normal

#: The name of a view -> its arguments, for a tensor of shape (2, 1, 6).
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "alias": (), "as_strided": ((2, 3), (6, 2), 1), "diagonal": (1, 0, 2), "expand": ((2, 4, 6),), "narrow": (2, 1, 3),
    "permute": ((2, 0, 1),), "select": (2, -1), "slice": (2, 1, 6, 2), "split": (4, 2), "split_with_sizes": ([1, 5], 2),
    "squeeze": (1,), "transpose": (0, 2), "unbind": (0,), "unfold": (2, 3, 2), "unsqueeze": (1,), "view": ((3, 4),),
}  # fmt: skip


def test_every_copy_is_tested() -> None:
    assert {f"{name}_copy" for name in (*ARGUMENTS, "t", "detach")} == {n for n in gpunet.ops.copies.__all__}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_values_and_derivatives(name: str, dtype: str, torch: Any, device: str) -> None:
    if dtype == "complex128" and name in ("select", "slice"):
        pytest.skip("PyTorch's have no gradient")

    def call(t: Any, x: Any) -> Any:
        result = getattr(t, f"{name}_copy")(x, *ARGUMENTS[name])
        return result[1] * 1.0 if isinstance(result, (tuple, list)) else result * 1.0

    check_complex(call, [complex_normal(0, 2, 1, 6, dtype=dtype)], torch, device)


@pytest.mark.parametrize("name", [*ARGUMENTS, "detach"])
def test_results_share_no_memory(name: str, device: str) -> None:
    x = gpunet.ones(2, 1, 6, device=device)
    result = getattr(gpunet, f"{name}_copy")(x, *ARGUMENTS.get(name, ()))
    for part in result if isinstance(result, tuple) else (result,):
        part.zero_()
    assert (x == 1.0).all()


def test_t_detach_and_out(device: str) -> None:
    x = gpunet.ones(2, 3, device=device, requires_grad=True)
    assert gpunet.t_copy(x).shape == (3, 2) and gpunet.t_copy(x).requires_grad
    assert not gpunet.detach_copy(x).requires_grad
    out = gpunet.zeros(3, 2, device=device)
    assert gpunet.t_copy(x.detach(), out=out) is out and (out == 1.0).all()
    assert x.detach().narrow_copy(1, 0, 2).shape == (2, 2)
    assert gpunet.view_copy(x.detach(), gpunet.int32).dtype == gpunet.int32


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (OutOfRangeError, "transpose_copy: dim1=5", lambda x: gpunet.transpose_copy(x, 0, 5)),
        (ArgumentError, "slice_copy: step=0", lambda x: gpunet.slice_copy(x, 0, 0, 1, 0)),
        (ShapeError, "view_copy: ", lambda x: gpunet.view_copy(x, (5,))),
        (GpunetError, "narrow_copy: ", lambda x: x.narrow_copy(0, 1, 9)),
    ],
)
def test_errors_name_the_copy(error: type[Exception], message: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call(gpunet.ones(2, 3))


# ---- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride"), [((2, 3), (1, 2)), ((2, 3), (5, 1)), ((), ()), ((2, 0), (1, 1)), ((3, 2), (0, 1))])
def test_empty_strided(size: Any, stride: Any, torch: Any, device: str) -> None:
    for make in (lambda t, **o: t.empty_strided(size, stride, **o), lambda t, **o: t.ones(1, **o).new_empty_strided(size, stride)):
        ours, theirs = make(gpunet, device=device), make(torch)
        assert tuple(ours.shape) == tuple(theirs.shape) and ours.device == device
        assert 0 in size or ours.stride() == theirs.stride()
    x = gpunet.empty_strided((2, 3), (1, 2), dtype=gpunet.float64, device=device)
    x.copy_(gpunet.arange(6.0, device=device).reshape(2, 3))
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and x.dtype == gpunet.float64


def test_empty_permuted(torch: Any) -> None:
    for size, order in (((2, 3, 4), (0, 2, 1)), ((2, 3, 4), (2, 1, 0)), ((5,), (0,))):
        assert gpunet.empty_permuted(size, order).stride() == torch.empty_permuted(size, order).stride()
    with pytest.raises(ArgumentError, match="empty_permuted: physical_layout=.0, 0.; expected each of the 2 dimensions once"):
        gpunet.empty_permuted((2, 3), (0, 0))
    with pytest.raises(ShapeError, match="empty_strided: size=.2,., stride=.1, 1."):
        gpunet.empty_strided((2,), (1, 1))
    with pytest.raises(ArgumentError, match="empty_strided: stride=.-1,."):
        gpunet.empty_strided((2,), (-1,))


def test_queries_of_memory(torch: Any) -> None:
    for make in (lambda t: t.zeros(2, 3), lambda t: t.zeros(2, 3).t(), lambda t: t.zeros(2, 3, 4).permute(1, 2, 0)):
        assert make(gpunet).dim_order() == tuple(make(torch).dim_order())
    x = gpunet.zeros(4)
    assert x.is_set_to(x.view(4)) and not x.is_set_to(x.view(2, 2)) and not x.is_set_to(x.clone())
    assert x.const_data_ptr() == x.data_ptr()
    assert not (x.is_meta or x.is_nested or x.is_inference() or x.volatile) and x.name is None and x.output_nr == 0
    assert gpunet.ones(3).requires_grad_().unbind()[0].output_nr == 0 and x.grad_dtype == gpunet.float32


def test_deprecated_resize(torch: Any) -> None:
    for t in (gpunet, torch):
        x = t.arange(6.0)
        with pytest.warns(UserWarning, match="deprecated"):
            y = x.resize(2, 3)
        with pytest.warns(UserWarning, match="deprecated"):
            assert x.resize_as(t.zeros(3, 2)).tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
        assert y.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.warns(UserWarning, match="deprecated"), pytest.raises(ShapeError, match="resize: size=.4,."):
        gpunet.ones(3).resize(4)


def test_fill(torch: Any, device: str) -> None:
    check_complex(lambda t, x, v: t.fill(x, v.sum()) + x * 0.5, [numpy.ones((2, 3)), numpy.ones(2)], torch, device)
    x = gpunet.zeros(2, dtype=gpunet.int64, device=device)
    assert gpunet.fill(x, 3).tolist() == [3, 3] and x.tolist() == [0, 0]
    with pytest.raises(ShapeError, match="^fill: value has shape"):
        gpunet.fill(x, gpunet.ones(2, dtype=gpunet.int64, device=device))


class Marked(gpunet.Tensor):
    """A subclass."""


def test_as_subclass_and_module_load() -> None:
    x = gpunet.ones(3, requires_grad=True)
    y = (x * 2).as_subclass(Marked)
    assert type(y) is Marked and y.requires_grad and y.tolist() == [2.0] * 3
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [8.0] * 3
    with pytest.raises(DtypeError, match="as_subclass: cls=<class 'int'>"):
        x.as_subclass(int)
    parameter, value = gpunet.nn.Parameter(gpunet.zeros(2)), gpunet.ones(2)
    assert parameter.module_load(value).tolist() == parameter.tolist() == [1.0, 1.0]
    assert parameter.module_load(value, assign=True).data_ptr() == value.data_ptr()
