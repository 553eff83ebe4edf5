"""Twins are written in the dialect that a captured step can trace, or declare that they are not."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.captured.ir import tree_map
from gpunet.captured.trace import Trace
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.launch.shims import Shim
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
        "add_rows", "cross_entropy_labels", "dropout_drawn", "index_positions", "linear_forward_loss",
        "max_pool_backward", "max_pool_forward", "random_bernoulli", "random_choice", "random_exponential",
        "random_integers", "random_normal", "random_uniform", "recurrence_backward", "recurrence_forward",
        "resample_rows", "scatter_rows", "small_net_steps", "stacked_adam_factors", "stacked_adam_step", "stacked_dropout",
        "stacked_linear_backward_input", "stacked_linear_backward_weight", "stacked_linear_forward",
        "stacked_mean_forward", "stacked_sgd_step", "update_scale",
    }  # fmt: skip


@pytest.mark.parametrize("write", [
    lambda x, index, out: numpy.take(x, index, 0, out, "clip"),
    lambda x, index, out: numpy.cumsum(x, 0, None, out),
    lambda x, index, out: numpy.clip(x, 0.0, 1.0, out),
])  # fmt: skip
def test_an_out_by_position_is_written(write: Any) -> None:
    """While it is traced, the function computes nothing, and the recorded call writes to ``out``."""
    x, index, out = numpy.ones((3, 2)), numpy.arange(3), numpy.zeros((3, 2))
    shim = Shim("write", lambda xp, out, x, index: write(x, index, out))
    trace = Trace()
    trace.add_launch(Launch(shim, (out, x, index), {}))
    [call] = trace.calls
    assert [trace.buffers[view.buffer].array is out for view in call.writes] == [True]
    assert not out.any()


def test_a_destination_that_is_passed_by_position_is_written_in_each_replay() -> None:
    """A function that returns one of its later arguments wrote it: not a view, but a call that must be replayed."""
    take = Shim("take", lambda xp, out, x, positions: xp.take(x, positions, 0, out, "clip"))
    out, x, positions = numpy.zeros((2, 3)), numpy.arange(12.0).reshape(4, 3), numpy.array([3, 0])
    trace = trace_of(take, (out, x, positions), {})
    assert len(trace.calls) == 1


def test_replays_of_embedding_follow_the_weight() -> None:
    weight, index = gpunet.randn(7, 3), gpunet.tensor([[1, 6], [0, 1]])
    step = gpunet.capture(lambda: gpunet.nn.functional.embedding(index, weight))
    for _ in range(3):
        weight += 1.0
        assert (step() == weight[index]).all()
