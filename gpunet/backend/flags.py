"""Settings of PyTorch: the precision of float32 products on a GPU, and some that change nothing, since every result has the same
bits each run."""

from __future__ import annotations

import warnings
from typing import Any

from gpunet.errors import ArgumentError, DtypeError

__all__ = [
    "are_deterministic_algorithms_enabled", "get_deterministic_debug_mode", "get_float32_matmul_precision",
    "is_deterministic_algorithms_warn_only_enabled", "is_warn_always_enabled", "set_deterministic_debug_mode",
    "set_float32_matmul_precision", "set_flush_denormal", "set_warn_always", "use_deterministic_algorithms",
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


_DEBUG_MODES = ("default", "warn", "error")
_debug_mode, _warns_always = 0, False


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Set what :func:`get_deterministic_debug_mode` returns; there are no results that differ from run to run to warn of.

    Args:
        debug_mode: 0 or "default", 1 or "warn", 2 or "error".

    Raises:
        ArgumentError: another value.
    """
    global _debug_mode
    known = {word: number for number, word in enumerate(_DEBUG_MODES)} | {n: n for n in range(len(_DEBUG_MODES))}
    if isinstance(debug_mode, bool) or not isinstance(debug_mode, (int, str)) or debug_mode not in known:
        raise ArgumentError(f"set_deterministic_debug_mode({debug_mode!r}): expected 0, 1, 2, 'default', 'warn' or 'error'")
    _debug_mode = known[debug_mode]


def get_deterministic_debug_mode() -> int:
    """Return the number of the mode of :func:`set_deterministic_debug_mode`, 0 at first."""
    return _debug_mode


def set_warn_always(b: bool) -> None:
    """Set what :func:`is_warn_always_enabled` returns: Python's filters of warnings say how often one is shown.

    Raises:
        DtypeError: it is no bool.
    """
    global _warns_always
    if not isinstance(b, bool):
        raise DtypeError(f"set_warn_always({b!r}): expected True or False")
    _warns_always = b


def is_warn_always_enabled() -> bool:
    """Return what :func:`set_warn_always` was called with, False at first."""
    return _warns_always


def set_flush_denormal(mode: bool) -> bool:
    """Return False, which means that it is not supported: NumPy's results are those of IEEE 754, with small numbers.

    Raises:
        DtypeError: ``mode`` is no bool.
    """
    if not isinstance(mode, bool):
        raise DtypeError(f"set_flush_denormal({mode!r}): expected True or False")
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
