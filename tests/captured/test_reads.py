"""Every way to name a number in a step: a changed number records anew, or is a documented constant that ``check`` finds."""

from __future__ import annotations

import argparse
import array
import collections
import contextlib
import contextvars
import dataclasses
import functools
import os
import random
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import CaptureError
from tests.captured.test_capture import Dropout, Schedule, Statistics, Training

number = 2.0
table = {"k": 2.0}
module = types.ModuleType("settings")
registry: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


@dataclasses.dataclass
class Config:
    k: float = 2.0
    shared = 2.0


class Node:
    """A chain of objects: ``node.next.next ... .k``."""

    def __init__(self, depth: int) -> None:
        self.k, self.next = 2.0, Node(depth - 1) if depth else None


class Slots:
    __slots__ = ("k",)


class Computed:
    inner = 2.0

    @property
    def k(self) -> float:
        return self.inner

    def __getitem__(self, name: str) -> float:
        return self.inner

    def __getattr__(self, name: str) -> float:
        return self.inner


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k, self.factors = 2.0, {"k": 2.0}

    def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return x * self.k * self.factors["k"] / 2.0


def set_global() -> None:
    global number
    number = 3.0


def ways() -> Iterator[tuple[str, Callable[..., Any], Callable[[], None]]]:
    """Yield for each way a name, a step that multiplies by 2.0, and a function that makes the number 3.0."""
    cell = 2.0

    def set_cell() -> None:
        nonlocal cell
        cell = 3.0

    config, slots, computed, chain, options = Config(), Slots(), Computed(), Node(9), argparse.Namespace(k=2.0)
    slots.k = 2.0
    long, wide = [1.0] * 64 + [2.0], {str(n): 1.0 for n in range(64)} | {"k": 2.0}
    default, ordered = collections.defaultdict(float, k=2.0), collections.OrderedDict(k=2.0)
    vector, queue = numpy.array([2.0]), collections.deque([2.0])
    user_dict = collections.UserDict(k=2.0)
    nested = {"a": [{"b": (config,)}]}
    node = chain
    while node.next is not None:
        node = node.next
    scaled = Scaled()
    box = types.SimpleNamespace(objects=[Config(), Config()])
    module.k = 2.0  # type: ignore[attr-defined]
    table["k"] = 2.0
    os.environ["GPUNET_TEST_K"] = "2.0"
    choice = {2.0}

    def helper(x: gpunet.Tensor, by: Any) -> gpunet.Tensor:
        return x * by.k

    def pick(index: int) -> Config:
        return box.objects[index]

    def with_loop(x: gpunet.Tensor) -> gpunet.Tensor:
        for settings in box.objects[:1]:
            x = x * settings.k
        return x

    def with_import(x: gpunet.Tensor) -> gpunet.Tensor:
        from settings import k  # type: ignore[import-not-found]

        return x * k

    class Caller:
        def __init__(self) -> None:
            self.factor = 2.0

        def __call__(self, x: gpunet.Tensor) -> gpunet.Tensor:
            return x * self.factor

    caller = Caller()

    def set_slot() -> None:
        slots.k = 3.0

    yield "a global", lambda x: x * number, set_global
    yield "a cell", lambda x: x * cell, set_cell
    yield "a dict of the module", lambda x: x * table["k"], lambda: table.update(k=3.0)
    yield "an attribute", lambda x: x * config.k, lambda: setattr(config, "k", 3.0)
    yield "an attribute of a class", lambda x: x * Config.shared, lambda: setattr(Config, "shared", 3.0)
    yield "an inherited attribute", lambda x: x * config.shared, lambda: setattr(Config, "shared", 3.0)
    yield "a slot", lambda x: x * slots.k, set_slot
    yield "a property", lambda x: x * computed.k, lambda: setattr(computed, "inner", 3.0)
    yield "__getitem__", lambda x: x * computed["k"], lambda: setattr(computed, "inner", 3.0)
    yield "__getattr__", lambda x: x * computed.anything, lambda: setattr(computed, "inner", 3.0)
    yield "ten attributes", lambda x: x * chain.next.next.next.next.next.next.next.next.next.k, lambda: setattr(node, "k", 3.0)
    yield "a namespace", lambda x: x * options.k, lambda: setattr(options, "k", 3.0)
    yield "getattr", lambda x: x * getattr(config, "k"), lambda: setattr(config, "k", 3.0)  # noqa: B009
    yield "vars", lambda x: x * vars(config)["k"], lambda: setattr(config, "k", 3.0)
    yield "a list of 65", lambda x: x * long[64], lambda: long.__setitem__(64, 3.0)
    yield "a dict of 65", lambda x: x * wide["k"], lambda: wide.update(k=3.0)
    yield "a defaultdict", lambda x: x * default["k"], lambda: default.update(k=3.0)
    yield "an ordered dict", lambda x: x * ordered["k"], lambda: ordered.update(k=3.0)
    yield "a deque", lambda x: x * queue[0], lambda: queue.__setitem__(0, 3.0)
    yield "a set", lambda x: x * max(choice), lambda: choice.add(3.0)
    yield "an array", lambda x: x * float(vector[0]), lambda: vector.fill(3.0)
    yield "nested containers", lambda x: x * nested["a"][0]["b"][0].k, lambda: setattr(config, "k", 3.0)
    yield "a user dict", lambda x: x * user_dict["k"], lambda: user_dict.update(k=3.0)
    yield "os.environ", lambda x: x * float(os.environ["GPUNET_TEST_K"]), lambda: os.environ.update(GPUNET_TEST_K="3.0")
    yield "os.getenv", lambda x: x * float(os.getenv("GPUNET_TEST_K", "")), lambda: os.environ.update(GPUNET_TEST_K="3.0")
    yield "environ.get", lambda x: x * float(os.environ.get("GPUNET_TEST_K", "")), lambda: os.environ.update(GPUNET_TEST_K="3.0")
    yield "a module", lambda x: x * module.k, lambda: setattr(module, "k", 3.0)  # type: ignore[attr-defined]
    yield "an import", with_import, lambda: setattr(module, "k", 3.0)
    yield "a default", lambda x, by=config: x * by.k, lambda: setattr(config, "k", 3.0)
    yield "a partial", functools.partial(helper, by=config), lambda: setattr(config, "k", 3.0)
    yield "an argument of a helper", lambda x: helper(x, config), lambda: setattr(config, "k", 3.0)
    yield "a returned object", lambda x: x * pick(0).k, lambda: setattr(box.objects[0], "k", 3.0)
    yield "a loop", with_loop, lambda: setattr(box.objects[0], "k", 3.0)
    yield "a replaced object", lambda x: x * box.objects[0].k, lambda: box.objects.__setitem__(0, Config(3.0))
    yield "a comprehension", lambda x: sum(x * c.k for c in box.objects[:1]), lambda: setattr(box.objects[0], "k", 3.0)
    yield "map", lambda x: next(map(caller, [x])), lambda: setattr(caller, "factor", 3.0)
    yield "reduce", lambda x: functools.reduce(helper, [x, config]), lambda: setattr(config, "k", 3.0)
    yield "an attribute of a module", lambda x: scaled(x), lambda: setattr(scaled, "k", 3.0)
    yield "a dict of a module", lambda x: scaled(x), lambda: scaled.factors.update(k=3.0)


WAYS = [name for name, _, _ in ways()]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "settings", module)
    monkeypatch.setitem(globals(), "number", 2.0)
    monkeypatch.setattr(Config, "shared", 2.0)
    monkeypatch.setenv("GPUNET_TEST_K", "2.0")


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_number_records_anew(way: str) -> None:
    step, change = next((step, change) for name, step, change in ways() if name == way)
    captured, x = gpunet.capture(step, backend="numpy"), gpunet.ones(2)
    assert [captured(x).tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
    assert len(captured.recordings) == 1
    change()
    assert [captured(x).tolist() for _ in range(2)] == [step(x).tolist()] * 2 == [[3.0, 3.0]] * 2
    assert len(captured.recordings) == 2


# ---- documented constants ---------------------------------------------------------------------------------------------


def constants() -> Iterator[tuple[str, Callable[..., Any], Callable[[], None]]]:
    """Yield for each way that no guard covers a name, a step, and a function that changes the number."""
    config, number = Config(), [2.0]
    large = numpy.full(1 << 17, 2.0)
    registry["config"] = config
    name = "k"
    iterator = iter([2.0, 3.0, 4.0, 5.0])

    @functools.lru_cache
    def cached() -> float:
        return number[0]

    cached()
    numbers, variable = array.array("d", [2.0]), contextvars.ContextVar("k", default=2.0)

    def change() -> None:
        config.k = number[0] = 3.0
        large.fill(3.0)
        numbers[0] = 3.0
        variable.set(3.0)
        cached.cache_clear()

    yield "a computed name", lambda x: x * getattr(config, name), change
    yield "a random number", lambda x: x * random.random(), change
    yield "an iterator", lambda x: x * next(iterator), change
    yield "array.array", lambda x: x * numbers[0], change
    yield "a context variable", lambda x: x * variable.get(), change
    yield "a large array", lambda x: x * float(large[0]), change
    yield "a cached function", lambda x: x * cached(), change
    yield "a weak dictionary", lambda x: x * registry["con" + "fig"].__dict__[name], change


@pytest.mark.parametrize("way", [name for name, _, _ in constants()])
def test_a_constant_is_found_by_check(way: str) -> None:
    x = gpunet.ones(2)
    for check in (False, True):
        step, change = next((step, change) for name, step, change in constants() if name == way)
        step = gpunet.capture(step, backend="numpy", check=check)
        first = step(x).tolist()
        change()
        found = pytest.raises(CaptureError, match=r"multiply \(test_reads.py:.*; the recording has ")
        with found if check else contextlib.nullcontext():
            assert step(x).tolist() == first


# ---- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Training, Dropout, Statistics, Schedule], ids=lambda kind: kind.__name__)
def test_check_finds_nothing_in_a_step_that_guards_cover(kind: type[Training], device: str) -> None:
    checked, eager = kind(False), kind(False)
    checked.run = gpunet.capture(checked.step, check=True)
    found = []
    for training in (checked, eager):
        gpunet.manual_seed(3)
        found.append(training.train(6))
    assert found[0] == found[1]
    epoch = checked.run.epoch(gpunet.ones(8, 5), gpunet.zeros(8).long(), batch_size=4)
    assert numpy.isfinite(epoch().item())


def test_check_names_another_launch_and_another_result() -> None:
    stream = iter([1.0, 1.0, 2.0, 3.0, 4.0])
    step = gpunet.capture(lambda x: x.exp() if next(stream) < 2.0 else x.log(), check=True)
    step(gpunet.ones(1)), step(gpunet.ones(1))
    with pytest.raises(CaptureError, match=r"log \(test_reads.py:.*it ran where the recording has exp"):
        step(gpunet.ones(1))
    step = gpunet.capture(lambda x: (x * 1.0, next(stream)), check=True)
    step(gpunet.ones(1))
    with pytest.raises(CaptureError, match=r"the result .*4.0; the recording has 3.0"):
        step(gpunet.ones(1))
