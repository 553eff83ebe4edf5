"""The table of intended differences: each entry is needed, and the page in docs/ shows the table."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

import gpunet
from tests.torch_calls.differences import DIFFERENCES, PAGE, REWRITE, Difference, find_difference, page
from tests.torch_calls.draw import Call
from tests.torch_calls.judge import FAULTS, MISSING, judge
from tests.torch_calls.outcome import quietly
from tests.torch_calls.targets import find_targets


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: entry.name)
def test_entry_is_needed(torch: Any, entry: Difference) -> None:
    [target] = [target for target in find_targets(gpunet, torch) if target.full_name == entry.name]
    with quietly():
        verdict = judge(Call(target, (), entry.example, ("x",)), torch, gpunet, Random(0))
    assert verdict.kind in (*FAULTS, MISSING), "gpunet agrees with PyTorch: remove the entry"
    assert find_difference(verdict) is entry


def test_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run {REWRITE}"


def test_reasons_are_sentences() -> None:
    assert [d.reason for d in DIFFERENCES if not re.fullmatch(r"[A-Z`].*\.", d.reason)] == []
