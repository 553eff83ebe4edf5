"""RNN, LSTM, GRU and their cells beside PyTorch's: values, derivatives, packed sequences, training, captured steps, refusals."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend.dtypes import has_bfloat16
from gpunet.errors import ArgumentError, CaptureError, DtypeError, GpunetError, ShapeError
from gpunet.launch.tape import Tape, record
from gpunet.ops import recurrence as recurrence_ops

STEPS, N, FEATURES, UNITS = 5, 3, 4, 6
X = numpy.random.default_rng(0).normal(size=(STEPS, N, FEATURES))
KINDS = ("RNN", "LSTM", "GRU")
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"bias": False}, {"num_layers": 3}, {"bidirectional": True}, {"batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
)  # fmt: skip
LENGTHS = (None, [5, 3, 1], [2, 5, 4], [3, 3, 3])


def pair(torch: Any, name: str, *arguments: Any, device: str = "cpu", dtype: str = "float64", **options: Any) -> tuple[Any, Any]:
    """Our module and PyTorch's, with the same parameters."""
    theirs = getattr(torch.nn, name)(*arguments, **options, dtype=torch.float64)
    mine = getattr(nn, name)(*arguments, **options, device=device, dtype=dtype)
    mine.load_state_dict({key: gpunet.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
    return mine, theirs


def states_of(module: Any, shape: tuple[int, ...] = (N,)) -> list[numpy.ndarray]:
    """First states for a layer of several sequences, or of one without a batch."""
    count, generator = module.num_layers * (2 if module.bidirectional else 1), numpy.random.default_rng(1)
    widths = [module.proj_size or module.hidden_size] + [module.hidden_size] * (module.mode == "LSTM")
    return [generator.normal(size=(count, *shape, width)) for width in widths]


def run(
    library: Any, module: Any, x: numpy.ndarray, states: list[numpy.ndarray] | None, lengths: list[int] | None = None,
    device: str = "cpu", second: bool = False,
) -> list[numpy.ndarray]:  # fmt: skip
    """Outputs, gradients and, if ``second``, gradients of the sum of their squares."""
    dtype = next(module.parameters()).dtype
    inputs = [library.tensor(a).to(device).to(dtype).requires_grad_() for a in [x, *(states or [])]]
    data, hx = inputs[0], None if states is None else inputs[1] if len(states) == 1 else tuple(inputs[1:])
    if lengths is not None:
        data = library.nn.utils.rnn.pack_padded_sequence(data, lengths, module.batch_first, enforce_sorted=False)
    y, last = module(data, hx) if hx is not None else module(data)
    if lengths is not None:
        y, found = library.nn.utils.rnn.pad_packed_sequence(y, module.batch_first)
        assert found.tolist() == lengths
    outputs = [y, *(last if isinstance(last, tuple) else [last])]
    wanted = [*inputs, *module.parameters()]
    grad = library.grad if library is gpunet else library.autograd.grad
    total = sum(((k + 1.0) * output**3).sum() for k, output in enumerate(outputs))
    first = grad(total, wanted, create_graph=second)
    results = [*outputs, *first]
    if second:
        results += grad(sum((g * g).sum() for g in first), wanted)
    return [r.detach().cpu().to(library.float64).numpy() for r in results]


def assert_close(mine: list[numpy.ndarray], theirs: list[numpy.ndarray], tolerance: float) -> None:
    assert [a.shape for a in mine] == [b.shape for b in theirs]
    for a, b in zip(mine, theirs, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(numpy.abs(b).max(initial=0))))


# ---- values and derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_layers_are_those_of_torch(name: str, options: dict[str, Any], lengths: Any, device: str, torch: Any) -> None:
    mine, theirs = pair(torch, name, FEATURES, UNITS, device=device, **options)
    x = X.swapaxes(0, 1) if mine.batch_first else X
    for states in (None, states_of(theirs)):
        assert_close(
            run(gpunet, mine, x, states, lengths, device), run(torch, theirs, x, states, lengths), 1e-12
        )  # the sums have a few dozen terms of size 1 in float64


@pytest.mark.parametrize("lengths", (None, [2, 5, 4]), ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {"bidirectional": True, "num_layers": 2}) for name in KINDS), ("RNN", {"nonlinearity": "relu"})],
)
def test_second_derivatives_are_those_of_torch(name: str, options: dict[str, Any], lengths: Any, torch: Any) -> None:
    mine, theirs = pair(torch, name, FEATURES, UNITS, **options)
    states = states_of(theirs)
    assert_close(run(gpunet, mine, X, states, lengths, second=True), run(torch, theirs, X, states, lengths, second=True), 1e-9)


@pytest.mark.parametrize("lengths", (None, [2, 5, 4]), ids=str)
def test_projection_is_that_of_torch(lengths: Any, device: str, torch: Any) -> None:
    mine, theirs = pair(torch, "LSTM", FEATURES, UNITS, 2, bidirectional=True, proj_size=2, device=device)
    states = states_of(theirs)
    assert_close(run(gpunet, mine, X, states, lengths, device), run(torch, theirs, X, states, lengths), 1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_without_a_batch(name: str, batch_first: bool, device: str, torch: Any) -> None:
    mine, theirs = pair(torch, name, FEATURES, UNITS, bidirectional=True, batch_first=batch_first, device=device)
    states = states_of(theirs, ())
    assert_close(run(gpunet, mine, X[:, 0], states, None, device), run(torch, theirs, X[:, 0], states), 1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_no_sequences(name: str, device: str) -> None:
    layer = getattr(nn, name)(FEATURES, UNITS, device=device)
    y, _ = layer(gpunet.zeros(STEPS, 0, FEATURES, device=device))
    assert y.shape == (STEPS, 0, UNITS)
    y.sum().backward()
    assert all(p.grad.abs().sum().item() == 0.0 for p in layer.parameters())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 4e-3), ("bfloat16", 3e-2)])
def test_dtypes(name: str, dtype: str, tolerance: float, device: str, torch: Any) -> None:
    """Halves round x, the parameters and the states of all steps: some units in the last place, 2^-11 and 2^-8."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("needs ml_dtypes")
    mine, theirs = pair(torch, name, FEATURES, UNITS, device=device, dtype=dtype)
    x = numpy.round(X * 16) / 16
    found, expected = run(gpunet, mine, x, None, None, device), run(torch, theirs, x, None)
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("name", [*KINDS, *(f"{kind}Cell" for kind in KINDS)])
@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_autocast(name: str, given: str, device: str, torch: Any) -> None:
    """Halves between float32 parameters: as PyTorch's layers in bfloat16 on the CPU, to some units in the last place, 2^-8.

    PyTorch's GRU and cells add products in bfloat16 to states in float32 on the CPU, and have halves on GPUs alone.
    """
    if not has_bfloat16():
        pytest.skip("needs ml_dtypes")
    mine, theirs = pair(torch, name, FEATURES, UNITS, device=device, dtype="float32")
    theirs.float()
    x, h = X.astype("float32") if "Cell" not in name else X[0].astype("float32"), numpy.full((N, UNITS), 0.5, "float32")
    h = h if "Cell" in name else h[None]
    found = []
    for library, module, where in ((gpunet, mine, device), (torch, theirs, "cpu")):
        inputs, state = (library.tensor(a).to(where) for a in (x, h))
        inputs = inputs.to(getattr(library, given)).requires_grad_()
        with library.autocast(where, dtype=library.bfloat16):
            results = module(inputs, (state, state) if "LSTM" in name else state)
        flat = [y for r in (results if isinstance(results, tuple) else (results,)) for y in (r if isinstance(r, tuple) else (r,))]
        assert library is torch or {str(y.dtype) for y in flat} == {"bfloat16"}
        sum((y.float() ** 2).sum() for y in flat).backward()
        gradients = [p.grad for p in module.parameters()]
        assert {g.dtype for g in gradients} == {library.float32} and inputs.grad.dtype == inputs.dtype
        found.append([y.detach().cpu().float().numpy() for y in (*flat, *gradients, inputs.grad)])
    assert_close(*found, 3e-2)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_dtypes_that_autocast_does_not_cast(dtype: str) -> None:
    with gpunet.autocast("cpu"), pytest.raises(DtypeError, match=f"LSTM: the input has dtype {dtype}; expected that of the we"):
        nn.LSTM(FEATURES, UNITS)(gpunet.tensor(X).to(dtype))


@pytest.mark.parametrize(
    ("name", "options"),
    [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu", "bias": False}), ("LSTMCell", {}), ("LSTMCell", {"bias": False}),
     ("GRUCell", {}), ("GRUCell", {"bias": False})],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(N,), ()])
def test_cells_are_those_of_torch(name: str, options: dict[str, Any], shape: tuple[int, ...], device: str, torch: Any) -> None:
    mine, theirs = pair(torch, name, FEATURES, UNITS, device=device, **options)
    assert repr(mine) == repr(theirs)
    x = numpy.random.default_rng(2).normal(size=(*shape, FEATURES))
    states = [numpy.random.default_rng(3 + k).normal(size=(*shape, UNITS)) for k in range(1 + (name == "LSTMCell"))]
    for given in (states, None):
        results = []
        for library, module in ((gpunet, mine), (torch, theirs)):
            inputs = [library.tensor(a).to(device if library is gpunet else "cpu").requires_grad_() for a in [x, *(given or [])]]
            hx = None if given is None else inputs[1] if len(inputs) == 2 else tuple(inputs[1:])
            out = module(inputs[0]) if hx is None else module(inputs[0], hx)
            out = out if isinstance(out, tuple) else (out,)
            module.zero_grad()
            sum(((k + 1.0) * o**3).sum() for k, o in enumerate(out)).backward()
            gradients = [t.grad for t in (*inputs, *module.parameters())]
            results.append([t.detach().cpu().numpy() for t in (*out, *gradients)])
        assert_close(*results, 1e-12)


# ---- modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*OPTIONS, {"num_layers": 2, "dropout": 0.5}], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_module_is_that_of_torch(name: str, options: dict[str, Any], torch: Any) -> None:
    mine, theirs = getattr(nn, name)(FEATURES, UNITS, **options), getattr(torch.nn, name)(FEATURES, UNITS, **options)
    assert repr(mine) == repr(theirs)
    shapes = [[(key, tuple(value.shape)) for key, value in module.state_dict().items()] for module in (mine, theirs)]
    assert shapes[0] == shapes[1]
    shapes = [[[tuple(w.shape) for w in weights] for weights in module.all_weights] for module in (mine, theirs)]
    assert shapes[0] == shapes[1]
    mine.flatten_parameters()
    again = copy.deepcopy(mine)
    x = gpunet.tensor(X).float()
    assert not again.dropout or not numpy.array_equal(again(x)[0].tolist(), mine(x)[0].tolist())
    assert again.eval()(x)[0].tolist() == mine.eval()(x)[0].tolist()


def test_initial_values_have_the_range_of_torch() -> None:
    bound = 1 / UNITS**0.5
    for module in (nn.LSTM(FEATURES, UNITS, 2, proj_size=2), nn.GRUCell(40, UNITS)):
        values = numpy.concatenate([p.detach().numpy().reshape(-1) for p in module.parameters()])
        assert numpy.abs(values).max() <= bound and values.max() > 0.9 * bound and values.min() < -0.9 * bound


def test_dropout_is_between_the_layers() -> None:
    """With p=1, the second layer sees zeros, in training only."""
    layer = nn.GRU(FEATURES, UNITS, 2, dropout=1.0)
    x, y = gpunet.rand(STEPS, N, FEATURES), gpunet.rand(STEPS, N, FEATURES)
    assert layer(x)[0].tolist() == layer(y)[0].tolist()
    assert layer.eval()(x)[0].tolist() != layer(y)[0].tolist()
    with pytest.warns(UserWarning, match="LSTM: dropout=0.5 has no effect with num_layers=1") as caught:
        nn.LSTM(2, 3, dropout=0.5)
    assert caught[0].filename == __file__


def test_parameters_may_be_parametrized(torch: Any) -> None:
    """weight_norm of a weight, and a parameter that a user replaces."""
    mine, theirs = pair(torch, "LSTM", FEATURES, UNITS)
    nn.utils.weight_norm(mine, "weight_hh_l0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(theirs, "weight_hh_l0")
    assert_close(run(gpunet, mine, X, None), run(torch, theirs, X, None), 1e-12)
    layer = nn.RNN(FEATURES, UNITS, bias=False)
    layer.weight_ih_l0 = nn.Parameter(gpunet.zeros(UNITS, FEATURES))
    assert layer(gpunet.tensor(X).float())[0].abs().sum().item() == 0.0


# ---- launches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_all_steps_are_one_launch(name: str, device: str) -> None:
    """Forward and backward take as many launches for 2 steps as for 50, and save gates, inner states, the output and a weight."""
    layer, found = getattr(nn, name)(FEATURES, UNITS, device=device), []
    for steps in (2, 50):
        layer.zero_grad()
        x, tape = gpunet.rand(steps, N, FEATURES, device=device), Tape()
        with record(tape):
            y, _ = layer(x)
            node = next(e[0] for e in _edges(y) if getattr(e[0], "name", "") == "recurrence")
            saved = {a.shape for a in node.saved if a is not None}
            y.sum().backward()
        rows, gates = steps * N, {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
        assert saved <= {(rows, FEATURES), (rows, gates * UNITS), (rows, UNITS), (gates * UNITS, UNITS), (steps + 1,)}
        names = [launch.kernel.name for launch in tape.launches]
        assert names.count("recurrence_forward") == names.count("recurrence_backward") == 1
        found.append(names)
    assert found[0] == found[1]


def _edges(tensor: Any) -> list[Any]:
    """The edges of the graph behind a tensor."""
    found, stack = [], [(tensor.grad_fn, 0)]
    while stack:
        edge = stack.pop()
        if edge[0] is not None:
            found.append(edge)
            stack += getattr(edge[0], "next_functions", ())
    return found


def test_states_that_a_gpu_cannot_hold_are_composed(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    mine, theirs = pair(torch, "GRU", FEATURES, UNITS, device="emulated")
    monkeypatch.setattr(recurrence_ops, "_SHARED_BYTES", 100)
    tape = Tape()
    with record(tape):
        mine(gpunet.tensor(X, device="emulated"))
    assert "recurrence_forward" not in [launch.kernel.name for launch in tape.launches]
    assert_close(run(gpunet, mine, X, None, [2, 5, 4], "emulated"), run(torch, theirs, X, None, [2, 5, 4]), 1e-12)


# ---- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eager", "numpy", "numba"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-4)])
@pytest.mark.parametrize("name", KINDS)
def test_networks_train_as_those_of_torch(name: str, dtype: str, tolerance: float, mode: str, torch: Any) -> None:
    """Ten steps of two bidirectional layers and a head with Adam, from the same parameters: losses and gradients."""
    if mode == "numba":
        pytest.importorskip("numba")
    random = numpy.random.default_rng(0)
    batches = [(random.normal(size=(8, 7, FEATURES)), random.integers(0, 5, 8)) for _ in range(10)]
    layers = pair(torch, name, FEATURES, UNITS, 2, bidirectional=True, batch_first=True)
    heads = pair(torch, "Linear", 2 * UNITS, 5)
    results = []
    for library, layer, head in zip((gpunet, torch), layers, heads):
        kind = getattr(library, dtype)
        layer.to(kind)
        head.to(kind)
        parameters = [*layer.parameters(), *head.parameters()]
        optimizer = library.optim.Adam(parameters, lr=0.01)

        def step(x: Any, labels: Any, *, layer=layer, head=head, library=library, optimizer=optimizer) -> Any:
            optimizer.zero_grad()
            output, _ = layer(x)
            loss = library.nn.functional.cross_entropy(head(output[:, -1]), labels)
            loss.backward()
            optimizer.step()
            return loss

        if library is gpunet and mode != "eager":
            step = gpunet.capture(step, backend=mode)
        found = []
        for x, labels in batches:
            loss = step(library.tensor(x).to(kind), library.tensor(labels))
            found.append([loss.item(), *(p.grad.numpy().copy() for p in parameters)])
        results.append(found)
    for mine, theirs in zip(*results):
        assert_close([numpy.asarray(a) for a in mine], [numpy.asarray(b) for b in theirs], tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_captured_steps_take_packed_sequences(name: str, backend: str, device: str) -> None:
    """Packed inside of the step, and packed outside of it, with first states; the bits of eager or, compiled, its values."""
    layer = getattr(nn, name)(FEATURES, UNITS, 2, bidirectional=True, device=device, dtype="float64")
    pack = nn.utils.rnn.pack_padded_sequence
    states = [gpunet.tensor(s, device=device) for s in states_of(layer)]
    hx = states[0] if len(states) == 1 else tuple(states)

    def step(x: Any, lengths: Any) -> Any:
        layer.zero_grad()
        packed, _ = layer(pack(x, lengths, enforce_sorted=False), hx)
        padded, _ = nn.utils.rnn.pad_packed_sequence(packed)
        (padded**2).sum().backward()
        return padded

    captured = gpunet.capture(step, backend=backend)
    for seed, lengths in enumerate([(2, 5, 4), (2, 5, 4), (5, 1, 1), (2, 5, 4)]):
        x = gpunet.tensor(numpy.random.default_rng(seed).normal(size=X.shape), device=device)
        expected = [step(x, lengths), *(p.grad.clone() for p in layer.parameters())]
        found = [captured(x, lengths), *(p.grad.clone() for p in layer.parameters())]
        for a, b in zip(found, expected):
            numpy.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=1e-11, atol=1e-12)
    assert len(captured.recordings) == 2


def test_batch_sizes_of_a_packed_argument_are_not_a_constant() -> None:
    layer, pack = nn.GRU(FEATURES, UNITS), nn.utils.rnn.pack_padded_sequence
    x = gpunet.tensor(X).float()
    outer = pack(x, [5, 3, 1])
    closed_over = gpunet.capture(lambda: layer(outer)[0].data)
    assert closed_over().tolist() == layer(outer)[0].data.tolist()
    outer.batch_sizes.array[-2:] = outer.batch_sizes.array[-2:].copy()  # the same values: no new recording
    assert closed_over().tolist() == layer(outer)[0].data.tolist()
    for function in (lambda p: layer(p)[0].data, lambda p: nn.utils.rnn.pad_packed_sequence(p)[0]):
        with pytest.raises(CaptureError, match="of a PackedSequence, which reads a tensor's value, cannot be captured"):
            gpunet.capture(function)(outer)


# ---- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.LSTM(0, 3), ArgumentError, "LSTM: input_size=0; expected 1 or more"),
        (lambda: nn.GRU(2, -1), ArgumentError, "GRU: hidden_size=-1; expected 1 or more"),
        (lambda: nn.GRU(2, 2.5), DtypeError, "GRU: hidden_size=2.5 has type float; expected an integer"),
        (lambda: nn.RNN(2, 3, 0), ArgumentError, "RNN: num_layers=0; expected 1 or more"),
        (lambda: nn.RNN(2, 3, nonlinearity="gelu"), ArgumentError, "RNN: nonlinearity='gelu'; expected 'tanh' or 'relu'"),
        (lambda: nn.RNN(2, 3, 2, dropout=1.5), ArgumentError, "RNN: dropout=1.5; expected a probability from 0 to 1"),
        (lambda: nn.LSTM(2, 3, 1, 1), DtypeError, "LSTM: bias=1 has type int; expected True or False"),
        (lambda: nn.LSTM(2, 3, proj_size=3), ArgumentError, "LSTM: proj_size=3 with hidden_size=3; expected 0, or"),
        (lambda: nn.RNNBase("GRU", 2, 3, proj_size=1), ArgumentError, "RNNBase: proj_size=1 with hidden_size=3"),
        (lambda: nn.RNNBase("lstm", 2, 3), ArgumentError, "RNNBase: mode='lstm'; expected 'LSTM', 'GRU', 'RNN_TANH' or 'RNN_RELU'"),
        (lambda: nn.GRU(2, 3, dtype=gpunet.int64), DtypeError, "parameters of dtype int64; expected a floating dtype"),
        (lambda: nn.RNNCell(2, 3, nonlinearity="silu"), ArgumentError, "RNNCell: nonlinearity='silu'; expected 'tanh'"),
        (lambda: nn.LSTMCell(2, 0), ArgumentError, "LSTMCell: hidden_size=0; expected 1 or more"),
        (lambda: nn.LSTMCell(2, 3, None), DtypeError, "LSTMCell: bias=None; expected True or False"),
    ],
)  # fmt: skip
def test_refusals_of_constructors(make: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


LSTM, GRU = nn.LSTM(4, 6), nn.GRU(4, 6, 2, batch_first=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: LSTM(x[..., :3]), ShapeError, "LSTM: the input has shape (5, 3, 3); expected input_size=4 last"),
        (lambda x: LSTM(x[0, 0]), ShapeError, "LSTM: the input has shape (4,); expected (steps, n, input_size), or (steps, in"),
        (lambda x: LSTM(x[:0]), ShapeError, "LSTM: the input has shape (0, 3, 4); expected (steps, n, input_size)"),
        (lambda x: GRU(x[:, :0]), ShapeError, "GRU: the input has shape (5, 0, 4); expected (n, steps, input_size)"),
        (lambda x: LSTM(x.double()), DtypeError, "LSTM: the input has dtype float64; expected that of the weights: use .to(float"),
        (lambda x: LSTM(x, x), ArgumentError, "LSTM: hx has type Tensor; expected a pair of tensors (h_0, c_0)"),
        (lambda x: LSTM(x, (gpunet.zeros(1, 3, 6), gpunet.zeros(1, 2, 6))), ShapeError,
         "LSTM: c_0 has shape (1, 2, 6); expected (1, 3, 6): (num_layers * directions, n, features)"),
        (lambda x: GRU(x, gpunet.zeros(1, 5, 6)), ShapeError, "GRU: h_0 has shape (1, 5, 6); expected (2, 5, 6)"),
        (lambda x: GRU(x, (gpunet.zeros(2, 5, 6),) * 2), DtypeError, "GRU: h_0 has type tuple; expected a tensor"),
        (lambda x: GRU(x, gpunet.zeros(2, 5, 6).double()), DtypeError, "GRU: h_0 has dtype float64; expected that of the weights"),
        (lambda x: GRU(x[0], gpunet.zeros(2, 1, 6)), ShapeError,
         "GRU: h_0 has shape (2, 1, 6); expected (2, 6): (num_layers * directions, features)"),
        (lambda x: LSTM(nn.utils.rnn.pack_padded_sequence(x[:, :, 0], [5, 1, 1])), ShapeError,
         "LSTM: the packed data have shape (7,); expected (rows, 4)"),
        (lambda x: nn.GRUCell(4, 6)(x), ShapeError, "GRUCell: the input has shape (5, 3, 4); expected (n, 4), or (4,) of one"),
        (lambda x: nn.GRUCell(4, 6)(x[0], gpunet.zeros(2, 6)), ShapeError, "GRUCell: hx has shape (2, 6); expected (3, 6)"),
        (lambda x: nn.LSTMCell(4, 6)(x[0], gpunet.zeros(3, 6)), ArgumentError, "LSTMCell: hx has type Tensor; expected a pair"),
        (lambda x: nn.LSTMCell(4, 6)(x[0].half()), DtypeError, "LSTMCell: the input has dtype float16; expected that of the w"),
    ],
)  # fmt: skip
def test_refusals_of_calls(call: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error) as caught:
        call(gpunet.tensor(X).float())
    assert message in str(caught.value)
