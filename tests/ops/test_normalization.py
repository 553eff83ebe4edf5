"""Layer, RMS, group, instance, batch and local response norm: values, gradients, statistics, fusion, captured steps, refusals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import devices
from gpunet.backend.dtypes import has_bfloat16
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GpunetError, GradientError, ShapeError, StateDictError
from gpunet.launch.tape import Tape, record
from gpunet.utils.checkpoint import checkpoint
from tests.captured.test_fuse import work
from tests.ops.test_ops import to_numpy

F = nn.functional
#: name -> (function of (module, *tensors), shapes of the tensors)
CALLS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {}


def call(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    CALLS[name] = function, shapes


for _x, _sizes in (((5, 7), (7,)), ((3, 4, 65), (65,)), ((2, 3, 4), (3, 4)), ((4, 1), (1,)), ((6,), (6,)), ((2, 1300), (1300,))):
    call(f"layer {_x}", lambda f, x, w, b, s=_sizes: f.layer_norm(x, s, w, b), _x, _sizes, _sizes)
    call(f"root mean square {_x}", lambda f, x, w, s=_sizes: f.rms_norm(x, s, w), _x, _sizes)
call("layer, weight alone", lambda f, x, w: f.layer_norm(x, (7,), w), (5, 7), (7,))
call("layer, no weights", lambda f, x: f.layer_norm(x, (7,), eps=0.1), (5, 7))
for _x, _groups in (((5, 6), 2), ((3, 6, 5), 3), ((2, 4, 3, 3), 1), ((2, 8, 2, 2, 2), 4), ((1, 4, 700), 2), ((3, 4, 1), 2)):
    call(f"group {_x}", lambda f, x, w, b, g=_groups: f.group_norm(x, g, w, b), _x, _x[1:2], _x[1:2])
for _x in ((3, 2, 5), (2, 3, 4, 4), (2, 2, 2, 3, 2)):
    call(f"instance {_x}", lambda f, x, w, b: f.instance_norm(x, None, None, w, b), _x, _x[1:2], _x[1:2])
for _x in ((5, 3), (300, 2), (2, 40), (4, 3, 5), (2, 3, 9, 16), (3, 2, 2, 3, 2), (1, 2, 30), (2, 34, 2)):
    call(f"batch {_x}", lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True), _x, _x[1:2], _x[1:2])
    call(f"batch, no weights {_x}", lambda f, x: f.batch_norm(x, None, None, training=True, eps=0.1), _x)
for _size, _x in ((1, (2, 3, 4)), (3, (2, 5, 2, 3)), (4, (2, 5, 4)), (9, (2, 4, 3))):
    call(f"local response {_size} {_x}", lambda f, x, s=_size: f.local_response_norm(x, s, 0.1, 0.7, 2.0), _x)
every_call = pytest.mark.parametrize("name", CALLS)


def normal(*shapes: tuple[int, ...]) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=shape) + 0.5 for shape in shapes]


def results(
    module: Any, function: Callable[..., Any], arrays: list[numpy.ndarray], dtype: Any, device: Any = None
) -> list[numpy.ndarray]:
    """Output, gradients, and gradients of the sum of their squares, of either library."""
    tensors = [module.tensor(a).to(dtype).to(device or "cpu").requires_grad_() for a in arrays]
    y = function(module.nn.functional, *tensors)
    weight = module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape))).to(dtype).to(device or "cpu")
    grad = module.grad if module is gpunet else module.autograd.grad
    first = grad((y * weight + y * y).sum(), tensors, create_graph=True)
    second = grad(sum((g * g).sum() for g in first), tensors)
    return [t.detach().cpu().to(module.float64).numpy() for t in (y, *first, *second)]


def assert_close(mine: numpy.ndarray, theirs: Any, digits: float) -> None:
    theirs = numpy.asarray(theirs)
    assert mine.shape == theirs.shape
    numpy.testing.assert_allclose(mine, theirs, rtol=digits, atol=digits * max(1.0, numpy.abs(theirs).max(initial=0.0)))


@every_call
def test_values_and_derivatives_are_those_of_torch(name: str, device: str, torch: Any) -> None:
    function, shapes = CALLS[name]
    arrays = normal(*shapes)
    theirs = results(torch, function, arrays, torch.float64)
    for mine, other in zip(results(gpunet, function, arrays, gpunet.float64, device), theirs):
        assert_close(mine, other, 1e-9)


@pytest.mark.parametrize("dtype, digits", [("float32", 5e-6), ("float16", 3e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize(
    "name", ["layer (3, 4, 65)", "root mean square (5, 7)", "group (3, 6, 5)", "batch (4, 3, 5)", "batch (300, 2)"]
)
def test_dtypes(name: str, dtype: str, digits: float, device: str) -> None:
    """The result has the dtype of the operands, and differs from that of float64 by its rounding."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("ml_dtypes is not installed")
    function, shapes = CALLS[name]
    kind = getattr(gpunet, dtype)
    arrays = [to_numpy(gpunet.tensor(a).to(kind).double()) for a in normal(*shapes)]
    direction = numpy.random.default_rng(1).normal(size=shapes[0]).astype("float16").astype("float64")
    direction = to_numpy(gpunet.tensor(direction).to(kind).double())

    def run(of: Any) -> list[Any]:
        tensors = [gpunet.tensor(a).to(of).to(device).requires_grad_() for a in arrays]
        y = function(F, *tensors)
        y.backward(gpunet.tensor(direction).to(of).to(device))
        return [y, *(t.grad for t in tensors)]

    for mine, exact in zip(run(kind), run(gpunet.float64)):
        assert mine.dtype == kind
        assert_close(to_numpy(mine.double()), to_numpy(exact), digits)


@pytest.mark.parametrize("parameters", ["float32", "float16"])
def test_a_half_beside_float32_parameters(parameters: str, device: str) -> None:
    """As autocast calls it: the result is a half, the gradient of a parameter has the parameter's dtype."""
    x, w, b = (gpunet.tensor(a, dtype=t, device=device) for a, t in zip(normal((6, 4), (4,), (4,)), ("float16", *[parameters] * 2)))
    for t in (x, w, b):
        t.requires_grad_()
    for y in (F.layer_norm(x, 4, w, b), F.batch_norm(x, None, None, w, b, True), F.group_norm(x, 2, w, b)):
        assert y.dtype == gpunet.float16
        gradients = gpunet.grad(y.sum(), [x, w, b])
        assert [g.dtype for g in gradients] == ["float16", parameters, parameters]


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e4])
def test_a_large_mean_leaves_the_variance_right(shift: float, device: str) -> None:
    """Where E[x^2] - E[x]^2 in float32 would lose all digits.

    The result is off by some roundings of numbers of the size of ``shift``, the variance by some of its root times the shift.
    """
    x = (numpy.random.default_rng(0).normal(size=(64, 96)) + shift).astype("float32")
    exact, digits = x.astype("float64"), 1e-7 * max(30.0, 5 * shift)
    mean, var = gpunet.zeros(96, device=device), gpunet.ones(96, device=device)
    y = F.batch_norm(gpunet.tensor(x, device=device), mean, var, training=True, momentum=1.0)
    assert_close(to_numpy(y), (exact - exact.mean(0)) / numpy.sqrt(exact.var(0) + 1e-5), digits)
    assert_close(to_numpy(var), exact.var(0, ddof=1), 1e-7 * max(30.0, shift / 2))
    y = F.layer_norm(gpunet.tensor(x, device=device), 96)
    assert_close(to_numpy(y), (exact - exact.mean(1)[:, None]) / numpy.sqrt(exact.var(1)[:, None] + 1e-5), digits)


# ---- running statistics -----------------------------------------------------------------------------------------------


def pair(torch: Any, name: str, *args: Any, device: str = "cpu", **options: Any) -> tuple[Any, Any]:
    """A layer of either library with the same state, in float64."""
    mine = getattr(nn, name)(*args, **options, dtype=gpunet.float64, device=device)
    other = getattr(torch.nn, name)(*args, **options, dtype=torch.float64)
    for parameter in other.parameters():
        parameter.data = torch.tensor(numpy.random.default_rng(3).normal(size=tuple(parameter.shape)))
    mine.load_state_dict({key: value.numpy() for key, value in other.state_dict().items()})
    return mine, other


LAYERS = (
    ("BatchNorm1d", (4,), {}, (6, 4)), ("BatchNorm1d", (4,), {"momentum": None}, (6, 4, 3)),
    ("BatchNorm2d", (3,), {}, (2, 3, 4, 5)),
    ("BatchNorm2d", (3,), {"affine": False, "momentum": 0.3}, (2, 3, 4, 5)), ("BatchNorm3d", (2,), {}, (2, 2, 3, 2, 2)),
    ("BatchNorm1d", (4,), {"track_running_stats": False}, (6, 4)), ("BatchNorm1d", (4,), {"bias": False}, (6, 4)),
    ("BatchNorm2d", (3,), {"momentum": None, "track_running_stats": False}, (2, 3, 4, 5)), ("InstanceNorm1d", (4,), {}, (6, 4, 3)),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4, 5)),
    ("InstanceNorm2d", (3,), {"affine": True}, (3, 4, 5)), ("InstanceNorm3d", (2,), {"momentum": 0.5}, (2, 2, 3, 2, 2)),
    ("InstanceNorm1d", (4,), {"track_running_stats": True, "momentum": 0.5}, (4, 3)), ("LayerNorm", ((4, 3),), {}, (6, 4, 3)),
    ("LayerNorm", (3,), {"bias": False}, (6, 4, 3)), ("LayerNorm", (3,), {"elementwise_affine": False}, (6, 4, 3)),
    ("RMSNorm", (3,), {}, (6, 4, 3)), ("RMSNorm", (3,), {"eps": 0.1, "elementwise_affine": False}, (6, 4, 3)),
    ("GroupNorm", (2, 4), {}, (6, 4, 3)), ("GroupNorm", (2, 4), {"affine": False}, (6, 4, 3)),
    ("GroupNorm", (4, 4), {"bias": False}, (6, 4, 3)),
)  # fmt: skip


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=str)
def test_layers_train_and_evaluate_as_those_of_torch(
    name: str, args: Any, options: Any, shape: Any, device: str, torch: Any
) -> None:
    mine, other = pair(torch, name, *args, device=device, **options)
    assert repr(mine) == repr(other)
    assert list(mine.state_dict()) == list(other.state_dict())
    for number, training in enumerate((True, True, True, False, True, False)):
        x = numpy.random.default_rng(number).normal(size=shape) * 2 + 1
        for layer in (mine, other):
            layer.train(training)
        a, b = gpunet.tensor(x, device=device).requires_grad_(), torch.tensor(x).requires_grad_()
        y, z = mine(a), other(b)
        assert_close(to_numpy(y), z.detach(), 1e-12)
        (y * y).sum().backward()
        (z * z).sum().backward()
        for p, q in ((a, b), *zip(mine.parameters(), other.parameters())):
            assert_close(to_numpy(p.grad), q.grad, 1e-9)
        for (key, value), theirs in zip(mine.state_dict().items(), other.state_dict().values()):
            assert value.dtype == str(theirs.dtype).removeprefix("torch."), key
            assert_close(to_numpy(value), theirs, 1e-12)


def test_training_twice_before_backward(device: str, torch: Any) -> None:
    """Of two batches in one loss, as of a discriminator; and evaluation before training moves the statistics."""
    mine, other = pair(torch, "BatchNorm1d", 3, device=device)
    for layer, m in ((mine, gpunet), (other, torch)):
        first, second = (m.tensor(a).to(m.float64).to(device if m is gpunet else "cpu") for a in normal((5, 3), (7, 3)))
        (layer(first) ** 2).sum().backward(retain_graph=True)
        loss = (layer(first) ** 3).sum() + (layer(second) ** 3).sum()
        loss.backward()
    assert_close(to_numpy(mine.weight.grad), other.weight.grad, 1e-12)

    layer, x = nn.BatchNorm1d(3, device=device).eval(), gpunet.rand(5, 3, device=device).requires_grad_()
    evaluated = layer(x)
    layer.train()(gpunet.rand(5, 3, device=device) * 9)
    evaluated.sum().backward()  # by the statistics of the evaluation: a mean of 0 and a variance of 1
    numpy.testing.assert_allclose(to_numpy(x.grad), 1.0, rtol=1e-4)


def test_recomputation_leaves_the_running_statistics(device: str) -> None:
    layers = nn.BatchNorm1d(3, device=device), nn.InstanceNorm1d(3, track_running_stats=True, device=device)
    for layer, x in zip(layers, (gpunet.rand(5, 3, device=device), gpunet.rand(5, 3, 4, device=device))):
        y = checkpoint(layer, x.requires_grad_())
        before = {key: to_numpy(value).copy() for key, value in layer.state_dict().items()}
        y.square().sum().backward()
        for key, value in layer.state_dict().items():
            assert to_numpy(value).tobytes() == before[key].tobytes(), key
        layer(x)
        assert to_numpy(layer.running_mean).tobytes() != before["running_mean"].tobytes()


@pytest.mark.parametrize("momentum", [-0.5, 0.0, 1.5])
def test_any_momentum_is_pytorchs(momentum: float, device: str, torch: Any) -> None:
    x, found = numpy.random.default_rng(0).normal(size=(6, 3)) + 2, []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        layer = library.nn.BatchNorm1d(3, momentum=momentum, dtype=library.float64, **place)
        for _ in range(2):
            layer(library.tensor(x, **place))
        found.append([layer.running_mean.tolist(), layer.running_var.tolist()])
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_batches_are_counted_without_running_statistics(device: str, torch: Any) -> None:
    for library in (gpunet, torch):
        layer = library.nn.BatchNorm1d(3)
        layer.running_mean = layer.running_var = None
        for _ in range(2):
            layer(library.ones(4, 3))
        assert layer.num_batches_tracked.item() == 2


def test_running_statistics_that_training_cannot_change(device: str) -> None:
    x, mean, var = gpunet.ones(4, 3, device=device), gpunet.zeros(3, device=device), gpunet.ones(3, device=device)
    with pytest.raises(DtypeError, match="running_mean has type list; expected a tensor"):
        F.batch_norm(x, [0.0] * 3, [1.0] * 3)
    with pytest.raises(GradientError, match="running_mean requires grad"):
        F.batch_norm(x, mean.requires_grad_(), var, training=True)
    other = "cpu" if device != "cpu" else "emulated"
    with pytest.raises(DeviceError, match=f"running_var is on {other}"):
        F.batch_norm(x, mean.detach(), var.to(other), training=True)
    if device == "cpu":
        arrays = numpy.zeros(3, "float32"), numpy.ones(3, "float32")
        F.instance_norm(gpunet.rand(4, 3, 5), *arrays)
        assert arrays[0].any()


def test_halves_keep_running_statistics(device: str) -> None:
    layer = nn.BatchNorm1d(3, device=device).half()
    x = gpunet.rand(8, 3, device=device).half()
    layer(x)
    assert layer.running_mean.dtype == gpunet.float16
    expected = 0.1 * to_numpy(x).astype("float64").mean(0)
    numpy.testing.assert_allclose(to_numpy(layer.running_mean), expected, rtol=2e-3)
    assert layer.eval()(x).dtype == gpunet.float16
    wide = gpunet.zeros(3, device=device), gpunet.ones(3, device=device)  # float32, as under autocast
    F.batch_norm(x, *wide, training=True)
    numpy.testing.assert_allclose(to_numpy(wide[0]), expected, rtol=1e-5)


# ---- modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, shape",
    [
        ("BatchNorm1d", (5, 3)), ("BatchNorm2d", (5, 3, 2, 2)), ("BatchNorm3d", (5, 3, 1, 2, 2)), ("InstanceNorm1d", (5, 3, 4)),
        ("InstanceNorm2d", (3, 2, 2)), ("InstanceNorm3d", (5, 3, 1, 2, 2)),
    ],
)  # fmt: skip
def test_lazy_layers_take_the_channels_from_the_first_input(kind: str, shape: tuple[int, ...], device: str) -> None:
    layer = getattr(nn, f"Lazy{kind}")(device=device)
    assert nn.parameter.is_lazy(layer.weight) and nn.parameter.is_lazy(layer.running_mean)
    x = gpunet.rand(*shape, device=device)
    y = layer(x)
    assert type(layer) is getattr(nn, kind) and layer.num_features == 3
    assert type(layer.running_mean) is gpunet.Tensor
    plain = getattr(nn, kind)(3, affine=True, track_running_stats=True, device=device)
    assert to_numpy(y).tobytes() == to_numpy(plain(x)).tobytes()
    for key, value in plain.state_dict().items():
        assert to_numpy(layer.state_dict()[key]).tobytes() == to_numpy(value).tobytes()
    loaded = getattr(nn, f"Lazy{kind}")(device=device)
    loaded.load_state_dict(plain.state_dict())
    assert to_numpy(loaded.eval()(x)).tobytes() == to_numpy(plain.eval()(x)).tobytes()


def test_a_state_without_the_number_of_batches_loads() -> None:
    layer = nn.BatchNorm1d(3)
    state = {key: value.clone() for key, value in layer.state_dict().items() if key != "num_batches_tracked"}
    layer(gpunet.rand(4, 3))
    assert layer.load_state_dict(state).missing_keys == []
    assert layer.num_batches_tracked.item() == 1
    del state["running_var"]
    with pytest.raises(StateDictError, match="missing keys: running_var"):
        layer.load_state_dict(state)


def test_copies_and_pickles() -> None:
    layer = nn.BatchNorm1d(3)
    layer(gpunet.rand(4, 3))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert to_numpy(other.running_mean).tobytes() == to_numpy(layer.running_mean).tobytes()
        other(gpunet.rand(4, 3))
        assert other.num_batches_tracked.item() == 2 and layer.num_batches_tracked.item() == 1


# ---- fusion and captured steps ----------------------------------------------------------------------------------------

NORMS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "batch": (lambda: nn.BatchNorm1d(5), (6, 5)), "all batches": (lambda: nn.BatchNorm1d(5, momentum=None), (6, 5)),
    "layer": (lambda: nn.LayerNorm(5), (6, 5)), "root": (lambda: nn.RMSNorm(5), (6, 5)),
    "group": (lambda: nn.GroupNorm(2, 4), (3, 4, 3)), "instance": (lambda: nn.InstanceNorm1d(4, affine=True), (3, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU, nn.Tanh], ids=lambda a: a.__name__)
@pytest.mark.parametrize("name", NORMS)
def test_sequential_fuses_the_activation(name: str, act: Any, device: str) -> None:
    make, shape = NORMS[name]
    norm, activation = make().to(device), act()
    x = gpunet.rand(*shape, device=device)

    def step(forward: Any) -> tuple[list[str], list[bytes]]:
        norm.zero_grad()
        given, tape = x.clone().requires_grad_(), Tape()
        with record(tape):
            y = forward(given)
            y.backward(gpunet.ones_like(y))
        names = [launch.kernel.name for launch in tape.launches]
        return names, [to_numpy(t).tobytes() for t in (y, given.grad, norm.weight.grad)]

    fused_names, fused = step(nn.Sequential(norm, activation))
    names, separate = step(lambda t: activation(norm(t)))
    assert fused == separate
    assert "activation_forward" in names and "activation_forward" not in fused_names


@pytest.mark.parametrize("name", NORMS)
def test_a_captured_step_is_the_eager_one(name: str, device: str) -> None:
    """With running statistics, of which each step moves those that the one before left; in launches that absorb the activation."""
    make, shape = NORMS[name]
    steps, models = [], []
    for is_captured in (False, True):
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(shape[-1], shape[-1]), make()).to(device)
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (F.relu(model(x)) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        models.append(model)
        steps.append(gpunet.capture(step, backend="numpy") if is_captured else step)
    for number in range(4):
        x = gpunet.tensor(numpy.random.default_rng(number).normal(size=shape).astype("float32"), device=device)
        losses = [step(x).item() for step in steps]
        assert losses[0] == losses[1]
    for mine, other in zip(models[0].state_dict().values(), models[1].state_dict().values()):
        assert to_numpy(mine).tobytes() == to_numpy(other).tobytes()
    if device == "emulated":
        assert "activation_forward" not in work(steps[1])


@pytest.mark.parametrize("name", NORMS)
def test_a_compiled_step_is_the_eager_one_up_to_rounding(name: str) -> None:
    pytest.importorskip("numba")
    make, shape = NORMS[name]
    models = [make().double() for _ in range(2)]
    x = gpunet.tensor(numpy.random.default_rng(0).normal(size=shape))

    def step(model: Any, given: Any) -> Any:
        model.zero_grad()
        loss = (F.gelu(model(given)) ** 3).sum()
        loss.backward()
        return loss

    captured = gpunet.capture(lambda given: step(models[1], given), backend="numba")
    for _ in range(3):
        numpy.testing.assert_allclose(captured(x).item(), step(models[0], x).item(), rtol=1e-12)
    for mine, other in zip(models[0].parameters(), models[1].parameters()):
        numpy.testing.assert_allclose(to_numpy(other.grad), to_numpy(mine.grad), rtol=1e-9, atol=1e-12)
    for mine, other in zip(models[0].buffers(), models[1].buffers()):
        numpy.testing.assert_allclose(to_numpy(other), to_numpy(mine), rtol=1e-12)


def test_a_captured_step_follows_the_mode() -> None:
    layer, x = nn.BatchNorm1d(3), gpunet.rand(5, 3) * 4
    step = gpunet.capture(lambda given: layer(given))
    trained = to_numpy(step(x))
    layer.eval()
    evaluated = to_numpy(step(x))
    assert numpy.abs(trained - evaluated).max() > 0.1
    assert to_numpy(layer(x)).tobytes() == evaluated.tobytes()
    assert layer.num_batches_tracked.item() == 1


# ---- refusals ---------------------------------------------------------------------------------------------------------

_ZEROS = gpunet.zeros


@pytest.mark.parametrize(
    "function, error, message",
    [
        (lambda: F.layer_norm(_ZEROS(2, 3), 4), ShapeError, r"the input has shape \(2, 3\), normalized_shape=\[4\]; expected"),
        (lambda: F.layer_norm(_ZEROS(3), (2, 3)), ShapeError, r"normalized_shape=\[2, 3\]; expected an input \(\*, 2, 3\)"),
        (lambda: F.layer_norm(_ZEROS(2, 3), ()), ArgumentError, r"normalized_shape=\(\); expected the sizes"),
        (lambda: F.layer_norm(_ZEROS(2, 3), 3, _ZEROS(2)), ShapeError, r"weight has shape \(2,\); expected \(3,\)"),
        (lambda: F.layer_norm(_ZEROS(2, 3), 3, _ZEROS(3).double()), DtypeError, "weight has dtype float64; expected .* float32"),
        (lambda: F.layer_norm(_ZEROS(2, 3).long(), 3), DtypeError, "the input has dtype int64; expected a floating dtype"),
        (lambda: F.layer_norm(_ZEROS(2, 3), 3, eps=-1.0), ArgumentError, "eps=-1; expected zero or a positive number"),
        (lambda: F.rms_norm(_ZEROS(2, 3), 2), ShapeError, "rms_norm: the input has shape"),
        (lambda: F.group_norm(_ZEROS(2, 3, 4), 2), ShapeError, "3 channels; expected a multiple of num_groups=2"),
        (lambda: F.group_norm(_ZEROS(2, 3), 0), ArgumentError, "num_groups=0; expected 1 or more"),
        (lambda: F.group_norm(_ZEROS(3), 1), ShapeError, r"the input has shape \(3,\); expected \(batch, channels"),
        (lambda: F.group_norm(_ZEROS(1, 4), 4), ShapeError, "one value in each of num_groups=4"),
        (lambda: F.batch_norm(_ZEROS(1, 3), None, None, training=True), ShapeError, "one value for each channel; expected more"),
        (lambda: F.batch_norm(_ZEROS(3), None, None, training=True), ShapeError, r"expected \(batch, channels, ...\)"),
        (lambda: F.batch_norm(_ZEROS(2, 3), None, None), ArgumentError, "training=False without running_mean and running_var"),
        (lambda: F.batch_norm(_ZEROS(2, 3), _ZEROS(3), None), ArgumentError, "got running_mean, but running_var is None"),
        (lambda: F.batch_norm(_ZEROS(2, 3), _ZEROS(2), _ZEROS(3)), ShapeError, r"running_mean has shape \(2,\); expected \(3,\)"),
        (lambda: F.batch_norm(_ZEROS(2, 3), _ZEROS(3).double(), _ZEROS(3)), DtypeError, "running_mean has dtype float64"),
        (lambda: F.instance_norm(_ZEROS(2, 3)), ShapeError, "expected .* 3 dimensions or more"),
        (lambda: F.instance_norm(_ZEROS(2, 3, 1)), ShapeError, "one value for each channel of an image"),
        (lambda: F.instance_norm(_ZEROS(2, 3, 2), running_var=_ZEROS(3)), ArgumentError, "running_var alone; expected both"),
        (lambda: F.instance_norm(_ZEROS(2, 3, 2), use_input_stats=False), ArgumentError, "use_input_stats=False without running"),
        (lambda: F.local_response_norm(_ZEROS(2, 3), 2), ShapeError, "3 dimensions or more"),
        (lambda: F.local_response_norm(_ZEROS(2, 3, 4), 0), ArgumentError, "size=0; expected 1 or more"),
        (lambda: nn.BatchNorm1d(3)(_ZEROS(2, 4)), ShapeError, r"BatchNorm1d: the input \(2, 4\) has 4 channels; .*num_features=3"),
        (lambda: nn.BatchNorm1d(3)(_ZEROS(2, 3, 1, 1)), ShapeError, "BatchNorm1d: .* expected 2 or 3 dimensions"),
        (lambda: nn.BatchNorm2d(3)(_ZEROS(2, 3)), ShapeError, "BatchNorm2d: .* expected 4 dimensions"),
        (lambda: nn.InstanceNorm2d(3, affine=True)(_ZEROS(2, 4, 2, 2)), ShapeError, "has 4 channels; expected num_features=3"),
        (lambda: nn.BatchNorm1d(-1), ArgumentError, "num_features=-1; expected an integer, 0 or more"),
        (lambda: nn.GroupNorm(2, 3), ArgumentError, "num_channels=3; expected a positive multiple of num_groups=2"),
        (lambda: nn.LayerNorm([]), ArgumentError, r"LayerNorm: normalized_shape=\[\]"),
        (lambda: nn.parameter.UninitializedBuffer(persistent=False), ArgumentError, "pass persistent to register_buffer"),
    ],
)  # fmt: skip
def test_refusals(function: Callable[[], Any], error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=message):
        function()


def test_instance_norm_of_other_channels_without_weights_warns() -> None:
    with pytest.warns(UserWarning, match="has 4 channels; expected num_features=3, which has no effect") as caught:
        nn.InstanceNorm1d(3)(_ZEROS(2, 4, 5))
    assert caught[0].filename == __file__


def test_no_images(device: str, torch: Any) -> None:
    mine, other = nn.BatchNorm1d(3, device=device), torch.nn.BatchNorm1d(3)
    x = gpunet.zeros(0, 3, device=device).requires_grad_()
    y = mine(x)
    assert y.shape == tuple(other(torch.zeros(0, 3)).shape)
    y.sum().backward()
    assert x.grad.shape == (0, 3) and mine.weight.grad.tolist() == [0.0] * 3
    numpy.testing.assert_array_equal(to_numpy(mine.running_mean), other.running_mean.numpy())
    assert mine.num_batches_tracked.item() == other.num_batches_tracked.item()
    layer = nn.LayerNorm(3, device=device)
    layer(gpunet.zeros(0, 3, device=device)).sum().backward()
    assert layer.weight.grad.tolist() == [0.0] * 3
    assert devices.of(layer.weight.grad.array) == devices.Device(device)
