"""``gpunet info``: its output as text and as JSON."""

from __future__ import annotations

import json
import sys

import pytest

import gpunet
from gpunet.cli.main import main


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
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["gpunet"] == gpunet.__version__
    assert found["optional"]["rich"] == "missing (progress bars): pip install 'gpunet[train]'"
    assert found["cuda"]["state"] == gpunet.cuda_status().state
