"""What the tests of ``gpunet check-kernel`` share: a kernel in a temporary folder, and calls of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpunet.cli.main import main

COPY = """\
template <class T>
__global__ void copy(T* y, const T* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
"""
FLOAT = ["--entry", "copy<float>", "--grid", "2", "--block", "32"]


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copy.cu").write_text(COPY)


def write(text: str, name: str = "kernel.cu") -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    return name


def checked(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Run the command; return its exit code, stdout and stderr."""
    code = main(["check-kernel", *map(str, arguments)])
    return code, *capsys.readouterr()


def arguments(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--arg", text)]
