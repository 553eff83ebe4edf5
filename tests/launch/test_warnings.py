"""Warnings name the user's line, at whatever depth of the library they arise."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.optim import lr_scheduler


def optimizer() -> Any:
    return gpunet.optim.SGD([gpunet.ones(1, requires_grad=True)], lr=0.1)


WARNINGS: dict[str, Callable[[], Any]] = {
    "autocast": lambda: gpunet.autocast("cpu", dtype=gpunet.float64),
    "gumbel_softmax": lambda: nn.functional.gumbel_softmax(gpunet.zeros(3), eps=1.0),
    "RNN": lambda: nn.RNN(2, 2, dropout=0.5),
    "init.normal": lambda: nn.init.normal(gpunet.ones(2)),
    "kaiming_normal_": lambda: nn.init.kaiming_normal_(gpunet.ones(0, 2)),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(3)(gpunet.ones(2, 4, 5)),
    "verbose": lambda: lr_scheduler.ExponentialLR(optimizer(), 0.5, verbose=True),
    "step(epoch)": lambda: lr_scheduler.ExponentialLR(optimizer(), 0.5).step(2),
    "mse_loss": lambda: nn.MSELoss()(gpunet.ones(3), gpunet.ones(1)),
    "random_split": lambda: gpunet.utils.data.random_split(range(1), [0.5, 0.5]),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_the_line_is_the_users(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WARNINGS[name]()
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, inspect.getsourcelines(WARNINGS[name])[1])]


def test_the_line_is_the_users_where_packages_are_imported_through_a_symbolic_link(tmp_path: Path) -> None:
    for package in (gpunet, numpy):
        (tmp_path / package.__name__).symlink_to(Path(package.__file__).parent)
    script = tmp_path / "script.py"
    script.write_text(
        "import gpunet\n\n"
        "gpunet.optim.lr_scheduler.ExponentialLR(gpunet.optim.SGD([gpunet.ones(1)], lr=0.1), 0.5).step(2)\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert f"{script}:3: " in found.stderr
