"""Loading compiled kernels."""

from __future__ import annotations

import pytest

from gpunet.backend import compiler
from gpunet.backend.devices import Device
from gpunet.errors import DeviceError


def test_device_without_a_loader_names_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_functions", {})
    monkeypatch.delitem(compiler._loaders, "emulated", raising=False)
    with pytest.raises(DeviceError, match="device 'emulated' has no loader: import gpunet.emulator"):
        compiler.function("dropout.cu", "dropout_apply<float>", Device("emulated"))


@pytest.mark.parametrize(
    "cuda_version, capability, expected",
    [(12010, 70, 32764), (13000, 120, 32764), (12000, 90, 4096), (12010, 61, 4096), (12000, 61, 4096)],
)
def test_parameters_are_large_from_cuda_12_1_and_volta(cuda_version: int, capability: int, expected: int) -> None:
    assert compiler._parameter_bytes(cuda_version, capability) == expected
    assert compiler.max_parameter_bytes(Device("emulated")) == 32764
