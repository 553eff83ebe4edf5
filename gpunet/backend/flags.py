"""Settings of PyTorch that cannot change a value here: products are float32 and every result has the same bits each run."""

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
    """Allow products of float32 to be less precise: "highest", "high" or "medium".  They are always the most precise.

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
    """The attributes of a module of ``torch.backends``: those named may be set, and have no effect."""

    _name: str

    def __init__(self, name: str, **values: Any) -> None:
        self.__dict__.update(values, _name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise ArgumentError(f"backends.{self._name} has no flag {name!r}; expected one of {', '.join(self._names())}")
        self.__dict__[name] = value

    def _names(self) -> list[str]:
        return sorted(name for name in self.__dict__ if not name.startswith("_"))
