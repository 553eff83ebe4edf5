"""Training steps of the working tree beside those of another commit, interleaved in one run.

    python bench/against_commit.py HEAD~1
    python bench/against_commit.py v0.1 --cases tiny,digits --rounds 20

Both trees take turns, each in a process of its own, with the same first weights and batches.  A row shows the median time of
a step in both trees and the ratio before / now, with the range of the ratios of single rounds: above 1 the working tree is
faster.  The losses after all steps of a row must be equal to the last bit, unless the row says otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: (layer sizes, batch); one output is regression, more are classes
CASES: dict[str, tuple[list[int], int]] = {
    "tiny": ([8, 32, 32, 1], 32),
    "digits": ([64, 128, 10], 64),
    "tabular": ([64, 256, 256, 1], 256),
    "mnist": ([784, 512, 512, 10], 64),
    "mnist-large-batch": ([784, 512, 512, 10], 1024),
    "deep": ([64] * 20 + [10], 128),
    "wide": ([2048, 2048, 2048], 512),
}
MODES = ("eager", "numpy", "numba")
OPTIMIZERS = ("sgd", "adam")
SECONDS_A_TURN = 0.3


# ---- one tree, in a process of its own --------------------------------------------------------------------------------


def serve() -> None:
    """Answer each line of standard input, [case, optimizer, mode, steps], by [seconds a step, last loss]."""
    made: dict[tuple[str, ...], Any] = {}
    for line in sys.stdin:
        *key, count = json.loads(line)
        if tuple(key) not in made:
            made[tuple(key)] = _step(*key)
        step, batches = made[tuple(key)]
        start = time.perf_counter()
        for x, y in itertools.islice(batches, count):
            loss = step(x, y)
        seconds = (time.perf_counter() - start) / count
        print(json.dumps([seconds, float(loss.item())]), flush=True)


def _step(case: str, optimizer_name: str, mode: str) -> tuple[Any, Any]:
    """The step function of a network, and its batches, which never end."""
    import numpy

    import gpunet

    sizes, batch = CASES[case]
    random = numpy.random.default_rng(len(sizes) * batch)
    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(sizes):
        linear = gpunet.nn.Linear(inputs, outputs)
        with gpunet.no_grad():
            linear.weight.copy_(gpunet.tensor((random.normal(size=(outputs, inputs)) / inputs**0.5).astype("float32")))
            linear.bias.zero_()
        layers += [linear, gpunet.nn.ReLU()]
    model = gpunet.nn.Sequential(*layers[:-1])
    make = {"sgd": gpunet.optim.SGD, "adam": gpunet.optim.Adam}[optimizer_name]
    optimizer = make(model.parameters(), lr=1e-3)
    is_regression = sizes[-1] == 1
    loss_of = gpunet.nn.MSELoss() if is_regression else gpunet.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def target() -> Any:
        if is_regression:
            return random.normal(size=(batch, 1)).astype("float32")
        return random.integers(0, sizes[-1], batch)

    data = [
        (gpunet.tensor(random.normal(size=(batch, sizes[0])).astype("float32")), gpunet.tensor(target())) for _ in range(8)
    ]
    return step if mode == "eager" else gpunet.capture(step, backend=mode), itertools.cycle(data)


# ---- both trees -------------------------------------------------------------------------------------------------------


class Tree:
    """A process that runs the steps of one tree."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "GPUNET_BLAS": "numpy"}
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve"]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def time(self, case: str, optimizer: str, mode: str, steps: int) -> tuple[float, float]:
        """Seconds a step, and the loss of the last step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([case, optimizer, mode, steps]) + "\n")
        self._process.stdin.flush()
        seconds, loss = json.loads(self._process.stdout.readline())
        return seconds, loss


def compare(before: Tree, now: Tree, what: tuple[str, str, str], rounds: int) -> str:
    """Time one step in both trees in turns; the row of the table."""
    warm = [before.time(*what, 8), now.time(*what, 8)]
    once = before.time(*what, 8), now.time(*what, 8)
    steps = max(1, int(SECONDS_A_TURN / max(seconds for seconds, _ in once)))
    times: list[tuple[float, float]] = []
    equal = warm[0][1] == warm[1][1]
    for number in range(rounds):
        first, second = (before, now) if number % 2 else (now, before)
        results = {first: first.time(*what, steps), second: second.time(*what, steps)}
        equal &= results[before][1] == results[now][1]
        times.append((results[before][0], results[now][0]))
    medians = [1e6 * statistics.median(column) for column in zip(*times)]
    ratios = sorted(a / b for a, b in times)
    row = f"| {' '.join(what)} | {medians[0]:,.1f} | {medians[1]:,.1f} | {medians[0] / medians[1]:.3f} "
    return row + f"| {ratios[0]:.2f} .. {ratios[-1]:.2f} | {'equal' if equal else 'differ'} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="the commit to compare with")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    if given.commit is None:
        parser.error("name a commit")
    with tempfile.TemporaryDirectory(prefix="gpunet-") as folder:
        other = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(other), given.commit], cwd=ROOT, check=True)
        try:
            before, now = Tree(other), Tree(ROOT)
            print(f"microseconds a step, {given.commit} beside the working tree")
            print("| case | before | now | before / now | rounds | losses |\n|---|---:|---:|---:|---|---|")
            for what in itertools.product(given.cases.split(","), given.optimizers.split(","), given.modes.split(",")):
                print(compare(before, now, what, given.rounds), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
