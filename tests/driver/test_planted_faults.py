"""Five kinds of faults, planted in code as gpunet has it: each is caught, and the same code without the fault passes."""

from __future__ import annotations

import pytest

from tests.driver.processes import run

_GPUNET = """
import gc
import gpunet
from gpunet.backend import devices
from gpunet.backend.devices import Device as Place
from gpunet.errors import LaunchError, OutOfRangeError
from gpunet.launch.kernel import Geometry
from gpunet.ops.activations import activation_forward
from gpunet.ops.dropout import dropout_apply

def new(values, place="cuda:0", dtype="f4"):
    return gpunet.tensor(numpy.asarray(values, dtype), device=place).array
"""

with_and_without = pytest.mark.parametrize("planted", [False, True], ids=["correct", "planted"])


def run_on(planted: bool, code: str, *options: str) -> None:
    run(f"planted = {planted}\n{_GPUNET}{code}", *options)


@with_and_without
def test_a_wrong_device(planted: bool) -> None:
    """A launch without the contract's check, as a replay makes it."""
    run_on(planted, """
x, y = new([-1.0, 2.0], "cuda:1"), devices.empty((2,), "f4", Place("cuda:0" if planted else "cuda:1"))
launch = lambda: activation_forward.launch((y, x), {"activation": "relu", "alpha": 0.0})
if planted:
    with pytest.raises(LaunchError, match="arrays on different GPUs"):
        activation_forward(y, x, activation="relu", alpha=0.0)
    with refuses("kernel .*activation_forward.* runs on device 0 and is given memory of device 1 without peer access"):
        launch()
else:
    launch()
    assert devices.to_host(y).tolist() == [0.0, 2.0]
""", "--devices", "2")  # fmt: skip


@with_and_without
def test_a_missing_wait(planted: bool) -> None:
    """Another stream is made the current one for a launch; behind it the outer stream has to wait."""
    run_on(planted, """
x, y = new([-1.0, 2.0]), new([7.0, 7.0])
devices.synchronize("cuda")
side = Stream(non_blocking=True)
if planted:
    Stream.wait_event = lambda self, event: None
with devices.stream_guard(Place("cuda"), side):
    activation_forward(y, x, activation="relu", alpha=0.0)
assert devices.to_host(y).tolist() == ([7.0, 7.0] if planted else [0.0, 2.0])
""", "--lazy")  # fmt: skip


@with_and_without
def test_a_buffer_freed_while_a_graph_uses_it(planted: bool) -> None:
    """A CUDA graph uses what was allocated while it was captured, so the pool of that memory has to live as long."""
    run_on(planted, """
x, y, pools = new([1.0, 2.0]), new([0.0, 0.0]), []
cupy.add(x * 2, 1, out=y)  # compiles
class Pool(cupy.cuda.MemoryPool):
    def __init__(self):
        super().__init__()
        pools.append(self)
cupy.cuda.MemoryPool = Pool
launch = devices.record_cuda_graph(lambda: cupy.add(x * 2, 1, out=y), Place("cuda"))
if planted:
    pools[0].free_all_blocks()
    with refuses("cuGraphLaunch: kernel .* that was freed"):
        launch()
else:
    del pools[0]
    gc.collect()
    launch()
    assert devices.to_host(y).tolist() == [3.0, 5.0]
""")


@with_and_without
def test_a_wrong_argument_size(planted: bool) -> None:
    """A geometry gives an int where the kernel takes a long long."""
    run_on(planted, """
x, y, mask = new([1.0, 2.0]), new([0.0, 0.0]), new([1, 0], dtype="?")
size = numpy.int32 if planted else numpy.int64
dropout_apply.geometry(lambda y, x, mask, *, scale: Geometry(1, 256, (size(y.size), float(scale))))
launch = lambda: dropout_apply(y, x, mask, scale=2.0)
if planted:
    for _ in range(2):
        with pytest.raises(LaunchError, match="argument 3 is int32, which is passed as 4 bytes, where .* parameter has 8"):
            launch()
else:
    launch()
    assert devices.to_host(y).tolist() == [2.0, 0.0]
""")


@with_and_without
def test_an_index_out_of_range(planted: bool) -> None:
    """gpunet's own kernels report it; a kernel that relies on its index is found in check mode."""
    run_on(planted, """
index = gpunet.tensor([0, 3 + planted], device="cuda")
table, y = gpunet.arange(4, dtype=gpunet.float32, device="cuda"), new([0.0, 0.0])
pick = kernel('''extern "C" __global__ void pick(float* y, const float* table, const long long* index) {
  y[threadIdx.x] = table[index[threadIdx.x]];
}''', "pick")
arguments = (y, table.array, index.array)
if planted:
    table[index]
    with pytest.raises(OutOfRangeError, match="index 4 is out of bounds"):
        gpunet.synchronize("cuda")
    message = "reads 4 bytes at .*cu:2, up to 4 bytes past the end of the allocation of argument 1 of 16 bytes"
    with refuses(f"kernel pick: out of bounds: {message}"):
        pick((1,), (2,), arguments)
else:
    pick((1,), (2,), arguments)
    assert table[index].tolist() == devices.to_host(y).tolist() == [0.0, 3.0]
""", "--check")  # fmt: skip
