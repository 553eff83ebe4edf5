"""The device "cuda" without a card: its Python to the end, with a stand-in for CuPy (fake_cupy.py says what that proves).

``pytest --device stand-in`` runs all tests that take a device this way; here is what only a card's path has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import cuda, emulator, nn
from gpunet.backend import compiler, devices
from gpunet.backend.devices import Device
from gpunet.cli.main import main
from gpunet.errors import DeviceError, LaunchError
from gpunet.launch import memory
from gpunet.launch.kernel import KERNELS
from gpunet.tools import info, selftest
from tests import fake_cupy
from tests.backend.test_cuda_sources import needs_nvrtc

needs_compilers = [pytest.mark.skipif(not emulator.available(), reason="g++ is not installed"), needs_nvrtc]


@pytest.fixture
def cupy() -> Iterator[ModuleType]:
    """A machine with two cards."""
    with fake_cupy.installed(cards=2) as module:
        yield module


# ---- recorded steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", [pytest.param(name, marks=needs_compilers) for name in ("cuda:0", "cuda:1")])
def test_a_captured_step_is_one_graph(cupy: ModuleType, card: str) -> None:
    def train(captured: bool) -> list[bytes]:
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)).to(card)
        optimizer = gpunet.optim.Adam(model.parameters(), lr=0.01)

        def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = gpunet.capture(step) if captured else step
        generator = numpy.random.default_rng(0)
        losses = []
        for number in range(6):
            x = gpunet.tensor(generator.normal(size=(5, 4)).astype("float32"), device=card)
            y = gpunet.tensor(generator.integers(0, 3, 5), device=card)
            if number == 3:
                optimizer.param_groups[0]["lr"] = 0.1
            losses.append(run(x, y).item())
        if captured:
            assert len(run.recordings) == 1
        return [numpy.float32(v).tobytes() for v in losses] + [p.cpu().detach().numpy().tobytes() for p in model.parameters()]

    assert train(True) == train(False)


# ---- what is found ------------------------------------------------------------------------------------------------------


def test_arrays_of_cupy_are_arguments_of_captured_steps(cupy: ModuleType) -> None:
    captured = gpunet.capture(lambda x: x.reshape(-1))
    for values in ([[1.0, 2.0]], [[3.0, 4.0]]):
        assert captured(cupy.asarray(numpy.array(values, numpy.float32))).tolist() == values[0]
    assert len(captured.recordings) == 1


def test_what_spoils_a_graph_is_told_not_that_it_is_spoilt(cupy: ModuleType) -> None:
    array = cupy.asarray(numpy.ones(3))
    with pytest.raises(RuntimeError, match="StreamCaptureUnsupported"):
        devices.record_cuda_graph(array.get, Device("cuda"))
    devices.record_cuda_graph(lambda: array.fill(2.0), Device("cuda"))()
    assert array.tolist() == [2.0, 2.0, 2.0]


def test_ready(cupy: ModuleType) -> None:
    assert gpunet.cuda_status() == ("ready", "CuPy 14.2.0, 2 GPU(s)", "") and cuda.is_available()
    assert devices.cupy() is cupy and cuda.device_count() == 2
    assert cuda.get_device_name() == "NVIDIA Stand-in" and cuda.get_device_capability("cuda:1") == (9, 0)
    assert Device("auto") == Device("cuda") == "cuda:0" and str(Device("cuda:1")) == "cuda:1"
    with pytest.raises(DeviceError, match="'cuda:2' does not exist: 2 GPU"):
        Device("cuda:2")


def test_no_card_and_no_driver() -> None:
    with fake_cupy.installed(cards=0):
        assert gpunet.cuda_status().state == "no GPU" and "CUDA_VISIBLE_DEVICES" in gpunet.cuda_status().advice
        assert not cuda.is_available() and cuda.device_count() == 0 and Device("auto") == "cpu"
        with pytest.raises(
            DeviceError, match=r"no NVIDIA GPU is visible\. To use it, check nvidia-smi .*Or use device='cpu'"
        ):
            gpunet.ones(2, device="cuda")
    with fake_cupy.installed(failure=RuntimeError("CUDA driver version is insufficient for CUDA runtime version")):
        assert gpunet.cuda_status().state == "no driver" and "is insufficient" in gpunet.cuda_status().detail
        with pytest.raises(DeviceError, match="no CUDA driver was found: .*is insufficient.*install NVIDIA's driver"):
            Device("cuda")
    assert gpunet.cuda_status().detail != "CuPy 14.2.0, 1 GPU(s)", "nothing of it is left"


def test_cupy_that_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise OSError('libnvrtc.so.13: cannot open')\n")
    program = "import gpunet; print(gpunet.cuda_status()); print(gpunet.device('auto'))"
    paths = [str(tmp_path), str(Path(gpunet.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths!r}; {program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "state='not installed'" in done.stdout and "cannot be imported: libnvrtc.so.13: cannot open" in done.stdout
    assert done.stdout.endswith("cpu\n")


def test_command_line(cupy: ModuleType, capsys: Any) -> None:
    found = info.collect()["cuda"]
    assert found["state"] == "ready" and found["driver"].endswith("for CUDA up to 13.0")
    assert found["gpus"][1] == {
        "device": "cuda:1", "name": "NVIDIA Stand-in", "memory": "141 GB", "compute capability": "9.0"
    }  # fmt: skip
    if emulator.available():
        assert main(["selftest", "--device", "cuda:1", "--kernels", "random_advance"]) == 0
        assert "device cuda:1 (NVIDIA Stand-in)" in capsys.readouterr().out


# ---- arrays -------------------------------------------------------------------------------------------------------------


def test_arrays_move_between_devices(cupy: ModuleType) -> None:
    x = gpunet.tensor([[1.0, 2.0], [3.0, 4.0]])
    route = x
    for name in ("cuda", "cuda:1", "emulated", "cuda:1", "cuda", "cpu"):
        route = route.to(name)
        assert route.device == name and route.tolist() == x.tolist() and route.is_cuda == name.startswith("cuda")
        assert devices.is_array(route.array)
    one = x.cuda(1)
    assert (
        one.to("cuda:1") is one
        and gpunet.as_tensor(one.array).device == "cuda:1"
        and nn.Linear(1, 1).cuda(1).weight.is_cuda
    )
    with pytest.raises(DeviceError, match=r"call \.cpu\(\)\.numpy\(\)"):
        one.numpy()
    with pytest.raises(DeviceError, match="cuda:1"):
        one + x.cuda()
    assert cupy.cuda.runtime.getDevice() == 0


def test_everything_works_on_a_card_that_is_not_current(cupy: ModuleType) -> None:
    """CuPy's functions refuse arrays of another card than the current one."""
    x = gpunet.tensor([[1.0, -2.0], [3.0, 4.0]], device="cuda:1", requires_grad=True)
    y = (x.exp().sum(0) + x[0] * 2.0).tanh().reshape(2, 1)
    y.sum().backward()
    found = [y, x.grad, x.detach().argmax(1), nn.functional.one_hot(gpunet.tensor([0, 1], device="cuda:1")), x.detach().zero_(),
             gpunet.where(x > 0, x, 0.0), gpunet.randperm(5, device="cuda:1"), gpunet.cat([x, x]), x.clamp(0, 1)]  # fmt: skip
    found += [gpunet.full((2,), 3, device="cuda:1"), x[x > 0], gpunet.arange(3, device="cuda:1"), x.std()]
    assert {str(t.device) for t in found} == {"cuda:1"}
    assert gpunet.allclose(y.cpu(), y.to("cuda").cpu()) and cupy.cuda.runtime.getDevice() == 0


def test_synchronize_and_streams(cupy: ModuleType) -> None:
    before = fake_cupy.Stream.synchronized
    cuda.synchronize("cuda:1")
    gpunet.synchronize("cpu")
    assert fake_cupy.Stream.synchronized == before + 1
    assert devices.stream_pointer(Device("cuda")) == 0 == devices.stream_pointer(Device("cpu"))
    array = gpunet.ones(3, device="cuda:1").array
    assert memory.ticket(array) is memory.ticket(array) is not memory.ticket(gpunet.ones(3, device="cuda").array)
    assert devices.pointer(array) == array.data.ptr


def test_random_streams_are_the_same_on_every_device(cupy: ModuleType) -> None:
    if not emulator.available():
        pytest.skip("g++ is not installed")
    generator = gpunet.Generator(3)
    drawn = [gpunet.randn(7, device=name, generator=generator).cpu().numpy() for name in ("cpu", "cuda", "cuda:1")]
    assert drawn[0].tobytes() == drawn[1].tobytes() == drawn[2].tobytes()
    where = Device("cuda:1")
    state = generator.get_state(where)
    again = gpunet.randn(7, device=where, generator=generator).tolist()
    generator.set_state(*state, where)
    assert gpunet.randn(7, device=where, generator=generator).tolist() == again


# ---- training -----------------------------------------------------------------------------------------------------------


def train(name: str, steps: int = 3) -> tuple[list[float], dict[str, numpy.ndarray]]:
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Dropout(0.2), nn.Linear(9, 3)).to(name)
    optimizer = gpunet.optim.Adam(model.parameters(), lr=1e-2)
    x, y = gpunet.randn(16, 6, device=name), gpunet.tensor(numpy.arange(16) % 3, device=name)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {key: value.cpu().numpy() for key, value in model.state_dict().items()}


@pytest.mark.usefixtures("cupy")
class TestTraining:
    pytestmark = needs_compilers

    def test_has_the_bits_of_the_emulated_device(self) -> None:
        losses, weights = train("emulated")
        for name in ("cuda", "cuda:1"):
            fake_cupy._Cards.launches.clear()
            others, state = train(name)
            assert others == losses and all((state[key] == weights[key]).all() for key in weights)
            assert fake_cupy._Cards.launches.count("adam_step") == 3
            expected = {"linear_forward", "dropout_apply", "cross_entropy_labels", "linear_backward_weight"}
            assert expected <= set(fake_cupy._Cards.launches)

    def test_a_long_batch_is_summed_in_slices(self) -> None:
        rows = numpy.random.default_rng(0).normal(size=(600, 5)).astype("float32")
        gradients = []
        for name in ("cuda", "cpu"):
            gpunet.manual_seed(0)
            layer = nn.Linear(5, 3).to(name)
            layer(gpunet.tensor(rows, device=name)).square().mean().backward()
            gradients.append([p.grad.cpu().numpy() for p in layer.parameters()])
        for card, cpu in zip(*gradients):
            numpy.testing.assert_allclose(card, cpu, rtol=1e-5, atol=1e-7)
        names = ["linear_forward", "linear_backward_weight_partial", "linear_backward_weight_reduce"]
        assert fake_cupy._Cards.launches == names

    def test_goes_on_from_a_file_and_on_another_card(self, tmp_path: Path) -> None:
        pytest.importorskip("safetensors")
        model = nn.Linear(3, 2).to("cuda")
        gpunet.save(model.state_dict(), tmp_path / "model.safetensors")
        other = nn.Linear(3, 2).to("cuda:1")
        other.load_state_dict(gpunet.load(tmp_path / "model.safetensors"))
        assert other.weight.device == "cuda:1" and other.weight.tolist() == model.weight.tolist()

    def test_one_group_of_parameters_for_each_card(self) -> None:
        params = [nn.Parameter(gpunet.ones(5, device=name)) for name in ("cuda", "cuda:1")]
        for p in params:
            p.grad = gpunet.ones_like(p)
        optimizer = gpunet.optim.SGD([{"params": [p]} for p in params], lr=0.5, momentum=0.9)
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        assert [p.tolist() for p in params] == [[0.5] * 5] * 2 and fake_cupy._Cards.launches == ["sgd_step"] * 2
        message = r"arrays on different GPUs .params\[0\] on cuda:0, params\[1\] on cuda:1."
        with pytest.raises(LaunchError, match=message):
            gpunet.optim.SGD(params, lr=0.5).step()

    @pytest.mark.exhaustive
    def test_selftest_compiles_for_the_card(self) -> None:
        for name in ("adam_step", "elementwise_loss", "linear_backward_weight_partial"):
            row = selftest.check_kernel(KERNELS[name], Device("cuda"))
            assert row.passed, selftest.describe(row)


# ---- launches -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cupy")
class TestLaunches:
    pytestmark = needs_compilers

    def test_arguments_that_cupy_takes(self) -> None:
        run = compiler.function("special.cu", "erf_forward<float>", Device("cuda:1"))
        assert compiler.function("special.cu", "erf_forward<float>", Device("cuda:1")) is run
        x, y = (gpunet.full((5,), v, device="cuda:1").array for v in (0.5, 0.0))
        run((1,), (256,), (y, x, numpy.int64(5)), 0)
        run((1,), (256,), (y, x, numpy.int64(5)), 100_000)  # asks for the shared memory first
        numpy.testing.assert_allclose(y.get(), 0.5204999, rtol=1e-6)
        with pytest.raises(TypeError, match=r"numpy\.ndarray of shape \(5,\)"):
            run((1,), (256,), (numpy.zeros(5, "float32"), x, numpy.int64(5)), 0)
        with pytest.raises(fake_cupy.CUDADriverError, match="invalid argument"):
            run((1,), (256,), (y, x, numpy.int64(5)), 300_000)
        with pytest.raises(
            LaunchError, match=r"erf_forward<float>: grid \(0,\), block \(256,\); expected extents from 1 up"
        ):
            run((0,), (256,), (y, x, numpy.int64(5)), 0)

    def test_arrays_of_two_cards_do_not_meet_in_a_launch(self) -> None:
        x, y = (gpunet.ones(5, device=name).array for name in ("cuda", "cuda:1"))
        with pytest.raises(LaunchError, match="arrays on different GPUs .y on cuda:0, x on cuda:1."):
            KERNELS["erf_forward"](x, y)


# ---- the stand-in itself ------------------------------------------------------------------------------------------------


def test_the_stand_in_refuses_what_cupy_refuses(cupy: ModuleType) -> None:
    with cupy.cuda.Device(1):
        there = cupy.zeros((2, 2))
    here = cupy.ones((2, 2))
    for wrong, error, message in (
        (lambda: here + numpy.ones(2), TypeError, "Unsupported type"),
        (lambda: numpy.ones(2) + here, TypeError, "Unsupported type"),
        (lambda: here + there, ValueError, "array device = 1 while current = 0"),
        (lambda: there.sum(), ValueError, "array device = 1 while current = 0"),
        (lambda: there.__setitem__(0, 1.0), ValueError, "current"),
        (lambda: numpy.asarray(here), TypeError, "Implicit conversion"),
        (lambda: cupy.put_along_axis, AttributeError, "no attribute"),
        (lambda: here.__no_such_thing__, AttributeError, "__no_such_thing__"),
    ):
        with pytest.raises(error, match=message):
            wrong()
    assert type(here.sum()) is type(here[0, 0]) is cupy.ndarray and here.sum().shape == ()
    assert here[0].T.base is here and cupy.asarray(here) is here and cupy.asarray(there) is not there
