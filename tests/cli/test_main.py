"""The command ``gpunet``: help, version, unknown subcommands, closed pipes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.cli.main import main


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_gpunet(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(gpunet.__file__).parents[1]), "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "gpunet", *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    assert "gpunet" in capsys.readouterr().out


def test_help_does_not_import_the_engine() -> None:
    """Only the command line, errors, and the options of ``train``, whose defaults the help shows."""
    code = (
        "import sys\nfrom gpunet.cli.main import build_parser\nbuild_parser().format_help()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('numpy', 'gpunet')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name for name in ast.literal_eval(done.stdout) if not name.startswith("gpunet.cli")}
    assert imported == {"gpunet", "gpunet.errors", "gpunet.tools", "gpunet.tools.training_options"}


def test_unknown_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "trian" in capsys.readouterr().err


def test_closed_pipe_is_not_an_error() -> None:
    for package in ("safetensors", "sklearn"):
        pytest.importorskip(package, reason="pip install 'gpunet[train]'")
    process = run_gpunet("train", "--device", "cpu", "--epochs", "50", "--out", "run")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
