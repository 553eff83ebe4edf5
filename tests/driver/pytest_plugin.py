"""Pytest on the stand-in driver:

    python -m pytest -p tests.driver.pytest_plugin --device cuda tests/test_ops.py
    python -m pytest -p tests.driver.pytest_plugin --driver-lazy --driver-devices 2 ...

The stand-in is installed before any conftest.py is imported, and a fault of one test, such as an illegal address, does not
outlive it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests import driver


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stand-in driver")
    group.addoption("--driver-lazy", action="store_true", help="run work when something waits for it")
    group.addoption("--driver-devices", type=int, default=1, help="number of devices")
    group.addoption("--driver-peers", action="store_true", help="devices access each other's memory")
    group.addoption("--driver-check", action="store_true", help="look for races and accesses out of bounds")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # pytest's own wrapper imports the conftests
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    given = early_config.known_args_namespace
    if driver.installed() is None:  # python -m tests.driver -m pytest has done it
        driver.install(given.driver_lazy, given.driver_devices, given.driver_peers, given.driver_check)
    return (yield)


def pytest_report_header() -> str:
    return f"cuda: {driver.describe()}"


@pytest.fixture(autouse=True)
def _without_faults() -> Iterator[None]:
    yield
    driver.clear_faults()
