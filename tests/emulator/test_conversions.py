"""Conversions with a rounding mode in their names, against exact arithmetic; on a GPU, too."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler, cuda_sources
from gpunet.backend.devices import Device, move
from tests.conftest import available_devices

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

DTYPES = {"float": "f4", "double": "f8", "int": "i4", "uint": "u4", "ll": "i8", "ull": "u8"}
C_NAMES = {"ll": "long long", "uint": "unsigned int", "ull": "unsigned long long"}
PAIRS = [
    *((a, b) for a in ("float", "double") for b in ("int", "uint", "ll", "ull")),
    ("int", "float"), ("uint", "float"), ("ll", "float"), ("ull", "float"), ("ll", "double"), ("ull", "double"),
    ("double", "float"),
]  # fmt: skip
NUMBERS = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49, 7.75, -7.75, 2.0**31, -(2.0**31), 2.0**31 - 1, 2.0**32, 2.0**32 - 1, -1.0,
           2.0**63, -(2.0**63), 2.0**64, 2.0**63 - 2**10, 1e20, -1e20, math.inf, -math.inf, math.nan, 2.0**24 + 1, 1e-300,
           -1e-300, 1.1, -1.1]  # fmt: skip
INTEGERS = [0, 1, 3, 2**24 + 1, 2**24 + 3, 2**31 - 1, 2**32 - 1, 2**53 + 1, 2**53 + 3, 2**63 - 1, 2**64 - 1, 2**40 + 2**15,
            -(2**24) - 1, -(2**24) - 3, -(2**31), -(2**53) - 1, -(2**63)]  # fmt: skip
WHOLE = {"rn": round, "rz": math.trunc, "ru": math.ceil, "rd": math.floor}  # of a Fraction; round is to even


def to_integer(value: float, source: str, target: str, mode: str) -> int:
    limits = numpy.iinfo(DTYPES[target])
    if math.isnan(value):
        highest = 1 << (limits.bits - 1)
        return 0 if source == "float" and limits.bits == 32 else -highest if limits.min else highest
    if math.isinf(value):
        return int(limits.max if value > 0 else limits.min)
    return int(min(max(WHOLE[mode](Fraction(value)), limits.min), limits.max))


def to_floating(value: Any, target: str, mode: str) -> Any:
    dtype = numpy.dtype(DTYPES[target]).type
    with numpy.errstate(over="ignore"):
        nearest = dtype(value)
    if isinstance(value, float) and not math.isfinite(value):
        return nearest
    down = mode == "rd" or (mode == "rz" and value > 0)
    up = mode == "ru" or (mode == "rz" and value < 0)
    exact = Fraction(value)
    found = Fraction(float(nearest)) if math.isfinite(nearest) else math.copysign(math.inf, nearest)
    if down and found > exact:
        return numpy.nextafter(nearest, dtype(-math.inf))
    return numpy.nextafter(nearest, dtype(math.inf)) if up and found < exact else nearest


@pytest.mark.parametrize("place", [name for name in available_devices() if name != "cpu"])
@pytest.mark.parametrize("mode", WHOLE)
def test_conversions_round_and_saturate(mode: str, place: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ""
    for source, target in PAIRS:
        types = C_NAMES.get(target, target), C_NAMES.get(source, source)
        text += f'extern "C" __global__ void from_{source}_to_{target}({types[0]}* to, const {types[1]}* from) {{\n'
        text += f"  to[threadIdx.x] = __{source}2{target}_{mode}(from[threadIdx.x]);\n}}\n"
    (tmp_path / "conversions.cu").write_text(text)
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    monkeypatch.setattr(compiler, "_functions", {})
    for source, target in PAIRS:
        dtype = numpy.dtype(DTYPES[source])
        if dtype.kind == "f":
            with numpy.errstate(over="ignore"):
                given = numpy.array(NUMBERS, dtype)
        else:
            limits = numpy.iinfo(dtype)
            given = numpy.array([n for n in INTEGERS if limits.min <= n <= limits.max], dtype)
        values = given.tolist()
        if DTYPES[target][0] == "f":
            expected = numpy.array([to_floating(value, target, mode) for value in values])
        else:
            expected = numpy.array([to_integer(value, source, target, mode) for value in values], DTYPES[target])
        found = move(numpy.zeros(len(given), DTYPES[target]), Device(place))
        function = compiler.function("conversions.cu", f"from_{source}_to_{target}", Device(place))
        function((1,), (len(given),), (found, move(given, Device(place))), 0)
        numpy.testing.assert_array_equal(move(found, Device("cpu")), expected, f"{source} to {target}")
