"""``python -m tests.mutation``: every mutant of the CUDA kernels, and what notices it."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from fnmatch import fnmatchcase

from gpunet import emulator

from .judge import Verdict, all_mutants, judge_all
from .operators import OPERATORS, Mutant
from .survivors import EQUIVALENT, SURVIVORS

COLUMNS = ("check mode", "values", "no end", "survived", "missed", "equivalent", "no code")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--file", help="mutants of this file only")
    parser.add_argument("--name", default="*", help="mutants whose name matches this pattern, * for anything")
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants, of every file and operator")
    parser.add_argument("--survivors", action="store_true", help="run also those that survivors.txt lists")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("-j", "--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-q", "--quiet", action="store_true", help="print no line for a mutant that is caught")
    return parser.parse_args(arguments)


def _draw(mutant: Mutant) -> bytes:
    return hashlib.sha256(mutant.name.encode()).digest()


def sample(mutants: list[Mutant], count: int) -> list[Mutant]:
    """``count`` mutants, the same ones every time: of each file and each operator one, the others as their names' hash has it."""
    drawn = sorted((m for m in mutants if m.name not in SURVIVORS), key=_draw)
    firsts = [next(m for m in drawn if m.file == file) for file in sorted({m.file for m in drawn})]
    firsts += [next(m for m in drawn if m.operator == o) for o in OPERATORS if any(m.operator == o for m in drawn)]
    return list(dict.fromkeys([*firsts, *drawn]))[:count]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    mutants = all_mutants()
    if options.sample:
        mutants = sample(mutants, options.sample)
    mutants = [m for m in mutants if fnmatchcase(m.name, options.name) and options.file in (None, m.file)]
    if not mutants:
        print("no mutant has that name; --list prints them", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}: {mutant.name}")
        return 0
    if not emulator.available():
        print("the mutation test compiles with g++, which is not installed", file=sys.stderr)
        return 2
    start = time.perf_counter()
    table: dict[str, Counter[str]] = {}
    wrong = 0

    def listed(mutant: Mutant) -> str:
        return "equivalent" if mutant.name in EQUIVALENT else "missed"

    def report(mutant: Mutant, verdict: Verdict) -> None:
        nonlocal wrong
        unexpected = (verdict.by == "survived") != (mutant.name in SURVIVORS)
        column = listed(mutant) if verdict.by == "survived" and not unexpected else verdict.by
        wrong += unexpected
        table.setdefault(mutant.file, Counter())[column] += 1
        if unexpected or not options.quiet:
            mark = "!" if unexpected else " "
            print(f"{mark} {verdict.kind:<20}{verdict.seconds:6.1f} s  {mutant.line:>4}  {mutant.name}", flush=True)
            if verdict.detail:
                print(f"{'':34}{verdict.detail.splitlines()[0]}", flush=True)

    left_out = [] if options.survivors else [m for m in mutants if m.name in SURVIVORS]
    for mutant in left_out:
        table.setdefault(mutant.file, Counter())[listed(mutant)] += 1
    judge_all([m for m in mutants if m not in left_out], options.processes, report)
    print(f"\n{'':<20}" + "".join(f"{column:>12}" for column in COLUMNS))
    for file, row in [*sorted(table.items()), ("all", sum(table.values(), Counter()))]:
        print(f"{file:<20}" + "".join(f"{row[column]:>12}" for column in COLUMNS))
    total = sum(table.values(), Counter())
    caught = total["check mode"] + total["values"] + total["no end"]
    of = caught + total["survived"] + total["missed"]
    share = 100 * caught / max(1, of)
    print(f"\n{caught} of {of} mutants caught ({share:.1f} %), {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
