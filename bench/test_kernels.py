"""One launch of every kernel, large enough to time.

pytest bench/test_kernels.py --device cuda
"""

from __future__ import annotations

import pytest

from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.kernel import KERNELS
from gpunet.tools.bench import kernels

_WIDTH = {"cpu": 512, "cuda": 4096, "emulated": 32}


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name, benchmark, request):
    device = Device(request.config.getoption("--device"))
    (launch,) = kernels.launches(device, _WIDTH[device.type], lambda other: other == name)

    def run():
        launch()
        devices.synchronize(device)

    run()
    benchmark.extra_info.update(label=launch.label, device=str(device), flop=launch.flop, bytes=launch.bytes)
    benchmark.pedantic(run, rounds=20, iterations=1, warmup_rounds=3)
    seconds = benchmark.stats.stats.min if benchmark.stats else None  # None with --benchmark-disable
    if seconds:
        rate = launch.flop / seconds / 1e9 if launch.flop else launch.bytes / seconds / 1e9
        benchmark.extra_info["GFLOP/s" if launch.flop else "GB/s"] = round(rate, 1)
