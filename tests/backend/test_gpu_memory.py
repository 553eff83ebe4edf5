"""Memory, sensors, streams and other facts of GPUs by the names of ``torch.cuda`` and ``torch.accelerator``; with none, too."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet import accelerator, cpu, cuda
from gpunet.errors import ArgumentError, DeviceError, MissingDependencyError

SENSORS = ("clock_rate", "device_memory_used", "list_gpu_processes", "memory_usage", "power_draw", "temperature", "utilization")


def test_harmless_everywhere() -> None:
    cuda.reset_accumulated_memory_stats()
    accelerator.empty_host_cache()
    cuda.set_stream(None)
    with accelerator.device_index(None), cuda.device_of(gpunet.ones(1)), cuda.StreamContext(None):
        assert cuda.is_current_stream_capturing() is False
    with pytest.warns(FutureWarning, match="memory_reserved"):
        assert cuda.memory_cached() == cuda.memory_reserved()
    with pytest.warns(FutureWarning, match="max_memory_reserved"):
        assert cuda.max_memory_cached() == cuda.max_memory_reserved()
    assert cuda.has_half and not cuda.has_magma and cuda.get_sync_debug_mode() == 0
    assert cuda.memory.memory_stats is cuda.memory_stats and cuda.random.manual_seed is cuda.manual_seed
    assert cuda.streams.Stream is cuda.Stream and issubclass(gpunet.OutOfMemoryError, RuntimeError)
    assert isinstance(cuda.memory_summary(), str) and len(cuda.get_arch_list()) == min(1, cuda.device_count())


def test_the_cpu_as_a_device() -> None:
    assert gpunet.get_device_module("cpu") is cpu and cpu.is_available() and cpu.is_initialized()
    assert cpu.device_count() == 1 and cpu.current_device() == "cpu"
    cpu.set_device("cpu")
    cpu.synchronize()
    with cpu.stream(cpu.current_stream()), gpunet.Stream("cpu") as stream:
        assert stream.device == "cpu" and stream.device_index == -1
    start, end = (gpunet.Event("cpu", enable_timing=True) for _ in range(2))
    start.record(stream)
    end.record(stream)
    assert start.device == "cpu" and start.elapsed_time(end) >= 0.0
    with pytest.raises(DeviceError):
        gpunet.get_device_module("tpu")


@pytest.mark.skipif(cuda.is_available(), reason="CUDA is ready")
def test_without_a_gpu() -> None:
    assert cuda.memory_stats() == {} == cuda.memory_stats_as_nested_dict() and cuda.memory_summary().startswith("CUDA is not ready")
    assert gpunet.get_device_module() is cpu and cuda.get_gencode_flags() == "" and not cuda.is_tf32_supported()
    assert cuda.ExternalStream(0).cuda_stream == 0
    for call in (lambda: cuda.set_per_process_memory_fraction(0.5), accelerator.get_device_capability, accelerator.get_memory_info):
        with pytest.raises(DeviceError, match="CUDA"):
            call()


@pytest.mark.parametrize("name", SENSORS)
def test_sensors_need_a_package(name: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingDependencyError, match=rf"cuda.{name} needs the package nvidia-ml-py: pip install nvidia-ml-py"):
        getattr(cuda, name)()


class _Library(SimpleNamespace):
    """NVIDIA's management library, of one GPU."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    def __getattr__(self, name: str) -> Any:
        facts = SimpleNamespace(gpu=12, memory=34, used=56)
        answers = {"Temperature": 61, "PowerUsage": 70_000, "ClockInfo": 1500, "UtilizationRates": facts, "MemoryInfo": facts}
        answers["ComputeRunningProcesses"] = [SimpleNamespace(pid=7, usedGpuMemory=2**20)]
        return lambda *arguments: answers.get(name.removeprefix("nvmlDeviceGet"), arguments)


def test_sensors(gpu: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _Library())
    assert [getattr(cuda, name)() for name in SENSORS if name != "list_gpu_processes"] == [1500, 56, 34, 70_000, 61, 12]
    assert cuda.list_gpu_processes() == "GPU:0\nprocess          7 uses        1.000 MB GPU memory"


def test_statistics(gpu: str) -> None:
    x = gpunet.zeros(1000, device=gpu)
    stats = cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == cuda.memory_allocated() >= x.nbytes
    assert stats["reserved_bytes.all.peak"] >= stats["reserved_bytes.all.current"] >= stats["allocated_bytes.all.current"]
    assert cuda.memory_stats_as_nested_dict()["allocated_bytes"]["all"]["current"] == stats["allocated_bytes.all.current"]
    assert "MiB  in use by arrays" in cuda.memory_summary() and accelerator.memory_allocated() == cuda.memory_allocated()
    assert accelerator.get_memory_info() == cuda.mem_get_info()
    assert {gpunet.float32, gpunet.int64} <= accelerator.get_device_capability()["supported_dtypes"]


def test_limit_of_memory(gpu: str) -> None:
    assert cuda.get_per_process_memory_fraction() == 1.0
    total = cuda.mem_get_info()[1]
    try:
        cuda.set_per_process_memory_fraction(0.25)
        assert abs(cuda.get_per_process_memory_fraction() - 0.25) < 1e-3
        with pytest.raises(gpunet.OutOfMemoryError, match=r"cuda:0 is out of memory: .*; use a smaller batch"):
            gpunet.empty(total // 2, dtype=gpunet.uint8, device=gpu)
        with pytest.raises(MemoryError):
            gpunet.empty(total // 2, dtype=gpunet.uint8, device=gpu)
    finally:
        cuda.set_per_process_memory_fraction(1.0)
    assert cuda.get_per_process_memory_fraction() == 1.0
    with pytest.raises(ArgumentError, match="fraction=2"):
        cuda.set_per_process_memory_fraction(2)


def test_streams_of_others(gpu: str) -> None:
    stream = cuda.Stream()
    other = cuda.get_stream_from_external(stream.cuda_stream)
    assert other.cuda_stream == stream.cuda_stream and other.device_index == 0
    with other, gpunet.Stream():
        x = gpunet.ones(2, device=gpu) * 2
    assert x.tolist() == [2.0, 2.0]
    before = cuda.current_stream()
    cuda.set_stream(stream)
    try:
        assert cuda.current_stream() == stream and (x + 1).tolist() == [3.0, 3.0]
    finally:
        cuda.set_stream(before)
    assert cuda.current_stream() == before and not cuda.is_current_stream_capturing()
    assert gpunet.Event(enable_timing=True).device == gpu and gpunet.get_device_module() is cuda


def test_reads_are_reported(gpu: str) -> None:
    x = gpunet.ones(2, device=gpu)
    try:
        cuda.set_sync_debug_mode("error")
        with pytest.raises(DeviceError, match="the host reads a value of a GPU"):
            x.tolist()
        cuda.set_sync_debug_mode(1)
        with pytest.warns(UserWarning, match="the host reads a value of a GPU"):
            assert x.sum().item() == 2.0
    finally:
        cuda.set_sync_debug_mode(0)
    with pytest.raises(ArgumentError, match=r"set_sync_debug_mode\(3\)"):
        cuda.set_sync_debug_mode(3)


def test_architectures(gpu: str) -> None:
    major, minor = cuda.get_device_capability()
    assert cuda.get_arch_list() == [f"sm_{major}{minor}"]
    assert cuda.get_gencode_flags() == f"-gencode compute=compute_{major}{minor},code=sm_{major}{minor}"
    assert cuda.is_tf32_supported() == (major >= 8) and not cuda.can_device_access_peer(0, 0)
    with cuda.device_of(gpunet.ones(1, device=gpu)):
        assert cuda.current_device() == 0
