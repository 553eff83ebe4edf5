"""Timing in rounds: every contestant has one turn per round, so that a drift of the machine affects all of them.

Before timing, the losses of a contestant's first steps are compared with gpunet's. Contestants whose losses differ are
reported and excluded.
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
from gpunet.tools.bench.worker import COMPARED_STEPS, Worker, WorkerError, case_request

#: Largest relative difference of losses that passes; float32 rounding over a few steps stays far below.
AGREEMENT = 1e-3
_MIN_ROUNDS = 5
#: Seconds between the turns of two contestants. OpenBLAS threads keep spinning after their last task and would take a core
#: from the next contestant: on 2 cores, times doubled with 0.05 s, and match those measured alone with 0.15 s.
SETTLE = 0.15
#: The losses of all contestants are compared with this peer's first variant, eager.
REFERENCE = "gpunet"

CLOCKS = ("wall", "processor")

Write = Callable[[str], None]


@dataclass
class Settings:
    """How to measure."""

    rounds: int = 15
    turn: float = 0.05  # minimal seconds of a turn
    budget: float = 4.0  # seconds of all turns of a contestant; when used up it stops, but not before 5 rounds
    device: str = "cpu"
    timeout: float = 300.0  # seconds to build a contestant, including compilation, or for a turn
    clock: str = "wall"  # or "processor": CPU time of all threads, which is independent of other load on the machine
    threads: int | None = None  # threads of each contestant; None leaves each its default
    without: tuple[str, ...] = ()  # keys of the variants to exclude


@dataclass
class Entry:
    """The result of one contestant in one case."""

    peer: str
    name: str
    variant: str
    status: str = "ok"  # or "unavailable", "disagrees", "failed"
    detail: str = ""
    first_step: float = 0.0  # seconds, including building and compiling
    losses: list[float | None] = field(default_factory=list)
    steps: int = 0  # steps per turn
    seconds: list[float] = field(default_factory=list)  # seconds per step in each round, by the chosen clock
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
        """Time relative to ``other``: the median over rounds of the ratio within a round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds))

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.seconds:
            found["median"], found["quartiles"] = self.median, list(self.quartiles)
        return found


@dataclass
class Measurement:
    """The results of all contestants in one case and kind."""

    case: Case
    kind: str
    entries: list[Entry]

    @property
    def timed(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.seconds]

    def best(self) -> dict[str, Entry]:
        """For each name the fastest of its variants."""
        found: dict[str, Entry] = {}
        for entry in self.timed:
            if entry.name not in found or entry.median < found[entry.name].median:
                found[entry.name] = entry
        return found


class Bench:
    """The processes of the peers, as a context manager. :meth:`measure` measures one case."""

    def __init__(self, peers: list[str], settings: Settings) -> None:
        self.settings = settings
        self.peers = sorted(peers, key=lambda peer: peer != REFERENCE)  # the reference first
        self._workers: dict[str, Worker] = {}
        self._built: dict[int, tuple[Worker, dict[str, Any]]] = {}  # by contestant number: its process, the build request
        self._latest: int | None = None  # number of the contestant that had the last turn
        self._meter: Worker | None = None  # a process for the ceilings; it imports gpunet only

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
        """Limits of the device; on the CPU the GEMM rate is the best of the peers that bring their own BLAS.

        Raises:
            WorkerError: the limits cannot be measured on this machine.
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

    def _variants(self, case: Case, kind: str) -> Iterator[tuple[str, Variant]]:
        for peer in self.peers:
            for variant in PEERS[peer].on(self.settings.device):
                if variant.takes(case, kind) and variant.key not in self.settings.without:
                    yield peer, variant

    def measure(self, case: Case, kinds: Sequence[str], progress: Write = lambda line: None) -> list[Measurement]:
        """Build the contestants of all kinds in sequence, compare their losses, then time them all in rounds."""
        found = [Measurement(case, kind, []) for kind in kinds]
        numbered: dict[int, Entry] = {}
        for measurement in found:
            for peer, variant in self._variants(case, measurement.kind):
                entry = Entry(peer, variant.name, variant.key)
                measurement.entries.append(entry)
                progress(f"{case.name}, {measurement.kind}: {entry.name}")
                self._build(len(numbered), entry, case, measurement.kind)
                numbered[len(numbered)] = entry
                reference = measurement.entries[0]
                if entry is not reference and entry.status == "ok":
                    _compare(entry, reference)
        progress(f"{case.name}: {self.settings.rounds} rounds")
        self._time({number: entry for number, entry in numbered.items() if entry.status == "ok"})
        for number, entry in numbered.items():
            with contextlib.suppress(WorkerError):
                self._worker(entry.peer).ask("drop", number=number)
        return found

    def _build(self, number: int, entry: Entry, case: Case, kind: str) -> None:
        request = {"number": number, "case": case_request(case), "kind": kind, "variant": entry.variant}
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
        """Run the rounds, with turns of at least ``settings.turn`` seconds and a rotating first contestant."""
        for number, entry in entries.items():
            entry.steps = self._calibrate(number, entry)
        numbers = [number for number, entry in entries.items() if entry.steps]
        for round in range(self.settings.rounds):
            start = round % max(1, len(numbers))
            for number in numbers[start:] + numbers[:start]:
                entry = entries[number]
                if round < _MIN_ROUNDS or sum(entry.wall) * entry.steps < self.settings.budget:
                    self._turn(number, entry)

    def _calibrate(self, number: int, entry: Entry) -> int:
        """Steps per turn; 0 if the contestant fails. Uses the shorter of two tries, since other load only adds time."""
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
        # the caches are cold at first: a tenth of the steps runs untimed before the turn
        answer = self._ask_time(number, entry, entry.steps, entry.steps // 10 + (entry.steps > 1))
        if answer is not None:
            entry.wall.append(answer["wall"] / entry.steps)
            entry.processor.append(answer["processor"] / entry.steps)
            entry.seconds.append(answer[self.settings.clock] / entry.steps)

    def _ask_time(self, number: int, entry: Entry, steps: int, untimed: int) -> dict[str, Any] | None:
        worker, build = self._built[number]
        try:
            if worker is not self._worker(entry.peer):  # its process was restarted after a crash of another variant
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
            entry.status, entry.detail, entry.seconds = "failed", "its loss is not finite", []
            return None
        return answer


def _compare(entry: Entry, reference: Entry) -> None:
    """Set the status of ``entry`` to "disagrees" if its first losses differ from those of the reference."""
    if reference.status != "ok":
        entry.status, entry.detail = "failed", f"no reference losses: gpunet eager failed: {reference.detail}"
        return
    for step, (a, b) in enumerate(zip(entry.losses, reference.losses, strict=True)):
        if a is None or b is None or not abs(a - b) <= AGREEMENT * abs(b):
            entry.status = "disagrees"
            entry.detail = f"loss {a} at step {step + 1} of {COMPARED_STEPS}, expected {b} as in gpunet"
            return


def import_seconds(package: str, repeats: int = 3) -> float | None:
    """Median seconds of an import in a new process; None if it fails."""
    code = f"import time; start = time.perf_counter(); import {package}; print(time.perf_counter() - start)"
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        found.append(float(done.stdout.split()[-1]))
    return statistics.median(found)
