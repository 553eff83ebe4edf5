"""GPT: Radford et al., "Language models are unsupervised multitask learners", 2019 (GPT-2)."""

from __future__ import annotations

import math
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init
from gpunet.nn.functional import gelu, scaled_dot_product_attention, softmax
from gpunet.ops.creation import arange, ones
from gpunet.ops.face import as_integer, as_number, as_positive
from gpunet.ops.join import cat
from gpunet.ops.random import multinomial

__all__ = ["GPT"]

#: Keys and values of the tokens so far, each (n, heads, tokens, head size).
Cache = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Causal attention and a perceptron, each behind a layer norm and added to its input.

    Args:
        width: features of each token.
        num_heads: a divisor of ``width``.
        dropout: probability of dropout behind both parts, and of the weights of the attention.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Tokens (n, tokens, width), behind those of the cache, -> the same shape, and the cache with them."""
        n, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        if cache is not None:
            k, v = cat([cache[0], k], 2), cat([cache[1], v], 2)
        past = k.shape[2] - tokens
        mask = ones(tokens, past + tokens, dtype=bool, device=x.device).tril(past) if past and tokens > 1 else None
        p = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, mask, p, is_causal=past == 0)
        x = x + self.drop(self.projection(y.transpose(1, 2).reshape(n, tokens, width)))
        return x + self.drop(self.down(gelu(self.up(self.norm2(x)), approximate="tanh"))), (k, v)


class GPT(nn.Module):
    """A language model: it tells from each token and those before it which comes next.

    Args:
        vocabulary: number of tokens.
        context: the most tokens of a text.
        depth: number of blocks.
        num_heads: heads of attention, a divisor of ``width``.
        width: features of each token.
        dropout: probability of dropout.

    Attributes:
        tokens: the embedding of tokens; its weight is that of the last layer, too (Press and Wolf 2017).
        positions: the embedding of positions.

    Raises:
        ArgumentError: an argument is not positive, or ``num_heads`` does not divide ``width``.
        DtypeError: an argument is no integer.
    """

    def __init__(
        self, vocabulary: int, context: int = 256, depth: int = 4, num_heads: int = 4, width: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        given = {"vocabulary": vocabulary, "context": context, "depth": depth, "num_heads": num_heads, "width": width}
        for key, value in given.items():
            as_positive("GPT", key, value)
        if width % num_heads:
            raise ArgumentError(f"GPT: width={width}, num_heads={num_heads}; expected a multiple of num_heads")
        self.context = context
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # residual layers are smaller in deep networks, as in GPT-2
                is_residual = name.endswith(("projection.weight", "down.weight"))
                init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * depth) if is_residual else 0.02)
            elif name.endswith("bias"):
                init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, length), integers, -> logits (n, length, vocabulary) of the token behind each.

        Raises:
            ShapeError: the text is longer than the context, or no matrix.
        """
        return self._run(tokens, [None] * len(self.blocks), 0)[0]

    def _run(self, tokens: Tensor, caches: list[Any], start: int) -> tuple[Tensor, list[Any]]:
        """Logits of tokens at the positions from ``start`` on, and the caches with them."""
        if tokens.ndim != 2 or start + tokens.shape[1] > self.context:
            raise ShapeError(f"GPT: tokens of shape {tuple(tokens.shape)}; expected (n, length) with a length up to {self.context}")
        places = arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.drop(self.tokens(tokens) + self.positions(places))
        found = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block(x, cache)
            found.append(cache)
        logits: Tensor = self.head(self.norm(x))
        return logits, found

    @no_grad()
    def generate(
        self, tokens: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Tensor:
        """Continue texts: draw one token after the other.  Keys and values of earlier tokens are kept, not computed again.

        In eval mode dropout is off; call ``model.eval()`` before.

        Args:
            tokens: the beginnings (n, length), integers, at least one token.
            max_new_tokens: how many to draw; with the beginning at most ``context``.
            temperature: divides the logits; 0 takes the most probable token.
            top_k: draw from the k most probable tokens alone (Fan et al. 2018).
            top_p: draw from the most probable tokens that together have at least this probability (Holtzman et al. 2020).

        Returns:
            (n, length + max_new_tokens).

        Raises:
            ArgumentError: an argument is out of range.
            DtypeError: an argument is no number, or no integer.
            ShapeError: the beginning has no token, or the text would be longer than the context.
        """
        vocabulary = self.tokens.weight.shape[0]
        if not as_number("generate", "temperature", temperature) >= 0.0:
            raise ArgumentError(f"generate: temperature={temperature}; expected 0 or more")
        if as_integer("generate", "max_new_tokens", max_new_tokens) < 0:
            raise ArgumentError(f"generate: max_new_tokens={max_new_tokens}; expected 0 or more")
        if top_k is not None and not 1 <= as_integer("generate", "top_k", top_k) <= vocabulary:
            raise ArgumentError(f"generate: top_k={top_k}; expected 1 to {vocabulary}, the size of the vocabulary, or None")
        if top_p is not None and not 0.0 < as_number("generate", "top_p", top_p) <= 1.0:
            raise ArgumentError(f"generate: top_p={top_p}; expected a number above 0, up to 1, or None")
        if tokens.ndim != 2 or tokens.shape[1] < 1 or tokens.shape[1] + max_new_tokens > self.context:
            raise ShapeError(
                f"generate: tokens of shape {tuple(tokens.shape)} and max_new_tokens={max_new_tokens}; expected (n, length) with "
                f"at least one token, and up to context={self.context} with the new ones"
            )
        caches: list[Any] = [None] * len(self.blocks)
        new, start = tokens, 0
        for _ in range(max_new_tokens):
            logits, caches = self._run(new, caches, start)
            start = tokens.shape[1]
            new = _draw(logits[:, -1], temperature, top_k, top_p)
            tokens = cat([tokens, new], 1)
        return tokens


def _draw(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """Draw a token (n, 1) from logits (n, vocabulary)."""
    if temperature == 0:
        return logits.argmax(1, keepdim=True)
    probabilities, order = softmax(logits / temperature, 1).sort(1, descending=True)
    if top_k is not None:
        probabilities[:, top_k:] = 0.0
    if top_p is not None:
        below = probabilities.cumsum(1) - probabilities  # of the more probable ones
        probabilities = probabilities.masked_fill(below >= top_p * probabilities.sum(1, keepdim=True), 0.0)
    result: Tensor = order.gather(1, multinomial(probabilities, 1))
    return result
