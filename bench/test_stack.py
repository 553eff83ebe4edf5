"""A sweep over 64 learning rates of nets 64-32-10 on digits: as one stack beside one by one, both captured.

pytest bench/test_stack.py -s

Each way builds its nets, captures its steps (with the machine code in the disk cache, as after the first run), trains for EPOCHS
epochs with Adam in batches of 32, and evaluates the held-out rows after each epoch.  Beside the whole sweep, the steps alone are
timed: 64 replays of a single net's step beside one replay of the stack's.
"""

from __future__ import annotations

import statistics
import time

import numpy
import pytest

import gpunet
from gpunet import data, nn, optim

NETS, EPOCHS, BATCH, ROUNDS = 64, 10, 32, 5
RATES = numpy.geomspace(1e-4, 1e-1, NETS)
cross_entropy = nn.functional.cross_entropy


def _rows():
    split = data.split(data.load("digits"), 0.2, gpunet.Generator(0))
    scaled = data.standardise(split.train)
    return [
        gpunet.tensor(array) for part in (split.train, split.test) for array in (scaled.features(part.features), part.targets)
    ]


def _net(seed):
    gpunet.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _single(rate, seed):
    """(step, evaluate) of a net."""
    net = _net(seed)
    optimizer = optim.Adam(net.parameters(), lr=rate)

    @gpunet.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, gpunet.capture(lambda x, y: cross_entropy(net(x), y))


def _stacked():
    """(step, evaluate) of all nets."""
    stack = nn.Stack([_net(seed) for seed in range(NETS)])
    optimizer = optim.StackAdam(stack, lr=RATES)

    @gpunet.capture
    def step(x, y):
        optimizer.zero_grad()
        losses = stack.losses(cross_entropy, stack(x), y)
        losses.sum().backward()
        optimizer.step()
        return losses

    return step, gpunet.capture(lambda x, y: stack.losses(cross_entropy, stack(x), y))


def _train(step, evaluate, rows):
    """Train, and return the held-out losses after the last epoch."""
    x, y, held_out, labels = rows
    gpunet.manual_seed(0)
    epoch = step.epoch(x, y, batch_size=BATCH)
    for _ in range(EPOCHS):
        epoch()
        with gpunet.no_grad():
            losses = evaluate(held_out, labels)
    return losses.tolist()


def _one_by_one(rows):
    return [_train(*_single(rate, seed), rows) for seed, rate in enumerate(RATES)]


def test_sweep(benchmark):
    rows = _rows()
    stacked, single = _train(*_stacked(), rows), _one_by_one(rows)  # they warm the caches, too
    numpy.testing.assert_allclose(stacked[: NETS // 2], single[: NETS // 2], rtol=1e-2)  # large rates amplify roundings
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        _train(*_stacked(), rows)
        middle = time.perf_counter()
        _one_by_one(rows)
        seconds.append((middle - start, time.perf_counter() - middle))
        ratios.append(seconds[-1][1] / seconds[-1][0])
    stacked, single = map(statistics.median, zip(*seconds))
    ratio = statistics.median(ratios)
    print(f"\nsweep of {NETS} nets, {EPOCHS} epochs: {stacked:.2f} s as a stack, {single:.2f} s one by one; {ratio:.1f} x "
          f"({min(ratios):.1f} to {max(ratios):.1f})")
    benchmark.extra_info["times faster than one by one"] = ratio
    benchmark.pedantic(lambda: _train(*_stacked(), rows), rounds=1)


@pytest.mark.parametrize("batch", [8, 32])
def test_step(batch, benchmark):
    """The steps alone, without recordings, gathering of rows and evaluations."""
    rows = _rows()
    x, y = rows[0][:batch].clone(), rows[1][:batch].clone()
    (single, _), (stacked, _) = _single(1e-3, 0), _stacked()
    single(x, y), stacked(x, y)
    found = []
    for _ in range(25):
        start = time.perf_counter()
        for _ in range(20):
            stacked(x, y)
        middle = time.perf_counter()
        for _ in range(5 * NETS):
            single(x, y)
        found.append(((middle - start) / 20, (time.perf_counter() - middle) / 5))
    ours, theirs = map(statistics.median, zip(*found))
    ratio = statistics.median(b / a for a, b in found)
    print(f"\na step of {NETS} nets, batch {batch}: {1e6 * ours:.0f} us as a stack, {1e6 * theirs:.0f} us one by one; "
          f"{ratio:.1f} x")
    benchmark.extra_info["times faster than one by one"] = ratio
    benchmark.pedantic(lambda: stacked(x, y), rounds=5)
