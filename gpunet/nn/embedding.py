"""Embedding layers: Embedding and EmbeddingBag."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, no_grad, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init
from gpunet.nn.module import Module, Parameter, empty_parameter
from gpunet.ops import embedding as ops
from gpunet.ops.face import as_integer

__all__ = ["Embedding", "EmbeddingBag"]


class _Table(Module):
    """A matrix of which rows are taken."""

    weight: Parameter

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, max_norm: float | None, norm_type: float,
        scale_grad_by_freq: bool, sparse: bool, weight: Any, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.num_embeddings = as_integer(name, "num_embeddings", num_embeddings)
        self.embedding_dim = as_integer(name, "embedding_dim", embedding_dim)
        for argument, value in (("num_embeddings", self.num_embeddings), ("embedding_dim", self.embedding_dim)):
            if value < 0:
                raise ArgumentError(f"{name}: {argument}={value}; expected 0 or more")
        if padding_idx is not None:
            padding_idx = as_integer(name, "padding_idx", padding_idx)
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(f"{name}: padding_idx={padding_idx}; expected {-num_embeddings} to {num_embeddings - 1}")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        shape = (self.num_embeddings, self.embedding_dim)
        if weight is None:
            self.weight = empty_parameter(shape, device, dtype)
            self.reset_parameters()
        else:
            if tuple(weight.shape) != shape:
                raise ShapeError(f"{name}: the weight has shape {tuple(weight.shape)}; expected {shape}")
            self.weight = Parameter(weight)

    @staticmethod
    def _shape_of(name: str, embeddings: Any) -> tuple[Tensor, int, int]:
        """The pretrained embeddings as a tensor, and their sizes."""
        table = wrap(embeddings, name)
        if table.ndim != 2:
            raise ShapeError(f"{name}.from_pretrained: embeddings has shape {tuple(table.shape)}; expected (rows, columns)")
        return (table, *table.shape)

    def reset_parameters(self) -> None:
        """Draw the weight from the standard normal distribution; the padding row is 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def extra_repr(self) -> str:
        defaults = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False}
        options = [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join([str(self.num_embeddings), str(self.embedding_dim), *options])


class Embedding(_Table):
    """Replace each integer by a row of a table that is learned.  (...) -> (..., embedding_dim)

    Args:
        num_embeddings: rows of the table: integers are from 0 to num_embeddings - 1.
        embedding_dim: columns of the table.
        padding_idx: a row that is 0 at first and receives no gradient.
        max_norm, norm_type, scale_grad_by_freq, sparse: see :func:`gpunet.nn.functional.embedding`.
        device: device of the weight; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (num_embeddings, embedding_dim), drawn from the standard normal distribution.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, _weight: Any = None,
        _freeze: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight, device, dtype
        )
        self.weight.requires_grad_(not _freeze)

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """An embedding with this table, (rows, columns), whose memory it shares; with ``freeze`` it is not learned."""
        table, rows, columns = cls._shape_of(cls.__name__, embeddings)
        return cls(rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, table, freeze)

    def forward(self, input: Any) -> Tensor:
        return ops.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )


class EmbeddingBag(_Table):
    """The sum, mean or maximum of the rows of each bag of integers, see :func:`gpunet.nn.functional.embedding_bag`.

    Args:
        mode: "sum", "mean" or "max".
        include_last_offset: the last offset is the end of the last bag.
        num_embeddings, embedding_dim, ...: as for :class:`Embedding`.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, _weight: Any = None,
        include_last_offset: bool = False, padding_idx: int | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight, device, dtype
        )
        if mode not in ("sum", "mean", "max"):
            raise ArgumentError(f"EmbeddingBag: mode={mode!r}; expected 'sum', 'mean' or 'max'")
        self.mode, self.include_last_offset = mode, include_last_offset

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:  # fmt: skip
        """Bags of this table, (rows, columns), whose memory they share; with ``freeze`` it is not learned."""
        table, rows, columns = cls._shape_of(cls.__name__, embeddings)
        bag = cls(
            rows, columns, max_norm, norm_type, scale_grad_by_freq, mode, sparse, table, include_last_offset, padding_idx
        )
        bag.weight.requires_grad_(not freeze)
        return bag

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Tensor:
        return ops.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"
