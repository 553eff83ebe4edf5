"""Captured steps of complex numbers and Fourier transforms: replays compute what eager computes."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.captured.compiled import module
from gpunet.errors import CaptureError

BACKENDS = ["numpy", pytest.param("numba", marks=pytest.mark.skipif(not module.available(), reason="Numba is not installed"))]


def losses(device: str, run: Any) -> list[float]:
    """Of a network with complex weights, transforms in several dimensions, and a loss of spectra."""
    gpunet.manual_seed(0)
    options: dict[str, Any] = {"dtype": gpunet.float64, "device": device}
    weight = gpunet.nn.Parameter(0.3 * gpunet.randn(3, 4, 5, dtype=gpunet.complex128, device=device))
    layer = gpunet.nn.Linear(3, 4, **options)
    optimizer = gpunet.optim.Adam([weight, *layer.parameters()], lr=0.01)
    x, y, window = gpunet.randn(2, 16, 3, **options), gpunet.randn(2, 16, 4, **options), gpunet.rand(8, **options)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        spectrum = gpunet.fft.rfft(x.permute(0, 2, 1))
        low = gpunet.zeros(2, 4, 9, dtype=gpunet.complex128, device=device)
        low[:, :, :5] = gpunet.einsum("bix,iox->box", spectrum[:, :, :5], weight)
        out = gpunet.nn.functional.gelu(gpunet.fft.irfft(low, n=16).permute(0, 2, 1) + layer(x))
        frames = gpunet.stft(out[:, :, 0], 8, window=window, return_complex=True)
        planes = gpunet.fft.fft2(out)
        loss = ((out - y) ** 2).mean() + 0.01 * planes.abs().mean() + 0.01 * (frames * frames.conj()).real.mean()
        loss = loss + 1e-3 * (planes.exp() / (planes**2 + 1j)).imag.tanh().mean() + 1e-3 * (planes + 1j).angle().mean()
        loss.backward()
        optimizer.step()
        return loss

    step = run(step)
    found = []
    for _ in range(5):
        x.add_(0.1)
        found.append(step(x, y).item())
    return [*found, *gpunet.view_as_real(weight.detach()).cpu().numpy().ravel().tolist()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_replays_follow_their_arguments(backend: str) -> None:
    found = losses("cpu", lambda step: gpunet.capture(step, backend=backend))
    numpy.testing.assert_allclose(found, losses("cpu", lambda step: step), rtol=1e-12 if backend == "numba" else 0)


def test_replays_on_every_device(device: str) -> None:
    numpy.testing.assert_allclose(losses(device, gpunet.capture), losses("cpu", lambda step: step), rtol=1e-9)


def test_istft_is_named_as_a_graph_break() -> None:
    """It reads the weights of the frames, to raise an error where windows do not overlap."""
    window, z = gpunet.hann_window(8), gpunet.randn(5, 9, dtype=gpunet.complex64)
    with pytest.raises(CaptureError, match="istft, which checks that windows overlap"):
        gpunet.capture(lambda z: gpunet.istft(z, 8, window=window))(z)
