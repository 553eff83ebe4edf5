"""One part of the test suite on a card: every so-manyth bunch of its tests, each told as it ends.

    python bench/shard.py NUMBER COUNT DONE [pytest's arguments]

Its stdout are lines of JSON, ``{"test": ..., "outcome": null}`` when a test begins and with its outcome and, where it failed,
"why" when it ends; what pytest prints goes to stderr.  After a failure the card is asked whether it still answers this
process, which then ends with ``RESTART``: the next one leaves out the first DONE tests.  xdist may be absent.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from gpu_session import RESTART, card_answers

_BUNCH = 20  # tests that stay together: neighbours need the same kernels
_LONGEST = 1500  # characters of why a test failed


class Shard:
    """A pytest plugin."""

    def __init__(self, number: int, count: int, done: int, out: Any) -> None:
        self.number, self.count, self.done, self.out = number, count, done, out
        self.outcome, self.why = "", ""

    def tell(self, **found: Any) -> None:
        self.out.write(json.dumps(found) + "\n")
        self.out.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        mine = [item for place, item in enumerate(items) if place // _BUNCH % self.count == self.number]
        items[:] = mine[self.done :]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome, self.why = "", ""
        self.tell(test=nodeid, outcome=None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.outcome = "failed" if report.when == "call" else "error"
            self.why = report.longreprtext[-_LONGEST:]
            if not card_answers():
                self.tell(test=report.nodeid, outcome=self.outcome, why=self.why + "\nthe card no longer answers this process")
                os._exit(RESTART)
        elif report.skipped or report.when == "call":
            self.outcome = self.outcome or report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.tell(test=nodeid, outcome=self.outcome, why=self.why)


def main() -> int:
    number, count, done, *arguments = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in ("cupy", "torch"):  # before warnings become errors: theirs are not ours
        try:
            __import__(name)
        except ImportError:
            pass
    return int(pytest.main(arguments, plugins=[Shard(int(number), int(count), int(done), out)]))


if __name__ == "__main__":
    sys.exit(main())
