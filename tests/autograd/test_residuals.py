"""What ops save for backward: every change in place of it is noticed, it is flat, and it is no more than is needed."""

from __future__ import annotations

import functools
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy
import pytest

import gpunet
import gpunet.nn.functional as F
from gpunet import Tensor
from gpunet.autograd import OPS, Node, fused, primitive
from gpunet.backend import devices
from gpunet.backend.devices import is_array
from gpunet.errors import ArgumentError, GradientError, InPlaceError
from tests.ops.test_ops import cotangent, nodes, tensors, to_numpy
from tests.samples import SAMPLES
from tests.samples.row import Sample

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def gradients(out: Tensor, inputs: list[Tensor], device: str, create_graph: bool) -> list[numpy.ndarray]:
    wanted = [x for x in inputs if x.requires_grad]
    weight = gpunet.tensor(cotangent(out.shape), device=device).to(out.dtype)
    return [to_numpy(g) for g in gpunet.grad(out, wanted, weight, create_graph=create_graph, allow_unused=False)]


def is_changeable(tensor: Tensor) -> bool:
    """Whether each element has memory of its own, unlike those of a result of broadcast_to, and there is one."""
    array = tensor.array
    is_read_only = not getattr(array.flags, "writeable", True)  # CuPy has no such arrays
    return array.size > 0 and not is_read_only and all(stride for stride, n in zip(array.strides, array.shape) if n > 1)


def change(target: Tensor, through_view: bool) -> None:
    """Change a tensor in place, or one element of it through a view."""
    target = target.detach()
    with gpunet.no_grad():
        part = target.reshape(-1)[:1] if through_view and target.array.flags.c_contiguous else target
        if part.is_floating_point():
            part.add_(3.0)
        elif part.array.dtype.kind == "b":
            part.copy_(~part)
        else:
            part.zero_()


@pytest.mark.parametrize("view", [False, True], ids=["itself", "through a view"])
@pytest.mark.parametrize("create_graph", [False, True], ids=["first", "create_graph"])
@every_sample
def test_change_in_place_is_noticed_or_harmless(sample: Sample, create_graph: bool, view: bool, device: str) -> None:
    """Each input, the output and each saved tensor, changed in place in turn after forward."""
    arrays = sample.arrays()

    def forward() -> tuple[Tensor, list[Tensor]]:
        inputs = tensors(sample, arrays, "float64", device)
        return sample.call(*inputs), inputs

    out, inputs = forward()
    expected = gradients(out, inputs, device, create_graph)
    for changed in [*range(len(arrays)), -1]:
        out, inputs = forward()
        target = out if changed == -1 else inputs[changed]
        if not is_changeable(target):
            continue
        change(target, view)
        try:
            found = gradients(out, inputs, device, create_graph)
        except InPlaceError:
            continue
        for a, b in zip(found, expected, strict=True):
            numpy.testing.assert_array_equal(a, b, err_msg=f"operand {changed} was changed, and the gradient with it")

    number = len([value for node in nodes(forward()[0]) for value in saved_values(node) if isinstance(value, Tensor)])
    for position in range(number):
        out, inputs = forward()
        saved = [value for node in nodes(out) for value in saved_values(node) if isinstance(value, Tensor)][position]
        if is_changeable(saved):
            before = devices.copy(saved.array)  # some samples share their index with other tests
            change(saved, view)
            with pytest.raises(InPlaceError, match=r"was (then )?changed in place"):
                gradients(out, inputs, device, create_graph)
            devices.assign(saved.array, before)


def saved_values(node: Node) -> Iterator[Any]:
    """Everything that a node saved, with the items of *args."""
    for value in node.saved.values() if isinstance(node.saved, dict) else node.saved:
        yield from value if isinstance(value, tuple) and node.op.kind == "primitive" else (value,)


def hidden_arrays(value: Any) -> Iterator[Any]:
    """The arrays and tensors inside of containers, objects and closures."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if item is not value and (isinstance(item, Tensor) or is_array(item)):
            yield item
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack += item
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, FunctionType):
            stack += [cell.cell_contents for cell in item.__closure__ or ()]
        elif not (isinstance(item, Tensor) or is_array(item)):
            stack += getattr(item, "__dict__", {}).values()


@every_sample
def test_what_is_saved_is_flat_and_declared(sample: Sample, device: str) -> None:
    """Nothing that a node keeps hides an array from the version check, be it saved or an option."""
    for node in nodes(sample.call(*tensors(sample, sample.arrays(), "float32", device))):
        for value in saved_values(node):
            assert node.op.kind == "primitive" or value is None or is_array(value), node
            assert not is_array(value) or node.op.kind == "fused", node
            assert not [*hidden_arrays(value)], node
        assert not [*hidden_arrays(node.options)], node


@pytest.mark.parametrize("memory", ["buffer", "file"])
def test_change_through_a_view_of_memory_of_another_object(memory: str, tmp_path: Path) -> None:
    """NumPy gives the views of such an array another base than the array has."""
    array: Any = numpy.ones(4, "float32")
    if memory == "buffer":
        array = numpy.frombuffer(bytearray(array.tobytes()), "float32")
    else:
        array = numpy.asarray(numpy.memmap(tmp_path / "array", "float32", "w+", shape=4))
    x = Tensor(array)
    w = gpunet.ones(4, requires_grad=True)
    y = (w * x).sum()
    x[1:].add_(1.0)
    with pytest.raises(InPlaceError, match="mul saved a tensor"):
        y.backward()


# ---- registration -------------------------------------------------------------------------------------------------------


def make_fused(name: str) -> Any:
    def function(x, *, need):
        return x, (x,)

    function.__name__ = name
    return fused(composed=lambda x: x)(function)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(OPS)
    yield
    for name in set(OPS) - set(before):
        del OPS[name]


class WithMethod:
    def backward(self, saved: Any, dy: Any, *, need: Any) -> Any:
        return (dy.array,)


@pytest.mark.parametrize("kind", ["closure", "partial", "bound method", "callable object"])
def test_backward_that_hides_its_arrays_is_refused(kind: str, registered: None) -> None:
    array = numpy.ones(3)
    hidden: dict[str, Any] = {
        "closure": lambda saved, dy, *, need: (dy.array * array,),
        "partial": functools.partial(lambda scale, saved, dy, *, need: (dy.array,), array),
        "bound method": WithMethod().backward,
        "callable object": WithMethod(),
    }
    op = make_fused("op_for_test")
    with pytest.raises(ArgumentError, match="closes over array|expected a plain function"):
        op.backward(hidden[kind])
    with pytest.raises(ArgumentError, match="closes over array|expected a plain function"):
        op.composed_backward(hidden[kind])


def test_derivatives_of_primitives_are_checked(registered: None) -> None:
    array = numpy.ones(3)

    @primitive
    def primitive_for_test(x, *, scale):
        return x.array

    with pytest.raises(ArgumentError, match="closes over array"):
        primitive_for_test.derivatives(x=lambda g: g * array)
    with pytest.raises(ArgumentError, match=r"'x' of primitive_for_test has parameters g, z; expected g, then any of"):
        primitive_for_test.derivatives(x=lambda g, z: g)
    with pytest.raises(ArgumentError, match=r"'y' of primitive_for_test"):
        primitive_for_test.derivatives(y=lambda g: g)


@pytest.mark.parametrize(
    "saved", [[numpy.ones(2)], ([numpy.ones(2)],), ({"x": numpy.ones(2)},), (lambda: 0,), numpy.ones(2)],
    ids=["list", "list in tuple", "dict in tuple", "function", "array"],
)  # fmt: skip
def test_saved_that_is_no_flat_tuple_is_refused(saved: Any, registered: None) -> None:
    @fused(composed=lambda x: x)
    def op_for_test(x, *, need):
        return x.copy(), saved

    with pytest.raises(GradientError, match=r"forward of op_for_test saved .*; expected a flat tuple of arrays"):
        op_for_test(gpunet.ones(2, requires_grad=True))


CUDA = "template <class T> __global__ void twice(T* y, const T* x, long long n) { y[0] = x[0]; }"


@pytest.mark.parametrize("hide", ["array", "list", "dictionary", "inner function", "partial", "bound method"])
def test_backward_of_cuda_op_with_hidden_arrays_is_refused(hide: str) -> None:
    array = gpunet.ones(3)
    inner, listed, table = (lambda: array), [[array]], {"x": (array,)}
    backwards: dict[str, Callable[..., Any]] = {
        "array": lambda dy: dy * array,
        "list": lambda dy: dy * listed[0][0],
        "dictionary": lambda dy: dy * table["x"][0],
        "inner function": lambda dy: dy * inner(),
        "partial": functools.partial(lambda a, dy: dy * a, array),
        "bound method": array.mul,
    }
    with pytest.raises(ArgumentError, match=r"backward of cuda_op 'twice'"):
        gpunet.cuda_op(CUDA, launch=lambda y: {"grid": 1, "block": 1, "n": 1}, backward=backwards[hide])


def test_backward_of_cuda_op_may_close_over_numbers_and_ops() -> None:
    factor, function = 2.0, F.relu
    op = gpunet.cuda_op(
        CUDA, launch=lambda y: {"grid": 1, "block": 1, "n": y.size}, twin=lambda x: x.copy(),
        backward=lambda dy: function(dy) * factor,
    )  # fmt: skip
    x = gpunet.ones(1, requires_grad=True)
    op(x).backward()
    assert x.grad.tolist() == [2.0]


# ---- memory -------------------------------------------------------------------------------------------------------------

COUNT = 100_000
WEIGHT = gpunet.ones(100, 100, requires_grad=True)
LIVE: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    # function, and how many arrays of COUNT float32 are alive after forward, its result among them
    "relu": (F.relu, 1),
    "sigmoid": (gpunet.sigmoid, 1),
    "gelu": (F.gelu, 2),
    "exp": (gpunet.exp, 1),
    "tanh of a product": (lambda x: gpunet.tanh(x * 2.0), 1),
    "square": (lambda x: x * x, 2),
    "sum": (lambda x: (x * 2.0).sum(), 0),
    "reshape": (lambda x: (x + 1.0).reshape(10, -1), 1),
    "linear and relu": (lambda x: F.linear(x.reshape(-1, 100), WEIGHT, None, activation="relu"), 2),
    "linear and gelu": (lambda x: F.linear(x.reshape(-1, 100), WEIGHT, None, activation="gelu"), 3),
}


@pytest.mark.parametrize("name", LIVE)
def test_live_bytes_after_forward(name: str) -> None:
    """The intermediate of ``x * 1.0``, the input of each function, is kept only if backward needs it."""
    function, expected = LIVE[name]
    x = gpunet.ones(COUNT, requires_grad=True)
    out = function(x * 1.0)  # warm up
    del out
    gc.collect()
    tracemalloc.start()
    try:
        out = function(x * 1.0)
        live = tracemalloc.get_traced_memory()[0] / (4 * COUNT)
    finally:
        tracemalloc.stop()
    assert round(live) == expected, f"{live:.2f} arrays are alive"
    assert out.requires_grad
