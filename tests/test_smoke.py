"""One small test of everything that a device does: each op, each kernel, each loss, each optimizer in a captured step.

The quick tier runs this file on the stand-in driver, too (test_cuda_smoke.py).  With several GPUs it runs on the last one,
which is not the current device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import OPS
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.errors import MissingDependencyError
from gpunet.launch.kernel import KERNELS
from gpunet.ops.cases.case import View
from gpunet.tools import kernel_cases, selftest
from tests.captured.test_capture import make_optimizer_of
from tests.ops.test_ops import TOLERANCE, formula, run, tensors, to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional

#: The first row of each op.
FIRST_ROWS = [next(sample for sample in SAMPLES if sample.op == name) for name in sorted(OPS)]
LOSSES: dict[str, Callable[[gpunet.Tensor, gpunet.Tensor], gpunet.Tensor]] = {
    "cross_entropy": lambda x, y: F.cross_entropy(x, y.argmax(1)),
    "cross_entropy of probabilities": lambda x, y: F.cross_entropy(x, y.softmax(1)),
    **{name: getattr(F, name) for name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")},
    "binary_cross_entropy_with_logits": lambda x, y: F.binary_cross_entropy_with_logits(x, (y > 0).float()),
}
OPTIMIZERS = {
    "SGD": make_optimizer_of(gpunet.optim.SGD, lr=0.1, momentum=0.9),
    "Adam": make_optimizer_of(gpunet.optim.Adam, lr=0.01, amsgrad=True),
    "AdamW": make_optimizer_of(gpunet.optim.AdamW, lr=0.01),
}


@pytest.fixture
def place(device: str) -> str:
    """The device; the last GPU if there are several."""
    if device == "cuda":
        device = f"cuda:{gpunet.cuda.device_count() - 1}"
        gpunet.set_default_device(device)
    return device


@pytest.mark.parametrize("sample", FIRST_ROWS, ids=lambda sample: sample.op)
def test_op(sample: Sample, place: str) -> None:
    """Values are those of the formula, gradients those of the CPU; what needs cuSOLVER says so where it is missing."""
    arrays = sample.arrays()
    try:
        out, gradients = run(sample, tensors(sample, arrays, "float32", place))
    except MissingDependencyError as error:
        if error.name != "cusolver" or not place.startswith("cuda"):
            raise
        return
    assert str(out.device) == str(Device(place))
    numpy.testing.assert_allclose(to_numpy(out), formula(sample, arrays), **TOLERANCE["float32"])
    gpunet.set_default_device("cpu")
    _, expected = run(sample, tensors(sample, arrays, "float32", "cpu"))
    for found, gradient in zip(gradients, expected, strict=True):
        assert (found is None) == (gradient is None)
        if found is not None:
            numpy.testing.assert_allclose(to_numpy(found), to_numpy(gradient), **TOLERANCE["float32"])


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str, place: str) -> None:
    generator = numpy.random.default_rng(0)
    arrays = [generator.normal(size=(5, 3)).astype("float32") for _ in range(2)]
    results = []
    for where in (place, "cpu"):
        x, y = (gpunet.tensor(array, device=where) for array in arrays)
        loss = LOSSES[name](x.requires_grad_(), y)
        loss.backward()
        results.append([to_numpy(loss), to_numpy(x.grad)])
    for found, expected in zip(*results):
        numpy.testing.assert_allclose(found, expected, **TOLERANCE["float32"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_captured_step_has_the_bits_of_eager(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, record = [], devices.record_cuda_graph
    monkeypatch.setattr(devices, "record_cuda_graph", lambda *given: graphs.append(record(*given)) or graphs[-1])
    captured = OPTIMIZERS[name](True)
    assert captured.train(3) == OPTIMIZERS[name](False).train(3)
    assert len(captured.run.recordings) == 1 and len(graphs) == place.startswith("cuda")


def test_random_numbers_are_those_of_the_cpu(place: str) -> None:
    def draw(where: str) -> list[bytes]:
        generator = gpunet.Generator(3)
        options: dict[str, Any] = {"device": where, "generator": generator}
        found = [gpunet.rand(7, **options), gpunet.randn(7, **options), gpunet.randint(0, 9, (7,), **options)]
        return [to_numpy(t).tobytes() for t in [*found, gpunet.randperm(7, **options)]]

    assert draw(place) == draw("cpu")


def test_indexing(place: str) -> None:
    values = numpy.arange(12.0, dtype="float32").reshape(3, 4)
    x, rows = gpunet.tensor(values, device=place), gpunet.tensor([2, 0], device=place)
    indices: list[tuple[Any, Any]] = [
        (1, 1), (slice(None, None, 2), slice(None, None, 2)), ((slice(1), 2), (slice(1), 2)), (rows, [2, 0]),
        ((rows, rows), ([2, 0], [2, 0])), (x > 5, values > 5),
    ]  # fmt: skip
    for index, expected in indices:
        numpy.testing.assert_array_equal(to_numpy(x[index]), values[expected])
        changed, copy = x.clone(), values.copy()
        changed[index], copy[expected] = -1.0, -1.0
        numpy.testing.assert_array_equal(to_numpy(changed), copy)


def num_elements(arrays: list[Any]) -> int:
    """Return the number of elements of a case's arrays: arrays, views, None, and lists of them."""
    flat = [a for array in arrays for a in (array if isinstance(array, list) else [array]) if a is not None]
    return sum(a.base.size if isinstance(a, View) else a.size for a in flat)


@pytest.mark.parametrize("name", list(KERNELS))
def test_kernel(name: str, place: str) -> None:
    """The smallest case of float32 that writes something is right, writes nothing else, and gives the same bits twice."""
    cases = [case for case in kernel_cases.cases(KERNELS[name]) if case.floating == "float32" and case.twin is None]
    smallest = min((case for case in cases if num_elements(case.arrays[:1])), key=lambda case: num_elements(case.arrays))
    row = selftest.check_kernel(KERNELS[name], Device(place), [smallest])
    assert row.passed, selftest.describe(row)
