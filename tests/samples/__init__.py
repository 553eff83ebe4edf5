"""One table, a row an op and specialisation: how to call it, on what, and the same thing as a plain NumPy formula.

    row("log", gpunet.log, numpy.log, positive(ROWS, 4), torch="log")

* ``call`` runs on gpunet tensors, ``formula`` on float64 NumPy arrays and knows nothing of the library;
* inputs are factories of ``sample_inputs``;
* a shape that begins with ROWS is also tried with 0 and 1 rows;
* ``torch`` is a function of (torch, *tensors), the name of one in ``torch``, or SAME: ``call`` runs on its tensors, too;
* ``same`` is a row whose one expression runs on tensors of gpunet, arrays of NumPy and tensors of PyTorch.

``test_ops.py`` makes its tests of this table; ``test_contracts.py`` fails for an op without a row.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

import gpunet
from gpunet.autograd import OPS
from tests.samples.inputs import (
    ROWS,
    Input,
    away,
    distinct,
    labels,
    mask,
    near_zero,
    normal,
    positive,
    probabilities,
    uniform,
)

F = gpunet.nn.functional
SAME = "same"


# ---- rows -----------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A row.  ``second``: whether its second derivative is right, too."""

    op: str
    name: str
    call: Callable[..., Any]
    formula: Callable[..., Any]
    inputs: tuple[Input, ...]
    torch: Callable[..., Any] | None
    second: bool

    def arrays(self, seed: int = 0, rows: int = 5) -> list[numpy.ndarray]:
        generator = numpy.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return [given.make(generator, rows) for given in self.inputs]

    @property
    def has_rows(self) -> bool:
        return any(given.has_rows for given in self.inputs)


SAMPLES: list[Sample] = []


def row(
    op: str, call: Any, formula: Any, *inputs: Input, torch: Any = None, name: str = "", second: bool = True
) -> None:
    """Add a row; ``name`` tells the rows of one op apart."""
    oracle = torch
    if torch == SAME:
        oracle = lambda module, *tensors: call(*tensors)  # noqa: E731
    elif isinstance(torch, str):
        oracle = lambda module, *tensors: getattr(module, torch)(*tensors)  # noqa: E731
    number = sum(sample.op == op for sample in SAMPLES)
    SAMPLES.append(Sample(op, f"{op}-{name or number}", call, formula, inputs, oracle, second))


def same(op: str, call: Any, *inputs: Input, name: str = "", second: bool = True) -> None:
    """A row whose expression runs on all three."""
    row(op, call, call, *inputs, torch=SAME, name=name, second=second)


# ---- arithmetic -----------------------------------------------------------------------------------------------------

for _op, _call in {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}.items():
    same(_op, _call, normal(ROWS, 4), positive(ROWS, 4), name="equal shapes")
    same(_op, _call, normal(ROWS, 1), positive(4), name="broadcast both")
    same(_op, _call, normal(3, 4), positive(2, 1, 4), name="broadcast left")
    same(_op, _call, normal(2, 3), positive(), name="scalar tensor")
    same(_op, lambda a, f=_call: f(a, 1.5), normal(ROWS, 4), name="number right")
    same(_op, lambda b, f=_call: f(2.5, b), positive(ROWS, 4), name="number left")

same("mul", lambda a: a * a * a, normal(ROWS, 3), name="by itself")
for _power in (0, 1, 2, 3, 0.5, -1.5):
    same("pow", lambda a, p=_power: a**p, positive(ROWS, 3), name=f"to the {_power}")
same("pow", lambda a: a**3, away(ROWS, 3), name="of negative numbers")
same("pow", lambda b: 2.5**b, normal(ROWS, 3), name="of a number")
same("pow", lambda a, b: a**b, positive(ROWS, 3), normal(3), name="of tensors")
same("neg", lambda x: -x, normal(ROWS, 3))
row("sum_to", lambda x: OPS["sum_to"].call(x, shape=(3, 1)), lambda x: x.sum(2, keepdims=True).sum(0), normal(2, 3, 4))
row(
    "broadcast_to", lambda x: x.expand(2, 3, -1), lambda x: numpy.broadcast_to(x, (2, 3, 4)), normal(3, 4),
    torch=SAME,
)  # fmt: skip
row("cast", lambda x: OPS["cast"].call(x, dtype=gpunet.float64), lambda x: x, normal(ROWS, 3))

# ---- functions of one number ----------------------------------------------------------------------------------------

_erf = numpy.vectorize(math.erf, otypes=[float])

for _name, _formula, _input in (
    ("abs", numpy.abs, away(ROWS, 4)),
    ("square", numpy.square, normal(ROWS, 4)),
    ("sqrt", numpy.sqrt, positive(ROWS, 4)),
    ("reciprocal", lambda x: 1 / x, positive(ROWS, 4)),
    ("exp", numpy.exp, normal(ROWS, 4)),
    ("expm1", numpy.expm1, normal(ROWS, 4)),
    ("log", numpy.log, positive(ROWS, 4)),
    ("log1p", numpy.log1p, positive(ROWS, 4)),
    ("log2", numpy.log2, positive(ROWS, 4)),
    ("log10", numpy.log10, positive(ROWS, 4)),
    ("sin", numpy.sin, normal(ROWS, 4)),
    ("cos", numpy.cos, normal(ROWS, 4)),
    ("tan", numpy.tan, uniform(-1, 1, ROWS, 4)),
    ("sinh", numpy.sinh, normal(ROWS, 4)),
    ("cosh", numpy.cosh, normal(ROWS, 4)),
    ("atan", numpy.arctan, normal(ROWS, 4)),
    ("erf", _erf, normal(ROWS, 4)),
):
    row(_name, OPS[_name].call, _formula, _input, torch=_name)
row("erf", gpunet.erf, _erf, uniform(-7, 7, 50), torch="erf", name="tails")
row("sqrt", gpunet.rsqrt, lambda x: 1 / numpy.sqrt(x), positive(ROWS, 4), torch="rsqrt", name="rsqrt")

# ---- selection ------------------------------------------------------------------------------------------------------

for _name in ("maximum", "minimum"):
    _call, _formula = getattr(gpunet, _name), getattr(numpy, _name)
    row(_name, _call, _formula, distinct(ROWS, 4), distinct(ROWS, 4, offset=0.125), torch=_name, name="equal shapes")
    row(_name, _call, _formula, distinct(ROWS, 4), distinct(4, offset=0.125), torch=_name, name="broadcast")
    row(_name, lambda x, f=_call: f(x, 0.3), lambda x, f=_formula: f(x, 0.3), away(ROWS, 4, kinks=(0.3,)), name="number")

_mask = numpy.array([True, False, True, False])
row("_where", gpunet.where, numpy.where, mask(ROWS, 4), normal(ROWS, 4), normal(ROWS, 4), torch="where", name="equal shapes")
row("_where", gpunet.where, numpy.where, mask(ROWS, 1), normal(4), normal(ROWS, 4), torch="where", name="broadcast")
row("_where", lambda c, x: gpunet.where(c, x, 2.0), lambda c, x: numpy.where(c, x, 2.0), mask(ROWS, 4), normal(4), name="number")
row(
    "_where", lambda x: x.masked_fill(gpunet.tensor(_mask.tolist(), device=x.device), -1.0), lambda x: numpy.where(_mask, -1.0, x),
    normal(ROWS, 4), torch=lambda torch, x: x.masked_fill(torch.tensor(_mask), -1.0), name="masked_fill",
)  # fmt: skip
row("_where", lambda x: x.tril(1), lambda x: numpy.tril(x, 1), normal(3, 4), torch=SAME, name="tril")
row("_where", lambda x: x.triu(), numpy.triu, normal(2, 3, 4), torch="triu", name="triu")
for _low, _high in ((-0.5, 0.5), (-0.5, None), (None, 0.5)):
    row(
        "clamp", lambda x, a=_low, b=_high: x.clamp(a, b), lambda x, a=_low, b=_high: numpy.clip(x, a, b),
        away(ROWS, 4, kinks=(-0.5, 0.5)), torch=SAME, name=f"{_low} to {_high}",
    )  # fmt: skip

# ---- shape ----------------------------------------------------------------------------------------------------------

row("alias", OPS["alias"].call, lambda x: x, normal(ROWS, 3))
row("clone", lambda x: x.clone(), lambda x: x, normal(ROWS, 3), torch="clone")
row("_move", lambda x: OPS["_move"].call(x, target=x.device), lambda x: x, normal(ROWS, 3))
same("_reshape", lambda x: x.reshape(3, -1), normal(2, 3, 4), name="reshape")
same("_reshape", lambda x: x.T.reshape(2, 6), normal(3, 4), name="of a transpose")
row("_reshape", lambda x: x.flatten(1), lambda x: x.reshape(len(x), 6), normal(ROWS, 2, 3), torch=SAME, name="flatten")
row("_reshape", lambda x: x.unsqueeze(1), lambda x: x[:, None], normal(ROWS, 3), torch=SAME, name="unsqueeze")
row("_reshape", lambda x: x.squeeze(1), lambda x: x[:, 0], normal(ROWS, 1, 3), torch=SAME, name="squeeze")
row("_reshape", lambda x: x.repeat(2, 3), lambda x: numpy.tile(x, (2, 3)), normal(ROWS, 3), torch=SAME, name="repeat")
row("_permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), normal(ROWS, 3, 4), torch=SAME, name="permute")
row("_permute", lambda x: x.transpose(-1, 0), lambda x: x.swapaxes(-1, 0), normal(ROWS, 3, 4), torch=SAME, name="transpose")
same("_permute", lambda x: x.T, normal(ROWS, 3), name="T")
row("flip", lambda x: x.flip(0, -1), lambda x: x[::-1, ::-1], normal(ROWS, 3), torch=SAME)
row("flip", lambda x: x.flip(0), lambda x: x, normal(), torch=SAME, name="a number")
for _dim in (0, 1, -1):
    row(
        "_cat", lambda *x, d=_dim: gpunet.cat(x, d), lambda *x, d=_dim: numpy.concatenate(x, d), normal(2, 3), normal(2, 3),
        normal(2, 3), torch=lambda torch, *x, d=_dim: torch.cat(x, d), name=f"cat {_dim}",
    )  # fmt: skip
    row(
        "_cat", lambda *x, d=_dim: gpunet.stack(x, d), lambda *x, d=_dim: numpy.stack(x, d), normal(2, 3), normal(2, 3),
        torch=lambda torch, *x, d=_dim: torch.stack(x, d), name=f"stack {_dim}",
    )  # fmt: skip
row("_cat", lambda a, b: gpunet.cat([a, b]), lambda a, b: numpy.concatenate([a, b]), normal(ROWS, 3), normal(2, 3), name="rows")
row(
    "_cat", lambda x: F.pad(x, (1, 2, 0, 1), value=3.0), lambda x: numpy.pad(x, ((0, 1), (1, 2)), constant_values=3.0),
    normal(ROWS, 3), torch=lambda torch, x: torch.nn.functional.pad(x, (1, 2, 0, 1), value=3.0), name="pad",
)  # fmt: skip

# ---- indexing -------------------------------------------------------------------------------------------------------

def _assigned(x: Any, value: Any, index: Any) -> Any:
    """x with x[index] = value: of a clone, which the three libraries spell alike but for its name."""
    y = x.clone() if hasattr(x, "clone") else x.copy()
    y[index] = value
    return y


_rows, _columns = numpy.array([2, 0, 2, -1]), numpy.array([1, 1, 0, 3])
for _name, _index in {
    "number": 1,
    "slices": (slice(1, None), slice(None, None, 2)),
    "ellipsis and new axis": (Ellipsis, None, 1),
    "integers": _rows.tolist(),
    "integers in both": (_rows.tolist(), _columns.tolist()),
    "integers behind a slice": (slice(0, 2), _columns.tolist()),
    "mask": numpy.arange(12).reshape(3, 4) % 3 == 0,
    "mask of rows": numpy.array([True, False, True]),
}.items():
    same("_index", lambda x, i=_index: x[i], normal(3, 4), name=_name)
    row("_unindex", lambda g, i=_index: OPS["_unindex"].call(g, index=i if isinstance(i, tuple) else (i,), shape=(3, 4)),
        lambda g, i=_index: _scatter(i, g), normal(*numpy.zeros((3, 4))[_index].shape), name=_name)  # fmt: skip
same("_index", lambda x: x[2] + 2 * x[-1], normal(4), name="numbers of a vector")
same("_index", lambda x: x[1, 2], normal(3, 4), name="one element")
same("_with_index", lambda x, v: _assigned(x, v, (1, 2)), normal(3, 4), normal(), name="one element")
row("_unindex", lambda g: OPS["_unindex"].call(g, index=(2,), shape=(4,)), lambda g: g * numpy.eye(4)[2], normal(), name="one")
row("_index", lambda x: x.unbind()[2], lambda x: x[2], normal(4), torch=SAME, name="unbind of a vector")
row("_index", lambda x: x[::-1, ::2], lambda x: x[::-1, ::2], normal(ROWS, 3), name="step back")
row("_index", lambda x: gpunet.cat(x.split([1, 3], 1)[::-1], 1), lambda x: x[:, [1, 2, 3, 0]], normal(ROWS, 4), name="split")
row("_index", lambda x: x.chunk(2, 1)[1], lambda x: x[:, 2:], normal(ROWS, 4), torch=SAME, name="chunk")
row("_index", lambda x: x.unbind(1)[2], lambda x: x[:, 2], normal(ROWS, 4), torch=SAME, name="unbind")
row(
    "_index", lambda x, i: x.gather(1, i), lambda x, i: numpy.take_along_axis(x, i, 1), normal(ROWS, 4), labels(4, ROWS, 6),
    torch=SAME, name="gather",
)  # fmt: skip
row(
    "_index", lambda x, i: x.index_select(1, i), lambda x, i: x[:, i], normal(ROWS, 4), labels(4, 6),
    torch=SAME, name="index_select",
)  # fmt: skip
for _name in ("max", "min"):
    row(
        "_index", lambda x, f=_name: getattr(x, f)(1).values, lambda x, f=_name: getattr(x, f)(1), distinct(ROWS, 4),
        torch=SAME, name=_name,
    )  # fmt: skip
row("_index", lambda x: x.sort(0).values, lambda x: numpy.sort(x, 0), distinct(5, 3), torch=SAME, name="sort")
row(
    "_index", lambda x: x.sort(1, descending=True).values, lambda x: -numpy.sort(-x, 1), distinct(ROWS, 4),
    torch=SAME, name="sort down",
)  # fmt: skip
row(
    "_index", lambda x: x.topk(2, 1).values, lambda x: -numpy.sort(-x, 1)[:, :2], distinct(ROWS, 4),
    torch=SAME, name="topk",
)  # fmt: skip


def _scatter(index: Any, g: Any) -> Any:
    out = numpy.zeros((3, 4))
    numpy.add.at(out, index, g)
    return out


for _name, _index, _shape in (
    ("number", 1, (4,)),
    ("broadcast", slice(0, 2), (4,)),
    ("columns", (slice(None), slice(1, 3)), (3, 2)),
    ("integers", [2, 0], (2, 4)),
    ("mask", numpy.array([True, False, True]), (1, 4)),
):
    same("_with_index", lambda x, v, i=_index: _assigned(x, v, i), normal(3, 4), normal(*_shape), name=_name)
same("_with_index", lambda x: _assigned(x, 2.0, (slice(None), 0)), normal(ROWS, 4), name="plain number")

# ---- reductions -----------------------------------------------------------------------------------------------------

for _op, _name in {"_sum": "sum", "_mean": "mean", "_prod": "prod"}.items():
    for _axes, _kept in ((None, False), (0, False), (-1, True), ((0, 2), False), ((2, 0), True)):
        if _op == "_prod" and isinstance(_axes, tuple):
            continue
        _options = {} if _axes is None else {"axis": _axes, "keepdims": _kept}
        _torch_options = {} if _axes is None else {"dim": _axes, "keepdim": _kept}
        row(
            _op, lambda x, f=_name, o=_options: getattr(x, f)(**o), lambda x, f=_name, o=_options: getattr(x, f)(**o),
            positive(2, 3, 4), torch=lambda torch, x, f=_name, o=_torch_options: getattr(x, f)(**o),
            name=f"over {_axes}{' kept' if _kept else ''}",
        )  # fmt: skip
same("_sum", lambda x: x.sum(1), normal(ROWS, 3), name="rows")
same("_mean", lambda x: x.mean(1), normal(ROWS, 3), name="rows")
_zeros = numpy.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], numpy.float32)
row(
    "_prod", lambda x: (x * gpunet.tensor(_zeros.tolist(), device=x.device)).prod(1), lambda x: (x * _zeros).prod(1),
    positive(3, 3), name="with zeros", second=False,
)  # fmt: skip
for _op in ("amax", "amin"):
    for _axes in (None, 0, -1, (0, 2)):
        row(
            "_extreme", lambda x, f=_op, a=_axes: getattr(gpunet, f)(x, a), lambda x, f=_op, a=_axes: getattr(numpy, f)(x, a),
            distinct(2, 3, 4), name=f"{_op} over {_axes}",
            torch=lambda torch, x, f=_op, a=_axes: getattr(torch, f)(x, () if a is None else a),
        )  # fmt: skip
row("_extreme", lambda x: x.max(), lambda x: x.max(), distinct(3, 4), torch="max", name="max")
for _axis in (0, 1):
    row("_cumsum", lambda x, a=_axis: x.cumsum(a), lambda x, a=_axis: x.cumsum(a), normal(ROWS, 4), name=f"over {_axis}",
        torch=SAME)  # fmt: skip
for _correction in (0, 1):
    row(
        "_mean", lambda x, c=_correction: x.var(1, correction=c), lambda x, c=_correction: x.var(1, ddof=c), normal(ROWS, 4),
        torch=SAME, name=f"var {_correction}",
    )  # fmt: skip
row("sqrt", lambda x: x.std(), lambda x: x.std(ddof=1), normal(3, 4), torch="std", name="std")


def _softmax(x: Any, axis: int) -> Any:
    e = numpy.exp(x - x.max(axis, keepdims=True, initial=-99.0))
    return e / e.sum(axis, keepdims=True)


for _axis in (0, 1, -1):
    _shape = (5, 4) if _axis == 0 else (ROWS, 4)
    row("_softmax", lambda x, a=_axis: x.softmax(a), lambda x, a=_axis: _softmax(x, a), normal(*_shape), name=f"over {_axis}",
        torch=SAME)  # fmt: skip
    row("_log_softmax", lambda x, a=_axis: x.log_softmax(a), lambda x, a=_axis: numpy.log(_softmax(x, a)), normal(*_shape),
        torch=SAME, name=f"over {_axis}")  # fmt: skip
row("_sum", lambda x: x.logsumexp(1), lambda x: numpy.log(numpy.exp(x).sum(1)), normal(ROWS, 4), name="logsumexp",
    torch=SAME)  # fmt: skip
for _p in (1, 2, 3, math.inf):
    row(
        "_extreme" if _p == math.inf else "_sum", lambda x, p=_p: x.norm(p, 1),
        lambda x, p=_p: numpy.linalg.norm(x, p, 1), distinct(ROWS, 4, offset=0.0625),
        torch=SAME, name=f"norm {_p}",
    )  # fmt: skip

# ---- products -------------------------------------------------------------------------------------------------------

for _name, _a, _b in (
    ("matrices", normal(ROWS, 4), normal(4, 3)),
    ("vector by matrix", normal(4), normal(4, 3)),
    ("matrix by vector", normal(ROWS, 4), normal(4)),
    ("vectors", normal(4), normal(4)),
    ("batches", normal(2, 3, 4), normal(2, 4, 5)),
    ("batch by matrix", normal(ROWS, 3, 4), normal(4, 2)),
    ("matrix by batch", normal(3, 4), normal(2, 4, 5)),
    ("broadcast batches", normal(2, 1, 3, 4), normal(3, 4, 2)),
):
    same("_matmul", lambda a, b: a @ b, _a, _b, name=_name)
same("_matmul", lambda a, b: a.T @ b.T, normal(4, 3), normal(2, 4), name="of transposes")

# ---- fused: activations, linear layers, dropout ---------------------------------------------------------------------

_sigmoid = lambda z: 1 / (1 + numpy.exp(-z))  # noqa: E731
_GELU_TANH = lambda z: 0.5 * z * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))  # noqa: E731

#: (name, alpha) in gpunet, its formula, its function in torch.nn.functional with options.
ACTIVATIONS: dict[tuple[str, float], tuple[Callable[[Any], Any], str, dict[str, Any]]] = {
    ("identity", 0.0): (lambda z: z, "", {}),
    ("relu", 0.0): (lambda z: numpy.maximum(z, 0), "relu", {}),
    ("leaky_relu", 0.01): (lambda z: numpy.where(z > 0, z, 0.01 * z), "leaky_relu", {}),
    ("leaky_relu", 0.3): (lambda z: numpy.where(z > 0, z, 0.3 * z), "leaky_relu", {"negative_slope": 0.3}),
    ("sigmoid", 0.0): (_sigmoid, "sigmoid", {}),
    ("tanh", 0.0): (numpy.tanh, "tanh", {}),
    ("gelu", 0.0): (lambda z: 0.5 * z * (1 + _erf(z / math.sqrt(2))), "gelu", {}),
    ("gelu_tanh", 0.0): (_GELU_TANH, "gelu", {"approximate": "tanh"}),
    ("silu", 0.0): (lambda z: z * _sigmoid(z), "silu", {}),
    ("elu", 1.0): (lambda z: numpy.where(z > 0, z, numpy.expm1(z)), "elu", {}),
    ("elu", 0.7): (lambda z: numpy.where(z > 0, z, 0.7 * numpy.expm1(z)), "elu", {"alpha": 0.7}),
    ("softplus", 0.0): (lambda z: numpy.log1p(numpy.exp(z)), "softplus", {}),
}


def _torch_activation(torch: Any, z: Any, key: tuple[str, float]) -> Any:
    _, name, options = ACTIVATIONS[key]
    return getattr(torch.nn.functional, name)(z, **options) if name else z


def _linear(key: tuple[str, float]) -> Callable[..., Any]:
    return lambda x, w, b=None: F.linear(x, w, b, activation=key[0], alpha=key[1])


for _key, (_formula, _, _) in ACTIVATIONS.items():
    _label = f"{_key[0]} {_key[1]}"
    row(
        "activation", lambda x, k=_key: OPS["activation"].call(x, name=k[0], alpha=k[1]), _formula, away(ROWS, 4),
        torch=lambda torch, x, k=_key: _torch_activation(torch, x, k), name=_label,
    )  # fmt: skip
    # weights so small beside the bias that no pre-activation comes near the kink at 0
    row(
        "linear_chain", _linear(_key), lambda x, w, b, f=_formula: f(x @ w.T + b),
        uniform(-1, 1, ROWS, 3), uniform(-0.1, 0.1, 4, 3), away(4, margin=0.4), name=_label,
        torch=lambda torch, x, w, b, k=_key: _torch_activation(torch, torch.nn.functional.linear(x, w, b), k),
    )  # fmt: skip
row("linear_chain", _linear(("identity", 0.0)), lambda x, w: x @ w.T, normal(ROWS, 3), normal(4, 3), name="no bias",
    torch=lambda torch, x, w: torch.nn.functional.linear(x, w))  # fmt: skip
row("linear_chain", _linear(("tanh", 0.0)), lambda x, w, b: numpy.tanh(x @ w.T + b), normal(2, 3, 4), normal(2, 4), normal(2),
    name="batches")  # fmt: skip
row("linear_chain", _linear(("silu", 0.0)), lambda x, w: _sigmoid(w @ x) * (w @ x), normal(4), normal(2, 4), name="vector")
row(
    "linear_chain",
    lambda x, v, a, w, u, c: gpunet.ops.linear.linear_layers(
        x, [(v, a, "softplus", 0.0), (w, None, "gelu", 0.0), (u, c, "elu", 1.0)]
    ),
    lambda x, v, a, w, u, c: ACTIVATIONS["elu", 1.0][0](
        ACTIVATIONS["gelu", 0.0][0](numpy.log1p(numpy.exp(x @ v.T + a)) @ w.T) @ u.T + c
    ),
    normal(ROWS, 3), normal(4, 3), normal(4), normal(5, 4), normal(2, 5), normal(2), name="three layers",
)  # fmt: skip
row("activation", lambda x: F.leaky_relu(x, -0.5) + F.relu(x), lambda x: numpy.where(x > 0, 2 * x, -0.5 * x), away(ROWS, 4),
    torch=lambda torch, x: torch.nn.functional.leaky_relu(x, -0.5) + x.relu(), name="negative slope")  # fmt: skip
row("activation", lambda x: F.softplus(x, 2.0, 1.0), lambda x: numpy.where(2 * x > 1, x, numpy.log1p(numpy.exp(2 * x)) / 2),
    away(ROWS, 4, kinks=(0.5,)), torch=lambda torch, x: torch.nn.functional.softplus(x, 2.0, 1.0), name="softplus 2")  # fmt: skip
row("masked_scale", lambda x, m: OPS["masked_scale"].call(x, m, scale=1.25), lambda x, m: x * m * 1.25, normal(ROWS, 4),
    mask(ROWS, 4))  # fmt: skip

# ---- fused: losses --------------------------------------------------------------------------------------------------

_REDUCE = {"none": lambda v: v, "mean": numpy.mean, "sum": numpy.sum}
_KINKED = away(ROWS, 4, kinks=(0.0, 1.0, -1.0, 0.5, -0.5))


def _huber(d: Any, delta: float) -> Any:
    return numpy.where(abs(d) <= delta, d * d / 2, delta * (abs(d) - delta / 2))


def _loss(op: str, name: str, formula: Any, *inputs: Input, **options: Any) -> None:
    """Rows of a function of ``nn.functional``, for each reduction; ``formula`` gives the loss of each element."""
    for reduction, reduce in _REDUCE.items():
        row(
            op, lambda x, y, r=reduction: getattr(F, name)(x, y, reduction=r, **options),
            lambda x, y, f=reduce: f(formula(x, y)), *inputs, name=f"{name} {reduction} {options or ''}".strip(),
            torch=lambda torch, x, y, r=reduction: getattr(torch.nn.functional, name)(x, y, reduction=r, **options),
        )  # fmt: skip


_bce = lambda x, y: numpy.log1p(numpy.exp(-abs(x))) + numpy.maximum(x, 0) - x * y  # noqa: E731
_loss("regression_loss", "mse_loss", lambda x, y: (x - y) ** 2, normal(ROWS, 4), near_zero(ROWS, 4))
_loss("regression_loss", "l1_loss", lambda x, y: abs(x - y), _KINKED, near_zero(ROWS, 4))
_loss("regression_loss", "huber_loss", lambda x, y: _huber(x - y, 1.0), _KINKED, near_zero(ROWS, 4))
_loss("regression_loss", "huber_loss", lambda x, y: _huber(x - y, 0.5), _KINKED, near_zero(ROWS, 4), delta=0.5)
_loss("regression_loss", "smooth_l1_loss", lambda x, y: _huber(x - y, 0.5) / 0.5, _KINKED, near_zero(ROWS, 4), beta=0.5)
_loss("regression_loss", "binary_cross_entropy_with_logits", _bce, away(ROWS, 4), probabilities(ROWS, 4))
row("mul", lambda x, y: F.mse_loss(x, y), lambda x, y: ((x - y) ** 2).mean(), normal(ROWS, 4), normal(ROWS, 4),
    torch=lambda torch, x, y: torch.nn.functional.mse_loss(x, y), name="mse_loss with a gradient for its target")  # fmt: skip
_weight, _pos_weight = numpy.array([0.5, 1.0, 2.0, 3.0]), numpy.array([3.0, 1.0, 0.5, 2.0])
row(
    "log1p",
    lambda x, y: F.binary_cross_entropy_with_logits(
        x, y, gpunet.tensor(_weight.tolist()).to(x), pos_weight=gpunet.tensor(_pos_weight.tolist()).to(x)
    ),
    lambda x, y: -(_weight * (_pos_weight * y * numpy.log(_sigmoid(x)) + (1 - y) * numpy.log(_sigmoid(-x)))).mean(),
    away(ROWS, 4), probabilities(ROWS, 4), name="binary cross-entropy with weights",
    torch=lambda torch, x, y: torch.nn.functional.binary_cross_entropy_with_logits(
        x, y, torch.tensor(_weight).to(x), pos_weight=torch.tensor(_pos_weight).to(x)
    ),
)  # fmt: skip


def _cross_entropy(logits: Any, target: Any, reduction: str, weight: Any, smoothing: float, ignore: int = -100) -> Any:
    """Over the last axis; integer labels or probabilities; the definition of PyTorch's documentation."""
    logs = numpy.log(_softmax(logits, -1))
    if target.dtype.kind == "f":
        target = target * (1 - smoothing) + smoothing / logits.shape[-1]
        return _REDUCE[reduction](-(target * weight * logs).sum(-1) * numpy.ones(logits.shape[:-1]))
    counts = target != ignore
    safe = numpy.where(counts, target, 0)
    each = -(1 - smoothing) * weight[safe] * numpy.take_along_axis(logs, safe[..., None], -1)[..., 0]
    each = (each - smoothing * (weight * logs).mean(-1)) * counts
    return each.sum() / (weight[safe] * counts).sum() if reduction == "mean" else _REDUCE[reduction](each)


def _cross_entropy_rows(op: str, logits: Input, target: Input, name: str, weight: Any = None, **options: Any) -> None:
    def formula(x: Any, y: Any, reduction: str) -> Any:
        if x.ndim > 2:
            x, y = numpy.moveaxis(x, 1, -1), numpy.moveaxis(y, 1, -1) if y.dtype.kind == "f" else y
        factors = numpy.ones(x.shape[-1]) if weight is None else weight
        return _cross_entropy(x, y, reduction, factors, options.get("label_smoothing", 0.0), options.get("ignore_index", -100))

    for reduction in _REDUCE:
        row(
            op,
            lambda x, y, r=reduction: F.cross_entropy(
                x, y, None if weight is None else gpunet.tensor(weight.tolist()).to(x), reduction=r, **options
            ),
            lambda x, y, r=reduction: formula(x, y, r), logits, target, name=f"{name} {reduction}",
            torch=lambda torch, x, y, r=reduction: torch.nn.functional.cross_entropy(
                x, y.long() if not y.is_floating_point() else y, None if weight is None else torch.tensor(weight).to(x),
                reduction=r, **options,
            ),
        )  # fmt: skip


_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS), "labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, dtype="int32"), "int32 labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, ignored=-100), "ignored labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, ignored=2), "class ignored", ignore_index=2)
_cross_entropy_rows("labels_loss", normal(4), labels(4), "one row")
_cross_entropy_rows("labels_loss", normal(ROWS, 4, 2, 3), labels(4, ROWS, 2, 3), "images")
_cross_entropy_rows("soft_labels_loss", normal(ROWS, 4), probabilities(ROWS, 4), "probabilities")
_cross_entropy_rows("soft_labels_loss", normal(ROWS, 4, 3), probabilities(ROWS, 4, 3), "probabilities of images")
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS), "smoothing", label_smoothing=0.1)
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS, ignored=1), "weights", weight=_weight, ignore_index=1)
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS), "weights and smoothing", weight=_weight, label_smoothing=0.2)
_cross_entropy_rows(
    "_log_softmax", normal(ROWS, 4), probabilities(ROWS, 4), "probabilities and weights", weight=_weight, label_smoothing=0.2
)
