"""Every kernel states its facts: cases of every tag, what it computes and moves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpunet.launch.facts import TAGS
from gpunet.launch.kernel import KERNELS
from gpunet.tools import kernel_cases

every_kernel = pytest.mark.parametrize("name", KERNELS)


@every_kernel
@pytest.mark.parametrize("tag", TAGS)
def test_every_kernel_has_cases_of_every_tag(name: str, tag: str) -> None:
    first = next(kernel_cases.cases(KERNELS[name], tag), None)
    assert first is not None and tag in first.tags, f"add cases to {kernel_cases._of_ops.__path__[0]}"


@every_kernel
def test_the_edge_cases_select_every_specialisation(name: str) -> None:
    """No test would compile another one, and the self-test would not run it."""
    kernel = KERNELS[name]
    edge = set(kernel_cases.specialisations(kernel))
    assert {case.expression() for tag in TAGS for case in kernel_cases.cases(kernel, tag)} == edge


@every_kernel
def test_the_launch_to_time_grows_with_the_width(name: str) -> None:
    small, large = ([*kernel_cases.cases(KERNELS[name], "bench", ("float32",), width)] for width in (16, 32))
    assert len(small) == len(large) == 1
    before, after = small[0].cost(), large[0].cost()
    has_one_size = small[0].label == large[0].label
    assert (after == before) if has_one_size else (after.bytes > 2 * before.bytes and after.flops >= 2 * before.flops)


def test_a_process_without_the_cases_knows_what_a_kernel_does_with_its_outputs() -> None:
    """diagnose.AnomalyFinder asks for it."""
    code = (
        "import sys, gpunet; from gpunet.launch.kernel import KERNELS as k; from gpunet.ops import batch_norm\n"
        "assert 'gpunet.ops.cases' not in sys.modules\n"
        "found = k['batch_norm_statistics']\n"
        "assert found.workspace == {'partials'} and found.tickets == {'tickets'} and 'running_mean' in found.updates"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_facts_are_checked_when_they_are_stated() -> None:
    kernel = next(iter(KERNELS.values()))
    with pytest.raises(AssertionError):
        kernel.cases("edgy")
