"""Twins are written in the dialect that a captured step can trace, or declare that they are not."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from gpunet.captured.ir import tree_map
from gpunet.captured.trace import Trace
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.launch.tape import Launch
from gpunet.tools import kernel_cases

LIBRARY = [kernel for kernel in KERNELS.values() if kernel_cases.has_cases(kernel)]


def trace_of(kernel: Kernel, arrays: Any, options: dict[str, Any]) -> Trace:
    trace = Trace()
    with numpy.errstate(all="ignore"):
        trace.add_launch(Launch(kernel, tuple(arrays), options))
    return trace


def constants(trace: Trace) -> list[Any]:
    """The arrays that the twin created."""
    return [(a.shape, a.tobytes()) for a in trace._constants]


@pytest.mark.parametrize("kernel", LIBRARY, ids=lambda kernel: kernel.name)
def test_a_twin_is_traced_as_its_kernel_declares(kernel: Kernel) -> None:
    assert (kernel.tracing == "loops") == (kernel.launch_loops is not None)
    for case in kernel_cases.cases(kernel, floating=("float32",)):
        if case.twin is not None:
            continue
        arrays = case.on_cpu()
        trace = trace_of(kernel, arrays, case.options)
        is_one_call = [call.function for call in trace.calls] == [kernel.twin]
        assert is_one_call == (kernel.tracing != "calls"), case.label
        if is_one_call:
            continue
        for value in (0, 1):  # what the twin creates must not depend on values
            filled = tree_map(arrays, lambda a, value=value: numpy.full(a.shape, value, a.dtype), numpy.ndarray)
            assert constants(trace_of(kernel, filled, case.options)) == constants(trace), case.label


def test_most_kernels_are_traced_into_calls() -> None:
    assert {kernel.name for kernel in LIBRARY if kernel.tracing != "calls"} == {
        "add_rows", "cross_entropy_labels", "index_positions", "random_bernoulli", "random_choice", "random_exponential",
        "random_integers", "random_normal", "random_uniform", "scatter_rows", "update_scale",
    }  # fmt: skip
