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


def test_there_are_fifteen() -> None:
    assert len(SCRIPTS) == 15


@pytest.mark.parametrize("name", SCRIPTS)
def test_losses_are_those_of_pytorch(name: str, torch: Any) -> None:
    path = FOLDER / f"{name}.py"
    assert read_script(path).findings == []
    theirs = losses(lambda: run_with_pytorch(torch, path))
    sys.modules.pop("common", None)
    mine = losses(lambda: run_script(path))
    assert len(mine) == len(theirs) == 20 and theirs[0] != theirs[-1]
    assert mine == pytest.approx(theirs, rel=1e-8, abs=1e-8 * abs(theirs[0]))


_MIXED = """
import numpy
import torch
from torch.cuda.amp import GradScaler, autocast

device = "cuda" if torch.cuda.is_available() else "cpu"
with autocast(enabled=False), torch.cuda.amp.autocast(enabled=False):
    idle = GradScaler(enabled=False)
random = numpy.random.RandomState(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.tensor(random.randn(*p.shape), dtype=torch.float32) * 0.3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=8)
x = torch.tensor(random.randn(64, 8), dtype=torch.float32)
y = (x[:, :1] * x[:, 1:2]).tanh()
for step in range(20):
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device_type="cpu", dtype=torch.bfloat16):
        output = model(x)
        assert output.dtype is torch.bfloat16 or output.dtype == torch.bfloat16
        loss = torch.nn.functional.mse_loss(output, y)
    scaler.scale(loss * (float("inf") if step == 5 else 1.0)).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    print(loss.item())
print(scaler.get_scale())
"""


@pytest.mark.filterwarnings("ignore:.*cuda.amp.*:FutureWarning")
def test_mixed_precision(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "mixed.py"
    path.write_text(_MIXED)
    assert read_script(path).findings == []
    *theirs, their_scale = losses(lambda: run_with_pytorch(torch, path))
    *mine, scale = losses(lambda: run_script(path))
    assert scale == their_scale == 2.0**12  # halved once, doubled once
    assert mine == pytest.approx(theirs, rel=0.02) and mine[-1] < 0.9 * mine[0]
