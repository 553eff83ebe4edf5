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
