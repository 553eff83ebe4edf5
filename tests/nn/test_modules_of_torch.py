"""Every loss and activation module that PyTorch has, too: results, representation, in place, fused in a Sequential."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError

F = nn.functional
RNG = numpy.random.default_rng(0)
X, Y, Z = RNG.normal(size=(3, 6, 4))
P, Q = RNG.uniform(0.05, 0.95, (2, 6, 4))
SIGNS, LABELS = numpy.sign(Z), RNG.integers(0, 4, 6)
WEIGHT = numpy.array([0.5, 1.0, 2.0, 3.0])
#: (class, options, inputs); arrays among the options become tensors.
LOSSES: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("BCELoss", {}, (P, Q)), ("BCELoss", {"weight": WEIGHT}, (P, Q)),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 1}, (X, LABELS)),
    ("KLDivLoss", {"reduction": "batchmean"}, (X, P)), ("KLDivLoss", {"reduction": "sum", "log_target": True}, (X, Y)),
    ("PoissonNLLLoss", {}, (X, P)), ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 0.1}, (P, 3 * Q)),
    ("GaussianNLLLoss", {"full": True}, (X, Y, P)), ("SoftMarginLoss", {}, (X, SIGNS)),
    ("HingeEmbeddingLoss", {"margin": 0.5}, (X, SIGNS)),
    ("MarginRankingLoss", {"margin": 0.1}, (X, Y, SIGNS)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": WEIGHT}, (X, LABELS)),
    ("MultiLabelMarginLoss", {}, (X, numpy.tile([1, 3, -1, 0], (6, 1)))), ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, (X, Q)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, (X, Y, SIGNS[:, 0])), ("TripletMarginLoss", {"p": 1.0, "swap": True}, (X, Y, Z)),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0}, (X, Y, Z)), ("SmoothL1Loss", {"beta": 0.3}, (X, Y)),
]  # fmt: skip
ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("CELU", {"alpha": 0.5}), ("SELU", {}), ("Mish", {}), ("Hardtanh", {}), ("Hardtanh", {"min_val": -0.2, "max_val": 0.5}),
    ("Hardtanh", {"min_val": 0.0, "max_val": 0.5}), ("ReLU6", {}), ("Hardsigmoid", {}), ("Hardswish", {}),
    ("Hardshrink", {"lambd": 0.3}),
    ("Softshrink", {"lambd": 0.3}), ("Tanhshrink", {}), ("Softsign", {}), ("LogSigmoid", {}),
    ("Threshold", {"threshold": 0.1, "value": 0.0}),
    ("Threshold", {"threshold": 0.1, "value": 2.0}), ("Threshold", {"threshold": -0.1, "value": 0.0}),
    ("PReLU", {"num_parameters": 4}),
    ("GLU", {}), ("Softmin", {"dim": 1}), ("GELU", {"approximate": "tanh"}), ("SiLU", {}), ("ELU", {"alpha": 0.3}),
]  # fmt: skip


def made(lib: Any, name: str, options: dict[str, Any]) -> Any:
    return getattr(lib.nn, name)(**{k: lib.tensor(v) if isinstance(v, numpy.ndarray) else v for k, v in options.items()}).double()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options", "inputs"), LOSSES)
def test_losses(name: str, options: dict[str, Any], inputs: Any, reduction: str, device: str, torch: Any) -> None:
    options = {"reduction": reduction, **options}
    mine = made(gpunet, name, options).to(device)(*(gpunet.tensor(v, device=device) for v in inputs))
    theirs = made(torch, name, options)(*map(torch.tensor, inputs))
    assert mine.shape == theirs.shape
    numpy.testing.assert_allclose(mine.cpu().numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activations(name: str, options: dict[str, Any], device: str, torch: Any) -> None:
    mine, theirs = made(gpunet, name, options).to(device), made(torch, name, options)
    assert repr(mine) == repr(theirs)
    x = gpunet.tensor(X, device=device)
    expected = theirs(torch.tensor(X)).detach().numpy()
    numpy.testing.assert_allclose(mine(x).detach().cpu().numpy(), expected, rtol=1e-12, atol=1e-15)
    if name in ("PReLU", "GLU", "Softmin"):
        return
    layer = nn.Linear(4, 4, dtype=gpunet.float64, device=device)
    both = nn.Sequential(layer, mine)  # fused, where the activation can be
    fused, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = both(fused), mine(layer(plain))
    (a * a).sum().backward()
    (b * b).sum().backward()
    numpy.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=1e-13, atol=1e-14)
    numpy.testing.assert_allclose(fused.grad.cpu().numpy(), plain.grad.cpu().numpy(), rtol=1e-12, atol=1e-13)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["CELU", "SELU", "Mish", "Hardtanh", "ReLU6", "Hardsigmoid", "Hardswish", "RReLU", "Threshold"])
def test_in_place_activations_write_to_the_input(name: str) -> None:
    arguments = (0.1, 0.5) if name == "Threshold" else ()
    module, x = getattr(nn, name)(*arguments, inplace=True).eval(), gpunet.tensor(X)
    expected = getattr(nn, name)(*arguments).eval()(x)
    assert "inplace=True" in repr(module)
    assert module(x) is x and (x == expected).all()


def test_randomized_slopes() -> None:
    gpunet.manual_seed(0)
    x = gpunet.full((20000,), -1.0, dtype="float64")
    slopes = -nn.RReLU(0.2, 0.6)(x).numpy()
    assert 0.2 <= slopes.min() < 0.21 and 0.59 < slopes.max() < 0.6 and abs(slopes.mean() - 0.4) < 0.005
    assert (nn.RReLU(0.2, 0.6)(gpunet.ones(5)) == 1).all()


def test_samples_of_gumbel_softmax() -> None:
    gpunet.manual_seed(0)
    logits = gpunet.tensor([1.0, 0.0, -1.0], requires_grad=True)
    hard = F.gumbel_softmax(logits.expand(20000, 3), tau=0.7, hard=True)
    numpy.testing.assert_allclose(hard.mean(0).detach().numpy(), F.softmax(logits, 0).detach().numpy(), atol=0.012)
    numpy.testing.assert_allclose(numpy.sort(hard.detach().numpy(), 1), [[0.0, 0.0, 1.0]] * 20000, atol=1e-6)
    soft = F.gumbel_softmax(logits.expand(5, 3), dim=1)
    numpy.testing.assert_allclose(soft.sum(1).detach().numpy(), 1.0, rtol=1e-6)
    (hard * gpunet.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad is not None and logits.grad.abs().min().item() > 0


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (OutOfRangeError, "input has an element 1.5; expected probabilities", lambda: F.binary_cross_entropy(0 * P + 1.5, Q)),
        (OutOfRangeError, "target has an element nan", lambda: F.binary_cross_entropy(P, Q * numpy.nan)),
        (ShapeError, "this loss does not broadcast", lambda: F.binary_cross_entropy(P, Q[0])),
        (DtypeError, "target of dtype float64; expected integer labels", lambda: F.nll_loss(X, Y[:, 0])),
        (ArgumentError, "multi_margin_loss: p=3; expected 1 or 2", lambda: nn.functional.multi_margin_loss(X, LABELS, p=3)),
        (ArgumentError, "TripletMarginLoss: margin=0; expected a positive number", lambda: nn.TripletMarginLoss(margin=0)),
        (ArgumentError, "expected one of 'batchmean', 'mean', 'sum', 'none'", lambda: nn.KLDivLoss(reduction="all")),
        (ArgumentError, "hardtanh: min_val=1, max_val=0", lambda: F.hardtanh(X, 1, 0)),
        (ArgumentError, "softshrink: lambd=-1", lambda: F.softshrink(X, -1)),
        (ShapeError, r"prelu: weight has shape \(3,\); expected \(1,\) or \(4,\)", lambda: F.prelu(X, X[0, :3])),
        (ShapeError, "glu: dimension 1 has size 3; expected an even number", lambda: F.glu(X[:, :3])),
        (OutOfRangeError, "var holds the element -1", lambda: F.gaussian_nll_loss(X, Y, 0 * X - 1)),
        (ShapeError, "Softmax2d: input of shape", lambda: nn.Softmax2d()(gpunet.tensor(X))),
    ],
)
def test_errors(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_mean_that_is_no_divergence_warns() -> None:
    with pytest.warns(UserWarning, match="reduction='batchmean' divides by that of rows"):
        F.kl_div(X, P)
    with pytest.warns(FutureWarning, match="NLLLoss2d is deprecated"):
        nn.NLLLoss2d()
