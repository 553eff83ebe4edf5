"""Run the CUDA source of every kernel on the device "emulated", on all cases of ``gpunet.tools.kernel_cases``.

Check mode compares each launch with its NumPy twin and detects races, accesses out of bounds, reads of uninitialised
shared memory, divergent barriers and writes to inputs.  Fast mode runs each launch under every schedule: the bits must
not depend on the order of threads and blocks.
"""

from __future__ import annotations

import numpy
import pytest

import gpunet
from gpunet import emulator
from gpunet.backend import compiler
from gpunet.backend.devices import Device, EmulatedArray
from gpunet.errors import DeviceError, LaunchError
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.activations import activation_backward
from gpunet.ops.attention import attention_backward, attention_forward
from gpunet.ops.batch_norm import batch_norm_apply
from gpunet.ops.clip import gradient_norm
from gpunet.ops.convolution import conv2d_backward_input, conv2d_backward_weight, conv2d_forward
from gpunet.ops.cross_entropy import cross_entropy_labels, cross_entropy_soft
from gpunet.ops.linear import linear_backward_input, linear_backward_weight, linear_forward
from gpunet.ops.linear_loss import linear_forward_loss
from gpunet.ops.matmul import matmul_forward
from gpunet.ops.normalization import group_norm_backward_input, group_norm_forward
from gpunet.ops.small_net import small_net_steps
from gpunet.ops.weight_gradients import linear_backward_weights
from gpunet.optim.adam import adam_step
from gpunet.tools import kernel_cases, selftest
from tests.backend.test_cuda_sources import _geometries

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
every_kernel = pytest.mark.parametrize("name", list(KERNELS))
EMULATED = Device("emulated")


@every_kernel
def test_cases_choose_every_specialisation(name: str) -> None:
    kernel = KERNELS[name]
    found = {case.expression() for case in kernel_cases.cases(kernel)}
    assert {expression for expression, _ in _geometries(kernel)} <= found


@every_kernel
def test_fast_contract_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid NumPy arrays reach the twin without a call of ``check``; for an invalid one, ``check`` raises."""
    kernel, launched = KERNELS[name], []
    case = [case for case in kernel_cases.cases(kernel) if case.floating in ("float32", "float64")][-1]
    arrays = case.on_cpu()
    monkeypatch.setattr(kernel, "twin", lambda *arrays, **options: launched.append(arrays))
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "check", lambda arrays: pytest.fail("the fast check rejected valid arrays"))
        kernel(*arrays, **case.options)
    assert len(launched) == 1
    for place, array in enumerate(arrays):
        many = isinstance(array, list)
        valid = array[-1] if many else array
        if valid is None:
            continue
        for wrong in (valid.astype("complex64"), numpy.stack([valid, valid], -1)[..., 0]):
            if wrong.dtype == "complex64" or (valid.size > 1 and kernel.contract.parameters[place].layout != "strided"):
                with pytest.raises(LaunchError, match=kernel.name):
                    kernel(*arrays[:place], [*array[:-1], wrong] if many else wrong, *arrays[place + 1 :], **case.options)
    assert len(launched) == 1


#: Kernels whose cases take more than five seconds in check mode.
_SLOW = (
    linear_forward, linear_backward_input, linear_backward_weight, matmul_forward, cross_entropy_labels, cross_entropy_soft,
    adam_step, conv2d_forward, conv2d_backward_input, conv2d_backward_weight, group_norm_forward, group_norm_backward_input,
    batch_norm_apply, linear_backward_weights, linear_forward_loss, small_net_steps, attention_forward, attention_backward,
    gradient_norm,
)  # fmt: skip
every_kernel_in_time = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive) if k in _SLOW else name for name, k in KERNELS.items()]
)


@needs_compiler
@every_kernel_in_time
def test_source_matches_the_twin_in_check_mode(name: str) -> None:
    with emulator.check():
        row = selftest.check_kernel(KERNELS[name], EMULATED)
    assert row.passed, selftest.describe(row)


@needs_compiler
@pytest.mark.parametrize("kernel", _SLOW, ids=lambda kernel: kernel.name)
def test_one_case_of_a_slow_kernel_in_check_mode(kernel: Kernel) -> None:
    cases = [case for case in kernel_cases.cases(kernel, floating=("float32",)) if case.twin is None]
    cases.sort(key=lambda case: sum(a.size for a in case.on_cpu() if isinstance(a, numpy.ndarray)))
    with emulator.check():
        row = selftest.check_kernel(kernel, EMULATED, [cases[len(cases) // 3]])
    assert row.passed, selftest.describe(row)


@needs_compiler
@every_kernel_in_time
def test_schedules_do_not_change_the_bits(name: str) -> None:
    """Nor do the completion orders of asynchronous copies."""
    kernel = KERNELS[name]
    for case in kernel_cases.cases(kernel):
        bits = set()
        for completion in emulator.COMPLETIONS:
            for schedule in emulator.SCHEDULES:
                placed = selftest._Placed(case, EMULATED, 0)
                with emulator.check(False, schedule=schedule, completion=completion, seed=5):
                    case.launch(placed.arrays)
                bits.add(b"".join(result.tobytes() for _, result in placed.read()))
            counts = compiler.function(kernel.file, case.expression(), EMULATED).counts
            if counts is None or not counts.transfers:
                break
        assert len(bits) == 1, f"{case}: the bits depend on the schedule"


@needs_compiler
def test_activation_backward_in_place() -> None:
    dy, saved = numpy.linspace(-1, 1, 1030), numpy.linspace(0, 1, 1030)
    array, residual = (gpunet.backend.devices.move(a, EMULATED) for a in (dy, saved))
    with emulator.check():
        activation_backward(array, array, residual, activation="sigmoid", alpha=0.0)
    numpy.testing.assert_allclose(array.get(), dy * saved * (1 - saved), rtol=1e-15, atol=1e-15)


# ---- the device -------------------------------------------------------------------------------------------------------


def test_device_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_DEVICE", "emulated")
    x = gpunet.tensor([1.0, 2.0])
    assert x.device == EMULATED == "emulated" and type(x.array) is EmulatedArray and not x.is_cuda
    assert x.cpu().device == "cpu" and x.cpu().to("emulated").device == EMULATED
    assert "device='emulated'" in repr(x) and "device" not in repr(x.cpu())
    with pytest.raises(DeviceError, match="'emulated:1'"):
        Device("emulated:1")


def test_mixing_devices_raises() -> None:
    emulated, host = gpunet.tensor([1.0, 2.0], device="emulated"), gpunet.tensor([1.0, 2.0])
    with pytest.raises(DeviceError, match=r"\.cpu\(\)"):
        emulated.numpy()
    with pytest.raises(DeviceError, match="emulated"):
        emulated + host
    for mix in (
        lambda: emulated.array + host.array,
        lambda: numpy.add(host.array, 1.0, out=emulated.array) + host.array,
        lambda: numpy.concatenate([emulated.array, host.array]),
        lambda: emulated.array.__setitem__(0, host.array[:1]),
    ):
        with pytest.raises(DeviceError, match="move it there first"):
            mix()
    with pytest.raises(LaunchError, match="ndarray"):
        activation_backward(emulated.array, host.array, emulated.array, activation="relu", alpha=0.0)


def test_results_stay_on_the_device() -> None:
    array = gpunet.ones(2, 3, device="emulated").array
    xp = gpunet.backend.devices.module(array)
    for result in (
        array.sum(), array[0, 1], array[None, 0], array.T, array > 0, xp.argmax(array), xp.arange(3), xp.asarray(numpy.ones(2)),
        numpy.where(array > 0, array, 0), xp.unique(array, return_counts=True)[1], array.reshape(-1).base,
    ):  # fmt: skip
        assert type(result) is EmulatedArray
    array[0, 1][...] = 5.0
    assert array.get()[0, 1] == 5.0 and type(array.get()) is numpy.ndarray
    assert array.base is None and array[0].base is array and xp.reshape(array, -1).base is array


# ---- training ---------------------------------------------------------------------------------------------------------


@needs_compiler
def test_an_epoch_of_digits_gives_the_losses_of_the_cpu() -> None:
    """All of the CUDA device's Python code: losses per step equal the CPU's to 1e-5, and check mode gives the same bits."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = (digits.data / 16).astype("float32"), digits.target

    def losses(name: str) -> numpy.ndarray:
        gpunet.manual_seed(0)
        model = gpunet.nn.Sequential(
            gpunet.nn.Linear(64, 128), gpunet.nn.ReLU(), gpunet.nn.Linear(128, 64), gpunet.nn.GELU(), gpunet.nn.Linear(64, 10)
        ).to(name)
        optimizer, values = gpunet.optim.Adam(model.parameters(), lr=1e-3), []
        for start in range(0, len(images), 64):
            x, y = (gpunet.tensor(a[start : start + 64], device=name) for a in (images, labels))
            optimizer.zero_grad()
            loss = gpunet.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        return numpy.array(values)

    expected, fast = losses("cpu"), losses("emulated")
    with emulator.check():
        checked = losses("emulated")
    numpy.testing.assert_allclose(fast, expected, rtol=1e-5)
    assert checked.tolist() == fast.tolist()
