"""``python -m tests.mutation``: generate the mutants of the CUDA kernels and report how each is detected."""

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
    parser.add_argument("--file", help="only mutants of this file, such as common/pack.cuh")
    parser.add_argument("--name", default="*", help="only mutants whose name matches this shell pattern")
    parser.add_argument("--sample", type=int, metavar="N", help="a fixed sample of N mutants")
    parser.add_argument("--survivors", action="store_true", help="also run the mutants in survivors.txt")
    parser.add_argument("--list", action="store_true", help="print the names of the mutants, and run nothing")
    parser.add_argument("-j", "--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print mutants with the expected verdict")
    return parser.parse_args(arguments)


def _sort_key(mutant: Mutant) -> bytes:
    return hashlib.sha256(mutant.name.encode()).digest()


def sample(mutants: list[Mutant], count: int) -> list[Mutant]:
    """A fixed sample without known survivors: one mutant per file and per operator, the rest by the hash of its name."""
    shuffled = sorted((m for m in mutants if m.name not in SURVIVORS), key=_sort_key)
    firsts = [next(m for m in shuffled if m.file == file) for file in sorted({m.file for m in shuffled})]
    firsts += [next(m for m in shuffled if m.operator == o) for o in OPERATORS if any(m.operator == o for m in shuffled)]
    return list(dict.fromkeys([*firsts, *shuffled]))[:count]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    mutants = all_mutants()
    if options.sample:
        mutants = sample(mutants, options.sample)
    mutants = [m for m in mutants if fnmatchcase(m.name, options.name) and options.file in (None, m.file)]
    if not mutants:
        print("no mutant matches; --list prints all names", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}: {mutant.name}")
        return 0
    if not emulator.available():
        print("the mutation test needs g++, which is not installed", file=sys.stderr)
        return 2
    start = time.perf_counter()
    table: dict[str, Counter[str]] = {}
    num_unexpected = 0

    def survivor_column(mutant: Mutant) -> str:
        return "equivalent" if mutant.name in EQUIVALENT else "missed"

    def report(mutant: Mutant, verdict: Verdict) -> None:
        nonlocal num_unexpected
        is_unexpected = (verdict.by == "survived") != (mutant.name in SURVIVORS)
        column = survivor_column(mutant) if verdict.by == "survived" and not is_unexpected else verdict.by
        num_unexpected += is_unexpected
        table.setdefault(mutant.file, Counter())[column] += 1
        if is_unexpected or not options.quiet:
            mark = "!" if is_unexpected else " "
            print(f"{mark} {verdict.kind:<20}{verdict.seconds:6.1f} s  {mutant.line:>4}  {mutant.name}", flush=True)
            if verdict.detail:
                print(f"{'':34}{verdict.detail.splitlines()[0]}", flush=True)

    skipped = [] if options.survivors else [m for m in mutants if m.name in SURVIVORS]
    for mutant in skipped:
        table.setdefault(mutant.file, Counter())[survivor_column(mutant)] += 1
    judge_all([m for m in mutants if m not in skipped], options.processes, report)
    print(f"\n{'':<20}" + "".join(f"{column:>12}" for column in COLUMNS))
    for file, row in [*sorted(table.items()), ("all", sum(table.values(), Counter()))]:
        print(f"{file:<20}" + "".join(f"{row[column]:>12}" for column in COLUMNS))
    total = sum(table.values(), Counter())
    caught = total["check mode"] + total["values"] + total["no end"]
    detectable = caught + total["survived"] + total["missed"]
    percentage = 100 * caught / max(1, detectable)
    print(f"\n{caught} of {detectable} mutants caught ({percentage:.1f} %), {time.perf_counter() - start:.0f} s")
    return 1 if num_unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
