"""ONNX export and import: every layer, networks, dynamic sizes, files of PyTorch, errors."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import models, nn
from gpunet.captured.ir import tree_leaves
from gpunet.errors import ArgumentError, ExportError, FormatError, MissingDependencyError, OutOfRangeError
from gpunet.interop.onnx import check
from gpunet.vision import models as vision
from tests.interop.layers_to_export import LARGE, NETWORKS, ROWS, WITHOUT, Applied, Row, arguments, axes_of
from tests.test_examples import example

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import gpunet.onnx  # noqa: E402

NAMES = [f"x{i}" for i in range(4)]


def exported(case: Row, **options: Any) -> tuple[nn.Module, tuple[gpunet.Tensor, ...], Any]:
    """The model of a row, arguments, and the ONNX model, which onnxruntime has compared."""
    gpunet.manual_seed(0)
    model, args = case.make(), arguments(case)
    model.eval()(*(x.clone() for x in args))  # shapes of lazy modules
    names = NAMES[: len(args)]
    options = {"input_names": names, "dynamic_axes": axes_of(case, names), **options}
    return model, args, gpunet.onnx.export(model, args, **options)


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    mine, found = ([x.detach().numpy() for x in tree_leaves(value, gpunet.Tensor)] for value in (ours, theirs))
    assert [(x.shape, x.dtype) for x in mine] == [(x.shape, x.dtype) for x in found]
    for a, b in zip(mine, found):
        numpy.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * numpy.abs(a).max(initial=0.0))


# ---- all layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ROWS, *NETWORKS])
def test_layer_agrees_in_onnxruntime_and_when_loaded(name: str) -> None:
    model, args, proto = exported({**ROWS, **NETWORKS}[name])
    loaded = gpunet.onnx.load(proto.SerializeToString()).eval()
    assert_same(model(*(x.clone() for x in args)), loaded(*args))
    sizes = [d.dim_param for value in proto.graph.input for d in value.type.tensor_type.shape.dim]
    assert "batch" in sizes


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [
    {"do_constant_folding": False}, {"export_params": False}, {"opset_version": 21}, {"dynamic_axes": {}},
    {"keep_initializers_as_inputs": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", [*ROWS, *NETWORKS])
def test_layer_agrees_with_other_options(name: str, options: dict[str, Any]) -> None:
    exported({**ROWS, **NETWORKS}[name], **options)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", LARGE)
def test_network_of_full_size_agrees(name: str) -> None:
    exported(LARGE[name])


def test_every_module_has_a_row() -> None:
    kinds = {n for n in nn.__all__ if isinstance(getattr(nn, n, None), type) and issubclass(getattr(nn, n), nn.Module)}
    assert kinds - {name.split()[0] for name in ROWS} == {*WITHOUT}


def detector() -> nn.Module:
    return example("digit_detector").network()  # type: ignore[no-any-return]


#: Of each example its network, and the shape of an input.
EXAMPLES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "differential_equation": (
        lambda: nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)), (5, 1)
    ),
    "digit_detector": (detector, (2, 1, 32, 32)),
    "generate_digits": (lambda: models.VAE(image_size=8, latent=6, width=32, depth=1), (2, 1, 8, 8)),
    "image_classifier": (lambda: vision.CifarResNet(8, in_channels=1, width=16), (2, 1, 8, 8)),
    "image_fitting": (lambda: nn.Sequential(nn.Linear(34, 96), nn.ReLU(), nn.Linear(96, 3), nn.Sigmoid()), (7, 34)),
    "language_model": (lambda: models.GPT(29, context=32, depth=2, num_heads=4, width=64), (2, 32)),
    "lenet": (lambda: example("lenet").network(), (2, 1, 8, 8)),
    "residual_gradients": (lambda: vision.CifarResNet(32, in_channels=1, width=4), (2, 1, 8, 8)),
    "segmentation": (lambda: models.UNet(in_channels=1, num_classes=4, width=8, depth=3), (2, 1, 32, 32)),
    "step_by_step": (lambda: nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1)), (5, 1)),
    "time_series": (lambda: example("time_series").Predictor(), (2, 12, 1)),
    "vanishing_gradients": (
        lambda: nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(12)), nn.Linear(8, 1)), (4, 8)
    ),
}  # fmt: skip


def test_each_example_is_exported() -> None:
    folder = Path(__file__).parents[2] / "examples"
    assert {*EXAMPLES} == {path.stem for path in folder.glob("*.py")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_network_of_an_example_agrees(name: str) -> None:
    gpunet.manual_seed(0)
    make, shape = EXAMPLES[name]
    x = gpunet.randint(0, 29, shape) if name == "language_model" else gpunet.randn(*shape)
    gpunet.onnx.export(make(), x)


# ---- the file ---------------------------------------------------------------------------------------------------------


def test_names_shapes_and_parameters(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    path = tmp_path / "net.onnx"
    gpunet.onnx.export(model, gpunet.randn(2, 5), path, input_names=["features"], output_names=["scores"],
                       dynamic_axes={"features": {0: "n"}, "scores": {0: "n"}})  # fmt: skip
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [v.name for v in proto.graph.input] == ["features"] and [v.name for v in proto.graph.output] == ["scores"]
    values = (*proto.graph.input, *proto.graph.output)
    assert [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values] == [["n", 5], ["n", 3]]
    assert {t.name for t in proto.graph.initializer} == {*model.state_dict()}
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "Relu", "Gemm"]
    assert os.listdir(tmp_path) == ["net.onnx"]
    buffer = io.BytesIO()
    gpunet.onnx.export(model, (gpunet.randn(2, 5),), buffer)
    assert onnx.load_from_string(buffer.getvalue()).graph.input[0].name == "input"


def test_names_of_outputs_are_kept() -> None:
    """Names that operators, parameters or inputs would have."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    for name in ("relu", "gemm", "0.weight", "constant"):
        assert gpunet.onnx.export(model, gpunet.randn(2, 3), output_names=[name]).graph.output[0].name == name
    model = Applied(lambda m, x: (x * m.output).relu(), nn.ReLU())
    model.inner.output = nn.Parameter(gpunet.ones(3))
    model.output = model.inner.output
    proto = gpunet.onnx.export(model, gpunet.randn(2, 3))
    assert [value.name for value in proto.graph.output] == ["model_output"]
    assert [value.name for value in proto.graph.initializer] == ["output"]
    assert gpunet.onnx.export(nn.ReLU(), gpunet.randn(2), input_names=["output"]).graph.output[0].name == "model_output"


EXPORTS = (gpunet.onnx.export, gpunet.export_c)


@pytest.mark.parametrize("export", EXPORTS)
def test_lazy_module_that_has_not_run(export: Any) -> None:
    with pytest.raises(ArgumentError, match=r"'0\.weight' of the model has no shape yet, .*; call the model once before"):
        export(nn.Sequential(nn.LazyLinear(3)), gpunet.randn(2, 3))


@pytest.fixture
def process_group() -> Iterator[None]:
    gpunet.distributed.init_process_group()
    yield
    gpunet.distributed.destroy_process_group()


def test_arguments_of_pytorch_without_effect() -> None:
    gpunet.onnx.export(nn.Linear(3, 2), gpunet.randn(2, 3), dynamo=False, external_data=False, optimize=False)
    with pytest.raises(TypeError, match="training"):
        gpunet.onnx.export(nn.Linear(3, 2), gpunet.randn(2, 3), training=1)  # type: ignore[call-arg]


def test_what_is_in_a_model_for_several_processes(process_group: None) -> None:
    inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for model in (nn.parallel.DistributedDataParallel(inner), nn.DataParallel(inner)):
        proto = gpunet.onnx.export(model, gpunet.randn(2, 3))
        assert {tensor.name for tensor in proto.graph.initializer} == {k for k in inner.state_dict() if "num_batches" not in k}
        assert "in 0 (Linear)" in gpunet.export_c(model, gpunet.randn(2, 3)) and model.training and inner.training


@pytest.mark.parametrize("export", EXPORTS)
def test_missing_folder_is_named(export: Any, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "net"
    with pytest.raises(FileNotFoundError) as caught:
        export(nn.Linear(3, 2), gpunet.randn(2, 3), path)
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{path}'"


def test_static_sizes_and_opsets() -> None:
    proto = gpunet.onnx.export(nn.Linear(3, 2), gpunet.randn(4, 3), dynamic_axes={}, opset_version=20)
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [4, 3]
    assert proto.opset_import[0].version == 20 and proto.ir_version <= 9


def test_two_dynamic_dimensions() -> None:
    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, tokens: Any) -> Any:
            x = self.table(tokens) + gpunet.arange(tokens.shape[1]).unsqueeze(-1)
            return self.layer(x).mean(1) / tokens.shape[1]

    tokens = gpunet.randint(0, 11, (2, 6))
    proto = gpunet.onnx.export(Texts(), tokens, dynamic_axes={"tokens": {0: "batch", 1: "length"}})
    model = gpunet.onnx.load(proto.SerializeToString())
    assert model.input_shapes == (("batch", "length"),) and model(gpunet.randint(0, 11, (5, 3))).shape == (5, 8)


def runs(proto: Any, *args: gpunet.Tensor) -> numpy.ndarray:
    """The first result of onnxruntime."""
    session = check.session(proto.SerializeToString())
    found: numpy.ndarray = session.run(None, {value.name: x.numpy() for value, x in zip(session.get_inputs(), args)})[0]
    return found


def pooled(dims: int, pool: Any) -> nn.Module:
    """Three poolings by 2, then one number of each channel."""
    conv, halve = (nn.Conv1d, nn.MaxPool1d) if dims == 1 else (nn.Conv2d, nn.MaxPool2d)
    return nn.Sequential(conv(1, 4, 3, padding=1), halve(2), halve(2), halve(2), pool(1), nn.Flatten(), nn.Linear(4, 3))


def strided_tokens() -> nn.Module:
    """A strided convolution whose pixels are a sequence, as in a vision transformer."""
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.Conv2d(4, 4, 2))
    return Applied(lambda m, x: m(x).flatten(2).transpose(1, 2).softmax(1), convolutions)


PLANES = {0: "batch", 2: "height", 3: "width"}
#: model -> the shape with which it is exported, its dynamic dimensions, other shapes
RESIZED: dict[str, tuple[Any, tuple[int, ...], dict[int, str], list[tuple[int, ...]]]] = {
    "mean of images": (lambda: pooled(2, nn.AdaptiveAvgPool2d), (1, 1, 16, 16), PLANES, [(1, 1, 32, 32), (3, 1, 47, 24)]),
    "largest of images": (lambda: pooled(2, nn.AdaptiveMaxPool2d), (1, 1, 64, 64), PLANES, [(4, 1, 96, 95), (1, 1, 9, 15)]),
    "mean of signals": (lambda: pooled(1, nn.AdaptiveAvgPool1d), (4, 1, 16), {0: "n", 2: "length"}, [(4, 1, 40), (1, 1, 31)]),
    "strided": (lambda: nn.Conv2d(1, 2, 2, 2), (1, 1, 8, 8), PLANES, [(1, 1, 16, 16), (2, 1, 31, 5)]),
    "sequence of pixels": (strided_tokens, (2, 1, 10, 12), PLANES, [(1, 1, 31, 20), (3, 1, 8, 47)]),
    "average windows": (lambda: nn.AvgPool2d(3, 2), (1, 2, 9, 9), PLANES, [(2, 2, 20, 31)]),
    "UNet": (lambda: models.UNet(1, 2, width=4, depth=3), (1, 1, 16, 16), PLANES, [(1, 1, 32, 32), (2, 1, 8, 40)]),
}  # fmt: skip


@pytest.mark.parametrize("name", RESIZED)
def test_sizes_behind_a_division(name: str) -> None:
    make, shape, axes, others = RESIZED[name]
    gpunet.manual_seed(0)
    model = make().eval()
    proto = gpunet.onnx.export(model, gpunet.randn(*shape), input_names=["x"], dynamic_axes={"x": axes})
    for other in others:
        x = gpunet.randn(*other)
        with gpunet.no_grad():
            expected = model(x).numpy()
        numpy.testing.assert_allclose(runs(proto, x), expected, rtol=1e-4, atol=1e-5)
    if "of images" in name:
        assert [node.op_type for node in proto.graph.node if node.op_type.startswith("Global")]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, : max(1, x.shape[1] // 4)].mean(1), "a number is 2 for n=8 and 4 for n=17 and 8 for n=35; expected"),
        (lambda x: x[:, -min(x.shape[1], 16) :].mean(1), "a number is -8 for n=8 and -9 for n=9 and -16 for n=17"),
        (lambda x: nn.functional.max_pool1d(x[:, None], 2, ceil_mode=True), "of dynamic sizes, some of which have a window more"),
        (lambda x: x * x.shape[1] if x.shape[1] < 12 else x, "the model runs 1 ops with n=8, and 0 with n=17"),
        (lambda x: x.reshape(3, 8), r"does not run with n=9 \(ShapeError: reshape: .*dynamic_axes=\{\}"),
    ],
)  # fmt: skip
def test_sizes_that_are_no_multiple_are_refused(function: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        gpunet.onnx.export(Applied(function), gpunet.randn(3, 8), input_names=["x"], dynamic_axes={"x": {1: "n"}})


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (lambda x: x.reshape(1, 3), [(1, 3)], r"does not run with batch=2 .*; it was given batch=1\. Fix .*dynamic_axes="),
        (lambda x, y: x.sum() + y.sum(), [(10, 3), (20, 3)], "size 20 .*, and 10 in another one; name .* by dynamic_axes="),
        (lambda x: x.squeeze(), [(1, 3)], r"'output' has shape \(1, 3\) for batch=1; the model's has \(3,\)\. .*dynamic_axes=\{\}"),
    ],
)
def test_messages_name_dynamic_axes(function: Any, args: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        gpunet.onnx.export(Applied(function), tuple(gpunet.randn(*shape) for shape in args))


def test_nested_arguments_and_outputs() -> None:
    model = Applied(lambda m, pair, flag, scale: {"a": m(pair[0]) * scale, "b": (pair[1],)} if flag else None, nn.Linear(3, 2))
    proto = gpunet.onnx.export(model, ((gpunet.randn(4, 3), gpunet.randn(4, 2)), True, 2.0))
    assert [v.name for v in proto.graph.input] == ["inputs_0_0", "inputs_0_1"]
    assert [v.name for v in proto.graph.output] == ["output_0", "output_1"]


def test_modes_are_restored() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gpunet.onnx.export(model, gpunet.randn(4, 3))
    assert [m.training for m in model] == [True, False, True] and model.training
    assert all((value == before[key]).all() for key, value in model.state_dict().items())
    assert not any(m.has_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())
    with pytest.raises(ExportError):
        gpunet.onnx.export(nn.Sequential(model, Applied(gpunet.fft.rfft)), gpunet.randn(4, 3))
    assert [m.training for m in model] == [True, False, True] and not any(m.has_hooks for m in model.modules())


def test_arguments_are_not_changed() -> None:
    x = gpunet.randn(3, 4)
    before = x.clone()
    gpunet.onnx.export(Applied(lambda x: x.mul_(2).relu_()), x)
    assert (x == before).all() and not x.requires_grad


# ---- what a graph cannot express --------------------------------------------------------------------------------------


def branch(x: Any) -> Any:
    return x if x.sum().item() > 0 else -x


def part_in_place(x: Any) -> Any:
    z = x.clone()
    z[:, 0].mul_(2)
    return z


def detached(x: Any) -> Any:
    x = x.detach()
    return x.add_(1) * x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (branch, r"item\(\).* cannot be exported \(in the model \(Applied\)\)"),
        (lambda x: x[x > 0], "indexing with a boolean mask"),
        (part_in_place, "a change in place cannot be exported: mul_ on a view"),
        (lambda x: x + gpunet.rand(4), r"add \(in the model \(Applied\)\) reads a constant of shape \(4,\).* draws random numbers"),
        (lambda x: nn.functional.dropout(x, 0.5, True), "dropout has no translation to ONNX.*in the model"),
        (lambda x: gpunet.linalg.inv(x[:, :3, None] @ x[:, None, :3]), "translation|cannot be exported"),
        (lambda x: gpunet.fft.rfft(x).abs(), r"no translation to ONNX \(op 'real_fft', in the model \(Applied\)\)"),
        (lambda x: x * gpunet.tensor([float(i * i) for i in range(len(x))]).unsqueeze(1), "depends on the dynamic dimension"),
        (lambda x: sum(x[i] for i in range(len(x))), "the model runs .* ops with batch=3, and .* with batch=4"),
    ],
)
def test_what_is_refused(function: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        gpunet.onnx.export(Applied(function), gpunet.randn(3, 4))


def stale(x: Any) -> Any:
    y = x.clone()
    view = y[:, 1:]
    y += 1  # changes the view
    return view.detach() * 2


def on_a_view(x: Any) -> Any:
    z = x.clone().view(-1)
    z.mul_(2)  # which autograd refuses if a gradient is required
    return z.reshape(x.shape) + x


def test_memory_written_outside_of_ops_is_known() -> None:
    def partly(x: Any) -> Any:
        with gpunet.no_grad():
            y = x.clone()
            y[:, 0] = 1.0  # a launch on a part of what depends on the input
        return y + 1

    def copied(x: Any) -> Any:
        with gpunet.no_grad():
            y = x.clone()
            y[:, 0].copy_(gpunet.ones(3)[0])
        return y + 1

    topmost = lambda x: (x.sort(1).values * x.sort(1, True).indices, x.topk(2, 1).values, x.median(1).values)  # noqa: E731
    triangles = lambda x: (x.unsqueeze(1) * x.unsqueeze(2)).tril()  # noqa: E731  masks of the size of the batch
    twice = lambda x: (x.exp(),) * 2  # noqa: E731
    counted = lambda x: x * (gpunet.arange(x.shape[0]) ** 2).unsqueeze(1)  # noqa: E731
    compared = lambda x: (x > 0).float() + (x.argmax(1, keepdim=True) == 1)  # noqa: E731
    known: tuple[Any, ...] = (
        on_a_view, detached, lambda x: x.view(-1).add(1).view(x.shape), compared, counted, topmost, triangles, twice, stale
    )
    for function in known:
        gpunet.onnx.export(Applied(function), gpunet.randn(3, 4))
    for function in (partly, copied):
        with pytest.raises(ExportError, match="cannot be exported"):
            gpunet.onnx.export(Applied(function), gpunet.randn(3, 4))


@pytest.mark.parametrize("name", ["add", "copy", "argmax"])
def test_kernel_of_the_user_with_a_name_of_gpunet_is_refused(name: str) -> None:
    source = f"template <class T> __global__ void {name}(T* y, const T* a, const T* b, long long n) {{}}"
    op = gpunet.cuda_op(source, launch=lambda y: {"grid": 1, "block": 1, "n": y.size}, twin=lambda a, b: a - b)
    for export in (gpunet.onnx.export, gpunet.export_c):
        with pytest.raises(ExportError, match=rf"cuda_op '{name}' cannot be exported \(in the model \(Applied\)\)"):
            export(Applied(lambda x: op(x, x * 2)), gpunet.randn(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset_version": 11}, "opset_version=11; expected 18 to 21"),
        ({"input_names": ["a", "b"]}, r"input_names=\['a', 'b'\]; expected 1 name"),
        ({"output_names": ["input"]}, "'input' names an input and an output"),
        ({"dynamic_axes": {"y": {0: "n"}}}, "dynamic_axes has 'y'; the inputs are input"),
        ({"dynamic_axes": {"output_typo": {0: "n"}}}, "'output_typo'; the inputs are input, and the outputs output"),
        ({"dynamic_axes": {"input": {2: "n"}}}, "expected dimensions of"),
        ({"dynamic_shapes": ({}, {})}, "expected one entry for each of 1 tensors"),
        ({"dynamic_shapes": ({0: "n"},), "dynamic_axes": {}}, "got both"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        gpunet.onnx.export(nn.Linear(3, 2), gpunet.randn(4, 3), **options)
    for model, args in ((3, gpunet.randn(4, 3)), (nn.Linear(3, 2), ())):
        with pytest.raises(ArgumentError, match="expected"):
            gpunet.onnx.export(model, args)  # type: ignore[arg-type]


def test_a_difference_is_found_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunet.interop.onnx.builder import TRANSLATIONS

    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")
    monkeypatch.setitem(TRANSLATIONS, "activation", lambda b, node, x: b.add("Tanh", x))
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with pytest.raises(ExportError, match="the results of the exported model differ for batch=4: 'output' by"):
        gpunet.onnx.export(model, gpunet.randn(4, 3), path)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["net.onnx"]
    gpunet.onnx.export(model, gpunet.randn(4, 3), path, verify=False)
    assert path.read_bytes() != b"before"


def test_a_result_that_depends_on_the_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger batch shows what the traced ones do not: here the translation of a mean is wrong for more than four rows."""
    from gpunet.interop.onnx.builder import TRANSLATIONS

    monkeypatch.setitem(TRANSLATIONS, "mean", lambda b, node, x: b.add("Div", b.add("ReduceSum", x, b.integers([0]), keepdims=0),
                                                                          b.constant(4, numpy.float32)))  # fmt: skip
    with pytest.raises(ExportError, match="differ for batch=6"):
        gpunet.onnx.export(Applied(lambda x: x.mean(0)), gpunet.randn(4, 3))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == package or n.startswith("gpunet.interop.onnx.writer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(gpunet.interop.onnx, "writer", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match=r"pip install 'gpunet\[onnx\]'"):
        gpunet.onnx.export(nn.Linear(3, 2), gpunet.randn(4, 3))


def test_tolerance() -> None:
    a = numpy.array([1.0, -2.0, numpy.inf, numpy.nan], numpy.float32)
    check._compare("y", a, a + numpy.float32(1.5e-5), {})
    for other in (a + numpy.float32(5e-5), numpy.array([1.0, -2.0, 3.0, numpy.nan], numpy.float32), a[:3]):
        with pytest.raises(ExportError):
            check._compare("y", a, other, {})
    ours, exact = numpy.array([1.0, 1e-3], numpy.float32), numpy.array([1.0, 1e-3 + 3e-5])
    # nearer to the exact result than ours
    check._compare("y", ours, numpy.array([1.0, 1e-3 + 5e-5], numpy.float32), {}, lambda: exact)
    with pytest.raises(ExportError, match="by 5e-05, where the largest element is 1"):
        check._compare("y", ours, numpy.array([1.0, 1e-3 - 5e-5], numpy.float32), {}, lambda: exact)


# ---- import -----------------------------------------------------------------------------------------------------------


def test_loaded_model_trains_like_the_original() -> None:
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    x, y = gpunet.randn(6, 1, 8, 8), gpunet.randint(0, 3, (6,))
    loaded = gpunet.onnx.load(gpunet.onnx.export(model, x).SerializeToString())
    assert {*loaded.state_dict()} == {key for key in model.state_dict() if "num_batches" not in key}
    losses = []
    for net in (model.train(), loaded.train()):
        optimizer = gpunet.optim.SGD(net.parameters(), lr=0.1)
        step = gpunet.capture(lambda x, y, net=net, optimizer=optimizer: train(net, optimizer, x, y))
        losses.append([step(x, y).item() for _ in range(4)])
    numpy.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    mine, theirs = model.state_dict(), loaded.state_dict()
    for key in theirs:
        numpy.testing.assert_allclose(theirs[key].numpy(), mine[key].numpy(), rtol=1e-4, atol=1e-5)


def test_loaded_model_predicts_as_it_is() -> None:
    """It is in eval mode: batch norms keep their statistics, and dropout does nothing."""
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout())
    for _ in range(3):
        model(gpunet.randn(64, 3) * 3 + 1)
    loaded = gpunet.onnx.load(gpunet.onnx.export(model, gpunet.randn(2, 3)).SerializeToString())
    before, x = {key: value.clone() for key, value in loaded.state_dict().items()}, gpunet.randn(5, 3)
    assert not loaded.training
    assert_same(model.eval()(x), loaded(x))
    assert all((value == before[key]).all() for key, value in loaded.state_dict().items())
    loaded.train()(x)
    assert not (loaded.state_dict()["1.running_mean"] == before["1.running_mean"]).all()


def train(net: nn.Module, optimizer: Any, x: Any, y: Any) -> Any:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_derived_weights_are_parameters() -> None:
    """Folded weights train, too, and equal ones are one parameter."""
    model = Applied(lambda m, x: m(x)[0], nn.LSTM(3, 5, proj_size=2, batch_first=True))
    loaded = gpunet.onnx.load(gpunet.onnx.export(model, gpunet.randn(2, 6, 3)).SerializeToString())
    assert len([*loaded.parameters()]) == 5
    loaded(gpunet.randn(2, 4 + 2, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max().item() > 0 for p in loaded.parameters())


def test_call_of_a_loaded_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    gpunet.onnx.export(nn.Bilinear(3, 4, 2), (gpunet.randn(5, 3), gpunet.randn(5, 4)), path)
    model = gpunet.onnx.load(path)
    a, b = gpunet.randn(2, 3), gpunet.randn(2, 4)
    assert (model(a, b) == model(input2=b, input1=a)).all() and "inputs=input1, input2" in repr(model)
    for args, kwargs in (((a,), {}), ((a, b, b), {}), ((a, b), {"input1": a}), ((a,), {"other": b})):
        with pytest.raises(ArgumentError, match="expected input1, input2"):
            model(*args, **kwargs)
    with pytest.raises(FormatError, match="node .*: "):
        model(gpunet.randn(2, 7), b)
    with pytest.raises(OutOfRangeError):
        gpunet.onnx.load(gpunet.onnx.export(nn.Embedding(4, 2), gpunet.tensor([1])).SerializeToString())(gpunet.tensor([9]))


def of_one_node(operator: str, inputs: list[tuple[str, Any]], outputs: list[str], opset: int = 18, **attributes: Any) -> Any:
    """The model of a node with the input x of float32, initializers, and its last output."""
    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node(operator, ["x", *(name for name, _ in inputs)], outputs, **attributes)
    tensors = [onnx.numpy_helper.from_array(numpy.asarray(value), name) for name, value in inputs if name]
    x, y = (helper.make_tensor_value_info(name, kind.FLOAT, None) for name in ("x", outputs[-1]))
    graph = helper.make_graph([node], "one node", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


_STATISTICS = [(name, numpy.ones(2, numpy.float32)) for name in "wbmv"]
_SCALES = [("", None), ("scales", numpy.array([1, 1, 2, 2], numpy.float32))]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "message"),
    [
        ("BatchNormalization", _STATISTICS, {"training_mode": 1}, "training_mode=1"),
        ("Resize", _SCALES, {"mode": "cubic", "exclude_outside": 1}, "exclude_outside=1"),
        ("Resize", _SCALES, {"mode": "linear", "antialias": 1}, "antialias=1"),
        ("LayerNormalization", _STATISTICS[:2], {"stash_type": 10}, "stash_type=10"),
        ("DepthToSpace", [], {"blocksize": 2, "mode": "other"}, "mode='other'"),
        ("GRU", _STATISTICS[:2], {"direction": "sideways"}, "direction='sideways'"),
    ],
)  # fmt: skip
def test_attributes_without_an_implementation_are_refused(operator: str, inputs: Any, attributes: Any, message: str) -> None:
    content = of_one_node(operator, inputs, ["y"], **attributes).SerializeToString()
    with pytest.raises(FormatError, match=rf"^the file: node 0 \({operator}\): {message} is not supported$"):
        gpunet.onnx.load(content)


def test_inputs_without_an_implementation_are_refused() -> None:
    dropout = of_one_node("Dropout", [("ratio", numpy.float32(0.5)), ("mode", numpy.bool_(True))], ["y"])
    resize = of_one_node("Resize", [("", None), ("", None), ("sizes", numpy.array([1, 1, 1, 1]))], ["y"], mode="linear",
                         coordinate_transformation_mode="pytorch_half_pixel")  # fmt: skip
    norm = of_one_node("LayerNormalization", _STATISTICS[:2], ["z", "mean", "y"])
    messages = (r"\(Dropout\): training_mode=True", r"\(Resize\): .* to one pixel", r"has 1 results; the output 'mean'")
    for proto, message in zip((dropout, resize, norm), messages):
        with pytest.raises(FormatError, match=rf"^the file: node 0 .*{message} is not supported$"):
            gpunet.onnx.load(proto.SerializeToString())(gpunet.randn(1, 1, 4, 2))


def test_split_into_unequal_parts_and_power_of_integers() -> None:
    split, x = of_one_node("Split", [], ["a", "b", "c"], num_outputs=3), gpunet.randn(5)
    numpy.testing.assert_array_equal(gpunet.onnx.load(split.SerializeToString())(x).numpy(), runs(split, x))
    many = gpunet.onnx.load(of_one_node("Split", [], ["a", "b", "c", "d"], num_outputs=4).SerializeToString())
    assert many(x).shape == (0,)
    power = of_one_node("Pow", [("exponent", numpy.float32(2.0))], ["y"])
    found = gpunet.onnx.load(power.SerializeToString())(gpunet.tensor([1, 2, 3]))
    assert found.dtype == gpunet.int64 and found.tolist() == [1, 4, 9]


def torch_models(torch: Any) -> dict[str, tuple[Any, Any]]:
    t = torch.nn
    cnn = [t.Conv2d(3, 8, 3, 2, 1), t.BatchNorm2d(8), t.ReLU6(), t.MaxPool2d(2), t.ConvTranspose2d(8, 4, 2, 2), t.GroupNorm(2, 4),
           t.Hardswish(), t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(4, 2)]  # fmt: skip
    signals = [t.Conv1d(3, 4, 3, padding="same"), t.InstanceNorm1d(4, affine=True), t.PReLU(4), t.AvgPool1d(3, 2, 1, False, False)]
    return {
        "mlp": (t.Sequential(t.Linear(5, 7), t.GELU(), t.Dropout(), t.Linear(7, 3), t.LogSoftmax(1)), torch.randn(4, 5)),
        "cnn": (t.Sequential(*cnn), torch.randn(2, 3, 16, 16)),
        "signals": (t.Sequential(*signals), torch.randn(2, 3, 9)),
        "lstm": (t.LSTM(3, 5, 2, bidirectional=True), torch.randn(6, 2, 3)),
        "gru": (t.GRU(3, 5, batch_first=True), torch.randn(2, 6, 3)),
        "texts": (t.Sequential(t.Embedding(11, 8), t.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)),
                  torch.randint(0, 11, (3, 5))),
        "upsampled": (t.Sequential(t.Upsample(None, 2, "bilinear"), t.ReflectionPad2d(2), t.Upsample(None, 2)),
                      torch.randn(2, 3, 4, 5)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "cnn", "signals", "lstm", "gru", "texts", "upsampled"])
def test_files_of_pytorch(name: str, torch: Any) -> None:
    model, x = torch_models(torch)[name]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (x,), file, opset_version=17, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    with torch.no_grad():
        expected = [*tree_leaves(model(x), torch.Tensor)]
    found = [*tree_leaves(gpunet.onnx.load(io.BytesIO(file.getvalue())).eval()(gpunet.from_numpy(x.numpy())), gpunet.Tensor)]
    for a, b in zip(expected, found, strict=True):
        numpy.testing.assert_allclose(b.detach().numpy(), a.numpy(), rtol=1e-5, atol=2e-6)


def test_the_page_lists_the_operators() -> None:
    from gpunet.interop.onnx.module import OPERATORS  # with all operators, which that module imports

    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    listed = page.partition("versions 13 to 23 of the operators:")[2].partition("A file is data")[0]
    assert [*OPERATORS] and listed.replace("`", "").split() == sorted(OPERATORS)
