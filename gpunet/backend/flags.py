"""Settings of PyTorch: the precision of float32 products on a GPU, and some that change nothing, since every result has the same
bits each run."""

from __future__ import annotations

import warnings
from typing import Any

from gpunet.errors import ArgumentError

__all__ = [
    "are_deterministic_algorithms_enabled", "get_float32_matmul_precision", "is_deterministic_algorithms_warn_only_enabled",
    "set_float32_matmul_precision", "use_deterministic_algorithms",
]  # fmt: skip

_PRECISIONS = ("highest", "high", "medium")
_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Set how a GPU multiplies matrices of float32, in ``linear``, ``matmul`` and what is made of them.

    Args:
        precision: "highest", the default, is float32.  "high" is TF32 three times: each number is the sum of two numbers of TF32,
            of 11 bits each, and one of four products is left out; an infinite operand gives nan.  "medium" is TF32: numbers are
            rounded to 11 bits, to nearest.  Sums are float32.

    On the CPU, and on GPUs before compute capability 8.0, products are float32 in any case.

    Raises:
        ArgumentError: another word.
    """
    global _precision
    if precision not in _PRECISIONS:
        raise ArgumentError(f"set_float32_matmul_precision({precision!r}): expected one of {', '.join(map(repr, _PRECISIONS))}")
    _precision = precision


def get_float32_matmul_precision() -> str:
    """Return the word of :func:`set_float32_matmul_precision`."""
    return _precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accept True, which always holds; for False warn that results stay deterministic."""
    if not mode:
        warnings.warn("use_deterministic_algorithms(False) has no effect: results are always deterministic", stacklevel=2)


def are_deterministic_algorithms_enabled() -> bool:
    """Return True: the same inputs give the same bits."""
    return True


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Return False: no op has another algorithm."""
    return False


class Flags:
    """The attributes of a module of ``torch.backends``: those named may be set, and have no effect, except properties."""

    _name: str

    def __init__(self, name: str, **values: Any) -> None:
        self.__dict__.update(values, _name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._names():
            raise ArgumentError(f"backends.{self._name} has no flag {name!r}; expected one of {', '.join(self._names())}")
        object.__setattr__(self, name, value)

    def _names(self) -> list[str]:
        names = {*self.__dict__, *vars(type(self))}
        return sorted(name for name in names if not name.startswith("_"))


class MatmulFlags(Flags):
    """The attributes of ``torch.backends.cuda.matmul``."""

    @property
    def allow_tf32(self) -> bool:
        """Whether the precision of float32 products is not "highest"; True sets "medium", False "highest"."""
        return get_float32_matmul_precision() != "highest"

    @allow_tf32.setter
    def allow_tf32(self, value: bool) -> None:
        set_float32_matmul_precision("medium" if value else "highest")
