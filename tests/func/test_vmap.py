"""vmap against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpunet
from gpunet import func, nn
from gpunet.errors import ArgumentError, CaptureError, DtypeError, GpunetError, InPlaceError, ShapeError
from tests.func.compare import Call, compare


def loss(p: Any, x: Any, y: Any) -> Any:
    return ((p["w"] @ x + p["b"]).tanh() - y).square().sum()


CALLS: dict[str, Call] = {
    "vmap": lambda t, func, draw: func.vmap(t.dot)(draw(4, 3), draw(4, 3)),
    "top_level": lambda t, func, draw: t.vmap(t.dot)(draw(4, 3), draw(4, 3)),
    "in_dims": lambda t, func, draw: [
        func.vmap(lambda x, y: x @ y, in_dims=dims)(draw(2, 2, 2), draw(2, 2, 2)) for dims in (0, 1, -1, (0, 2), (1, None))
    ],
    "nested_in_dims": lambda t, func, draw: func.vmap(
        lambda d, xs, scale: d["a"] * xs[0] + d["b"] * xs[1] * scale, in_dims=({"a": 1, "b": None}, [0, None], None)
    )({"a": draw(2, 3), "b": draw(2)}, [draw(3, 2), draw(2)], 2.0),
    "spread_in_dims": lambda t, func, draw: func.vmap(lambda d, x: d["a"] * d["b"][0] * x, in_dims=(1, 0))(
        {"a": draw(2, 3), "b": (draw(2, 3),)}, draw(3, 2)
    ),
    "out_dims": lambda t, func, draw: [
        func.vmap(lambda x: (x * 2, {"a": x[:, None], "b": x.sum()}), out_dims=dims)(draw(3, 2))
        for dims in (0, (1, 0), (-1, {"a": 2, "b": 0}))
    ],
    "out_dims_of_one": lambda t, func, draw: [func.vmap(lambda x: x * 2, out_dims=dims)(draw(3, 2)) for dims in (1, (1,))],
    "none_in_out_dims": lambda t, func, draw: func.vmap(lambda x: (2.0, x, t.ones(2)), out_dims=(None, 0, None))(draw(3, 2)),
    "no_result": lambda t, func, draw: func.vmap(lambda x: ())(draw(3)),
    "same_for_all": lambda t, func, draw: func.vmap(lambda x: t.ones(2))(draw(3)),
    "integers": lambda t, func, draw: func.vmap(lambda x: x.argmax())(draw(3, 4)),
    "keywords": lambda t, func, draw: func.vmap(lambda x, k: x * k)(draw(3, 2), k=draw(2)),
    "chunks": lambda t, func, draw: func.vmap(lambda x: x * 2, out_dims=1, chunk_size=2)(draw(3, 2)),
    "nested": lambda t, func, draw: func.vmap(func.vmap(lambda x, y: x * y, in_dims=(0, None)), in_dims=(None, 0))(
        draw(2), draw(3)
    ),
    "sample_gradients": lambda t, func, draw: func.vmap(func.grad(loss), in_dims=(None, 0, 0))(
        {"w": draw(2, 3), "b": draw(2)}, draw(5, 3), draw(5, 2)
    ),
    "gradient_of_vmap": lambda t, func, draw: func.grad(lambda p, x: func.vmap(lambda x: loss(p, x, x[:2]))(x).sum(), (0, 1))(
        {"w": draw(2, 3), "b": draw(2)}, draw(5, 3)
    ),
    "gradient_of_dims": lambda t, func, draw: func.grad(
        lambda x, y: func.vmap(lambda x, y: (x * y, x), in_dims=(1, 0), out_dims=(1, 0))(x, y)[0].square().sum(), (0, 1)
    )(draw(2, 3), draw(3, 2)),
    "second_gradient_of_vmap": lambda t, func, draw: func.hessian(lambda x: func.vmap(lambda x: (x**3).sum())(x).sum())(draw(2, 2)),
    "hessians": lambda t, func, draw: func.vmap(func.hessian(lambda x: (x**3).prod()))(draw(3, 2)),
    "jacobians": lambda t, func, draw: func.vmap(func.jacfwd(lambda x: x.sin() * x.sum()))(draw(3, 2)),
    "jvps": lambda t, func, draw: func.vmap(lambda x, v: func.jvp(lambda x: x.sin(), (x,), (v,))[1])(draw(3, 2), draw(3, 2)),
    "rows_of_a_jacobian": lambda t, func, draw: func.vmap(func.vjp(lambda x: x.sin() * x[0], draw(3))[1])(
        t.eye(3, dtype=t.float64)
    )[0],
    "ensemble": lambda t, func, draw: func.vmap(lambda w, b, x: t.nn.functional.linear(x, w, b), in_dims=(0, 0, None))(
        draw(4, 2, 3), draw(4, 2), draw(5, 3)
    ),
    "requires_grad": lambda t, func, draw: func.vmap(lambda x: (x * x).sum())(draw(3, 2, requires_grad=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_equals_pytorch(name: str, device: str, torch: Any) -> None:
    compare(torch, CALLS[name])


def test_gradients_of_the_batch(device: str, torch: Any) -> None:
    def call(t: Any, func: Any, draw: Any) -> Any:
        x, w = draw(3, 2, requires_grad=True), draw(2, requires_grad=True)
        func.vmap(lambda x: (x * x * w).sum())(x).sum().backward()
        return x.grad, w.grad

    compare(torch, call)


def test_values_may_decide(device: str) -> None:
    x = gpunet.tensor([1.0, -2.0, 3.0])
    assert func.vmap(lambda x: x if x > 0 else -x * 10)(x).tolist() == [1.0, 20.0, 3.0]


# ---- random numbers -----------------------------------------------------------------------------------------------------


def add_noise(x: Any) -> Any:
    return nn.functional.dropout(x + gpunet.rand(4), 0.5) + gpunet.randn(4)


def test_random_numbers_are_refused_at_first(device: str) -> None:
    x = gpunet.ones(3, 4)
    with pytest.raises(ArgumentError, match=r"vmap\(add_noise\): func draws random numbers, and randomness='error'; pass random"):
        func.vmap(add_noise)(x)
    assert func.vmap(lambda x: nn.functional.dropout(x, training=False))(x).tolist() == x.tolist()
    inner = func.vmap(func.vmap(add_noise, randomness="different"))
    with pytest.raises(ArgumentError, match="randomness='error'"):
        inner(gpunet.ones(2, 2, 4))


def test_random_numbers_of_each_sample(device: str) -> None:
    x = gpunet.zeros(3, 4)
    gpunet.manual_seed(1)
    expected = gpunet.stack([add_noise(row) for row in x])
    gpunet.manual_seed(1)
    found = func.vmap(add_noise, randomness="different")(x)
    assert (found == expected).all()
    assert (found[0] != found[1]).any()


def test_the_same_random_numbers(device: str) -> None:
    x, own = gpunet.zeros(3, 4), gpunet.Generator(5)

    def draw(x: Any) -> Any:
        return add_noise(x) + gpunet.rand(4, generator=own)

    gpunet.manual_seed(1)
    own.manual_seed(5)
    expected, after = draw(x[0]), (gpunet.rand(2), gpunet.rand(2, generator=own))
    gpunet.manual_seed(1)
    own.manual_seed(5)
    found = func.vmap(draw, randomness="same")(x)
    assert (found == expected).all()
    for a, b in zip(after, (gpunet.rand(2), gpunet.rand(2, generator=own))):  # what follows is as after one call
        assert (a == b).all()


def test_random_numbers_of_nested_batches(device: str) -> None:
    def draw(outer: str, inner: str) -> Any:
        return func.vmap(func.vmap(lambda x: x + gpunet.rand(()), randomness=inner), randomness=outer)(gpunet.zeros(2, 3))

    rows = draw("same", "different")
    assert (rows[0] == rows[1]).all()
    assert len({*rows[0].tolist()}) == 3
    columns = draw("different", "same")
    assert (columns[:, 0] == columns[:, 2]).all()
    assert len({*columns[:, 0].tolist()}) == 2
    assert len({*draw("same", "same").reshape(-1).tolist()}) == 1


# ---- changes in place ---------------------------------------------------------------------------------------------------


def test_samples_and_new_tensors_change_in_place(device: str) -> None:
    x = gpunet.arange(6.0).reshape(3, 2)
    assert func.vmap(lambda x: x.add_(1))(x).tolist() == x.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert func.vmap(lambda x: gpunet.zeros(2).add_(x).mul_(2))(x).tolist() == (x * 2).tolist()
    nested = func.vmap(func.vmap(lambda x: x.add_(1)))
    assert nested(x).tolist() == x.tolist() == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]


def test_changes_of_shared_tensors_are_refused(device: str) -> None:
    x, shared = gpunet.ones(3, 2), gpunet.zeros(2)
    message = r"vmap\(<lambda>\): func changes a tensor of shape \(2,\) in place that all samples share"
    changes: list[Callable[[], Any]] = [
        lambda: func.vmap(lambda x: shared.add_(x))(x),
        lambda: func.vmap(lambda x, y: y.add_(1) * x, in_dims=(0, None))(x, shared),
        lambda: func.vmap(lambda y: func.vmap(lambda x: y.add_(x))(x))(x.clone()),  # the inner samples share y
    ]
    for change in changes:
        with pytest.raises(InPlaceError, match=message):
            change()
    norm = nn.BatchNorm1d(2)
    with pytest.raises(InPlaceError, match=r"vmap\(BatchNorm1d\): func changes a tensor .* such as a running statistic"):
        func.vmap(norm)(gpunet.ones(3, 4, 2))
    func.replace_all_batch_norm_modules_(norm)
    assert func.vmap(norm)(gpunet.ones(3, 4, 2)).tolist() == gpunet.zeros(3, 4, 2).tolist()
    shared.add_(1)  # nothing watches any more
    shared.add_(1)


# ---- captured steps -----------------------------------------------------------------------------------------------------


def test_a_captured_step_records_all_calls(device: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def sample_loss(p: Any, x: Any, y: Any) -> Any:
        return (func.functional_call(net, p, (x,)) - y).square().sum()

    def step(x: Any, y: Any) -> Any:
        per_sample = func.vmap(func.grad(sample_loss), in_dims=(None, 0, 0))(parameters, x, y)
        return per_sample, func.hessian(lambda x: sample_loss(parameters, x, y[0]))(x[0])

    captured = gpunet.capture(step)
    for seed in range(3):
        gpunet.manual_seed(seed)
        x, y = gpunet.randn(5, 3), gpunet.randn(5, 1)
        (found, hessian), (expected, expected_hessian) = captured(x, y), step(x, y)
        for name, value in expected.items():
            assert gpunet.allclose(found[name], value, rtol=1e-5, atol=1e-6)
        assert gpunet.allclose(hessian, expected_hessian, rtol=1e-5, atol=1e-6)
    assert len(captured.recordings) == 1


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_random_numbers_in_a_captured_step(randomness: str, device: str) -> None:
    x = gpunet.zeros(3, 4)
    transformed = func.vmap(add_noise, randomness=randomness)
    captured = gpunet.capture(lambda x: transformed(x))
    gpunet.rand(1)  # the stream of the device exists
    gpunet.manual_seed(1)
    expected = [transformed(x) for _ in range(3)]
    gpunet.manual_seed(1)
    for value in expected:
        assert (captured(x) == value).all()
    assert len(captured.recordings) == 1


def test_results_that_are_compared_break_a_captured_step() -> None:
    captured = gpunet.capture(lambda x: func.vmap(lambda x: gpunet.ones(2), out_dims=None)(x))
    with pytest.raises(CaptureError, match=r"vmap\(\) with out_dims=None, which reads a tensor"):
        captured(gpunet.ones(3))


# ---- wrong calls --------------------------------------------------------------------------------------------------------

WRONG: list[tuple[Callable[[Any], Any], type[GpunetError], str]] = [
    (lambda x: func.vmap(3), DtypeError, r"vmap: func has type int; expected a function"),  # type: ignore[arg-type]
    (lambda x: func.vmap(abs, in_dims=[0])(x), ArgumentError, r"vmap\(abs\): in_dims=\[0\]; expected an integer, or a tuple"),
    (lambda x: func.vmap(abs, in_dims=True)(x), ArgumentError, r"vmap\(abs\): in_dims=True; expected an integer"),
    (lambda x: func.vmap(abs, in_dims=(None,))(x), ArgumentError, r"vmap\(abs\): in_dims=\(None,\) names no dimension of samples"),
    (lambda x: func.vmap(abs, in_dims=(0, 0))(x), ArgumentError, r"in_dims=\(0, 0\) does not have the structure .* \(\*,\)"),
    (lambda x: func.vmap(abs, in_dims=(0.5,))(x), ArgumentError, r"vmap\(abs\): in_dims has 0.5; expected integers and None"),
    (lambda x: func.vmap(abs, in_dims=2)(x), ArgumentError, r"in_dims has 2 for a tensor of shape \(3, 2\), without this dim"),
    (lambda x: func.vmap(abs)(), ArgumentError, r"vmap\(abs\): got no positional arguments; expected a batch"),
    (lambda x: func.vmap(pow)(x, 2), DtypeError, r"in_dims has 0 for an argument of type int, 2; expected a tensor there, or None"),
    (lambda x: func.vmap(pow)(x, x[:2]), ShapeError, r"vmap\(pow\): the batches have \[3, 2\] samples; expected the same number"),
    (lambda x: func.vmap(abs)(x[:0]), ShapeError, r"vmap\(abs\): the batch has no samples"),
    (lambda x: func.vmap(abs, randomness="no"), ArgumentError, r"vmap: randomness='no'; expected 'error', 'different' or 'same'"),
    (lambda x: func.vmap(abs, chunk_size=0), ArgumentError, r"vmap: chunk_size=0; expected None, or 1 or more"),
    (lambda x: func.vmap(abs, out_dims=2)(x), ArgumentError, r"out_dims has 2 for a result that has 2 dimensions with that of"),
    (lambda x: func.vmap(abs, out_dims=(0, 0))(x), ArgumentError, r"out_dims=\(0, 0\) does not have the structure of the result"),
    (lambda x: func.vmap(abs, out_dims=0.5)(x), ArgumentError, r"vmap\(abs\): out_dims=0.5; expected integers and None"),
    (lambda x: func.vmap(abs, out_dims=None)(x), ArgumentError, r"a result with out_dims=None differs between samples 0 and 1"),
    (lambda x: func.vmap(lambda x: 2.0)(x), DtypeError, r"func returned a float, 2.0; expected tensors, or None in out_dims"),
    (lambda x: func.vmap(lambda x: x[x > 1])(x), ShapeError, r"the result of sample 1 has shape \(2,\), that of sample 0 \(0,\)"),
    (
        lambda x: func.vmap(lambda x: (x,) if x[0] > 1 else [x])(x), ArgumentError,
        r"the result of sample 1 has the structure \(\*,\), that of sample 0 \[\*\]",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_calls(call: Callable[[Any], Any], error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.arange(6.0).reshape(3, 2))


def test_samples_that_require_grad_cannot_be_changed_in_place(device: str) -> None:
    x = gpunet.ones(2, 3, requires_grad=True) * 1
    with pytest.raises(InPlaceError, match=r"mul_ on a view, and a gradient is required"):
        func.vmap(lambda x: x.mul_(2))(x)
    assert func.vmap(lambda x: x.mul_(2))(x.detach()).sum().item() == 12.0
