"""The Transformer of Vaswani et al. 2017: layers, encoder, decoder, and both together.

In all masks of these modules True is ignored; floating masks are added to the scores.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init
from gpunet.nn.attention import MultiheadAttention
from gpunet.nn.containers import ModuleList
from gpunet.nn.layers import Dropout, Linear
from gpunet.nn.module import Module, with_arguments_of
from gpunet.nn.normalization import LayerNorm
from gpunet.ops.activations import gelu, relu
from gpunet.ops.creation import full
from gpunet.ops.face import as_integer

__all__ = ["Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer"]


def _activation(layer: str, activation: str | Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The function of a name; a function stays as it is."""
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise ArgumentError(f"{layer}: activation={activation!r}; expected 'relu', 'gelu', or a function")
    return relu if activation == "relu" else gelu


class _Layer(Module):
    """Base class of the layers: blocks with residual connections and layer norms.

    Args:
        d_model: features of inputs and result.
        nhead: heads, a divisor of ``d_model``.
        dim_feedforward: features between the two linear layers.
        dropout: the probability with which an element is dropped in training: attention weights, and results of blocks.
        activation: "relu", "gelu", or a function of a tensor.
        layer_norm_eps: added to the variances.
        batch_first: inputs and result are (n, positions, d_model), not (positions, n, d_model).
        norm_first: normalize the input of each block, not the sum behind it (Xiong et al. 2020).
        bias: whether linear layers and norms have biases.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Raises:
        ArgumentError: an argument is out of range, or an unknown activation.
    """

    #: names of the blocks of attention; a layer has a norm and a dropout for each and for the linear layers
    attentions: tuple[str, ...] = ()
    activation: Callable[[Any], Tensor]

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name in self.attentions:
            attention = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype)
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        blocks = range(1, len(self.attentions) + 2)
        for number in blocks:
            setattr(self, f"norm{number}", LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype))
        for number in blocks:
            setattr(self, f"dropout{number}", Dropout(dropout))
        self.activation = _activation(type(self).__name__, activation)

    def _block(self, number: int, x: Any, block: Callable[[Any], Any]) -> Tensor:
        """x plus a block of x, with the norm of this number and its dropout."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        result: Tensor = x + dropout(block(norm(x))) if self.norm_first else norm(x + dropout(block(x)))
        return result

    def _attend(self, number: int, x: Any, memory: Any, mask: Any, padding: Any, is_causal: bool) -> Tensor:
        """A block of attention to memory, or to its own input if that is None."""
        attention = getattr(self, self.attentions[number - 1])
        options = {"attn_mask": mask, "key_padding_mask": padding, "need_weights": False, "is_causal": is_causal}

        def block(x: Any) -> Any:
            source = x if memory is None else memory
            return attention(x, source, source, **options)[0]

        return self._block(number, x, block)

    def _feed_forward(self, x: Any) -> Tensor:
        number = len(self.attentions) + 1
        return self._block(number, x, lambda x: self.linear2(self.dropout(self.activation(self.linear1(x)))))


@with_arguments_of(_Layer)
class TransformerEncoderLayer(_Layer):
    """Attention of a sequence to itself, and two linear layers, each with a residual connection and a layer norm."""

    attentions = ("self_attn",)

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Tensor:
        """Apply the layer.

        Args:
            src: (positions, n, d_model), with ``batch_first`` (n, positions, d_model), or (positions, d_model).
            src_mask: (positions, positions) or (n nhead, positions, positions).
            src_key_padding_mask: (n, positions).
            is_causal: says that ``src_mask`` is the causal mask, so that it need not be read.
        """
        return self._feed_forward(self._attend(1, wrap(src), None, src_mask, src_key_padding_mask, is_causal))


@with_arguments_of(_Layer)
class TransformerDecoderLayer(_Layer):
    """Attention of a sequence to itself and to a memory, and two linear layers, each with a residual connection and a norm."""

    attentions = ("self_attn", "multihead_attn")

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None, tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None, tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Apply the layer.

        Args:
            tgt: (positions, n, d_model), with ``batch_first`` (n, positions, d_model), or (positions, d_model).
            memory: the result of the encoder, with any number of positions.
            tgt_mask, memory_mask: (positions, positions), (positions, positions of the memory), or those for n nhead heads.
            tgt_key_padding_mask, memory_key_padding_mask: (n, positions).
            tgt_is_causal, memory_is_causal: say that a mask is the causal one, so that it need not be read.
        """
        x = self._attend(1, wrap(tgt), None, tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        return self._feed_forward(self._attend(2, x, memory, memory_mask, memory_key_padding_mask, memory_is_causal))


class _Stack(Module):
    """Base class of encoder and decoder: copies of a layer, and a norm behind them."""

    def _add_layers(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        self.num_layers = as_integer(type(self).__name__, "num_layers", num_layers)
        if self.num_layers < 0:
            raise ArgumentError(f"{type(self).__name__}: num_layers={num_layers}; expected 0 or more")
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(self.num_layers)])
        self.norm = norm

    def _normalized(self, x: Any) -> Tensor:
        return wrap(x) if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of layers.

    Args:
        encoder_layer: is copied for each layer, with its parameters.
        num_layers: number of layers.
        norm: applied behind the last one, or None.
        enable_nested_tensor, mask_check: have no effect on results; in PyTorch, they select a faster evaluation.
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None, enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self._add_layers(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None) -> Tensor:
        """Apply the layers; arguments as of :meth:`TransformerEncoderLayer.forward`.  ``is_causal=None`` means False."""
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=bool(is_causal), src_key_padding_mask=src_key_padding_mask)
        return self._normalized(src)


class TransformerDecoder(_Stack):
    """A stack of layers.

    Args:
        decoder_layer: is copied for each layer, with its parameters.
        num_layers: number of layers.
        norm: applied behind the last one, or None.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self._add_layers(decoder_layer, num_layers, norm)

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None, tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None, tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Apply the layers; arguments as of :meth:`TransformerDecoderLayer.forward`.  ``tgt_is_causal=None`` means False."""
        options = {
            "tgt_mask": tgt_mask, "memory_mask": memory_mask, "tgt_key_padding_mask": tgt_key_padding_mask,
            "memory_key_padding_mask": memory_key_padding_mask, "tgt_is_causal": bool(tgt_is_causal),
            "memory_is_causal": memory_is_causal,
        }  # fmt: skip
        for layer in self.layers:
            tgt = layer(tgt, memory, **options)
        return self._normalized(tgt)


class Transformer(Module):
    """An encoder, and a decoder that attends to its result.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype: as of
            :class:`TransformerEncoderLayer`.
        num_encoder_layers, num_decoder_layers: numbers of layers.
        custom_encoder, custom_decoder: modules to use instead.

    Attributes:
        encoder, decoder: their matrices are initialised as by Glorot and Bengio 2010.
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Callable[[Tensor], Tensor] = relu,
        custom_encoder: Any = None, custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        options = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype
        )  # fmt: skip
        self.encoder: Any = custom_encoder
        if custom_encoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
            self.encoder = TransformerEncoder(TransformerEncoderLayer(*options), num_encoder_layers, norm)
        self.decoder: Any = custom_decoder
        if custom_decoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
            self.decoder = TransformerDecoder(TransformerDecoderLayer(*options), num_decoder_layers, norm)
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self, src: Any, tgt: Any, src_mask: Any = None, tgt_mask: Any = None, memory_mask: Any = None,
        src_key_padding_mask: Any = None, tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None, tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Encode ``src`` and decode ``tgt``; masks as of the layers.

        Returns:
            A tensor of the shape of ``tgt``.

        Raises:
            ShapeError: the batch sizes differ, or the features are not ``d_model``.
        """
        src, tgt = wrap(src), wrap(tgt)
        of_batch, text = 0 if self.batch_first else 1, f"Transformer: src {tuple(src.shape)} and tgt {tuple(tgt.shape)}"
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[of_batch] != tgt.shape[of_batch]):
            raise ShapeError(f"{text}; expected the same batch size, dimension {of_batch}")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError(f"{text}; expected d_model={self.d_model} features in the last dimension")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        result: Tensor = self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal,
        )  # fmt: skip
        return result

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """Return the causal mask (sz, sz) to add to scores: -infinity for later keys, else 0."""
        result: Tensor = full((sz, sz), -math.inf, device=device, dtype=dtype).triu(1)
        return result
