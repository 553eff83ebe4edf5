"""The launches of ``gpunet check-kernel``: the syntax of ``--arg``, and Python files with launches."""

from __future__ import annotations

import re
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources
from gpunet.errors import ArgumentError
from gpunet.tools import kernel_launches
from tests.tools.check_kernel_command import COPY, checked, in_temporary_folder, write  # noqa: F401  a fixture among them

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# ---- --arg ----------------------------------------------------------------------------------------------------------


def parsed(*texts: str, expression: str = "copy<float>", seed: int = 0) -> tuple[dict[str, Any], tuple[str, ...]]:
    return kernel_launches.parse(cuda_sources.splice(COPY), expression, texts, seed)


def test_contents() -> None:
    def x(text: str, expression: str = "copy<float>") -> Any:
        return parsed(f"x={text}", expression=expression)[0]["x"]

    numpy.save("saved.npy", numpy.array([1.0, 2.0], numpy.float32))
    assert x("[2,3]").shape == (2, 3) and x("[2,3]").dtype == numpy.float32 and x("[]").shape == ()
    assert x("[2]:arange", "copy<double>").dtype == numpy.float64 and x("int32[4]").dtype == numpy.int32
    assert (
        x("[2]:zeros").tolist() == [0, 0] and x("[2]:ones").tolist() == [1, 1] and x("[3]:arange").tolist() == [0, 1, 2]
    )
    assert x("[2]:-2.5").tolist() == [-2.5, -2.5] and x("[2]:saved.npy").tolist() == x("saved.npy").tolist() == [1, 2]
    assert set(x("[99]:-1..2", "copy<int>").tolist()) == {-1, 0, 1}
    assert -0.5 <= x("[99]:-0.5..1e-1").min() < x("[99]:-0.5..1e-1").max() < 0.1
    assert (x("[9]") == x("[9]:random")).all() and (x("[9]") != parsed("x=[9]", seed=1)[0]["x"]).any()
    assert x("null") is None
    assert set(x("[99]", "copy<bool>").tolist()) == {False, True}
    with pytest.raises(ArgumentError, match=r"the file contains float32\[2\], expected float32\[3\]"):
        x("[3]:saved.npy")


def test_outputs_with_contents_are_inout() -> None:
    values, inout = parsed("y=[4]", "x=[4]:ones", "n=0x10")
    assert inout == () and values["n"] == 16 and type(values["n"]) is numpy.int32
    assert parsed("y=[4]:zeros")[1] == ("y",)


# ---- launches from a file -------------------------------------------------------------------------------------------


def test_launches_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "import numpy\ndef launches():\n  for n in (5, 60):\n    x = numpy.arange(n, dtype=numpy.float64)\n"
        "    yield dict(entry='copy<double>', grid=2, block=32, arguments=dict(y=numpy.empty(n), x=x, n=n),\n"
        "               expected=dict(y=x + (n == 60) * (x == 7)))\n", "l.py"
    )  # fmt: skip
    code, out, _ = checked(capsys, "copy.cu", "--launch", "l.py")
    assert code == 1
    clean, _, wrong, *_ = out.splitlines()
    assert clean.endswith("no errors found")
    assert wrong.startswith("copy.cu:2: wrong result: y[7] is 7.0, expected 8.0 (1 of 60 elements differ")


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\ny = 1 / 0\n", "l.py:2: ZeroDivisionError"),
        ("x = 1\n", "the file has no function launches"),
        ("def launches():\n  return [dict(entri='copy')]\n", "unexpected keyword argument 'entri'"),
        ("def launches():\n  return []\n", "returned no launches"),
    ],
)
def test_invalid_launch_files(capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    write(text, "l.py")
    code, _, err = checked(capsys, "copy.cu", "--launch", "l.py")
    assert code == 2 and re.search(message, err)
