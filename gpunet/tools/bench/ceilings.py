"""The limits of the machine, measured in the same run as the contestants.

* GEMM rate: a large matrix product; on the CPU the best of gpunet, PyTorch and JAX, if they take part.
* Bandwidth: a copy as large as the memory that a step touches, so that it includes the effect of the caches.
* GPU only: the latency of a CUDA graph node and of a kernel launch, and the GEMM rates in TF32 and bfloat16.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy

from gpunet.backend import blas, devices
from gpunet.backend.devices import Device
from gpunet.errors import DeviceError

_GEMM = {"cpu": 1024, "cuda": 8192}
_LAUNCHES = 200


def best_seconds(function: Callable[[], object], clock: str = "wall") -> float:
    """Shortest time of one call, over 50 ms of calls and at least five, after one warm-up call."""
    now = time.process_time if clock == "processor" else time.perf_counter
    function()
    found: list[float] = []
    end = now() + 0.05
    while len(found) < 5 or now() < end:
        start = now()
        function()
        found.append(now() - start)
    return min(found)


def measure(device: str, footprint: float, clock: str = "wall", size: int | None = None) -> dict[str, float]:
    """Measure the limits of a device.

    Args:
        device: "cpu", "cuda", or "emulated" (its limits are those of the CPU).
        footprint: bytes that a step touches. Bandwidth is measured on a copy of half of it, which reads and writes it all.
        clock: "wall", or on the CPU "processor".
        size: number of rows and columns of the matrices in the product.

    Returns:
        "gemm" in FLOP/s and "bandwidth" in bytes/s; on a GPU also "node" and "launch" in seconds.
    """
    if Device(device).type != "cuda":
        return {"gemm": cpu_gemm("gpunet", clock, size), "bandwidth": _cpu_bandwidth(footprint, clock)}
    return {**_gpu_constants(size), "bandwidth": cuda_bandwidth(footprint)}


@functools.cache
def _gpu_constants(size: int | None) -> dict[str, float]:
    """Limits that do not depend on the step, measured once per process."""
    return {"gemm": gemm_rate("float32", size), **graph_latency()}


def floor(flop: float, moved: float, launches: int, ceilings: dict[str, float]) -> float:
    """Lower bound of the seconds of a step: the largest of the times for its FLOPs, its bytes, and its launches in sequence."""
    return max(flop / ceilings["gemm"], moved / ceilings["bandwidth"], launches * ceilings.get("node", 0.0))


# ---- CPU --------------------------------------------------------------------------------------------------------------


def cpu_gemm(through: str, clock: str = "wall", size: int | None = None) -> float:
    """FLOP/s of a float32 matrix product through "gpunet", "numpy", "torch" or "jax", each with its own BLAS."""
    size = size or _GEMM["cpu"]
    a, b = numpy.random.default_rng(0).standard_normal((2, size, size), numpy.float32)
    product: Callable[[], object]
    if through == "torch":
        import torch

        x, y = torch.from_numpy(a), torch.from_numpy(b)
        z = torch.empty_like(x)
        product = lambda: torch.mm(x, y, out=z)  # noqa: E731
    elif through == "jax":
        import jax

        function, u, v = jax.jit(lambda u, v: u @ v), jax.numpy.asarray(a), jax.numpy.asarray(b)
        product = lambda: function(u, v).block_until_ready()  # noqa: E731
    else:
        out = numpy.empty_like(a)
        dot = blas.dot if through == "gpunet" else numpy.dot
        product = lambda: dot(a, b, out)  # noqa: E731
    return 2.0 * size**3 / best_seconds(product, clock)


def _cpu_bandwidth(footprint: float, clock: str) -> float:
    source = numpy.random.default_rng(0).standard_normal(max(1024, int(footprint) // 8), numpy.float32)
    target = numpy.empty_like(source)
    return 2.0 * source.nbytes / best_seconds(lambda: numpy.copyto(target, source), clock)


# ---- GPU --------------------------------------------------------------------------------------------------------------


def cuda_seconds(function: Callable[[], object], repeats: int = 20, rounds: int = 5) -> float:
    """Seconds of one call on the current stream: the shortest of ``rounds``, by events around ``repeats`` calls."""
    cuda = devices.cupy().cuda
    function()
    stream = cuda.get_current_stream()
    start, end, found = cuda.Event(), cuda.Event(), []
    for _ in range(rounds):
        start.record(stream)
        for _ in range(repeats):
            function()
        end.record(stream)
        end.synchronize()
        found.append(cuda.get_elapsed_time(start, end) / 1e3 / repeats)
    return float(min(found))


def cuda_bandwidth(footprint: float) -> float:
    """Bytes/s, read and written, of a copy on the GPU."""
    xp = devices.cupy()
    source = xp.asarray(numpy.random.default_rng(0).standard_normal(max(1024, int(footprint) // 8), numpy.float32))
    target = xp.empty_like(source)
    return 2.0 * source.nbytes / cuda_seconds(lambda: xp.copyto(target, source))


def gemm_rate(precision: str, size: int | None = None) -> float:
    """FLOP/s of cuBLAS in "float32" (without TF32), "tf32" or "bfloat16".

    PyTorch calls cuBLAS; without PyTorch, CuPy does so for float32.

    Raises:
        DeviceError: cuBLAS is not installed.
    """
    size = size or _GEMM["cuda"]
    values = numpy.random.default_rng(0).standard_normal((2, size, size), numpy.float32)
    function = _torch_product(values, precision) or (_cupy_product(values) if precision == "float32" else None)
    if function is None:
        raise DeviceError(
            f"no cuBLAS for {precision} products: install PyTorch for CUDA or, for float32, the cuBLAS that CuPy loads"
        )
    return 2.0 * size**3 / cuda_seconds(function, repeats=5)


def _torch_product(values: numpy.ndarray, precision: str) -> Callable[[], object] | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.from_numpy(v).to("cuda", dtype) for v in values)
    out = torch.empty_like(a)

    def product() -> None:  # runs on the default stream, where CuPy records its events
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.matmul(a, b, out=out)
        torch.backends.cuda.matmul.allow_tf32 = before

    return product


def _cupy_product(values: numpy.ndarray) -> Callable[[], object] | None:
    xp = devices.cupy()
    a, b = map(xp.asarray, values)
    out = xp.empty_like(a)
    try:
        xp.matmul(a, b, out=out)
    except Exception:  # CuPy raises several types if cuBLAS is not installed
        return None
    return lambda: xp.matmul(a, b, out=out)


def graph_latency() -> dict[str, float]:
    """Seconds per empty kernel: as a node in a chain of a CUDA graph ("node"), and of the host per launch ("launch")."""
    from gpunet.backend import compiler, nvrtc

    cuda = devices.cupy().cuda
    capability = cuda.Device().compute_capability
    architecture = compiler.architecture((int(capability[:-1]), int(capability[-1])))
    options = (*compiler.OPTIONS, f"--gpu-architecture={architecture}")
    text = "template <class T> __global__ void empty() {}"
    program = nvrtc.load().compile(text, "empty.cu", ("empty<float>",), options)
    module = cuda.Module()
    module.load(program.cubin)
    empty = module.get_function(program.lowered["empty<float>"])
    stream = cuda.Stream(non_blocking=True)
    with stream:
        empty((1,), (32,), ())
        stream.synchronize()
        stream.begin_capture()
        for _ in range(_LAUNCHES):
            empty((1,), (32,), ())
        graph = stream.end_capture()
        graph.upload(stream)
        node = cuda_seconds(lambda: graph.launch(stream), repeats=10) / _LAUNCHES

        def launch() -> None:
            for _ in range(_LAUNCHES):
                empty((1,), (32,), ())

        launched = best_seconds(launch) / _LAUNCHES
        stream.synchronize()
    return {"node": node, "launch": launched}
