"""Large convolutions by oneDNN: right for all geometries, the same bits each time, in captured steps, threads and forks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import blas, onednn
from gpunet.backend.blas import libraries, openblas
from gpunet.captured.compiled import module

pytestmark = pytest.mark.skipif(
    all(library.name != "onednn" for library in libraries.installed()), reason="oneDNN is not installed"
)

#: images, filters, stride, padding, dilation, groups: each larger than the least that oneDNN gets
GEOMETRIES = {
    "3 x 3": ((4, 16, 24, 24), (32, 16, 3, 3), 1, 1, 1, 1),
    "few channels": ((8, 3, 32, 32), (16, 3, 5, 5), 1, 2, 1, 1),
    "one channel": ((64, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1),
    "odd channels": ((24, 7, 21, 19), (23, 7, 3, 2), (1, 2), (2, 1), 1, 1),
    "stride beyond the last window": ((8, 16, 23, 23), (48, 16, 3, 3), 2, 0, 1, 1),
    "pointwise": ((8, 32, 16, 16), (64, 32, 1, 1), 1, 0, 1, 1),
    "dilation": ((4, 16, 24, 24), (32, 16, 3, 3), 1, 2, 2, 1),
    "groups": ((8, 48, 20, 20), (48, 16, 3, 3), 1, 1, 1, 3),
    "depthwise": ((16, 64, 20, 20), (64, 1, 3, 3), 1, 1, 1, 64),
    "signal": ((16, 32, 1, 200), (32, 32, 1, 5), 1, (0, 2), 1, 1),
}


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The other tests use NumPy's products."""
    monkeypatch.setenv("GPUNET_BLAS", "onednn")
    monkeypatch.setattr(onednn, "_plans", onednn._OfThread())
    onednn._find_library.cache_clear()
    yield
    onednn._find_library.cache_clear()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether oneDNN computed it, for each convolution that was large enough."""
    found: list[Any] = []
    find = onednn.is_compiled

    def spy(*arguments: Any) -> bool:
        found.append((arguments[0], find(*arguments)))
        return found[-1][1]

    monkeypatch.setattr(onednn, "is_compiled", spy)
    return found


def gradients(dtype: str, geometry: Any, function: str = "conv2d", has_bias: bool = True) -> list[numpy.ndarray]:
    """The result of a convolution and the gradients of its tensors, in float64."""
    images, filters, *numbers = geometry
    random = numpy.random.default_rng(0)
    shapes = [images, filters, *[filters[:1]] * has_bias]
    tensors = [gpunet.tensor(random.normal(size=shape).astype("float32").astype(dtype), requires_grad=True) for shape in shapes]
    y = getattr(gpunet.nn.functional, function)(*tensors, *[None] * (not has_bias), *numbers)
    y.backward(gpunet.tensor(random.normal(size=y.shape).astype("float32").astype(dtype)))
    return [a.detach().numpy().astype("float64") for a in (y, *(t.grad for t in tensors))]


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_are_right(name: str, has_bias: bool, planned: list[Any]) -> None:
    results = [gradients(dtype, GEOMETRIES[name], has_bias=has_bias) for dtype in ("float32", "float64")]
    for got, expected in zip(*results):
        numpy.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())
    assert len(planned) == 3
    assert any(is_compiled for _, is_compiled in planned)


def test_transposed_convolutions_are_right(planned: list[Any]) -> None:
    geometry = ((8, 32, 12, 12), (32, 16, 4, 4), 2, 1, 1)  # stride, padding, output_padding
    results = [gradients(dtype, geometry, "conv_transpose2d", has_bias=False) for dtype in ("float32", "float64")]
    for got, expected in zip(*results):
        numpy.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())
    assert [kind for kind, _ in planned] == ["backward_data", "forward", "backward_weights"]


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.skipif(
    not module.available(), reason="Numba is not installed"))])  # fmt: skip
def test_captured_steps_give_the_bits_of_eager_ones(backend: str) -> None:
    def train(captured: bool) -> list[bytes]:
        gpunet.manual_seed(0)
        model = gpunet.nn.Sequential(gpunet.nn.Conv2d(3, 16, 3, padding=1), gpunet.nn.Conv2d(16, 16, 3, 2, 1))

        def step(x: gpunet.Tensor) -> gpunet.Tensor:
            model.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            return loss

        run = gpunet.capture(step, backend=backend) if captured else step
        for _ in range(3):
            run(gpunet.randn(16, 3, 24, 24))
        if captured:
            assert run.recordings[0].lowering.source.count("convolve(") == 5  # type: ignore[attr-defined,union-attr]
        return [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]

    results = [train(captured) for captured in (False, True)]
    if backend == "numpy":
        assert results[0] == results[1]
    else:
        for one, other in zip(*results):
            a, b = (numpy.frombuffer(bits, "float32") for bits in (one, other))
            numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_same_bits_each_time_and_in_each_thread() -> None:
    """With the same number of OpenMP threads, which another test may have changed for the main thread."""
    found: list[bytes] = []
    library = onednn._library()
    assert library is not None

    def run() -> None:
        library.functions.omp_set_num_threads(2)
        found.extend(b"".join(a.tobytes() for a in gradients("float32", GEOMETRIES["3 x 3"])) for _ in range(3))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run()
    assert len(found) == 12
    assert len(set(found)) == 1


def test_halves_are_widened(planned: list[Any]) -> None:
    got, expected = (gradients(dtype, GEOMETRIES["3 x 3"]) for dtype in ("float16", "float64"))
    for one, other in zip(got, expected):
        assert abs(one - other).max() < 5e-3 * abs(other).max()
    assert all(is_compiled for _, is_compiled in planned)


def test_small_and_float64_convolutions_do_not_use_it(planned: list[Any]) -> None:
    gradients("float32", ((2, 3, 8, 8), (4, 3, 3, 3), 1, 1, 1, 1))
    gradients("float64", GEOMETRIES["3 x 3"])
    gradients("float32", ((0, 16, 24, 24), (32, 16, 3, 3), 1, 1, 1, 1))
    assert not planned


@pytest.mark.parametrize("choice, is_used", [("auto", True), ("onednn", True), ("numpy", False), ("mkl", False)])
def test_the_environment_decides(choice: str, is_used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_BLAS", choice)
    assert (onednn.version() is not None) == is_used


def test_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(onednn, "_VERSION", 2)
    assert onednn._find_library.__wrapped__() is None
    assert "expected version 2" in caplog.text


def test_failure_is_an_error() -> None:
    geometry = onednn.Geometry((1, 2, 3, 3), (1, 1, 1, 1), (1, 1, 9, 9), (1, 1), (0, 0), (1, 1))  # impossible
    assert not onednn.is_compiled("forward", geometry, False)
    with pytest.raises(gpunet.errors.LaunchError, match="no compiled forward"):
        onednn.convolve(*[numpy.zeros(1, "float32")] * 3, kind="forward", geometry=geometry, scratch=numpy.empty)


def test_plans_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[int] = []
    monkeypatch.setattr(onednn, "_destroy", lambda library, handles: destroyed.append(len(handles)))
    monkeypatch.setattr(onednn, "_MAX_PLANS", 2)
    plans = onednn._OfThread()
    for count in (1, 2, 3):
        geometry = onednn.Geometry((count, 16, 8, 8), (16, 16, 3, 3), (count, 16, 8, 8), (1, 1), (1, 1), (1, 1))
        assert plans.find("forward", geometry, True) is not None
    assert len(plans.plans) == 1
    assert len(destroyed) == 2
    assert all(destroyed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_convolutions_in_a_forked_process() -> None:
    code = """
import os, gpunet
x, w = gpunet.ones(4, 16, 24, 24), gpunet.ones(32, 16, 3, 3)
def is_right():
    return bool((gpunet.nn.functional.conv2d(x, w) == 144).all())
assert is_right()
child = os.fork()
if child == 0:
    os._exit(0 if is_right() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---- threads of NumPy's BLAS --------------------------------------------------------------------------------------------


class Recorder:
    """A stand-in for OpenBLAS that records its calls, and the timeout in the environment."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append((name, os.environ.get("OPENBLAS_THREAD_TIMEOUT")))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    library = Recorder()
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    return library


def test_numpy_threads_start_again_with_a_short_timeout(recorder: Recorder) -> None:
    openblas.shorten_waiting()
    assert recorder.calls == [("openblas_read_env", "16"), ("blas_thread_shutdown_", None), ("blas_thread_init", None)]


@pytest.mark.parametrize("reason", ["the environment", "another thread", "another library"])
def test_numpy_threads_are_left_alone(reason: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "the environment":
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    elif reason == "another thread":
        monkeypatch.setattr(threading, "active_count", lambda: 2)
    else:
        monkeypatch.setattr(numpy, "__file__", "/nowhere/numpy/__init__.py")
    openblas.shorten_waiting()
    assert not recorder.calls


def test_products_of_numpy_keep_their_bits() -> None:
    a = numpy.random.default_rng(0).normal(size=(300, 300)).astype("float32")
    assert a.size * 300 > blas.LEAST
    before = numpy.dot(a, a)
    openblas.shorten_waiting()
    assert numpy.dot(a, a).tobytes() == before.tobytes()
