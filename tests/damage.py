"""Random damage to the bytes of files, and what reading them costs, for tests and commands that read thousands of damaged files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy

Random = numpy.random.Generator
Mutation = Callable[[bytearray, Random], None]


def flip(content: bytearray, r: Random) -> None:
    for _ in range(int(r.integers(1, 9))):
        content[r.integers(len(content))] = r.integers(256)


def cut(content: bytearray, r: Random) -> None:
    start = int(r.integers(len(content)))
    del content[start : start + int(r.integers(1, 1 + len(content) // 4))]


def truncate(content: bytearray, r: Random) -> None:
    del content[int(r.integers(len(content))) :]


def repeat(content: bytearray, r: Random) -> None:
    start, at = r.integers(len(content), size=2)
    content[at:at] = content[start : start + r.integers(1, 200)]


def enlarge(content: bytearray, r: Random) -> None:
    """A huge variable-length integer, such as a length or a size."""
    at = r.integers(len(content))
    content[at : at + 1] = bytes([0xFF] * int(r.integers(1, 10)) + [int(r.integers(128))])


def noise(content: bytearray, r: Random) -> None:
    content[:] = r.bytes(int(r.integers(0, 2000)))


OF_BYTES: tuple[Mutation, ...] = (flip, cut, truncate, repeat, enlarge, noise)


def mutated(files: Sequence[bytes], count: int, seed: int, mutations: Sequence[Mutation]) -> Iterator[bytes]:
    """Damaged files."""
    r = numpy.random.default_rng(seed)
    for number in range(count):
        content = bytearray(files[r.integers(len(files))])
        mutations[number % len(mutations)](content, r)
        yield bytes(content)


def peak() -> int:
    """The largest resident memory of this process in KiB, since the last :func:`forget_peak`."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux only


def measured(load: Callable[[bytes], str], contents: Iterable[bytes]) -> str:
    """Load files by a function that returns what happened; return how often each happened, the longest time and the memory."""
    counts, longest, cases = Counter[str](), 0.0, [*contents]
    forget_peak()
    before = peak()
    for content in cases:
        start = time.thread_time()
        counts[load(content)] += 1
        longest = max(longest, time.thread_time() - start)
    return f"{dict(counts)}, at most {1000 * longest:.0f} ms of the processor and {(peak() - before) / 1024:.1f} MB more"
