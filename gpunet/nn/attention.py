"""MultiheadAttention."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.layers import Linear
from gpunet.nn.module import Module, Parameter, empty_parameter
from gpunet.ops.face import as_integer, as_probability
from gpunet.ops.multi_head_attention import Masks, Parameters, attend

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of several heads between projections (Vaswani et al. 2017).

    Args:
        embed_dim: features of the query and of the result.
        num_heads: a divisor of ``embed_dim``.
        dropout: the probability with which each weight is dropped in training.
        bias: whether the projections have a bias.
        add_bias_kv: add a learned key and value behind the others.
        add_zero_attn: add a key and a value of zeros.
        kdim, vdim: features of key and value; ``embed_dim`` if None.
        batch_first: inputs and result are (n, positions, features), not (positions, n, features).
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        in_proj_weight: (3 embed_dim, embed_dim), or None if kdim or vdim differ; initialised as by Glorot and Bengio 2010.
        q_proj_weight, k_proj_weight, v_proj_weight: the projections then, else None.
        in_proj_bias: (3 embed_dim,), zeros, or None.
        bias_k, bias_v: (1, 1, embed_dim), or None.
        out_proj: the :class:`Linear` behind the heads.

    Raises:
        ArgumentError: ``num_heads`` does not divide ``embed_dim``, or ``dropout`` is no probability.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.embed_dim, self.num_heads = (
            as_integer(name, key, value) for key, value in (("embed_dim", embed_dim), ("num_heads", num_heads))
        )
        if self.embed_dim < 1 or self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise ArgumentError(f"{name}: embed_dim={embed_dim}, num_heads={num_heads}; expected a positive multiple of num_heads")
        self.kdim, self.vdim = (
            self.embed_dim if value is None else as_integer(name, key, value) for key, value in (("kdim", kdim), ("vdim", vdim))
        )
        self.head_dim, self.dropout = self.embed_dim // self.num_heads, as_probability(name, "dropout", dropout)
        self.batch_first, self.add_zero_attn = batch_first, add_zero_attn
        size, is_packed = self.embed_dim, self.kdim == self.vdim == self.embed_dim
        for key, of in (("q_proj_weight", size), ("k_proj_weight", self.kdim), ("v_proj_weight", self.vdim)):
            self.register_parameter(key, None if is_packed else empty_parameter((size, of), device, dtype))
        self.register_parameter("in_proj_weight", empty_parameter((3 * size, size), device, dtype) if is_packed else None)
        self.register_parameter("in_proj_bias", empty_parameter((3 * size,), device, dtype) if bias else None)
        self.out_proj = Linear(size, size, bias, device, dtype)
        for key in ("bias_k", "bias_v"):
            self.register_parameter(key, empty_parameter((1, 1, size), device, dtype) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Initialize the parameters but ``out_proj.weight`` again."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for row in (self.bias_k, self.bias_v):
            if row is not None:
                init.xavier_normal_(row)

    def forward(
        self, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Attend; arguments, results and errors as of :func:`gpunet.nn.functional.multi_head_attention_forward`.

        Boolean masks ignore where they are True, unlike that of
        :func:`gpunet.nn.functional.scaled_dot_product_attention`.  Without ``need_weights`` the scores are not stored.
        """
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        parameters = Parameters(
            self.in_proj_weight, separate, self.in_proj_bias, self.bias_k, self.bias_v, self.out_proj.weight, self.out_proj.bias
        )
        return attend(
            type(self).__name__, query, key, value, self.num_heads, parameters, Masks(attn_mask, key_padding_mask, is_causal),
            dropout_p=self.dropout if self.training else 0.0, add_zero_attn=self.add_zero_attn, need_weights=need_weights,
            average=average_attn_weights, batch_first=self.batch_first,
        )  # fmt: skip
