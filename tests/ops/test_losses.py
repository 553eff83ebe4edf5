"""Edge cases of losses: wrong labels, ignored rows, weights, empty batches, huge logits, shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError

F = nn.functional
ELEMENTWISE = ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"]
LOGITS = numpy.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def leaf(array: Any) -> gpunet.Tensor:
    return gpunet.tensor(array, requires_grad=True, device=gpunet.zeros(1).device)


# ---- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": numpy.ones(3, "float32")}, {"ignore_index": 1}])
@pytest.mark.parametrize("label", [-1, 3, 99, -(2**40)])
def test_label_out_of_range_names_value_row_and_classes(label: int, options: dict[str, Any], device: str) -> None:
    if "weight" in options:
        options = {"weight": gpunet.tensor(options["weight"])}
    x, losses = leaf(LOGITS), []
    ignored = options.get("ignore_index", -100)
    message = rf"cross_entropy: label {label} at row 2; expected 0 \.\. 2 for 3 classes \(or ignore_index {ignored}\)"

    def run() -> None:
        losses.append(F.cross_entropy(x, gpunet.tensor([0, 1, label, label - 1]), **options))
        losses[0].backward()
        gpunet.synchronize()

    with pytest.raises(LabelError, match=message) as caught:
        run()
    assert isinstance(caught.value, IndexError)
    assert [loss.isnan().item() for loss in losses] == [True] * (device != "cpu")
    x.grad = None
    F.cross_entropy(x, gpunet.tensor([0, 1, 2, 0]), **options).backward()  # the graph of x is intact


def test_ignored_rows_do_not_contribute(device: str) -> None:
    for ignored in (-100, 1, 255):
        labels = [0, ignored, 2, ignored]
        x, y = leaf(LOGITS), leaf(LOGITS[[0, 2]])
        loss = F.cross_entropy(x, gpunet.tensor(labels), ignore_index=ignored)
        expected = F.cross_entropy(y, gpunet.tensor([0, 2]))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        loss.backward()
        expected.backward()
        numpy.testing.assert_allclose(x.grad.cpu().numpy()[[0, 2]], y.grad.cpu().numpy(), rtol=1e-6)
        assert not x.grad.cpu().numpy()[[1, 3]].any()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": [1.0, 2.0, 3.0]}, {"dtype": "float16"}], ids=str)
def test_all_rows_ignored(options: dict[str, Any], device: str, torch: Any) -> None:
    """The mean is NaN, and the gradient 0, also in a captured step."""
    options = dict(options)
    dtype, weight = options.pop("dtype", "float32"), options.pop("weight", None)
    for reduction in ("mean", "sum", "none"):
        results = []
        for module, place in ((gpunet, {"device": device}), (torch, {})):
            x = module.tensor(LOGITS, dtype=getattr(module, dtype), requires_grad=True, **place)
            factors = None if weight is None else module.tensor(weight, **place)
            labels = module.tensor([-100] * 4, **place)
            loss = module.nn.functional.cross_entropy(x, labels, factors, reduction=reduction, **options)
            loss.sum().backward()
            results.append((loss.detach().cpu().numpy(), x.grad.cpu().numpy()))
        for mine, theirs in zip(*results, strict=True):
            numpy.testing.assert_array_equal(mine, theirs)


def test_all_rows_ignored_in_a_captured_step(backend: str) -> None:
    x = leaf(LOGITS)

    def run(labels: gpunet.Tensor) -> tuple[gpunet.Tensor, gpunet.Tensor]:
        x.grad = None
        loss = F.cross_entropy(x, labels)
        loss.backward()
        return loss.detach(), x.grad

    step = gpunet.capture(run, backend=backend)
    for labels in ([0, 1, 2, 0], [-100] * 4, [0, -100, 2, -100]):
        expected = [v.tolist() for v in run(gpunet.tensor(labels))]
        for found, value in zip(step(gpunet.tensor(labels)), expected, strict=True):
            numpy.testing.assert_allclose(found.numpy(), value, rtol=1e-6)


def test_labels_of_any_integer_dtype(device: str) -> None:
    expected = F.cross_entropy(gpunet.tensor(LOGITS, device=device), gpunet.tensor([0, 1, 2, 0])).item()
    for dtype in ("int8", "int16", "int32", "uint8"):
        assert F.cross_entropy(gpunet.tensor(LOGITS, device=device), gpunet.tensor([0, 1, 2, 0], dtype=dtype)).item() == expected


def test_labels_equal_one_hot_probabilities(device: str) -> None:
    labels = gpunet.tensor([0, 1, 2, 0])
    hot = F.one_hot(labels, 3)
    assert hot.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    a, b = leaf(LOGITS), leaf(LOGITS)
    F.cross_entropy(a, labels).backward()
    F.cross_entropy(b, hot.float()).backward()
    numpy.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.cpu().numpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(LabelError, match=r"one_hot: label 2 at row 2; expected 0 \.\. 1 for 2 classes"):
        F.one_hot(labels, 2).tolist()
    with pytest.raises(LabelError, match=r"one_hot: label -2 at row 1; expected 0 \.\. 2 for 3 classes"):
        F.one_hot(labels - 3 * (labels == 1).long())


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_huge_logits_do_not_overflow(dtype: str, scale: float, device: str) -> None:
    x = gpunet.tensor([[scale, 0.0, -scale], [-scale, 0.0, scale]], dtype=dtype, requires_grad=True)
    loss = F.cross_entropy(x, gpunet.tensor([0, 0]), reduction="none")
    assert loss.tolist() == [0.0, 2 * x.detach()[0, 0].item()]
    loss.sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]
    assert F.cross_entropy(x.detach(), gpunet.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)).item() == 0.0


def test_huge_logits_of_binary_cross_entropy(device: str) -> None:
    for options in ({}, {"pos_weight": gpunet.ones(4)}, {"weight": gpunet.ones(4)}):
        x = leaf([1e4, -1e4, 1e4, -1e4])
        loss = F.binary_cross_entropy_with_logits(x, gpunet.tensor([1.0, 0.0, 0.0, 1.0]), reduction="none", **options)
        assert loss.tolist() == [0.0, 0.0, 1e4, 1e4]
        loss.sum().backward()
        assert x.grad.tolist() == [0.0, 0.0, 1.0, -1.0]


def test_infinite_and_nan_elements_match_torch(device: str, torch: Any) -> None:
    """Values and gradients; PyTorch's binary cross-entropy of -inf is NaN, the limit is the product of inf and the target."""
    special = numpy.array([math.inf, -math.inf, math.nan, 1.0, 0.0], "float32")
    x, y = (v.ravel() for v in numpy.meshgrid(special, numpy.array([0.0, 0.25, 1.0, math.inf, math.nan], "float32")))
    for name in ELEMENTWISE:
        kept = (y >= 0) & (y <= 1) & (x != -math.inf) if "binary" in name else numpy.ones(len(x), bool)
        for needs in ((True, False), (True, True)):
            results = []
            for module, place in ((gpunet, {"device": device}), (torch, {})):
                a, b = (module.tensor(v[kept], requires_grad=n, **place) for v, n in zip((x, y), needs))
                loss = getattr(module.nn.functional, name)(a, b, reduction="none")
                loss.sum().backward()
                results.append([v.cpu().numpy() for v in (loss.detach(), a.grad, *([b.grad] if needs[1] else []))])
            if needs[1] and name == "binary_cross_entropy_with_logits":
                results = [r[:2] for r in results]  # the gradient of the target is -x there, and here
            for mine, theirs in zip(*results, strict=True):
                numpy.testing.assert_allclose(mine, theirs, rtol=1e-6, err_msg=f"{name} {needs}")
    loss = F.binary_cross_entropy_with_logits(gpunet.tensor([-math.inf] * 2), gpunet.tensor([0.25, 1.0]), reduction="none")
    assert loss.tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if name != "l1_loss"])
def test_second_derivatives_at_the_kink_match_torch(name: str, device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        x = module.tensor([0.0, 0.5, -2.0], requires_grad=True, **place)
        loss = getattr(module.nn.functional, name)(x, module.tensor([0.0, 0.25, 1.0], **place), reduction="sum")
        (gradient,) = module.autograd.grad(loss, x, create_graph=True)
        if gradient.requires_grad:
            (gradient * gradient).sum().backward()
        results.append((gradient.tolist(), [0.0] * 3 if x.grad is None else x.grad.tolist()))
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


def test_shifted_logits_have_the_same_loss(device: str) -> None:
    y = gpunet.tensor([0, 1, 2, 0])
    shifted = [gpunet.tensor(LOGITS.astype("float64") + shift, device=device) for shift in (0.0, 1000.0, -1000.0)]
    losses = [F.cross_entropy(x, y).item() for x in shifted]
    # float64 logits near 1000 have an absolute rounding error of 1e-13
    numpy.testing.assert_allclose(losses, losses[0], rtol=1e-11)


def test_nan_logits_give_a_nan_loss(device: str) -> None:
    logits = LOGITS.copy()
    logits[1, 1] = math.nan
    x, labels = gpunet.tensor(logits, device=device), gpunet.tensor([0, 1, 2, 0])
    assert F.cross_entropy(x, labels).isnan()
    assert F.cross_entropy(x, labels, reduction="none").isnan().tolist() == [0, 1, 0, 0]
    assert F.mse_loss(x, gpunet.zeros(4, 3)).isnan()


def test_number_of_classes_from_one_to_many(device: str, torch: Any) -> None:
    for classes in (1, 2, 64, 65, 1500):
        data, labels = numpy.random.default_rng(1).normal(size=(6, classes)).astype("float32"), numpy.arange(6) % classes
        x, t = leaf(data), torch.tensor(data, requires_grad=True)
        F.cross_entropy(x, gpunet.tensor(labels, device=x.device)).backward()
        torch.nn.functional.cross_entropy(t, torch.tensor(labels)).backward()
        numpy.testing.assert_allclose(x.grad.cpu().numpy(), t.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_large_batches_are_summed_accurately(device: str) -> None:
    """A float32 sum of a million terms keeps six digits: the summation is not sequential."""
    generator = numpy.random.default_rng(2)
    x, y = generator.random(1_000_003).astype("float32"), generator.random(1_000_003).astype("float32")
    for name in ELEMENTWISE:
        f = getattr(F, name)
        single = f(gpunet.tensor(x), gpunet.tensor(y)).item()
        assert single == pytest.approx(f(gpunet.tensor(x.astype("float64")), gpunet.tensor(y.astype("float64"))).item(), rel=2e-6)


# ---- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ELEMENTWISE[:4])
@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((2, 3), ()), ((1, 3), (0, 3))], ids=str)
def test_shapes_that_differ_are_broadcast_with_a_warning(name: str, shapes: Any, device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        x, y = (
            module.tensor(numpy.random.default_rng(len(s)).normal(size=s).astype("float32"), **place) for s in shapes
        )
        x.requires_grad_()
        with pytest.warns(UserWarning, match="broadcast|broadcasting"):
            loss = getattr(module.nn.functional, name)(x, y)
        loss.backward()
        results.append((loss.item(), x.grad.cpu().numpy()))
    numpy.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    numpy.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_losses_refuse_shapes_and_dtypes(name: str, device: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}.*\(4, 2\).*\(3,\)"):
        getattr(F, name)(gpunet.ones(4, 2), gpunet.ones(3))
    with pytest.raises(DtypeError, match="int64"):
        getattr(F, name)(gpunet.tensor([1]), gpunet.tensor([1]))


def test_binary_cross_entropy_does_not_broadcast(device: str) -> None:
    name = "binary_cross_entropy_with_logits"
    for options in ({}, {"weight": gpunet.ones(4)}):
        with pytest.raises(ShapeError, match=rf"{name}: input has shape \(4, 1\), target \(4,\)"):
            F.binary_cross_entropy_with_logits(gpunet.ones(4, 1), gpunet.ones(4), **options)
    for key in ("weight", "pos_weight"):
        with pytest.raises(ShapeError, match=rf"{name}: {key} has shape \(2, 4\).*broadcasts to \(4,\)"):
            F.binary_cross_entropy_with_logits(gpunet.ones(4), gpunet.ones(4), **{key: gpunet.ones(2, 4)})


@pytest.mark.parametrize("name", [*ELEMENTWISE[:2], *ELEMENTWISE[3:], "cross_entropy"])
def test_deprecated_reductions_warn(name: str, device: str) -> None:
    x, y = gpunet.tensor(LOGITS, device=device), gpunet.rand(4, 3)
    f = getattr(F, name)
    for size_average, reduce in ((None, False), (False, None), (True, True), (False, False), (None, True), (False, True)):
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        with pytest.warns(UserWarning, match=f"{name}: size_average and reduce are deprecated; pass reduction='{reduction}'"):
            loss = f(x, y, size_average=size_average, reduce=reduce)
        assert loss.tolist() == f(x, y, reduction=reduction).tolist()
    with pytest.raises(ArgumentError, match=rf"{name}: size_average='sum'; expected a bool or None, or reduction='sum'"):
        f(x, y, size_average="sum")
    with pytest.warns(UserWarning, match="MSELoss: size_average.*'sum'"):
        assert nn.MSELoss(False).reduction == "sum"


@pytest.mark.parametrize("name", ELEMENTWISE[:3])
def test_weights_of_elements_match_torch(name: str, device: str, torch: Any) -> None:
    x, y, w = numpy.random.default_rng(3).random(size=(3, 4, 3)).astype("float32")
    for reduction in ("mean", "sum", "none"):
        theirs = getattr(torch.nn.functional, name)(*map(torch.tensor, (x, y)), weight=torch.tensor(w), reduction=reduction)
        mine = getattr(F, name)(*map(gpunet.tensor, (x, y)), weight=gpunet.tensor(w), reduction=reduction)
        numpy.testing.assert_allclose(mine.cpu().numpy(), theirs.numpy(), rtol=1e-5)
    with pytest.raises(ShapeError, match=rf"{name}: weight has shape \(3,\); expected that of the input, \(4, 3\)"):
        getattr(F, name)(gpunet.tensor(x), gpunet.tensor(y), weight=gpunet.tensor(w[0]))


@pytest.mark.parametrize("name", [*ELEMENTWISE[:3], "binary_cross_entropy", "multilabel_soft_margin_loss"])
def test_weighted_losses_of_halves_are_rounded_once(name: str, device: str) -> None:
    generator = numpy.random.default_rng(6)
    x, y = generator.random((2, 2, 16)).astype("float16")
    w = generator.permutation([*range(1, 17), *range(-16, 0)]).reshape(2, 16) / 16  # so that terms cancel

    def loss(dtype: str) -> Any:
        inputs = [gpunet.tensor(a, dtype=getattr(gpunet, dtype)) for a in (x, y, w)]
        return getattr(F, name)(*inputs[:2], weight=inputs[2], reduction="sum")

    found, exact = loss("float16"), loss("float64")
    assert found.dtype == gpunet.float16
    assert abs(found.item() - exact.item()) <= 0.51 * 2.0**-10 * abs(exact.item())


@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy"])
def test_dtypes_that_differ_promote_as_in_torch(name: str, device: str, torch: Any) -> None:
    for of_input, of_target in (("float32", "float64"), ("float64", "float32"), ("float16", "float32")):
        if name == "cross_entropy" and of_input == "float16":
            continue  # PyTorch computes log_softmax in float16
        if "binary" in name and of_input == "float64":
            continue  # PyTorch's result has the dtype of the target, even where that is the narrower one
        values = []
        for module in (gpunet, torch):
            x = module.tensor(LOGITS.tolist(), dtype=getattr(module, of_input))
            y = module.tensor(abs(LOGITS).tolist(), dtype=getattr(module, of_target))
            values.append(getattr(module.nn.functional, name)(x, y))
        assert str(values[0].dtype) == str(values[1].dtype).removeprefix("torch.")
        numpy.testing.assert_allclose(values[0].item(), values[1].item(), rtol=2e-3 if "16" in of_input else 1e-6)


@pytest.mark.parametrize(
    "logits, target, message",
    [
        ((4, 3), (5,), r"\(4, 3\), target \(5,\).*labels of shape \(4,\) or probabilities of shape \(4, 3\)"),
        ((4, 3), (4, 1), r"\(4, 1\).*\(4,\)"),
        ((4, 3, 2), (4, 3), r"\(4, 3\).*\(4, 2\)"),
        ((3,), (2,), r"\(2,\).*\(\)"),
        ((), (), "no classes"),
    ],
)
def test_cross_entropy_names_shapes(logits: Any, target: Any, message: str, device: str) -> None:
    with pytest.raises(ShapeError, match=message):
        F.cross_entropy(gpunet.ones(logits), gpunet.zeros(target).long())


def test_cross_entropy_names_dtypes_and_arguments(device: str) -> None:
    x, y = gpunet.tensor(LOGITS, device=device), gpunet.tensor([0, 1, 2, 0])
    with pytest.raises(ShapeError, match=r"probabilities of shape \(4, 3\)"):
        F.cross_entropy(x, gpunet.ones(4))
    with pytest.raises(DtypeError, match="logits of dtype int64"):
        F.cross_entropy(x.long(), y)
    with pytest.raises(DtypeError, match="bool"):
        F.cross_entropy(x, y > 0)
    with pytest.raises(ShapeError, match=r"weight has shape \(2,\).*\(3,\)"):
        F.cross_entropy(x, y, weight=gpunet.ones(2))
    with pytest.raises(ArgumentError, match=r"label_smoothing=1\.5"):
        F.cross_entropy(x, y, label_smoothing=1.5)
    for f in (F.cross_entropy, F.mse_loss):
        with pytest.raises(ArgumentError, match="'average'.*'mean', 'sum', 'none'"):
            f(x, y, reduction="average")
    with pytest.raises(ArgumentError, match="'average'"):
        nn.CrossEntropyLoss(reduction="average")
    with pytest.raises(ArgumentError, match="ignore_index=2, but the target holds probabilities"):
        F.cross_entropy(x, gpunet.ones(4, 3), ignore_index=2)
    with pytest.raises(DtypeError, match="ignore_index.*ndarray; expected an integer"):
        F.cross_entropy(x, y, ignore_index=numpy.array([1.0]))
    with pytest.raises(DtypeError, match="beta=1j.*expected a number"):
        F.smooth_l1_loss(x, x, beta=1j)
    assert F.cross_entropy(x[0], gpunet.tensor([1])).tolist() == F.cross_entropy(x[0], gpunet.tensor(1)).tolist()
    with pytest.raises(ArgumentError, match=r"delta=-1"):
        F.huber_loss(x, x, delta=-1)


@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy", "cross_entropy soft"])
def test_empty_batch(name: str, device: str) -> None:
    f = getattr(F, name.split()[0])
    target = gpunet.zeros(0).long() if name == "cross_entropy" else gpunet.zeros(0, 3)
    for reduction, expected in (("mean", [math.nan]), ("sum", [0.0]), ("none", [])):
        x = gpunet.zeros(0, 3, requires_grad=True)
        loss = f(x, target, reduction=reduction)
        numpy.testing.assert_array_equal(loss.detach().cpu().numpy().reshape(-1), expected)
        loss.sum().backward()
        assert x.grad.shape == (0, 3)


# ---- upstream gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy"])
def test_scaled_loss_scales_the_gradient(name: str, device: str) -> None:
    """The pending scale of the reduction must combine with any further op on the loss."""
    target = gpunet.tensor([0, 1, 2, 0]) if name == "cross_entropy" else gpunet.rand(4, 3)
    gradients = []
    for use in (lambda v: v, lambda v: v * 3.0, lambda v: v + 2.0 * v, lambda v: (v, v.backward(retain_graph=True), v * 2.0)[2]):
        x = leaf(LOGITS)
        use(getattr(F, name)(x, target)).backward()
        gradients.append(x.grad.cpu().numpy())
    for gradient in gradients[1:]:
        numpy.testing.assert_allclose(gradient, 3.0 * gradients[0], rtol=1e-6)


def test_gradients_of_two_losses_on_one_output_add(device: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    x, y = gpunet.tensor(LOGITS, device=device), gpunet.tensor([0, 1, 2, 0])
    gradients = []
    for parts in ((True, False), (False, True), (True, True)):
        out, total = model(x), gpunet.zeros(())
        total = total + F.cross_entropy(out, y) if parts[0] else total
        total = total + 0.5 * F.mse_loss(out, x, reduction="sum") if parts[1] else total
        gradients.append([g.cpu().numpy() for g in gpunet.grad(total, list(model.parameters()))])
    for first, second, both in zip(*gradients):
        numpy.testing.assert_allclose(first + second, both, rtol=1e-4, atol=1e-6)


def test_loss_modules_equal_their_functions(device: str) -> None:
    x, y, labels = gpunet.tensor(LOGITS, device=device), gpunet.rand(4, 3), gpunet.tensor([0, 1, 2, 0])
    for reduction in ("mean", "sum", "none"):
        for module, expected in (
            (nn.MSELoss(reduction=reduction), F.mse_loss(x, y, reduction=reduction)),
            (nn.L1Loss(reduction=reduction), F.l1_loss(x, y, reduction=reduction)),
            (nn.HuberLoss(reduction, 0.5), F.huber_loss(x, y, reduction, 0.5)),
            (nn.SmoothL1Loss(reduction=reduction, beta=0.5), F.smooth_l1_loss(x, y, reduction=reduction, beta=0.5)),
            (nn.BCEWithLogitsLoss(reduction=reduction), F.binary_cross_entropy_with_logits(x, y, reduction=reduction)),
        ):
            assert module(x, y).tolist() == expected.tolist()
        options = {"ignore_index": 1, "reduction": reduction, "label_smoothing": 0.1}
        weighted = nn.CrossEntropyLoss(y[0], **options)
        assert weighted(x, labels).tolist() == F.cross_entropy(x, labels, y[0], **options).tolist()
    assert list(weighted.state_dict()) == ["weight"]


def test_binary_gradient_of_a_confident_negative_is_accurate(device: str) -> None:
    """sigmoid(-20) is 2e-9; computed as 0.5 + 0.5 tanh(-10), it would cancel to 0 in float32."""
    x = gpunet.tensor([-20.0], requires_grad=True)
    nn.functional.binary_cross_entropy_with_logits(x, gpunet.zeros(1), reduction="sum").backward()
    assert x.grad.item() == pytest.approx(math.exp(-20.0) / (1.0 + math.exp(-20.0)), rel=1e-5)


@pytest.mark.parametrize("name, dtypes, expected", [
    ("kl_div", ("float32", "float16"), "float16"),  # of a 0-d input
    ("poisson_nll_loss", ("float32", "float16"), "float16"),
    ("soft_margin_loss", ("bfloat16", "float32"), "bfloat16"),
])  # fmt: skip
def test_dtype_of_the_loss(name: str, dtypes: tuple[str, str], expected: str, device: str) -> None:
    x = gpunet.ones(3 if name == "soft_margin_loss" else (), dtype=getattr(gpunet, dtypes[0]), device=device)
    y = gpunet.ones(3, dtype=getattr(gpunet, dtypes[1]), device=device)
    assert getattr(F, name)(x, y, reduction="sum").dtype == getattr(gpunet, expected)


def test_the_gradient_of_a_hinge_at_0_and_with_the_margin_nan_is_0(device: str) -> None:
    x, y = gpunet.tensor([1.0, 2.0, 3.0], requires_grad=True), gpunet.tensor([1.0, -1.0, 0.5])
    F.hinge_embedding_loss(x, y, math.nan, reduction="sum").backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]
    for loss, target in ((F.multi_margin_loss, 0), (F.multilabel_margin_loss, [0, -1, 1])):
        x = gpunet.tensor([1.25, 0.25, 2.375], dtype=gpunet.float64, requires_grad=True)
        loss(x, gpunet.tensor(target), reduction="sum").backward()
        numpy.testing.assert_allclose(x.grad.tolist(), [-1 / 3, 0.0, 1 / 3])
