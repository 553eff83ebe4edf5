"""Scripts of the kinds that people publish give the losses of PyTorch, unchanged, by ``gpunet run``."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.interop.port import read_script
from gpunet.interop.run_script import run_script

FOLDER = Path(__file__).parents[1] / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Default dtypes, and the module that the scripts share, which refers to the library that imported it."""
    sys.modules.pop("common", None)
    yield
    sys.modules.pop("common", None)
    gpunet.set_default_dtype("float32")


def losses(run: Any) -> list[float]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run()
    return [float(line) for line in printed.getvalue().splitlines()]


def run_with_pytorch(torch: Any, path: Path) -> None:
    before = sys.path.copy()
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.path[:] = before
        torch.set_default_dtype(torch.float32)


def test_there_are_fourteen() -> None:
    assert len(SCRIPTS) == 14


@pytest.mark.parametrize("name", SCRIPTS)
def test_losses_are_those_of_pytorch(name: str, torch: Any) -> None:
    path = FOLDER / f"{name}.py"
    assert read_script(path).findings == []
    theirs = losses(lambda: run_with_pytorch(torch, path))
    sys.modules.pop("common", None)
    mine = losses(lambda: run_script(path))
    assert len(mine) == len(theirs) == 20 and theirs[0] != theirs[-1]
    assert mine == pytest.approx(theirs, rel=1e-8, abs=1e-8 * abs(theirs[0]))
