"""Invalid arguments: the message names the value and the way out, and no state changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import emulator, nn
from gpunet.errors import (
    ArgumentError,
    DeviceError,
    DtypeError,
    GpunetError,
    GradientError,
    LabelError,
    LaunchError,
    OutOfRangeError,
    ShapeError,
    StateDictError,
)
from gpunet.launch.tape import Tape, record
from gpunet.ops.activations import activation_forward
from gpunet.optim.sgd import sgd_step

F = nn.functional


def x23() -> gpunet.Tensor:
    return gpunet.ones(2, 3)


#: name -> (call, exception type, built-in type that it also is, pattern of the message).
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], type[Exception], str]] = {
    "matmul": (lambda: x23() @ x23(), ShapeError, ValueError, r"matmul: shapes \(2, 3\) and \(2, 3\).*\(3\).*\(2\)"),
    "matmul batches": (lambda: gpunet.ones(2, 1, 1) @ gpunet.ones(3, 1, 1), ShapeError, ValueError, r"\(2, 1, 1\).*\(3, 1, 1\)"),
    "matmul of booleans": (lambda: x23().bool() @ x23().T, DtypeError, TypeError, r"bool.*\.float\(\)"),
    "matmul of a number": (lambda: gpunet.tensor(1.0) @ x23(), ShapeError, ValueError, r"\(\) and \(2, 3\)"),
    "add": (lambda: x23() + gpunet.ones(4), ShapeError, ValueError, r"add: shapes \(2, 3\) and \(4,\).*equal or 1"),
    "add text": (lambda: x23() + "1", DtypeError, TypeError, r"'1' has type str.*number"),
    "linear": (lambda: nn.Linear(4, 2)(x23()), ShapeError, ValueError, r"3 features.*\(2, 4\) expects 4"),
    "linear bias": (lambda: F.linear(x23(), x23(), gpunet.ones(5)), ShapeError, ValueError, r"bias.*\(5,\); expected \(2,\)"),
    "linear weight": (lambda: F.linear(x23(), gpunet.ones(1, 1, 3)), ShapeError, ValueError, r"\(1, 1, 3\).*\(out_features, "),
    "linear size": (lambda: nn.Linear(-1, 2), ArgumentError, ValueError, "in_features=-1.*0 or more"),
    "linear fraction": (lambda: nn.Linear(2, 2.5), ArgumentError, ValueError, "out_features=2.5"),
    "reshape": (lambda: x23().reshape(4, 2), ShapeError, ValueError, r"6 elements of shape \(2, 3\).*\(4, 2\)"),
    "reshape -1": (lambda: x23().reshape(4, -1), ShapeError, ValueError, r"\(4, -1\)"),
    "permute": (lambda: x23().permute(0, 0), ArgumentError, ValueError, r"permute: dims=\(0, 0\).*twice"),
    "permute too few": (lambda: x23().permute(0), ShapeError, ValueError, r"\(0,\).*2 dimensions"),
    "expand": (lambda: x23().expand(4, 3), ShapeError, ValueError, r"\(2, 3\).*\(4, 3\).*size 1"),
    "dimension": (lambda: x23().sum(2), ShapeError, ValueError, r"sum: dim=2.*-2 \.\. 1"),
    "dimension twice": (lambda: x23().sum((0, -2)), ArgumentError, ValueError, "twice"),
    "cat": (lambda: gpunet.cat([x23(), gpunet.ones(2, 4)]), ShapeError, ValueError, r"\(2, 3\) and \(2, 4\)"),
    "cat nothing": (lambda: gpunet.cat([]), ArgumentError, ValueError, "no tensors"),
    "stack": (lambda: gpunet.stack([x23(), gpunet.ones(3)]), ShapeError, ValueError, r"\(2, 3\) and \(3,\)"),
    "split": (lambda: x23().split([1, 1], 1), ShapeError, ValueError, r"\[1, 1\] add up to 2.*3"),
    "index": (lambda: x23()[5], OutOfRangeError, IndexError, r"x\[index\]: index 5 .* dimension 0 with size 2; expected -2 \.\. 1"),
    "index array": (lambda: x23()[[0, 5]], OutOfRangeError, ValueError, r"x\[index\]: index 5 .* dimension 0 with size 2"),
    "too many indices": (lambda: x23()[0, [1], 0], ShapeError, ValueError, r"x\[index\]: 3 indices .* at most 2"),
    "gather index": (lambda: x23().gather(1, [[-4]]), OutOfRangeError, IndexError, r"gather: index -4 .* dimension 1 with size 3"),
    "indices": (lambda: x23()[0, 0, 0], ShapeError, ValueError, r"\(2, 3\)"),
    "float index": (lambda: x23()[0.5], DtypeError, TypeError, r"0\.5.*integers"),
    "float tensor index": (lambda: x23()[gpunet.ones(2)], DtypeError, TypeError, "float32.*expected integers"),
    "gather": (lambda: x23().gather(0, gpunet.tensor([0])), ShapeError, ValueError, r"\(1,\).*\(2, 3\)"),
    "where": (lambda: gpunet.where(x23(), 1.0, 2.0), DtypeError, TypeError, "float32.*boolean"),
    "cat numbers": (lambda: gpunet.cat([gpunet.tensor(1.0)] * 2), ShapeError, ValueError, r"no dimensions.*stack"),
    "unbind a number": (lambda: gpunet.tensor(1.0).unbind(), ShapeError, ValueError, "no dimensions"),
    "tril": (lambda: gpunet.ones(3).tril(), ShapeError, ValueError, r"\(3,\).*matrix"),
    "dimension of text": (lambda: x23().mean("x"), DtypeError, TypeError, "mean: dim='x' has type str.*integer"),
    "copy_": (lambda: x23().copy_(gpunet.ones(4, 2, 3)), ShapeError, ValueError, r"copy_.*\(4, 2, 3\).*\(2, 3\)"),
    "fill_": (lambda: x23().fill_(gpunet.ones(4)), ShapeError, ValueError, r"fill_.*\(4,\).*0-d.*copy_"),
    "minus of booleans": (lambda: -(x23() > 0), DtypeError, TypeError, r"neg of a tensor of bool.*not defined.*\.long\(\)"),
    "less": (lambda: x23() < gpunet.ones(2), ShapeError, ValueError, r"^lt: shapes \(2, 3\) and \(2,\)"),
    "times": (lambda: x23() * gpunet.ones(2), ShapeError, ValueError, r"^mul: shapes \(2, 3\) and \(2,\)"),
    "times an object": (lambda: x23() * object(), DtypeError, TypeError, "^mul: operand .* has type object; expected"),
    "out of an integer": (lambda: x23().to("uint8") + 256, DtypeError, TypeError, r"add of a tensor of uint8 and 256"),
    "softmax of integers": (lambda: x23().long().softmax(0), DtypeError, TypeError, r"softmax.*int64.*\.float\(\)"),
    "clamp": (lambda: x23().clamp(), ArgumentError, ValueError, "both None"),
    "topk": (lambda: x23().topk(9, 1), OutOfRangeError, ValueError, "k=9.*3"),
    "max of nothing": (lambda: gpunet.zeros(0).max(), ShapeError, ValueError, r"max.*\(0,\)"),
    "max over nothing": (lambda: gpunet.zeros(3, 0).max(1), ShapeError, ValueError, r"\(3, 0\)"),
    "mean of integers": (lambda: gpunet.tensor([1]).mean(), DtypeError, TypeError, r"int64.*\.float\(\)"),
    "norm": (lambda: x23().norm("nuc"), ArgumentError, ValueError, "p='nuc'"),
    "negative power": (lambda: gpunet.tensor([2]) ** -1, DtypeError, TypeError, r"-1.*\.float\(\)"),
    "integer gradient": (lambda: gpunet.tensor([1], requires_grad=True), DtypeError, TypeError, r"int64.*\.float\(\)"),
    "backward of a vector": (lambda: (nn.Parameter(x23()) * 2.0).backward(), GradientError, RuntimeError, r"\(2, 3\).*gradient="),
    "backward of a constant": (lambda: x23().sum().backward(), GradientError, RuntimeError, "requires_grad=True"),
    "numpy of a parameter": (lambda: nn.Parameter(x23()).numpy(), GradientError, RuntimeError, r"\.detach\(\)"),
    "item": (lambda: x23().item(), ShapeError, ValueError, r"\(2, 3\).*one-element"),
    "truth": (lambda: bool(x23()), ShapeError, ValueError, r"\(2, 3\).*any\(\) or \.all\(\)"),
    "length of a number": (lambda: len(gpunet.tensor(1.0)), ShapeError, ValueError, "dimensions"),
    "float as index": (lambda: [1, 2][gpunet.tensor(1.0)], DtypeError, TypeError, "float32.*index"),
    "ragged": (lambda: gpunet.tensor([[1, 2], [3]]), ShapeError, ValueError, "different lengths"),
    "text": (lambda: gpunet.tensor(["a"]), DtypeError, TypeError, "dtype str.*expected numbers"),
    "shape": (lambda: gpunet.zeros(2, -1), ShapeError, ValueError, r"\(2, -1\).*0 or more"),
    "fraction of a shape": (lambda: gpunet.zeros(2.5), DtypeError, TypeError, r"zeros: size=2\.5 .*expected an integer"),
    "arange": (lambda: gpunet.arange(0, 5, 0), ArgumentError, ValueError, "step=0"),
    "activation": (lambda: F.linear(x23(), x23(), activation="relux"), ArgumentError, ValueError, "'relux'.*relu, leaky_relu"),
    "gelu": (lambda: F.gelu(x23(), approximate="none!"), ArgumentError, ValueError, "'none!'.*'tanh'"),
    "gelu module": (lambda: nn.GELU("erf"), ArgumentError, ValueError, "'erf'"),
    "dropout": (lambda: F.dropout(x23(), 2.0), ArgumentError, ValueError, r"p=2\.0"),
    "label": (lambda: F.cross_entropy(x23(), gpunet.tensor([0, 3])), LabelError, IndexError, r"label 3 at row 1.*0 \.\. 2"),
    "no classes": (lambda: F.cross_entropy(gpunet.ones(3, 0), gpunet.ones(3, 0)), ShapeError, ValueError, r"\(3, 0\).*classes"),
    "reduction": (lambda: F.mse_loss(x23(), x23(), reduction="avg"), ArgumentError, ValueError, "'avg'.*'mean', 'sum', 'none'"),
    "loss shapes": (lambda: F.mse_loss(x23(), gpunet.ones(2, 2)), ShapeError, ValueError, r"mse_loss: .*\(2, 3\) and \(2, 2\)"),
    "state_dict": (lambda: nn.Linear(1, 1).load_state_dict({"w": 1}), StateDictError, KeyError, "missing.*weight, bias.*w"),
    "path as state_dict": (lambda: nn.Linear(1, 1).load_state_dict("m.st"), DtypeError, TypeError, r"'m\.st', a str.*load\(path\)"),
    "gradient": (lambda: setattr(nn.Parameter(x23()), "grad", x23().T), GradientError, RuntimeError, r"\(2, 3\).*\(3, 2\).*same"),
    "array as gradient": (lambda: setattr(nn.Parameter(x23()), "grad", 1.0), GradientError, RuntimeError, "1.0.*tensor.*None"),
    "optimizer of a model": (lambda: gpunet.optim.SGD(nn.Linear(1, 1)), DtypeError, TypeError, r"Linear.*parameters\(\)"),  # type: ignore[arg-type]
    "no learning rate": (lambda: gpunet.optim.SGD([x23()], lr=None), DtypeError, TypeError, "None has type NoneType.*number"),  # type: ignore[arg-type]
    "no such module": (lambda: nn.Sequential(nn.ReLU()).get_submodule("1"), ArgumentError, ValueError, r"'1'.*\['0'\]"),
    "learning rate": (lambda: gpunet.optim.SGD([x23()], lr=-1), ArgumentError, ValueError, r"-1\.0"),
    "device": (lambda: gpunet.zeros(1, device="gpu"), DeviceError, RuntimeError, "'gpu'.*'cuda'"),
    "default dtype": (lambda: gpunet.set_default_dtype("int32"), DtypeError, TypeError, "int32.*float32"),
    "iterate a number": (lambda: list(gpunet.tensor(1.0)), ShapeError, ValueError, "dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_message_names_the_value_and_the_way_out(mistake: str) -> None:
    make, kind, builtin, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message) as caught:
        make()
    assert isinstance(caught.value, GpunetError) and isinstance(caught.value, builtin)


def test_reflected_operators_name_the_type_of_the_operand() -> None:
    for f in (lambda x: "a" * x, lambda x: None + x, lambda x: x / {}, lambda x: x @ "a"):
        with pytest.raises((DtypeError, TypeError), match="str|None|dict"):
            f(x23())


def test_failed_call_changes_no_state() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = gpunet.optim.Adam(model.parameters())
    before = [p.tolist() for p in model.parameters()]
    for wrong in (
        lambda: model(gpunet.ones(2, 5)),
        lambda: F.cross_entropy(model(x23()), gpunet.tensor([0, 9])),
        lambda: model.load_state_dict({}),
        lambda: optimizer.load_state_dict({"param_groups": [], "state": {}}),
        lambda: F.mse_loss(model(x23()), gpunet.ones(3)).backward(),
    ):
        with pytest.raises(GpunetError):
            wrong()
        optimizer.step()
    assert [p.tolist() for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters()) and gpunet.is_grad_enabled()
    F.cross_entropy(model(x23()), gpunet.tensor([0, 1])).backward()
    optimizer.step()
    assert [p.tolist() for p in model.parameters()] != before


def test_error_ends_a_recording() -> None:
    with pytest.raises(ShapeError), record(Tape()):
        x23() + gpunet.ones(7)
    with record(Tape()) as tape:
        x23() + 1.0
    assert len(tape) == 2  # ones, add


@pytest.mark.skipif(gpunet.cuda_status().ready, reason="a GPU is available")
def test_cuda_without_a_gpu_raises_with_diagnosis_and_advice() -> None:
    status = gpunet.cuda_status()
    for ask in (
        lambda: gpunet.zeros(1, device="cuda"),
        lambda: x23().cuda(),
        lambda: nn.Linear(1, 1).to("cuda:1"),
        lambda: gpunet.set_default_device("cuda"),
    ):
        with pytest.raises(DeviceError) as caught:
            ask()
        assert status.detail in str(caught.value) and status.advice in str(caught.value) and "cpu" in str(caught.value)
    assert gpunet.device("auto") == "cpu"
    assert gpunet.zeros(1).device == "cpu"


@pytest.mark.parametrize("name", ["cpu:1", "cuda:x", "cuda:-1", "", "CPU", "mps"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(DeviceError, match=f"{name!r}"):
        gpunet.device(name)


@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
@pytest.mark.parametrize("stepped", [True, False])
def test_model_moved_after_its_optimizer_was_made_raises(stepped: bool) -> None:
    model = nn.Linear(2, 2)
    optimizer = gpunet.optim.Adam(model.parameters())
    if stepped:
        model(x23()[:, :2]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to("emulated")
    model(x23()[:, :2].to("emulated")).sum().backward()
    with pytest.raises(DeviceError, match=r"Adam.*\(2, 2\) is on emulated.*for parameters on cpu.*after model.to\('emulated'\)"):
        optimizer.step()


def test_environment_variable_chooses_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_DEVICE", "nowhere")
    with pytest.raises(DeviceError, match="'nowhere'"):
        gpunet.zeros(1)
    monkeypatch.setenv("GPUNET_DEVICE", "cpu")
    assert gpunet.zeros(1).device == "cpu"


# ---- the launch seam ------------------------------------------------------------------------------------------------


def test_launch_checks_its_contract() -> None:
    y, z = numpy.zeros((2, 3), "float32"), numpy.ones((2, 3), "float32")
    options = {"activation": "relu", "alpha": 0.0}
    activation_forward(y, z, **options)
    for wrong, message in (
        (z.astype("float64"), "'z' has dtype float64, expected float32"),
        (z.T.copy().T, r"'z' of shape \(2, 3\) is not C-contiguous"),
        (z.tolist(), "'z' is a list"),
        (None, "'z' is None"),
    ):
        with pytest.raises(LaunchError, match=f"activation_forward.*{message}"):
            activation_forward(y, wrong, **options)
    with pytest.raises(LaunchError, match="int64"):
        activation_forward(y.astype("int64"), z.astype("int64"), **options)
    assert (y == z).all()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (numpy.ones((2, 3)), r"tensor 1 of 'params' is a ndarray of float64; expected a contiguous ndarray of float32"),
        (numpy.ones((4, 6), numpy.float32)[::2, ::2], r"tensor 1 of 'params' .* that is not C-contiguous; expected"),
    ],
)
def test_tensors_of_a_list_launch_must_have_one_dtype_and_be_contiguous(second: numpy.ndarray, message: str) -> None:
    """The launch passes them as one table of pointers to one type."""
    params = [numpy.ones((2, 3), numpy.float32), second]
    options = {"dampened": False, "decays": False, "nesterov": False, "maximize": False}
    with pytest.raises(LaunchError, match=message):
        sgd_step(
            params, None, [numpy.zeros(1) for _ in params], [p.copy() for p in params], numpy.ones(1), None, None, **options
        )
    with pytest.raises(LaunchError, match=r"lists of \[2, 1, 2\] tensors; expected equal lengths from 1 to 512"):
        sgd_step(params, None, [numpy.zeros(1)], params, numpy.ones(1), None, None, **options)
