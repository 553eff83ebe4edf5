"""Run one shard of the test suite on a GPU and report each test as it ends. It does not need xdist.

    python bench/shard.py NUMBER COUNT DONE [arguments of pytest]

The tests are dealt in groups to COUNT shards; this process runs shard NUMBER without its first DONE tests.

stdout has lines of JSON: ``{"test": ..., "outcome": null}`` when a test starts; its outcome and, if it failed, "why" when it
ends. The output of pytest goes to stderr. If CUDA no longer works in this process after a failure, it exits with
``RESTART``, and the parent starts a new process for the remaining tests.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from gpu_session import RESTART, cuda_works

_GROUP = 20  # consecutive tests that stay in one shard, since they compile the same kernels
_MAX_REPORT = 1500  # characters of the report of a failed test


class Shard:
    """A pytest plugin that selects the tests of a shard and reports them."""

    def __init__(self, number: int, count: int, done: int, out: Any) -> None:
        self.number, self.count, self.done, self.out = number, count, done, out
        self.outcome, self.why = "", ""

    def report(self, **found: Any) -> None:
        self.out.write(json.dumps(found) + "\n")
        self.out.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        mine = [item for place, item in enumerate(items) if place // _GROUP % self.count == self.number]
        items[:] = mine[self.done :]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome, self.why = "", ""
        self.report(test=nodeid, outcome=None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.outcome = "failed" if report.when == "call" else "error"
            self.why = report.longreprtext[-_MAX_REPORT:]
            if not cuda_works():
                self.report(test=report.nodeid, outcome=self.outcome, why=self.why + "\nCUDA no longer works in this process")
                os._exit(RESTART)
        elif report.skipped or report.when == "call":
            self.outcome = self.outcome or report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.report(test=nodeid, outcome=self.outcome, why=self.why)


def main() -> int:
    number, count, done, *arguments = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in ("cupy", "torch"):  # imported before warnings become errors
        try:
            __import__(name)
        except ImportError:
            pass
    return int(pytest.main(arguments, plugins=[Shard(int(number), int(count), int(done), out)]))


if __name__ == "__main__":
    sys.exit(main())
