"""The differences from PyTorch that are intended: one table, rendered to docs/pytorch-differences.md."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import NamedTuple

from tests.torch_calls.judge import Verdict


class Difference(NamedTuple):
    """An intended difference."""

    names: str  # patterns of full names, separated by spaces: "torch.exp", "Tensor.*", "F.*"
    condition: Callable[[Verdict], bool]
    reason: str  # a sentence
    example: str  # a line that shows it


DIFFERENCES: tuple[Difference, ...] = ()


def find_difference(verdict: Verdict) -> Difference | None:
    """The entry that a difference falls under, or None."""
    name = verdict.call.target.full_name
    for entry in DIFFERENCES:
        if any(fnmatch(name, pattern) for pattern in entry.names.split()) and entry.condition(verdict):
            return entry
    return None
