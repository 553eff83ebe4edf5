"""The record of an error that a kernel reports is read with the value that the host waits for anyway."""

from __future__ import annotations

from tests.driver.processes import run

_WITH_A_RECORD = """
import gpunet
x = gpunet.arange(12, dtype=gpunet.float32, device="cuda").reshape(4, 3)
index = gpunet.tensor([0, 2], device="cuda")
assert x[index].sum().item() == 24  # from here on the device has a record
def waits(read):
    x.add_(0.0)
    before = driver.host_waits()
    read()
    return driver.host_waits() - before
"""


def test_a_read_waits_once() -> None:
    run(f"""{_WITH_A_RECORD}
assert waits(lambda: x.array.get()) == 1
assert waits(lambda: x[0, 0].item()) == 1
assert waits(lambda: x.tolist()) == 1
assert waits(lambda: gpunet.synchronize("cuda")) == 1
with Stream(non_blocking=True) as stream:
    stream.wait_event(Stream.null.record())
    assert waits(lambda: x.cpu()) == 1
""", "--lazy")  # fmt: skip


def test_each_way_to_wait_raises_the_error_once() -> None:
    run(f"""{_WITH_A_RECORD}
empty = gpunet.empty(0, device="cuda")
for read in (x.tolist, lambda: x[0, 0].item(), empty.cpu, lambda: gpunet.synchronize("cuda")):
    y = x[index + 2]
    with pytest.raises(IndexError, match="index 4 is out of bounds"):
        read()
    read()
""", "--lazy")  # fmt: skip
