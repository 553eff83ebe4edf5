"""What the tests of ``gpunet train`` share: a temporary folder, and calls of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpunet.cli.main import main


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*options: Any) -> int:
    return main(["train", "--device", "cpu", *map(str, options)])


def error_message(capsys: pytest.CaptureFixture[str], *options: Any) -> str:
    """Run a command that must fail with exit code 2 and one line on stderr, without creating files."""
    before = sorted(Path.cwd().rglob("*"))
    assert main([str(option) for option in options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gpunet: error: ")
    assert captured.err.count("\n") == 1
    assert "epoch" not in captured.out
    assert sorted(Path.cwd().rglob("*")) == before
    return captured.err
