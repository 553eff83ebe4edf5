"""Short-time Fourier transforms: stft, and istft by overlap and add."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_complex, is_half, is_inexact, to_real
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant, graph_break_on_read, warn_user
from gpunet.ops.complex_numbers import view_as_real
from gpunet.ops.face import as_positive, check_flag, public
from gpunet.ops.index import _index
from gpunet.ops.pad import _pad_constant, pad
from gpunet.ops.shape import _fold, _permute, _reshape, _unfold, expand

__all__ = ["istft", "stft"]

#: The least sum of squared windows by which istft divides.
_LEAST = 1e-11


class _Frames:
    """The frames of a short-time transform: ``size`` points every ``step`` points, weighted by a window of ``size`` points."""

    def __init__(self, function: str, x: Tensor, n_fft: Any, hop_length: Any, win_length: Any, window: Any) -> None:
        self.size = as_positive(function, "n_fft", n_fft)
        self.step = as_positive(function, "hop_length", self.size // 4 if hop_length is None else hop_length)
        length = self.size if win_length is None else as_positive(function, "win_length", win_length)
        if length > self.size:
            raise ArgumentError(f"{function}: win_length={length}, n_fft={self.size}; expected win_length <= n_fft")
        if window is None:
            if self.size > 1:
                warn_user(f"{function}: no window; frames are cut out sharply. Pass window=gpunet.hann_window({length})")
            ones = numpy.ones(length, to_real(x.dtype))
            window = make_tensor(constant(devices.move(ones, devices.of(x.array))))
        window = wrap(window, function)
        if window.array.shape != (length,):
            raise ShapeError(f"{function}: window of shape {tuple(window.shape)}; expected ({length},), its win_length")
        left = (self.size - length) // 2
        self.window = _pad_constant(window, widths=((left, self.size - length - left),), value=0)


def _check_onesided(function: str, onesided: Any, is_any_complex: bool) -> bool:
    """Whether half of the spectrum of each frame is enough, as of real ones."""
    check_flag(function, "onesided", onesided, takes_none=True)
    if onesided and is_any_complex:
        raise ArgumentError(f"{function}: onesided=True of complex numbers; their spectrum has no mirror image: pass False")
    return not is_any_complex if onesided is None else bool(onesided)


def _check_padding(pad_mode: Any, length: int, n_fft: int) -> None:
    """Check that a signal is long enough for ``center=True``, which pads it by n_fft // 2 points on both sides."""
    least = {"constant": 0, "reflect": n_fft // 2 + 1, "replicate": 1, "circular": n_fft // 2}
    if pad_mode not in least:
        raise ArgumentError(f"stft: pad_mode={pad_mode!r}; expected one of {', '.join(map(repr, least))}")
    if length < least[pad_mode]:
        raise ShapeError(
            f"stft: a signal of {length} points; expected at least {least[pad_mode]} for n_fft={n_fft} and pad_mode={pad_mode!r}; "
            "or pass pad_mode='constant'"
        )


@public("stft", out=False, takes_complex=True, autocast="cuda: float32")
def stft(
    input: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Any = None,
    center: Any = True, pad_mode: str = "reflect", normalized: bool = False, onesided: bool | None = None,
    return_complex: bool | None = None, align_to_window: bool | None = None,
) -> Tensor:  # fmt: skip
    """The Fourier transforms of overlapping frames of a signal: (n,) or (batch, n) -> (..., frequencies, frames).

    Args:
        n_fft: points of a frame.
        hop_length: points from one frame to the next; n_fft // 4 if None.
        win_length: points of the window, n_fft if None; zeros are added on both sides up to n_fft.
        window: factors of the points of a frame, such as ``hann_window(win_length)``; None, which warns, means ones.
        center: pad the signal by n_fft // 2 points on both sides, so that frame t is centred at t * hop_length.
        pad_mode: how: see :func:`gpunet.nn.functional.pad`.
        normalized: divide by the root of n_fft.
        onesided: n_fft // 2 + 1 frequencies; by default for real numbers.
        return_complex: required of real numbers; False returns the two parts in a last dimension.
        align_to_window: for ``center=False``; True is not supported for a window of fewer than n_fft points.

    Raises:
        DtypeError: an integer tensor, or halves.
        ShapeError: the signal has more than two dimensions or is shorter than a frame, or the window does not fit.
        ArgumentError: ``return_complex`` is missing, or an argument is out of range.
    """
    from gpunet.ops.fourier import _complex_fft, _real_fft

    if not is_inexact(input.dtype) or is_half(input.dtype):
        raise DtypeError(f"stft: the tensor has dtype {input.dtype}; expected float32, float64 or complex numbers")
    if input.ndim not in (1, 2):
        raise ShapeError(f"stft: the tensor has shape {tuple(input.shape)}; expected a signal, (n,) or (batch, n)")
    frames = _Frames("stft", input, n_fft, hop_length, win_length, window)
    if (align_to_window is not None and center) or (align_to_window and win_length not in (None, frames.size)):
        raise ArgumentError(f"stft: align_to_window={align_to_window}; expected None, or center=False and a window of n_fft points")
    is_any_complex = is_complex(input.dtype) or is_complex(frames.window.dtype)
    if return_complex is None and not is_any_complex:
        raise ArgumentError("stft: return_complex is missing; expected True, or False for the parts in a last dimension")
    is_half_enough = _check_onesided("stft", onesided, is_any_complex)
    x = _reshape(input, shape=(1, *input.array.shape)) if input.ndim == 1 else input
    if center:
        _check_padding(pad_mode, x.array.shape[1], frames.size)
        x = _reshape(x, shape=(x.array.shape[0], 1, x.array.shape[1]))
        x = pad(x, (frames.size // 2, frames.size // 2), pad_mode)
        x = _reshape(x, shape=(x.array.shape[0], x.array.shape[2]))
    if x.array.shape[1] < frames.size:
        raise ShapeError(f"stft: a signal of {x.array.shape[1]} points; expected at least n_fft={frames.size}")
    cut = _unfold(x, dim=1, size=frames.size, step=frames.step) * frames.window
    norm = "ortho" if normalized else "backward"
    if is_half_enough:
        spectrum = _real_fft(cut, axis=2, norm=norm)
    else:
        spectrum = _complex_fft(cut, axes=(2,), inverse=False, norm=norm)
    spectrum = _permute(spectrum, dims=(0, 2, 1))
    if input.ndim == 1:
        spectrum = _reshape(spectrum, shape=spectrum.array.shape[1:])
    return view_as_real(spectrum) if return_complex is False else spectrum


@public("istft", out=False, takes_complex=True)
def istft(
    input: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Any = None,
    center: bool = True, normalized: bool = False, onesided: bool | None = None, length: int | None = None,
    return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """The signal of which :func:`stft` computed ``input`` with the same arguments: frames are added, and divided by their weights.

    Args:
        length: points of the signal; None means up to the last frame.
        return_complex: whether the signal is complex.

    Raises:
        DtypeError: the tensor is not complex.
        ShapeError: the number of frequencies is not that of ``n_fft``, or the window does not fit.
        ArgumentError: an argument is out of range, or some points have no weight: windows must overlap.
    """
    from gpunet.ops.fourier import _complex_fft, _real_ifft

    if not is_complex(input.dtype):
        raise DtypeError(f"istft: the tensor has dtype {input.dtype}; expected the complex one of stft(return_complex=True)")
    if input.ndim not in (2, 3) or not input.array.size:
        raise ShapeError(f"istft: the tensor has shape {tuple(input.shape)}; expected (frequencies, frames), or a batch of them")
    frames = _Frames("istft", input, n_fft, hop_length, win_length, window)
    is_half_enough = _check_onesided("istft", onesided, return_complex)
    if is_complex(frames.window.dtype) and not return_complex:
        raise ArgumentError("istft: a complex window gives a complex signal; pass return_complex=True")
    if frames.step > frames.window.array.shape[0]:
        raise ArgumentError(f"istft: hop_length={frames.step} is more than win_length; windows must overlap")
    z = _reshape(input, shape=(1, *input.array.shape)) if input.ndim == 2 else input
    expected = frames.size // 2 + 1 if is_half_enough else frames.size
    if z.array.shape[1] != expected:
        raise ShapeError(f"istft: {z.array.shape[1]} frequencies; expected {expected} for n_fft={frames.size}")
    z, norm, count = _permute(z, dims=(0, 2, 1)), "ortho" if normalized else "backward", z.array.shape[2]
    if return_complex:
        cut = _complex_fft(z, axes=(2,), inverse=True, norm=norm)
    else:
        half = z if is_half_enough else _index(z, pattern=(slice(None), slice(None), slice(0, frames.size // 2 + 1)))
        cut = _real_ifft(half, axis=2, n=frames.size, norm=norm)
    total = frames.size + frames.step * (count - 1)
    options = {"dim": 1, "size": frames.size, "step": frames.step, "length": total}
    signal = _fold(cut * frames.window, **options)
    squares = expand(frames.window * frames.window, 1, count, frames.size)
    weights = _fold(squares, **options)
    start = frames.size // 2 if center else 0
    if length is not None:
        length = as_positive("istft", "length", length)
    end = start + length if length is not None else total - start if center else total
    part = (slice(None), slice(start, min(end, total)))
    signal, weights = _index(signal, pattern=part), _index(weights, pattern=part)
    _check_weights(weights)
    signal = signal / weights
    if end > total:
        warn_user("istft: the frames are shorter than length; the signal is padded with zeros. Check center and hop_length")
        signal = _pad_constant(signal, widths=((0, 0), (0, end - total)), value=0)
    return _reshape(signal, shape=signal.array.shape[1:]) if input.ndim == 2 else signal


def _check_weights(weights: Tensor) -> None:
    graph_break_on_read("istft, which checks that windows overlap")
    least = float(abs(devices.to_host(weights.array)).min(initial=math.inf))
    if not least > _LEAST:
        raise ArgumentError(
            f"istft: the squares of the windows add up to {least:.3g} at some points; expected more than {_LEAST}: windows must "
            "overlap, and without center=True not begin with 0"
        )
