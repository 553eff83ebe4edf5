"""C export: what gcc compiles without a warning computes what the library computes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, ExportError
from gpunet.vision import models as vision
from tests.interop.layers_to_export import NETWORKS, ROWS, Applied, Row, arguments, normal, trained, trained_norms

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99")
FLOATS = ctypes.POINTER(ctypes.c_float)

#: Rows that the quick tier compiles, one of each translation at least.
QUICK = (
    "CELU", "GELU", "GELU tanh", "Hardtanh", "LogSoftmax", "Mish", "PReLU", "Softmax", "Softplus", "Tanh", "Linear of sequences",
    "Conv1d", "Conv2d strided", "Conv2d reflect", "Conv3d", "ConvTranspose2d grouped", "ConvTranspose3d", "MaxPool2d ceil",
    "AvgPool2d inner", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "BatchNorm2d", "InstanceNorm1d", "GroupNorm", "LayerNorm",
    "RMSNorm", "Fold", "Unfold", "PixelShuffle", "UpsamplingBilinear2d", "Upsample bicubic", "MultiheadAttention", "RNNCell",
    "causal Transformer",
)  # fmt: skip
#: Rows without a translation, and a part of the message.
REFUSED = {
    "Embedding": "the input has dtype int64", "GPT": "the input has dtype int64", "MaxUnpool2d": "of dtype int32,",
    "Bilinear": "takes 2 tensors", "LSTM": "returns 3 tensors",
}  # fmt: skip


def compiled(model: nn.Module, x: gpunet.Tensor, folder: Path, name: str = "net", optimize: str = "-O1") -> Any:
    """The C function of a model, as a function of arrays."""
    source, library = folder / "net.c", folder / "net.so"
    text = gpunet.export_c(model, x, source, name=name)
    assert source.read_text() == text
    command = ["gcc", *STRICT, optimize, "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    function = getattr(ctypes.CDLL(str(library)), name)

    def call(array: numpy.ndarray, shape: tuple[int, ...]) -> numpy.ndarray:
        y = numpy.full(shape, 7.0, numpy.float32)
        function(numpy.ascontiguousarray(array).ctypes.data_as(FLOATS), y.ctypes.data_as(FLOATS))
        return y

    return call


def assert_agrees(case: Row, folder: Path) -> None:
    gpunet.manual_seed(0)
    model, (x,) = case.make(), arguments(case)
    model.eval()(x.clone())  # shapes of lazy modules
    call = compiled(model, x, folder)
    for seed in (0, 1):  # the second call meets what the first has left in the buffer
        (x,) = arguments(case, seed)
        with gpunet.no_grad():
            expected = model(x.clone()).numpy()
        assert numpy.abs(call(x.numpy(), expected.shape) - expected).max() <= 1e-6 * numpy.abs(expected).max()


@pytest.mark.parametrize("name", [*QUICK, "residual in place", "LeNet", "U-Net", "VisionTransformer"])
def test_layer_agrees(name: str, tmp_path: Path) -> None:
    assert_agrees({**ROWS, **NETWORKS}[name], tmp_path)


def supported(case: Row) -> bool:
    """Whether a module takes one tensor of floating numbers and returns one."""
    args = arguments(case)
    return len(args) == 1 and args[0].is_floating_point() and isinstance(case.make().eval()(*args), gpunet.Tensor)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*ROWS, *NETWORKS])
def test_every_layer_agrees(name: str, tmp_path: Path) -> None:
    case = {**ROWS, **NETWORKS}[name]
    if supported(case) and not name.startswith("MaxUnpool"):
        assert_agrees(case, tmp_path)
        return
    model, args = case.make(), arguments(case)
    model.eval()(*(x.clone() for x in args))  # shapes of lazy modules
    refused = r"the input has dtype|takes \d tensors|returns \d tensors|has no translation to C|cannot be exported"
    with pytest.raises(ExportError, match=refused):
        gpunet.export_c(model, args)


def test_trained_network_agrees(tmp_path: Path) -> None:
    """A convolutional net with batch norm, pooling and softmax, compiled with all optimizations."""
    gpunet.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), trained(nn.BatchNorm2d(8)), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.SiLU(),
              nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 10), nn.Softmax(1)]  # fmt: skip
    model, x = nn.Sequential(*layers).eval(), gpunet.randn(3, 1, 16, 16)
    call = compiled(model, x, tmp_path, "classify", "-O3")
    with gpunet.no_grad():
        expected, exact = model(x).numpy(), model.double()(x.double()).numpy()
    found = call(x.numpy(), expected.shape)
    assert numpy.abs(found - expected).max() <= 1e-6 * expected.max() and numpy.abs(found - exact).max() <= 1e-6 * exact.max()


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", [vision.resnet20, vision.MobileNetV2])
def test_deep_network_agrees(make: Any, tmp_path: Path) -> None:
    assert_agrees(Row(lambda: trained_norms(make()), normal((1, 3, 32, 32))), tmp_path)


def test_the_file() -> None:
    text = gpunet.export_c(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), gpunet.randn(1, 3), name="my_net")
    assert "void my_net(const float* x, float* y) {" in text and text.count("#include") == 1 and text.isascii()
    assert "malloc" not in text and "_0_weight[6] = {" in text


def test_inputs_and_constants_as_outputs(tmp_path: Path) -> None:
    x = gpunet.randn(2, 3)
    for number, function in enumerate((lambda x: x, lambda x: x.reshape(3, 2), lambda x: gpunet.ones(2, 2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        expected = function(x).numpy()
        assert (compiled(Applied(function), x, folder)(x.numpy(), expected.shape) == expected).all()


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    model = Applied(lambda x: gpunet.where(x > 0, x, float("inf")) * gpunet.tensor([1.0, float("nan"), -float("inf")]))
    x = gpunet.tensor([[1.0, 2.0, -3.0]])
    numpy.testing.assert_array_equal(compiled(model, x, tmp_path)(x.numpy(), (1, 3)), model(x).numpy())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    case = {**ROWS, **NETWORKS}[name]
    with pytest.raises(ExportError, match=REFUSED[name]):
        gpunet.export_c(case.make(), arguments(case))


def test_refusal_names_op_and_module() -> None:
    with pytest.raises(ExportError, match=r"argmax cannot be exported|argmax.* no translation to C .*in 1 \(Applied\)"):
        gpunet.export_c(nn.Sequential(nn.Linear(3, 3), Applied(lambda x: x + x.argmax(1, keepdim=True))), gpunet.randn(2, 3))
    with pytest.raises(ExportError, match="has dtype float64; expected float32"):
        gpunet.export_c(nn.Linear(3, 3).double(), gpunet.randn(2, 3).double())
    with pytest.raises(ExportError, match=r"dropout.* no translation to C"):
        gpunet.export_c(Applied(lambda x: nn.functional.dropout(x, 0.5, True)), gpunet.randn(2, 3))


@pytest.mark.parametrize("name", ["", "1net", "my net", "int", "é", 3])
def test_name_is_checked(name: Any) -> None:
    with pytest.raises(ArgumentError, match="expected an identifier of C"):
        gpunet.export_c(nn.Linear(3, 2), gpunet.randn(2, 3), name=name)


@pytest.mark.parametrize("name", ["exp", "sinf", "gamma", "isnan", "printf", "t0", "p0_weight", "_Bool", "__net", "NAN", "M_PI"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"name='{name}' is a name of C's library .*pass another one, such as 'net_"):
        gpunet.export_c(nn.Linear(3, 2), gpunet.randn(2, 3), name=name)


BOOLEANS = {
    "cast": lambda x: x.bool().float(), "sum": lambda x: ((x > 0) + (x > 1)).float(),
    "product": lambda x: ((x > 0) * (x < 2)).float(), "factor": lambda x: x.bool() * 1.5,
    "choice": lambda x: gpunet.where(x.bool(), x, 1.0), "chosen": lambda x: gpunet.where(x > 1, x > 2, x < 0).float(),
    "equality": lambda x: (x.bool() == (x > -10)).float(),
}  # fmt: skip


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans_are_0_and_1(name: str, tmp_path: Path) -> None:
    x = gpunet.tensor([[2.5, 0.0, -3.0, 1.0, 0.5]])
    expected = BOOLEANS[name](x).numpy()
    numpy.testing.assert_array_equal(compiled(Applied(BOOLEANS[name]), x, tmp_path)(x.numpy(), expected.shape), expected)


@pytest.mark.parametrize(("mean", "variance"), [(2000.0, 25.0), (1e4, 1.0), (101325.0, 1e4)])
def test_batch_norm_of_large_means(mean: float, variance: float, tmp_path: Path) -> None:
    gpunet.manual_seed(0)
    model = trained(nn.BatchNorm1d(4)).eval()
    model.running_mean.fill_(mean)
    model.running_var.fill_(variance)
    x = mean + gpunet.randn(8, 4) * variance**0.5
    with gpunet.no_grad():
        expected, exact = model(x).numpy(), model.double()(x.double()).numpy()
    found = compiled(model.float(), x, tmp_path)(x.numpy(), expected.shape)
    assert numpy.abs(found - exact).max() <= 1e-6 * numpy.abs(exact).max()


def test_standard_deviation_and_variance(tmp_path: Path) -> None:
    x = gpunet.randn(3, 5)
    model = Applied(lambda x: x.std(1) * x.var(1))
    numpy.testing.assert_allclose(compiled(model, x, tmp_path)(x.numpy(), (3,)), model(x).numpy(), rtol=1e-6)


def test_modes_are_restored() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    model[1].eval()
    gpunet.export_c(model, gpunet.randn(2, 3))
    assert [m.training for m in model] == [True, False] and not any(m.has_hooks for m in model.modules())
