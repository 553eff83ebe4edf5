"""``pytest bench`` times each kernel, the eager step and the import; ``gpunet bench`` times whole steps beside peers."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the kernels: cpu (default), cuda, emulated")
