"""Kill ``gpunet train`` at random moments, resume it, and compare the result with that of a run that was never stopped.

    .venv/bin/python -m tests.cli.kills --count 200 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpunet
from gpunet.cli.main import main

VARIANTS = (
    (),
    ("--accumulate", "3", "--ema", "0.9", "--schedule", "onecycle"),
    ("--precision", "float16", "--clip", "1", "--optimizer", "sgd"),
    ("--data", "diabetes", "--accumulate", "2", "--patience", "3"),
)
COMMON = ("--device", "cpu", "--epochs", "5", "--hidden", "16", "--save-every", "4", "--test-size", "0.5")


def start(arguments: Sequence[str]) -> int:
    """Run a command in a forked process, which has everything imported; return its number."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            code = main(arguments)
    finally:
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a process; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_after(process: int, seconds: float) -> bool:
    """Kill a process after a time; return whether it was still running."""
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return finish(process) != 0


def result(folder: Path) -> Any:
    """All that must not depend on kills: weights, state and figures."""
    state = gpunet.load(folder / "checkpoint.safetensors")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in (*state["rows"], *rows):
        del row["seconds"]
    state["counts"].pop("_seconds")
    state["random"] = state["random"]["gpunet"]  # nothing seeds the others
    model = gpunet.load(folder / "model.safetensors")
    return {"figures": repr(rows), "model": repr(bits(model)), **{name: repr(bits(part)) for name, part in state.items()}}


def bits(state: Any) -> Any:
    """The state with the bytes of each tensor."""
    if isinstance(state, gpunet.Tensor):
        return str(state.dtype), tuple(state.shape), state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    return [bits(value) for value in state] if isinstance(state, (list, tuple)) else state


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def check(count: int, seed: int, variants: Sequence[Sequence[str]] = VARIANTS) -> int:
    """Kill ``count`` processes; return the number of them that were in the midst of their work.

    Raises:
        AssertionError: a checkpoint could not be loaded, or a resumed run ended with other bits.
    """
    draw, kills, hits = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        expected, durations = {}, {}
        with contextlib.redirect_stdout(io.StringIO()):
            main(["train", *COMMON, "--out", str(Path(name, "imports"))])  # so that no process has to import anything
        for number, options in enumerate(variants):
            folder, began = Path(name, f"whole{number}"), time.perf_counter()
            expect(finish(start(["train", *COMMON, *options, "--out", str(folder)])) == 0, f"training with {options} failed")
            durations[number], expected[number] = time.perf_counter() - began, result(folder)
        while kills < count:
            number = draw.randrange(len(variants))
            folder = Path(name, f"run{kills}")
            command = ["train", *COMMON, *variants[number], "--out", str(folder)]
            for _ in range(min(draw.choice((1, 1, 2, 3)), count - kills)):
                hits += kill_after(start(command), draw.uniform(0.0, durations[number]))
                kills += 1
                if (folder / "checkpoint.safetensors").exists():
                    gpunet.load(folder / "checkpoint.safetensors")
                if (folder / "config.json").exists():  # else there is nothing to resume, and the folder counts as empty
                    command = ["train", "--resume", str(folder)]
            expect(finish(start(command)) == 0, f"{command} failed")
            found = result(folder)
            others = [part for part in found if found[part] != expected[number][part]]
            expect(not others, f"{variants[number]} resumed to other {', '.join(others)} in {folder.name}, seed {seed}")
            expect(not list(folder.glob("*.partial*")), "an unfinished file was left")
    return hits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{check(given.count, given.seed)} of {given.count} kills hit a running process; every resumed run had the same bits")
