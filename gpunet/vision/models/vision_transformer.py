"""Vision transformers: Dosovitskiy et al., "An image is worth 16x16 words", 2021."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init
from gpunet.ops.creation import empty, zeros
from gpunet.ops.join import cat
from gpunet.vision.models.pretrained import refuse_weights

__all__ = ["VisionTransformer", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"]

#: Makes the norm of a number of features.
NormLayer = Callable[[int], nn.Module]


class MLPBlock(nn.Sequential):
    """Two linear layers with GELU and dropout."""

    def __init__(self, in_dim: int, mlp_dim: int, dropout: float) -> None:
        first, second = nn.Linear(in_dim, mlp_dim), nn.Linear(mlp_dim, in_dim)
        super().__init__(first, nn.GELU(), nn.Dropout(dropout), second, nn.Dropout(dropout))
        for layer in (first, second):
            init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            init.normal_(layer.bias, std=1e-6)


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and added to its input.

    Args:
        num_heads: a divisor of ``hidden_dim``.
        hidden_dim: features of each patch.
        mlp_dim: features inside the perceptron.
        dropout: probability of dropout behind attention and in the perceptron.
        attention_dropout: that of the weights of the attention.
        norm_layer: makes the norms.
    """

    def __init__(
        self, num_heads: int, hidden_dim: int, mlp_dim: int, dropout: float, attention_dropout: float, norm_layer: NormLayer
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln_1 = norm_layer(hidden_dim)
        self.self_attention = nn.MultiheadAttention(hidden_dim, num_heads, dropout=attention_dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = norm_layer(hidden_dim)
        self.mlp = MLPBlock(hidden_dim, mlp_dim, dropout)

    def forward(self, input: Tensor) -> Tensor:
        x = self.ln_1(input)
        x = self.dropout(self.self_attention(x, x, x, need_weights=False)[0]) + input
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class Encoder(nn.Module):
    """An embedding of positions, blocks, and a norm; the arguments are those of :class:`EncoderBlock`."""

    def __init__(
        self, seq_length: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int, dropout: float,
        attention_dropout: float, norm_layer: NormLayer,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pos_embedding = nn.Parameter(init.normal_(empty(1, seq_length, hidden_dim), std=0.02))
        self.dropout = nn.Dropout(dropout)
        options = (num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer)
        self.layers = nn.Sequential(
            OrderedDict((f"encoder_layer_{number}", EncoderBlock(*options)) for number in range(num_layers))
        )
        self.ln = norm_layer(hidden_dim)

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.ln(self.layers(self.dropout(input + self.pos_embedding)))
        return result


class VisionTransformer(nn.Module):
    """A transformer of the patches of an image and a token for its class.

    Args:
        image_size: height and width of the images, a multiple of ``patch_size``.
        patch_size: height and width of the patches.
        num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout: see :class:`EncoderBlock`.
        num_classes: size of the result.
        representation_size: features of one more layer before the last; None for no such layer.
        norm_layer: makes the norm of a number of features; LayerNorm with eps 1e-6 if None.

    Raises:
        ArgumentError: ``image_size`` is not a multiple of ``patch_size``.
    """

    def __init__(
        self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int,
        dropout: float = 0.0, attention_dropout: float = 0.0, num_classes: int = 1000, representation_size: int | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ArgumentError(f"VisionTransformer: image_size={image_size}; expected a multiple of patch_size={patch_size}")
        self.image_size, self.patch_size, self.hidden_dim = image_size, patch_size, hidden_dim
        self.conv_proj = nn.Conv2d(3, hidden_dim, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(zeros(1, 1, hidden_dim))
        self.seq_length = (image_size // patch_size) ** 2 + 1
        norm: NormLayer = norm_layer or partial(nn.LayerNorm, eps=1e-6)
        options = (num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm)
        self.encoder = Encoder(self.seq_length, *options)
        layers: list[tuple[str, nn.Module]] = []
        if representation_size is not None:
            before = nn.Linear(hidden_dim, representation_size)
            init.trunc_normal_(before.weight, std=math.sqrt(1 / hidden_dim))
            assert before.bias is not None
            init.zeros_(before.bias)
            layers += [("pre_logits", before), ("act", nn.Tanh())]
        head = nn.Linear(hidden_dim if representation_size is None else representation_size, num_classes)
        self.heads = nn.Sequential(OrderedDict([*layers, ("head", head)]))
        init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / (3 * patch_size**2)))
        for bias in (self.conv_proj.bias, head.bias):
            assert bias is not None
            init.zeros_(bias)
        init.zeros_(head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, image_size, image_size) -> logits (n, num_classes).

        Raises:
            ShapeError: the images have another size.
        """
        if tuple(x.shape[1:]) != (3, self.image_size, self.image_size):
            size = self.image_size
            raise ShapeError(f"VisionTransformer: an input of shape {tuple(x.shape)}; expected (n, 3, {size}, {size})")
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = cat([self.class_token.expand(len(x), -1, -1), patches], 1)
        logits: Tensor = self.heads(self.encoder(tokens)[:, 0])
        return logits


def _vit(
    function: str, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, weights: Any, options: dict[str, Any]
) -> VisionTransformer:
    refuse_weights(function, weights, options)
    sizes = (patch_size, num_layers, num_heads, hidden_dim, 4 * hidden_dim)
    return VisionTransformer(options.pop("image_size", 224), *sizes, **options)


def vit_b_16(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-B with patches of 16 x 16 (see :class:`VisionTransformer`), 86.6 million parameters."""
    return _vit("vit_b_16", 16, 12, 12, 768, weights, kwargs)


def vit_b_32(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-B with patches of 32 x 32 (see :class:`VisionTransformer`), 88.2 million parameters."""
    return _vit("vit_b_32", 32, 12, 12, 768, weights, kwargs)


def vit_l_16(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-L with patches of 16 x 16 (see :class:`VisionTransformer`), 304.3 million parameters."""
    return _vit("vit_l_16", 16, 24, 16, 1024, weights, kwargs)


def vit_l_32(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-L with patches of 32 x 32 (see :class:`VisionTransformer`), 306.5 million parameters."""
    return _vit("vit_l_32", 32, 24, 16, 1024, weights, kwargs)


def vit_h_14(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-H with patches of 14 x 14 (see :class:`VisionTransformer`), 632.0 million parameters."""
    return _vit("vit_h_14", 14, 32, 16, 1280, weights, kwargs)
