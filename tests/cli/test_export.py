"""``gpunet export``: the network of a run folder or an ONNX file, as ONNX and as C."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy
import pytest

import gpunet
from gpunet.cli.main import main
from gpunet.data.columns import Column
from gpunet.data.csv_file import read_csv
from gpunet.data.table import encode
from gpunet.errors import ArgumentError
from gpunet.train import predict
from gpunet.train.run_folder import read_config

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
import gpunet.onnx  # noqa: E402
from gpunet.interop.trained import model_in  # noqa: E402

HEADER = "weight,colour,size,price\n"
COLOURS, SIZES = ("red", "blue"), ("small", "large")
CELLS = "".join(f"{i % 7 if i % 5 else ''},{COLOURS[i % 2]},{SIZES[i // 2 % 2]},{i % 7 * 2.5}\n" for i in range(40))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("things.csv").write_text(HEADER + CELLS)


def run(*options: str) -> numpy.ndarray:
    """Train; return the encoded features of all rows."""
    assert main(["train", "--data", "things.csv", "--epochs", "3", "--out", "run", *options]) == 0
    columns = [Column.from_json(column) for column in read_config("run")["columns"]]
    return encode(read_csv(Path("things.csv"), [c.name for c in columns]), columns).astype(numpy.float32)


@pytest.mark.parametrize(
    ("options", "output"),
    [
        (["--target", "size", "--ignore", "price"], "probability of large, small"),
        (["--target", "size", "--ignore", "price", "--loss", "bce"], "probability of large, small"),
        (["--target", "price", "--ignore", "size"], "the target"),
    ],
)
def test_exports_say_what_predict_says(options: list[str], output: str, capsys: pytest.CaptureFixture[str]) -> None:
    features = run(*options)
    found = predict("run", "things.csv")
    expected = found.values[:, None] if found.probabilities is None else found.probabilities
    capsys.readouterr()
    assert main(["export", "--onnx", "run", "-o", "net.onnx"]) == 0
    shown = "input: weight, weight is missing, colour=blue, colour=red\noutput: " + output + "\nwrote net.onnx\n"
    assert capsys.readouterr().out == shown
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: features})
    numpy.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    if shutil.which("gcc") is None:
        return
    assert main(["export", "--c", "run", "-o", "net.c", "--batch", "40", "--name", "things"]) == 0
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["gcc", *strict, "-shared", "-fPIC", "-o", "net.so", "net.c", "-lm"], check=True)
    floats = ctypes.POINTER(ctypes.c_float)
    y = numpy.empty(expected.shape, numpy.float32)
    x = numpy.ascontiguousarray(features)
    ctypes.CDLL(str(Path("net.so").resolve())).things(x.ctypes.data_as(floats), y.ctypes.data_as(floats))
    numpy.testing.assert_allclose(y, result, rtol=2e-6, atol=1e-7)


def test_onnx_file_as_c() -> None:
    model = gpunet.nn.Sequential(gpunet.nn.Conv1d(2, 3, 3), gpunet.nn.ReLU())
    gpunet.onnx.export(model, gpunet.randn(2, 2, 9), "conv.onnx")
    assert main(["export", "--c", "conv.onnx", "-o", "conv.c"]) == 0
    assert re.search(r"x: \(1, 2, 9\), 18 floats", Path("conv.c").read_text())
    gpunet.onnx.export(model, gpunet.randn(2, 2, 9), "any.onnx", dynamic_axes={"input": {2: "length"}})
    with pytest.raises(ArgumentError, match="has shape .*'length'.*; expected fixed sizes but the first"):
        model_in("any.onnx")


def test_a_wrong_translation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments are not zeros, of which many functions have the same value."""
    from gpunet.interop.onnx.builder import TRANSLATIONS

    gpunet.onnx.export(gpunet.nn.Sequential(gpunet.nn.Linear(3, 3, bias=False), gpunet.nn.Tanh()), gpunet.randn(2, 3), "tanh.onnx")
    run("--target", "size", "--ignore", "price")
    monkeypatch.setitem(TRANSLATIONS, "activation", lambda b, node, x: b.add("Softsign", x))
    monkeypatch.setitem(TRANSLATIONS, "tanh", lambda b, node, x: b.add("Softsign", x))
    for model in ("tanh.onnx", "run"):
        assert main(["export", "--onnx", model, "-o", "wrong.onnx"]) == 2
    assert not Path("wrong.onnx").exists()


def test_model_of_tokens() -> None:
    model = gpunet.nn.Sequential(gpunet.nn.Embedding(5, 3), gpunet.nn.Flatten(), gpunet.nn.Linear(6, 2))
    gpunet.onnx.export(model, gpunet.randint(0, 5, (2, 2)), "tokens.onnx")
    _, (tokens,) = model_in("tokens.onnx", 3)
    assert tokens.dtype == gpunet.int64 and tokens.shape == (3, 2) and 0 <= tokens.min() <= tokens.max() < 5
    assert main(["export", "--onnx", "tokens.onnx", "-o", "again.onnx"]) == 0


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.onnx").write_bytes(b"\x08\x01damaged")
    cases = {"things.csv": "is no folder of gpunet train", "bad.onnx": "bad.onnx is damaged", ".": "is not a run folder"}
    for model, message in cases.items():
        assert main(["export", "--c", model, "-o", "net.c"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("net.c").exists()
    with pytest.raises(ArgumentError, match="a batch of 0"):
        model_in("run", 0)
    with pytest.raises(SystemExit):
        main(["export", "run", "-o", "net.c"])
