"""Windows of signals: bartlett_window, blackman_window, hamming_window, hann_window, kaiser_window."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype
from gpunet.backend import dtypes
from gpunet.errors import DtypeError
from gpunet.ops.creation import count_of, creates, from_values
from gpunet.ops.face import as_number, check_flag

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def _window(function: str, window_length: Any, periodic: Any, dtype: Any, device: Any, values: Any) -> Tensor:
    """``values(t)`` for t from 0 to 1; a periodic window is that of one more element without the last."""
    count = count_of(function, "window_length", window_length)
    check_flag(function, "periodic", periodic)
    dtype = get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_floating(dtype):
        raise DtypeError(f"{function}: dtype={dtype}; expected a floating dtype")
    if count == 1:
        return from_values(numpy.ones(1), dtype, device)
    last = count if periodic else count - 1
    with numpy.errstate(all="ignore"):  # of a large beta, I0 is infinite, and so is a number outside the range of a half
        return from_values(values(numpy.arange(count) / last if count else numpy.zeros(0)), dtype, device)


@creates
def bartlett_window(window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A triangle: 1 - |2 t - 1| for t from 0 to 1.

    Args:
        periodic: leave out the last number of a window of one more element.
    """
    return _window("bartlett_window", window_length, periodic, dtype, device, lambda t: 1.0 - numpy.abs(2.0 * t - 1.0))


@creates
def blackman_window(window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None) -> Tensor:
    """0.42 - 0.5 cos(2 pi t) + 0.08 cos(4 pi t) for t from 0 to 1, see :func:`bartlett_window`."""
    return _window(
        "blackman_window", window_length, periodic, dtype, device,
        lambda t: 0.42 - 0.5 * numpy.cos(2.0 * math.pi * t) + 0.08 * numpy.cos(4.0 * math.pi * t),
    )  # fmt: skip


@creates
def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """alpha - beta cos(2 pi t) for t from 0 to 1, see :func:`bartlett_window`."""
    a, b = as_number("hamming_window", "alpha", alpha), as_number("hamming_window", "beta", beta)
    return _window(
        "hamming_window", window_length, periodic, dtype, device, lambda t: a - b * numpy.cos(2.0 * math.pi * t)
    )  # fmt: skip


@creates
def hann_window(window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None) -> Tensor:
    """(1 - cos(2 pi t)) / 2 for t from 0 to 1, see :func:`bartlett_window`."""
    return _window("hann_window", window_length, periodic, dtype, device, lambda t: 0.5 - 0.5 * numpy.cos(2.0 * math.pi * t))


@creates
def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """I0(beta sqrt(1 - (2 t - 1)^2)) / I0(beta) for t from 0 to 1, see :func:`bartlett_window`."""
    b = as_number("kaiser_window", "beta", beta)
    return _window(
        "kaiser_window", window_length, periodic, dtype, device,
        lambda t: numpy.i0(b * numpy.sqrt(numpy.maximum(1.0 - (2.0 * t - 1.0) ** 2, 0.0))) / numpy.i0(b),
    )  # fmt: skip
