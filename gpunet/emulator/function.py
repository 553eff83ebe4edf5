"""Functions of the device "emulated": compiled, launched, and how this thread's launches run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gpunet.emulator import compiler
from gpunet.emulator.launch import (
    COMPLETIONS,
    SCHEDULES,
    Counts,
    Reached,
    check_compiled,
    launch,
    parameter_names,
    static_shared,
)
from gpunet.emulator.library import Library
from gpunet.emulator.report import Access, Report
from gpunet.errors import ArgumentError, CompileError

__all__ = [
    "COMPLETIONS", "SCHEDULES", "Access", "Counts", "Function", "Reached", "Report", "available", "check", "every_way",
    "lint", "lint_report", "prepare", "settings",
]  # fmt: skip


class Settings(NamedTuple):
    """How launches run."""

    check: bool
    schedule: str
    seed: int
    completion: str = "eager"


class _Chosen(threading.local):
    settings: Settings | None = None
    report: Report | None = None


_chosen = _Chosen()


def settings() -> Settings:
    """How this thread's launches run: ``check()``'s choice, else the environment's."""
    if _chosen.settings is not None:
        return _chosen.settings
    return Settings(os.environ.get("GPUNET_EMULATOR_CHECK", "") not in ("", "0"), SCHEDULES[0], 0)


@contextmanager
def check(
    enabled: bool = True, *, schedule: str = SCHEDULES[0], seed: int = 0, completion: str = COMPLETIONS[0]
) -> Iterator[None]:
    """Launches of this thread run in check mode meanwhile.

    Args:
        enabled: False for fast mode, where only the schedule is chosen.
        schedule: which thread runs when several can: "depth-first", "reversed", "random" or "breadth-first".
        seed: of the random schedule.
        completion: when an asynchronous copy moves its data: "eager", at once, or "lazy", when it is waited for.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"schedule {schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if completion not in COMPLETIONS:
        raise ArgumentError(f"completion {completion!r}: expected one of {', '.join(COMPLETIONS)}")
    before = _chosen.settings
    _chosen.settings = Settings(enabled, schedule, seed, completion)
    try:
        yield
    finally:
        _chosen.settings = before


def every_way() -> Iterator[dict[str, Any]]:
    """Keywords of :func:`check`, one dictionary for each way of running a launch that may find what others don't."""
    for completion in COMPLETIONS:
        for seed, schedule in enumerate(SCHEDULES):
            yield {"schedule": schedule, "seed": seed, "completion": completion}


@contextmanager
def lint() -> Iterator[Report]:
    """Launches of this thread run in check mode meanwhile, and how their accesses meet the memory of a card is counted.

        with gpunet.emulator.lint() as report:
            model(x).sum().backward()
        print(report)

    The arrays of a launch are then placed as a card's allocator would, at multiples of 256 bytes.
    """
    before = _chosen.report
    _chosen.report = Report()
    try:
        yield _chosen.report
    finally:
        _chosen.report = before


def lint_report(
    function: Function,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    arguments: Sequence[Any],
    shared: int = 0,
    reached: Sequence[Reached] = (),
) -> list[Access]:
    """Launch a function once and tell where a warp's accesses cost more than they need to, the worst place first.

    Each has ``file``, ``line``, ``memory`` ("shared" or "global"), ``degree`` and a ``message``.

    Raises:
        LaunchError, EmulationError: as the launch itself.
    """
    with lint() as report:
        function(grid, block, arguments, shared, reached)
    return report.findings()


class Function:
    """A specialisation that can be launched; compiled at its first launch in each mode."""

    def __init__(
        self, text: str, file: str, expression: str, cache: str | os.PathLike[str], options: Sequence[str] = ()
    ) -> None:
        self.text, self.file, self.expression, self.cache, self.options = text, file, expression, Path(cache), options
        self._libraries: dict[str, Library] = {}
        self._names: list[str] = []
        self._static = 0
        #: of the last launch
        self.counts: Counts | None = None

    def build(self, mode: str) -> Path:
        """Compile for "fast" or "check" mode, unless that was done before."""
        return compiler.kernel(self.text, self.file, self.expression, mode, self.cache, self.options)

    def library(self, mode: str) -> Library:
        if mode not in self._libraries:
            library = Library(self.build(mode), self.cache)
            check_compiled(library, self.text, self.file, self.expression)
            self._names = parameter_names(self.text, self.expression, len(library.parameters))
            self._static = static_shared(library, self.text, self.expression)
            self._libraries[mode] = library
        return self._libraries[mode]

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        arguments: Sequence[Any],
        shared: int = 0,
        reached: Sequence[Reached] = (),
    ) -> None:
        """Launch and wait: see :func:`gpunet.emulator.launch.launch`."""
        chosen = settings()
        report = _chosen.report
        library = self.library("check" if chosen.check or report is not None else "fast")
        self.counts = launch(
            library, self.expression, self._names, grid, block, arguments, shared, reached, self._static,
            lint=report is not None, **chosen._asdict(),
        )  # fmt: skip
        if report is not None:
            report.add(library, self.expression, self.counts.tallies)


def available() -> bool:
    """Whether the compiler is here."""
    try:
        compiler.version()
    except CompileError:
        return False
    return True


def prepare(functions: Sequence[Function], mode: str = "fast", report: Callable[[Function], None] | None = None) -> None:
    """Compile several functions at once, on all processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for function, _ in zip(functions, pool.map(lambda f: f.build(mode), functions)):
            if report is not None:
                report(function)
