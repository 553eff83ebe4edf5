"""Autoencoders of images, plain and variational (Kingma and Welling, "Auto-encoding variational Bayes", 2014)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.ops.face import as_positive
from gpunet.ops.random import randn, randn_like

__all__ = ["VAE", "Autoencoder", "negative_elbo"]


class Autoencoder(nn.Module):
    """Image -> numbers -> image: convolutions that halve the image, a linear layer, and the same backwards.

    Args:
        image_size: height and width of the images, a multiple of 2 ** depth.
        in_channels: channels of the images.
        latent: how many numbers describe an image.
        width: channels after the first convolution; each next one has twice as many.
        depth: how often the image is halved.

    Attributes:
        encoder, decoder: the two halves.

    Raises:
        ArgumentError: an argument is not positive, or ``image_size`` is not a multiple of 2 ** depth.
        DtypeError: an argument is no integer.
    """

    #: numbers that the encoder returns for each of the latent ones
    _numbers_per_latent = 1

    def __init__(self, image_size: int = 28, in_channels: int = 1, latent: int = 32, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        name = type(self).__name__
        given = {"image_size": image_size, "in_channels": in_channels, "latent": latent, "width": width, "depth": depth}
        for key, value in given.items():
            as_positive(name, key, value)
        if image_size % (1 << depth):
            raise ArgumentError(f"{name}: image_size={image_size}; expected a multiple of {1 << depth} = 2 ** depth")
        self.latent = latent
        smallest = image_size >> depth
        widths = [in_channels, *(width << level for level in range(depth))]
        inner = widths[-1] * smallest**2
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for channels, more in pairwise(widths):
            down += [nn.Conv2d(channels, more, 3, stride=2, padding=1), nn.ReLU()]
            up[:0] = [nn.ReLU(), nn.ConvTranspose2d(more, channels, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(inner, self._numbers_per_latent * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, inner), nn.Unflatten(1, (widths[-1], smallest, smallest)), *up)

    def encode(self, x: Tensor) -> Any:
        """Images (n, in_channels, image_size, image_size) -> (n, latent)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """(n, latent) -> images (n, in_channels, image_size, image_size), as logits if the loss takes logits."""
        images: Tensor = self.decoder(z)
        return images

    def forward(self, x: Tensor) -> Any:
        """Images -> their reconstruction, of the same shape."""
        return self.decode(self.encode(x))


class VAE(Autoencoder):
    """A variational autoencoder: the encoder returns a normal distribution, from which the decoder gets a draw.

    The arguments and attributes are those of :class:`Autoencoder`; :func:`negative_elbo` is the loss.
    """

    _numbers_per_latent = 2

    def encode(self, x: Tensor) -> Any:
        """Images (n, in_channels, image_size, image_size) -> means and log variances, each (n, latent)."""
        return self.encoder(x).chunk(2, 1)

    def forward(self, x: Tensor) -> Any:
        """Images -> logits of their reconstruction, means and log variances; in eval mode the mean is decoded, not a draw."""
        mean, log_variance = self.encode(x)
        z = mean + (0.5 * log_variance).exp() * randn_like(mean) if self.training else mean
        return self.decode(z), mean, log_variance

    def sample(self, num_samples: int) -> Tensor:
        """New images (num_samples, in_channels, image_size, image_size), with numbers in 0 .. 1."""
        weight = next(self.parameters())
        return self.decode(randn(num_samples, self.latent, dtype=weight.dtype, device=weight.device)).sigmoid()


def negative_elbo(logits: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """The loss of a VAE: cross-entropy of the pixels + beta * divergence of N(mean, variance) from N(0, 1), for each image.

    Args:
        logits, images: of one shape (n, ...), images with numbers in 0 .. 1.
        mean, log_variance: (n, latent).
        beta: 1 in Kingma and Welling's; larger ones by Higgins et al. 2017.

    Returns:
        The mean over the images, 0-d: the negative evidence lower bound (appendix B of the paper) in nats.

    Raises:
        ShapeError: the shapes of ``logits`` and ``images`` differ.
    """
    pixels = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    divergence = -0.5 * (1.0 + log_variance - mean**2 - log_variance.exp()).sum()
    loss: Tensor = (pixels + beta * divergence) / len(images)
    return loss
