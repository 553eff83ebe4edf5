"""The table of intended differences: each entry is needed, and the page in docs/ shows the table."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import numpy
import pytest

import gpunet
from tests.torch_calls.differences import (
    DIFFERENCES,
    PAGE,
    REWRITE,
    Difference,
    differs_where,
    find_difference,
    only_roundings,
    page,
    same_up_to_signs,
    takes_values,
    their_nan,
)
from tests.torch_calls.draw import Call
from tests.torch_calls.judge import FAULTS, MISSING, SILENT, Verdict, judge
from tests.torch_calls.outcome import TensorValue, quietly
from tests.torch_calls.targets import find_targets


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: entry.name)
def test_entry_is_needed(torch: Any, entry: Difference) -> None:
    [target] = [target for target in find_targets(gpunet, torch) if target.full_name == entry.name]
    with quietly():
        verdict = judge(Call(target, (), entry.example, ("x",)), torch, gpunet, Random(0))
    assert verdict.kind in (*FAULTS, MISSING), "gpunet agrees with PyTorch: remove the entry"
    assert find_difference(verdict) is entry


def test_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run {REWRITE}"


def test_reasons_are_sentences() -> None:
    assert [d.reason for d in DIFFERENCES if not re.fullmatch(r"[A-Z`].*\.", d.reason)] == []


def test_a_condition_on_values_holds_for_each_element_that_differs(torch: Any) -> None:
    def verdict(theirs: list[float], ours: list[float], leaf: list[float]) -> Verdict:
        values = [TensorValue((len(x),), "float32", False, numpy.array(x)) for x in (theirs, ours, leaf)]
        call = Call(find_targets(gpunet, torch)[0], (), "r = x")
        return Verdict(call, "r = x", SILENT, "gradient: value", values=(values[0], values[1]), leaf=values[2])

    nan = numpy.nan
    assert their_nan(verdict([nan, 1.0, 3.0], [0.0, 1.0, 3.0], [0.0, 0.0, 0.0]))
    assert not their_nan(verdict([nan, 1.0, 3.0], [0.0, 1.0, 4.0], [0.0, 0.0, 0.0]))
    assert not their_nan(verdict([nan, 1.0], [nan, 1.0], [0.0, 0.0]))
    at_zero = differs_where(lambda elements: elements.leaf == 0)
    assert at_zero(verdict([1.0, 2.0], [5.0, 2.0], [0.0, 7.0])) and not at_zero(verdict([1.0, 2.0], [1.0, 5.0], [0.0, 7.0]))


def test_a_condition_on_values_does_not_hold_for_other_shapes(torch: Any) -> None:
    def value(*numbers: float) -> TensorValue:
        return TensorValue((len(numbers),), "float32", False, numpy.array(numbers))

    call = Call(find_targets(gpunet, torch)[0], (), "r = x")
    theirs, ours = (("sequence", value(numpy.nan), value(*rest)) for rest in ((1.0,), (1.0, 2.0)))
    assert not their_nan(Verdict(call, "r = x", SILENT, "value", values=(theirs, ours)))
    assert not only_roundings(Verdict(call, "r = x", SILENT, "value", values=(theirs, ours)))


def test_factorisations_are_equal_up_to_signs(torch: Any) -> None:
    def verdict(vectors: list[list[float]], values: list[float], other: list[float]) -> Verdict:
        made = []
        for eigenvalues, columns in ((values, [[1.0, 0.0], [0.0, 1.0]]), (other, vectors)):
            arrays = [numpy.array(eigenvalues), numpy.array(columns)]
            made.append(("sequence", *(TensorValue(a.shape, "float32", False, a) for a in arrays)))
        return Verdict(Call(find_targets(gpunet, torch)[0], (), "r = x"), "r = x", SILENT, "value", values=(made[0], made[1]))

    signs, others = [[-1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-0.8, 0.6]]
    assert same_up_to_signs(verdict(signs, [1.0, 2.0], [1.0, 2.0]))
    assert same_up_to_signs(verdict(others, [2.0, 2.0], [2.0, 2.0]))  # of equal values
    assert not same_up_to_signs(verdict(others, [1.0, 2.0], [1.0, 2.0]))
    assert not same_up_to_signs(verdict(signs, [1.0, 2.0], [1.0, 2.5]))


def test_other_arguments_of_wrong_types_do_not_count_as_values(torch: Any) -> None:
    [target] = [target for target in find_targets(gpunet, torch) if target.full_name == "torch.cumsum"]

    def verdict(types: str) -> Verdict:
        theirs = f"TypeError: cumsum() received an invalid combination of arguments - got ({types}), but expected one of:"
        return Verdict(Call(target, (), "r = torch.cumsum(x, 0)"), "", SILENT, "accepted", theirs)

    assert takes_values(verdict("list, int"))
    assert not takes_values(verdict("Tensor, float")) and not takes_values(verdict("list, float"))
