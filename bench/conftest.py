"""``pytest bench``: one micro-benchmark a kernel, the eager step, the import.  Whole steps beside peers: ``gpunet bench``."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the kernels: cpu (default), cuda, emulated")
