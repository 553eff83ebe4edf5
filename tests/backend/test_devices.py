"""The device "cuda": what is found, arrays that move, training, launches through CuPy.

Run it with ``--device cuda --driver-devices 2``; without a GPU and the stand-in driver, and with one GPU, some of it skips.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import cuda, nn
from gpunet.backend import compiler, devices
from gpunet.backend.devices import Device
from gpunet.cli.main import main
from gpunet.errors import CaptureError, DeviceError, LaunchError
from gpunet.launch.kernel import Kernel
from gpunet.launch.random import random_advance
from gpunet.ops.linear import linear_backward_weight
from gpunet.ops.losses import elementwise_loss
from gpunet.ops.special import erf_forward
from gpunet.optim.adam import adam_step
from gpunet.tools import info, selftest
from tests import driver
from tests.driver.processes import run as run_on_driver

on_stand_in = pytest.mark.skipif(driver.installed() is None, reason="a GPU rounds otherwise than the emulator")


# ---- what is found ------------------------------------------------------------------------------------------------------


def test_gpus_are_found(other_gpu: str) -> None:
    status = gpunet.cuda_status()
    assert status.ready and cuda.is_available() and status.detail.endswith(f"{cuda.device_count()} GPU(s)")
    assert cuda.get_device_name() and cuda.get_device_capability("cuda:1") >= (7, 5)
    assert Device("auto") == Device("cuda") == "cuda:0" and str(Device("cuda:1")) == "cuda:1"
    count = cuda.device_count()
    with pytest.raises(DeviceError, match=f"'cuda:{count}' does not exist: {count} GPU"):
        Device(f"cuda:{count}")


def test_no_gpu_and_no_driver() -> None:
    run_on_driver("""
    import gpunet
    from gpunet.backend import devices
    from gpunet.errors import DeviceError

    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert gpunet.cuda_status().state == "no GPU" and "CUDA_VISIBLE_DEVICES" in gpunet.cuda_status().advice
    assert not gpunet.cuda.is_available() and gpunet.cuda.device_count() == 0 and gpunet.device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"no NVIDIA GPU is visible\\. To use it, check nvidia-smi .*Or use device='cpu'"):
        gpunet.ones(2, device="cuda")

    def fail():
        raise RuntimeError("CUDA driver version is insufficient for CUDA runtime version")

    devices.cuda_status.cache_clear()
    cupy.cuda.runtime.getDeviceCount = fail
    assert gpunet.cuda_status().state == "no driver" and "is insufficient" in gpunet.cuda_status().detail
    with pytest.raises(DeviceError, match="no CUDA driver was found: .*is insufficient.*install NVIDIA's driver"):
        gpunet.device("cuda")
    """)


def test_cupy_that_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise OSError('libnvrtc.so.13: cannot open')\n")
    program = "import gpunet; print(gpunet.cuda_status()); print(gpunet.device('auto'))"
    paths = [str(tmp_path), str(Path(gpunet.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths!r}; {program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "state='not installed'" in done.stdout and "cannot be imported: libnvrtc.so.13: cannot open" in done.stdout
    assert done.stdout.endswith("cpu\n")


def test_command_line(other_gpu: str, capsys: Any) -> None:
    found = info.collect()["cuda"]
    assert found["state"] == "ready" and "for CUDA up to" in found["driver"]
    gpu = found["gpus"][1]
    assert gpu["device"] == "cuda:1" and gpu["name"] == cuda.get_device_name("cuda:1") and gpu["memory"].endswith(" GB")
    assert main(["selftest", "--device", "cuda:1", "--kernels", random_advance.name]) == 0
    assert f"device cuda:1 ({gpu['name']})" in capsys.readouterr().out


# ---- arrays -------------------------------------------------------------------------------------------------------------


def test_arrays_move_between_devices(other_gpu: str) -> None:
    x = gpunet.tensor([[1.0, 2.0], [3.0, 4.0]], device="cpu")
    route = x
    for name in ("cuda", "cuda:1", "emulated", "cuda:1", "cuda", "cpu"):
        route = route.to(name)
        assert route.device == name and route.tolist() == x.tolist() and route.is_cuda == name.startswith("cuda")
        assert devices.is_array(route.array)
    one = x.cuda(1)
    assert one.to("cuda:1") is one and gpunet.as_tensor(one.array).device == "cuda:1"
    assert nn.Linear(1, 1).cuda(1).weight.is_cuda
    with pytest.raises(DeviceError, match=r"call \.cpu\(\)\.numpy\(\)"):
        one.numpy()
    with pytest.raises(DeviceError, match="cuda:1"):
        one + x.cuda()
    assert devices.cupy().cuda.runtime.getDevice() == 0


def test_pointers_and_streams(gpu: str) -> None:
    assert devices.stream_pointer(Device("cuda")) == 0 == devices.stream_pointer(Device("cpu"))
    array = gpunet.ones(3).array
    assert devices.pointer(array) == array.data.ptr


def test_random_streams_are_the_same_on_every_device(other_gpu: str) -> None:
    generator = gpunet.Generator(3)
    drawn = [gpunet.randn(7, device=name, generator=generator).cpu().numpy() for name in ("cpu", "cuda", "cuda:1")]
    numpy.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-5)
    assert drawn[1].tobytes() == drawn[2].tobytes()
    where = Device("cuda:1")
    state = generator.position(where)
    again = gpunet.randn(7, device=where, generator=generator).tolist()
    generator.set_position(*state, where)
    assert gpunet.randn(7, device=where, generator=generator).tolist() == again


# ---- recorded steps -----------------------------------------------------------------------------------------------------


def test_arrays_of_cupy_are_arguments_of_captured_steps(gpu: str) -> None:
    captured = gpunet.capture(lambda x: x.reshape(-1))
    for values in ([[1.0, 2.0]], [[3.0, 4.0]]):
        assert captured(devices.cupy().asarray(numpy.array(values, numpy.float32))).tolist() == values[0]
    assert len(captured.recordings) == 1


def test_memory_of_a_cuda_graph_lives_as_long_as_the_graph(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of CuPy allocates a workspace while it is captured."""
    cupy, pools = devices.cupy(), []
    pool_type = cupy.cuda.MemoryPool
    monkeypatch.setattr(cupy.cuda, "MemoryPool", lambda: pools.append(pool_type()) or pools[-1])
    x, y = cupy.arange(1000.0), cupy.zeros(1000)

    def run() -> None:
        cupy.add(x * 2, 1, out=y)

    run()
    launch = devices.record_cuda_graph(run, Device("cuda"))
    launch()
    devices.synchronize("cuda")
    assert pools[0].total_bytes() >= 8000
    del launch
    other = devices.record_cuda_graph(run, Device("cuda"))
    assert [pool.total_bytes() > 0 for pool in pools] == [False, True]
    del other
    devices.synchronize("cuda")
    assert [pool.total_bytes() for pool in pools] == [0, 0]
    with pytest.raises(CaptureError):
        devices.record_cuda_graph(lambda: (x * 2).get(), Device("cuda"))
    assert pools[2].total_bytes() == 0
    assert y.tolist() == (numpy.arange(1000.0) * 2 + 1).tolist()


def test_error_of_a_capture_names_its_cause(gpu: str) -> None:
    array = devices.cupy().ones(3)
    with pytest.raises(CaptureError, match="cannot be captured as a CUDA graph: the current stream is capturing"):
        devices.record_cuda_graph(array.get, Device("cuda"))
    devices.record_cuda_graph(lambda: array.fill(2.0), Device("cuda"))()
    assert array.tolist() == [2.0, 2.0, 2.0]


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


@on_stand_in
def test_training_has_the_bits_of_the_emulated_device(other_gpu: str) -> None:
    gpunet.set_default_device("cpu")
    losses, weights = train("emulated")
    for name in ("cuda", "cuda:1"):
        others, state = train(name)
        assert others == losses and all((state[key] == weights[key]).all() for key in weights)


def test_a_long_batch_is_summed_in_slices(gpu: str) -> None:
    rows = numpy.random.default_rng(0).normal(size=(600, 5)).astype("float32")
    gradients = []
    for name in (gpu, "cpu"):
        gpunet.manual_seed(0)
        layer = nn.Linear(5, 3).to(name)
        layer(gpunet.tensor(rows, device=name)).square().mean().backward()
        gradients.append([p.grad.cpu().numpy() for p in layer.parameters()])
    for found, expected in zip(*gradients):
        numpy.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_weights_of_a_file_on_another_gpu(other_gpu: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = nn.Linear(3, 2).to("cuda")
    gpunet.save(model.state_dict(), tmp_path / "model.safetensors")
    other = nn.Linear(3, 2).to("cuda:1")
    other.load_state_dict(gpunet.load(tmp_path / "model.safetensors"))
    assert other.weight.device == "cuda:1" and other.weight.tolist() == model.weight.tolist()


def test_one_group_of_parameters_for_each_gpu(other_gpu: str) -> None:
    params = [nn.Parameter(gpunet.ones(5, device=name)) for name in ("cuda", "cuda:1")]
    for p in params:
        p.grad = gpunet.ones_like(p)
    optimizer = gpunet.optim.SGD([{"params": [p]} for p in params], lr=0.5, momentum=0.9)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert [p.tolist() for p in params] == [[0.5] * 5] * 2
    with pytest.raises(LaunchError, match=r"params\[0\] on cuda:0, params\[1\] on cuda:1"):
        gpunet.optim.SGD(params, lr=0.5).step()


# ---- launches -----------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", [adam_step, elementwise_loss, linear_backward_weight], ids=lambda kernel: kernel.name)
def test_selftest_of_a_kernel(kernel: Kernel, gpu: str) -> None:
    row = selftest.check_kernel(kernel, Device("cuda"))
    assert row.passed, selftest.describe(row)


def test_arguments_that_cupy_takes(other_gpu: str) -> None:
    run = compiler.function("special.cu", "erf_forward<float>", Device("cuda:1"))
    assert compiler.function("special.cu", "erf_forward<float>", Device("cuda:1")) is run
    x, y = (gpunet.full((5,), v).array for v in (0.5, 0.0))
    run((1,), (256,), (y, x, numpy.int64(5)), 0)
    run((1,), (256,), (y, x, numpy.int64(5)), 100_000)  # asks for the shared memory first
    numpy.testing.assert_allclose(y.get(), 0.5204999, rtol=1e-6)
    with pytest.raises(TypeError, match=r"numpy\.ndarray of shape \(5,\)"):
        run((1,), (256,), (numpy.zeros(5, "float32"), x, numpy.int64(5)), 0)
    with pytest.raises(devices.cupy().cuda.driver.CUDADriverError, match="invalid argument"):
        run((1,), (256,), (y, x, numpy.int64(5)), 300_000)
    with pytest.raises(LaunchError, match=r"erf_forward<float>: grid \(0,\), block \(256,\); expected extents from 1 up"):
        run((0,), (256,), (y, x, numpy.int64(5)), 0)


def test_arrays_of_two_gpus_do_not_meet_in_a_launch(other_gpu: str) -> None:
    x, y = (gpunet.ones(5, device=name).array for name in ("cuda", "cuda:1"))
    with pytest.raises(LaunchError, match=r"erf_forward: arrays on different .*y on cuda:0, x on cuda:1"):
        erf_forward(x, y)
