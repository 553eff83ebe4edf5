"""Fourier transforms beside PyTorch's: values, gradients, second derivatives, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from gpunet.ops import fourier
from tests.ops.beside_torch import check_complex, complex_normal

OF_COMPLEX, OF_REAL = ("fft", "ifft", "irfft", "hfft"), ("fft", "ifft", "rfft", "ihfft")
NORMS = (None, "backward", "ortho", "forward")
KINDS = [(name, "complex128") for name in OF_COMPLEX] + [(name, "float64") for name in OF_REAL]


def check(name: str, kind: str, torch: Any, device: str, *arguments: Any, shape: tuple[int, ...] = (3, 4, 5)) -> None:
    check_complex(lambda t, x: getattr(t.fft, name)(x, *arguments), [complex_normal(0, *shape, dtype=kind)], torch, device)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_along_one_dimension(name: str, kind: str, norm: str | None, device: str, torch: Any) -> None:
    for n, dim in ((None, -1), (3, -1), (8, 0), (1, 1)):
        check(name, kind, torch, device, n, dim, norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_along_several_dimensions(name: str, kind: str, norm: str | None, device: str, torch: Any) -> None:
    for s, dim in ((None, None), ((2, 6), None), ((-1, 3), (2, 0)), (None, (1,)), (4, 1)):
        check(f"{name}n", kind, torch, device, s, dim, norm)
    for s in (None, (4, 3)):
        check(f"{name}2", kind, torch, device, s, (-2, -1), norm)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_without_cufft(name: str, kind: str, monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    """Products with DFT matrices, of prime and composite numbers of points."""
    monkeypatch.setattr(fourier, "_has_library", lambda array: False)
    for n in (1, 2, 7, 67, 134, 192):
        check(name, kind, torch, "cpu", n, -1, "ortho", shape=(2, 9))
    check(f"{name}n", kind, torch, "cpu", (3, 4), (0, 2), None)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64", "bool"])
def test_precision(dtype: str, device: str, torch: Any) -> None:
    """Single precision stays single precision, and integers become the default dtype."""
    array = (complex_normal(0, 6, 50, dtype="complex64") * 3).astype(dtype) if dtype == "complex64" else (
        complex_normal(0, 6, 50, dtype="float64") * 3).astype(dtype)  # fmt: skip
    for name in ("fft", "ifft", "fft2", "irfft", "rfft", "ihfft", "hfftn"):
        if dtype == "complex64" and name in ("rfft", "ihfft"):
            continue
        ours = getattr(gpunet.fft, name)(gpunet.tensor(array, device=device))
        theirs = getattr(torch.fft, name)(torch.tensor(array)).resolve_conj()
        assert str(theirs.dtype) == f"torch.{ours.dtype}"
        numpy.testing.assert_allclose(ours.cpu().numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6 * abs(theirs.numpy()).max())


def test_round_trips(device: str) -> None:
    x = gpunet.randn(3, 7, 6, device=device)
    z = gpunet.randn(3, 7, 6, device=device, dtype=gpunet.complex64)
    for forward, inverse, value, options in (
        ("fft", "ifft", z, {}), ("fft2", "ifft2", z, {}), ("fftn", "ifftn", z, {}), ("rfft", "irfft", x, {"n": 6}),
        ("rfft2", "irfft2", x, {"s": (7, 6)}), ("rfftn", "irfftn", x, {"s": (3, 7, 6)}), ("ihfft", "hfft", x, {"n": 6}),
        ("fftshift", "ifftshift", x, {}),
    ):  # fmt: skip
        back = getattr(gpunet.fft, inverse)(getattr(gpunet.fft, forward)(value), **options)
        assert gpunet.allclose(back, value, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_frequencies_and_shifts(n: int, device: str, torch: Any) -> None:
    for d in (1.0, 0.5):
        numpy.testing.assert_allclose(gpunet.fft.fftfreq(n, d, device=device).cpu().numpy(), torch.fft.fftfreq(n, d).numpy(), rtol=1e-6)
        numpy.testing.assert_allclose(gpunet.fft.rfftfreq(n, d=d).cpu().numpy(), torch.fft.rfftfreq(n, d=d).numpy(), rtol=1e-6)
    assert gpunet.fft.fftfreq(n, dtype=gpunet.float64).dtype == gpunet.float64
    for name in ("fftshift", "ifftshift"):
        for dim in (None, 0, (1, 2)):
            check_complex(lambda t, x: getattr(t.fft, name)(x, dim), [complex_normal(0, n, 3, 4)], torch, device)


ERRORS: dict[str, tuple[Any, type[GpunetError], str]] = {
    "halves": (lambda: gpunet.fft.fft(gpunet.ones(4).half()), DtypeError, "fft: the tensor has dtype float16; expected float32"),
    "rfft of complex": (lambda: gpunet.fft.rfft(gpunet.ones(4) * 1j), DtypeError, "rfft: the tensor has dtype complex64; expected real"),
    "no points": (lambda: gpunet.fft.fft(gpunet.ones(4), 0), ShapeError, "fft: 0 points along dimension 0; expected 1 or more"),
    "n=-1": (lambda: gpunet.fft.fft(gpunet.ones(4), -1), ShapeError, "fft: n=-1; expected 1 or more"),
    "empty": (lambda: gpunet.fft.rfft(gpunet.ones(3, 0)), ShapeError, "rfft: 0 points along dimension 1"),
    "irfft of one": (lambda: gpunet.fft.irfft(gpunet.ones(1)), ShapeError, "irfft: 0 points .* pass the number of real points"),
    "norm": (lambda: gpunet.fft.fft(gpunet.ones(4), norm="x"), ArgumentError, "fft: norm='x'; expected 'forward', 'backward' or 'ortho'"),
    "dim": (lambda: gpunet.fft.fft(gpunet.ones(4), dim=2), GpunetError, "fft: dim=2"),
    "0-d": (lambda: gpunet.fft.fft(gpunet.tensor(1.0)), ShapeError, "fft: a tensor without dimensions"),
    "fft2 of a vector": (lambda: gpunet.fft.fft2(gpunet.ones(4)), GpunetError, "fft2: "),
    "s and dim": (lambda: gpunet.fft.fftn(gpunet.ones(4, 4), (2, 2), (0,)), ArgumentError, r"fftn: s=\(2, 2\), dim=\(0,\); expected a size"),
    "dim twice": (lambda: gpunet.fft.fftn(gpunet.ones(4, 4), dim=(0, 0)), GpunetError, "fftn: "),
    "too many sizes": (lambda: gpunet.fft.fftn(gpunet.ones(4), (2, 2)), ShapeError, r"fftn: s=\(2, 2\) for a tensor of shape \(4,\)"),
    "rfftn of none": (lambda: gpunet.fft.rfftn(gpunet.ones(4), dim=()), ShapeError, "rfftn: no dimension to transform"),
    "n of another type": (lambda: gpunet.fft.fft(gpunet.ones(4), 2.5), DtypeError, "fft: n=2.5 has type float; expected an integer"),
    "integer frequencies": (lambda: gpunet.fft.fftfreq(4, dtype=gpunet.int64), DtypeError, "fftfreq: dtype=int64; expected a floating"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


# ---- short-time transforms ------------------------------------------------------------------------------------------------

SIGNAL, SIGNALS, WINDOW = (complex_normal(0, 40, dtype="float64"), complex_normal(1, 2, 40, dtype="float64"), numpy.hanning(10)[1:-1])
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {}, "normalized": {"normalized": True}, "not centred": {"center": False}, "both sides": {"onesided": False},
    "hop": {"hop_length": 3}, "window of 6": {"win_length": 6},
}  # fmt: skip


def _window(options: dict[str, Any]) -> numpy.ndarray:
    return WINDOW[: options.get("win_length", 8)]


@pytest.mark.parametrize("name", OPTIONS)
def test_stft(name: str, device: str, torch: Any) -> None:
    options = OPTIONS[name]
    for signal in (SIGNAL, SIGNALS):
        call = lambda t, x, w: t.stft(x, 8, window=w, return_complex=True, **options)
        check_complex(call, [signal, _window(options)], torch, device)


@pytest.mark.parametrize("name", OPTIONS)
def test_istft(name: str, device: str, torch: Any) -> None:
    options = OPTIONS[name]
    for signal, length in ((SIGNAL, None), (SIGNALS, 30)):
        call = lambda t, x, w: t.istft(
            x.stft(8, window=w, return_complex=True, **options), 8, window=w, length=length, **options
        )  # fmt: skip
        check_complex(call, [signal, _window(options)], torch, device)


def test_stft_of_complex_signals(device: str, torch: Any) -> None:
    signal = complex_normal(0, 40)
    check_complex(lambda t, x, w: t.stft(x, 8, window=w), [signal, WINDOW], torch, device)
    check_complex(lambda t, x, w: t.stft(x, 8, window=w, pad_mode="constant"), [SIGNAL, WINDOW * 1j], torch, device)
    call = lambda t, x, w: x.stft(8, window=w).istft(8, window=w, onesided=False, return_complex=True)
    check_complex(call, [signal, WINDOW], torch, device)


def test_stft_without_window_warns() -> None:
    x = gpunet.randn(40)
    with pytest.warns(UserWarning, match=r"stft: no window; frames are cut out sharply. Pass window=gpunet.hann_window\(8\)"):
        z = x.stft(8, return_complex=True)
    with pytest.warns(UserWarning, match="istft: no window"):
        assert gpunet.allclose(z.istft(8), x, atol=1e-5)
    parts = gpunet.stft(x, 8, window=gpunet.ones(8), return_complex=False)
    assert gpunet.allclose(gpunet.view_as_complex(parts.contiguous()), z, atol=1e-6)


W = gpunet.ones(4)
STFT_ERRORS: dict[str, tuple[Any, type[GpunetError], str]] = {
    "return_complex": (lambda: gpunet.stft(gpunet.ones(9), 4, window=W), ArgumentError, "stft: return_complex is missing"),
    "integers": (lambda: gpunet.stft(gpunet.ones(9).long(), 4, window=W, return_complex=True), DtypeError, "stft: the tensor has dtype int64"),
    "three dimensions": (lambda: gpunet.stft(gpunet.ones(1, 1, 9), 4, window=W, return_complex=True), ShapeError, "expected a signal"),
    "short": (lambda: gpunet.stft(gpunet.ones(3), 4, window=W, center=False, return_complex=True), ShapeError, "expected at least n_fft=4"),
    "window": (lambda: gpunet.stft(gpunet.ones(9), 8, window=W, return_complex=True), ShapeError, r"window of shape \(4,\); expected \(8,\)"),
    "win_length": (lambda: gpunet.stft(gpunet.ones(9), 4, win_length=5, return_complex=True), ArgumentError, "expected win_length <= n_fft"),
    "hop": (lambda: gpunet.stft(gpunet.ones(9), 4, 0, window=W, return_complex=True), ArgumentError, "hop_length=0; expected 1 or more"),
    "onesided": (lambda: gpunet.stft(gpunet.ones(9) * 1j, 4, window=W, onesided=True), ArgumentError, "stft: onesided=True of complex"),
    "istft of real": (lambda: gpunet.istft(gpunet.ones(3, 4), 4, window=W), DtypeError, "istft: the tensor has dtype float32"),
    "frequencies": (lambda: gpunet.istft(gpunet.ones(2, 4) * 1j, 4, window=W), ShapeError, "istft: 2 frequencies; expected 3 for n_fft=4"),
    "no overlap": (
        lambda: gpunet.istft(gpunet.ones(3, 4) * 1j, 4, window=gpunet.hann_window(4), center=False), ArgumentError,
        "istft: the squares of the windows add up to 0 at some points",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STFT_ERRORS)
def test_stft_errors(name: str) -> None:
    call, error, message = STFT_ERRORS[name]
    with pytest.raises(error, match=message):
        call()
