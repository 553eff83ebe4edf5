"""GPT, U-Net and autoencoders: shapes, refusals, generated texts, and the loss of the variational one against its formula."""

from __future__ import annotations

from typing import Any

import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.models import GPT, VAE, Autoencoder, UNet, negative_elbo
from gpunet.nn import init


def test_unet_keeps_the_size() -> None:
    model = UNet(2, 3, width=4, depth=2)
    assert model(gpunet.rand(2, 2, 8, 12)).shape == (2, 3, 8, 12)
    expected = r"UNet: an input of shape \(1, 2, 8, 10\); expected \(n, 2, height, width\) with multiples of 4 = 2 \*\* depth; pad"
    with pytest.raises(ShapeError, match=expected):
        model(gpunet.rand(1, 2, 8, 10))
    with pytest.raises(ShapeError, match=r"UNet: an input of shape \(2, 8, 8\)"):
        model(gpunet.rand(2, 8, 8))
    with pytest.raises(ArgumentError, match="UNet: depth=0; expected 1 or more"):
        UNet(1, 1, width=4, depth=0)


def test_unet_has_the_parameters_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """31.0 million for three channels and two classes, as counted from figure 1, with batch norm instead of biases."""
    monkeypatch.setattr(init, "_draw", lambda name, tensor, *arguments, **options: tensor)
    widths = [64, 128, 256, 512, 1024]
    down = sum(9 * (i * o + o * o) + 4 * o for i, o in zip([3, *widths], widths))
    up = sum(4 * 2 * o * o + o + 9 * (2 * o * o + o * o) + 4 * o for o in widths[:-1])
    assert sum(p.numel() for p in UNet(3, 2).parameters()) == down + up + 2 * 64 + 2 == 31_037_698


@pytest.mark.parametrize("size, depth", [(8, 1), (12, 2), (16, 3)])
def test_autoencoders_return_images(size: int, depth: int) -> None:
    x = gpunet.rand(3, 2, size, size)
    plain = Autoencoder(size, 2, latent=5, width=4, depth=depth)
    assert plain.encode(x).shape == (3, 5) and plain(x).shape == x.shape
    vae = VAE(size, 2, latent=5, width=4, depth=depth)
    logits, mean, log_variance = vae(x)
    assert logits.shape == x.shape and mean.shape == log_variance.shape == (3, 5)
    samples = vae.sample(7)
    assert samples.shape == (7, 2, size, size) and samples.min() > 0 and samples.max() < 1


def test_vae_draws_in_training_alone() -> None:
    vae, x = VAE(8, width=2, depth=1), gpunet.rand(2, 1, 8, 8)
    assert vae(x)[0].tolist() != vae(x)[0].tolist()
    vae.eval()
    assert vae(x)[0].tolist() == vae(x)[0].tolist()


@pytest.mark.parametrize("make", [Autoencoder, VAE])
def test_arguments_of_autoencoders(make: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{make.__name__}: image_size=10; expected a multiple of 4 = 2 \*\* depth"):
        make(10)
    with pytest.raises(ArgumentError, match=rf"{make.__name__}: latent=0; expected 1 or more"):
        make(8, latent=0)
    with pytest.raises(DtypeError, match=rf"{make.__name__}.*width.*2\.5"):
        make(8, width=2.5)


def test_negative_elbo_is_that_of_the_distributions(torch: Any) -> None:
    random = torch.Generator().manual_seed(0)
    logits, images, mean, log_variance = (torch.randn(s, generator=random).double() for s in ((4, 6), (4, 6), (4, 3), (4, 3)))
    images = images.sigmoid()
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum()
    pixels = -(images * logits.sigmoid().log() + (1 - images) * (1 - logits.sigmoid()).log()).sum()
    ours = [gpunet.tensor(a.numpy()) for a in (logits, images, mean, log_variance)]
    assert negative_elbo(*ours, beta=2.5).item() == pytest.approx(((pixels + 2.5 * divergence) / 4).item(), rel=1e-12)
    with pytest.raises(ShapeError):
        negative_elbo(ours[0][:, :5], *ours[1:])


def test_generate_takes_the_most_probable_tokens() -> None:
    """With kept keys and values as without."""
    model = GPT(11, context=12, depth=2, num_heads=2, width=8).eval()
    with gpunet.no_grad():
        for parameter in model.parameters():
            parameter *= 30  # so that each token depends on all before it
    start = gpunet.randint(0, 11, (3, 4))
    expected = start
    for _ in range(8):
        expected = gpunet.cat([expected, model(expected)[:, -1].argmax(1, keepdim=True)], 1)
    assert model.generate(start, 8, temperature=0.0).tolist() == expected.tolist()
    assert model.generate(start, 8, top_k=1).tolist() == expected.tolist()
    assert model.generate(start, 8, top_p=1e-6).tolist() == expected.tolist()


def test_several_tokens_behind_a_cache_see_those_before_them() -> None:
    """The logits of a text are those of its parts, one after the other."""
    model = GPT(11, context=9, depth=2, num_heads=2, width=8).eval()
    with gpunet.no_grad():
        for parameter in model.parameters():
            parameter *= 30  # so that each token depends on all before it
    tokens, start, parts = gpunet.randint(0, 11, (3, 9)), 0, []
    caches: list[Any] = [None] * len(model.blocks)
    for size in (2, 3, 1, 3):
        logits, caches = model._run(tokens[:, start : start + size], caches, start)
        parts.append(logits)
        start += size
    difference = (gpunet.cat(parts, 1) - model(tokens)).abs().max()
    assert difference < 1e-5 * model(tokens).abs().max()  # float32, sums in another order


def test_generate_draws_from_the_distribution() -> None:
    model = GPT(6, context=4, depth=1, num_heads=1, width=4).eval()
    with gpunet.no_grad():
        model.tokens.weight *= 60  # far from uniform
    start = gpunet.tensor([[1, 2]]).expand(4000, -1)
    logits = model(start[:1])[0, -1].detach()

    def frequencies(**options: Any) -> Any:
        return gpunet.bincount(model.generate(start, 1, **options)[:, -1], minlength=6) / 4000

    order = logits.argsort(descending=True)
    for temperature in (1.0, 3.0):
        probabilities = (logits / temperature).softmax(0)
        assert (frequencies(temperature=temperature) - probabilities).abs().max() < 0.04
        for count in (2, 4):
            kept = gpunet.zeros(6).index_fill(0, order[:count], 1.0) * probabilities
            expected = kept / kept.sum()
            assert (frequencies(temperature=temperature, top_k=count) - expected).abs().max() < 0.04
            enough = float(kept.sum()) - 1e-4  # the last of them is needed
            assert (frequencies(temperature=temperature, top_p=enough) - expected).abs().max() < 0.04


def test_arguments_of_gpt() -> None:
    with pytest.raises(ArgumentError, match="GPT: width=6, num_heads=4; expected a multiple of num_heads"):
        GPT(5, width=6)
    with pytest.raises(ArgumentError, match="GPT: depth=0; expected 1 or more"):
        GPT(5, depth=0)
    model, tokens = GPT(5, context=4, depth=1, num_heads=1, width=4), gpunet.zeros(1, 3, dtype=gpunet.int64)
    with pytest.raises(ShapeError, match=r"tokens of shape \(1, 5\); expected \(n, length\) with a length up to 4"):
        model(gpunet.zeros(1, 5, dtype=gpunet.int64))
    with pytest.raises(ShapeError, match=r"generate: tokens of shape \(1, 3\) and max_new_tokens=2; .* up to context=4"):
        model.generate(tokens, 2)
    for options, shown in (({"top_k": 6}, "top_k=6; expected 1 to 5"), ({"top_p": 0.0}, "top_p=0.0; expected a number above 0"),
                           ({"temperature": -1.0}, "temperature=-1.0"), ({"temperature": float("nan")}, "temperature=nan"),
                           ({"max_new_tokens": -1}, "max_new_tokens=-1; expected 0 or more")):  # fmt: skip
        with pytest.raises(ArgumentError, match=shown):
            model.generate(tokens, **{"max_new_tokens": 1, **options})
    for options, shown in (({"max_new_tokens": 1.0}, "max_new_tokens=1.0 has type float; expected an integer"),
                           ({"temperature": "1"}, "temperature='1' has type str"), ({"top_k": 2.0}, "top_k=2.0 has type float"),
                           ({"top_p": "a"}, "top_p='a' has type str; expected a number")):  # fmt: skip
        with pytest.raises(DtypeError, match=shown):
            model.generate(tokens, **{"max_new_tokens": 1, **options})
    assert model.head.weight is model.tokens.weight
