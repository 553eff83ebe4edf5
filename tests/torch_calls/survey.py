"""Many calls: their verdicts counted, and the faults grouped, each group with its shortest call."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from random import Random
from typing import Any, NamedTuple

from tests.torch_calls.differences import Difference, find_difference
from tests.torch_calls.draw import draw, with_out
from tests.torch_calls.judge import FAULTS, MISSING, Verdict, judge
from tests.torch_calls.outcome import quietly
from tests.torch_calls.targets import DEPEND_ON_DEVICE, find_targets

INTENDED = "intended difference"


class Group(NamedTuple):
    """Verdicts of one kind about one function."""

    name: str
    kind: str
    detail: str
    count: int
    smallest: Verdict


class Survey:
    """Counts verdicts by class, and groups faults and missing capabilities by function and detail."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.groups: dict[tuple[str, str, str], Group] = {}
        self.used: Counter[Difference] = Counter()

    def add(self, verdict: Verdict) -> None:
        kind = verdict.kind
        if kind in FAULTS or kind == MISSING:
            entry = find_difference(verdict)
            if entry is not None:
                self.used[entry] += 1
                kind = INTENDED
        self.counts[kind] += 1
        if kind not in FAULTS and kind != MISSING:
            return
        key = (verdict.call.target.full_name, kind, _without_values(verdict.detail))
        old = self.groups.get(key)
        smallest = verdict if old is None or len(verdict.text) < len(old.smallest.text) else old.smallest
        self.groups[key] = Group(*key, 1 if old is None else old.count + 1, smallest)

    def of_kind(self, *kinds: str) -> list[Group]:
        return sorted((g for g in self.groups.values() if g.kind in kinds), key=lambda g: (g.kind, g.name, -g.count))

    @property
    def faults(self) -> list[Group]:
        return self.of_kind(*FAULTS)

    def report(self) -> Iterator[str]:
        """The lines of the summary: counts, then the groups."""
        total = sum(self.counts.values())
        for kind, count in self.counts.most_common():
            yield f"{count:9,}  {100 * count / max(total, 1):5.1f} %  {kind}"
        yield f"{total:9,}           calls"
        for group in self.of_kind(MISSING):
            yield f"missing  {group.count:5}  {group.name}: {group.smallest.detail}\n    {group.smallest.text}"
        for group in self.faults:
            verdict = group.smallest
            yield f"FAULT  {group.count:5}  {group.name}: {group.kind}: {verdict.detail}\n    {verdict.text}"
            yield f"        PyTorch: {verdict.theirs}\n        gpunet:  {verdict.ours}"


def _without_values(detail: str) -> str:
    """The part of a message before the first value, so that messages of one kind are one group."""
    head = re.sub(r"=.*| \(.*", "", detail.split("\n")[0])
    return "".join(c for c in head if not c.isdigit())[:48]


def verdicts(
    gpunet: Any, torch: Any, calls: int, seed: int, only: str = "*", targets: Iterable[Any] | None = None
) -> Iterator[Verdict]:
    """Draw and judge ``calls`` calls of all targets in turn; a call depends on the seed, its target and the round alone."""
    chosen = list(targets if targets is not None else find_targets(gpunet, torch))
    if gpunet.zeros(0).device.type != "cpu":
        chosen = [t for t in chosen if t.full_name not in DEPEND_ON_DEVICE]
    chosen = [t for t in chosen if fnmatch(t.full_name, only) or fnmatch(t.name, only)]
    with quietly():
        for number in range(calls if chosen else 0):
            target = chosen[number % len(chosen)]
            random = Random(f"{seed} {target.full_name} {number // len(chosen)}")
            call = draw(random, target)
            if call.target.takes_out and random.random() < 0.08:
                call = with_out(call, torch, random) or call
            yield judge(call, torch, gpunet, random)


def survey(gpunet: Any, torch: Any, calls: int, seed: int, only: str = "*") -> Survey:
    result = Survey()
    for verdict in verdicts(gpunet, torch, calls, seed, only):
        result.add(verdict)
    return result
