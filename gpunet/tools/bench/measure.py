"""Rounds: every contestant has its turn in each, so that a drift of the machine hits all alike.

Before a contestant is timed its losses over the first steps must be those of gpunet; one whose losses are not is
reported, and not timed.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gpunet.tools.bench.cases import Case
from gpunet.tools.bench.contestants import PEERS, Variant
from gpunet.tools.bench.worker import COMPARED_STEPS, Worker, WorkerError

#: Largest relative difference of losses that passes: float32's rounding over a few steps stays far below.
AGREEMENT = 1e-3
_LEAST_ROUNDS = 5
#: Seconds between the turns of two contestants.  The threads of OpenBLAS spin on after their last work and would take a core from
#: whoever comes next: with 0.05 here, and 2 cores, times came out up to twice as long; with 0.15 they agree with those alone.
SETTLE = 0.15
#: With this peer's first variant, eager, all are compared.
REFERENCE = "gpunet"

CLOCKS = ("wall", "processor")

Say = Callable[[str], None]


@dataclass
class Settings:
    """How to measure."""

    rounds: int = 15
    turn: float = 0.05  # seconds of a turn, at least
    budget: float = 4.0  # seconds of a contestant's turns, after which it has no more, but has had 5 rounds
    device: str = "cpu"
    timeout: float = 300.0  # seconds for building a contestant, compilation and all, or for a turn
    clock: str = "wall"  # or "processor": seconds of all threads together, which others on the machine do not lengthen
    threads: int | None = None  # of everybody; None leaves each peer its default
    without: tuple[str, ...] = ()  # variants, by their key, that are left out


@dataclass
class Entry:
    """What was found of one contestant in one case."""

    peer: str
    name: str
    variant: str
    status: str = "ok"  # or "unavailable", "disagrees", "failed"
    detail: str = ""
    first_step: float = 0.0  # seconds, building and compiling included
    losses: list[float | None] = field(default_factory=list)
    steps: int = 0  # a turn
    seconds: list[float] = field(default_factory=list)  # of a step, by round, by the chosen clock
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    notes: str = ""
    threads: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high

    def ratio(self, other: Entry) -> float:
        """How many times as long as ``other``: the median over rounds of the ratio within a round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds))

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.seconds:
            found["median"], found["quartiles"] = self.median, list(self.quartiles)
        return found


@dataclass
class Measurement:
    """One case and kind: all contestants."""

    case: Case
    kind: str
    entries: list[Entry]

    @property
    def timed(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.seconds]

    def best(self) -> dict[str, Entry]:
        """By name, the fastest of its alternatives."""
        found: dict[str, Entry] = {}
        for entry in self.timed:
            if entry.name not in found or entry.median < found[entry.name].median:
                found[entry.name] = entry
        return found


class Bench:
    """The peers' processes; start it with ``with``, then measure case by case."""

    def __init__(self, peers: list[str], settings: Settings) -> None:
        self.settings = settings
        self.peers = sorted(peers, key=lambda peer: peer != REFERENCE)  # the reference first
        self._workers: dict[str, Worker] = {}
        self._built: dict[int, tuple[Worker, dict[str, Any]]] = {}  # by number: where, and with what request
        self._latest: int | None = None  # whose turn it was
        self._meter: Worker | None = None  # a process that has only gpunet in it, for the ceilings

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in (*self._workers.values(), self._meter):
            if worker is not None:
                worker.stop()

    def _worker(self, peer: str) -> Worker:
        if peer not in self._workers:
            self._workers[peer] = Worker(PEERS[peer].module, self.settings.device, self.settings.threads)
        return self._workers[peer]

    def ceilings(self, footprint: float) -> dict[str, float]:
        """What the device can do; on the CPU with the best product of the peers that have a BLAS of their own.

        Raises:
            WorkerError: it cannot be measured here.
        """
        clock = self.settings.clock
        if self._meter is None:
            self._meter = Worker(PEERS[REFERENCE].module, self.settings.device, self.settings.threads)
        found = self._meter.ask("ceilings", footprint=footprint, clock=clock)
        if not self.settings.device.startswith("cuda"):
            for peer in {"torch", "jax"} & set(self.peers):
                with contextlib.suppress(WorkerError):
                    rate = self._worker(peer).ask("gemm", through=peer, clock=clock)["rate"]
                    found["gemm"] = max(found["gemm"], rate)
        return found

    def _variants(self, kind: str) -> Iterator[tuple[str, Variant]]:
        for peer in self.peers:
            for variant in PEERS[peer].on(self.settings.device):
                if kind in variant.kinds and variant.key not in self.settings.without:
                    yield peer, variant

    def measure(self, case: Case, kinds: Sequence[str], say: Say = lambda line: None) -> list[Measurement]:
        """Build the contestants one after the other, compare their losses, then time them all, of every kind, in rounds."""
        found = [Measurement(case, kind, []) for kind in kinds]
        numbered: dict[int, Entry] = {}
        for measurement in found:
            for peer, variant in self._variants(measurement.kind):
                entry = Entry(peer, variant.name, variant.key)
                measurement.entries.append(entry)
                say(f"{case.name}, {measurement.kind}: {entry.name}")
                self._build(len(numbered), entry, case, measurement.kind)
                numbered[len(numbered)] = entry
                reference = measurement.entries[0]
                if entry is not reference and entry.status == "ok":
                    _compare(entry, reference)
        say(f"{case.name}: {self.settings.rounds} rounds")
        self._time({number: entry for number, entry in numbered.items() if entry.status == "ok"})
        for number, entry in numbered.items():
            with contextlib.suppress(WorkerError):
                self._worker(entry.peer).ask("drop", number=number)
        return found

    def _build(self, number: int, entry: Entry, case: Case, kind: str) -> None:
        request = {"number": number, "case": asdict(case), "kind": kind, "variant": entry.variant}
        try:
            worker = self._worker(entry.peer)
            self._built[number] = worker, request
            answer = worker.ask("build", self.settings.timeout, **request)
        except WorkerError as error:
            entry.status = "unavailable" if error.missing else "failed"
            entry.detail = str(error)
            self._restart_if_dead(entry.peer)
            return
        entry.first_step, entry.losses = answer["first_step"], answer["losses"]
        entry.notes, entry.threads = answer["notes"], answer["threads"]

    def _restart_if_dead(self, peer: str) -> None:
        if not self._workers[peer].alive:
            self._workers.pop(peer).stop()

    def _time(self, entries: dict[int, Entry]) -> None:
        """Turns of at least ``turn`` seconds, each contestant first in some round."""
        for number, entry in entries.items():
            entry.steps = self._calibrate(number, entry)
        numbers = [number for number, entry in entries.items() if entry.steps]
        for round in range(self.settings.rounds):
            start = round % max(1, len(numbers))
            for number in numbers[start:] + numbers[:start]:
                entry = entries[number]
                if round < _LEAST_ROUNDS or sum(entry.wall) * entry.steps < self.settings.budget:
                    self._turn(number, entry)

    def _calibrate(self, number: int, entry: Entry) -> int:
        """Steps of a turn; 0 when the contestant fails.  The shorter of two tries counts: a hiccup only lengthens."""
        steps = 1
        while True:
            seconds = 0.0
            for _ in range(2):
                answer = self._ask_time(number, entry, steps, min(steps - 1, 3))
                if answer is None:
                    return 0
                seconds = min(seconds or answer["wall"], answer["wall"])
                if seconds > 10 * self.settings.turn:
                    break
            if seconds >= self.settings.turn:
                return steps
            steps = max(steps + 1, min(10 * steps, int(1.2 * steps * self.settings.turn / max(seconds, 1e-9))))

    def _turn(self, number: int, entry: Entry) -> None:
        if entry.status != "ok":
            return
        # the first steps find cold caches: those of a turn's tenth are not timed
        answer = self._ask_time(number, entry, entry.steps, entry.steps // 10 + (entry.steps > 1))
        if answer is not None:
            entry.wall.append(answer["wall"] / entry.steps)
            entry.processor.append(answer["processor"] / entry.steps)
            entry.seconds.append(answer[self.settings.clock] / entry.steps)

    def _ask_time(self, number: int, entry: Entry, steps: int, untimed: int) -> dict[str, Any] | None:
        worker, build = self._built[number]
        try:
            if worker is not self._worker(entry.peer):  # another contestant brought its process down
                worker = self._worker(entry.peer)
                worker.ask("build", self.settings.timeout, **build)
                self._built[number] = worker, build
            if self._latest not in (None, number) and not self.settings.device.startswith("cuda"):
                time.sleep(SETTLE)
            self._latest = number
            answer = worker.ask("time", self.settings.timeout, number=number, steps=steps, untimed=untimed)
        except WorkerError as error:
            entry.status, entry.detail, entry.seconds = "failed", str(error), []
            self._restart_if_dead(entry.peer)
            return None
        if answer["loss"] is None:
            entry.status, entry.detail, entry.seconds = "failed", "its loss is no longer a finite number", []
            return None
        return answer


def _compare(entry: Entry, reference: Entry) -> None:
    """Hold a contestant's first losses to the reference's."""
    if reference.status != "ok":
        entry.status, entry.detail = "failed", f"there is nothing to compare with: gpunet eager {reference.detail}"
        return
    for step, (a, b) in enumerate(zip(entry.losses, reference.losses, strict=True)):
        if a is None or b is None or not abs(a - b) <= AGREEMENT * abs(b):
            entry.status = "disagrees"
            entry.detail = f"loss {a} at step {step + 1} of {COMPARED_STEPS}, gpunet's {b}: not the same computation"
            return


def import_seconds(package: str, repeats: int = 3) -> float | None:
    """Median seconds of an import in a fresh process; None when it fails."""
    code = f"import time; start = time.perf_counter(); import {package}; print(time.perf_counter() - start)"
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        found.append(float(done.stdout.split()[-1]))
    return statistics.median(found)
