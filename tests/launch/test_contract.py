"""The dtypes and layouts that a kernel declares: T, its accumulator A, fixed dtypes; contiguous, rows, strided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd import make_tensor
from gpunet.backend import dtypes
from gpunet.errors import LaunchError
from gpunet.launch.contract import A, Contract, Parameter, T
from gpunet.ops.linear import linear_backward_weight
from gpunet.ops.special import erf_forward
from tests.launch.test_launch_errors import DEVICES

CONTRACT = Contract(
    "probe",
    [
        Parameter("scale", A, "contiguous", True),
        Parameter("y", T, "contiguous", False),
        Parameter("x", T, "rows", False),
        Parameter("w", T, "strided", False),
        Parameter("mask", numpy.dtype("bool"), "contiguous", True),
    ],
)
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda a: a.copy(),
    "rows": lambda a: numpy.concatenate([a, a], axis=1)[:, : a.shape[1]],
    "strided": lambda a: a.T.copy().T,
}


def arrays(dtype: Any, accumulator: Any = None, x: str = "rows", w: str = "strided", y: str = "contiguous") -> list[Any]:
    def make(layout: str) -> Any:
        return LAYOUTS[layout](numpy.ones((4, 3), dtype))

    scale = numpy.ones(1, accumulator or dtypes.accumulator(dtypes.as_dtype(dtype)))
    return [scale, make(y), make(x), make(w), numpy.ones(2, "bool")]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_valid_arrays(dtype: str) -> None:
    half = dtypes.as_dtype(dtype)
    for layout in LAYOUTS:
        given = arrays(half, w=layout)
        CONTRACT.check(given)
        CONTRACT.check([None, *given[1:4], None])
        assert CONTRACT.storage(given) == half
        # halves take the slow way: their twins need copies
        assert CONTRACT.is_valid_numpy(*given) == CONTRACT.is_valid_numpy(None, *given[1:]) == (half in dtypes.NATIVE)


@pytest.mark.parametrize(
    "given, message",
    [
        (arrays("float16", "float16"), "'scale' has dtype float16, expected float32"),
        (arrays("float32", "float64"), "'scale' has dtype float64, expected float32"),
        (arrays("float64", "float32"), "'scale' has dtype float32, expected float64"),
        (arrays("int32", "float32"), "'y' has dtype int32, expected a floating dtype"),
        (arrays("complex64", "float32"), "'y' has dtype complex64, expected a floating dtype"),
        ([*arrays("float16")[:2], *arrays("float32")[2:]], "'x' has dtype float32, expected float16"),
        ([*arrays("float32")[:4], numpy.ones(2, "int8")], "'mask' has dtype int8, expected bool"),
        (arrays("float32", y="rows"), r"'y' of shape \(4, 3\) is not C-contiguous; pass a contiguous copy"),
        (arrays("float16", x="strided"), r"'x' of shape \(4, 3\) has elements of a row that are not adjacent; pass a contig"),
        ([*arrays("float32")[:2], None, *arrays("float32")[3:]], "'x' is None, expected an array"),
    ],
)
def test_violations(given: list[Any], message: str) -> None:
    assert not CONTRACT.is_valid_numpy(*given)
    with pytest.raises(LaunchError, match=f"kernel probe: argument {message}"):
        CONTRACT.check(given)


def test_rows_may_have_any_outer_strides() -> None:
    rows = Parameter("x", T, "rows", False)
    x = numpy.zeros((4, 5, 6), "float32")
    repeated = numpy.broadcast_to(x[0], (7, 5, 6))
    for of in (x, repeated, x[:, ::-1], x[::2, :, 1:4], x[..., :1], x.transpose(1, 0, 2), x[0, 0], x[:0]):
        assert rows.has_layout(of)
    for of in (x.T, x[..., ::2], x[..., ::-1], x[0, 0, ::2]):
        assert not rows.has_layout(of)


@pytest.mark.parametrize("where", DEVICES)
def test_scale_of_halves_is_a_float32(where: str) -> None:
    """On every device; the emulator checks the pointers of a launch, too."""
    dw, db, dy, x = (gpunet.ones(*shape, dtype="bfloat16", device=where).array for shape in ((3, 2), (3,), (4, 3), (4, 2)))
    scale = gpunet.tensor([0.5], device=where)
    linear_backward_weight(dw, db, None, None, dy, x, scale.array)
    assert make_tensor(dw).tolist() == [[2.0, 2.0]] * 3 and make_tensor(db).tolist() == [2.0] * 3
    with pytest.raises(LaunchError, match="'scale' has dtype bfloat16, expected float32"):
        linear_backward_weight(dw, db, None, None, dy, x, scale.bfloat16().array)


def test_emulator_checks_halves() -> None:
    x = gpunet.ones(4, dtype="float16", device="emulated").array
    wrong = gpunet.ones(4, dtype="bfloat16", device="emulated").array
    geometry = erf_forward.launch_geometry((x, x), {})
    for first, second in ((x, wrong), (wrong, x)):
        with pytest.raises(LaunchError, match=f"'x' is {second.dtype} where the kernel declares {first.dtype}"):
            erf_forward.launch_as(geometry, (first, second))
