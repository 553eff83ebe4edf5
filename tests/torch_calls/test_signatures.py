"""Every function and method takes its arguments as PyTorch's does: by position, by keyword, by NumPy's names, left out."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

import gpunet
from tests.torch_calls.judge import BOTH_REFUSE, EQUAL, judge
from tests.torch_calls.outcome import quietly
from tests.torch_calls.signatures import spellings

torch = pytest.importorskip("torch")

from tests.torch_calls.differences import find_difference  # noqa: E402
from tests.torch_calls.targets import Target, find_targets  # noqa: E402

TARGETS = [target for target in find_targets(gpunet, torch) if target.overloads]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_signature(target: Target) -> None:
    with quietly():
        verdicts = [judge(call, torch, gpunet, Random(0)) for call in spellings(target, torch)]
    assert verdicts, "PyTorch accepted none of the drawn calls"
    wrong = [v for v in verdicts if v.kind not in (EQUAL, BOTH_REFUSE) and find_difference(v) is None]
    assert not wrong, "\n".join(f"{v.text}\n    {v.kind}: {v.detail}\n    PyTorch: {v.theirs}\n    gpunet:  {v.ours}" for v in wrong)
