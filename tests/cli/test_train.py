"""``gpunet train``: messages for invalid options, invalid files and missing packages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import gpunet
from gpunet.cli.main import main
from tests.tools.train_command import error_message, in_temporary_folder, train  # noqa: F401  a fixture among them

for _package in ("safetensors", "sklearn", "matplotlib", "rich"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--activation", "rulu"], "unknown activation 'rulu'; expected one of relu, leaky_relu, sigmoid"),
        (["--loss", "mea"], "unknown loss 'mea'; expected one of mse, mae"),
        (["--optimizer", "adm"], "unknown optimizer 'adm'; expected one of adam, adamw, sgd"),
        (["--schedule", "linear"], "unknown schedule 'linear'; expected one of cosine, onecycle, step, constant"),
        (["--clip", "0"], "--clip 0.0; expected a positive number"),
        (
            ["--loss", "mse"],
            "the loss 'mse' does not fit classification into 10 classes; expected one of cross_entropy",
        ),
        (["--loss", "bce"], "does not fit classification into 10 classes"),
        (["--data", "diabetes", "--loss", "bce"], "does not fit regression; expected one of mse, mae"),
        (["--data", "digit"], "no data 'digit': expected digits, breast-cancer, diabetes or the path"),
        (["--data", "nowhere.csv"], "the file 'nowhere.csv' does not exist"),
        (["--hidden", "128,x"], "--hidden '128,x'; expected positive integers"),
        (["--hidden", "0"], "--hidden '0'; expected positive integers"),
        (["--lr", "-1"], "--lr -1.0; expected a positive number"),
        (["--lr", "nan"], "--lr nan; expected a positive number"),
        (["--epochs", "0"], "--epochs 0; expected 1 or more"),
        (["--batch-size", "0"], "--batch-size 0; expected 1 or more"),
        (["--dropout", "1"], "--dropout 1.0; expected a probability"),
        (["--test-size", "0"], "test_size=0.0; expected a fraction between 0 and 1"),
        (["--seed", "18446744073709551616"], "seed 18446744073709551616: expected an integer"),
        (["--device", "gpu"], "unknown device 'gpu': expected 'cpu', 'cuda', 'cuda:N'"),
        (["--weights", "nowhere.safetensors"], "no checkpoint nowhere.safetensors: the file does not exist"),
    ],
)
def test_invalid_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_message(capsys, "train", *options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2,0\n3,high,1\n", "bad.csv, line 3, column 'b': 'high' is not a number"),
        ("a,b,y\n1,2,0\n3,inf,1\n", "bad.csv, line 3, column 'b': inf is not finite"),
    ],
)
def test_invalid_csv(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.csv").write_text(text)
    assert message in error_message(capsys, "train", "--data", "bad.csv", "--target", "y")


def test_truncated_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "run", "--epochs", 1) == 0
    whole = Path("run/model.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert "cut.safetensors is truncated" in error_message(capsys, "train", "--weights", "cut.safetensors")


def test_checkpoint_of_another_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "run", "--epochs", 1) == 0
    capsys.readouterr()
    message = error_message(capsys, "train", "--weights", "run/model.safetensors", "--hidden", "128,32")
    assert re.search(r"\.weight has shape \(64, 128\), expected \(32, 128\)", message)


def test_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    message = error_message(capsys, "train", "--out", "file/run", "--epochs", "2")  # the error comes before the first epoch
    assert "cannot write the run folder file/run: Not a directory; choose a writable folder" in message
    Path("runs").touch()
    assert "cannot write the run folder runs" in error_message(capsys, "train")


@pytest.mark.skipif(gpunet.cuda_status().ready, reason="CUDA is ready")
def test_cuda_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    message = error_message(capsys, "train", "--device", "cuda")
    assert "CUDA was requested, but " in message
    assert gpunet.cuda_status().detail in message
    assert gpunet.cuda_status().advice in message


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("safetensors", [], "safetensors, which is not installed: pip install 'gpunet[train]'"),
        ("sklearn", [], "scikit-learn, which is not installed: pip install 'gpunet[train]'"),
    ],
)
def test_missing_packages(
    module: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.numpy", None)
    assert message in error_message(capsys, "train", *options)


def test_without_matplotlib_there_are_no_curves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train("--epochs", 1, "--out", "run") == 0
    assert "no curves.png: matplotlib is not installed (pip install 'gpunet[train]')" in capsys.readouterr().out
    assert not Path("run/curves.png").exists()


def test_help_lists_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    from gpunet.train import network

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    for table in (network.ACTIVATIONS, network.LOSSES, network.OPTIMIZERS, network.SCHEDULES):
        assert set(table) <= words
