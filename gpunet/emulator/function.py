"""Functions of the device "emulated": compiling and launching them, and the settings of this thread's launches."""

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
    """The settings of launches; see :func:`check`."""

    check: bool
    schedule: str
    seed: int
    completion: str = "eager"


class _ThreadState(threading.local):
    settings: Settings | None = None  # set by check()
    report: Report | None = None  # set by lint()


_thread = _ThreadState()


def settings() -> Settings:
    """Return the settings of this thread's launches: those of :func:`check`, else of ``GPUNET_EMULATOR_CHECK``."""
    if _thread.settings is not None:
        return _thread.settings
    return Settings(os.environ.get("GPUNET_EMULATOR_CHECK", "") not in ("", "0"), SCHEDULES[0], 0)


@contextmanager
def check(
    enabled: bool = True, *, schedule: str = SCHEDULES[0], seed: int = 0, completion: str = COMPLETIONS[0]
) -> Iterator[None]:
    """Context manager: this thread's launches run in check mode, in which bugs raise an EmulationError.

    Args:
        enabled: False for fast mode, in which only schedule and completion take effect.
        schedule: which of the runnable threads runs next: "depth-first", "reversed", "random" or "breadth-first".
        seed: the seed of the "random" schedule.
        completion: when an asynchronous copy moves its data: "eager" (when it is issued) or "lazy" (when it is waited for).

    Raises:
        ArgumentError: an unknown schedule or completion.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"schedule={schedule!r}; expected one of {', '.join(SCHEDULES)}")
    if completion not in COMPLETIONS:
        raise ArgumentError(f"completion={completion!r}; expected one of {', '.join(COMPLETIONS)}")
    before = _thread.settings
    _thread.settings = Settings(enabled, schedule, seed, completion)
    try:
        yield
    finally:
        _thread.settings = before


def every_way() -> Iterator[dict[str, Any]]:
    """Yield keyword arguments of :func:`check` for every combination of schedule and completion."""
    for completion in COMPLETIONS:
        for seed, schedule in enumerate(SCHEDULES):
            yield {"schedule": schedule, "seed": seed, "completion": completion}


@contextmanager
def lint() -> Iterator[Report]:
    """Context manager: launches of this thread run in check mode and count bank conflicts and global memory sectors.

        with gpunet.emulator.lint() as report:
            model(x).sum().backward()
        print(report)

    The arrays of a launch are aligned as by a GPU's allocator, to multiples of 256 bytes.
    """
    before = _thread.report
    _thread.report = Report()
    try:
        yield _thread.report
    finally:
        _thread.report = before


def lint_report(
    function: Function,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    arguments: Sequence[Any],
    shared: int = 0,
    reached: Sequence[Reached] = (),
) -> list[Access]:
    """Launch a function once; return the accesses that use more wavefronts or sectors than necessary, worst first.

    Raises:
        LaunchError, EmulationError: as for the launch itself.
    """
    with lint() as report:
        function(grid, block, arguments, shared, reached)
    return report.findings()


class Function:
    """A specialisation that can be launched.  It is compiled at its first launch in each mode ("fast" or "check")."""

    def __init__(
        self, text: str, file: str, expression: str, cache: str | os.PathLike[str], options: Sequence[str] = ()
    ) -> None:
        self.text, self.file, self.expression, self.cache, self.options = text, file, expression, Path(cache), options
        self._libraries: dict[str, Library] = {}
        self._names: list[str] = []
        self._static = 0
        #: Counts of the last launch.
        self.counts: Counts | None = None

    def build(self, mode: str) -> Path:
        """Compile for "fast" or "check" mode, or find the library in the cache."""
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
        """Launch and wait until the kernel has finished: see :func:`gpunet.emulator.launch.launch`."""
        how = settings()
        report = _thread.report
        library = self.library("check" if how.check or report is not None else "fast")
        self.counts = launch(
            library, self.expression, self._names, grid, block, arguments, shared, reached, self._static,
            lint=report is not None, **how._asdict(),
        )  # fmt: skip
        if report is not None:
            report.add(library, self.expression, self.counts.tallies)


def available() -> bool:
    """Return whether g++ is installed."""
    try:
        compiler.version()
    except CompileError:
        return False
    return True


def prepare(functions: Sequence[Function], mode: str = "fast", report: Callable[[Function], None] | None = None) -> None:
    """Compile several functions in parallel, on all cores; call ``report`` with each function when it is ready."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for function, _ in zip(functions, pool.map(lambda f: f.build(mode), functions)):
            if report is not None:
                report(function)
