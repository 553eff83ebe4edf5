"""Samples of complex numbers, and of Fourier transforms: real functions of real numbers by way of complex ones.

``tests/ops/test_complex_numbers.py`` and ``test_fourier.py`` have those of complex numbers.
"""

from __future__ import annotations

import functools

import numpy

import gpunet
from gpunet import fft
from tests.samples.inputs import ROWS, away, normal
from tests.samples.row import row

_PAIR = away(ROWS, 4), away(ROWS, 4)
complex_row = functools.partial(row, takes_halves=False)  # the parts of complex numbers are float32 or float64

complex_row("_complex", lambda x, y: gpunet.complex(x, y).abs(), numpy.hypot, *_PAIR, torch=lambda t, x, y: t.complex(x, y).abs())
complex_row("_real", lambda x, y: (gpunet.complex(x, y) ** 2).real, lambda x, y: x * x - y * y, *_PAIR)
complex_row("_imag", lambda x, y: (gpunet.complex(x, y) ** 2).imag, lambda x, y: 2.0 * x * y, *_PAIR)
complex_row("_conj", lambda x, y: (gpunet.complex(x, y).conj() * 1j).imag, lambda x, y: x, *_PAIR)
complex_row("_view_as_real", lambda x, y: gpunet.view_as_real(gpunet.complex(x, y)), lambda x, y: numpy.stack([x, y], -1), *_PAIR)
complex_row(
    "_view_as_complex", lambda x: gpunet.view_as_complex(x.contiguous()).abs(), lambda x: numpy.hypot(x[..., 0], x[..., 1]),
    normal(ROWS, 4, 2),
)  # fmt: skip
complex_row("_sgn", lambda x, y: gpunet.complex(x, y).sgn().real, lambda x, y: x / numpy.hypot(x, y), *_PAIR)
row("_sgn", gpunet.sgn, numpy.sign, away(ROWS, 4), name="real")
row("_angle_of_real", gpunet.angle, lambda x: numpy.pi * (x < 0), away(ROWS, 4), torch="angle")
complex_row("_atan2", lambda x, y: gpunet.complex(x, y).angle(), lambda x, y: numpy.arctan2(y, x), *_PAIR, name="angle")
complex_row("complex_tanh", lambda x, y: gpunet.complex(x, y).tanh().real, lambda x, y: numpy.tanh(x + 1j * y).real, *_PAIR)
complex_row(
    "_complex_fft", lambda x, y: fft.ifft(gpunet.complex(x, y), norm="ortho").imag,
    lambda x, y: numpy.fft.ifft(x + 1j * y, norm="ortho").imag, *_PAIR,
)  # fmt: skip
complex_row("_real_fft", lambda x: fft.rfft(x, 5).real, lambda x: numpy.fft.rfft(x, 5).real, normal(ROWS, 4))
complex_row(
    "_real_ifft", lambda x, y: fft.irfft(gpunet.complex(x, y), 5), lambda x, y: numpy.fft.irfft(x + 1j * y, 5), *_PAIR,
)  # fmt: skip
