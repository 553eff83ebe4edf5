"""Kill one of several processes that share a training at random moments, resume it, and compare the weights with those of a run
that was never stopped.

    .venv/bin/python -m tests.train.rank_kills --count 50 --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

#: Number of processes, number of those that resume, options.
VARIANTS = (
    (3, (3,), ("--accumulate", "2")),
    (2, (1, 2, 4), ("--deterministic",)),
)
COMMON = ("train", "--device", "cpu", "--epochs", "4", "--hidden", "16", "--save-every", "3", "--test-size", "0.5")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def train(count: int, arguments: Sequence[str], victim: int = -1, seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
    """Run a command in ``count`` processes, of which one is killed some time after it has imported everything."""
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(count), sys.executable, "-m", "tests.train.rank_kills", "child", str(victim), str(seconds), *arguments],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def child(victim: int, seconds: float, arguments: Sequence[str]) -> int:
    """Run a command in this process; kill it meanwhile if it is the victim."""
    from gpunet.cli.main import main
    from gpunet.distributed.process_group import launched_group

    if launched_group().rank() == victim:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    start = time.perf_counter()
    code = main(arguments)
    if launched_group().rank() == 0:
        print(f"took {time.perf_counter() - start} s")
    return code


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def whole_run(variant: int, folder: Path) -> tuple[bytes, float]:
    """The model file of a run that is not stopped, and how long it takes."""
    count, _, options = VARIANTS[variant]
    done = train(count, [*COMMON, *options, "--out", str(folder)])
    expect(done.returncode == 0, done.stdout + done.stderr)
    duration = re.search(r"took (\S+) s", done.stdout)
    assert duration is not None
    return (folder / "model.safetensors").read_bytes(), float(duration[1])


def check(count: int, seed: int, variants: Sequence[int] = (0, 1)) -> int:
    """Kill ``count`` processes; return how many were in the midst of their work.

    Raises:
        AssertionError: the others did not stop, a run could not be resumed, or it ended with other weights.
    """
    draw, hits = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        wholes = {variant: whole_run(variant, Path(name, f"whole{variant}")) for variant in variants}
        for number in range(count):
            variant = draw.choice(list(variants))
            size, sizes, options = VARIANTS[variant]
            expected, duration = wholes[variant]
            folder, victim = Path(name, f"run{number}"), draw.randrange(size)
            start = time.monotonic()
            done = train(size, [*COMMON, *options, "--out", str(folder)], victim, draw.uniform(0.0, duration))
            taken = time.monotonic() - start
            hits += done.returncode != 0
            expect(taken < duration + 60.0, f"the others stopped after {taken:.0f} s")
            command = ["train", "--resume", str(folder)]
            if not (folder / "config.json").exists():  # there is nothing to resume, and the folder counts as empty
                command = [*COMMON, *options, "--out", str(folder)]
            done = train(draw.choice(sizes), command)
            expect(done.returncode == 0, f"{command} failed: {done.stdout}{done.stderr}")
            found = (folder / "model.safetensors").read_bytes()
            expect(found == expected, f"run {number} of seed {seed}, variant {variant}, victim {victim}: resumed to other weights")
            expect(not list(folder.glob("*.partial*")), "an unfinished file was left")
    return hits


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        sys.exit(child(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{check(given.count, given.seed)} of {given.count} kills hit a running process; every resumed run had the same weights")
