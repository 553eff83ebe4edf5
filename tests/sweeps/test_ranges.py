"""Ranges and samplers."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from gpunet.errors import ArgumentError, MissingDependencyError
from gpunet.sweeps import Choice, Interval
from gpunet.sweeps.ranges import parse_ranges
from gpunet.sweeps.samplers import OptunaSampler, make_sampler


def test_ranges_from_text_and_values() -> None:
    found = parse_ranges(
        {
            "lr": "1e-4:1e-1:log", "weight-decay": [0, "0.1"], "hidden": ["32", (64, 32), "16, 8"], "batch_size": "16:64",
            "activation": "ReLU", "dropout": 0.5, "optimizer": Choice(("sgd", "adam")), "momentum": Interval(0.5, 0.9),
        }
    )  # fmt: skip
    assert found == {
        "lr": Interval(1e-4, 1e-1, is_log=True), "weight_decay": Choice((0.0, 0.1)), "hidden": Choice(("32", "64,32", "16,8")),
        "batch_size": Interval(16, 64, is_whole=True), "activation": Choice(("relu",)), "dropout": Choice((0.5,)),
        "optimizer": Choice(("sgd", "adam")), "momentum": Interval(0.5, 0.9),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "got no ranges"),
        ({"rate": 1}, "unknown hyperparameter 'rate'"),
        ({"lr": []}, "lr has no values"),
        ({"lr": "-1"}, "lr = '-1'; expected a number"),
        ({"lr": "1:2:3"}, "such as 1e-4:1e-1:log"),
        ({"lr": "1e-1:1e-4"}, "an interval in"),
        ({"lr": "0:1:log"}, "above 0 by the logarithm"),
        ({"dropout": 1.0}, r"a number in \[0, 1\)"),
        ({"dropout": "0:1.5"}, r"an interval in \[0, 1\)"),
        ({"momentum": "0:1"}, r"an interval in \[0, 1\)"),
        ({"lr": Interval(0.0, math.inf)}, "an interval in"),
        ({"batch_size": "1.5:3.2"}, "between whole numbers"),
        ({"hidden": "8:16.5:int"}, "between whole numbers"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"hidden": "0"}, "positive integers"),
        ({"hidden": "8:16"}, "whole numbers, such as 8:64:int"),
        ({"activation": "1:2"}, "expected names"),
        ({"activation": "maxout"}, "unknown activation"),
    ],
)
def test_wrong_ranges(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse_ranges(ranges)


def test_whole_numbers() -> None:
    large = 2**53 + 1
    found = parse_ranges({"batch_size": Interval(4, 9), "seed": [large, str(large), 2.0]})
    assert found == {"batch_size": Interval(4, 9, is_whole=True), "seed": Choice((large, large, 2))}


def test_values_of_an_interval() -> None:
    assert Interval(1.0, 3.0).at(0.25) == 1.5
    assert math.isclose(Interval(1e-4, 1e-2, is_log=True).at(0.5), 1e-3)
    whole = Interval(2, 4, is_whole=True)
    assert [whole.at(share) for share in (0.0, 0.34, 0.67, 0.9999)] == [2, 3, 4, 4]
    assert {Interval(1, 64, True, True).at(share) for share in numpy.linspace(0, 1, 2000)} == {*range(1, 65)}
    assert Interval(1.0, 2.0).grid(3) == [1.0, 1.5, 2.0]
    assert Interval(1, 4, False, True).grid(9) == [1, 2, 3, 4]


def test_grid() -> None:
    ranges = parse_ranges({"lr": "1e-3:1e-1:log", "hidden": ["8", "16"], "dropout": "0:0.4"})
    sampler = make_sampler("grid", ranges, 18, 0)
    assert sampler.num_trials == 18
    rows = sampler.ask(10) + sampler.ask(8)
    assert len({tuple(row.values()) for row in rows}) == 18
    assert sorted({row["dropout"] for row in rows}) == [0.0, 0.2, 0.4]
    with pytest.raises(ArgumentError, match="4 combinations, but trials=3"):
        make_sampler("grid", parse_ranges({"hidden": ["1", "2"], "seed": [0, 1]}), 3, 0)
    with pytest.raises(ArgumentError, match="sampler='bayes'"):
        make_sampler("bayes", ranges, 3, 0)


def test_random_numbers_do_not_depend_on_the_parts_asked_for() -> None:
    ranges = parse_ranges({"lr": "1e-3:1e-1:log", "hidden": ["8", "16", "32"]})
    parts, whole = make_sampler("random", ranges, 9, 5), make_sampler("random", ranges, 9, 5)
    assert parts.ask(4) + parts.ask(5) == whole.ask(9)
    assert make_sampler("random", ranges, 9, 6).ask(9) != make_sampler("random", ranges, 9, 5).ask(9)


def test_optuna_is_optional(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match="pip install optuna"):
        OptunaSampler(parse_ranges({"lr": 0.1}), 3, 0)


def test_optuna_goes_on_where_it_was() -> None:
    pytest.importorskip("optuna")
    ranges = parse_ranges({"lr": "1e-3:1e-1:log", "hidden": ["8", "16"], "batch_size": "8:64"})

    def asked() -> list[dict[str, Any]]:
        sampler, found = make_sampler("optuna", ranges, 48, 1), []
        for _ in range(3):
            rows = sampler.ask(16)
            found += rows
            sampler.tell([math.nan if row["batch_size"] == 9 else abs(math.log(row["lr"] / 0.01)) for row in rows])
        return found

    found = asked()
    assert asked() == found
    late, early = ([abs(math.log(row["lr"] / 0.01)) for row in found[part]] for part in (slice(32, 48), slice(0, 16)))
    assert numpy.median(late) < numpy.median(early)
