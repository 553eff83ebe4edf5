"""``gpunet train`` and ``gpunet info``, as a user meets them: lines, files, exit codes, messages."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.cli.main import main
from gpunet.data import Batches, load, split
from gpunet.launch.random import Generator
from gpunet.train import evaluate, fit, load_run
from gpunet.train import load as load_checkpoint

for _package in ("safetensors", "sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")

QUICK = ["--epochs", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*options: Any) -> int:
    return main(["train", "--device", "cpu", *map(str, options)])


def refused(capsys: pytest.CaptureFixture[str], *options: Any) -> str:
    """The message of a command that must fail with exit code 2 and one line, before it leaves anything behind."""
    before = sorted(Path.cwd().rglob("*"))
    assert main([str(option) for option in options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gpunet: error: ")
    assert captured.err.count("\n") == 1
    assert "epoch" not in captured.out
    assert sorted(Path.cwd().rglob("*")) == before
    return captured.err


# ---- training -------------------------------------------------------------------------------------------------------


def test_without_options_it_learns_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """The promise: accuracy 0.97 on held-out digits by default."""
    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 30
    number = r"\d+\.\d{4}"
    pattern = rf"epoch +\d+/30  train: loss {number} accuracy {number}  held-out: loss {number} accuracy {number}"
    assert all(re.fullmatch(pattern, line) for line in epochs)
    accuracy = float(re.search(r"held-out accuracy (\S+) after 30 epochs", lines[-2])[1])
    assert accuracy >= 0.97
    folder = Path(lines[-1].removeprefix("run folder: "))
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d-digits", folder.as_posix())
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
    ]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, 31))
    assert metrics[-1]["test_accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_folder_loads_and_gives_the_same_accuracy() -> None:
    assert train("--out", "run", "--epochs", 3) == 0
    model, config = load_run("run")
    parts = split(load("digits"), 0.2, Generator((0 ^ int.from_bytes(b"split", "big")) % 2**64))
    mean, scale = (gpunet.tensor(config["standardisation"][k], dtype=gpunet.float32) for k in ("mean", "scale"))
    x = (gpunet.tensor(parts.test.features) - mean) / scale
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    measured = evaluate(
        model, gpunet.nn.CrossEntropyLoss(), Batches(x, gpunet.tensor(parts.test.targets), batch_size=64)
    )
    assert measured["accuracy"] == last["test_accuracy"]
    assert config["classes"] == [str(i) for i in range(10)]


def test_the_same_seed_gives_the_same_bits() -> None:
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("--out", out, "--epochs", 2, "--seed", seed) == 0
    a, b, c = (Path(name, "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_run_never_overwrites_another(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert main(["train", *QUICK, "--data", "breast-cancer"]) == 0
    names = sorted(p.name.partition("-breast")[2] for p in Path("runs").iterdir())
    assert names == ["-cancer", "-cancer-2", "-cancer-3"]
    assert train("--out", "mine", "--epochs", 1) == 0
    capsys.readouterr()
    assert "a run never overwrites another" in refused(capsys, "train", *QUICK, "--out", "mine")


@pytest.mark.parametrize(
    "options", [[], ["--loss", "mae"], ["--loss", "huber"], ["--hidden", "", "--optimizer", "sgd"]], ids=str
)
def test_regression(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "diabetes", "--out", "run", *options) == 0
    assert "R²" in capsys.readouterr().out
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_r2"] > 0.3
    assert 35 < last["test_mae"] < 60  # in the target's own unit


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_two_classes(loss: str) -> None:
    assert train("--data", "breast-cancer", "--loss", loss, "--out", "run", "--epochs", 5) == 0
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    "activation", ["relu", "leaky-relu", "sigmoid", "tanh", "gelu", "silu", "elu", "softplus", "identity"]
)
def test_every_activation_learns(activation: str) -> None:
    assert train("--activation", activation, "--epochs", 2, "--out", "run") == 0
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_learns(optimizer: str) -> None:
    assert train("--optimizer", optimizer, "--epochs", 2, "--weight-decay", 0.001, "--schedule", "constant") == 0


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "constant"])
def test_every_schedule_learns(schedule: str) -> None:
    assert train("--schedule", schedule, "--epochs", 3, "--clip", 1.0, "--out", "run") == 0
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.8


def test_clipping_is_part_of_the_step() -> None:
    """With a norm of next to nothing, hardly anything is learnt by plain descent."""
    for clip, learns in ((1e-9, False), (1e9, True)):
        assert train("--optimizer", "sgd", "--clip", clip, "--epochs", 2, "--out", f"run{clip}") == 0
        last = json.loads(Path(f"run{clip}/metrics.jsonl").read_text().splitlines()[-1])
        assert (last["test_accuracy"] > 0.5) == learns


def test_a_csv_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 7},{'yes' if i % 7 > 3 else 'no'},{i % 5}" for i in range(200)]
    Path("mine.csv").write_text("\n".join(["size,big,noise", *rows]))
    assert train("--data", "mine.csv", "--target", "big", "--hidden", "16", "--dropout", 0, "--epochs", 60) == 0
    out = capsys.readouterr().out
    assert "target: column 'big'" in out
    assert "classification into 2 classes: the target is text" in out
    assert "network: 2-16-2" in out
    assert "held-out accuracy 1.0000" in out


def test_weights_go_on_from_an_earlier_run() -> None:
    assert train("--out", "first", "--epochs", 5) == 0
    assert train("--out", "second", "--epochs", 1, "--weights", "first/model.safetensors", "--lr", 1e-5) == 0
    first, second = (json.loads(Path(n, "metrics.jsonl").read_text().splitlines()[-1]) for n in ("first", "second"))
    assert second["train_loss"] == pytest.approx(first["train_loss"], rel=0.1)


def test_divergence_is_said_and_keeps_the_last_good_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--optimizer", "sgd", "--lr", 1e30, "--out", "run") == 2
    assert re.search(r"error: the training loss became (nan|inf) in epoch 1: .*below 1e\+30", capsys.readouterr().err)


# ---- terminal and pipe ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_progress_bar_and_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert train("--epochs", 2) == 0
    assert "step" in err.getvalue()
    assert [line[:9] for line in out.getvalue().splitlines() if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    plain_out, plain_err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain_out)
    monkeypatch.setattr(sys, "stderr", plain_err)
    assert train("--epochs", 2) == 0
    assert plain_err.getvalue() == ""
    assert not set("\r\x1b") & set(plain_out.getvalue())


def run_gpunet(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(gpunet.__file__).parents[1]), "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "gpunet", *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent as on POSIX")
def test_interrupt_leaves_a_usable_checkpoint() -> None:
    process = run_gpunet("train", "--device", "cpu", "--epochs", "100000", "--out", "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the model so far is in run/model.safetensors" in out
    assert out.splitlines()[-1] == "run folder: run"
    assert "Traceback" not in err
    state = load_checkpoint("run/model.safetensors")
    assert state["0.weight"].shape == (128, 64)
    model, _ = load_run("run")
    assert model(gpunet.zeros(1, 64)).shape == (1, 10)
    assert {p.name for p in Path("run").iterdir()} == {
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
    }
    for line in Path("run/metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_pipe_that_closes_is_no_error() -> None:
    process = run_gpunet("train", "--device", "cpu", "--epochs", "50", "--out", "run")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--activation", "rulu"], "unknown activation 'rulu'; expected one of relu, leaky_relu, sigmoid"),
        (["--loss", "mea"], "unknown loss 'mea'; expected one of cross_entropy, bce, mse, mae, huber"),
        (["--optimizer", "adm"], "unknown optimizer 'adm'; expected one of adam, adamw, sgd"),
        (["--schedule", "linear"], "unknown schedule 'linear'; expected one of cosine, onecycle, step, constant"),
        (["--clip", "0"], "--clip 0.0; expected a positive number"),
        (
            ["--loss", "mse"],
            "the loss 'mse' does not fit classification into 10 classes; expected one of cross_entropy",
        ),
        (["--loss", "bce"], "does not fit classification into 10 classes"),
        (["--data", "diabetes", "--loss", "bce"], "does not fit regression; expected one of mse, mae, huber"),
        (["--data", "digit"], "no data 'digit': expected digits, breast-cancer, diabetes or the path"),
        (["--data", "nowhere.csv"], "no data 'nowhere.csv'"),
        (["--hidden", "128,x"], "--hidden '128,x'; expected whole numbers"),
        (["--hidden", "0"], "--hidden '0'; expected whole numbers"),
        (["--lr", "-1"], "--lr -1.0; expected a positive number"),
        (["--lr", "nan"], "--lr nan; expected a positive number"),
        (["--epochs", "0"], "--epochs 0; expected 1 or more"),
        (["--batch-size", "0"], "--batch-size 0; expected 1 or more"),
        (["--dropout", "1"], "--dropout 1.0; expected a share"),
        (["--test-size", "0"], "test_size=0.0; expected a share between 0 and 1"),
        (["--seed", "18446744073709551616"], "seed 18446744073709551616: expected an integer"),
        (["--device", "gpu"], "unknown device 'gpu': expected 'cpu', 'cuda', 'cuda:N'"),
        (["--weights", "nowhere.safetensors"], "no checkpoint nowhere.safetensors: there is no such file"),
    ],
)
def test_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "train", *options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2,0\n3,high,1\n", "bad.csv, line 3, column 'b': 'high' is no number"),
        ("a,b,y\n1,2,0\n3,,1\n", "bad.csv, line 3, column 'b': the value is missing"),
    ],
)
def test_bad_csv(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.csv").write_text(text)
    assert message in refused(capsys, "train", "--data", "bad.csv", "--target", "y")


def test_truncated_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "run", "--epochs", 1) == 0
    whole = Path("run/model.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert "cut.safetensors is truncated" in refused(capsys, "train", "--weights", "cut.safetensors")


def test_checkpoint_of_another_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "run", "--epochs", 1) == 0
    capsys.readouterr()
    message = refused(capsys, "train", "--weights", "run/model.safetensors", "--hidden", "128,32")
    assert re.search(r"\.weight has shape \(64, 128\), expected \(32, 128\)", message)


def test_out_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    message = refused(capsys, "train", "--out", "file/run", "--epochs", "2")  # and no epoch before
    assert "cannot write the run folder file/run: Not a directory; choose a folder that can be written" in message
    Path("runs").touch()
    assert "cannot write the run folder runs" in refused(capsys, "train")


@pytest.mark.skipif(gpunet.cuda_status().ready, reason="a card is here")
def test_cuda_without_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "--device", "cuda")
    assert "CUDA was requested, but " in message
    assert gpunet.cuda_status().detail in message
    assert gpunet.cuda_status().advice in message


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("safetensors", [], "safetensors is not installed: pip install 'gpunet[train]'"),
        ("sklearn", [], "scikit-learn, which is not installed: pip install 'gpunet[train]'"),
    ],
)
def test_missing_packages(
    module: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.numpy", None)
    assert message in refused(capsys, "train", *options)


def test_without_matplotlib_there_are_no_curves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train("--epochs", 1, "--out", "run") == 0
    assert "no curves.png: matplotlib is not installed (pip install 'gpunet[train]')" in capsys.readouterr().out
    assert not Path("run/curves.png").exists()


# ---- the loop by itself ---------------------------------------------------------------------------------------------


def test_fit_stops_when_told() -> None:
    model = gpunet.nn.Linear(2, 1)
    data = Batches(gpunet.randn(10, 2), gpunet.randn(10, 1), batch_size=2)
    optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)
    steps = []
    results = fit(
        model, gpunet.nn.MSELoss(), optimizer, data, epochs=9, task="regression",
        on_batch=lambda: steps.append(1) or len(steps) == 7,
    )  # fmt: skip
    assert [r.number for r in results] == [1]
    assert len(steps) == 7


# ---- gpunet, gpunet info --------------------------------------------------------------------------------------------


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for expected in (
        gpunet.__version__,
        "numpy",
        "cores",
        "blas",
        "nvrtc",
        "kernel cache",
        gpunet.cuda_status().detail,
    ):
        assert expected in out


def test_info_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["gpunet"] == gpunet.__version__
    assert found["optional"]["tqdm"] == "missing (progress bars): pip install 'gpunet[train]'"
    assert found["cuda"]["state"] == gpunet.cuda_status().state


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    assert "gpunet" in capsys.readouterr().out


def test_an_unknown_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "trian" in capsys.readouterr().err
