"""Loop bodies, run as Python, compute what the twins compute.  (tests/captured/test_compiled.py runs them compiled.)"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from gpunet.errors import LabelError
from gpunet.launch import loops
from gpunet.launch.halves import has_halves
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.launch.loops import Loops, load, loop_body, store
from gpunet.launch.random import random_uniform
from gpunet.ops.cases.case import Case
from gpunet.tools import kernel_cases

LOOPED = [kernel.name for kernel in KERNELS.values() if kernel.launch_loops is not None]
SMALL = 700  # elements of a case that Python loops over


def small_cases(kernel: Kernel) -> Iterator[Case]:
    for case in kernel_cases.cases(kernel):
        arrays = case.on_cpu()
        if max(a.size for a in arrays if a is not None) <= SMALL and not has_halves(arrays):  # compiled steps run halves as twins
            yield case


def run(looped: Loops) -> int:
    """Run a body as Python, on flat views of its arrays."""
    arrays = [a.reshape(-1) for a in looped.arrays]
    scratch = [numpy.full(looped.scratch, numpy.nan, arrays[0].dtype)] if looped.scratch else []
    with numpy.errstate(all="ignore"):  # the products of Philox overflow, and so do extreme logits
        return int(looped.body(*arrays, *scratch, *looped.numbers))


@pytest.mark.parametrize("name", LOOPED)
def test_body_computes_what_the_twin_computes(name: str) -> None:
    kernel, count = KERNELS[name], 0
    for case in small_cases(kernel):
        expected, found = case.on_cpu(), [None if a is None else a.copy() for a in case.on_cpu()]
        looped = kernel.launch_loops(*found, **case.options)
        if looped is None or not all(a.size for a in looped.arrays):
            continue
        count += 1
        try:
            with numpy.errstate(all="ignore"):
                kernel.twin(*expected, **case.options)
        except LabelError:
            before = [a.copy() for a in looped.arrays]
            assert run(looped) == 1 and looped.checks_input, str(case)
            assert all(a.tobytes() == b.tobytes() for a, b in zip(before, looped.arrays)), "it wrote before it checked"
            continue
        assert run(looped) == 0, str(case)
        for parameter, a, b in zip(kernel.parameters[: kernel.outputs], found, expected):
            if parameter in kernel.workspace or a is None:
                continue
            exact = b.dtype.kind != "f" or kernel.file == "random.cu"
            tolerance = 0 if exact else 64 * numpy.finfo(b.dtype).eps
            scale = max(1.0, float(numpy.abs(b[numpy.isfinite(b)]).max(initial=0)))
            numpy.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=f"{case}: {parameter}")
    assert count > 5


def test_bounds_of_uniform_numbers_may_be_integers() -> None:
    """Compiled code passes an int in another register than a float."""
    looped = random_uniform.launch_loops(numpy.zeros(5), numpy.zeros(2, "uint64"), low=-2, high=3, bits=53)
    assert [type(number) for number in looped.numbers] == [int, int, float, float, float]


# ---- the source of a body -------------------------------------------------------------------------------------------


@loop_body
def _twice_loop(x: Any) -> Any:
    return x + x


@loop_body
def _doubled_loop(
    out: Any, count: int
) -> Any:  # fmt: skip
    """A body with a helper."""
    for i in range(count):
        store(out, i, _twice_loop(load(out, i, 0)), 0)
    return 0


def test_source_of_a_body_and_of_those_that_it_calls() -> None:
    assert list(_doubled_loop.called()) == [_twice_loop]
    assert _twice_loop.source() == "def _twice_loop(x: Any) -> Any:\n    return x + x\n"
    head, _, rest = _doubled_loop.source(["out = pointer(out)"]).partition("    out = pointer(out)\n")
    assert head.startswith("def _doubled_loop(") and head.rstrip().endswith(":  # fmt: skip")
    assert rest.lstrip().startswith('"""A body with') and "range(count)" in rest
    out = numpy.arange(3.0)
    assert _doubled_loop(out, 2) == 0 and out.tolist() == [0.0, 2.0, 2.0]


@pytest.mark.parametrize("name", LOOPED)
def test_bodies_refer_to_no_name_that_generated_source_lacks(name: str) -> None:
    """Without Numba only this test would notice it."""
    kernel = KERNELS[name]
    first = next(kernel_cases.cases(kernel))
    whole = kernel.launch_loops(*first.on_cpu(), **first.options).body
    bodies = [whole, *whole.called()]
    for body in bodies:
        used = set(body._function.__code__.co_names) - {b.name for b in bodies}
        assert used <= {*vars(loops), "math", "nan", "range", "float64", "int64", "uint64", "uint8"}, body.name
