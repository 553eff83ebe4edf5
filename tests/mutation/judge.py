"""Run the kernels' cases on a mutant: the emulator's check mode, and comparison with the twin in float64."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet import emulator
from gpunet.backend import compiler as cuda_compiler
from gpunet.backend import cuda_sources, disk_cache
from gpunet.backend.devices import Device
from gpunet.emulator import compiler
from gpunet.errors import CompileError, EmulationError, GpunetError
from gpunet.launch.kernel import KERNELS
from gpunet.ops.cases.case import Case
from gpunet.tools import kernel_cases, selftest

from .operators import Mutant, mutants
from .source import Declaration, Source

EMULATED = Device("emulated")
#: Options of g++ in check mode, and the same without optimisation: fewer findings (of object sizes), and no others.
CHECK_FLAGS = compiler.MODES["check"]
QUICK_FLAGS = ("-O0", *CHECK_FLAGS[1:])
#: Limit of the CPU time of a case (two launches and the reference); the slowest unmutated case takes a fifth of it.
SECONDS_A_CASE = 10.0


class Verdict(NamedTuple):
    """How a mutant was detected, or that it survived."""

    #: the error of check mode; "values", "bits", "memory"; "no end", "signal"; "no code" (does not compile); "survived"
    kind: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def by(self) -> str:
        """The column of the result table."""
        columns = {"values": "values", "bits": "values", "memory": "values", "no end": "no end", "signal": "no end"}
        return self.kind if self.kind in ("survived", "no code") else columns.get(self.kind, "check mode")


# ---- mutants, and the cases that they can affect ----------------------------------------------------------------------


def files() -> list[str]:
    """The kernels' sources and the headers that they include, without the primitives: their code for a GPU does not run here."""
    included = (re.findall(r'^#line 1 "([^"]+)"', cuda_sources.spliced(file), re.MULTILINE) for file in cuda_sources.kernel_files())
    return sorted({name for names in included for name in names} - {"common/primitives.cuh"})


@cache
def text(file: str) -> str:
    return (cuda_sources.kernel_directory() / file).read_text(encoding="utf-8")


def all_mutants() -> list[Mutant]:
    return [mutant for file in files() for mutant in mutants(file, text(file))]


@cache
def _declarations(file: str) -> list[tuple[str, Declaration, set[str]]]:
    """(file, declaration, identifiers in it) for every declaration of a source and its headers."""
    found = []
    for name in re.findall(r'^#line 1 "([^"]+)"', cuda_sources.spliced(file), re.MULTILINE):
        parsed = Source(text(name))
        found += [(name, declaration, parsed.identifiers(declaration)) for declaration in parsed.top]
    return found


@cache
def _reached(file: str, expression: str) -> list[tuple[str, Declaration]]:
    """The declarations that a specialisation can use: those in its name, and transitively those that they name."""
    names, before = set(re.findall(r"\w+", expression)), 0
    declared = {declaration.name for _, declaration, _ in _declarations(file)}

    def can_be_used(declaration: Declaration) -> bool:
        """Not so if it is specialised for an argument that is not used."""
        return declaration.arguments & declared <= names

    while len(names) > before:
        before = len(names)
        for _, declaration, identifiers in _declarations(file):
            if names & {declaration.name, *(identifiers if declaration.is_enum else ())} and can_be_used(declaration):
                names |= identifiers
    return [(name, d) for name, d, _ in _declarations(file) if d.name in names and can_be_used(d)]


def _arrays(case: Case) -> list[Any]:
    groups = [group if isinstance(group, list) else [group] for group in case.on_cpu()]
    return [array for group in groups for array in group if array is not None]


@cache
def _cases() -> list[tuple[Case, str]]:
    """All cases with their specialisations, cheapest first: few elements, little code, few specialisations."""
    found: list[tuple[float, Case, str]] = []
    for kernel in KERNELS.values():
        compiled: dict[str, int] = {}
        for case in kernel_cases.cases(kernel):
            expression = case.expression()
            number = compiled.setdefault(expression, len(compiled))
            code = sum(declaration.end - declaration.start for _, declaration in _reached(kernel.file, expression))
            found.append((sum(a.size for a in _arrays(case)) + (1 + number) * code / 2, case, expression))
    return [(case, expression) for _, case, expression in sorted(found, key=lambda f: f[0])]


def _uses(mutant: Mutant, file: str, expression: str) -> bool:
    reached = _reached(file, expression)
    return any(name == mutant.file and d.start <= mutant.edit.start < d.end for name, d in reached)


def cases_for(mutant: Mutant) -> Iterator[Case]:
    """The cases whose specialisation uses the changed declaration.

    For a mutant of a header, of several cases that differ only in structs that do not use the change (an activation, a
    loss), only the first.
    """
    seen = set()
    for case, expression in _cases():
        file = case.kernel.file
        if not _uses(mutant, file, expression):
            continue
        structs = {d.name for _, d, _ in _declarations(file) if d.is_struct and not _uses(mutant, file, d.name)}
        name, *arguments = re.findall(r"[\w:]+", expression)
        chosen = tuple(argument for argument in arguments if argument not in structs)
        layout = tuple((a.shape, a.strides, a.ctypes.data % 16) for a in _arrays(case))
        key = (name, chosen, layout, case.grid)
        if mutant.file == file or len(chosen) == len(arguments) or key not in seen:
            seen.add(key)
            yield case


# ---- one mutant -------------------------------------------------------------------------------------------------------


class Judge:
    """Runs mutants in this process, with its own copy of the kernels' folder and its own compiler cache."""

    def __init__(self, folder: Path) -> None:
        shared = disk_cache.cache_directory() / "emulator"
        self._sources, self._cache = folder / "cuda_kernels", folder / "emulator"
        shutil.copytree(cuda_sources.kernel_directory(), self._sources)
        self._cache.mkdir()
        for flags in (QUICK_FLAGS, CHECK_FLAGS):
            compiler.MODES["check"] = flags
            made = compiler._precompiled_headers(shared, "check")
            (self._cache / made.name).symlink_to(made)
        runtime = compiler.runtime(shared)
        (self._cache / runtime.name).symlink_to(runtime)
        self._kept = set(self._cache.iterdir())
        disk_cache.set_cache_directory(folder)
        cuda_sources.kernel_directory = lambda: self._sources

    def verdict(self, mutant: Mutant) -> Verdict:
        """Write the mutant into the copied sources, run its cases, and restore the source.

        First without optimisation, which compiles three times as fast; then, if the mutant survives, in check mode as it is.
        """
        start, path = time.perf_counter(), self._sources / mutant.file
        path.write_text(mutant.apply(text(mutant.file)), encoding="utf-8")
        kind, detail = "", ""
        try:
            for flags in (QUICK_FLAGS, CHECK_FLAGS):
                compiler.MODES["check"] = flags
                cuda_compiler._functions.clear()
                kind, detail = self._first_finding(mutant)
                if kind != "survived":
                    break
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            path.write_text(text(mutant.file), encoding="utf-8")
            for compiled in set(self._cache.iterdir()) - self._kept:
                compiled.unlink()
        return Verdict(kind, detail, time.perf_counter() - start)

    def _first_finding(self, mutant: Mutant) -> tuple[str, str]:
        cases = list(cases_for(mutant))
        for case in cases:
            signal.setitimer(signal.ITIMER_PROF, SECONDS_A_CASE)  # SIGPROF ends the process
            try:
                with emulator.check(), numpy.errstate(all="ignore"):
                    errors, is_same, _, corrupted = selftest._check_case(case, EMULATED)
            except CompileError as error:
                return "no code", str(error)
            except EmulationError as error:
                return str(error).split(": ")[1], str(error)
            except GpunetError as error:
                return "launch", str(error)
            for kind, found in (
                ("memory", corrupted),
                ("values", [f"{name} is wrong by {e:.3g} eps" for name, e in errors.items() if e > selftest.LIMIT]),
                ("bits", [] if is_same else ["a second launch gives different bits"]),
            ):
                if found:
                    return kind, f"{case}: {found[0]}"
        return "survived", f"{len(cases)} cases"


# ---- worker processes -------------------------------------------------------------------------------------------------


def _work(connection: Connection, folder: str) -> None:
    judge = Judge(Path(folder))
    while True:
        connection.send(judge.verdict(connection.recv()))


class _Worker:
    """A process that runs mutants; a mutant can end it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        context = multiprocessing.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.process: Any = context.Process(target=_work, args=(worker_end, str(folder)), daemon=True)
        self.process.start()
        worker_end.close()
        self.mutant: Mutant | None = None

    def send(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.connection.send(mutant)

    def receive(self) -> Verdict | None:
        """The verdict, or None if the process has ended."""
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return None


def judge_all(
    chosen: Sequence[Mutant], processes: int, report: Callable[[Mutant, Verdict], None]
) -> dict[Mutant, Verdict]:
    """Run mutants in worker processes, and call ``report`` as each verdict arrives.

    Raises:
        RuntimeError: a worker exited with an error that its mutant did not cause.
    """
    verdicts: dict[Mutant, Verdict] = {}
    waiting = list(reversed(chosen))
    with tempfile.TemporaryDirectory(prefix="gpunet-mutation-") as folder:
        started = 0
        working: dict[Any, _Worker] = {}
        try:
            while waiting or working:
                while waiting and len(working) < processes:
                    worker = _Worker(Path(folder) / str(started))
                    started += 1
                    working[worker.connection] = worker
                    worker.send(waiting.pop())
                for connection in wait(list(working)):
                    worker = working[connection]
                    mutant, verdict = worker.mutant, worker.receive()
                    assert mutant is not None
                    if verdict is None:
                        code = worker.process.exitcode
                        if code >= 0:
                            raise RuntimeError(f"the worker that ran {mutant.name} exited with code {code}")
                        timed_out = code == -signal.SIGPROF
                        name = signal.Signals(-code).name
                        verdict = Verdict("no end") if timed_out else Verdict("signal", name)
                        del working[connection]
                    elif waiting:
                        worker.send(waiting.pop())
                    else:
                        del working[connection]
                        worker.process.terminate()
                    verdicts[mutant] = verdict
                    report(mutant, verdict)
        finally:
            for worker in working.values():
                worker.process.terminate()
                worker.process.join()
    return verdicts
