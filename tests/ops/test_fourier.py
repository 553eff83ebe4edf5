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
        for name in ("fftfreq", "rfftfreq"):
            ours, theirs = getattr(gpunet.fft, name)(n, d, device=device), getattr(torch.fft, name)(n, d=d)
            numpy.testing.assert_allclose(ours.cpu().numpy(), theirs.numpy(), rtol=1e-6)
    assert gpunet.fft.fftfreq(n, dtype=gpunet.float64).dtype == gpunet.float64
    for name in ("fftshift", "ifftshift"):
        for dim in (None, 0, (1, 2)):
            check(name, "complex128", torch, device, dim, shape=(n, 3, 4))


X, W, fft = gpunet.ones(4), gpunet.ones(4), gpunet.fft
ERRORS = (
    ("fft.fft(X.half())", DtypeError, "fft: the tensor has dtype float16; expected float32"),
    ("fft.rfft(X * 1j)", DtypeError, "rfft: the tensor has dtype complex64; expected real"),
    ("fft.fft(X, 0)", ShapeError, "fft: 0 points along dimension 0; expected 1 or more"),
    ("fft.fft(X, -1)", ShapeError, "fft: n=-1; expected 1 or more"),
    ("fft.fft(X, 2.5)", DtypeError, "fft: n=2.5 has type float; expected an integer"),
    ("fft.rfft(gpunet.ones(3, 0))", ShapeError, "rfft: 0 points along dimension 1"),
    ("fft.irfft(X[:1])", ShapeError, "irfft: 0 points .* pass the number of real points"),
    ("fft.fft(X, norm='x')", ArgumentError, "fft: norm='x'; expected 'forward', 'backward' or 'ortho'"),
    ("fft.fft(X, dim=2)", GpunetError, "fft: dim=2"),
    ("fft.fft(X[0])", ShapeError, "fft: a tensor without dimensions"),
    ("fft.fft2(X)", GpunetError, "fft2: "),
    ("fft.fftn(gpunet.ones(4, 4), (2, 2), (0,))", ArgumentError, r"fftn: s=\(2, 2\), dim=\(0,\); expected a size"),
    ("fft.fftn(gpunet.ones(4, 4), dim=(0, 0))", GpunetError, "fftn: "),
    ("fft.fftn(X, (2, 2))", ShapeError, r"fftn: s=\(2, 2\) for a tensor of shape \(4,\)"),
    ("fft.rfftn(X, dim=())", ShapeError, "rfftn: no dimension to transform"),
    ("fft.fftfreq(4, dtype=gpunet.int64)", DtypeError, "fftfreq: dtype=int64; expected a floating"),
    ("gpunet.stft(X, 4, window=W)", ArgumentError, "stft: return_complex is missing"),
    ("gpunet.stft(X.long(), 4, window=W, return_complex=True)", DtypeError, "stft: the tensor has dtype int64"),
    ("gpunet.stft(X[None, None], 4, window=W, return_complex=True)", ShapeError, "stft: .* expected a signal"),
    ("gpunet.stft(X[:3], 4, window=W, center=False, return_complex=True)", ShapeError, "stft: .* expected at least n_fft=4"),
    ("gpunet.stft(X, 8, window=W, return_complex=True)", ShapeError, r"stft: window of shape \(4,\); expected \(8,\)"),
    ("gpunet.stft(X, 4, win_length=5, return_complex=True)", ArgumentError, "stft: .* expected win_length <= n_fft"),
    ("gpunet.stft(X, 4, 0, window=W, return_complex=True)", ArgumentError, "stft: hop_length=0; expected 1 or more"),
    ("gpunet.stft(X * 1j, 4, window=W, onesided=True)", ArgumentError, "stft: onesided=True of complex"),
    ("gpunet.stft(X[:2], 4, window=W, return_complex=True)", ShapeError, "stft: a signal of 2 points; expected at least 3"),
    ("gpunet.stft(X, 4, window=W, pad_mode='edge', return_complex=True)", ArgumentError, "stft: pad_mode='edge'; expected one of"),
    ("gpunet.istft(gpunet.ones(3, 4) * 1j, 4, window=W, length=50.5)", DtypeError, "istft: length=50.5"),
    ("gpunet.istft(gpunet.ones(3, 4) * 1j, 4, window=W, length=-20)", ArgumentError, "istft: length=-20; expected 1 or more"),
    ("gpunet.istft(gpunet.ones(3, 4), 4, window=W)", DtypeError, "istft: the tensor has dtype float32"),
    ("gpunet.istft(gpunet.ones(2, 4) * 1j, 4, window=W)", ShapeError, "istft: 2 frequencies; expected 3 for n_fft=4"),
    (
        "gpunet.istft(gpunet.ones(3, 4) * 1j, 4, window=gpunet.hann_window(4), center=False)", ArgumentError,
        "istft: the squares of the windows add up to 0 at some points",
    ),
)  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[call for call, *_ in ERRORS])
def test_errors(call: str, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=message):
        eval(call)


# ---- short-time transforms ------------------------------------------------------------------------------------------------

SIGNAL, SIGNALS = complex_normal(0, 40, dtype="float64"), complex_normal(1, 2, 40, dtype="float64")
WINDOW = numpy.hanning(10)[1:-1]
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {}, "normalized": {"normalized": True}, "not centred": {"center": False}, "both sides": {"onesided": False},
    "hop": {"hop_length": 3}, "window of 6": {"win_length": 6},
}  # fmt: skip


def _window(options: dict[str, Any]) -> numpy.ndarray:
    return WINDOW[: options.get("win_length", 8)]


@pytest.mark.parametrize("name", OPTIONS)
def test_stft(name: str, device: str, torch: Any) -> None:
    options = OPTIONS[name]

    def call(t: Any, x: Any, w: Any) -> Any:
        return t.stft(x, 8, window=w, return_complex=True, **options)

    for signal in (SIGNAL, SIGNALS):
        check_complex(call, [signal, _window(options)], torch, device)


@pytest.mark.parametrize("name", OPTIONS)
def test_istft(name: str, device: str, torch: Any) -> None:
    options = OPTIONS[name]

    def call(t: Any, x: Any, w: Any) -> Any:
        spectra = x.stft(8, window=w, return_complex=True, **options)
        return t.istft(spectra, 8, window=w, length=None if x.ndim == 1 else 30, **options)

    for signal in (SIGNAL, SIGNALS):
        check_complex(call, [signal, _window(options)], torch, device)


def test_stft_of_complex_signals(device: str, torch: Any) -> None:
    signal = complex_normal(0, 40)
    check_complex(lambda t, x, w: t.stft(x, 8, window=w), [signal, WINDOW], torch, device)
    check_complex(lambda t, x, w: t.stft(x, 8, window=w, pad_mode="constant"), [SIGNAL, WINDOW * 1j], torch, device)
    check_complex(
        lambda t, x, w: x.stft(8, window=w).istft(8, window=w, onesided=False, return_complex=True), [signal, WINDOW], torch, device
    )


def test_stft_without_window_warns() -> None:
    x = gpunet.randn(40)
    with pytest.warns(UserWarning, match=r"stft: no window; frames are cut out sharply. Pass window=gpunet.hann_window\(8\)"):
        z = x.stft(8, return_complex=True)
    with pytest.warns(UserWarning, match="istft: no window"):
        assert gpunet.allclose(z.istft(8), x, atol=1e-5)
    parts = gpunet.stft(x, 8, window=gpunet.ones(8), return_complex=False)
    assert gpunet.allclose(gpunet.view_as_complex(parts.contiguous()), z, atol=1e-6)
