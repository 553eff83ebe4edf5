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
    (launch,) = kernels.launches(device, _WIDTH[device.type], [KERNELS[name]])

    def run():
        launch()
        devices.synchronize(device)

    run()
    benchmark.extra_info.update(label=launch.label, device=str(device), **launch.cost._asdict())
    benchmark.pedantic(run, rounds=20, iterations=1, warmup_rounds=3)
    seconds = benchmark.stats.stats.min if benchmark.stats else None  # None with --benchmark-disable
    if seconds:
        rate, unit = launch.rate(seconds)
        benchmark.extra_info[unit] = round(rate, 1)
