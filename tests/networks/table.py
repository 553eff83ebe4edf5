"""Networks that are trained with gpunet and with PyTorch by the same code.

Each row makes a model and its batches for a library ``m``, gpunet or torch.  A batch is a tuple of arrays; the loss of the model on
it is a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from tests.networks.under_torch import models_of


class Network(NamedTuple):
    """A network and what it is trained on.

    Attributes:
        make: library -> model.
        batch: random numbers -> arrays; float64 and int64.
        loss: (library, model, *tensors) -> the loss, 0-d.
        is_training: False for a network in eval mode.
    """

    make: Callable[[Any], Any]
    batch: Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]
    loss: Callable[..., Any]
    is_training: bool = True


def classify(m: Any, model: Any, x: Any, y: Any) -> Any:
    return m.nn.functional.cross_entropy(model(x), y)


def images(count: int, channels: int, size: int, classes: int = 5) -> Any:
    return lambda random: (random.normal(size=(count, channels, size, size)), random.integers(0, classes, count))


# ---- perceptrons ----------------------------------------------------------------------------------------------------


def mlp(m: Any) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 5)
    )


# ---- images ---------------------------------------------------------------------------------------------------------


def lenet(m: Any) -> Any:
    return models_of(m, "gpunet.vision.models.lenet").LeNet(num_classes=5)


def resnet(m: Any) -> Any:
    """Two stages of basic blocks as in resnet18, narrow: the full network has 512 channels."""
    library = models_of(m, "gpunet.vision.models.resnet")

    class Narrow(library.ResNet):  # type: ignore[name-defined, misc]
        def _make_layer(self, block: Any, planes: int, *arguments: Any) -> Any:
            return super()._make_layer(block, planes // 16, *arguments)

    model = Narrow(library.BasicBlock, [1, 1, 1, 1], num_classes=5)
    model.fc = m.nn.Linear(32, 5)
    return model


def bottlenecks(m: Any) -> Any:
    library = models_of(m, "gpunet.vision.models.resnet")
    nn = m.nn
    down = nn.Sequential(library.conv1x1(6, 16, 2), nn.BatchNorm2d(16))
    grouped = library.Bottleneck(16, 4, groups=2, base_width=32, dilation=2)
    blocks = [library.Bottleneck(6, 4, 2, down), grouped]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def cifar_resnet(m: Any) -> Any:
    return models_of(m, "gpunet.vision.models.resnet_cifar").CifarResNet(14, num_classes=5, width=4)


def vgg(m: Any) -> Any:
    """Convolutions in pairs with batch norm, as vgg13_bn's, without its linear layers of 119 million parameters."""
    nn = m.nn
    features = models_of(m, "gpunet.vision.models.vgg").make_layers([4, 4, "M", 8, 8, "M"], batch_norm=True)
    classifier = [nn.Linear(72, 16), nn.ReLU(inplace=True), nn.Linear(16, 5)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), *classifier)


def mobilenet(m: Any) -> Any:
    setting = [(1, 8, 1, 1), (3, 8, 2, 2), (3, 16, 1, 1)]
    library = models_of(m, "gpunet.vision.models.mobilenetv2")
    return library.MobileNetV2(5, width_mult=0.5, inverted_residual_setting=setting, round_nearest=4, dropout=0.0)


def unet(m: Any) -> Any:
    return models_of(m, "gpunet.models.unet").UNet(2, 3, width=4, depth=2)


def pixels(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    return random.normal(size=(3, 2, 8, 12)), random.integers(0, 3, (3, 8, 12))


def reconstruction(m: Any, model: Any, x: Any) -> Any:
    return m.nn.functional.mse_loss(model(x), x)


def autoencoder(m: Any) -> Any:
    return models_of(m, "gpunet.models.autoencoder").Autoencoder(12, 2, latent=5, width=4)


def vae(m: Any) -> Any:
    return models_of(m, "gpunet.models.autoencoder").VAE(8, latent=3, width=4, depth=1)


def vae_loss(m: Any, model: Any, x: Any, noise: Any) -> Any:
    """As the model's forward, with given noise: the random numbers of the libraries differ."""
    mean, log_variance = model.encode(x)
    logits = model.decode(mean + (0.5 * log_variance).exp() * noise)
    return models_of(m, "gpunet.models.autoencoder").negative_elbo(logits, x, mean, log_variance)


# ---- sequences ------------------------------------------------------------------------------------------------------


def gpt(m: Any) -> Any:
    """The weight of the last layer is that of the embedding."""
    return models_of(m, "gpunet.models.gpt").GPT(13, context=8, depth=2, num_heads=2, width=8)


def texts(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    tokens = random.integers(0, 13, (4, 9))
    return tokens[:, :-1], tokens[:, 1:]


def next_token(m: Any, model: Any, tokens: Any, following: Any) -> Any:
    return m.nn.functional.cross_entropy(model(tokens).flatten(0, 1), following.flatten())


def vit(m: Any) -> Any:
    library = models_of(m, "gpunet.vision.models.vision_transformer")
    return library.VisionTransformer(12, 4, 2, 2, 8, 16, num_classes=5, representation_size=6)


def recurrent(kind: str) -> Any:
    """Two layers that read a series in both directions, and a linear layer that predicts a number."""

    def make(m: Any) -> Any:
        nn = m.nn

        class Predictor(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = getattr(nn, kind)(3, 5, num_layers=2, bidirectional=True, batch_first=True)
                self.last = nn.Linear(10, 1)

            def forward(self, x: Any) -> Any:
                return self.last(self.layers(x)[0][:, -1]).squeeze(1)

        return Predictor()

    return make


def series(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    return random.normal(size=(6, 7, 3)), random.normal(size=6)


# ---- pairs, users and items, equations ------------------------------------------------------------------------------


def siamese(m: Any) -> Any:
    """Koch et al. 2015: one network for both images of a pair."""
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.PReLU(8), nn.Flatten(), nn.Linear(32, 6)
    )


def contrastive(m: Any, model: Any, a: Any, b: Any, is_same: Any) -> Any:
    """Hadsell et al. 2006: same images near, others at a distance of 1 or more."""
    distance = m.nn.functional.pairwise_distance(model(a), model(b))
    return (is_same * distance**2 + (1 - is_same) * (1 - distance).clamp(min=0) ** 2).mean()


def recommender(m: Any) -> Any:
    nn = m.nn

    class Recommender(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(11, 4, padding_idx=0), nn.Embedding(9, 4)
            self.rating = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, users: Any, items: Any) -> Any:
            u, i = self.users(users), self.items(items)
            return self.rating(m.cat([u, i], 1)).squeeze(1) + (u * i).sum(1)

    return Recommender()


def ratings(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    return random.integers(0, 11, 20), random.integers(0, 9, 20), random.normal(size=20)


def regress(m: Any, model: Any, *inputs: Any) -> Any:
    return m.nn.functional.mse_loss(model(*inputs[:-1]), inputs[-1])


def fourier_operator(m: Any) -> Any:
    """Li et al. 2020: layers that multiply the lowest frequencies of functions by learned complex matrices."""
    nn = m.nn

    class SpectralConv1d(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, channels: int, modes: int) -> None:
            super().__init__()
            self.modes = modes
            self.weight = nn.Parameter(m.rand(channels, channels, modes, 2) / channels)

        def forward(self, x: Any) -> Any:
            spectrum = m.fft.rfft(x)
            weight = m.view_as_complex(self.weight)
            low = m.einsum("bix,iox->box", spectrum[:, :, : self.modes], weight)
            out = m.zeros_like(spectrum)
            out[:, :, : self.modes] = low
            return m.fft.irfft(out, n=x.shape[-1])

    class FourierOperator(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, channels: int = 4, modes: int = 3) -> None:
            super().__init__()
            self.lift = nn.Conv1d(2, channels, 1)
            self.spectral = nn.ModuleList([SpectralConv1d(channels, modes) for _ in range(2)])
            self.pointwise = nn.ModuleList([nn.Conv1d(channels, channels, 1) for _ in range(2)])
            self.project = nn.Conv1d(channels, 1, 1)

        def forward(self, x: Any) -> Any:
            x = self.lift(x)
            for spectral, pointwise in zip(self.spectral, self.pointwise):
                x = m.nn.functional.gelu(spectral(x) + pointwise(x))
            return self.project(x)

    return FourierOperator()


def spectral_loss(m: Any, model: Any, x: Any, y: Any) -> Any:
    """The mean square of the error, and the mean magnitude of its spectrum."""
    error = model(x) - y
    return (error**2).mean() + 0.1 * m.fft.rfft(error, norm="ortho").abs().mean()


def pinn(m: Any) -> Any:
    """Raissi et al. 2019: a network that solves a differential equation."""
    nn = m.nn
    return nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1))


def burgers(m: Any, model: Any, points: Any) -> Any:
    """The squared residual of Burgers' equation u_t + u u_x = 0.1 u_xx at points (t, x), and u(0, x) = -sin(pi x)."""
    points = points.detach().requires_grad_()
    u = model(points)
    (slopes,) = m.autograd.grad(u.sum(), points, create_graph=True)
    (curvatures,) = m.autograd.grad(slopes[:, 1].sum(), points, create_graph=True)
    residual = slopes[:, :1] + u * slopes[:, 1:] - 0.1 * curvatures[:, 1:]
    start = m.cat([m.zeros_like(points[:, 1:]), points[:, 1:]], 1)
    return (residual**2).mean() + ((model(start) + (numpy.pi * points[:, 1:]).sin()) ** 2).mean()


NETWORKS = {
    "MLP": Network(mlp, lambda r: (r.normal(size=(16, 7)), r.integers(0, 5, 16)), classify),
    "LeNet": Network(lenet, images(4, 1, 28), classify),
    # the last norms see 1 x 1 pixels: with few images their variance is small, and float32 rounds too much
    "ResNet": Network(resnet, images(8, 3, 32), classify),
    "ResNet in eval mode": Network(resnet, images(4, 3, 32), classify, is_training=False),
    "ResNet of bottlenecks": Network(bottlenecks, images(4, 3, 14), classify),
    "CIFAR ResNet": Network(cifar_resnet, images(4, 3, 12), classify),
    "VGG": Network(vgg, images(4, 3, 12), classify),
    "MobileNet": Network(mobilenet, images(4, 3, 16), classify),
    "U-Net": Network(unet, pixels, classify),
    "autoencoder": Network(autoencoder, lambda r: (r.random((4, 2, 12, 12)),), reconstruction),
    "VAE": Network(vae, lambda r: (r.random((4, 1, 8, 8)), r.normal(size=(4, 3))), vae_loss),
    "GPT": Network(gpt, texts, next_token),
    "ViT": Network(vit, images(4, 3, 12), classify),
    "LSTM": Network(recurrent("LSTM"), series, regress),
    "GRU": Network(recurrent("GRU"), series, regress),
    "siamese": Network(siamese, lambda r: (*r.normal(size=(2, 6, 1, 10, 10)), r.integers(0, 2, 6).astype(float)), contrastive),
    "recommender": Network(recommender, ratings, regress),
    "Fourier operator": Network(fourier_operator, lambda r: (r.normal(size=(3, 2, 16)), r.normal(size=(3, 1, 16))), spectral_loss),
    "PINN": Network(pinn, lambda r: (r.random((20, 2)),), burgers),
}  # fmt: skip
