"""``gpunet selftest``: its output, and the errors that it must find in planted wrong kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from gpunet.backend import devices
from gpunet.cli.main import main
from gpunet.errors import ArgumentError, LaunchError
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.launch.random import random_integers, random_normal
from gpunet.ops.dropout import dropout_apply
from gpunet.ops.linear import linear_forward
from gpunet.ops.special import erf_forward
from gpunet.optim.adam import adam_step
from gpunet.tools import kernel_cases, selftest


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel, Callable[..., None]], Kernel]:
    """``replace(kernel, wrong)``: launches of a kernel call ``wrong(twin, *arrays, **options)`` instead of the twin."""

    def replace_launch(kernel: Kernel, wrong: Callable[..., None]) -> Kernel:
        def twin(*arrays: Any, **options: Any) -> None:
            kernel.run_twin(arrays, options)

        monkeypatch.setattr(kernel, "launch", lambda arrays, options: wrong(twin, *arrays, **options), raising=False)
        return kernel

    return replace_launch


@pytest.mark.exhaustive
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "device cpu" and err == ""
    rows = {line.split()[0]: line for line in lines if line.endswith(" ok") and "eps" in line}
    assert set(rows) == set(KERNELS)
    run = {c.expression() for c in kernel_cases.cases(linear_forward) if c.twin is None}  # not those for GPUs alone
    assert rows[linear_forward.name].split()[1] == str(len(run))
    assert "0.00 eps  yes" in rows[random_normal.name]
    assert lines[-1].startswith(f"{len(KERNELS)} kernels, ") and lines[-1].endswith("all ok")


def test_auto_without_cuda_reports_the_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status = devices.CudaStatus("not installed", "CuPy is not installed", "install it")
    monkeypatch.setattr(devices, "cuda_status", lambda: status)
    assert main(["selftest", "--kernels", "erf_*"]) == 0
    assert capsys.readouterr().out.startswith(
        "device cpu; CUDA is not ready (CuPy is not installed), so the NumPy twins"
    )


def test_kernels_option_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "cpu", "--kernels", "random_u*, erf_forward", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu" and found["passed"] is True
    assert [row["kernel"] for row in found["kernels"]] == ["erf_forward", "random_uniform"]
    assert found["kernels"][0]["specialisations"] == 4 and found["kernels"][0]["same_bits"] is True


def test_wrong_kernel_fails(replace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(twin: Any, y: Any, x: Any, mask: Any, **options: Any) -> None:
        twin(y, x, mask, **options)
        if y.size > 64 and y.dtype == numpy.float32:
            y *= 1 + 1e-5

    replace(dropout_apply, wrong)
    assert main(["selftest", "--device", "cpu", "--kernels", dropout_apply.name]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and "dropout_apply<float>, (65,): y is wrong by" in out and "<double>," not in out
    assert out.splitlines()[-1].endswith("1 FAILED: dropout_apply")
    assert main(["selftest", "--device", "cpu", "--kernels", dropout_apply.name, "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["kernels"]
    assert row["passed"] is False and len(row["problems"]) == 11


def _skips_last_element(twin: Any, y: Any, *arrays: Any, **options: Any) -> None:
    before = y[-1:].copy()
    twin(y, *arrays, **options)
    y[-1:] = before


def _depends_on_old_contents(twin: Any, y: Any, *arrays: Any, **options: Any) -> None:
    before = y.copy()
    twin(y, *arrays, **options)
    y += numpy.where(before == before, before, 0) * 1e-9


def _changes_input(twin: Any, y: Any, x: Any) -> None:
    twin(y, x)
    x *= 2


def _writes_out_of_bounds(twin: Any, y: Any, x: Any) -> None:
    twin(y, x)
    numpy.lib.stride_tricks.as_strided(y, (y.size + 1,))[-1] = 0


def _raises(twin: Any, *arrays: Any) -> None:
    raise LaunchError("block of 2000 threads")


def _flips_a_bit(twin: Any, out: Any, *arrays: Any, **options: Any) -> None:
    twin(out, *arrays, **options)
    out.view(numpy.uint8)[:1] ^= 1


@pytest.mark.parametrize(
    "kernel, wrong, finding",
    [
        (erf_forward, _skips_last_element, "y is wrong by inf eps"),
        (random_integers, _skips_last_element, "a second launch produces different bits"),
        (erf_forward, _depends_on_old_contents, "a second launch produces different bits"),
        (erf_forward, _changes_input, "changes its input 'x'"),
        (erf_forward, _writes_out_of_bounds, "writes out of bounds of 'y'"),
        (erf_forward, _raises, "block of 2000 threads"),
        (random_normal, _flips_a_bit, "out is wrong by inf eps"),
    ],
)
def test_planted_errors_are_found(kernel: Kernel, wrong: Any, finding: str, replace: Any) -> None:
    row = selftest.check_kernel(replace(kernel, wrong), devices.CPU)
    assert not row.passed
    assert any(finding in problem for problem in row.problems), row.problems[:3]


def test_missing_device_and_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "tpu"]) == 2
    assert "unknown device 'tpu'" in capsys.readouterr().err
    if not devices.cuda_status().ready:
        assert main(["selftest", "--device", "cuda"]) == 2
        assert "CUDA was requested" in capsys.readouterr().err
    assert main(["selftest", "--device", "cpu", "--kernels", "winograd*"]) == 2
    assert "no kernel matches 'winograd*'; expected one of activation_backward" in capsys.readouterr().err


def test_kernel_without_cases_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erf_forward, "case_makers", [])
    with pytest.raises(ArgumentError, match=r"erf_forward has no cases.*gpunet/ops/cases"):
        selftest.check_kernel(erf_forward, devices.CPU)


@pytest.mark.parametrize("name", KERNELS)
def test_error_scales_are_bounded(name: str) -> None:
    """The sensitivity to the inputs may raise the scale above the largest value, but only by a bounded factor."""
    with numpy.errstate(all="ignore"):
        for case in kernel_cases.cases(KERNELS[name]):
            reference = selftest.Reference(case)
            for scale, result in zip(reference.scales, reference._results):
                # the derivative of |x - y| jumps at x = y; exp of logits that are hundreds apart multiplies the relative
                # error of its argument by hundreds
                bound = 2**20 if "absolute" in case.label and "ties" in case.label else 1024 if "far apart" in case.label else 64
                assert scale <= bound * max(reference._largest(result), 1.0), str(case)


def test_cases_are_deterministic() -> None:
    for first, second in zip(kernel_cases.cases(adam_step), kernel_cases.cases(adam_step)):
        assert str(first) == str(second)
        assert all(
            a.tobytes() == b.tobytes()
            for x, y in zip(first.on_cpu(), second.on_cpu())
            if x is not None
            for a, b in zip(x if isinstance(x, list) else [x], y if isinstance(y, list) else [y])
        )
