"""Dtypes: their names, categories, conversions, and bfloat16 without the package that defines it."""

from __future__ import annotations

import sys
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import dtypes
from gpunet.errors import DtypeError, MissingDependencyError

#: PyTorch's names that mean the same dtype.
ALIASES = {
    "float16": "half", "float32": "float", "float64": "double", "int16": "short", "int32": "int", "int64": "long",
    "complex64": "cfloat", "complex128": "cdouble",
}  # fmt: skip
NAMES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
#: dtype -> the method of a tensor that converts to it
METHODS = {"uint8": "byte", "int8": "char", **ALIASES, "bool": "bool", "bfloat16": "bfloat16"}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    dtype = getattr(gpunet, name)
    assert isinstance(dtype, numpy.dtype) and dtype.name == name and dtypes.as_dtype(name) is dtype
    assert name not in ALIASES or getattr(gpunet, ALIASES[name]) is dtype
    assert gpunet.zeros(2, dtype=name).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_categories(name: str, torch: Any) -> None:
    dtype, theirs = dtypes.as_dtype(name), getattr(torch, name)
    assert dtypes.is_floating(dtype) == theirs.is_floating_point and dtypes.is_complex(dtype) == theirs.is_complex
    assert str(theirs.to_real()) == f"torch.{dtypes.to_real(dtype)}" and dtypes.is_inexact(dtype) == ("int" not in name != "bool")
    assert dtypes.is_boolean(dtype) == (name == "bool") and dtypes.is_integer(dtype) == ("int" in name)
    assert dtypes.is_numeric(dtype) and dtypes.is_half(dtype) == (name in ("float16", "bfloat16"))
    assert dtypes.accumulator(dtype) == (gpunet.float32 if dtypes.is_half(dtype) else dtype)


def test_other_dtypes_are_not_numeric() -> None:
    for dtype in ("complex256", "U4", "V2", [("x", "f4")], "M8[s]"):
        assert not dtypes.is_numeric(numpy.dtype(dtype)) and not dtypes.is_floating(numpy.dtype(dtype))
    with pytest.raises(DtypeError, match="'float31' is not a dtype"):
        gpunet.zeros(2, dtype="float31")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_limits(name: str, torch: Any) -> None:
    ours, theirs = gpunet.finfo(name), torch.finfo(getattr(torch, name))
    assert [float(getattr(ours, key)) for key in ("eps", "max", "min", "tiny")] == [theirs.eps, theirs.max, theirs.min, theirs.tiny]
    assert ours.bits == theirs.bits and 2.0 ** (1 - dtypes.significand_bits(dtypes.as_dtype(name))) == theirs.eps
    with pytest.raises(DtypeError, match="finfo of int64"):
        gpunet.finfo("int64")


@pytest.mark.parametrize("name", METHODS)
def test_methods_convert(name: str, device: str) -> None:
    x = gpunet.tensor([0.0, 1.0, 2.5])
    converted = getattr(x, METHODS[name])()
    assert converted.dtype == dtypes.as_dtype(name) and converted.tolist() == x.to(name).tolist()
    assert converted.tolist() == ([False, True, True] if name == "bool" else [0, 1, 2] if "int" in name else [0, 1, 2.5])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_round_as_in_torch(name: str, device: str, torch: Any) -> None:
    """To nearest, ties to even; overflow to infinity; subnormal numbers; the sign of zero; NaN."""
    generator = numpy.random.default_rng(0)
    bits = generator.integers(0, 2**32, 100_000, dtype=numpy.uint32)
    bits[:50_000] &= numpy.uint32(0xFFFF8000)  # ties of both formats are frequent
    bits[:50_000] = numpy.where(generator.random(50_000) < 0.5, bits[:50_000] & 0x7FFFFFFF, bits[:50_000])
    x = bits.view(numpy.float32)
    half = gpunet.tensor(x).to(name)
    expected = torch.from_numpy(x).to(getattr(torch, name))
    assert half.is_floating_point() and half.dtype == dtypes.as_dtype(name)
    numpy.testing.assert_array_equal(half.float().cpu().numpy(), expected.float().numpy())


def test_bfloat16_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.delitem(vars(dtypes), "bfloat16", raising=False)
    monkeypatch.delitem(vars(gpunet), "bfloat16", raising=False)
    for use in (lambda: gpunet.bfloat16, lambda: gpunet.ones(2).bfloat16(), lambda: gpunet.ones(2).to("bfloat16")):
        with pytest.raises(MissingDependencyError, match=r"bfloat16 needs .* pip install 'gpunet\[bfloat16\]'"):
            use()
    monkeypatch.setattr(dtypes, "has_bfloat16", lambda: False)
    assert "bfloat16" not in gpunet.__all__ and "float16" in gpunet.__all__
