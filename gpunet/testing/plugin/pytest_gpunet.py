"""The pytest plugin of gpunet: the fixture ``emulated_module``.

It is a top-level module, so that starting pytest does not import gpunet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpunet.testing import RawModule


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("gpunet").addoption(
        "--emulated-skip",
        action="store_true",
        help="skip tests with the fixture emulated_module where g++ is missing, instead of failing them",
    )


@pytest.fixture(scope="session")
def emulated_module(request: pytest.FixtureRequest) -> Callable[..., RawModule]:
    """Return ``emulated_module(source, **options)``, which makes a :class:`gpunet.testing.RawModule`.

    ``source`` is CUDA source text or the ``pathlib.Path`` of a file.
    """
    from gpunet import emulator
    from gpunet.emulator import compiler
    from gpunet.testing import RawModule

    if request.config.getoption("--emulated-skip") and not emulator.available():
        pytest.skip("g++ is not installed")
    compiler.version()  # without g++ this raises an error that says what to install

    def make(source: str | Path, **options: object) -> RawModule:
        return RawModule(source, **options) if isinstance(source, str) else RawModule(path=source, **options)  # type: ignore[arg-type]

    return make
