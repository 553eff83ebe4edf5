"""Restrict the quick tier: on "emulated", test one sample per primitive, since it calls NumPy there as on "cpu"."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpunet.autograd import OPS
from tests.samples import SAMPLES

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first_rows = {sample.op: sample.name for sample in reversed(SAMPLES)}
    for item in items:
        if item.path.parent == _HERE and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            sample, device = item.callspec.params.get("sample"), item.callspec.params.get("device")
            if sample is not None and device == "emulated" and OPS[sample.op].kind == "primitive":
                if sample.name != first_rows[sample.op]:
                    item.add_marker("exhaustive")
