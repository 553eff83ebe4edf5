"""Products of large matrices: every library gives right and reproducible results, and the choice of a library is cached."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import emulator, nn
from gpunet.backend import blas
from gpunet.backend.blas import choice, libraries
from gpunet.captured.compiled import library_calls, module
from gpunet.errors import ArgumentError, MissingDependencyError

INSTALLED = [library.name for library in libraries.installed()]
M, N, K = 150, 120, 128  # just above the threshold; M is not a multiple of a vector width
assert M * N * K > blas.LEAST > (M - 20) * N * K


#: A stand-in for MKL, which is too large to install for a test: the functions that gpunet calls.
MKL = """
constexpr int auto_branch = 12, strict = 0x10000, row_major = 101, plain = 111, transposed = 112;
static int branch;
extern "C" int MKL_CBWR_Get_Auto_Branch() { return auto_branch; }
extern "C" int MKL_CBWR_Set(int value) { return branch = value, 0; }

template <class T> void multiply(int order, int of_a, int of_b, int m, int n, int k,
                                 T alpha, const T* a, int lda, const T* b, int ldb, T beta, T* c, int ldc) {
  if (branch != (auto_branch | strict) || order != row_major || (of_a != plain && of_a != transposed) ||
      (of_b != plain && of_b != transposed) || lda < (of_a == plain ? k : m) || ldb < (of_b == plain ? n : k) || ldc < n)
    return;
  for (long i = 0; i < m; i++)
    for (long j = 0; j < n; j++) {
      T sum = 0;
      for (long l = 0; l < k; l++)
        sum += a[of_a == plain ? i * lda + l : l * lda + i] * b[of_b == plain ? l * ldb + j : j * ldb + l];
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
}
extern "C" void cblas_sgemm(int order, int of_a, int of_b, int m, int n, int k, float alpha, const float* a, int lda,
                            const float* b, int ldb, float beta, float* c, int ldc) {
  multiply(order, of_a, of_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
extern "C" void cblas_dgemm(int order, int of_a, int of_b, int m, int n, int k, double alpha, const double* a, int lda,
                            const double* b, int ldb, double beta, double* c, int ldc) {
  multiply(order, of_a, of_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
"""


@pytest.fixture(scope="session")
def stand_in_for_mkl(tmp_path_factory: pytest.TempPathFactory) -> libraries.Library:
    if not emulator.available():
        pytest.skip("g++ is not installed")
    path = tmp_path_factory.mktemp("mkl") / "libmkl_rt.so.2"
    source = path.with_name("mkl.cpp")
    source.write_text(MKL, encoding="utf-8")
    subprocess.run(["g++", "-O2", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return libraries.Library("mkl", "a stand-in", path, libraries._load_mkl)


@pytest.fixture(params=["numpy", *INSTALLED, "stand-in"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each installed library (the test extra installs oneDNN), and a stand-in for MKL."""
    name: str = request.param
    if name == "stand-in":
        name, stand_in = "mkl", request.getfixturevalue("stand_in_for_mkl")
        monkeypatch.setattr(libraries, "installed", lambda: [stand_in])
    monkeypatch.setattr(blas, "_chosen", choice.load(name))
    return name


def placed(values: numpy.ndarray, transposed: bool, start: int = 0, gap: int = 0) -> numpy.ndarray:
    """Copy a matrix into memory at an offset of ``start`` elements, with ``gap`` elements between rows (or columns)."""
    rows, columns = values.shape[::-1] if transposed else values.shape
    memory = numpy.full(start + rows * (columns + gap), numpy.nan, values.dtype)
    matrix = memory[start:].reshape(rows, columns + gap)[:, :columns]
    matrix = matrix.T if transposed else matrix
    matrix[...] = values
    return matrix


def operands(dtype: str = "float32") -> tuple[numpy.ndarray, numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return generator.standard_normal((M, K)).astype(dtype), generator.standard_normal((K, N)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_product_is_right_and_same_bits_for_any_alignment(library: str, dtype: str, a_transposed: bool, b_transposed: bool) -> None:
    a, b = operands(dtype)
    exact = a.astype("float64") @ b.astype("float64")
    for gap in (0, 5, 16):  # a library may choose another algorithm for other strides
        bits = set()
        for start in (0, 1, 3, 16):
            x, y = placed(a, a_transposed, start, gap), placed(b, b_transposed, start, gap)
            out = placed(numpy.full((M, N), numpy.nan, dtype), False, start)
            for _ in range(2):
                blas.dot(x, y, out)
                bits.add(out.tobytes())
        numpy.testing.assert_allclose(out, exact, rtol=0, atol=K * numpy.finfo(dtype).eps * 4)
        assert len(bits) == 1


def test_large_products_use_the_library_and_small_ones_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Functions(dict):  # type: ignore[type-arg]
        def get(self, dtype: Any, default: Any = None) -> Any:
            called.append(dtype)
            return None

    monkeypatch.setattr(blas, "_chosen", choice.Choice("spy", Functions(), {}))
    a, b = operands()
    out = numpy.empty((M, N), numpy.float32)
    blas.dot(a[:100], b, out[:100])
    assert not called
    blas.dot(a, b, out)
    assert called == [numpy.dtype("float32")]
    numpy.testing.assert_array_equal(out, numpy.dot(a, b))


def test_operands_without_a_contiguous_dimension_use_numpy(library: str) -> None:
    a, b = operands()
    wide = numpy.repeat(numpy.repeat(a, 2, 0), 2, 1)[::2, ::2]  # neither rows nor columns are contiguous
    out = numpy.empty((M, N), numpy.float32)
    assert blas.prepared(wide, b, out) is None
    blas.dot(wide, b, out)
    numpy.testing.assert_array_equal(out, numpy.dot(wide, b))


def test_training_gives_the_same_bits_eager_and_captured(library: str) -> None:
    def train(captured: bool) -> list[bytes]:
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(96, 160), nn.ReLU(), nn.Linear(160, 160), nn.Tanh(), nn.Linear(160, 1))
        optimizer = gpunet.optim.Adam(model.parameters())

        def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = gpunet.capture(step) if captured else step
        for _ in range(4):
            run(gpunet.randn(160, 96), gpunet.randn(160, 1))
        if captured:
            source = run.recordings[0].lowering.source  # type: ignore[attr-defined]
            assert source.count("()  # dot(") == (0 if library == "numpy" else 5)
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    assert train(True) == train(False)


def test_batches_of_large_matrices(library: str) -> None:
    a, b = (numpy.stack([x, -2 * x]) for x in operands())
    product = gpunet.tensor(a) @ gpunet.tensor(b)
    numpy.testing.assert_allclose(product.numpy(), numpy.matmul(a.astype("float64"), b), atol=1e-3)


@pytest.mark.skipif(not module.available(), reason="Numba is not installed")
def test_compiled_step_multiplies_its_arguments_without_copying_them(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_calls, "MAX_PRODUCT", 0)
    weight = gpunet.tensor(operands()[1].T.copy())
    step = gpunet.capture(lambda x: nn.functional.linear(x, weight), backend="numba")
    generator = numpy.random.default_rng(0)
    for _ in range(3):
        x = generator.normal(size=(M, K)).astype("float32")
        expected = numpy.empty((M, N), "float32")
        blas.dot(x, weight.numpy().T, expected)
        assert step(gpunet.from_numpy(x)).numpy().tobytes() == expected.tobytes()
    assert "dot(argument0, " in step.recordings[0].lowering.source
    assert (step.recordings[0].inputs[0] != x).any()


@pytest.mark.skipif("onednn" not in INSTALLED, reason="oneDNN is not installed")
@pytest.mark.parametrize("name, value, shown", [
    ("UNRELATED", "1", "GOMP_SPINCOUNT = '2000'"), ("GOMP_SPINCOUNT", "7", "GOMP_SPINCOUNT = '7'"),
    ("OMP_WAIT_POLICY", "passive", "GOMP_SPINCOUNT = '0'"),
])  # fmt: skip
def test_waiting_threads_of_onednn_leave_the_cores_to_others(name: str, value: str, shown: str) -> None:
    """As the OpenMP runtime shows it; the environment stays as it was."""
    code = "import os; before = dict(os.environ); from gpunet.backend.blas import choice; choice.load('onednn'); "
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", name: value}
    done = subprocess.run(
        [sys.executable, "-c", code + "assert os.environ == before"], capture_output=True, text=True, check=True, env=environment
    )
    assert shown in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("library", ["numpy", *INSTALLED], indirect=True)
def test_products_in_a_forked_process(library: str) -> None:
    """GNU OpenMP's threads do not survive a fork: a child that waits for them hangs."""
    code = f"""
import os, numpy
from gpunet.backend import blas
a, out = numpy.ones(({M}, {M}), numpy.float32), numpy.empty(({M}, {M}), numpy.float32)
blas.dot(a, a, out)
assert blas.chosen().name == "{library}"
child = os.fork()
if child == 0:
    out[...] = 0
    blas.dot(a, a, out)
    os._exit(0 if (out == {M}).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "GPUNET_BLAS": library}
    subprocess.run([os.sys.executable, "-c", code], env=environment, check=True, timeout=120)  # type: ignore[attr-defined]


# ---- the choice ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """``pretend(name=seconds, ...)``: fake installed libraries and their times; returns the list of measured names."""
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GPUNET_BLAS", "auto")

    def install(**seconds: float | Exception) -> list[str]:
        measured: list[str] = []

        def measure(name: str) -> list[float]:
            measured.append(name)
            value = seconds[name]
            if isinstance(value, Exception):
                raise value
            return [value, 2 * value]

        def functions(path: Path) -> dict[Any, Any]:
            return {"from": path.name}

        names = [name for name in seconds if name != "numpy"]
        found = [libraries.Library(name, f"{name} 1.0", tmp_path / name, functions) for name in names]
        monkeypatch.setattr(libraries, "installed", lambda: found)
        monkeypatch.setattr(choice, "_measure_in_subprocess", measure)
        return measured

    return install


def test_fastest_library_is_selected_and_cached(pretend: Any) -> None:
    measured = pretend(numpy=1.0, mkl=0.8, onednn=0.6)
    chosen = choice.choose()
    assert (chosen.name, chosen.functions) == ("onednn", {"from": "onednn"})
    assert chosen.seconds == {"numpy": [1.0, 2.0], "mkl": [0.8, 1.6], "onednn": [0.6, 1.2]}
    assert measured == ["numpy", "mkl", "onednn"] * 2
    assert choice.choose()[::2] == chosen[::2]
    assert len(measured) == 6


def test_numpy_is_kept_if_the_gain_is_small(pretend: Any) -> None:
    pretend(numpy=1.0, onednn=0.95)
    assert choice.choose().name == "numpy"
    assert not choice.choose().functions


def test_other_settings_are_measured_again(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = pretend(numpy=1.0, mkl=0.5)
    choice.choose()
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    choice.choose()
    assert len(measured) == 8


def test_library_that_crashes_is_not_used(pretend: Any, caplog: pytest.LogCaptureFixture) -> None:
    measured = pretend(numpy=1.0, mkl=subprocess.CalledProcessError(-11, "measure", stderr="a trace"), onednn=0.5)
    chosen = choice.choose()
    assert chosen.name == "onednn"
    assert set(chosen.seconds) == {"numpy", "onednn"}
    assert "mkl could not be timed and is not used" in caplog.text
    assert "a trace" in caplog.text
    assert measured == ["numpy", "mkl", "onednn", "numpy", "onednn"]  # mkl is not tried again


def test_failed_measurement_is_not_cached(pretend: Any) -> None:
    """The next process measures again."""
    pretend(numpy=OSError("no processes here"), onednn=0.5)
    assert choice.choose() == ("numpy", {}, {})
    pretend(numpy=1.0, onednn=0.5)
    assert choice.choose().name == "onednn"


def test_broken_cache_file_is_replaced(pretend: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    measured = pretend(numpy=1.0, onednn=0.5)
    choice.choose()
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_text("{")
    assert choice.choose().name == "onednn"
    assert "measuring again" in caplog.text
    assert len(measured) == 8
    assert json.loads(cached.read_text())["onednn"] == [0.5, 1.0]


def test_two_processes_choose_alike(pretend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes measuring while this one still measures: this one uses the other's times."""
    pretend(numpy=1.0, onednn=0.5)
    real_measure = choice._measure

    def measure(names: list[str]) -> dict[str, list[float]]:
        result = real_measure(names)
        path = tmp_path / "cache" / f"blas-{choice._machine_key(libraries.installed())}.json"
        path.parent.mkdir()
        path.write_text('{"numpy": [1.0, 1.0], "onednn": [0.99, 0.99]}')
        return result

    monkeypatch.setattr(choice, "_measure", measure)
    assert choice.choose().name == "numpy"


def test_unwritable_cache(pretend: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pretend(numpy=1.0, onednn=0.5)
    (tmp_path / "cache").write_text("a file, not a folder")
    assert choice.choose().name == "onednn"
    assert "cannot cache the choice" in caplog.text


def test_invalid_library_names(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(numpy=1.0)
    monkeypatch.setenv("GPUNET_BLAS", "atlas")
    with pytest.raises(ArgumentError, match=r"GPUNET_BLAS='atlas'; expected one of auto, numpy, mkl, onednn"):
        choice.choose()
    monkeypatch.setenv("GPUNET_BLAS", "mkl")
    with pytest.raises(MissingDependencyError, match=r"'mkl', but that library is not installed: pip install 'gpunet\[mkl\]'"):
        choice.choose()


def test_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libdnnl.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(libraries, "installed", lambda: [libraries.Library("onednn", "1", broken, libraries._load_onednn)])
    with pytest.raises(MissingDependencyError, match=r"libdnnl.so cannot be loaded .*GPUNET_BLAS=numpy"):
        choice.load("onednn")


def test_measuring_numpy() -> None:
    assert all(0 < seconds < 10 for seconds in choice._measure_in_subprocess("numpy"))


def test_info_reports_the_choice_and_its_reason(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunet.tools import info

    monkeypatch.setattr(blas, "_chosen", None)
    pretend(numpy=1.0, onednn=0.5)
    assert info.blas()["large products"] == "onednn; measured times relative to NumPy: numpy 1.00, onednn 0.50"
    monkeypatch.setattr(blas, "_chosen", None)
    pretend(numpy=1.0)
    assert info.blas()["large products"].startswith("numpy; install 'gpunet[onednn]'")
    monkeypatch.setattr(blas, "_chosen", None)
    monkeypatch.setenv("GPUNET_BLAS", "numpy")
    assert info.blas()["large products"] == "numpy, set by GPUNET_BLAS"


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 1), (1, 1, 1), (2, 3, 1), (1, 3, 2)])
@pytest.mark.parametrize("zero", [0, 1])
def test_a_product_with_zero_keeps_nan(shape: tuple[int, int, int], zero: int) -> None:
    """numpy.dot by a matrix of one element skips the product if that element is 0."""
    m, k, n = shape
    operands = [numpy.full((m, k), numpy.nan), numpy.full((k, n), numpy.nan)]
    operands[zero][...] = 0.0
    out = numpy.zeros((m, n))
    blas.dot(*operands, out)
    assert numpy.isnan(out).all()


@pytest.mark.parametrize("backend", [None, "numpy", "numba"])
def test_a_linear_layer_of_one_feature_keeps_nan_and_inf(backend: str | None, device: str) -> None:
    one, wide = nn.Linear(1, 1, device=device), nn.Linear(2, 1, device=device)
    for parameter in one.parameters():
        nn.init.zeros_(parameter)

    def run(x: gpunet.Tensor, row: gpunet.Tensor) -> tuple[gpunet.Tensor, gpunet.Tensor]:
        wide.weight.grad = None
        (wide(row) * 0.0).sum().backward()
        return one(x), wide.weight.grad

    step = run if backend is None else gpunet.capture(run, backend=backend)
    for _ in range(3):
        out, gradient = step(gpunet.tensor([[1.0], [math.nan], [math.inf]]), gpunet.tensor([[1.0, math.inf]]))
        numpy.testing.assert_array_equal(out.detach().cpu().numpy(), [[0.0], [math.nan], [math.nan]])
        numpy.testing.assert_array_equal(gradient.cpu().numpy(), [[0.0, math.nan]])
