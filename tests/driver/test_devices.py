"""Two devices, with and without peer access."""

from __future__ import annotations

from tests.driver.processes import run

_TWO = """
fill = kernel(FILL, "fill")
with Device(1):
    there = array(runtime.malloc(64), 16)
arguments = (there, numpy.float32(3), numpy.int32(16))
"""


def test_memory_of_another_device_needs_peer_access() -> None:
    run(f"""{_TWO}
assert not runtime.deviceCanAccessPeer(0, 1)
with refuses("cudaErrorPeerAccessUnsupported"):
    runtime.deviceEnablePeerAccess(1)
with refuses("ILLEGAL_ADDRESS.*kernel fill runs on device 0 and is given memory of device 1 without peer access"):
    fill((1,), (16,), arguments)
driver.clear_faults()
with Device(1):
    kernel(FILL, "fill")((1,), (16,), arguments)
    assert (there.get() == 3).all()
""", "--devices", "2")  # fmt: skip


def test_peer_access_is_enabled_once_and_for_one_direction() -> None:
    run(f"""{_TWO}
with refuses("without peer access"):
    fill((1,), (16,), arguments)
driver.clear_faults()
runtime.deviceEnablePeerAccess(1)
fill((1,), (16,), arguments)
assert (there.get() == 3).all()
with refuses("cudaErrorPeerAccessAlreadyEnabled"):
    runtime.deviceEnablePeerAccess(1)
here = array(runtime.malloc(64), 16)
with Device(1):
    other = kernel(FILL, "fill")
    with refuses("runs on device 1 and is given memory of device 0"):
        other((1,), (16,), (here, numpy.float32(3), numpy.int32(16)))
""", "--devices", "2", "--peers")  # fmt: skip


def test_streams_events_and_kernels_belong_to_a_device() -> None:
    run(f"""{_TWO}
loaded = fill.kernel  # of device 0
with Device(1):
    event = Event()
    with refuses("INVALID_HANDLE.*fill was loaded on device 0, the stream belongs to device 1"):
        loaded((1,), (16,), arguments)
with refuses("cudaErrorInvalidResourceHandle.*the event belongs to device 1, the stream to device 0"):
    runtime.eventRecord(event.ptr, 0)
with refuses("cudaErrorInvalidDevice.*device 2 of 2"):
    Device(2).use()
""", "--devices", "2")  # fmt: skip


def test_arrays_move_between_devices() -> None:
    run("""
    x = cupy.arange(10)
    with Device(1):
        y = cupy.asarray(x)
        assert y.device.id == 1 and (y.get() == numpy.arange(10)).all() and (y + y).device.id == 1
    with pytest.raises(ValueError, match="Peer access is unavailable"):
        x + y
    """, "--devices", "2")  # fmt: skip
