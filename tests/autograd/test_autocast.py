"""Autocast: each function computes in the dtype that PyTorch's does, and the gradients have the parameters' dtypes."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd.mode import autocasting, current
from gpunet.errors import ArgumentError, DtypeError, GradientError
from tests.ops.test_ops import to_numpy

#: Calls on the tensors of ``names``; of a tuple the first item counts.
CALLS = (
    "matmul(x, x.mT)", "x @ x.mT", "x.mm(x.mT)", "bmm(b, b.mT)", "mv(x, x[0])", "dot(x[0], x[0])", "vdot(x[0], x[0])",
    "inner(x, x)", "inner(x[0], x[0])", "outer(x[0], x[0])", "kron(x, x)", "tensordot(x, x, 2)", 'einsum("ij,kj->ik", x, x)',
    'einsum("ij,ij->", x, x)', 'einsum("ij->ji", x)', 'einsum("i,j->ij", x[0], x[0])', "addmm(q, q, q)",
    "addmv(q[0], q, q[0])", "addr(q, q[0], q[0])", "baddbmm(c, c, c)", "addbmm(q, c, c)", "chain_matmul(q, q, q)",
    "linalg.multi_dot([q, q])", "linalg.multi_dot([q, q, q])", "linalg.vecdot(x, x)", "linalg.matrix_power(q, 3)",
    "matrix_power(q, 2)", "cov(x)", "corrcoef(x)", "cross(v, v)", "linalg.cross(v, v)", "nn.functional.linear(x, w)",
    "nn.functional.linear(x, w, w[:, 0])", "nn.functional.linear(x, w[0])", "nn.functional.bilinear(x, x, w3)",
    "nn.functional.conv1d(s, k1)", "nn.functional.conv2d(im, k2)", 'nn.functional.conv2d(im, k2, padding="same")',
    "nn.functional.conv3d(vo, k3)", "nn.functional.conv_transpose1d(s, k1.transpose(0, 1))",
    "nn.functional.conv_transpose2d(im, k2.transpose(0, 1))", "nn.functional.conv_transpose3d(vo, k3.transpose(0, 1))",
    "nn.functional.prelu(x, w[0, :1])", "nn.functional.relu(x)", "nn.functional.gelu(x)", "nn.functional.silu(x)",
    "nn.functional.mish(x)", "nn.functional.elu(x)", "nn.functional.selu(x)", "nn.functional.celu(x)",
    "nn.functional.softplus(x)", "nn.functional.softplus(x, 2.0)", "nn.functional.softsign(x)", "nn.functional.logsigmoid(x)",
    "nn.functional.hardswish(x)", "nn.functional.hardtanh(x)", "nn.functional.tanhshrink(x)", "nn.functional.glu(x)",
    "nn.functional.softmax(x, -1)", "nn.functional.log_softmax(x, -1)", "nn.functional.softmin(x, -1)",
    "nn.functional.softmax(x, -1, dtype=float64)", "nn.functional.gumbel_softmax(x)", "nn.functional.layer_norm(x, (8,))",
    "nn.functional.layer_norm(x, (8,), w[0], w[0])", "nn.functional.rms_norm(x, (8,))", "nn.functional.group_norm(im, 1)",
    "nn.functional.batch_norm(im, None, None, training=True)", "nn.functional.instance_norm(im)",
    "nn.functional.local_response_norm(im, 2)", "nn.functional.local_response_norm(s, 2)", "nn.functional.normalize(x)",
    "nn.functional.cosine_similarity(x, x)", "nn.functional.pairwise_distance(x, x)", "cdist(x, x)", "nn.functional.mse_loss(x, x)",
    "nn.functional.l1_loss(x, x)", "nn.functional.huber_loss(x, x)", "nn.functional.smooth_l1_loss(x, x)",
    "nn.functional.cross_entropy(x, t)", "nn.functional.cross_entropy(x, x.softmax(-1))", "nn.functional.nll_loss(x, t)",
    "nn.functional.binary_cross_entropy(x.sigmoid(), (x > 0).to(x.dtype))",
    "nn.functional.binary_cross_entropy_with_logits(x, (x > 0).to(x.dtype))",
    'nn.functional.kl_div(x, x, reduction="batchmean")', "nn.functional.poisson_nll_loss(x, x)",
    "nn.functional.gaussian_nll_loss(x, x, x.abs())", "nn.functional.soft_margin_loss(x, x.sign())",
    "nn.functional.hinge_embedding_loss(x, x.sign())", "nn.functional.margin_ranking_loss(x, x, x.sign())",
    "nn.functional.multi_margin_loss(x, t)", "nn.functional.multilabel_margin_loss(x, ml)",
    "nn.functional.multilabel_soft_margin_loss(x, (x > 0).to(x.dtype))",
    "nn.functional.cosine_embedding_loss(x, x, x[:, 0].sign())", "nn.functional.triplet_margin_loss(x, x, x)",
    "nn.functional.ctc_loss(lp, ct, cl, ctl)", "nn.functional.interpolate(im, scale_factor=2)",
    'nn.functional.interpolate(im, scale_factor=2, mode="bilinear")',
    'nn.functional.interpolate(im, scale_factor=2, mode="bicubic")',
    'nn.functional.interpolate(im, scale_factor=0.5, mode="area")',
    'nn.functional.interpolate(s, scale_factor=2, mode="linear")',
    'nn.functional.interpolate(vo, scale_factor=2, mode="trilinear")', "nn.functional.grid_sample(im, gr)",
    "nn.functional.max_pool1d(s, 2)", "nn.functional.max_pool2d(im, 2)", "nn.functional.max_pool3d(vo, 2)",
    "nn.functional.avg_pool1d(s, 2)", "nn.functional.avg_pool2d(im, 2)", "nn.functional.avg_pool3d(vo, 2)",
    "nn.functional.adaptive_avg_pool1d(s, 2)", "nn.functional.adaptive_avg_pool2d(im, 2)",
    "nn.functional.adaptive_avg_pool3d(vo, 2)", "nn.functional.adaptive_max_pool1d(s, 2)",
    "nn.functional.adaptive_max_pool2d(im, 2)", "nn.functional.adaptive_max_pool3d(vo, 2)", "nn.functional.pad(im, (1, 1))",
    *(f"nn.functional.max_unpool{dims}d(*nn.functional.max_pool{dims}d({x}, 2, return_indices=True), 2)"
      for dims, x in ((1, "s"), (2, "im"), (3, "vo"))),
    "nn.functional.lp_pool1d(s, 2, 2)", "nn.functional.lp_pool2d(im, 2, 2)", "nn.functional.lp_pool3d(vo, 2, 2)",
    'nn.functional.pad(s, (1, 1), "reflect")', 'nn.functional.pad(im, (1, 1, 1, 1), "reflect")',
    'nn.functional.pad(vo, (1, 1, 1, 1, 1, 1), "reflect")', 'nn.functional.pad(s, (1, 1), "replicate")',
    'nn.functional.pad(im, (1, 1, 1, 1), "replicate")', 'nn.functional.pad(vo, (1, 1, 1, 1, 1, 1), "replicate")',
    'nn.functional.pad(im, (1, 1, 1, 1), "circular")', "nn.functional.unfold(im, 2)",
    "nn.functional.pixel_shuffle(im.repeat(1, 2, 1, 1), 2)", "nn.functional.dropout(x, 0.5)", "nn.functional.embedding(t, w)",
    "nn.functional.scaled_dot_product_attention(b, b, b)",
    "x.exp()", "x.abs().log()", "x.abs().log1p()", "x.abs().log2()", "x.abs().log10()", "x.expm1()", "x.exp2()",
    "x.abs().sqrt()", "x.abs().rsqrt()", "x.reciprocal()", "1.0 / x", "x ** 2", "x.abs() ** x", "2.0 ** x", "x.pow(2.0)",
    "x.sin()", "x.tan()", "x.sinh()", "x.cosh()", "x.tanh()", "x.sigmoid()", "x.clamp(-1, 1).acos()", "x.clamp(-1, 1).asin()",
    "x.atan()", "x.erf()", "x.clamp(-0.5, 0.5).erfinv()", "x.lgamma()", "atan2(x, x)", "x.sum()", "x.sum(0)",
    "x.sum(0, dtype=float64)", "x.mean()", "x.mean(1)", "x.prod()", "x.prod(0)", "x.cumsum(0)", "x.cumprod(0)", "x.var()",
    "x.std(0)", "x.norm()", "x.norm(dim=0)", "x.logsumexp(0)", "x.max()", "x.amax(0)", "x.median()", "x.quantile(0.5)",
    "x.nanquantile(0.5)", "x.nansum()", "x.sort().values", "x.topk(2).values", "x.trace()", "dist(x, x)", "linalg.norm(x)",
    "linalg.vector_norm(x)", "linalg.matrix_norm(x)", "linalg.inv(q)", "linalg.det(q)", "linalg.slogdet(q).logabsdet",
    "linalg.cholesky(q @ q.mT + eye)", "linalg.qr(q).R", "linalg.eigh(q).eigenvalues", "linalg.eigvalsh(q)",
    "linalg.svd(q).S", "linalg.svdvals(q)", "linalg.solve(q, q)", "linalg.lstsq(q, q).solution", "linalg.pinv(q)",
    "linalg.cond(q)", "linalg.matrix_rank(q)", "inverse(q)", "pinverse(q)", "logdet(q @ q.mT + eye)", "qr(q).R", "svd(q).S",
    "cholesky(q @ q.mT + eye)", "cholesky_inverse(eye)", "cholesky_solve(q, eye)", "lu_solve(q, *linalg.lu_factor(eye))",
    "linalg.householder_product(q, q[0])", "linalg.inv_ex(q).inverse", "linalg.tensorinv(q, 1)", "linalg.tensorsolve(q, q[0])",
    "renorm(x, 2.0, 0, 1.0)", "pdist(x)", "linalg.cholesky_ex(q @ q.mT + eye).L", "linalg.eig(eye).eigenvalues",
    "linalg.eigvals(eye)", "geqrf(q).a", "orgqr(q, q[0])", "ormqr(q, q[0], q)", "triangular_solve(q, eye).solution",
    "nuclear_norm(q)", "frobenius_norm(q, (0, 1))", "native_layer_norm(x, (8,), w[0], w[0], 1e-5)", "conv_tbc(b, c, x[0, :4])",
    "convolution(im, k2, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)", "grid_sampler(im, gr, 0, 0, False)",
    "grid_sampler_2d(im, gr, 0, 0, False)", "grid_sampler_3d(vo, gr3, 0, 0, False)",
    "nn.functional.fractional_max_pool2d(im, 2, output_size=2)", "nn.functional.fractional_max_pool3d(vo, 2, output_size=2)",
    "rnn_relu_cell(x, x[:, :5], w, w[:, :5])", "rnn_tanh_cell(x, x[:, :5], w, w[:, :5])",
    "gru_cell(x, x[:, :2], w6, w6[:, :2])", "lstm_cell(x, (x[:, :1], x[:, :1]), w6[:4], w6[:4, :1])",
    "cat([x, f])", "stack([x, f])",
    "where(x > 0, x, f)", "x + f", "x * f", "addcmul(x, f, x)", "addcdiv(x, f, x.abs() + 1)", "lerp(x, x, 0.5)",
    "x.index_copy(0, t[:1], f[:1])", "x.scatter(0, t[:, None], x)", "x.index_add(0, t[:1], x[:1])", "maximum(x, f)",
    "diff(x)", "trapezoid(x)", "nan_to_num(x)", "x.tril()", "x.round()", "hypot(x, x)", "logaddexp(x, x)",
    "nn.functional.one_hot(t)", "x.to(float64) @ x.to(float64).mT", "x.to(float64).log()", "x.long().sum()",
)  # fmt: skip

#: Calls with another dtype than PyTorch's, and why.
DIFFERENT = {
    "inner(x[0], x[0])": "a product, as all of them are",
    "tensordot(x, x, 2)": "a product, as all of them are",
    'einsum("ij->ji", x)': "as on a GPU",
    'einsum("i,j->ij", x[0], x[0])': "as on a GPU",
    "linalg.pinv(q)": "computed in float32 to the end, as pinverse",
    "nn.functional.local_response_norm(s, 2)": "in float32, as with images",
    "convolution(im, k2, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)": "as nn.functional.conv2d, and as on a GPU",
    **{call: "the products inside, as in the other cells and on a GPU"
       for call in ("gru_cell(x, x[:, :2], w6, w6[:, :2])", "lstm_cell(x, (x[:, :1], x[:, :1]), w6[:4], w6[:4, :1])")},
}

#: The rules on a GPU, of each a few calls with float16 and float32 tensors; PyTorch without a GPU cannot run them.
ON_GPU = {
    "float16": (
        "matmul(x, x.mT)", "x @ x.mT", "mv(x, x[0])", "addr(q, q[0], q[0])", 'einsum("ij,kj->ik", x, x)', "bmm(b, b.mT)",
        "nn.functional.linear(x, w)", "nn.functional.conv2d(im, k2)",
        "nn.functional.conv_transpose2d(im, k2.transpose(0, 1))", "nn.functional.prelu(x, w[0, :1])",
        "linalg.multi_dot([q, q, q])", "linalg.vecdot(x, x)", "nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))(x)",
        "conv_tbc(b, c, x[0, :4])", "convolution(im, k2, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)",
        "gru_cell(x, x[:, :2], w6, w6[:, :2])", "rnn_tanh_cell(x, x[:, :5], w, w[:, :5])",
        "nn.Conv2d(2, 3, 3)(im)", "nn.functional.scaled_dot_product_attention(b, b, b)",
    ),
    "float32": (
        "x.exp()", "x.abs().log()", "x.abs().log1p()", "x.expm1()", "x ** 2", "2.0 ** x", "x.pow(2.0)", "1.0 / x",
        "x.reciprocal()", "x.abs().rsqrt()", "x.tan()", "x.cosh()", "x.sinh()", "x.clamp(-1, 1).acos()",
        "x.clamp(-0.5, 0.5).erfinv()", "x.sum()", "x.prod()", "x.cumsum(0)", "x.cumprod(0)", "x.norm()", "x.logsumexp(0)",
        "dist(x, x)", "linalg.vector_norm(x)", "nn.functional.softmax(x, -1)", "nn.functional.log_softmax(x, -1)",
        "nn.functional.softmin(x, -1)", "nn.functional.softplus(x)", "nn.Sequential(nn.Linear(8, 3), nn.Softplus())(x)",
        "nn.functional.layer_norm(x, (8,))", "nn.LayerNorm(8)(x)", "nn.functional.group_norm(im, 1)",
        "nn.GroupNorm(1, 2)(im)", "nn.functional.rms_norm(x, (8,))", "nn.functional.cosine_similarity(x, x)",
        "nn.functional.pairwise_distance(x, x)", "cdist(x, x)", "renorm(x, 2.0, 0, 1.0)",
        "pdist(x)", "nuclear_norm(q)", "frobenius_norm(q, (0, 1))", "native_layer_norm(x, (8,), w[0], w[0], 1e-5)",
        "nn.functional.normalize(x)", "nn.functional.cross_entropy(x, t)",
        "nn.functional.nll_loss(x, t)", "nn.functional.mse_loss(x, x)", "nn.functional.kl_div(x, x, reduction='sum')",
        "nn.functional.gaussian_nll_loss(x, x, x.abs())", "nn.functional.binary_cross_entropy_with_logits(x, x.sigmoid())",
        "nn.functional.interpolate(im, scale_factor=2)", "nn.functional.interpolate(im, scale_factor=2, mode='bilinear')",
        "addcmul(x, f, x)", "addcdiv(x, f, x.abs() + 1)", "atan2(x, f)", "cat([x, f])", "x + f",
        "x.scatter_add(0, t[:, None], f)", "x.index_put((t[:1],), f[:1])",
    ),
    "the input's": (
        "nn.functional.relu(x)", "nn.functional.gelu(x)", "x.sigmoid()", "x.tanh()", "x.abs().sqrt()", "x.sin()", "x.mean()",
        "x.var()", "x.amax(0)", "nn.functional.max_pool2d(im, 2)", "nn.functional.avg_pool2d(im, 2)",
        "nn.functional.max_pool3d(vo, 2)", "nn.functional.pad(s, (1, 1), 'reflect')", "nn.functional.dropout(x, 0.5)",
        "nn.functional.embedding(t, w)", "x.trace()", "nn.functional.interpolate(im, scale_factor=0.5, mode='area')",
        "nn.functional.batch_norm(im, None, None, training=True)", "dot(x[0], x[0])", "cross(v, v)", "tensordot(x, x, 2)",
    ),
    "float64": (
        "x.double() @ x.double().mT", "x.double().log()", "x.sum(dtype=float64)",
        "nn.functional.linear(x.double(), w.double())",
    ),
    "int64": (
        "t.sum()", "t @ t",
    ),
    "complex64": (
        "polar(x, x)", "view_as_complex(q[:, :2].contiguous())", "stft(x[0], 4, window=f[0, :4], return_complex=True)",
    ),
}  # fmt: skip


def names(library: Any, dtype: str, device: str) -> dict[str, Any]:
    """The names in a call: those of the library, and tensors with the same numbers in each."""
    random = numpy.random.default_rng(0)

    def make(*shape: int, of: str = dtype) -> Any:
        return library.as_tensor(random.standard_normal(shape).astype("float32")).to(device).to(getattr(library, of))

    tensors = {
        "x": make(4, 8), "f": make(4, 8, of="float32"), "b": make(2, 3, 4), "q": make(4, 4), "c": make(2, 4, 4), "v": make(4, 3),
        "w": make(5, 8), "w3": make(2, 8, 8), "s": make(2, 3, 8), "k1": make(2, 3, 3), "im": make(2, 2, 6, 6),
        "k2": make(3, 2, 3, 3), "vo": make(2, 2, 6, 6, 6), "k3": make(3, 2, 3, 3, 3), "gr": make(2, 5, 5, 2),
        "gr3": make(2, 2, 2, 2, 3), "w6": make(6, 8),
        "lp": make(6, 2, 5).log_softmax(-1).to(getattr(library, dtype)),
    }  # fmt: skip
    integers = {
        "t": [0, 1, 2, 3], "ml": [[0, 1, -1, 0, 0, 0, 0, 0]] * 4, "ct": [[1, 2], [2, 3]], "cl": [6, 6], "ctl": [2, 2],
    }  # fmt: skip
    tensors |= {name: library.as_tensor(values).to(device) for name, values in integers.items()}
    tensors["eye"] = library.eye(4).to(device).to(getattr(library, dtype))
    public = {name: getattr(library, name) for call in CALLS for name in _words(call) if hasattr(library, name)}
    more = {name: getattr(library, name) for name in ("nn", "linalg", "float64", "atan2", "dist", "mv", *_COMPLEX)}
    return public | more | tensors


_COMPLEX = ("polar", "view_as_complex", "stft")


def _words(call: str) -> list[str]:
    return "".join(c if c.isidentifier() or c.isdigit() else " " for c in call).split()


def result_dtype(library: Any, call: str, values: dict[str, Any], device: str, half: str) -> str:
    with library.autocast(device, dtype=getattr(library, half)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = eval(call, dict(values))
    return str((result[0] if isinstance(result, tuple) else result).dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_result_dtypes_on_the_cpu_are_those_of_torch(dtype: str, torch: Any) -> None:
    ours, theirs = names(gpunet, dtype, "cpu"), names(torch, dtype, "cpu")
    differing, compared = {}, 0
    for call in CALLS:
        try:
            expected = result_dtype(torch, call, theirs, "cpu", "bfloat16")
        except (RuntimeError, NotImplementedError):  # PyTorch does not compute it in bfloat16
            continue
        compared += 1
        if (found := result_dtype(gpunet, call, ours, "cpu", "bfloat16")) != expected:
            differing[call] = f"{found}, not {expected}"
    assert compared > 0.9 * len(CALLS)
    assert differing.keys() <= DIFFERENT.keys(), differing
    assert dtype == "bfloat16" or differing.keys() >= {call for call in DIFFERENT if "(s, 2)" not in call}


def test_result_dtypes_on_a_gpu(device: str) -> None:
    if device == "cpu":
        pytest.skip("the rules of a GPU, which hold on the emulated one, too")
    values = names(gpunet, "float16", device)
    for expected, calls in ON_GPU.items():
        for call in calls:
            wanted = "float16" if expected == "the input's" else expected
            assert result_dtype(gpunet, call, values, device, "float16") == wanted, call
    values = names(gpunet, "float32", device)
    for call in (*ON_GPU["float32"], *ON_GPU["the input's"]):
        assert result_dtype(gpunet, call.replace(".double()", ""), values, device, "float16") == (
            "float16" if "Linear" in call and "Softplus" not in call else "float32"
        ), call


def test_every_function_that_torch_autocasts_is_in_the_tables(torch: Any) -> None:
    """So that a function that is added gets its rule."""
    words = {word for call in (*CALLS, *sum(ON_GPU.values(), ())) for word in _words(call)}
    missing = set()
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and any(
            torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in ("AutocastCPU", "AutocastCUDA")
        ):
            short = name.removeprefix("aten::").split(".")[0]
            place = gpunet.linalg if short.startswith("linalg_") else nn.functional if hasattr(nn.functional, short) else gpunet
            short = short.removeprefix("linalg_")
            if hasattr(place, short) and short not in words:
                missing.add(short)
    assert not missing


def test_gradients_have_the_dtypes_of_parameters(device: str) -> None:
    convolution = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()
    model = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(32, 3), nn.LayerNorm(3)).to(device)
    x, y = gpunet.randn(5, 1, 6, 6, device=device), gpunet.tensor([0, 1, 2, 0, 1], device=device)
    with gpunet.autocast(device, dtype=gpunet.float16):
        assert model[0](x).dtype == gpunet.float16
        loss = nn.functional.cross_entropy(model(x), y)
    assert loss.dtype == gpunet.float32
    loss.backward()
    assert all(p.grad.dtype == p.dtype == gpunet.float32 for p in model.parameters())
    wide = nn.functional.cross_entropy(model(x), y)
    assert abs(loss.item() - wide.item()) < 0.01


def test_a_change_of_a_weight_inside_the_block_is_seen() -> None:
    """PyTorch's cache of cast weights keeps the old one."""
    layer, x = nn.Linear(3, 3, bias=False), gpunet.ones(1, 3)
    with gpunet.no_grad(), gpunet.autocast("cpu"):
        before = layer(x)
        layer.weight.mul_(2.0)
        numpy.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(before * 2))


def test_backward_inside_the_block_computes_in_the_dtypes_of_forward() -> None:
    x = gpunet.randn(4, 4, requires_grad=True)
    gradients = []
    for is_inside in (False, True):
        x.grad = None
        with gpunet.autocast("cpu"):
            loss = (x @ x).exp().log_softmax(-1).square().sum()
            if is_inside:
                loss.backward()
                assert gpunet.is_autocast_enabled("cpu")
        if not is_inside:
            loss.backward()
        gradients.append(to_numpy(x.grad))
    numpy.testing.assert_array_equal(*gradients)


def test_second_derivatives_pass_a_cast() -> None:
    x = gpunet.tensor([[2.0]], requires_grad=True)
    with gpunet.autocast("cpu"):
        y = (x @ x) @ x
    (first,) = gpunet.grad(y.sum(), x, create_graph=True)
    (second,) = gpunet.grad(first.sum(), x)
    assert (first.item(), second.item(), second.dtype) == (12.0, 12.0, gpunet.float32)


def test_blocks_nest_and_switch_off() -> None:
    x = gpunet.ones(2, 2)
    block = gpunet.autocast("cpu")
    with block:
        with gpunet.autocast("cpu", enabled=False):
            assert (x @ x).dtype == gpunet.float32 and not gpunet.is_autocast_enabled("cpu")
        with gpunet.autocast("cpu", dtype=gpunet.float16), block:  # entered again
            assert (x @ x).dtype == gpunet.bfloat16
        assert gpunet.get_autocast_dtype("cpu") == gpunet.bfloat16
    assert current.autocast is None and (x @ x).dtype == gpunet.float32
    with pytest.raises(ZeroDivisionError), block:
        1 / 0  # noqa: B018
    assert current.autocast is None

    @gpunet.autocast("cpu")
    def product(a: Any) -> Any:
        """A product."""
        return a @ a

    assert product(x).dtype == gpunet.bfloat16 and product.__doc__ == "A product."


def test_the_mode_is_that_of_a_thread() -> None:
    found: list[bool] = []
    with gpunet.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append(gpunet.is_autocast_enabled("cpu")))
        thread.start()
        thread.join()
    assert found == [False]


def test_switches_without_a_block() -> None:
    x = gpunet.ones(2, 2)
    try:
        gpunet.set_autocast_dtype("cpu", gpunet.float16)
        gpunet.set_autocast_enabled("cpu", True)
        assert (x @ x).dtype == gpunet.float16 and gpunet.is_autocast_cpu_enabled()
        gpunet.set_autocast_cpu_dtype(gpunet.bfloat16)
        assert (x @ x).dtype == gpunet.bfloat16 and gpunet.get_autocast_cpu_dtype() == gpunet.bfloat16
    finally:
        gpunet.set_autocast_cpu_enabled(False)
        current.autocast_dtypes = {}
    assert current.autocast is None and gpunet.get_autocast_gpu_dtype() == gpunet.float16
    assert gpunet.is_autocast_available("cpu") and not gpunet.is_autocast_available("xpu")


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ArgumentError, match="autocast: device_type='gpu'; expected one of 'cpu', 'cuda', 'emulated'"):
        gpunet.autocast("gpu")
    with pytest.raises(DtypeError, match="autocast: device_type=None has type NoneType; expected a string"):
        gpunet.autocast(None)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="set_autocast_dtype: dtype=float64; expected float16 or bfloat16"):
        gpunet.set_autocast_dtype("cpu", gpunet.float64)
    with pytest.warns(UserWarning, match=r"autocast\(dtype=float32\) has no effect; pass float16 or bfloat16"):
        block = gpunet.autocast("cpu", dtype=gpunet.float32)
    with block:
        assert current.autocast is None


def test_probabilities_are_refused_on_a_gpu() -> None:
    x = gpunet.full((2,), 0.5, device="emulated")
    with gpunet.autocast("emulated"), pytest.raises(ArgumentError, match="use binary_cross_entropy_with_logits"):
        nn.functional.binary_cross_entropy(x, x)
    with gpunet.autocast("cpu"):  # another device
        assert nn.functional.binary_cross_entropy(x, x).dtype == gpunet.float32


def test_a_function_of_the_user_runs_in_the_mode_of_its_forward() -> None:
    seen: list[Any] = []

    class Product(gpunet.autograd.Function):
        @staticmethod
        @gpunet.amp.custom_fwd(device_type="cpu")
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(a)
            return a @ a

        @staticmethod
        @gpunet.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            (a,) = ctx.saved_tensors
            seen.append((a.float() @ a.float()).dtype)
            return g @ a.mT + a.mT @ g

    class InFloat32(Product):
        @staticmethod
        @gpunet.amp.custom_fwd(device_type="cpu", cast_inputs=gpunet.float32)
        def forward(ctx: Any, a: Any) -> Any:
            assert a.dtype == gpunet.float32
            ctx.save_for_backward(a)
            return a @ a

    x = gpunet.ones(2, 2, requires_grad=True)
    with gpunet.autocast("cpu"):
        y, z = Product.apply(x), InFloat32.apply(x.bfloat16())
    assert (y.dtype, z.dtype) == (gpunet.bfloat16, gpunet.float32)
    y.sum().backward()
    z.sum().backward()
    assert seen == [gpunet.bfloat16, gpunet.float32] and x.grad.dtype == gpunet.float32


def test_a_checkpoint_repeats_its_forward_pass_in_its_mode() -> None:
    layer, x = nn.Linear(4, 4), gpunet.randn(3, 4)
    gradients = []
    for run in (layer, lambda x: gpunet.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)):
        layer.zero_grad()
        with gpunet.autocast("cpu"):
            y = run(x)
        y.float().square().sum().backward()
        gradients.append(to_numpy(layer.weight.grad))
    numpy.testing.assert_array_equal(*gradients)


def test_the_mode_is_a_guard_of_captured_steps(backend: str) -> None:
    x = gpunet.ones(4, 4)
    step = gpunet.capture(lambda a: a @ a, backend=backend)
    for _ in range(2):
        assert step(x).dtype == gpunet.float32
        with gpunet.autocast("cpu"):
            assert step(x).dtype == gpunet.bfloat16
        with gpunet.autocast("cpu", dtype=gpunet.float16):
            assert step(x).dtype == gpunet.float16
    assert len(step.recordings) == 3

    def inner(a: Any) -> Any:
        with gpunet.autocast("cpu"):
            return a @ a

    step = gpunet.capture(inner, backend=backend)
    assert [step(x).dtype for _ in range(2)] == [gpunet.bfloat16] * 2
    assert len(step.recordings) == 1
    try:
        gpunet.set_autocast_cpu_dtype(gpunet.float16)
        assert step(x).dtype == gpunet.float16
    finally:
        current.autocast_dtypes = {}


def test_a_captured_training_step_has_the_bits_of_the_eager_one() -> None:
    results = []
    for capture in (lambda step: step, gpunet.capture):
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)
        x, y = gpunet.randn(16, 8), gpunet.randint(3, (16,))

        def step(x: Any, y: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            with gpunet.autocast("cpu"):
                loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = capture(step)
        results.append([run(x, y).item() for _ in range(20)])
    assert results[0] == results[1] and results[0][-1] < results[0][0]


def test_enabling_repeatedly_counts_the_thread_once() -> None:
    before = len(autocasting)
    try:
        for _ in range(5):
            gpunet.set_autocast_enabled("cpu", True)
            assert (gpunet.ones(2, 2) @ gpunet.ones(2, 2)).dtype == gpunet.bfloat16
            gpunet.set_autocast_enabled("cpu", False)
            assert (gpunet.ones(2, 2) @ gpunet.ones(2, 2)).dtype == gpunet.float32
        with gpunet.autocast("cpu"):
            gpunet.set_autocast_enabled("cpu", False)
            gpunet.set_autocast_enabled("cpu", True)
            assert gpunet.is_autocast_enabled("cpu")
        assert len(autocasting) <= before + 1
    finally:
        gpunet.set_autocast_enabled("cpu", False)


def test_custom_fwd_casts_only_tensors_on_its_device() -> None:
    seen = []

    class Function(gpunet.autograd.Function):
        @staticmethod
        @gpunet.amp.custom_fwd(device_type="cpu", cast_inputs=gpunet.float16)
        def forward(ctx: Any, x: Any, *others: Any) -> Any:
            seen.extend(value.dtype for value in (x, *others))
            return x * 1

        @staticmethod
        @gpunet.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            return g, *[None] * 4

    x = gpunet.ones(2)
    with gpunet.autocast("cpu"):
        Function.apply(x, x.double(), x.long(), numpy.ones(2, "float32"), x.to("emulated"))
    assert seen == [gpunet.float16, gpunet.float64, gpunet.int64, gpunet.float32, gpunet.float32]


def test_custom_bwd_without_custom_fwd_is_an_error_in_words() -> None:
    class Product(gpunet.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        @gpunet.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    y = Product.apply(gpunet.ones(2, requires_grad=True))
    with pytest.raises(GradientError, match=r"custom_bwd decorates .*Product.backward, but custom_fwd does not"):
        y.sum().backward()
