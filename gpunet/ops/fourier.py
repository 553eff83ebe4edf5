"""Discrete Fourier transforms: the functions of ``torch.fft``.

Three primitives compute them: complex to complex, real to the half of a complex spectrum, and back.  Each one's adjoint is another
one, so that they have derivatives of any order.  NumPy and CuPy compute in the precision of the input.  Where cuFFT is not
installed, and in captured steps on a GPU, products with DFT matrices do: see :func:`_by_products`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, make_tensor, primitive
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import as_dtype, is_complex, is_floating, is_half, is_inexact, to_complex, to_real
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import active, constant
from gpunet.ops.arrange import _roll
from gpunet.ops.broadcast import cast
from gpunet.ops.complex_numbers import _real, conj
from gpunet.ops.creation import count_of, creates, from_values
from gpunet.ops.dims import normalize_dims
from gpunet.ops.elementwise import _mul
from gpunet.ops.face import as_integer, as_number, public, sizes_of
from gpunet.ops.index import _index
from gpunet.ops.join import cat
from gpunet.ops.matmul import _matmul
from gpunet.ops.pad import _pad_constant
from gpunet.ops.shape import _flip, _reshape, _swapped

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft",
    "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

#: The norm of the adjoint, which goes the other way with the same factor.
_ADJOINT = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _transform(name: str) -> Shim:
    """The launch of a transform along one axis."""
    return Shim(
        name, lambda xp, out, x, **options: getattr(xp.fft, name)(x, out=out, **options),
        on_gpu=lambda xp, out, x, **options: xp.copyto(out, getattr(xp.fft, name)(x, **options)), widens=False,
    )  # fmt: skip


FFT, IFFT, RFFT, IRFFT = map(_transform, ("fft", "ifft", "rfft", "irfft"))


# ---- primitives -------------------------------------------------------------------------------------------------------


@primitive(name="fft", takes_complex=True)
def _complex_fft(x, *, axes, inverse, norm):
    """The transform along ``axes``, of real or complex numbers."""
    if not _has_library(x.array):
        return _by_products(x.detach(), axes, inverse, norm).array
    out = empty(x.array.shape, to_complex(x.dtype), x.array)
    source = x.array
    for axis in axes:
        (IFFT if inverse else FFT)(out, source, axis=axis, norm=norm)
        source = out
    return out


_complex_fft.derivatives(
    x=lambda g, axes, inverse, norm: _complex_fft(g, axes=axes, inverse=not inverse, norm=_ADJOINT[norm])
)


@primitive(name="rfft")
def _real_fft(x, *, axis, norm):
    """x, n real numbers along ``axis`` -> the n // 2 + 1 numbers of the spectrum that determine it."""
    shape = _with_size(x.array.shape, axis, x.array.shape[axis] // 2 + 1)
    if not _has_library(x.array):
        full = _by_products(x.detach(), (axis,), False, norm)
        return _index(full, pattern=_leading(axis, shape[axis])).array
    out = empty(shape, to_complex(x.dtype), x.array)
    RFFT(out, x.array, axis=axis, norm=norm)
    return out


@primitive(name="irfft", takes_complex=True)
def _real_ifft(z, *, axis, n, norm):
    """z, the n // 2 + 1 numbers of a spectrum along ``axis`` -> n real numbers."""
    if not _has_library(z.array):
        z = z.detach()
        mirrored = _flip(conj(_index(z, pattern=(slice(None),) * axis + (slice(1, n - n // 2),))), dims=(axis,))
        return _real(_by_products(cat((z, mirrored), axis), (axis,), True, norm)).array
    out = empty(_with_size(z.array.shape, axis, n), to_real(z.dtype), z.array)
    IRFFT(out, z.array, axis=axis, n=n, norm=norm)
    return out


# The inverse counts each number of the spectrum twice, itself and its mirror image, except those that are their own.
_real_fft.derivatives(
    x=lambda g, x_shape, axis, norm: _real_ifft(
        _mul(g, _counts(g, axis, x_shape[axis], 0.5)), axis=axis, n=x_shape[axis], norm=_ADJOINT[norm]
    )
)
_real_ifft.derivatives(
    z=lambda g, axis, n, norm: _weighted(_real_fft(g, axis=axis, norm=_ADJOINT[norm]), axis, n)
)


def _weighted(spectrum: Tensor, axis: int, n: int) -> Tensor:
    return _mul(spectrum, _counts(spectrum, axis, n, 2.0))


def _counts(like: Tensor, axis: int, n: int, weight: float) -> Tensor:
    """``weight`` along ``axis`` of a half spectrum, but 1 at its ends that have no mirror image."""
    counts = numpy.full(n // 2 + 1, weight, to_real(like.dtype))
    counts[0] = 1.0
    if n % 2 == 0:
        counts[-1] = 1.0
    return _constant(counts.reshape(_with_size((1,) * like.array.ndim, axis, -1)), like.array)


def _constant(values: numpy.ndarray, like: Array) -> Tensor:
    return make_tensor(constant(devices.move(values, devices.of(like))))


def _with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _leading(axis: int, count: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, slice(0, count))


# ---- without cuFFT ----------------------------------------------------------------------------------------------------

_MAX_POINTS = 64  # of one product


def _has_library(array: Array) -> bool:
    """Whether NumPy or cuFFT transforms the array.  A CUDA graph would outlive the plans of cuFFT, whose memory it uses."""
    return isinstance(array, numpy.ndarray) or (active.tape is None and devices.has_cufft())


def _by_products(x: Tensor, axes: Sequence[int], inverse: bool, norm: str) -> Tensor:
    """What :func:`_complex_fft` computes, by matrix products.

    n points are split into factors of at most 64, and take n times the sum of the factors, n^2 if n is a larger prime.
    """
    z = cast(x, dtype=to_complex(x.dtype))
    for axis in axes:
        last, n = z.array.ndim - 1, z.array.shape[axis]
        z = _swapped(_factored(_swapped(z, axis, last), 1.0 if inverse else -1.0), axis, last)
        if norm == "ortho" or inverse == (norm == "backward"):
            z = _mul(z, 1.0 / (math.sqrt(n) if norm == "ortho" else n))
    return z


def _factored(z: Tensor, sign: float) -> Tensor:
    """The transform of the last dimension, n = p q points: p along the columns of a matrix (p, q), then q along its rows."""
    *batch, n = z.array.shape
    p = n if n <= _MAX_POINTS else max((d for d in range(2, _MAX_POINTS + 1) if n % d == 0), default=n)
    matrix = _roots(p, p, p, sign, z)
    if p == n:
        return _reshape(_matmul(_reshape(z, shape=(z.array.size // n, n)), matrix), shape=z.array.shape)
    columns = _matmul(matrix, _reshape(z, shape=(*batch, p, n // p)))
    rows = _factored(_mul(columns, _roots(n, p, n // p, sign, z)), sign)
    return _reshape(_swapped(rows, len(batch), len(batch) + 1), shape=z.array.shape)


def _roots(n: int, rows: int, columns: int, sign: float, like: Tensor) -> Tensor:
    """exp(sign 2 pi i j k / n) of j < rows and k < columns."""
    powers = numpy.outer(numpy.arange(rows), numpy.arange(columns)) % n
    return _constant(numpy.exp(sign * 2j * math.pi / n * powers).astype(like.dtype), like.array)


# ---- the arguments ----------------------------------------------------------------------------------------------------


def _checked(function: str, input: Tensor, norm: Any) -> tuple[Tensor, str]:
    """The tensor, an integer one in the default dtype, and the norm."""
    dtype = input.array.dtype
    if is_half(dtype):
        raise DtypeError(f"{function}: the tensor has dtype {dtype}; expected float32 or float64, or complex numbers: use .float()")
    norm = "backward" if norm is None else norm
    if not isinstance(norm, str) or norm not in _ADJOINT:
        raise ArgumentError(f"{function}: norm={norm!r}; expected 'forward', 'backward' or 'ortho'")
    return input if is_inexact(dtype) else cast(input, dtype=get_default_dtype()), norm


def _axes_and_sizes(function: str, x: Tensor, s: Any, dim: Any) -> tuple[tuple[int, ...], list[int]]:
    """The dimensions to transform, and the number of points along each, -1 for the tensor's own."""
    ndim = x.array.ndim
    sizes = None if s is None else sizes_of(function, (), s=s if isinstance(s, (tuple, list)) else (s,))
    if dim is not None:
        if isinstance(dim, int) and not ndim:
            raise ShapeError(f"{function}: a tensor without dimensions; expected at least one")
        axes = normalize_dims(dim if isinstance(dim, (tuple, list)) else (dim,), ndim, function)
    elif sizes is not None and len(sizes) > ndim:
        raise ShapeError(f"{function}: s={sizes} for a tensor of shape {tuple(x.shape)}; expected at most {ndim} sizes")
    else:
        axes = tuple(range(0 if sizes is None else ndim - len(sizes), ndim))
    if sizes is not None and len(sizes) != len(axes):
        raise ArgumentError(f"{function}: s={sizes}, dim={dim!r}; expected a size for each dimension")
    return axes, [-1] * len(axes) if sizes is None else list(sizes)


def _resized(function: str, x: Tensor, axes: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """x with ``sizes`` elements along ``axes``: cut, or padded with zeros."""
    for axis, n in zip(axes, sizes):
        if n < 1:
            raise ShapeError(f"{function}: {n} points along dimension {axis}; expected 1 or more")
    shape = list(x.array.shape)
    for axis, n in zip(axes, sizes):
        shape[axis] = min(n, shape[axis])
    if tuple(shape) != x.array.shape:
        x = _index(x, pattern=tuple([slice(0, n) for n in shape]))
    widths = [(0, 0)] * len(shape)
    for axis, n in zip(axes, sizes):
        widths[axis] = (0, n - shape[axis])
    return _pad_constant(x, widths=tuple(widths), value=0) if any(high for _, high in widths) else x


def _own_sizes(x: Tensor, axes: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [x.array.shape[axis] if n == -1 else n for axis, n in zip(axes, sizes)]


def _complex(function: str, x: Tensor, axes: tuple[int, ...], sizes: list[int], norm: str, inverse: bool) -> Tensor:
    x = _resized(function, x, axes, _own_sizes(x, axes, sizes))
    if not axes:
        return cast(x, dtype=to_complex(x.dtype))
    return _complex_fft(x, axes=axes, inverse=inverse, norm=norm)


def _forward(function: str, x: Tensor, axes: tuple[int, ...], sizes: list[int], norm: str) -> Tensor:
    """Real to half a spectrum: along the last axis, then along the others."""
    if not axes:
        raise ShapeError(f"{function}: no dimension to transform; expected at least one")
    if is_complex(x.dtype):
        raise DtypeError(f"{function}: the tensor has dtype {x.dtype}; expected real numbers: fft() takes complex ones")
    x = _resized(function, x, axes, _own_sizes(x, axes, sizes))
    half = _real_fft(x, axis=axes[-1], norm=norm)
    return _complex_fft(half, axes=axes[:-1], inverse=False, norm=norm) if axes[1:] else half


def _backward(function: str, z: Tensor, axes: tuple[int, ...], sizes: list[int], norm: str) -> Tensor:
    """Half a spectrum to real: along the last axis at the end."""
    if not axes:
        raise ShapeError(f"{function}: no dimension to transform; expected at least one")
    *first, n = _own_sizes(z, axes, sizes)
    n = 2 * (n - 1) if sizes[-1] == -1 else n
    if n < 1:
        raise ShapeError(f"{function}: {n} points along dimension {axes[-1]}; expected 1 or more: pass the number of real points")
    z = _resized(function, z, axes, [*first, n // 2 + 1])
    if axes[1:]:
        z = _complex_fft(z, axes=axes[:-1], inverse=True, norm=norm)
    z = z if is_complex(z.dtype) else cast(z, dtype=to_complex(z.dtype))
    return _real_ifft(z, axis=axes[-1], n=n, norm=norm)


#: What each family computes of (function, tensor, axes, sizes, norm).
_KINDS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "fft": (functools.partial(_complex, inverse=False), "The discrete Fourier transform"),
    "ifft": (functools.partial(_complex, inverse=True), "The inverse of :func:`fft`"),
    "rfft": (_forward, "Half of the Fourier transform of real numbers: n // 2 + 1 of n points, which determine the others"),
    "irfft": (_backward, "The inverse of :func:`rfft`: real numbers of half of their transform"),
    "hfft": (
        lambda function, x, axes, sizes, norm: _backward(function, conj(x), axes, sizes, _ADJOINT[norm]),
        "The Fourier transform, real, of a signal that is given by half: the other half is its conjugate mirror image",
    ),
    "ihfft": (
        lambda function, x, axes, sizes, norm: conj(_forward(function, x, axes, sizes, _ADJOINT[norm])),
        "The inverse of :func:`hfft`: half of the signal whose transform is real",
    ),
}
_ARGUMENTS = """

    Args:
        {points}: points; None means those of the tensor, else it is cut, or padded with zeros.
        norm: "backward" divides the inverse by the number of points, "forward" the other, "ortho" both by its root.

    Raises:
        DtypeError: halves, or complex numbers where real ones are expected.
        ShapeError: no points.
"""


def _along_one(kind: str) -> Any:
    compute, doc = _KINDS[kind]

    def function(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        x, mode = _checked(kind, input, norm)
        points = None if n is None else (as_integer(kind, "n", n),)
        if points == (-1,):
            raise ShapeError(f"{kind}: n=-1; expected 1 or more")
        return compute(kind, x, *_axes_and_sizes(kind, x, points, as_integer(kind, "dim", dim)), mode)

    function.__name__ = function.__qualname__ = kind
    function.__doc__ = f"{doc}, along ``dim``.{_ARGUMENTS.format(points='n')}"
    return public(takes_complex=True)(function)


def _along_many(kind: str, suffix: str) -> Any:
    compute, doc = _KINDS[kind]
    name = kind + suffix

    def over_two(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
        x, mode = _checked(name, input, norm)
        return compute(name, x, *_axes_and_sizes(name, x, s, dim), mode)

    def over_all(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
        return over_two(input, s, dim, norm)

    function = over_two if suffix == "2" else over_all
    function.__name__ = function.__qualname__ = name
    which = "the dimensions ``dim``" if suffix == "2" else "the dimensions ``dim`` (None: the last ones of ``s``, or all)"
    function.__doc__ = f"{doc}, along {which}.{_ARGUMENTS.format(points='s')}"
    return public(takes_complex=True)(function)


fft, ifft, rfft, irfft, hfft, ihfft = map(_along_one, _KINDS)
fft2, ifft2, rfft2, irfft2, hfft2, ihfft2 = (_along_many(kind, "2") for kind in _KINDS)
fftn, ifftn, rfftn, irfftn, hfftn, ihfftn = (_along_many(kind, "n") for kind in _KINDS)


# ---- frequencies ------------------------------------------------------------------------------------------------------


def _frequencies(function: str, n: Any, d: Any, dtype: Any, device: Any, compute: Callable[..., Any]) -> Tensor:
    count, step = count_of(function, "n", n), as_number(function, "d", d)
    dtype = get_default_dtype() if dtype is None else as_dtype(dtype)
    if not is_floating(dtype):
        raise DtypeError(f"{function}: dtype={dtype}; expected a floating dtype")
    with numpy.errstate(all="ignore"):
        return from_values(compute(count) / (numpy.float64(count) * step), dtype, device)


@creates
def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of :func:`fft` of n points at distances d: (0, 1, ..., -2, -1) / (n d)."""
    return _frequencies("fftfreq", n, d, dtype, device, lambda n: (numpy.arange(n) + n // 2) % max(n, 1) - n // 2)


@creates
def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of :func:`rfft` of n points at distances d: (0, 1, ..., n // 2) / (n d)."""
    return _frequencies("rfftfreq", n, d, dtype, device, lambda n: numpy.arange(n // 2 + 1))


def _shifted(function: str, x: Tensor, dim: Any, sign: int) -> Tensor:
    axes = range(x.ndim) if dim is None else normalize_dims(dim if isinstance(dim, (tuple, list)) else (dim,), x.ndim, function)
    return _roll(x, shifts=tuple([sign * (n // 2) % n if n and d in axes else 0 for d, n in enumerate(x.array.shape)]))


@public(out=False, takes_complex=True)
def fftshift(input: Any, dim: Any = None) -> Tensor:
    """The elements of a transform with frequency 0 moved to the middle, along ``dim`` (None: all dimensions)."""
    return _shifted("fftshift", input, dim, 1)


@public(out=False, takes_complex=True)
def ifftshift(input: Any, dim: Any = None) -> Tensor:
    """The inverse of :func:`fftshift`."""
    return _shifted("ifftshift", input, dim, -1)
