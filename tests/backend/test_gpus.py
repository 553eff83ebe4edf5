"""GPUs by the names of ``torch.cuda``, ``torch.backends`` and ``torch.accelerator``, with a GPU and without."""

from __future__ import annotations

import warnings

import pytest

import gpunet
from gpunet import cuda
from gpunet.errors import ArgumentError, DeviceError, DtypeError

needs_gpu = pytest.mark.skipif(not cuda.is_available(), reason="CUDA is not ready")
without_gpu = pytest.mark.skipif(cuda.is_available(), reason="CUDA is ready")


def test_names_that_are_harmless_everywhere() -> None:
    cuda.manual_seed(0)
    cuda.manual_seed_all(0)
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    cuda.ipc_collect()
    with cuda.stream(None), cuda.device(-1):
        assert cuda.max_memory_allocated() >= cuda.memory_allocated() >= 0
    assert gpunet.accelerator.is_available() == cuda.is_available() == cuda.is_initialized()
    assert gpunet.accelerator.device_count() == cuda.device_count()
    assert not gpunet.backends.mps.is_available() and not gpunet.backends.cudnn.is_available()
    gpunet.mps.manual_seed(0)


def test_seeding_gpus_does_not_seed_the_cpu() -> None:
    state = gpunet.get_rng_state().tolist()
    cuda.manual_seed_all(123)
    assert gpunet.get_rng_state().tolist() == state
    with pytest.raises(ArgumentError, match="seed 1.5"):
        cuda.manual_seed(1.5)


def test_flags() -> None:
    import gpunet.backends.cudnn as cudnn

    cudnn.deterministic, cudnn.benchmark = True, False
    assert not gpunet.backends.cuda.matmul.allow_tf32
    gpunet.backends.cuda.matmul.allow_tf32 = True
    assert gpunet.backends.cuda.matmul.allow_tf32 and gpunet.get_float32_matmul_precision() == "medium"
    gpunet.backends.cuda.matmul.allow_tf32 = False
    assert gpunet.get_float32_matmul_precision() == "highest"
    gpunet.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    with pytest.raises(ArgumentError, match=r"backends.cuda.matmul has no flag 'allow_tf23'; expected one of allow_bf16"):
        gpunet.backends.cuda.matmul.allow_tf23 = True
    gpunet.set_float32_matmul_precision("high")
    assert gpunet.get_float32_matmul_precision() == "high" and gpunet.backends.cuda.matmul.allow_tf32
    gpunet.set_float32_matmul_precision("highest")
    with pytest.raises(ArgumentError, match=r"set_float32_matmul_precision\('low'\)"):
        gpunet.set_float32_matmul_precision("low")
    gpunet.use_deterministic_algorithms(True)
    assert gpunet.are_deterministic_algorithms_enabled()
    with pytest.warns(UserWarning, match="always deterministic"):
        gpunet.use_deterministic_algorithms(False)


def test_events_measure_time() -> None:
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    gpunet.ones(1000).sum()
    end.record()
    end.synchronize()
    assert start.query() and 0.0 <= start.elapsed_time(end) < 1e5
    with pytest.raises(DeviceError, match=r"this event was made without enable_timing=True"):
        cuda.Event().elapsed_time(end)
    with pytest.raises(DeviceError, match=r"end_event was not recorded"):
        start.elapsed_time(cuda.Event(enable_timing=True))
    with pytest.raises(ArgumentError, match="interprocess=True"):
        cuda.Event(interprocess=True)


def test_streams() -> None:
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        x = gpunet.ones(3, device="auto") * 2
    event = stream.record_event()
    event.wait()
    stream.synchronize()
    assert stream.query() and x.tolist() == [2.0] * 3
    assert cuda.default_stream().cuda_stream == 0 and cuda.default_stream() == cuda.default_stream()
    with cuda.stream(stream):
        assert cuda.current_stream() == stream and len({cuda.current_stream(), stream}) == 1


@without_gpu
def test_without_a_gpu() -> None:
    assert cuda.memory_allocated() == cuda.memory_reserved() == cuda.device_count() == 0
    assert gpunet.accelerator.current_accelerator() is None and gpunet.version.cuda is None and not cuda.is_bf16_supported()
    for call in (cuda.current_device, cuda.init, lambda: cuda.set_device(0), lambda: cuda.FloatTensor(2)):
        with pytest.raises(DeviceError, match="CUDA"):
            call()


@needs_gpu
def test_with_a_gpu() -> None:
    x = cuda.FloatTensor([1.0, 2.0])
    assert cuda._initialized
    assert x.is_cuda and x.dtype == gpunet.float32 and isinstance(x, cuda.FloatTensor) and not isinstance(x, gpunet.FloatTensor)
    assert cuda.memory_allocated() >= 8 and cuda.mem_get_info()[1] > 0
    assert cuda.get_device_properties().total_memory > 0 and str(gpunet.version.cuda).count(".") == 1
    state = cuda.get_rng_state()
    drawn = gpunet.rand(3, device="cuda").tolist()
    cuda.set_rng_state(state)
    assert gpunet.rand(3, device="cuda").tolist() == drawn
    cuda.manual_seed(7)
    assert cuda.initial_seed() == 7
    states = cuda.get_rng_state_all()
    cuda.set_rng_state_all(states)


@needs_gpu
def test_current_gpu() -> None:
    last = cuda.device_count() - 1
    before = cuda.current_device()
    with cuda.device(last):
        assert cuda.current_device() == last and gpunet.device("cuda").index == last
    assert cuda.current_device() == before
    cuda.set_device(last)
    try:
        assert gpunet.zeros(1, device="cuda").device == f"cuda:{last}"
        cuda.set_device(-1)
        assert cuda.current_device() == last
    finally:
        cuda.set_device(before)
    with pytest.raises(DeviceError, match="does not exist"):
        cuda.set_device(last + 1)


def test_compile_returns_what_it_gets() -> None:
    layer = gpunet.nn.Linear(2, 2)
    assert gpunet.compile(layer, mode="max-autotune") is layer

    @gpunet.compile(fullgraph=True)
    def double(x: gpunet.Tensor) -> gpunet.Tensor:
        return x * 2

    assert double(gpunet.ones(1)).item() == 2.0
    with pytest.raises(DtypeError, match=r"compile: got 1; expected a module or a function"):
        gpunet.compile(1)


def test_data_parallel_of_one_device() -> None:
    layer = gpunet.nn.Linear(2, 3)
    model = gpunet.nn.DataParallel(layer, device_ids=[0])
    x = gpunet.ones(4, 2)
    assert model(x).tolist() == layer(x).tolist() and list(model.state_dict()) == ["module.weight", "module.bias"]
    with pytest.raises(ArgumentError, match=r"device_ids=\[0, 1\]; expected one GPU"):
        gpunet.nn.DataParallel(layer, device_ids=[0, 1])


def test_inference_mode() -> None:
    x = gpunet.ones(2, requires_grad=True)
    with gpunet.inference_mode():
        assert not (x * 2).requires_grad
    with gpunet.inference_mode(False):
        assert (x * 2).requires_grad
    with gpunet.no_grad(), gpunet.inference_mode(mode=False):
        assert not (x * 2).requires_grad

    @gpunet.inference_mode()
    def evaluate() -> gpunet.Tensor:
        return x * 2

    assert not evaluate().requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not gpunet.inference_mode(lambda: x * 2)().requires_grad
