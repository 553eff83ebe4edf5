"""Tests of every op, on every row of the table in ``tests/samples``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd import OPS, Node, Tensor, make_tensor
from gpunet.backend import devices
from gpunet.launch.tape import Tape, record
from tests.samples import SAMPLES, Sample

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
every_sample_with_rows = pytest.mark.parametrize("sample", [s for s in SAMPLES if s.has_rows], ids=lambda sample: sample.name)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

#: float32 (eps 1.2e-7): a sample sums a few dozen terms of size about 1, each with a few roundings.  float64 (eps 2.2e-16):
#: formula and twin differ by a few hundred eps at most.
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 5e-6}, "float64": {"rtol": 1e-12, "atol": 1e-12}}
#: Errors of a central difference with step h = 1e-5: truncation, h² f''' / 6, about 1e-10, and rounding, eps / h, about
#: 1e-11; higher derivatives of the samples reach a few hundred.
STEP = 1e-5
DIFFERENCE = {"rtol": 1e-6, "atol": 1e-7}


# ---- helpers --------------------------------------------------------------------------------------------------------


def tensors(sample: Sample, arrays: list[numpy.ndarray], dtype: str, device: str, graph: bool = True) -> list[Tensor]:
    """The arrays as tensors: floating ones in ``dtype``, and requiring grad if ``graph`` and the sample says so."""
    return [
        gpunet.tensor(
            array, dtype=dtype if array.dtype.kind == "f" else None, device=device, requires_grad=graph and given.gradient
        )
        for array, given in zip(arrays, sample.inputs)
    ]


def to_numpy(tensor: Tensor) -> numpy.ndarray:
    return tensor.detach().cpu().numpy()


def formula(sample: Sample, arrays: list[numpy.ndarray]) -> numpy.ndarray:
    with numpy.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of no rows
        return numpy.asarray(sample.formula(*arrays), numpy.float64)


def cotangent(shape: tuple[int, ...]) -> numpy.ndarray:
    """The upstream gradient of an output: random, with values exact in float32."""
    return numpy.random.default_rng(7).normal(size=shape).astype(numpy.float32).astype(numpy.float64)


def directions(sample: Sample, arrays: list[numpy.ndarray]) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(11)
    return [generator.normal(size=a.shape) if given.gradient else numpy.zeros_like(a) for a, given in zip(arrays, sample.inputs)]


def run(sample: Sample, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """Run forward, and backward with :func:`cotangent`: (output, gradients of the inputs)."""
    out = sample.call(*inputs)
    out.backward(gpunet.tensor(cotangent(out.shape), dtype=out.dtype, device=out.device))
    return out, [x.grad for x in inputs]


def bits(*results: Any) -> list[bytes]:
    return [b"" if r is None else to_numpy(r).tobytes() for r in results]


def nodes(out: Tensor) -> list[Node]:
    found: list[Node] = []
    stack: list[Any] = [out.grad_fn]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in found:
            found.append(node)
            stack += [edge[0] for edge in node.next_functions]
    return found


def slope(function: Callable[[float], float]) -> float:
    return (function(STEP) - function(-STEP)) / (2 * STEP)


# ---- values and gradients -------------------------------------------------------------------------------------------


@every_dtype
@every_sample
def test_forward_is_the_formula(sample: Sample, dtype: str, device: str) -> None:
    arrays = sample.arrays()
    out = sample.call(*tensors(sample, arrays, dtype, device))
    expected = formula(sample, arrays)
    assert out.shape == expected.shape
    assert out.dtype == dtype or sample.op == "cast"
    numpy.testing.assert_allclose(to_numpy(out), expected, **TOLERANCE[dtype])


@every_sample
def test_sample_runs_the_op_that_it_names(sample: Sample, device: str) -> None:
    out = sample.call(*tensors(sample, sample.arrays(), "float64", device))
    assert sample.op in [node.name for node in nodes(out)]


@every_sample
def test_each_input_alone_can_require_grad(sample: Sample, device: str) -> None:
    """An op computes only the requested gradients, with the bits that it gives when all are requested."""
    arrays = sample.arrays()
    _, all_gradients = run(sample, tensors(sample, arrays, "float64", device))
    for position, given in enumerate(sample.inputs):
        if given.gradient:
            inputs = tensors(sample, arrays, "float64", device, graph=False)
            inputs[position].requires_grad_()
            _, gradients = run(sample, inputs)
            assert [g is not None for g in gradients] == [i == position for i in range(len(gradients))]
            numpy.testing.assert_array_equal(to_numpy(gradients[position]), to_numpy(all_gradients[position]))


@every_sample
def test_gradient_is_the_slope_of_the_formula(sample: Sample, device: str) -> None:
    """In a random direction, by central differences of the NumPy formula."""
    arrays = sample.arrays()
    out, gradients = run(sample, tensors(sample, arrays, "float64", device))
    along, weight = directions(sample, arrays), cotangent(out.shape)

    def moved(t: float) -> float:
        return float((formula(sample, [a + t * d if d.any() else a for a, d in zip(arrays, along)]) * weight).sum())

    found = sum(float((to_numpy(g) * d).sum()) for g, d in zip(gradients, along) if g is not None)
    assert all((g is not None) == given.gradient for g, given in zip(gradients, sample.inputs))
    numpy.testing.assert_allclose(found, slope(moved), **DIFFERENCE)


@every_sample
def test_float32_gradient_is_the_float64_gradient(sample: Sample, device: str) -> None:
    arrays = sample.arrays()
    single, double = (run(sample, tensors(sample, arrays, dtype, device))[1] for dtype in ("float32", "float64"))
    for a, b, array in zip(single, double, arrays):
        if a is not None and b is not None:
            assert (a.shape, a.dtype) == (array.shape, "float32")
            assert (b.shape, b.dtype) == (array.shape, "float64")
            numpy.testing.assert_allclose(to_numpy(a), to_numpy(b), **TOLERANCE["float32"])


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.second], ids=lambda sample: sample.name)
def test_second_derivative_is_the_slope_of_the_first(sample: Sample, device: str) -> None:
    """With create_graph, with respect to the inputs and the upstream gradient."""
    arrays = sample.arrays()
    weight = cotangent(sample.call(*tensors(sample, arrays, "float64", device, graph=False)).shape)
    weight_along = numpy.random.default_rng(12).normal(size=weight.shape)
    along = directions(sample, arrays)
    outer = [numpy.random.default_rng(13).normal(size=a.shape) for a in arrays]

    def first(inputs: list[Tensor], upstream: Tensor, create_graph: bool) -> Tensor:
        """The first gradients times ``outer``, summed."""
        wanted = [x for x in inputs if x.requires_grad]
        gradients = gpunet.grad(sample.call(*inputs), wanted, upstream, create_graph=create_graph)
        factors = [gpunet.tensor(o, device=device) for o, x in zip(outer, inputs) if x.requires_grad]
        return gpunet.stack([(g * o).sum() for g, o in zip(gradients, factors)]).sum()

    def moved(t: float) -> float:
        inputs = tensors(sample, [a + t * d if d.any() else a for a, d in zip(arrays, along)], "float64", device)
        return first(inputs, gpunet.tensor(weight + t * weight_along, device=device), False).item()

    inputs = tensors(sample, arrays, "float64", device)
    upstream = gpunet.tensor(weight, device=device, requires_grad=True)
    total = first(inputs, upstream, True)
    wanted = [*inputs, upstream]
    chosen = [x for x in wanted if x.requires_grad]
    second = gpunet.grad(total, chosen, allow_unused=True) if total.requires_grad else [None] * len(chosen)
    by_direction = zip(second, [d for d, x in zip([*along, weight_along], wanted) if x.requires_grad])
    found = sum(float((to_numpy(g) * d).sum()) for g, d in by_direction if g is not None)
    numpy.testing.assert_allclose(found, slope(moved), **DIFFERENCE)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if OPS[s.op].kind == "fused"], ids=lambda sample: sample.name)
def test_fused_op_equals_its_composition(sample: Sample, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of the kernels equal those of the op composed of primitives."""
    monkeypatch.setattr(OPS[sample.op], "composed_backward", None)  # so that nodes keep the inputs
    inputs = tensors(sample, sample.arrays(), "float64", device)
    node = next(n for n in nodes(sample.call(*inputs)) if n.name == sample.op)
    wanted = [x for x in node.inputs if isinstance(x, Tensor) and x.requires_grad]
    results = [OPS[sample.op].call(*node.inputs, **node.options), OPS[sample.op].composed(*node.inputs, **node.options)]
    outputs = [gpunet.cat([r.reshape(-1) for r in result]) if isinstance(result, tuple) else result for result in results]
    weight = gpunet.tensor(cotangent(outputs[0].shape), device=device)
    fused, composed = ([to_numpy(g) for g in gpunet.grad(out, wanted, weight, retain_graph=True)] for out in outputs)
    for a, b in zip([to_numpy(outputs[0]), *fused], [to_numpy(outputs[1]), *composed]):
        numpy.testing.assert_allclose(a, b, **TOLERANCE["float64"])


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.torch], ids=lambda sample: sample.name)
def test_values_and_gradients_are_those_of_torch(sample: Sample, device: str, torch: Any) -> None:
    arrays = sample.arrays()
    out, gradients = run(sample, tensors(sample, arrays, "float32", device))
    theirs = [
        torch.tensor(a, dtype=torch.float32 if a.dtype.kind == "f" else None, requires_grad=given.gradient)
        for a, given in zip(arrays, sample.inputs)
    ]
    expected = sample.torch(torch, *theirs)
    expected.backward(torch.tensor(cotangent(expected.shape), dtype=torch.float32))
    assert out.shape == tuple(expected.shape)
    numpy.testing.assert_allclose(to_numpy(out), expected.detach().numpy(), **TOLERANCE["float32"])
    for mine, x in zip(gradients, theirs):
        if mine is not None:
            numpy.testing.assert_allclose(to_numpy(mine), x.grad.numpy(), **TOLERANCE["float32"])


# ---- replay, determinism, layouts -----------------------------------------------------------------------------------


@every_dtype
@every_sample
def test_replay_equals_eager(sample: Sample, dtype: str, device: str) -> None:
    """Replaying forward and backward on new data in the same buffers gives the bits of an eager run."""
    inputs = tensors(sample, sample.arrays(seed=1), dtype, device)
    with record(Tape()) as tape:
        out, gradients = run(sample, inputs)
    new = tensors(sample, sample.arrays(seed=2), dtype, device)
    for x, y in zip(inputs, new):
        devices.assign(x.array, y.array)
    tape.replay()
    assert bits(out, *gradients) == bits(*(lambda o, g: (o, *g))(*run(sample, new)))


@every_sample
def test_two_runs_give_the_same_bits_and_do_not_change_the_inputs(sample: Sample, device: str) -> None:
    arrays = sample.arrays()
    first, second = tensors(sample, arrays, "float32", device), tensors(sample, arrays, "float32", device)
    before = bits(*first)
    out, gradients = run(sample, first)
    assert bits(*first) == before
    assert all(x._version == [0] for x in first)
    again, gradients_again = run(sample, second)
    assert bits(out, *gradients) == bits(again, *gradients_again)


def reversed_axes(array: numpy.ndarray) -> numpy.ndarray:
    return array.T.copy().T


def sliced(array: numpy.ndarray) -> numpy.ndarray:
    """Every second element of a larger array, starting at index 1."""
    wide = numpy.repeat(array, 2, axis=-1) if array.ndim else array
    return wide[..., 1::2] if array.ndim else array


def flipped(array: numpy.ndarray) -> numpy.ndarray:
    """An array with a negative first stride."""
    return array[::-1].copy()[::-1] if array.ndim else array


@pytest.mark.parametrize("layout", [reversed_axes, sliced, flipped])
@every_sample
def test_strided_inputs_give_the_results_of_contiguous_inputs(sample: Sample, layout: Any, device: str) -> None:
    arrays = sample.arrays()
    contiguous = tensors(sample, arrays, "float64", device)
    strided = []
    for x in contiguous:
        with devices.on_device_of(x.array):
            strided.append(make_tensor(layout(x.array), requires_grad=x.requires_grad))
            assert (x.array == strided[-1].array).all()
    out, gradients = run(sample, contiguous)
    strided_out, strided_gradients = run(sample, strided)
    for a, b in zip([out, *gradients], [strided_out, *strided_gradients]):
        if a is not None and b is not None:
            # NumPy's order of summation depends on the strides
            numpy.testing.assert_allclose(to_numpy(a), to_numpy(b), **TOLERANCE["float64"])


@pytest.mark.parametrize("rows", [0, 1])
@every_sample_with_rows
def test_no_row_and_one_row(sample: Sample, rows: int, device: str) -> None:
    arrays = sample.arrays(rows=rows)
    with numpy.errstate(invalid="ignore"):  # the mean of no elements is 0 / 0
        out, gradients = run(sample, tensors(sample, arrays, "float64", device))
    expected = formula(sample, arrays)
    assert out.shape == expected.shape
    numpy.testing.assert_allclose(to_numpy(out), expected, **TOLERANCE["float64"])
    for gradient, array, given in zip(gradients, arrays, sample.inputs):
        if given.gradient:
            assert gradient is not None and gradient.shape == array.shape
            if rows == 0 and out.array.size == 0:
                assert not to_numpy(gradient).any()  # the output does not depend on it


# ---- beyond the samples -----------------------------------------------------------------------------------------------


def test_0d_tensor_is_treated_as_shape_1(device: str) -> None:
    x = gpunet.tensor(2.0, requires_grad=True)
    found = [x.cumsum(0), x.softmax(-1), x.log_softmax(0), x.sort().values, x.topk(1).values, x.argsort(descending=True)]
    assert [t.shape for t in found] == [()] * len(found)
    assert [t.item() for t in found] == [2.0, 1.0, 0.0, 2.0, 2.0, 0]
    found[0].backward()
    assert x.grad is not None and x.grad.item() == 1.0


@pytest.mark.parametrize("index", [True, (True, 0), (1, True)])
def test_index_true_is_differentiable(index: Any, device: str) -> None:
    """NumPy copies for x[True], although True is an int."""
    x = gpunet.rand(2, 3, requires_grad=True)
    weight = gpunet.rand(*x[index].shape)
    (x[index] * weight).sum().backward()
    expected = numpy.zeros((2, 3), numpy.float32)
    expected[index] = to_numpy(weight)
    assert x.grad is not None and to_numpy(x.grad).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_descending_is_stable_for_every_dtype(dtype: str, device: str, torch: Any) -> None:
    """Includes values for which sorting -x would be wrong: unsigned 0, the smallest integer, NaN."""
    values = numpy.array([[0, 3, 1, 3, 0, 1], [1, 0, 0, 2, 2, 1]]).astype(dtype)
    if dtype == "float32":
        values[0, 2] = numpy.nan
    if dtype == "int64":
        values[0, 2] = numpy.iinfo("int64").min
    for dim in (0, 1):
        found = gpunet.tensor(values).sort(dim, descending=True)
        expected = torch.tensor(values).sort(dim=dim, descending=True, stable=True)
        assert to_numpy(found.indices).tolist() == expected.indices.tolist()
        numpy.testing.assert_array_equal(to_numpy(found.values), expected.values.numpy())


def test_numpy_scalar_is_treated_as_a_python_number(device: str) -> None:
    """Not as an array of its own dtype: NumPy would compute in float64 and then round."""
    x = gpunet.rand(1000)
    for number in (numpy.float64(0.1), numpy.float32(0.1), numpy.int64(3)):
        for op in (lambda a, b: a + b, lambda a, b: b - a, lambda a, b: a * b, lambda a, b: a.clone().mul_(b)):
            found, expected = op(x, number), op(x, number.item())
            assert to_numpy(found).tobytes() == to_numpy(expected).tobytes()
